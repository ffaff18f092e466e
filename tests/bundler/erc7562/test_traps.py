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
