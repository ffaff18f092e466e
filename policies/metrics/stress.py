"""What a scenario leaves: margin at the venues, and the loss of the whole book."""

from __future__ import annotations

from collections.abc import Mapping
from decimal import Decimal, localcontext
from typing import Any

from contracts.errors import BadInput
from policies.margin import EXACT
from policies.metrics.base import Contribution, Metric, NotKnown, Observation, View
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
        try:
            return book_of(view.portfolio, view.prices, view.facts.block_time_s)
        except BadInput as error:
            raise NotKnown(error.message) from None

    return view.once("book", made)


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
"""Where the scenarios that limits ask for are noted among the workings, so that all of them are priced in one pass."""
PARTS_BEFORE = "parts before"
"""Noted when somebody looks at the parts of a loss before the operation too."""


def stress_loss(view: View, _: Scope, parameters: Parameters) -> Observation:
    if parameters.scenario is None:
        raise NotKnown("no scenario is named")
    asked: tuple[Scenario, ...] = view.workings.get(SCENARIOS, ())
    scenarios = asked if parameters.scenario in asked else (parameters.scenario,)
    number = scenarios.index(parameters.scenario)
    try:
        worth, unit = view.once(("stress", scenarios), lambda: _revalued(view, scenarios))
        rows: tuple[Contribution, ...] = ()
        if view.is_after or PARTS_BEFORE in view.workings:
            rows = view.once(("stress parts", scenarios), lambda: _parts(worth, unit))[number]
        lost = -int(worth.floored(unit)[number])
    except BadInput as error:
        raise NotKnown(error.message) from None
    with localcontext(EXACT):
        return Observation(max(lost * unit, Decimal(0)), rows, models=(worth.model,), error=unit, basis=view.portfolio)


def _revalued(view: View, scenarios: tuple[Scenario, ...]) -> tuple[Any, Decimal]:
    """The book in these scenarios, and the unit in which its losses are told. Raises NotKnown and BadInput."""
    from policies.risk.scenarios import revalue, unit_for
    from policies.risk.scenarios_sets import Listed

    book = book_of_view(view)
    return revalue(book, Listed([happening(one) for one in scenarios])), unit_for(book)


def _parts(worth: Any, unit: Decimal) -> list[tuple[Contribution, ...]]:
    """What every position loses in every scenario, each to the nearest unit. Raises BadInput."""
    from policies.risk.scenarios import by_position
    from policies.risk.scenarios_exact import ExactBook, nearest_units

    pnl, errors = by_position(worth.book, worth.scenarios)
    exact, count = ExactBook(worth.book), len(worth.scenarios)

    def exactly(place: int) -> Decimal:
        position, scenario = divmod(place, count)
        return exact.pnl(worth.scenarios.scenario(scenario), position)

    units = nearest_units(pnl.ravel(), errors.ravel(), unit, exactly).reshape(pnl.shape)
    labels, columns = worth.book.labels, [[int(lost) for lost in column] for column in units.T]
    with localcontext(EXACT):
        return [tuple((label, -unit * lost) for label, lost in zip(labels, column, strict=True)) for column in columns]


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
