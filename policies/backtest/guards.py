"""The guards of a policy inside a back-test: stops armed on what is held, and what the venue does when nobody stopped in time.

Order within a bar: open, then the extreme against the position (low before close for a long, high before close for a short), then
close. Every market of a cross-margined account is taken at its own adverse extreme at once. A stop counts as due when the extreme reaches
its trigger; its best fill is the trigger (or the open, if the bar opens beyond it), its worst is the extreme less the slippage bound in
force, and the back-test books the worst. The mark of a trailing stop follows the closes of the bars before it. Where one bar reaches both a
trigger and the venue's liquidation, the venue is first: within a bar nobody knows, and the worse is assumed.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from decimal import Decimal, localcontext

import numpy as np

from contracts.units import WAD
from policies.backtest.columns import Approx, Block, Linear
from policies.backtest.judge import Judge
from policies.backtest.market import Floats, Market, exact
from policies.backtest.valuation import Held, margin_at
from policies.margin import EXACT
from policies.policy import StopRule
from policies.portfolio import Fill, Portfolio, Position
from policies.stops import stop_config

SCAN = 65_536
"""Rows that are searched at once."""


@dataclass(slots=True)
class ArmedStop:
    """One stop on one position, armed in `row`. `start` (quote per base) is its trigger, or what a trailing stop's mark begins at; `remaining`
    is what is left of the size taken as target, None before the first part. A take-profit is due when the bar's other extreme reaches it, and
    fills at its trigger less the bound in force at the worst."""

    rule: StopRule
    is_long: bool
    start: Decimal
    row: int
    remaining: Decimal | None = None
    due_since_s: int | None = None
    last_s: int | None = None
    seen_row: int = -1

    @property
    def is_below(self) -> bool:
        return self.is_long != self.rule.is_profit

    def trigger(self, market: Market, row: int) -> Decimal:
        """In quote per base, in that bar."""
        if not self.rule.trails:
            return self.start
        mark = self.start
        if row > self.row:
            closes = market.close[self.row : row, market.column(self.rule.asset)]
            best = exact(closes.max() if self.is_below else closes.min())
            mark = max(mark, best) if self.is_below else min(mark, best)
        with localcontext(EXACT):
            distance = self.rule.trail_distance if self.rule.trail is None else mark * self.rule.trail
            assert distance is not None
            return mark - distance if self.is_below else mark + distance

    def levels(self, market: Market, rows: slice) -> Floats | float:
        """The triggers of `rows` in float64: one for all, or of shape (rows,)."""
        if not self.rule.trails:
            return float(self.start)
        column = market.close[:, market.column(self.rule.asset)]
        best = np.maximum if self.is_below else np.minimum
        first = float(self.start)
        if rows.start > self.row:
            closes = column[self.row : rows.start]
            first = float(best(first, closes.max() if self.is_below else closes.min()))
        marks = best.accumulate(np.concatenate(([first], column[rows.start : rows.stop - 1])))
        side = -1 if self.is_below else 1
        if self.rule.trail is not None:
            found: Floats = marks * (1 + side * float(self.rule.trail))
            return found
        return np.asarray(marks + side * float(self.rule.trail_distance or 0))

    def extreme(self, market: Market, row: int) -> Decimal:
        """The end of the bar that is on the trigger's side."""
        table = market.low if self.is_below else market.high
        return exact(table[row, market.column(self.rule.asset)])

    def reached(self, market: Market, row: int) -> bool:
        extreme, trigger = self.extreme(market, row), self.trigger(market, row)
        return extreme <= trigger if self.is_below else extreme >= trigger


@dataclass(frozen=True, slots=True)
class StopFill:
    """One part of a stop. `best` and `booked` are the mean prices of the best and the worst fill that the stop allows."""

    rule: StopRule
    trigger: Decimal
    best: Decimal
    booked: Decimal
    slippage: Decimal
    size: Decimal
    fill: Fill
    left: Decimal


def arm(judge: Judge, held: Portfolio, row: int, time_s: int) -> list[ArmedStop]:
    """The stops that the policy arms in `row` on the positions held, from the mean price at which each was entered. Raises BadInput."""
    found = []
    for rule in judge.policy.stops:
        position = _position(held, rule)
        if position is None:
            continue
        with localcontext(EXACT):
            entry = position.entry_notional / position.size
        is_long = position.size > 0
        config = stop_config(rule, judge.policy, judge.book, entry_price=entry, is_long=is_long, now_s=time_s)
        found.append(ArmedStop(rule, is_long, Decimal(config.trigger_wad) / WAD, row))
    return found


def _position(held: Portfolio, rule: StopRule) -> Position | None:
    return next((p for p in held.positions if (p.venue, p.asset) == (rule.venue, rule.asset) and p.size), None)


def adverse(market: Market, row: int, position: Position) -> Decimal:
    """The extreme of a bar against a position."""
    table = market.low if position.size > 0 else market.high
    return exact(table[row, market.column(position.asset)])


def _extremes(held: Portfolio, venue: str, market: Market, rows: slice) -> Floats:
    """Adverse prices for one venue's account: shape (rows, assets)."""
    table = market.close[rows].copy()
    for position in held.positions:
        if position.venue == venue and position.size:
            column = market.column(position.asset)
            table[:, column] = (market.low if position.size > 0 else market.high)[rows, column]
    return table


