"""Limits over columns say what the rules say, moment by moment."""

from __future__ import annotations

import numpy as np
import pytest

from contracts.errors import BadInput
from policies.risk import columns
from policies.risk.columns import ColumnLimit, Mark, judge_columns

NAN = float("nan")


def marks(values: list[float], limit: ColumnLimit) -> list[str]:
    found = judge_columns(np.array(values)[:, None], [limit])
    return [Mark(m).name for m in found.marks[:, 0]]


def test_a_maximum_warns_at_its_share_and_is_breached_only_beyond_the_bound() -> None:
    limit = ColumnLimit("lev", 10.0)
    assert marks([0, 7.9, 8, 10, 10.000001, 10], limit) == ["PASS", "PASS", "WARN", "WARN", "BREACHED", "WARN"]


def test_a_minimum_mirrors_it() -> None:
    limit = ColumnLimit("health", 2.0, is_max=False)
    assert marks([3, 2.5, 2, 1.999, 2], limit) == ["PASS", "WARN", "WARN", "BREACHED", "WARN"]


def test_a_breach_lasts_until_the_value_is_inside_the_tightened_bound() -> None:
    limit = ColumnLimit("lev", 10.0, hysteresis=0.1, warn_at=None)
    assert marks([9.5, 11, 9.5, 9.01, 9, 9.5], limit) == ["PASS", "BREACHED", "BREACHED", "BREACHED", "PASS", "PASS"]


def test_the_tightened_bound_of_a_negative_minimum_lies_above_it() -> None:
    limit = ColumnLimit("pnl", -10.0, is_max=False, hysteresis=0.2, warn_at=None)
    assert marks([-9, -11, -9, -8, -9], limit) == ["PASS", "BREACHED", "BREACHED", "PASS", "PASS"]


def test_a_value_that_is_not_finite_never_passes_and_moves_no_latch() -> None:
    limit = ColumnLimit("lev", 10.0, hysteresis=0.1, warn_at=None)
    assert marks([NAN, 9.5, 11, NAN, 9.5, float("-inf"), 8, float("inf")], limit) == [
        "NOT_EVALUABLE",
        "PASS",
        "BREACHED",
        "NOT_EVALUABLE",
        "BREACHED",
        "NOT_EVALUABLE",
        "PASS",
        "NOT_EVALUABLE",
    ]


def test_entries_and_counts_tell_how_often_a_breach_began() -> None:
    found = judge_columns(np.array([[11.0], [11], [1], [12], [9]]), [ColumnLimit("a", 10.0)])
    assert list(found.entries(0)) == [0, 3]
    assert found.counts() == {"a": {"PASS": 1, "WARN": 1, "BREACHED": 3, "NOT_EVALUABLE": 0}}


def test_columns_agree_with_a_plain_loop_and_can_be_fed_in_pieces(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(columns, "_TIMES_A_BLOCK", 37)
    rng = np.random.default_rng(3)
    limits = [
        ColumnLimit(str(i), float(rng.normal(0, 2)), bool(rng.integers(2)), float(rng.choice([0, 0.1, 0.5])))
        for i in range(12)
    ]
    values = np.cumsum(rng.normal(0, 0.5, (400, 12)), axis=0)
    values[rng.random(values.shape) < 0.05] = NAN
    found = judge_columns(values, limits)
    for i, limit in enumerate(limits):
        latched = False
        for t in range(400):
            value = values[t, i]
            assert found.latched[t, i] == latched
            slack = abs(limit.bound) * limit.hysteresis if latched else 0.0
            bound = limit.bound - slack if limit.is_max else limit.bound + slack
            if not np.isfinite(value):
                assert found.marks[t, i] == Mark.NOT_EVALUABLE
                continue
            passes = value <= bound if limit.is_max else value >= bound
            assert (found.marks[t, i] == Mark.BREACHED) == (not passes)
            latched = not passes and limit.hysteresis > 0
    split = judge_columns(values[250:], limits, latched=_latched_after(found, 250))
    assert (split.marks == found.marks[250:]).all()


def _latched_after(found: columns.Breaches, row: int) -> list[bool]:
    return [bool(x) for x in found.latched[row]]


def test_shapes_and_bounds_that_make_no_sense_are_refused() -> None:
    with pytest.raises(BadInput, match="shape"):
        judge_columns(np.zeros((3, 2)), [ColumnLimit("a", 1.0)])
    with pytest.raises(BadInput, match="finite"):
        judge_columns(np.zeros((3, 1)), [ColumnLimit("a", NAN)])
    with pytest.raises(BadInput, match="latches"):
        judge_columns(np.zeros((3, 1)), [ColumnLimit("a", 1.0)], latched=[True, False])


def test_no_moment_gives_no_verdict() -> None:
    assert judge_columns(np.zeros((0, 1)), [ColumnLimit("a", 1.0)]).marks.shape == (0, 1)
