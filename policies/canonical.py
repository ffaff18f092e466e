"""One form of bytes for one meaning: the base of the policy id, the facts hash and the Decision's bytes.

Canonical form: JSON in UTF-8 without spaces, keys sorted by code point, text in Unicode NFC, every integer and decimal a string
in plain notation without superfluous zeros, bytes as lower-case `0x` hex. No JSON numbers.   Source: DECISIONS, "Policy id".
"""

from __future__ import annotations

import json
import unicodedata
from collections.abc import Callable, Mapping, Sequence
from dataclasses import fields, is_dataclass
from decimal import Decimal
from enum import Enum
from json.encoder import encode_basestring as _quoted
from operator import attrgetter
from typing import Any

from contracts.types import Hash32, keccak
from policies.series import LONG, series_of

POLICY_TAG = keccak(b"Seawall policy")
FACTS_TAG = keccak(b"Seawall facts")
_WIDEST = 200


_PLAIN_END = frozenset("123456789")


def decimal_text(value: Decimal) -> str:
    """`value` exactly, in plain notation without superfluous zeros: 1E+3 is "1000", -0.50 is "-0.5", -0 is "0".

    What is not finite, or too wide to be an amount (an exponent beyond +-200), comes out in Decimal's own notation.
    """
    text = str(value)
    if text[-1] in _PLAIN_END and "E" not in text and "N" not in text:  # nearly always
        return text
    if (
        len(text) <= _WIDEST and "E" not in text and text.lstrip("-")[:1].isdigit()
    ):  # plain notation already, with zeros at its end
        if "." in text:
            text = text.rstrip("0").rstrip(".")
        return "0" if text == "-0" else text
    if not value.is_finite() or abs(value.adjusted()) > _WIDEST or abs(int(value.as_tuple().exponent)) > 2 * _WIDEST:
        return str(value)
    text = format(value, "f")
    if "." in text:
        text = text.rstrip("0").rstrip(".")
    return "0" if text == "-0" else text


def plain(value: Any) -> Any:
    """`value` as text, bool, None, lists and mappings only. Dataclass fields become keys; a mapping must have unique text keys."""
    if value is None or isinstance(value, bool):
        return value
    if isinstance(value, Enum):
        return value.name
    if isinstance(value, int):
        return str(value)
    if isinstance(value, Decimal):
        return decimal_text(value)
    if isinstance(value, str):
        return unicodedata.normalize("NFC", value)
    if isinstance(value, bytes):
        return "0x" + value.hex()
    if isinstance(value, Mapping):
        found = {unicodedata.normalize("NFC", str(key)): plain(item) for key, item in value.items()}
        if len(found) != len(value):
            raise ValueError("two keys are the same text after Unicode normalisation")
        return found
    if isinstance(value, (set, frozenset)):
        return sorted(plain(item) for item in value)
    if isinstance(value, (list, tuple)):
        return [plain(item) for item in value]
    if is_dataclass(value):
        return {field.name: plain(getattr(value, field.name)) for field in fields(value)}
    raise TypeError(f"{type(value).__name__} has no canonical form")


def canonical_bytes(value: Any) -> bytes:
    """The canonical form of `value`: `plain` as JSON with sorted keys and no spaces, written in one pass.

    What is held in several places (a position that an operation leaves as it is) is written once and copied.
    """
    return _text(value, {}).encode()


_Read = Callable[[Any], tuple[Any, ...]]
_MEMBERS: dict[type, tuple[_Read, tuple[str, ...]] | None] = {}


def _members(kind: type) -> tuple[_Read, tuple[str, ...]] | None:
    """How to read the fields of a dataclass in the order of the canonical form, and the text before the value of each."""
    if kind not in _MEMBERS:
        names = sorted(field.name for field in fields(kind)) if is_dataclass(kind) else []
        before = tuple(f'{"," if i else "{"}"{name}":' for i, name in enumerate(names))
        _MEMBERS[kind] = (fields_reader(names), before) if names else None
    return _MEMBERS[kind]


def fields_reader(names: Sequence[str]) -> _Read:
    """Reads these fields of an object, at least one, as a tuple."""
    read = attrgetter(*names)
    return read if len(names) > 1 else lambda entry: (read(entry),)


def _text(value: Any, known: dict[int, str]) -> str:
    """The canonical text of `value`. `known`: texts of dataclasses written before, by identity; whoever calls keeps them alive.

    The commonest types come first; a subclass (an enumeration of texts) goes the long way.
    """
    kind = type(value)
    if kind is Decimal:
        return f'"{decimal_text(value)}"'
    if kind is str:
        return _quoted(value if value.isascii() else unicodedata.normalize("NFC", value))
    if kind is tuple or kind is list:
        if len(value) >= LONG and kind is tuple and set(map(type, value)) == _DECIMALS:
            return series_of(value).once("canonical text", _series_text)
        return f"[{','.join([_text(item, known) for item in value])}]"
    if kind is bytes:
        return f'"0x{value.hex()}"'
    if value is None:
        return "null"
    if kind is bool:
        return "true" if value else "false"
    if kind is int:
        return f'"{value}"'
    members = _members(kind)
    if members is None:
        return json.dumps(plain(value), sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    text = known.get(id(value))
    if text is None:
        read, before = members
        parts = []
        for name, item in zip(before, read(value), strict=True):
            parts.append(name)
            # amounts and names are nearly all there is: a call for each would cost as much as its text
            if item.__class__ is Decimal:
                parts.append(f'"{decimal_text(item)}"')
            elif item.__class__ is str and item.isascii():
                parts.append(_quoted(item))
            else:
                parts.append(_text(item, known))
        parts.append("}")
        text = known[id(value)] = "".join(parts)
    return text


_DECIMALS = {Decimal}


def _series_text(values: tuple[Decimal, ...]) -> str:
    return '["' + '","'.join(map(decimal_text, values)) + '"]'


def policy_id(schema_version: int, document: Mapping[str, Any]) -> Hash32:
    """keccak256(keccak256("Seawall policy") || uint256 schema version || canonical form of the document).

    `document` is what remains after `extends` and variables are resolved.   Source: DECISIONS, "Policy id".
    """
    return keccak(POLICY_TAG + schema_version.to_bytes(32) + canonical_bytes(document))


def facts_hash(facts: Any) -> Hash32:
    """keccak256(keccak256("Seawall facts") || canonical form of the facts)."""
    return keccak(FACTS_TAG + canonical_bytes(facts))
