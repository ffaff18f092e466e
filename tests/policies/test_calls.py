"""What an operation does, read from its call data alone; what is not understood is never guessed."""

from __future__ import annotations

import tracemalloc

import pytest
from hypothesis import given
from hypothesis import strategies as st

from contracts import abi
from contracts import bindings as b
from contracts.abi import Function
from contracts.bindings import Call
from policies.calls import DecodedCall, DecodedCalls, argument, decode_calls
from policies.functions import FUNCTIONS, Effect, find
from tests.policies.abi_values import values_of
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
        (b.EXECUTE.encode(bytes(2) + b"\x01" + bytes(29), bytes(52)), "fails as a whole"),
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


def test_in_try_mode_the_calls_are_shown_and_the_whole_is_a_problem() -> None:
    inside = BOOK["usdc"] + bytes(32) + b.APPROVE.encode(BOOK["perp.vault"], 5)
    found = decode_calls(ACCOUNT, b.EXECUTE.encode(b"\x00\x01" + bytes(30), inside), BOOK)
    assert "in try mode any of the calls may fail by itself" in found.problem
    assert [c.title for c in found.calls] == ["usdc.approve"]


def batch_of(*calls: Call) -> bytes:
    return abi.encode(["(address,uint256,bytes)[]"], [[(c.target, c.value, c.data) for c in calls]])


APPROVE = Call(BOOK["usdc"], b.APPROVE.encode(BOOK["perp.vault"], 5))
MODE_7821 = bytes.fromhex("01000000000078210001") + bytes(22)
MODE_7821_BATCHES = bytes.fromhex("01000000000078210002") + bytes(22)


def test_an_erc_7821_batch_is_read_unless_it_brings_data_that_only_the_account_understands() -> None:
    plain = decode_calls(ACCOUNT, b.EXECUTE.encode(MODE_7821, batch_of(APPROVE)), BOOK)
    assert ([c.title for c in plain.calls], plain.problem) == (["usdc.approve"], "")
    pair = [[(APPROVE.target, 0, APPROVE.data)]]
    for extra, problem in ((b"", ""), (b"xyz", "3 bytes of data that only the account understands")):
        payload = abi.encode(["(address,uint256,bytes)[]", "bytes"], [*pair, extra])
        found = decode_calls(ACCOUNT, b.EXECUTE.encode(MODE_7821, payload), BOOK)
        assert problem in found.problem
        assert bool(found.problem) == bool(problem)


def test_an_erc_7821_batch_of_batches_is_flat() -> None:
    payload = abi.encode(["bytes[]"], [[batch_of(APPROVE), batch_of(open_call(), close_call())]])
    found = decode_calls(ACCOUNT, b.EXECUTE.encode(MODE_7821_BATCHES, payload), BOOK)
    assert not found.problem
    assert [c.function.partition("(")[0] for c in found.calls] == ["approve", "openPosition", "closePosition"]


def test_the_zero_target_is_the_account_itself() -> None:
    (found,) = decode(Call(bytes(20), Function.parse("startEscape()").encode())).calls
    assert (found.target, found.target_name) == (ACCOUNT, "account")


def test_an_execute_on_the_account_itself_is_opened_down_to_a_bound() -> None:
    inner = APPROVE
    for _ in range(7):
        inner = Call(ACCOUNT, b.encode_execute([inner]))
    assert one(inner).title == "usdc.approve"
    for _ in range(3):
        inner = Call(ACCOUNT, b.encode_execute([inner]))
    deep = one(inner)
    assert deep.title == "account.execute"
    assert deep.effect is Effect.ADMIN


def test_a_multicall_with_value_shows_the_value_once() -> None:
    swap = SWAP.encode((BOOK["weth"], BOOK["usdc"], 500, ACCOUNT, 1, 2, 3, 0))
    book = BOOK | {"uniswap.router": address("router")}
    data = b.encode_execute([Call(address("router"), MULTICALL.encode((swap, swap)), 7)])
    assert [c.value_wei for c in decode_calls(ACCOUNT, data, book).calls] == [7, 0]


