"""The pricing kernel on both backends: against 60-digit arithmetic, at the edges, and one backend against the other."""

from __future__ import annotations

import math
import random
from decimal import Decimal
from types import ModuleType

import mpmath
import numba
import numpy as np
import pytest

from policies.risk import _kernel, _kernel_numba, black
from policies.risk._kernel import YEAR_S, OptionColumns, ShockColumns
from policies.risk.scenarios_book import EuropeanOption
from policies.risk.scenarios_exact import UNCHANGED, option_value

BACKENDS = pytest.mark.parametrize("kernel", [_kernel, _kernel_numba], ids=["numpy", "numba"])
STILL = np.zeros(1)
ONE = np.ones(1)


def one_option(
    strike: float, life_s: float, vol: float, *, is_call: bool, rate: float = 0.0, carry: float = 0.0, size: float = 1.0
) -> OptionColumns:
    def column(x: float) -> np.ndarray:
        return np.array([x])

    return OptionColumns(
        column(strike),
        column(math.log(strike)),
        column(life_s),
        column(vol),
        column(rate),
        column(carry),
        column(size),
        column(1.0 if is_call else -1.0),
    )


def unshocked(spot: float) -> ShockColumns:
    with np.errstate(divide="ignore"):
        return ShockColumns(np.array([spot]), np.log([spot]), ONE, STILL, STILL, STILL, ONE, STILL)


def value(kernel: ModuleType, options: OptionColumns, shocks: ShockColumns) -> float:
    totals = np.zeros(shocks.spot.size)
    kernel.accumulate(options, shocks, totals)
    return float(totals[0])


def true_value(
    spot: float, strike: float, time: float, vol: float, *, is_call: bool, rate: float, carry: float
) -> mpmath.mpf:
    with mpmath.workdps(60):
        s, k, t, v, r, b = (mpmath.mpf(x) for x in (spot, strike, time, vol, rate, carry))
        forward = s * mpmath.exp(b * t)
        d1 = mpmath.log(forward / k) / (v * mpmath.sqrt(t)) + v * mpmath.sqrt(t) / 2
        d2 = d1 - v * mpmath.sqrt(t)
        side = 1 if is_call else -1
        return side * mpmath.exp(-r * t) * (forward * mpmath.ncdf(side * d1) - k * mpmath.ncdf(side * d2))


def test_the_rational_function_gives_the_normal_distribution_to_1e_16() -> None:
    worst = mpmath.mpf(0)
    with mpmath.workdps(40):
        for i in range(800):
            y = mpmath.mpf(i) / 20
            over = sum(mpmath.mpf(c) * y**n for n, c in enumerate(_kernel.P))
            under = sum(mpmath.mpf(c) * y**n for n, c in enumerate(_kernel.Q))
            worst = max(worst, abs(mpmath.exp(-y * y / 2) * over / under - mpmath.ncdf(-y)))
    assert worst < 1e-16


@BACKENDS
@pytest.mark.parametrize("is_call", [True, False])
@pytest.mark.parametrize("life_s", [60, 3600, 86_400, 30 * 86_400, YEAR_S, 5 * YEAR_S])
@pytest.mark.parametrize("vol", [0.01, 0.3, 0.9, 3.0, 12.0])
def test_a_value_is_within_1e_14_of_the_true_one(kernel: ModuleType, is_call: bool, life_s: int, vol: float) -> None:
    for strike in (1.0, 1200.0, 2900.0, 2999.99, 3000.0, 3050.0, 4500.0, 90_000.0):
        for rate, carry in ((0.0, 0.0), (0.05, 0.02), (-0.03, -0.1)):
            found = value(
                kernel, one_option(strike, life_s, vol, is_call=is_call, rate=rate, carry=carry), unshocked(3000.0)
            )
            truth = true_value(3000.0, strike, life_s / YEAR_S, vol, is_call=is_call, rate=rate, carry=carry)
            assert abs(found - truth) <= 1e-14 * (3000.0 + strike)


@BACKENDS
def test_an_expired_option_is_worth_its_intrinsic_value(kernel: ModuleType) -> None:
    """Out of the money to 1e-300: the density is held above the smallest normal double, not switched off."""
    assert value(kernel, one_option(2900, 0, 0.8, is_call=True, rate=0.05, carry=0.3), unshocked(3000)) == 100
    assert value(kernel, one_option(3100, 0, 0.8, is_call=False, rate=0.05, carry=0.3), unshocked(3000)) == 100
    assert value(kernel, one_option(3000, 0, 0.8, is_call=True), unshocked(3000)) == pytest.approx(0, abs=1e-290)
    assert value(kernel, one_option(3100, 0, 0.8, is_call=True), unshocked(3000)) == pytest.approx(0, abs=1e-290)


@BACKENDS
def test_without_volatility_an_option_is_worth_its_discounted_intrinsic_value_of_the_forward(
    kernel: ModuleType,
) -> None:
    found = value(kernel, one_option(2900, YEAR_S, 0.0, is_call=True, rate=0.05, carry=0.02), unshocked(3000))
    assert found == pytest.approx(math.exp(-0.05) * (3000 * math.exp(0.02) - 2900), rel=1e-14)
    assert value(kernel, one_option(3300, YEAR_S, 0.0, is_call=True), unshocked(3000)) == pytest.approx(0, abs=1e-290)
    assert value(kernel, one_option(3000, YEAR_S, 0.0, is_call=True), unshocked(3000)) == pytest.approx(0, abs=1e-290)


