"""The equity curve stays small and keeps every extreme."""

from __future__ import annotations

import random
import sqlite3
from collections.abc import Iterator
from decimal import Decimal
from pathlib import Path

import pytest

from policies.portfolio import EquityPoint
from wallet.audit import AuditLog
from wallet.equity import curve, remember

ACCOUNT, OTHER = b"\x11" * 20, b"\x12" * 20
START_S = 1_700_000_000


def point(after_s: int, equity: int | str, paid_in: int = 0) -> EquityPoint:
    return EquityPoint(START_S + after_s, Decimal(equity), Decimal(paid_in))


@pytest.fixture
def db(tmp_path: Path) -> Iterator[sqlite3.Connection]:
    with AuditLog(tmp_path / "log.db").transaction() as now:
        yield now.db


def test_few_points_are_all_kept_in_order(db: sqlite3.Connection) -> None:
    points = [point(0, 100), point(70, 90), point(140, 110)]
    for one in (points[1], points[0], points[2]):
        remember(db, ACCOUNT, one)
    assert curve(db, ACCOUNT) == points
    assert curve(db, OTHER) == []


def test_within_a_minute_the_first_lowest_highest_and_last_stay(db: sqlite3.Connection) -> None:
    base = -START_S % 60
    for second, equity in enumerate((100, 103, 99, 101, 102)):
        remember(db, ACCOUNT, point(base + second, equity))
    assert [p.equity for p in curve(db, ACCOUNT)] == [100, 103, 99, 102]


def test_high_is_by_profit_not_by_deposit(db: sqlite3.Connection) -> None:
    base = -START_S % 60
    for second, (equity, paid_in) in enumerate(((100, 0), (140, 0), (600, 500), (590, 500))):
        remember(db, ACCOUNT, point(base + second, equity, paid_in))
    assert point(base + 1, 140) in curve(db, ACCOUNT)


def test_a_year_stays_small_and_keeps_its_extremes(db: sqlite3.Connection) -> None:
    walk = random.Random(7)
    equity, seen = 10_000, []
    for hour in range(0, 24 * 365, 3):
        equity += walk.randint(-50, 50)
        seen.append(point(hour * 3_600 + walk.randint(0, 3_599), equity))
        remember(db, ACCOUNT, seen[-1])
    kept = curve(db, ACCOUNT)
    assert set(kept) <= set(seen)
    assert kept[0] == seen[0]
    assert kept[-1] == seen[-1]
    assert {min(p.equity for p in kept), max(p.equity for p in kept)} == {
        min(p.equity for p in seen),
        max(p.equity for p in seen),
    }
    assert len(kept) < 4 * (365 + 40 * 24)
    assert db.execute("SELECT count(*) FROM equity WHERE grain = 60").fetchone()[0] <= 121


def test_a_window_begins_with_the_last_point_before_it(db: sqlite3.Connection) -> None:
    points = [point(day * 86_400, 100 + day) for day in range(100)]
    for one in points:
        remember(db, ACCOUNT, one)
    since_s = points[90].time_s + 1
    assert curve(db, ACCOUNT, since_s) == points[90:]
    assert curve(db, ACCOUNT, points[0].time_s - 5) == points
