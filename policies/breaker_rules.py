"""`guards.breaker` of a policy file as types."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from decimal import Decimal
from typing import Any

from policies.oracle_rules import OracleRule, oracle_rule

BREAKER = "seawall.equity_breaker"
MAX_ASSETS = 16
"""Source: BreakerConfig."""
SOURCES: Mapping[str, str] = {"perp": "seawall.perp_equity", "aave": "seawall.aave_equity"}
"""What tells an account's worth at a venue."""
STATES: Mapping[str, int] = {"REDUCE_ONLY": 1, "FROZEN": 2}
"""RiskState by name; what a breaker may latch."""


@dataclass(frozen=True, slots=True)
class BreakerAsset:
    """A token (`native`: the native one) and its price in dollars. `quote` and `pool_fee` name the Uniswap v3 pool that is its second source;
    without, the oracle's bounds are. `every_execution`: the second source is asked for every execution."""

    token: str
    oracle: OracleRule
    quote: str
    pool_fee: Decimal
    every_execution: bool


@dataclass(frozen=True, slots=True)
class BreakerRule:
    """Losses are fractions of equity; None: not bounded."""

    loss_per_operation: Decimal | None
    loss_per_day: Decimal | None
    drawdown: Decimal | None
    on_day_loss: str
    on_drawdown: str
    change_delay_s: int
    patience_s: int
    assets: tuple[BreakerAsset, ...]
    venues: tuple[str, ...]


def breaker_rule(entry: Mapping[str, Any]) -> BreakerRule:
    """The section of a checked document."""

    def share(key: str) -> Decimal | None:
        return Decimal(entry[key]) if key in entry else None

    return BreakerRule(
        loss_per_operation=share("loss_per_operation"),
        loss_per_day=share("loss_per_day"),
        drawdown=share("drawdown"),
        on_day_loss=entry.get("on_day_loss", "REDUCE_ONLY"),
        on_drawdown=entry.get("on_drawdown", "REDUCE_ONLY"),
        change_delay_s=int(entry.get("change_delay", 86_400)),
        patience_s=int(entry.get("patience", 60)),
        assets=tuple(
            BreakerAsset(
                one["token"],
                oracle_rule(one["oracle"], patience_s=0),
                one.get("quote", ""),
                Decimal(one.get("pool_fee", "0.003")),
                one.get("every_execution", False),
            )
            for one in entry["assets"]
        ),
        venues=tuple(entry.get("venues", ())),
    )