def next_event(held: Held, stops: list[ArmedStop], market: Market, start: int, end: int) -> int:
    """The first row of `start` .. `end` (exclusive) whose extremes reach a stop or the venue's liquidation; `end` when none does."""
    portfolio = held.portfolio
    for low in range(start, end, SCAN):
        rows = slice(low, min(low + SCAN, end))
        for row in _candidates(portfolio, stops, market, rows):
            if liquidated(portfolio, market, row) or due(portfolio, stops, market, row):
                return row
    return end


def _candidates(portfolio: Portfolio, stops: list[ArmedStop], market: Market, rows: slice) -> Iterator[int]:
    """Rows that may hold an event, in order: a superset, found in float64 with room for its error."""
    maybe = np.zeros(rows.stop - rows.start, dtype=bool)
    for margin in portfolio.margins:
        mine = [p for p in portfolio.positions if p.venue == margin.venue and p.size]
        if not mine:
            continue
        constants = [margin.collateral, *(-p.entry_notional - p.pending_funding for p in mine)]
        weighted = [(p.asset, p.size - margin.maintenance_ratio * abs(p.size)) for p in mine]
        block = Block(market.assets, _extremes(portfolio, margin.venue, market, rows), market.times_s[rows])
        slack: Approx = Linear.of(constants, weighted).over(block)
        maybe |= slack.value <= slack.error
    for stop in stops:
        if _position(portfolio, stop.rule) is None:
            continue
        column = market.column(stop.rule.asset)
        level = stop.levels(market, rows)
        if stop.is_below:
            maybe |= market.low[rows, column] <= level * (1 + 1e-12)
        else:
            maybe |= market.high[rows, column] >= level * (1 - 1e-12)
    yield from (rows.start + int(row) for row in np.flatnonzero(maybe))


def liquidated(portfolio: Portfolio, market: Market, row: int) -> list[str]:
    """Venues whose account value is below its maintenance requirement at the bar's adverse extremes."""
    found = []
    for margin in portfolio.margins:
        mine = at_extremes(portfolio, margin.venue, market, row)
        account = margin_at(margin, mine)
        if mine and account.account_value < account.maintenance_requirement:
            found.append(margin.venue)
    return found


def at_extremes(portfolio: Portfolio, venue: str, market: Market, row: int) -> tuple[Position, ...]:
    """The venue's positions marked at the bar's adverse extremes."""
    return tuple(
        Position(p.venue, p.asset, p.size, p.entry_notional, adverse(market, row, p), p.pending_funding)
        for p in portfolio.positions
        if p.venue == venue and p.size
    )


def due(portfolio: Portfolio, stops: list[ArmedStop], market: Market, row: int) -> list[ArmedStop]:
    """Stops that act in this bar: trigger reached, position there, cool-down over, not expired."""
    now_s, found = int(market.times_s[row]), []
    for stop in stops:
        position = _position(portfolio, stop.rule)
        if position is None or (position.size > 0) != stop.is_long or stop.seen_row >= row:
            continue
        cooling = stop.last_s is not None and now_s < stop.last_s + stop.rule.cooldown_s
        if stop.reached(market, row) and not cooling:
            found.append(stop)
    return found


def execute(stop: ArmedStop, portfolio: Portfolio, market: Market, row: int, fee_share: Decimal) -> StopFill:
    """One part of a due stop: closes min(target, largest part) at the worst price that the stop accepts."""
    rule, now_s = stop.rule, int(market.times_s[row])
    position = _position(portfolio, rule)
    assert position is not None
    extreme, trigger = stop.extreme(market, row), stop.trigger(market, row)
    opened = exact(market.open[row, market.column(rule.asset)])
    resumed = (
        stop.due_since_s is not None
        and stop.last_s is not None
        and row - stop.seen_row <= 1 + rule.cooldown_s // market.step_s
    )
    if not resumed:
        stop.due_since_s = now_s
    assert stop.due_since_s is not None
    with localcontext(EXACT):
        whole = abs(position.size)
        target = _target(rule, whole) if stop.remaining is None else min(stop.remaining, whole)
        part = target if rule.max_size_per_execution is None else min(target, rule.max_size_per_execution)
        elapsed = now_s - stop.due_since_s
        share = min(Decimal(elapsed) / rule.widen_s, Decimal(1)) if rule.widen_s else Decimal(0)
        slippage = rule.slippage + (rule.max_slippage - rule.slippage) * share
        side = 1 if stop.is_long else -1
        best = min(opened, trigger) if stop.is_below else max(opened, trigger)
        booked = (trigger if rule.is_profit else extreme) * (1 - side * slippage)
        quote = part * booked
        fill = Fill(position.venue, position.asset, -side * part, quote, quote * fee_share)
        left = target - part if target - part > rule.dust else Decimal(0)
    stop.remaining, stop.last_s, stop.seen_row = left, now_s, row
    return StopFill(rule, trigger, best, booked, slippage, part, fill, left)


def _target(rule: StopRule, whole: Decimal) -> Decimal:
    """What an order closes of a position of `whole` base units: all of it where no more than dust would stay."""
    target = whole * rule.size if rule.amount is None else rule.amount
    return whole if target + rule.dust >= whole else target
