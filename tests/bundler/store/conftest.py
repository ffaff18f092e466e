"""The databases on which every store is tried."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import pytest

from bundler.store import SqliteStore, Store


@dataclass(frozen=True, slots=True)
class Database:
    """One database, to be opened again and again."""

    folder: Path

    async def open(self) -> Store:
        return SqliteStore(self.folder / "bundler.sqlite")


@pytest.fixture
def database(tmp_path: Path) -> Database:
    """A fresh one."""
    return Database(tmp_path)
