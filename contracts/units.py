"""Decimal amounts of people against integer amounts of the chain. Nothing here rounds in silence."""

from __future__ import annotations

from decimal import Context, Decimal, DecimalException, Inexact, InvalidOperation, Overflow, localcontext

from contracts.errors import BadInput

WAD = 10**18
"""1.0 in 18-decimal fixed point."""
BPS = 10_000
"""1.0 in basis points."""

_EXACT = Context(prec=120, Emax=120, Emin=-120, traps=[Inexact, InvalidOperation, Overflow])
"""More digits than any amount needs; what would not fit raises instead of being rounded."""


def to_units(amount: str | Decimal, decimals: int, name: str = "amount") -> int:
    """`amount` x 10^`decimals`, exactly. Raises BadInput if that is no integer, not finite, or above 120 digits."""
    with localcontext(_EXACT):
        try:
            value = Decimal(amount)
        except InvalidOperation:
            raise BadInput(f"{name} must be a decimal number such as 1250.50, got {amount!r}") from None
        if not value.is_finite():
            raise BadInput(f"{name} must be finite, got {amount}")
        try:
            scaled = value.scaleb(decimals)
        except DecimalException:
            raise BadInput(f"{name} {amount!s:.40} has too many digits to be an amount") from None
        if scaled != scaled.to_integral_value():
            raise BadInput(f"{name} {amount} has more than {decimals} decimals; the token cannot hold the rest")
        return int(scaled)


def from_units(units: int, decimals: int) -> Decimal:
    """`units` / 10^`decimals`, exactly. `units` has at most 120 digits."""
    with localcontext(_EXACT):
        return Decimal(units).scaleb(-decimals)


def mul_div(a: int, b: int, denominator: int, *, round_up: bool = False) -> int:
    """a x b / denominator; rounds towards minus infinity, or towards plus infinity when `round_up`."""
    product = a * b
    return -(-product // denominator) if round_up else product // denominator
