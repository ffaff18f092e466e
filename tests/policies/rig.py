"""One sound set of facts, and ways to bend it: 10,000 USDC at the perp venue, an order for a 3x long of ETH at 200."""

from __future__ import annotations

from dataclasses import replace
from decimal import Decimal
from pathlib import Path
from typing import Any

from contracts import bindings as b
from contracts.abi import Function
from contracts.bindings import Call, RiskState
from contracts.types import Address, keccak
from policies import Facts, Policy, load
from policies.calls import decode_calls
from policies.portfolio import Fill, Holding, Margin, Order, Portfolio, Position, Price

EXAMPLES = Path(__file__).parents[2] / "policies" / "examples"
NOW_S = 1_584_000_000
OPEN = Function.parse("openPosition((address,bool,bool,uint256,uint256,uint256,uint160,bytes32))")
CLOSE = Function.parse("closePosition((address,uint160,uint256,uint256,bytes32))")
DEPOSIT = Function.parse("deposit(address,uint256)")
WITHDRAW = Function.parse("withdraw(address,uint256)")


def address(name: str) -> Address:
    """A stable address for a name."""
    return keccak(name.encode())[:20]


ACCOUNT = address("the account")
BOOK = {
    name: address(name)
    for name in (
        "usdc", "weth", "perp.clearing_house", "perp.vault", "perp.eth", "feed.eth", "feed.sequencer", "multicall3",
        "seawall.stop_loss", "seawall.emergency_freeze", "seawall.perp_adapter", "seawall.risk_validator",
        "seawall.session_validator", "guardian", "guardian_2", "guardian_3", "keeper", "treasury", "trader", "risk_officer",
    )
}  # fmt: skip


def example(name: str) -> str:
    return (EXAMPLES / f"{name}.yaml").read_text()


def policy_of(body: str, **variables: str) -> Policy:
    """A policy with these sections and nothing else."""
    return load(f"schema: 1\nname: test\nversion: '1'\n{body}", {}, variables)


def portfolio(
    size: str = "0", entry: str = "200", mark: str = "200", collateral: str = "10000", **more: Any
) -> Portfolio:
    """One perp account of `collateral` with one ETH position, consistent in all its figures."""
    held = Position("perp", "ETH", Decimal(size), Decimal(size) * Decimal(entry), Decimal(mark))
    value = Decimal(collateral) + held.notional - held.entry_notional
    notional = abs(held.notional)
    margin = Margin(
        "perp",
        Decimal(collateral),
        value,
        notional * Decimal("0.0625"),
        max(value - notional / 10, Decimal(0)),
        Decimal("0.0625"),
        Decimal("0.1"),
    )
    positions = (held,) if held.size else ()
    return Portfolio(more.get("holdings", (Holding("account", "USDC", Decimal(500)),)), (), positions, (margin,))


def open_call(notional: int = 30_000, bound_price: str = "201", *, is_short: bool = False) -> Call:
    """An order for `notional` quote with its worst mean price as bound."""
    bound = int(Decimal(notional) / Decimal(bound_price) * 10**18)
    order = (BOOK["perp.eth"], is_short, not is_short, notional * 10**18, bound, NOW_S + 600, 0, bytes(32))
    return Call(BOOK["perp.clearing_house"], OPEN.encode(order))


def close_call() -> Call:
    return Call(BOOK["perp.clearing_house"], CLOSE.encode((BOOK["perp.eth"], 0, 1, NOW_S + 600, bytes(32))))


def fill(size: str, price: str = "200", fee: str = "0") -> Fill:
    return Fill("perp", "ETH", Decimal(size), abs(Decimal(size)) * Decimal(price), Decimal(fee))


def facts_of(policy: Policy, calls: list[Call], **changes: Any) -> Facts:
    """Facts of an operation that opens a 3x long, unless `changes` say otherwise."""
    sound = Facts(
        chain_id=1337,
        account=ACCOUNT,
        nonce=7,
        intent_hash=keccak(b"intent"),
        block_number=100,
        block_hash=keccak(b"block"),
        block_time_s=NOW_S,
        state=RiskState.ACTIVE,
        policy_on_chain=policy.policy_id,
        policy_epoch=1,
        calls=decode_calls(ACCOUNT, b.encode_execute(calls), BOOK) if calls else decode_calls(ACCOUNT, b"", BOOK),
        succeeded=True,
        revert_data=b"",
        before=portfolio(),
        after=portfolio("150"),
        prices=(Price("ETH", Decimal(200), NOW_S - 20, "feed"),),
        fills=(fill("150"),),
        orders=(Order("perp", "ETH", True, Decimal(201)),),
        book=BOOK,
    )
    return replace(sound, **changes)


def opening(policy: Policy, **changes: Any) -> Facts:
    return facts_of(policy, [open_call()], **changes)


def closing(policy: Policy, **changes: Any) -> Facts:
    given: dict[str, Any] = {
        "before": portfolio("150"),
        "after": portfolio("0"),
        "fills": (fill("-150"),),
        "orders": (),
    }
    return facts_of(policy, [close_call()], **(given | changes))
