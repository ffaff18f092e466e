"""A Decision: what was observed for every limit, what it means, and what the operation may do."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from decimal import Decimal
from typing import Any, Literal

from contracts.types import Hash32, keccak
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
    approval: str = ""
    """The quorum that verdict require_signers asks, by its id."""
    of_change: bool = False
    """The limit is on what the operation adds to the metric; `after` is that change, and `before` None."""


@dataclass(frozen=True, slots=True)
class CallRow:
    """One call of the operation and the rule that lets it pass; `rule` is empty when none does."""

    title: str
    effect: str
    rule: str


@dataclass(frozen=True, slots=True)
class Model:
    """A risk model that gave a figure of a Decision: its name, the version of its formulas, and the backend that computed it.

    Outputs are quantised adversely before they are compared, so the backend decides nothing; it is recorded, and is not in `to_bytes`.
    """

    name: str
    version: str
    backend: str = "exact"


@dataclass(frozen=True, slots=True)
class LimitSize:
    """The largest size of the operation, not above the one asked for, that one limit lets pass; None when no size tried does."""

    id: str
    size: Decimal | None


@dataclass(frozen=True, slots=True)
class Sizes:
    """How large the operation could have been, found by running it on the chain in other sizes (`policies.search`).

    `size` passed every rule and `size + tick` did not, both simulated, unless `size == requested`; None: nothing that was tried passes.
    `passing` are the stretches of sizes that were seen to pass, (lowest, highest) each: more than one, or one that does not begin at
    the smallest size, means that smaller is not always safer. `what` names the argument that was varied, `unit` its unit.
    """

    what: str
    unit: str
    tick: Decimal
    requested: Decimal
    size: Decimal | None
    by_limit: tuple[LimitSize, ...]
    passing: tuple[tuple[Decimal, Decimal], ...]
    simulations: int
    exact: bool = True
    """False when the allowed number of simulations ran out: `size` passes, but a larger one may too."""

    @property
    def is_interval(self) -> bool:
        """Whether every size that was tried below `size` passed too."""
        return len(self.passing) <= 1 and all(low <= self.tick for low, _ in self.passing)


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
    models: tuple[Model, ...] = ()
    """Every model that had a say, by name."""
    sizes: Sizes | None = None
    """None where nothing about the operation can be made smaller, or nobody asked."""

    @property
    def id(self) -> Hash32:
        """keccak256 of `to_bytes`."""
        return keccak(self.to_bytes())

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
            f"{r.id}: {in_unit(r.after, r.unit)}, {r.comparator} {in_unit(r.bound, r.unit)}"
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
        """The canonical bytes: the same facts and policy give the same ones everywhere, on every backend.

        `sizes` are left out: they are another judgement, of other facts.
        """
        return canonical_bytes(replace(self, sizes=None, models=tuple(replace(m, backend="") for m in self.models)))

    def explain(self) -> list[str]:
        """The judgement for people, a line each."""
        return explain(self.to_json())


def in_unit(value: Decimal | None, unit: str) -> str:
    """A figure of a limit for people, rounded for reading: the Decision itself has it in full."""
    if value is None:
        return "not evaluable"
    if unit == "%":
        return f"{value * 100:.2f} %"
    if unit == "x":
        return f"{value:.3f}x"
    return f"{value:,.4f} {unit}" if unit == "units" else f"{value:,.2f} {unit}"


_PARTS_IN = {"leverage": "USDC", "concentration": "USDC", "venue_share": "USDC", "drawdown": "x"}
"""Unit of what a quotient is made of, where that is another than its own."""


def part_in_unit(value: Decimal, row: Mapping[str, Any]) -> str:
    """A contribution to a limit's value for people."""
    return in_unit(value, _PARTS_IN.get(row["metric"], row["unit"]))


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
        figures = f"{in_unit(before, row['unit'])} -> " if before is not None else ""
        change = "change " if row.get("of_change") else ""
        figures += f"{in_unit(after, row['unit'])}, {row['comparator']} {change}{in_unit(bound, row['unit'])}"
        if headroom is not None:
            figures += f", headroom {in_unit(headroom, row['unit'])}"
        note = f" ({row['reason']})" if row["reason"] else ""
        lines.append(f"  {row['verdict']:<15} {row['id']} [{row['scope']}]: {figures}{note}")
    lines += [f"  {text}" for text in explain_sizes(decision)]
    lines += [f"  warning: {text}" for text in decision["warnings"]]
    if decision.get("models"):
        models = ", ".join(f"{m['name']} {m['version']} ({m['backend']})" for m in decision["models"])
        lines.append(f"  models: {models}")
    return lines


def explain_sizes(decision: Mapping[str, Any]) -> list[str]:
    """What the Decision's JSON form says of sizes, a line each: the largest that passes, then that of every limit that is in its way."""
    sizes = decision.get("sizes")
    if sizes is None:
        return []
    requested, tick = Decimal(sizes["requested"]), Decimal(sizes["tick"])

    def shown(size: str | None) -> str:
        return "none" if size is None else f"{Decimal(size):,f} {sizes['unit']}"

    at_least = "" if sizes["exact"] else " (at least: the search ended at its number of simulations)"
    text = f"largest size that passes: {shown(sizes['size'])} of {requested:,f} asked for{at_least}"
    if sizes["size"] is not None and Decimal(sizes["size"]) < requested and sizes["exact"]:
        text += f"; {tick:f} more does not"
    lines = [f"{text} ({sizes['what']}, {sizes['simulations']} simulations)"]
    lines += [
        f"  by {row['id']}: {shown(row['size'])}"
        for row in sizes["by_limit"]
        if row["size"] is None or Decimal(row["size"]) != requested
    ]
    if sizes["passing"] and (len(sizes["passing"]) > 1 or Decimal(sizes["passing"][0][0]) > tick):
        stretches = ", ".join(
            shown(low) if low == high else f"{Decimal(low):,f} to {shown(high)}" for low, high in sizes["passing"]
        )
        lines.append(f"  smaller is not always safer here; seen to pass: {stretches}")
    return lines
