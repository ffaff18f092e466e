"""The transaction that carries a bundle, or cancels one."""

from __future__ import annotations

from collections.abc import Sequence

import rlp

from bundler.inflator import Packed
from bundler.mempool import Entry
from bundler.store import Attempt
from contracts.entrypoint import EntryPoint
from contracts.eoa import Eoa
from contracts.types import Address, Wei, checksum

CANCEL_GAS = 21_000

Slot = tuple[Address, int]
"""Of which only one transaction can be mined: executor and nonce."""


def slot_of(attempt: Attempt) -> Slot:
    return attempt.executor, attempt.nonce


def gas_limit_of(attempt: Attempt) -> int:
    """The gas limit in a signed transaction (EIP-1559 or EIP-7702)."""
    return int.from_bytes(rlp.decode(attempt.raw[1:])[4])


def target_of(attempt: Attempt) -> Address:
    """Whom a signed transaction calls."""
    to: Address = rlp.decode(attempt.raw[1:])[5]
    return to


def sign_bundle(
    executor: Eoa,
    nonce: int,
    chain_id: int,
    entry_point: EntryPoint,
    entries: Sequence[Entry],
    packed: Packed | None = None,
    *,
    beneficiary: Address,
    gas_limit: int,
    max_fee_wei: Wei,
    tip_wei: Wei,
    sent_block: int,
) -> Attempt:
    """`handleOps` of these, in `packed` form if there is one.

    Without any, a transaction to the executor itself, which takes the nonce and does nothing.
    """
    to, data = executor.address, b""
    if packed is not None:
        to, data = packed.to, packed.data
    elif entries:
        to, data = entry_point.address, entry_point.encode_handle_ops([e.op for e in entries], beneficiary)
    authorizations = [e.authorization.for_transaction() for e in entries if e.authorization is not None]
    raw, tx_hash = executor.sign_transaction(
        ({"authorizationList": authorizations} if authorizations else {})
        | {
            "type": 4 if authorizations else 2,
            "chainId": chain_id,
            "nonce": nonce,
            "to": checksum(to),
            "value": 0,
            "gas": gas_limit if entries else CANCEL_GAS,
            "maxFeePerGas": max_fee_wei,
            "maxPriorityFeePerGas": tip_wei,
            "data": data,
        }
    )
    return Attempt(
        tx_hash=tx_hash,
        executor=executor.address,
        nonce=nonce,
        entry_point=entry_point.address,
        raw=raw,
        op_hashes=tuple(entry.hash for entry in entries),
        max_fee_wei=max_fee_wei,
        priority_fee_wei=tip_wei,
        sent_block=sent_block,
    )
