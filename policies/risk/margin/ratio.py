"""Requirements that are a share of notional: the simple "ratio" model, and Perpetual Protocol v2."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from decimal import Decimal, localcontext

from policies.margin import EXACT, PERP_V2_INITIAL_RATIO, PERP_V2_MAINTENANCE_RATIO
from policies.risk.margin.account import ZERO, Account, Part, Requirement, netted, unrealised
from policies.risk.margin.terms import Terms


@dataclass(frozen=True, slots=True)
class Ratio:
    """Cross margin at one rate for all markets, quote, exact.

    E = cash + collateral + sum of unrealised;  IM = initial x sum |N|,  MM = maintenance x sum |N|,  N = size x mark by market, netted.
    """

    initial_ratio: Decimal
    maintenance_ratio: Decimal
    is_piecewise_linear = True

    @classmethod
    def of(cls, terms: Terms) -> Ratio:
        return cls(terms.get("initial_ratio"), terms.get("maintenance_ratio"))

    def requirement(self, account: Account) -> Requirement:
        equity = cross_equity(account)
        with localcontext(EXACT):
            notional = sum((abs(n) for n in netted(account.positions).values()), ZERO)
            part = Part("account", equity, self.initial_ratio * notional, self.maintenance_ratio * notional)
        return Requirement((part,), (("equity", equity), ("notional", notional)))

    def kinks(self, account: Account, assets: Collection[str]) -> tuple[Decimal, ...]:  # noqa: ARG002
        return ()


@dataclass(frozen=True, slots=True)
class PerpV2:
    """Perpetual Protocol v2, quote, exact.

    Maintenance = 6.25 % x sum |size| P against account value (collateral + unrealised - funding). Initial = 10 % x total debt value, where
    debt = max(0, sum of entry notionals) + sum over shorts of |size| P, and what can be opened with is min(collateral, account value).
    Source: Perpetual Protocol v2 (curie), Vault.getFreeCollateralByRatio, AccountBalance.getTotalDebtValue and
    getMarginRequirementForLiquidation. Takers only: quote balances of liquidity orders are not in `entry_notional`.
    """

    initial_ratio: Decimal = PERP_V2_INITIAL_RATIO
    maintenance_ratio: Decimal = PERP_V2_MAINTENANCE_RATIO
    is_piecewise_linear = True

    @classmethod
    def of(cls, terms: Terms) -> PerpV2:
        return cls(
            terms.get("initial_ratio", PERP_V2_INITIAL_RATIO), terms.get("maintenance_ratio", PERP_V2_MAINTENANCE_RATIO)
        )

    def requirement(self, account: Account) -> Requirement:
        equity = cross_equity(account)
        by_market = netted(account.positions).values()
        with localcontext(EXACT):
            notional = sum((abs(n) for n in by_market), ZERO)
            base_debt = sum((-n for n in by_market if n < 0), ZERO)
            quote_debt = max(ZERO, sum((p.entry_notional for p in account.positions), ZERO))
            part = Part(
                "account", equity, self.initial_ratio * (base_debt + quote_debt), self.maintenance_ratio * notional
            )
        rows = (("equity", equity), ("notional", notional), ("quote debt", quote_debt), ("base debt", base_debt))
        return Requirement((part,), rows)

    def kinks(self, account: Account, assets: Collection[str]) -> tuple[Decimal, ...]:  # noqa: ARG002
        return ()


def cross_equity(account: Account) -> Decimal:
    """cash + collateral at its price + unrealised profits net of funding, quote, exact."""
    with localcontext(EXACT):
        return (
            account.cash
            + sum((c.amount * c.price for c in account.collateral), ZERO)
            + sum((unrealised(p) for p in account.positions), ZERO)
        )
