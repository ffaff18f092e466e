"""The real process: it says where it listens, stops when asked, and starts again where it was."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from contracts.types import checksum
from paymaster.main import main
from tests.paymaster.rig import Chain, operation, process


async def test_it_announces_its_url_and_stops_on_sigterm(chain: Chain, tmp_path: Path) -> None:
    async with process(chain, tmp_path) as running:
        assert running.listening["event"] == "listening"
        assert running.listening["signer"] == checksum(chain.accounts.paymaster_signer.address)
        assert (await running.sponsor.status())["ready"] is True
        assert await running.stop() == 0


async def test_a_request_in_flight_is_answered_before_it_stops(chain: Chain, tmp_path: Path) -> None:
    async with process(chain, tmp_path) as running:
        ops = [operation(await chain.account()) for _ in range(10)]
        asked = [asyncio.create_task(running.sponsor.data(op)) for op in ops]
        await asked[0]
        assert await running.stop() == 0
        answers = await asyncio.gather(*asked, return_exceptions=True)
    answered = [a for a in answers if not isinstance(a, BaseException)]
    async with process(chain, tmp_path) as running:
        assert (await running.sponsor.status())["held"] >= len(answered) > 0


async def test_a_restart_keeps_promises_and_gives_the_same_signature(chain: Chain, tmp_path: Path) -> None:
    op = operation(await chain.account())
    approval = chain.approve(op)
    async with process(chain, tmp_path) as running:
        first = await running.sponsor.data(op, approval)
        await running.stop()
    async with process(chain, tmp_path) as running:
        assert (await running.sponsor.status())["held"] == 1
        assert await running.sponsor.data(op, approval) == first


@pytest.mark.parametrize(
    ("arguments", "code"),
    [([], 2), (["--config", "/nonexistent"], 2), (["--set", "nothing.at.all=1"], 2)],
)
def test_a_bad_start_has_the_exit_code_of_its_error(
    capsys: pytest.CaptureFixture[str], arguments: list[str], code: int
) -> None:
    assert main(arguments) == code
    assert capsys.readouterr().err.startswith("error: ")
