"""`seawall policy`: work on a policy file, and bring it to an account on chain."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from contracts.errors import BadInput, Refused
from wallet.cli import backtest as history
from wallet.cli import policy_apply, policy_audit, policy_replay, policy_serve
from wallet.cli.decision_view import HtmlFile, show_decision, write_html
from wallet.cli.output import AsJson, emit, profile, say, table

if TYPE_CHECKING:
    from rich.console import Console

    from policies import Decision, Facts, Policy
    from wallet.config import Profile

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    help="Lint, check, explain, back-test a policy file; plan and apply it on chain; print its schema or id.",
)
app.add_typer(policy_audit.app, name="audit")
app.command("replay")(policy_replay.replay)
app.command("plan")(policy_apply.plan)
app.command("apply")(policy_apply.apply)
app.command("status")(policy_apply.status)
app.command("serve")(policy_serve.serve)
app.command("backtest")(history.backtest)
app.command("diff")(history.diff)

File = Annotated[Path, typer.Argument(metavar="FILE", help="The policy file.")]
Variables = Annotated[
    list[str] | None, typer.Option("--var", metavar="NAME=VALUE", help="A value for one of its variables; repeatable.")
]


def _json(path: Path, what: str) -> Any:
    from wallet.policy_files import read_text

    try:
        return json.loads(read_text(path, what))
    except ValueError as error:
        raise BadInput(f"the {what} {path} is not JSON: {error}") from None


def overrides(variables: list[str] | None) -> dict[str, str]:
    found = {}
    for pair in variables or []:
        name, equals, value = pair.partition("=")
        if not equals or not name:
            raise BadInput(f"--var wants NAME=VALUE, got {pair!r}")
        found[name] = value
    return found


def _load(path: Path, variables: list[str] | None) -> Policy:
    from wallet.policy_files import load_policy

    return load_policy(path, overrides(variables))


@app.command()
def lint(path: File, variables: Variables = None, as_json: AsJson = False) -> None:
    """Name every problem with its line. Exit code 2 if there is an error; warnings alone do not count."""
    from policies import document
    from wallet.policy_files import read_policy

    problems = document.lint(*read_policy(path), overrides(variables))
    errors = sum(problem.severity == "error" for problem in problems)

    def show(console: Console) -> None:
        for problem in problems:
            text = str(problem) if problem.source else f"{path}:{problem}"
            console.print(text, style="red" if problem.severity == "error" else "yellow", markup=False)
        console.print("no problems" if not problems else f"{errors} errors, {len(problems) - errors} warnings")

    emit({"ok": not errors, "problems": [problem.to_json() for problem in problems]}, as_json, show)
    if errors:
        raise typer.Exit(BadInput.exit_code)


@app.command("id")
def id_(path: File, variables: Variables = None, as_json: AsJson = False) -> None:
    """Print the id that attestations and the account on chain name."""
    from contracts.types import to_hex

    policy = _load(path, variables)
    data = {"policy_id": to_hex(policy.policy_id), "name": policy.name, "version": policy.version}
    emit(data, as_json, lambda console: console.print(data["policy_id"]))


@app.command()
def schema() -> None:
    """Print the JSON Schema of policy files, for editors."""
    from policies.structure import schema as published

    print(json.dumps(published(), indent=2))


@app.command()
def explain(
    what: Annotated[
        str | None, typer.Argument(metavar="[METRIC|FILE]", help="A metric, or a Decision as JSON.")
    ] = None,
    html: HtmlFile = None,
    as_json: AsJson = False,
) -> None:
    """Say what a metric measures (none given: list them all), or put a recorded Decision into words."""
    from policies import METRICS
    from policies import explain as in_words
    from policies.problems import did_you_mean

    if what is None:
        metrics = [{"name": m.name, "unit": m.unit, "definition": m.definition} for m in METRICS.values()]
        emit(
            metrics, as_json, lambda c: table(c, ["metric", "unit", "definition"], [list(m.values()) for m in metrics])
        )
    elif (metric := METRICS.get(what)) is not None:
        names = ("name", "unit", "worse", "definition", "inputs")
        lists = {name: list(getattr(metric, name)) for name in ("scopes", "parameters")}
        shown = lists if as_json else {name: ", ".join(items) or "none" for name, items in lists.items()}
        emit({name: getattr(metric, name) for name in names} | shown, as_json)
    elif Path(what).is_file():
        decision = _json(Path(what), "Decision")
        try:
            lines = in_words(decision)
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise BadInput(f"{what} is not a Decision as `seawall policy check --json` prints it ({error!r})") from None
        write_html(html, decision)
        emit({"lines": lines}, as_json, lambda console: show_decision(console, decision))
    else:
        raise BadInput(
            f"{what!r} is no metric and no file; {did_you_mean(what, tuple(METRICS)) or 'see `seawall policy explain`'}"
        )


@app.command()
def check(
    ctx: typer.Context,
    path: Annotated[
        Path | None, typer.Argument(metavar="[FILE]", help="The policy file; default: the profile's.")
    ] = None,
    facts: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Recorded facts (JSON): judge without a node.")
    ] = None,
    op: Annotated[
        Path | None, typer.Option(metavar="FILE", help="A UserOperation (JSON): simulate it on the node.")
    ] = None,
    calls: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Calls [{target, value, data}] (JSON) instead.")
    ] = None,
    account: Annotated[
        str | None, typer.Option(help="The account that would make the calls; default: the profile's.")
    ] = None,
    save_facts: Annotated[Path | None, typer.Option(metavar="FILE", help="Write the facts there.")] = None,
    variables: Variables = None,
    html: HtmlFile = None,
    as_json: AsJson = False,
) -> None:
    """Judge an operation before anybody signs it. Exit code 5 if the policy does not allow it.

    What is refused on the node is simulated again in other sizes: the answer has the largest that would pass.
    """
    from policies import evaluate
    from wallet.recorded import facts_from_json, facts_to_json

    settings = profile(ctx, {"account": account}).profile
    file = path or settings.policy
    if file is None:
        raise BadInput('which policy? Name the file, or set `policy = "FILE"` in seawall.toml')
    if sum(source is not None for source in (facts, op, calls)) != 1:
        raise BadInput("give exactly one of --facts, --op and --calls")
    policy = _load(file, variables)
    decision: Decision
    if facts is not None:
        known = facts_from_json(_json(facts, "facts"))
        decision = evaluate(policy, known, known.block_time_s)
    else:
        known, decision = asyncio.run(_judged(settings, policy, op, calls))
    if save_facts is not None:
        save_facts.write_text(json.dumps(facts_to_json(known), indent=1, sort_keys=True) + "\n")
    shown = decision.to_json()
    write_html(html, shown, "0x" + decision.id.hex())
    emit(shown, as_json, lambda console: show_decision(console, shown))
    if not decision.allowed:
        raise typer.Exit(Refused.exit_code)


async def _judged(
    settings: Profile, policy: Policy, op_file: Path | None, calls_file: Path | None
) -> tuple[Facts, Decision]:
    """Simulate on the profile's node, and judge. Nothing is signed and no service is asked."""
    from contracts.entrypoint import ENTRY_POINTS
    from contracts.rpc import RpcClient
    from contracts.userop import UserOperation
    from policies import evaluate
    from policies.names import book_of
    from wallet.account import AccountClient, suggest_fees
    from wallet.desk import reader_of
    from wallet.sizing import largest_sizes

    book = book_of(settings.addresses, _roles(settings))
    for name in ("multicall3", "seawall.risk_validator"):
        if name not in book:
            settings.address(name.rpartition(".")[2])  # says where to set it
    async with RpcClient(settings.rpc_url) as rpc:
        chain_id = await rpc.chain_id()
        entry_point, validator = ENTRY_POINTS[settings.entry_point], book["seawall.risk_validator"]
        if op_file is not None:
            op = UserOperation.from_rpc(_json(op_file, "operation"), partial=True)
            client = AccountClient(rpc, entry_point, chain_id, op.sender, validator)
        else:
            assert calls_file is not None
            if settings.account is None:
                raise BadInput('which account? Give --account, or set `account = "0x..."` in seawall.toml')
            client = AccountClient(rpc, entry_point, chain_id, settings.account, validator)
            max_fee, priority_fee = await suggest_fees(rpc)
            op = await client.draft(_calls(calls_file), max_fee_wei=max_fee, priority_fee_wei=priority_fee)
        reader = reader_of(settings, book, policy.policy_id, chain_id)

        async def read_at(other: UserOperation, block_number: int | None = None) -> Facts:
            found, _ = await reader.read(
                client,
                other,
                sponsored=op.paymaster is not None,
                outstanding=lambda *_: (),
                block_number=block_number,
                policy=policy,
            )
            return found

        facts = await read_at(op)
        decision = evaluate(policy, facts, facts.block_time_s)
        if not decision.allowed:
            decision, _ = await largest_sizes(
                policy, facts, decision, op, lambda other: read_at(other, facts.block_number)
            )
    say(f"judged on block {facts.block_number}; attestations that are still out are not counted here")
    return facts, decision


def _roles(settings: Profile) -> dict[str, bytes]:
    """Addresses of the roles whose keys are in the keystore, read without opening any."""
    from wallet.keystore import Keystore

    keystore = Keystore(settings.keystore)
    named = {role: getattr(settings.keys, role) for role in ("owner", "engine", "keeper", "guardian")}
    return {role: keystore.info(name).address for role, name in named.items() if name is not None}


def _calls(path: Path) -> list[Any]:
    from contracts.bindings import Call
    from contracts.types import parse_address, parse_bytes, parse_quantity

    body = _json(path, "calls")
    if not isinstance(body, list) or not all(isinstance(call, dict) for call in body):
        raise BadInput(f"{path} must be a list of calls: target, data, and perhaps value")
    found = []
    for call in body:
        value = call.get("value", "0x0")
        amount = value if isinstance(value, int) else parse_quantity(value, "value")
        found.append(
            Call(parse_address(call.get("target"), "target"), parse_bytes(call.get("data", "0x"), "data"), amount)
        )
    return found
