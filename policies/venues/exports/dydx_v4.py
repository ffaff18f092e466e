"""dYdX v4: a subaccount as the indexer shows it, with the markets it trades and the time.

One object: `subaccount` (what `/v4/addresses/{address}/subaccountNumber/{n}` answers), `markets` (from `/v4/perpetualMarkets`) and `time`
(from `/v4/time`). Equity = quote + sum of size x oracle price; requirements are the sum of |notional| x margin fraction.
Source: dYdX v4 indexer API, SubaccountResponseObject, PerpetualPositionResponseObject, PerpetualMarketResponseObject.
"""

from __future__ import annotations

from decimal import Decimal, localcontext

from policies.margin import EXACT, ratio
from policies.portfolio import Margin, Position, Price
from policies.venues import Snapshot
from policies.venues.exports.base import Export, Node, document

VENUE = "dydx"
MODEL = "dydx_v4"
_SIGNS = {"LONG": 1, "SHORT": -1}


def parse_dydx_v4(text: str) -> Export:
    """Raises BadInput."""
    root = document(text, VENUE)
    time_s = int(root["time"]["epoch"].number())
    account, markets = root["subaccount"], root["markets"]
    quote = Decimal(0)
    for asset in account["assetPositions"].items():
        if asset["symbol"].text() != "USDC":
            asset.fail(f"only USDC is known as collateral, not {asset['symbol'].text()}")
        quote += _signed(asset)
    positions: list[Position] = []
    terms: list[tuple[str, Decimal]] = []
    initial = maintenance = gross = Decimal(0)
    for node in account["openPerpetualPositions"].items():
        name = node["market"].text()
        market = markets[name]
        mark, size = market["oraclePrice"].number(), _signed(node)
        if mark <= 0 or not size:
            node.fail("a position has a size that is not zero and a market with a price")
        fractions = market["initialMarginFraction"].number(), market["maintenanceMarginFraction"].number()
        with localcontext(EXACT):
            one = Position(VENUE, name.partition("-")[0], size, size * node["entryPrice"].number(), mark)
            gross += abs(one.notional)
            initial += abs(one.notional) * fractions[0]
            maintenance += abs(one.notional) * fractions[1]
        positions.append(one)
        terms += [(f"initial_fraction:{one.asset}", fractions[0]), (f"maintenance_fraction:{one.asset}", fractions[1])]
    with localcontext(EXACT):
        value = quote + sum((p.notional for p in positions), Decimal(0))
        profits = sum((p.notional - p.entry_notional for p in positions), Decimal(0))
        said = account["equity"].number()
        if abs(value - said) > max(Decimal("0.01"), abs(said) * Decimal("0.005")):
            account["equity"].fail(
                f"equity {said:f} is not quote {quote:f} + positions at oracle prices ({value:f}): are markets and subaccount of one moment?"
            )
        margin = Margin(
            venue=VENUE,
            collateral=value - profits,
            account_value=value,
            maintenance_requirement=maintenance,
            free_collateral=account["freeCollateral"].number(),
            maintenance_ratio=ratio(maintenance, gross, up=True) if gross else Decimal(0),
            initial_ratio=ratio(initial, gross, up=True) if gross else Decimal(0),
            model=MODEL,
            terms=tuple(terms),
        )
    prices = tuple(Price(p.asset, p.mark_price, time_s, f"{VENUE} oracle") for p in positions)
    return Export(VENUE, time_s, Snapshot(positions=tuple(positions), margins=(margin,), prices=prices))


def _signed(node: Node) -> Decimal:
    """A size with the sign of its side; the indexer writes shorts with and without one."""
    side, size = node["side"].text(), node["size"].number()
    sign = _SIGNS.get(side)
    if sign is None:
        node["side"].fail(f"must be LONG or SHORT, got {side}")
    if sign > 0 > size:
        node["size"].fail(f"a long cannot have the size {size:f}")
    return abs(size) * sign
