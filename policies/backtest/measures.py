"""Metrics as columns: the definitions of `policies.metrics`, over a book that is held while prices move.

Only metrics whose value is a rational function of prices (options by Black, pools by square roots, profit by the equity on record) are here;
any other, and any limit that uses what is not here, has no columns and is left to the engine, moment by moment.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, fields, replace
from decimal import Decimal

import numpy as np
from scipy.special import ndtr

from policies.backtest.columns import EPSILON, ROUNDING, Approx, Block, Column, Compiled, Linear, largest, smallest
from policies.backtest.market import Floats
from policies.backtest.valuation import YEAR_S
from policies.limits import Limit, Parameters, Scenario, Scope
from policies.metrics.history import DAY_S
from policies.metrics.lending import SAFE_HEALTH
from policies.portfolio import UNIT_OF_ACCOUNT, Liquidity, Option, Portfolio

_KNOWN_FIELDS = frozenset(
    (
        "id",
        "metric",
        "scope",
        "is_max",
        "bound",
        "action",
        "warn_at",
        "hysteresis",
        "approval",
        "shocks",
        "during",
        "escalate",
    )
)
"""Parts of a limit that these columns understand. A limit that uses another is judged row by row."""
Weighted = list[tuple[str, Decimal]]
Extra = Callable[[Block], Approx]


@dataclass(frozen=True, slots=True)
class Sum:
    """Something linear in the prices and what is not."""

    linear: Linear
    extras: tuple[Extra, ...] = ()

    def over(self, block: Block) -> Approx:
        found = self.linear.over(block)
        for extra in self.extras:
            found = found + extra(block)
        return found


def compile_limit(limit: Limit, held: Portfolio) -> Compiled | None:
    """The limit's metric as columns for a book that is held; None when it has no columns and the engine judges every row itself."""
    if any(margin.model != "ratio" for margin in held.margins):
        return None
    if limit.of_change:
        return _unchanged(limit, held)
    scenario = limit.parameters.scenario
    windowed = limit.metric in _WITH_WINDOW and limit.parameters == Parameters(window_s=limit.parameters.window_s)
    windowed |= bool(limit.shocks) and scenario == Scenario(scenario.id if scenario else "", limit.shocks)
    for field in fields(limit):
        known = field.name in _KNOWN_FIELDS or (field.name == "parameters" and windowed)
        if not known and getattr(limit, field.name) != field.default:
            return None
    if limit.shocks:
        return _stress(Parts(held), dict(limit.shocks))
    if limit.metric in _WITH_WINDOW:
        return _WITH_WINDOW[limit.metric](Parts(held), limit.parameters.window_s)
    build = _METRICS.get(limit.metric)
    return None if build is None else build(Parts(held), limit.scope)


def _unchanged(limit: Limit, held: Portfolio) -> Compiled | None:
    """A limit on what an operation adds: while a book is held that is nothing, wherever the metric has a value."""
    level = compile_limit(replace(limit, of_change=False), held)
    if level is None:
        return None

    def column(block: Block) -> Column:
        found = level(block)
        everywhere = found.known is None and bool(np.isfinite(found.approx.error).all())
        zeros = np.zeros(block.rows)
        error = np.where(np.isfinite(found.approx.error), 0.0, np.inf)
        return Column(Approx(zeros, error), found.known, Decimal(0) if everywhere else None)

    return column


