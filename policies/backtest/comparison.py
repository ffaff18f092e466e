"""What a change of file would have changed over the same bars: orders whose outcome flips, minutes of every limit, guards, equity."""

from __future__ import annotations

from dataclasses import dataclass
from decimal import Decimal
from typing import Any

import numpy as np

from policies.backtest.judge import State
from policies.backtest.market import iso
from policies.backtest.report import OrderReport, Result
from policies.canonical import plain


@dataclass(frozen=True, slots=True)
class Flip:
    """One order that the two policies decide differently; the limits and objections that deny it under each."""

    at_s: int
    title: str
    before: str
    after: str
    against_before: tuple[str, ...]
    against_after: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class LimitShift:
    """Bars that one limit (by id) spends beyond its bound, or not evaluable, under each policy; None where it has no such limit.
    `flipped` counts bars at which the two differ, `first_s` is the first of them (None: none)."""

    id: str
    before: int | None
    after: int | None
    flipped: int
    first_s: int | None


@dataclass(frozen=True, slots=True)
class Comparison:
    """Two results over the same bars and book. `flipped` counts bars at which one policy has a limit beyond its bound and the other has
    none."""

    flips: tuple[Flip, ...]
    limits: tuple[LimitShift, ...]
    flipped: int
    bars: int
    step_s: int
    guards_before: tuple[str, ...]
    guards_after: tuple[str, ...]
    equity_before: Decimal
    equity_after: Decimal

    def to_json(self) -> dict[str, Any]:
        """Plain JSON: numbers as text."""
        found: dict[str, Any] = plain(self)
        return found

    def explain(self) -> list[str]:
        """In words, a line each; only what differs."""
        lines = []
        for flip in self.flips:
            reasons = flip.against_after if flip.after != "allow" else flip.against_before
            lines.append(f"{iso(flip.at_s)} {flip.title}: {flip.before} -> {flip.after} ({', '.join(reasons)})")
        for row in self.limits:
            if row.flipped and row.first_s is not None:
                shown = [("no such limit" if n is None else f"{n:,} bars beyond") for n in (row.before, row.after)]
                lines.append(
                    f"{row.id}: {shown[0]} -> {shown[1]}; {row.flipped:,} of {self.bars:,} bars flip, the first at {iso(row.first_s)}"
                )
        if self.guards_before != self.guards_after:
            lines += [f"no longer: {text}" for text in self.guards_before if text not in self.guards_after]
            lines += [f"now: {text}" for text in self.guards_after if text not in self.guards_before]
        if self.equity_before != self.equity_after:
            lines.append(f"equity at the end: {self.equity_before:,.2f} -> {self.equity_after:,.2f} USDC")
        if not lines:
            return [f"over {self.bars:,} bars nothing would have been different"]
        if self.flipped:
            lines.append(
                f"in {self.flipped:,} of {self.bars:,} bars one of the two has a limit beyond its bound and the other has none"
            )
        return lines


def compare(before: Result, after: Result) -> Comparison:
    """Two back-tests of the same bars and book. Raises ValueError when they are not."""
    if (before.from_s, before.bars, before.assets) != (after.from_s, after.bars, after.assets):
        raise ValueError("the two results are not of the same bars")
    flips = tuple(
        Flip(one.at_s, one.title, one.decision.outcome, other.decision.outcome, _against(one), _against(other))
        for one, other in zip(before.orders, after.orders, strict=True)
        if one.decision.outcome != other.decision.outcome
    )
    old, new = (
        {name: result.track.states[:, i] >= State.BREACH for i, name in enumerate(result.track.limits)}
        for result in (before, after)
    )
    none = np.zeros(before.bars, dtype=bool)
    shifts = []
    for name in dict.fromkeys([*old, *new]):
        differ = np.flatnonzero(old.get(name, none) != new.get(name, none))
        shifts.append(
            LimitShift(
                name,
                int(old[name].sum()) if name in old else None,
                int(new[name].sum()) if name in new else None,
                len(differ),
                int(before.track.times_s[differ[0]]) if len(differ) else None,
            )
        )
    anything = [np.logical_or.reduce([none, *table.values()]) for table in (old, new)]
    guards = [
        tuple(f"{iso(e.at_s)} {e.text}" for e in result.of_kind("stop", "liquidation", "loan", "expiry"))
        for result in (before, after)
    ]
    return Comparison(
        flips,
        tuple(shifts),
        int((anything[0] != anything[1]).sum()),
        before.bars,
        before.step_s,
        guards[0],
        guards[1],
        before.equity.end,
        after.equity.end,
    )


def _against(order: OrderReport) -> tuple[str, ...]:
    """What stood in the way of an order."""
    decision = order.decision
    return (*decision.objections, *(row.id for row in decision.limits if row.verdict in ("deny", "require_signers")))
