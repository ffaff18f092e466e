"""Amounts: exact, or an error. Nothing rounds in silence."""

from __future__ import annotations

from decimal import Decimal
from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from contracts.errors import BadInput
from contracts.units import from_units, mul_div, to_units

DECIMALS = st.integers(0, 36)


@given(st.integers(-(10**80), 10**80), DECIMALS)
def test_units_round_trip(units: int, decimals: int) -> None:
    assert to_units(from_units(units, decimals), decimals) == units
    assert to_units(f"{from_units(units, decimals):f}", decimals) == units


@given(st.decimals(allow_nan=False, allow_infinity=False), DECIMALS)
def test_the_result_is_exact_or_refused(amount: Decimal, decimals: int) -> None:
    try:
        units = to_units(amount, decimals)
    except BadInput:
        exact = Fraction(amount) * 10**decimals
        assert exact.denominator != 1 or len(str(abs(int(exact)))) > 100 or len(amount.as_tuple().digits) > 100
    else:
        assert units == Fraction(amount) * 10**decimals


@pytest.mark.parametrize(
    ("amount", "decimals", "units"),
    [
        ("1250.50", 6, 1_250_500_000),
        ("0.000000000000000001", 18, 1),
        ("-0.5", 1, -5),
        ("1e3", 0, 1000),
        ("115792089237316195423570985008687907853269984665640564039457.584007913129639935", 18, 2**256 - 1),
        ("0", 18, 0),
    ],
)
def test_amounts_people_write(amount: str, decimals: int, units: int) -> None:
    assert to_units(amount, decimals) == units


@pytest.mark.parametrize(
    "amount", ["", "abc", "1,5", "0x10", "1e", "NaN", "sNaN", "Infinity", "-Infinity", "1e999999999999999999999"]
)
def test_what_is_no_amount_is_named(amount: str) -> None:
    with pytest.raises(BadInput, match="margin"):
        to_units(amount, 18, "margin")


@pytest.mark.parametrize("amount", ["0.0000001", "1.1234567", "1e-7", "1e-200"])
def test_a_digit_the_token_cannot_hold_is_refused(amount: str) -> None:
    with pytest.raises(BadInput, match="more than 6 decimals"):
        to_units(amount, 6)


@pytest.mark.parametrize("amount", ["1" * 121, "1e200", "1e999999", "1." + "1" * 130])
def test_an_amount_that_would_be_rounded_is_refused(amount: str) -> None:
    with pytest.raises(BadInput, match="too many digits"):
        to_units(amount, 0)


@given(st.integers(0, 2**256), st.integers(0, 2**256), st.integers(1, 2**256))
def test_mul_div_rounds_down_or_up_by_less_than_one(a: int, b: int, denominator: int) -> None:
    exact = Fraction(a * b, denominator)
    low, high = mul_div(a, b, denominator), mul_div(a, b, denominator, round_up=True)
    assert low <= exact <= high
    assert high - low == (0 if exact.denominator == 1 else 1)


def test_negative_values_round_towards_minus_and_plus_infinity() -> None:
    assert (mul_div(-7, 1, 2), mul_div(-7, 1, 2, round_up=True)) == (-4, -3)
