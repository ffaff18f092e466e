"""What an engine signs and how signatures travel: digests and envelopes, no keys.

Everything mirrors contracts/src/interfaces/IRiskValidator.sol and ISessionValidator.sol, whose comments are the specification.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass

from eth_keys.datatypes import Signature
from eth_keys.exceptions import BadSignature
from eth_utils.exceptions import ValidationError

from contracts import abi
from contracts.errors import InvalidFields
from contracts.typed_data import digest, domain_separator, domain_separator_anywhere, struct_hash
from contracts.types import Address, Hash32, keccak
from policies.policy import MAX_QUORUMS

TYPE_ATTESTED, TYPE_SESSION, TYPE_ESCAPE, TYPE_QUORUM = 0x01, 0x02, 0x03, 0x04
"""First byte of an operation's signature."""
NO_QUORUM: Hash32 = bytes(32)
SIGNATURE_LENGTH = 65
ATTESTATION_LENGTH = 20 + 32 + 32 + 1 + 32 + 6 + 6 + SIGNATURE_LENGTH
APPROVAL_LENGTH = 20 + 6 + SIGNATURE_LENGTH
MAX_PROOF = 32
"""Levels of a Merkle tree of operations that the chain accepts."""

_ATTESTATION = (
    "Attestation(address account,address entryPoint,bytes32 userOpHash,bytes32 intentHash,bytes32 policyId,"
    "uint64 policyEpoch,bytes32 factsHash,uint8 decision,bytes32 quorumId,uint48 validAfter,uint48 validUntil)"
)
_APPROVAL = (
    "IntentApproval(address account,bytes32 intentHash,bytes32 policyId,uint64 policyEpoch,bytes32 factsHash,"
    "uint8 decision,uint48 validUntil)"
)
_HALF_ORDER = 0x7FFFFFFFFFFFFFFFFFFFFFFFFFFFFFFF5D576E7357A4501DDFE92F46681B20A0


@dataclass(frozen=True, slots=True)
class Attestation:
    """One engine's verdict on one final operation. Times in unix seconds; `decision` is IRiskValidator.Decision.

    `user_op_hash` is what the account hands its validator: the entry point's hash on v0.8 and v0.9, the account's EIP-712 wrap of
    it on v0.7 (`wallet.account.signable_hash`).
    """

    account: Address
    entry_point: Address
    user_op_hash: Hash32
    intent_hash: Hash32
    policy_id: Hash32
    policy_epoch: int
    facts_hash: Hash32
    decision: int
    valid_after_s: int
    valid_until_s: int
    quorum_id: Hash32 = NO_QUORUM

    def digest(self, chain_id: int, risk_validator: Address) -> Hash32:
        """What the engine signs: EIP-712 under ("Seawall RiskValidator", "1", chain id, module)."""
        return attestation_digest(self, chain_id, risk_validator)

    def encode(self, engine: Address, signature: bytes) -> bytes:
        """The packed form that travels in the envelope."""
        return encode_attestation(self, engine, signature)


def attestation_digest(attestation: Attestation, chain_id: int, risk_validator: Address) -> Hash32:
    """What the engine signs: EIP-712 Attestation under ("Seawall RiskValidator", "1", chain id, module)."""
    a = attestation
    struct = struct_hash(
        _ATTESTATION,
        [
            "address",
            "address",
            "bytes32",
            "bytes32",
            "bytes32",
            "uint64",
            "bytes32",
            "uint8",
            "bytes32",
            "uint48",
            "uint48",
        ],
        [
            a.account,
            a.entry_point,
            a.user_op_hash,
            a.intent_hash,
            a.policy_id,
            a.policy_epoch,
            a.facts_hash,
            a.decision,
            a.quorum_id,
            a.valid_after_s,
            a.valid_until_s,
        ],
    )
    return digest(domain_separator("Seawall RiskValidator", "1", chain_id, risk_validator), struct)


