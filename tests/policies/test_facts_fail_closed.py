"""Whatever fact is left out, aged or not finite, the order is denied: one at a time, over the whole tree of facts.

The tree is walked by its dataclasses, so a fact that is added to policies.portfolio is covered as soon as the sound facts below hold one
(`test_the_sound_facts_hold_every_kind_of_fact` fails until they do). What no other fact can contradict is listed with the reason.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import fields, is_dataclass, replace
from decimal import Decimal
from typing import Any

import pytest

from contracts.types import checksum, keccak
from policies import Facts, evaluate
from policies import portfolio as model
from policies.portfolio import (
    Activity,
    Allowance,
    Collateral,
    Debt,
    EquityPoint,
    FeedState,
    History,
    Holding,
    Liquidity,
    Loan,
    Margin,
    Option,
    Outstanding,
    Portfolio,
    Price,
    Returns,
)
from tests.policies.rig import BOOK, NOW_S, address, closing, opening, policy_of, portfolio

D = Decimal
DAY = 86_400
PEG = address("the feed of USDC")
POLICY = policy_of(
    """
facts: {max_price_age: 10m, feeds: {ETH: {feed: feed.eth, aggregator: perp.eth}, USDC: {feed: feed.usdc}}}
limits:
  - {id: lev, metric: leverage, max: 50}
  - {id: equity, metric: equity, min: 1}
  - {id: delta, metric: delta, scope: "asset: ETH", max: 10000}
  - {id: vega, metric: vega, max: 100000}
  - {id: health, metric: health_factor, min: 1.05}
  - {id: distance, metric: liquidation_distance, min: 1%}
  - {id: interest, metric: borrow_cost, max: 100000}
  - {id: slip, metric: order_slippage, scope: operation, max: 5%}
  - {id: turnover, metric: turnover, max: 10000000}
  - {id: loss, metric: loss, max: 1000000}
  - {id: drawdown, metric: drawdown, max: 99%}
  - {id: allowed, metric: allowance, max: 100000}
  - {id: tail, metric: expected_shortfall, max: 100000000}
  - {id: crash, metric: stress_loss, scenario: fall, max: 10000000}
  - {id: touched, metric: contracts_touched, scope: operation, max: 10}
  - {id: parties, metric: counterparties, scope: operation, max: 10}
