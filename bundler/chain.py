"""The chain as the bundler sees it between two polls."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from contracts.eip7702 import delegate_of
from contracts.errors import NodeError, NodeUnreachable
from contracts.rpc import RpcClient
from contracts.types import Address, Hash32, Wei, parse_hash, parse_quantity
from contracts.userop import UserOperation


class WrongChain(NodeError):
    """The node's chain id is not the one that the bundler started with. Nothing it says is acted on."""


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


async def read_head_of(rpc: RpcClient, chain_id: int) -> Head:
    """The latest block of this chain.

    Raises WrongChain if the node serves another one now: a load balancer that sends requests to a wrong back end would have
    every transaction look lost and every operation invalid.
    """
    block, answer = await rpc.batch([("eth_getBlockByNumber", ("latest", False)), ("eth_chainId", ())])
    found = parse_quantity(answer, "eth_chainId")
    if found != chain_id:
        raise WrongChain(
            f"the node serves chain {found} now, this bundler works on chain {chain_id}: check `rpc_url` and what is behind it"
        )
    return Head.from_rpc(block)


async def read_delegate(rpc: RpcClient, op: UserOperation) -> Address | None:
    """To whom the sender's code delegates on chain, for an operation with the EIP-7702 marker; None for any other."""
    return delegate_of(await rpc.get_code(op.sender)) if op.is_delegated else None
