"""Hyperliquid: the answer of `{"type": "clearinghouseState", "user": ...}`.

Account value = raw USD + sum of size x mark; the mark is positionValue / |size|. Cross positions share one margin account; an isolated
one stands for itself, with its own raw USD. Maintenance of a position is |notional| / (2 x max leverage) before tiers.
Source: Hyperliquid docs, info endpoint "Retrieve user's perpetuals account summary"; "Margining".
"""

from __future__ import annotations

from decimal import Decimal, localcontext

from policies.margin import EXACT, ratio
from policies.portfolio import Margin, Position, Price
from policies.venues import Snapshot
from policies.venues.exports.base import Export, Node, document

VENUE = "hyperliquid"
MODEL = "hyperliquid"
_TOLERANCE = Decimal("0.02")
"""USD by which an account value may differ from its parts: the venue rounds each figure to 6 decimals or fewer."""


def parse_hyperliquid(text: str) -> Export:
    """Raises BadInput."""
    root = document(text, VENUE)
    time_s = root["time"].whole() // 1_000
    found = [(one["position"]["leverage"]["type"].text(), one["position"]) for one in root["assetPositions"].items()]
    for kind, node in found:
        if kind not in ("cross", "isolated"):
            node["leverage"]["type"].fail(f"must be cross or isolated, got {kind}")
    cross = [_position(VENUE, node) for kind, node in found if kind == "cross"]
    positions, margins = list(cross), []
    summary = root["crossMarginSummary"]
    value, raw = summary["accountValue"].number(), summary["totalRawUsd"].number()
    margins.append(
        _margin(
            VENUE,
            cross,
            value,
            raw,
            root["crossMaintenanceMarginUsed"].number(),
            max(value - summary["totalMarginUsed"].number(), Decimal(0)),
            [node for kind, node in found if kind == "cross"],
            summary,
        )
    )
    for kind, node in found:
        if kind == "cross":
            continue
        venue = f"{VENUE}_{node['coin'].text().lower()}"
        one = _position(venue, node)
        raw = node["leverage"]["rawUsd"].number()
        with localcontext(EXACT):
            value = raw + one.notional
        positions.append(one)
        required = ratio(abs(one.notional), 2 * node["maxLeverage"].number(), up=True)
        margins.append(_margin(venue, [one], value, raw, required, Decimal(0), [node], node))
    prices = {p.asset: Price(p.asset, p.mark_price, time_s, f"{VENUE} mark") for p in positions}
    return Export(
        VENUE, time_s, Snapshot(positions=tuple(positions), margins=tuple(margins), prices=tuple(prices.values()))
    )


def _position(venue: str, node: Node) -> Position:
    size, value = node["szi"].number(), node["positionValue"].number()
    if not size or value <= 0:
        node.fail("a position has a size that is not zero and a value above zero")
    with localcontext(EXACT):
        entry = size * node["entryPx"].number()
    return Position(venue, node["coin"].text(), size, entry, ratio(value, abs(size), up=False))


def _margin(
    venue: str,
    held: list[Position],
    value: Decimal,
    raw: Decimal,
    required: Decimal,
    free: Decimal,
    nodes: list[Node],
    at: Node,
) -> Margin:
    with localcontext(EXACT):
        notional = sum((p.notional for p in held), Decimal(0))
        gross = sum((abs(p.notional) for p in held), Decimal(0))
        profits = sum((p.notional - p.entry_notional for p in held), Decimal(0))
        if abs(raw + notional - value) > _TOLERANCE:
            at.fail(f"the account value {value:f} is not raw USD {raw:f} + positions {notional:f}")
    leverages = tuple(
        (f"max_leverage:{p.asset}", node["maxLeverage"].number()) for p, node in zip(held, nodes, strict=True)
    )
    return Margin(
        venue=venue,
        collateral=EXACT.subtract(value, profits),
        account_value=value,
        maintenance_requirement=required,
        free_collateral=free,
        maintenance_ratio=ratio(required, gross, up=True) if gross else Decimal(0),
        initial_ratio=ratio(max(value - free, Decimal(0)), gross, up=True) if gross else Decimal(0),
        model=MODEL,
        terms=leverages,
    )
