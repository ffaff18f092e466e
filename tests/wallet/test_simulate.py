"""Simulation against the real venues: what an operation would do, without doing it."""

from __future__ import annotations

import pytest

from contracts import bindings as b
from contracts.bindings import Call
from contracts.devnet import Devnet
from contracts.errors import NodeError, NodeUnreachable
from contracts.rpc import RpcClient
from contracts.types import keccak
from policies.venues.perp_v2 import GET_SIZE
from tests.wallet.keeper_rig import free_port
from tests.wallet.trading_floor import Trader
from wallet.simulate import MovedHead, simulate

NOBODY = keccak(b"nobody")[:20]


def size_read(trader: Trader) -> tuple[bytes, bytes]:
    a = trader.net.addresses
    return a.perp_account_balance, GET_SIZE.encode(trader.address, a.perp_base_token)


async def test_an_account_that_does_not_exist_yet_is_made_in_the_simulation_only(chain: Devnet, trader: Trader) -> None:
    account = trader.signer.account
    op = await account.draft(await trader.opening(), max_fee_wei=2 * 10**9, priority_fee_wei=1)
    assert op.factory is not None
    effects = await simulate(
        chain.rpc, account.entry_point, chain.addresses.multicall3, op, [size_read(trader), (NOBODY, b"")]
    )
    assert effects.success, effects.return_data.hex()
    before, after = (GET_SIZE.decode(answers[0] or b"")[0] for answers in (effects.before, effects.after))
    assert before == 0
    assert 9 * 10**18 < after < 11 * 10**18
    assert effects.gas_used > 100_000
    assert effects.logs
    assert not await account.deployed()


async def test_a_reverting_operation_reports_why_and_leaves_nothing(chain: Devnet, trader: Trader) -> None:
    await trader.deploy()
    account = trader.signer.account
    poor = Call(chain.addresses.usdc, b.TRANSFER.encode(NOBODY, 10**15))
    op = await account.draft([poor], max_fee_wei=2 * 10**9, priority_fee_wei=1)
    effects = await simulate(
        chain.rpc,
        account.entry_point,
        chain.addresses.multicall3,
        op,
        [(chain.addresses.usdc, b.BALANCE_OF.encode(account.address))],
    )
    assert not effects.success
    assert b"ERC20: transfer amount exceeds balance" in effects.return_data
    assert effects.before == effects.after
    assert effects.logs == ()


async def test_an_account_that_cannot_be_made_is_the_operations_failure(chain: Devnet, trader: Trader) -> None:
    account = trader.signer.account
    op = await account.draft(await trader.opening(), max_fee_wei=2 * 10**9, priority_fee_wei=1)
    broken = op.replace(factory_data=op.factory_data[:40])
    effects = await simulate(chain.rpc, account.entry_point, chain.addresses.multicall3, broken, [size_read(trader)])
    assert not effects.success


async def test_a_read_that_reverts_is_none_and_the_others_stand(chain: Devnet, trader: Trader) -> None:
    a = chain.addresses
    reads = [(a.usdc, b"\xde\xad\xbe\xef"), (a.usdc, b.BALANCE_OF.encode(trader.address))]
    effects = await simulate(chain.rpc, trader.signer.account.entry_point, a.multicall3, None, reads)
    assert effects.success
    assert effects.before[0] is None
    assert b.BALANCE_OF.decode(effects.before[1] or b"") == (10_000 * 10**6,)


async def test_no_multicall_is_an_error_that_says_so(chain: Devnet, trader: Trader) -> None:
    with pytest.raises(NodeError, match="Multicall3"):
        await simulate(chain.rpc, trader.signer.account.entry_point, chain.addresses.usdc, None, [size_read(trader)])


async def test_no_node_is_an_error_of_its_own(trader: Trader) -> None:
    async with RpcClient(f"http://127.0.0.1:{free_port()}") as nobody:
        with pytest.raises(NodeUnreachable):
            await simulate(nobody, trader.signer.account.entry_point, NOBODY, None, [])


async def test_a_block_that_the_chain_replaced_is_not_read_on(chain: Devnet, trader: Trader) -> None:
    await trader.deploy()
    head = await chain.rpc.block()
    await chain.rpc.call("anvil_reorg", 1, [])
    with pytest.raises(MovedHead, match="reorganised"):
        await simulate(
            chain.rpc,
            trader.signer.account.entry_point,
            chain.addresses.multicall3,
            None,
            [size_read(trader)],
            head=head,
        )


async def test_reads_after_may_differ_from_reads_before(chain: Devnet, trader: Trader) -> None:
    a = chain.addresses
    account = trader.signer.account
    op = await account.draft(await trader.opening(), max_fee_wei=2 * 10**9, priority_fee_wei=1)
    balance = (a.usdc, b.BALANCE_OF.encode(trader.address))
    effects = await simulate(
        chain.rpc, account.entry_point, a.multicall3, op, [balance], reads_after=[balance, size_read(trader)]
    )
    assert (len(effects.before), len(effects.after)) == (1, 2)
    assert GET_SIZE.decode(effects.after[1] or b"")[0] > 0
