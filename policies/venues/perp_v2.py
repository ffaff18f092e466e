"""Perpetual Protocol v2: taker positions and the margin account, as the venue itself values them.

Account value = vault balance + owed realised profit + unrealised profit - pending funding; the venue's own figure is read beside
its parts, and a portfolio in which they differ is contradictory.   Source: Perpetual Protocol v2, IClearingHouse, IVault, IAccountBalance.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from contracts.abi import Event, Function
from contracts.errors import InvalidFields
from contracts.types import Address
from contracts.units import from_units
from policies.margin import PERP_V2_INITIAL_RATIO, PERP_V2_MAINTENANCE_RATIO
from policies.portfolio import Fill, Margin, Missing, Position
from policies.venues import Adapter, Read, Snapshot

GET_ACCOUNT_VALUE = Function.parse("getAccountValue(address)(int256)")
GET_MARGIN_REQUIREMENT = Function.parse("getMarginRequirementForLiquidation(address)(int256)")
GET_PNL = Function.parse("getPnlAndPendingFee(address)(int256,int256,uint256)")
GET_BALANCE = Function.parse("getBalance(address)(int256)")
GET_FREE_COLLATERAL = Function.parse("getFreeCollateral(address)(uint256)")
GET_PENDING_FUNDING = Function.parse("getPendingFundingPayment(address,address)(int256)")
GET_SIZE = Function.parse("getTakerPositionSize(address,address)(int256)")
GET_OPEN_NOTIONAL = Function.parse("getTakerOpenNotional(address,address)(int256)")
GET_MARK_PRICE = Function.parse("getMarkPrice(address)(uint256)")
POSITION_CHANGED = Event.parse(
    "PositionChanged(address indexed,address indexed,int256,int256,uint256,int256,int256,uint256)"
)
"""trader, baseToken, exchangedPositionSize, exchangedPositionNotional, fee, openNotional, realizedPnl, sqrtPriceAfterX96."""

VENUE = "perp"
_SETTLEMENT_DECIMALS = 6
_COMMON, _EACH = 5, 4
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
        ]
        for market in self.markets:
            found += [
                (self.account_balance, GET_SIZE.encode(account, market.base_token)),
                (self.account_balance, GET_OPEN_NOTIONAL.encode(account, market.base_token)),
                (self.account_balance, GET_MARK_PRICE.encode(market.base_token)),
                (self.exchange, GET_PENDING_FUNDING.encode(account, market.base_token)),
            ]
        return tuple(found)

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
        for i, market in enumerate(self.markets):
            size, notional, mark, funding = given[_COMMON + _EACH * i : _COMMON + _EACH * (i + 1)]
            (base,) = GET_SIZE.decode(size)
            (quote,) = GET_OPEN_NOTIONAL.decode(notional)
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

    def fills(self, logs: Sequence[tuple[Address, Sequence[bytes], bytes]], account: Address) -> tuple[Fill, ...]:
        assets = {market.base_token: market.asset for market in self.markets}
        found = []
        for address, topics, data in logs:
            if address != self.clearing_house or not topics or topics[0] != POSITION_CHANGED.topic:
                continue
            trader, base_token, size, quote, fee, *_ = POSITION_CHANGED.decode(topics, data)
            if trader == account and size:
                found.append(
                    Fill(
                        VENUE,
                        assets.get(base_token, "0x" + base_token.hex()),
                        from_units(size, 18),
                        abs(from_units(quote, 18)),
                        from_units(fee, 18),
                    )
                )
        return tuple(found)
