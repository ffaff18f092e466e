"""Revert data in words."""

from __future__ import annotations

from contracts.abi import Function
from contracts.entrypoint import decode_failed_op
from contracts.errors import InvalidFields

_ERROR = Function.parse("Error(string)")
_PANIC = Function.parse("Panic(uint256)")
_PANICS = {
    0x01: "an assertion failed",
    0x11: "arithmetic overflow or underflow",
    0x12: "division by zero",
    0x21: "value out of an enum's range",
    0x32: "array index out of bounds",
    0x41: "too much memory",
    0x51: "call of an uninitialised function",
}


def reason(data: bytes) -> str:
    """What revert data says: the text of Error(string), a Panic in words, the entry point's AAxx, else the data itself.

    At most about 200 characters: a hostile contract writes the text.
    """
    if not data:
        return "reverted without a reason"
    try:
        if data[:4] == _ERROR.selector:
            return str(_ERROR.decode_input(data)[0])[:200]
        if data[:4] == _PANIC.selector:
            code = _PANIC.decode_input(data)[0]
            return f"panic 0x{code:02x} ({_PANICS.get(code, 'unknown')})"
    except InvalidFields:
        pass
    if (failed := decode_failed_op(data)) is not None:
        return failed.reason[:200]
    suffix = "..." if len(data) > 68 else ""
    return f"custom error 0x{data[:68].hex()}{suffix}"
