"""Operations that need more signers than their owner: proposed, approved by a quorum of the policy, then judged anew and sent.

A proposal is a file that people pass around. Nothing in it is believed: whoever signs or sends it reads the chain and judges the operation
with a policy of his own. Approvals bind the intent (`contracts.userop.intent_hash`), so that only paymaster data and signatures may change.
"""

from __future__ import annotations

import json
import os
import secrets
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from contracts.bindings import Call
from contracts.entrypoint.base import GET_NONCE
from contracts.eoa import Eoa
from contracts.errors import BadInput, InvalidFields, PolicyRefused, SetupError
from contracts.types import Address, Hash32, checksum, parse_address, parse_bytes, parse_hash, parse_quantity, to_hex
from contracts.userop import UserOperation, intent_hash
from policies.approvals import Quorum, Subject, asked, in_force, needed, quorums
from policies.attestation import (
    SignedApproval,
    dummy_quorum_signature,
    encode_attested_envelope,
    encode_quorum_envelope,
)
from wallet.account import signable_hash
from wallet.sign import Judgement, Sent, Signer

FORMAT = 1
FEE_ROOM = 3
"""A proposal may be sent hours later: its highest fee is this many times what an operation of now would offer."""
MAX_FILE = 1 << 20


@dataclass(frozen=True, slots=True)
class Proposal:
    """An operation without signature, the policy it was proposed under, and the approvals gathered so far."""

    chain_id: int
    entry_point: Address
    risk_validator: Address
    op: UserOperation
    policy_id: Hash32
    policy_epoch: int
    note: str
    approvals: tuple[SignedApproval, ...] = ()

    @property
    def subject(self) -> Subject:
        """What the approvals are of."""
        return Subject(
            self.op.sender,
            self.entry_point,
            intent_hash(self.op),
            self.policy_id,
            self.policy_epoch,
            self.chain_id,
            self.risk_validator,
        )

    def with_approvals(self, more: Sequence[SignedApproval], now_s: int) -> Proposal:
        """The same with those of `more` that are of this proposal and not over. Raises BadInput for one that is not."""
        for one in more:
            if not in_force(self.subject, [one], now_s):
                raise BadInput(
                    f"the approval of {checksum(one.signer)} is not one of this proposal, or its time is over: "
                    "it must be signed with `seawall proposal sign` on this very file"
                )
        return replace(self, approvals=in_force(self.subject, (*self.approvals, *more), now_s))

    def to_json(self) -> dict[str, Any]:
        return {
            "seawallProposal": FORMAT,
            "chainId": self.chain_id,
            "entryPoint": checksum(self.entry_point),
            "riskValidator": checksum(self.risk_validator),
            "account": checksum(self.op.sender),
            "intentHash": to_hex(intent_hash(self.op)),
            "policyId": to_hex(self.policy_id),
            "policyEpoch": self.policy_epoch,
            "note": self.note,
            "userOp": self.op.replace(signature=b"").to_rpc(),
            "approvals": [approval_text(one) for one in self.approvals],
        }

    @classmethod
    def from_json(cls, fields: object) -> Proposal:
        """Raises BadInput for anything else than what `to_json` wrote, also when the intent is not that of the operation."""
        if not isinstance(fields, Mapping) or fields.get("seawallProposal") != FORMAT:
            raise BadInput(f"this is no proposal of this version ({FORMAT}) of Seawall")
        try:
            found = cls(
                chain_id=_whole(fields, "chainId"),
                entry_point=parse_address(fields["entryPoint"], "entryPoint"),
                risk_validator=parse_address(fields["riskValidator"], "riskValidator"),
                op=UserOperation.from_rpc(fields["userOp"]),
                policy_id=parse_hash(fields["policyId"], "policyId"),
                policy_epoch=_whole(fields, "policyEpoch"),
                note=str(fields["note"])[:1000],
                approvals=tuple(parse_approval(text) for text in fields["approvals"]),
            )
        except KeyError as error:
            raise BadInput(f"the proposal lacks {error}") from None
        except (InvalidFields, TypeError) as error:
            raise BadInput(f"the proposal is damaged: {error}") from None
        if fields.get("intentHash") != to_hex(intent_hash(found.op)):
            raise BadInput("the proposal was changed after it was made: its intent hash is not that of its operation")
        return found


def approval_text(approval: SignedApproval) -> str:
    """SIGNER:VALID_UNTIL:SIGNATURE, the line that a signer hands back."""
    return f"{checksum(approval.signer)}:{approval.valid_until_s}:{to_hex(approval.signature)}"


