"""The chain as the bundler sees it between two polls."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from contracts.errors import NodeUnreachable
from contracts.rpc import RpcClient
from contracts.types import Hash32, Wei, parse_hash


@dataclass(frozen=True, slots=True)
class Head:
    """A block header's part that matters here."""

    number: int
    hash: Hash32
    timestamp_s: int
    base_fee_wei: Wei

    @classmethod
    def from_rpc(cls, block: Mapping[str, Any] | None) -> Head:
        """Raises NodeUnreachable if the node has no such block (it is still starting)."""
        if block is None:
            raise NodeUnreachable("the node has no latest block yet; is it still starting?")
        return cls(
            number=int(block["number"], 16),
            hash=parse_hash(block["hash"], "block hash"),
            timestamp_s=int(block["timestamp"], 16),
            base_fee_wei=int(block.get("baseFeePerGas") or "0x0", 16),
        )


async def read_head(rpc: RpcClient) -> Head:
    """The latest block."""
    return Head.from_rpc(await rpc.block())
