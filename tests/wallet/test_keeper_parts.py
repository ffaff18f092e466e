"""The keeper's parts by themselves: fees and margins, sessions, its database, the watch file."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from contracts.bindings import GUARD_EXECUTE, Session
from contracts.devnet.accounts import devnet_key
from contracts.entrypoint import V07, V08, EntryPoint
from contracts.eoa import Eoa
from contracts.errors import BadInput, OperationRejected, SetupError
from contracts.userop import UserOperation, required_prefund
from wallet.account import signable_hash
from wallet.keeper import fire
from wallet.keeper.store import (
    INCLUDED,
    INTENDED,
    REVERTED,
    SENT,
    SUPERSEDED,
    Attempt,
    AuditRow,
    PlainTransaction,
    Store,
)
from wallet.keeper.trailing import Round, TrailingStop
from wallet.keeper.triggers import Detail, Modules
from wallet.keeper.watch import Head, Trigger, read_watch_file

ACCOUNT = b"\x11" * 20
TRIGGER = Trigger(ACCOUNT, 7)
KEY = Eoa(devnet_key("keeper"))
SESSION = Session(KEY.address, 0, 2_000, b"\x22" * 20, GUARD_EXECUTE.selector, 10**18)
DETAIL = Detail(1, False, 0, 60, 3_600, 5, SESSION, 0)
HEAD = Head(100, b"\x33" * 32, 1_000, 10**9)
OP = UserOperation(ACCOUNT, 5, b"\x01", 100_000, 50_000, 20_000, 3 * 10**9, 10**6)
wei = st.integers(min_value=0, max_value=10**12)


def attempt(op_hash: int, *, nonce: int = 5, state: str = INTENDED) -> Attempt:
    return Attempt(bytes([op_hash]) * 32, TRIGGER, 1, OP.replace(nonce=nonce), state, 100)


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    store = Store(tmp_path / "keeper.db")
    yield store
    store.close()


# -- fees and margins ------------------------------------------------------------------------------------------------------


@given(wei, wei, wei, wei)
def test_a_replacement_offers_twelve_percent_more_on_both_fees_and_never_less_than_today(
    old_max: int, old_tip: int, max_fee: int, tip: int
) -> None:
    old = OP.replace(max_fee_per_gas=old_max, max_priority_fee_per_gas=old_tip)
    raised = fire.raised_fees(old, (max_fee, tip))
    for now, before, today in zip(raised, (old_max, old_tip), (max_fee, tip), strict=True):
        assert now * 100 >= before * 112
        assert now >= today
        assert now == today or (now - 1) * 100 < before * 112


def test_every_revert_on_chain_adds_gas_up_to_a_bound() -> None:
    limits = [fire.with_margin(OP, reverts).call_gas_limit for reverts in range(7)]
    assert limits == [130_000, 180_000, 230_000, 280_000, 330_000, 330_000, 330_000]
    assert fire.with_margin(OP, 0).verification_gas_limit == 60_000


@pytest.mark.parametrize("entry_point", [V07, V08])
def test_the_session_signs_what_the_version_of_the_entry_point_asks_for(entry_point: EntryPoint) -> None:
    modules = Modules(b"\x01" * 20, b"\x02" * 20, b"\x03" * 20, entry_point)
    signer = fire.Signer(KEY, modules, 1337)
    session_id = SESSION.session_id
    op, op_hash = signer.sign(signer.draft(TRIGGER, DETAIL, session_id, (2, 1)), session_id)
    assert op_hash == entry_point.user_op_hash(op, 1337)
    assert op.signature[:33] == b"\x02" + session_id
    assert op.signature[33:] == KEY.sign_hash(signable_hash(entry_point, op_hash, ACCOUNT, 1337))
    assert op.nonce == modules.lane(TRIGGER) << 64 | DETAIL.sequence


@pytest.mark.parametrize(
    ("detail", "head", "words"),
    [
        (replace(DETAIL, session=None), HEAD, "has no session for keeper key"),
        (replace(DETAIL, session=replace(SESSION, key=b"\x44" * 20)), HEAD, "is for key"),
        (DETAIL, replace(HEAD, timestamp_s=2_001), "ended at 2000"),
    ],
)
def test_a_session_that_cannot_pass_is_refused_with_its_reason(detail: Detail, head: Head, words: str) -> None:
    with pytest.raises(OperationRejected, match=words) as caught:
        fire.check_session(SESSION.session_id, detail, KEY, head, TRIGGER)
    assert caught.value.rule == "session"


def test_the_prefund_budget_is_what_is_left_of_it() -> None:
    need = required_prefund(OP)
    fire.check_budget(OP, replace(DETAIL, session_spent_wei=10**18 - need))
    with pytest.raises(OperationRejected, match="prefund budget") as caught:
        fire.check_budget(OP, replace(DETAIL, session_spent_wei=10**18 - need + 1))
    assert caught.value.rule == "session-budget"


# -- the database ------------------------------------------------------------------------------------------------------------


def test_what_was_recorded_is_there_after_a_restart(tmp_path: Path) -> None:
    store = Store(tmp_path / "keeper.db")
    store.record(attempt(1))
    store.set_head(41)
    store.close()
    again = Store(tmp_path / "keeper.db")
    assert again.open_attempts() == [attempt(1)]
    assert again.latest(TRIGGER) == attempt(1)
    assert again.head == 41
    again.close()


def test_at_most_one_operation_of_a_trigger_is_open(store: Store) -> None:
    store.record(attempt(1))
    store.mark(attempt(1).op_hash, SENT)
    store.record(attempt(2))
    assert [a.op_hash for a in store.open_attempts()] == [attempt(2).op_hash]
    assert [a.state for a in store.at_nonce(TRIGGER, 5)] == [SUPERSEDED, INTENDED]


def test_settling_writes_outcomes_and_audit_at_once_and_says_what_is_new(store: Store) -> None:
    store.record(attempt(1))
    row = AuditRow(TRIGGER, 1, "fired", "0xaa", 101, {"transaction_hash": "0xaa"})
    assert store.settle({attempt(1).op_hash: (INCLUDED, "")}, [row]) == [row]
    assert store.settle({}, [row]) == []
    assert store.open_attempts() == []
    assert store.audited("fired") == [row]
    assert store.audited("fired", Trigger(ACCOUNT, 8)) == []


def test_reverts_are_counted_per_arming(store: Store) -> None:
    store.record(attempt(1))
    store.settle({attempt(1).op_hash: (REVERTED, "0x")}, [])
    assert store.reverts(TRIGGER, 1) == [100]
    assert store.reverts(TRIGGER, 2) == []


def test_a_transaction_at_a_used_nonce_supersedes_the_one_before(store: Store) -> None:
    one, two = (
        PlainTransaction(bytes([i]) * 32, "touch", TRIGGER, 1, 9, 10, 1, b"raw", INTENDED, 100 + i) for i in (1, 2)
    )
    store.record_transaction(one)
    store.record_transaction(two)
    assert store.open_transactions() == [two]
    assert store.latest_transaction("touch", TRIGGER, 1) == two
    assert store.latest_transaction("execute", TRIGGER, 1) is None


def test_a_database_belongs_to_one_chain_and_key(store: Store) -> None:
    store.bind(1, b"\x01" * 32, KEY.address)
    store.bind(1, b"\x01" * 32, KEY.address)
    for chain, genesis in ((2, b"\x01" * 32), (1, b"\x02" * 32)):
        with pytest.raises(BadInput, match="give another --db"):
            store.bind(chain, genesis, KEY.address)


def test_a_file_that_is_no_database_says_so(tmp_path: Path) -> None:
    (tmp_path / "keeper.db").write_text("this is not a database, it is a text that is long enough to be looked at")
    with pytest.raises(SetupError, match="cannot be used"):
        Store(tmp_path / "keeper.db")


# -- the watch file ----------------------------------------------------------------------------------------------------------

ADDRESS = "0x" + "11" * 20


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("watch.toml", f'[[triggers]]\naccount = "{ADDRESS}"\nids = [7, 8]\nsession = "0x{"55" * 32}"\n'),
        ("watch.json", f'{{"triggers": [{{"account": "{ADDRESS}", "ids": [7, 8], "session": "0x{"55" * 32}"}}]}}'),
    ],
)
def test_a_watch_file_is_toml_or_json(tmp_path: Path, name: str, text: str) -> None:
    (tmp_path / name).write_text(text)
    assert read_watch_file(tmp_path / name) == {TRIGGER: b"\x55" * 32, Trigger(ACCOUNT, 8): b"\x55" * 32}


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "at least one entry"),
        ("[[triggers]]\n", "trigger 1: `ids`"),
        (f'[[triggers]]\naccount = "{ADDRESS}"\nids = ["7"]\n', "trigger 1: `ids`"),
        (f'[[triggers]]\naccount = "{ADDRESS}"\nids = [7]\nidz = 1\n', "only `account`, `ids` and `session`"),
        ('[[triggers]]\naccount = "0x12"\nids = [7]\n', "trigger 1: account must have 20 bytes"),
        ("[[triggers]\n", "malformed"),
    ],
)
def test_a_malformed_watch_file_names_the_entry(tmp_path: Path, text: str, words: str) -> None:
    (tmp_path / "watch.toml").write_text(text)
    with pytest.raises(BadInput) as caught:
        read_watch_file(tmp_path / "watch.toml")
    assert words in str(caught.value)


# -- trailing stops --------------------------------------------------------------------------------------------------------


def trailing(*, is_below: bool, trail_wad: int = 0, trail_bps: int = 0) -> TrailingStop:
    nobody = bytes(20)
    return TrailingStop(TRIGGER, 1, is_below, trail_wad, trail_bps, 1_000, 10, 5, nobody, nobody, 0, 1, 10**6)


@pytest.mark.parametrize(
    ("stop", "best", "price", "matters"),
    [
        (trailing(is_below=True, trail_bps=1_000), 1_004, 950, False),  # less than half a percent, and not due at 903.6
        (trailing(is_below=True, trail_bps=1_000), 1_006, 950, True),
        (trailing(is_below=True, trail_bps=1_000), 1_004, 904, True),  # 1,004 less 100 (rounded down)
        (trailing(is_below=True, trail_bps=1_000), 1_004, 905, False),
        (trailing(is_below=True, trail_wad=50), 1_004, 954, True),
        (trailing(is_below=True, trail_wad=50), 990, 900, False),  # worse than the mark on chain
        (trailing(is_below=False, trail_wad=50), 998, 1_048, True),
        (trailing(is_below=False, trail_wad=50), 998, 1_047, False),
        (trailing(is_below=False, trail_wad=50), 990, 1_000, True),
        (trailing(is_below=False, trail_wad=50), 1_010, 2_000, False),
    ],
)
def test_a_round_is_proven_when_the_stop_is_due_by_it_or_the_chain_lags(
    stop: TrailingStop, best: int, price: int, matters: bool
) -> None:
    assert stop.matters(Round(7, best, 20), price) is matters
