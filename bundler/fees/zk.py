"""zk-rollups, whose nodes say what data cost: Scroll, Linea, ZKsync.

The node is asked for every transaction. A bundle cannot be run with signatures that are not there yet: Linea and ZKsync are then asked
about the same data sent to the executor itself, where nothing runs.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from bundler.chain import Head
from bundler.fees.model import BundleData, DataCharge, FeeDataError
from contracts.abi import Function
from contracts.errors import InvalidFields, RpcError
from contracts.rpc import RpcClient
from contracts.types import Address, checksum, parse_bytes, parse_quantity, to_hex

SCROLL_ORACLE: Address = bytes.fromhex("5300000000000000000000000000000000000002")
GET_L1_FEE = Function.parse("getL1Fee(bytes)(uint256)")


def _quantities(answer: object, names: Sequence[str], method: str) -> list[int]:
    """Fields of a JSON answer as integers. Raises FeeDataError."""
    if not isinstance(answer, Mapping):
        raise FeeDataError(
            f"the node answers {method} with {answer!r:.100}; an object with {', '.join(names)} is needed"
        )
    try:
        return [parse_quantity(answer.get(name), name, bits=128) for name in names]
    except InvalidFields as error:
        raise FeeDataError(f"the node answers {method} with nonsense: {error.message}") from error


async def _ask(rpc: RpcClient, method: str, requests: Sequence[tuple[object, ...]], what: str) -> list[Any]:
    try:
        return await rpc.batch([(method, request) for request in requests])
    except RpcError as error:
        raise FeeDataError(
            f"the node did not say what data cost on {what} ({method}): {error.message}. If this is no {what} chain, set `fee_model` "
            "to what it is"
        ) from error


class Scroll:
    """`L1GasPriceOracle.getL1Fee` of the unsigned transaction: wei beside the gas.   Source: Scroll documentation, "Transaction Fees"."""

    name = "scroll"
    charges_data = True

    async def charges(self, rpc: RpcClient, bundles: Sequence[BundleData], head: Head) -> list[DataCharge]:  # noqa: ARG002 (the port's)
        requests = [
            ({"to": to_hex(SCROLL_ORACLE), "data": to_hex(GET_L1_FEE.encode(b.unsigned()))}, "latest") for b in bundles
        ]
        charges = []
        for answer in await _ask(rpc, "eth_call", requests, "Scroll"):
            try:
                (fee_wei,) = GET_L1_FEE.decode(parse_bytes(answer, "answer"))
            except InvalidFields as error:
                raise FeeDataError(
                    f"there is no L1GasPriceOracle at {checksum(SCROLL_ORACLE)}: {error.message}. If this is no Scroll chain, set "
                    "`fee_model` to what it is"
                ) from error
            if fee_wei == 0:
                raise FeeDataError(
                    "Scroll's L1GasPriceOracle says that data cost nothing; the chain does not keep its L1 prices"
                )
            charges.append(DataCharge(fee_wei))
        return charges


def _inert(bundle: BundleData) -> dict[str, str]:
    """A transaction with the bundle's data in which nothing runs."""
    return {"from": to_hex(bundle.sender), "to": to_hex(bundle.sender), "data": to_hex(bundle.data), "value": "0x0"}


def _real(bundle: BundleData) -> dict[str, str]:
    return _inert(bundle) | {"to": to_hex(bundle.to)}


class Linea:
    """`linea_estimateGas`: data are paid for by a priority fee that rises with compressed size over gas.

    The fee is gas x that priority fee, an amount that hardly depends on the gas; the priority fee does, so that a bundle about to be
    sent is asked about as it is.
    Source: Linea documentation, "linea_estimateGas".
    """

    name = "linea"
    charges_data = True

    async def charges(self, rpc: RpcClient, bundles: Sequence[BundleData], head: Head) -> list[DataCharge]:  # noqa: ARG002 (the port's)
        method, charges = "linea_estimateGas", []
        for answer in await _ask(rpc, method, [(_real(b) if b.signed else _inert(b),) for b in bundles], "Linea"):
            gas, tip_wei = _quantities(answer, ("gasLimit", "priorityFeePerGas"), method)
            if gas < 21_000 or tip_wei == 0:
                raise FeeDataError(f"the node answers {method} with nonsense: gas {gas}, priority fee {tip_wei} wei")
            charges.append(DataCharge(gas * tip_wei, tip_wei=tip_wei))
        return charges


class ZkSync:
    """`zks_estimateFee`: data are paid for as gas, at a rate the node moves with L1 (gas per byte of pubdata).

    The charge is what the same data cost more than none.   Source: ZKsync documentation, "zks_estimateFee".
    """

    name = "zksync"
    charges_data = True

    async def charges(self, rpc: RpcClient, bundles: Sequence[BundleData], head: Head) -> list[DataCharge]:  # noqa: ARG002 (the port's)
        if not bundles:
            return []
        method = "zks_estimateFee"
        empty = _inert(bundles[0]) | {"data": "0x"}
        answers = await _ask(rpc, method, [(empty,), *((_inert(b),) for b in bundles)], "ZKsync")
        (bare_gas,) = _quantities(answers[0], ("gas_limit",), method)
        charges = []
        for answer in answers[1:]:
            gas, price_wei, per_byte = _quantities(
                answer, ("gas_limit", "max_fee_per_gas", "gas_per_pubdata_limit"), method
            )
            if gas < bare_gas or not price_wei or not per_byte:
                raise FeeDataError(
                    f"the node answers {method} with nonsense: gas {gas} ({bare_gas} without data), {price_wei} wei a gas, {per_byte} gas "
                    "a byte of pubdata"
                )
            charges.append(DataCharge((gas - bare_gas) * price_wei, gas - bare_gas))
        return charges
