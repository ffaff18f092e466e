"""What is worked out once for both portfolios: the same Decision, to the byte, as when everything is worked out anew, on every backend."""

from __future__ import annotations

import importlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import fields, replace
from decimal import Decimal
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from policies import METRICS, Facts, Policy, evaluate, rules
from policies.canonical import facts_hash
from policies.limits import Bucket, Limit, Parameters, Scenario, Scope
from policies.portfolio import (
    Collateral,
    Debt,
    Holding,
    Liquidity,
    Loan,
    Margin,
    Option,
    Portfolio,
    Position,
    Price,
    Returns,
)
from policies.risk import scenarios
from policies.risk.scenarios_shelf import Shelf
from policies.sharing import with_shared_entries
from tests.policies.rig import NOW_S, opening, policy_of

D = Decimal
DAY_S = 86_400
ASSETS = ("ETH", "BTC")
BUY = "calls: [{target: perp.clearing_house, functions: [openPosition]}]\n"
NAN, SIGNALING = D("NaN"), D("sNaN")
STRESSES = tuple(
    Scenario(f"s{n}", (("BTC", D(n - 2) / 8), ("ETH", D(2 - n) / 5)), (("ETH", D(n) / 10),), n * 3 * DAY_S)
    for n in range(5)
)


def limits() -> tuple[Limit, ...]:
    """One limit on every metric in every kind of scope, levels and changes."""
    found = []
    for name, metric in METRICS.items():
        given = Parameters(
            confidence=D("0.9"),
            expiry=Bucket(0, 20 * DAY_S) if "expiry" in metric.parameters and len(found) % 3 == 0 else None,
        )
        scopes = [Scope()] if "portfolio" in metric.scopes else []
        scopes += [Scope("asset", "ETH")] * ("asset" in metric.scopes) + [Scope("venue", "lyra")] * (
            "venue" in metric.scopes
        )
        for scope in scopes:
            for change in (False, True):
                if change and metric.of_operation:
                    continue
                happens = STRESSES if "scenario" in metric.parameters else (None,)
                for one in happens:
                    number = f"{name}-{len(found)}"
                    asked = replace(given, scenario=one)
                    found.append(
                        Limit(number, name, scope, metric.worse == "higher", D(100), parameters=asked, of_change=change)
                    )
    return tuple(found)


LIMITS = limits()
POLICY: Policy = replace(policy_of(BUY), limits=LIMITS)
LEVELS = tuple(limit for limit in LIMITS if not limit.of_change)


def amounts(low: int, high: int) -> st.SearchStrategy[Decimal]:
    return st.integers(low * 100, high * 100).map(lambda n: D(n) / 100)


