"""Whether a bundler with given settings would work here: every part it needs is tried, nothing is changed, nothing is sent."""

from __future__ import annotations

import asyncio
import os
import socket
import sqlite3
import time
from collections.abc import AsyncIterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Literal

from bundler import conditional
from bundler.endpoints import METHOD_NOT_FOUND, Endpoint, names_of
from bundler.erc7562.trace import tracer_options
from bundler.fees import choose
from bundler.inflator import Inflator
from bundler.keys import KeyFile
from bundler.settings import Settings
from contracts.errors import NodeError, RpcError, SeawallError, SetupError
from contracts.rpc import RpcClient, without_secrets
from contracts.types import Address, checksum, to_hex

Level = Literal["ok", "warning", "failed"]
_LOW_WEI = 10**16
_CLOCK_TOLERANCE_S = 30
_DEVELOPMENT_CHAINS = frozenset({1337, 31337})


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that was looked at; `advice` says what to do about it."""

    level: Level
    what: str
    text: str
    advice: str = ""

    def to_json(self) -> dict[str, str]:
        return asdict(self)


async def examine(settings: Settings) -> list[Finding]:
    """Everything, in the order in which a start would meet it. Never raises for what it finds."""
    found = [one async for one in _here(settings)]
    executors: tuple[Address, ...] = ()
    try:
        executors = tuple(key.address for key in settings.executors())
        named = ", ".join(checksum(one) for one in executors) or "none: build_bundles is off"
        found.append(Finding("ok", "executor's key", named))
    except SeawallError as error:
        found.append(Finding("failed", "executor's key", error.message))
    async with RpcClient(settings.rpc_url, timeout_s=settings.request_timeout_s) as rpc:
        try:
            found += [one async for one in _node(rpc, settings, executors)]
        except NodeError as error:
            found.append(Finding("failed", "node", error.message, "start the node, or correct rpc_url"))
    return found


async def _here(settings: Settings) -> AsyncIterator[Finding]:
    """What does not need the node: database, ports, exposure, the operator's token."""
    yield await _server(settings) if settings.store else await asyncio.to_thread(_database, settings)
    for name, host, port in (
        ("port", settings.host, settings.port),
        ("admin_port", settings.admin_host, settings.admin_port),
    ):
        if port:
            yield _port(name, host, port)
    public = settings.host not in ("127.0.0.1", "::1", "localhost")
    if public and settings.debug:
        yield Finding(
            "failed", "exposure", f"debug_bundler_* on {settings.host}", "set debug = false, or host = 127.0.0.1"
        )
    elif public and not settings.rate_limit_per_s:
        yield Finding(
            "warning",
            "exposure",
            f"listens on {settings.host} without a rate limit",
            "set rate_limit_per_s, or put a proxy before it",
        )
    if settings.admin_port is not None and settings.admin_host not in ("127.0.0.1", "::1", "localhost"):
        yield Finding(
            "warning",
            "admin address",
            f"{settings.admin_host} can be reached from elsewhere",
            "set admin_host = 127.0.0.1",
        )
    try:
        settings.admin_token()
    except SeawallError as error:
        yield Finding("failed", "operator's token", error.message)
    try:
        settings.api_keys()
    except SeawallError as error:
        yield Finding("failed", "clients' keys", error.message)
    if not settings.safe:
        yield Finding(
            "warning", "rules", "safe = false: a stranger's operation can cost a bundle its gas",
            "only for accounts and paymasters that you trust",
        )  # fmt: skip


async def _server(settings: Settings) -> Finding:
    """Connects and reads; makes nothing."""
    try:
        from bundler.store.postgres import examine
    except ImportError:
        return Finding("failed", "store", "psycopg is not installed", "pip install 'seawall[postgres]'")
    try:
        verdict, advice = await examine(settings.store)
    except SeawallError as error:
        return Finding("failed", "store", error.message)
    return Finding("warning" if advice else "ok", "store", verdict, advice)


def _database(settings: Settings) -> Finding:
    path = settings.database
    if not path.exists():
        folder = next(one for one in path.absolute().parents if one.exists())
        writable = os.access(folder, os.W_OK)
        return Finding(
            "ok" if writable else "failed", "database", f"{path} will be made" if writable else f"{folder} cannot be written to",
            "" if writable else "set database to a path that can",
        )  # fmt: skip
    try:
        with sqlite3.connect(f"file:{path}?mode=rw", uri=True, timeout=0.2) as connection:
            connection.execute("BEGIN IMMEDIATE")
            connection.rollback()
            (verdict,) = connection.execute("PRAGMA quick_check(1)").fetchone()
    except sqlite3.OperationalError as error:
        if "locked" in str(error):
            return Finding("warning", "database", f"{path} is in use", "a bundler runs on it; two cannot share it")
        return Finding("failed", "database", f"{path}: {error}", "set database to a file that can be written to")
    except sqlite3.DatabaseError as error:
        return Finding("failed", "database", f"{path}: {error}", "move it away: it is no database, or damaged")
    if verdict != "ok":
        return Finding("failed", "database", f"{path} is damaged: {verdict}", "restore it, or move it away")
    free = os.statvfs(path).f_bavail * os.statvfs(path).f_frsize
    if free < 100_000_000:
        return Finding(
            "warning",
            "database",
            f"{free // 1_000_000} MB are free beside {path}",
            "make room: a full disk stops intake",
        )
    return Finding("ok", "database", f"{path}, {path.stat().st_size // 1000} kB")


