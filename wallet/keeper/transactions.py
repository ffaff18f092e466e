"""Plain transactions of the keeper's own account: `touch`, which starts the public delay, `execute`, the last resort, `prove`, which moves
the mark of a trailing stop, and a breaker's `poke`.

All are open to anyone; the chain makes sure that a trigger fires once however many ask. Signed and recorded before they are
sent, sent again until they are in a block, and replaced with higher fees at the same nonce when that takes too long.
"""

from __future__ import annotations

import asyncio

from contracts.bindings import GUARD_EXECUTE, GUARD_TOUCH, PROVE
from contracts.bindings import POKE as BREAKER_POKE
from contracts.eoa import Eoa
from contracts.errors import RpcError
from contracts.faults import checkpoint
from contracts.rpc import RpcClient
from contracts.types import Address, Wei, checksum, parse_quantity, to_hex
from wallet.keeper.fire import REPLACEMENT_BPS
from wallet.keeper.store import INCLUDED, INTENDED, OPEN, REVERTED, SENT, SUPERSEDED, PlainTransaction, Store
from wallet.keeper.watch import Head, Trigger

RETRY_BLOCKS = 5
"""Blocks after one that was included before the same kind is sent again for the same arming."""
TOUCH, EXECUTE, POKE = "touch", "execute", "poke"


_PROOF = "prove "


def proof_of(round_id: int) -> str:
    """The kind of a transaction that proves one round of the feed: each round is asked for once."""
    return f"{_PROOF}{round_id}"


def _data(kind: str, trigger: Trigger) -> bytes:
    if kind == POKE:
        return BREAKER_POKE.encode(trigger.account)
    if kind.startswith(_PROOF):
        return PROVE.encode(trigger.account, trigger.id, [int(kind.removeprefix(_PROOF))])
    return (GUARD_TOUCH if kind == TOUCH else GUARD_EXECUTE).encode(trigger.account, trigger.id)


class PlainSender:
    """One key's transactions to one module, one at a time."""

    def __init__(
        self, rpc: RpcClient, eoa: Eoa, chain_id: int, guard: Address, store: Store, *, replace_after_blocks: int
    ) -> None:
        self._rpc = rpc
        self._eoa = eoa
        self._chain_id = chain_id
        self._guard = guard
        self._store = store
        self._replace_after_blocks = replace_after_blocks
        self._lock = asyncio.Lock()
        self.trouble = ""
        """Why the last transaction could not be made; empty when it could."""

    async def resume(self, head: Head) -> None:
        """Send again what an earlier run recorded and nobody knows the end of."""
        async with self._lock:
            for tx in self._store.open_transactions():
                await self._follow(tx, head)

    async def ensure(self, kind: str, trigger: Trigger, arming: int, head: Head, fees: tuple[Wei, Wei]) -> bool:
        """See to it that a transaction of this kind is under way. False if none can be: it would revert, or there is no money for gas.

        Raises NodeUnreachable.
        """
        async with self._lock:
            latest = self._store.latest_transaction(kind, trigger, arming)
            if latest is not None and latest.state in OPEN:
                latest = await self._follow(latest, head)
                if latest.state in OPEN:
                    if head.number - latest.recorded_block >= self._replace_after_blocks:
                        await self._replace(latest, head, fees)
                    return True
            if latest is not None and latest.state != SUPERSEDED and head.number < latest.recorded_block + RETRY_BLOCKS:
                return latest.state == INCLUDED
            return await self._start(kind, trigger, arming, head, fees)

    async def _start(self, kind: str, trigger: Trigger, arming: int, head: Head, fees: tuple[Wei, Wei]) -> bool:
        data = _data(kind, trigger)
        request = {"from": to_hex(self._eoa.address), "to": to_hex(self._guard), "data": to_hex(data)}
        try:
            gas = parse_quantity(await self._rpc.call("eth_estimateGas", request), "gas") * 13 // 10
        except RpcError as error:
            self.trouble = f"{kind} would fail: {error.message}"
            return False
        balance = await self._rpc.get_balance(self._eoa.address)
        if balance < gas * fees[0]:
            self.trouble = (
                f"{checksum(self._eoa.address)} has {balance} wei, and {kind} may cost {gas * fees[0]}: send it some"
            )
            return False
        nonce = await self._rpc.get_nonce(self._eoa.address)
        await self._record_and_send(kind, trigger, arming, nonce, gas, head, fees)
        self.trouble = ""
        return True

    async def _replace(self, old: PlainTransaction, head: Head, fees: tuple[Wei, Wei]) -> None:
        data = _data(old.kind, old.trigger)
        request = {"from": to_hex(self._eoa.address), "to": to_hex(self._guard), "data": to_hex(data)}
        try:
            gas = parse_quantity(await self._rpc.call("eth_estimateGas", request), "gas") * 13 // 10
        except RpcError:
            return  # it would revert now: leave the old one, the next head decides again
        raised = (
            max(fees[0], -(-old.max_fee_wei * REPLACEMENT_BPS // 10_000)),
            max(fees[1], -(-old.priority_fee_wei * REPLACEMENT_BPS // 10_000)),
        )
        await self._record_and_send(old.kind, old.trigger, old.arming, old.nonce, gas, head, raised)

    async def _record_and_send(
        self, kind: str, trigger: Trigger, arming: int, nonce: int, gas: int, head: Head, fees: tuple[Wei, Wei]
    ) -> None:
        max_fee, priority_fee = fees
        raw, tx_hash = self._eoa.sign_transaction(
            {
                "type": 2,
                "chainId": self._chain_id,
                "nonce": nonce,
                "gas": gas,
                "maxFeePerGas": max_fee,
                "maxPriorityFeePerGas": priority_fee,
                "value": 0,
                "to": checksum(self._guard),
                "data": _data(kind, trigger),
            }
        )
        tx = PlainTransaction(tx_hash, kind, trigger, arming, nonce, max_fee, priority_fee, raw, INTENDED, head.number)
        self._store.record_transaction(tx)
        await self._submit(tx)

    async def _submit(self, tx: PlainTransaction) -> None:
        checkpoint("keeper.transaction.send.before")
        try:
            await self._rpc.call("eth_sendRawTransaction", to_hex(tx.raw))
        except RpcError as error:
            # Known already, its nonce used, or its fees too low: the receipt, the nonce or a replacement will tell.
            self.trouble = f"{tx.kind} {to_hex(tx.tx_hash)}: {error.message}"
        else:
            self._store.mark_transaction(tx.tx_hash, SENT)
        checkpoint("keeper.transaction.send.after")

    async def _follow(self, tx: PlainTransaction, head: Head) -> PlainTransaction:
        """Note the end of `tx` if it has one, else send it again."""
        receipt = await self._rpc.receipt(tx.tx_hash)
        if receipt is not None:
            self._store.mark_transaction(tx.tx_hash, INCLUDED if receipt["status"] == "0x1" else REVERTED)
        elif await self._rpc.get_nonce(self._eoa.address, "latest") > tx.nonce:
            self._store.mark_transaction(tx.tx_hash, SUPERSEDED)
        elif tx.state == INTENDED or head.number > tx.recorded_block:
            await self._submit(tx)
        return self._store.latest_transaction(tx.kind, tx.trigger, tx.arming) or tx
