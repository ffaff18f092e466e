"""Which endpoint gets a transaction: the first that works; the next, too, when that one fails, is late or leaves it out.

A transaction that went to one endpoint stays there when the next gets it, too: both hold the same nonce, so only one can be mined. What
replaces it goes wherever it is.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from bundler import conditional
from bundler.censorship import passed_over
from bundler.chain import Head
from bundler.conditional import Condition
from bundler.endpoints import METHOD_NOT_FOUND, Endpoint, EndpointState, names_of
from bundler.events import Event, Events, Kind
from bundler.settings import Settings
from bundler.store import Attempt
from bundler.transaction import Slot, gas_limit_of, slot_of, target_of
from contracts.errors import NodeUnreachable, RpcError
from contracts.rpc import RpcClient
from contracts.types import Hash32, to_hex

log = logging.getLogger("bundler.route")

_FAILURES = 3
"""Failures in a row after which an endpoint rests."""
_WATCHED_BLOCKS = 8
"""Most blocks looked through at once for a transaction that was left out."""
_HAS_IT = ("already known", "known transaction", "already imported", "already exists", "nonce too low", "replacement")
"""Words of nodes that have the transaction, another one of this nonce, or saw it mined."""

Outcome = Literal["taken", "refused", "unreachable", "condition"]
Conditioner = Callable[[Attempt, int], Awaitable[Condition | None]]
"""What must hold for a transaction to go in, as of a block."""


@dataclass(slots=True)
class _Way:
    """Of one slot: the endpoints that were given its transactions, by index; the last one is the current one."""

    tried: list[int]
    since_block: int
    """When the current one was given it."""
    missed: int = 0
    """Blocks since then that speak against the current one."""
    taken: bool = False
    """Whether any endpoint has taken any of the transactions."""
    stale: Hash32 | None = None
    """The transaction whose condition did not hold."""
    conditions: dict[Hash32, Condition | None] = field(default_factory=dict)


class Router:
    """The endpoints and what each has. Close it: it keeps connections of its own."""

    def __init__(
        self,
        node: RpcClient,
        settings: Settings,
        conditioner: Conditioner,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        endpoints = settings.submission or (Endpoint(settings.rpc_url),)
        self._node = node
        self._settings = settings
        self._conditioner = conditioner
        self._clock = clock
        self._clients = [
            node
            if one.url == settings.rpc_url
            else RpcClient(one.url, timeout_s=min(settings.endpoint_timeout_s, settings.request_timeout_s))
            for one in endpoints
        ]
        self.states = [
            EndpointState(one, name, most_cost=conditional.MAX_COST if one.conditional else 0)
            for one, name in zip(endpoints, names_of(endpoints), strict=True)
        ]
        self.events = Events()
        self._ways: dict[Slot, _Way] = {}
        self._watched_to: int | None = None

    async def close(self) -> None:
        """Give the connections back."""
        for client in self._clients:
            if client is not self._node:
                await client.close()

    def forget(self, slot: Slot) -> None:
        """Nothing of this slot is under way any more."""
        self._ways.pop(slot, None)

    def renew(self, slot: Slot) -> None:
        """Make new conditions for what is handed in again."""
        if (way := self._ways.get(slot)) is not None:
            way.stale = None
            way.conditions.clear()

    def is_stale(self, attempt: Attempt) -> bool:
        """Whether an endpoint said that the state this was proven on has changed."""
        way = self._ways.get(slot_of(attempt))
        return way is not None and way.stale == attempt.tx_hash

    def was_taken(self, slot: Slot) -> bool:
        """Whether an endpoint may hold one of the slot's transactions; also when nothing is known (after a start)."""
        way = self._ways.get(slot)
        return way is None or way.taken

    def to_json(self) -> list[dict[str, object]]:
        """For `seawall_status`, in order of preference."""
        return [state.to_json(self._clock()) for state in self.states]

    def problem(self) -> str | None:
        """Why no transaction can be handed in at present; None if one can, as far as is known."""
        if any(state.failures < _FAILURES for state in self.states):
            return None
        names = ", ".join(state.name for state in self.states)
        return f"no submission endpoint takes transactions ({names}); see the log"

    async def send(self, attempt: Attempt, block_number: int) -> None:
        """Hand a transaction in, or again; an endpoint that fails raises nothing. `block_number`: of the latest block."""
        slot = slot_of(attempt)
        way = self._ways.get(slot)
        if way is None:
            way = self._ways[slot] = _Way([self._next(()) or 0], block_number)
        now_s = self._clock()
        targets = [i for i in way.tried if not self.states[i].rests(now_s)] or way.tried[-1:]
        outcomes = await asyncio.gather(*(self._hand_in(i, attempt, way, block_number) for i in targets))
        way.taken |= "taken" in outcomes
        if not {"taken", "condition"}.isdisjoint(outcomes):
            return
        while (index := self._next(way.tried)) is not None:
            outcome = await self._move_on(way, index, attempt, block_number, "it failed")
            if outcome in ("taken", "condition"):
                return

    async def send_raw(self, raw: bytes) -> bool:
        """Hand in a transaction that is no bundle. Whether an endpoint took it."""
        tried: list[int] = []
        while (index := self._next(tried)) is not None:
            tried.append(index)
            if await self._ask(index, "eth_sendRawTransaction", to_hex(raw)) == "taken":
                return True
        return False

    async def watch(self, in_flight: Mapping[Slot, Sequence[Attempt]], head: Head) -> None:
        """Look through the new blocks for what they left out, and go to the next endpoint where one is late or censors.

        Once for each head, after what it holds was settled. Raises NodeError.
        """
        self._ways = {slot: way for slot, way in self._ways.items() if slot in in_flight}
        after, self._watched_to = self._watched_to, head.number
        if after == head.number or not in_flight:
            return
        after = head.number - 1 if after is None or after > head.number else max(after, head.number - _WATCHED_BLOCKS)
        oldest = min(attempts[0].sent_block for attempts in in_flight.values())
        numbers = range(max(after, oldest) + 1, head.number + 1)
        blocks = await self._node.batch([("eth_getBlockByNumber", (hex(number), True)) for number in numbers])
        for slot, attempts in in_flight.items():
            way = self._ways.get(slot)
            if way is not None:
                await self._judge(way, attempts, [block for block in blocks if block is not None], head)

    def _count_missed(self, way: _Way, attempts: Sequence[Attempt], blocks: Sequence[Mapping[str, Any]]) -> None:
        """What was handed in while a block was already being made could not be in it: that block does not count."""
        state = self.states[way.tried[-1]]
        for block in blocks:
            number = int(block["number"], 16)
            known = [a for a in attempts if max(a.sent_block, way.since_block) < number - 1 and a.tx_hash != way.stale]
            if not known:
                continue
            cheaper = passed_over(block, known[-1], gas_limit_of(known[-1]))
            if cheaper is not None:
                way.missed += 1
                state.counts["missed"] += 1
                log.info("block %d left out %s, not %s", number, to_hex(known[-1].tx_hash), cheaper)

    async def _judge(
        self, way: _Way, attempts: Sequence[Attempt], blocks: Sequence[Mapping[str, Any]], head: Head
    ) -> None:
        self._count_missed(way, attempts, blocks)
        state, attempt = self.states[way.tried[-1]], attempts[-1]
        if way.missed >= self._settings.censorship_blocks:
            what = f"{way.missed} blocks had room and something cheaper"
            way.missed = 0
            state.counts["censored"] += 1
            state.rests_until_s = self._clock() + self._settings.endpoint_rest_s
            log.warning("%s may censor %s: %s", state.name, to_hex(attempt.tx_hash), what)
            self.events.tell(
                Event(Kind.CENSORED, attempt.op_hashes, tx_hash=attempt.tx_hash, reason=state.name, detail=what)
            )
        elif head.number - way.since_block >= self._settings.blocks_before_fallback:
            what = f"in no block for {head.number - way.since_block}"
            state.counts["late"] += 1
        else:
            return
        index = self._next(way.tried)
        if index is None:
            way.since_block = head.number
        else:
            await self._move_on(way, index, attempt, head.number, what)

    async def _move_on(self, way: _Way, index: int, attempt: Attempt, block_number: int, why: str) -> Outcome:
        before, state = self.states[way.tried[-1]], self.states[index]
        way.tried.append(index)
        way.since_block, way.missed = block_number, 0
        log.info("%s goes to %s after %s: %s", to_hex(attempt.tx_hash), state.name, before.name, why)
        self.events.tell(
            Event(
                Kind.REROUTED,
                attempt.op_hashes,
                tx_hash=attempt.tx_hash,
                reason=state.name,
                detail=f"{before.name}: {why}",
            )
        )
        outcome = await self._hand_in(index, attempt, way, block_number)
        way.taken |= outcome == "taken"
        return outcome

    def _next(self, tried: Sequence[int]) -> int | None:
        """The first endpoint that was not tried, those that rest last; None when all were."""
        left = [i for i in range(len(self.states)) if i not in tried]
        now_s = self._clock()
        return min(left, key=lambda i: (self.states[i].rests(now_s), i), default=None)

    async def _hand_in(self, index: int, attempt: Attempt, way: _Way, block_number: int) -> Outcome:
        """With its condition where the endpoint takes one (for entry points only); with a shorter one, or none, if that is too costly."""
        state, raw = self.states[index], to_hex(attempt.raw)
        if state.most_cost and target_of(attempt) == attempt.entry_point and attempt.tx_hash not in way.conditions:
            way.conditions[attempt.tx_hash] = await self._conditioner(attempt, block_number)
        condition = way.conditions.get(attempt.tx_hash)
        while condition is not None and (shorter := condition.within(state.most_cost)) is not None:
            if way.stale == attempt.tx_hash:
                return "condition"
            outcome = await self._ask(index, conditional.METHOD, raw, shorter.to_rpc())
            if outcome == "condition":
                way.stale = attempt.tx_hash
            if outcome != "cost":
                return outcome
            state.most_cost = min(shorter.cost, state.most_cost) // 2
        outcome = await self._ask(index, "eth_sendRawTransaction", raw)
        return "refused" if outcome == "cost" else outcome

    async def _ask(self, index: int, method: str, *params: object) -> Outcome | Literal["cost"]:
        state, is_conditional = self.states[index], method == conditional.METHOD
        outcome: Outcome | Literal["cost"]
        try:
            await self._clients[index].call(method, *params)
            outcome = "taken"
        except RpcError as error:
            if is_conditional and error.rpc_code == conditional.REJECTED:
                outcome = "condition"
            elif is_conditional and error.rpc_code in (conditional.TOO_COSTLY, METHOD_NOT_FOUND):
                outcome = "cost"
                if error.rpc_code == METHOD_NOT_FOUND:
                    state.most_cost = 0
            else:
                outcome = "taken" if any(words in error.message.lower() for words in _HAS_IT) else "refused"
            log.info("%s answers %s: %s", state.name, method, error.message)
        except NodeUnreachable as error:
            outcome = "unreachable"
            log.warning("%s: %s", state.name, error.message)
        state.counts[outcome] += 1
        if outcome in ("refused", "unreachable"):
            state.failures += 1
            if state.failures >= _FAILURES:
                state.rests_until_s = self._clock() + self._settings.endpoint_rest_s
        else:
            state.failures = 0
        return outcome
