"""Tops executors up from one key, between two bounds and under a daily cap.

What was sent is written to a file beside the key before it is sent, so that a crash neither pays twice nor forgets what the day has cost.
One payment is under way at a time; it is sent again, with higher fees where it is stuck, until its nonce is used.
"""

from __future__ import annotations

import fcntl
import json
import logging
import os
import time
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from bundler.chain import Head
from bundler.keys import KeyFile
from bundler.settings import Settings
from contracts.eoa import Eoa
from contracts.errors import NodeError, SetupError
from contracts.rpc import RpcClient
from contracts.types import Address, Wei, checksum, parse_address, to_hex

log = logging.getLogger("bundler.treasury")

_DAY_S = 86_400
_GAS = 60_000
"""A plain transfer; an executor that delegates its code (EIP-7702) may run some."""
_BUMP_PERCENT = 13


@dataclass(frozen=True, slots=True)
class Payment:
    """One top-up, by its nonce. `at_s` in unix seconds."""

    nonce: int
    to: Address
    wei: Wei
    at_s: float
    done: bool = False

    def to_json(self) -> str:
        return json.dumps(asdict(self) | {"to": to_hex(self.to)})

    @classmethod
    def from_json(cls, line: str) -> Payment:
        fields = json.loads(line)
        return cls(**(fields | {"to": parse_address(fields["to"])}))


class Ledger:
    """The payments of one key, oldest first, on disk. Raises SetupError when it is in use, damaged or cannot be written."""

    def __init__(self, path: Path) -> None:
        self._path = path
        try:
            self._file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
        except OSError as error:
            raise SetupError(f"the treasury's ledger {path} cannot be opened: {error.strerror}") from error
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            os.close(self._file)
            raise SetupError(f"{path} is in use by another bundler: a treasury's key belongs to one") from None
        self._payments: dict[int, Payment] = {}
        lines = path.read_text().splitlines(keepends=True)
        for number, line in enumerate(lines, 1):
            try:
                payment = Payment.from_json(line)
            except (ValueError, TypeError, KeyError) as error:
                if number == len(lines) and not line.endswith("\n"):
                    os.truncate(path, sum(len(one.encode()) for one in lines[:-1]))
                    break  # cut by a crash, before anything was sent
                os.close(self._file)
                raise SetupError(f"line {number} of the treasury's ledger {path} is damaged: {error}") from error
            self._payments[payment.nonce] = payment

    def write(self, payment: Payment) -> None:
        """Durable when it returns."""
        try:
            os.write(self._file, payment.to_json().encode() + b"\n")
            os.fsync(self._file)
        except OSError as error:
            raise SetupError(f"the treasury's ledger {self._path} cannot be written: {error.strerror}") from error
        self._payments[payment.nonce] = payment

    def under_way(self) -> Payment | None:
        """The payment that may still be mined."""
        return next((one for one in self._payments.values() if not one.done), None)

    def spent_wei(self, now_s: float) -> Wei:
        """In the 24 hours before `now_s`; what is dated later (a clock that went back) counts too."""
        return sum(one.wei for one in self._payments.values() if one.at_s > now_s - _DAY_S)

    def close(self) -> None:
        os.close(self._file)


