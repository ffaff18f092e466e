"""`seawall recovery`: a new owner for an account whose owner's key is lost. Nothing here needs the bundler, the paymaster or an engine."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated, Any

import typer

from contracts.bindings import RecoveryMessage, recovery_digest
from contracts.errors import BadInput
from contracts.types import checksum, parse_address, parse_bytes, to_hex
from wallet.cli.freeze import Account, Guardian, KeyName, Yes
from wallet.cli.output import AsJson, PassphraseFd, PassphraseFile, emit, profile

app = typer.Typer(
    no_args_is_help=True, help="Replace a lost owner: guardians propose, the owner can cancel, all see it."
)

What = Annotated[str, typer.Argument(help="propose (guardians), claim (heir), withdraw (guardians) or cancel (owner).")]
NewOwner = Annotated[
    str | None, typer.Option("--new-owner", help="Its address, or any owner as `seawall owner show` reads it.")
]
P256File = Annotated[
    Path | None, typer.Option("--p256", metavar="FILE", help="A P-256 key of `owner new-p256`, in place of --key.")
]


def _message(text: str) -> RecoveryMessage:
    try:
        return RecoveryMessage(text.capitalize())
    except ValueError:
        raise BadInput(f"it is propose, claim, withdraw or cancel, got {text!r}") from None


def _new_owner(ctx: typer.Context, message: RecoveryMessage, text: str | None) -> bytes:
    from contracts.bindings import ecdsa_owner
    from wallet.keystore import Keystore
    from wallet.owner_kinds import parse_owner

    if message.names_owner != (text is not None):
        raise BadInput(
            f"{message.lower()} {'needs' if message.names_owner else 'takes no'} --new-owner: it is signed along"
        )
    if text is None:
        return b""
    if text.startswith("0x") and len(text) == 42:
        return ecdsa_owner(parse_address(text, "new owner"))
    return parse_owner(text, Keystore(profile(ctx, {}).profile.keystore))


def _owner(owner: bytes) -> str:
    return checksum(owner[1:]) if len(owner) == 21 and owner[0] == 0 else to_hex(owner)


async def _after(rpc: Any, guardian: Guardian, tx_hash: bytes | None = None) -> dict[str, Any]:
    from policies.recoveries import party
    from wallet.recovery import status

    now = await status(rpc, guardian.module, guardian.account)
    answer: dict[str, Any] = {
        "account": checksum(guardian.account),
        "guardians": party(now.guardians, checksum),
        "delay": now.delay_s,
        "underWay": bool(now.executable_at_s),
    }
    if now.executable_at_s:
        answer |= {
            "newOwner": _owner(now.new_owner),
            "startedBy": "heir" if now.by_heir else "guardians",
            "executableAt": now.executable_at_s,
        }
    if now.heir:
        answer |= {
            "heir": party(now.heir, checksum),
            "ownerSeenAt": now.seen_at_s,
            "operationsSince": now.moved_since,
            "heirMayClaimAt": now.heir_may_claim_at_s,
        }
    return answer | ({"transaction": to_hex(tx_hash)} if tx_hash is not None else {})


@app.command()
def status(ctx: typer.Context, account: Account = None, as_json: AsJson = False) -> None:
    """Who may recover the account, what is under way, and when its owner was last seen."""
    guardian = Guardian(ctx, account, None, None, None, "recovery")

    async def act(rpc: Any, _: Any) -> dict[str, Any]:
        return await _after(rpc, guardian)

    emit(guardian.run(act, sign=False), as_json)


@app.command()
def sign(
    ctx: typer.Context,
    what: What,
    account: Account = None,
    new_owner: NewOwner = None,
    hours: Annotated[int, typer.Option(help="How long the signature is good.")] = 24,
    key: KeyName = None,
    p256: P256File = None,
    assertion: Annotated[
        Path | None, typer.Option(metavar="FILE", help="A passkey's answer to `recovery ask`; with its --expiry.")
    ] = None,
    expiry: Annotated[int | None, typer.Option(help="The expiry that was asked for, unix seconds.")] = None,
    passphrase_file: PassphraseFile = None,
    passphrase_fd: PassphraseFd = None,
    as_json: AsJson = False,
) -> None:
    """Sign as one guardian, as the heir, or (cancel) as the owner; hand the line to whoever collects them."""
    from wallet.desk import READ_ONLY
    from wallet.keystore import PassphraseSource
    from wallet.passkeys import P256Key
    from wallet.recovery import sign as signed
    from wallet.recovery import status as read

    message = _message(what)
    owner = _new_owner(ctx, message, new_owner)
    guardian = Guardian(ctx, account, key, passphrase_file, passphrase_fd, "recovery")

    if sum(one is not None for one in (key, p256, assertion)) > 1:
        raise BadInput("sign with one of --key, --p256 and --assertion")
    if assertion is not None and expiry is None:
        raise BadInput("an assertion is over one expiry: give the --expiry that `recovery ask` named")
    if p256 is not None and guardian.settings.read_only:
        raise BadInput(READ_ONLY)
    source = PassphraseSource.of(passphrase_file, passphrase_fd, os.environ)
    opened = None if p256 is None else P256Key.read(p256, source.read(f"key {p256.name!r}"))

    async def act(rpc: Any, sender: Any) -> dict[str, Any]:
        now, chain_id = await read(rpc, guardian.module, guardian.account), await rpc.chain_id()
        until = int((await rpc.block())["timestamp"], 16) + hours * 3600 if expiry is None else expiry
        about = message, guardian.module, chain_id, guardian.account
        if assertion is not None:
            digest = recovery_digest(*about, owner, now.nonce, until)
            who, signature = await _by_passkey(rpc, guardian, message, now, assertion, digest)
        else:
            party = sender.eoa if opened is None else opened
            signature = signed(party, *about, now, until, owner)
            who = checksum(sender.eoa.address) if opened is None else to_hex(_p256(opened.point))
        return {
            "account": checksum(guardian.account),
            "message": str(message),
            "expiry": until,
            "signature": f"{who}:{to_hex(signature)}",
        }

    emit(guardian.run(act, sign=opened is None and assertion is None), as_json)


def _p256(point: Any) -> bytes:
    from contracts.owners import p256_owner
    from wallet.owner_kinds import verifiers

    return p256_owner(verifiers().p256, point.x, point.y)


async def _parties(rpc: Any, guardian: Guardian, message: RecoveryMessage, now: Any) -> bytes:
    """Who signs a message: the guardians, the heir, or the account's owner."""
    from contracts.bindings import OWNER_SIGNER
    from contracts.errors import InvalidFields, RpcError

    if message is RecoveryMessage.CANCEL:
        try:
            owner: bytes = OWNER_SIGNER.decode(await rpc.eth_call(guardian.account, OWNER_SIGNER.encode()))[0]
        except (RpcError, InvalidFields):
            raise BadInput(f"{checksum(guardian.account)} is no RiskAccount and does not say who owns it") from None
        return owner
    who: bytes = now.heir if message is RecoveryMessage.CLAIM else now.guardians
    return who


