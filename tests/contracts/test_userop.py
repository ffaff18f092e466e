"""UserOperation: its JSON form, its packing, what it may cost and what the engine decides over."""

from __future__ import annotations

from typing import Any

import pytest
from eth_abi.abi import encode
from hypothesis import given

from contracts.errors import InvalidFields
from contracts.types import checksum, keccak
from contracts.userop import LANE_ATTESTED, LANE_KEEPER, UserOperation, intent_hash, nonce_key, required_prefund
from tests.contracts.operations import DEPLOYING, PLAIN, SPONSORED, co_signed, operations


@given(operations())
def test_the_json_form_round_trips(op: UserOperation) -> None:
    assert UserOperation.from_rpc(op.to_rpc()) == op


def test_the_packed_fields_are_where_the_entry_point_reads_them() -> None:
    assert SPONSORED.account_gas_limits.hex() == f"{200_000:032x}{100_000:032x}"
    assert SPONSORED.gas_fees.hex() == f"{10**9:032x}{3 * 10**9:032x}"
    assert SPONSORED.init_code == (SPONSORED.factory or b"") + b"salt and config"
    assert SPONSORED.paymaster_and_data[20:52].hex() == f"{60_000:032x}{10_000:032x}"
    assert SPONSORED.paymaster_and_data[52:] == b"\x02" * 77
    assert PLAIN.init_code == PLAIN.paymaster_and_data == b""
    assert (SPONSORED.nonce_key, SPONSORED.nonce & (2**64 - 1)) == (7, 2)


@given(co_signed())
def test_the_json_form_has_the_paymasters_signature_beside_its_data(op: UserOperation) -> None:
    assert UserOperation.from_rpc(op.to_rpc()) == op
    assert UserOperation.from_rpc(op.to_rpc() | {"paymasterSignature": "0x"}) == op.replace(paymaster_signature=b"")
    assert op.paymaster_and_data.endswith(
        op.paymaster_data
        + op.paymaster_signature
        + len(op.paymaster_signature).to_bytes(2)
        + bytes.fromhex("22e325a297439656")
    )


def test_the_prefund_is_every_limit_times_the_fee() -> None:
    assert required_prefund(SPONSORED) == (200_000 + 100_000 + 50_000 + 60_000 + 10_000) * 3 * 10**9


def test_nulls_and_an_empty_factory_mean_none() -> None:
    fields: dict[str, Any] = PLAIN.to_rpc() | {
        "factory": "0x",
        "factoryData": "0x",
        "paymaster": None,
        "paymasterData": None,
    }
    assert UserOperation.from_rpc(fields) == PLAIN


def test_an_estimate_may_leave_gas_fees_and_signature_out() -> None:
    op = UserOperation.from_rpc({"sender": checksum(PLAIN.sender), "nonce": "0x1", "callData": "0x"}, partial=True)
    assert (op.call_gas_limit, op.max_fee_per_gas, op.signature) == (0, 0, b"")


@pytest.mark.parametrize("field", PLAIN.to_rpc())
def test_a_missing_field_is_named(field: str) -> None:
    fields = {name: value for name, value in PLAIN.to_rpc().items() if name != field}
    with pytest.raises(InvalidFields, match=f"missing UserOperation field '{field}'"):
        UserOperation.from_rpc(fields)


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"initCode": "0x"}, "v0.6"),
        ({"paymasterAndData": "0x"}, "v0.6"),
        ({"gas": "0x1"}, "gas"),
        ({"factoryData": "0x01"}, "without factory"),
        ({"paymasterData": "0x01"}, "without paymaster"),
        ({"paymasterPostOpGasLimit": "0x1"}, "without paymaster"),
        ({"paymasterSignature": "0x01"}, "without paymaster"),
        ({"paymaster": "0x" + "11" * 20, "paymasterSignature": "0x" + "11" * 65_536}, "paymasterSignature"),
        ({"paymaster": "0x" + "11" * 20, "paymasterSignature": "0x1"}, "paymasterSignature"),
        ({"callGasLimit": hex(2**128)}, "callGasLimit"),
        ({"maxFeePerGas": hex(2**128)}, "maxFeePerGas"),
        (
            {"paymaster": "0x" + "11" * 20, "paymasterVerificationGasLimit": hex(2**128)},
            "paymasterVerificationGasLimit",
        ),
        ({"nonce": "1"}, "nonce"),
        ({"sender": "0x12"}, "sender"),
        ({"factory": "0x12"}, "factory"),
        ({"factory": ["0x"]}, "factory"),
        ({"callData": "0x1"}, "callData"),
        ({"signature": 1}, "signature"),
    ],
)
def test_a_malformed_field_is_named(change: dict[str, Any], named: str) -> None:
    with pytest.raises(InvalidFields, match=named):
        UserOperation.from_rpc(PLAIN.to_rpc() | change)


