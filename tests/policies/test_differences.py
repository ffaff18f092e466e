"""What changed between two files, in words and with a direction."""

from __future__ import annotations

import pytest

from policies import load
from policies.differences import Difference, differences
from tests.policies.backtest.rig import EXAMPLES
from wallet.policy_files import load_policy

BASE = """\
schema: 1
name: fund
version: "1"
facts:
  max_price_age: 10m
limits:
  - id: leverage
    metric: leverage
    max: 3
    hysteresis: 5%
  - id: turnover
    metric: turnover
    max: 5000
  - id: distance
    metric: liquidation_distance
    min: 20%
    during: {hours: "08:00-18:00"}
    escalate:
      - {beyond: 15%, action: deny}
    action: warn
calls:
  - target: perp.vault
    functions: [deposit, withdraw]
    args: {token: usdc}
exits:
  - target: perp.clearing_house
    function: closePosition
    args: {baseToken: perp.eth}
guards:
  stop_loss:
    - id: 1
      venue: perp
      asset: ETH
      drop: 12%
      slippage: 1%
      max_slippage: 5%
      oracle: {feed: feed.eth, heartbeat: 10m}
  freeze:
    guardians: [guardian, guardian_2]
    quorum: 2
approvals:
  - {id: desk, signers: [trader, risk_officer], quorum: 1}
sponsorship:
  per_day: 0.5
"""


def changed(old: str, new: str) -> list[str]:
    assert old in BASE
    return [str(d) for d in differences(load(BASE), load(BASE.replace(old, new)))]


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ("max: 3\n", "max: 2.5\n", "changed limits.leverage.max: 3 -> 2.5 (tighter)"),
        ("max: 3\n", "max: 4\n", "changed limits.leverage.max: 3 -> 4 (looser)"),
        ("min: 20%", "min: 25%", "changed limits.distance.min: 20% -> 25% (tighter)"),
        ("min: 20%", "min: 17%", "changed limits.distance.min: 20% -> 17% (looser)"),
        ("max: 5000\n", "max: 5000\n    action: warn\n", "added limits.turnover.action: warn (looser)"),
        ("    hysteresis: 5%\n", "", "removed limits.leverage.hysteresis: 5% (looser)"),
        ("hysteresis: 5%", "hysteresis: 7%", "changed limits.leverage.hysteresis: 5% -> 7% (tighter)"),
        ('    during: {hours: "08:00-18:00"}\n', "", "removed limits.distance.during: {hours: 480-1080} (tighter)"),
        (
            "    max: 5000\n",
            "    max: 5000\n    during: {days: [mon, tue]}\n",
            "added limits.turnover.during: {days: [mon, tue]} (looser)",
        ),
        (
            "    escalate:\n      - {beyond: 15%, action: deny}\n",
            "",
            "removed limits.distance.escalate: [{beyond: 15%, action: deny}] (looser)",
        ),
        ("max_price_age: 10m", "max_price_age: 90s", "changed facts.max_price_age: 10m -> 90s (tighter)"),
        ("drop: 12%", "drop: 15%", "changed guards.stop_loss.1.drop: 12% -> 15% (looser)"),
        ("slippage: 1%\n", "slippage: 2%\n", "changed guards.stop_loss.1.slippage: 1% -> 2%"),
        ("[guardian, guardian_2]", "[guardian, guardian_3]",
         "changed guards.freeze.guardians: [guardian, guardian_2] -> [guardian, guardian_3]"),
        ("quorum: 1}", "quorum: 2}", "changed approvals.desk.quorum: 1 -> 2 (tighter)"),
        ("per_day: 0.5", "per_day: 1", "changed sponsorship.per_day: 0.5 -> 1 (looser)"),
        ("sponsorship:\n  per_day: 0.5\n", "", "removed sponsorship.per_day: 0.5 (looser)"),
        ('version: "1"', 'version: "2"', "changed version: 1 -> 2"),
        (
            "functions: [deposit, withdraw]",
            "functions: [deposit]",
            ("changed calls[0]: target: perp.vault, functions: [deposit, withdraw], args: {token: usdc} -> target: perp.vault, "
            "functions: [deposit], args: {token: usdc} (tighter)"),
        ),
        (
            "functions: [deposit, withdraw]\n    args: {token: usdc}",
            "functions: [deposit, withdraw]",
            ("changed calls[0]: target: perp.vault, functions: [deposit, withdraw], args: {token: usdc} -> target: perp.vault, "
            "functions: [deposit, withdraw] (looser)"),
        ),
        (
            "calls:\n",
            "calls:\n  - {target: weth, functions: [deposit()]}\n",
            "added calls[0]: target: weth, functions: [deposit()] (looser)",
        ),
        (
            "exits:\n  - target: perp.clearing_house\n    function: closePosition\n    args: {baseToken: perp.eth}\n",
            "",
            "removed exits[0]: target: perp.clearing_house, function: closePosition, args: {baseToken: perp.eth} (tighter)",
        ),
    ],
)  # fmt: skip
def test_a_change_is_named_with_its_values_and_its_direction(old: str, new: str, said: str) -> None:
    assert changed(old, new) == [said]


def test_an_added_limit_tightens_and_a_removed_one_loosens() -> None:
    more = BASE.replace("calls:\n", "  - {id: gross, metric: gross_notional, max: 100}\ncalls:\n", 1)
    assert [str(d) for d in differences(load(BASE), load(more))] == [
        "added limits.gross: metric: gross_notional, max: 100 (tighter)"
    ]
    assert [d.direction for d in differences(load(more), load(BASE))] == ["looser"]


def test_comments_quotes_and_the_order_of_keys_are_no_difference() -> None:
    other = "# a comment\n" + BASE.replace("    max: 3\n", '    max: "3.0"\n').replace("10m\n", "600s\n", 1)
    assert differences(load(BASE), load(other)) == []
    assert load(BASE).policy_id == load(other).policy_id


def test_a_file_that_extends_another_loosens_nothing() -> None:
    parent, child = (load_policy(EXAMPLES / f"{name}.yaml") for name in ("conservative_fund", "desk_trader"))
    found = differences(parent, child)
    assert {d.direction for d in found} == {"tighter", "other"}
    assert [d for d in found if d.path.startswith("limits.") and d.direction != "tighter"] == []


def reverse(difference: Difference) -> str:
    return {"tighter": "looser", "looser": "tighter", "other": "other"}[difference.direction]


@pytest.mark.parametrize("other", ["market_maker", "retail_trader", "prop_desk", "conservative_fund_no_stop"])
def test_the_way_back_has_the_same_changes_in_the_opposite_direction(other: str) -> None:
    one, two = (load_policy(EXAMPLES / f"{name}.yaml") for name in ("conservative_fund", other))
    there, back = differences(one, two), differences(two, one)
    named = {d.path: d for d in back if not d.path.startswith(("calls", "exits"))}
    compared = [d for d in there if not d.path.startswith(("calls", "exits"))]
    assert compared
    for difference in compared:
        found = named[difference.path]
        assert (found.before, found.after) == (difference.after, difference.before)
        assert found.direction == reverse(difference), difference.path


def test_findings_come_in_the_order_of_sections() -> None:
    one, two = (load_policy(EXAMPLES / f"{name}.yaml") for name in ("conservative_fund", "market_maker"))
    sections = [d.path.partition(".")[0].partition("[")[0] for d in differences(one, two)]
    assert sections == sorted(sections, key=["name", "version", "description", "facts", "limits", "stress", "calls", "exits", "guards",
                                             "attestation", "sponsorship"].index)  # fmt: skip
