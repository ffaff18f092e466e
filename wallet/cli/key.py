"""`seawall key`: the keystore. No secret is ever a command-line argument."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from contracts.errors import BadInput
from wallet.cli.output import AsJson, PassphraseFd, PassphraseFile, emit, profile, say, table

if TYPE_CHECKING:
    from rich.console import Console

    from wallet.keystore import KeyInfo, Keystore

app = typer.Typer(no_args_is_help=True, help="Make, import and list keys in the keystore.")

Name = Annotated[str, typer.Argument(help="The key's name, such as owner or keeper.")]
Directory = Annotated[Path | None, typer.Option("--keystore", metavar="DIR", help="The keystore's directory.")]
KdfN = Annotated[
    int | None,
    typer.Option("--kdf-n", metavar="N", help="scrypt's cost, a power of two; less than 262144 only on a devnet."),
]


def _keystore(ctx: typer.Context, directory: Path | None) -> Keystore:
    from wallet.keystore import Keystore

    return Keystore(profile(ctx, {"keystore": directory}).profile.keystore)


def _show(info: KeyInfo, as_json: bool) -> None:
    emit(info.to_json(), as_json)


@app.command()
def new(
    ctx: typer.Context,
    name: Name,
    keystore: Directory = None,
    passphrase_file: PassphraseFile = None,
    passphrase_fd: PassphraseFd = None,
    kdf_n: KdfN = None,
    as_json: AsJson = False,
) -> None:
    """Make a new random key."""
    from wallet.keystore import SCRYPT_N, PassphraseSource

    store = _keystore(ctx, keystore)
    store.require_free(name)
    source = PassphraseSource.of(passphrase_file, passphrase_fd, os.environ)
    passphrase = source.read(f"the new key {name!r}", confirm=True)
    _show(store.create(name, passphrase, kdf_n=kdf_n or SCRYPT_N), as_json)
    say("keep a copy of the file and of the passphrase: nobody can restore either")


@app.command("import")
def import_(
    ctx: typer.Context,
    name: Name,
    key_file: Annotated[
        Path | None, typer.Option("--key-file", metavar="FILE", help="File with 64 hex digits; must be mode 0600.")
    ] = None,
    key_fd: Annotated[
        int | None, typer.Option("--key-fd", metavar="N", help="Open descriptor that gives 64 hex digits.")
    ] = None,
    keystore: Directory = None,
    passphrase_file: PassphraseFile = None,
    passphrase_fd: PassphraseFd = None,
    kdf_n: KdfN = None,
    as_json: AsJson = False,
) -> None:
    """Store an existing private key. Without --key-file or --key-fd it is asked for, unseen."""
    from getpass import getpass

    from wallet.keystore import SCRYPT_N, PassphraseSource, parse_private_key, read_secret_fd, read_secret_file

    store = _keystore(ctx, keystore)
    store.require_free(name)
    if key_file is not None and key_fd is not None:
        raise BadInput("give the key by --key-file or by --key-fd, not both")
    if key_fd is not None and key_fd == passphrase_fd:
        raise BadInput("the key and its passphrase need two different descriptors")
    if key_file is not None:
        key = parse_private_key(read_secret_file(key_file, "key file"), str(key_file))
    elif key_fd is not None:
        key = parse_private_key(read_secret_fd(key_fd), f"file descriptor {key_fd}")
    else:
        key = parse_private_key(getpass("private key (64 hex digits, not shown): "), "the answer")
    source = PassphraseSource.of(passphrase_file, passphrase_fd, os.environ)
    passphrase = source.read(f"the key {name!r}", confirm=True)
    _show(store.add(name, key, passphrase, kdf_n=kdf_n or SCRYPT_N), as_json)


@app.command("list")
def list_(ctx: typer.Context, keystore: Directory = None, as_json: AsJson = False) -> None:
    """List all keys, without opening any."""
    keys = [info.to_json() for info in _keystore(ctx, keystore).entries()]

    def show(console: Console) -> None:
        table(console, ["name", "address", "kdf"], [(k["name"], k["address"], k["kdf"]) for k in keys])

    emit(keys, as_json, show)


@app.command()
def show(ctx: typer.Context, name: Name, keystore: Directory = None, as_json: AsJson = False) -> None:
    """Show one key's address and file, without opening it."""
    _show(_keystore(ctx, keystore).info(name), as_json)
