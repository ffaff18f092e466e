"""A guarded account on the real devnet, and keeper and bundler as real processes that can be killed and started again."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import socket
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from contracts import abi
from contracts import bindings as b
from contracts.abi import Function
from contracts.bindings import AccountConfig, FreezeConfig, ModuleInit, Session
from contracts.devnet import Devnet, devnet_key
from contracts.devnet.feeds import PUSH
from contracts.entrypoint import V08
from contracts.entrypoint.base import DEPOSIT_TO
from contracts.eoa import Eoa, TransactionSender
from contracts.rpc import RpcClient
from contracts.types import Address, checksum, keccak

ROOT = Path(__file__).resolve().parents[2]
WAD = 10**18
SPOT_FEE_PIPS = 500
STOP_ID = 7
KEEPER_KEY = devnet_key("keeper")
DEADLINE_S = 30.0
WETH_DEPOSIT = Function.parse("deposit()")

_T = TypeVar("_T")


async def until(ask: Callable[[], Awaitable[_T | None]], what: str, process: Process | None = None) -> _T:
    """Poll until `ask` gives something true. A failure quotes the end of the log of `process`."""
    deadline = time.monotonic() + DEADLINE_S
    while time.monotonic() < deadline:
        if found := await ask():
            return found
        await asyncio.sleep(0.02)
    log = process.log.read_text()[-4_000:] if process is not None else ""
    raise AssertionError(f"waited {DEADLINE_S:g} s in vain for {what}\n{log}")


class Process:
    """One service of ours, by `python -m MODULE`."""

    def __init__(self, module: str, arguments: list[str], directory: Path) -> None:
        self.module = module
        self.arguments = arguments
        self.log = directory / f"{module.replace('.', '-')}.log"
        self.url = ""
        self._process: asyncio.subprocess.Process | None = None

    async def start(self, environment: Mapping[str, str] | None = None, *, listening: bool = True) -> None:
        """Start; wait for the line that says where it listens unless told not to."""
        clean = {name: value for name, value in os.environ.items() if not name.startswith("SEAWALL_")}
        with self.log.open("ab") as log:
            self._process = await asyncio.create_subprocess_exec(
                sys.executable,
                "-m",
                self.module,
                *self.arguments,
                stdin=asyncio.subprocess.DEVNULL,
                stdout=asyncio.subprocess.PIPE,
                stderr=log,
                cwd=ROOT,
                env=clean | dict(environment or {}),
            )
        if not listening:
            return
        assert self._process.stdout is not None
        async with asyncio.timeout(DEADLINE_S):
            line = await self._process.stdout.readline()
        assert line, self.log.read_text()
        self.url = json.loads(line)["url"]

    async def ended(self) -> int:
        """Its exit code, once it has one."""
        assert self._process is not None
        async with asyncio.timeout(DEADLINE_S):
            return await self._process.wait()

    async def stop(self, *, kill: bool = False) -> int:
        assert self._process is not None
        if self._process.returncode is None:
            self._process.kill() if kill else self._process.terminate()
        try:
            return await self.ended()
        except TimeoutError:
            self._process.kill()
            return await self.ended()

    def facts(self) -> list[dict[str, Any]]:
        """What it logged, for services that log one JSON object a line."""
        lines = self.log.read_text().splitlines()
        return [json.loads(line) for line in lines if line.startswith("{")]


@dataclass(frozen=True, slots=True)
class Terms:
    """What differs between the stops of the tests. Seconds, basis points, wei; sizes in ether."""

    trigger_price: int = 2_900
    max_size: int = 10
    cooldown_s: int = 0
    widen_s: int = 0
    public_delay_s: int = 0
    slippage_bps: int = 2_000
    max_deviation_bps: int = 10_000
    deviation_patience_s: int = 0
    prefund_budget_wei: int = 10 * WAD
    extras: tuple[int, int, int, int, int] = (0, 0, 0, 0, 0)
    """Amount, dust, trail (1e18 = one), trail (basis points), group."""


class Rig:
    """One account with WETH, a spot stop and a session for the keeper's key, on a chain that is put back afterwards."""

    def __init__(self, net: Devnet, directory: Path) -> None:
        self.net = net
        self.rpc = net.rpc
        self.directory = directory
        self.trader = TransactionSender(net.rpc, net.accounts.trader, net.chain_id)
        self.account: Address = b""
        self.start_block = 0
        self.running: list[Process] = []

    async def create_account(self, terms: Terms | None = None, *, key: Eoa | None = None, salt: bytes = b"") -> Address:
        """Deploy and fund it. The owner's built-in path stays open; the session is the keeper's unless `key` says otherwise."""
        a, terms = self.net.addresses, terms or Terms()
        self.start_block = await self.rpc.block_number()
        session = self.session(key or self.net.accounts.keeper, terms)
        config = AccountConfig(
            owner=b.ecdsa_owner(self.net.accounts.owner.address),
            authority=a.emergency_freeze,
            admin_delay_s=0,
            prefund_caps_wei=(WAD, WAD, WAD),
            modules=(
                ModuleInit(
                    b.MODULE_EXECUTOR,
                    a.emergency_freeze,
                    FreezeConfig((self.net.accounts.guardian.address,), 1, 60, 120, 60, 60, (a.stop_loss,)).encode(),
                ),
                ModuleInit(
                    b.MODULE_VALIDATOR,
                    a.session_validator,
                    b.encode_sessions(session),
                ),
                ModuleInit(
                    b.MODULE_EXECUTOR,
                    a.stop_loss,
                    abi.encode(["uint256[]", b.STOP + "[]"], [[STOP_ID], [self.stop(terms)]]),
                ),
            ),
        )
        user_salt = keccak(salt or str(self.directory).encode())
        answer = await self.rpc.eth_call(
            a.risk_account_factory, b.GET_ACCOUNT_ADDRESS.encode(config.to_abi(), user_salt)
        )
        (account,) = b.GET_ACCOUNT_ADDRESS.decode(answer)
        await self.trader.transact(a.risk_account_factory, b.CREATE_ACCOUNT.encode(config.to_abi(), user_salt))
        await self.trader.transact(V08.address, DEPOSIT_TO.encode(account), value=WAD)
        await self.trader.transact(a.weth, WETH_DEPOSIT.encode(), value=10 * WAD)
        await self.trader.transact(a.weth, b.TRANSFER.encode(account, 10 * WAD))
        self.account = account
        return self.account

    def session(self, key: Eoa, terms: Terms) -> Session:
        return Session(
            key.address, 0, 2**47 - 1, self.net.addresses.stop_loss, b.GUARD_EXECUTE.selector, terms.prefund_budget_wei
        )

    def stop(self, terms: Terms) -> tuple[object, ...]:
        a = self.net.addresses
        market = abi.encode(["address", "address", "uint24"], [a.weth, a.usdc, SPOT_FEE_PIPS])
        oracle = (
            a.feed_eth_usd,
            86_400,
            bytes(20),
            0,
            1,
            10**6 * WAD,
            terms.max_deviation_bps,
            terms.deviation_patience_s,
        )
        return (
            a.uniswap_adapter,
            market,
            True,
            terms.trigger_price * WAD,
            10_000,
            terms.max_size * WAD,
            terms.slippage_bps,
            5_000,
            terms.widen_s,
            terms.cooldown_s,
            terms.public_delay_s,
            *3 * (0,),
            *terms.extras,
            oracle,
        )

    async def price(self, dollars: int) -> None:
        """Drive the feed, in a block of its own."""
        now = int((await self.rpc.block())["timestamp"], 16)
        feeder = TransactionSender(
            self.rpc, self.net.accounts.feeder, self.net.chain_id
        )  # new: the chain may have been put back
        await feeder.transact(self.net.addresses.feed_eth_usd, PUSH.encode(dollars * 10**8, now))

    async def mine(self) -> None:
        await self.rpc.call("evm_mine")

    def bundler(self, *flags: str, executor: str = "bundler", port: int = 0) -> Process:
        """A bundler whose executor is that devnet account; one that is not on the devnet has no money and so sends nothing."""
        key = self._secret(f"executor-{executor}.key", devnet_key(executor))
        database = self.directory / f"bundler-{len(self.running)}.db"
        arguments = ["--rpc-url", self.net.rpc_url, "--database", str(database), "--port", str(port), *flags]
        return self._process("bundler", [*arguments, "--key-file", str(key)])

    def keeper(self, bundler_url: str, name: str = "keeper", *, key: bytes = KEEPER_KEY, settings: str = "") -> Process:
        """A keeper with a database of its own. `settings` is more TOML for its [keeper] table."""
        a = self.net.addresses
        secret = self._secret(f"{name}.key", key)
        config = self.directory / f"{name}.toml"
        config.write_text(
            f'rpc_url = "{self.net.rpc_url}"\nbundler_url = "{bundler_url}"\nchain_id = {self.net.chain_id}\n'
            "[addresses]\n"
            + "".join(
                f'{field} = "{checksum(getattr(a, field))}"\n'
                for field in ("multicall3", "stop_loss", "session_validator")
            )
            + f'[keeper]\nsession_key_file = "{secret}"\ndb = "{self.directory / name}.db"\npoll_ms = 20\n'
            f"from_block = {self.start_block}\n{settings}"
        )
        return self._process("wallet.keeper", ["--config", str(config)])

    def _process(self, module: str, arguments: list[str]) -> Process:
        process = Process(module, arguments, self.directory)
        self.running.append(process)
        return process

    def _secret(self, name: str, key: bytes) -> Path:
        path = self.directory / name
        path.touch(mode=0o600)
        path.write_text(key.hex())
        return path

    async def fired(self) -> int:
        """How often the stop has fired on chain."""
        topics = [b.GUARD_FIRED.topic, bytes(12) + self.account]
        return len(await self.rpc.logs(self.net.addresses.stop_loss, topics, self.start_block))

    async def executed(self) -> int:
        """How many parts were executed on chain."""
        topics = [b.STOP_EXECUTED.topic, bytes(12) + self.account]
        return len(await self.rpc.logs(self.net.addresses.stop_loss, topics, self.start_block))

    async def status(self, keeper: Process) -> dict[str, Any]:
        async with RpcClient(keeper.url) as rpc:
            answer: dict[str, Any] = await rpc.call("seawall_status")
            return answer

    async def wait_fired(self, keeper: Process) -> dict[str, Any]:
        """The keeper's own account of the fired stop."""

        async def ask() -> dict[str, Any] | None:
            fired = (await self.status(keeper))["fired"]
            return fired[0] if fired else None

        return await until(ask, "the keeper to report the stop as fired", keeper)

    async def wait_head(self, keeper: Process) -> dict[str, Any]:
        """The keeper's status once it has dealt with the newest block."""
        head = await self.rpc.block_number()

        async def ask() -> dict[str, Any] | None:
            status = await self.status(keeper)
            return status if status["head"] is not None and status["head"] >= head else None

        return await until(ask, f"the keeper to process head {head}", keeper)


@contextlib.asynccontextmanager
async def rig_on(net: Devnet, directory: Path) -> AsyncIterator[Rig]:
    """A rig whose processes are all gone afterwards."""
    rig = Rig(net, directory)
    try:
        yield rig
    finally:
        for process in rig.running:
            if process._process is not None:
                await process.stop(kill=True)


def free_port() -> int:
    """A port that nothing listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port
