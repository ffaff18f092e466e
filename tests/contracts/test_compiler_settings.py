"""forge and py-solc-x compile with the same settings, so Solidity tests run the bytecode that ships."""

from __future__ import annotations

import json
import tomllib
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]


def test_forge_compiles_with_the_settings_of_the_shipped_artifacts() -> None:
    pinned = json.loads((ROOT / "contracts" / "compiler.json").read_text())
    forge = tomllib.loads((ROOT / "foundry.toml").read_text())["profile"]["default"]
    assert forge["evm_version"] == pinned["evmVersion"]
    assert forge["via_ir"] == pinned["viaIR"]
    assert forge["optimizer"] == pinned["optimizer"]
    assert forge["optimizer_runs"] == pinned["optimizerRuns"]
    assert forge["bytecode_hash"] == pinned["metadata"]["bytecodeHash"]
    assert forge["cbor_metadata"] == pinned["metadata"]["appendCBOR"]
    assert forge["remappings"] == pinned["remappings"]
    assert forge["src"] == pinned["sources"]
