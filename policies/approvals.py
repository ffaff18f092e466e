"""Who must say yes to an operation that a policy neither allows nor denies: quorums, and whether enough of their signers approved.

A signer approves an *intent* (account, nonce, call data, gas ceilings: everything but paymaster data and signatures) under one policy and
epoch. Approvals may be gathered for hours: the engine judges the operation anew when they are complete, on the facts of then.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from contracts.bindings import SignerQuorum
from contracts.errors import BadInput
from contracts.types import Address, Hash32, checksum
from policies.attestation import SignedApproval, SignerApproval, on_chain_id, recover_signer
from policies.decision import Decision
from policies.policy import Policy, resolve


@dataclass(frozen=True, slots=True)
class Quorum:
    """`threshold` of `signers` (ascending by address) must approve. `name` is the policy's."""

    name: str
    threshold: int
    signers: tuple[Address, ...]

    def on_chain(self) -> SignerQuorum:
        """As RiskValidator registers it."""
        return SignerQuorum(on_chain_id(self.name), self.threshold, self.signers)


def quorums(policy: Policy, book: Mapping[str, Address], account: Address = bytes(20)) -> tuple[Quorum, ...]:
    """The quorums of a policy's `approvals`, in its order.

    Raises BadInput for a signer whose address nobody said, or two names of one address: they would count as one person.
    """
    found = []
    for rule in policy.approvals:
        signers: dict[Address, str] = {}
        for name in rule.signers:
            address = resolve(name, policy, book, account)
            if address is None or not any(address):
                raise BadInput(
                    f"approval {rule.id!r} of policy {policy.name} names {name!r}, which has no address here: declare it under "
                    "`addresses:` in the policy, or make or import a key of that name"
                )
            if address in signers:
                raise BadInput(
                    f"approval {rule.id!r} of policy {policy.name}: {name!r} and {signers[address]!r} are both {checksum(address)}; "
                    "one key is one signer"
                )
            signers[address] = name
        found.append(Quorum(rule.id, rule.quorum, tuple(sorted(signers))))
    return tuple(found)


def asked(decision: Decision) -> tuple[str, ...]:
    """Names of the quorums that a decision needs, sorted; none unless it requires signers."""
    if decision.outcome != "require_signers":
        return ()
    return tuple(sorted({row.approval for row in decision.limits if row.verdict == "require_signers"}))


@dataclass(frozen=True, slots=True)
class Granted:
    """The quorums that an operation needed, by name, and the approvals that satisfy them, ascending by signer."""

    names: tuple[str, ...]
    approvals: tuple[SignedApproval, ...]

    @property
    def valid_until_s(self) -> int:
        """When the first of the approvals is over, unix seconds; far away when none ends."""
        return min((_end(one) for one in self.approvals), default=0)


@dataclass(frozen=True, slots=True)
class Subject:
    """What is approved, and where: the fields that an approval's digest has besides its own time."""

    account: Address
    entry_point: Address
    intent_hash: Hash32
    policy_id: Hash32
    policy_epoch: int
    chain_id: int
    risk_validator: Address

    def digest(self, valid_until_s: int) -> Hash32:
        """What a signer signs."""
        approval = SignerApproval(
            self.account, self.entry_point, self.intent_hash, self.policy_id, self.policy_epoch, valid_until_s
        )
        return approval.digest(self.chain_id, self.risk_validator)


def in_force(subject: Subject, approvals: Sequence[SignedApproval], now_s: int) -> tuple[SignedApproval, ...]:
    """Those approvals that are of `subject`, by who they say, and not over at `now_s`; of one signer the longest, ascending by signer."""
    best: dict[Address, SignedApproval] = {}
    for one in approvals:
        if one.valid_until_s and one.valid_until_s <= now_s:
            continue
        if recover_signer(subject.digest(one.valid_until_s), one.signature) != one.signer:
            continue
        known = best.get(one.signer)
        if known is None or _end(one) > _end(known):
            best[one.signer] = one
    return tuple(best[signer] for signer in sorted(best))


def enough(quorum: Quorum, approvals: Sequence[SignedApproval]) -> bool:
    """Whether approvals (of distinct signers) satisfy `quorum`."""
    return len({one.signer for one in approvals} & set(quorum.signers)) >= quorum.threshold


def needed(
    names: Sequence[str], known: Sequence[Quorum], approvals: Sequence[SignedApproval]
) -> tuple[tuple[SignedApproval, ...], tuple[str, ...]]:
    """(the approvals that count for the quorums `names`, a line for every quorum that is not satisfied)."""
    by_name = {quorum.name: quorum for quorum in known}
    seats = {signer for name in names if name in by_name for signer in by_name[name].signers}
    counting = tuple(one for one in approvals if one.signer in seats)
    lacking = []
    for name in names:
        quorum = by_name.get(name)
        if quorum is None:
            lacking.append(f"quorum {name!r} is not one of the policy's approvals")
        elif not enough(quorum, counting):
            have = {one.signer for one in counting}
            missing = ", ".join(checksum(signer) for signer in quorum.signers if signer not in have)
            got = len(have & set(quorum.signers))
            lacking.append(f"quorum {name!r} has {got} of {quorum.threshold} approvals; still possible: {missing}")
    return counting, tuple(lacking)


def _end(approval: SignedApproval) -> int:
    return approval.valid_until_s or 2**48
