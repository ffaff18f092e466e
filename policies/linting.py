"""What every semantic check shares: the document, the places of its values, and how a finding is reported."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from decimal import Decimal
from typing import Any

from policies.canonical import decimal_text
from policies.names import KNOWN
from policies.problems import Problem, Severity, did_you_mean
from policies.structure import Places

Tree = Mapping[str, Any]
_ZERO, _ONE = Decimal(0), Decimal(1)


class Linter:
    """One merged document, and the problems found in it so far."""

    def __init__(self, tree: Tree, places: Places, written: Mapping[str, str]) -> None:
        self.tree = tree
        self.places = places
        self.written = written
        self.problems: list[Problem] = []
        self.names = (*KNOWN, *tree.get("addresses", {}))
        self.guards: Tree = tree.get("guards", {})

    def report(self, path: str, message: str, advice: str = "", severity: Severity = "error") -> None:
        spot, at = path, self.places.get(path)
        while at is None and "." in spot:
            spot = spot.rpartition(".")[0]
            at = self.places.get(spot)
        line, column, source = (at.line, at.column, at.source) if at else (1, 1, "")
        self.problems.append(Problem(line, column, path, message, advice, severity, source))

    def warn(self, path: str, message: str, advice: str = "") -> None:
        self.report(path, message, advice, "warning")

    def party(self, path: str, name: Any) -> None:
        """A name that nothing is ever bound to is an error."""
        if isinstance(name, str) and not name.startswith("0x") and name not in self.names:
            advice = did_you_mean(name, self.names) or "declare it under addresses:"
            self.report(path, f"unknown name {name!r}", advice)

    def named(self, entries: Iterable[Tree], section: str) -> Iterator[tuple[str, Tree]]:
        """Entries with the path by which `structure` knows their place: by id, and by number when the id was taken (reported)."""
        seen: set[str] = set()
        for i, entry in enumerate(entries):
            identity = str(entry.get("id"))
            path = f"{section}[{i}]" if identity in seen else f"{section}.{identity}"
            if identity in seen:
                self.report(f"{path}.id", f"duplicate id {identity!r}", "give each entry its own")
            seen.add(identity)
            yield path, entry

    def present(self, path: str) -> bool:
        """Whether the file writes something there, well-formed or not."""
        return path in self.places

    def share(self, path: str, value: str | None, low: Decimal = _ZERO, high: Decimal = _ONE) -> None:
        if value is not None and not low <= Decimal(value) <= high:
            self.report(path, f"must be between {decimal_text(low * 100)}% and {decimal_text(high * 100)}%")

    def feed(self, entry: Tree, path: str) -> tuple[Decimal, Decimal]:
        """An `oracle:` section. Returns the bounds of its price, whether they are sound or not."""
        for key in ("feed", "sequencer_feed"):
            self.party(f"{path}.{key}", entry.get(key))
        low, high = Decimal(entry.get("min_price", "0.01")), Decimal(entry.get("max_price", "10000000"))
        if not 0 < low < high:
            self.report(f"{path}.min_price", "must be positive and below max_price")
        if entry.get("heartbeat") == "0":
            self.report(f"{path}.heartbeat", "must be positive")
        self.share(f"{path}.max_deviation", entry.get("max_deviation"))
        return low, high
