"""Black-Scholes against 60-digit figures, printed ones, QuantLib, and itself."""

from __future__ import annotations

import json
import math
import random
from pathlib import Path
from typing import Any

import mpmath
import pytest
import QuantLib as ql  # noqa: N813 (the module's own abbreviation)
from hypothesis import given
from hypothesis import strategies as st

from contracts.errors import BadInput
from policies.risk.black import Greeks, black76, greeks, price

VECTORS = Path(__file__).resolve().parents[3].parent / "shared" / "vectors"
needs_vectors = pytest.mark.skipif(not VECTORS.is_dir(), reason="the reference vectors are not beside this checkout")


def close(found: float, exact: float, scale: float) -> bool:
    """Within 1e-12 of the figure's scale, or 1e-10 relative."""
    return abs(found - exact) <= 1e-12 * scale + 1e-10 * abs(exact)


@needs_vectors
def test_every_greek_of_the_reference_grid() -> None:
    for case in json.loads((VECTORS / "options_bsm_grid.json").read_text())["cases"]:
        spot, years, vol = case["S"], case["T"], case["vol"]
        found = greeks(
            spot, case["K"], years, vol, is_call=case["cp"] == 1, rate=case["r"], carry=case["r"] - case["q"]
        )
        for name in Greeks._fields:
            assert close(getattr(found, name), float(case[name]), spot), (name, case)


@needs_vectors
def test_every_case_of_black_76() -> None:
    for case in json.loads((VECTORS / "options_black76.json").read_text())["cases"]:
        found = black76(
            case["F"], case["K"], case["T"], case["vol"], is_call=case["cp"] == 1, discount=case["discount"]
        )
        assert close(found, float(case["price"]), case["F"]), case


PUBLISHED: list[tuple[str, tuple[float, ...], bool, str, float]] = [
    # source, (S, K, T, r, b, v), call?, figure, as printed
    ("Hull, S = 42, K = 40", (42, 40, 0.5, 0.1, 0.1, 0.2), True, "price", 4.76),
    ("Hull, S = 42, K = 40", (42, 40, 0.5, 0.1, 0.1, 0.2), False, "price", 0.81),
    ("Hull, Greeks", (49, 50, 0.3846, 0.05, 0.05, 0.2), True, "price", 2.40),
    ("Hull, Greeks", (49, 50, 0.3846, 0.05, 0.05, 0.2), True, "delta", 0.522),
    ("Hull, Greeks", (49, 50, 0.3846, 0.05, 0.05, 0.2), True, "gamma", 0.066),
    ("Hull, Greeks", (49, 50, 0.3846, 0.05, 0.05, 0.2), True, "vega", 12.1),
    ("Hull, Greeks", (49, 50, 0.3846, 0.05, 0.05, 0.2), True, "theta", -4.31),
    ("Hull, Greeks", (49, 50, 0.3846, 0.05, 0.05, 0.2), True, "rho", 8.91),
    ("Haug, BSM", (60, 65, 0.25, 0.08, 0.08, 0.3), True, "price", 2.1334),
    ("Haug, Merton with a dividend", (100, 95, 0.5, 0.1, 0.05, 0.2), False, "price", 2.4648),
    ("Haug, Black-76", (19, 19, 0.75, 0.1, 0.0, 0.28), True, "price", 1.7011),
    ("Haug, Black-76", (19, 19, 0.75, 0.1, 0.0, 0.28), False, "price", 1.7011),
    ("Haug, Garman-Kohlhagen", (1.56, 1.6, 0.5, 0.06, -0.02, 0.12), True, "price", 0.0291),
    ("Haug, delta", (105, 100, 0.5, 0.1, 0.0, 0.36), True, "delta", 0.5946),
    ("Haug, delta", (105, 100, 0.5, 0.1, 0.0, 0.36), False, "delta", -0.3566),
    ("Haug, gamma", (55, 60, 0.75, 0.1, 0.1, 0.3), True, "gamma", 0.0278),
    ("Haug, theta", (430, 405, 1 / 12, 0.07, 0.02, 0.2), False, "theta", -31.1924),
    ("Haug, rho", (72, 75, 1.0, 0.09, 0.09, 0.19), True, "rho", 38.7325),
    ("Haug, charm", (105, 90, 0.25, 0.14, 0.0, 0.24), False, "charm", 0.3700),
]


