"""A Decision: what was observed for every limit, what it means, and what the operation may do."""

from __future__ import annotations

from dataclasses import dataclass
from decimal import Decimal
from typing import Any, Literal

from contracts.types import Hash32
from policies.canonical import canonical_bytes, plain
from policies.metrics import Contribution

Verdict = Literal["pass", "warn", "require_signers", "deny"]
Outcome = Literal["allow", "require_signers", "deny"]


@dataclass(frozen=True, slots=True)
class LimitRow:
    """One limit. `headroom` is how far `after` is on the right side of the bound (negative: beyond it), in the metric's unit;
    `utilisation` is the share of the bound that is used (1 = at the bound), None where that has no meaning."""

    id: str
    metric: str
    scope: str
    unit: str
    action: str
    comparator: Literal["max", "min"]
    bound: Decimal
    before: Decimal | None
    after: Decimal | None
    headroom: Decimal | None
    utilisation: Decimal | None
    verdict: Verdict
    reason: str
    contributions: tuple[Contribution, ...]


@dataclass(frozen=True, slots=True)
class CallRow:
    """One call of the operation and the rule that lets it pass; `rule` is empty when none does."""

    title: str
    effect: str
    rule: str


@dataclass(frozen=True, slots=True)
class Decision:
    """The engine's judgement of one operation. Deny beats require_signers, which beats allow; nothing depends on the order of rules."""

    outcome: Outcome
    policy_id: Hash32
    policy_name: str
    intent_hash: Hash32
    facts_hash: Hash32
    decided_at_s: int
    exit_only: bool
    """Every call is a declared exit or structurally reducing: missing facts do not deny it."""
    limits: tuple[LimitRow, ...]
    calls: tuple[CallRow, ...]
    objections: tuple[str, ...]
    """Reasons to deny that are no limit: a call that nothing allows, a fact that is missing or stale, a revert, a frozen account."""
    warnings: tuple[str, ...] = ()

    @property
    def allowed(self) -> bool:
        return self.outcome == "allow"

    @property
    def breached(self) -> frozenset[str]:
        """Ids of limits that would be beyond their bound in force after the operation, whatever the verdict."""
        return frozenset(r.id for r in self.limits if r.headroom is not None and r.headroom < 0)

    @property
    def summary(self) -> str:
        """One line: the outcome and everything that decided it."""
        against = [
            f"{r.id}: {_shown(r.after, r.unit)}, {r.comparator} {_shown(r.bound, r.unit)}"
            for r in self.limits
            if r.verdict == "deny" and not (self.objections and r.after is None)
        ]
        signers = [r.id for r in self.limits if r.verdict == "require_signers"]
        if self.outcome == "deny":
            return f"policy {self.policy_name} denies: " + "; ".join([*self.objections, *against])
        if self.outcome == "require_signers":
            return f"policy {self.policy_name} needs more signers: " + ", ".join(signers)
        return f"policy {self.policy_name} allows"

    def to_json(self) -> dict[str, Any]:
        """Plain JSON: decimals and integers as text."""
        found: dict[str, Any] = plain(self)
        return found

    def to_bytes(self) -> bytes:
        """The canonical bytes: the same facts and policy give the same ones everywhere."""
        return canonical_bytes(self)

    def explain(self) -> list[str]:
        """The judgement for people, a line each."""
        return explain(self.to_json())


def _shown(value: Decimal | None, unit: str) -> str:
    if value is None:
        return "not evaluable"
    if unit == "%":
        return f"{value * 100:.2f} %"
    if unit == "x":
        return f"{value:.3f}x"
    return f"{value:,.4f} {unit}" if unit == "units" else f"{value:,.2f} {unit}"


def explain(decision: dict[str, Any]) -> list[str]:
    """A Decision's JSON form for people, a line each: outcome, objections, calls, then every limit with its figures."""
    lines = [f"{decision['outcome'].upper()} by policy {decision['policy_name']}"]
    lines += [f"  against: {text}" for text in decision["objections"]]
    lines += [
        f"  call {row['title']} ({row['effect']}): {row['rule'] or 'allowed by nothing'}" for row in decision["calls"]
    ]
    for row in decision["limits"]:
        before, after, bound, headroom = (
            None if row[name] is None else Decimal(row[name]) for name in ("before", "after", "bound", "headroom")
        )
        figures = f"{_shown(before, row['unit'])} -> " if before is not None else ""
        figures += f"{_shown(after, row['unit'])}, {row['comparator']} {_shown(bound, row['unit'])}"
        if headroom is not None:
            figures += f", headroom {_shown(headroom, row['unit'])}"
        note = f" ({row['reason']})" if row["reason"] else ""
        lines.append(f"  {row['verdict']:<15} {row['id']} [{row['scope']}]: {figures}{note}")
    lines += [f"  warning: {text}" for text in decision["warnings"]]
    return lines
