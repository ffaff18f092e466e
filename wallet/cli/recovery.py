"""`seawall recovery`: a new owner for an account whose owner's key is lost. Nothing here needs the bundler, the paymaster or an engine."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from contracts.bindings import RecoveryMessage
from contracts.errors import BadInput
from contracts.types import checksum, parse_address, parse_bytes, to_hex
from wallet.cli.freeze import Account, Guardian, KeyName, Yes
from wallet.cli.output import AsJson, PassphraseFd, PassphraseFile, emit

app = typer.Typer(
    no_args_is_help=True, help="Replace a lost owner: guardians propose, the owner can cancel, all see it."
)

What = Annotated[str, typer.Argument(help="propose (guardians), claim (heir), withdraw (guardians) or cancel (owner).")]
NewOwner = Annotated[
    str | None, typer.Option("--new-owner", help="Its address, or an owner in bytes (kind, address, key).")
]


def _message(text: str) -> RecoveryMessage:
    try:
        return RecoveryMessage(text.capitalize())
    except ValueError:
        raise BadInput(f"it is propose, claim, withdraw or cancel, got {text!r}") from None


def _new_owner(message: RecoveryMessage, text: str | None) -> bytes:
    from contracts.bindings import ecdsa_owner

    if message.names_owner != (text is not None):
        raise BadInput(
            f"{message.lower()} {'needs' if message.names_owner else 'takes no'} --new-owner: it is signed along"
        )
    if text is None:
        return b""
    given = parse_bytes(text, "new owner")
    return ecdsa_owner(given) if len(given) == 20 else given


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
    passphrase_file: PassphraseFile = None,
    passphrase_fd: PassphraseFd = None,
    as_json: AsJson = False,
) -> None:
    """Sign as one guardian, as the heir, or (cancel) as the owner; hand the line to whoever collects them."""
    from wallet.recovery import sign as signed
    from wallet.recovery import status as read

    message = _message(what)
    owner = _new_owner(message, new_owner)
    guardian = Guardian(ctx, account, key, passphrase_file, passphrase_fd, "recovery")

    async def act(rpc: Any, sender: Any) -> dict[str, Any]:
        now = await read(rpc, guardian.module, guardian.account)
        expiry = int((await rpc.block())["timestamp"], 16) + hours * 3600
        signature = signed(sender.eoa, message, guardian.module, sender.chain_id, guardian.account, now, expiry, owner)
        return {
            "account": checksum(guardian.account),
            "message": str(message),
            "expiry": expiry,
            "signature": f"{checksum(sender.eoa.address)}:{to_hex(signature)}",
        }

    emit(guardian.run(act), as_json)


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
    owner = _new_owner(message, new_owner)
    given = {}
    for text in signatures:
        address, _, signature = text.partition(":")
        given[parse_address(address, "signer")] = parse_bytes(signature, "signature")
    guardian = Guardian(ctx, account, key, passphrase_file, passphrase_fd, "recovery")
    if not yes:
        typer.confirm(f"Hand in {message.lower()} for {checksum(guardian.account)}?", abort=True, err=True)

    async def act(rpc: Any, sender: Any) -> dict[str, Any]:
        now = await read(rpc, guardian.module, guardian.account)
        signature = together(message, now, given)
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
