"""Lyra's adapter: marks, minimum collateral and fills are the market's own, and what cannot be read is missing."""

from __future__ import annotations

import itertools
import math
from collections.abc import AsyncIterator, Sequence
from dataclasses import replace
from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from contracts import bindings as b
from contracts.abi import Function, encode
from contracts.devnet import Bar, Devnet
from contracts.types import Address, parse_bytes, parse_hash
from contracts.units import WAD
from policies.calls import decode_calls
from policies.doubts import doubts_about
from policies.functions import Effect
from policies.names import book_of
from policies.portfolio import Option, Portfolio
from policies.venues import Snapshot
from policies.venues.lyra import (
    GET_GREEK_CACHE_PARAMETERS,
    GET_LIVE_BOARDS,
    GET_MIN_COLLATERAL_PARAMETERS,
    GET_OWNER_POSITIONS,
    GET_SETTLEMENT_PARAMETERS,
    GET_SPOT_PRICE,
    GET_STRIKE_AND_BOARD,
    GET_TIMESTAMP,
    SLOT0,
    Lyra,
    MinCollateral,
    OptionType,
    black_scholes,
)
from tests.devnet.lyra_rig import Strike, approve, send, strikes, trade
from tests.devnet.rig import Person, person
from tests.policies.rig import ACCOUNT, NOW_S, address, facts_of, open_call, policy_of
from wallet.facts import adapters_of