async def _by_passkey(
    rpc: Any, guardian: Guardian, message: RecoveryMessage, now: Any, assertion: Path, digest: bytes
) -> tuple[str, bytes]:
    """Whose passkey it was, and its signature. Raises BadInput when no party's passkey made this assertion."""
    from wallet.owner_kinds import kind_of, point_of, seats
    from wallet.passkeys import asserted, read_json

    answer, why = read_json(assertion, "passkey's answer"), BadInput("no passkey has a say in this")
    for seat in seats(await _parties(rpc, guardian, message, now))[1]:
        if kind_of(seat.owner) == "passkey":
            try:
                return to_hex(seat.owner), asserted(answer, point_of(seat.owner), digest)
            except BadInput as error:
                why = error
    raise why


@app.command()
def ask(
    ctx: typer.Context,
    what: What,
    account: Account = None,
    new_owner: NewOwner = None,
    hours: Annotated[int, typer.Option(help="How long the signature is good.")] = 24,
    as_json: AsJson = False,
) -> None:
    """What a party signs elsewhere: the hash, its expiry, and what a page asks a passkey for. Needs no key."""
    from wallet.passkeys import request
    from wallet.recovery import status as read

    message = _message(what)
    owner = _new_owner(ctx, message, new_owner)
    guardian = Guardian(ctx, account, None, None, None, "recovery")

    async def act(rpc: Any, _: Any) -> dict[str, Any]:
        now = await read(rpc, guardian.module, guardian.account)
        until = int((await rpc.block())["timestamp"], 16) + hours * 3600
        about = message, guardian.module, await rpc.chain_id(), guardian.account
        digest = recovery_digest(*about, owner, now.nonce, until)
        return {"message": str(message), "expiry": until, "hash": to_hex(digest), "passkeyRequest": request(digest)}

    emit(guardian.run(act, sign=False), as_json)


