"""What limits ask of the past, and what becomes of histories that are short, broken or of different ends."""

from __future__ import annotations

from decimal import Decimal

import pytest

from contracts.errors import BadInput
from policies.past import MAX_RETURNS, Closes, PastAsked, past_asked, returns_of, simple_returns, stretch
from tests.policies.rig import policy_of

D = Decimal
DAY = 86_400
END = 20_000 * DAY


def asked(*limits: str) -> PastAsked | None:
    return past_asked(
        policy_of("limits:\n" + "".join(f"  - {{id: l{i}, {text}}}\n" for i, text in enumerate(limits))).limits
    )


def closes(count: int, end_s: int = END, source: str = "x") -> Closes:
    return Closes(end_s, tuple(D(100 + i) for i in range(count)), source, f"{source} has no more")


def test_limits_that_do_not_look_back_ask_nothing() -> None:
    assert asked("metric: leverage, max: 3", "metric: drawdown, max: 10%, window: 30d") is None


@pytest.mark.parametrize(
    ("limits", "period_s", "least", "most"),
    [
        (("metric: value_at_risk, max: 1, window: 250d",), DAY, 250, 250),
        (("metric: value_at_risk, max: 1, window: 250d", "metric: expected_shortfall, max: 1, window: 500d"), DAY, 500, 500),
        (("metric: value_at_risk, max: 1, window: 30d, horizon: 1h",), 3_600, 720, 720),
        (("metric: value_at_risk, max: 1, window: 30d, horizon: 10d",), DAY, 30, 30),
        (("metric: value_at_risk, max: 1, window: 30d, horizon: 36h",), 43_200, 60, 60),
        (("metric: value_at_risk, max: 1",), DAY, 100, MAX_RETURNS),
        (("metric: value_at_risk, max: 1, confidence: 95%, horizon: 10d",), DAY, 29, MAX_RETURNS),
        (("metric: expected_shortfall, max: 1, method: parametric, confidence: 99.9%",), DAY, 30, MAX_RETURNS),
        (('metric: component_shortfall, scope: "asset: ETH", max: 1, method: filtered',), DAY, 100, MAX_RETURNS),
        (("metric: value_at_risk, max: 1", "metric: expected_shortfall, max: 1, window: 400d"), DAY, 400, MAX_RETURNS),
    ],
)  # fmt: skip
def test_period_and_count_follow_from_horizons_and_windows(
    limits: tuple[str, ...], period_s: int, least: int, most: int
) -> None:
    assert asked(*limits) == PastAsked(period_s, least, most)


def test_limits_of_overrides_ask_too() -> None:
    policy = policy_of(
        "limits:\n  - {id: l, metric: leverage, max: 3}\n"
        "overrides:\n  - id: desk\n    chains: [1]\n    limits: [{id: v, metric: value_at_risk, max: 1, window: 60d}]\n"
    )
    assert past_asked(policy.limits) is None
    assert past_asked(policy.every_limit) == PastAsked(DAY, 60, 60)


def test_enough_returns_are_a_series_that_ends_where_its_prices_end() -> None:
    (series,), gaps = returns_of(PastAsked(DAY, 2, 2), {"ETH": Closes(END, (D(50), D(100), D(110), D(99)), "x", "")})
    assert gaps == ()
    assert (series.values, series.until_s, series.source) == ((D("0.1"), D("-0.1")), END, "x")


def test_what_is_short_says_which_asset_lacks_how_many_and_why() -> None:
    found, (gap,) = returns_of(PastAsked(DAY, 10, 10), {"BTC": closes(20, source="y"), "ETH": closes(8)})
    assert [series.asset for series in found] == ["BTC"]
    assert gap.what == "the past returns of ETH"
    assert "7 of 86400 s each" in gap.why
    assert "10 are asked for, 3 are lacking: x has no more" in gap.why


def test_the_earliest_end_is_everybodys() -> None:
    (btc, eth), gaps = returns_of(PastAsked(DAY, 3, 3), {"ETH": closes(6), "BTC": closes(6, END - 2 * DAY)})
    assert gaps == ()
    assert (btc.until_s, eth.until_s) == (END - 2 * DAY, END - 2 * DAY)
    assert eth.values[-1] == (D(103) / D(102) - 1).quantize(D("1e-12"))


def test_a_source_that_ended_long_ago_leaves_the_others_nothing_rather_than_another_time() -> None:
    found, gaps = returns_of(PastAsked(DAY, 3, 3), {"ETH": closes(6), "BTC": closes(6, END - 40 * DAY)})
    assert [series.asset for series in found] == ["BTC"]
    assert [gap.what for gap in gaps] == ["the past returns of ETH"]


def test_more_returns_than_a_decision_can_hold_are_refused_before_they_are_made() -> None:
    found, (gap,) = returns_of(PastAsked(60, MAX_RETURNS + 1, MAX_RETURNS + 1), {"ETH": closes(5)})
    assert found == ()
    assert "shorten a window" in gap.why


def test_a_stretch_ends_at_a_hole_and_names_it() -> None:
    at = [(END + n * DAY, D(n + 10)) for n in (0, 1, 2, 4, 5, 6)]
    found = stretch("x", at, DAY, END + 6 * DAY + 5, 10, "ETH")
    assert (found.end_s, found.prices) == (END + 6 * DAY, (D(14), D(15), D(16)))
    assert f"no price of ETH at {END + 3 * DAY}" in found.why
    assert stretch("x", at, DAY, END + 6 * DAY, 1, "ETH").prices == (D(15), D(16))
    with pytest.raises(BadInput, match="no price of ETH"):
        stretch("x", at, DAY, END - 1, 1, "ETH")


def test_returns_are_rounded_half_to_even_at_twelve_places() -> None:
    assert simple_returns("ETH", DAY, Closes(END, (D(3), D(4)), "x", "")).values == (D("0.333333333333"),)
