"""GMX: isolated leveraged positions whose size is fixed in USD.

size_usd is `entry_notional` and the tokens are `size` = size_usd / entry; profit = size x price - entry_notional.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from decimal import Decimal, localcontext

from contracts.errors import InvalidFields
from policies.margin import EXACT
from policies.risk.margin.account import ZERO, Account, Part, Requirement, Row
from policies.risk.margin.terms import Terms

_TIGHT = 60


@dataclass(frozen=True, slots=True)
class Gmx:
    """v2: liquidatable when collateral + profit - fees < max(size_usd x min_collateral_factor, min_collateral_usd).

    v1: profits do not count: collateral + min(profit, 0) < max(fees + liquidation_fee_usd, size_usd / max_leverage).
    Price impact is not in it.   Source: GMX docs, "Liquidations"; gmx-contracts Vault.validateLiquidation; gmx-synthetics
    PositionUtils.isPositionLiquidatable.

    Terms by asset: `collateral` (quote), `collateral_base` (units of the index token), `fees_usd`, `min_collateral_factor`,
    `min_collateral_usd` (v2), `max_leverage`, `liquidation_fee_usd` (v1).
    """

    terms: Terms
    version: int
    is_piecewise_linear = True

    def requirement(self, account: Account) -> Requirement:
        parts: list[Part] = []
        rows: list[Row] = []
        for asset in sorted({p.asset for p in account.positions}):
            for is_long in (True, False):
                own = [p for p in account.positions if p.asset == asset and p.size and (p.size > 0) == is_long]
                if not own:
                    continue
                side = "long" if is_long else "short"
                mark = own[0].mark_price
                with localcontext(EXACT):
                    size_usd = abs(sum((p.entry_notional for p in own), ZERO))
                    profit = sum((p.size * p.mark_price - p.entry_notional for p in own), ZERO)
                    fees = self._figure("fees_usd", asset, side) + sum((p.pending_funding for p in own), ZERO)
                    backing = (
                        self._figure("collateral", asset, side) + self._figure("collateral_base", asset, side) * mark
                    )
                part = self._part(f"{asset} {side}", asset, size_usd, profit, fees, backing)
                parts.append(part)
                rows += [
                    (f"size {part.label}", size_usd),
                    (f"profit {part.label}", profit),
                    (f"fees {part.label}", fees),
                ]
        return Requirement(tuple(parts), tuple(rows))

    def _part(
        self, label: str, asset: str, size_usd: Decimal, profit: Decimal, fees: Decimal, backing: Decimal
    ) -> Part:
        with localcontext(EXACT):
            if self.version == 1:
                most = self.terms.of("max_leverage", asset)
                if most <= 0:
                    raise InvalidFields(f"margin model {self.terms.model}: max_leverage of {asset} is {most}")
                with localcontext() as context:
                    context.prec = _TIGHT
                    by_size = size_usd / most
                needed = max(fees + self.terms.of("liquidation_fee_usd", asset, ZERO), by_size)
                return Part(label, backing + min(profit, ZERO), needed, needed)
            factor = self.terms.of("min_collateral_factor", asset)
            needed = max(size_usd * factor, self.terms.of("min_collateral_usd", asset, ZERO))
            return Part(label, backing + profit - fees, needed, needed)

    def _figure(self, name: str, asset: str, side: str) -> Decimal:
        """`name.ASSET.long` or `.short`, else `name.ASSET`, else 0."""
        own = self.terms.values.get(f"{name}.{asset}.{side}")
        return self.terms.of(name, asset, ZERO) if own is None else self.terms.get(f"{name}.{asset}.{side}")

    def kinks(self, account: Account, assets: Collection[str]) -> tuple[Decimal, ...]:
        """v1 stops counting profits where a position is even."""
        sums: dict[tuple[str, bool], tuple[Decimal, Decimal]] = {}
        with localcontext(EXACT):
            for p in account.positions:
                if p.asset in assets and p.size:
                    entry, value = sums.get((p.asset, p.size > 0), (ZERO, ZERO))
                    sums[p.asset, p.size > 0] = (entry + p.entry_notional, value + p.notional)
        with localcontext() as context:
            context.prec = _TIGHT
            return tuple(entry / value for entry, value in sums.values() if value and entry / value > 0)
