"""Aave: health factor and interest in the contracts' integers, and a lending account as a margin model.

Integers: wad = 1e18, ray = 1e27, basis points = 1e4; amounts of collateral and debt in the oracle's base currency.
Source: Aave v3 core, GenericLogic.calculateUserAccountData, MathUtils, WadRayMath, PercentageMath; aave-utilities, pool-math.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from decimal import Decimal, localcontext

from contracts.errors import InvalidFields
from policies.margin import EXACT
from policies.risk.margin.account import ZERO, Account, Part, Requirement, Row
from policies.risk.margin.terms import Terms

WAD = 10**18
RAY = 10**27
_BPS = 10_000
_SECONDS_PER_YEAR = 31_536_000
NO_DEBT = 2**256 - 1
"""The health factor of an account that owes nothing (type(uint256).max)."""


def ray_mul(a: int, b: int) -> int:
    """a x b / ray, half up."""
    return (a * b + RAY // 2) // RAY


def ray_div(a: int, b: int) -> int:
    """a x ray / b, half up. Raises ZeroDivisionError for b = 0, as the contract reverts."""
    return (a * RAY + b // 2) // b


def wad_div(a: int, b: int) -> int:
    """a x wad / b, half up."""
    return (a * WAD + b // 2) // b


def percent_mul(value: int, bps: int) -> int:
    """value x bps / 10,000, half up."""
    return (value * bps + _BPS // 2) // _BPS


def health_factor_wad(collateral: int, debt: int, liquidation_threshold_bps: int) -> int:
    """wad_div(percent_mul(collateral, threshold), debt); NO_DEBT when nothing is owed; liquidatable below WAD."""
    return NO_DEBT if debt == 0 else wad_div(percent_mul(collateral, liquidation_threshold_bps), debt)


def account_health_wad(collateral: Sequence[tuple[int, int]], debt: int) -> int:
    """Of several collaterals (value, threshold in bps): the contract averages the thresholds by value, truncating, and goes on as
    `health_factor_wad`."""
    whole = sum(value for value, _ in collateral)
    average = sum(value * bps for value, bps in collateral) // whole if whole else 0
    return health_factor_wad(whole, debt, average)


def available_borrow(collateral: int, debt: int, loan_to_value_bps: int) -> int:
    """max(0, percent_mul(collateral, LTV) - debt)."""
    return max(0, percent_mul(collateral, loan_to_value_bps) - debt)


def linear_interest_ray(rate_ray: int, start_s: int, end_s: int) -> int:
    """ray + rate x elapsed / year, truncated: what suppliers earn."""
    return RAY + rate_ray * (end_s - start_s) // _SECONDS_PER_YEAR


def compounded_interest_ray(rate_ray: int, start_s: int, end_s: int, *, per_second: bool = False) -> int:
    """What borrowers owe: three terms of (1 + rate / year)^elapsed, 1 + n x + n (n-1) / 2 x^2 + n (n-1) (n-2) / 6 x^3, in the contract's
    order of divisions: below the true value by the terms left out. `per_second`: the rate of a second is rounded down first, as version 2
    of the contracts and aave-utilities do."""
    n = end_s - start_s
    if n == 0:
        return RAY
    if per_second:
        x = rate_ray // _SECONDS_PER_YEAR
        x_squared = ray_mul(x, x)
        x_cubed = ray_mul(x_squared, x)
        return RAY + x * n + n * (n - 1) * x_squared // 2 + n * (n - 1) * max(n - 2, 0) * x_cubed // 6
    squared = ray_mul(rate_ray, rate_ray) // (_SECONDS_PER_YEAR * _SECONDS_PER_YEAR)
    cubed = ray_mul(squared, rate_ray) // _SECONDS_PER_YEAR
    second = n * (n - 1) * squared // 2
    third = n * (n - 1) * max(n - 2, 0) * cubed // 6
    return RAY + rate_ray * n // _SECONDS_PER_YEAR + second + third


def normalized_income_ray(rate_ray: int, index_ray: int, start_s: int, end_s: int) -> int:
    """The liquidity index now: ray_mul(linear interest, index)."""
    return ray_mul(linear_interest_ray(rate_ray, start_s, end_s), index_ray)


def normalized_debt_ray(rate_ray: int, index_ray: int, start_s: int, end_s: int) -> int:
    """The variable borrow index now: ray_mul(compounded interest, index)."""
    return ray_mul(compounded_interest_ray(rate_ray, start_s, end_s), index_ray)


def balance(scaled: int, index_ray: int) -> int:
    """Units of an aToken or a debt token: ray_mul(scaled balance, index)."""
    return ray_mul(scaled, index_ray)


@dataclass(frozen=True, slots=True)
class Aave:
    """A lending account: HF = sum of collateral x price x LT / debt < 1 is liquidatable. In quote, exact.

    As equity and requirement: E = collateral - debt, IM = sum (1 - LTV) collateral, MM = sum (1 - LT) collateral, so that E < MM and HF < 1
    are the same. Thresholds are in the `Collateral` (those of the eMode in force); terms `emode_liquidation_threshold.ASSET` and
    `emode_loan_to_value.ASSET` replace them. Debts are priced by `Account.prices`; the venue's quote is worth 1.
    """

    terms: Terms
    quote: str = "USDC"
    is_piecewise_linear = True

    def requirement(self, account: Account) -> Requirement:
        value = initial = least = owed = ZERO
        rows: list[Row] = []
        with localcontext(EXACT):
            for held in account.collateral:
                threshold = self.terms.values.get(
                    f"emode_liquidation_threshold.{held.asset}", held.liquidation_threshold
                )
                loan = self.terms.values.get(f"emode_loan_to_value.{held.asset}", held.loan_to_value)
                worth = held.amount * held.price
                value += worth
                initial += worth * (1 - loan)
                least += worth * (1 - threshold)
                rows.append((f"threshold value {held.asset}", worth * threshold))
            for debt in account.debts:
                price = (
                    account.price(debt.asset)
                    if debt.asset != self.quote
                    else account.prices.get(debt.asset, Decimal(1))
                )
                if price is None:
                    raise InvalidFields(f"margin model {self.terms.model}: no price of the borrowed {debt.asset}")
                owed += debt.amount * price
                rows.append((f"debt {debt.asset}", debt.amount * price))
            part = Part("account", account.cash + value - owed, initial, least)
        return Requirement((part,), tuple(rows)) if owed else Requirement((), tuple(rows))

    def kinks(self, account: Account, assets: Collection[str]) -> tuple[Decimal, ...]:  # noqa: ARG002
        return ()
