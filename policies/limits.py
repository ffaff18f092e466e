"""A limit as types: what is bounded, where, how, when, and what a breach asks. Built from canonical text (policies.structure).

Defaults stand here and belong to the schema version, as in policies.policy.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from decimal import Decimal
from enum import StrEnum
from typing import Any, Literal

DAYS = ("mon", "tue", "wed", "thu", "fri", "sat", "sun")
_DAY_MINUTES = 1_440
_EPOCH_WEEKDAY = 3
"""1970-01-01 was a Thursday."""


class Action(StrEnum):
    """What a breach does."""

    DENY = "deny"
    REQUIRE_SIGNERS = "require_signers"
    WARN = "warn"


@dataclass(frozen=True, slots=True)
class Scope:
    """What part of the portfolio a metric is taken over."""

    kind: Literal["portfolio", "asset", "venue", "operation"] = "portfolio"
    name: str = ""

    @classmethod
    def parse(cls, text: str) -> Scope:
        kind, _, name = text.partition(":")
        return cls(kind, name.strip())  # type: ignore[arg-type]  # the schema admits these four only

    def __str__(self) -> str:
        return f"{self.kind}: {self.name}" if self.name else self.kind


@dataclass(frozen=True, slots=True)
class Bucket:
    """Options by their time to expiry: at least `low_s`, below `high_s` (None: without end), in seconds."""

    low_s: int
    high_s: int | None

    @classmethod
    def parse(cls, text: str) -> Bucket:
        """From the canonical text: `604800-2592000`, `0-604800`, `604800-`."""
        low, _, high = text.partition("-")
        return cls(int(low), int(high) if high else None)

    def __contains__(self, seconds: int) -> bool:
        return self.low_s <= seconds and (self.high_s is None or seconds < self.high_s)


@dataclass(frozen=True, slots=True)
class Scenario:
    """What a stress does: relative price moves and relative moves of implied volatility by asset, then `time_s` seconds pass."""

    id: str
    shocks: tuple[tuple[str, Decimal], ...]
    vols: tuple[tuple[str, Decimal], ...] = ()
    time_s: int = 0


@dataclass(frozen=True, slots=True)
class Parameters:
    """What a metric is asked for beside its scope. None: the metric's own default, which `seawall policy explain METRIC` prints."""

    window_s: int | None = None
    confidence: Decimal = Decimal("0.99")
    horizon_s: int = 86_400
    method: Literal["historical", "parametric", "filtered"] = "historical"
    expiry: Bucket | None = None
    scenario: Scenario | None = None


@dataclass(frozen=True, slots=True)
class During:
    """When a limit binds, in UTC: on `days` (0 = Monday) from `start_minute` to `end_minute` of the day, the end not included.

    When the end is not after the start, the window runs over midnight and belongs to the day on which it begins.
    """

    days: frozenset[int]
    start_minute: int
    end_minute: int

    @classmethod
    def parse(cls, entry: Mapping[str, Any]) -> During:
        """From `{days: [mon], hours: "480-1080"}` in canonical text."""
        start, _, end = entry.get("hours", f"0-{_DAY_MINUTES}").partition("-")
        return cls(frozenset(DAYS.index(day) for day in entry.get("days", DAYS)), int(start), int(end))

    def at(self, time_s: int) -> bool:
        """Whether `time_s` (unix s) is inside."""
        day, second = divmod(time_s, 86_400)
        weekday, minute = (day + _EPOCH_WEEKDAY) % 7, second // 60
        if self.start_minute < self.end_minute:
            return weekday in self.days and self.start_minute <= minute < self.end_minute
        began_today = weekday in self.days and minute >= self.start_minute
        return began_today or ((weekday - 1) % 7 in self.days and minute < self.end_minute)

    def covers(self, other: During) -> bool:
        """Whether this binds at every minute at which `other` does."""
        return all(self.at(m * 60) for m in range(7 * _DAY_MINUTES) if other.at(m * 60))

    def __str__(self) -> str:
        days = ", ".join(DAYS[day] for day in sorted(self.days))
        start, end = (f"{m // 60:02}:{m % 60:02}" for m in (self.start_minute, self.end_minute))
        return f"{days} {start}-{end} UTC"


@dataclass(frozen=True, slots=True)
class Step:
    """What a limit asks once its metric is beyond `beyond` instead of merely beyond the bound."""

    beyond: Decimal
    action: Action
    approval: str = ""


@dataclass(frozen=True, slots=True)
class Limit:
    """Passes if observed <= `bound` (`is_max`), or observed >= `bound`. `of_change`: what is observed is after - before."""

    id: str
    metric: str
    scope: Scope
    is_max: bool
    bound: Decimal
    action: Action = Action.DENY
    warn_at: Decimal = Decimal("0.8")
    hysteresis: Decimal = Decimal(0)
    approval: str = ""
    shocks: tuple[tuple[str, Decimal], ...] = ()
    """Relative price moves by asset under which the metric is taken (stress scenarios)."""
    parameters: Parameters = Parameters()
    of_change: bool = False
    during: During | None = None
    when: str = ""
    """A CEL condition (policies.conditions): the limit binds while it is true, and denies when it has no value."""
    escalate: tuple[Step, ...] = ()
    """By distance: each further out than the one before."""


