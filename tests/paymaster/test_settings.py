"""Settings: one precedence, every mistake named, no key in sight."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest
from eth_account import Account

from contracts.devnet.accounts import devnet_key
from contracts.entrypoint import V08
from contracts.eoa import Eoa
from contracts.errors import BadInput, InvalidFields, SetupError
from paymaster.settings import KeySource, from_mapping, load, open_signer
from tests.paymaster.rig import private_file, toml

KEY = devnet_key("paymaster_signer")
MINIMAL: dict[str, Any] = {
    "rpc_url": "http://127.0.0.1:8545",
    "ledger": "ledger.sqlite",
    "engines": ["0x" + "11" * 20],
    "risk_validator": "0x" + "22" * 20,
    "paymasters": {"v0.8": "0x" + "33" * 20},
    "budget": {"per_operation_wei": 1, "per_account_day_wei": 2, "total_wei": 3},
}


def test_a_minimal_file_listens_on_loopback_only() -> None:
    read = from_mapping(MINIMAL)
    assert read.host == "127.0.0.1"
    assert read.paymasters == ((V08.address, b"\x33" * 20),)


def test_environment_beats_file_and_command_line_beats_environment(tmp_path: Path) -> None:
    file = tmp_path / "p.toml"
    file.write_text(toml(MINIMAL | {"port": 1, "poll_s": 1.0}))
    environment = {
        "SEAWALL_PAYMASTER_PORT": "2",
        "SEAWALL_PAYMASTER_BUDGET__TOTAL_WEI": "9",
        "SEAWALL_PAYMASTER_POLL_S": "2",
    }
    read = load(file, environment, {"port": "3"})
    assert (read.port, read.poll_s, read.terms.budget.total_wei) == (3, 2.0, 9)


def test_lists_are_comma_separated_outside_the_file(tmp_path: Path) -> None:
    file = tmp_path / "p.toml"
    file.write_text(toml(MINIMAL))
    read = load(file, {"SEAWALL_PAYMASTER_ENGINES": f"0x{'44' * 20}, 0x{'55' * 20}"}, {})
    assert read.terms.engines == {b"\x44" * 20, b"\x55" * 20}


def test_amounts_above_64_bits_are_read_exactly() -> None:
    budget = {"per_operation_wei": 2**70, "per_account_day_wei": str(2**71), "total_wei": 2**72}
    read = from_mapping(MINIMAL | {"budget": budget}).terms.budget
    assert (read.per_operation_wei, read.per_account_day_wei, read.total_wei) == (2**70, 2**71, 2**72)


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"prot": 1}, "prot"),
        ({"budget": {"total_wei": 3}}, "per_operation_wei"),
        ({"budget": MINIMAL["budget"] | {"total_wei": -1}}, "budget.total_wei"),
        ({"budget": MINIMAL["budget"] | {"total_wei": 1.5}}, "total_wei"),
        ({"paymasters": {"v0.6": "0x" + "33" * 20}}, "v0.6"),
        ({"paymasters": {}}, "paymaster contract"),
        ({"engines": []}, "engine"),
        ({"engines": ["0x12"]}, "engines"),
        ({"policies": ["0x12"]}, "policies"),
        ({"port": 70_000}, "port"),
        ({"confirmations": -1}, "confirmations"),
        ({"limits": {"batch": 0}}, "limits.batch"),
        ({"validity_s": 0}, "validity_s"),
        ({"signer": {"key": "0x00"}}, "key"),
    ],
)
def test_a_mistake_is_named(change: dict[str, Any], named: str) -> None:
    with pytest.raises(BadInput, match=named):
        from_mapping(MINIMAL | change)


@pytest.mark.parametrize("missing", MINIMAL)
def test_what_is_missing_is_named(missing: str) -> None:
    with pytest.raises(BadInput, match=missing):
        from_mapping({name: value for name, value in MINIMAL.items() if name != missing})


def test_a_file_that_is_no_toml_is_named(tmp_path: Path) -> None:
    (tmp_path / "p.toml").write_text("port = = 1")
    with pytest.raises(BadInput, match=r"p\.toml"):
        load(tmp_path / "p.toml", {}, {})
    with pytest.raises(BadInput, match="nowhere"):
        load(tmp_path / "nowhere.toml", {}, {})


def test_a_wrong_checksum_is_caught() -> None:
    with pytest.raises(InvalidFields, match="checksum"):
        from_mapping(MINIMAL | {"risk_validator": "0xd8DA6BF26964AF9D7eEd9e03E53415D37aA96046"})


def test_a_setting_under_a_value_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "p.toml"
    file.write_text(toml(MINIMAL))
    with pytest.raises(BadInput, match="not a table"):
        load(file, {}, {"rpc_url.x": "1"})


def test_the_key_comes_from_a_private_file(tmp_path: Path) -> None:
    file = private_file(tmp_path / "k", f"0x{KEY.hex()}\n")
    assert open_signer(KeySource(key_file=file), {}).address == Eoa(KEY).address


def test_a_key_file_that_others_can_read_is_refused(tmp_path: Path) -> None:
    file = private_file(tmp_path / "k", KEY.hex())
    file.chmod(0o640)
    with pytest.raises(SetupError, match="chmod 600"):
        open_signer(KeySource(key_file=file), {})


def test_the_key_comes_from_an_open_descriptor() -> None:
    reader, writer = os.pipe()
    os.write(writer, KEY.hex().encode())
    os.close(writer)
    assert open_signer(KeySource(), {"SEAWALL_PAYMASTER_KEY_FD": str(reader)}).address == Eoa(KEY).address


def test_the_key_comes_from_a_keystore_with_its_password_in_a_file(tmp_path: Path) -> None:
    keystore = tmp_path / "store.json"
    keystore.write_text(json.dumps(Account.encrypt(KEY, "pass word", kdf="pbkdf2", iterations=1)))
    password = private_file(tmp_path / "password", "pass word\n")
    assert open_signer(KeySource(keystore=keystore, password_file=password), {}).address == Eoa(KEY).address
    wrong = private_file(tmp_path / "wrong", "word pass\n")
    with pytest.raises(SetupError, match="wrong password"):
        open_signer(KeySource(keystore=keystore, password_file=wrong), {})


@pytest.mark.parametrize("text", ["", "hello", KEY.hex()[:-2], "00" * 32, "ff" * 32])
def test_a_bad_key_is_refused_without_being_shown(tmp_path: Path, text: str) -> None:
    with pytest.raises(SetupError) as caught:
        open_signer(KeySource(key_file=private_file(tmp_path / "k", text)), {})
    assert not text or text not in str(caught.value)


@pytest.mark.parametrize("environment", [{}, {"SEAWALL_PAYMASTER_KEY_FD": "x"}, {"SEAWALL_PAYMASTER_KEY_FD": "9999"}])
def test_without_a_key_the_message_says_where_it_was_looked_for(environment: dict[str, str]) -> None:
    with pytest.raises(SetupError, match="KEY_FD"):
        open_signer(KeySource(), environment)
