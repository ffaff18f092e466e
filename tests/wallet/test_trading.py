"""Orders: what they bound, and that rounding never gives anything away."""

from __future__ import annotations

from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from contracts import bindings as b
from contracts.errors import BadInput
from contracts.types import keccak
from contracts.units import BPS, WAD
from wallet import trading

MARKET = trading.PerpMarket(*(keccak(name)[:20] for name in (b"house", b"vault", b"base", b"usdc")))
ACCOUNT, TREASURY = keccak(b"account")[:20], keccak(b"treasury")[:20]
amounts = st.integers(1, 10**30)
prices = st.integers(10**12, 10**26)
slippages = st.integers(1, BPS - 1)


def order(side: trading.Side, notional: int, index: int, slippage: int) -> tuple[bool, bool, int, int]:
    """(sells base, exact input, amount, bound) of an opening."""
    (call,) = trading.open_perp(
        MARKET, side=side, notional_wad=notional, index_wad=index, slippage_bps=slippage, deadline_s=9
    )
    assert call.target == MARKET.clearing_house
    (fields,) = trading.OPEN_POSITION.decode_input(call.data)
    assert fields[0] == MARKET.base_token
    assert fields[5] == 9
    return fields[1], fields[2], fields[3], fields[4]


@given(amounts, prices, slippages)
def test_a_long_never_pays_more_than_its_slippage_allows(notional: int, index: int, slippage: int) -> None:
    sells, exact_input, amount, least_base = order("long", notional, index, slippage)
    assert (sells, exact_input, amount) == (False, True, notional)
    assert Fraction(notional, least_base) <= Fraction(index * (BPS + slippage), WAD * BPS)


@given(st.integers(10**15, 10**30), prices, slippages)
def test_a_short_never_sells_for_less_than_its_slippage_allows(notional: int, index: int, slippage: int) -> None:
    sells, exact_input, amount, most_base = order("short", notional, index, slippage)
    assert (sells, exact_input, amount) == (True, False, notional)
    assert Fraction(notional, most_base) >= Fraction(index * (BPS - slippage), WAD * BPS)


@given(st.integers(10**15, 10**30), st.integers(10**16, 10**26), slippages)
def test_the_bound_is_no_more_than_one_unit_stricter_than_asked(notional: int, index: int, slippage: int) -> None:
    *_, least = order("long", notional, index, slippage)
    worst = Fraction(index * (BPS + slippage) // BPS, WAD)
    assert least - 1 < Fraction(notional) / worst <= least


@given(st.integers(10**12, 10**30), st.sampled_from([1, -1]), prices, slippages)
def test_closing_never_gives_away_more_than_its_slippage(amount: int, sign: int, index: int, slippage: int) -> None:
    size = sign * amount
    (call,) = trading.close_perp(MARKET, size_wad=size, index_wad=index, slippage_bps=slippage, deadline_s=9)
    ((base, _, bound, deadline, _),) = trading.CLOSE_POSITION.decode_input(call.data)
    assert (base, deadline) == (MARKET.base_token, 9)
    value = Fraction(abs(size) * index, WAD)
    if size > 0:
        assert bound >= (value - 1) * Fraction(BPS - slippage, BPS)
    else:
        assert bound <= value * Fraction(BPS + slippage, BPS)


@pytest.mark.parametrize(
    ("notional", "index", "slippage"), [(0, WAD, 100), (WAD, 0, 100), (WAD, WAD, 0), (WAD, WAD, BPS)]
)
def test_a_senseless_order_is_refused(notional: int, index: int, slippage: int) -> None:
    with pytest.raises(BadInput):
        order("long", notional, index, slippage)


def test_an_order_too_small_to_bound_is_refused() -> None:
    with pytest.raises(BadInput, match="too small"):
        order("short", 1, 10**26, 100)


def test_closing_nothing_is_refused() -> None:
    with pytest.raises(BadInput, match="no position"):
        trading.close_perp(MARKET, size_wad=0, index_wad=WAD, slippage_bps=100, deadline_s=9)


def test_a_deposit_approves_exactly_what_it_deposits() -> None:
    approve, deposit = trading.deposit(MARKET, 5_000_000)
    assert (approve.target, b.APPROVE.decode_input(approve.data)) == (MARKET.usdc, (MARKET.vault, 5_000_000))
    assert (deposit.target, trading.VAULT_DEPOSIT.decode_input(deposit.data)) == (
        MARKET.vault,
        (MARKET.usdc, 5_000_000),
    )


def test_a_withdrawal_pays_somebody_only_when_it_is_for_somebody() -> None:
    assert len(trading.withdraw(MARKET, 1, ACCOUNT, ACCOUNT)) == 1
    _, pay = trading.withdraw(MARKET, 7, TREASURY, ACCOUNT)
    assert b.TRANSFER.decode_input(pay.data) == (TREASURY, 7)


@pytest.mark.parametrize("amount", [0, -1])
def test_moving_nothing_is_refused(amount: int) -> None:
    with pytest.raises(BadInput):
        trading.deposit(MARKET, amount)
    with pytest.raises(BadInput):
        trading.withdraw(MARKET, amount, TREASURY, ACCOUNT)
