"""Validation on the real entry point: a traced `handleOps`, its FailedOp as a typed error, validity read from return data.

No simulation contract is needed. The entry point reports every failure of validation by reverting the bundle, and what
validation answered stands in the call trace.   Source: ERC-4337, ERC-7562, ERC-7769.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from bundler.chain import Head
from bundler.gas import validation_gas_limit
from bundler.mempool import FOREVER
from bundler.reverts import reason
from contracts.abi import Function
from contracts.entrypoint import EntryPoint, FailedOp, decode_failed_op
from contracts.entrypoint.base import PACKED_TYPE
from contracts.errors import (
    BadSignature,
    NodeError,
    OperationRejected,
    PaymasterDepositTooLow,
    RejectedByEntryPoint,
    RejectedByPaymaster,
    RpcError,
    TimeRange,
    UnsupportedAggregator,
)
from contracts.rpc import RpcClient
from contracts.types import Address, Wei, checksum, to_hex
from contracts.userop import UserOperation

VALIDATE_USER_OP = Function.parse(f"validateUserOp({PACKED_TYPE},bytes32,uint256)(uint256)")
VALIDATE_PAYMASTER_USER_OP = Function.parse(f"validatePaymasterUserOp({PACKED_TYPE},bytes32,uint256)(bytes,uint256)")
SIG_VALIDATION_FAILED = 1
_OUT_OF_GAS = "AA95"


@dataclass(frozen=True, slots=True)
class ValidationData:
    """What an account or a paymaster answered. Both ends of the window are inclusive, in seconds of chain time."""

    aggregator: int = 0
    """0 valid, 1 signature failed, else an aggregator's address."""
    valid_after_s: int = 0
    valid_until_s: int = FOREVER

    @classmethod
    def parse(cls, word: int) -> ValidationData:
        """aggregator (160 bits) | validUntil (48, 0 is forever) | validAfter (48), lowest first."""
        return cls(word & (2**160 - 1), word >> 208, (word >> 160 & FOREVER) or FOREVER)

    def both(self, other: ValidationData) -> ValidationData:
        """The intersection of two windows."""
        return ValidationData(
            self.aggregator or other.aggregator,
            max(self.valid_after_s, other.valid_after_s),
            min(self.valid_until_s, other.valid_until_s),
        )


@dataclass(frozen=True, slots=True)
class Validation:
    """An operation that the entry point accepts at `head`."""

    head: Head
    data: ValidationData


class PredecessorFailed(OperationRejected):
    """An earlier pending operation of the sender fails now, so the new one cannot be judged behind it."""

    def __init__(self, failed: FailedOp) -> None:
        super().__init__(f"an earlier pending operation of this sender does not validate any more: {failed.reason}")
        self.failed = failed


def rejection(failed: FailedOp, op: UserOperation, data: ValidationData | None = None) -> OperationRejected:
    """The typed error for the entry point's reason, with the ERC-7769 code that its AAxx means."""
    code = failed.reason[:4]
    message = failed.reason[:200]
    if failed.inner:
        message += f": {reason(failed.inner)}"
    detail = {"reason": failed.reason[:200], "inner": to_hex(failed.inner[:1024])}
    if code == "AA24" and data is not None and data.aggregator > SIG_VALIDATION_FAILED:
        return UnsupportedAggregator(
            f"account {checksum(op.sender)} names signature aggregator {checksum(data.aggregator.to_bytes(20))}; "
            "aggregators are not supported",
            data=detail,
        )
    if code in ("AA22", "AA32") and data is not None:
        message += f" (valid from {data.valid_after_s} to {data.valid_until_s}, Unix time)"
    kinds: dict[str, type[OperationRejected]] = {
        "AA24": BadSignature,
        "AA34": BadSignature,
        "AA22": TimeRange,
        "AA32": TimeRange,
        "AA31": PaymasterDepositTooLow,
    }
    kind = kinds.get(code, RejectedByPaymaster if code.startswith("AA3") else RejectedByEntryPoint)
    return kind(message, rule=code if code.startswith("AA") else None, data=detail)


