"""What a session key may do beyond one function of one target: conditions on arguments, amounts, rates; and its signatures. Pure.

Mirrors contracts/src/interfaces/ISessionValidator.sol, whose comments are the specification. Validation may read no clock (ERC-7562
OP-011), so an operation says when it is to be included; both ends must lie in one bucket of every window that it is charged to.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from enum import IntEnum

from contracts import abi
from contracts.bindings import HOOK_WINDOW, SESSION, Session
from contracts.errors import InvalidFields
from contracts.typed_data import digest, domain_separator, struct_hash
from contracts.types import Address, Hash32, keccak
from policies.attestation import SIGNATURE_LENGTH
from policies.hooks import Condition

TYPE_BOUNDED, TYPE_ENABLING = 0x06, 0x07
"""First byte of an operation's signature."""
_BOUNDS = f"({HOOK_WINDOW}[],{HOOK_WINDOW}[],(uint8,uint16,bytes32[])[][])"
_ENABLE = (
    "EnableSession(address account,uint256 installation,address key,uint48 validAfter,uint48 validUntil,address target,"
    "bytes4 selector,uint128 prefundBudget,uint32 uses,bytes32 bounds)"
)
_ENABLE_TYPES = (
    "address", "uint256", "address", "uint48", "uint48", "address", "bytes4", "uint128", "uint32", "bytes32",
)  # fmt: skip
_MAX_BOUNDS = 2**16 - 1
_ROLLING_BUCKETS = 6


class Span(IntEnum):
    """IPolicyHook.Span."""

    ROLLING = 1
    DAY = 2
    WEEK = 3
    MONTH = 4


@dataclass(frozen=True, slots=True)
class Window:
    """At most `limit` (operations, or units of the argument) within a span of time; `duration_s` of a rolling one only, the offset from UTC of
    the others. Raises InvalidFields for a rolling one below 7 s: its buckets are too short for any operation."""

    span: Span
    limit: int
    duration_s: int = 0
    offset_minutes: int = 0

    def __post_init__(self) -> None:
        if self.span is Span.ROLLING and self.duration_s <= _ROLLING_BUCKETS:
            raise InvalidFields(f"a rolling window lasts more than {_ROLLING_BUCKETS} s, got {self.duration_s}")

    def to_abi(self) -> tuple[object, ...]:
        return bytes(20), int(self.span), self.duration_s, self.offset_minutes, self.limit

    def number(self, time_s: int) -> int:
        """The bucket or calendar period that a time (unix seconds) is in. Source: SpendingWindow.number."""
        if self.span is Span.ROLLING:
            return time_s // -(-self.duration_s // _ROLLING_BUCKETS)
        local = datetime.fromtimestamp(0, UTC) + timedelta(seconds=max(time_s + 60 * self.offset_minutes, 0))
        days = (local - datetime.fromtimestamp(0, UTC)).days
        if self.span is Span.DAY:
            return days
        return (days + 3) // 7 if self.span is Span.WEEK else local.year * 12 + local.month


@dataclass(frozen=True, slots=True)
class Bounds:
    """Every operation takes one of each of `rates`; without alternatives any arguments, else all conditions of one of `any_of` must hold, the
    first that does is charged to the `allowances` that it names."""

    rates: tuple[Window, ...] = ()
    allowances: tuple[Window, ...] = ()
    any_of: tuple[tuple[Condition, ...], ...] = ()

    def encode(self) -> bytes:
        """What a session commits to by its hash. Raises InvalidFields when it is longer than a signature can bring."""
        windows = [[one.to_abi() for one in some] for some in (self.rates, self.allowances)]
        encoded = abi.encode([_BOUNDS], [(*windows, self.any_of)])
        if len(encoded) > _MAX_BOUNDS:
            raise InvalidFields(
                f"the bounds of a session take {len(encoded)} bytes, at most {_MAX_BOUNDS} fit a signature"
            )
        return encoded

    def times(self, now_s: int, longest_s: int) -> tuple[int, int]:
        """When an operation that is signed now may be included: for at most `longest_s`, both ends in one bucket of every window.

        The entry point includes it after the first and up to the second (unix seconds); the first is a second ago unless a bucket begins now.
        """
        windows = (*self.rates, *self.allowances)
        begins = any(window.number(now_s - 1) != window.number(now_s) for window in windows)
        from_s, until_s = now_s if begins else now_s - 1, now_s + longest_s
        for window in windows:
            here = window.number(from_s)
            if window.number(until_s) == here:
                continue
            low, high = from_s, until_s  # the last second of this bucket lies between
            while high - low > 1:
                middle = (low + high) // 2
                low, high = (middle, high) if window.number(middle) == here else (low, middle)
            until_s = low
        return (from_s, until_s) if until_s > now_s else self.times(now_s + 1, longest_s)


def approval_digest(validator: Address, chain_id: int, account: Address, installation: int, session: Session) -> Hash32:
    """What the account's owner signs to let an operation enable `session` in the module's present `installation`. EIP-712."""
    separator = domain_separator("Seawall SessionValidator", "1", chain_id, validator)
    return digest(separator, struct_hash(_ENABLE, _ENABLE_TYPES, (account, installation, *session.to_abi())))


def encode_bounded_envelope(session: Session, times: tuple[int, int], bounds: bytes, signature: bytes) -> bytes:
    """Signature of an operation by a session with bounds that is enabled. Times in unix seconds. Raises InvalidFields."""
    return bytes([TYPE_BOUNDED]) + session.session_id + _claim(session, times, bounds, signature) + bounds + signature


def encode_enabling_envelope(
    session: Session, times: tuple[int, int], bounds: bytes, approval: bytes, signature: bytes
) -> bytes:
    """Signature of an operation that enables its session by the owner's `approval`. Raises InvalidFields."""
    head = (
        bytes([TYPE_ENABLING]) + abi.encode([SESSION], [session.to_abi()]) + _claim(session, times, bounds, signature)
    )
    return head + len(bounds).to_bytes(2) + bounds + approval + signature


def _claim(session: Session, times: Sequence[int], bounds: bytes, signature: bytes) -> bytes:
    if session.bounds != (keccak(bounds) if bounds else bytes(32)):
        raise InvalidFields("these bounds are not those of the session")
    if len(signature) != SIGNATURE_LENGTH or not 0 <= times[0] < times[1] < 2**47:
        raise InvalidFields("a session signature has 65 bytes, and its times are unix seconds in ascending order")
    return b"".join(time_s.to_bytes(6) for time_s in times)
