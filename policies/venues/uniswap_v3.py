"""Uniswap v3 liquidity: the positions that the account holds at the position manager, with the fees they have earned until now.

A position is its liquidity between two prices; what that is worth is for whoever knows the index price, never for the pool's spot.
Fee growth counts modulo 2^256 and wraps: only differences mean anything.
Source: Uniswap v3 whitepaper, 6.2.2, 6.3 and 6.4.1; NonfungiblePositionManager.positions, Tick.getFeeGrowthInside, PoolAddress.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from decimal import ROUND_HALF_EVEN, Context, Decimal, localcontext

from contracts.abi import Function
from contracts.bindings import BALANCE_OF
from contracts.errors import InvalidFields
from contracts.types import Address, to_hex
from contracts.units import from_units
from policies.portfolio import Fill, Liquidity, Missing
from policies.venues import NO_PRICES, Adapter, Log, Read, Snapshot
from policies.venues.swaps import fill_of, pool_address, swaps_in
from policies.venues.tokens import Token

TOKEN_OF_OWNER = Function.parse("tokenOfOwnerByIndex(address,uint256)(uint256)")
POSITIONS = Function.parse(
    "positions(uint256)(uint96,address,address,address,uint24,int24,int24,uint128,uint256,uint256,uint128,uint128)"
)
"""nonce, operator, token0, token1, fee, lower and upper tick, liquidity, fee growth inside when last touched (2), tokens owed (2)."""
SLOT0 = Function.parse("slot0()(uint160,int24,uint16,uint16,uint16,uint8,bool)")
FEE_GROWTH_0 = Function.parse("feeGrowthGlobal0X128()(uint256)")
FEE_GROWTH_1 = Function.parse("feeGrowthGlobal1X128()(uint256)")
TICKS = Function.parse("ticks(int24)(uint128,int128,uint256,uint256,int56,uint160,uint32,bool)")
"""gross and net liquidity, fee growth outside (2), and what oracles need."""
DECIMALS = Function.parse("decimals()(uint8)")

VENUE = "uniswap"
MAX_POSITIONS = 64
"""More than these and the venue is missing: a portfolio that leaves out positions would be a wrong one."""
_AT_ONCE = 4
"""Positions whose ids are asked for before their number is known."""
_EACH_POOL = 7
"""Reads of one position's pool and tokens."""
_PRECISION = Context(prec=60, rounding=ROUND_HALF_EVEN)
_SHOWN = Context(prec=40, rounding=ROUND_HALF_EVEN)
"""Digits of a price that is an irrational number or a very long one."""


def growth_inside(tick: int, lower: tuple[int, int], upper: tuple[int, int], growth: int) -> int:
    """Fees per unit of liquidity (Q128) earned inside a range since the beginning, modulo 2^256.

    `lower` and `upper` are (tick, fee growth outside); `growth` is the pool's own.   Source: whitepaper, 6.17 to 6.19.
    """
    below = lower[1] if tick >= lower[0] else growth - lower[1]
    above = upper[1] if tick < upper[0] else growth - upper[1]
    return (growth - below - above) % 2**256


def owed(already: int, liquidity: int, inside: int, inside_last: int) -> int:
    """Fees not yet collected, in units: those noted already, and liquidity x growth since then / 2^128, rounded down."""
    return already + liquidity * ((inside - inside_last) % 2**256) // 2**128


def price_at(tick: int, decimals0: int, decimals1: int) -> Decimal:
    """Whole token1 per whole token0 at a tick: 1.0001^tick x 10^(decimals0 - decimals1), 40 digits."""
    with localcontext(_PRECISION):
        price = Decimal("1.0001") ** tick
        return _SHOWN.plus(price.scaleb(decimals0 - decimals1))


def whole_liquidity(liquidity: int, decimals0: int, decimals1: int) -> Decimal:
    """The pool's L for amounts and prices in whole units: L / 10^((decimals0 + decimals1) / 2); an odd sum needs a root of ten."""
    with localcontext(_PRECISION):
        return _SHOWN.plus(Decimal(liquidity) / (Decimal(10) ** (decimals0 + decimals1)).sqrt())


