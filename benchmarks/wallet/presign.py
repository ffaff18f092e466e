"""The whole check before a signature, against a local node: what it takes, how much of that is the node's, how much ours.

    python benchmarks/wallet/presign.py [RUNS]

A devnet of its own, one guarded account, an order that opens a 3x position: draft, simulation with all position reads, rules, record on
the disk. Medians; node time is the sum of the waits for answers (connection included), ours is the rest. Targets: 60 ms, 10 ms ours.
"""

from __future__ import annotations

import asyncio
import statistics
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from contracts.devnet import Devnet
from contracts.rpc import RpcClient
from tests.wallet.keeper_rig import free_port
from tests.wallet.trading_floor import trader_on

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


async def main(runs: int) -> None:
    with tempfile.TemporaryDirectory() as folder:
        async with Devnet.start(port=0) as net, Timed(net.rpc_url) as rpc:
            await net.market.heartbeat()
            async with RpcClient(f"http://127.0.0.1:{free_port()}") as nobody:
                trader = await trader_on(net, Path(folder), bundler=nobody)
            object.__setattr__(trader.signer.account, "rpc", rpc)
            calls = await trader.opening()
            whole, node, asked = [], [], []
            for run in range(WARM_UP + runs):
                waited, requests, start = rpc.waited_s, rpc.requests, time.perf_counter()
                judgement = await trader.signer.judge(calls)
                if run >= WARM_UP:
                    whole.append((time.perf_counter() - start) * 1_000)
                    node.append((rpc.waited_s - waited) * 1_000)
                    asked.append(rpc.requests - requests)
                assert judgement.decision.allowed, judgement.decision.objections
            ours = [a - b for a, b in zip(whole, node, strict=True)]
            print(f"{runs} judgements, {statistics.median(asked):g} requests each ({net.anvil.source})")
            for name, values in (("whole", whole), ("node", node), ("ours", ours)):
                values.sort()
                print(f"{name:<6} median {statistics.median(values):6.1f} ms   p90 {values[int(0.9 * runs)]:6.1f} ms")


if __name__ == "__main__":
    asyncio.run(main(int(sys.argv[1]) if len(sys.argv) > 1 else RUNS))
