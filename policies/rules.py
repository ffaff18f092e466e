"""From a policy and facts to a Decision. Everything passes only if shown to be inside: a missing or senseless figure never allows.

Precedence, whatever the order of rules: deny > require_signers > allow. An operation all of whose calls are declared exits or known
reductions is judged more leniently in one respect only: facts that are missing do not deny it, and a limit that was breached before may
stay breached as long as it does not get worse.
"""

from __future__ import annotations

from collections.abc import Sequence
from decimal import Decimal, localcontext
from itertools import chain

from contracts.bindings import RiskState
from contracts.types import checksum, to_hex
from policies.calls import DecodedCall, argument
from policies.canonical import facts_hash
from policies.decision import CallRow, Decision, LimitRow, Outcome, Verdict
from policies.functions import Effect
from policies.margin import EXACT, ratio
from policies.metrics import METRICS, Metric, Observation, stress_of
from policies.policy import CallRule, ExitRule, Limit, Pin, Policy, resolve
from policies.portfolio import Facts, Portfolio, Price

_GUARD_TARGETS = ("seawall.stop_loss",)
_GUARD_FUNCTIONS = ("execute(address,uint256)", "touch(address,uint256)", "reduce(uint256,uint256)")
_VALUE_TOLERANCE = Decimal("0.01")
"""USDC by which a venue's account value may differ from the sum of its parts: its figures are rounded to 6 decimals."""


def evaluate(policy: Policy, facts: Facts, now_s: int) -> Decision:
    """Judge one operation at `now_s` (unix s). Deterministic: the same arguments give the same Decision, to the byte."""
    calls = [_call_row(policy, facts, call) for call in facts.calls.calls]
    exits = bool(calls) and all(row.rule.startswith(("exit", "guard")) for row in calls)
    reducing = exits or (
        bool(calls)
        and all(
            row.rule and (row.rule.startswith(("exit", "guard")) or call.effect is Effect.REDUCES)
            for row, call in zip(calls, facts.calls.calls, strict=True)
        )
    )
    objections = list(_of_the_operation(policy, facts, calls, exits=exits))
    doubts = list(_doubts(policy, facts, now_s))
    warnings: list[str] = []
    (warnings if reducing else objections).extend(doubts)
    limits = [_limit_row(limit, facts, reducing=reducing, doubtful=bool(doubts)) for limit in policy.limits]
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
    if _is_guard(call, facts):
        rule = "guard"
    elif any(_exit_fits(policy, facts, exit_rule, call) for exit_rule in policy.exits):
        rule = "exit"
    else:
        for number, allowed in enumerate(policy.calls):
            if _call_fits(policy, facts, allowed, call):
                rule = f"calls[{number}]"
                break
    return CallRow(call.title, call.effect.value, rule)


def _is_guard(call: DecodedCall, facts: Facts) -> bool:
    if call.target_name not in _GUARD_TARGETS or call.function not in _GUARD_FUNCTIONS or call.value_wei:
        return False
    named = argument(call, "account")
    return named is None or named == to_hex(facts.account)


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
    if resolve(rule.target, policy, facts.book, facts.account) != call.target:
        return False
    if facts.state is RiskState.FROZEN and not rule.in_frozen:
        return False
    if rule.plain_value:
        return not call.data
    if call.value_wei or call.selector != rule.selector:
        return False
    return all(_word(policy, facts, text) == call.data[4 + 32 * i : 36 + 32 * i] for i, text in rule.words)


def _word(policy: Policy, facts: Facts, text: str) -> bytes | None:
    """A pinned argument word: an address (left-padded), an integer, or 32 bytes."""
    found = resolve(text, policy, facts.book, facts.account)
    if found is not None:
        return bytes(32 - len(found)) + found
    return int(text).to_bytes(32) if text.isdigit() else None


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
    others = [o for o in facts.outstanding if o.intent_hash != facts.intent_hash and o.nonce != facts.nonce]
    if others:
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


def _doubts(policy: Policy, facts: Facts, now_s: int) -> list[str]:
    """Facts that are missing, stale, not finite or contradictory. They deny whatever is not an exit or a reduction."""
    found = [f"{missing.what} is missing: {missing.why}" for missing in facts.missing]
    if now_s - facts.block_time_s > policy.max_block_age_s:
        found.append(
            f"the newest block is {now_s - facts.block_time_s} s old, the policy takes {policy.max_block_age_s} s"
        )
    needed = (
        facts.before.assets() | facts.after.assets() | {f.asset for f in facts.fills} | {o.asset for o in facts.orders}
    )
    for asset in sorted(needed):
        prices = [p for p in facts.prices if p.asset == asset]
        if not prices:
            found.append(f"there is no price of {asset}")
        found += chain.from_iterable(_price_doubts(policy, price, now_s) for price in prices)
        sound = [p.value for p in prices if p.value.is_finite() and p.value > 0]
        if len(sound) > 1 and ratio(max(sound) - min(sound), min(sound), up=True) > policy.max_price_deviation:
            found.append(f"the sources of {asset} contradict each other: {', '.join(f'{v:f}' for v in sound)}")
    for when, portfolio in (("before", facts.before), ("after", facts.after)):
        if when == "before" or facts.succeeded:
            found += _portfolio_doubts(when, portfolio, policy, facts)
    return found


