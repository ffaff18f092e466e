"""What cannot be true of one portfolio: figures that are not finite, impossible, or do not follow from one another."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import fields
from decimal import Decimal, localcontext
from typing import Any

from policies.canonical import fields_reader
from policies.margin import EXACT, ratio
from policies.policy import Policy
from policies.portfolio import Facts, Loan, Margin, Option, Portfolio, Position

VALUE_TOLERANCE = Decimal("0.01")
"""USDC by which figures of one venue may differ from what they should add up to: some of them are rounded to 6 decimals."""
LOAN_TOLERANCE = Decimal("0.005")
"""Share by which a lending venue's figures may differ from what they should add up to: it rounds thresholds and prices."""
_ZERO, _ONE = Decimal(0), Decimal(1)


_AMOUNTS: dict[type, tuple[tuple[str, ...], Callable[[Any], tuple[Any, ...]]]] = {}


def _amounts(kind: type) -> tuple[tuple[str, ...], Callable[[Any], tuple[Any, ...]]]:
    """Fields of a dataclass that hold an amount or lists of amounts, and how to read all of them."""
    if kind not in _AMOUNTS:
        names = tuple(field.name for field in fields(kind) if "Decimal" in str(field.type))
        _AMOUNTS[kind] = names, fields_reader(names)
    return _AMOUNTS[kind]


def is_sound(entry: object) -> bool:
    """Whether every amount of a dataclass is finite."""
    for value in _amounts(type(entry))[1](entry):
        if isinstance(value, Decimal):
            if not value.is_finite():
                return False
        elif value is not None and not all(part.is_finite() for part in _parts(value)):
            return False
    return True


def not_finite(label: str, entry: object) -> Iterator[str]:
    """Every amount of a dataclass that is not finite."""
    for name, value in zip(*_named(entry), strict=True):
        if isinstance(value, Decimal):
            if not value.is_finite():
                yield f"{name} of the {label} is {value}"
        elif value is not None:
            yield from (f"{name} of the {label} is {part}" for part in _parts(value) if not part.is_finite())


def _named(entry: object) -> tuple[tuple[str, ...], tuple[object, ...]]:
    names, read = _amounts(type(entry))
    return names, read(entry)


def _parts(value: object) -> Iterator[Decimal]:
    if isinstance(value, Decimal):
        yield value
    elif isinstance(value, tuple):
        for part in value:
            yield from _parts(part)


class Sound:
    """What doubting both portfolios of one operation shares: the quotations by asset, and which entries have no fault of their own.

    An entry is known by its identity: what an operation leaves as it is may stand in both portfolios and is looked at once.
    """

    __slots__ = ("entries", "index", "most", "quotes")

    def __init__(self, policy: Policy, facts: Facts) -> None:
        self.entries: set[int] = set()
        self.quotes: dict[str, list[tuple[Decimal, Decimal]]] = {}
        """Every sound quotation of an asset, and how far another price may be from it."""
        self.most: dict[str, Decimal] = {}
        """The highest quotation of an asset that is finite."""
        for price in facts.prices:
            value, asset = price.value, price.asset
            if value.is_finite():
                self.most[asset] = max(self.most.get(asset, value), value)
                if value > 0:
                    reach = EXACT.multiply(policy.max_price_deviation, value)
                    self.quotes.setdefault(asset, []).append((value, reach))
        self.index = {asset: quotes[0][0] for asset, quotes in self.quotes.items()} | {"USDC": _ONE}


_Kind = tuple[str, Callable[[Any, str], str]]
_KINDS: tuple[_Kind, ...] = (
    ("holdings", lambda h, when: f"{h.asset} holding {when}"),
    ("debts", lambda d, when: f"{d.asset} debt {when}"),
    ("positions", lambda p, when: f"position {p.label} {when}"),
    ("margins", lambda m, when: f"margin account at {m.venue} {when}"),
    ("options", lambda o, when: f"option {o.label} {when}"),
    ("liquidity", lambda pool, when: f"liquidity {pool.label} {when}"),
    ("collateral", lambda c, when: f"{c.asset} collateral at {c.venue} {when}"),
    ("loans", lambda loan, when: f"lending account at {loan.venue} {when}"),
    ("allowances", lambda a, when: f"{a.asset} allowance {when}"),
)
"""Kinds of entries, and what one is called before or after."""


