"""The shipped artifacts are what the sources compile to, and nobody changed them on the way."""

from __future__ import annotations

import json
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import contracts.compile as builds
from contracts import artifacts
from contracts.artifacts import artifact, lock_digest
from contracts.errors import ArtifactError, SetupError

SHIPPED = sorted(path.stem for path in builds.ARTIFACTS.glob("*.json") if path != builds.LOCK)


@pytest.fixture(scope="module")
def soljson() -> dict[str, dict[str, Any]]:
    """Everything, compiled by the npm compiler."""
    return builds.compile_contracts(builds.find_compiler(prefer="soljson"))


def test_sources_and_settings_are_the_locked_ones() -> None:
    builds.check_sources()


@pytest.mark.slow
def test_the_shipped_artifacts_are_what_the_sources_compile_to(soljson: dict[str, dict[str, Any]]) -> None:
    assert sorted(soljson) == SHIPPED
    for name, built in soljson.items():
        assert json.loads((builds.ARTIFACTS / f"{name}.json").read_text()) == built, name


@pytest.mark.slow
def test_a_native_compiler_gives_the_same_bytecode(soljson: dict[str, dict[str, Any]]) -> None:
    try:
        native = builds.find_compiler(prefer="native")
    except SetupError as reason:
        pytest.skip(str(reason))
    assert builds.compile_contracts(native) == soljson


def test_the_compiler_is_the_pinned_one() -> None:
    binary = builds.find_compiler(prefer="soljson").binary
    said = subprocess.run([str(binary), "--version"], capture_output=True, text=True, check=True).stdout
    assert f"Version: {builds.settings()['version']}+commit" in said


def test_the_lock_names_the_libraries_that_are_installed() -> None:
    assert json.loads(builds.LOCK.read_text())["libraries"] == builds.solidity_versions()


@pytest.mark.parametrize("name", SHIPPED)
def test_every_artifact_is_locked_and_deployable(name: str) -> None:
    found = artifact(name)
    assert found.bytecode
    assert found.deployed_bytecode
    assert len(found.deployed_bytecode) <= 24_576, "EIP-170"
    assert len(found.bytecode) <= 49_152, "EIP-3860"


def test_no_metadata_hash_ties_the_bytecode_to_a_path() -> None:
    for name in SHIPPED:
        assert b"ipfs" not in artifact(name).bytecode, name


@pytest.fixture
def copies(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The artifacts in a folder that a test may damage."""
    folder = tmp_path / "artifacts"
    shutil.copytree(builds.ARTIFACTS, folder)
    monkeypatch.setattr(artifacts, "ARTIFACTS", folder)
    monkeypatch.setattr(artifacts, "LOCK", folder / "lock.json")
    monkeypatch.setattr(builds, "LOCK", folder / "lock.json")
    forget()
    yield folder
    forget()


def forget() -> None:
    for cached in (artifacts._locked, artifact, lock_digest):
        cached.cache_clear()


def test_a_changed_artifact_is_refused(copies: Path) -> None:
    text = (copies / "VerifyingPaymaster.json").read_text()
    (copies / "VerifyingPaymaster.json").write_text(text.replace("6080", "6081", 1))
    with pytest.raises(ArtifactError, match="VerifyingPaymaster does not match its lock"):
        artifact("VerifyingPaymaster")


def test_a_missing_artifact_is_named(copies: Path) -> None:
    (copies / "VerifyingPaymaster.json").unlink()
    with pytest.raises(ArtifactError, match="VerifyingPaymaster is missing"):
        artifact("VerifyingPaymaster")


def test_an_unknown_contract_is_answered_with_those_there_are() -> None:
    with pytest.raises(ArtifactError, match="VerifyingPaymaster"):
        artifact("Nothing")


@pytest.mark.parametrize("damage", [None, "", "{", "[]", "{}"])
def test_a_missing_or_damaged_lock_is_named(copies: Path, damage: str | None) -> None:
    if damage is None:
        (copies / "lock.json").unlink()
    else:
        (copies / "lock.json").write_text(damage)
    with pytest.raises(ArtifactError, match=r"lock\.json"):
        artifact("VerifyingPaymaster")
    with pytest.raises(ArtifactError, match=r"lock\.json"):
        builds.check_sources()


def test_a_changed_source_is_named(copies: Path) -> None:
    lock = json.loads((copies / "lock.json").read_text())
    lock["sources"]["contracts/src/Gone.sol"] = "00"
    lock["sources"]["contracts/src/paymaster/VerifyingPaymaster.sol"] = "00"
    (copies / "lock.json").write_text(json.dumps(lock))
    with pytest.raises(ArtifactError, match=r"Gone\.sol.*VerifyingPaymaster\.sol"):
        builds.check_sources()


def test_changed_settings_are_named(copies: Path) -> None:
    lock = json.loads((copies / "lock.json").read_text())
    lock["compiler"]["optimizerRuns"] = 1
    (copies / "lock.json").write_text(json.dumps(lock))
    with pytest.raises(ArtifactError, match=r"compiler\.json"):
        builds.check_sources()


def test_the_digest_changes_with_the_lock(copies: Path) -> None:
    before = lock_digest()
    (copies / "lock.json").write_text("{}")
    forget()
    assert lock_digest() != before


def test_a_compiler_error_shows_what_the_compiler_says(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "Bad.sol").write_text("pragma solidity ^0.8.26;\ncontract Bad { uint x = true; }\n")
    monkeypatch.setattr(builds, "SOURCES", tmp_path)
    with pytest.raises(SetupError, match="not implicitly convertible"):
        builds.compile_contracts(builds.find_compiler(prefer="soljson"))


def test_two_contracts_of_one_name_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in "ab":
        (tmp_path / f"{name}.sol").write_text("pragma solidity ^0.8.26;\ncontract Same { }\n")
    monkeypatch.setattr(builds, "SOURCES", tmp_path)
    with pytest.raises(SetupError, match="two contracts are named Same"):
        builds.compile_contracts(builds.find_compiler(prefer="soljson"))


def test_a_build_writes_what_it_says_and_removes_what_is_gone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    sources, built = tmp_path / "src", tmp_path / "built"
    sources.mkdir()
    (sources / "One.sol").write_text("pragma solidity ^0.8.26;\ncontract One { }\n")
    for name, value in (("SOURCES", sources), ("ARTIFACTS", built), ("LOCK", built / "lock.json")):
        monkeypatch.setattr(builds, name, value)
    built.mkdir()
    (built / "Old.json").write_text("{}")
    compiler = builds.find_compiler(prefer="soljson")
    assert builds.build(compiler) == ["One"]
    assert sorted(path.name for path in built.iterdir()) == ["One.json", "lock.json"]
    builds.check_sources()
    first = (built / "lock.json").read_bytes()
    builds.build(compiler)
    assert (built / "lock.json").read_bytes() == first


def test_an_unknown_compiler_is_refused() -> None:
    with pytest.raises(SetupError, match="native or soljson"):
        builds.find_compiler(prefer="gcc")