@pytest.mark.parametrize("fields", [None, [], "0x", 1])
def test_what_is_no_object_is_refused(fields: object) -> None:
    with pytest.raises(InvalidFields, match="JSON object"):
        UserOperation.from_rpc(fields)


def test_the_nonce_key_is_validator_lane_and_index() -> None:
    assert nonce_key(b"\xaa" * 20, LANE_ATTESTED) == int("aa" * 20 + "01000000", 16)
    assert nonce_key(bytes(20), LANE_KEEPER, 5) == 0x02000005


@given(operations())
def test_the_intent_hash_is_the_typed_struct_of_the_brief_fields(op: UserOperation) -> None:
    """Against the plain codec and the type string of DECISIONS, "Attestation"."""
    type_hash = keccak(
        b"Intent(address account,uint256 nonce,bytes32 initCodeHash,bytes32 callDataHash,bytes32 accountGasLimits,"
        b"uint256 preVerificationGas,bytes32 gasFees)"
    )
    words = ["bytes32", "address", "uint256", "bytes32", "bytes32", "bytes32", "uint256", "bytes32"]
    limits = op.verification_gas_limit << 128 | op.call_gas_limit
    fees = op.max_priority_fee_per_gas << 128 | op.max_fee_per_gas
    values = [
        type_hash,
        checksum(op.sender),
        op.nonce,
        keccak(op.init_code),
        keccak(op.call_data),
        limits.to_bytes(32),
        op.pre_verification_gas,
        fees.to_bytes(32),
    ]
    assert intent_hash(op) == keccak(encode(words, values))


@given(operations())
def test_the_intent_hash_ignores_paymaster_and_signature_only(op: UserOperation) -> None:
    same = op.replace(paymaster=None, paymaster_data=b"", signature=b"other")
    assert intent_hash(same) == intent_hash(op)
    for change in (
        {"sender": bytes(20) if op.sender != bytes(20) else b"\1" * 20},
        {"nonce": op.nonce ^ 1},
        {"call_data": op.call_data + b"\0"},
        {"factory": op.factory or bytes(20), "factory_data": op.factory_data + b"\0"},
        {"call_gas_limit": op.call_gas_limit ^ 1},
        {"verification_gas_limit": op.verification_gas_limit ^ 1},
        {"pre_verification_gas": op.pre_verification_gas ^ 1},
        {"max_fee_per_gas": op.max_fee_per_gas ^ 1},
        {"max_priority_fee_per_gas": op.max_priority_fee_per_gas ^ 1},
    ):
        assert intent_hash(op.replace(**change)) != intent_hash(op)


def test_golden_intent_hashes() -> None:
    assert {name: intent_hash(op).hex() for name, op in (("plain", PLAIN), ("deploying", DEPLOYING))} == GOLDEN


GOLDEN = {
    "plain": "ba98c2a98274fc0f8b0e3028090678199edb24d026ae183d09e405bad86b4ec1",
    "deploying": "6548ba7c16bed2487a7171e9cd34aa84c7b1756ba028515a2b0edaa2104d0bd0",
}
"""Fixed on 2026-11-23; a change here breaks every approval that an engine has signed."""
