"""Owners as people write them, and what each kind means for an operation: who signs, how long, and for how much gas.

`key:NAME` (keystore), `ecdsa:0x...`, `p256:FILE.pub`, `passkey:FILE` (a registration as JSON), `point:p256:X:Y`, `point:passkey:X:Y`,
`contract:0x...`, or the owner's bytes.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from contracts.bindings import ecdsa_owner
from contracts.deploy import create2_address, init_code
from contracts.errors import BadInput
from contracts.owners import (
    KIND_ECDSA,
    KIND_ERC1271,
    KIND_ERC7913,
    Seat,
    contract_owner,
    multisig_owner,
    p256_owner,
    seats_of,
)
from contracts.types import Hash32, checksum, parse_address, parse_bytes, to_hex
from policies.attestation import recover_signer
from wallet.keystore import Keystore
from wallet.owners import OwnerVerifiers
from wallet.passkeys import Point, read_json, registered, signed_by_passkey

_PASSKEY_BYTES = 1_024
"""Room for an assertion: authenticator data, and client data with an origin and whatever a browser adds."""
_GAS = {"ecdsa": 12_000, "p256": 450_000, "passkey": 520_000, "contract": 150_000}
"""What checking one signature may cost where no precompile of RIP-7212 helps (gas)."""


def verifiers() -> OwnerVerifiers:
    """Where they are on every chain: the CREATE2 deployer gives the same code the same address."""
    return OwnerVerifiers(
        *(create2_address(init_code(name)) for name in ("P256Owner", "WebAuthnOwner", "MultisigOwner"))
    )


def kind_of(owner: bytes) -> str:
    """ecdsa, p256, passkey, multisig or contract. Raises BadInput for bytes that are no owner of ours."""
    if len(owner) == 21 and owner[0] in (KIND_ECDSA, KIND_ERC1271):
        return "ecdsa" if owner[0] == KIND_ECDSA else "contract"
    known = verifiers()
    named = {known.p256: "p256", known.webauthn: "passkey", known.multisig: "multisig"}
    kind = named.get(owner[1:21]) if owner[:1] == bytes([KIND_ERC7913]) else None
    if kind is None or (kind != "multisig" and len(owner) != 85):
        raise BadInput(f"{to_hex(owner)[:60]}... is no owner that this wallet knows: which verifier is it for?")
    return kind


def seats(owner: bytes) -> tuple[int, tuple[Seat, ...]]:
    """Threshold and signers; whoever signs alone is one seat."""
    return seats_of(owner) if kind_of(owner) == "multisig" else (1, (Seat(owner),))


def point_of(owner: bytes) -> Point:
    """The public key of a P-256 or passkey owner."""
    return Point(int.from_bytes(owner[21:53]), int.from_bytes(owner[53:85]))


def parse_owner(text: str, keystore: Keystore) -> bytes:
    """Raises BadInput, SetupError."""
    kind, _, rest = text.partition(":")
    where = verifiers()
    if kind == "key":
        return ecdsa_owner(keystore.info(rest).address)
    if kind == "ecdsa":
        return ecdsa_owner(parse_address(rest, "owner"))
    if kind == "contract":
        return contract_owner(parse_address(rest, "owner"))
    if kind == "passkey":
        point = registered(read_json(Path(rest), "passkey's registration"))
        return p256_owner(where.webauthn, point.x, point.y)
    if kind == "p256":
        found = read_json(Path(rest), "public key file")
        return _by_point("p256", str(found.get("x")), str(found.get("y")))
    if kind == "point":
        which, _, coordinates = rest.partition(":")
        return _by_point(which, *coordinates.partition(":")[::2])
    owner = parse_bytes(text, "owner")
    kind_of(owner)
    return owner


def _by_point(kind: str, x: str, y: str) -> bytes:
    where = {"p256": verifiers().p256, "passkey": verifiers().webauthn}
    if kind not in where:
        raise BadInput(f"a point is of p256 or passkey, got {kind!r}")
    point = Point(int.from_bytes(parse_bytes(x, "x")), int.from_bytes(parse_bytes(y, "y")))
    return p256_owner(where[kind], point.x, point.y)


def parse_multisig(threshold: int | None, texts: Sequence[str], keystore: Keystore) -> bytes:
    """Signers, `SPEC` or `SPEC=WEIGHT` each; without a threshold all must sign. Raises BadInput for one that could never sign."""
    found = []
    for text in texts:
        spec, equals, weight = text.rpartition("=")
        if equals and not weight.isdecimal():
            raise BadInput(f"a signer is SPEC or SPEC=WEIGHT, got {text!r}")
        found.append(Seat(parse_owner(spec if equals else text, keystore), int(weight) if equals else 1))
    if any(kind_of(seat.owner) == "multisig" for seat in found):
        raise BadInput("a multisig inside a multisig is not supported here: seat its signers")
    all_of_them = sum(seat.weight for seat in found)
    return multisig_owner(verifiers().multisig, all_of_them if threshold is None else threshold, found)


def described(owner: bytes) -> dict[str, Any]:
    """For people and JSON."""
    kind = kind_of(owner)
    found: dict[str, Any] = {"kind": kind, "owner": to_hex(owner)}
    if kind == "multisig":
        threshold, members = seats_of(owner)
        found["threshold"] = threshold
        found["signers"] = [described(seat.owner) | {"weight": seat.weight} for seat in members]
    elif kind in ("ecdsa", "contract"):
        found["address"] = checksum(owner[1:])
    else:
        point = point_of(owner)
        found |= {"x": f"0x{point.x:064x}", "y": f"0x{point.y:064x}"}
    return found


@dataclass(frozen=True, slots=True)
class SignatureCost:
    """What a signature of an owner takes at most: bytes, and gas to check it."""

    size: int
    gas: int


def cost_of(owner: bytes) -> SignatureCost:
    """Of as many signers as a threshold may need: the light ones first, they are the most."""
    threshold, members = seats(owner)
    sizes = {"ecdsa": 65, "p256": 64, "passkey": _PASSKEY_BYTES, "contract": 512}
    if kind_of(owner) != "multisig":
        return SignatureCost(sizes[kind_of(owner)], _GAS[kind_of(owner)])
    weights, needed = sorted(seat.weight for seat in members), 0
    while sum(weights[:needed]) < threshold:
        needed += 1
    kinds = [kind_of(seat.owner) for seat in members]
    size = sum(sorted((sizes[kind] + 3 for kind in kinds), reverse=True)[:needed])
    return SignatureCost(size, 20_000 + sum(sorted((_GAS[kind] + 10_000 for kind in kinds), reverse=True)[:needed]))


def check(owner: bytes, digest: Hash32, signature: bytes) -> None:
    """Raises BadInput unless `signature` is this signer's over `digest`. What only a chain can say (a contract's) passes."""
    kind = kind_of(owner)
    if kind == "ecdsa" and (len(signature) != 65 or recover_signer(digest, signature) != owner[1:]):
        raise BadInput(f"the signature is not {checksum(owner[1:])}'s over this operation")
    if kind == "p256":
        r, s = int.from_bytes(signature[:32]), int.from_bytes(signature[32:])
        if len(signature) != 64 or not point_of(owner).verifies(digest, r, s):
            raise BadInput("the signature is not this P-256 key's over this operation")
    if kind == "passkey" and not signed_by_passkey(signature, point_of(owner), digest):
        raise BadInput("the signature is not this passkey's over this operation")
