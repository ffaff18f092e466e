"""Guardians on the real chain: one stops, a quorum and a delay let go."""

from __future__ import annotations

import pytest

from contracts.bindings import RiskState
from contracts.devnet import Devnet
from contracts.eoa import Eoa, TransactionSender
from contracts.errors import BadInput, RpcError
from tests.wallet.trading_floor import Trader, now_s
from wallet import freezing


def sender(net: Devnet, eoa: Eoa) -> TransactionSender:
    return TransactionSender(net.rpc, eoa, net.chain_id)


async def later(net: Devnet, seconds: int) -> None:
    await net.rpc.call("evm_increaseTime", seconds)
    await net.rpc.call("evm_mine")


async def test_one_guardian_freezes_at_once_and_it_expires(chain: Devnet, trader: Trader) -> None:
    await trader.deploy()
    module, account = chain.addresses.emergency_freeze, trader.address
    guardian = sender(chain, chain.accounts.guardian)
    await freezing.freeze(guardian, module, account, RiskState.FROZEN)
    now = await freezing.status(chain.rpc, module, account)
    assert now.state is RiskState.FROZEN
    assert (now.guardians, now.quorum) == (3, 2)
    assert now.solo_until_s == await now_s(chain) + 1_800
    with pytest.raises(RpcError):
        await freezing.expire(sender(chain, chain.accounts.trader), module, account)
    await later(chain, 1_801)
    await freezing.expire(sender(chain, chain.accounts.trader), module, account)
    assert (await freezing.status(chain.rpc, module, account)).state is RiskState.ACTIVE


async def test_a_quorum_thaws_after_the_delay_whoever_hands_it_in(chain: Devnet, trader: Trader) -> None:
    await trader.deploy()
    module, account, people = chain.addresses.emergency_freeze, trader.address, chain.accounts
    anyone = sender(chain, people.trader)
    await freezing.freeze(sender(chain, people.guardian), module, account, RiskState.REDUCE_ONLY)
    now = await freezing.status(chain.rpc, module, account)
    expiry = await now_s(chain) + 3_600
    signed = [
        (
            guardian.address,
            freezing.sign_thaw(guardian, module, chain.chain_id, account, RiskState.ACTIVE, now, expiry),
        )
        for guardian in (people.guardian3, people.guardian2)
    ]
    with pytest.raises(RpcError):
        await freezing.request_thaw(anyone, module, account, RiskState.ACTIVE, expiry, signed[:1])
    await freezing.request_thaw(anyone, module, account, RiskState.ACTIVE, expiry, signed)
    waiting = await freezing.status(chain.rpc, module, account)
    assert waiting.state is RiskState.REDUCE_ONLY
    assert waiting.thaw_to is RiskState.ACTIVE
    assert waiting.thaw_at_s == await now_s(chain) + 600
    with pytest.raises(RpcError):
        await freezing.thaw(anyone, module, account)
    await later(chain, 601)
    await freezing.thaw(anyone, module, account)
    assert (await freezing.status(chain.rpc, module, account)).state is RiskState.ACTIVE


async def test_signatures_of_an_earlier_freeze_do_not_thaw_a_later_one(chain: Devnet, trader: Trader) -> None:
    await trader.deploy()
    module, account, people = chain.addresses.emergency_freeze, trader.address, chain.accounts
    before = await freezing.status(chain.rpc, module, account)
    expiry = await now_s(chain) + 3_600
    signed = [
        (g.address, freezing.sign_thaw(g, module, chain.chain_id, account, RiskState.ACTIVE, before, expiry))
        for g in (people.guardian, people.guardian2)
    ]
    await freezing.freeze(sender(chain, people.guardian), module, account, RiskState.FROZEN)
    with pytest.raises(RpcError):
        await freezing.request_thaw(sender(chain, people.trader), module, account, RiskState.ACTIVE, expiry, signed)


async def test_who_is_no_guardian_cannot_freeze_and_is_told_so(chain: Devnet, trader: Trader) -> None:
    await trader.deploy()
    with pytest.raises(BadInput, match="is no guardian of"):
        await freezing.freeze(
            sender(chain, chain.accounts.trader), chain.addresses.emergency_freeze, trader.address, RiskState.FROZEN
        )


async def test_a_freeze_can_only_make_it_stricter(chain: Devnet, trader: Trader) -> None:
    await trader.deploy()
    module = chain.addresses.emergency_freeze
    await freezing.freeze(sender(chain, chain.accounts.guardian), module, trader.address, RiskState.FROZEN)
    with pytest.raises(BadInput, match="FROZEN already"):
        await freezing.freeze(sender(chain, chain.accounts.guardian2), module, trader.address, RiskState.REDUCE_ONLY)


async def test_an_account_without_the_module_says_so(chain: Devnet) -> None:
    with pytest.raises(BadInput, match="has no EmergencyFreeze"):
        await freezing.status(chain.rpc, chain.addresses.emergency_freeze, chain.accounts.trader.address)
