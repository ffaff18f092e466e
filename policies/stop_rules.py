"""`guards.stop_loss` of a policy file as types."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from decimal import Decimal
from typing import Any

from contracts.types import Wei
from contracts.units import to_units
from policies.oracle_rules import OracleRule, oracle_rule

STOP_LOSS = "seawall.stop_loss"
MAX_SLIPPAGE = Decimal("0.5")
"""Source: StopLoss.MAX_SLIPPAGE_BPS."""


@dataclass(frozen=True, slots=True)
class StopVenue:
    """How a policy file names a position there. `optional` fields have defaults; `has_entry`: its positions have an entry price."""

    adapter: str
    needs: tuple[str, ...]
    optional: tuple[str, ...] = ()
    has_entry: bool = False


VENUES: Mapping[str, StopVenue] = {
    "perp": StopVenue("seawall.perp_adapter", ("asset",), has_entry=True),
    "uniswap": StopVenue("seawall.uniswap_adapter", ("token", "quote"), ("pool_fee",)),
    "aave": StopVenue("seawall.aave_unwind_adapter", ("token", "quote"), ("pool_fee",)),
    "lyra": StopVenue("seawall.lyra_adapter", ("position",)),
}
"""Where stops can be, by the names of `venue`."""
TRIGGERS = ("drop", "gain", "price", "trail", "trail_distance")
"""Exactly one says when; the first two count from the entry price, the last two from the best price since the arming."""


@dataclass(frozen=True, slots=True)
class StopRule:
    """A stop or take-profit; exactly one of `drop`, `gain` (fractions of the entry price), `price`, `trail` (fraction of the best price) and
    `trail_distance` (quote) is set. A trailing stop's best price begins at `start`, None: at the entry price.

    A position is an `asset` (perp), a `token` against `quote` in the pool of `pool_fee` (uniswap: what is held; aave: what is supplied, `quote`
    being what is owed), or the venue's own number of it (lyra). `is_profit`: due when the price has moved in the position's favour.
    It closes `amount` (base units), None: `size` of the position; `dust` (base units) is closed with it. Stops of one `group` (0: none) cancel
    each other.
    """

    id: int
    venue: str
    asset: str
    token: str
    quote: str
    pool_fee: Decimal
    position: int
    drop: Decimal | None
    gain: Decimal | None
    price: Decimal | None
    trail: Decimal | None
    trail_distance: Decimal | None
    start: Decimal | None
    is_profit: bool
    size: Decimal
    amount: Decimal | None
    dust: Decimal
    group: int
    max_size_per_execution: Decimal | None
    slippage: Decimal
    max_slippage: Decimal
    widen_s: int
    cooldown_s: int
    public_delay_s: int
    refund_share: Decimal
    refund_cap_wei: Wei
    valid_for_s: int
    oracle: OracleRule

    @property
    def trails(self) -> bool:
        return self.trail is not None or self.trail_distance is not None


def stop_rule(entry: Mapping[str, Any]) -> StopRule:
    """One entry of a checked document."""

    def decimal(key: str) -> Decimal | None:
        return Decimal(entry[key]) if key in entry else None

    return StopRule(
        id=int(entry["id"]),
        venue=entry["venue"],
        asset=entry.get("asset", ""),
        token=entry.get("token", ""),
        quote=entry.get("quote", ""),
        pool_fee=Decimal(entry.get("pool_fee", "0.003")),
        position=int(entry.get("position", 0)),
        drop=decimal("drop"),
        gain=decimal("gain"),
        price=decimal("price"),
        trail=decimal("trail"),
        trail_distance=decimal("trail_distance"),
        start=decimal("start"),
        is_profit="gain" in entry or entry.get("take_profit", False),
        size=Decimal(entry.get("size", "1")),
        amount=decimal("amount"),
        dust=Decimal(entry.get("dust", "0")),
        group=int(entry.get("group", 0)),
        max_size_per_execution=decimal("max_size_per_execution"),
        slippage=Decimal(entry["slippage"]),
        max_slippage=Decimal(entry["max_slippage"]),
        widen_s=int(entry.get("widen", 120)),
        cooldown_s=int(entry.get("cooldown", 30)),
        public_delay_s=int(entry.get("public_delay", 120)),
        refund_share=Decimal(entry.get("refund_share", "1")),
        refund_cap_wei=to_units(entry.get("refund_cap", "0"), 18),
        valid_for_s=int(entry.get("valid_for", 0)),
        oracle=oracle_rule(entry["oracle"]),
    )
