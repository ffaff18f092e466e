"""`seawall policy backtest` and `diff`: what a policy, or a change of it, would have done over bars of the past. Asks no node."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from contracts.errors import BadInput
from wallet.cli.output import AsJson, emit, say

if TYPE_CHECKING:
    from policies.backtest import Book, Market, Result
    from policies.differences import Difference

PolicyFile = Annotated[Path, typer.Option("--policy", metavar="FILE", help="The policy file.")]
Data = Annotated[
    list[str] | None,
    typer.Option(
        "--data",
        metavar="[ASSET=]FILE",
        help="Bars, CSV or Parquet; repeat for several markets. A name that ships along, such as eth_2020-03-12 (the default), will do.",
    ),
]
BookFile = Annotated[
    Path | None, typer.Option("--book", metavar="FILE", help="What is held, and orders to judge (YAML or JSON).")
]
Strategy = Annotated[
    str | None,
    typer.Option(
        metavar="SIDE:ASSET:LEVERAGE",
        help="Instead of a book: long or short that many times the collateral from the first bar on, such as long:ETH:3.",
    ),
]
Collateral = Annotated[str, typer.Option(metavar="USDC", help="Collateral of --strategy.")]
From = Annotated[str | None, typer.Option("--from", metavar="TIME", help="First bar, UTC.")]
To = Annotated[str | None, typer.Option("--to", metavar="TIME", help="Up to, not including, this bar.")]
Gaps = Annotated[bool, typer.Option("--gaps", help="Go on where bars are missing.")]
Variables = Annotated[
    list[str] | None,
    typer.Option("--var", metavar="NAME=VALUE", help="A value for one of the policy's variables; repeatable."),
]


def backtest(
    policy: PolicyFile,
    data: Data = None,
    book: BookFile = None,
    strategy: Strategy = None,
    collateral: Collateral = "10000",
    start: From = None,
    end: To = None,
    gaps: Gaps = False,
    plot: Annotated[Path | None, typer.Option(metavar="FILE", help="Draw it, as .png, .svg or .pdf.")] = None,
    variables: Variables = None,
    as_json: AsJson = False,
) -> None:
    """Run a policy over history: limits that the market would have broken, orders refused, stops filled, accounts liquidated."""
    from policies.backtest import backtest as run
    from wallet.cli.policy import overrides
    from wallet.policy_files import load_policy

    market = read_bars(data, start, end, gaps)
    held = read_held(book, strategy, collateral, market)
    result: Result = run(load_policy(policy, overrides(variables)), held, market)
    if plot is not None:
        from wallet.backtest_chart import draw

        draw(result, plot)
        say(f"picture: {plot}")
    emit(result.to_json(), as_json, lambda console: console.print("\n".join(result.explain()), markup=False))


def read_bars(data: list[str] | None, start: str | None, end: str | None, gaps: bool) -> Market:
    """The bars that the options name. Raises BadInput."""
    from contracts.devnet.bars import shipped
    from policies.backtest import Series, align
    from wallet.market_files import read_market

    found: dict[str, Series] = {}
    for text in data or ["eth_2020-03-12"]:
        asset, equals, name = text.partition("=")
        path = Path(name if equals else text)
        if not path.exists() and not path.suffix:
            path = shipped(str(path))
        read = read_market(path, asset if equals else None)
        twice = sorted(found.keys() & read.keys())
        if twice:
            raise BadInput(f"there are two sets of bars of {twice[0]}")
        found |= read
    return align(found, from_s=_time(start, "--from"), to_s=_time(end, "--to"), gaps=gaps)


def read_held(book: Path | None, strategy: str | None, collateral: str, market: Market) -> Book:
    """The book of a file, or the one that a strategy opens at the first bar. Raises BadInput."""
    from policies.backtest import read_book
    from policies.backtest.strategy import opened
    from wallet.policy_files import read_text

    if (book is None) == (strategy is None):
        raise BadInput("give either --book FILE or --strategy SIDE:ASSET:LEVERAGE")
    if book is not None:
        return read_book(read_text(book, "book"), str(book))
    assert strategy is not None
    found: Book = opened(strategy, collateral, market)
    return found


def _time(text: str | None, option: str) -> int | None:
    if text is None:
        return None
    try:
        if text.isdigit():
            return int(text)
        moment = datetime.fromisoformat(text)
    except ValueError:
        raise BadInput(
            f"{option} must be a time such as 2020-03-12T06:00 (UTC) or unix seconds, got {text!r}"
        ) from None
    return int((moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp())


def diff(
    old: Annotated[Path, typer.Argument(metavar="OLD", help="The policy file as it was.")],
    new: Annotated[Path, typer.Argument(metavar="NEW", help="The policy file as it would be.")],
    data: Data = None,
    book: BookFile = None,
    strategy: Strategy = None,
    collateral: Collateral = "10000",
    start: From = None,
    end: To = None,
    gaps: Gaps = False,
    variables: Variables = None,
    as_json: AsJson = False,
) -> None:
    """Say in words what a change of file changes and, with a book, what it would have changed over history."""
    from policies.backtest import backtest as run
    from policies.backtest.comparison import compare
    from policies.differences import differences
    from wallet.cli.policy import overrides
    from wallet.policy_files import load_policy

    before, after = (load_policy(path, overrides(variables)) for path in (old, new))
    changes = differences(before, after)
    found = None
    if book is not None or strategy is not None:
        market = read_bars(data, start, end, gaps)
        held = read_held(book, strategy, collateral, market)
        found = compare(run(before, held, market), run(after, held, market))
    elif data is not None:
        raise BadInput("--data needs a book: give --book FILE or --strategy SIDE:ASSET:LEVERAGE")
    lines = [str(change) for change in changes] or ["the two files mean the same policy"]
    if found is not None:
        lines += ["", *found.explain()]
    body = {
        "same": before.policy_id == after.policy_id,
        "changes": [plain_change(change) for change in changes],
        "backtest": None if found is None else found.to_json(),
    }
    emit(body, as_json, lambda console: console.print("\n".join(lines), markup=False))


def plain_change(change: Difference) -> dict[str, str]:
    """One difference as JSON."""
    names = ("path", "kind", "direction", "before", "after")
    return {name: getattr(change, name) for name in names} | {"text": str(change)}
