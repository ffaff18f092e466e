"""How far venue accounts are from being liquidated: requirements, their use, prices and distances."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from decimal import Decimal, localcontext
from typing import Any, TypeVar

from contracts.errors import BadInput
from policies.margin import EXACT, Leg, critical_move, ratio
from policies.metrics.base import Contribution, Metric, NotKnown, Observation, View, at_venue, inside, summed, total
from policies.policy import Parameters, Scope
from policies.portfolio import UNIT_OF_ACCOUNT, Loan, Margin, Option, Position

_ONE = Decimal(1)
_Held = TypeVar("_Held", Position, Option)
ALL_PRICES = "all prices"
FAR = Decimal(1_000)
"""Times the present price: shown where no price above it liquidates."""


def _accounts(view: View, scope: Scope) -> list[Margin]:
    return [m for m in view.portfolio.margins if at_venue(scope, m.venue)]


def _notional(view: View, venue: str) -> Decimal:
    def added() -> dict[str, Decimal]:
        with localcontext(EXACT):
            return {at: sum([abs(p.notional) for p in held], Decimal(0)) for at, held in positions_at(view).items()}

    known: dict[str, Decimal] = view.once("notional by venue", added)
    return known.get(venue, Decimal(0))


def by_model(view: View, margin: Margin) -> Any:
    """The account at a venue whose margin model is no plain share of the notional (policies.risk.margin). Raises NotKnown when the
    model is unknown or lacks a term."""
    from policies.risk.margin import account_of

    known: dict[Any, Any] = view.workings.setdefault("margin accounts", {})
    place = _place(view, margin)
    if place not in known:
        try:
            known[place] = account_of(view.portfolio, margin, view.prices, view.facts.block_time_s)
        except BadInput as error:
            raise NotKnown(f"the margin of {margin.venue} is not known: {error.message}") from None
    return known[place]


def _place(view: View, margin: Margin) -> tuple[int, ...]:
    """What tells one account from another: an account that the operation leaves as it is is the same before and after."""
    held: list[object] = [*positions_at(view).get(margin.venue, ()), *options_at(view).get(margin.venue, ())]
    held += [c for c in view.portfolio.collateral if c.venue == margin.venue]
    return (id(margin), *map(id, held))


def models_of(margins: Iterable[Margin]) -> tuple[tuple[str, str, str], ...]:
    """The margin models, beside the plain share of notional, that these accounts follow: for the Decision's record."""
    names = sorted({margin.model for margin in margins} - {"ratio"})
    if not names:
        return ()
    from policies.risk.margin import MODELS

    return tuple((f"margin_{name}", MODELS[name].version, "python") for name in names if name in MODELS)


def required(view: View, margin: Margin, account: Any = None) -> Any:
    """The requirement of such an account, or of `account`, the same after prices moved. Raises NotKnown."""
    venue = by_model(view, margin)
    known: dict[int, Any] = view.workings.setdefault("requirements", {})
    if account is None and id(venue) in known:
        return known[id(venue)]
    try:
        found = venue.model.requirement(venue.account if account is None else account)
    except (BadInput, ArithmeticError) as error:
        raise NotKnown(f"the margin of {margin.venue} cannot be computed: {error}") from None
    if account is None:
        known[id(venue)] = found
    return found


def initial_requirement(view: View, margin: Margin) -> Decimal:
    """What the venue asks to open what is held, in quote. Raises NotKnown."""
    if margin.model != "ratio":
        asked: Decimal = required(view, margin).initial
        return asked
    with localcontext(EXACT):
        return margin.initial_ratio * _notional(view, margin.venue)


@dataclass(frozen=True, slots=True)
class Critical:
    """The relative moves of `asset` (ALL_PRICES: of all together) at which the account at `venue` becomes liquidatable: the nearest
    down (negative) and up, None where no move does it. `price` is the asset's at that venue, None for all together."""

    venue: str
    asset: str
    down: Decimal | None
    up: Decimal | None
    price: Decimal | None

    @property
    def distance(self) -> Decimal:
        """The nearer of the two, 1 at most."""
        return min((abs(move) for move in (self.down, self.up) if move is not None), default=_ONE).min(_ONE)


