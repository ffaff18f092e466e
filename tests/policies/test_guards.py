"""From `guards` and `exits` to what the modules on chain are configured with."""

from __future__ import annotations

from decimal import Decimal

import pytest

from contracts import abi
from contracts.bindings import ARM_STOP, GUARD_EXECUTE, Exit
from contracts.errors import BadInput
from contracts.units import WAD
from policies import load
from policies.guards import freeze_config, keeper_sessions
from policies.names import KNOWN
from policies.stops import StopConfig, stop_config
from tests.policies.rig import ACCOUNT, BOOK, CLOSE, NOW_S, address, example, policy_of

PAIR = ["address", "address", "uint24"]
EVERY_NAME = {name: address(name) for name in KNOWN}
FUND = load(example("conservative_fund"))


def trigger(entry: str, *, is_long: bool) -> int:
    return stop_config(FUND.stops[0], FUND, BOOK, entry_price=Decimal(entry), is_long=is_long, now_s=NOW_S).trigger_wad


def test_a_stop_triggers_at_its_drop_from_the_entry_on_the_side_of_the_loss() -> None:
    assert trigger("200", is_long=True) == 176 * WAD
    assert trigger("200", is_long=False) == 224 * WAD


def test_a_trigger_is_rounded_towards_the_entry() -> None:
    assert trigger("0.000000000000000001", is_long=True) == 1
    assert trigger("1.000000000000000001", is_long=True) == 880000000000000001
    assert trigger("1.000000000000000001", is_long=False) == 1120000000000000001


def test_a_stop_has_the_fields_of_its_solidity_struct() -> None:
    found = stop_config(FUND.stops[0], FUND, BOOK, entry_price=Decimal(200), is_long=True, now_s=NOW_S)
    identity, stop = ARM_STOP.decode_input(found.arm())
    assert identity == found.id == 1
    adapter, market, below, price, size, most, slippage, widest, widen, cooldown, public, *rest = stop
    share, cap, expiry, *whole, oracle = rest
    assert (adapter, market) == (BOOK["seawall.perp_adapter"], bytes(12) + BOOK["perp.eth"])
    assert (below, price, size, most) == (True, 176 * WAD, 10_000, 2**128 - 1)
    assert (slippage, widest, widen, cooldown, public) == (100, 500, 120, 30, 120)
    assert (share, cap, expiry, whole) == (10_000, 10**16, 0, [0, 0, 0, 0, 0])
    assert oracle == (
        BOOK["feed.eth"], 600, BOOK["feed.sequencer"], 600, 10**16, 10_000_000 * WAD, 300, 120,
    )  # fmt: skip


def test_an_absolute_price_is_taken_as_it_is() -> None:
    policy = policy_of(
        "guards: {stop_loss: [{id: 3, venue: perp, asset: ETH, price: 159.5, slippage: 1%, max_slippage: 2%, valid_for: 1d, "
        "size: 50%, max_size_per_execution: 2.5, oracle: {feed: feed.eth, heartbeat: 1h}}]}\n"
    )
    found = stop_config(policy.stops[0], policy, BOOK, entry_price=Decimal(200), is_long=True, now_s=NOW_S)
    assert found.trigger_wad == 159_500_000_000_000_000_000
    assert found.stop[4:6] == (5_000, 2_500_000_000_000_000_000)
    assert found.stop[13] == NOW_S + 86_400


FOLLOWING = (
    "guards: {stop_loss: [{id: 3, venue: perp, asset: ETH, %s, slippage: 1%%, max_slippage: 2%%, "
    "oracle: {feed: feed.eth, heartbeat: 1h}}]}\n"
)


def following(terms: str, *, is_long: bool = True) -> StopConfig:
    policy = policy_of(FOLLOWING % terms)
    return stop_config(policy.stops[0], policy, BOOK, entry_price=Decimal(200), is_long=is_long, now_s=NOW_S)


def test_a_trailing_stop_starts_at_the_entry_price_on_the_side_of_the_loss() -> None:
    found = following("trail: 7.5%")
    assert (found.trigger_wad, found.is_below, found.stop[16:18]) == (200 * WAD, True, (0, 750))
    assert following("trail: 7.5%", is_long=False).is_below is False


def test_a_trailing_stop_may_start_elsewhere_and_follow_at_a_distance() -> None:
    found = following("trail_distance: 12.5, start: 210")
    assert (found.trigger_wad, found.stop[16:18]) == (210 * WAD, (12_500_000_000_000_000_000, 0))


def test_a_distance_as_large_as_the_entry_price_is_refused_for_a_long_alone() -> None:
    with pytest.raises(BadInput, match="leaves no price to fire at"):
        following("trail_distance: 200")
    assert following("trail_distance: 200", is_long=False).stop[16] == 200 * WAD


def test_a_trailing_stop_of_a_venue_without_entry_prices_says_what_to_write() -> None:
    policy = policy_of(FOLLOWING % "trail: 5%")
    with pytest.raises(BadInput, match="write `start` instead"):
        stop_config(policy.stops[0], policy, BOOK, entry_price=None, is_long=True, now_s=NOW_S)


