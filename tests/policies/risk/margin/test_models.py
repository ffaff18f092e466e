"""Margin rules of venues against published figures and against figures worked out on paper."""

from __future__ import annotations

import json
from dataclasses import replace
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from contracts.errors import InvalidFields
from policies.portfolio import Collateral, Debt, Option, Position
from policies.risk.margin import MODELS, Account, model_of
from policies.risk.margin.aave import (
    NO_DEBT,
    RAY,
    WAD,
    account_health_wad,
    available_borrow,
    balance,
    compounded_interest_ray,
    health_factor_wad,
    linear_interest_ray,
    normalized_income_ray,
)
from policies.risk.margin.deribit import (
    futures_contingency,
    short_call_initial,
    short_call_maintenance,
    short_options_contingency,
    short_put_initial,
    short_put_maintenance,
    volatility_move,
)
from policies.risk.margin.dydx_v4 import LiquidityTier, funding_settlement_ppm, margin_requirements
from policies.risk.margin.tiers import Tier, maintenance, tier_of, tiers

D = Decimal
VECTORS = Path(__file__).parents[5] / "shared" / "vectors"
NOW_S = 1_700_000_000


def _vectors(name: str) -> dict[str, Any]:
    path = VECTORS / name
    if not path.exists():
        pytest.skip("the vectors are not beside this checkout")
    found: dict[str, Any] = json.loads(path.read_text())
    return found


def _position(size: str, entry: str, mark: str, asset: str = "X") -> Position:
    return Position("v", asset, D(size), D(size) * D(entry), D(mark))


# dYdX v4 -----------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("funding_index", "quantums", "index", "paid"),
    [
        (-123456789123, 1000000, -100000000000, 23456789123000000),
        (100, -30000, -100, 6000000),
        (-50, -5000000, 100, -750000000),
    ],
)
def test_funding_settles_as_on_dydx(funding_index: int, quantums: int, index: int, paid: int) -> None:
    """Source: dydxprotocol/v4-chain, x/perpetuals/lib/lib_test.go."""
    assert funding_settlement_ppm(funding_index, index, quantums) == paid


def test_a_margin_above_the_cap_of_open_interest_is_the_whole_notional() -> None:
    """Source: the same file, "negative quantums, open interest above cap"."""
    tier = LiquidityTier(200_000, 500_000, 10**12, 2 * 10**12)
    assert margin_requirements(tier, -1, 10**12, 4, 123456789123, -5) == (12345678912300000, 1234567891230000)
    off = LiquidityTier(200_000, 500_000)
    assert margin_requirements(off, -1, 10**12, 4, 123456789123, -5) == (2469135782460000, 1234567891230000)


def test_every_vector_of_dydx() -> None:
    vectors = _vectors("dydx_v4.json")
    for c in vectors["settlement_ppm"]:
        assert funding_settlement_ppm(c["funding_index"], c["index"], c["quantums"]) == c["expected_ppm"], c["name"]
    for c in vectors["margin_requirements"]:
        tier = LiquidityTier(c["imf_ppm"], c["maintenance_fraction_ppm"], c["oi_lower_cap"], c["oi_upper_cap"])
        found = margin_requirements(
            tier, c["quantums"], c["open_interest"], c["atomic_resolution"], c["price"], c["exponent"]
        )
        assert found == (int(c["expected_imr"]), int(c["expected_mmr"])), c["name"]


def test_requirements_of_dydx_round_up_and_scale_half_way_between_the_caps() -> None:
    tier = LiquidityTier(100_000, 500_000, 1_000, 3_000)
    assert tier.initial(1_001, 2_000) == 551  # 10 % + half of 90 % of 1,001 = 550.55
    assert tier.maintenance(1_001) == 51  # ceil(100.1) = 101, half of it 50.5


# Tiers -------------------------------------------------------------------------------------------------------------------------


