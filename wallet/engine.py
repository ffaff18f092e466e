"""The policy engine with its key: it judges facts, keeps the record, and signs what the policy allows. It never moves anything alone.

Order, as the chain and the paymaster need it: decide over the intent -> approve the intent (the paymaster asks for that) -> attest the
final operation. Every attestation is on the disk before it leaves; until it has been used or has expired, it is *outstanding*, and the
next decision takes it into account, so that two operations that pass one by one cannot breach together.
"""

from __future__ import annotations

from dataclasses import dataclass

from contracts.eoa import Eoa
from contracts.errors import PolicyRefused
from contracts.types import Address, Hash32, checksum, parse_address, parse_hash, to_hex
from contracts.userop import UserOperation, intent_hash
from policies import Decision, Facts, Outstanding, Policy, evaluate
from policies.attestation import Attestation, IntentApproval
from wallet.audit import AuditLog

ALLOW = 1
"""IRiskValidator.Decision.ALLOW."""
ATTESTATION_S = 300
"""How long an attestation can be used, in seconds of the chain's clock."""


@dataclass(frozen=True, slots=True)
class Engine:
    """One engine key, one policy, one log. `risk_validator` is the module that checks the attestations on chain `chain_id`."""

    policy: Policy
    key: Eoa
    chain_id: int
    risk_validator: Address
    log: AuditLog

    def outstanding(self, account: Address, next_nonce: int, now_s: int) -> tuple[Outstanding, ...]:
        """Attestations for `account` that could still be used: not expired, and their nonce not passed on chain."""
        found: dict[Hash32, Outstanding] = {}
        for entry in self.log.entries():
            body = entry.body
            if entry.kind != "attestation" or parse_address(body["account"]) != account:
                continue
            one = Outstanding(parse_hash(body["intentHash"]), int(body["nonce"]), int(body["validUntil"]))
            same_lane = one.nonce >> 64 == next_nonce >> 64
            if one.valid_until_s > now_s and not (same_lane and one.nonce < next_nonce):
                found[one.intent_hash] = one
        return tuple(found.values())

    def decide(self, facts: Facts, now_s: int) -> Decision:
        """Judge, and keep the judgement. Never raises for a denial: the Decision says it."""
        decision = evaluate(self.policy, facts, now_s)
        self.log.append("decision", {"account": checksum(facts.account), **decision.to_json()})
        return decision

    def approve(self, decision: Decision, op: UserOperation, epoch: int, now_s: int) -> dict[str, object]:
        """The engine's word on the intent of `op`, as `context.approval` of ERC-7677 takes it. Raises PolicyRefused."""
        self._require_allowed(decision)
        approval = IntentApproval(
            account=op.sender,
            intent_hash=intent_hash(op),
            policy_id=self.policy.policy_id,
            policy_epoch=epoch,
            facts_hash=decision.facts_hash,
            decision=ALLOW,
            valid_until_s=now_s + ATTESTATION_S,
        )
        signature = self.key.sign_hash(approval.digest(self.chain_id, self.risk_validator))
        return {
            "engine": to_hex(self.key.address),
            "intentHash": to_hex(approval.intent_hash),
            "policyId": to_hex(approval.policy_id),
            "policyEpoch": epoch,
            "factsHash": to_hex(approval.facts_hash),
            "decision": ALLOW,
            "validUntil": approval.valid_until_s,
            "signature": to_hex(signature),
        }

    def attest(
        self,
        decision: Decision,
        op: UserOperation,
        *,
        entry_point: Address,
        signable_hash: Hash32,
        epoch: int,
        now_s: int,
    ) -> bytes:
        """The packed attestation of the final `op`, recorded before it is returned. Raises PolicyRefused.

        `signable_hash` is what the account hands its validator (wallet.account.signable_hash).
        """
        self._require_allowed(decision)
        attestation = Attestation(
            account=op.sender,
            entry_point=entry_point,
            user_op_hash=signable_hash,
            intent_hash=intent_hash(op),
            policy_id=self.policy.policy_id,
            policy_epoch=epoch,
            facts_hash=decision.facts_hash,
            decision=ALLOW,
            valid_after_s=0,
            valid_until_s=now_s + ATTESTATION_S,
        )
        self.log.append(
            "attestation",
            {
                "account": checksum(op.sender),
                "intentHash": to_hex(attestation.intent_hash),
                "userOpHash": to_hex(signable_hash),
                "nonce": str(op.nonce),
                "factsHash": to_hex(decision.facts_hash),
                "validUntil": attestation.valid_until_s,
            },
        )
        signature = self.key.sign_hash(attestation.digest(self.chain_id, self.risk_validator))
        return attestation.encode(self.key.address, signature)

    def _require_allowed(self, decision: Decision) -> None:
        if not decision.allowed:
            raise PolicyRefused(decision.summary, data=decision.to_json())
