"""The engine itself, asked about one moment: the same `evaluate` that stands before every signature.

A moment is judged as an operation that does nothing: the portfolio before is the portfolio after, and what comes back for every limit is
where the held book stands. Orders are judged with the call that would place them.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from decimal import Decimal, localcontext
from enum import IntEnum

from contracts import bindings as b
from contracts.bindings import Call, RiskState
from contracts.errors import BadInput
from contracts.types import Address, keccak
from policies import functions
from policies.backtest.book import Order as DeclaredOrder
from policies.backtest.book import Trading
from policies.backtest.valuation import Held, Prices
from policies.calls import DecodedCalls, decode_calls
from policies.decision import Decision, LimitRow
from policies.margin import EXACT
from policies.metrics import METRICS
from policies.names import CONTRACTS, ROLES
from policies.policy import Limit, Policy, Scope, resolve
from policies.portfolio import (
    UNIT_OF_ACCOUNT,
    Facts,
    Fill,
    History,
    Holding,
    Missing,
    Order,
    Portfolio,
    Position,
    Price,
    Returns,
)
from policies.problems import did_you_mean
from policies.rules import compile_rule, evaluate, rules_for
from policies.verdicts import bound_in_force, compile_limit, passes

SOURCE = "bars"
_WAD = 10**18


class State(IntEnum):
    """Where one limit stands at one moment, in order of alarm."""

    PASS = 0
    WARN = 1
    BREACH = 2
    UNKNOWN = 3
    """It cannot be evaluated: for the engine that is a denial."""


def _address(name: str) -> Address:
    """A stable address for a name: a back-test knows names, not deployments."""
    return keccak(b"seawall back-test " + name.encode())[:20]


ACCOUNT = _address("account")


@dataclass(frozen=True, slots=True)
class Judge:
    """A policy and what does not change during a back-test."""

    policy: Policy
    book: Mapping[str, Address]

    @classmethod
    def of(cls, policy: Policy) -> Judge:
        book = {name: _address(name) for name in (*CONTRACTS, *ROLES)}
        return cls(policy, book | dict(policy.addresses))

    def facts(
        self,
        portfolio: Portfolio,
        prices: Prices,
        time_s: int,
        *,
        latched: frozenset[str] = frozenset(),
        history: History | None = None,
        returns: tuple[Returns, ...] = (),
        missing: tuple[Missing, ...] = (),
    ) -> Facts:
        """Everything the engine sees at `time_s` when nothing is done."""
        return Facts(
            chain_id=self.policy.chains[0] if self.policy.chains else 1,
            account=self.account,
            nonce=0,
            intent_hash=bytes(32),
            block_number=0,
            block_hash=bytes(32),
            block_time_s=time_s,
            state=RiskState.ACTIVE,
            policy_on_chain=self.policy.policy_id,
            policy_epoch=0,
            calls=DecodedCalls(),
            succeeded=True,
            revert_data=b"",
            before=portfolio,
            after=portfolio,
            prices=tuple(Price(asset, value, time_s, SOURCE) for asset, value in sorted(prices.items())),
            book=self.book,
            latched=latched,
            history=history,
            returns=returns,
            missing=missing,
            touched=(),
            counterparties=(),
            signer=self.book["owner"],
        )

    @property
    def account(self) -> Address:
        """The account of the back-test: the policy's own first one, so that `accounts:` lets it through."""
        names = self.policy.accounts
        if not names:
            return ACCOUNT
        first = names[0]
        return bytes.fromhex(first[2:]) if first.startswith("0x") else self.book.get(first, ACCOUNT)

    def limits(self, facts: Facts) -> tuple[Limit, ...]:
        """The limits in force, overrides included, in the order of a Decision's rows."""
        return tuple(rule.limit for rule in rules_for(self.policy, facts))

    def alone(self, limit: Limit, facts: Facts) -> tuple[Decimal, Decimal | None, str]:
        """One limit on a held book: the bound in force, its metric's value, and why it has none."""
        rule = compile_rule(limit)
        bound = bound_in_force(limit, latched=limit.id in facts.latched)
        if limit.of_change or limit.when or rule.metric.of_operation:
            policy = replace(self.policy, limits=(limit,), overrides=())
            row = evaluate(policy, facts, facts.block_time_s).limits[0]
            return bound, observed(row), row.reason
        seen = rule.metric.compute(facts, facts.before, limit.scope, limit.parameters, is_after=False)
        return bound, seen.value, seen.why

    def standing(self, facts: Facts) -> tuple[LimitRow, ...]:
        """Every limit at the moment of `facts`, as the engine itself shows it."""
        return evaluate(self.policy, facts, facts.block_time_s).limits

    def judge(self, facts: Facts) -> Decision:
        """An operation at the moment of `facts`."""
        return evaluate(self.policy, facts, facts.block_time_s)