def criticals(view: View) -> tuple[Critical, ...]:
    """The critical moves of every venue account and lending account."""
    found: tuple[Critical, ...] = view.once("criticals", lambda: tuple(_criticals(view)))
    return found


def _criticals(view: View) -> Iterator[Critical]:
    known: dict[Any, Any] = view.workings.setdefault("criticals of accounts", {})
    for margin in view.portfolio.margins:
        place = _place(view, margin)
        if place not in known:
            known[place] = tuple(_of_account(view, margin))
        yield from known[place]
    for loan in view.portfolio.loans:
        yield from _of_loan(view, loan)


def positions_at(view: View) -> dict[str, list[Position]]:
    """What is held of linear derivatives, by venue."""
    return view.once("positions by venue", lambda: _by_venue(view.portfolio.positions))  # type: ignore[no-any-return]


def options_at(view: View) -> dict[str, list[Option]]:
    """What is held of options, by venue."""
    return view.once("options by venue", lambda: _by_venue(view.portfolio.options))  # type: ignore[no-any-return]


def _by_venue(held: Iterable[_Held]) -> dict[str, list[_Held]]:
    found: dict[str, list[_Held]] = {}
    for one in held:
        found.setdefault(one.venue, []).append(one)
    return found


def _of_account(view: View, margin: Margin) -> Iterator[Critical]:
    if margin.model != "ratio":
        yield from _solved(view, margin)
        return
    legs = [Leg(p.asset, p.size, p.mark_price) for p in positions_at(view).get(margin.venue, ()) if p.size]
    assets = sorted({leg.market for leg in legs})
    for asset in assets:
        move = critical_move(margin.account_value, margin.maintenance_ratio, legs, {asset})
        yield _critical(margin.venue, asset, move, next(leg.price for leg in legs if leg.market == asset))
    if len(assets) > 1:
        everything = critical_move(margin.account_value, margin.maintenance_ratio, legs, None)
        yield _critical(margin.venue, ALL_PRICES, everything, None)


def _solved(view: View, margin: Margin) -> Iterator[Critical]:
    """By the venue's own rule, solved: the nearest move of each price down and up, and of all together."""
    if not any(o.venue == margin.venue and o.size < 0 for o in view.portfolio.options) and not any(
        p.venue == margin.venue and p.size for p in view.portfolio.positions
    ):
        return  # bought options are paid for: nothing there can be liquidated
    venue = by_model(view, margin)
    assets = venue.assets()
    groups: list[tuple[str, set[str] | None]] = [(asset, {asset}) for asset in assets]
    if len(assets) > 1:
        groups.append((ALL_PRICES, None))
    for label, moved in groups:
        try:
            moves = venue.critical(moved)
        except (BadInput, ArithmeticError) as error:
            raise NotKnown(f"when {margin.venue} liquidates cannot be computed: {error}") from None
        yield Critical(margin.venue, label, moves.down, moves.up, venue.account.price(label))


def _of_loan(view: View, loan: Loan) -> Iterator[Critical]:
    """Liquidatable when sum of collateral x threshold < debt: linear in every price, so the critical move is closed form.

    The debt in the venue's own figures is shared over the borrowed assets in proportion to their worth at index prices.
    """
    if loan.debt_value <= 0:
        return
    held = [c for c in view.portfolio.collateral if c.venue == loan.venue and c.amount]
    with localcontext(EXACT):
        backing = [(c.asset, c.amount * c.price * c.liquidation_threshold) for c in held]
        worth = [
            (d.asset, d.amount * view.price(d.asset))
            for d in view.portfolio.debts
            if d.venue == loan.venue and d.amount
        ]
        slack = total(backing) - loan.debt_value
    whole = total(worth)
    if whole <= 0:
        raise NotKnown(f"what {loan.venue} is owed is not known asset by asset")
    with localcontext(EXACT):
        owed = [(asset, ratio(value * loan.debt_value, whole, up=True)) for asset, value in worth]
    assets = sorted({asset for asset, value in (*backing, *owed) if value} - {UNIT_OF_ACCOUNT})
    prices = {c.asset: c.price for c in held}
    groups: list[tuple[str, set[str]]] = [(asset, {asset}) for asset in assets]
    if len(assets) > 1:
        groups.append((ALL_PRICES, set(assets)))
    for label, moved in groups:
        slope = total((a, v) for a, v in backing if a in moved) - total((a, v) for a, v in owed if a in moved)
        price = prices.get(label) or view.prices.get(label)
        yield _critical(loan.venue, label, _linear_move(slack, slope), price)


