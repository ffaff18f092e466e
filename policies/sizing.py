"""How large an operation is, the same operation in another size, and the largest size that a policy lets pass.

The size is one argument of one call (or of several of one kind, scaled together): what it opens, else what it pays, grants or moves. Bounds
that belong to the size (the least that must come back, the most that may be paid) and the collateral of a new option position are scaled with
it, rounded in the account's favour; one that stands for "anything" stays.
"""

from __future__ import annotations

from collections.abc import Generator, Mapping
from dataclasses import dataclass, replace
from decimal import Decimal, localcontext
from typing import Any

from contracts import abi
from contracts.bindings import EXECUTE, RiskState
from contracts.errors import BadInput, InvalidFields
from contracts.types import Address
from contracts.units import mul_div
from policies.calls import DecodedCall, DecodedCalls, argument, multicall_of
from policies.decision import Decision, LimitSize, Sizes
from policies.functions import BY_SELECTOR, Effect
from policies.margin import EXACT
from policies.policy import Policy
from policies.portfolio import Facts
from policies.rules import evaluate
from policies.search import WHOLE, Found, Reading, Readings, search_ticks

_BATCH = "(address,uint256,bytes)[]"
_MAX = 2**255
"""An amount from here on means "everything": there is nothing to scale."""
TOKENS: Mapping[str, tuple[str, int]] = {"usdc": ("USDC", 6), "weth": ("ETH", 18)}
"""Unit and decimals of tokens by their name in the book."""
_HEX_ADDRESS = 42
TICK_DECIMALS = 6
"""A tick is the unit's smallest part, but not below 10^-6: one millionth of a USDC, of an ETH, of a perp's quote or base."""


@dataclass(frozen=True, slots=True)
class _Terms:
    """The argument that is a call's size; those that are scaled with it, and whether they are rounded up; the argument that names the
    token, or begins with it ("" = the call's target)."""

    amount: str
    scaled: tuple[tuple[str, bool], ...] = ()
    asset_in: str = ""


_AMOUNT = _Terms("amount")
_EXACT_INPUT = _Terms("amountIn", (("amountOutMinimum", True),), "tokenIn")
_EXACT_OUTPUT = _Terms("amountOut", (("amountInMaximum", False),), "tokenOut")
_ARGUMENTS: Mapping[str, _Terms] = {
    "transfer(address,uint256)": _AMOUNT,
    "transferFrom(address,address,uint256)": _AMOUNT,
    "approve(address,uint256)": _AMOUNT,
    "increaseAllowance(address,uint256)": _AMOUNT,
    "withdraw(uint256)": _AMOUNT,
    "deposit(address,uint256)": _Terms("amount", asset_in="token"),
    "depositFor(address,address,uint256)": _Terms("amount", asset_in="token"),
    "withdraw(address,uint256)": _Terms("amount", asset_in="token"),
    "supply(address,uint256,address,uint16)": _Terms("amount", asset_in="asset"),
    "withdraw(address,uint256,address)": _Terms("amount", asset_in="asset"),
    "borrow(address,uint256,uint256,uint16,address)": _Terms("amount", asset_in="asset"),
    "exactInputSingle((address,address,uint24,address,uint256,uint256,uint256,uint160))": _EXACT_INPUT,
    "exactInputSingle((address,address,uint24,address,uint256,uint256,uint160))": _EXACT_INPUT,
    "exactOutputSingle((address,address,uint24,address,uint256,uint256,uint256,uint160))": _EXACT_OUTPUT,
    "exactOutputSingle((address,address,uint24,address,uint256,uint256,uint160))": _EXACT_OUTPUT,
    # paths begin with the token whose amount is exact
    "exactInput((bytes,address,uint256,uint256,uint256))": replace(_EXACT_INPUT, asset_in="path"),
    "exactInput((bytes,address,uint256,uint256))": replace(_EXACT_INPUT, asset_in="path"),
    "exactOutput((bytes,address,uint256,uint256,uint256))": replace(_EXACT_OUTPUT, asset_in="path"),
    "exactOutput((bytes,address,uint256,uint256))": replace(_EXACT_OUTPUT, asset_in="path"),
}
_OPEN_POSITION = "openPosition((address,bool,bool,uint256,uint256,uint256,uint160,bytes32))"
_OPEN_OPTION = "openPosition((uint256,uint256,uint256,uint8,uint256,uint256,uint256,uint256))"
_TOTAL_COST = (("minTotalCost", True), ("maxTotalCost", False))
_CLASSES = (Effect.OPENS, Effect.PAYS, Effect.GRANTS, Effect.MOVES)
"""What an operation is about, first that it has."""


