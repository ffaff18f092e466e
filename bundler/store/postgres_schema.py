"""The tables in PostgreSQL, in a schema of their own.

`state` has one row, which every write locks: writes of all processes follow each other, and rows carry the number of the write that
changed them last (`change`), without gaps and in the order of the commits.
"""

from __future__ import annotations

from typing import Any

import psycopg

from contracts.errors import SetupError

SCHEMA = "seawall_bundler"
SCHEMA_VERSION = 1
CHANNEL = "seawall_bundler"
"""On which a write is announced (NOTIFY); each database has its own."""

TABLES = f"""
CREATE SCHEMA {SCHEMA};
CREATE TABLE {SCHEMA}.state (
    id integer PRIMARY KEY CHECK (id = 1), version integer NOT NULL, chain_id numeric,
    change bigint NOT NULL, cleared bigint NOT NULL, decayed_s double precision
);
INSERT INTO {SCHEMA}.state VALUES (1, {SCHEMA_VERSION}, NULL, 0, 0, NULL);
CREATE TABLE {SCHEMA}.operations (
    hash bytea PRIMARY KEY, entry_point bytea NOT NULL, sender bytea NOT NULL, nonce numeric NOT NULL, body bytea NOT NULL,
    received_s double precision NOT NULL, received_block bigint NOT NULL, valid_after_s bigint NOT NULL, valid_until_s bigint NOT NULL,
    status text NOT NULL, reason text, tx_hash bytea, block_number bigint, block_hash bytea, beside bytea NOT NULL,
    claimed_by bytea, change bigint NOT NULL
);
CREATE INDEX operations_live ON {SCHEMA}.operations (received_s) WHERE status IN ('received', 'bundled');
CREATE UNIQUE INDEX operations_waiting ON {SCHEMA}.operations (entry_point, sender, nonce) WHERE status = 'received';
CREATE INDEX operations_claimed ON {SCHEMA}.operations (claimed_by) WHERE claimed_by IS NOT NULL;
CREATE INDEX operations_change ON {SCHEMA}.operations (change);
CREATE TABLE {SCHEMA}.bundles (
    tx_hash bytea PRIMARY KEY, executor bytea NOT NULL, nonce bigint NOT NULL, entry_point bytea NOT NULL, raw bytea NOT NULL,
    op_hashes bytea NOT NULL, max_fee_wei numeric NOT NULL, priority_fee_wei numeric NOT NULL, sent_block bigint NOT NULL,
    status text NOT NULL, block_number bigint, block_hash bytea, holder text, token bigint, change bigint NOT NULL
);
CREATE INDEX bundles_live ON {SCHEMA}.bundles (executor, nonce) WHERE status IN ('in_flight', 'included');
CREATE INDEX bundles_change ON {SCHEMA}.bundles (change);
CREATE TABLE {SCHEMA}.reputation (
    address bytea PRIMARY KEY, seen bigint NOT NULL, included bigint NOT NULL, change bigint NOT NULL
);
CREATE INDEX reputation_change ON {SCHEMA}.reputation (change);
CREATE TABLE {SCHEMA}.leases (
    name bytea PRIMARY KEY, holder text NOT NULL, token bigint NOT NULL, signs boolean NOT NULL, until timestamptz NOT NULL
);
"""  # noqa: S608 (our own names)

_MIGRATION_LOCK = 4_337
_Connection = psycopg.AsyncConnection[tuple[Any, ...]]


async def _version_of(connection: _Connection) -> int | None:
    cursor = await connection.execute("SELECT to_regclass(%s)", (f"{SCHEMA}.state",))
    if await cursor.fetchone() == (None,):
        return None
    cursor = await connection.execute("SELECT version FROM state")
    (version,) = await cursor.fetchone() or (0,)
    return int(version)


async def migrate(connection: _Connection, where: str) -> None:
    """Make the tables, once for all processes. Raises SetupError for those of another version, psycopg.Error."""
    async with connection.transaction():
        await connection.execute("SELECT pg_advisory_xact_lock(%s)", (_MIGRATION_LOCK,))
        version = await _version_of(connection)
        if version is None:
            await connection.execute(TABLES.encode())
            return
    if version != SCHEMA_VERSION:
        newer = version > SCHEMA_VERSION
        raise SetupError(
            f"the database {where} has schema version {version}, this bundler knows {SCHEMA_VERSION}: "
            + (
                "use the newer seawall that wrote it"
                if newer
                else "drain it with the seawall that wrote it, and take a new one"
            )
        )


async def tables_of(connection: _Connection) -> str:
    """What is there, in words. Raises psycopg.Error."""
    version = await _version_of(connection)
    if version is None:
        return "tables will be made"
    cursor = await connection.execute(
        "SELECT chain_id, (SELECT count(*) FROM leases WHERE until > clock_timestamp()) FROM state"
    )
    chain_id, leases = await cursor.fetchone() or (None, 0)
    return f"tables of version {version}, chain {chain_id}, {leases} leases held"


async def weaknesses(connection: _Connection) -> list[str]:
    """Settings of the server without which a power loss there may lose what was acknowledged. Raises psycopg.Error."""
    found = []
    for name in ("fsync", "full_page_writes"):
        cursor = await connection.execute(f"SHOW {name}".encode())
        if await cursor.fetchone() == ("off",):
            found.append(name)
    return found
