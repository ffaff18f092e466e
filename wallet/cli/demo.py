"""`seawall demo`: carry a real position through a real crash, with and without guards."""

from __future__ import annotations

import asyncio
import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated

import typer

from contracts.errors import BadInput
from wallet.cli.output import AsJson, say

app = typer.Typer(help="Carry a real position through a real crash, with and without guards.")


def _time(text: str | None, option: str) -> int | None:
    """Unix seconds from ISO 8601 (UTC unless it says otherwise) or from a number. Raises BadInput."""
    if text is None:
        return None
    try:
        if text.isdigit():
            return int(text)
        found = datetime.fromisoformat(text)
    except ValueError:
        raise BadInput(
            f"{option} must be a time such as 2020-03-12T06:00 (UTC) or unix seconds, got {text!r}"
        ) from None
    return int((found if found.tzinfo else found.replace(tzinfo=UTC)).timestamp())


@app.callback(invoke_without_command=True)
def demo(
    data: Annotated[
        Path | None,
        typer.Option(
            help="One-minute bars: timestamp,open,high,low,close. Default: ETH on 2020-03-12, which ships along."
        ),
    ] = None,
    start: Annotated[str | None, typer.Option("--from", metavar="TIME", help="First bar, UTC.")] = None,
    end: Annotated[str | None, typer.Option("--to", metavar="TIME", help="Up to, not including, this bar.")] = None,
    policy: Annotated[
        Path | None, typer.Option(help="Policy of the protected account. Default: the conservative fund's.")
    ] = None,
    out: Annotated[Path, typer.Option(help="Folder for the chart, logs and databases.")] = Path("demo-out"),
    as_json: AsJson = False,
) -> None:
    """Two identical accounts open the same 3x long; one lives under a policy with stop-loss and freeze. Then the market crashes."""
    from rich.console import Console

    from wallet.demo.run import run

    console = Console(stderr=True, highlight=False)
    result, charts = asyncio.run(
        run(
            data=data,
            from_s=_time(start, "--from"),
            to_s=_time(end, "--to"),
            policy=policy,
            out=out,
            console=console if sys.stderr.isatty() else None,
            say=say,
        )
    )
    if as_json:
        import json

        print(json.dumps(result.to_json(), indent=1))
        return
    from wallet.demo.view import final_table, refusal_panel

    screen = Console(highlight=False)
    screen.print(refusal_panel(result.refusal))
    screen.print(final_table(result))
    screen.print(
        f"chart: {', '.join(str(path) for path in charts)}   wall time {result.wall_seconds:.0f} s", soft_wrap=True
    )
