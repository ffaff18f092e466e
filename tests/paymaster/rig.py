"""A sponsor on a real chain: anvil with both real entry points and our paymaster contract, and the service in or out of process."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import sys
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from contracts import deploy
from contracts.devnet import anvil, entry_points, packages
from contracts.devnet.accounts import Accounts, devnet_key
from contracts.devnet.chain import CHAIN_ID, Builder
from contracts.entrypoint import ENTRY_POINTS, USER_OPERATION_EVENT, V08, EntryPoint, by_address
from contracts.entrypoint.base import DEPOSIT_TO
from contracts.eoa import Eoa
from contracts.rpc import RpcClient
from contracts.types import Address, Hash32, Wei, checksum, keccak, parse_bytes, parse_hash, to_hex
from contracts.userop import UserOperation, intent_hash
from paymaster.approval import Approval
from paymaster.main import run
from paymaster.settings import Settings, from_mapping
from policies.attestation import IntentApproval

ROOT = Path(__file__).resolve().parents[2]
RISK_VALIDATOR: Address = keccak(b"the validator whose domain approvals are signed under")[:20]
POLICY: Hash32 = keccak(b"a policy")
DEPOSIT_WEI: Wei = 10**20
START_S = 1_583_992_800
"""12 March 2020, 06:00 UTC."""
_YES = bytes.fromhex("5f5f5260205ff3")
"""An account that validates everything and does nothing: `return 0` to every call."""


@dataclass(slots=True)
class Chain:
    """anvil, the entry points and a funded paymaster on each. Mines only when told to."""

    rpc: RpcClient
    build: Builder
    accounts: Accounts
    paymasters: dict[Address, Address]
    node: anvil.Anvil | None = None
    _fresh: int = field(default=0)

    @property
    def engine(self) -> Eoa:
        return self.accounts.engine

    @classmethod
    @contextlib.asynccontextmanager
    async def start(cls) -> AsyncIterator[Chain]:
        """A chain of its own for a test that stops or rewinds it."""
        binary = await asyncio.to_thread(anvil.find_binary)
        await asyncio.to_thread(
            packages.fetch, [p for p in packages.protocol_packages() if "account-abstraction" in p.name]
        )
        arguments = ["--chain-id", str(CHAIN_ID), "--hardfork", "prague", "--no-mining", "--timestamp", str(START_S)]
        async with await anvil.Anvil.start(binary.path, arguments) as node, RpcClient(node.url) as rpc:
            accounts = Accounts.derive()
            for eoa in accounts.by_name().values():
                await rpc.call("anvil_setBalance", to_hex(eoa.address), hex(10**24))
            build = Builder(rpc, accounts, START_S)
            await entry_points.deploy_entry_points(build)
            paymasters = {}
            for entry_point in ENTRY_POINTS.values():
                owner, signer = accounts.paymaster_owner.address, accounts.paymaster_signer.address
                code = deploy.init_code(
                    "VerifyingPaymaster", ["address", "address", "address"], [entry_point.address, owner, signer]
                )
                await build.transact(deploy.CREATE2_DEPLOYER, deploy.SALT + code)
                paymaster = deploy.create2_address(code)
                await build.transact(entry_point.address, DEPOSIT_TO.encode(paymaster), value=DEPOSIT_WEI)
                paymasters[entry_point.address] = paymaster
            yield cls(rpc, build, accounts, paymasters, node)

    async def stop(self) -> None:
        """Take the node away."""
        assert self.node is not None
        await self.node.stop()

    async def account(self) -> Address:
        """A new account that agrees to everything."""
        self._fresh += 1
        address = keccak(b"account %d" % self._fresh)[:20]
        await self.rpc.call("anvil_setCode", to_hex(address), to_hex(_YES))
        return address

    def approve(self, op: UserOperation, *, engine: Eoa | None = None, **changes: Any) -> Approval:
        """What a policy engine says to `op`."""
        engine = engine or self.engine
        fields: dict[str, Any] = {
            "account": op.sender,
            "intent_hash": intent_hash(op),
            "policy_id": POLICY,
            "policy_epoch": 1,
            "facts_hash": keccak(b"facts"),
            "decision": 1,
            "valid_until_s": self.build.now_s + 3_600,
        }
        said = IntentApproval(**(fields | changes))
        return Approval(engine.address, said, engine.sign_hash(said.digest(CHAIN_ID, RISK_VALIDATOR)))

    async def include(self, *ops: UserOperation, entry_point: EntryPoint = V08) -> list[tuple[Hash32, Wei]]:
        """Carry `ops` in one bundle. Returns hash and cost of each; raises SetupError when the entry point refuses."""
        bundler = self.accounts.bundler
        receipt = await self.build.transact(
            entry_point.address, entry_point.encode_handle_ops(ops, bundler.address), sender=bundler
        )
        events = [
            USER_OPERATION_EVENT.decode([parse_hash(t) for t in log["topics"]], parse_bytes(log["data"]))
            for log in receipt["logs"]
            if log["topics"][0] == to_hex(USER_OPERATION_EVENT.topic)
        ]
        return [(event[0], event[5]) for event in events]


def operation(sender: Address, nonce: int = 0, **changes: Any) -> UserOperation:
    """An operation without paymaster. Its own part of the prefund: 10^6 gas at 10 gwei, 0.01 ETH."""
    fields: dict[str, Any] = {
        "call_data": b"hello",
        "call_gas_limit": 400_000,
        "verification_gas_limit": 500_000,
        "pre_verification_gas": 100_000,
        "max_fee_per_gas": 10 * 10**9,
        "max_priority_fee_per_gas": 10**9,
    } | changes
    return UserOperation(sender=sender, nonce=nonce, **fields)


def settings(chain: Chain, ledger: Path, **changes: Any) -> dict[str, Any]:
    """The settings file as a mapping; nested tables are merged."""
    merged: dict[str, Any] = {
        "rpc_url": chain.rpc.url,
        "ledger": str(ledger),
        "engines": [to_hex(chain.engine.address)],
        "risk_validator": to_hex(RISK_VALIDATOR),
        "paymasters": {by_address(at).version: checksum(paymaster) for at, paymaster in chain.paymasters.items()},
        "budget": {"per_operation_wei": 10**18, "per_account_day_wei": 10**18, "total_wei": 10 * 10**18},
        "port": 0,
        "chain_id": CHAIN_ID,
        "confirmations": 1,
        "poll_s": 0.05,
    }
    for name, value in changes.items():
        merged[name] = merged[name] | value if isinstance(value, dict) and name in merged else value
    return merged


@dataclass(slots=True)
class Sponsor:
    """A running service and a client to it."""

    url: str
    rpc: RpcClient
    chain: Chain

    async def data(
        self,
        op: UserOperation,
        approval: Approval | Mapping[str, Any] | None = None,
        *,
        entry_point: EntryPoint = V08,
    ) -> UserOperation:
        """`op` with what pm_getPaymasterData answers, approved by the engine unless an approval is given."""
        approval = self.chain.approve(op) if approval is None else approval
        said = approval.to_rpc() if isinstance(approval, Approval) else dict(approval)
        answer = await self.rpc.call(
            "pm_getPaymasterData", op.to_rpc(), checksum(entry_point.address), hex(CHAIN_ID), {"approval": said}
        )
        return sponsored(op, answer)

    async def stub(self, op: UserOperation, *, entry_point: EntryPoint = V08) -> dict[str, Any]:
        answer: dict[str, Any] = await self.rpc.call(
            "pm_getPaymasterStubData", op.to_rpc(), checksum(entry_point.address), hex(CHAIN_ID), {}
        )
        return answer

    async def status(self) -> dict[str, Any]:
        """Makes the service look at the chain first."""
        answer: dict[str, Any] = await self.rpc.call("seawall_status")
        return answer


def sponsored(op: UserOperation, answer: Mapping[str, Any]) -> UserOperation:
    """`op` with the paymaster fields of an ERC-7677 answer."""
    return op.replace(
        paymaster=parse_bytes(answer["paymaster"]),
        paymaster_data=parse_bytes(answer["paymasterData"]),
        paymaster_verification_gas_limit=int(answer["paymasterVerificationGasLimit"], 16),
        paymaster_post_op_gas_limit=int(answer["paymasterPostOpGasLimit"], 16),
    )


@contextlib.asynccontextmanager
async def sponsoring(chain: Chain, folder: Path, **changes: Any) -> AsyncIterator[Sponsor]:
    """The service inside this process, its ledger in `folder`."""
    key_file = private_file(folder / "signer.key", devnet_key("paymaster_signer").hex())
    changes.setdefault("start_block", await chain.rpc.block_number() + 1)
    given = settings(chain, folder / "ledger.sqlite", **changes)
    parsed: Settings = from_mapping(given | {"signer": {"key_file": str(key_file)}})
    heard: asyncio.Future[dict[str, Any]] = asyncio.get_running_loop().create_future()
    task = asyncio.create_task(run(parsed, heard.set_result))
    task.add_done_callback(lambda _: heard.cancel())
    try:
        url = (await heard)["url"]
    except asyncio.CancelledError:
        await task  # raises why it did not start
        raise
    try:
        async with RpcClient(url) as rpc:
            yield Sponsor(url, rpc, chain)
    finally:
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task


def private_file(path: Path, text: str) -> Path:
    """A file that only its owner can read."""
    path.write_text(text)
    path.chmod(0o600)
    return path


def toml(tree: Mapping[str, Any]) -> str:
    """TOML of plain values and one level of tables: both spell them as JSON does."""
    lines = [f"{json.dumps(key)} = {json.dumps(value)}" for key, value in tree.items() if not isinstance(value, dict)]
    for name, table in tree.items():
        if isinstance(table, dict):
            lines += [f"[{name}]", *(f"{json.dumps(key)} = {json.dumps(value)}" for key, value in table.items())]
    return "\n".join(lines)


@dataclass(slots=True)
class Process:
    """`python -m paymaster` as an operator starts it."""

    process: asyncio.subprocess.Process
    sponsor: Sponsor
    listening: dict[str, Any]

    async def stop(self) -> int:
        """SIGTERM; the exit code."""
        self.process.terminate()
        return await self.process.wait()


@contextlib.asynccontextmanager
async def process(chain: Chain, folder: Path, *, crash_at: str | None = None, **changes: Any) -> AsyncIterator[Process]:
    """A real process with its ledger in `folder`; killed at the end if it still runs. `crash_at` names a checkpoint."""
    changes.setdefault("start_block", await chain.rpc.block_number() + 1)
    config = folder / "paymaster.toml"
    config.write_text(toml(settings(chain, folder / "ledger.sqlite", **changes)))
    reader, writer = os.pipe()
    os.write(writer, devnet_key("paymaster_signer").hex().encode())
    os.close(writer)
    environment = os.environ | {"SEAWALL_PAYMASTER_KEY_FD": str(reader), "PYTHONPATH": str(ROOT)}
    if crash_at is not None:
        environment["SEAWALL_CRASH_AT"] = crash_at
    started = await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        "paymaster",
        "--config",
        str(config),
        stdout=asyncio.subprocess.PIPE,
        env=environment,
        pass_fds=[reader],
    )
    os.close(reader)
    assert started.stdout is not None
    try:
        line = await asyncio.wait_for(started.stdout.readline(), 30)
        listening = json.loads(line) if line else {"event": "died", "url": "http://127.0.0.1:9"}
        async with RpcClient(listening["url"]) as rpc:
            yield Process(started, Sponsor(listening["url"], rpc, chain), listening)
    finally:
        if started.returncode is None:
            started.kill()
        await started.wait()
