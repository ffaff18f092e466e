"""`seawall bundler` and `seawall paymaster`: the services, with the node's address from the profile where they are told none.

Each keeps its own settings (a TOML file, `SEAWALL_BUNDLER_*` or `SEAWALL_PAYMASTER_*`, flags); `--set` reaches every one of them.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from contracts.errors import BadInput
from wallet.cli.output import AsJson, emit, profile

if TYPE_CHECKING:
    from rich.console import Console

    from bundler.settings import Settings

bundler = typer.Typer(
    no_args_is_help=True, help="Run the ERC-4337 bundler, examine its settings, tell a running one what to do."
)
paymaster = typer.Typer(no_args_is_help=True, help="Run the ERC-7677 paymaster service.")

ConfigFile = Annotated[Path | None, typer.Option("--config", metavar="FILE", help="The service's own TOML settings.")]
RpcUrl = Annotated[str | None, typer.Option(help="JSON-RPC address of the node; default: the profile's.")]
Host = Annotated[str | None, typer.Option(help="Address to listen on.")]
Port = Annotated[int | None, typer.Option(help="Port to listen on; 0 takes a free one.")]
Sets = Annotated[list[str] | None, typer.Option("--set", metavar="NAME=VALUE", help="Any other setting; repeatable.")]


@bundler.callback()
def _bundler() -> None:
    """Run the ERC-4337 bundler, examine its settings, tell a running one what to do."""


@paymaster.callback()
def _paymaster() -> None:
    """Run the ERC-7677 paymaster service."""


def _pairs(sets: list[str] | None) -> dict[str, str]:
    pairs = {}
    for text in sets or []:
        name, equals, value = text.partition("=")
        if not equals or not name:
            raise BadInput(f"--set wants NAME=VALUE, got {text!r}")
        pairs[name] = value
    return pairs


def _given(**flags: Any) -> dict[str, str]:
    return {name: str(value) for name, value in flags.items() if value is not None}


StoreUrl = Annotated[
    str | None,
    typer.Option(
        "--store", metavar="URL", help="postgresql://... in place of the SQLite file: several processes share it."
    ),
]
Database = Annotated[Path | None, typer.Option(help="SQLite file of operations and receipts.")]
ExecutorKey = Annotated[
    str | None, typer.Option(help="Name of the executor's key in the keystore; with --passphrase-file.")
]
KeyPassphrase = Annotated[Path | None, typer.Option(metavar="FILE", help="0600 file with that key's passphrase.")]
ExecutorKeyFile = Annotated[
    Path | None, typer.Option(metavar="FILE", help="0600 file with the executor's key instead.")
]
ExecutorKeyDescriptor = Annotated[int | None, typer.Option(metavar="N", help="Open descriptor that gives it instead.")]


@bundler.command("run")
def run_bundler(
    ctx: typer.Context,
    config: ConfigFile = None,
    rpc_url: RpcUrl = None,
    host: Host = None,
    port: Port = None,
    database: Database = None,
    store: StoreUrl = None,
    key: ExecutorKey = None,
    passphrase_file: KeyPassphrase = None,
    key_file: ExecutorKeyFile = None,
    key_fd: ExecutorKeyDescriptor = None,
    sets: Sets = None,
) -> None:
    """Serve until SIGTERM; SIGHUP reads the settings again. Prints one JSON line with its address once it listens."""
    from bundler.main import configure_logging, run

    read = _bundler_settings(
        ctx, config, rpc_url, host, port, database, store, key, passphrase_file, key_file, key_fd, sets
    )
    settings = read()
    settings.database.parent.mkdir(parents=True, exist_ok=True)
    configure_logging(settings.log_format)
    asyncio.run(run(settings, reread=read))


def _bundler_settings(
    ctx: typer.Context,
    config: Path | None,
    rpc_url: str | None,
    host: str | None,
    port: int | None,
    database: Path | None,
    store: str | None,
    key: str | None,
    passphrase_file: Path | None,
    key_file: Path | None,
    key_fd: int | None,
    sets: list[str] | None,
) -> Callable[[], Settings]:
    """Reads the settings, each time anew: the file, then variables, then flags; later ones win. Raises BadInput."""
    from bundler.settings import Settings, read_environment, read_toml, refuse_password
    from wallet.config import data_directory

    own = profile(ctx, {"rpc_url": rpc_url}).profile
    flags: dict[str, Any] = {}
    if key is not None:
        if passphrase_file is None:
            raise BadInput("--key needs --passphrase-file: the bundler starts without a terminal")
        flags |= {"keystore": str(own.keystore / f"{key}.json"), "password_file": str(passphrase_file)}
    flags |= _given(rpc_url=rpc_url, host=host, port=port, database=database, key_file=key_file, key_fd=key_fd)
    flags |= _given(store=store) | _pairs(sets)
    refuse_password(flags.get("store", ""))

    def read() -> Settings:
        values: dict[str, Any] = {"rpc_url": own.rpc_url, "database": str(data_directory() / "bundler.db")}
        values |= (read_toml(config) if config else {}) | read_environment(os.environ) | flags
        if isinstance(values.get("entry_points"), str):
            values["entry_points"] = values["entry_points"].split(",")
        return Settings.from_mapping(values)

    return read


@bundler.command("doctor")
def doctor(
    ctx: typer.Context,
    config: ConfigFile = None,
    rpc_url: RpcUrl = None,
    host: Host = None,
    port: Port = None,
    database: Database = None,
    store: StoreUrl = None,
    key: ExecutorKey = None,
    passphrase_file: KeyPassphrase = None,
    key_file: ExecutorKeyFile = None,
    key_fd: ExecutorKeyDescriptor = None,
    sets: Sets = None,
    as_json: AsJson = False,
) -> None:
    """Look whether a bundler with these settings would work: node, entry points, tracer, fees, key, money, disk, clock. Changes nothing.

    Takes the flags of `run`. Ends with 1 when something would keep it from working.
    """
    from bundler.doctor import examine

    read = _bundler_settings(
        ctx, config, rpc_url, host, port, database, store, key, passphrase_file, key_file, key_fd, sets
    )
    findings = asyncio.run(examine(read()))

    def show(console: Console) -> None:
        styles = {"ok": "green", "warning": "yellow", "failed": "bold red"}
        for finding in findings:
            console.print(f"[{styles[finding.level]}]{finding.level:<8}[/] {finding.what}: ", end="")
            console.print(finding.text, markup=False)
            if finding.advice:
                console.print(f"           {finding.advice}", style="dim", markup=False)

    emit([finding.to_json() for finding in findings], as_json, show)
    if any(finding.level == "failed" for finding in findings):
        raise typer.Exit(1)


@bundler.command("admin")
def admin(
    action: Annotated[str, typer.Argument(help="status, pause, resume, drain, flush, drop, ban, unban or reload.")],
    argument: Annotated[str | None, typer.Argument(help="The operation's hash, or the entity's address.")] = None,
    url: Annotated[
        str, typer.Option(envvar="SEAWALL_BUNDLER_ADMIN_URL", help="The bundler's admin address.")
    ] = "http://127.0.0.1:4338",
    token_file: Annotated[
        Path | None,
        typer.Option(metavar="FILE", envvar="SEAWALL_BUNDLER_ADMIN_TOKEN_FILE", help="0600 file with the token."),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Tell a running bundler what to do."""
    from bundler.admin import ask
    from bundler.keys import read_secret

    token = None if token_file is None else read_secret(token_file, "the file of the operator's token").strip()
    result = asyncio.run(ask(url, action, argument, token))

    def show(console: Console) -> None:
        rows = result.items() if isinstance(result, dict) else [("", result)]
        for name, value in rows:
            console.print(f"{name:<16} {value}" if name else f"{value}", markup=False)

    emit(result, as_json, show)