def doubts_about_portfolio(
    when: str, portfolio: Portfolio, policy: Policy, facts: Facts, sound: Sound | None = None
) -> Iterator[str]:
    """Everything that must not be relied on in one portfolio, a line each. `when`: before or after the operation; `sound` is shared by
    both portfolios."""
    sound = Sound(policy, facts) if sound is None else sound
    known = sound.entries
    fresh: dict[str, list[Any]] = {
        name: [entry for entry in getattr(portfolio, name) if id(entry) not in known] for name, _ in _KINDS
    }
    senseless = [
        text
        for name, called in _KINDS
        for entry in fresh[name]
        if not is_sound(entry)
        for text in not_finite(called(entry, when), entry)
    ]
    yield from senseless
    if senseless:
        return
    faults = 0
    for text in _impossible(when, fresh):
        faults += 1
        yield text
    yield from _twice(when, portfolio)
    accounts = {margin.venue for margin in portfolio.margins}
    for position in portfolio.positions:
        if position.venue not in accounts:
            yield f"the margin account of {position.label} {when} is missing"
        if id(position) in known:
            continue
        if position.mark_price <= 0:
            faults += 1
            yield f"the mark price of {position.label} {when} is {position.mark_price}"
        else:
            for text in _apart(position.mark_price, position.asset, sound):
                faults += 1
                yield f"{position.label} {when}: mark {text}"
    for option in fresh["options"]:
        for text in _option(when, option, policy, facts, sound):
            faults += 1
            yield text
    if not faults:  # else what is wrong with it is told of the other portfolio too
        known.update(id(entry) for entries in fresh.values() for entry in entries)
    at_venue: dict[str, list[Position]] = {}
    for position in portfolio.positions:
        at_venue.setdefault(position.venue, []).append(position)
    marked: dict[str, list[Option]] = {}
    for option in portfolio.options:
        marked.setdefault(option.venue, []).append(option)
    for margin in portfolio.margins:
        yield from _margin(when, margin, at_venue.get(margin.venue, []), marked.get(margin.venue, []))
    yield from _lending(when, portfolio, policy, sound)


def _impossible(when: str, entries: Mapping[str, list[Any]]) -> Iterator[str]:
    """Amounts below zero, and shares that are none."""
    for kind, name in (
        ("holding", "holdings"), ("debt", "debts"), ("collateral", "collateral"), ("allowance", "allowances"),
    ):  # fmt: skip
        for entry in entries[name]:
            if entry.amount < 0:
                yield f"the {entry.asset} {kind} {when} is {entry.amount}"
    for one in entries["collateral"]:
        if not (0 <= one.liquidation_threshold <= 1 and 0 <= one.loan_to_value <= 1) or one.price <= 0:
            yield f"the terms of {one.asset} collateral at {one.venue} {when} are no shares and a price"
    for owed in entries["debts"]:
        if owed.annual_rate is not None and owed.annual_rate < 0:
            yield f"the borrow rate of {owed.asset} at {owed.venue} {when} is {owed.annual_rate}"
    for pool in entries["liquidity"]:
        if not 0 < pool.lower_price < pool.upper_price or min(pool.liquidity, pool.owed0, pool.owed1) < 0:
            yield f"the liquidity position {pool.label} {when} has no range, or less than nothing in it"
    for margin in entries["margins"]:
        if margin.maintenance_requirement < 0 or margin.free_collateral < 0:
            yield f"the margin account at {margin.venue} {when} requires or frees less than nothing"


