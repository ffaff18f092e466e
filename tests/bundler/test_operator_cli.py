"""`seawall bundler doctor` and `seawall bundler admin` as an operator types them, and which of several settings wins."""

from __future__ import annotations

import asyncio
import json
import os
import re
import shutil
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from bundler.keys import KeyFile
from contracts.types import Address, checksum, to_hex
from tests.bundler.rig import ROOT, Chain, serving, settings_for
from tests.bundler.test_operation import TOKEN, free_port


@pytest.fixture(scope="module")
async def chain(chain_state: tuple[Path, dict[str, Address]]) -> AsyncIterator[Chain]:
    async with Chain.start(*chain_state) as found:
        yield found


async def seawall(folder: Path, *arguments: str, **variables: str) -> tuple[int, str, str]:
    """Exit code, stdout and stderr of one command line, on a machine of its own."""
    child = await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        "wallet.cli",
        "bundler",
        *arguments,
        cwd=ROOT,
        env={k: v for k, v in os.environ.items() if not k.startswith(("SEAWALL_", "XDG_"))}
        | {"HOME": str(folder)}
        | variables,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    out, err = await asyncio.wait_for(child.communicate(), 60)
    assert child.returncode is not None
    return child.returncode, out.decode(), err.decode()


def config_file(chain: Chain, folder: Path, **extra: Any) -> Path:
    settings = settings_for(chain, folder)
    assert isinstance(settings.executor_key, KeyFile)
    values = {
        "rpc_url": settings.rpc_url,
        "key_file": str(settings.executor_key.path),
        "database": str(folder / "bundler.db"),
    } | extra
    path = folder / "bundler.toml"
    path.write_text("[bundler]\n" + "".join(f"{name} = {json.dumps(value)}\n" for name, value in values.items()))
    return path


async def test_the_doctor_ends_with_zero_or_one_and_a_flag_beats_a_variable_beats_the_file(
    chain: Chain, tmp_path: Path
) -> None:
    ports = [free_port() for _ in range(3)]
    config = config_file(chain, tmp_path, port=ports[0])
    flags = ("doctor", "--config", str(config), "--json")
    variable = {"SEAWALL_BUNDLER_PORT": str(ports[1])}
    runs = await asyncio.gather(
        seawall(tmp_path, *flags),
        seawall(tmp_path, *flags, **variable),
        seawall(tmp_path, *flags, "--port", str(ports[2]), **variable),
    )
    for (code, out, err), port in zip(runs, ports, strict=True):
        assert code == 0, err
        findings = {finding["what"]: finding for finding in json.loads(out)}
        assert findings["port"]["text"] == f"127.0.0.1:{port} is free"
        assert {finding["level"] for finding in findings.values()} == {"ok"}
    (tmp_path / "bundler.db").write_bytes(b"no database at all, and long enough to be looked at" * 100)
    code, out, _ = await seawall(tmp_path, "doctor", "--config", str(config))
    assert code == 1
    assert re.search(r"failed\s+database: .*\n\s+move it away", out)


async def test_the_operators_commands_reach_a_running_bundler_with_the_token_only(chain: Chain, tmp_path: Path) -> None:
    token, wrong = tmp_path / "token", tmp_path / "wrong"
    for path, text in ((token, TOKEN), (wrong, "another token entirely")):
        path.touch(mode=0o600)
        path.write_text(text)
    settings = settings_for(chain, tmp_path, admin_port=free_port(), admin_token_file=token)
    where = {"SEAWALL_BUNDLER_ADMIN_URL": f"http://127.0.0.1:{settings.admin_port}"}
    known = where | {"SEAWALL_BUNDLER_ADMIN_TOKEN_FILE": str(token)}
    async with serving(settings) as client:
        code, out, _ = await seawall(tmp_path, "admin", "pause", "--json", **known)
        assert (code, json.loads(out)["paused"]) == (0, True)
        account = await chain.account()
        op_hash = await client.send(await account.operation())
        code, out, err = await seawall(tmp_path, "admin", "ban", checksum(account.address), "--json", **known)
        assert (code, json.loads(out)["dropped"]) == (0, [to_hex(op_hash)]), err
        code, _, err = await seawall(tmp_path, "admin", "resume", "--token-file", str(wrong), **where)
        assert code == 2
        assert "token is missing or wrong" in err
        code, out, _ = await seawall(tmp_path, "admin", "status", **where)  # needs none
        assert code == 0
        assert "paused by the operator" in out


async def test_the_systemd_unit_is_one_that_systemd_takes(tmp_path: Path) -> None:
    analyze = shutil.which("systemd-analyze")
    if analyze is None:
        pytest.skip("no systemd-analyze on this machine")
    unit = tmp_path / "seawall-bundler.service"
    text = (ROOT / "docs/deploy/seawall-bundler.service").read_text()
    unit.write_text(text.replace("/opt/seawall/bin/seawall", "/bin/true"))  # it is installed there only on a server
    child = await asyncio.create_subprocess_exec(
        analyze, "verify", "--man=no", str(unit), stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT
    )
    out, _ = await asyncio.wait_for(child.communicate(), 30)
    about = [line for line in out.decode().splitlines() if unit.name in line]
    assert (child.returncode, about) == (0, [])
