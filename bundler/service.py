"""The loop that turns waiting operations into included ones, and the wiring of the parts.

One task owns pool removal, building and submission; requests only add to the pool and wake it.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Sequence

from bundler import simulation
from bundler.builder import Blame, Builder, Draft, select
from bundler.chain import Head, read_head, read_head_of
from bundler.cheap import CheapPass
from bundler.events import Events
from bundler.fees import FeeModel, Pricing
from bundler.inflator import Inflator
from bundler.intake import Intake
from bundler.lanes import UnderWay
from bundler.lookup import Lookup, find_use
from bundler.mempool import Entry, Mempool
from bundler.purses import Purses
from bundler.replica import Replica
from bundler.reputation import Counts, Reputation
from bundler.settings import Settings
from bundler.steward import RESCAN_BLOCKS, Steward
from bundler.store import STEWARD, Held, News, Overtaken, Store
from bundler.submit import Submitter
from bundler.transaction import Slot
from contracts.entrypoint import EntryPoint
from contracts.eoa import Eoa
from contracts.errors import BadInput, NodeError, SetupError
from contracts.rpc import RpcClient
from contracts.types import Address, Hash32, checksum, keccak, to_hex

log = logging.getLogger("bundler.service")

NOBODY: Address = keccak(b"seawall: a process that builds no bundles")[:20]
"""Named by simulations where there is no executor."""
_DEVELOPMENT_CHAINS = frozenset({1337, 31337})
_BACK_OFF_S = 0.5
_SETTLE_S = 5.0
_BEHIND_S = 3.0
"""How long a node may answer with an older block of the same chain before that is taken for the truth."""
_WRITE_S = 10.0
"""How long an idle bundler may believe that its store can be written to."""
_SELECTIONS = 16
"""How many bundles' worth of operations that do not pay for their data are looked past on one block."""


_USED = ("AA10", "AA25")
"""How the entry point says that an operation's account, or nonce, is there already."""

_MEANING = {
    "NodeUnreachable": "the node does not answer",
    "RpcError": "the node answers with errors",
    "NotTraced": "the node refuses to trace",
    "WrongChain": "the node serves another chain",
    "SetupError": "the store cannot be written to",
}
"""What a failed cycle's error means for who may not see its words: they can hold addresses and paths."""


