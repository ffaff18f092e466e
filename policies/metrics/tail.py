"""Value at risk and expected shortfall of the whole book, from past returns of what it holds.

Losses are positive. `confidence` (99 %) and `horizon` (1d) as asked; `window` is how much of the past is looked at (all of it). Past
returns of several periods are compounded, overlapping, where the horizon is longer than one. Every position and option is priced anew in
every past scenario; no time passes in it, and implied volatilities stand still.
"""

from __future__ import annotations

from dataclasses import replace
from decimal import Decimal, localcontext
from typing import Any

from contracts.errors import BadInput
from policies.margin import EXACT
from policies.metrics.base import Contribution, Metric, NotKnown, Observation, View, adverse, inside, shows_parts
from policies.metrics.stress import book_of_view, revalued, unit_of_view
from policies.policy import Parameters, Scope
from policies.portfolio import Portfolio, Returns

_QUANTUM = Decimal(1).scaleb(-18)
PARAMETRIC = ("delta_normal", "1", "numpy")


def _series(view: View, parameters: Parameters) -> list[Returns]:
    """Returns over the horizon of every asset that the book holds. Raises NotKnown."""
    found = []
    known = {series.asset: series for series in view.facts.returns}
    for asset in sorted(view.portfolio.assets()):
        series = known.get(asset)
        if series is None:
            gap = next((gap for gap in view.facts.missing if gap.what == f"the past returns of {asset}"), None)
            raise NotKnown(f"there are no past returns of {asset}" + (f": {gap.why}" if gap else ""))
        values = series.values
        if parameters.window_s is not None:
            kept = parameters.window_s // series.period_s
            if kept > len(values):
                raise NotKnown(
                    f"the past returns of {asset} go back {len(values) * series.period_s} s, the window is longer"
                )
            values = values[len(values) - kept :]
        found.append(replace(series, values=values))
    return found


def _compounded(series: Returns, horizon_s: int) -> Returns:
    """Overlapping returns over the horizon: a whole number of periods. Raises NotKnown."""
    periods, rest = divmod(horizon_s, series.period_s)
    if rest or not periods:
        raise NotKnown(
            f"the horizon of {horizon_s} s is no whole number of periods of {series.asset} ({series.period_s} s)"
        )
    if periods == 1:
        return series
    grown = []
    with localcontext(EXACT):
        for end in range(periods, len(series.values) + 1):
            product = Decimal(1)
            for value in series.values[end - periods : end]:
                product *= 1 + value
                product = product.quantize(_QUANTUM)
            grown.append(product - 1)
    return replace(series, values=tuple(grown))


def _revalued(view: View, parameters: Parameters) -> Any:
    """The book in every past scenario. Raises NotKnown."""
    from policies.risk.scenarios_sets import Replay
    from policies.risk.tail_filter import VolatilityFilter, filtered_replay

    assets = tuple(sorted(view.portfolio.assets()))
    key = ("replay", assets, parameters.method, parameters.window_s, parameters.horizon_s)

    def made() -> Any:
        series = [_compounded(one, parameters.horizon_s) for one in _series(view, parameters)]
        return (
            filtered_replay(series, VolatilityFilter.ewma()) if parameters.method == "filtered" else Replay.of(series)
        )

    return revalued(view, key, made)


def _historical(
    view: View, parameters: Parameters, *, with_parts: bool
) -> tuple[Decimal, Decimal, tuple[Contribution, ...], Any]:
    """VaR, ES, contributions to ES where they are asked for, model."""
    from policies.risk.tail import tail_of

    worth = _revalued(view, parameters)
    found = tail_of(worth, parameters.confidence, unit_of_view(view), with_parts=with_parts)
    return found.var, found.es, found.contributions, worth.model


def _parametric(view: View, parameters: Parameters) -> tuple[Decimal, Decimal, tuple[Contribution, ...], Any]:
    """The same under normal returns, by the book's deltas; contributions by asset."""
    import numpy as np

    from policies.risk.tail_parametric import covariance_of, delta_exposures, parametric

    series = _series(view, parameters)
    if len({(one.period_s, one.until_s) for one in series}) != 1:
        raise NotKnown("the past returns do not have one period and one end")
    shortest = min(len(one.values) for one in series)
    returns = np.array([[float(v) for v in one.values[len(one.values) - shortest :]] for one in series]).T
    assets = [one.asset for one in series]
    scale = parameters.horizon_s / series[0].period_s
    found = parametric(
        delta_exposures(book_of_view(view), assets), covariance_of(returns) * scale, parameters.confidence
    )
    parts = tuple((asset, adverse(part, up=True)) for asset, part in zip(assets, found.es_components, strict=True))
    return adverse(found.var, up=True), adverse(found.es, up=True), parts, PARAMETRIC


