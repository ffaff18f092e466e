"""From a policy and facts to a Decision. Everything passes only if shown to be inside: a missing or senseless figure never allows.

Precedence, whatever the order of rules: deny > require_signers > allow. A limit that was breached before never holds back an operation
that leaves its metric as it is or improves it. An operation all of whose calls are declared exits (or guards, or the announced escape) or
known reductions is judged more leniently: facts that are missing do not deny it, and neither does a limit on the portfolio. A limit on
the operation itself (slippage) still binds a reduction on sound facts, but never an exit.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from decimal import Decimal, localcontext
from typing import Any

from contracts.bindings import RiskState
from contracts.types import checksum, to_hex
from policies.calls import DecodedCall, argument
from policies.canonical import facts_hash
from policies.decision import CallRow, Decision, LimitRow, Outcome, Verdict
from policies.doubts import doubts_about
from policies.functions import Effect
from policies.margin import EXACT, ratio
from policies.metrics import METRICS, Observation, View, stress_of, view_of
from policies.policy import CallRule, ExitRule, Limit, Pin, Policy, argument_word, resolve
from policies.portfolio import Facts

_GUARD_FUNCTIONS = ("execute(address,uint256)", "touch(address,uint256)")
_ESCAPE = ("seawall.emergency_freeze", "startEscape()")
_EXITS = ("exit", "guard", "escape")
"""What stays open whatever the facts are. Mirror of EmergencyFreeze.permits, so that on chain and off chain it is the same set."""


def evaluate(policy: Policy, facts: Facts, now_s: int) -> Decision:
    """Judge one operation at `now_s` (unix s). Deterministic: the same arguments give the same Decision, to the byte."""
    calls = [_call_row(policy, facts, call) for call in facts.calls.calls]
    exits = bool(calls) and all(row.rule in _EXITS for row in calls)
    reducing = exits or (
        bool(calls)
        and all(
            row.rule and (row.rule in _EXITS or call.effect is Effect.REDUCES)
            for row, call in zip(calls, facts.calls.calls, strict=True)
        )
    )
    objections = list(_of_the_operation(policy, facts, calls, exits=exits))
    doubts = doubts_about(policy, facts, now_s)
    warnings: list[str] = []
    (warnings if reducing else objections).extend(doubts)
    workings: dict[Any, Any] = {}
    views = (
        view_of(facts, facts.before, is_after=False, workings=workings),
        view_of(facts, facts.after, workings=workings),
    )
    limits = [
        _limit_row(limit, views, exits=exits, reducing=reducing, doubtful=bool(doubts)) for limit in policy.limits
    ]
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
        limits=tuple(limits),
        calls=tuple(calls),
        objections=tuple(objections),
        warnings=tuple(warnings),
    )


# -- calls ----------------------------------------------------------------------------------------------------------------------


def _call_row(policy: Policy, facts: Facts, call: DecodedCall) -> CallRow:
    """The first rule that lets the call pass; which one it is decides nothing."""
    rule = ""
    if _is_guard(policy, call, facts):
        rule = "guard"
    elif (call.target_name, call.function) == _ESCAPE and not call.value_wei:
        rule = "escape"
    elif any(_exit_fits(policy, facts, exit_rule, call) for exit_rule in policy.exits):
        rule = "exit"
    else:
        for number, allowed in enumerate(policy.calls):
            if _call_fits(policy, facts, allowed, call):
                rule = f"calls[{number}]"
                break
    return CallRow(call.title, call.effect.value, rule)


def _is_guard(policy: Policy, call: DecodedCall, facts: Facts) -> bool:
    if call.target_name not in policy.guards or call.function not in _GUARD_FUNCTIONS or call.value_wei:
        return False
    return argument(call, "account") == to_hex(facts.account)


def _call_fits(policy: Policy, facts: Facts, rule: CallRule, call: DecodedCall) -> bool:
    if resolve(rule.target, policy, facts.book, facts.account) != call.target or call.value_wei > rule.max_value_wei:
        return False
    if not call.data:
        return not rule.selectors
    if call.selector not in rule.selectors:
        return False
    return all(_pin_fits(policy, facts, pin, call) for pin in rule.pins)


def _pin_fits(policy: Policy, facts: Facts, pin: Pin, call: DecodedCall) -> bool:
    given = argument(call, pin.argument)
    if given is None:
        return False
    if pin.values:
        addresses = (resolve(value, policy, facts.book, facts.account) for value in pin.values)
        names = {to_hex(address) for address in addresses if address is not None}
        return given in names or given in pin.values
    if not given.lstrip("-").isdigit():
        return False
    number = int(given)
    return (pin.minimum is None or number >= pin.minimum) and (pin.maximum is None or number <= pin.maximum)


def _exit_fits(policy: Policy, facts: Facts, rule: ExitRule, call: DecodedCall) -> bool:
    if resolve(rule.target, policy, facts.book, facts.account) != call.target or call.target == facts.account:
        return False
    if facts.state is RiskState.FROZEN and not rule.in_frozen:
        return False
    if rule.plain_value:
        return not call.data
    if call.value_wei or call.selector != rule.selector:
        return False
    return all(
        argument_word(text, policy, facts.book, facts.account) == call.data[4 + 32 * i : 36 + 32 * i]
        for i, text in rule.words
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


def _limit_row(limit: Limit, views: tuple[View, View], *, exits: bool, reducing: bool, doubtful: bool) -> LimitRow:
    metric = stress_of(limit.shocks) if limit.shocks else METRICS[limit.metric]
    earlier, later = views
    facts = later.facts
    before = Observation(None) if metric.of_operation else metric.observe(earlier, limit.scope, limit.parameters)
    after = (
        metric.observe(later, limit.scope, limit.parameters)
        if facts.succeeded
        else Observation(None, why="the operation reverts")
    )
    bound = _bound(limit, latched=limit.id in facts.latched)
    lenient = exits or (reducing and (doubtful or not metric.of_operation))
    verdict, reason = _verdict(limit, bound, before.value, after, lenient=lenient)
    headroom = utilisation = None
    if after.value is not None:
        with localcontext(EXACT):
            headroom = bound - after.value if limit.is_max else after.value - bound
        utilisation = _utilisation(limit, bound, after.value)
    return LimitRow(
        id=limit.id,
        metric=limit.metric,
        scope=str(limit.scope),
        unit=metric.unit,
        action=limit.action.value,
        comparator="max" if limit.is_max else "min",
        bound=bound,
        before=before.value,
        after=after.value,
        headroom=headroom,
        utilisation=utilisation,
        verdict=verdict,
        reason=reason,
        contributions=after.contributions,
    )


def _bound(limit: Limit, *, latched: bool) -> Decimal:
    """The bound in force: tighter by the hysteresis while the limit is latched (it was breached when last judged)."""
    if not latched or not limit.hysteresis:
        return limit.bound
    with localcontext(EXACT):
        slack = abs(limit.bound) * limit.hysteresis
        return limit.bound - slack if limit.is_max else limit.bound + slack


def latched_after(policy: Policy, seen: Mapping[str, Decimal], latched: frozenset[str]) -> frozenset[str]:
    """`Facts.latched` of the next judgement, from what one judgement saw *before* its operation (limit id -> value).

    A limit latches when the portfolio itself was beyond its bound, and stays latched until it was seen inside the bound tightened by the
    hysteresis. What a refused operation would have done latches nothing. Limits without hysteresis never latch.
    """
    found = set(latched)
    for limit in policy.limits:
        value = seen.get(limit.id)
        if value is None or not limit.hysteresis or not value.is_finite():
            continue
        if not _passes(limit, limit.bound, value):
            found.add(limit.id)
        elif _passes(limit, _bound(limit, latched=True), value):
            found.discard(limit.id)
    return frozenset(found)


def _utilisation(limit: Limit, bound: Decimal, value: Decimal) -> Decimal | None:
    """Share of the bound in use: value / max, or min / value; None where the bound is no positive number."""
    if bound <= 0 or value < 0:
        return None
    if limit.is_max:
        return ratio(value, bound, up=True)
    return None if value == 0 else ratio(bound, value, up=True)


def _passes(limit: Limit, bound: Decimal, value: Decimal) -> bool:
    return value <= bound if limit.is_max else value >= bound


def _verdict(
    limit: Limit, bound: Decimal, before: Decimal | None, after: Observation, *, lenient: bool
) -> tuple[Verdict, str]:
    """`lenient`: the operation only gets out; a limit on the portfolio never holds it back."""
    breach: Verdict = limit.action.value
    if after.value is None:
        if lenient:
            return "warn", f"not evaluable ({after.why}), and the operation only reduces"
        return "deny", f"not evaluable: {after.why}"
    if _passes(limit, bound, after.value):
        used = _utilisation(limit, bound, after.value)
        return ("warn", "") if used is not None and used >= limit.warn_at else ("pass", "")
    if lenient:
        return "warn", "breached, and the operation only reduces"
    if before is not None and not _passes(limit, bound, before):
        if after.value < before if limit.is_max else after.value > before:
            return "warn", "breached before, and the operation reduces it"
        if after.value == before:
            return "warn", "breached before, and the operation does not change it"
    return breach, "breached"
