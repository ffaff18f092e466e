"""Built chains in the cache: an entry is one folder, written beside its place and renamed, and checked whenever it is read."""

from __future__ import annotations

import fcntl
import gzip
import hashlib
import json
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from contracts import artifacts
from contracts.devnet import packages
from contracts.devnet.addresses import Addresses
from contracts.errors import InvalidFields

_HERE = Path(__file__).parent
_BUILD_SOURCES = (
    "accounts.py", "addresses.py", "aave_v3.py", "build.py", "chain.py", "entry_points.py", "feeds.py", "lyra.py",
    "lyra_settings.py", "op_stack.py", "perp_v2.py", "tokens.py", "uniswap_v3.py",
)  # fmt: skip
_KEPT = 12
"""Entries kept; older ones go when a new one is written."""


@dataclass(frozen=True, slots=True)
class State:
    """A built chain: anvil's state file, where everything is on it, and the time of its last block (unix s)."""

    file: Path
    addresses: Addresses
    last_block_s: int


def state_key(price_wad: int, first_bar_s: int, *, boards: bool = True) -> str:
    """Changes with everything that the built chain depends on: packages, our artifacts, the code that builds, price, time and whether
    option boards are open."""
    digest = hashlib.sha256()
    parts = [
        packages.LOCK.read_bytes(),
        artifacts.lock_digest().encode(),
        f"{price_wad} {first_bar_s} {boards}".encode(),
    ]
    parts += [(_HERE / name).read_bytes() for name in _BUILD_SOURCES]
    parts.append((_HERE.parent / "deploy.py").read_bytes())
    for part in parts:
        digest.update(hashlib.sha256(part).digest())
    return digest.hexdigest()[:32]


def _folder(key: str) -> Path:
    return packages.cache_dir() / "devnet" / key


def load(key: str) -> State | None:
    """The entry, or None if there is none or it is damaged in any way; a damaged one is removed."""
    folder = _folder(key)
    try:
        about = json.loads((folder / "about.json").read_text())
        file = folder / "state.json"
        with file.open("rb") as content:
            if hashlib.file_digest(content, "sha256").hexdigest() != about["sha256"]:
                raise ValueError("the state file has changed")
        found = State(file, Addresses.from_json(about["addresses"]), int(about["last_block_s"]))
        os.utime(folder)
        return found
    except FileNotFoundError:
        return None
    except (OSError, ValueError, KeyError, TypeError, InvalidFields):
        shutil.rmtree(folder, ignore_errors=True)
        return None


def save(key: str, dump: bytes, addresses: Addresses, last_block_s: int) -> State:
    """Write an entry from what `anvil_dumpState` returned. Oldest entries beyond the last dozen are removed."""
    folder = _folder(key)
    folder.parent.mkdir(parents=True, exist_ok=True)
    fresh = Path(tempfile.mkdtemp(prefix=".writing-", dir=folder.parent))
    content = gzip.decompress(dump)
    (fresh / "state.json").write_bytes(content)
    about = {
        "sha256": hashlib.sha256(content).hexdigest(),
        "last_block_s": last_block_s,
        "addresses": addresses.to_json(),
    }
    (fresh / "about.json").write_text(json.dumps(about, indent=1) + "\n")
    shutil.rmtree(folder, ignore_errors=True)
    fresh.rename(folder)
    entries = sorted(folder.parent.glob("[0-9a-f]*"), key=lambda entry: entry.stat().st_mtime, reverse=True)
    for old in entries[_KEPT:]:
        shutil.rmtree(old, ignore_errors=True)
    return State(folder / "state.json", addresses, last_block_s)


@contextmanager
def building(key: str) -> Iterator[None]:
    """Hold the right to build `key`: a second process waits here and then finds the entry. Ends with the process."""
    locks = packages.cache_dir() / "locks"
    locks.mkdir(parents=True, exist_ok=True)
    with (locks / f"{key}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield
