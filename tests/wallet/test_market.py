"""Prices from files and from a real HTTP server: each with its time and source, a failing source as a missing fact."""

from __future__ import annotations

import asyncio
import os
import re
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from decimal import Decimal
from pathlib import Path

import pytest
from aiohttp import web

from contracts.errors import BadInput
from policies.portfolio import Missing, Price
from wallet.market import (
    MAX_BYTES,
    HttpMarket,
    HttpSource,
    RecordedMarket,
    RecordedPrices,
    WatchedFile,
    bars_of,
    prices_of,
    sources_of,
)

NOW_S = 1_771_900_000
CSV = "time,asset,price\n0,ETH,100\n60,ETH,110\n120,ETH,99\n180,ETH,99\n60,BTC,50000.5\n"


@asynccontextmanager
async def server(answer: Callable[[web.Request], Awaitable[web.StreamResponse]]) -> AsyncIterator[str]:
    app = web.Application()
    app.router.add_get("/{tail:.*}", answer)
    runner = web.AppRunner(app, shutdown_timeout=0.1)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    try:
        host, port = runner.addresses[0][:2]
        yield f"http://{host}:{port}/price?key=secret"
    finally:
        await runner.cleanup()


async def ask(url: str, path: str = "data.0.last", **more: object) -> tuple[tuple[Price, ...], tuple[Missing, ...]]:
    return await HttpMarket((HttpSource("ETH", url, path, **more),), timeout_s=0.5).prices(NOW_S)  # type: ignore[arg-type]


async def test_a_recorded_file_says_the_newest_figure_that_is_not_from_the_future(tmp_path: Path) -> None:
    file = tmp_path / "prices.csv"
    file.write_text(CSV)
    market = RecordedMarket.read(file)
    found, missing = await market.prices(119)
    assert found == (
        Price("BTC", Decimal("50000.5"), 60, "prices.csv"), Price("ETH", Decimal(110), 60, "prices.csv"),
    )  # fmt: skip
    assert missing == ()
    found, missing = await market.prices(30)
    assert [p.value for p in found] == [100]
    assert [m.what for m in missing] == ["price:BTC"]


def test_json_and_csv_say_the_same() -> None:
    rows = '[{"time": 0, "asset": "ETH", "price": 100.10}, {"time": 60, "asset": "ETH", "price": "110"}]'
    assert bars_of(rows, "x") == bars_of("time,asset,price\n0,ETH,100.10\n60,ETH,110\n", "x")


@pytest.mark.parametrize(
    "text", ["", "time,asset\n1,ETH\n", "time,asset,price\n1,ETH,-1\n", "time,asset,price\n1,ETH,NaN\n", "[1]", "[{"]
)
def test_a_file_without_prices_is_bad_input(text: str) -> None:
    with pytest.raises(BadInput):
        bars_of(text, "x")


def test_returns_are_simple_and_of_equal_periods() -> None:
    market = RecordedMarket("x", bars_of(CSV, "x"))
    found = market.returns("ETH", 60, 200, 3)
    assert found.values == (Decimal("0.1"), Decimal("-0.1"), Decimal(0))
    assert (found.period_s, found.until_s, found.source) == (60, 180, "x")
    with pytest.raises(BadInput, match="no price of ETH at -60"):
        market.returns("ETH", 60, 200, 4)
    with pytest.raises(BadInput, match="no price of SOL"):
        market.returns("SOL", 60, 200, 1)


async def test_a_live_price_has_the_answers_time_and_a_source_without_secrets() -> None:
    async def answer(_: web.Request) -> web.StreamResponse:
        return web.json_response({"data": [{"last": "2500.25", "ts": 1_771_899_990_123}]})

    async with server(answer) as url:
        (price,), missing = await ask(url, time_path="data.0.ts", time_divisor=1_000)
    assert missing == ()
    assert (price.asset, price.value, price.time_s) == ("ETH", Decimal("2500.25"), 1_771_899_990)
    assert price.source.startswith("http://127.0.0.1:")
    assert "secret" not in price.source


@pytest.mark.parametrize(
    ("body", "status"),
    [
        ('{"data": []}', 200),
        ('{"data": [{"last": -1}]}', 200),
        ('{"data": [{"last": null}]}', 200),
        ("NaN", 200),
        ("not json", 200),
        ('{"data": [{"last": 1}]}', 500),
        ('{"data": [{"last": 1}]}', 302),
        (" " * (MAX_BYTES + 1), 200),
    ],
    ids=["no entry", "negative", "null", "nan", "no json", "an error", "elsewhere", "too long"],
)
async def test_an_answer_without_a_price_is_a_missing_fact(body: str, status: int) -> None:
    async def answer(_: web.Request) -> web.StreamResponse:
        return web.Response(
            text=body, status=status, headers={"Location": "http://127.0.0.1:1/"} if status == 302 else {}
        )

    async with server(answer) as url:
        found, (missing,) = await ask(url)
    assert found == ()
    assert missing.what == "price:ETH"
    assert "secret" not in missing.why


async def test_a_source_that_does_not_answer_in_time_is_missing() -> None:
    never = asyncio.Event()

    async def answer(_: web.Request) -> web.StreamResponse:
        await never.wait()
        raise AssertionError("it is never set")

    async with server(answer) as url:
        market = HttpMarket((HttpSource("ETH", url, "x"),), timeout_s=0.05)
        found, (missing,) = await market.prices(NOW_S)
    assert found == ()
    assert "TimeoutError" in missing.why