def test_every_vector_of_hyperliquid_tiers() -> None:
    vectors = _vectors("perp_liquidation.json")["hyperliquid_mainnet_tiers"]
    for c in vectors["cases"]:
        table = tiers([(D(str(floor)), 1 / (2 * D(most))) for floor, most in vectors["tiers"][c["asset"]]])
        notional = D(str(c["notional"]))
        assert float(maintenance(table, notional)) == pytest.approx(c["maintenance_margin"], rel=1e-12)
        # At the bound itself both tiers give the same margin; the case names the lower one.
        if notional not in {tier.floor for tier in table}:
            assert float(tier_of(table, notional).deduction) == pytest.approx(c["deduction"], rel=1e-12)


def test_deductions_make_the_tiers_continuous() -> None:
    """The published maintenance amounts of a 2021 table: 50, 1,300, 16,300."""
    table = tiers([(D(0), D("0.004")), (D(50_000), D("0.005")), (D(250_000), D("0.01")), (D(1_000_000), D("0.025"))])
    assert [tier.deduction for tier in table] == [0, 50, 1_300, 16_300]
    assert tier_of(table, D(50_000)) == Tier(D(50_000), D("0.005"), D(50))


def test_an_isolated_position_is_liquidated_whatever_the_cross_account_holds() -> None:
    terms = {"max_leverage": D(10), "isolated.X": D(100)}
    account = Account(D(10**6), (_position("10", "100", "91"), _position("1", "100", "100", "Y")))
    found = model_of("hyperliquid", terms, ["X", "Y"]).requirement(account)
    assert [part.label for part in found.parts] == ["account", "isolated X"]
    assert found.parts[1].equity == 10
    assert found.parts[1].maintenance == D("45.5")
    assert found.is_liquidatable


def test_the_requirement_of_an_inverse_contract_stands_still_while_its_margin_moves() -> None:
    """0.5 coin and 100,000 USD long at 50,000: E = 0.5 P + 2 P - 100,000, MM = 0.5 % of 100,000 = 500."""
    account = Account(
        D(0),
        (Position("v", "X", D(2), D(100_000), D(45_000)),),
        (),
        (Collateral("v", "X", D("0.5"), D(45_000), D(0), D(0)),),
    )
    found = model_of("binance_inverse", {"maintenance_rate": D("0.005"), "leverage": D(20)}, ["X"]).requirement(account)
    assert (found.equity, found.maintenance, found.initial) == (12_500, 500, 5_000)


def test_a_market_without_tiers_is_refused() -> None:
    with pytest.raises(InvalidFields, match="max_leverage"):
        model_of("hyperliquid", {}, ["X"])


# Ratio, Perpetual Protocol, GMX ------------------------------------------------------------------------------------------------


def test_perp_v2_asks_for_six_and_a_quarter_percent_and_ten_of_the_debt_to_open() -> None:
    """Long 150 at 200, now 180; short 10 at 50, now 60: MM = 6.25 % x 27,600; debt = (30,000 - 500) + 600."""
    account = Account(D(10_000), (_position("150", "200", "180"), _position("-10", "50", "60", "Y")))
    found = model_of("perp_v2", {}, ["X", "Y"]).requirement(account)
    assert found.equity == 10_000 - 3_000 - 100
    assert found.maintenance == D("1725")
    assert found.initial == D("3010")


def test_gmx_v1_does_not_count_profits_and_v2_does() -> None:
    position = _position("20", "2500", "2600")
    terms = {"collateral.X": D(400), "fees_usd.X": D(60), "min_collateral_factor": D("0.01"), "max_leverage": D(100)}
    v1 = model_of("gmx_v1", terms, ["X"]).requirement(Account(D(0), (position,)))
    v2 = model_of("gmx_v2", terms, ["X"]).requirement(Account(D(0), (position,)))
    assert (v1.equity, v1.maintenance) == (400, 500)
    assert (v2.equity, v2.maintenance) == (2_340, 500)
    assert v1.is_liquidatable
    assert not v2.is_liquidatable


# Aave --------------------------------------------------------------------------------------------------------------------------


def test_health_factors_of_the_venue_in_wad() -> None:
    """Source: aave-utilities, pool-math.test.ts; the contract says 2^256 - 1 where the library says -1."""
    assert health_factor_wad(10**17, 5 * 10**16, 5_000) == WAD
    assert health_factor_wad(10**17, 3 * 10**16, 5_000) == 1_666_666_666_666_666_667
    assert health_factor_wad(10**17, 0, 5_000) == NO_DEBT
    assert account_health_wad([(100, 8_000), (300, 7_501)], 240) == wad_of(400 * 7_625, 10_000, 240)
    assert available_borrow(1_000, 600, 7_500) == 150
    assert available_borrow(1_000, 900, 7_500) == 0


