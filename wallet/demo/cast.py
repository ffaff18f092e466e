"""The demo's people: an account under a policy, its twin without one, their owners, the engine, and a thief."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal
from typing import Any

from contracts import bindings as b
from contracts.bindings import Call, Due
from contracts.devnet import Devnet
from contracts.entrypoint import USER_OPERATION_EVENT, V08
from contracts.entrypoint.base import DEPOSIT_TO
from contracts.eoa import TransactionSender
from contracts.errors import OperationFailed
from contracts.rpc import RpcClient
from contracts.types import Address, Hash32, keccak, parse_bytes, parse_hash, to_hex
from contracts.units import from_units, to_units
from contracts.userop import intent_hash
from policies import Policy, explain
from policies.attestation import Attestation, encode_attested_envelope
from policies.names import book_of
from policies.venues.perp_v2 import POSITION_CHANGED
from wallet import setup, trading
from wallet.account import AccountClient, Birth, signable_hash, suggest_fees
from wallet.audit import AuditLog
from wallet.demo.scenario import Scenario
from wallet.demo.stage import Stage
from wallet.engine import ALLOW, Engine
from wallet.facts import FactsReader, adapters_of
from wallet.services import BundlerClient, PaymasterClient
from wallet.sign import Signer

_DEPOSIT_WEI = 10**17
_ORDER_S = 600


def _addresses(net: Devnet) -> dict[str, Address]:
    return {name: bytes.fromhex(text[2:]) for name, text in net.addresses.to_json().items()}


@dataclass(slots=True)
class Cast:
    """Everybody who acts in the demo, ready to act."""

    net: Devnet
    policy: Policy
    book: Mapping[str, Address]
    market: trading.PerpMarket
    protected: AccountClient
    twin: AccountClient
    bundler: BundlerClient
    trader: Signer
    twin_trader: Signer
    born_block: int
    trigger_wad: int = 0
    stop_id: int = 0

    @classmethod
    async def gather(cls, stage: Stage, policy: Policy, scenario: Scenario) -> Cast:
        """Work out both accounts' addresses, give each the same money, and connect them to the running services."""
        net, people = stage.net, stage.net.accounts
        rpc, where = net.rpc, net.addresses
        now_s = int((await rpc.block())["timestamp"], 16)
        roles = {
            "owner": people.owner.address,
            "guardian": people.guardian.address,
            "guardian_2": people.guardian2.address,
            "guardian_3": people.guardian3.address,
            "keeper": people.keeper.address,
            "engine": people.engine.address,
            "treasury": people.owner3.address,
            "trader": people.trader.address,
            "risk_officer": people.trader2.address,
        }
        book = book_of(_addresses(net), roles)
        config = setup.guarded_config(
            policy, book, owner=people.owner.address, engines=(people.engine.address,), now_s=now_s
        )
        births = [
            Birth(where.risk_account_factory, config, keccak(b"seawall demo")),
            Birth(where.risk_account_factory, setup.bare_config(people.owner2.address), keccak(b"seawall demo twin")),
        ]
        clients = []
        for birth, validator in zip(births, (where.risk_validator, None), strict=True):
            address = await birth.address(rpc)
            clients.append(AccountClient(rpc, V08, net.chain_id, address, validator, birth))
        protected, twin = clients
        await _fund(net, [protected.address, twin.address], to_units(scenario.collateral_usdc, 6))
        bundler = BundlerClient(RpcClient(stage.bundler.url), V08)
        engine = Engine(
            policy, people.engine, net.chain_id, where.risk_validator, AuditLog(stage.folder / "engine-audit.db")
        )
        paymaster = PaymasterClient(RpcClient(stage.paymaster.url), V08, net.chain_id)
        reader = FactsReader(adapters_of(book), book, policy.policy_id)
        for trader in (protected.address, twin.address):
            net.market.watch_perp(trader)
        return cls(
            net=net,
            policy=policy,
            book=book,
            market=trading.PerpMarket(where.perp_clearing_house, where.perp_vault, where.perp_base_token, where.usdc),
            protected=protected,
            twin=twin,
            bundler=bundler,
            trader=Signer(protected, people.owner, bundler, engine, reader, paymaster),
            twin_trader=Signer(twin, people.owner2, bundler),
            born_block=await rpc.block_number(),
        )

    async def close(self) -> None:
        """Give the connections back."""
        await self.bundler.rpc.close()
        if self.trader.paymaster is not None:
            await self.trader.paymaster.rpc.close()

    @property
    def policy_name(self) -> str:
        return f"{self.policy.name} {self.policy.version}"

    @property
    def has_stop(self) -> bool:
        return bool(self.policy.stops)

    @property
    def has_freeze(self) -> bool:
        return self.policy.freeze is not None

    @property
    def solo_freeze_s(self) -> int:
        return 0 if self.policy.freeze is None else self.policy.freeze.solo_freeze_s

    # -- what the traders do -----------------------------------------------------------------------------------------------------

    async def protected_open(self, scenario: Scenario, index_wad: int, now_s: int) -> Hash32:
        """Deposit, open, and arm the policy's stops in the same operation. Raises PolicyRefused."""
        stops, arming = setup.arm_stops(
            self.policy, self.book, entry_price=from_units(index_wad, 18), is_long=True, now_s=now_s
        )
        if stops:
            self.trigger_wad, self.stop_id = stops[0].trigger_wad, stops[0].id
        calls = self._opening(scenario, index_wad, now_s) + arming
        return (await self.trader.submit(calls)).user_op_hash

    async def twin_open(self, scenario: Scenario, index_wad: int, now_s: int) -> Hash32:
        """The same, without any policy."""
        return (await self.twin_trader.submit(self._opening(scenario, index_wad, now_s))).user_op_hash

    async def order(self, notional_usdc: Decimal, index_wad: int, now_s: int) -> Hash32:
        """A further long. Raises PolicyRefused."""
        return (await self.trader.submit(self._long(notional_usdc, index_wad, now_s))).user_op_hash

    def _opening(self, scenario: Scenario, index_wad: int, now_s: int) -> list[Call]:
        deposit = trading.deposit(self.market, to_units(scenario.collateral_usdc, 6))
        return deposit + self._long(scenario.notional_usdc, index_wad, now_s)

    def _long(self, notional_usdc: Decimal, index_wad: int, now_s: int) -> list[Call]:
        return trading.open_perp(
            self.market,
            side="long",
            notional_wad=to_units(notional_usdc, 18),
            index_wad=index_wad,
            slippage_bps=80,
            deadline_s=now_s + _ORDER_S,
        )

    async def stolen_keys(self, calls: Sequence[Call]) -> Hash32:
        """What a thief with the owner's and the engine's key can do: an operation that no rule has seen, validly signed by both."""
        account, people = self.protected, self.net.accounts
        max_fee, tip = await suggest_fees(self.net.rpc)
        draft = await account.draft(calls, max_fee_wei=max_fee, priority_fee_wei=tip)
        op = draft.replace(call_gas_limit=800_000, verification_gas_limit=400_000, pre_verification_gas=120_000)
        now_s = int((await self.net.rpc.block())["timestamp"], 16)
        final = signable_hash(account.entry_point, account.user_op_hash(op), account.address, account.chain_id)
        attestation = Attestation(
            account=account.address,
            entry_point=account.entry_point.address,
            user_op_hash=final,
            intent_hash=intent_hash(op),
            policy_id=self.policy.policy_id,
            policy_epoch=1,
            facts_hash=bytes(32),
            decision=ALLOW,
            valid_after_s=0,
            valid_until_s=now_s + self.policy.attestation_validity_s,
        )
        module = self.net.addresses.risk_validator
        signed = attestation.encode(
            people.engine.address, people.engine.sign_hash(attestation.digest(account.chain_id, module))
        )
        envelope = encode_attested_envelope(account.sign(op, people.owner), [signed])
        return await self.bundler.send(op.replace(signature=envelope))

    # -- what can be looked up -----------------------------------------------------------------------------------------------------

    @staticmethod
    def explain(decision: dict[str, Any]) -> list[str]:
        """The refusal for people."""
        return explain(decision)

    async def stop_due(self) -> bool:
        """Whether the chain says that the stop could be executed now."""
        data = b.GUARD_DUE.encode(self.protected.address, self.stop_id)
        status, _ = b.GUARD_DUE.decode(await self.net.rpc.eth_call(self.net.addresses.stop_loss, data))
        return bool(status == Due.DUE)

    async def fill(self, tx_hash: Hash32) -> tuple[int, int]:
        """(base, quote) that the protected account exchanged in a transaction, both 1e18 = one. Raises OperationFailed."""
        for log in await self._logs(tx_hash):
            topics = [parse_hash(topic) for topic in log["topics"]]
            if topics[0] == POSITION_CHANGED.topic and topics[1][12:] == self.protected.address:
                changed = POSITION_CHANGED.decode(topics, parse_bytes(log["data"]))
                return abs(changed[2]), abs(changed[3])
        raise OperationFailed(f"{to_hex(tx_hash)} changed no position of the protected account")

    async def operation_in(self, tx_hash: Hash32) -> Hash32:
        """The protected account's operation in a bundle. Raises OperationFailed."""
        for log in await self._logs(tx_hash):
            topics = [parse_hash(topic) for topic in log["topics"]]
            if topics[0] == USER_OPERATION_EVENT.topic and topics[2][12:] == self.protected.address:
                return topics[1]
        raise OperationFailed(f"{to_hex(tx_hash)} holds no operation of the protected account")

    async def _logs(self, tx_hash: Hash32) -> list[dict[str, Any]]:
        receipt = await self.net.rpc.receipt(tx_hash)
        return [] if receipt is None else receipt["logs"]


async def _fund(net: Devnet, accounts: Sequence[Address], usdc: int) -> None:
    """The same USDC for each account, and a deposit in the entry point from which each pays its own gas."""
    deployer = TransactionSender(net.rpc, net.accounts.deployer, net.chain_id)
    for account in accounts:
        await deployer.transact(net.addresses.usdc, b.MINT.encode(account, usdc))
        await deployer.transact(V08.address, DEPOSIT_TO.encode(account), value=_DEPOSIT_WEI)