@paymaster.command("run")
def run_paymaster(
    ctx: typer.Context,
    config: ConfigFile = None,
    rpc_url: RpcUrl = None,
    host: Host = None,
    port: Port = None,
    ledger: Annotated[Path | None, typer.Option(help="SQLite file of promises and costs.")] = None,
    key: Annotated[
        str | None, typer.Option(help="Name of the signing key in the keystore; with --passphrase-file.")
    ] = None,
    passphrase_file: Annotated[
        Path | None, typer.Option(metavar="FILE", help="0600 file with that key's passphrase.")
    ] = None,
    key_file: Annotated[
        Path | None, typer.Option(metavar="FILE", help="0600 file with the signing key instead.")
    ] = None,
    sets: Sets = None,
) -> None:
    """Serve until SIGTERM. Prints one JSON line with its address once it listens."""
    import logging
    import sys

    from paymaster.main import run
    from paymaster.settings import load

    own = profile(ctx, {"rpc_url": rpc_url}).profile
    flags = _given(rpc_url=rpc_url, host=host, port=port, ledger=ledger)
    if key is not None:
        if passphrase_file is None:
            raise BadInput("--key needs --passphrase-file: the service starts without a terminal")
        flags |= {"signer.keystore": str(own.keystore / f"{key}.json"), "signer.password_file": str(passphrase_file)}
    if key_file is not None:
        flags["signer.key_file"] = str(key_file)
    environment = {"SEAWALL_PAYMASTER_RPC_URL": own.rpc_url} if config is None else {}
    logging.basicConfig(level=logging.INFO, stream=sys.stderr, format="%(asctime)s %(levelname)s %(name)s %(message)s")
    asyncio.run(run(load(config, environment | dict(os.environ), flags | _pairs(sets))))
