"""The connections to PostgreSQL: one that writes in batches, one that reads, one that listens.

How processes learn of each other's writes: by the number of the last write (`state.change`), which each compares with the last it knows
and reads the rows that changed since. A notification (LISTEN) only says that it is worth looking: one that is lost, with its connection
or in a fail-over, costs the time to the next look and never a change. Numbers have no gaps because every write locks the row that has them;
a process holds that lock for one commit, and gathers what its requests want written meanwhile for the next.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

import psycopg
from psycopg.conninfo import conninfo_to_dict

from bundler.reputation import Counts
from bundler.store.encoding import ATTEMPT_COLUMNS, OPERATION_COLUMNS, attempt_of, inclusion_of, record_of
from bundler.store.port import News, TxStatus
from bundler.store.postgres_schema import CHANNEL, SCHEMA
from contracts.errors import SeawallError, SetupError
from contracts.types import Address

log = logging.getLogger("bundler.store")

_CONNECT_S = 5
_LONGEST_S = 15.0
"""How long one batch may take before the server counts as gone."""
_MOST = 256
"""Writes that share a commit."""
_SESSION = f"""
SET search_path TO {SCHEMA}; SET statement_timeout = '10s'; SET lock_timeout = '8s'; SET idle_in_transaction_session_timeout = '5s'
"""
"""A process that is stopped in the middle of a write loses its lock after 5 s: the others wait no longer."""

T = TypeVar("T")
Connection = psycopg.AsyncConnection[tuple[Any, ...]]
Cursor = psycopg.AsyncCursor[tuple[Any, ...]]


@dataclass(slots=True)
class Batch:
    """One transaction under way: its cursor, its number, the counts that it wrote."""

    cursor: Cursor
    change: int
    counts: dict[Address, Counts]

    async def run(self, sql: str, values: Sequence[Any] | Mapping[str, Any] = ()) -> list[tuple[Any, ...]]:
        """Execute one statement; its rows, if it has any."""
        await self.cursor.execute(sql.encode(), values)
        return await self.cursor.fetchall() if self.cursor.description is not None else []


Job = Callable[[Batch], Awaitable[Any]]
"""Writes its part of a batch. What it refuses, it refuses (SeawallError) before it has written anything."""


class Session:
    """The connections of one process. Lost ones are made again at the next use."""

    def __init__(self, url: str) -> None:
        self._url = url
        told = conninfo_to_dict(url)
        self.where = f"{told.get('host') or 'the local socket'}:{told.get('port') or 5432}/{told.get('dbname') or ''}"
        self._learn: Callable[[News], None] | None = None
        self._wake: Callable[[], None] | None = None
        self._writer: Connection | None = None
        self._reader: Connection | None = None
        self._reading = asyncio.Lock()
        self._queue: asyncio.Queue[tuple[Job | None, asyncio.Future[Any]]] = asyncio.Queue()
        self._tasks: list[asyncio.Task[None]] = []
        self._seen: int | None = None
        """The last write that the view knows; None before it was read for the first time."""
        self._cleared = 0
        self._all_counts = False
        """Whether a write failed: all counts are learnt anew, then."""

    async def connect(self) -> Connection:
        """A new connection, synchronous commits on. Raises psycopg.Error."""
        connection: Connection = await psycopg.AsyncConnection.connect(
            self._url, autocommit=True, connect_timeout=_CONNECT_S, application_name="seawall bundler",
            keepalives_idle=5, keepalives_interval=2, keepalives_count=3, tcp_user_timeout=10_000,
        )  # fmt: skip
        for statement in _SESSION.strip().split(";"):
            await connection.execute(statement.encode())
        (mode,) = await (await connection.execute("SHOW synchronous_commit")).fetchone() or ("off",)
        if mode in ("off", "local"):
            await connection.execute("SET synchronous_commit = on")
        return connection

    async def open(self) -> None:
        """Connect, and begin to work. Raises SetupError."""
        try:
            self._writer = await self.connect()
        except psycopg.Error as error:
            raise self.unreachable(error) from error

    def start(self, learn: Callable[[News], None], wake: Callable[[], None]) -> None:
        """Tell these from now on."""
        self._learn, self._wake = learn, wake
        self._tasks.append(asyncio.ensure_future(self._listen()))

    def unreachable(self, error: Exception) -> SetupError:
        """In words, without the password that `store` may hold."""
        words = str(error).strip().splitlines()
        return SetupError(
            f"the PostgreSQL server at {self.where} cannot be reached: {words[-1] if words else type(error).__name__}. "
            "Is it running, and are `store` and the password right?"
        )

    def failure(self, error: Exception) -> SetupError:
        """What a failed statement means for whoever wanted it."""
        state = getattr(error, "sqlstate", None)
        words = (str(error).strip().splitlines() or [type(error).__name__])[0]
        hint = {
            "53100": "make room on the server: until then nothing is acknowledged",
            "25006": "it is read-only: name the primary in `store`, or target_session_attrs=read-write",
            "42501": "give its role the right to create and write the schema seawall_bundler",
        }.get(state or "", "the bundler connects again by itself")
        return SetupError(f"the PostgreSQL database {self.where} cannot be written: {words}; {hint}")

    # -- reading ------------------------------------------------------------------------------------------------------------------------

    async def read(self, sql: str, values: Sequence[Any] = ()) -> list[tuple[Any, ...]]:
        """The rows of a query; a connection that was lost meanwhile is made again once. Raises SetupError."""
        async with self._reading:
            for last in (False, True):
                try:
                    async with asyncio.timeout(_LONGEST_S):
                        if self._reader is None or self._reader.closed:
                            self._reader = await self.connect()
                        return await (await self._reader.execute(sql.encode(), values)).fetchall()
                except (psycopg.Error, TimeoutError) as error:
                    await _end(self._reader)
                    self._reader = None
                    if last:
                        raise self.unreachable(error) from error
        raise AssertionError

    # -- writing ------------------------------------------------------------------------------------------------------------------------

    async def write(self, job: Callable[[Batch], Awaitable[T]]) -> T:
        """Have a job done in the next batch; returns what it returns, once that is durable. Raises SetupError and what the job raises."""
        return await self._queued(job)  # type: ignore[no-any-return]

    async def refresh(self) -> None:
        """Have the view learn what was written before this call. Raises SetupError."""
        await self._queued(None)

    async def _queued(self, job: Job | None) -> Any:
        if not any(task.get_name() == "bundler-store" for task in self._tasks):
            self._tasks.append(asyncio.create_task(self._work(), name="bundler-store"))
        future: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        self._queue.put_nowait((job, future))
        return await asyncio.shield(future)

    async def _work(self) -> None:
        while True:
            items = [await self._queue.get()]
            while not self._queue.empty() and len(items) < _MOST:
                items.append(self._queue.get_nowait())
            results: list[Any] = []
            try:
                async with asyncio.timeout(_LONGEST_S):
                    results = await self._batch([job for job, _ in items if job is not None])
            except (psycopg.Error, TimeoutError) as error:
                await _end(self._writer)
                self._writer = None
                self._all_counts = True
                results = [self.failure(error)] * len(items)
            else:
                found = iter(results)
                results = [None if job is None else next(found) for job, _ in items]
            for (_, future), result in zip(items, results, strict=True):
                if future.cancelled():
                    continue
                if isinstance(result, Exception):
                    future.set_exception(result)
                    future.exception()  # whoever waited may have gone
                else:
                    future.set_result(result)

    async def _batch(self, jobs: Sequence[Job]) -> list[Any]:
        """Look, if there is nothing to write; else one transaction. Results and refusals in order. Raises psycopg.Error."""
        connection = await self._connected()
        if not jobs:
            await self._look(connection)
            return []
        results: list[Any] = []
        async with connection.transaction():
            cursor = connection.cursor()
            await cursor.execute("SELECT change, cleared FROM state FOR UPDATE")
            change, cleared = await cursor.fetchone() or (0, 0)
            await self._catch_up(cursor, change, cleared)
            batch = Batch(cursor, change + 1, {})
            for job in jobs:
                try:
                    results.append(await job(batch))
                except SeawallError as refusal:
                    results.append(refusal)
            if all(isinstance(result, SeawallError) for result in results):
                return results
            await cursor.execute("UPDATE state SET change = %s", (batch.change,))
            await cursor.execute(f"NOTIFY {CHANNEL}")
        self._seen = batch.change
        if batch.counts:
            self.tell(News(counts=batch.counts))
        return results

    async def _connected(self) -> Connection:
        """The writer. A server that was started again while nothing was written is noticed here, not by a request."""
        if self._writer is not None:
            try:
                await self._writer.execute("SELECT 1")
            except psycopg.Error:
                await _end(self._writer)
                self._writer = None
        if self._writer is None:
            self._writer = await self.connect()
        return self._writer

    async def _look(self, connection: Connection) -> None:
        cursor = await connection.execute("SELECT change, cleared FROM state")
        if await cursor.fetchone() == (self._seen, self._cleared) and not self._all_counts:
            return
        async with connection.transaction():
            cursor = connection.cursor()
            await cursor.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ READ ONLY")
            await cursor.execute("SELECT change, cleared FROM state")
            change, cleared = await cursor.fetchone() or (0, 0)
            await self._catch_up(cursor, change, cleared)

    async def _catch_up(self, cursor: Cursor, change: int, cleared: int) -> None:
        """Tell what was written after `_seen`, up to `change`."""
        if self._seen is not None and (self._seen, self._cleared) != (change, cleared):
            void = cleared != self._cleared
            news = await self._news(cursor, -1 if void else self._seen, cleared=void)
            self.tell(news)
        elif self._all_counts:
            self.tell(News(counts=await self._counts(cursor, -1)))
        self._seen, self._cleared, self._all_counts = change, cleared, False

    def tell(self, news: News) -> None:
        """Have the view learn something."""
        if self._learn is not None:
            self._learn(news)

    async def _counts(self, cursor: Cursor, since: int) -> dict[Address, Counts]:
        await cursor.execute("SELECT address, seen, included FROM reputation WHERE change > %s", (since,))
        return {address: Counts(seen, included) for address, seen, included in await cursor.fetchall()}

    async def _news(self, cursor: Cursor, since: int, *, cleared: bool) -> News:
        old = "status IN ('received', 'bundled')" if cleared else "true"
        await cursor.execute(
            f"SELECT {OPERATION_COLUMNS}, claimed_by FROM operations WHERE change > %s AND {old} ORDER BY received_s".encode(),  # noqa: S608 (ours)
            (since,),
        )
        operations = [record_of(row) for row in await cursor.fetchall()]
        old = "status IN ('in_flight', 'included')" if cleared else "true"
        await cursor.execute(
            f"SELECT {ATTEMPT_COLUMNS} FROM bundles WHERE change > %s AND {old} ORDER BY nonce, sent_block".encode(),  # noqa: S608
            (since,),
        )
        attempts = [(attempt_of(row), TxStatus(row[9]), inclusion_of(row)) for row in await cursor.fetchall()]
        counts = await self._counts(cursor, -1 if self._all_counts else since)
        return News(operations, attempts, counts, cleared)

    # -- listening ----------------------------------------------------------------------------------------------------------------------

    async def _listen(self) -> None:
        connection: Connection | None = None
        try:
            while True:
                try:
                    connection = await self.connect()
                    await connection.execute(f"LISTEN {CHANNEL}")
                    self._heard()
                    async for notification in connection.notifies():
                        if self._writer is None or notification.pid != self._writer.info.backend_pid:
                            self._heard()
                except (psycopg.Error, OSError):
                    await _end(connection)
                    connection = None
                    await asyncio.sleep(1)
        finally:
            await _end(connection)

    def _heard(self) -> None:
        if self._wake is not None:
            self._wake()

    async def close(self) -> None:
        """Hang up."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        self._tasks.clear()
        await _end(self._writer)
        await _end(self._reader)


async def _end(connection: Connection | None) -> None:
    """Hang up, whatever state it is in."""
    if connection is not None:
        with contextlib.suppress(psycopg.Error, OSError, TimeoutError):
            async with asyncio.timeout(2):
                await connection.close()
