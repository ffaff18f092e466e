"""What an operation would do, from the chain's own execution: its calls run on a pinned block, reads taken before and after.

One `eth_simulateV1` request: reads, account creation if needed, the operation's call from the entry point, the same reads. The
portfolio after is what the venue itself answers then, never our imitation of the venue.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from contracts import bindings as b
from contracts.entrypoint import EntryPoint
from contracts.errors import NodeError, RpcError
from contracts.rpc import RpcClient
from contracts.types import Address, Hash32, parse_bytes, parse_hash, to_hex
from contracts.userop import UserOperation

_GAS = 15_000_000
"""Gas given to each simulated call: below EIP-7825's cap for a whole transaction, above any real operation."""


class MovedHead(NodeError):
    """The block that was read is not part of the chain any more; nothing that was read on it may be combined with what comes next."""


@dataclass(frozen=True, slots=True)
class Log:
    """One event of the simulated execution."""

    address: Address
    topics: tuple[Hash32, ...]
    data: bytes


@dataclass(frozen=True, slots=True)
class Effects:
    """The outcome of one simulated operation on one block.

    `before` and `after` are the answers to the reads in their order, None where a read reverted. `return_data` holds the revert
    data when `success` is false.
    """

    block_number: int
    block_hash: Hash32
    timestamp_s: int
    success: bool
    return_data: bytes
    gas_used: int
    logs: tuple[Log, ...]
    before: tuple[bytes | None, ...]
    after: tuple[bytes | None, ...]


async def simulate(
    rpc: RpcClient,
    entry_point: EntryPoint,
    multicall3: Address,
    op: UserOperation | None,
    reads: Sequence[tuple[Address, bytes]],
    *,
    reads_after: Sequence[tuple[Address, bytes]] | None = None,
    head: dict[str, Any] | None = None,
) -> Effects:
    """Run `op` (None: nothing, only the reads) on top of `head`, a header as the node gave it (None: the latest block).

    `reads` are made before the operation, `reads_after` (None: the same) after it.

    The simulated block is one second younger than the latest: eth_simulateV1 wants time to pass, and what venues settle by time
    (funding) is settled in it. Raises NodeError when the node cannot simulate, when the reads themselves fail, or when the chain has
    replaced the block by another.
    """
    head = head or await rpc.block()
    read = {"to": to_hex(multicall3), "data": to_hex(b.encode_multicall(reads)), "gas": hex(_GAS)}
    last = read if reads_after is None else {**read, "data": to_hex(b.encode_multicall(reads_after))}
    calls: list[dict[str, str]] = [read]
    executed = -1
    if op is not None:
        sender = to_hex(entry_point.address)
        if op.factory is not None:
            calls.append({"from": sender, "to": to_hex(op.factory), "data": to_hex(op.factory_data), "gas": hex(_GAS)})
        executed = len(calls)
        calls.append({"from": sender, "to": to_hex(op.sender), "data": to_hex(op.call_data), "gas": hex(_GAS)})
        calls.append(last)
    request = {
        "blockStateCalls": [
            {
                "blockOverrides": {
                    "number": hex(int(head["number"], 16) + 1),
                    "time": hex(int(head["timestamp"], 16) + 1),
                    "baseFeePerGas": "0x0",
                    "gasLimit": hex(len(calls) * _GAS),
                },
                "calls": calls,
            }
        ],
        "validation": False,
    }
    try:
        (block,) = await rpc.call("eth_simulateV1", request, {"blockHash": head["hash"], "requireCanonical": True})
    except RpcError as error:
        await _still_there(rpc, head)
        raise NodeError(
            f"the node cannot simulate: {error}. Use a node with eth_simulateV1 (geth 1.14.9, anvil 1.0 or later)"
        ) from error
    results: list[dict[str, Any]] = block["calls"]
    if len(results) != len(calls):
        raise NodeError(f"the node simulated {len(results)} of {len(calls)} calls")

    def reads_of(result: dict[str, Any]) -> tuple[bytes | None, ...]:
        if result["status"] != "0x1":
            raise NodeError(f"the position reads failed: {result.get('error')}; is there a Multicall3 at {read['to']}?")
        return tuple(b.decode_multicall(parse_bytes(result["returnData"], "returnData")))

    ran = results[executed] if executed >= 0 else None
    if ran is not None and executed == 2 and results[1]["status"] != "0x1":
        ran = results[1]  # the account could not be created: that is the operation's failure
    return Effects(
        block_number=int(head["number"], 16),
        block_hash=parse_hash(head["hash"], "block hash"),
        timestamp_s=int(head["timestamp"], 16),
        success=ran is None or ran["status"] == "0x1",
        return_data=b"" if ran is None else _revert_data(ran),
        gas_used=0 if ran is None else int(ran["gasUsed"], 16),
        logs=() if ran is None else tuple(_log(entry) for entry in ran["logs"]),
        before=reads_of(results[0]),
        after=reads_of(results[-1]),
    )


async def _still_there(rpc: RpcClient, head: dict[str, Any]) -> None:
    """Raises MovedHead when the block is no longer the chain's at its height."""
    now = await rpc.call("eth_getBlockByNumber", head["number"], False)
    if not isinstance(now, dict) or now.get("hash") != head["hash"]:
        raise MovedHead(
            f"block {int(head['number'], 16)} is no longer {head['hash']}: the chain was reorganised while it was read; try again"
        )


def _revert_data(result: dict[str, Any]) -> bytes:
    """Return data, or the revert data, which nodes put in `returnData` or in `error.data`."""
    data = result.get("returnData") or "0x"
    if data == "0x" and isinstance(result.get("error"), dict):
        data = result["error"].get("data") or "0x"
    return parse_bytes(data, "returnData")


def _log(entry: dict[str, Any]) -> Log:
    return Log(
        parse_bytes(entry["address"], "address"),
        tuple(parse_hash(topic, "topic") for topic in entry["topics"]),
        parse_bytes(entry["data"], "data"),
    )
