"""The audit log keeps what was decided, and shows when somebody touched it."""

from __future__ import annotations

import json
import re
import sqlite3
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import pytest

from contracts.eoa import Eoa
from contracts.errors import BadInput, SetupError
from contracts.types import keccak
from policies import load
from tests.policies.rig import NOW_S, address, example, opening, portfolio
from wallet.audit import AuditLog, Head, head_digest
from wallet.audit_verify import Report, read_head, verify
from wallet.engine import Engine

FUND = load(example("conservative_fund"))
KEY = Eoa(keccak(b"an engine"))


@pytest.fixture
def log(tmp_path: Path) -> AuditLog:
    """Three decisions about a portfolio that grows."""
    found = AuditLog(tmp_path / "engine" / "audit.db")
    engine = Engine(FUND, KEY, 1337, address("seawall.risk_validator"), found)
    for number in range(3):
        facts = opening(FUND, before=portfolio(collateral=str(10_000 + number)), block_time_s=NOW_S + number)
        engine.decide(facts, NOW_S + number)
    return found


def tampered(log: AuditLog, *statements: str) -> Report:
    """The report after somebody has changed the file behind the engine's back."""
    log.close()
    with sqlite3.connect(log.path) as db:
        db.execute("DROP TRIGGER entries_stay")
        db.execute("DROP TRIGGER entries_remain")
        for statement in statements:
            assert db.execute(statement).rowcount > 0, statement
    db.close()
    return verify(AuditLog(log.path))


def test_entries_come_back_in_order(log: AuditLog) -> None:
    assert [entry.seq for entry in log.entries()] == [1, 2, 3]
    assert [entry.body["at"] - NOW_S for entry in log.entries()] == [0, 1, 2]
    assert [entry.seq for entry in log.entries(after=1, limit=1)] == [2]
    assert [entry.seq for entry in log.tail(2)] == [2, 3]


def test_an_untouched_log_is_sound(log: AuditLog) -> None:
    report = verify(log)
    assert report.sound, report.problems
    assert (report.entries, report.facts, report.policies, report.signed_until) == (3, 3, 1, 0)


def test_the_file_refuses_changes_through_the_ordinary_door(log: AuditLog) -> None:
    log.close()
    db = sqlite3.connect(log.path)
    with pytest.raises(sqlite3.IntegrityError, match="append-only"):
        db.execute("DELETE FROM entries WHERE seq = 3")
    with pytest.raises(sqlite3.IntegrityError, match="append-only"):
        db.execute("UPDATE entries SET body = '{}'")
    db.close()


@pytest.mark.parametrize(
    ("statement", "words"),
    [
        ("""UPDATE entries SET body = replace(body, '"allow"', '"deny"') WHERE seq = 2""", "entry 2 .* was changed"),
        ("UPDATE entries SET kind = 'attestation' WHERE seq = 1", "entry 1 .* was changed"),
        ("UPDATE entries SET hash = zeroblob(32) WHERE seq = 2", "entry 2 .* was changed"),
        ("DELETE FROM entries WHERE seq = 1", "entry 1 is missing"),
        ("DELETE FROM entries WHERE seq = 2", "entry 2 is missing"),
        ("UPDATE entries SET seq = 9 WHERE seq = 3", "entry 3 is missing"),
        ("DELETE FROM facts WHERE hash = (SELECT max(hash) FROM facts)", "facts 0x.* are missing"),
        ("UPDATE facts SET data = (SELECT data FROM facts ORDER BY hash DESC LIMIT 1)", "facts 0x.* were changed"),
        ("UPDATE facts SET data = x'00'", "facts 0x.* cannot be read"),
        ("UPDATE policies SET document = replace(document, '3.1', '31')", "policy 0x.* was changed"),
        ("DELETE FROM policies", "policy 0x.* is missing"),
        ("UPDATE equity SET points = '[]'", "equity curve of 0x.* does not follow"),
        ("UPDATE equity SET points = replace(points, '105', '995')", "equity curve of 0x.* does not follow"),
    ],
)
def test_what_somebody_changed_or_removed_is_found(log: AuditLog, statement: str, words: str) -> None:
    report = tampered(log, statement)
    assert not report.sound
    assert any(re.search(words, problem) for problem in report.problems), report.problems


def test_two_entries_that_changed_places_are_found(log: AuditLog) -> None:
    report = tampered(
        log,
        "UPDATE entries SET seq = 100 WHERE seq = 1",
        "UPDATE entries SET seq = 1 WHERE seq = 2",
        "UPDATE entries SET seq = 2 WHERE seq = 100",
    )
    assert len(report.problems) >= 2


def test_one_changed_entry_is_reported_once(log: AuditLog) -> None:
    report = tampered(log, """UPDATE entries SET body = replace(body, '"warn"', '"pass"') WHERE seq = 2""")
    assert len(report.problems) == 1


def test_a_log_cut_short_behind_a_signed_head_is_found(log: AuditLog) -> None:
    log.sign_head(KEY.sign_hash, KEY.address)
    assert verify(log).signed_until == 3
    report = tampered(log, "DELETE FROM entries WHERE seq = 3", "DELETE FROM heads")
    assert report.problems[0].startswith("the log was cut short: it ends at entry 2, a head was signed at entry 3")


def test_a_log_cut_short_with_its_heads_is_found_by_a_head_kept_elsewhere(log: AuditLog, tmp_path: Path) -> None:
    log.sign_head(KEY.sign_hash, KEY.address)
    elsewhere = tmp_path / "head.json"
    log.head_path.rename(elsewhere)
    report = tampered(log, "DELETE FROM entries WHERE seq = 3", "DELETE FROM heads")
    assert not any("cut short" in problem for problem in report.problems), (
        "this is what nobody can see from the file alone"
    )
    assert any("cut short" in problem for problem in verify(AuditLog(log.path), [read_head(elsewhere)]).problems)


