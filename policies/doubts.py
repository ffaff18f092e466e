"""Facts that cannot be relied on: missing, stale, from the future, not finite, or contradicting each other.

Each denies whatever is no exit and no reduction, and says which fact it is. Figures that follow from one another are read apart and
compared here, so that a figure that was left out or altered shows. Portfolios are doubted in policies.doubts_portfolio.
"""

from __future__ import annotations

from collections.abc import Iterator
from decimal import Decimal, localcontext
from itertools import zip_longest
from typing import TypeVar

from contracts.types import checksum
from policies.doubts_portfolio import Sound, doubts_about_portfolio, is_sound, not_finite
from policies.functions import Effect
from policies.margin import EXACT, ratio
from policies.metrics import NotKnown, View, same, view_of
from policies.metrics.exposure import value_rows
from policies.metrics.operation import TRACE, paid_out
from policies.orders import places_order
from policies.policy import Policy, Scope, resolve
from policies.portfolio import SPOT_VENUES, UNIT_OF_ACCOUNT, Facts, History, Option, Portfolio, Position, Price, Returns
from policies.series import series_of
from policies.trace import wants_trace

SIZE_TOLERANCE = Decimal("0.000000001")
"""Base units by which fills may differ from the change of the position."""
PEG_AGE_S = 90_000
"""How old USDC's own price may be whatever the policy says: its feeds answer once a day (24 h heartbeat) while the peg holds."""
CLOCK_TOLERANCE_S = 60
"""How far ahead of the engine's clock a block or a price may be."""
UNEXPLAINED_SHARE = Decimal("0.5")
UNEXPLAINED_AMOUNT = Decimal(10)
"""A change of equity is not understood when it is more than this amount (USDC) and this share of everything that the operation moved."""


def doubts_about(policy: Policy, facts: Facts, now_s: int, views: tuple[View, View] | None = None) -> list[str]:
    """Everything about `facts` that must not be relied on at `now_s` (unix s), a line each; empty when they are sound.

    `views`: those of `facts` before and after the operation, where whoever asks has them, for what they have worked out already.
    """
    return list(_all(policy, facts, now_s, views))


def _all(policy: Policy, facts: Facts, now_s: int, views: tuple[View, View] | None) -> Iterator[str]:
    yield from (f"{missing.what} is missing: {missing.why}" for missing in facts.missing)
    age = now_s - facts.block_time_s
    if age > policy.max_block_age_s:
        yield f"the newest block is {age} s old, the policy takes {policy.max_block_age_s} s"
    if -age > CLOCK_TOLERANCE_S:
        yield f"the newest block is {-age} s ahead of the engine's clock"
    yield from _prices(policy, facts, now_s)
    yield from _feeds(policy, facts)
    for fill in facts.fills:
        if not is_sound(fill):
            yield from not_finite(f"fill of {fill.asset} at {fill.venue}", fill)
        if fill.quote.is_finite() and fill.quote < 0:
            yield f"the fill of {fill.asset} at {fill.venue} exchanged {fill.quote}"
    for order in facts.orders:
        if order.worst_price is not None and not order.worst_price.is_finite():
            yield f"the bound of the order at {order.venue} is {order.worst_price}"
    yield from _record(policy, facts, now_s)
    asked = facts.touched is None or facts.counterparties is None
    if asked and not any(gap.what == TRACE for gap in facts.missing) and wants_trace(policy.every_limit):
        yield f"{TRACE} were not read: whom it touches is not known"
    sound = Sound(policy, facts)
    yield from doubts_about_portfolio("before", facts.before, policy, facts, sound)
    if facts.succeeded and not facts.calls.calls and (facts.fills or not same(facts.before, facts.after)):
        yield "the portfolio changes although nothing is called"
    if facts.succeeded:
        yield from doubts_about_portfolio("after", facts.after, policy, facts, sound)
        yield from _trades(facts)
        yield from _left_out(facts)
        yield from _unexplained(facts, views)


# -- prices and feeds ---------------------------------------------------------------------------------------------------------------


def _prices(policy: Policy, facts: Facts, now_s: int) -> Iterator[str]:
    needed = facts.before.assets() | facts.after.assets()
    needed |= {fill.asset for fill in facts.fills} | {order.asset for order in facts.orders}
    needed -= {UNIT_OF_ACCOUNT}
    yield from (f"there is no price of {asset}" for asset in sorted(needed - {price.asset for price in facts.prices}))
    for price in facts.prices:
        yield from _price(policy, price, now_s)
    for asset in sorted({price.asset for price in facts.prices}):
        sound = [p.value for p in facts.prices if p.asset == asset and p.value.is_finite() and p.value > 0]
        if len(sound) > 1 and ratio(max(sound) - min(sound), min(sound), up=True) > policy.max_price_deviation:
            yield f"the sources of {asset} contradict each other: {', '.join(f'{v:f}' for v in sound)}"


