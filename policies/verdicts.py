"""The comparison of one limit, compiled: from a value to a verdict.

Every limit is written as "passes if". What is not a finite number passes nothing.
"""

from __future__ import annotations

from collections.abc import Callable
from decimal import Decimal

from policies.decision import Verdict
from policies.limits import Limit
from policies.margin import EXACT, ratio

Judgement = tuple[Verdict, str, str]
"""Verdict, reason, and the quorum that the breach asks (empty: none)."""
Judge = Callable[[Decimal | None, Decimal | None, bool], Judgement]
"""(value, value before, lenient) -> Judgement. Without a value the caller adds why. `lenient`: the operation only gets out."""

_PASS: Judgement = ("pass", "", "")
_NEAR: Judgement = ("warn", "", "")
_LEAVES: Judgement = ("warn", "breached, and the operation only reduces", "")
_REDUCES: Judgement = ("warn", "breached before, and the operation reduces it", "")
_UNCHANGED: Judgement = ("warn", "breached before, and the operation does not change it", "")
_NO_VALUE: Judgement = ("deny", "not evaluable", "")
_NO_VALUE_LEAVING: Judgement = ("warn", "not evaluable, and the operation only reduces", "")


def bound_in_force(limit: Limit, *, latched: bool) -> Decimal:
    """The bound: tighter by the hysteresis while the limit is latched (it was breached when last judged)."""
    if not latched or not limit.hysteresis:
        return limit.bound
    slack = EXACT.multiply(abs(limit.bound), limit.hysteresis)
    return EXACT.subtract(limit.bound, slack) if limit.is_max else EXACT.add(limit.bound, slack)


def passes(limit: Limit, bound: Decimal, value: Decimal) -> bool:
    """Whether a finite value is on the right side of `bound`."""
    return value <= bound if limit.is_max else value >= bound


def utilisation(limit: Limit, bound: Decimal, value: Decimal) -> Decimal | None:
    """Share of the bound in use: value / max, or min / value; of a smallest change the share of the allowed fall.

    None where the bound is no positive number (no negative one, for a smallest change).
    """
    if limit.of_change and not limit.is_max:
        bound, value = -bound, -value
    if bound <= 0 or value < 0:
        return None
    if limit.is_max or limit.of_change:
        return ratio(value, bound, up=True)
    return None if value == 0 else ratio(bound, value, up=True)


def compile_limit(limit: Limit, *, latched: bool = False) -> Judge:
    """The judge of one limit, with everything constant worked out."""
    bound = bound_in_force(limit, latched=latched)
    near = _near(limit, bound)
    breach: Judgement = (limit.action.value, "breached", limit.approval)
    further: tuple[tuple[Decimal, Judgement], ...] = tuple(
        (step.beyond, (step.action.value, f"breached, and beyond {step.beyond:f}", step.approval))
        for step in reversed(limit.escalate)
    )

    def judge_max(value: Decimal | None, before: Decimal | None, lenient: bool) -> Judgement:
        if value is None or not value.is_finite():
            return _NO_VALUE_LEAVING if lenient else _NO_VALUE
        if value <= bound:
            return _NEAR if near is not None and near(value) else _PASS
        if lenient:
            return _LEAVES
        if before is not None and before.is_finite() and before > bound:
            if value < before:
                return _REDUCES
            if value == before:
                return _UNCHANGED
        for beyond, found in further:
            if value > beyond:
                return found
        return breach

    def judge_min(value: Decimal | None, before: Decimal | None, lenient: bool) -> Judgement:
        if value is None or not value.is_finite():
            return _NO_VALUE_LEAVING if lenient else _NO_VALUE
        if value >= bound:
            return _NEAR if near is not None and near(value) else _PASS
        if lenient:
            return _LEAVES
        if before is not None and before.is_finite() and before < bound:
            if value > before:
                return _REDUCES
            if value == before:
                return _UNCHANGED
        for beyond, found in further:
            if value < beyond:
                return found
        return breach

    return judge_max if limit.is_max else judge_min


def _near(limit: Limit, bound: Decimal) -> Callable[[Decimal], bool] | None:
    """Whether a value inside the bound uses at least the share `warn_at` of it. None: the bound has no shares."""
    share = limit.warn_at
    if limit.is_max:
        from_above = max(EXACT.multiply(bound, share), Decimal(0))
        return from_above.__le__ if bound > 0 else None
    if limit.of_change:
        from_below = min(EXACT.multiply(bound, share), Decimal(0))
        return from_below.__ge__ if bound < 0 else None
    multiply = EXACT.multiply
    return (lambda value: multiply(value, share) <= bound) if bound > 0 else None