class Parts:
    """One book, taken apart."""

    def __init__(self, held: Portfolio) -> None:
        self.held = held
        self.venues = [m.venue for m in held.margins]
        self.lenders = [loan.venue for loan in held.loans]
        self.options = [o for o in held.options if o.size]

    def linear(self, scope: Scope) -> Weighted:
        """Notional that is a constant times a price, signed, by asset."""
        found = [(p.asset, p.size) for p in self.held.positions if p.size and _inside(scope, p.asset, p.venue)]
        found += [(o.asset, o.size if o.is_call else -o.size) for o in self.options if _inside(scope, o.asset, o.venue)]
        for sign, amounts in ((1, self.held.collateral), (-1, self.held.debts)):
            found += [
                (one.asset, sign * one.amount)
                for one in amounts
                if one.amount and one.venue in self.lenders and one.asset != UNIT_OF_ACCOUNT
                and _inside(scope, one.asset, one.venue)
            ]  # fmt: skip
        return found

    def pools(self, scope: Scope) -> tuple[Extra, ...]:
        """Notional of liquidity positions, of what is inside the scope."""
        return tuple(
            _pool(
                pool, [a for a in (pool.asset0, pool.asset1) if a != UNIT_OF_ACCOUNT and _inside(scope, a, pool.venue)]
            )
            for pool in self.held.liquidity
        )

    def gross(self, scope: Scope) -> Sum:
        return Sum(Linear.of((), [(asset, abs(weight)) for asset, weight in self.linear(scope)]), self.pools(scope))

    def net(self, scope: Scope) -> Sum:
        return Sum(Linear.of((), self.linear(scope)), self.pools(scope))

    def empty(self, scope: Scope) -> bool:
        """Whether nothing in the scope carries notional, at any price."""
        return not self.linear(scope) and not self.held.liquidity

    def account_value(self, venues: Iterable[str]) -> tuple[list[Decimal], Weighted]:
        """Constants and weights of the account values at these venues."""
        names = set(venues)
        mine = [p for p in self.held.positions if p.venue in names and p.size]
        constants = [m.collateral for m in self.held.margins if m.venue in names]
        constants += [-p.entry_notional for p in mine] + [-p.pending_funding for p in mine]
        return constants, [(p.asset, p.size) for p in mine]

    def value(self, venue: str) -> Sum:
        return Sum(Linear.of(*self.account_value([venue])))

    def equity(self, scope: Scope) -> Sum:
        held = self.held
        constants, weighted = self.account_value(self.of_venue(scope))
        for sign, amounts in ((1, held.holdings), (1, held.collateral), (-1, held.debts)):
            weighted += [(one.asset, sign * one.amount) for one in amounts if one.amount and _at(scope, one.venue)]
        extras = [_option(o) for o in self.options if o.venue not in self.venues and _at(scope, o.venue)]
        extras += [_pool(pool, [pool.asset0, pool.asset1]) for pool in held.liquidity if _at(scope, pool.venue)]
        return Sum(Linear.of(constants, weighted), tuple(extras))

    def of_venue(self, scope: Scope) -> list[str]:
        return [v for v in self.venues if _at(scope, v)]

    def legs(self, venue: str) -> Weighted:
        return [(p.asset, p.size) for p in self.held.positions if p.venue == venue and p.size]

    def notional(self, venue: str) -> Sum:
        return Sum(Linear.of((), [(asset, abs(size)) for asset, size in self.legs(venue)]))

    def required(self, venue: str, *, initial: bool) -> Sum:
        margin = next(m for m in self.held.margins if m.venue == venue)
        share = margin.initial_ratio if initial else margin.maintenance_ratio
        return Sum(Linear.of((), [(asset, share * abs(size)) for asset, size in self.legs(venue)]))

    def backing(self, venue: str, weight: str) -> Weighted:
        """Collateral at a lending venue, each amount times one of its shares (empty: whole)."""
        mine = [c for c in self.held.collateral if c.venue == venue]
        return [(c.asset, c.amount * (getattr(c, weight) if weight else 1)) for c in mine]

    def owed(self, venue: str) -> Weighted:
        return [(d.asset, d.amount) for d in self.held.debts if d.venue == venue]


def _inside(scope: Scope, asset: str, venue: str) -> bool:
    return scope.name == asset if scope.kind == "asset" else _at(scope, venue)


def _at(scope: Scope, venue: str) -> bool:
    return scope.kind != "venue" or scope.name == venue


def _option(option: Option) -> Extra:
    """size x the mark that `valuation.mark` gives, to 12 digits there: the same formula over a column."""
    strike, vol, size = float(option.strike), float(option.implied_vol or 0), float(option.size)
    sign = 1.0 if option.is_call else -1.0

    def column(block: Block) -> Approx:
        forward = block.price(option.asset).value
        deviation = vol * np.sqrt(np.maximum(option.expiry_s - block.times_s, 0) / YEAR_S)
        intrinsic = np.maximum(sign * (forward - strike), 0.0)
        with np.errstate(divide="ignore", invalid="ignore"):
            d1 = np.log(forward / strike) / deviation + deviation / 2
            priced = sign * (forward * ndtr(sign * d1) - strike * ndtr(sign * (d1 - deviation)))
        value = np.where((deviation > 0) & (strike > 0), np.maximum(priced, 0.0), intrinsic)
        return Approx(size * value, abs(size) * EPSILON * (forward + strike))

    return column


