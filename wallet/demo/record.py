"""What the demo writes down: samples, events, the result. The view, the chart and `--json` read nothing else."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from typing import Any, Literal

EventKind = Literal[
    "start",
    "opened",
    "refused",
    "frozen",
    "theft",
    "blocked",
    "thawed",
    "keeper_killed",
    "keeper_restarted",
    "stop_fired",
    "liquidated",
    "end",
]


@dataclass(frozen=True, slots=True)
class Sample:
    """Both accounts after one replayed bar. Prices and equity in USD, as the venue itself values the account at its index."""

    timestamp_s: int
    index: float
    mark: float
    protected_equity: float
    twin_equity: float
    protected_size: float
    twin_size: float
    state: str


@dataclass(frozen=True, slots=True)
class Event:
    """Something that happened, in market time."""

    timestamp_s: int
    kind: EventKind
    text: str
    data: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class AccountResult:
    """How one account came through. USD, shares of 1, wei."""

    address: str
    start_equity: float
    end_equity: float
    max_drawdown: float
    """Largest fall of equity from its running maximum, as a share of that maximum (0.2 = 20 %), over the samples."""
    liquidated: bool
    liquidations: int
    bad_debt: float
    operations: int
    gas_used: int
    gas_cost_wei: int
    sponsored_cost_wei: int


@dataclass(frozen=True, slots=True)
class StopResult:
    """How the stop fired: its trigger, its fill, and how long the chain waited for it."""

    trigger_price: float
    fill_price: float
    due_block: int
    included_block: int
    blocks: int
    seconds: int
    times_fired: int
    user_op_hash: str


@dataclass(frozen=True, slots=True)
class RefusalResult:
    """The order that the policy refused before anybody signed it."""

    reached_bundler: bool
    signed: bool
    failing_limits: list[dict[str, Any]]
    explanation: list[str]


@dataclass(frozen=True, slots=True)
class DemoResult:
    """Everything `seawall demo --json` prints."""

    data: str
    from_s: int
    to_s: int
    policy: str
    policy_id: str
    bars: int
    protected: AccountResult
    twin: AccountResult
    stop: StopResult | None
    refusal: RefusalResult
    withdrawal_blocked: bool
    keeper_kills: int
    verdict: str
    events: list[Event]
    wall_seconds: float

    def to_json(self) -> dict[str, Any]:
        return asdict(self)


def max_drawdown(equity: list[float]) -> float:
    """max over t of (running maximum - equity_t) / running maximum; 0 for an empty or never positive series."""
    peak, worst = 0.0, 0.0
    for value in equity:
        peak = max(peak, value)
        if peak > 0:
            worst = max(worst, (peak - value) / peak)
    return worst


def clock(timestamp_s: int) -> str:
    """`03-12 10:36`, UTC."""
    return datetime.fromtimestamp(timestamp_s, UTC).strftime("%m-%d %H:%M")
