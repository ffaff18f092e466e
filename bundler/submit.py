"""From a proven bundle to a block: record, send, watch, resubmit. What is in a block is `inclusions`' to watch.

Order matters: a signed transaction is on disk before it is sent, so that after a crash the *same* bytes are sent again.
One nonce of each executor is under way at a time, so that no bundle can appear twice at two nonces.
"""

from __future__ import annotations

import logging
import re
import time
from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any

from bundler.builder import Builder, Draft, tip_of
from bundler.chain import Head
from bundler.conditional import Condition, condition_of
from bundler.economics import economics_of
from bundler.events import Event, Events, Kind
from bundler.inclusions import Inclusions
from bundler.lookup import read_nonces
from bundler.mempool import Entry, Mempool
from bundler.reputation import Reputation
from bundler.route import Router
from bundler.settings import Settings
from bundler.store import Attempt, Held, Inclusion, LiveAttempts, Store
from bundler.transaction import Slot, gas_limit_of, sign_bundle, slot_of
from contracts.entrypoint import by_address
from contracts.eoa import Eoa
from contracts.errors import NodeUnreachable, SetupError
from contracts.faults import checkpoint
from contracts.rpc import RpcClient
from contracts.types import Address, Hash32, Wei, checksum, parse_hash, to_hex

log = logging.getLogger("bundler.submit")

_RESEND_S = 1.0
_MISSING_POLLS = 5
"""Polls in which a used nonce shows none of our receipts before its transactions count as lost: back ends may lag."""
_MAX_REVERTS = 3

_REASON = re.compile(r"[A-Z]{2,5}-?[0-9]+|LIM-POOL")


def _short(why: str) -> str:
    """The rule or entry point code that a reason names; `operator`, or `other`."""
    found = _REASON.search(why)
    return found[0] if found else "operator" if "operator" in why else "other"


