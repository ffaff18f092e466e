"""Whether a block left a transaction out although others would have put it in. Pure; the judgement is one of likelihood.

A block speaks against who made it when it had room for the transaction, the transaction could pay its base fee, and something in the block
tips less. It is no proof: the block's builder may not have had the transaction, and a relay's builders make only some of the blocks.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from bundler.store import Attempt
from contracts.types import Wei

_PRICED = frozenset({"0x0", "0x1", "0x2", "0x3", "0x4"})
"""Transaction types that bid for their place: rollups' deposits and system transactions do not."""


def _quantity(value: object) -> int:
    return int(value, 16) if isinstance(value, str) else 0


def tip_paid_wei(transaction: Mapping[str, Any], base_fee_wei: Wei) -> Wei | None:
    """Priority fee per gas of a transaction in a block with this base fee; None of one that bids nothing by its kind."""
    if transaction.get("type", "0x0") not in _PRICED:
        return None
    price_wei, most_wei = transaction.get("gasPrice"), transaction.get("maxFeePerGas")
    if most_wei is None:
        return None if price_wei is None else _quantity(price_wei) - base_fee_wei
    tip_wei = _quantity(transaction.get("maxPriorityFeePerGas"))
    return min(tip_wei, _quantity(most_wei) - base_fee_wei)


def passed_over(block: Mapping[str, Any], attempt: Attempt, gas_limit: int) -> str | None:
    """Return the hash of a transaction in `block` that tips less than `attempt` (of `gas_limit`), which had room in it and is not there.

    `block` with whole transactions, as `eth_getBlockByNumber(n, true)` gives it. None if nothing speaks against the block's builder; also
    when the sender's own earlier nonce is the cheaper one.
    """
    base_fee_wei = _quantity(block.get("baseFeePerGas"))
    room = _quantity(block.get("gasLimit")) - _quantity(block.get("gasUsed"))
    tip_wei = min(attempt.priority_fee_wei, attempt.max_fee_wei - base_fee_wei)
    if room < gas_limit or tip_wei < 0:
        return None
    own = "0x" + attempt.executor.hex()
    for transaction in block.get("transactions") or ():
        if not isinstance(transaction, Mapping) or str(transaction.get("from", "")).lower() == own:
            continue
        paid_wei = tip_paid_wei(transaction, base_fee_wei)
        if paid_wei is not None and paid_wei < tip_wei:
            return str(transaction.get("hash"))
    return None
