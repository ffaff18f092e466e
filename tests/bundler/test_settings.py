"""Settings, the executor's key, and the process's exit codes."""

from __future__ import annotations

import asyncio
import json
import logging
import os
import sys
from pathlib import Path
from typing import Any

import pytest
from eth_account import Account

from bundler.__main__ import main
from bundler.keys import KeyDescriptor, KeyFile, Keystore, KeyVariable
from bundler.main import _JsonFormatter
from bundler.settings import Settings, read_environment, read_toml
from contracts.devnet.accounts import devnet_key
from contracts.entrypoint import V07, V08
from contracts.eoa import Eoa
from contracts.errors import BadInput, SetupError
from contracts.types import checksum
from tests.bundler.rig import Chain, process, serving, settings_for

KEY = devnet_key("settings")
BASE: dict[str, Any] = {"rpc_url": "http://127.0.0.1:1", "key_env": "K", "database": "x.sqlite"}


def test_values_come_from_plain_names() -> None:
    read = Settings.from_mapping(
        BASE
        | {"entry_points": [checksum(V07.address)], "port": "8080", "bundle_interval_s": 2, "require_profit": "true"}
    )
    assert (read.entry_points, read.port, read.bundle_interval_s, read.require_profit) == ((V07,), 8080, 2.0, True)
    assert read.executor_key == KeyVariable("K")
    assert Settings.from_mapping(BASE).entry_points == (V08, V07)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"prot": 1}, "unknown setting 'prot'"),
        ({"port": "eighty"}, "port must be a number"),
        ({"port": 1.5}, "port must be of type int"),
        ({"require_profit": "perhaps"}, "require_profit must be of type bool"),
        ({"key_file": "k"}, "exactly one source"),
        ({"key_env": None}, "exactly one source"),
        ({"keystore": "k"}, "go together"),
        ({"max_bundle_gas": 17_000_000}, "EIP-7825"),
        ({"resubmit_bump_percent": 5}, "at least 10"),
        ({"log_format": "xml"}, "text or json"),
        ({"entry_points": []}, "at least one entry point"),
        ({"entry_points": ["0x" + "11" * 20]}, "not supported"),
        ({"max_batch": 0}, "at least 1"),
        ({"poll_interval_s": 0}, "above 0"),
        ({"rpc_url": 5}, "rpc_url must be of type str"),
    ],
)
def test_wrong_setting_is_named(change: dict[str, Any], words: str) -> None:
    with pytest.raises(BadInput, match=words):
        Settings.from_mapping(BASE | change)


def test_missing_setting_is_named() -> None:
    with pytest.raises(BadInput, match="'rpc_url' is missing"):
        Settings.from_mapping({"key_env": "K", "database": "x"})


def test_toml_table_and_environment_are_read(tmp_path: Path) -> None:
    path = tmp_path / "seawall.toml"
    path.write_text('[bundler]\nport = 9\nentry_points = ["0x00"]\n')
    assert read_toml(path) == {"port": 9, "entry_points": ["0x00"]}
    environment = {"SEAWALL_BUNDLER_PORT": "7", "SEAWALL_BUNDLER_ENTRY_POINTS": "0x1, 0x2", "OTHER": "x"}
    assert read_environment(environment) == {"port": "7", "entry_points": ["0x1", "0x2"]}
    path.write_text("= nonsense")
    with pytest.raises(BadInput, match="cannot be read"):
        read_toml(path)