class Submitter:
    """The executors' transactions. Not safe for concurrent use: the service's loop owns it."""

    def __init__(
        self,
        rpc: RpcClient,
        store: Store,
        pool: Mempool,
        builder: Builder,
        executors: Sequence[Eoa],
        chain_id: int,
        settings: Settings,
        reputation: Reputation,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._rpc = rpc
        self._store = store
        self._pool = pool
        self._builder = builder
        self._executors = {executor.address: executor for executor in executors}
        self._chain_id = chain_id
        self._settings = settings
        self._reputation = reputation
        self._clock = clock
        self.events = Events()
        self.in_flight: dict[Slot, list[Attempt]] = {}
        self.inclusions = Inclusions(rpc, store, pool, settings, reputation)
        self.held: Held = {}
        """The leases on which this process acts: executors', and the steward's office."""
        self.elsewhere: dict[Hash32, tuple[Attempt, Inclusion | None]] = {}
        """Transactions of executors that other processes hold."""
        self._missing: Counter[Slot] = Counter()
        self._unseen: dict[Slot, int] = {}
        """By slot that is used without a receipt: the block at which that was noticed."""
        self._reverts: Counter[Hash32] = Counter()
        self._last_send_s: dict[Slot, float] = {}
        self.router = Router(rpc, settings, self._condition, clock)

    def hold(self, held: Held) -> None:
        """These are the leases from now on; `adopt` follows."""
        self.held = held
        self.elsewhere = {h: found for h, found in self.elsewhere.items() if found[0].executor not in held}

    async def adopt(self, attempts: LiveAttempts) -> None:
        """Take up what the store says is under way or not final of the executors that are held."""
        in_flight, included = attempts
        self.in_flight.clear()
        for attempt in in_flight:
            self.in_flight.setdefault(slot_of(attempt), []).append(attempt)
            self._pool.launch(attempt.op_hashes)
        await self.inclusions.adopt(included)

    @property
    def executors(self) -> tuple[Address, ...]:
        """All keys' addresses, the first one first."""
        return tuple(self._executors)

    def idle(self) -> list[Address]:
        """Executors that are held here, without a transaction under way."""
        busy = {executor for executor, _ in self.in_flight}
        return [address for address in self._executors if address in self.held and address not in busy]

    async def under_way(self) -> list[Entry]:
        """The operations of all transactions that may still be mined, and of those that other processes build."""
        own = {h for attempts in self.in_flight.values() for a in attempts for h in a.op_hashes}
        others = {h for attempt, inclusion in self.elsewhere.values() if inclusion is None for h in attempt.op_hashes}
        return await self.inclusions.entries_of(own | others | self._pool.kept)

    def is_unsettled(self, sender: Address) -> bool:
        """Whether an operation of the sender is in a block that is not final, watched by another process.

        After a reorganisation it is that one's to bring back; until it did, what follows it fails without being at fault.
        """
        watched = {
            h for attempt, inclusion in self.elsewhere.values() if inclusion is not None for h in attempt.op_hashes
        }
        return not watched.isdisjoint(self._pool.settled_of(sender))

    @property
    def in_flight_elsewhere(self) -> int:
        """Nonces of other processes' executors that are under way."""
        return len({slot_of(attempt) for attempt, inclusion in self.elsewhere.values() if inclusion is None})

    def is_ours(self, tx_hash: Hash32) -> bool:
        """Whether the transaction is one of those under way or recently included, here or in another process."""
        return (
            tx_hash in self.elsewhere
            or any(attempt.tx_hash == tx_hash for attempts in self.in_flight.values() for attempt in attempts)
            or self.inclusions.holds(tx_hash)
        )

    async def submit(self, draft: Draft, head: Head, executor: Address) -> Attempt | None:
        """Record and send a bundle at `executor`'s next nonce. Raises NodeError before anything is recorded.

        None, and nothing is sent, if an operation was replaced while the bundle was proven: its replacement is acknowledged.
        """
        nonce = await self._rpc.get_nonce(executor, "pending")
        if any(entry.hash not in self._pool for entry in draft.entries):
            return None
        max_fee_wei, tip_wei = self._fees(draft, head)
        attempt = self._sign((executor, nonce), draft, max_fee_wei, tip_wei, head)
        await self._launch(attempt, "bundler.bundle", head)
        log.info(
            "bundle %s: %d operations, executor %s, nonce %d, gas limit %d",
            to_hex(attempt.tx_hash),
            len(attempt.op_hashes),
            checksum(executor),
            nonce,
            draft.gas_limit,
        )
        return attempt

    def _fees(self, draft: Draft, head: Head) -> tuple[Wei, Wei]:
        """Max fee and priority fee per gas of a new bundle."""
        tip_wei = max(
            min(tip_of(entry, head) for entry in draft.entries),
            self._settings.min_priority_fee_wei,
            draft.data.tip_wei,
        )
        max_fee_wei = min(2 * head.base_fee_wei + tip_wei, self._settings.max_bundle_fee_wei)
        return max_fee_wei, min(tip_wei, max_fee_wei)

    def holds_back_wei(self, draft: Draft, head: Head) -> Wei:
        """What a node wants to see on the executor's account before it takes the bundle: the gas limit at the max fee, and the data's fee."""
        return draft.gas_limit * self._fees(draft, head)[0] + (0 if draft.data.gas else draft.data.fee_wei)

    def _sign(self, slot: Slot, draft: Draft, max_fee_wei: Wei, tip_wei: Wei, head: Head) -> Attempt:
        address, nonce = slot
        return sign_bundle(
            self._executors[address],
            nonce,
            self._chain_id,
            draft.entry_point,
            draft.entries,
            draft.packed,
            beneficiary=self._settings.beneficiary or address,
            gas_limit=draft.gas_limit,
            max_fee_wei=max_fee_wei,
            tip_wei=tip_wei,
            sent_block=head.number,
        )

    async def _launch(self, attempt: Attempt, what: str, head: Head) -> None:
        new = [op_hash for op_hash in attempt.op_hashes if not self._pool.is_in_flight(op_hash)]
        self._pool.launch(new)  # from here on nothing replaces them
        checkpoint(f"{what}.record.before")
        try:
            await self._store.add_attempt(attempt)
        except SetupError:
            self._pool.land(new)
            raise
        checkpoint(f"{what}.record.after")
        attempts = self.in_flight.setdefault(slot_of(attempt), [])
        attempts.append(attempt)
        kind = Kind.SENT if len(attempts) == 1 else Kind.RESENT
        self.events.tell(Event(kind, attempt.op_hashes, tx_hash=attempt.tx_hash))
        checkpoint(f"{what}.send.before")
        await self._send(attempt, head)
        checkpoint(f"{what}.send.after")

    async def _send(self, attempt: Attempt, head: Head) -> None:
        """Send, or send again. Whatever the endpoints say, the receipt decides."""
        self._last_send_s[slot_of(attempt)] = self._clock()
        await self.router.send(attempt, head.number)

    async def _condition(self, attempt: Attempt, block_number: int) -> Condition | None:
        """What must hold for the bundle to go in, as of a block. None if the node cannot say."""
        entries = await self.inclusions.entries_of(attempt.op_hashes)
        try:
            return await condition_of(
                self._rpc,
                by_address(attempt.entry_point),
                entries,
                attempt.executor,
                self._settings.beneficiary or attempt.executor,
                gas_limit_of(attempt),
                block_number,
                block_number + 2 * self._settings.blocks_before_resubmit,
            )
        except NodeUnreachable:
            return None

    async def advance(self, head: Head) -> None:
        """Settle what is mined; send again or resubmit what is not. Raises NodeError."""
        if not self.in_flight:
            return
        # Nonces before receipts: a nonce that is used then has its receipt.
        executors = sorted({executor for executor, _ in self.in_flight})
        nonces = await self._rpc.batch([("eth_getTransactionCount", (to_hex(a), "latest")) for a in executors])
        used = {executor: int(nonce, 16) for executor, nonce in zip(executors, nonces, strict=True)}
        asked = [attempt for slot in sorted(self.in_flight) for attempt in self.in_flight[slot]]
        answers = await self._rpc.batch([("eth_getTransactionReceipt", (to_hex(a.tx_hash),)) for a in asked])
        receipts = {a.tx_hash: receipt for a, receipt in zip(asked, answers, strict=True) if receipt is not None}
        # What is mined first: it is the cheaper to settle, and whoever is stuck holds nobody up.
        for slot in sorted(
            self.in_flight, key=lambda slot: all(a.tx_hash not in receipts for a in self.in_flight[slot])
        ):
            attempts = self.in_flight[slot]
            executor, nonce = slot
            mined = next((a for a in attempts if a.tx_hash in receipts), None)
            if mined is not None:
                await self._settle(mined, receipts[mined.tx_hash])
            elif used[executor] > nonce:
                self._missing[slot] += 1
                if self._missing[slot] >= _MISSING_POLLS and await self._is_lost(slot, head):
                    await self._lose(slot)
            elif executor in self._executors and self._wants_another(attempts[-1], head):
                await self._resubmit(slot, head)
            elif self._clock() - self._last_send_s.get(slot, 0.0) >= _RESEND_S:
                await self._send(attempts[-1], head)
        await self.router.watch(self.in_flight, head)

    def _wants_another(self, last: Attempt, head: Head) -> bool:
        """Whether it is stuck, or its condition does not hold on a block after the one it was proven on."""
        waited = head.number - last.sent_block
        return waited >= self._settings.blocks_before_resubmit or (waited > 0 and self.router.is_stale(last))

    async def _is_lost(self, slot: Slot, head: Head) -> bool:
        """Whether a used nonce without a receipt was used by somebody else.

        Back ends index receipts later than they know the state. So the state is asked: as long as one of the operations has run, the
        receipt of our own bundle may still come, and is waited for as long as for finality.
        """
        since = self._unseen.setdefault(slot, head.number)
        if head.number - since >= self._settings.finality_depth:
            return True
        attempts = self.in_flight[slot]
        entries = await self.inclusions.entries_of({op_hash for attempt in attempts for op_hash in attempt.op_hashes})
        next_nonces = await read_nonces(self._rpc, entries)
        return all(free <= entry.op.nonce for free, entry in zip(next_nonces, entries, strict=True))

    async def _settle(self, attempt: Attempt, receipt: dict[str, Any]) -> None:
        inclusion = Inclusion(
            attempt.tx_hash, int(receipt["blockNumber"], 16), parse_hash(receipt["blockHash"], "block hash")
        )
        succeeded = receipt["status"] == "0x1"
        included = attempt.op_hashes if succeeded else ()
        slot = slot_of(attempt)
        tried = {op_hash for other in self.in_flight[slot] for op_hash in other.op_hashes}
        released = sorted(tried - set(included))
        await self.inclusions.record(attempt, inclusion, included, released)
        self._free(slot)
        for op_hash in included:
            self._reverts.pop(op_hash, None)
        kind, block = Kind.INCLUDED if succeeded else Kind.REVERTED, inclusion.block_number
        economics = economics_of(receipt, attempt.entry_point)
        self.events.tell(
            Event(kind, attempt.op_hashes, tx_hash=attempt.tx_hash, block_number=block, economics=economics)
        )
        log.info(
            "bundle %s is in block %d: %s, %d operations",
            to_hex(attempt.tx_hash),
            inclusion.block_number,
            "included" if succeeded else "REVERTED",
            len(attempt.op_hashes),
        )
        if not succeeded:
            await self._after_revert(attempt)

    async def _after_revert(self, attempt: Attempt) -> None:
        """Operations whose bundles keep reverting although they pass the dry run cost us gas: give them up.

        Not when a stranger's bundle was there first and used the nonce of one of them: the others are not at fault. Raises NodeError.
        """
        entries = await self.inclusions.entries_of(attempt.op_hashes)
        next_nonces = await read_nonces(self._rpc, entries)
        if any(free > entry.op.nonce for free, entry in zip(next_nonces, entries, strict=True)):
            return
        self._reverts.update(attempt.op_hashes)
        given_up = [op_hash for op_hash in attempt.op_hashes if self._reverts[op_hash] >= _MAX_REVERTS]
        if given_up:
            await self.drop([(op_hash, f"{_MAX_REVERTS} bundles with it reverted on chain") for op_hash in given_up])

    async def drop(self, reasons: Sequence[tuple[Hash32, str]], by: Address | None = None) -> frozenset[Hash32]:
        """Give operations up, on disk first; `by` as the store has it. Returns those that still could be."""
        if not reasons:
            return frozenset()
        counts = self._reputation.changed()
        checkpoint("bundler.drop.record.before")
        try:
            dropped = frozenset(await self._store.drop_operations(reasons, counts, by))
        except SetupError:
            self._reputation.not_saved(counts)
            raise
        checkpoint("bundler.drop.record.after")
        for op_hash, why in reasons:
            if op_hash not in dropped:  # another process has it in a bundle now
                continue
            self._pool.remove(op_hash)
            self._reverts.pop(op_hash, None)
            self.events.tell(Event(Kind.DROPPED, (op_hash,), reason=_short(why), detail=why))
            log.info("operation %s is dropped: %s", to_hex(op_hash), why)
        return dropped

    def _free(self, slot: Slot) -> None:
        del self.in_flight[slot]
        self._missing.pop(slot, None)
        self._unseen.pop(slot, None)
        self._last_send_s.pop(slot, None)
        self.router.forget(slot)

    async def _lose(self, slot: Slot) -> None:
        """Another transaction of this key took the nonce: the operations wait for a new bundle."""
        attempts = self.in_flight[slot]
        released = sorted({op_hash for attempt in attempts for op_hash in attempt.op_hashes})
        checkpoint("bundler.loss.record.before")
        await self._store.lose(slot[0], [attempt.tx_hash for attempt in attempts], released)
        checkpoint("bundler.loss.record.after")
        self._free(slot)
        self._pool.land(released)
        self.events.tell(Event(Kind.LOST, tuple(released), tx_hash=attempts[-1].tx_hash))
        log.warning(
            "nonce %d of executor %s was used by a transaction that is not in our records; does another program use the key?",
            slot[1],
            checksum(slot[0]),
        )

    async def _resubmit(self, slot: Slot, head: Head) -> None:
        """The same nonce with at least 10 % more on both fees, without operations that fail by now; empty: cancel.

        Fees stay if nobody took what is replaced.
        """
        last = self.in_flight[slot][-1]
        raises = self.router.was_taken(slot)
        bump = 100 + (self._settings.resubmit_bump_percent if raises else 0)
        tip_wei = max(-(-last.priority_fee_wei * bump // 100), last.priority_fee_wei + raises)
        max_fee_wei = max(-(-last.max_fee_wei * bump // 100), 2 * head.base_fee_wei + tip_wei)
        if max_fee_wei > self._settings.max_bundle_fee_wei:
            log.warning("transaction %s is stuck at the highest fee allowed", to_hex(last.tx_hash))
            self.router.renew(slot)
            await self._send(last, head)
            return
        entries = [entry for op_hash in last.op_hashes if (entry := self._pool.get(op_hash)) is not None]
        draft = await self._builder.prove(by_address(last.entry_point), entries, head, slot[0])
        tip_wei = max(tip_wei, min(draft.data.tip_wei, max_fee_wei))
        attempt = self._sign(slot, draft, max_fee_wei, tip_wei, head)
        self.router.renew(slot)
        if attempt.tx_hash == last.tx_hash:  # only the condition is another one
            self.in_flight[slot][-1] = attempt
            await self._send(attempt, head)
            return
        log.info(
            "nonce %d is in no block since %d: %s with %d operations replaces %s",
            slot[1],
            last.sent_block,
            to_hex(attempt.tx_hash),
            len(attempt.op_hashes),
            to_hex(last.tx_hash),
        )
        await self._launch(attempt, "bundler.resubmit", head)

    async def check_reorganisation(self, head: Head) -> None:
        """What left the chain starts over: our bundles with the same bytes. Raises NodeError, SetupError."""
        for lost in await self.inclusions.look(head):
            attempt = await self.inclusions.take_back(lost, head)
            if attempt.ours:
                self.in_flight.setdefault(slot_of(attempt), []).append(attempt)
                self._pool.launch(attempt.op_hashes)
                await self._send(attempt, head)