def observed(row: LimitRow) -> Decimal | None:
    """A metric on a held book: as it is before anything is done; for a metric of the operation itself, of one that does nothing."""
    return row.after if row.before is None else row.before


def state_of(row: LimitRow, limit: Limit, *, latched: bool) -> State:
    """Where a limit stands on a held book, from its row of a Decision, whatever the hour."""
    if limit.when and row.reason == "its condition does not hold":
        return State.PASS
    if limit.when and row.reason.startswith("its condition has no value"):
        return State.UNKNOWN
    value = observed(row)
    return State.UNKNOWN if value is None else standing(limit, value, latched=latched)


def standing(limit: Limit, value: Decimal, *, latched: bool) -> State:
    """Where a value stands against the bound in force, as `policies.verdicts` compares them."""
    if not passes(limit, bound_in_force(limit, latched=latched), value):
        return State.BREACH
    verdict, _, _ = compile_limit(limit, latched=latched)(value, None, False)
    return State.WARN if verdict == "warn" else State.PASS


# -- orders -------------------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Placed:
    """An order as the engine would see it: the call, its fill, its bound, and the book it would leave. `reverts` says why the venue
    would not carry it out; empty when it would."""

    call: Call
    fill: Fill
    order: Order
    held: Held
    signer: Address
    reverts: str = ""


def place(judge: Judge, order: DeclaredOrder, held: Held, prices: Prices, trading: Trading) -> Placed:
    """What `order` would do at `prices`. Raises BadInput for an asset without a price or a venue whose orders are not known."""
    if order.asset not in prices:
        raise BadInput(
            f"line {order.line} of the book: there are no bars of {order.asset}, so its order cannot be judged"
        )
    price = prices[order.asset]
    with localcontext(EXACT):
        direction = 1 if order.size > 0 else -1
        fill_price = price * (1 + direction * trading.slippage)
        quote = abs(order.size) * fill_price
        fee = quote * trading.fee
        worst = None if order.bound is None else price * (1 + direction * order.bound)
    fill = Fill(order.venue, order.asset, order.size, quote, fee)
    bound = Order(order.venue, order.asset, order.size > 0, worst)
    call = _call(judge, order, held.portfolio, worst)
    after = filled(held.portfolio, fill)
    why = _refused_by_venue(replace(held, portfolio=after), held, prices, fill)
    signer = resolve(order.signer, judge.policy, judge.book, judge.account)
    if signer is None:
        advice = did_you_mean(order.signer, (*ROLES, *judge.policy.addresses))
        raise BadInput(f"line {order.line} of the book: unknown signer {order.signer!r}; {advice}")
    return Placed(call, fill, bound, held if why else replace(held, portfolio=after), signer, why)


def _refused_by_venue(after: Held, before: Held, prices: Prices, fill: Fill) -> str:
    """Why the venue itself would revert the trade: tokens that are not there, or less than the initial margin behind a larger position."""
    for held in after.portfolio.holdings:
        if held.amount < 0:
            return f"the account is {(-held.amount).normalize():f} {held.asset} short"
    then, now = ({m.venue: m for m in held.at(prices, 0).margins} for held in (before, after))
    if fill.venue in now and now[fill.venue].maintenance_requirement > then[fill.venue].maintenance_requirement:
        margin = now[fill.venue]
        with localcontext(EXACT):
            needed = margin.maintenance_requirement / margin.maintenance_ratio * margin.initial_ratio
        if min(margin.collateral, margin.account_value) < needed:
            return f"{fill.venue} wants {needed:.2f} of initial margin and has {min(margin.collateral, margin.account_value):.2f}"
    return ""


def filled(portfolio: Portfolio, fill: Fill) -> Portfolio:
    """The portfolio with one trade: at a margin account's venue a derivative, elsewhere tokens against the unit of account (an amount
    below zero is what the account does not have)."""
    if any(m.venue == fill.venue for m in portfolio.margins):
        return _derivative(portfolio, fill)
    with localcontext(EXACT):
        spent = -(fill.quote + fill.fee) if fill.size > 0 else fill.quote - fill.fee
        amounts = {h.asset: h.amount for h in portfolio.holdings if h.venue == "account"}
        amounts[fill.asset] = amounts.get(fill.asset, Decimal(0)) + fill.size
        amounts[UNIT_OF_ACCOUNT] = amounts.get(UNIT_OF_ACCOUNT, Decimal(0)) + spent
    others = tuple(h for h in portfolio.holdings if h.venue != "account")
    return replace(
        portfolio, holdings=(*others, *(Holding("account", asset, amounts[asset]) for asset in sorted(amounts)))
    )


