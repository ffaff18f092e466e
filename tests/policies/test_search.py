"""The largest passing size: it passes, and one step more does not."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from decimal import Decimal

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from contracts.errors import BadInput
from policies import evaluate, largest_passing, load
from policies.decision import Decision
from policies.search import BUDGET, WHOLE, Found, Reading, search_ticks
from tests.policies.rig import NOW_S, example, fill, opening, portfolio

FUND = load(example("conservative_fund"))
MILLIONTHS = 20_000 * 10**6
"""20,000 USDC in ticks of a millionth."""


def at(size: Decimal) -> Decision:
    return evaluate(FUND, opening(FUND, after=portfolio(str(size)), fills=(fill(str(size)),)), NOW_S)


def find(
    top: int,
    slack: Callable[[int], Decimal | float | None] | Mapping[str, Callable[[int], Decimal | float]],
    budget: int = BUDGET,
) -> tuple[Found, int]:
    """Search one limit, or several by name, by its slack; None: the operation reverts. Returns also how many rounds it took."""
    limits = slack if isinstance(slack, Mapping) else {"limit": slack}

    def reading(n: int) -> dict[str, Reading]:
        values = {key: of(n) for key, of in limits.items()}
        rows = {key: Reading(v is not None and v >= 0, None if v is None else Decimal(v)) for key, v in values.items()}
        return rows | {WHOLE: Reading(all(r.passes for r in rows.values()))}

    search = search_ticks(top, tuple(limits), {top: reading(top)}, budget)
    rounds = 0
    try:
        asked = next(search)
        while True:
            rounds += 1
            assert all(1 <= n < top for n in asked)
            asked = search.send({n: reading(n) for n in asked})
    except StopIteration as done:
        return done.value, rounds


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
    with pytest.raises(BadInput, match="no size"):
        next(search_ticks(0, (), {}))


@given(st.integers(1, MILLIONTHS), st.integers(1, 10**9))
def test_a_linear_limit_is_solved_to_the_tick_in_a_few_rounds(most: int, slope: int) -> None:
    found, rounds = find(MILLIONTHS, lambda n: Decimal((most - n) * slope))
    assert found.largest == {"limit": most, WHOLE: most}
    assert found.exact
    assert rounds <= 6
    assert found.asked <= 30


@given(st.integers(1, MILLIONTHS - 1), st.floats(0.1, 8))
def test_a_curved_limit_is_solved_to_the_tick_within_the_budget(most: int, power: float) -> None:
    """The book function of a pool: the fill gets worse faster than the size grows."""
    found, _ = find(
        MILLIONTHS, lambda n: (most / MILLIONTHS) ** power - (n / MILLIONTHS) ** power if n != most else 0.0
    )
    best = found.largest["limit"]
    assert best is not None
    assert abs(best - most) <= max(most * 1e-9 * (1 + 1 / power), 64), (
        "the doubles of this test are flat within some ticks"
    )
    assert found.exact
    assert found.asked <= 90


@given(st.integers(1, MILLIONTHS - 1))
def test_without_slack_the_search_still_ends_at_the_tick(most: int) -> None:
    found, rounds = find(MILLIONTHS, lambda n: 1 if n <= most else None)
    assert found.largest[WHOLE] == most
    assert found.asked <= 8 + 3 * 17 + 4
    assert rounds <= 20


def test_a_jump_in_the_slack_does_not_stall_it() -> None:
    most = 7_654_321_987
    found, _ = find(MILLIONTHS, lambda n: Decimal(1) if n <= most else Decimal(-(10**18)))
    assert found.largest["limit"] == most
    assert found.asked < BUDGET / 2


def test_a_hedge_that_is_too_small_and_one_that_is_too_large_both_fail() -> None:
    """A short hedge of a long: |net| <= 5 of 100 passes from 95 to 105; the smallest size does not."""
    hedge = 12_345_678_901
    width = 400_000_000
    found, _ = find(MILLIONTHS, lambda n: Decimal(width - abs(hedge - n)))
    assert found.largest["limit"] == hedge + width
    assert found.passing[-1][1] == hedge + width
    assert found.passing[0][0] > 1, "the passing sizes do not begin at the smallest"


@given(st.integers(10**6, MILLIONTHS - 10**8), st.integers(3 * 10**6, 10**9))
def test_a_narrow_stretch_under_a_peak_is_found(middle: int, half_width: int) -> None:
    """Twenty thousand USDC asked for, and only a stretch of a few dollars somewhere passes."""
    found, _ = find(MILLIONTHS, lambda n: Decimal(half_width - abs(middle - n)))
    assert found.largest["limit"] == min(middle + half_width, MILLIONTHS)


def test_of_several_stretches_the_largest_is_taken_and_all_are_shown() -> None:
    def slack(n: int) -> Decimal:
        low = Decimal(3_000_000_001 - n)
        high = Decimal(500_000_000 - abs(n - 15_000_000_000))
        return max(low, high)

    found, _ = find(MILLIONTHS, slack)
    assert found.largest["limit"] == 15_500_000_000
    assert len(found.passing) == 2
    assert found.passing[0][0] == 1


def test_several_limits_are_solved_over_the_same_simulations() -> None:
    ends = {"a": 1_000_000_007, "b": 9_000_000_011, "c": 18_999_999_999}
    found, _ = find(MILLIONTHS, {key: (lambda n, end=end: Decimal(end - n)) for key, end in ends.items()})  # type: ignore[misc]
    assert found.largest == ends | {WHOLE: ends["a"]}
    assert found.asked <= 50


def test_limits_that_pass_apart_and_never_together_leave_nothing() -> None:
    found, _ = find(
        1_000_000,
        {"small": lambda n: Decimal(300_000 - n), "large": lambda n: Decimal(min(n - 600_000, 900_000 - n))},
    )
    assert found.largest == {"small": 300_000, "large": 900_000, WHOLE: None}
    assert found.passing == ()


def test_the_budget_is_kept_and_said_so() -> None:
    found, _ = find(MILLIONTHS, lambda n: 1 if n <= 7_654_321_987 else None, budget=20)
    assert found.asked == 20
    assert not found.exact
    best = found.largest[WHOLE]
    assert best is not None
    assert best <= 7_654_321_987


@settings(max_examples=300)
@given(st.integers(1, 1_000), st.integers(1, 1_000), st.integers(1, 1_000), st.booleans())
def test_whatever_the_verdicts_the_result_passes_and_the_next_does_not(a: int, b: int, c: int, has_slack: bool) -> None:
    low, middle, high = sorted((a, b, c))

    def passes(n: int) -> bool:
        return n <= low or middle <= n <= high

    def slack(n: int) -> Decimal | None:
        if passes(n):
            return Decimal(1)
        return Decimal(-1) if has_slack else None

    found, _ = find(1_001, slack)
    best = found.largest["limit"]
    assert best is not None
    assert passes(best)
    assert not passes(best + 1)


@pytest.mark.parametrize("top", [1, 2, 3, 7, 8, 9])
@pytest.mark.parametrize("most", [0, 1, 2, 5, 8])
def test_small_ranges_are_searched_whole(top: int, most: int) -> None:
    found, _ = find(top, lambda n: Decimal(most - n))
    assert found.largest["limit"] == (min(most, top) or None)