def _twice(when: str, portfolio: Portfolio) -> Iterator[str]:
    """Entries of which there can only be one."""
    for names, said in (
        ([margin.venue for margin in portfolio.margins], "a venue has two margin accounts {when}: {name}"),
        ([loan.venue for loan in portfolio.loans], "a venue has two lending accounts {when}: {name}"),
        ([p.label for p in portfolio.positions], "the position {name} {when} is there twice"),
        ([pool.label for pool in portfolio.liquidity], "the liquidity position {name} {when} is there twice"),
    ):
        if len(set(names)) < len(names):
            yield from (said.format(when=when, name=name) for name, count in Counter(names).items() if count > 1)


def _apart(value: Decimal, asset: str, sound: Sound) -> Iterator[str]:
    """A venue whose price is far from the index is paused, manipulated or mis-read."""
    for quoted, reach in sound.quotes.get(asset, ()):
        if abs(EXACT.subtract(value, quoted)) > reach:
            apart = ratio(abs(value - quoted), quoted, up=True)
            yield f"{value:.4f} and index {quoted:.4f} are {apart:.2%} apart"


def _option(when: str, option: Option, policy: Policy, facts: Facts, sound: Sound) -> Iterator[str]:
    def what() -> str:
        return f"the option {option.label} {when}"

    if option.strike <= 0 or option.mark_price < 0:
        yield f"{what()} has a strike of {option.strike:f} and a mark of {option.mark_price:f}"
    if option.implied_vol is not None and option.implied_vol <= 0:
        yield f"{what()} has an implied volatility of {option.implied_vol:f}"
    if option.size and option.expiry_s <= facts.block_time_s:
        yield f"{what()} has expired and is not settled"
    if option.forward is not None and option.forward <= 0:
        yield f"{what()} has a forward of {option.forward:f}"
    most = option.strike
    if option.is_call:
        most = max(sound.most.get(option.asset, _ZERO), option.forward or _ZERO)
    if most > 0 and option.mark_price > EXACT.multiply(most, EXACT.add(_ONE, policy.max_price_deviation)):
        yield f"{what()} is marked at {option.mark_price:.4f}, more than it can ever be worth ({most:.4f})"


def _margin(when: str, margin: Margin, held: Sequence[Position], options: Sequence[Option]) -> Iterator[str]:
    """What the venue says of the whole against what it says of the parts: perps at their profit, options at their mark. A requirement
    that follows another model than a ratio is that model's to check."""
    with localcontext(EXACT):
        notionals = [p.notional for p in held]
        profits = sum(notionals, _ZERO) - sum((p.entry_notional + p.pending_funding for p in held), _ZERO)
        profits += sum((o.notional for o in options), _ZERO)
        gap = abs(margin.collateral + profits - margin.account_value)
        required = margin.maintenance_ratio * sum(map(abs, notionals), _ZERO)
        short = abs(required - margin.maintenance_requirement)
    if gap > VALUE_TOLERANCE:
        yield f"{margin.venue} {when}: its account value {margin.account_value:.6f} differs from its parts by {gap:.6f}"
    if margin.model == "ratio" and short > VALUE_TOLERANCE:
        yield (
            f"{margin.venue} {when}: its maintenance requirement {margin.maintenance_requirement:.6f} differs from its "
            f"positions' by {short:.6f}"
        )


# -- lending ---------------------------------------------------------------------------------------------------------------------------


def _lending(when: str, portfolio: Portfolio, policy: Policy, sound: Sound) -> Iterator[str]:
    known = {loan.venue for loan in portfolio.loans}
    needed = {c.venue for c in portfolio.collateral if c.amount} | {d.venue for d in portfolio.debts if d.amount}
    yield from (f"the lending account at {venue} {when} is missing" for venue in sorted(needed - known))
    for one in portfolio.collateral:
        if one.amount and one.price > 0:
            for text in _apart(one.price, one.asset, sound):
                yield f"{one.asset} at {one.venue} {when}: its price {text}"
    for loan in portfolio.loans:
        yield from _loan(when, loan, portfolio, policy, sound.index)


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
