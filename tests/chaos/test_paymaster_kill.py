"""SIGKILL of the sponsor at every point where it sends or records something: the budget is neither overspent nor lost."""

from __future__ import annotations

import contextlib
import signal
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

import paymaster
from contracts.devnet.chain import Builder
from contracts.errors import NodeUnreachable, RpcError
from contracts.userop import required_prefund
from tests.paymaster.rig import Chain, operation, process

pytestmark = pytest.mark.chaos


@pytest.fixture
async def chain() -> AsyncIterator[Chain]:
    """Reorganisations need a chain of their own."""
    async with Chain.start() as started:
        yield started


@pytest.mark.parametrize("point", paymaster.CHECKPOINTS)
async def test_killed_anywhere_the_books_come_out_the_same(chain: Chain, tmp_path: Path, point: str) -> None:
    """One life: promise, include, settle, lose the block, settle again, let another promise expire, spend the rest.

    A wallet retries what was not answered; an operator restarts what died. Room for two promises at a time, never three.
    """
    start_block = await chain.rpc.block_number() + 1
    used, expiring = operation(await chain.account()), operation(await chain.account())
    limit_wei = 2 * required_prefund(used.replace(paymaster=bytes(20), paymaster_verification_gas_limit=60_000))
    changes: dict[str, Any] = {
        "budget": {"total_wei": limit_wei},
        "validity_s": 60,
        "start_block": start_block,
        "poll_s": 3600.0,
    }
    approvals = {op: chain.approve(op) for op in (used, expiring)}
    deaths = 0

    async with contextlib.AsyncExitStack() as lives:
        running = await lives.enter_async_context(process(chain, tmp_path, crash_at=point, **changes))

        async def ask(method: str, *args: object) -> Any:
            """Ask; if the process died of it, restart it without the crash and ask again."""
            nonlocal deaths, running
            try:
                return await getattr(running.sponsor, method)(*args)
            except NodeUnreachable:
                assert await running.process.wait() == -signal.SIGKILL
                deaths += 1
                running = await lives.enter_async_context(process(chain, tmp_path, **changes))
                return await getattr(running.sponsor, method)(*args)

        async def status() -> dict[str, Any]:
            found: dict[str, Any] = await ask("status")
            assert int(found["spentWei"]) + int(found["heldWei"]) <= limit_wei
            return found

        granted = await ask("data", used, approvals[used])
        await ask("data", expiring, approvals[expiring])
        third = operation(await chain.account())
        with pytest.raises(RpcError, match="does not fit"):
            await ask("data", third, chain.approve(third))

        snapshot = await chain.rpc.call("evm_snapshot")
        await chain.include(granted)
        assert (await status())["settled"] == 1
        await chain.rpc.call("evm_revert", snapshot)
        chain.build = Builder(chain.rpc, chain.accounts, chain.build.now_s)
        await chain.build.mine(3)
        lost = await status()
        assert (lost["settled"], lost["held"], lost["spentWei"]) == (0, 2, "0")
        ((_, cost_wei),) = await chain.include(granted)
        assert (await status())["spentWei"] == str(cost_wei)

        await chain.build.mine(120)
        await chain.build.mine()
        end = await status()
        assert (end["held"], end["settled"], end["spentWei"]) == (0, 1, str(cost_wei))
        await ask("data", third, chain.approve(third))
        assert await running.stop() == 0
    assert deaths == 1
