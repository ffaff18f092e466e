"""`seawall paymaster deploy | token | credit | quote | withdraw`: the contract that takes gas in tokens, for who runs it."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Annotated, Any

import typer

from contracts.errors import BadInput
from contracts.types import checksum, parse_address, to_hex
from wallet.cli.output import AsJson, PassphraseFd, PassphraseFile, emit, profile, say
from wallet.cli.services import paymaster as app

if TYPE_CHECKING:
    from contracts.eoa import TransactionSender
    from contracts.rpc import RpcClient
    from contracts.token_paymaster import Oracle
    from contracts.types import Address
    from wallet.config import Profile

Token = Annotated[str, typer.Argument(metavar="TOKEN", help="`usdc`, another name of `addresses`, or an address.")]
Key = Annotated[str, typer.Option("--key", metavar="NAME", help="The key in the keystore that signs and pays.")]
Heartbeat = Annotated[int, typer.Option(metavar="SECONDS", help="An older answer of the feed is none.")]
Bounds = Annotated[str, typer.Option(metavar="LOW:HIGH", help="An answer outside is none, in the feed's currency.")]
Sequencer = Annotated[
    str | None, typer.Option(metavar="FEED", help="The rollup's feed that says when its sequencer is down.")
]
Grace = Annotated[int, typer.Option(metavar="SECONDS", help="Prices count again so long after the sequencer is back.")]
Yes = Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")]


def _oracle(settings: Profile, feed: str, heartbeat: int, bounds: str, sequencer: str | None, grace: int) -> Oracle:
    from contracts.token_paymaster import Oracle
    from contracts.units import to_units

    low, colon, high = bounds.partition(":")
    if not colon:
        raise BadInput(f"--bounds wants LOW:HIGH, such as 0.95:1.05, got {bounds!r}")
    lowest, highest = to_units(low, 18, "--bounds"), to_units(high, 18, "--bounds")
    if not 0 < lowest <= highest:
        raise BadInput(f"--bounds must be above zero and in order, got {bounds}")
    watched = bytes(20) if sequencer is None else settings.named(sequencer)
    return Oracle(settings.named(feed), heartbeat, lowest, highest, watched, grace if sequencer else 0)


def transact(
    settings: Profile,
    key: str,
    passphrase: tuple[Any, int | None],
    work: Callable[[TransactionSender], Awaitable[dict[str, Any]]],
) -> dict[str, Any]:
    """Open one key and let `work` send its transactions. Raises BadInput in a read-only profile."""
    from contracts.eoa import TransactionSender
    from contracts.rpc import RpcClient
    from wallet.desk import READ_ONLY, chain_of
    from wallet.keystore import Keystore, PassphraseSource

    if settings.read_only:
        raise BadInput(READ_ONLY)
    source = PassphraseSource.of(*passphrase, os.environ)
    eoa = Keystore(settings.keystore).open(key, source.read(f"key {key!r}"))

    async def run() -> dict[str, Any]:
        async with RpcClient(settings.rpc_url) as rpc:
            return await work(TransactionSender(rpc, eoa, await chain_of(settings, rpc)))

    return asyncio.run(run())


async def _decimals(rpc: RpcClient, token: Address) -> int:
    from policies.venues.feeds import DECIMALS

    decimals: int = DECIMALS.decode(await rpc.eth_call(token, DECIMALS.encode()))[0]
    return decimals


async def _units(rpc: RpcClient, token: Address, text: str) -> int:
    """An amount in the token's units; `all` is the most there can be. Raises BadInput."""
    from contracts.token_paymaster import ALL
    from contracts.units import to_units

    if text == "all":
        return ALL
    units = to_units(text, await _decimals(rpc, token), "AMOUNT")
    if units <= 0:
        raise BadInput(f"the amount must be more than nothing, got {text}")
    return units