def _linear_move(slack: Decimal, slope: Decimal) -> Decimal | None:
    """The move m with slack + m x slope = 0, rounded towards zero; 0 when slack is negative already, None without any above -100 %."""
    if slack < 0:
        return Decimal(0)
    if slope == 0:
        return None
    with localcontext(EXACT):
        move = ratio(-slack, slope, up=-slack * slope < 0)
    return None if move <= -1 else move


def _critical(venue: str, asset: str, move: Decimal | None, price: Decimal | None) -> Critical:
    """One linear account has one critical move; at 0 it is liquidatable whichever way the price goes."""
    down = move if move is not None and move <= 0 else None
    up = move if move is not None and move >= 0 else None
    return Critical(venue, asset, down, up, price)


def _in_scope(view: View, scope: Scope) -> list[Critical]:
    if scope.kind == "asset":
        return [c for c in criticals(view) if c.asset == scope.name]
    return [c for c in criticals(view) if at_venue(scope, c.venue)]


def liquidation_distance(view: View, scope: Scope, _: Parameters) -> Observation:
    rows = [(f"{c.venue}:{c.asset}", c.distance) for c in _in_scope(view, scope)]
    return Observation(
        min((distance for _, distance in rows), default=_ONE), tuple(rows), models=models_of(view.portfolio.margins)
    )


def _price_after(price: Decimal, move: Decimal) -> Decimal:
    with localcontext(EXACT):
        return price * (1 + move)


def liquidation_price(view: View, scope: Scope, _: Parameters) -> Observation:
    rows = [
        (f"{c.venue}:{c.asset}", _price_after(c.price, c.down))
        for c in _in_scope(view, scope)
        if c.price is not None and c.down is not None
    ]
    models = models_of(view.portfolio.margins)
    return Observation(max((price for _, price in rows), default=Decimal(0)), tuple(rows), models=models)


def liquidation_price_above(view: View, scope: Scope, _: Parameters) -> Observation:
    rows = [
        (f"{c.venue}:{c.asset}", _price_after(c.price, c.up))
        for c in _in_scope(view, scope)
        if c.price is not None and c.up is not None
    ]
    far = view.price(scope.name) * FAR
    models = models_of(view.portfolio.margins)
    return Observation(min((price for _, price in rows), default=far), tuple(rows), models=models)


def free_collateral(view: View, scope: Scope, _: Parameters) -> Observation:
    return summed([(m.venue, m.free_collateral) for m in _accounts(view, scope)])


def margin_ratio(view: View, scope: Scope, _: Parameters) -> Observation:
    rows: list[Contribution] = []
    for margin in _accounts(view, scope):
        notional = _notional(view, margin.venue)
        if notional:
            rows.append((margin.venue, min(_ONE, ratio(margin.account_value, notional, up=False))))
    return Observation(min((share for _, share in rows), default=_ONE), tuple(rows))


def _use(view: View, scope: Scope, requirement: Callable[[Margin], Decimal]) -> Observation:
    rows: list[Contribution] = []
    for margin in _accounts(view, scope):
        needed = requirement(margin)
        if needed == 0:
            continue
        if margin.account_value <= 0:
            raise NotKnown(f"the account value at {margin.venue} is not positive")
        rows.append((margin.venue, ratio(needed, margin.account_value, up=True)))
    return Observation(max((used for _, used in rows), default=Decimal(0)), tuple(rows))


