"""How an operation gets in: static checks -> validation on the node -> pool rules -> disk -> pool.

Its hash is returned only when a crash cannot lose it any more.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

from bundler import rules, simulation
from bundler.chain import Head, read_delegate, read_head
from bundler.cheap import CheapPass
from bundler.checks import check, check_authorization, check_floor, execution_floor
from bundler.erc7562.entities import Stake, entity_addresses
from bundler.events import Event, Events, Kind
from bundler.fees import Pricing
from bundler.mempool import Entry, Mempool
from bundler.reputation import Reputation
from bundler.settings import Settings
from bundler.store import Admission, Changes, Store
from contracts.entrypoint import EntryPoint
from contracts.errors import RejectedByEntryPoint, SeawallError
from contracts.faults import checkpoint
from contracts.rpc import RpcClient
from contracts.types import Address, Hash32, to_hex
from contracts.userop import Candidate

log = logging.getLogger("bundler.intake")


class Draining(SeawallError):
    """This process is about to stop and takes no new operations; those it has are on disk."""

    code = -32000


class Intake:
    """Accepts operations, one at a time for each sender."""

    def __init__(
        self,
        rpc: RpcClient,
        store: Store,
        pool: Mempool,
        executor: Address,
        chain_id: int,
        settings: Settings,
        accepted: asyncio.Event,
        reputation: Reputation,
        pricing: Pricing,
        clock: Callable[[], float] = time.time,
        cheap: CheapPass | None = None,
    ) -> None:
        self._rpc = rpc
        self._store = store
        self._pool = pool
        self._executor = executor
        self._chain_id = chain_id
        self._settings = settings
        self._accepted = accepted
        self._clock = clock
        self._reputation = reputation
        self._pricing = pricing
        self._cheap = cheap
        self._locks: dict[Address, tuple[asyncio.Lock, list[None]]] = {}
        self._recording: dict[Hash32, asyncio.Future[None]] = {}
        self.events = Events()
        self.head: Head | None = None
        """The latest block the service's loop has seen."""
        self.validating = 0
        self.accepted_count = 0
        self.draining = False

    @asynccontextmanager
    async def _turn(self, sender: Address) -> AsyncIterator[None]:
        """One operation of a sender at a time, so that checks against the pool still hold at insertion."""
        lock, users = self._locks.setdefault(sender, (asyncio.Lock(), []))
        users.append(None)
        try:
            async with lock:
                yield
        finally:
            users.pop()
            if not users:
                del self._locks[sender]

    async def accept(self, candidate: Candidate, entry_point: EntryPoint) -> Hash32:
        """Return the operation's hash once it is on disk. Sending a pending operation again returns its hash again.

        Raises InvalidFields, an OperationRejected, Draining, NodeError or SetupError (the disk).
        """
        if self.draining:
            raise Draining("the bundler is shutting down and takes no new operations; send it again in a moment")
        self.validating += 1
        started_s, known = time.monotonic(), False
        try:
            head = self.head or await read_head(self._rpc)
            op = candidate.op
            check(candidate, entry_point, self._settings, head)
            check_authorization(candidate, self._chain_id)
            await self._check_price(candidate, entry_point, head)
            delegate = (
                candidate.authorization.delegate if candidate.authorization else await read_delegate(self._rpc, op)
            )
            op_hash = entry_point.user_op_hash(op, self._chain_id, delegate)
            async with self._turn(op.sender):
                await self._store.refresh()
                recording = self._recording.get(op_hash)
                known = recording is not None or op_hash in self._pool
                if not known:
                    await self._admit(candidate, op_hash, entry_point)
                elif recording is not None:
                    await asyncio.shield(recording)
            if not known:
                took_s = time.monotonic() - started_s
                self.events.tell(Event(Kind.ACCEPTED, (op_hash,), op.sender, seconds=took_s))
        except SeawallError as error:
            reason = getattr(error, "rule", None) or str(error.code)
            took_s = time.monotonic() - started_s
            sender = candidate.op.sender
            self.events.tell(Event(Kind.REFUSED, (), sender, reason=reason, detail=error.message, seconds=took_s))
            raise
        else:
            return op_hash
        finally:
            self.validating -= 1

    async def _admit(self, candidate: Candidate, op_hash: Hash32, entry_point: EntryPoint) -> None:
        op = candidate.op
        await self._check_authorization_nonce(candidate)
        replaced = self._check_rules(candidate, entry_point)
        addresses = entity_addresses(op)
        stakes: dict[Address, Stake] = {}
        if (replaced is None and rules.sender_is_full(self._pool, op, self._settings)) or op.paymaster is not None:
            stakes = await simulation.read_stakes(self._rpc, entry_point, addresses)
        staked = frozenset(a for a, stake in stakes.items() if self._suffices(stake))
        if replaced is None and rules.sender_is_full(self._pool, op, self._settings):
            rules.check_sender_stake(op, op.sender in staked, self._settings)
        validation = await self.events.timed(self._validate(candidate, entry_point), op_hash, "first")
        if windows := validation.data.windows:
            check_floor(candidate, entry_point, self._settings, windows)
            await self._check_price(candidate, entry_point, validation.head, windows)
        if validation.entities is not None:
            staked = validation.entities.staked
        deposits = validation.deposits or {a: stake.deposit_wei for a, stake in stakes.items()}
        entry = Entry(
            hash=op_hash,
            op=op,
            entry_point=entry_point,
            received_s=self._clock(),
            received_block=validation.head.number,
            valid_after_s=validation.data.valid_after_s,
            valid_until_s=validation.data.valid_until_s,
            valid_after_block=validation.data.valid_after_block,
            valid_until_block=validation.data.valid_until_block,
            authorization=candidate.authorization,
            staked=staked,
            code_hashes=validation.code_hashes,
            contracts=validation.contracts,
            validated_at=validation.head.hash,
        )

        def judge() -> Entry | None:
            replaced = self._check_rules(candidate, entry_point, staked)
            if replaced is None and rules.sender_is_full(self._pool, op, self._settings):
                rules.check_sender_stake(op, op.sender in staked, self._settings)
            if op.paymaster is not None:
                rules.check_deposit(self._pool, op, entry_point, deposits[op.paymaster], replaced)
            return replaced

        # A request that is given up now must not leave disk and pool at odds: what is begun is finished.
        recording = self._recording[op_hash] = asyncio.ensure_future(self._record(entry, judge))
        recording.add_done_callback(lambda _: self._recording.pop(op_hash))
        await asyncio.shield(recording)

    async def _record(self, entry: Entry, judge: Callable[[], Entry | None]) -> None:
        """Have the store take an operation, and release it to the builder; what was reserved is undone if the store fails.

        Other senders' operations, and bundles, moved on while it was validated: what concerns them is judged again, without a pause.
        """
        replaced: Entry | None = None
        counts: Changes | None = None

        def decide() -> Admission:
            nonlocal replaced, counts
            replaced = judge()
            if replaced is not None:
                self._pool.remove(replaced.hash)
                self._reputation.saw(replaced.counted, -1)  # [GREP-050]
            self._pool.reserve(entry)
            self._reputation.saw(entry.counted)
            counts = self._reputation.changed()
            return Admission(entry, replaced.hash if replaced else None, counts)

        try:
            checkpoint("bundler.operation.record.before")
            await self._store.admit(decide)
            checkpoint("bundler.operation.record.after")
        except SeawallError:
            if counts is not None:
                self._reputation.not_saved(counts)
                self._pool.remove(entry.hash)
                self._reputation.saw(entry.counted, -1)
                if replaced is not None:
                    self._pool.add(replaced)
                    self._reputation.saw(replaced.counted)
            raise
        self._pool.land([entry.hash])
        if replaced is not None:
            self.events.tell(Event(Kind.REPLACED, (replaced.hash,), entry.op.sender, detail=to_hex(entry.hash)))
        log.info("operation %s of %s is accepted", to_hex(entry.hash), to_hex(entry.op.sender))
        self.accepted_count += 1
        self._accepted.set()

    async def _check_price(self, candidate: Candidate, entry_point: EntryPoint, head: Head, windows: int = 0) -> None:
        """Whether preVerificationGas pays for the operation's data, too. Raises InvalidFields, FeeDataError, NodeError."""
        await self._pricing.check(
            entry_point,
            candidate,
            head,
            execution_floor(candidate, entry_point, self._settings, windows),
            self._settings.data_fee_tolerance_percent,
        )

    async def _check_authorization_nonce(self, candidate: Candidate) -> None:
        """An authorisation with a nonce that is not the sender's next takes no effect. Raises RejectedByEntryPoint."""
        if candidate.authorization is None:
            return
        nonce = await self._rpc.get_nonce(candidate.op.sender)
        if candidate.authorization.nonce != nonce:
            raise RejectedByEntryPoint(
                f"the nonce {candidate.authorization.nonce} of eip7702Auth is not the sender's: sign it with {nonce}"
            )

    def _suffices(self, stake: Stake) -> bool:
        return stake.suffices(self._settings.min_stake_wei, self._settings.min_unstake_delay_s)

    async def _validate(self, candidate: Candidate, entry_point: EntryPoint) -> simulation.Validation:
        """Validate behind the sender's earlier pending operations.

        One of those that is in a block already (its nonce is used, the loop has just not noticed) needs no place in front.
        """
        prefix = [entry.candidate for entry in self._pool.before(candidate.op, entry_point)]
        floor = simulation.stake_floor(self._settings)
        while True:
            try:
                return await simulation.validate(
                    self._rpc,
                    entry_point,
                    candidate,
                    executor=self._executor,
                    prefix=prefix,
                    min_validity_s=self._settings.min_validity_s,
                    floor=floor,
                    cheap=self._cheap,
                )
            except simulation.PredecessorFailed as error:
                if not error.failed.reason.startswith("AA25"):
                    raise
                del prefix[error.failed.op_index]

    def _check_rules(
        self, candidate: Candidate, entry_point: EntryPoint, staked: frozenset[Address] | None = None
    ) -> Entry | None:
        """Everything the pool alone can decide; returns what the operation replaces."""
        op = candidate.op
        rules.check_roles(self._pool, op)
        replaced = rules.replaced_by(self._pool, op, entry_point)
        rules.check_delegate(self._pool, candidate, replaced)
        rules.check_reputation(self._pool, self._reputation, op, staked, replaced)
        if replaced is None:
            rules.check_capacity(self._pool, self._settings, op)
        return replaced
