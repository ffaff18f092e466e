"""Filtered-historical simulation: past returns carried to today's volatility before they are replayed.

Each asset's conditional variance follows a GARCH(1,1) recursion, of which exponential weighting (EWMA, RiskMetrics) is a case:

    v[t+1] = omega + alpha r[t]^2 + beta v[t]               EWMA with decay lambda: omega = 0, alpha = 1 - lambda, beta = lambda
    filtered r[t] = r[t] x sqrt(v[n+1] / v[t])              n returns; v[n+1] is the forecast for the next period

v[1] is the long-run variance omega / (1 - alpha - beta), and the mean square of the sample where there is none (alpha + beta = 1). Dates
are kept together, so the dependence between assets stays that of history. Parameters are given, not fitted: a Decision must not depend
on where an optimiser stops. All in 34-digit decimal arithmetic, results to 18 decimals, so a replay has the same figures everywhere.
Source: Hull and White, Incorporating volatility updating into the historical simulation method, J. Risk 1 (1998); Barone-Adesi,
Giannopoulos and Vosper, VaR without correlations for nonlinear portfolios (1999).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from decimal import ROUND_HALF_EVEN, Context, Decimal, localcontext

from contracts.errors import BadInput
from policies.portfolio import Returns
from policies.risk.scenarios_sets import Replay

_CONTEXT = Context(prec=34, rounding=ROUND_HALF_EVEN)
_QUANTUM = Decimal(1).scaleb(-18)


@dataclass(frozen=True, slots=True)
class VolatilityFilter:
    """omega >= 0 (variance of a period), alpha >= 0, beta >= 0, 0 < alpha + beta <= 1. Raises BadInput."""

    omega: Decimal
    alpha: Decimal
    beta: Decimal

    def __post_init__(self) -> None:
        given = (self.omega, self.alpha, self.beta)
        if not all(x.is_finite() and x >= 0 for x in given) or not 0 < self.alpha + self.beta <= 1:
            raise BadInput(
                f"omega, alpha, beta = {', '.join(map(str, given))}: none may be negative, and alpha + beta must lie above 0 and "
                "not above 1, or the variance explodes"
            )

    @classmethod
    def ewma(cls, decay: Decimal = Decimal("0.94")) -> VolatilityFilter:
        """Exponential weighting; 0.94 is the RiskMetrics figure for daily returns. Raises BadInput unless 0 < decay < 1."""
        if not decay.is_finite() or not 0 < decay < 1:
            raise BadInput(f"a decay of {decay}: it must lie between 0 and 1, 0.94 is usual for daily returns")
        return cls(Decimal(0), 1 - decay, decay)

    def variances(self, returns: Sequence[Decimal]) -> tuple[Decimal, ...]:
        """v[1] to v[n+1] for n returns, 34 digits. Raises BadInput."""
        if not returns or not all(r.is_finite() for r in returns):
            raise BadInput("a volatility filter needs at least one return, all of them finite")
        with localcontext(_CONTEXT):
            reversion = 1 - self.alpha - self.beta
            variance = sum((r * r for r in returns), Decimal(0)) / len(returns)
            if reversion > 0 and self.omega > 0:
                variance = self.omega / reversion
            found = [variance]
            for r in returns:
                variance = self.omega + self.alpha * (r * r) + self.beta * variance
                found.append(variance)
        return tuple(found)

    def apply(self, returns: Sequence[Decimal]) -> tuple[Decimal, ...]:
        """Filtered returns, 18 decimals; none below -1, since no price falls by more. Raises BadInput."""
        variances = self.variances(returns)
        filtered = []
        with localcontext(_CONTEXT):
            for r, variance in zip(returns, variances, strict=False):
                # No variance yet means that every return so far was zero, this one included or the sample all zero.
                scaled = r * (variances[-1] / variance).sqrt() if variance else r
                filtered.append(max(scaled, Decimal(-1)).quantize(_QUANTUM))
        return tuple(filtered)


def filtered_replay(returns: Sequence[Returns], volatility: VolatilityFilter, time_s: int = 0) -> Replay:
    """The replay of filtered returns, each asset by its own volatility. Raises BadInput (see `Replay.of`)."""
    return Replay.of([replace(r, values=volatility.apply(r.values)) for r in returns], time_s=time_s)
