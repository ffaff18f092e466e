"""What a back-test found: limits, orders, guards and venues, as data and in words. Times are unix seconds, money unit of account."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from decimal import Decimal
from typing import Any, Literal

from policies.backtest.columns import States
from policies.backtest.judge import State
from policies.backtest.market import Floats, Integers, iso
from policies.canonical import plain
from policies.decision import Decision, explain

EventKind = Literal[
    "breach", "unknown", "warning", "stop", "liquidation", "loan", "expiry", "refused", "signers", "allowed", "drawdown"
]


@dataclass(frozen=True, slots=True)
class Episode:
    """A stretch of bars in which one limit stood the same way. `value` is the metric at its first moment, `worst` the worst inside, both
    as the engine itself shows them; None where it cannot be evaluated, and for a warning."""

    state: State
    from_s: int
    to_s: int
    bars: int
    bound: Decimal
    value: Decimal | None = None
    worst: Decimal | None = None
    worst_s: int = 0
    reason: str = ""


@dataclass(frozen=True, slots=True)
class LimitReport:
    """One limit over the whole window. Counts are of bars; `columnar` says whether it was screened in columns."""

    id: str
    metric: str
    scope: str
    unit: str
    action: str
    comparator: str
    bound: Decimal
    bars: int
    warned: int
    breached: int
    unknown: int
    episodes: tuple[Episode, ...]
    columnar: bool

    @property
    def first(self) -> Episode | None:
        """The first stretch beyond the bound, or in which it could not be evaluated."""
        return next((e for e in self.episodes if e.state >= State.BREACH), None)


@dataclass(frozen=True, slots=True)
class OrderReport:
    """One declared order and what the engine said at its time."""

    at_s: int
    title: str
    line: int
    decision: Decision
    reverts: str = ""


@dataclass(frozen=True, slots=True)
class Event:
    """Something that happened, in one line of words; `figures` has its numbers."""

    at_s: int
    kind: EventKind
    what: str
    text: str
    figures: Mapping[str, Decimal]


@dataclass(frozen=True, slots=True)
class Equity:
    """Equity at closes. Drawdown = (high-water mark - equity) / high-water mark, the mark being the highest close before: both shown."""

    start: Decimal
    end: Decimal
    low: Decimal
    low_s: int
    max_drawdown: Decimal
    drawdown_high: Decimal
    drawdown_high_s: int
    drawdown_low: Decimal
    drawdown_low_s: int


@dataclass(frozen=True, slots=True, eq=False)
class Track:
    """Columns for a picture: closes and equity, and for each limit the share of its bound in use (1 = at the bound; NaN: none)."""

    times_s: Integers
    assets: tuple[str, ...]
    closes: Floats
    equity: Floats
    use: Floats
    limits: tuple[str, ...]
    states: States
    """Where every limit stood at every close: `State`, of shape (bars, limits)."""


@dataclass(frozen=True, slots=True)
class Result:
    """Everything one back-test says."""

    policy_name: str
    policy_id: bytes
    assets: tuple[str, ...]
    from_s: int
    to_s: int
    step_s: int
    bars: int
    gaps: int
    limits: tuple[LimitReport, ...]
    orders: tuple[OrderReport, ...]
    events: tuple[Event, ...]
    equity: Equity
    judged_by_engine: int
    """Moments at which the engine itself evaluated every limit (the rest was decided in columns, with certainty)."""
    assumptions: tuple[str, ...]
    track: Track

    @property
    def refused(self) -> tuple[OrderReport, ...]:
        """Orders that the policy would not have let pass."""
        return tuple(o for o in self.orders if o.decision.outcome != "allow")

    def limit(self, identity: str) -> LimitReport:
        """One limit's report. Raises KeyError."""
        found = next((row for row in self.limits if row.id == identity), None)
        if found is None:
            raise KeyError(identity)
        return found

    def of_kind(self, *kinds: EventKind) -> tuple[Event, ...]:
        """Events of these kinds in order of time."""
        return tuple(event for event in self.events if event.kind in kinds)

    def to_json(self) -> dict[str, Any]:
        """Plain JSON without the track: decimals and integers as text."""
        return {
            "policy": self.policy_name,
            "policy_id": plain(self.policy_id),
            "assets": list(self.assets),
            "from": iso(self.from_s),
            "to": iso(self.to_s),
            "step_s": self.step_s,
            "bars": self.bars,
            "gaps": self.gaps,
            "equity": plain(self.equity),
            "limits": [plain(row) for row in self.limits],
            "orders": [
                {"at": iso(o.at_s), "order": o.title, "line": o.line, "outcome": o.decision.outcome, "reverts": o.reverts,
                 "decision": o.decision.to_json()}
                for o in self.orders
            ],
            "events": [plain(event) | {"at": iso(event.at_s)} for event in self.events],
            "judged_by_engine": self.judged_by_engine,
            "assumptions": list(self.assumptions),
        }  # fmt: skip

    def explain(self, *, most: int = 20) -> list[str]:
        """The findings for people, a line each; of each kind of line at most `most`."""
        lines = [
            f"{self.policy_name}: {self.bars:,} bars of {self.step_s} s, {', '.join(self.assets)}, {iso(self.from_s)} to {iso(self.to_s)}"
        ]
        e = self.equity
        lines.append(
            f"  equity {e.start:,.2f} -> {e.end:,.2f} USDC, low {e.low:,.2f}; largest drawdown {e.max_drawdown:.1%} "
            f"(from {e.drawdown_high:,.2f} at {iso(e.drawdown_high_s)} to {e.drawdown_low:,.2f} at {iso(e.drawdown_low_s)})"
        )
        lines += [f"  {line}" for row in self.limits for line in _limit_lines(row, self.step_s)]
        events = [event for event in self.events if event.kind not in ("breach", "unknown", "warning")]
        lines += [f"  {iso(event.at_s)} {event.text}" for event in events[:most]]
        if len(events) > most:
            lines.append(f"  and {len(events) - most} more events; --json has all of them")
        for order in self.refused[:most]:
            lines.append(f"  {iso(order.at_s)} {order.title}:")
            lines += [f"    {line.strip()}" for line in explain(order.decision.to_json()) if _decisive(line)]
        return lines


