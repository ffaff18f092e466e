"""What cannot be true of one portfolio: figures that are not finite, impossible, or do not follow from one another."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import fields
from decimal import Decimal, localcontext

from policies.margin import EXACT, ratio
from policies.policy import Policy
from policies.portfolio import Facts, Loan, Margin, Option, Portfolio

VALUE_TOLERANCE = Decimal("0.01")
"""USDC by which figures of one venue may differ from what they should add up to: some of them are rounded to 6 decimals."""
LOAN_TOLERANCE = Decimal("0.005")
"""Share by which a lending venue's figures may differ from what they should add up to: it rounds thresholds and prices."""
_ZERO, _ONE = Decimal(0), Decimal(1)


_AMOUNTS: dict[type, tuple[str, ...]] = {}


def _amounts(kind: type) -> tuple[str, ...]:
    """Fields of a dataclass that hold an amount or lists of amounts."""
    if kind not in _AMOUNTS:
        _AMOUNTS[kind] = tuple(field.name for field in fields(kind) if "Decimal" in str(field.type))
    return _AMOUNTS[kind]


def not_finite(label: str, entry: object) -> Iterator[str]:
    """Every amount of a dataclass that is not finite."""
    for name in _amounts(type(entry)):
        value = getattr(entry, name)
        if isinstance(value, Decimal):
            if not value.is_finite():
                yield f"{name} of the {label} is {value}"
        elif value is not None:
            yield from (f"{name} of the {label} is {part}" for part in _parts(value) if not part.is_finite())


def _parts(value: object) -> Iterator[Decimal]:
    if isinstance(value, Decimal):
        yield value
    elif isinstance(value, tuple):
        for part in value:
            yield from _parts(part)


def doubts_about_portfolio(when: str, portfolio: Portfolio, policy: Policy, facts: Facts) -> Iterator[str]:
    """Everything that must not be relied on in one portfolio, a line each. `when`: before or after the operation."""
    entries: Iterable[tuple[str, object]] = [
        *((f"{h.asset} holding {when}", h) for h in portfolio.holdings),
        *((f"{d.asset} debt {when}", d) for d in portfolio.debts),
        *((f"position {p.label} {when}", p) for p in portfolio.positions),
        *((f"margin account at {m.venue} {when}", m) for m in portfolio.margins),
        *((f"option {o.label} {when}", o) for o in portfolio.options),
        *((f"liquidity {pool.label} {when}", pool) for pool in portfolio.liquidity),
        *((f"{c.asset} collateral at {c.venue} {when}", c) for c in portfolio.collateral),
        *((f"lending account at {loan.venue} {when}", loan) for loan in portfolio.loans),
        *((f"{a.asset} allowance {when}", a) for a in portfolio.allowances),
    ]
    senseless = [text for label, entry in entries for text in not_finite(label, entry)]
    yield from senseless
    if senseless:
        return
    yield from _impossible(when, portfolio)
    yield from _twice(when, portfolio)
    index = {p.asset: p.value for p in reversed(facts.prices) if p.value.is_finite() and p.value > 0}
    index["USDC"] = _ONE
    accounts = {margin.venue for margin in portfolio.margins}
    for position in portfolio.positions:
        if position.venue not in accounts:
            yield f"the margin account of {position.label} {when} is missing"
        if position.mark_price <= 0:
            yield f"the mark price of {position.label} {when} is {position.mark_price}"
        else:
            yield from _apart(f"{position.label} {when}: mark", position.asset, position.mark_price, policy, facts)
    for option in portfolio.options:
        yield from _option(when, option, policy, facts)
    for margin in portfolio.margins:
        yield from _margin(when, margin, portfolio)
    yield from _lending(when, portfolio, policy, facts, index)


