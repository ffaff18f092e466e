"""Path 4, Apply: a policy's guards become the configuration an account is born with, and the stops it arms when it opens a position."""

from __future__ import annotations

from collections.abc import Mapping
from decimal import Decimal

from contracts.bindings import AccountConfig, Call, ecdsa_owner
from contracts.errors import BadInput
from contracts.types import Address, Wei
from policies.guards import bound
from policies.modules import module_inits
from policies.policy import Policy
from policies.stop_rules import STOP_LOSS
from policies.stops import StopConfig, stop_config

Book = Mapping[str, Address]

ADMIN_DELAY_S = 48 * 3600
PREFUND_CAPS_WEI: tuple[Wei, Wei, Wei] = (10**17, 5 * 10**16, 2 * 10**16)
"""Largest required prefund of one operation that the account pays itself: ACTIVE, REDUCE_ONLY, FROZEN."""


def guarded_config(
    policy: Policy, book: Book, *, owner: bytes, engines: tuple[Address, ...], now_s: int
) -> AccountConfig:
    """The account that `policy` describes: attested by `engines`, with freeze, stop-loss and keeper session as far as it has them.

    `owner` is an address, or an owner of another kind in bytes (`contracts.owners`).

    Raises BadInput for a name of the policy that the book does not bind, or a threshold above the number of engines.
    """
    if policy.attestation_threshold > len(engines):
        raise BadInput(
            f"policy {policy.name} wants {policy.attestation_threshold} engines to agree, and there is {len(engines)}: "
            "nothing could ever be signed"
        )
    authority = bytes(20) if policy.freeze is None else bound("seawall.emergency_freeze", policy, book)
    modules = module_inits(policy, book, bytes(20), engines, now_s)
    return AccountConfig(_owner(owner), authority, ADMIN_DELAY_S, PREFUND_CAPS_WEI, modules)


def bare_config(owner: bytes) -> AccountConfig:
    """An account without policy: its owner's signature alone, no guards, no guardians. `owner` as in `guarded_config`."""
    return AccountConfig(_owner(owner), bytes(20), ADMIN_DELAY_S, PREFUND_CAPS_WEI, ())


def _owner(owner: bytes) -> bytes:
    return ecdsa_owner(owner) if len(owner) == 20 else owner


def arm_stops(
    policy: Policy, book: Book, *, entry_price: Decimal, is_long: bool, now_s: int
) -> tuple[list[StopConfig], list[Call]]:
    """The stops of a perp position about to be opened at `entry_price`, and the calls that arm them. Raises BadInput."""
    stops = [
        stop_config(rule, policy, book, entry_price=entry_price, is_long=is_long, now_s=now_s)
        for rule in policy.stops
        if rule.venue == "perp"
    ]
    if not stops:
        return [], []
    module = bound(STOP_LOSS, policy, book)
    return stops, [Call(module, stop.arm()) for stop in stops]
