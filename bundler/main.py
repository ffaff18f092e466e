"""The process: start, announce, serve, drain.   `python -m bundler --help` shows its flags."""

from __future__ import annotations

import asyncio
import json
import logging
import signal
import sys
import time
from collections.abc import Awaitable, Callable, Sequence
from typing import Any, cast

from bundler.admin import Admin
from bundler.fees import choose
from bundler.inflator import Inflator
from bundler.metrics import MeasuredRpc, Metrics
from bundler.server import Server
from bundler.service import Bundler
from bundler.settings import LiveSettings, Settings
from bundler.store import open_store
from bundler.tracing import open_traces
from bundler.treasury import open_treasury
from contracts.errors import BadInput, NodeError, SeawallError, SetupError
from contracts.rpc import RpcClient
from contracts.types import Address, checksum

log = logging.getLogger("bundler.main")


class _JsonFormatter(logging.Formatter):
    """One JSON object a line."""

    def format(self, record: logging.LogRecord) -> str:
        fields: dict[str, Any] = {
            "time": round(record.created, 3),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
        }
        if record.exc_info:
            fields["exception"] = self.formatException(record.exc_info)
        return json.dumps(fields)


def configure_logging(log_format: str) -> None:
    """Log to stderr, as text or JSON."""
    handler = logging.StreamHandler(sys.stderr)
    text = logging.Formatter("%(asctime)s %(levelname)s %(name)s: %(message)s")
    handler.setFormatter(_JsonFormatter() if log_format == "json" else text)
    for name, level in (("bundler", logging.INFO), ("opentelemetry", logging.WARNING)):
        logger = logging.getLogger(name)
        logger.handlers[:] = [handler]
        logger.setLevel(level)
        logger.propagate = False


async def _wait_for_chain(rpc: RpcClient, settings: Settings, executors: Sequence[Address]) -> int:
    """The chain id, once the node answers.

    Raises NodeError after `node_wait_s`, SetupError if an entry point is missing or would take no bundle of an executor's.
    """
    deadline = time.monotonic() + settings.node_wait_s
    while True:
        try:
            chain_id = await rpc.chain_id()
            for entry_point in settings.entry_points:
                if not await rpc.get_code(entry_point.address):
                    raise SetupError(
                        f"there is no entry point {entry_point.version} at {checksum(entry_point.address)} on chain {chain_id}: "
                        "set `entry_points` to those that exist"
                    )
            picky = [entry_point for entry_point in settings.entry_points if entry_point.wants_plain_caller]
            for executor in executors if picky else ():
                if await rpc.get_code(executor):
                    raise SetupError(
                        f"the executor {checksum(executor)} has code (an EIP-7702 delegation), and entry point "
                        f"{picky[0].version} takes no bundle from it: revoke the delegation, use another key, or leave "
                        f"{picky[0].version} out of `entry_points`"
                    )
            return chain_id
        except NodeError as error:
            if time.monotonic() > deadline:
                raise
            log.info("waiting for the node: %s", type(error).__name__)
            await asyncio.sleep(0.2)


def print_listening(url: str) -> None:
    """Tell whoever started this process where it serves: one JSON line on stdout."""
    print(json.dumps({"event": "listening", "url": url}), flush=True)


Reread = Callable[[], Settings]
"""Reads the settings again from where they came. Raises BadInput."""


