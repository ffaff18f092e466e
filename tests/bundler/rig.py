"""A bundler on a real chain: anvil with the real entry points and SimpleAccount, the service in process or as a process."""

from __future__ import annotations

import asyncio
import contextlib
import gzip
import json
import os
import sys
import tempfile
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import IO, Any

from bundler.keys import KeyFile
from bundler.main import run
from bundler.settings import Settings
from contracts.abi import Function
from contracts.devnet import anvil, packages
from contracts.devnet.accounts import FUNDS_WEI, Accounts, devnet_key
from contracts.devnet.chain import CHAIN_ID, Builder, bytecode
from contracts.devnet.entry_points import deploy_entry_points
from contracts.entrypoint import USER_OPERATION_EVENT, V07, V08, V09, EntryPoint
from contracts.entrypoint.base import DEPOSIT_TO, GET_NONCE
from contracts.eoa import Eoa, TransactionSender
from contracts.rpc import RpcClient
from contracts.types import Address, Hash32, Wei, keccak, parse_bytes, parse_hash, parse_quantity, to_hex
from contracts.userop import UserOperation

ROOT = Path(__file__).resolve().parents[2]
GWEI = 10**9
START_S = 1_700_000_000
"""Unix time at which the chain begins; its clock runs on from there."""
DUMMY_SIGNATURE = bytes.fromhex("ff" * 15 + "f0" + "00" * 16 + "7a" + "aa" * 31 + "1c")
"""Recovers to nobody's key, at the cost of a real one."""
TARGET: Address = keccak(b"somebody to pay")[:20]
EXECUTE = Function.parse("execute(address,uint256,bytes)")
ADD_STAKE = Function.parse("addStake(uint32)")
CREATE_ACCOUNT = Function.parse("createAccount(address,uint256)(address)")
GET_ADDRESS = Function.parse("getAddress(address,uint256)(address)")
PAYMASTER_OK = bytes.fromhex("60405f525f6020525f60405260605ff3")
"""A paymaster that pays for everything: returns (empty context, 0)."""
REVERTS = bytes.fromhex("5f5ffd")


def answers(word: int) -> bytes:
    """Runtime code that answers every call with one word."""
    return b"\x7f" + word.to_bytes(32) + bytes.fromhex("5f5260205ff3")


def paymaster_answers(word: int) -> bytes:
    """Runtime code of a paymaster that answers (empty context, `word`)."""
    return bytes.fromhex("60405f527f") + word.to_bytes(32) + bytes.fromhex("6020525f60405260605ff3")


BLOCKS = 1 << 47
"""On entry point v0.9: the number beside it is a block's."""


def validation_word(*, aggregator: int = 0, valid_after_s: int = 0, valid_until_s: int = 0) -> int:
    return valid_after_s << 208 | valid_until_s << 160 | aggregator


async def until(condition: Callable[[], Awaitable[Any]], what: str, timeout_s: float = 20.0) -> Any:
    """The first truthy result of `condition`, asked again and again."""
    loop = asyncio.get_running_loop()
    deadline = loop.time() + timeout_s
    while not (result := await condition()):
        if loop.time() > deadline:
            raise AssertionError(f"not within {timeout_s:g} s: {what}")
        await asyncio.sleep(0.005)
    return result


def simple_account_package(version: str) -> packages.Package:
    """SimpleAccountFactory out of the pinned tarball that the devnet takes its entry points from."""
    return replace(
        packages.locked()[f"@account-abstraction/contracts@{version}"], files=("artifacts/SimpleAccountFactory.json",)
    )


