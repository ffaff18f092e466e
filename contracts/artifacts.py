"""The compiled contracts that ship with Seawall, checked against their lock when they are read."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from functools import cache
from typing import Any

from contracts.compile import ARTIFACTS, LOCK, read_lock
from contracts.errors import ArtifactError


@dataclass(frozen=True, slots=True)
class Artifact:
    """One contract: JSON ABI, creation code and runtime code."""

    name: str
    abi: list[dict[str, Any]]
    bytecode: bytes
    deployed_bytecode: bytes


@cache
def _locked() -> dict[str, str]:
    hashes: dict[str, str] = read_lock()["artifacts"]
    return hashes


@cache
def artifact(name: str) -> Artifact:
    """The artifact of contract `name`. Raises ArtifactError if it is unknown, missing or not the locked one."""
    expected = _locked().get(name)
    if expected is None:
        raise ArtifactError(f"no contract is named {name}; there are {', '.join(sorted(_locked()))}")
    try:
        text = (ARTIFACTS / f"{name}.json").read_bytes()
    except OSError:
        raise ArtifactError(
            f"the artifact of {name} is missing: reinstall seawall, or run `seawall contracts build`"
        ) from None
    if hashlib.sha256(text).hexdigest() != expected:
        raise ArtifactError(
            f"the artifact of {name} does not match its lock: reinstall seawall, or run `seawall contracts build`"
        )
    body = json.loads(text)
    return Artifact(name, body["abi"], bytes.fromhex(body["bytecode"][2:]), bytes.fromhex(body["deployedBytecode"][2:]))


@cache
def lock_digest() -> str:
    """sha256 of the lock: changes whenever any contract does."""
    return hashlib.sha256(LOCK.read_bytes()).hexdigest()
