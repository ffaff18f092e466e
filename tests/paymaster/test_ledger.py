"""The ledger alone: what it promised is on disk, once, and adds up whatever order things happen in."""

from __future__ import annotations

import asyncio
import sqlite3
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from contracts.errors import SetupError, SponsorRefused
from contracts.types import keccak
from paymaster.ledger import Block, Settlement, SqliteLedger
from paymaster.sponsor import Budget, Claim, Usage, check_budget

ENTRY_POINT = b"\x08" * 20
DAY_S = 86_400


def claim(
    name: str, amount_wei: int = 100, *, sender: bytes = b"\1" * 20, nonce: int | None = None, now_s: int = 0
) -> Claim:
    return Claim(
        intent_hash=keccak(name.encode()),
        entry_point=ENTRY_POINT,
        sender=sender,
        nonce=int.from_bytes(keccak(name.encode())) if nonce is None else nonce,
        amount_wei=amount_wei,
        now_s=now_s,
        valid_until_s=now_s + 600,
        engine=b"\2" * 20,
        policy_id=bytes(32),
    )


def settlement(of: Claim, cost_wei: int = 40, *, block: int = 5, day: int = 0) -> Settlement:
    return Settlement(
        user_op_hash=keccak(of.intent_hash),
        entry_point=of.entry_point,
        sender=of.sender,
        nonce=of.nonce,
        cost_wei=cost_wei,
        success=True,
        block_number=block,
        block_hash=keccak(b"%d" % block),
        tx_hash=bytes(32),
        day=day,
    )


def anything(_: Claim, __: Usage) -> None:
    """Admit."""


def within(limit_wei: int) -> Budget:
    return Budget(per_operation_wei=limit_wei, per_account_day_wei=limit_wei, total_wei=limit_wei)


async def test_what_was_promised_and_spent_is_there_after_reopening(tmp_path: Path) -> None:
    ledger = SqliteLedger(tmp_path / "l", 1)
    await ledger.reserve(claim("a"), anything)
    await ledger.reserve(claim("b", 70), anything)
    await ledger.settle([settlement(claim("a"))], Block(5, keccak(b"5")))
    before = await ledger.totals()
    await ledger.close()
    again = SqliteLedger(tmp_path / "l", 1)
    assert await again.totals() == before
    assert await again.blocks() == [Block(5, keccak(b"5"))]
    assert (before.spent_wei, before.held_wei) == (40, 70)
    await again.close()


async def test_a_refused_claim_leaves_nothing_behind(tmp_path: Path) -> None:
    ledger = SqliteLedger(tmp_path / "l", 1)

    def refuse(_: Claim, __: Usage) -> None:
        raise SponsorRefused("no")

    with pytest.raises(SponsorRefused):
        await ledger.reserve(claim("a"), refuse)
    assert (await ledger.totals()).held == 0
    await ledger.close()


async def test_amounts_above_64_bits_stay_exact(tmp_path: Path) -> None:
    ledger = SqliteLedger(tmp_path / "l", 1)
    await ledger.reserve(claim("a", 2**90 + 1), anything)
    await ledger.reserve(claim("b", 2**90 + 1), anything)
    await ledger.settle([settlement(claim("a"), 2**80 + 1)], Block(1, bytes(32)))
    totals = await ledger.totals()
    assert (totals.held_wei, totals.spent_wei) == (2**90 + 1, 2**80 + 1)
    await ledger.close()


async def test_settling_twice_counts_once(tmp_path: Path) -> None:
    ledger = SqliteLedger(tmp_path / "l", 1)
    await ledger.reserve(claim("a"), anything)
    for number in (5, 6):
        await ledger.settle([settlement(claim("a"))], Block(number, bytes(32)))
    assert (await ledger.totals()).spent_wei == 40
    await ledger.close()


async def test_a_cost_without_a_promise_counts_too(tmp_path: Path) -> None:
    ledger = SqliteLedger(tmp_path / "l", 1)
    await ledger.settle([settlement(claim("of another ledger"))], Block(5, bytes(32)))
    seen: list[Usage] = []
    await ledger.reserve(claim("a"), lambda _, usage: seen.append(usage))
    assert seen == [Usage(total_wei=40, account_day_wei=40, held_wei=0)]
    await ledger.close()


async def test_a_cost_belongs_to_the_day_of_its_promise(tmp_path: Path) -> None:
    ledger = SqliteLedger(tmp_path / "l", 1)
    await ledger.reserve(claim("late", now_s=DAY_S - 1), anything)
    await ledger.settle([settlement(claim("late"), day=1)], Block(5, bytes(32)))
    seen: list[Usage] = []
    for now_s in (DAY_S - 1, DAY_S):
        await ledger.reserve(claim(f"asked {now_s}", now_s=now_s), lambda _, usage: seen.append(usage))
    assert [usage.account_day_wei for usage in seen] == [40, 0]
    await ledger.close()


