"""Decisions: what passes, what is denied, and why."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from decimal import Decimal
from typing import Any

import pytest

from contracts.abi import Function
from contracts.bindings import Call, RiskState
from contracts.types import keccak, to_hex
from policies import Facts, Outstanding, evaluate, load
from policies.calls import decode_calls
from policies.decision import Decision
from policies.portfolio import Missing, Order, Price
from policies.rules import latched_after
from tests.policies.rig import (
    ACCOUNT,
    BOOK,
    NOW_S,
    WITHDRAW,
    address,
    close_call,
    closing,
    example,
    facts_of,
    fill,
    open_call,
    opening,
    policy_of,
    portfolio,
)

FUND = load(example("conservative_fund"))
BUY = "calls: [{target: perp.clearing_house, functions: [openPosition, closePosition]}]\n"
EXIT = "exits: [{target: perp.clearing_house, function: closePosition, args: {baseToken: perp.eth}}]\n"
LEVERAGE = "limits: [{id: lev, metric: leverage, max: 3}]\n"


def judge(facts: Facts, policy: Any = FUND) -> Decision:
    return evaluate(policy, facts, NOW_S)


def denied(decision: Decision, because: str) -> bool:
    return decision.outcome == "deny" and because in decision.summary


def test_a_3x_long_passes_the_fund_and_a_5x_long_does_not() -> None:
    assert judge(opening(FUND)).allowed
    big = opening(FUND, after=portfolio("250"), fills=(fill("250"),))
    decision = judge(big)
    assert {row.id for row in decision.limits if row.verdict == "deny"} >= {"leverage", "liquidation-distance"}
    row = next(row for row in decision.limits if row.id == "leverage")
    assert row.headroom is not None
    assert row.headroom < 0
    assert row.contributions == (("perp:ETH", Decimal(50_000)),)


def test_a_bound_is_inclusive_to_the_last_digit() -> None:
    policy = policy_of("limits: [{id: gross, metric: gross_notional, max: 30000}]\n" + BUY)
    assert judge(opening(policy), policy).allowed
    over = opening(policy, after=portfolio("150.000000000000000001"), fills=(fill("150.000000000000000001"),))
    assert denied(judge(over, policy), "gross")


def test_deny_beats_require_signers_beats_allow_in_any_order() -> None:
    limits = [
        "{id: a, metric: leverage, max: 9}",
        "{id: b, metric: gross_notional, max: 20000, action: require_signers, approval: desk}",
        "{id: c, metric: gross_notional, max: 25000}",
        "{id: d, metric: gross_notional, max: 10000, action: warn}",
    ]
    desk = "approvals: [{id: desk, signers: [trader], quorum: 1}]\n"

    def outcome(chosen: list[str]) -> str:
        policy = policy_of(f"limits: [{', '.join(chosen)}]\n{desk}{BUY}")
        return judge(opening(policy), policy).outcome

    for ordered in (limits, limits[::-1]):
        assert outcome(ordered) == "deny"
        assert outcome([x for x in ordered if "id: c" not in x]) == "require_signers"
        assert outcome([x for x in ordered if "id: a" in x or "id: d" in x]) == "allow"


def test_warnings_begin_at_the_stated_share_of_a_limit() -> None:
    policy = policy_of("limits: [{id: gross, metric: gross_notional, max: 40000, warn_at: 76%}]\n" + BUY)
    assert judge(opening(policy), policy).limits[0].verdict == "pass"
    policy = policy_of("limits: [{id: gross, metric: gross_notional, max: 40000, warn_at: 75%}]\n" + BUY)
    decision = judge(opening(policy), policy)
    assert decision.limits[0].verdict == "warn"
    assert decision.allowed
    assert decision.warnings == ("gross is at 75% of its bound",)


# -- calls -------------------------------------------------------------------------------------------------------------------


def test_a_call_that_nothing_allows_is_denied_and_named() -> None:
    stranger = Call(address("stranger"), bytes.fromhex("12345678"))
    decision = judge(facts_of(FUND, [open_call(), stranger]))
    assert denied(decision, f"nothing allows the call {to_hex(address('stranger'))}.0x12345678")


@pytest.mark.parametrize(
    "call",
    [
        Call(BOOK["usdc"], Function.parse("approve(address,uint256)").encode(address("thief"), 1)),
        Call(BOOK["usdc"], Function.parse("transfer(address,uint256)").encode(address("thief"), 1)),
        Call(BOOK["perp.vault"], WITHDRAW.encode(address("other token"), 1)),
        Call(BOOK["perp.vault"], WITHDRAW.encode(BOOK["usdc"], 1), value=1),
        Call(BOOK["perp.vault"], WITHDRAW.encode(BOOK["usdc"], 1) + bytes(32)),
        Call(ACCOUNT, Function.parse("uninstallModule(uint256,address,bytes)").encode(1, address("m"), b"")),
        Call(address("thief"), b"", value=1),
    ],
    ids=["spender", "recipient", "token", "value", "trailing bytes", "own account", "plain transfer"],
)
def test_pins_and_value_hold(call: Call) -> None:
    decision = judge(facts_of(FUND, [call], after=portfolio(), fills=(), orders=()))
    assert denied(decision, "nothing allows the call")


def test_pinned_names_and_ranges_let_the_right_call_pass() -> None:
    treasury = load(example("treasury"))
    pay = Function.parse("transfer(address,uint256)")
    book = BOOK | {"owner": address("owner")}

    def pays(to: bytes, amount: int) -> bool:
        facts = facts_of(treasury, [Call(BOOK["usdc"], pay.encode(to, amount))], fills=(), orders=(), book=book)
        rich = portfolio(collateral="1000000")
        return judge(replace(facts, before=rich, after=rich), treasury).allowed

    assert pays(book["owner"], 50_000_000_000)
    assert pays(BOOK["trader"], 50_000_000_000)
    assert not pays(BOOK["trader"], 50_000_000_001)
    assert not pays(address("thief"), 1)


def test_call_data_that_is_no_plain_execution_is_denied() -> None:
    broken = replace(opening(FUND), calls=decode_calls(ACCOUNT, b"\x01\x02\x03\x04", BOOK))
    assert denied(judge(broken), "no ERC-7579 execute")


# -- facts -------------------------------------------------------------------------------------------------------------------

NAN, INF = Decimal("NaN"), Decimal("Infinity")


def bend(path: str, value: Any) -> Callable[[Facts], Facts]:
    """Facts with one member changed: `after.margins.account_value`."""

    def change(facts: Facts) -> Facts:
        when, group, field = path.split(".")
        book = getattr(facts, when)
        first, *rest = getattr(book, group)
        bent = replace(book, **{group: (replace(first, **{field: value}), *rest)})
        return replace(facts, **{when: bent})

    return change


MEMBERS = [
    *(f"{when}.margins.{f}" for when in ("before", "after")
      for f in ("collateral", "account_value", "maintenance_requirement", "free_collateral")),
    *(f"after.positions.{f}" for f in ("size", "entry_notional", "mark_price", "pending_funding")),
    "before.holdings.amount", "after.holdings.amount",
]  # fmt: skip


@pytest.mark.parametrize("value", [NAN, Decimal("sNaN"), INF, -INF], ids=str)
@pytest.mark.parametrize("member", MEMBERS)
def test_every_figure_that_is_not_finite_denies_an_order(member: str, value: Decimal) -> None:
    decision = judge(bend(member, value)(opening(FUND)))
    assert decision.outcome == "deny"
    assert any(member.rsplit(".", 1)[1] in objection for objection in decision.objections)


@pytest.mark.parametrize(
    "member",
    [m for m in MEMBERS if not m.endswith(("amount", "free_collateral"))],
)
def test_every_figure_that_contradicts_the_others_denies_an_order(member: str) -> None:
    """Holdings and free collateral stand alone: nothing else says what they are."""
    assert judge(bend(member, Decimal(123))(opening(FUND))).outcome == "deny"


BENT: dict[str, Callable[[Facts], Facts]] = {
    "no price": lambda f: replace(f, prices=()),
    "an old price": lambda f: replace(f, prices=(replace(f.prices[0], time_s=NOW_S - 601),)),
    "a price from the future": lambda f: replace(f, prices=(replace(f.prices[0], time_s=NOW_S + 61),)),
    "a price of NaN": lambda f: replace(f, prices=(replace(f.prices[0], value=NAN),)),
    "a price of zero": lambda f: replace(f, prices=(replace(f.prices[0], value=Decimal(0)),)),
    "a negative price": lambda f: replace(f, prices=(replace(f.prices[0], value=Decimal(-200)),)),
    "contradicting prices": lambda f: replace(f, prices=(*f.prices, Price("ETH", Decimal(210), NOW_S, "other"))),
    "a mark far from the index": lambda f: replace(f, prices=(replace(f.prices[0], value=Decimal(210)),)),
    "an old block": lambda f: replace(f, block_time_s=NOW_S - 121),
    "a block from the future": lambda f: replace(f, block_time_s=NOW_S + 61),
    "a missing fact": lambda f: replace(f, missing=(Missing("perp", "paused"),)),
    "no margin account after": lambda f: replace(f, after=replace(f.after, margins=())),
    "two margin accounts": lambda f: replace(f, after=replace(f.after, margins=f.after.margins * 2)),
    "no position after": lambda f: replace(f, after=replace(f.after, positions=())),
    "no fills": lambda f: replace(f, fills=()),
    "a fill too many": lambda f: replace(f, fills=f.fills * 2),
    "a fill of NaN": lambda f: replace(f, fills=(replace(f.fills[0], quote=NAN),)),
    "no orders": lambda f: replace(f, orders=()),
    "an order without bound": lambda f: replace(f, orders=(Order("perp", "ETH", True, None),)),
    "an order bound of NaN": lambda f: replace(f, orders=(Order("perp", "ETH", True, NAN),)),
    "an order bound of infinity": lambda f: replace(f, orders=(Order("perp", "ETH", True, INF),)),
    "another policy on chain": lambda f: replace(f, policy_on_chain=keccak(b"other")),
    "a revert": lambda f: replace(f, succeeded=False),
}


@pytest.mark.parametrize("name", BENT)
def test_missing_stale_and_contradictory_facts_deny_an_order(name: str) -> None:
    sound = opening(FUND)
    assert judge(sound).allowed
    assert judge(BENT[name](sound)).outcome == "deny"


NEVER = ("another policy on chain", "a revert")
"""What denies even an exit: an attestation or an operation that the chain would refuse anyway."""


@pytest.mark.parametrize(
    "name", [name for name in BENT if name not in NEVER and not name.startswith(("no ", "an order", "a fill"))]
)
def test_a_declared_exit_passes_on_the_same_facts(name: str) -> None:
    bent = BENT[name](closing(FUND))
    decision = judge(bent)
    assert decision.allowed, decision.explain()
    assert decision.exit_only
    assert decision.warnings


@pytest.mark.parametrize("name", ["no price", "no fills"])
def test_a_declared_exit_passes_without_any_price_or_fill(name: str) -> None:
    assert judge(BENT[name](closing(FUND))).allowed


def test_one_call_that_is_no_exit_among_exits_is_judged_like_any_order() -> None:
    facts = facts_of(FUND, [close_call(), open_call()], prices=())
    assert denied(judge(facts), "there is no price of ETH")


# -- limits already breached --------------------------------------------------------------------------------------------------


def test_an_order_may_reduce_a_breached_limit_but_not_worsen_it() -> None:
    policy = policy_of("limits: [{id: gross, metric: gross_notional, max: 10000}]\n" + BUY)
    half = opening(policy, before=portfolio("150"), after=portfolio("100"), fills=(fill("-50"),))
    decision = judge(half, policy)
    assert decision.allowed
    assert decision.limits[0].reason == "breached before, and the operation reduces it"
    more = opening(policy, before=portfolio("150"), after=portfolio("160"), fills=(fill("10"),))
    assert judge(more, policy).outcome == "deny"


def test_an_operation_that_does_not_touch_a_breached_limit_is_not_held_back_by_it() -> None:
    policy = policy_of(
        "limits: [{id: gross, metric: gross_notional, max: 10000}]\n"
        "calls: [{target: perp.vault, functions: [withdraw], args: {token: usdc}}]\n"
    )
    idle = facts_of(
        policy, [Call(BOOK["perp.vault"], WITHDRAW.encode(BOOK["usdc"], 1))],
        before=portfolio("150"), after=portfolio("150"), fills=(), orders=(),
    )  # fmt: skip
    assert judge(idle, policy).allowed


def test_closing_is_never_held_back_by_a_limit_on_the_portfolio() -> None:
    """Closing at a loss lowers equity below its minimum: staying in would be worse."""
    policy = policy_of("limits: [{id: money, metric: equity, min: 9000}]\n" + BUY)
    after = portfolio(collateral="8000")
    facts = closing(policy, after=after, before=portfolio("150", collateral="8400"))
    decision = judge(facts, policy)
    assert decision.allowed
    assert decision.limits[0].reason == "breached, and the operation only reduces"


def test_a_reduction_at_a_bad_price_is_held_back_by_slippage_and_a_declared_exit_is_not() -> None:
    slippage = "limits: [{id: slip, metric: order_slippage, scope: operation, max: 1%}]\n"
    bad = (fill("-150", "190"),)
    policy = policy_of(slippage + BUY)
    assert judge(closing(policy, fills=bad), policy).outcome == "deny"
    policy = policy_of(slippage + BUY + EXIT)
    assert judge(closing(policy, fills=bad), policy).allowed


def test_hysteresis_keeps_a_breached_limit_tighter_until_the_metric_is_back_inside() -> None:
    policy = policy_of("limits: [{id: gross, metric: gross_notional, max: 30000, hysteresis: 10%}]\n" + BUY)
    facts = opening(policy)
    assert judge(facts, policy).allowed
    latched = judge(replace(facts, latched=frozenset({"gross"})), policy)
    assert latched.outcome == "deny"
    assert latched.limits[0].bound == 27_000
    assert latched.breached == {"gross"}
    smaller = opening(policy, after=portfolio("130"), fills=(fill("130"),), latched=frozenset({"gross"}))
    released = judge(smaller, policy)
    assert released.allowed
    assert released.breached == frozenset()


def test_a_limit_latches_on_what_the_portfolio_was_and_not_on_what_was_refused() -> None:
    policy = policy_of("limits: [{id: gross, metric: gross_notional, max: 30000, hysteresis: 10%}]\n" + BUY)
    held = latched_after(policy, {"gross": Decimal(30_001)}, frozenset())
    assert held == {"gross"}
    assert latched_after(policy, {"gross": Decimal(27_001)}, held) == {"gross"}
    assert latched_after(policy, {}, held) == {"gross"}
    assert latched_after(policy, {"gross": Decimal(27_000)}, held) == frozenset()
    assert latched_after(policy, {"gross": Decimal(29_999)}, frozenset()) == frozenset()
    refused = judge(opening(policy, after=portfolio("400"), fills=(fill("400"),)), policy)
    seen = {row.id: row.before for row in refused.limits if row.before is not None}
    assert refused.outcome == "deny"
    assert latched_after(policy, seen, frozenset()) == frozenset()


# -- states and reservations --------------------------------------------------------------------------------------------------


def test_only_declared_exits_are_open_when_the_account_is_stopped() -> None:
    assert denied(judge(opening(FUND, state=RiskState.REDUCE_ONLY)), "REDUCE_ONLY: only declared exits are open")
    assert judge(closing(FUND, state=RiskState.REDUCE_ONLY)).allowed
    assert denied(judge(closing(FUND, state=RiskState.FROZEN)), "FROZEN")


def test_guard_calls_and_the_announced_escape_stay_open_when_frozen() -> None:
    execute = Function.parse("execute(address,uint256)")
    reduce_ = Function.parse("reduce(uint256,uint256)")
    escape = Function.parse("startEscape()")
    for call in (
        Call(BOOK["seawall.stop_loss"], execute.encode(ACCOUNT, 1)),
        Call(BOOK["seawall.stop_loss"], reduce_.encode(1, 5)),
        Call(BOOK["seawall.emergency_freeze"], escape.encode()),
    ):
        assert judge(facts_of(FUND, [call], after=portfolio(), fills=(), orders=(), state=RiskState.FROZEN)).allowed
    other = Call(BOOK["seawall.stop_loss"], execute.encode(address("other"), 1))
    facts = facts_of(FUND, [other], after=portfolio(), fills=(), orders=(), state=RiskState.FROZEN)
    assert judge(facts).outcome == "deny"


def test_two_orders_that_pass_one_by_one_and_breach_together_are_caught() -> None:
    other = Outstanding(keccak(b"other intent"), 6, NOW_S + 300)
    assert judge(opening(FUND)).allowed
    assert denied(judge(opening(FUND, outstanding=(other,))), "together they were never judged")
    assert judge(closing(FUND, outstanding=(other,))).allowed


def test_a_replacement_and_an_attestation_whose_time_is_over_reserve_nothing() -> None:
    same_nonce = Outstanding(keccak(b"other intent"), 7, NOW_S + 300)
    over = Outstanding(keccak(b"other intent"), 6, NOW_S - 1)
    assert judge(opening(FUND, outstanding=(same_nonce, over))).allowed


def test_the_policy_binds_its_accounts_chains_and_sponsorship() -> None:
    policy = policy_of("chains: [10]\naccounts: [trader]\n" + BUY)
    decision = judge(opening(policy), policy)
    assert len(decision.objections) == 2
    budget = opening(FUND, sponsored=True, max_prefund_wei=6 * 10**16)
    assert denied(judge(budget), "sponsoring it may cost")
    spent = opening(FUND, sponsored=True, max_prefund_wei=10**16, sponsored_today_wei=5 * 10**17)
    assert denied(judge(spent), "today's cost")


# -- the Decision itself --------------------------------------------------------------------------------------------------------


def test_the_same_facts_give_the_same_bytes_and_other_facts_another_hash() -> None:
    first, again = judge(opening(FUND)), judge(opening(FUND))
    assert first.to_bytes() == again.to_bytes()
    other = judge(opening(FUND, block_number=101))
    assert other.facts_hash != first.facts_hash


def test_a_decision_explains_itself_from_its_json_alone() -> None:
    big = judge(opening(FUND, after=portfolio("250"), fills=(fill("250"),)))
    lines = big.explain()
    assert lines[0] == "DENY by policy conservative-fund 1.0"
    assert any(line.startswith("  deny") and "leverage" in line and "4.762x, max 3.100x" in line for line in lines)
    assert big.to_json()["outcome"] == "deny"