@dataclass(slots=True)
class Chain:
    """anvil with the entry points and a SimpleAccountFactory for each. Mines a block for every transaction."""

    anvil: anvil.Anvil
    rpc: RpcClient
    factories: dict[str, Address]
    accounts: Accounts = field(default_factory=Accounts.derive)
    _fresh: int = 0

    @classmethod
    async def build(cls, state: Path) -> dict[str, Address]:
        """Make the state that `start` loads; returns the factories by entry-point version."""
        binary = await asyncio.to_thread(anvil.find_binary)
        wanted = [p for p in packages.protocol_packages() if p.name == "@account-abstraction/contracts"]
        simple = {
            V07: simple_account_package("0.7.0"),
            V08: simple_account_package("0.8.0"),
            V09: simple_account_package("0.9.0-rc.1"),
        }
        await asyncio.to_thread(packages.fetch, [*wanted, *simple.values()])
        accounts = Accounts.derive()
        arguments = [*_ARGUMENTS, "--no-mining", "--timestamp", str(START_S)]
        async with await anvil.Anvil.start(binary.path, arguments) as node, RpcClient(node.url) as rpc:
            for eoa in accounts.by_name().values():
                await rpc.call("anvil_setBalance", to_hex(eoa.address), hex(FUNDS_WEI))
            builder = Builder(rpc, accounts, START_S)
            await deploy_entry_points(builder)
            factories = {
                entry_point.version: await builder.deploy(
                    bytecode(package, "artifacts/SimpleAccountFactory.json"), ["address"], [entry_point.address]
                )
                for entry_point, package in simple.items()
            }
            dump = await rpc.call("anvil_dumpState")
        # `anvil_dumpState` gives gzip, `--load-state` reads plain JSON.
        await asyncio.to_thread(state.write_bytes, gzip.decompress(parse_bytes(dump)))
        return factories

    @classmethod
    @contextlib.asynccontextmanager
    async def start(cls, state: Path, factories: dict[str, Address]) -> AsyncIterator[Chain]:
        """A chain of its own."""
        binary = await asyncio.to_thread(anvil.find_binary)
        arguments = [*_ARGUMENTS, "--load-state", str(state), "--timestamp", str(START_S + 60)]
        async with (
            await anvil.Anvil.start(binary.path, arguments) as node,
            RpcClient(node.url) as rpc,
        ):
            yield cls(node, rpc, factories)

    async def mine(self, blocks: int = 1) -> None:
        await self.rpc.call("anvil_mine", hex(blocks))

    async def automine(self, on: bool) -> None:
        await self.rpc.call("evm_setAutomine", on)

    async def put(self, code: bytes, *, deposit_on: EntryPoint | None = None, deposit_wei: Wei = 10**18) -> Address:
        """A contract with this runtime code at a fresh address, with a deposit."""
        address = self.fresh_address()
        await self.rpc.call("anvil_setCode", to_hex(address), to_hex(code))
        if deposit_on is not None:
            await self.deposit(deposit_on, address, deposit_wei)
        return address

    async def deposit(self, entry_point: EntryPoint, address: Address, wei: Wei = 10**18) -> None:
        sender = TransactionSender(self.rpc, self.accounts.trader2, CHAIN_ID)
        await sender.transact(entry_point.address, DEPOSIT_TO.encode(address), value=wei, gas=200_000)

    async def stake(self, entry_point: EntryPoint, address: Address, wei: Wei = 10**18, delay_s: int = 86_400) -> None:
        """Lock a stake in the name of any address."""
        await self.rpc.call("anvil_setBalance", to_hex(address), hex(wei + 10**18))
        await self.rpc.call("anvil_impersonateAccount", to_hex(address))
        call = {
            "from": to_hex(address),
            "to": to_hex(entry_point.address),
            "data": to_hex(ADD_STAKE.encode(delay_s)),
            "value": hex(wei),
            "gas": hex(200_000),
        }
        receipt = await self.rpc.wait_receipt(parse_hash(await self.rpc.call("eth_sendTransaction", call)))
        assert receipt["status"] == "0x1"
        await self.rpc.call("anvil_stopImpersonatingAccount", to_hex(address))

    def fresh_address(self) -> Address:
        self._fresh += 1
        return keccak(f"fresh {self.anvil.port} {self._fresh}".encode())[:20]

    async def now_s(self) -> int:
        return int((await self.rpc.block())["timestamp"], 16)

    async def account(
        self, entry_point: EntryPoint = V08, *, funds_wei: Wei = 10**18, deployed: bool = False
    ) -> SimpleAccount:
        """A SimpleAccount with a fresh owner, counterfactual unless `deployed`."""
        self._fresh += 1
        key = devnet_key(f"owner {self.anvil.port} {self._fresh}")
        account = await self.account_of(key, entry_point, funds_wei=funds_wei)
        if deployed:
            await self._deploy(account)
        return account

    async def account_of(self, key: bytes, entry_point: EntryPoint = V08, *, funds_wei: Wei = 10**18) -> SimpleAccount:
        """The funded, counterfactual SimpleAccount of one owner."""
        owner = Eoa(key)
        factory = self.factories[entry_point.version]
        answer = await self.rpc.eth_call(factory, GET_ADDRESS.encode(owner.address, 0))
        address: Address = GET_ADDRESS.decode(answer)[0]
        await self.rpc.call("anvil_setBalance", to_hex(address), hex(funds_wei))
        return SimpleAccount(self.rpc, entry_point, address, owner, factory)

    async def _deploy(self, account: SimpleAccount) -> None:
        """Through the factory; from v0.8 on it listens to nobody but the entry point's SenderCreator."""
        caller = self.accounts.trader2.address
        if account.entry_point is not V07:
            function = Function.parse("senderCreator()(address)")
            caller = function.decode(await self.rpc.eth_call(account.factory, function.encode()))[0]
            await self.rpc.call("anvil_setBalance", to_hex(caller), hex(10**20))
        await self.rpc.call("anvil_impersonateAccount", to_hex(caller))
        call = {
            "from": to_hex(caller),
            "to": to_hex(account.factory),
            "data": to_hex(CREATE_ACCOUNT.encode(account.owner.address, 0)),
            "gas": hex(1_000_000),
        }
        tx_hash = await self.rpc.call("eth_sendTransaction", call)
        await self.rpc.wait_receipt(parse_hash(tx_hash))
        await self.rpc.call("anvil_stopImpersonatingAccount", to_hex(caller))

    async def receipts_of(self, entry_point: EntryPoint, op_hash: Hash32) -> list[dict[str, Any]]:
        """Every event of the operation on chain: the judge of exactly-once."""
        return await self.rpc.logs(entry_point.address, [USER_OPERATION_EVENT.topic, op_hash], 0)