def _port(name: str, host: str, port: int) -> Finding:
    try:
        family, kind, proto, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        with socket.socket(family, kind, proto) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind(address)
    except OSError as error:
        return Finding(
            "warning",
            name,
            f"{host}:{port}: {error.strerror or error}",
            f"a bundler runs there, or choose another {name}",
        )
    return Finding("ok", name, f"{host}:{port} is free")


async def _node(rpc: RpcClient, settings: Settings, executors: Sequence[Address]) -> AsyncIterator[Finding]:
    started_s = time.monotonic()
    chain_id = await rpc.chain_id()
    took_ms = (time.monotonic() - started_s) * 1_000
    version = await _answer(rpc, "web3_clientVersion")
    yield Finding("ok", "node", f"{without_secrets(settings.rpc_url)}: chain {chain_id}, {version}, {took_ms:.0f} ms")
    block = await rpc.block()
    age_s = time.time() - int(block["timestamp"], 16)
    if chain_id not in _DEVELOPMENT_CHAINS:
        yield _age(age_s, settings)
    for entry_point in settings.entry_points:
        place = f"{entry_point.version} at {checksum(entry_point.address)}"
        has_code = bool(await rpc.get_code(entry_point.address))
        yield Finding(
            "ok" if has_code else "failed", "entry point", place if has_code else f"there is none: {place}",
            "" if has_code else "set entry_points to those that exist on this chain",
        )  # fmt: skip
    if settings.safe:
        yield await _tracer(rpc, settings)
        yield await _cheap_pass(rpc, settings)
    try:
        model = await choose(rpc, chain_id, settings.fee_model)
        yield Finding("ok", "fee model", model.name)
    except SeawallError as error:
        yield Finding("failed", "fee model", error.message)
    if settings.inflator is not None:
        yield await _inflator(rpc, settings, settings.inflator, executors)
    yield await _gas_cap(rpc, settings)
    for one, name in zip(settings.submission, names_of(settings.submission), strict=True):
        yield await _endpoint(one, name, chain_id, settings)
    for executor in executors:
        if any(one.wants_plain_caller for one in settings.entry_points) and await rpc.get_code(executor):
            yield Finding(
                "failed", "executor", f"{to_hex(executor)} has code: entry point v0.9 takes no bundle from it",
                "revoke its EIP-7702 delegation, or use another key",
            )  # fmt: skip
        yield await _money(rpc, executor, settings)
    if settings.treasury_key_file is not None:
        yield await _treasury(rpc, settings.treasury_key_file, settings)


async def _answer(rpc: RpcClient, method: str) -> str:
    try:
        return str(await rpc.call(method))[:80]
    except RpcError:
        return "an unnamed client"


def _age(age_s: float, settings: Settings) -> Finding:
    if age_s < -_CLOCK_TOLERANCE_S:
        return Finding(
            "failed", "clock", f"the latest block is {-age_s:.0f} s ahead of this machine", "set the clock (NTP)"
        )
    if settings.max_head_age_s and age_s > settings.max_head_age_s:
        return Finding(
            "failed",
            "head",
            f"the latest block is {age_s:.0f} s old",
            "the node is behind, or this machine's clock is ahead",
        )
    return Finding("ok", "head", f"the latest block is {max(age_s, 0):.0f} s old")


async def _tracer(rpc: RpcClient, settings: Settings) -> Finding:
    """A trace of nothing, by the very tracer that judges operations."""
    entry_point = settings.entry_points[0].address
    call = {"from": to_hex(bytes(20)), "to": to_hex(entry_point), "data": "0x"}
    try:
        await rpc.call("debug_traceCall", call, "latest", tracer_options(entry_point))
    except RpcError as error:
        return Finding(
            "failed", "tracer", f"debug_traceCall: {error.message:.160}",
            "safe mode needs a node that runs JavaScript tracers (geth --http.api debug, reth, anvil), or safe = false",
        )  # fmt: skip
    return Finding("ok", "tracer", "debug_traceCall takes JavaScript tracers")


_PROBE = "0x602a5f5260205ff3"
"""Runtime code that returns 42."""


