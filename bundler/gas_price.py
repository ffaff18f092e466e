"""What to offer a gas: three levels from the tips of the last blocks, never below what this bundler takes."""

from __future__ import annotations

from bundler.chain import read_head
from bundler.fees import Pricing
from bundler.settings import Settings
from contracts.errors import RpcError
from contracts.rpc import RpcClient

BLOCKS = 20
LEVELS = (("slow", 25, 125), ("standard", 50, 150), ("fast", 90, 200))
"""Name, percentile of the tips paid, and the share of the base fee (percent) that the offer survives."""
_LEAST_TIP_WEI = 1


async def gas_prices(rpc: RpcClient, settings: Settings, pricing: Pricing) -> dict[str, dict[str, str]]:
    """`maxFeePerGas` and `maxPriorityFeePerGas` (wei, hex) by level. Raises NodeError."""
    head = await read_head(rpc)
    tips = await _tips(rpc)
    (shared,) = await pricing.charges(settings.entry_points[0], [[]], head)
    least_wei = max(settings.min_priority_fee_wei, shared.tip_wei, _LEAST_TIP_WEI)
    found = {}
    for (name, _, share), tip_wei in zip(LEVELS, tips, strict=True):
        priority_wei = max(tip_wei, least_wei)
        most_wei = -(-head.base_fee_wei * share // 100) + priority_wei
        found[name] = {"maxFeePerGas": hex(most_wei), "maxPriorityFeePerGas": hex(priority_wei)}
    return found


async def _tips(rpc: RpcClient) -> list[int]:
    """Median over the last blocks of each level's percentile; the node's own suggestion where it keeps no history."""
    try:
        history = await rpc.call("eth_feeHistory", hex(BLOCKS), "latest", [percentile for _, percentile, _ in LEVELS])
        rows = [[int(tip, 16) for tip in row] for row in history.get("reward") or []]
        used = [row for row, share in zip(rows, history.get("gasUsedRatio", []), strict=False) if share]
        if used:
            return [sorted(row[i] for row in used)[len(used) // 2] for i in range(len(LEVELS))]
    except (RpcError, AttributeError, TypeError, ValueError, IndexError):
        pass  # no history, or none that can be read: the node's own suggestion does
    try:
        own = int(await rpc.call("eth_maxPriorityFeePerGas"), 16)
    except (RpcError, TypeError, ValueError):
        own = 0
    return [own, own, own * 3 // 2]
