"""What is on disk: survives reopening, refuses what it does not understand, commits together."""

from __future__ import annotations

import asyncio
import sqlite3
import time
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from bundler.mempool import Entry
from bundler.store import Attempt, Inclusion, OpStatus, SqliteStore
from contracts.entrypoint import V07, V08
from contracts.errors import SetupError
from contracts.types import keccak
from contracts.userop import UserOperation


def entry(number: int) -> Entry:
    op = UserOperation(number.to_bytes(20), number, b"\x01\x02", signature=b"\x03", paymaster=b"\x07" * 20)
    return Entry(keccak(number.to_bytes(8)), op, (V08, V07)[number % 2], 1_000.5 + number, 7, 11, 99)


def attempt(number: int, *entries: Entry, nonce: int = 5) -> Attempt:
    hashes = tuple(one.hash for one in entries)
    return Attempt(
        keccak(b"tx%d" % number), b"\x0e" * 20, nonce, V08.address, b"raw%d" % number, hashes, 2**70 + number, 3, 40 + number
    )  # fmt: skip


@pytest.fixture
async def store(tmp_path: Path) -> AsyncIterator[SqliteStore]:
    store = SqliteStore(tmp_path / "bundler.sqlite")
    yield store
    await store.close()


def status_of(store: SqliteStore, one: Entry) -> OpStatus:
    record = store.operation(one.hash)
    assert record is not None
    return record.status


async def test_operation_comes_back_as_it_was(tmp_path: Path) -> None:
    store = SqliteStore(tmp_path / "a.sqlite")
    await store.add_operation(entry(1), None)
    await store.add_operation(entry(2), None)
    await store.close()
    store = SqliteStore(tmp_path / "a.sqlite")
    assert [record.entry for record in store.live_operations()] == [entry(1), entry(2)]
    assert store.operation(keccak(b"unknown")) is None
    await store.close()


async def test_replacement_is_one_step(store: SqliteStore) -> None:
    await store.add_operation(entry(1), None)
    await store.add_operation(entry(2), entry(1).hash)
    record = store.operation(entry(1).hash)
    assert record is not None
    assert (record.status, record.reason) == (OpStatus.DROPPED, f"replaced by 0x{entry(2).hash.hex()}")


async def test_attempts_of_a_nonce_end_together(store: SqliteStore) -> None:
    a, b = entry(1), entry(2)
    for one in (a, b):
        await store.add_operation(one, None)
    first, second = attempt(1, a, b), attempt(2, a)
    await store.add_attempt(first)
    await store.add_attempt(second)
    assert store.live_attempts() == ([first, second], [])
    assert status_of(store, b) == OpStatus.BUNDLED
    inclusion = Inclusion(second.tx_hash, 44, keccak(b"block"))
    await store.include(second, inclusion, [a.hash], [b.hash])
    assert store.live_attempts() == ([], [(second, inclusion)])
    assert (status_of(store, a), status_of(store, b)) == (OpStatus.INCLUDED, OpStatus.RECEIVED)
    record = store.operation(a.hash)
    assert record is not None
    assert record.inclusion == inclusion


async def test_reorganised_bundle_is_in_flight_again_with_the_same_bytes(store: SqliteStore) -> None:
    a = entry(1)
    await store.add_operation(a, None)
    sent = attempt(1, a)
    await store.add_attempt(sent)
    await store.include(sent, Inclusion(sent.tx_hash, 44, keccak(b"block")), [a.hash], [])
    await store.reopen(sent)
    assert store.live_attempts() == ([sent], [])
    assert status_of(store, a) == OpStatus.BUNDLED


async def test_strangers_inclusion_is_watched_and_released_by_a_reorganisation(store: SqliteStore) -> None:
    a = entry(1)
    await store.add_operation(a, None)
    theirs = Attempt.foreign(keccak(b"theirs"), V07.address, (a.hash,))
    inclusion = Inclusion(theirs.tx_hash, 44, keccak(b"block"))
    await store.include(theirs, inclusion, [a.hash], [])
    assert store.live_attempts() == ([], [(theirs, inclusion)])
    await store.reopen(theirs)
    assert store.live_attempts() == ([], [])
    assert status_of(store, a) == OpStatus.RECEIVED


