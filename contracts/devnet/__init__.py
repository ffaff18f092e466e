"""A local chain with the real protocols on it, and a market driver that replays real bars through real trades.

`async with Devnet.start() as net:` gives `net.rpc_url`, `net.addresses`, `net.accounts` and `net.market`.
"""

from contracts.devnet.accounts import Accounts, devnet_key
from contracts.devnet.addresses import Addresses
from contracts.devnet.bars import Bar, read_bars, shipped
from contracts.devnet.devnet import Devnet
from contracts.devnet.market import BarReport, Leg, Liquidation, Market, Moment, Phase

__all__ = [
    "Accounts",
    "Addresses",
    "Bar",
    "BarReport",
    "Devnet",
    "Leg",
    "Liquidation",
    "Market",
    "Moment",
    "Phase",
    "devnet_key",
    "read_bars",
    "shipped",
]
