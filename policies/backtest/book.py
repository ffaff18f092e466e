"""The book of a back-test: what is held when it begins, what trading costs, and the orders that are to be judged. YAML or JSON.

    holdings:  [{venue: account, asset: USDC, amount: 500}]
    debts:     [{venue: aave, asset: USDC, amount: 9000}]
    margins:   [{venue: perp, collateral: 10000, maintenance: 6.25%, initial: 10%, penalty: 2.5%}]
    positions: [{venue: perp, asset: ETH, size: 150, entry_price: 181.79}]
    options:   [{venue: lyra, asset: ETH, kind: call, strike: 250, expiry: 2020-03-27T08:00, size: -10, implied_vol: 90%, premium: 5.2}]
    liquidity: [{venue: uniswap, id: 7, asset0: ETH, asset1: USDC, lower: 150, upper: 300, liquidity: 1000}]
    collateral: [{venue: aave, asset: ETH, amount: 100, liquidation_threshold: 82.5%, loan_to_value: 80%}]
    trading:   {slippage: 0.1%, fee: 0.1%}
    orders:    [{at: 2020-03-12T10:00, venue: perp, asset: ETH, size: 20, bound: 1%}]

Every problem is reported at once, with its line and column. An absent `entry_price` is the first bar's open.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any, Literal

from contracts.errors import BadInput
from policies import source
from policies.problems import Problem, did_you_mean

Kind = Literal["text", "number", "share", "positive", "count", "time", "option", "names"]
MARGIN_MAINTENANCE, MARGIN_INITIAL, LIQUIDATION_PENALTY = Decimal("0.0625"), Decimal("0.1"), Decimal("0.025")
"""Perpetual Protocol v2's own, where the book says nothing.   Source: ClearingHouseConfig."""


class InvalidBook(BadInput):
    """The book has errors; `problems` has all of them."""

    def __init__(self, name: str, problems: list[Problem]) -> None:
        shown = "; ".join(f"{name}:{problem}" for problem in problems[:3])
        more = f" and {len(problems) - 3} more" if len(problems) > 3 else ""
        super().__init__(f"the book has errors: {shown}{more}", data=[p.to_json() for p in problems])
        self.problems = tuple(problems)


@dataclass(frozen=True, slots=True)
class HeldPosition:
    """A linear derivative. `entry_price` None: the first bar's open."""

    venue: str
    asset: str
    size: Decimal
    entry_price: Decimal | None = None


@dataclass(frozen=True, slots=True)
class HeldOption:
    """A European option held to expiry at constant `implied_vol`; `premium` per unit of the underlying, None: its model price at the
    start. Units as policies.portfolio.Option."""

    venue: str
    asset: str
    is_call: bool
    strike: Decimal
    expiry_s: int
    size: Decimal
    implied_vol: Decimal
    premium: Decimal | None = None


@dataclass(frozen=True, slots=True)
class HeldLiquidity:
    """A concentrated liquidity position. Units as policies.portfolio.Liquidity."""

    venue: str
    id: int
    asset0: str
    asset1: str
    lower: Decimal
    upper: Decimal
    liquidity: Decimal
    owed0: Decimal = Decimal(0)
    owed1: Decimal = Decimal(0)


@dataclass(frozen=True, slots=True)
class HeldAmount:
    """Tokens held, or owed to a lending venue."""

    venue: str
    asset: str
    amount: Decimal


@dataclass(frozen=True, slots=True)
class HeldCollateral:
    """What secures the debts at a lending venue; both shares are fractions."""

    venue: str
    asset: str
    amount: Decimal
    liquidation_threshold: Decimal
    loan_to_value: Decimal


@dataclass(frozen=True, slots=True)
class MarginTerms:
    """A cross-margined account: collateral in quote, ratios and liquidation penalty as shares of the notional."""

    venue: str
    collateral: Decimal
    maintenance: Decimal = MARGIN_MAINTENANCE
    initial: Decimal = MARGIN_INITIAL
    penalty: Decimal = LIQUIDATION_PENALTY


@dataclass(frozen=True, slots=True)
class Order:
    """One order of the declared list. `size` in base units, negative to sell; `bound` is how far from the price at its time it may be
    filled at most (fraction), None: no bound of its own; `signer` names the role, or the address, whose key signs it."""

    at_s: int
    venue: str
    asset: str
    size: Decimal
    bound: Decimal | None = None
    signer: str = "owner"
    line: int = 0

    @property
    def title(self) -> str:
        side = "buy" if self.size > 0 else "sell"
        return f"{side} {abs(self.size):f} {self.asset} at {self.venue}"


@dataclass(frozen=True, slots=True)
class Trading:
    """What every fill of the back-test costs, as shares of its quote: distance from the price, and fee on top."""

    slippage: Decimal = Decimal(0)
    fee: Decimal = Decimal(0)


