"""Whom an operation touches, by what ran: contracts behind contracts, receivers and spenders that no argument names."""

from __future__ import annotations

from dataclasses import replace

import pytest

from contracts import abi
from contracts.abi import Event
from policies import evaluate
from policies.metrics import METRICS
from policies.metrics.operation import TRACE
from policies.policy import Scope
from policies.portfolio import Facts, Missing
from policies.trace import (
    APPROVAL_FOR_ALL,
    DELEGATED,
    PERMIT2_APPROVAL,
    TRANSFER,
    TRANSFER_SINGLE,
    Frame,
    touched_by,
    untraced,
    wants_trace,
)
from policies.venues.allowances import APPROVAL
from tests.policies.rig import ACCOUNT, BOOK, NOW_S, address, opening, policy_of

POLICY = policy_of(
    "limits:\n  - {id: t, metric: contracts_touched, scope: operation, max: 3}\n"
    "  - {id: c, metric: counterparties, scope: operation, max: 2}\n"
    "calls: [{target: perp.clearing_house, functions: [openPosition]}]\n"
)
ROUTER, POOL, FRIEND, TOKEN = (address(name) for name in ("router", "pool", "friend", "token"))


def frame(kind: str, sender: bytes, target: bytes, **more: object) -> Frame:
    given = {"value_wei": 0, "data": b"\x01", "lasting": True} | more
    return Frame(kind, sender, target, **given)  # type: ignore[arg-type]


def log(event: Event, *topics: bytes, data: bytes = (5).to_bytes(32)) -> tuple[bytes, tuple[bytes, ...], bytes]:
    return TOKEN, (event.topic, *(t.rjust(32, b"\0") for t in topics)), data


def test_what_runs_inside_counts_and_what_only_reads_does_not() -> None:
    frames = (
        frame("CALL", address("entry point"), ACCOUNT),
        frame("DELEGATECALL", ACCOUNT, address("the account's code"), forwarded=True),
        frame("CALL", ACCOUNT, ROUTER),
        frame("DELEGATECALL", ROUTER, address("library")),
        frame("CALL", ROUTER, POOL, lasting=False),
        frame("STATICCALL", ROUTER, address("oracle"), static=True),
        frame("DELEGATECALL", address("oracle"), address("its code"), static=True),
        frame("CREATE2", ROUTER, address("child")),
        frame("DELEGATECALL", ACCOUNT, address("a library of its own")),
    )
    contracts, parties = touched_by(ACCOUNT, frames, ())
    assert set(contracts) == {ROUTER, address("library"), POOL, address("child"), address("a library of its own")}
    assert parties == ()


@pytest.mark.parametrize(
    "event",
    [
        log(TRANSFER, ACCOUNT, FRIEND),
        log(TRANSFER, ACCOUNT, FRIEND, (7).to_bytes(32), data=b""),
        log(APPROVAL, ACCOUNT, FRIEND),
        log(APPROVAL, ACCOUNT, FRIEND, (7).to_bytes(32), data=b""),
        log(APPROVAL_FOR_ALL, ACCOUNT, FRIEND, data=(1).to_bytes(32)),
        log(TRANSFER_SINGLE, ROUTER, ACCOUNT, FRIEND, data=abi.encode(["uint256", "uint256"], [1, 2])),
        log(PERMIT2_APPROVAL, ACCOUNT, TOKEN, FRIEND, data=abi.encode(["uint160", "uint48"], [1, 2])),
        log(DELEGATED, ACCOUNT, FRIEND, TOKEN),
    ],
)
def test_whoever_an_event_lets_gain_is_a_counterparty(event: tuple[bytes, tuple[bytes, ...], bytes]) -> None:
    assert touched_by(ACCOUNT, (), (event,))[1] == (FRIEND,)
    others = (event[0], tuple(ROUTER.rjust(32, b"\0") if t[12:] == ACCOUNT else t for t in event[1]), event[2])
    assert touched_by(ACCOUNT, (), (others,))[1] == ()


@pytest.mark.parametrize(
    "event",
    [
        log(TRANSFER, FRIEND, ACCOUNT),
        log(TRANSFER, ACCOUNT, bytes(20)),
        log(APPROVAL, ACCOUNT, FRIEND, data=bytes(32)),
        log(APPROVAL_FOR_ALL, ACCOUNT, FRIEND, data=bytes(32)),
        log(PERMIT2_APPROVAL, ACCOUNT, TOKEN, FRIEND, data=bytes(64)),
        (TOKEN, (), b""),
        (TOKEN, (TRANSFER.topic, ACCOUNT.rjust(32, b"\0")), b""),
    ],
)
def test_income_burning_and_taking_back_make_nobody_one(event: tuple[bytes, tuple[bytes, ...], bytes]) -> None:
    assert touched_by(ACCOUNT, (), (event,))[1] == ()


def test_native_coin_counts_where_it_leaves_the_account_and_lasts() -> None:
    frames = (
        frame("CALL", ACCOUNT, FRIEND, value_wei=1),
        frame("CALL", ACCOUNT, POOL, value_wei=1, lasting=False),
        frame("CALL", ROUTER, TOKEN, value_wei=1),
        frame("DELEGATECALL", ACCOUNT, ROUTER, value_wei=1),
    )
    assert touched_by(ACCOUNT, frames, ())[1] == (FRIEND,)


def judged(facts: Facts) -> tuple[str, str]:
    decision = evaluate(POLICY, facts, NOW_S)
    return decision.outcome, "; ".join(decision.objections)


def test_limits_count_what_the_trace_shows_beside_what_the_calls_say() -> None:
    facts = opening(POLICY, touched=(POOL, ROUTER), counterparties=(BOOK["perp.vault"], FRIEND))
    assert judged(facts)[0] == "allow"
    seen = METRICS["contracts_touched"].compute(facts, facts.after, Scope("operation"))
    assert seen.value == 3
    assert "perp.clearing_house" in dict(seen.contributions)
    named = METRICS["counterparties"].compute(facts, facts.after, Scope("operation"))
    assert "perp.vault" in dict(named.contributions)
    assert judged(replace(facts, touched=(POOL, ROUTER, TOKEN)))[0] == "deny"
    assert judged(replace(facts, counterparties=(POOL, ROUTER, TOKEN)))[0] == "deny"


def test_what_was_not_traced_denies() -> None:
    facts = opening(POLICY)
    assert judged(facts) == ("deny", f"{TRACE} were not read: whom it touches is not known")
    facts = opening(POLICY, missing=(untraced("no debug_traceCall"),))
    outcome, said = judged(facts)
    assert outcome == "deny"
    assert f"{TRACE} is missing: no debug_traceCall" in said
    for name in ("contracts_touched", "counterparties"):
        assert METRICS[name].compute(facts, facts.after, Scope("operation")).value is None


def test_only_limits_that_ask_for_it_want_a_trace() -> None:
    assert wants_trace(POLICY.limits)
    assert not wants_trace(policy_of("limits: [{id: l, metric: leverage, max: 3}]").limits)
    assert untraced("x") == Missing(TRACE, "x")
