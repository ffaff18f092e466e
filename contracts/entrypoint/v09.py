"""Entry point v0.9: v0.8's digest, with a paymaster's signature at the end of paymasterAndData left out of it."""

from __future__ import annotations

from contracts.entrypoint.base import EntryPoint, packed_hash_words, without_paymaster_signature
from contracts.entrypoint.v08 import TYPE_HASH
from contracts.typed_data import digest, domain_separator
from contracts.types import Address, Hash32, keccak
from contracts.userop import UserOperation


def _user_op_hash(op: UserOperation, entry_point: Address, chain_id: int, delegate: Address | None) -> Hash32:
    covered = without_paymaster_signature(op.paymaster_and_data)
    struct = keccak(TYPE_HASH + packed_hash_words(op, delegate, paymaster_and_data=covered))
    return digest(domain_separator("ERC4337", "1", chain_id, entry_point), struct)


ENTRY_POINT = EntryPoint(
    "v0.9",
    bytes.fromhex("433709009b8330fda32311df1c2afa402ed8d009"),
    _user_op_hash,
    takes_delegations=True,
    takes_paymaster_signatures=True,
    counts_blocks=True,
    ignores_init_code=True,
    wants_plain_caller=True,
)