def encode_attestation(attestation: Attestation, engine: Address, signature: bytes) -> bytes:
    """engine || intentHash || factsHash || decision || quorumId || validAfter || validUntil || signature. Raises InvalidFields."""
    if len(signature) != SIGNATURE_LENGTH:
        raise InvalidFields(f"an engine's signature has {SIGNATURE_LENGTH} bytes, got {len(signature)}")
    if len(engine) != 20:
        raise InvalidFields(f"an engine is an address of 20 bytes, got {len(engine)}")
    return (
        engine
        + attestation.intent_hash
        + attestation.facts_hash
        + bytes([attestation.decision])
        + attestation.quorum_id
        + attestation.valid_after_s.to_bytes(6)
        + attestation.valid_until_s.to_bytes(6)
        + signature
    )


def _prefixed(data: bytes) -> bytes:
    if len(data) >> 16:
        raise InvalidFields(f"at most 65535 bytes fit behind a two-byte length, got {len(data)}")
    return len(data).to_bytes(2) + data


def encode_attested_envelope(
    owner_signature: bytes, attestations: Sequence[bytes], proof: Sequence[Hash32] = ()
) -> bytes:
    """Signature of an operation in the attested lane. `attestations` are encoded ones; they are put in ascending order of engine.

    Raises InvalidFields for a malformed attestation, two of one engine, or a proof that is too long.
    """
    return bytes([TYPE_ATTESTED]) + _attested_body(owner_signature, attestations, proof)


def _attested_body(owner_signature: bytes, attestations: Sequence[bytes], proof: Sequence[Hash32]) -> bytes:
    ordered = sorted(attestations)
    engines = [a[:20] for a in ordered]
    if any(len(a) != ATTESTATION_LENGTH for a in ordered):
        raise InvalidFields(f"an attestation has {ATTESTATION_LENGTH} bytes")
    if len(set(engines)) != len(engines) or len(ordered) > 255:
        raise InvalidFields("an engine may attest once")
    if len(proof) > MAX_PROOF or any(len(word) != 32 for word in proof):
        raise InvalidFields(f"a proof has at most {MAX_PROOF} words of 32 bytes")
    body = b"".join(_prefixed(a) for a in ordered)
    return _prefixed(owner_signature) + bytes([len(ordered)]) + body + bytes([len(proof)]) + b"".join(proof)


# -- what a quorum's signers sign ----------------------------------------------------------------------------------------------

_SIGNER_APPROVAL = "SignerApproval(address account,address entryPoint,bytes32 intentHash,bytes32 policyId,uint64 policyEpoch,uint48 validUntil)"


@dataclass(frozen=True, slots=True)
class SignerApproval:
    """One person's yes to one intent under one policy. `valid_until_s` in unix seconds, 0: without end."""

    account: Address
    entry_point: Address
    intent_hash: Hash32
    policy_id: Hash32
    policy_epoch: int
    valid_until_s: int

    def digest(self, chain_id: int, risk_validator: Address) -> Hash32:
        """What the signer signs: EIP-712 under ("Seawall RiskValidator", "1", chain id, module)."""
        struct = struct_hash(
            _SIGNER_APPROVAL,
            ["address", "address", "bytes32", "bytes32", "uint64", "uint48"],
            [
                self.account,
                self.entry_point,
                self.intent_hash,
                self.policy_id,
                self.policy_epoch,
                self.valid_until_s,
            ],
        )
        return digest(domain_separator("Seawall RiskValidator", "1", chain_id, risk_validator), struct)


@dataclass(frozen=True, slots=True)
class SignedApproval:
    """An approval as it travels; the other fields come from the operation and the chain."""

    signer: Address
    valid_until_s: int
    signature: bytes


def quorum_id(names: Sequence[str]) -> Hash32:
    """What an attestation calls the quorums of a policy that an operation needs: the id of one, else the hash of all ids, ascending.

    Raises InvalidFields for none, or for more than the chain takes.
    """
    ids = sorted({on_chain_id(name) for name in names})
    if not 1 <= len(ids) <= MAX_QUORUMS:
        raise InvalidFields(f"an operation may need 1 to {MAX_QUORUMS} quorums, got {len(ids)}")
    return ids[0] if len(ids) == 1 else keccak(b"".join(ids))