def _price(policy: Policy, price: Price, now_s: int) -> Iterator[str]:
    what, age = f"the price of {price.asset} from {price.source}", now_s - price.time_s
    longest = policy.max_price_age_s if price.asset != UNIT_OF_ACCOUNT else max(policy.max_price_age_s, PEG_AGE_S)
    if not price.value.is_finite() or price.value <= 0:
        yield f"{what} is {price.value}"
    elif age > longest:
        yield f"{what} is {age} s old, the policy takes {longest} s"
    elif -age > CLOCK_TOLERANCE_S:
        yield f"{what} is {-age} s ahead of the engine's clock"
    elif price.asset == UNIT_OF_ACCOUNT and abs(EXACT.subtract(price.value, Decimal(1))) > policy.max_depeg:
        yield (
            f"{price.asset} has lost its peg: {price.source} says {price.value:f}, the policy takes {policy.max_depeg:.2%} from 1. "
            f"Everything is counted in it"
        )


def _feeds(policy: Policy, facts: Facts) -> Iterator[str]:
    """A pinned feed must be read, and be what it was when it was pinned."""
    for pin in policy.feeds:
        address = resolve(pin.feed, policy, facts.book, facts.account)
        found = next((feed for feed in facts.feeds if feed.address == address), None)
        if address is None or found is None:
            yield f"the pinned feed {pin.feed} was not read"
            continue
        if found.decimals != pin.decimals:
            yield f"the feed {pin.feed} was replaced: it answers with {found.decimals} decimals, not {pin.decimals}"
        wanted = resolve(pin.aggregator, policy, facts.book, facts.account) if pin.aggregator else None
        if pin.aggregator and found.aggregator != wanted:
            yield f"the feed {pin.feed} was replaced: its aggregator is {checksum(found.aggregator)}, not {pin.aggregator}"
        if not any(price.asset == pin.asset and checksum(found.address) in price.source for price in facts.prices):
            yield f"the pinned feed {pin.feed} gave no price of {pin.asset}"


# -- the record ------------------------------------------------------------------------------------------------------------------------


def _record(policy: Policy, facts: Facts, now_s: int) -> Iterator[str]:
    for series in facts.returns:
        yield from _series(policy, series, now_s)
    if facts.history is not None:
        yield from _history(facts.history, facts.block_time_s)


def _series(policy: Policy, series: Returns, now_s: int) -> Iterator[str]:
    what, age = f"the returns of {series.asset} from {series.source}", now_s - series.until_s
    values = series_of(series.values)
    if not values.is_finite:
        yield f"{what} are not all finite"
    elif series.values and values.least < -1:
        yield f"{what} fall by more than 100 %"
    if series.period_s <= 0:
        yield f"{what} are over {series.period_s} s"
    if age > policy.max_returns_age_s:
        yield f"{what} end {age} s ago, the policy takes {policy.max_returns_age_s} s"
    elif -age > CLOCK_TOLERANCE_S:
        yield f"{what} end {-age} s ahead of the engine's clock"


def _history(history: History, block_time_s: int) -> Iterator[str]:
    for kind, entries in (("equity", history.equity), ("activity", history.activity)):
        times = [entry.time_s for entry in entries]
        if times != sorted(times):
            yield f"the record of {kind} is not in order"
        if times and times[-1] > block_time_s + CLOCK_TOLERANCE_S:
            yield f"the record of {kind} is {times[-1] - block_time_s} s ahead of the newest block"
        for entry in entries:
            if not is_sound(entry):
                yield from not_finite(f"record of {kind} at {entry.time_s}", entry)
    for done in history.activity:
        if min(done.gas_wei, done.sponsored_wei) < 0 or (done.traded.is_finite() and done.traded < 0):
            yield f"the record of activity at {done.time_s} is negative"


# -- before against after -----------------------------------------------------------------------------------------------------------


def _trades(facts: Facts) -> Iterator[str]:
    """Fills must explain the change of positions, and every order that can be read must be among the orders."""
    change: dict[tuple[str, str], Decimal] = {}
    with localcontext(EXACT):
        for sign, here, there in ((1, facts.after, facts.before), (-1, facts.before, facts.after)):
            held: list[Position | Option] = [
                *_moved(here.positions, there.positions),
                *_moved(here.options, there.options),
            ]
            for p in held:
                if p.size.is_finite():
                    change[p.venue, p.asset] = change.get((p.venue, p.asset), Decimal(0)) + sign * p.size
        for fill in facts.fills:
            if fill.size.is_finite() and fill.venue not in SPOT_VENUES:
                change[fill.venue, fill.asset] = change.get((fill.venue, fill.asset), Decimal(0)) - fill.size
    for (venue, asset), rest in sorted(change.items()):
        if abs(rest) > SIZE_TOLERANCE:
            yield f"the fills at {venue} do not explain the change of {asset}: {rest:f} is left"
    placed = sum(places_order(call) for call in facts.calls.calls)
    if placed > len(facts.orders):
        yield f"{placed} orders are placed, the bounds of {len(facts.orders)} are known"


