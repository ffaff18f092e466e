"""How operations and attempts look in a table: the same bytes in every store."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import msgspec

from bundler.mempool import FOREVER, Entry
from bundler.store.port import Attempt, Inclusion, OperationRecord, OpStatus
from contracts.eip7702 import Authorization
from contracts.entrypoint import by_address
from contracts.types import Hash32
from contracts.userop import UserOperation

OPERATION_COLUMNS = (
    "hash, entry_point, body, received_s, received_block, valid_after_s, valid_until_s, status, reason, tx_hash, "
    "block_number, block_hash, beside"
)
"""What `record_of` reads, in this order."""
ATTEMPT_COLUMNS = (
    "tx_hash, executor, nonce, entry_point, raw, op_hashes, max_fee_wei, priority_fee_wei, sent_block, status, "
    "block_number, block_hash"
)
"""What `attempt_of` and `inclusion_of` read, in this order."""
_ANY_BLOCK = (0, FOREVER)


class Beside(msgspec.Struct, frozen=True, omit_defaults=True):
    """What is known of an operation beside its fields."""

    authorization: tuple[bytes, bytes, bytes, int, bytes, bytes] | None = None
    """chain id, delegate, nonce, y parity, r, s; numbers big-endian."""
    staked: tuple[bytes, ...] = ()
    code_hashes: tuple[tuple[bytes, bytes], ...] = ()
    contracts: tuple[bytes, ...] = ()
    blocks: tuple[int, int] | None = None
    """In which it is valid: after the one, until the other; None for any."""

    @staticmethod
    def of(entry: Entry) -> bytes:
        a = entry.authorization
        numbers = None
        if a is not None:
            numbers = (
                a.chain_id.to_bytes(32),
                a.delegate,
                a.nonce.to_bytes(8),
                a.y_parity,
                a.r.to_bytes(32),
                a.s.to_bytes(32),
            )
        blocks = (entry.valid_after_block, entry.valid_until_block)
        beside = Beside(
            numbers,
            tuple(sorted(entry.staked)),
            entry.code_hashes,
            tuple(sorted(entry.contracts)),
            None if blocks == _ANY_BLOCK else blocks,
        )
        return msgspec.msgpack.encode(beside)

    def beside(self, entry: Entry) -> Entry:
        authorization = None
        if self.authorization is not None:
            chain_id, delegate, nonce, y_parity, r, s = self.authorization
            authorization = Authorization(
                int.from_bytes(chain_id),
                delegate,
                int.from_bytes(nonce),
                y_parity,
                int.from_bytes(r),
                int.from_bytes(s),
            )
        blocks = self.blocks or _ANY_BLOCK
        return replace(
            entry,
            authorization=authorization,
            staked=frozenset(self.staked),
            code_hashes=self.code_hashes,
            contracts=frozenset(self.contracts),
            valid_after_block=blocks[0],
            valid_until_block=blocks[1],
        )


def split(joined: bytes) -> tuple[Hash32, ...]:
    return tuple(joined[i : i + 32] for i in range(0, len(joined), 32))


def body_of(entry: Entry) -> bytes:
    """The operation's own fields, as JSON-RPC has them."""
    return msgspec.json.encode(entry.op.to_rpc())


def attempt_values(attempt: Attempt) -> tuple[Any, ...]:
    """The first nine of ATTEMPT_COLUMNS."""
    return (
        attempt.tx_hash,
        attempt.executor,
        attempt.nonce,
        attempt.entry_point,
        attempt.raw,
        b"".join(attempt.op_hashes),
        str(attempt.max_fee_wei),
        str(attempt.priority_fee_wei),
        attempt.sent_block,
    )


def attempt_of(row: Sequence[Any]) -> Attempt:
    """Read a row of ATTEMPT_COLUMNS."""
    tx_hash, executor, nonce, entry_point, raw, op_hashes, max_fee, tip, sent_block = row[:9]
    return Attempt(tx_hash, executor, nonce, entry_point, raw, split(op_hashes), int(max_fee), int(tip), sent_block)


def inclusion_of(row: Sequence[Any]) -> Inclusion | None:
    """Where the attempt of a row of ATTEMPT_COLUMNS is; None if it is in no block."""
    return None if row[10] is None else Inclusion(row[0], row[10], row[11])


_NOTHING_BESIDE = msgspec.msgpack.encode(Beside())
_PLAIN = frozenset(
    (
        "sender", "nonce", "callData", "callGasLimit", "verificationGasLimit", "preVerificationGas", "maxFeePerGas",
        "maxPriorityFeePerGas", "signature",
    )
)  # fmt: skip


def _stored(fields: dict[str, str]) -> UserOperation:
    """An operation as `to_rpc` wrote it: most have neither factory nor paymaster, and were checked when they came in."""
    if fields.keys() != _PLAIN:
        return UserOperation.from_rpc(fields)
    return UserOperation(
        sender=bytes.fromhex(fields["sender"][2:]),
        nonce=int(fields["nonce"], 16),
        call_data=bytes.fromhex(fields["callData"][2:]),
        call_gas_limit=int(fields["callGasLimit"], 16),
        verification_gas_limit=int(fields["verificationGasLimit"], 16),
        pre_verification_gas=int(fields["preVerificationGas"], 16),
        max_fee_per_gas=int(fields["maxFeePerGas"], 16),
        max_priority_fee_per_gas=int(fields["maxPriorityFeePerGas"], 16),
        signature=bytes.fromhex(fields["signature"][2:]),
    )


def record_of(row: Sequence[Any]) -> OperationRecord:
    """Read a row of OPERATION_COLUMNS, and `claimed_by` behind them where a store has it."""
    entry = Entry(row[0], _stored(msgspec.json.decode(row[2])), by_address(row[1]), row[3], row[4], row[5], row[6])
    if row[12] is not None and row[12] != _NOTHING_BESIDE:
        entry = msgspec.msgpack.decode(row[12], type=Beside).beside(entry)
    inclusion = None if row[10] is None else Inclusion(row[9], row[10], row[11])
    return OperationRecord(entry, OpStatus(row[7]), row[8], inclusion, row[9], row[13] if len(row) > 13 else None)
