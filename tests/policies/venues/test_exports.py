"""Books from the venues' own answers. Field names and shapes: Deribit API v2.1.1 (get_positions, get_account_summary,
get_book_summary_by_currency), Hyperliquid docs (clearinghouseState), dYdX v4 indexer (subaccount, perpetualMarkets, time). The figures
are made to add up by hand."""

from __future__ import annotations

import contextlib
import copy
import json
from decimal import Decimal
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from contracts.errors import BadInput
from policies.venues.exports import PARSERS, parse_export
from policies.venues.exports.deribit import instrument

DERIBIT: dict[str, Any] = {
    "summary": {
        "jsonrpc": "2.0",
        "result": {
            "currency": "BTC", "equity": 2.05, "balance": 2.1, "initial_margin": 0.2, "maintenance_margin": 0.1,
            "available_funds": 1.85, "options_value": -0.05,
        },
        "usIn": 1771900000000000, "usOut": 1771900000001000,
    },
    "positions": {
        "jsonrpc": "2.0",
        "result": [
            {
                "instrument_name": "BTC-PERPETUAL", "kind": "future", "direction": "sell", "size": -60000.0,
                "size_currency": -0.96, "average_price": 60000.0, "mark_price": 62500.0, "index_price": 62500.0,
                "floating_profit_loss": 0.04, "maintenance_margin": 0.01, "initial_margin": 0.02, "leverage": 50,
            },
            {
                "instrument_name": "BTC-27FEB26-60000-C", "kind": "option", "direction": "sell", "size": -0.5,
                "average_price": 0.08, "average_price_usd": 4800.0, "mark_price": 0.1, "index_price": 62500.0,
                "floating_profit_loss": -0.01, "delta": -0.4, "gamma": -0.00001, "vega": -5.0, "theta": 40.0,
            },
            {"instrument_name": "BTC-27MAR26", "kind": "future", "direction": "zero", "size": 0.0},
        ],
        "usOut": 1771900000002000,
    },
    "book": {"result": [{"instrument_name": "BTC-27FEB26-60000-C", "mark_iv": 71.5, "underlying_price": 62600.0}]},
}  # fmt: skip
HYPERLIQUID: dict[str, Any] = {
    "marginSummary": {"accountValue": "13200.0", "totalNtlPos": "34000.0", "totalRawUsd": "-3600.0", "totalMarginUsed": "5000.0"},
    "crossMarginSummary": {"accountValue": "12000.0", "totalNtlPos": "30000.0", "totalRawUsd": "2000.0", "totalMarginUsed": "3000.0"},
    "crossMaintenanceMarginUsed": "425.0",
    "withdrawable": "9000.0",
    "assetPositions": [
        {"type": "oneWay", "position": {
            "coin": "BTC", "szi": "0.4", "leverage": {"type": "cross", "value": 10}, "entryPx": "48000.0", "positionValue": "20000.0",
            "unrealizedPnl": "800.0", "returnOnEquity": "0.4", "liquidationPx": "30000.0", "marginUsed": "2000.0", "maxLeverage": 40,
            "cumFunding": {"allTime": "1", "sinceOpen": "1", "sinceChange": "0"}}},
        {"type": "oneWay", "position": {
            "coin": "ETH", "szi": "-4.0", "leverage": {"type": "cross", "value": 10}, "entryPx": "2600.0", "positionValue": "10000.0",
            "unrealizedPnl": "400.0", "returnOnEquity": "0.4", "liquidationPx": None, "marginUsed": "1000.0", "maxLeverage": 25,
            "cumFunding": {"allTime": "1", "sinceOpen": "1", "sinceChange": "0"}}},
        {"type": "oneWay", "position": {
            "coin": "SOL", "szi": "40.0", "leverage": {"type": "isolated", "value": 4, "rawUsd": "-2800.0"}, "entryPx": "95.0",
            "positionValue": "4000.0", "unrealizedPnl": "200.0", "returnOnEquity": "0.2", "liquidationPx": "71.0",
            "marginUsed": "1200.0", "maxLeverage": 20, "cumFunding": {"allTime": "0", "sinceOpen": "0", "sinceChange": "0"}}},
    ],
    "time": 1771900000123,
}  # fmt: skip
DYDX: dict[str, Any] = {
    "subaccount": {
        "address": "dydx1abc", "subaccountNumber": 0, "equity": "10500", "freeCollateral": "8500", "marginEnabled": True,
        "openPerpetualPositions": {
            "BTC-USD": {
                "market": "BTC-USD", "status": "OPEN", "side": "SHORT", "size": "-0.5", "maxSize": "-0.5", "entryPrice": "51000",
                "exitPrice": None, "realizedPnl": "0", "unrealizedPnl": "500", "createdAt": "2026-02-01T00:00:00.000Z",
                "netFunding": "0", "sumOpen": "0.5", "sumClose": "0", "subaccountNumber": 0,
            },
            "ETH-USD": {
                "market": "ETH-USD", "status": "OPEN", "side": "LONG", "size": "4", "entryPrice": "2400", "unrealizedPnl": "400",
                "netFunding": "0", "subaccountNumber": 0,
            },
        },
        "assetPositions": {"USDC": {"symbol": "USDC", "side": "LONG", "size": "25500", "assetId": "0", "subaccountNumber": 0}},
        "updatedAtHeight": "1", "latestProcessedBlockHeight": "2",
    },
    "markets": {
        "BTC-USD": {"ticker": "BTC-USD", "oraclePrice": "50000", "initialMarginFraction": "0.02", "maintenanceMarginFraction": "0.012"},
        "ETH-USD": {"ticker": "ETH-USD", "oraclePrice": "2500", "initialMarginFraction": "0.02", "maintenanceMarginFraction": "0.012"},
    },
    "time": {"iso": "2026-02-24T02:26:40.123Z", "epoch": 1771900000.123},
}  # fmt: skip
FIXTURES = {"deribit": DERIBIT, "hyperliquid": HYPERLIQUID, "dydx": DYDX}


