"""`seawall config`: what is set, and where."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from contracts.errors import BadInput
from wallet.cli.output import AsJson, emit, profile, table

if TYPE_CHECKING:
    from rich.console import Console

app = typer.Typer(no_args_is_help=True, help="Show the resolved settings and where each came from; start a file.")


@app.command()
def show(
    ctx: typer.Context,
    origin: Annotated[bool, typer.Option("--origin", help="Say where each value comes from.")] = False,
    everything: Annotated[bool, typer.Option("--all", help="Include what is not set.")] = False,
    as_json: AsJson = False,
) -> None:
    """Print the settings this directory, environment and user give."""
    from wallet.config import shown

    config = profile(ctx)
    values = {key: shown(v) for key, v in config.values.items() if everything or v is not None}
    data: dict[str, Any] = (
        {key: {"value": value, "origin": config.origins[key]} for key, value in values.items()} if origin else values
    )

    def human(console: Console) -> None:
        columns = ["setting", "value", "origin"] if origin else ["setting", "value"]
        rows = [(key, value, config.origins[key])[: len(columns)] for key, value in values.items()]
        table(console, columns, [[_text(cell) for cell in row] for row in rows])

    emit(data, as_json, human)


def _text(value: Any) -> str:
    if value is None:
        return "-"
    if isinstance(value, bool):
        return str(value).lower()
    return ", ".join(value) if isinstance(value, list) else str(value)


@app.command()
def init(
    user: Annotated[bool, typer.Option("--user", help="Write the user's own file instead of ./seawall.toml.")] = False,
    as_json: AsJson = False,
) -> None:
    """Write a commented settings file. A new profile is read-only until you say otherwise."""
    from wallet.config import PROJECT_FILE, USER_FILE, starter, user_directory

    path = user_directory() / USER_FILE if user else Path.cwd() / PROJECT_FILE
    path.parent.mkdir(parents=True, exist_ok=True)
    try:
        with path.open("x", encoding="utf-8") as file:
            file.write(starter())
    except FileExistsError:
        raise BadInput(f"{path} exists and is never overwritten: edit it, or move it away") from None
    emit({"path": str(path)}, as_json)
