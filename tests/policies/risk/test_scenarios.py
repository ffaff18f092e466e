"""The scenario engine: what a book loses, checked by hand, by decimal arithmetic and by comparing backends."""

from __future__ import annotations

import math
import random
import tracemalloc
from decimal import Decimal
from typing import Any

import numpy as np
import pytest

from contracts.errors import BadInput
from policies.portfolio import Collateral, Debt, Holding, Liquidity, Margin, Option, Portfolio, Position, Returns
from policies.risk import scenarios as engine
from policies.risk._kernel import YEAR_S
from policies.risk.scenarios import by_position, revalue, unit_for
from policies.risk.scenarios_book import Book, EuropeanOption, Inverse, Linear, Range, Terms, book_of
from policies.risk.scenarios_exact import ExactBook, floor_units, quantise_adversely
from policies.risk.scenarios_sets import Grid, Listed, Replay, Scenario, Shock

D = Decimal
CENT = D("0.01")
BACKENDS: Any = pytest.mark.parametrize("backend", ["numpy", "numba"])
ETH = {"ETH": D(3000)}


def eth(spot: str = "0", **shock: str) -> Scenario:
    return Scenario(f"ETH {spot}", {"ETH": Shock(D(spot), **{name: D(x) for name, x in shock.items()})})


def call(
    strike: str = "3000", size: str = "1", days: int = 30, vol: str = "0.8", *, is_call: bool = True
) -> EuropeanOption:
    return EuropeanOption(
        f"{strike}{'C' if is_call else 'P'}", "ETH", is_call, D(strike), days * 86_400, D(size), D(vol)
    )


def a_book(options: int, seed: int = 1) -> Book:
    """Everything the engine knows, on two underlyings."""
    rng = random.Random(seed)

    def figure(x: float, places: int = 6) -> Decimal:
        return D(repr(round(x, places)))

    spots = {"ETH": 3000.12, "BTC": 60_000.5}
    held = []
    for i in range(options):
        asset = rng.choice(["ETH", "BTC"])
        strike = figure(spots[asset] * math.exp(rng.gauss(0, 0.3)), 2)
        held.append(
            EuropeanOption(
                f"option {i}",
                asset,
                rng.random() < 0.5,
                strike,
                rng.randint(60, YEAR_S),
                figure(rng.gauss(0, 3)),
                figure(rng.uniform(0.2, 1.5), 4),
                D("0.03"),
                figure(rng.uniform(-0.1, 0.1), 4),
            )
        )
    return Book(
        {asset: figure(price) for asset, price in spots.items()},
        linears=(
            Linear("perp", "ETH", D("-7.25"), D("3001.1"), on_forward=True),
            Linear("coin", "BTC", D("0.4"), D("60000.5")),
        ),
        inverses=(Inverse("inverse", "BTC", D(10_000), D(58_000), D(60_100)),),
        options=tuple(held),
        ranges=(Range("pool", "ETH", "USDC", D(2500), D(3500), D(1000), D("0.1"), D(3)),),
        cash=D(1000),
    )


A_GRID = Grid(
    spot=[i / 100 for i in range(-50, 51, 10)],
    vol=((-0.3, 0), (0, 0), (0.5, 0.1)),
    time_s=(0, 86_400),
    rate=(0, 0.01),
    basis=(0, -0.02),
)


# -- by hand -----------------------------------------------------------------------------------------------------------------------------


def test_a_linear_position_loses_its_size_times_the_fall() -> None:
    book = Book(
        ETH, linears=(Linear("perp", "ETH", D(2), D(3000), on_forward=True), Linear("coin", "ETH", D(-1), D(3000)))
    )
    found = revalue(book, Listed((eth("-0.16"), eth("-0.16", basis="-0.01"), eth("0.1"))))
    # 2 x 3000 x -0.16 + 3000 x 0.16;  2 x 3000 x (0.84 x 0.99 - 1) + 480;  600 - 300
    assert [int(x) for x in found.floored(CENT)] == [-48_000, -53_040, 30_000]


