"""What one check found."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Result:
    """One line of the summary. `figures` says what was measured; `problems` are the reasons why `passed` is false, one a line."""

    name: str
    passed: bool
    figures: str
    problems: tuple[str, ...] = ()


def summary(results: Sequence[Result], seconds: Sequence[float]) -> str:
    """The table that `make contracts-check` closes with, one row a check, problems below it."""
    width = max(len(result.name) for result in results)
    lines = [
        f"{'ok  ' if result.passed else 'FAIL'}  {result.name:<{width}}  {took:>5.0f} s  {result.figures}"
        for result, took in zip(results, seconds, strict=True)
    ]
    for result in results:
        lines += [f"\n{result.name}: {problem}" for problem in result.problems]
    passed = sum(result.passed for result in results)
    return "\n".join([*lines, "", f"{passed} passed, {len(results) - passed} failed"])
