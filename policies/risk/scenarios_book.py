"""A book as the scenario engine revalues it: what is held, in exact figures, and its value as closed forms.

Every figure is a Decimal, as it was written; the engine works on doubles made from them and goes back to these where rounding decides.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from decimal import ROUND_HALF_EVEN, Context, Decimal, localcontext
from typing import Any

from contracts.errors import BadInput
from policies.portfolio import UNIT_OF_ACCOUNT, Option, Portfolio
from policies.risk._kernel import YEAR_S

Number = int | float | Decimal
PRECISE = Context(prec=60, rounding=ROUND_HALF_EVEN)
"""The context of all exact arithmetic here: products of the figures in use have fewer than 60 digits."""
_MOST_GROWTH = 5
_ZERO = Decimal(0)
_GROWTH = Context(prec=28, rounding=ROUND_HALF_EVEN)
_RATE_QUANTUM = Decimal(1).scaleb(-15)


def exact(value: Number) -> Decimal:
    """The decimal that was written: a float becomes the shortest decimal that reads back as it. Raises BadInput if it is not finite."""
    found = (
        value
        if isinstance(value, Decimal)
        else Decimal(repr(float(value)))
        if isinstance(value, float)
        else Decimal(value)
    )
    if not found.is_finite():
        raise BadInput(f"a figure of the scenarios or of the book is {value}: every figure must be finite")
    return found


@dataclass(frozen=True, slots=True)
class Linear:
    """Something whose value is size x price: a holding, a debt (negative), a perpetual or future with linear settlement.

    `size` signed base units; `price` its own mark, quote per base. `on_forward`: its price also moves by the basis shock (derivatives), a
    spot holding's does not. What was paid for it is a constant and no part of a profit.
    """

    label: str
    asset: str
    size: Decimal
    price: Decimal
    on_forward: bool = False


@dataclass(frozen=True, slots=True)
class Inverse:
    """An inverse (coin-margined) future or perpetual: `contracts` of face value one quote each, signed, settled in the coin.

    Profit in coin = contracts x (1 / entry - 1 / price); in quote, that times the coin's spot, both as shocked. The coin that secures it
    is a Linear of its own.   Source: Deribit, Inverse futures; BitMEX, XBTUSD.
    """

    label: str
    asset: str
    contracts: Decimal
    entry_price: Decimal
    price: Decimal


@dataclass(frozen=True, slots=True)
class EuropeanOption:
    """A European option under generalised Black-Scholes.

    `life_s` >= 0 seconds to expiry; `vol` annualised (0.8 = 80 %) >= 0; `rate` r and `carry` b continuously compounded per year:
    forward F = S exp(b T), value = exp(-r T) x Black(F, K, vol, T). Coin-settled options are the same in quote with r = 0, b = ln(F/S)/T.
    """

    label: str
    asset: str
    is_call: bool
    strike: Decimal
    life_s: int
    size: Decimal
    vol: Decimal
    rate: Decimal = Decimal(0)
    carry: Decimal = Decimal(0)


@dataclass(frozen=True, slots=True)
class Range:
    """Concentrated liquidity (Uniswap v3) valued at the index price p of asset0 in asset1, clipped to the range:

        L (1/sqrt p - 1/sqrt upper) of asset0  +  L (sqrt p - sqrt lower) of asset1  +  what is owed

    `liquidity` L in whole units.   Source: Uniswap v3 whitepaper 6.2.
    """

    label: str
    asset0: str
    asset1: str
    lower_price: Decimal
    upper_price: Decimal
    liquidity: Decimal
    owed0: Decimal = Decimal(0)
    owed1: Decimal = Decimal(0)


@dataclass(frozen=True, slots=True)
class Book:
    """What is revalued together. `spots`: index price by asset, quote per unit, > 0; the unit of account needs none, its price is 1.
    `cash` in quote. Positions are ordered: linears, inverses, options, ranges; contributions come in that order.

    Raises BadInput for a figure that is not finite or out of its bounds, or an asset without a price.
    """

    spots: Mapping[str, Decimal]
    linears: tuple[Linear, ...] = ()
    inverses: tuple[Inverse, ...] = ()
    options: tuple[EuropeanOption, ...] = ()
    ranges: tuple[Range, ...] = ()
    cash: Decimal = Decimal(0)
    workings: dict[str, Any] = field(default_factory=dict, init=False, repr=False, compare=False)
    """What several revaluations of the same book need: its columns of doubles. Results only; computing again gives the same."""

    def __post_init__(self) -> None:
        for asset, price in self.spots.items():
            _positive(price, f"the index price of {asset}")
        _finite(self.cash, "cash")
        for linear in self.linears:
            self._priced(linear.label, linear.asset)
            if not (linear.size.is_finite() and linear.price.is_finite() and linear.price > 0):
                _finite(linear.size, f"the size of {linear.label}")
                _positive(linear.price, f"the price of {linear.label}")
        for inverse in self.inverses:
            self._priced(inverse.label, inverse.asset)
            _finite(inverse.contracts, f"the contracts of {inverse.label}")
            _positive(inverse.entry_price, f"the entry price of {inverse.label}")
            _positive(inverse.price, f"the price of {inverse.label}")
        for option in self.options:
            self._priced(option.label, option.asset)
            if not _is_sound(option):
                raise _unsound(option)
        for pool in self.ranges:
            self._priced(pool.label, pool.asset0)
            self._priced(pool.label, pool.asset1)
            for figure, what in ((pool.liquidity, "liquidity"), (pool.owed0, "owed0"), (pool.owed1, "owed1")):
                _finite(figure, f"the {what} of {pool.label}")
            _positive(pool.lower_price, f"the lower price of {pool.label}")
            _positive(pool.upper_price, f"the upper price of {pool.label}")
            if pool.lower_price >= pool.upper_price:
                raise BadInput(f"{pool.label} has an empty range: {pool.lower_price} to {pool.upper_price}")

    def spot(self, asset: str) -> Decimal:
        """Index price of `asset`; 1 for the unit of account."""
        return Decimal(1) if asset == UNIT_OF_ACCOUNT else self.spots[asset]

    @property
    def labels(self) -> tuple[str, ...]:
        """Labels of all positions, in order."""
        held: tuple[Linear | Inverse | EuropeanOption | Range, ...] = (
            *self.linears,
            *self.inverses,
            *self.options,
            *self.ranges,
        )
        return tuple(position.label for position in held)

    def _priced(self, label: str, asset: str) -> None:
        if asset != UNIT_OF_ACCOUNT and asset not in self.spots:
            raise BadInput(f"there is no price of {asset}, which {label} needs")


def _finite(value: Decimal, what: str) -> None:
    if not value.is_finite():
        raise BadInput(f"{what} is {value}: every figure must be finite")


def _positive(value: Decimal, what: str) -> None:
    if not value.is_finite() or value <= 0:
        raise BadInput(f"{what} is {value}: it must be finite and above zero")


def _is_sound(option: EuropeanOption) -> bool:
    """Whether every figure of an option is finite and inside its bounds."""
    rate, carry, vol, strike, life_s = option.rate, option.carry, option.vol, option.strike, option.life_s
    if not (strike.is_finite() and option.size.is_finite() and vol.is_finite()):
        return False
    if not (rate.is_finite() and carry.is_finite()) or strike <= 0 or vol < 0 or life_s < 0:
        return False
    return not (rate or carry) or max(abs(rate), abs(carry)) * life_s <= _MOST_GROWTH * YEAR_S


def _unsound(option: EuropeanOption) -> BadInput:
    """What is wrong with an option."""
    for figure, what in (
        (option.strike, "strike"),
        (option.size, "size"),
        (option.rate, "rate"),
        (option.carry, "carry"),
    ):
        if not figure.is_finite():
            return BadInput(f"the {what} of {option.label} is {figure}: every figure must be finite")
    if option.strike <= 0:
        return BadInput(f"the strike of {option.label} is {option.strike}: it must be finite and above zero")
    if not option.vol.is_finite() or option.vol < 0 or option.life_s < 0:
        return BadInput(f"{option.label} has volatility {option.vol} and {option.life_s} s to live: both must be >= 0")
    return BadInput(
        f"{option.label} has rate {option.rate} and carry {option.carry} a year for {option.life_s} s: growth by more than "
        f"e^{_MOST_GROWTH} is refused; rates are fractions, 0.05 means 5 %"
    )


@dataclass(frozen=True, slots=True)
class Terms:
    """What a portfolio does not say about its options: `rate` per year by asset (discounting; 0 where absent), and the volatility to use
    by option label where the venue marks none."""

    rates: Mapping[str, Decimal] = field(default_factory=dict)
    vols: Mapping[str, Decimal] = field(default_factory=dict)


_NO_TERMS = Terms()


def book_of(
    portfolio: Portfolio,
    prices: Mapping[str, Decimal],
    time_s: int,
    terms: Terms = _NO_TERMS,
    known: dict[int, Linear | EuropeanOption] | None = None,
) -> Book:
    """The book of a portfolio at `time_s` (unix s), with index `prices` (quote per unit).

    Holdings and lending collateral are spot, debts negative spot, positions are marked by their venue and follow the basis; venue
    collateral in the unit of account is cash. An option's carry is that of its venue's forward, b = ln(F / S) / T to 15 decimals, and 0
    where the venue gives none; past its expiry it counts as settled at the spot. `known`: what became of positions and options in the
    books of one moment so far, by identity; whoever passes it keeps them alive, and prices, time and terms the same.
    Raises BadInput, also for an option of unknown volatility.
    """
    known = {} if known is None else known
    linears: list[Linear] = []
    for sign, held in ((1, portfolio.holdings), (1, portfolio.collateral), (-1, portfolio.debts)):
        for amount in held:
            price = _at(prices, amount.asset, amount.amount)
            if price is not None:
                linears.append(Linear(f"{amount.venue}:{amount.asset}", amount.asset, sign * amount.amount, price))
    for p in portfolio.positions:
        if p.size:
            linear = known.get(id(p))
            if not isinstance(linear, Linear):
                linear = known[id(p)] = Linear(p.label, p.asset, p.size, p.mark_price, on_forward=True)
            linears.append(linear)
    options: list[EuropeanOption] = []
    carries: dict[tuple[str, Decimal, int], Decimal] = {}
    for o in portfolio.options:
        if o.size:
            option = known.get(id(o))
            if not isinstance(option, EuropeanOption):
                option = known[id(o)] = _option_of(o, prices, time_s, terms, carries)
            options.append(option)
    ranges = tuple(
        Range(p.label, p.asset0, p.asset1, p.lower_price, p.upper_price, p.liquidity, p.owed0, p.owed1)
        for p in portfolio.liquidity
    )
    return Book(
        spots={asset: prices[asset] for asset in sorted(portfolio.assets()) if asset in prices},
        linears=tuple(linears),
        options=tuple(options),
        ranges=ranges,
        cash=sum((m.collateral for m in portfolio.margins), Decimal(0)),
    )


def _option_of(
    option: Option,
    prices: Mapping[str, Decimal],
    time_s: int,
    terms: Terms,
    carries: dict[tuple[str, Decimal, int], Decimal],
) -> EuropeanOption:
    """One option at `time_s`. `carries`: those of forwards met before. Raises BadInput."""
    label = option.label
    vol = option.implied_vol if option.implied_vol is not None else terms.vols.get(label)
    if vol is None:
        raise BadInput(f"the volatility of {label} is not known: the venue marks none and the terms name none")
    life_s = max(option.expiry_s - time_s, 0)
    carry = _ZERO
    if option.forward is not None and life_s:
        if not option.forward.is_finite():
            raise BadInput(f"the forward of {label} is {option.forward}")
        term = (option.asset, option.forward, life_s)  # the options of one expiry mostly share their forward
        if term not in carries:
            carries[term] = _carry(option.forward, _at(prices, option.asset, option.size), life_s, label)
        carry = carries[term]
    rate = terms.rates.get(option.asset, _ZERO)
    return EuropeanOption(label, option.asset, option.is_call, option.strike, life_s, option.size, vol, rate, carry)


def _carry(forward: Decimal, spot: Decimal | None, life_s: int, label: str) -> Decimal:
    """ln(forward / spot) per year. Raises BadInput."""
    _positive(forward, f"the forward of {label}")
    _positive(spot or Decimal(0), f"the index price under {label}")
    with localcontext(_GROWTH):
        return ((forward / (spot or Decimal(0))).ln() * YEAR_S / life_s).quantize(_RATE_QUANTUM)


def _at(prices: Mapping[str, Decimal], asset: str, amount: Decimal) -> Decimal | None:
    """The index price, None where nothing is held. Raises BadInput when there is none."""
    if not amount:
        return None
    if asset == UNIT_OF_ACCOUNT:
        return Decimal(1)
    if asset not in prices:
        raise BadInput(f"there is no price of {asset}")
    return prices[asset]
