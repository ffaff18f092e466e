"""Hashing and packing against the real entry points on anvil, and against eth-account's independent typed data."""

from __future__ import annotations

from typing import Any

import pytest
from eth_abi.abi import encode
from eth_account.messages import _hash_eip191_message, encode_typed_data
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from contracts.devnet import Devnet
from contracts.entrypoint import ENTRY_POINTS, V07, V08, V09, EntryPoint, FailedOp, by_address, decode_failed_op
from contracts.entrypoint.base import FAILED_OP, FAILED_OP_WITH_REVERT, GET_USER_OP_HASH, HANDLE_OPS, unpack
from contracts.errors import InvalidFields, RpcError
from contracts.types import checksum, keccak
from contracts.userop import UserOperation
from tests.contracts.operations import CO_SIGNED, DEPLOYING, PLAIN, SPONSORED, co_signed, operations

GOLDEN = {
    ("v0.7", 1337, "plain"): "29dbeee46044b14a3152e6c09630cd1307514e6392f0d1d64429c9e3fb8c4381",
    ("v0.7", 1337, "deploying"): "42b158d5e0a4af76e93dd1f1fd13d57960f98144d243637f0501bac5b272ccfd",
    ("v0.7", 1337, "sponsored"): "bc21f04a8843a6f0f3a104c21af4dad668bc6fe0f3065e4b6250de3f52a7b0b7",
    ("v0.8", 1337, "plain"): "53b086dbbd955ebe1199c507ebc01ba10e7c6cc00933b73f00f9193771bcbb33",
    ("v0.8", 1337, "deploying"): "5c9bd84b20b9609381b07586cd4235e5efd143c87c48ebdeb4d2759b367cfdc3",
    ("v0.8", 1337, "sponsored"): "20f9a09762cfed7ccf518e016d942a405292ff814b3c8caa2f7cfe91b6858740",
    ("v0.7", 1, "plain"): "bbc38e98b3a51d1253895af9dac06d95b9467eeda3b444cdecbd2f2a794c663a",
    ("v0.8", 1, "plain"): "111d499dba1a3f36d56ef88ba23f4fdcfb63e459fbc12a7721cd88868a738e60",
    ("v0.7", 1, "deploying"): "b14a8a37035003106413a6c1995ecdd5957b96a80549d51de8de84000e14fb58",
    ("v0.8", 1, "deploying"): "adaf6c36e0ee5f2282d1677236bf0b596dca8bb4bae9eec0f38b1d22bd1e6103",
    ("v0.7", 1, "sponsored"): "cc40a37e27be60847a3683827cf92b1f6cdd9c467c3db3256b544bf81a6ad6e1",
    ("v0.8", 1, "sponsored"): "b53547fc6eb99c22d950c6a3dd5cdf240060e772f8500fe840c2333794d834e0",
    ("v0.7", 1337, "co-signed"): "a36f97354ffaf126866a69938c7b5655d25111e9c40901ed438c61f29e9a5e08",
    ("v0.8", 1337, "co-signed"): "61b7a8bd4fa825e4e7405ab4fb2acc832045e0d2407afd606ccc62edf0f2e2bc",
    ("v0.9", 1337, "plain"): "76b348834c004514cd4e4cbe0e7afa40fe90620965b72befc18c75da9d110e14",
    ("v0.9", 1337, "deploying"): "f61a65fe74713da32565f2d10b1210bdbd8b5f7504074c4183487441965def28",
    ("v0.9", 1337, "sponsored"): "e7df7bfa4922f7a806615191155da0a496d1645777ecedb117f15ebeb835b7c9",
    ("v0.9", 1337, "co-signed"): "155de7c5655da71f85dab936ad66bf258f9fde8ee19b4daf8f7bbea8e59ef9a1",
    ("v0.9", 1, "plain"): "55daec08456de682becef9fcf9f639e848c3646a3d956405d720a8049535a31e",
    ("v0.9", 1, "deploying"): "998170dd97575cbb5344fc418fb3ebedad8ad1c34639660d183071d7039173dc",
    ("v0.9", 1, "sponsored"): "eee4e4e8641c6dacb4ca1fdc043601b188ee1f98481e43cdd43729474024ba87",
}
"""What the entry points' own getUserOpHash answered on anvil (chain 1337); chain 1 through eth-account and eth-abi."""
NAMED = {"plain": PLAIN, "deploying": DEPLOYING, "sponsored": SPONSORED, "co-signed": CO_SIGNED}


