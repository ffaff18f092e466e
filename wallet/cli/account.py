"""`seawall account`: create a risk account from a policy, and see what it is and holds."""

from __future__ import annotations

import asyncio
import os
import secrets
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from contracts.errors import BadInput
from contracts.types import Address, checksum, keccak, parse_bytes, to_hex
from wallet.cli.output import AsJson, PassphraseFd, PassphraseFile, emit, profile, say, table

if TYPE_CHECKING:
    from rich.console import Console

    from contracts.bindings import AccountConfig
    from contracts.eoa import Eoa
    from contracts.rpc import RpcClient
    from policies import Policy
    from wallet.config import Profile
    from wallet.registry import KnownAccount

app = typer.Typer(no_args_is_help=True, help="Create a risk account, show its state and positions.")

_KINDS = {1: "validator", 2: "executor", 3: "fallback", 4: "hook"}


@app.command()
def create(
    ctx: typer.Context,
    policy: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="The policy whose guards it is born with; default: the profile's."),
    ] = None,
    salt: Annotated[
        str | None, typer.Option(metavar="TEXT", help="Tells accounts of one configuration apart; default: random.")
    ] = None,
    bare: Annotated[bool, typer.Option("--bare", help="No policy: the owner's signature alone, no guards.")] = False,
    owner: Annotated[
        str | None,
        typer.Option(
            "--owner", metavar="SPEC", help="Who owns it, as `seawall owner show` reads it; default: keys.owner."
        ),
    ] = None,
    signers: Annotated[
        list[str] | None,
        typer.Option("--signer", metavar="SPEC[=WEIGHT]", help="One signer of a multisig owner; repeatable."),
    ] = None,
    threshold: Annotated[
        int | None, typer.Option(help="Weight that the signers must reach together; default: all of them.")
    ] = None,
    deploy: Annotated[
        bool, typer.Option("--deploy", help="Create it on chain now, paid by the owner; else its first operation does.")
    ] = False,
    passphrase_file: PassphraseFile = None,
    passphrase_fd: PassphraseFd = None,
    as_json: AsJson = False,
) -> None:
    """Work out the address of the account that a policy describes, and remember how it is born."""
    if bare and policy is not None:
        raise BadInput("give --policy or --bare, not both")
    settings = profile(ctx, {"policy": policy}).profile
    if not bare and settings.policy is None:
        raise BadInput("which policy? Give --policy FILE, or --bare for an account without one")
    chosen = _chosen_owner(settings, owner, signers or [], threshold)
    payer = None
    if deploy:
        from wallet.desk import open_keys
        from wallet.keystore import PassphraseSource

        source = PassphraseSource.of(passphrase_file, passphrase_fd, os.environ)
        payer = open_keys(settings, ["owner"], source)["owner"]
    user_salt = keccak(salt.encode()) if salt is not None else secrets.token_bytes(32)
    found, saved, tx_hash = asyncio.run(_create(settings, user_salt, payer, bare=bare, chosen=chosen))
    names = {address: name for name, address in settings.addresses.items()}
    modules = [
        {
            "name": names.get(m.module, "unknown"),
            "type": _KINDS[m.module_type_id],
            "address": checksum(m.module),
        }
        for m in found.birth.config.modules
    ]
    data: dict[str, Any] = {
        "address": checksum(found.address),
        "chainId": found.chain_id,
        "entryPoint": found.entry_point,
        "policyId": None if bare else to_hex(_policy_id(settings)),
        "modules": modules,
        "file": str(saved),
        "transaction": None if tx_hash is None else to_hex(tx_hash),
    }

    def show(console: Console) -> None:
        rows = [(name, data[name]) for name in ("chainId", "entryPoint", "policyId", "file", "transaction")]
        rows = [("account", data["address"]), *((name, value) for name, value in rows if value is not None)]
        for name, value in rows:
            console.print(f"[dim]{name:<12}[/dim] {value}")
        if modules:
            columns = ["module", "type", "address"]
            table(console, columns, [[m[name] for name in ("name", "type", "address")] for m in modules])

    emit(data, as_json, show)
    where = checksum(found.address)
    say(f'to work on it, set `account = "{where}"` in seawall.toml')
    say(
        f"to fund it: send USDC to {where} on chain {found.chain_id}; gas is the paymaster's if one is set, else send ETH there too"
    )
    if tx_hash is None:
        say(f"keep a copy of {saved}: until its first operation, only that file knows how the account comes to life")


