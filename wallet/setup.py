"""Path 4, Apply: a policy's guards become the configuration an account is born with, and the stops it arms when it opens a position."""

from __future__ import annotations

from collections.abc import Mapping
from decimal import Decimal

from contracts.bindings import (
    MODULE_EXECUTOR,
    MODULE_HOOK,
    MODULE_VALIDATOR,
    AccountConfig,
    Call,
    ModuleInit,
    ecdsa_owner,
    encode_baskets,
    encode_healths,
    encode_hedges,
    encode_sessions,
    risk_validator_init,
)
from contracts.errors import BadInput
from contracts.types import Address, Wei
from policies.approvals import quorums
from policies.guards import StopConfig, bound, freeze_config, health_config, keeper_sessions, stop_config
from policies.hedge_rules import HEDGE
from policies.hedges import hedge_config
from policies.hook_rules import HOOK
from policies.hooks import hook_state
from policies.policy import Policy
from policies.rebalance_rules import REBALANCE
from policies.rebalances import rebalance_config

Book = Mapping[str, Address]

ADMIN_DELAY_S = 48 * 3600
PREFUND_CAPS_WEI: tuple[Wei, Wei, Wei] = (10**17, 5 * 10**16, 2 * 10**16)
"""Largest required prefund of one operation that the account pays itself: ACTIVE, REDUCE_ONLY, FROZEN."""


def guarded_config(
    policy: Policy, book: Book, *, owner: Address, engines: tuple[Address, ...], now_s: int
) -> AccountConfig:
    """The account that `policy` describes: attested by `engines`, with freeze, stop-loss and keeper session as far as it has them.

    Raises BadInput for a name of the policy that the book does not bind, or a threshold above the number of engines.
    """
    if policy.attestation_threshold > len(engines):
        raise BadInput(
            f"policy {policy.name} wants {policy.attestation_threshold} engines to agree, and there is {len(engines)}: "
            "nothing could ever be signed"
        )
    modules = [
        ModuleInit(
            MODULE_VALIDATOR,
            bound("seawall.risk_validator", policy, book),
            risk_validator_init(
                engines,
                policy.attestation_threshold,
                policy.escape_delay_s,
                policy.policy_id,
                quorums=[quorum.on_chain() for quorum in quorums(policy, book)],
            ),
        )
    ]
    authority = bytes(20)
    if policy.stops:
        modules.append(ModuleInit(MODULE_EXECUTOR, bound("seawall.stop_loss", policy, book), b""))
    if policy.freeze is not None:
        authority = bound("seawall.emergency_freeze", policy, book)
        modules.append(ModuleInit(MODULE_EXECUTOR, authority, freeze_config(policy, book, bytes(20)).encode()))
    if policy.healths:
        healths = [(rule.id, health_config(rule, policy, book, now_s)) for rule in policy.healths]
        module = bound("seawall.health_guard", policy, book)
        modules.append(ModuleInit(MODULE_EXECUTOR, module, encode_healths(healths)))
    if policy.rebalances:
        baskets = [(rule.id, rebalance_config(rule, policy, book, now_s)) for rule in policy.rebalances]
        modules.append(ModuleInit(MODULE_EXECUTOR, bound(REBALANCE, policy, book), encode_baskets(baskets)))
    if policy.hedges:
        hedges = [(rule.id, hedge_config(rule, policy, book, now_s)) for rule in policy.hedges]
        modules.append(ModuleInit(MODULE_EXECUTOR, bound(HEDGE, policy, book), encode_hedges(hedges)))
    sessions = keeper_sessions(policy, book, now_s)
    if sessions:
        validator = bound("seawall.session_validator", policy, book)
        modules.append(ModuleInit(MODULE_VALIDATOR, validator, encode_sessions(*sessions)))
    if policy.hook is not None:  # last: what it allows binds from then on
        state = hook_state(policy, book, bytes(20))
        modules.append(ModuleInit(MODULE_HOOK, bound(HOOK, policy, book), state.encode()))
    return AccountConfig(ecdsa_owner(owner), authority, ADMIN_DELAY_S, PREFUND_CAPS_WEI, tuple(modules))


def bare_config(owner: Address) -> AccountConfig:
    """An account without policy: its owner's signature alone, no guards, no guardians."""
    return AccountConfig(ecdsa_owner(owner), bytes(20), ADMIN_DELAY_S, PREFUND_CAPS_WEI, ())


def arm_stops(
    policy: Policy, book: Book, *, entry_price: Decimal, is_long: bool, now_s: int
) -> tuple[list[StopConfig], list[Call]]:
    """The stops of a position about to be opened at `entry_price`, and the calls that arm them. Raises BadInput."""
    stops = [
        stop_config(rule, policy, book, entry_price=entry_price, is_long=is_long, now_s=now_s) for rule in policy.stops
    ]
    if not stops:
        return [], []
    module = bound("seawall.stop_loss", policy, book)
    return stops, [Call(module, stop.arm()) for stop in stops]
