"""From `guards.breaker` of a policy to the configuration of EquityBreaker on chain. Pure: no calls, no keys."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from contracts import abi
from contracts import bindings as b
from contracts.errors import BadInput
from contracts.types import Address
from policies.breaker_rules import SOURCES, STATES, BreakerAsset
from policies.guards import bound, oracle_config, whole_bps
from policies.hook_rules import HOOK, NATIVE
from policies.policy import Policy

Book = Mapping[str, Address]
_ZERO = bytes(20)
_STATE_NAMES = {number: name for name, number in STATES.items()}
_SETTINGS = (
    "hook", "authority", "loss an execution", "loss a day", "drawdown", "a day's loss latches", "a drawdown latches", "change delay",
    "patience",
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class BreakerState:
    """A breaker's configuration for one account, as IEquityBreaker.Config."""

    config: tuple[Any, ...]
    announced: Mapping[bytes, int] = field(default_factory=dict)
    """Changes under way, and when they may be carried out."""

    @property
    def change_delay_s(self) -> int:
        delay_s: int = self.config[0][_SETTINGS.index("change delay")]
        return delay_s

    def encode(self) -> bytes:
        """onInstall data of EquityBreaker."""
        return abi.encode([b.BREAKER_CONFIG], [self.config])


def breaker_state(policy: Policy, book: Book) -> BreakerState:
    """What the policy wants of the breaker. Bounds are rounded down to basis points, so that none gets looser.

    Raises BadInput: no `guards.breaker`, or a name without address.
    """
    rule = policy.breaker
    if rule is None:
        raise BadInput(f"policy {policy.name} has no guards.breaker section")

    def asset(one: BreakerAsset) -> tuple[object, ...]:
        token = _ZERO if one.token == NATIVE else bound(one.token, policy, book)
        oracle = oracle_config(one.oracle, policy, book)
        if not one.quote:
            return token, _ZERO, one.every_execution, oracle, b""
        base = bound("weth" if one.token == NATIVE else one.token, policy, book)
        market = abi.encode(
            ["address", "address", "uint24"], [base, bound(one.quote, policy, book), int(one.pool_fee * 1_000_000)]
        )
        return token, bound("seawall.uniswap_adapter", policy, book), one.every_execution, oracle, market

    settings = (
        bound(HOOK, policy, book),
        bound("seawall.emergency_freeze", policy, book),
        *(
            whole_bps(one) if one is not None else 0
            for one in (rule.loss_per_operation, rule.loss_per_day, rule.drawdown)
        ),
        STATES[rule.on_day_loss],
        STATES[rule.on_drawdown],
        rule.change_delay_s,
        rule.patience_s,
    )
    sources = tuple(bound(SOURCES[venue], policy, book) for venue in rule.venues)
    return BreakerState((settings, tuple(map(asset, rule.assets)), sources))


def breaker_fields(state: BreakerState, show: Callable[[Any], str]) -> dict[str, str]:
    """What an IEquityBreaker.Config says, for people and for comparison. `show` writes a value, addresses by their names."""
    settings, assets, sources = state.config
    fields = {label: show(value) for label, value in zip(_SETTINGS, settings, strict=True)}
    for label in ("loss an execution", "loss a day", "drawdown"):
        fields[label] = f"{fields[label]} bps" if fields[label] != "0" else "not bounded"
    for label in ("a day's loss latches", "a drawdown latches"):
        fields[label] = _STATE_NAMES.get(int(fields[label]), "unknown")
    for token, second, always, oracle, market in assets:
        what = NATIVE if token == _ZERO else show(token)
        fields[f"price of {what}"] = show(oracle)
        asked = "for every execution" if always else "for the mark"
        fields[f"second price of {what}"] = f"{show(second)} {show(market)} {asked}" if any(second) else "its bounds"
    fields["sources"] = show(sources)
    return fields
