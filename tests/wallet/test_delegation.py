"""An EOA joins by EIP-7702, trades under a policy through the bundler, and leaves: with the command line as a process, and as a library."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from contracts import bindings as b
from contracts.devnet.accounts import devnet_key
from contracts.eip7702 import delegate_of
from contracts.entrypoint import V07, V08
from contracts.eoa import Eoa, TransactionSender
from contracts.errors import BadInput
from contracts.rpc import RpcClient
from contracts.types import checksum, keccak, to_hex
from tests.wallet.cli_rig import PASSPHRASE, Machine
from tests.wallet.trading_floor import Floor, floor_in
from wallet import setup
from wallet.account import AccountClient
from wallet.delegation import ADVISORY, authorize, implementation_of, join, joined, leave
from wallet.keystore import Keystore, Passphrase
from wallet.services import BundlerClient

OPEN = ("trade", "open", "--side", "long", "--notional", "30000", "--collateral", "10000", "--yes", "--json")


@pytest.fixture(scope="module")
async def floor(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Floor]:
    async with floor_in(tmp_path_factory.mktemp("floor")) as found:
        yield found


async def someone(floor: Floor, name: str, *, wei: int = 10**18) -> Eoa:
    """An EOA with money of its own."""
    eoa = Eoa(devnet_key(f"7702 {name}"))
    await floor.net.rpc.call("anvil_setBalance", to_hex(eoa.address), hex(wei))
    return eoa


def test_an_authorisation_is_what_its_signer_gives() -> None:
    eoa = Eoa(keccak(b"key"))
    given = authorize(eoa, b"\x11" * 20, 1, 7)
    assert given.authority() == eoa.address
    assert (given.chain_id, given.delegate, given.nonce) == (1, b"\x11" * 20, 7)


async def test_an_eoa_joins_trades_under_its_policy_and_leaves(floor: Floor, tmp_path: Path) -> None:
    machine = Machine.set_up(floor, tmp_path)
    rpc = floor.net.rpc
    owner = await someone(floor, "newcomer", wei=2 * 10**17)
    Keystore(machine.folder / "keys").add("newcomer", devnet_key("7702 newcomer"), Passphrase(PASSPHRASE), kdf_n=2)
    settings = machine.folder / "seawall.toml"
    settings.write_text(settings.read_text().replace('owner = "owner"', 'owner = "newcomer"'))
    deployer = TransactionSender(rpc, floor.net.accounts.deployer, floor.net.chain_id)
    await deployer.transact(floor.net.addresses.usdc, b.MINT.encode(owner.address, 10_000 * 10**6))
    answer = await machine.run("account", "join-7702", "--yes", "--json")
    assert answer.code == 0, answer.err + answer.out
    where = checksum(owner.address)
    assert answer.data["address"] == where
    assert answer.data["advisory"] == ADVISORY
    assert ADVISORY in answer.err
    assert delegate_of(await rpc.get_code(owner.address)) == floor.net.addresses.risk_account_implementation

    here = {"SEAWALL_ACCOUNT": where}
    refused = await machine.run(*(word if word != "30000" else "45000" for word in OPEN), env=here)
    assert refused.code == 5, refused.err
    assert "leverage" in refused.err
    opened = await machine.run(*OPEN, env=here)
    assert opened.code == 0, opened.err + opened.out
    assert opened.data["decision"]["outcome"] == "allow"
    shown = (await machine.run("account", "show", "--json", env=here)).data
    assert shown["policy"]["name"] == "floor 1"
    assert shown["stops"][0]["status"] == "armed"
    assert shown["freeze"]["guardians"] == 3
    assert shown["advisory"] == ADVISORY
    again = await machine.run("account", "join-7702", "--yes")
    assert again.code == 2
    assert "joined already" in again.err

    left = await machine.run("account", "leave", "--yes", "--json")
    assert left.code == 0, left.err + left.out
    assert await rpc.get_code(owner.address) == b""
    plain = TransactionSender(rpc, owner, floor.net.chain_id)
    assert (await plain.transact(floor.net.accounts.keeper.address, value=1))["status"] == "0x1"
    twice = await machine.run("account", "leave", "--yes")
    assert twice.code == 2
    assert "is no EIP-7702 risk account" in twice.err


async def test_it_joins_again_with_a_clean_slate(floor: Floor) -> None:
    eoa, rpc, chain_id = await someone(floor, "again"), floor.net.rpc, floor.net.chain_id
    code = await implementation_of(rpc, floor.net.addresses.risk_account_factory)
    account = AccountClient(rpc, V08, chain_id, eoa.address)
    async with RpcClient(floor.stage.bundler.url) as client:
        bundler = BundlerClient(client, V08)
        for owner in (eoa, await someone(floor, "another owner")):
            receipt = await join(account, eoa, code, setup.bare_config(owner.address), bundler)
            assert receipt.success
            assert await joined(rpc, eoa.address)
            (signer,) = b.OWNER_SIGNER.decode(await rpc.eth_call(eoa.address, b.OWNER_SIGNER.encode()))
            assert signer == b.ecdsa_owner(owner.address)
            await leave(rpc, eoa, code, chain_id)
            assert not await joined(rpc, eoa.address)


async def test_what_cannot_join_is_told_why(floor: Floor) -> None:
    eoa, rpc, chain_id = await someone(floor, "cannot"), floor.net.rpc, floor.net.chain_id
    code = await implementation_of(rpc, floor.net.addresses.risk_account_factory)
    config = setup.bare_config(eoa.address)
    async with RpcClient(floor.stage.bundler.url) as client:
        with pytest.raises(BadInput, match=r"v0\.7 knows no EIP-7702"):
            await join(AccountClient(rpc, V07, chain_id, eoa.address), eoa, code, config, BundlerClient(client, V07))
        bundler = BundlerClient(client, V08)
        account = AccountClient(rpc, V08, chain_id, eoa.address)
        sender = TransactionSender(rpc, eoa, chain_id)
        nonce = await rpc.get_nonce(eoa.address)
        await sender.delegate(authorize(eoa, floor.net.addresses.usdc, chain_id, nonce + 1))
        with pytest.raises(BadInput, match="leave that first"):
            await join(account, eoa, code, config, bundler)
        with pytest.raises(BadInput, match="it delegates to"):
            await leave(rpc, eoa, code, chain_id)
