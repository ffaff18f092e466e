"""`seawall owner`: the kinds of owner beside a key of the keystore."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from contracts.errors import BadInput
from contracts.types import checksum
from wallet.cli.output import AsJson, PassphraseFd, PassphraseFile, emit, profile, say

if TYPE_CHECKING:
    from contracts.eoa import TransactionSender

app = typer.Typer(no_args_is_help=True, help="Passkeys, P-256 keys and multisigs as owners.")

SPEC = (
    "key:NAME, ecdsa:0x..., p256:FILE.pub, passkey:REGISTRATION.json, point:p256|passkey:X:Y, contract:0x..., or bytes"
)


@app.command("new-p256")
def new_p256(
    file: Annotated[Path, typer.Argument(help="Where the encrypted key goes; the public one goes to FILE.pub.")],
    passphrase_file: PassphraseFile = None,
    passphrase_fd: PassphraseFd = None,
    iterations: Annotated[
        int | None, typer.Option(help="PBKDF2's count; less than 600000 only on a devnet.", min=1_000)
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Make a P-256 key in an encrypted PKCS#8 file, which `operation sign --p256` opens."""
    from wallet.keystore import MIN_PASSPHRASE, PassphraseSource
    from wallet.passkeys import P256Key

    public = file.with_name(file.name + ".pub")
    if public.exists():
        raise BadInput(f"{public} exists and is never overwritten")
    source = PassphraseSource.of(passphrase_file, passphrase_fd, os.environ)
    passphrase = source.read(f"the new key {file.name!r}", confirm=True)
    if len(passphrase.reveal()) < MIN_PASSPHRASE:
        raise BadInput(f"a passphrase needs at least {MIN_PASSPHRASE} characters; nothing was written")
    key = P256Key.generate()
    key.write(file, passphrase, **({} if iterations is None else {"iterations": iterations}))
    point = {"x": f"0x{key.point.x:064x}", "y": f"0x{key.point.y:064x}"}
    public.write_text(json.dumps(point) + "\n")
    emit({"file": str(file), "public": str(public), **point}, as_json)
    say("keep a copy of the file and of the passphrase: nobody can restore either")


@app.command()
def show(
    ctx: typer.Context,
    specs: Annotated[list[str], typer.Argument(metavar="SPEC...", help=SPEC)],
    threshold: Annotated[
        int | None, typer.Option(help="Of a multisig: SPECs are its signers then, SPEC=WEIGHT each.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """What an owner is, and its bytes, which `account create --owner` and `recovery --new-owner` take."""
    from wallet.keystore import Keystore
    from wallet.owner_kinds import described, parse_multisig, parse_owner

    store = Keystore(profile(ctx, {}).profile.keystore)
    together = len(specs) > 1 or threshold is not None
    owner = parse_multisig(threshold, specs, store) if together else parse_owner(specs[0], store)
    emit(described(owner), as_json)


@app.command()
def deploy(
    ctx: typer.Context,
    key: Annotated[str, typer.Option("--key", metavar="NAME", help="The key in the keystore that pays.")],
    passphrase_file: PassphraseFile = None,
    passphrase_fd: PassphraseFd = None,
    as_json: AsJson = False,
) -> None:
    """Deploy the verifiers of such owners where a chain has none yet. They keep nothing and belong to nobody."""
    from wallet.cli.token_paymaster import transact
    from wallet.owners import deploy_owner_verifiers

    async def work(sender: TransactionSender) -> dict[str, Any]:
        found = await deploy_owner_verifiers(sender)
        return {name: checksum(getattr(found, name)) for name in ("p256", "webauthn", "multisig")}

    emit(transact(profile(ctx, {}).profile, key, (passphrase_file, passphrase_fd), work), as_json)