def wad_of(numerator: int, denominator: int, debt: int) -> int:
    """round-half-up(numerator / denominator) x 1e18 / debt."""
    return ((numerator + denominator // 2) // denominator * WAD + debt // 2) // debt


def test_every_vector_of_aave() -> None:
    vectors = _vectors("aave_math.json")
    for c in vectors["health_factor"]:
        found = health_factor_wad(c["collateral"], c["debt"], c["liq_threshold_bps"])
        expected = D(c["expected"])
        assert found == NO_DEBT if expected < 0 else abs(D(found) / WAD - expected) <= D(1) / WAD
    i = vectors["interest"]
    linear, compound, income, held = i["linear"], i["compound"], i["normalized_income"], i["atoken_balance_mainnet"]
    assert linear_interest_ray(linear["rate_ray"], linear["t0"], linear["t1"]) == int(linear["expected_ray"])
    found_ray = compounded_interest_ray(compound["rate_ray"], compound["t0"], compound["t1"], per_second=True)
    assert found_ray == int(compound["expected_ray"])
    assert normalized_income_ray(income["rate_ray"], int(income["index"]), income["t0"], income["t1"]) == int(
        income["expected"]
    )
    index = normalized_income_ray(int(held["rate"]), int(held["index"]), held["t0"], held["t1"])
    assert balance(int(held["scaled"]), index) == int(held["expected"])


def test_interest_of_no_time_is_none_and_compounding_is_not_below_linear() -> None:
    assert linear_interest_ray(RAY // 20, 7, 7) == compounded_interest_ray(RAY // 20, 7, 7) == RAY
    for elapsed in (1, 2, 3_600, 31_536_000):
        assert compounded_interest_ray(RAY // 20, 0, elapsed) >= linear_interest_ray(RAY // 20, 0, elapsed)


def test_a_loan_is_liquidatable_below_a_health_factor_of_one_and_emode_lifts_it() -> None:
    held = Collateral("aave", "ETH", D(10), D(2_000), D("0.8"), D("0.75"))
    account = Account(D(0), (), (), (held,), (Debt("aave", "USDC", D(16_000)),))
    assert not model_of("aave", {}, []).requirement(account).is_liquidatable
    beyond = replace(account, debts=(Debt("aave", "USDC", D("16000.01")),))
    assert model_of("aave", {}, []).requirement(beyond).is_liquidatable
    assert not model_of("aave", {"emode_liquidation_threshold.ETH": D("0.93")}, []).requirement(beyond).is_liquidatable
    assert not model_of("aave", {}, []).requirement(replace(account, debts=())).is_liquidatable


# Deribit -----------------------------------------------------------------------------------------------------------------------


def test_the_legacy_figures_that_deribit_published() -> None:
    """Source: Deribit, "Portfolio Margin" and "Margin" pages in their legacy form."""
    assert volatility_move(15, 0.38, 0.30) == pytest.approx(0.4678348770710682, rel=1e-14)
    assert volatility_move(15, 0.40, 0.5) == pytest.approx(0.5656854249492381, rel=1e-14)
    assert futures_contingency(100, 100, 0.01) == 1.0
    assert short_options_contingency([10 - 20], 0.01) == pytest.approx(0.1)
    assert short_call_initial(11_000, 10_000, 0.02) == pytest.approx(0.12)
    assert short_call_initial(10_200, 10_000, 0.02) == pytest.approx(0.15)
    assert short_call_maintenance(0.02) == pytest.approx(0.095)
    assert short_put_maintenance(2.0) == pytest.approx(2.15)
    assert short_put_initial(9_000, 10_000, 0.02) == pytest.approx(0.12)


def test_every_vector_of_deribit() -> None:
    cases = {c["name"]: c for c in _vectors("deribit_pm_legacy.json")["cases"]}
    for name, (reach, power) in {
        "vol move 15d to expiry": (0.38, 0.30),
        "vol move sqrt variant 15d": (0.40, 0.5),
    }.items():
        c = cases.pop(name)
        assert volatility_move(c["d"], reach, power) == pytest.approx(c["expected"], rel=1e-14)
    c = cases.pop("futures offset contingency")
    assert futures_contingency(c["long"], c["short"], c["rate"]) == pytest.approx(c["expected_btc"])
    c = cases.pop("net short per strike contingency")
    assert short_options_contingency([c["call"] + c["put"]], c["per_option"]) == pytest.approx(c["expected_btc"])
    assert not cases


def test_a_future_loses_the_whole_price_range() -> None:
    """One coin long at 50,000 with a range of 16 %: MM = 8,000, IM = 1.3 x that; offsetting futures cost 1 % and no more."""
    model = model_of("deribit_pm", {}, ["X"])
    alone = model.requirement(Account(D(9_000), (_position("1", "50000", "50000"),), prices={"X": D(50_000)}))
    assert float(alone.maintenance) == pytest.approx(8_000, abs=1e-5)
    assert float(alone.initial) == pytest.approx(10_400, abs=1e-5)
    hedged = (_position("1", "50000", "50000"), _position("-1", "50100", "50100"))
    found = model.requirement(Account(D(0), hedged, prices={"X": D(50_000)}))
    assert float(found.maintenance) == pytest.approx(500 + 16, abs=1e-5)


def test_a_far_short_call_is_held_by_the_extended_table_and_by_its_contingency() -> None:
    far = Option("v", "X", True, D(90_000), NOW_S + 5 * 86_400, D(-1), D(0), D(0), D("0.5"), D(50_000))
    found = model_of("deribit_pm", {}, ["X"]).requirement(
        Account(D(0), (), (far,), prices={"X": D(50_000)}, now_s=NOW_S)
    )
    assert "extended" in dict(found.rows) or any("extended" in label for label, _ in found.rows)
    # At +500 % it owes 210,000, of which 16 % / 500 % counts, and 1 % of the index for a net short option.
    assert float(found.maintenance) == pytest.approx(210_000 * 0.16 / 5 + 500, rel=1e-6)


# Lyra --------------------------------------------------------------------------------------------------------------------------

LYRA = {
    "spot": D(1_500),
    "static_quote": D(200),
    "static_base": D("0.2"),
    "shock_vol_a": D("2.5"),
    "point_a_s": D(1_209_600),
    "shock_vol_b": D("1.8"),
    "point_b_s": D(4_838_400),
    "call_shock": D("1.2"),
    "put_shock": D("0.8"),
    "rate": D(0),
    "now_s": D(NOW_S),
}


def _short_put(size: str, strike: str = "1400", left_s: int = 7 * 86_400) -> Option:
    return Option("lyra", "ETH", False, D(strike), NOW_S + left_s, D(size), D(0), D(50), D("0.8"))


def test_each_short_option_of_lyra_stands_for_itself() -> None:
    terms = {**LYRA, "collateral.0": D(10_000), "collateral.1": D(100)}
    found = model_of("lyra", terms, ["ETH"]).requirement(
        Account(D(0), (), (_short_put("-1"), _short_put("-1", "1300")))
    )
    assert len(found.parts) == 2
    assert found.is_liquidatable
    assert found.parts[0].excess > 0
    assert found.parts[1].maintenance >= 200


def test_a_put_is_never_asked_for_more_than_its_strike_and_an_expired_one_for_its_shocked_intrinsic_value() -> None:
    terms = {**LYRA, "collateral.0": D(5_000)}
    whole = model_of("lyra", {**terms, "static_quote": D(9_000)}, ["ETH"]).requirement(
        Account(D(0), (), (_short_put("-1"),))
    )
    assert whole.maintenance == 1_400
    expired = model_of("lyra", terms, ["ETH"]).requirement(Account(D(0), (), (_short_put("-1", "1500", -60),)))
    assert float(expired.maintenance) == pytest.approx(1_500 - 0.8 * 1_500, rel=1e-6)


# All of them -------------------------------------------------------------------------------------------------------------------

TERMS: dict[str, dict[str, Decimal]] = {
    "ratio": {"initial_ratio": D("0.1"), "maintenance_ratio": D("0.05")},
    "perp_v2": {},
    "hyperliquid": {"max_leverage": D(25), "max_leverage.X": D(40), "max_leverage.X.100000": D(20)},
    "binance_linear": {"maintenance_rate": D("0.01"), "leverage": D(10)},
    "binance_inverse": {"maintenance_rate": D("0.01"), "leverage": D(10)},
    "dydx_v4": {"imf_ppm": D(50_000), "maintenance_fraction_ppm": D(600_000)},
    "gmx_v1": {"collateral.X": D(900), "max_leverage": D(100)},
    "gmx_v2": {"collateral.X": D(900), "min_collateral_factor": D("0.01")},
    "deribit_pm": {},
    "derive_pmrm2": {},
    "aave": {},
    "lyra": LYRA,
}
LINEAR_MODELS = sorted(set(TERMS) - {"aave", "lyra"})


def test_every_model_of_the_table_is_here() -> None:
    assert set(TERMS) == set(MODELS)
    assert all(entry.name == name and entry.summary and entry.terms for name, entry in MODELS.items())


@pytest.mark.parametrize("name", sorted(TERMS))
def test_an_empty_account_and_a_position_of_nothing_need_no_margin(name: str) -> None:
    model = model_of(name, TERMS[name], ["X"])
    for account in (Account(D(0)), Account(D(0), (_position("0", "100", "100"),), prices={"X": D(100)})):
        found = model.requirement(account)
        assert found.maintenance == found.initial == 0
        assert not found.is_liquidatable


@settings(max_examples=25, deadline=None)
@given(
    sizes=st.lists(st.integers(-40, 40).filter(bool), min_size=1, max_size=4),
    share=st.integers(1, 9),
    seed=st.randoms(use_true_random=False),
    name=st.sampled_from(sorted(set(LINEAR_MODELS) - {"gmx_v1", "gmx_v2"})),
)
def test_order_and_splitting_change_no_requirement(sizes: list[int], share: int, seed: Any, name: str) -> None:
    whole = [_position(str(size), "100", "110") for size in sizes]
    split = [
        replace(p, size=p.size * k / 10, entry_notional=p.entry_notional * k / 10)
        for p in whole
        for k in (share, 10 - share)
    ]
    seed.shuffle(split)
    model = model_of(name, TERMS[name], ["X"])
    one, other = (model.requirement(Account(D(500), tuple(book), prices={"X": D(109)})) for book in (whole, split))
    assert float(one.equity) == pytest.approx(float(other.equity), abs=2e-6)
    assert float(one.maintenance) == pytest.approx(float(other.maintenance), abs=2e-6)
    assert float(one.initial) == pytest.approx(float(other.initial), abs=2e-6)


@settings(max_examples=25, deadline=None)
@given(
    size=st.integers(-40, 40),
    cash=st.integers(-5_000, 5_000),
    more=st.integers(1, 5_000),
    name=st.sampled_from(LINEAR_MODELS),
)
def test_more_cash_never_raises_what_is_wanting(size: int, cash: int, more: int, name: str) -> None:
    model = model_of(name, TERMS[name], ["X"])
    account = Account(D(cash), (_position(str(size), "100", "110"),), prices={"X": D(109)})
    poorer, richer = model.requirement(account), model.requirement(replace(account, cash=D(cash + more)))
    assert richer.excess >= poorer.excess
    assert richer.maintenance - richer.equity <= poorer.maintenance - poorer.equity


def test_an_unknown_model_and_a_missing_term_say_what_to_do() -> None:
    with pytest.raises(InvalidFields, match="there is no margin model 'ftx'"):
        model_of("ftx", {}, [])
    with pytest.raises(InvalidFields, match="needs the term imf_ppm"):
        model_of("dydx_v4", {}, ["X"]).requirement(Account(D(0), (_position("1", "1", "1"),)))
    with pytest.raises(InvalidFields, match="is NaN"):
        model_of("ratio", {"initial_ratio": D("NaN"), "maintenance_ratio": D(1)}, [])
