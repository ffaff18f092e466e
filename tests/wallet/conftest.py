"""A trader on the shared devnet, for what needs no bundler: judging, simulating, freezing."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from contracts.devnet import Devnet
from contracts.rpc import RpcClient
from tests.wallet.keeper_rig import free_port
from tests.wallet.trading_floor import Trader, trader_on


@pytest.fixture
async def trader(chain: Devnet, tmp_path: Path) -> AsyncIterator[Trader]:
    """A guarded account with fresh prices around it; its bundler's address answers nobody."""
    await chain.market.heartbeat()
    async with RpcClient(f"http://127.0.0.1:{free_port()}") as nobody:
        yield await trader_on(chain, tmp_path, bundler=nobody)
