"""Chainlink-style feeds that a replay can drive: ETH/USD, USDC/USD and the L2 sequencer's up-time.

One ETH/USD feed serves Aave's oracle, the perp's price feed and our OracleGuard.
"""

from __future__ import annotations

from contracts.abi import Function
from contracts.artifacts import artifact
from contracts.devnet.chain import Builder
from contracts.types import Address

DECIMALS = 8
UNIT = 10**DECIMALS
"""One US dollar in a price feed."""
PUSH = Function.parse("push(int256,uint256)")
LATEST_ROUND_DATA = Function.parse("latestRoundData()(uint80,int256,uint256,uint256,uint80)")
"""Round, answer, start (s), update (s), round."""
SEQUENCER_UP = 0
SEQUENCER_DOWN = 1


async def deploy_feed(build: Builder, decimals: int, description: str, answer: int) -> Address:
    """A ReplayFeed with its first round. The feeder owns it: only the market driver pushes to it."""
    feeder = build.accounts.feeder
    code = artifact("ReplayFeed").bytecode
    feed = await build.deploy(code, ["address", "uint8", "string"], [feeder.address, decimals, description])
    await push(build, feed, answer)
    return feed


async def push(build: Builder, feed: Address, answer: int) -> None:
    """A new round, updated now (the time of the latest block)."""
    await build.transact(feed, PUSH.encode(answer, build.now_s), sender=build.accounts.feeder)