_Held = TypeVar("_Held", Position, Option)


def _moved(here: tuple[_Held, ...], there: tuple[_Held, ...]) -> list[_Held]:
    """What is not the same object at the same place on the other side, where it adds and takes away the same."""
    return [p for p, other in zip_longest(here, there[: len(here)]) if p is not other]


def _left_out(facts: Facts) -> Iterator[str]:
    """What is always read, held or not, must be there both before and after: balances, allowances of the listed spenders."""
    before, after = facts.before, facts.after
    for what, earlier, later in (
        (
            "balance",
            [f"{h.venue}:{h.asset}" for h in before.holdings],
            [f"{h.venue}:{h.asset}" for h in after.holdings],
        ),
        (
            "allowance",
            [f"{a.asset} to {checksum(a.spender)}" for a in before.allowances],
            [f"{a.asset} to {checksum(a.spender)}" for a in after.allowances],
        ),
    ):
        for name in sorted({*earlier, *later}):
            if earlier.count(name) != later.count(name):
                when = "after" if earlier.count(name) > later.count(name) else "before"
                yield f"the {what} {name} {when} the operation is missing"
    for when, here, there in (("before", before, after), ("after", after, before)):
        accounts, elsewhere = ({m.venue for m in book.margins} for book in (here, there))
        for venue in sorted(({o.venue for o in here.options} & elsewhere) - accounts):
            yield f"the margin account at {venue} {when} the operation is missing"
        yield from _known_elsewhere(when, here, there)


def _known_elsewhere(when: str, here: Portfolio, there: Portfolio) -> Iterator[str]:
    """What a venue says of a thing it says both before and after the operation."""
    if _lacks(here.options, there.options):
        options = {option.label: option for option in there.options}
        for option in here.options:
            other = options.get(option.label)
            for name in ("implied_vol", "forward"):
                if other is not None and getattr(option, name) is None and getattr(other, name) is not None:
                    yield f"{name} of the option {option.label} {when} the operation is missing"
    rates = {(debt.venue, debt.asset): debt.annual_rate for debt in there.debts}
    for debt in here.debts:
        if debt.annual_rate is None and rates.get((debt.venue, debt.asset)) is not None:
            yield f"the borrow rate of {debt.asset} at {debt.venue} {when} the operation is missing"


def _lacks(here: tuple[Option, ...], there: tuple[Option, ...]) -> bool:
    """Whether some option lacks a figure here that some option has there: only then is it worth telling them apart."""
    return any(
        any(getattr(o, name) is None for o in here) and any(getattr(o, name) is not None for o in there)
        for name in ("implied_vol", "forward")
    )


def _unexplained(facts: Facts, views: tuple[View, View] | None) -> Iterator[str]:
    """A portfolio that becomes richer or poorer by most of what an operation moves was not read whole.

    Not asked of operations that pay in ways whose amount is not known here, or call what the engine cannot read.
    """
    for call in facts.calls.calls:
        paid = call.function == "transfer(address,uint256)" or not call.data
        if call.effect in (Effect.UNKNOWN, Effect.ADMIN) or (call.effect is Effect.PAYS and not paid):
            return
    try:
        yield from _change_of_equity(facts, views)
    except (NotKnown, ArithmeticError):
        return  # a price is missing, or an amount not finite: both are reported where they stand


def _change_of_equity(facts: Facts, views: tuple[View, View] | None) -> Iterator[str]:
    earlier, later = views or (view_of(facts, facts.before, is_after=False), view_of(facts, facts.after))
    was, now = _values(earlier), _values(later)
    paid_to_others = paid_out(later)
    with localcontext(EXACT):
        changes = {name: now.get(name, Decimal(0)) - was.get(name, Decimal(0)) for name in {*was, *now}}
        moved = sum((abs(change) for change in changes.values()), Decimal(0))
        moved += sum((fill.quote for fill in facts.fills if fill.venue not in SPOT_VENUES), Decimal(0))
        change = sum(changes.values(), Decimal(0))
        # a payment may have been refused without a revert: both are understood
        rest = change + paid_to_others if change < -paid_to_others else max(change, Decimal(0))
        beyond = abs(rest) > UNEXPLAINED_AMOUNT and abs(rest) > UNEXPLAINED_SHARE * moved
    if beyond:
        name = max(sorted(changes), key=lambda one: abs(changes[one]))
        yield f"equity changes by {rest:+.2f} USDC, which nothing explains; most of it in {name} ({changes[name]:+.2f})"


def _values(view: View) -> dict[str, Decimal]:
    found: dict[str, Decimal] = {}
    for name, value in value_rows(view, Scope()):
        known = found.get(name)
        found[name] = value if known is None else EXACT.add(known, value)
    return found
