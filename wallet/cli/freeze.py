"""`seawall freeze` and `seawall thaw`: what guardians do. Nothing here needs the bundler, the paymaster or the owner."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Awaitable, Callable
from typing import Annotated, Any

import typer

from contracts.bindings import RiskState
from contracts.errors import BadInput
from contracts.types import checksum, parse_address, parse_bytes, to_hex
from wallet.cli.output import AsJson, PassphraseFd, PassphraseFile, emit, profile, say

Account = Annotated[str | None, typer.Argument(help="The account; default: the profile's.")]
Yes = Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")]
KeyName = Annotated[str | None, typer.Option("--key", help="Name of the guardian's key in the keystore.")]

freeze = typer.Typer(help="Stop an account at once, as its guardian.")
thaw = typer.Typer(no_args_is_help=True, help="Ask for, or carry out, the end of a freeze.")


def _state(text: str) -> RiskState:
    try:
        return RiskState[text.upper().replace("-", "_")]
    except KeyError:
        raise BadInput(f"the state must be active, reduce-only or frozen, got {text!r}") from None


class Guardian:
    """The profile, the guardian's key and a connection, for one command."""

    def __init__(
        self,
        ctx: typer.Context,
        account: str | None,
        key: str | None,
        file: Any,
        descriptor: int | None,
        module: str = "emergency_freeze",
    ) -> None:
        from wallet.keystore import KeySource, Keystore, PassphraseSource

        self.settings = profile(ctx, {"account": account, "keys.guardian": key}).profile
        if self.settings.account is None:
            raise BadInput('which account? Name it, or set `account = "0x..."` in seawall.toml')
        self.account = self.settings.account
        self.module = self.settings.address(module)
        self._key = KeySource(self.settings.keys.guardian)
        self._passphrase = PassphraseSource.of(file, descriptor, os.environ)
        self._keystore = Keystore(self.settings.keystore)

    def run(self, act: Callable[[Any, Any], Awaitable[dict[str, Any]]], *, sign: bool = True) -> dict[str, Any]:
        """Run `act(rpc, sender or None)` on a connection."""
        from contracts.eoa import TransactionSender
        from contracts.rpc import RpcClient

        if sign and self.settings.read_only:
            raise BadInput(
                "this profile is read-only; set `read_only = false` in seawall.toml, or SEAWALL_READ_ONLY=false"
            )
        eoa = self._key.load(self._keystore, self._passphrase, "guardian") if sign else None

        async def connected() -> dict[str, Any]:
            async with RpcClient(self.settings.rpc_url) as rpc:
                sender = None if eoa is None else TransactionSender(rpc, eoa, await rpc.chain_id())
                return await act(rpc, sender)

        return asyncio.run(connected())


async def _after(rpc: Any, guardian: Guardian, tx_hash: bytes | None = None) -> dict[str, Any]:
    from wallet.freezing import status

    now = await status(rpc, guardian.module, guardian.account)
    answer: dict[str, Any] = {"account": checksum(guardian.account), "state": now.state.name, "epoch": now.epoch}
    if now.solo_until_s:
        answer["soloFreezeUntil"] = now.solo_until_s
    if now.thaw_at_s:
        answer |= {"thawAt": now.thaw_at_s, "thawTo": now.thaw_to.name}
    if now.escape_at_s:
        answer["escapeAt"] = now.escape_at_s
    return answer | ({"transaction": to_hex(tx_hash)} if tx_hash is not None else {})


@freeze.callback(invoke_without_command=True)
def freeze_(
    ctx: typer.Context,
    account: Account = None,
    state: Annotated[str, typer.Option(help="frozen or reduce-only.")] = "frozen",
    key: KeyName = None,
    yes: Yes = False,
    passphrase_file: PassphraseFile = None,
    passphrase_fd: PassphraseFd = None,
    as_json: AsJson = False,
) -> None:
    """Stop an account at once, as one of its guardians. It expires by itself after the time its policy sets."""
    from wallet.freezing import freeze as send

    wanted = _state(state)
    if wanted is RiskState.ACTIVE:
        raise BadInput("a freeze is frozen or reduce-only; to end one, see `seawall thaw`")
    guardian = Guardian(ctx, account, key, passphrase_file, passphrase_fd)
    if not yes:
        typer.confirm(f"Set {checksum(guardian.account)} to {wanted.name}?", abort=True, err=True)

    async def act(rpc: Any, sender: Any) -> dict[str, Any]:
        return await _after(rpc, guardian, await send(sender, guardian.module, guardian.account, wanted))

    emit(guardian.run(act), as_json)
    say("declared exits and guards (stop-loss) stay open; what a freeze cannot stop is in docs/security.md")


