"""Compile the Solidity sources through py-solc-x, and keep the shipped artifacts and their lock true to them.

A native compiler is used when solcx has, or can install, the pinned version; else the npm `solc` package (the same compiler
as JavaScript) behind the wrapper `contracts/solcjs.mjs`. Version, settings and so bytecode are the same; the lock proves it.
"""

from __future__ import annotations

import hashlib
import json
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from contracts.errors import ArtifactError, SetupError

ROOT = Path(__file__).resolve().parent
SOURCES = ROOT / "src"
ARTIFACTS = ROOT / "artifacts"
LOCK = ARTIFACTS / "lock.json"
WRAPPER = ROOT / "solcjs.mjs"
SETTINGS = ROOT / "compiler.json"


@dataclass(frozen=True, slots=True)
class Compiler:
    """A compiler that py-solc-x can drive. `kind` is "native" or "soljson"; both give the same bytecode."""

    kind: str
    binary: Path


def settings() -> dict[str, Any]:
    """The pinned compiler version and settings (contracts/compiler.json), shared with forge."""
    loaded: dict[str, Any] = json.loads(SETTINGS.read_text())
    return loaded


def node_modules() -> Path:
    """The npm tree with the Solidity libraries. Raises SetupError if `npm ci` has not been run."""
    for parent in (ROOT.parent, Path.cwd()):
        if (parent / "node_modules" / "@openzeppelin" / "contracts").is_dir():
            return parent / "node_modules"
    raise SetupError(
        "the Solidity libraries are missing: run `npm ci` in the repository (it needs Node.js 18 or later)"
    )


def find_compiler(*, prefer: str | None = None) -> Compiler:
    """A native compiler that solcx has or can install, else soljson. `prefer` forces "native" or "soljson".

    The choice can also be made by SEAWALL_SOLC=native|soljson. Raises SetupError when the forced one cannot be had.
    """
    import solcx
    from requests.exceptions import RequestException
    from solcx.exceptions import SolcInstallationError, SolcNotInstalled

    version = settings()["version"]
    prefer = prefer or os.environ.get("SEAWALL_SOLC")
    if prefer not in (None, "native", "soljson"):
        raise SetupError(f"SEAWALL_SOLC must be native or soljson, got {prefer!r}")
    reason = ""
    if prefer != "soljson":
        try:
            if version not in {str(v) for v in solcx.get_installed_solc_versions()}:
                solcx.install_solc(version)
            return Compiler("native", Path(solcx.install.get_executable(version)))
        except (SolcInstallationError, SolcNotInstalled, RequestException, OSError, ValueError) as error:
            reason = str(error)
    if prefer == "native":
        raise SetupError(f"no native solc {version} can be installed here ({reason}); use SEAWALL_SOLC=soljson")
    if not (node_modules() / "solc").is_dir():
        raise SetupError(f"the npm package solc@{version} is missing: run `npm ci` in the repository")
    return Compiler("soljson", WRAPPER)


def sources() -> dict[str, str]:
    """Our sources by their name from the repository root, `contracts/src/...`."""
    return {f"contracts/src/{p.relative_to(SOURCES).as_posix()}": p.read_text() for p in sorted(SOURCES.rglob("*.sol"))}


