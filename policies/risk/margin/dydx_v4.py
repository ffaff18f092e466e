"""dYdX v4: margin and funding in integers as the chain computes them, and a cross account in quote.

Source: dydxprotocol/v4-chain, x/perpetuals/lib.GetMarginRequirementsInQuoteQuantums, types.LiquidityTier, lib.GetSettlementPpm.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from decimal import ROUND_CEILING, Decimal, localcontext
from fractions import Fraction

from policies.margin import EXACT
from policies.risk.margin.account import ZERO, Account, Part, Requirement, Row, netted
from policies.risk.margin.ratio import cross_equity
from policies.risk.margin.terms import Terms

_MILLION = 1_000_000
_QUOTE_RESOLUTION = -6
"""A quote quantum is 1e-6 USDC."""
_QUANTUM = Decimal(1).scaleb(_QUOTE_RESOLUTION)


@dataclass(frozen=True, slots=True)
class LiquidityTier:
    """`imf_ppm` and `maintenance_fraction_ppm` in parts per million; caps of open interest in quote quantums, an upper of 0 turns the
    scaling off."""

    imf_ppm: int
    maintenance_fraction_ppm: int
    oi_lower_cap: int = 0
    oi_upper_cap: int = 0

    def initial(self, notional: int, open_interest: int) -> int:
        """IMR = ceil(notional x min(1, imf + clamp((OI - lower) / (upper - lower), 0, 1) x (1 - imf))), quote quantums."""
        if self.oi_upper_cap and open_interest >= self.oi_upper_cap:
            return notional
        imf = Fraction(self.imf_ppm, _MILLION)
        if self.oi_upper_cap and open_interest > self.oi_lower_cap:
            scale = Fraction(open_interest - self.oi_lower_cap, self.oi_upper_cap - self.oi_lower_cap)
            imf = min(Fraction(1), imf + scale * (1 - imf))
        return _ceiling(notional * imf)

    def maintenance(self, notional: int) -> int:
        """MMR = ceil(ceil(notional x imf) x maintenance fraction), quote quantums: both products round up, against the holder."""
        return _ceiling(
            Fraction(_ceiling(Fraction(notional * self.imf_ppm, _MILLION)) * self.maintenance_fraction_ppm, _MILLION)
        )


def notional_quantums(quantums: int, atomic_resolution: int, price: int, exponent: int) -> int:
    """Base quantums in quote quantums: quantums x price x 10^(atomic_resolution + exponent + 6), truncated towards zero."""
    power = atomic_resolution + exponent - _QUOTE_RESOLUTION
    product = quantums * price
    if power >= 0:
        return int(product * 10**power)
    whole = abs(product) // 10**-power
    return int(whole if product >= 0 else -whole)


def margin_requirements(
    tier: LiquidityTier, quantums: int, open_interest: int, atomic_resolution: int, price: int, exponent: int
) -> tuple[int, int]:
    """(initial, maintenance) in quote quantums of a position of `quantums`, signed, with `open_interest` in base quantums."""
    notional = notional_quantums(abs(quantums), atomic_resolution, price, exponent)
    interest = notional_quantums(open_interest, atomic_resolution, price, exponent)
    return tier.initial(notional, interest), tier.maintenance(notional)


def funding_settlement_ppm(funding_index: int, index: int, quantums: int) -> int:
    """What settling funding pays the holder, in quote quantums x 1e-6: -(funding_index - index) x quantums. Exact."""
    return -(funding_index - index) * quantums


@dataclass(frozen=True, slots=True)
class DydxV4:
    """A cross subaccount: E = cash + unrealised, requirements of each market in whole quote quantums, rounded up.

    Terms by asset (or for all without one): `imf_ppm`, `maintenance_fraction_ppm`, `oi_lower_cap`, `oi_upper_cap` and `open_interest`, the
    last three in quote (USDC) and optional. Open interest is taken as it is given and not moved with the price: the initial requirement
    alone depends on it.
    """

    terms: Terms
    is_piecewise_linear = False

    def requirement(self, account: Account) -> Requirement:
        equity = cross_equity(account)
        rows: list[Row] = [("equity", equity)]
        initial = least = ZERO
        for asset, notional in sorted(netted(account.positions).items()):
            tier = LiquidityTier(
                int(self.terms.of("imf_ppm", asset)),
                int(self.terms.of("maintenance_fraction_ppm", asset)),
                _quantums(self.terms.of("oi_lower_cap", asset, ZERO)),
                _quantums(self.terms.of("oi_upper_cap", asset, ZERO)),
            )
            quantums = _quantums(abs(notional))
            opening = tier.initial(quantums, _quantums(self.terms.of("open_interest", asset, ZERO)))
            needed = tier.maintenance(quantums)
            with localcontext(EXACT):
                initial += opening * _QUANTUM
                least += needed * _QUANTUM
                rows.append((f"maintenance {asset}", needed * _QUANTUM))
        return Requirement((Part("account", equity, initial, least),), tuple(rows))

    def kinks(self, account: Account, assets: Collection[str]) -> tuple[Decimal, ...]:  # noqa: ARG002
        return ()


def _quantums(quote: Decimal) -> int:
    with localcontext(EXACT):
        return int((quote / _QUANTUM).to_integral_value(rounding=ROUND_CEILING))


def _ceiling(value: Fraction | int) -> int:
    return -(-value.numerator // value.denominator) if isinstance(value, Fraction) else value
