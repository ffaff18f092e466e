"""The policy service as a process: profile, key, token, node, signals."""

from __future__ import annotations

import asyncio
import contextlib
import json
import secrets
import signal
import sys
import time
from pathlib import Path

from contracts.devnet.chain import CHAIN_ID as DEVNET_CHAIN_ID
from contracts.entrypoint import ENTRY_POINTS
from contracts.errors import BadInput
from contracts.rpc import RpcClient
from policies.names import book_of
from policies.risk.scenarios import warm_up
from wallet.config import Profile, data_directory
from wallet.desk import chain_of, open_keys, policy_of, reader_of, roles_of
from wallet.keystore import PassphraseSource, read_secret_file
from wallet.serve import Service, listen
from wallet.serve_engine import PolicyService


def token_of(path: Path) -> str:
    """The token of a 0600 file; a file that is not there is made with a random one. Raises SetupError."""
    if not path.exists():
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        path.touch(mode=0o600)
        path.write_text(secrets.token_urlsafe(32) + "\n")
        print(f"wrote a new token to {path}: give it to the clients", file=sys.stderr)
    return read_secret_file(path, "token file").strip()


async def run(
    profile: Profile,
    passphrase: PassphraseSource,
    *,
    host: str,
    port: int,
    token_file: Path,
    judge_only: bool = False,
) -> None:
    """Serve until SIGTERM or SIGINT; one JSON line on stdout says where. Raises BadInput, SetupError, NodeError for what cannot work."""
    policy = policy_of(profile)
    if policy is None:
        raise BadInput('which policy? Set `policy = "FILE"` in seawall.toml, or SEAWALL_POLICY')
    token = token_of(token_file)
    key = None if judge_only else open_keys(profile, ["engine"], passphrase)["engine"]
    book = book_of(profile.addresses, roles_of(profile))
    profile.address("multicall3")
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    async with contextlib.AsyncExitStack() as stack:
        rpc = await stack.enter_async_context(RpcClient(profile.rpc_url))
        chain_id = await chain_of(profile, rpc)
        engine = PolicyService(
            rpc=rpc,
            entry_point=ENTRY_POINTS[profile.entry_point],
            chain_id=chain_id,
            policy=policy,
            key=key,
            risk_validator=profile.address("risk_validator"),
            reader=reader_of(profile, book, policy.policy_id, chain_id),
            folder=data_directory() / "engine",
            clock=None if chain_id == DEVNET_CHAIN_ID else time.time,
            accounts=None if profile.account is None else frozenset({profile.account}),
        )
        stack.callback(engine.close)
        # Before anybody asks: the first decision on options shall not wait for a compiler.
        engine.pricing = await asyncio.to_thread(warm_up)
        service = Service(engine, token)
        runner, url = await listen(service, host, port)
        stack.push_async_callback(runner.cleanup)
        print(json.dumps({"event": "listening", "url": url}), flush=True)
        await stop.wait()
        service.closing.set()
