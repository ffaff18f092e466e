"""The published schema, applied to a tree that still knows its lines: every departure reported, every value in its canonical text.

The JSON Schema is the only description of the format; its keyword `x-seawall` names how a scalar is read:
percentages become fractions, durations seconds, numbers plain decimals, addresses lower case, booleans JSON booleans.
"""

from __future__ import annotations

import json
import re
import unicodedata
from collections.abc import Mapping as Map
from decimal import Decimal
from functools import lru_cache
from importlib.resources import files
from typing import Any

from contracts.errors import InvalidFields
from contracts.types import parse_address
from policies.canonical import decimal_text
from policies.problems import Problem, did_you_mean
from policies.source import Mapping, Mark, Node, Scalar, Sequence

Places = dict[str, Mark]
"""Where each value stands, by dotted path."""
_SECONDS = {"s": 1, "m": 60, "h": 3_600, "d": 86_400}
_HEX = re.compile(r"0x[0-9a-fA-F]{41,}\Z|0x[0-9a-fA-F]{1,39}\Z")
_NUMBER = re.compile(r"-?(0|[1-9][0-9]{0,30})(\.[0-9]{1,30})?\Z")
_WORDS = {
    "text": "text",
    "identifier": "a name of letters, digits, - and _, starting with a letter",
    "integer": "a whole number",
    "decimal": "a decimal number such as 3.1",
    "percent": "a percentage such as 12%",
    "bound": "a number such as 3.1 or a percentage such as 20%",
    "duration": "a duration such as 30s, 10m, 2h or 1d",
    "boolean": "true or false",
    "address": "an address of 40 hex digits",
    "party": "an address, or a name such as perp.vault",
    "function": "a function's name, signature or 0x selector",
    "asset": "an asset such as ETH",
    "scope": "portfolio, operation, asset: NAME or venue: NAME",
    "bucket": "a range of times to expiry such as <7d, >=30d or 7d-30d",
    "hours": "hours of the day in UTC such as 08:00-18:00",
    "condition": "a CEL condition",
    "offset": "an offset from UTC such as +02:00",
    "pin": "a value, a list of values, or {min:, max:}",
}


@lru_cache(maxsize=1)
def schema() -> Map[str, Any]:
    """The published JSON Schema (draft 2020-12)."""
    found: Map[str, Any] = json.loads(files("policies").joinpath("schema.json").read_text(encoding="utf-8"))
    return found


def check(root: Mapping, problems: list[Problem]) -> tuple[dict[str, Any], Places, dict[str, str]]:
    """The tree's values in canonical text, their places, and how scalars were written. What is wrong is reported and left out."""
    walker = _Walker(problems)
    value = walker.visit(root, schema(), "")
    return (value if isinstance(value, dict) else {}), walker.places, walker.written


