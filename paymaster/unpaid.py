"""What guaranteeing an operation cost the service, from the events of the transaction that included it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from contracts.token_paymaster import CREDITED_GUARANTEE, GUARANTEE_UNPAID, SPONSORED_IN_TOKENS
from contracts.types import Address, Hash32, Wei, parse_bytes, parse_hash


def unpaid_wei(
    logs: Sequence[Mapping[str, Any]], user_op_hash: Hash32, paymaster: Address, guarantor: Address, cost_wei: Wei
) -> Wei:
    """`cost_wei` if `guarantor` advanced the operation and its sender did not pay all of it back, else nothing.

    A guarantee without the event that ends it was lost too: `postOp` itself failed. Part of it lost counts as all of it.
    Raises InvalidFields for logs that are none.
    """
    ours = [
        [parse_hash(topic, "topic") for topic in log["topics"]]
        for log in logs
        if parse_bytes(log["address"], "address") == paymaster
    ]
    if [CREDITED_GUARANTEE.topic, user_op_hash, bytes(12) + guarantor] not in ours:
        return 0
    ends = [i for i, topics in enumerate(ours) if topics[:2] == [SPONSORED_IN_TOKENS.topic, user_op_hash]]
    paid_back = bool(ends) and ours[ends[0] - 1][0] != GUARANTEE_UNPAID.topic
    return 0 if paid_back else cost_wei
