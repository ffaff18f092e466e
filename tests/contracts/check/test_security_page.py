"""docs/security.md names tests; they must be there."""

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
