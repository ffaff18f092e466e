"""An account that never had a wei pays its gas in USDC, by the command line, through bundler and paymaster service as processes."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import pytest

from contracts import bindings as b
from contracts.bindings import Call
from contracts.devnet.accounts import devnet_key
from contracts.devnet.feeds import LATEST_ROUND_DATA, PUSH
from contracts.entrypoint import V08
from contracts.entrypoint.base import BALANCE_OF, DEPOSIT_TO
from contracts.eoa import TransactionSender
from contracts.errors import BadInput, RpcError, SponsorRefused
from contracts.rpc import RpcClient
from contracts.token_paymaster import (
    CREDITED_GUARANTEE,
    GUARANTEED_POST_OP_COST_GAS,
    MIN_POST_OP_GAS,
    POST_OP_COST_GAS,
    SPONSORED_IN_TOKENS,
    TokenPayment,
)
from contracts.types import Address, checksum, keccak, parse_address, parse_bytes, parse_hash, to_hex
from contracts.userop import UserOperation, intent_hash
from paymaster.approval import Approval
from policies.attestation import IntentApproval
from tests.wallet.cli_rig import PASSPHRASE, Machine
from tests.wallet.trading_floor import POLICY, Floor, floor_in
from wallet.account import AccountClient, Birth, suggest_fees
from wallet.gas_token import GasToken
from wallet.keystore import Keystore, Passphrase
from wallet.services import BundlerClient, OperationReceipt, PaymasterClient
from wallet.setup import bare_config
from wallet.sign import Signer

APPROVAL = "  - {target: usdc, functions: [approve], args: {spender: seawall.erc20_paymaster}}\n"
OPEN = ("trade", "open", "--side", "long", "--notional", "10000", "--collateral", "10000", "--gas-token", "usdc")
CREDIT_UNITS = 500 * 10**6
NOTHING = Call(keccak(b"nobody")[:20], b"a note")


@dataclass(frozen=True, slots=True)
class Desk:
    """A user's machine, and a paymaster service that takes USDC."""

    machine: Machine
    paymaster: Address
    service: RpcClient

    @property
    def floor(self) -> Floor:
        return self.machine.floor

    async def credit(self) -> int:
        guarantor = checksum(self.floor.net.accounts.paymaster_signer.address)
        shown = await self.machine.run("paymaster", "quote", "usdc", "--guarantor", guarantor, "--json")
        assert shown.code == 0, shown.err
        return int(shown.data["creditUnits"])

    def client(self) -> PaymasterClient:
        """The wallet's side of the service."""
        net = self.floor.net
        gas_token = GasToken(self.paymaster, net.addresses.usdc, 20 * 10**6)
        return PaymasterClient(self.service, V08, net.chain_id, gas_token, net.rpc)

    async def price(self) -> int:
        """Of one ether, as the feed says it (8 decimals)."""
        net = self.floor.net
        answer = await net.rpc.eth_call(net.addresses.feed_eth_usd, LATEST_ROUND_DATA.encode())
        price: int = LATEST_ROUND_DATA.decode(answer)[1]
        return price

    async def move(self, price: int) -> None:
        net = self.floor.net
        now_s = int((await net.rpc.block())["timestamp"], 16)
        feeder = TransactionSender(net.rpc, net.accounts.feeder, net.chain_id)
        await feeder.transact(net.addresses.feed_eth_usd, PUSH.encode(price, now_s))
        await self.later(1)

    async def later(self, seconds: int) -> None:
        """A block so much later."""
        await self.floor.net.rpc.call("evm_increaseTime", seconds)
        await self.floor.net.rpc.call("evm_mine")

    async def usdc(self, account: Address) -> int:
        found: int = b.BALANCE_OF.decode(
            await self.floor.net.rpc.eth_call(self.floor.net.addresses.usdc, b.BALANCE_OF.encode(account))
        )[0]
        return found

    async def payments(self, transaction: str) -> tuple[int, int, list[int]]:
        """Token units charged, price, and what guarantors advanced, in one transaction of one operation."""
        receipt = await self.floor.net.rpc.call("eth_getTransactionReceipt", transaction)
        logs = [
            ([parse_hash(topic) for topic in log["topics"]], parse_bytes(log["data"]))
            for log in receipt["logs"]
            if parse_bytes(log["address"]) == self.paymaster
        ]
        (paid,) = [SPONSORED_IN_TOKENS.decode(*log) for log in logs if log[0][0] == SPONSORED_IN_TOKENS.topic]
        advanced = [CREDITED_GUARANTEE.decode(*log)[2] for log in logs if log[0][0] == CREDITED_GUARANTEE.topic]
        return paid[2], paid[3], advanced


