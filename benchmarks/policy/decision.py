"""A whole decision without I/O, over a book of 100 positions: how long, and what of it.

    python benchmarks/policy/decision.py [--numpy] [RUNS]

Two books of 60 options of six expiries and 40 perps, before and after the operation; medians.

- `portfolio margin`: the options lie in two accounts under Derive's PMRM v2 (31 scenarios and its contingencies, an ETH and a BTC
  account), the perps at other venues. 24 limits: Greeks by underlying, initial margin and its use, ES and VaR over 1,000 past days, exposures.
  The operation changes an option, so its account's margin is worked out for both sides.
- `wide`: the perps at twenty venues; 55 limits: 31 stress scenarios of the whole book, seven Greeks by underlying, liquidation distance,
  ES and VaR. The operation changes a perp.

What is inside a decision: the canonical form and hash of the facts, the doubts about both portfolios, every limit with its parts. Not inside:
reading the facts, importing and compiling (`warm_up`, as a service does when it starts; `--numpy` leaves the compiled backend out), and what
was worked out of the history of returns before: every run has facts and portfolios of its own, but returns with the same figures, as from
one operation to the next. The first run knows nothing and is shown apart. Both portfolios are made apart, so their entries are equal and not
identical.
"""

from __future__ import annotations

import statistics
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from decimal import Decimal
from typing import Any

from policies import METRICS, Facts, Policy, evaluate
from policies.canonical import facts_hash
from policies.doubts import doubts_about
from policies.limits import Limit, Parameters, Scenario, Scope
from policies.portfolio import Fill, Margin, Option, Order, Portfolio, Position, Price, Returns
from policies.risk.scenarios import warm_up
from tests.policies.rig import NOW_S, opening, policy_of

SPOTS = {"ETH": Decimal(2_000), "BTC": Decimal(40_000)}
DAY_S = 86_400


def book(tilt: Decimal) -> Portfolio:
    """100 positions; `tilt` moves the first one."""
    options = []
    for n in range(60):
        asset = "ETH" if n % 2 else "BTC"
        strike = SPOTS[asset] * (80 + 2 * (n % 20)) / 100
        size = Decimal(1 + n % 7) * (-1 if n % 3 else 1)
        days = (7, 14, 30, 60, 90, 180)[n % 6]
        mark = SPOTS[asset] / 20
        options.append(
            Option("lyra", asset, n % 4 < 2, strike, NOW_S + days * DAY_S, size, size * mark, mark, Decimal("0.65"))
        )
    positions, margins = [], []
    for venue in range(20):
        own = []
        for n in range(2):
            asset = "ETH" if n % 2 else "BTC"
            size = Decimal(venue + n + 1) / 10 + (tilt if not venue and not n else 0)
            own.append(Position(f"perp{venue}", asset, size, size * SPOTS[asset], SPOTS[asset]))
        gross = sum((abs(p.notional) for p in own), Decimal(0))
        value = sum((Decimal(venue + n + 1) / 10 * SPOTS["ETH" if n % 2 else "BTC"] for n in range(2)), Decimal(0))
        margins.append(
            Margin(f"perp{venue}", value, value, gross / 16, value - gross / 10, Decimal("0.0625"), Decimal("0.1"))
        )
        positions += own
    return Portfolio(positions=tuple(positions), margins=tuple(margins), options=tuple(options))


def margined(tilt: Decimal) -> Portfolio:
    """100 positions; `tilt` changes the size of the first option. Options on one underlying share an account under PMRM v2."""
    spread = book(Decimal(0))
    options = [replace(o, venue=f"derive_{o.asset}", forward=SPOTS[o.asset]) for o in spread.options]
    options[0] = replace(options[0], size=options[0].size + tilt)
    accounts = []
    for asset in SPOTS:
        cash, none = 500 * SPOTS[asset], Decimal(0)
        value = sum((o.notional for o in options if o.asset == asset), cash)
        accounts.append(Margin(f"derive_{asset}", cash, value, none, value / 2, none, none, "derive_pmrm2"))
    return replace(spread, options=tuple(options), margins=(*spread.margins, *accounts))


class Limits(list[Limit]):
    """Limits that nothing breaches."""

    def add(self, name: str, scope: str = "portfolio", **asked: Any) -> None:
        metric = METRICS[name]
        is_max = metric.worse == "higher"
        bound = Decimal(10**9 if is_max else -(10**9))
        self.append(
            Limit(f"{name}-{len(self)}", name, Scope.parse(scope), is_max, bound, parameters=Parameters(**asked))
        )


