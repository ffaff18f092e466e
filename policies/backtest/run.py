"""A policy over history: the held book from bar to bar, the orders at their times, the guards when they are due.

    result = backtest(policy, book, market)
    result.limit("leverage").first, result.refused, result.of_kind("stop", "liquidation")

Moments: an order is judged at the open of the first bar at or after its time, and fills there if it is allowed; guards and venues act on
the extremes of each bar; limits are judged at every close. What the engine would do with hysteresis it does here too: a latched limit stays
latched from close to close.
"""

from __future__ import annotations

from bisect import bisect_right
from dataclasses import dataclass, replace
from decimal import Decimal, localcontext

import numpy as np

from contracts.errors import BadInput
from policies.backtest import guards
from policies.backtest.book import Book, Order
from policies.backtest.columns import UNSURE, Block, Column, Compiled, Flags, States, states
from policies.backtest.judge import Judge, State, filled, observed, order_facts, place, state_of
from policies.backtest.market import Floats, Market, iso
from policies.backtest.measures import compile_limit
from policies.backtest.past import MarketPast
from policies.backtest.record import EquityRecord
from policies.backtest.report import Episode, Equity, Event, EventKind, LimitReport, OrderReport, Result, Track
from policies.backtest.tails import Tails
from policies.backtest.valuation import Held, mark, price_of
from policies.decision import LimitRow
from policies.margin import EXACT
from policies.metrics import METRICS, stress_of
from policies.policy import Limit, Policy, Scope
from policies.portfolio import UNIT_OF_ACCOUNT, Debt, Holding, Option, Portfolio, Position

BLOCK = 32_768
_EQUITY = Limit("equity", "equity", Scope(), False, Decimal(0))
ASSUMPTIONS = (
    "limits are judged at every close; marks equal the bars' prices, and nothing else moves them",
    "inside a bar: open, then the extreme against each position (low before close for a long), then close",
    "a stop is booked at the worst fill it accepts; a bar that reaches a trigger and the liquidation liquidates",
    "a liquidation closes the whole account at the extreme, less the penalty; a loan below health factor 1 is reported, not unwound",
    "funding and interest stand still; options keep their volatility (Black 1976 on the index)",
)


@dataclass(frozen=True, slots=True)
class _Segment:
    """Rows `start` .. `end` (exclusive) whose closes saw the same book."""

    start: int
    end: int
    held: Held


def backtest(policy: Policy, book: Book, market: Market, *, by_columns: bool = True) -> Result:
    """Run `policy` over `market` with `book`. `by_columns=False` asks the engine about every moment: the same result, slowly.

    Deterministic. Raises BadInput for an asset of the book without bars, an order that cannot be judged, or a stop of the policy whose
    names nothing binds.
    """
    return _Run(policy, book, market, by_columns).result()


