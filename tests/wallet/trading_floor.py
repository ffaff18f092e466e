"""Risk accounts under a real policy on the real devnet, with bundler and paymaster as real processes."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator
from dataclasses import dataclass, replace
from decimal import Decimal
from pathlib import Path

from contracts import bindings as b
from contracts.bindings import Call
from contracts.devnet import Devnet
from contracts.devnet.feeds import LATEST_ROUND_DATA
from contracts.entrypoint import V08, EntryPoint
from contracts.entrypoint.base import DEPOSIT_TO
from contracts.eoa import TransactionSender
from contracts.rpc import RpcClient
from contracts.types import Address, keccak, parse_address
from contracts.units import from_units, to_units
from policies import Policy
from policies.document import load
from policies.guards import bound
from policies.names import book_of
from wallet import setup, trading
from wallet.account import AccountClient, Birth
from wallet.audit import AuditLog
from wallet.demo.stage import Stage
from wallet.engine import Engine
from wallet.facts import FactsReader, adapters_of
from wallet.services import BundlerClient, PaymasterClient
from wallet.sign import Signer

POLICY = """\
schema: 1
name: floor
version: "1"
facts: {max_price_age: 10m, max_price_deviation: 3%}
limits:
  - {id: leverage, metric: leverage, max: 3.1}
  - {id: slippage, metric: order_slippage, scope: operation, max: 1%}
calls:
  - {target: usdc, functions: [approve], args: {spender: perp.vault}}
  - {target: perp.vault, functions: [deposit, withdraw], args: {token: usdc}}
  - {target: perp.clearing_house, functions: [openPosition, closePosition], args: {baseToken: perp.eth}}
  - {target: seawall.stop_loss, functions: [arm], args: {id: 1}}
  - {target: seawall.risk_validator, functions: [setPolicy]}
exits:
  - {target: perp.clearing_house, function: closePosition, args: {baseToken: perp.eth}}
guards:
  stop_loss:
    - id: 1
      venue: perp
      asset: ETH
      drop: 12%
      slippage: 1%
      max_slippage: 5%
      oracle: {feed: feed.eth, heartbeat: 1d, max_deviation: 3%}
  freeze: {guardians: [guardian, guardian_2, guardian_3], quorum: 2, solo_freeze: 30m, cooldown: 1h, thaw_delay: 10m}
  session: {key: keeper, prefund_budget: 0.5}
sponsorship: {per_operation: 0.05}
"""
COLLATERAL = 10_000


def book_on(net: Devnet) -> dict[str, Address]:
    """The devnet's contracts and people by the names of policies."""
    people = net.accounts
    addresses = {name: bytes.fromhex(text[2:]) for name, text in net.addresses.to_json().items()}
    roles = {
        "owner": people.owner.address,
        "guardian": people.guardian.address,
        "guardian_2": people.guardian2.address,
        "guardian_3": people.guardian3.address,
        "keeper": people.keeper.address,
        "engine": people.engine.address,
    }
    return book_of(addresses, roles)


def market_on(net: Devnet) -> trading.PerpMarket:
    a = net.addresses
    return trading.PerpMarket(a.perp_clearing_house, a.perp_vault, a.perp_base_token, a.usdc)


async def index_wad(net: Devnet) -> int:
    answer: int = LATEST_ROUND_DATA.decode(
        await net.rpc.eth_call(net.addresses.feed_eth_usd, LATEST_ROUND_DATA.encode())
    )[1]
    return answer * 10**10


async def now_s(net: Devnet) -> int:
    return int((await net.rpc.block())["timestamp"], 16)


@dataclass(slots=True)
class Trader:
    """One guarded account with 10,000 USDC, not deployed yet, and its way of sending."""

    net: Devnet
    policy: Policy
    signer: Signer

    @property
    def address(self) -> Address:
        return self.signer.account.address

    async def opening(
        self, leverage: str = "3", *, collateral: int = COLLATERAL, side: trading.Side = "long"
    ) -> list[Call]:
        """Deposit (if any), order, stop."""
        now, index = await now_s(self.net), await index_wad(self.net)
        market, book = market_on(self.net), book_on(self.net)
        notional = to_units(Decimal(COLLATERAL) * Decimal(leverage), 18)
        order = trading.open_perp(
            market, side=side, notional_wad=notional, index_wad=index, slippage_bps=100, deadline_s=now + 86_400
        )
        price = from_units(index, 18)
        _, arming = setup.arm_stops(self.policy, book, entry_price=price, is_long=side == "long", now_s=now)
        deposit = trading.deposit(market, collateral * 10**6) if collateral else []
        return deposit + order + arming

    async def deploy(self) -> None:
        """Bring the account to life by a plain transaction, so that nothing has been attested for it yet."""
        birth = self.signer.account.birth
        assert birth is not None
        sender = TransactionSender(self.net.rpc, self.net.accounts.deployer, self.net.chain_id)
        await sender.transact(birth.factory, birth.factory_data)

    async def closing(self) -> list[Call]:
        assert self.signer.reader is not None
        portfolio, _, _ = await self.signer.reader.look(self.signer.account)
        return trading.close_perp(
            market_on(self.net),
            size_wad=int(portfolio.positions[0].size * 10**18),
            index_wad=await index_wad(self.net),
            slippage_bps=100,
            deadline_s=await now_s(self.net) + 86_400,
        )


