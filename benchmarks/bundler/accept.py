"""How fast operations are accepted: safe mode and trusted mode, beside peers, on one anvil with the same operations in one run.

    python -m benchmarks.bundler.accept [--operations N] [--connections N] [--json]
                                        [--voltaire CHECKOUT --voltaire-python PYTHON] [--alto SCRIPT]

Method: anvil with 1-second blocks; N deployed SimpleAccounts v0.8, one transfer each, signed beforehand. Once all senders share one code
hash that the bundler has seen before ("seen"), once every sender has a code hash of its own ("unseen": the same proxy with 32 bytes
behind it that never run). Each bundler is a process of its own and builds bundles meanwhile, as it would; between two bundlers the chain
is put back by `evm_revert`. Two thirds of the operations go in as fast as `--connections` keep-alive connections carry them (operations
accepted a second, latency p50/p99), the last third at half that rate in an open loop (p50/p99 at half rate). The client runs in this
process, so client, bundler and node share the machine. The bound is the same anvil's `eth_call` of the same `handleOps`, same client.

The peers are no dependencies (`benchmarks.bundler.peers`): one that is not given is said not to be measured here.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import statistics
import tempfile
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import aiohttp

from benchmarks.bundler.peers import alto, voltaire
from bundler import simulation
from bundler.gas import validation_gas_limit
from contracts.devnet import anvil
from contracts.devnet.accounts import Accounts, devnet_key
from contracts.entrypoint import V08
from contracts.eoa import Eoa
from contracts.rpc import RpcClient
from contracts.types import Address, keccak, to_hex
from contracts.userop import UserOperation
from tests.bundler.rig import EXECUTE, GWEI, START_S, TARGET, Chain, process, settings_for

ARGUMENTS = ("--accounts", "0", "--hardfork", "prague", "--order", "fifo", "--block-time", "1")
IMPLEMENTATION_SLOT = "0x360894a13ba1a3210667c828492db98dca3e2076cc3735a920a3ca505d382bbc"
"""Source: ERC-1967."""
KINDS = ("seen", "unseen")


@dataclass(slots=True)
class Figures:
    """What one bundler did with one kind of operations. Times in ms."""

    name: str
    kind: str
    accepted: int = 0
    refused: int = 0
    per_s: float = 0.0
    p50_ms: float = 0.0
    p99_ms: float = 0.0
    half_rate_p50_ms: float = 0.0
    half_rate_p99_ms: float = 0.0
    cheap_share: float | None = None
    """Of the safe validations, those that needed no full trace."""
    first_error: str = ""


@dataclass(slots=True)
class Load:
    """Prepared requests against one JSON-RPC address."""

    bodies: list[bytes]
    latencies_s: list[float] = field(default_factory=list)
    errors: list[str] = field(default_factory=list)

    async def _post(self, session: aiohttp.ClientSession, url: str, body: bytes, started_s: float) -> None:
        async with session.post(url, data=body, headers={"Content-Type": "application/json"}) as response:
            answer = json.loads(await response.read())
        self.latencies_s.append(time.perf_counter() - started_s)
        if "result" not in answer:
            self.errors.append(str(answer.get("error")))

    async def closed(self, url: str, connections: int) -> float:
        """Send all as fast as `connections` carry them; returns the seconds it took."""
        queue = iter(self.bodies)
        async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=connections)) as session:

            async def work() -> None:
                for body in queue:
                    await self._post(session, url, body, time.perf_counter())

            started_s = time.perf_counter()
            await asyncio.gather(*(work() for _ in range(connections)))
            return time.perf_counter() - started_s

    async def open(self, url: str, per_s: float) -> None:
        """Send one every 1/`per_s` seconds, whatever was answered; latency counts from when it was due."""
        async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0)) as session:
            begun_s = time.perf_counter()
            tasks = []
            for i, body in enumerate(self.bodies):
                due_s = begun_s + i / per_s
                await asyncio.sleep(max(0.0, due_s - time.perf_counter()))
                tasks.append(asyncio.create_task(self._post(session, url, body, due_s)))
            await asyncio.gather(*tasks)

    def percentile_ms(self, percent: int) -> float:
        return 1000 * statistics.quantiles(self.latencies_s, n=100, method="inclusive")[percent - 1]


def request(method: str, *params: object) -> bytes:
    return json.dumps({"jsonrpc": "2.0", "id": 1, "method": method, "params": params}).encode()


async def in_batches(rpc: RpcClient, calls: Sequence[tuple[str, Sequence[object]]]) -> None:
    for i in range(0, len(calls), 200):
        await rpc.batch(calls[i : i + 200])


async def prepare(chain: Chain, count: int, kind: str) -> list[UserOperation]:
    """`count` funded accounts of that kind on the chain, and a signed transfer of each."""
    pattern = await chain.account(deployed=True)
    code = await chain.rpc.get_code(pattern.address)
    implementation = await chain.rpc.call("eth_getStorageAt", to_hex(pattern.address), IMPLEMENTATION_SLOT, "latest")
    chain_id = await chain.rpc.chain_id()
    calls: list[tuple[str, Sequence[object]]] = []
    ops = []
    for i in range(count):
        owner = Eoa(devnet_key(f"benchmark {kind} {i}"))
        sender: Address = keccak(b"account" + owner.address)[:20]
        own = code if kind == "seen" else code + keccak(sender)
        calls += [
            ("anvil_setCode", (to_hex(sender), to_hex(own))),
            ("anvil_setStorageAt", (to_hex(sender), IMPLEMENTATION_SLOT, implementation)),
            ("anvil_setStorageAt", (to_hex(sender), "0x" + "0" * 64, to_hex(owner.address.rjust(32, b"\0")))),
            ("anvil_setBalance", (to_hex(sender), hex(10**18))),
        ]
        op = UserOperation(
            sender, 0, EXECUTE.encode(TARGET, 1, b""),
            call_gas_limit=50_000, verification_gas_limit=100_000, pre_verification_gas=60_000,
            max_fee_per_gas=20 * GWEI, max_priority_fee_per_gas=2 * GWEI,
        )  # fmt: skip
        ops.append(op.replace(signature=owner.sign_hash(V08.user_op_hash(op, chain_id))))
    await in_batches(chain.rpc, calls)
    return ops


async def measure(name: str, kind: str, url: str, ops: Sequence[UserOperation], connections: int) -> Figures:
    """Send all operations and say how it went."""
    bodies = [request("eth_sendUserOperation", op.to_rpc(), to_hex(V08.address)) for op in ops]
    most = len(bodies) * 2 // 3
    fast, calm = Load(bodies[:most]), Load(bodies[most:])
    seconds = await fast.closed(url, connections)
    accepted = most - len(fast.errors)
    figures = Figures(
        name, kind, per_s=accepted / seconds, p50_ms=fast.percentile_ms(50), p99_ms=fast.percentile_ms(99)
    )
    if accepted:
        await calm.open(url, figures.per_s / 2)
        figures.half_rate_p50_ms, figures.half_rate_p99_ms = calm.percentile_ms(50), calm.percentile_ms(99)
    errors = fast.errors + calm.errors
    figures.accepted, figures.refused = len(ops) - len(errors), len(errors)
    figures.first_error = errors[0] if errors else ""
    return figures


async def rewind(rpc: RpcClient, snapshot: str) -> str:
    """Put the chain back, without the transactions that the last bundler left waiting; returns the next snapshot."""
    await rpc.call("anvil_dropAllTransactions")
    await rpc.call("evm_revert", snapshot)
    found: str = await rpc.call("evm_snapshot")
    return found


async def cheap_share(rpc: RpcClient) -> float | None:
    """From the bundler's own counts; None where it has none."""
    counts = (await rpc.call("seawall_status")).get("validations")
    total = sum(counts.values()) if counts else 0
    return counts["cheap"] / total if total else None


