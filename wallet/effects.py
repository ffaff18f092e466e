"""What a simulated operation did, however it was simulated, and the block it was pinned to."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from contracts.errors import NodeError
from contracts.rpc import RpcClient
from contracts.types import Address, Hash32, parse_bytes, parse_hash

GAS = 15_000_000
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


async def still_there(rpc: RpcClient, head: dict[str, Any]) -> None:
    """Raises MovedHead when the block is no longer the chain's at its height."""
    now = await rpc.call("eth_getBlockByNumber", head["number"], False)
    if not isinstance(now, dict) or now.get("hash") != head["hash"]:
        raise MovedHead(
            f"block {int(head['number'], 16)} is no longer {head['hash']}: the chain was reorganised while it was read; try again"
        )


def pinned(head: dict[str, Any]) -> dict[str, Any]:
    """The block of a header as nodes take it, and no other of its height."""
    return {"blockHash": head["hash"], "requireCanonical": True}


def next_block(head: dict[str, Any], gas_limit: int) -> dict[str, str]:
    """Block overrides of the simulated block: one second younger than `head`, and free of charge."""
    return {
        "number": hex(int(head["number"], 16) + 1),
        "time": hex(int(head["timestamp"], 16) + 1),
        "baseFeePerGas": "0x0",
        "gasLimit": hex(gas_limit),
    }


def log_of(entry: dict[str, Any]) -> Log:
    """An event as nodes write it. Raises InvalidFields."""
    return Log(
        parse_bytes(entry["address"], "address"),
        tuple(parse_hash(topic, "topic") for topic in entry["topics"]),
        parse_bytes(entry["data"], "data"),
    )
