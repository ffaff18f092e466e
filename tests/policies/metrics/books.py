"""Portfolios that fit on paper, and how to ask a metric about them."""

from __future__ import annotations

from dataclasses import replace
from decimal import Decimal
from typing import Any

from policies import METRICS
from policies.metrics import Observation
from policies.policy import Parameters, Scope
from policies.portfolio import Facts, Portfolio, Price
from tests.policies.rig import NOW_S, opening, policy_of

D = Decimal
PRICES = (Price("ETH", D(2_000), NOW_S, "feed"), Price("BTC", D(40_000), NOW_S, "feed"))


def facts(**changes: Any) -> Facts:
    """Facts at ETH 2,000 and BTC 40,000 with nothing traded and nothing called."""
    quiet = replace(opening(policy_of("")), prices=PRICES, fills=(), orders=(), before=Portfolio(), after=Portfolio())
    return replace(quiet, **changes)


def take(
    metric: str,
    book: Portfolio,
    scope: str = "portfolio",
    given: Facts | None = None,
    *,
    is_after: bool = True,
    **asked: Any,
) -> Observation:
    """The metric on `book`; `asked` are parameters of the limit."""
    return METRICS[metric].compute(given or facts(), book, Scope.parse(scope), Parameters(**asked), is_after=is_after)
