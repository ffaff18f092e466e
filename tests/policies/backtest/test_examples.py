"""Each shipped example, linted and back-tested on a crash that ships along: what it refuses, what breaks, what fires."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from decimal import Decimal
from pathlib import Path

import pytest

from contracts.devnet.bars import parse_time, shipped
from policies import Policy
from policies.backtest import Result, align, backtest, read_book
from policies.document import lint
from tests.policies.backtest.rig import EXAMPLES
from wallet.market_files import read_market
from wallet.policy_files import load_policy, read_policy


@dataclass(frozen=True)
class Case:
    """One example over a window: limits breached by the market, refused orders with the limits that deny, and other events."""

    name: str
    data: str
    start: str
    end: str
    breached: set[str]
    refused: dict[str, set[str]] = field(default_factory=dict)
    allowed: int = 0
    events: tuple[str, ...] = ()


CASES = [
    Case(
        "conservative_fund", "eth_2020-03-12", "2020-03-12T06:00", "2020-03-13T06:00",
        {"leverage", "stress.fifteen-bad-minutes"},
        {"buy 100 ETH at perp": {"leverage", "liquidation-distance", "stress.fifteen-bad-minutes"}},
        1, ("stop",),
    ),
    Case(
        "market_maker", "eth_2021-05-19", "2021-05-19T00:00", "2021-05-20T00:00",
        {"inventory-watch"}, {"buy 30 ETH at perp": {"slippage"}}, 3, ("stop", "stop", "stop", "stop"),
    ),
    Case(
        "retail_trader", "eth_2024-08-05", "2024-08-05T00:00", "2024-08-05T03:00",
        set(), {"buy 0.5 ETH at perp": {"exposure"}, "buy 0.1 ETH at perp": {"slippage"}}, 0, ("stop",),
    ),
    Case(
        "treasury", "eth_2020-03-12", "2020-03-12T06:00", "2020-03-13T06:00",
        {"reserve"},
        {"sell 1 ETH at perp": {"no-derivatives", "reserve", "no-orders"}, "sell 100 ETH at uniswap": {"no-orders"}},
    ),
    Case("covered_calls", "eth_2021-05-19", "2021-05-19T12:30", "2021-05-19T13:30", set()),
    Case(
        "basis_trade", "eth_2020-03-12", "2020-03-12T08:00", "2020-03-12T12:30",
        set(), {"sell 30 ETH at uniswap": {"neutral"}}, 1,
    ),
    Case(
        "delta_neutral_lp", "eth_2020-03-12", "2020-03-12T10:00", "2020-03-12T12:00",
        {"hedge-band"}, {"buy 15 ETH at perp": {"hedge-band"}}, 1,
    ),
    Case(
        "lending_loop", "eth_2020-03-12", "2020-03-13T01:00", "2020-03-13T03:00",
        {"health", "loan-to-value", "distance", "loop"}, {}, 0, ("loan",),
    ),
    Case(
        "options_seller", "eth_2020-03-12", "2020-03-12T07:50", "2020-03-12T08:20",
        {"delta", "gamma"}, {"buy 20 ETH at perp": {"delta"}},
    ),
    Case(
        "prop_desk", "eth_2021-05-19", "2021-05-19T00:00", "2021-05-19T08:00",
        {"day-loss", "drawdown"},
        {
            "buy 20 ETH at perp": {"night"},
            "buy 8 ETH at perp": {"day-loss", "drawdown", "order-size@the-trader"},
            "buy 5 ETH at perp": {"day-loss", "drawdown"},
            "buy 30 ETH at perp": {"day-loss", "drawdown", "growth"},
        },
        0, ("stop",),
    ),
]  # fmt: skip
VARIANTS = {"conservative_fund_no_stop", "desk_trader"}
"""Files beside the ten: one for the demo's twin, one that extends."""


def run(case: Case) -> Result:
    book = read_book((EXAMPLES / "books" / f"{case.name}.yaml").read_text(), case.name)
    start, end = parse_time(case.start), parse_time(case.end)
    inside = tuple(order for order in book.orders if start <= order.at_s < end)
    market = align(read_market(shipped(case.data)), from_s=start, to_s=end)
    return backtest(policy(case.name), replace(book, orders=inside), market)


def policy(name: str) -> Policy:
    return load_policy(EXAMPLES / f"{name}.yaml")


def denying(result: Result) -> dict[str, set[str]]:
    """Limits that deny each refused order; of orders alike, the first."""
    found: dict[str, set[str]] = {}
    for order in result.refused:
        rows = {row.id for row in order.decision.limits if row.verdict == "deny"}
        found.setdefault(order.title, rows)
    return found


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_the_example_does_over_a_crash_what_its_comments_say(case: Case) -> None:
    result = run(case)
    assert {row.id for row in result.limits if row.breached or row.unknown} == case.breached
    assert denying(result) == case.refused
    assert len([o for o in result.orders if o.decision.outcome == "allow"]) == case.allowed
    assert tuple(e.kind for e in result.of_kind("stop", "liquidation", "loan", "expiry")) == case.events


@pytest.mark.parametrize("file", sorted(EXAMPLES.glob("*.yaml")), ids=lambda file: file.stem)
def test_the_example_has_no_problem_and_is_annotated(file: Path) -> None:
    assert [p for p in lint(*read_policy(file)) if p.severity == "error"] == []
    assert file.read_text().startswith("# ")


def test_there_are_ten_examples_and_each_has_a_book_and_a_case() -> None:
    names = {file.stem for file in EXAMPLES.glob("*.yaml")} - VARIANTS
    assert len(names) == 10
    assert {file.stem for file in (EXAMPLES / "books").glob("*.yaml")} == names
    assert {case.name for case in CASES} == names


def test_the_twin_without_a_stop_is_liquidated_where_the_fund_is_stopped() -> None:
    case = CASES[0]
    book = read_book((EXAMPLES / "books" / "conservative_fund.yaml").read_text())
    market = align(read_market(shipped(case.data)))
    twin = backtest(policy("conservative_fund_no_stop"), book, market)
    (event,) = twin.of_kind("liquidation")
    assert twin.equity.end < run(case).equity.end / 5
    assert event.figures["left"] < Decimal(1_000)


def test_a_neutral_book_hardly_moves_in_the_crash() -> None:
    result = run(next(case for case in CASES if case.name == "basis_trade"))
    assert result.equity.max_drawdown < Decimal("0.01")