def _chosen_owner(settings: Profile, spec: str | None, signers: list[str], threshold: int | None) -> bytes | None:
    """The owner that the flags name; None: the profile's key. Raises BadInput."""
    if spec is None and not signers:
        if threshold is not None:
            raise BadInput("--threshold goes with --signer")
        return None
    from wallet.keystore import Keystore
    from wallet.owner_kinds import parse_multisig, parse_owner

    store = Keystore(settings.keystore)
    if spec is not None:
        if signers or threshold is not None:
            raise BadInput("give --owner, or --signer with --threshold, not both")
        return parse_owner(spec, store)
    return parse_multisig(threshold, signers, store)


def _policy_id(settings: Profile) -> bytes:
    from wallet.desk import policy_of

    found = policy_of(settings)
    assert found is not None
    return found.policy_id


async def _create(
    settings: Profile, user_salt: bytes, payer: Eoa | None, *, bare: bool, chosen: bytes | None
) -> tuple[KnownAccount, Path, bytes | None]:
    from contracts.eoa import TransactionSender
    from contracts.rpc import RpcClient
    from contracts.types import parse_hash
    from wallet.account import Birth
    from wallet.apply import store
    from wallet.desk import chain_of, registry, roles_of
    from wallet.registry import KnownAccount

    roles = roles_of(settings)
    if "owner" not in roles and chosen is None:
        raise BadInput("no owner: set keys.owner in seawall.toml, or make the key with `seawall key new owner`")
    factory = settings.address("risk_account_factory")
    async with RpcClient(settings.rpc_url) as rpc:
        chain_id = await chain_of(settings, rpc)
        config, policy = await _config(settings, rpc, roles, bare=bare, owner=chosen)
        birth = Birth(factory, config, user_salt)
        validator = None if policy is None else settings.address("risk_validator")
        found = KnownAccount(await birth.address(rpc), chain_id, settings.entry_point, validator, birth)
        saved = registry().save(found)
        if policy is not None:
            store().keep(policy)
        if payer is None or await rpc.get_code(found.address):
            return found, saved, None
        receipt = await TransactionSender(rpc, payer, chain_id).transact(factory, birth.factory_data)
        return found, saved, parse_hash(receipt["transactionHash"])


async def _config(
    settings: Profile, rpc: RpcClient, roles: Mapping[str, Address], *, bare: bool, owner: bytes | None = None
) -> tuple[AccountConfig, Policy | None]:
    """What the account starts with, and the policy that says so."""
    from policies.guards import bound
    from policies.names import book_of
    from wallet import setup
    from wallet.desk import policy_of

    policy = None if bare else policy_of(settings)
    if policy is None:
        return setup.bare_config(owner or roles["owner"]), None
    if "engine" in policy.attestation_engines and "engine" not in roles:
        raise BadInput("no engine: set keys.engine in seawall.toml, or make the key with `seawall key new engine`")
    book = book_of(settings.addresses, roles)
    engines = tuple(bound(name, policy, book) for name in policy.attestation_engines)
    now_s = int((await rpc.block())["timestamp"], 16)
    return setup.guarded_config(policy, book, owner=owner or roles["owner"], engines=engines, now_s=now_s), policy


@app.command("join-7702")
def join(
    ctx: typer.Context,
    policy: Annotated[
        Path | None, typer.Option(metavar="FILE", help="The policy whose guards it takes; default: the profile's.")
    ] = None,
    bare: Annotated[bool, typer.Option("--bare", help="No policy: the owner's signature alone, no guards.")] = False,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")] = False,
    passphrase_file: PassphraseFile = None,
    passphrase_fd: PassphraseFd = None,
    as_json: AsJson = False,
) -> None:
    """Make the owner's own EOA a risk account in place (EIP-7702). It keeps its address and what it holds."""
    from wallet.delegation import ADVISORY

    if bare and policy is not None:
        raise BadInput("give --policy or --bare, not both")
    settings = profile(ctx, {"policy": policy}).profile
    if not bare and settings.policy is None:
        raise BadInput("which policy? Give --policy FILE, or --bare for an account without one")
    owner = _owner_key(settings, passphrase_file, passphrase_fd)
    where = checksum(owner.address)
    say(f"{where} stays an EOA: {ADVISORY}")
    if not yes:
        typer.confirm(f"Make {where} a risk account?", abort=True, err=True)
    data = asyncio.run(_join(settings, owner, bare=bare)) | {"advisory": ADVISORY}
    emit(data, as_json)
    say(f'to work on it, set `account = "{where}"` in seawall.toml; `seawall account leave` undoes this')


