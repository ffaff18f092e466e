"""A plain web3.py program on a risk account: its transactions become judged operations."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from web3 import AsyncHTTPProvider, AsyncWeb3

from contracts import bindings as b
from contracts.errors import BadInput, PolicyRefused
from contracts.types import checksum
from tests.wallet.trading_floor import Floor, Trader, floor_in
from wallet.web3 import through

ERC20 = [
    {
        "type": "function",
        "name": "approve",
        "stateMutability": "nonpayable",
        "inputs": [{"name": "spender", "type": "address"}, {"name": "amount", "type": "uint256"}],
        "outputs": [{"name": "", "type": "bool"}],
    }
]


@pytest.fixture(scope="module")
async def floor(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Floor]:
    async with floor_in(tmp_path_factory.mktemp("floor")) as found:
        yield found


@pytest.fixture
async def trader(floor: Floor, tmp_path: Path) -> Trader:
    found = await floor.trader(tmp_path)
    await found.deploy()
    return found


@pytest.fixture
async def w3(trader: Trader) -> AsyncIterator[AsyncWeb3[AsyncHTTPProvider]]:
    found = AsyncWeb3(AsyncHTTPProvider(trader.net.rpc_url))
    found.middleware_onion.add(through(trader.signer), "seawall")
    yield found
    await found.provider.disconnect()


async def test_a_contract_call_from_the_account_goes_through_policy_and_bundler(
    w3: AsyncWeb3[AsyncHTTPProvider], trader: Trader
) -> None:
    where = trader.net.addresses
    account = checksum(trader.address)
    assert await w3.eth.accounts == [account]
    usdc = w3.eth.contract(address=checksum(where.usdc), abi=ERC20)
    tx_hash = await usdc.functions.approve(checksum(where.perp_vault), 5_000_000).transact({"from": account})
    receipt = await w3.eth.get_transaction_receipt(tx_hash)
    assert receipt["status"] == 1
    assert receipt["to"] == checksum(where.entry_point_v08)
    allowance = await trader.net.rpc.eth_call(where.usdc, b.ALLOWANCE.encode(trader.address, where.perp_vault))
    assert b.ALLOWANCE.decode(allowance) == (5_000_000,)


async def test_what_the_policy_forbids_is_refused(w3: AsyncWeb3[AsyncHTTPProvider], trader: Trader) -> None:
    account, stranger = checksum(trader.address), checksum(trader.net.accounts.trader2.address)
    usdc = w3.eth.contract(address=checksum(trader.net.addresses.usdc), abi=ERC20)
    with pytest.raises(PolicyRefused, match=r"nothing allows the call usdc\.approve"):
        await usdc.functions.approve(stranger, 1).transact({"from": account})


async def test_a_contract_creation_is_refused_with_advice(w3: AsyncWeb3[AsyncHTTPProvider], trader: Trader) -> None:
    with pytest.raises(BadInput, match="deploy through a factory"):
        await w3.eth.send_transaction({"from": checksum(trader.address), "data": "0x6000", "gas": 100_000})


async def test_other_accounts_transactions_go_to_the_node_as_before(
    w3: AsyncWeb3[AsyncHTTPProvider], trader: Trader
) -> None:
    deployer = checksum(trader.net.accounts.deployer.address)
    assert await w3.eth.get_balance(deployer) > 0
