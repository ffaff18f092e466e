"""Bytes inside, `0x` strings at the edges: the few conversions between them, each with one clear error."""

from __future__ import annotations

import re
from typing import TypeAlias

from eth_hash.auto import keccak as _keccak

from contracts.errors import InvalidFields

Address: TypeAlias = bytes
"""20 bytes."""
Hash32: TypeAlias = bytes
"""32 bytes."""
Wei: TypeAlias = int
"""Non-negative amount of the chain's native token, 10^-18."""

ZERO_ADDRESS: Address = bytes(20)
_HEX = re.compile(r"0x(?:[0-9a-fA-F]{2})*\Z")
_QUANTITY = re.compile(r"0x[0-9a-fA-F]{1,64}\Z")


def keccak(data: bytes) -> Hash32:
    """Keccak-256 of `data`."""
    return bytes(_keccak(data))


def to_hex(data: bytes) -> str:
    """`0x` and two lower-case digits a byte."""
    return "0x" + data.hex()


def checksum(address: Address) -> str:
    """The address in mixed case. Source: ERC-55."""
    digits = address.hex()
    nibbles = keccak(digits.encode()).hex()
    return "0x" + "".join(c.upper() if int(n, 16) >= 8 else c for c, n in zip(digits, nibbles, strict=False))


def parse_bytes(value: object, name: str = "value") -> bytes:
    """Read `0x` data of any length. Raises InvalidFields naming `name`."""
    if not isinstance(value, str) or not _HEX.match(value):
        raise InvalidFields(f"{name} must be 0x followed by an even number of hex digits, got {value!r:.80}")
    return bytes.fromhex(value[2:])


def parse_address(value: object, name: str = "address") -> Address:
    """Read a 20-byte address, any case (a mixed-case one must have a right ERC-55 checksum). Raises InvalidFields."""
    data = parse_bytes(value, name)
    if len(data) != 20:
        raise InvalidFields(f"{name} must have 20 bytes, got {len(data)}")
    assert isinstance(value, str)
    digits = value[2:]
    if digits not in (digits.lower(), digits.upper()) and checksum(data) != "0x" + digits:
        raise InvalidFields(f"{name} {value} has a wrong checksum: a digit may be mistyped (ERC-55)")
    return data


def parse_hash(value: object, name: str = "hash") -> Hash32:
    """Read 32 bytes. Raises InvalidFields."""
    data = parse_bytes(value, name)
    if len(data) != 32:
        raise InvalidFields(f"{name} must have 32 bytes, got {len(data)}")
    return data


def parse_quantity(value: object, name: str = "quantity", *, bits: int = 256) -> int:
    """Read a JSON-RPC quantity (`0x` hex; leading zeros are forgiven) below 2^`bits`. Raises InvalidFields."""
    if not isinstance(value, str) or not _QUANTITY.match(value):
        raise InvalidFields(f"{name} must be a 0x hex quantity, got {value!r:.80}")
    number = int(value, 16)
    if number >> bits:
        raise InvalidFields(f"{name} must be below 2^{bits}, got {value}")
    return number