class _Walker:
    def __init__(self, problems: list[Problem]) -> None:
        self.problems = problems
        self.places: Places = {}
        self.written: dict[str, str] = {}

    def report(self, mark: Mark, path: str, message: str, suggestion: str = "") -> None:
        self.problems.append(Problem(mark.line, mark.column, path, message, suggestion, source=mark.source))

    def visit(self, node: Node, rule: Map[str, Any], path: str) -> Any:
        """The node's value, or None when it is not what `rule` asks (reported)."""
        self.places[path] = node.mark
        if isinstance(node, Scalar):
            self.written[path] = node.text
        if "$ref" in rule:
            rule = schema()["$defs"][rule["$ref"].rsplit("/", 1)[1]] | {k: v for k, v in rule.items() if k != "$ref"}
        if rule.get("x-seawall") == "pin":
            return self.pin(node, rule, path)
        if rule["type"] == "object":
            return self.mapping(node, rule, path)
        if rule["type"] == "array":
            return self.sequence(node, rule, path)
        if not isinstance(node, Scalar):
            self.report(node.mark, path, f"must be {_WORDS[rule['x-seawall']]}, not a list or mapping")
            return None
        return self.scalar(node, rule, path)

    def mapping(self, node: Node, rule: Map[str, Any], path: str) -> dict[str, Any] | None:
        if not isinstance(node, Mapping):
            self.report(node.mark, path, "must be a mapping of keys", "indent `key: value` lines below it")
            return None
        properties: Map[str, Any] = rule.get("properties", {})
        extra = rule.get("additionalProperties", False)
        found: dict[str, Any] = {}
        for key, (mark, item) in node.entries.items():
            below = f"{path}.{key}" if path else key
            inner = properties.get(key, extra)
            if inner is False:
                self.report(mark, below, f"unknown key {key!r}", did_you_mean(key, tuple(properties)))
                continue
            value = self.visit(item, inner, below)
            if value is not None:
                name = unicodedata.normalize("NFC", key)
                if name in found:
                    self.report(mark, below, f"duplicate key {key!r} once Unicode is normalised", "keep one of the two")
                found[name] = value
        for key in rule.get("required", ()):
            if key not in node.entries:
                self.report(node.mark, f"{path}.{key}" if path else key, f"{key!r} is missing")
        if len(node.entries) < rule.get("minProperties", 0):
            self.report(node.mark, path, "must not be empty")
        return found

    def sequence(self, node: Node, rule: Map[str, Any], path: str) -> list[Any] | None:
        if not isinstance(node, Sequence):
            self.report(node.mark, path, "must be a list", "write each entry on a line that starts with -")
            return None
        if len(node.items) < rule.get("minItems", 0):
            self.report(node.mark, path, "must not be empty")
        found = []
        for i, item in enumerate(node.items):
            place = f"{path}[{i}]"
            identity = item.get("id") if isinstance(item, Mapping) else None
            if isinstance(identity, Scalar) and f"{path}.{identity.text}" not in self.places:
                place = f"{path}.{identity.text}"
            value = self.visit(item, rule["items"], place)
            if value is not None:
                found.append(value)
        return found

    def pin(self, node: Node, rule: Map[str, Any], path: str) -> Any:
        scalar, _, ranged = rule["anyOf"]
        if isinstance(node, Scalar):
            return self.text(node, path)
        if isinstance(node, Sequence):
            if not node.items:
                self.report(node.mark, path, "must not be empty")
            values = [
                self.visit(item, scalar | {"x-seawall": "text"}, f"{path}[{i}]") for i, item in enumerate(node.items)
            ]
            return [value for value in values if value is not None]
        return self.mapping(node, ranged, path)

    def text(self, node: Scalar, path: str) -> str | None:
        if node.text == "" or (not node.quoted and node.text in ("~", "null", "Null", "NULL")):
            self.report(node.mark, path, "has no value", "write one, or remove the key")
            return None
        text = unicodedata.normalize("NFC", node.text)
        return text.lower() if _HEX.match(text) else text

    def scalar(self, node: Scalar, rule: Map[str, Any], path: str) -> Any:
        text = self.text(node, path)
        if text is None or "${" in text:  # an unknown variable was reported where it stands
            return None
        kind: str = rule.get("x-seawall", "text")
        if kind == "boolean":
            if node.quoted or text not in ("true", "false"):
                self.report(node.mark, path, f"must be true or false, got {node.text!r}", _truth(text))
                return None
            return text == "true"
        pattern = rule.get("pattern")
        if pattern is not None and (text.endswith("\n") or not re.search(pattern, text)):
            self.report(node.mark, path, f"must be {_WORDS[kind]}, got {text!r:.80}", _advice(kind, text))
            return None
        if len(text) > rule.get("maxLength", 400):
            self.report(node.mark, path, f"longer than {rule.get('maxLength', 400)} characters")
            return None
        choices = [str(choice) for choice in rule.get("enum", ())]
        if choices and text not in choices:
            self.report(node.mark, path, f"must be {' or '.join(dict.fromkeys(choices))}, got {text!r:.80}",
                        did_you_mean(text, tuple(dict.fromkeys(choices))))  # fmt: skip
            return None
        if kind == "condition":
            self.condition(node, text, path)
        return self.canonical(kind, text, node.mark, path)

    def condition(self, node: Scalar, text: str, path: str) -> None:
        """Everything about a CEL condition, where it stands. Without the extra only its form can be checked, which is a problem too."""
        from policies.conditions import EXTRA, compile_program, faults_of

        faults = faults_of(text)
        if not faults:
            program, fault = compile_program(text)
            faults = [fault] if fault else []
            if program is None and fault is None:
                self.report(node.mark, path, f"cannot be checked: {EXTRA}", "the limit denies until it is there")
        for fault in faults:
            place = Mark(node.mark.line, node.mark.column + node.quoted + fault.column - 1, node.mark.source)
            if "\n" in text:  # a block: its text begins on the line below
                place = Mark(node.mark.line + fault.line, fault.column, node.mark.source)
            self.report(place, path, fault.message, fault.suggestion)

    def canonical(self, kind: str, text: str, mark: Mark, path: str) -> str | None:
        if kind in ("percent", "bound") and text.endswith("%"):
            return decimal_text(Decimal(text[:-1]).scaleb(-2))
        if kind in ("decimal", "bound"):
            return decimal_text(Decimal(text))
        if kind == "duration":
            return str(_seconds(text))
        if kind == "bucket":
            return _bucket(text)
        if kind == "hours":
            start, end = (int(part[:2]) * 60 + int(part[3:]) for part in text.split("-"))
            return f"{start}-{end}"
        if kind == "scope":
            return re.sub(r":\s*", ": ", text)
        if kind in ("address", "party") and text.startswith("0x"):
            try:
                return "0x" + parse_address(text).hex()
            except InvalidFields as error:
                self.report(mark, path, error.message)
                return None
        return text