def test_a_rewritten_log_does_not_lead_to_the_signed_head(log: AuditLog, tmp_path: Path) -> None:
    head = log.sign_head(KEY.sign_hash, KEY.address)
    other = AuditLog(tmp_path / "other.db")
    for number in range(3):
        other.append("decision", {"number": number})
    assert any("was rewritten" in problem for problem in verify(other, [head]).problems)


def test_a_head_that_somebody_else_signed_is_named(log: AuditLog) -> None:
    seq, tip = log.tip()
    forged = Head(seq, tip, KEY.address, Eoa(keccak(b"a thief")).sign_hash(head_digest(seq, tip)))
    assert any("does not bear the signature" in problem for problem in verify(log, [forged]).problems)


def test_a_broken_head_file_is_named(log: AuditLog, tmp_path: Path) -> None:
    log.head_path.write_text("{}")
    assert any("is no signed head" in problem for problem in verify(log).problems)
    with pytest.raises(BadInput, match="no signed head"):
        read_head(tmp_path / "nowhere")


def test_an_empty_log_has_no_head_and_no_file(tmp_path: Path) -> None:
    empty = AuditLog(tmp_path / "none.db")
    assert empty.entries() == []
    assert not empty.path.exists()
    with pytest.raises(BadInput, match="empty"):
        empty.sign_head(KEY.sign_hash, KEY.address)
    with pytest.raises(BadInput, match="no audit log"):
        verify(AuditLog(tmp_path / "nothing.db"))


def test_a_file_that_is_no_log_is_said_so(tmp_path: Path) -> None:
    path = tmp_path / "log.db"
    path.write_text("this was never a database, and it is longer than one page header would be" * 20)
    with pytest.raises(SetupError, match="restore a backup"):
        AuditLog(path).append("decision", {})


def test_a_log_of_a_newer_seawall_is_left_alone(log: AuditLog) -> None:
    log.close()
    db = sqlite3.connect(log.path)
    db.execute("PRAGMA user_version = 99")
    db.close()
    with pytest.raises(SetupError, match="newer Seawall"):
        AuditLog(log.path).entries()


def test_what_raises_while_it_looks_writes_nothing(log: AuditLog) -> None:
    def refuse(_: object) -> dict[str, object]:
        raise BadInput("no")

    with pytest.raises(BadInput):
        log.append("attestation", refuse)
    assert len(log.entries()) == 3
    log.append("decision", {"number": 4})
    assert len(log.entries()) == 4


def test_two_logs_on_one_file_make_one_chain(log: AuditLog) -> None:
    second = AuditLog(log.path)
    second.append("note", {"number": 3})
    log.append("note", {"number": 4})
    assert [entry.seq for entry in second.entries()] == [1, 2, 3, 4, 5]
    assert verify(log).sound


def test_many_threads_make_one_chain(log: AuditLog) -> None:
    start = threading.Barrier(4)

    def work(number: int) -> None:
        own = AuditLog(log.path) if number % 2 else log
        start.wait()
        for n in range(10):
            own.append("note", {"number": number, "n": n})

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(work, range(4)))
    assert len(log.entries()) == 43
    assert verify(log).sound


def test_the_same_judgement_is_kept_once(log: AuditLog) -> None:
    engine = Engine(FUND, KEY, 1337, address("seawall.risk_validator"), log)
    facts = opening(FUND, before=portfolio(collateral="10000"))
    first = engine.decide(facts, NOW_S)
    assert engine.decide(facts, NOW_S) == first
    assert len(log.entries()) == 3, "it was the fixture's first"
    engine.decide(replace(facts, nonce=8), NOW_S)
    assert len(log.entries()) == 4


def test_entries_are_found_by_place_and_by_decision(log: AuditLog) -> None:
    entry = log.entries()[1]
    found = log.find(entry.body["id"])
    assert found is not None
    assert found.seq == 2
    assert log.find("2") == entry
    assert log.find("0x" + "00" * 32) is None


def lookups(log: AuditLog) -> list[Callable[[], object]]:
    engine = Engine(FUND, KEY, 1337, address("seawall.risk_validator"), log)
    account = address("the account")
    return [
        lambda: engine.outstanding(account, 0, NOW_S),
        lambda: engine.sponsored_today(account, NOW_S),
        lambda: engine.latched(account),
        lambda: engine.history(account, NOW_S - 3_600),
    ]


def test_no_lookup_of_a_decision_reads_the_whole_log(log: AuditLog) -> None:
    """SQLite's own plan: every access to the entries goes through an index."""
    with log.reading() as now:
        seen: list[str] = []
        now.db.set_trace_callback(seen.append)
        for look in lookups(log):
            look()
        now.db.set_trace_callback(None)
        asked = [statement for statement in seen if "FROM entries" in statement]
        assert len(asked) >= 4
        for statement in asked:
            plan = [row[3] for row in now.db.execute(f"EXPLAIN QUERY PLAN {statement}")]
            assert plan[0].startswith("SEARCH"), (statement, plan)
            assert not any("SCAN" in step for step in plan), (statement, plan)


def test_a_decision_records_which_seawall_made_it_and_the_equity_it_saw(log: AuditLog) -> None:
    from importlib.metadata import version

    body = log.entries()[0].body
    assert body["seawall"] == version("seawall")
    assert body["equity"] == {"time": NOW_S, "equity": "10500", "paidIn": "0"}
    assert json.loads(json.dumps(body)) == body