def parse_approval(text: object) -> SignedApproval:
    """Raises BadInput for anything but SIGNER:VALID_UNTIL:SIGNATURE."""
    parts = text.split(":") if isinstance(text, str) else []
    if len(parts) != 3 or not parts[1].isdecimal() or len(parts[1]) > 15:
        raise BadInput("an approval is SIGNER:VALID_UNTIL:SIGNATURE, the line that `seawall proposal sign` printed")
    signer, signature = (
        parse_address(parts[0], "the approval's signer"),
        parse_bytes(parts[2], "the approval's signature"),
    )
    if len(signature) != 65:
        raise BadInput(f"the signature of {parts[0]} must have 65 bytes, got {len(signature)}")
    return SignedApproval(signer, parse_quantity(hex(int(parts[1])), "valid until", bits=47), signature)


def _whole(fields: Mapping[str, Any], name: str) -> int:
    value = fields[name]
    if not isinstance(value, int) or isinstance(value, bool) or not 0 <= value < 2**64:
        raise BadInput(f"the proposal's {name} must be a whole number, got {value!r}")
    return value


def read_proposal(path: Path) -> Proposal:
    """Raises SetupError if the file cannot be read, BadInput if it is no proposal."""
    try:
        if path.stat().st_size > MAX_FILE:
            raise BadInput(f"{path} is too large for a proposal")
        return Proposal.from_json(json.loads(path.read_text(encoding="utf-8")))
    except OSError as error:
        raise SetupError(f"the proposal {path} cannot be read: {error.strerror}") from None
    except (ValueError, RecursionError):
        raise BadInput(f"{path} is no proposal: it is not JSON") from None


def write_proposal(path: Path, proposal: Proposal) -> None:
    """Replace the file whole, or not at all. Raises SetupError if it cannot be written."""
    write_json(path, proposal.to_json(), "proposal")


def write_json(path: Path, body: Mapping[str, Any], what: str) -> None:
    """Replace a file that people pass around whole, or not at all. Raises SetupError if it cannot be written."""
    text = json.dumps(body, indent=1) + "\n"
    part = path.with_name(path.name + ".part")
    try:
        with part.open("w", encoding="utf-8") as out:
            out.write(text)
            out.flush()
            os.fsync(out.fileno())
        part.replace(path)
    except OSError as error:
        raise SetupError(f"the {what} {path} cannot be written: {error.strerror}") from None


@dataclass(frozen=True, slots=True)
class Standing:
    """Where a proposal stands: what its quorums are, who has approved, and what is still lacking (a line each; none: it may be sent)."""

    names: tuple[str, ...]
    quorums: tuple[Quorum, ...]
    approvals: tuple[SignedApproval, ...]
    lacking: tuple[str, ...]


def standing(signer: Signer, proposal: Proposal, judgement: Judgement) -> Standing:
    """Of a proposal as it is judged now. Raises BadInput for a signer of the policy without address."""
    assert signer.engine is not None
    known = quorums(signer.engine.policy, judgement.facts.book, proposal.op.sender)
    valid = in_force(proposal.subject, proposal.approvals, judgement.now_s)
    names = asked(judgement.decision)
    counting, lacking = needed(names, known, valid)
    return Standing(names, tuple(q for q in known if q.name in names), counting, lacking)


