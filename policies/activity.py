"""What one operation does to the record of an account: what it trades, what it realises, and what the account is worth when it is judged."""

from __future__ import annotations

from decimal import Decimal, localcontext

from policies.margin import EXACT
from policies.metrics import equity
from policies.policy import Scope
from policies.portfolio import EquityPoint, Facts


def traded_by(facts: Facts) -> Decimal:
    """Quote exchanged by the operation's simulated fills, >= 0."""
    with localcontext(EXACT):
        return sum((fill.quote for fill in facts.fills), Decimal(0))


def realised_by(facts: Facts) -> Decimal:
    """Profit (or loss, negative) that the operation's fills realise, fees of every fill taken off, in quote.

    Mean cost: a fill against a position of size s and entry notional E closes the share c = min(|fill|, |s|) / |s| of it and realises
    proceeds x (its closed part of the fill) - c x E, with signs; the rest of the fill opens. Exact but for the two quotients.
    """
    with localcontext(EXACT) as context:
        context.prec = 60
        held = {(p.venue, p.asset): (p.size, p.entry_notional) for p in facts.before.positions}
        realised = Decimal(0)
        for fill in facts.fills:
            realised -= fill.fee
            size, entry = held.get((fill.venue, fill.asset), (Decimal(0), Decimal(0)))
            paid = fill.quote if fill.size > 0 else -fill.quote
            if size * fill.size >= 0:
                held[fill.venue, fill.asset] = (size + fill.size, entry + paid)
                continue
            closed = min(abs(fill.size), abs(size))
            closed_entry, closed_paid = entry * closed / abs(size), paid * closed / abs(fill.size)
            realised -= closed_paid + closed_entry
            rest = size + fill.size
            kept = paid - closed_paid if abs(fill.size) > abs(size) else entry - closed_entry
            held[fill.venue, fill.asset] = (rest, kept)
        return realised


def equity_point(facts: Facts, paid_in: Decimal) -> EquityPoint | None:
    """What the account was worth before the operation, at the block's time; None when that cannot be told."""
    seen = equity(facts, facts.before, Scope())
    if seen.value is None or not seen.value.is_finite() or facts.missing:
        return None
    return EquityPoint(facts.block_time_s, seen.value, paid_in)