def _pool(pool: Liquidity, assets: list[str]) -> Extra:
    """Worth of what a liquidity position holds of `assets`: L (1/sqrt p - 1/sqrt u) and L (sqrt p - sqrt l), p held to the range."""
    low, high, depth = float(pool.lower_price), float(pool.upper_price), float(pool.liquidity)

    def column(block: Block) -> Approx:
        first, second = block.price(pool.asset0).value, block.price(pool.asset1).value
        root = np.sqrt(np.clip(first / second, low, high))
        found = Approx(np.zeros(block.rows), np.zeros(block.rows))
        if pool.asset0 in assets:
            amount = depth * (1 / root - 1 / np.sqrt(high)) + float(pool.owed0)
            scale = 2 * depth / root + abs(float(pool.owed0))
            found = found + Approx(amount * first, (EPSILON * scale + ROUNDING) * first)
        if pool.asset1 in assets:
            amount = depth * (root - np.sqrt(low)) + float(pool.owed1)
            scale = 2 * depth * root + abs(float(pool.owed1))
            found = found + Approx(amount * second, (EPSILON * scale + ROUNDING) * second)
        return found

    return column


def constant(block: Block, value: Decimal) -> Approx:
    """The same value at every moment."""
    return Approx(np.full(block.rows, float(value)), np.full(block.rows, EPSILON * abs(float(value))))


def _fixed(value: Decimal) -> Compiled:
    return lambda block: Column(constant(block, value), exact=value)


def _simple(form: Sum, *, absolute: bool = False) -> Compiled:
    def column(block: Block) -> Column:
        found = form.over(block)
        return Column(found.magnitude() if absolute else found)

    return column


# -- exposure -------------------------------------------------------------------------------------------------------------------------


def _leverage(parts: Parts, scope: Scope) -> Compiled:
    gross, equity = parts.gross(scope), parts.equity(Scope())
    if parts.empty(scope):
        return _fixed(Decimal(0))

    def column(block: Block) -> Column:
        above, below = gross.over(block), equity.over(block)
        # where equity may be zero the quotient is unknown already; where it is negative for certain the engine has no value
        known = ~(below.value + below.error < 0) | (above.value <= above.error)
        found = above.over(below)
        return Column(Approx(found.value, np.where(above.value <= above.error, np.inf, found.error)), known)

    return column


def _concentration(parts: Parts, scope: Scope) -> Compiled:
    part, whole = parts.gross(scope), parts.gross(Scope())
    if parts.empty(Scope()):
        return _fixed(Decimal(0))
    if sorted(parts.linear(scope)) == sorted(parts.linear(Scope())) and not parts.held.liquidity:
        return _fixed(Decimal(1))
    return lambda block: Column(part.over(block).over(whole.over(block)))


def _position_size(parts: Parts, scope: Scope) -> Compiled:
    sizes = [abs(p.size) for p in parts.held.positions if _inside(scope, p.asset, p.venue)]
    sizes += [abs(o.size) for o in parts.held.options if _inside(scope, o.asset, o.venue)]
    return _fixed(sum(sizes, Decimal(0)))


# -- margin accounts and loans ----------------------------------------------------------------------------------------------------------


def _stress(parts: Parts, shocks: Mapping[str, Decimal]) -> Compiled:
    """Smallest account value less requirement after the shocks: linear in the prices for each venue."""
    forms = []
    for margin in parts.held.margins:
        constants, weighted = parts.account_value([margin.venue])
        shocked = [(a, s * (1 + shocks.get(a, Decimal(0)))) for a, s in weighted]
        required = [(a, -margin.maintenance_ratio * abs(s)) for a, s in shocked]
        forms.append(Linear.of(constants, shocked + required))
    if not forms:
        return _fixed(Decimal(0))
    return lambda block: Column(smallest([form.over(block) for form in forms]))


def _liquidation_distance(parts: Parts, scope: Scope) -> Compiled | None:
    """The critical move of every account and asset, column by column: 0 when liquidatable already, 1 when no move above -100 % does it."""
    cases: list[tuple[Linear, Linear]] = []
    for margin in parts.held.margins:
        r = margin.maintenance_ratio
        constants, weighted = parts.account_value([margin.venue])
        legs = parts.legs(margin.venue)
        slack = Linear.of(constants, weighted + [(a, -r * abs(s)) for a, s in legs])
        slopes = [(a, s - r * abs(s)) for a, s in legs]
        cases += [(slack, slope) for slope in _groups(slopes, scope, margin.venue)]
    for venue in parts.lenders:
        owed = parts.owed(venue)
        if not any(amount for _, amount in owed):
            continue
        moves = parts.backing(venue, "liquidation_threshold") + [(a, -amount) for a, amount in owed]
        slack = Linear.of((), moves)
        cases += [(slack, slope) for slope in _groups([m for m in moves if m[0] != UNIT_OF_ACCOUNT], scope, venue)]

    def column(block: Block) -> Column:
        slacks = {id(slack): slack.over(block) for slack in {id(slack): slack for slack, _ in cases}.values()}
        found = [_distance(slacks[id(slack)], slope.over(block)) for slack, slope in cases]
        return Column(smallest([constant(block, Decimal(1)), *found]))

    return column


