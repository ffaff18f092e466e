"""A bot's session key, from the owner's signature to its revocation: operations through our bundler in safe mode, on the devnet."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from contracts import bindings as b
from contracts.bindings import AccountConfig, Call, ModuleInit, Session
from contracts.devnet import Devnet
from contracts.entrypoint import V08
from contracts.entrypoint.base import DEPOSIT_TO, GET_NONCE
from contracts.eoa import Eoa
from contracts.errors import RpcError
from contracts.rpc import RpcClient
from contracts.types import Address, keccak, to_hex
from contracts.userop import LANE_KEEPER, LANE_OWNER, UserOperation, nonce_key
from policies.hooks import ALLOWANCE, EQUAL
from policies.sessions import (
    Bounds,
    Span,
    Window,
    approval_digest,
    encode_bounded_envelope,
    encode_enabling_envelope,
)
from tests.wallet.keeper_rig import WAD, WETH_DEPOSIT, rig_on, until
from wallet.account import Birth

BOT = Eoa(keccak(b"bot"))
PAYEE, STRANGER = (keccak(name)[:20] for name in (b"payee", b"stranger"))
LIMIT_WEI = 10
BOUNDS = Bounds(
    rates=(Window(Span.MONTH, 3),),
    allowances=(Window(Span.MONTH, LIMIT_WEI),),
    any_of=(((EQUAL, 0, (bytes(12) + PAYEE,)), (ALLOWANCE, 1, (bytes(32),))),),
)


@dataclass(frozen=True, slots=True)
class Bot:
    """A funded account that has SessionValidator and no session; `session` may pay WETH to PAYEE, so much a month."""

    net: Devnet
    bundler: RpcClient
    account: Address
    session: Session
    approval: bytes

    async def paid(self, payee: Address = PAYEE) -> int:
        answer = await self.net.rpc.eth_call(self.net.addresses.weth, b.BALANCE_OF.encode(payee))
        return int.from_bytes(answer)

    async def unsigned(self, key: int, call: Call) -> UserOperation:
        rpc = self.net.rpc
        return UserOperation(
            sender=self.account,
            nonce=GET_NONCE.decode(await rpc.eth_call(V08.address, GET_NONCE.encode(self.account, key)))[0],
            call_data=b.encode_execute([call]),
            call_gas_limit=150_000,
            verification_gas_limit=900_000,
            pre_verification_gas=120_000,
            max_fee_per_gas=3 * 10**9,
            max_priority_fee_per_gas=10**9,
        )

    async def send(self, op: UserOperation) -> None:
        """Until it is included; raises RpcError when the bundler refuses."""
        op_hash = await self.bundler.call("eth_sendUserOperation", op.to_rpc(), to_hex(V08.address))

        async def included() -> dict[str, Any] | None:
            receipt: dict[str, Any] | None = await self.bundler.call("eth_getUserOperationReceipt", op_hash)
            return receipt

        receipt = await until(included, "the operation to be included")
        assert receipt["success"]

    async def pay(self, amount: int, payee: Address = PAYEE, *, enabling: bool = False) -> None:
        """The bot pays, as in `send`; with `enabling` it brings the owner's approval."""
        transfer = Call(self.net.addresses.weth, b.TRANSFER.encode(payee, amount))
        op = await self.unsigned(nonce_key(self.net.addresses.session_validator, LANE_KEEPER), transfer)
        signature = BOT.sign_hash(V08.user_op_hash(op, self.net.chain_id))
        encoded = BOUNDS.encode()
        times = BOUNDS.times(int((await self.net.rpc.block())["timestamp"], 16), 600)
        if enabling:
            envelope = encode_enabling_envelope(self.session, times, encoded, self.approval, signature)
        else:
            envelope = encode_bounded_envelope(self.session, times, encoded, signature)
        await self.send(op.replace(signature=envelope))

    async def revoke(self) -> None:
        """By the owner's operation."""
        call = Call(self.net.addresses.session_validator, b.REVOKE_SESSION.encode(self.session.session_id))
        op = await self.unsigned(nonce_key(bytes(20), LANE_OWNER), call)
        signature = self.net.accounts.owner.sign_hash(V08.user_op_hash(op, self.net.chain_id))
        await self.send(op.replace(signature=signature))

    async def refused(self, amount: int, payee: Address = PAYEE, *, enabling: bool = False) -> None:
        """The bundler accepts no such payment, and none is made."""
        before = await self.paid(payee)
        with pytest.raises(RpcError, match="AA24") as caught:
            await self.pay(amount, payee, enabling=enabling)
        assert caught.value.rpc_code == -32507
        assert await self.paid(payee) == before


@pytest.fixture
async def bot(chain: Devnet, tmp_path: Path) -> AsyncIterator[Bot]:
    async with rig_on(chain, tmp_path) as rig:
        validator, weth = chain.addresses.session_validator, chain.addresses.weth
        module = ModuleInit(b.MODULE_VALIDATOR, validator, b"")
        owner = chain.accounts.owner
        config = AccountConfig(b.ecdsa_owner(owner.address), bytes(20), 0, (WAD,) * 3, (module,))
        birth = Birth(chain.addresses.risk_account_factory, config, keccak(b"a bot's account"))
        account = await birth.address(chain.rpc)
        await rig.trader.transact(birth.factory, birth.factory_data)
        await rig.trader.transact(V08.address, DEPOSIT_TO.encode(account), value=WAD)
        await rig.trader.transact(weth, WETH_DEPOSIT.encode(), value=WAD)
        await rig.trader.transact(weth, b.TRANSFER.encode(account, WAD))
        session = Session(BOT.address, 0, 2**47 - 1, weth, b.TRANSFER.selector, WAD, 0, keccak(BOUNDS.encode()))
        approval = owner.sign_hash(approval_digest(validator, chain.chain_id, account, 1, session))
        process = rig.bundler()
        await process.start()
        async with RpcClient(process.url) as bundler:
            yield Bot(chain, bundler, account, session, approval)


async def test_a_bots_key_is_enabled_by_the_operation_that_first_uses_it(bot: Bot) -> None:
    await bot.refused(3)
    await bot.pay(3, enabling=True)
    await bot.pay(4)
    assert await bot.paid() == 7


async def test_the_bundler_refuses_what_the_sessions_conditions_do_not_allow(bot: Bot) -> None:
    await bot.refused(1, STRANGER, enabling=True)
    await bot.pay(3, enabling=True)
    await bot.refused(1, STRANGER)
    await bot.refused(LIMIT_WEI - 3 + 1)
    await bot.pay(LIMIT_WEI - 3)
    assert await bot.paid() == LIMIT_WEI


async def test_a_rate_counts_operations_whatever_they_pay(bot: Bot) -> None:
    await bot.pay(1, enabling=True)
    await bot.pay(1)
    await bot.pay(1)
    await bot.refused(1)


async def test_a_revoked_key_is_refused_at_once_and_its_approval_too(bot: Bot) -> None:
    await bot.pay(1, enabling=True)
    await bot.revoke()
    await bot.refused(1)
    await bot.refused(1, enabling=True)