def _impossible(when: str, portfolio: Portfolio) -> Iterator[str]:
    """Amounts below zero, and shares that are none."""
    for kind, entries in (
        ("holding", portfolio.holdings), ("debt", portfolio.debts), ("collateral", portfolio.collateral),
        ("allowance", portfolio.allowances),
    ):  # fmt: skip
        for entry in entries:
            if entry.amount < 0:
                yield f"the {entry.asset} {kind} {when} is {entry.amount}"
    for one in portfolio.collateral:
        if not (0 <= one.liquidation_threshold <= 1 and 0 <= one.loan_to_value <= 1) or one.price <= 0:
            yield f"the terms of {one.asset} collateral at {one.venue} {when} are no shares and a price"
    for owed in portfolio.debts:
        if owed.annual_rate is not None and owed.annual_rate < 0:
            yield f"the borrow rate of {owed.asset} at {owed.venue} {when} is {owed.annual_rate}"
    for pool in portfolio.liquidity:
        if not 0 < pool.lower_price < pool.upper_price or min(pool.liquidity, pool.owed0, pool.owed1) < 0:
            yield f"the liquidity position {pool.label} {when} has no range, or less than nothing in it"
    for margin in portfolio.margins:
        if margin.maintenance_requirement < 0 or margin.free_collateral < 0:
            yield f"the margin account at {margin.venue} {when} requires or frees less than nothing"


def _twice(when: str, portfolio: Portfolio) -> Iterator[str]:
    """Entries of which there can only be one."""
    for venue, count in Counter(margin.venue for margin in portfolio.margins).items():
        if count > 1:
            yield f"a venue has two margin accounts {when}: {venue}"
    for venue, count in Counter(loan.venue for loan in portfolio.loans).items():
        if count > 1:
            yield f"a venue has two lending accounts {when}: {venue}"
    for label, count in Counter(p.label for p in portfolio.positions).items():
        if count > 1:
            yield f"the position {label} {when} is there twice"
    for label, count in Counter(pool.label for pool in portfolio.liquidity).items():
        if count > 1:
            yield f"the liquidity position {label} {when} is there twice"


def _apart(what: str, asset: str, value: Decimal, policy: Policy, facts: Facts) -> Iterator[str]:
    """A venue whose price is far from the index is paused, manipulated or mis-read."""
    for price in facts.prices:
        if price.asset != asset or not price.value.is_finite() or price.value <= 0:
            continue
        if abs(EXACT.subtract(value, price.value)) > EXACT.multiply(policy.max_price_deviation, price.value):
            apart = ratio(abs(value - price.value), price.value, up=True)
            yield f"{what} {value:.4f} and index {price.value:.4f} are {apart:.2%} apart"


def _option(when: str, option: Option, policy: Policy, facts: Facts) -> Iterator[str]:
    what = f"the option {option.label} {when}"
    if option.strike <= 0 or option.mark_price < 0:
        yield f"{what} has a strike of {option.strike:f} and a mark of {option.mark_price:f}"
    if option.implied_vol is not None and option.implied_vol <= 0:
        yield f"{what} has an implied volatility of {option.implied_vol:f}"
    if option.size and option.expiry_s <= facts.block_time_s:
        yield f"{what} has expired and is not settled"
    if option.forward is not None and option.forward <= 0:
        yield f"{what} has a forward of {option.forward:f}"
    most = option.strike
    if option.is_call:
        most = max((p.value for p in facts.prices if p.asset == option.asset and p.value.is_finite()), default=_ZERO)
        most = max(most, option.forward or _ZERO)
    if most > 0 and option.mark_price > EXACT.multiply(most, EXACT.add(_ONE, policy.max_price_deviation)):
        yield f"{what} is marked at {option.mark_price:.4f}, more than it can ever be worth ({most:.4f})"


