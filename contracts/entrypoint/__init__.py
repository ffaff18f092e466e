"""Entry points by version: hashing, packing, `handleOps` and its events. A version is a module found in a table, not an `if`."""

from __future__ import annotations

from contracts.entrypoint import v07, v08, v09
from contracts.entrypoint.base import (
    ACCOUNT_DEPLOYED,
    BEFORE_EXECUTION,
    IGNORED_INIT_CODE,
    POST_OP_REVERT_REASON,
    USER_OPERATION_EVENT,
    USER_OPERATION_REVERT_REASON,
    EntryPoint,
    FailedOp,
    decode_failed_op,
)
from contracts.errors import InvalidFields
from contracts.types import Address, checksum

V07: EntryPoint = v07.ENTRY_POINT
V08: EntryPoint = v08.ENTRY_POINT
V09: EntryPoint = v09.ENTRY_POINT
ENTRY_POINTS: dict[str, EntryPoint] = {"v0.7": V07, "v0.8": V08, "v0.9": V09}


def by_address(address: Address) -> EntryPoint:
    """The entry point at a canonical address. Raises InvalidFields, naming those that are supported."""
    for entry_point in ENTRY_POINTS.values():
        if entry_point.address == address:
            return entry_point
    known = ", ".join(f"{e.version} {checksum(e.address)}" for e in ENTRY_POINTS.values())
    raise InvalidFields(f"entry point {checksum(address)} is not supported; supported: {known}")


__all__ = [
    "ACCOUNT_DEPLOYED",
    "BEFORE_EXECUTION",
    "ENTRY_POINTS",
    "IGNORED_INIT_CODE",
    "POST_OP_REVERT_REASON",
    "USER_OPERATION_EVENT",
    "USER_OPERATION_REVERT_REASON",
    "V07",
    "V08",
    "V09",
    "EntryPoint",
    "FailedOp",
    "by_address",
    "decode_failed_op",
]