def margin_use(view: View, scope: Scope, _: Parameters) -> Observation:
    return _use(view, scope, lambda margin: margin.maintenance_requirement)


def initial_margin_use(view: View, scope: Scope, _: Parameters) -> Observation:
    used = _use(view, scope, lambda margin: initial_requirement(view, margin))
    return replace(used, models=models_of(_accounts(view, scope)))


def maintenance_margin(view: View, scope: Scope, _: Parameters) -> Observation:
    return summed([(m.venue, m.maintenance_requirement) for m in _accounts(view, scope)])


def initial_margin(view: View, scope: Scope, _: Parameters) -> Observation:
    asked = summed([(m.venue, initial_requirement(view, m)) for m in _accounts(view, scope)])
    return replace(asked, models=models_of(_accounts(view, scope)))


def funding_owed(view: View, scope: Scope, _: Parameters) -> Observation:
    return summed([(p.label, p.pending_funding) for p in view.portfolio.positions if inside(scope, p.asset, p.venue)])


_ACCOUNTS = "venue accounts"
_LIQUIDATION_INPUTS = "positions, venue marks, account values, margin models and terms; collateral, thresholds and debts of lending accounts"

METRICS = (
    Metric(
        "liquidation_distance",
        "%",
        "lower",
        "smallest relative move, in either direction, of one asset's mark (or of all together) that makes a venue account or a lending "
        "account liquidatable by the venue's own rule; 100 % when none does. Funding yet to accrue is not in it",
        _LIQUIDATION_INPUTS,
        liquidation_distance,
    ),
    Metric(
        "liquidation_price",
        "USDC",
        "higher",
        "highest price of the asset at or below the present one, other prices standing still, at which an account becomes liquidatable; 0 "
        "when none does",
        _LIQUIDATION_INPUTS,
        liquidation_price,
        scopes=("asset",),
    ),
    Metric(
        "liquidation_price_above",
        "USDC",
        "lower",
        "lowest price of the asset at or above the present one, other prices standing still, at which an account becomes liquidatable; "
        "1,000 times the index price when none does",
        _LIQUIDATION_INPUTS,
        liquidation_price_above,
        scopes=("asset",),
    ),
    Metric(
        "free_collateral",
        "USDC",
        "lower",
        "what the venues would let out now, as they answer",
        _ACCOUNTS,
        free_collateral,
        scopes=("portfolio", "venue"),
    ),
    Metric(
        "margin_ratio",
        "%",
        "lower",
        "account value / sum of |size x mark price|, the worst of the venues, at most 100 %; liquidation at the maintenance ratio",
        "positions, venue marks, venue accounts",
        margin_ratio,
        scopes=("portfolio", "venue"),
        may_be_negative=True,
    ),
    Metric(
        "margin_use",
        "%",
        "higher",
        "largest maintenance requirement / account value over venues; liquidation at 100 %",
        _ACCOUNTS,
        margin_use,
        scopes=("portfolio", "venue"),
    ),
    Metric(
        "initial_margin_use",
        "%",
        "higher",
        "largest initial requirement / account value over venues, by each venue's margin model; nothing can be opened at 100 %",
        "venue accounts, positions, venue marks, the venue's margin model and terms",
        initial_margin_use,
        scopes=("portfolio", "venue"),
    ),
    Metric(
        "maintenance_margin",
        "USDC",
        "higher",
        "sum of the venues' maintenance requirements, as they answer",
        _ACCOUNTS,
        maintenance_margin,
        scopes=("portfolio", "venue"),
    ),
    Metric(
        "initial_margin",
        "USDC",
        "higher",
        "sum of what the venues ask to open what is held, by each venue's margin model",
        "venue accounts, positions, venue marks, the venue's margin model and terms",
        initial_margin,
        scopes=("portfolio", "venue"),
    ),
    Metric(
        "funding_owed",
        "USDC",
        "higher",
        "sum of funding that positions owe and have not settled; negative when it is owed to the account",
        "positions",
        funding_owed,
        may_be_negative=True,
    ),
)
