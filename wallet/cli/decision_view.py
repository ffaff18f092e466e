"""A Decision on the terminal: a table with colours for people, plain lines for a pipe; and as an HTML file."""

from __future__ import annotations

from collections.abc import Mapping
from decimal import Decimal
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from contracts.errors import BadInput, SetupError

if TYPE_CHECKING:
    from rich.console import Console

HtmlFile = Annotated[
    Path | None,
    typer.Option(
        "--html", metavar="FILE", help="Write the Decision there as a page of its own, to mail, print or archive."
    ),
]
_STYLES = {"pass": "green", "warn": "yellow", "require_signers": "yellow", "deny": "bold red"}
_OUTCOMES = {"allow": "bold green", "require_signers": "bold yellow", "deny": "bold red"}
_PARTS = 3


def write_html(path: Path | None, decision: Mapping[str, Any], id_: str = "") -> None:
    """The Decision's page, if a file was named. Raises BadInput for what is no Decision, SetupError when it cannot be written."""
    if path is None:
        return
    from policies.explain_html import explain_html

    try:
        page = explain_html(decision, id_)
    except (KeyError, TypeError, ValueError, ArithmeticError, AttributeError) as error:
        raise BadInput(f"this is no Decision ({error!r})") from None
    try:
        path.write_text(page, encoding="utf-8")
    except OSError as error:
        raise SetupError(f"{path} cannot be written: {error.strerror}") from None


def show_decision(console: Console, decision: dict[str, Any]) -> None:
    """Outcome, reasons, every limit with its figures and what it is made of, calls, sizes, warnings."""
    from policies import explain

    if not console.is_terminal:
        console.print("\n".join(explain(decision)), markup=False)
        return
    from rich.text import Text

    from policies.decision import explain_sizes

    console.print(
        Text(f"{decision['outcome'].upper()} by policy {decision['policy_name']}", _OUTCOMES[decision["outcome"]])
    )
    for text in decision["objections"]:
        console.print(Text(f"against: {text}", "red"))
    if decision["limits"]:
        console.print(_table(decision))
    for row in decision["calls"]:
        allowed = row["rule"] or "allowed by nothing"
        console.print(Text(f"call {row['title']} ({row['effect']}): {allowed}", "" if row["rule"] else "red"))
    for line in explain_sizes(decision):
        console.print(Text(line, "cyan"))
    for text in decision["warnings"]:
        console.print(Text(f"warning: {text}", "yellow"))


def _table(decision: dict[str, Any]) -> Any:
    from rich.table import Table
    from rich.text import Text

    from policies.decision import in_unit, part_in_unit

    table = Table("verdict", "limit", box=None, pad_edge=False, header_style="dim")
    for column in ("before", "after", "bound", "headroom"):
        table.add_column(column, justify="right")
    table.add_column("made of", style="dim")

    def figure(row: Mapping[str, Any], name: str) -> str:
        return "" if row[name] is None and name != "after" else in_unit(_decimal(row[name]), row["unit"])

    for row in decision["limits"]:
        parts = sorted(row["contributions"], key=lambda part: _weight(part[1]), reverse=True)
        made = ", ".join(f"{label} {part_in_unit(Decimal(value), row)}" for label, value in parts[:_PARTS])
        more = f", {len(parts) - _PARTS} more" if len(parts) > _PARTS else ""
        table.add_row(
            Text(row["verdict"], _STYLES[row["verdict"]]),
            Text(f"{row['id']} [{row['scope']}]" + (f"\n{row['reason']}" if row["reason"] else "")),
            figure(row, "before"),
            figure(row, "after"),
            f"{row['comparator']} {'change ' if row.get('of_change') else ''}{figure(row, 'bound')}",
            figure(row, "headroom"),
            Text(made + more),
        )
    return table


def _weight(text: str) -> Decimal:
    value = abs(Decimal(text))
    return value if value.is_finite() else Decimal("Infinity")


def _decimal(text: str | None) -> Decimal | None:
    return None if text is None else Decimal(text)