_ARGUMENTS = ("--accounts", "0", "--chain-id", str(CHAIN_ID), "--hardfork", "prague", "--order", "fifo")


@dataclass(frozen=True, slots=True)
class SimpleAccount:
    """A foreign account: eth-infinitism's SimpleAccount and its owner."""

    rpc: RpcClient
    entry_point: EntryPoint
    address: Address
    owner: Eoa
    factory: Address

    async def draft(
        self, *, to: Address = TARGET, value_wei: Wei = 1, data: bytes = b"", key: int = 0
    ) -> UserOperation:
        """Unsigned, without gas limits; deploys the account if need be."""
        answer = await self.rpc.eth_call(self.entry_point.address, GET_NONCE.encode(self.address, key))
        exists = bool(await self.rpc.get_code(self.address))
        return UserOperation(
            sender=self.address,
            nonce=GET_NONCE.decode(answer)[0],
            call_data=EXECUTE.encode(to, value_wei, data),
            max_fee_per_gas=20 * GWEI,
            max_priority_fee_per_gas=2 * GWEI,
            signature=DUMMY_SIGNATURE,
            factory=None if exists else self.factory,
            factory_data=b"" if exists else CREATE_ACCOUNT.encode(self.owner.address, 0),
        )

    def sign(self, op: UserOperation) -> UserOperation:
        digest = self.entry_point.user_op_hash(op, CHAIN_ID)
        if self.entry_point is V07:
            digest = keccak(b"\x19Ethereum Signed Message:\n32" + digest)
        return op.replace(signature=self.owner.sign_hash(digest))

    async def operation(self, **options: Any) -> UserOperation:
        """Signed, with limits that suffice for anything a test does."""
        op = await self.draft(**options)
        return self.sign(with_limits(op))


