"""Gas that no limit covers: preVerificationGas, and the gas limit of a bundle's transaction.   Source: ERC-4337, EIP-7623."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache

from bundler.inflator import Packed
from contracts.eip7702 import AUTHORIZATION_GAS
from contracts.entrypoint import V08, EntryPoint
from contracts.types import keccak
from contracts.userop import UserOperation

TRANSACTION_GAS = 21_000
TOKEN_GAS = 4
FLOOR_TOKEN_GAS = 10
"""Gas for one calldata token (a zero byte is 1, any other 4), and its floor. Source: EIP-7623."""

BUNDLE_OVERHEAD = 11_500
"""What `handleOps` spends outside all operations: dispatch, the guard, paying the beneficiary (9,000 + 2,600 cold)."""
OP_OVERHEAD = {"v0.7": 8_000, "v0.8": 5_900, "v0.9": 5_900}
"""What the entry point spends on one operation outside its own measurement: decoding, event, refund. Measured, with an executor
that is its own beneficiary (tests/bundler/test_estimate.py holds it to the receipts)."""
OTHER_BENEFICIARY = 2_500
"""A beneficiary that is not the executor is a cold account. Source: EIP-2929."""
OP_WORD_GAS = 6
"""Copying and hashing of one 32-byte word of an operation outside that measurement."""
VALIDITY_GAS = 370
"""Comparing one validity window with the clock, after that measurement: 200 to 300 on v0.7 and v0.8, 260 to 370 on v0.9 (measured)."""
MEASURED_AT_LEAST = 16_900
"""What the entry point's own measurement of an operation comes to at least (nonce, deposit, calls): where the calldata floor of its
transaction binds, that much of it is paid for already."""


def calldata_tokens(data: bytes) -> int:
    """Tokens of call data: one for a zero byte, four for any other."""
    return 4 * len(data) - 3 * data.count(0)


@lru_cache(maxsize=1024)
def _op_calldata(op: UserOperation) -> tuple[int, int]:
    """Tokens and 32-byte words of the operation's own part of `handleOps` call data: all of it but selector, beneficiary and the array's
    head. The same for every entry point. Remembered, for one operation's are asked for again and again on its way into a bundle."""
    data = V08.encode_handle_ops([op], bytes(20))[4 + 3 * 32 :]
    return calldata_tokens(data), len(data) // 32


def pre_verification_gas(
    entry_point: EntryPoint, op: UserOperation, authorizations: int = 0, *, other_beneficiary: bool = False
) -> int:
    """Return the least preVerificationGas that pays for `op` if it is alone in its bundle.

    transaction + max(bundle overhead + op overhead + standard calldata, floor calldata - what the entry point measures anyway).
    Rounds nothing; favours the bundler by assuming no sharing. Covers no L1 data fee. Each EIP-7702 authorisation is paid for, too.
    """
    tokens, words = _op_calldata(op)
    overhead = BUNDLE_OVERHEAD + OP_OVERHEAD[entry_point.version] + OP_WORD_GAS * words
    if other_beneficiary:
        overhead += OTHER_BENEFICIARY
    executed = max(overhead + TOKEN_GAS * tokens, FLOOR_TOKEN_GAS * tokens + OP_WORD_GAS * words - MEASURED_AT_LEAST)
    return TRANSACTION_GAS + AUTHORIZATION_GAS * authorizations + executed


def _noise(size: int, seed: bytes = b"signature") -> bytes:
    """`size` bytes that look random, none of them zero; always the same ones."""
    words = [keccak(seed + i.to_bytes(4)) for i in range(-(-size // 32))]
    return b"".join(words)[:size].replace(b"\0", b"\x01")


def with_dummy_fields(op: UserOperation, signature_floor: int = 65) -> UserOperation:
    """`op` with every field that an estimate does not know yet at a size that costs at least as much calldata.

    Gas limits become values of three, a missing fee of eight non-zero bytes; signature, paymaster data and the paymaster's signature keep
    their length, all bytes non-zero and without repetition, so that they compress no better than real ones.
    """
    noise = _noise(24)
    limits = [int.from_bytes(noise[3 * i : 3 * i + 3]) for i in range(5)]
    fee = 0xFFFFFFFFFFFFFFFF
    return op.replace(
        call_gas_limit=limits[0],
        verification_gas_limit=limits[1],
        pre_verification_gas=limits[2],
        max_fee_per_gas=op.max_fee_per_gas or fee,
        max_priority_fee_per_gas=op.max_priority_fee_per_gas or fee,
        signature=_noise(max(len(op.signature), signature_floor)),
        paymaster_verification_gas_limit=limits[3] if op.paymaster else 0,
        paymaster_post_op_gas_limit=limits[4] if op.paymaster else 0,
        paymaster_data=_noise(len(op.paymaster_data), b"paymaster"),
        paymaster_signature=_noise(len(op.paymaster_signature), b"paymaster signature"),
    )


def execution_limits(op: UserOperation) -> int:
    """All gas limits of `op` but preVerificationGas."""
    return (
        op.verification_gas_limit
        + op.call_gas_limit
        + op.paymaster_verification_gas_limit
        + op.paymaster_post_op_gas_limit
    )


def bundle_gas_limit(entry_point: EntryPoint, ops: Sequence[UserOperation], authorizations: int = 0) -> int:  # noqa: ARG001 (all alike so far)
    """Gas limit under which `handleOps(ops)` cannot run short, whatever the operations do.

    Sum of all limits, plus 1/63 for what a call may not pass on, plus calldata at its floor, plus overhead.
    """
    tokens = sum(map(op_tokens, ops))
    limits = sum(execution_limits(op) for op in ops)
    return bundle_gas(limits, tokens, len(ops), authorizations)


def op_tokens(op: UserOperation) -> int:
    """Calldata tokens of the operation's own part of `handleOps`."""
    return _op_calldata(op)[0]


def bundle_gas(limits: int, tokens: int, ops: int, authorizations: int) -> int:
    """`bundle_gas_limit` from sums over its operations: of their `execution_limits` and `op_tokens`, and how many there are."""
    overhead = TRANSACTION_GAS + 2 * BUNDLE_OVERHEAD + 45_000 * ops + AUTHORIZATION_GAS * authorizations
    return limits * 64 // 63 + FLOOR_TOKEN_GAS * tokens + overhead


INFLATE_GAS = 40_000
"""What the Inflator spends on a bundle beside handing it on: cold accounts, its dictionary, memory. Bounds the measured."""
INFLATE_BYTE_GAS = 30
"""And on each byte of the call data it makes, at most: a short copy makes four bytes for some 120 gas."""


def inflated_gas_limit(plain_limit: int, packed: Packed) -> int:
    """Gas limit of a bundle through the Inflator; `plain_limit` of the same by `handleOps`. A call hands on 63/64 of what is left."""
    return plain_limit * 64 // 63 + INFLATE_GAS + INFLATE_BYTE_GAS * packed.inflated_bytes


def validation_gas_limit(entry_point: EntryPoint, prefix: Sequence[UserOperation], op: UserOperation) -> int:
    """Gas for simulating `prefix` in full but of `op` only the validation.

    The entry point then stops with AA95 before a large execution begins, which says that validation passed: a trace
    stays as small as the validation, however much the call would do.
    """
    validation_only = op.replace(call_gas_limit=0, paymaster_post_op_gas_limit=0)
    return bundle_gas_limit(entry_point, [*prefix, validation_only]) + 150_000