def on_chain_id(name: str) -> Hash32:
    """What RiskValidator calls the quorum that a policy's `approvals` names so."""
    return keccak(b"seawall.quorum." + name.encode())


def encode_quorum_envelope(
    owner_signature: bytes,
    attestations: Sequence[bytes],
    names: Sequence[str],
    approvals: Sequence[SignedApproval],
    proof: Sequence[Hash32] = (),
) -> bytes:
    """Signature of an operation that needed signers: the attested envelope, then the quorums and their approvals. Raises InvalidFields."""
    quorum_id(names)
    ids = sorted({on_chain_id(name) for name in names})
    ordered = sorted(approvals, key=lambda a: a.signer)
    if len({a.signer for a in ordered}) != len(ordered) or len(ordered) > 255:
        raise InvalidFields("a signer may approve once")
    if any(len(a.signer) != 20 or len(a.signature) != SIGNATURE_LENGTH for a in ordered):
        raise InvalidFields(f"an approval is an address, a time and a signature of {SIGNATURE_LENGTH} bytes")
    return (
        bytes([TYPE_QUORUM])
        + _attested_body(owner_signature, attestations, proof)
        + bytes([len(ids)])
        + b"".join(ids)
        + bytes([len(ordered)])
        + b"".join(a.signer + a.valid_until_s.to_bytes(6) + a.signature for a in ordered)
    )


@dataclass(frozen=True, slots=True)
class PackedAttestation:
    """One attestation as an envelope carries it; the other fields of the signed struct come from chain and operation."""

    engine: Address
    intent_hash: Hash32
    facts_hash: Hash32
    decision: int
    quorum_id: Hash32
    valid_after_s: int
    valid_until_s: int
    signature: bytes


@dataclass(frozen=True, slots=True)
class AttestedEnvelope:
    """A decoded signature of the attested lane."""

    owner_signature: bytes
    attestations: tuple[PackedAttestation, ...]
    proof: tuple[Hash32, ...]


class _Reader:
    """Takes bytes off the front, and minds the end."""

    def __init__(self, data: bytes) -> None:
        self.data = data
        self.at = 0

    def take(self, length: int, what: str) -> bytes:
        if self.at + length > len(self.data):
            raise InvalidFields(f"the signature ends within its {what}")
        self.at += length
        return self.data[self.at - length : self.at]

    def prefixed(self, what: str) -> bytes:
        return self.take(int.from_bytes(self.take(2, what)), what)

    def end(self) -> None:
        if self.at != len(self.data):
            raise InvalidFields(f"the signature has {len(self.data) - self.at} trailing bytes")


def _kind(reader: _Reader, kind: int, name: str) -> None:
    if reader.take(1, "type") != bytes([kind]):
        raise InvalidFields(f"not {name}: its first byte must be 0x{kind:02x}")


@dataclass(frozen=True, slots=True)
class QuorumEnvelope:
    """A decoded signature of an operation that needed signers. `quorums` are ids on chain."""

    attested: AttestedEnvelope
    quorums: tuple[Hash32, ...]
    approvals: tuple[SignedApproval, ...]


