"""What a scenario leaves: margin at the venues, and the loss of the whole book."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from decimal import Decimal, localcontext
from functools import lru_cache
from typing import Any

from contracts.errors import BadInput
from policies.margin import EXACT
from policies.metrics.base import Contribution, Metric, NotKnown, Observation, View, shows_parts
from policies.metrics.margins import by_model, models_of, required
from policies.policy import Parameters, Scenario, Scope
from policies.portfolio import Margin

Shocks = Mapping[str, Decimal]
"""Relative price moves by asset."""


def stress_margin(view: View, shocks: Shocks) -> Observation:
    """Smallest account value less maintenance requirement over venues, after every price has moved by its shock: by a share of the
    notional, or by the venue's own margin model (the least of its parts). Raises NotKnown."""
    portfolio = view.portfolio
    rows: list[Contribution] = []
    with localcontext(EXACT):
        for margin in portfolio.margins:
            if margin.model != "ratio" and margin.maintenance_requirement:
                rows.append((margin.venue, _left_by_model(view, margin, shocks)))
                continue
            value, requirement = margin.account_value, Decimal(0)
            for position in (p for p in portfolio.positions if p.venue == margin.venue):
                move = shocks.get(position.asset, Decimal(0))
                value += position.notional * move
                requirement += margin.maintenance_ratio * abs(position.notional) * (1 + move)
            rows.append((margin.venue, value - requirement))
    least = min((left for _, left in rows), default=Decimal(0))
    return Observation(least, tuple(rows), models=models_of(portfolio.margins))


def _left_by_model(view: View, margin: Margin, shocks: Shocks) -> Decimal:
    account = by_model(view, margin).account
    for asset, move in sorted(shocks.items()):
        account = account.moved(1 + move, {asset})
    left: Decimal = required(view, margin, account).excess
    return left


def stress_of(limit_shocks: tuple[tuple[str, Decimal], ...]) -> Metric:
    """The metric of one stress scenario."""
    shocks = dict(limit_shocks)
    moves = ", ".join(f"{asset} {move:+.0%}" for asset, move in limit_shocks)
    return Metric(
        "stress_margin",
        "USDC",
        "lower",
        f"smallest account value - maintenance requirement over venues after {moves}",
        "positions, venue marks, account values, maintenance ratios",
        lambda view, _scope, _parameters: stress_margin(view, shocks),
        may_be_negative=True,
    )


# -- full revaluation ---------------------------------------------------------------------------------------------------------------


def book_of_view(view: View) -> Any:
    """The portfolio as the scenario engine takes it, at the block's time. Raises NotKnown."""
    from policies.risk.scenarios_book import book_of

    def made() -> Any:
        known = view.workings.setdefault("entries of books", {})
        try:
            return book_of(view.portfolio, view.prices, view.facts.block_time_s, known=known)
        except BadInput as error:
            raise NotKnown(error.message) from None

    return view.once("book", made)


def unit_of_view(view: View) -> Decimal:
    """The unit in which losses of the whole book are told. Raises NotKnown."""
    from policies.risk.scenarios import unit_for

    found: Decimal = view.once("unit", lambda: unit_for(book_of_view(view)))
    return found


def revalued(view: View, key: Any, scenarios: Callable[[], Any]) -> Any:
    """The portfolio in a set of scenarios. `key` tells sets apart; the options that both portfolios hold are priced once. Raises NotKnown and
    BadInput."""
    from policies.risk.scenarios import backend_of, revalue
    from policies.risk.scenarios_shelf import Shelf

    def made() -> Any:
        book, place = book_of_view(view), ("shelf", key)
        shelf = view.workings.get(place)
        if shelf is None:
            happening = scenarios()
            backend = backend_of("auto", len(book.options) * len(happening))
            shelf = view.workings[place] = Shelf(happening, backend)
        return revalue(book, shelf.scenarios, shelf=shelf)

    return view.once(("revalued", key), made)