stress: [{id: fall, shock: {ETH: -10%}, action: warn}]
overrides: [{id: junior, signers: [keeper], limits: [{id: own, metric: gross_notional, max: 1}]}]
calls: [{target: perp.clearing_house, functions: [openPosition, closePosition]}]
"""
)
CALL = Option("lyra", "ETH", True, D(210), NOW_S + 30 * DAY, D(10), D(150), D(18), D("0.9"), D(201))
OPTIONS = Margin("lyra", D(1_000), D(1_180), D(0), D(1_000), D(0), D(0), "lyra", (("spot", D(200)),))
REST: dict[str, Any] = {
    "holdings": (Holding("account", "USDC", D(50_000)), Holding("account", "ETH", D(2))),
    "options": (CALL,),
    "liquidity": (Liquidity("uniswap", 7, "ETH", "USDC", D(100), D(400), D(50_000), D(1), D(100)),),
    "collateral": (Collateral("aave", "ETH", D(100), D(200), D("0.8"), D("0.75")),),
    "debts": (Debt("aave", "USDC", D(8_000), D("0.05")),),
    "loans": (Loan("aave", D(20_000), D(8_000), D("0.8"), D(2), D(7_000)),),
    "allowances": (
        Allowance("USDC", BOOK["usdc"], BOOK["perp.vault"], D(500), False),
        Allowance("USDC", BOOK["usdc"], BOOK["trader"], D(0), False),
    ),
}


def rich(size: str) -> Portfolio:
    perp = portfolio(size)
    return replace(perp, margins=(*perp.margins, OPTIONS), **REST)


SOUND = opening(
    POLICY,
    before=rich("10"),
    after=rich("160"),
    prices=(Price("ETH", D(200), NOW_S - 20, f"feed {checksum(BOOK['feed.eth'])}"), Price("USDC", D(1), NOW_S - 20, f"feed {checksum(PEG)}")),
    returns=(Returns("ETH", DAY, NOW_S - 3_600, "recorded", tuple(D(n) / 100 for n in range(-10, 10))),),
    history=History(
        NOW_S - 90 * DAY,
        (EquityPoint(NOW_S - 2 * DAY, D(700_000), D(0)), EquityPoint(NOW_S - 60, D(800_000), D(0))),
        (Activity(NOW_S - 2 * DAY, keccak(b"a"), D(5), D(1), 1, 0), Activity(NOW_S - 120, keccak(b"b"), D(5), D(1), 1, 0)),
    ),
    feeds=(FeedState(BOOK["feed.eth"], BOOK["perp.eth"], 8), FeedState(PEG, PEG, 8)),
    book=BOOK | {"feed.usdc": PEG},
    outstanding=(Outstanding(keccak(b"old"), 7, NOW_S + 60),),
    touched=(BOOK["perp.clearing_house"],),
    counterparties=(BOOK["perp.vault"],),
    signer=BOOK["trader"],
)  # fmt: skip


STANDS_ALONE = {
    r"outstanding\[\d\].*": "the engine's own log says what is outstanding; its chain of hashes shows what is left out",
    r"history\.(equity|activity)\[\d\].*": "the same log; an entry less is a log that does not verify",
    r"history\.since_s": "older only claims a longer record of the same log",
    r"missing.*": "missing facts deny by being there",
}
"""Deletions and ages that nothing in the facts could contradict."""


def walk(value: Any, path: str = "") -> Iterator[tuple[str, Any]]:
    """Every value in the tree of facts, with its path."""
    yield path, value
    if is_dataclass(value):
        for field in fields(value):
            yield from walk(getattr(value, field.name), f"{path}.{field.name}" if path else field.name)
    elif isinstance(value, tuple):
        for i, item in enumerate(value):
            yield from walk(item, f"{path}[{i}]")


def put(tree: Any, path: str, new: Any) -> Any:
    """The tree with another value at `path`; `new` is the ellipsis to leave an entry of a list out."""
    head, rest = re.match(r"(\w+|\[\d+\])\.?(.*)", path).groups()  # type: ignore[union-attr]
    if head.startswith("["):
        i = int(head[1:-1])
        if not rest and new is ...:
            return tree[:i] + tree[i + 1 :]
        return (*tree[:i], put(tree[i], rest, new) if rest else new, *tree[i + 1 :])
    return replace(tree, **{head: put(getattr(tree, head), rest, new) if rest else new})


def judged(facts: Facts) -> str:
    return evaluate(POLICY, facts, NOW_S).outcome


def contradicted(path: str) -> bool:
    return not any(re.fullmatch(pattern, path) for pattern in STANDS_ALONE)


TREE = [(path, value) for path, value in walk(SOUND) if path and not path.startswith("calls.")]
FIGURES = [path for path, value in TREE if isinstance(value, Decimal)]
ENTRIES = [path for path, value in TREE if re.search(r"\]$", path) and is_dataclass(value) and contradicted(path)]
OPTIONAL = [
    f"{path}.{field.name}" if path else field.name
    for path, value in [("", SOUND), *TREE]
    if is_dataclass(value)
    for field in fields(value)
    if "None" in str(field.type) and getattr(value, field.name) is not None and contradicted(f"{path}.{field.name}")
]
TIMES = [path for path, _ in TREE if path.endswith("_s") and not path.endswith("period_s") and contradicted(path)]


def test_the_sound_facts_pass() -> None:
    decision = evaluate(POLICY, SOUND, NOW_S)
    assert decision.allowed, decision.explain()


def test_the_sound_facts_hold_every_kind_of_fact() -> None:
    """A fact that is added to the data model must be added above, or the tests below would pass it over."""
    held = {type(value).__name__ for _, value in TREE if is_dataclass(value)}
    known = {name for name, kind in vars(model).items() if is_dataclass(kind) and kind.__module__ == model.__name__}
    assert known - held == {"Facts", "Missing"}
    empty = [f.name for f in fields(Portfolio) if not getattr(SOUND.after, f.name)]
    assert empty == []


@pytest.mark.parametrize("value", ["NaN", "sNaN", "Infinity", "-Infinity"])
def test_every_figure_that_is_not_finite_denies(value: str) -> None:
    passed = [path for path in FIGURES if judged(put(SOUND, path, D(value))) != "deny"]
    assert passed == []


@pytest.mark.parametrize("path", ENTRIES)
def test_every_entry_that_is_left_out_denies(path: str) -> None:
    assert judged(put(SOUND, path, ...)) == "deny"


@pytest.mark.parametrize("path", OPTIONAL)
def test_every_fact_that_is_unknown_denies(path: str) -> None:
    assert judged(put(SOUND, path, None)) == "deny"


@pytest.mark.parametrize("path", TIMES)
def test_every_fact_that_is_old_denies(path: str) -> None:
    assert judged(put(SOUND, path, NOW_S - 100 * DAY)) == "deny"


def test_a_call_that_is_left_out_denies() -> None:
    assert judged(replace(SOUND, calls=replace(SOUND.calls, calls=()))) == "deny"


def test_a_figure_that_compares_with_nothing_is_judged_and_raises_nothing() -> None:
    """A signaling NaN in an operation that calls nothing, and under limits on changes."""
    bent = put(SOUND, "after.positions[0].size", D("sNaN"))
    assert judged(replace(bent, calls=replace(SOUND.calls, calls=()))) == "deny"
    changes = tuple(replace(limit, of_change=True) for limit in POLICY.limits)
    assert evaluate(replace(POLICY, limits=changes), bent, NOW_S).outcome == "deny"


def test_whatever_is_wrong_a_reduction_passes() -> None:
    """Closing, on the facts bent in each way."""
    shut = closing(POLICY, before=rich("150"), after=rich("0"), prices=SOUND.prices, returns=SOUND.returns)
    shut = replace(shut, history=SOUND.history, feeds=SOUND.feeds, book=SOUND.book, outstanding=(), signer=SOUND.signer)
    assert evaluate(POLICY, shut, NOW_S).allowed
    held = {path: value for path, value in walk(shut) if path and not path.startswith("calls.")}
    for path in held:
        if isinstance(held[path], Decimal):
            assert evaluate(POLICY, put(shut, path, D("NaN")), NOW_S).allowed, path
        if path.endswith("]") and is_dataclass(held[path]):
            assert evaluate(POLICY, put(shut, path, ...), NOW_S).allowed, path


# -- stated outcomes -------------------------------------------------------------------------------------------------------------------


def because(facts: Facts) -> str:
    decision = evaluate(POLICY, facts, NOW_S)
    assert decision.outcome == "deny"
    return "; ".join(decision.objections)


def test_a_depegged_quote_denies_and_says_so() -> None:
    off = replace(SOUND, prices=(SOUND.prices[0], replace(SOUND.prices[1], value=D("0.979"))))
    assert "says 0.979, the policy takes 2.00% from 1" in because(off)
    near = replace(SOUND, prices=(SOUND.prices[0], replace(SOUND.prices[1], value=D("0.98"))))
    assert judged(near) == "allow"


def test_a_replaced_feed_denies_whatever_it_answers() -> None:
    for feed, said in (
        (replace(SOUND.feeds[0], aggregator=BOOK["trader"]), "feed.eth was replaced: its aggregator is 0x"),
        (replace(SOUND.feeds[0], decimals=18), "feed.eth was replaced: it answers with 18 decimals, not 8"),
        (replace(SOUND.feeds[0], address=BOOK["trader"]), "the pinned feed feed.eth was not read"),
    ):
        assert said in because(replace(SOUND, feeds=(feed, SOUND.feeds[1])))
    elsewhere = replace(SOUND, prices=(replace(SOUND.prices[0], source="another"), SOUND.prices[1]))
    assert "the pinned feed feed.eth gave no price of ETH" in because(elsewhere)


def test_a_paused_venue_denies_and_names_it() -> None:
    paused = replace(SOUND, missing=(model.Missing("perp", "the exchange is paused"),))
    assert because(paused) == "perp is missing: the exchange is paused"


def test_a_position_that_cannot_be_read_denies_and_names_it() -> None:
    unread = replace(SOUND, missing=(model.Missing("lyra:ETH", "the call reverted"),))
    assert "lyra:ETH is missing: the call reverted" in because(unread)


@pytest.mark.parametrize(
    ("path", "value", "said"),
    [
        ("after.options[0].expiry_s", NOW_S, "has expired and is not settled"),
        ("after.options[0].strike", D(0), "has a strike of 0"),
        ("after.options[0].implied_vol", D(0), "has an implied volatility of 0"),
        ("after.options[0].mark_price", D(300), "more than it can ever be worth"),
        ("after.liquidity[0].upper_price", D(50), "has no range"),
        ("after.collateral[0].price", D(220), "its price 220.0000 and index 200.0000 are 10.00% apart"),
        ("after.collateral[0].liquidation_threshold", D("1.2"), "are no shares"),
        ("after.loans[0].health_factor", D("2.1"), "its health factor 2.1 differs"),
        ("after.loans[0].debt_value", D(7_000), "its debt 7000.000000 differs"),
        ("after.loans[0].collateral_value", D(30_000), "its collateral 30000.000000 differs"),
        ("after.loans[0].liquidation_threshold", D("0.9"), "its liquidation threshold 0.9 differs"),
        ("after.holdings[0].amount", D(-1), "the USDC holding after is -1"),
        ("after.allowances[0].amount", D(-1), "the USDC allowance after is -1"),
        ("after.debts[0].annual_rate", D(-1), "the borrow rate of USDC at aave after is -1"),
        ("history.equity[1].time_s", NOW_S - 3 * DAY, "the record of equity is not in order"),
        ("history.activity[1].time_s", NOW_S + DAY, "ahead of the newest block"),
        ("returns[0].values[3]", D(-2), "fall by more than 100 %"),
        ("fills[0].quote", D(-30_000), "exchanged -30000"),
    ],
)
def test_what_contradicts_itself_denies_and_is_named(path: str, value: Any, said: str) -> None:
    assert said in because(put(SOUND, path, value))


def test_an_operation_that_makes_the_account_much_poorer_or_richer_is_not_understood() -> None:
    poorer = replace(SOUND.after, holdings=(Holding("account", "USDC", D(1_000)), SOUND.after.holdings[1]))
    assert "equity changes by -49000.00 USDC, which nothing explains; most of it in account:USDC" in because(
        replace(SOUND, after=poorer)
    )
    richer = replace(SOUND.after, holdings=(Holding("account", "USDC", D(99_000)), SOUND.after.holdings[1]))
    assert "equity changes by +49000.00 USDC, which nothing explains" in because(replace(SOUND, after=richer))
