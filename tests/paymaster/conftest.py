"""One chain for all tests of the sponsor; each test brings its own accounts and its own ledger."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from tests.paymaster.rig import Chain


@pytest.fixture(scope="session")
async def chain() -> AsyncIterator[Chain]:
    """A running chain with a funded paymaster on both entry points."""
    async with Chain.start() as started:
        yield started
