"""The largest passing size: it passes, and one step more does not."""

from __future__ import annotations

from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from contracts.errors import BadInput
from policies import evaluate, largest_passing, load
from policies.decision import Decision
from policies.search import sizes_to_try
from tests.policies.rig import NOW_S, example, fill, opening, portfolio

FUND = load(example("conservative_fund"))


def at(size: Decimal) -> Decision:
    return evaluate(FUND, opening(FUND, after=portfolio(str(size)), fills=(fill(str(size)),)), NOW_S)


def test_the_largest_size_passes_and_one_tick_more_fails() -> None:
    """Equity without idle USDC is 10,500: 3.1 x 10,500 / 200 = 162.75 ETH; the stress scenario binds first."""
    step = Decimal("0.01")
    size = largest_passing(at, Decimal(0), Decimal(400), step)
    assert size is not None
    assert at(size).allowed
    assert not at(size + step).allowed
    assert size <= Decimal("162.75")


def test_nothing_passes_everything_passes_and_an_empty_search_is_refused() -> None:
    def never(_: Decimal) -> Decision:
        return at(Decimal(400))

    assert largest_passing(never, Decimal(0), Decimal(10), Decimal(1)) is None
    assert largest_passing(at, Decimal(1), Decimal(10), Decimal(2)) == 9
    with pytest.raises(BadInput, match="nothing to search"):
        largest_passing(at, Decimal(2), Decimal(1), Decimal(1))


@given(st.integers(0, 1_000), st.integers(0, 1_000), st.integers(0, 1_000))
def test_on_verdicts_that_are_not_monotone_the_result_passes_and_the_next_does_not(a: int, b: int, c: int) -> None:
    low, middle, high = sorted((a, b, c))

    def passes(n: Decimal) -> bool:
        return n <= low or middle <= n <= high

    search = sizes_to_try(Decimal(0), Decimal(1_000), Decimal(1))
    asked = 0
    try:
        size = next(search)
        while True:
            asked += 1
            size = search.send(passes(size))
    except StopIteration as done:
        found = done.value
    assert passes(found)
    assert found == 1_000 or not passes(found + 1)
    assert asked <= 20