@pytest.mark.parametrize(("source", "given_", "is_call", "name", "printed"), PUBLISHED)
def test_printed_figure(source: str, given_: tuple[float, ...], is_call: bool, name: str, printed: float) -> None:  # noqa: ARG001
    spot, strike, years, rate, carry, vol = given_
    found = getattr(greeks(spot, strike, years, vol, is_call=is_call, rate=rate, carry=carry), name)
    digits = len(repr(printed).partition(".")[2])
    assert abs(found - printed) <= 0.5 * 10**-digits + 1e-9


def test_quantlib_agrees_on_random_options() -> None:
    random.seed(7)
    for _ in range(100_000):
        spot, strike = random.uniform(10, 5_000), random.uniform(10, 5_000)
        years, vol = random.uniform(1e-4, 5), random.uniform(0.01, 3)
        rate, carry = random.uniform(-0.05, 0.2), random.uniform(-0.1, 0.2)
        kind = random.choice([ql.Option.Call, ql.Option.Put])
        peer = ql.BlackCalculator(
            ql.PlainVanillaPayoff(kind, strike),
            spot * math.exp(carry * years),
            vol * math.sqrt(years),
            math.exp(-rate * years),
        )
        ours = greeks(spot, strike, years, vol, is_call=kind == ql.Option.Call, rate=rate, carry=carry)
        assert abs(ours.price - peer.value()) <= 1e-11 * spot
        assert abs(ours.delta - peer.delta(spot)) <= 1e-11
        assert abs(ours.gamma - peer.gamma(spot)) <= 1e-9 * abs(ours.gamma) + 1e-12
        assert abs(ours.vega - peer.vega(years)) <= 1e-9 * abs(ours.vega) + 1e-10 * spot


NUMBERS: dict[str, Any] = {
    "spot": st.floats(1, 1e5),
    "moneyness": st.floats(0.2, 5),
    "years": st.floats(1e-5, 10),
    "vol": st.floats(0.01, 3),
    "rate": st.floats(-0.1, 0.3),
    "carry": st.floats(-0.2, 0.3),
}


@given(**NUMBERS)
def test_put_call_parity(spot: float, moneyness: float, years: float, vol: float, rate: float, carry: float) -> None:
    strike = spot * moneyness
    call, put = (price(spot, strike, years, vol, is_call=kind, rate=rate, carry=carry) for kind in (True, False))
    forward = math.exp(-rate * years) * (spot * math.exp(carry * years) - strike)
    assert abs(call - put - forward) <= 1e-12 * max(call, put, spot, strike)


@given(bump=st.floats(1e-3, 1), **NUMBERS)
def test_price_grows_with_volatility_and_is_convex_in_strike(
    spot: float, moneyness: float, years: float, vol: float, rate: float, carry: float, bump: float
) -> None:
    strike = spot * moneyness
    width = strike * bump / 3
    slack = 1e-12 * (spot * math.exp(abs(carry) * years) + strike) * math.exp(abs(rate) * years)

    def value(k: float, v: float) -> float:
        return price(spot, k, years, v, is_call=True, rate=rate, carry=carry)

    assert value(strike, vol + bump) >= value(strike, vol) - slack
    assert value(strike - width, vol) + value(strike + width, vol) >= 2 * value(strike, vol) - slack


