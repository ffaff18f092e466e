"""From a policy and facts to a Decision. Everything passes only if shown to be inside: a missing or senseless figure never allows.

Precedence, whatever the order of rules: deny > require_signers > allow. A limit that was breached before never holds back an operation
that leaves its metric as it is or improves it. An operation all of whose calls are declared exits (or guards, or the announced escape) or
known reductions is judged more leniently: facts that are missing do not deny it, and neither does a limit on the portfolio. A limit on
the operation itself (slippage) still binds a reduction on sound facts, but never an exit.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal
from typing import Any

from contracts.bindings import RiskState
from contracts.types import checksum, to_hex
from policies.canonical import facts_hash
from policies.conditions import Condition, condition
from policies.decision import CallRow, Decision, LimitRow, Model, Outcome, Verdict
from policies.doubts import doubts_about
from policies.functions import Effect
from policies.margin import EXACT
from policies.metrics import METRICS, Metric, Observation, View, same, stress_of
from policies.metrics.base import QUIET_BEFORE, views_of
from policies.metrics.stress import SCENARIOS, Asked
from policies.permits import EXITS, call_row
from policies.policy import Limit, Override, Policy, resolve
from policies.portfolio import Facts
from policies.sharing import with_shared_entries
from policies.verdicts import Judge, bound_in_force, compile_limit, passes, utilisation


def evaluate(policy: Policy, facts: Facts, now_s: int) -> Decision:
    """Judge one operation at `now_s` (unix s). Deterministic: the same arguments give the same Decision, to the byte."""
    given, facts = facts, with_shared_entries(facts)
    calls = [call_row(policy, facts, call) for call in facts.calls.calls]
    exits = bool(calls) and all(row.rule in EXITS for row in calls)
    reducing = exits or (
        bool(calls)
        and all(
            row.rule and (row.rule in EXITS or call.effect is Effect.REDUCES)
            for row, call in zip(calls, facts.calls.calls, strict=True)
        )
    )
    objections = list(_of_the_operation(policy, facts, calls, exits=exits))
    rules = rules_for(policy, facts)
    before, after = views_of(facts, _noted(rules))
    doubts = doubts_about(policy, facts, now_s, (before, after))
    if doubts:  # told in the figures as they were written: 1.50 is no 1.5 to who reads it
        doubts = doubts_about(policy, given, now_s)
    warnings: list[str] = []
    (warnings if reducing else objections).extend(doubts)
    case = _Case(before, after, now_s, exits=exits, reducing=reducing, doubtful=bool(doubts))
    limits = tuple(_limit_row(rule, case) for rule in rules)
    verdicts = {row.verdict for row in limits}
    outcome: Outcome = "allow"
    if objections or "deny" in verdicts:
        outcome = "deny"
    elif "require_signers" in verdicts:
        outcome = "require_signers"
    warnings += [
        f"{row.id} is at {row.utilisation:.0%} of its bound"
        for row in limits
        if row.verdict == "warn" and row.utilisation is not None
    ]
    return Decision(
        outcome=outcome,
        policy_id=policy.policy_id,
        policy_name=f"{policy.name} {policy.version}",
        intent_hash=facts.intent_hash,
        facts_hash=facts_hash(facts),
        decided_at_s=now_s,
        exit_only=reducing,
        limits=limits,
        calls=tuple(calls),
        objections=tuple(objections),
        warnings=tuple(warnings),
        models=tuple(Model(*model) for model in sorted(case.models)),
    )


# -- objections -------------------------------------------------------------------------------------------------------------------


def _of_the_operation(policy: Policy, facts: Facts, calls: Sequence[CallRow], *, exits: bool) -> list[str]:
    """Reasons to deny that stand apart from every limit."""
    found: list[str] = []
    if policy.chains and facts.chain_id not in policy.chains:
        found.append(f"the policy is not for chain {facts.chain_id}")
    if policy.accounts:
        known = {resolve(name, policy, facts.book, facts.account) for name in policy.accounts}
        if facts.account not in known:
            found.append(f"the policy is not for account {checksum(facts.account)}")
    if facts.policy_on_chain != policy.policy_id:
        found.append("another policy is in force on chain: apply this file first, or judge by the one that is applied")
    if facts.calls.problem:
        found.append(facts.calls.problem)
    found += [f"nothing allows the call {row.title}" for row in calls if not row.rule]
    if facts.state is not RiskState.ACTIVE and not exits:
        found.append(f"the account is {facts.state.name}: only declared exits are open")
    if not facts.succeeded:
        found.append(f"the operation reverts when simulated ({to_hex(facts.revert_data[:68]) or 'no reason given'})")
    others = [
        o
        for o in facts.outstanding
        if o.nonce != facts.nonce and o.intent_hash != facts.intent_hash and o.valid_until_s >= facts.block_time_s
    ]
    if others and not exits:
        until = max(o.valid_until_s for o in others)
        found.append(
            f"{len(others)} other attested operation(s) may still be included, until {until}: together they were never judged"
        )
    prefund, most = facts.max_prefund_wei, policy.sponsorship.per_operation_wei
    if facts.sponsored and most is not None and prefund > most:
        found.append(f"sponsoring it may cost {prefund} wei, the policy allows {most}")
    per_day = policy.sponsorship.per_day_wei
    if facts.sponsored and per_day is not None and facts.sponsored_today_wei + prefund > per_day:
        found.append(
            f"sponsoring it may bring today's cost to {facts.sponsored_today_wei + prefund} wei, the policy allows {per_day}"
        )
    return found


# -- limits -----------------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Rule:
    """A limit ready to be judged: its metric looked up, its comparison compiled, loose and latched."""

    limit: Limit
    metric: Metric
    judge: Judge
    judge_latched: Judge
    condition: Condition | None


def compile_rule(limit: Limit) -> Rule:
    """What judging `limit` needs, worked out once."""
    return Rule(
        limit,
        stress_of(limit.shocks) if limit.metric == "stress_margin" else METRICS[limit.metric],
        compile_limit(limit),
        compile_limit(limit, latched=True),
        condition(limit.when) if limit.when else None,
    )


_COMPILED: dict[int, tuple[tuple[Limit, ...], tuple[Rule, ...]]] = {}
_REMEMBERED = 64


def compile_rules(limits: tuple[Limit, ...]) -> tuple[Rule, ...]:
    """The rules of these limits, remembered as long as the tuple lives."""
    known = _COMPILED.get(id(limits))
    if known is not None and known[0] is limits:
        return known[1]
    rules = tuple(compile_rule(limit) for limit in limits)
    if len(_COMPILED) >= _REMEMBERED:
        _COMPILED.clear()
    _COMPILED[id(limits)] = (limits, rules)
    return rules


def rules_for(policy: Policy, facts: Facts) -> list[Rule]:
    """The limits that bind this operation. Which override comes first decides nothing: all that match count."""
    own: list[Rule] = []
    replaced: set[str] = set()
    for override in policy.overrides:
        fits = _fits(override, policy, facts)
        if fits is not False:
            own += compile_rules(override.limits)
        if fits:
            replaced |= override.replaces
    return [rule for rule in compile_rules(policy.limits) if rule.limit.id not in replaced] + own


def _noted(rules: Sequence[Rule]) -> dict[Any, Any]:
    """The workings of a decision, with what is known beforehand of what will be asked."""
    stressed = [rule.limit.parameters.scenario for rule in rules if rule.limit.metric == "stress_loss"]
    found: dict[Any, Any] = {SCENARIOS: Asked(scenario for scenario in stressed if scenario is not None)}
    if not any(rule.limit.of_change for rule in rules):
        found[QUIET_BEFORE] = True
    return found


def _fits(override: Override, policy: Policy, facts: Facts) -> bool | None:
    """Whether an override is meant. None: that cannot be said, so it may tighten but not loosen."""
    if override.chains and facts.chain_id not in override.chains:
        return False
    known = True
    for names, who in ((override.accounts, facts.account), (override.signers, facts.signer)):
        if not names:
            continue
        parties = {resolve(name, policy, facts.book, facts.account) for name in names}
        if who is not None and who in parties:
            continue
        if who is not None and None not in parties:
            return False
        known = False
    return known or None


class _Case:
    """What judging every limit of one operation needs. `models` gathers those that had a say."""

    __slots__ = ("after", "before", "doubtful", "exits", "models", "now_s", "reducing")

    def __init__(self, before: View, after: View, now_s: int, *, exits: bool, reducing: bool, doubtful: bool) -> None:
        self.before = before
        self.after = after
        self.now_s = now_s
        self.exits = exits
        self.reducing = reducing
        self.doubtful = doubtful
        self.models: set[tuple[str, str, str]] = set()

    def observe(self, rule: Rule) -> tuple[Observation, Observation]:
        """The rule's metric before and after the operation."""
        limit, metric = rule.limit, rule.metric
        before = (
            Observation(None) if metric.of_operation else metric.observe(self.before, limit.scope, limit.parameters)
        )
        after = (
            metric.observe(self.after, limit.scope, limit.parameters)
            if self.after.facts.succeeded
            else Observation(None, why="the operation reverts")
        )
        self.models.update(before.models, after.models)
        return before, after

    def lenient(self, metric: Metric) -> bool:
        """The operation only gets out; a limit on this metric never holds it back."""
        return self.exits or (self.reducing and (self.doubtful or not metric.of_operation))