def with_limits(op: UserOperation, **changes: Any) -> UserOperation:
    limits: dict[str, Any] = {
        "call_gas_limit": 100_000,
        "verification_gas_limit": 400_000,
        "pre_verification_gas": 60_000,
        "max_fee_per_gas": op.max_fee_per_gas or 20 * GWEI,
        "max_priority_fee_per_gas": op.max_priority_fee_per_gas or 2 * GWEI,
    }
    if op.paymaster is not None:
        limits |= {"paymaster_verification_gas_limit": 100_000, "paymaster_post_op_gas_limit": 50_000}
    return op.replace(**(limits | changes))


class Client:
    """What a wallet does with a bundler."""

    def __init__(self, rpc: RpcClient) -> None:
        self.rpc = rpc

    async def send(self, op: UserOperation, entry_point: EntryPoint = V08) -> Hash32:
        return parse_hash(await self.rpc.call("eth_sendUserOperation", op.to_rpc(), to_hex(entry_point.address)))

    async def estimate(
        self, op: UserOperation, entry_point: EntryPoint = V08, overrides: Mapping[str, Any] | None = None
    ) -> dict[str, int]:
        extra = [] if overrides is None else [overrides]
        found = await self.rpc.call("eth_estimateUserOperationGas", op.to_rpc(), to_hex(entry_point.address), *extra)
        return {name: parse_quantity(value) for name, value in found.items()}

    async def estimated(self, op: UserOperation, entry_point: EntryPoint = V08) -> UserOperation:
        """`op` with the limits the bundler estimates."""
        found = await self.estimate(op, entry_point)
        return op.replace(
            call_gas_limit=found["callGasLimit"],
            verification_gas_limit=found["verificationGasLimit"],
            pre_verification_gas=found["preVerificationGas"],
            paymaster_verification_gas_limit=found.get("paymasterVerificationGasLimit", 0),
            paymaster_post_op_gas_limit=found.get("paymasterPostOpGasLimit", 0),
        )

    async def receipt(self, op_hash: Hash32) -> dict[str, Any] | None:
        found: dict[str, Any] | None = await self.rpc.call("eth_getUserOperationReceipt", to_hex(op_hash))
        return found

    async def included(self, op_hash: Hash32) -> dict[str, Any]:
        found: dict[str, Any] = await until(lambda: self.receipt(op_hash), f"{to_hex(op_hash)} is included")
        return found

    async def status(self, op_hash: Hash32) -> dict[str, Any] | None:
        found: dict[str, Any] | None = await self.rpc.call("seawall_getUserOperationStatus", to_hex(op_hash))
        return found

    async def becomes(self, op_hash: Hash32, status: str) -> dict[str, Any]:
        async def check() -> dict[str, Any] | None:
            found = await self.status(op_hash)
            return found if found and found["status"] == status else None

        found: dict[str, Any] = await until(check, f"{to_hex(op_hash)} is {status}")
        return found

    async def sent(self, op_hash: Hash32, chain: Chain) -> None:
        """Its bundle is recorded, and the node has it."""
        status = await self.becomes(op_hash, "bundled")
        what = status["transactionHash"]
        await until(lambda: chain.rpc.call("eth_getTransactionByHash", what), f"the node has {what}")

    async def service(self) -> dict[str, Any]:
        found: dict[str, Any] = await self.rpc.call("seawall_status")
        return found

    async def settled(self) -> None:
        """The barrier: everything ever accepted is settled."""

        async def check() -> bool:
            status = await self.service()
            return not (status["validating"] or status["pending"] or status["inFlight"] or status["bundlesInFlight"])

        await until(check, "everything is settled")


def settings_for(chain: Chain, folder: Path, **changes: Any) -> Settings:
    """Settings for a bundler on `chain` with its database in `folder`."""
    key = folder / "executor.key"
    if not key.exists():
        key.touch(mode=0o600)
        key.write_text(devnet_key("bundler").hex())
    values: dict[str, Any] = {
        "rpc_url": chain.anvil.url,
        "executor_key": KeyFile(key),
        "database": folder / "bundler.sqlite",
        "port": 0,
        "idle_poll_interval_s": 0.02,
        "poll_interval_s": 0.01,
        "drain_timeout_s": 0.1,
    }
    return Settings(**(values | changes))