def _seconds(text: str) -> int:
    return int(text[:-1]) * _SECONDS[text[-1]]


def _bucket(text: str) -> str:
    """`<7d` as `0-604800`, `>=30d` as `2592000-`: from the first, included, to the second, not included, in seconds."""
    if text.startswith("<"):
        return f"0-{_seconds(text[1:])}"
    if text.startswith(">="):
        return f"{_seconds(text[2:])}-"
    low, high = map(_seconds, text.split("-"))
    return f"{low}-{high}"


def _truth(text: str) -> str:
    if text.lower() in ("yes", "on", "y", "true", "1"):
        return "write true"
    return "write false" if text.lower() in ("no", "off", "n", "false", "0") else ""


def _clock(text: str) -> str:
    hours, _, minutes = text.strip().partition(":")
    return f"{int(hours):02}:{minutes or '00'}"


def _advice(kind: str, text: str) -> str:
    """What the writer probably meant."""
    if kind in ("decimal", "bound", "integer", "percent"):
        plain = text.replace("_", "").replace(",", "").replace(" ", "")
        if plain != text and _NUMBER.match(plain.rstrip("%")):
            return f"write {plain}"
        if re.fullmatch(r"-?0[0-9]+%?", text):
            return f"write {text.replace('0', '', 1) or '0'}; a leading zero means octal elsewhere"
        if kind == "percent" and _NUMBER.match(text):
            return f"write {decimal_text(Decimal(text) * 100)}% or {text}%, whichever you mean"
        if re.fullmatch(r"-?[0-9.]+[eE][+-]?[0-9]{1,2}", text):
            return f"write {decimal_text(Decimal(text))}"
        if re.fullmatch(r"[0-9.]+x", text):
            return f"write {text[:-1]}"
        return "infinities and NaN are no bounds" if text.lower().strip("+-.") in ("inf", "nan") else ""
    if kind == "bucket" and re.fullmatch(r"(<=|>)\s*[0-9]+[smhd]", text):
        return "write " + {"<": "<", ">": ">="}[text[0]] + text.lstrip("<>= ")
    if kind == "bucket" and re.fullmatch(r"(<|>=)?\s+.*|[0-9]+[smhd]", text):
        return "write it without spaces, such as <7d or >=7d"
    if kind == "hours" and re.fullmatch(r"[0-9]{1,2}(:[0-9]{2})?\s*-\s*[0-9]{1,2}(:[0-9]{2})?", text):
        return "write " + "-".join(_clock(part) for part in text.split("-"))
    if kind == "duration" and text.isdigit():
        return f"write {text}s for seconds"
    if kind == "duration" and re.fullmatch(r"[0-9]+:[0-9:]+", text):
        return "write it with one unit, such as 90s"
    if kind in ("address", "party") and text.startswith("0x"):
        return f"it has {len(text) - 2} digits"
    return ""