def decode_quorum_envelope(signature: bytes) -> QuorumEnvelope:
    """The parts of such a signature, checked as RiskValidator checks them. Raises InvalidFields, also for trailing bytes."""
    reader = _Reader(signature)
    _kind(reader, TYPE_QUORUM, "a signature with a quorum")
    attested = _decode_attested(reader)
    count = reader.take(1, "quorum count")[0]
    if not 1 <= count <= MAX_QUORUMS:
        raise InvalidFields(f"an operation may need 1 to {MAX_QUORUMS} quorums, got {count}")
    quorums = tuple(reader.take(32, "quorum id") for _ in range(count))
    approvals = tuple(
        SignedApproval(
            reader.take(20, "signer"),
            int.from_bytes(reader.take(6, "approval")),
            reader.take(SIGNATURE_LENGTH, "approval"),
        )
        for _ in range(reader.take(1, "approval count")[0])
    )
    reader.end()
    if any(later <= earlier for earlier, later in itertools.pairwise(quorums)):
        raise InvalidFields("quorums must stand in strictly ascending order")
    if any(later.signer <= earlier.signer for earlier, later in itertools.pairwise(approvals)):
        raise InvalidFields("signers must stand in strictly ascending order")
    return QuorumEnvelope(attested, quorums, approvals)


def decode_attested_envelope(signature: bytes) -> AttestedEnvelope:
    """The parts of an attested signature, checked as RiskValidator checks them. Raises InvalidFields, also for trailing bytes."""
    reader = _Reader(signature)
    _kind(reader, TYPE_ATTESTED, "an attested signature")
    found = _decode_attested(reader)
    reader.end()
    return found


def _decode_attested(reader: _Reader) -> AttestedEnvelope:
    owner_signature = reader.prefixed("owner signature")
    packed = [reader.prefixed("attestation") for _ in range(reader.take(1, "attestation count")[0])]
    words = reader.take(1, "proof length")[0]
    if words > MAX_PROOF:
        raise InvalidFields(f"a proof has at most {MAX_PROOF} words, got {words}")
    proof = tuple(reader.take(32, "proof") for _ in range(words))
    if any(len(a) != ATTESTATION_LENGTH for a in packed):
        raise InvalidFields(f"an attestation has {ATTESTATION_LENGTH} bytes")
    attestations = tuple(_unpack(a) for a in packed)
    engines = [a.engine for a in attestations]
    if any(later <= earlier for earlier, later in itertools.pairwise(engines)):
        raise InvalidFields("engines must stand in strictly ascending order")
    return AttestedEnvelope(owner_signature, attestations, proof)


def _unpack(data: bytes) -> PackedAttestation:
    return PackedAttestation(
        engine=data[:20],
        intent_hash=data[20:52],
        facts_hash=data[52:84],
        decision=data[84],
        quorum_id=data[85:117],
        valid_after_s=int.from_bytes(data[117:123]),
        valid_until_s=int.from_bytes(data[123:129]),
        signature=data[129:],
    )


def encode_session_envelope(session_id: Hash32, signature: bytes) -> bytes:
    """Signature of an operation in the keeper lane.   Source: ISessionValidator. Raises InvalidFields."""
    if len(session_id) != 32 or len(signature) != SIGNATURE_LENGTH:
        raise InvalidFields("a session signature is a 32-byte session id and a 65-byte signature")
    return bytes([TYPE_SESSION]) + session_id + signature


def decode_session_envelope(signature: bytes) -> tuple[Hash32, bytes]:
    """(session id, signature). Raises InvalidFields, also for trailing bytes."""
    reader = _Reader(signature)
    _kind(reader, TYPE_SESSION, "a session signature")
    found = reader.take(32, "session id"), reader.take(SIGNATURE_LENGTH, "signature")
    reader.end()
    return found


def encode_escape_envelope(owner_signature: bytes) -> bytes:
    """Signature of an operation in the escape lane."""
    return bytes([TYPE_ESCAPE]) + _prefixed(owner_signature)


def decode_escape_envelope(signature: bytes) -> bytes:
    """The owner's signature. Raises InvalidFields, also for trailing bytes."""
    reader = _Reader(signature)
    _kind(reader, TYPE_ESCAPE, "an escape signature")
    owner_signature = reader.prefixed("owner signature")
    reader.end()
    return owner_signature


