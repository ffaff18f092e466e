"""What the account has done and become over time: profit, drawdown, turnover, order rate, gas.

"Now" is the time of the block that the facts were read on. A record that does not reach back over the whole window gives no value.
After the operation its own trades, costs and result are counted as if it had been included on that block.
"""

from __future__ import annotations

from decimal import Decimal, localcontext
from itertools import pairwise

from contracts.units import from_units
from policies.margin import EXACT, ratio
from policies.metrics.base import Contribution, Metric, NotKnown, Observation, View, inside, summed, total
from policies.metrics.exposure import equity_of
from policies.metrics.operation import paid_out, traded
from policies.policy import Parameters, Scope
from policies.portfolio import Activity, EquityPoint, History

DAY_S = 86_400


def _history(view: View) -> History:
    if view.facts.history is None:
        raise NotKnown("the account's history is missing")
    return view.facts.history


def _since(view: View, parameters: Parameters) -> int:
    """Start of the window (unix s). Raises NotKnown when the record does not reach back that far."""
    start = view.facts.block_time_s - (parameters.window_s or DAY_S)
    known = _history(view).since_s
    if known > start:
        raise NotKnown(f"the account's history is known only since {known}, the window begins at {start}")
    return start


def _activity(view: View, parameters: Parameters) -> list[Activity]:
    start = _since(view, parameters)
    return [a for a in _history(view).activity if a.time_s > start and a.intent_hash != view.facts.intent_hash]


def _label(activity: Activity) -> str:
    return f"0x{activity.intent_hash[:4].hex()} at {activity.time_s}"


def turnover(view: View, _: Scope, parameters: Parameters) -> Observation:
    rows = [(_label(a), a.traded) for a in _activity(view, parameters) if a.traded]
    if view.is_after:
        rows += traded(view.facts, Scope())
    return summed(rows)


def order_rate(view: View, _: Scope, parameters: Parameters) -> Observation:
    rows = [(_label(a), Decimal(1)) for a in _activity(view, parameters)]
    if view.is_after:
        rows.append(("this operation", Decimal(1)))
    return summed(rows)


def gas_spent(view: View, _: Scope, parameters: Parameters) -> Observation:
    rows = [
        (_label(a), from_units(a.gas_wei - a.sponsored_wei, 18))
        for a in _activity(view, parameters)
        if a.gas_wei > a.sponsored_wei
    ]
    if view.is_after and not view.facts.sponsored:
        rows.append(("this operation at most", from_units(view.facts.max_prefund_wei, 18)))
    return summed(rows)


def sponsorship_spent(view: View, _: Scope, parameters: Parameters) -> Observation:
    rows = [(_label(a), from_units(a.sponsored_wei, 18)) for a in _activity(view, parameters) if a.sponsored_wei]
    if view.is_after and view.facts.sponsored:
        rows.append(("this operation at most", from_units(view.facts.max_prefund_wei, 18)))
    return summed(rows)


# -- profit -----------------------------------------------------------------------------------------------------------------------


def unrealised_rows(view: View, scope: Scope) -> list[Contribution]:
    """Profit that closing everything at the marks would realise, by position and option."""
    with localcontext(EXACT):
        rows = [
            (p.label, p.notional - p.entry_notional - p.pending_funding)
            for p in view.portfolio.positions
            if inside(scope, p.asset, p.venue)
        ]
        rows += [
            (o.label, o.notional - o.entry_notional) for o in view.portfolio.options if inside(scope, o.asset, o.venue)
        ]
    return rows


def unrealised_pnl(view: View, scope: Scope, _: Parameters) -> Observation:
    return summed(unrealised_rows(view, scope))


def _own_result(view: View) -> tuple[Decimal, Decimal]:
    """What the operation adds to equity, payments to others aside, and how much of that is unrealised."""
    if not view.is_after:
        return Decimal(0), Decimal(0)
    earlier = View(view.facts, view.facts.before, False, view.workings, view.prices)
    with localcontext(EXACT):
        result = equity_of(view) - equity_of(earlier) + paid_out(view)
        unrealised = total(unrealised_rows(view, Scope())) - total(unrealised_rows(earlier, Scope()))
    return result, unrealised


def realised_pnl(view: View, _: Scope, parameters: Parameters) -> Observation:
    rows = [(_label(a), a.realised) for a in _activity(view, parameters) if a.realised]
    result, unrealised = _own_result(view)
    if view.is_after:
        with localcontext(EXACT):
            rows.append(("this operation", result - unrealised))
    return summed(rows)


def _start(view: View, start_s: int) -> EquityPoint:
    """The last point at or before `start_s`; the first one when the account had nothing then (the record reaches that far)."""
    points = _history(view).equity
    if not points:
        raise NotKnown("no equity was recorded yet")
    earlier = [p for p in points if p.time_s <= start_s]
    return earlier[-1] if earlier else points[0]


def _profit(view: View, parameters: Parameters) -> Decimal:
    """Change of equity since the window began, less what was paid in meanwhile."""
    first, last = _start(view, _since(view, parameters)), _history(view).equity[-1]
    with localcontext(EXACT):
        flows = last.paid_in - first.paid_in
        paid = paid_out(view) if view.is_after else Decimal(0)
        return equity_of(view) - first.equity - flows + paid


