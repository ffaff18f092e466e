"""Where an accepted operation's time goes: the bundler's own process under cProfile, and the CPU time of each process.

    python -m benchmarks.bundler.profile [--operations N] [--trusted] [--lines N]

The load is that of `benchmarks.bundler.accept`. CPU times are the operating system's, so that they hold on a busy machine too; cProfile
makes Python about twice as slow, read its shares.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import pstats
import sys
import tempfile
from io import StringIO
from pathlib import Path

from benchmarks.bundler.accept import ARGUMENTS, Load, prepare, request
from contracts.devnet import anvil
from contracts.devnet.accounts import devnet_key
from contracts.entrypoint import V08
from contracts.eoa import Eoa
from contracts.rpc import RpcClient
from contracts.types import to_hex
from tests.bundler.rig import ROOT, START_S, Chain, arguments_of, settings_for

_UNDER_PROFILE = """
import cProfile, sys, time
from bundler.__main__ import main
stats = sys.argv.pop(1)
profile = cProfile.Profile(timer=time.process_time)
profile.enable()
try:
    main()
finally:
    profile.disable()
    profile.dump_stats(stats)
"""
"""Counts CPU time, not waiting; imports are done before it begins."""

TICKS = os.sysconf("SC_CLK_TCK")


def cpu_s(pid: int) -> float:
    """User and system seconds of a process so far."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / TICKS


async def run(options: argparse.Namespace, *, profiled: bool) -> str:
    """One load; what it cost, and the profile if asked for."""
    binary = await asyncio.to_thread(anvil.find_binary)
    with tempfile.TemporaryDirectory() as folder:
        state, stats = Path(folder, "state.json"), Path(folder, "stats")
        factories = await Chain.build(state)
        arguments = [*ARGUMENTS, "--chain-id", "1337", "--load-state", str(state), "--timestamp", str(START_S + 60)]
        async with await anvil.Anvil.start(binary.path, arguments) as node, RpcClient(node.url) as rpc:
            chain = Chain(node, rpc, factories)
            await rpc.call("anvil_setBalance", to_hex(Eoa(devnet_key("bundler")).address), hex(10**24))
            ops = await prepare(chain, options.operations, "seen")
            settings = settings_for(
                chain,
                Path(folder),
                max_pool_ops=100_000,
                idle_poll_interval_s=0.5,
                poll_interval_s=0.025,
                safe=not options.trusted,
            )
            start = ["-c", _UNDER_PROFILE, str(stats)] if profiled else ["-m", "bundler"]
            child = await asyncio.create_subprocess_exec(
                sys.executable,
                *start,
                *arguments_of(settings),
                cwd=ROOT,
                stdout=asyncio.subprocess.PIPE,
                stderr=asyncio.subprocess.DEVNULL,
            )
            assert child.stdout is not None
            url = json.loads(await child.stdout.readline())["url"]
            load = Load([request("eth_sendUserOperation", op.to_rpc(), to_hex(V08.address)) for op in ops])
            before = [cpu_s(pid) for pid in (child.pid, node.pid, os.getpid())]
            seconds = await load.closed(url, 16)
            after = [cpu_s(pid) for pid in (child.pid, node.pid, os.getpid())]
            child.terminate()
            await child.wait()
            used = [1000 * (b - a) / len(ops) for a, b in zip(before, after, strict=True)]
            text = (
                f"{len(ops)} operations, {len(ops) / seconds:.0f} a second, {len(load.errors)} refused; "
                f"CPU per operation: bundler {used[0]:.2f} ms, node {used[1]:.2f} ms, client {used[2]:.2f} ms\n"
            )
            if not profiled:
                return text
            out = StringIO()
            pstats.Stats(str(stats), stream=out).strip_dirs().sort_stats(options.sort).print_stats(options.lines)
            return text + out.getvalue()


if __name__ == "__main__":
    parser = argparse.ArgumentParser(prog="python -m benchmarks.bundler.profile")
    parser.add_argument("--operations", type=int, default=400)
    parser.add_argument("--trusted", action="store_true")
    parser.add_argument("--lines", type=int, default=45)
    parser.add_argument("--sort", default="tottime")
    parser.add_argument("--plain", action="store_true", help="CPU times only")
    given = parser.parse_args()
    print(asyncio.run(run(given, profiled=False)))
    if not given.plain:
        print(asyncio.run(run(given, profiled=True)))