def by_eth_account(op: UserOperation, chain_id: int, entry_point: EntryPoint = V08) -> bytes:
    """v0.8's and, without a paymaster's signature, v0.9's hash as a wallet would compute it from EIP-712 JSON."""
    fields = [
        *("sender address", "nonce uint256", "initCode bytes", "callData bytes", "accountGasLimits bytes32"),
        *("preVerificationGas uint256", "gasFees bytes32", "paymasterAndData bytes"),
    ]
    names = [field.split()[0] for field in fields]
    message: dict[str, Any] = dict(zip(names, entry_point.pack(op)[:8], strict=True)) | {"sender": checksum(op.sender)}
    domain = ("name string", "version string", "chainId uint256", "verifyingContract address")
    typed = {
        "types": {
            "EIP712Domain": [dict(zip(("name", "type"), d.split(), strict=True)) for d in domain],
            "PackedUserOperation": [dict(zip(("name", "type"), f.split(), strict=True)) for f in fields],
        },
        "primaryType": "PackedUserOperation",
        "domain": {
            "name": "ERC4337",
            "version": "1",
            "chainId": chain_id,
            "verifyingContract": checksum(entry_point.address),
        },
        "message": message,
    }
    return bytes(_hash_eip191_message(encode_typed_data(full_message=typed)))


def by_eth_abi(op: UserOperation, chain_id: int) -> bytes:
    """v0.7's hash in plain words of the specification."""
    words = ["address", "uint256", "bytes32", "bytes32", "bytes32", "uint256", "bytes32", "bytes32"]
    sender, nonce, init_code, call_data, limits, gas, fees, paymaster, _ = V07.pack(op)
    values = [checksum(sender), nonce, keccak(init_code), keccak(call_data), limits, gas, fees, keccak(paymaster)]
    outer = [keccak(encode(words, values)), checksum(V07.address), chain_id]
    return keccak(encode(["bytes32", "address", "uint256"], outer))


@pytest.mark.parametrize(("version", "chain_id", "name"), GOLDEN)
def test_golden_hashes(version: str, chain_id: int, name: str) -> None:
    assert ENTRY_POINTS[version].user_op_hash(NAMED[name], chain_id).hex() == GOLDEN[version, chain_id, name]


@pytest.mark.parametrize("version", ENTRY_POINTS)
@pytest.mark.parametrize("name", NAMED)
async def test_the_golden_hashes_are_what_the_entry_point_answers(devnet: Devnet, version: str, name: str) -> None:
    entry_point = ENTRY_POINTS[version]
    call_data = GET_USER_OP_HASH.encode(entry_point.pack(NAMED[name]))
    (answer,) = GET_USER_OP_HASH.decode(await devnet.rpc.eth_call(entry_point.address, call_data))
    assert answer.hex() == GOLDEN[version, devnet.chain_id, name]


@pytest.mark.parametrize("version", ENTRY_POINTS)
@given(op=operations())
@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
async def test_any_operation_hashes_as_on_chain(devnet: Devnet, version: str, op: UserOperation) -> None:
    entry_point = ENTRY_POINTS[version]
    call_data = GET_USER_OP_HASH.encode(entry_point.pack(op))
    (answer,) = GET_USER_OP_HASH.decode(await devnet.rpc.eth_call(entry_point.address, call_data))
    assert entry_point.user_op_hash(op, devnet.chain_id) == answer


