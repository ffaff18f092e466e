"""`guards.recovery` of a policy file as types."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

RECOVERY = "seawall.recovery"
MULTISIG = "seawall.multisig_owner"
MIN_DELAY_S, MIN_SILENCE_S, MAX_WAIT_S = 3_600, 86_400, 3650 * 86_400
"""Source: Recovery.MIN_DELAY, MIN_SILENCE, MAX_WAIT."""


@dataclass(frozen=True, slots=True)
class RecoveryRule:
    """Who may replace a lost owner. Names of keys and of contracts (ERC-1271), times in seconds. No `heir`: `silence_s` is 0."""

    guardians: tuple[str, ...]
    contract_guardians: tuple[str, ...]
    threshold: int
    delay_s: int
    heir: str
    silence_s: int


def recovery_rule(entry: Mapping[str, Any]) -> RecoveryRule:
    """The section of a checked document."""
    return RecoveryRule(
        guardians=tuple(entry.get("guardians", ())),
        contract_guardians=tuple(entry.get("contract_guardians", ())),
        threshold=int(entry["threshold"]),
        delay_s=int(entry.get("delay", 259_200)),
        heir=entry.get("heir", ""),
        silence_s=int(entry.get("silence", 15_552_000)) if entry.get("heir") else 0,
    )
