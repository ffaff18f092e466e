"""When the keeper pokes the equity breaker: whenever the chain would learn something, and never otherwise."""

from __future__ import annotations

from dataclasses import replace

import pytest

from contracts.bindings import RiskState
from wallet.keeper.breaker import BREACH, DAY, DAY_S, FIRST, HIGH, LASTED, OVER, Look, wanted

NOW_S = 20_000 * DAY_S + 3_600
WAD = 10**18
CALM = Look(
    state=RiskState.ACTIVE,
    equity=100 * WAD,
    problem=bytes(4),
    is_confirmed=True,
    mark=100 * WAD,
    day_reference=100 * WAD,
    day=20_000,
    rest_until_s=0,
    breached_since_s=0,
    loss_per_day_bps=500,
    drawdown_bps=1_000,
    patience_s=60,
)
FALLEN = replace(CALM, equity=90 * WAD - 1, loss_per_day_bps=0)


def test_nothing_is_said_where_nothing_is_new() -> None:
    assert wanted(CALM, NOW_S) is None
    assert wanted(replace(CALM, equity=95 * WAD), NOW_S) is None, "at the bound of the day, not below it"
    assert wanted(replace(CALM, equity=100 * WAD + WAD // 10), NOW_S) is None, "a tenth of a percent is no high"


@pytest.mark.parametrize(
    ("look", "why"),
    [
        (replace(CALM, day=0, mark=0, day_reference=0), FIRST),
        (replace(CALM, day=19_999), DAY),
        (replace(CALM, equity=95 * WAD - 1), BREACH),
        (FALLEN, BREACH),
        (replace(FALLEN, patience_s=0), LASTED),
        (replace(FALLEN, breached_since_s=NOW_S - 60), LASTED),
        (replace(CALM, breached_since_s=NOW_S - 10), OVER),
        (replace(CALM, equity=101 * WAD), HIGH),
    ],
)
def test_what_a_poke_is_for(look: Look, why: int) -> None:
    assert wanted(look, NOW_S) == why


@pytest.mark.parametrize(
    "look",
    [
        replace(FALLEN, breached_since_s=NOW_S - 59),
        replace(FALLEN, rest_until_s=NOW_S + 1),
        replace(FALLEN, drawdown_bps=0),
        replace(FALLEN, state=RiskState.REDUCE_ONLY),
        replace(FALLEN, problem=b"\x01\x02\x03\x04"),
        replace(CALM, equity=101 * WAD, is_confirmed=False),
    ],
    ids=["must last first", "at rest", "not bounded", "no longer active", "equity unknown", "sources disagree"],
)
def test_a_poke_that_would_change_nothing_is_not_paid_for(look: Look) -> None:
    assert wanted(look, NOW_S) is None


def test_a_breach_of_yesterday_is_judged_before_the_new_day_begins() -> None:
    assert wanted(replace(CALM, equity=94 * WAD, day=19_999), NOW_S) == BREACH
