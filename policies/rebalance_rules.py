"""`guards.rebalance` of a policy file as types."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from decimal import Decimal
from typing import Any

from contracts.types import Wei
from contracts.units import to_units
from policies.oracle_rules import OracleRule, oracle_rule

REBALANCE = "seawall.auto_rebalance"
MAX_ASSETS = 8
"""Beside the cash. Source: BasketConfig."""
MAX_POOLS = 3
MAX_SLIPPAGE = Decimal("0.1")
"""Source: BasketConfig.MAX_SLIPPAGE_BPS."""
SPANS = {"": 0, "day": 2, "week": 3, "month": 4}
"""IPolicyHook.Span by the name of a calendar period."""


@dataclass(frozen=True, slots=True)
class BasketAsset:
    """`weight` and `band` are fractions of the basket's equity, `pool_fees` fractions of what is traded."""

    token: str
    weight: Decimal
    band: Decimal
    pool_fees: tuple[Decimal, ...]
    oracle: OracleRule


@dataclass(frozen=True, slots=True)
class RebalanceRule:
    """One basket. `min_trade` and `max_turnover` are values in the unit of account of the oracles (dollars), shares are fractions."""

    id: int
    venue: str
    cash: str
    cash_band: Decimal
    cash_oracle: OracleRule | None
    assets: tuple[BasketAsset, ...]
    on_drift: bool
    every: str
    offset_minutes: int
    min_trade: Decimal
    max_turnover: Decimal
    turnover_within_s: int
    slippage: Decimal
    cooldown_s: int
    public_delay_s: int
    refund_share: Decimal
    refund_cap_wei: Wei
    valid_for_s: int


def rebalance_rule(entry: Mapping[str, Any]) -> RebalanceRule:
    """One entry of a checked document."""
    offset = entry.get("utc_offset", "+00:00")
    minutes = int(offset[1:3]) * 60 + int(offset[4:6])
    return RebalanceRule(
        id=int(entry["id"]),
        venue=entry["venue"],
        cash=entry["cash"],
        cash_band=Decimal(entry["cash_band"]),
        cash_oracle=oracle_rule(entry["cash_oracle"], patience_s=0) if "cash_oracle" in entry else None,
        assets=tuple(
            BasketAsset(
                one["token"],
                Decimal(one["weight"]),
                Decimal(one["band"]),
                tuple(Decimal(fee) for fee in one["pool_fees"]),
                oracle_rule(one["oracle"], patience_s=0),
            )
            for one in entry["assets"]
        ),
        on_drift=entry.get("on_drift", True),
        every=entry.get("every", ""),
        offset_minutes=-minutes if offset[0] == "-" else minutes,
        min_trade=Decimal(entry["min_trade"]),
        max_turnover=Decimal(entry["max_turnover"]),
        turnover_within_s=int(entry.get("turnover_within", 86_400)),
        slippage=Decimal(entry.get("slippage", "0.01")),
        cooldown_s=int(entry.get("cooldown", 300)),
        public_delay_s=int(entry.get("public_delay", 3_600)),
        refund_share=Decimal(entry.get("refund_share", "1")),
        refund_cap_wei=to_units(entry.get("refund_cap", "0"), 18),
        valid_for_s=int(entry.get("valid_for", 0)),
    )