def pnl(view: View, _: Scope, parameters: Parameters) -> Observation:
    return Observation(_profit(view, parameters))


def loss(view: View, _: Scope, parameters: Parameters) -> Observation:
    profit = _profit(view, parameters)
    return Observation(Decimal(0) if profit >= 0 else -profit)


def drawdown(view: View, _: Scope, parameters: Parameters) -> Observation:
    """NAV of one unit along the record; every step is rounded so that the drawdown is never understated."""
    history = _history(view)
    points = history.equity
    if parameters.window_s is not None:
        start = _since(view, parameters)
        begin = _start(view, start)
        points = tuple(p for p in points if p.time_s >= begin.time_s)
    if not points:
        raise NotKnown("no equity was recorded yet")
    if points[0].equity <= 0:
        raise NotKnown(f"equity was {points[0].equity:f} at {points[0].time_s}: there is no unit to follow")
    nav, highest, when = Decimal(1), Decimal(1), points[0].time_s
    for last, point in pairwise(points):
        with localcontext(EXACT):
            kept = point.equity - (point.paid_in - last.paid_in)
        if last.equity <= 0:
            raise NotKnown(f"equity was {last.equity:f} at {last.time_s}: there is no unit to follow")
        with localcontext(EXACT):
            nav = ratio(nav * kept, last.equity, up=False)
        if nav >= highest:
            highest, when = nav, point.time_s
    last = points[-1]
    if last.equity <= 0:
        raise NotKnown(f"equity was {last.equity:f} at {last.time_s}: there is no unit to follow")
    with localcontext(EXACT):
        kept = equity_of(view) + (paid_out(view) if view.is_after else Decimal(0))
        nav = ratio(nav * kept, last.equity, up=False)
        fallen = ratio(highest - nav, highest, up=True)
    rows = ((f"high-water mark at {when}", highest), ("now", nav))
    return Observation(max(fallen, Decimal(0)), rows)


_WINDOW = ("window",)
_ALONE = ("portfolio",)
_RECORD = "the account's record (attested and included operations), this operation"
_EQUITY_RECORD = "recorded equity and payments in and out, equity now, plain transfers of this operation"

METRICS = (
    Metric(
        "turnover",
        "USDC",
        "higher",
        "quote traded in the last `window` (24h), this operation's simulated fills included",
        f"{_RECORD}, simulated fills",
        turnover,
        parameters=_WINDOW,
        scopes=_ALONE,
    ),
    Metric(
        "order_rate",
        "count",
        "higher",
        "number of operations in the last `window` (24h), this one included",
        _RECORD,
        order_rate,
        parameters=_WINDOW,
        scopes=_ALONE,
    ),
    Metric(
        "gas_spent",
        "ETH",
        "higher",
        "gas the account itself paid in the last `window` (24h); this operation counts with the most it may cost",
        f"{_RECORD}, gas fields",
        gas_spent,
        parameters=_WINDOW,
        scopes=_ALONE,
    ),
    Metric(
        "sponsorship_spent",
        "ETH",
        "higher",
        "gas that paymasters paid in the last `window` (24h); this operation counts with the most it may cost, if it is sponsored",
        f"{_RECORD}, gas fields",
        sponsorship_spent,
        parameters=_WINDOW,
        scopes=_ALONE,
    ),
    Metric(
        "unrealised_pnl",
        "USDC",
        "lower",
        "sum over perps and options of size x mark price - entry notional - funding owed",
        "positions, options, venue marks",
        unrealised_pnl,
        may_be_negative=True,
    ),
    Metric(
        "realised_pnl",
        "USDC",
        "lower",
        "profit realised in the last `window` (24h): recorded, plus this operation's change of equity that is neither unrealised nor paid "
        "to others (fees and slippage are in it)",
        f"{_RECORD}, equity and unrealised profit before and after",
        realised_pnl,
        parameters=_WINDOW,
        scopes=_ALONE,
        may_be_negative=True,
    ),
    Metric(
        "pnl",
        "USDC",
        "lower",
        "equity now - equity at the beginning of the last `window` (24h) - payments in + payments out since",
        _EQUITY_RECORD,
        pnl,
        parameters=_WINDOW,
        scopes=_ALONE,
        may_be_negative=True,
    ),
    Metric(
        "loss",
        "USDC",
        "higher",
        "what was lost in the last `window` (24h), realised or not: -pnl, 0 for a profit. The window rolls; it is no calendar day",
        _EQUITY_RECORD,
        loss,
        parameters=_WINDOW,
        scopes=_ALONE,
    ),
    Metric(
        "drawdown",
        "%",
        "higher",
        "1 - NAV now / highest NAV on record (of the last `window`, if one is given). NAV of one unit starts at 1 and is multiplied between "
        "two records by (equity - payments in + payments out since) / equity before, so that a payment moves no NAV; a payment counts at "
        "the end of its interval. Rounded towards a larger drawdown",
        _EQUITY_RECORD,
        drawdown,
        parameters=_WINDOW,
        scopes=_ALONE,
    ),
)
