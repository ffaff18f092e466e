"""A year of minutes under 20 limits with 50 positions: the columns of the back-test beside the engine asked row by row.

    python benchmarks/policy/backtest.py [--minutes 525600] [--sample 300]

Both run the same policy on the same bars in this process. The engine is asked about a sample of consecutive minutes and its time is scaled to
the whole year; before anything is timed, both must give the same findings on that sample. Medians of three runs.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from dataclasses import replace
from decimal import Decimal
from statistics import median
from typing import Any

import numpy as np

from policies import Policy, load
from policies.backtest import Book, Market, Result, Series, align, backtest, series
from policies.backtest.book import HeldAmount, HeldPosition, MarginTerms

POSITIONS = 50
LIMITS = """\
schema: 1
name: benchmark
version: "1"
limits:
  - {id: l01, metric: gross_notional, max: 2600000}
  - {id: l02, metric: net_notional, max: 900000, hysteresis: 5%}
  - {id: l03, metric: leverage, max: 2.6}
  - {id: l04, metric: leverage, scope: "asset: A00", max: 0.2}
  - {id: l05, metric: position_size, scope: "asset: A01", max: 100000}
  - {id: l06, metric: concentration, scope: "asset: A02", max: 8%}
  - {id: l07, metric: concentration, scope: "venue: perp", max: 100%}
  - {id: l08, metric: liquidation_distance, min: 25%}
  - {id: l09, metric: liquidation_distance, scope: "asset: A03", min: 50%}
  - {id: l10, metric: free_collateral, min: 700000}
  - {id: l11, metric: margin_ratio, min: 40%}
  - {id: l12, metric: margin_use, max: 16%}
  - {id: l13, metric: equity, min: 950000}
  - {id: l14, metric: value_at_risk, confidence: 99%, window: 120d, max: 68000}
  - {id: l15, metric: expected_shortfall, confidence: 97.5%, window: 180d, max: 66000}
  - {id: l16, metric: drawdown, max: 15%, action: warn}
  - {id: l17, metric: maintenance_margin, max: 160000}
stress:
  - {id: fall, shock: {A00: -25%, A01: -25%, A02: -25%, A03: -25%, A04: -25%}}
  - {id: rise, shock: {A00: 25%, A01: 25%, A02: 25%, A03: 25%, A04: 25%}}
  - {id: mixed, shock: {A06: -40%, A07: 40%, A08: -40%}}
"""


def bars(minutes: int) -> Market:
    """Geometric random walks of fifty assets, 80 % a year, with correlated moves; seeded."""
    rng = np.random.default_rng(2026)
    common = rng.normal(0, 1, (minutes, 1))
    moves = (0.6 * common + 0.8 * rng.normal(0, 1, (minutes, POSITIONS))) * 0.8 / np.sqrt(525_600)
    closes = np.round(100 * np.exp(np.cumsum(moves, axis=0)), 4)
    opens = np.concatenate([closes[:1], closes[:-1]])
    highs, lows = np.maximum(opens, closes) + 0.01, np.minimum(opens, closes) - 0.01
    times = 1_700_000_040 + 60 * np.arange(minutes)

    def one(i: int) -> Series:
        return series(times, opens[:, i], highs[:, i], lows[:, i], closes[:, i], str)

    return align({f"A{i:02}": one(i) for i in range(POSITIONS)})


def book() -> Book:
    """Fifty positions, long and short, about 2.5 times one million of collateral."""
    positions = tuple(
        HeldPosition("perp", f"A{i:02}", Decimal(500 * (1 if i % 3 else -1)), Decimal(100)) for i in range(POSITIONS)
    )
    return Book(
        holdings=(HeldAmount("account", "USDC", Decimal(50_000)),),
        margins=(MarginTerms("perp", Decimal(1_000_000)),),
        positions=positions,
    )


def timed(run: Callable[[], Result]) -> tuple[float, Result]:
    began = time.perf_counter()
    result = run()
    return time.perf_counter() - began, result


def same(policy: Policy, held: Book, market: Market) -> None:
    """Raise unless columns and engine find the same."""
    fast, slow = backtest(policy, held, market), backtest(policy, held, market, by_columns=False)
    for one, other in zip(fast.limits, slow.limits, strict=True):
        if replace(one, columnar=False) != replace(other, columnar=False):
            raise SystemExit(f"columns and engine differ on {one.id}")


def _of(market: Market, name: str, column: int) -> Any:
    table = getattr(market, name)
    return table if table.ndim == 1 else table[:, column]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--minutes", type=int, default=525_600)
    parser.add_argument("--sample", type=int, default=300)
    given = parser.parse_args()
    policy, held, market = load(LIMITS), book(), bars(given.minutes)
    start = given.minutes // 2
    names = ("times_s", "open", "high", "low", "close")
    cut = replace(market, **{name: getattr(market, name)[start : start + given.sample] for name in names})
    before = {asset: Series(*(_of(market, name, i)[:start] for name in names)) for i, asset in enumerate(market.assets)}
    cut = replace(cut, earlier=before)
    same(policy, held, cut)
    fast = [timed(lambda: backtest(policy, held, market)) for _ in range(3)]
    slow = [timed(lambda: backtest(policy, held, cut, by_columns=False))[0] for _ in range(3)]
    seconds, by_engine = median(t for t, _ in fast), median(slow) / given.sample * given.minutes
    result = fast[0][1]
    print(f"{market.rows:,} minutes x {len(policy.limits)} limits x {len(held.positions)} positions")
    print(f"columns            {seconds:10.1f} s   ({result.judged_by_engine:,} moments asked of the engine)")
    print(
        f"engine, row by row {by_engine:10.0f} s   ({median(slow) / given.sample * 1000:.2f} ms a minute, from {given.sample} of them)"
    )
    print(f"ratio              {by_engine / seconds:10.0f}")


if __name__ == "__main__":
    main()
