"""`seawall`: the frame of the command line. Data goes to stdout, words for people to stderr, and the exit code tells how it ended.

A command is one line in `COMMANDS`; its module is imported when the command runs, not for `--help`.
"""

from __future__ import annotations

import importlib
import json
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any, NamedTuple

import typer
from typer.core import TyperCommand, TyperGroup
from typer.exceptions import Abort, TyperException

from contracts.errors import SeawallError


class Entry(NamedTuple):
    """Where a command is (`module:attribute`, a Typer app) and the line `--help` shows."""

    location: str
    help: str
    panel: str


_TRADE, _RISK, _RUN, _SETUP = "Account and trading", "Risk", "Services", "Set-up"

COMMANDS: dict[str, Entry] = {
    "account": Entry("wallet.cli.account:app", "Create a risk account, show its state and positions.", _TRADE),
    "trade": Entry("wallet.cli.trade:app", "Open and close a perp position under the policy.", _TRADE),
    "proposal": Entry("wallet.cli.proposal:app", "Approve and send what needs more signers than its owner.", _TRADE),
    "operation": Entry(
        "wallet.cli.operation:app", "Draft an operation, sign it together or elsewhere, send it.", _TRADE
    ),
    "policy": Entry("wallet.cli.policy:app", "Lint, check, explain a policy file; print its schema or id.", _RISK),
    "freeze": Entry("wallet.cli.freeze:freeze", "Stop an account at once, as its guardian.", _RISK),
    "thaw": Entry("wallet.cli.freeze:thaw", "Ask for, or carry out, the end of a freeze.", _RISK),
    "recovery": Entry("wallet.cli.recovery:app", "Replace a lost owner, by guardians or an heir.", _RISK),
    "demo": Entry("wallet.cli.demo:app", "Carry a real position through a real crash, with and without guards.", _RUN),
    "devnet": Entry("wallet.cli.devnet:app", "Start the devnet: anvil with the real venues and our contracts.", _RUN),
    "bundler": Entry("wallet.cli.services:bundler", "Run the ERC-4337 bundler.", _RUN),
    "paymaster": Entry("wallet.cli.token_paymaster:app", "Run the ERC-7677 paymaster service.", _RUN),
    "keeper": Entry("wallet.cli.keeper:app", "Run the keeper that fires due guards.", _RUN),
    "key": Entry("wallet.cli.key:app", "Make, import and list keys in the keystore.", _SETUP),
    "owner": Entry("wallet.cli.owner:app", "Passkeys, P-256 keys and multisigs as owners.", _SETUP),
    "config": Entry(
        "wallet.cli.config:app", "Show the resolved settings and where each came from; start a file.", _SETUP
    ),
    "contracts": Entry(
        "wallet.cli.contracts:app", "Compile the Solidity sources, or check the shipped artifacts.", _SETUP
    ),
}


class LazyGroup(TyperGroup):
    """A group that knows its commands from `COMMANDS` and imports one only to run it."""

    def __init__(self, **attributes: Any) -> None:
        super().__init__(**attributes)
        for name, entry in COMMANDS.items():
            self.add_command(TyperCommand(name, callback=None, help=entry.help, rich_help_panel=entry.panel), name)

    def resolve_command(self, ctx: Any, args: list[str]) -> tuple[str | None, Any, list[str]]:
        name, command, rest = super().resolve_command(ctx, args)
        entry = COMMANDS.get(name or "")
        if entry is None:
            return name, command, rest
        module, _, attribute = entry.location.partition(":")
        return name, typer.main.get_command(getattr(importlib.import_module(module), attribute)), rest


app = typer.Typer(
    cls=LazyGroup,
    name="seawall",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


def _show_version(wanted: bool) -> None:
    if wanted:
        from importlib.metadata import version

        print(f"seawall {version('seawall')}")
        raise typer.Exit


@app.callback()
def seawall(
    ctx: typer.Context,
    config: Annotated[
        Path | None, typer.Option("--config", metavar="FILE", help="Project settings instead of ./seawall.toml.")
    ] = None,
    _version: Annotated[
        bool, typer.Option("--version", callback=_show_version, is_eager=True, help="Print the version and stop.")
    ] = False,
) -> None:
    """Account-abstraction risk wallet: one policy file judges every operation and configures the guards that hold on chain."""
    ctx.obj = config


def main(args: Sequence[str]) -> int:
    """Run one command line and return its exit code. An error is shown here, as text or (`--json`) as one JSON document."""
    as_json = "--json" in args
    try:
        code = app(list(args), prog_name="seawall", standalone_mode=False)
    except SeawallError as error:
        return _fail(as_json, error.exit_code, str(error), error.to_rpc())
    except TyperException as error:
        if as_json:
            return _fail(
                True, error.exit_code, error.format_message(), {"code": -32602, "message": error.format_message()}
            )
        show = getattr(error, "show", None)
        if show is None:
            return _fail(False, error.exit_code, error.format_message(), {})
        show()
        return error.exit_code
    except (Abort, KeyboardInterrupt):
        print("interrupted", file=sys.stderr)
        return 130
    except BrokenPipeError:
        # The reader has left; keep the interpreter's last flush from complaining about it.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    return code if isinstance(code, int) else 0


def _fail(as_json: bool, exit_code: int, text: str, error: dict[str, Any]) -> int:
    if as_json:
        print(json.dumps({"error": {**error, "exit_code": exit_code}}))
    else:
        print(f"error: {text}", file=sys.stderr)
    return exit_code


def run() -> None:
    """The console script."""
    sys.exit(main(sys.argv[1:]))
