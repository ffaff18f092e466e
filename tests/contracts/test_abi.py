"""The codec: what goes in comes out, addresses are bytes at any depth, and strangers' bytes never raise anything unexpected."""

from __future__ import annotations

import contextlib
from typing import Any

import eth_abi.abi
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from contracts import abi, bindings
from contracts.abi import Event, Function
from contracts.entrypoint.base import GET_DEPOSIT_INFO, HANDLE_OPS, PACKED_TYPE, USER_OPERATION_EVENT
from contracts.errors import InvalidFields
from contracts.types import keccak

ADDRESS = st.binary(min_size=20, max_size=20)
ELEMENTARY = {
    "address": ADDRESS,
    "bool": st.booleans(),
    "uint256": st.integers(0, 2**256 - 1),
    "uint48": st.integers(0, 2**48 - 1),
    "int24": st.integers(-(2**23), 2**23 - 1),
    "int256": st.integers(-(2**255), 2**255 - 1),
    "bytes4": st.binary(min_size=4, max_size=4),
    "bytes32": st.binary(min_size=32, max_size=32),
    "bytes": st.binary(max_size=80),
    "string": st.text(st.characters(exclude_categories=["Cs"]), max_size=40),
}


@st.composite
def typed(draw: st.DrawFn, depth: int = 3) -> tuple[str, Any]:
    """A type and a value of it: elementary, array, fixed array or tuple, nested."""
    kind = draw(st.sampled_from(["plain", "array", "fixed", "tuple"] if depth else ["plain"]))
    if kind == "plain":
        name = draw(st.sampled_from(sorted(ELEMENTARY)))
        return name, draw(ELEMENTARY[name])
    if kind == "tuple":
        parts = [draw(typed(depth - 1)) for _ in range(draw(st.integers(1, 3)))]
        return f"({','.join(name for name, _ in parts)})", tuple(value for _, value in parts)
    name, value = draw(typed(depth - 1))
    length = draw(st.integers(0 if kind == "array" else 1, 3))
    return name + ("[]" if kind == "array" else f"[{length}]"), (value,) * length


@given(st.lists(typed(), max_size=4))
@settings(max_examples=200)
def test_values_round_trip_through_any_type(parts: list[tuple[str, Any]]) -> None:
    types, values = [name for name, _ in parts], tuple(value for _, value in parts)
    assert abi.decode(types, abi.encode(types, values)) == values
    function = Function.parse(f"f({','.join(types)})({','.join(types)})")
    assert function.decode_input(function.encode(*values)) == values
    assert function.decode(abi.encode(types, values)) == values


@given(
    st.sampled_from([f"{PACKED_TYPE}[]", "string", "(address,bytes[])[2][]", "bool", "address"]),
    st.binary(max_size=400),
)
@settings(max_examples=300)
def test_any_bytes_decode_or_raise_invalid_fields(kind: str, data: bytes) -> None:
    with contextlib.suppress(InvalidFields):
        abi.decode([kind], data)


@pytest.mark.parametrize(
    ("types", "values"),
    [
        (["uint8"], [256]),
        (["uint256"], [-1]),
        (["uint256"], ["1"]),
        (["address"], [b"\1" * 19]),
        (["address"], ["0x" + "00" * 20]),
        (["address"], [None]),
        (["bytes32"], [b"\1" * 33]),
        (["bytes32"], ["0x00"]),
        (["uint256[2]"], [[1]]),
        (["uint256[]"], [5]),
        (["(uint256,bool)"], [(1,)]),
        (["uint256", "bool"], [1]),
    ],
)
def test_a_value_that_does_not_fit_is_named(types: list[str], values: list[Any]) -> None:
    with pytest.raises(InvalidFields):
        abi.encode(types, values)


def test_an_empty_answer_says_how_many_bytes_came() -> None:
    """The most common cause: no contract at that address."""
    with pytest.raises(InvalidFields, match="0 bytes"):
        Function.parse("balanceOf(address)(uint256)").decode(b"")


@pytest.mark.parametrize(
    ("text", "selector"),
    [
        ("balanceOf(address)(uint256)", "70a08231"),
        ("transfer(address,uint256)", "a9059cbb"),
        ("aggregate3((address,bool,bytes)[])((bool,bytes)[])", "82ad56cb"),
        ("execute(bytes32,bytes)", "e9ae5c53"),
        (HANDLE_OPS.signature, "765e827f"),
        ("totalSupply()(uint256)", "18160ddd"),
    ],
)
def test_known_selectors(text: str, selector: str) -> None:
    assert Function.parse(text).selector.hex() == selector


def test_signatures_split_at_the_top_level_only() -> None:
    parsed = Function.parse("f((uint256,(bool,bytes)[]),address)((uint256,bool),bytes)")
    assert parsed.inputs == ("(uint256,(bool,bytes)[])", "address")
    assert parsed.outputs == ("(uint256,bool)", "bytes")
    assert Function.parse("f()").outputs == ()
    assert GET_DEPOSIT_INFO.outputs == ("(uint256,bool,uint112,uint32,uint48)",)


def test_another_functions_call_data_is_refused() -> None:
    with pytest.raises(InvalidFields, match="not transfer"):
        Function.parse("transfer(address,uint256)").decode_input(bytes(68))
    with pytest.raises(InvalidFields):
        Function.parse("transfer(address,uint256)").decode_input(b"")


@given(ADDRESS, ADDRESS, ADDRESS, st.integers(0, 2**256 - 1), st.booleans())
def test_events_decode_their_topics_and_data_in_order(a: bytes, b: bytes, c: bytes, number: int, flag: bool) -> None:
    topics = [USER_OPERATION_EVENT.topic, keccak(a), bytes(12) + b, bytes(12) + c]
    data = eth_abi.abi.encode(["uint256", "bool", "uint256", "uint256"], [number, flag, 7, 8])
    assert USER_OPERATION_EVENT.decode(topics, data) == (keccak(a), b, c, number, flag, 7, 8)


def test_an_indexed_dynamic_argument_is_its_hash() -> None:
    event = Event.parse("Named(string indexed,uint256)")
    assert event.decode([event.topic, keccak(b"alice")], (5).to_bytes(32)) == (keccak(b"alice"), 5)


def test_a_log_of_another_event_or_with_too_few_topics_is_refused() -> None:
    event = Event.parse("Transfer(address indexed,address indexed,uint256)")
    for topics in ([], [bytes(32)], [event.topic], [event.topic, bytes(32)], [event.topic, bytes(31) + b"\1", b""]):
        with pytest.raises(InvalidFields):
            event.decode(topics, (1).to_bytes(32))


def test_known_topics() -> None:
    assert (
        Event.parse("Transfer(address indexed,address indexed,uint256)").topic.hex()
        == "ddf252ad1be2c89b69c2b068fc378daa952ba7f163c4a11628f55a4df523b3ef"
    )
    assert USER_OPERATION_EVENT.topic.hex() == "49628fd1471006c1482da88028e9ce4dbb080b815c9b0344d39e5a8e6ec1419f"


@given(st.lists(st.tuples(st.binary(min_size=20, max_size=20), st.binary(max_size=100)), max_size=8))
def test_a_multicall_packed_by_hand_is_the_codecs(calls: list[tuple[bytes, bytes]]) -> None:
    assert bindings.encode_multicall(calls) == bindings.AGGREGATE3.encode([(to, True, data) for to, data in calls])
