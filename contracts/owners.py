"""The kinds of owner an account can be born with or change to, and how their signatures are put together.

An owner is bytes: kind (1) || address (20) || key. Kind 0 is a secp256k1 key, 1 an ERC-7913 verifier with a key (passkey, P-256, multisig),
2 a contract that answers ERC-1271. Whoever signs elsewhere (a passkey in a browser, a hardware module) is given a 32-byte hash; what comes
back is encoded here.   Source: OwnerLib.sol, contracts/src/owners.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from contracts import abi
from contracts.errors import BadInput
from contracts.types import Address, Hash32, checksum

KIND_ECDSA, KIND_ERC7913, KIND_ERC1271 = 0, 1, 2
P256_ORDER = 0xFFFFFFFF00000000FFFFFFFFFFFFFFFFBCE6FAADA7179E84F3B9CAC2FC632551
MAX_SEATS = 32


def erc7913_owner(verifier: Address, key: bytes) -> bytes:
    """An owner whose signatures `verifier` checks. Raises BadInput for an empty key."""
    if not key:
        raise BadInput("an ERC-7913 owner needs a key; a contract that signs by itself is an ERC-1271 owner")
    return bytes([KIND_ERC7913]) + verifier + key


def contract_owner(contract: Address) -> bytes:
    """An owner that answers ERC-1271 itself, such as another account."""
    return bytes([KIND_ERC1271]) + contract


def p256_owner(verifier: Address, x: int, y: int) -> bytes:
    """A P-256 key, bare or in a passkey, by its public point."""
    return erc7913_owner(verifier, x.to_bytes(32) + y.to_bytes(32))


def p256_signature(r: int, s: int) -> bytes:
    """r (32) || s (32); the verifiers take s in the lower half of the order only, and either half is the same signature."""
    return r.to_bytes(32) + min(s, P256_ORDER - s).to_bytes(32)


def passkey_signature(authenticator_data: bytes, client_data_json: bytes, r: int, s: int, challenge: Hash32) -> bytes:
    """A passkey's assertion as `WebAuthnOwner` takes it. Raises BadInput when it is not of this challenge."""
    text = client_data_json.decode()
    wanted = base64.urlsafe_b64encode(challenge).rstrip(b"=").decode()
    try:
        given = json.loads(text)["challenge"]
    except (ValueError, KeyError, TypeError):
        given = None
    if given != wanted:
        raise BadInput(f"the passkey signed challenge {given!r}, and {wanted!r} was asked")
    fields = (
        r.to_bytes(32),
        min(s, P256_ORDER - s).to_bytes(32),
        text.index('"challenge"'),
        text.index('"type"'),
        authenticator_data,
        text,
    )
    return abi.encode(["bytes32", "bytes32", "uint256", "uint256", "bytes", "string"], fields)


@dataclass(frozen=True, slots=True)
class Seat:
    """One signer of a multisig: an owner of any kind, and what it weighs."""

    owner: bytes
    weight: int = 1


def multisig_owner(verifier: Address, threshold: int, seats: Sequence[Seat]) -> bytes:
    """Signers who are the owner together once their weights reach `threshold`; m of n with weights of 1.

    Raises BadInput for a multisig that could never sign, or in which one signer sits twice.
    """
    if not 0 < len(seats) <= MAX_SEATS:
        raise BadInput(f"a multisig has 1 to {MAX_SEATS} signers, not {len(seats)}")
    if len({seat.owner for seat in seats}) != len(seats):
        raise BadInput("one signer sits twice in the multisig: give it a larger weight instead")
    if any(not 0 < seat.weight < 1 << 16 or not 21 <= len(seat.owner) < 1 << 16 for seat in seats):
        raise BadInput("a seat of a multisig is an owner of 21 to 65535 bytes with a weight from 1 to 65535")
    total = sum(seat.weight for seat in seats)
    if not 0 < threshold <= min(total, (1 << 16) - 1):
        raise BadInput(f"the threshold {threshold} cannot be reached: all weights together are {total}")
    key = threshold.to_bytes(2) + b"".join(
        seat.weight.to_bytes(2) + len(seat.owner).to_bytes(2) + seat.owner for seat in seats
    )
    return erc7913_owner(verifier, key)


def seats_of(owner: bytes) -> tuple[int, tuple[Seat, ...]]:
    """Threshold and seats of a multisig owner. Raises BadInput when the bytes are none."""
    rest, seats = owner[23:], []
    while rest:
        weight, length = int.from_bytes(rest[:2]), int.from_bytes(rest[2:4])
        if len(rest) < 4 + length or length < 21:
            raise BadInput("these bytes are no multisig owner")
        seats.append(Seat(rest[4 : 4 + length], weight))
        rest = rest[4 + length :]
    if len(owner) < 23 or owner[0] != KIND_ERC7913 or not seats:
        raise BadInput("these bytes are no multisig owner")
    return int.from_bytes(owner[21:23]), tuple(seats)


def multisig_signature(owner: bytes, given: Mapping[bytes, bytes]) -> bytes:
    """The multisig's signature out of its signers' (by their owner bytes), as few as are needed, heaviest first.

    Raises BadInput when they do not reach the threshold, naming who is missing, or when somebody signed who has no seat.
    """
    threshold, seats = seats_of(owner)
    strangers = given.keys() - {seat.owner for seat in seats}
    if strangers:
        raise BadInput(f"{', '.join(_name(one) for one in sorted(strangers))} has no seat in this multisig")
    chosen, weight = [], 0
    for index, seat in sorted(enumerate(seats), key=lambda one: (-one[1].weight, one[0])):
        if seat.owner in given and weight < threshold:
            chosen.append((index, given[seat.owner]))
            weight += seat.weight
    if weight < threshold:
        missing = ", ".join(f"{_name(seat.owner)} ({seat.weight})" for seat in seats if seat.owner not in given)
        raise BadInput(f"signatures of weight {weight} of {threshold}: still to sign are some of {missing}")
    return b"".join(bytes([index]) + len(one).to_bytes(2) + one for index, one in sorted(chosen))


def _name(owner: bytes) -> str:
    return checksum(owner[1:21]) if owner[0] != KIND_ERC7913 else f"key {owner[21:29].hex()}..."
