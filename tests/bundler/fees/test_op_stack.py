"""The OP stack's data fee: our figure is that of the chain's own GasPriceOracle, to the wei, under all three upgrades."""

from __future__ import annotations

import random

import pytest

from bundler.chain import read_head
from bundler.fees.fastlz import compressed_length
from bundler.fees.model import BundleData, FeeDataError
from bundler.fees.op_stack import GAS_PRICE_ORACLE, L1Prices, OpStack, read_prices
from contracts.abi import Function
from contracts.devnet import Devnet
from contracts.devnet.op_stack import L1_BLOCK
from contracts.rpc import RpcClient
from contracts.types import Address, parse_address, parse_hash, to_hex

GET_L1_FEE = Function.parse("getL1Fee(bytes)(uint256)")
SET_BEDROCK = Function.parse("setL1BlockValues(uint64,uint64,uint256,bytes32,uint64,bytes32,uint256,uint256)")
DEPOSITOR: Address = parse_address("0xdeaddeaddeaddeaddeaddeaddeaddeaddead0001")
UPGRADES = ("bedrock", "ecotone", "fjord")


def payloads(seed: int, count: int) -> list[bytes]:
    """Random data of the kinds that compress differently: noise, zeros, small alphabets, ABI words, repeated phrases, mixtures."""
    rng = random.Random(seed)
    found = [b"", b"\0", bytes(13), bytes(14), bytes(15), bytes(16), b"\x01" * 300, bytes(9_000), bytes(range(256)) * 4]
    while len(found) < count:
        size = rng.choice([rng.randrange(48), rng.randrange(600), rng.randrange(4_000), rng.randrange(24_000)])
        kind = rng.randrange(6)
        if kind == 0:
            data = rng.randbytes(size)
        elif kind == 1:
            data = bytes(rng.choice((0, 0, 0, 1, 7)) for _ in range(size))
        elif kind == 2:
            data = b"".join(bytes(12) + rng.randbytes(20) for _ in range(size // 32))
        elif kind == 3:
            phrase = rng.randbytes(rng.randrange(1, 700))
            data = (phrase * (size // len(phrase) + 1))[:size]
        elif kind == 4:  # matches at, before and beyond the farthest distance
            far = rng.randbytes(rng.choice((8_190, 8_191, 8_192, 8_193)))
            data = far + far[: rng.randrange(1, 400)] + rng.randbytes(rng.randrange(20))
        else:
            pieces = [rng.randbytes(rng.randrange(40)) for _ in range(8)]
            data = b"".join(rng.choice(pieces) + bytes(rng.randrange(40)) for _ in range(size // 40))
        found.append(data)
    return found


async def as_depositor(rpc: RpcClient, to: Address, data: bytes) -> None:
    """A transaction of the system account that derives a block's L1 attributes."""
    await rpc.call("anvil_impersonateAccount", to_hex(DEPOSITOR))
    await rpc.call("anvil_setBalance", to_hex(DEPOSITOR), hex(10**18))
    request = {"from": to_hex(DEPOSITOR), "to": to_hex(to), "data": to_hex(data), "gas": hex(10**6)}
    tx_hash = parse_hash(await rpc.call("eth_sendTransaction", request))
    await rpc.call("evm_mine")
    assert (await rpc.wait_receipt(tx_hash))["status"] == "0x1"


async def at_upgrade(net: Devnet, upgrade: str) -> L1Prices:
    """Take the chain back to Bedrock and on to `upgrade` by the contract's own setters; returns what we read there."""
    await net.rpc.call("anvil_setStorageAt", to_hex(GAS_PRICE_ORACLE), "0x" + "00" * 32, "0x" + "00" * 32)
    values = (1, 1, 23 * 10**9 + 1, bytes(32), 0, bytes(32), 2_100, 684_000)
    await as_depositor(net.rpc, L1_BLOCK, SET_BEDROCK.encode(*values))
    for name in UPGRADES[1 : UPGRADES.index(upgrade) + 1]:
        await as_depositor(net.rpc, GAS_PRICE_ORACLE, Function.parse(f"set{name.capitalize()}()").selector)
    return await read_prices(net.rpc)


@pytest.mark.parametrize("upgrade", UPGRADES)
async def test_the_fee_is_the_contracts_to_the_wei(chain: Devnet, upgrade: str) -> None:
    prices = await at_upgrade(chain, upgrade)
    assert prices.upgrade == upgrade
    for data in payloads(UPGRADES.index(upgrade), 250):
        answer = await chain.rpc.eth_call(GAS_PRICE_ORACLE, GET_L1_FEE.encode(data))
        assert prices.l1_fee_wei(data) == GET_L1_FEE.decode(answer)[0], data.hex()


async def test_prices_are_read_once_a_block_and_again_on_the_next(chain: Devnet) -> None:
    model = OpStack()
    bundle = BundleData(1337, bytes(20), bytes(20), bytes(range(256)) * 4, 10**9, 1)
    (before,) = await model.charges(chain.rpc, [bundle], await read_head(chain.rpc))
    await as_depositor(chain.rpc, L1_BLOCK, SET_BEDROCK.encode(2, 2, 50 * 10**9, bytes(32), 0, bytes(32), 2_100, 1))
    (after,) = await model.charges(chain.rpc, [bundle], await read_head(chain.rpc))
    assert after.fee_wei > before.fee_wei
    answer = await chain.rpc.eth_call(GAS_PRICE_ORACLE, GET_L1_FEE.encode(bundle.unsigned()))
    assert after.fee_wei == GET_L1_FEE.decode(answer)[0]


async def test_prices_are_those_of_the_block_that_is_asked_about_also_when_another_has_come(chain: Devnet) -> None:
    bundle = BundleData(1337, bytes(20), bytes(20), bytes(range(256)) * 4, 10**9, 1)
    head = await read_head(chain.rpc)
    answer = await chain.rpc.eth_call(GAS_PRICE_ORACLE, GET_L1_FEE.encode(bundle.unsigned()))
    await as_depositor(chain.rpc, L1_BLOCK, SET_BEDROCK.encode(2, 2, 91 * 10**9, bytes(32), 0, bytes(32), 2_100, 1))
    (charge,) = await OpStack().charges(chain.rpc, [bundle], head)
    assert charge.fee_wei == GET_L1_FEE.decode(answer)[0]


async def test_chain_without_the_oracle_is_refused_with_what_to_set(chain: Devnet) -> None:
    await chain.rpc.call("anvil_setCode", to_hex(GAS_PRICE_ORACLE), "0x")
    with pytest.raises(FeeDataError, match=r"did not answer .*set `fee_model`"):
        await read_prices(chain.rpc)


async def test_l1_base_fee_of_zero_is_no_price(chain: Devnet) -> None:
    values = (2, 2, 0, bytes(32), 0, bytes(32), 0, 0)
    await as_depositor(chain.rpc, L1_BLOCK, SET_BEDROCK.encode(*values))
    with pytest.raises(FeeDataError, match="base fee is 0"):
        await read_prices(chain.rpc)


@pytest.mark.parametrize(
    ("data", "length"),
    [
        (b"", 0),
        (b"\x11", 2),
        (bytes(range(32)), 33),
        (bytes(range(33)), 35),
        (bytes(13), 14),
        (bytes(1_000), 21),
        (bytes(range(256)) * 4, 279),
    ],
    ids=["empty", "one", "run-of-32", "run-of-33", "too-short-to-match", "zeros", "phrase"],
)
def test_compressed_lengths_of_known_data(data: bytes, length: int) -> None:
    assert compressed_length(data) == length


def test_data_without_repetition_grow_by_one_byte_in_32() -> None:
    noise = random.Random(7).randbytes(3_200)
    assert compressed_length(noise) == 3_300
