"""Deribit: portfolio margin in its legacy form, and the standard margin of single options.

    MM = max(0, -worst P&L) + contingencies,  worst over  price bucket x {vol up, same, down}  and the extended table;  IM = factor x MM

Volatility moves by v x (1 +- range x (30 / days)^power); the extended table takes vol up, of whose P&L only the share
price_range / |move| counts. The venue publishes parameters per currency and changes them; each is a term.
Floats; requirements rounded up and equity down to 1e-6 quote.   Source: Deribit, "Portfolio Margin" (legacy page) and its support article.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Sequence
from dataclasses import dataclass, fields
from decimal import ROUND_CEILING, ROUND_FLOOR, Decimal, localcontext

from contracts.errors import InvalidFields
from policies.portfolio import Option
from policies.risk.black import black76, greeks
from policies.risk.margin.account import FEW, ZERO, Account, Part, Requirement, Row, unrealised
from policies.risk.margin.terms import Terms

EXTENDED_MOVES = (-0.66, -0.33, 0.5, 1.0, 2.0, 3.0, 4.0, 5.0)
_SECONDS_PER_YEAR = 365 * 86_400
_DAY_S = 86_400
_MONTH_DAYS = 30
_QUANTUM = Decimal("1e-6")


def volatility_move(days: float, volatility_range: float, power: float) -> float:
    """The relative move of implied volatility `days` > 0 before expiry: (30 / days)^power x range."""
    return math.pow(_MONTH_DAYS / days, power) * volatility_range


def futures_contingency(long: float, short: float, rate: float) -> float:
    """What futures that offset each other cost, in the coin of `long` and `short` (both >= 0): rate x min(long, short)."""
    return rate * min(long, short)


def short_options_contingency(net_by_strike: Sequence[float], per_option: float) -> float:
    """What net short options cost, in coin: per_option x sum over strikes of max(0, -(calls + puts))."""
    return per_option * math.fsum(max(0.0, -net) for net in net_by_strike)


def short_call_initial(strike: float, underlying: float, mark: float) -> float:
    """Standard margin of one short call, coin: max(0.15 - OTM / underlying, 0.1) + mark, `mark` in coin."""
    return max(0.15 - max(strike - underlying, 0.0) / underlying, 0.1) + mark


def short_call_maintenance(mark: float) -> float:
    """Standard margin of one short call, coin: 0.075 + mark."""
    return 0.075 + mark


def short_put_maintenance(mark: float) -> float:
    """Standard margin of one short put, coin: max(0.075, 0.075 x mark) + mark."""
    return max(0.075, 0.075 * mark) + mark


def short_put_initial(strike: float, underlying: float, mark: float) -> float:
    """Standard margin of one short put, coin: max(max(0.15 - OTM / underlying, 0.1) + mark, maintenance)."""
    otm = max(underlying - strike, 0.0) / underlying
    return max(max(0.15 - otm, 0.1) + mark, short_put_maintenance(mark))


@dataclass(frozen=True, slots=True)
class Parameters:
    """Terms of `deribit_pm`, with the legacy defaults; each name is a term, fractions unless the name says otherwise."""

    price_range: float = 0.16
    buckets: int = 9
    vol_range_up: float = 0.38
    vol_range_down: float = 0.38
    short_term_power: float = 0.30
    long_term_power: float = 0.30
    dte_floor_days: float = 1.0
    min_vol_up: float = 0.0
    extended_dampener: float = 0.0
    """Quote taken off the loss of every row of the extended table."""
    futures_rate: float = 0.01
    option_rate: float = 0.01
    vega_rate: float = 0.0
    """Of min(long, short) vega over expiries, in quote per 1.00 of volatility."""
    delta_threshold: float = 0.0
    """Quote of net delta beyond which the delta contingency begins; 0: never."""
    delta_rate: float = 0.0
    """Of the net delta, in quote, beyond the threshold."""
    initial_factor: float = 1.3

    @classmethod
    def of(cls, terms: Terms) -> Parameters:
        given = {f.name: float(terms.get(f.name)) for f in fields(cls) if f.name in terms.values}
        if "buckets" in given:
            return cls(**{**given, "buckets": int(given["buckets"])})  # type: ignore[arg-type]
        return cls(**given)  # type: ignore[arg-type]


@dataclass(frozen=True, slots=True)
class Case:
    """One revaluation: the forwards moved by `move`, volatility up (1), same (0) or down (-1); `share` of what an extended one loses."""

    move: float
    vol: int
    share: float | None = None


_VOL_NAMES = {1: "up", 0: "same", -1: "down"}


@dataclass(frozen=True, slots=True)
class Held:
    """An option position; `vols` same, up and down."""

    asset: str
    size: float
    forward: float
    strike: float
    years: float
    vols: tuple[float, float, float]
    is_call: bool

    def value(self, move: float, vol: int) -> float:
        """Its quote value in a case. Raises BadInput."""
        return self.size * black76(
            self.forward * (1 + move), self.strike, self.years, self.vols[vol], is_call=self.is_call
        )


@dataclass(frozen=True, slots=True)
class DeribitPm:
    """Portfolio margin in quote; each underlying is stressed by itself and the requirements are added up.

    Futures and perpetuals are positions, whose markets of one asset are told apart by their mark price and netted only within it. Coin
    collateral counts in equity and moves with the price buckets. Option values are Black-76 at the venue's volatility and forward.
    """

    parameters: Parameters
    is_piecewise_linear = False

    @classmethod
    def of(cls, terms: Terms) -> DeribitPm:
        return cls(Parameters.of(terms))

    def requirement(self, account: Account) -> Requirement:
        rows: list[Row] = []
        held = [self._held(o, account.now_s) for o in account.options if o.size]
        coins = [float(c.amount * c.price) for c in account.collateral]
        values = [option.value(0.0, 0) for option in held]
        equity = math.fsum([float(account.cash), *(float(unrealised(p)) for p in account.positions), *values, *coins])
        needed = 0.0
        for asset in sorted({p.asset for p in account.positions} | {o.asset for o in account.options}):
            worst, label = self._worst(account, asset, [option for option in held if option.asset == asset])
            contingencies = self._contingencies(account, asset)
            needed += max(0.0, -worst) + math.fsum(value for _, value in contingencies)
            rows.append((f"worst {asset}: {label}", _decimal(worst, ROUND_FLOOR)))
            rows += [(f"{name} contingency {asset}", _decimal(value, ROUND_CEILING)) for name, value in contingencies]
        part = Part(
            "account",
            _decimal(equity, ROUND_FLOOR),
            _decimal(needed * self.parameters.initial_factor, ROUND_CEILING),
            _decimal(needed, ROUND_CEILING),
        )
        return Requirement((part,), (("equity", part.equity), *rows))

    def _cases(self) -> list[Case]:
        """Every move of the tables."""
        p = self.parameters
        half = p.buckets // 2
        moves = [p.price_range * step / half for step in range(-half, half + 1)] if half else [0.0]
        found = [Case(move, vol) for move in moves for vol in (1, 0, -1)]
        return found + [Case(move, 1, min(1.0, p.price_range / abs(move))) for move in EXTENDED_MOVES]

    def _worst(self, account: Account, asset: str, options: list[Held]) -> tuple[float, str]:
        """The worst P&L and where it is."""
        p = self.parameters
        linear = math.fsum(float(x.size * x.mark_price) for x in account.positions if x.asset == asset)
        linear += math.fsum(float(c.amount * c.price) for c in account.collateral if c.asset == asset)
        marks = math.fsum(option.value(0.0, 0) for option in options)
        cases = self._cases()
        if len(options) * len(cases) >= FEW:
            from policies.risk.margin.deribit_screen import (
                may_be_worst,
            )  # arrays: only who has many options waits for them

            cases = [cases[place] for place in may_be_worst(linear, marks, options, cases, p.extended_dampener)]

        def row(case: Case) -> tuple[float, str]:
            pnl = linear * case.move + math.fsum(option.value(case.move, case.vol) for option in options) - marks
            if case.share is None:
                return pnl, f"price {case.move:+.2%}, vol {_VOL_NAMES[case.vol]}"
            scaled = pnl * case.share
            damped = min(scaled + p.extended_dampener, 0.0) if scaled < 0 else scaled
            return damped, f"price {case.move:+.0%}, vol up, extended"

        return min(map(row, cases))

    def _held(self, option: Option, now_s: int) -> Held:
        """An option as every case values it."""
        if option.implied_vol is None or option.forward is None:
            raise InvalidFields(f"margin model deribit_pm needs volatility and forward of {option.label}")
        p = self.parameters
        left_s = max(0, option.expiry_s - now_s)
        sigma = float(option.implied_vol)
        days = max(left_s / _DAY_S, p.dte_floor_days)
        power = p.short_term_power if days <= _MONTH_DAYS else p.long_term_power
        up = max(p.min_vol_up, sigma * (1 + volatility_move(days, p.vol_range_up, power)))
        down = max(0.0, sigma * (1 - volatility_move(days, p.vol_range_down, power)))
        return Held(
            option.asset,
            float(option.size),
            float(option.forward),
            float(option.strike),
            left_s / _SECONDS_PER_YEAR,
            (sigma, up, down),
            option.is_call,
        )

    def _contingencies(self, account: Account, asset: str) -> list[tuple[str, float]]:
        p = self.parameters
        index = float(self._index(account, asset))
        markets: dict[Decimal, Decimal] = {}
        strikes: dict[tuple[int, Decimal], Decimal] = {}
        with localcontext() as context:
            context.prec = 60
            for position in account.positions:
                if position.asset == asset:
                    markets[position.mark_price] = markets.get(position.mark_price, ZERO) + position.size
            for option in account.options:
                if option.asset == asset:
                    key = (option.expiry_s, option.strike)
                    strikes[key] = strikes.get(key, ZERO) + option.size
        long = math.fsum(float(size) for size in markets.values() if size > 0)
        short = math.fsum(-float(size) for size in markets.values() if size < 0)
        delta, vegas = math.fsum(float(size) for size in markets.values()), dict[int, float]()
        for option in account.options:
            if option.asset == asset and option.size and (p.delta_rate or p.vega_rate):
                own_delta, own_vega = self._greeks(option, account.now_s)
                delta += own_delta
                vegas[option.expiry_s] = vegas.get(option.expiry_s, 0.0) + own_vega
        found = [
            ("futures", futures_contingency(long, short, p.futures_rate) * index),
            ("option", short_options_contingency([float(net) for net in strikes.values()], p.option_rate) * index),
        ]
        if p.vega_rate:
            up, down = (math.fsum(max(0.0, side * v) for v in vegas.values()) for side in (1, -1))
            found.append(("vega", p.vega_rate * min(up, down)))
        if p.delta_threshold and p.delta_rate:
            found.append(("delta", p.delta_rate * max(0.0, abs(delta) * index - p.delta_threshold)))
        return found

    def _greeks(self, option: Option, now_s: int) -> tuple[float, float]:
        """(delta in coin, vega in quote per 1.00 of volatility) of the position."""
        if option.implied_vol is None or option.forward is None:
            raise InvalidFields(f"margin model deribit_pm needs volatility and forward of {option.label}")
        years = max(0, option.expiry_s - now_s) / _SECONDS_PER_YEAR
        g = greeks(
            float(option.forward),
            float(option.strike),
            years,
            float(option.implied_vol),
            is_call=option.is_call,
            carry=0.0,
        )
        return float(option.size) * g.delta, float(option.size) * g.vega

    def _index(self, account: Account, asset: str) -> Decimal:
        index = account.price(asset)
        if index is None:
            raise InvalidFields(f"margin model deribit_pm needs the index price of {asset}")
        return index

    def kinks(self, account: Account, assets: Collection[str]) -> tuple[Decimal, ...]:
        """Where a moved forward meets a strike."""
        with localcontext() as context:
            context.prec = 30
            return tuple(o.strike / o.forward for o in account.options if o.asset in assets and o.size and o.forward)


def _decimal(value: float, rounding: str) -> Decimal:
    if not math.isfinite(value):
        raise InvalidFields(f"margin model deribit_pm computed {value}")
    with localcontext() as context:
        context.prec = 60
        return Decimal(value).quantize(_QUANTUM, rounding=rounding)
