"""Entry point v0.7: userOpHash = keccak(keccak(packed operation), entry point, chain id)."""

from __future__ import annotations

from contracts import abi
from contracts.entrypoint.base import EntryPoint, packed_hash_fields
from contracts.types import Address, Hash32, keccak
from contracts.userop import UserOperation


def _user_op_hash(op: UserOperation, entry_point: Address, chain_id: int, delegate: Address | None) -> Hash32:  # noqa: ARG001 (v0.7 knows no delegation)
    inner = keccak(abi.encode(*packed_hash_fields(op)))
    return keccak(abi.encode(["bytes32", "address", "uint256"], [inner, entry_point, chain_id]))


ENTRY_POINT = EntryPoint("v0.7", bytes.fromhex("0000000071727de22e5e9d8baf0edac6f37da032"), _user_op_hash)
