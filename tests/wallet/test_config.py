"""One profile from flags, environment and files, each value with its origin."""

from __future__ import annotations

import json
import tomllib
from pathlib import Path

import pytest

from contracts.errors import BadInput, SetupError
from contracts.types import checksum
from wallet.config import ADDRESS_NAMES, SETTINGS, Config, environment_name, resolve, starter

WETH = "0xC02aaA39b223FE8D0A0e5C4F27eAD9083C756Cc2"


class Places:
    """A project directory and a user file in a temporary place."""

    def __init__(self, root: Path) -> None:
        self.project = root / "project" / "seawall.toml"
        self.user = root / "user" / "config.toml"
        self.project.parent.mkdir()
        self.user.parent.mkdir()

    def resolve(
        self, flags: dict[str, object] | None = None, environment: dict[str, str] | None = None, **more: Path
    ) -> Config:
        return resolve(flags, environment=environment or {}, directory=self.project.parent, user_file=self.user, **more)


@pytest.fixture
def places(tmp_path: Path) -> Places:
    return Places(tmp_path)


def test_a_flag_beats_the_environment_beats_the_project_beats_the_user(places: Places) -> None:
    places.user.write_text('rpc_url = "http://user:1"\nchain_id = 1\n[keys]\nowner = "a"\n')
    places.project.write_text('\nrpc_url = "http://project:1"\nchain_id = 2\n')
    environment = {"SEAWALL_RPC_URL": "http://environment:1"}
    config = places.resolve({"rpc_url": "http://flag:1"}, environment)
    assert config.profile.rpc_url == "http://flag:1"
    assert places.resolve({"rpc_url": None}, environment).profile.rpc_url == "http://environment:1"
    assert places.resolve().profile.rpc_url == "http://project:1"
    assert config.profile.chain_id == 2
    assert config.profile.keys.owner == "a"
    assert config.profile.entry_point == "v0.8"
    assert {key: config.origins[key] for key in ("rpc_url", "chain_id", "keys.owner", "entry_point")} == {
        "rpc_url": "flag --rpc-url",
        "chain_id": f"{places.project}:3",
        "keys.owner": f"{places.user}:4",
        "entry_point": "default",
    }


def test_exported_books_are_files_by_venue(places: Places) -> None:
    places.project.write_text('exports = ["deribit=books/d.json", "dydx=/tmp/x.json"]')
    folder = places.project.parent
    assert places.resolve().profile.exports == (("deribit", folder / "books/d.json"), ("dydx", Path("/tmp/x.json")))  # noqa: S108


def test_a_new_profile_is_read_only(places: Places) -> None:
    assert places.resolve().profile.read_only
    places.project.write_text(starter())
    config = places.resolve()
    assert config.profile.read_only
    assert config.origins["read_only"].startswith(str(places.project))


def test_the_starter_file_names_every_setting_and_changes_none(places: Places) -> None:
    text = starter()
    uncommented = "\n".join(line.removeprefix("# ") for line in text.splitlines()[1:]).replace('"..."', '"x"')
    tree = tomllib.loads(uncommented)
    found = {k for k, v in tree.items() if not isinstance(v, dict)} | {
        f"{table}.{k}" for table, v in tree.items() if isinstance(v, dict) for k in v
    }
    assert found == {key for key in SETTINGS if not key.startswith("addresses.")}
    defaults = places.resolve().values
    places.project.write_text(text)
    assert places.resolve().values == defaults