WEEK_S = 604_800
LYRA = Lyra(
    "ETH",
    *(address(n) for n in ("om", "ot", "gc", "sc", "sa", "viewer", "multicall3", "susd", "seth", "pool", "usdc")),
)
PEG_SQRT = math.isqrt((10**18 << 192) // 10**6) if LYRA.quote_peg < LYRA.quote else math.isqrt((10**6 << 192) // 10**18)
RULES = MinCollateral(200, 0.2, 2.5, 2 * WEEK_S, 1.8, 8 * WEEK_S, 1.2, 0.8, 0.05)


def answers(
    *held: tuple[OptionType, int, int],
    strike: int = 200,
    quote: int = 0,
    base: int = 0,
    sqrt: int = PEG_SQRT,
    strike_id: int = 1,
) -> list[bytes | None]:
    """Reads of somebody who holds (type, amount, collateral) at strike 200, a week out, volatility 0.9 x 1.1, spot 200."""
    positions = [(i + 1, strike_id, int(k), a * WAD, c * WAD, 1) for i, (k, a, c) in enumerate(held)]
    greeks, nets = (0, 0, 0, 0, 0), (0, 0, 0)
    place = (1, 1, strike * WAD, 11 * WAD // 10, WAD, greeks, 0, 0, 0, 0, 0, 0)
    board = (LYRA.option_market, 1, NOW_S + WEEK_S, 9 * WAD // 10, 0, False, WAD, nets, [place])
    shocks = (200 * WAD, WAD // 5, 5 * WAD // 2, 2 * WEEK_S, 9 * WAD // 5, 8 * WEEK_S, 6 * WAD // 5, 4 * WAD // 5)
    cache = (30, 0, 0, 0, 0, 0, 0, 0, 0, WAD // 20)
    return [
        encode(GET_OWNER_POSITIONS.outputs, [positions]),
        encode(GET_LIVE_BOARDS.outputs, [[board]]),
        encode(GET_SPOT_PRICE.outputs, [200 * WAD]),
        encode(GET_MIN_COLLATERAL_PARAMETERS.outputs, [shocks]),
        encode(GET_GREEK_CACHE_PARAMETERS.outputs, [cache]),
        encode(GET_TIMESTAMP.outputs, [NOW_S]),
        encode(("uint256",), [quote * WAD]),
        encode(("uint256",), [base * WAD]),
        encode(SLOT0.outputs, [sqrt, 0, 0, 1, 1, 0, True]),
    ]


# Haug's formula at S = K = 200, sigma = 0.99, r = 0.05, T = 7/365, by mpmath with 30 digits.
CALL, PUT = Decimal("11.0213174934950960"), Decimal("10.8296285919031527")


def test_positions_become_options_at_the_venues_own_volatility_and_spot() -> None:
    seen = LYRA.parse(answers((OptionType.LONG_CALL, 10, 0), (OptionType.SHORT_PUT_QUOTE, 3, 500)))
    call, put = seen.options
    assert (call.asset, call.is_call, call.size, call.strike, call.expiry_s) == ("ETH", True, 10, 200, NOW_S + WEEK_S)
    assert (put.is_call, put.size) == (False, -3)
    assert call.implied_vol == put.implied_vol == Decimal("0.99")
    assert call.mark_price == pytest.approx(CALL, abs=Decimal("1e-9"))
    assert put.mark_price == pytest.approx(PUT, abs=Decimal("1e-9"))
    assert float(call.forward or 0) == pytest.approx(200 * math.exp(0.05 * 7 / 365), abs=1e-8)
    assert call.label == f"lyra:ETH-{NOW_S + WEEK_S}-200-C"


def test_a_short_is_held_against_its_own_collateral() -> None:
    seen = LYRA.parse(answers((OptionType.SHORT_PUT_QUOTE, 3, 500), (OptionType.SHORT_CALL_BASE, 2, 2)))
    (margin,) = seen.margins
    put, call = seen.options
    assert margin.collateral == 500 + 2 * 200
    assert margin.account_value == margin.collateral + put.notional + call.notional
    shocked_put = black_scholes(WEEK_S, 2.5, 160, 200, 0.05)[1]
    shocked_call = black_scholes(WEEK_S, 2.5, 240, 200, 0.05)[0]
    required = max(200, 3 * shocked_put) + 200 * max(0.2, 2 * shocked_call / 240)
    assert margin.maintenance_requirement == pytest.approx(Decimal(required), abs=Decimal("1e-5"))
    terms = dict(margin.terms)
    assert (terms["collateral.0"], terms["base_collateral.1"], terms["spot"]) == (500, 2, 200)
    assert (terms["shock_vol_a"], terms["point_a_s"], terms["now_s"]) == (Decimal("2.5"), 2 * WEEK_S, NOW_S)


def test_excess_collateral_of_one_short_does_not_secure_another() -> None:
    seen = LYRA.parse(answers((OptionType.SHORT_PUT_QUOTE, 3, 600), (OptionType.SHORT_PUT_QUOTE, 3, 10)))
    (margin,) = seen.margins
    each = margin.maintenance_requirement / 2
    assert margin.free_collateral == 600 - each


def test_synths_in_hand_are_holdings_and_susd_has_the_pools_price() -> None:
    seen = LYRA.parse(answers(quote=250, base=2))
    assert [(h.asset, h.amount) for h in seen.holdings] == [("SUSD", 250), ("ETH", 2)]
    (price,) = seen.prices
    assert (price.asset, price.time_s) == ("SUSD", NOW_S)
    assert price.value == pytest.approx(1, abs=Decimal("1e-6"))
    assert (seen.options, seen.margins, seen.missing) == ((), (), ())


@pytest.mark.parametrize("tenths_of_percent", [-8, -3, 3, 8])
def test_susd_is_never_worth_more_than_par(tenths_of_percent: int) -> None:
    worth = 1 + tenths_of_percent / 1_000
    factor = math.sqrt(worth if LYRA.quote < LYRA.quote_peg else 1 / worth)
    (price,) = LYRA.parse(answers(quote=1, sqrt=int(PEG_SQRT * factor))).prices
    assert price.value == pytest.approx(Decimal(min(worth, 1)), abs=Decimal("1e-6"))


@pytest.mark.parametrize("percent", [-40, -2, 2])
def test_a_depegged_quote_makes_the_venue_missing_for_those_who_hold_it(percent: int) -> None:
    worth = 1 + percent / 100
    sqrt = int(PEG_SQRT * math.sqrt(worth if LYRA.quote < LYRA.quote_peg else 1 / worth))
    for reads in (answers(quote=1, sqrt=sqrt), answers((OptionType.LONG_CALL, 1, 0), sqrt=sqrt)):
        seen = LYRA.parse(reads)
        assert [m.what for m in seen.missing] == ["lyra"]
        assert f"{worth:.4f} USDC" in seen.missing[0].why
        assert (seen.options, seen.margins, seen.prices) == ((), (), ())
    untouched = LYRA.parse(answers(sqrt=sqrt))
    assert (untouched.missing, untouched.prices) == ((), ())


@given(st.integers(0, 8), st.sampled_from([None, b"", b"\x01", bytes(31)]))
def test_one_answer_too_few_makes_the_whole_venue_missing(at: int, answer: bytes | None) -> None:
    reads = answers((OptionType.SHORT_PUT_QUOTE, 3, 500), quote=1)
    reads[at] = answer
    seen = LYRA.parse(reads)
    assert [m.what for m in seen.missing] == ["lyra"]
    assert (seen.options, seen.margins, seen.holdings) == ((), (), ())


def test_who_has_nothing_there_does_not_care_whether_the_market_answers() -> None:
    reads = answers()
    reads[1:5] = [None] * 4
    assert LYRA.parse(reads).missing == ()


@given(st.lists(st.integers(0, 2**256 - 1), min_size=9, max_size=9))
def test_any_words_at_all_are_parsed_or_missing(values: list[int]) -> None:
    seen = LYRA.parse([value.to_bytes(32) * 12 for value in values])
    assert isinstance(seen, Snapshot)


def settled_answers(kind: OptionType, price: int, *, collateral: int = 0) -> list[bytes | None]:
    """Both rounds of somebody who holds 5 at strike 7, which is on no board any more, and was settled at `price` (0: not)."""
    first = answers((kind, 5, collateral), strike_id=7)
    strike = (7, 200 * WAD, 11 * WAD // 10, 0, 0, 0, 0, 0, 9)
    board = (9, NOW_S - WEEK_S, 9 * WAD // 10, False, [7])
    place = encode(GET_STRIKE_AND_BOARD.outputs, [strike, board])
    return [*first, place, encode(GET_SETTLEMENT_PARAMETERS.outputs, [200 * WAD, price * WAD, 0])]


def test_strikes_that_are_no_longer_listed_are_asked_in_a_second_round() -> None:
    both = settled_answers(OptionType.LONG_CALL, 230)
    calls = [function.encode(7) for function in (GET_STRIKE_AND_BOARD, GET_SETTLEMENT_PARAMETERS)]
    assert LYRA.more(ACCOUNT, both[:9]) == tuple((LYRA.option_market, call) for call in calls)
    assert LYRA.more(ACCOUNT, both) == ()
    assert LYRA.more(ACCOUNT, answers((OptionType.LONG_CALL, 5, 0))) == ()
    assert LYRA.more(ACCOUNT, answers()) == LYRA.more(ACCOUNT, [None] * 9) == ()


@pytest.mark.parametrize(
    ("kind", "price", "mark"),
    [
        (OptionType.LONG_CALL, 230, 30),
        (OptionType.LONG_CALL, 170, 0),
        (OptionType.LONG_PUT, 170, 30),
        (OptionType.SHORT_PUT_QUOTE, 170, 30),
        (OptionType.SHORT_CALL_QUOTE, 230, 30),
    ],
)
def test_a_settled_position_is_worth_what_it_pays_whatever_the_price_is_now(
    kind: OptionType, price: int, mark: int
) -> None:
    seen = LYRA.parse(settled_answers(kind, price, collateral=0 if kind.is_long else 900))
    ((option,), (margin,)) = seen.options, seen.margins
    assert (option.mark_price, option.expiry_s, option.implied_vol) == (mark, NOW_S - WEEK_S, Decimal("0.99"))
    assert margin.account_value == (5 * mark if kind.is_long else 900 - 5 * mark)


def test_a_strike_that_is_neither_listed_nor_settled_is_missing() -> None:
    (missing,) = LYRA.parse(settled_answers(OptionType.LONG_CALL, 0)).missing
    assert missing.why == "strike 7 is held, but it is neither listed nor settled"
    (missing,) = LYRA.parse(settled_answers(OptionType.LONG_CALL, 230)[:10]).missing
    assert "settlement of strike 7" in missing.why


def test_an_option_that_is_paid_out_but_not_bought_back_is_worth_its_parity() -> None:
    call, put = black_scholes(0, 0.9, 210, 200, 0.05)
    assert (call, put) == pytest.approx((10, 0), abs=1e-6)


def test_the_venues_account_adds_up_so_that_nothing_is_doubted() -> None:
    seen = LYRA.parse(answers((OptionType.LONG_CALL, 10, 0), (OptionType.SHORT_PUT_QUOTE, 3, 700)))
    policy = policy_of("limits: []")
    facts = facts_of(policy, [open_call()])

    def with_options(book: Portfolio) -> Portfolio:
        return replace(book, options=seen.options, margins=(*book.margins, *seen.margins))

    sound = replace(facts, before=with_options(facts.before), after=with_options(facts.after))
    assert doubts_about(policy, sound, NOW_S) == doubts_about(policy, facts, NOW_S) == []
    forged = replace(sound.before, options=seen.options[:1])
    assert any("account value" in text for text in doubts_about(policy, replace(sound, before=forged), NOW_S))


def test_options_that_change_without_a_fill_are_doubted() -> None:
    seen = LYRA.parse(answers((OptionType.LONG_CALL, 10, 0)))
    policy = policy_of("limits: []")
    facts = facts_of(policy, [open_call()])
    after = replace(facts.after, options=seen.options, margins=(*facts.after.margins, *seen.margins))
    (text,) = doubts_about(policy, replace(facts, after=after), NOW_S)
    assert text.startswith("the fills at lyra do not explain the change of ETH: 10.0")


def call_effect(name: str, collateral_wad: int) -> Effect:
    data = trade(name, Strike(1, 1, WAD, 1), OptionType.SHORT_PUT_QUOTE, WAD, position=1, collateral_wad=collateral_wad)
    call = b.Call(address("om"), data)
    (decoded,) = decode_calls(ACCOUNT, b.encode_execute([call]), {"lyra.option_market": address("om")}).calls
    assert decoded.title == f"lyra.option_market.{name}"
    assert dict(decoded.arguments)["positionId"] == "1"
    return decoded.effect


@pytest.mark.parametrize(
    ("name", "collateral_wad", "effect"),
    [
        ("openPosition", 0, Effect.OPENS),
        ("closePosition", 0, Effect.REDUCES),
        ("forceClosePosition", 0, Effect.REDUCES),
        ("closePosition", 1, Effect.OPENS),
        ("forceClosePosition", 1, Effect.OPENS),
    ],
)
def test_a_close_reduces_only_when_it_cannot_take_collateral_out(
    name: str, collateral_wad: int, effect: Effect
) -> None:
    assert call_effect(name, collateral_wad) is effect


# -- against the market itself -----------------------------------------------------------------------------------------


@pytest.fixture
async def trader() -> AsyncIterator[Person]:
    """Somebody with sUSD on a devnet of the test's own, allowed to trade."""
    async with Devnet.start() as net:
        someone = person(net, net.accounts.trader)
        await approve(someone)
        yield someone


def adapter_on(net: Devnet) -> Lyra:
    book = book_of({name: parse_bytes(text) for name, text in net.addresses.to_json().items()})
    (found,) = (adapter for adapter in adapters_of(book) if isinstance(adapter, Lyra))
    return found


async def read(net: Devnet, calls: Sequence[tuple[Address, bytes]]) -> list[bytes | None]:
    answer = await net.rpc.eth_call(net.addresses.multicall3, b.encode_multicall(list(calls)))
    return list(b.decode_multicall(answer))


async def look(someone: Person) -> Snapshot:
    adapter, account = adapter_on(someone.net), someone.eoa.address
    answers = await read(someone.net, adapter.reads(account))
    if more := adapter.more(account, answers):
        answers += await read(someone.net, more)
    return adapter.parse(answers)


async def test_the_mark_is_what_the_market_charged_before_fees(trader: Person) -> None:
    boards = await strikes(trader)
    for kind in (OptionType.LONG_CALL, OptionType.LONG_PUT):
        for board in boards:
            _, premium, _ = await send(trader, trade("openPosition", board[2], kind, 10 * WAD))
            option = (await look(trader)).options[-1]
            assert (option.strike, option.size) == (board[2].price_wad // WAD, 10)
            assert option.mark_price == pytest.approx(Decimal(premium) / WAD / 10, rel=Decimal("1e-5"))


async def test_the_minimum_collateral_is_the_contracts_over_a_grid(trader: Person) -> None:
    where = trader.net.addresses
    (now_s,) = GET_TIMESTAMP.decode((await read(trader.net, [(where.multicall3, GET_TIMESTAMP.encode())]))[0] or b"")
    ask = Function.parse("getMinCollateral(uint8,uint256,uint256,uint256,uint256)(uint256)")
    grid = list(
        itertools.product(
            (OptionType.SHORT_CALL_BASE, OptionType.SHORT_CALL_QUOTE, OptionType.SHORT_PUT_QUOTE),
            (1_500, 2_900, 3_000, 4_500),
            (60, 86_400, WEEK_S, 3 * WEEK_S, 20 * WEEK_S),
            (900, 2_400, 3_000, 3_600, 9_000),
            (0.01, 1, 250),
        )
    )
    calls = [(where.multicall3, GET_TIMESTAMP.encode())]
    calls += [
        (where.lyra_greek_cache, ask.encode(k, s * WAD, now_s + left, p * WAD, int(a * WAD)))
        for k, s, left, p, a in grid
    ]
    head, *found = await read(trader.net, calls)
    elapsed = GET_TIMESTAMP.decode(head or b"")[0] - now_s
    for (kind, strike, left_s, spot, amount), answer in zip(grid, found, strict=True):
        (expected,) = ask.decode(answer or b"")
        ours = RULES.of(kind, strike, left_s - elapsed, spot, amount)
        assert ours == pytest.approx(expected / WAD, rel=1e-9, abs=1e-9), (kind, strike, left_s, spot, amount)


async def test_a_short_becomes_liquidatable_where_its_requirement_meets_its_collateral(trader: Person) -> None:
    where = trader.net.addresses
    *_, (low, *_) = await strikes(trader)
    order = trade("openPosition", low, OptionType.SHORT_PUT_QUOTE, 10 * WAD, collateral_wad=9_000 * WAD)
    position, *_ = await send(trader, order)
    probe = Function.parse("liquidatePosition(uint256,address)").encode(position, trader.eoa.address)
    for price, liquidatable in ((3_000, False), (2_700, False), (2_000, True)):
        await trader.net.market.move_to(price * WAD)
        (margin,) = (await look(trader)).margins
        (answer,) = await read(trader.net, [(where.lyra_option_market, probe)])
        assert (margin.collateral < margin.maintenance_requirement) is liquidatable
        assert (answer is not None) is liquidatable


async def test_fills_explain_every_change_of_the_position(trader: Person) -> None:
    adapter = adapter_on(trader.net)
    (_, low, strike, *_), *_ = await strikes(trader)
    market = trader.net.addresses.lyra_option_market
    orders = [
        trade("openPosition", strike, OptionType.LONG_CALL, 10 * WAD),
        trade("closePosition", strike, OptionType.LONG_CALL, 4 * WAD, position=1),
        trade("openPosition", low, OptionType.SHORT_PUT_QUOTE, 3 * WAD, collateral_wad=8_000 * WAD),
        trade("closePosition", low, OptionType.SHORT_PUT_QUOTE, 3 * WAD, position=2),
    ]
    sizes, net = [10, -4, -3, 3], Decimal(0)
    for order, size in zip(orders, sizes, strict=True):
        receipt = await trader.sender.transact(market, order)
        logs = [
            (parse_bytes(log["address"]), [parse_hash(t) for t in log["topics"]], parse_bytes(log["data"]))
            for log in receipt["logs"]
        ]
        (fill,) = adapter.fills(logs, trader.eoa.address)
        assert adapter.fills(logs, address("somebody else")) == ()
        assert (fill.venue, fill.asset, fill.size) == ("lyra", "ETH", size)
        assert fill.quote > fill.fee > 0
        net += fill.size
        held: list[Option] = list((await look(trader)).options)
        assert sum(option.size for option in held) == net


async def test_equity_changes_by_fees_and_spread_only_when_a_position_is_opened(trader: Person) -> None:
    (_, _, strike, *_), *_ = await strikes(trader)

    def equity(seen: Snapshot) -> Decimal:
        (quote, _), accounts = seen.holdings, seen.margins
        return quote.amount + sum((margin.account_value for margin in accounts), Decimal(0))

    before = equity(await look(trader))
    _, _, fee = await send(trader, trade("openPosition", strike, OptionType.LONG_CALL, 10 * WAD))
    assert before - equity(await look(trader)) == pytest.approx(Decimal(fee) / WAD, abs=Decimal("0.01"))
    assert Portfolio(options=(await look(trader)).options).assets() == {"ETH"}


async def test_a_settled_position_is_paid_what_the_adapter_said(trader: Person) -> None:
    net, where = trader.net, trader.net.addresses
    (_, _, strike, *_), *_ = await strikes(trader)
    await send(trader, trade("openPosition", strike, OptionType.LONG_CALL, 10 * WAD))
    short = trade("openPosition", strike, OptionType.SHORT_PUT_QUOTE, 2 * WAD, collateral_wad=6_000 * WAD)
    await send(trader, short)
    price = 3_100 * 10**8
    await net.market.advance(Bar(strike.expiry_s + 60, price, price, price, price))
    await net.market.release()
    await trader.do(where.lyra_option_market, "settleExpiredBoard(uint256)", strike.board_id)
    before = await look(trader)
    assert before.missing == ()
    assert [option.mark_price for option in before.options] == [3_100 - strike.price_wad // WAD, 0]
    receipt = await trader.do(where.lyra_short_collateral, "settleOptions(uint256[])", [1, 2])
    after = await look(trader)
    paid = after.holdings[0].amount - before.holdings[0].amount
    assert paid == before.margins[0].account_value
    logs = [
        (parse_bytes(log["address"]), [parse_hash(t) for t in log["topics"]], parse_bytes(log["data"]))
        for log in receipt["logs"]
    ]
    assert [fill.size for fill in adapter_on(net).fills(logs, trader.eoa.address)] == [-10, 2]
