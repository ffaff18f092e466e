"""From a policy's `guards`, `exits` and `attestation` to the configuration of the modules on chain. Pure: no calls, no keys.

Names are resolved through the book; an unbound one is an error, never a zero address.
"""

from __future__ import annotations

from collections.abc import Mapping
from decimal import ROUND_FLOOR, Decimal, localcontext

from contracts.bindings import GUARD_EXECUTE, RECOVERY_CANCEL, RECOVERY_HEARTBEAT, Exit, FreezeConfig, Session
from contracts.errors import BadInput
from contracts.types import Address
from contracts.units import BPS, WAD
from policies.breaker_rules import BREAKER
from policies.margin import EXACT
from policies.names import TOKEN_DECIMALS
from policies.policy import ExitRule, HealthRule, OracleRule, Policy, argument_word, resolve
from policies.recovery_rules import RECOVERY

Book = Mapping[str, Address]
_ZERO = bytes(20)


def bound(name: str, policy: Policy, book: Book, account: Address = _ZERO) -> Address:
    """The address of a party. Raises BadInput when nobody said what it is."""
    found = resolve(name, policy, book, account)
    if found is None or found == _ZERO:
        raise BadInput(
            f"policy {policy.name} names {name!r}, which has no address here: declare it under `addresses:` in the policy, "
            "or in the deployments file or the keys of this profile"
        )
    return found


def freeze_config(policy: Policy, book: Book, account: Address) -> FreezeConfig:
    """onInstall data of EmergencyFreeze. Raises BadInput for an unbound name, or when the policy has no `guards.freeze`."""
    rule = policy.freeze
    if rule is None:
        raise BadInput(f"policy {policy.name} has no guards.freeze section")
    latching = () if policy.breaker is None else (BREAKER,)  # a guard may freeze; this one does nothing else
    return FreezeConfig(
        guardians=tuple(bound(name, policy, book, account) for name in rule.guardians),
        quorum=rule.quorum,
        solo_freeze_s=rule.solo_freeze_s,
        solo_cooldown_s=rule.cooldown_s,
        thaw_delay_s=rule.thaw_delay_s,
        escape_delay_s=rule.escape_delay_s,
        guards=tuple(bound(name, policy, book, account) for name in (*policy.guards, *latching)),
        exits=tuple(_exit(rule, policy, book, account) for rule in policy.exits) + _life(policy, book, account),
    )


def _exit(rule: ExitRule, policy: Policy, book: Book, account: Address) -> Exit:
    mask, words = 0, []
    for index, text in rule.words:
        mask |= 1 << index
        word = argument_word(text, policy, book, account)
        words.append(bytes(12) + bound(text, policy, book, account) if word is None else word)
    target = bound(rule.target, policy, book, account)
    return Exit(target, rule.selector, rule.in_frozen, rule.plain_value, mask, tuple(words))


def _life(policy: Policy, book: Book, account: Address) -> tuple[Exit, ...]:
    """What the owner can tell Recovery in every state: stop it, and that he lives."""
    if policy.recovery is None:
        return ()
    module = bound(RECOVERY, policy, book, account)
    return tuple(Exit(module, one.selector, in_frozen=True) for one in (RECOVERY_CANCEL, RECOVERY_HEARTBEAT))


def keeper_sessions(policy: Policy, book: Book, now_s: int) -> tuple[Session, ...]:
    """The sessions that let the keeper call `execute` of each trigger's module and nothing else; none without `guards.session` or triggers."""
    rule = policy.session
    if rule is None:
        return ()
    return tuple(
        Session(
            key=bound(rule.key, policy, book),
            valid_after_s=0,
            valid_until_s=now_s + rule.valid_for_s,
            target=bound(name, policy, book),
            selector=GUARD_EXECUTE.selector,
            prefund_budget_wei=rule.prefund_budget_wei,
        )
        for name in policy.triggers
    )


def oracle_config(oracle: OracleRule, policy: Policy, book: Book) -> tuple[object, ...]:
    """A feed and everything it is held against, as OracleConfig."""
    sequencer = bound(oracle.sequencer_feed, policy, book) if oracle.sequencer_feed else _ZERO
    return (
        bound(oracle.feed, policy, book),
        oracle.heartbeat_s,
        sequencer,
        oracle.grace_period_s,
        int(oracle.min_price * WAD),
        int(oracle.max_price * WAD),
        whole_bps(oracle.max_deviation),
        oracle.deviation_patience_s,
    )


NO_ORACLE = (_ZERO, 0, _ZERO, 0, 0, 0, 0, 0)
_LENDING = {"aave": "seawall.aave_adapter"}


def health_config(rule: HealthRule, policy: Policy, book: Book, now_s: int) -> tuple[object, ...]:
    """One health guard as IHealthGuard.Health. Caps are rounded down, so that no bound gets looser.

    Raises BadInput for an unbound name or a token whose decimals are not known.
    """
    if rule.venue not in _LENDING:
        raise BadInput(
            f"health guard {rule.id} of policy {policy.name}: venue {rule.venue!r} has no adapter here; there is aave"
        )
    sells = rule.max_unwind > 0
    with localcontext(EXACT):
        return (
            bound(_LENDING[rule.venue], policy, book),
            bound(rule.collateral, policy, book),
            bound(rule.debt, policy, book),
            bound("seawall.uniswap_adapter", policy, book) if sells else _ZERO,
            int(rule.pool_fee * 1_000_000),
            int(rule.floor * WAD),
            int(rule.target * WAD),
            whole_bps(rule.tolerance),
            _units(rule.max_repay, rule.debt, rule, policy),
            _units(rule.max_top_up, rule.collateral, rule, policy),
            _units(rule.max_unwind, rule.collateral, rule, policy),
            whole_bps(rule.slippage),
            whole_bps(rule.max_slippage),
            rule.widen_s,
            rule.cooldown_s,
            rule.public_delay_s,
            whole_bps(rule.refund_share),
            rule.refund_cap_wei,
            now_s + rule.valid_for_s if rule.valid_for_s else 0,
            NO_ORACLE if rule.oracle is None else oracle_config(rule.oracle, policy, book),
        )


def _units(amount: Decimal, token: str, rule: HealthRule, policy: Policy) -> int:
    """Token units, rounded down."""
    if token not in TOKEN_DECIMALS:
        raise BadInput(
            f"health guard {rule.id} of policy {policy.name}: the decimals of {token!r} are not known here; there are "
            + ", ".join(TOKEN_DECIMALS)
        )
    return int(amount.scaleb(TOKEN_DECIMALS[token]).to_integral_value(ROUND_FLOOR))


def whole_bps(share: Decimal) -> int:
    """A fraction in whole basis points, rounded down: a bound never gets looser."""
    return int((share * BPS).to_integral_value(ROUND_FLOOR))
