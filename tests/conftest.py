"""Fixtures that every area shares. The devnet is real: the protocols' own code on anvil, started once a session."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import replace

import pytest

from contracts.devnet import Devnet, Market


@pytest.fixture(scope="session")
async def devnet() -> AsyncIterator[Devnet]:
    """A running devnet at its default price. A test that changes the chain takes `chain` instead, which undoes it."""
    async with Devnet.start(port=0) as net:
        yield net


@pytest.fixture
async def chain(devnet: Devnet) -> AsyncIterator[Devnet]:
    """The devnet, put back to where it was when the test ends; with a market driver that remembers nothing of earlier tests."""
    snapshot = await devnet.rpc.call("evm_snapshot")
    yield replace(devnet, market=Market(devnet.rpc, devnet.addresses, devnet.accounts))
    await devnet.rpc.call("evm_revert", snapshot)
