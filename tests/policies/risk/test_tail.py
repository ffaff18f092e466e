"""Historical VaR and ES: the definition, its edges, coherence, and what each position adds."""

from __future__ import annotations

import itertools
import json
import math
import random
from datetime import UTC, datetime
from decimal import Decimal
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from contracts.errors import BadInput
from policies.risk.scenarios import by_position, revalue
from policies.risk.scenarios_book import Book, EuropeanOption, Linear
from policies.risk.scenarios_sets import Replay
from policies.risk.tail import historical, historical_components, level, tail_of

D = Decimal
CENT = D("0.01")
SHARED = Path(__file__).parents[4] / "shared"
# Ten losses whose figures can be checked by eye.
HAND = [10.0, 5, 0, -1, -2, -3, -4, -6, -8, -20]
PROFITS = st.lists(st.floats(-1e6, 1e6), min_size=1, max_size=60)
CONFIDENCES = st.sampled_from(["0.5", "0.8", "0.9", "0.95", "0.975", "0.99", "0.999", "0.123"])


def test_es_is_the_mean_of_the_worst_and_var_the_next() -> None:
    found = historical(HAND, 0.8)
    assert (found.var, found.es, found.in_tail) == (6, 14, 2)


def test_a_part_of_an_observation_counts_by_its_part() -> None:
    found = historical(HAND, "0.75")  # k = 2.5: (20 + 8 + 0.5 x 6) / 2.5
    assert (found.var, found.es) == (6, pytest.approx(12.4))


def test_the_confidence_is_the_decimal_that_was_written() -> None:
    """10 (1 - 0.8) is 1.9999999999999996 in doubles, and its floor would make VaR the second worst."""
    for written in (0.8, "0.8", D("0.8")):
        assert historical(HAND, written).var == 6
    assert level(0.975) == Fraction(39, 40)


def test_with_less_than_one_observation_in_the_tail_both_are_the_worst_loss() -> None:
    for confidence in ("0.95", "0.999999"):
        found = historical(HAND, confidence)
        assert (found.var, found.es) == (20, 20)
        assert found.in_tail < 1


def test_one_observation_is_enough_and_none_is_refused() -> None:
    assert historical([-7.0], 0.99).es == 7
    with pytest.raises(BadInput, match="at least one"):
        historical([], 0.99)


def test_equal_losses_give_their_own_value() -> None:
    found = historical([-0.1] * 7, "0.7")
    assert (found.var, found.es) == (0.1, 0.1)


def test_a_book_that_only_gains_has_a_negative_var() -> None:
    found = historical([1.0, 2, 3, 4], "0.5")
    assert (found.var, found.es) == (-3, -1.5)


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), float("-inf")])
def test_a_profit_that_is_not_finite_is_refused(bad: float) -> None:
    with pytest.raises(BadInput, match="scenario 1 is not finite"):
        historical([1.0, bad], 0.9)


@pytest.mark.parametrize("confidence", [0, 1, -0.5, 1.5, 99, float("nan"), "nan", "inf", "much"])
def test_a_confidence_outside_0_to_1_is_refused(confidence: Any) -> None:
    with pytest.raises(BadInput, match=r"confidence|finite"):
        historical(HAND, confidence)


@settings(max_examples=150, deadline=None)
@given(PROFITS, CONFIDENCES)
def test_es_is_never_below_var_nor_above_the_worst_loss(profits: list[float], confidence: str) -> None:
    found = historical(profits, confidence)
    assert found.var <= found.es
    assert found.es <= -min(profits) + 1e-9 * (1 + abs(min(profits)))


@settings(max_examples=150, deadline=None)
@given(st.lists(st.tuples(st.floats(-1e6, 1e6), st.floats(-1e6, 1e6)), min_size=1, max_size=60), CONFIDENCES)
def test_es_is_subadditive_on_samples(pairs: list[tuple[float, float]], confidence: str) -> None:
    """The whole is never riskier than its parts; VaR has no such property."""
    a, b = np.array(pairs).T
    parts = historical(a, confidence).es + historical(b, confidence).es
    assert historical(a + b, confidence).es <= parts + 1e-6


def test_var_is_not_subadditive_which_is_why_es_is_there() -> None:
    """Two loans that fail in different scenarios: at 94 % of 20, VaR is the second worst loss, which one loan alone does not have."""
    one, other = np.full(20, 1.0), np.full(20, 1.0)
    one[0], other[19] = -100, -100
    alone, together = historical(one, "0.94"), historical(one + other, "0.94")
    assert (alone.var, together.var) == (-1, 99)
    assert together.es <= 2 * alone.es


@settings(max_examples=100, deadline=None)
@given(PROFITS, CONFIDENCES, st.floats(0.001, 1000), st.floats(-1e6, 1e6))
def test_scaling_scales_and_cash_is_subtracted(
    profits: list[float], confidence: str, factor: float, cash: float
) -> None:
    p = np.array(profits)
    found = historical(p, confidence)
    scaled, richer = historical(p * factor, confidence), historical(p + cash, confidence)
    assert scaled.var == pytest.approx(found.var * factor, rel=1e-9, abs=1e-6)
    assert scaled.es == pytest.approx(found.es * factor, rel=1e-9, abs=1e-6)
    assert richer.var == pytest.approx(found.var - cash, rel=1e-9, abs=1e-6)
    assert richer.es == pytest.approx(found.es - cash, rel=1e-9, abs=1e-6)


@settings(max_examples=100, deadline=None)
@given(PROFITS)
def test_both_grow_with_the_confidence(profits: list[float]) -> None:
    tails = [historical(profits, a) for a in ("0.5", "0.8", "0.9", "0.95", "0.99", "0.999")]
    for looser, stricter in itertools.pairwise(tails):
        assert looser.var <= stricter.var
        assert looser.es <= stricter.es + 1e-9 * (1 + abs(stricter.es))


