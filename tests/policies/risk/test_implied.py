"""Implied volatility against 60-digit inversions, and there and back."""

from __future__ import annotations

import json
import math
from pathlib import Path

import mpmath
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from contracts.errors import BadInput
from policies.risk.black import black76
from policies.risk.implied import implied_vol, implied_vols, normalised_vol

VECTORS = Path(__file__).resolve().parents[3].parent / "shared" / "vectors"

INVERSIONS = [
    # x, beta as a double, s at 60 digits. Computed with mpmath: Jaeckel's normalised Black function, inverted.
    (0.0, "0x1.4ea833cbe7b0cp-15", "0.00010000000000000000146"),
    (0.0, "0x1.0573211475e4ap-8", "0.010000000000000000616"),
]


@pytest.mark.parametrize(("x", "beta", "exact"), INVERSIONS)
def test_inversion(x: float, beta: str, exact: str) -> None:
    assert normalised_vol(float.fromhex(beta), x) == pytest.approx(float(exact), rel=1e-15)


@pytest.mark.skipif(not VECTORS.is_dir(), reason="the reference vectors are not beside this checkout")
def test_every_inversion_of_the_reference_file_to_1e_14() -> None:
    for case in json.loads((VECTORS / "implied_vol.json").read_text())["cases"]:
        exact = float(case["sigma_exact"])
        assert normalised_vol(float.fromhex(case["beta_double"]), case["x"]) == pytest.approx(exact, rel=1e-14), case


def beta_of(x: float, s: float) -> mpmath.mpf:
    """The normalised function at 60 digits."""
    with mpmath.workdps(400 if x < -20 else 120):
        x_, s_ = mpmath.mpf(x), mpmath.mpf(s)
        return mpmath.exp(x_ / 2) * mpmath.ncdf(x_ / s_ + s_ / 2) - mpmath.exp(-x_ / 2) * mpmath.ncdf(x_ / s_ - s_ / 2)


PLACES = [
    (x, s)
    for x in (0.0, -1e-12, -1e-5, -1e-3, -0.05, -0.3, -1.5, -4.0, -12.0, -30.0)
    for s in (1e-3, 0.03, 0.3, 0.9, 1.7, 3.0, 6.0, 9.0, 12.0)
    if 1e-290 < float(beta_of(x, s)) < math.exp(x / 2)
]
"""Where the price is a double between its bounds."""


@pytest.mark.parametrize(("x", "s"), PLACES)
def test_inverse_of_the_function_at_any_place_that_a_double_can_hold(x: float, s: float) -> None:
    beta = float(beta_of(x, s))
    found = normalised_vol(beta, x)
    # The double is not the exact price: what it may be off moves s by d s = d beta / beta'.
    slope = math.exp(-((x / s) ** 2 + (s / 2) ** 2) / 2) / math.sqrt(2 * math.pi)
    assert abs(found - s) <= 1e-14 * s + math.ulp(beta) / slope


@given(
    forward=st.floats(1, 1e5),
    ratio=st.floats(0.3, 3),
    years=st.floats(1e-3, 5),
    vol=st.floats(0.05, 3),
    is_call=st.booleans(),
)
@settings(max_examples=60, deadline=None)
def test_price_there_and_back(forward: float, ratio: float, years: float, vol: float, is_call: bool) -> None:
    strike = forward * ratio
    value = black76(forward, strike, years, vol, is_call=is_call, discount=0.97)
    try:
        found = implied_vol(value, forward, strike, years, is_call=is_call, discount=0.97)
    except BadInput:
        return  # the time value is lost in the rounding of the price
    again = black76(forward, strike, years, found, is_call=is_call, discount=0.97)
    assert again == pytest.approx(value, abs=1e-13 * max(forward, strike))


@pytest.mark.parametrize(
    ("price", "is_call", "words"),
    [
        (9.9, True, "below the discounted intrinsic value"), (110.0, True, "not below the largest possible"), (-1.0, True, "price"),
        (100.0, False, "not below the largest possible"), (math.nan, True, "price"),
    ],
)  # fmt: skip
def test_price_outside_its_bounds_says_which_bound(price: float, is_call: bool, words: str) -> None:
    with pytest.raises(BadInput, match=words):
        implied_vol(price, 110.0, 100.0, 1.0, is_call=is_call)


def test_intrinsic_value_alone_means_no_volatility() -> None:
    assert implied_vol(10.0, 110.0, 100.0, 1.0, is_call=True) == 0.0


def test_normalised_price_outside_its_bounds_is_refused() -> None:
    for beta, x in ((1.0, 0.0), (-1e-9, -1.0), (0.1, 0.5), (math.inf, -1.0)):
        with pytest.raises(BadInput):
            normalised_vol(beta, x)


def test_arrays_agree_with_the_precise_inversion() -> None:
    random = np.random.default_rng(3)
    n = 200
    forwards, ratios = random.uniform(100, 3_000, n), random.uniform(0.7, 1.4, n)
    strikes, years, vols = forwards * ratios, random.uniform(0.02, 2, n), random.uniform(0.3, 1.5, n)
    calls = random.random(n) < 0.5
    rows = list(zip(forwards, strikes, years, vols, calls, strict=True))
    prices = np.array([black76(f, k, t, v, is_call=bool(c)) for f, k, t, v, c in rows])
    found = implied_vols(prices, forwards, strikes, years, calls)
    precise = np.array(
        [implied_vol(p, f, k, t, is_call=bool(c)) for p, (f, k, t, _, c) in zip(prices, rows, strict=True)]
    )
    np.testing.assert_allclose(found, precise, rtol=1e-8)
    assert np.isnan(implied_vols(prices * 0 + 1e9, forwards, strikes, years, calls)).all()
