"""Keys and plain transactions: foreign code recovers what we sign, the key is never shown, the nonce survives failures."""

from __future__ import annotations

import asyncio
import subprocess
import sys

import pytest
from eth_account import Account
from eth_keys.datatypes import Signature
from hypothesis import given
from hypothesis import strategies as st

from contracts.devnet import Devnet
from contracts.devnet.accounts import devnet_key
from contracts.eoa import Eoa, TransactionSender
from contracts.errors import BadInput, OperationFailed, RpcError
from contracts.rpc import RpcClient
from contracts.types import checksum, keccak, to_hex

ORDER = 0xFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFEBAAEDCE6AF48A03BBFD25E8CD0364141
KEYS = st.integers(1, ORDER - 1).map(lambda number: number.to_bytes(32))


@given(KEYS)
def test_addresses_agree_with_eth_account(key: bytes) -> None:
    assert checksum(Eoa(key).address) == Account.from_key(key).address


@given(KEYS, st.binary(min_size=32, max_size=32))
def test_a_signature_recovers_to_the_address_and_has_a_low_s(key: bytes, digest: bytes) -> None:
    eoa = Eoa(key)
    signature = eoa.sign_hash(digest)
    assert signature == eoa.sign_hash(digest)
    assert signature[64] in (27, 28)
    assert int.from_bytes(signature[32:64]) <= ORDER // 2
    parsed = Signature(signature[:64] + bytes([signature[64] - 27]))
    assert parsed.recover_public_key_from_msg_hash(digest).to_canonical_address() == eoa.address


@pytest.mark.parametrize("key", [b"", b"\1" * 31, b"\1" * 33, bytes(32), ORDER.to_bytes(32), b"\xff" * 32])
def test_a_bad_key_is_refused_without_being_shown(key: bytes) -> None:
    with pytest.raises(BadInput) as caught:
        Eoa(key)
    assert not key or key.hex() not in str(caught.value)
    assert caught.value.__cause__ is None


def test_the_key_is_in_no_text() -> None:
    key = devnet_key("shown")
    eoa = Eoa(key)
    for text in (repr(eoa), str(eoa), f"{[eoa]}"):
        assert key.hex() not in text
        assert checksum(eoa.address) in text


def test_a_signed_transaction_is_what_eth_account_recovers() -> None:
    eoa = Eoa(devnet_key("signs"))
    fields = {"type": 2, "chainId": 1, "nonce": 0, "gas": 21_000, "maxFeePerGas": 2, "maxPriorityFeePerGas": 1}
    raw, tx_hash = eoa.sign_transaction(fields | {"to": checksum(b"\1" * 20), "value": 1, "data": b""})
    assert keccak(raw) == tx_hash
    assert Account.recover_transaction(raw) == checksum(eoa.address)


async def funded(devnet: Devnet, name: str) -> TransactionSender:
    eoa = Eoa(devnet_key(name))
    await devnet.rpc.call("anvil_setBalance", to_hex(eoa.address), hex(10**20))
    return TransactionSender(devnet.rpc, eoa, devnet.chain_id)


async def test_many_sends_at_once_get_consecutive_nonces(chain: Devnet) -> None:
    sender = await funded(chain, "busy")
    hashes = await asyncio.gather(*(sender.send(b"\1" * 20, value=i) for i in range(10)))
    await asyncio.gather(*(sender.wait(tx_hash) for tx_hash in hashes))
    assert await chain.rpc.get_nonce(sender.eoa.address) == 10


async def test_a_refused_transaction_leaves_no_gap(chain: Devnet) -> None:
    sender = await funded(chain, "refused")
    await sender.transact(b"\1" * 20, value=1)
    with pytest.raises(RpcError):
        await sender.send(b"\1" * 20, value=10**30, gas=21_000)
    await sender.transact(b"\1" * 20, value=1)
    assert await chain.rpc.get_nonce(sender.eoa.address) == 2


async def test_a_nonce_used_elsewhere_is_noticed_after_one_failure(chain: Devnet) -> None:
    one, two = await funded(chain, "shared"), await funded(chain, "shared")
    await one.transact(b"\1" * 20)
    await two.transact(b"\1" * 20)
    with pytest.raises(RpcError, match="nonce too low"):
        await one.transact(b"\1" * 20)
    await one.transact(b"\1" * 20)


async def test_a_creation_that_reverts_is_seen_while_estimating(chain: Devnet) -> None:
    sender = await funded(chain, "creates")
    with pytest.raises(RpcError, match="revert"):
        await sender.send(None, bytes.fromhex("5f5ffd"))


async def test_a_reverted_transaction_is_operation_failed_with_its_gas(chain: Devnet) -> None:
    sender = await funded(chain, "reverts")
    with pytest.raises(OperationFailed, match="reverted using"):
        await sender.transact(None, bytes.fromhex("5f5ffd"), gas=100_000)


async def test_a_base_fee_that_doubles_meanwhile_is_still_paid(chain: Devnet) -> None:
    sender = await funded(chain, "pays")
    base_fee_wei = int((await chain.rpc.block())["baseFeePerGas"], 16)
    await chain.rpc.call("anvil_setNextBlockBaseFeePerGas", hex(2 * base_fee_wei))
    receipt = await sender.transact(b"\1" * 20, value=1)
    assert int(receipt["effectiveGasPrice"], 16) >= 2 * base_fee_wei


def test_deeply_nested_json_does_not_kill_a_service() -> None:
    """py_ecc raises Python's recursion limit so far that the decoder overflows the C stack; importing our code lowers it again."""
    program = (
        "import bundler.main, paymaster.main, msgspec\n"
        "for body in (b'[' * 400_000, b'{\"a\":' * 100_000):\n"
        "    try: msgspec.json.decode(body)\n"
        "    except RecursionError: print('refused')\n"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout.split()) == (0, ["refused", "refused"]), done.stderr


async def test_one_client_may_be_closed_twice(devnet: Devnet) -> None:
    rpc = RpcClient(devnet.rpc_url)
    await rpc.chain_id()
    await rpc.close()
    await rpc.close()