@settings(max_examples=60, deadline=None)
@given(st.integers(1, 8), st.integers(1, 50), CONFIDENCES, st.integers(0, 2**31))
def test_components_sum_to_es_and_var_exactly(positions: int, scenarios: int, confidence: str, seed: int) -> None:
    pnl = np.random.default_rng(seed).normal(0, 10, (positions, scenarios)).round(2)
    found = historical_components(pnl, confidence)
    whole = historical(pnl.sum(axis=0), confidence)
    assert math.fsum(found.components) == found.es == pytest.approx(whole.es, rel=1e-12, abs=1e-12)
    assert math.fsum(found.var_components) == found.var == pytest.approx(whole.var, rel=1e-12, abs=1e-12)


def test_a_component_is_the_derivative_of_es_by_the_size_of_its_position() -> None:
    pnl = np.random.default_rng(4).normal(0, 10, (3, 500))
    found = historical_components(pnl, "0.97")
    for i in range(3):
        sized = pnl.copy()
        sized[i] *= 1 + 1e-7
        assert (historical(sized.sum(axis=0), "0.97").es - found.es) / 1e-7 == pytest.approx(
            found.components[i], abs=1e-4
        )


# -- a book over history -----------------------------------------------------------------------------------------------------------------


def a_book() -> Book:
    options = tuple(
        EuropeanOption(f"{k}{'C' if c else 'P'}", "ETH", c, D(k), 30 * 86_400, D(size), D("0.8"))
        for k, c, size in (("2400", False, "-10"), ("3000", True, "4"), ("3600", True, "-8.5"))
    )
    return Book(
        {"ETH": D(3000), "BTC": D(60_000)},
        linears=(Linear("eth", "ETH", D(3), D(3000)), Linear("btc", "BTC", D("-0.1"), D(60_000), on_forward=True)),
        options=options,
    )


def a_replay(n: int = 300, seed: int = 2) -> Replay:
    rng = random.Random(seed)
    series: dict[str, list[Decimal]] = {"ETH": [], "BTC": []}
    for _ in range(n):
        common = rng.gauss(0, 0.03)
        series["ETH"].append(D(repr(round(max(common * 1.2 + rng.gauss(0, 0.02), -0.9), 8))))
        series["BTC"].append(D(repr(round(max(common + rng.gauss(0, 0.01), -0.9), 8))))
    return Replay(series)


def test_the_tail_of_a_book_is_that_of_its_floored_profits() -> None:
    found = revalue(a_book(), a_replay())
    decided = tail_of(found, "0.97", CENT)
    floored = found.floored(CENT) / 100
    plain = historical(floored, "0.97")
    assert float(decided.var) == plain.var
    assert 0 <= float(decided.es) - plain.es < 0.01 + 1e-9
    raw = historical(found.pnl, "0.97")
    assert raw.es <= float(decided.es) < raw.es + 0.02
    assert decided.in_tail == 9


def test_contributions_to_the_decided_es_add_up_to_it_exactly() -> None:
    found = revalue(a_book(), a_replay())
    for confidence in ("0.9", "0.975", "0.9999"):
        decided = tail_of(found, confidence, CENT)
        assert sum(amount for _, amount in decided.contributions) == decided.es
        assert [label for label, _ in decided.contributions][:5] == list(found.book.labels)
        float_components = historical_components(_by_position(found), confidence).components
        for (_, amount), expected in zip(decided.contributions, float_components, strict=False):
            assert abs(float(amount) - expected) < 0.005 + 1e-6


def _by_position(found: Any) -> np.ndarray:
    pnl: np.ndarray = by_position(found.book, found.scenarios)[0]
    return pnl


@pytest.mark.parametrize("unit", ["0.01", "0.0000001"])
def test_the_decided_tail_is_the_same_on_every_backend(unit: str) -> None:
    plain = tail_of(revalue(a_book(), a_replay(), backend="numpy"), 0.975, D(unit))
    fast = tail_of(revalue(a_book(), a_replay(), backend="numba", block=7), 0.975, D(unit))
    assert plain == fast


# -- vectors -----------------------------------------------------------------------------------------------------------------------------


@pytest.mark.skipif(not (SHARED / "data").is_dir(), reason="the market data and vectors are not here")
def test_the_vectors_of_daily_closes_2020_to_2025_hold() -> None:
    from pyarrow import parquet

    vectors = json.loads((SHARED / "vectors" / "var_es.json").read_text())
    assert (
        historical([-float(x) for x in vectors["hand"]["losses"]], vectors["hand"]["alpha"]).es
        == vectors["hand"]["ES_tail_mean_Acerbi_Tasche"]
    )
    first, last = (int(datetime(*day, tzinfo=UTC).timestamp()) for day in ((2020, 1, 1), (2025, 12, 31)))
    returns = []
    for name in ("btcusdt", "ethusdt"):
        bars = parquet.read_table(SHARED / "data" / f"{name}_1h_2017-2026.parquet", columns=["ts", "close"]).to_pydict()
        close = dict(zip(bars["ts"], bars["close"], strict=True))
        # The close at 00:00 is that of the bar which opens at 23:00.
        prices = np.array([close[t - 3600] for t in range(first, last + 1, 86_400)])
        returns.append(prices[1:] / prices[:-1] - 1)
    for case in vectors["historical"]:
        found = historical(np.array(case["weights"]) @ np.array(returns), case["alpha"])
        assert found.observations == case["n"]
        assert found.var == pytest.approx(case["VaR"], rel=1e-12)
        assert found.es == pytest.approx(case["ES"], rel=1e-12)
        assert found.var == pytest.approx(case["VaR_numpy_higher"], rel=1e-12)
