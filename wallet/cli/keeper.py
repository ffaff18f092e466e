"""`seawall keeper`: the process that fires due guards."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated

import typer

from wallet.cli.output import PassphraseFd, PassphraseFile

app = typer.Typer(no_args_is_help=True, help="Run the keeper that fires due guards.")


@app.callback()
def _group() -> None:
    """Run the keeper that fires due guards."""


@app.command()
def run(
    ctx: typer.Context,
    rpc_url: Annotated[str | None, typer.Option(help="JSON-RPC address of the node.")] = None,
    bundler_url: Annotated[str | None, typer.Option(help="JSON-RPC address of the bundler.")] = None,
    backup_bundler_url: Annotated[
        list[str] | None, typer.Option(help="Another bundler to fall back to; repeatable.")
    ] = None,
    deployments: Annotated[Path | None, typer.Option(help="Addresses, as `seawall devnet --json` prints them.")] = None,
    key: Annotated[str | None, typer.Option(help="Name of the session key in the keystore.")] = None,
    session_key_file: Annotated[Path | None, typer.Option(help="0600 file with the session key instead.")] = None,
    session_key_fd: Annotated[
        int | None, typer.Option(help="Open descriptor that gives the session key instead.")
    ] = None,
    guard: Annotated[
        str | None,
        typer.Option(
            metavar="KIND",
            help="stop_loss (default), health_guard, auto_rebalance, delta_hedge or equity_breaker: one process a kind.",
        ),
    ] = None,
    watch: Annotated[Path | None, typer.Option(help="File of triggers; default: discover them from events.")] = None,
    from_block: Annotated[int | None, typer.Option(help="First block to search for armed stops.")] = None,
    db: Annotated[Path | None, typer.Option(help="The keeper's database.")] = None,
    host: Annotated[str | None, typer.Option(help="Where the status service listens.")] = None,
    port: Annotated[int | None, typer.Option(help="Its port; 0 takes a free one.")] = None,
    poll_ms: Annotated[int | None, typer.Option(help="How often to ask for a new head.")] = None,
    direct_fallback: Annotated[
        bool | None, typer.Option(help="Execute by plain transaction after the public delay if no bundler does.")
    ] = None,
    passphrase_file: PassphraseFile = None,
    passphrase_fd: PassphraseFd = None,
) -> None:
    """Watch heads and fire due guards until SIGTERM. Prints one JSON line with its status address once it listens."""
    from wallet.keeper.main import start
    from wallet.keystore import PassphraseSource

    flags: dict[str, object] = {
        "rpc_url": rpc_url,
        "bundler_url": bundler_url,
        "deployments": deployments,
        "keys.keeper": key,
        "keeper.backup_bundler_urls": backup_bundler_url or None,
        "keeper.session_key_file": session_key_file,
        "keeper.session_key_fd": session_key_fd,
        "keeper.guard": guard,
        "keeper.watch": watch,
        "keeper.from_block": from_block,
        "keeper.db": db,
        "keeper.host": host,
        "keeper.port": port,
        "keeper.poll_ms": poll_ms,
        "keeper.direct_fallback": direct_fallback,
    }
    start(ctx.find_root().obj, flags, PassphraseSource.of(passphrase_file, passphrase_fd, os.environ))
