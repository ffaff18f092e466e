"""A node without eth_simulateV1: the same facts by tracing, on every venue; what it needs is said when it has neither."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Coroutine
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from contracts import bindings as b
from contracts.abi import Function
from contracts.bindings import Call
from contracts.devnet import Devnet
from contracts.devnet.chain import FOREVER
from contracts.eoa import TransactionSender
from contracts.errors import NodeError
from contracts.rpc import RpcClient
from contracts.types import keccak
from contracts.units import WAD
from policies.portfolio import Facts
from tests.devnet.rig import person
from tests.wallet.lesser_node import LesserNode, lesser_node
from tests.wallet.test_facts import calls_on_aave, open_directly
from tests.wallet.test_options import order
from tests.wallet.trading_floor import POLICY, Trader, trader_on
from wallet.effects import MovedHead
from wallet.execution import merged, opened, overrides_of
from wallet.sign import Signer
from wallet.simulate import simulate

STRANGER = keccak(b"stranger")[:20]
SWAP = Function.parse("exactInputSingle((address,address,uint24,address,uint256,uint256,uint256,uint160))")
Making = Callable[[Trader], Coroutine[Any, Any, list[Call]]]


async def perp(trader: Trader) -> list[Call]:
    return await trader.opening()


async def aave(trader: Trader) -> list[Call]:
    return calls_on_aave(trader)


async def swap(trader: Trader) -> list[Call]:
    a = trader.net.addresses
    path = (a.usdc, a.weth, 500, trader.address, FOREVER, 3_000 * 10**6, 1, 0)
    return [
        Call(a.usdc, b.APPROVE.encode(a.uniswap_router, 3_000 * 10**6)),
        Call(a.uniswap_router, SWAP.encode(path)),
    ]


async def option(trader: Trader) -> list[Call]:
    giver = person(trader.net, trader.net.accounts.trader)
    await giver.do(trader.net.addresses.lyra_quote, "transfer(address,uint256)", trader.address, 500_000 * WAD)
    calls, _ = await order(trader, 0, 5)  # type: ignore[arg-type]
    return calls


async def approval(trader: Trader) -> list[Call]:
    return [Call(trader.net.addresses.usdc, b.APPROVE.encode(STRANGER, 2**256 - 1))]


async def payment(trader: Trader) -> list[Call]:
    await TransactionSender(trader.net.rpc, trader.net.accounts.deployer, trader.net.chain_id).transact(
        trader.address, value=10**18
    )
    return [Call(STRANGER, b"", 10**17)]


async def too_much(trader: Trader) -> list[Call]:
    return [Call(trader.net.addresses.usdc, b.TRANSFER.encode(STRANGER, 10**15))]


@pytest.fixture
async def old(chain: Devnet) -> AsyncIterator[tuple[LesserNode, RpcClient]]:
    """The devnet without eth_simulateV1."""
    async with lesser_node(chain.rpc_url, "eth_simulateV1") as found:
        yield found


def over(signer: Signer, rpc: RpcClient) -> Signer:
    return replace(signer, account=replace(signer.account, rpc=rpc))


async def facts_of(signer: Signer, calls: list[Call]) -> tuple[Facts, int]:
    """The facts of the operation with these calls, on the block of now."""
    assert signer.reader is not None
    op = await signer.account.draft(calls, max_fee_wei=2 * 10**9, priority_fee_wei=1)
    return await signer.reader.read(signer.account, op, sponsored=False, outstanding=lambda *_: ())


@pytest.mark.parametrize("making", [perp, aave, swap, option, approval, payment, too_much], ids=lambda f: f.__name__)
@pytest.mark.parametrize("born", [True, False], ids=["an account that is there", "its first operation"])
async def test_a_trace_gives_the_facts_that_a_simulation_gives(
    trader: Trader, old: tuple[LesserNode, RpcClient], making: Making, born: bool
) -> None:
    if born:
        await trader.deploy()
    calls = await making(trader)
    expected, gas = await facts_of(trader.signer, calls)
    found, traced_gas = await facts_of(over(trader.signer, old[1]), calls)
    assert found == expected
    assert traced_gas == gas
    assert expected.succeeded is (making is not too_much)
    assert expected.before != expected.after or making is too_much
    assert old[0].asked["eth_simulateV1"] == 1


async def test_closing_a_position_zeroes_storage_and_gives_the_same_facts(
    trader: Trader, old: tuple[LesserNode, RpcClient]
) -> None:
    await open_directly(trader)
    calls = await trader.closing()
    expected, _ = await facts_of(trader.signer, calls)
    found, _ = await facts_of(over(trader.signer, old[1]), calls)
    assert found == expected
    assert expected.after.positions == ()


async def test_that_a_node_lacks_the_method_is_asked_once(trader: Trader, old: tuple[LesserNode, RpcClient]) -> None:
    node, rpc = old
    signer = over(trader.signer, rpc)
    for _ in range(3):
        await signer.judge(await trader.opening())
    assert node.asked["eth_simulateV1"] == 1


async def test_a_passing_failure_is_not_taken_for_a_missing_method(chain: Devnet, trader: Trader) -> None:
    for code, text in (
        (-32005, "rate limit exceeded"),
        (-32603, "method handler crashed"),
        (-32000, "header not found"),
    ):
        async with lesser_node(chain.rpc_url, fails={"eth_simulateV1": (1, code, text)}) as (node, rpc):
            signer = over(trader.signer, rpc)
            with pytest.raises(NodeError, match=text):
                await signer.judge(await trader.opening())
            assert (await signer.judge(await trader.opening())).facts.succeeded
            assert node.asked["debug_traceCall"] == 0


async def test_a_node_with_neither_says_what_it_needs(chain: Devnet, trader: Trader) -> None:
    async with lesser_node(chain.rpc_url, "eth_simulateV1", "debug_traceCall") as (_, rpc):
        for _ in range(2):
            with pytest.raises(
                NodeError, match=r"neither eth_simulateV1 nor debug_traceCall.*geth 1\.14\.9.*debug namespace"
            ):
                await over(trader.signer, rpc).judge(await trader.opening())


async def test_a_node_that_ignores_overrides_is_not_believed(chain: Devnet, trader: Trader) -> None:
    """It would answer with the state before: every limit would pass."""
    async with lesser_node(chain.rpc_url, "eth_simulateV1", ignores_overrides=True) as (_, rpc):
        with pytest.raises(NodeError, match="eth_call does not take state and block overrides"):
            await over(trader.signer, rpc).judge(await trader.opening())


async def test_a_reorganised_block_is_read_anew(
    chain: Devnet, trader: Trader, old: tuple[LesserNode, RpcClient]
) -> None:
    await trader.deploy()
    head = await chain.rpc.block()
    await chain.rpc.call("anvil_reorg", 1, [])
    with pytest.raises(MovedHead):
        await simulate(old[1], trader.signer.account.entry_point, chain.addresses.multicall3, None, [], head=head)


# -- whom an operation touches ------------------------------------------------------------------------------------------------------

TOUCHING = POLICY.replace(
    "limits:\n",
    "limits:\n  - {id: touched, metric: contracts_touched, scope: operation, max: 30}\n"
    "  - {id: parties, metric: counterparties, scope: operation, max: 3}\n",
)


async def touching(trader: Trader, tmp_path: Path) -> Trader:
    return await trader_on(trader.net, tmp_path, bundler=trader.signer.bundler.rpc, policy=TOUCHING, salt="touching")


async def test_contracts_and_counterparties_come_from_what_ran(trader: Trader, tmp_path: Path) -> None:
    """A deposit names the vault; that the vault pays on, and what stands behind it, only the trace knows."""
    found = await touching(trader, tmp_path)
    a = found.net.addresses
    judgement = await found.signer.judge(await found.opening())
    facts = judgement.facts
    assert facts.missing == ()
    assert facts.touched is not None
    assert facts.counterparties is not None
    assert {a.usdc, a.perp_vault, a.perp_clearing_house, a.perp_exchange, a.perp_pool} <= set(facts.touched)
    assert found.address not in facts.touched
    assert a.perp_vault in facts.counterparties
    row = next(row for row in judgement.decision.limits if row.id == "touched")
    assert row.after is not None
    assert row.after > len({call.target for call in facts.calls.calls})
    assert "perp.exchange" in dict(row.contributions)


async def test_a_receiver_that_no_call_can_be_read_for_is_seen(trader: Trader, tmp_path: Path) -> None:
    found = await touching(trader, tmp_path)
    deep = Call(found.net.addresses.usdc, b.TRANSFER.encode(STRANGER, 7))
    for _ in range(10):  # deeper than decoding goes
        deep = Call(found.address, b.encode_execute([deep]))
    facts = (await found.signer.judge([deep])).facts
    assert STRANGER in (facts.counterparties or ())
    assert found.net.addresses.usdc in (facts.touched or ())


async def test_where_the_node_cannot_trace_a_limit_that_asks_denies(trader: Trader, tmp_path: Path) -> None:
    found = await touching(trader, tmp_path)
    async with lesser_node(trader.net.rpc_url, "debug_traceCall") as (node, rpc):
        decision = (await over(found.signer, rpc).judge(await found.opening())).decision
        assert decision.outcome == "deny"
        assert any(
            "the calls inside the operation is missing" in text and "debug_traceCall" in text
            for text in decision.objections
        )
        assert (await over(trader.signer, rpc).judge(await trader.opening())).decision.allowed
    assert node.asked["debug_traceCall"] >= 1


async def test_a_policy_that_does_not_ask_is_not_traced(trader: Trader) -> None:
    async with lesser_node(trader.net.rpc_url) as (node, rpc):
        facts = (await over(trader.signer, rpc).judge(await trader.opening())).facts
    assert (facts.touched, facts.counterparties) == (None, None)
    assert node.asked["debug_traceCall"] == 0


# -- the shapes that nodes answer with ----------------------------------------------------------------------------------------------


def test_what_only_the_state_before_has_became_zero_or_is_gone() -> None:
    diff = {
        "pre": {
            "0xa": {"balance": "0x1", "storage": {"0x1": "0x5", "0x2": "0x6"}},
            "0xb": {"balance": "0x9", "code": "0xfe"},
        },
        "post": {"0xa": {"balance": "0x2", "storage": {"0x2": "0x7"}}, "0xc": {"nonce": 1, "code": "0x60"}},
    }
    assert overrides_of(diff) == {
        "0xa": {"balance": "0x2", "stateDiff": {"0x1": "0x" + "0" * 64, "0x2": "0x7"}},
        "0xb": {"balance": "0x0", "nonce": "0x0", "code": "0x", "state": {}},
        "0xc": {"nonce": "0x1", "code": "0x60"},
    }


def test_one_change_after_another() -> None:
    gone = {"balance": "0x0", "nonce": "0x0", "code": "0x", "state": {}}
    first = {"0xa": {"nonce": "0x1", "stateDiff": {"0x1": "0x5", "0x2": "0x6"}}, "0xb": gone, "0xd": {"balance": "0x3"}}
    then = {
        "0xa": {"balance": "0x9", "stateDiff": {"0x2": "0x7"}},
        "0xb": {"nonce": "0x2", "stateDiff": {"0x1": "0x1"}},
        "0xd": gone,
    }
    assert merged(first, then) == {
        "0xa": {"nonce": "0x1", "balance": "0x9", "stateDiff": {"0x1": "0x5", "0x2": "0x7"}},
        "0xb": {"balance": "0x0", "nonce": "0x2", "code": "0x", "state": {"0x1": "0x1"}},
        "0xd": gone,
    }


def frame(to: int, *calls: dict[str, Any], logs: tuple[tuple[int, int], ...] = (), **more: Any) -> dict[str, Any]:
    entries = [{"address": f"0x{to:040x}", "topics": [], "data": f"0x{n:02x}", "position": hex(at)} for n, at in logs]
    return {
        "type": "CALL",
        "from": "0x" + "00" * 20,
        "to": f"0x{to:040x}",
        "calls": list(calls),
        "logs": entries,
        **more,
    }


def test_events_stand_in_the_order_of_execution_and_reverted_calls_have_none() -> None:
    failed = frame(3, frame(4, logs=((9, 0),)), logs=((8, 1),), error="execution reverted")
    tree = frame(1, frame(2, logs=((2, 0),)), failed, frame(5, logs=((4, 0),)), logs=((1, 0), (3, 2), (5, 3)))
    frames, logs = opened(tree)
    assert [log.data[0] for log in logs] == [1, 2, 3, 4, 5]
    assert [(f.target[-1], f.lasting) for f in frames] == [(1, True), (2, True), (3, False), (4, False), (5, True)]


def test_a_call_tree_as_deep_as_the_evm_allows_is_opened() -> None:
    tree = frame(1)
    for _ in range(1_024):
        tree = frame(1, tree)
    assert len(opened(tree)[0]) == 1_025