@contextlib.asynccontextmanager
async def serving(settings: Settings) -> AsyncIterator[Client]:
    """The service in this process, on a port of its own."""
    stopping = asyncio.Event()
    url: asyncio.Future[str] = asyncio.get_running_loop().create_future()
    task = asyncio.ensure_future(run(settings, stopping=stopping, listening=url.set_result))

    def ended(task: asyncio.Task[None]) -> None:
        if not url.done():
            url.set_exception(task.exception() or EOFError("it stopped before it listened"))

    task.add_done_callback(ended)
    address = await url
    async with RpcClient(address) as rpc:
        try:
            yield Client(rpc)
        finally:
            stopping.set()
            await task


@dataclass(slots=True)
class Process:
    """The service as a real process."""

    client: Client
    process: asyncio.subprocess.Process
    log: IO[bytes]

    def output(self) -> str:
        """What it has logged so far."""
        self.log.seek(0)
        return self.log.read().decode()

    async def died(self, timeout_s: float = 20.0) -> int:
        """Its exit code, once it has ended."""
        return await asyncio.wait_for(self.process.wait(), timeout_s)


def arguments_of(settings: Settings) -> list[str]:
    """Flags that give the process these settings."""
    key = settings.executor_key
    flags = ["--key-file", str(key.path)] if isinstance(key, KeyFile) else []
    defaults = Settings(rpc_url="", executor_key=KeyFile(Path()), database=Path())
    for name in Settings.__dataclass_fields__:
        value = getattr(settings, name)
        if name not in ("executor_key", "entry_points") and value != getattr(defaults, name):
            text = ",".join(map(str, value)) if isinstance(value, tuple) else str(value)
            flags += [f"--{name.replace('_', '-')}", to_hex(value) if isinstance(value, bytes) else text]
    return flags


@contextlib.asynccontextmanager
async def process(settings: Settings, *, crash_at: str | None = None) -> AsyncIterator[Process]:
    """Start `python -m bundler`, wait until it listens, and end it (SIGKILL) at the latest when the block is left."""
    environment = dict(os.environ) | ({"SEAWALL_CRASH_AT": crash_at} if crash_at else {})
    with tempfile.TemporaryFile("a+b") as log:
        child = await asyncio.create_subprocess_exec(
            sys.executable,
            "-m",
            "bundler",
            *arguments_of(settings),
            cwd=ROOT,
            env=environment,
            stdout=asyncio.subprocess.PIPE,
            stderr=log,
        )
        try:
            assert child.stdout is not None
            line = await asyncio.wait_for(child.stdout.readline(), 20)
            if not line:
                log.seek(0)
                raise AssertionError(f"the bundler did not start: {log.read().decode()}")
            async with RpcClient(json.loads(line)["url"]) as rpc:
                yield Process(Client(rpc), child, log)
        finally:
            if child.returncode is None:
                child.kill()
            await child.wait()


async def handle_ops(chain: Chain, entry_point: EntryPoint, ops: Sequence[UserOperation]) -> dict[str, Any]:
    """Another bundler's transaction."""
    other = chain.accounts.trader
    sender = TransactionSender(chain.rpc, other, CHAIN_ID)
    data = entry_point.encode_handle_ops(ops, other.address)
    return await sender.transact(entry_point.address, data, gas=3_000_000)


def error_data(error: Exception) -> dict[str, Any]:
    """The `data` member of an RpcError."""
    data = getattr(error, "data", None)
    return data if isinstance(data, dict) else {}


async def hand_in_first(chain: Chain, op: UserOperation) -> None:
    """Another bundler's transaction waits in the node, and pays more for its place in the next block than any of ours."""
    other = to_hex(chain.accounts.trader.address)
    await chain.rpc.call("anvil_impersonateAccount", other)
    call = {
        "from": other,
        "to": to_hex(V08.address),
        "data": to_hex(V08.encode_handle_ops([op], chain.accounts.trader.address)),
        "gas": hex(1_000_000),
        "maxFeePerGas": hex(200 * GWEI),
        "maxPriorityFeePerGas": hex(50 * GWEI),
    }
    await chain.rpc.call("eth_sendTransaction", call)