class Treasury:
    """Watches balances and pays. `send` hands in a raw transaction and says whether it was taken."""

    def __init__(
        self,
        rpc: RpcClient,
        key: Eoa,
        ledger: Path,
        chain_id: int,
        settings: Settings,
        send: Callable[[bytes], Awaitable[bool]],
        wall_clock: Callable[[], float] = time.time,
    ) -> None:
        self.address = key.address
        self.balance_wei: Wei | None = None
        self.refilled_wei: Wei = 0
        """By this process."""
        self.problem: str | None = None
        """Why an executor that needs money gets none."""
        self._rpc, self._key, self._path, self._chain_id = rpc, key, ledger, chain_id
        self._open: Ledger | None = None
        """Held while this process pays: of several on one database only one does."""
        self._settings, self._send, self._wall_clock = settings, send, wall_clock
        self._fees: tuple[Wei, Wei] = (0, 0)
        self._sent_block: int | None = None

    def close(self) -> None:
        """Leave the ledger to another process."""
        if self._open is not None:
            self._open.close()
            self._open = self._sent_block = None

    @property
    def _ledger(self) -> Ledger:
        if self._open is None:
            self._open = Ledger(self._path)
        return self._open

    def to_json(self) -> dict[str, object]:
        """For `seawall_status`."""
        return {
            "address": checksum(self.address),
            "balance": None if self.balance_wei is None else hex(self.balance_wei),
            "spentToday": None if self._open is None else hex(self._open.spent_wei(self._wall_clock())),
            "problem": self.problem,
        }

    async def tend(self, balances_wei: Mapping[Address, Wei], head: Head) -> None:
        """Settle or push what is under way, else top up the poorest executor below the bound. Once a block; failing is a `problem` only."""
        try:
            await self._tend(balances_wei, head)
        except (NodeError, SetupError) as error:
            self._complain(f"the treasury cannot work: {error.message}")

    async def _tend(self, balances_wei: Mapping[Address, Wei], head: Head) -> None:
        nonce, balance = await self._rpc.batch(
            [
                ("eth_getTransactionCount", (to_hex(self.address), "latest")),
                ("eth_getBalance", (to_hex(self.address), "latest")),
            ]
        )
        used, self.balance_wei = int(nonce, 16), int(balance, 16)
        payment = self._ledger.under_way()
        if payment is not None:
            if used <= payment.nonce:
                await self._push(payment, head)
                return
            self._ledger.write(replace(payment, done=True))
            self._sent_block = None
            self.refilled_wei += payment.wei
            log.info("executor %s has %d wei more from the treasury", checksum(payment.to), payment.wei)
        await self._top_up(balances_wei, used, head)

    async def _top_up(self, balances_wei: Mapping[Address, Wei], nonce: int, head: Head) -> None:
        below, most = self._settings.refill_below_wei, self._settings.refill_to_wei
        poor = {a: wei for a, wei in balances_wei.items() if wei < below and a != self.address}
        if not poor:
            self._complain(None)
            return
        to = min(poor, key=lambda address: (poor[address], address))
        now_s = self._wall_clock()
        left_wei = self._settings.refill_daily_cap_wei - self._ledger.spent_wei(now_s)
        fees = (2 * head.base_fee_wei + self._tip(), self._tip())
        free_wei = (self.balance_wei or 0) - _GAS * fees[0]
        wei = min(most - poor[to], left_wei, free_wei)
        if poor[to] + wei < below:  # less would have to be topped up again at once
            what = (
                f"the day's cap leaves {max(left_wei, 0)} wei"
                if left_wei < free_wei
                else f"it holds {self.balance_wei} wei"
            )
            self._complain(
                f"the executor {checksum(to)} holds {poor[to]} wei and the treasury {checksum(self.address)} cannot help: {what}"
            )
            return
        self._complain(None)
        payment = Payment(nonce, to, wei, now_s)
        self._ledger.write(payment)
        await self._pay(payment, fees, head)

    def _complain(self, problem: str | None) -> None:
        if problem is not None and self.problem is None:
            log.warning("%s", problem)
        self.problem = problem

    def _tip(self) -> Wei:
        return max(self._settings.min_priority_fee_wei, 10**6)

    async def _push(self, payment: Payment, head: Head) -> None:
        """The same payment again; with higher fees when it missed as many blocks as a bundle may."""
        since = self._sent_block
        if since is None:  # nobody took it, or this is a start and nobody knows
            self._fees = (2 * head.base_fee_wei + self._tip(), self._tip())
        elif head.number - since < self._settings.blocks_before_resubmit:
            return
        most, tip = (-(-fee * (100 + _BUMP_PERCENT) // 100) for fee in self._fees)
        most = max(most, 2 * head.base_fee_wei + tip)
        if most <= self._settings.max_bundle_fee_wei:
            await self._pay(payment, (most, tip), head)
        else:
            await self._pay(payment, self._fees, head)

    async def _pay(self, payment: Payment, fees: tuple[Wei, Wei], head: Head) -> None:
        fields: dict[str, Any] = {
            "type": 2, "chainId": self._chain_id, "nonce": payment.nonce, "to": checksum(payment.to), "value": payment.wei,
            "gas": _GAS, "maxFeePerGas": fees[0], "maxPriorityFeePerGas": min(fees), "data": b"",
        }  # fmt: skip
        raw, tx_hash = self._key.sign_transaction(fields)
        taken = await self._send(raw)
        self._fees, self._sent_block = fees, head.number if taken else None
        log.info(
            "%d wei to executor %s in %s%s",
            payment.wei,
            checksum(payment.to),
            to_hex(tx_hash),
            "" if taken else ": not taken",
        )


def open_treasury(
    rpc: RpcClient, chain_id: int, settings: Settings, send: Callable[[bytes], Awaitable[bool]]
) -> Treasury:
    """The treasury that the settings name. Raises SetupError, BadInput."""
    path = settings.treasury_key_file
    assert path is not None
    key = KeyFile(path).load()
    return Treasury(rpc, key, path.with_name(f"{path.name}.ledger"), chain_id, settings, send)
