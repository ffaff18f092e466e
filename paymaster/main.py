"""The sponsor's process: `python -m paymaster --config FILE`, or `await run(settings)` inside another program."""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import logging
import os
import signal
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from aiohttp import web

from contracts.errors import SeawallError, SetupError
from contracts.rpc import RpcClient
from contracts.types import checksum
from paymaster.chain import Follower
from paymaster.ledger import SqliteLedger
from paymaster.server import Server, Service
from paymaster.settings import PREFIX, Settings, load, open_signer

_SHUTDOWN_S = 5.0


def _announce(event: dict[str, Any]) -> None:
    print(json.dumps(event), flush=True)


async def run(settings: Settings, announce: Callable[[dict[str, Any]], None] = _announce) -> None:
    """Serve until SIGTERM, SIGINT or cancellation; calls in flight are answered first.

    `announce` gets `{"event": "listening", "url": ..., "signer": ...}` once requests are taken. Raises SetupError, NodeError.
    """
    signer = open_signer(settings.signer, os.environ)
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        with contextlib.suppress(RuntimeError, ValueError):  # not in the main thread: the embedder cancels instead
            loop.add_signal_handler(number, stop.set)
    async with contextlib.AsyncExitStack() as stack:
        rpc = await stack.enter_async_context(RpcClient(settings.rpc_url, timeout_s=settings.node_timeout_s))
        chain_id = settings.chain_id if settings.chain_id is not None else await rpc.chain_id()
        ledger = SqliteLedger(settings.ledger, chain_id)
        stack.push_async_callback(ledger.close)
        paymasters = dict(settings.paymasters)
        follower = Follower(
            rpc,
            ledger,
            paymasters,
            signer.address,
            chain_id,
            min_deposit_wei=settings.min_deposit_wei,
            confirmations=settings.confirmations,
            start_block=settings.start_block,
            token_paymasters=dict(settings.token_paymasters),
        )
        service = Service(
            rpc,
            ledger,
            follower,
            signer,
            settings.terms,
            paymasters,
            chain_id,
            settings.offer,
            dict(settings.token_paymasters),
            settings.erc20,
        )
        server = Server(service, follower, settings.limits)
        runner = web.AppRunner(server.app, access_log=None, shutdown_timeout=_SHUTDOWN_S)
        await runner.setup()
        stack.push_async_callback(runner.cleanup)
        try:
            await web.TCPSite(runner, settings.host, settings.port).start()
        except OSError as error:
            raise SetupError(f"cannot listen on {settings.host}:{settings.port}: {error.strerror}") from error
        await follower.poll()
        following = asyncio.create_task(follower.run(settings.poll_s))
        stack.push_async_callback(_cancel, following)
        host, port = runner.addresses[0][:2]
        announce({"event": "listening", "url": f"http://{host}:{port}", "signer": checksum(signer.address)})
        await stop.wait()


async def _cancel(task: asyncio.Task[None]) -> None:
    task.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await task


def main(arguments: Sequence[str] | None = None) -> int:
    """The command. Returns the exit code of the error tree."""
    parser = argparse.ArgumentParser(prog="python -m paymaster", description="Run the ERC-7677 sponsor service.")
    parser.add_argument("--config", type=Path, default=os.environ.get(PREFIX + "CONFIG"), help="TOML settings file")
    parser.add_argument("--host", help="address to listen on (default 127.0.0.1)")
    parser.add_argument("--port", help="port to listen on, 0 for a free one")
    parser.add_argument("--rpc-url", help="the Ethereum node")
    parser.add_argument("--ledger", help="the SQLite file of promises and costs")
    parser.add_argument(
        "--set", action="append", default=[], metavar="NAME=VALUE", help="any setting, such as budget.total_wei=1"
    )
    given = parser.parse_args(arguments)
    overrides = {name: getattr(given, name) for name in ("host", "port", "rpc_url", "ledger") if getattr(given, name)}
    for pair in given.set:
        name, equals, value = pair.partition("=")
        if not equals:
            parser.error(f"--set wants NAME=VALUE, got {pair!r}")
        overrides[name] = value
    logging.basicConfig(level=logging.INFO, stream=sys.stderr, format="%(asctime)s %(levelname)s %(name)s %(message)s")
    try:
        asyncio.run(run(load(given.config and Path(given.config), os.environ, overrides)))
    except SeawallError as error:
        print(f"error: {error.message}", file=sys.stderr)
        return error.exit_code
    return 0
