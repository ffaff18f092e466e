"""`guards.delta_hedge` of a policy file as types."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from decimal import Decimal
from typing import Any

from contracts.types import Wei
from contracts.units import to_units
from policies.oracle_rules import OracleRule, oracle_rule

HEDGE = "seawall.delta_hedge"
MAX_SLIPPAGE = Decimal("0.1")
"""Source: DeltaHedge.MAX_SLIPPAGE_BPS."""


@dataclass(frozen=True, slots=True)
class HedgeRule:
    """One hedge. Sizes and deltas are base units of `asset`, shares fractions, times seconds. `options` and `spot` are empty for none."""

    id: int
    venue: str
    asset: str
    options: str
    spot: str
    target: Decimal
    band: Decimal
    min_trade: Decimal
    max_trade: Decimal
    max_position: Decimal
    max_turnover: Decimal
    turnover_within_s: int
    slippage: Decimal
    cooldown_s: int
    public_delay_s: int
    refund_share: Decimal
    refund_cap_wei: Wei
    valid_for_s: int
    oracle: OracleRule


def hedge_rule(entry: Mapping[str, Any]) -> HedgeRule:
    """One entry of a checked document."""
    return HedgeRule(
        id=int(entry["id"]),
        venue=entry["venue"],
        asset=entry["asset"],
        options=entry.get("options", ""),
        spot=entry.get("spot", ""),
        target=Decimal(entry.get("target", "0")),
        band=Decimal(entry["band"]),
        min_trade=Decimal(entry.get("min_trade", entry["band"])),
        max_trade=Decimal(entry["max_trade"]),
        max_position=Decimal(entry["max_position"]),
        max_turnover=Decimal(entry["max_turnover"]),
        turnover_within_s=int(entry.get("turnover_within", 86_400)),
        slippage=Decimal(entry.get("slippage", "0.01")),
        cooldown_s=int(entry.get("cooldown", 60)),
        public_delay_s=int(entry.get("public_delay", 600)),
        refund_share=Decimal(entry.get("refund_share", "1")),
        refund_cap_wei=to_units(entry.get("refund_cap", "0"), 18),
        valid_for_s=int(entry.get("valid_for", 0)),
        oracle=oracle_rule(entry["oracle"], patience_s=0),
    )
