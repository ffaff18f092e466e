"""One form of bytes for one meaning: the base of the policy id, the facts hash and the Decision's bytes.

Canonical form: JSON in UTF-8 without spaces, keys sorted by code point, text in Unicode NFC, every integer and decimal a string
in plain notation without superfluous zeros, bytes as lower-case `0x` hex. No JSON numbers.   Source: DECISIONS, "Policy id".
"""

from __future__ import annotations

import json
import unicodedata
from collections.abc import Callable, Mapping
from dataclasses import fields, is_dataclass
from decimal import Decimal
from enum import Enum
from functools import cache
from json.encoder import encode_basestring as _quoted
from typing import Any

from contracts.types import Hash32, keccak

POLICY_TAG = keccak(b"Seawall policy")
FACTS_TAG = keccak(b"Seawall facts")
_WIDEST = 200


def decimal_text(value: Decimal) -> str:
    """`value` exactly, in plain notation without superfluous zeros: 1E+3 is "1000", -0.50 is "-0.5", -0 is "0".

    What is not finite, or too wide to be an amount (an exponent beyond +-200), comes out in Decimal's own notation.
    """
    text = str(value)
    if (
        len(text) <= _WIDEST and "E" not in text and text.lstrip("-")[:1].isdigit()
    ):  # plain notation already: nearly always
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
    """The canonical form of `value`: `plain` as JSON with sorted keys and no spaces, written in one pass."""
    parts: list[str] = []
    _write(value, parts.append)
    return "".join(parts).encode()


@cache
def _members(kind: type) -> tuple[tuple[str, str], ...]:
    """(name, text before its value) of every field of a dataclass, in the order of the canonical form."""
    names = sorted(field.name for field in fields(kind))
    return tuple((name, f'{"," if i else "{"}"{name}":') for i, name in enumerate(names))


def _write(value: Any, out: Callable[[str], object]) -> None:
    """Append the canonical text of `value`. The commonest types come first; a subclass (an enumeration of texts) goes the long way."""
    kind = type(value)
    if kind is Decimal:
        out(f'"{decimal_text(value)}"')
    elif kind is str:
        out(_quoted(value if value.isascii() else unicodedata.normalize("NFC", value)))
    elif kind is tuple or kind is list:
        before = "["
        for item in value:
            out(before)
            _write(item, out)
            before = ","
        out("]" if value else "[]")
    elif kind is bytes:
        out(f'"0x{value.hex()}"')
    elif value is None:
        out("null")
    elif kind is bool:
        out("true" if value else "false")
    elif kind is int:
        out(f'"{value}"')
    elif is_dataclass(kind) and _members(kind):
        for name, before in _members(kind):
            out(before)
            _write(getattr(value, name), out)
        out("}")
    else:
        out(json.dumps(plain(value), sort_keys=True, separators=(",", ":"), ensure_ascii=False))


def policy_id(schema_version: int, document: Mapping[str, Any]) -> Hash32:
    """keccak256(keccak256("Seawall policy") || uint256 schema version || canonical form of the document).

    `document` is what remains after `extends` and variables are resolved.   Source: DECISIONS, "Policy id".
    """
    return keccak(POLICY_TAG + schema_version.to_bytes(32) + canonical_bytes(document))


def facts_hash(facts: Any) -> Hash32:
    """keccak256(keccak256("Seawall facts") || canonical form of the facts)."""
    return keccak(FACTS_TAG + canonical_bytes(facts))
