"""The modules that a policy needs, each with everything it is installed with: at an account's birth, or later by an operation. Pure."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from contracts import bindings as b
from contracts.bindings import MODULE_EXECUTOR, MODULE_HOOK, MODULE_VALIDATOR, ModuleInit
from contracts.types import Address
from policies.approvals import quorums
from policies.guards import bound, freeze_config, health_config, keeper_sessions
from policies.hedge_rules import HEDGE
from policies.hedges import hedge_config
from policies.hook_rules import HOOK
from policies.hooks import hook_state
from policies.policy import Policy
from policies.rebalance_rules import REBALANCE
from policies.rebalances import rebalance_config
from policies.recoveries import recovery_state
from policies.recovery_rules import RECOVERY

HEALTH = "seawall.health_guard"


def module_inits(
    policy: Policy, book: Mapping[str, Address], account: Address, engines: Sequence[Address], now_s: int
) -> tuple[ModuleInit, ...]:
    """In the order of their installation. `account`: zero before its birth, when its address is not known. Raises BadInput for a name
    without address."""
    found: list[ModuleInit] = []

    def add(kind: int, name: str, data: bytes) -> None:
        found.append(ModuleInit(kind, bound(name, policy, book), data))

    def configs(
        rules: Sequence[Any], config: Callable[..., tuple[object, ...]]
    ) -> list[tuple[int, tuple[object, ...]]]:
        return [(rule.id, config(rule, policy, book, now_s)) for rule in rules]

    registered = [quorum.on_chain() for quorum in quorums(policy, book, account)]
    terms = policy.attestation_threshold, policy.escape_delay_s, policy.policy_id
    add(MODULE_VALIDATOR, "seawall.risk_validator", b.risk_validator_init(engines, *terms, quorums=registered))
    if policy.stops:
        add(MODULE_EXECUTOR, "seawall.stop_loss", b"")
    if policy.freeze is not None:
        add(MODULE_EXECUTOR, "seawall.emergency_freeze", freeze_config(policy, book, account).encode())
    if policy.healths:
        add(MODULE_EXECUTOR, HEALTH, b.encode_healths(configs(policy.healths, health_config)))
    if policy.rebalances:
        add(MODULE_EXECUTOR, REBALANCE, b.encode_baskets(configs(policy.rebalances, rebalance_config)))
    if policy.hedges:
        add(MODULE_EXECUTOR, HEDGE, b.encode_hedges(configs(policy.hedges, hedge_config)))
    if policy.recovery is not None:
        add(MODULE_EXECUTOR, RECOVERY, recovery_state(policy.recovery, policy, book, account).encode())
    sessions = keeper_sessions(policy, book, now_s)
    if sessions:
        add(MODULE_VALIDATOR, "seawall.session_validator", b.encode_sessions(*sessions))
    if policy.hook is not None:  # last: what it allows binds from then on
        add(MODULE_HOOK, HOOK, hook_state(policy, book, account).encode())
    return tuple(found)