@given(operations())
def test_any_operation_hashes_as_foreign_code_says(op: UserOperation) -> None:
    assert V08.user_op_hash(op, 10) == by_eth_account(op, 10)
    assert V07.user_op_hash(op, 10) == by_eth_abi(op, 10)
    assert V09.user_op_hash(op, 10) == by_eth_account(op, 10, V09)


@given(op=co_signed())
@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
async def test_any_paymasters_signature_is_left_out_of_the_hash_as_on_chain(devnet: Devnet, op: UserOperation) -> None:
    answer = await devnet.rpc.eth_call(V09.address, GET_USER_OP_HASH.encode(V09.pack(op)))
    assert V09.user_op_hash(op, devnet.chain_id) == answer
    assert V09.user_op_hash(op.replace(paymaster_signature=b"not signed yet"), devnet.chain_id) == answer
    assert V09.user_op_hash(op.replace(paymaster_signature=b""), devnet.chain_id) != answer


@given(op=co_signed(), other=st.binary(min_size=1, max_size=100))
def test_before_v0_9_the_same_bytes_are_ordinary_paymaster_data(op: UserOperation, other: bytes) -> None:
    if other != op.paymaster_signature:
        for entry_point in (V07, V08):
            changed = op.replace(paymaster_signature=other)
            assert entry_point.user_op_hash(op, 10) != entry_point.user_op_hash(changed, 10)
    assert V08.user_op_hash(op, 10) == by_eth_account(op, 10)
    (read,) = V08.decode_handle_ops(V08.encode_handle_ops([op], bytes(20)))[0]
    assert (read.paymaster_signature, read.paymaster_and_data) == (b"", op.paymaster_and_data)


@given(op=co_signed())
def test_v0_9_reads_the_paymasters_signature_back_out_of_a_bundle(op: UserOperation) -> None:
    assert V09.decode_handle_ops(V09.encode_handle_ops([op, PLAIN], bytes(20))) == ([op, PLAIN], bytes(20))


MAGIC = bytes.fromhex("22e325a297439656")


@pytest.mark.parametrize(
    "data",
    [MAGIC, b"\x00" + MAGIC, b"\x00\x00" + MAGIC, b"\x01\x00\x01" + MAGIC, b"\xff" * 40 + b"\x00\x28" + MAGIC, MAGIC + b"\x00",
     b"\x00\x00" + MAGIC[:-1], b"\x07\x00\x00" + MAGIC],
    ids=lambda data: data.hex()[-24:],
)  # fmt: skip
async def test_every_ending_that_looks_like_a_signature_is_hashed_as_on_chain(devnet: Devnet, data: bytes) -> None:
    op = SPONSORED.replace(paymaster_data=data)
    (answer,) = GET_USER_OP_HASH.decode(await devnet.rpc.eth_call(V09.address, GET_USER_OP_HASH.encode(V09.pack(op))))
    assert V09.user_op_hash(op, devnet.chain_id) == answer


@pytest.mark.parametrize(
    "data", [b"\x00\x01" + MAGIC, b"\x01" * 65 + b"\x00\x42" + MAGIC, b"\xff\xff" + MAGIC], ids=lambda data: data.hex()[-24:]
)  # fmt: skip
async def test_a_signature_longer_than_the_data_is_refused_as_on_chain(devnet: Devnet, data: bytes) -> None:
    op = SPONSORED.replace(paymaster_data=data)
    with pytest.raises(RpcError) as refused:
        await devnet.rpc.eth_call(V09.address, GET_USER_OP_HASH.encode(V09.pack(op)))
    assert str(refused.value.data)[:10] == "0x" + keccak(b"InvalidPaymasterSignatureLength(uint256,uint256)").hex()[:8]
    with pytest.raises(InvalidFields, match="ends like a paymaster's signature"):
        V09.user_op_hash(op, 1)
    with pytest.raises(InvalidFields, match="ends like a paymaster's signature"):
        V09.decode_handle_ops(V09.encode_handle_ops([op], bytes(20)))


