"""The equity breaker between operations: somebody has to look, or a fall that no operation caused latches nothing.

At each head the keeper reads every watched account and pokes where the chain would learn something: the first look of a day, a breach, its
confirmation once it has lasted, its end, a new high. A poke is a plain transaction of the keeper's own account; anyone may send it.
"""

from __future__ import annotations

import asyncio
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from contracts.bindings import (
    BREAKER_CONFIG_OF,
    BREAKER_CONFIGURED,
    BREAKER_STANDING_OF,
    EQUITY_OF,
    RISK_STATE,
    SESSION_ENABLED,
    RiskState,
    decode_multicall,
    encode_multicall,
)
from contracts.errors import NodeError, RpcError
from contracts.rpc import RpcClient
from contracts.types import Address, Wei, checksum, parse_address, parse_hash, to_hex
from wallet.keeper.guard import Log
from wallet.keeper.transactions import POKE, PlainSender
from wallet.keeper.watch import LOG_RANGE, REORG_DEPTH, Head, Trigger, next_head, pause

NAME = "equity_breaker"
BPS = 10_000
DAY_S = 86_400
HIGH_BPS = 20
"""A mark is raised for a high of at least so much, not for every tick: each raise is two looks, paid by the keeper."""
FIRST, DAY, BREACH, LASTED, OVER, HIGH = range(6)
"""What a poke is for. `LASTED`: the breach has lasted as long as it must, and the poke latches."""
_WHY = ("first look", "new day", "breach seen", "breach lasted", "breach over", "new high")
_CALLS = 4


@dataclass(frozen=True, slots=True)
class Look:
    """One account at a head. Amounts 1e18 = one; `problem` is the selector of why its equity is not known, else zero."""

    state: RiskState
    equity: int
    problem: bytes
    is_confirmed: bool
    mark: int
    day_reference: int
    day: int
    rest_until_s: int
    breached_since_s: int
    loss_per_day_bps: int
    drawdown_bps: int
    patience_s: int

    def is_breached(self, now_s: int) -> bool:
        """By the bounds of IEquityBreaker, at the references that stand."""
        fallen = _is_below(self.equity, self.mark, self.drawdown_bps) and now_s >= self.rest_until_s
        return fallen or _is_below(self.equity, self.day_reference, self.loss_per_day_bps)


def _is_below(equity: int, anchor: int, bps: int) -> bool:
    return bps != 0 and equity < anchor - anchor * bps // BPS


def wanted(look: Look, now_s: int) -> int | None:
    """What a poke at `now_s` (unix s) would be for; None when it would say nothing new, or revert."""
    if look.state is not RiskState.ACTIVE or any(look.problem):
        return None
    if look.day == 0:
        return FIRST
    if look.is_breached(now_s):
        if not look.breached_since_s:
            return LASTED if not look.patience_s else BREACH
        return LASTED if now_s >= look.breached_since_s + look.patience_s else None
    if look.breached_since_s:
        return OVER
    if look.day != now_s // DAY_S:
        return DAY
    if look.is_confirmed and look.equity > look.mark + look.mark * HIGH_BPS // BPS:
        return HIGH
    return None