@dataclass(frozen=True, slots=True)
class Sized:
    """The size of an operation: `units` of the first call's argument as it stands in the call data, with `decimals`, named `unit`;
    `tick_units` units are one tick. `paths` are the calls that are scaled, in proportion."""

    what: str
    unit: str
    decimals: int
    units: int
    tick_units: int
    paths: tuple[tuple[int, ...], ...]

    @property
    def tick(self) -> Decimal:
        return self.amount(1)

    @property
    def requested(self) -> Decimal:
        with localcontext(EXACT):
            return Decimal(self.units).scaleb(-self.decimals)

    @property
    def top(self) -> int:
        """The size asked for in ticks, rounded up."""
        return -(-self.units // self.tick_units)

    def amount(self, ticks: int) -> Decimal:
        """Ticks in the unit."""
        with localcontext(EXACT):
            return Decimal(ticks * self.tick_units).scaleb(-self.decimals)


def sized(calls: DecodedCalls, book: Mapping[str, Address]) -> Sized | None:
    """The size of an operation; None when nothing it does has one (a closing, an administration, an unknown call)."""
    for effect in _CLASSES:
        of_kind = [call for call in calls.calls if call.effect is effect and _terms(call) is not None]
        if of_kind:
            break
    else:
        return None
    first = of_kind[0]
    units = _units(first)
    if not 0 < units < _MAX:
        return None
    unit, decimals = _unit(first, book)
    terms = _terms(first)
    assert terms is not None
    return Sized(
        what=f"{first.title} {terms.amount}",
        unit=unit,
        decimals=decimals,
        units=units,
        tick_units=10 ** max(decimals - TICK_DECIMALS, 0),
        paths=tuple(call.path for call in of_kind),
    )


def _terms(call: DecodedCall) -> _Terms | None:
    return _terms_of(call.function, dict(call.arguments))


def _terms_of(function: str, given: Mapping[str, Any]) -> _Terms | None:
    """Of a call with these arguments, as values or as text."""
    if function == _OPEN_POSITION:
        return _Terms("amount", (("oppositeAmountBound", given["isExactInput"] in (True, "true")),), "baseToken")
    if function == _OPEN_OPTION:
        # what a position that is there already is secured by does not shrink with what is added to it
        is_new = int(given["positionId"]) == 0
        return _Terms("amount", (*_TOTAL_COST, *((("setCollateralTo", True),) if is_new else ())))
    return _ARGUMENTS.get(function)


def _units(call: DecodedCall) -> int:
    terms = _terms(call)
    given = argument(call, terms.amount) if terms else None
    return int(given) if given is not None else 0


def _unit(call: DecodedCall, book: Mapping[str, Address]) -> tuple[str, int]:
    names = {"0x" + address.hex(): name for name, address in sorted(book.items(), reverse=True)}
    terms = _terms(call)
    assert terms is not None
    if call.function == _OPEN_POSITION:
        # exact input of quote, or exact output of quote: the amount is quote; otherwise base.
        if argument(call, "isExactInput") != argument(call, "isBaseToQuote"):
            return "USDC", 18
        return names.get(argument(call, "baseToken") or "", "base").rpartition(".")[2].upper(), 18
    if call.function == _OPEN_OPTION:
        return "options", 18
    name = names.get((argument(call, terms.asset_in) or "")[:_HEX_ADDRESS], "") if terms.asset_in else call.target_name
    return TOKENS.get(name, (f"units of {name}" if name else "token units", 0))


# -- the same operation in another size -------------------------------------------------------------------------------------------


def resized(call_data: bytes, size: Sized, ticks: int) -> bytes:
    """The operation's call data with its size set to `ticks`. Raises BadInput for a size that is not positive."""
    if ticks < 1:
        raise BadInput(f"a size has at least one tick, got {ticks}")
    return _executed(call_data, size, ticks * size.tick_units, ())


def can_be_resized(call_data: bytes, size: Sized) -> bool:
    """Whether the call data has a form that `resized` writes: ERC-7579 single or batch, at every depth that holds a size."""
    try:
        resized(call_data, size, size.top)
    except InvalidFields:
        return False
    return True


def _executed(call_data: bytes, size: Sized, units: int, at: tuple[int, ...]) -> bytes:
    """An `execute` at `at` with the size changed in it. Raises InvalidFields for a form that is neither single nor plain batch."""
    mode, payload = EXECUTE.decode_input(call_data)
    if mode[0] == 0x00:
        changed = payload[:52] + _rewritten(payload[52:], size, units, (*at, 0))
    else:
        (batch,) = abi.decode([_BATCH], payload)
        calls = [
            (target, value, _rewritten(data, size, units, (*at, i))) for i, (target, value, data) in enumerate(batch)
        ]
        changed = abi.encode([_BATCH], [calls])
    return EXECUTE.encode(mode, changed)


def _rewritten(data: bytes, size: Sized, units: int, at: tuple[int, ...]) -> bytes:
    """The call data at `at`, with the size changed in it or in the calls of its multicall."""
    if at in size.paths:
        return _scaled(data, size, units)
    if not any(one[: len(at)] == at for one in size.paths):
        return data
    if data[:4] == EXECUTE.selector:
        return _executed(data, size, units, at)
    function, values = multicall_of(data)
    inner = [_rewritten(item, size, units, (*at, i)) for i, item in enumerate(values[-1])]
    return function.encode(*values[:-1], inner)


def _scaled(data: bytes, size: Sized, units: int) -> bytes:
    known = BY_SELECTOR[data[:4]]
    values = known.function.decode_input(data)
    given: list[Any] = list(values[0] if known.spread else values)
    terms = _terms_of(known.function.signature, dict(zip(known.arguments, given, strict=True)))
    assert terms is not None
    for name, up in ((terms.amount, False), *terms.scaled):
        place = known.arguments.index(name)
        own: int = given[place]
        if own < _MAX:
            given[place] = mul_div(own, units, size.units, round_up=up)
    return known.function.encode(tuple(given)) if known.spread else known.function.encode(*given)


# -- the largest size ---------------------------------------------------------------------------------------------------------------


def operation_of(base: Facts, probe: Facts) -> Facts:
    """`base` with everything that the operation itself decides taken from `probe`: two sizes differ in that and in nothing else."""
    return replace(
        base,
        intent_hash=probe.intent_hash,
        calls=probe.calls,
        succeeded=probe.succeeded,
        revert_data=probe.revert_data,
        after=probe.after,
        fills=probe.fills,
        touched=probe.touched,
        counterparties=probe.counterparties,
        orders=probe.orders,
        missing=probe.missing,
        max_prefund_wei=probe.max_prefund_wei,
    )


def readings(decision: Decision) -> Readings:
    """What a Decision says of each limit, and as a whole."""
    found = {row.id: Reading(row.verdict not in ("deny", "require_signers"), row.headroom) for row in decision.limits}
    binding = [row for row in decision.limits if row.action in ("deny", "require_signers")]
    slack: Decimal | None = None
    if not decision.objections and all(row.headroom is not None for row in binding):
        with localcontext(EXACT) as context:
            context.prec = 40
            slack = min(
                ((row.headroom or Decimal(0)) / (abs(row.bound) or Decimal(1)) for row in binding), default=None
            )
    return found | {WHOLE: Reading(decision.allowed, slack)}


def can_be_smaller(policy: Policy, facts: Facts, decision: Decision) -> bool:
    """Whether a smaller size might change the outcome: not if a call is allowed by nothing, another policy is in force on chain, the
    account is not active, or other attestations are out.
    """
    return (
        not decision.allowed
        and all(row.rule for row in decision.calls)
        and not facts.calls.problem
        and facts.policy_on_chain == policy.policy_id
        and facts.state is RiskState.ACTIVE
        and not any(one.nonce != facts.nonce and one.intent_hash != facts.intent_hash for one in facts.outstanding)
    )


def find_sizes(
    policy: Policy, facts: Facts, decision: Decision, size: Sized
) -> Generator[tuple[int, ...], Mapping[int, Facts], Sizes]:
    """Yields rounds of sizes in ticks; send the facts of each. Returns the largest sizes that pass, for the whole and for every limit.

    Deterministic: the same answers lead to the same questions, so a record of the answers is a record of the result.
    """
    refused = [row.id for row in decision.limits if row.verdict in ("deny", "require_signers")]
    exact_tick = size.units % size.tick_units == 0
    known = {size.top: readings(decision)} if exact_tick else {}
    search = search_ticks(size.top, refused, known)
    try:
        asked = next(search)
        while True:
            answers = yield asked
            asked = search.send(
                {n: readings(evaluate(policy, operation_of(facts, answers[n]), decision.decided_at_s)) for n in asked}
            )
    except StopIteration as done:
        found: Found = done.value

    def shown(ticks: int | None) -> Decimal | None:
        return None if ticks is None else min(size.amount(ticks), size.requested)

    return Sizes(
        what=size.what,
        unit=size.unit,
        tick=size.tick,
        requested=size.requested,
        size=shown(found.largest[WHOLE]),
        by_limit=tuple(
            LimitSize(row.id, shown(found.largest[row.id]) if row.id in refused else size.requested)
            for row in decision.limits
        ),
        passing=tuple((size.amount(low), size.amount(high)) for low, high in found.passing),
        simulations=found.asked,
        exact=found.exact,
    )
