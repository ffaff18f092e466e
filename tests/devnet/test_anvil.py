"""Finding, starting and stopping anvil."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from pathlib import Path

import pytest

from contracts.devnet import Devnet, anvil
from contracts.errors import SetupError
from contracts.rpc import RpcClient

QUIET = ["--accounts", "0", "--chain-id", "1337"]
CHILD = """
import asyncio, os, sys
from contracts.devnet.anvil import Anvil, find_binary
async def main():
    async with await Anvil.start(find_binary().path, ["--accounts", "0"]) as node:
        print(node.pid, flush=True)
        await asyncio.sleep(600)
asyncio.run(main())
"""


def has_ended(pid: int) -> bool:
    """Whether the process is gone or only waits to be reaped."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] == "Z"
    except FileNotFoundError:
        return True


async def ends(pid: int) -> bool:
    for _ in range(500):
        if has_ended(pid):
            return True
        await asyncio.sleep(0.01)
    return False


async def test_a_taken_port_is_named(devnet: Devnet) -> None:
    port = int(devnet.rpc_url.rsplit(":", 1)[1])
    with pytest.raises(SetupError, match=f"Port {port} may be in use"):
        await anvil.Anvil.start(devnet.anvil.path, QUIET, port=port)


async def test_it_listens_on_the_loopback_and_is_gone_when_stopped(devnet: Devnet) -> None:
    async with await anvil.Anvil.start(devnet.anvil.path, QUIET) as node, RpcClient(node.url) as rpc:
        assert node.url == f"http://127.0.0.1:{node.port}"
        assert await rpc.chain_id() == 1337
        pid = node.pid
    assert has_ended(pid)


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGTERM, signal.SIGINT])
async def test_it_dies_with_its_parent_however_that_ends(devnet: Devnet, how: signal.Signals) -> None:
    assert devnet.pid
    parent = await asyncio.create_subprocess_exec(
        sys.executable, "-c", CHILD, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.DEVNULL
    )
    assert parent.stdout is not None
    pid = int(await parent.stdout.readline())
    assert not has_ended(pid)
    parent.send_signal(how)
    await parent.wait()
    assert await ends(pid)


def test_a_chosen_anvil_of_another_version_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    other = tmp_path / "anvil"
    other.write_text("#!/bin/sh\necho 'anvil Version: 1.2.3-stable'\n")
    other.chmod(0o755)
    monkeypatch.setenv("SEAWALL_ANVIL", str(other))
    with pytest.raises(SetupError, match=r"is version 1\.2\.3; the devnet is pinned to anvil 1\.7\.1"):
        anvil.find_binary()


def test_an_anvil_on_path_counts_only_in_the_pinned_version(
    devnet: Devnet, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    on_path = tmp_path / "anvil"
    on_path.symlink_to(devnet.anvil.path)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=os.pathsep)
    assert anvil.find_binary() == anvil.Binary(on_path, "PATH")
    on_path.unlink()
    on_path.write_text("#!/bin/sh\necho 'anvil Version: 1.2.3-stable'\n")
    on_path.chmod(0o755)
    assert anvil.find_binary().source.startswith("npm @foundry-rs/anvil")
