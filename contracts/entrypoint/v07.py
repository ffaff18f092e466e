"""Entry point v0.7: userOpHash = keccak(keccak(packed operation), entry point, chain id)."""

from __future__ import annotations

from contracts.entrypoint.base import EntryPoint, packed_hash_words
from contracts.types import Address, Hash32, keccak
from contracts.userop import UserOperation


def _user_op_hash(op: UserOperation, entry_point: Address, chain_id: int, delegate: Address | None) -> Hash32:  # noqa: ARG001 (v0.7 knows no delegation)
    inner = keccak(packed_hash_words(op))
    return keccak(inner + entry_point.rjust(32, b"\0") + chain_id.to_bytes(32))


ENTRY_POINT = EntryPoint("v0.7", bytes.fromhex("0000000071727de22e5e9d8baf0edac6f37da032"), _user_op_hash)
