"""VaR and ES on a book and a past that fit on paper.

Long 10 ETH at 2,000: a return of -r % loses 200 r. Past returns of ETH: -10 %, -9 %, ..., +9 % (20 of them), so losses are 2,000, 1,800, ...
At 90 %: k = 2, VaR = the third worst = 1,600, ES = (2,000 + 1,800) / 2 = 1,900. At 85 %: k = 3, ES = 1,800.
"""

from __future__ import annotations

import math
from dataclasses import replace

import pytest

from policies.portfolio import Facts, Holding, Margin, Option, Portfolio, Position, Returns
from tests.policies.metrics.books import D, facts, take
from tests.policies.rig import NOW_S

DAY = 86_400
PAST = Returns("ETH", DAY, NOW_S - 100, "recorded", tuple(D(n) / 100 for n in range(-10, 10)))
MARGIN = Margin("perp", D(20_000), D(20_000), D(1_250), D(0), D("0.0625"), D("0.1"))
LONG = Portfolio(positions=(Position("perp", "ETH", D(10), D(20_000), D(2_000)),), margins=(MARGIN,))


def given(*series: Returns) -> Facts:
    return facts(returns=series or (PAST,))


@pytest.mark.parametrize(
    ("confidence", "var", "es"), [("0.9", 1_600, 1_900), ("0.85", 1_400, 1_800), ("0.99", 2_000, 2_000)]
)
def test_historical_var_and_es_are_the_tail_of_the_past(confidence: str, var: int, es: int) -> None:
    assert take("value_at_risk", LONG, given=given(), confidence=D(confidence)).value == var
    found = take("expected_shortfall", LONG, given=given(), confidence=D(confidence))
    assert found.value == es
    assert found.models[0][0] == "full_revaluation"
    assert sum(part for _, part in found.contributions) == es


def test_a_whole_number_of_scenarios_and_a_part_of_one_more_are_in_the_tail() -> None:
    """At 92.5 %: k = 1.5, ES = (2,000 + 0.5 x 1,800) / 1.5 = 1,933.33, rounded up."""
    assert take("expected_shortfall", LONG, given=given(), confidence=D("0.925")).value == D("1933.34")


def test_the_window_looks_at_the_end_of_the_past_only() -> None:
    """The last ten returns are 0 to 9 %: nothing is lost."""
    assert take("expected_shortfall", LONG, given=given(), window_s=10 * DAY, confidence=D("0.9")).value == 0
    long = take("expected_shortfall", LONG, given=given(), window_s=21 * DAY)
    assert long.value is None
    assert "the window is longer" in long.why


def test_a_longer_horizon_compounds_overlapping_returns() -> None:
    """Two days: the worst pair is 0.9 x 0.91 - 1 = -18.1 %."""
    assert take("value_at_risk", LONG, given=given(), horizon_s=2 * DAY).value == 3_620
    odd = take("value_at_risk", LONG, given=given(), horizon_s=DAY // 2)
    assert "no whole number of periods" in odd.why


def test_options_are_priced_anew_in_every_scenario() -> None:
    """A put far in the money pays what the perp loses: strike - spot, one to one."""
    put = Option("x", "ETH", False, D(1_000_000), NOW_S + 10, D(10), D(0), D(998_000), D("0.5"))
    found = take("expected_shortfall", replace(LONG, options=(put,)), given=given(), confidence=D("0.9")).value
    assert found is not None
    assert 0 <= found <= D("0.05")


def test_parts_of_expected_shortfall_add_up_and_a_hedge_is_negative() -> None:
    """4 ETH short elsewhere: the book loses 6 x 20 a percent, the long adds 10 x 20, the short -4 x 20."""
    hedged = replace(LONG, positions=(*LONG.positions, Position("other", "ETH", D(-4), D(-8_000), D(2_000))))
    asked = {"confidence": D("0.9")}
    assert take("expected_shortfall", hedged, given=given(), **asked).value == 1_140
    assert take("component_shortfall", hedged, "venue: perp", given(), **asked).value == 1_900
    assert take("component_shortfall", hedged, "venue: other", given(), **asked).value == -760
    assert take("component_shortfall", hedged, "asset: ETH", given(), **asked).value == 1_140
    assert take("component_shortfall", hedged, "asset: BTC", given(), **asked).value == 0


def test_parametric_figures_are_multiples_of_the_standard_deviation() -> None:
    """20,000 x s with s^2 the sample variance of -10..9 %: 35 (%^2). z(99 %) = 2.32634787..., ES multiple 2.66521422..."""
    s = 20_000 * math.sqrt(35) / 100
    asked = {"method": "parametric", "confidence": D("0.99")}
    assert float(take("value_at_risk", LONG, given=given(), **asked).value or 0) == pytest.approx(
        2.3263478740408408 * s, rel=1e-9
    )
    found = take("expected_shortfall", LONG, given=given(), **asked)
    assert float(found.value or 0) == pytest.approx(2.6652142203457847 * s, rel=1e-9)
    assert [name for name, _ in found.contributions] == ["ETH"]
    four = take("value_at_risk", LONG, given=given(), horizon_s=4 * DAY, **asked).value
    assert float(four or 0) == pytest.approx(2 * 2.3263478740408408 * s, rel=1e-9)
    assert take("component_shortfall", LONG, "venue: perp", given(), **asked).value is None


def test_filtered_returns_have_the_volatility_of_now() -> None:
    """A quiet end makes the same past worth less, a wild end more."""
    noisy = tuple(D(n) / 100 for n in (5, -5) * 30)
    quiet = tuple(D(n) / 1_000 for n in (5, -5) * 30)
    asked = {"method": "filtered", "confidence": D("0.9")}
    calm = take("expected_shortfall", LONG, given=given(replace(PAST, values=noisy + quiet)), **asked).value
    wild = take("expected_shortfall", LONG, given=given(replace(PAST, values=quiet + noisy)), **asked).value
    assert calm is not None
    assert wild is not None
    assert calm < 250 < 900 < wild


def test_what_has_no_past_has_no_tail_and_nothing_held_has_no_risk() -> None:
    for metric in ("value_at_risk", "expected_shortfall"):
        assert take(metric, LONG, given=facts()).why == "there are no past returns of ETH"
        assert take(metric, Portfolio(holdings=(Holding("account", "USDC", D(5)),)), given=facts()).value == 0
    apart = given(PAST, replace(PAST, asset="BTC", period_s=3_600))
    both = replace(LONG, holdings=(Holding("account", "BTC", D(1)),))
    assert take("expected_shortfall", both, given=apart).value is None
    assert take("expected_shortfall", both, given=apart, method="parametric").value is None
