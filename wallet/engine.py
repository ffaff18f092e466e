"""The policy engine with its key: it judges facts, keeps the record, and signs what the policy allows. It never moves anything alone.

Order, as the chain and the paymaster need it: decide over the intent -> approve the intent (the paymaster asks for that) -> attest the
final operation. Every attestation is on the disk before it leaves; until it has been used or has expired, it is *outstanding*, and the
next decision takes it into account, so that two operations that pass one by one cannot breach together.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from decimal import Decimal
from functools import cache
from typing import Any

from contracts.eoa import Eoa
from contracts.errors import BadInput, PolicyRefused
from contracts.types import Address, Hash32, checksum, parse_hash, to_hex
from contracts.userop import UserOperation, intent_hash, required_prefund
from policies import Decision, Facts, Outstanding, Policy, evaluate
from policies.activity import equity_point, realised_by, record_needed_s, traded_by
from policies.approvals import Granted, Subject, asked, in_force, needed, quorums
from policies.attestation import NO_QUORUM, Attestation, IntentApproval, SignedApproval, quorum_id
from policies.canonical import decimal_text
from policies.portfolio import Activity, History
from policies.rules import latched_after
from wallet.audit import ATTESTATION, DECISION, AuditLog, Entry, Transaction
from wallet.equity import curve, remember

ALLOW, REQUIRE_SIGNERS = 1, 2
"""IRiskValidator.Decision."""
_DAY_S = 86_400
_EXITS = frozenset({"exit", "guard", "escape"})


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
    paid_in: dict[Address, Decimal] = field(default_factory=dict)
    """What had been paid into an account in all (negative: out), as `wallet.flows` last read it from the chain."""
    included: set[Hash32] = field(default_factory=set)
    """Intents attested on another lane whose nonce the chain has passed, as far as somebody looked: they are not outstanding any more."""

    # -- what earlier decisions and attestations mean for the next one ------------------------------------------------------------------

    def outstanding(self, account: Address, next_nonce: int, now_s: int) -> tuple[Outstanding, ...]:
        """Attestations for `account` that could still be used: not expired, and their nonce not passed on chain."""
        with self.log.reading() as log:
            return self._outstanding(log, account, next_nonce, now_s)

    def sponsored_today(self, account: Address, now_s: int) -> int:
        """Wei that sponsors of `account` may have spent on what was attested since midnight UTC of the chain's clock.

        An upper bound: each operation counts with the most it could cost, operations of one nonce (only one is included) once.
        """
        most: dict[int, int] = {}
        midnight = now_s // _DAY_S * _DAY_S
        with self.log.reading() as log:
            for entry in log.attestations_since(account, midnight):
                body = entry.body
                if body["at"] < midnight + _DAY_S:
                    nonce = int(body["nonce"])
                    most[nonce] = max(most.get(nonce, 0), int(body["sponsoredWei"]))
        return sum(most.values())

    def latched(self, account: Address) -> frozenset[str]:
        """Limits that are still tighter by their hysteresis, by what earlier decisions of this policy saw of `account`."""
        with self.log.reading() as log:
            return self._latched(log, account)

    def history(self, account: Address, since_s: int) -> History | None:
        """What is on record about `account` from `since_s` (unix s): equity when it was judged, thinned as `wallet.equity` says, and
        every operation attested (of one nonce the last, as only one is included), its cost being the most it could be. None: no record.
        """
        with self.log.reading() as log:
            record = log.record_of(account)
            points = curve(log.db, account, since_s)
            last = {entry.body["nonce"]: entry for entry in log.attestations_since(account, since_s)}
        if record is None:
            return None
        return History(
            since_s=max(since_s, record.since_s),
            equity=tuple(points),
            activity=tuple(_activity(entry) for entry in sorted(last.values(), key=lambda e: e.seq)),
        )

    def paid_in_until(self, account: Address, log: Transaction) -> Decimal:
        """What had been paid in: as `wallet.flows` last read it here, else as the record has it."""
        if account in self.paid_in:
            return self.paid_in[account]
        record = log.record_of(account)
        return Decimal(0) if record is None else record.paid_in

    def informed(self, facts: Facts) -> Facts:
        """`facts` with what only the record knows: what is outstanding, latched and spent, and as much history as the policy looks at."""
        account, now_s = facts.account, facts.block_time_s
        facts = replace(
            facts,
            outstanding=self.outstanding(account, facts.nonce, now_s),
            latched=self.latched(account),
            sponsored_today_wei=self.sponsored_today(account, now_s) if facts.sponsored else 0,
        )
        reach_s = record_needed_s(self.policy)
        if reach_s is None:
            return facts
        since_s = max(0, now_s - reach_s)
        known = self.history(account, since_s) or History(max(since_s, _complete_since_s(facts)))
        with self.log.reading() as log:
            paid_in = self.paid_in_until(account, log)
        point = equity_point(facts, paid_in)
        if point is not None and (not known.equity or point.time_s >= known.equity[-1].time_s):
            earlier = tuple(one for one in known.equity if one != point)
            known = replace(known, equity=(*earlier, point))
        return replace(facts, history=known)

    # -- judging ------------------------------------------------------------------------------------------------------------------------

    def decide(self, facts: Facts, now_s: int) -> Decision:
        """Judge, and keep the judgement. Never raises for a denial: the Decision says it."""
        decision = evaluate(self.policy, facts, now_s)
        self.record(decision, facts)
        return decision

    def record(self, decision: Decision, facts: Facts, probes: Sequence[Any] = ()) -> None:
        """Keep a judgement with everything it can be judged again from: facts, policy, and what was simulated in other sizes (`probes`,
        as `wallet.sizing` writes them). A judgement that is on record already, with as much beside it, is not kept twice.
        """
        account = facts.account
        with self.log.transaction() as log:
            paid_in = self.paid_in_until(account, log)
            point = equity_point(facts, paid_in)
            key = to_hex(decision.id)
            known = log.decision(key)
            if known is not None and (known.body["decision"].get("sizes") is not None or decision.sizes is None):
                return
            seen = {row.id: row.before for row in decision.limits if row.before is not None}
            latched = latched_after(self.policy, seen, self._latched(log, account))
            log.keep_facts(facts)
            log.keep_policy(self.policy)
            kept = log.keep_probes(probes) if probes else None
            log.append(
                DECISION,
                {
                    "account": checksum(account),
                    "id": key,
                    "at": decision.decided_at_s,
                    "policyId": to_hex(decision.policy_id),
                    "seawall": version(),
                    "decision": decision.to_json(),
                    "probes": None if kept is None else to_hex(kept),
                    "latched": sorted(latched),
                    "completeSince": _complete_since_s(facts),
                    "block": facts.block_number,
                    "paidIn": decimal_text(paid_in),
                    "equity": None
                    if point is None
                    else {"time": point.time_s, "equity": decimal_text(point.equity), "paidIn": decimal_text(paid_in)},
                },
            )
            log.advance_record(account, _complete_since_s(facts), facts.block_number, paid_in)
            if point is not None:
                remember(log.db, account, point)

    def granted(
        self,
        decision: Decision,
        op: UserOperation,
        *,
        entry_point: Address,
        epoch: int,
        now_s: int,
        book: Mapping[str, Address],
        approvals: Sequence[SignedApproval],
    ) -> Granted | None:
        """What lets `op` pass beside the decision itself: None for one that allows, else the approvals of every quorum it asks.

        Raises PolicyRefused, naming whose approval is still missing; BadInput for a signer whose address `book` lacks.
        """
        if decision.allowed:
            return None
        names = asked(decision)
        if not names:
            raise PolicyRefused(decision.summary, data=decision.to_json())
        subject = Subject(
            op.sender,
            entry_point,
            intent_hash(op),
            self.policy.policy_id,
            epoch,
            self.chain_id,
            self.risk_validator,
        )
        counting, lacking = needed(names, quorums(self.policy, book, op.sender), in_force(subject, approvals, now_s))
        if lacking:
            raise PolicyRefused(f"{decision.summary}: " + "; ".join(lacking), data=decision.to_json())
        return Granted(names, counting)

    def approve(
        self, decision: Decision, op: UserOperation, epoch: int, now_s: int, granted: Granted | None = None
    ) -> dict[str, object]:
        """The engine's word on the intent of `op`, as `context.approval` of ERC-7677 takes it. Raises PolicyRefused."""
        key = self._require(decision, granted)
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

    # -- attesting ----------------------------------------------------------------------------------------------------------------------

    def attest(
        self,
        decision: Decision,
        op: UserOperation,
        *,
        entry_point: Address,
        signable_hash: Hash32,
        epoch: int,
        now_s: int,
        facts: Facts | None = None,
        granted: Granted | None = None,
    ) -> bytes:
        """The packed attestation of the final `op`, recorded before it is returned. Raises PolicyRefused, also when another process
        has attested a different operation since `decision`: together they were never judged (declared exits are not held back).
        A decision that requires signers needs what `granted` answered for it.

        `signable_hash` is what the account hands its validator (wallet.account.signable_hash). `facts`, where given, tell the record what
        the operation trades.
        """
        key = self._require(decision, granted)
        exits = bool(decision.calls) and all(row.rule in _EXITS for row in decision.calls)
        until_s = now_s + self.policy.attestation_validity_s
        signers: dict[str, Any] = {}
        if granted is not None:
            until_s = min(until_s, granted.valid_until_s)
            signers = {
                "quorums": list(granted.names),
                "quorumId": to_hex(quorum_id(granted.names)),
                "signers": [checksum(one.signer) for one in granted.approvals],
            }
        cost_wei = required_prefund(op)

        def alone(log: Transaction) -> dict[str, Any]:
            others = [one for one in self._outstanding(log, op.sender, op.nonce, now_s) if one.nonce != op.nonce]
            if others and not exits:
                raise PolicyRefused(
                    f"policy {self.policy.name} {self.policy.version} denies: {len(others)} other operation(s) were attested while "
                    "this one was judged; judge it again",
                    data=decision.to_json(),
                )
            return {
                "account": checksum(op.sender),
                "engine": checksum(key.address),
                "entryPoint": checksum(entry_point),
                "intentHash": to_hex(intent_hash(op)),
                "userOpHash": to_hex(signable_hash),
                "nonce": str(op.nonce),
                "decision": to_hex(decision.id),
                "policyId": to_hex(self.policy.policy_id),
                "policyEpoch": epoch,
                "factsHash": to_hex(decision.facts_hash),
                "at": now_s,
                "validUntil": until_s,
                "traded": decimal_text(Decimal(0) if facts is None else traded_by(facts)),
                "realised": decimal_text(Decimal(0) if facts is None else realised_by(facts)),
                "gasWei": str(cost_wei),
                "sponsoredWei": str(cost_wei if op.paymaster is not None else 0),
                **signers,
            }

        entry = self.log.append(ATTESTATION, alone)
        self.log.sign_head(key.sign_hash, key.address)
        return self._signed(entry, key)

    def attested(self, signable_hash: Hash32, now_s: int) -> bytes | None:
        """The attestation that this engine and policy gave for an operation before, byte for byte, while it is valid; None otherwise.

        What was recorded and never answered (a crash, a lost connection) is answered from here.
        """
        if self.key is None:
            return None
        with self.log.reading() as log:
            entry = log.attestation(signable_hash)
        if entry is None or entry.body["validUntil"] <= now_s:
            return None
        ours = (to_hex(self.policy.policy_id), checksum(self.key.address))
        if (entry.body["policyId"], entry.body["engine"]) != ours:
            return None
        return self._signed(entry, self.key)

    def _signed(self, entry: Entry, key: Eoa) -> bytes:
        """The attestation that an entry records. The same entry gives the same bytes: signatures are deterministic (RFC 6979)."""
        body = entry.body
        attestation = Attestation(
            account=bytes.fromhex(body["account"][2:]),
            entry_point=bytes.fromhex(body["entryPoint"][2:]),
            user_op_hash=parse_hash(body["userOpHash"]),
            intent_hash=parse_hash(body["intentHash"]),
            policy_id=parse_hash(body["policyId"]),
            policy_epoch=body["policyEpoch"],
            facts_hash=parse_hash(body["factsHash"]),
            decision=REQUIRE_SIGNERS if "quorumId" in body else ALLOW,
            valid_after_s=0,
            valid_until_s=body["validUntil"],
            quorum_id=parse_hash(body["quorumId"]) if "quorumId" in body else NO_QUORUM,
        )
        return attestation.encode(key.address, key.sign_hash(attestation.digest(self.chain_id, self.risk_validator)))

    def _latched(self, log: Transaction, account: Address) -> frozenset[str]:
        last = log.latest(account, DECISION, to_hex(self.policy.policy_id))
        return frozenset() if last is None else frozenset(last.body["latched"])

    def _outstanding(self, log: Transaction, account: Address, next_nonce: int, now_s: int) -> tuple[Outstanding, ...]:
        found = _outstanding(log, account, next_nonce, now_s)
        return tuple(one for one in found if one.intent_hash not in self.included)

    def _require(self, decision: Decision, granted: Granted | None = None) -> Eoa:
        """The key, for a Decision that allows, or that asks exactly the quorums that were granted."""
        if not decision.allowed and (granted is None or granted.names != asked(decision)):
            raise PolicyRefused(decision.summary, data=decision.to_json())
        if self.key is None:
            raise BadInput("this engine has no key here: it can judge, not attest")
        return self.key