async def run(options: argparse.Namespace) -> dict[str, Any]:
    binary = await asyncio.to_thread(anvil.find_binary)
    result: dict[str, Any] = {"loadavg_before": os.getloadavg()[0], "cores": os.cpu_count(), "figures": []}
    with tempfile.TemporaryDirectory() as folder:
        state = Path(folder, "state.json")
        factories = await Chain.build(state)
        arguments = [*ARGUMENTS, "--chain-id", "1337", "--load-state", str(state), "--timestamp", str(START_S + 60)]
        async with await anvil.Anvil.start(binary.path, arguments) as node, RpcClient(node.url) as rpc:
            chain = Chain(node, rpc, factories)
            await rpc.call("anvil_setBalance", to_hex(Eoa(devnet_key("bundler")).address), hex(10**24))
            ops = {kind: await prepare(chain, options.operations, kind) for kind in KINDS}
            warm_up = {kind: await prepare_warm_up(chain, kind) for kind in KINDS}
            executor = Accounts.derive().trader.address
            gas = validation_gas_limit(V08, [], ops["seen"][0])
            bound = Load(
                [
                    request("eth_call", simulation.handle_ops_call(V08, [op], executor, executor, gas), "latest")
                    for op in ops["seen"]
                ]
            )
            result["eth_call_per_s"] = len(bound.bodies) / await bound.closed(node.url, options.connections)

            async def take(name: str, kind: str, url: str, *, ours: bool) -> None:
                async with RpcClient(url) as one:
                    for op in warm_up[kind]:
                        await one.call("eth_sendUserOperation", op.to_rpc(), to_hex(V08.address))
                    figures = await measure(name, kind, url, ops[kind], options.connections)
                    figures.cheap_share = await cheap_share(one) if ours else None
                result["figures"].append(figures)
                print(render_row(figures), flush=True)

            print(
                f"{'':34} {'accepted/s':>10} {'p50 ms':>8} {'p99 ms':>8} {'half-rate p50':>14} {'p99':>8} {'cheap':>6} {'refused':>8}"
            )
            modes: list[tuple[str, dict[str, Any]]] = [("safe", {"safe": True}), ("trusted", {"safe": False})]
            if options.full:
                modes.insert(1, ("safe, all traced", {"safe": True, "cheap_pass": False}))
            for kind in KINDS:
                snapshot = await rpc.call("evm_snapshot")
                for name, changes in modes:
                    with tempfile.TemporaryDirectory() as database:
                        settings = settings_for(
                            chain,
                            Path(database),
                            max_pool_ops=100_000,
                            idle_poll_interval_s=0.5,
                            poll_interval_s=0.025,
                            **changes,
                        )
                        async with process(settings) as running:
                            await take(f"seawall {name}", kind, running.client.rpc.url, ours=True)
                    snapshot = await rewind(rpc, snapshot)
                if options.voltaire is not None and kind == "seen":
                    for name, safe in (("safe", True), ("unsafe", False)):
                        async with voltaire(chain, options.voltaire, options.voltaire_python, safe=safe) as url:
                            await take(f"Voltaire {name}", kind, url, ours=False)
                        snapshot = await rewind(rpc, snapshot)
                if options.alto is not None and kind == "seen":
                    async with alto(chain, options.alto, executors=1) as url:
                        await take("Alto unsafe", kind, url, ours=False)
                    snapshot = await rewind(rpc, snapshot)
    result["loadavg_after"] = os.getloadavg()[0]
    return result


