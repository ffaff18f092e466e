"""What a bundle brought and cost."""

from __future__ import annotations

from typing import Any

from bundler.economics import Economics, economics_of
from contracts.entrypoint import USER_OPERATION_EVENT, V08
from contracts.types import to_hex


def event(cost_wei: int, address: bytes = V08.address) -> dict[str, Any]:
    words = (7, 1, cost_wei, 90_000)
    topics = [USER_OPERATION_EVENT.topic, *(bytes([n]) * 32 for n in (1, 0, 0))]
    return {
        "address": to_hex(address),
        "topics": [to_hex(topic) for topic in topics],
        "data": to_hex(b"".join(word.to_bytes(32) for word in words)),
    }


def test_revenue_is_what_the_operations_of_this_entry_point_paid() -> None:
    other = event(5_000, b"\x01" * 20)
    receipt = {"gasUsed": hex(100), "effectiveGasPrice": hex(7), "logs": [event(300), other, event(900)]}
    assert economics_of(receipt, V08.address) == Economics(100, 700, 1_200)


def test_data_on_an_op_stack_rollup_cost_beside_gas() -> None:
    receipt = {"gasUsed": hex(100), "effectiveGasPrice": hex(7), "l1Fee": hex(50), "logs": []}
    assert economics_of(receipt, V08.address) == Economics(100, 750, 0)