@app.command()
def submit(
    ctx: typer.Context,
    what: What,
    signatures: Annotated[
        list[str], typer.Option("--signature", help="SIGNER:SIGNATURE of `recovery sign`; repeatable.")
    ],
    expiry: Annotated[int, typer.Option(help="The expiry that they signed, unix seconds.")],
    account: Account = None,
    new_owner: NewOwner = None,
    key: KeyName = None,
    yes: Yes = False,
    passphrase_file: PassphraseFile = None,
    passphrase_fd: PassphraseFd = None,
    as_json: AsJson = False,
) -> None:
    """Hand in what was signed. A proposal begins the delay in which the owner can cancel."""
    from wallet.recovery import hand_in, together
    from wallet.recovery import status as read

    message = _message(what)
    owner = _new_owner(ctx, message, new_owner)
    given = {}
    for text in signatures:
        address, _, signature = text.partition(":")
        given[parse_bytes(address, "signer")] = parse_bytes(signature, "signature")
    guardian = Guardian(ctx, account, key, passphrase_file, passphrase_fd, "recovery")
    if not yes:
        typer.confirm(f"Hand in {message.lower()} for {checksum(guardian.account)}?", abort=True, err=True)

    async def act(rpc: Any, sender: Any) -> dict[str, Any]:
        now = await read(rpc, guardian.module, guardian.account)
        owner_now = None
        if message is RecoveryMessage.CANCEL:
            try:
                owner_now = await _parties(rpc, guardian, message, now)
            except BadInput:  # of another maker: one signature is handed in as it is
                if len(given) > 1:
                    raise
        signature = together(message, now, given, owner_now)
        sent = await hand_in(sender, message, guardian.module, guardian.account, expiry, signature, owner)
        return await _after(rpc, guardian, sent)

    emit(guardian.run(act), as_json)


@app.command()
def finish(
    ctx: typer.Context,
    account: Account = None,
    key: KeyName = None,
    passphrase_file: PassphraseFile = None,
    passphrase_fd: PassphraseFd = None,
    as_json: AsJson = False,
) -> None:
    """Change the owner once the delay is over. Anyone may."""
    from wallet.recovery import finish as send
    from wallet.recovery import status as read

    guardian = Guardian(ctx, account, key, passphrase_file, passphrase_fd, "recovery")

    async def act(rpc: Any, sender: Any) -> dict[str, Any]:
        now = await read(rpc, guardian.module, guardian.account)
        head_s = int((await rpc.block())["timestamp"], 16)
        if not now.executable_at_s:
            raise BadInput("no recovery is under way")
        if head_s < now.executable_at_s:
            raise BadInput(
                f"too early by {now.executable_at_s - head_s} s: it can be carried out from {now.executable_at_s} (unix seconds) on"
            )
        return await _after(rpc, guardian, await send(sender, guardian.module, guardian.account))

    emit(guardian.run(act), as_json)


@app.command()
def witness(
    ctx: typer.Context,
    account: Account = None,
    key: KeyName = None,
    passphrase_file: PassphraseFile = None,
    passphrase_fd: PassphraseFd = None,
    as_json: AsJson = False,
) -> None:
    """Record that the owner made operations since the last record: an heir's silence begins anew. Anyone may."""
    from wallet.recovery import witness as send

    guardian = Guardian(ctx, account, key, passphrase_file, passphrase_fd, "recovery")

    async def act(rpc: Any, sender: Any) -> dict[str, Any]:
        return await _after(rpc, guardian, await send(sender, guardian.module, guardian.account))

    emit(guardian.run(act), as_json)
