"""`guards.rebalance`: what a file may say, what becomes of it on chain, and who may act by it."""

from __future__ import annotations

from decimal import Decimal

import pytest

from contracts.bindings import BASKET, GUARD_EXECUTE
from contracts.errors import BadInput
from policies.calls import describe
from policies.differences import differences
from policies.document import lint, load
from policies.functions import Effect
from policies.guards import keeper_sessions
from policies.hooks import hook_state
from policies.rebalances import basket_fields, rebalance_config
from wallet.keeper.kinds import KINDS

BASKET_TEXT = """\
    - id: 5
      venue: uniswap
      cash: usdc
      cash_band: 5%
      cash_oracle: {feed: feed.usdc, heartbeat: 1d}
      assets:
        - {token: weth, weight: 50%, band: 5%, pool_fees: [0.3%, 0.05%], oracle: {feed: feed.eth, heartbeat: 1h, max_deviation: 2%}}
        - {token: wbtc, weight: 12.5%, band: 2.5%, pool_fees: [1%], oracle: {feed: feed.eth, heartbeat: 1d}}
      every: week
      utc_offset: "-02:30"
      min_trade: 100
      max_turnover: 50000
      slippage: 0.5%
"""
POLICY = f"""\
schema: 1
name: balanced
version: "1"
addresses: {{wbtc: "0x1111111111111111111111111111111111111111"}}
limits:
  - {{id: leverage, metric: leverage, max: 1.1}}
guards:
  rebalance:
{BASKET_TEXT}  freeze: {{guardians: [guardian], quorum: 1}}
  session: {{key: keeper}}
"""
_NAMES = (
    "usdc", "weth", "feed.eth", "feed.usdc", "feed.sequencer", "keeper", "guardian", "seawall.emergency_freeze",
    "seawall.auto_rebalance", "seawall.uniswap_route_adapter", "seawall.policy_hook",
)  # fmt: skip
BOOK = {name: name.encode().rjust(20, b"\0")[-20:] for name in _NAMES}
ZERO = bytes(20)
WAD = 10**18