async def _join(settings: Profile, owner: Eoa, *, bare: bool) -> dict[str, Any]:
    from contracts.entrypoint import ENTRY_POINTS
    from contracts.errors import OperationFailed
    from contracts.rpc import RpcClient
    from wallet import delegation
    from wallet.account import AccountClient
    from wallet.apply import store
    from wallet.desk import chain_of, roles_of
    from wallet.services import BundlerClient

    async with RpcClient(settings.rpc_url) as rpc, RpcClient(settings.bundler_url) as bundler:
        chain_id = await chain_of(settings, rpc)
        config, policy = await _config(settings, rpc, roles_of(settings) | {"owner": owner.address}, bare=bare)
        entry_point = ENTRY_POINTS[settings.entry_point]
        code = await delegation.implementation_of(rpc, settings.address("risk_account_factory"))
        account = AccountClient(rpc, entry_point, chain_id, owner.address)
        receipt = await delegation.join(account, owner, code, config, BundlerClient(bundler, entry_point))
        if not receipt.success:
            raise OperationFailed(f"the account's configuration was refused: {to_hex(receipt.reason)}")
        if policy is not None:
            store().keep(policy)
        return {
            "address": checksum(owner.address),
            "chainId": chain_id,
            "implementation": checksum(code),
            "policyId": None if policy is None else to_hex(policy.policy_id),
            "transaction": to_hex(receipt.transaction_hash),
        }


@app.command()
def leave(
    ctx: typer.Context,
    handlers: Annotated[
        list[str] | None,
        typer.Option("--handler", metavar="SELECTOR", help="Selector of an installed fallback handler; repeatable."),
    ] = None,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")] = False,
    passphrase_file: PassphraseFile = None,
    passphrase_fd: PassphraseFd = None,
    as_json: AsJson = False,
) -> None:
    """Turn an EIP-7702 risk account back into a plain EOA: every module is removed, then the delegation."""
    settings = profile(ctx, {}).profile
    selectors = tuple(parse_bytes(text, "--handler") for text in handlers or ())
    if any(len(selector) != 4 for selector in selectors):
        raise BadInput("a selector is 4 bytes: --handler 0x12345678")
    owner = _owner_key(settings, passphrase_file, passphrase_fd)
    where = checksum(owner.address)
    if not yes:
        typer.confirm(f"Remove every module and guard of {where} and make it a plain EOA?", abort=True, err=True)

    async def go() -> dict[str, Any]:
        from contracts.rpc import RpcClient
        from wallet import delegation
        from wallet.desk import chain_of

        async with RpcClient(settings.rpc_url) as rpc:
            chain_id = await chain_of(settings, rpc)
            code = await delegation.implementation_of(rpc, settings.address("risk_account_factory"))
            done = await delegation.leave(rpc, owner, code, chain_id, selectors)
        return {"address": where, "cleared": to_hex(done.cleared), "undelegated": to_hex(done.undelegated)}

    emit(asyncio.run(go()), as_json)


def _owner_key(settings: Profile, passphrase_file: Path | None, passphrase_fd: int | None) -> Eoa:
    from wallet.desk import open_keys
    from wallet.keystore import PassphraseSource

    return open_keys(settings, ["owner"], PassphraseSource.of(passphrase_file, passphrase_fd, os.environ))["owner"]


