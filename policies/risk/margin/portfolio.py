"""From a portfolio's venue accounts to margin models: requirements, critical moves and prices as the metrics use them."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from decimal import Decimal, localcontext

from contracts.errors import InvalidFields
from policies.margin import EXACT, Leg, critical_move
from policies.portfolio import Loan, Margin, Portfolio
from policies.risk.margin.account import ZERO, Account, Model, Requirement, unrealised
from policies.risk.margin.liquidation import TOLERANCE, CriticalMoves, critical_moves
from policies.risk.margin.models import model_of

_OPTION_VALUE_IN_EQUITY = frozenset({"derive_pmrm2", "deribit_pm"})
"""Models that revalue options themselves: their marks are taken out of the account value that becomes cash."""
_CLOSED_FORM = frozenset({"ratio", "perp_v2"})


@dataclass(frozen=True, slots=True)
class VenueAccount:
    """One venue's account with its model, as of the facts."""

    venue: str
    model: Model
    account: Account
    margin: Margin | None = None
    """What the venue itself answered; None for a lending account."""

    def requirement(self) -> Requirement:
        return self.model.requirement(self.account)

    def assets(self) -> tuple[str, ...]:
        """Assets whose price can liquidate it, sorted."""
        return self.account.assets()

    def critical(self, assets: Collection[str] | None = None, tolerance: Decimal = TOLERANCE) -> CriticalMoves:
        """The nearest common moves of `assets` (None: of all) that liquidate: exact in closed form for "ratio" and "perp_v2", else solved
        within `tolerance`; rounded towards zero either way."""
        if self.margin is None or self.margin.model not in _CLOSED_FORM or self.account.collateral:
            return critical_moves(self.model, self.account, assets, tolerance)
        legs: dict[str, Leg] = {}
        with localcontext(EXACT):
            for p in self.account.positions:
                held = legs.get(p.asset, Leg(p.asset, ZERO, p.mark_price))
                if held.price != p.mark_price:
                    return critical_moves(self.model, self.account, assets, tolerance)
                legs[p.asset] = Leg(p.asset, held.size + p.size, p.mark_price)
        part = self.requirement().parts[0]
        with localcontext(EXACT):
            notional = sum((abs(leg.size) * leg.price for leg in legs.values()), ZERO)
        rate = self.margin.maintenance_ratio
        if notional == 0 or part.maintenance != _product(rate, notional):
            return critical_moves(self.model, self.account, assets, tolerance)
        move = critical_move(part.equity, rate, list(legs.values()), None if assets is None else set(assets))
        return CriticalMoves(
            move if move is not None and move <= 0 else None, move if move is not None and move >= 0 else None
        )


def _product(a: Decimal, b: Decimal) -> Decimal:
    with localcontext(EXACT):
        return a * b


def account_of(
    portfolio: Portfolio, margin: Margin, prices: Mapping[str, Decimal] | None = None, now_s: int | None = None
) -> VenueAccount:
    """The account at `margin.venue` as its model sees it.

    `prices` are index prices (unit of account per unit) and `now_s` the block's time (unix s), else the model's term `now_s`. Cash is the
    venue's account value less what positions, options and collateral make of it, so that equity now is the venue's own figure (for the
    models that revalue options, up to the difference of their value from the marks). With isolated positions, cash is what is left after
    the margin set aside for them. Raises `InvalidFields`: the model is unknown, or a term it needs is missing.
    """
    venue = margin.venue
    positions = tuple(p for p in portfolio.positions if p.venue == venue and p.size)
    options = tuple(o for o in portfolio.options if o.venue == venue)
    collateral = tuple(c for c in portfolio.collateral if c.venue == venue and c.amount)
    terms = dict(margin.terms)
    terms.setdefault("initial_ratio", margin.initial_ratio)
    terms.setdefault("maintenance_ratio", margin.maintenance_ratio)
    given = dict(prices or {})
    assets = {p.asset for p in positions} | {o.asset for o in options}
    if margin.model == "lyra" and "spot" in terms:
        given |= dict.fromkeys({o.asset for o in options}, terms["spot"])
    with localcontext(EXACT):
        cash = margin.account_value
        cash -= sum((unrealised(p) for p in positions), ZERO)
        cash -= sum((c.amount * c.price for c in collateral), ZERO)
        cash -= sum((v for k, v in terms.items() if k.startswith("isolated.")), ZERO)
        if margin.model in _OPTION_VALUE_IN_EQUITY:
            cash -= sum((o.notional for o in options), ZERO)
    if now_s is None:
        now_s = int(terms.get("now_s", ZERO))
    if options and margin.model in _OPTION_VALUE_IN_EQUITY and now_s <= 0:
        raise InvalidFields(f"margin model {margin.model} needs the time to age the options at {venue}: give now_s")
    held = {a: p for a, p in given.items() if a in assets | {c.asset for c in collateral}}
    account = Account(cash, positions, options, collateral, (), held, now_s)
    return VenueAccount(venue, model_of(margin.model, terms, assets), account, margin)


def loan_account_of(portfolio: Portfolio, loan: Loan, prices: Mapping[str, Decimal]) -> VenueAccount:
    """The lending account at `loan.venue` under the model "aave": its collateral at the venue's prices, its debts at `prices`, scaled so
    that what is owed in all is the venue's own figure. Raises `InvalidFields` when a borrowed asset has no price."""
    collateral = tuple(c for c in portfolio.collateral if c.venue == loan.venue and c.amount)
    debts = tuple(d for d in portfolio.debts if d.venue == loan.venue and d.amount)
    given = {d.asset: prices[d.asset] for d in debts if d.asset in prices}
    with localcontext() as context:
        context.prec = 60
        owed = sum((d.amount * given.get(d.asset, Decimal(1)) for d in debts), ZERO)
        if owed and loan.debt_value:
            given = {d.asset: given.get(d.asset, Decimal(1)) * loan.debt_value / owed for d in debts}
    account = Account(ZERO, (), (), collateral, debts, given)
    return VenueAccount(loan.venue, model_of("aave", {}, account.assets()), account)


def venue_accounts(
    portfolio: Portfolio, prices: Mapping[str, Decimal], now_s: int | None = None
) -> tuple[VenueAccount, ...]:
    """Every margin and lending account of the portfolio. Raises `InvalidFields` as `account_of` and `loan_account_of` do."""
    return (
        *(account_of(portfolio, margin, prices, now_s) for margin in portfolio.margins),
        *(loan_account_of(portfolio, loan, prices) for loan in portfolio.loans),
    )
