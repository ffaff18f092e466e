"""`seawall operation`: for accounts whose owner is several people, a passkey, or a key on another machine."""

from __future__ import annotations

import asyncio
import os
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from contracts.errors import BadInput, OperationFailed
from contracts.types import checksum, parse_address, parse_bytes, to_hex
from wallet.cli.output import AsJson, PassphraseFd, PassphraseFile, emit, profile, say

if TYPE_CHECKING:
    from contracts.bindings import Call
    from wallet.operation_files import OperationFile

app = typer.Typer(no_args_is_help=True, help="Draft an operation, sign it together or elsewhere, send it.")

File = Annotated[Path, typer.Argument(help="The operation's file.")]


def _call(text: str) -> Call:
    from contracts.bindings import Call
    from contracts.units import to_units

    target, _, rest = text.partition(":")
    value, _, data = rest.partition(":")
    return Call(
        parse_address(target, "--call"), parse_bytes(data or "0x", "--call"), to_units(value or "0", 18, "--call")
    )


@app.command()
def new(
    ctx: typer.Context,
    file: File,
    calls: Annotated[list[str], typer.Option("--call", metavar="TARGET[:ETH[:DATA]]", help="One call; repeatable.")],
    note: Annotated[str, typer.Option(help="What it is for; the signers read it.")] = "",
    account: Annotated[str | None, typer.Option(help="The account; default: the profile's.")] = None,
    as_json: AsJson = False,
) -> None:
    """Draft it: nonce, fees and gas of now, paid by the account. Under a policy it is judged first. Nothing is signed or sent."""
    from wallet.desk import connect
    from wallet.operation_files import draft, write_operation

    if file.exists():
        raise BadInput(f"{file} exists and is never overwritten")
    settings = profile(ctx, {"account": account}).profile

    async def run() -> dict[str, Any]:
        async with connect(settings) as desk:
            made, judgement = await draft(desk.signer(), [_call(text) for text in calls], note)
            for line in () if judgement is None else judgement.decision.explain():
                say(line)
            write_operation(file, made)
            return _described(made)

    emit(asyncio.run(run()), as_json)


@app.command()
def show(file: File, as_json: AsJson = False) -> None:
    """What it does, what each signer signs, who has signed. Also what a page asks a passkey for."""
    from policies.calls import decode_calls
    from wallet.operation_files import read_operation
    from wallet.passkeys import request

    found = read_operation(file)
    calls = decode_calls(found.op.sender, found.op.call_data, {})
    listed = [
        {"target": checksum(c.target), "wei": str(c.value_wei), "function": c.function, "data": to_hex(c.data)}
        for c in calls.calls
    ]
    emit(
        _described(found) | {"calls": listed, "problem": calls.problem, "passkeyRequest": request(found.digest)},
        as_json,
    )


@app.command()
def sign(
    ctx: typer.Context,
    file: File,
    key: Annotated[str | None, typer.Option("--key", metavar="NAME", help="A key of the keystore.")] = None,
    p256: Annotated[Path | None, typer.Option("--p256", metavar="FILE", help="A key of `owner new-p256`.")] = None,
    assertion: Annotated[
        Path | None, typer.Option(metavar="FILE", help="A passkey's answer, `credential.toJSON()`.")
    ] = None,
    given: Annotated[
        list[str] | None,
        typer.Option("--signature", metavar="OWNER:SIGNATURE", help="Given elsewhere, bytes; repeatable."),
    ] = None,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")] = False,
    passphrase_file: PassphraseFile = None,
    passphrase_fd: PassphraseFd = None,
    as_json: AsJson = False,
) -> None:
    """Sign as one of its owner's signers; the signature is added to the file. Needs no network."""
    from contracts.bindings import ecdsa_owner
    from contracts.owners import p256_owner
    from wallet.desk import READ_ONLY
    from wallet.keystore import Keystore, PassphraseSource
    from wallet.operation_files import read_operation, write_operation
    from wallet.owner_kinds import kind_of, point_of, seats, verifiers
    from wallet.passkeys import P256Key, asserted, read_json

    if sum(one is not None for one in (key, p256, assertion)) + bool(given) != 1:
        raise BadInput("sign with one of --key, --p256, --assertion and --signature")
    settings = profile(ctx, {}).profile
    if settings.read_only and (key is not None or p256 is not None):
        raise BadInput(READ_ONLY)
    found = read_operation(file)
    if not yes:
        say(
            f"{found.note or 'an operation'} of {checksum(found.op.sender)} on chain {found.chain_id}: {to_hex(found.digest)}"
        )
        typer.confirm("Sign it?", abort=True, err=True)
    source = PassphraseSource.of(passphrase_file, passphrase_fd, os.environ)
    if key is not None:
        eoa = Keystore(settings.keystore).open(key, source.read(f"key {key!r}"))
        found = found.with_signature(ecdsa_owner(eoa.address), eoa.sign_hash(found.digest))
    elif p256 is not None:
        opened = P256Key.read(p256, source.read(f"key {p256.name!r}"))
        owner = p256_owner(verifiers().p256, opened.point.x, opened.point.y)
        found = found.with_signature(owner, opened.sign_hash(found.digest))
    elif assertion is not None:
        answer = read_json(assertion, "passkey's answer")
        passkeys = [seat.owner for seat in seats(found.owner)[1] if kind_of(seat.owner) == "passkey"]
        found = _by_passkey(found, passkeys, lambda owner: asserted(answer, point_of(owner), found.digest))
    for text in given or ():
        owner_text, _, signature = text.partition(":")
        found = found.with_signature(parse_bytes(owner_text, "owner"), parse_bytes(signature, "signature"))
    write_operation(file, found)
    emit(_described(found), as_json)


