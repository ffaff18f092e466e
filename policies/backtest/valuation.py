"""The book at the prices of one moment: what every venue would answer if its marks were the market's prices.

Assumptions, all stated in the report: marks equal the bars' prices; funding and interest stand still; options keep the volatility they
were given and are priced by Black (1976) on the index; a margin account lets out min(collateral, account value) less the initial
requirement; nothing is quoted in anything but the unit of account.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from decimal import Decimal, localcontext

from policies.backtest.book import Book
from policies.margin import EXACT, ratio
from policies.portfolio import (
    UNIT_OF_ACCOUNT,
    Collateral,
    Debt,
    Holding,
    Liquidity,
    Loan,
    Margin,
    Option,
    Portfolio,
    Position,
)

Prices = Mapping[str, Decimal]
YEAR_S = 365 * 86_400
_ZERO = Decimal(0)
_DIGITS = 12
"""Significant digits that an option's mark keeps: a model output, quantised so that every machine has the same."""


@dataclass(frozen=True, slots=True)
class Held:
    """What is held, free of prices, and the terms of the margin accounts. Marks inside `portfolio` are those of the last valuation."""

    portfolio: Portfolio
    penalties: Mapping[str, Decimal]

    @classmethod
    def of(cls, book: Book, prices: Prices, time_s: int) -> Held:
        """The book with every absent entry price taken from `prices`. Raises KeyError for an asset without price."""
        with localcontext(EXACT):
            positions = tuple(
                Position(
                    p.venue,
                    p.asset,
                    p.size,
                    p.size * (prices[p.asset] if p.entry_price is None else p.entry_price),
                    _ZERO,
                )
                for p in book.positions
            )
            options = tuple(
                Option(
                    venue=o.venue,
                    asset=o.asset,
                    is_call=o.is_call,
                    strike=o.strike,
                    expiry_s=o.expiry_s,
                    size=o.size,
                    entry_notional=o.size
                    * (
                        mark(o.is_call, prices[o.asset], o.strike, o.implied_vol, o.expiry_s - time_s)
                        if o.premium is None
                        else o.premium
                    ),
                    mark_price=_ZERO,
                    implied_vol=o.implied_vol,
                )
                for o in book.options
            )
        venues = dict.fromkeys([c.venue for c in book.collateral] + [d.venue for d in book.debts])
        return cls(
            Portfolio(
                holdings=_holdings(book),
                debts=tuple(Debt(d.venue, d.asset, d.amount) for d in book.debts),
                positions=positions,
                margins=tuple(
                    Margin(m.venue, m.collateral, _ZERO, _ZERO, _ZERO, m.maintenance, m.initial) for m in book.margins
                ),
                options=options,
                liquidity=tuple(
                    Liquidity(x.venue, x.id, x.asset0, x.asset1, x.lower, x.upper, x.liquidity, x.owed0, x.owed1)
                    for x in book.liquidity
                ),
                collateral=tuple(
                    Collateral(c.venue, c.asset, c.amount, _ZERO, c.liquidation_threshold, c.loan_to_value)
                    for c in book.collateral
                ),
                loans=tuple(Loan(venue, _ZERO, _ZERO, _ZERO, None, _ZERO) for venue in venues),
            ),
            {m.venue: m.penalty for m in book.margins},
        )

    def at(self, prices: Prices, time_s: int) -> Portfolio:
        """The portfolio at `prices` (unit of account per unit), `time_s` (unix s). Exact but for options' marks."""
        held = self.portfolio
        positions = tuple(replace(p, mark_price=prices[p.asset]) for p in held.positions if p.size)
        options = tuple(
            replace(
                o,
                mark_price=mark(o.is_call, prices[o.asset], o.strike, o.implied_vol or _ZERO, o.expiry_s - time_s),
            )
            for o in held.options
            if o.size
        )
        collateral = tuple(replace(c, price=price_of(c.asset, prices)) for c in held.collateral)
        return replace(
            held,
            positions=positions,
            options=options,
            collateral=collateral,
            margins=tuple(margin_at(m, positions) for m in held.margins),
            loans=tuple(_loan(loan.venue, collateral, held.debts, prices) for loan in held.loans),
        )


