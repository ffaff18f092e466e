"""Compact bundles: exact on the contract for any operations, as the Python inverse says, and refused where they are cut."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from bundler.deflate import EMPTY, MAX_DICTIONARY, Dictionary, deflate, inflate
from contracts.deploy import deploy_inflator, inflator_dictionary
from contracts.devnet.chain import CHAIN_ID
from contracts.entrypoint import V07, V08
from contracts.entrypoint.base import HANDLE_OPS, PackedUserOperation
from contracts.eoa import TransactionSender
from contracts.errors import InvalidFields
from contracts.rpc import RpcClient
from contracts.types import Address, to_hex
from tests.bundler.rig import Chain

CALLER: Address = b"\xca" * 20
ECHO = bytes.fromhex("365f5f37365ff3")
"""Runtime code that answers with its call data."""
WORDS = Dictionary(inflator_dictionary([b"\xaa" * 20, V08.address]) + bytes(range(256)))

words = st.one_of(st.integers(0, 2**256 - 1), st.sampled_from((0, 1, 255, 256, 2**255, 2**256 - 1)))
halves = st.binary(min_size=32, max_size=32) | st.sampled_from((bytes(32), b"\xff" * 32, bytes(31) + b"\x01"))
tails = st.one_of(
    st.binary(max_size=200),
    st.lists(
        st.sampled_from((bytes(32), b"\xaa" * 20, V08.address, bytes(12) + b"\xaa" * 20, bytes(range(64)), b"\x01", bytes(300))),
        max_size=12,
    ).map(b"".join),
)  # fmt: skip
operations = st.tuples(
    st.binary(min_size=20, max_size=20) | st.sampled_from((bytes(20), b"\xaa" * 20)),
    words, tails, tails, halves, words, halves, tails, tails,
)  # fmt: skip
bundles = st.lists(operations, max_size=5)


@given(bundles, st.sampled_from((V07.address, V08.address, b"\x77" * 20)), st.sampled_from((None, b"\xbe" * 20)))
def test_inflate_is_the_inverse_of_deflate(
    ops: list[PackedUserOperation], entry_point: Address, beneficiary: Address | None
) -> None:
    for dictionary in (EMPTY, WORDS):
        data = deflate(entry_point, ops, beneficiary, dictionary)
        assert inflate(data, CALLER, dictionary) == (entry_point, ops, beneficiary or CALLER)


@given(st.binary(max_size=80))
def test_noise_is_refused_or_read_never_anything_else(noise: bytes) -> None:
    try:
        entry_point, ops, _ = inflate(noise, CALLER, WORDS)
    except InvalidFields:
        return
    assert inflate(deflate(entry_point, ops, None, WORDS), CALLER, WORDS) == (entry_point, ops, CALLER)


def test_a_dictionary_fits_a_contract() -> None:
    assert Dictionary(bytes(MAX_DICTIONARY)).data
    with pytest.raises(InvalidFields, match="at most 24575"):
        Dictionary(bytes(MAX_DICTIONARY + 1))


@pytest.fixture(scope="module")
async def places(chain_state: tuple[Path, dict[str, Address]]) -> object:
    """A chain with an inflator for each dictionary, and a contract in the entry point's place that echoes."""
    async with Chain.start(*chain_state) as chain:
        sender = TransactionSender(chain.rpc, chain.accounts.trader2, CHAIN_ID)
        inflators = [await deploy_inflator(sender, dictionary.data) for dictionary in (EMPTY, WORDS)]
        echo = await chain.put(ECHO)
        yield chain.rpc, inflators, echo


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(ops=bundles, beneficiary=st.sampled_from((None, b"\xbe" * 20)))
async def test_the_contract_hands_on_what_handle_ops_would_be(
    places: tuple[RpcClient, list[Address], Address], ops: list[PackedUserOperation], beneficiary: Address | None
) -> None:
    rpc, inflators, echo = places
    wanted = HANDLE_OPS.encode(ops, beneficiary or CALLER)
    for inflator, dictionary in zip(inflators, (EMPTY, WORDS), strict=True):
        data = deflate(echo, ops, beneficiary, dictionary)
        request = {"from": to_hex(CALLER), "to": to_hex(inflator), "data": to_hex(data), "gas": hex(30_000_000)}
        assert await rpc.call("eth_call", request, "latest") == to_hex(wanted)
