"""Reading a saved answer: numbers as Decimals, and an error that names the place for everything else."""

from __future__ import annotations

import json
from dataclasses import dataclass
from decimal import Decimal, InvalidOperation
from typing import Any, NoReturn

from contracts.errors import BadInput
from policies.venues import Snapshot

MAX_CHARACTERS = 8_000_000
_MAX_EXPONENT = 40


@dataclass(frozen=True, slots=True)
class Export:
    """What one venue said at `time_s` (unix s). `snapshot` has the book, and the index prices that it was valued with."""

    venue: str
    time_s: int
    snapshot: Snapshot


@dataclass(frozen=True, slots=True)
class Node:
    """One place in a JSON document, `path` as people write it."""

    value: Any
    path: str

    def fail(self, why: str) -> NoReturn:
        raise BadInput(f"{self.path}: {why}")

    def has(self, name: str) -> bool:
        return isinstance(self.value, dict) and self.value.get(name) is not None

    def __getitem__(self, name: str) -> Node:
        if not isinstance(self.value, dict):
            self.fail("must be an object")
        if name not in self.value:
            self.fail(f"{name} is missing")
        return Node(self.value[name], f"{self.path}.{name}")

    def items(self) -> list[Node]:
        """The members of a list, or of an object."""
        if isinstance(self.value, list):
            return [Node(one, f"{self.path}[{i}]") for i, one in enumerate(self.value)]
        if isinstance(self.value, dict):
            return [Node(one, f"{self.path}.{key}") for key, one in self.value.items()]
        return self.fail("must be a list or an object")

    def text(self) -> str:
        if not isinstance(self.value, str) or not self.value:
            self.fail("must be a text")
        return self.value

    def number(self) -> Decimal:
        """A finite number, written as one or as a text."""
        value = self.value
        if isinstance(value, bool) or not isinstance(value, int | Decimal | str):
            self.fail("must be a number")
        try:
            found = Decimal(value)
        except InvalidOperation:
            self.fail(f"must be a number, got {value!r:.40}")
        if not found.is_finite() or (found and abs(found.adjusted()) > _MAX_EXPONENT):
            self.fail(f"must be a finite number of sensible size, got {value!r:.40}")
        return found

    def whole(self) -> int:
        found = self.number()
        if found != found.to_integral_value() or found < 0:
            self.fail("must be a whole number that is not negative")
        return int(found)


def document(text: str, venue: str) -> Node:
    """The JSON document. Raises BadInput."""
    if len(text) > MAX_CHARACTERS:
        raise BadInput(f"{venue}: more than {MAX_CHARACTERS} characters are no export of one account")
    try:
        found = json.loads(text, parse_float=Decimal, parse_constant=_no_constant)
    except (ValueError, RecursionError, InvalidOperation) as error:
        raise BadInput(f"{venue}: this is no JSON: {error!s:.200}") from None
    if not isinstance(found, dict):
        raise BadInput(f"{venue}: must be a JSON object")
    return Node(found, venue)


def _no_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is no number")
