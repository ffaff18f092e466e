"""VaR and ES in live signing: past returns from files and from the feed's own rounds; short, stale and absent ones deny an increase."""

from __future__ import annotations

import json
import os
from collections.abc import AsyncIterator
from dataclasses import replace
from decimal import Decimal
from pathlib import Path

import pytest

from contracts.deploy import deploy, init_code
from contracts.devnet import Devnet
from contracts.devnet.feeds import PUSH
from contracts.eoa import TransactionSender
from contracts.errors import BadInput
from contracts.rpc import RpcClient
from contracts.types import Address, checksum
from policies.past import PastAsked
from tests.wallet.keeper_rig import free_port
from tests.wallet.test_facts import open_directly
from tests.wallet.trading_floor import POLICY, Trader, now_s, trader_on
from wallet.facts import FactsReader, adapters_of
from wallet.past import Past, RoundCache, history_file, recorded_history
from wallet.replay import bundle_of, replay
from wallet.sign import Judgement

DAY = 86_400
VAR = POLICY.replace(
    "limits:\n", "limits:\n  - {id: var, metric: value_at_risk, max: 6100, confidence: 95%, window: 40d}\n"
)
SHORTFALL = VAR.replace(
    "  - {id: var", "  - {id: es, metric: expected_shortfall, max: 9000, confidence: 95%, window: 40d}\n  - {id: var"
)


def closes_until(now: int, count: int, *, asset: str = "ETH", last_fall: str = "0.8") -> str:
    """Daily closes: flat at 1,000, the last two days fall to `last_fall` of the day before each."""
    end, prices = now - now % DAY, [Decimal(1_000)] * (count - 2)
    for _ in range(2):
        prices.append(prices[-1] * Decimal(last_fall))
    rows = [f"{end - DAY * (count - 1 - i)},{asset},{price}" for i, price in enumerate(prices)]
    return "time,asset,price\n" + "\n".join(rows) + "\n"


@pytest.fixture
async def fund(chain: Devnet, tmp_path: Path) -> AsyncIterator[Trader]:
    """A guarded account whose policy limits VaR and ES over forty days."""
    await chain.market.heartbeat()
    async with RpcClient(f"http://127.0.0.1:{free_port()}") as nobody:
        yield await trader_on(chain, tmp_path, bundler=nobody, policy=SHORTFALL)


def with_history(fund: Trader, *files: Path) -> Trader:
    reader = fund.signer.reader
    assert reader is not None
    past = Past(tuple(history_file(path) for path in files))
    return replace(fund, signer=replace(fund.signer, reader=replace(reader, past=past)))


async def judged(fund: Trader, leverage: str = "3") -> Judgement:
    return await fund.signer.judge(await fund.opening(leverage))


def row(judgement: Judgement, limit: str):  # type: ignore[no-untyped-def]
    return next(one for one in judgement.decision.limits if one.id == limit)


async def test_a_recorded_file_makes_var_and_es_limits_judge_the_order(fund: Trader, tmp_path: Path) -> None:
    """A book of 30,000 loses a fifth on two of forty days: VaR at 95 % is the third worst day, which loses nothing; ES both falls."""
    file = tmp_path / "closes.csv"
    file.write_text(closes_until(await now_s(fund.net), 41))
    judgement = await judged(with_history(fund, file), "1")
    assert judgement.facts.missing == ()
    (series,) = judgement.facts.returns
    assert (series.asset, series.period_s, series.source, len(series.values)) == ("ETH", DAY, "closes.csv", 40)
    assert series.values[-2:] == (Decimal("-0.2"), Decimal("-0.2"))
    assert 0 <= judgement.facts.block_time_s - series.until_s < DAY
    assert row(judgement, "var").after == 0
    assert row(judgement, "es").after == pytest.approx(Decimal(2_000), rel=Decimal("0.01"))
    assert judgement.decision.allowed


