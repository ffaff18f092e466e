"""People who trade options on a devnet with plain transactions."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from contracts.abi import Function
from contracts.types import Address, parse_bytes, parse_hash
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
    name: str, strike: Strike, kind: OptionType, amount_wad: int, *, position: int = 0, collateral_wad: int = 0
) -> bytes:
    """Call data of openPosition, closePosition or forceClosePosition without a cost bound."""
    order = (strike.id, position, 1, int(kind), amount_wad, collateral_wad, 0, NO_LIMIT)
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
