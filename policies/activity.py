"""What one operation does to the record of an account, in the metrics' own terms, and how much of that record a policy asks for."""

from __future__ import annotations

from dataclasses import replace
from decimal import Decimal

from policies.metrics import METRICS, history
from policies.policy import Policy, Scope
from policies.portfolio import EquityPoint, Facts, History

_OF_THE_RECORD = frozenset(metric.name for metric in history.METRICS) - {"unrealised_pnl"}
_ALL = 2**62


def _alone(name: str, facts: Facts) -> Decimal:
    """A metric of the record as this operation alone would make it; 0 where it has no value."""
    found = METRICS[name].compute(replace(facts, history=History(-_ALL)), facts.after, Scope())
    return Decimal(0) if found.value is None else found.value


def traded_by(facts: Facts) -> Decimal:
    """Quote that the operation trades, as `turnover` counts it."""
    return _alone("turnover", facts)


def realised_by(facts: Facts) -> Decimal:
    """Profit that the operation realises, as `realised_pnl` counts it."""
    return _alone("realised_pnl", facts)


def equity_point(facts: Facts, paid_in: Decimal) -> EquityPoint | None:
    """What the account was worth before the operation, at the block's time; None when that cannot be told."""
    seen = METRICS["equity"].compute(facts, facts.before, Scope(), is_after=False)
    if seen.value is None or facts.missing:
        return None
    return EquityPoint(facts.block_time_s, seen.value, paid_in)


def record_needed_s(policy: Policy) -> int | None:
    """How far back (seconds) the limits of `policy` look into the record; None when none does, a huge number when one looks at all of it."""
    limits = [*policy.limits, *(limit for override in policy.overrides for limit in override.limits)]
    reach = [
        limit.parameters.window_s or (_ALL if limit.metric == "drawdown" else history.DAY_S)
        for limit in limits
        if limit.metric in _OF_THE_RECORD
    ]
    # A condition names metrics in its own words, without windows: those have their default ones.
    reach += [
        _ALL if name == "drawdown" else history.DAY_S
        for limit in limits
        for name in _OF_THE_RECORD
        if name in limit.when
    ]
    return max(reach, default=None)