@app.command()
def show(
    ctx: typer.Context,
    account: Annotated[
        str | None, typer.Argument(help="The account; default: the profile's, or the only one known.")
    ] = None,
    exports: Annotated[
        list[str] | None,
        typer.Option(
            "--with", metavar="VENUE=FILE", help="A book exported from deribit, dydx or hyperliquid; repeatable."
        ),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """State, policy in force, balances, position with its distance to liquidation, stops and freezes."""
    settings = profile(ctx, {"account": account, "exports": ",".join(exports) if exports else None}).profile

    async def look() -> dict[str, Any]:
        from contracts.eip7702 import delegate_of
        from wallet.delegation import ADVISORY
        from wallet.desk import connect
        from wallet.positions import overview

        async with connect(settings) as desk:
            found: dict[str, Any] = (await overview(desk)).to_json()
            if delegate_of(await desk.rpc.get_code(desk.account.address)) is not None:
                found["advisory"] = ADVISORY
            return found

    data = asyncio.run(look())
    emit(data, as_json, lambda console: _show(console, data))


def _show(console: Console, data: dict[str, Any]) -> None:
    from datetime import UTC, datetime

    from rich.markup import escape

    def at(seconds: int) -> str:
        return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%d %H:%M:%S UTC")

    policy, freeze = data["policy"], data.get("freeze")
    rows: list[tuple[str, object]] = [
        ("account", f"{data['address']} on chain {data['chainId']}{'' if data['deployed'] else ', not deployed yet'}"),
        ("state", data["state"]),
        ("policy", "none" if policy is None else f"{policy['name']}, epoch {policy['epoch']}, {policy['id']}"),
        ("signed by", "owner alone" if data["validator"] is None else f"owner and engine, through {data['validator']}"),
        ("deposit", f"{int(data['depositWei']) / 1e18:.9f} ETH at the entry point"),
    ]
    rows += [(f"balance {asset}", amount) for asset, amount in data["balances"].items()]
    rows += [(f"price {asset}", price) for asset, price in data["prices"].items()]
    for margin in data["margins"]:
        leverage = "none" if margin["leverage"] is None else f"{float(margin['leverage']):.2f}x"
        value, free = (f"{float(margin[name]):,.2f}" for name in ("accountValue", "freeCollateral"))
        rows.append((f"margin {margin['venue']}", f"{value} USDC, {free} free, leverage {leverage}"))
    if freeze is not None:
        rows.append(("guardians", f"{freeze['guardians']}, of whom {freeze['quorum']} thaw"))
        rows += [
            (name, at(freeze[key]))
            for name, key in (("freeze ends", "soloUntil"), ("escape", "escapeAt"))
            if freeze[key]
        ]
        if freeze["thawAt"]:
            rows.append((f"thaw to {freeze['thawTo']}", at(freeze["thawAt"])))
    if "advisory" in data:
        rows.append(("EIP-7702", data["advisory"]))
    rows += [("unknown", text) for text in data["missing"]]
    for label, shown in rows:
        console.print(f"[dim]{label:<14}[/dim] {escape(str(shown))}")
    if data["positions"]:
        columns = ["position", "size", "notional", "entry", "mark", "profit", "liquidation", "distance"]
        table(console, columns, [_position(p) for p in data["positions"]])
    if data["stops"]:
        table(console, ["stop", "status", "trigger", "best so far", "group"], [_stop(s) for s in data["stops"]])


def _stop(s: dict[str, Any]) -> list[str]:
    if s["status"] == "none":
        return [str(s["id"]), s["status"], "", "", ""]
    best = "" if s["mark"] is None else f"{float(s['mark']):,.2f}"
    return [str(s["id"]), s["status"], f"{s['when']} {float(s['trigger']):,.2f}", best, str(s["group"] or "")]


def _position(p: dict[str, Any]) -> list[str]:
    price, distance = p["liquidationPrice"], p["liquidationDistance"]
    return [
        f"{p['venue']}:{p['asset']}",
        f"{float(p['size']):+.6f}",
        f"{float(p['notional']):,.2f}",
        f"{float(p['entryPrice']):,.2f}",
        f"{float(p['markPrice']):,.2f}",
        f"{float(p['unrealisedProfit']):+,.2f}",
        "none" if price is None else f"{float(price):,.2f}",
        "" if distance is None else f"{float(distance):.2%}",
    ]


@app.command()
def fund(
    ctx: typer.Context,
    address: Annotated[str | None, typer.Argument(help="The account; default: the profile's.")] = None,
    usdc: Annotated[str, typer.Option(help="USDC to send from the owner's own address.")] = "0",
    eth: Annotated[
        str, typer.Option(help="Native coin to send, from which the account pays gas that nobody sponsors.")
    ] = "0",
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")] = False,
    passphrase_file: PassphraseFile = None,
    passphrase_fd: PassphraseFd = None,
    as_json: AsJson = False,
) -> None:
    """Send USDC or native coin from the owner's own address (its EOA) to the account, as plain transactions."""
    from contracts.bindings import TRANSFER
    from contracts.eoa import TransactionSender
    from contracts.rpc import RpcClient
    from contracts.units import to_units
    from wallet.desk import chain_of, open_keys
    from wallet.keystore import PassphraseSource

    settings = profile(ctx, {"account": address}).profile
    account = settings.account
    if account is None:
        raise BadInput('which account? Name it, or set `account = "0x..."` in seawall.toml')
    usdc_units, wei = to_units(usdc, 6, "--usdc"), to_units(eth, 18, "--eth")
    if usdc_units < 0 or wei < 0 or not usdc_units + wei:
        raise BadInput("say how much: --usdc 10000, --eth 0.1, or both")
    if not yes:
        typer.confirm(f"Send {usdc} USDC and {eth} ETH to {checksum(account)}?", abort=True, err=True)
    owner = open_keys(settings, ["owner"], PassphraseSource.of(passphrase_file, passphrase_fd, os.environ))["owner"]

    async def send() -> list[str]:
        async with RpcClient(settings.rpc_url) as rpc:
            sender = TransactionSender(rpc, owner, await chain_of(settings, rpc))
            sent = []
            if usdc_units:
                sent.append(await sender.transact(settings.address("usdc"), TRANSFER.encode(account, usdc_units)))
            if wei:
                sent.append(await sender.transact(account, value=wei))
            return [receipt["transactionHash"] for receipt in sent]

    transactions = asyncio.run(send())
    emit({"account": checksum(account), "usdc": usdc, "eth": eth, "transactions": ", ".join(transactions)}, as_json)
