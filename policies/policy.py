"""A policy in force: the checked document as types. Built from the canonical tree, so it means exactly what its id commits to.

Defaults stand here and belong to the schema version: changing one needs a new version. Percentages are fractions, durations seconds.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from decimal import Decimal
from typing import Any

from contracts.abi import Function
from contracts.types import Hash32, Wei
from contracts.units import to_units
from policies import functions
from policies.breaker_rules import BreakerRule, breaker_rule
from policies.canonical import policy_id
from policies.hedge_rules import HEDGE, HedgeRule, hedge_rule
from policies.hook_rules import HookRule, hook_rule
from policies.limits import (
    Action,
    Limit,
    Override,
    Parameters,
    Scenario,
    Scope,
    limit,
    override,
    scenario,
    stress_limit,
)
from policies.names import ACCOUNT
from policies.oracle_rules import OracleRule, oracle_rule
from policies.rebalance_rules import REBALANCE, RebalanceRule, rebalance_rule
from policies.recovery_rules import RECOVERY, RecoveryRule, recovery_rule
from policies.stop_rules import STOP_LOSS, StopRule, stop_rule

SCHEMA_VERSION = 1
__all__ = [
    "Action", "ApprovalRule", "CallRule", "ExitRule", "FeedPin", "FreezeRule", "Limit", "OracleRule", "Override", "Parameters", "Pin", "Policy",
    "Scenario", "Scope", "SessionRule", "Sponsorship", "StopRule", "argument_word", "build", "call_rule", "exit_rule", "resolve",
    "selectors_of", "word_of",
]  # fmt: skip


@dataclass(frozen=True, slots=True)
class Pin:
    """What one argument of a call must be: one of `values` (names are resolved), or an integer within the range."""

    argument: str
    values: tuple[str, ...] = ()
    minimum: int | None = None
    maximum: int | None = None


@dataclass(frozen=True, slots=True)
class CallRule:
    """Calls that are allowed. Without `selectors`: only plain transfers of up to `max_value_wei`."""

    target: str
    selectors: tuple[bytes, ...]
    pins: tuple[Pin, ...]
    max_value_wei: Wei


@dataclass(frozen=True, slots=True)
class ExitRule:
    """A call that stays open in REDUCE_ONLY. `words` pins argument words: (index, value or name)."""

    target: str
    selector: bytes
    in_frozen: bool
    plain_value: bool
    words: tuple[tuple[int, str], ...]


@dataclass(frozen=True, slots=True)
class FeedPin:
    """What a feed must be: `aggregator` behind it (empty: any) and its `decimals`."""

    asset: str
    feed: str
    aggregator: str
    decimals: int


@dataclass(frozen=True, slots=True)
class HealthRule:
    """One health guard. Factors are plain numbers (1: liquidated below), amounts tokens, shares fractions."""

    id: int
    venue: str
    collateral: str
    debt: str
    floor: Decimal
    target: Decimal
    tolerance: Decimal
    max_repay: Decimal
    max_top_up: Decimal
    max_unwind: Decimal
    pool_fee: Decimal
    slippage: Decimal
    max_slippage: Decimal
    widen_s: int
    cooldown_s: int
    public_delay_s: int
    refund_share: Decimal
    refund_cap_wei: Wei
    valid_for_s: int
    oracle: OracleRule | None


@dataclass(frozen=True, slots=True)
class FreezeRule:
    guardians: tuple[str, ...]
    quorum: int
    solo_freeze_s: int
    cooldown_s: int
    thaw_delay_s: int
    escape_delay_s: int


@dataclass(frozen=True, slots=True)
class SessionRule:
    key: str
    valid_for_s: int
    prefund_budget_wei: Wei


MAX_QUORUMS = 8
"""Quorums that one operation may need on chain. Source: RiskValidator."""


@dataclass(frozen=True, slots=True)
class ApprovalRule:
    id: str
    signers: tuple[str, ...]
    quorum: int


@dataclass(frozen=True, slots=True)
class Sponsorship:
    """Wei a paymaster may spend; None: no bound of the policy's own."""

    per_operation_wei: Wei | None
    per_day_wei: Wei | None


