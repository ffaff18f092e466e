"""`guards.breaker` on the real devnet: turned on by apply, it reverts a losing trade and latches a drawdown, with no engine in sight."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import closing
from pathlib import Path

import pytest

from contracts import bindings as b
from contracts.bindings import Call, RiskState
from contracts.devnet.uniswap_v3 import EXACT_INPUT_SINGLE, SPOT_FEE_PIPS
from contracts.eoa import TransactionSender
from contracts.types import keccak, to_hex
from tests.wallet.cli_rig import Machine
from tests.wallet.test_apply import DeskOf, settings_of
from tests.wallet.test_hook_apply import CHANGES, HOOKED, hooked, refusal
from tests.wallet.trading_floor import Floor, floor_in, index_wad
from wallet.configuration import read_present
from wallet.keeper.breaker import BreakerKeeper
from wallet.keeper.store import Store
from wallet.keeper.transactions import PlainSender
from wallet.keeper.watch import Head

BREAKER = """\
  breaker:
    loss_per_operation: 0.03%
    loss_per_day: 50%
    drawdown: 5%
    on_drawdown: FROZEN
    change_delay: 0s
    patience: 0s
    assets:
      - {token: usdc, oracle: {feed: feed.usdc, heartbeat: 2d, min_price: 0.98, max_price: 1.02}}
      - {token: weth, quote: usdc, pool_fee: 0.05%, oracle: {feed: feed.eth, heartbeat: 2d, min_price: 1}}
    venues: [perp]
"""
LIMITED = (
    HOOKED.replace("guards:\n", f"guards:\n{BREAKER}", 1)
    .replace('version: "2"', 'version: "3"')
    .replace(
        CHANGES,
        CHANGES.replace("setRule,", "setRule, setBreaker,")
        + "  - {target: seawall.equity_breaker, functions: [announce, configure, resetMark]}\n"
        + "  - {target: uniswap.router, functions: [exactInputSingle]}\n"
        + "  - {target: usdc, functions: [approve], args: {spender: uniswap.router}}\n",
    )
    .replace("{token: usdc, limit: 15000, within: 1d}", "{token: usdc, limit: 90000, within: 1d}")
    .replace("    approvals:\n", "    approvals:\n      - {token: usdc, spender: uniswap.router, cap: 1000000}\n")
)


@pytest.fixture(scope="module")
async def floor(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Floor]:
    async with floor_in(tmp_path_factory.mktemp("floor")) as found:
        yield found


async def limited(floor: Floor, folder: Path) -> Machine:
    machine = await hooked(floor, folder)
    (folder / "policy.yaml").write_text(LIMITED)
    planned = await machine.run("policy", "plan", "--json")
    assert any(key.startswith("module seawall.equity_breaker") for key in settings_of(planned)), planned.out
    for _ in range(2):  # installed; then the hook reports to it
        applied = await machine.run("policy", "apply", "--yes")
        assert applied.code == 0, applied.err + applied.out
    return machine


def swap(floor: Floor, account: bytes, dollars: int) -> list[Call]:
    a, amount = floor.net.addresses, dollars * 10**6
    order = (a.usdc, a.weth, SPOT_FEE_PIPS, account, 2**63, amount, 0, 0)
    return [
        Call(a.usdc, b.APPROVE.encode(a.uniswap_router, amount)),
        Call(a.uniswap_router, EXACT_INPUT_SINGLE.encode(order)),
    ]


async def test_a_losing_trade_reverts_and_a_drawdown_latches_by_the_chain_alone(floor: Floor, tmp_path: Path) -> None:
    machine = await limited(floor, tmp_path)
    planned = await machine.run("policy", "plan", "--exit-code")
    assert planned.code == 0, planned.out
    rpc, a = floor.net.rpc, floor.net.addresses
    async with DeskOf(machine) as (desk, _):
        account = desk.account.address
        present = await read_present(rpc, account, desk.book)
        assert present.hook_breaker == a.equity_breaker
        assert present.breaker is not None
        stranger = TransactionSender(rpc, floor.net.accounts.trader2, floor.net.chain_id)
        await stranger.transact(a.equity_breaker, b.POKE.encode(account))  # the first look: the mark begins
        answer = await rpc.eth_call(a.equity_breaker, b.BREAKER_STANDING_OF.encode(account))
        ((mark, *_),) = b.BREAKER_STANDING_OF.decode(answer)
        assert mark > 50_000 * 10**18
        # The pool's fee and depth are a loss: of 1,000 dollars within 0.03 % of the equity, of 45,000 above it.
        assert await refusal(desk, swap(floor, account, 1_000)) == ""
        wanted = to_hex(keccak(b"LossPerOperation(uint256,uint256)")[:4])
        assert await refusal(desk, swap(floor, account, 45_000)) == wanted
    await floor.net.market.move_to(await index_wad(floor.net) * 70 // 100)
    await stranger.transact(a.equity_breaker, b.POKE.encode(account))
    state, _ = b.RISK_STATE.decode(await rpc.eth_call(account, b.RISK_STATE.encode()))
    assert RiskState(state) is RiskState.FROZEN


async def test_the_keeper_looks_where_no_operation_does_and_latches(floor: Floor, tmp_path: Path) -> None:
    machine = await limited(floor, tmp_path)
    rpc, a = floor.net.rpc, floor.net.addresses
    async with DeskOf(machine) as (desk, _):
        account = desk.account.address
    with closing(Store(tmp_path / "breaker.db")) as store:
        said: list[dict[str, object]] = []
        keeper = BreakerKeeper(
            rpc=rpc,
            multicall3=a.multicall3,
            breaker=a.equity_breaker,
            session_validator=a.session_validator,
            key=floor.net.accounts.keeper.address,
            from_block=0,
            listed=[account],
            plain=PlainSender(
                rpc, floor.net.accounts.keeper, floor.net.chain_id, a.equity_breaker, store, replace_after_blocks=3
            ),
            min_priority_fee_wei=10**9,
            log=said.append,
        )

        async def state() -> RiskState:
            found, _ = b.RISK_STATE.decode(await rpc.eth_call(account, b.RISK_STATE.encode()))
            return RiskState(found)

        async def look(times: int) -> None:
            for _ in range(times):
                await keeper.process(Head.from_rpc(await rpc.block()))
                await rpc.call("evm_mine")

        await look(3)
        assert keeper.accounts == [account]
        assert [line["reason"] for line in said] == ["first look"]
        await look(3)
        assert len(said) == 1, "nothing is new"
        assert await state() is RiskState.ACTIVE
        await floor.net.market.move_to(await index_wad(floor.net) * 70 // 100)
        await look(2)
        assert await state() is RiskState.FROZEN
        assert said[-1]["reason"] == "breach lasted"
        await look(2)
        assert len(said) == 2, "a frozen account is left alone"
