"""The largest size of an order that a policy lets pass, found by asking; the caller simulates.

Verdicts need not be monotone in size (a hedge first lowers risk, then raises it), so a coarse grid is asked from the top before the
interval above its best point is halved.
"""

from __future__ import annotations

from collections.abc import Callable, Generator
from decimal import ROUND_FLOOR, Decimal, localcontext

from contracts.errors import BadInput
from policies.decision import Decision
from policies.margin import EXACT

GRID = 8
"""Points of the coarse grid. A passing island that lies between two of them is not found."""


def sizes_to_try(lo: Decimal, hi: Decimal, step: Decimal) -> Generator[Decimal, bool, Decimal | None]:
    """Yields sizes `lo` + n x `step` up to `hi`; send whether each passes. Returns the largest found, None when none passes.

    The result passed when asked, and result + `step` did not (or is above `hi`). For callers that must await their simulation.
    Raises BadInput for a step that is not positive or an empty interval.
    """
    if step <= 0 or hi < lo:
        raise BadInput(f"there is nothing to search from {lo} to {hi} in steps of {step}")
    with localcontext(EXACT):
        steps = int(((hi - lo) / step).to_integral_value(ROUND_FLOOR))

    def at(n: int) -> Decimal:
        with localcontext(EXACT):
            return lo + step * n

    grid = sorted({steps * i // GRID for i in range(GRID + 1)}, reverse=True)
    failed = steps + 1
    passed: int | None = None
    for n in grid:
        if (yield at(n)):
            passed = n
            break
        failed = n
    if passed is None:
        return None
    while failed - passed > 1:
        middle = (passed + failed) // 2
        if (yield at(middle)):
            passed = middle
        else:
            failed = middle
    return at(passed)


def largest_passing(
    evaluate_at: Callable[[Decimal], Decision], lo: Decimal, hi: Decimal, step: Decimal
) -> Decimal | None:
    """The largest `lo` + n x `step` up to `hi` that `evaluate_at` allows, as `sizes_to_try` finds it. Raises BadInput."""
    search = sizes_to_try(lo, hi, step)
    try:
        size = next(search)
        while True:
            size = search.send(evaluate_at(size).allowed)
    except StopIteration as done:
        found: Decimal | None = done.value
        return found
