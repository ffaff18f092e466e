"""Lyra Avalon: option positions, the collateral of short ones, and the quote they are paid in.

A position is marked the way the market prices a trade before fees and slippage: Black-Scholes at the venue's spot, its volatility of the
strike (board volatility x skew), its rate. The cached prices of `OptionGreekCache` are as old as its last update and are not used. Each
short position stands for itself: it is liquidatable when its own collateral is below its own minimum, which the shocked price sets.
What is settled and not yet paid out stays an option, at what it pays. The premium a position was opened with is nowhere on chain:
`entry_notional` is the mark, so that an option's profit shows in equity and never as unrealised.
Amounts in sUSD count as one USDC each while sUSD trades within DEPEG_LIMIT of it; beyond that the venue is missing.
Source: Lyra Avalon 0.1.3-alpha, OptionMarket, OptionToken, OptionGreekCache, BlackScholes, OptionMarketViewer.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal, localcontext
from enum import IntEnum
from typing import Any

from contracts.abi import Event, Function
from contracts.bindings import BALANCE_OF
from contracts.errors import InvalidFields
from contracts.types import Address, checksum
from contracts.units import from_units
from policies.margin import EXACT
from policies.portfolio import SETTLEMENT, Fill, Holding, Margin, Missing, Option, Price, option_label
from policies.venues import NO_PRICES, Adapter, Log, Read, Snapshot

VENUE = "lyra"
QUOTE_ASSET = "SUSD"
DEPEG_LIMIT = Decimal("0.01")
_SECONDS_PER_YEAR = 31_536_000
_PRICE_PLACES = 9
"""Decimals of a mark: beyond them a double says nothing about an option on an asset worth thousands."""
_MARGIN_MODEL = "lyra"
_FIRST_ROUND = 9

_POSITION = "(uint256,uint256,uint8,uint256,uint256,uint8)"
_GREEKS = "(int256,int256,uint256,uint256,uint256)"
_STRIKE = f"(uint256,uint256,uint256,uint256,uint256,{_GREEKS},uint256,uint256,uint256,uint256,uint256,uint256)"
_BOARD = f"(address,uint256,uint256,uint256,uint256,bool,uint256,(int256,int256,int256),{_STRIKE}[])"
TRADE_INPUT = "(uint256,uint256,uint256,uint8,uint256,uint256,uint256,uint256)"
"""strikeId, positionId (0: a new one), iterations, optionType, amount, setCollateralTo, minTotalCost, maxTotalCost."""
GET_OWNER_POSITIONS = Function.parse(f"getOwnerPositions(address)({_POSITION}[])")
"""positionId, strikeId, optionType, amount, collateral, state."""
GET_LIVE_BOARDS = Function.parse(f"getLiveBoards(address)({_BOARD}[])")
GET_SPOT_PRICE = Function.parse("getSpotPriceForMarket(address)(uint256)")
GET_MIN_COLLATERAL_PARAMETERS = Function.parse(
    "getMinCollatParams()((uint256,uint256,uint256,uint256,uint256,uint256,uint256,uint256))"
)
GET_GREEK_CACHE_PARAMETERS = Function.parse(
    "getGreekCacheParams()((uint256,uint256,uint256,uint256,uint256,uint256,uint256,uint256,uint256,int256))"
)
_STRIKE_STATE = "(uint256,uint256,uint256,uint256,uint256,uint256,uint256,uint256,uint256)"
GET_STRIKE_AND_BOARD = Function.parse(
    f"getStrikeAndBoard(uint256)({_STRIKE_STATE},(uint256,uint256,uint256,bool,uint256[]))"
)
"""id, strikePrice, skew, five exposures, boardId; id, expiry, iv, frozen, strikeIds."""
GET_SETTLEMENT_PARAMETERS = Function.parse("getSettlementParameters(uint256)(uint256,uint256,uint256)")
"""strikePrice, priceAtExpiry (0: not settled), strikeToBaseReturned."""
GET_TIMESTAMP = Function.parse("getCurrentBlockTimestamp()(uint256)")
SLOT0 = Function.parse("slot0()(uint160,int24,uint16,uint16,uint16,uint8,bool)")

_TRADE_DATA = "(uint256,uint256,uint8,uint8,uint256,uint256,bool,uint256,uint256,uint256)"
"""expiry, strikePrice, optionType, tradeDirection, amount, setCollateralTo, isForceClose, spotPrice, reservedFee, totalCost."""
_VEGA_FEE = "(int256,int256,uint256,uint256,uint256,uint256)"
_VARIANCE_FEE = "(uint256,uint256,uint256,uint256,uint256,uint256,uint256,uint256)"
_TRADE_RESULT = f"(uint256,uint256,uint256,uint256,{_VEGA_FEE},{_VARIANCE_FEE},uint256,uint256,uint256,uint256,uint256)"
"""amount, premium, optionPriceFee, spotPriceFee, vegaUtilFee, varianceFee, totalFee, totalCost, volTraded, newBaseIv, newSkew."""
_LIQUIDATION = "(address,address,uint256,uint256,uint256,uint256,uint256,uint256)"
TRADE = Event.parse(
    f"Trade(address indexed,uint256 indexed,uint256 indexed,{_TRADE_DATA},{_TRADE_RESULT}[],{_LIQUIDATION},uint256)"
)
"""trader, strike, position, trade, results by iteration, liquidation, timestamp."""
POSITION_SETTLED = Event.parse(
    "PositionSettled(uint256 indexed,address indexed,address indexed,uint256,uint256,uint8,uint256,uint256,uint256)"
)
"""position, settler, owner, strike price, price at expiry, option type, amount, settlement amount, insolvent amount."""


class OptionType(IntEnum):
    """OptionMarket.OptionType."""

    LONG_CALL = 0
    LONG_PUT = 1
    SHORT_CALL_BASE = 2
    SHORT_CALL_QUOTE = 3
    SHORT_PUT_QUOTE = 4

    @property
    def is_call(self) -> bool:
        return self not in (OptionType.LONG_PUT, OptionType.SHORT_PUT_QUOTE)

    @property
    def is_long(self) -> bool:
        return self in (OptionType.LONG_CALL, OptionType.LONG_PUT)


@dataclass(frozen=True, slots=True)
class Strike:
    """What the market's number of a strike stands for; `price` in quote."""

    asset: str
    expiry_s: int
    price: Decimal

    def label(self, kind: OptionType) -> str:
        """That of the option of this kind."""
        return option_label(VENUE, self.asset, self.expiry_s, self.price, is_call=kind.is_call)