async def _cheap_pass(rpc: RpcClient, settings: Settings) -> Finding:
    """Which way safe mode can go: the cheap pass wants traces of code that an override puts in place, and prestateTracer."""
    if not settings.cheap_pass:
        return Finding("ok", "safe mode", "full traces only: cheap_pass = false")
    address = to_hex(b"\x5e" * 20)
    call = {"from": to_hex(bytes(20)), "to": address, "data": "0x"}
    found = []
    for tracer in ("callTracer", "prestateTracer"):
        options = {"tracer": tracer, "stateOverrides": {address: {"code": _PROBE}}}
        try:
            found.append(await rpc.call("debug_traceCall", call, "latest", options))
        except RpcError as error:
            return Finding(
                "warning", "safe mode", f"full traces only, some ten times slower: {tracer} with overrides: {error.message:.120}",
                "a node whose debug_traceCall takes stateOverrides (geth, anvil) proves most operations cheaply",
            )  # fmt: skip
    frame = found[0] if isinstance(found[0], dict) else {}
    if not str(frame.get("output", "")).endswith("2a"):
        return Finding(
            "warning", "safe mode", "full traces only, some ten times slower: the node ignores stateOverrides",
            "a node whose debug_traceCall takes stateOverrides (geth, anvil) proves most operations cheaply",
        )  # fmt: skip
    return Finding("ok", "safe mode", "the cheap pass first, full traces for what it leaves open")


async def _gas_cap(rpc: RpcClient, settings: Settings) -> Finding:
    """Whether the node's eth_call is allowed the gas that estimates ask for."""
    probe = {
        "to": None,
        "data": "0x5a5f5260205ff3",
        "gas": hex(settings.simulation_gas),
    }  # init code that returns its gas
    try:
        left = int(await rpc.call("eth_call", {k: v for k, v in probe.items() if v is not None}, "latest"), 16)
    except (RpcError, ValueError) as error:
        return Finding(
            "warning",
            "gas of a call",
            f"the node refuses {settings.simulation_gas}: {error!s:.120}",
            "lower simulation_gas",
        )
    if left < settings.simulation_gas * 9 // 10:
        return Finding(
            "warning", "gas of a call", f"the node gives {left} of {settings.simulation_gas}",
            "raise its cap (geth --rpc.gascap), or lower simulation_gas",
        )  # fmt: skip
    return Finding("ok", "gas of a call", f"{settings.simulation_gas}")


async def _inflator(rpc: RpcClient, settings: Settings, address: Address, executors: Sequence[Address]) -> Finding:
    """Whether bundles can go through it, to every entry point."""
    try:
        found = await Inflator.open(rpc, address, settings.entry_points, executors[0] if executors else bytes(20))
    except SetupError as error:
        return Finding("failed", "inflator", error.message)
    return Finding("ok", "inflator", f"{checksum(address)}, a dictionary of {len(found.dictionary.data)} bytes")


async def _endpoint(endpoint: Endpoint, name: str, chain_id: int, settings: Settings) -> Finding:
    """Whether it answers, serves this chain, and knows the method that it is said to know. Nothing is handed in."""
    kind = "private" if endpoint.private else "public"
    async with RpcClient(endpoint.url, timeout_s=settings.endpoint_timeout_s) as rpc:
        try:
            found = await rpc.chain_id()
            if found != chain_id:
                return Finding("failed", "endpoint", f"{name} serves chain {found}", "correct `submission`")
        except RpcError:
            pass  # a relay may take nothing but transactions
        except NodeError as error:
            return Finding("failed", "endpoint", error.message, "bundles go to the next one as long as it is away")
        if not endpoint.conditional:
            return Finding("ok", "endpoint", f"{name}, {kind}")
        try:
            await rpc.call(conditional.METHOD, "0x", {})
        except RpcError as error:
            if error.rpc_code == METHOD_NOT_FOUND:
                return Finding(
                    "warning", "endpoint", f"{name} does not know {conditional.METHOD}",
                    "say nothing of conditional: it gets plain transactions",
                )  # fmt: skip
        except NodeError as error:
            return Finding("failed", "endpoint", error.message, "bundles go to the next one as long as it is away")
    return Finding("ok", "endpoint", f"{name}, {kind}, takes conditions")


async def _treasury(rpc: RpcClient, path: Path, settings: Settings) -> Finding:
    """Whether it could fill one executor now."""
    try:
        address = KeyFile(path).load().address
    except SeawallError as error:
        return Finding("failed", "treasury", error.message)
    balance = await rpc.get_balance(address)
    shown = f"{balance / 10**18:.6f} of the native token in {checksum(address)}"
    if balance < settings.refill_to_wei:
        return Finding(
            "warning", "treasury", shown, f"it cannot fill an executor: send it {settings.refill_to_wei} wei"
        )
    return Finding("ok", "treasury", shown)


async def _money(rpc: RpcClient, executor: Address, settings: Settings) -> Finding:
    balance = await rpc.get_balance(executor)
    shown = f"{balance / 10**18:.6f} of the native token in {to_hex(executor)}"
    if balance < settings.min_executor_balance_wei:
        return Finding("failed", "executor's money", shown, f"send it at least {settings.min_executor_balance_wei} wei")
    if balance < _LOW_WEI:
        return Finding("warning", "executor's money", shown, "that pays few bundles: send it more")
    return Finding("ok", "executor's money", shown)
