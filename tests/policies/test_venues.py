"""Adapters: answers that are missing or malformed become missing facts; real answers add up."""

from __future__ import annotations

from dataclasses import replace
from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from contracts import bindings as b
from contracts.abi import Function
from contracts.devnet import Devnet
from contracts.devnet.market import Market
from contracts.eoa import TransactionSender
from contracts.types import Address
from contracts.units import WAD, from_units
from policies import Facts, Portfolio
from policies.doubts import doubts_about
from policies.margin import Leg, liquidation_price
from policies.portfolio import Price
from policies.venues import Adapter, Snapshot
from policies.venues.feeds import Feed
from policies.venues.perp_v2 import POSITION_CHANGED, PerpMarket, PerpV2
from policies.venues.tokens import Token, Tokens
from tests.policies.rig import DEPOSIT, OPEN, address, facts_of, policy_of

PERP = PerpV2(address("ch"), address("vault"), address("ab"), address("ex"), (PerpMarket("ETH", address("veth")),))
TOKENS = Tokens((Token("USDC", address("usdc"), 6),), address("multicall"))
FEED = Feed("ETH", address("feed"))
TRADER = address("trader")


def words(*values: int) -> bytes:
    return b"".join((v % 2**256).to_bytes(32) for v in values)


def feed_answer(answer: int, *, round_id: int = 5, updated_at: int = 99, answered_in: int = 5) -> Snapshot:
    return FEED.parse([words(round_id, answer, 98, updated_at, answered_in), None, words(8)])


def test_a_feed_gives_a_price_with_its_time_and_source() -> None:
    (price,) = feed_answer(18_145_000_000).prices
    assert (price.asset, price.value, price.time_s) == ("ETH", Decimal("181.45"), 99)
    assert price.source.startswith("feed 0x")


def test_what_stands_behind_a_feed_is_read_with_it() -> None:
    (plain,) = feed_answer(1).feeds
    assert (plain.address, plain.aggregator, plain.decimals) == (FEED.address, FEED.address, 8)
    behind = int.from_bytes(address("aggregator"))
    found = FEED.parse([words(5, 10**20, 98, 99, 5), words(behind), words(18)])
    assert found.feeds[0].aggregator == address("aggregator")
    assert found.prices[0].value == 100


@pytest.mark.parametrize(
    "snapshot",
    [
        feed_answer(0),
        feed_answer(-1),
        feed_answer(1, updated_at=0),
        feed_answer(1, answered_in=4),
        FEED.parse([None, None, words(8)]),
        FEED.parse([b"", None, words(8)]),
        FEED.parse([words(5, 1, 98, 99, 5), None, None]),
        FEED.parse([words(5, 1, 98, 99, 5), b"\x01", words(8)]),
    ],
    ids=["zero", "negative", "never updated", "old round", "reverted", "no contract", "no decimals", "no aggregator"],
)
def test_a_feed_without_a_usable_answer_is_a_missing_fact(snapshot: Snapshot) -> None:
    assert snapshot.prices == ()
    assert [m.what for m in snapshot.missing] == ["price:ETH"]


def test_tokens_and_native_coin_are_holdings_and_an_unreadable_one_is_missing() -> None:
    found = TOKENS.parse([words(1_500_000), words(2 * WAD)])
    assert [(h.asset, h.amount) for h in found.holdings] == [("USDC", Decimal("1.5")), ("ETH", Decimal(2))]
    half = TOKENS.parse([None, words(WAD)])
    assert [m.what for m in half.missing] == ["account:USDC"]
    assert [h.asset for h in half.holdings] == ["ETH"]


def perp_answers() -> list[bytes | None]:
    """Long 150 ETH opened for 30,000, mark 190, 10,000 deposited, 5 of funding owed."""
    common = [
        words(8_495 * WAD),
        words(1_781_250_000_000_000_000_000),
        words(0, -1_500 * WAD, 0),
        words(10_000 * 10**6),
        words(0),
        words(32, 1, int.from_bytes(address("veth"))),
    ]
    return [*common, words(150 * WAD), words(-30_000 * WAD), words(190 * WAD), words(5 * WAD)]


def test_a_perp_account_is_read_as_the_venue_values_it() -> None:
    found = PERP.parse(perp_answers())
    (position,), (margin,) = found.positions, found.margins
    assert (position.size, position.entry_notional, position.mark_price) == (150, 30_000, 190)
    assert position.pending_funding == 5
    assert (margin.collateral, margin.account_value, margin.maintenance_requirement) == (
        10_000,
        8_495,
        Decimal("1781.25"),
    )
    assert (
        margin.collateral + position.notional - position.entry_notional - position.pending_funding
        == margin.account_value
    )


@given(st.integers(0, 9), st.sampled_from([None, b"", b"\x01"]))
def test_one_answer_too_few_makes_the_whole_venue_missing(at: int, answer: bytes | None) -> None:
    answers = perp_answers()
    answers[at] = answer
    found = PERP.parse(answers)
    assert [m.what for m in found.missing] == ["perp"]
    assert (found.positions, found.margins) == ((), ())