COPIED: list[tuple[dict[str, float], bool, dict[str, float]]] = [
    # Of the 60-digit grid (mpmath, closed forms checked by mpmath.diff): an ordinary one, a carry, and wings.
    (
        {"spot": 100.0, "strike": 90.0, "years": 1.0, "vol": 1.5, "rate": 0.05, "carry": 0.02},
        False,
        {
            "price": 44.359732222136594, "delta": -0.19628292692317139, "gamma": 0.0018235021568977142, "vega": 27.352532353465714,
            "theta": -17.903846800146113, "rho": -63.988024914453733, "vanna": 0.12152298372120484, "volga": -10.129836039328221,
            "charm": -0.1006777299123942, "speed": -2.8368510889873962e-5, "zomma": -0.0018909905072203575,
            "color": 0.0014932149237639932, "ultima": -3.3413400551221479, "veta": -4.9543084970058151,
            "dual_delta": 0.71097805460504148,
        },
    ),
    (
        {"spot": 100.0, "strike": 110.0, "years": 3.0, "vol": 0.6, "rate": 0.05, "carry": 0.05},
        False,
        {
            "price": 35.99900106370138, "delta": -0.28357951094275246, "vega": 58.66293965288728, "theta": -2.6484463573898967,
            "charm": -0.042656114524684415, "ultima": -33.714257305517432, "veta": -5.549297095992763,
        },
    ),
    (
        {"spot": 100.0, "strike": 50.0, "years": 1 / 365, "vol": 0.1, "rate": 0.0, "carry": 0.0},
        True,
        {"price": 50.0, "delta": 1.0, "gamma": 0.0, "vega": 0.0, "rho": 0.13698630136986301, "dual_delta": -1.0},
    ),
]  # fmt: skip


@pytest.mark.parametrize(("given_", "is_call", "exact"), COPIED)
def test_cases_copied_from_the_reference_grid(given_: dict[str, float], is_call: bool, exact: dict[str, float]) -> None:
    found = greeks(**given_, is_call=is_call)
    for name, figure in exact.items():
        assert close(getattr(found, name), figure, given_["spot"]), name


@given(is_call=st.booleans(), **NUMBERS)
def test_price_is_homogeneous_and_monotonic_in_spot_and_strike(
    spot: float, moneyness: float, years: float, vol: float, rate: float, carry: float, is_call: bool
) -> None:
    strike = spot * moneyness

    def value(s: float, k: float) -> float:
        return price(s, k, years, vol, is_call=is_call, rate=rate, carry=carry)

    slack = 1e-11 * (spot + strike) * math.exp((abs(carry) + abs(rate)) * years)
    assert abs(value(2 * spot, 2 * strike) - 2 * value(spot, strike)) <= slack
    side = 1 if is_call else -1
    assert side * (value(spot * 1.01, strike) - value(spot, strike)) >= -slack
    assert side * (value(spot, strike) - value(spot, strike * 1.01)) >= -slack


@pytest.mark.parametrize("is_call", [True, False])
def test_every_greek_is_the_derivative_of_the_price(is_call: bool) -> None:
    """Against mpmath's numerical derivatives at 50 digits."""
    s0, k0, t0, v0, r0, q = 100.0, 112.0, 0.6, 0.55, 0.04, 0.015

    def exact(s: Any, v: Any, t: Any, r: Any, k: Any) -> Any:
        forward, deviation = s * mpmath.exp((r - q) * t), v * mpmath.sqrt(t)
        d1 = mpmath.log(forward / k) / deviation + deviation / 2
        side = 1 if is_call else -1
        inside = forward * mpmath.ncdf(side * d1) - k * mpmath.ncdf(side * (d1 - deviation))
        return mpmath.exp(-r * t) * side * inside

    found = greeks(s0, k0, t0, v0, is_call=is_call, rate=r0, carry=r0 - q)
    orders = {
        "delta": (1, 0, 0, 0, 0), "gamma": (2, 0, 0, 0, 0), "vega": (0, 1, 0, 0, 0), "theta": (0, 0, 1, 0, 0), "rho": (0, 0, 0, 1, 0),
        "vanna": (1, 1, 0, 0, 0), "volga": (0, 2, 0, 0, 0), "charm": (1, 0, 1, 0, 0), "speed": (3, 0, 0, 0, 0),
        "zomma": (2, 1, 0, 0, 0), "color": (2, 0, 1, 0, 0), "ultima": (0, 3, 0, 0, 0), "veta": (0, 1, 1, 0, 0),
        "dual_delta": (0, 0, 0, 0, 1),
    }  # fmt: skip
    with mpmath.workdps(50):
        point = tuple(map(mpmath.mpf, (s0, v0, t0, r0, k0)))
        for name, order in orders.items():
            derivative = mpmath.diff(exact, point, order)
            if order[2]:  # time to expiry runs against the calendar
                derivative = -derivative
            assert getattr(found, name) == pytest.approx(float(derivative), rel=1e-9), name


