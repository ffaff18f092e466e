"""Trades on Uniswap v3 pools, from the pools' own events: what the account gave and what it took, hop by hop joined to one trade.

Only pools that the factory made count, and only swaps that a router of the book asked for: what other venues trade on such pools inside an
operation (perps, hedgers) is theirs. The pool's fee is told apart from the price.
Source: Uniswap v3 core, IUniswapV3PoolEvents; v3-periphery, SwapRouter (both ways of several hops end with the events in the path's order).
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from decimal import ROUND_HALF_EVEN, Context, Decimal, localcontext

from contracts import abi
from contracts.abi import Event
from contracts.errors import InvalidFields
from contracts.types import Address, keccak, to_hex
from contracts.units import from_units
from policies.portfolio import UNIT_OF_ACCOUNT, Fill
from policies.venues import Log
from policies.venues.tokens import Token

SWAP = Event.parse("Swap(address indexed,address indexed,int256,int256,uint160,uint128,int24)")
"""sender, recipient, amount0 and amount1 as the pool sees them (what it received is positive), price, liquidity and tick afterwards."""
TRANSFER = Event.parse("Transfer(address indexed,address indexed,uint256)")
POOL_INIT_CODE_HASH = bytes.fromhex("e34f199b19b2b4f47f68442619d555527d244f78a3297ea89325f843f87b8b54")
"""keccak256 of UniswapV3Pool's creation code.   Source: PoolAddress.sol in v3-periphery."""
FEES_PIPS = (100, 500, 3_000, 10_000)
"""Fees that the factory offers, in millionths."""
_LOOKS = 1_024
"""Pools that are looked for in one operation at most: whoever emits events can make up tokens without end."""
_MILLION = 10**6
_EXACT = Context(prec=78, rounding=ROUND_HALF_EVEN)
_QUANTUM = Decimal(1).scaleb(-18)


def pool_address(factory: Address, token0: Address, token1: Address, fee_pips: int) -> Address:
    """Where the factory puts the pool of this pair and fee: CREATE2 of the sorted tokens and the fee."""
    salt = keccak(abi.encode(["address", "address", "uint24"], [token0, token1, fee_pips]))
    return keccak(b"\xff" + factory + salt + POOL_INIT_CODE_HASH)[12:]


@dataclass(frozen=True, slots=True)
class Swap:
    """One trade, amounts in units. `fees_pips` of the pools that it went through, in millionths."""

    given: Address
    given_units: int
    taken: Address
    taken_units: int
    fees_pips: tuple[int, ...]


def swaps_in(logs: Sequence[Log], factory: Address, askers: Iterable[Address]) -> tuple[Swap, ...]:
    """Every trade that one of `askers` (routers, or the account itself) made on pools of `factory`, in order.

    What looks like one, on what cannot be shown to be such a pool, is a trade in a token that nobody knows: no price, so it denies.
    """
    known, found, looks = frozenset(askers), [], itertools.count()
    for address, topics, data in logs:
        if len(topics) != 3 or topics[0] != SWAP.topic or topics[1][12:] not in known:
            continue
        try:
            _, _, amount0, amount1, *_ = SWAP.decode(topics, data)
        except InvalidFields:
            continue
        if amount0 * amount1 >= 0:
            continue
        token0, token1, fee = _pool(address, amount0, amount1, logs, factory, looks) or (address, address, 0)
        if amount0 > 0:
            found.append(Swap(token0, amount0, token1, -amount1, (fee,)))
        else:
            found.append(Swap(token1, amount1, token0, -amount0, (fee,)))
    return _joined(found)


def _pool(
    address: Address, amount0: int, amount1: int, logs: Sequence[Log], factory: Address, looks: Iterator[int]
) -> tuple[Address, Address, int] | None:
    """Tokens and fee of a pool, if it is one: of the tokens that moved in and out of it in these amounts, the pair whose pool is there."""
    received, paid = max(amount0, amount1), -min(amount0, amount1)
    came, went = dict[Address, None](), dict[Address, None]()
    for token, topics, data in logs:
        if len(topics) == 3 and topics[0] == TRANSFER.topic and len(data) == 32:
            units = int.from_bytes(data)
            if topics[2][12:] == address and units == received:
                came[token] = None
            if topics[1][12:] == address and units == paid:
                went[token] = None
    for one, other in itertools.product(came, went):
        token0, token1 = (one, other) if amount0 > 0 else (other, one)
        for fee in FEES_PIPS if token0 < token1 else ():
            if next(looks) >= _LOOKS:
                return None
            if pool_address(factory, token0, token1, fee) == address:
                return token0, token1, fee
    return None


def _joined(hops: Sequence[Swap]) -> tuple[Swap, ...]:
    """Hops that pass the very amount on are one trade."""
    found: list[Swap] = []
    for hop in hops:
        last = found[-1] if found else None
        if last is not None and (last.taken, last.taken_units) == (hop.given, hop.given_units):
            found[-1] = Swap(
                last.given, last.given_units, hop.taken, hop.taken_units, (*last.fees_pips, *hop.fees_pips)
            )
        else:
            found.append(hop)
    return tuple(found)


def fill_of(swap: Swap, venue: str, tokens: Mapping[Address, Token], prices: Mapping[str, Decimal]) -> Fill:
    """The trade as a fill of the asset that is not the unit of account; of two such, of what was taken, paid at the oracle's price of what
    was given.

    A token that nobody named goes by its address, counted in its smallest unit, and has no price: which denies. `quote` is without the
    pools' fees, `fee` is what they took: quote + fee is what a buyer paid, quote - fee what a seller got, to 18 decimals.
    """
    given, taken = (tokens.get(one) or Token(to_hex(one), one, 0) for one in (swap.given, swap.taken))
    gave, took = from_units(swap.given_units, given.decimals), from_units(swap.taken_units, taken.decimals)
    kept = Decimal(1)
    with localcontext(_EXACT):
        for fee in swap.fees_pips:
            kept = kept * (_MILLION - fee) / _MILLION
        sells = taken.asset == UNIT_OF_ACCOUNT or (taken.asset in prices and given.asset not in prices)
        asset, size = (given.asset, -gave) if sells and given.asset != UNIT_OF_ACCOUNT else (taken.asset, took)
        paid = _worth(taken.asset, took, prices) if size < 0 else _worth(given.asset, gave, prices)
        if size < 0:
            quote = (paid / kept).quantize(_QUANTUM)
            return Fill(venue, asset, size, quote, quote - paid)
        quote = (paid * kept).quantize(_QUANTUM)
        return Fill(venue, asset, size, quote, paid - quote)


def _worth(asset: str, amount: Decimal, prices: Mapping[str, Decimal]) -> Decimal:
    """In the unit of account; 0 where there is no price, which is a doubt of its own."""
    return amount if asset == UNIT_OF_ACCOUNT else amount * prices.get(asset, Decimal(0))