def _change(before: Observation, after: Observation, worse: str) -> Observation:
    """What the operation adds to the metric, and to each part of it."""
    if after.value is None or before.value is None:
        return Observation(None, why=after.why or f"before the operation: {before.why}")
    parts = dict(after.contributions)
    for name, value in before.contributions:
        parts[name] = EXACT.subtract(parts.get(name, Decimal(0)), value)
    change = EXACT.subtract(after.value, before.value)
    if before.error and not same(
        before.basis, after.basis
    ):  # else what a model gave is the same on both sides, and cancels
        # what was moved towards more risk before would make the change look smaller
        change = EXACT.add(change, before.error) if worse == "higher" else EXACT.subtract(change, before.error)
    return Observation(change, tuple(parts.items()))


def _limit_row(rule: Rule, case: _Case) -> LimitRow:
    limit = rule.limit
    before, after = case.observe(rule)
    if limit.of_change:
        before, after = Observation(None), _change(before, after, rule.metric.worse)
    latched = limit.id in case.after.facts.latched
    bound = bound_in_force(limit, latched=latched)
    lenient = case.lenient(rule.metric)
    verdict, reason, approval = (rule.judge_latched if latched else rule.judge)(after.value, before.value, lenient)
    if after.value is None:
        reason = reason.replace(
            "not evaluable", f"not evaluable ({after.why})" if lenient else f"not evaluable: {after.why}"
        )
    verdict, reason = _binding(rule, case, verdict, reason, lenient=lenient)
    headroom = used = None
    if after.value is not None:
        headroom = EXACT.subtract(bound, after.value) if limit.is_max else EXACT.subtract(after.value, bound)
        used = utilisation(limit, bound, after.value)
    return LimitRow(
        id=limit.id,
        metric=limit.metric,
        scope=str(limit.scope),
        unit=rule.metric.unit,
        action=limit.action.value,
        comparator="max" if limit.is_max else "min",
        bound=bound,
        before=before.value,
        after=after.value,
        headroom=headroom,
        utilisation=used,
        verdict=verdict,
        reason=reason,
        contributions=after.contributions,
        approval=approval if verdict == "require_signers" else "",
        of_change=limit.of_change,
    )


