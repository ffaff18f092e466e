"""Our own account through the bundler: created by its first operation, then used, on the whole devnet."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from bundler.keys import KeyFile
from bundler.settings import Settings
from contracts.bindings import (
    CREATE_ACCOUNT,
    GET_ACCOUNT_ADDRESS,
    AccountConfig,
    Call,
    ecdsa_owner,
    encode_execute,
)
from contracts.devnet import Devnet
from contracts.devnet.accounts import devnet_key
from contracts.entrypoint import V08
from contracts.entrypoint.base import GET_NONCE
from contracts.eoa import Eoa, TransactionSender
from contracts.types import Hash32, keccak
from contracts.userop import UserOperation
from tests.bundler.rig import DUMMY_SIGNATURE, Client, serving

WAD = 10**18


@pytest.fixture
async def client(devnet: Devnet, tmp_path: Path) -> AsyncIterator[Client]:
    key = tmp_path / "executor.key"
    key.touch(mode=0o600)
    key.write_text(devnet_key("bundler").hex())
    settings = Settings(
        rpc_url=devnet.rpc_url,
        executor_key=KeyFile(key),
        database=tmp_path / "bundler.sqlite",
        port=0,
        entry_points=(V08,),
        drain_timeout_s=0.1,
    )
    async with serving(settings) as client:
        yield client


@pytest.mark.parametrize("cap_wei", [WAD, 10**16], ids=["wide-cap", "cap-near-the-need"])
async def test_risk_account_is_created_used_and_its_estimates_hold(
    devnet: Devnet, client: Client, cap_wei: int
) -> None:
    owner: Eoa = devnet.accounts.owner
    config = AccountConfig(
        owner=ecdsa_owner(owner.address),
        authority=bytes(20),
        admin_delay_s=0,
        prefund_caps_wei=(cap_wei, cap_wei, cap_wei),
        modules=(),
    )
    salt: Hash32 = keccak(f"bundler test {cap_wei}".encode())
    factory = devnet.addresses.risk_account_factory
    answer = await devnet.rpc.eth_call(factory, GET_ACCOUNT_ADDRESS.encode(config.to_abi(), salt))
    (address,) = GET_ACCOUNT_ADDRESS.decode(answer)
    funder = TransactionSender(devnet.rpc, devnet.accounts.trader, devnet.chain_id)
    await funder.transact(address, value=WAD)
    base_fee_wei = int((await devnet.rpc.block())["baseFeePerGas"], 16)
    for nonce in range(3):
        op = UserOperation(
            sender=address,
            nonce=GET_NONCE.decode(await devnet.rpc.eth_call(V08.address, GET_NONCE.encode(address, 0)))[0],
            call_data=encode_execute([Call(devnet.accounts.trader.address, b"", 1)] * (nonce + 1)),
            max_fee_per_gas=2 * base_fee_wei + 10**6,
            max_priority_fee_per_gas=10**6,
            signature=DUMMY_SIGNATURE,
            factory=None if nonce else factory,
            factory_data=b"" if nonce else CREATE_ACCOUNT.encode(config.to_abi(), salt),
        )
        op = await client.estimated(op)
        op = op.replace(signature=owner.sign_hash(V08.user_op_hash(op, devnet.chain_id)))
        receipt = await client.included(await client.send(op))
        assert receipt["success"] is True
        assert receipt["nonce"] == hex(nonce)
    # Its deployment is traced in full; what it does then is proven without.
    assert (await client.service())["validations"] == {"cheap": 2, "full": 1}