def _groups(slopes: Weighted, scope: Scope, venue: str) -> list[Linear]:
    """What moves when one asset moves, and when all do, as far as the scope asks for it."""
    assets = sorted({asset for asset, _ in slopes})
    if scope.kind == "asset":
        moved = [{asset} for asset in assets if asset == scope.name]
    elif not _at(scope, venue):
        moved = []
    else:
        moved = [{asset} for asset in assets] + ([set(assets)] if len(assets) > 1 else [])
    return [Linear.of((), [(a, w) for a, w in slopes if a in group]) for group in moved]


def _distance(slack: Approx, slope: Approx) -> Approx:
    move = (-slack).over(slope)
    under = slack.value + slack.error < 0
    beyond = move.value + move.error <= -1  # no fall of less than everything does it
    near = np.isfinite(move.error) & (np.abs(move.value + 1) <= move.error)
    value = np.where(under, 0.0, np.where(beyond, 1.0, np.minimum(np.abs(move.value), 1.0)))
    error = np.where(under | beyond, 0.0, move.error)
    # next to the edges of the cases (slack near zero, slope near zero, move near -100 %) nothing is claimed
    edge = ~under & ((np.abs(slack.value) <= slack.error) | (near & ~beyond))
    return Approx(value, np.where(edge, np.inf, error))


def _free_collateral(parts: Parts, scope: Scope) -> Compiled:
    margins = [m for m in parts.held.margins if _at(scope, m.venue)]

    def column(block: Block) -> Column:
        total = constant(block, Decimal(0))
        for margin in margins:
            own = smallest([parts.value(margin.venue).over(block), constant(block, margin.collateral)])
            free = own - parts.required(margin.venue, initial=True).over(block)
            total = total + Approx(np.maximum(free.value, 0.0), free.error)
        return Column(total)

    return column


def _margin_ratio(parts: Parts, scope: Scope) -> Compiled:
    venues = [v for v in parts.of_venue(scope) if parts.legs(v)]

    def column(block: Block) -> Column:
        shares = [parts.value(v).over(block).over(parts.notional(v).over(block)) for v in venues]
        return Column(smallest([constant(block, Decimal(1)), *shares]))

    return column


def _use(*, initial: bool) -> Callable[[Parts, Scope], Compiled]:
    def build(parts: Parts, scope: Scope) -> Compiled:
        share = "initial_ratio" if initial else "maintenance_ratio"
        venues = [
            m.venue for m in parts.held.margins if _at(scope, m.venue) and parts.legs(m.venue) and getattr(m, share)
        ]

        def column(block: Block) -> Column:
            worst, known = constant(block, Decimal(0)), np.ones(block.rows, dtype=bool)
            for venue in venues:
                value = parts.value(venue).over(block)
                worst = largest([worst, parts.required(venue, initial=initial).over(block).over(value)])
                known &= ~(value.value + value.error < 0)
            return Column(worst, known)

        return column

    return build


def _requirement(*, initial: bool) -> Callable[[Parts, Scope], Compiled]:
    def build(parts: Parts, scope: Scope) -> Compiled:
        forms = [parts.required(venue, initial=initial) for venue in parts.of_venue(scope)]

        def column(block: Block) -> Column:
            total = constant(block, Decimal(0))
            for form in forms:
                total = total + form.over(block)
            return Column(total)

        return column

    return build


def _loans(parts: Parts, scope: Scope) -> list[str]:
    return [v for v in parts.lenders if _at(scope, v) and any(amount for _, amount in parts.owed(v))]


def _health_factor(parts: Parts, scope: Scope) -> Compiled:
    venues = _loans(parts, scope)

    def column(block: Block) -> Column:
        found = [constant(block, SAFE_HEALTH)]
        for venue in venues:
            weighted = Linear.of((), parts.backing(venue, "liquidation_threshold")).over(block)
            found.append(weighted.over(Linear.of((), parts.owed(venue)).over(block)))
        return Column(smallest(found))

    return column


