"""The whole check before a signature, against a local node: what it takes, how much of that is the node's, how much ours.

    python benchmarks/wallet/presign.py [RUNS]

A devnet of its own, one guarded account, an order that opens a 3x position: draft, simulation with all position reads, rules, record on
the disk. Node time is the sum of the waits for answers (connection included), ours is the rest. Targets: 60 ms, 10 ms ours. Beside the
plain policy: limits on VaR and ES over a recorded year, a limit on contracts touched (the operation is traced, and nothing of that is kept),
and a node that has no eth_simulateV1.
"""

from __future__ import annotations

import asyncio
import random
import statistics
import sys
import tempfile
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

from contracts.devnet import Devnet
from contracts.rpc import RpcClient
from tests.wallet.keeper_rig import free_port
from tests.wallet.trading_floor import POLICY, now_s, trader_on
from wallet.execution import endpoint_of
from wallet.market import WatchedFile
from wallet.past import Past, history_file

RUNS = 50
WARM_UP = 5


class Timed(RpcClient):
    """The same client, counting requests and the time until their answers are there, read as JSON."""

    waited_s = 0.0
    requests = 0

    async def _post(self, body: bytes) -> Any:
        before = time.perf_counter()
        try:
            return await super()._post(body)
        finally:
            self.waited_s += time.perf_counter() - before
            self.requests += 1


TAIL = (
    "limits:\n  - {id: var, metric: value_at_risk, window: 365d, max: 1000000}\n"
    "  - {id: es, metric: expected_shortfall, confidence: 97.5%, window: 365d, max: 1000000}\n"
)
TOUCHED = "limits:\n  - {id: touched, metric: contracts_touched, scope: operation, max: 100}\n"


def closes(folder: Path, now_s: int) -> WatchedFile:
    """A year of daily closes of ETH, seeded."""
    rng, price, rows = random.Random(2026), 3_000.0, ["time,asset,price"]  # noqa: S311
    for day in range(370, -1, -1):
        price *= 1 + rng.gauss(0, 0.03)
        rows.append(f"{now_s - now_s % 86_400 - day * 86_400},ETH,{price:.2f}")
    path = folder / "closes.csv"
    path.write_text("\n".join(rows))
    return history_file(path)


async def measured(net: Devnet, folder: Path, runs: int, name: str, policy: str, *, by_trace: bool = False) -> None:
    """One line: medians of `runs` judgements under `policy`."""
    async with Timed(net.rpc_url) as rpc, RpcClient(f"http://127.0.0.1:{free_port()}") as nobody:
        trader = await trader_on(net, folder, bundler=nobody, policy=policy, salt=name)
        past = Past((closes(folder, await now_s(net)),))
        assert trader.signer.reader is not None
        object.__setattr__(trader.signer, "reader", replace(trader.signer.reader, past=past))
        object.__setattr__(trader.signer.account, "rpc", rpc)
        endpoint_of(rpc).lacks_simulation = by_trace
        calls = await trader.opening()
        whole, node, asked = [], [], []
        for run in range(WARM_UP + runs):
            waited, requests, start = rpc.waited_s, rpc.requests, time.perf_counter()
            endpoint_of(rpc).executions.clear()
            judgement = await trader.signer.judge(calls)
            if run >= WARM_UP:
                whole.append((time.perf_counter() - start) * 1_000)
                node.append((rpc.waited_s - waited) * 1_000)
                asked.append(rpc.requests - requests)
            assert judgement.decision.allowed, judgement.decision.objections
    ours = [a - b for a, b in zip(whole, node, strict=True)]
    figures = "   ".join(f"{statistics.median(x):5.1f} {sorted(x)[len(x) * 9 // 10]:5.1f}" for x in (whole, node, ours))
    print(f"{name:<36}{statistics.median(asked):>9.0f}   {figures}")


async def main(runs: int) -> None:
    with tempfile.TemporaryDirectory() as folder:
        async with Devnet.start(port=0) as net:
            await net.market.heartbeat()
            print(f"{runs} judgements each, medians and 90th percentiles in ms ({net.anvil.source})")
            print(
                f"{'':<36}{'requests':>9}   {'whole':>5} {'p90':>5}   {'node':>5} {'p90':>5}   {'ours':>5} {'p90':>5}"
            )
            where = Path(folder)
            await measured(net, where, runs, "the floor's policy", POLICY)
            await measured(net, where, runs, "with VaR and ES over 365 days", POLICY.replace("limits:\n", TAIL, 1))
            await measured(net, where, runs, "with contracts touched (traced)", POLICY.replace("limits:\n", TOUCHED, 1))
            await measured(net, where, runs, "a node without eth_simulateV1", POLICY, by_trace=True)


if __name__ == "__main__":
    asyncio.run(main(int(sys.argv[1]) if len(sys.argv) > 1 else RUNS))