def test_what_multicall3_calls_is_not_called_by_the_account() -> None:
    call = Call(BOOK["multicall3"], b.encode_multicall([(BOOK["usdc"], APPROVE.data)]))
    found = one(call)
    assert found.title == "multicall3.aggregate3"
    assert found.effect is Effect.UNKNOWN


ME, OTHER = ACCOUNT, address("somebody")
EFFECTS: list[tuple[str, str, tuple[object, ...], Effect]] = [
    ("aave.pool", "supply(address,uint256,address,uint16)", (BOOK["usdc"], 5, ME, 0), Effect.MOVES),
    ("aave.pool", "supply(address,uint256,address,uint16)", (BOOK["usdc"], 5, OTHER, 0), Effect.PAYS),
    ("aave.pool", "withdraw(address,uint256,address)", (BOOK["usdc"], 5, ME), Effect.MOVES),
    ("aave.pool", "withdraw(address,uint256,address)", (BOOK["usdc"], 5, OTHER), Effect.PAYS),
    ("aave.pool", "repay(address,uint256,uint256,address)", (BOOK["usdc"], 5, 2, ME), Effect.REDUCES),
    ("aave.pool", "repay(address,uint256,uint256,address)", (BOOK["usdc"], 5, 2, OTHER), Effect.PAYS),
    ("aave.pool", "repayWithATokens(address,uint256,uint256)", (BOOK["usdc"], 5, 2), Effect.MOVES),
    ("aave.pool", "borrow(address,uint256,uint256,uint16,address)", (BOOK["usdc"], 5, 2, 0, ME), Effect.OPENS),
    ("aave.pool", "setUserUseReserveAsCollateral(address,bool)", (BOOK["usdc"], False), Effect.OPENS),
    ("aave.pool", "setUserEMode(uint8)", (1,), Effect.OPENS),
    ("usdc", "increaseAllowance(address,uint256)", (OTHER, 5), Effect.GRANTS),
    ("usdc", "transfer(address,uint256)", (OTHER, 5), Effect.PAYS),
    ("usdc", "transferFrom(address,address,uint256)", (OTHER, ME, 5), Effect.MOVES),
    ("usdc", "transferFrom(address,address,uint256)", (ME, OTHER, 5), Effect.PAYS),
    (
        "usdc",
        "permit(address,address,uint256,uint256,uint8,bytes32,bytes32)",
        (ME, OTHER, 5, 9, 27, bytes(32), bytes(32)),
        Effect.GRANTS,
    ),
    (
        "usdc",
        "permit(address,address,uint256,uint256,uint8,bytes32,bytes32)",
        (OTHER, ME, 5, 9, 27, bytes(32), bytes(32)),
        Effect.NEUTRAL,
    ),
    ("uniswap.position_manager", "approve(address,uint256)", (OTHER, 0), Effect.GRANTS),
    ("uniswap.position_manager", "approve(address,uint256)", (bytes(20), 7), Effect.REDUCES),
    ("uniswap.position_manager", "setApprovalForAll(address,bool)", (OTHER, True), Effect.GRANTS),
    ("uniswap.position_manager", "setApprovalForAll(address,bool)", (OTHER, False), Effect.REDUCES),
    ("uniswap.position_manager", "collect((uint256,address,uint128,uint128))", ((7, ME, 1, 1),), Effect.MOVES),
    ("uniswap.position_manager", "collect((uint256,address,uint128,uint128))", ((7, OTHER, 1, 1),), Effect.PAYS),
    (
        "uniswap.position_manager",
        "decreaseLiquidity((uint256,uint128,uint256,uint256,uint256))",
        ((7, 1, 0, 0, 9),),
        Effect.MOVES,
    ),
    (
        "uniswap.router",
        "exactInput((bytes,address,uint256,uint256,uint256))",
        ((b"p" * 43, ME, 9, 1, 1),),
        Effect.OPENS,
    ),
    (
        "uniswap.router",
        "exactInput((bytes,address,uint256,uint256,uint256))",
        ((b"p" * 43, OTHER, 9, 1, 1),),
        Effect.PAYS,
    ),
    ("uniswap.router", "unwrapWETH9(uint256,address)", (1, ME), Effect.MOVES),
    ("uniswap.router", "sweepToken(address,uint256,address)", (BOOK["usdc"], 1, OTHER), Effect.PAYS),
    (
        "perp.clearing_house",
        "removeLiquidity((address,int24,int24,uint128,uint256,uint256,uint256))",
        ((BOOK["perp.eth"], -10, 10, 5, 0, 0, 9),),
        Effect.MOVES,
    ),
    ("perp.vault", "withdrawAll(address)", (BOOK["usdc"],), Effect.MOVES),
    ("perp.delegate_approval", "approve(address,uint8)", (OTHER, 1), Effect.GRANTS),
    ("perp.delegate_approval", "revoke(address,uint8)", (OTHER, 1), Effect.REDUCES),
]


