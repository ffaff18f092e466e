"""The loop: one head at a time, every due trigger to its end, then the next head.

Level-triggered: each head is judged by what the chain says at it, never by what an event promised, so gaps, reorganisations and
restarts need no special case. A head counts as processed once its triggers were read and everything due at it was accepted by a
bundler (or sent as a plain transaction), or failed definitively.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from contracts.bindings import GUARD_FIRED, Due
from contracts.entrypoint import USER_OPERATION_EVENT, USER_OPERATION_REVERT_REASON
from contracts.errors import ExecutionReverted, NodeError, OperationRejected, RpcError
from contracts.rpc import RpcClient
from contracts.types import Hash32, Wei, checksum, parse_bytes, parse_hash, to_hex
from wallet.keeper import fire
from wallet.keeper import store as records
from wallet.keeper.fire import Bundlers, BundlersUnreachable, Signer
from wallet.keeper.store import Attempt, AuditRow, Store
from wallet.keeper.trailing import Trails
from wallet.keeper.transactions import EXECUTE, TOUCH, PlainSender
from wallet.keeper.triggers import Detail, Modules, Reading, read_details, read_due
from wallet.keeper.watch import Head, Trigger, WatchList, next_head, pause

RESEND_BLOCKS = 3
"""How often an accepted operation is offered again while it waits: a bundler may have lost it."""
LOOKS_FOR_EVENT = 200
"""How often the event of a fired stop is looked for before it is taken to be older than our watch."""
LOOK_AGAIN_S = 2.0
"""While anything is due, a head without successor is read again this often (s)."""
FINALITY_BLOCKS = 64
"""How long a trigger that is FINAL is still read, in case a reorganisation brings it back."""
Log = Callable[[dict[str, Any]], None]


class Keeper:
    """One session key's watch over its triggers."""

    def __init__(
        self,
        *,
        rpc: RpcClient,
        bundlers: Bundlers,
        modules: Modules,
        signer: Signer,
        watch_list: WatchList,
        store: Store,
        plain: PlainSender | None,
        replace_after_blocks: int,
        min_priority_fee_wei: Wei,
        direct_fallback: bool,
        log: Log,
        trails: Trails | None = None,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._rpc = rpc
        self._bundlers = bundlers
        self._modules = modules
        self._signer = signer
        self._watch_list = watch_list
        self._store = store
        self._plain = plain
        self._replace_after_blocks = replace_after_blocks
        self._min_priority_fee_wei = min_priority_fee_wei
        self._direct_fallback = direct_fallback
        self._log = log
        self._trails = trails
        self._clock = clock
        self._since = store.head  # where an earlier run stopped looking
        self._resumed = False
        self._processed: int | None = None
        self._seen: int | None = None
        self._waiting = ""
        self._offered: dict[Hash32, int] = {}  # op hash -> head at which this run last gave it to a bundler
        self._live_at: dict[Trigger, int] = {}  # last head at which the trigger was not FINAL
        self._final_at: dict[Trigger, int] = {}
        self._busy = False
        self._looked: dict[Trigger, int] = {}  # times the event of a fired trigger was looked for
        self._unnoted: set[Trigger] = set()  # ended, and nobody is known to have fired them
        self._confirmed_s: dict[Trigger, int] = {}  # when this run last had a trigger recorded as due

    # -- outer loop -------------------------------------------------------------------------------------------------------

    async def run(self, stop: asyncio.Event, *, poll_s: float) -> None:
        """Until `stop` is set. Nothing a node or a bundler does ends it."""
        last: Head | None = None
        done = True
        while not stop.is_set():
            if done:
                patience_s = LOOK_AGAIN_S if self._busy else None
                head = await next_head(self._rpc, last, stop, poll_s=poll_s, patience_s=patience_s)
                if head is None:
                    return
            else:
                await pause(stop, poll_s)
                head = await self._newest(last)
            try:
                done = await self.process(head)
                self._waiting = "" if done else self._waiting
            except NodeError as error:
                done = False
                self._note(str(error))
            last = head

    async def _newest(self, last: Head | None) -> Head:
        assert last is not None
        try:
            return Head.from_rpc(await self._rpc.block())
        except NodeError:
            return last

    def _note(self, trouble: str) -> None:
        if trouble != self._waiting:
            self._log({"event": "waiting", "reason": trouble})
        self._waiting = trouble

    def status(self) -> dict[str, Any]:
        """The answer of `seawall_status`: the last head that was fully processed, what is in flight, what fired."""
        return {
            "ready": self._processed is not None,
            "head": self._processed,
            "seen_head": self._seen,
            "key": checksum(self._signer.key.address),
            "watching": [
                {"account": checksum(t.account), "id": str(t.id)}
                for t in self._watch_list.triggers
                if t not in self._final_at
            ],
            "pending": [
                {
                    "account": checksum(a.trigger.account),
                    "id": str(a.trigger.id),
                    "arming": a.arming,
                    "user_op_hash": to_hex(a.op_hash),
                    "state": a.state,
                    "recorded_block": a.recorded_block,
                    "reason": a.reason,
                }
                for a in self._store.open_attempts()
                if a.trigger not in self._final_at
            ],
            "fired": [row.to_json() for row in self._store.audited("fired")],
            "waiting": self._waiting,
        }

    # -- one head -----------------------------------------------------------------------------------------------------------

    async def process(self, head: Head) -> bool:
        """Read every trigger at `head` and act. True if the head is done with. Raises NodeError if the node fails."""
        if not self._resumed and self._plain is not None:
            await self._plain.resume(head)
        self._resumed = True
        self._seen = head.number
        await self._watch_list.refresh(self._rpc, head)
        readings = await read_due(self._rpc, self._modules, self._watch_list.triggers, head)
        for reading in readings:
            if self._since is not None:
                self._live_at.setdefault(reading.trigger, self._since)
            if reading.status != Due.FINAL:
                self._live_at[reading.trigger] = head.number
                self._final_at.pop(reading.trigger, None)
        self._busy = any(r.status in (Due.DUE, Due.BLOCKED) for r in readings)
        open_triggers = {attempt.trigger for attempt in self._store.open_attempts()}
        active = [r for r in readings if self._needs_attention(r, open_triggers)]
        sessions = {r.trigger.account: self._watch_list.session(r.trigger.account) for r in active}
        details = await read_details(self._rpc, self._modules, [r.trigger for r in active], sessions, head)
        handled = await asyncio.gather(
            *(self._handle(r, details[r.trigger], head) for r in active if r.trigger in details)
        )
        for trigger, final_at in list(self._final_at.items()):
            if head.number - final_at > FINALITY_BLOCKS:
                self._watch_list.forget(trigger)
                self._unnoted.discard(trigger)
                del self._final_at[trigger]
                self._live_at.pop(trigger, None)
        if self._trails is not None:
            live = [r.trigger for r in readings if r.status != Due.FINAL]
            await self._trails.follow(live, head, self._fees)
        if not all(handled):
            return False
        self._store.set_head(head.number)
        self._processed = head.number
        return True

    def _needs_attention(self, reading: Reading, open_triggers: set[Trigger]) -> bool:
        if reading.status == Due.FINAL:
            # An operation of ours whose end was not found yet is looked for on every head, and so is who fired it.
            unsettled = reading.trigger in open_triggers or reading.trigger in self._unnoted
            return reading.trigger not in self._final_at or unsettled
        return reading.status in (Due.DUE, Due.BLOCKED) or reading.trigger in open_triggers

    async def _handle(self, reading: Reading, detail: Detail, head: Head) -> bool:
        """Bring one trigger to where this head wants it. True if nothing is left to do at this head."""
        trigger = reading.trigger
        latest = self._store.latest(trigger)
        if latest is not None and latest.state in records.OPEN and latest.sequence < detail.sequence:
            await self._settle(latest, head)
        if reading.status == Due.FINAL:
            return await self._finish(trigger, detail, head)
        if reading.status == Due.BLOCKED:
            self._audit(trigger, detail, "blocked", to_hex(reading.reason), head, {"reason": to_hex(reading.reason)})
            await self._touch(trigger, detail, head)
            return True
        if reading.status == Due.DUE:
            return await self._fire(trigger, detail, head)
        return True

    # -- due: an operation, and what to do when it cannot be had ------------------------------------------------------------

    async def _fire(self, trigger: Trigger, detail: Detail, head: Head) -> bool:
        self._audit(
            trigger, detail, "due", "", head, {"timestamp_s": head.timestamp_s, "seen_at": round(self._clock(), 3)}
        )
        tried = self._store.at_nonce(trigger, self._modules.lane(trigger) << 64 | detail.sequence)
        current = tried[-1] if tried else None
        try:
            if current is None or self._is_stale(current, head):
                if current is None and self._resting(trigger, detail, head):
                    return True
                current = await self._prepare(trigger, detail, head, current)
            if (
                current.state != records.SENT
                or head.number - self._offered.get(current.op_hash, -1) >= RESEND_BLOCKS
                or (current.op_hash not in self._offered)
            ):
                await self._bundlers.send(current.op, current.op_hash)
                self._offered[current.op_hash] = head.number
                if current.state != records.SENT:
                    self._store.mark(current.op_hash, records.SENT)
                    self._log(
                        {
                            "event": "accepted",
                            "trigger": str(trigger),
                            "user_op_hash": to_hex(current.op_hash),
                            "head": head.number,
                        }
                    )
        except ExecutionReverted as error:
            reason = _revert_text(error)
            self._audit(trigger, detail, "blocked", reason, head, {"reason": reason})
            await self._touch(trigger, detail, head)
            return True
        except OperationRejected as error:
            if current is not None:
                self._store.mark(current.op_hash, records.REJECTED, error.message)
            self._audit(trigger, detail, "rejected", error.rule or error.message, head, {"reason": error.message})
            await self._last_resort(trigger, detail, head)
            return True
        except BundlersUnreachable as error:
            self._note(error.message)
            return await self._last_resort(trigger, detail, head)
        if len(tried) >= 3:
            await self._last_resort(trigger, detail, head)
        return True

    def _is_stale(self, attempt: Attempt, head: Head) -> bool:
        """Whether an operation needs a same-nonce replacement: rejected, too cheap for today, or waiting too long."""
        if attempt.state == records.REJECTED or attempt.op.max_fee_per_gas < head.base_fee_wei:
            return head.number > attempt.recorded_block
        return head.number - attempt.recorded_block >= self._replace_after_blocks

    def _resting(self, trigger: Trigger, detail: Detail, head: Head) -> bool:
        """After a revert on chain the next try comes at once, then after 2, 4, ... up to 32 blocks: each costs the account gas."""
        reverts = self._store.reverts(trigger, detail.arming)
        return len(reverts) > 1 and head.number < reverts[-1] + min(2 ** (len(reverts) - 1), 32)

    async def _prepare(self, trigger: Trigger, detail: Detail, head: Head, replaces: Attempt | None) -> Attempt:
        session_id = fire.check_session(
            self._watch_list.session(trigger.account), detail, self._signer.key, head, trigger
        )
        fees = await self._fees(head)
        if replaces is not None:
            fees = fire.raised_fees(replaces.op, fees)
        draft = self._signer.draft(trigger, detail, session_id, fees)
        estimated = await self._bundlers.estimate(draft)
        op = fire.with_margin(estimated, len(self._store.reverts(trigger, detail.arming)))
        fire.check_budget(op, detail)
        op, op_hash = self._signer.sign(op, session_id)
        attempt = Attempt(op_hash, trigger, detail.arming, op, records.INTENDED, head.number)
        self._store.record(attempt)
        return attempt

    async def _fees(self, head: Head) -> tuple[Wei, Wei]:
        """(max fee, priority fee), wei per gas: twice the base fee plus the tip, so that it stays valid over rising blocks."""
        try:
            priority = int(await self._rpc.call("eth_maxPriorityFeePerGas"), 16)
        except RpcError:
            priority = 0
        priority = max(priority, self._min_priority_fee_wei)
        return 2 * head.base_fee_wei + priority, priority

    async def _touch(self, trigger: Trigger, detail: Detail, head: Head) -> bool:
        """Have the chain note that the trigger is due: patience, widening and public delay run from then. Renewed in time."""
        confirmed = max(detail.due_since_s, self._confirmed_s.get(trigger, 0))
        if self._plain is None or (detail.due_since_s and head.timestamp_s < confirmed + detail.lapse_s // 2):
            return False
        if not await self._plain.ensure(TOUCH, trigger, detail.arming, head, await self._fees(head)):
            return False
        self._confirmed_s[trigger] = head.timestamp_s
        return True

    async def _last_resort(self, trigger: Trigger, detail: Detail, head: Head) -> bool:
        """Without a bundler: touch, wait for the public delay, then execute as anyone may. True once that is sent."""
        if self._plain is None or not self._direct_fallback:
            return False
        await self._touch(trigger, detail, head)
        if not detail.due_since_s:
            return False
        if head.timestamp_s < detail.due_since_s + detail.public_delay_s:
            return False
        return await self._plain.ensure(EXECUTE, trigger, detail.arming, head, await self._fees(head))

    # -- afterwards: what the chain did --------------------------------------------------------------------------------------

    async def _settle(self, attempt: Attempt, head: Head) -> None:
        """The nonce of `attempt` has been used: find by which operation, and write it down with everything it replaced."""
        logs = await self._rpc.logs(
            self._modules.entry_point.address,
            [USER_OPERATION_EVENT.topic, None, bytes(12) + attempt.op.sender],
            attempt.recorded_block,
            head.number,
        )
        for log in logs:
            topics = [parse_hash(topic, "topic") for topic in log["topics"]]
            op_hash, _, _, nonce, success, gas_cost, gas_used = USER_OPERATION_EVENT.decode(
                topics, parse_bytes(log["data"], "data")
            )
            if nonce != attempt.op.nonce:
                continue
            tried = self._store.at_nonce(attempt.trigger, nonce)
            outcomes = {a.op_hash: (records.SUPERSEDED, f"nonce used by {to_hex(op_hash)}") for a in tried}
            receipt = await self._rpc.receipt(parse_hash(log["transactionHash"], "transaction hash"))
            if receipt is None:
                return  # gone again: the next head tells
            cost = {"user_op_hash": to_hex(op_hash), "gas_cost_wei": str(gas_cost), "gas_used": gas_used}
            rows = await self._rows(attempt.trigger, receipt, cost)
            if not success:
                reason = to_hex(_revert_reason(receipt, op_hash))
                detail = {**cost, "transaction_hash": receipt["transactionHash"], "reason": reason}
                block = int(receipt["blockNumber"], 16)
                rows.append(AuditRow(attempt.trigger, attempt.arming, "reverted", to_hex(op_hash), block, detail))
                if op_hash in outcomes:
                    outcomes[op_hash] = (records.REVERTED, reason)
            elif op_hash in outcomes:
                outcomes[op_hash] = (records.INCLUDED, "")
            self._report(self._store.settle(outcomes, rows))
            return

    async def _finish(self, trigger: Trigger, detail: Detail, head: Head) -> bool:
        """The trigger can never fire again: find out who fired it, if anyone did and we have not noted it yet.

        False when its event should be there and is not: some nodes show a block's state a moment before its logs, or the state of a
        later block than was asked for, so the search begins well before the trigger was last seen alive.
        """
        first = trigger not in self._final_at
        since = self._live_at.get(trigger)
        if since is None and (due := self._store.audited("due", trigger)):
            since = due[-1].block  # an earlier run ended before any head was done with
        if since is not None:
            topics = [GUARD_FIRED.topic, bytes(12) + trigger.account, trigger.id.to_bytes(32)]
            begin = max(since - FINALITY_BLOCKS, 0)
            for log in await self._rpc.logs(self._modules.guard, topics, begin, head.number):
                receipt = await self._rpc.receipt(parse_hash(log["transactionHash"], "transaction hash"))
                if receipt is not None:
                    self._report(self._store.settle({}, await self._rows(trigger, receipt, {})))
            noted = any(row.arming == detail.arming for row in self._store.audited("fired", trigger))
            self._looked[trigger] = self._looked.get(trigger, 0) + 1
            # It may have ended by being cancelled. But where a node answers for two blocks at once, "not fired" may be the older
            # one's answer: until the end is deep enough, every head asks again.
            (self._unnoted.discard if noted else self._unnoted.add)(trigger)
            if first and detail.fired and not noted and self._looked[trigger] < LOOKS_FOR_EVENT:
                return False
        self._looked.pop(trigger, None)
        self._final_at.setdefault(trigger, head.number)
        return True

    async def _rows(self, trigger: Trigger, receipt: Mapping[str, Any], extra: Mapping[str, Any]) -> list[AuditRow]:
        """The audit rows of one transaction for a trigger: each part executed, and `fired` with the last."""
        block = int(receipt["blockNumber"], 16)
        common = {"transaction_hash": receipt["transactionHash"], **extra}
        mine = [bytes(12) + trigger.account, trigger.id.to_bytes(32)]
        executed: list[tuple[int | None, dict[str, Any]]] = []
        fired: list[tuple[int, dict[str, Any]]] = []
        kind = self._modules.kind
        for log in receipt["logs"]:
            topics = [parse_hash(topic, "topic") for topic in log["topics"]]
            if parse_bytes(log["address"], "address") != self._modules.guard or topics[1:] != mine:
                continue
            data = parse_bytes(log["data"], "data")
            if topics[0] == kind.executed.topic:
                values = kind.executed.decode(topics, data)
                executed.append((kind.arming_of(values), {**common, **kind.parts(values)}))
            elif topics[0] == GUARD_FIRED.topic:
                _, _, arming, caller = GUARD_FIRED.decode(topics, data)
                timestamp = int((await self._rpc.block(block))["timestamp"], 16)
                detail = {
                    **common,
                    "caller": checksum(caller),
                    "timestamp_s": timestamp,
                    **self._due_detail(trigger, arming),
                }
                fired.append((arming, detail))
        reference = receipt["transactionHash"]
        rows = [
            AuditRow(trigger, fired[0][0] if arming is None else arming, "executed", reference, block, detail)
            for arming, detail in executed
            if arming is not None or fired
        ]
        rows += [AuditRow(trigger, arming, "fired", reference, block, detail) for arming, detail in fired]
        return rows

    def _report(self, rows: Sequence[AuditRow]) -> None:
        for row in rows:
            self._log({"event": row.event, "trigger": str(row.trigger), "block": row.block, **row.detail})

    def _due_detail(self, trigger: Trigger, arming: int) -> dict[str, Any]:
        for row in self._store.audited("due", trigger):
            if row.arming == arming:
                return {"due_block": row.block, "due_timestamp_s": row.detail["timestamp_s"]}
        return {}

    def _audit(
        self, trigger: Trigger, detail: Detail, event: str, reference: str, head: Head, facts: dict[str, Any]
    ) -> None:
        if self._store.audit(AuditRow(trigger, detail.arming, event, reference, head.number, facts)):
            self._log({"event": event, "trigger": str(trigger), "head": head.number, **facts})


def _revert_text(error: ExecutionReverted) -> str:
    """Something stable to name a revert by: its data if the bundler gives it, else its message."""
    return error.data if isinstance(error.data, str) and error.data.startswith("0x") else error.message


def _revert_reason(receipt: Mapping[str, Any], op_hash: Hash32) -> bytes:
    for log in receipt["logs"]:
        topics = [parse_hash(topic, "topic") for topic in log["topics"]]
        if topics[:2] == [USER_OPERATION_REVERT_REASON.topic, op_hash]:
            reason: bytes = USER_OPERATION_REVERT_REASON.decode(topics, parse_bytes(log["data"], "data"))[-1]
            return reason
    return b""
