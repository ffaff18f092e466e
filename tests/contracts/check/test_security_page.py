"""docs/security.md names tests and shows a matrix; both must be those of the tree."""

from __future__ import annotations

import re
from pathlib import Path

ROOT = Path(__file__).parents[3]
PAGE = (ROOT / "docs" / "security.md").read_text()


def _solidity_tests() -> set[str]:
    sources = (ROOT / "contracts" / "test").rglob("*.sol")
    return {name for source in sources for name in re.findall(r"function (\w+)", source.read_text())}


def test_every_test_that_the_security_page_names_exists() -> None:
    named = set(re.findall(r"`((?:test|testFuzz|invariant|check)_\w+)`", PAGE))
    assert len(named) > 50
    assert named - _solidity_tests() == set()


def test_the_authority_matrix_of_the_page_is_the_one_that_is_tried_on_chain() -> None:
    source = (ROOT / "contracts" / "test" / "AuthorityMatrix.t.sol").read_text()
    tried = [(what, *wanted.split()) for what, wanted in re.findall(r'_row\(\s*"([^"]+)",\s*"([^"]+)"', source)]
    rows = [tuple(cell.strip() for cell in line.strip("|").split("|")) for line in PAGE.splitlines() if line[:1] == "|"]
    states = re.compile(r"[A-][R-][F-]")
    shown = [row for row in rows if len(row) == 6 and row[0] != "---" and all(map(states.fullmatch, row[1:]))]
    assert len(tried) > 10
    assert shown == tried
