"""`seawall bundler` and `seawall paymaster`: the services, with the node's address from the profile where they are told none.

Each keeps its own settings (a TOML file, `SEAWALL_BUNDLER_*` or `SEAWALL_PAYMASTER_*`, flags); `--set` reaches every one of them.
"""

from __future__ import annotations

import asyncio
import os
from pathlib import Path
from typing import Annotated, Any

import typer

from contracts.errors import BadInput
from wallet.cli.output import profile

bundler = typer.Typer(no_args_is_help=True, help="Run the ERC-4337 bundler.")
paymaster = typer.Typer(no_args_is_help=True, help="Run the ERC-7677 paymaster service.")

ConfigFile = Annotated[Path | None, typer.Option("--config", metavar="FILE", help="The service's own TOML settings.")]
RpcUrl = Annotated[str | None, typer.Option(help="JSON-RPC address of the node; default: the profile's.")]
Host = Annotated[str | None, typer.Option(help="Address to listen on.")]
Port = Annotated[int | None, typer.Option(help="Port to listen on; 0 takes a free one.")]
Sets = Annotated[list[str] | None, typer.Option("--set", metavar="NAME=VALUE", help="Any other setting; repeatable.")]


@bundler.callback()
def _bundler() -> None:
    """Run the ERC-4337 bundler."""


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


@bundler.command("run")
def run_bundler(
    ctx: typer.Context,
    config: ConfigFile = None,
    rpc_url: RpcUrl = None,
    host: Host = None,
    port: Port = None,
    database: Annotated[Path | None, typer.Option(help="SQLite file of operations and receipts.")] = None,
    key: Annotated[
        str | None, typer.Option(help="Name of the executor's key in the keystore; with --passphrase-file.")
    ] = None,
    passphrase_file: Annotated[
        Path | None, typer.Option(metavar="FILE", help="0600 file with that key's passphrase.")
    ] = None,
    key_file: Annotated[
        Path | None, typer.Option(metavar="FILE", help="0600 file with the executor's key instead.")
    ] = None,
    key_fd: Annotated[int | None, typer.Option(metavar="N", help="Open descriptor that gives it instead.")] = None,
    sets: Sets = None,
) -> None:
    """Serve until SIGTERM. Prints one JSON line with its address once it listens."""
    from bundler.main import configure_logging, run
    from bundler.settings import Settings, read_environment, read_toml
    from wallet.config import data_directory

    own = profile(ctx, {"rpc_url": rpc_url}).profile
    values: dict[str, Any] = {"rpc_url": own.rpc_url, "database": str(data_directory() / "bundler.db")}
    values |= (read_toml(config) if config else {}) | read_environment(os.environ)
    if key is not None:
        if passphrase_file is None:
            raise BadInput("--key needs --passphrase-file: the bundler starts without a terminal")
        values |= {"keystore": str(own.keystore / f"{key}.json"), "password_file": str(passphrase_file)}
    flags = _given(rpc_url=rpc_url, host=host, port=port, database=database, key_file=key_file, key_fd=key_fd)
    values |= flags | _pairs(sets)
    if isinstance(values.get("entry_points"), str):
        values["entry_points"] = values["entry_points"].split(",")
    Path(values["database"]).parent.mkdir(parents=True, exist_ok=True)
    settings = Settings.from_mapping(values)
    configure_logging(settings.log_format)
    asyncio.run(run(settings))


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
