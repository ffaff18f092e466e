"""A second policy engine, in the plainest way: fractions instead of decimals, loops instead of tables, one function a metric.

It takes limits as plain dictionaries and shares nothing with the engine but the data model of facts. What a figure means is written here
from the printed definition of the metric and from docs/policy.md.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from decimal import Decimal, localcontext
from fractions import Fraction
from itertools import pairwise
from typing import Any

from policies.portfolio import Facts, Portfolio

F = Fraction
Value = Fraction | None
DAYS = ("thu", "fri", "sat", "sun", "mon", "tue", "wed")
"""From 1970-01-01, a Thursday."""


def price(facts: Facts, asset: str) -> Fraction:
    return F(1) if asset == "USDC" else F(next(p.value for p in facts.prices if p.asset == asset))


def root(x: Fraction) -> Fraction:
    with localcontext() as context:
        context.prec = 90
        return F((Decimal(x.numerator) / Decimal(x.denominator)).sqrt())


def pool_amounts(facts: Facts, pool: Any) -> list[tuple[str, Fraction]]:
    p = price(facts, pool.asset0) / price(facts, pool.asset1)
    low, high = F(pool.lower_price), F(pool.upper_price)
    p = min(max(p, low), high)
    first = F(pool.liquidity) * (1 / root(p) - 1 / root(high)) + F(pool.owed0)
    second = F(pool.liquidity) * (root(p) - root(low)) + F(pool.owed1)
    return [(pool.asset0, first), (pool.asset1, second)]


def exposures(facts: Facts, book: Portfolio) -> list[tuple[str, str, Fraction]]:
    """(asset, venue, signed notional) of everything that carries notional."""
    found = [(p.asset, p.venue, F(p.size) * F(p.mark_price)) for p in book.positions]
    for o in book.options:
        side = 1 if o.is_call else -1
        found.append((o.asset, o.venue, side * F(o.size) * price(facts, o.asset)))
    for pool in book.liquidity:
        for asset, amount in pool_amounts(facts, pool):
            if asset != "USDC":
                found.append((asset, pool.venue, amount * price(facts, asset)))
    lenders = [loan.venue for loan in book.loans]
    for sign, held in ((1, book.collateral), (-1, book.debts)):
        for one in held:
            if one.venue in lenders and one.asset != "USDC":
                worth = sign * F(one.amount) * price(facts, one.asset)
                found.append((one.asset, one.venue, worth))
    return found


def inside(scope: str, asset: str, venue: str) -> bool:
    kind, _, name = scope.partition(": ")
    return {"asset": name == asset, "venue": name == venue}.get(kind, True)


def gross(facts: Facts, book: Portfolio, scope: str, _: bool) -> Value:
    return sum((abs(x) for a, v, x in exposures(facts, book) if inside(scope, a, v)), F(0))


def net(facts: Facts, book: Portfolio, scope: str, _: bool) -> Value:
    return abs(sum((x for a, v, x in exposures(facts, book) if inside(scope, a, v)), F(0)))


def size(facts: Facts, book: Portfolio, scope: str, _: bool) -> Value:  # noqa: ARG001
    return sum((abs(F(p.size)) for p in (*book.positions, *book.options) if inside(scope, p.asset, p.venue)), F(0))


def concentration(facts: Facts, book: Portfolio, scope: str, after: bool) -> Value:
    whole = gross(facts, book, "portfolio", after)
    part = gross(facts, book, scope, after)
    return part / whole if whole and part is not None else F(0)


def equity(facts: Facts, book: Portfolio, _: str = "", __: bool = True) -> Fraction:
    worth = F(0)
    for h in book.holdings:
        worth += F(h.amount) * price(facts, h.asset)
    for c in book.collateral:
        worth += F(c.amount) * price(facts, c.asset)
    for d in book.debts:
        worth -= F(d.amount) * price(facts, d.asset)
    for m in book.margins:
        worth += F(m.account_value)
    for o in book.options:
        if o.venue not in [m.venue for m in book.margins]:
            worth += F(o.size) * F(o.mark_price)
    for pool in book.liquidity:
        for asset, amount in pool_amounts(facts, pool):
            worth += amount * price(facts, asset)
    return worth


def leverage(facts: Facts, book: Portfolio, scope: str, after: bool) -> Value:
    own, whole = equity(facts, book), gross(facts, book, scope, after)
    if not whole:
        return F(0)
    return whole / own if own > 0 else None


def distance(facts: Facts, book: Portfolio, _: str, __: bool) -> Value:
    nearest = F(1)
    for m in book.margins:
        legs = [(p.asset, F(p.size), F(p.mark_price)) for p in book.positions if p.venue == m.venue and p.size]
        rate = F(m.maintenance_ratio)
        slack = F(m.account_value) - rate * sum((abs(s) * p for _, s, p in legs), F(0))
        if slack < 0 and legs:
            return F(0)
        for moved in [{a} for a, _, _ in legs] + [{a for a, _, _ in legs}]:
            slope = sum(((s - rate * abs(s)) * p for a, s, p in legs if a in moved), F(0))
            if slope and -slack / slope > -1:
                nearest = min(nearest, abs(slack / slope))
    for loan in book.loans:
        if not loan.debt_value:
            continue
        backing = [(c.asset, F(c.amount) * F(c.price) * F(c.liquidation_threshold)) for c in book.collateral]
        owed = [(d.asset, F(d.amount) * price(facts, d.asset)) for d in book.debts]
        slack = sum((x for _, x in backing), F(0)) - F(loan.debt_value)
        if slack < 0:
            return F(0)
        assets = {a for a, x in backing + owed if x and a != "USDC"}
        for moved in [{a} for a in assets] + [assets]:
            slope = sum((x for a, x in backing if a in moved), F(0)) - sum((x for a, x in owed if a in moved), F(0))
            if slope and -slack / slope > -1:
                nearest = min(nearest, abs(slack / slope))
    return nearest


def margin_use(facts: Facts, book: Portfolio, _: str, __: bool) -> Value:  # noqa: ARG001
    used = F(0)
    for m in book.margins:
        if m.maintenance_requirement:
            if m.account_value <= 0:
                return None
            used = max(used, F(m.maintenance_requirement) / F(m.account_value))
    return used


def free(facts: Facts, book: Portfolio, _: str, __: bool) -> Value:  # noqa: ARG001
    return sum((F(m.free_collateral) for m in book.margins), F(0))


def unrealised(facts: Facts, book: Portfolio, scope: str, _: bool) -> Value:  # noqa: ARG001
    found = F(0)
    for p in book.positions:
        if inside(scope, p.asset, p.venue):
            found += F(p.size) * F(p.mark_price) - F(p.entry_notional) - F(p.pending_funding)
    for o in book.options:
        if inside(scope, o.asset, o.venue):
            found += F(o.size) * F(o.mark_price) - F(o.entry_notional)
    return found


def health(facts: Facts, book: Portfolio, _: str, __: bool) -> Value:  # noqa: ARG001
    return min([F(1_000), *(F(loan.health_factor) for loan in book.loans if loan.health_factor is not None)])


def debt(facts: Facts, book: Portfolio, scope: str, _: bool) -> Value:
    return sum((F(d.amount) * price(facts, d.asset) for d in book.debts if inside(scope, d.asset, d.venue)), F(0))


def allowance(facts: Facts, book: Portfolio, scope: str, _: bool) -> Value:
    return sum((F(a.amount) * price(facts, a.asset) for a in book.allowances if inside(scope, a.asset, "")), F(0))


def delta(facts: Facts, book: Portfolio, scope: str, _: bool) -> Value:
    asset = scope.removeprefix("asset: ")
    found = sum((F(p.size) for p in book.positions if p.asset == asset), F(0))
    found += sum((F(h.amount) for h in (*book.holdings, *book.collateral) if h.asset == asset), F(0))
    found -= sum((F(d.amount) for d in book.debts if d.asset == asset), F(0))
    for pool in book.liquidity:
        found += sum((amount for name, amount in pool_amounts(facts, pool) if name == asset), F(0))
    for o in (o for o in book.options if o.asset == asset):
        spread = float(o.implied_vol or 0) * math.sqrt((o.expiry_s - facts.block_time_s) / 31_536_000)
        d1 = math.log(float(price(facts, asset)) / float(o.strike)) / spread + spread / 2
        chance = 0.5 * (1 + math.erf(d1 / math.sqrt(2)))
        found += F(o.size) * F(chance if o.is_call else chance - 1)
        found += (100 + F(o.size)) / 10**30  # a double is never exactly at a bound, nor a change of it
    return abs(found)


DAY = 86_400


def turnover(facts: Facts, book: Portfolio, _: str, after: bool) -> Value:  # noqa: ARG001
    assert facts.history is not None
    recent = [a for a in facts.history.activity if a.time_s > facts.block_time_s - DAY]
    return sum((F(a.traded) for a in recent), F(0)) + (sum(F(f.quote) for f in facts.fills) if after else 0)


def order_rate(facts: Facts, book: Portfolio, _: str, after: bool) -> Value:  # noqa: ARG001
    assert facts.history is not None
    return F(len([a for a in facts.history.activity if a.time_s > facts.block_time_s - DAY]) + after)


def loss(facts: Facts, book: Portfolio, _: str, __: bool) -> Value:
    assert facts.history is not None
    points = facts.history.equity
    earlier = [p for p in points if p.time_s <= facts.block_time_s - DAY]
    first, last = (earlier[-1] if earlier else points[0]), points[-1]
    return max(F(0), -(equity(facts, book) - F(first.equity) - (F(last.paid_in) - F(first.paid_in))))


def drawdown(facts: Facts, book: Portfolio, _: str, __: bool) -> Value:
    assert facts.history is not None
    points = facts.history.equity
    unit, highest = F(1), F(1)
    for one, two in pairwise(points):
        unit *= (F(two.equity) - (F(two.paid_in) - F(one.paid_in))) / F(one.equity)
        highest = max(highest, unit)
    unit *= equity(facts, book) / F(points[-1].equity)
    return max(F(0), 1 - unit / highest)


def order_notional(facts: Facts, book: Portfolio, _: str, __: bool) -> Value:  # noqa: ARG001
    return sum((F(f.quote) for f in facts.fills), F(0))


Metric = Callable[[Facts, Portfolio, str, bool], Value]
METRICS: dict[str, tuple[str, str, Metric, str]] = {
    "gross_notional": ("max", "", gross, "portfolio"),
    "net_notional": ("max", "", net, "portfolio"),
    "position_size": ("max", "", size, "asset: ETH"),
    "concentration": ("max", "%", concentration, "asset: ETH"),
    "equity": ("min", "", equity, "portfolio"),
    "leverage": ("max", "", leverage, "portfolio"),
    "liquidation_distance": ("min", "%", distance, "portfolio"),
    "margin_use": ("max", "%", margin_use, "portfolio"),
    "free_collateral": ("min", "", free, "portfolio"),
    "unrealised_pnl": ("min", "", unrealised, "portfolio"),
    "health_factor": ("min", "", health, "portfolio"),
    "debt": ("max", "", debt, "portfolio"),
    "allowance": ("max", "", allowance, "portfolio"),
    "delta": ("max", "", delta, "asset: ETH"),
    "turnover": ("max", "", turnover, "portfolio"),
    "order_rate": ("max", "", order_rate, "portfolio"),
    "loss": ("max", "", loss, "portfolio"),
    "drawdown": ("max", "%", drawdown, "portfolio"),
    "order_notional": ("max", "", order_notional, "operation"),
}
"""Side of the bound, unit, function, scope."""


def beyond(side: str, value: Fraction, bound: Fraction) -> bool:
    return value > bound if side == "max" else value < bound


def binds_now(limit: dict[str, Any], now_s: int) -> bool:
    if "during" not in limit:
        return True
    days, hours = limit["during"].get("days", DAYS), limit["during"].get("hours", "00:00-24:00")
    start, end = (int(part[:2]) * 60 + int(part[3:]) for part in hours.split("-"))
    minute, today, yesterday = now_s % 86_400 // 60, DAYS[now_s // 86_400 % 7], DAYS[(now_s // 86_400 - 1) % 7]
    if start < end:
        return today in days and start <= minute < end
    return (today in days and minute >= start) or (yesterday in days and minute < end)


def judge(
    limit: dict[str, Any], facts: Facts, now_s: int, *, latched: bool
) -> tuple[str, str, list[tuple[Value, Fraction]]]:
    """Verdict, quorum, and the comparisons it rests on."""
    side, unit, metric, scope = METRICS[limit["metric"]]
    scope = limit.get("scope", scope)
    percent = F(1, 100) if unit == "%" else F(1)
    of_change = "change" in limit
    bound = F(limit["change" if of_change else "bound"]) * percent
    if latched and not of_change:
        slack = abs(bound) * F(limit.get("hysteresis", 0)) / 100
        bound = bound - slack if side == "max" else bound + slack
    was = None if scope == "operation" else metric(facts, facts.before, scope, False)
    now = metric(facts, facts.after, scope, True)
    level = F(0)
    if of_change:
        level = was or F(0)
        now = None if now is None or was is None else now - was
        was = None

    def beside(value: Value, other: Fraction) -> tuple[Value, Fraction]:
        """What is compared, as levels: how near they are counts by how large the levels are."""
        return None if value is None else value + level, other + level

    compared: list[tuple[Value, Fraction]] = [beside(now, bound)]
    if not binds_now(limit, now_s):
        return "pass", "", compared
    if now is None:
        return "deny", "", compared
    if not beyond(side, now, bound):
        share = F(limit.get("warn_at", 80)) / 100
        near = bound > 0 and now >= 0 and (now >= bound * share if side == "max" else now * share <= bound)
        if of_change and side == "min":
            near = bound < 0 and now <= 0 and now <= bound * share
        compared.append(beside(now, bound * share if side == "max" or of_change else bound / share))
        return ("warn" if near else "pass"), "", compared
    if was is not None:
        compared += [(was, bound), (now, was)]
        if beyond(side, was, bound) and not beyond(side, now, was):
            return "warn", "", compared
    asks, quorum = limit["action"], limit.get("approval", "")
    for step in limit.get("escalate", ()):
        compared.append(beside(now, F(step["beyond"]) * percent))
        if beyond(side, now, F(step["beyond"]) * percent):
            asks, quorum = (
                step.get("action", "require_signers" if "approval" in step else "deny"),
                step.get("approval", ""),
            )
    return asks, quorum if asks == "require_signers" else "", compared