_OPEN = 0
"""OptionMarket.TradeDirection; the others, close and liquidate, both reduce."""


@dataclass(frozen=True, slots=True)
class MinCollateral:
    """Settings of the minimum collateral of a short position: OptionGreekCache.MinCollateralParameters and its rate.

    Shock volatility is `shock_vol_a` up to `point_a_s` before expiry, `shock_vol_b` from `point_b_s` on, linear between.
    """

    static_quote: float
    static_base: float
    shock_vol_a: float
    point_a_s: int
    shock_vol_b: float
    point_b_s: int
    call_shock: float
    put_shock: float
    rate: float

    def shock_vol(self, left_s: int) -> float:
        """Volatility at which a short with `left_s` seconds to go is priced for its collateral."""
        if left_s <= self.point_a_s:
            return self.shock_vol_a
        if left_s >= self.point_b_s:
            return self.shock_vol_b
        way = (left_s - self.point_a_s) / (self.point_b_s - self.point_a_s)
        return self.shock_vol_a - (self.shock_vol_a - self.shock_vol_b) * way

    def of(self, kind: OptionType, strike: float, left_s: int, spot: float, amount: float) -> float:
        """The collateral below which a short of `amount` > 0 is liquidated, in quote; of SHORT_CALL_BASE in base.

        min(max(price at shocked spot and volatility x amount, static), full), full = strike x amount of a put, amount of a
        base-covered call, none of a quote-covered call.   Source: OptionGreekCache.getMinCollateral.
        """
        shocked = spot * (self.call_shock if kind.is_call else self.put_shock)
        call, put = black_scholes(left_s, self.shock_vol(left_s), shocked, strike, self.rate)
        if kind is OptionType.SHORT_CALL_BASE:
            return min(max(call * amount / shocked, self.static_base), amount)
        if kind is OptionType.SHORT_CALL_QUOTE:
            return max(call * amount, self.static_quote)
        return min(max(put * amount, self.static_quote), amount * strike)


