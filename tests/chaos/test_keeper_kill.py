"""SIGKILL at every point where the keeper sends or records something; after a restart the stop has fired exactly once."""

from __future__ import annotations

import signal
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from contracts.devnet import Devnet
from tests.wallet.keeper_rig import Rig, Terms, rig_on, until
from wallet.keeper import CHECKPOINTS

pytestmark = pytest.mark.chaos

NOBODY = "http://127.0.0.1:9"
PLAIN = tuple(name for name in CHECKPOINTS if name.startswith("keeper.transaction."))


@pytest.fixture
async def rig(chain: Devnet, tmp_path: Path) -> AsyncIterator[Rig]:
    async with rig_on(chain, tmp_path) as rig:
        yield rig


async def fires_once_after_a_kill(rig: Rig, bundler_url: str, point: str) -> None:
    """Make the stop due, let the keeper die at `point`, start it again, and count on chain."""
    await rig.price(2_800)
    keeper = rig.keeper(bundler_url)
    await keeper.start({"SEAWALL_CRASH_AT": point}, listening=False)

    async def died() -> bool:
        await rig.mine()  # points after the inclusion are passed on a later head
        assert keeper._process is not None
        return keeper._process.returncode is not None

    await until(died, f"the keeper to die at {point}", keeper)
    assert await keeper.ended() == -signal.SIGKILL
    await keeper.start()

    async def fired() -> bool:
        await rig.mine()
        return bool((await rig.status(keeper))["fired"])

    await until(fired, "the restarted keeper to report the stop as fired", keeper)
    for _ in range(4):  # and nothing more comes of it
        await rig.mine()
        status = await rig.wait_head(keeper)
    assert await rig.executed() == 1
    assert await rig.fired() == 1
    assert len(status["fired"]) == 1
    assert status["pending"] == []


@pytest.mark.parametrize("point", [name for name in CHECKPOINTS if name not in PLAIN])
async def test_a_keeper_killed_anywhere_fires_the_stop_exactly_once(rig: Rig, point: str) -> None:
    await rig.create_account()
    bundler = rig.bundler()
    await bundler.start()
    await fires_once_after_a_kill(rig, bundler.url, point)


@pytest.mark.parametrize("nth", [1, 2])
@pytest.mark.parametrize("point", PLAIN)
async def test_a_keeper_killed_around_a_plain_transaction_fires_the_stop_exactly_once(
    rig: Rig, point: str, nth: int
) -> None:
    """The first pass is the `touch`, the second the last resort's `execute`."""
    await rig.create_account(Terms(public_delay_s=1))
    await fires_once_after_a_kill(rig, NOBODY, f"{point}:{nth}")


async def test_a_keeper_killed_between_the_parts_of_a_stop_finishes_it(rig: Rig) -> None:
    await rig.create_account(Terms(max_size=6))
    bundler = rig.bundler()
    await bundler.start()
    await rig.price(2_800)
    keeper = rig.keeper(bundler.url)
    await keeper.start({"SEAWALL_CRASH_AT": "keeper.record.after:2"}, listening=False)

    async def died() -> bool:
        await rig.mine()
        assert keeper._process is not None
        return keeper._process.returncode is not None

    await until(died, "the keeper to die before its second part")
    await keeper.start()
    await rig.wait_fired(keeper)
    assert await rig.executed() == 2
    assert await rig.fired() == 1
