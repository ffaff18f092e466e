"""Liquidation prices: published ones both ways, and the solver where no closed form exists."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from policies.margin import Leg, liquidation_price
from policies.portfolio import Collateral, Debt, Option, Position
from policies.risk.margin import Account, Part, Requirement, critical_moves, liquidation_prices, model_of

D = Decimal
VECTORS = Path(__file__).parents[5] / "shared" / "vectors" / "perp_liquidation.json"

# Copied in: the first of each kind of the same cases, with their sources.
CASES: list[dict[str, Any]] = [
    # Hyperliquid docs, "Liquidations": price - side * margin_available / size / (1 - l * side)
    {
        "model": "hyperliquid_single_tier",
        "inputs": {"side": 1, "size": 10, "price": 2500, "account_value": 5000, "max_leverage": 25},
        "liq_price": 2040.8163265306123,
    },
    # P = (W + cum - side*q*E) / (q*(mmr - side)) with the tier that contains q*P
    {
        "model": "tiered_cross_one_way",
        "inputs": {
            "side": 1,
            "qty": 400,
            "entry": 60000,
            "wallet": 5000000.0,
            "tiers": [
                [50000.0, 0.004, 0],
                [250000.0, 0.005, 50],
                [1000000.0, 0.01, 1300],
                [10000000.0, 0.025, 16300],
                [20000000.0, 0.05, 266300],
                [50000000.0, 0.1, 1266300],
            ],
        },
        "liq_price": 49299.21052631579,
    },
    # definition: M + side*N*(1/E - 1/P) = mmr*N/P
    {
        "model": "inverse_isolated",
        "inputs": {"side": -1, "contracts_usd": 100000, "entry": 50000, "margin_coin": 0.5, "mmr": 0.005},
        "liq_price": 66333.33333333333,
    },
    # HF = 1
    {
        "model": "aave_single_collateral",
        "inputs": {"collateral_qty": 10, "debt_usd": 15000, "liq_threshold": 0.83},
        "liq_price": 1807.228915662651,
    },
    # GMX docs: liquidatable when collateral + pnl - fees < size * factor
    {
        "model": "gmx_stable_collateral",
        "inputs": {
            "side": -1,
            "size_usd": 50000,
            "entry": 2500,
            "collateral_usd": 5000,
            "min_collateral_factor": 0.01,
            "fees_usd": 60,
        },
        "liq_price": 2722.0,
    },
]


def _d(value: Any) -> Decimal:
    return D(str(value))


def _linear(size: Decimal, entry: Decimal, mark: Decimal) -> Position:
    return Position("v", "X", size, size * entry, mark)


def _cross(kind: str, i: Mapping[str, Any]) -> tuple[Any, Account]:
    """The case as a model and an account, at a present price where nothing is liquidatable yet."""
    if kind == "hyperliquid_single_tier":
        size, price = _d(i["side"]) * _d(i["size"]), _d(i["price"])
        model = model_of("hyperliquid", {"max_leverage.X": _d(i["max_leverage"])}, ["X"])
        return model, Account(_d(i["account_value"]), (_linear(size, price, price),))
    if kind == "tiered_cross_one_way":
        terms, floor = {}, D(0)
        for cap, rate, deduction in i["tiers"]:
            terms |= {f"maintenance_rate.X.{floor}": _d(rate), f"deduction.X.{floor}": _d(deduction)}
            floor = _d(cap)
        size, entry = _d(i["side"]) * _d(i["qty"]), _d(i["entry"])
        return model_of("binance_linear", terms, ["X"]), Account(_d(i["wallet"]), (_linear(size, entry, entry),))
    if kind == "inverse_isolated":
        contracts, entry = _d(i["side"]) * _d(i["contracts_usd"]), _d(i["entry"])
        position = Position("v", "X", contracts / entry, contracts, entry)
        coin = Collateral("v", "X", _d(i["margin_coin"]), entry, D(0), D(0))
        return model_of("binance_inverse", {"maintenance_rate.X": _d(i["mmr"])}, ["X"]), Account(
            D(0), (position,), (), (coin,)
        )
    if kind == "aave_single_collateral":
        price = 2 * _d(i["debt_usd"]) / _d(i["collateral_qty"]) / _d(i["liq_threshold"])
        held = Collateral("v", "X", _d(i["collateral_qty"]), price, _d(i["liq_threshold"]), D(0))
        return model_of("aave", {}, []), Account(D(0), (), (), (held,), (Debt("v", "USDC", _d(i["debt_usd"])),))
    assert kind == "gmx_stable_collateral", f"no case of kind {kind} is known"
    side, entry = _d(i["side"]), _d(i["entry"])
    position = Position("v", "X", side * _d(i["size_usd"]) / entry, side * _d(i["size_usd"]), entry)
    terms = {
        "collateral.X": _d(i["collateral_usd"]),
        "fees_usd.X": _d(i["fees_usd"]),
        "min_collateral_factor": _d(i["min_collateral_factor"]),
    }
    return model_of("gmx_v2", terms, ["X"]), Account(D(0), (position,))


def _closed_form(kind: str, i: Mapping[str, Any]) -> Decimal:
    side = _d(i.get("side", 1))
    if kind == "hyperliquid_single_tier":
        legs = [Leg("X", side * _d(i["size"]), _d(i["price"]))]
        found = liquidation_price(_d(i["account_value"]), 1 / (2 * _d(i["max_leverage"])), legs, "X")
        assert found is not None
        return found
    if kind == "tiered_cross_one_way":
        q, floor = _d(i["qty"]), D(0)
        for cap, rate, deduction in i["tiers"]:
            price = (_d(i["wallet"]) + _d(deduction) - side * q * _d(i["entry"])) / (q * (_d(rate) - side))
            if floor <= q * price < _d(cap):
                return price
            floor = _d(cap)
        raise AssertionError("no tier contains its own price")
    if kind == "inverse_isolated":
        n = _d(i["contracts_usd"])
        return n * (_d(i["mmr"]) + side) / (_d(i["margin_coin"]) + side * n / _d(i["entry"]))
    if kind == "aave_single_collateral":
        return _d(i["debt_usd"]) / _d(i["collateral_qty"]) / _d(i["liq_threshold"])
    size = _d(i["size_usd"])
    slack = _d(i["collateral_usd"]) - _d(i["fees_usd"]) - size * _d(i["min_collateral_factor"])
    return _d(i["entry"]) * (1 - side * slack / size)


def _check(case: Mapping[str, Any]) -> None:
    kind, inputs, expected = case["model"], case["inputs"], case["liq_price"]
    assert float(_closed_form(kind, inputs)) == pytest.approx(expected, rel=1e-12)
    model, account = _cross(kind, inputs)
    below, above = liquidation_prices(model, account, "X", D("1e-13"))
    present = account.price("X")
    assert present is not None
    found = below if expected < float(present) else above
    assert found is not None
    assert float(found) == pytest.approx(expected, rel=1e-12)
    assert abs(found - present) <= abs(D(repr(expected)) - present) * (1 + D("1e-12")), "the distance is overstated"


@pytest.mark.parametrize("case", CASES, ids=lambda case: str(case["model"]))
def test_published_liquidation_prices_come_out_of_both_the_closed_form_and_the_solver(case: Mapping[str, Any]) -> None:
    _check(case)


@pytest.mark.skipif(not VECTORS.exists(), reason="the vectors are not beside this checkout")
def test_every_vector_of_liquidation_prices_comes_out_both_ways() -> None:
    cases = json.loads(VECTORS.read_text())["cases"]
    assert cases
    for case in cases:
        _check(case)


def test_a_long_of_a_one_times_account_is_never_liquidated_below() -> None:
    model = model_of("ratio", {"initial_ratio": D("0.1"), "maintenance_ratio": D("0.05")}, ["X"])
    assert liquidation_prices(model, Account(D(200), (_linear(D(1), D(100), D(100)),)), "X") == (None, None)


def test_an_account_below_its_requirement_is_liquidatable_at_the_present_price() -> None:
    model = model_of("ratio", {"initial_ratio": D("0.1"), "maintenance_ratio": D("0.05")}, ["X"])
    account = Account(D(-1), (_linear(D(1), D(100), D(100)),))
    assert liquidation_prices(model, account, "X") == (D(100), D(100))


def test_one_asset_moves_while_the_others_stand() -> None:
    """20 + (P - 100) + 0 = 5 % x (P + 200): P = 90 / 0.95 = 94.7368; with both longs moving, f = 280 / 285."""
    model = model_of("ratio", {"initial_ratio": D("0.1"), "maintenance_ratio": D("0.05")}, ["X", "Y"])
    other = Position("v", "Y", D(2), D(200), D(100))
    account = Account(D(20), (_linear(D(1), D(100), D(100)), other))
    below, above = liquidation_prices(model, account, "X", D("1e-12"))
    assert above is None
    assert float(below or 0) == pytest.approx(90 / 0.95, rel=1e-11)
    assert float(critical_moves(model, account, None, D("1e-12")).down or 0) == pytest.approx(280 / 285 - 1, rel=1e-9)


def test_a_tier_that_jumps_liquidates_at_its_bound() -> None:
    """At 1,000 of notional the rate jumps from 1 % to 50 % and nothing is deducted: a long dies as it rises to the bound."""
    terms = {"maintenance_rate.X": D("0.01"), "maintenance_rate.X.1000": D("0.5"), "deduction.X.1000": D(0)}
    account = Account(D(50), (_linear(D(1), D(900), D(900)),))
    below, above = liquidation_prices(model_of("binance_linear", terms, ["X"]), account, "X", D("1e-12"))
    assert above is not None
    assert D("999.99999999") < above <= 1000
    assert float(below or 0) == pytest.approx(850 / 0.99, rel=1e-10)


@dataclass(frozen=True)
class _Wave:
    """A model made of a formula: excess as a function of the price of X. Several crossings, and a dip between grid points."""

    at: Any
    is_piecewise_linear: bool = False

    def requirement(self, account: Account) -> Requirement:
        return Requirement((Part("account", self.at(account.prices["X"]), D(0), D(0)),))

    def kinks(self, account: Account, assets: Any) -> tuple[Decimal, ...]:  # noqa: ARG002
        return ()


def test_of_several_crossings_the_nearest_on_each_side_is_returned() -> None:
    wave = _Wave(lambda p: (p - 60) * (p - 80) * (p - 130) * (p - 200))
    below, above = liquidation_prices(wave, Account(D(0), prices={"X": D(100)}), "X")
    assert float(below or 0) == pytest.approx(80, rel=1e-8)
    assert float(above or 0) == pytest.approx(130, rel=1e-8)
    assert (below or D(0)) >= 80
    assert (above or D(0)) <= 130


def test_a_dip_between_the_points_of_the_grid_is_found() -> None:
    wave = _Wave(lambda p: (p - D("70.3")) ** 2 - D("0.0001"))
    below, _ = liquidation_prices(wave, Account(D(0), prices={"X": D(100)}), "X")
    assert float(below or 0) == pytest.approx(70.31, rel=1e-7)


SIZES = st.decimals(D("-50"), D("50"), places=3).filter(lambda size: abs(size) > D("0.01"))
MODELS_TERMS = st.sampled_from(
    [
        ("ratio", {"initial_ratio": D("0.1"), "maintenance_ratio": D("0.0625")}),
        ("hyperliquid", {"max_leverage": D(25), "max_leverage.X": D(25), "max_leverage.X.3000": D(15)}),
        (
            "binance_linear",
            {"maintenance_rate": D("0.01"), "maintenance_rate.X": D("0.01"), "maintenance_rate.X.2000": D("0.1")},
        ),
        ("dydx_v4", {"imf_ppm": D(50000), "maintenance_fraction_ppm": D(600000)}),
        ("perp_v2", {}),
    ]
)


@settings(max_examples=60, deadline=None)
@given(x=SIZES, y=SIZES, cash=st.decimals(D(0), D(8000), places=2), rule=MODELS_TERMS)
def test_just_inside_the_critical_move_the_account_stands_and_just_beyond_it_does_not(
    x: Decimal, y: Decimal, cash: Decimal, rule: tuple[str, dict[str, Decimal]]
) -> None:
    model = model_of(*rule, ["X", "Y"])
    account = Account(cash, (_linear(x, D(100), D(100)), Position("v", "Y", y, y * 100, D(100))))
    for assets in (["X"], ["X", "Y"]):
        moves = critical_moves(model, account, assets)
        for move, way in ((moves.down, -1), (moves.up, 1)):
            if move is None or model.requirement(account).is_liquidatable:
                continue
            assert not model.requirement(account.moved(1 + move, assets)).is_liquidatable
            assert model.requirement(account.moved(1 + move + way * D("1e-9"), assets)).is_liquidatable


def test_a_short_strangle_under_portfolio_margin_dies_on_both_sides() -> None:
    now = 1_700_000_000
    legs = tuple(
        Option("v", "X", is_call, D(strike), now + 20 * 86_400, D(-10), D(0), D(10), D("0.6"), D(2000))
        for is_call, strike in ((True, 2300), (False, 1700))
    )
    account = Account(D(7000), (), legs, prices={"X": D(2000)}, now_s=now)
    for name, terms in (("derive_pmrm2", {}), ("deribit_pm", {})):
        model = model_of(name, terms, ["X"])
        below, above = liquidation_prices(model, account, "X", D("1e-6"))
        assert below is not None
        assert above is not None
        for price, way in ((below, -1), (above, 1)):
            at = account.moved(price / 2000, {"X"})
            beyond = account.moved(price / 2000 + way * D("1e-6"), {"X"})
            assert not model.requirement(at).is_liquidatable
            assert model.requirement(beyond).is_liquidatable
        richer = liquidation_prices(model, replace(account, cash=D(9000)), "X", D("1e-6"))
        assert (richer[0] or D(0)) < below
        assert (richer[1] or D(10**9)) > above


@dataclass
class _Counted:
    """A model that counts how often it is asked."""

    inner: Any
    asked: int = 0
    is_piecewise_linear: bool = False

    def requirement(self, account: Account) -> Requirement:
        self.asked += 1
        found: Requirement = self.inner.requirement(account)
        return found

    def kinks(self, account: Account, assets: Any) -> tuple[Decimal, ...]:
        found: tuple[Decimal, ...] = self.inner.kinks(account, assets)
        return found


@pytest.mark.parametrize("name", ["derive_pmrm2", "deribit_pm"])
def test_a_book_of_many_strikes_is_solved_in_a_few_hundred_revaluations(name: str) -> None:
    """Strikes and flat stretches far out must not start searches that cannot find anything."""
    now = 1_700_000_000
    book = tuple(
        Option(
            "v",
            "X",
            i % 2 == 0,
            D(1500 + 20 * i),
            now + (1 + i % 5) * 604_800,
            D((-1) ** i * 2),
            D(0),
            D(10),
            D("0.6"),
            D(2000),
        )
        for i in range(50)
    )
    counted = _Counted(model_of(name, {}, ["X"]))
    moves = critical_moves(counted, Account(D(30_000), (), book, prices={"X": D(2000)}, now_s=now), ["X"], D("1e-6"))
    assert moves.distance is not None
    assert counted.asked < 400
