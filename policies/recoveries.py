"""From `guards.recovery` of a policy to the configuration of Recovery on chain. Pure: no calls, no keys."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from contracts import abi
from contracts import bindings as b
from contracts.errors import BadInput
from contracts.owners import KIND_ERC7913, Seat, contract_owner, multisig_owner, seats_of
from contracts.types import Address, to_hex
from contracts.userop import LANE_ATTESTED, LANE_ESCAPE, LANE_OWNER, LANE_ROOT, nonce_key
from policies.guards import bound
from policies.policy import Policy
from policies.recovery_rules import MULTISIG, RecoveryRule

Book = Mapping[str, Address]
_ZERO = bytes(20)
_FIELDS = (
    "guardians", "heir", "delay", "silence", "entry point", "lanes of the owner", "changed at", "by function", "with an address",
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class RecoveryState:
    """What Recovery keeps of an account: IRecovery.Settings, and the changes that were announced, with when they may be made."""

    settings: tuple[object, ...]
    announced: Mapping[bytes, int] = field(default_factory=dict)

    @property
    def change_delay_s(self) -> int:
        """Seconds that a change of these settings waits, as a proposal does."""
        delay_s = self.settings[2]
        assert isinstance(delay_s, int)
        return delay_s

    def encode(self) -> bytes:
        """onInstall data of Recovery."""
        return abi.encode([b.RECOVERY_SETTINGS], [self.settings])


def recovery_state(rule: RecoveryRule, policy: Policy, book: Book, account: Address = _ZERO) -> RecoveryState:
    """The settings that the policy wants. A single guardian stands for itself, several are a multisig of equal weights.

    Signs of life are operations that only the owner makes: its own, attested ones, sets under one root, and the escape.
    Raises BadInput for an unbound name, or one guardian who is named twice.
    """
    seats = [Seat(b.ecdsa_owner(bound(name, policy, book, account))) for name in rule.guardians]
    seats += [Seat(contract_owner(bound(name, policy, book, account))) for name in rule.contract_guardians]
    if len({seat.owner[1:] for seat in seats}) != len(seats):
        raise BadInput(f"two guardians of the recovery of policy {policy.name} are the same address")
    guardians = seats[0].owner
    if len(seats) > 1:
        guardians = multisig_owner(bound(MULTISIG, policy, book, account), rule.threshold, seats)
    validator = bound("seawall.risk_validator", policy, book, account)
    lanes = [nonce_key(_ZERO, lane) for lane in (LANE_OWNER, LANE_ROOT)]
    lanes += [nonce_key(validator, lane) for lane in (LANE_ATTESTED, LANE_ESCAPE, LANE_ROOT)]
    heir = b.ecdsa_owner(bound(rule.heir, policy, book, account)) if rule.heir else b""
    return RecoveryState((guardians, heir, rule.delay_s, rule.silence_s, _ZERO, tuple(lanes), _ZERO, bytes(4), False))


def recovery_fields(
    settings: Sequence[Any], show: Callable[[Address], str], span: Callable[[int], str]
) -> dict[str, str]:
    """What IRecovery.Settings say, for people and for comparison. `show` writes an address by its name, `span` seconds."""
    guardians, heir, delay_s, silence_s, entry_point, lanes, target, selector, plain = settings
    shown = (
        party(guardians, show), party(heir, show) if heir else "nobody", span(delay_s), span(silence_s) if heir else "-",
        show(entry_point) if entry_point != _ZERO else "the account's own", ", ".join(hex(lane) for lane in lanes),
        show(target) if target != _ZERO else "the account", to_hex(selector), "yes" if plain else "no",
    )  # fmt: skip
    return dict(zip(_FIELDS, shown, strict=True))


def party(owner: bytes, show: Callable[[Address], str]) -> str:
    """Guardians or heir in words."""
    if owner[0] != KIND_ERC7913:
        return show(owner[1:21])
    try:
        threshold, seats = seats_of(owner)
    except BadInput:
        return f"key {to_hex(owner[21:])} of {show(owner[1:21])}"
    return f"{threshold} of " + ", ".join(sorted(f"{party(seat.owner, show)}" for seat in seats))
