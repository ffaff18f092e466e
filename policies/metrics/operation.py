"""What the operation itself does: its trades, their prices, whom it touches, what it lets others take, what it costs."""

from __future__ import annotations

from decimal import Decimal, localcontext

from contracts.types import Address, checksum
from contracts.units import from_units
from policies.calls import DecodedCall, argument
from policies.functions import Effect
from policies.margin import EXACT, ratio
from policies.metrics.base import Contribution, Metric, NotKnown, Observation, View, inside, summed
from policies.metrics.exposure import equity_of
from policies.policy import Parameters, Scope
from policies.portfolio import SETTLEMENT, Facts, Fill, Order

_RECIPIENTS = ("to", "recipient", "onBehalfOf", "spender", "delegate", "trader")
_TOKENS = {"usdc": ("USDC", 6), "weth": ("ETH", 18)}
_TRANSFER = "transfer(address,uint256)"
TRACE = "the calls inside the operation"
"""What the missing fact is called where a node cannot trace."""
OF_TRACE = frozenset(("contracts_touched", "counterparties"))
"""Metrics that need the trace."""


def traded(facts: Facts, scope: Scope) -> list[Contribution]:
    """Quote exchanged by each simulated fill of the scope."""
    return [(f"{f.venue}:{f.asset}", f.quote) for f in facts.fills if inside(scope, f.asset, f.venue)]


def paid_out(view: View) -> Decimal:
    """What the operation pays to others in plain transfers of tokens and native coin, in unit of account, >= 0. Raises NotKnown.

    Such a payment is a withdrawal, not a loss; whom it may pay is the business of `calls`. What the account sends itself, or a venue
    that it then holds something at, is not known here to be one and stays in the change of equity.
    """
    paid = Decimal(0)
    with localcontext(EXACT):
        for call in view.facts.calls.calls:
            if call.function == _TRANSFER and call.target_name in _TOKENS:
                asset, decimals = _TOKENS[call.target_name]
                amount = from_units(int(argument(call, "amount") or 0), decimals)
                if argument(call, "to") != "0x" + view.facts.account.hex():
                    paid += amount * view.price(asset)
            elif not call.data and call.value_wei and call.target != view.facts.account:
                paid += from_units(call.value_wei, 18) * view.price("ETH")
    return paid


def order_notional(view: View, scope: Scope, _: Parameters) -> Observation:
    return summed(traded(view.facts, scope))


def _mean_price(fill: Fill, *, fee: bool) -> Decimal:
    with localcontext(EXACT):
        paid = fill.quote
        if fee:
            paid = fill.quote + fill.fee if fill.size > 0 else fill.quote - fill.fee
    return ratio(paid, abs(fill.size), up=fill.size > 0)


def _trades(view: View, scope: Scope) -> list[tuple[str, Fill, Decimal]]:
    """Every fill of the scope that somebody chose the price of, with its title, and what one unit was worth: the index price, for an option
    the venue's mark, before the operation where it was held then. Raises NotKnown."""
    marks = _marks(view)
    return [
        (f"fill {fill.option or f'{fill.venue}:{fill.asset}'}", fill, _worth(view, fill, marks))
        for fill in view.facts.fills
        if inside(scope, fill.asset, fill.venue) and fill.option != SETTLEMENT
    ]


def _marks(view: View) -> dict[str, Decimal]:
    """The venues' marks of options by label, those before the operation where they were held then."""
    facts = view.facts
    return {view.label(option): option.mark_price for option in (*facts.after.options, *facts.before.options)}


def _worth(view: View, trade: Fill | Order, marks: dict[str, Decimal]) -> Decimal:
    """What one unit of what is traded is worth. Raises NotKnown."""
    if not trade.option:
        return view.price(trade.asset)
    if trade.option not in marks:
        raise NotKnown(f"the mark of {trade.option} is not known")
    return marks[trade.option]


def order_slippage(view: View, scope: Scope, _: Parameters) -> Observation:
    """The worse of the simulated fill (fee included) and the bound that the order itself carries, relative to the index price."""
    rows: list[Contribution] = []

    def see(label: str, asset: str, is_buy: bool, price: Decimal, worth: Decimal) -> None:
        with localcontext(EXACT):
            lost = price - worth if is_buy else worth - price
        rows.append((label, ratio(lost, view.price(asset), up=True)))

    marks = _marks(view)
    for title, fill, worth in _trades(view, scope):
        see(title, fill.asset, fill.size > 0, _mean_price(fill, fee=True), worth)
    for order in view.facts.orders:
        if not inside(scope, order.asset, order.venue):
            continue
        if order.worst_price is None:
            raise NotKnown(f"the order at {order.venue} has no price bound")
        title = f"bound {order.option or f'{order.venue}:{order.asset}'}"
        see(title, order.asset, order.is_buy, order.worst_price, _worth(view, order, marks))
    return Observation(max((share for _, share in rows), default=Decimal(0)).max(Decimal(0)), tuple(rows))


def price_deviation(view: View, scope: Scope, _: Parameters) -> Observation:
    rows: list[Contribution] = []
    for title, fill, worth in _trades(view, scope):
        with localcontext(EXACT):
            apart = abs(_mean_price(fill, fee=False) - worth)
        rows.append((title, ratio(apart, view.price(fill.asset), up=True)))
    for position in view.facts.after.positions:
        if position.size and inside(scope, position.asset, position.venue):
            index = view.price(position.asset)
            with localcontext(EXACT):
                apart = abs(position.mark_price - index)
            rows.append((f"mark {position.label}", ratio(apart, index, up=True)))
    return Observation(max((share for _, share in rows), default=Decimal(0)), tuple(rows))


