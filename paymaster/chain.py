"""What the chain says: the head's clock, the deposit, and what became of each promise (UserOperationEvent of our paymaster)."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from contracts.abi import Function
from contracts.bindings import ALLOWANCE
from contracts.bindings import BALANCE_OF as TOKEN_BALANCE_OF
from contracts.entrypoint import USER_OPERATION_EVENT
from contracts.entrypoint.base import BALANCE_OF, GET_NONCE
from contracts.errors import NodeError, NodeUnreachable, RpcError, SeawallError, SetupError
from contracts.rpc import RpcClient
from contracts.token_paymaster import CREDIT_OF, QUOTE
from contracts.types import Address, Wei, checksum, parse_bytes, parse_hash, parse_quantity, to_hex
from contracts.userop import UserOperation
from paymaster.ledger import Block, Ledger, Settlement
from paymaster.sponsor import SECONDS_A_DAY
from paymaster.tokens import Quoted
from paymaster.unpaid import unpaid_wei

IS_SIGNER = Function.parse("isSigner(address)(bool)")
"""Source: IVerifyingPaymaster."""

_log = logging.getLogger("seawall.paymaster")
_UNUSABLE = (SeawallError, ArithmeticError, LookupError, TypeError, ValueError)
"""What reading a node's answer can raise: an error of its own, none at all, or nonsense."""


@dataclass(frozen=True, slots=True)
class Head:
    """The newest block; its timestamp (unix seconds) is the only clock that matters for expiry."""

    number: int
    timestamp_s: int


@dataclass(frozen=True, slots=True)
class Snapshot:
    """What a decision needs from the chain, read in one round trip."""

    head: Head
    deposit_wei: Wei
    next_nonce: int
    """The account's next nonce under the operation's key."""


@dataclass(frozen=True, slots=True)
class Status:
    """The outcome of the last look at the chain. `reasons` empty: ready."""

    reasons: tuple[str, ...] = ("the chain has not been read yet",)
    head: Head | None = None
    deposits_wei: tuple[tuple[Address, Wei], ...] = ()

    @property
    def ready(self) -> bool:
        return not self.reasons


def _call(to: Address, data: bytes) -> tuple[str, list[object]]:
    return "eth_call", [{"to": to_hex(to), "data": to_hex(data)}, "latest"]


def _head(block: Mapping[str, Any]) -> Head:
    return Head(parse_quantity(block["number"], "number"), parse_quantity(block["timestamp"], "timestamp"))


async def snapshot(rpc: RpcClient, entry_point: Address, paymaster: Address, op: UserOperation) -> Snapshot:
    """Read the chain for one decision. Raises NodeError when there is no answer, or one that cannot be used."""
    try:
        block, deposit, nonce = await rpc.batch(
            [
                ("eth_getBlockByNumber", ["latest", False]),
                _call(entry_point, BALANCE_OF.encode(paymaster)),
                _call(entry_point, GET_NONCE.encode(op.sender, op.nonce_key)),
            ]
        )
        return Snapshot(
            head=_head(block),
            deposit_wei=BALANCE_OF.decode(parse_bytes(deposit))[0],
            next_nonce=GET_NONCE.decode(parse_bytes(nonce))[0],
        )
    except _UNUSABLE as error:
        _log.warning("a decision needs the chain: %s", error)
        raise NodeError("the sponsor cannot read the chain now; ask again later", rule="chain") from error


async def quoted(rpc: RpcClient, paymaster: Address, token: Address, payer: Address, guarantor: Address) -> Quoted:
    """What the contract asks for `token`, and what payer and guarantor have. Raises NodeError as `snapshot` does."""
    try:
        price, balance, allowance, credit = await rpc.batch(
            [
                _call(paymaster, QUOTE.encode(token)),
                _call(token, TOKEN_BALANCE_OF.encode(payer)),
                _call(token, ALLOWANCE.encode(payer, paymaster)),
                _call(paymaster, CREDIT_OF.encode(token, guarantor)),
            ]
        )
        token_per_native, valid_after_s, valid_until_s, problem = QUOTE.decode(parse_bytes(price))
        return Quoted(
            token_per_native=token_per_native,
            valid_after_s=valid_after_s,
            valid_until_s=valid_until_s,
            problem=problem,
            balance=TOKEN_BALANCE_OF.decode(parse_bytes(balance))[0],
            allowance=ALLOWANCE.decode(parse_bytes(allowance))[0],
            credit=CREDIT_OF.decode(parse_bytes(credit))[0],
        )
    except _UNUSABLE as error:
        _log.warning("a price needs the chain: %s", error)
        raise NodeError(
            f"the sponsor cannot read what {checksum(token)} is worth and who has it now; is it a token?", rule="chain"
        ) from error


