"""The transaction that a rollup charges for is, byte for byte, the one the executor signs, less the signature."""

from __future__ import annotations

from dataclasses import replace

import pytest
import rlp

from bundler.chain import Head
from bundler.fees.model import BundleData, gas_for, price_of
from contracts.devnet.accounts import devnet_key
from contracts.eip7702 import Authorization
from contracts.entrypoint import V08
from contracts.eoa import Eoa
from contracts.types import checksum
from contracts.userop import UserOperation

EXECUTOR = Eoa(devnet_key("bundler"))
HEAD = Head(1, bytes(32), 1, 7 * 10**8)
OP = UserOperation(
    b"\x11" * 20, 5, bytes(range(200)), 100_000, 200_000, 60_000, 3 * 10**9, 10**9, b"\xab" * 65
)  # fmt: skip


@pytest.mark.parametrize("count", [0, 1, 2])
def test_unsigned_transaction_is_what_is_signed_without_its_signature(count: int) -> None:
    authorizations = [Authorization(10, b"\x22" * 20, 7 + i, 1, 2**255 + i, 2**250 + i) for i in range(count)]
    bundle = BundleData.of(10, EXECUTOR.address, V08, [OP, OP], b"\x33" * 20, HEAD, authorizations)
    raw, _ = EXECUTOR.sign_transaction(
        ({"authorizationList": [a.for_transaction() for a in authorizations]} if authorizations else {})
        | {
            "type": 4 if authorizations else 2,
            "chainId": 10,
            "nonce": 0xFFFFFF,
            "to": checksum(V08.address),
            "value": 0,
            "gas": 0xFFFFFF,
            "maxFeePerGas": 2 * HEAD.base_fee_wei + 10**9,
            "maxPriorityFeePerGas": 10**9,
            "data": V08.encode_handle_ops([OP, OP], b"\x33" * 20),
        }
    )
    assert bundle.unsigned() == raw[:1] + rlp.encode(rlp.decode(raw[1:])[:-3])


def test_gas_for_a_fee_is_rounded_up_in_the_bundlers_favour() -> None:
    assert [gas_for(fee_wei, 100) for fee_wei in (0, 1, 100, 101)] == [0, 1, 1, 2]


def test_price_is_what_the_entry_point_charges() -> None:
    assert price_of(OP, HEAD) == 7 * 10**8 + 10**9
    assert price_of(OP, replace(HEAD, base_fee_wei=10**10)) == 3 * 10**9