def test_key_comes_from_file_keystore_variable_or_descriptor(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    expected = Eoa(KEY).address
    file = tmp_path / "key"
    file.touch(mode=0o600)
    file.write_text("0x" + KEY.hex() + "\n")
    assert KeyFile(file).load().address == expected

    keystore, password = tmp_path / "keystore.json", tmp_path / "password"
    keystore.write_text(json.dumps(Account.encrypt(KEY, "secret words", iterations=2)))
    password.touch(mode=0o600)
    password.write_text("secret words\n")
    assert Keystore(keystore, password).load().address == expected

    monkeypatch.setenv("EXECUTOR", KEY.hex())
    assert KeyVariable("EXECUTOR").load().address == expected
    assert "EXECUTOR" not in os.environ

    reading, writing = os.pipe()
    os.write(writing, KEY.hex().encode())
    os.close(writing)
    assert KeyDescriptor(reading).load().address == expected


def test_key_problems_are_told_without_the_key(tmp_path: Path) -> None:
    file = tmp_path / "key"
    file.touch(mode=0o644)
    file.write_text(KEY.hex())
    with pytest.raises(SetupError, match="chmod 600"):
        KeyFile(file).load()
    file.chmod(0o600)
    file.write_text(KEY.hex()[:-2])
    with pytest.raises(BadInput, match="64 hex digits") as caught:
        KeyFile(file).load()
    assert KEY.hex()[:8] not in str(caught.value)
    with pytest.raises(SetupError, match="not set"):
        KeyVariable("SEAWALL_NO_SUCH_VARIABLE").load()
    with pytest.raises(SetupError, match="cannot be read"):
        KeyDescriptor(987).load()
    with pytest.raises(SetupError, match="cannot be read"):
        KeyFile(tmp_path / "missing").load()
    keystore, password = tmp_path / "keystore.json", tmp_path / "password"
    keystore.write_text(json.dumps(Account.encrypt(KEY, "right", iterations=2)))
    password.touch(mode=0o600)
    password.write_text("wrong")
    with pytest.raises(SetupError, match="password is wrong"):
        Keystore(keystore, password).load()


def test_bad_flags_exit_with_two(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--rpc-url", "http://127.0.0.1:1", "--database", "x", "--port", "eighty", "--key-env", "K"]) == 2
    assert "port must be a number" in capsys.readouterr().err


async def test_unreachable_node_ends_the_start_with_four(own_chain: Chain, tmp_path: Path) -> None:
    settings = settings_for(own_chain, tmp_path)
    assert isinstance(settings.executor_key, KeyFile)
    child = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "bundler", "--rpc-url", "http://127.0.0.1:1", "--node-wait-s", "0.3", "--port", "0",
        "--database", str(settings.database), "--key-file", str(settings.executor_key.path),
        stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE,
    )  # fmt: skip
    out, err = await asyncio.wait_for(child.communicate(), 20)
    assert (child.returncode, out) == (4, b"")
    assert b"no answer from http://127.0.0.1:1" in err


async def test_missing_entry_point_and_taken_port_are_setup_errors(own_chain: Chain, tmp_path: Path) -> None:
    async with serving(settings_for(own_chain, tmp_path)) as client:
        port = int(client.rpc.url.rpartition(":")[2])
        (tmp_path / "other").mkdir()
        with pytest.raises(SetupError, match="cannot listen"):
            async with serving(settings_for(own_chain, tmp_path / "other", port=port)):
                pass
    await own_chain.rpc.call("anvil_setCode", checksum(V07.address), "0x")
    with pytest.raises(SetupError, match=r"no entry point v0\.7"):
        async with serving(settings_for(own_chain, tmp_path)):
            pass


async def test_process_logs_json_without_secrets(own_chain: Chain, tmp_path: Path) -> None:
    settings = settings_for(own_chain, tmp_path, log_format="json")
    assert isinstance(settings.executor_key, KeyFile)
    key = settings.executor_key.path.read_text()
    async with process(settings) as running:
        op_hash = await running.client.send(await (await own_chain.account()).operation())
        await running.client.included(op_hash)
        lines = running.output().splitlines()
    assert any(op_hash.hex() in json.loads(line)["message"] for line in lines)
    assert not any(key in line for line in lines)


def test_json_log_line_has_time_level_and_exception() -> None:
    try:
        raise ValueError("broken")
    except ValueError:
        record = logging.getLogger("bundler.test").makeRecord(
            "bundler.test", logging.ERROR, "f", 1, "it %s", ("failed",), sys.exc_info()
        )
    fields = json.loads(_JsonFormatter().format(record))
    assert (fields["level"], fields["message"]) == ("error", "it failed")
    assert "ValueError: broken" in fields["exception"]