def _normal_cdf(x: float) -> float:
    return 0.5 * math.erfc(-x / math.sqrt(2))


def black_scholes(left_s: int, vol: float, spot: float, strike: float, rate: float) -> tuple[float, float]:
    """(call, put) per unit, `left_s` seconds before expiry, as the venue computes them: at least one second and a volatility of 1e-4,
    call clamped at zero, the put from parity.   Source: Lyra Avalon, BlackScholes.optionPrices.
    """
    years = left_s / _SECONDS_PER_YEAR
    at_least = max(years, 1 / _SECONDS_PER_YEAR)
    sigma = max(vol, 1e-4)
    width = sigma * math.sqrt(at_least)
    d1 = (math.log(spot / strike) + (sigma * sigma / 2 + rate) * at_least) / width
    present = strike * math.exp(-rate * years)
    call = max(0.0, spot * _normal_cdf(d1) - present * _normal_cdf(d1 - width))
    return call, max(0.0, call + present - spot)


def _amount(value: float) -> Decimal:
    if not math.isfinite(value):
        raise InvalidFields(f"a model value is {value}")
    return Decimal(f"{value:.{_PRICE_PLACES}f}")


@dataclass(frozen=True, slots=True)
class _Listed:
    """One strike. `settled_at` is the price at which its board was settled, None while it is live."""

    strike_wad: int
    expiry_s: int
    vol: Decimal
    settled_at: Decimal | None = None