def _binding(rule: Rule, case: _Case, verdict: Verdict, reason: str, *, lenient: bool) -> tuple[Verdict, str]:
    """The verdict where the limit binds at all: at this hour, and under its condition. A condition without value binds and denies."""
    limit = rule.limit
    if limit.during is not None and not limit.during.at(case.now_s):
        return "pass", f"binds only {limit.during}"
    if rule.condition is None:
        return verdict, reason
    holds = rule.condition.holds(case.before, case.after, case.now_s)
    if isinstance(holds, str):
        return ("warn" if lenient else "deny"), f"its condition has no value: {holds}"
    return (verdict, reason) if holds else ("pass", "its condition does not hold")


def latched_after(policy: Policy, seen: Mapping[str, Decimal], latched: frozenset[str]) -> frozenset[str]:
    """`Facts.latched` of the next judgement, from what one judgement saw *before* its operation (limit id -> value).

    A limit latches when the portfolio itself was beyond its bound, and stays latched until it was seen inside the bound tightened by the
    hysteresis. What a refused operation would have done latches nothing. Limits without hysteresis never latch.
    """
    found = set(latched)
    for limit in policy.every_limit:
        value = seen.get(limit.id)
        if value is None or not limit.hysteresis or not value.is_finite():
            continue
        if not passes(limit, limit.bound, value):
            found.add(limit.id)
        elif passes(limit, bound_in_force(limit, latched=True), value):
            found.discard(limit.id)
    return frozenset(found)
