"""The databases on which every store is tried."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from bundler.store import SqliteStore, Store
from bundler.store.postgres import PostgresStore


@dataclass(frozen=True, slots=True)
class Database:
    """One database, to be opened again and again."""

    path: Path
    url: str | None = None

    async def open(self) -> Store:
        """As a process of its own."""
        return SqliteStore(self.path) if self.url is None else await PostgresStore.open(self.url)


@pytest.fixture(params=["sqlite", "postgresql"])
def database(request: Any, tmp_path: Path) -> Database:
    """A fresh one of each kind."""
    if request.param == "sqlite":
        return Database(tmp_path / "bundler.sqlite")
    return Database(tmp_path, request.getfixturevalue("cluster").database())
