"""What every Store must do: survive reopening, commit together, refuse what came too late."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator

import pytest

from bundler.mempool import Entry
from bundler.reputation import Change, Counts
from bundler.store import Admission, Attempt, Inclusion, LiveAttempts, OpStatus, Store
from contracts.entrypoint import V07, V08
from contracts.errors import InvalidFields, SetupError
from contracts.types import Hash32, keccak
from contracts.userop import UserOperation
from tests.bundler.store.conftest import Database


def entry(number: int) -> Entry:
    op = UserOperation(number.to_bytes(20), number, b"\x01\x02", signature=b"\x03", paymaster=b"\x07" * 20)
    return Entry(keccak(number.to_bytes(8)), op, (V08, V07)[number % 2], 1_000.5 + number, 7, 11, 99)


def attempt(number: int, *entries: Entry, nonce: int = 5) -> Attempt:
    hashes = tuple(one.hash for one in entries)
    return Attempt(
        keccak(b"tx%d" % number), EXECUTOR, nonce, V08.address, b"raw%d" % number, hashes, 2**70 + number, 3, 40 + number
    )  # fmt: skip


EXECUTOR = b"\x0e" * 20


async def add(store: Store, one: Entry, replaces: Hash32 | None = None) -> None:
    await store.admit(lambda: Admission(one, replaces))


async def live(store: Store) -> LiveAttempts:
    """The attempts of whoever holds every lease."""
    return await store.take_up(await store.renew([EXECUTOR], 0))


@pytest.fixture
async def store(database: Database) -> AsyncIterator[Store]:
    """A store on a database of its own, whose process holds the executor and is the steward."""
    store = await database.open()
    await live(store)
    yield store
    await store.close()


async def status_of(store: Store, one: Entry) -> OpStatus:
    record = await store.operation(one.hash)
    assert record is not None
    return record.status


async def test_operation_comes_back_as_it_was(database: Database) -> None:
    store = await database.open()
    await add(store, entry(1))
    await add(store, entry(2))
    await store.close()
    store = await database.open()
    assert [record.entry for record in await store.live_operations()] == [entry(1), entry(2)]
    assert await store.operation(keccak(b"unknown")) is None
    await store.close()


async def test_replacement_is_one_step(store: Store) -> None:
    await add(store, entry(1))
    await add(store, entry(2), entry(1).hash)
    record = await store.operation(entry(1).hash)
    assert record is not None
    assert (record.status, record.reason) == (OpStatus.DROPPED, f"replaced by 0x{entry(2).hash.hex()}")


async def test_attempts_of_a_nonce_end_together(store: Store) -> None:
    a, b = entry(1), entry(2)
    for one in (a, b):
        await add(store, one)
    first, second = attempt(1, a, b), attempt(2, a)
    await store.add_attempt(first)
    await store.add_attempt(second)
    assert await live(store) == ([first, second], [])
    assert await status_of(store, b) == OpStatus.BUNDLED
    inclusion = Inclusion(second.tx_hash, 44, keccak(b"block"))
    await store.include(second, inclusion, [a.hash], [b.hash])
    assert await live(store) == ([], [(second, inclusion)])
    assert (await status_of(store, a), await status_of(store, b)) == (OpStatus.INCLUDED, OpStatus.RECEIVED)
    record = await store.operation(a.hash)
    assert record is not None
    assert record.inclusion == inclusion


async def test_reorganised_bundle_is_in_flight_again_with_the_same_bytes(store: Store) -> None:
    a = entry(1)
    await add(store, a)
    sent = attempt(1, a)
    await store.add_attempt(sent)
    await store.include(sent, Inclusion(sent.tx_hash, 44, keccak(b"block")), [a.hash], [])
    await store.reopen(sent)
    assert await live(store) == ([sent], [])
    assert await status_of(store, a) == OpStatus.BUNDLED


async def test_strangers_inclusion_is_watched_and_released_by_a_reorganisation(store: Store) -> None:
    a = entry(1)
    await add(store, a)
    theirs = Attempt.foreign(keccak(b"theirs"), V07.address, (a.hash,))
    inclusion = Inclusion(theirs.tx_hash, 44, keccak(b"block"))
    await store.include(theirs, inclusion, [a.hash], [])
    assert await live(store) == ([], [(theirs, inclusion)])
    await store.reopen(theirs)
    assert await live(store) == ([], [])
    assert await status_of(store, a) == OpStatus.RECEIVED


async def test_overtaken_operation_is_dropped_with_its_reason_until_the_strangers_block_is_lost(store: Store) -> None:
    a = entry(1)
    await add(store, a)
    theirs = Attempt.foreign(keccak(b"theirs"), V07.address, (a.hash,))
    inclusion = Inclusion(theirs.tx_hash, 44, keccak(b"block"))
    await store.overtake(theirs, inclusion, [(a.hash, "AA25")])
    assert await live(store) == ([], [(theirs, inclusion)])
    record = await store.operation(a.hash)
    assert record is not None
    assert (record.status, record.reason, record.overtaken) == (OpStatus.DROPPED, "AA25", True)
    await store.reopen(theirs)
    assert await live(store) == ([], [])
    back = await store.operation(a.hash)
    assert back is not None
    assert (back.status, back.reason, back.overtaken) == (OpStatus.RECEIVED, None, False)


async def test_overtaken_operation_stays_dropped_when_the_strangers_block_is_final(store: Store) -> None:
    a = entry(1)
    await add(store, a)
    theirs = Attempt.foreign(keccak(b"theirs"), V07.address, (a.hash,))
    await store.overtake(theirs, Inclusion(theirs.tx_hash, 44, keccak(b"block")), [(a.hash, "AA25")])
    await store.finalise([theirs.tx_hash])
    assert await live(store) == ([], [])
    assert await status_of(store, a) == OpStatus.DROPPED


async def test_a_strangers_bundle_that_is_known_carries_what_is_found_in_it_later(store: Store) -> None:
    a, b = entry(1), entry(2)
    await add(store, a)
    await add(store, b)
    tx_hash = keccak(b"theirs")
    inclusion = Inclusion(tx_hash, 44, keccak(b"block"))
    await store.include(Attempt.foreign(tx_hash, V07.address, (a.hash,)), inclusion, [a.hash], [])
    both = Attempt.foreign(tx_hash, V07.address, (a.hash, b.hash))
    await store.overtake(both, inclusion, [(b.hash, "AA25")])
    assert await live(store) == ([], [(both, inclusion)])
    assert [await status_of(store, a), await status_of(store, b)] == [OpStatus.INCLUDED, OpStatus.DROPPED]


async def test_final_lost_and_reverted_attempts_are_history(store: Store) -> None:
    ops = [entry(n) for n in range(3)]
    for one in ops:
        await add(store, one)
    attempts = [attempt(n, one, nonce=n) for n, one in enumerate(ops)]
    for one_attempt in attempts:
        await store.add_attempt(one_attempt)
    block = keccak(b"block")
    await store.include(attempts[0], Inclusion(attempts[0].tx_hash, 1, block), [ops[0].hash], [])
    await store.finalise([attempts[0].tx_hash])
    await store.lose(EXECUTOR, [attempts[1].tx_hash], [ops[1].hash])
    await store.include(attempts[2], Inclusion(attempts[2].tx_hash, 1, block), [], [ops[2].hash])
    assert await live(store) == ([], [])
    statuses = [await status_of(store, one) for one in ops]
    assert statuses == [OpStatus.INCLUDED, OpStatus.RECEIVED, OpStatus.RECEIVED]


async def test_included_operation_cannot_be_dropped(store: Store) -> None:
    a = entry(1)
    await add(store, a)
    sent = attempt(1, a)
    await store.add_attempt(sent)
    await store.include(sent, Inclusion(sent.tx_hash, 44, keccak(b"block")), [a.hash], [])
    await store.drop_operations([(a.hash, "too late")])
    assert await status_of(store, a) == OpStatus.INCLUDED


async def test_concurrent_writes_share_commits(store: Store) -> None:
    started = time.perf_counter()
    await asyncio.gather(*(add(store, entry(n)) for n in range(500)))
    elapsed_s = time.perf_counter() - started
    assert len(await store.live_operations()) == 500
    print(f"{500 / elapsed_s:.0f} operations/s")


async def test_a_decision_that_refuses_writes_nothing(store: Store) -> None:
    def refuse() -> Admission:
        raise InvalidFields("it came too late")

    with pytest.raises(InvalidFields, match="too late"):
        await store.admit(refuse)
    await add(store, entry(1))
    assert [record.entry for record in await store.live_operations()] == [entry(1)]


async def test_an_operation_that_was_dropped_may_come_again(store: Store) -> None:
    await add(store, entry(1))
    assert await store.drop_operations([(entry(1).hash, "not wanted")]) == [entry(1).hash]
    record = await store.operation(entry(1).hash)
    assert record is not None
    assert (record.status, record.reason) == (OpStatus.DROPPED, "not wanted")
    await add(store, entry(1))
    assert await status_of(store, entry(1)) == OpStatus.RECEIVED


async def test_counts_are_kept_with_what_they_count(database: Database) -> None:
    one, other = b"\x01" * 20, b"\x02" * 20
    store = await database.open()
    await live(store)
    assert await store.reputation() == ({}, None)
    await store.admit(lambda: Admission(entry(1), None, [Change(one, Counts(3, 1), 3, 1)]))
    await store.save_reputation([Change(other, Counts(7, 0), 7, 0)], 1_000.5)
    await store.save_reputation([Change(one, Counts(2, 1), -1, 0), Change(other, None, -7, 0)], None)
    await store.close()
    store = await database.open()
    assert await store.reputation() == ({one: Counts(2, 1)}, 1_000.5)
    await store.close()


async def test_clearing_forgets_what_is_not_history(store: Store) -> None:
    a, b, c = (entry(n) for n in range(3))
    for one in (a, b, c):
        await add(store, one)
    done, under_way = attempt(1, a), attempt(2, b, nonce=6)
    for sent in (done, under_way):
        await store.add_attempt(sent)
    await store.include(done, Inclusion(done.tx_hash, 44, keccak(b"block")), [a.hash], [])
    await store.finalise([done.tx_hash])
    await store.clear()
    assert (await store.live_operations(), await live(store)) == ([], ([], []))
    assert await status_of(store, a) == OpStatus.INCLUDED
    assert await store.operation(c.hash) is None


async def test_a_database_is_of_one_chain(database: Database) -> None:
    store = await database.open()
    await store.bind(10)
    await store.bind(10)
    await store.close()
    store = await database.open()
    with pytest.raises(SetupError, match="is of chain 10, the node serves chain 8453"):
        await store.bind(8453)
    await store.close()
