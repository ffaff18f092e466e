"""Digests against eth_account's own EIP-712 encoder; envelopes against the bytes RiskValidator reads."""

from __future__ import annotations

from typing import Any

import pytest
from eth_account import Account
from eth_account.messages import _hash_eip191_message, encode_typed_data
from hypothesis import given
from hypothesis import strategies as st

from contracts.errors import InvalidFields
from contracts.types import checksum, keccak
from policies.attestation import (
    ATTESTATION_LENGTH,
    DUMMY_ATTESTED_SIGNATURE,
    Attestation,
    IntentApproval,
    SignedApproval,
    SignerApproval,
    attestation_digest,
    decode_attested_envelope,
    decode_escape_envelope,
    decode_quorum_envelope,
    decode_session_envelope,
    dummy_quorum_signature,
    encode_attestation,
    encode_attested_envelope,
    encode_escape_envelope,
    encode_quorum_envelope,
    encode_session_envelope,
    escape_digest,
    merkle_leaf,
    merkle_root_digest,
    on_chain_id,
    quorum_id,
    recover_signer,
)
from tests.policies.rig import address

MODULE, CHAIN = address("module"), 1337
SIGNATURE = bytes(range(65))
ATTESTATION = Attestation(
    account=address("account"),
    entry_point=address("entry point"),
    user_op_hash=keccak(b"op"),
    intent_hash=keccak(b"intent"),
    policy_id=keccak(b"policy"),
    policy_epoch=3,
    facts_hash=keccak(b"facts"),
    decision=1,
    valid_after_s=0,
    valid_until_s=1_700_000_000,
)
APPROVAL = IntentApproval(
    address("account"), keccak(b"intent"), keccak(b"policy"), 3, keccak(b"facts"), 1, 1_700_000_000
)


def foreign(
    name: str, primary: str, members: str, message: dict[str, Any], domain: dict[str, Any] | None = None
) -> bytes:
    """eth_account's digest of a struct given as in Solidity."""
    types = [dict(zip(("type", "name"), m.split(" "), strict=True)) for m in members.split(",")]
    bound = {"chainId": CHAIN, "verifyingContract": checksum(MODULE)} if domain is None else domain
    full = {
        "types": {
            "EIP712Domain": [
                {"name": key, "type": kind}
                for key, kind in (
                    ("name", "string"),
                    ("version", "string"),
                    ("chainId", "uint256"),
                    ("verifyingContract", "address"),
                )
                if key in ("name", "version") or key in bound
            ],
            primary: types,
        },
        "primaryType": primary,
        "domain": {"name": name, "version": "1"} | bound,
        "message": message,
    }
    return bytes(_hash_eip191_message(encode_typed_data(full_message=full)))


def test_the_attestation_digest_is_eip_712() -> None:
    members = (
        "address account,address entryPoint,bytes32 userOpHash,bytes32 intentHash,bytes32 policyId,uint64 policyEpoch,"
        "bytes32 factsHash,uint8 decision,bytes32 quorumId,uint48 validAfter,uint48 validUntil"
    )
    a = ATTESTATION
    message = {
        "account": checksum(a.account), "entryPoint": checksum(a.entry_point), "userOpHash": a.user_op_hash,
        "intentHash": a.intent_hash, "policyId": a.policy_id, "policyEpoch": a.policy_epoch, "factsHash": a.facts_hash,
        "decision": a.decision, "quorumId": a.quorum_id, "validAfter": a.valid_after_s, "validUntil": a.valid_until_s,
    }  # fmt: skip
    expected = foreign("Seawall RiskValidator", "Attestation", members, message)
    assert attestation_digest(a, CHAIN, MODULE) == a.digest(CHAIN, MODULE) == expected
    assert expected.hex() == "b6dab547e06e25d78fb6cd446504308662253f70ef577a0677dc896d26cfbea3"


def test_the_intent_approval_digest_is_eip_712() -> None:
    members = "address account,bytes32 intentHash,bytes32 policyId,uint64 policyEpoch,bytes32 factsHash,uint8 decision,uint48 validUntil"
    a = APPROVAL
    message = {
        "account": checksum(a.account), "intentHash": a.intent_hash, "policyId": a.policy_id, "policyEpoch": a.policy_epoch,
        "factsHash": a.facts_hash, "decision": a.decision, "validUntil": a.valid_until_s,
    }  # fmt: skip
    assert a.digest(CHAIN, MODULE) == foreign("Seawall Engine", "IntentApproval", members, message)
    assert a.digest(CHAIN, MODULE).hex() == "c8cf0d631a83ab0a0ccee0db5b21709780eb5846e36ed6db523dd0423134a6ee"