def test_an_inverse_future_is_worth_its_coin_profit_at_the_shocked_spot() -> None:
    book = Book({"BTC": D(50_000)}, inverses=(Inverse("XBTUSD", "BTC", D(100_000), D(40_000), D(50_000)),))
    found = revalue(book, Listed((Scenario("down", {"BTC": Shock(D("-0.5"))}), Scenario("up", {"BTC": Shock(D("1"))}))))
    # coins: 100000 (1/40000 - 1/50000) = 0.5 -> 25,000; at 25,000: 100000 (1/40000 - 1/25000) = -1.5 -> -37,500; at 100,000: 1.5 -> 150,000
    assert list(found.floored(CENT)) == [-6_250_000, 12_500_000]


def test_a_spot_of_zero_takes_all_of_a_long_and_gives_a_put_its_strike() -> None:
    book = Book(
        ETH,
        linears=(Linear("coin", "ETH", D(1), D(3000)),),
        options=(call("3000", "1", 30, is_call=False),),
        inverses=(Inverse("inverse", "ETH", D(3000), D(3000), D(3000)),),
        ranges=(Range("pool", "ETH", "USDC", D(2000), D(4000), D(100)),),
    )
    pnl = by_position(book, Listed((eth("-1"),)))[0][:, 0]
    put_now = by_position(Book(ETH, options=book.options), Listed((eth("0", vol_relative="-1"),)))[0][0, 0]
    assert pnl[0] == -3000
    assert pnl[1] == pytest.approx(
        -3000
    )  # 3000 (0 / 3000 - 1) of coins that are worth nothing, as spot' / price' stays 1
    assert pnl[2] == pytest.approx(
        3000 + put_now
    )  # without volatility the put at the money is worth nothing: put_now = -its value
    assert pnl[3] == pytest.approx(
        -100 * (3000 * (1 / math.sqrt(3000) - 1 / math.sqrt(4000)) + math.sqrt(3000) - math.sqrt(2000))
    )


def test_liquidity_below_its_range_is_all_coin_and_above_it_all_cash() -> None:
    pool = Range("pool", "ETH", "USDC", D(2500), D(3600), D(100), D(1), D(50))
    pnl = by_position(Book(ETH, ranges=(pool,)), Listed((eth("-0.5"), eth("1"))))[0][0]

    def value(price: float) -> float:
        root = math.sqrt(min(max(price, 2500), 3600))
        return (100 * (1 / root - 1 / 60) + 1) * price + 100 * (root - 50) + 50

    assert pnl == pytest.approx([value(1500) - value(3000), value(6000) - value(3000)])
    assert value(6000) - 6000 == pytest.approx(100 * (60 - 50) + 50)


def test_an_option_that_expires_inside_a_scenario_is_settled_at_the_shocked_spot() -> None:
    book = Book(ETH, options=(call("2800", "2", days=1),))
    now = -by_position(book, Listed((eth("-1"),)))[0][0, 0]
    for time_s in (86_400, 86_401, 10 * 86_400):
        after = Scenario("crash", {"ETH": Shock(D("0.1"), basis=D("0.05"))}, time_s=time_s, rate=D("0.5"))
        assert revalue(book, Listed((after,))).pnl[0] == pytest.approx(2 * 500 - now, abs=1e-9)


def test_one_second_before_expiry_it_is_still_an_option_on_the_forward() -> None:
    book = Book(ETH, options=(call("2800", "1", days=1),))
    after = Scenario("crash", {"ETH": Shock(D("0.1"), basis=D("0.05"))}, time_s=86_399)
    now = -by_position(book, Listed((eth("-1"),)))[0][0, 0]
    assert revalue(book, Listed((after,))).pnl[0] == pytest.approx(3000 * 1.1 * 1.05 - 2800 - now, abs=1e-6)


def test_volatility_shocks_are_relative_absolute_or_both_and_never_go_below_zero() -> None:
    book = Book(ETH, options=(call(vol="0.8"),))
    shocks = [("0.25", "0"), ("0", "0.2"), ("-0.5", "0.6"), ("0", "-0.8"), ("0", "-5"), ("-1", "0")]
    pnl = revalue(book, Listed(tuple(eth("0", vol_relative=r, vol_absolute=a) for r, a in shocks))).pnl
    assert pnl[0] == pnl[1] == pnl[2]
    assert pnl[3] == pytest.approx(pnl[4])
    assert pnl[3] == pytest.approx(pnl[5])


