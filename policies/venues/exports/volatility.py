"""Implied volatilities that a venue's answer leaves out: from the option's own mark, else from a surface through the venue's other options.

Pure. The figure is a model's, so it is written with 12 significant digits.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from decimal import Context, Decimal

from contracts.errors import BadInput
from policies.risk.implied import implied_vol

YEAR_S = 31_536_000
_SIGNIFICANT = Context(prec=12)
_LEAST_QUOTES = 5
"""An expiry with fewer quotes has no surface: SVI has five parameters."""


@dataclass(frozen=True, slots=True)
class Listed:
    """An option that the venue quotes: `expiry_s` unix s, `forward` and `strike` in unit of account, `vol` annualised (0.8 = 80 %)."""

    expiry_s: int
    strike: Decimal
    forward: Decimal
    vol: Decimal


def vol_of(
    price: Decimal,
    forward: Decimal,
    strike: Decimal,
    expiry_s: int,
    time_s: int,
    chain: Sequence[Listed],
    *,
    is_call: bool,
) -> Decimal | None:
    """The volatility at which Black's formula on `forward` gives `price`, undiscounted, `time_s` being now (unix s).

    A mark that no volatility explains (below intrinsic, as deep options are quoted when the forward has just moved) says nothing; then an
    SVI slice through what `chain` has of the same expiry does, where that is five options or more. None where nothing does, and for an
    option that is past its expiry.
    """
    years = (expiry_s - time_s) / YEAR_S
    if years <= 0:
        return None
    try:
        found = implied_vol(float(price), float(forward), float(strike), years, is_call=is_call)
    except BadInput:
        found = 0.0
    if found > 0:
        return _SIGNIFICANT.create_decimal_from_float(found)
    quoted = {one.strike: one for one in chain if one.expiry_s == expiry_s and one.vol > 0}
    if len(quoted) < _LEAST_QUOTES:
        return None
    return _SIGNIFICANT.create_decimal_from_float(_on_surface(years, strike, forward, quoted))


def _on_surface(years: float, strike: Decimal, forward: Decimal, quoted: Mapping[Decimal, Listed]) -> float:
    from policies.risk.surface import Quote, fit

    quotes = [Quote(float(one.strike), float(one.vol)) for one in quoted.values()]
    return fit([(years, float(forward), quotes)]).vol(float(strike), float(forward), years)
