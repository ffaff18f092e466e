"""Parametric VaR and ES against closed forms in 40 digits; filtered history against the recursion worked by hand."""

from __future__ import annotations

import json
import math
import re
from decimal import Decimal
from pathlib import Path

import numpy as np
import pytest

from contracts.errors import BadInput
from policies.portfolio import Returns
from policies.risk.scenarios_book import Book, EuropeanOption, Linear
from policies.risk.tail_filter import VolatilityFilter, filtered_replay
from policies.risk.tail_parametric import (
    covariance_of,
    delta_exposures,
    normal_multiples,
    parametric,
    student_multiples,
)

D = Decimal
SHARED = Path(__file__).parents[4] / "shared"
# distribution (degrees of freedom, None: normal), confidence, VaR, ES: mpmath, 40 digits
CLOSED_FORMS = [
    (None, 0.975, "1.9599639845400542", "2.3378027922014144"),
    (None, 0.999, "3.0902323061678135", "3.3670900770639904"),
    (3, 0.99, "4.5407028585681336", "7.0030820362421121"),
    (4, 0.999, "7.1731822197823085", "9.686219212949961"),
    (6, 0.95, "1.9431802805153032", "2.710738561479968"),
]


@pytest.mark.parametrize(("degrees", "confidence", "var", "es"), CLOSED_FORMS)
def test_the_closed_forms_hold_to_1e_13(degrees: float | None, confidence: float, var: str, es: str) -> None:
    found = normal_multiples(confidence) if degrees is None else student_multiples(confidence, degrees)
    assert found == pytest.approx((float(var), float(es)), rel=1e-13)


@pytest.mark.skipif(not (SHARED / "vectors").is_dir(), reason="the vectors are not here")
def test_every_closed_form_of_the_vectors_holds() -> None:
    for case in json.loads((SHARED / "vectors" / "var_es.json").read_text())["closed_form"]:
        student = re.fullmatch(r"student_t\(nu=([\d.]+)\)", case["dist"])
        found = student_multiples(case["alpha"], float(student[1])) if student else normal_multiples(case["alpha"])
        assert found == pytest.approx((float(case["VaR"]), float(case["ES"])), rel=1e-13)


def test_a_student_t_of_many_degrees_is_nearly_normal() -> None:
    assert student_multiples("0.99", 1e7) == pytest.approx(normal_multiples("0.99"), rel=1e-6)


def test_two_assets_by_hand() -> None:
    # exposures 100 and -50, volatilities 4 % and 3 %, correlation 0.5: variance 16 + 2.25 - 2 x 4 x 1.5 x 0.5 = 12.25
    covariance = np.array([[0.0016, 0.0006], [0.0006, 0.0009]])
    found = parametric([100, -50], covariance, 0.975, mean=[0.01, 0.02])
    z, e = normal_multiples(0.975)
    assert found.standard_deviation == pytest.approx(3.5)
    assert found.var == pytest.approx(3.5 * z)  # the mean profit is 1 - 1 = 0
    assert found.es == pytest.approx(3.5 * e)
    assert math.fsum(found.var_components) == found.var
    assert math.fsum(found.es_components) == found.es
    assert found.var_components == pytest.approx((13 / 3.5 * z - 1, -0.75 / 3.5 * z + 1))


def test_a_student_t_keeps_the_variance_and_fattens_the_tail() -> None:
    one = np.array([[0.0004]])
    t, normal = parametric([1000], one, "0.999", degrees=4), parametric([1000], one, "0.999")
    assert t.var == pytest.approx(20 * 7.1731822197823085 / math.sqrt(2))
    assert t.standard_deviation == normal.standard_deviation
    assert t.es > normal.es


def test_no_risk_is_no_loss() -> None:
    found = parametric([0, 0], np.eye(2), 0.99)
    assert (found.var, found.es) == (0, 0)


def test_a_hedge_in_the_same_asset_leaves_nothing_even_when_rounding_makes_the_variance_negative() -> None:
    covariance = np.full((3, 3), 0.1)
    found = parametric([0.1, 0.2, -0.3], covariance, 0.99)
    assert abs(found.es) < 1e-7


@pytest.mark.parametrize(
    ("exposures", "covariance", "why"),
    [
        ([1.0], np.array([[-1.0]]), "semidefinite"),
        ([1.0, 1.0], np.array([[1.0, 2.0], [2.0, 1.0]]), "semidefinite"),
        ([1.0, 1.0], np.array([[1.0, 0.5], [0.4, 1.0]]), "symmetric"),
        ([1.0], np.array([[float("nan")]]), "finite"),
        ([float("inf")], np.array([[1.0]]), "finite"),
        ([1.0, 2.0], np.array([[1.0]]), "belong together"),
        ([], np.zeros((0, 0)), "belong together"),
    ],
)
def test_senseless_inputs_are_refused(exposures: list[float], covariance: np.ndarray, why: str) -> None:
    with pytest.raises(BadInput, match=why):
        parametric(exposures, covariance, 0.99)


def test_too_few_degrees_of_freedom_are_refused() -> None:
    with pytest.raises(BadInput, match="more than 1"):
        student_multiples(0.99, 1)
    with pytest.raises(BadInput, match="more than 2"):
        parametric([1.0], np.eye(1), 0.99, degrees=2)


