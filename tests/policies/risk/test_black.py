"""Black-Scholes against 60-digit figures, printed ones, QuantLib, and itself."""

from __future__ import annotations

import json
import math
import random
from pathlib import Path
from typing import Any

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
]


@pytest.mark.parametrize(("source", "given_", "is_call", "name", "printed"), PUBLISHED)
def test_printed_figure(source: str, given_: tuple[float, ...], is_call: bool, name: str, printed: float) -> None:  # noqa: ARG001
    spot, strike, years, rate, carry, vol = given_
    found = getattr(greeks(spot, strike, years, vol, is_call=is_call, rate=rate, carry=carry), name)
    digits = len(repr(printed).partition(".")[2])
    assert abs(found - printed) <= 0.5 * 10**-digits + 1e-9


def test_quantlib_agrees_on_random_options() -> None:
    random.seed(7)
    for _ in range(20_000):
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