@dataclass(frozen=True, slots=True)
class Book:
    """A book in force; everything in the terms of `policies.portfolio`."""

    holdings: tuple[HeldAmount, ...] = ()
    debts: tuple[HeldAmount, ...] = ()
    margins: tuple[MarginTerms, ...] = ()
    positions: tuple[HeldPosition, ...] = ()
    options: tuple[HeldOption, ...] = ()
    liquidity: tuple[HeldLiquidity, ...] = ()
    collateral: tuple[HeldCollateral, ...] = ()
    trading: Trading = field(default_factory=Trading)
    orders: tuple[Order, ...] = ()


@dataclass(frozen=True, slots=True)
class _Field:
    kind: Kind
    required: bool = True
    into: str = ""


_AMOUNT = {"venue": _Field("text"), "asset": _Field("text"), "amount": _Field("positive")}
_SECTIONS: Mapping[str, tuple[Callable[..., Any], Mapping[str, _Field]]] = {
    "holdings": (HeldAmount, _AMOUNT),
    "debts": (HeldAmount, _AMOUNT),
    "margins": (
        MarginTerms,
        {
            "venue": _Field("text"),
            "collateral": _Field("number"),
            "maintenance": _Field("share", False),
            "initial": _Field("share", False),
            "penalty": _Field("share", False),
        },
    ),
    "positions": (
        HeldPosition,
        {
            "venue": _Field("text"),
            "asset": _Field("text"),
            "size": _Field("number"),
            "entry_price": _Field("positive", False),
        },
    ),
    "options": (
        HeldOption,
        {
            "venue": _Field("text"),
            "asset": _Field("text"),
            "kind": _Field("option", into="is_call"),
            "strike": _Field("positive"),
            "expiry": _Field("time", into="expiry_s"),
            "size": _Field("number"),
            "implied_vol": _Field("share"),
            "premium": _Field("number", False),
        },
    ),
    "liquidity": (
        HeldLiquidity,
        {
            "venue": _Field("text"),
            "id": _Field("count"),
            "asset0": _Field("text"),
            "asset1": _Field("text"),
            "lower": _Field("positive"),
            "upper": _Field("positive"),
            "liquidity": _Field("positive"),
            "owed0": _Field("number", False),
            "owed1": _Field("number", False),
        },
    ),
    "collateral": (
        HeldCollateral,
        {
            **_AMOUNT,
            "liquidation_threshold": _Field("share"),
            "loan_to_value": _Field("share"),
        },
    ),
    "orders": (
        Order,
        {
            "at": _Field("time", into="at_s"),
            "venue": _Field("text"),
            "asset": _Field("text"),
            "size": _Field("number"),
            "bound": _Field("share", False),
            "signer": _Field("text", False),
        },
    ),
}
_TRADING = {"slippage": _Field("share", False), "fee": _Field("share", False)}
_WANTED = {
    "text": "text",
    "number": "a number such as -12.5",
    "positive": "a number that is not negative",
    "share": "a percentage such as 6.25%",
    "count": "a whole number",
    "time": "a time such as 2020-03-12T06:00 (UTC)",
    "option": "call or put",
}


class _Reader:
    def __init__(self) -> None:
        self.problems: list[Problem] = []

    def report(self, mark: source.Mark, path: str, message: str, advice: str = "") -> None:
        self.problems.append(Problem(mark.line, mark.column, path, message, advice))

    def fields(self, node: source.Node, wanted: Mapping[str, _Field], path: str) -> dict[str, Any] | None:
        """One entry's values by the name of the dataclass's field; None when something is wrong (reported)."""
        before = len(self.problems)
        if not isinstance(node, source.Mapping):
            self.report(node.mark, path, "must be a mapping of keys", f"such as {{{', '.join(wanted)}}}")
            return None
        found: dict[str, Any] = {}
        for key, (mark, item) in node.entries.items():
            if key not in wanted:
                advice = did_you_mean(key, tuple(wanted))
                self.report(mark, f"{path}.{key}", f"unknown key {key!r}", advice)
            else:
                found[wanted[key].into or key] = self.value(item, wanted[key].kind, f"{path}.{key}")
        for key, rule in wanted.items():
            if rule.required and key not in node.entries:
                self.report(node.mark, f"{path}.{key}", f"{key!r} is missing")
        return found if len(self.problems) == before else None

    def value(self, node: source.Node, kind: Kind, path: str) -> Any:
        if not isinstance(node, source.Scalar) or not node.text:
            self.report(node.mark, path, f"must be {_WANTED[kind]}")
            return None
        try:
            return _PARSERS[kind](node.text)
        except (ValueError, ArithmeticError):
            advice = ""
            if kind == "share" and not node.text.endswith("%"):
                advice = "write it with %"
            self.report(node.mark, path, f"must be {_WANTED[kind]}, got {node.text!r:.60}", advice)
            return None


