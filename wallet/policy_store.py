"""Policies this user has worked with, by id: an account names its policy by id alone, and only the old policy may judge what replaces it."""

from __future__ import annotations

import json
import os
from dataclasses import dataclass
from pathlib import Path

from contracts.types import Hash32, to_hex
from policies.canonical import canonical_bytes, policy_id
from policies.policy import Policy, build


@dataclass(frozen=True, slots=True)
class PolicyStore:
    """A folder of canonical documents, a file each. What a file says is believed only as far as its id goes."""

    folder: Path

    def keep(self, policy: Policy) -> None:
        """Write it once, whole or not at all."""
        path = self._path(policy.policy_id)
        if path.exists():
            return
        self.folder.mkdir(parents=True, exist_ok=True)
        partial = path.with_suffix(f".{os.getpid()}")
        document = json.loads(canonical_bytes(policy.document))
        with partial.open("w", encoding="utf-8") as stream:
            json.dump({"schema": policy.schema_version, "document": document}, stream, indent=1)
            stream.flush()
            os.fsync(stream.fileno())
        partial.replace(path)

    def find(self, wanted: Hash32) -> Policy | None:
        """The policy of that id; None when it was never kept here, or its file is not what it was."""
        try:
            body = json.loads(self._path(wanted).read_text(encoding="utf-8"))
            schema, document = int(body["schema"]), body["document"]
            return build(document) if policy_id(schema, document) == wanted else None
        except (OSError, ValueError, KeyError, TypeError):
            return None

    def _path(self, wanted: Hash32) -> Path:
        return self.folder / f"{to_hex(wanted)}.json"
