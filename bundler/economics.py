"""What a bundle transaction brought and cost, from its receipt."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from contracts.entrypoint import USER_OPERATION_EVENT
from contracts.types import Address, Wei, parse_bytes, to_hex


@dataclass(frozen=True, slots=True)
class Economics:
    """`revenue_wei` is what its operations paid, `cost_wei` what the executor paid for gas and, on rollups, data. Profit: the difference."""

    gas_used: int
    cost_wei: Wei
    revenue_wei: Wei


def economics_of(receipt: Mapping[str, Any], entry_point: Address) -> Economics:
    """Exact where the chain charges by gas, and by `l1Fee` beside it (OP stack); other charges lie inside gas.

    A receipt without `effectiveGasPrice` (legacy nodes) counts no fee for gas.
    """
    gas_used = int(receipt["gasUsed"], 16)
    price_wei = int(receipt.get("effectiveGasPrice") or "0x0", 16)
    data_wei = int(receipt.get("l1Fee") or "0x0", 16)
    address, topic, revenue_wei = to_hex(entry_point), to_hex(USER_OPERATION_EVENT.topic), 0
    for log in receipt.get("logs") or ():
        if log["address"].lower() == address and log["topics"] and log["topics"][0] == topic:
            topics = [bytes.fromhex(one[2:]) for one in log["topics"]]
            revenue_wei += USER_OPERATION_EVENT.decode(topics, parse_bytes(log["data"], "event data"))[5]
    return Economics(gas_used, gas_used * price_wei + data_wei, revenue_wei)
