"""EIP-712 by hand against eth-account's encoder."""

from __future__ import annotations

from typing import Any

from eth_account.messages import encode_typed_data
from eth_keys.datatypes import PrivateKey
from hypothesis import given
from hypothesis import strategies as st

from contracts.devnet.accounts import devnet_key
from contracts.eoa import Eoa
from contracts.typed_data import digest, domain_separator, domain_separator_anywhere, struct_hash
from contracts.types import checksum, keccak

ADDRESS = st.binary(min_size=20, max_size=20)
WORD = st.binary(min_size=32, max_size=32)
TYPE = "Order(address account,uint256 nonce,bytes32 data,uint48 until,uint8 kind)"
KINDS = ["address", "uint256", "bytes32", "uint48", "uint8"]


@given(st.text(max_size=20), st.integers(0, 2**64), ADDRESS, ADDRESS, st.integers(0, 2**256 - 1), WORD)
def test_digests_agree_with_eth_account(
    name: str, chain_id: int, contract: bytes, account: bytes, nonce: int, data: bytes
) -> None:
    message: dict[str, Any] = {
        "account": checksum(account),
        "nonce": nonce,
        "data": data,
        "until": 2**48 - 1,
        "kind": 7,
    }
    signable = encode_typed_data(
        {"name": name, "version": "1", "chainId": chain_id, "verifyingContract": checksum(contract)},
        {"Order": [{"name": n, "type": t} for n, t in zip(message, KINDS, strict=True)]},
        message,
    )
    separator = domain_separator(name, "1", chain_id, contract)
    struct = struct_hash(TYPE, KINDS, [account, nonce, data, 2**48 - 1, 7])
    assert separator == signable.header
    assert struct == signable.body
    assert digest(separator, struct) == keccak(b"\x19\x01" + signable.header + signable.body)


def test_a_domain_without_chain_and_contract_agrees_too() -> None:
    types = {"MerkleRoot": [{"name": "root", "type": "bytes32"}]}
    signable = encode_typed_data({"name": "Seawall RiskValidator", "version": "1"}, types, {"root": b"\1" * 32})
    assert domain_separator_anywhere("Seawall RiskValidator", "1") == signable.header
    assert struct_hash("MerkleRoot(bytes32 root)", ["bytes32"], [b"\1" * 32]) == signable.body


def test_the_example_of_eip_712() -> None:
    """ "Ether Mail", signed with the key keccak("cow").   Source: EIP-712, Example.js."""
    separator = domain_separator("Ether Mail", "1", 1, bytes.fromhex("CcCCccccCCCCcCCCCCCcCcCccCcCCCcCcccccccC"))
    assert separator.hex() == "f2cee375fa42b42143804025fc449deafd50cc031ca257e0b194a650a912090f"
    person = "Person(string name,address wallet)"
    cow, bob = (
        struct_hash(person, ["bytes32", "address"], [keccak(name.encode()), bytes.fromhex(wallet)])
        for name, wallet in (
            ("Cow", "CD2a3d9F938E13CD947Ec05AbC7FE734Df8DD826"),
            ("Bob", "bBbBBBBbbBBBbbbBbbBbbbbBBbBbbbbBbBbbBBbB"),
        )
    )
    mail = struct_hash(
        "Mail(Person from,Person to,string contents)" + person, ["bytes32"] * 3, [cow, bob, keccak(b"Hello, Bob!")]
    )
    signed = digest(separator, mail)
    assert signed.hex() == "be609aee343fb3c4b28e1df9e632fca64fcfaede20f02e86244efddf30957bd2"
    signature = Eoa(keccak(b"cow")).sign_hash(signed)
    assert signature.hex() == (
        "4355c47d63924e8a72e509b65029052eb6c299d53a04e167c5775fd466751c9d"
        "07299936d304c153f6443dfa05f40ff007d72911b6f72307f996231605b915621c"
    )


def test_two_contracts_never_share_a_digest() -> None:
    struct = struct_hash("A(uint256 a)", ["uint256"], [1])
    domains = [("a", "1", 1, bytes(20)), ("b", "1", 1, bytes(20)), ("a", "2", 1, bytes(20)), ("a", "1", 2, bytes(20))]
    separators = [domain_separator(*domain) for domain in [*domains, ("a", "1", 1, b"\1" * 20)]]
    assert len({digest(separator, struct) for separator in separators}) == 5


def test_a_signature_of_typed_data_recovers() -> None:
    key = devnet_key("typed")
    message = digest(domain_separator("a", "1", 1, bytes(20)), struct_hash("A(uint256 a)", ["uint256"], [1]))
    assert Eoa(key).sign_hash(message)[:64] == PrivateKey(key).sign_msg_hash(message).to_bytes()[:64]
