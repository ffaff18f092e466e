"""Multicall3 by hand against the general codec: the same bytes out, the same answers in."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from contracts import abi
from contracts.bindings import AGGREGATE3, decode_multicall, encode_multicall
from contracts.errors import InvalidFields

RESULTS = st.lists(st.tuples(st.booleans(), st.binary(max_size=100)), max_size=6)


@given(st.lists(st.tuples(st.binary(min_size=20, max_size=20), st.binary(max_size=100)), max_size=6))
def test_calls_are_encoded_as_the_codec_does(calls: list[tuple[bytes, bytes]]) -> None:
    assert encode_multicall(calls) == AGGREGATE3.encode([(to, True, data) for to, data in calls])


@given(RESULTS)
def test_answers_are_those_of_the_codec(results: list[tuple[bool, bytes]]) -> None:
    encoded = abi.encode(["(bool,bytes)[]"], [results])
    assert decode_multicall(encoded) == [data if ok else None for ok, data in results]


@given(RESULTS, st.data())
def test_what_the_codec_refuses_is_refused_and_nothing_is_read_differently(
    results: list[tuple[bool, bytes]], data: st.DataObject
) -> None:
    encoded = bytearray(abi.encode(["(bool,bytes)[]"], [results]))
    for _ in range(data.draw(st.integers(0, 3))):
        encoded[data.draw(st.integers(0, len(encoded) - 1))] = data.draw(st.sampled_from((0, 1, 32, 64, 255)))
    cut = bytes(encoded[: data.draw(st.integers(0, len(encoded)))])
    try:
        found = decode_multicall(cut)
    except InvalidFields:
        return
    (expected,) = AGGREGATE3.decode(cut)
    assert found == [answer if ok else None for ok, answer in expected]


@pytest.mark.parametrize("data", [b"", bytes(31), bytes(64), (32).to_bytes(32) + (2**255).to_bytes(32)])
def test_no_answer_is_bad_input(data: bytes) -> None:
    with pytest.raises(InvalidFields):
        decode_multicall(data)