def changed(venue: str, *path: Any, to: Any) -> str:
    body = copy.deepcopy(FIXTURES[venue])
    place: Any = body
    for key in path[:-1]:
        place = place[key]
    if to is None:
        del place[path[-1]]
    else:
        place[path[-1]] = to
    return json.dumps(body)


@pytest.mark.parametrize("venue", FIXTURES)
def test_the_margin_account_is_the_sum_of_its_parts(venue: str) -> None:
    found = parse_export(venue, json.dumps(FIXTURES[venue]))
    assert found.time_s == 1771900000
    for margin in found.snapshot.margins:
        profits = sum(
            (p.notional - p.entry_notional for p in found.snapshot.positions if p.venue == margin.venue), Decimal(0)
        )
        worth = sum((o.notional for o in found.snapshot.options if o.venue == margin.venue), Decimal(0))
        assert abs(margin.collateral + profits + worth - margin.account_value) < Decimal("1e-9")


def test_an_inverse_perpetual_is_linear_in_dollars_and_the_coins_move_too() -> None:
    found = parse_export("deribit", json.dumps(DERIBIT)).snapshot
    perp, coins = found.positions
    assert (perp.size, perp.entry_notional, perp.mark_price) == (-1, -60_000, 62_500)
    (margin,) = found.margins
    assert margin.account_value == Decimal("2.05") * 62_500
    # 2.05 coins of equity, 0.04 lost on the perpetual, 0.05 owed for the option: 2.14 coins of its own
    assert coins.size == pytest.approx(Decimal("2.14"), abs=Decimal("1e-15"))
    for price in (50_000, 62_500, 90_000):
        coin_pnl = Decimal(-60_000) * (1 / Decimal(60_000) - 1 / Decimal(price))
        ours = perp.size * price - perp.entry_notional
        assert ours == pytest.approx(coin_pnl * price, abs=Decimal("1e-15"))


def test_a_sold_option_has_its_terms_its_mark_in_dollars_and_its_volatility() -> None:
    (option,) = parse_export("deribit", json.dumps(DERIBIT)).snapshot.options
    assert (option.asset, option.is_call, option.strike, option.size) == ("BTC", True, 60_000, Decimal("-0.5"))
    assert option.expiry_s == 1_772_179_200, "2026-02-27 08:00 UTC"
    assert (option.mark_price, option.entry_notional) == (6_250, -2_400)
    assert (option.implied_vol, option.forward) == (Decimal("0.715"), 62_600)


def test_linear_instruments_are_in_dollars() -> None:
    body = {
        "timestamp": 1771900000123,
        "summary": {"currency": "USDC", "equity": 10_000, "initial_margin": 100, "maintenance_margin": 50, "available_funds": 9_000},
        "positions": [
            {"instrument_name": "ETH_USDC-PERPETUAL", "direction": "buy", "size": 2.5, "average_price": 2_400, "mark_price": 2_500,
             "index_price": 2_501},
        ],
    }  # fmt: skip
    found = parse_export("deribit", json.dumps(body)).snapshot
    (position,), (margin,) = found.positions, found.margins
    assert (position.size, position.entry_notional, position.mark_price) == (Decimal("2.5"), 6_000, 2_500)
    assert (margin.collateral, margin.account_value) == (9_750, 10_000)


def test_coins_without_positions_are_coins() -> None:
    body = changed("deribit", "positions", "result", to=[])
    found = parse_export("deribit", body).snapshot
    assert [(h.asset, h.amount) for h in found.holdings] == [("BTC", Decimal("2.05"))]


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("BTC-PERPETUAL", ("BTC", False, None, None)),
        ("ETH-5SEP25-3000-P", ("ETH", False, 1_757_059_200, Decimal(3_000))),
        ("XRP_USDC-27FEB26-0d625-C", ("XRP", True, 1_772_179_200, Decimal("0.625"))),
        ("BTC-31FEB26", None),
        ("BTC-27XXX26", None),
        ("BTC-PERPETUAL-60000-C", None),
        ("BTC", None),
    ],
)
def test_instrument_names(name: str, expected: tuple[object, ...] | None) -> None:
    found = instrument(name)
    assert (found and (found.base, found.linear, found.expiry_s, found.strike)) == expected