def _holdings(book: Book) -> tuple[Holding, ...]:
    """What is held, and a balance of zero for every token that an order will buy: a balance that was read is no missing one."""
    accounts = {margin.venue for margin in book.margins}
    held: dict[tuple[str, str], Decimal] = {}
    for holding in book.holdings:
        key = holding.venue, holding.asset
        held[key] = held.get(key, _ZERO) + holding.amount
    for order in book.orders:
        if order.venue not in accounts:
            held.setdefault(("account", order.asset), _ZERO)
            held.setdefault(("account", UNIT_OF_ACCOUNT), _ZERO)
    return tuple(Holding(venue, asset, amount) for (venue, asset), amount in held.items())


def price_of(asset: str, prices: Prices) -> Decimal:
    """The price of one unit; the unit of account's own is 1."""
    return Decimal(1) if asset == UNIT_OF_ACCOUNT else prices[asset]


def margin_at(margin: Margin, positions: tuple[Position, ...]) -> Margin:
    """One margin account at its positions' marks."""
    with localcontext(EXACT):
        mine = [p for p in positions if p.venue == margin.venue]
        profit = sum((p.notional - p.entry_notional - p.pending_funding for p in mine), _ZERO)
        gross = sum((abs(p.notional) for p in mine), _ZERO)
        value = margin.collateral + profit
        free = max(min(margin.collateral, value) - margin.initial_ratio * gross, _ZERO)
        return replace(
            margin,
            account_value=value,
            maintenance_requirement=margin.maintenance_ratio * gross,
            free_collateral=free,
        )


def _loan(venue: str, collateral: tuple[Collateral, ...], debts: tuple[Debt, ...], prices: Prices) -> Loan:
    """Health factor = sum of collateral x price x liquidation threshold / debt, rounded down.   Source: Aave v3, GenericLogic."""
    with localcontext(EXACT):
        mine = [c for c in collateral if c.venue == venue]
        value = sum((c.amount * c.price for c in mine), _ZERO)
        weighted = sum((c.amount * c.price * c.liquidation_threshold for c in mine), _ZERO)
        lendable = sum((c.amount * c.price * c.loan_to_value for c in mine), _ZERO)
        debt = sum((d.amount * price_of(d.asset, prices) for d in debts if d.venue == venue), _ZERO)
        threshold = ratio(weighted, value, up=False) if value else _ZERO
        health = ratio(weighted, debt, up=False) if debt else None
        return Loan(venue, value, debt, threshold, health, max(lendable - debt, _ZERO))


def mark(is_call: bool, forward: Decimal, strike: Decimal, vol: Decimal, left_s: int) -> Decimal:
    """Black (1976) price of one unit, undiscounted, to 12 significant digits; the intrinsic value at and after expiry.

    F N(d1) - K N(d2), d1 = ln(F/K)/(v sqrt t) + v sqrt t / 2, d2 = d1 - v sqrt t.
    """
    intrinsic = max(forward - strike if is_call else strike - forward, _ZERO)
    deviation = float(vol) * math.sqrt(max(left_s, 0) / YEAR_S)
    if deviation <= 0 or strike <= 0:
        return intrinsic
    f, k, sign = float(forward), float(strike), 1.0 if is_call else -1.0
    d1 = math.log(f / k) / deviation + deviation / 2
    value = sign * (f * _normal(sign * d1) - k * _normal(sign * (d1 - deviation)))
    return max(Decimal(f"{value:.{_DIGITS - 1}e}"), _ZERO)


def _normal(x: float) -> float:
    return math.erfc(-x / math.sqrt(2)) / 2
