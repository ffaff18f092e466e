"""P-256 keys: those that this wallet keeps in a file, and passkeys, whose answers a browser hands over as JSON.

A passkey's registration and its assertions are what `PublicKeyCredential.toJSON()` gives (WebAuthn level 3): base64url without padding.
"""

from __future__ import annotations

import base64
import hashlib
import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from Crypto.Hash import SHA256
from Crypto.PublicKey import ECC
from Crypto.Signature import DSS
from Crypto.Util.asn1 import DerSequence

from contracts import abi
from contracts.errors import BadInput, SetupError
from contracts.owners import p256_signature, passkey_signature
from contracts.types import Hash32
from wallet.keystore import Passphrase, read_secret_file

_PROTECTION = "PBKDF2WithHMAC-SHA512AndAES256-CBC"
_ITERATIONS = 600_000
"""Source: OWASP Password Storage Cheat Sheet asks 210,000 for HMAC-SHA512."""
_P256_NAMES = ("NIST P-256", "p256", "P-256")
"""What versions of pycryptodome call the curve."""
_UP_AND_UV = 0x05
"""Flags of an assertion: the user was present and verified, as WebAuthnOwner wants it."""


@dataclass(frozen=True, slots=True)
class Point:
    """A P-256 public key. It is on the curve."""

    x: int
    y: int

    def __post_init__(self) -> None:
        try:
            ECC.construct(curve="P-256", point_x=self.x, point_y=self.y)
        except ValueError:
            raise BadInput("these coordinates are no point of P-256") from None

    def verifies(self, digest: Hash32, r: int, s: int) -> bool:
        """Whether r, s is this key's signature over the digest itself."""
        key = ECC.construct(curve="P-256", point_x=self.x, point_y=self.y)
        try:
            DSS.new(key, "fips-186-3").verify(_Digest(digest), r.to_bytes(32) + s.to_bytes(32))
        except (ValueError, OverflowError):
            return False
        return True


class _Digest:
    """A hash that was computed elsewhere, as the signer of pycryptodome takes one."""

    oid = SHA256.new().oid
    digest_size = 32

    def __init__(self, digest: Hash32) -> None:
        self._digest = digest

    def digest(self) -> bytes:
        return self._digest


class P256Key:
    """A P-256 key in memory. It never appears in `repr`, errors or logs."""

    __slots__ = ("_key", "point")

    def __init__(self, key: ECC.EccKey) -> None:
        self._key = key
        self.point = Point(int(key.pointQ.x), int(key.pointQ.y))

    def __repr__(self) -> str:
        return f"P256Key({self.point.x:064x})"

    @classmethod
    def generate(cls) -> P256Key:
        """A new one, from the system's randomness."""
        return cls(ECC.generate(curve="P-256"))

    @classmethod
    def read(cls, path: Path, passphrase: Passphrase) -> P256Key:
        """From an encrypted PKCS#8 file that only its owner can read. Raises SetupError, BadInput for a wrong passphrase."""
        text = read_secret_file(path, "P-256 key file")
        try:
            key = ECC.import_key(text, passphrase=passphrase.reveal())
        except ValueError:
            raise BadInput(f"the passphrase does not open {path}, or it is no PKCS#8 key file") from None
        if key.curve not in _P256_NAMES or not key.has_private():
            raise BadInput(f"{path} holds no private key of P-256")
        return cls(key)

    def write(self, path: Path, passphrase: Passphrase, *, iterations: int = _ITERATIONS) -> None:
        """Encrypt into a new file of mode 0600; one that is there is never overwritten. Raises BadInput, SetupError."""
        text = self._key.export_key(
            format="PEM",
            passphrase=passphrase.reveal(),
            use_pkcs8=True,
            protection=_PROTECTION,
            prot_params={"iteration_count": iterations},
        )
        try:
            descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        except FileExistsError:
            raise BadInput(f"{path} exists and is never overwritten") from None
        except OSError as error:
            raise SetupError(f"{path} cannot be written: {error.strerror}") from None
        with os.fdopen(descriptor, "w") as stream:
            stream.write(text + "\n")
            stream.flush()
            os.fsync(stream.fileno())

    def sign_hash(self, digest: Hash32) -> bytes:
        """r (32) || s (32, low half) over the 32-byte digest itself, as P256Owner takes it."""
        raw = DSS.new(self._key, "fips-186-3").sign(_Digest(digest))
        return p256_signature(int.from_bytes(raw[:32]), int.from_bytes(raw[32:]))