def _by_passkey(found: OperationFile, owners: list[bytes], sign_as: Any) -> OperationFile:
    """An assertion does not say whose it is: it is that passkey's whose key verifies it."""
    if not owners:
        raise BadInput("no passkey owns this account")
    for owner in owners[:-1]:
        try:
            return found.with_signature(owner, sign_as(owner))
        except BadInput:
            continue
    return found.with_signature(owners[-1], sign_as(owners[-1]))


@app.command()
def send(
    ctx: typer.Context,
    file: File,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask. The policy still decides.")] = False,
    passphrase_file: PassphraseFile = None,
    passphrase_fd: PassphraseFd = None,
    as_json: AsJson = False,
) -> None:
    """Put the signatures together and send it; under a policy it is judged once more and attested. Waits for its block."""
    from wallet.desk import READ_ONLY, connect, open_keys
    from wallet.keystore import PassphraseSource
    from wallet.operation_files import read_operation
    from wallet.operation_files import send as send_operation

    found = read_operation(file)
    found.signature()  # says who is missing before anything else is asked
    settings = profile(ctx, {"account": checksum(found.op.sender)}).profile
    if settings.read_only:
        raise BadInput(READ_ONLY)
    if not yes:
        typer.confirm("Send it?", abort=True, err=True)

    async def run() -> dict[str, Any]:
        async with connect(settings) as desk:
            signer = desk.signer()
            if signer.engine is not None:
                source = PassphraseSource.of(passphrase_file, passphrase_fd, os.environ)
                engine_key = open_keys(settings, ["engine"], source)["engine"]
                signer = replace(signer, engine=replace(signer.engine, key=engine_key))
            sent = await send_operation(signer, found)
            say(f"sent {to_hex(sent.user_op_hash)}, waiting for its block ...")
            receipt = await signer.bundler.wait(sent.user_op_hash)
            if not receipt.success:
                raise OperationFailed(
                    f"{to_hex(sent.user_op_hash)} is in block {receipt.block_number}, but its call reverted "
                    f"({to_hex(receipt.reason[:68]) or 'no reason given'}); nothing changed but the gas"
                )
            return {
                "userOpHash": to_hex(receipt.user_op_hash),
                "transaction": to_hex(receipt.transaction_hash),
                "block": receipt.block_number,
                "gasUsed": receipt.actual_gas_used,
            }

    emit(asyncio.run(run()), as_json)


def _described(found: OperationFile) -> dict[str, Any]:
    from wallet.owner_kinds import described, seats

    threshold, members = seats(found.owner)
    return {
        "account": checksum(found.op.sender),
        "note": found.note,
        "hash": to_hex(found.digest),
        "threshold": threshold,
        "signedWeight": found.weight,
        "ready": found.weight >= threshold,
        "signers": [
            described(seat.owner) | {"weight": seat.weight, "signed": seat.owner in found.given} for seat in members
        ],
    }