def operation_loss(view: View, _: Scope, __: Parameters) -> Observation:
    before = view.facts.before
    earlier = View(view.facts, before, False, view.workings, view.prices)
    with localcontext(EXACT):
        lost = equity_of(earlier) - equity_of(view) - paid_out(view)
    return Observation(max(lost, Decimal(0)))


def _untraced(facts: Facts) -> None:
    """Raises NotKnown where the node could not say what ran: what the calls show may be the least of it."""
    for gap in facts.missing:
        if gap.what == TRACE:
            raise NotKnown(f"{gap.what} are not known: {gap.why}")


def _names(facts: Facts) -> dict[Address, str]:
    """Names by address: those of the calls, and of the book."""
    named = {address: name for name, address in sorted(facts.book.items(), reverse=True)}
    return named | {call.target: call.target_name for call in facts.calls.calls if call.target_name}


def contracts_touched(view: View, _: Scope, __: Parameters) -> Observation:
    """Whatever the calls name, and whatever ran by the node's own trace."""
    facts = view.facts
    _untraced(facts)
    touched = {call.target for call in facts.calls.calls} | set(facts.touched or ())
    names = _names(facts)
    shown = sorted(names.get(address) or checksum(address) for address in touched)
    return Observation(Decimal(len(touched)), tuple((name, Decimal(1)) for name in shown))


def counterparties(view: View, _: Scope, __: Parameters) -> Observation:
    """Whoever a call pays, lets take, or acts for, by the arguments that name them, receivers of native coin, and whom the trace shows."""
    facts = view.facts
    _untraced(facts)
    found: set[str] = set()
    for call in facts.calls.calls:
        found |= _named_by(call)
        if call.value_wei:
            found.add("0x" + call.target.hex())
    found |= {"0x" + who.hex() for who in (facts.counterparties or ())}
    found.discard("0x" + facts.account.hex())
    names = _names(facts)
    shown = sorted(names.get(bytes.fromhex(who[2:])) or who for who in found)
    return Observation(Decimal(len(found)), tuple((name, Decimal(1)) for name in shown))


def _named_by(call: DecodedCall) -> set[str]:
    return {value for name, value in call.arguments if name in _RECIPIENTS and len(value) == 42}


def unknown_calls(view: View, _: Scope, __: Parameters) -> Observation:
    rows = [(call.title, Decimal(1)) for call in view.facts.calls.calls if call.effect is Effect.UNKNOWN]
    return summed(rows)


def operation_gas(view: View, _: Scope, __: Parameters) -> Observation:
    return Observation(from_units(view.facts.max_prefund_wei, 18))


METRICS = (
    Metric(
        "order_notional",
        "USDC",
        "higher",
        "quote exchanged by the operation's simulated fills",
        "simulated fills",
        order_notional,
        True,
        scopes=("operation", "asset", "venue"),
    ),
    Metric(
        "order_slippage",
        "%",
        "higher",
        "what the worse of the simulated mean fill, fee included, and the order's own bound loses against the index price (for an option "
        "against the venue's mark), relative to the index price",
        "simulated fills, order bounds, prices, marks of options",
        order_slippage,
        True,
        scopes=("operation", "asset", "venue"),
    ),
    Metric(
        "price_deviation",
        "%",
        "higher",
        "largest distance, to either side, of a simulated mean fill (without fee) or of a venue's mark after the operation from the index "
        "price, of an option's fill from the venue's mark, relative to the index price",
        "simulated fills, venue marks, prices",
        price_deviation,
        True,
        scopes=("operation", "asset", "venue"),
    ),
    Metric(
        "operation_loss",
        "USDC",
        "higher",
        "equity before - equity after - plain transfers to others (those are payments, no losses), at the same prices; 0 for a gain",
        "everything equity is made of, before and after; calls",
        operation_loss,
        True,
        scopes=("operation",),
    ),
    Metric(
        "contracts_touched",
        "count",
        "higher",
        "number of different addresses that the operation calls, directly or inside its calls, delegates to or creates; calls that can "
        "only read do not count, nor do the account and its own implementation",
        "calls, the node's trace of the operation",
        contracts_touched,
        True,
        scopes=("operation",),
    ),
    Metric(
        "counterparties",
        "count",
        "higher",
        "number of different addresses, other than the account, that the operation pays, grants an allowance, acts for or sends native "
        "coin to, as named by the arguments of its calls, and by events and payments inside them",
        "calls, the node's trace of the operation",
        counterparties,
        True,
        scopes=("operation",),
    ),
    Metric(
        "unknown_calls",
        "count",
        "higher",
        "number of calls whose function the engine cannot read",
        "calls",
        unknown_calls,
        True,
        scopes=("operation",),
    ),
    Metric(
        "operation_gas",
        "ETH",
        "higher",
        "the most the operation may cost in gas: sum of its gas limits x max fee, whoever pays",
        "gas fields of the operation",
        operation_gas,
        True,
        scopes=("operation",),
    ),
)