@pytest.mark.parametrize(("target", "signature", "arguments", "effect"), EFFECTS)
def test_an_effect_depends_on_for_whom_and_how_much(
    target: str, signature: str, arguments: tuple[object, ...], effect: Effect
) -> None:
    book = BOOK | {target: address(target)}
    data = b.encode_execute([Call(address(target), Function.parse(signature).encode(*arguments))])
    (found,) = decode_calls(ACCOUNT, data, book).calls
    assert found.function == signature
    assert found.effect is effect


def test_overlapping_arrays_and_oversized_data_are_refused_before_they_are_decoded() -> None:
    heads = (32).to_bytes(32) + (100_000).to_bytes(32) + (32).to_bytes(32) * 1_000
    assert "more than 256 calls" in decode_calls(ACCOUNT, b.EXECUTE.encode(b.MODE_BATCH, heads), BOOK).problem
    assert "bytes of call data" in decode_calls(ACCOUNT, bytes(131_073), BOOK).problem


@given(st.binary(max_size=400))
def test_no_call_data_makes_decoding_fail(call_data: bytes) -> None:
    decode_calls(ACCOUNT, call_data, BOOK)
    decode_calls(ACCOUNT, b.encode_execute([Call(BOOK["usdc"], call_data)]), BOOK)
    for mode in (b.MODE_BATCH, MODE_7821, MODE_7821_BATCHES):
        decode_calls(ACCOUNT, b.EXECUTE.encode(mode, call_data), BOOK)


@given(st.data())
def test_no_arguments_of_a_known_function_make_decoding_fail(data: st.DataObject) -> None:
    known = data.draw(st.sampled_from(FUNCTIONS))
    words = data.draw(st.lists(st.sampled_from((0, 1, 32, 64, 96, 2**255, 2**256 - 1)), max_size=16))
    target = data.draw(st.sampled_from((*BOOK.values(), ACCOUNT, bytes(20))))
    call_data = known.function.selector + b"".join(word.to_bytes(32) for word in words)
    decode_calls(ACCOUNT, b.encode_execute([Call(target, call_data)]), BOOK)


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


# -- executors, Multicall3, and lengths that lie ----------------------------------------------------------------------------------------

FROM_EXECUTOR = Function.parse("executeFromExecutor(bytes32,bytes)")
AGGREGATE3_VALUE = Function.parse("aggregate3Value((address,bool,uint256,bytes)[])")


def test_what_an_executor_runs_is_read_like_an_execute() -> None:
    batch = abi.encode(["(address,uint256,bytes)[]"], [[(BOOK["usdc"], 0, APPROVE.data), (BOOK["perp.vault"], 3, b"")]])
    for data in (
        FROM_EXECUTOR.encode(b.MODE_BATCH, batch),
        b.encode_execute([Call(ACCOUNT, FROM_EXECUTOR.encode(b.MODE_BATCH, batch))]),
    ):
        found = decode_calls(ACCOUNT, data, BOOK)
        assert found.problem == ""
        assert [(call.title, call.value_wei) for call in found.calls] == [
            ("usdc.approve", 0),
            ("perp.vault: transfer", 3),
        ]
    refused = decode_calls(ACCOUNT, FROM_EXECUTOR.encode(b"\xff" + bytes(31), BOOK["usdc"] + bytes(32)), BOOK)
    assert "delegatecall is off" in refused.problem
    nested = one(Call(ACCOUNT, FROM_EXECUTOR.encode(b"\xff" + bytes(31), BOOK["usdc"] + bytes(32))))
    assert (nested.title, nested.effect) == ("account.executeFromExecutor", Effect.ADMIN)
    stranger = one(Call(address("stranger"), FROM_EXECUTOR.encode(b.MODE_BATCH, batch)))
    assert stranger.title.endswith(".executeFromExecutor")


