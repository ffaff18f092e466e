"""EIP-7702 authorisations: an account lets a contract's code run in its place. They travel beside an operation, not in it.

Source: EIP-7702; ERC-7769, `eip7702Auth`; ERC-4337 (the init code marker 0x7702).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Self

import rlp
from eth_keys.datatypes import Signature
from eth_keys.exceptions import BadSignature as InvalidSignature
from eth_utils.exceptions import ValidationError

from contracts.errors import InvalidFields
from contracts.types import Address, Hash32, checksum, keccak, parse_address, parse_quantity, to_hex

MARKER = bytes.fromhex("7702") + bytes(18)
"""In the place of a factory: the sender's code is a delegation, given by an authorisation or there already."""
DELEGATION_PREFIX = bytes.fromhex("ef0100")
AUTHORIZATION_GAS = 25_000
"""What an authorisation costs its transaction (PER_EMPTY_ACCOUNT_COST). Source: EIP-7702."""
_MAGIC = b"\x05"
_HALF_ORDER = 0x7FFFFFFFFFFFFFFFFFFFFFFFFFFFFFFF5D576E7357A4501DDFE92F46681B20A0


@dataclass(frozen=True, slots=True)
class Authorization:
    """One signed tuple. `chain_id` 0 is any chain; `nonce` is the authority's transaction nonce."""

    chain_id: int
    delegate: Address
    nonce: int
    y_parity: int
    r: int
    s: int

    @classmethod
    def from_rpc(cls, fields: object) -> Self:
        """Read the JSON form of ERC-7769. Raises InvalidFields naming the field."""
        if not isinstance(fields, Mapping):
            raise InvalidFields("eip7702Auth must be a JSON object")
        given = {key: value for key, value in fields.items() if value is not None}
        for name in ("chainId", "address", "nonce", "yParity", "r", "s"):
            if name not in given:
                raise InvalidFields(f"missing eip7702Auth field {name!r}")
        return cls(
            chain_id=parse_quantity(given["chainId"], "eip7702Auth.chainId", bits=256),
            delegate=parse_address(given["address"], "eip7702Auth.address"),
            nonce=parse_quantity(given["nonce"], "eip7702Auth.nonce", bits=64),
            y_parity=parse_quantity(given["yParity"], "eip7702Auth.yParity", bits=8),
            r=parse_quantity(given["r"], "eip7702Auth.r", bits=256),
            s=parse_quantity(given["s"], "eip7702Auth.s", bits=256),
        )

    def to_rpc(self) -> dict[str, Any]:
        """The JSON form."""
        return {
            "chainId": hex(self.chain_id),
            "address": checksum(self.delegate),
            "nonce": hex(self.nonce),
            "yParity": hex(self.y_parity),
            "r": hex(self.r),
            "s": hex(self.s),
        }

    def for_transaction(self) -> dict[str, Any]:
        """As eth-account takes it in an `authorizationList`."""
        return {
            "chainId": self.chain_id,
            "address": to_hex(self.delegate),
            "nonce": self.nonce,
            "yParity": self.y_parity,
            "r": self.r,
            "s": self.s,
        }

    def digest(self) -> Hash32:
        """keccak(0x05 || rlp([chain id, address, nonce]))."""
        return keccak(_MAGIC + rlp.encode([_minimal(self.chain_id), self.delegate, _minimal(self.nonce)]))

    def authority(self) -> Address:
        """Who signed it. Raises InvalidFields for a signature that recovers nobody, or with s in the upper half."""
        try:
            if self.s > _HALF_ORDER:
                raise ValidationError("s is in the upper half")
            signature = Signature(vrs=(self.y_parity, self.r, self.s))
            found: Address = signature.recover_public_key_from_msg_hash(self.digest()).to_canonical_address()
        except (InvalidSignature, ValidationError) as error:
            raise InvalidFields(f"the signature of eip7702Auth is invalid: {error}") from None
        return found


def _minimal(number: int) -> bytes:
    """Big-endian without leading zeros, empty for zero, as RLP wants integers."""
    return number.to_bytes((number.bit_length() + 7) // 8)


def delegation(delegate: Address) -> bytes:
    """The code of an account that delegates to `delegate`."""
    return DELEGATION_PREFIX + delegate


def delegate_of(code: bytes) -> Address | None:
    """To whom `code` delegates, None if it is no delegation."""
    return code[3:] if len(code) == 23 and code[:3] == DELEGATION_PREFIX else None
