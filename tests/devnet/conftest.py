"""Devnets of their own for tests that replay bars."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest

from contracts.devnet import Bar, Devnet, packages, read_bars, shipped
from tests.devnet.rig import Person, person, start_at


@pytest.fixture(scope="session")
def crash_bars() -> list[Bar]:
    """2020-03-12 06:00 UTC and the 24 hours that followed."""
    return read_bars(shipped("eth_2020-03-12"))


@pytest.fixture
async def net(crash_bars: list[Bar]) -> AsyncIterator[Devnet]:
    """A devnet of the test's own, before the crash of 2020-03-12."""
    async with start_at(crash_bars) as devnet:
        yield devnet


@pytest.fixture
def trader(net: Devnet) -> Person:
    return person(net, net.accounts.trader)


@pytest.fixture
def new_cache(devnet: Devnet, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[], Path]:
    """Change to a cache that has the packages (fetched for `devnet`) but no built chain; returns where chains are kept."""
    assert devnet.pid
    fetched = packages.cache_dir() / "packages"

    def change() -> Path:
        cache = tmp_path / f"cache-{len(list(tmp_path.iterdir()))}"
        monkeypatch.setenv("XDG_CACHE_HOME", str(cache))
        packages.cache_dir().mkdir(parents=True)
        (packages.cache_dir() / "packages").symlink_to(fetched)
        return packages.cache_dir() / "devnet"

    return change
