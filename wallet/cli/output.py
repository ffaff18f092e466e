"""How every command answers: one JSON document with `--json`, else a table or a few lines made by Rich."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from rich.console import Console

    from wallet.config import Config

AsJson = Annotated[bool, typer.Option("--json", help="Print data as JSON, errors too.")]
PassphraseFile = Annotated[
    Path | None, typer.Option("--passphrase-file", metavar="FILE", help="File with the passphrase; must be mode 0600.")
]
PassphraseFd = Annotated[
    int | None, typer.Option("--passphrase-fd", metavar="N", help="Open file descriptor that gives the passphrase.")
]


def emit(data: Any, as_json: bool, show: Callable[[Console], None] | None = None) -> None:
    """The answer on stdout: `data` as JSON, else what `show` prints (by default the items of `data`, one a line)."""
    if as_json:
        print(json.dumps(data, indent=1), flush=True)
        return
    from rich.console import Console

    console = Console(highlight=False, soft_wrap=True, width=None if sys.stdout.isatty() else 1000)
    if show is not None:
        show(console)
    elif isinstance(data, Mapping):
        for name, value in data.items():
            console.print(f"[dim]{name:<16}[/dim] {value}", markup=True)
    else:
        console.print(data, markup=False)


def table(console: Console, columns: Sequence[str], rows: Iterable[Sequence[object]]) -> None:
    """A plain table: aligned columns, no frame, so that it also reads well in a pipe."""
    from rich.table import Table
    from rich.text import Text

    grid = Table(*columns, box=None, pad_edge=False, header_style="dim")
    for row in rows:
        grid.add_row(*(Text(str(cell)) for cell in row))
    console.print(grid, soft_wrap=True)


def say(text: str) -> None:
    """A word to the person at the terminal, on stderr."""
    print(text, file=sys.stderr)


def profile(ctx: typer.Context, flags: Mapping[str, object] | None = None) -> Config:
    """The resolved settings for this command line: `flags` by dotted key, and the root's --config. Raises BadInput, SetupError."""
    import os

    from wallet.config import resolve

    return resolve(flags, environment=os.environ, project_file=ctx.find_root().obj)