async def test_what_breaches_es_is_refused_with_the_size_that_passes_and_replays_to_the_same_bytes(
    fund: Trader, tmp_path: Path
) -> None:
    file = tmp_path / "closes.csv"
    file.write_text(closes_until(await now_s(fund.net), 41, last_fall="0.6"))
    judgement = await judged(with_history(fund, file), "3")
    assert judgement.facts.missing == ()
    assert [one.id for one in judgement.decision.limits if one.verdict == "deny"] == ["es"]
    assert judgement.decision.sizes is not None
    assert fund.signer.engine is not None
    bundle = json.loads(json.dumps(bundle_of(fund.signer.engine.log, "0x" + judgement.decision.id.hex())))
    again = replay(bundle)
    assert again.identical, again.differences
    assert again.decision.to_bytes() == judgement.decision.to_bytes()


async def test_a_short_history_denies_an_opening_by_name_and_lets_a_closing_pass(fund: Trader, tmp_path: Path) -> None:
    await open_directly(fund)
    file = tmp_path / "closes.csv"
    file.write_text(closes_until(await now_s(fund.net), 31))
    short = with_history(fund, file)
    refused = (await short.signer.judge(await fund.opening("0.04", collateral=0))).decision
    assert refused.outcome == "deny"
    assert any(
        "past returns of ETH is missing: 30 of 86400 s" in text and "10 are lacking" in text
        for text in refused.objections
    )
    passed = (await short.signer.judge(await fund.closing())).decision
    assert passed.allowed
    assert passed.exit_only


async def test_a_hole_in_the_history_is_named(fund: Trader, tmp_path: Path) -> None:
    file = tmp_path / "closes.csv"
    lines = closes_until(await now_s(fund.net), 60).splitlines()
    hole = lines.pop(50).split(",")[0]
    file.write_text("\n".join(lines))
    decision = (await judged(with_history(fund, file))).decision
    assert any(f"no price of ETH at {hole}" in text for text in decision.objections)


async def test_a_stale_history_denies(fund: Trader, tmp_path: Path) -> None:
    file = tmp_path / "closes.csv"
    file.write_text(closes_until(await now_s(fund.net) - 5 * DAY, 60))
    judgement = await judged(with_history(fund, file), "1")
    assert len(judgement.facts.returns[0].values) == 40
    assert any("the returns of ETH from closes.csv end" in text for text in judgement.decision.objections)


async def test_a_file_that_cannot_be_read_and_one_without_the_asset_are_missing_facts(
    fund: Trader, tmp_path: Path
) -> None:
    missing = tmp_path / "none.csv"
    facts = (await judged(with_history(fund, missing))).facts
    assert any(gap.what == "the history none.csv" for gap in facts.missing)
    other = tmp_path / "btc.csv"
    other.write_text(closes_until(await now_s(fund.net), 60, asset="BTC"))
    decision = (await judged(with_history(fund, other))).decision
    assert any("past returns of ETH is missing" in text and "rounds of feed" in text for text in decision.objections)


async def test_a_file_is_indexed_once_and_again_when_it_has_changed(tmp_path: Path) -> None:
    path = tmp_path / "closes.csv"
    path.write_text("time,asset,price\n0,ETH,1\n86400,ETH,2\n")
    file = history_file(path)
    first = await file.read()
    assert await file.read() is first
    path.write_text("time,asset,price\n0,ETH,1\n86400,ETH,2\n172800,ETH,3\n")
    os.utime(path, (5, 5))
    second = await file.read()
    assert second.closes("ETH", DAY, 10**9, 5).prices == (1, 2, 3)


def test_bars_are_known_when_they_end(tmp_path: Path) -> None:
    path = tmp_path / "eth.csv"
    path.write_text("timestamp,high,low,close\n0,2,1,1.5\n43200,3,1,2.5\n86400,3,1,2\n")
    found = recorded_history(path)
    assert found.closes("ETH", 43_200, 10**9, 9).prices == (Decimal("1.5"), Decimal("2.5"), Decimal(2))
    assert found.closes("ETH", 43_200, 10**9, 9).end_s == 129_600
    (tmp_path / "one.csv").write_text("timestamp,high,low,close\n0,2,1,1.5\n")
    with pytest.raises(BadInput, match="no length"):
        recorded_history(tmp_path / "one.csv")


async def test_a_policy_without_such_limits_reads_no_history(trader: Trader, tmp_path: Path) -> None:
    facts = (await judged(with_history(trader, tmp_path / "none.csv"))).facts
    assert (facts.returns, facts.missing) == ((), ())


