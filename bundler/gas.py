"""Gas that no limit covers: preVerificationGas, and the gas limit of a bundle's transaction.   Source: ERC-4337, EIP-7623."""

from __future__ import annotations

from collections.abc import Sequence

from contracts.entrypoint import EntryPoint
from contracts.userop import UserOperation

TRANSACTION_GAS = 21_000
TOKEN_GAS = 4
FLOOR_TOKEN_GAS = 10
"""Gas for one calldata token (a zero byte is 1, any other 4), and its floor. Source: EIP-7623."""

BUNDLE_OVERHEAD = 11_500
"""What `handleOps` spends outside all operations: dispatch, the guard, paying the beneficiary (9,000 + 2,600 cold)."""
OP_OVERHEAD = 9_600
"""What the entry point spends on one operation outside its own measurement: decoding, event, refund. Measured on v0.7 and
v0.8 (tests/bundler/test_estimate.py holds it to the receipts)."""
OP_WORD_GAS = 6
"""Copying and hashing of one 32-byte word of an operation outside that measurement."""
MIN_EXECUTION_GAS = 38_000
"""Every operation executes at least this much beside its calldata (nonce, deposit, event), so that the calldata floor of its
transaction is that much less likely to bind."""


def calldata_tokens(data: bytes) -> int:
    """Tokens of call data: one for a zero byte, four for any other."""
    return 4 * len(data) - 3 * data.count(0)


def _op_calldata(entry_point: EntryPoint, op: UserOperation) -> bytes:
    """The operation's own part of `handleOps` call data: all of it but selector, beneficiary and the array's head."""
    return entry_point.encode_handle_ops([op], bytes(20))[4 + 3 * 32 :]


def pre_verification_gas(entry_point: EntryPoint, op: UserOperation) -> int:
    """Return the least preVerificationGas that pays for `op` if it is alone in its bundle.

    transaction + bundle overhead + op overhead + max(standard calldata, floor calldata - execution that is sure to happen).
    Rounds nothing; favours the bundler by assuming no sharing. Covers no L1 data fee.
    """
    data = _op_calldata(entry_point, op)
    tokens = calldata_tokens(data)
    calldata = max(TOKEN_GAS * tokens, FLOOR_TOKEN_GAS * tokens - MIN_EXECUTION_GAS)
    return TRANSACTION_GAS + BUNDLE_OVERHEAD + OP_OVERHEAD + OP_WORD_GAS * (len(data) // 32) + calldata


def with_dummy_fields(op: UserOperation, signature_floor: int = 65) -> UserOperation:
    """`op` with every field that an estimate does not know yet at a size that costs at least as much calldata.

    Gas limits and a missing fee become values of three, a fee of eight non-zero bytes; signature and paymaster data keep their
    length, all bytes non-zero.
    """
    limit = 0xFFFFFF
    fee = 0xFFFFFFFFFFFFFFFF
    return op.replace(
        call_gas_limit=limit,
        verification_gas_limit=limit,
        pre_verification_gas=limit,
        max_fee_per_gas=op.max_fee_per_gas or fee,
        max_priority_fee_per_gas=op.max_priority_fee_per_gas or fee,
        signature=b"\xff" * max(len(op.signature), signature_floor),
        paymaster_verification_gas_limit=limit if op.paymaster else 0,
        paymaster_post_op_gas_limit=limit if op.paymaster else 0,
        paymaster_data=b"\xff" * len(op.paymaster_data),
    )


def execution_limits(op: UserOperation) -> int:
    """All gas limits of `op` but preVerificationGas."""
    return (
        op.verification_gas_limit
        + op.call_gas_limit
        + op.paymaster_verification_gas_limit
        + op.paymaster_post_op_gas_limit
    )


def bundle_gas_limit(entry_point: EntryPoint, ops: Sequence[UserOperation]) -> int:
    """Gas limit under which `handleOps(ops)` cannot run short, whatever the operations do.

    Sum of all limits, plus 1/63 for what a call may not pass on, plus calldata at its floor, plus overhead.
    """
    tokens = sum(calldata_tokens(_op_calldata(entry_point, op)) for op in ops)
    limits = sum(execution_limits(op) for op in ops)
    overhead = TRANSACTION_GAS + 2 * BUNDLE_OVERHEAD + 45_000 * len(ops)
    return limits * 64 // 63 + FLOOR_TOKEN_GAS * tokens + overhead


def validation_gas_limit(entry_point: EntryPoint, prefix: Sequence[UserOperation], op: UserOperation) -> int:
    """Gas for simulating `prefix` in full but of `op` only the validation.

    The entry point then stops with AA95 before a large execution begins, which says that validation passed: a trace
    stays as small as the validation, however much the call would do.
    """
    validation_only = op.replace(call_gas_limit=0, paymaster_post_op_gas_limit=0)
    return bundle_gas_limit(entry_point, [*prefix, validation_only]) + 150_000
