"""What executors hold: who may send, who is an alarm, who is topped up."""

from __future__ import annotations

import logging
from collections.abc import Sequence

from bundler.chain import Head
from bundler.settings import Settings
from bundler.treasury import Treasury
from contracts.rpc import RpcClient
from contracts.types import Address, Wei, checksum, to_hex

log = logging.getLogger("bundler.purses")


class Purses:
    """The executors' balances, as of the latest block."""

    def __init__(self, rpc: RpcClient, settings: Settings) -> None:
        self._rpc = rpc
        self._settings = settings
        self.balances: dict[Address, Wei] = {}
        self._cannot_pay: dict[Address, Wei] = {}
        """Executors that hold less than a bundle of this block needs, and how much that was."""
        self.treasury: Treasury | None = None

    @property
    def richest_wei(self) -> Wei | None:
        """What the richest executor holds; None before the first block."""
        return max(self.balances.values(), default=None)

    def is_low(self, executor: Address) -> bool:
        """Whether it holds less than `low_balance_wei`, as far as is known."""
        least = self._settings.low_balance_wei
        return self.balances.get(executor, least) < least

    async def weigh(self, executors: Sequence[Address], head: Head, *, refill: bool) -> None:
        """Read what they hold, raise the alarm where that is little, and have the treasury help (if `refill`). Raises NodeError."""
        balances = await self._rpc.batch([("eth_getBalance", (to_hex(a), "latest")) for a in executors])
        for executor, answer in zip(executors, balances, strict=True):
            was_low, before = self.is_low(executor), self.balances.get(executor)
            self.balances[executor] = holds_wei = int(answer, 16)
            least = self._settings.lane_min_balance_wei
            if holds_wei < least and (before is None or before >= least):
                log.warning("executor %s holds %d wei and rests: send it money", checksum(executor), holds_wei)
            elif self.is_low(executor) and not was_low:
                log.warning("executor %s is low: it holds %d wei", checksum(executor), holds_wei)
        self._cannot_pay.clear()
        if self.treasury is not None:
            if refill:
                await self.treasury.tend(self.balances, head)
            else:
                self.treasury.close()

    def able(self, idle: Sequence[Address], executors: Sequence[Address]) -> list[Address]:
        """Those of `idle` that are not too poor. If all hold less than a lane should, none rests, unless it could not pay on this block."""
        least = self._settings.lane_min_balance_wei
        rich = {a for a in executors if self.balances.get(a, least) >= least}
        return [a for a in idle if (a in rich or not rich) and a not in self._cannot_pay]

    def can_pay(self, executor: Address, wants_wei: Wei) -> bool:
        """Whether a node would take a bundle that costs at most `wants_wei` from this executor. If not, it rests until the next block."""
        holds_wei = self.balances.get(executor, wants_wei)
        if holds_wei < wants_wei:
            self._cannot_pay[executor] = wants_wei
            log.warning(
                "executor %s holds %d wei, a bundle needs %d: it rests", checksum(executor), holds_wei, wants_wei
            )
        return holds_wei >= wants_wei

    def problems(self, executors: Sequence[Address]) -> list[str]:
        """Why nobody can pay, for people."""
        found = []
        least, richest_wei = self._settings.min_executor_balance_wei, self.richest_wei
        if richest_wei is not None and richest_wei < least:
            richest = max(self.balances, key=lambda address: self.balances[address])
            found.append(f"the executor {checksum(richest)} holds {richest_wei} wei, {least} are asked for")
        if self._cannot_pay and len(self._cannot_pay) == len(executors):
            found.append(f"no executor can pay for a bundle: {min(self._cannot_pay.values())} wei are needed")
        return found
