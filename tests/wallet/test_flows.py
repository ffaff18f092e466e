"""Payments into and out of an account on the real chain: a deposit is no profit, and a trade with a venue is no payment."""

from __future__ import annotations

from dataclasses import replace
from decimal import Decimal

import pytest

from contracts import bindings as b
from contracts.eoa import TransactionSender
from contracts.errors import BadInput
from contracts.rpc import RpcClient
from contracts.types import Address, keccak, to_hex
from policies.limits import Limit, Parameters, Scope
from policies.portfolio import Price
from tests.wallet.keeper_rig import free_port
from tests.wallet.test_sizing import order
from tests.wallet.trading_floor import COLLATERAL, Trader, book_on
from wallet.audit_verify import verify
from wallet.facts import tokens_of
from wallet.flows import paid_in_between

ETH = (Price("ETH", Decimal(2_000), 0, "test"),)


async def paid_in(trader: Trader, first_block: int, prices: tuple[Price, ...] = ETH) -> Decimal:
    rpc, book = trader.net.rpc, book_on(trader.net)
    entry_point, last = trader.signer.account.entry_point, await rpc.block_number()
    return await paid_in_between(rpc, entry_point, trader.address, tokens_of(book), book, prices, first_block, last)


async def pay_in(trader: Trader, usdc: int) -> None:
    sender = TransactionSender(trader.net.rpc, trader.net.accounts.deployer, trader.net.chain_id)
    await sender.transact(trader.net.addresses.usdc, b.MINT.encode(trader.address, usdc * 10**6))


async def gas_money(trader: Trader) -> None:
    """Native coin, so that the account can send a transaction of its own here; it would look like a profit, so it comes first."""
    await trader.net.rpc.call("anvil_setBalance", to_hex(trader.address), hex(10**18))


async def pay_out(trader: Trader, to: Address, usdc: int) -> None:
    """The account's own transfer, as the chain sees it."""
    rpc, me = trader.net.rpc, to_hex(trader.address)
    await rpc.call("anvil_impersonateAccount", me)
    transfer = {
        "from": me,
        "to": to_hex(trader.net.addresses.usdc),
        "data": to_hex(b.TRANSFER.encode(to, usdc * 10**6)),
    }
    sent = await rpc.call("eth_sendTransaction", transfer | {"gas": hex(200_000)})
    await rpc.wait_receipt(bytes.fromhex(sent[2:]))
    await rpc.call("anvil_stopImpersonatingAccount", me)


async def test_what_strangers_send_is_paid_in(trader: Trader) -> None:
    start = await trader.net.rpc.block_number() + 1
    assert await paid_in(trader, start) == 0
    await pay_in(trader, 1_500)
    await pay_in(trader, 500)
    assert await paid_in(trader, start) == 2_000
    assert await paid_in(trader, await trader.net.rpc.block_number()) == 500


async def test_what_goes_to_people_and_named_roles_is_paid_out(trader: Trader) -> None:
    await trader.deploy()
    await gas_money(trader)
    start = await trader.net.rpc.block_number() + 1
    await pay_out(trader, trader.net.accounts.owner.address, 300)
    await pay_out(trader, keccak(b"somebody without code")[:20], 200)
    assert await paid_in(trader, start) == -500


async def test_what_goes_to_a_venue_or_an_unknown_contract_is_no_payment(trader: Trader) -> None:
    await trader.deploy()
    await gas_money(trader)
    start = await trader.net.rpc.block_number() + 1
    await pay_out(trader, trader.net.addresses.perp_vault, 300)
    await pay_out(trader, trader.net.addresses.risk_account_factory, 200)
    assert await paid_in(trader, start) == 0


async def test_a_token_without_a_price_is_named(trader: Trader) -> None:
    start = await trader.net.rpc.block_number() + 1
    owner = TransactionSender(trader.net.rpc, trader.net.accounts.deployer, trader.net.chain_id)
    weth = trader.net.addresses.weth
    await owner.transact(weth, bytes.fromhex("d0e30db0"), value=10**18)
    await owner.transact(weth, b.TRANSFER.encode(trader.address, 10**18 // 2))
    assert await paid_in(trader, start) == 1_000
    with pytest.raises(BadInput, match="no price"):
        await paid_in(trader, start, ())


def watched(trader: Trader, bound: int = 1_000) -> Trader:
    """The same trader under a limit on the loss of a day."""
    engine = trader.signer.engine
    assert engine is not None
    loss = Limit("day", "loss", Scope(), True, Decimal(bound), parameters=Parameters(window_s=86_400))
    policy = replace(trader.policy, limits=(*trader.policy.limits, loss))
    return replace(trader, signer=replace(trader.signer, engine=replace(engine, policy=policy)))


async def test_a_deposit_hides_no_loss_and_a_withdrawal_is_none(trader: Trader) -> None:
    await trader.deploy()
    await gas_money(trader)
    known = watched(trader)
    first = await known.signer.judge(await order(trader, Decimal(20_000)))
    day = {row.id: row for row in first.decision.limits}["day"]
    assert day.before == 0, "the record of an account that has done nothing begins with it"
    await pay_in(trader, 3_000)
    await pay_out(trader, trader.net.accounts.owner.address, 1_000)
    second = await known.signer.judge(await order(trader, Decimal(20_000)))
    assert second.facts.history is not None
    assert [p.paid_in for p in second.facts.history.equity][-1] == 2_000
    day = {row.id: row for row in second.decision.limits}["day"]
    assert day.before is not None
    assert day.before < 1, "the gas of the transfer"
    assert day.after is not None
    assert day.after < 200, "at most the fee and the slippage of this order"
    await pay_out(trader, trader.net.addresses.risk_account_factory, 1_500)
    third = await known.signer.judge(await order(trader, Decimal(20_000)))
    assert {row.id: row.verdict for row in third.decision.limits}["day"] == "deny", (
        "lost to a contract that nobody knows"
    )
    engine = known.signer.engine
    assert engine is not None
    assert verify(engine.log).sound
    assert COLLATERAL == 10_000


async def test_payments_that_cannot_be_read_deny(trader: Trader) -> None:
    await trader.deploy()
    known = watched(trader)
    calls = await order(trader, Decimal(20_000))
    await known.signer.judge(calls)
    await trader.net.rpc.call("evm_mine")
    assert known.signer.reader is not None
    sound = known.signer.account.rpc

    class NoLogs(RpcClient):
        """The real node, but for logs, which it does not answer (as nodes with a small range do)."""

        async def call(self, method: str, *params: object) -> object:
            return await sound.call("eth_noSuchMethod" if method == "eth_getLogs" else method, *params)

    async with NoLogs(f"http://127.0.0.1:{free_port()}") as rpc:
        signer = replace(known.signer, account=replace(known.signer.account, rpc=rpc))
        judged = await signer.judge(calls)
    assert not judged.decision.allowed
    assert any("payments into and out of the account" in text for text in judged.decision.objections)
    assert judged.decision.sizes is None