def test_assets_move_together_and_what_is_not_named_follows_otherwise() -> None:
    book = Book(
        {"ETH": D(3000), "BTC": D(60_000)},
        linears=(Linear("eth", "ETH", D(1), D(3000)), Linear("btc", "BTC", D(1), D(60_000))),
    )
    one = Scenario("one", {"ETH": Shock(D("-0.1"))})
    both = Scenario("both", {"ETH": Shock(D("-0.1"))}, otherwise=Shock(D("-0.2")))
    assert list(revalue(book, Listed((one, both))).floored(D(1))) == [-300, -12_300]


def test_a_replay_applies_the_returns_of_all_assets_of_one_day_together() -> None:
    book = Book(
        {"ETH": D(3000), "BTC": D(60_000)},
        linears=(Linear("eth", "ETH", D(1), D(3000)), Linear("btc", "BTC", D("-0.05"), D(60_000))),
    )
    returns = (
        Returns("ETH", 86_400, 1_700_000_000, "test", (D("0.9"), D("-0.1"), D("0.02"))),
        Returns("BTC", 86_400, 1_700_000_000, "test", (D("-0.05"), D("0.01"))),
    )
    replay = Replay.of(returns)
    assert [replay.scenario(i).name for i in range(2)] == ["1699827200 to 1699913600", "1699913600 to 1700000000"]
    assert list(revalue(book, replay).floored(CENT)) == [-15_000, 3_000]


# -- sets --------------------------------------------------------------------------------------------------------------------------------


def test_a_grid_says_the_same_in_blocks_as_scenario_by_scenario() -> None:
    grid = Grid(spot=(-0.1, 0, 0.2), vol=((0, 0), (0.5, -0.1)), time_s=(0, 60), rate=(0, 0.01), basis=(0, 0.01, -0.01))
    assert len(grid) == 72
    for start, stop in ((0, 72), (5, 11), (71, 72), (17, 55), (3, 6)):
        moves, (elapsed_s, rate) = grid.moves("ETH", start, stop), grid.clock(start, stop)
        for i, number in enumerate(range(start, stop)):
            scenario = grid.scenario(number)
            shock = scenario.of("ETH")
            for column, expected in (
                (moves.spot, shock.spot),
                (moves.vol_relative, shock.vol_relative),
                (moves.vol_absolute, shock.vol_absolute),
                (moves.basis, shock.basis),
                (elapsed_s, D(scenario.time_s)),
                (rate, scenario.rate),
            ):
                assert np.broadcast_to(column, (stop - start,))[i] == float(expected)
    assert len({grid.scenario(i).name for i in range(72)}) == 72


def test_a_grid_of_named_assets_leaves_the_others_where_they_are() -> None:
    book = Book({"ETH": D(3000), "BTC": D(60_000)}, linears=(Linear("btc", "BTC", D(1), D(60_000)),))
    assert list(revalue(book, Grid(spot=(-0.5, 0.5), assets=frozenset({"ETH"}))).pnl) == [0, 0]


@pytest.mark.parametrize(
    ("make", "why"),
    [
        (lambda: Grid(spot=()), "axis"),
        (lambda: Grid(spot=(0, -1.5)), "-100 %"),
        (lambda: Grid(spot=(float("nan"),)), "finite"),
        (lambda: Grid(time_s=(-1,)), "time"),
        (lambda: Listed(()), "no scenario"),
        (lambda: Replay({}), "lengths"),
        (lambda: Replay({"ETH": [0.1], "BTC": [0.1, 0.2]}), "equally long"),
        (lambda: Replay({"ETH": [0.1, float("nan")]}), "finite"),
        (lambda: Replay({"ETH": [-1.01]}), "100 %"),
        (lambda: Replay.of(()), "no returns"),
        (lambda: Replay.of((Returns("ETH", 60, 0, "a", (D(0),)), Returns("BTC", 60, 60, "a", (D(0),)))), "one end"),
        (lambda: Replay.of((Returns("ETH", 60, 0, "a", (D(0),)), Returns("ETH", 60, 0, "b", (D(0),)))), "two series"),
    ],
)
def test_senseless_scenarios_are_refused(make: Any, why: str) -> None:
    with pytest.raises(BadInput, match=why):
        make()


