"""Lending accounts and allowances: what is secured, what is owed, and what others may still take."""

from __future__ import annotations

from decimal import Decimal, localcontext

from contracts.types import checksum
from policies.margin import EXACT, ratio
from policies.metrics.base import Contribution, Metric, NotKnown, Observation, View, at_venue, inside, summed
from policies.policy import Parameters, Scope
from policies.portfolio import Allowance

SAFE_HEALTH = Decimal(1_000)
"""Health factor shown when nothing is owed, and the most that is shown."""
_YEAR_S = Decimal(31_536_000)


def health_factor(view: View, scope: Scope, _: Parameters) -> Observation:
    rows: list[Contribution] = []
    for loan in view.portfolio.loans:
        if at_venue(scope, loan.venue) and loan.debt_value:
            if loan.health_factor is None:
                raise NotKnown(f"{loan.venue} is owed {loan.debt_value:f} and gives no health factor")
            rows.append((loan.venue, min(loan.health_factor, SAFE_HEALTH)))
    return Observation(min((factor for _, factor in rows), default=SAFE_HEALTH), tuple(rows))


def loan_to_value(view: View, scope: Scope, _: Parameters) -> Observation:
    rows: list[Contribution] = []
    for loan in view.portfolio.loans:
        if at_venue(scope, loan.venue) and loan.debt_value:
            if loan.collateral_value <= 0:
                raise NotKnown(f"{loan.venue} is owed {loan.debt_value:f} against no collateral")
            rows.append((loan.venue, ratio(loan.debt_value, loan.collateral_value, up=True)))
    return Observation(max((share for _, share in rows), default=Decimal(0)), tuple(rows))


def debt(view: View, scope: Scope, _: Parameters) -> Observation:
    with localcontext(EXACT):
        rows = [
            (f"{d.venue}:{d.asset}", d.amount * view.price(d.asset))
            for d in view.portfolio.debts
            if d.amount and inside(scope, d.asset, d.venue)
        ]
    return summed(rows)


def available_borrow(view: View, scope: Scope, _: Parameters) -> Observation:
    return summed([(loan.venue, loan.available_borrow) for loan in view.portfolio.loans if at_venue(scope, loan.venue)])


def borrow_cost(view: View, scope: Scope, parameters: Parameters) -> Observation:
    rows: list[Contribution] = []
    for one in view.portfolio.debts:
        if one.amount and inside(scope, one.asset, one.venue):
            if one.annual_rate is None:
                raise NotKnown(f"the borrow rate of {one.asset} at {one.venue} is not known")
            with localcontext(EXACT):
                interest = one.amount * view.price(one.asset) * one.annual_rate * parameters.horizon_s
            rows.append((f"{one.venue}:{one.asset}", ratio(interest, _YEAR_S, up=True)))
    return summed(rows)


def _allowed(view: View, scope: Scope) -> list[Allowance]:
    return [a for a in view.portfolio.allowances if a.amount and (scope.kind != "asset" or scope.name == a.asset)]


def _spender(allowance: Allowance) -> str:
    return f"{allowance.asset} to {checksum(allowance.spender)}"


def allowance(view: View, scope: Scope, _: Parameters) -> Observation:
    with localcontext(EXACT):
        return summed([(_spender(a), a.amount * view.price(a.asset)) for a in _allowed(view, scope)])


def allowances(view: View, scope: Scope, _: Parameters) -> Observation:
    return summed([(_spender(a), Decimal(1)) for a in _allowed(view, scope)])


def unlimited_allowances(view: View, scope: Scope, _: Parameters) -> Observation:
    return summed([(_spender(a), Decimal(1)) for a in _allowed(view, scope) if a.unlimited])


_LOANS = "lending accounts, as the venue answers"
_VENUES = ("portfolio", "venue")

METRICS = (
    Metric(
        "health_factor",
        "x",
        "lower",
        "smallest health factor of the lending accounts: sum of collateral x venue price x liquidation threshold / debt; liquidatable below "
        "1; 1,000 when nothing is owed, and at most",
        _LOANS,
        health_factor,
        scopes=_VENUES,
    ),
    Metric(
        "loan_to_value",
        "%",
        "higher",
        "largest debt / collateral of the lending accounts, at the venue's prices; 0 when nothing is owed",
        _LOANS,
        loan_to_value,
        scopes=_VENUES,
    ),
    Metric("debt", "USDC", "higher", "sum of debts at index prices", "debts, prices", debt),
    Metric(
        "available_borrow",
        "USDC",
        "lower",
        "what lending venues would still lend, as they answer",
        _LOANS,
        available_borrow,
        scopes=_VENUES,
    ),
    Metric(
        "borrow_cost",
        "USDC",
        "higher",
        "interest that the debts accrue over `horizon` (1d) at the rates of now: amount x index price x annual rate x horizon / 365 days",
        "debts with their rates, prices",
        borrow_cost,
        parameters=("horizon",),
    ),
    Metric(
        "allowance",
        "USDC",
        "higher",
        "sum of what others may still take, at index prices; an unlimited allowance counts with its whole number",
        "allowances of the listed tokens and spenders, prices",
        allowance,
        scopes=("portfolio", "asset"),
    ),
    Metric(
        "allowances",
        "count",
        "higher",
        "number of allowances above zero",
        "allowances of the listed tokens and spenders",
        allowances,
        scopes=("portfolio", "asset"),
    ),
    Metric(
        "unlimited_allowances",
        "count",
        "higher",
        "number of allowances of 2^255 units or more",
        "allowances of the listed tokens and spenders",
        unlimited_allowances,
        scopes=("portfolio", "asset"),
    ),
)
