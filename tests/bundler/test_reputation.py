"""Reputation without a chain: the figures of ERC-7562, decay, lists."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bundler.reputation import BAN_OPS_SEEN_PENALTY, Change, Counts, Reputation, Standing, check_standing
from contracts.errors import Throttled

ONE, OTHER = b"\x01" * 20, b"\x02" * 20
HOUR_S = 3_600


@pytest.mark.parametrize(
    ("seen", "included", "standing"),
    [
        (0, 0, Standing.OK), (109, 0, Standing.OK), (110, 0, Standing.THROTTLED), (509, 0, Standing.THROTTLED),
        (510, 0, Standing.BANNED), (510, 1, Standing.THROTTLED), (1_000, 90, Standing.OK), (1_010, 90, Standing.THROTTLED),
    ],
)  # fmt: skip
def test_standing_follows_the_text(seen: int, included: int, standing: Standing) -> None:
    assert Counts(seen, included).standing is standing


def test_urep_020_an_unstaked_entity_earns_room_by_inclusion() -> None:
    assert Counts().allowed_unstaked == 10
    assert Counts(100, 50).allowed_unstaked == 10 + 25
    assert Counts(20_000, 20_000).allowed_unstaked == 10 + 10_000


def test_counts_decay_by_a_24th_an_hour_to_nothing() -> None:
    reputation = Reputation(0.0)
    reputation.set(ONE, Counts(240, 24))
    reputation.decay(HOUR_S - 1)
    assert reputation.counts(ONE) == Counts(240, 24)
    reputation.decay(HOUR_S)
    assert reputation.counts(ONE) == Counts(230, 23)
    reputation.decay(3 * HOUR_S + 10)
    assert reputation.counts(ONE) == Counts(230 * 23 // 24 * 23 // 24, 23 * 23 // 24 * 23 // 24)
    reputation.decay(400 * HOUR_S)
    assert reputation.all() == {}
    assert reputation.changed()[-1] == Change(ONE, None)


def test_a_clock_that_went_back_decays_nothing_and_loses_no_hour() -> None:
    reputation = Reputation(10 * HOUR_S)
    reputation.set(ONE, Counts(240, 0))
    reputation.decay(5 * HOUR_S)
    assert reputation.counts(ONE).seen == 240
    reputation.decay(11 * HOUR_S)
    assert reputation.counts(ONE).seen == 230


@given(st.lists(st.tuples(st.booleans(), st.integers(-2, 3)), max_size=40))
def test_counts_never_go_below_zero(steps: list[tuple[bool, int]]) -> None:
    reputation = Reputation(0.0)
    for saw, times in steps:
        (reputation.saw if saw else reputation.included)([ONE], times)
    assert reputation.counts(ONE).seen >= 0
    assert reputation.counts(ONE).included >= 0


def test_grep_040_a_ban_is_a_count_that_decays_like_any_other() -> None:
    reputation = Reputation(0.0)
    reputation.ban(ONE)
    assert reputation.counts(ONE) == Counts(BAN_OPS_SEEN_PENALTY, 0)
    assert reputation.standing(ONE) is Standing.BANNED
    reputation.decay(60 * HOUR_S)
    assert reputation.standing(ONE) is Standing.BANNED
    reputation.decay(110 * HOUR_S)
    assert reputation.standing(ONE) is Standing.OK


def test_the_operators_lists_come_first() -> None:
    reputation = Reputation(0.0, allowed=[ONE], denied=[OTHER])
    reputation.ban(ONE)
    assert reputation.standing(ONE) is Standing.OK
    assert reputation.standing(OTHER) is Standing.BANNED


def test_what_changed_is_told_once() -> None:
    reputation = Reputation(0.0)
    reputation.saw([ONE])
    assert reputation.changed() == [Change(ONE, Counts(1, 0), 1, 0)]
    assert reputation.changed() == []
    reputation.clear()
    (change,) = reputation.changed()
    assert change == Change(ONE, None, -1, 0)
    reputation.not_saved([change])
    assert reputation.changed() == [change]


def test_what_others_counted_adds_to_what_is_not_stored_yet() -> None:
    reputation = Reputation(0.0)
    reputation.saw([ONE], 3)
    (change,) = reputation.changed()
    reputation.saw([ONE])
    reputation.learn({ONE: Counts(10, 2)})
    assert reputation.counts(ONE) == Counts(11, 2)
    assert change == Change(ONE, Counts(3, 0), 3, 0)
    assert reputation.changed() == [Change(ONE, Counts(11, 2), 1, 0)]
    reputation.learn({ONE: Counts()})
    assert reputation.all() == {}


def test_refusals_name_rule_role_and_address() -> None:
    reputation = Reputation(0.0)
    reputation.set(ONE, Counts(200, 0))
    check_standing(reputation, "paymaster", ONE, 3)
    with pytest.raises(Throttled, match=r"paymaster 0x0101.* is throttled: it has 4 pending") as caught:
        check_standing(reputation, "paymaster", ONE, 4)
    assert caught.value.rule == "GREP-020"
    reputation.ban(ONE)
    with pytest.raises(Throttled, match="is banned") as caught:
        check_standing(reputation, "paymaster", ONE, 0)
    assert caught.value.rule == "GREP-010"
