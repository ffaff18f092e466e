"""Trapped code: what is replaced and what stays."""

from __future__ import annotations

import pytest

from bundler.erc7562 import opcodes
from bundler.erc7562.traps import TRAPPED, Code, trapped, validation_only
from contracts.eip7702 import delegation
from contracts.entrypoint.base import BEFORE_EXECUTION
from contracts.types import to_hex


@pytest.mark.parametrize("op", sorted(TRAPPED), ids=opcodes.name)
def test_forbidden_opcode_becomes_invalid_and_nothing_moves(op: int) -> None:
    assert trapped(bytes([0x5F, op, 0x00])) == bytes([0x5F, opcodes.INVALID, 0x00])


def test_every_rule_on_opcodes_is_covered_by_the_traps() -> None:
    assert set(opcodes.BLOCKED) <= TRAPPED
    assert {opcodes.BALANCE, opcodes.SELFBALANCE, opcodes.CREATE, opcodes.CREATE2} <= TRAPPED
    assert {op for op in range(256) if op not in opcodes.ASSIGNED} <= TRAPPED


def test_push_data_are_no_opcodes() -> None:
    for size in range(1, 33):
        code = bytes([0x5F + size]) + b"\x42" * size + b"\x00"
        assert trapped(code) == code
    assert trapped(b"\x61\x42") == b"\x61\x42"  # push data that the code's end cuts off


def test_gas_stays_only_before_a_call() -> None:
    for op in (opcodes.CALL, opcodes.CALLCODE, opcodes.DELEGATECALL, opcodes.STATICCALL):
        assert trapped(bytes([opcodes.GAS, op])) == bytes([opcodes.GAS, op])
    assert trapped(bytes([opcodes.GAS, 0x50])) == bytes([opcodes.INVALID, 0x50])
    assert trapped(bytes([opcodes.GAS])) == bytes([opcodes.INVALID])
    # what follows in the code, even if it is a call's push data elsewhere
    assert trapped(bytes([opcodes.GAS, 0x60, 0xF1]))[0] == opcodes.INVALID


ADDRESS_EXTCODECOPY, JUMPDEST, TIMESTAMP, STOP = b"\x30\x3c", b"\x5b", b"\x42", b"\x00"
DYNAMIC_JUMP = b"\x35\x56"


def test_account_may_read_the_code_it_runs_for_if_that_has_no_traps() -> None:
    assert trapped(ADDRESS_EXTCODECOPY) == ADDRESS_EXTCODECOPY
    assert trapped(b"\x33\x3c") == b"\x33\xfe"  # of its caller
    assert trapped(b"\x30\x50\x3c") == b"\x30\x50\xfe"
    assert Code.of(ADDRESS_EXTCODECOPY).reads_context
    assert not Code.of(b"\x33\x3c").reads_context
    assert Code.of(TIMESTAMP).changed
    assert not Code.of(STOP).changed


def test_data_behind_a_proxy_that_jumps_to_constants_are_left_alone() -> None:
    data = JUMPDEST + TIMESTAMP
    jumping = b"\x60\x04\x56\x00" + JUMPDEST + STOP
    assert trapped(jumping + data) == jumping + data
    assert trapped(b"\x60\x06\x56\x00\x5b\x00" + data) == b"\x60\x06\x56\x00\x5b\x00" + JUMPDEST + b"\xfe"
    assert trapped(DYNAMIC_JUMP + data) == DYNAMIC_JUMP + JUMPDEST + b"\xfe"


def test_constants_behind_a_contract_are_left_alone_up_to_the_first_jump_target() -> None:
    assert trapped(DYNAMIC_JUMP + TIMESTAMP) == DYNAMIC_JUMP + TIMESTAMP
    assert trapped(DYNAMIC_JUMP + TIMESTAMP + JUMPDEST + TIMESTAMP) == DYNAMIC_JUMP + TIMESTAMP + JUMPDEST + b"\xfe"
    assert (
        trapped(STOP + JUMPDEST + TIMESTAMP + DYNAMIC_JUMP) == STOP + JUMPDEST + TIMESTAMP + DYNAMIC_JUMP
    )  # nobody jumps there


def test_copy_of_a_constant_range_stays_if_nothing_in_it_is_trapped() -> None:
    copy = bytes.fromhex("6002600b5f39")  # two bytes at 11
    assert trapped(copy + DYNAMIC_JUMP + JUMPDEST + STOP * 2 + TIMESTAMP * 2)[5] == 0x39
    alive = copy + DYNAMIC_JUMP + JUMPDEST + b"\x50" * 2 + TIMESTAMP * 2
    assert trapped(alive)[5] == opcodes.INVALID
    assert trapped(b"\x35" + copy[1:])[5] == opcodes.INVALID  # a size that only a run can tell
    itself = bytes.fromhex("600660005f39")
    assert trapped(itself)[5] == opcodes.INVALID  # whether it stays may depend on another one


def test_delegation_is_left_as_it_is() -> None:
    target = b"\x42" * 20
    code = Code.of(delegation(target))
    assert (code.delegate, code.trapped, code.size) == (target, to_hex(delegation(target)), 23)


def test_entry_point_stops_wherever_it_would_begin_to_execute() -> None:
    pushes = b"\x7f" + BEFORE_EXECUTION.topic
    assert validation_only(b"\x5f" + pushes + b"\xa1" + pushes) == (
        b"\x5f\x00" + BEFORE_EXECUTION.topic + b"\xa1\x00" + BEFORE_EXECUTION.topic
    )
    assert validation_only(b"\x5f\x5f") is None