@cache
def version() -> str:
    """The Seawall that is running, as decisions record it."""
    from importlib.metadata import version as of

    return of("seawall")


def _outstanding(log: Transaction, account: Address, next_nonce: int, now_s: int) -> tuple[Outstanding, ...]:
    found: dict[Hash32, Outstanding] = {}
    for entry in log.attestations_ending_after(account, now_s):
        body = entry.body
        one = Outstanding(parse_hash(body["intentHash"]), int(body["nonce"]), body["validUntil"])
        same_lane = one.nonce >> 64 == next_nonce >> 64
        if not (same_lane and one.nonce < next_nonce):
            found[one.intent_hash] = one
    return tuple(found.values())


def _complete_since_s(facts: Facts) -> int:
    """From when on a record that begins with these facts is complete: from ever (0), if the account has never used its lane before."""
    sequence, lane = facts.nonce & (2**64 - 1), facts.nonce >> 64 & (2**24 - 1)
    return 0 if sequence == 0 and lane == 0 else facts.block_time_s


def _activity(entry: Entry) -> Activity:
    body = entry.body
    return Activity(
        time_s=body["at"],
        intent_hash=parse_hash(body["intentHash"]),
        traded=Decimal(body["traded"]),
        realised=Decimal(body["realised"]),
        gas_wei=int(body["gasWei"]),
        sponsored_wei=int(body["sponsoredWei"]),
    )