@BACKENDS
def test_when_the_underlying_is_worthless_a_put_is_worth_its_discounted_strike(kernel: ModuleType) -> None:
    put = one_option(3000, YEAR_S, 0.8, is_call=False, rate=0.05)
    assert value(kernel, put, unshocked(0.0)) == pytest.approx(3000 * math.exp(-0.05), rel=1e-15)
    assert value(kernel, one_option(3000, YEAR_S, 0.8, is_call=True, rate=0.05), unshocked(0.0)) == pytest.approx(
        0, abs=1e-290
    )


@BACKENDS
def test_put_call_parity_holds_in_every_scenario(kernel: ModuleType) -> None:
    rng = np.random.default_rng(7)
    spot = 3000 * np.exp(rng.normal(0, 1, 50))
    shocks = ShockColumns(
        spot,
        np.log(spot),
        rng.uniform(0, 2, 50),
        rng.uniform(-0.2, 0.5, 50),
        rng.integers(0, 2 * YEAR_S, 50).astype(float),
        rng.uniform(-0.1, 0.1, 50),
        np.full(50, 0.98),
        np.log(np.full(50, 0.98)),
    )
    found = np.zeros(50)
    kernel.accumulate(one_option(2500, YEAR_S, 0.7, is_call=True, rate=0.04, carry=0.01), shocks, found)
    kernel.accumulate(one_option(2500, YEAR_S, 0.7, is_call=False, rate=0.04, carry=0.01, size=-1), shocks, found)
    time = np.maximum(YEAR_S - shocks.elapsed_s, 0) / YEAR_S
    forward = np.where(time > 0, spot * np.exp((0.01 + shocks.rate_shift) * time) * 0.98, spot)
    assert found == pytest.approx(np.exp(-(0.04 + shocks.rate_shift) * time) * (forward - 2500), abs=1e-9)


def test_the_backends_agree_to_the_last_bits_whatever_the_scenario() -> None:
    rng = np.random.default_rng(11)
    n, m = 300, 500
    strike = 3000 * np.exp(rng.normal(0, 0.5, n))
    options = OptionColumns(
        strike,
        np.log(strike),
        rng.integers(0, YEAR_S, n).astype(float),
        rng.uniform(0, 2, n),
        rng.uniform(-0.05, 0.1, n),
        rng.uniform(-0.2, 0.2, n),
        rng.normal(0, 3, n),
        rng.choice([-1.0, 1.0], n),
    )
    spot = 3000 * np.exp(rng.normal(0, 0.7, m))
    basis = rng.uniform(-0.05, 0.05, m)
    shocks = ShockColumns(
        spot,
        np.log(spot),
        rng.uniform(0, 2, m),
        rng.uniform(-0.5, 0.5, m),
        rng.integers(0, YEAR_S, m).astype(float),
        rng.uniform(-0.05, 0.05, m),
        1 + basis,
        np.log1p(basis),
    )
    plain, compiled = np.zeros(m), np.zeros(m)
    _kernel.accumulate(options, shocks, plain)
    _kernel_numba.accumulate(options, shocks, compiled)
    assert plain == pytest.approx(compiled, abs=1e-15 * float(np.abs(options.size).sum()) * 10_000)


def test_the_compiled_loop_is_made_of_vector_instructions() -> None:
    """A scalar call inside the loop would cost most of the speed without a wrong figure anywhere."""
    afresh = numba.njit(**_kernel_numba.LOOP_OPTIONS)(_kernel_numba._add_up.py_func)  # what a cache returns has no text
    afresh.compile((numba.float64[::1],) * 18)
    (text,) = afresh.inspect_llvm().values()
    assert " x double>" in text
    assert not any(f"@{name}(" in text for name in ("exp", "log", "erf", "erfc", "pow"))


def test_the_decimal_model_is_the_same_model() -> None:
    for is_call in (True, False):
        for strike in (1200, 3000, 9000):
            option = EuropeanOption(
                "o",
                "ETH",
                is_call,
                Decimal(strike),
                86_400 * 73,
                Decimal(1),
                Decimal("0.75"),
                Decimal("0.05"),
                Decimal("0.02"),
            )
            with mpmath.workdps(60):
                truth = true_value(
                    3000,
                    strike,
                    mpmath.mpf(1) / 5,
                    mpmath.mpf("0.75"),
                    is_call=is_call,
                    rate=mpmath.mpf("0.05"),
                    carry=mpmath.mpf("0.02"),
                )
                found = option_value(option, Decimal(3000), UNCHANGED)
                assert abs(mpmath.mpf(str(found)) - truth) < mpmath.mpf(10) ** -22


@BACKENDS
def test_the_kernel_prices_what_black_prices(kernel: ModuleType) -> None:
    """The formula stands twice, once for reading and once for speed."""
    rng = random.Random(17)
    for _ in range(400):
        spot = 10 ** rng.uniform(-4, 5)
        strike = spot * math.exp(rng.gauss(0, 0.5))
        life_s = rng.choice([0, 60, 3600, 86_400, 30 * 86_400, YEAR_S])
        vol, rate, carry = rng.choice([0.0, 0.05, 0.5, 1.5]), rng.uniform(-0.1, 0.2), rng.uniform(-0.2, 0.2)
        is_call = rng.random() < 0.5
        found = value(kernel, one_option(strike, life_s, vol, is_call=is_call, rate=rate, carry=carry), unshocked(spot))
        expected = black.price(spot, strike, life_s / YEAR_S, vol, is_call=is_call, rate=rate, carry=carry)
        assert abs(found - expected) <= 1e-14 * (spot + strike)