@app.command()
def deploy(
    ctx: typer.Context,
    key: Key,
    feed: Annotated[str, typer.Option(help="Price feed of the native coin.")] = "feed_eth_usd",
    heartbeat: Heartbeat = 3_600,
    bounds: Bounds = "100:100000",
    sequencer: Sequencer = None,
    grace: Grace = 3_600,
    stake: Annotated[
        str, typer.Option(metavar="ETH", help="Stake at the entry point, which bundlers ask for.")
    ] = "0.1",
    unstake_delay: Annotated[int, typer.Option(metavar="SECONDS", help="How long it stays locked.")] = 86_400,
    deposit: Annotated[str, typer.Option(metavar="ETH", help="What operations are paid from.")] = "0.1",
    yes: Yes = False,
    passphrase_file: PassphraseFile = None,
    passphrase_fd: PassphraseFd = None,
    as_json: AsJson = False,
) -> None:
    """Deploy the contract for the profile's entry point, owned by the key, with stake and deposit. What is there already is left alone."""
    from contracts.bindings import ADD_STAKE, PAYMASTER_DEPOSIT
    from contracts.entrypoint import ENTRY_POINTS
    from contracts.token_paymaster import deploy_token_paymaster
    from contracts.units import to_units

    settings = profile(ctx, {}).profile
    native = _oracle(settings, feed, heartbeat, bounds, sequencer, grace)
    stake_wei, deposit_wei = to_units(stake, 18, "--stake"), to_units(deposit, 18, "--deposit")
    entry_point = ENTRY_POINTS[settings.entry_point]
    if not yes:
        what = f"Deploy, stake {stake} ETH and deposit {deposit} ETH from key {key!r}?"
        typer.confirm(what, abort=True, err=True)

    async def work(sender: TransactionSender) -> dict[str, Any]:
        where = await deploy_token_paymaster(sender, entry_point.address, sender.eoa.address, native)
        if stake_wei:
            await sender.transact(where, ADD_STAKE.encode(unstake_delay), value=stake_wei)
        if deposit_wei:
            await sender.transact(where, PAYMASTER_DEPOSIT.encode(), value=deposit_wei)
        return {
            "erc20_paymaster": checksum(where),
            "owner": checksum(sender.eoa.address),
            "stake": stake,
            "deposit": deposit,
        }

    data = transact(settings, key, (passphrase_file, passphrase_fd), work)
    emit(data, as_json)
    say(f'set `addresses.erc20_paymaster = "{data["erc20_paymaster"]}"`, then `seawall paymaster token usdc ...`')


@app.command("token")
def take_token(
    ctx: typer.Context,
    token: Token,
    key: Key,
    feed: Annotated[
        str, typer.Option(help="Price feed of the token, in the native feed's currency.")
    ] = "feed_usdc_usd",
    heartbeat: Heartbeat = 86_400,
    bounds: Bounds = "0.95:1.05",
    sequencer: Sequencer = None,
    grace: Grace = 3_600,
    surcharge: Annotated[str, typer.Option(metavar="PERCENT", help="On top of the feeds' price, at most 20%.")] = "1%",
    yes: Yes = False,
    passphrase_file: PassphraseFile = None,
    passphrase_fd: PassphraseFd = None,
    as_json: AsJson = False,
) -> None:
    """Take gas in this token, on these terms. Not for tokens that take a fee of transfers."""
    from contracts.token_paymaster import set_terms
    from contracts.units import to_units

    settings = profile(ctx, {}).profile
    where, which = settings.address("erc20_paymaster"), settings.named(token)
    oracle = _oracle(settings, feed, heartbeat, bounds, sequencer, grace)
    bps = to_units(surcharge.removesuffix("%").strip(), 2, "--surcharge")
    if not yes:
        typer.confirm(
            f"Take gas in {checksum(which)} at {checksum(oracle.feed)} plus {surcharge}?", abort=True, err=True
        )

    async def work(sender: TransactionSender) -> dict[str, Any]:
        receipt = await sender.transact(where, set_terms(which, oracle, await _decimals(sender.rpc, which), bps))
        return {"token": checksum(which), "surchargeBps": bps, "transaction": receipt["transactionHash"]}

    emit(transact(settings, key, (passphrase_file, passphrase_fd), work), as_json)


