"""`seawall devnet`, `bundler run` and `keeper run` as people start them: from settings in one directory."""

from __future__ import annotations

import asyncio
import json
import signal
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from contracts.devnet import Devnet, devnet_key
from contracts.rpc import RpcClient
from tests.wallet.keeper_rig import ROOT, Process, Rig, rig_on
from wallet.cli.devnet import describe
from wallet.cli.main import main
from wallet.config import resolve


@pytest.fixture
async def rig(chain: Devnet, tmp_path: Path) -> AsyncIterator[Rig]:
    async with rig_on(chain, tmp_path) as rig:
        yield rig


async def test_the_devnet_command_prints_a_deployments_file_and_ends_on_sigterm(tmp_path: Path) -> None:
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "wallet.cli", "devnet", "--port", "0", "--json", "--keys", str(tmp_path / "keys"),
        "--deployments", str(tmp_path / "devnet.json"),
        stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.DEVNULL, cwd=ROOT,
    )  # fmt: skip
    assert process.stdout is not None
    printed = b""
    try:
        async with asyncio.timeout(300):  # the first start of all builds the chain
            while not printed.endswith(b"}\n}\n") and (line := await process.stdout.readline()):
                printed += line
        data = json.loads(printed)
        assert json.loads((tmp_path / "devnet.json").read_text()) == data
        flags: dict[str, object] = {"deployments": tmp_path / "devnet.json"}
        profile = resolve(flags, environment={}, directory=tmp_path, user_file=tmp_path / "none").profile
        async with RpcClient(profile.rpc_url) as rpc:
            assert await rpc.chain_id() == profile.chain_id
            assert await rpc.get_code(profile.address("stop_loss"))
        assert (tmp_path / "keys" / "owner.key").stat().st_mode & 0o777 == 0o600
    finally:
        process.send_signal(signal.SIGTERM)
        async with asyncio.timeout(20):
            code = await process.wait()
    assert code == 0


async def test_bundler_and_keeper_run_from_one_settings_file_and_the_keystore(
    rig: Rig, monkeypatch: pytest.MonkeyPatch
) -> None:
    directory = rig.directory
    monkeypatch.chdir(directory)
    await rig.create_account()
    (directory / "devnet.json").write_text(json.dumps(describe(rig.net)))
    phrase = rig._secret("phrase", b"a passphrase of some length")
    for name in ("keeper", "bundler"):
        arguments = ["--key-file", str(rig._secret(f"{name}.raw", devnet_key(name))), "--passphrase-file", str(phrase)]
        assert main(["key", "import", name, *arguments, "--keystore", "keys", "--kdf-n", "2"]) == 0
    bundler_db, keeper_db, file = (str(directory / name) for name in ("bundler.db", "keeper.db", "seawall.toml"))
    settings = 'deployments = "devnet.json"\nkeystore = "keys"\n[keys]\nkeeper = "keeper"\n'
    tables = f'[keeper]\npoll_ms = 20\nfrom_block = {rig.start_block}\ndb = "{keeper_db}"\n[bundler]\nport = 0\n'
    (directory / "seawall.toml").write_text(settings + tables)
    start, unlock = ["--config", file], ["--passphrase-file", str(phrase)]
    flags = ["--config", file, "--key", "bundler", "--database", bundler_db]
    bundler = Process("wallet.cli", [*start, "bundler", "run", *flags, *unlock], directory)
    rig.running.append(bundler)
    await bundler.start({"SEAWALL_BUNDLER_URL": "http://127.0.0.1:9"})  # a client's setting, none of the bundler's
    keeper = Process("wallet.cli", [*start, "keeper", "run", "--bundler-url", bundler.url, *unlock], directory)
    rig.running.append(keeper)
    await keeper.start()
    await rig.price(2_800)
    await rig.wait_fired(keeper)
    assert await keeper.stop() == 0
    assert await bundler.stop() == 0
