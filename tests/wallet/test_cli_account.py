"""`seawall account` as a process: an address before there is an account, and what the account is afterwards."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from contracts.types import parse_address
from policies.document import load
from tests.wallet.cli_rig import Machine
from tests.wallet.trading_floor import POLICY, Floor, floor_in


@pytest.fixture(scope="module")
async def floor(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Floor]:
    async with floor_in(tmp_path_factory.mktemp("floor")) as found:
        yield found


@pytest.fixture
def machine(floor: Floor, tmp_path: Path) -> Machine:
    return Machine.set_up(floor, tmp_path)


def forget(file: str) -> None:
    Path(file).unlink()


def change(file: str) -> None:
    body = json.loads(Path(file).read_text())
    body["config"]["adminDelaySeconds"] = 0
    Path(file).write_text(json.dumps(body))


async def test_create_names_an_address_without_touching_the_chain_or_a_key(machine: Machine) -> None:
    env = {"SEAWALL_READ_ONLY": "true", "SEAWALL_PASSPHRASE_FILE": str(machine.folder / "no such file")}
    answer = await machine.run("account", "create", "--policy", "policy.yaml", "--json", env=env)
    assert answer.code == 0, answer.err
    found = answer.data
    assert found["policyId"] == "0x" + load(POLICY).policy_id.hex()
    assert [module["type"] for module in found["modules"]] == ["validator", "executor", "executor", "validator"]
    assert await machine.floor.net.rpc.get_code(parse_address(found["address"])) == b""
    assert found["file"].startswith(str(machine.folder / "data"))
    shown = (await machine.run("account", "show", "--json")).data
    assert not shown["deployed"]
    assert shown["address"] == found["address"]
    assert shown["state"] == "ACTIVE"


async def test_create_with_deploy_puts_it_on_chain_with_policy_and_guardians(machine: Machine) -> None:
    found = await machine.account("--deploy", usdc=250)
    assert found["transaction"] is not None
    shown = (await machine.run("account", "show", found["address"], "--json")).data
    assert shown["deployed"]
    assert shown["policy"] == {"id": found["policyId"], "epoch": 1, "name": "floor 1"}
    assert shown["balances"]["USDC"] == "250"
    assert shown["freeze"]["guardians"] == 3
    assert shown["freeze"]["quorum"] == 2
    assert shown["stops"] == [
        {"id": 1, "status": "none", "trigger": "0", "when": "at or above", "dueSince": 0, "mark": None, "group": 0}
    ]


async def test_deploying_needs_a_profile_that_may_sign(machine: Machine) -> None:
    answer = await machine.run("account", "create", "--deploy", env={"SEAWALL_READ_ONLY": "true"})
    assert answer.code == 2
    assert "read-only" in answer.err


async def test_two_accounts_of_one_policy_have_two_addresses(machine: Machine) -> None:
    first, second = await machine.account(), await machine.account()
    assert first["address"] != second["address"]
    answer = await machine.run("account", "show")
    assert answer.code == 2
    assert first["address"] in answer.err


async def test_a_bare_account_has_no_policy(machine: Machine) -> None:
    found = await machine.account("--bare", "--deploy", "--salt", "mine")
    shown = (await machine.run("account", "show", "--json")).data
    assert found["modules"] == []
    assert shown["policy"] is None
    assert shown["validator"] is None
    assert (await machine.account("--bare", "--salt", "mine"))["address"] == found["address"]


async def test_show_finds_out_by_itself_what_an_account_is_that_it_did_not_create(
    machine: Machine,
) -> None:
    found = await machine.account("--deploy")
    forget(found["file"])
    shown = (await machine.run("account", "show", found["address"], "--json")).data
    assert shown["validator"] is not None
    assert shown["policy"]["epoch"] == 1


async def test_a_policy_that_names_somebody_without_address_says_what_to_do(machine: Machine) -> None:
    (machine.folder / "keys/guardian-3.json").unlink()
    answer = await machine.run("account", "create")
    assert answer.code == 2
    assert "guardian_3" in answer.err


async def test_a_registry_file_that_was_changed_is_found(machine: Machine) -> None:
    found = await machine.account()
    change(found["file"])
    answer = await machine.run("account", "show")
    assert answer.code == 2
    assert "describes another account" in answer.err


async def test_a_node_on_another_chain_is_refused(machine: Machine) -> None:
    answer = await machine.run("account", "create", env={"SEAWALL_CHAIN_ID": "10"})
    assert answer.code == 2
    assert "chain 1337" in answer.err
