"""One chain and one bundler a session for tests that leave both as they are; `own_chain` for those that do not."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator, Iterator
from concurrent.futures import Future
from pathlib import Path

import pytest

from contracts.entrypoint import V07, V08, V09
from contracts.types import Address
from tests.bundler.rig import Chain, Client, process, serving, settings_for


@pytest.fixture(scope="session")
async def chain_state(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Address]]:
    """A chain with entry points and account factories, on disk."""
    state = tmp_path_factory.mktemp("chain") / "state.json"
    return state, await Chain.build(state)


@pytest.fixture(scope="session")
async def shared_chain(chain_state: tuple[Path, dict[str, Address]]) -> AsyncIterator[Chain]:
    """A chain that tests share: take fresh accounts, do not rewind it."""
    async with Chain.start(*chain_state) as chain:
        yield chain


@pytest.fixture
async def own_chain(chain_state: tuple[Path, dict[str, Address]]) -> AsyncIterator[Chain]:
    """A chain of the test's own: stop, rewind or silence it."""
    async with Chain.start(*chain_state) as chain:
        yield chain


@pytest.fixture(scope="session")
async def bundler(shared_chain: Chain, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Client]:
    """A bundler on the shared chain that serves every entry point."""
    settings = settings_for(shared_chain, tmp_path_factory.mktemp("bundler"), entry_points=(V08, V07, V09))
    async with serving(settings) as client:
        yield client


@pytest.fixture(scope="module")
def bundler_process(
    chain_state: tuple[Path, dict[str, Address]], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[str]:
    """URL of a real bundler process on a chain of its own, kept by a thread: for tests that are not coroutines."""
    folder = tmp_path_factory.mktemp("process")
    url: Future[str] = Future()
    stop = threading.Event()

    async def keep() -> None:
        async with Chain.start(*chain_state) as chain, process(settings_for(chain, folder)) as running:
            url.set_result(running.client.rpc.url)
            await asyncio.to_thread(stop.wait)

    thread = threading.Thread(target=asyncio.run, args=(keep(),))
    thread.start()
    yield url.result(60)
    stop.set()
    thread.join()
