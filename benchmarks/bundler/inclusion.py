"""How fast operations reach a block: our bundler by number of executors, beside peers, on one anvil with 1-second blocks.

    python -m benchmarks.bundler.inclusion [--operations N] [--per-s R] [--lanes 1,4] [--trusted] [--block-gas G] [--json]
                                           [--voltaire CHECKOUT --voltaire-python PYTHON] [--alto SCRIPT]

Method: deployed SimpleAccounts v0.8, one signed transfer each, prepared beforehand. An open loop sends one operation every 1/R seconds,
whatever was answered. The judge is the chain, not the bundler: an operation is included with the block that holds its
UserOperationEvent, and the clock stops when this process, which asks for new logs all the time, first sees that block.
"included a second" counts from the first request to that moment of the last operation; inclusion p50 and p99 are from when an operation's
request was due. Between two runs the chain is put back by `evm_revert`. Client, bundler and node share the machine. Peers
(`benchmarks.bundler.peers`) get the same operations at the same rate, Alto with as many executors as the most of ours, Voltaire, which
has no choice, with one; both without the rules of ERC-7562, and Voltaire with them where we have them.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import os
import statistics
import tempfile
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import aiohttp

from benchmarks.bundler.accept import ARGUMENTS, in_batches, prepare, prepare_warm_up, request, rewind
from benchmarks.bundler.peers import alto, voltaire
from contracts.devnet import anvil
from contracts.devnet.accounts import devnet_key
from contracts.entrypoint import USER_OPERATION_EVENT, V08
from contracts.eoa import Eoa
from contracts.rpc import RpcClient
from contracts.types import to_hex
from contracts.userop import UserOperation
from tests.bundler.rig import START_S, Chain, process, settings_for, until

_POLL_S = 0.02
_PATIENCE_S = 30.0
"""How long nothing may be included before the rest counts as not included."""


@dataclass(frozen=True, slots=True)
class Inclusions:
    """What became of one run's operations. Times in s."""

    name: str
    lanes: int
    mode: str
    offered: int
    included: int
    refused: int
    included_per_s: float
    p50_s: float
    p99_s: float
    ops_per_bundle: float
    first_error: str


class Watch:
    """When each operation's event was first seen in a block, by this process's clock."""

    def __init__(self, rpc: RpcClient) -> None:
        self._rpc = rpc
        self.seen_s: dict[str, float] = {}
        self.bundles: Counter[str] = Counter()
        self.last_s = time.perf_counter()

    async def run(self) -> None:
        """Until cancelled."""
        done = await self._rpc.block_number()
        while True:
            latest = await self._rpc.block_number()
            if latest > done:
                for log in await self._rpc.logs(V08.address, [USER_OPERATION_EVENT.topic], done + 1, latest):
                    self.last_s = self.seen_s.setdefault(log["topics"][1], time.perf_counter())
                    self.bundles[log["transactionHash"]] += 1
                done = latest
            await asyncio.sleep(_POLL_S)


async def measure(
    rpc: RpcClient, url: str, ops: Sequence[UserOperation], per_s: float, name: str, lanes: int, mode: str
) -> Inclusions:
    """Send all operations at that rate and wait for them on the chain."""
    chain_id = await rpc.chain_id()
    hashes = [to_hex(V08.user_op_hash(op, chain_id)) for op in ops]
    bodies = [request("eth_sendUserOperation", op.to_rpc(), to_hex(V08.address)) for op in ops]
    errors: list[str] = []
    watch = Watch(rpc)
    watching = asyncio.create_task(watch.run())
    due_s: dict[str, float] = {}
    try:
        async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=64)) as session:

            async def post(body: bytes) -> None:
                async with session.post(url, data=body, headers={"Content-Type": "application/json"}) as response:
                    answer = json.loads(await response.read())
                if "result" not in answer:
                    errors.append(str(answer.get("error")))

            begun_s = time.perf_counter()
            tasks = []
            for i, (op_hash, body) in enumerate(zip(hashes, bodies, strict=True)):
                due_s[op_hash] = begun_s + i / per_s
                await asyncio.sleep(max(0.0, due_s[op_hash] - time.perf_counter()))
                tasks.append(asyncio.create_task(post(body)))
            await asyncio.gather(*tasks)
        last_sent_s = time.perf_counter()
        while len(watch.seen_s) + len(errors) < len(ops):
            if time.perf_counter() - max(watch.last_s, last_sent_s) > _PATIENCE_S:
                break
            await asyncio.sleep(_POLL_S)
    finally:
        watching.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await watching
    waits = sorted(watch.seen_s[h] - due_s[h] for h in hashes if h in watch.seen_s)
    cuts = statistics.quantiles(waits, n=100, method="inclusive") if len(waits) > 1 else [float("nan")] * 99
    return Inclusions(
        name,
        lanes,
        mode,
        len(ops),
        len(waits),
        len(errors),
        len(waits) / (watch.last_s - begun_s),
        cuts[49],
        cuts[98],
        sum(watch.bundles.values()) / max(len(watch.bundles), 1),
        errors[0] if errors else "",
    )