@pytest.fixture(scope="module")
async def desk(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Desk]:
    folder = tmp_path_factory.mktemp("gas-token")
    async with contextlib.AsyncExitStack() as stack:
        floor = await stack.enter_async_context(floor_in(folder))
        machine = Machine.set_up(floor, folder)
        people, where = floor.net.accounts, floor.net.addresses
        for name in ("paymaster_owner", "paymaster_signer"):
            Keystore(folder / "keys").add(name, devnet_key(name), Passphrase(PASSPHRASE), kdf_n=2)
        deployer = TransactionSender(floor.net.rpc, people.deployer, floor.net.chain_id)
        await deployer.transact(where.usdc, b.MINT.encode(people.paymaster_signer.address, CREDIT_UNITS))
        deployed = await machine.run(
            "paymaster", "deploy", "--key", "paymaster_owner", "--heartbeat", "86400", "--yes", "--json"
        )
        assert deployed.code == 0, deployed.err
        paymaster = deployed.data["erc20_paymaster"]
        settings = folder / "seawall.toml"
        settings.write_text(settings.read_text() + f'[addresses]\nerc20_paymaster = "{paymaster}"\n')
        for command in (
            ("token", "usdc", "--key", "paymaster_owner"),
            ("credit", "usdc", "500", "--key", "paymaster_signer"),
        ):
            answer = await machine.run("paymaster", *command, "--yes", "--json")
            assert answer.code == 0, answer.err
        service = floor.stage._service(
            "token-paymaster",
            "paymaster",
            {
                "rpc_url": floor.net.rpc_url,
                "port": 0,
                "ledger": str(folder / "token-paymaster.db"),
                "engines": [checksum(people.engine.address)],
                "risk_validator": checksum(where.risk_validator),
                "poll_s": 0.2,
                "confirmations": 0,
                "token_paymasters": {"v0.8": paymaster},
                "erc20": {"tokens": [checksum(where.usdc)], "guarantee": True},
                "budget": {"per_operation_wei": 10**18, "per_account_day_wei": 10**18, "total_wei": 10**18},
                "signer": {"key_file": floor.stage._key("paymaster_signer")},
            },
        )
        await service.start()
        stack.push_async_callback(service.stop)
        settings.write_text(settings.read_text().replace(floor.stage.paymaster.url, service.url))
        policy = POLICY.replace("calls:\n", "calls:\n" + APPROVAL)
        (folder / "policy.yaml").write_text(policy)
        assert service.rpc is not None
        yield Desk(machine, parse_address(paymaster), service.rpc)


