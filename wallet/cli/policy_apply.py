"""`seawall policy plan`, `apply` and `status`: the file is the truth, the chain is compared with it and changed by a judged operation."""

from __future__ import annotations

import asyncio
import os
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from contracts.errors import BadInput, OperationFailed, PolicyRefused
from contracts.types import checksum, to_hex
from wallet.cli.output import AsJson, PassphraseFd, PassphraseFile, emit, profile, say

if TYPE_CHECKING:
    from rich.console import Console

    from policies.policy import Policy
    from wallet.apply import Plan
    from wallet.config import Profile
    from wallet.desk import Desk
    from wallet.keystore import PassphraseSource
    from wallet.sign import Signer

DIFFERENT = 8
"""Exit code of `--exit-code`: the chain is not what the file says."""

File = Annotated[Path | None, typer.Argument(metavar="[FILE]", help="The policy file; default: the profile's.")]
Account = Annotated[
    str | None, typer.Option("--account", metavar="ADDRESS", help="The account; default: the profile's.")
]
ExitCode = Annotated[
    bool, typer.Option("--exit-code", help=f"End with {DIFFERENT} when the chain is not what the file says.")
]
Current = Annotated[
    Path | None,
    typer.Option("--current", metavar="FILE", help="The policy in force, if this machine has never worked with it."),
]


def _settings(ctx: typer.Context, file: Path | None, account: str | None) -> tuple[Profile, Policy]:
    from wallet.policy_files import load_policy

    settings = profile(ctx, {"account": account}).profile
    path = file or settings.policy
    if path is None:
        raise BadInput('which policy? Name the file, or set `policy = "FILE"` in seawall.toml')
    policy = load_policy(path)
    return replace(settings, policy=path), policy


def plan(
    ctx: typer.Context, file: File = None, account: Account = None, exit_code: ExitCode = False, as_json: AsJson = False
) -> None:
    """Show what the policy would change on chain: engines, quorums, guards, exits, stops, sessions, modules, and its own id."""
    settings, policy = _settings(ctx, file, account)

    async def run() -> Plan:
        from wallet.apply import plan_of
        from wallet.desk import connect

        async with connect(settings) as desk:
            return await plan_of(desk, policy)

    found = asyncio.run(run())
    emit(found.to_json(), as_json, lambda console: _show(console, found))
    if exit_code and not found.in_sync:
        raise typer.Exit(DIFFERENT)


def status(
    ctx: typer.Context, file: File = None, account: Account = None, exit_code: ExitCode = False, as_json: AsJson = False
) -> None:
    """State, policy in force, guards and modules of the account, and every difference from the file (drift)."""
    settings, policy = _settings(ctx, file, account)

    async def run() -> tuple[Plan, list[str]]:
        from wallet.apply import plan_of, trust_base
        from wallet.desk import connect

        async with connect(settings) as desk:
            found = await plan_of(desk, policy)
            return found, trust_base(found, desk.book)

    found, modules = asyncio.run(run())
    data = found.to_json() | {
        "policyEpoch": found.present.policy_epoch,
        "modules": modules,
        "engines": sorted(checksum(one) for one in found.present.engines),
        "threshold": found.present.threshold,
        "escapeOpenAt": found.present.escape_open_at_s,
        "stopsArmed": sorted(found.present.stops),
    }

    def show(console: Console) -> None:
        from wallet.apply import at

        present = found.present
        in_force = "the file's" if present.policy_id == policy.policy_id else "another than the file's"
        rows = [
            ("account", f"{checksum(present.account)}, block {present.block_number}"),
            ("state", f"{present.state.name}, epoch {present.state_epoch}"),
            ("policy", f"{to_hex(present.policy_id)}, epoch {present.policy_epoch} ({in_force})"),
            ("engines", f"{present.threshold} of {len(present.engines)}"),
            ("guardians", f"{len(present.guardians)}, of whom {present.guardians_quorum} thaw"),
            ("stops armed", ", ".join(map(str, sorted(present.stops))) or "none"),
            *(("module", text) for text in modules),
        ]
        if present.escape_open_at_s:
            rows.append(
                ("ESCAPE", f"announced; the owner alone may do anything from {at(present.escape_open_at_s)} on")
            )
        for label, text in rows:
            console.print(f"[dim]{label:<12}[/dim] {text}")
        _show(console, found)

    emit(data, as_json, show)
    if exit_code and not found.in_sync:
        raise typer.Exit(DIFFERENT)


