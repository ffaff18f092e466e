"""Executors and their money: alarms, who cannot pay rests, and a treasury that tops up between bounds and under a daily cap."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import aiohttp
import pytest

from bundler.chain import read_head
from bundler.doctor import examine
from bundler.keys import KeyFile
from bundler.settings import Settings
from bundler.treasury import Ledger, Payment, Treasury
from contracts.devnet.accounts import devnet_key
from contracts.devnet.chain import CHAIN_ID
from contracts.eoa import Eoa
from contracts.errors import BadInput, SetupError
from contracts.types import Address, to_hex
from tests.bundler.rig import Chain, serving, settings_for, until
from tests.bundler.test_lanes import fund, lanes
from tests.bundler.test_operation import free_port

ETHER = 10**18
KEY = Eoa(devnet_key("treasury"))
POOR: Address = b"\x70" * 20
DAY_S = 86_400.0


class Rig:
    """A treasury on a real chain with a wall clock of the test's own."""

    def __init__(self, chain: Chain, folder: Path, **changes: Any) -> None:
        values = {"refill_below_wei": ETHER, "refill_to_wei": 3 * ETHER, "refill_daily_cap_wei": 5 * ETHER}
        self.chain, self.folder, self.now_s = chain, folder, 1_000_000.0
        self.settings = settings_for(chain, folder, **(values | changes))
        self.taken = True
        self.sent: list[bytes] = []
        self.open()

    def open(self) -> None:
        self.treasury = Treasury(
            self.chain.rpc,
            KEY,
            self.folder / "treasury.ledger",
            CHAIN_ID,
            self.settings,
            self._send,
            wall_clock=lambda: self.now_s,
        )

    async def _send(self, raw: bytes) -> bool:
        self.sent.append(raw)
        if self.taken:
            await self.chain.rpc.call("eth_sendRawTransaction", to_hex(raw))
        return self.taken

    async def holds(self, address: Address, wei: int) -> None:
        await self.chain.rpc.call("anvil_setBalance", to_hex(address), hex(wei))

    async def tend(self, *others: Address) -> int:
        """One block's turn; what the poor one holds after it was mined."""
        rpc = self.chain.rpc
        before = len(self.sent)
        balances = {address: await rpc.get_balance(address) for address in (POOR, *others)}
        nonce = await rpc.get_nonce(KEY.address, "latest")
        await self.treasury.tend(balances, await read_head(rpc))
        if len(self.sent) > before and self.taken:

            async def mined() -> bool:
                return await rpc.get_nonce(KEY.address, "latest") > nonce

            await until(mined, "the payment is mined")
        return await rpc.get_balance(POOR)