def lane_keys(folder: Path, count: int) -> tuple[Path, ...]:
    """Files of `count` further executors' keys."""
    paths = tuple(folder / f"lane{i}.key" for i in range(count))
    for i, path in enumerate(paths):
        path.touch(mode=0o600)
        path.write_text(devnet_key(f"lane {i}").hex())
    return paths


async def run(options: argparse.Namespace) -> dict[str, Any]:
    binary = await asyncio.to_thread(anvil.find_binary)
    result: dict[str, Any] = {"loadavg_before": os.getloadavg()[0], "cores": os.cpu_count(), "figures": []}
    lanes = [int(part) for part in options.lanes.split(",")]
    with tempfile.TemporaryDirectory() as folder:
        state = Path(folder, "state.json")
        factories = await Chain.build(state)
        arguments = [*ARGUMENTS, "--chain-id", "1337", "--load-state", str(state), "--timestamp", str(START_S + 60)]
        async with await anvil.Anvil.start(binary.path, arguments) as node, RpcClient(node.url) as rpc:
            # Not an argument of the node: the state that it loads brings a limit of its own.
            await rpc.call("evm_setBlockGasLimit", hex(options.block_gas))
            chain = Chain(node, rpc, factories)
            keys = [devnet_key("bundler"), *(devnet_key(f"lane {i}") for i in range(max(lanes) - 1))]
            await in_batches(rpc, [("anvil_setBalance", (to_hex(Eoa(key).address), hex(10**24))) for key in keys])
            ops = await prepare(chain, options.operations, "seen")
            warm_up = await prepare_warm_up(chain, "seen")
            snapshot = await rpc.call("evm_snapshot")
            print(
                f"{'':9}{'lanes':>5} {'mode':>8} {'included/s':>11} {'p50 s':>6} {'p99 s':>6} {'ops/bundle':>10} {'included':>9}"
            )

            async def take(url: str, name: str, count: int, *, safe: bool) -> None:
                async with RpcClient(url) as one:
                    sent = [await one.call("eth_sendUserOperation", op.to_rpc(), to_hex(V08.address)) for op in warm_up]

                    async def landed() -> bool:
                        return all([await one.call("eth_getUserOperationReceipt", op_hash) for op_hash in sent])

                    await until(landed, "the warm-up lands", 60)
                mode = "safe" if safe else "trusted"
                found = await measure(rpc, url, ops, options.per_s, name, count, mode)
                result["figures"].append(found)
                print(render_row(found), flush=True)

            for count in lanes:
                with tempfile.TemporaryDirectory() as database:
                    settings = settings_for(
                        chain,
                        Path(database),
                        max_pool_ops=100_000,
                        idle_poll_interval_s=0.5,
                        poll_interval_s=0.025,
                        safe=not options.trusted,
                        lane_key_files=lane_keys(Path(database), count - 1),
                    )
                    async with process(settings) as running:
                        await take(running.client.rpc.url, "seawall", count, safe=not options.trusted)
                snapshot = await rewind(rpc, snapshot)
            if options.alto is not None:
                async with alto(chain, options.alto, executors=max(lanes)) as url:
                    await take(url, "Alto", max(lanes), safe=False)
                snapshot = await rewind(rpc, snapshot)
            if options.voltaire is not None:
                safe = not options.trusted
                async with voltaire(chain, options.voltaire, options.voltaire_python, safe=safe) as url:
                    await take(url, "Voltaire", 1, safe=safe)
                snapshot = await rewind(rpc, snapshot)
    result["loadavg_after"] = os.getloadavg()[0]
    return result


def render_row(f: Inclusions) -> str:
    return (
        f"{f.name:9}{f.lanes:5} {f.mode:>8} {f.included_per_s:11.1f} {f.p50_s:6.2f} {f.p99_s:6.2f} {f.ops_per_bundle:10.1f} "
        f"{f.included:5}/{f.offered}" + (f"  ({f.first_error[:160]})" if f.first_error else "")
    )


if __name__ == "__main__":
    parser = argparse.ArgumentParser(prog="python -m benchmarks.bundler.inclusion")
    parser.add_argument("--operations", type=int, default=600)
    parser.add_argument("--per-s", type=float, default=150.0)
    parser.add_argument("--lanes", default="1,4", help="numbers of executors to compare")
    parser.add_argument("--block-gas", type=int, default=30_000_000, help="gas limit of a block")
    parser.add_argument("--trusted", action="store_true", help="without the rules of ERC-7562")
    parser.add_argument("--voltaire", type=Path, default=None, metavar="CHECKOUT")
    parser.add_argument("--voltaire-python", default="python3")
    parser.add_argument("--alto", type=Path, default=None, metavar="SCRIPT")
    parser.add_argument("--json", action="store_true")
    given = parser.parse_args()
    found = asyncio.run(run(given))
    if given.json:
        print(json.dumps(found | {"figures": [asdict(f) for f in found["figures"]]}))
    else:
        print(
            f"load average {found['loadavg_before']:.1f} before, {found['loadavg_after']:.1f} after; {found['cores']} cores"
        )
