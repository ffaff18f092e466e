"""Our own account, validator and paymaster on entry point v0.9: born, traded with and paid for through a bundler in safe mode."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from bundler.keys import KeyFile
from bundler.settings import Settings
from contracts import deploy
from contracts.bindings import AccountConfig, Call, ecdsa_owner, encode_execute
from contracts.devnet import Devnet
from contracts.devnet.accounts import devnet_key
from contracts.entrypoint import V07, V08, V09
from contracts.entrypoint.base import GET_NONCE
from contracts.eoa import TransactionSender
from contracts.errors import RpcError
from contracts.types import checksum, keccak, to_hex
from contracts.userop import UserOperation
from paymaster.sponsor import paymaster_data, sponsorship_digest
from tests.bundler.rig import DUMMY_SIGNATURE, Client, serving
from tests.wallet.trading_floor import now_s, trader_on
from wallet.account import Birth

WAD = 10**18


@dataclass(frozen=True, slots=True)
class Stage:
    """The devnet with our contracts also for v0.9, and a bundler that serves all three entry points."""

    net: Devnet
    ours: deploy.Deployment
    client: Client

    def birth(self, name: str) -> Birth:
        config = AccountConfig(ecdsa_owner(self.net.accounts.owner.address), bytes(20), 0, (WAD,) * 3, ())
        return Birth(self.ours.risk_account_factory, config, keccak(name.encode()))

    async def draft(self, birth: Birth, calls: list[Call]) -> UserOperation:
        """Unsigned, with the init code whether the account exists or not."""
        sender = await birth.address(self.net.rpc)
        base_fee_wei = int((await self.net.rpc.block())["baseFeePerGas"], 16)
        return UserOperation(
            sender=sender,
            nonce=GET_NONCE.decode(await self.net.rpc.eth_call(V09.address, GET_NONCE.encode(sender, 0)))[0],
            call_data=encode_execute(calls),
            max_fee_per_gas=2 * base_fee_wei + 10**6,
            max_priority_fee_per_gas=10**6,
            signature=DUMMY_SIGNATURE,
            factory=birth.factory,
            factory_data=birth.factory_data,
        )

    def signed(self, op: UserOperation) -> UserOperation:
        return op.replace(signature=self.net.accounts.owner.sign_hash(V09.user_op_hash(op, self.net.chain_id)))


@pytest.fixture
async def stage(chain: Devnet, tmp_path: Path) -> AsyncIterator[Stage]:
    people = chain.accounts
    ours = await deploy.deploy_seawall(
        TransactionSender(chain.rpc, people.deployer, chain.chain_id),
        V09.address,
        people.paymaster_owner.address,
        people.paymaster_signer.address,
    )
    staker = TransactionSender(chain.rpc, people.paymaster_owner, chain.chain_id)
    await deploy.stake_and_fund(staker, ours, stake_wei=WAD, unstake_delay_s=86_400, deposit_wei=WAD)
    key = tmp_path / "executor.key"
    key.touch(mode=0o600)
    key.write_text(devnet_key("bundler").hex())
    settings = Settings(
        rpc_url=chain.rpc_url,
        executor_key=KeyFile(key),
        database=tmp_path / "bundler.sqlite",
        port=0,
        entry_points=(V08, V07, V09),
        drain_timeout_s=0.1,
    )
    async with serving(settings) as client:
        yield Stage(chain, ours, client)


async def test_account_trades_under_policy_with_the_engines_attestation(stage: Stage, tmp_path: Path) -> None:
    trader = await trader_on(
        stage.net,
        tmp_path,
        bundler=stage.client.rpc,
        deposit_wei=WAD,
        entry_point=V09,
        factory=stage.ours.risk_account_factory,
    )
    for calls in (await trader.opening("2"), None):
        sent = await trader.signer.submit(calls or await trader.closing())
        receipt = await trader.signer.bundler.wait(sent.user_op_hash)
        assert receipt.success, receipt.reason.hex()
        assert sent.user_op_hash == V09.user_op_hash(sent.op, stage.net.chain_id)


async def test_account_is_born_and_pays_from_its_own_money(stage: Stage) -> None:
    birth = stage.birth("own money")
    funder = TransactionSender(stage.net.rpc, stage.net.accounts.trader, stage.net.chain_id)
    await funder.transact(await birth.address(stage.net.rpc), value=WAD)
    to = keccak(b"paid on v0.9")[:20]
    for _ in range(2):  # the second one's init code is passed over
        op = await stage.draft(birth, [Call(to, b"", 3)])
        op = stage.signed(await stage.client.estimated(op, V09))
        receipt = await stage.client.included(await stage.client.send(op, V09))
        assert receipt["success"] is True
    assert await stage.net.rpc.get_balance(to) == 6


async def test_the_sponsor_signs_after_the_owner_and_outside_the_hash(stage: Stage) -> None:
    birth, signer = stage.birth("sponsored"), stage.net.accounts.paymaster_signer
    paymaster, until_s = stage.ours.verifying_paymaster, await now_s(stage.net) + 600
    window = paymaster_data(until_s, b"")
    for nonce in range(2):
        draft = await stage.draft(birth, [Call(stage.net.accounts.owner.address, b"note %d" % nonce)])
        draft = draft.replace(paymaster=paymaster, paymaster_data=window, paymaster_signature=DUMMY_SIGNATURE)
        op = stage.signed(await stage.client.estimated(draft, V09))
        digest = sponsorship_digest(op, paymaster, stage.net.chain_id, until_s)
        sponsored = op.replace(paymaster_signature=signer.sign_hash(digest))
        with pytest.raises(RpcError, match="AA34"):
            await stage.client.send(op, V09)
        op_hash = await stage.client.send(sponsored, V09)
        assert op_hash == V09.user_op_hash(op, stage.net.chain_id)
        receipt = await stage.client.included(op_hash)
        assert (receipt["success"], receipt["paymaster"]) == (True, checksum(paymaster))
        found = await stage.client.rpc.call("eth_getUserOperationByHash", to_hex(op_hash))
        assert found["userOperation"]["paymasterSignature"] == to_hex(sponsored.paymaster_signature)
    assert await stage.net.rpc.get_balance(await birth.address(stage.net.rpc)) == 0


async def test_the_sponsors_signature_within_the_data_is_covered_by_the_hash(stage: Stage) -> None:
    birth, signer = stage.birth("within"), stage.net.accounts.paymaster_signer
    paymaster, until_s = stage.ours.verifying_paymaster, await now_s(stage.net) + 600
    draft = await stage.draft(birth, [Call(stage.net.accounts.owner.address, b"note")])
    draft = draft.replace(paymaster=paymaster, paymaster_data=paymaster_data(until_s, DUMMY_SIGNATURE))
    op = await stage.client.estimated(draft, V09)
    signature = signer.sign_hash(sponsorship_digest(op, paymaster, stage.net.chain_id, until_s))
    late = stage.signed(op).replace(paymaster_data=paymaster_data(until_s, signature))
    with pytest.raises(RpcError, match="AA24"):
        await stage.client.send(late, V09)
    op = stage.signed(op.replace(paymaster_data=paymaster_data(until_s, signature)))
    assert (await stage.client.included(await stage.client.send(op, V09)))["success"] is True