@dataclass(frozen=True, slots=True)
class Lyra(Adapter):
    """One option market on `asset`, quoted in `quote` (sUSD), which `quote_pool` (Uniswap v3) trades against `quote_peg` (USDC).

    Base-covered calls and the base synth itself count as `asset`.
    """

    asset: str
    option_market: Address
    option_token: Address
    greek_cache: Address
    short_collateral: Address
    synthetix_adapter: Address
    viewer: Address
    multicall3: Address
    quote: Address
    base: Address
    quote_pool: Address
    quote_peg: Address
    peg_decimals: int = 6

    def reads(self, account: Address) -> tuple[Read, ...]:
        return (
            (self.option_token, GET_OWNER_POSITIONS.encode(account)),
            (self.viewer, GET_LIVE_BOARDS.encode(self.option_market)),
            (self.synthetix_adapter, GET_SPOT_PRICE.encode(self.option_market)),
            (self.greek_cache, GET_MIN_COLLATERAL_PARAMETERS.encode()),
            (self.greek_cache, GET_GREEK_CACHE_PARAMETERS.encode()),
            (self.multicall3, GET_TIMESTAMP.encode()),
            (self.quote, BALANCE_OF.encode(account)),
            (self.base, BALANCE_OF.encode(account)),
            (self.quote_pool, SLOT0.encode()),
        )

    def more(self, account: Address, answers: Sequence[bytes | None]) -> tuple[Read, ...]:  # noqa: ARG002
        """Strikes that the account holds on boards no longer listed: settled, and not yet paid out."""
        if len(answers) != _FIRST_ROUND:
            return ()
        try:
            held = _held(answers[0])
            listed = _listed(answers[1]) if held else {}
            return tuple(
                (self.option_market, function.encode(strike_id))
                for strike_id in _unlisted(held, listed)
                for function in (GET_STRIKE_AND_BOARD, GET_SETTLEMENT_PARAMETERS)
            )
        except InvalidFields:
            return ()  # `parse` says what is wrong

    def parse(self, answers: Sequence[bytes | None]) -> Snapshot:
        """One view of the venue: what is missing of it is missing whole. The price of sUSD matters to those who hold or trade it only."""
        try:
            return self._parse(answers)
        except (InvalidFields, ArithmeticError, ValueError) as error:
            why = error.message if isinstance(error, InvalidFields) else str(error)
            return Snapshot(missing=(Missing(VENUE, why),))

    def _parse(self, answers: Sequence[bytes | None]) -> Snapshot:
        positions, boards, spot, shocks, greeks, clock, quote, base, slot0 = answers[:_FIRST_ROUND]
        holdings, prices, unpriced = self._money(clock, quote, base, slot0)
        held = _held(positions)
        if unpriced and (held or holdings[0].amount):
            raise InvalidFields(f"what its quote is worth is not known: {unpriced}")
        if not held:
            return Snapshot(holdings=holdings, prices=prices)
        (now_s,) = GET_TIMESTAMP.decode(_given(clock, "clock"))
        (spot_wad,) = GET_SPOT_PRICE.decode(_given(spot, "spot price"))
        rules = _rules(_given(shocks, "collateral settings"), _given(greeks, "rate"))
        listed = _listed(boards)
        listed |= _settled(_unlisted(held, listed), answers[_FIRST_ROUND:])
        options, margins = self._book(held, listed, rules, spot_wad, now_s)
        return Snapshot(holdings=holdings, margins=margins, prices=prices, options=options)

    def _money(
        self, clock: bytes | None, quote: bytes | None, base: bytes | None, slot0: bytes | None
    ) -> tuple[tuple[Holding, ...], tuple[Price, ...], str]:
        """Synths in the account's own hands, sUSD at the lower of par and what its pool pays, and why that is not known."""
        held = (
            Holding("account", QUOTE_ASSET, from_units(BALANCE_OF.decode(_given(quote, "sUSD balance"))[0], 18)),
            Holding("account", self.asset, from_units(BALANCE_OF.decode(_given(base, "synth balance"))[0], 18)),
        )
        source = f"pool {checksum(self.quote_pool)}"
        try:
            (now_s,) = GET_TIMESTAMP.decode(_given(clock, "clock"))
            worth = self._quote_price(SLOT0.decode(_given(slot0, "pool of sUSD"))[0])
        except InvalidFields as error:
            return held, (), error.message
        if abs(worth - 1) > DEPEG_LIMIT:
            return held, (), f"sUSD trades at {worth:.4f} USDC in {source}, more than {DEPEG_LIMIT:.0%} off par"
        return held, (Price(QUOTE_ASSET, min(worth, Decimal(1)), now_s, source),), ""

    def _quote_price(self, sqrt_x96: int) -> Decimal:
        """USDC per sUSD in the pool, rounded down to 18 decimals."""
        scale = 10 ** (18 + 18 - self.peg_decimals)
        squared = sqrt_x96**2
        if not squared:
            raise InvalidFields("the pool of sUSD has no price")
        peg_per_quote = squared * scale >> 192 if self.quote < self.quote_peg else (scale << 192) // squared
        return from_units(peg_per_quote, 18)

    def _book(
        self, held: list[tuple[Any, ...]], listed: dict[int, _Listed], rules: MinCollateral, spot_wad: int, now_s: int
    ) -> tuple[tuple[Option, ...], tuple[Margin, ...]]:
        spot = from_units(spot_wad, 18)
        options: list[Option] = []
        terms: list[tuple[str, Decimal]] = []
        collateral = required = free = value = Decimal(0)
        for _, strike_id, kind_id, amount_wad, locked_wad, _ in held:
            kind, place = OptionType(kind_id), listed[strike_id]
            option = self._option(kind, place, amount_wad, spot, rules.rate, now_s)
            options.append(option)
            with localcontext(EXACT):
                value += option.notional
                if kind.is_long:
                    continue
                locked = from_units(locked_wad, 18)
                least = _amount(
                    rules.of(
                        kind, float(option.strike), max(0, place.expiry_s - now_s), float(spot), float(-option.size)
                    )
                )
                unit = spot if kind is OptionType.SHORT_CALL_BASE else Decimal(1)
                collateral += locked * unit
                required += least * unit
                free += max(locked - least, Decimal(0)) * unit
                name = "base_collateral" if kind is OptionType.SHORT_CALL_BASE else "collateral"
                terms.append((f"{name}.{len(options) - 1}", locked))
        with localcontext(EXACT):
            account_value = collateral + value
        margin = Margin(
            venue=VENUE,
            collateral=collateral,
            account_value=account_value,
            maintenance_requirement=required,
            free_collateral=free,
            maintenance_ratio=Decimal(0),
            initial_ratio=Decimal(0),
            model=_MARGIN_MODEL,
            terms=(*_terms(rules, spot, now_s), *terms),
        )
        return tuple(options), (margin,)

    def _option(
        self, kind: OptionType, place: _Listed, amount_wad: int, spot: Decimal, rate: float, now_s: int
    ) -> Option:
        left_s = max(0, place.expiry_s - now_s)
        strike = from_units(place.strike_wad, 18)
        size = from_units(amount_wad if kind.is_long else -amount_wad, 18)
        if place.settled_at is None:
            call, put = black_scholes(left_s, float(place.vol), float(spot), float(strike), rate)
            mark = _amount(call if kind.is_call else put)
            forward = _amount(float(spot) * math.exp(rate * left_s / _SECONDS_PER_YEAR))
        else:
            forward = place.settled_at
            mark = max(forward - strike if kind.is_call else strike - forward, Decimal(0))
        with localcontext(EXACT):
            at_mark = size * mark
        return Option(
            venue=VENUE,
            asset=self.asset,
            is_call=kind.is_call,
            strike=strike,
            expiry_s=place.expiry_s,
            size=size,
            entry_notional=at_mark,
            mark_price=mark,
            implied_vol=place.vol,
            forward=forward,
        )

    def fills(
        self,
        logs: Sequence[Log],
        account: Address,
        prices: Mapping[str, Decimal] = NO_PRICES,  # noqa: ARG002
    ) -> tuple[Fill, ...]:
        """Trades of the account, liquidations included, and settlements, as changes of its net options on the asset."""
        found: list[Fill] = []
        for address, topics, data in logs:
            if not topics:
                continue
            if address == self.option_market and topics[0] == TRADE.topic:
                trader, _, _, trade, results, _, _ = TRADE.decode(topics, data)
                if trader == account and trade[4]:
                    kind = OptionType(trade[2])
                    sign = 1 if (trade[3] == _OPEN) == kind.is_long else -1
                    premium, fee = sum(r[1] for r in results), sum(r[6] for r in results)
                    found.append(self._fill(sign * trade[4], premium, fee, self._strike(trade).label(kind)))
            elif address == self.short_collateral and topics[0] == POSITION_SETTLED.topic:
                _, _, owner, _, _, kind, amount, paid, _ = POSITION_SETTLED.decode(topics, data)
                if owner == account and amount:
                    size = -amount if OptionType(kind).is_long else amount
                    found.append(self._fill(size, paid, 0, SETTLEMENT))
        return tuple(found)

    def strikes(self, logs: Sequence[Log]) -> dict[int, Strike]:
        """Every strike that was traded in the events of an execution, by its id."""
        found: dict[int, Strike] = {}
        for address, topics, data in logs:
            if address == self.option_market and topics and topics[0] == TRADE.topic:
                _, strike_id, _, trade, _, _, _ = TRADE.decode(topics, data)
                found[strike_id] = self._strike(trade)
        return found

    def _strike(self, trade: tuple[Any, ...]) -> Strike:
        return Strike(self.asset, trade[0], from_units(trade[1], 18))

    def _fill(self, size_wad: int, quote_wad: int, fee_wad: int, option: str) -> Fill:
        size, quote, fee = (from_units(wad, 18) for wad in (size_wad, quote_wad, fee_wad))
        return Fill(VENUE, self.asset, size, quote, fee, option)