async def run(
    settings: Settings,
    *,
    stopping: asyncio.Event | None = None,
    listening: Callable[[str], None] = print_listening,
    reread: Reread | None = None,
) -> None:
    """Run a bundler until `stopping` is set (None: until SIGTERM or SIGINT), then drain.

    `listening` is called with the URL once requests are served; `reread` on SIGHUP and at the operator's `reload`.
    Raises SetupError, BadInput (key, database, address taken),
    NodeError (no node within `node_wait_s`).
    """
    loop = asyncio.get_running_loop()
    stops_by_signal = stopping is None
    signals = (signal.SIGTERM, signal.SIGINT) if stops_by_signal else ()
    stopping = stopping or asyncio.Event()
    for number in signals:
        loop.add_signal_handler(number, stopping.set)
    executors = settings.executors()
    live = LiveSettings(settings)
    settings = cast(Settings, live)
    metrics = Metrics()
    traces = open_traces(settings.traces)
    store = await open_store(settings)
    try:
        async with MeasuredRpc(settings.rpc_url, metrics, timeout_s=settings.request_timeout_s) as rpc:
            chain_id = await _wait_for_chain(rpc, settings, [executor.address for executor in executors])
            await store.bind(chain_id)
            fee_model = await choose(rpc, chain_id, settings.fee_model)
            inflator = None
            if settings.inflator is not None:
                inflator = await Inflator.open(rpc, settings.inflator, settings.entry_points, executors[0].address)
            bundler = Bundler(rpc, store, executors, chain_id, settings, fee_model, inflator)
            if settings.treasury_key_file is not None:
                bundler.purses.treasury = open_treasury(rpc, chain_id, settings, bundler.submitter.router.send_raw)
            metrics.watch(bundler)
            if traces is not None:
                bundler.events.listeners.append(traces.note)
            await bundler.resume()
            server = Server(bundler, settings, metrics)

            async def reload() -> list[str]:
                if reread is None:
                    raise BadInput("these settings came from no file: start the bundler again to change them")
                new = reread()
                keys = new.api_keys()  # before anything changes: a bad file changes nothing
                changed = live.change_to(new)
                bundler.reputation.take_lists(live.allowed_entities, live.denied_entities)
                server.limits_changed(keys)
                bundler.wake()
                log.info("settings read again; changed: %s", ", ".join(changed) or "none")
                return changed

            admin = None if settings.admin_port is None else Admin(bundler, metrics, settings, reload)
            for one, host, port in (
                (server, settings.host, settings.port),
                (admin, settings.admin_host, settings.admin_port),
            ):
                if one is None:
                    continue
                try:
                    await one.start()
                except OSError as error:
                    await server.stop()
                    name = "port" if one is server else "admin_port"
                    raise SetupError(
                        f"cannot listen on {host}:{port}: {error.strerror}; choose another `{name}`"
                    ) from error
            if stops_by_signal:
                loop.add_signal_handler(signal.SIGHUP, lambda: asyncio.ensure_future(_on_hangup(reload)))
            if admin is not None:
                log.info("metrics and commands: %s", admin.url)
            log.info(
                "executor %s, chain %d (fee model %s), %s",
                ", ".join(checksum(executor.address) for executor in executors) or "none",
                chain_id,
                fee_model.name,
                server.url,
            )
            for executor in executors:
                if await rpc.get_balance(executor.address) == 0:
                    log.warning("the executor %s has no money: it can send no bundle", checksum(executor.address))
            listening(server.url)
            drained = asyncio.ensure_future(_refuse_when(stopping, bundler))
            try:
                await bundler.run(stopping)
            finally:
                drained.cancel()
                await bundler.submitter.router.close()
                if bundler.purses.treasury is not None:
                    bundler.purses.treasury.close()
                await server.stop()
                if admin is not None:
                    await admin.stop()
                log.info("stopped; %d operations are on disk for the next start", len(bundler.pool))
    finally:
        await store.close()
        if traces is not None:
            await asyncio.to_thread(traces.stop)
        for number in (*signals, signal.SIGHUP) if stops_by_signal else ():
            loop.remove_signal_handler(number)


async def _on_hangup(reload: Callable[[], Awaitable[list[str]]]) -> None:
    try:
        await reload()
    except SeawallError as error:
        log.warning("the settings stay as they were: %s", error.message)


async def _refuse_when(stopping: asyncio.Event, bundler: Bundler) -> None:
    await stopping.wait()
    bundler.intake.draining = True
    log.info("draining: %d bundles under way", len(bundler.submitter.in_flight))