# -- books -------------------------------------------------------------------------------------------------------------------------------


def test_the_book_of_a_portfolio_holds_everything_with_its_sign() -> None:
    now = 1_700_000_000
    portfolio = Portfolio(
        holdings=(Holding("wallet", "ETH", D(3)), Holding("wallet", "USDC", D(500))),
        debts=(Debt("aave", "ETH", D(1)),),
        positions=(Position("perp", "ETH", D(-2), D(-6000), D(2990)),),
        margins=(Margin("perp", D(700), D(720), D(1), D(1), D("0.0625"), D("0.1")),),
        options=(
            Option("lyra", "ETH", True, D(3200), now + 86_400, D(5), D(100), D(20), D("0.7"), D(3003)),
            Option("lyra", "ETH", False, D(2000), now - 5, D(1), D(0), D(0), None),
        ),
        liquidity=(Liquidity("uni", 7, "ETH", "USDC", D(2000), D(4000), D(10), D(0), D(1)),),
        collateral=(Collateral("aave", "ETH", D(4), D(3000), D("0.8"), D("0.75")),),
    )
    book = book_of(portfolio, ETH, now, Terms({"ETH": D("0.04")}, {portfolio.options[1].label: D("0.5")}))
    assert [(p.label, p.size, p.on_forward) for p in book.linears] == [
        ("wallet:ETH", 3, False),
        ("wallet:USDC", 500, False),
        ("aave:ETH", 4, False),
        ("aave:ETH", -1, False),
        ("perp:ETH", -2, True),
    ]
    assert book.cash == 700
    assert [(o.life_s, o.vol, o.rate) for o in book.options] == [
        (86_400, D("0.7"), D("0.04")),
        (0, D("0.5"), D("0.04")),
    ]
    assert float(book.options[0].carry) == pytest.approx(math.log(1.001) * 365, rel=1e-12)
    assert book.labels[-1] == "uni:ETH-USDC#7"
    with pytest.raises(BadInput, match="volatility"):
        book_of(portfolio, ETH, now)
    with pytest.raises(BadInput, match="no price of ETH"):
        book_of(portfolio, {}, now)


@pytest.mark.parametrize(
    ("make", "why"),
    [
        (lambda: Book({"ETH": D(0)}), "index price of ETH"),
        (lambda: Book({}, linears=(Linear("x", "ETH", D(1), D(1)),)), "no price of ETH"),
        (lambda: Book(ETH, linears=(Linear("x", "ETH", D("NaN"), D(1)),)), "size of x"),
        (lambda: Book(ETH, options=(call(vol="-0.1"),)), "volatility"),
        (lambda: Book(ETH, options=(call(strike="0"),)), "strike"),
        (lambda: Book(ETH, options=(call(days=-1),)), "to live"),
        (
            lambda: Book(ETH, options=(EuropeanOption("x", "ETH", True, D(1), YEAR_S, D(1), D(1), rate=D(6)),)),
            "refused",
        ),
        (lambda: Book(ETH, ranges=(Range("r", "ETH", "USDC", D(2), D(2), D(1)),)), "empty range"),
        (lambda: Book(ETH, cash=D("Infinity")), "cash"),
    ],
)
def test_senseless_books_are_refused(make: Any, why: str) -> None:
    with pytest.raises(BadInput, match=why):
        make()


# -- the whole book, and determinism -----------------------------------------------------------------------------------------------------


@BACKENDS
def test_every_profit_is_within_its_error_bound_of_the_decimal_one(backend: Any) -> None:
    book = a_book(25)
    found = revalue(book, A_GRID, backend=backend)
    truth = ExactBook(book)
    for number in range(0, len(A_GRID), 13):
        error = abs(D(float(found.pnl[number])) - truth.total(A_GRID.scenario(number)))
        assert error <= D(float(found.errors[number]))


