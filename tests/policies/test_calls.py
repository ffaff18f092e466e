"""What an operation does, read from its call data alone; what is not understood is never guessed."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from contracts import abi
from contracts import bindings as b
from contracts.abi import Function
from contracts.bindings import Call
from policies.calls import DecodedCall, DecodedCalls, argument, decode_calls
from policies.functions import FUNCTIONS, Effect, find
from tests.policies.rig import ACCOUNT, BOOK, DEPOSIT, address, close_call, open_call

MULTICALL = Function.parse("multicall(bytes[])")
SWAP = Function.parse("exactInputSingle((address,address,uint24,address,uint256,uint256,uint256,uint160))")


def decode(*calls: Call) -> DecodedCalls:
    return decode_calls(ACCOUNT, b.encode_execute(calls), BOOK)


def one(call: Call) -> DecodedCall:
    (found,) = decode(call).calls
    return found


def test_a_single_order_is_named_with_its_arguments() -> None:
    found = one(open_call(30_000))
    assert found.title == "perp.clearing_house.openPosition"
    assert found.effect is Effect.OPENS
    assert argument(found, "baseToken") == "0x" + BOOK["perp.eth"].hex()
    assert argument(found, "isExactInput") == "true"
    assert argument(found, "amount") == str(30_000 * 10**18)


def test_a_batch_keeps_its_order_and_places() -> None:
    approve = Call(BOOK["usdc"], b.APPROVE.encode(BOOK["perp.vault"], 5))
    found = decode(approve, Call(BOOK["perp.vault"], DEPOSIT.encode(BOOK["usdc"], 5)), open_call(), close_call()).calls
    assert [c.title for c in found] == [
        "usdc.approve", "perp.vault.deposit", "perp.clearing_house.openPosition", "perp.clearing_house.closePosition",
    ]  # fmt: skip
    assert [c.path for c in found] == [(0,), (1,), (2,), (3,)]
    assert [c.effect for c in found] == [Effect.GRANTS, Effect.MOVES, Effect.OPENS, Effect.REDUCES]


def test_an_approval_of_zero_only_reduces() -> None:
    assert one(Call(BOOK["usdc"], b.APPROVE.encode(BOOK["perp.vault"], 0))).effect is Effect.REDUCES


def test_a_venues_own_multicall_is_opened_and_a_strangers_is_not() -> None:
    swap = SWAP.encode((BOOK["usdc"], BOOK["weth"], 500, ACCOUNT, 1, 2, 3, 0))
    nested = MULTICALL.encode((swap, MULTICALL.encode((swap,))))
    book = BOOK | {"uniswap.router": address("router")}
    data = b.encode_execute([Call(address("router"), nested)])
    found = decode_calls(ACCOUNT, data, book).calls
    assert [(c.title, c.path) for c in found] == [
        ("uniswap.router.exactInputSingle", (0, 0)),
        ("uniswap.router.exactInputSingle", (0, 1, 0)),
    ]
    (unknown,) = decode(Call(address("stranger"), nested)).calls
    assert unknown.effect is Effect.UNKNOWN
    assert unknown.function == ""


def test_a_plain_transfer_pays_and_the_account_itself_is_called_so() -> None:
    assert one(Call(address("x"), b"", value=1)).effect is Effect.PAYS
    assert one(Call(ACCOUNT, Function.parse("startEscape()").encode())).target_name == "account"


def test_bytes_that_do_not_encode_back_are_not_understood() -> None:
    good = b.APPROVE.encode(BOOK["perp.vault"], 5)
    dirty = good[:4] + b"\x01" + good[5:]
    for data in (good + b"\0", good[:-1], dirty, good[:3]):
        found = one(Call(BOOK["usdc"], data))
        assert found.function == ""
        assert found.effect is Effect.UNKNOWN


@pytest.mark.parametrize(
    ("call_data", "problem"),
    [
        (b"\x12\x34\x56\x78", "no ERC-7579 execute"),
        (b.EXECUTE.encode(b"\xff" + bytes(31), bytes(52)), "delegatecall is off"),
        (b.EXECUTE.encode(b"\x00\x01" + bytes(30), bytes(52)), "fails as a whole"),
        (b.EXECUTE.encode(bytes(32), bytes(51)), "needs a target and a value"),
        (b.EXECUTE.encode(bytes(32), bytes(52)) + bytes(32), "canonical"),
        (b.EXECUTE.encode(b"\x01" + bytes(31), bytes(64)), "no ERC-7579 execute"),
        (
            b.EXECUTE.encode(b"\x01" + bytes(31), abi.encode(["(address,uint256,bytes)[]"], [[]]) + bytes(32)),
            "not in canonical",
        ),
    ],
)
def test_call_data_that_is_no_plain_execution_is_a_problem(call_data: bytes, problem: str) -> None:
    found = decode_calls(ACCOUNT, call_data, BOOK)
    assert problem in found.problem
    assert found.calls == ()


def test_a_flood_of_calls_is_a_problem() -> None:
    assert "more than 256 calls" in decode(*[Call(address("x"), b"", 1)] * 300).problem


@given(st.binary(max_size=400))
def test_no_call_data_makes_decoding_fail(call_data: bytes) -> None:
    decode_calls(ACCOUNT, call_data, BOOK)
    decode_calls(ACCOUNT, b.encode_execute([Call(BOOK["usdc"], call_data)]), BOOK)
    decode_calls(ACCOUNT, b.EXECUTE.encode(b"\x01" + bytes(31), call_data), BOOK)


def test_every_known_function_names_each_of_its_arguments() -> None:
    for known in FUNCTIONS:
        assert len(known.types) == len(known.arguments), known.function.signature
    selectors = [known.function.selector for known in FUNCTIONS]
    assert len(set(selectors)) == len(selectors)


def test_overloads_are_told_apart_by_their_target() -> None:
    assert [f.function.signature for f in find("withdraw", "perp.vault")] == ["withdraw(address,uint256)"]
    assert [f.function.signature for f in find("withdraw", "weth")] == ["withdraw(uint256)"]
    assert len(find("withdraw")) == 3
    assert find("withdraw(uint256)")[0].arguments == ("amount",)
    assert find("nothing") == []
