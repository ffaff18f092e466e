"""People who trade options on a devnet with plain transactions."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from contracts.abi import Function
from contracts.bindings import (
    CREATE_ACCOUNT,
    GET_ACCOUNT_ADDRESS,
    AccountConfig,
    Call,
    ModuleInit,
    ecdsa_owner,
    encode_execute,
)
from contracts.entrypoint import USER_OPERATION_EVENT, V08
from contracts.entrypoint.base import DEPOSIT_TO
from contracts.types import Address, keccak, parse_bytes, parse_hash
from contracts.userop import UserOperation
from policies.venues.lyra import GET_LIVE_BOARDS, GET_OWNER_POSITIONS, TRADE, TRADE_INPUT, OptionType
from tests.devnet.rig import Person

RESULT = "(uint256,uint256,uint256)"
NO_LIMIT = 2**256 - 1
GLOBAL_CACHE = "getGlobalCache()((uint256,uint256,uint256,uint256,uint256,(int256,int256,int256)))"


@dataclass(frozen=True, slots=True)
class Strike:
    """One strike of one board, as the market lists it. Prices 1e18 = one."""

    id: int
    board_id: int
    price_wad: int
    expiry_s: int


async def strikes(person: Person) -> list[list[Strike]]:
    """The live boards, soonest expiry first, and their strikes from low to high."""
    where = person.net.addresses
    answer = await person.net.rpc.eth_call(where.lyra_viewer, GET_LIVE_BOARDS.encode(where.lyra_option_market))
    boards = sorted(GET_LIVE_BOARDS.decode(answer)[0], key=lambda board: board[2])
    return [sorted((Strike(s[0], b[1], s[2], b[2]) for s in b[8]), key=lambda s: s.price_wad) for b in boards]


async def positions(person: Person, owner: Address | None = None) -> list[tuple[Any, ...]]:
    """positionId, strikeId, optionType, amount, collateral, state."""
    where = person.net.addresses
    target = GET_OWNER_POSITIONS.encode(owner or person.eoa.address)
    return list(GET_OWNER_POSITIONS.decode(await person.net.rpc.eth_call(where.lyra_option_token, target))[0])


def trade(
    name: str,
    strike: Strike,
    kind: OptionType,
    amount_wad: int,
    *,
    position: int = 0,
    collateral_wad: int = 0,
    least_wad: int = 0,
    most_wad: int = NO_LIMIT,
) -> bytes:
    """Call data of openPosition, closePosition or forceClosePosition, without a bound of its total cost if none is given."""
    order = (strike.id, position, 1, int(kind), amount_wad, collateral_wad, least_wad, most_wad)
    return Function.parse(f"{name}({TRADE_INPUT})").encode(order)


async def approve(person: Person) -> None:
    """Let the market take the person's sUSD."""
    where = person.net.addresses
    await person.do(where.lyra_quote, "approve(address,uint256)", where.lyra_option_market, NO_LIMIT)


async def quote_wad(person: Person, owner: Address | None = None) -> int:
    """sUSD held."""
    found: int = await person.ask(
        person.net.addresses.lyra_quote, "balanceOf(address)(uint256)", owner or person.eoa.address
    )
    return found


async def send(person: Person, call_data: bytes) -> tuple[int, int, int]:
    """Trade. Returns (position, premium, fee), money 1e18 = one."""
    receipt = await person.sender.transact(person.net.addresses.lyra_option_market, call_data)
    (log,) = (log for log in receipt["logs"] if parse_hash(log["topics"][0]) == TRADE.topic)
    _, _, position, _, results, _, _ = TRADE.decode([parse_hash(t) for t in log["topics"]], parse_bytes(log["data"]))
    return position, sum(r[1] for r in results), sum(r[6] for r in results)


async def net_greeks(person: Person) -> tuple[int, int]:
    """The market's net delta and net standard vega, seen from its traders, 1e18 = one."""
    cache = await person.ask(person.net.addresses.lyra_greek_cache, GLOBAL_CACHE)
    delta, vega, _ = cache[5]
    return delta, vega


@dataclass(slots=True)
class OptionAccount:
    """A RiskAccount with sUSD that performs calls through the entry point, as its owner signs them."""

    someone: Person
    address: Address
    birth: bytes
    nonce: int = 0

    @classmethod
    async def fund(cls, someone: Person, quote_wad: int, modules: tuple[ModuleInit, ...] = ()) -> OptionAccount:
        """An account that is not born yet, with `quote_wad` of sUSD and gas money at the entry point."""
        net = someone.net
        config = AccountConfig(ecdsa_owner(net.accounts.owner.address), bytes(20), 0, (10**18,) * 3, modules)
        salt = keccak(b"options")
        where = net.addresses
        answer = await net.rpc.eth_call(where.risk_account_factory, GET_ACCOUNT_ADDRESS.encode(config.to_abi(), salt))
        (address,) = GET_ACCOUNT_ADDRESS.decode(answer)
        await someone.do(where.lyra_quote, "transfer(address,uint256)", address, quote_wad)
        await someone.sender.transact(V08.address, DEPOSIT_TO.encode(address), value=10**18)
        return cls(someone, address, CREATE_ACCOUNT.encode(config.to_abi(), salt))

    async def perform(self, *calls: Call) -> None:
        """One operation; the first gives birth to the account."""
        net = self.someone.net
        op = UserOperation(
            sender=self.address,
            nonce=self.nonce,
            call_data=encode_execute(calls),
            call_gas_limit=6_000_000,
            verification_gas_limit=3_000_000,
            pre_verification_gas=200_000,
            max_fee_per_gas=2 * 10**9,
            max_priority_fee_per_gas=10**6,
            factory=None if self.nonce else net.addresses.risk_account_factory,
            factory_data=b"" if self.nonce else self.birth,
        )
        op = op.replace(signature=net.accounts.owner.sign_hash(V08.user_op_hash(op, net.chain_id)))
        ops = V08.encode_handle_ops([op], self.someone.eoa.address)
        receipt = await self.someone.sender.transact(V08.address, ops, gas=13_000_000)
        (log,) = (log for log in receipt["logs"] if parse_hash(log["topics"][0]) == USER_OPERATION_EVENT.topic)
        event = USER_OPERATION_EVENT.decode([parse_hash(t) for t in log["topics"]], parse_bytes(log["data"]))
        assert event[4], "the operation's calls reverted"
        self.nonce += 1

    def allowing(self) -> Call:
        """Let the market take the account's sUSD."""
        where = self.someone.net.addresses
        approve = Function.parse("approve(address,uint256)").encode(where.lyra_option_market, NO_LIMIT)
        return Call(where.lyra_quote, approve)

    def trading(self, call_data: bytes) -> Call:
        return Call(self.someone.net.addresses.lyra_option_market, call_data)
