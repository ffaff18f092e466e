"""The audit log keeps what was decided, and shows when somebody touched it."""

from __future__ import annotations

from pathlib import Path

import pytest

from contracts.errors import SetupError
from wallet.audit import AuditLog


@pytest.fixture
def log(tmp_path: Path) -> AuditLog:
    found = AuditLog(tmp_path / "engine" / "audit.jsonl")
    for number in range(3):
        found.append("decision", {"number": number})
    return found


def test_entries_come_back_in_order(log: AuditLog) -> None:
    assert [entry.body["number"] for entry in log.entries()] == [0, 1, 2]


def test_a_changed_line_is_found(log: AuditLog) -> None:
    log.path.write_text(log.path.read_text().replace('"number": 1', '"number": 7'))
    with pytest.raises(SetupError, match="line 2"):
        log.entries()


def test_a_removed_line_is_found(log: AuditLog) -> None:
    lines = log.path.read_text().splitlines(keepends=True)
    log.path.write_text(lines[0] + lines[2])
    with pytest.raises(SetupError, match="line 2"):
        log.append("decision", {"number": 3})


def test_a_half_written_last_line_is_cut_off(log: AuditLog) -> None:
    with log.path.open("a") as stream:
        stream.write('{"hash": "0x12')
    log.append("decision", {"number": 3})
    assert [entry.body["number"] for entry in log.entries()] == [0, 1, 2, 3]


def test_two_logs_on_one_file_make_one_chain(log: AuditLog) -> None:
    AuditLog(log.path).append("attestation", {"number": 3})
    log.append("decision", {"number": 4})
    assert len(log.entries()) == 5