def happening(scenario: Scenario) -> Any:
    """A policy's scenario as the scenario engine takes it."""
    from policies.risk.scenarios_sets import Scenario as Happening
    from policies.risk.scenarios_sets import Shock

    spots, vols = dict(scenario.shocks), dict(scenario.vols)
    shocks = {
        asset: Shock(spot=spots.get(asset, Decimal(0)), vol_relative=vols.get(asset, Decimal(0)))
        for asset in sorted({*spots, *vols})
    }
    return Happening(scenario.id, shocks, time_s=scenario.time_s)


SCENARIOS = "scenarios"
"""Where the scenarios that limits ask for are noted (`Asked`) among the workings, so that all of them are priced in one pass."""


class Asked:
    """The scenarios that the limits of one decision ask for, each once; an object of its own, as it serves for a key."""

    __slots__ = ("_numbers", "scenarios")

    def __init__(self, scenarios: Iterable[Scenario]) -> None:
        found: dict[Scenario, int] = {}
        self._numbers: dict[int, tuple[Scenario, int]] = {}
        for scenario in scenarios:
            self._numbers[id(scenario)] = scenario, found.setdefault(scenario, len(found))
        self.scenarios = tuple(found)

    def number(self, scenario: Scenario) -> int | None:
        """The place of one of the scenarios that were given; None for any other."""
        found = self._numbers.get(id(scenario))
        return None if found is None else found[1]


_NOTHING = Asked(())


def stress_loss(view: View, _: Scope, parameters: Parameters) -> Observation:
    if parameters.scenario is None:
        raise NotKnown("no scenario is named")
    asked: Asked = view.workings.get(SCENARIOS, _NOTHING)
    number = asked.number(parameters.scenario)
    if number is None:
        asked, number = Asked((parameters.scenario,)), 0
    key = asked if len(asked.scenarios) > 1 else parameters.scenario
    try:
        worth, unit = revalued(view, key, lambda: _listed(asked.scenarios)), unit_of_view(view)
        rows: tuple[Contribution, ...] = ()
        if shows_parts(view):
            rows = view.once(("stress parts", key), lambda: _parts(worth, unit))[number]
        lost = -int(worth.floored(unit)[number])
    except BadInput as error:
        raise NotKnown(error.message) from None
    with localcontext(EXACT):
        return Observation(max(lost * unit, Decimal(0)), rows, models=(worth.model,), error=unit, basis=view.portfolio)


@lru_cache(maxsize=64)
def _listed(scenarios: tuple[Scenario, ...]) -> Any:
    """These scenarios as the scenario engine takes them: those of one policy, which do not change between operations."""
    from policies.risk.scenarios_sets import Listed

    return Listed([happening(one) for one in scenarios])


def _parts(worth: Any, unit: Decimal) -> list[tuple[Contribution, ...]]:
    """What every position loses in every scenario, each to the nearest unit. Raises BadInput."""
    from policies.risk.scenarios_exact import ExactBook, nearest_units

    count = len(worth.scenarios)
    pnl, errors = worth.by_position(range(count))
    exact = ExactBook(worth.book)

    def exactly(place: int) -> Decimal:
        position, scenario = divmod(place, count)
        return exact.pnl(worth.scenarios.scenario(scenario), position)

    units = nearest_units(pnl.ravel(), errors.ravel(), unit, exactly).reshape(pnl.shape)
    labels = worth.book.labels
    with localcontext(EXACT):
        return [tuple(zip(labels, map((-unit).__mul__, column), strict=True)) for column in units.T.tolist()]


METRICS = (
    Metric(
        "stress_loss",
        "USDC",
        "higher",
        "what the whole book loses when the `scenario` of stress: happens: prices, volatilities and time moved as it says, every position "
        "and option priced anew (no Greeks); 0 for a gain. Rounded towards loss, to 0.01 USDC or 1e-9 of the gross value",
        "positions, options, liquidity, holdings, debts, collateral, prices, implied volatilities, time",
        stress_loss,
        parameters=("scenario",),
        scopes=("portfolio",),
        needs=("scenario",),
    ),
)
