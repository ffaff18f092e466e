"""Facts that cannot be relied on: missing, stale, from the future, not finite, or contradicting each other.

Each denies whatever is no exit and no reduction, and says which fact it is. Figures that follow from one another are read apart and
compared here, so that a figure that was left out or altered shows.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import fields
from decimal import Decimal, localcontext

from policies.margin import EXACT, ratio
from policies.policy import Policy
from policies.portfolio import Facts, Margin, Option, Portfolio, Position, Price

VALUE_TOLERANCE = Decimal("0.01")
"""USDC by which figures of one venue may differ from what they should add up to: some of them are rounded to 6 decimals."""
SIZE_TOLERANCE = Decimal("0.000000001")
"""Base units by which fills may differ from the change of the position."""
CLOCK_TOLERANCE_S = 60
"""How far ahead of the engine's clock a block or a price may be."""


def doubts_about(policy: Policy, facts: Facts, now_s: int) -> list[str]:
    """Everything about `facts` that must not be relied on at `now_s` (unix s), a line each; empty when they are sound."""
    return list(_all(policy, facts, now_s))


def _all(policy: Policy, facts: Facts, now_s: int) -> Iterator[str]:
    yield from (f"{missing.what} is missing: {missing.why}" for missing in facts.missing)
    age = now_s - facts.block_time_s
    if age > policy.max_block_age_s:
        yield f"the newest block is {age} s old, the policy takes {policy.max_block_age_s} s"
    if -age > CLOCK_TOLERANCE_S:
        yield f"the newest block is {-age} s ahead of the engine's clock"
    yield from _prices(policy, facts, now_s)
    for fill in facts.fills:
        yield from _senseless("fill", fill)
    for order in facts.orders:
        if order.worst_price is not None and not order.worst_price.is_finite():
            yield f"the bound of the order at {order.venue} is {order.worst_price}"
    yield from _portfolio("before", facts.before, policy, facts)
    if facts.succeeded:
        yield from _portfolio("after", facts.after, policy, facts)
        yield from _trades(facts)


def _prices(policy: Policy, facts: Facts, now_s: int) -> Iterator[str]:
    needed = facts.before.assets() | facts.after.assets()
    needed |= {fill.asset for fill in facts.fills} | {order.asset for order in facts.orders}
    yield from (f"there is no price of {asset}" for asset in sorted(needed - {price.asset for price in facts.prices}))
    for price in facts.prices:
        yield from _price(policy, price, now_s)
    for asset in sorted({price.asset for price in facts.prices}):
        sound = [p.value for p in facts.prices if p.asset == asset and p.value.is_finite() and p.value > 0]
        if len(sound) > 1 and ratio(max(sound) - min(sound), min(sound), up=True) > policy.max_price_deviation:
            yield f"the sources of {asset} contradict each other: {', '.join(f'{v:f}' for v in sound)}"


def _price(policy: Policy, price: Price, now_s: int) -> Iterator[str]:
    what, age = f"the price of {price.asset} from {price.source}", now_s - price.time_s
    if not price.value.is_finite() or price.value <= 0:
        yield f"{what} is {price.value}"
    elif age > policy.max_price_age_s:
        yield f"{what} is {age} s old, the policy takes {policy.max_price_age_s} s"
    elif -age > CLOCK_TOLERANCE_S:
        yield f"{what} is {-age} s ahead of the engine's clock"


def _senseless(label: str, entry: object) -> Iterator[str]:
    """Every amount of a dataclass that is not finite."""
    for field in fields(entry):  # type: ignore[arg-type]  # every caller passes a dataclass
        value = getattr(entry, field.name)
        if isinstance(value, Decimal) and not value.is_finite():
            yield f"{field.name} of the {label} is {value}"


