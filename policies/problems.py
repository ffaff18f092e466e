"""What is wrong with a policy file: every problem at once, each with its place and what to write instead."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from typing import Literal

from contracts.errors import BadInput

Severity = Literal["error", "warning"]


@dataclass(frozen=True, slots=True, order=True)
class Problem:
    """One finding. `line` and `column` count from 1; `path` is dotted (`limits.leverage.max`); `source` names an inherited file."""

    line: int
    column: int
    path: str
    message: str
    suggestion: str = ""
    severity: Severity = "error"
    source: str = ""

    def __str__(self) -> str:
        place = f"{self.source}:{self.line}:{self.column}" if self.source else f"{self.line}:{self.column}"
        advice = f" ({self.suggestion})" if self.suggestion else ""
        return f"{place}: {self.severity}: {self.path or 'document'}: {self.message}{advice}"

    def to_json(self) -> dict[str, object]:
        return {
            "source": self.source,
            "line": self.line,
            "column": self.column,
            "path": self.path,
            "message": self.message,
            "suggestion": self.suggestion,
            "severity": self.severity,
        }


class InvalidPolicy(BadInput):
    """The file has errors. `problems` has all of them; nothing of the file is in force."""

    def __init__(self, problems: Sequence[Problem]) -> None:
        errors = [p for p in problems if p.severity == "error"]
        more = f" and {len(errors) - 1} more; see `seawall policy lint`" if len(errors) > 1 else ""
        super().__init__(f"the policy has errors: {errors[0]}{more}", data=[p.to_json() for p in problems])
        self.problems = tuple(problems)


def did_you_mean(word: str, known: Sequence[str]) -> str:
    """Advice naming the nearest known word, else all of them if they are few, else nothing."""
    near = get_close_matches(word, known, n=1, cutoff=0.6)
    if near:
        return f"did you mean {near[0]}?"
    return f"one of {', '.join(known)}" if 0 < len(known) <= 16 else ""