def _loan_to_value(parts: Parts, scope: Scope) -> Compiled | None:
    venues = _loans(parts, scope)
    if any(not any(amount for _, amount in parts.backing(venue, "")) for venue in venues):
        return None

    def column(block: Block) -> Column:
        found = [constant(block, Decimal(0))]
        for venue in venues:
            owed = Linear.of((), parts.owed(venue)).over(block)
            found.append(owed.over(Linear.of((), parts.backing(venue, "")).over(block)))
        return Column(largest(found))

    return column


def _debt(parts: Parts, scope: Scope) -> Compiled:
    owed = [(d.asset, d.amount) for d in parts.held.debts if d.amount and _inside(scope, d.asset, d.venue)]
    return _simple(Sum(Linear.of((), owed)))


def _unrealised(parts: Parts, scope: Scope) -> Compiled:
    mine = [p for p in parts.held.positions if p.size and _inside(scope, p.asset, p.venue)]
    options = [o for o in parts.options if _inside(scope, o.asset, o.venue)]
    constants = [-p.entry_notional - p.pending_funding for p in mine] + [-o.entry_notional for o in options]
    linear = Linear.of(constants, [(p.asset, p.size) for p in mine])
    return _simple(Sum(linear, tuple(_option(o) for o in options)))


# -- the record -------------------------------------------------------------------------------------------------------------------------


def _profit(block: Block, equity: Sum, window_s: int | None) -> Approx:
    """Equity now less that of the last record at or before the window's start, or of the first."""
    record = block.record
    assert record is not None
    starts = np.searchsorted(record.times_s, block.times_s - (window_s or DAY_S), side="right") - 1
    before = np.maximum(starts, 0)
    return equity.over(block) - Approx(record.value[before], record.error[before])


def _pnl(parts: Parts, window_s: int | None) -> Compiled:
    equity = parts.equity(Scope())
    return lambda block: Column(_profit(block, equity, window_s))


def _loss(parts: Parts, window_s: int | None) -> Compiled:
    equity = parts.equity(Scope())

    def column(block: Block) -> Column:
        lost = -_profit(block, equity, window_s)
        return Column(Approx(np.maximum(lost.value, 0.0), lost.error))

    return column


def _drawdown(parts: Parts, window_s: int | None) -> Compiled | None:
    """1 - equity / highest on record: nothing is paid in or out, so the NAV of one unit is equity over the first equity. With a window the
    highest differs from moment to moment, and the engine looks for it."""
    if window_s is not None:
        return None
    equity = parts.equity(Scope())

    def column(block: Block) -> Column:
        record = block.record
        assert record is not None
        now = equity.over(block)
        rows = slice(block.first, block.first + block.rows)
        highest: Floats = np.maximum.accumulate(record.value)[rows]
        lowest: Floats = np.minimum.accumulate(record.value - record.error)[rows]
        error: Floats = np.maximum.accumulate(record.error)[rows]
        share = now.over(Approx(np.maximum(highest, now.value), error + now.error))
        fallen = np.maximum(1 - share.value, 0.0)
        # a record that ever reached zero has no unit to follow: the engine says so itself
        return Column(Approx(fallen, np.where(lowest > 0, share.error + ROUNDING * len(record.value), np.inf)))

    return column


_METRICS: Mapping[str, Callable[[Parts, Scope], Compiled | None]] = {
    "gross_notional": lambda parts, scope: _simple(parts.gross(scope)),
    "net_notional": lambda parts, scope: _simple(parts.net(scope), absolute=True),
    "equity": lambda parts, scope: _simple(parts.equity(scope)),
    "leverage": _leverage,
    "position_size": _position_size,
    "concentration": _concentration,
    "liquidation_distance": _liquidation_distance,
    "free_collateral": _free_collateral,
    "margin_ratio": _margin_ratio,
    "margin_use": _use(initial=False),
    "initial_margin_use": _use(initial=True),
    "maintenance_margin": _requirement(initial=False),
    "initial_margin": _requirement(initial=True),
    "health_factor": _health_factor,
    "loan_to_value": _loan_to_value,
    "debt": _debt,
    "unrealised_pnl": _unrealised,
    **{
        name: lambda _parts, _scope: _fixed(Decimal(0))
        for name in (
            "order_notional",
            "order_slippage",
            "operation_loss",
            "unknown_calls",
            "counterparties",
            "contracts_touched",
        )
    },
}
_WITH_WINDOW: Mapping[str, Callable[[Parts, int | None], Compiled | None]] = {
    "pnl": _pnl,
    "loss": _loss,
    "drawdown": _drawdown,
}
