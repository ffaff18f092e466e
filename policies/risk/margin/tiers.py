"""Maintenance that grows in tiers of notional: Hyperliquid, and Binance-style linear (USDT-M) and inverse (COIN-M) contracts.

    MM = notional x rate - deduction,   of the tier that contains the notional

A deduction that is not given is the one that makes MM continuous: d_k = d_(k-1) + bound_k x (rate_k - rate_(k-1)). Given ones are taken as
they are, so a table that jumps is judged with its jump.   Source: Hyperliquid docs, "Margin tiers" and "Liquidations"; Binance, "Leverage
and margin of USDT-M / COIN-M futures".
"""

from __future__ import annotations

from collections.abc import Collection, Iterable
from dataclasses import dataclass
from decimal import Decimal, localcontext

from contracts.errors import InvalidFields
from policies.margin import EXACT
from policies.portfolio import Position
from policies.risk.margin.account import ZERO, Account, Part, Requirement, Row, netted, unrealised
from policies.risk.margin.terms import Terms

_TIGHT = 60
"""Digits of quotients that no venue fixes."""


@dataclass(frozen=True, slots=True)
class Tier:
    """From `floor` of notional on (inclusive): MM = notional x `rate` - `deduction`."""

    floor: Decimal
    rate: Decimal
    deduction: Decimal


def tiers(
    steps: Iterable[tuple[Decimal, Decimal]], deductions: dict[Decimal, Decimal] | None = None
) -> tuple[Tier, ...]:
    """Tiers of (floor, rate), ascending from 0, with the continuous deduction wherever `deductions` (by floor) gives none.

    Raises `InvalidFields` when the first floor is not zero, or a rate is outside 0 to 1.
    """
    found: list[Tier] = []
    for floor, rate in sorted(steps):
        if not found and floor != 0:
            raise InvalidFields(f"the first tier begins at {floor}, not at 0")
        if not 0 <= rate <= 1:
            raise InvalidFields(f"the maintenance rate {rate} from {floor} on is outside 0 to 1")
        with localcontext(EXACT):
            continuous = found[-1].deduction + floor * (rate - found[-1].rate) if found else ZERO
        found.append(Tier(floor, rate, (deductions or {}).get(floor, continuous)))
    return tuple(found)


def tier_of(table: tuple[Tier, ...], notional: Decimal) -> Tier:
    """The tier with the highest floor that is not above `notional` >= 0."""
    return next(tier for tier in reversed(table) if tier.floor <= notional)


def maintenance(table: tuple[Tier, ...], notional: Decimal) -> Decimal:
    """MM in quote of a position of `notional` >= 0, exact; never below zero."""
    tier = tier_of(table, notional)
    with localcontext(EXACT):
        return max(ZERO, notional * tier.rate - tier.deduction)


@dataclass(frozen=True, slots=True)
class Tiered:
    """Cross and isolated margin with a table of tiers by asset.

    Cross: E = cash + collateral + unrealised of cross positions; IM = sum N / leverage; MM = sum over assets. `isolated` gives the quote
    set aside for an asset's position, which is a part of its own with E = that + unrealised; it is not in `cash`.
    With `is_inverse` notional is the contracts' quote value |entry_notional|, which no price moves, so that MM in coin falls as it rises.
    """

    name: str
    tables: dict[str, tuple[Tier, ...]]
    leverage: dict[str, Decimal]
    isolated: dict[str, Decimal]
    is_inverse: bool = False
    is_piecewise_linear = True

    def requirement(self, account: Account) -> Requirement:
        cross = [p for p in account.positions if p.asset not in self.isolated]
        with localcontext(EXACT):
            base = account.cash + sum((c.amount * c.price for c in account.collateral), ZERO)
        parts, rows = [], []
        part, lines = self._part("account", base, cross)
        parts.append(part)
        rows += lines
        for asset, margin in sorted(self.isolated.items()):
            own = [p for p in account.positions if p.asset == asset]
            if any(p.size for p in own):
                part, lines = self._part(f"isolated {asset}", margin, own)
                parts.append(part)
                rows += lines
        return Requirement(tuple(parts), tuple(rows))

    def _part(self, label: str, base: Decimal, positions: Collection[Position]) -> tuple[Part, list[Row]]:
        rows: list[Row] = []
        with localcontext(EXACT):
            equity = base + sum((unrealised(p) for p in positions), ZERO)
        initial = least = ZERO
        for asset, notional in sorted(self._notionals(positions).items()):
            if not notional:
                continue
            needed = maintenance(self._table(asset), notional)
            with localcontext(EXACT):
                least += needed
            with localcontext() as context:
                context.prec = _TIGHT
                opening = max(needed, notional / self.leverage[asset]) if asset in self.leverage else needed
            with localcontext(EXACT):
                initial += opening
            rows.append((f"maintenance {asset}", needed))
        return Part(label, equity, initial, least), [(f"equity {label}", equity), *rows]

    def _notionals(self, positions: Collection[Position]) -> dict[str, Decimal]:
        if not self.is_inverse:
            return {asset: abs(value) for asset, value in netted(positions).items()}
        found: dict[str, Decimal] = {}
        with localcontext(EXACT):
            for position in positions:
                found[position.asset] = found.get(position.asset, ZERO) + position.entry_notional
        return {asset: abs(value) for asset, value in found.items()}

    def _table(self, asset: str) -> tuple[Tier, ...]:
        if asset not in self.tables:
            raise InvalidFields(f"margin model {self.name} has no maintenance tiers for {asset}")
        return self.tables[asset]

    def kinks(self, account: Account, assets: Collection[str]) -> tuple[Decimal, ...]:
        """Where a moved notional reaches a bound of its tiers."""
        if self.is_inverse:
            return ()
        found: list[Decimal] = []
        with localcontext() as context:
            context.prec = _TIGHT
            for asset, notional in netted(account.positions).items():
                if asset in assets and notional:
                    for tier in self._table(asset):
                        if tier.floor:
                            found.append(tier.floor / abs(notional))
                        if tier.rate:
                            found.append(tier.deduction / tier.rate / abs(notional))
        return tuple(factor for factor in found if factor > 0)


