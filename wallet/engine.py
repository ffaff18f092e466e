"""The policy engine with its key: it judges facts, keeps the record, and signs what the policy allows. It never moves anything alone.

Order, as the chain and the paymaster need it: decide over the intent -> approve the intent (the paymaster asks for that) -> attest the
final operation. Every attestation is on the disk before it leaves; until it has been used or has expired, it is *outstanding*, and the
next decision takes it into account, so that two operations that pass one by one cannot breach together.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from decimal import Decimal

from contracts.eoa import Eoa
from contracts.errors import BadInput, PolicyRefused
from contracts.types import Address, Hash32, checksum, parse_address, parse_hash, to_hex
from contracts.userop import UserOperation, intent_hash, required_prefund
from policies import Decision, Facts, Outstanding, Policy, evaluate
from policies.attestation import Attestation, IntentApproval
from policies.rules import latched_after
from wallet.audit import AuditLog, Entry

ALLOW = 1
"""IRiskValidator.Decision.ALLOW."""
_DAY_S = 86_400


@dataclass(frozen=True, slots=True)
class Engine:
    """One engine key, one policy, one log. `risk_validator` is the module that checks the attestations on chain `chain_id`.

    Without `key` it judges and keeps the record, but attests nothing.
    """

    policy: Policy
    key: Eoa | None
    chain_id: int
    risk_validator: Address
    log: AuditLog

    def outstanding(self, account: Address, next_nonce: int, now_s: int) -> tuple[Outstanding, ...]:
        """Attestations for `account` that could still be used: not expired, and their nonce not passed on chain."""
        return _outstanding(self.log.entries(), account, next_nonce, now_s)

    def sponsored_today(self, account: Address, now_s: int) -> int:
        """Wei that sponsors of `account` may have spent on what was attested since midnight UTC of the chain's clock.

        An upper bound: each operation counts with the most it could cost, operations of one nonce (only one is included) once.
        """
        most: dict[int, int] = {}
        for entry in self.log.entries():
            body = entry.body
            if entry.kind != "attestation" or parse_address(body["account"]) != account:
                continue
            if int(body["attestedAt"]) // _DAY_S == now_s // _DAY_S:
                nonce = int(body["nonce"])
                most[nonce] = max(most.get(nonce, 0), int(body["sponsoredWei"]))
        return sum(most.values())

    def latched(self, account: Address) -> frozenset[str]:
        """Limits that are still tighter by their hysteresis, by what earlier decisions of this policy saw of `account`."""
        found: frozenset[str] = frozenset()
        policy_id, named = to_hex(self.policy.policy_id), checksum(account)
        for entry in self.log.entries():
            body = entry.body
            if entry.kind == "decision" and body["account"] == named and body["policy_id"] == policy_id:
                seen = {row["id"]: Decimal(row["before"]) for row in body["limits"] if row["before"] is not None}
                found = latched_after(self.policy, seen, found)
        return found

    def decide(self, facts: Facts, now_s: int) -> Decision:
        """Judge, and keep the judgement. Never raises for a denial: the Decision says it."""
        decision = evaluate(self.policy, facts, now_s)
        self.log.append("decision", {"account": checksum(facts.account), **decision.to_json()})
        return decision

    def approve(self, decision: Decision, op: UserOperation, epoch: int, now_s: int) -> dict[str, object]:
        """The engine's word on the intent of `op`, as `context.approval` of ERC-7677 takes it. Raises PolicyRefused."""
        key = self._require(decision)
        approval = IntentApproval(
            account=op.sender,
            intent_hash=intent_hash(op),
            policy_id=self.policy.policy_id,
            policy_epoch=epoch,
            facts_hash=decision.facts_hash,
            decision=ALLOW,
            valid_until_s=now_s + self.policy.attestation_validity_s,
        )
        signature = key.sign_hash(approval.digest(self.chain_id, self.risk_validator))
        return {
            "engine": to_hex(key.address),
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
        """The packed attestation of the final `op`, recorded before it is returned. Raises PolicyRefused, also when another process
        has attested a different operation since `decision`: together they were never judged.

        `signable_hash` is what the account hands its validator (wallet.account.signable_hash).
        """
        key = self._require(decision)
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
            valid_until_s=now_s + self.policy.attestation_validity_s,
        )

        def alone(entries: Sequence[Entry]) -> None:
            others = [one for one in _outstanding(entries, op.sender, op.nonce, now_s) if one.nonce != op.nonce]
            if others:
                raise PolicyRefused(
                    f"policy {self.policy.name} {self.policy.version} denies: {len(others)} other operation(s) were attested while "
                    "this one was judged; judge it again",
                    data=decision.to_json(),
                )

        self.log.append(
            "attestation",
            {
                "account": checksum(op.sender),
                "intentHash": to_hex(attestation.intent_hash),
                "userOpHash": to_hex(signable_hash),
                "nonce": str(op.nonce),
                "factsHash": to_hex(decision.facts_hash),
                "attestedAt": now_s,
                "validUntil": attestation.valid_until_s,
                "sponsoredWei": str(required_prefund(op) if op.paymaster is not None else 0),
            },
            alone,
        )
        signature = key.sign_hash(attestation.digest(self.chain_id, self.risk_validator))
        return attestation.encode(key.address, signature)

    def _require(self, decision: Decision) -> Eoa:
        """The key, for a Decision that allows."""
        if not decision.allowed:
            raise PolicyRefused(decision.summary, data=decision.to_json())
        if self.key is None:
            raise BadInput("this engine has no key here: it can judge, not attest")
        return self.key


def _outstanding(entries: Sequence[Entry], account: Address, next_nonce: int, now_s: int) -> tuple[Outstanding, ...]:
    found: dict[Hash32, Outstanding] = {}
    for entry in entries:
        body = entry.body
        if entry.kind != "attestation" or parse_address(body["account"]) != account:
            continue
        one = Outstanding(parse_hash(body["intentHash"]), int(body["nonce"]), int(body["validUntil"]))
        same_lane = one.nonce >> 64 == next_nonce >> 64
        if one.valid_until_s > now_s and not (same_lane and one.nonce < next_nonce):
            found[one.intent_hash] = one
    return tuple(found.values())