class Follower:
    """Keeps the ledger true to the chain. One `poll` at a time; `run` polls until cancelled."""

    def __init__(
        self,
        rpc: RpcClient,
        ledger: Ledger,
        paymasters: Mapping[Address, Address],
        signer: Address,
        chain_id: int,
        *,
        min_deposit_wei: Wei,
        confirmations: int,
        log_range: int = 2_000,
        start_block: int | None = None,
        token_paymasters: Mapping[Address, Address] | None = None,
    ) -> None:
        """`paymasters` and `token_paymasters` by entry point. A promise is given up once a block `confirmations` deep is past its expiry.

        The logs are read from `start_block`; by default from `confirmations` blocks before the head at the first start.
        """
        self._rpc = rpc
        self._ledger = ledger
        self._paymasters = dict(paymasters)
        self._token_paymasters = dict(token_paymasters or {})
        self._signer = signer
        self._chain_id = chain_id
        self._min_deposit_wei = min_deposit_wei
        self._confirmations = confirmations
        self._log_range = log_range
        self._start_block = start_block
        self._lock = asyncio.Lock()
        self.status = Status()

    async def run(self, interval_s: float) -> None:
        """Poll for ever. A node that is down, or answers nonsense, makes the service not ready; it never ends the loop."""
        while True:
            await self.poll()
            await asyncio.sleep(interval_s)

    async def poll(self) -> Status:
        """Look once: settle, undo, release, and say whether the sponsor is ready."""
        async with self._lock:
            try:
                self.status = await self._poll()
            except NodeUnreachable:
                self.status = Status(("the node does not answer",))
            except SetupError as error:
                _log.error("%s", error)
                self.status = Status(("the ledger cannot be written",))
            except _UNUSABLE as error:
                _log.warning("the node's answer cannot be used: %s", error)
                self.status = Status(("the node's answer cannot be used",))
            return self.status

    async def _poll(self) -> Status:
        if await self._rpc.chain_id() != self._chain_id:
            return Status((f"the node is not on chain {self._chain_id}",))
        head = await self._rpc.block()
        caught_up = await self._read_logs(_block(head))
        confirmed = _block(head).number - self._confirmations
        if caught_up and confirmed >= 0:
            await self._ledger.release(_head(await self._rpc.block(confirmed)).timestamp_s)
        reasons = [] if caught_up else ["the chain reorganised while it was read"]
        deposits = []
        for entry_point, paymaster in self._paymasters.items():
            deposit, enabled = await self._rpc.batch(
                [_call(entry_point, BALANCE_OF.encode(paymaster)), _call(paymaster, IS_SIGNER.encode(self._signer))]
            )
            (deposit_wei,) = BALANCE_OF.decode(parse_bytes(deposit))
            deposits.append((entry_point, deposit_wei))
            reasons += self._too_low(entry_point, paymaster, deposit_wei)
            if parse_bytes(enabled) != (1).to_bytes(32):
                reasons.append(
                    f"{checksum(self._signer)} is no signer of {checksum(paymaster)}: its owner must call setSigner"
                )
        for entry_point, paymaster in self._token_paymasters.items():
            (deposit,) = await self._rpc.batch([_call(entry_point, BALANCE_OF.encode(paymaster))])
            reasons += self._too_low(entry_point, paymaster, BALANCE_OF.decode(parse_bytes(deposit))[0])
        return Status(tuple(reasons), _head(head), tuple(deposits))

    def _too_low(self, entry_point: Address, paymaster: Address, deposit_wei: Wei) -> list[str]:
        if deposit_wei >= self._min_deposit_wei:
            return []
        text = (
            f"the deposit of {checksum(paymaster)} is {deposit_wei} wei, below {self._min_deposit_wei}: "
            f"top it up with depositTo on {checksum(entry_point)}"
        )
        return [text]

    async def _read_logs(self, head: Block) -> bool:
        """Bring the ledger up to `head`. False if the chain reorganised meanwhile; the next poll goes on from there."""
        last = await self._last_canonical(head)
        while last.number < head.number:
            upto = _block(await self._rpc.block(min(last.number + self._log_range, head.number)))
            settlements = []
            for entry_point, paymaster in self._paymasters.items():
                topics = [USER_OPERATION_EVENT.topic, None, None, bytes(12) + paymaster]
                logs = await self._rpc.logs(entry_point, topics, last.number + 1, upto.number)
                settlements += [await self._settlement(log) for log in logs]
            for entry_point, paymaster in self._token_paymasters.items():
                topics = [USER_OPERATION_EVENT.topic, None, None, bytes(12) + paymaster]
                logs = await self._rpc.logs(entry_point, topics, last.number + 1, upto.number)
                settlements += [await self._token_settlement(log, paymaster) for log in logs]
            # Blocks name their parents: if both ends are still there, so was everything between them.
            if not (await self._is_canonical(last) and await self._is_canonical(upto)):
                return False
            await self._ledger.settle(settlements, upto)
            last = upto
        return True

    async def _last_canonical(self, head: Block) -> Block:
        """The newest block that was read and is still in the chain; what was read above it is undone."""
        read = await self._ledger.blocks()
        for block in read:
            if block.number <= head.number and await self._is_canonical(block):
                if block != read[0]:
                    await self._undo(block.number)
                return block
        if self._start_block is None:
            start = min([head.number, *(block.number for block in read[-1:])]) - self._confirmations
        else:
            start = min(head.number, self._start_block - 1)
        base = _block(await self._rpc.block(max(0, start)))
        if read:
            await self._undo(base.number)
        await self._ledger.settle((), base)
        return base

    async def _undo(self, above: int) -> None:
        for lost in await self._ledger.undo(above):
            _log.warning(
                "reorganisation: the settlement of %s in block %d is undone",
                to_hex(lost.user_op_hash),
                lost.block_number,
            )

    async def _is_canonical(self, block: Block) -> bool:
        try:
            return _block(await self._rpc.block(block.number)) == block
        except RpcError:  # no such block: the chain is shorter now
            return False

    async def _settlement(self, log: Mapping[str, Any]) -> Settlement:
        topics = [parse_hash(topic, "topic") for topic in log["topics"]]
        op_hash, sender, _, nonce, success, cost_wei, _ = USER_OPERATION_EVENT.decode(
            topics, parse_bytes(log["data"], "data")
        )
        number = parse_quantity(log["blockNumber"], "blockNumber")
        return Settlement(
            user_op_hash=op_hash,
            entry_point=parse_bytes(log["address"], "address"),
            sender=sender,
            nonce=nonce,
            cost_wei=cost_wei,
            success=success,
            block_number=number,
            block_hash=parse_hash(log["blockHash"], "blockHash"),
            tx_hash=parse_hash(log["transactionHash"], "transactionHash"),
            day=_head(await self._rpc.block(number)).timestamp_s // SECONDS_A_DAY,
        )

    async def _token_settlement(self, log: Mapping[str, Any], paymaster: Address) -> Settlement:
        """What the service itself lost: nothing, unless it guaranteed the operation and was not paid back."""
        found = await self._settlement(log)
        receipt = await self._rpc.call("eth_getTransactionReceipt", to_hex(found.tx_hash))
        lost = unpaid_wei(receipt["logs"], found.user_op_hash, paymaster, self._signer, found.cost_wei)
        return replace(found, cost_wei=lost)


def _block(fields: Mapping[str, Any]) -> Block:
    return Block(parse_quantity(fields["number"], "number"), parse_hash(fields["hash"], "block hash"))
