"""The machine under the bundler fails: the disk is full, the clock jumps."""

from __future__ import annotations

import os
import resource
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from contracts.entrypoint import V08
from contracts.errors import RpcError
from contracts.types import Address, checksum, to_hex
from contracts.userop import UserOperation
from tests.bundler.rig import (
    Chain,
    answers,
    process,
    settings_for,
    until,
    validation_word,
    with_limits,
)

pytestmark = pytest.mark.chaos
DAY_S = 86_400


@pytest.fixture
async def chain(saved_chain: tuple[Path, dict[str, Address]]) -> AsyncIterator[Chain]:
    async with Chain.start(*saved_chain) as started:
        yield started


@pytest.mark.skipif(sys.platform != "linux", reason="limits of another process are Linux's (prlimit)")
async def test_a_full_disk_refuses_what_it_cannot_keep_and_loses_nothing(chain: Chain, tmp_path: Path) -> None:
    """No file of the bundler may grow any more, then it may again. What was not kept was not acknowledged."""
    await chain.automine(False)
    settings = settings_for(chain, tmp_path)
    wal = f"{settings.database}-wal"
    async with process(settings) as running:
        early = await running.client.send(await (await chain.account()).operation())
        await running.client.sent(early, chain)
        pid = running.process.pid
        _, hard = resource.prlimit(pid, resource.RLIMIT_FSIZE)
        resource.prlimit(pid, resource.RLIMIT_FSIZE, (os.stat(wal).st_size, hard))
        refused = await (await chain.account()).operation()

        async def is_refused() -> bool:
            """The log of the database may still have room for one."""
            try:
                await running.client.send(refused)
            except RpcError as error:
                if "cannot be written" not in error.message:
                    raise
                return True
            return False

        assert await is_refused()
        assert await is_refused(), "it was not kept, so it is not known either"
        # It still answers, and the bundle under way is mined: that, too, cannot be written down now.
        assert (await running.client.status(early) or {})["status"] == "bundled"
        await chain.mine()

        async def in_trouble() -> bool:
            return (await running.client.service())["problem"] == "SetupError"

        await until(in_trouble, "the bundler says that it cannot write")
        resource.prlimit(pid, resource.RLIMIT_FSIZE, (hard, hard))
        await chain.automine(True)
        await running.client.becomes(early, "included")
        late = await running.client.send(refused)
        await running.client.becomes(late, "included")
        await running.client.settled()
    for op_hash in (early, late):
        assert len(await chain.receipts_of(V08, op_hash)) == 1
    async with process(settings) as running:
        for op_hash in (early, late):
            assert (await running.client.status(op_hash) or {})["status"] == "included"


class Clock:
    """The wall clock of processes started now: `jump` says by how many seconds it is wrong, as they run."""

    def __init__(self, offset: Path) -> None:
        self._offset = offset
        self.jump(0)

    def jump(self, offset_s: float) -> None:
        new = self._offset.with_suffix(".new")
        new.write_text(str(offset_s))
        new.replace(self._offset)


@pytest.fixture
def clock(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Clock:
    folder = tmp_path / "clock"
    folder.mkdir()
    offset = folder / "offset"
    (folder / "sitecustomize.py").write_text(
        "import time\n"
        "from pathlib import Path\n"
        "_true = time.time\n"
        f"_offset = Path({str(offset)!r})\n"
        "time.time = lambda: _true() + float(_offset.read_text())\n"
    )
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(folder), os.environ.get("PYTHONPATH", "")]))
    return Clock(offset)


async def test_a_wall_clock_that_jumps_changes_no_order_and_loses_nothing(
    chain: Chain, tmp_path: Path, clock: Clock
) -> None:
    """Two days back between two operations of one sender, a kill, then three days forward."""
    await chain.automine(False)
    account = await chain.account(deployed=False, funds_wei=10**19)
    settings = settings_for(chain, tmp_path)
    first_op = await account.draft()
    later_op = first_op.replace(factory=None, factory_data=b"")
    async with process(settings) as running:
        first = await running.client.send(account.sign(with_limits(first_op)))
        clock.jump(-2 * DAY_S)
        second = await running.client.send(account.sign(with_limits(later_op.replace(nonce=1))))
        clock.jump(-4 * DAY_S)
        third = await running.client.send(account.sign(with_limits(later_op.replace(nonce=2))))
        running.process.kill()
    clock.jump(3 * DAY_S)
    await chain.rpc.call("anvil_dropAllTransactions")
    await chain.automine(True)
    async with process(settings) as running:
        await running.client.settled()
        for op_hash in (first, second, third):
            assert (await running.client.status(op_hash) or {})["status"] == "included"
            assert len(await chain.receipts_of(V08, op_hash)) == 1


async def test_reputations_decay_once_when_the_clock_jumps_forward_and_never_grow_when_it_jumps_back(
    chain: Chain, tmp_path: Path, clock: Clock
) -> None:
    settings = settings_for(chain, tmp_path, debug=True)
    address = b"\x77" * 20

    async def counts() -> tuple[int, int]:
        dump = await running.client.rpc.call("debug_bundler_dumpReputation", to_hex(V08.address))
        found = {one["address"]: (int(one["opsSeen"], 16), int(one["opsIncluded"], 16)) for one in dump}
        return found.get(checksum(address), (0, 0))

    async with process(settings) as running:
        given = [{"address": checksum(address), "opsSeen": hex(2_400), "opsIncluded": hex(240)}]
        await running.client.rpc.call("debug_bundler_setReputation", given, to_hex(V08.address))
        clock.jump(3600)

        async def decayed() -> bool:
            return (await counts())[0] < 2_400

        await until(decayed, "an hour has passed")
        assert await counts() == (2_300, 230)
        clock.jump(-2 * DAY_S)
        op_hash = await running.client.send(await (await chain.account()).operation())
        await running.client.becomes(op_hash, "included")
        assert await counts() == (2_300, 230)
        clock.jump(3700)
        op_hash = await running.client.send(await (await chain.account()).operation())
        await running.client.becomes(op_hash, "included")
        assert await counts() == (2_300, 230)


async def test_a_chain_clock_that_jumps_expires_what_ends_and_includes_the_rest(chain: Chain, tmp_path: Path) -> None:
    now_s = await chain.now_s()
    ending = await chain.put(answers(validation_word(valid_until_s=now_s + 1_000)), deposit_on=V08)
    beginning = await chain.put(answers(validation_word(valid_after_s=now_s + 50_000)), deposit_on=V08)
    await chain.automine(False)
    async with process(settings_for(chain, tmp_path, safe=False)) as running:
        client = running.client
        stuck = await client.send(await (await chain.account()).operation())  # its bundle is in nobody's block
        await client.sent(stuck, chain)
        await chain.rpc.call("anvil_dropAllTransactions")
        expires = await client.send(with_limits(UserOperation(ending, 0, b"")))
        with pytest.raises(RpcError, match="AA22"):
            await client.send(with_limits(UserOperation(beginning, 0, b"")))
        await chain.rpc.call("evm_setNextBlockTimestamp", now_s + DAY_S)
        await chain.automine(True)
        await chain.mine()
        await client.becomes(expires, "dropped")
        await client.becomes(stuck, "included")
        waits = await client.send(with_limits(UserOperation(beginning, 0, b"")))
        await client.becomes(waits, "included")
