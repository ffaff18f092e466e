"""The whole way on the devnet: a RiskAccount without a wei of its own is created and used at the sponsor's cost."""

from __future__ import annotations

from pathlib import Path

from contracts.bindings import (
    CREATE_ACCOUNT,
    GET_ACCOUNT_ADDRESS,
    AccountConfig,
    Call,
    ecdsa_owner,
    encode_execute,
)
from contracts.devnet import Devnet
from contracts.devnet.chain import Builder
from contracts.entrypoint import USER_OPERATION_EVENT, V08
from contracts.eoa import TransactionSender
from contracts.types import keccak, parse_bytes, parse_hash, to_hex
from contracts.userop import required_prefund
from tests.paymaster.rig import Chain, operation, sponsoring


async def test_an_account_without_funds_is_created_and_used(devnet: Devnet, tmp_path: Path) -> None:
    now_s = int((await devnet.rpc.block())["timestamp"], 16)
    owner, paymaster = devnet.accounts.owner, devnet.addresses.verifying_paymaster
    chain = Chain(
        devnet.rpc,
        Builder(devnet.rpc, devnet.accounts, now_s),
        devnet.accounts,
        {V08.address: paymaster},
    )
    config = AccountConfig(ecdsa_owner(owner.address), bytes(20), 0, (0, 0, 0), ())
    salt = keccak(b"sponsored")
    factory = devnet.addresses.risk_account_factory
    (account,) = GET_ACCOUNT_ADDRESS.decode(
        await devnet.rpc.eth_call(factory, GET_ACCOUNT_ADDRESS.encode(config.to_abi(), salt))
    )
    bundler = TransactionSender(devnet.rpc, devnet.accounts.trader2, devnet.chain_id)
    spent_wei = 0
    async with sponsoring(chain, tmp_path, confirmations=0) as sponsor:
        for nonce in range(2):
            op = operation(
                account,
                nonce,
                call_data=encode_execute([Call(owner.address, b"note %d" % nonce)]),
                factory=None if nonce else factory,
                factory_data=b"" if nonce else CREATE_ACCOUNT.encode(config.to_abi(), salt),
                verification_gas_limit=2_000_000,
            )
            op = await sponsor.data(op)
            op = op.replace(signature=owner.sign_hash(V08.user_op_hash(op, devnet.chain_id)))
            receipt = await bundler.transact(
                V08.address, V08.encode_handle_ops([op], devnet.accounts.trader2.address), gas=5_000_000
            )
            (event,) = (
                USER_OPERATION_EVENT.decode([parse_hash(t) for t in log["topics"]], parse_bytes(log["data"]))
                for log in receipt["logs"]
                if log["topics"][0] == to_hex(USER_OPERATION_EVENT.topic)
            )
            _, sender, payer, _, success, cost_wei, _ = event
            assert (sender, payer, success) == (account, paymaster, True)
            assert cost_wei <= required_prefund(op)
            spent_wei += cost_wei
            status = await sponsor.status()
            assert (status["spentWei"], status["heldWei"], status["settled"]) == (str(spent_wei), "0", nonce + 1)
    assert await devnet.rpc.get_balance(account) == 0
