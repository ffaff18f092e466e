"""The command line's frame: fast help, stable exit codes, data on stdout and words on stderr, JSON when asked."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from contracts.errors import BadInput, NodeUnreachable, OperationFailed, OperationRejected, Refused, SetupError
from wallet.cli.main import COMMANDS, main

HEAVY = ("web3", "eth_account", "aiohttp", "matplotlib", "coincurve", "solcx", "jsonschema", "yaml", "textual")


@pytest.fixture(autouse=True)
def somewhere_else(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """No test reads or writes this machine's own settings and keys."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "data"))
    for name in [name for name in os.environ if name.startswith("SEAWALL_")]:
        monkeypatch.delenv(name)
    return tmp_path


def python(code: str) -> str:
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    return done.stdout


def test_the_frame_imports_nothing_heavy() -> None:
    loaded = python("import sys, wallet.cli.main; print(*sorted({m.split('.')[0] for m in sys.modules}))").split()
    assert not set(HEAVY) & set(loaded)


def test_help_imports_nothing_heavy_and_no_command() -> None:
    loaded = python(
        "import sys, io, contextlib, wallet.cli.main as m\n"
        "with contextlib.redirect_stdout(io.StringIO()): m.main(['--help'])\n"
        "print(*sys.modules)"
    ).split()
    assert not set(HEAVY) & {name.split(".")[0] for name in loaded}
    assert {name for name in loaded if name.startswith("wallet.cli.")} == {"wallet.cli.main"}


def test_help_names_every_command(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--help"]) == 0
    out = capsys.readouterr().out
    assert all(f" {name} " in out for name in COMMANDS)


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_in_the_table_exists_and_explains_itself(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([name, "--help"]) == 0
    assert "Usage: seawall " + name in capsys.readouterr().out


def test_version_is_the_distribution_s(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--version"]) == 0
    assert capsys.readouterr().out.startswith("seawall 0.")


def test_a_mistyped_command_is_answered_with_the_nearest(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["kepper", "run"]) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert "'keeper'" in captured.err


def test_a_usage_error_is_json_when_json_is_asked_for(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["key", "show", "--json"]) == 2
    error = json.loads(capsys.readouterr().out)["error"]
    assert error["exit_code"] == 2
    assert "name" in error["message"].lower()


def test_an_error_says_what_to_do_on_stderr_and_leaves_stdout_empty(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["key", "show", "nobody"]) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.startswith("error: no key is named 'nobody'")


def test_an_error_is_one_json_document_when_json_is_asked_for(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["key", "show", "nobody", "--json"]) == 2
    captured = capsys.readouterr()
    assert captured.err == ""
    error = json.loads(captured.out)["error"]
    assert error["code"] == -32602
    assert error["exit_code"] == 2
    assert "no key is named 'nobody'" in error["message"]


@pytest.mark.parametrize(
    ("error", "code"),
    [(BadInput, 2), (SetupError, 3), (NodeUnreachable, 4), (Refused, 5), (OperationRejected, 6), (OperationFailed, 7)],
)
def test_exit_codes_are_those_of_the_documentation(error: type[BadInput], code: int) -> None:
    table = (Path(__file__).parents[2] / "docs" / "cli.md").read_text()
    assert error.exit_code == code
    assert f"| {code} |" in table


def test_config_show_gives_values_with_origins(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    (tmp_path / "seawall.toml").write_text('rpc_url = "http://project:1"\n')
    assert main(["config", "show", "--origin", "--json"]) == 0
    shown = json.loads(capsys.readouterr().out)
    assert shown["rpc_url"] == {"value": "http://project:1", "origin": f"{tmp_path}/seawall.toml:1"}
    assert shown["read_only"] == {"value": True, "origin": "default"}


def test_config_show_is_a_table_for_people(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["config", "show", "--origin"]) == 0
    out = capsys.readouterr().out
    assert "rpc_url" in out
    assert "default" in out


def test_another_settings_file_can_be_named(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    (tmp_path / "other.toml").write_text("chain_id = 7\n")
    assert main(["--config", "other.toml", "config", "show", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["chain_id"] == 7


def test_config_init_writes_a_read_only_profile_once(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    assert main(["config", "init"]) == 0
    written = (tmp_path / "seawall.toml").read_text()
    assert "\nread_only = true" in written
    assert main(["config", "init"]) == 2
    assert "never overwritten" in capsys.readouterr().err
    assert (tmp_path / "seawall.toml").read_text() == written


def passphrase_file(directory: Path) -> str:
    path = directory / "phrase"
    path.write_text("a long passphrase\n")
    path.chmod(0o600)
    return str(path)


def test_a_new_key_is_made_listed_and_shown(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    phrase = passphrase_file(tmp_path)
    assert main(["key", "new", "owner", "--passphrase-file", phrase, "--kdf-n", "2", "--json"]) == 0
    made = json.loads(capsys.readouterr().out)
    assert main(["key", "list", "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == [made]
    assert main(["key", "show", "owner", "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == made
    assert Path(made["path"]) == tmp_path / "data" / "seawall" / "keystore" / "owner.json"


def test_a_key_is_imported_from_a_private_file(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    (tmp_path / "raw").write_text("46" * 32)
    (tmp_path / "raw").chmod(0o600)
    arguments = [
        "key",
        "import",
        "owner",
        "--key-file",
        "raw",
        "--passphrase-file",
        passphrase_file(tmp_path),
        "--kdf-n",
        "2",
    ]
    assert main([*arguments, "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["address"] == "0x9d8A62f656a8d1615C1294fd71e9CFb3E4855A4F"


def test_no_command_takes_a_secret_as_an_argument(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["key", "import", "owner", "46" * 32]) == 2
    capsys.readouterr()
    for command in (["key", "new"], ["key", "import"], ["keeper", "run"]):
        main([*command, "--help"])
        out = capsys.readouterr().out
        assert "--passphrase " not in out
        assert "--private-key" not in out


def test_contracts_check_compares_sources_with_the_lock(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["contracts", "check", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["ok"] is True