def _given(answer: bytes | None, what: str) -> bytes:
    if answer is None:
        raise InvalidFields(f"the venue did not answer the read of its {what}; it may be paused, or its feed stale")
    return answer


def _held(answer: bytes | None) -> list[tuple[Any, ...]]:
    """Positions with anything in them."""
    (positions,) = GET_OWNER_POSITIONS.decode(_given(answer, "positions"))
    return [position for position in positions if position[3]]


def _listed(answer: bytes | None) -> dict[int, _Listed]:
    """Every strike of the live boards by id; volatility = board's x skew, rounded down to 18 decimals."""
    (boards,) = GET_LIVE_BOARDS.decode(_given(answer, "boards"))
    return {
        strike[0]: _Listed(strike[2], board[2], from_units(board[3] * strike[3] // 10**18, 18))
        for board in boards
        for strike in board[8]
    }


def _unlisted(held: Sequence[tuple[Any, ...]], listed: Mapping[int, _Listed]) -> list[int]:
    """Ids of the strikes that are held and on no live board, each once, in order."""
    return list(dict.fromkeys(position[1] for position in held if position[1] not in listed))


def _settled(strike_ids: Sequence[int], answers: Sequence[bytes | None]) -> dict[int, _Listed]:
    """The strikes of the second round by id. Raises InvalidFields when one is not settled after all, or unread."""
    found = {}
    for i, strike_id in enumerate(strike_ids):
        place, settlement = (*answers[2 * i : 2 * i + 2], None, None)[:2]
        strike, board = GET_STRIKE_AND_BOARD.decode(_given(place, f"strike {strike_id}"))
        _, price, _ = GET_SETTLEMENT_PARAMETERS.decode(_given(settlement, f"settlement of strike {strike_id}"))
        if not price:
            raise InvalidFields(f"strike {strike_id} is held, but it is neither listed nor settled")
        vol = from_units(board[2] * strike[2] // 10**18, 18)
        found[strike_id] = _Listed(strike[1], board[1], vol, from_units(price, 18))
    return found


def _rules(shocks: bytes, greeks: bytes) -> MinCollateral:
    (values,) = GET_MIN_COLLATERAL_PARAMETERS.decode(shocks)
    quote, base, vol_a, point_a, vol_b, point_b, call, put = values
    rate = GET_GREEK_CACHE_PARAMETERS.decode(greeks)[0][9]
    unit = 1e18
    return MinCollateral(
        quote / unit, base / unit, vol_a / unit, point_a, vol_b / unit, point_b, call / unit, put / unit, rate / unit
    )


def _terms(rules: MinCollateral, spot: Decimal, now_s: int) -> tuple[tuple[str, Decimal], ...]:
    """What the requirement follows beside the positions; `collateral.N` comes after, N the option's place among the venue's."""
    values: tuple[tuple[str, float | int], ...] = (
        ("static_quote", rules.static_quote),
        ("static_base", rules.static_base),
        ("shock_vol_a", rules.shock_vol_a),
        ("point_a_s", rules.point_a_s),
        ("shock_vol_b", rules.shock_vol_b),
        ("point_b_s", rules.point_b_s),
        ("call_shock", rules.call_shock),
        ("put_shock", rules.put_shock),
        ("rate", rules.rate),
        ("now_s", now_s),
    )
    return (("spot", spot), *((name, Decimal(str(value))) for name, value in values))