@dataclass(frozen=True, slots=True)
class Policy:
    """Everything `evaluate` and the module configuration need. `document` is the canonical tree that `policy_id` commits to."""

    policy_id: Hash32
    document: Mapping[str, Any]
    schema_version: int
    name: str
    version: str
    accounts: tuple[str, ...]
    chains: tuple[int, ...]
    addresses: Mapping[str, bytes]
    max_price_age_s: int
    max_block_age_s: int
    max_price_deviation: Decimal
    max_depeg: Decimal
    max_returns_age_s: int
    feeds: tuple[FeedPin, ...]
    limits: tuple[Limit, ...]
    overrides: tuple[Override, ...]
    calls: tuple[CallRule, ...]
    exits: tuple[ExitRule, ...]
    stops: tuple[StopRule, ...]
    healths: tuple[HealthRule, ...]
    rebalances: tuple[RebalanceRule, ...]
    hedges: tuple[HedgeRule, ...]
    freeze: FreezeRule | None
    recovery: RecoveryRule | None
    hook: HookRule | None
    breaker: BreakerRule | None
    session: SessionRule | None
    approvals: tuple[ApprovalRule, ...]
    sponsorship: Sponsorship
    attestation_validity_s: int
    attestation_engines: tuple[str, ...]
    attestation_threshold: int
    escape_delay_s: int

    @property
    def every_limit(self) -> tuple[Limit, ...]:
        """All limits, those of overrides included."""
        return self.limits + tuple(one for override in self.overrides for one in override.limits)

    @property
    def guards(self) -> tuple[str, ...]:
        """Names of the guard modules that may act in every state."""
        return self._reducing + (() if self.recovery is None else (RECOVERY,))

    @property
    def _reducing(self) -> tuple[str, ...]:
        named = ((STOP_LOSS, self.stops), ("seawall.health_guard", self.healths))
        return tuple(name for name, rules in named if rules)

    @property
    def triggers(self) -> tuple[str, ...]:
        """Names of all modules that act when due: what reduces in every state, and what rests unless the account is ACTIVE."""
        resting = ((REBALANCE, self.rebalances), (HEDGE, self.hedges))
        return self._reducing + tuple(name for name, rules in resting if rules)


def build(document: Mapping[str, Any]) -> Policy:
    """The typed policy of a canonical tree that was checked by `policies.document`."""
    version = int(document["schema"])
    facts, guards = document.get("facts", {}), document.get("guards", {})
    attestation, budget = document.get("attestation", {}), document.get("sponsorship", {})
    scenarios = {entry["id"]: scenario(entry) for entry in document.get("stress", ())}
    own = {entry["id"]: entry for entry in document.get("limits", ())}
    loose = frozenset(document.get("may_loosen", ()))
    limits = [limit(entry, scenarios) for entry in document.get("limits", ())]
    limits += [stress_limit(entry) for entry in document.get("stress", ())]
    return Policy(
        policy_id=policy_id(version, document),
        document=document,
        schema_version=version,
        name=document["name"],
        version=document["version"],
        accounts=tuple(document.get("accounts", ())),
        chains=tuple(int(chain) for chain in document.get("chains", ())),
        addresses={name: bytes.fromhex(a[2:]) for name, a in document.get("addresses", {}).items()},
        max_price_age_s=int(facts.get("max_price_age", 300)),
        max_block_age_s=int(facts.get("max_block_age", 120)),
        max_price_deviation=Decimal(facts.get("max_price_deviation", "0.03")),
        max_depeg=Decimal(facts.get("max_depeg", "0.02")),
        max_returns_age_s=int(facts.get("max_returns_age", 172_800)),
        feeds=tuple(
            FeedPin(asset, pin["feed"], pin.get("aggregator", ""), int(pin.get("decimals", 8)))
            for asset, pin in sorted(facts.get("feeds", {}).items())
        ),
        limits=tuple(limits),
        overrides=tuple(override(entry, own, scenarios, loose) for entry in document.get("overrides", ())),
        calls=tuple(call_rule(entry) for entry in document.get("calls", ())),
        exits=tuple(exit_rule(entry) for entry in document.get("exits", ())),
        stops=tuple(stop_rule(entry) for entry in guards.get("stop_loss", ())),
        healths=tuple(_health(entry) for entry in guards.get("health", ())),
        rebalances=tuple(rebalance_rule(entry) for entry in guards.get("rebalance", ())),
        hedges=tuple(hedge_rule(entry) for entry in guards.get("delta_hedge", ())),
        freeze=_freeze(guards["freeze"]) if "freeze" in guards else None,
        recovery=recovery_rule(guards["recovery"]) if "recovery" in guards else None,
        hook=hook_rule(guards["hook"]) if "hook" in guards else None,
        breaker=breaker_rule(guards["breaker"]) if "breaker" in guards else None,
        session=_session(guards["session"]) if "session" in guards else None,
        approvals=tuple(
            ApprovalRule(entry["id"], tuple(entry["signers"]), int(entry["quorum"]))
            for entry in document.get("approvals", ())
        ),
        sponsorship=Sponsorship(_eth(budget.get("per_operation")), _eth(budget.get("per_day"))),
        attestation_validity_s=int(attestation.get("validity", 600)),
        attestation_engines=tuple(attestation.get("engines", ("engine",))),
        attestation_threshold=int(attestation.get("threshold", 1)),
        escape_delay_s=int(attestation.get("escape_delay", 172_800)),
    )


def _eth(text: str | None) -> Wei | None:
    return None if text is None else to_units(text, 18)


def _wei(text: str) -> Wei:
    return to_units(text, 18)


def selectors_of(function: str, target: str) -> tuple[bytes, ...]:
    """Selectors that a policy's `function` means at `target`: a hex selector, a signature, or a known name (all its overloads)."""
    if function.startswith("0x"):
        return (bytes.fromhex(function[2:]),)
    found = functions.find(function, target)
    if not found and "(" in function:
        return (Function.parse(function).selector,)
    return tuple(f.function.selector for f in found)