async def test_final_lost_and_reverted_attempts_are_history(store: SqliteStore) -> None:
    ops = [entry(n) for n in range(3)]
    for one in ops:
        await store.add_operation(one, None)
    attempts = [attempt(n, one, nonce=n) for n, one in enumerate(ops)]
    for one_attempt in attempts:
        await store.add_attempt(one_attempt)
    block = keccak(b"block")
    await store.include(attempts[0], Inclusion(attempts[0].tx_hash, 1, block), [ops[0].hash], [])
    await store.finalise([attempts[0].tx_hash])
    await store.lose([attempts[1].tx_hash], [ops[1].hash])
    await store.include(attempts[2], Inclusion(attempts[2].tx_hash, 1, block), [], [ops[2].hash])
    assert store.live_attempts() == ([], [])
    statuses = [status_of(store, one) for one in ops]
    assert statuses == [OpStatus.INCLUDED, OpStatus.RECEIVED, OpStatus.RECEIVED]


async def test_included_operation_cannot_be_dropped(store: SqliteStore) -> None:
    a = entry(1)
    await store.add_operation(a, None)
    sent = attempt(1, a)
    await store.include(sent, Inclusion(sent.tx_hash, 44, keccak(b"block")), [a.hash], [])
    await store.drop_operations([(a.hash, "too late")])
    assert status_of(store, a) == OpStatus.INCLUDED


async def test_concurrent_writes_share_commits(store: SqliteStore) -> None:
    started = time.perf_counter()
    await asyncio.gather(*(store.add_operation(entry(n), None) for n in range(500)))
    elapsed_s = time.perf_counter() - started
    assert len(store.live_operations()) == 500
    print(f"{500 / elapsed_s:.0f} operations/s")


async def test_second_process_on_one_database_is_refused(store: SqliteStore, tmp_path: Path) -> None:
    assert store.live_operations() == []
    with pytest.raises(SetupError, match="in use by another bundler"):
        SqliteStore(tmp_path / "bundler.sqlite")


def test_newer_schema_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "new.sqlite"
    connection = sqlite3.connect(path)
    connection.execute("PRAGMA user_version=99")
    connection.close()
    with pytest.raises(SetupError, match="schema version 99"):
        SqliteStore(path)


def test_damaged_file_is_refused_with_advice(tmp_path: Path) -> None:
    path = tmp_path / "damaged.sqlite"
    path.write_bytes(b"SQLite format 3\x00" + b"\xde\xad" * 4_000)
    with pytest.raises(SetupError, match="Restore it from a backup"):
        SqliteStore(path)


async def test_page_damaged_inside_the_file_is_noticed(tmp_path: Path) -> None:
    path = tmp_path / "bundler.sqlite"
    store = SqliteStore(path)
    await asyncio.gather(*(store.add_operation(entry(n), None) for n in range(200)))
    await store.close()
    content = bytearray(path.read_bytes())
    middle = len(content) // 2 // 4096 * 4096
    content[middle : middle + 4096] = b"\x55" * 4096
    path.write_bytes(content)
    with pytest.raises(SetupError, match=r"damaged|malformed"):
        SqliteStore(path)


async def test_failing_disk_is_told_and_later_writes_go_on(tmp_path: Path) -> None:
    store = SqliteStore(tmp_path / "bundler.sqlite")
    await store.add_operation(entry(1), None)
    store._writer.execute("PRAGMA query_only=ON")  # what a full or read-only disk answers
    with pytest.raises(SetupError, match="cannot be written"):
        await store.add_operation(entry(2), None)
    store._writer.execute("PRAGMA query_only=OFF")
    await store.add_operation(entry(3), None)
    assert [record.entry for record in store.live_operations()] == [entry(1), entry(3)]
    await store.close()