def hyperliquid(terms: Terms, assets: Collection[str]) -> Tiered:
    """Hyperliquid: rate of a tier = 1 / (2 x its maximum leverage), continuous deductions; IM = notional / the user's leverage (else the
    first tier's maximum).

    Terms: `max_leverage.ASSET` and `max_leverage.ASSET.FROM` (from that notional on), `leverage.ASSET`, `isolated.ASSET` (quote).
    """
    tables: dict[str, tuple[Tier, ...]] = {}
    chosen: dict[str, Decimal] = {}
    for asset in assets:
        steps = terms.steps("max_leverage", asset)
        if any(most <= 0 for _, most in steps):
            raise InvalidFields(f"margin model {terms.model}: max_leverage.{asset} is not positive")
        with localcontext() as context:
            context.prec = _TIGHT
            tables[asset] = tiers([(floor, 1 / (2 * most)) for floor, most in steps])
        chosen[asset] = _leverage(terms, asset, steps[0][1])
    return Tiered(terms.model, tables, chosen, terms.under("isolated"))


def binance_linear(terms: Terms, assets: Collection[str]) -> Tiered:
    """Binance USDT-M: MM = notional x rate - deduction ("maintenance amount"); notional at the mark.

    Terms: `maintenance_rate.ASSET[.FROM]`, `deduction.ASSET[.FROM]` (continuous when not given), `leverage.ASSET`, `isolated.ASSET`.
    """
    return _binance(terms, assets, is_inverse=False)


def binance_inverse(terms: Terms, assets: Collection[str]) -> Tiered:
    """Binance COIN-M: M + side N (1/E - 1/P) against rate x N / P in coin, taken here times P: in quote, N the contracts' quote value.

    The coin margin is a `Collateral`; positions as `Account` says. Terms as of `binance_linear`, FROM and deductions in quote.
    """
    return _binance(terms, assets, is_inverse=True)


def _binance(terms: Terms, assets: Collection[str], *, is_inverse: bool) -> Tiered:
    tables: dict[str, tuple[Tier, ...]] = {}
    chosen: dict[str, Decimal] = {}
    for asset in assets:
        has_own = any(key.split(".")[0] == asset for key in terms.under("deduction"))
        given = dict(terms.steps("deduction", asset)) if has_own else {}
        tables[asset] = tiers(terms.steps("maintenance_rate", asset), given)
        if terms.values.get(f"leverage.{asset}", terms.values.get("leverage")) is not None:
            chosen[asset] = _leverage(terms, asset, None)
    return Tiered(terms.model, tables, chosen, terms.under("isolated"), is_inverse)


def _leverage(terms: Terms, asset: str, default: Decimal | None) -> Decimal:
    leverage = terms.of("leverage", asset, default)
    if leverage <= 0:
        raise InvalidFields(f"margin model {terms.model}: leverage of {asset} is {leverage}")
    return leverage