def _number(text: str) -> Decimal:
    value = Decimal(text)
    if not value.is_finite() or "_" in text or abs(value.adjusted()) > 30:
        raise ValueError(text)
    return value


def _positive(text: str) -> Decimal:
    value = _number(text)
    if value < 0:
        raise ValueError(text)
    return value


def _share(text: str) -> Decimal:
    if not text.endswith("%"):
        raise ValueError(text)
    return _positive(text[:-1]).scaleb(-2)


def _time(text: str) -> int:
    if text.isascii() and text.isdigit():
        return int(text)
    moment = datetime.fromisoformat(text)
    return int((moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp())


def _option(text: str) -> bool:
    if text not in ("call", "put"):
        raise ValueError(text)
    return text == "call"


_PARSERS: Mapping[str, Callable[[str], Any]] = {
    "text": str,
    "number": _number,
    "positive": _positive,
    "share": _share,
    "count": int,
    "time": _time,
    "option": _option,
}


def read_book(text: str, name: str = "book") -> Book:
    """The book that a file means. Raises InvalidBook with every problem; `name` is how messages call the file."""
    reader = _Reader()
    root = source.read(text, reader.problems)
    found: dict[str, Any] = {}
    if root is not None:
        for key, (mark, node) in root.entries.items():
            if key == "trading":
                values = reader.fields(node, _TRADING, key)
                found[key] = Trading(**values) if values is not None else None
            elif key not in _SECTIONS:
                advice = did_you_mean(key, (*_SECTIONS, "trading"))
                reader.report(mark, key, f"unknown section {key!r}", advice)
            elif not isinstance(node, source.Sequence):
                reader.report(node.mark, key, "must be a list", "write each entry on a line that starts with -")
            else:
                found[key] = _section(reader, key, node)
        if not reader.problems:
            _consistent(reader, root, found)
    elif text.strip() == "" or all(problem.message.startswith("a policy is") for problem in reader.problems):
        reader.problems = []
        reader.report(source.Mark(1, 1), "", "a book is a mapping of sections", f"such as {', '.join(_SECTIONS)}")
    if reader.problems:
        raise InvalidBook(name, sorted(reader.problems))
    return Book(**found)


def _section(reader: _Reader, key: str, node: source.Sequence) -> tuple[Any, ...]:
    build, wanted = _SECTIONS[key]
    entries = []
    for number, item in enumerate(node.items):
        values = reader.fields(item, wanted, f"{key}[{number}]")
        if values is not None:
            if key == "orders":
                values["line"] = item.mark.line
            entries.append(build(**values))
    return tuple(entries)


def _consistent(reader: _Reader, root: source.Mapping, found: Mapping[str, Any]) -> None:
    """What single entries cannot show: positions without an account, the same thing twice, an empty range."""

    def mark(key: str, number: int) -> source.Mark:
        node = root.get(key)
        return node.items[number].mark if isinstance(node, source.Sequence) else source.Mark(1, 1)

    accounts = [margin.venue for margin in found.get("margins", ())]
    for number, venue in enumerate(accounts):
        if venue in accounts[:number]:
            reader.report(
                mark("margins", number), f"margins[{number}]", f"{venue} has two margin accounts", "add them up"
            )
    for key in ("positions", "orders"):
        seen: set[tuple[str, str]] = set()
        for number, entry in enumerate(found.get(key, ())):
            path = f"{key}[{number}]"
            if key == "positions" and entry.venue not in accounts:
                advice = f"add {{venue: {entry.venue}, collateral: ...}} under margins:"
                reader.report(mark(key, number), path, f"there is no margin account at {entry.venue}", advice)
            if key == "positions" and (entry.venue, entry.asset) in seen:
                reader.report(
                    mark(key, number), path, f"a second position in {entry.asset} at {entry.venue}", "net the two"
                )
            if not entry.size:
                reader.report(mark(key, number), f"{path}.size", "must not be zero")
            seen.add((entry.venue, entry.asset))
    for number, pool in enumerate(found.get("liquidity", ())):
        if not 0 < pool.lower < pool.upper:
            reader.report(mark("liquidity", number), f"liquidity[{number}]", "lower must be positive and below upper")
    for number, margin in enumerate(found.get("margins", ())):
        if not 0 < margin.maintenance <= margin.initial < 1:
            advice = "0% < maintenance <= initial < 100%"
            reader.report(mark("margins", number), f"margins[{number}]", "its ratios contradict each other", advice)