def compile_contracts(compiler: Compiler) -> dict[str, dict[str, Any]]:
    """Compile everything below `src`. Returns, by contract name, an artifact in the form that is shipped.

    Raises SetupError with the compiler's messages when it refuses the sources.
    """
    import solcx
    from solcx.exceptions import SolcError

    pinned = settings()
    modules = node_modules()
    request = {
        "language": "Solidity",
        "sources": {name: {"content": text} for name, text in sources().items()},
        "settings": {
            "evmVersion": pinned["evmVersion"],
            "viaIR": pinned["viaIR"],
            "optimizer": {"enabled": pinned["optimizer"], "runs": pinned["optimizerRuns"]},
            "metadata": pinned["metadata"],
            "remappings": pinned["remappings"],
            "outputSelection": {"*": {"*": ["abi", "evm.bytecode.object", "evm.deployedBytecode.object"]}},
        },
    }
    try:
        output = solcx.compile_standard(
            request,
            solc_binary=compiler.binary,
            base_path=str(modules.parent),
            allow_paths=[str(modules.parent)],
        )
    except SolcError as error:
        raise SetupError(f"solc refused the sources:\n{_messages(str(error.stdout_data))}") from error
    artifacts: dict[str, dict[str, Any]] = {}
    for source, contracts in output["contracts"].items():
        if not source.startswith("contracts/src/"):
            continue
        for name, body in contracts.items():
            if not body["evm"]["bytecode"]["object"]:
                continue  # an interface
            if name in artifacts:
                raise SetupError(f"two contracts are named {name}; artifacts are kept by name")
            artifacts[name] = {
                "contractName": name,
                "sourceName": source,
                "abi": body["abi"],
                "bytecode": "0x" + body["evm"]["bytecode"]["object"],
                "deployedBytecode": "0x" + body["evm"]["deployedBytecode"]["object"],
            }
    return artifacts


def _messages(answer: str) -> str:
    """The errors in solc's answer as it would print them."""
    try:
        errors = [e["formattedMessage"] for e in json.loads(answer)["errors"] if e["severity"] == "error"]
    except (ValueError, KeyError, TypeError):
        return answer[-4000:]
    return "\n".join(errors)


def solidity_versions() -> dict[str, str]:
    """The versions of the Solidity libraries that the sources import."""
    names = ("@openzeppelin/contracts", "@openzeppelin/contracts-upgradeable", "solady")
    return {name: json.loads((node_modules() / name / "package.json").read_text())["version"] for name in names}


def source_hashes() -> dict[str, str]:
    """sha256 of each source."""
    return {name: hashlib.sha256(text.encode()).hexdigest() for name, text in sources().items()}


def build(compiler: Compiler) -> list[str]:
    """Compile, and write the artifacts and their lock. Returns the contract names. Old artifacts go only once all is compiled."""
    artifacts = compile_contracts(compiler)
    ARTIFACTS.mkdir(exist_ok=True)
    for stale in ARTIFACTS.glob("*.json"):
        if stale.stem not in artifacts and stale != LOCK:
            stale.unlink()
    hashes = {}
    for name, artifact in sorted(artifacts.items()):
        text = json.dumps(artifact, indent=1, sort_keys=True) + "\n"
        (ARTIFACTS / f"{name}.json").write_text(text)
        hashes[name] = hashlib.sha256(text.encode()).hexdigest()
    lock = {
        "compiler": settings(),
        "libraries": solidity_versions(),
        "sources": source_hashes(),
        "artifacts": hashes,
    }
    LOCK.write_text(json.dumps(lock, indent=1, sort_keys=True) + "\n")
    return sorted(artifacts)


def read_lock() -> dict[str, Any]:
    """The lock: `compiler`, `libraries`, `sources`, `artifacts`. Raises ArtifactError when it is missing or damaged."""
    try:
        lock: dict[str, Any] = json.loads(LOCK.read_text())
        if not all(isinstance(lock[part], dict) for part in ("compiler", "libraries", "sources", "artifacts")):
            raise TypeError
    except (OSError, ValueError, KeyError, TypeError):
        raise ArtifactError(
            f"{LOCK} is missing or damaged: reinstall seawall, or run `seawall contracts build`"
        ) from None
    return lock


def check_sources() -> None:
    """Compare sources and settings with the lock, without compiling. Raises ArtifactError naming what differs."""
    lock = read_lock()
    if lock["compiler"] != settings():
        raise ArtifactError("contracts/compiler.json differs from the artifacts' lock: run `seawall contracts build`")
    now = source_hashes()
    changed = sorted(n for n in now.keys() | lock["sources"].keys() if now.get(n) != lock["sources"].get(n))
    if changed:
        raise ArtifactError(
            f"sources differ from the artifacts' lock ({', '.join(changed)}): run `seawall contracts build`"
        )