def _price_doubts(policy: Policy, price: Price, now_s: int) -> list[str]:
    if not price.value.is_finite() or price.value <= 0:
        return [f"the price of {price.asset} from {price.source} is {price.value}"]
    if now_s - price.time_s > policy.max_price_age_s:
        return [
            f"the price of {price.asset} from {price.source} is {now_s - price.time_s} s old, the policy takes {policy.max_price_age_s} s"
        ]
    if price.time_s > now_s + policy.max_block_age_s:
        return [f"the price of {price.asset} from {price.source} comes from the future"]
    return []


def _portfolio_doubts(when: str, portfolio: Portfolio, policy: Policy, facts: Facts) -> list[str]:
    amounts = [("holding", h.venue, h.amount) for h in portfolio.holdings] + [
        ("debt", d.venue, d.amount) for d in portfolio.debts
    ]
    for p in portfolio.positions:
        amounts += [
            ("position", p.label, value) for value in (p.size, p.entry_notional, p.mark_price, p.pending_funding)
        ]
    for m in portfolio.margins:
        amounts += [
            ("margin", m.venue, value)
            for value in (m.collateral, m.account_value, m.maintenance_requirement, m.free_collateral)
        ]
    senseless = [f"{kind} {label} {when} is {value}" for kind, label, value in amounts if not value.is_finite()]
    if senseless:
        return senseless
    found = []
    for margin in portfolio.margins:
        held = [p for p in portfolio.positions if p.venue == margin.venue]
        with localcontext(EXACT):
            parts = margin.collateral + sum(
                (p.notional - p.entry_notional - p.pending_funding for p in held), Decimal(0)
            )
            gap = abs(parts - margin.account_value)
        if gap > _VALUE_TOLERANCE:
            found.append(
                f"{margin.venue} {when}: its account value {margin.account_value:f} differs from its parts by {gap:f}"
            )
    for position in portfolio.positions:
        index = next(
            (p.value for p in facts.prices if p.asset == position.asset and p.value.is_finite() and p.value > 0), None
        )
        if index is not None and position.mark_price > 0:
            apart = ratio(abs(position.mark_price - index), index, up=True)
            if apart > policy.max_price_deviation:
                found.append(
                    f"{position.label} {when}: mark {position.mark_price:.4f} and index {index:.4f} are {apart:.2%} apart"
                )
    return found


# -- limits -----------------------------------------------------------------------------------------------------------------------


def _limit_row(limit: Limit, facts: Facts, *, reducing: bool, doubtful: bool) -> LimitRow:
    metric = stress_of(limit.shocks) if limit.shocks else METRICS[limit.metric]
    before = Observation(None) if metric.of_operation else _observe(metric, limit, facts, facts.before)
    after = (
        _observe(metric, limit, facts, facts.after)
        if facts.succeeded
        else Observation(None, why="the operation reverts")
    )
    verdict, reason = _verdict(limit, before.value, after, reducing=reducing, doubtful=doubtful)
    headroom = utilisation = None
    if after.value is not None:
        with localcontext(EXACT):
            headroom = limit.bound - after.value if limit.is_max else after.value - limit.bound
        utilisation = _utilisation(limit, after.value)
    return LimitRow(
        id=limit.id,
        metric=limit.metric,
        scope=str(limit.scope),
        unit=metric.unit,
        action=limit.action.value,
        comparator="max" if limit.is_max else "min",
        bound=limit.bound,
        before=before.value,
        after=after.value,
        headroom=headroom,
        utilisation=utilisation,
        verdict=verdict,
        reason=reason,
        contributions=after.contributions,
    )


def _observe(metric: Metric, limit: Limit, facts: Facts, portfolio: Portfolio) -> Observation:
    """The metric's value; any failure to compute it is "not evaluable", never a pass."""
    try:
        found = metric.compute(facts, portfolio, limit.scope)
    except ArithmeticError as error:
        return Observation(None, why=f"it cannot be computed: {type(error).__name__}")
    if found.value is not None and not found.value.is_finite():
        return Observation(None, found.contributions, f"it is {found.value}")
    return found


def _utilisation(limit: Limit, value: Decimal) -> Decimal | None:
    """Share of the bound in use: value / max, or min / value; None where the bound is no positive number."""
    if limit.bound <= 0 or value < 0:
        return None
    if limit.is_max:
        return ratio(value, limit.bound, up=True)
    return None if value == 0 else ratio(limit.bound, value, up=True)


def _passes(limit: Limit, value: Decimal, bound: Decimal) -> bool:
    return value <= bound if limit.is_max else value >= bound


def _verdict(
    limit: Limit, before: Decimal | None, after: Observation, *, reducing: bool, doubtful: bool
) -> tuple[Verdict, str]:
    breach: Verdict = {"deny": "deny", "require_signers": "require_signers", "warn": "warn"}[limit.action.value]  # type: ignore[assignment]
    if after.value is None:
        if reducing:
            return "warn", f"not evaluable ({after.why}), and the operation only reduces"
        return ("warn", after.why) if limit.action.value == "warn" else ("deny", f"not evaluable: {after.why}")
    if _passes(limit, after.value, limit.bound):
        used = _utilisation(limit, after.value)
        return ("warn", "") if used is not None and used >= limit.warn_at else ("pass", "")
    improved = (
        before is not None
        and not _passes(limit, before, limit.bound)
        and (after.value < before if limit.is_max else after.value > before)
    )
    if improved:
        return "warn", "breached before, and the operation reduces it"
    unchanged = before is not None and before == after.value
    if reducing and (unchanged or doubtful):
        return "warn", "breached, and the operation only reduces"
    return breach, "breached"