async def test_undoing_a_block_holds_its_promises_again(tmp_path: Path) -> None:
    ledger = SqliteLedger(tmp_path / "l", 1)
    for name in "ab":
        await ledger.reserve(claim(name), anything)
    await ledger.settle([settlement(claim("a"), block=5)], Block(5, keccak(b"5")))
    await ledger.settle([settlement(claim("b"), block=6)], Block(6, keccak(b"6")))
    undone = await ledger.undo(5)
    totals = await ledger.totals()
    assert undone == [settlement(claim("b"), block=6)]
    assert (totals.spent_wei, totals.held_wei, await ledger.blocks()) == (40, 100, [Block(5, keccak(b"5"))])
    await ledger.close()


async def test_the_first_block_read_is_never_forgotten(tmp_path: Path) -> None:
    ledger = SqliteLedger(tmp_path / "l", 1)
    for number in (1, 2, 5_000, 9_000):
        await ledger.settle([], Block(number, bytes(32)))
    assert [block.number for block in await ledger.blocks()] == [9_000, 5_000, 1]
    await ledger.close()


async def test_release_spares_what_is_still_valid(tmp_path: Path) -> None:
    ledger = SqliteLedger(tmp_path / "l", 1)
    await ledger.reserve(claim("a"), anything)
    assert [await ledger.release(600), await ledger.release(601), await ledger.release(601)] == [0, 1, 0]
    await ledger.close()


async def test_two_writers_on_one_file_share_one_budget(tmp_path: Path) -> None:
    ledgers = [SqliteLedger(tmp_path / "l", 1) for _ in range(3)]
    asked = [
        ledgers[i % 3].reserve(claim(f"{i}"), lambda c, usage: check_budget(c, usage, within(1_000), 10**9))
        for i in range(40)
    ]
    answers = await asyncio.gather(*asked, return_exceptions=True)
    assert sum(isinstance(answer, SponsorRefused) for answer in answers) == 30
    assert (await ledgers[0].totals()).held_wei == 1_000
    for ledger in ledgers:
        await ledger.close()


async def test_another_schema_is_refused_and_left_alone(tmp_path: Path) -> None:
    with sqlite3.connect(tmp_path / "l") as db:
        db.execute("PRAGMA user_version = 99")
    db.close()
    with pytest.raises(SetupError, match="schema 99"):
        SqliteLedger(tmp_path / "l", 1)
    with sqlite3.connect(tmp_path / "l") as db:
        assert db.execute("SELECT count(*) FROM sqlite_master").fetchone() == (0,)
    db.close()


async def test_a_file_that_is_no_ledger_is_refused(tmp_path: Path) -> None:
    (tmp_path / "l").write_text("this is no database, it is a text of some length that SQLite will refuse" * 40)
    with pytest.raises(SetupError, match="cannot be opened"):
        SqliteLedger(tmp_path / "l", 1)


async def test_a_ledger_that_cannot_be_written_is_a_setup_error(tmp_path: Path) -> None:
    ledger = SqliteLedger(tmp_path / "l", 1)
    with sqlite3.connect(tmp_path / "l") as db:
        db.execute("DROP TABLE settlements")
    db.close()
    with pytest.raises(SetupError, match="cannot be used"):
        await ledger.reserve(claim("a"), anything)
    await ledger.close()


STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("reserve"), st.integers(0, 5), st.integers(1, 60)),
        st.tuples(st.just("settle"), st.integers(0, 5), st.integers(0, 100)),
        st.tuples(st.just("undo"), st.integers(0, 12), st.just(0)),
        st.tuples(st.just("release"), st.integers(0, 2_000), st.just(0)),
    ),
    max_size=25,
)


@given(steps=STEPS)
@settings(max_examples=150, deadline=None)
async def test_spent_and_held_never_exceed_the_budget_in_any_order(
    tmp_path_factory: pytest.TempPathFactory, steps: list[tuple[str, int, int]]
) -> None:
    """A model: promises are at most the budget; costs are at most their promise; undo and release change nothing else."""
    ledger = SqliteLedger(tmp_path_factory.mktemp("l") / "l", 1)
    budget, block, promised = within(150), 0, dict[int, int]()
    for step, which, number in steps:
        wanted = claim(str(which), number, nonce=which, now_s=0)
        if step == "reserve":
            try:
                promise = await ledger.reserve(wanted, lambda c, usage: check_budget(c, usage, budget, 10**9))
                promised[which] = promise.amount_wei
            except SponsorRefused:
                pass
        elif step == "settle" and which in promised:
            block += 1
            await ledger.settle(
                [settlement(wanted, promised[which] * number // 100, block=block)], Block(block, bytes(32))
            )
        elif step == "undo":
            await ledger.undo(which)
            block = min(block, which)
    totals = await ledger.totals()
    assert totals.spent_wei + totals.held_wei <= 150
    rows = await ledger.undo(0)
    assert (await ledger.totals()).spent_wei == 0
    assert sum(row.cost_wei for row in rows) == totals.spent_wei
    await ledger.close()
