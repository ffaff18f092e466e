"""The policy engine, pure: files, facts, metrics, rules, decisions and attestations. No sockets, no keys, no clock.

policy = load(text, parents)                  # InvalidPolicy has every problem with its line
decision = evaluate(policy, facts, now_s)     # facts: what the chain says before and after the operation
decision.allowed, decision.explain()
"""

from __future__ import annotations

from policies.decision import Decision, LimitRow, Model, Sizes, explain
from policies.document import lint, load, parent_of
from policies.metrics import METRICS, Metric, explain_metric
from policies.policy import Policy
from policies.portfolio import Facts, Outstanding, Portfolio
from policies.problems import InvalidPolicy, Problem
from policies.rules import evaluate
from policies.search import largest_passing

__all__ = [
    "METRICS",
    "Decision",
    "Facts",
    "InvalidPolicy",
    "LimitRow",
    "Metric",
    "Model",
    "Outstanding",
    "Policy",
    "Portfolio",
    "Problem",
    "Sizes",
    "evaluate",
    "explain",
    "explain_metric",
    "largest_passing",
    "lint",
    "load",
    "parent_of",
]
