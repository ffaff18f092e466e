"""Trailing stops: which round of the feed to prove to StopLoss, and when.

The chain knows of a better price only by proof (IStopLoss.prove), and a round can be proven at any later time. So the keeper looks at
every round and proves one when that matters: when the stop would be due by it, or when the mark on chain lags by `PROVE_STEP_BPS`, so
that others who execute by what the chain says are never far behind. Rounds of a time without a keeper are looked at when one runs again.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Any

from contracts.bindings import MARK_OF, STOP_OF
from contracts.errors import BadInput
from contracts.rpc import RpcClient
from contracts.types import Address, Wei
from contracts.units import BPS
from policies.venues.feeds import DECIMALS, LATEST_ROUND_DATA
from policies.venues.rounds import GET_ROUND_DATA
from wallet.keeper.transactions import PlainSender, proof_of
from wallet.keeper.triggers import Modules, multicall
from wallet.keeper.watch import Head, Trigger

PROVE_STEP_BPS = 50
"""How far the mark on chain may lag behind the best round seen, in basis points of it, while the stop is not due."""
_CHUNK = 256
"""Rounds that are read at once."""
_CHUNKS = 16
"""Reads at one head for one stop; the rest follows at the next."""
_PHASE_BITS = 64
_NOBODY = bytes(20)


@dataclass(frozen=True, slots=True)
class Round:
    """An answer of a feed, 1e18 = one, as of `updated_s` (unix s)."""

    id: int
    price_wad: int
    updated_s: int


@dataclass(frozen=True, slots=True)
class TrailingStop:
    """One as the chain has it at a head: IStopLoss.Stop's fields and `markOf`."""

    trigger: Trigger
    arming: int
    is_below: bool
    trail_wad: int
    trail_bps: int
    mark_wad: int
    since_s: int
    first_round: int
    feed: Address
    sequencer_feed: Address
    grace_s: int
    min_wad: int
    max_wad: int

    def is_better(self, price_wad: int, than_wad: int) -> bool:
        """Whether a mark at the one is better than at the other."""
        return price_wad > than_wad if self.is_below else price_wad < than_wad

    def is_due(self, mark_wad: int, price_wad: int) -> bool:
        """Whether the stop is due at a price, if its mark were there. As TrailingMark.trigger rounds."""
        distance = mark_wad * self.trail_bps // BPS if self.trail_bps else self.trail_wad
        return price_wad <= mark_wad - distance if self.is_below else price_wad >= mark_wad + distance

    def matters(self, best: Round, price_wad: int) -> bool:
        """Whether `best` is worth a proof now, the feed being at `price_wad`."""
        if not self.is_better(best.price_wad, self.mark_wad):
            return False
        lag = abs(best.price_wad - self.mark_wad)
        return self.is_due(best.price_wad, price_wad) or lag * BPS >= PROVE_STEP_BPS * best.price_wad


@dataclass(frozen=True, slots=True)
class _Feed:
    """A feed at a head. `back_s`: when the sequencer last changed its state, None without a sequencer feed."""

    newest: bytes
    newest_id: int
    decimals: int
    back_s: int | None


@dataclass(slots=True)
class _Search:
    """How far the rounds of one phase were looked at for one arming. `ended`: the phase has no further round."""

    arming: int
    first_round: int
    next_id: int
    best: Round | None = None
    ended: bool = False
    told: int = 0