def test_a_file_becomes_the_struct_of_the_module() -> None:
    policy = load(POLICY)
    (rule,) = policy.rebalances
    *settings, assets = rebalance_config(rule, policy, BOOK, 0)
    assert settings == [
        BOOK["seawall.emergency_freeze"], BOOK["usdc"], 500,
        (BOOK["feed.usdc"], 86_400, ZERO, 1800, WAD // 100, 10**7 * WAD, 500, 0),
        True, 3, -150, 100 * WAD, 50_000 * WAD, 86_400, 50, 300, 3600, 10_000, 0, 0,
    ]  # fmt: skip
    adapter = BOOK["seawall.uniswap_route_adapter"]
    assert isinstance(assets, tuple)
    assert assets[0][:3] == (BOOK["weth"], 5000, 500)
    # A rebalance can wait: no patience after which a pool that is away from its feed is used all the same.
    assert assets[0][3] == (BOOK["feed.eth"], 3600, ZERO, 1800, WAD // 100, 10**7 * WAD, 200, 0)
    assert assets[0][4] == [(adapter, 3000), (adapter, 500), (ZERO, 0)]
    assert assets[1][:3] == (bytes.fromhex("11" * 20), 1250, 250)
    assert assets[1][4] == [(adapter, 10_000), (ZERO, 0), (ZERO, 0)]


def test_bounds_are_rounded_so_that_none_gets_looser() -> None:
    policy = load(
        POLICY.replace("min_trade: 100", "min_trade: 100.0000000000000000001").replace(
            "slippage: 0.5%", "slippage: 0.509%"
        )
    )
    fields = rebalance_config(policy.rebalances[0], policy, BOOK, 0)
    assert fields[7] == 100 * WAD + 1
    assert fields[10] == 50


def test_without_a_cash_oracle_the_cash_is_the_unit_and_without_a_freeze_there_is_no_authority() -> None:
    policy = load(
        POLICY.replace("      cash_oracle: {feed: feed.usdc, heartbeat: 1d}\n", "").replace(
            "  freeze: {guardians: [guardian], quorum: 1}\n", ""
        )
    )
    fields = rebalance_config(policy.rebalances[0], policy, BOOK, 100)
    assert fields[0] == ZERO
    assert fields[3] == (ZERO, 0, ZERO, 0, 0, 0, 0, 0)


def test_it_ends_when_the_file_says() -> None:
    policy = load(POLICY.replace("      every: week\n", "      every: week\n      valid_for: 30d\n"))
    assert rebalance_config(policy.rebalances[0], policy, BOOK, 1_000)[15] == 1_000 + 30 * 86_400


def test_the_keeper_may_execute_it_and_it_is_no_guard_that_acts_in_every_state() -> None:
    policy = load(POLICY)
    (session,) = keeper_sessions(policy, BOOK, 0)
    assert (session.target, session.selector) == (BOOK["seawall.auto_rebalance"], GUARD_EXECUTE.selector)
    assert policy.guards == ()
    assert policy.triggers == ("seawall.auto_rebalance",)


def test_executing_it_is_no_reducing_call() -> None:
    account = b"\x0a" * 20
    data = GUARD_EXECUTE.encode(account, 5)
    effects = [
        describe((), bytes(20), 0, data, name, account).effect
        for name in ("seawall.auto_rebalance", "seawall.stop_loss")
    ]
    assert effects == [Effect.OPENS, Effect.REDUCES]


def test_a_hook_lets_the_account_execute_it_for_itself() -> None:
    policy = load(POLICY.replace("  session:", "  hook: {}\n  session:"))
    rules = hook_state(policy, BOOK, b"\x0a" * 20).rules
    assert (BOOK["seawall.auto_rebalance"], GUARD_EXECUTE.selector) in rules


def test_what_is_shown_names_tokens_and_weights() -> None:
    policy = load(POLICY)
    fields = basket_fields(rebalance_config(policy.rebalances[0], policy, BOOK, 0), str)
    assert fields["calendar"] == "week"
    assert fields["least trade"] == "100"
    assert fields["most turnover"] == "50000"
    assert fields[f"weight of {BOOK['weth']!s}"] == "5000 bps, band 500 bps"


def test_an_inherited_basket_may_only_trade_less() -> None:
    def child(most: str) -> str:
        return POLICY.replace("schema: 1\n", "schema: 1\nextends: house\n").replace("50000", most)

    assert load(child("10000"), {"house": POLICY}).rebalances[0].max_turnover == Decimal(10_000)
    with pytest.raises(BadInput, match="looser"):
        load(child("60000"), {"house": POLICY})


def test_a_difference_is_told_by_basket() -> None:
    (found,) = differences(load(POLICY), load(POLICY.replace("max_turnover: 50000", "max_turnover: 40000")))
    assert (found.path, found.after, found.direction) == ("guards.rebalance.5.max_turnover", "40000", "tighter")


def test_the_keeper_reads_its_times_and_keeps_it_on_a_lane_of_its_own() -> None:
    kind = KINDS["auto_rebalance"]
    policy = load(POLICY)
    basket = rebalance_config(policy.rebalances[0], policy, BOOK, 0)
    timing = kind.timing((basket, True, 7, 1_000, 900))
    assert (timing.arming, timing.fired, timing.due_since_s) == (7, False, 1_000)
    assert (timing.public_delay_s, timing.lapse_s) == (3600, 3600 + 3600)
    nothing = (*[0] * 16, ())
    assert kind.timing((nothing, False, 3, 0, 0)).arming == 3
    assert len({one.lane_bit for one in KINDS.values()}) == len(KINDS)


@pytest.mark.parametrize(
    ("wrong", "complaint"),
    [
        (("weight: 50%", "weight: 90%"), "the weights are 102.5"),
        (("weight: 12.5%", "weight: 12.505%"), "whole basis points"),
        (("token: wbtc", "token: weth"), "in the basket already"),
        (("token: wbtc", "token: usdc"), "in the basket already"),
        (("token: wbtc", "token: doge"), "unknown name 'doge'"),
        (("band: 2.5%", "band: 0.4%"), "must be from slippage"),
        (("cash_band: 5%", "cash_band: 0.4%"), "must be from slippage"),
        (("pool_fees: [1%]", "pool_fees: [1%, 2%, 3%, 4%]"), "compares 3 pools"),
        (("pool_fees: [1%]", "pool_fees: [100%]"), "no fee tier"),
        (("pool_fees: [1%]", "pool_fees: [0.00001%]"), "no fee tier"),
        (("min_trade: 100", "min_trade: 0"), "must be positive"),
        (("max_turnover: 50000", "max_turnover: 50"), "below min_trade"),
        (("max_turnover: 50000", "max_turnover: 50000.000001"), "nine significant digits"),
        (("slippage: 0.5%", "slippage: 11%"), "between 0.01% and 10%"),
        (("slippage: 0.5%", "slippage: 0%"), "between 0.01% and 10%"),
        (("      every: week\n", "      on_drift: false\n"), "never due"),
        (("      every: week\n", ""), "beside every only"),
        (("heartbeat: 1h", "heartbeat: 0s"), "must be positive"),
        (("max_deviation: 2%", "max_deviation: 2%, min_price: 5, max_price: 4"), "below max_price"),
        (("feed: feed.eth, heartbeat: 1d", "feed: feed.btc, heartbeat: 1d"), "unknown name 'feed.btc'"),
        (("max_deviation: 2%", "deviation_patience: 5m"), "deviation_patience"),
        (("every: week", "every: year"), "day, week"),
        (("venue: uniswap", "venue: curve"), "uniswap"),
        (("slippage: 0.5%", "refund_cap: -1"), "must not be negative"),
    ],
)
def test_a_basket_that_could_not_work_is_refused(wrong: tuple[str, str], complaint: str) -> None:
    text = POLICY.replace(*wrong)
    assert text != POLICY
    errors = [str(problem) for problem in lint(text) if problem.severity == "error"]
    assert any(complaint in error for error in errors), errors


def test_nine_assets_are_too_many() -> None:
    one = "        - {{token: '0x{:040x}', weight: 1%, band: 5%, pool_fees: [1%], oracle: {{feed: feed.eth, heartbeat: 1d}}}}\n"
    many = "".join(one.format(i + 1) for i in range(9))
    start, end = POLICY.index("        - {token: weth"), POLICY.index("      every:")
    with pytest.raises(BadInput, match="keeps 8"):
        load(POLICY[:start] + many + POLICY[end:])


def test_a_hook_that_would_let_it_trade_nothing_is_told() -> None:
    hooked = POLICY.replace("  session:", "  hook: {}\n  session:")
    assert any("lets it trade nothing" in problem.message for problem in lint(hooked))
    listed = hooked.replace(
        "guards:\n", "calls:\n  - {target: uniswap.router, functions: [exactInputSingle]}\nguards:\n", 1
    )
    assert not any("lets it trade nothing" in problem.message for problem in lint(listed))


def test_a_basket_without_a_session_waits_for_the_public() -> None:
    text = POLICY.replace("  session: {key: keeper}\n", "")
    assert any("public_delay" in problem.message for problem in lint(text) if problem.path == "guards.rebalance")


def test_the_struct_is_that_of_the_contract() -> None:
    from contracts.artifacts import artifact

    (arm,) = [entry for entry in artifact("AutoRebalance").abi if entry.get("name") == "arm"]

    def flat(parameter: dict[str, object]) -> str:
        kind = str(parameter["type"])
        if not kind.startswith("tuple"):
            return kind
        inner = ",".join(flat(one) for one in parameter["components"])  # type: ignore[attr-defined]
        return f"({inner}){kind[5:]}"

    assert flat(arm["inputs"][1]) == BASKET
