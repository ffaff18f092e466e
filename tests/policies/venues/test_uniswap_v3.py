"""Liquidity on the real pool: what the position manager would pay out is what the adapter says, fees and wrap-around included."""

from __future__ import annotations

from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from contracts.devnet import Devnet
from contracts.devnet.chain import FOREVER
from contracts.devnet.tokens import ETHER, USDC
from policies.metrics.exposure import pool_amounts
from policies.portfolio import Liquidity
from policies.venues import Snapshot
from policies.venues.tokens import Token
from policies.venues.uniswap_v3 import UniswapV3, growth_inside, owed, pool_address, price_at, whole_liquidity
from tests.devnet.rig import Person, person
from tests.policies.venues.rig import answers_to, look

MINT = (
    "mint((address,address,uint24,int24,int24,uint256,uint256,uint256,uint256,address,uint256))"
    "(uint256,uint128,uint256,uint256)"
)
COLLECT = "collect((uint256,address,uint128,uint128))(uint256,uint256)"
DECREASE = "decreaseLiquidity((uint256,uint128,uint256,uint256,uint256))(uint256,uint256)"
SLOT0 = "slot0()(uint160,int24,uint16,uint16,uint16,uint8,bool)"
MOST = 2**128 - 1


def adapter(net: Devnet) -> UniswapV3:
    where = net.addresses
    tokens = (Token("USDC", where.usdc, 6), Token("ETH", where.weth, 18))
    return UniswapV3(where.uniswap_factory, where.uniswap_position_manager, tokens)


async def provider(net: Devnet, positions: int = 1) -> Person:
    """Somebody with `positions` ranges of 30,000 USDC and 10 ETH around the price, each a little wider than the last."""
    await net.market.heartbeat()
    someone, where = person(net, net.accounts.trader), net.addresses
    await someone.do(where.weth, "deposit()", value=100 * ETHER)
    for token in (where.weth, where.usdc):
        for spender in (where.uniswap_position_manager, where.uniswap_router):
            await someone.do(token, "approve(address,uint256)", spender, 2**255)
    _, tick, *_ = await someone.ask(where.uniswap_pool, SLOT0)
    token0, token1 = sorted((where.weth, where.usdc))
    amounts = {where.weth: 10 * ETHER, where.usdc: 30_000 * USDC}
    for i in range(positions):
        middle, width = tick // 10 * 10, 1_000 + 100 * i
        call = (token0, token1, 500, middle - width, middle + width, amounts[token0], amounts[token1], 0, 0)
        await someone.do(where.uniswap_position_manager, MINT, (*call, someone.eoa.address, FOREVER))
    return someone


async def trade(someone: Person, usdc: int) -> None:
    """Buy ETH for `usdc`, then sell as much again: fees on both sides."""
    where, me = someone.net.addresses, someone.eoa.address
    swap = "exactInputSingle((address,address,uint24,address,uint256,uint256,uint256,uint160))(uint256)"
    await someone.do(where.uniswap_router, swap, (where.usdc, where.weth, 500, me, FOREVER, usdc * USDC, 0, 0))
    back = usdc * ETHER // 3_000
    await someone.do(where.uniswap_router, swap, (where.weth, where.usdc, 500, me, FOREVER, back, 0, 0))


async def spot(someone: Person, pool: Liquidity) -> Decimal:
    """The pool's own price, asset1 per asset0 in whole units."""
    sqrt_x96, *_ = await someone.ask(someone.net.addresses.uniswap_pool, SLOT0)
    shift = 12 if pool.asset0 == "ETH" else -12
    return (Decimal(sqrt_x96) / 2**96) ** 2 * Decimal(10) ** shift


async def test_an_account_without_positions_has_none(chain: Devnet) -> None:
    assert await look(chain, adapter(chain), chain.accounts.trader2.address) == Snapshot()


async def test_the_pool_of_a_pair_is_where_the_factory_put_it(chain: Devnet) -> None:
    where = chain.addresses
    token0, token1 = sorted((where.weth, where.usdc))
    assert pool_address(where.uniswap_factory, token0, token1, 500) == where.uniswap_pool