class Trails:
    """What one keeper knows of the rounds behind its trailing stops. Nothing of it must outlive the process: the feed keeps it."""

    def __init__(
        self, rpc: RpcClient, modules: Modules, plain: PlainSender, log: Callable[[dict[str, Any]], None]
    ) -> None:
        self._rpc = rpc
        self._modules = modules
        self._plain = plain
        self._log = log
        self._searches: dict[Trigger, _Search] = {}

    async def follow(
        self, triggers: Sequence[Trigger], head: Head, fees: Callable[[Head], Awaitable[tuple[Wei, Wei]]]
    ) -> None:
        """Look at the rounds up to `head` and prove what matters. Raises NodeError."""
        stops = await self._stops(triggers, head)
        for trigger in self._searches.keys() - {stop.trigger for stop in stops}:
            del self._searches[trigger]
        for stop, feed in zip(stops, await self._feeds(stops, head), strict=True):
            if feed is None:
                continue
            found = await self._choose(stop, feed, head)
            if found is None:
                continue
            search = self._searches[stop.trigger]
            if await self._plain.ensure(proof_of(found.id), stop.trigger, stop.arming, head, await fees(head)):
                if search.told != found.id:
                    self._log(
                        {
                            "event": "proving",
                            "trigger": str(stop.trigger),
                            "round": str(found.id),
                            "price": str(found.price_wad),
                        }
                    )
                search.told = found.id
            else:
                del self._searches[stop.trigger]  # refused: the feed is away, or a reorganisation took the round

    async def _stops(self, triggers: Sequence[Trigger], head: Head) -> list[TrailingStop]:
        marks = await self._ask([(self._modules.guard, MARK_OF.encode(t.account, t.id)) for t in triggers], head)
        trailing = [
            (trigger, mark)
            for trigger, answer in zip(triggers, marks, strict=True)
            if answer is not None and (mark := MARK_OF.decode(answer))[2]
        ]
        stops = []
        terms = await self._ask([(self._modules.guard, STOP_OF.encode(t.account, t.id)) for t, _ in trailing], head)
        for (trigger, (mark_wad, _, since_s, first_round)), answer in zip(trailing, terms, strict=True):
            if answer is None:
                continue
            fields, _, arming, _, _ = STOP_OF.decode(answer)
            feed, _, sequencer, grace_s, low, high, *_ = fields[-1]
            stops.append(
                TrailingStop(
                    trigger, arming, fields[2], fields[16], fields[17], mark_wad, since_s, first_round, feed, sequencer,
                    grace_s, low, high,
                )
            )  # fmt: skip
        return stops

    async def _feeds(self, stops: Sequence[TrailingStop], head: Head) -> list[_Feed | None]:
        """The feed of each stop; None where it does not answer."""
        calls = []
        for stop in stops:
            calls += [(stop.feed, LATEST_ROUND_DATA.encode()), (stop.feed, DECIMALS.encode())]
            calls.append((stop.sequencer_feed, LATEST_ROUND_DATA.encode()))
        answers = await self._ask(calls, head)
        found: list[_Feed | None] = []
        for i, stop in enumerate(stops):
            newest, decimals, sequencer = answers[3 * i : 3 * i + 3]
            has_sequencer = stop.sequencer_feed != _NOBODY
            if not newest or not decimals or (has_sequencer and not sequencer):
                found.append(None)
                continue
            back_s = LATEST_ROUND_DATA.decode(sequencer)[2] if has_sequencer and sequencer else None
            found.append(_Feed(newest, LATEST_ROUND_DATA.decode(newest)[0], DECIMALS.decode(decimals)[0], back_s))
        return found

    async def _choose(self, stop: TrailingStop, feed: _Feed, head: Head) -> Round | None:
        """The round to prove now, or None.

        Rounds of a phase can be proven until the newest of the next one is: so what an old phase has to say is proven before that.
        """
        search = self._searches.get(stop.trigger)
        if search is None or (search.arming, search.first_round) != (stop.arming, stop.first_round):
            search = self._searches[stop.trigger] = _Search(stop.arming, stop.first_round, stop.first_round)
        newest = _round(feed.newest, stop, feed, head)
        is_open = stop.first_round != 0 and stop.first_round >> _PHASE_BITS == feed.newest_id >> _PHASE_BITS
        if stop.first_round:
            await self._search(search, stop, feed, head, is_open=is_open)
        best = search.best
        if is_open:
            return best if best is not None and newest is not None and stop.matters(best, newest.price_wad) else None
        if best is not None and stop.is_better(best.price_wad, stop.mark_wad):
            return best
        return newest if search.ended or not stop.first_round else None

    async def _search(self, search: _Search, stop: TrailingStop, feed: _Feed, head: Head, *, is_open: bool) -> None:
        last = feed.newest_id if is_open else ((stop.first_round >> _PHASE_BITS) + 1 << _PHASE_BITS) - 1
        for _ in range(_CHUNKS):
            ids = range(search.next_id, min(last, search.next_id + _CHUNK - 1) + 1)
            if not ids or search.ended:
                return
            answers = await self._ask([(stop.feed, GET_ROUND_DATA.encode(one)) for one in ids], head)
            for one, answer in zip(ids, answers, strict=True):
                if not is_open and not _exists(answer):
                    search.ended = True
                    return
                search.next_id = one + 1
                found = _round(answer, stop, feed, head)
                if found is not None and (
                    search.best is None or stop.is_better(found.price_wad, search.best.price_wad)
                ):
                    search.best = found

    async def _ask(self, calls: Sequence[tuple[Address, bytes]], head: Head) -> list[bytes | None]:
        return await multicall(self._rpc, self._modules, calls, head) if calls else []


def _exists(answer: bytes | None) -> bool:
    try:
        return answer is not None and GET_ROUND_DATA.decode(answer)[3] != 0
    except BadInput:
        return False


def _round(answer: bytes | None, stop: TrailingStop, feed: _Feed, head: Head) -> Round | None:
    """The round that an answer of the feed says, if StopLoss would take it. Source: TrailingMark.prove."""
    try:
        if answer is None:
            return None
        round_id, price, _, updated_s, answered_in = GET_ROUND_DATA.decode(answer)
    except BadInput:
        return None
    complete = price > 0 and stop.since_s < updated_s <= head.timestamp_s and answered_in >= round_id
    in_grace = feed.back_s is not None and feed.back_s <= updated_s < feed.back_s + stop.grace_s
    price_wad = price * 10**18 // 10**feed.decimals if price > 0 else 0
    if not complete or in_grace or not stop.min_wad <= price_wad <= stop.max_wad:
        return None
    return Round(round_id, price_wad, updated_s)