def _derivative(portfolio: Portfolio, fill: Fill) -> Portfolio:
    """Opened, reduced, closed or turned; what is closed realises its profit into the venue's collateral, the fee leaves it."""
    held = next((p for p in portfolio.positions if (p.venue, p.asset) == (fill.venue, fill.asset)), None)
    size, entry = (held.size, held.entry_notional) if held else (Decimal(0), Decimal(0))
    with localcontext(EXACT):
        signed_quote = fill.quote if fill.size > 0 else -fill.quote
        realised = Decimal(0)
        if size * fill.size >= 0:
            after, basis = size + fill.size, entry + signed_quote
        elif abs(fill.size) < abs(size):
            closed = entry * abs(fill.size) / abs(size)
            after, basis = size + fill.size, entry - closed
            realised = -signed_quote - closed
        else:
            share = abs(size) / abs(fill.size)
            realised = -signed_quote * share - entry
            after, basis = size + fill.size, signed_quote * (1 - share)
        gained = realised - fill.fee
    others = tuple(p for p in portfolio.positions if p is not held)
    opened = (Position(fill.venue, fill.asset, after, basis, Decimal(0)),) if after else ()
    margins = tuple(
        replace(m, collateral=_plus(m.collateral, gained)) if m.venue == fill.venue else m for m in portfolio.margins
    )
    return replace(portfolio, positions=(*others, *opened), margins=margins)


def _plus(left: Decimal, right: Decimal) -> Decimal:
    with localcontext(EXACT):
        return left + right


_CLEARING_HOUSE = {
    "open": functions.BY_SIGNATURE["openPosition((address,bool,bool,uint256,uint256,uint256,uint160,bytes32))"],
    "close": functions.BY_SIGNATURE["closePosition((address,uint160,uint256,uint256,bytes32))"],
}
_SWAP = functions.BY_SIGNATURE["exactInputSingle((address,address,uint24,address,uint256,uint256,uint256,uint160))"]


def _call(judge: Judge, order: DeclaredOrder, portfolio: Portfolio, worst: Decimal | None) -> Call:
    """The call that places the order at a venue whose functions the engine reads: perp and uniswap."""
    book, amount = judge.book, int(abs(order.size) * _WAD)
    held = next((p.size for p in portfolio.positions if (p.venue, p.asset) == (order.venue, order.asset)), Decimal(0))
    base = book.get(f"{order.venue}.{order.asset.lower()}", _address(f"{order.venue}.{order.asset.lower()}"))
    with localcontext(EXACT):
        limit = 0 if worst is None else int(abs(order.size) * worst * _WAD)
    if order.venue == "perp":
        if held and order.size == -held:
            close = (base, 0, limit, 2**40, bytes(32))
            return Call(book["perp.clearing_house"], _CLEARING_HOUSE["close"].function.encode(close))
        # exact base amount: a buyer names its output, a seller its input
        opened = (base, order.size < 0, order.size < 0, amount, limit, 2**40, 0, bytes(32))
        return Call(book["perp.clearing_house"], _CLEARING_HOUSE["open"].function.encode(opened))
    if order.venue == "uniswap":
        token = book.get(order.asset.lower(), _address(order.asset.lower()))
        if order.asset == "ETH":
            token = book["weth"]
        sold, bought = (token, book["usdc"]) if order.size < 0 else (book["usdc"], token)
        swap = (sold, bought, 3000, judge.account, 2**40, amount, limit, 0)
        return Call(book["uniswap.router"], _SWAP.function.encode(swap))
    raise BadInput(
        f"line {order.line} of the book: orders at {order.venue!r} cannot be back-tested; there are perp and uniswap"
    )


def order_facts(judge: Judge, quiet: Facts, placed: Placed, after: Portfolio) -> Facts:
    """`quiet` (the facts when nothing is done) with the order in it."""
    return replace(
        quiet,
        succeeded=not placed.reverts,
        revert_data=placed.reverts.encode()[:68],
        calls=decode_calls(judge.account, b.encode_execute([placed.call]), judge.book),
        after=after,
        fills=() if placed.reverts else (placed.fill,),
        orders=(placed.order,),
        signer=placed.signer,
    )


def equity_of(judge: Judge, portfolio: Portfolio, prices: Prices, time_s: int) -> Decimal | None:
    """Equity as the engine defines it (`seawall policy explain equity`); None where it has no value."""
    return METRICS["equity"].compute(judge.facts(portfolio, prices, time_s), portfolio, Scope()).value