def test_the_signer_approval_digest_is_eip_712() -> None:
    members = (
        "address account,address entryPoint,bytes32 intentHash,bytes32 policyId,uint64 policyEpoch,uint48 validUntil"
    )
    a = SignerApproval(address("account"), address("entry point"), keccak(b"intent"), keccak(b"policy"), 3, 99)
    message = {
        "account": checksum(a.account), "entryPoint": checksum(a.entry_point), "intentHash": a.intent_hash,
        "policyId": a.policy_id, "policyEpoch": 3, "validUntil": 99,
    }  # fmt: skip
    assert a.digest(CHAIN, MODULE) == foreign("Seawall RiskValidator", "SignerApproval", members, message)


def test_the_quorums_of_an_operation_have_one_name_in_any_order() -> None:
    desk, board = on_chain_id("desk"), on_chain_id("board")
    assert desk == keccak(b"seawall.quorum.desk")
    assert quorum_id(["desk"]) == desk
    assert (
        quorum_id(["desk", "board"]) == quorum_id(["board", "desk", "board"]) == keccak(b"".join(sorted([desk, board])))
    )
    for names in ([], [str(i) for i in range(9)]):
        with pytest.raises(InvalidFields, match="1 to 8 quorums"):
            quorum_id(names)


@given(
    st.lists(st.text(min_size=1, max_size=5), min_size=1, max_size=8, unique=True),
    st.lists(
        st.builds(
            SignedApproval,
            st.binary(min_size=20, max_size=20),
            st.integers(0, 2**48 - 1),
            st.binary(min_size=65, max_size=65),
        ),
        max_size=6,
        unique_by=lambda a: a.signer,
    ),
    st.binary(min_size=1, max_size=5),
)
def test_a_quorums_envelope_comes_back_and_takes_no_other_length(
    names: list[str], approvals: list[SignedApproval], trailing: bytes
) -> None:
    attestation = encode_attestation(ATTESTATION, address("engine"), SIGNATURE)
    envelope = encode_quorum_envelope(SIGNATURE, [attestation], names, approvals, [keccak(b"sibling")])
    found = decode_quorum_envelope(envelope)
    assert found.quorums == tuple(sorted(map(on_chain_id, names)))
    assert found.approvals == tuple(sorted(approvals, key=lambda a: a.signer))
    assert found.attested.proof == (keccak(b"sibling"),)
    for other in (envelope + trailing, envelope[: -len(trailing)]):
        with pytest.raises(InvalidFields):
            decode_quorum_envelope(other)
    with pytest.raises(InvalidFields):
        decode_attested_envelope(envelope)


def test_a_signer_approves_once_and_the_stub_has_the_size_of_the_real_thing() -> None:
    one = SignedApproval(address("a"), 0, SIGNATURE)
    with pytest.raises(InvalidFields, match="once"):
        encode_quorum_envelope(SIGNATURE, [], ["desk"], [one, one])
    with pytest.raises(InvalidFields, match="signature of 65"):
        encode_quorum_envelope(SIGNATURE, [], ["desk"], [SignedApproval(address("a"), 0, b"short")])
    attestation = encode_attestation(ATTESTATION, address("engine"), SIGNATURE)
    real = encode_quorum_envelope(SIGNATURE, [attestation], ["desk"], [one])
    assert len(dummy_quorum_signature(["desk"], [address("a")])) == len(real)


def test_escape_and_merkle_root_are_eip_712() -> None:
    message = {"account": checksum(address("account")), "nonce": 4, "expiry": 99}
    escape = foreign("Seawall RiskValidator", "Escape", "address account,uint256 nonce,uint48 expiry", message)
    assert escape_digest(address("account"), 4, 99, CHAIN, MODULE) == escape
    root = keccak(b"root")
    assert merkle_root_digest(root) == foreign(
        "Seawall RiskValidator", "MerkleRoot", "bytes32 root", {"root": root}, {}
    )


def test_a_merkle_leaf_binds_chain_entry_point_module_and_operation() -> None:
    entry_point, op = address("entry point"), keccak(b"op")
    words = CHAIN.to_bytes(32) + bytes(12) + entry_point + bytes(12) + MODULE + op
    assert merkle_leaf(CHAIN, entry_point, MODULE, op) == keccak(words)


def test_the_signer_is_recovered_and_a_bent_signature_is_nobodys() -> None:
    account = Account.from_key(keccak(b"engine"))
    digest = APPROVAL.digest(CHAIN, MODULE)
    signed = account.unsafe_sign_hash(digest)
    signature = bytes(signed.signature)
    assert recover_signer(digest, signature) == bytes.fromhex(account.address[2:])
    order = 0xFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFEBAAEDCE6AF48A03BBFD25E8CD0364141
    high_s = signature[:32] + (order - signed.s).to_bytes(32) + bytes([27 + 28 - signature[64]])
    assert recover_signer(digest, high_s) is None
    assert recover_signer(digest, signature[:64]) is None
    assert recover_signer(digest, signature[:64] + b"\x00") is None
    assert recover_signer(digest, bytes(64) + b"\x1b") is None