def test_hyperliquid_has_a_cross_account_and_one_for_each_isolated_position() -> None:
    found = parse_export("hyperliquid", json.dumps(HYPERLIQUID)).snapshot
    assert [(p.venue, p.asset, p.size, p.mark_price) for p in found.positions] == [
        ("hyperliquid", "BTC", Decimal("0.4"), 50_000),
        ("hyperliquid", "ETH", -4, 2_500),
        ("hyperliquid_sol", "SOL", 40, 100),
    ]
    cross, alone = found.margins
    assert (cross.account_value, cross.maintenance_requirement, cross.free_collateral) == (12_000, 425, 9_000)
    assert (alone.account_value, alone.maintenance_requirement) == (1_200, 100)
    assert dict(cross.terms)["max_leverage:BTC"] == 40


def test_a_dydx_subaccount_is_valued_at_its_markets_prices() -> None:
    found = parse_export("dydx", json.dumps(DYDX)).snapshot
    (margin,) = found.margins
    assert margin.account_value == 25_500 - 25_000 + 10_000
    assert margin.maintenance_requirement == 35_000 * Decimal("0.012")
    assert margin.free_collateral == 8_500
    assert [(p.asset, p.size, p.notional - p.entry_notional) for p in found.positions] == [
        ("BTC", Decimal("-0.5"), 500), ("ETH", 4, 400),
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("venue", "path", "value", "shown"),
    [
        ("deribit", ("summary", "result", "equity"), None, "deribit.summary.result: equity is missing"),
        ("deribit", ("positions", "result", 0, "direction"), "up", "must be buy or sell"),
        ("deribit", ("positions", "result", 0, "direction"), "buy", "cannot have the size -60000"),
        ("deribit", ("positions", "result", 0, "index_price"), 0, "must be above zero"),
        ("deribit", ("positions", "result", 0, "instrument_name"), "ETH-PERPETUAL", "not settled in BTC"),
        ("deribit", ("positions", "result", 0, "size"), "many", "must be a number"),
        ("deribit", ("positions", "usOut"), None, "the time is missing"),
        ("deribit", ("positions", "usOut"), 1771900900000000, "900 s apart"),
        ("hyperliquid", ("time",), None, "time is missing"),
        ("hyperliquid", ("crossMarginSummary", "accountValue"), "12500", "is not raw USD"),
        ("hyperliquid", ("assetPositions", 0, "position", "szi"), "0", "not zero"),
        ("hyperliquid", ("assetPositions", 0, "position", "leverage", "type"), "both", "must be cross or isolated"),
        ("dydx", ("subaccount", "equity"), "12000", "of one moment"),
        ("dydx", ("markets", "BTC-USD"), None, "BTC-USD is missing"),
        ("dydx", ("subaccount", "openPerpetualPositions", "ETH-USD", "side"), "UP", "must be LONG or SHORT"),
        ("dydx", ("subaccount", "openPerpetualPositions", "ETH-USD", "size"), "-4", "a long cannot"),
        ("dydx", ("subaccount", "assetPositions", "USDC", "symbol"), "DYDX", "only USDC"),
        ("dydx", ("time",), None, "time is missing"),
    ],
)
def test_what_is_missing_or_contradictory_is_named(venue: str, path: tuple[Any, ...], value: Any, shown: str) -> None:
    with pytest.raises(BadInput, match=shown.replace("(", r"\(")):
        parse_export(venue, changed(venue, *path, to=value))


@pytest.mark.parametrize("text", ["", "[]", "{", '{"time": NaN}', "[" * 100_000])
def test_what_is_no_document_is_bad_input(text: str) -> None:
    for venue in PARSERS:
        with pytest.raises(BadInput):
            parse_export(venue, text)


def test_an_unknown_venue_is_bad_input() -> None:
    with pytest.raises(BadInput, match="known are deribit, dydx, hyperliquid"):
        parse_export("nowhere", "{}")


@given(st.sampled_from(list(FIXTURES)), st.data())
def test_no_change_of_a_value_raises_anything_but_bad_input(venue: str, data: st.DataObject) -> None:
    body: Any = copy.deepcopy(FIXTURES[venue])
    place = body
    while True:
        keys = list(place) if isinstance(place, dict) else list(range(len(place)))
        key = data.draw(st.sampled_from(keys))
        if not isinstance(place[key], dict | list) or not place[key] or data.draw(st.booleans()):
            break
        place = place[key]
    place[key] = data.draw(
        st.sampled_from((None, "", "x", "NaN", "1e999999", -1, 0, True, [], {}, [1], {"a": 1}, 1e300))
    )
    with contextlib.suppress(BadInput):
        parse_export(venue, json.dumps(body))