def test_a_paymasters_signature_has_at_most_65535_bytes() -> None:
    assert len(V09.pack(CO_SIGNED.replace(paymaster_signature=b"\1" * 65_535))[7]) == 52 + 12 + 65_535 + 10
    with pytest.raises(InvalidFields, match="65536 bytes, more than 65535"):
        V09.pack(CO_SIGNED.replace(paymaster_signature=b"\1" * 65_536))


@given(operations())
def test_packing_round_trips_through_a_bundle(op: UserOperation) -> None:
    assert unpack(V08.pack(op)) == op
    assert V08.decode_handle_ops(V08.encode_handle_ops([op, PLAIN], b"\x11" * 20)) == ([op, PLAIN], b"\x11" * 20)


@given(st.lists(operations(), max_size=3), st.binary(min_size=20, max_size=20))
def test_a_bundle_is_encoded_as_the_general_encoder_does_it(ops: list[UserOperation], beneficiary: bytes) -> None:
    assert V08.encode_handle_ops(ops, beneficiary) == HANDLE_OPS.encode([V08.pack(op) for op in ops], beneficiary)


def test_a_field_that_does_not_fit_its_word_is_named() -> None:
    for changes, words in (
        ({"nonce": 2**256}, "nonce"),
        ({"pre_verification_gas": 2**256}, "preVerificationGas"),
        ({"sender": b"\1"}, "address"),
    ):
        with pytest.raises(InvalidFields, match=words):
            V08.encode_handle_ops([PLAIN.replace(**changes)], b"\x11" * 20)


@pytest.mark.parametrize("field", ["call_gas_limit", "max_fee_per_gas"])
def test_a_number_above_128_bits_cannot_be_packed(field: str) -> None:
    with pytest.raises(InvalidFields, match="128 bits"):
        V08.pack(PLAIN.replace(**{field: 2**128}))


def test_another_call_is_no_bundle() -> None:
    with pytest.raises(InvalidFields):
        V08.decode_handle_ops(b"\x12\x34\x56\x78" + bytes(64))


@pytest.mark.parametrize("entry_point", ENTRY_POINTS.values())
def test_an_entry_point_is_found_by_its_address(entry_point: EntryPoint) -> None:
    assert by_address(entry_point.address) is entry_point


def test_an_unknown_entry_point_is_answered_with_those_that_are_known() -> None:
    with pytest.raises(InvalidFields, match=r"v0\.7 0x0000000071727De22E5E9d8BAf0edAc6f37da032"):
        by_address(bytes(20))


@pytest.mark.parametrize("version", ENTRY_POINTS)
async def test_the_canonical_addresses_hold_the_entry_points(devnet: Devnet, version: str) -> None:
    assert len(await devnet.rpc.get_code(ENTRY_POINTS[version].address)) > 10_000


def test_the_entry_points_reasons_are_read() -> None:
    assert decode_failed_op(FAILED_OP.encode(3, "AA24 signature error")) == FailedOp(3, "AA24 signature error")
    inner = FAILED_OP_WITH_REVERT.encode(0, "AA23 reverted", b"\xde\xad")
    assert decode_failed_op(inner) == FailedOp(0, "AA23 reverted", b"\xde\xad")


@pytest.mark.parametrize(
    "data",
    [b"", b"\x08\xc3\x79\xa0", FAILED_OP.selector, FAILED_OP.encode(0, "x")[:-32], FAILED_OP.selector + b"\xff" * 96],
)
def test_other_revert_data_is_no_failed_op(data: bytes) -> None:
    assert decode_failed_op(data) is None


def test_a_reason_that_is_no_text_is_no_failed_op() -> None:
    text = FAILED_OP.encode(0, "AAAA").replace(b"AAAA", b"\xff\xfe\xfd\xfc")
    assert decode_failed_op(text) is None
