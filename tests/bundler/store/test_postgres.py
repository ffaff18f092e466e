"""What only PostgreSQL has: several processes on one database, leases, and a server that may be away."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from bundler.__main__ import main
from bundler.keys import KeyVariable
from bundler.reputation import Change, Counts
from bundler.settings import Settings
from bundler.store import STEWARD, Admission, Attempt, Inclusion, News, OpStatus, Overtaken, open_store
from bundler.store.postgres import PostgresStore, examine
from contracts.entrypoint import V08
from contracts.errors import SetupError
from contracts.types import Address, Hash32, keccak
from tests.bundler.store.test_behaviour import EXECUTOR, add, attempt, entry
from tests.postgres import Cluster

OTHER = b"\x0f" * 20


@contextlib.asynccontextmanager
async def processes(url: str, count: int = 2) -> AsyncIterator[list[PostgresStore]]:
    """Stores as of different processes."""
    stores = [await PostgresStore.open(url) for _ in range(count)]
    try:
        yield stores
    finally:
        for store in stores:
            await store.close()


async def hold(store: PostgresStore, *keys: Address, most: int = 0) -> set[Address]:
    """Lease what is free of these, and act on it."""
    held = await store.renew(keys, most)
    await store.take_up(held)
    return set(held)


def run_out(cluster: Cluster, url: str) -> None:
    """As if all leases had not been renewed for an hour."""
    cluster.execute(url, "UPDATE seawall_bundler.leases SET until = until - interval '1 hour'")


# -- the server -----------------------------------------------------------------------------------------------------------------------


async def test_an_unreachable_server_is_named_without_the_password() -> None:
    with pytest.raises(SetupError, match=r"server at 127\.0\.0\.1:1/pool cannot be reached") as caught:
        await PostgresStore.open("postgresql://seawall:open-sesame@127.0.0.1:1/pool")
    assert "open-sesame" not in caught.value.message


async def test_without_the_extra_it_is_said_how_to_install_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "bundler.store.postgres", None)
    settings = Settings(
        rpc_url="http://127.0.0.1:1",
        executor_key=KeyVariable("K"),
        database=Path(),
        store="postgresql://127.0.0.1/pool",
    )
    with pytest.raises(SetupError, match=r"pip install 'seawall\[postgres\]'"):
        await open_store(settings)


def test_a_password_on_the_command_line_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    for url in ("postgresql://me:secret@127.0.0.1/pool", "postgresql://127.0.0.1/pool?password=secret"):
        assert main(["--rpc-url", "http://127.0.0.1:1", "--key-env", "K", "--store", url]) == 2
    assert "does not belong on a command line" in capsys.readouterr().err


def test_a_server_that_is_away_at_the_start_ends_it_with_three(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(os.environ, "K", "11" * 32)
    monkeypatch.setattr("bundler.__main__.configure_logging", lambda _: None)  # its handler would outlive this test
    url = "postgresql://127.0.0.1:1/pool"
    assert main(["--rpc-url", "http://127.0.0.1:1", "--key-env", "K", "--port", "0", "--store", url]) == 3
    assert "cannot be reached" in capsys.readouterr().err


async def test_processes_that_start_together_make_the_tables_once(cluster: Cluster) -> None:
    url = cluster.database()
    stores = await asyncio.gather(*(PostgresStore.open(url) for _ in range(4)))
    for store in stores:
        await store.bind(1)
        await store.close()
    assert (await examine(url)) == (
        f"127.0.0.1:{cluster.port}/{url.rpartition('/')[2]}, tables of version 1, chain 1, 0 leases held",
        "",
    )


@pytest.mark.parametrize(("version", "advice"), [(99, "use the newer seawall"), (0, "drain it with the seawall")])
async def test_tables_of_another_version_are_refused(cluster: Cluster, version: int, advice: str) -> None:
    url = cluster.database()
    await (await PostgresStore.open(url)).close()
    cluster.execute(url, f"UPDATE seawall_bundler.state SET version = {version}")  # noqa: S608
    with pytest.raises(SetupError, match=rf"schema version {version}, this bundler knows 1: {advice}"):
        await PostgresStore.open(url)


async def test_a_connection_lost_in_the_middle_of_a_write_undoes_it_and_the_next_one_goes_on(cluster: Cluster) -> None:
    url = cluster.database()
    async with processes(url, 1) as (store,):
        await add(store, entry(1))

        def lose_connection() -> Admission:
            cluster.execute(
                url,
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE pid <> pg_backend_pid() AND datname = current_database()",
            )
            return Admission(entry(2))

        with pytest.raises(SetupError, match="cannot be written"):
            await store.admit(lose_connection)
        assert await store.operation(entry(2).hash) is None
        await add(store, entry(3))
        assert [record.entry for record in await store.live_operations()] == [entry(1), entry(3)]


async def test_a_server_that_crashes_keeps_what_was_acknowledged_and_is_found_again(cluster: Cluster) -> None:
    async with processes(cluster.database(), 1) as (store,):
        await asyncio.gather(*(add(store, entry(n)) for n in range(50)))
        await asyncio.to_thread(cluster.stop, signal.SIGQUIT)
        try:
            with pytest.raises(SetupError, match="cannot be"):
                await add(store, entry(50))
            with pytest.raises(SetupError, match="cannot be reached"):
                await store.operation(entry(1).hash)
        finally:
            await asyncio.to_thread(cluster.start)
        await add(store, entry(51))
        assert {record.entry.hash for record in await store.live_operations()} == {
            entry(n).hash for n in (*range(50), 51)
        }


@pytest.mark.parametrize(("state", "advice"), [("53100", "make room on the server"), ("25006", "it is read-only")])
async def test_a_server_that_takes_no_writes_is_told_with_advice(cluster: Cluster, state: str, advice: str) -> None:
    url = cluster.database()
    async with processes(url, 1) as (store,):
        cluster.execute(
            url,
            "CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS "
            f"$$ BEGIN RAISE EXCEPTION 'no' USING ERRCODE = '{state}'; END $$; "
            "CREATE TRIGGER refuse BEFORE INSERT ON seawall_bundler.operations EXECUTE FUNCTION refuse()",
        )
        with pytest.raises(SetupError, match=advice):
            await add(store, entry(1))
        cluster.execute(url, "DROP TRIGGER refuse ON seawall_bundler.operations")
        await add(store, entry(1))


async def test_commits_are_synchronous_whatever_the_server_is_set_to(cluster: Cluster) -> None:
    url = cluster.database()
    cluster.execute(url, f"ALTER DATABASE {url.rpartition('/')[2]} SET synchronous_commit = off")
    async with processes(url, 1) as (store,):
        connection = await store._session.connect()
        (mode,) = await (await connection.execute("SHOW synchronous_commit")).fetchone() or ("",)
        await connection.close()
        assert mode == "on"


# -- several processes ----------------------------------------------------------------------------------------------------------------


async def test_a_write_is_decided_after_learning_what_others_wrote(cluster: Cluster) -> None:
    url = cluster.database()
    async with processes(url) as (one, other):
        learnt: list[Hash32] = []
        other.follow(lambda news: learnt.extend(record.entry.hash for record in news.operations), lambda: None)
        await other.live_operations()
        await add(one, entry(1))
        seen: list[Hash32] = []

        def decide() -> Admission:
            seen.extend(learnt)
            return Admission(entry(2))

        await other.admit(decide)
        assert seen == [entry(1).hash]


async def test_counts_of_several_processes_add_up(cluster: Cluster) -> None:
    who = b"\x01" * 20
    async with processes(cluster.database()) as (one, other):
        await asyncio.gather(
            *(
                store.save_reputation([Change(who, Counts(1, 0), 1, 0)], None)
                for store in (one, other)
                for _ in range(20)
            )
        )
        assert await one.reputation() == ({who: Counts(40, 0)}, None)


async def test_a_key_and_the_office_are_leased_by_one_until_they_are_given_back_or_run_out(cluster: Cluster) -> None:
    url = cluster.database()
    async with processes(url) as (one, other):
        assert await hold(one, EXECUTOR) == {EXECUTOR, STEWARD}
        assert await hold(other, EXECUTOR) == set()
        run_out(cluster, url)
        assert await hold(other, EXECUTOR) == {EXECUTOR, STEWARD}
        assert await hold(one, EXECUTOR) == set()
        await other.close()
        assert await hold(one, EXECUTOR) == {EXECUTOR, STEWARD}


async def test_no_more_keys_are_leased_than_asked_for(cluster: Cluster) -> None:
    async with processes(cluster.database()) as (one, other):
        assert await hold(one, EXECUTOR, OTHER, most=1) == {EXECUTOR, STEWARD}
        assert await hold(other, EXECUTOR, OTHER, most=1) == {OTHER}
        assert await hold(one, EXECUTOR, OTHER, most=1) == {EXECUTOR, STEWARD}


async def test_the_last_holder_of_a_lease_writes_no_more(cluster: Cluster) -> None:
    url = cluster.database()
    async with processes(url) as (one, other):
        a = entry(1)
        await add(one, a)
        await hold(one, EXECUTOR)
        sent = attempt(1, a)
        await one.add_attempt(sent)
        run_out(cluster, url)
        held = await other.renew([EXECUTOR], 0)
        in_flight, _ = await other.take_up(held)
        assert in_flight == [sent]
        place = Inclusion(sent.tx_hash, 44, keccak(b"block"))
        for late in (
            one.add_attempt(attempt(2, a)),
            one.include(sent, place, [a.hash], []),
            one.lose(EXECUTOR, [sent.tx_hash], [a.hash]),
            one.reopen(sent),
            one.claim(EXECUTOR, lambda: [a.hash]),
            one.save_reputation([], 1.0),
        ):
            with pytest.raises(Overtaken, match="another process holds"):
                await late
        await other.include(sent, place, [a.hash], [])


async def test_a_lease_that_comes_back_is_another_one(cluster: Cluster) -> None:
    url = cluster.database()
    async with processes(url) as (one, other):
        await hold(one, EXECUTOR)
        run_out(cluster, url)
        await hold(other, EXECUTOR)
        run_out(cluster, url)
        await one.renew([EXECUTOR], 0)  # held again, but what happened meanwhile is not taken up
        await add(one, entry(1))
        with pytest.raises(Overtaken):
            await one.add_attempt(attempt(1, entry(1)))


async def test_two_builders_never_claim_one_operation(cluster: Cluster) -> None:
    async with processes(cluster.database()) as (one, other):
        a, b = entry(1), entry(2)
        for each in (a, b):
            await add(one, each)
        await hold(one, EXECUTOR)
        await hold(other, OTHER)
        await one.claim(EXECUTOR, lambda: [a.hash])
        with pytest.raises(Overtaken, match="1 of 2 operations"):
            await other.claim(OTHER, lambda: [a.hash, b.hash])
        theirs = Attempt(keccak(b"theirs"), OTHER, 0, V08.address, b"raw", (a.hash,), 1, 1, 40)
        with pytest.raises(Overtaken):
            await other.add_attempt(theirs)
        await one.claim(EXECUTOR, tuple)
        await other.claim(OTHER, lambda: [a.hash, b.hash])
        await other.add_attempt(theirs)
        await one.claim(EXECUTOR, lambda: [b.hash])  # what the bundle left is free again


async def test_what_a_dead_builder_had_claimed_waits_again(cluster: Cluster) -> None:
    url = cluster.database()
    async with processes(url) as (one, other):
        await add(one, entry(1))
        await hold(one, EXECUTOR)
        await one.claim(EXECUTOR, lambda: [entry(1).hash])
        run_out(cluster, url)
        await hold(other, EXECUTOR)
        await other.claim(EXECUTOR, lambda: [entry(1).hash])


async def test_the_steward_settles_for_a_key_that_nobody_has_and_yields_to_who_has_it(cluster: Cluster) -> None:
    url = cluster.database()
    async with processes(url, 3) as (gone, steward, heir):
        await add(gone, entry(1))
        await hold(gone, EXECUTOR)
        sent = attempt(1, entry(1))
        await gone.add_attempt(sent)
        run_out(cluster, url)
        assert await hold(steward, OTHER) == {OTHER, STEWARD, EXECUTOR}
        assert await hold(heir, EXECUTOR) == {EXECUTOR}
        place = Inclusion(sent.tx_hash, 44, keccak(b"block"))
        with pytest.raises(Overtaken):
            await steward.include(sent, place, [entry(1).hash], [])
        await heir.include(sent, place, [entry(1).hash], [])


async def test_a_replaced_or_dropped_operation_goes_into_no_bundle(cluster: Cluster) -> None:
    async with processes(cluster.database()) as (front, builder):
        for number in (1, 2):
            await add(front, entry(number))
        await hold(builder, EXECUTOR)
        await builder.claim(EXECUTOR, lambda: [entry(1).hash, entry(2).hash])
        assert await front.drop_operations([(entry(1).hash, "its owner asked for it")]) == [entry(1).hash]
        with pytest.raises(Overtaken):
            await builder.add_attempt(attempt(1, entry(1), entry(2)))
        await builder.add_attempt(attempt(2, entry(2)))
        assert await front.drop_operations([(entry(2).hash, "too late")]) == []
        record = await front.operation(entry(2).hash)
        assert record is not None
        assert record.status is OpStatus.BUNDLED


async def test_a_strangers_bundle_is_not_recorded_over_one_of_another_process(cluster: Cluster) -> None:
    async with processes(cluster.database()) as (steward, builder):
        await add(builder, entry(1))
        await hold(steward, OTHER)
        await hold(builder, EXECUTOR)
        await builder.add_attempt(attempt(1, entry(1)))
        theirs = Attempt.foreign(keccak(b"theirs"), V08.address, (entry(1).hash,))
        with pytest.raises(Overtaken, match="bundle of another process"):
            await steward.include(theirs, Inclusion(theirs.tx_hash, 4, keccak(b"block")), theirs.op_hashes, ())


async def test_what_is_written_wakes_the_others(cluster: Cluster) -> None:
    async with processes(cluster.database()) as (one, other):
        woken = asyncio.Event()
        other.follow(lambda _: None, woken.set)
        await asyncio.wait_for(woken.wait(), 5)  # it listens
        woken.clear()
        await add(one, entry(1))
        await asyncio.wait_for(woken.wait(), 5)


async def test_clearing_voids_what_others_know(cluster: Cluster) -> None:
    async with processes(cluster.database()) as (one, other):
        news: list[News] = []
        other.follow(news.append, lambda: None)
        await other.live_operations()
        await add(one, entry(1))
        await one.clear()
        await add(one, entry(2))
        await other.refresh()
        assert news[-1].cleared
        assert [record.entry for record in news[-1].operations] == [entry(2)]
