"""What a margin model looks at and what it answers: an account at one venue, and its requirement."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field, replace
from decimal import Decimal, localcontext
from typing import Protocol

from policies.margin import EXACT
from policies.portfolio import UNIT_OF_ACCOUNT, Collateral, Debt, Option, Position

ZERO = Decimal(0)
FEW = 200
"""Revaluations of an option up to which a model with scenarios works all of them out; beyond, `screen` finds which ones matter."""


@dataclass(frozen=True, slots=True)
class Account:
    """One account at one venue, in the venue's quote (its unit of account).

    `cash` is settled quote, negative when owed. `prices` are index prices in quote per unit of the asset; an asset that has none is
    priced by its own mark. `now_s` (unix s) is what options are aged by; models without options do not look at it. Positions of
    coin-margined (inverse) contracts of N quote, opened at E, stand as `size` = N / E and `entry_notional` = N, signed: their profit in
    quote is size x price - entry_notional like any other's, and N never moves.
    """

    cash: Decimal
    positions: tuple[Position, ...] = ()
    options: tuple[Option, ...] = ()
    collateral: tuple[Collateral, ...] = ()
    debts: tuple[Debt, ...] = ()
    prices: Mapping[str, Decimal] = field(default_factory=dict)
    now_s: int = 0

    def assets(self) -> tuple[str, ...]:
        """Assets whose price moves the account, sorted; the unit of account has none."""
        held = {p.asset for p in self.positions if p.size} | {o.asset for o in self.options if o.size}
        held |= {c.asset for c in self.collateral if c.amount} | {d.asset for d in self.debts if d.amount}
        return tuple(sorted(held - {UNIT_OF_ACCOUNT}))

    def price(self, asset: str) -> Decimal | None:
        """The index price, else the mark of a position, the price of a collateral, or an option's forward; None when nothing says it."""
        if asset in self.prices:
            return self.prices[asset]
        for found in (
            [p.mark_price for p in self.positions if p.asset == asset],
            [c.price for c in self.collateral if c.asset == asset],
            [o.forward for o in self.options if o.asset == asset and o.forward is not None],
        ):
            if found:
                return found[0]
        return None

    def moved(self, factor: Decimal, assets: Collection[str]) -> Account:
        """The same account with every price of `assets` (marks, index, collateral, option forwards) times `factor` > 0.

        Option marks stay as they are: models that hold options price them from forward and volatility.
        """
        with localcontext(EXACT):
            return replace(
                self,
                positions=tuple(
                    replace(p, mark_price=p.mark_price * factor) if p.asset in assets else p for p in self.positions
                ),
                options=tuple(
                    replace(o, forward=o.forward * factor) if o.asset in assets and o.forward is not None else o
                    for o in self.options
                ),
                collateral=tuple(
                    replace(c, price=c.price * factor) if c.asset in assets else c for c in self.collateral
                ),
                prices={a: p * factor if a in assets else p for a, p in self.prices.items()},
            )


@dataclass(frozen=True, slots=True)
class Part:
    """What the venue judges on its own: the cross account, an isolated position, one short option. All in quote."""

    label: str
    equity: Decimal
    initial: Decimal
    maintenance: Decimal

    @property
    def excess(self) -> Decimal:
        """equity - maintenance; liquidatable below zero."""
        with localcontext(EXACT):
            return self.equity - self.maintenance


Row = tuple[str, Decimal]
"""One line of an explanation: what, and its figure in quote."""


@dataclass(frozen=True, slots=True)
class Requirement:
    """A model's answer. `rows` explain it: what was added up, in the order of the rule."""

    parts: tuple[Part, ...]
    rows: tuple[Row, ...] = ()

    @property
    def equity(self) -> Decimal:
        with localcontext(EXACT):
            return sum((part.equity for part in self.parts), ZERO)

    @property
    def initial(self) -> Decimal:
        with localcontext(EXACT):
            return sum((part.initial for part in self.parts), ZERO)

    @property
    def maintenance(self) -> Decimal:
        with localcontext(EXACT):
            return sum((part.maintenance for part in self.parts), ZERO)

    @property
    def excess(self) -> Decimal:
        """The least equity - maintenance of any part: one isolated position below its own requirement is liquidated, whatever the
        others hold. Zero when there is no part."""
        return min((part.excess for part in self.parts), default=ZERO)

    @property
    def is_liquidatable(self) -> bool:
        return self.excess < 0


class Model(Protocol):
    """A venue's margin rule with its parameters."""

    @property
    def is_piecewise_linear(self) -> bool:
        """Whether equity - maintenance of each part is linear in a common move of prices between `kinks`."""
        ...

    def requirement(self, account: Account) -> Requirement:
        """Equity and requirements of `account`. Raises `InvalidFields` when a figure that the rule needs is missing."""
        ...

    def kinks(self, account: Account, assets: Collection[str]) -> tuple[Decimal, ...]:
        """Factors > 0 of the prices of `assets` at which the rule changes its slope or jumps: tier bounds, strikes, entries."""
        ...


def unrealised(position: Position) -> Decimal:
    """size x mark - entry notional - funding owed, in quote."""
    with localcontext(EXACT):
        return position.size * position.mark_price - position.entry_notional - position.pending_funding


def netted(positions: Collection[Position]) -> dict[str, Decimal]:
    """Signed notional (size x mark) by asset: venues net what is held of one market, so splitting a position changes nothing."""
    notional: dict[str, Decimal] = {}
    with localcontext(EXACT):
        for position in positions:
            notional[position.asset] = notional.get(position.asset, ZERO) + position.size * position.mark_price
    return notional
