"""What survives a crash: the Store port (`port`), and behind it SQLite for one process (`sqlite`) or PostgreSQL for several (`postgres`)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from bundler.store.port import (
    STEWARD,
    Admission,
    Attempt,
    Changes,
    Held,
    Inclusion,
    LiveAttempts,
    News,
    OperationRecord,
    OpStatus,
    Overtaken,
    Store,
    TxStatus,
)
from bundler.store.sqlite import SqliteStore
from contracts.errors import SetupError

if TYPE_CHECKING:
    from bundler.settings import Settings

__all__ = [
    "STEWARD",
    "Admission",
    "Attempt",
    "Changes",
    "Held",
    "Inclusion",
    "LiveAttempts",
    "News",
    "OpStatus",
    "OperationRecord",
    "Overtaken",
    "SqliteStore",
    "Store",
    "TxStatus",
    "open_store",
]


async def open_store(settings: Settings) -> Store:
    """The store that `store` names, else the SQLite file `database`. Raises SetupError when it cannot be opened."""
    if not settings.store:
        return SqliteStore(settings.database)
    try:
        from bundler.store.postgres import PostgresStore
    except ImportError:
        raise SetupError("PostgreSQL needs an extra package: pip install 'seawall[postgres]'") from None
    return await PostgresStore.open(settings.store, settings.lease_s)