class Bundler:
    """One bundler: its pool, its store, its executors (the first is the one that simulations name)."""

    def __init__(
        self,
        rpc: RpcClient,
        store: Store,
        executors: Sequence[Eoa],
        chain_id: int,
        settings: Settings,
        fee_model: FeeModel | None = None,
        inflator: Inflator | None = None,
    ) -> None:
        self.rpc = rpc
        self.store = store
        self.chain_id = chain_id
        self.settings = settings
        self.executor = executors[0].address if executors else NOBODY
        self.pool = Mempool()
        self._wake = asyncio.Event()
        beneficiary = settings.beneficiary or self.executor
        self.pricing = Pricing(rpc, chain_id, self.executor, beneficiary, fee_model)
        self.cheap = CheapPass(rpc) if settings.safe and settings.cheap_pass else None
        self.builder = Builder(rpc, self.pool, settings, self.executor, beneficiary, self.pricing, self.cheap, inflator)
        self.reputation = Reputation(time.time(), settings.allowed_entities, settings.denied_entities)
        self.submitter = Submitter(rpc, store, self.pool, self.builder, executors, chain_id, settings, self.reputation)
        self.intake = Intake(
            rpc,
            store,
            self.pool,
            self.executor,
            chain_id,
            settings,
            self._wake,
            self.reputation,
            self.pricing,
            cheap=self.cheap,
        )
        self.events = self.submitter.events = self.intake.events = self.builder.events = Events()
        self.submitter.router.events = self.submitter.inclusions.events = self.events
        self.steward = Steward(rpc, self.pool, self.submitter, self.reputation, settings)
        self.replica = Replica(self.pool, self.submitter, self.reputation, self.events)
        self.lookup = Lookup(rpc, store, settings, inflator)
        self.head: Head | None = None
        self.last_error: str | None = None
        self._last_build_s = float("-inf")
        self._written_s = float("-inf")
        """When the store took something last, by the monotonic clock."""
        self._took_up = False
        """Whether leases, and what is in blocks on them, were taken up since a block was looked at."""
        self.leases: Held = {}
        """What the store says this process holds; `submitter.held` is what it acts on."""
        self._hashes: dict[int, Hash32] = {}
        self._behind_since_s: float | None = None
        self._doubted: dict[Hash32, int] = {}
        """Operations whose nonce was found wrong, and the block at which it was first."""
        self._turn = 0
        self._fruitless: tuple[Hash32, int, frozenset[Slot]] | None = None
        self.purses = Purses(rpc, settings)
        self.paused = False
        """Send no bundles until the operator resumes."""
        self.manual = False
        """Build only when asked (`debug_bundler_setBundlingMode`)."""
        self.cycling = asyncio.Lock()
        """Held by whoever builds, settles or clears."""

    async def resume(self) -> None:
        """Take up what an earlier process left on disk, or others have in hand."""
        self.store.follow(self.replica.learn, self._wake.set)
        records = await self.store.live_operations()
        counts, decayed_s = await self.store.reputation()
        self.reputation.load(counts, time.time() if decayed_s is None else decayed_s)
        self.replica.learn(News(records))
        await self._renew()
        await self._take_up()
        if records:
            log.info("resumed %d pending operations, %d in bundles under way", len(records), self.pool.in_flight)

    @property
    def is_steward(self) -> bool:
        """Whether this process does what only one of those on a database should do (bundler.store.port)."""
        return STEWARD in self.submitter.held

    async def _renew(self) -> None:
        if self.settings.build_bundles:
            self.leases = await self.store.renew(self.submitter.executors, self.settings.max_leased_keys)

    async def _keep_leases(self, lease_s: float) -> None:
        """Renew in time, however long a cycle takes. What changes is acted upon in the next cycle."""
        while True:
            await asyncio.sleep(lease_s / 3)
            before = self.leases
            try:
                await self._renew()
            except SetupError as error:
                log.warning("leases are not renewed: %s", error.message)
            if self.leases != before:
                names = [checksum(name) for name in self.leases if name != STEWARD]
                log.warning(
                    "leases changed: %s%s", ", ".join(names) or "no executor", ", steward" * (STEWARD in self.leases)
                )
                self._wake.set()

    async def _take_up(self) -> None:
        """Act on the leases that this process has now, and on no other."""
        held = self.leases
        if STEWARD in held and not self.is_steward:
            self.steward.take_office()
        self.replica.in_doubt, self._took_up = False, True
        self.submitter.hold(held)
        await self.submitter.adopt(await self.store.take_up(held))

    async def run(self, stopping: asyncio.Event) -> None:
        """Work until `stopping` is set; then finish the bundle under way, at most `drain_timeout_s`."""
        keeping = asyncio.ensure_future(self._keep_leases(self.store.lease_s)) if self.store.lease_s else None
        try:
            await self._work(stopping)
        finally:
            if keeping is not None:
                keeping.cancel()

    async def _work(self, stopping: asyncio.Event) -> None:
        while not stopping.is_set():
            await self._step(build=True)
            busy = self.settings.build_bundles and (len(self.pool) or self.submitter.in_flight)
            pause_s = self.settings.poll_interval_s if busy else self.settings.idle_poll_interval_s
            await self._pause(pause_s if self.last_error is None else _BACK_OFF_S, stopping)
        deadline = time.monotonic() + self.settings.drain_timeout_s
        while (self.submitter.in_flight or self.intake.validating) and time.monotonic() < deadline:
            await self._step(build=False)
            await asyncio.sleep(self.settings.poll_interval_s)
        if self.submitter.in_flight:
            log.warning("stopping with a bundle under way; the next start takes it up")

    async def _pause(self, seconds: float, stopping: asyncio.Event) -> None:
        waits = [asyncio.ensure_future(self._wake.wait()), asyncio.ensure_future(stopping.wait())]
        try:
            await asyncio.wait(waits, timeout=seconds, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for wait in waits:
                wait.cancel()
        self._wake.clear()

    async def _step(self, *, build: bool) -> None:
        """One cycle; a failing node or disk is logged once and tried again, it never ends the loop."""
        try:
            async with self.cycling:
                await self.cycle(build=build and not self.manual and not self.paused)
        except Overtaken as error:
            log.info("looking again: %s", error.message)
            self.replica.in_doubt = True
        except (NodeError, SetupError) as error:
            if self.last_error is None:
                log.warning("waiting: %s", error.message)
            self.last_error = type(error).__name__
        else:
            if self.last_error is not None:
                log.info("working again")
            self.last_error = None

    async def cycle(self, *, build: bool = True) -> None:
        """Settle, notice, expire, build. Raises NodeError, SetupError."""
        await self.store.refresh()
        if self.replica.in_doubt:
            await self._renew()
        if self.replica.in_doubt or self.leases != self.submitter.held:
            await self._take_up()
        head = await read_head_of(self.rpc, self.chain_id)
        if self._is_behind(head):
            return
        changed = self.head is None or head.hash != self.head.hash or self._took_up
        await self.submitter.advance(head)
        if changed:
            await self.submitter.check_reorganisation(head)
            if self.is_steward:
                await self.steward.tend(head, self.head)
            await self.purses.weigh(self.submitter.executors, head, refill=self.is_steward)
            self.head = self.intake.head = head
            self._took_up = False
        if self.is_steward:
            await self.steward.make_room()
        await self._keep_reputation()
        interval_over = time.monotonic() - self._last_build_s >= self.settings.bundle_interval_s
        if build and self.submitter.idle() and interval_over and self.pool.has_waiting:
            await self._build(head)

    def _is_behind(self, head: Head) -> bool:
        """Whether this is an older block of the chain that we saw: a back end that lags, not a reorganisation.

        What has been noticed is not unlearnt then. A block that differs from the one of its height, or no other for `_BEHIND_S`, is
        a reorganisation.
        """
        if (
            self.head is None
            or head.number >= self.head.number
            or self._hashes.get(head.number, head.hash) != head.hash
        ):
            self._behind_since_s = None
            self._hashes = {n: h for n, h in self._hashes.items() if head.number - self.settings.finality_depth <= n}
            self._hashes[head.number] = head.hash
            return False
        now_s = time.monotonic()
        if self._behind_since_s is None:
            self._behind_since_s = now_s
        return now_s - self._behind_since_s < _BEHIND_S

    async def _build(self, head: Head) -> None:
        """A bundle for each executor that is free and has money, of operations that do not meet with those of the others.

        When nothing could be sent (nothing due, or it does not pay), the next try waits for a new block or operation, or for a bundle
        that ends.
        """
        for executor in self.purses.able(self.submitter.idle(), self.submitter.executors):
            # Before anything is awaited: what comes meanwhile is a new occasion.
            arrived = self.intake.accepted_count + self.replica.arrived
            occasion = (head.hash, arrived, frozenset(self.submitter.in_flight))
            if self._fruitless == occasion:
                return
            if not await self._fill(executor, head):
                self._fruitless = occasion
                return

    async def _fill(self, executor: Address, head: Head) -> bool:
        """One bundle, of the first entry point in turn that has something to send. False if there was nothing."""
        known = await self.submitter.under_way()
        under_way = UnderWay(known)
        waits = bool(self.submitter.in_flight) and all(
            attempts[0].sent_block >= head.number for attempts in self.submitter.in_flight.values()
        )
        for offset in range(len(self.settings.entry_points)):
            entry_point = self.settings.entry_points[(self._turn + offset) % len(self.settings.entry_points)]
            entries = await self._select(entry_point, head, under_way)
            if not entries or (waits and len(entries) < self.settings.lane_min_ops):
                continue
            await self._claim(executor, entry_point, entries, known)
            draft = await self.builder.prove(entry_point, entries, head, executor)
            banned = self._learn(draft.blamed)
            await self._give_up(entry_point, draft, head, executor)
            await self._purge(banned)
            if draft.entries and not self.purses.can_pay(executor, self.submitter.holds_back_wei(draft, head)):
                return True  # another executor may
            if draft.entries:
                self._last_build_s = time.monotonic()
                self._turn += offset + 1
                await self.submitter.submit(draft, head, executor)
                return True
            await self.store.claim(executor, tuple)
        return False

    async def _claim(
        self, executor: Address, entry_point: EntryPoint, entries: Sequence[Entry], known: Sequence[Entry]
    ) -> None:
        """Keep the operations of a bundle from other processes. Raises Overtaken if one of them was faster.

        Theirs may have become bundles since `known` were all that is under way: none of those may meet these, or use their paymasters.
        """
        seen = {entry.hash for entry in known}

        def decide() -> list[Hash32]:
            others = UnderWay(entry for entry in self.pool.taken() if entry.hash not in seen)
            if any(map(others.meets, entries)) or others.paymasters(entry_point, entries):
                raise Overtaken("another process has begun a bundle of operations that meet with these")
            return [entry.hash for entry in entries]

        await self.store.claim(executor, decide)

    async def _select(self, entry_point: EntryPoint, head: Head, under_way: UnderWay) -> list[Entry]:
        """The best bundle's operations, as far as paymasters' deposits go beyond what is under way.

        What does not pay for its data now, or is not paid for, keeps no place from what does.
        """
        passed_over: set[Hash32] = set()
        for _ in range(_SELECTIONS):
            entries = select(self.pool, entry_point, head, self.settings, self.reputation, passed_over, under_way)
            affordable = await self._affordable(entry_point, entries, under_way)
            paying = await self.builder.paying(entry_point, affordable, head)
            if paying or not entries:
                return paying
            passed_over.update(entry.hash for entry in entries)
        return []

    async def _affordable(self, entry_point: EntryPoint, entries: list[Entry], under_way: UnderWay) -> list[Entry]:
        """Without operations whose paymaster already promised its deposit to bundles under way."""
        shared = under_way.paymasters(entry_point, entries)
        if not shared:
            return entries
        stakes = await simulation.read_stakes(self.rpc, entry_point, shared)
        return under_way.affordable(
            entry_point, entries, {a: stake.deposit_wei for a, stake in stakes.items()}, self.pool
        )

    def _learn(self, blamed: Sequence[Blame]) -> list[Address]:
        """What a failed second validation does to reputations; returns who is banned for it.

        [EREP-020] a staked factory answers for its account, [EREP-030] a staked account for its paymaster, [GREP-040] who passes
        alone and fails in the bundle is banned.
        """
        banned: list[Address] = []
        for blame in blamed:
            op, staked = blame.entry.op, blame.entry.staked
            if not blame.in_company:
                continue
            guilty: Address | None = op.sender
            if blame.role == "paymaster" and op.sender not in staked:
                guilty = op.paymaster
            elif blame.role != "paymaster" and op.real_factory in staked:
                guilty = op.real_factory
            if guilty is not None and guilty in blame.entry.counted:
                log.warning("%s is banned: its operation passed alone and failed in the bundle", checksum(guilty))
                self.reputation.ban(guilty)
                banned.append(guilty)
        return banned

    async def _purge(self, banned: Sequence[Address]) -> None:
        """[GREP-010] Operations that refer to a banned address leave the pool."""
        for address in banned:
            why = f"entity {checksum(address)} is banned (GREP-010)"
            referring = [e for e in self.pool.referring_to(address) if not self.pool.is_in_flight(e.hash)]
            await self.submitter.drop([(entry.hash, why) for entry in referring])

    async def _keep_reputation(self) -> None:
        """Decay by the hour, and put what changed on disk; a write now and then in any case, to know that the disk takes one."""
        if self.is_steward:
            self.reputation.decay(time.time())
        changed = self.reputation.changed()
        if changed or time.monotonic() - self._written_s >= _WRITE_S:
            try:
                await self.store.save_reputation(changed, self.reputation.decayed_s if self.is_steward else None)
            except SetupError:
                self.reputation.not_saved(changed)
                self._written_s = float("-inf")
                raise
            self._written_s = time.monotonic()

    async def send_now(self) -> list[Hash32]:
        """Build one bundle of what waits, and see it settled if the node mines it soon (5 s). Returns its operations.

        Raises NodeError, SetupError.
        """
        deadline = time.monotonic() + _SETTLE_S
        async with self.cycling:
            head = await read_head(self.rpc)
            await self.submitter.advance(head)
            await self.cycle(build=False)
            self._fruitless = None
            if not self.submitter.in_flight:
                await self._build(head)
            sent = [h for attempts in self.submitter.in_flight.values() for a in attempts for h in a.op_hashes]
            while self.submitter.in_flight and time.monotonic() < deadline:
                await asyncio.sleep(self.settings.poll_interval_s)
                await self.cycle(build=False)
            await self._keep_reputation()
        return sent

    def wake(self) -> None:
        """Have the loop look now."""
        self._wake.set()

    async def give_up(self, op_hash: Hash32, why: str = "the operator dropped it") -> str:
        """Drop one waiting operation at somebody's word. Raises BadInput when it is not waiting."""
        await self.store.refresh()
        self._check_waiting(op_hash)
        async with self.cycling:
            self._check_waiting(op_hash)
            if op_hash not in await self.submitter.drop([(op_hash, why)]):
                raise BadInput(f"{to_hex(op_hash)} is in a bundle by now: it can no longer be dropped")
        return f"{to_hex(op_hash)} is dropped"

    def _check_waiting(self, op_hash: Hash32) -> None:
        if op_hash not in self.pool:
            raise BadInput(f"{to_hex(op_hash)} is not in the pool")
        if self.pool.is_in_flight(op_hash):
            raise BadInput(f"{to_hex(op_hash)} is in a bundle that was sent: it can no longer be dropped")

    async def ban(self, address: Address) -> list[Hash32]:
        """Ban an entity at the operator's word; returns the operations that leave the pool for it."""
        async with self.cycling:
            self.reputation.ban(address)
            gone = [entry.hash for entry in self.pool.referring_to(address) if not self.pool.is_in_flight(entry.hash)]
            await self._purge([address])
            await self._keep_reputation()
        return gone

    async def unban(self, address: Address) -> None:
        """Forget what is held against an entity."""
        async with self.cycling:
            self.reputation.set(address, Counts())
            await self._keep_reputation()

    async def clear(self, *, reputation: bool) -> None:
        """Forget the pool (and reputations): `debug_bundler_clearState`, `debug_bundler_clearMempool`."""
        async with self.cycling:
            for entry in self.pool:
                self.pool.remove(entry.hash)
            self.submitter.in_flight.clear()
            self.submitter.inclusions.open.clear()
            await self.store.clear()
            if reputation:
                self.reputation.clear()
            await self._keep_reputation()

    async def _give_up(self, entry_point: EntryPoint, draft: Draft, head: Head, executor: Address) -> None:
        """Drop what failed, unless it failed because another bundler included it.

        [EREP-015] A paymaster answers for no failure of factory or account: an operation that is dropped for one is taken off its
        count. One that stays is not, or it would be taken off at every try.

        A wrong nonce may be the node's error (it has not indexed the block that used it, or has not seen the one before it):
        that has to last for some blocks. Whatever fails while an operation of its sender is to be brought back by another process stays.
        """
        sound = {entry.hash for entry in draft.entries}
        self._doubted = {h: block for h, block in self._doubted.items() if h in self.pool and h not in sound}
        innocent = {
            blame.entry.hash
            for blame in draft.blamed
            if blame.role != "paymaster" or blame.entry.op.sender in blame.entry.staked
        }
        reasons: list[tuple[Hash32, str]] = []
        freed: dict[Hash32, Address] = {}
        for op_hash, why in draft.dropped:
            entry = self.pool.get(op_hash)
            if entry is None or self.submitter.is_unsettled(entry.op.sender):
                self._doubted.pop(op_hash, None)
                continue
            if why.startswith(_USED):
                found = await find_use(self.rpc, entry_point, entry.op, self.settings.event_search_blocks)
                if found is not None and self.is_steward:
                    await self.submitter.inclusions.record_use(found[1], entry, found[0])
                if found is not None:
                    continue
            if (
                any(code in why for code in _USED)
                and head.number - self._doubted.setdefault(op_hash, head.number) < RESCAN_BLOCKS
            ):
                continue
            if op_hash in innocent and entry.op.paymaster is not None:
                freed[op_hash] = entry.op.paymaster
            reasons.append((op_hash, why))
        self.reputation.saw(freed.values(), -1)
        dropped: frozenset[Hash32] = frozenset()
        try:
            dropped = await self.submitter.drop(reasons, executor)
        finally:
            self.reputation.saw(paymaster for op_hash, paymaster in freed.items() if op_hash not in dropped)

    def problems(self) -> list[str]:
        """Why it is not ready, for people; empty when it is."""
        found = []
        if self.head is None:
            found.append("no block was read yet")
        if self.last_error is not None:
            found.append(f"{self.last_error}: {_MEANING.get(self.last_error, 'the last cycle failed')}; see the log")
        if self.intake.draining:
            found.append("draining: no new operations are accepted")
        found += self.purses.problems(self.submitter.executors)
        if (silent := self.submitter.router.problem()) is not None:
            found.append(silent)
        if self.paused:
            found.append("paused by the operator: no bundles are sent")
        age_s = 0.0 if self.head is None else time.time() - self.head.timestamp_s
        most_s = self.settings.max_head_age_s
        if most_s and age_s > most_s and self.chain_id not in _DEVELOPMENT_CHAINS:
            found.append(f"the latest block is {age_s:.0f} s old, at most {most_s:g} s is asked for")
        return found

    def status(self) -> dict[str, object]:
        """`seawall_status`. All of validating, pending and inFlight zero: everything ever accepted is settled."""
        balances, richest_wei = self.purses.balances, self.purses.richest_wei
        return {
            "chainId": hex(self.chain_id),
            "executor": checksum(self.executor),
            "executors": [
                {
                    "address": checksum(address),
                    "balance": hex(balances[address]) if address in balances else None,
                    "low": self.purses.is_low(address),
                    "leased": address in self.submitter.held,
                    "busy": any(address == executor for executor, _ in self.submitter.in_flight),
                }
                for address in self.submitter.executors
            ],
            "entryPoints": [checksum(entry_point.address) for entry_point in self.settings.entry_points],
            "validating": self.intake.validating,
            "pending": len(self.pool) - self.pool.in_flight,
            "inFlight": self.pool.in_flight,
            "bundlesInFlight": len(self.submitter.in_flight) + self.submitter.in_flight_elsewhere,
            "steward": self.is_steward,
            "treasury": self.purses.treasury and self.purses.treasury.to_json(),
            "endpoints": self.submitter.router.to_json(),
            "lastBlock": hex(self.head.number) if self.head else None,
            "validations": dict(self.cheap.counts) if self.cheap else {},
            "draining": self.intake.draining,
            "paused": self.paused,
            "executorBalance": None if richest_wei is None else hex(richest_wei),
            "ready": not self.problems(),
            "problem": self.last_error,
            "problems": self.problems(),
        }
