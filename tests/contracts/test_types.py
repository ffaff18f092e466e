"""Text at the edge: what is read is exactly what was written, and everything else has one clear error."""

from __future__ import annotations

import pytest
from eth_utils.address import to_checksum_address
from hypothesis import given
from hypothesis import strategies as st

from contracts.errors import InvalidFields
from contracts.types import checksum, keccak, parse_address, parse_bytes, parse_hash, parse_quantity, to_hex

ERC55 = [
    "0x52908400098527886E0F7030069857D2E4169EE7",
    "0x8617E340B3D01FA5F11F306F4090FD50E238070D",
    "0xde709f2102306220921060314715629080e2fb77",
    "0x27b1fdb04752bbc536007a920d24acb045561c26",
    "0x5aAeb6053F3E94C9b9A09f33669435E7Ef1BeAed",
    "0xfB6916095ca1df60bB79Ce92cE3Ea74c37c5d359",
    "0xdbF03B407c01E7cD3CBea99509d93f8DDDC8C6FB",
    "0xD1220A0cf47c7B9Be7A2E6BA89F429762e7b9aDb",
]
"""The vectors of ERC-55: all upper, all lower, mixed."""


@pytest.mark.parametrize("text", ERC55)
def test_the_vectors_of_erc_55(text: str) -> None:
    assert checksum(parse_address(text)) == text


@pytest.mark.parametrize("text", ERC55[4:])
def test_one_wrong_letter_case_is_caught(text: str) -> None:
    at = next(i for i, c in enumerate(text) if i > 1 and c.isalpha())
    with pytest.raises(InvalidFields, match="checksum"):
        parse_address(text[:at] + text[at].swapcase() + text[at + 1 :])


@given(st.binary(min_size=20, max_size=20))
def test_checksums_agree_with_eth_utils(address: bytes) -> None:
    text = checksum(address)
    assert text == to_checksum_address(address)
    assert parse_address(text) == parse_address(text.lower()) == parse_address("0x" + text[2:].upper()) == address


@pytest.mark.parametrize(
    "text", ["0x", "0x" + "00" * 19, "0x" + "00" * 21, "00" * 20, "vitalik.eth", "0X" + "00" * 20, "", None, 5]
)
def test_what_is_no_address_is_named(text: object) -> None:
    with pytest.raises(InvalidFields, match="owner must"):
        parse_address(text, "owner")


@given(st.binary())
def test_bytes_round_trip(data: bytes) -> None:
    assert parse_bytes(to_hex(data)) == data


@pytest.mark.parametrize(
    "text", ["0x0", "0xzz", "0x0 ", "0x00\n", " 0x00", "0x０0", "00", "", None, b"0x00", 0, ["0x00"]]
)
def test_what_is_no_data_is_named(text: object) -> None:
    with pytest.raises(InvalidFields, match="callData must be 0x"):
        parse_bytes(text, "callData")


@pytest.mark.parametrize("length", [0, 31, 33])
def test_a_hash_has_32_bytes(length: int) -> None:
    with pytest.raises(InvalidFields, match=f"32 bytes, got {length}"):
        parse_hash(to_hex(bytes(length)))
    assert parse_hash(to_hex(b"\1" * 32)) == b"\1" * 32


@given(st.integers(0, 2**256 - 1))
def test_quantities_round_trip_with_or_without_leading_zeros(number: int) -> None:
    assert parse_quantity(hex(number)) == parse_quantity(f"0x{number:064x}") == number


@pytest.mark.parametrize(
    "text", ["0x", "0xg", "1", "-0x1", "0x-1", "0x" + "f" * 65, "0x1\n", 1, 1.0, True, None, "0x1_0"]
)
def test_what_is_no_quantity_is_named(text: object) -> None:
    with pytest.raises(InvalidFields, match="nonce must be a 0x hex quantity"):
        parse_quantity(text, "nonce")


@pytest.mark.parametrize("bits", [1, 48, 128])
def test_a_quantity_is_below_its_width(bits: int) -> None:
    assert parse_quantity(hex(2**bits - 1), bits=bits) == 2**bits - 1
    with pytest.raises(InvalidFields, match=rf"below 2\^{bits}"):
        parse_quantity(hex(2**bits), bits=bits)


def test_an_error_message_shows_only_the_head_of_a_long_value() -> None:
    with pytest.raises(InvalidFields) as caught:
        parse_bytes("z" * 10**6)
    assert len(str(caught.value)) < 200


def test_keccak_is_keccak_not_sha3() -> None:
    assert keccak(b"").hex() == "c5d2460186f7233c927e7db2dcc703c0e500b653ca82273b7bfad8045d85a470"
