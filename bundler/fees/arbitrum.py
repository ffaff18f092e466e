"""Arbitrum: the L1 part of a transaction is taken as gas at the chain's own gas price, inside the transaction's gas limit.

The node says how much gas that is (`NodeInterface`, which exists only in its eth_call); how well data compress is its sequencer's
measure, so it is asked for every transaction.   Source: Arbitrum documentation, "Gas and fees", precompiles reference.
"""

from __future__ import annotations

from collections.abc import Sequence

from bundler.chain import Head
from bundler.fees.model import BundleData, DataCharge, FeeDataError
from contracts.abi import Function
from contracts.errors import InvalidFields, RpcError
from contracts.rpc import RpcClient
from contracts.types import Address, checksum, parse_bytes, to_hex

NODE_INTERFACE: Address = (0xC8).to_bytes(20)
ARB_GAS_INFO: Address = (0x6C).to_bytes(20)
L1_COMPONENT = Function.parse("gasEstimateL1Component(address,bool,bytes)(uint64,uint256,uint256)")
"""Gas for L1, the chain's base fee, its estimate of L1's base fee (wei)."""
MINIMUM_GAS_PRICE = Function.parse("getMinimumGasPrice()(uint256)")


class Arbitrum:
    """Asks NodeInterface. A base fee below ArbGasInfo's minimum (nodes run eth_call at a base fee of 0) is priced at the minimum."""

    name = "arbitrum"
    charges_data = True

    async def charges(self, rpc: RpcClient, bundles: Sequence[BundleData], head: Head) -> list[DataCharge]:
        def call(to: Address, data: bytes) -> tuple[str, tuple[object, ...]]:
            return "eth_call", ({"to": to_hex(to), "data": to_hex(data)}, "latest")

        asked = [call(NODE_INTERFACE, L1_COMPONENT.encode(b.to, False, b.data)) for b in bundles]
        try:
            answers = await rpc.batch([call(ARB_GAS_INFO, MINIMUM_GAS_PRICE.encode()), *asked])
            (minimum_wei,) = MINIMUM_GAS_PRICE.decode(parse_bytes(answers[0], "answer"))
            components = [L1_COMPONENT.decode(parse_bytes(answer, "answer")) for answer in answers[1:]]
        except (RpcError, InvalidFields) as error:
            raise FeeDataError(
                f"the node did not say what data cost on Arbitrum (NodeInterface {checksum(NODE_INTERFACE)}, ArbGasInfo "
                f"{checksum(ARB_GAS_INFO)}): {error.message}. If this is no Arbitrum chain, set `fee_model` to what it is"
            ) from error
        charges = []
        for gas, base_fee_wei, l1_base_fee_wei in components:
            price_wei = max(base_fee_wei, minimum_wei, head.base_fee_wei)
            if price_wei == 0 or (gas == 0 and l1_base_fee_wei > 0):
                raise FeeDataError(
                    f"NodeInterface says nonsense: {gas} gas for data at L1's base fee {l1_base_fee_wei} wei and a gas price of "
                    f"{price_wei} wei; use a full Nitro node"
                )
            charges.append(DataCharge(gas * price_wei, gas))
        return charges
