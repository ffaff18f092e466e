"""`seawall trade`: a perp order, shown with its verdict before anything is signed."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import replace
from decimal import Decimal
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from contracts.errors import BadInput, OperationFailed, PolicyRefused
from contracts.types import parse_bytes, parse_hash, to_hex
from wallet.cli.decision_view import HtmlFile, write_html
from wallet.cli.output import AsJson, PassphraseFd, PassphraseFile, emit, profile, say

if TYPE_CHECKING:
    from rich.console import Console

    from contracts.bindings import Call
    from policies.portfolio import Portfolio, Position
    from wallet.config import Profile
    from wallet.desk import Desk
    from wallet.keystore import PassphraseSource
    from wallet.services import OperationReceipt
    from wallet.sign import Judgement, Signer

app = typer.Typer(no_args_is_help=True, help="Open and close a perp position under the policy.")

Propose = Annotated[
    Path | None,
    typer.Option(
        "--propose", metavar="FILE", help="Of an order that needs more signers: write the proposal that they approve."
    ),
]

ORDER_S = 600
"""How long an order is good, in seconds of the chain's clock."""
PROPOSED_ORDER_S = 86_400
"""How long one is that waits for other people's signatures."""

AccountOption = Annotated[
    str | None,
    typer.Option("--account", metavar="ADDRESS", help="The account; default: the profile's, or the only one known."),
]
GasToken = Annotated[
    str | None,
    typer.Option("--gas-token", metavar="TOKEN", help="Pay gas in it (`usdc`, or an address); default: the profile's."),
]
Slippage = Annotated[str, typer.Option(metavar="PERCENT", help="How much worse than the index the mean fill may be.")]
DryRun = Annotated[bool, typer.Option("--dry-run", help="Simulate and judge; sign nothing, ask for no key.")]
Yes = Annotated[bool, typer.Option("--yes", "-y", help="Do not ask. The policy still decides.")]


def slippage_bps(text: str) -> int:
    """`1%` or `0.5%` in basis points. Raises BadInput for anything else, or a part of a basis point."""
    from contracts.units import to_units

    bps = to_units(text.removesuffix("%").strip(), 2, "--slippage")
    if not 0 < bps < 10_000:
        raise BadInput(f"--slippage must be above 0% and below 100%, got {text}")
    return bps


@app.command("open")
def open_(
    ctx: typer.Context,
    side: Annotated[Literal["long", "short"], typer.Option(help="long or short.")],
    notional: Annotated[str, typer.Option(metavar="USDC", help="Size of the order in USDC.")],
    collateral: Annotated[
        str, typer.Option(metavar="USDC", help="Move this much from the account into the venue first.")
    ] = "0",
    slippage: Slippage = "1%",
    account: AccountOption = None,
    gas_token: GasToken = None,
    dry_run: DryRun = False,
    yes: Yes = False,
    passphrase_file: PassphraseFile = None,
    passphrase_fd: PassphraseFd = None,
    html: HtmlFile = None,
    propose: Propose = None,
    as_json: AsJson = False,
) -> None:
    """Open or increase a position, and arm the policy's stops in the same operation."""
    from contracts.units import to_units
    from wallet import setup, trading
    from wallet.desk import market_of

    bps = slippage_bps(slippage)
    notional_wad, collateral_units = to_units(notional, 18, "--notional"), to_units(collateral, 6, "--collateral")
    settings = profile(ctx, {"account": account, "gas_token": gas_token}).profile

    async def calls_of(desk: Desk) -> list[Call]:
        portfolio, index = await _market_now(desk)
        now_s = int((await desk.rpc.block())["timestamp"], 16)
        held = _position(portfolio)
        if held is not None and (held.size > 0) != (side == "long"):
            raise BadInput(f"the account holds {held.size:f} {held.asset}; close that with `seawall trade close` first")
        market = market_of(settings)
        calls = trading.deposit(market, collateral_units) if collateral_units else []
        calls += trading.open_perp(
            market,
            side=side,
            notional_wad=notional_wad,
            index_wad=int(index.scaleb(18)),
            slippage_bps=bps,
            deadline_s=now_s + (ORDER_S if propose is None else PROPOSED_ORDER_S),
        )
        if desk.policy is None or desk.account.validator is None:
            return calls
        entry = _entry_price(held, index, Decimal(notional))
        _, arming = setup.arm_stops(desk.policy, desk.book, entry_price=entry, is_long=side == "long", now_s=now_s)
        return calls + arming

    order = f"open {side} {notional} USDC" + (f" with {collateral} USDC more margin" if collateral_units else "")
    _trade(settings, order, calls_of, (dry_run, yes, as_json), (passphrase_file, passphrase_fd), (html, propose))


