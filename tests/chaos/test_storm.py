"""kill -9 at random under load, with reorganisations, replacements, other bundlers and a faulty node; a client's ledger is the judge.

Short form: one chapter of four lives. Long form (`make chaos`): SEAWALL_CHAOS_ROUNDS=200 lives in chapters of ten.
"""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from contracts.types import Address
from tests.bundler.rig import Chain
from tests.chaos.storm import Storm

pytestmark = pytest.mark.chaos
ROUNDS = int(os.environ.get("SEAWALL_CHAOS_ROUNDS", "4"))
SEED = int(os.environ.get("SEAWALL_CHAOS_SEED", "1"))
CHAPTER = 10


@pytest.mark.parametrize("chapter", range(-(-ROUNDS // CHAPTER)))
async def test_killed_at_random_under_load_no_promise_is_broken(
    saved_chain: tuple[Path, dict[str, Address]],
    tmp_path: Path,
    chapter: int,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """Every other chapter judges operations by the rules of ERC-7562, the others carry more load without.

    Of each pair of chapters every other one has two executors, whose bundles are under way at once.
    """
    seed = SEED * 1_000 + chapter
    kills = min(CHAPTER, ROUNDS - chapter * CHAPTER)
    async with (
        Chain.start(*saved_chain) as chain,
        Storm.brew(chain, tmp_path, seed, safe=chapter % 2 == 0, lanes=chapter % 4 < 2, strangers=True) as storm,
    ):
        try:
            await storm.rage(kills)
        except AssertionError as error:
            raise AssertionError(f"seed {seed}: {error}\n" + "\n=====\n".join(storm.logs)) from error
        verdict = await storm.judge()
        report = storm.report(verdict)
        with capsys.disabled():
            print(f"\nchapter {chapter} (seed {seed}): {report}")
        assert not verdict.failures, f"seed {seed}: {report}\n" + "\n".join(verdict.failures)
        assert storm.done["kills"] > 0
        assert (verdict.executors > 1) == (chapter % 4 < 2)
        assert len(storm.ledger.acknowledged) > kills