class _Run:
    def __init__(self, policy: Policy, book: Book, market: Market, by_columns: bool) -> None:
        self.policy, self.book, self.market, self.by_columns = policy, book, market, by_columns
        self.judge = Judge.of(policy)
        _priced(book, market)
        first, now_s = market.prices(0, market.open), int(market.times_s[0])
        self.held = Held.of(book, first, now_s)
        self.limits = self.judge.limits(self.judge.facts(self.held.at(first, now_s), first, now_s))
        rows, count = market.rows, len(self.limits)
        self.states: States = np.full((rows, count), UNSURE, dtype=np.int8)
        self.latched_rows: Flags = np.zeros((rows, count), dtype=bool)
        self.values: Floats = np.full((rows, count), np.nan)
        self.record = EquityRecord(self.judge, market)
        self.past = MarketPast(self.limits, market)
        self.columnar = [False] * count
        self.latched = [False] * count
        self.asked = 0
        self.record.begin(self.held)
        self.stops = guards.arm(self.judge, self.held.portfolio, 0, now_s)
        self.segments: list[_Segment] = []
        self.events: list[Event] = []
        self.orders: list[OrderReport] = []

    # -- the walk ---------------------------------------------------------------------------------------------------------------

    def result(self) -> Result:
        market, pending = self.market, sorted(self.book.orders, key=lambda order: order.at_s)
        if pending and pending[0].at_s < int(market.times_s[0]):
            raise BadInput(
                f"line {pending[0].line} of the book: the order of {iso(pending[0].at_s)} comes before the first bar "
                f"({iso(int(market.times_s[0]))})"
            )
        row = 0
        judged = 0  # closes before this row are judged
        while row < market.rows:
            while pending and pending[0].at_s <= int(market.times_s[row]):
                self.order(pending.pop(0), row)
            until = market.rows
            if pending:
                until = max(row + 1, int(np.searchsorted(market.times_s, pending[0].at_s)))
            until = min(until, self.expiry_row(row))
            hit = guards.next_event(self.held, self.stops, market, row, until)
            self.closes(judged, hit)
            judged = hit
            if hit == until:
                row = until
                if row < market.rows:
                    self.expire(row)
                continue
            self.guard(hit)
            self.closes(hit, hit + 1)
            judged = row = hit + 1
        if pending:
            raise BadInput(f"line {pending[0].line} of the book: {iso(pending[0].at_s)} is after the last bar")
        return self.report()

    def event(self, at_s: int, kind: EventKind, what: str, text: str, **figures: Decimal) -> None:
        self.events.append(Event(at_s, kind, what, text, figures))

    def order(self, order: Order, row: int) -> None:
        """Judge one order at a bar's open, and fill it if the engine allows."""
        now_s = int(self.market.times_s[row])
        prices = self.market.prices(row, self.market.open)
        latched = frozenset(limit.id for limit, on in zip(self.limits, self.latched, strict=True) if on)
        history = self.record.history(row, now_s)
        placed = place(self.judge, order, self.held, prices, self.book.trading)
        returns, missing = self.past.at(row, self.held.portfolio, placed.held.portfolio)
        quiet = self.judge.facts(
            self.held.at(prices, now_s),
            prices,
            now_s,
            latched=latched,
            history=history,
            returns=returns,
            missing=missing,
        )
        facts = order_facts(self.judge, quiet, placed, placed.held.at(prices, now_s))
        decision = self.judge.judge(facts)
        self.orders.append(OrderReport(now_s, order.title, order.line, decision, placed.reverts))
        kind: EventKind = (
            "allowed" if decision.allowed else "signers" if decision.outcome == "require_signers" else "refused"
        )
        self.event(
            now_s, kind, order.title, f"{order.title}: {decision.outcome}", size=order.size, price=prices[order.asset]
        )
        if not decision.allowed:
            return
        self.record.traded(now_s, placed.fill, self.held.portfolio, placed.held.portfolio)
        grown = _grown(self.held.portfolio, placed.held.portfolio, order.venue, order.asset)
        self.held = placed.held
        if grown:
            mine = [s for s in guards.arm(self.judge, self.held.portfolio, row, now_s)
                    if (s.rule.venue, s.rule.asset) == (order.venue, order.asset)]  # fmt: skip
            self.stops = [s for s in self.stops if (s.rule.venue, s.rule.asset) != (order.venue, order.asset)] + mine

    def guard(self, row: int) -> None:
        """What venues and stops do at a bar's extremes."""
        market, portfolio = self.market, self.held.portfolio
        now_s = int(market.times_s[row])
        venues = guards.liquidated(portfolio, market, row)
        crossed = guards.due(portfolio, self.stops, market, row)
        for venue in venues:
            self.liquidate(venue, row, any(stop.rule.venue == venue for stop in crossed))
        for stop in guards.due(self.held.portfolio, self.stops, market, row):
            if stop not in self.stops:  # another of its group was first
                continue
            done = guards.execute(stop, self.held.portfolio, market, row, self.book.trading.fee)
            self.held = replace(self.held, portfolio=filled(self.held.portfolio, done.fill))
            rest = "" if not done.left else f", {done.left.normalize():f} left"
            group = stop.rule.group
            self.stops = [other for other in self.stops if other is stop or not group or other.rule.group != group]
            if not done.left:
                self.stops = [other for other in self.stops if other is not stop]
            self.event(
                now_s,
                "stop",
                f"stop {stop.rule.id}",
                f"stop {stop.rule.id} of {stop.rule.asset}: trigger {done.trigger:,.2f} reached, {done.size.normalize():f} closed between "
                f"{done.best:,.2f} and {done.booked:,.2f} (booked: the bound){rest}",
                trigger=done.trigger,
                best=done.best,
                booked=done.booked,
                slippage=done.slippage,
                size=done.size,
            )

    def liquidate(self, venue: str, row: int, crossed: bool) -> None:
        """Close one account at the bar's adverse extremes, less the penalty."""
        portfolio = self.held.portfolio
        mine = guards.at_extremes(portfolio, venue, self.market, row)
        with localcontext(EXACT):
            profit = sum((p.notional - p.entry_notional - p.pending_funding for p in mine), Decimal(0))
            lost = self.held.penalties[venue] * sum((abs(p.notional) for p in mine), Decimal(0))
        margins = []
        left = Decimal(0)
        for margin in portfolio.margins:
            if margin.venue == venue:
                with localcontext(EXACT):
                    left = margin.collateral + profit - lost
                margins.append(replace(margin, collateral=max(left, Decimal(0))))
            else:
                margins.append(margin)
        kept = tuple(p for p in portfolio.positions if p.venue != venue)
        self.held = replace(self.held, portfolio=replace(portfolio, positions=kept, margins=tuple(margins)))
        self.stops = [stop for stop in self.stops if stop.rule.venue != venue]
        marks = ", ".join(f"{p.asset} {p.mark_price:,.2f}" for p in mine)
        debt = f", {-left:,.2f} of bad debt" if left < 0 else ""
        race = "; the same bar reached the stop, and the worse is assumed" if crossed else ""
        self.event(
            int(self.market.times_s[row]),
            "liquidation",
            venue,
            f"{venue} liquidates everything at {marks}: {max(left, Decimal(0)):,.2f} left{debt}{race}",
            left=max(left, Decimal(0)),
            bad_debt=max(-left, Decimal(0)),
        )

    def expiry_row(self, row: int) -> int:
        """The first row after `row` whose bar opens at or after the expiry of something that is held."""
        found = self.market.rows
        for option in self.held.portfolio.options:
            if option.size:
                found = min(found, max(row + 1, int(np.searchsorted(self.market.times_s, option.expiry_s))))
        return found

    def expire(self, row: int) -> None:
        """Settle options that have expired in cash, at the bar's open."""
        now_s, portfolio = int(self.market.times_s[row]), self.held.portfolio
        over = [o for o in portfolio.options if o.size and o.expiry_s <= now_s]
        if not over:
            return
        prices = self.market.prices(row, self.market.open)
        for option in over:
            with localcontext(EXACT):
                paid = option.size * mark(option.is_call, prices[option.asset], option.strike, Decimal(0), 0)
            portfolio = _settled(portfolio, option, paid)
            self.event(now_s, "expiry", option.label, f"{option.label} expires: {paid:+,.2f} USDC settled", paid=paid)
        self.held = replace(self.held, portfolio=portfolio)

    # -- closes -------------------------------------------------------------------------------------------------------------------

    def closes(self, start: int, end: int) -> None:
        """Judge the closes of rows `start` .. `end` (exclusive) with the book as it is now."""
        if start >= end:
            return
        self.segments.append(_Segment(start, end, self.held))
        self.record.hold(start, self.held)
        held = self.held.portfolio
        tails = Tails(self.limits, held, self.past, self.market.step_s)
        compiled = [
            (tails.compiled(limit) or compile_limit(limit, held)) if self.by_columns else None for limit in self.limits
        ]
        worth = compile_limit(_EQUITY, self.held.portfolio) if self.by_columns else None
        for number, column in enumerate(compiled):
            self.columnar[number] |= column is not None
        for low in range(start, end, BLOCK):
            self.block(compiled, worth, low, min(low + BLOCK, end))

    def block(self, compiled: list[Compiled | None], worth: Compiled | None, low: int, high: int) -> None:
        closes, times_s = self.market.close[low:high], self.market.times_s[low:high] + self.market.step_s
        self.record.extend(
            low, high, None if worth is None else worth(Block(self.market.assets, closes, times_s)).approx
        )
        block = Block(self.market.assets, closes, times_s, self.record.columns(high), low)
        loose: States = np.full((high - low, len(compiled)), UNSURE, dtype=np.int8)
        tight = loose.copy()
        for number, (limit, column) in enumerate(zip(self.limits, compiled, strict=True)):
            if column is None:
                continue
            found: Column = column(block)
            self.values[low:high, number] = np.where(np.isfinite(found.approx.error), found.approx.value, np.nan)
            loose[:, number] = states(limit, found)
            tight[:, number] = states(limit, found, latched=True) if limit.hysteresis else loose[:, number]
        unsure = (loose == UNSURE).any(axis=1) | (tight == UNSURE).any(axis=1)
        for at in np.flatnonzero(unsure):
            self.ask(low + int(at), loose[at], tight[at])
        self.settle(low, loose, tight)

    def ask(self, row: int, loose: States, tight: States) -> None:
        """Have the engine judge one close: what the columns could not decide is filled in, and nothing that they did is changed."""
        standing, latched = self.standing(row, self.held)
        for number, limit in enumerate(self.limits):
            seen = standing[number]
            if loose[number] == UNSURE:
                loose[number] = state_of(seen, limit, latched=False)
            if tight[number] == UNSURE:
                tight[number] = state_of(latched[number], limit, latched=True)
            value = observed(seen)
            if value is not None and np.isnan(self.values[row, number]):
                self.values[row, number] = float(value)

    def standing(self, row: int, held: Held) -> tuple[tuple[LimitRow, ...], tuple[LimitRow, ...]]:
        """Every limit at one close as the engine shows it: with nothing latched, and with everything latched."""
        self.asked += 1
        prices, now_s = self.market.prices(row, self.market.close), self.market.end_s(row)
        history = self.record.history(row, now_s)
        returns, missing = self.past.at(row, held.portfolio)
        quiet = self.judge.facts(
            held.at(prices, now_s), prices, now_s, history=history, returns=returns, missing=missing
        )
        first = self.judge.standing(quiet)
        some = frozenset(limit.id for limit in self.limits if limit.hysteresis)
        return first, self.judge.standing(replace(quiet, latched=some)) if some else first

    def settle(self, low: int, loose: States, tight: States) -> None:
        """From both readings to the one in force: latched from the close after a breach until a close inside the tighter bound."""
        rows = len(loose)
        for number, limit in enumerate(self.limits):
            target = slice(low, low + rows)
            hours = self.outside_hours(limit, target)
            if not limit.hysteresis:
                self.states[target, number] = np.where(hours, State.PASS, loose[:, number])
                continue
            sets = loose[:, number] == State.BREACH
            clears = ~sets & ((tight[:, number] == State.PASS) | (tight[:, number] == State.WARN))
            marks = np.where(sets, 1, np.where(clears, 0, -1)).astype(np.int8)
            marks = np.concatenate([[1 if self.latched[number] else 0], marks]).astype(np.int8)
            last = np.maximum.accumulate(np.where(marks >= 0, np.arange(rows + 1), 0))
            on = marks[last] == 1
            self.latched_rows[target, number] = on[:-1]
            held = np.where(on[:-1], tight[:, number], loose[:, number])
            self.states[target, number] = np.where(hours, State.PASS, held)
            self.latched[number] = bool(on[-1])

    def outside_hours(self, limit: Limit, rows: slice) -> Flags:
        """Closes at which the limit does not bind."""
        count = rows.stop - rows.start
        if limit.during is None:
            return np.zeros(count, dtype=bool)
        during = limit.during
        return np.array([not during.at(self.market.end_s(row)) for row in range(rows.start, rows.stop)])

    # -- the report -----------------------------------------------------------------------------------------------------------------

    def report(self) -> Result:
        market, policy = self.market, self.policy
        limits = tuple(self.limit_report(number) for number in range(len(self.limits)))
        self.loans()
        equity = self.equity_report()
        use = np.full_like(self.values, np.nan)
        for number, limit in enumerate(self.limits):
            edge, column = float(limit.bound), self.values[:, number]
            if edge > 0:
                with np.errstate(divide="ignore", invalid="ignore"):
                    use[:, number] = column / edge if limit.is_max else np.where(column > 0, edge / column, np.nan)
        track = Track(
            market.times_s + market.step_s,
            market.assets,
            market.close,
            self.record.closes,
            use,
            tuple(x.id for x in self.limits),
            self.states,
        )
        return Result(
            policy_name=f"{policy.name} {policy.version}",
            policy_id=policy.policy_id,
            assets=market.assets,
            from_s=int(market.times_s[0]),
            to_s=market.end_s(market.rows - 1),
            step_s=market.step_s,
            bars=market.rows,
            gaps=market.gaps,
            limits=limits,
            orders=tuple(self.orders),
            events=tuple(sorted(self.events, key=lambda event: event.at_s)),
            equity=equity,
            judged_by_engine=self.asked,
            assumptions=ASSUMPTIONS,
            track=track,
        )

    def limit_report(self, number: int) -> LimitReport:
        limit, column = self.limits[number], self.states[:, number]
        changes = np.flatnonzero(np.diff(column)) + 1
        starts = np.concatenate([[0], changes])
        ends = np.concatenate([changes, [len(column)]])
        episodes = []
        for start, end in zip(starts.tolist(), ends.tolist(), strict=True):
            state = State(int(column[start]))
            if state is State.PASS:
                continue
            episode = self.episode(number, state, start, end)
            episodes.append(episode)
            if state >= State.BREACH:
                kind: EventKind = "breach" if state is State.BREACH else "unknown"
                what = "beyond its bound" if state is State.BREACH else f"not evaluable ({episode.reason})"
                figures = {} if episode.value is None else {"value": episode.value, "bound": episode.bound}
                self.event(episode.from_s, kind, limit.id, f"{limit.id} {what}", **figures)
        return LimitReport(
            id=limit.id,
            metric=limit.metric,
            scope=str(limit.scope),
            unit=stress_of(limit.shocks).unit if limit.shocks else METRICS[limit.metric].unit,
            action=limit.action.value,
            comparator="max" if limit.is_max else "min",
            bound=limit.bound,
            bars=len(column),
            warned=int((column == State.WARN).sum()),
            breached=int((column == State.BREACH).sum()),
            unknown=int((column == State.UNKNOWN).sum()),
            episodes=tuple(episodes),
            columnar=self.columnar[number],
        )

    def exactly(self, number: int, row: int) -> tuple[Decimal, Decimal | None, str]:
        """One limit at one close as the engine has it, with the book and the latch of then: bound, value, why there is none."""
        self.asked += 1
        held = self.segments[bisect_right(self.segments, row, key=lambda segment: segment.start) - 1].held
        prices, now_s = self.market.prices(row, self.market.close), self.market.end_s(row)
        latched = frozenset((self.limits[number].id,)) if self.latched_rows[row, number] else frozenset[str]()
        wanted = self.record.concerns(self.limits[number])
        history = self.record.history(row, now_s) if wanted else None
        returns, missing = self.past.at(row, held.portfolio) if self.past.concerns(self.limits[number]) else ((), ())
        quiet = self.judge.facts(
            held.at(prices, now_s),
            prices,
            now_s,
            latched=latched,
            history=history,
            returns=returns,
            missing=missing,
        )
        return self.judge.alone(self.limits[number], quiet)

    def episode(self, number: int, state: State, start: int, end: int) -> Episode:
        limit, market = self.limits[number], self.market
        if state is State.WARN:
            return Episode(state, market.end_s(start), market.end_s(end - 1), end - start, limit.bound)
        bound, first, reason = self.exactly(number, start)
        values = self.values[start:end, number]
        at = start
        if state is not State.UNKNOWN and np.isfinite(values).any():
            at = start + _worst(values if limit.is_max else -values)
        return Episode(
            state=state,
            from_s=market.end_s(start),
            to_s=market.end_s(end - 1),
            bars=end - start,
            bound=bound,
            value=first,
            worst=first if at == start else self.exactly(number, at)[1],
            worst_s=market.end_s(at),
            reason=reason,
        )

    def loans(self) -> None:
        """The first bar of every stretch in which a loan was below health factor 1 at the extremes against it."""
        for venue in {loan.venue for s in self.segments for loan in s.held.portfolio.loans}:
            under = np.zeros(self.market.rows, dtype=bool)
            for segment in self.segments:
                rows = slice(segment.start, segment.end)
                under[rows] = self.under_water(segment.held.portfolio, venue, rows)
            for row in np.flatnonzero(under & ~np.concatenate([[False], under[:-1]])):
                text = f"the loan at {venue} can be liquidated: health factor below 1 at the bar's extremes"
                self.event(int(self.market.times_s[row]), "loan", venue, text)

    def under_water(self, portfolio: Portfolio, venue: str, rows: slice) -> Flags:
        """Rows at whose extremes (collateral low, debt high) weighted collateral is below debt; exact where it is close."""
        market = self.market
        low, high = market.low[rows], market.high[rows]
        slack = np.zeros(len(low))
        size = np.zeros(len(low))
        terms = [(c.asset, c.amount * c.liquidation_threshold, low) for c in portfolio.collateral if c.venue == venue]
        terms += [(d.asset, -d.amount, high) for d in portfolio.debts if d.venue == venue]
        for asset, weight, table in terms:
            price = np.ones(len(low)) if asset == UNIT_OF_ACCOUNT else table[:, market.column(asset)]
            slack += float(weight) * price
            size += abs(float(weight)) * price
        under: Flags = slack < 0
        for at in np.flatnonzero(np.abs(slack) <= 1e-11 * size):
            row = rows.start + int(at)
            lows, highs = market.prices(row, market.low), market.prices(row, market.high)
            with localcontext(EXACT):
                exact = sum((w * price_of(a, lows if t is low else highs) for a, w, t in terms), Decimal(0))
            under[at] = exact < 0
        return under

    def equity_report(self) -> Equity:
        equity, times = self.record.closes, self.market.times_s + self.market.step_s
        known = np.flatnonzero(np.isfinite(equity))
        if not len(known):
            raise BadInput("the book's equity cannot be valued: see `seawall policy explain equity` for what it needs")
        values = equity[known]
        high = np.maximum.accumulate(values)
        with np.errstate(divide="ignore", invalid="ignore"):
            drawdown = np.where(high > 0, (high - values) / high, 0.0)
        at = int(np.argmax(drawdown))
        top, bottom = int(np.argmax(values[: at + 1])), int(np.argmin(values))

        def money(value: float) -> Decimal:
            return Decimal(repr(round(float(value), 6)))

        return Equity(
            start=money(values[0]),
            end=money(values[-1]),
            low=money(values[bottom]),
            low_s=int(times[known[bottom]]),
            max_drawdown=money(drawdown[at]),
            drawdown_high=money(values[top]),
            drawdown_high_s=int(times[known[top]]),
            drawdown_low=money(values[at]),
            drawdown_low_s=int(times[known[at]]),
        )


