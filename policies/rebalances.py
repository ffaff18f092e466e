"""From `guards.rebalance` of a policy to the configuration of AutoRebalance on chain. Pure: no calls, no keys."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from decimal import ROUND_CEILING, ROUND_FLOOR, Decimal, localcontext
from typing import Any

from contracts.errors import BadInput
from contracts.types import Address
from contracts.units import WAD
from policies.guards import NO_ORACLE, bound, oracle_config, whole_bps
from policies.margin import EXACT
from policies.policy import OracleRule, Policy
from policies.rebalance_rules import MAX_POOLS, SPANS, RebalanceRule

Book = Mapping[str, Address]
_ZERO = bytes(20)
_ADAPTERS = {"uniswap": "seawall.uniswap_route_adapter"}
_NO_POOL = (_ZERO, 0)
_FIELDS = (
    "authority", "cash", "cash band", "cash price", "on drift", "calendar", "calendar's offset", "least trade", "most turnover",
    "turnover within", "slippage", "cool-down", "public after", "refund share", "largest refund", "expires",
)  # fmt: skip
_MONEY = ("least trade", "most turnover")
ENDS = _FIELDS.index("expires")
_CALENDAR = {number: name or "none" for name, number in SPANS.items()}


def rebalance_config(rule: RebalanceRule, policy: Policy, book: Book, now_s: int) -> tuple[object, ...]:
    """One basket as IAutoRebalance.Basket. Caps are rounded down and the least trade up, so that no bound gets looser.

    Raises BadInput for an unbound name or a venue without adapter.
    """
    if rule.venue not in _ADAPTERS:
        raise BadInput(
            f"basket {rule.id} of policy {policy.name}: venue {rule.venue!r} has no adapter here; there is uniswap"
        )
    adapter = bound(_ADAPTERS[rule.venue], policy, book)

    def oracle(one: OracleRule) -> tuple[object, ...]:
        return oracle_config(replace(one, deviation_patience_s=0), policy, book)

    def pools(fees: Sequence[Decimal]) -> list[tuple[Address, int]]:
        found = [(adapter, int(fee * 1_000_000)) for fee in fees]
        return found + [_NO_POOL] * (MAX_POOLS - len(found))

    with localcontext(EXACT):
        return (
            _ZERO if policy.freeze is None else bound("seawall.emergency_freeze", policy, book),
            bound(rule.cash, policy, book),
            whole_bps(rule.cash_band),
            NO_ORACLE if rule.cash_oracle is None else oracle(rule.cash_oracle),
            rule.on_drift,
            SPANS[rule.every],
            rule.offset_minutes,
            int((rule.min_trade * WAD).to_integral_value(ROUND_CEILING)),
            int((rule.max_turnover * WAD).to_integral_value(ROUND_FLOOR)),
            rule.turnover_within_s,
            whole_bps(rule.slippage),
            rule.cooldown_s,
            rule.public_delay_s,
            whole_bps(rule.refund_share),
            rule.refund_cap_wei,
            now_s + rule.valid_for_s if rule.valid_for_s else 0,
            tuple(
                (
                    bound(asset.token, policy, book),
                    whole_bps(asset.weight),
                    whole_bps(asset.band),
                    oracle(asset.oracle),
                    pools(asset.pool_fees),
                )
                for asset in rule.assets
            ),
        )


def basket_fields(basket: Sequence[Any], show: Callable[[Any], str]) -> dict[str, str]:
    """What an IAutoRebalance.Basket says, for people and for comparison. `show` writes a value, addresses by their names."""
    *settings, assets = basket
    fields = {label: show(value) for label, value in zip(_FIELDS, settings, strict=True)}
    for label in _MONEY:
        fields[label] = f"{Decimal(basket[_FIELDS.index(label)]).scaleb(-18).normalize():f}"
    fields["calendar"] = _CALENDAR.get(basket[_FIELDS.index("calendar")], "unknown")
    for token, weight_bps, band_bps, oracle, pools in assets:
        used = [(adapter, fee) for adapter, fee in pools if any(adapter)]
        fields[f"weight of {show(token)}"] = f"{weight_bps} bps, band {band_bps} bps"
        fields[f"price of {show(token)}"] = show(oracle)
        fields[f"pools of {show(token)}"] = show(used)
    return fields
