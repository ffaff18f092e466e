"""Where the analysers are, and how they are run.

They live in an environment of their own (`make` builds it from requirements-check.lock), because they pin versions of libraries that
we use in others.
"""

from __future__ import annotations

import os
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path

from contracts.compile import ROOT, find_compiler
from contracts.errors import SetupError
from contracts.forge import forge_binary

REPOSITORY = ROOT.parent
OUT = ROOT / "out"


def tool(name: str) -> Path:
    """The analyser `name` of the environment SEAWALL_CHECK_TOOLS (by default .venv-check). Raises SetupError when it is not there."""
    environment = Path(os.environ.get("SEAWALL_CHECK_TOOLS", REPOSITORY / ".venv-check"))
    binary = environment / "bin" / name
    if not binary.is_file():
        raise SetupError(f"{binary} is missing: run `make contracts-check`, which installs it")
    return binary


def run(
    command: Sequence[str | Path], *, extra: Mapping[str, str] | None = None, log: Path, cwd: Path = REPOSITORY
) -> subprocess.CompletedProcess[str]:
    """Run `command` with our forge and compiler at hand; what it says goes to `log`, too. Never raises for its exit code."""
    path = os.pathsep.join([str(forge_binary().parent), os.environ.get("PATH", "")])
    environment = {**os.environ, "FOUNDRY_SOLC": str(find_compiler().binary), "FOUNDRY_OFFLINE": "true"}
    environment |= {"PATH": path, "NO_COLOR": "1", **(extra or {})}
    done = subprocess.run(
        [str(part) for part in command], cwd=cwd, env=environment, check=False, capture_output=True, text=True
    )
    log.parent.mkdir(parents=True, exist_ok=True)
    log.write_text(f"{done.stdout}\n{done.stderr}")
    return done