def _worst(values: Floats) -> int:
    """Where a column is highest: the first row that float64 cannot tell from the highest, so that ties have one answer."""
    top = float(np.nanmax(values))
    return int(np.flatnonzero(values >= top - 1e-9 * abs(top) - 1e-12)[0])


def _priced(book: Book, market: Market) -> None:
    """Raise BadInput for an asset that is held and has no bars."""
    assets = {held.asset for held in (*book.holdings, *book.debts)} | {held.asset for held in book.collateral}
    assets |= {held.asset for held in book.positions} | {held.asset for held in book.options}
    assets |= {asset for pool in book.liquidity for asset in (pool.asset0, pool.asset1)}
    for asset in sorted(assets - {UNIT_OF_ACCOUNT}):
        market.column(asset)


def _grown(before: Portfolio, after: Portfolio, venue: str, asset: str) -> bool:
    """Whether a position was opened, enlarged or turned."""

    def size(portfolio: Portfolio) -> Decimal:
        held: Position | None = next((p for p in portfolio.positions if (p.venue, p.asset) == (venue, asset)), None)
        return held.size if held else Decimal(0)

    was, now = size(before), size(after)
    return abs(now) > abs(was) or was * now < 0


def _settled(portfolio: Portfolio, option: Option, paid: Decimal) -> Portfolio:
    """The portfolio without an expired option, its payment in (or out of) the account's own unit of account; a shortfall is a debt."""
    options = tuple(o for o in portfolio.options if o is not option)
    mine = sum((h.amount for h in portfolio.holdings if (h.venue, h.asset) == ("account", UNIT_OF_ACCOUNT)), Decimal(0))
    others = tuple(h for h in portfolio.holdings if (h.venue, h.asset) != ("account", UNIT_OF_ACCOUNT))
    with localcontext(EXACT):
        left = mine + paid
    debts = portfolio.debts if left >= 0 else (*portfolio.debts, Debt(option.venue, UNIT_OF_ACCOUNT, -left))
    holdings = (*others, Holding("account", UNIT_OF_ACCOUNT, max(left, Decimal(0))))
    return replace(portfolio, options=options, holdings=holdings, debts=debts)
