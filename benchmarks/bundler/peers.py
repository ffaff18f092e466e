"""Other bundlers as processes beside ours. None is a dependency: whoever wants to see them gives the paths.

Voltaire: a checkout of candidelabs/voltaire (or the unpacked wheel of `voltaire-bundler`) and an interpreter with its requirements.
Alto: the script of npm's `@pimlico/alto` (`node_modules/@pimlico/alto/esm/cli/alto.js`), run by `node`.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
import tempfile
from collections.abc import AsyncIterator, Sequence
from pathlib import Path

from contracts.devnet.accounts import devnet_key
from contracts.entrypoint import V08
from contracts.eoa import Eoa
from contracts.rpc import RpcClient
from contracts.types import to_hex
from tests.bundler.rig import Chain, until


def free_port() -> int:
    """A loopback port that is free now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@contextlib.asynccontextmanager
async def _listening(name: str, command: Sequence[str], url: str, folder: Path | None) -> AsyncIterator[str]:
    """The peer as a process of its own, once it answers; yields its URL. Raises AssertionError with its log when it does not start."""
    with tempfile.TemporaryFile("w+") as log:
        child = await asyncio.create_subprocess_exec(*command, cwd=folder, stdout=log, stderr=log)

        async def answers() -> bool:
            try:
                async with RpcClient(url) as rpc:
                    return bool(await rpc.chain_id())
            except Exception:
                if child.returncode is not None:
                    log.seek(0)
                    raise AssertionError(f"{name} did not start: {log.read()[-2000:]}") from None
                return False

        try:
            await until(answers, f"{name} listens", 60)
            yield url
        finally:
            child.kill()
            await child.wait()


@contextlib.asynccontextmanager
async def voltaire(chain: Chain, checkout: Path, python: str, *, safe: bool) -> AsyncIterator[str]:
    """Voltaire with one executor, a bundle a second; yields its URL."""
    port, key = free_port(), devnet_key("voltaire")
    await chain.rpc.call("anvil_setBalance", to_hex(Eoa(key).address), hex(10**24))
    command = [
        python, "-m", "voltaire_bundler",
        "--bundler_secret", to_hex(key), "--rpc_url", "127.0.0.1", "--rpc_port", str(port), "--chain_id", str(await chain.rpc.chain_id()),
        "--ethereum_node_url", chain.anvil.url, "--disable_v6", "--disable_p2p", "--bundle_interval", "1", "--enforce_gas_price_tolerance", "0",
        *(["--ethereum_node_debug_trace_call_url", chain.anvil.url] if safe else ["--unsafe"]),
    ]  # fmt: skip
    async with _listening("Voltaire", command, f"http://127.0.0.1:{port}/rpc", checkout) as url:
        yield url


@contextlib.asynccontextmanager
async def alto(chain: Chain, script: Path, *, executors: int) -> AsyncIterator[str]:
    """Alto without the rules of ERC-7562, with so many executors, a bundle whenever it likes (its defaults); yields its URL."""
    port = free_port()
    keys = [devnet_key(f"alto {i}") for i in range(executors + 1)]
    for key in keys:
        await chain.rpc.call("anvil_setBalance", to_hex(Eoa(key).address), hex(10**24))
    command = [
        "node", str(script), "run",
        "--port", str(port), "--rpc-url", chain.anvil.url, "--entrypoints", to_hex(V08.address), "--safe-mode", "false",
        "--executor-private-keys", ",".join(map(to_hex, keys[1:])), "--utility-private-key", to_hex(keys[0]),
        "--min-executor-balance", "0", "--log-level", "error", "--block-time", "1000",
    ]  # fmt: skip
    async with _listening("Alto", command, f"http://127.0.0.1:{port}/rpc", None) as url:
        yield url
