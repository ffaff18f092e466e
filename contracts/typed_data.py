"""EIP-712 by hand: domain separators and digests for the few structs that Seawall signs.   Source: EIP-712."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache

from contracts import abi
from contracts.types import Address, Hash32, keccak

_DOMAIN = keccak(b"EIP712Domain(string name,string version,uint256 chainId,address verifyingContract)")
_DOMAIN_ANYWHERE = keccak(b"EIP712Domain(string name,string version)")


@lru_cache(maxsize=256)
def domain_separator(name: str, version: str, chain_id: int, verifying_contract: Address) -> Hash32:
    """hashStruct(domain) for one contract on one chain."""
    return keccak(
        abi.encode(
            ["bytes32", "bytes32", "bytes32", "uint256", "address"],
            [_DOMAIN, keccak(name.encode()), keccak(version.encode()), chain_id, verifying_contract],
        )
    )


@lru_cache(maxsize=16)
def domain_separator_anywhere(name: str, version: str) -> Hash32:
    """hashStruct(domain) of a domain without chain and contract, for messages that bind those in their leaves."""
    return keccak(
        abi.encode(
            ["bytes32", "bytes32", "bytes32"], [_DOMAIN_ANYWHERE, keccak(name.encode()), keccak(version.encode())]
        )
    )


def struct_hash(type_string: str, types: Sequence[str], values: Sequence[object]) -> Hash32:
    """hashStruct for a struct of static members (dynamic ones: pass their keccak as bytes32)."""
    return keccak(abi.encode(["bytes32", *types], [keccak(type_string.encode()), *values]))


def digest(separator: Hash32, struct: Hash32) -> Hash32:
    """keccak(0x1901 || domain separator || hashStruct(message))."""
    return keccak(b"\x19\x01" + separator + struct)