def test_the_covariance_is_the_samples_or_weighted_towards_today() -> None:
    r = np.random.default_rng(1).normal(0, [0.02, 0.03], (400, 2))
    assert covariance_of(r) == pytest.approx(np.cov(r.T))
    hand = covariance_of(np.array([[0.1], [0.2], [-0.3]]), decay=0.5)
    assert hand[0, 0] == pytest.approx((0.25 * 0.01 + 0.5 * 0.04 + 0.09) / 1.75)
    for bad in (np.zeros((1, 2)), np.array([[float("nan")], [0.0]])):
        with pytest.raises(BadInput):
            covariance_of(bad)
    with pytest.raises(BadInput, match="decay"):
        covariance_of(r, decay=1.0)


def test_exposures_are_notionals_and_deltas() -> None:
    call = EuropeanOption("call", "ETH", True, D(3000), 73 * 86_400, D(2), D("0.5"))
    book = Book(
        {"ETH": D(3000), "BTC": D(60_000)},
        linears=(Linear("eth", "ETH", D(-1), D(3000)), Linear("btc", "BTC", D("0.5"), D(60_100), on_forward=True)),
        options=(call,),
    )
    d1 = 0.5 * math.sqrt(0.2) / 2
    delta = 0.5 * math.erfc(-d1 / math.sqrt(2))
    assert delta_exposures(book, ["ETH", "BTC"]) == pytest.approx([6000 * delta - 3000, 30_050], rel=1e-6)


# -- filtered history --------------------------------------------------------------------------------------------------------------------


def test_exponential_weighting_by_hand() -> None:
    returns = (D("0.01"), D("-0.02"), D("0.02"))
    found = VolatilityFilter.ewma(D("0.5")).variances(returns)
    # mean square 0.0003; then half of the past, half of the new square
    assert found == (D("0.0003"), D("0.0002"), D("0.0003"), D("0.00035"))
    filtered = VolatilityFilter.ewma(D("0.5")).apply(returns)
    expected = [0.01 * math.sqrt(0.35 / 0.3), -0.02 * math.sqrt(0.35 / 0.2), 0.02 * math.sqrt(0.35 / 0.3)]
    assert [float(x) for x in filtered] == pytest.approx(expected)
    assert all(-x.as_tuple().exponent == 18 for x in filtered if isinstance(x.as_tuple().exponent, int))


def test_garch_starts_at_its_long_run_variance_and_reverts_to_it() -> None:
    garch = VolatilityFilter(D("0.00001"), D("0.1"), D("0.8"))
    found = garch.variances((D("0.05"), *(D(0),) * 60))
    assert found[0] == D("0.0001")
    assert found[1] == D("0.00001") + D("0.1") * D("0.0025") + D("0.8") * D("0.0001")
    assert float(found[-1]) == pytest.approx(0.00001 / 0.2, rel=1e-4)  # without news it falls to omega / (1 - beta)


def test_calm_returns_are_stretched_when_today_is_wild() -> None:
    returns = tuple([D("0.01"), D("-0.01")] * 50 + [D("0.1"), D("-0.1")] * 10)
    filtered = VolatilityFilter.ewma().apply(returns)
    assert abs(filtered[50]) > 2 * abs(returns[50])


def test_a_filtered_return_never_takes_more_than_everything() -> None:
    returns = tuple([D("-0.4"), D("0.0001")] + [D("0.0001")] * 300 + [D("3")])
    filtered = VolatilityFilter.ewma().apply(returns)
    assert min(filtered) == -1
    assert VolatilityFilter.ewma().apply((D(0), D(0))) == (0, 0)


def test_a_filtered_replay_keeps_days_together_and_assets_apart() -> None:
    returns = (
        Returns("ETH", 86_400, 1_700_000_000, "test", (D("0.01"), D("-0.02"), D("0.02"))),
        Returns("BTC", 86_400, 1_700_000_000, "test", (D("0.01"), D("0.01"), D("0.01"))),
    )
    replay = filtered_replay(returns, VolatilityFilter.ewma(D("0.5")))
    last = replay.scenario(2)
    assert last.of("BTC").spot == D("0.01")
    assert float(last.of("ETH").spot) == pytest.approx(0.02 * math.sqrt(0.35 / 0.3))


@pytest.mark.parametrize(
    ("omega", "alpha", "beta"),
    [("-1", "0.1", "0.8"), ("0", "-0.1", "0.8"), ("0", "0.5", "0.6"), ("0", "0", "0"), ("NaN", "0.1", "0.8")],
)
def test_a_filter_that_explodes_is_refused(omega: str, alpha: str, beta: str) -> None:
    with pytest.raises(BadInput, match="alpha"):
        VolatilityFilter(D(omega), D(alpha), D(beta))


def test_a_filter_refuses_what_it_cannot_use() -> None:
    for decay in ("0", "1", "NaN"):
        with pytest.raises(BadInput, match="decay"):
            VolatilityFilter.ewma(D(decay))
    for returns in ((), (D("NaN"),)):
        with pytest.raises(BadInput, match="at least one return"):
            VolatilityFilter.ewma().variances(returns)
