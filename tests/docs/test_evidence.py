"""Pages that say what shows each promise name tests, files and commands; they must be those of the tree."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PAGES = sorted((ROOT / "docs").glob("*-evidence.md"))


def _names() -> set[str]:
    """Every test, of Python and of Solidity."""
    python = (
        name for file in (ROOT / "tests").rglob("*.py") for name in re.findall(r"def (test_\w+)", file.read_text())
    )
    solidity = (ROOT / "contracts" / "test").rglob("*.sol")
    return {*python, *(name for file in solidity for name in re.findall(r"function (\w+)", file.read_text()))}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_what_a_page_of_evidence_names_is_there(page: Path) -> None:
    quoted = set(re.findall(r"`([^`\n]+)`", page.read_text()))
    tests = {name for name in quoted if re.fullmatch(r"(test|testFuzz|invariant|check)_\w+(?<!\.py)", name)}
    folders = {
        part
        for words in quoted
        for part in words.split()
        if re.match(r"(tests|benchmarks|contracts|policies|docs)/", part)
    }
    assert len(tests) > 10
    assert len(folders) > 10
    assert tests - _names() == set()
    bare = {name for name in quoted if re.fullmatch(r"test_\w+\.py", name)}
    assert {name for name in bare if not list((ROOT / "tests").rglob(name))} == set()
    assert {path for path in folders if not (ROOT / path).exists()} == set()


def test_there_is_a_page_of_evidence() -> None:
    assert PAGES
