"""`guards.delta_hedge`: what a file may say, what becomes of it on chain, and who may act by it."""

from __future__ import annotations

from decimal import Decimal
from typing import Any

import pytest

from contracts.artifacts import artifact
from contracts.bindings import GUARD_EXECUTE, HEDGE
from contracts.errors import BadInput
from policies.calls import describe
from policies.differences import differences
from policies.document import lint, load
from policies.functions import Effect
from policies.guards import keeper_sessions
from policies.hedges import hedge_config, hedge_fields
from policies.hooks import hook_state
from wallet.keeper.kinds import KINDS

POLICY = """\
schema: 1
name: hedged
version: "1"
limits:
  - {id: leverage, metric: leverage, max: 9}
guards:
  delta_hedge:
    - id: 6
      venue: perp
      asset: ETH
      options: lyra
      spot: weth
      target: -1.5
      band: 2
      min_trade: 0.5
      max_trade: 40
      max_position: 60
      max_turnover: 200
      oracle: {feed: feed.eth, heartbeat: 1h, max_deviation: 2%}
  freeze: {guardians: [guardian], quorum: 1}
  session: {key: keeper}
"""
_NAMES = (
    "weth", "feed.eth", "feed.sequencer", "keeper", "guardian", "perp.eth", "seawall.emergency_freeze", "seawall.delta_hedge",
    "seawall.perp_hedge_adapter", "seawall.lyra_delta", "seawall.policy_hook",
)  # fmt: skip
BOOK = {name: name.encode().rjust(20, b"\0")[-20:] for name in _NAMES}
ZERO = bytes(20)
WAD = 10**18