async def test_fees_and_principal_are_what_the_position_manager_pays(chain: Devnet) -> None:
    someone, where = await provider(chain), chain.addresses
    await trade(someone, 200_000)
    (held,) = (await look(chain, adapter(chain), someone.eoa.address)).liquidity
    token_id, me = held.token_id, someone.eoa.address
    assert held.owed0 > 0
    assert held.owed1 > 0
    # collect works out the fees first, so asking it without a transaction gives the venue's own figure
    units = {"ETH": 18, "USDC": 6}
    fees = await someone.ask(where.uniswap_position_manager, COLLECT, (token_id, me, MOST, MOST))
    assert (held.owed0, held.owed1) == (
        Decimal(fees[0]).scaleb(-units[held.asset0]), Decimal(fees[1]).scaleb(-units[held.asset1]),
    )  # fmt: skip
    position = await someone.ask(
        where.uniswap_position_manager,
        "positions(uint256)(uint96,address,address,address,uint24,int24,int24,uint128,uint256,uint256,uint128,uint128)",
        token_id,
    )
    call = (token_id, position[7], 0, 0, FOREVER)
    paid = await someone.ask(where.uniswap_position_manager, DECREASE, call)
    amounts = pool_amounts(held, await spot(someone, held))
    for amount, fee, whole, asset in zip(
        amounts, (held.owed0, held.owed1), paid, (held.asset0, held.asset1), strict=True
    ):
        assert abs(amount - fee - Decimal(whole).scaleb(-units[asset])) <= 2 * Decimal(10) ** -units[asset]


async def test_more_positions_than_were_guessed_are_all_found(chain: Devnet) -> None:
    someone = await provider(chain, positions=6)
    found = await look(chain, adapter(chain), someone.eoa.address)
    assert found.missing == ()
    assert len({one.token_id for one in found.liquidity}) == 6


async def test_a_withdrawn_position_keeps_what_is_owed_until_it_is_collected(chain: Devnet) -> None:
    someone, where = await provider(chain), chain.addresses
    (held,) = (await look(chain, adapter(chain), someone.eoa.address)).liquidity
    raw = int(held.liquidity.scaleb(12))
    await someone.do(where.uniswap_position_manager, DECREASE, (held.token_id, raw, 0, 0, FOREVER))
    (empty,) = (await look(chain, adapter(chain), someone.eoa.address)).liquidity
    assert empty.liquidity == 0
    assert min(empty.owed0, empty.owed1) > 0
    await someone.do(where.uniswap_position_manager, COLLECT, (held.token_id, someone.eoa.address, MOST, MOST))
    assert (await look(chain, adapter(chain), someone.eoa.address)).liquidity == ()


async def test_a_read_that_fails_makes_the_venue_missing(chain: Devnet) -> None:
    someone, venue = await provider(chain), adapter(chain)
    answers = await answers_to(chain, venue, someone.eoa.address)
    needed = [0, 1, *range(5, len(answers))]
    for at in needed:
        for bad in (None, b"", b"\x01"):
            bent: list[bytes | None] = list(answers)
            bent[at] = bad
            found = venue.parse(bent)
            assert [m.what for m in found.missing] == ["uniswap"]
            assert found.liquidity == ()


def test_too_many_positions_are_missing_and_not_left_out() -> None:
    venue = UniswapV3(bytes(20), bytes(20), ())
    answers = [(65).to_bytes(32), *[None] * 4]
    assert venue.more(bytes(20), answers) == ()
    assert "65 positions" in venue.parse(answers).missing[0].why


@given(st.integers(0, 2**256 - 1), st.integers(0, 2**200), st.integers(0, 2**200), st.integers(0, 2**128 - 1))
def test_fee_growth_that_wraps_around_is_still_a_difference(
    start: int, inside: int, grown: int, liquidity: int
) -> None:
    """Inside growth G over a history in which every counter began anywhere."""
    lower, upper = (-100, (start * 7) % 2**256), (100, (start * 11) % 2**256)
    growth = (inside + lower[1] + upper[1]) % 2**256
    assert growth_inside(0, lower, upper, growth) == inside
    later = growth_inside(0, lower, upper, (growth + grown) % 2**256)
    assert owed(5, liquidity, later, inside) == 5 + liquidity * grown // 2**128


def test_growth_outside_the_range_is_not_earned() -> None:
    lower, upper = (-100, 30), (100, 50)
    for tick in (-101, 100, 200):
        assert growth_inside(tick, lower, upper, 1_000) == growth_inside(tick, lower, upper, 2_000)
    assert growth_inside(99, lower, upper, 2_000) == growth_inside(99, lower, upper, 1_000) + 1_000


def test_prices_and_liquidity_are_in_whole_units() -> None:
    assert price_at(0, 18, 6) == Decimal(10) ** 12
    assert price_at(-200_311, 18, 6) == pytest.approx(Decimal("2000.0"), rel=Decimal("1e-4"))
    assert whole_liquidity(10**12, 18, 6) == 1
    assert whole_liquidity(10**13, 18, 8) == 1
    assert whole_liquidity(10**12, 18, 7) ** 2 == pytest.approx(Decimal("0.1"), rel=Decimal("1e-30"))
