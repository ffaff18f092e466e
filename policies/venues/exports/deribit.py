"""Deribit: `private/get_positions` and `private/get_account_summary` of one currency, with `public/get_book_summary_by_currency` for
implied volatilities.

One object: `positions`, `summary` and, where there are options, `book` - each the whole JSON-RPC answer or its `result`; the time is the
answers' `usOut` (microseconds), or `timestamp` (milliseconds) beside them. An inverse future of N USD opened at A is worth
N (1/A - 1/P) coins at P, which is N P / A - N in USD: linear in P, a position of N / A coins for N. The account's own coins move with the
price too, so they are a position that cost nothing. Options are marked in coins (linear ones in USDC): Black's value over the forward. A
volatility that the book does not have follows from the option's own mark (`exports.volatility`).
Source: Deribit API v2.1.1; Deribit, "Inverse perpetual".
"""

from __future__ import annotations

import calendar
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal, localcontext

from policies.margin import EXACT, ratio
from policies.portfolio import Holding, Margin, Option, Position, Price
from policies.venues import Snapshot
from policies.venues.exports.base import Export, Node, document
from policies.venues.exports.volatility import Listed, vol_of

VENUE = "deribit"
MODEL = "deribit"
_EXPIRY_HOUR_UTC = 8
_INSTRUMENT = re.compile(
    r"(?P<base>[A-Z0-9]+)(?:_(?P<quote>USDC|USDT))?-(?P<expiry>PERPETUAL|\d{1,2}[A-Z]{3}\d{2})(?:-(?P<strike>\d+(?:d\d+)?)-(?P<kind>[CP]))?\Z"
)
_MONTHS = {name.upper(): i for i, name in enumerate(calendar.month_abbr) if name}


@dataclass(frozen=True, slots=True)
class Instrument:
    """What a name such as BTC-PERPETUAL, BTC-27FEB26 or BTC_USDC-27FEB26-60000-C says. `expiry_s` None: perpetual. `linear`: settled in
    a dollar coin; otherwise in the base coin."""

    base: str
    linear: bool
    expiry_s: int | None
    strike: Decimal | None
    is_call: bool


def instrument(name: str) -> Instrument | None:
    """None for a name of another form. Expiries are at 08:00 UTC; `d` is the decimal point of small strikes."""
    found = _INSTRUMENT.match(name)
    if found is None:
        return None
    expiry_s = None
    if found["expiry"] != "PERPETUAL":
        text = found["expiry"].rjust(7, "0")
        day, month, year = int(text[:2]), _MONTHS.get(text[2:5]), 2000 + int(text[5:])
        if month is None or not 1 <= day <= calendar.monthrange(year, month)[1]:
            return None
        expiry_s = calendar.timegm((year, month, day, _EXPIRY_HOUR_UTC, 0, 0))
    strike = None if found["strike"] is None else Decimal(found["strike"].replace("d", "."))
    if strike is not None and expiry_s is None:
        return None
    return Instrument(found["base"], found["quote"] is not None, expiry_s, strike, found["kind"] == "C")


def parse_deribit(text: str) -> Export:
    """Raises BadInput."""
    root = document(text, VENUE)
    summary, nodes = _result(root["summary"]), [n for n in _result(root["positions"]).items() if n["size"].number()]
    time_s = _time_s(root)
    currency = summary["currency"].text()
    venue = f"{VENUE}_{currency.lower()}"
    linear = currency in ("USDC", "USDT")
    book = {one["instrument_name"].text(): one for one in _result(root["book"]).items()} if root.has("book") else {}
    chain = tuple(_listed(book))
    positions: list[Position] = []
    options: list[Option] = []
    prices: dict[str, Price] = {}
    for node in nodes:
        name = node["instrument_name"].text()
        what = instrument(name)
        if what is None:
            node["instrument_name"].fail(f"{name!r} is no name of a future or an option")
        if what.linear != linear or (not linear and what.base != currency):
            node["instrument_name"].fail(
                f"{name} is not settled in {currency}: export each currency with its own summary"
            )
        index = node["index_price"].number()
        if index <= 0:
            node["index_price"].fail("must be above zero")
        prices[what.base] = Price(what.base, index, time_s, f"{VENUE} index")
        if what.strike is None:
            positions.append(_future(venue, node, what))
        else:
            options.append(_option(venue, node, what, index, book.get(name), time_s, chain))
    equity = summary["equity"].number()
    if not linear and currency not in prices:
        # Nothing is open, so no answer has an index price: the coins are coins.
        return Export(VENUE, time_s, Snapshot(holdings=(Holding(venue, currency, max(equity, Decimal(0))),)))
    rate = Decimal(1) if linear else prices[currency].value
    with localcontext(EXACT):
        value = equity * rate
        profits = sum((p.notional - p.entry_notional for p in positions), Decimal(0))
        worth = sum((o.notional for o in options), Decimal(0))
        rest = value - profits - worth
        if not linear:
            positions.append(Position(venue, currency, ratio(rest, rate, up=False), Decimal(0), rate))
            profits += positions[-1].notional
        gross = sum((abs(p.notional) for p in positions), Decimal(0)) + sum(
            (abs(o.notional) for o in options), Decimal(0)
        )
        required = summary["maintenance_margin"].number() * rate
        initial = summary["initial_margin"].number() * rate
        margin = Margin(
            venue=venue,
            collateral=value - profits - worth,
            account_value=value,
            maintenance_requirement=required,
            free_collateral=max(summary["available_funds"].number() * rate, Decimal(0)),
            maintenance_ratio=ratio(required, gross, up=True) if gross else Decimal(0),
            initial_ratio=ratio(initial, gross, up=True) if gross else Decimal(0),
            model=MODEL,
        )
    parts = Snapshot(
        positions=tuple(p for p in positions if p.size),
        options=tuple(options),
        margins=(margin,),
        prices=tuple(prices.values()),
    )
    return Export(VENUE, time_s, parts)


