"""The arithmetic of one decision: 100 option positions with Greeks, a 31-scenario margin and expected shortfall over 1,000 scenarios.

    python benchmarks/risk/decision_math.py [--rounds N]

Everything is done from the facts as they come (Decimals, unix times): the book, Greeks of every option to third order, the worst of 31
scenarios of spot and volatility with what each position adds, and ES 97.5 % over a replay of 1,000 days of two assets with what each
position adds, rounded adversely to cents. Nothing is kept from one round to the next except imported modules and the history's columns,
which do not change from one operation to the next; the line `history` says what they cost. Median, and the slowest of twenty.
The bound of the project: 3 ms.
"""

from __future__ import annotations

import argparse
import random
import statistics
import time
from collections.abc import Callable
from decimal import Decimal
from typing import Any

from policies.portfolio import Option, Portfolio, Returns
from policies.risk import black
from policies.risk._kernel import YEAR_S
from policies.risk.scenarios import Backend, revalue
from policies.risk.scenarios_book import Book, book_of
from policies.risk.scenarios_sets import Listed, Replay, Scenario, Shock
from policies.risk.tail import tail_of

NOW_S = 1_770_000_000
CENT = Decimal("0.01")
PRICES = {"ETH": Decimal("2681.60"), "BTC": Decimal("78626.29")}
# The 31 scenarios of Derive's portfolio margin: nine spot moves x three volatilities, and four wide moves with volatility up.
SPOTS = ("-0.18", "-0.135", "-0.09", "-0.045", "0", "0.045", "0.09", "0.135", "0.18")
WIDE = ("-0.66", "-0.33", "0.5", "1")
VOLS = ("-0.25", "0", "0.45")


def portfolio() -> Portfolio:
    rng = random.Random(1)  # noqa: S311
    options = []
    for _ in range(100):
        asset = rng.choice(("ETH", "BTC"))
        spot = float(PRICES[asset])
        strike = Decimal(round(spot * rng.uniform(0.6, 1.6), -1 if asset == "ETH" else -3)).quantize(Decimal(1))
        days = rng.choice((1, 7, 14, 30, 60, 90, 180, 330))
        size = Decimal(repr(round(rng.gauss(0, 5), 2)))
        forward = Decimal(repr(round(spot * (1 + 0.05 * days / 365), 2)))
        vol = Decimal(repr(round(rng.uniform(0.4, 1.0), 4)))
        options.append(
            Option(
                "lyra",
                asset,
                rng.random() < 0.5,
                strike,
                NOW_S + days * 86_400,
                size,
                Decimal(0),
                Decimal(1),
                vol,
                forward,
            )
        )
    return Portfolio(options=tuple(options))


def history() -> tuple[Returns, ...]:
    rng = random.Random(2)  # noqa: S311
    values: dict[str, list[Decimal]] = {"ETH": [], "BTC": []}
    for _ in range(1000):
        common = rng.gauss(0, 0.03)
        values["ETH"].append(Decimal(repr(round(max(common * 1.2 + rng.gauss(0, 0.02), -0.9), 12))))
        values["BTC"].append(Decimal(repr(round(max(common + rng.gauss(0, 0.01), -0.9), 12))))
    return tuple(Returns(asset, 86_400, NOW_S, "drawn", tuple(series)) for asset, series in values.items())


def margin_scenarios() -> Listed:
    pairs = [(spot, vol) for spot in SPOTS for vol in VOLS] + [(spot, "0.45") for spot in WIDE]
    return Listed(
        [
            Scenario(f"{spot} {vol}", otherwise=Shock(spot=Decimal(spot), vol_relative=Decimal(vol)))
            for spot, vol in pairs
        ]
    )


def greeks(book: Book) -> list[black.Greeks]:
    return [
        black.greeks(
            float(book.spot(option.asset)),
            float(option.strike),
            option.life_s / YEAR_S,
            float(option.vol),
            is_call=option.is_call,
            rate=float(option.rate),
            carry=float(option.carry),
        )
        for option in book.options
    ]


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--rounds", type=int, default=200)
    rounds = parser.parse_args().rounds
    held, past, thirty_one = portfolio(), history(), margin_scenarios()
    assert len(thirty_one) == 31
    replay = Replay.of(past)
    book = book_of(held, PRICES, NOW_S)

    def decide(backend: Backend) -> Any:
        own = book_of(held, PRICES, NOW_S)
        return (
            greeks(own),
            revalue(own, thirty_one, backend=backend).worst(CENT),
            tail_of(revalue(own, replay, backend=backend), "0.975", CENT),
        )

    parts: dict[str, Callable[[], Any]] = {"history (once)": lambda: Replay.of(past)}
    parts["book from the facts"] = lambda: book_of(held, PRICES, NOW_S)
    parts["Greeks"] = lambda: greeks(book)
    for backend in ("numpy", "numba"):
        name: Backend = backend  # type: ignore[assignment]
        parts[f"31 scenarios, {name}"] = lambda name=name: revalue(book, thirty_one, backend=name).worst(CENT)  # type: ignore[misc]
        parts[f"ES of 1,000, {name}"] = lambda name=name: tail_of(revalue(book, replay, backend=name), "0.975", CENT)  # type: ignore[misc]
        parts[f"whole, {name}"] = lambda name=name: decide(name)  # type: ignore[misc]

    (_, worst, tail), fast = decide("numpy"), decide("numba")
    assert (worst, tail) == fast[1:], "the backends disagree"
    print(
        f"worst of 31: {worst.pnl} in {worst.scenario.name}; ES 97.5 %: {tail.es} over {tail.observations} scenarios\n"
    )
    times: dict[str, list[float]] = {name: [] for name in parts}
    for _ in range(rounds):
        for name, run in parts.items():
            start = time.perf_counter()
            run()
            times[name].append(1000 * (time.perf_counter() - start))
    print(f"{'ms, ' + str(rounds) + ' rounds in turn':<24} {'median':>8} {'19 of 20':>9}")
    for name, found in times.items():
        print(f"{name:<24} {statistics.median(found):>8.2f} {sorted(found)[int(len(found) * 0.95)]:>9.2f}")


if __name__ == "__main__":
    main()
