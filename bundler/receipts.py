"""One operation's share of its bundle's receipt.   Source: ERC-7769 eth_getUserOperationReceipt."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from contracts.entrypoint import (
    BEFORE_EXECUTION,
    POST_OP_REVERT_REASON,
    USER_OPERATION_EVENT,
    USER_OPERATION_REVERT_REASON,
    EntryPoint,
)
from contracts.types import Hash32, checksum, parse_bytes, to_hex


def _topics(log: Mapping[str, Any]) -> list[bytes]:
    return [bytes.fromhex(topic[2:]) for topic in log["topics"]]


def own_logs(
    logs: Sequence[Mapping[str, Any]], entry_point: EntryPoint, op_hash: Hash32
) -> tuple[Mapping[str, Any], list[Mapping[str, Any]]] | None:
    """The operation's UserOperationEvent, and the logs of its execution; None if the transaction does not carry it.

    Execution's logs lie between BeforeExecution, or the previous operation's event, and the own event.
    """
    address = to_hex(entry_point.address)
    start = 0
    for position, log in enumerate(logs):
        topics = log["topics"]
        if log["address"].lower() != address or not topics:
            continue
        if topics[0] == to_hex(BEFORE_EXECUTION.topic):
            start = position + 1
        elif topics[0] == to_hex(USER_OPERATION_EVENT.topic):
            if topics[1] == to_hex(op_hash):
                return log, list(logs[start:position])
            start = position + 1
    return None


def operation_receipt(receipt: Mapping[str, Any], entry_point: EntryPoint, op_hash: Hash32) -> dict[str, Any] | None:
    """ERC-7769's answer from the transaction's receipt; None if it does not carry the operation.

    `reason` is the revert data that the entry point logged for a failed execution or postOp.
    """
    found = own_logs(receipt["logs"], entry_point, op_hash)
    if found is None:
        return None
    event, logs = found
    _, sender, paymaster, nonce, success, cost_wei, gas_used = USER_OPERATION_EVENT.decode(
        _topics(event), parse_bytes(event["data"], "event data")
    )
    answer: dict[str, Any] = {
        "userOpHash": to_hex(op_hash),
        "entryPoint": checksum(entry_point.address),
        "sender": checksum(sender),
        "nonce": hex(nonce),
        "paymaster": checksum(paymaster),
        "actualGasCost": hex(cost_wei),
        "actualGasUsed": hex(gas_used),
        "success": success,
        "logs": logs,
        "receipt": receipt,
    }
    for log in logs:
        for reason_event in (USER_OPERATION_REVERT_REASON, POST_OP_REVERT_REASON):
            if log["address"].lower() == to_hex(entry_point.address) and log["topics"][:2] == [
                to_hex(reason_event.topic),
                to_hex(op_hash),
            ]:
                values = reason_event.decode(_topics(log), parse_bytes(log["data"], "event data"))
                answer["reason"] = to_hex(values[3])
    return answer