@app.command()
def close(
    ctx: typer.Context,
    slippage: Slippage = "1%",
    account: AccountOption = None,
    gas_token: GasToken = None,
    dry_run: DryRun = False,
    yes: Yes = False,
    passphrase_file: PassphraseFile = None,
    passphrase_fd: PassphraseFd = None,
    html: HtmlFile = None,
    propose: Propose = None,
    as_json: AsJson = False,
) -> None:
    """Close the whole position. Its stops stay armed on chain, and have nothing left to do."""
    from wallet import trading
    from wallet.desk import market_of

    bps = slippage_bps(slippage)
    settings = profile(ctx, {"account": account, "gas_token": gas_token}).profile

    async def calls_of(desk: Desk) -> list[Call]:
        portfolio, index = await _market_now(desk)
        held = _position(portfolio)
        now_s = int((await desk.rpc.block())["timestamp"], 16)
        return trading.close_perp(
            market_of(settings),
            size_wad=0 if held is None else int(held.size.scaleb(18)),
            index_wad=int(index.scaleb(18)),
            slippage_bps=bps,
            deadline_s=now_s + (ORDER_S if propose is None else PROPOSED_ORDER_S),
        )

    how = dry_run, yes, as_json
    _trade(settings, "close the position", calls_of, how, (passphrase_file, passphrase_fd), (html, propose))


def _entry_price(held: Position | None, index: Decimal, notional: Decimal) -> Decimal:
    """Mean entry of what is held and an order at the index."""
    if held is None:
        return index
    size = abs(held.size) + notional / index
    return (abs(held.entry_notional) + notional) / size


def _position(portfolio: Portfolio) -> Position | None:
    return next((p for p in portfolio.positions if p.venue == "perp" and p.asset == "ETH"), None)


async def _market_now(desk: Desk) -> tuple[Portfolio, Decimal]:
    """The portfolio, and the price that bounds are taken from: the feed's, or the venue's mark where the feed gives none.

    Raises BadInput when there is neither.
    """
    portfolio, prices, missing = await desk.reader.look(desk.account)
    price = next((p.value for p in prices if p.asset == "ETH"), None)
    held = _position(portfolio)
    if price is None and held is not None:
        say("the price feed gives no answer: the order's bound is taken from the venue's mark price")
        price = held.mark_price
    if price is None:
        raise BadInput("there is no price of ETH: " + "; ".join(f"{m.what}: {m.why}" for m in missing))
    return portfolio, price


def _trade(
    settings: Profile,
    order: str,
    calls_of: Callable[[Desk], Awaitable[Sequence[Call]]],
    how: tuple[bool, bool, bool],
    passphrase: tuple[Path | None, int | None],
    files: tuple[Path | None, Path | None],
) -> None:
    """Judge, show, ask, sign, send, wait, show; or write the proposal. Raises PolicyRefused (exit 5) with the explanation, and nothing
    signed.
    """
    dry_run, yes, as_json = how
    html, proposal = files
    from wallet.desk import READ_ONLY, connect
    from wallet.keystore import PassphraseSource

    source = PassphraseSource.of(*passphrase, os.environ)
    if settings.read_only and not dry_run and proposal is None:
        raise BadInput(f"{READ_ONLY}; --dry-run works without")

    async def run() -> dict[str, Any]:
        async with connect(settings) as desk:
            calls = await calls_of(desk)
            signer = desk.signer()
            if proposal is not None:
                return await _propose(signer, calls, order, (html, proposal))
            judgement = None if signer.engine is None else await signer.judge(calls)
            if judgement is None:
                say(f"{order}: this account has no policy, nothing judges it")
            else:
                _explain(order, judgement)
                write_html(html, judgement.decision.to_json(), to_hex(judgement.decision.id))
                if not judgement.decision.allowed:
                    hint = "; ask them with --propose FILE" if judgement.decision.outcome == "require_signers" else ""
                    raise PolicyRefused(judgement.decision.summary + hint, data=judgement.decision.to_json())
            verdict = None if judgement is None else judgement.decision.to_json()
            if dry_run:
                return {"order": order, "sent": False, "decision": verdict}
            if not yes:
                typer.confirm("Sign and send it?", abort=True, err=True)
            receipt = await _send(signer, settings, calls, judgement if yes else None, source)
            return {"order": order, "sent": True, "decision": verdict, **_outcome(desk, receipt)}

    data = asyncio.run(run())
    emit(data, as_json, lambda console: _show(console, data))


