"""Starting a devnet: what is on it, the cache, and prices from one end to the other."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from contracts.devnet import Devnet, devnet_key
from contracts.devnet.devnet import DEFAULT_PRICE_WAD, MAX_PRICE_WAD, MIN_PRICE_WAD
from contracts.devnet.op_stack import MULTICALL3_CODE_HASH
from contracts.eoa import Eoa
from contracts.errors import BadInput
from contracts.types import checksum, keccak
from contracts.units import WAD
from tests.devnet.rig import person

# keccak of the runtime code. v0.7's is the same on every chain; v0.8 has the chain id in its code (the cached EIP-712 domain).
CODE_HASHES = {
    "0x0000000071727De22E5E9d8BAf0edAc6f37da032": "8db5ff695839d655407cc8490bb7a5d82337a86a6b39c3f0258aa6c3b582fc58",
    "0x4337084D9E255Ff0702461CF8895CE9E3b5Ff108": "f8371bd66af1621efbc8d3f11093fc8992a3e17ec3d345a78cea7e2161a01441",
}
FIRST_BAR_S = 1_583_992_800


async def test_both_entry_points_have_their_canonical_address_and_code(devnet: Devnet) -> None:
    where = devnet.addresses
    found = {
        checksum(address): keccak(await devnet.rpc.get_code(address)).hex()
        for address in (where.entry_point_v07, where.entry_point_v08)
    }
    assert found == CODE_HASHES


async def test_multicall3_has_its_canonical_address_and_code(devnet: Devnet) -> None:
    assert checksum(devnet.addresses.multicall3) == "0xcA11bde05977b3631167028862bE2a173976CA11"
    assert keccak(await devnet.rpc.get_code(devnet.addresses.multicall3)) == MULTICALL3_CODE_HASH


async def test_there_is_code_at_every_address(devnet: Devnet) -> None:
    codes = {name: await devnet.rpc.get_code(bytes.fromhex(a[2:])) for name, a in devnet.addresses.to_json().items()}
    assert [name for name, code in codes.items() if len(code) < 40] == []


async def test_the_op_stack_predeploys_charge_for_data(devnet: Devnet) -> None:
    anyone = person(devnet, devnet.accounts.trader)
    oracle = devnet.addresses.gas_price_oracle
    assert await anyone.ask(oracle, "isFjord()(bool)")
    assert await anyone.ask(oracle, "l1BaseFee()(uint256)") == 10 * 10**9
    small = await anyone.ask(oracle, "getL1Fee(bytes)(uint256)", bytes(range(100)))
    large = await anyone.ask(oracle, "getL1Fee(bytes)(uint256)", bytes(range(256)) * 20)
    assert 0 < small < large < 10**15


async def test_without_a_timestamp_the_clock_is_the_walls_and_the_feed_is_fresh() -> None:
    async with Devnet.start() as net:
        now_s = int((await net.rpc.block())["timestamp"], 16)
        assert abs(now_s - time.time()) < 30
        anyone = person(net, net.accounts.trader)
        latest = "latestRoundData()(uint80,int256,uint256,uint256,uint80)"
        _, answer, _, updated_s, _ = await anyone.ask(net.addresses.feed_eth_usd, latest)
        assert answer == DEFAULT_PRICE_WAD * 10**8 // WAD
        assert now_s - updated_s < 60


@pytest.mark.parametrize("price_wad", [MIN_PRICE_WAD, 181_450_000_000_000_000_000, MAX_PRICE_WAD])
async def test_pools_feeds_and_perp_agree_on_any_price(price_wad: int) -> None:
    async with Devnet.start(price_wad=price_wad, timestamp=FIRST_BAR_S) as net:
        anyone = person(net, net.accounts.trader)
        where = net.addresses
        mark = await anyone.ask(where.perp_account_balance, "getMarkPrice(address)(uint256)", where.perp_base_token)
        aave = await anyone.ask(where.aave_oracle, "getAssetPrice(address)(uint256)", where.weth)
        quote = "quoteExactInputSingle((address,address,uint256,uint24,uint160))(uint256,uint160,uint32,uint256)"
        small = 10**15
        usdc, *_ = await anyone.ask(where.uniswap_quoter, quote, (where.weth, where.usdc, small, 500, 0))
        assert mark == pytest.approx(price_wad, rel=1e-3)
        assert aave == price_wad // 10**10
        assert usdc * 10**12 * WAD // small == pytest.approx(price_wad, rel=2e-3)


@pytest.mark.parametrize("price_wad", [0, MIN_PRICE_WAD - 1, MAX_PRICE_WAD + 1])
async def test_a_price_out_of_range_is_refused(price_wad: int) -> None:
    with pytest.raises(BadInput, match="between 1 and 100000"):
        async with Devnet.start(price_wad=price_wad):
            pass


async def test_a_second_start_deploys_nothing(
    new_cache: Callable[[], Path], capsys: pytest.CaptureFixture[str]
) -> None:
    new_cache()
    begun = time.perf_counter()
    async with Devnet.start(timestamp=FIRST_BAR_S) as cold:
        cold_s = time.perf_counter() - begun
        head, where = await cold.rpc.block(), cold.addresses
        assert not cold.warm
    begun = time.perf_counter()
    async with Devnet.start(timestamp=FIRST_BAR_S) as warm:
        warm_s = time.perf_counter() - begun
        assert warm.warm
        assert warm.addresses == where
        assert (await warm.rpc.block())["hash"] == head["hash"]
    with capsys.disabled():
        print(f"\n[devnet] cold start {cold_s:.2f} s (packages there), warm start {warm_s:.2f} s")


async def test_building_twice_gives_the_same_chain(new_cache: Callable[[], Path]) -> None:
    heads = []
    for _ in range(2):
        new_cache()
        async with Devnet.start(timestamp=FIRST_BAR_S) as net:
            assert not net.warm
            heads.append((await net.rpc.block())["hash"])
    assert heads[0] == heads[1]


async def test_two_starts_at_once_build_once(new_cache: Callable[[], Path]) -> None:
    chains = new_cache()

    async def start() -> tuple[bool, str]:
        async with Devnet.start(timestamp=FIRST_BAR_S) as net:
            return net.warm, (await net.rpc.block())["hash"]

    first, second = await asyncio.gather(start(), start())
    assert sorted([first[0], second[0]]) == [False, True]
    assert first[1] == second[1]
    assert len(list(chains.glob("*"))) == 1


def truncated_state(entry: Path) -> None:
    state = entry / "state.json"
    state.write_bytes(state.read_bytes()[:1000])


def changed_state(entry: Path) -> None:
    state = entry / "state.json"
    state.write_bytes(state.read_bytes().replace(b"0x1", b"0x2", 1))


def no_addresses(entry: Path) -> None:
    about = entry / "about.json"
    about.write_text(json.dumps({**json.loads(about.read_text()), "addresses": {}}))


def no_json(entry: Path) -> None:
    (entry / "about.json").write_text("{")


@pytest.mark.parametrize("damage", [truncated_state, changed_state, no_addresses, no_json])
async def test_a_damaged_cache_entry_is_built_again(
    new_cache: Callable[[], Path], damage: Callable[[Path], None]
) -> None:
    chains = new_cache()
    async with Devnet.start(timestamp=FIRST_BAR_S) as net:
        where = net.addresses
    (entry,) = chains.glob("*")
    damage(entry)
    async with Devnet.start(timestamp=FIRST_BAR_S) as net:
        assert not net.warm
        assert net.addresses == where
    async with Devnet.start(timestamp=FIRST_BAR_S) as net:
        assert net.warm


async def test_accounts_come_from_their_public_keys(devnet: Devnet) -> None:
    for name, eoa in devnet.accounts.by_name().items():
        assert Eoa(devnet_key(name)).address == eoa.address
        assert await devnet.rpc.get_balance(eoa.address) > 10**24