def _future(venue: str, node: Node, what: Instrument) -> Position:
    size, average, mark = _signed(node), node["average_price"].number(), node["mark_price"].number()
    if average <= 0 or mark <= 0:
        node.fail("average_price and mark_price must be above zero")
    if what.linear:
        with localcontext(EXACT):
            return Position(venue, what.base, size, size * average, mark)
    return Position(venue, what.base, ratio(size, average, up=False), size, mark)


def _option(
    venue: str, node: Node, what: Instrument, index: Decimal, quoted: Node | None, time_s: int, chain: Sequence[Listed]
) -> Option:
    size, mark = _signed(node), node["mark_price"].number()
    rate = Decimal(1) if what.linear else index
    vol = forward = None
    if quoted is not None:
        vol, forward = _vol(quoted), _forward(quoted)
    assert what.strike is not None
    assert what.expiry_s is not None
    ahead = index if forward is None else forward
    with localcontext(EXACT):
        if vol is None:
            price = mark if what.linear else mark * ahead
            vol = vol_of(price, ahead, what.strike, what.expiry_s, time_s, chain, is_call=what.is_call)
        paid = (
            node["average_price_usd"].number()
            if node.has("average_price_usd")
            else node["average_price"].number() * rate
        )
        return Option(
            venue=venue,
            asset=what.base,
            is_call=what.is_call,
            strike=what.strike,
            expiry_s=what.expiry_s,
            size=size,
            entry_notional=size * paid,
            mark_price=mark * rate,
            implied_vol=vol,
            forward=forward,
        )


def _listed(book: Mapping[str, Node]) -> Iterator[Listed]:
    """The options of the book that have all that a surface needs."""
    for name, quoted in book.items():
        what = instrument(name)
        if what is None or what.strike is None or what.expiry_s is None:
            continue
        vol, forward = _vol(quoted), _forward(quoted)
        if vol is not None and forward is not None:
            yield Listed(what.expiry_s, what.strike, forward, vol)


def _vol(quoted: Node) -> Decimal | None:
    return quoted["mark_iv"].number().scaleb(-2) if quoted.has("mark_iv") else None


def _forward(quoted: Node) -> Decimal | None:
    return quoted["underlying_price"].number() if quoted.has("underlying_price") else None


def _signed(node: Node) -> Decimal:
    """A size with the sign of its direction. A sign that contradicts it is an error."""
    direction, size = node["direction"].text(), node["size"].number()
    if direction not in ("buy", "sell"):
        node["direction"].fail(f"must be buy or sell for a position of {size:f}, got {direction}")
    if direction == "buy" and size < 0:
        node["size"].fail(f"a bought position cannot have the size {size:f}")
    return abs(size) if direction == "buy" else -abs(size)


def _result(node: Node) -> Node:
    """An answer's `result`, or what was saved of it."""
    if node.has("error"):
        node.fail(f"the venue answered with an error: {node.value['error']!s:.120}")
    return node["result"] if node.has("result") else node


def _time_s(root: Node) -> int:
    if root.has("timestamp"):
        return root["timestamp"].whole() // 1_000
    times = [root[name]["usOut"].whole() // 1_000_000 for name in ("positions", "summary") if root[name].has("usOut")]
    if len(times) < 2:
        root.fail("the time is missing: save whole answers (with usOut), or add timestamp in milliseconds")
    if max(times) - min(times) > 60:
        root.fail(f"positions and summary are {max(times) - min(times)} s apart: export them together")
    return min(times)
