"""What a limit can be set on: each metric with its definition, unit, inputs, and the direction in which risk grows.

Amounts are exact; a quotient is rounded in the direction of more risk (18 decimals), a model's output to 12 significant digits the same
way, so that the same facts give the same bytes and no limit passes by rounding. One module a theme; this table holds them all.
"""

from __future__ import annotations

from collections.abc import Mapping

from contracts.errors import BadInput
from policies.metrics import exposure, greeks, history, lending, margins, operation, stress, tail
from policies.metrics.base import Contribution, Metric, NotKnown, Observation, View, adverse, same, view_of
from policies.metrics.stress import Shocks, stress_margin, stress_of
from policies.problems import did_you_mean

__all__ = [
    "METRICS",
    "Contribution",
    "Metric",
    "NotKnown",
    "Observation",
    "Shocks",
    "View",
    "adverse",
    "explain_metric",
    "same",
    "stress_margin",
    "stress_of",
    "view_of",
]

METRICS: Mapping[str, Metric] = {
    metric.name: metric
    for theme in (exposure, greeks, margins, lending, operation, history, stress, tail)
    for metric in theme.METRICS
}


def explain_metric(name: str) -> Metric:
    """Definition, unit, direction and inputs of a metric. Raises BadInput with the nearest name."""
    if name not in METRICS:
        raise BadInput(f"there is no metric {name!r}; {did_you_mean(name, tuple(METRICS))}")
    return METRICS[name]
