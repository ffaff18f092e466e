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
from bundler.chain import Head, read_head
from bundler.checks import check
from bundler.mempool import Entry, Mempool
from bundler.settings import Settings
from bundler.store import Store
from contracts.entrypoint import EntryPoint
from contracts.entrypoint.base import GET_DEPOSIT_INFO
from contracts.errors import SeawallError
from contracts.faults import checkpoint
from contracts.rpc import RpcClient
from contracts.types import Address, Hash32, Wei, to_hex
from contracts.userop import UserOperation

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
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._rpc = rpc
        self._store = store
        self._pool = pool
        self._executor = executor
        self._chain_id = chain_id
        self._settings = settings
        self._accepted = accepted
        self._clock = clock
        self._locks: dict[Address, tuple[asyncio.Lock, list[None]]] = {}
        self._recording: dict[Hash32, asyncio.Future[None]] = {}
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

    async def accept(self, op: UserOperation, entry_point: EntryPoint) -> Hash32:
        """Return the operation's hash once it is on disk. Sending a pending operation again returns its hash again.

        Raises InvalidFields, an OperationRejected, Draining, NodeError or SetupError (the disk).
        """
        if self.draining:
            raise Draining("the bundler is shutting down and takes no new operations; send it again in a moment")
        self.validating += 1
        try:
            head = self.head or await read_head(self._rpc)
            check(op, entry_point, self._settings, head)
            op_hash = entry_point.user_op_hash(op, self._chain_id)
            async with self._turn(op.sender):
                if op_hash not in self._pool:
                    await self._admit(op, op_hash, entry_point)
                elif (recording := self._recording.get(op_hash)) is not None:
                    await asyncio.shield(recording)
            return op_hash
        finally:
            self.validating -= 1

    async def _admit(self, op: UserOperation, op_hash: Hash32, entry_point: EntryPoint) -> None:
        replaced = self._check_rules(op, entry_point)
        if replaced is None and rules.sender_is_full(self._pool, op, self._settings):
            _, staked = await self._deposit(entry_point, op.sender)
            rules.check_sender_stake(op, staked, self._settings)
        validation = await self._validate(op, entry_point)
        deposit_wei: Wei | None = None
        if op.paymaster is not None:
            deposit_wei, _ = await self._deposit(entry_point, op.paymaster)
        # Other senders' operations, and bundles, moved on meanwhile: what concerns them is judged again, now without a pause.
        replaced = self._check_rules(op, entry_point)
        if deposit_wei is not None:
            rules.check_deposit(self._pool, op, entry_point, deposit_wei, replaced)
        entry = Entry(
            hash=op_hash,
            op=op,
            entry_point=entry_point,
            received_s=self._clock(),
            received_block=validation.head.number,
            valid_after_s=validation.data.valid_after_s,
            valid_until_s=validation.data.valid_until_s,
        )
        if replaced is not None:
            self._pool.remove(replaced.hash)
        self._pool.reserve(entry)
        # A request that is given up now must not leave disk and pool at odds: what is begun is finished.
        recording = self._recording[op_hash] = asyncio.ensure_future(self._record(entry, replaced))
        recording.add_done_callback(lambda _: self._recording.pop(op_hash))
        await asyncio.shield(recording)

    async def _record(self, entry: Entry, replaced: Entry | None) -> None:
        """Put a reserved operation on disk and release it to the builder; undo the reservation if the disk fails."""
        try:
            checkpoint("bundler.operation.record.before")
            await self._store.add_operation(entry, replaced.hash if replaced else None)
            checkpoint("bundler.operation.record.after")
        except SeawallError:
            self._pool.remove(entry.hash)
            if replaced is not None:
                self._pool.add(replaced)
            raise
        self._pool.land([entry.hash])
        log.info("operation %s of %s is accepted", to_hex(entry.hash), to_hex(entry.op.sender))
        self.accepted_count += 1
        self._accepted.set()

    async def _validate(self, op: UserOperation, entry_point: EntryPoint) -> simulation.Validation:
        """Validate behind the sender's earlier pending operations.

        One of those that is in a block already (its nonce is used, the loop has just not noticed) needs no place in front.
        """
        prefix = [entry.op for entry in self._pool.before(op, entry_point)]
        while True:
            try:
                return await simulation.validate(
                    self._rpc,
                    entry_point,
                    op,
                    executor=self._executor,
                    prefix=prefix,
                    min_validity_s=self._settings.min_validity_s,
                )
            except simulation.PredecessorFailed as error:
                if not error.failed.reason.startswith("AA25"):
                    raise
                del prefix[error.failed.op_index]

    def _check_rules(self, op: UserOperation, entry_point: EntryPoint) -> Entry | None:
        """Everything the pool alone can decide; returns what `op` replaces."""
        rules.check_roles(self._pool, op)
        replaced = rules.replaced_by(self._pool, op, entry_point)
        if replaced is None:
            rules.check_capacity(self._pool, self._settings)
        return replaced

    async def _deposit(self, entry_point: EntryPoint, address: Address) -> tuple[Wei, bool]:
        """Deposit in wei, and whether there is a stake."""
        answer = await self._rpc.eth_call(entry_point.address, GET_DEPOSIT_INFO.encode(address))
        deposit_wei, staked, _, _, _ = GET_DEPOSIT_INFO.decode(answer)[0]
        return deposit_wei, staked