def test_a_file_becomes_the_struct_of_the_module() -> None:
    policy = load(POLICY)
    assert hedge_config(policy.hedges[0], policy, BOOK, 0) == (
        BOOK["seawall.emergency_freeze"], BOOK["seawall.lyra_delta"], BOOK["seawall.perp_hedge_adapter"], BOOK["perp.eth"], BOOK["weth"],
        -15 * WAD // 10, 2 * WAD, WAD // 2, 40 * WAD, 60 * WAD, 200 * WAD, 86_400, 100, 60, 600, 10_000, 0, 0,
        # A hedge can wait: no patience after which a venue that is away from the feed is traded on all the same.
        (BOOK["feed.eth"], 3600, ZERO, 1800, WAD // 100, 10**7 * WAD, 200, 0),
    )  # fmt: skip


def test_what_is_left_out_is_none_and_the_least_trade_is_the_band() -> None:
    policy = load(
        POLICY.replace("      options: lyra\n      spot: weth\n      target: -1.5\n", "")
        .replace("      min_trade: 0.5\n", "")
        .replace("  freeze: {guardians: [guardian], quorum: 1}\n", "")
    )
    fields = hedge_config(policy.hedges[0], policy, BOOK, 0)
    assert (fields[0], fields[1], fields[4], fields[5], fields[7]) == (ZERO, ZERO, ZERO, 0, 2 * WAD)


def test_bounds_are_rounded_so_that_none_gets_looser() -> None:
    policy = load(
        POLICY.replace("min_trade: 0.5", "min_trade: 0.5000000000000000001").replace(
            "max_trade: 40", "max_trade: 40.0000000000000000009"
        )
    )
    fields = hedge_config(policy.hedges[0], policy, BOOK, 0)
    assert (fields[7], fields[8]) == (WAD // 2 + 1, 40 * WAD)


def test_it_ends_when_the_file_says() -> None:
    policy = load(POLICY.replace("      band: 2\n", "      band: 2\n      valid_for: 30d\n"))
    assert hedge_config(policy.hedges[0], policy, BOOK, 1_000)[17] == 1_000 + 30 * 86_400


def test_the_keeper_may_execute_it_and_it_is_no_guard_that_acts_in_every_state() -> None:
    policy = load(POLICY)
    (session,) = keeper_sessions(policy, BOOK, 0)
    assert (session.target, session.selector) == (BOOK["seawall.delta_hedge"], GUARD_EXECUTE.selector)
    assert policy.guards == ()


def test_executing_it_is_no_reducing_call() -> None:
    account = b"\x0a" * 20
    call = describe((), bytes(20), 0, GUARD_EXECUTE.encode(account, 6), "seawall.delta_hedge", account)
    assert call.effect is Effect.OPENS


def test_a_hook_lets_the_account_execute_it_for_itself_and_its_trades_must_be_listed() -> None:
    hooked = POLICY.replace("  session:", "  hook: {}\n  session:")
    rules = hook_state(load(hooked), BOOK, b"\x0a" * 20).rules
    assert (BOOK["seawall.delta_hedge"], GUARD_EXECUTE.selector) in rules
    assert any("lets it trade nothing" in problem.message for problem in lint(hooked))
    listed = hooked.replace(
        "guards:\n", "calls:\n  - {target: perp.clearing_house, functions: [openPosition]}\nguards:\n", 1
    )
    assert not any("lets it trade nothing" in problem.message for problem in lint(listed))


def test_what_is_shown_are_units_of_the_asset() -> None:
    policy = load(POLICY)
    fields = hedge_fields(hedge_config(policy.hedges[0], policy, BOOK, 0), str)
    assert (fields["target"], fields["band"], fields["largest position"]) == ("-1.5", "2", "60")


def test_an_inherited_hedge_may_only_trade_less() -> None:
    def child(most: str) -> str:
        return POLICY.replace("schema: 1\n", "schema: 1\nextends: house\n").replace(
            "max_trade: 40", f"max_trade: {most}"
        )

    assert load(child("10"), {"house": POLICY}).hedges[0].max_trade == Decimal(10)
    with pytest.raises(BadInput, match="looser"):
        load(child("50"), {"house": POLICY})


def test_a_difference_is_told_by_hedge() -> None:
    (found,) = differences(load(POLICY), load(POLICY.replace("max_trade: 40", "max_trade: 30")))
    assert (found.path, found.after, found.direction) == ("guards.delta_hedge.6.max_trade", "30", "tighter")


def test_the_keeper_reads_its_times_and_keeps_it_on_a_lane_of_its_own() -> None:
    policy = load(POLICY)
    hedge = hedge_config(policy.hedges[0], policy, BOOK, 0)
    timing = KINDS["delta_hedge"].timing((hedge, True, 7, 1_000, 900))
    assert (timing.arming, timing.fired, timing.due_since_s) == (7, False, 1_000)
    assert (timing.public_delay_s, timing.lapse_s) == (600, 600 + 3600)
    assert len({one.lane_bit for one in KINDS.values()}) == len(KINDS)


@pytest.mark.parametrize(
    ("wrong", "complaint"),
    [
        (("band: 2", "band: 0"), "must be positive"),
        (("min_trade: 0.5", "min_trade: 3"), "at most the band"),
        (("min_trade: 0.5", "min_trade: 0"), "at most the band"),
        (("max_trade: 40", "max_trade: 0.4"), "below min_trade"),
        (("max_position: 60", "max_position: 0"), "below min_trade"),
        (("max_turnover: 200", "max_turnover: 0.1"), "below min_trade"),
        (("max_turnover: 200", "max_turnover: 200.00000001"), "nine significant digits"),
        (("spot: weth", "spot: weht"), "unknown name 'weht'"),
        (("asset: ETH", "asset: DOGE"), "no market perp.doge"),
        (("options: lyra", "options: deribit"), "lyra"),
        (("venue: perp", "venue: gmx"), "perp"),
        (("band: 2", "band: 2\n      slippage: 11%"), "between 0.01% and 10%"),
        (("heartbeat: 1h", "heartbeat: 0s"), "must be positive"),
        (("max_deviation: 2%", "deviation_patience: 5m"), "deviation_patience"),
        (("feed: feed.eth", "feed: feed.btc"), "unknown name 'feed.btc'"),
        (("max_deviation: 2%", "min_price: 5, max_price: 4"), "below max_price"),
    ],
)
def test_a_hedge_that_could_not_work_is_refused(wrong: tuple[str, str], complaint: str) -> None:
    text = POLICY.replace(*wrong)
    assert text != POLICY
    errors = [str(problem) for problem in lint(text) if problem.severity == "error"]
    assert any(complaint in error for error in errors), errors


def test_the_struct_is_that_of_the_contract() -> None:
    (arm,) = [entry for entry in artifact("DeltaHedge").abi if entry.get("name") == "arm"]

    def flat(parameter: dict[str, Any]) -> str:
        kind: str = parameter["type"]
        if not kind.startswith("tuple"):
            return kind
        return f"({','.join(flat(one) for one in parameter['components'])}){kind[5:]}"

    assert flat(arm["inputs"][1]) == HEDGE
