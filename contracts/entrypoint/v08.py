"""Entry point v0.8: userOpHash is an EIP-712 digest under the domain ("ERC4337", "1", chain id, entry point)."""

from __future__ import annotations

from contracts.entrypoint.base import EntryPoint, packed_hash_words
from contracts.typed_data import digest, domain_separator
from contracts.types import Address, Hash32, keccak
from contracts.userop import UserOperation

TYPE_HASH = keccak(
    b"PackedUserOperation(address sender,uint256 nonce,bytes initCode,bytes callData,bytes32 accountGasLimits,"
    b"uint256 preVerificationGas,bytes32 gasFees,bytes paymasterAndData)"
)


def _user_op_hash(op: UserOperation, entry_point: Address, chain_id: int, delegate: Address | None) -> Hash32:
    struct = keccak(TYPE_HASH + packed_hash_words(op, delegate))
    return digest(domain_separator("ERC4337", "1", chain_id, entry_point), struct)


ENTRY_POINT = EntryPoint(
    "v0.8", bytes.fromhex("4337084d9e255ff0702461cf8895ce9e3b5ff108"), _user_op_hash, takes_delegations=True
)
