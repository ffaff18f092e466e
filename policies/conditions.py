"""`when:` conditions in CEL (extra `cel`): a limit binds while its condition is true.

What has no value denies. CEL engines return errors as values, follow IEEE through NaN (`!(x > limit)` is true of it), and some let a short
expression run for seconds; so only a part of the language is let in, in which no value can become NaN or infinite and nothing runs long:

- only the variables and functions below; no `dyn`, no conversion but `double(` of an integer variable `)`, no string prefixes, no comments;
- a divisor is a number other than zero, `%` is not let in, there are at most `MAX_PRODUCTS` products and quotients; numbers have at most 15
  digits and no exponent;
  variables are finite and at most `LARGEST` in size, so that every product stays far inside the doubles;
- at most `MAX_LENGTH` characters, `MAX_DEPTH` brackets deep, `MAX_MACROS` macros, and cel-cpp's own budgets;
- a result counts only when its type is BOOL and it is the object True or False.

Figures are the metrics' exact decimals as the nearest double: close enough to say when a limit binds, while the bound itself stays exact.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from decimal import Decimal
from functools import lru_cache
from typing import Any, Literal, Protocol

from policies.metrics import METRICS, Metric, View
from policies.policy import Scope
from policies.problems import did_you_mean

MAX_LENGTH = 1_000
MAX_DEPTH = 12
MAX_MACROS = 2
MAX_PRODUCTS = 8
LARGEST = 1e30
EXTRA = "the extra `cel` is not installed (pip install 'seawall[cel]')"

Kind = Literal["int", "double", "bool", "string", "list"]
OF_OPERATION: Mapping[str, tuple[Kind, str]] = {
    "chain_id": ("int", "the chain's id"),
    "time_s": ("int", "time of the judgement, unix seconds"),
    "hour": ("int", "hour of the day in UTC, 0 to 23"),
    "weekday": ("int", "1 for Monday to 7 for Sunday, in UTC"),
    "block_age_s": ("int", "age of the block that the facts were read on"),
    "call_count": ("int", "number of calls"),
    "sponsored": ("bool", "a paymaster pays the gas"),
    "state": ("string", "ACTIVE, REDUCE_ONLY or FROZEN"),
    "calls": ("list", "titles of the calls, such as perp.vault.deposit"),
}
"""Variables beside the metrics."""


def _plain(metric: Metric) -> bool:
    return not metric.needs and ("portfolio" in metric.scopes or "operation" in metric.scopes)


@lru_cache(maxsize=1)
def variables() -> Mapping[str, Kind]:
    """Every variable and its kind. A metric is a double: `leverage` after the operation, `before_leverage` before it."""
    found: dict[str, Kind] = {name: kind for name, (kind, _) in OF_OPERATION.items()}
    for metric in METRICS.values():
        if _plain(metric):
            found[metric.name] = "double"
            if not metric.of_operation:
                found[f"before_{metric.name}"] = "double"
    return found


@dataclass(frozen=True, slots=True)
class Fault:
    """What is wrong with a condition, at a place of its own text, counted from 1."""

    line: int
    column: int
    message: str
    suggestion: str = ""


class Condition(Protocol):
    """Something that holds, does not hold, or has no value."""

    def holds(self, before: View, after: View, now_s: int) -> bool | str:
        """True, False, or why there is no value. Never raises."""


@dataclass(frozen=True, slots=True)
class _Without:
    """A condition that can never have a value."""

    why: str

    def holds(self, before: View, after: View, now_s: int) -> bool | str:  # noqa: ARG002
        return self.why


@dataclass(frozen=True, slots=True)
class _Cel:
    program: Any
    names: tuple[str, ...]

    def holds(self, before: View, after: View, now_s: int) -> bool | str:
        try:
            given = {name: _value(name, before, after, now_s) for name in self.names}
        except _NoValue as missing:
            return str(missing)
        return judge(self.program, given)


class _NoValue(Exception):
    pass


def judge(program: Any, given: Mapping[str, Any]) -> bool | str:
    """What a compiled program says of these values: True, False, or why it has no value. Never raises."""
    for name, value in given.items():
        if isinstance(value, float) and not abs(value) <= LARGEST:
            return f"{name} is {value}"
    try:
        result = program.eval(data=dict(given))
        kind, value = result.type().name(), result.value()
    except Exception as error:  # the engine is another's code; whatever it raises is no value
        return f"{type(error).__name__}: {error}".splitlines()[0]
    if kind != "BOOL" or not (value is True or value is False):
        return f"{kind}: {value}"
    return bool(value)


def _value(name: str, before: View, after: View, now_s: int) -> Any:
    """One variable. Raises _NoValue."""
    if name not in OF_OPERATION:
        earlier = name.startswith("before_") and name not in METRICS
        metric = METRICS[name.removeprefix("before_") if earlier else name]
        if not earlier and not after.facts.succeeded:
            raise _NoValue(f"{name}: the operation reverts")
        found = metric.observe(before if earlier else after, Scope())
        if found.value is None:
            raise _NoValue(f"{name}: {found.why}")
        return _double(name, found.value)
    facts = after.facts
    values: dict[str, Any] = {
        "chain_id": facts.chain_id,
        "time_s": now_s,
        "hour": now_s // 3_600 % 24,
        "weekday": (now_s // 86_400 + 3) % 7 + 1,
        "block_age_s": now_s - facts.block_time_s,
        "call_count": len(facts.calls.calls),
        "sponsored": facts.sponsored,
        "state": facts.state.name,
        "calls": [call.title for call in facts.calls.calls],
    }
    return values[name]


def _double(name: str, value: Decimal) -> float:
    try:
        return float(value)
    except (OverflowError, ValueError):
        raise _NoValue(f"{name} is {value}") from None


@lru_cache(maxsize=256)
def condition(text: str) -> Condition:
    """The condition that `text` means. One that cannot be used has no value, and says why: nothing is raised."""
    faults = faults_of(text)
    if faults:
        return _Without(faults[0].message)
    program, fault = compile_program(text)
    if program is None:
        return _Without(fault.message if fault else EXTRA)
    return _Cel(program, names_in(text))


@lru_cache(maxsize=1)
def _environment() -> Any:
    """cel-cpp with our variables, or None without the extra."""
    try:
        from cel_expr_python import cel
    except ImportError:
        return None
    kinds = {
        "int": cel.Type.INT,
        "double": cel.Type.DOUBLE,
        "bool": cel.Type.BOOL,
        "string": cel.Type.STRING,
        "list": cel.Type.List(cel.Type.STRING),
    }
    return cel.NewEnv(variables={name: kinds[kind] for name, kind in variables().items()})


def compile_program(text: str) -> tuple[Any, Fault | None]:
    """The program of a condition whose form was checked by `faults_of`; None with what is wrong. (None, None) without the extra."""
    environment = _environment()
    if environment is None:
        return None, None
    try:
        program = environment.compile(text.rstrip())
        kind = program.return_type().name()
    except Exception as error:  # another's code: whatever it raises, the text is not usable
        return None, _fault_of(str(error), text)
    if kind != "BOOL":
        return None, Fault(1, 1, f"gives {kind.lower()}, not true or false", "compare it with something")
    return program, None


_AT = re.compile(r"ERROR: <input>:(\d+):(\d+): (.*)")


def _fault_of(message: str, text: str) -> Fault:
    found = _AT.search(message)
    if found is None:
        return Fault(1, 1, message.splitlines()[0] if message else "cannot be read")
    line, column, what = int(found[1]), int(found[2]), found[3].removesuffix(" [INVALID_ARGUMENT]")
    advice = ""
    if (name := re.match(r"undeclared reference to '([^']*)'", what)) is not None:
        advice = did_you_mean(name[1], tuple(variables())) or "see docs/policy.md for the variables"
        what = f"unknown variable {name[1]!r}"
    elif "no matching overload" in what and "double" in what and "int" in what:
        advice = "write whole numbers that are compared with metrics as 3.0"
    elif what.startswith("Syntax error"):
        what = what.partition(" expecting")[0]
    return Fault(min(line, text.count("\n") + 1), column, what, advice)


# -- the part of the language that is let in -----------------------------------------------------------------------------------------

_MACROS = ("all", "exists", "exists_one")
_FUNCTIONS = (*_MACROS, "size", "contains", "startsWith", "endsWith", "matches", "double")
_WORDS = ("true", "false", "in")
_TOKEN = re.compile(
    r"""(?P<space>\s+)
    |(?P<text>"(?:[^"\\\n]|\\.)*"|'(?:[^'\\\n]|\\.)*')
    |(?P<number>[0-9][A-Za-z0-9_.]*|\.[0-9][A-Za-z0-9_.]*)
    |(?P<name>[A-Za-z_][A-Za-z0-9_]*)
    |(?P<sign>&&|\|\||[<>=!]=|//|[-+*/%<>!?:.,()\[\]{}])
    |(?P<other>.)""",
    re.VERBOSE | re.DOTALL,
)
_NUMBER = re.compile(r"[0-9]+(\.[0-9]+)?\Z")


@dataclass(frozen=True, slots=True)
class _Token:
    kind: str
    text: str
    at: int


def _tokens(text: str) -> list[_Token]:
    return [_Token(str(m.lastgroup), m[0], m.start()) for m in _TOKEN.finditer(text) if m.lastgroup != "space"]


def names_in(text: str) -> tuple[str, ...]:
    """Variables that a condition names, sorted."""
    return tuple(sorted({t.text for t in _tokens(text) if t.kind == "name" and t.text in variables()}))


def faults_of(text: str) -> list[Fault]:
    """What of `text` is not let in, whatever CEL itself would say of it. Empty when its form is fine."""
    found: list[Fault] = []

    def report(at: int, message: str, suggestion: str = "") -> None:
        before = text[:at]
        found.append(Fault(before.count("\n") + 1, at - (before.rfind("\n") + 1) + 1, message, suggestion))

    if len(text) > MAX_LENGTH:
        report(0, f"longer than {MAX_LENGTH} characters")
        return found
    tokens = _tokens(text)
    end = _Token("end", "", len(text))
    depth = macros = products = 0
    for i, token in enumerate(tokens):
        previous = tokens[i - 1] if i else end
        after = tokens[i + 1] if i + 1 < len(tokens) else end
        if token.kind == "other" or token.text in ("//", "{", "}", "%"):
            report(token.at, f"{token.text!r} is not let in")
        elif token.kind == "number" and (not _NUMBER.match(token.text) or len(token.text) > 16):
            report(token.at, f"{token.text!r:.40} is no plain number of at most 15 digits")
        elif token.kind == "text" and previous.kind == "name" and previous.at + len(previous.text) == token.at:
            report(previous.at, "prefixed strings are not let in", "write a plain string")
        elif token.text in ("(", "["):
            depth += 1
            if depth == MAX_DEPTH + 1:
                report(token.at, f"brackets more than {MAX_DEPTH} deep")
        elif token.text in (")", "]"):
            depth -= 1
        elif token.text in ("*", "/"):
            products += 1
            if products == MAX_PRODUCTS + 1:
                report(token.at, f"more than {MAX_PRODUCTS} products and quotients")
        if token.text == "/" and not (after.kind == "number" and after.text.strip("0.")):
            report(token.at, "a divisor must be a number other than zero", "multiply the other side instead")
        elif token.kind == "name":
            macros += _check_name(tokens, i, report)
            if macros > MAX_MACROS:
                report(token.at, f"more than {MAX_MACROS} of {', '.join(_MACROS)}")
                break
    return found


def _check_name(tokens: list[_Token], i: int, report: Any) -> int:
    """Report a word that is not let in; 1 when it is a macro."""
    token = tokens[i]
    called = i + 1 < len(tokens) and tokens[i + 1].text == "("
    if token.text in _WORDS and not called:
        return 0
    if token.text == "null":
        report(token.at, "null is not let in")
    elif called and token.text not in _FUNCTIONS:
        report(token.at, f"there is no function {token.text!r} here", did_you_mean(token.text, _FUNCTIONS))
    elif called and token.text == "double":
        inside = tokens[i + 2 : i + 4]
        if [t.text for t in inside[1:]] != [")"] or variables().get(inside[0].text) != "int":
            report(token.at, "double() takes one of the integer variables", "write other numbers with a point")
    elif called and token.text in _MACROS:
        return 1
    return 0
