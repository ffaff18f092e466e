"""Models with scenarios answer the same whether they work out every scenario or only those that may be the worst."""

from __future__ import annotations

import math
import random
from decimal import Decimal

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from contracts.errors import BadInput
from policies.portfolio import Collateral, Option, Position
from policies.risk.black import undiscounted as exactly
from policies.risk.margin import deribit, derive_pmrm2
from policies.risk.margin.account import Account, Model, Requirement
from policies.risk.margin.deribit import DeribitPm
from policies.risk.margin.derive_pmrm2 import Pmrm2
from policies.risk.margin.pmrm2_parameters import SCENARIOS, CollateralTerms, ExpiryFeed, Parameters, VolShock
from policies.risk.margin.pmrm2_parameters import Scenario as Shock
from policies.risk.margin.screen import ERROR, may_be_least, undiscounted

D = Decimal
NOW_S = 1_700_000_000
_DAY_S = 86_400


def _both(model: Model, account: Account) -> tuple[Requirement, Requirement]:
    """The requirement by every scenario, and by those that may be the worst."""
    with pytest.MonkeyPatch.context() as patch:
        found = []
        for few in (10**9, 1):
            patch.setattr(deribit, "FEW", few)
            patch.setattr(derive_pmrm2, "FEW", few)
            found.append(model.requirement(account))
    return found[0], found[1]


@st.composite
def accounts(draw: st.DrawFn) -> Account:
    rng = random.Random(draw(st.integers(0, 10**9)))
    scale = draw(st.sampled_from([D(1), D(2_000), D(90_000)]))
    options = tuple(
        Option(
            "v",
            "ETH",
            rng.random() < 0.5,
            scale * rng.choice([D("0.4"), D("0.9"), D(1), D("1.1"), D(3)]),
            NOW_S + rng.choice([-10, 0, 600, _DAY_S, 30 * _DAY_S, 400 * _DAY_S]),
            D(rng.randrange(-400, 400)) / 8,
            D(0),
            D(0),
            rng.choice([D(0), D("0.0001"), D("0.55"), D("0.9"), D(4)]),
            scale * rng.choice([D("0.999"), D(1), D("1.02")]),
        )
        for _ in range(draw(st.integers(0, 40)))
    )
    # the forwards of one expiry are one
    forwards = {o.expiry_s: o.forward for o in options}
    options = tuple(
        Option(
            o.venue, o.asset, o.is_call, o.strike, o.expiry_s, o.size, D(0), D(0), o.implied_vol, forwards[o.expiry_s]
        )
        for o in options
        if o.size
    )
    perp = D(draw(st.integers(-30, 30)))
    held = (Position("v", "ETH", perp, perp * scale, scale * D("1.001")),) if perp else ()
    coins = (Collateral("v", "ETH", D(draw(st.integers(1, 9))), scale, D(0), D(0)),) if draw(st.booleans()) else ()
    return Account(D(draw(st.integers(-50_000, 50_000))), held, options, coins, (), {"ETH": scale}, NOW_S)


@settings(max_examples=150, deadline=None)
@given(account=accounts(), dampening=st.sampled_from([1.0, 0.3, -0.5]))
def test_pmrm_answers_the_same_either_way(account: Account, dampening: float) -> None:
    shocks = (
        *SCENARIOS,
        Shock(1.0, VolShock.NONE),
        Shock(0.2, VolShock.ABS, dampening),
        Shock(1.4, VolShock.DOWN, dampening),
    )
    model = Pmrm2(
        "ETH",
        Parameters(scenarios=shocks),
        {
            NOW_S + 600: ExpiryFeed(0.1, 0.4),
            NOW_S + 30 * _DAY_S: ExpiryFeed(0.05, 0.9, 0.3 * float(account.prices["ETH"])),
        },
        {"ETH": CollateralTerms(0.1, 0.05, True)},
    )
    every, some = _both(model, account)
    assert some == every


@settings(max_examples=150, deadline=None)
@given(account=accounts(), dampener=st.sampled_from([0.0, 250.0, -40.0]))
def test_deribits_tables_answer_the_same_either_way(account: Account, dampener: float) -> None:
    every, some = _both(DeribitPm(deribit.Parameters(extended_dampener=dampener, vega_rate=0.1)), account)
    assert some == every


def test_scenarios_that_tie_are_all_worked_out_and_the_first_is_named() -> None:
    """A book of nothing but a perp: what volatility does makes no difference, so scenarios of one move tie to the last bit."""
    bought = Option("v", "ETH", True, D(10**6), NOW_S + _DAY_S, D(1), D(0), D(0), D("0.1"), D(2_000))
    account = Account(
        D(0), (Position("v", "ETH", D(3), D(6_000), D(2_000)),), (bought,), prices={"ETH": D(2_000)}, now_s=NOW_S
    )
    for model in (Pmrm2("ETH"), DeribitPm(deribit.Parameters())):
        every, some = _both(model, account)
        assert some == every


def test_senseless_figures_are_refused_alike() -> None:
    blind = Option("v", "ETH", True, D(-5), NOW_S + _DAY_S, D(1), D(0), D(0), D("0.1"), D(2_000))
    for model in (Pmrm2("ETH"), DeribitPm(deribit.Parameters())):
        said = []
        for few in (10**9, 1):
            with pytest.MonkeyPatch.context() as patch:
                patch.setattr(deribit, "FEW", few)
                patch.setattr(derive_pmrm2, "FEW", few)
                with pytest.raises(BadInput) as refused:
                    model.requirement(Account(D(0), (), (blind,), prices={"ETH": D(2_000)}, now_s=NOW_S))
                said.append(refused.value.message)
        assert said[0] == said[1]


def test_values_over_arrays_differ_from_the_scalar_ones_by_less_than_is_claimed() -> None:
    rng = random.Random(3)
    rows = [
        (
            math.exp(rng.uniform(-9, 12)),
            math.exp(rng.uniform(-9, 12)) if rng.random() < 0.3 else 0.0,
            rng.choice([0.0, 1e-12, 1e-3, 0.2, 1.0, 9.0]) * rng.random(),
            rng.random() < 0.5,
        )
        for _ in range(20_000)
    ]
    rows = [(f, k or f * math.exp(rng.gauss(0, 0.4)), s, c) for f, k, s, c in rows]
    forward, strike, deviation = (np.array([row[i] for row in rows]) for i in range(3))
    found = undiscounted(forward, strike, deviation, np.array([row[3] for row in rows]))
    for (f, k, s, call), value in zip(rows, found.tolist(), strict=True):
        assert abs(value - exactly(f, k, s, is_call=call)) <= ERROR / 2 * (f + k)


def test_whatever_may_be_the_least_is_kept_and_nothing_is_when_a_figure_is_not_finite() -> None:
    values, errors = np.array([5.0, 1.0, 1.5, 9.0]), np.array([0.1, 0.3, 0.3, 0.1])
    assert list(may_be_least(values, errors)) == [1, 2]
    assert list(may_be_least(values, errors / 10)) == [1]
    assert list(may_be_least(np.array([1.0, math.nan]), np.zeros(2))) == [0, 1]
