"""What one operation costs the pool as it grows: insert, select a bundle, replace, evict, remove; memory, and a start from disk.

    python benchmarks/bundler/pool.py [--most 100000]

Sizes of 1,000, 10,000 and 100,000 operations of as many senders, each with SimpleAccount's data; medians of many single operations, and their
ratio to those of the smallest pool. Memory by tracemalloc, for one operation and all that the pool keeps of it. The start reads what a
SQLite store has on disk into a pool, as a process does that begins.
"""

from __future__ import annotations

import argparse
import asyncio
import random
import statistics
import tempfile
import time
import tracemalloc
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from bundler.builder import select
from bundler.chain import Head
from bundler.keys import KeyVariable
from bundler.mempool import Entry, Mempool
from bundler.reputation import Reputation
from bundler.settings import Settings
from bundler.store import Admission, SqliteStore
from contracts.entrypoint import V08
from contracts.types import keccak
from contracts.userop import UserOperation

GWEI = 10**9
HEAD = Head(1, keccak(b"head"), 1_700_000_000, 10 * GWEI)
SETTINGS = Settings(rpc_url="", executor_key=KeyVariable("X"), database=Path())
REPUTATION = Reputation(0.0)
ROUNDS = 300


def made(number: int, rng: random.Random) -> Entry:
    """An operation of a sender of its own: a transfer through `execute`, a 65-byte signature."""
    tip = rng.randrange(1, 5_000) * 10**6
    op = UserOperation(
        sender=keccak(b"%d" % number)[:20],
        nonce=0,
        call_data=rng.randbytes(4) + rng.randbytes(32).rjust(128, b"\0"),
        call_gas_limit=50_000,
        verification_gas_limit=100_000,
        pre_verification_gas=50_000,
        max_fee_per_gas=10 * GWEI + 2 * tip,
        max_priority_fee_per_gas=tip,
        signature=rng.randbytes(65),
    )
    return Entry(keccak(b"op %d" % number), op, V08, float(number), 1, contracts=frozenset())


def median_us(work: Callable[[], object], rounds: int = ROUNDS) -> float:
    times = []
    for _ in range(rounds):
        start = time.perf_counter()
        work()
        times.append(time.perf_counter() - start)
    return statistics.median(times) * 1e6


def measure(size: int, rng: random.Random) -> dict[str, float]:
    pool = Mempool()
    for number in range(size):
        pool.add(made(number, rng))
    fresh = iter([made(size + n, rng) for n in range(ROUNDS)])
    found = {"insert": median_us(lambda: pool.add(next(fresh)))}
    found["select 64"] = median_us(lambda: select(pool, V08, HEAD, SETTINGS, REPUTATION), 30)
    victims = iter([keccak(b"op %d" % n) for n in rng.sample(range(size), ROUNDS)])

    def replaced() -> None:
        old = pool.remove(next(victims))
        assert old is not None
        pool.add(replace(old, hash=keccak(old.hash)))

    found["replace"] = median_us(replaced)

    def evicted() -> None:
        lowest = pool.lowest()
        assert lowest is not None
        pool.remove(lowest.hash)

    found["evict"] = median_us(evicted)
    rest = iter([one.hash for one in list(pool)[:ROUNDS]])
    found["remove"] = median_us(lambda: pool.remove(next(rest)))
    return found


def memory_kb(size: int, rng: random.Random) -> float:
    tracemalloc.start()
    before = tracemalloc.get_traced_memory()[0]
    pool = Mempool()
    for number in range(size):
        pool.add(made(number, rng))
    used = tracemalloc.get_traced_memory()[0] - before
    tracemalloc.stop()
    assert len(pool) == size
    return used / size / 1_000


async def start_s(size: int, rng: random.Random) -> tuple[float, float]:
    with tempfile.TemporaryDirectory() as folder:
        store = SqliteStore(Path(folder) / "pool.sqlite")
        for first in range(0, size, 2_000):
            batch = [Admission(made(n, rng)) for n in range(first, min(first + 2_000, size))]
            await asyncio.gather(*(store.admit(lambda one=one: one) for one in batch))
        await store.close()
        begun, cpu = time.perf_counter(), time.process_time()
        store = SqliteStore(Path(folder) / "pool.sqlite")
        pool = Mempool()
        for record in await store.live_operations():
            pool.add(record.entry)
        took_s, cpu_s = time.perf_counter() - begun, time.process_time() - cpu
        assert len(pool) == size
        await store.close()
        return took_s, cpu_s


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--most", type=int, default=100_000)
    most = parser.parse_args().most
    rng = random.Random(1)  # noqa: S311
    sizes = [size for size in (1_000, 10_000, 100_000) if size <= most]
    rows = {size: measure(size, rng) for size in sizes}
    print(f"{'median, us':<12}" + "".join(f"{size:>12,}" for size in sizes) + f"{'last : first':>15}")
    for name in rows[sizes[0]]:
        values = [rows[size][name] for size in sizes]
        print(f"{name:<12}" + "".join(f"{value:>12.1f}" for value in values) + f"{values[-1] / values[0]:>15.2f}")
    print(f"memory of one operation: {memory_kb(min(most, 20_000), rng):.2f} kB")
    took_s, cpu_s = asyncio.run(start_s(most, rng))
    print(f"start with {most:,} operations on disk: {took_s:.2f} s, of which {cpu_s:.2f} s on the processor")


if __name__ == "__main__":
    main()