def test_what_multicall3_would_call_is_shown_beside_the_call_and_never_as_the_accounts() -> None:
    pay = b.TRANSFER.encode(address("x"), 5)
    calls = ((BOOK["usdc"], False, 0, pay), (address("y"), True, 7, b"\x01\x02\x03\x04"), (address("z"), True, 9, b""))
    found = one(Call(BOOK["multicall3"], AGGREGATE3_VALUE.encode(calls), 16))
    assert (found.title, found.effect) == ("multicall3.aggregate3Value", Effect.UNKNOWN)
    assert argument(found, "calls[0]") == f"usdc.transfer(to 0x{address('x').hex()}, amount 5)"
    assert argument(found, "calls[1]") == f"0x{address('y').hex()}.0x01020304() with 7 wei"
    assert argument(found, "calls[2]") == f"0x{address('z').hex()}: transfer with 9 wei"
    inside = one(Call(BOOK["multicall3"], b.encode_multicall([(BOOK["usdc"], pay)])))
    assert argument(inside, "calls[0]") == argument(found, "calls[0]")


def deep(levels: int) -> bytes:
    data = b.TRANSFER.encode(address("x"), 5)
    for _ in range(levels):
        data = b.encode_multicall([(BOOK["multicall3"], data)])
    return data


def test_multicalls_inside_each_other_are_shown_one_level_deep() -> None:
    found = one(Call(BOOK["multicall3"], deep(300)))
    assert (argument(found, "calls[0]") or "").startswith("multicall3.aggregate3(calls ")


def overlapping(function: Function, count: int, *, payload: int) -> bytes:
    """`count` items that are one and the same `payload` bytes, each announced at full length."""
    heads = b"".join((32 * count).to_bytes(32) for _ in range(count))
    item = bytes(12) + BOOK["usdc"] + (1).to_bytes(32) + (96).to_bytes(32) + payload.to_bytes(32) + bytes(payload)
    return function.selector + (32).to_bytes(32) + count.to_bytes(32) + heads + item


@pytest.mark.parametrize("count", [2, 1_000, 2**255])
def test_lengths_that_lie_cost_nothing(count: int) -> None:
    """A thousand items of 90,000 bytes in 122,000: decoded first, they would be 90 MB."""
    data = overlapping(b.AGGREGATE3, min(count, 1_000), payload=90_000)
    if count > 1_000:
        data = data[:36] + count.to_bytes(32) + data[68:]
    tracemalloc.start()
    found = one(Call(BOOK["multicall3"], data))
    _, most = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert (found.effect, found.function, found.arguments) == (Effect.UNKNOWN, "", ())
    assert most < 3_000_000


def test_a_batch_whose_calls_are_all_one_is_refused_before_it_is_decoded() -> None:
    heads = b"".join((32 * 200).to_bytes(32) for _ in range(200))
    item = bytes(12) + BOOK["usdc"] + bytes(32) + (96).to_bytes(32) + (90_016).to_bytes(32) + bytes(90_016)
    payload = (32).to_bytes(32) + (200).to_bytes(32) + heads + item
    assert (
        "stand for more than they are" in decode_calls(ACCOUNT, b.EXECUTE.encode(b.MODE_BATCH, payload), BOOK).problem
    )


SHAPES = (
    "(address,bool,bytes)[]",
    "bytes[]",
    "uint256[]",
    "bytes",
    "(uint256,bytes32)[3]",
    "(bytes,uint8[])[2][]",
    "string",
)


@given(st.data())
def test_the_canonical_size_is_the_length_of_the_encoding(data: st.DataObject) -> None:
    types = data.draw(st.lists(st.sampled_from(SHAPES), min_size=1, max_size=3))
    encoded = abi.encode(types, [data.draw(values_of(one)) for one in types])
    assert abi.canonical_size(types, encoded) == len(encoded)
