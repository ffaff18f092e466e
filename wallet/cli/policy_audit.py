"""`seawall policy audit`: what the engine decided and attested, and whether anybody touched the record."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from contracts.errors import BadInput, SetupError
from wallet.cli.decision_view import HtmlFile, show_decision, write_html
from wallet.cli.output import AsJson, PassphraseFd, PassphraseFile, emit, profile, say, table

if TYPE_CHECKING:
    from rich.console import Console

    from wallet.audit import AuditLog, Entry

app = typer.Typer(no_args_is_help=True, help="Show and verify the engine's audit log.")

LogFile = Annotated[
    Path | None, typer.Option("--log", metavar="FILE", help="The log; default: the one of the profile's account.")
]


def log_of(ctx: typer.Context, path: Path | None) -> AuditLog:
    """The log that a command line means. Raises BadInput when there is no saying which one, or none."""
    from contracts.types import checksum
    from wallet.audit import AuditLog
    from wallet.config import data_directory

    if path is None:
        settings = profile(ctx).profile
        folder = data_directory() / "engine"
        named = "*" if settings.account is None else checksum(settings.account)
        chain = "*" if settings.chain_id is None else str(settings.chain_id)
        found = sorted(folder.glob(f"{chain}-{named}.db"))
        if len(found) != 1:
            known = ", ".join(one.stem for one in found or sorted(folder.glob("*.db"))) or "none"
            raise BadInput(f"which log? Give --log FILE or set the account; in {folder} there are: {known}")
        (path,) = found
    if not path.exists():
        raise BadInput(f"there is no audit log at {path}")
    return AuditLog(path)


@app.command()
def verify(
    ctx: typer.Context,
    log: LogFile = None,
    heads: Annotated[
        list[Path] | None,
        typer.Option("--head", metavar="FILE", help="A signed head that was kept elsewhere; repeatable."),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Check every entry, everything that entries rest on, and every signed head. Exit code 3 if anything does not fit."""
    from wallet.audit_verify import read_head
    from wallet.audit_verify import verify as verified

    report = verified(log_of(ctx, log), [read_head(path) for path in heads or ()])

    def show(console: Console) -> None:
        for problem in report.problems:
            console.print(problem, style="red", markup=False)
        signed = f"signed up to entry {report.signed_until}" if report.signed_until else "signed by nobody"
        verdict = "sound" if report.sound else f"{len(report.problems)} problem(s)"
        console.print(
            f"{verdict}: {report.entries} entries, {report.facts} sets of facts, {report.policies} policies; {signed}"
        )
        if report.entries > report.signed_until:
            console.print(
                f"entries {report.signed_until + 1} to {report.entries} stand behind the last signed head: that some were cut off "
                "behind them could not be seen"
            )

    emit(report.to_json(), as_json, show)
    if not report.sound:
        raise typer.Exit(SetupError.exit_code)


@app.command("tail")
def tail_(
    ctx: typer.Context,
    log: LogFile = None,
    count: Annotated[int, typer.Option("--count", "-n", min=1, help="How many.")] = 10,
    as_json: AsJson = False,
) -> None:
    """The last entries, a line each, oldest first."""
    entries = log_of(ctx, log).tail(count)
    rows = [_line(entry) for entry in entries]
    data = [_json(entry) for entry in entries]
    emit(data, as_json, lambda c: table(c, ["entry", "time (UTC)", "kind", "account", "what"], rows))


@app.command()
def show(
    ctx: typer.Context,
    which: Annotated[str, typer.Argument(metavar="ENTRY", help="Its number, a decision's id, or an operation's hash.")],
    log: LogFile = None,
    html: HtmlFile = None,
    as_json: AsJson = False,
) -> None:
    """One entry: a decision in words, an attestation with its fields."""
    from wallet.audit import DECISION

    entry = log_of(ctx, log).find(which)
    if entry is None:
        raise BadInput(f"nothing is recorded as {which}; `seawall policy audit tail` lists what is")

    if html is not None and entry.kind != DECISION:
        raise BadInput(f"entry {entry.seq} is no decision; its decision is {entry.body['decision']}")
    write_html(html, entry.body.get("decision", {}), entry.body.get("id", ""))

    def words(console: Console) -> None:
        console.print("  ".join(_line(entry)), markup=False)
        if entry.kind == DECISION:
            show_decision(console, entry.body["decision"])
        else:
            console.print(json.dumps(entry.body, indent=1), markup=False)

    emit(_json(entry), as_json, words)


@app.command()
def head(
    ctx: typer.Context,
    log: LogFile = None,
    passphrase_file: PassphraseFile = None,
    passphrase_fd: PassphraseFd = None,
) -> None:
    """Sign the last entry with the engine's key and print the signed head (JSON): keep it on another machine, for `verify --head`."""
    import os

    from wallet.keystore import Keystore, PassphraseSource

    settings = profile(ctx).profile
    name = settings.keys.engine
    if name is None:
        raise BadInput("no engine key is named: set keys.engine in seawall.toml, or SEAWALL_KEYS_ENGINE")
    found = log_of(ctx, log)
    source = PassphraseSource.of(passphrase_file, passphrase_fd, os.environ)
    key = Keystore(settings.keystore).open(name, source.read(f"key {name!r}"))
    signed = found.sign_head(key.sign_hash, key.address)
    print(json.dumps(signed.to_json()))
    say(f"signed entry {signed.seq}; a log that is cut short or rewritten up to there will not verify against this")


def _json(entry: Entry) -> dict[str, Any]:
    from contracts.types import to_hex

    return {"seq": entry.seq, "kind": entry.kind, "hash": to_hex(entry.hash), "body": entry.body}


def _line(entry: Entry) -> tuple[str, str, str, str, str]:
    from datetime import UTC, datetime

    at = datetime.fromtimestamp(entry.body["at"], UTC).strftime("%Y-%m-%d %H:%M:%S")
    if entry.kind == "decision":
        decision = entry.body["decision"]
        against = [row["id"] for row in decision["limits"] if row["verdict"] in ("deny", "require_signers")]
        what = f"{decision['outcome']} {', '.join([*decision['objections'], *against])}".strip()
    else:
        what = f"operation {entry.body['userOpHash']} until {entry.body['validUntil']}"
    return str(entry.seq), at, entry.kind, entry.body["account"], what