@pytest.mark.parametrize(
    ("text", "line", "meant"),
    [
        ('\nrcp_url = "http://a"\n', 2, "rpc_url"),
        ('[keys]\nowner = "a"\n\nkeper = "b"\n', 4, "keys.keeper"),
        ("[keeper]\npoll_msec = 3\n", 2, "keeper.poll_ms"),
        ('chain_id = 1\n[adresses]\nweth = "0x"\n', 3, "addresses.weth"),
    ],
)
def test_an_unknown_key_is_an_error_with_its_line_and_the_nearest_known_one(
    places: Places, text: str, line: int, meant: str
) -> None:
    places.project.write_text(text)
    with pytest.raises(BadInput) as caught:
        places.resolve()
    assert f"{places.project}:{line}: unknown key" in str(caught.value)
    assert f"did you mean {meant!r}" in str(caught.value)


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ('rpc_url = "localhost"', "rpc_url must be an http:// or https:// address"),
        ("chain_id = -1", "chain_id must be an integer from 1"),
        ("chain_id = true", "chain_id must be an integer from 1"),
        ('read_only = "maybe"', "read_only must be true or false"),
        ('exports = ["deribit"]', "exports must be VENUE=FILE"),
        ('entry_point = "v0.6"', "entry_point must be one of v0.8, v0.7"),
        ('account = "0x12"', "account must have 20 bytes"),
        (f'account = "{WETH[:-1]}3"', "wrong checksum"),
        ("[keys]\nowner = 3", "keys.owner must be a non-empty text"),
    ],
)
def test_a_malformed_value_is_an_error_with_its_line(places: Places, text: str, problem: str) -> None:
    places.project.write_text(text)
    with pytest.raises(BadInput) as caught:
        places.resolve()
    assert problem in str(caught.value)
    assert str(caught.value).startswith(f"{places.project}:{len(text.splitlines())}: ")


def test_broken_toml_is_an_error_with_its_line(places: Places) -> None:
    places.project.write_text('rpc_url = "http://a"\nchain_id = = 3\n')
    with pytest.raises(BadInput, match="line 2"):
        places.resolve()


def test_a_private_key_in_place_of_a_name_is_refused_and_not_repeated(places: Places) -> None:
    secret = "46" * 32
    with pytest.raises(BadInput, match="looks like a private key") as caught:
        places.resolve(environment={"SEAWALL_KEYS_OWNER": secret})
    assert secret not in str(caught.value)


def test_relative_paths_start_where_they_were_written(places: Places) -> None:
    places.user.write_text('policy = "user.yaml"\n')
    assert places.resolve().profile.policy == places.user.parent / "user.yaml"
    places.project.write_text('policy = "sub/fund.yaml"\n')
    assert places.resolve().profile.policy == places.project.parent / "sub" / "fund.yaml"


def test_the_environment_reaches_every_setting(places: Places) -> None:
    assert environment_name("keeper.db") == "SEAWALL_KEEPER_DB"
    config = places.resolve(
        environment={
            "SEAWALL_READ_ONLY": "false",
            "SEAWALL_KEEPER_PORT": "9",
            "SEAWALL_ADDRESSES_WETH": WETH,
            "SEAWALL_KEEPER_BACKUP_BUNDLER_URLS": "http://a, http://b",
        }
    )
    assert not config.profile.read_only
    assert config.profile.keeper.port == 9
    assert checksum(config.profile.address("weth")) == WETH
    assert config.profile.keeper.backup_bundler_urls == ("http://a", "http://b")


def test_a_deployments_file_fills_in_what_nobody_set(places: Places) -> None:
    deployments = places.project.parent / "devnet.json"
    content = {
        "rpc_url": "http://devnet:1",
        "chain_id": 1337,
        "addresses": {"weth": WETH, "usdc": WETH, "made_by_a_newer_version": "0x00"},
        "accounts": {},
    }
    deployments.write_text(json.dumps(content))
    places.project.write_text(f'deployments = "devnet.json"\nchain_id = 5\n[addresses]\nusdc = "0x{"11" * 20}"\n')
    config = places.resolve()
    assert config.profile.rpc_url == "http://devnet:1"
    assert config.profile.chain_id == 5
    assert config.profile.addresses == {"weth": bytes.fromhex(WETH[2:]), "usdc": b"\x11" * 20}
    assert config.origins["addresses.weth"] == str(deployments)


def test_an_address_that_is_not_set_says_how_to_set_it(places: Places) -> None:
    with pytest.raises(BadInput, match=r"seawall devnet --json.*addresses\.stop_loss"):
        places.resolve().profile.address("stop_loss")


def test_a_file_that_was_asked_for_must_exist(places: Places) -> None:
    with pytest.raises(SetupError, match=r"nowhere\.toml"):
        places.resolve(project_file=places.project.parent / "nowhere.toml")


def test_address_names_are_those_of_the_devnet_and_of_what_an_operator_deploys() -> None:
    from dataclasses import fields

    from contracts.devnet import Addresses

    assert set(ADDRESS_NAMES) == {field.name for field in fields(Addresses)} | {"erc20_paymaster"}