async def trader_on(
    net: Devnet,
    folder: Path,
    *,
    bundler: RpcClient,
    paymaster: RpcClient | None = None,
    policy: str = POLICY,
    salt: str = "",
    deposit_wei: int = 0,
    entry_point: EntryPoint = V08,
    factory: Address | None = None,
) -> Trader:
    """A fresh guarded account, from the devnet's factory if `factory` is None. Without `paymaster` it pays its own gas from `deposit_wei`."""
    chosen, book, people = load(policy), book_on(net), net.accounts
    engines = tuple(bound(name, chosen, book) for name in chosen.attestation_engines)
    config = setup.guarded_config(chosen, book, owner=people.owner.address, engines=engines, now_s=await now_s(net))
    birth = Birth(factory or net.addresses.risk_account_factory, config, keccak(f"{folder} {salt}".encode()))
    account = AccountClient(
        net.rpc, entry_point, net.chain_id, await birth.address(net.rpc), net.addresses.risk_validator, birth
    )
    deployer = TransactionSender(net.rpc, people.deployer, net.chain_id)
    await deployer.transact(net.addresses.usdc, b.MINT.encode(account.address, COLLATERAL * 10**6))
    if deposit_wei:
        await deployer.transact(entry_point.address, DEPOSIT_TO.encode(account.address), value=deposit_wei)
    log = AuditLog(folder / f"engine{salt}.db")
    engine = Engine(chosen, people.engine, net.chain_id, net.addresses.risk_validator, log)
    reader = FactsReader(adapters_of(book), book, chosen.policy_id)
    sponsor = None if paymaster is None else PaymasterClient(paymaster, entry_point, net.chain_id)
    signer = Signer(account, people.owner, BundlerClient(bundler, entry_point), engine, reader, sponsor)
    return Trader(net, chosen, signer)


@dataclass(slots=True)
class Floor:
    """A devnet of its own with both services running."""

    net: Devnet
    stage: Stage
    bundler: RpcClient
    paymaster: RpcClient

    async def trader(self, folder: Path, *, sponsored: bool = True, policy: str = POLICY, salt: str = "") -> Trader:
        paymaster = self.paymaster if sponsored else None
        deposit_wei = 0 if sponsored else 10**18
        return await trader_on(
            self.net,
            folder,
            bundler=self.bundler,
            paymaster=paymaster,
            policy=policy,
            salt=salt,
            deposit_wei=deposit_wei,
        )

    async def received(self) -> int:
        """How many operations the bundler has ever been sent."""
        found: int = (await self.bundler.call("seawall_status"))["received"]["operations"]
        return found

    async def deposit(self, account: str) -> None:
        """Gas money for an account that pays itself."""
        sender = TransactionSender(self.net.rpc, self.net.accounts.deployer, self.net.chain_id)
        await sender.transact(V08.address, DEPOSIT_TO.encode(parse_address(account)), value=10**18)


@contextlib.asynccontextmanager
async def floor_in(folder: Path) -> AsyncIterator[Floor]:
    """Start everything; end it afterwards."""
    async with Devnet.start(port=0) as net:
        stage = Stage(net, folder)
        try:
            await stage.bundler.start()
            await stage.paymaster.start()
            async with RpcClient(stage.bundler.url) as bundler, RpcClient(stage.paymaster.url) as paymaster:
                yield Floor(net, stage, bundler, paymaster)
        finally:
            await stage.stop()


def on_lane(signer: Signer, lane: int) -> Signer:
    """The same account's signer on another lane of its nonce."""
    return replace(signer, account=replace(signer.account, lane=lane))