async def test_sources_are_asked_together_and_none_hides_another() -> None:
    async def answer(_: web.Request) -> web.StreamResponse:
        return web.json_response({"data": [{"last": 2500}]})

    recorded = RecordedMarket("file", bars_of(CSV, "file"))
    async with server(answer) as url:
        live = HttpMarket((HttpSource("ETH", url, "data.0.last"), HttpSource("ETH", "http://127.0.0.1:1/", "x")))
        found, missing = await prices_of([recorded, live], NOW_S)
    assert sorted(p.value for p in found if p.asset == "ETH") == [99, 2500]
    assert [m.what for m in missing] == ["price:ETH"]


def watched(file: Path, text: str = CSV) -> RecordedPrices:
    file.write_text(text)
    (source,) = sources_of([file.name], file.parent)
    assert isinstance(source, RecordedPrices)
    return source


async def said(source: RecordedPrices, now_s: int = 119) -> dict[str, Decimal]:
    found, missing = await source.prices(now_s)
    assert missing == ()
    return {price.asset: price.value for price in found}


async def test_a_recorded_file_is_read_again_when_it_was_replaced_or_written_to(tmp_path: Path) -> None:
    source = watched(tmp_path / "p.csv")
    assert await said(source) == {"ETH": 110, "BTC": Decimal("50000.5")}
    (tmp_path / "new").write_text(CSV.replace("110", "111"))
    os.utime(tmp_path / "new", (5, 5))
    (tmp_path / "new").rename(tmp_path / "p.csv")
    assert (await said(source))["ETH"] == 111
    with (tmp_path / "p.csv").open("a") as opened:
        opened.write("119,ETH,112\n")
    assert (await said(source))["ETH"] == 112


async def test_a_recorded_file_that_did_not_change_is_not_read_again(tmp_path: Path) -> None:
    source = watched(tmp_path / "p.csv")
    assert await source.file.read() is await source.file.read()


@pytest.mark.parametrize(
    ("text", "why"),
    [
        (CSV + "119,ETH,11", "middle of a line"),
        (CSV + "119,ET", "middle of a line"),
        ("", "p.csv has no prices"),
        ("time,asset,price\n119,ETH,\n", "p.csv, row 1: needs"),
        ('[{"time": 119, "asset": "ETH", "pri', "middle of a line"),
        ("\udcff", "cannot read .*p.csv"),
        (None, "cannot read .*p.csv: No such file"),
    ],
    ids=["half a price", "half a name", "emptied", "no price", "half a JSON", "no text", "gone"],
)
async def test_a_recorded_file_that_is_half_written_is_missing_until_it_is_whole(
    tmp_path: Path, text: str | None, why: str
) -> None:
    file = tmp_path / "p.csv"
    source = watched(file)
    if text is None:
        file.unlink()
    else:
        file.write_text(text, errors="surrogateescape")
    for _ in range(2):
        found, (missing,) = await source.prices(119)
        assert found == ()
        assert missing.what == "what p.csv says"
        assert re.search(why, missing.why)
        assert "p.csv" in missing.why
    file.write_text(CSV)
    assert (await said(source))["ETH"] == 110


async def test_an_asset_that_a_recorded_file_no_longer_has_is_missing(tmp_path: Path) -> None:
    source = watched(tmp_path / "p.csv")
    (tmp_path / "p.csv").write_text("time,asset,price\n60,ETH,110\n")
    found, missing = await source.prices(119)
    assert [price.asset for price in found] == ["ETH"]
    assert missing == (Missing("price:BTC", "p.csv had one and has none any more; is it half-written?"),)


async def test_a_file_that_changes_while_it_is_read_is_not_believed(tmp_path: Path) -> None:
    path = tmp_path / "p.csv"
    path.write_text(CSV)

    def read_and_append(path: Path) -> RecordedMarket:
        found = RecordedMarket.read(path)
        with path.open("a") as opened:
            opened.write("180,ETH,1\n")
        return found

    with pytest.raises(BadInput, match="changes while it is read"):
        await WatchedFile(path, read_and_append).read()


def test_a_profile_names_files_and_addresses(tmp_path: Path) -> None:
    (tmp_path / "p.csv").write_text(CSV)
    recorded, live = sources_of(["p.csv", "ETH=https://example.org/v1?key=k#data.0.last"], tmp_path)
    assert isinstance(recorded, RecordedPrices)
    assert isinstance(live, HttpMarket)
    assert live.sources == (HttpSource("ETH", "https://example.org/v1?key=k", "data.0.last"),)
    with pytest.raises(BadInput, match=r"ASSET=URL#PATH.TO.PRICE, got ETH=https://example.org\Z"):
        sources_of(["ETH=https://example.org/v1?key=k"], tmp_path)


def test_returns_that_do_not_end_are_rounded_to_twelve_places() -> None:
    market = RecordedMarket("x", bars_of("time,asset,price\n0,ETH,3\n60,ETH,4\n", "x"))
    assert market.returns("ETH", 60, 60, 1).values == (Decimal("0.333333333333"),)
