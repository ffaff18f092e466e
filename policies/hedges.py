"""From `guards.delta_hedge` of a policy to the configuration of DeltaHedge on chain. Pure: no calls, no keys."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from decimal import ROUND_CEILING, ROUND_FLOOR, ROUND_HALF_EVEN, Decimal, localcontext
from typing import Any

from contracts.errors import BadInput
from contracts.types import Address
from contracts.units import WAD
from policies.guards import bound, oracle_config, whole_bps
from policies.hedge_rules import HedgeRule
from policies.margin import EXACT
from policies.policy import Policy

Book = Mapping[str, Address]
_ZERO = bytes(20)
_PERPS = {"perp": "seawall.perp_hedge_adapter"}
_OPTIONS = {"lyra": "seawall.lyra_delta"}
_FIELDS = (
    "authority", "options", "perp", "market", "spot", "target", "band", "least trade", "largest trade", "largest position",
    "most turnover", "turnover within", "slippage", "cool-down", "public after", "refund share", "largest refund", "expires", "oracle",
)  # fmt: skip
_SIZES = ("target", "band", "least trade", "largest trade", "largest position", "most turnover")
HEDGE_ENDS = _FIELDS.index("expires")


def hedge_config(rule: HedgeRule, policy: Policy, book: Book, now_s: int) -> tuple[object, ...]:
    """One hedge as IDeltaHedge.Hedge. Caps and the band are rounded down and the least trade up, so that no bound gets looser.

    Raises BadInput for an unbound name or a venue without adapter.
    """
    where = f"hedge {rule.id} of policy {policy.name}"
    if rule.venue not in _PERPS:
        raise BadInput(f"{where}: venue {rule.venue!r} has no adapter here; there is perp")
    if rule.options and rule.options not in _OPTIONS:
        raise BadInput(f"{where}: no deltas are known of the options of {rule.options!r}; there is lyra")

    def down(size: Decimal) -> int:
        return int((size * WAD).to_integral_value(ROUND_FLOOR))

    with localcontext(EXACT):
        return (
            _ZERO if policy.freeze is None else bound("seawall.emergency_freeze", policy, book),
            bound(_OPTIONS[rule.options], policy, book) if rule.options else _ZERO,
            bound(_PERPS[rule.venue], policy, book),
            bound(f"perp.{rule.asset.lower()}", policy, book),
            bound(rule.spot, policy, book) if rule.spot else _ZERO,
            int((rule.target * WAD).to_integral_value(ROUND_HALF_EVEN)),
            down(rule.band),
            int((rule.min_trade * WAD).to_integral_value(ROUND_CEILING)),
            down(rule.max_trade),
            down(rule.max_position),
            down(rule.max_turnover),
            rule.turnover_within_s,
            whole_bps(rule.slippage),
            rule.cooldown_s,
            rule.public_delay_s,
            whole_bps(rule.refund_share),
            rule.refund_cap_wei,
            now_s + rule.valid_for_s if rule.valid_for_s else 0,
            oracle_config(replace(rule.oracle, deviation_patience_s=0), policy, book),
        )


def hedge_fields(hedge: Sequence[Any], show: Callable[[Any], str]) -> dict[str, str]:
    """What an IDeltaHedge.Hedge says, for people and for comparison. `show` writes a value, addresses by their names."""
    fields = {label: show(value) for label, value in zip(_FIELDS, hedge, strict=True)}
    for label in _SIZES:
        fields[label] = f"{Decimal(hedge[_FIELDS.index(label)]).scaleb(-18).normalize():f}"
    return fields
