"""`seawall proposal`: orders that need a quorum of the policy. Each signer judges the operation himself before he signs it."""

from __future__ import annotations

import asyncio
import os
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from contracts.errors import BadInput
from contracts.types import checksum, to_hex
from wallet.cli.output import AsJson, PassphraseFd, PassphraseFile, emit, profile, say

if TYPE_CHECKING:
    from rich.console import Console

    from wallet.proposals import Proposal
    from wallet.sign import Judgement, Signer

app = typer.Typer(no_args_is_help=True, help="Approve and send what needs more signers than its owner.")
File = Annotated[Path, typer.Argument(metavar="FILE", help="What `--propose FILE` of an order wrote.")]


@app.command()
def show(ctx: typer.Context, file: File, as_json: AsJson = False) -> None:
    """Judge a proposal now, by this profile's policy and node, and say who has approved it and who is asked."""
    from wallet.desk import connect
    from wallet.proposals import read_proposal

    proposal = read_proposal(file)
    settings = profile(ctx, {"account": checksum(proposal.op.sender)}).profile

    async def run() -> dict[str, Any]:
        async with connect(settings) as desk:
            signer = desk.signer()
            return _described(signer, proposal, await _judged(signer, proposal))

    data = asyncio.run(run())
    emit(data, as_json, lambda console: _show(console, data))


@app.command()
def sign(
    ctx: typer.Context,
    file: File,
    key: Annotated[str, typer.Option("--key", metavar="NAME", help="The signer's key in the keystore.")],
    hours: Annotated[int, typer.Option(min=1, max=24 * 30, help="How long the approval is good.")] = 24,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask. The policy still decides.")] = False,
    passphrase_file: PassphraseFile = None,
    passphrase_fd: PassphraseFd = None,
    as_json: AsJson = False,
) -> None:
    """Judge a proposal, then approve it as one of its signers: the approval is added to the file, and printed as a line to send back."""
    from wallet.desk import READ_ONLY, connect
    from wallet.keystore import Keystore, PassphraseSource
    from wallet.proposals import approval_text, approve, read_proposal, write_proposal

    proposal = read_proposal(file)
    settings = profile(ctx, {"account": checksum(proposal.op.sender)}).profile
    if settings.read_only:
        raise BadInput(READ_ONLY)
    store = Keystore(settings.keystore)
    address = store.info(key).address

    async def run() -> dict[str, Any]:
        async with connect(settings) as desk:
            signer = desk.signer()
            judgement = await _judged(signer, proposal)
            described = _described(signer, proposal, judgement)
            if address not in {one for quorum in _quorums(signer, proposal, judgement) for one in quorum.signers}:
                raise BadInput(
                    f"{checksum(address)} (key {key!r}) has no seat in a quorum that this proposal asks: "
                    + ("; ".join(described["lacking"]) or "it asks nobody any more")
                )
            if not yes:
                typer.confirm(f"Approve it as {checksum(address)} for {hours} h?", abort=True, err=True)
            source = PassphraseSource.of(passphrase_file, passphrase_fd, os.environ)
            eoa = store.open(key, source.read(f"key {key!r}"))
            # Somebody else may have signed the file while this one read and thought.
            given = approve(proposal, judgement, eoa, hours * 3600)
            signed = read_proposal(file).with_approvals([given], judgement.now_s)
            write_proposal(file, signed)
            return {**_described(signer, signed, judgement), "approval": approval_text(given)}

    data = asyncio.run(run())
    emit(data, as_json, lambda console: _show(console, data))


@app.command()
def send(
    ctx: typer.Context,
    file: File,
    approvals: Annotated[
        list[str] | None, typer.Option("--approval", metavar="LINE", help="A line of `proposal sign`; repeatable.")
    ] = None,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask. The policy still decides.")] = False,
    passphrase_file: PassphraseFile = None,
    passphrase_fd: PassphraseFd = None,
    as_json: AsJson = False,
) -> None:
    """Judge a proposal once more, and if its quorums have approved: attest, sign as the owner, send, and wait for its block."""
    from contracts.errors import OperationFailed
    from wallet import proposals
    from wallet.desk import READ_ONLY, connect, open_keys
    from wallet.keystore import PassphraseSource

    proposal = proposals.read_proposal(file)
    settings = profile(ctx, {"account": checksum(proposal.op.sender)}).profile
    if settings.read_only:
        raise BadInput(READ_ONLY)
    more = [proposals.parse_approval(text) for text in approvals or ()]

    async def run() -> dict[str, Any]:
        async with connect(settings) as desk:
            signer = desk.signer()
            judgement = await _judged(signer, proposal)
            whole = proposal.with_approvals(more, judgement.now_s)
            described = _described(signer, whole, judgement)
            if not described["lacking"] and not yes:
                typer.confirm("Sign and send it?", abort=True, err=True)
            if described["lacking"]:
                armed = signer
            else:
                source = PassphraseSource.of(passphrase_file, passphrase_fd, os.environ)
                keys = open_keys(settings, ["owner", "engine"], source)
                assert signer.engine is not None
                armed = replace(signer, owner=keys["owner"], engine=replace(signer.engine, key=keys["engine"]))
            sent = await proposals.send(armed, whole)
            say(f"sent {to_hex(sent.user_op_hash)}, waiting for its block ...")
            receipt = await signer.bundler.wait(sent.user_op_hash)
            if not receipt.success:
                raise OperationFailed(
                    f"{to_hex(sent.user_op_hash)} is in block {receipt.block_number}, but its call reverted "
                    f"({to_hex(receipt.reason[:68]) or 'no reason given'}); nothing changed but the gas"
                )
            return {
                **described,
                "userOpHash": to_hex(receipt.user_op_hash),
                "transaction": to_hex(receipt.transaction_hash),
                "block": receipt.block_number,
            }

    data = asyncio.run(run())
    emit(data, as_json, lambda console: _show(console, data))


async def _judged(signer: Signer, proposal: Proposal) -> Judgement:
    from wallet.proposals import rejudge

    judgement = await rejudge(signer, proposal)
    say(f"{proposal.note}, proposed for {checksum(proposal.op.sender)}")
    for line in judgement.decision.explain():
        say(line)
    return judgement


def _quorums(signer: Signer, proposal: Proposal, judgement: Judgement) -> Any:
    from wallet.proposals import standing

    return standing(signer, proposal, judgement).quorums


def _described(signer: Signer, proposal: Proposal, judgement: Judgement) -> dict[str, Any]:
    from wallet.proposals import standing

    found = standing(signer, proposal, judgement)
    return {
        "note": proposal.note,
        "account": checksum(proposal.op.sender),
        "intentHash": proposal.to_json()["intentHash"],
        "outcome": judgement.decision.outcome,
        "approvedBy": [checksum(one.signer) for one in found.approvals],
        "quorums": {
            quorum.name: {"threshold": quorum.threshold, "signers": [checksum(one) for one in quorum.signers]}
            for quorum in found.quorums
        },
        "lacking": list(found.lacking),
        "ready": not found.lacking,
        "decision": judgement.decision.to_json(),
    }


def _show(console: Console, data: dict[str, Any]) -> None:
    if "block" in data:
        console.print(f"block {data['block']}, transaction {data['transaction']}", markup=False)
        return
    if "approval" in data:
        console.print(data["approval"], markup=False)
    for line in data["lacking"]:
        say(f"  {line}")
    if data["ready"]:
        say("  ready to be sent: seawall proposal send FILE")
