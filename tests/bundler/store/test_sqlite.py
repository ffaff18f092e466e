"""What only the SQLite store has: one process, a file that can be damaged."""

from __future__ import annotations

import asyncio
import sqlite3
from pathlib import Path

import pytest

from bundler.store import SqliteStore
from contracts.errors import SetupError
from tests.bundler.store.test_behaviour import add, entry


async def test_second_process_on_one_database_is_refused(tmp_path: Path) -> None:
    store = SqliteStore(tmp_path / "bundler.sqlite")
    with pytest.raises(SetupError, match="in use by another bundler"):
        SqliteStore(tmp_path / "bundler.sqlite")
    await store.close()


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
    await asyncio.gather(*(add(store, entry(n)) for n in range(200)))
    await store.close()
    content = bytearray(path.read_bytes())
    middle = len(content) // 2 // 4096 * 4096
    content[middle : middle + 4096] = b"\x55" * 4096
    path.write_bytes(content)
    with pytest.raises(SetupError, match=r"damaged|malformed"):
        SqliteStore(path)


async def test_failing_disk_is_told_and_later_writes_go_on(tmp_path: Path) -> None:
    store = SqliteStore(tmp_path / "bundler.sqlite")
    await add(store, entry(1))
    store._writer.execute("PRAGMA query_only=ON")  # what a full or read-only disk answers
    with pytest.raises(SetupError, match="cannot be written"):
        await add(store, entry(2))
    store._writer.execute("PRAGMA query_only=OFF")
    await add(store, entry(3))
    assert [record.entry for record in await store.live_operations()] == [entry(1), entry(3)]
    await store.close()
