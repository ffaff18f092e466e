"""The pool and the selection from it, without a chain."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st

from bundler.builder import _by_tip, select, tip_of
from bundler.chain import Head
from bundler.gas import bundle_gas_limit
from bundler.keys import KeyVariable
from bundler.mempool import Entry, Mempool
from bundler.reputation import Reputation
from bundler.settings import Settings
from bundler.validity import expiry
from contracts.entrypoint import V08
from contracts.types import keccak
from contracts.userop import UserOperation, required_prefund

HEAD = Head(100, keccak(b"head"), 1_000, 10)
REPUTATION = Reputation(0.0)
PAYMASTER = b"\x0a" * 20


def settings(max_ops: int = 64, max_gas: int = 16_777_216) -> Settings:
    return Settings(
        rpc_url="", executor_key=KeyVariable("X"), database=Path(), max_ops_per_bundle=max_ops, max_bundle_gas=max_gas
    )


def entry(sender: int, sequence: int, *, key: int = 0, tip: int = 1, **changes: int) -> Entry:
    op = UserOperation(
        sender.to_bytes(20), key << 64 | sequence, b"", call_gas_limit=100_000, verification_gas_limit=100_000,
        max_fee_per_gas=10 + tip, max_priority_fee_per_gas=tip, paymaster=PAYMASTER if sender % 3 == 0 else None,
        factory=b"\x0f" * 20 if sequence == 0 and sender % 2 == 0 else None,
    )  # fmt: skip
    return Entry(keccak(f"{sender} {sequence} {key}".encode()), op, V08, sender + sequence / 10, 1, **changes)


ENTRIES = st.lists(
    st.tuples(st.integers(1, 6), st.integers(0, 5), st.integers(0, 1), st.integers(0, 9)),
    unique_by=lambda t: t[:3],
    max_size=30,
).map(lambda rows: [entry(sender, sequence, key=key, tip=tip) for sender, sequence, key, tip in rows])


@given(entries=ENTRIES, removals=st.sets(st.integers(0, 29)))
def test_counts_match_the_content_after_any_additions_and_removals(entries: list[Entry], removals: set[int]) -> None:
    pool = Mempool()
    for one in entries:
        pool.add(one)
    for index in removals:
        if index < len(entries):
            assert pool.remove(entries[index].hash) is entries[index]
    left = [one for index, one in enumerate(entries) if index not in removals]
    assert list(pool) == left
    assert pool.promised(V08, PAYMASTER) == sum(required_prefund(e.op) for e in left if e.op.paymaster)
    assert pool.is_entity(PAYMASTER) == any(e.op.paymaster for e in left)
    assert pool.is_entity(b"\x0f" * 20) == any(e.op.factory for e in left)
    for sender in range(1, 7):
        assert pool.is_sender(sender.to_bytes(20)) == any(e.op.sender == sender.to_bytes(20) for e in left)


@given(entries=ENTRIES, max_ops=st.integers(1, 12), max_gas=st.integers(300_000, 5_000_000))
def test_selection_keeps_limits_and_order_of_dependence(entries: list[Entry], max_ops: int, max_gas: int) -> None:
    pool = Mempool()
    for one in entries:
        pool.add(one)
    chosen = select(pool, V08, HEAD, settings(max_ops, max_gas), REPUTATION)
    assert len(chosen) <= max_ops
    assert not chosen or bundle_gas_limit(V08, [one.op for one in chosen]) <= max_gas
    assert len({one.hash for one in chosen}) == len(chosen)
    for position, one in enumerate(chosen):
        earlier = {other.hash for other in chosen[:position]}
        assert all(other.hash in earlier for other in pool.before(one.op, V08))


@given(
    entries=ENTRIES,
    steps=st.lists(st.tuples(st.sampled_from(["launch", "land", "remove"]), st.integers(0, 29)), max_size=60),
    base_fee=st.integers(0, 14),
)
def test_order_lowest_and_ends_agree_with_a_look_at_everything(
    entries: list[Entry], steps: list[tuple[str, int]], base_fee: int
) -> None:
    pool, flying = Mempool(), set[bytes]()
    for number, one in enumerate(entries):
        changed = replace(one, valid_until_s=100 + number) if number % 3 == 0 else one
        pool.add(replace(changed, valid_until_block=50 + number) if number % 4 == 0 else changed)
    for what, index in steps:
        if index >= len(entries):
            continue
        op_hash = entries[index].hash
        if what == "launch" and op_hash in pool:
            pool.launch([op_hash])
            flying.add(op_hash)
        elif what == "land":
            pool.land([op_hash])
            flying.discard(op_hash)
        elif what == "remove":
            pool.remove(op_hash)
            flying.discard(op_hash)
        waiting = [one for one in pool if one.hash not in flying]
        assert pool.has_waiting == bool(waiting)
        assert pool.size_bytes == sum(one.size_bytes for one in pool)
        lowest = min(waiting, key=lambda one: (*one.bid, -one.received_s, one.hash), default=None)
        assert (pool.lowest() or replace(entries[0], hash=b"")).hash == (b"" if lowest is None else lowest.hash)
        for _ in range(2):  # looking changes nothing
            found = list(pool.best_first(V08.address))
            assert found == sorted(waiting, key=lambda one: (-one.bid[0], one.received_s, one.hash))
            ended = pool.ended(110, 58)
            assert set(ended) == {one for one in pool if one.valid_until_s < 110 or one.valid_until_block <= 58}
            assert len(set(ended)) == len(ended)
        head = Head(1, keccak(b"h"), 1, base_fee)
        by_tip = sorted(
            (one for one in waiting if tip_of(one, head) >= 0),
            key=lambda one: (-tip_of(one, head), one.received_s, one.hash),
        )
        assert list(_by_tip(pool, V08, head)) == by_tip


def test_heaps_do_not_grow_with_what_came_and_went() -> None:
    pool = Mempool()
    for number in range(5_000):
        one = entry(number + 1, 1, tip=number % 7)
        pool.add(one)
        pool.launch([one.hash])
        pool.land([one.hash])
        if number % 10:
            pool.remove(one.hash)
    assert len(pool) == 500
    assert max(len(pool._least), len(pool._best[V08.address])) <= 2 * 500 + 66


def test_best_payer_comes_first() -> None:
    pool = Mempool()
    for sender, tip in ((1, 3), (2, 9), (5, 6)):
        pool.add(entry(sender, 1, tip=tip))
    assert [one.op.max_priority_fee_per_gas for one in select(pool, V08, HEAD, settings(), REPUTATION)] == [9, 6, 3]


def test_operation_not_due_or_under_way_is_skipped_with_what_follows_it() -> None:
    pool = Mempool()
    early, late = entry(1, 1, valid_after_s=1_000), entry(5, 1, valid_until_s=999)
    flying, follower, free = entry(7, 1), entry(7, 2), entry(11, 1)
    for one in (early, late, flying, follower, free):
        pool.add(one)
    pool.launch([flying.hash])
    assert select(pool, V08, HEAD, settings(), REPUTATION) == [free]
    pool.land([flying.hash])
    assert select(pool, V08, HEAD, settings(), REPUTATION) == [flying, follower, free]


def test_operation_outside_its_range_of_blocks_is_skipped() -> None:
    pool = Mempool()
    early, late = entry(1, 1, valid_after_block=100), entry(5, 1, valid_until_block=100)
    first, last = entry(7, 1, valid_after_block=99), entry(11, 1, valid_until_block=101)
    for one in (early, late, first, last):
        pool.add(one)
    assert select(pool, V08, HEAD, settings(), REPUTATION) == [first, last]
    assert (expiry(late, HEAD), expiry(early, HEAD)[:4]) == (
        "AA27 expired: valid until block 100, the latest is 100",
        "AA22",
    )


def test_operation_below_the_base_fee_waits() -> None:
    pool = Mempool()
    pool.add(entry(1, 1, tip=3))
    dearer = Head(101, keccak(b"next"), 1_001, 14)
    assert select(pool, V08, dearer, settings(), REPUTATION) == []
    assert len(select(pool, V08, HEAD, settings(), REPUTATION)) == 1
