"""Adapters against the real venues: rounds of plain reads on one block, as the wallet makes them around an operation."""

from __future__ import annotations

from contracts import bindings as b
from contracts.devnet import Devnet
from contracts.types import Address
from policies.venues import Adapter, Snapshot


async def answers_to(net: Devnet, adapter: Adapter, account: Address) -> list[bytes | None]:
    """All rounds of `adapter` on the latest block."""
    block = hex(await net.rpc.block_number())
    found: list[bytes | None] = []
    reads = adapter.reads(account)
    while reads:
        request = b.encode_multicall(reads)
        found += b.decode_multicall(await net.rpc.eth_call(net.addresses.multicall3, request, block=block))
        reads = adapter.more(account, found)
    return found


async def look(net: Devnet, adapter: Adapter, account: Address) -> Snapshot:
    return adapter.parse(await answers_to(net, adapter, account))
