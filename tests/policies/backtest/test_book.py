"""Books: everything wrong at once, with its line and column."""

from __future__ import annotations

from decimal import Decimal

import pytest

from contracts.errors import BadInput
from policies.backtest import InvalidBook, read_book
from policies.backtest.strategy import opened
from tests.policies.backtest.rig import market

WHOLE = """
holdings:   [{venue: account, asset: USDC, amount: 500}]
debts:      [{venue: aave, asset: USDC, amount: 9000}]
margins:    [{venue: perp, collateral: 10000, maintenance: 5%, initial: 10%, penalty: 2%}]
positions:  [{venue: perp, asset: ETH, size: -150, entry_price: 181.79}]
options:
  - {venue: lyra, asset: ETH, kind: put, strike: 250, expiry: 2020-03-27T08:00, size: -10, implied_vol: 90%, premium: 5.2}
liquidity:  [{venue: uniswap, id: 7, asset0: ETH, asset1: USDC, lower: 150, upper: 300, liquidity: 1000}]
collateral: [{venue: aave, asset: ETH, amount: 100, liquidation_threshold: 82.5%, loan_to_value: 80%}]
trading:    {slippage: 0.1%, fee: 0.05%}
orders:     [{at: 2020-03-12T10:00, venue: perp, asset: ETH, size: 20, bound: 1%}]
"""


def test_every_part_of_a_book_is_read_with_its_units() -> None:
    book = read_book(WHOLE)
    assert book.positions[0].size == -150
    assert book.positions[0].entry_price == Decimal("181.79")
    assert book.margins[0].maintenance == Decimal("0.05")
    assert book.options[0].is_call is False
    assert book.options[0].expiry_s == 1_585_296_000
    assert book.collateral[0].liquidation_threshold == Decimal("0.825")
    assert book.trading.fee == Decimal("0.0005")
    assert book.orders[0].at_s == 1_584_007_200
    assert book.orders[0].line == 11


def test_json_is_a_book_too() -> None:
    book = read_book('{"margins": [{"venue": "perp", "collateral": "10000"}]}')
    assert book.margins[0].collateral == 10_000


BAD = """\
margins:
  - {venue: perp, collateral: 10k}
  - {venue: other, collateral: 1, maintenance: 6.25}
positions:
  - {venue: perp, asset: ETH}
  - {venue: perp, asset: ETH, sise: 3, size: 1}
option: []
orders:
  - {at: tomorrow, venue: perp, asset: ETH, size: 1}
  - none
"""


def test_everything_wrong_is_said_at_once_with_line_and_column() -> None:
    with pytest.raises(InvalidBook) as caught:
        read_book(BAD, "book.yaml")
    assert [str(problem) for problem in caught.value.problems] == [
        "2:31: error: margins[0].collateral: must be a number such as -12.5, got '10k'",
        "3:48: error: margins[1].maintenance: must be a percentage such as 6.25%, got '6.25' (write it with %)",
        "5:5: error: positions[0].size: 'size' is missing",
        "6:31: error: positions[1].sise: unknown key 'sise' (did you mean size?)",
        "7:1: error: option: unknown section 'option' (did you mean options?)",
        "9:10: error: orders[0].at: must be a time such as 2020-03-12T06:00 (UTC), got 'tomorrow'",
        "10:5: error: orders[1]: must be a mapping of keys (such as {at, venue, asset, size, bound, signer})",
    ]
    assert "book.yaml:2:31" in caught.value.message
    assert "and 4 more" in caught.value.message


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("positions: [{venue: perp, asset: ETH, size: 1}]", "there is no margin account at perp"),
        ("margins: [{venue: p, collateral: 1}, {venue: p, collateral: 2}]", "p has two margin accounts"),
        (
            "margins: [{venue: p, collateral: 1}]\npositions: [{venue: p, asset: A, size: 1}, {venue: p, asset: A, size: 2}]",
            "a second position in A at p",
        ),
        ("margins: [{venue: p, collateral: 1}]\npositions: [{venue: p, asset: A, size: 0}]", "must not be zero"),
        ("margins: [{venue: p, collateral: 1, maintenance: 20%, initial: 10%}]", "its ratios contradict each other"),
        (
            "liquidity: [{venue: u, id: 1, asset0: A, asset1: B, lower: 3, upper: 2, liquidity: 1}]",
            "lower must be positive and below upper",
        ),
        ("holdings: [{venue: account, asset: USDC, amount: -1}]", "must be a number that is not negative"),
        ("holdings: [{venue: account, asset: USDC, amount: NaN}]", "must be a number that is not negative"),
        ("- a list", "a book is a mapping of sections"),
        ("", "a book is a mapping of sections"),
    ],
)
def test_what_contradicts_itself_is_refused(text: str, message: str) -> None:
    with pytest.raises(InvalidBook, match=message):
        read_book(text)


def test_a_strategy_opens_so_many_times_its_collateral_at_the_first_open() -> None:
    book = opened("short:ETH:2.5", "1000", market(ETH=[250.0, 260.0]))
    assert book.positions[0].size == Decimal("-10")
    assert book.positions[0].entry_price == 250


@pytest.mark.parametrize("text", ["long", "long:ETH", "up:ETH:3", "long:ETH:-3", "long:ETH:x", "long::3"])
def test_a_strategy_that_makes_no_sense_is_refused(text: str) -> None:
    with pytest.raises(BadInput, match="--strategy must be such as long:ETH:3"):
        opened(text, "1000", market(ETH=[250.0]))
