"""One-minute bars, from CSV."""

from __future__ import annotations

import csv
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from decimal import Decimal, InvalidOperation
from importlib.resources import files
from pathlib import Path

from contracts.errors import BadInput

BAR_S = 60
DECIMALS = 8
_REQUIRED = ("timestamp", "open", "high", "low", "close")
_OPTIONAL = ("volume",)


@dataclass(frozen=True, slots=True)
class Bar:
    """One minute of a market that starts at `timestamp_s` (unix). Prices are integers, 1e8 = one USDC."""

    timestamp_s: int
    open: int
    high: int
    low: int
    close: int


def shipped(name: str) -> Path:
    """Path of a bar file that ships with Seawall, for example `eth_2020-03-12`. Raises BadInput naming those there are."""
    folder = files("contracts.devnet") / "data"
    found = Path(str(folder / f"{name}.csv"))
    if not found.is_file():
        there = ", ".join(sorted(p.stem for p in Path(str(folder)).glob("*.csv")))
        raise BadInput(f"no bars named {name} ship with Seawall; there are {there}")
    return found


def read_bars(path: Path, *, from_s: int | None = None, to_s: int | None = None) -> list[Bar]:
    """Read `timestamp,open,high,low,close[,volume]`, one row a minute without gaps; lines that begin with # are comments.

    Timestamps are unix seconds or ISO 8601 (UTC unless they say otherwise) and start a minute. `from_s` (inclusive) and `to_s`
    (exclusive) cut out a window. Raises BadInput with the line number for anything else.
    """
    try:
        text = path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise BadInput(f"cannot read bars from {path}: {error}") from error
    bars = _check_window(path, list(_parse(path, text)), from_s, to_s)
    if not bars:
        raise BadInput(f"{path} has no bars" + ("" if from_s is None and to_s is None else " in that window"))
    return bars


def _check_window(path: Path, bars: Sequence[Bar], from_s: int | None, to_s: int | None) -> list[Bar]:
    if bars and from_s is not None and from_s < bars[0].timestamp_s:
        raise BadInput(f"{path} starts at {_iso(bars[0].timestamp_s)}, after the {_iso(from_s)} that was asked for")
    if bars and to_s is not None and to_s > bars[-1].timestamp_s + BAR_S:
        end = _iso(bars[-1].timestamp_s + BAR_S)
        raise BadInput(f"{path} ends at {end}, before the {_iso(to_s)} that was asked for")
    return [
        bar
        for bar in bars
        if (from_s is None or bar.timestamp_s >= from_s) and (to_s is None or bar.timestamp_s < to_s)
    ]


def _parse(path: Path, text: str) -> Iterator[Bar]:
    numbered = [
        (number, line)
        for number, line in enumerate(text.splitlines(), start=1)
        if line.strip() and not line.lstrip().startswith("#")
    ]
    rows = csv.reader(line for _, line in numbered)
    columns: list[str] | None = None
    previous: Bar | None = None
    for (number, _), row in zip(numbered, rows, strict=True):
        where = f"{path}, line {number}"
        cells = [cell.strip() for cell in row]
        if columns is None:
            columns = [cell.lower() for cell in cells]
            missing = [name for name in _REQUIRED if name not in columns]
            unknown = [name for name in columns if name not in _REQUIRED + _OPTIONAL]
            if missing or unknown or len(set(columns)) != len(columns):
                raise BadInput(
                    f"{where}: the header must be timestamp,open,high,low,close and perhaps volume, got {','.join(cells)}"
                )
            continue
        if len(cells) != len(columns):
            raise BadInput(f"{where}: {len(columns)} columns expected, got {len(cells)}")
        bar = _bar(where, dict(zip(columns, cells, strict=True)))
        if previous is not None and bar.timestamp_s != previous.timestamp_s + BAR_S:
            step = bar.timestamp_s - previous.timestamp_s
            what = f"{step // BAR_S - 1} minute(s) are missing before" if step > BAR_S else "bars must be in order, but"
            raise BadInput(f"{where}: {what} {_iso(bar.timestamp_s)} follows {_iso(previous.timestamp_s)}")
        yield bar
        previous = bar


def _bar(where: str, cells: dict[str, str]) -> Bar:
    timestamp_s = parse_time(cells["timestamp"], where)
    if timestamp_s % BAR_S:
        raise BadInput(f"{where}: a bar starts on a whole minute, got {cells['timestamp']}")
    prices = {name: _price(where, name, cells[name]) for name in _REQUIRED[1:]}
    bar = Bar(timestamp_s, prices["open"], prices["high"], prices["low"], prices["close"])
    if not bar.low <= min(bar.open, bar.close) <= max(bar.open, bar.close) <= bar.high:
        shown = ", ".join(f"{name} {cells[name]}" for name in _REQUIRED[1:])
        raise BadInput(f"{where}: open and close must lie between low and high, got {shown}")
    return bar


def _price(where: str, name: str, text: str) -> int:
    try:
        value = Decimal(text)
    except InvalidOperation:
        raise BadInput(f"{where}: {name} must be a number, got {text!r}") from None
    if not value.is_finite() or value <= 0:
        raise BadInput(f"{where}: {name} must be positive, got {text}")
    scaled = int(value.scaleb(DECIMALS).to_integral_value())
    if not 0 < scaled < 2**127:
        raise BadInput(f"{where}: {name} {text} does not fit a feed with {DECIMALS} decimals")
    return scaled


def parse_time(text: str, name: str = "time") -> int:
    """Unix seconds from unix seconds or ISO 8601 (UTC unless it says otherwise). Raises BadInput."""
    if text.isascii() and text.isdigit():
        return int(text)
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        raise BadInput(
            f"{name}: a time must be unix seconds or ISO 8601 such as 2020-03-12T06:00, got {text!r}"
        ) from None
    if moment.tzinfo is None:
        moment = moment.replace(tzinfo=UTC)
    return int(moment.timestamp())


def _iso(timestamp_s: int) -> str:
    return datetime.fromtimestamp(timestamp_s, UTC).strftime("%Y-%m-%dT%H:%MZ")
