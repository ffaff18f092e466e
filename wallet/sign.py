"""Path 1, Sign: calls -> operation -> simulate -> portfolio after -> rules -> Decision -> attestation -> owner signature -> bundler."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from decimal import Decimal
from typing import Any

from contracts.bindings import Call
from contracts.entrypoint.base import GET_NONCE
from contracts.eoa import Eoa
from contracts.errors import BadInput, NodeError, PolicyRefused, RpcError, SeawallError
from contracts.types import Address, Hash32, Wei
from contracts.userop import UserOperation, intent_hash, required_prefund
from policies import Decision, Facts, evaluate
from policies.activity import record_needed_s
from policies.attestation import dummy_attested_signature, encode_attested_envelope
from policies.portfolio import Missing
from wallet.account import AccountClient, signable_hash, suggest_fees
from wallet.engine import Engine
from wallet.facts import FactsReader, tokens_of
from wallet.flows import paid_in_between
from wallet.services import BundlerClient, EngineClient, PaymasterClient
from wallet.sizing import largest_sizes


@dataclass(frozen=True, slots=True)
class Judgement:
    """An operation that has been simulated and judged, and not been signed by anybody."""

    op: UserOperation
    facts: Facts
    decision: Decision
    now_s: int
    simulated_gas: int


@dataclass(frozen=True, slots=True)
class Sent:
    """An operation that the bundler has on its disk. `decision` is None where no engine judges (an account without policy)."""

    user_op_hash: Hash32
    op: UserOperation
    decision: Decision | None


@dataclass(frozen=True, slots=True)
class Signer:
    """One owner's way of sending operations. Without `engine` the account's own owner path is used and nothing is judged.

    Without `owner` it can judge and simulate, not sign.
    """

    account: AccountClient
    owner: Eoa | None
    bundler: BundlerClient
    engine: Engine | None = None
    reader: FactsReader | None = None
    paymaster: PaymasterClient | None = None
    priority_fee_wei: Wei = 1_000_000
    engines: tuple[EngineClient, ...] = ()
    """Others that may attest beside `engine`, where the policy wants several to agree."""
    clock: Callable[[], float] | None = None
    """Unix seconds, against which the newest block may be too old; None: the chain's own time (a devnet, a replay)."""

    async def judge(self, calls: Sequence[Call], *, sizes: bool = True) -> Judgement:
        """Simulate and judge. Nothing is signed, nothing leaves this machine but reads of the node. Raises BadInput, NodeError.

        `sizes`: of what is refused, the largest size that would pass is looked for on the same block.
        """
        if self.engine is None or self.reader is None:
            raise BadInput("this account has no policy; there is nothing to judge it by")
        return await self.judge_operation(await self.draft(calls), sponsored=self.paymaster is not None, sizes=sizes)

    async def judge_operation(self, op: UserOperation, *, sponsored: bool, sizes: bool = True) -> Judgement:
        """The same for an operation that somebody else has made. Raises BadInput, NodeError."""
        engine, reader = self.engine, self.reader
        if engine is None or reader is None:
            raise BadInput("this account has no policy; there is nothing to judge it by")
        found, gas = await reader.read(
            self.account, op, sponsored=sponsored, outstanding=lambda *_: (), policy=engine.policy
        )
        found = replace(found, signer=self._signer)
        await self._note_included(engine, found)
        facts = engine.informed(await self._with_payments(engine, found))
        now_s = facts.block_time_s if self.clock is None else max(facts.block_time_s, int(self.clock()))
        decision = evaluate(engine.policy, facts, now_s)
        probes: list[Any] = []
        if sizes and not decision.allowed and facts.missing == found.missing:

            async def read_at(other: UserOperation) -> Facts:
                probe, _ = await reader.read(
                    self.account,
                    other,
                    sponsored=sponsored,
                    outstanding=lambda *_: (),
                    block_number=facts.block_number,
                    policy=engine.policy,
                )
                return replace(probe, signer=self._signer)

            decision, probes = await largest_sizes(engine.policy, facts, decision, op, read_at)
        engine.record(decision, facts, probes)
        return Judgement(op, facts, decision, now_s, gas)

    async def _note_included(self, engine: Engine, facts: Facts) -> None:
        """Look which operations that were attested on other lanes are done: their nonce has passed on the block of `facts`."""
        lane = facts.nonce >> 64
        others = [
            one for one in engine.outstanding(facts.account, facts.nonce, facts.block_time_s) if one.nonce >> 64 != lane
        ]
        entry_point = self.account.entry_point.address
        for key in {one.nonce >> 64 for one in others}:
            ask = GET_NONCE.encode(facts.account, key)
            (due,) = GET_NONCE.decode(await self.account.rpc.eth_call(entry_point, ask, block=hex(facts.block_number)))
            engine.included.update(one.intent_hash for one in others if one.nonce >> 64 == key and one.nonce < due)

    @property
    def _signer(self) -> Address | None:
        """Who will sign, for limits that are some signers' own; None when only judging for somebody else."""
        return None if self.owner is None else self.owner.address

    async def _with_payments(self, engine: Engine, facts: Facts) -> Facts:
        """Bring what was paid in and out up to the block of `facts`, if the policy looks at the record. A failure is a missing fact."""
        if record_needed_s(engine.policy) is None:
            return facts
        with engine.log.reading() as log:
            record = log.record_of(facts.account)
        first = facts.block_number + 1 if record is None else record.block + 1
        try:
            more = await paid_in_between(
                self.account.rpc,
                self.account.entry_point,
                facts.account,
                tokens_of(facts.book),
                facts.book,
                facts.prices,
                first,
                facts.block_number,
            )
        except (RpcError, BadInput) as error:
            missing = Missing("payments into and out of the account", error.message)
            return replace(facts, missing=(*facts.missing, missing))
        engine.paid_in[facts.account] = (Decimal(0) if record is None else record.paid_in) + more
        return facts

    async def submit(self, calls: Sequence[Call]) -> Sent:
        """Judge, price, have it sponsored and attested, sign, send. Raises PolicyRefused before anybody has signed or been asked."""
        if self.engine is None:
            op = await self.draft(calls)
            pays_in_token = self.paymaster is not None and self.paymaster.gas_token is not None
            if self.paymaster is not None and pays_in_token:
                op = await self.paymaster.stub(op)
            op = await self.bundler.estimate(op)
            if self.paymaster is not None and pays_in_token:
                op = await self.paymaster.sponsor(op, None)
            return await self._send(op.replace(signature=self.signed(op)), None)
        judgement = await self.judge(calls)
        if not judgement.decision.allowed:
            raise PolicyRefused(judgement.decision.summary, data=judgement.decision.to_json())
        return await self.complete(judgement)

    async def complete(self, judgement: Judgement) -> Sent:
        """Everything after a Decision that allows. Only now is it known what the operation may cost, and so the final intent is decided
        over once more. Raises PolicyRefused, RpcError with the reason of bundler or paymaster.
        """
        engine = self.engine
        assert engine is not None
        op = judgement.op
        if self.paymaster is not None:
            op = await self.paymaster.stub(op)
        op = await self.bundler.estimate(op)
        # A bundler estimates on the latest block's clock, on which a venue has no funding to settle yet. Half as much again as was
        # simulated a second later covers refunds (at most a fifth) and the 1/64 that every nested call holds back.
        op = op.replace(call_gas_limit=max(op.call_gas_limit, judgement.simulated_gas * 3 // 2))
        epoch, now_s = judgement.facts.policy_epoch, judgement.now_s
        facts = replace(judgement.facts, intent_hash=intent_hash(op), max_prefund_wei=required_prefund(op))
        decision = engine.decide(facts, now_s)
        if not decision.allowed:
            raise PolicyRefused(decision.summary, data=decision.to_json())
        if self.paymaster is not None:
            op = await self.paymaster.sponsor(op, engine.approve(decision, op, epoch, now_s))
        final_hash = signable_hash(
            self.account.entry_point, self.account.user_op_hash(op), self.account.address, self.account.chain_id
        )
        others = await self.others(op)
        attestation = engine.attest(
            decision,
            op,
            entry_point=self.account.entry_point.address,
            signable_hash=final_hash,
            epoch=epoch,
            now_s=now_s,
            facts=facts,
        )
        signature = encode_attested_envelope(self.signed(op), [attestation, *others])
        return await self._send(op.replace(signature=signature), decision)

    async def others(self, op: UserOperation, approvals: Sequence[str] = ()) -> list[bytes]:
        """The attestations of as many other engines as the policy wants beside our own. Ours comes last, so that nothing is reserved here
        for what others refuse. Raises PolicyRefused or NodeError when too few agree, saying what each answered; BadInput for too few.
        """
        assert self.engine is not None
        wanted = self.engine.policy.attestation_threshold - 1
        if wanted == 0:
            return []
        if len(self.engines) < wanted:
            raise BadInput(
                f"policy {self.engine.policy.name} wants {wanted + 1} engines to agree: name the services of {wanted} more under "
                f"`engines` in seawall.toml (URL#TOKEN_FILE); there are {len(self.engines)}"
            )
        answers = await asyncio.gather(*(one.attest(op, approvals) for one in self.engines), return_exceptions=True)
        given = [one for one in answers if isinstance(one, bytes)]
        if len(given) >= wanted:
            return given[:wanted]
        failed = [one for one in answers if isinstance(one, BaseException)]
        for one in failed:
            if not isinstance(one, SeawallError):
                raise one
        told = "; ".join(one.message for one in failed if isinstance(one, SeawallError))
        refused = next((one for one in failed if isinstance(one, PolicyRefused)), None)
        text = f"{len(given) + 1} of {wanted + 1} engines agree: {told}"
        raise NodeError(text) if refused is None else PolicyRefused(text, data=refused.data)

    def signed(self, op: UserOperation) -> bytes:
        """The owner's signature over the final `op`. Raises BadInput without the owner's key."""
        if self.owner is None:
            raise BadInput("the owner's key is not open: this can judge an operation, not sign it")
        return self.account.sign(op, self.owner)

    async def draft(self, calls: Sequence[Call]) -> UserOperation:
        """An operation that makes `calls`, at the fees of now, without gas limits and with a stub for a signature. Raises BadInput."""
        if self.paymaster is not None:
            calls = await self.paymaster.with_approval(self.account.address, calls)
        max_fee, priority_fee = await suggest_fees(self.account.rpc, priority_fee_wei=self.priority_fee_wei)
        op = await self.account.draft(calls, max_fee_wei=max_fee, priority_fee_wei=priority_fee)
        if self.engine is None:
            return op
        return op.replace(signature=dummy_attested_signature(self.engine.policy.attestation_threshold))

    async def _send(self, op: UserOperation, decision: Decision | None) -> Sent:
        return Sent(await self.bundler.send(op), op, decision)