def check_charge(receipt: dict[str, Any], charged: int, price: int, *, guaranteed: bool) -> None:
    """price x what the entry point took <= charge <= price x (that and what is charged for postOp), one unit of rounding a part."""
    gas_cost, gas = int(receipt["gasCostWei"]), receipt["gasUsed"]
    room_gas = POST_OP_COST_GAS + MIN_POST_OP_GAS // 10 + (GUARANTEED_POST_OP_COST_GAS if guaranteed else 0)
    most = gas_cost + room_gas * (gas_cost // gas + 1)
    assert price * gas_cost // 10**18 <= charged <= price * most // 10**18 + 2


async def test_an_account_without_ether_is_created_and_trades_and_pays_in_usdc(desk: Desk) -> None:
    account = (await desk.machine.account(usdc=10_100))["address"]
    opened = await desk.machine.run(*OPEN, "--yes", "--json")
    assert opened.code == 0, opened.err + opened.out
    where = parse_address(account)
    charged, price, advanced = await desk.payments(opened.data["transaction"])
    assert len(advanced) == 1  # nothing was approved before the account was
    check_charge(opened.data, charged, price, guaranteed=True)
    assert await desk.usdc(where) == 100 * 10**6 - charged
    assert await desk.credit() == CREDIT_UNITS
    closed = await desk.machine.run("trade", "close", "--gas-token", "usdc", "--yes", "--json")
    assert closed.code == 0, closed.err + closed.out
    again, price, advanced = await desk.payments(closed.data["transaction"])
    assert advanced == []  # the allowance was there
    check_charge(closed.data, again, price, guaranteed=False)
    assert await desk.usdc(where) == 100 * 10**6 - charged - again
    rpc, entry_point = desk.floor.net.rpc, V08.address
    assert await rpc.get_balance(where) == 0
    assert BALANCE_OF.decode(await rpc.eth_call(entry_point, BALANCE_OF.encode(where)))[0] == 0
    status = await desk.service.call("seawall_status")
    assert (status["spentWei"], status["heldWei"], status["settled"]) == ("0", "0", 2)


class Payer:
    """An account without policy, deployed, with an allowance for the paymaster and 100 USDC; step by step."""

    def __init__(self, desk: Desk, signer: Signer) -> None:
        self.desk = desk
        self.signer = signer
        self.address = signer.account.address

    @classmethod
    async def make(cls, desk: Desk, salt: str, *, approve: int = 20 * 10**6, usdc: int = 100 * 10**6) -> Payer:
        net = desk.floor.net
        birth = Birth(
            net.addresses.risk_account_factory, bare_config(net.accounts.owner.address), keccak(salt.encode())
        )
        account = AccountClient(net.rpc, V08, net.chain_id, await birth.address(net.rpc), None, birth)
        deployer = TransactionSender(net.rpc, net.accounts.deployer, net.chain_id)
        await deployer.transact(V08.address, DEPOSIT_TO.encode(account.address), value=10**17)
        await deployer.transact(net.addresses.usdc, b.MINT.encode(account.address, usdc))
        plain = Signer(account, net.accounts.owner, BundlerClient(desk.floor.bundler, V08))
        sent = await plain.submit([Call(net.addresses.usdc, b.APPROVE.encode(desk.paymaster, approve))])
        assert (await plain.bundler.wait(sent.user_op_hash)).success
        return cls(desk, replace(plain, paymaster=desk.client()))

    async def operation(
        self, calls: Sequence[Call] | None = None, context: dict[str, Any] | None = None
    ) -> UserOperation:
        """Signed, and not sent: the paymaster has named its price, by a context of the test's own if there is one."""
        account, client = self.signer.account, self.desk.client()
        max_fee, tip = await suggest_fees(account.rpc)
        calls = [NOTHING] if calls is None else calls
        op = await account.draft(calls, max_fee_wei=max_fee, priority_fee_wei=tip)
        if context is None:
            op = await client.sponsor(await self.signer.bundler.estimate(await client.stub(op)), None)
        else:
            op = op.replace(verification_gas_limit=300_000, call_gas_limit=300_000, pre_verification_gas=100_000)
            asked = {"token": to_hex(self.desk.floor.net.addresses.usdc)} | context
            op = await client._ask("pm_getPaymasterStubData", op, asked)
            if asked.get("guarantee"):
                asked["approval"] = self.approval(op)
            op = await client._ask("pm_getPaymasterData", op, asked)
        return op.replace(signature=self.signer.signed(op))

    def approval(self, op: UserOperation) -> dict[str, Any]:
        """The engine's, for whatever `op` does."""
        net = self.desk.floor.net
        engine = net.accounts.engine
        said = IntentApproval(self.address, intent_hash(op), bytes(32), 1, bytes(32), 1, (1 << 47) - 1)
        signature = engine.sign_hash(said.digest(net.chain_id, net.addresses.risk_validator))
        return Approval(engine.address, said, signature).to_rpc()

    async def include(self, op: UserOperation) -> OperationReceipt:
        return await self.signer.bundler.wait(await self.signer.bundler.send(op))


async def test_an_account_without_policy_pays_in_usdc_too(desk: Desk) -> None:
    payer = await Payer.make(desk, "bare")
    sent = await payer.signer.submit([NOTHING])
    receipt = await payer.signer.bundler.wait(sent.user_op_hash)
    charged, _, advanced = await desk.payments(to_hex(receipt.transaction_hash))
    assert receipt.success
    assert advanced == []
    assert await desk.usdc(payer.address) == 100 * 10**6 - charged


async def test_a_price_that_moved_beyond_the_slack_is_refused_and_one_within_it_is_what_is_paid(desk: Desk) -> None:
    payer = await Payer.make(desk, "moved")
    before = await desk.price()
    op = await payer.operation()
    try:
        await desk.move(before * 103 // 100)
        with pytest.raises(RpcError, match="AA34"):
            await payer.signer.bundler.send(op)
        await desk.move(before * 1005 // 1000)
        receipt = await payer.include(op)
        charged, price, _ = await desk.payments(to_hex(receipt.transaction_hash))
    finally:
        await desk.move(before)
    signed = TokenPayment.decode(op.paymaster_data).max_token_per_native
    now = before * 1005 // 1000 * 10**6 * 101 // 100 // 10**8
    assert price == pytest.approx(now, abs=2)
    assert price < signed
    assert await desk.usdc(payer.address) == 100 * 10**6 - charged


def refusal(error: pytest.ExceptionInfo[RpcError]) -> str:
    data = error.value.data
    assert isinstance(data, dict)
    return str(data["rule"])


async def test_a_balance_or_an_allowance_that_is_too_small_is_said_before_anything_is_signed(desk: Desk) -> None:
    poor = await Payer.make(desk, "poor", usdc=100)
    with pytest.raises(RpcError, match="token balance") as refused:
        await poor.operation(context={})
    assert refusal(refused) == "balance"
    stingy = await Payer.make(desk, "stingy", approve=100)
    with pytest.raises(RpcError, match="approve the paymaster") as refused:
        await stingy.operation(context={})
    assert refusal(refused) == "allowance"


async def test_who_takes_the_tokens_away_meanwhile_is_refused_by_the_chain(desk: Desk) -> None:
    payer = await Payer.make(desk, "vanishing")
    op = await payer.operation()
    thief = desk.floor.net.accounts.trader.address
    away = Call(desk.floor.net.addresses.usdc, b.TRANSFER.encode(thief, 100 * 10**6))
    plain = replace(payer.signer, paymaster=None, account=replace(payer.signer.account, lane=0))
    elsewhere = await plain.account.draft([away], max_fee_wei=10**10, priority_fee_wei=10**6)
    key = elsewhere.nonce_key + 1  # a lane of its own: the operation above keeps its nonce
    elsewhere = await plain.bundler.estimate(elsewhere.replace(nonce=key << 64))
    assert (await payer.include(elsewhere.replace(signature=plain.signed(elsewhere)))).success
    with pytest.raises(RpcError, match="AA34"):
        await payer.signer.bundler.send(op)


async def test_an_advance_that_is_not_paid_back_is_the_services_loss_and_counts_against_its_budget(desk: Desk) -> None:
    payer = await Payer.make(desk, "thief")
    usdc, credit = desk.floor.net.addresses.usdc, await desk.credit()
    spent = int((await desk.service.call("seawall_status"))["spentWei"])
    away = Call(usdc, b.TRANSFER.encode(desk.floor.net.accounts.trader.address, 100 * 10**6))
    op = await payer.operation([away, Call(usdc, b.APPROVE.encode(desk.paymaster, 20 * 10**6))], {"guarantee": True})
    receipt = await payer.include(op)
    assert receipt.success
    charged, _, (advanced,) = await desk.payments(to_hex(receipt.transaction_hash))
    assert advanced >= charged
    assert await desk.credit() == credit - charged
    status = await desk.service.call("seawall_status")
    assert int(status["spentWei"]) == spent + receipt.actual_gas_cost_wei
    assert status["heldWei"] == "0"


async def test_a_guarantee_needs_an_approval_among_the_operations_calls(desk: Desk) -> None:
    payer = await Payer.make(desk, "ungrateful", approve=100)
    with pytest.raises(RpcError, match="own calls approve") as refused:
        await payer.operation([NOTHING], {"guarantee": True})
    assert refusal(refused) == "no-repayment"


async def test_a_price_or_a_payee_that_was_not_agreed_is_never_signed(desk: Desk) -> None:
    payer = await Payer.make(desk, "careful")
    op = await payer.operation()
    rpc, usdc = desk.floor.net.rpc, desk.floor.net.addresses.usdc
    await GasToken(desk.paymaster, usdc, 20 * 10**6).check(rpc, op)
    for agreed, rule in (
        (GasToken(desk.paymaster, usdc, 20 * 10**6, slack_bps=50), "price-too-high"),
        (GasToken(desk.paymaster, desk.floor.net.addresses.weth, 20 * 10**6), "another-paymaster"),
        (GasToken(usdc, usdc, 20 * 10**6), "another-paymaster"),
    ):
        with pytest.raises(SponsorRefused) as refused:
            await agreed.check(rpc, op)
        assert refused.value.rule == rule
    with pytest.raises(BadInput, match="raise gas_token_approve"):
        await GasToken(desk.paymaster, usdc, 10).check(rpc, op)


async def test_a_stale_price_is_not_given_out_and_one_given_out_before_is_refused(desk: Desk) -> None:
    payer = await Payer.make(desk, "late")
    op = await payer.operation()
    await desk.later(90_000)
    try:
        with pytest.raises(RpcError, match="AA32"):
            await payer.signer.bundler.send(op)
        with pytest.raises(RpcError, match="a feed is late") as refused:
            await payer.operation()
        assert refusal(refused) == "price-stale"
    finally:
        await desk.floor.net.market.heartbeat()
        await desk.later(1)
    assert (await payer.include(await payer.operation())).success
