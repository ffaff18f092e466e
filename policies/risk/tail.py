"""Value at risk and expected shortfall of a book, from the profits that a set of scenarios leaves.

Losses are positive, profits negative. With n scenarios, confidence a (0.99 = 99 %) and k = n (1 - a), in exact arithmetic:

    VaR = the (floor(k) + 1)-th worst loss                                                (the upper order statistic)
    ES  = (sum of the floor(k) worst losses + (k - floor(k)) x the next) / k              (Acerbi-Tasche)

ES averages the worst share 1 - a of the probability, also when k is no whole number, so it is coherent: subadditive, monotone, positively
homogeneous and translation invariant. ES >= VaR always. With k < 1 both are the worst loss: the sample says nothing about a rarer one,
and more scenarios are needed. n (1 - a) is worked out on the decimal that was written: 10 x (1 - 0.8) is 2, not 1.9999999999999996.

Contributions are Euler's: position i adds its mean loss over the scenarios of the tail, weighted alike, so they sum to ES.
Source: Acerbi and Tasche, On the coherence of expected shortfall, J. Banking & Finance 26 (2002), definition 2.6 and proposition 4.1;
Tasche, Risk contributions and performance measurement (1999).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from decimal import Decimal, localcontext
from fractions import Fraction

import numpy as np
import numpy.typing as npt

from contracts.errors import BadInput
from policies.risk._kernel import Floats
from policies.risk.scenarios import Contribution, Revaluation
from policies.risk.scenarios_book import PRECISE, Number, exact
from policies.risk.scenarios_exact import ExactBook, Integers, nearest_units

_SUM_ERROR = 2.0**-48
"""Relative rounding of a weighted sum of a tail, generously."""


@dataclass(frozen=True, slots=True)
class Tail:
    """Historical VaR and ES, in the unit of the profits; `observations` n; `in_tail` = n (1 - a) exactly."""

    var: float
    es: float
    observations: int
    in_tail: Fraction


@dataclass(frozen=True, slots=True)
class TailComponents:
    """ES by position: `components` (positions,) whose exact sum (math.fsum) is `es`; `var_components`: the losses in the scenario that
    is VaR, whose sum is `var`: noisy, as any VaR attribution to one scenario is."""

    var: float
    es: float
    components: tuple[float, ...]
    var_components: tuple[float, ...]


@dataclass(frozen=True, slots=True)
class DecidedTail:
    """VaR and ES as a Decision compares them: multiples of a unit, rounded towards loss, the same on every backend.

    `contributions` to ES, each rounded to the nearest unit, with a last row `rounding` where needed, so that they add up to `es` exactly.
    """

    var: Decimal
    es: Decimal
    observations: int
    in_tail: Fraction
    contributions: tuple[Contribution, ...]


def level(confidence: Number | str) -> Fraction:
    """The confidence as the exact number that was written, 0 < a < 1. Raises BadInput."""
    try:
        found = Fraction(Decimal(confidence) if isinstance(confidence, str) else exact(confidence))
    except (ArithmeticError, ValueError) as error:
        raise BadInput(f"a confidence of {confidence}: it must be a number between 0 and 1, such as 0.99") from error
    if not 0 < found < 1:
        raise BadInput(f"a confidence of {confidence}: it must lie between 0 and 1, 0.99 means 99 %")
    return found


def historical(pnl: Floats | Sequence[float], confidence: Number | str) -> Tail:
    """VaR and ES of profits, one a scenario, in any order. Raises BadInput for none, or one that is not finite."""
    profits = _profits(pnl)
    a = level(confidence)
    in_tail, whole, part = _split(profits.size, a)
    losses = np.sort(-profits)[::-1]
    es = math.fsum((*losses[:whole], float(part) * losses[whole])) / float(in_tail)
    # Rounding may take a mean of equal losses one bit out of the range that it lies in.
    return Tail(float(losses[whole]), min(max(es, float(losses[whole])), float(losses[0])), profits.size, in_tail)


def historical_components(pnl: Floats, confidence: Number | str) -> TailComponents:
    """VaR and ES of profits of shape (positions, scenarios), with what each position adds. Raises BadInput.

    Here `es` is by definition the exact sum of the components, which may differ from `historical` of the totals in the last bits.
    """
    if np.ndim(pnl) != 2:
        raise BadInput(f"profits have shape {np.shape(pnl)}, (positions, scenarios) is needed")
    matrix = np.asarray(pnl, dtype=np.float64)
    totals = _profits(matrix.sum(axis=0))
    rows, weights = _tail_rows(totals, level(confidence))
    components = tuple(float(x) for x in -(matrix[:, rows] * np.array([float(w) for w in weights])).sum(axis=1))
    at_var = tuple(float(x) for x in -matrix[:, rows[-1]])
    return TailComponents(math.fsum(at_var), math.fsum(components), components, at_var)


def tail_of(found: Revaluation, confidence: Number | str, unit: Decimal, *, with_parts: bool = True) -> DecidedTail:
    """VaR and ES of a revalued book (a `Replay` of history, filtered or not), as a Decision compares them.

    Profits are floored to multiples of `unit` first; from there on everything is exact, and the end result is rounded up. Ties go
    to the earlier scenario. Without `with_parts` no contributions are worked out. Raises BadInput.
    """
    a = level(confidence)
    in_tail, whole, part = _split(found.pnl.size, a)
    units = found.floored(unit, whole + 1)
    rows, weights = _tail_rows(units, a)
    losses = [-int(units[row]) for row in rows]
    es_units = math.ceil((sum(losses[:whole]) + part * losses[whole]) / in_tail)
    with localcontext(PRECISE):
        var, es = losses[whole] * unit, es_units * unit
    parts = _contributions(found, rows, weights, unit, es) if with_parts else ()
    return DecidedTail(var, es, units.size, in_tail, parts)


def _contributions(
    found: Revaluation, rows: Sequence[int], weights: Sequence[Fraction], unit: Decimal, es: Decimal
) -> tuple[Contribution, ...]:
    """What each position adds to ES; only the scenarios of the tail are priced position by position."""
    pnl, errors = found.by_position(rows)
    share = np.array([float(w) for w in weights])
    mean = (pnl * share).sum(axis=1)
    error = (errors * share).sum(axis=1) + (np.abs(pnl) * share).sum(axis=1) * (_SUM_ERROR * max(1, len(rows) / 64))
    truth = ExactBook(found.book)

    def exactly(position: int) -> Decimal:
        terms = (
            truth.pnl(found.scenarios.scenario(row), position) * weight.numerator / weight.denominator
            for row, weight in zip(rows, weights, strict=True)
        )
        return sum(terms, Decimal(0))

    units = nearest_units(mean, error, unit, exactly)
    with localcontext(PRECISE):
        added = [(label, -int(n) * unit) for label, n in zip(found.book.labels, units, strict=True)]
        rest = es - sum((amount for _, amount in added), Decimal(0))
    return (*added, ("rounding", rest)) if rest else tuple(added)


def _profits(pnl: Floats | Sequence[float]) -> Floats:
    profits = np.asarray(pnl, dtype=np.float64)
    if profits.ndim != 1 or not profits.size:
        raise BadInput(f"profits have shape {profits.shape}: at least one scenario is needed, in one dimension")
    if not np.isfinite(profits).all():
        raise BadInput(f"the profit of scenario {int(np.flatnonzero(~np.isfinite(profits))[0])} is not finite")
    return profits


def _split(observations: int, a: Fraction) -> tuple[Fraction, int, Fraction]:
    """n (1 - a), its whole part, which is below n, and the rest."""
    in_tail = observations * (1 - a)
    whole = math.floor(in_tail)
    return in_tail, whole, in_tail - whole


def _tail_rows(profits: Floats | Integers, a: Fraction) -> tuple[list[int], list[Fraction]]:
    """The scenarios of the tail, worst first, the one of VaR last, and their weights in ES (the last may be 0)."""
    in_tail, whole, part = _split(profits.size, a)
    order: npt.NDArray[np.intp] = np.argsort(profits, kind="stable")
    return [int(i) for i in order[: whole + 1]], [1 / in_tail] * whole + [part / in_tail]
