"""Answers about one operation: status, receipt, the operation itself; also when another bundler included it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from bundler.chain import Head, read_head
from bundler.inflator import Inflator
from bundler.mempool import Entry
from bundler.receipts import operation_receipt
from bundler.settings import Settings
from bundler.store import Inclusion, OpStatus, Store
from contracts.entrypoint import USER_OPERATION_EVENT, EntryPoint
from contracts.entrypoint.base import GET_NONCE
from contracts.errors import InvalidFields
from contracts.rpc import RpcClient
from contracts.types import Address, Hash32, checksum, parse_bytes, parse_hash, to_hex
from contracts.userop import UserOperation


async def find_inclusion(rpc: RpcClient, entry_point: EntryPoint, op_hash: Hash32, depth: int) -> Inclusion | None:
    """Search the last `depth` blocks for the operation's event."""
    head = await read_head(rpc)
    logs = await rpc.logs(
        entry_point.address, [USER_OPERATION_EVENT.topic, op_hash], max(head.number - depth, 0), head.number
    )
    if not logs:
        return None
    return inclusion_of(logs[-1])


async def find_use(
    rpc: RpcClient, entry_point: EntryPoint, op: UserOperation, depth: int
) -> tuple[Hash32, Inclusion] | None:
    """The operation of the last `depth` blocks that has used this one's nonce, by its event. Raises NodeError."""
    head = await read_head(rpc)
    topics = [USER_OPERATION_EVENT.topic, None, op.sender.rjust(32, b"\0")]
    for log in reversed(await rpc.logs(entry_point.address, topics, max(head.number - depth, 0), head.number)):
        op_hash, _, nonce = identity_of(log)
        if nonce == op.nonce:
            return op_hash, inclusion_of(log)
    return None


def identity_of(log: dict[str, Any]) -> tuple[Hash32, Address, int]:
    """Hash, sender and nonce of the operation of a UserOperationEvent."""
    topics = [parse_bytes(topic, "topic") for topic in log["topics"]]
    values = USER_OPERATION_EVENT.decode(topics, parse_bytes(log["data"], "event data"))
    return values[0], values[1], values[3]


def inclusion_of(log: dict[str, Any]) -> Inclusion:
    """Where a log stands."""
    return Inclusion(
        parse_hash(log["transactionHash"], "transaction hash"),
        int(log["blockNumber"], 16),
        parse_hash(log["blockHash"], "block hash"),
    )


async def read_nonces(rpc: RpcClient, entries: Sequence[Entry]) -> list[int]:
    """The next nonce of each operation's sender under the operation's key, on the latest block. Raises NodeError."""
    calls = [
        (
            "eth_call",
            (
                {
                    "to": to_hex(entry.entry_point.address),
                    "data": to_hex(GET_NONCE.encode(entry.op.sender, entry.op.nonce_key)),
                },
                "latest",
            ),
        )
        for entry in entries
    ]
    return [GET_NONCE.decode(parse_bytes(answer, "nonce"))[0] for answer in await rpc.batch(calls)]


async def left_the_chain(rpc: RpcClient, inclusions: Sequence[Inclusion], head: Head) -> set[Inclusion]:
    """Those whose block is not on the chain any more. A missing receipt alone may be a back end that lags. Raises NodeError."""
    numbers = sorted({inclusion.block_number for inclusion in inclusions})
    blocks = await rpc.batch([("eth_getBlockByNumber", (hex(number), False)) for number in numbers])
    hashes = {n: block and parse_hash(block["hash"], "block hash") for n, block in zip(numbers, blocks, strict=True)}
    return {
        inclusion
        for inclusion in inclusions
        if (found := hashes[inclusion.block_number]) != inclusion.block_hash
        and (found is not None or head.number < inclusion.block_number)
    }


class Lookup:
    """Reads the store and, for operations that never were here, the last blocks."""

    def __init__(self, rpc: RpcClient, store: Store, settings: Settings, inflator: Inflator | None = None) -> None:
        self._rpc = rpc
        self._store = store
        self._settings = settings
        self._inflator = inflator

    async def status(self, op_hash: Hash32) -> dict[str, Any] | None:
        """`seawall_getUserOperationStatus`: received, bundled, included or dropped with its reason; None if unknown."""
        record = await self._store.operation(op_hash)
        if record is None:
            return None
        return {
            "userOpHash": to_hex(op_hash),
            "status": record.status.value,
            "reason": record.reason,
            "transactionHash": to_hex(record.tx_hash) if record.tx_hash else None,
            "blockNumber": hex(record.inclusion.block_number) if record.inclusion and not record.overtaken else None,
        }

    async def _locate(self, op_hash: Hash32) -> tuple[EntryPoint, Inclusion] | None:
        record = await self._store.operation(op_hash)
        if record is not None and record.status != OpStatus.DROPPED:
            return (record.entry.entry_point, record.inclusion) if record.inclusion else None
        for entry_point in self._settings.entry_points:
            inclusion = await find_inclusion(self._rpc, entry_point, op_hash, self._settings.event_search_blocks)
            if inclusion is not None:
                return entry_point, inclusion
        return None

    async def receipt(self, op_hash: Hash32) -> dict[str, Any] | None:
        """`eth_getUserOperationReceipt`. Raises NodeError."""
        found = await self._locate(op_hash)
        if found is None:
            return None
        entry_point, inclusion = found
        receipt = await self._rpc.receipt(inclusion.tx_hash)
        return None if receipt is None else operation_receipt(receipt, entry_point, op_hash)

    async def operation(self, op_hash: Hash32, chain_id: int) -> dict[str, Any] | None:
        """`eth_getUserOperationByHash`: also pending ones, with null for block and transaction. Raises NodeError."""
        record = await self._store.operation(op_hash)
        found = await self._locate(op_hash)
        op: UserOperation | None = record.entry.op if record else None
        if found is None:
            if record is None or record.status == OpStatus.DROPPED:
                return None
            entry_point, inclusion = record.entry.entry_point, None
        else:
            entry_point, inclusion = found
            op = op or await self._from_transaction(entry_point, inclusion, op_hash, chain_id)
        if op is None:
            return None
        return {
            "userOperation": op.to_rpc(),
            "entryPoint": checksum(entry_point.address),
            "transactionHash": to_hex(inclusion.tx_hash) if inclusion else None,
            "blockHash": to_hex(inclusion.block_hash) if inclusion else None,
            "blockNumber": hex(inclusion.block_number) if inclusion else None,
        }

    async def _from_transaction(
        self, entry_point: EntryPoint, inclusion: Inclusion, op_hash: Hash32, chain_id: int
    ) -> UserOperation | None:
        """An operation out of its bundle's call data, also through our inflator; None if a contract sent it in another form."""
        transaction = await self._rpc.call("eth_getTransactionByHash", to_hex(inclusion.tx_hash))
        if transaction is None:
            return None
        try:
            data = parse_bytes(transaction["input"], "input")
            if self._inflator is not None and transaction.get("to") == to_hex(self._inflator.address):
                ops = self._inflator.unpack(data, entry_point)
            else:
                ops, _ = entry_point.decode_handle_ops(data)
        except InvalidFields:
            return None
        return next((op for op in ops if entry_point.user_op_hash(op, chain_id) == op_hash), None)
