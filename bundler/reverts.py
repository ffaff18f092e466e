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
_ENTRY_POINT_ERRORS = {
    Function.parse(error).selector: words
    for error, words in {
        "InvalidPaymaster(address)": "AA98 the paymaster is the zero address",
        "InvalidPaymasterData(uint256)": "AA93 paymasterAndData is shorter than 52 bytes",
        "InvalidPaymasterSignatureLength(uint256,uint256)": "the paymaster's signature is longer than paymasterData",
        "InvalidBeneficiary(address)": "AA90 the beneficiary is the zero address",
        "FailedSendToBeneficiary(address,uint256,bytes)": "AA91 the beneficiary does not take the fees",
        "InternalFunction()": "AA92 an internal function was called from outside",
        "Reentrancy()": "handleOps was called by a contract or an account with code",
        "Eip7702SenderWithoutCode(address)": "the sender of an operation with the marker 0x7702 has no code",
        "Eip7702SenderNotDelegate(address)": "the sender of an operation with the marker 0x7702 has code but no EIP-7702 delegation",
    }.items()
}
"""Custom errors of entry points v0.8 and v0.9, where there is one with the AAxx that earlier versions say."""


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
    if data[:4] in _ENTRY_POINT_ERRORS:
        return _ENTRY_POINT_ERRORS[data[:4]]
    suffix = "..." if len(data) > 68 else ""
    return f"custom error 0x{data[:68].hex()}{suffix}"
