"""SIGKILL of the bundler at every point where it sends or records something: what was acknowledged is included exactly once."""

from __future__ import annotations

import contextlib
import signal
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import pytest

import bundler
from bundler.settings import Settings
from contracts.devnet.chain import CHAIN_ID
from contracts.entrypoint import V08
from contracts.eoa import TransactionSender
from contracts.errors import NodeUnreachable
from contracts.types import Address, Hash32, checksum, to_hex
from contracts.userop import UserOperation
from tests.bundler.rig import (
    GWEI,
    PAYMASTER_OK,
    Chain,
    Client,
    Process,
    answers,
    process,
    settings_for,
    until,
    validation_word,
    with_limits,
)

pytestmark = pytest.mark.chaos
T = TypeVar("T")


@pytest.fixture
async def chain(saved_chain: tuple[Path, dict[str, Address]]) -> AsyncIterator[Chain]:
    """Reorganisations need a chain of their own."""
    async with Chain.start(*saved_chain) as started:
        yield started


@dataclass(slots=True)
class Operator:
    """Restarts what died, as a service manager would."""

    lives: contextlib.AsyncExitStack
    settings: Settings
    running: Process
    deaths: int = 0

    async def ask(self, question: Callable[[Client], Awaitable[T]]) -> T:
        """Ask; if the process died of it, or had died before, restart it without the crash and ask again."""
        try:
            return await question(self.running.client)
        except NodeUnreachable:
            assert await self.running.died() == -signal.SIGKILL
            self.deaths += 1
            self.running = await self.lives.enter_async_context(process(self.settings))
            return await question(self.running.client)

    async def becomes(self, op_hash: Hash32, status: str) -> dict[str, Any]:
        async def check() -> dict[str, Any] | None:
            found = await self.ask(lambda client: client.status(op_hash))
            return found if found and found["status"] == status else None

        found: dict[str, Any] = await until(check, f"0x{op_hash.hex()} is {status}")
        return found

    async def settled(self) -> None:
        async def check() -> bool:
            status = await self.ask(lambda client: client.service())
            return not (status["validating"] or status["pending"] or status["inFlight"] or status["bundlesInFlight"])

        await until(check, "everything is settled")


async def included_once(chain: Chain, operator: Operator, op_hash: Hash32) -> None:
    await operator.becomes(op_hash, "included")
    receipt = await operator.ask(lambda client: client.receipt(op_hash))
    (event,) = await chain.receipts_of(V08, op_hash)
    assert receipt is not None
    assert receipt["receipt"]["transactionHash"] == event["transactionHash"]


@pytest.mark.parametrize("point", bundler.CHECKPOINTS)
async def test_killed_anywhere_every_acknowledged_operation_is_included_exactly_once(
    chain: Chain, tmp_path: Path, point: str
) -> None:
    """One life: include, lose the block, include again; wait in vain and resubmit; let an operation expire; lose a nonce.

    A wallet sends again what was not acknowledged; an operator restarts what died.
    """
    settings = settings_for(chain, tmp_path, blocks_before_resubmit=2, finality_depth=4)
    async with contextlib.AsyncExitStack() as lives:
        first_life = await lives.enter_async_context(process(settings, crash_at=point))
        operator = Operator(lives, settings, first_life)

        # Include, lose the block, include again.
        await chain.mine(2)
        reorganised = await (await chain.account()).operation()
        snapshot = await chain.rpc.call("evm_snapshot")
        lost = await operator.ask(lambda client: client.send(reorganised))
        await operator.becomes(lost, "included")
        await chain.rpc.call("evm_revert", snapshot)
        await chain.mine()

        async def included_again() -> bool:
            await operator.ask(lambda client: client.service())
            return bool(await chain.receipts_of(V08, lost))

        await until(included_again, "the operation is in a block again")
        await operator.settled()

        # A bundle that no block takes: it is sent again at higher fees. Behind it one operation waits and one expires.
        expiring = await chain.put(answers(validation_word(valid_until_s=await chain.now_s() + 3_000)), deposit_on=V08)
        await chain.automine(False)
        stuck_op = await (await chain.account()).operation()
        stuck = await operator.ask(lambda client: client.send(stuck_op))
        first_tx = (await operator.becomes(stuck, "bundled"))["transactionHash"]
        waiting_op = await (await chain.account()).operation()
        waiting = await operator.ask(lambda client: client.send(waiting_op))
        expired = await operator.ask(lambda client: client.send(with_limits(UserOperation(expiring, 0, b""))))
        await chain.rpc.call("anvil_dropAllTransactions")
        for _ in range(3):
            await chain.rpc.call("anvil_dropAllTransactions")
            await chain.rpc.call("evm_mine")

        async def resubmitted() -> bool:
            found = await operator.ask(lambda client: client.status(stuck))
            return bool(found and found["transactionHash"] != first_tx)

        await until(resubmitted, "it is sent again")
        await chain.rpc.call("evm_setNextBlockTimestamp", await chain.now_s() + 4_000)
        await chain.automine(True)
        await chain.mine()
        await operator.becomes(expired, "dropped")
        await operator.settled()

        # Another program uses the executor's key while a bundle waits: that bundle can never be mined.
        await chain.automine(False)
        robbed_op = await (await chain.account()).operation()
        robbed = await operator.ask(lambda client: client.send(robbed_op))
        await operator.becomes(robbed, "bundled")
        thief = TransactionSender(chain.rpc, chain.accounts.bundler, CHAIN_ID)
        await chain.rpc.call("anvil_dropAllTransactions")
        await thief.send(
            chain.accounts.bundler.address, gas=21_000, max_fee_wei=400 * GWEI, priority_fee_wei=300 * GWEI
        )
        await chain.mine()
        await chain.automine(True)
        await operator.becomes(robbed, "included")
        await chain.mine(settings.finality_depth)
        await operator.settled()

        for op_hash in (lost, stuck, waiting, robbed):
            await included_once(chain, operator, op_hash)
        assert await chain.receipts_of(V08, expired) == []
        # And it still works.
        last_op = await (await chain.account()).operation()
        last = await operator.ask(lambda client: client.send(last_op))
        await included_once(chain, operator, last)
        await operator.settled()
    assert operator.deaths == 1


@pytest.mark.parametrize("point", ["bundler.operation.record.after", "bundler.inclusion.record.after"])
async def test_reputation_and_operations_survive_together(chain: Chain, tmp_path: Path, point: str) -> None:
    """What a paymaster's operation adds to its counts is on disk with the operation itself, not some time later."""
    settings = settings_for(chain, tmp_path, debug=True)
    paymaster = await chain.put(PAYMASTER_OK, deposit_on=V08, deposit_wei=10**20)
    account = await chain.account(deployed=True)
    op = account.sign(with_limits((await account.draft()).replace(paymaster=paymaster)))
    async with contextlib.AsyncExitStack() as lives:
        operator = Operator(lives, settings, await lives.enter_async_context(process(settings, crash_at=point)))
        op_hash = await operator.ask(lambda client: client.send(op))
        await included_once(chain, operator, op_hash)
        dump = await operator.ask(lambda client: client.rpc.call("debug_bundler_dumpReputation", to_hex(V08.address)))
        assert operator.deaths == 1
    (counts,) = [one for one in dump if one["address"] == checksum(paymaster)]
    assert (counts["opsSeen"], counts["opsIncluded"]) == ("0x1", "0x1")
