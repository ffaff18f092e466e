"""The equity curve of an account, as decisions saw it, in a size that does not grow with their number.

Of every minute of the last two hours, every hour of the last forty days, and every day before, the first, lowest, highest and last point
are kept (by profit: equity less what was paid in). So a high-water mark and a low are exact to the point whatever the window, and the
profit of a window is taken from a point at most one minute, hour or day older than its beginning.
"""

from __future__ import annotations

import json
import sqlite3
from decimal import Decimal

from contracts.types import Address, checksum
from policies.canonical import decimal_text
from policies.portfolio import EquityPoint

GRAINS = ((60, 2 * 3_600), (3_600, 40 * 86_400), (86_400, 2**62))
"""(seconds of a bucket, how long ago it may be), finest first."""


def remember(db: sqlite3.Connection, account: Address, point: EquityPoint) -> None:
    """Add a point. Points older than the newest of their bucket change only its lowest and highest."""
    name = checksum(account)
    for grain, _ in GRAINS:
        bucket = point.time_s // grain
        row = db.execute(
            "SELECT points FROM equity WHERE account = ? AND grain = ? AND bucket = ?", (name, grain, bucket)
        ).fetchone()
        points = sorted([*([] if row is None else _read(row[0])), point], key=lambda p: p.time_s)
        kept = {points[0], min(points, key=_profit), max(points, key=_profit), points[-1]}
        text = json.dumps(
            [
                [p.time_s, decimal_text(p.equity), decimal_text(p.paid_in)]
                for p in sorted(kept, key=lambda p: (p.time_s, p.equity))
            ]
        )
        db.execute("INSERT OR REPLACE INTO equity VALUES (?, ?, ?, ?)", (name, grain, bucket, text))
    newest = db.execute("SELECT max(bucket) FROM equity WHERE account = ? AND grain = 60", (name,)).fetchone()[0] * 60
    for grain, reach_s in GRAINS[:-1]:
        db.execute(
            "DELETE FROM equity WHERE account = ? AND grain = ? AND bucket < ?",
            (name, grain, (newest - reach_s) // grain),
        )


def curve(db: sqlite3.Connection, account: Address, since_s: int = 0) -> list[EquityPoint]:
    """The points at `since_s` (unix s) or later, oldest first, and the last one before."""
    found: set[EquityPoint] = set()
    for grain, _ in GRAINS:
        first = since_s // grain
        earlier = "(SELECT max(bucket) FROM equity WHERE account = ?1 AND grain = ?2 AND bucket < ?3)"
        rows = db.execute(
            f"SELECT points FROM equity WHERE account = ?1 AND grain = ?2 AND bucket >= ifnull({earlier}, ?3)",  # noqa: S608
            (checksum(account), grain, first),
        )
        found |= {point for (text,) in rows for point in _read(text)}
    points = sorted(found, key=lambda p: (p.time_s, p.equity))
    earlier_points = [point for point in points if point.time_s < since_s]
    return earlier_points[-1:] + points[len(earlier_points) :]


def _read(text: str) -> list[EquityPoint]:
    return [EquityPoint(int(at), Decimal(equity), Decimal(paid)) for at, equity, paid in json.loads(text)]


def _profit(point: EquityPoint) -> Decimal:
    return point.equity - point.paid_in
