"""The policy engine for traders who sign elsewhere: it judges, approves and attests operations that are sent to it, for many accounts.

Nothing that a client says is taken for a fact: chain, nonce, code, portfolio before and after are read from the service's own node, and an
operation is run there as it stands. What a client may choose is the operation.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from contracts.entrypoint import EntryPoint
from contracts.entrypoint.base import GET_NONCE
from contracts.eoa import Eoa
from contracts.errors import BadInput, NodeError
from contracts.rpc import RpcClient
from contracts.types import Address, Hash32, checksum, parse_hash, to_hex
from contracts.userop import LANE_ATTESTED, UserOperation, nonce_key
from policies import Policy
from policies.approvals import Granted
from policies.attestation import SignedApproval
from wallet.account import AccountClient, signable_hash
from wallet.audit import AuditLog, Entry
from wallet.engine import Engine
from wallet.facts import FactsReader
from wallet.services import BundlerClient
from wallet.sign import Judgement, Signer


@dataclass(slots=True)
class PolicyService:
    """One policy and one engine key on one chain. `accounts`: those it serves, None: every one on which this policy is in force.

    `folder` holds a log per account, the same that `seawall trade` of this user writes: their reservations are common.
    """

    rpc: RpcClient
    entry_point: EntryPoint
    chain_id: int
    policy: Policy
    key: Eoa | None
    risk_validator: Address
    reader: FactsReader
    folder: Path
    clock: Callable[[], float] | None = None
    accounts: frozenset[Address] | None = None
    pricing: str = "not loaded yet"
    """What prices options: the backend that was warmed up."""
    changed: asyncio.Event = field(default_factory=asyncio.Event)
    """Set, and replaced, whenever something was recorded here."""
    _engines: dict[Address, Engine] = field(default_factory=dict)
    _locks: dict[Address, asyncio.Lock] = field(default_factory=dict)

    # -- what clients ask -------------------------------------------------------------------------------------------------------------

    async def judge(self, op: UserOperation, *, sponsored: bool = False, sizes: bool = True) -> Judgement:
        """Run `op` on the node and judge it; the judgement is recorded. Raises BadInput, NodeError."""
        await self._check(op)
        async with self._lock(op.sender):
            return await self._judged(op, sponsored=sponsored or op.paymaster is not None, sizes=sizes)

    async def approve(
        self, op: UserOperation, approvals: Sequence[SignedApproval] = ()
    ) -> tuple[Judgement, Mapping[str, object]]:
        """The engine's word on the intent of `op`, for a paymaster. `approvals` are those of the quorums that it needs, if any.

        Raises PolicyRefused, BadInput, NodeError.
        """
        await self._check(op)
        async with self._lock(op.sender):
            judgement = await self._judged(op, sponsored=True, sizes=True)
            granted = self._granted(judgement, op, approvals)
            approval = self.engine(op.sender).approve(
                judgement.decision, op, judgement.facts.policy_epoch, judgement.now_s, granted
            )
            return judgement, approval

    def _granted(self, judgement: Judgement, op: UserOperation, approvals: Sequence[SignedApproval]) -> Granted | None:
        return self.engine(op.sender).granted(
            judgement.decision,
            op,
            entry_point=self.entry_point.address,
            epoch=judgement.facts.policy_epoch,
            now_s=judgement.now_s,
            book=judgement.facts.book,
            approvals=approvals,
        )

    async def attest(self, op: UserOperation, approvals: Sequence[SignedApproval] = ()) -> dict[str, Any]:
        """The attestation of the final `op`, on the disk before it is answered. Asked again for the same operation: the same attestation,
        byte for byte, while it is valid. Raises PolicyRefused, BadInput, NodeError.
        """
        await self._check(op)
        engine = self.engine(op.sender)
        final = self.signable_hash(op)
        async with self._lock(op.sender):
            now_s = await self._now_s()
            given = engine.attested(final, now_s)
            if given is None:
                judgement = await self._judged(op, sponsored=op.paymaster is not None, sizes=True)
                given = engine.attest(
                    judgement.decision,
                    op,
                    entry_point=self.entry_point.address,
                    signable_hash=final,
                    epoch=judgement.facts.policy_epoch,
                    now_s=judgement.now_s,
                    facts=judgement.facts,
                    granted=self._granted(judgement, op, approvals),
                )
                self._tell()
        with engine.log.reading() as log:
            entry = log.attestation(final)
        assert entry is not None
        return {
            "attestation": to_hex(given),
            "engine": entry.body["engine"],
            "userOpHash": to_hex(final),
            "decision": entry.body["decision"],
            "policyId": entry.body["policyId"],
            "validUntil": entry.body["validUntil"],
            "quorums": entry.body.get("quorums", []),
        }

    def find(self, key: str) -> tuple[AuditLog, Entry] | None:
        """A decision by its id, or an attestation by its operation's hash, whatever account it is about. Raises BadInput."""
        digest = to_hex(parse_hash(key, "id"))
        for log in self.logs():
            if (entry := log.find(digest)) is not None:
                return log, entry
        return None

    def logs(self, account: Address | None = None) -> Iterator[AuditLog]:
        """The logs of this chain, by account."""
        pattern = f"{self.chain_id}-{'0x*' if account is None else checksum(account)}.db"
        for path in sorted(self.folder.glob(pattern)):
            address = bytes.fromhex(path.stem.partition("-0x")[2])
            if self.accounts is None or address in self.accounts:
                yield self.engine(address).log

    async def health(self) -> dict[str, Any]:
        """What /ready says. Never raises."""
        answer: dict[str, Any] = {
            "chainId": self.chain_id,
            "policyId": to_hex(self.policy.policy_id),
            "policy": f"{self.policy.name} {self.policy.version}",
            "engine": None if self.key is None else checksum(self.key.address),
            "pricing": self.pricing,
        }
        try:
            head = await self.rpc.block()
            found = await self.rpc.chain_id()
        except NodeError as error:
            return answer | {"ready": False, "why": f"the node does not answer: {error.message}"}
        if found != self.chain_id:
            return answer | {"ready": False, "why": f"the node is on chain {found}"}
        age_s = 0 if self.clock is None else int(self.clock()) - int(head["timestamp"], 16)
        behind = age_s > self.policy.max_block_age_s
        why = {"why": f"the newest block is {age_s} s old"} if behind else {}
        return answer | {"ready": not behind, "block": int(head["number"], 16)} | why

    # -- inside -----------------------------------------------------------------------------------------------------------------------

    def engine(self, account: Address) -> Engine:
        """The engine of one account; its log is made when something is recorded."""
        if account not in self._engines:
            log = AuditLog(self.folder / f"{self.chain_id}-{checksum(account)}.db")
            self._engines[account] = Engine(self.policy, self.key, self.chain_id, self.risk_validator, log)
        return self._engines[account]

    def signable_hash(self, op: UserOperation) -> Hash32:
        """What the account hands its validator for `op`."""
        final = self.entry_point.user_op_hash(op, self.chain_id)
        return signable_hash(self.entry_point, final, op.sender, self.chain_id)

    def close(self) -> None:
        """Give every log back."""
        for engine in self._engines.values():
            engine.log.close()

    def _lock(self, account: Address) -> asyncio.Lock:
        return self._locks.setdefault(account, asyncio.Lock())

    async def _judged(self, op: UserOperation, *, sponsored: bool, sizes: bool) -> Judgement:
        client = AccountClient(self.rpc, self.entry_point, self.chain_id, op.sender, self.risk_validator)
        signer = Signer(
            client,
            None,
            BundlerClient(self.rpc, self.entry_point),
            self.engine(op.sender),
            self.reader,
            clock=self.clock,
        )
        judgement = await signer.judge_operation(op, sponsored=sponsored, sizes=sizes)
        self._tell()
        return judgement

    def _tell(self) -> None:
        self.changed.set()
        self.changed = asyncio.Event()

    async def _now_s(self) -> int:
        block_s = int((await self.rpc.block())["timestamp"], 16)
        return block_s if self.clock is None else max(block_s, int(self.clock()))

    async def _check(self, op: UserOperation) -> None:
        """What must hold before anything is simulated or recorded: the chain, the account, the lane, and that nothing comes before `op`.

        That the nonce is the next one matters: an attestation counts as used when its nonce lies below the one that is judged.
        """
        if self.accounts is not None and op.sender not in self.accounts:
            raise BadInput(f"this engine does not serve account {checksum(op.sender)}")
        key = op.nonce >> 64
        if key >> 24 != nonce_key(self.risk_validator, LANE_ATTESTED) >> 24:
            raise BadInput(
                f"nonce {hex(op.nonce)} is not in the attested lane of validator {checksum(self.risk_validator)}: "
                "no attestation would be looked at there"
            )
        ask = GET_NONCE.encode(op.sender, key)
        chain_id, code, answer = await asyncio.gather(
            self.rpc.chain_id(), self.rpc.get_code(op.sender), self.rpc.eth_call(self.entry_point.address, ask)
        )
        if chain_id != self.chain_id:
            raise NodeError(f"the node is on chain {chain_id}, this engine signs for chain {self.chain_id}")
        if bool(code) == (op.factory is not None):
            there = "exists already: leave factory out" if code else "does not exist: the operation needs its factory"
            raise BadInput(f"account {checksum(op.sender)} {there}")
        (due,) = GET_NONCE.decode(answer)
        if op.nonce != due:
            raise BadInput(f"the next nonce of this lane is {hex(due)}, the operation has {hex(op.nonce)}")
