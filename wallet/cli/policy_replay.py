"""`seawall policy replay`: a past decision made again from what was recorded."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from contracts.errors import BadInput, OperationFailed
from wallet.cli.decision_view import HtmlFile, show_decision, write_html
from wallet.cli.output import AsJson, emit
from wallet.cli.policy_audit import LogFile, log_of

if TYPE_CHECKING:
    from rich.console import Console


def replay(
    ctx: typer.Context,
    which: Annotated[
        str,
        typer.Argument(metavar="DECISION", help="Its id or its entry's number, or a FILE that --save wrote."),
    ],
    log: LogFile = None,
    save: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE", help="Write decision, facts, policy and simulations there: all that a replay needs."
        ),
    ] = None,
    html: HtmlFile = None,
    as_json: AsJson = False,
) -> None:
    """Judge a recorded decision again from its recorded facts, and compare byte for byte. Exit code 7 if it comes out different."""
    from wallet.replay import bundle_of
    from wallet.replay import replay as again

    bundle = _read(Path(which)) if Path(which).is_file() else bundle_of(log_of(ctx, log), which)
    if save is not None:
        save.write_text(json.dumps(bundle, indent=1, sort_keys=True) + "\n")
    found = again(bundle)
    write_html(html, found.decision.to_json(), found.id)

    def show(console: Console) -> None:
        show_decision(console, found.decision.to_json())
        for note in found.notes:
            console.print(f"note: {note}", markup=False)
        for difference in found.differences:
            console.print(str(difference), style="red", markup=False)
        verdict = "the same bytes" if found.identical else f"DIFFERENT in {len(found.differences)} place(s)"
        console.print(f"decision {found.id}, recorded by Seawall {found.recorded_by}: {verdict}", markup=False)

    emit(found.to_json(), as_json, show)
    if not found.identical:
        raise typer.Exit(OperationFailed.exit_code)


def _read(path: Path) -> Any:
    from wallet.policy_files import read_text

    try:
        return json.loads(read_text(path, "recorded decision"))
    except ValueError as error:
        raise BadInput(f"{path} is not JSON: {error}") from None