async def propose(signer: Signer, calls: Sequence[Call], note: str) -> tuple[Proposal, Judgement]:
    """An operation that makes `calls` as soon as the quorums that the policy asks have approved it. Nothing is signed or sent.

    It takes a lane of its own, so that others may go first. Raises PolicyRefused when the policy denies it, BadInput when it needs nobody.
    """
    if signer.engine is None:
        raise BadInput("this account has no policy; nobody else needs to sign")
    own = replace(signer, account=replace(signer.account, lane=1 + secrets.randbelow(2**24 - 1)))
    judgement = await own.judge(calls)
    if judgement.decision.allowed:
        raise BadInput("the policy allows this as it is: send it without --propose")
    if judgement.decision.outcome != "require_signers":
        raise PolicyRefused(judgement.decision.summary, data=judgement.decision.to_json())
    names = asked(judgement.decision)
    known = quorums(signer.engine.policy, judgement.facts.book, signer.account.address)
    seats = sorted({one for quorum in known if quorum.name in names for one in quorum.signers})
    op = judgement.op.replace(
        signature=dummy_quorum_signature(names, seats, signer.engine.policy.attestation_threshold),
        max_fee_per_gas=FEE_ROOM * judgement.op.max_fee_per_gas,
    )
    if signer.paymaster is not None:
        op = await signer.paymaster.stub(op)
    op = await signer.bundler.estimate(op)
    op = op.replace(call_gas_limit=max(op.call_gas_limit, judgement.simulated_gas * 3 // 2))
    final = await own.judge_operation(op, sponsored=signer.paymaster is not None, sizes=False)
    if final.decision.outcome == "deny":
        raise PolicyRefused(final.decision.summary, data=final.decision.to_json())
    assert signer.account.validator is not None
    proposal = Proposal(
        chain_id=signer.account.chain_id,
        entry_point=signer.account.entry_point.address,
        risk_validator=signer.account.validator,
        op=op.replace(signature=b""),
        policy_id=signer.engine.policy.policy_id,
        policy_epoch=final.facts.policy_epoch,
        note=note,
    )
    return proposal, final


async def rejudge(signer: Signer, proposal: Proposal) -> Judgement:
    """The proposal judged now, by this signer's own policy and node. Raises BadInput when it cannot be sent any more, or is of elsewhere."""
    account = signer.account
    if signer.engine is None or account.validator is None:
        raise BadInput("this account has no policy; nothing can be judged")
    for what, theirs, ours in (
        ("chain", proposal.chain_id, account.chain_id),
        ("account", checksum(proposal.op.sender), checksum(account.address)),
        ("entry point", checksum(proposal.entry_point), checksum(account.entry_point.address)),
        ("RiskValidator", checksum(proposal.risk_validator), checksum(account.validator)),
        ("policy", to_hex(proposal.policy_id), to_hex(signer.engine.policy.policy_id)),
    ):
        if theirs != ours:
            raise BadInput(f"the proposal is for {what} {theirs}, here it is {ours}")
    key = proposal.op.nonce >> 64
    answer = await account.rpc.eth_call(account.entry_point.address, GET_NONCE.encode(account.address, key))
    if GET_NONCE.decode(answer)[0] != proposal.op.nonce:
        raise BadInput(
            "the proposal's nonce has been used: it was sent already, or cancelled; propose it again if it is still wanted"
        )
    judgement = await signer.judge_operation(proposal.op, sponsored=signer.paymaster is not None, sizes=False)
    if judgement.facts.policy_epoch != proposal.policy_epoch:
        raise BadInput(
            "the account's policy was set anew since this was proposed, and its approvals died with that; propose it again"
        )
    if judgement.decision.outcome == "deny":
        raise PolicyRefused(judgement.decision.summary, data=judgement.decision.to_json())
    return judgement


def approve(proposal: Proposal, judgement: Judgement, key: Eoa, valid_for_s: int) -> SignedApproval:
    """One signer's yes, for `valid_for_s` from the time it was judged. Judge it first (`rejudge`)."""
    until_s = judgement.now_s + valid_for_s
    return SignedApproval(key.address, until_s, key.sign_hash(proposal.subject.digest(until_s)))


async def send(signer: Signer, proposal: Proposal) -> Sent:
    """Judge anew, and if the policy now allows it, or its quorums have approved: have it sponsored and attested, sign, send.

    Raises PolicyRefused, naming whose approval is missing; BadInput; RpcError with the reason of bundler or paymaster.
    """
    op = proposal.op
    if signer.paymaster is not None:
        op = await signer.paymaster.stub(op)
    judgement = await rejudge(signer, replace(proposal, op=op))
    engine, account = signer.engine, signer.account
    assert engine is not None
    facts, decision, now_s = judgement.facts, judgement.decision, judgement.now_s
    epoch = facts.policy_epoch
    granted = engine.granted(
        decision,
        op,
        entry_point=account.entry_point.address,
        epoch=epoch,
        now_s=now_s,
        book=facts.book,
        approvals=proposal.approvals,
    )
    if signer.paymaster is not None:
        op = await signer.paymaster.sponsor(op, engine.approve(decision, op, epoch, now_s, granted))
    final = signable_hash(account.entry_point, account.user_op_hash(op), account.address, account.chain_id)
    lines = [] if granted is None else [approval_text(one) for one in granted.approvals]
    attestations = await signer.others(op, lines)
    own = engine.attest(
        decision,
        op,
        entry_point=account.entry_point.address,
        signable_hash=final,
        epoch=epoch,
        now_s=now_s,
        facts=facts,
        granted=granted,
    )
    attestations.append(own)
    owner_signature = signer.signed(op)
    if granted is None:
        signature = encode_attested_envelope(owner_signature, attestations)
    else:
        signature = encode_quorum_envelope(owner_signature, attestations, granted.names, granted.approvals)
    op = op.replace(signature=signature)
    return Sent(await signer.bundler.send(op), op, decision)
