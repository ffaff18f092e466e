"""Bounds of sessions: when an operation may say that it wants to be included, and what its signature carries."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from contracts.bindings import Session
from contracts.errors import InvalidFields
from contracts.types import keccak
from policies.sessions import Bounds, Span, Window, encode_bounded_envelope, encode_enabling_envelope

NOW_S = 1_800_000_000  # 2027-01-15 08:00 UTC, a Friday
DAY_S = 86_400
_EDGES_S = 60
"""So many edges of short buckets may follow each other."""

windows = st.one_of(
    st.builds(Window, st.just(Span.ROLLING), st.just(1), st.integers(7, 10**7)),
    st.builds(
        Window,
        st.sampled_from([Span.DAY, Span.WEEK, Span.MONTH]),
        st.just(1),
        offset_minutes=st.integers(-14 * 60, 14 * 60),
    ),
)


@given(st.lists(windows, max_size=4), st.integers(NOW_S, NOW_S + 10**8), st.integers(1, 10_000))
def test_both_ends_lie_in_one_bucket_of_every_window_and_the_operation_is_due_soon(
    rates: list[Window], now_s: int, longest_s: int
) -> None:
    from_s, until_s = Bounds(tuple(rates)).times(now_s, longest_s)
    assert now_s - 1 <= from_s <= now_s + _EDGES_S
    assert from_s < until_s <= now_s + longest_s + _EDGES_S
    assert all(one.number(from_s) == one.number(until_s) for one in rates)


@pytest.mark.parametrize(
    ("window", "time_s", "number"),
    [
        (Window(Span.ROLLING, 1, 3_600), 1_200, 2),
        (Window(Span.ROLLING, 1, 7), 5, 2),
        (Window(Span.DAY, 1), DAY_S - 1, 0),
        (Window(Span.DAY, 1, offset_minutes=1), DAY_S - 1, 1),
        (Window(Span.DAY, 1, offset_minutes=-60), 60, 0),
        (Window(Span.WEEK, 1), 3 * DAY_S, 0),
        (Window(Span.WEEK, 1), 4 * DAY_S, 1),
        (Window(Span.MONTH, 1), NOW_S, 2027 * 12 + 1),
        (Window(Span.MONTH, 1), NOW_S - 15 * DAY_S, 2026 * 12 + 12),
    ],
)
def test_a_time_is_in_the_bucket_that_the_chain_counts_it_in(window: Window, time_s: int, number: int) -> None:
    assert window.number(time_s) == number


def test_at_the_edge_of_a_bucket_the_next_one_is_taken() -> None:
    midnight = NOW_S - NOW_S % DAY_S + DAY_S
    daily = Bounds((Window(Span.DAY, 1),))
    assert daily.times(midnight - 100, 600) == (midnight - 101, midnight - 1)
    assert daily.times(midnight - 1, 600) == (midnight, midnight + 600)
    assert daily.times(midnight, 600) == (midnight, midnight + 600)
    assert daily.times(midnight + 1, 600) == (midnight, midnight + 601)


def test_a_signature_carries_the_bounds_that_its_session_commits_to_and_no_others() -> None:
    bounds = Bounds((Window(Span.DAY, 1),)).encode()
    session = Session(b"\1" * 20, 0, 9, b"\2" * 20, b"\3" * 4, 5, 0, keccak(bounds))
    signed = encode_bounded_envelope(session, (1, 2), bounds, bytes(65))
    assert signed == b"\x06" + session.session_id + bytes(5) + b"\1" + bytes(5) + b"\2" + bounds + bytes(65)
    enabling = encode_enabling_envelope(session, (1, 2), bounds, b"approval", bytes(65))
    assert (enabling[0], enabling[257:269]) == (7, bytes(5) + b"\1" + bytes(5) + b"\2")
    assert enabling.endswith(len(bounds).to_bytes(2) + bounds + b"approval" + bytes(65))
    for times, brought, signature in (
        ((1, 2), b"other", bytes(65)),
        ((2, 2), bounds, bytes(65)),
        ((1, 2), bounds, b""),
    ):
        with pytest.raises(InvalidFields):
            encode_bounded_envelope(session, times, brought, signature)
    with pytest.raises(InvalidFields, match="at most 65535 fit"):
        Bounds((), (), ((((0, 0, (bytes(32),) * 3_000),)),)).encode()


def test_a_rolling_window_whose_buckets_no_operation_fits_is_refused() -> None:
    assert Bounds((Window(Span.ROLLING, 1, 7),)).times(11, 5) == (12, 13)
    with pytest.raises(InvalidFields, match="more than 6 s, got 6"):
        Window(Span.ROLLING, 1, 6)
