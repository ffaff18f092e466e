"""What every metric is made of: the view of one portfolio among its facts, the observation, and the metric's own description."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from decimal import ROUND_CEILING, ROUND_FLOOR, Context, Decimal, localcontext
from typing import Any, Literal, Protocol

from policies.margin import EXACT
from policies.policy import Parameters, Scope
from policies.portfolio import UNIT_OF_ACCOUNT, Facts, Portfolio

Contribution = tuple[str, Decimal]
PLAIN = Parameters()
_SIGNIFICANT = 12
_CEILING = Context(prec=_SIGNIFICANT, rounding=ROUND_CEILING)
_FLOOR = Context(prec=_SIGNIFICANT, rounding=ROUND_FLOOR)


def adverse(value: float, *, up: bool) -> Decimal:
    """A model output as it is compared: 12 significant digits, rounded up (towards +infinity) or down.

    The only place where floats become amounts. The caller rounds towards more risk, so a limit never passes by the model's rounding;
    doubles carry 15.9 digits, so backends that differ in the last bits give the same bytes. Not finite stays not finite.
    """
    if value != value or value in (float("inf"), float("-inf")):
        return Decimal(value)
    return (_CEILING if up else _FLOOR).create_decimal_from_float(value)


@dataclass(frozen=True, slots=True)
class Observation:
    """A metric's value, None when it cannot be computed and `why` says so; `contributions` add up to it where it is a sum."""

    value: Decimal | None
    contributions: tuple[Contribution, ...] = ()
    why: str = ""
    models: tuple[tuple[str, str, str], ...] = ()
    """Name, version and backend of the risk models that gave the value."""
    error: Decimal = Decimal(0)
    """By how much a model's value may have been moved towards more risk, at most."""
    basis: object = None
    """What the model looked at: where it is the same before and after an operation, its error cancels in the change."""


class Labelled(Protocol):
    """Something that is held, with a name of its own."""

    @property
    def label(self) -> str: ...


@dataclass(frozen=True, slots=True, eq=False)
class View:
    """One portfolio among its facts: as it was before the operation, or as it would be after (`is_after`).

    `workings` keeps what several metrics need (Greeks, scenario values); it is shared by both views of one decision, so what does not
    change between them is computed once. It holds results only: computing again gives the same.
    """

    facts: Facts
    portfolio: Portfolio
    is_after: bool = True
    workings: dict[Any, Any] = field(default_factory=dict)
    prices: dict[str, Decimal] = field(default_factory=dict)
    """Index price by asset, of the first source; 1 for the unit of account. Filled by `view_of`."""
    labels: dict[int, str] = field(default_factory=dict)
    """Labels of what is held, by identity."""

    def price(self, asset: str) -> Decimal:
        """Index price of `asset`. Raises NotKnown."""
        found = self.prices.get(asset)
        if found is None:
            raise NotKnown(f"there is no price of {asset}")
        return found

    def label(self, held: Labelled) -> str:
        """`held.label`, remembered; `held` is of this portfolio."""
        found = self.labels.get(id(held))
        if found is None:
            found = self.labels[id(held)] = held.label
        return found

    def once(self, key: object, compute: Callable[[], Any]) -> Any:
        """`compute()`, remembered for this portfolio under `key`."""
        place = (id(self.portfolio), key)
        if place not in self.workings:
            self.workings[place] = compute()
        return self.workings[place]


class NotKnown(Exception):
    """A metric has no value; the text says why. Never leaves `Metric.observe`."""


def view_of(
    facts: Facts, portfolio: Portfolio, *, is_after: bool = True, workings: dict[Any, Any] | None = None
) -> View:
    """A view with its price table."""
    prices = {p.asset: p.value for p in reversed(facts.prices)} | {UNIT_OF_ACCOUNT: Decimal(1)}
    return View(facts, portfolio, is_after, {} if workings is None else workings, prices)


def views_of(facts: Facts, workings: dict[Any, Any]) -> tuple[View, View]:
    """The portfolio before and after the operation, with all that does not change between the two in common."""
    before = view_of(facts, facts.before, is_after=False, workings=workings)
    return before, View(facts, facts.after, True, workings, before.prices, before.labels)


QUIET_BEFORE = "quiet before"
"""Noted among the workings when nobody looks at the parts of a metric before the operation."""


def shows_parts(view: View) -> bool:
    """Whether somebody may look at the parts of an observation on this view."""
    return view.is_after or QUIET_BEFORE not in view.workings


Measure = Callable[[View, Scope, Parameters], Observation]


@dataclass(frozen=True, slots=True)
class Metric:
    """One metric. `of_operation`: it measures the operation, not a portfolio, and has no value before.

    `parameters` are keys of a limit that it understands, beside its scope; `scopes` the kinds of scope that make sense, `needs_scope`
    when one of them other than the whole must be named.
    """

    name: str
    unit: str
    worse: Literal["higher", "lower"]
    definition: str
    inputs: str
    measure: Measure
    of_operation: bool = False
    parameters: tuple[str, ...] = ()
    scopes: tuple[str, ...] = ("portfolio", "asset", "venue")
    may_be_negative: bool = False
    needs: tuple[str, ...] = ()
    """Parameters without which it has no meaning."""

    def observe(self, view: View, scope: Scope, parameters: Parameters = PLAIN) -> Observation:
        """The value on one view; any failure to compute it is "not evaluable", never a pass."""
        try:
            found = self.measure(view, scope, parameters)
        except NotKnown as unknown:
            return Observation(None, why=str(unknown))
        except (ArithmeticError, ValueError, TypeError) as error:  # TypeError: a signaling NaN cannot be hashed
            return Observation(None, why=f"it cannot be computed: {type(error).__name__}")
        if found.value is not None and not found.value.is_finite():
            return Observation(None, found.contributions, f"it is {found.value}")
        return found

    def compute(
        self, facts: Facts, portfolio: Portfolio, scope: Scope, parameters: Parameters = PLAIN, *, is_after: bool = True
    ) -> Observation:
        """`observe` on a portfolio among its facts."""
        return self.observe(view_of(facts, portfolio, is_after=is_after), scope, parameters)


def same(one: object, other: object) -> bool:
    """Whether two facts are equal; False where that cannot be said (a signaling NaN compares with nothing)."""
    try:
        return one == other
    except ArithmeticError:
        return False


def inside(scope: Scope, asset: str, venue: str) -> bool:
    """Whether something of `asset` at `venue` is inside the scope."""
    if scope.kind == "asset":
        return scope.name == asset
    return scope.kind != "venue" or scope.name == venue


def at_venue(scope: Scope, venue: str) -> bool:
    """Whether something that belongs to a whole venue account is inside the scope; an asset does not cut such an account."""
    return scope.kind != "venue" or scope.name == venue


def total(rows: Iterable[Contribution]) -> Decimal:
    """The exact sum of contributions."""
    with localcontext(EXACT):
        return sum((value for _, value in rows), Decimal(0))


def summed(rows: Sequence[Contribution], *, absolute: bool = False) -> Observation:
    """An observation that is the sum of its rows, or its absolute value."""
    value = total(rows)
    return Observation(abs(value) if absolute else value, tuple(rows))