def call_rule(entry: Mapping[str, Any]) -> CallRule:
    """One entry of `calls`."""
    selectors = [s for f in entry.get("functions", ()) for s in selectors_of(f, entry["target"])]
    return CallRule(
        target=entry["target"],
        selectors=tuple(dict.fromkeys(selectors)),
        pins=tuple(_pin(name, value) for name, value in sorted(entry.get("args", {}).items())),
        max_value_wei=_wei(entry.get("max_value", "0")),
    )


def _pin(name: str, value: Any) -> Pin:
    if isinstance(value, Mapping):
        low, high = value.get("min"), value.get("max")
        return Pin(name, (), None if low is None else int(low), None if high is None else int(high))
    return Pin(name, tuple(value) if isinstance(value, (list, tuple)) else (value,))


def exit_rule(entry: Mapping[str, Any]) -> ExitRule:
    """One entry of `exits`. Raises KeyError for an argument that has no word of its own, ValueError for an unknown function."""
    plain = entry.get("plain_value", False)
    selector, words = bytes(4), []
    if not plain:
        selector, *_ = selectors_of(entry["function"], entry["target"])
        known = functions.BY_SELECTOR.get(selector)
        for name, value in entry.get("args", {}).items():
            words.append((word_of(known, name), value))
    return ExitRule(entry["target"], selector, entry.get("in_frozen", False), plain, tuple(sorted(words)))


def word_of(known: functions.KnownFunction | None, argument: str) -> int:
    """Which 32-byte word of the call data holds `argument`: its own number, or by name when all before it are single words.

    Raises KeyError when there is no such word among the first eight.
    """
    if argument.isdigit():
        index = int(argument)
    elif known is not None and argument in known.arguments:
        index = known.arguments.index(argument)
        if any(t.endswith("]") or t.startswith("(") or t in ("bytes", "string") for t in known.types[: index + 1]):
            raise KeyError(argument)
    else:
        raise KeyError(argument)
    if index > 7:
        raise KeyError(argument)
    return index


def _health(entry: Mapping[str, Any]) -> HealthRule:
    return HealthRule(
        id=int(entry["id"]),
        venue=entry["venue"],
        collateral=entry["collateral"],
        debt=entry["debt"],
        floor=Decimal(entry["floor"]),
        target=Decimal(entry["target"]),
        tolerance=Decimal(entry.get("tolerance", "0.01")),
        max_repay=Decimal(entry.get("max_repay", "0")),
        max_top_up=Decimal(entry.get("max_top_up", "0")),
        max_unwind=Decimal(entry.get("max_unwind", "0")),
        pool_fee=Decimal(entry.get("pool_fee", "0.003")),
        slippage=Decimal(entry.get("slippage", "0.01")),
        max_slippage=Decimal(entry.get("max_slippage", "0.05")),
        widen_s=int(entry.get("widen", 120)),
        cooldown_s=int(entry.get("cooldown", 60)),
        public_delay_s=int(entry.get("public_delay", 120)),
        refund_share=Decimal(entry.get("refund_share", "1")),
        refund_cap_wei=_wei(entry.get("refund_cap", "0")),
        valid_for_s=int(entry.get("valid_for", 0)),
        oracle=oracle_rule(entry["oracle"]) if "oracle" in entry else None,
    )


def _freeze(entry: Mapping[str, Any]) -> FreezeRule:
    return FreezeRule(
        guardians=tuple(entry["guardians"]),
        quorum=int(entry["quorum"]),
        solo_freeze_s=int(entry.get("solo_freeze", 21_600)),
        cooldown_s=int(entry.get("cooldown", 86_400)),
        thaw_delay_s=int(entry.get("thaw_delay", 3_600)),
        escape_delay_s=int(entry.get("escape_delay", 172_800)),
    )


def _session(entry: Mapping[str, Any]) -> SessionRule:
    return SessionRule(entry["key"], int(entry.get("valid_for", 2_592_000)), _wei(entry.get("prefund_budget", "0.1")))


def resolve(name: str, policy: Policy, book: Mapping[str, bytes], account: bytes) -> bytes | None:
    """The address of a party: an address itself, the account, one of the document's own, or one of the book. None: unbound."""
    if name.startswith("0x"):
        return bytes.fromhex(name[2:]) if len(name) == 42 else None
    if name == ACCOUNT:
        return account
    if name in policy.addresses:
        return policy.addresses[name]
    return book.get(name)


def argument_word(value: str, policy: Policy, book: Mapping[str, bytes], account: bytes) -> bytes | None:
    """The 32 bytes that an exit pins: an integer, true or false, bytes32 in hex, or a party's address. None: the name is unbound."""
    if value in ("true", "false"):
        return int(value == "true").to_bytes(32)
    if value.isdigit():
        return int(value).to_bytes(32)
    if value.startswith("0x") and len(value) == 66:
        return bytes.fromhex(value[2:])
    address = resolve(value, policy, book, account)
    return None if address is None else bytes(12) + address