@thaw.command("status")
def thaw_status(ctx: typer.Context, account: Account = None, as_json: AsJson = False) -> None:
    """The account's state, and what is under way."""
    guardian = Guardian(ctx, account, None, None, None)

    async def act(rpc: Any, _: Any) -> dict[str, Any]:
        return await _after(rpc, guardian)

    emit(guardian.run(act, sign=False), as_json)


@thaw.command("sign")
def thaw_sign(
    ctx: typer.Context,
    account: Account = None,
    state: Annotated[str, typer.Option("--to", help="active or reduce-only.")] = "active",
    hours: Annotated[int, typer.Option(help="How long the signature is good.")] = 24,
    key: KeyName = None,
    passphrase_file: PassphraseFile = None,
    passphrase_fd: PassphraseFd = None,
    as_json: AsJson = False,
) -> None:
    """Sign a thaw as one guardian; hand the line to whoever collects the quorum."""
    from wallet.freezing import sign_thaw, status

    guardian = Guardian(ctx, account, key, passphrase_file, passphrase_fd)

    async def act(rpc: Any, sender: Any) -> dict[str, Any]:
        now = await status(rpc, guardian.module, guardian.account)
        expiry = int((await rpc.block())["timestamp"], 16) + hours * 3600
        to = _state(state)
        signature = sign_thaw(sender.eoa, guardian.module, sender.chain_id, guardian.account, to, now, expiry)
        return {
            "account": checksum(guardian.account),
            "to": to.name,
            "expiry": expiry,
            "signature": f"{checksum(sender.eoa.address)}:{to_hex(signature)}",
        }

    emit(guardian.run(act), as_json)


@thaw.command("request")
def thaw_request(
    ctx: typer.Context,
    signatures: Annotated[
        list[str], typer.Option("--signature", help="GUARDIAN:SIGNATURE of `thaw sign`; repeatable.")
    ],
    expiry: Annotated[int, typer.Option(help="The expiry that they signed, unix seconds.")],
    account: Account = None,
    state: Annotated[str, typer.Option("--to", help="The state that they signed.")] = "active",
    key: KeyName = None,
    yes: Yes = False,
    passphrase_file: PassphraseFile = None,
    passphrase_fd: PassphraseFd = None,
    as_json: AsJson = False,
) -> None:
    """Hand in the quorum's signatures; the delay of the account's policy begins."""
    from wallet.freezing import request_thaw

    pairs = []
    for text in signatures:
        address, _, signature = text.partition(":")
        pairs.append((parse_address(address, "guardian"), parse_bytes(signature, "signature")))
    guardian = Guardian(ctx, account, key, passphrase_file, passphrase_fd)
    to = _state(state)
    if not yes:
        typer.confirm(f"Ask for {checksum(guardian.account)} to become {to.name}?", abort=True, err=True)

    async def act(rpc: Any, sender: Any) -> dict[str, Any]:
        tx_hash = await request_thaw(sender, guardian.module, guardian.account, to, expiry, pairs)
        return await _after(rpc, guardian, tx_hash)

    emit(guardian.run(act), as_json)


@thaw.command("finish")
def thaw_finish(
    ctx: typer.Context,
    account: Account = None,
    key: KeyName = None,
    passphrase_file: PassphraseFile = None,
    passphrase_fd: PassphraseFd = None,
    as_json: AsJson = False,
) -> None:
    """Carry out what is due: a thaw whose delay is over, or the end of a solo freeze whose time is over. Anyone may."""
    from wallet.freezing import expire, status
    from wallet.freezing import thaw as send

    guardian = Guardian(ctx, account, key, passphrase_file, passphrase_fd)

    async def act(rpc: Any, sender: Any) -> dict[str, Any]:
        now = await status(rpc, guardian.module, guardian.account)
        if not now.thaw_at_s and not now.solo_until_s:
            raise BadInput(f"nothing is under way; the account is {now.state.name}")
        ready_s, head_s = now.thaw_at_s or now.solo_until_s, int((await rpc.block())["timestamp"], 16)
        if head_s < ready_s:
            raise BadInput(f"too early by {ready_s - head_s} s: it can be carried out from {ready_s} (unix seconds) on")
        finish = send if now.thaw_at_s else expire
        return await _after(rpc, guardian, await finish(sender, guardian.module, guardian.account))

    emit(guardian.run(act), as_json)