@dataclass(frozen=True, slots=True)
class UniswapV3(Adapter):
    """One deployment. Tokens that are not among `tokens` go by their address, which has no price. Trades are those of `routers`, and of
    the account itself, on the factory's pools; `quoted` are tokens that are only known as what is traded."""

    factory: Address
    position_manager: Address
    tokens: tuple[Token, ...]
    routers: tuple[Address, ...] = ()
    quoted: tuple[Token, ...] = ()

    def reads(self, account: Address) -> tuple[Read, ...]:
        ids = [(self.position_manager, TOKEN_OF_OWNER.encode(account, i)) for i in range(_AT_ONCE)]
        return ((self.position_manager, BALANCE_OF.encode(account)), *ids)

    def more(self, account: Address, answers: Sequence[bytes | None]) -> tuple[Read, ...]:
        """The ids beyond the first, then the positions, then their pools."""
        try:
            (count,) = BALANCE_OF.decode(answers[0] or b"")
            if not 0 < count <= MAX_POSITIONS:
                return ()
            first, listed = 1 + _AT_ONCE, 1 + max(count, _AT_ONCE)
            if len(answers) == first < listed:
                return tuple((self.position_manager, TOKEN_OF_OWNER.encode(account, i)) for i in range(_AT_ONCE, count))
            if len(answers) == listed:
                return tuple((self.position_manager, POSITIONS.encode(i)) for i in self._ids(answers, count))
            if len(answers) == listed + count:
                return tuple(read for answer in answers[listed:] for read in self._pool_reads(answer))
        except InvalidFields:
            pass
        return ()

    def parse(self, answers: Sequence[bytes | None]) -> Snapshot:
        try:
            (count,) = BALANCE_OF.decode(_given(answers, 0))
            if count > MAX_POSITIONS:
                raise InvalidFields(f"the account holds {count} positions, more than the {MAX_POSITIONS} that are read")
            ids = self._ids(answers, count)
            at, pools = 1 + max(count, _AT_ONCE), 1 + max(count, _AT_ONCE) + count
            found = tuple(
                self._position(token_id, _given(answers, at + i), answers[pools + _EACH_POOL * i :])
                for i, token_id in enumerate(ids)
            )
        except InvalidFields as error:
            return Snapshot(missing=(Missing(VENUE, error.message),))
        return Snapshot(liquidity=tuple(one for one in found if one.liquidity or one.owed0 or one.owed1))

    def fills(
        self, logs: Sequence[Log], account: Address, prices: Mapping[str, Decimal] = NO_PRICES
    ) -> tuple[Fill, ...]:
        """Swaps, several hops as one."""
        tokens = {token.address: token for token in (*self.quoted, *self.tokens)}
        swaps = swaps_in(logs, self.factory, (account, *self.routers))
        return tuple(fill_of(swap, VENUE, tokens, prices) for swap in swaps)

    def _ids(self, answers: Sequence[bytes | None], count: int) -> list[int]:
        return [TOKEN_OF_OWNER.decode(_given(answers, 1 + i))[0] for i in range(count)]

    def _pool_reads(self, answer: bytes | None) -> list[Read]:
        _, _, token0, token1, fee, lower, upper, *_ = POSITIONS.decode(answer or b"")
        pool = pool_address(self.factory, token0, token1, fee)
        return [
            (pool, SLOT0.encode()),
            (pool, FEE_GROWTH_0.encode()),
            (pool, FEE_GROWTH_1.encode()),
            (pool, TICKS.encode(lower)),
            (pool, TICKS.encode(upper)),
            (token0, DECIMALS.encode()),
            (token1, DECIMALS.encode()),
        ]

    def _position(self, token_id: int, position: bytes, pool: Sequence[bytes | None]) -> Liquidity:
        """Raises InvalidFields."""
        _, _, token0, token1, _, lower, upper, liquidity, last0, last1, owed0, owed1 = POSITIONS.decode(position)
        _, tick, *_ = SLOT0.decode(_given(pool, 0))
        low, high = TICKS.decode(_given(pool, 3)), TICKS.decode(_given(pool, 4))
        sides = []
        for side, (token, last, noted) in enumerate(((token0, last0, owed0), (token1, last1, owed1))):
            (growth,) = (FEE_GROWTH_0, FEE_GROWTH_1)[side].decode(_given(pool, 1 + side))
            (decimals,) = DECIMALS.decode(_given(pool, 5 + side))
            fees = noted
            if (
                liquidity
            ):  # an empty range's ticks may be cleared: there is nothing to earn, and nothing to subtract from
                inside = growth_inside(tick, (lower, low[2 + side]), (upper, high[2 + side]), growth)
                fees = owed(noted, liquidity, inside, last)
            sides.append((self._name(token), decimals, from_units(fees, decimals)))
        (asset0, decimals0, fees0), (asset1, decimals1, fees1) = sides
        return Liquidity(
            venue=VENUE,
            token_id=token_id,
            asset0=asset0,
            asset1=asset1,
            lower_price=price_at(lower, decimals0, decimals1),
            upper_price=price_at(upper, decimals0, decimals1),
            liquidity=whole_liquidity(liquidity, decimals0, decimals1),
            owed0=fees0,
            owed1=fees1,
        )

    def _name(self, token: Address) -> str:
        return next((known.asset for known in self.tokens if known.address == token), to_hex(token))


def _given(answers: Sequence[bytes | None], at: int) -> bytes:
    """Raises InvalidFields."""
    answer = answers[at] if at < len(answers) else None
    if answer is None:
        raise InvalidFields("the venue did not answer a read of the account's positions")
    return answer