def test_the_envelope_has_the_bytes_of_its_specification() -> None:
    packed = encode_attestation(ATTESTATION, address("engine"), SIGNATURE)
    a = ATTESTATION
    assert packed == (
        address("engine")
        + a.intent_hash
        + a.facts_hash
        + b"\x01"
        + bytes(32)
        + bytes(6)
        + (1_700_000_000).to_bytes(6)
        + SIGNATURE
    )
    assert len(packed) == ATTESTATION_LENGTH
    envelope = encode_attested_envelope(SIGNATURE, [packed], [keccak(b"sibling")])
    assert envelope == b"\x01" + b"\x00\x41" + SIGNATURE + b"\x01" + b"\x00\xc2" + packed + b"\x01" + keccak(b"sibling")


def test_attestations_are_put_in_ascending_order_and_an_engine_counts_once() -> None:
    low, high = sorted([address("engine 1"), address("engine 2")])
    first, second = (encode_attestation(ATTESTATION, engine, SIGNATURE) for engine in (high, low))
    engines = [
        a.engine for a in decode_attested_envelope(encode_attested_envelope(SIGNATURE, [first, second])).attestations
    ]
    assert engines == [low, high]
    with pytest.raises(InvalidFields, match="may attest once"):
        encode_attested_envelope(SIGNATURE, [first, first])
    ascending = encode_attested_envelope(SIGNATURE, [first, second])
    at = 1 + 2 + 65 + 1
    swapped = ascending[:at] + b"\x00\xc2" + first + b"\x00\xc2" + second + ascending[-1:]
    with pytest.raises(InvalidFields, match="ascending"):
        decode_attested_envelope(swapped)


@given(
    st.binary(max_size=300),
    st.lists(
        st.binary(min_size=ATTESTATION_LENGTH, max_size=ATTESTATION_LENGTH), max_size=4, unique_by=lambda a: a[:20]
    ),
    st.lists(st.binary(min_size=32, max_size=32), max_size=5),
)
def test_an_envelope_comes_back_as_it_went_in(owner: bytes, attestations: list[bytes], proof: list[bytes]) -> None:
    found = decode_attested_envelope(encode_attested_envelope(owner, attestations, proof))
    assert found.owner_signature == owner
    assert found.proof == tuple(proof)
    assert [a.engine for a in found.attestations] == [a[:20] for a in sorted(attestations)]


@given(st.binary(min_size=1, max_size=40))
def test_trailing_bytes_are_rejected_in_every_envelope(trailing: bytes) -> None:
    for decode, envelope in (
        (decode_attested_envelope, DUMMY_ATTESTED_SIGNATURE),
        (decode_session_envelope, encode_session_envelope(bytes(32), SIGNATURE)),
        (decode_escape_envelope, encode_escape_envelope(SIGNATURE)),
    ):
        with pytest.raises(InvalidFields):
            decode(envelope + trailing)


@given(st.integers(min_value=0, max_value=len(DUMMY_ATTESTED_SIGNATURE) - 1))
def test_a_cut_envelope_is_rejected(length: int) -> None:
    with pytest.raises(InvalidFields):
        decode_attested_envelope(DUMMY_ATTESTED_SIGNATURE[:length])


def test_session_and_escape_envelopes_come_back() -> None:
    session_id = keccak(b"session")
    assert encode_session_envelope(session_id, SIGNATURE) == b"\x02" + session_id + SIGNATURE
    assert decode_session_envelope(encode_session_envelope(session_id, SIGNATURE)) == (session_id, SIGNATURE)
    assert encode_escape_envelope(SIGNATURE) == b"\x03\x00\x41" + SIGNATURE
    assert decode_escape_envelope(encode_escape_envelope(SIGNATURE)) == SIGNATURE
    with pytest.raises(InvalidFields, match="0x01"):
        decode_attested_envelope(encode_escape_envelope(SIGNATURE))


def test_the_stub_has_the_size_of_a_real_signature() -> None:
    packed = encode_attestation(ATTESTATION, address("engine"), SIGNATURE)
    assert len(DUMMY_ATTESTED_SIGNATURE) == len(encode_attested_envelope(SIGNATURE, [packed]))


def test_the_stub_of_an_attested_signature_costs_no_less_call_data_than_a_real_one() -> None:
    from policies.attestation import DUMMY_ATTESTED_SIGNATURE, dummy_attested_signature

    assert dummy_attested_signature(1) == DUMMY_ATTESTED_SIGNATURE
    for engines in (1, 2, 3):
        found = decode_attested_envelope(dummy_attested_signature(engines, b"\xff" * 700))
        assert found.owner_signature == b"\xff" * 700
        assert len({one.engine for one in found.attestations}) == engines
        assert all(0 not in one.engine for one in found.attestations)
