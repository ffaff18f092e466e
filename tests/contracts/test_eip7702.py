"""EIP-7702 authorisations and the operation hash that covers a delegate."""

from __future__ import annotations

from typing import Any

import pytest
from eth_account import Account

from contracts.eip7702 import MARKER, Authorization, delegate_of, delegation
from contracts.errors import InvalidFields
from contracts.types import checksum
from contracts.userop import UserOperation

CHAIN_ID = 1337
KEY = b"\x07" * 32
DELEGATE = b"\x11" * 20


def signed(**changes: Any) -> tuple[Authorization, bytes]:
    """What eth-account signs, as ours, and its authority."""
    account = Account.from_key(KEY)
    fields = {"chainId": CHAIN_ID, "address": checksum(DELEGATE), "nonce": 0} | changes
    theirs = account.sign_authorization(fields)
    ours = Authorization(
        fields["chainId"], bytes.fromhex(fields["address"][2:]), fields["nonce"], theirs.y_parity, theirs.r, theirs.s
    )
    return ours, bytes.fromhex(account.address[2:])


@pytest.mark.parametrize("changes", [{}, {"chainId": 0}, {"nonce": 1}, {"nonce": 2**63}, {"chainId": 2**64}])
def test_authority_is_who_signed_it_by_eth_accounts_signature(changes: dict[str, int]) -> None:
    ours, authority = signed(**changes)
    assert ours.authority() == authority
    assert Authorization.from_rpc(ours.to_rpc()) == ours


def test_another_chain_nonce_or_delegate_recovers_somebody_else() -> None:
    ours, authority = signed()
    for name, value in (("chain_id", 1), ("nonce", 9), ("delegate", b"\x12" * 20)):
        fields = {n: getattr(ours, n) for n in ("chain_id", "delegate", "nonce", "y_parity", "r", "s")} | {name: value}
        assert Authorization(**fields).authority() != authority


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"yParity": None}, "missing eip7702Auth field 'yParity'"),
        ({"chainId": 1337}, "eip7702Auth.chainId must be a 0x hex quantity"),
        ({"address": "0x12"}, "eip7702Auth.address"),
        ({"nonce": hex(2**64)}, "eip7702Auth.nonce must be below"),
    ],
)
def test_malformed_authorisation_names_the_field(change: dict[str, Any], words: str) -> None:
    ours, _ = signed()
    with pytest.raises(InvalidFields, match=words):
        Authorization.from_rpc(ours.to_rpc() | change)


def test_signature_that_recovers_nobody_or_is_malleable_is_refused() -> None:
    ours, _ = signed()
    order = 0xFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFEBAAEDCE6AF48A03BBFD25E8CD0364141
    for r, s, parity in (
        (0, ours.s, 0),
        (ours.r, 0, 0),
        (ours.r, order - ours.s, 1 - ours.y_parity),
        (ours.r, ours.s, 7),
    ):
        broken = Authorization(ours.chain_id, ours.delegate, ours.nonce, parity, r, s)
        with pytest.raises(InvalidFields, match="signature of eip7702Auth is invalid"):
            broken.authority()


def test_delegation_is_code_of_23_bytes() -> None:
    assert delegate_of(delegation(DELEGATE)) == DELEGATE
    assert delegate_of(delegation(DELEGATE) + b"\0") is None
    assert delegate_of(b"") is None


def test_marker_is_written_and_read_in_its_short_form() -> None:
    op = UserOperation(b"\x01" * 20, 0, b"", factory=MARKER, factory_data=b"\x05")
    assert op.to_rpc()["factory"] == "0x7702"
    assert UserOperation.from_rpc(op.to_rpc()) == op
    assert op.is_delegated
    assert op.real_factory is None