EXTREME = [
    {"vol": 1e-170}, {"rate": -1_000.0}, {"rate": 1e5, "carry": -1e5}, {"spot": 1e-300, "strike": 1e300}, {"vol": 1e200},
    {"years": 1e-320, "strike": 110.0}, {"vol": 1e-160, "strike": 110.0}, {"years": 1e300}, {"carry": 800.0},
]  # fmt: skip


@pytest.mark.parametrize("changes", EXTREME)
@pytest.mark.parametrize("is_call", [True, False])
def test_what_doubles_cannot_hold_is_bad_input_or_finite(changes: dict[str, float], is_call: bool) -> None:
    arguments = {"spot": 100.0, "strike": 100.0, "years": 1.0, "vol": 0.5, "rate": 0.0, "carry": 0.0} | changes
    for function in (price, greeks):
        try:
            found = function(**arguments, is_call=is_call)
        except BadInput:
            continue
        assert all(map(math.isfinite, found if isinstance(found, tuple) else (found,)))


@pytest.mark.parametrize("is_call", [True, False])
@pytest.mark.parametrize(("years", "vol"), [(0.0, 0.5), (0.5, 0.0), (0.0, 0.0)])
def test_without_time_or_volatility_the_discounted_intrinsic_value_is_left(
    is_call: bool, years: float, vol: float
) -> None:
    for strike in (90.0, 100.0, 110.0):
        found = greeks(100.0, strike, years, vol, is_call=is_call, rate=0.05, carry=0.05)
        forward = 100.0 * math.exp(0.05 * years)
        side = 1 if is_call else -1
        assert found.price == pytest.approx(math.exp(-0.05 * years) * max(side * (forward - strike), 0), abs=1e-12)
        assert found.gamma == found.vega == 0
        assert abs(found.delta) in (0.0, 0.5, 1.0)


def test_expiry_in_a_minute_and_tiny_volatility_are_finite() -> None:
    for years, vol in ((60 / 31_536_000, 0.8), (1e-9, 5.0), (1.0, 1e-8)):
        for strike in (1.0, 1_999.99, 2_000.0, 2_000.01, 1e6):
            assert all(map(math.isfinite, greeks(2_000.0, strike, years, vol, is_call=True)))


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"spot": 0.0}, "spot"), ({"spot": math.nan}, "spot"), ({"strike": -1.0}, "strike"), ({"years": -1e-9}, "time to expiry"),
        ({"vol": math.inf}, "volatility"), ({"rate": math.nan}, "rate"), ({"carry": math.inf}, "carry"),
    ],
)  # fmt: skip
def test_bad_input_names_the_argument(changes: dict[str, float], words: str) -> None:
    arguments = {"spot": 100.0, "strike": 100.0, "years": 1.0, "vol": 0.5, "rate": 0.0, "carry": 0.0} | changes
    with pytest.raises(BadInput, match=words):
        price(**arguments, is_call=True)


def test_importing_the_scalar_model_does_not_import_numpy() -> None:
    import subprocess
    import sys

    code = "import sys, policies.risk.black; sys.exit('numpy' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