def test_an_amount_takes_the_place_of_the_share() -> None:
    found = following("price: 150, amount: 2.5, dust: 0.01, group: 7")
    assert found.stop[4] == 0
    assert found.stop[14:19] == (2_500_000_000_000_000_000, 10**16, 0, 0, 7)


ELSEWHERE = (
    "guards: {stop_loss: [{id: 3, %s, slippage: 1%%, max_slippage: 2%%, oracle: {feed: feed.eth, heartbeat: 1h}}]}\n"
)


@pytest.mark.parametrize(
    ("stop", "adapter", "types", "market"),
    [
        ("venue: uniswap, token: weth, quote: usdc, pool_fee: 0.05%", "uniswap_adapter", PAIR, ("weth", "usdc", 500)),
        ("venue: aave, token: weth, quote: usdc", "aave_unwind_adapter", PAIR, ("weth", "usdc", 3000)),
        ("venue: lyra, position: 7", "lyra_adapter", ["uint256"], (7,)),
        ("venue: perp, asset: ETH", "perp_adapter", ["address"], ("perp.eth",)),
    ],
)
@pytest.mark.parametrize("is_long", [True, False])
@pytest.mark.parametrize("is_profit", [True, False])
def test_every_venue_has_its_adapter_and_its_market_and_a_take_profit_looks_the_other_way(
    stop: str, adapter: str, types: list[str], market: tuple[str | int, ...], is_long: bool, is_profit: bool
) -> None:
    policy = policy_of(ELSEWHERE % f"{stop}, price: 90{', take_profit: true' if is_profit else ''}")
    found = stop_config(policy.stops[0], policy, EVERY_NAME, entry_price=None, is_long=is_long, now_s=NOW_S)
    named = [EVERY_NAME[one] if isinstance(one, str) else one for one in market]
    assert found.stop[:2] == (EVERY_NAME[f"seawall.{adapter}"], abi.encode(types, named))
    assert found.is_below is (is_long != is_profit)
    assert found.trigger_wad == 90 * WAD


def test_a_gain_is_counted_from_the_entry_in_the_positions_favour() -> None:
    policy = policy_of(ELSEWHERE % "venue: perp, asset: ETH, gain: 25%")
    for is_long, trigger_wad in ((True, 250 * WAD), (False, 150 * WAD)):
        found = stop_config(policy.stops[0], policy, BOOK, entry_price=Decimal(200), is_long=is_long, now_s=NOW_S)
        assert (found.trigger_wad, found.is_below) == (trigger_wad, not is_long)
    with pytest.raises(BadInput, match="tells no entry price"):
        stop_config(policy.stops[0], policy, BOOK, entry_price=None, is_long=True, now_s=NOW_S)


def test_freeze_has_guardians_times_guards_and_exits() -> None:
    config = freeze_config(FUND, BOOK, ACCOUNT)
    assert config.guardians == (BOOK["guardian"],)
    assert (config.quorum, config.solo_freeze_s, config.solo_cooldown_s) == (1, 1_800, 3_600)
    assert (config.thaw_delay_s, config.escape_delay_s) == (600, 86_400)
    assert config.guards == (BOOK["seawall.stop_loss"],)
    close, reduce_ = config.exits
    assert close == Exit(
        BOOK["perp.clearing_house"], CLOSE.selector, False, arg_mask=1, args=(bytes(12) + BOOK["perp.eth"],)
    )
    assert (reduce_.target, reduce_.in_frozen, reduce_.arg_mask) == (BOOK["seawall.stop_loss"], True, 0)
    assert config.encode()


def test_an_exit_may_pin_numbers_flags_and_words() -> None:
    word = "0x" + "ab" * 32
    policy = policy_of(
        "guards: {freeze: {guardians: [guardian], quorum: 1}}\n"
        "exits:\n"
        f"  - {{target: aave.pool, function: 'f(bytes32,uint256,bool,address)', args: {{0: '{word}', 1: 7, 2: 'true', 3: account}}}}\n"
        "  - {target: treasury, plain_value: true}\n"
    )
    first, second = freeze_config(policy, BOOK | {"aave.pool": address("aave")}, ACCOUNT).exits
    assert first.arg_mask == 0b1111
    assert first.args == (b"\xab" * 32, (7).to_bytes(32), (1).to_bytes(32), bytes(12) + ACCOUNT)
    assert (second.plain_value, second.selector) == (True, bytes(4))


def test_the_keeper_may_execute_stops_and_nothing_else() -> None:
    (session,) = keeper_sessions(FUND, BOOK, NOW_S)
    assert (session.key, session.target, session.selector) == (
        BOOK["keeper"],
        BOOK["seawall.stop_loss"],
        GUARD_EXECUTE.selector,
    )
    assert session.valid_until_s == NOW_S + 30 * 86_400
    assert session.prefund_budget_wei == 5 * 10**17
    assert keeper_sessions(load(example("conservative_fund_no_stop")), BOOK, NOW_S) == ()


def test_a_name_that_nothing_is_bound_to_is_an_error_never_a_zero_address() -> None:
    book = {name: where for name, where in BOOK.items() if name != "guardian"}
    with pytest.raises(BadInput, match="names 'guardian', which has no address here"):
        freeze_config(FUND, book, ACCOUNT)
