"""What the engine decided and attested, in the order in which it did: an append-only file of JSON lines, chained by hash.

Each line holds the hash of the line before it, so a line that is changed, removed or put in between breaks every later one. The
file is written under a lock and flushed to the disk before an attestation leaves the engine.
"""

from __future__ import annotations

import fcntl
import json
import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

from contracts.errors import SetupError
from contracts.types import keccak, to_hex

GENESIS = to_hex(bytes(32))


@dataclass(frozen=True, slots=True)
class Entry:
    """One line: its kind (`decision`, `attestation`), its body, and the hash that the next line must name."""

    kind: str
    body: dict[str, Any]
    hash: str


def _line(previous: str, kind: str, body: dict[str, Any]) -> tuple[str, bytes]:
    content = json.dumps({"previous": previous, "kind": kind, "body": body}, sort_keys=True, separators=(",", ":"))
    digest = to_hex(keccak(content.encode()))
    return digest, (json.dumps({"hash": digest, "entry": json.loads(content)}, sort_keys=True) + "\n").encode()


class AuditLog:
    """One engine's log. Several processes may append to the same file."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def append(self, kind: str, body: dict[str, Any], check: Callable[[Sequence[Entry]], None] = lambda _: None) -> str:
        """Add a line and force it to the disk. Returns its hash. Raises SetupError when the chain is broken.

        `check` sees every line before, under the lock; when it raises, nothing is written. A last line that a crash left half-written
        was never acted upon; it is cut off.
        """
        self.path.parent.mkdir(parents=True, exist_ok=True)
        with self.path.open("a+b") as stream:
            fcntl.flock(stream, fcntl.LOCK_EX)
            stream.seek(0)
            read = list(self._read(stream))
            check([entry for entry, _ in read])
            previous, end = (read[-1][0].hash, read[-1][1]) if read else (GENESIS, 0)
            stream.truncate(end)
            digest, line = _line(previous, kind, body)
            stream.write(line)
            stream.flush()
            os.fsync(stream.fileno())
            return digest

    def entries(self) -> list[Entry]:
        """Every line, checked. Raises SetupError naming the first line that does not fit."""
        if not self.path.exists():
            return []
        with self.path.open("rb") as stream:
            fcntl.flock(stream, fcntl.LOCK_SH)
            return [entry for entry, _ in self._read(stream)]

    def _read(self, stream: BinaryIO) -> Iterator[tuple[Entry, int]]:
        """Entries, each with the offset behind it. Stops before an unfinished last line."""
        previous, end = GENESIS, 0
        for number, raw in enumerate(stream, start=1):
            if not raw.endswith(b"\n"):
                return
            try:
                line = json.loads(raw)
                entry = line["entry"]
                digest, _ = _line(entry["previous"], entry["kind"], entry["body"])
            except (ValueError, KeyError, TypeError):
                raise self._broken(number, "it cannot be read") from None
            if digest != line["hash"] or entry["previous"] != previous:
                raise self._broken(number, "its hash does not fit: it, or a line before it, was changed or removed")
            previous, end = digest, end + len(raw)
            yield Entry(entry["kind"], entry["body"], digest), end

    def _broken(self, line: int, why: str) -> SetupError:
        return SetupError(
            f"the audit log {self.path} is broken at line {line}: {why}. Keep the file, restore a backup beside it"
        )