def _margin(when: str, margin: Margin, portfolio: Portfolio) -> Iterator[str]:
    """What the venue says of the whole against what it says of the parts: perps at their profit, options at their mark. A requirement
    that follows another model than a ratio is that model's to check."""
    held = [p for p in portfolio.positions if p.venue == margin.venue]
    with localcontext(EXACT):
        profits = sum((p.notional - p.entry_notional - p.pending_funding for p in held), _ZERO)
        profits += sum((o.notional for o in portfolio.options if o.venue == margin.venue), _ZERO)
        gap = abs(margin.collateral + profits - margin.account_value)
        required = margin.maintenance_ratio * sum((abs(p.notional) for p in held), _ZERO)
        short = abs(required - margin.maintenance_requirement)
    if gap > VALUE_TOLERANCE:
        yield f"{margin.venue} {when}: its account value {margin.account_value:.6f} differs from its parts by {gap:.6f}"
    if margin.model == "ratio" and short > VALUE_TOLERANCE:
        yield (
            f"{margin.venue} {when}: its maintenance requirement {margin.maintenance_requirement:.6f} differs from its "
            f"positions' by {short:.6f}"
        )


# -- lending ---------------------------------------------------------------------------------------------------------------------------


def _lending(when: str, portfolio: Portfolio, policy: Policy, facts: Facts, index: dict[str, Decimal]) -> Iterator[str]:
    known = {loan.venue for loan in portfolio.loans}
    needed = {c.venue for c in portfolio.collateral if c.amount} | {d.venue for d in portfolio.debts if d.amount}
    yield from (f"the lending account at {venue} {when} is missing" for venue in sorted(needed - known))
    for one in portfolio.collateral:
        if one.amount and one.price > 0:
            yield from _apart(f"{one.asset} at {one.venue} {when}: its price", one.asset, one.price, policy, facts)
    for loan in portfolio.loans:
        yield from _loan(when, loan, portfolio, policy, index)


def _differ(one: Decimal, other: Decimal, share: Decimal) -> bool:
    with localcontext(EXACT):
        return abs(one - other) > max(VALUE_TOLERANCE, share * max(abs(one), abs(other)))


def _loan(when: str, loan: Loan, portfolio: Portfolio, policy: Policy, index: dict[str, Decimal]) -> Iterator[str]:
    """What a lending venue says of the whole against what it says of the parts. Supplies that are not enabled may be left out of its sum."""
    what = f"{loan.venue} {when}"
    held = [c for c in portfolio.collateral if c.venue == loan.venue]
    owed = [d for d in portfolio.debts if d.venue == loan.venue and d.asset in index]
    with localcontext(EXACT):
        supplied = sum((c.amount * c.price for c in held), _ZERO)
        enabled = sum((c.amount * c.price for c in held if c.liquidation_threshold), _ZERO)
        backing = sum((c.amount * c.price * c.liquidation_threshold for c in held), _ZERO)
        debts = sum((d.amount * index[d.asset] for d in owed), _ZERO)
    if min(loan.collateral_value, loan.debt_value, loan.available_borrow) < 0:
        yield f"{what}: it says less than nothing is supplied, owed or left to borrow"
    if all(_differ(loan.collateral_value, worth, LOAN_TOLERANCE) for worth in (supplied, enabled)):
        yield f"{what}: its collateral {loan.collateral_value:.6f} differs from its parts ({enabled:.6f})"
    if _differ(loan.debt_value, debts, policy.max_price_deviation):
        yield f"{what}: its debt {loan.debt_value:.6f} differs from its parts at index prices ({debts:.6f})"
    if not 0 <= loan.liquidation_threshold <= 1 or _differ(
        EXACT.multiply(loan.liquidation_threshold, loan.collateral_value), backing, LOAN_TOLERANCE
    ):
        yield f"{what}: its liquidation threshold {loan.liquidation_threshold:f} differs from its collateral's"
    if loan.available_borrow > EXACT.add(loan.collateral_value, VALUE_TOLERANCE):
        yield f"{what}: {loan.available_borrow:f} is left to borrow against {loan.collateral_value:f}"
    if not loan.debt_value:
        return
    if loan.health_factor is None:
        yield f"{what}: {loan.debt_value:f} is owed and the health factor is missing"
    elif _differ(EXACT.multiply(loan.health_factor, loan.debt_value), backing, LOAN_TOLERANCE):
        yield f"{what}: its health factor {loan.health_factor:f} differs from collateral x threshold / debt"