def _tail(
    view: View, parameters: Parameters, *, with_parts: bool
) -> tuple[Decimal, Decimal, tuple[Contribution, ...], Any]:
    """VaR, ES, contributions to ES and model, by the method asked. Raises NotKnown."""
    if not view.portfolio.assets():
        return Decimal(0), Decimal(0), (), None
    is_parametric = parameters.method == "parametric"
    key = ("tail", parameters.method, parameters.window_s, parameters.horizon_s, parameters.confidence, with_parts)

    def made() -> Any:
        return _parametric(view, parameters) if is_parametric else _historical(view, parameters, with_parts=with_parts)

    try:
        found: tuple[Decimal, Decimal, tuple[Contribution, ...], Any] = view.once(key, made)
    except BadInput as error:
        raise NotKnown(error.message) from None
    return found


def _models(model: Any) -> tuple[tuple[str, str, str], ...]:
    return (model,) if model else ()


def _unit(view: View, model: Any) -> Decimal:
    """What rounding towards loss may have added."""
    return unit_of_view(view) if model else Decimal(0)


def value_at_risk(view: View, _: Scope, parameters: Parameters) -> Observation:
    var, _es, _parts, model = _tail(view, parameters, with_parts=shows_parts(view))
    return Observation(max(var, Decimal(0)), models=_models(model), error=_unit(view, model), basis=view.portfolio)


def expected_shortfall(view: View, _: Scope, parameters: Parameters) -> Observation:
    _var, es, parts, model = _tail(view, parameters, with_parts=shows_parts(view))
    return Observation(
        max(es, Decimal(0)), parts, models=_models(model), error=_unit(view, model), basis=view.portfolio
    )


def _places(portfolio: Portfolio) -> dict[str, tuple[str, str]]:
    """Asset and venue of every row of a contribution; a liquidity position counts with its first asset."""
    found = {f"{h.venue}:{h.asset}": (h.asset, h.venue) for h in portfolio.holdings}
    found |= {f"{c.venue}:{c.asset}": (c.asset, c.venue) for c in portfolio.collateral}
    found |= {f"{d.venue}:{d.asset}": (d.asset, d.venue) for d in portfolio.debts}
    found |= {p.label: (p.asset, p.venue) for p in portfolio.positions}
    found |= {o.label: (o.asset, o.venue) for o in portfolio.options}
    return found | {pool.label: (pool.asset0, pool.venue) for pool in portfolio.liquidity}


def component_shortfall(view: View, scope: Scope, parameters: Parameters) -> Observation:
    _var, _es, parts, model = _tail(view, parameters, with_parts=True)
    if parameters.method == "parametric" and scope.kind != "asset":
        raise NotKnown("the parametric method knows parts by asset only")
    places = _places(view.portfolio)
    rows = [(name, part) for name, part in parts if inside(scope, *places.get(name, (name, "")))]
    with localcontext(EXACT):
        value = sum((part for _, part in rows), Decimal(0))
        return Observation(
            value, tuple(rows), models=_models(model), error=len(rows) * _unit(view, model), basis=view.portfolio
        )


_ASKED = ("confidence", "horizon", "window", "method")
_INPUTS = "past returns of every asset held, positions, options, liquidity, holdings, debts, collateral, prices, implied volatilities"
_METHODS = (
    "`method` historical: every past return of the horizon applied to the book of now; filtered: past returns scaled to the volatility of "
    "now (EWMA 0.94); parametric: normal returns with the sample's covariance, by the book's deltas. `confidence` 99%, `horizon` 1d, "
    "`window` all of the past that is known"
)

METRICS = (
    Metric(
        "value_at_risk",
        "USDC",
        "higher",
        f"the (floor(n (1 - a)) + 1)-th worst loss of n scenarios at confidence a. {_METHODS}",
        _INPUTS,
        value_at_risk,
        parameters=_ASKED,
        scopes=("portfolio",),
    ),
    Metric(
        "expected_shortfall",
        "USDC",
        "higher",
        f"mean of the worst share 1 - a of n scenarios (Acerbi-Tasche). {_METHODS}",
        _INPUTS,
        expected_shortfall,
        parameters=_ASKED,
        scopes=("portfolio",),
    ),
    Metric(
        "component_shortfall",
        "USDC",
        "higher",
        "what the positions of one asset or venue add to expected shortfall (Euler): their mean loss in the scenarios of the tail; a "
        f"liquidity position counts with its first asset; negative when they hedge. {_METHODS}",
        _INPUTS,
        component_shortfall,
        parameters=_ASKED,
        scopes=("asset", "venue"),
        may_be_negative=True,
    ),
)