ENTRIES: dict[str, st.SearchStrategy[Any]] = {
    "holdings": st.builds(Holding, st.just("account"), st.sampled_from((*ASSETS, "USDC")), amounts(0, 50)),
    "debts": st.builds(Debt, st.just("aave"), st.sampled_from((*ASSETS, "USDC")), amounts(0, 9), st.sampled_from([None, D("0.03")])),
    "positions": st.builds(
        Position, st.sampled_from(["perp", "lyra"]), st.sampled_from(ASSETS), amounts(-9, 9), amounts(-900, 900), amounts(190, 210)
    ),
    "margins": st.builds(
        Margin, st.sampled_from(["perp", "lyra"]), amounts(0, 9000), amounts(-10, 9000), amounts(0, 90), amounts(0, 90),
        st.just(D("0.0625")), st.just(D("0.1")),
    ),
    "options": st.builds(
        Option, st.sampled_from(["lyra", "deribit"]), st.sampled_from(ASSETS), st.booleans(), st.sampled_from([D(150), D(200), D("250.0")]),
        st.integers(0, 40).map(lambda d: NOW_S + d * DAY_S // 2), st.sampled_from([D(0), D(1), D("-2.5"), D("1.00")]), amounts(-90, 90),
        amounts(0, 90), st.sampled_from([D("0.5"), D("0.80"), D("1e-3")]), st.sampled_from([None, D(200), D("203.5")]),
    ),
    "liquidity": st.builds(
        Liquidity, st.just("uniswap"), st.integers(1, 3), st.just("ETH"), st.sampled_from(["USDC", "BTC"]), amounts(1, 150),
        amounts(151, 900), amounts(0, 90), amounts(0, 9), amounts(0, 9),
    ),
    "collateral": st.builds(
        Collateral, st.just("aave"), st.sampled_from(ASSETS), amounts(0, 9), amounts(190, 210), st.just(D("0.8")), st.just(D("0.75"))
    ),
    "loans": st.builds(
        Loan, st.just("aave"), amounts(0, 900), amounts(0, 900), st.just(D("0.8")), st.sampled_from([None, D("1.5")]), amounts(0, 90)
    ),
}  # fmt: skip


@st.composite
def spoilt(draw: st.DrawFn, entry: Any) -> Any:
    """The entry with one of its figures absent, senseless, or written in another way."""
    amounts = [f.name for f in fields(entry) if isinstance(getattr(entry, f.name), Decimal)]
    name = draw(st.sampled_from(amounts))
    value = getattr(entry, name)
    written = st.sampled_from([NAN, SIGNALING, D("Infinity"), D(0), value * D("1.000"), -value, value + 1])
    return replace(entry, **{name: draw(written)})


@st.composite
def cases(draw: st.DrawFn) -> Facts:
    """Facts of an operation that edits a random book: entries stay, equal or identical, change, come, go, and stand there twice."""
    before: dict[str, tuple[Any, ...]] = {}
    after: dict[str, tuple[Any, ...]] = {}
    for name, entry in ENTRIES.items():
        held = draw(st.lists(entry, max_size=8 if name == "options" else 3))
        if held and draw(st.booleans()):
            held.append(held[0])
        later: list[Any] = []
        for one in held:
            edit = draw(st.integers(0, 11))
            later += {0: [], 1: [draw(entry), one], 2: [draw(entry)], 3: [draw(spoilt(one))]}.get(edit, [replace(one)])
        if draw(st.integers(0, 11)) == 0 and held:
            held[-1] = draw(spoilt(held[-1]))
        before[name], after[name] = tuple(held), tuple(later)
    series = draw(st.lists(st.integers(-90, 90).map(lambda n: D(n) / 1000), min_size=70, max_size=70))
    returns = tuple(
        Returns(asset, DAY_S, NOW_S - 60, "test", tuple(series[i:] + series[:i])) for i, asset in enumerate(ASSETS)
    )
    prices = tuple(Price(asset, D(200), NOW_S - 5, "feed") for asset in (*ASSETS, "USDC") if asset != "USDC")
    asked = POLICY if draw(st.integers(0, 3)) == 0 else replace(POLICY, limits=LEVELS)
    facts = opening(
        asked, before=Portfolio(**before), after=Portfolio(**after), prices=prices, returns=returns, latched=frozenset()
    )
    return replace(facts, policy_on_chain=asked.policy_id)


@contextmanager
def plainly() -> Iterator[None]:
    """Nothing is shared: both portfolios are apart, and every book is revalued in blocks."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(rules, "with_shared_entries", lambda facts: facts)
        patch.setattr(Shelf, "takes", lambda *_: False)
        yield


@contextmanager
def backend(name: str) -> Iterator[None]:
    """`auto` is this backend."""
    own = scenarios.backend_of
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(scenarios, "backend_of", lambda _, count: own(name, count))  # type: ignore[arg-type]
        yield


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large])
@given(cases(), st.booleans())
def test_sharing_changes_no_byte_of_a_decision_on_any_backend(facts: Facts, changes: bool) -> None:
    policy = POLICY if changes else replace(POLICY, limits=LEVELS)
    with plainly(), backend("numpy"):
        plain = evaluate(policy, facts, NOW_S).to_bytes()
    names = ["numpy", "numba"] if importlib.util.find_spec("numba") else ["numpy"]
    for name in names:
        with backend(name):
            assert evaluate(policy, facts, NOW_S).to_bytes() == plain


@settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large])
@given(cases())
def test_shared_facts_are_the_same_facts(facts: Facts) -> None:
    shared = with_shared_entries(facts)
    assert facts_hash(shared) == facts_hash(facts)
    for field in fields(Portfolio):
        was, now = getattr(facts.before, field.name), getattr(shared.after, field.name)
        if len(was) == len(now):
            for one, other in zip(was, now, strict=True):
                assert one is other or repr(one) != repr(other)


def test_one_and_true_are_not_shared_as_their_canonical_forms_differ() -> None:
    option = Option("lyra", "ETH", True, D(200), NOW_S, D(1), D(1), D(1), None)
    loose = replace(option, is_call=1)  # type: ignore[arg-type]
    facts = opening(POLICY, before=Portfolio(options=(option,)), after=Portfolio(options=(loose,)))
    assert with_shared_entries(facts).after.options[0] is loose
    assert facts_hash(with_shared_entries(facts)) == facts_hash(facts)


def test_what_follows_an_entry_that_went_is_shared_from_the_end() -> None:
    held = tuple(Holding("account", f"T{n}", D(n)) for n in range(6))
    later = (replace(held[0]), replace(held[1]), *(replace(h) for h in held[3:]))
    facts = opening(POLICY, before=Portfolio(holdings=held), after=Portfolio(holdings=later))
    shared = with_shared_entries(facts).after.holdings
    assert [h is w for h, w in zip(shared, (*held[:2], *held[3:]), strict=True)] == [True] * 5