async def _propose(
    signer: Signer, calls: Sequence[Call], order: str, files: tuple[Path | None, Path]
) -> dict[str, Any]:
    """Write the proposal of an order that needs more signers than its owner. Nothing is signed or sent."""
    from wallet.proposals import propose, standing, write_proposal

    html, path = files
    proposal, judgement = await propose(signer, calls, order)
    _explain(order, judgement)
    write_html(html, judgement.decision.to_json(), to_hex(judgement.decision.id))
    write_proposal(path, proposal)
    return {
        "order": order,
        "sent": False,
        "proposal": str(path),
        "lacking": list(standing(signer, proposal, judgement).lacking),
        "decision": judgement.decision.to_json(),
    }


async def _send(
    signer: Signer,
    settings: Profile,
    calls: Sequence[Call],
    judged: Judgement | None,
    source: PassphraseSource,
) -> OperationReceipt:
    """Open the keys and send. What waited for an answer is judged anew, on the block of now. Raises OperationFailed."""
    from wallet.desk import open_keys

    engine = signer.engine
    keys = open_keys(settings, ["owner"] if engine is None else ["owner", "engine"], source)
    if engine is not None:
        engine = replace(engine, key=keys["engine"])
    armed = replace(signer, owner=keys["owner"], engine=engine)
    sent = await (armed.submit(calls) if judged is None else armed.complete(judged))
    say(f"sent {to_hex(sent.user_op_hash)}, waiting for its block ...")
    receipt = await armed.bundler.wait(sent.user_op_hash)
    if not receipt.success:
        raise OperationFailed(
            f"{to_hex(sent.user_op_hash)} is in block {receipt.block_number}, but its call reverted "
            f"({to_hex(receipt.reason[:68]) or 'no reason given'}); nothing changed but the gas"
        )
    return receipt


def _explain(order: str, judgement: Judgement) -> None:
    """The verdict for people, on stderr: stdout stays data."""
    say(order)
    for line in judgement.decision.explain():
        say(line)


def _outcome(desk: Desk, receipt: OperationReceipt) -> dict[str, Any]:
    from policies.canonical import decimal_text

    logs = [
        (
            parse_bytes(log["address"], "address"),
            tuple(parse_hash(topic, "topic") for topic in log["topics"]),
            parse_bytes(log["data"], "data"),
        )
        for log in receipt.logs
    ]
    fills = [fill for adapter in desk.reader.adapters for fill in adapter.fills(logs, desk.account.address)]
    return {
        "userOpHash": to_hex(receipt.user_op_hash),
        "transaction": to_hex(receipt.transaction_hash),
        "block": receipt.block_number,
        "fills": [
            {
                "venue": fill.venue,
                "asset": fill.asset,
                "size": decimal_text(fill.size),
                "quote": decimal_text(fill.quote),
                "price": f"{fill.quote / abs(fill.size):.6f}",
                "fee": decimal_text(fill.fee),
            }
            for fill in fills
        ],
        "gasUsed": receipt.actual_gas_used,
        "gasCostWei": str(receipt.actual_gas_cost_wei),
        "paidBy": "paymaster" if receipt.sponsored else "account",
    }


def _show(console: Console, data: dict[str, Any]) -> None:
    if "proposal" in data:
        console.print(f"proposed in {data['proposal']}; nothing was signed", markup=False)
        for line in data["lacking"]:
            console.print(f"  {line}", markup=False)
        console.print("each of them: seawall proposal sign FILE --key NAME; then: seawall proposal send FILE")
        return
    if not data["sent"]:
        console.print(f"dry run: {data['order']} would be allowed; nothing was signed", markup=False)
        return
    for fill in data["fills"]:
        console.print(
            f"filled {float(fill['size']):+.6f} {fill['asset']} at {float(fill['price']):,.4f} "
            f"({float(fill['quote']):,.2f} USDC, fee {float(fill['fee']):,.2f})"
        )
    cost = int(data["gasCostWei"]) / 1e18
    console.print(f"block {data['block']}, gas {data['gasUsed']:,} for {cost:.9f} ETH, paid by the {data['paidBy']}")
    console.print(f"transaction {data['transaction']}", markup=False)