def escape_digest(account: Address, nonce: int, expiry_s: int, chain_id: int, risk_validator: Address) -> Hash32:
    """What the owner signs to announce an escape: EIP-712 Escape of RiskValidator."""
    struct = struct_hash(
        "Escape(address account,uint256 nonce,uint48 expiry)",
        ["address", "uint256", "uint48"],
        [account, nonce, expiry_s],
    )
    return digest(domain_separator("Seawall RiskValidator", "1", chain_id, risk_validator), struct)


# -- operations signed together ---------------------------------------------------------------------------------------------


def merkle_leaf(chain_id: int, entry_point: Address, risk_validator: Address, user_op_hash: Hash32) -> Hash32:
    """keccak256(abi.encode(chainid, entryPoint, module, userOpHash))."""
    return keccak(
        abi.encode(["uint256", "address", "address", "bytes32"], [chain_id, entry_point, risk_validator, user_op_hash])
    )


def merkle_root_digest(root: Hash32) -> Hash32:
    """What the owner signs for every operation below `root`; leaves bind chain and contract, so the domain does not."""
    separator = domain_separator_anywhere("Seawall RiskValidator", "1")
    return digest(separator, struct_hash("MerkleRoot(bytes32 root)", ["bytes32"], [root]))


# -- the approval a paymaster asks for -----------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class IntentApproval:
    """An engine's word on an intent, before paymaster data and so the final hash exist. `valid_until_s` in unix seconds."""

    account: Address
    intent_hash: Hash32
    policy_id: Hash32
    policy_epoch: int
    facts_hash: Hash32
    decision: int
    valid_until_s: int

    def digest(self, chain_id: int, risk_validator: Address) -> Hash32:
        """What the engine signs: EIP-712 under ("Seawall Engine", "1", chain id, RiskValidator)."""
        types = ["address", "bytes32", "bytes32", "uint64", "bytes32", "uint8", "uint48"]
        values = [
            self.account,
            self.intent_hash,
            self.policy_id,
            self.policy_epoch,
            self.facts_hash,
            self.decision,
            self.valid_until_s,
        ]
        return digest(
            domain_separator("Seawall Engine", "1", chain_id, risk_validator), struct_hash(_APPROVAL, types, values)
        )


def recover_signer(message_digest: Hash32, signature: bytes) -> Address | None:
    """Who signed `message_digest` (r || s || v, v 27 or 28); None when the signature is malformed or its s is high."""
    if len(signature) != SIGNATURE_LENGTH or signature[64] not in (27, 28):
        return None
    try:
        parsed = Signature(signature[:64] + bytes([signature[64] - 27]))
        if parsed.s > _HALF_ORDER:
            return None
        return parsed.recover_public_key_from_msg_hash(message_digest).to_canonical_address()
    except (BadSignature, ValidationError):
        return None


_STUB = bytes.fromhex("ff" * 31 + "f0" + "7a" * 32 + "1c")
_STUB_ATTESTATION = b"\xff" * (ATTESTATION_LENGTH - SIGNATURE_LENGTH) + _STUB
DUMMY_ATTESTED_SIGNATURE = encode_attested_envelope(_STUB, [_STUB_ATTESTATION])
"""An attested signature of the usual size (one engine, no proof) for gas estimates: costs what a real one costs."""


def _stubs(engines: int) -> list[bytes]:
    return [((1 << 160) - 1 - i).to_bytes(20) + _STUB_ATTESTATION[20:] for i in range(engines)]


def dummy_attested_signature(engines: int, owner_signature: bytes = _STUB) -> bytes:
    """As DUMMY_ATTESTED_SIGNATURE, of several engines, or with an owner's signature of another kind."""
    return encode_attested_envelope(owner_signature, _stubs(engines))


def dummy_quorum_signature(names: Sequence[str], signers: Sequence[Address], engines: int = 1) -> bytes:
    """A signature of the size and the costs of a real one by `signers`, for gas estimates. Raises InvalidFields."""
    approvals = [SignedApproval(signer, 2**47 - 1, _STUB) for signer in signers]
    return encode_quorum_envelope(_STUB, _stubs(engines), names, approvals)
