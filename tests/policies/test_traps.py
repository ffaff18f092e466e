"""What went wrong in other policy engines, one permanent test each. Most have siblings beside the part that prevents them."""

from __future__ import annotations

import itertools
from dataclasses import replace
from decimal import Decimal
from typing import Any

import pytest

from contracts.abi import Function
from contracts.bindings import Call, RiskState
from contracts.errors import BadInput
from policies import METRICS, Decision, Facts, evaluate
from policies.approvals import asked
from policies.portfolio import Holding
from tests.policies.rig import (
    BOOK,
    NOW_S,
    closing,
    facts_of,
    fill,
    opening,
    policy_of,
    portfolio,
)

BUY = "calls: [{target: perp.clearing_house, functions: [openPosition, closePosition]}]\n"


def judge(policy: Any, facts: Facts) -> Decision:
    return evaluate(policy, facts, NOW_S)


def test_a_deny_rule_that_cannot_be_evaluated_denies() -> None:
    """Cedar skips a rule that errors."""
    policy = policy_of(
        "limits: [{id: tail, metric: value_at_risk, confidence: 99%, horizon: 1d, max: 1000000}]\n" + BUY
    )
    decision = judge(policy, opening(policy))
    assert decision.outcome == "deny"
    (row,) = decision.limits
    assert row.after is None
    assert row.verdict == "deny"


@pytest.mark.parametrize("condition", ["1 / (leverage - leverage) > 0", "missing_variable > 1"])
def test_a_condition_whose_evaluation_errs_is_never_taken_for_true(condition: str) -> None:
    """cel-expr-python gives run-time errors as values that are truthy strings."""
    # What could err at run time is not even let in.
    with pytest.raises(BadInput):
        policy_of(f"limits: [{{id: when, metric: leverage, max: 3, when: '{condition}'}}]\n" + BUY)


@pytest.mark.parametrize("value", ["NaN", "Infinity", "-Infinity"])
def test_not_a_number_is_no_number_below_the_limit(value: str) -> None:
    """`!(x > limit)` is true for NaN."""
    policy = policy_of("limits: [{id: lev, metric: leverage, max: 3}]\n" + BUY)
    sound = portfolio("150")
    spoiled = replace(sound, positions=(replace(sound.positions[0], mark_price=Decimal(value)),))
    assert judge(policy, opening(policy, after=spoiled)).outcome == "deny"


def test_the_native_token_counts_like_any_other() -> None:
    """Spending caps were silently off for the native token."""
    policy = policy_of(
        "limits: [{id: out, metric: equity, min_change: -500}]\n"
        "calls: [{target: usdc, functions: [transfer], args: {to: treasury}}]\n"
        "exits: [{target: treasury, plain_value: true}]\n"
    )
    send = Call(BOOK["treasury"], b"", value=5 * 10**18)
    before = portfolio(holdings=(Holding("account", "ETH", Decimal(5)), Holding("account", "USDC", Decimal(500))))
    after = portfolio(holdings=(Holding("account", "ETH", Decimal(0)), Holding("account", "USDC", Decimal(500))))
    facts = facts_of(policy, [send], before=before, after=after, fills=(), orders=())
    (row,) = judge(policy, facts).limits
    assert row.after == Decimal(-1000)  # 5 ETH at 200
    assert row.headroom is not None
    assert row.headroom < 0


def test_value_beside_an_allowed_call_needs_a_permission_of_its_own() -> None:
    """A cap on tokens says nothing of the coin that rides along."""
    policy = policy_of("calls: [{target: perp.vault, functions: [deposit], args: {token: usdc}}]\n")
    deposit = Function.parse("deposit(address,uint256)").encode(BOOK["usdc"], 1)
    still: dict[str, Any] = {"after": portfolio(), "fills": (), "orders": ()}
    assert judge(policy, facts_of(policy, [Call(BOOK["perp.vault"], deposit)], **still)).allowed
    paid = judge(policy, facts_of(policy, [Call(BOOK["perp.vault"], deposit, value=1)], **still))
    assert paid.outcome == "deny"
    assert "nothing allows the call" in paid.summary


def test_nothing_is_allowed_by_default() -> None:
    """A "default" rule bypassed the spending limit."""
    policy = policy_of("limits: [{id: lev, metric: leverage, max: 9}]\n")
    decision = judge(policy, opening(policy))
    assert decision.outcome == "deny"
    assert "nothing allows the call" in decision.summary


def test_no_order_of_rules_lets_the_first_match_win() -> None:
    """First-match engines obey whoever sorts the file."""
    limits = [
        "{id: a, metric: leverage, max: 9}",
        "{id: b, metric: gross_notional, max: 25000}",
        "{id: c, metric: net_notional, max: 99999999}",
    ]
    outcomes = set()
    for ordered in itertools.permutations(limits):
        policy = policy_of(f"limits: [{', '.join(ordered)}]\n" + BUY)
        outcomes.add(judge(policy, opening(policy)).outcome)
    assert outcomes == {"deny"}


def test_no_quorum_bypasses_a_denial() -> None:
    """A root quorum that bypasses every rule makes all of them advice."""
    approval = "approvals: [{id: root, signers: [trader, treasury, risk_officer], quorum: 3}]\n"
    policy = policy_of(
        "limits:\n"
        "  - {id: ask, metric: gross_notional, max: 1, action: require_signers, approval: root}\n"
        "  - {id: never, metric: gross_notional, max: 25000}\n" + approval + BUY
    )
    decision = judge(policy, opening(policy))
    assert decision.outcome == "deny"
    # What denies asks nobody, so that there is nothing that approvals could be gathered for.
    assert asked(decision) == ()


def test_stopped_means_an_exact_list_of_actions() -> None:
    """In a "trading stopped" state exits went on to turn a 10 % loss into 40 %."""
    exits = "exits: [{target: perp.clearing_house, function: closePosition, args: {baseToken: perp.eth}}]\n"
    policy = policy_of("limits: [{id: lev, metric: leverage, max: 9}]\n" + BUY + exits)
    for state in (RiskState.REDUCE_ONLY, RiskState.FROZEN):
        assert judge(policy, opening(policy, state=state)).outcome == "deny"
    assert judge(policy, closing(policy, state=RiskState.REDUCE_ONLY)).allowed
    assert judge(policy, closing(policy, state=RiskState.FROZEN)).outcome == "deny"
    undeclared = policy_of("limits: [{id: lev, metric: leverage, max: 9}]\n" + BUY)
    assert judge(undeclared, closing(undeclared, state=RiskState.REDUCE_ONLY)).outcome == "deny"


def test_drawdown_shows_what_it_is_made_of() -> None:
    """The most misread number in trading bots."""
    drawdown = METRICS["drawdown"]
    assert "highest NAV on record" in drawdown.definition
    assert drawdown.inputs


def test_a_limit_warns_before_it_denies() -> None:
    """What users of trading bots ask for first."""
    policy = policy_of("limits: [{id: gross, metric: gross_notional, max: 37500}]\n" + BUY)
    decision = judge(policy, opening(policy))
    assert decision.allowed
    assert decision.warnings == ("gross is at 80% of its bound",)
    smaller = opening(policy, after=portfolio("149"), fills=(fill("149"),))
    assert judge(policy, smaller).warnings == ()