def portfolio_margin_rules() -> Limits:
    found = Limits()
    for name in ("gross_notional", "net_notional", "leverage", "equity", "margin_use", "free_collateral"):
        found.add(name)
    for asset in SPOTS:
        for name in ("delta", "gamma", "vega", "theta", "vanna", "volga", "concentration"):
            found.add(name, f"asset: {asset}")
    for name in ("initial_margin", "initial_margin_use", "expected_shortfall", "value_at_risk"):
        found.add(name)
    return found


def wide_rules() -> Limits:
    found = Limits()
    for name in ("gross_notional", "net_notional", "leverage", "equity", "margin_use", "liquidation_distance"):
        found.add(name)
    for asset in SPOTS:
        for name in ("delta", "gamma", "vega", "theta", "rho", "vanna", "volga"):
            found.add(name, f"asset: {asset}")
        found.add("concentration", f"asset: {asset}")
    for n in range(31):
        move, vol = Decimal(n - 15) / 50, Decimal(n % 3 - 1) / 4
        shocks = tuple((asset, move) for asset in SPOTS)
        found.add("stress_loss", scenario=Scenario(f"s{n}", shocks, tuple((asset, vol) for asset in SPOTS)))
    found.add("expected_shortfall")
    found.add("value_at_risk")
    return found


def facts_for(policy: Policy, n: int, make: Callable[[Decimal], Portfolio]) -> Facts:
    base = opening(policy)
    names = {p.asset for p in book(Decimal(0)).positions}
    prices = tuple(Price(name, SPOTS[name[:3]], NOW_S - 5, "feed") for name in sorted(names))
    past = tuple(
        Returns(asset, DAY_S, NOW_S - 60, "bench", tuple(Decimal((i * 7919) % 200 - 100) / 2_000 for i in range(1_000)))
        for asset in SPOTS
    )
    before, after = make(Decimal(n) / 1_000), make(Decimal(n + 500) / 1_000)
    venue = "perp0" if before.options == after.options else after.options[0].venue
    bought = Fill(venue, "BTC", Decimal("0.5"), Decimal(20_000), Decimal(0))
    order = Order(venue, "BTC", True, Decimal(40_100))
    return replace(base, before=before, after=after, prices=prices, fills=(bought,), orders=(order,), returns=past)


def median_ms(work: Callable[[Facts], object], cases: list[Facts]) -> float:
    times = []
    for case in cases:
        start = time.perf_counter()
        work(case)
        times.append(time.perf_counter() - start)
    return statistics.median(times) * 1_000


def measure(name: str, limits: Limits, make: Callable[[Decimal], Portfolio], runs: int) -> None:
    print(f"{name}: {len(limits)} limits")
    policy = replace(
        policy_of("calls: [{target: perp.clearing_house, functions: [openPosition]}]\n"), limits=tuple(limits)
    )
    cases = [facts_for(policy, n, make) for n in range(runs + 1)]
    start = time.perf_counter()
    first = evaluate(policy, cases[0], NOW_S)
    print(f"  first decision: {(time.perf_counter() - start) * 1_000:.1f} ms; {first.summary}")
    blind = [f"{row.id}: {row.reason}" for row in first.limits if row.after is None]
    print(f"  not evaluable: {blind or 'none'}; models: {', '.join(f'{m.name} ({m.backend})' for m in first.models)}")
    print(f"  whole decision, median of {runs}: {median_ms(lambda f: evaluate(policy, f, NOW_S), cases[1:]):.2f} ms")
    print(f"    hash of the facts: {median_ms(facts_hash, cases[1:]):.2f} ms")
    print(f"    doubts about the facts: {median_ms(lambda f: doubts_about(policy, f, NOW_S), cases[1:]):.2f} ms")
    bare = replace(policy, limits=())
    print(f"    without any limit: {median_ms(lambda f: evaluate(bare, f, NOW_S), cases[1:]):.2f} ms")


def main() -> None:
    numbers = [argument for argument in sys.argv[1:] if argument != "--numpy"]
    runs = int(numbers[0]) if numbers else 50
    print(f"backend: {'numpy' if '--numpy' in sys.argv else warm_up()}")
    measure("portfolio margin", portfolio_margin_rules(), margined, runs)
    measure("wide", wide_rules(), book, runs)


if __name__ == "__main__":
    main()