def read_json(path: Path, what: str) -> Mapping[str, Any]:
    """A JSON object from a file. Raises SetupError, BadInput."""
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise SetupError(f"the {what} {path} cannot be read: {error.strerror}") from None
    except (ValueError, RecursionError):
        raise BadInput(f"the {what} {path} is not JSON") from None
    if not isinstance(found, Mapping):
        raise BadInput(f"the {what} {path} must be a JSON object")
    return found


def _part(credential: Mapping[str, Any], name: str) -> bytes:
    response = credential.get("response")
    text = response.get(name) if isinstance(response, Mapping) else None
    if not isinstance(text, str):
        raise BadInput(f"the passkey's answer has no response.{name}: hand over what `credential.toJSON()` gives")
    try:
        return base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))
    except ValueError:
        raise BadInput(f"response.{name} is not base64url") from None


def registered(credential: Mapping[str, Any]) -> Point:
    """The public key of a passkey, from its registration. Raises BadInput for a key of another kind (only ES256 can own an account)."""
    try:
        key = ECC.import_key(_part(credential, "publicKey"))
    except (ValueError, IndexError, TypeError):
        key = None
    if key is None or key.curve not in _P256_NAMES:
        raise BadInput("the passkey's public key is none of P-256: register it with alg -7 (ES256)")
    return Point(int(key.pointQ.x), int(key.pointQ.y))


def asserted(credential: Mapping[str, Any], point: Point, digest: Hash32) -> bytes:
    """The signature of a passkey's assertion over `digest`, as WebAuthnOwner takes it.

    Raises BadInput when it is malformed, of another challenge or another key, or the user was not present and verified.
    """
    data, client = _part(credential, "authenticatorData"), _part(credential, "clientDataJSON")
    try:
        der: Any = DerSequence()
        der.decode(_part(credential, "signature"), strict=True, nr_elements=2)
        r, s = int(der[0]), int(der[1])
    except (ValueError, IndexError):
        raise BadInput("response.signature is no DER signature") from None
    try:
        signature = passkey_signature(data, client, r, s, digest)
    except (ValueError, OverflowError):
        raise BadInput("response.clientDataJSON is no WebAuthn client data") from None
    if not _user_verified(data):
        raise BadInput("the passkey did not verify its user: ask with userVerification 'required'")
    if not point.verifies(_signed_by_authenticator(data, client), r, s):
        raise BadInput("the assertion is not signed by this passkey")
    return signature


def signed_by_passkey(signature: bytes, point: Point, digest: Hash32) -> bool:
    """Whether `signature`, in the form of WebAuthnOwner, is this passkey's over `digest`."""
    try:
        r, s, _, _, data, text = abi.decode(["bytes32", "bytes32", "uint256", "uint256", "bytes", "string"], signature)
        number, other = int.from_bytes(r), int.from_bytes(s)
        same = passkey_signature(data, text.encode(), number, other, digest) == signature
    except (BadInput, ValueError):
        return False
    return (
        same and _user_verified(data) and point.verifies(_signed_by_authenticator(data, text.encode()), number, other)
    )


def _user_verified(data: bytes) -> bool:
    return len(data) >= 37 and data[32] & _UP_AND_UV == _UP_AND_UV


def _signed_by_authenticator(data: bytes, client: bytes) -> Hash32:
    """Source: WebAuthn level 3, 6.3.3."""
    return hashlib.sha256(data + hashlib.sha256(client).digest()).digest()


def request(digest: Hash32) -> dict[str, Any]:
    """The options of `navigator.credentials.get` by which a page asks a passkey for its signature (JSON form)."""
    challenge = base64.urlsafe_b64encode(digest).rstrip(b"=").decode()
    return {"publicKey": {"challenge": challenge, "userVerification": "required"}}