def test_contributions_add_up_to_the_profit_with_a_row_for_their_rounding() -> None:
    found = revalue(a_book(40), A_GRID)
    worst = found.worst(CENT)
    assert worst.number == int(found.pnl.argmin())
    assert [label for label, _ in worst.contributions] == [*found.book.labels, "rounding"]
    assert sum(pnl for _, pnl in worst.contributions) == worst.pnl
    assert 0 < abs(worst.contributions[-1][1]) <= 23 * CENT


@pytest.mark.parametrize("unit", ["1", "0.01", "0.0001"])
def test_floored_profits_are_the_same_on_every_backend_and_block(unit: str) -> None:
    book = a_book(60, seed=5)
    plain = revalue(book, A_GRID, backend="numpy")
    fast = revalue(book, A_GRID, backend="numba", block=17)
    assert plain.model[2] != fast.model[2]
    assert (plain.floored(D(unit)) == fast.floored(D(unit))).all()
    assert plain.worst(D(unit)) == fast.worst(D(unit))


def test_a_profit_on_the_edge_of_the_grid_is_decided_by_decimal_arithmetic() -> None:
    """-480.00 exactly: a backend whose double is one bit lower would say -480.01."""
    book = Book(ETH, linears=(Linear("coin", "ETH", D("1.1"), D("0.7")), Linear("other", "ETH", D("-1.1"), D("0.1"))))
    found = revalue(book, Listed((eth("-0.3"), eth("0.1"))))
    assert list(found.floored(D("0.001"))) == [-198, 66]  # 0.77 and -0.11: 0.66 x -0.3, 0.66 x 0.1
    exact = ExactBook(book)
    for nudge in (-1, 1):
        wrong = np.nextafter(found.pnl, nudge * np.inf)
        again = floor_units(wrong, found.errors, D("0.001"), lambda i: exact.total(found.scenarios.scenario(i)))
        assert list(again) == [-198, 66]


def test_doubles_that_differ_within_their_bounds_give_the_same_integers() -> None:
    """Whatever a backend's rounding errors are, as long as they are inside the bound, nothing changes."""
    book = a_book(8, seed=3)
    found = revalue(book, A_GRID)
    truth = ExactBook(book)
    rng = np.random.default_rng(1)
    expected = found.floored(D("0.001"))
    for _ in range(5):
        disturbed = found.pnl + rng.uniform(-1, 1, len(A_GRID)) * found.errors * 0.9
        again = floor_units(disturbed, found.errors * 2, D("0.001"), lambda i: truth.total(A_GRID.scenario(i)))
        assert (again == expected).all()


@pytest.mark.parametrize("least", [1, 3, 40, 10**6])
def test_the_worst_of_all_are_the_same_when_only_they_are_decided(least: int) -> None:
    book, times_decided = a_book(8, seed=4), 0
    found = revalue(book, A_GRID)
    truth = ExactBook(book)

    def exactly(number: int) -> Decimal:
        nonlocal times_decided
        times_decided += 1
        return truth.total(A_GRID.scenario(number))

    # bounds so wide that hardly any double decides
    wide, unit = found.errors + 0.0002, D("0.001")
    every = floor_units(found.pnl, wide, unit, exactly)
    decided_all, times_decided = times_decided, 0
    some = floor_units(found.pnl, wide, unit, exactly, least=least)
    order = np.argsort(every, kind="stable")[:least]
    assert list(np.argsort(some, kind="stable")[:least]) == list(order)
    assert list(some[order]) == list(every[order])
    assert times_decided <= decided_all
    if least == 1:
        assert times_decided < decided_all


def test_a_scenario_in_which_nothing_happens_costs_exactly_nothing() -> None:
    found = revalue(a_book(30), Listed((Scenario("still"), eth("0.0"))))
    assert list(found.floored(CENT)) == [0, 0]
    assert {pnl for _, pnl in found.contributions(0, CENT)} == {0}