@dataclass(frozen=True, slots=True)
class Override:
    """Limits for some accounts, chains or signers. Each of `limits` counts beside the limit it overrides, which is the text before `@`
    in its id, and in its place when that id is in `replaces` (the document lets it be loosened)."""

    id: str
    accounts: tuple[str, ...]
    chains: tuple[int, ...]
    signers: tuple[str, ...]
    limits: tuple[Limit, ...]
    replaces: frozenset[str] = frozenset()


BOUNDS = ("max", "min", "max_change", "min_change")


def limit(entry: Mapping[str, Any], scenarios: Mapping[str, Scenario], suffix: str = "") -> Limit:
    """One entry of `limits`."""
    key = next(key for key in BOUNDS if key in entry)
    return Limit(
        id=entry["id"] + suffix,
        metric=entry["metric"],
        scope=Scope.parse(entry.get("scope", "portfolio")),
        is_max=key.startswith("max"),
        bound=Decimal(entry[key]),
        action=Action(entry.get("action", "deny")),
        warn_at=Decimal(entry.get("warn_at", "0.8")),
        hysteresis=Decimal(entry.get("hysteresis", "0")),
        approval=entry.get("approval", ""),
        parameters=_parameters(entry, scenarios),
        of_change=key.endswith("_change"),
        during=During.parse(entry["during"]) if "during" in entry else None,
        when=entry.get("when", ""),
        escalate=tuple(
            Step(Decimal(step["beyond"]), step_action(step), step.get("approval", ""))
            for step in entry.get("escalate", ())
        ),
    )


def step_action(entry: Mapping[str, Any]) -> Action:
    """What a step of `escalate` asks: what it says, else signers when it names a quorum, else denial."""
    return Action(entry.get("action", "require_signers" if "approval" in entry else "deny"))


def _parameters(entry: Mapping[str, Any], scenarios: Mapping[str, Scenario]) -> Parameters:
    window = entry.get("window")
    return Parameters(
        window_s=None if window is None else int(window),
        confidence=Decimal(entry.get("confidence", "0.99")),
        horizon_s=int(entry.get("horizon", 86_400)),
        method=entry.get("method", "historical"),
        expiry=Bucket.parse(entry["expiry"]) if "expiry" in entry else None,
        scenario=scenarios[entry["scenario"]] if "scenario" in entry else None,
    )


def scenario(entry: Mapping[str, Any]) -> Scenario:
    """One entry of `stress`, as what happens."""
    return Scenario(
        id=entry["id"],
        shocks=_moves(entry.get("shock", {})),
        vols=_moves(entry.get("vol", {})),
        time_s=int(entry.get("time", 0)),
    )


def _moves(entry: Mapping[str, str]) -> tuple[tuple[str, Decimal], ...]:
    return tuple(sorted((asset, Decimal(move)) for asset, move in entry.items()))


def stress_limit(entry: Mapping[str, Any]) -> Limit:
    """One entry of `stress`, as the limit that every margin account must hold its maintenance margin afterwards."""
    happens = scenario(entry)
    return Limit(
        id=f"stress.{entry['id']}",
        metric="stress_margin",
        scope=Scope(),
        is_max=False,
        bound=Decimal(0),
        action=Action(entry.get("action", "deny")),
        approval=entry.get("approval", ""),
        shocks=happens.shocks,
        parameters=Parameters(scenario=happens),
    )


def override(
    entry: Mapping[str, Any],
    inherited: Mapping[str, Mapping[str, Any]],
    scenarios: Mapping[str, Scenario],
    may_loosen: frozenset[str],
) -> Override:
    """One entry of `overrides`; `inherited` are the document's limits by id."""
    limits, replaces = [], set()
    for own in entry.get("limits", ()):
        limits.append(limit(overriding(own, inherited), scenarios, f"@{entry['id']}"))
        if own["id"] in inherited and (f"limits.{own['id']}" in may_loosen or "limits" in may_loosen):
            replaces.add(own["id"])
    return Override(
        id=entry["id"],
        accounts=tuple(entry.get("accounts", ())),
        chains=tuple(int(chain) for chain in entry.get("chains", ())),
        signers=tuple(entry.get("signers", ())),
        limits=tuple(limits),
        replaces=frozenset(replaces),
    )


def overriding(own: Mapping[str, Any], inherited: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    """An override's limit with what it leaves unsaid taken from the limit that it overrides."""
    base = dict(inherited.get(own["id"], {}))
    if any(key in own for key in BOUNDS):
        base = {key: value for key, value in base.items() if key not in BOUNDS}
    return base | dict(own)