def _decisive(line: str) -> bool:
    return line.strip().split(" ")[0].rstrip(":") in ("DENY", "REQUIRE_SIGNERS", "against", "deny", "require_signers")


def _limit_lines(row: LimitReport, step_s: int) -> list[str]:
    """One line a limit, and one more for its first breach."""
    bound = f"{row.comparator} {figure(row.bound, row.unit)}"
    counts = [
        f"{text} {_span(count * step_s)}"
        for text, count in (("beyond", row.breached), ("not evaluable", row.unknown), ("warned", row.warned))
        if count
    ]
    lines = [f"{row.id} [{row.scope}] {bound}: {', '.join(counts) or 'always inside'}"]
    first = row.first
    if first is not None:
        worst = max(
            (e for e in row.episodes if e.state is State.BREACH and e.worst is not None),
            key=lambda e: (e.worst or Decimal(0)) * (1 if row.comparator == "max" else -1),
            default=None,
        )
        text = f"  first at {iso(first.from_s)} ({figure(first.value, row.unit)})"
        if worst is not None:
            text += f", worst {figure(worst.worst, row.unit)} at {iso(worst.worst_s)}"
        lines.append(text)
    return lines


def figure(value: Decimal | None, unit: str) -> str:
    """A metric's value for people."""
    if value is None:
        return "not evaluable"
    if unit == "%":
        return f"{value * 100:.2f} %"
    return f"{value:.3f}x" if unit == "x" else f"{value:,.2f} {unit}"


def _span(seconds: int) -> str:
    """A length of time in its two largest units."""
    days, rest = divmod(seconds, 86_400)
    hours, rest = divmod(rest, 3_600)
    minutes, rest = divmod(rest, 60)
    parts = [f"{n} {unit}" for n, unit in ((days, "d"), (hours, "h"), (minutes, "min"), (rest, "s")) if n]
    return " ".join(parts[:2]) or "0 s"