def test_a_unit_that_the_doubles_cannot_carry_is_refused_with_one_they_can() -> None:
    book = Book(ETH, options=(call(size="1e12"),))
    found = revalue(book, Listed((eth("-0.1"),)))
    with pytest.raises(BadInput, match="too fine"):
        found.floored(CENT)
    unit = unit_for(book)
    assert unit == D("1E+6")
    assert found.floored(unit)[0] < 0
    assert unit_for(Book(ETH, options=(call(),))) == CENT


def test_rounding_is_always_towards_loss() -> None:
    assert quantise_adversely(D("-1.001"), CENT, worse="lower") == D("-1.01")
    assert quantise_adversely(D("1.009"), CENT, worse="lower") == D("1.00")
    assert quantise_adversely(D("1.001"), CENT, worse="higher") == D("1.01")
    assert quantise_adversely(D("-1.009"), CENT, worse="higher") == D("-1.00")
    assert quantise_adversely(D("7e40") + D("0.001"), CENT, worse="higher") == D("7e40") + CENT
    assert quantise_adversely(D("1e-90"), CENT, worse="higher") == CENT
    for multiple in ("0", "-3.07", "12"):
        for worse in ("lower", "higher"):
            assert quantise_adversely(D(multiple), CENT, worse=worse) == D(multiple)  # type: ignore[arg-type]
    with pytest.raises(BadInput):
        quantise_adversely(D("NaN"), CENT, worse="lower")


def test_memory_is_bounded_by_the_block_not_by_the_grid() -> None:
    """64 options x 40,000 scenarios would be 20 MB at eight bytes each."""
    book = Book(ETH, options=tuple(call(str(2000 + 30 * i)) for i in range(64)))
    grid = Grid(spot=[i / 1000 for i in range(-200, 200)], vol=[(i / 100, 0) for i in range(100)])
    tracemalloc.start()
    revalue(book, grid, backend="numpy", block=256)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 3_000_000


def test_numba_is_only_imported_when_it_pays(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(engine.sys.modules, "policies.risk._kernel_numba", raising=False)
    assert engine.backend_of("auto", 1000)[0] == "numpy"
    assert engine.backend_of("auto", 10_000_000)[0] == "numba"


def test_without_numba_auto_is_numpy_and_asking_for_numba_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(engine.sys.modules, "policies.risk._kernel_numba", None)
    monkeypatch.setattr(engine, "_has_numba", lambda: False)
    assert engine.backend_of("auto", 10**9)[0] == "numpy"
    with pytest.raises(BadInput, match=r"seawall\[fast\]"):
        engine.backend_of("numba", 1)


def test_a_long_option_never_loses_more_than_its_value_and_gains_with_volatility() -> None:
    book = Book(ETH, options=(call("3300"), call("2700", is_call=False)))
    value_now = -by_position(book, Listed((eth("0", vol_relative="-1"),)))[0].sum()
    grid = Grid(spot=[i / 50 for i in range(-49, 100)], vol=[(i / 4, 0) for i in range(-3, 9)])
    pnl = revalue(book, grid).pnl.reshape(12, 149)
    assert pnl.min() >= -value_now - 1e-9
    assert (np.diff(pnl, axis=0) >= -1e-9).all()
    assert (np.diff(pnl, 2, axis=1) >= -1e-9).all()  # convex in the spot


def test_the_order_and_the_splitting_of_positions_change_no_floored_profit() -> None:
    book = a_book(20, seed=9)
    turned = Book(book.spots, book.linears[::-1], book.inverses, book.options[::-1], book.ranges, book.cash)
    halves = tuple(
        EuropeanOption(o.label, o.asset, o.is_call, o.strike, o.life_s, o.size / 2, o.vol, o.rate, o.carry)
        for o in book.options
        for _ in range(2)
    )
    split = Book(book.spots, book.linears, book.inverses, halves, book.ranges, book.cash)
    expected = revalue(book, A_GRID).floored(CENT)
    assert (revalue(turned, A_GRID).floored(CENT) == expected).all()
    assert (revalue(split, A_GRID).floored(CENT) == expected).all()