async def prepare_warm_up(chain: Chain, kind: str) -> list[UserOperation]:
    """Three operations before the clock starts. Those of "unseen" warm nothing but processes and connections: all its hashes differ."""
    ops = []
    for _ in range(3):
        account = await chain.account(deployed=True)
        op = await account.draft()
        op = op.replace(call_gas_limit=50_000, verification_gas_limit=100_000, pre_verification_gas=60_000)
        ops.append(op.replace(signature=account.owner.sign_hash(V08.user_op_hash(op, await chain.rpc.chain_id()))))
    return ops if kind == "seen" else ops[:1]


def render_row(f: Figures) -> str:
    share = "-" if f.cheap_share is None else f"{100 * f.cheap_share:.0f} %"
    row = (
        f"{f.name + ', ' + f.kind:34} {f.per_s:10.1f} {f.p50_ms:8.1f} {f.p99_ms:8.1f} {f.half_rate_p50_ms:14.1f} {f.half_rate_p99_ms:8.1f}"
        f" {share:>6} {f.refused:8}"
    )
    return row + (f"  ({f.first_error[:160]})" if f.first_error else "")


def summary(result: dict[str, Any]) -> str:
    by_name = {(f.name, f.kind): f for f in result["figures"]}
    lines = [
        f"bound: the node's own eth_call of handleOps, {result['eth_call_per_s']:.0f} a second",
        f"load average {result['loadavg_before']:.1f} before, {result['loadavg_after']:.1f} after; {result['cores']} cores",
    ]
    pairs = (
        ("seawall safe", "Voltaire safe"),
        ("seawall trusted", "Voltaire unsafe"),
        ("seawall trusted", "Alto unsafe"),
    )
    for ours, theirs in pairs:
        peer = by_name.get((theirs, "seen"))
        if peer is None or not peer.per_s:
            lines.append(f"{ours} against {theirs}: not measured here")
        else:
            lines.append(f"{ours} against {theirs}: {by_name[(ours, 'seen')].per_s / peer.per_s:.1f}x")
    return "\n".join(lines)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(prog="python -m benchmarks.bundler.accept")
    parser.add_argument("--operations", type=int, default=300)
    parser.add_argument("--connections", type=int, default=16)
    parser.add_argument("--full", action="store_true", help="measure safe mode without its cheap pass, too")
    parser.add_argument("--voltaire", type=Path, default=None, metavar="CHECKOUT")
    parser.add_argument("--voltaire-python", default="python3")
    parser.add_argument("--alto", type=Path, default=None, metavar="SCRIPT")
    parser.add_argument("--json", action="store_true")
    given = parser.parse_args()
    found = asyncio.run(run(given))
    if given.json:
        print(json.dumps(found | {"figures": [asdict(f) for f in found["figures"]]}))
    else:
        print(summary(found))
