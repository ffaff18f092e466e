"""Perpetual Protocol v2: positions and the margin account, as the venue itself values them.

A position is all that the account has in a market: what it took, and what its liquidity as a maker has bought and sold so far
(base in the pool less base borrowed for it, pending fees in the account value). It moves along its ranges as the price does; the
figures are those of the block.

Account value = vault balance + owed realised profit + unrealised profit - pending funding; the venue's own figure is read beside
its parts, and a portfolio in which they differ is contradictory.   Source: Perpetual Protocol v2, IClearingHouse, IVault, IAccountBalance.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal

from contracts.abi import Event, Function
from contracts.errors import InvalidFields
from contracts.types import Address, to_hex
from contracts.units import from_units
from policies.margin import PERP_V2_INITIAL_RATIO, PERP_V2_MAINTENANCE_RATIO
from policies.portfolio import Fill, Margin, Missing, Position
from policies.venues import NO_PRICES, Adapter, Log, Read, Snapshot

GET_ACCOUNT_VALUE = Function.parse("getAccountValue(address)(int256)")
GET_MARGIN_REQUIREMENT = Function.parse("getMarginRequirementForLiquidation(address)(int256)")
GET_PNL = Function.parse("getPnlAndPendingFee(address)(int256,int256,uint256)")
GET_BALANCE = Function.parse("getBalance(address)(int256)")
GET_FREE_COLLATERAL = Function.parse("getFreeCollateral(address)(uint256)")
GET_PENDING_FUNDING = Function.parse("getPendingFundingPayment(address,address)(int256)")
GET_TOTAL_SIZE = Function.parse("getTotalPositionSize(address,address)(int256)")
GET_TOTAL_OPEN_NOTIONAL = Function.parse("getTotalOpenNotional(address,address)(int256)")
GET_BASE_TOKENS = Function.parse("getBaseTokens(address)(address[])")
GET_SIZE = Function.parse("getTakerPositionSize(address,address)(int256)")
GET_MARK_PRICE = Function.parse("getMarkPrice(address)(uint256)")
POSITION_CHANGED = Event.parse(
    "PositionChanged(address indexed,address indexed,int256,int256,uint256,int256,int256,uint256)"
)
"""trader, baseToken, exchangedPositionSize, exchangedPositionNotional, fee, openNotional, realizedPnl, sqrtPriceAfterX96."""

VENUE = "perp"
_SETTLEMENT_DECIMALS = 6
LIQUIDITY_CHANGED = Event.parse(
    "LiquidityChanged(address indexed,address indexed,address indexed,int24,int24,int256,int256,int128,uint256)"
)
"""maker, baseToken, quoteToken, lowerTick, upperTick, base, quote, liquidity, quoteFee."""
_COMMON, _EACH = 6, 4
"""Reads of the account as a whole, and of each market."""


@dataclass(frozen=True, slots=True)
class PerpMarket:
    """One market: the name of its base asset and its base token."""

    asset: str
    base_token: Address


@dataclass(frozen=True, slots=True)
class PerpV2(Adapter):
    """The venue with the markets that are looked at."""

    clearing_house: Address
    vault: Address
    account_balance: Address
    exchange: Address
    markets: tuple[PerpMarket, ...]

    def reads(self, account: Address) -> tuple[Read, ...]:
        found: list[Read] = [
            (self.clearing_house, GET_ACCOUNT_VALUE.encode(account)),
            (self.account_balance, GET_MARGIN_REQUIREMENT.encode(account)),
            (self.account_balance, GET_PNL.encode(account)),
            (self.vault, GET_BALANCE.encode(account)),
            (self.vault, GET_FREE_COLLATERAL.encode(account)),
            (self.account_balance, GET_BASE_TOKENS.encode(account)),
        ]
        for market in self.markets:
            found += self._of_market(account, market.base_token)
        return tuple(found)

    def more(self, account: Address, answers: Sequence[bytes | None]) -> tuple[Read, ...]:
        """Markets that the account is in and nobody named."""
        if len(answers) != _COMMON + _EACH * len(self.markets):
            return ()
        try:
            return tuple(read for base in self._strange(answers) for read in self._of_market(account, base))
        except InvalidFields:
            return ()

    def _of_market(self, account: Address, base_token: Address) -> list[Read]:
        return [
            (self.account_balance, GET_TOTAL_SIZE.encode(account, base_token)),
            (self.account_balance, GET_TOTAL_OPEN_NOTIONAL.encode(account, base_token)),
            (self.account_balance, GET_MARK_PRICE.encode(base_token)),
            (self.exchange, GET_PENDING_FUNDING.encode(account, base_token)),
        ]

    def _strange(self, answers: Sequence[bytes | None]) -> tuple[Address, ...]:
        """Base tokens of the account that are not among `markets`. Raises InvalidFields."""
        (used,) = GET_BASE_TOKENS.decode(answers[5] or b"")
        named = {market.base_token for market in self.markets}
        return tuple(base for base in used if base not in named)

    def parse(self, answers: Sequence[bytes | None]) -> Snapshot:
        try:
            return self._parse(answers)
        except InvalidFields as error:
            return Snapshot(missing=(Missing(VENUE, error.message),))

    def _parse(self, answers: Sequence[bytes | None]) -> Snapshot:
        given = [answer for answer in answers if answer is not None]
        if len(given) != len(answers):
            raise InvalidFields("the venue did not answer a read; it may be paused")
        (value,) = GET_ACCOUNT_VALUE.decode(given[0])
        (requirement,) = GET_MARGIN_REQUIREMENT.decode(given[1])
        owed, _, pending_fee = GET_PNL.decode(given[2])
        (balance,) = GET_BALANCE.decode(given[3])
        (free,) = GET_FREE_COLLATERAL.decode(given[4])
        positions = []
        strange = tuple(PerpMarket(to_hex(base), base) for base in self._strange(given))
        if len(given) != _COMMON + _EACH * (len(self.markets) + len(strange)):
            raise InvalidFields("a market that the account is in was not read")
        for i, market in enumerate((*self.markets, *strange)):
            size, notional, mark, funding = given[_COMMON + _EACH * i : _COMMON + _EACH * (i + 1)]
            (base,) = GET_TOTAL_SIZE.decode(size)
            (quote,) = GET_TOTAL_OPEN_NOTIONAL.decode(notional)
            (price,) = GET_MARK_PRICE.decode(mark)
            (owes,) = GET_PENDING_FUNDING.decode(funding)
            if base:
                positions.append(
                    Position(
                        venue=VENUE,
                        asset=market.asset,
                        size=from_units(base, 18),
                        entry_notional=from_units(-quote, 18),
                        mark_price=from_units(price, 18),
                        pending_funding=from_units(owes, 18),
                    )
                )
        margin = Margin(
            venue=VENUE,
            collateral=from_units(balance, _SETTLEMENT_DECIMALS) + from_units(owed + pending_fee, 18),
            account_value=from_units(value, 18),
            maintenance_requirement=from_units(requirement, 18),
            free_collateral=from_units(free, _SETTLEMENT_DECIMALS),
            maintenance_ratio=PERP_V2_MAINTENANCE_RATIO,
            initial_ratio=PERP_V2_INITIAL_RATIO,
        )
        return Snapshot(positions=tuple(positions), margins=(margin,))

    def fills(
        self,
        logs: Sequence[Log],
        account: Address,
        prices: Mapping[str, Decimal] = NO_PRICES,  # noqa: ARG002
    ) -> tuple[Fill, ...]:
        """Trades of the account. What removing liquidity turns into a taker position was part of the position before, and is no trade."""
        assets = {market.base_token: market.asset for market in self.markets}
        found = []
        removed = self._removals(logs, account)
        for address, topics, data in logs:
            if address != self.clearing_house or not topics or topics[0] != POSITION_CHANGED.topic:
                continue
            trader, base_token, size, quote, fee, *_ = POSITION_CHANGED.decode(topics, data)
            if trader != account or not size:
                continue
            if not fee and removed.get(base_token, 0):
                removed[base_token] -= 1
                continue
            asset = assets.get(base_token, to_hex(base_token))
            found.append(Fill(VENUE, asset, from_units(size, 18), abs(from_units(quote, 18)), from_units(fee, 18)))
        return tuple(found)

    def _removals(self, logs: Sequence[Log], account: Address) -> dict[Address, int]:
        """How often the account's liquidity became less, by base token."""
        found: dict[Address, int] = {}
        for address, topics, data in logs:
            if address == self.clearing_house and topics and topics[0] == LIQUIDITY_CHANGED.topic:
                maker, base_token, _, _, _, _, _, liquidity, _ = LIQUIDITY_CHANGED.decode(topics, data)
                if maker == account and liquidity < 0:
                    found[base_token] = found.get(base_token, 0) + 1
        return found