class BreakerKeeper:
    """One account's key pokes the breaker for the accounts it watches: those listed, else all that gave it a session."""

    def __init__(
        self,
        *,
        rpc: RpcClient,
        multicall3: Address,
        breaker: Address,
        session_validator: Address,
        key: Address,
        from_block: int,
        listed: Collection[Address] | None,
        plain: PlainSender,
        min_priority_fee_wei: Wei,
        log: Log,
    ) -> None:
        self._rpc, self._multicall3, self._breaker = rpc, multicall3, breaker
        self._session_validator, self._key = session_validator, key
        self._listed, self._plain = listed, plain
        self._min_priority_fee_wei = min_priority_fee_wei
        self._log = log
        self._from_block = from_block
        self._scanned = from_block - 1
        self._configured: set[Address] = set()
        self._ours: set[Address] = set()
        self._resumed = False
        self._processed: int | None = None
        self._told: dict[Address, str] = {}
        self._waiting = ""
        self._poked: dict[Address, int] = {}
        self._pokes = 0

    @property
    def accounts(self) -> list[Address]:
        """Accounts with a breaker that are watched, in a fixed order."""
        return sorted(self._configured & (self._ours if self._listed is None else set(self._listed)))

    def status(self) -> dict[str, Any]:
        """The answer of `seawall_status`."""
        return {
            "ready": self._processed is not None,
            "head": self._processed,
            "key": checksum(self._key),
            "watching": [checksum(account) for account in self.accounts],
            "unknown": {checksum(account): why for account, why in sorted(self._told.items())},
            "pokes": self._pokes,
            "waiting": self._waiting or self._plain.trouble,
        }

    async def run(self, stop: asyncio.Event, *, poll_s: float) -> None:
        """Until `stop` is set. Nothing a node does ends it; a head that failed is looked at again."""
        last: Head | None = None
        while not stop.is_set():
            head = await next_head(self._rpc, last, stop, poll_s=poll_s)
            if head is None:
                return
            try:
                await self.process(head)
                self._waiting, last = "", head
            except NodeError as error:
                if str(error) != self._waiting:
                    self._log({"event": "waiting", "reason": str(error)})
                self._waiting = str(error)
                await pause(stop, poll_s)

    async def process(self, head: Head) -> None:
        """Look at every account at `head`, and poke where that is wanted. Raises NodeError."""
        if not self._resumed:
            await self._plain.resume(head)
        self._resumed = True
        await self._refresh(head)
        looks = await self._read(self.accounts, head)
        for account, look in looks.items():
            self._note(account, look)
            why = wanted(look, head.timestamp_s)
            if why is None:
                self._poked.pop(account, None)
                continue
            # One kind of news is one transaction until it is in a block; a breach is told from an earlier one by when it began.
            news = look.breached_since_s << 8 | why
            sent = await self._plain.ensure(POKE, Trigger(account, 0), news, head, await self._fees(head))
            if sent and self._poked.get(account) != news:
                self._poked[account] = news
                self._pokes += 1
                self._log({"event": "poked", "account": checksum(account), "reason": _WHY[why], "head": head.number})
        self._processed = head.number

    def _note(self, account: Address, look: Look) -> None:
        """Say once that an account cannot be looked at: until it can, nothing that increases risk passes on chain."""
        why = to_hex(look.problem) if any(look.problem) else ""
        if why and self._told.get(account) != why:
            self._log({"event": "unknown", "account": checksum(account), "reason": why})
        if why:
            self._told[account] = why
        else:
            self._told.pop(account, None)

    async def _fees(self, head: Head) -> tuple[Wei, Wei]:
        try:
            priority = int(await self._rpc.call("eth_maxPriorityFeePerGas"), 16)
        except RpcError:
            priority = 0
        priority = max(priority, self._min_priority_fee_wei)
        return 2 * head.base_fee_wei + priority, priority

    async def _refresh(self, head: Head) -> None:
        start = max(min(self._scanned + 1, head.number - REORG_DEPTH), self._from_block)
        while start <= head.number:
            end = min(start + LOG_RANGE - 1, head.number)
            asked = {
                "address": [to_hex(self._breaker), to_hex(self._session_validator)],
                "topics": [[to_hex(BREAKER_CONFIGURED.topic), to_hex(SESSION_ENABLED.topic)]],
                "fromBlock": hex(start),
                "toBlock": hex(end),
            }
            for log in await self._rpc.call("eth_getLogs", asked):
                self._take(log)
            self._scanned, start = end, end + 1

    def _take(self, log: Mapping[str, Any]) -> None:
        topics = [parse_hash(topic, "topic") for topic in log["topics"]]
        account = topics[1][12:]
        if parse_address(log["address"].lower()) == self._breaker:
            self._configured.add(account)
            return
        _, _, (key, *_), _ = SESSION_ENABLED.decode(topics, bytes.fromhex(log["data"][2:]))
        if key == self._key:
            self._ours.add(account)

    async def _read(self, accounts: Sequence[Address], head: Head) -> dict[Address, Look]:
        """Accounts whose breaker is installed; one whose own reads revert is left out."""
        if not accounts:
            return {}
        calls: list[tuple[Address, bytes]] = []
        for account in accounts:
            calls += [
                (account, RISK_STATE.encode()),
                (self._breaker, EQUITY_OF.encode(account)),
                (self._breaker, BREAKER_STANDING_OF.encode(account)),
                (self._breaker, BREAKER_CONFIG_OF.encode(account)),
            ]
        answer = await self._rpc.eth_call(self._multicall3, encode_multicall(calls), block=hex(head.number))
        answers = decode_multicall(answer)
        found = {}
        for i, account in enumerate(accounts):
            given = [one for one in answers[_CALLS * i : _CALLS * i + _CALLS] if one is not None]
            if len(given) < _CALLS:
                continue
            state, _ = RISK_STATE.decode(given[0])
            equity, problem, confirmed = EQUITY_OF.decode(given[1])
            ((mark, day_reference, day, rest_until_s, breached_since_s),) = BREAKER_STANDING_OF.decode(given[2])
            installed, (settings, _, _) = BREAKER_CONFIG_OF.decode(given[3])
            if installed:
                found[account] = Look(
                    state=RiskState(state),
                    equity=equity,
                    problem=problem,
                    is_confirmed=confirmed,
                    mark=mark,
                    day_reference=day_reference,
                    day=day,
                    rest_until_s=rest_until_s,
                    breached_since_s=breached_since_s,
                    loss_per_day_bps=settings[3],
                    drawdown_bps=settings[4],
                    patience_s=settings[8],
                )
        return found
