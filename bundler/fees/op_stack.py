"""OP-stack chains: an L1 data fee by the size of the transaction, in wei, beside the gas.

The parameters are read from the chain's GasPriceOracle once a block; the fee is then computed here, to the wei what its `getL1Fee`
answers.   Source: OP stack specifications, "L1-Cost Fees" (Bedrock, Ecotone, Fjord).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from bundler.chain import Head
from bundler.fees.fastlz import compressed_length
from bundler.fees.model import BundleData, DataCharge, FeeDataError
from bundler.gas import calldata_tokens
from contracts.abi import Function
from contracts.errors import InvalidFields, RpcError
from contracts.rpc import RpcClient
from contracts.types import Address, Hash32, Wei, checksum, parse_bytes, to_hex

Upgrade = Literal["bedrock", "ecotone", "fjord"]

GAS_PRICE_ORACLE: Address = bytes.fromhex("420000000000000000000000000000000000000f")
_SIGNATURE_BYTES = 68
"""What a signature adds to an unsigned transaction, all bytes counted as non-zero."""
_MILLION = 10**6
_INTERCEPT = -42_585_600
_PER_FASTLZ_BYTE = 836_500
_LEAST_SIZE = 100
"""Regression of the size under Brotli on the size under FastLZ, in millionths of a byte; never below 100 bytes.   Source: Fjord."""

_IS_ECOTONE = Function.parse("isEcotone()(bool)")
_IS_FJORD = Function.parse("isFjord()(bool)")
_L1_BASE_FEE = Function.parse("l1BaseFee()(uint256)")
_BEDROCK = (Function.parse("overhead()(uint256)"), Function.parse("scalar()(uint256)"))
_ECOTONE = (
    Function.parse("baseFeeScalar()(uint32)"),
    Function.parse("blobBaseFee()(uint256)"),
    Function.parse("blobBaseFeeScalar()(uint32)"),
)


@dataclass(frozen=True, slots=True)
class L1Prices:
    """What the chain says of L1 at one block. Fees in wei; scalars in millionths; `overhead_gas` in L1 gas (Bedrock)."""

    upgrade: Upgrade
    base_fee_wei: Wei
    overhead_gas: int = 0
    scalar: int = 0
    base_fee_scalar: int = 0
    blob_base_fee_wei: Wei = 0
    blob_base_fee_scalar: int = 0

    def l1_fee_wei(self, unsigned: bytes) -> Wei:
        """The data fee of a transaction whose encoding without signature is `unsigned`. Rounds down, as the contract does.

        Bedrock: (calldata gas + overhead) x base fee x scalar / 1e6. Ecotone: calldata gas / 16 x the blend of both base fees / 1e6.
        Fjord: estimated compressed size x that blend / 1e12.
        """
        blend = 16 * self.base_fee_scalar * self.base_fee_wei + self.blob_base_fee_scalar * self.blob_base_fee_wei
        if self.upgrade == "fjord":
            size = _INTERCEPT + _PER_FASTLZ_BYTE * (compressed_length(unsigned) + _SIGNATURE_BYTES)
            return max(size, _LEAST_SIZE * _MILLION) * blend // _MILLION**2
        gas = 4 * calldata_tokens(unsigned) + 16 * _SIGNATURE_BYTES
        if self.upgrade == "ecotone":
            return gas * blend // (16 * _MILLION)
        return (gas + self.overhead_gas) * self.base_fee_wei * self.scalar // _MILLION


async def read_prices(rpc: RpcClient, block_hash: Hash32 | None = None) -> L1Prices:
    """What GasPriceOracle says on one block, the latest if None. Its own flags say which upgrade is in force.

    Raises FeeDataError if there is no such contract or an answer is none, NodeUnreachable.
    """

    # Two rounds of questions must not see two blocks.   Source: EIP-1898.
    block = "latest" if block_hash is None else {"blockHash": to_hex(block_hash)}

    async def ask(*functions: Function) -> list[int]:
        calls = [("eth_call", ({"to": to_hex(GAS_PRICE_ORACLE), "data": to_hex(f.encode())}, block)) for f in functions]
        try:
            answers = await rpc.batch(calls)
            return [f.decode(parse_bytes(a, "answer"))[0] for f, a in zip(functions, answers, strict=True)]
        except (RpcError, InvalidFields) as error:
            names = ", ".join(f.name for f in functions)
            raise FeeDataError(
                f"the OP stack's GasPriceOracle at {checksum(GAS_PRICE_ORACLE)} did not answer {names}: {error.message}. "
                "If this is no OP-stack chain, set `fee_model` to what it is"
            ) from error

    base_fee_wei, is_fjord = await ask(_L1_BASE_FEE, _IS_FJORD)
    (is_ecotone,) = (True,) if is_fjord else await ask(_IS_ECOTONE)
    if base_fee_wei <= 0:
        raise FeeDataError(
            f"the OP stack's GasPriceOracle at {checksum(GAS_PRICE_ORACLE)} says that L1's base fee is 0: the chain does not keep "
            "its L1 prices. If data are free there, set `fee_model` to l1"
        )
    if not is_ecotone:
        overhead_gas, scalar = await ask(*_BEDROCK)
        return L1Prices("bedrock", base_fee_wei, overhead_gas, scalar)
    base_fee_scalar, blob_base_fee_wei, blob_base_fee_scalar = await ask(*_ECOTONE)
    return L1Prices(
        "fjord" if is_fjord else "ecotone",
        base_fee_wei,
        base_fee_scalar=base_fee_scalar,
        blob_base_fee_wei=blob_base_fee_wei,
        blob_base_fee_scalar=blob_base_fee_scalar,
    )


class OpStack:
    """Reads the prices once a block. The operator fee of Isthmus (0 on the public chains) is not counted."""

    name = "op-stack"
    charges_data = True

    def __init__(self) -> None:
        self._prices: tuple[Hash32, L1Prices] | None = None

    async def charges(self, rpc: RpcClient, bundles: Sequence[BundleData], head: Head) -> list[DataCharge]:
        if self._prices is None or self._prices[0] != head.hash:
            self._prices = (head.hash, await read_prices(rpc, head.hash))
        prices = self._prices[1]
        return [DataCharge(prices.l1_fee_wei(bundle.unsigned())) for bundle in bundles]
