"""A chain on disk that every test of faults starts its own anvil from."""

from __future__ import annotations

from pathlib import Path

import pytest

from contracts.types import Address
from tests.bundler.rig import Chain


@pytest.fixture(scope="session")
async def saved_chain(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Address]]:
    """A chain with entry points and account factories, on disk."""
    state = tmp_path_factory.mktemp("chain") / "state.json"
    return state, await Chain.build(state)