@pytest.fixture
async def rig(own_chain: Chain, tmp_path: Path) -> Rig:
    found = Rig(own_chain, tmp_path)
    await found.holds(KEY.address, 100 * ETHER)
    await found.holds(POOR, ETHER // 2)
    return found


async def test_an_executor_below_the_lower_bound_is_topped_up_to_the_upper_one(rig: Rig) -> None:
    assert await rig.tend() == 3 * ETHER
    assert await rig.tend() == 3 * ETHER
    assert len(rig.sent) == 1


async def test_an_executor_at_the_lower_bound_gets_nothing(rig: Rig) -> None:
    await rig.holds(POOR, ETHER)
    assert await rig.tend() == ETHER
    assert rig.sent == []


async def test_the_poorest_is_first(rig: Rig) -> None:
    poorer: Address = b"\x71" * 20
    assert await rig.tend(poorer) == ETHER // 2
    assert await rig.chain.rpc.get_balance(poorer) == 3 * ETHER
    assert await rig.tend(poorer) == ETHER // 2 + 2 * ETHER  # what the day's cap has left


async def test_the_daily_cap_holds_over_a_restart_and_ends_with_the_day(rig: Rig) -> None:
    await rig.tend()
    await rig.holds(POOR, 0)
    assert await rig.tend() == 5 * ETHER - ETHER * 5 // 2
    await rig.holds(POOR, 0)
    rig.treasury.close()
    rig.open()
    assert await rig.tend() == 0
    assert "cap leaves 0 wei" in (rig.treasury.problem or "")
    rig.now_s += DAY_S
    assert await rig.tend() == 3 * ETHER
    assert rig.treasury.problem is None


async def test_a_clock_that_goes_back_frees_no_cap(rig: Rig) -> None:
    await rig.tend()
    await rig.holds(POOR, 0)
    await rig.tend()
    await rig.holds(POOR, 0)
    rig.now_s -= 10 * DAY_S
    assert await rig.tend() == 0


async def test_an_empty_treasury_says_so(rig: Rig) -> None:
    await rig.holds(KEY.address, ETHER // 100)
    assert await rig.tend() == ETHER // 2
    assert f"it holds {ETHER // 100} wei" in (rig.treasury.problem or "")


async def test_a_payment_that_nobody_takes_is_sent_again_and_never_paid_twice(rig: Rig) -> None:
    rig.taken = False
    for _ in range(3):
        await rig.tend()
    rig.treasury.close()
    rig.open()  # killed with the payment under way
    rig.taken = True
    assert await rig.tend() == 3 * ETHER
    assert await rig.tend() == 3 * ETHER
    assert len(rig.sent) == 4
    assert await rig.chain.rpc.get_nonce(KEY.address, "latest") == 1


async def test_a_stuck_payment_is_raised_at_the_same_nonce(rig: Rig) -> None:
    await rig.chain.automine(False)
    balances = {POOR: 0}
    for _ in range(4):
        await rig.treasury.tend(balances, await read_head(rig.chain.rpc))
        await rig.chain.rpc.call("anvil_dropAllTransactions")
        await rig.chain.rpc.call("evm_mine")
    assert len(rig.sent) == 2  # at once, and after blocks_before_resubmit
    assert len({*rig.sent}) == 2
    await rig.chain.automine(True)
    await rig.chain.rpc.call("eth_sendRawTransaction", to_hex(rig.sent[-1]))


def test_a_line_cut_by_a_crash_is_forgotten_and_a_damaged_one_refused(tmp_path: Path) -> None:
    path = tmp_path / "ledger"
    ledger = Ledger(path)
    ledger.write(Payment(0, POOR, 7, 1.0, done=True))
    ledger.close()
    whole = path.read_text()
    path.write_text(whole + '{"nonce": 1, "to"')
    again = Ledger(path)
    assert again.spent_wei(2.0) == 7
    again.write(Payment(1, POOR, 1, 2.0))
    again.close()
    third = Ledger(path)
    assert third.spent_wei(2.0) == 8
    third.close()
    path.write_text("nonsense\n" + whole)
    with pytest.raises(SetupError, match=r"line 1 .* damaged"):
        Ledger(path)


async def test_two_bundlers_cannot_share_a_treasury(rig: Rig) -> None:
    other = Ledger(rig.folder / "treasury.ledger")
    assert await rig.tend() == ETHER // 2
    assert "in use" in (rig.treasury.problem or "")
    other.close()
    assert await rig.tend() == 3 * ETHER


@pytest.mark.parametrize("bounds", [(0, 2, 2), (2, 2, 2), (1, 2, 0)], ids=["no lower bound", "an empty band", "no cap"])
def test_a_treasury_needs_bounds_and_a_cap(tmp_path: Path, bounds: tuple[int, int, int]) -> None:
    below, to, cap = bounds
    with pytest.raises(BadInput, match="a treasury needs bounds"):
        Settings(
            rpc_url="http://node",
            executor_key=KeyFile(tmp_path),
            database=tmp_path,
            treasury_key_file=tmp_path,
            refill_below_wei=below,
            refill_to_wei=to,
            refill_daily_cap_wei=cap,
        )


async def test_the_bundler_tops_its_executors_up_and_metrics_tell(own_chain: Chain, tmp_path: Path) -> None:
    key = tmp_path / "treasury.key"
    key.touch(mode=0o600)
    key.write_text(devnet_key("treasury").hex())
    port = free_port()
    settings = settings_for(
        own_chain, tmp_path, treasury_key_file=key, refill_below_wei=ETHER, refill_to_wei=2 * ETHER,
        refill_daily_cap_wei=9 * ETHER, admin_port=port,
    )  # fmt: skip
    executor = settings.executors()[0].address
    await own_chain.rpc.call("anvil_setBalance", to_hex(KEY.address), hex(10 * ETHER))
    await own_chain.rpc.call("anvil_setBalance", to_hex(executor), hex(10**9))
    async with serving(settings) as client:
        op_hash = await client.send(await (await own_chain.account()).operation())
        await own_chain.mine()

        async def rich() -> bool:
            return await own_chain.rpc.get_balance(executor) >= ETHER

        await until(rich, "it is topped up")
        await own_chain.mine(2)
        assert (await client.included(op_hash))["success"] is True
        await own_chain.mine()

        async def settled() -> bool:
            return int((await client.service())["treasury"]["spentToday"], 16) == 2 * ETHER - 10**9

        await until(settled, "it is told")
        async with aiohttp.ClientSession() as session, session.get(f"http://127.0.0.1:{port}/metrics") as answer:
            text = await answer.text()
    assert "seawall_bundler_refilled_wei_total{" in text
    assert "seawall_bundler_treasury_balance_wei{" in text


async def test_the_doctor_looks_at_the_treasury(own_chain: Chain, tmp_path: Path) -> None:
    key = tmp_path / "treasury.key"
    key.touch(mode=0o600)
    key.write_text(devnet_key("treasury").hex())
    settings = settings_for(
        own_chain, tmp_path, safe=False, treasury_key_file=key, refill_below_wei=ETHER, refill_to_wei=2 * ETHER,
        refill_daily_cap_wei=9 * ETHER,
    )  # fmt: skip
    levels = []
    for wei in (2 * ETHER - 1, 2 * ETHER):
        await own_chain.rpc.call("anvil_setBalance", to_hex(KEY.address), hex(wei))
        levels += [one.level for one in await examine(settings) if one.what == "treasury"]
    assert levels == ["warning", "ok"]


async def test_an_executor_that_cannot_pay_for_a_bundle_leaves_it_to_another(own_chain: Chain, tmp_path: Path) -> None:
    settings = lanes(own_chain, tmp_path, 2)
    executors = await fund(own_chain, settings)
    await own_chain.rpc.call("anvil_setBalance", to_hex(executors[0]), hex(10**12))  # more than a lane needs to open
    async with serving(settings) as client:
        op_hash = await client.send(await (await own_chain.account()).operation())
        assert (await client.included(op_hash))["receipt"]["from"] == to_hex(executors[1])
        assert (await client.service())["executors"][0]["low"] is True


async def test_readiness_says_when_nobody_can_pay(own_chain: Chain, tmp_path: Path) -> None:
    settings = settings_for(own_chain, tmp_path)
    executor = settings.executors()[0].address
    await own_chain.rpc.call("anvil_setBalance", to_hex(executor), hex(10**12))
    async with serving(settings) as client:
        op_hash = await client.send(await (await own_chain.account()).operation())

        async def told() -> bool:
            return any("no executor can pay" in why for why in (await client.service())["problems"])

        await until(told, "readiness says so")
        await own_chain.rpc.call("anvil_setBalance", to_hex(executor), hex(ETHER))
        await own_chain.mine()
        assert (await client.included(op_hash))["success"] is True