def apply(
    ctx: typer.Context,
    file: File = None,
    account: Account = None,
    current: Current = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Plan and judge; sign nothing, ask for no key.")] = False,
    propose: Annotated[
        Path | None,
        typer.Option("--propose", metavar="FILE", help="If the policy in force asks a quorum: write the proposal."),
    ] = None,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask. The policy in force still decides.")] = False,
    passphrase_file: PassphraseFile = None,
    passphrase_fd: PassphraseFd = None,
    as_json: AsJson = False,
) -> None:
    """Make the chain what the file says, by an operation that the policy in force judges (two, where the hook's spending changes: that goes
    alone); then compare again.

    What the account, or its hook, must announce is announced now, and carried out by running this again when its delay is over.
    """
    settings, policy = _settings(ctx, file, account)
    from wallet.policy_files import load_policy

    known = None if current is None else load_policy(current)

    async def run() -> dict[str, Any]:
        from wallet.apply import calls_of, plan_of, settle
        from wallet.desk import READ_ONLY, connect
        from wallet.keystore import PassphraseSource

        source, keys = PassphraseSource.of(passphrase_file, passphrase_fd, os.environ), dict[str, Any]()
        async with connect(settings) as desk:
            now = await plan_of(desk, policy)
            for line in now.lines():
                say(line)
            if now.in_sync:
                return now.to_json() | {"sent": False}
            calls, sent = calls_of(now), dict[str, Any]()
            while calls:
                signer, judged = await _judged(desk, now, calls, known, explain=propose is None)
                if judged and propose is not None:
                    return now.to_json() | {"sent": False} | await _propose(signer, calls, policy, propose)
                if dry_run:
                    return now.to_json() | {"sent": False}
                if settings.read_only:
                    raise BadInput(f"{READ_ONLY}; --dry-run works without")
                if not yes and not sent:
                    typer.confirm("Sign and send it?", abort=True, err=True)
                sent = await _send(desk, signer, calls, keys, source, judged=judged)
                now, done = await plan_of(desk, policy), calls
                settle(desk, now)
                calls = now.calls()
                if calls == done:
                    raise OperationFailed(
                        f"{sent['userOpHash']} was included, and yet the chain differs from the file as before in "
                        + ", ".join(change.key for change in now.changes)
                        + ": somebody else changes it meanwhile; see `seawall policy plan`"
                    )
            return now.to_json() | {"sent": True, "lines": now.lines()} | sent

    data = asyncio.run(run())
    lines = data.pop("lines", [])

    def show(console: Console) -> None:
        if "proposal" in data:
            console.print(f"proposed in {data['proposal']}; nothing was signed", markup=False)
        elif data["inSync"]:
            console.print("the chain is what the file says" + ("" if data["sent"] else "; nothing to do"))
        elif not data["sent"]:
            console.print("dry run: the policy in force would allow it; nothing was signed")
        else:
            console.print("announced; apply again when the delay is over:")
            for line in lines:
                console.print(f"  {line}", markup=False)

    emit(data, as_json, show)


async def _judged(
    desk: Desk, plan: Plan, calls: list[Any], known: Policy | None, *, explain: bool
) -> tuple[Signer, bool]:
    """The signer under the policy in force, which has allowed the calls (unless somebody is asked first: not `explain`), and whether there
    is one. Raises PolicyRefused, BadInput, NodeError."""
    from wallet.apply import policy_in_force, store

    judge = policy_in_force(desk, plan, known)
    signer = replace(desk, policy=judge).signer()
    if judge is None:
        return signer, False
    store().keep(judge)
    if not explain:
        return signer, True
    judgement = await signer.judge(calls, sizes=False)
    for line in judgement.decision.explain():
        say(line)
    if not judgement.decision.allowed:
        hint = "; ask them with --propose FILE" if judgement.decision.outcome == "require_signers" else ""
        raise PolicyRefused(judgement.decision.summary + hint, data=judgement.decision.to_json())
    return signer, True


async def _send(
    desk: Desk, signer: Signer, calls: list[Any], keys: dict[str, Any], source: PassphraseSource, *, judged: bool
) -> dict[str, Any]:
    """Sign, send and wait. `keys` are kept open for the operation after it. Raises OperationFailed, BadInput, NodeError."""
    from wallet.desk import open_keys

    lacking = [role for role in (["owner", "engine"] if judged else ["owner"]) if role not in keys]
    if lacking:
        keys |= open_keys(desk.profile, lacking, source)
    engine = None if signer.engine is None else replace(signer.engine, key=keys["engine"])
    sent = await replace(signer, owner=keys["owner"], engine=engine).submit(calls)
    say(f"sent {to_hex(sent.user_op_hash)}, waiting for its block ...")
    receipt = await signer.bundler.wait(sent.user_op_hash)
    if not receipt.success:
        raise OperationFailed(
            f"{to_hex(sent.user_op_hash)} is in block {receipt.block_number}, but its call reverted "
            f"({to_hex(receipt.reason[:68]) or 'no reason given'}); nothing changed but the gas"
        )
    return {"userOpHash": to_hex(receipt.user_op_hash), "transaction": to_hex(receipt.transaction_hash)}


async def _propose(signer: Signer, calls: list[Any], policy: Policy, path: Path) -> dict[str, Any]:
    from wallet.proposals import propose, standing, write_proposal

    proposal, judgement = await propose(signer, calls, f"apply policy {policy.name} {policy.version}")
    for line in judgement.decision.explain():
        say(line)
    write_proposal(path, proposal)
    return {"proposal": str(path), "lacking": list(standing(signer, proposal, judgement).lacking)}


def _show(console: Console, found: Plan) -> None:
    if found.in_sync:
        console.print("the chain is what the file says")
    for line in found.lines():
        style = {"+": "green", "~": "yellow", "-": "red", "!": "bold red"}[line[0]]
        console.print(line, style=style, markup=False)