@app.command()
def credit(
    ctx: typer.Context,
    token: Token,
    amount: Annotated[str, typer.Argument(help="In the token, such as 100; with --withdraw also `all`.")],
    key: Annotated[
        str, typer.Option("--key", metavar="NAME", help="The service's signing key: the credit is its own.")
    ],
    withdraw: Annotated[bool, typer.Option("--withdraw", help="Take it back instead.")] = False,
    yes: Yes = False,
    passphrase_file: PassphraseFile = None,
    passphrase_fd: PassphraseFd = None,
    as_json: AsJson = False,
) -> None:
    """Lay in tokens from which the service advances the first operation of accounts that have approved nothing yet."""
    from contracts.bindings import APPROVE
    from contracts.token_paymaster import ADD_CREDIT, CREDIT_OF, WITHDRAW_CREDIT

    settings = profile(ctx, {}).profile
    where, which = settings.address("erc20_paymaster"), settings.named(token)
    if amount == "all" and not withdraw:
        raise BadInput("say how much: seawall paymaster credit usdc 100 --key NAME")
    if not yes:
        verb = "Withdraw" if withdraw else "Lay in"
        typer.confirm(f"{verb} {amount} of {checksum(which)} with key {key!r}?", abort=True, err=True)

    async def work(sender: TransactionSender) -> dict[str, Any]:
        units, own = await _units(sender.rpc, which, amount), sender.eoa.address
        if withdraw:
            receipt = await sender.transact(where, WITHDRAW_CREDIT.encode(which, own, units))
        else:
            await sender.transact(which, APPROVE.encode(where, units))
            receipt = await sender.transact(where, ADD_CREDIT.encode(which, units))
        (left,) = CREDIT_OF.decode(await sender.rpc.eth_call(where, CREDIT_OF.encode(which, own)))
        tx_hash = receipt["transactionHash"]
        return {"guarantor": checksum(own), "token": checksum(which), "creditUnits": str(left), "transaction": tx_hash}

    emit(transact(settings, key, (passphrase_file, passphrase_fd), work), as_json)


@app.command()
def quote(
    ctx: typer.Context,
    token: Token,
    guarantor: Annotated[str | None, typer.Option(metavar="ADDRESS", help="Whose credit to show too.")] = None,
    as_json: AsJson = False,
) -> None:
    """What gas costs in this token now, by the contract, and how long that holds."""
    from contracts.entrypoint import ENTRY_POINTS
    from contracts.entrypoint.base import BALANCE_OF
    from contracts.rpc import RpcClient
    from contracts.token_paymaster import CREDIT_OF, QUOTE
    from contracts.units import from_units

    settings = profile(ctx, {}).profile
    where, which = settings.address("erc20_paymaster"), settings.named(token)
    entry_point = ENTRY_POINTS[settings.entry_point]

    async def look() -> dict[str, Any]:
        async with RpcClient(settings.rpc_url) as rpc:
            price, after_s, until_s, problem = QUOTE.decode(await rpc.eth_call(where, QUOTE.encode(which)))
            decimals = await _decimals(rpc, which)
            (deposit,) = BALANCE_OF.decode(await rpc.eth_call(entry_point.address, BALANCE_OF.encode(where)))
            found = {
                "paymaster": checksum(where),
                "token": checksum(which),
                "perEth": f"{from_units(price, decimals):f}",
                "validAfter": after_s,
                "validUntil": until_s,
                "problem": to_hex(problem) if any(problem) else None,
                "depositWei": str(deposit),
            }
            if guarantor is not None:
                who = parse_address(guarantor, "--guarantor")
                found["creditUnits"] = str(CREDIT_OF.decode(await rpc.eth_call(where, CREDIT_OF.encode(which, who)))[0])
            return found

    emit(asyncio.run(look()), as_json)


@app.command()
def withdraw(
    ctx: typer.Context,
    token: Token,
    key: Key,
    to: Annotated[str, typer.Option(metavar="ADDRESS", help="Who gets it.")],
    amount: Annotated[str, typer.Option(help="In the token; `all`: everything that was earned.")] = "all",
    yes: Yes = False,
    passphrase_file: PassphraseFile = None,
    passphrase_fd: PassphraseFd = None,
    as_json: AsJson = False,
) -> None:
    """Take what the contract earned, as its owner. Guarantors' credit is out of reach."""
    from contracts.token_paymaster import WITHDRAW_TOKENS

    settings = profile(ctx, {}).profile
    where, which, receiver = settings.address("erc20_paymaster"), settings.named(token), parse_address(to, "--to")
    if not yes:
        typer.confirm(f"Withdraw {amount} of {checksum(which)} to {checksum(receiver)}?", abort=True, err=True)

    async def work(sender: TransactionSender) -> dict[str, Any]:
        units = await _units(sender.rpc, which, amount)
        receipt = await sender.transact(where, WITHDRAW_TOKENS.encode(which, receiver, units))
        return {"token": checksum(which), "to": checksum(receiver), "transaction": receipt["transactionHash"]}

    emit(transact(settings, key, (passphrase_file, passphrase_fd), work), as_json)
