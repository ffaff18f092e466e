"""Fixtures that every area shares. The devnet is real: the protocols' own code on anvil, started once a session."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator

import pytest

from contracts.devnet import Devnet
from tests.postgres import Cluster


@pytest.fixture(scope="session")
async def devnet() -> AsyncIterator[Devnet]:
    """A running devnet at its default price. A test that changes the chain takes `chain` instead, which undoes it."""
    async with Devnet.start(port=0) as net:
        yield net


@pytest.fixture
async def chain() -> AsyncIterator[Devnet]:
    """A devnet of the test's own: it comes from the cache in a tenth of a second, and its clock has never been turned back."""
    async with Devnet.start(port=0) as net:
        yield net


@pytest.fixture(scope="session")
def cluster() -> Iterator[Cluster]:
    """A PostgreSQL server that tests share, each with a database of its own: stop it only if it runs again afterwards."""
    with Cluster.make() as made:
        yield made
