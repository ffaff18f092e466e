"""Aave v3: what is supplied, what is owed, and how far liquidation is, as the pool, its data provider and its oracle answer.

Parts and whole are read apart and compared: collateral and debt at the oracle's prices must be the pool's totals, its health factor
must follow from them, or the venue is missing. Supplied tokens earn interest, so amounts are those of the block.
Source: Aave v3 core 1.19.3, IPool.getUserAccountData, GenericLogic.calculateUserAccountData, AaveProtocolDataProvider.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal, localcontext

from contracts.abi import Function
from contracts.errors import InvalidFields
from contracts.types import ZERO_ADDRESS, Address, to_hex
from contracts.units import from_units
from policies.margin import EXACT
from policies.portfolio import Collateral, Debt, Loan, Missing
from policies.venues import Adapter, Read, Snapshot

GET_RESERVES_LIST = Function.parse("getReservesList()(address[])")
GET_USER_CONFIGURATION = Function.parse("getUserConfiguration(address)(uint256)")
GET_USER_EMODE = Function.parse("getUserEMode(address)(uint256)")
GET_USER_ACCOUNT_DATA = Function.parse("getUserAccountData(address)(uint256,uint256,uint256,uint256,uint256,uint256)")
"""total collateral, total debt, available borrow (base currency); liquidation threshold, loan to value (bps); health factor (wad)."""
GET_EMODE_CATEGORY = Function.parse("getEModeCategoryData(uint8)((uint16,uint16,uint16,address,string))")
"""loan to value, liquidation threshold, bonus (bps), price source (zero: each asset's own), label."""
BASE_CURRENCY_UNIT = Function.parse("BASE_CURRENCY_UNIT()(uint256)")
GET_ASSET_PRICE = Function.parse("getAssetPrice(address)(uint256)")
GET_USER_RESERVE = Function.parse(
    "getUserReserveData(address,address)(uint256,uint256,uint256,uint256,uint256,uint256,uint256,uint40,bool)"
)
"""supplied, stable debt, variable debt, principal stable debt, scaled variable debt; rates (ray): stable, supply; since, is collateral."""
GET_RESERVE_CONFIGURATION = Function.parse(
    "getReserveConfigurationData(address)(uint256,uint256,uint256,uint256,uint256,bool,bool,bool,bool,bool)"
)
"""decimals, loan to value, liquidation threshold, bonus, reserve factor (bps), may be collateral, borrowed, borrowed stable, active, frozen."""
GET_RESERVE_DATA = Function.parse(
    "getReserveData(address)(uint256,uint256,uint256,uint256,uint256,uint256,uint256,uint256,uint256,uint256,uint256,uint40)"
)
"""unbacked, accrued, supplied, stable debt, variable debt, then rates (ray): supply, variable, stable, mean stable; indices; time."""
GET_RESERVE_EMODE = Function.parse("getReserveEModeCategory(address)(uint256)")

VENUE = "aave"
_RAY_DECIMALS = 27
_COMMON, _EACH = 5, 5
"""Reads of the account as a whole, and of each reserve."""
_VARIABLE_RATE = 6
SUM_TOLERANCE = Decimal("0.000001")
"""Share by which the whole may differ from its parts: the pool rounds each asset to the base currency's 8 decimals."""
_DUST = Decimal("0.000001")


@dataclass(frozen=True, slots=True)
class AaveV3(Adapter):
    """One market with the reserves that are known by name: (asset of the policies, token).

    A reserve that is not known is looked at as soon as the account uses it, and then goes by its token's address, which has no price.
    """

    pool: Address
    data_provider: Address
    oracle: Address
    reserves: tuple[tuple[str, Address], ...]

    def reads(self, account: Address) -> tuple[Read, ...]:
        found: list[Read] = [
            (self.pool, GET_USER_ACCOUNT_DATA.encode(account)),
            (self.pool, GET_USER_EMODE.encode(account)),
            (self.pool, GET_RESERVES_LIST.encode()),
            (self.pool, GET_USER_CONFIGURATION.encode(account)),
            (self.oracle, BASE_CURRENCY_UNIT.encode()),
        ]
        for _, token in self.reserves:
            found += self._of_reserve(account, token)
        return tuple(found)

    def more(self, account: Address, answers: Sequence[bytes | None]) -> tuple[Read, ...]:
        """Second round: the efficiency mode, if the account is in one, and reserves that it uses and nobody named. Third: the price
        that the mode puts in place of its assets' own."""
        try:
            strange = self._strange(answers)
            category = GET_USER_EMODE.decode(answers[1] or b"")[0]
            first = _COMMON + _EACH * len(self.reserves)
            second = first + _EACH * len(strange) + (1 if category else 0)
            if len(answers) == first:
                found = [read for token in strange for read in self._of_reserve(account, token)]
                if category:
                    found.append((self.pool, GET_EMODE_CATEGORY.encode(category)))
                return tuple(found)
            if len(answers) == second and category:
                (mode,) = GET_EMODE_CATEGORY.decode(answers[-1] or b"")
                if mode[3] != ZERO_ADDRESS:
                    return ((self.oracle, GET_ASSET_PRICE.encode(mode[3])),)
        except InvalidFields:
            pass
        return ()

    def parse(self, answers: Sequence[bytes | None]) -> Snapshot:
        try:
            return self._parse(answers)
        except InvalidFields as error:
            return Snapshot(missing=(Missing(VENUE, error.message),))

    def _of_reserve(self, account: Address, token: Address) -> list[Read]:
        return [
            (self.data_provider, GET_USER_RESERVE.encode(token, account)),
            (self.data_provider, GET_RESERVE_CONFIGURATION.encode(token)),
            (self.data_provider, GET_RESERVE_DATA.encode(token)),
            (self.data_provider, GET_RESERVE_EMODE.encode(token)),
            (self.oracle, GET_ASSET_PRICE.encode(token)),
        ]

    def _strange(self, answers: Sequence[bytes | None]) -> tuple[Address, ...]:
        """Reserves without a name whose two bits (borrows, is collateral) are set in the account's bitmap. Raises InvalidFields."""
        (listed,) = GET_RESERVES_LIST.decode(answers[2] or b"")
        (bitmap,) = GET_USER_CONFIGURATION.decode(answers[3] or b"")
        known = {token for _, token in self.reserves}
        return tuple(token for i, token in enumerate(listed) if bitmap >> (2 * i) & 3 and token not in known)

    def _parse(self, answers: Sequence[bytes | None]) -> Snapshot:
        given = [answer for answer in answers if answer is not None]
        if len(given) != len(answers):
            raise InvalidFields("the venue did not answer a read; it may be paused, or a price may be missing")
        total, owed, available, threshold, _, health = GET_USER_ACCOUNT_DATA.decode(given[0])
        (category,) = GET_USER_EMODE.decode(given[1])
        (unit,) = BASE_CURRENCY_UNIT.decode(given[4])
        if unit <= 0 or str(unit).rstrip("0") != "1":
            raise InvalidFields(f"its base currency has the unit {unit}, which is no power of ten")
        base = len(str(unit)) - 1
        names = [*self.reserves, *((to_hex(token), token) for token in self._strange(given))]
        used = _COMMON + _EACH * len(names)
        mode = _Mode(0, Decimal(0), Decimal(0), None)
        if category:
            if len(given) <= used:
                raise InvalidFields(f"nothing is known of efficiency mode {category}")
            ((ltv, lt, _, source, _),) = GET_EMODE_CATEGORY.decode(given[used])
            price = None
            if source != ZERO_ADDRESS:
                if len(given) <= used + 1:
                    raise InvalidFields(f"the price of efficiency mode {category} is not known")
                price = GET_ASSET_PRICE.decode(given[used + 1])[0] or None
            mode = _Mode(category, from_units(lt, 4), from_units(ltv, 4), price)
        collateral: list[Collateral] = []
        debts: list[Debt] = []
        values = [Decimal(0), Decimal(0)]
        for i, (asset, _) in enumerate(names):
            held = _Reserve.of(given[_COMMON + _EACH * i : _COMMON + _EACH * (i + 1)], mode, base)
            collateral += held.collateral(asset)
            debts += held.debts(asset)
            with localcontext(EXACT):
                values[0] += held.secured * held.price
                values[1] += held.owed * held.price
        loan = Loan(
            venue=VENUE,
            collateral_value=from_units(total, base),
            debt_value=from_units(owed, base),
            liquidation_threshold=from_units(threshold, 4),
            health_factor=from_units(health, 18) if owed else None,
            available_borrow=from_units(available, base),
        )
        _check(loan, {"collateral": (values[0], loan.collateral_value), "debt": (values[1], loan.debt_value)})
        loans = (loan,) if collateral or debts or total or owed else ()
        return Snapshot(collateral=tuple(collateral), debts=tuple(debts), loans=loans)


@dataclass(frozen=True, slots=True)
class _Mode:
    """An efficiency mode: threshold and loan to value as fractions, and the price (base currency) in place of its assets', if any."""

    category: int
    threshold: Decimal
    loan_to_value: Decimal
    price: int | None


@dataclass(frozen=True, slots=True)
class _Reserve:
    """What the account has and owes in one reserve, in whole units."""

    supplied: Decimal
    is_collateral: bool
    stable_debt: Decimal
    stable_rate: Decimal
    variable_debt: Decimal
    variable_rate: Decimal
    price: Decimal
    threshold: Decimal
    loan_to_value: Decimal

    @classmethod
    def of(cls, answers: Sequence[bytes], mode: _Mode, base: int) -> _Reserve:
        """Raises InvalidFields."""
        supplied, stable, variable, _, _, stable_rate, _, _, enabled = GET_USER_RESERVE.decode(answers[0])
        decimals, ltv, threshold, *_ = GET_RESERVE_CONFIGURATION.decode(answers[1])
        rates = GET_RESERVE_DATA.decode(answers[2])
        (category,) = GET_RESERVE_EMODE.decode(answers[3])
        (price,) = GET_ASSET_PRICE.decode(answers[4])
        in_mode = bool(mode.category) and category == mode.category
        if in_mode and mode.price is not None:
            price = mode.price
        # A reserve without a threshold of its own secures nothing, also in efficiency mode (GenericLogic).
        secures = enabled and threshold > 0
        return cls(
            supplied=from_units(supplied, decimals),
            is_collateral=secures,
            stable_debt=from_units(stable, decimals),
            stable_rate=from_units(stable_rate, _RAY_DECIMALS),
            variable_debt=from_units(variable, decimals),
            variable_rate=from_units(rates[_VARIABLE_RATE], _RAY_DECIMALS),
            price=from_units(price, base),
            threshold=(mode.threshold if in_mode else from_units(threshold, 4)) if secures else Decimal(0),
            loan_to_value=(mode.loan_to_value if in_mode and ltv else from_units(ltv, 4)) if secures else Decimal(0),
        )

    @property
    def secured(self) -> Decimal:
        return self.supplied if self.is_collateral else Decimal(0)

    @property
    def owed(self) -> Decimal:
        with localcontext(EXACT):
            return self.stable_debt + self.variable_debt

    def collateral(self, asset: str) -> list[Collateral]:
        if not self.supplied:
            return []
        return [Collateral(VENUE, asset, self.supplied, self.price, self.threshold, self.loan_to_value)]

    def debts(self, asset: str) -> list[Debt]:
        kinds = ((self.stable_debt, self.stable_rate), (self.variable_debt, self.variable_rate))
        return [Debt(VENUE, asset, amount, rate) for amount, rate in kinds if amount]


def _check(loan: Loan, sums: Mapping[str, tuple[Decimal, Decimal]]) -> None:
    """Raises InvalidFields when the whole is not the sum of its parts, or the health factor not what follows from them."""
    with localcontext(EXACT):
        for what, (parts, whole) in sums.items():
            if abs(parts - whole) > max(whole * SUM_TOLERANCE, _DUST):
                raise InvalidFields(f"its {what} is {whole:f}, the sum of its parts {parts:f}")
        if loan.health_factor is not None:
            weighted = loan.collateral_value * loan.liquidation_threshold
            if abs(loan.health_factor * loan.debt_value - weighted) > max(weighted * SUM_TOLERANCE, _DUST):
                raise InvalidFields(
                    f"its health factor {loan.health_factor:f} is not {loan.collateral_value:f} x "
                    f"{loan.liquidation_threshold:f} / {loan.debt_value:f}"
                )
