"""Run forge from the npm tree, offline, with the compiler that the artifacts are built with."""

from __future__ import annotations

import os
import platform
import subprocess
from collections.abc import Sequence
from pathlib import Path

from contracts.compile import ROOT, find_compiler, node_modules
from contracts.errors import SetupError

_MACHINES = {"x86_64": "amd64", "amd64": "amd64", "aarch64": "arm64", "arm64": "arm64"}


def forge_binary() -> Path:
    """forge, from @foundry-rs/forge's package for this platform. Raises SetupError if it is missing."""
    machine = _MACHINES.get(platform.machine().lower(), platform.machine().lower())
    package = f"forge-{platform.system().lower()}-{machine}"
    binary = node_modules() / "@foundry-rs" / package / "bin" / "forge"
    if not binary.is_file():
        raise SetupError(
            f"{binary} is missing: run `npm ci` in the repository (packages for {package} are optional there)"
        )
    return binary


def run(arguments: Sequence[str]) -> int:
    """Run `forge ARGUMENTS` in the repository; its output goes to ours. Returns its exit code."""
    environment = {**os.environ, "FOUNDRY_SOLC": str(find_compiler().binary), "FOUNDRY_OFFLINE": "true"}
    binary = forge_binary()
    if not os.access(binary, os.X_OK):
        binary.chmod(0o755)  # npm does not keep the mode of files that no `bin` entry names
    return subprocess.run([str(binary), *arguments], cwd=ROOT.parent, env=environment, check=False).returncode
