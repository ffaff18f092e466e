"""Greeks over arrays: the scalar model row by row, on every backend."""

from __future__ import annotations

import math

import numpy as np
import pytest

from contracts.errors import BadInput
from policies.risk import black
from policies.risk.black_arrays import Backend, Floats, GreekColumns, greeks

BACKENDS: list[Backend] = ["numpy", "numba"]


def book(n: int, seed: int = 5) -> tuple[Floats, Floats, Floats, Floats, np.ndarray, Floats, Floats]:
    random = np.random.default_rng(seed)
    spot = random.uniform(10, 5_000, n)
    return (
        spot,
        spot * np.exp(random.uniform(-2, 2, n)),
        10 ** random.uniform(-5, 0.7, n),
        10 ** random.uniform(-2, 0.5, n),
        random.random(n) < 0.5,
        random.uniform(-0.1, 0.2, n),
        random.uniform(-0.1, 0.2, n),
    )


@pytest.mark.parametrize("backend", BACKENDS)
def test_every_row_is_that_of_the_scalar_model(backend: Backend) -> None:
    spot, strike, years, vol, is_call, rate, carry = book(3_000)
    found = greeks(spot, strike, years, vol, is_call, rate=rate, carry=carry, backend=backend)
    for i in range(spot.size):
        exact = black.greeks(
            spot[i], strike[i], years[i], vol[i], is_call=bool(is_call[i]), rate=rate[i], carry=carry[i]
        )
        for name in GreekColumns._fields:
            wanted = getattr(exact, name)
            assert abs(getattr(found, name)[i] - wanted) <= 1e-12 * spot[i] + 1e-10 * abs(wanted), (name, i)


@pytest.mark.parametrize("backend", BACKENDS)
def test_rows_without_time_or_volatility_are_the_intrinsic_value(backend: Backend) -> None:
    for years, vol in ((0.0, 0.5), (0.5, 0.0), (0.0, 0.0)):
        found = greeks([100.0] * 3, [90.0, 100.0, 110.0], years, vol, [True, False, False], rate=0.03, backend=backend)
        for i, (strike, is_call) in enumerate(((90.0, True), (100.0, False), (110.0, False))):
            exact = black.greeks(100.0, strike, years, vol, is_call=is_call, rate=0.03)
            for name in GreekColumns._fields:
                assert getattr(found, name)[i] == pytest.approx(getattr(exact, name), abs=1e-12)


@pytest.mark.parametrize("backend", BACKENDS)
def test_a_row_that_is_no_option_is_nan_and_spoils_no_other(backend: Backend) -> None:
    found = greeks([100.0, -1.0, math.nan, 100.0], 100.0, [1.0, 1.0, 1.0, -1.0], 0.5, True, backend=backend)
    for column in found:
        assert np.isnan(column[1:]).all()
        assert np.isfinite(column[0])


def test_columns_that_do_not_fit_are_refused() -> None:
    with pytest.raises(BadInput, match="do not fit together"):
        greeks([1.0, 2.0], [1.0, 2.0, 3.0], 1.0, 0.5, True)
    with pytest.raises(BadInput, match="one dimension"):
        greeks(np.ones((2, 2)), 1.0, 1.0, 0.5, True)
