"""`guards.hook` of a policy file as types."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from decimal import Decimal
from typing import Any

from contracts.errors import BadInput
from policies.names import TOKEN_DECIMALS

HOOK = "seawall.policy_hook"
NATIVE = "native"
"""The native token, where a token is named."""
MAX_WINDOWS = 16
"""Source: HookConfig."""
_EXACT = 2**32 - 1


@dataclass(frozen=True, slots=True)
class Spending:
    """How much of a token (`native`: the native one) may leave within `within_s` seconds, or in a calendar `per`: day, week, month."""

    token: str
    limit: Decimal
    within_s: int
    per: str
    offset_minutes: int
    decimals: int | None


@dataclass(frozen=True, slots=True)
class Cap:
    """The largest standing allowance of a spender; None: any."""

    token: str
    spender: str
    cap: Decimal | None
    decimals: int | None


@dataclass(frozen=True, slots=True)
class HookRule:
    """`guards.hook` of a policy."""

    enforce_calls: bool
    change_delay_s: int
    spending: tuple[Spending, ...]
    approvals: tuple[Cap, ...]


def hook_rule(entry: Mapping[str, Any]) -> HookRule:
    """The section of a checked document."""

    def decimals(one: Mapping[str, Any]) -> int | None:
        return int(one["decimals"]) if "decimals" in one else None

    return HookRule(
        enforce_calls=entry.get("enforce_calls", True),
        change_delay_s=int(entry.get("change_delay", 86_400)),
        spending=tuple(
            Spending(
                one["token"],
                Decimal(one["limit"]),
                int(one.get("within", 0)),
                one.get("per", ""),
                _minutes(one.get("utc_offset", "+00:00")),
                decimals(one),
            )
            for one in entry.get("spending", ())
        ),
        approvals=tuple(
            Cap(
                one["token"],
                one["spender"],
                None if one.get("unlimited", False) else Decimal(one["cap"]),
                decimals(one),
            )
            for one in entry.get("approvals", ())
        ),
    )


def _minutes(offset: str) -> int:
    minutes = int(offset[1:3]) * 60 + int(offset[4:6])
    return -minutes if offset[0] == "-" else minutes


def token_units(amount: Decimal, token: str, decimals: int | None) -> int:
    """Whole units of `amount` tokens. Raises BadInput: the decimals of the token are not known, or it has fewer than the amount."""
    places = {**TOKEN_DECIMALS, NATIVE: 18}.get(token, decimals)
    if places is None:
        raise BadInput(f"the decimals of {token!r} are not known here: add decimals:")
    units = amount.scaleb(places)
    if units != units.to_integral_value():
        raise BadInput(f"{amount:f} {token} has more digits than its {places} decimals")
    return int(units)


def fits_a_window(units: int) -> bool:
    """Whether a window keeps this limit exactly: 32 bits and a power of ten. Source: SpendingWindow.pack."""
    while units > _EXACT and units % 10 == 0:
        units //= 10
    return units <= _EXACT