def handle_ops_call(
    entry_point: EntryPoint, ops: Sequence[UserOperation], executor: Address, beneficiary: Address, gas: int
) -> dict[str, str]:
    """The transaction of a bundle, as eth_call and debug_traceCall take it."""
    return {
        "from": to_hex(executor),
        "to": to_hex(entry_point.address),
        "gas": hex(gas),
        "data": to_hex(entry_point.encode_handle_ops(ops, beneficiary)),
    }


async def trace(
    rpc: RpcClient, call: Mapping[str, str], *, gas_price_wei: Wei | None = None
) -> tuple[Head, dict[str, Any]]:
    """The call tree of `call` on the latest block, and that block's header.

    Raises NodeError, saying what is missing, if the node cannot trace.
    """
    request = dict(call)
    if gas_price_wei is not None:
        request["gasPrice"] = hex(gas_price_wei)
    try:
        block, frame = await rpc.batch(
            [
                ("eth_getBlockByNumber", ("latest", False)),
                ("debug_traceCall", (request, "latest", {"tracer": "callTracer"})),
            ]
        )
    except RpcError as error:
        raise NodeError(
            f"the node did not trace a bundle: {error.message}. The bundler needs debug_traceCall with callTracer",
            data=error.data,
        ) from error
    if not isinstance(frame, dict):
        raise NodeError(f"the node's trace is no call frame: {frame!r:.100}")
    return Head.from_rpc(block), frame


def output(frame: Mapping[str, Any]) -> bytes:
    """What a call returned or reverted with."""
    return bytes.fromhex((frame.get("output") or "0x")[2:])


def answer_of(
    frame: Mapping[str, Any], entry_point: EntryPoint, address: Address, function: Function, word: int, index: int
) -> ValidationData:
    """What the `index`-th of the entry point's own calls of `function` on `address` answered, in 32-byte word `word`.

    A call that failed or answered too little counts as no answer: the entry point refuses such an operation itself.
    """
    selector = to_hex(function.selector)
    calls = [
        call
        for call in frame.get("calls") or ()
        if call.get("to") == to_hex(address)
        and call.get("from") == to_hex(entry_point.address)
        and str(call.get("input", "")).startswith(selector)
    ]
    if index < len(calls) and not calls[index].get("error"):
        answer = output(calls[index])[32 * word : 32 * word + 32]
        if len(answer) == 32:
            return ValidationData.parse(int.from_bytes(answer))
    return ValidationData()


async def validate(
    rpc: RpcClient,
    entry_point: EntryPoint,
    op: UserOperation,
    *,
    executor: Address,
    prefix: Sequence[UserOperation] = (),
    min_validity_s: int = 0,
) -> Validation:
    """Return what validation of `op` answers on the latest block after `prefix` (its sender's earlier operations) has run.

    An operation whose *execution* reverts is valid. Raises an OperationRejected (BadSignature, TimeRange, RejectedByPaymaster,
    PaymasterDepositTooLow, UnsupportedAggregator, RejectedByEntryPoint), PredecessorFailed, NodeError.
    """
    gas = validation_gas_limit(entry_point, prefix, op)
    head, frame = await trace(rpc, handle_ops_call(entry_point, [*prefix, op], executor, executor, gas))
    calls_before = sum(earlier.sender == op.sender for earlier in prefix)
    data = answer_of(frame, entry_point, op.sender, VALIDATE_USER_OP, 0, calls_before)
    if op.paymaster is not None:
        calls_before = sum(earlier.paymaster == op.paymaster for earlier in prefix)
        data = data.both(answer_of(frame, entry_point, op.paymaster, VALIDATE_PAYMASTER_USER_OP, 1, calls_before))
    if frame.get("error"):
        failed = decode_failed_op(output(frame))
        if failed is None:
            raise RejectedByEntryPoint(
                f"handleOps fails outside any operation: {frame['error']}, {reason(output(frame))}",
                data=to_hex(output(frame)),
            )
        if failed.op_index < len(prefix):
            raise PredecessorFailed(failed)
        if not failed.reason.startswith(_OUT_OF_GAS):
            raise rejection(failed, op, data)
    now_s = head.timestamp_s
    if data.valid_until_s < now_s + min_validity_s:
        raise TimeRange(
            f"the operation expires too soon: valid until {data.valid_until_s}, the latest block is at {now_s} and "
            f"{min_validity_s} s must remain; sign it with a later validUntil",
            rule="AA22",
        )
    return Validation(head, data)
