"""Reading bars."""

from __future__ import annotations

from pathlib import Path

import pytest

from contracts.devnet import Bar, read_bars, shipped
from contracts.devnet.bars import parse_time
from contracts.errors import BadInput

HEADER = "timestamp,open,high,low,close\n"
GOOD = HEADER + "1583992800,181.45,182,181,181.5\n1583992860,181.5,181.6,181.2,181.3\n"


def write(folder: Path, text: str) -> Path:
    path = folder / "bars.csv"
    path.write_text(text)
    return path


def test_prices_become_integers_of_eight_decimals(tmp_path: Path) -> None:
    assert read_bars(write(tmp_path, GOOD))[0] == Bar(
        1_583_992_800, 18_145_000_000, 18_200_000_000, 18_100_000_000, 18_150_000_000
    )


def test_unix_seconds_and_iso_8601_and_a_volume_column_read_the_same(tmp_path: Path) -> None:
    iso = (
        "# a comment\nTimestamp,Open,High,Low,Close,Volume\n"
        "2020-03-12T06:00:00Z,181.45,182,181,181.5,12\n2020-03-12 07:01+01:00,181.5,181.6,181.2,181.3,0\n"
    )
    assert read_bars(write(tmp_path, iso)) == read_bars(write(tmp_path, GOOD))


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ("1583992800,181,182,180,181\n1583992980,181,182,180,181\n", r"line 3: 2 minute\(s\) are missing before"),
        ("1583992860,181,182,180,181\n1583992800,181,182,180,181\n", "line 3: bars must be in order"),
        ("1583992800,181,182,180,181\n1583992800,181,182,180,181\n", "line 3: bars must be in order"),
        ("1583992801,181,182,180,181\n", "line 2: a bar starts on a whole minute"),
        ("1583992800,181,182,0,181\n", "line 2: low must be positive"),
        ("1583992800,181,182,-3,181\n", "line 2: low must be positive"),
        ("1583992800,181,182,nan,181\n", "line 2: low must be positive"),
        ("1583992800,181,inf,180,181\n", "line 2: high must be positive"),
        ("1583992800,181,182,180,abc\n", "line 2: close must be a number, got 'abc'"),
        ("1583992800,181,180,182,181\n", "line 2: open and close must lie between low and high"),
        ("1583992800,181,182,180,183\n", "line 2: open and close must lie between low and high"),
        ("1583992800,181,182,180\n", "line 2: 5 columns expected, got 4"),
        ("# note\n\nyesterday,181,182,180,181\n", "line 4: a time must be unix seconds or ISO 8601"),
        ("", "has no bars"),
    ],
)
def test_a_bad_row_is_named_by_its_line(tmp_path: Path, rows: str, message: str) -> None:
    with pytest.raises(BadInput, match=message):
        read_bars(write(tmp_path, HEADER + rows))


@pytest.mark.parametrize("header", ["time,open,high,low,close\n", "timestamp,open,high,low\n", "timestamp,open,open\n"])
def test_a_wrong_header_is_refused(tmp_path: Path, header: str) -> None:
    with pytest.raises(BadInput, match="line 1: the header must be timestamp,open,high,low,close"):
        read_bars(write(tmp_path, header))


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match="cannot read bars from"):
        read_bars(tmp_path / "none.csv")


def test_a_window_is_cut_out_and_must_be_there(tmp_path: Path) -> None:
    path = write(tmp_path, GOOD)
    assert len(read_bars(path, from_s=1_583_992_860)) == 1
    assert len(read_bars(path, to_s=1_583_992_860)) == 1
    with pytest.raises(BadInput, match="starts at 2020-03-12T06:00Z, after the 2020-03-12T05:59Z"):
        read_bars(path, from_s=1_583_992_740)
    with pytest.raises(BadInput, match="ends at 2020-03-12T06:02Z, before the 2020-03-12T06:03Z"):
        read_bars(path, to_s=1_583_992_980)


@pytest.mark.parametrize(
    ("name", "low"),
    [("eth_2020-03-12", 86.00), ("eth_2021-05-19", 1888.00), ("eth_2024-08-05", 2111.00), ("eth_2023-07-04", 1931.58)],
)
def test_the_shipped_windows_are_whole_days(name: str, low: float) -> None:
    bars = read_bars(shipped(name))
    assert len(bars) == 1440
    assert min(bar.low for bar in bars) == round(low * 10**8)


def test_an_unknown_window_names_those_that_ship() -> None:
    with pytest.raises(BadInput, match="eth_2020-03-12, eth_2021-05-19"):
        shipped("btc")


def test_a_time_without_zone_is_utc() -> None:
    assert parse_time("2020-03-12T06:00") == parse_time("1583992800") == 1_583_992_800
