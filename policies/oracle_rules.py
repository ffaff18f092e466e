"""`oracle` of a guard in a policy file as a type: a price feed and everything it is held against."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from decimal import Decimal
from typing import Any


@dataclass(frozen=True, slots=True)
class OracleRule:
    feed: str
    heartbeat_s: int
    sequencer_feed: str
    grace_period_s: int
    min_price: Decimal
    max_price: Decimal
    max_deviation: Decimal
    deviation_patience_s: int


def oracle_rule(entry: Mapping[str, Any], *, patience_s: int = 300) -> OracleRule:
    """The section of a checked document. `patience_s` (s) stands where the file says nothing."""
    return OracleRule(
        feed=entry["feed"],
        heartbeat_s=int(entry["heartbeat"]),
        sequencer_feed=entry.get("sequencer_feed", ""),
        grace_period_s=int(entry.get("grace_period", 1800)),
        min_price=Decimal(entry.get("min_price", "0.01")),
        max_price=Decimal(entry.get("max_price", "10000000")),
        max_deviation=Decimal(entry.get("max_deviation", "0.05")),
        deviation_patience_s=int(entry.get("deviation_patience", patience_s)),
    )
