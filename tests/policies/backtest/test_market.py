"""Bars: what is refused, with the place, and what a price exactly is."""

from __future__ import annotations

from decimal import Decimal
from pathlib import Path

import numpy as np
import pytest

from contracts.errors import BadInput, SetupError
from policies.backtest import align, series
from policies.backtest.market import exact
from tests.policies.backtest.rig import START_S, bars
from wallet.market_files import asset_of, read_market

HEADER = "timestamp,open,high,low,close\n"


def test_a_price_is_the_decimal_that_was_written() -> None:
    assert exact(float("181.45")) == Decimal("181.45")
    assert exact(float("0.00001234")) == Decimal("0.00001234")


@pytest.mark.parametrize(
    ("closes", "message"),
    [
        ([100.0, float("nan")], "row 1: open must be finite and positive"),
        ([100.0, -1.0], "row 1: open must be finite"),
    ],
)
def test_a_price_that_is_none_is_refused_with_its_row(closes: list[float], message: str) -> None:
    with pytest.raises(BadInput, match=message):
        series([0, 60], closes, closes, closes, closes, lambda row: f"row {row}")


def test_a_bar_that_closes_outside_its_range_is_refused() -> None:
    with pytest.raises(
        BadInput, match="row 1: open and close must lie between low and high, got open 10, high 11, low 9, close 12"
    ):
        series([0, 60], [10, 10], [11, 11], [9, 9], [10, 12], lambda row: f"row {row}")


def test_bars_out_of_order_are_refused() -> None:
    with pytest.raises(BadInput, match="row 1: bars must be in order"):
        series([60, 0], [1, 1], [1, 1], [1, 1], [1, 1], lambda row: f"row {row}")


def test_missing_bars_are_an_error_unless_they_are_known_of() -> None:
    times = [0, 60, 240, 300]
    given = series(times, [1] * 4, [1] * 4, [1] * 4, [1] * 4, str)
    with pytest.raises(
        BadInput, match=r"bars are missing in 1 place\(s\), the first between 1970-01-01T00:01Z and 1970-01-01T00:04Z"
    ):
        align({"ETH": given})
    assert align({"ETH": given}, gaps=True).gaps == 1


def test_two_markets_must_have_the_same_bars() -> None:
    one, other = bars([1, 2, 3]), bars([1, 2])
    with pytest.raises(BadInput, match="BTC and ETH have different bars: 1 of them"):
        align({"ETH": one, "BTC": other})


def test_a_window_cuts_the_bars_and_an_empty_one_says_what_there_is() -> None:
    cut = align({"ETH": bars([1, 2, 3, 4])}, from_s=START_S + 60, to_s=START_S + 180)
    assert cut.close[:, 0].tolist() == [2, 3]
    with pytest.raises(
        BadInput, match="the bars of ETH run from 2023-11-14T22:14Z to 2023-11-14T22:17Z: none is in that window"
    ):
        align({"ETH": bars([1, 2, 3, 4])}, from_s=0, to_s=60)


def test_without_an_open_a_bar_opens_where_the_one_before_closed() -> None:
    given = series([0, 60], None, [12, 15], [9, 11], [10, 12], str)
    assert given.open.tolist() == [10, 11]  # 10 lies below the second bar's low of 11


def test_columns_may_be_called_and_ordered_as_exchanges_do(tmp_path: Path) -> None:
    file = tmp_path / "x.csv"
    file.write_text("# a comment\nsymbol,ts,close,low,high,open,volume\nETHUSDT,0,2,1,3,1,9\nBTC-USD,0,20,10,30,10,9\n")
    found = read_market(file)
    assert sorted(found) == ["BTC", "ETH"]
    assert found["ETH"].close.tolist() == [2]
    assert sorted(read_market(file, "BTC")) == ["BTC"]
    with pytest.raises(BadInput, match="no bars of SOL; there are BTC, ETH"):
        read_market(file, "SOL")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("timestamp,open,high,low,closing\n0,1,1,1,1\n", "no column 'close' among .*; did you mean closing"),
        ("when,open,high,low,close\n0,1,1,1,1\n", r"no column with a time \(timestamp, time, ts, date\) among when"),
        (HEADER + "0,1,1,1,x\n", "line 2: close must be a number, got 'x'"),
        (HEADER + "0,1,1,1\n", "line 2: 5 columns expected, got 4"),
        (HEADER + "1700000000000,1,1,1,1\n", "line 2: the time 1700000000000 looks like milliseconds"),
        (HEADER + "# c\n0,1,1,1,1\nsoon,1,1,1,1\n", "line 4: a time must be unix seconds or ISO 8601, got 'soon'"),
        (HEADER, "has no bars"),
        ("", "has no bars"),
    ],
)
def test_what_is_wrong_with_a_file_is_said_with_its_line_or_column(tmp_path: Path, text: str, message: str) -> None:
    file = tmp_path / "eth.csv"
    file.write_text(text)
    with pytest.raises(BadInput, match=message):
        read_market(file)


def test_a_file_that_is_not_there_or_not_what_it_says(tmp_path: Path) -> None:
    with pytest.raises(SetupError, match="cannot be read"):
        read_market(tmp_path / "none.csv")
    (tmp_path / "no.parquet").write_bytes(b"nothing of the kind")
    with pytest.raises(BadInput, match="is no Parquet file"):
        read_market(tmp_path / "no.parquet")


def test_parquet_and_csv_mean_the_same_bars(tmp_path: Path) -> None:
    pyarrow = pytest.importorskip("pyarrow", reason="Parquet needs the extra `data`")
    parquet = pytest.importorskip("pyarrow.parquet", reason="Parquet needs the extra `data`")
    columns = {"ts": [0, 60], "open": [1.5, 2.25], "high": [3.0, 3.0], "low": [1.0, 1.0], "close": [2.25, 2.0]}
    parquet.write_table(pyarrow.table(columns), tmp_path / "eth_1m.parquet")
    rows = "".join(f"{','.join(str(columns[c][i]) for c in columns)}\n" for i in range(2))
    (tmp_path / "eth_1m.csv").write_text(",".join(columns) + "\n" + rows)
    one, other = (read_market(tmp_path / f"eth_1m.{end}")["ETH"] for end in ("csv", "parquet"))
    for name in ("times_s", "open", "high", "low", "close"):
        assert np.array_equal(getattr(one, name), getattr(other, name))


@pytest.mark.parametrize("symbol", ["ETH", "ETHUSDT", "eth-usd", "ETH_USDC", "ETH-PERP"])
def test_a_pair_is_called_by_its_base(symbol: str) -> None:
    assert asset_of(symbol) == "ETH"
