"""The keeper as a process: keys, connections, status service, signals; then the loop of `wallet.keeper.guard`."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from contracts.entrypoint import ENTRY_POINTS
from contracts.eoa import Eoa
from contracts.errors import BadInput, NodeError
from contracts.rpc import RpcClient
from contracts.types import Hash32, parse_hash
from wallet.config import Profile, data_directory, resolve
from wallet.keeper.breaker import NAME as BREAKER
from wallet.keeper.breaker import BreakerKeeper
from wallet.keeper.fire import Bundlers, Signer
from wallet.keeper.guard import Keeper
from wallet.keeper.kinds import KINDS, STOP_LOSS
from wallet.keeper.status import serve
from wallet.keeper.store import Store
from wallet.keeper.trailing import Trails
from wallet.keeper.transactions import PlainSender
from wallet.keeper.triggers import Modules
from wallet.keeper.watch import Trigger, WatchList, pause, read_watch_file
from wallet.keystore import KeySource, Keystore, PassphraseSource
from wallet.services import BundlerClient

_BUNDLER_TIMEOUT_S = 5.0


def log_to_stderr(record: dict[str, Any]) -> None:
    """One JSON line a fact, for people and log collectors."""
    print(json.dumps({"time": round(time.time(), 3), "service": "keeper", **record}), file=sys.stderr, flush=True)


async def run(profile: Profile, passphrase: PassphraseSource) -> None:
    """The keeper as a process: start, say where it listens, watch until SIGTERM or SIGINT.

    Raises BadInput and SetupError for what cannot work, before it listens.
    """
    settings = profile.keeper
    keystore = Keystore(profile.keystore)
    named = None if settings.session_key_file or settings.session_key_fd is not None else profile.keys.keeper
    key = KeySource(named, settings.session_key_file, settings.session_key_fd).load(keystore, passphrase, "keeper")
    payer = _payer(profile, keystore, passphrase) or key
    entry_point = ENTRY_POINTS[profile.entry_point]
    kind = KINDS.get(settings.guard, STOP_LOSS)
    pokes = settings.guard == BREAKER
    modules = Modules(
        profile.address("multicall3"),
        profile.address(settings.guard),
        profile.address("session_validator"),
        entry_point,
        kind,
    )
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    async with contextlib.AsyncExitStack() as stack:
        rpc = await stack.enter_async_context(RpcClient(profile.rpc_url))
        chain_id = await _connect(rpc, profile, stop)
        if chain_id is None:
            return
        of = "" if settings.guard == STOP_LOSS.name else f"-{settings.guard}"
        store = Store(settings.db or data_directory() / f"keeper{of}-{chain_id}.db")
        stack.callback(store.close)
        genesis = parse_hash((await rpc.block(0))["hash"], "genesis hash")
        store.bind(chain_id, genesis, key.address)
        plain = PlainSender(
            rpc, payer, chain_id, modules.guard, store, replace_after_blocks=settings.replace_after_blocks
        )
        listed = read_watch_file(settings.watch) if settings.watch else None
        keeper: Keeper | BreakerKeeper
        if pokes:
            keeper = BreakerKeeper(
                rpc=rpc,
                multicall3=modules.multicall3,
                breaker=modules.guard,
                session_validator=modules.session_validator,
                key=key.address,
                from_block=settings.from_block,
                listed=None if listed is None else {trigger.account for trigger in listed},
                plain=plain,
                min_priority_fee_wei=settings.min_priority_fee_wei,
                log=log_to_stderr,
            )
        else:
            keeper = await _firing(stack, rpc, profile, modules, Signer(key, modules, chain_id), listed, store, plain)
        runner, url = await serve(keeper.status, settings.host, settings.port)
        stack.push_async_callback(runner.cleanup)
        print(json.dumps({"event": "listening", "url": url}), flush=True)
        await keeper.run(stop, poll_s=settings.poll_ms / 1000)


async def _firing(
    stack: contextlib.AsyncExitStack,
    rpc: RpcClient,
    profile: Profile,
    modules: Modules,
    signer: Signer,
    listed: Mapping[Trigger, Hash32 | None] | None,
    store: Store,
    plain: PlainSender,
) -> Keeper:
    """The keeper of a guard that fires by operations."""
    settings = profile.keeper
    clients = []
    for url in (profile.bundler_url, *settings.backup_bundler_urls):
        bundler = await stack.enter_async_context(RpcClient(url, timeout_s=_BUNDLER_TIMEOUT_S))
        clients.append(BundlerClient(bundler, modules.entry_point))
    return Keeper(
        rpc=rpc,
        bundlers=Bundlers(clients),
        modules=modules,
        signer=signer,
        watch_list=WatchList(
            key=signer.key.address,
            guard=modules.guard,
            session_validator=modules.session_validator,
            from_block=settings.from_block,
            listed=listed,
            armed=modules.kind.armed,
        ),
        store=store,
        plain=plain,
        replace_after_blocks=settings.replace_after_blocks,
        min_priority_fee_wei=settings.min_priority_fee_wei,
        direct_fallback=settings.direct_fallback,
        log=log_to_stderr,
        trails=Trails(rpc, modules, plain, log_to_stderr) if modules.kind is STOP_LOSS else None,
    )


def _payer(profile: Profile, keystore: Keystore, passphrase: PassphraseSource) -> Eoa | None:
    settings = profile.keeper
    if settings.transaction_key is None and settings.transaction_key_file is None:
        return None
    return KeySource(settings.transaction_key, settings.transaction_key_file).load(keystore, passphrase, "transaction")


async def _connect(rpc: RpcClient, profile: Profile, stop: asyncio.Event) -> int | None:
    """The node's chain id, waiting for the node if need be. Raises BadInput if the profile is for another chain."""
    told = False
    while not stop.is_set():
        try:
            chain_id = await rpc.chain_id()
        except NodeError as error:
            if not told:
                log_to_stderr({"event": "waiting", "reason": str(error)})
            told = True
            await pause(stop, 0.2)
            continue
        if profile.chain_id is not None and chain_id != profile.chain_id:
            raise BadInput(f"{rpc.url} is chain {chain_id}, the profile is for chain {profile.chain_id}")
        return chain_id
    return None


def start(config_file: Path | None, flags: Mapping[str, object], passphrase: PassphraseSource) -> None:
    """Resolve the profile and run. Raises SeawallError."""
    profile = resolve(flags, environment=os.environ, project_file=config_file).profile
    asyncio.run(run(profile, passphrase))