def _portfolio(when: str, portfolio: Portfolio, policy: Policy, facts: Facts) -> Iterator[str]:
    entries: Iterable[tuple[str, object]] = [
        *((f"{h.asset} holding {when}", h) for h in portfolio.holdings),
        *((f"{d.asset} debt {when}", d) for d in portfolio.debts),
        *((f"position {p.label} {when}", p) for p in portfolio.positions),
        *((f"option {o.label} {when}", o) for o in portfolio.options),
        *((f"margin account at {m.venue} {when}", m) for m in portfolio.margins),
    ]
    senseless = [text for label, entry in entries for text in _senseless(label, entry)]
    yield from senseless
    if senseless:
        return
    accounts = {margin.venue for margin in portfolio.margins}
    if len(accounts) != len(portfolio.margins):
        yield f"a venue has two margin accounts {when}"
    for position in portfolio.positions:
        if position.venue not in accounts:
            yield f"the margin account of {position.label} {when} is missing"
        yield from _mark(when, position, policy, facts)
    for margin in portfolio.margins:
        yield from _margin(when, margin, portfolio)


def _mark(when: str, position: Position, policy: Policy, facts: Facts) -> Iterator[str]:
    """A venue whose mark is far from the index is paused, manipulated or mis-read."""
    if position.mark_price <= 0:
        yield f"the mark price of {position.label} {when} is {position.mark_price}"
        return
    for price in facts.prices:
        if price.asset != position.asset or not price.value.is_finite() or price.value <= 0:
            continue
        apart = ratio(abs(position.mark_price - price.value), price.value, up=True)
        if apart > policy.max_price_deviation:
            yield f"{position.label} {when}: mark {position.mark_price:.4f} and index {price.value:.4f} are {apart:.2%} apart"


def _margin(when: str, margin: Margin, portfolio: Portfolio) -> Iterator[str]:
    """What the venue says of the whole against what it says of the parts: perps at their profit, options at their mark. A requirement
    that follows another model than a ratio is that model's to check."""
    held = [p for p in portfolio.positions if p.venue == margin.venue]
    with localcontext(EXACT):
        profits = sum((p.notional - p.entry_notional - p.pending_funding for p in held), Decimal(0))
        profits += sum((o.notional for o in portfolio.options if o.venue == margin.venue), Decimal(0))
        gap = abs(margin.collateral + profits - margin.account_value)
        required = margin.maintenance_ratio * sum((abs(p.notional) for p in held), Decimal(0))
        short = abs(required - margin.maintenance_requirement)
    if gap > VALUE_TOLERANCE:
        yield f"{margin.venue} {when}: its account value {margin.account_value:.6f} differs from its parts by {gap:.6f}"
    if margin.model == "ratio" and short > VALUE_TOLERANCE:
        yield (
            f"{margin.venue} {when}: its maintenance requirement {margin.maintenance_requirement:.6f} differs from its "
            f"positions' by {short:.6f}"
        )


def _trades(facts: Facts) -> Iterator[str]:
    """Fills must explain the change of positions, and every order that can be read must be among the orders."""
    change: dict[tuple[str, str], Decimal] = {}
    with localcontext(EXACT):
        for sign, portfolio in ((1, facts.after), (-1, facts.before)):
            held: list[Position | Option] = [*portfolio.positions, *portfolio.options]
            for p in held:
                if p.size.is_finite():
                    change[p.venue, p.asset] = change.get((p.venue, p.asset), Decimal(0)) + sign * p.size
        for fill in facts.fills:
            if fill.size.is_finite():
                change[fill.venue, fill.asset] = change.get((fill.venue, fill.asset), Decimal(0)) - fill.size
    for (venue, asset), rest in sorted(change.items()):
        if abs(rest) > SIZE_TOLERANCE:
            yield f"the fills at {venue} do not explain the change of {asset}: {rest:f} is left"
    placed = sum(call.function.startswith("openPosition((address") for call in facts.calls.calls)
    if placed > len(facts.orders):
        yield f"{placed} orders are placed, the bounds of {len(facts.orders)} are known"