# -- the feed's own rounds ----------------------------------------------------------------------------------------------------------


async def past_feed(net: Devnet, days: int, *, hole: int | None = None) -> Address:
    """A feed with a round a few minutes before every midnight, and one now. The last day fell by a fifth."""
    sender = TransactionSender(net.rpc, net.accounts.feeder, net.chain_id)
    feed = await deploy(
        sender, init_code("ReplayFeed", ["address", "uint8", "string"], [net.accounts.feeder.address, 8, "ETH / USD"])
    )
    now = await now_s(net)
    midnight = now - now % DAY
    for back in range(days, -1, -1):
        if back != hole:
            price = 3_000 if back else 2_400
            await sender.transact(feed, PUSH.encode(price * 10**8, midnight - back * DAY - 120))
    await sender.transact(feed, PUSH.encode(3_000 * 10**8, await now_s(net)))
    return feed


def reading(fund: Trader, feed: Address, cache: RoundCache) -> Trader:
    reader = fund.signer.reader
    assert reader is not None
    book = {**reader.book, "feed.eth": feed}
    chosen = FactsReader(adapters_of(book), book, fund.policy.policy_id, past=Past(cache=cache))
    return replace(fund, signer=replace(fund.signer, reader=chosen))


async def test_without_a_file_the_feeds_rounds_are_walked_back_and_kept(fund: Trader, tmp_path: Path) -> None:
    feed = await past_feed(fund.net, 40)
    cache = RoundCache(tmp_path / "feeds" / "1.db")
    judgement = await judged(reading(fund, feed, cache), "1")
    (series,) = judgement.facts.returns
    assert series.source == f"rounds of feed {checksum(feed)}"
    assert series.values == (*[Decimal(0)] * 39, Decimal("-0.2"))
    assert row(judgement, "es").after == pytest.approx(Decimal(1_000), rel=Decimal("0.01"))
    again = RoundCache(tmp_path / "feeds" / "1.db")
    known = again.of(feed)
    assert len([one for one in known.values() if one is not None]) >= 40
    calls: list[str] = []
    other = replace(fund, signer=replace(fund.signer, account=replace(fund.signer.account, rpc=counting(fund, calls))))
    assert (await judged(reading(other, feed, again), "1")).facts.returns == judgement.facts.returns
    assert calls.count("eth_call") <= 6


def counting(fund: Trader, calls: list[str]) -> RpcClient:
    """The trader's node, with the methods asked of it written down."""

    class Counting(RpcClient):
        async def call(self, method: str, *params: object) -> object:
            calls.append(method)
            return await fund.net.rpc.call(method, *params)

    return Counting(fund.net.rpc.url)


async def test_a_feed_whose_rounds_do_not_reach_back_denies_by_name(fund: Trader) -> None:
    feed = await past_feed(fund.net, 12)
    decision = (await judged(reading(fund, feed, RoundCache()))).decision
    assert any("12 of 86400 s" in text and "28 are lacking: rounds of feed" in text for text in decision.objections)


async def test_a_day_without_a_round_is_a_gap_and_says_how_old_the_newest_was(fund: Trader) -> None:
    feed = await past_feed(fund.net, 41, hole=7)
    decision = (await judged(reading(fund, feed, RoundCache()))).decision
    assert any("6 of 86400 s" in text and "86520 s old, 3600 s are taken" in text for text in decision.objections)


async def test_an_unusable_cache_file_costs_time_only(fund: Trader, tmp_path: Path) -> None:
    broken = tmp_path / "feeds.db"
    broken.write_bytes(b"this is no database" * 100)
    feed = await past_feed(fund.net, 41)
    assert (await judged(reading(fund, feed, RoundCache(broken)), "1")).facts.missing == ()


async def test_an_asset_that_nobody_has_a_past_of_says_what_to_do() -> None:
    found, (gap,) = await Past().returns(PastAsked(DAY, 2, 2), ["DOGE"], {}, None, 60)  # type: ignore[arg-type]
    assert found == ()
    assert "history = [FILE]" in gap.why
