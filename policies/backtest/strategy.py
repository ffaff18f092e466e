"""Books that need no file: a position of so many times the collateral, opened at the first bar."""

from __future__ import annotations

from decimal import ROUND_FLOOR, Decimal, InvalidOperation, localcontext

from contracts.errors import BadInput
from policies.backtest.book import Book, HeldPosition, MarginTerms
from policies.backtest.market import Market, exact
from policies.margin import EXACT

VENUE = "perp"
_TICK = Decimal("0.000001")


def opened(text: str, collateral: str, market: Market) -> Book:
    """`long:ETH:3` or `short:ETH:2.5` on `collateral` USDC at the perp venue, entered at the first open; its size is rounded down to a
    millionth. Raises BadInput."""
    side, _, rest = text.partition(":")
    asset, _, times = rest.partition(":")
    try:
        leverage, money = Decimal(times), Decimal(collateral)
    except InvalidOperation:
        leverage = money = Decimal(0)
    if side not in ("long", "short") or not asset or not (0 < leverage < 1000 and 0 < money < 10**18):
        raise BadInput(
            f"--strategy must be such as long:ETH:3 or short:ETH:2 on a positive --collateral, got {text!r} on {collateral!r}"
        )
    price = exact(market.open[0, market.column(asset)])
    with localcontext(EXACT) as context:
        context.prec = 60
        size = (money * leverage / price).quantize(_TICK, ROUND_FLOOR)
    return Book(
        margins=(MarginTerms(VENUE, money),),
        positions=(HeldPosition(VENUE, asset, size if side == "long" else -size, price),),
    )