def test_fills_are_the_accounts_own_trades_at_this_venue() -> None:
    def log(trader: Address, house: Address = PERP.clearing_house) -> tuple[Address, list[bytes], bytes]:
        topics = [POSITION_CHANGED.topic, bytes(12) + trader, bytes(12) + address("veth")]
        return house, topics, words(150 * WAD, -30_030 * WAD, 30 * WAD, 0, 0, 0)

    (fill,) = PERP.fills([log(TRADER), log(address("other")), log(TRADER, address("fake"))], TRADER)
    assert (fill.size, fill.quote, fill.fee) == (150, 30_030, 30)


@pytest.mark.parametrize("adapter", [PERP, TOKENS, FEED], ids=["perp", "tokens", "feed"])
def test_an_adapter_asks_the_same_number_of_questions_of_everybody(adapter: Adapter) -> None:
    assert len(adapter.reads(TRADER)) == len(adapter.reads(bytes(20)))


# -- the real venue ----------------------------------------------------------------------------------------------------------------


async def look(net: Devnet, trader: Address) -> tuple[Portfolio, tuple[Price, ...]]:
    where = net.addresses
    perp = PerpV2(
        where.perp_clearing_house, where.perp_vault, where.perp_account_balance, where.perp_exchange,
        (PerpMarket("ETH", where.perp_base_token),),
    )  # fmt: skip
    feed = Feed("ETH", where.feed_eth_usd)
    reads = [*perp.reads(trader), *feed.reads(trader)]
    answers = b.decode_multicall(await net.rpc.eth_call(where.multicall3, b.encode_multicall(reads)))
    seen, prices = perp.parse(answers[:-3]), feed.parse(answers[-3:])
    assert seen.missing == prices.missing == ()
    return Portfolio((), (), seen.positions, seen.margins), prices.prices


async def move_to(net: Devnet, price: Decimal) -> None:
    """With a driver of its own: one that lived through another test remembers prices that were undone."""
    await Market(net.rpc, net.addresses, net.accounts).move_to(int(price * WAD))


async def open_short_or_long(net: Devnet, *, is_short: bool) -> Address:
    where, trader = net.addresses, net.accounts.trader
    await TransactionSender(net.rpc, net.accounts.deployer, net.chain_id).transact(
        where.usdc, b.MINT.encode(trader.address, 10_000 * 10**6)
    )
    sender = TransactionSender(net.rpc, trader, net.chain_id)
    await sender.transact(where.usdc, b.APPROVE.encode(where.perp_vault, 10_000 * 10**6))
    await sender.transact(where.perp_vault, DEPOSIT.encode(where.usdc, 10_000 * 10**6))
    order = (where.perp_base_token, is_short, not is_short, 30_000 * WAD, 0, 2**64, 0, bytes(32))
    await sender.transact(where.perp_clearing_house, OPEN.encode(order))
    return trader.address


@pytest.mark.parametrize("is_short", [False, True], ids=["long", "short"])
async def test_the_venues_figures_add_up_and_its_liquidation_is_predicted(chain: Devnet, *, is_short: bool) -> None:
    """Through a 15 % move against the position: no figure contradicts another, and the predicted liquidation price stays put."""
    trader = await open_short_or_long(chain, is_short=is_short)
    policy = policy_of("")
    predicted: list[Decimal] = []
    start = (await look(chain, trader))[1][0].value
    for percent in (100, 95, 85):
        factor = Decimal(200 - percent if is_short else percent) / 100
        if percent != 100:
            await move_to(chain, start * factor)
        portfolio, prices = await look(chain, trader)
        (margin,), (position,) = portfolio.margins, portfolio.positions
        assert (position.size < 0) == is_short
        now_s = int((await chain.rpc.block())["timestamp"], 16)
        facts: Facts = replace(
            facts_of(policy, []),
            before=portfolio,
            after=portfolio,
            prices=prices,
            fills=(),
            orders=(),
            block_time_s=now_s,
        )
        assert doubts_about(policy, facts, now_s) == []
        legs = [Leg("ETH", position.size, position.mark_price)]
        price = liquidation_price(margin.account_value, margin.maintenance_ratio, legs, "ETH")
        assert price is not None
        predicted.append(price)
    assert max(predicted) - min(predicted) < start * Decimal("0.002")


async def test_a_liquidation_happens_where_it_was_predicted(chain: Devnet) -> None:
    trader = await open_short_or_long(chain, is_short=False)
    portfolio, _ = await look(chain, trader)
    (margin,), (position,) = portfolio.margins, portfolio.positions
    legs = [Leg("ETH", position.size, position.mark_price)]
    price = liquidation_price(margin.account_value, margin.maintenance_ratio, legs, "ETH")
    assert price is not None
    requirement = Function.parse("getMarginRequirementForLiquidation(address)(int256)")
    value = Function.parse("getAccountValue(address)(int256)")

    async def slack() -> Decimal:
        where = chain.addresses
        (needed,) = requirement.decode(await chain.rpc.eth_call(where.perp_account_balance, requirement.encode(trader)))
        (held,) = value.decode(await chain.rpc.eth_call(where.perp_clearing_house, value.encode(trader)))
        return from_units(held - needed, 18)

    await move_to(chain, price * Decimal("1.01"))
    assert await slack() > 0
    await move_to(chain, price * Decimal("0.985"))
    assert await slack() < 0
