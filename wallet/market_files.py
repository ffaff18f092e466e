"""Bars from files: CSV, or Parquet with the extra `data`. The engine itself touches no files."""

from __future__ import annotations

import csv
import re
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from contracts.errors import BadInput, SetupError
from policies.backtest.market import Series, series
from policies.problems import did_you_mean

_TIME = ("timestamp", "time", "ts", "date")
_PRICES = ("open", "high", "low", "close")
_NAME = ("asset", "symbol")
_QUOTES = re.compile(r"[-_/]?(USDT|USDC|USD|PERP)$")
Table = Mapping[str, Sequence[Any]]


def read_market(path: Path, asset: str | None = None) -> dict[str, Series]:
    """Bars of one file by asset. Columns: a time (timestamp, ts, time or date; unix seconds or ISO 8601), high, low, close, perhaps open
    (else a bar opens where the one before closed) and asset or symbol; others are not used.

    `asset` names the one market of a file without such a column, or picks one of several. Raises BadInput with the column, or with the
    line and what is wrong in it; SetupError when the file cannot be read or Parquet needs the extra.
    """
    table, line_of = _parquet(path) if path.suffix.lower() in (".parquet", ".pq") else _csv(path)
    names = {name.lower().strip(): name for name in table}
    time_name = _one_of(path, names, _TIME, "a time")
    missing = [name for name in _PRICES[1:] if name not in names]
    if missing:
        advice = did_you_mean(missing[0], tuple(table))
        raise BadInput(
            f"{path}: there is no column {missing[0]!r} among {', '.join(table)}" + (f"; {advice}" if advice else "")
        )
    groups = _groups(path, table, names, asset)
    times = table[names[time_name]]
    found = {}
    for name, rows in groups.items():

        def where(row: int, rows: Sequence[int] = rows) -> str:
            return f"{path}, line {line_of(rows[row])}" if rows else str(path)

        moments = [_moment(times[row], where, i) for i, row in enumerate(rows)]
        prices = {
            key: [_price(table[names[key]][row], key, where, i) for i, row in enumerate(rows)]
            for key in _PRICES
            if key in names
        }
        found[name] = series(moments, prices.get("open"), prices["high"], prices["low"], prices["close"], where)
    return found


def asset_of(symbol: str) -> str:
    """`ETH` for `ETHUSDT`, `ETH-USD`, `eth_usdc` or `ETH`."""
    upper = symbol.upper()
    return _QUOTES.sub("", upper) or upper


def _one_of(path: Path, names: Mapping[str, str], wanted: Sequence[str], what: str) -> str:
    found = [name for name in wanted if name in names]
    if not found:
        raise BadInput(
            f"{path}: there is no column with {what} ({', '.join(wanted)}) among {', '.join(names.values())}"
        )
    return found[0]


def _groups(path: Path, table: Table, names: Mapping[str, str], asset: str | None) -> dict[str, list[int]]:
    """Row numbers by asset."""
    count = len(next(iter(table.values()), ()))
    name = next((names[key] for key in _NAME if key in names), None)
    if not count:
        raise BadInput(f"{path} has no bars")
    if name is None:
        own = asset or asset_of(re.split(r"[_.\- ]", path.stem)[0])
        return {own: list(range(count))}
    groups: dict[str, list[int]] = {}
    for row, symbol in enumerate(table[name]):
        groups.setdefault(asset_of(str(symbol)), []).append(row)
    if asset is None:
        return groups
    if asset not in groups:
        raise BadInput(f"{path} has no bars of {asset}; there are {', '.join(sorted(groups))}")
    return {asset: groups[asset]}


def _moment(value: Any, where: Callable[[int], str], row: int) -> int:
    """Unix seconds. Raises BadInput."""
    if isinstance(value, datetime):
        return int((value if value.tzinfo else value.replace(tzinfo=UTC)).timestamp())
    text = str(value).strip()
    if text.isascii() and text.isdigit():
        seconds = int(text)
        if seconds > 10**11:
            raise BadInput(f"{where(row)}: the time {text} looks like milliseconds; unix seconds are wanted")
        return seconds
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        raise BadInput(f"{where(row)}: a time must be unix seconds or ISO 8601, got {text!r:.40}") from None
    return int((moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp())


def _price(value: Any, name: str, where: Callable[[int], str], row: int) -> float:
    try:
        return float(value)
    except (TypeError, ValueError):
        raise BadInput(f"{where(row)}: {name} must be a number, got {value!r:.40}") from None


def _csv(path: Path) -> tuple[Table, Callable[[int], int]]:
    """Columns as text; lines that begin with # are comments."""
    try:
        text = path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError:
        raise BadInput(f"{path} is no text; is it Parquet? Its name must then end in .parquet") from None
    except OSError as error:
        raise SetupError(f"the bars {path} cannot be read: {error.strerror}") from None
    numbered = [
        (number, line)
        for number, line in enumerate(text.splitlines(), start=1)
        if line.strip() and not line.lstrip().startswith("#")
    ]
    if not numbered:
        raise BadInput(f"{path} has no bars")
    lines = [number for number, _ in numbered[1:]]
    rows = csv.reader(line for _, line in numbered)
    header = [cell.strip() for cell in next(rows)]
    columns: list[list[str]] = [[] for _ in header]
    for number, cells in zip(lines, rows, strict=False):
        if len(cells) != len(header):
            raise BadInput(f"{path}, line {number}: {len(header)} columns expected, got {len(cells)}")
        for column, cell in zip(columns, cells, strict=True):
            column.append(cell.strip())
    if len(set(header)) != len(header):
        raise BadInput(f"{path}, line {numbered[0][0]}: two columns have the same name: {', '.join(header)}")
    return dict(zip(header, columns, strict=True)), lines.__getitem__


def _parquet(path: Path) -> tuple[Table, Callable[[int], int]]:
    try:
        import pyarrow.parquet as parquet
        from pyarrow import ArrowException
    except ImportError:
        raise SetupError(
            "Parquet needs the extra `data`: pip install 'seawall[data]'; or give the bars as CSV"
        ) from None
    try:
        table = parquet.read_table(path)
    except OSError as error:
        raise SetupError(f"the bars {path} cannot be read: {error}") from None
    except ArrowException as error:
        raise BadInput(f"{path} is no Parquet file: {error}") from None
    wanted = (*_TIME, *_PRICES, *_NAME)
    kept = [name for name in table.column_names if name.lower().strip() in wanted]
    if not kept:
        raise BadInput(f"{path}: there is no column with a time or a price among {', '.join(table.column_names)}")
    return {name: table.column(name).to_pylist() for name in kept}, lambda row: row + 1
