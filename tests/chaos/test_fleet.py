"""Several RPC processes and builders on one PostgreSQL database, killed and frozen at random; a client's ledger is the judge.

Short form: four blows. Long form (`make chaos`): SEAWALL_CHAOS_ROUNDS=200 blows in chapters of twenty, the server crashes among them.
"""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from contracts.types import Address
from tests.bundler.rig import Chain
from tests.chaos.fleet import Fleet
from tests.postgres import Cluster

pytestmark = pytest.mark.chaos
ROUNDS = int(os.environ.get("SEAWALL_CHAOS_ROUNDS", "4"))
SEED = int(os.environ.get("SEAWALL_CHAOS_SEED", "1"))
CHAPTER = 20


@pytest.mark.parametrize("chapter", range(-(-ROUNDS // CHAPTER)))
async def test_several_processes_killed_at_random_break_no_promise_and_share_no_key(
    saved_chain: tuple[Path, dict[str, Address]],
    cluster: Cluster,
    tmp_path: Path,
    chapter: int,
    capsys: pytest.CaptureFixture[str],
) -> None:
    seed = SEED * 1_000 + chapter
    blows = min(CHAPTER, ROUNDS - chapter * CHAPTER)
    async with (
        Chain.start(*saved_chain) as chain,
        Fleet.sail(chain, cluster, tmp_path, seed, safe=False) as fleet,
    ):
        try:
            await fleet.rage(blows)
            verdict = await fleet.judge()
        except AssertionError as error:
            raise AssertionError(f"seed {seed}: {error}\n" + "\n=====\n".join(fleet.logs)) from error
        report = fleet.report(verdict)
        with capsys.disabled():
            print(f"\nfleet, chapter {chapter} (seed {seed}): {report}")
        assert not verdict.failures, f"seed {seed}: {report}\n" + "\n".join([*verdict.failures, *fleet.logs])
        assert len(fleet.ledger.acknowledged) > blows
