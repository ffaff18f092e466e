"""Path 4 on the real devnet: a file is compared with an account, applied through a judged operation, and compared again."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from contracts import bindings as b
from contracts.bindings import Call
from contracts.errors import BadInput
from contracts.types import checksum, parse_address, to_hex
from policies.document import load
from tests.wallet.cli_rig import Machine
from tests.wallet.trading_floor import POLICY, Floor, floor_in
from wallet.apply import plan_of
from wallet.configuration import read_present
from wallet.desk import connect

ADMIN = """\
  - {target: seawall.risk_validator, functions: [setPolicy, setEngine, setThreshold, setQuorum, setEscapeDelay]}
  - {target: seawall.emergency_freeze, functions: [setGuardian, setQuorum, setGuard, setExit, setDelays]}
  - {target: seawall.stop_loss, functions: [arm, cancel]}
  - {target: seawall.session_validator, functions: [enableSession, revokeSession]}
  - {target: account, functions: [installModule, scheduleAdmin, executeAdmin]}
"""
FIRST = (
    POLICY.replace("  - {target: seawall.risk_validator, functions: [setPolicy]}\n", ADMIN)
    .replace("  - {target: seawall.stop_loss, functions: [arm], args: {id: 1}}\n", "")
    .replace("slippage: 1%\n      max", "slippage: 2%\n      max")
    .replace("max: 1%}", "max: 2%}")
)
SECOND = (
    FIRST.replace('version: "1"', 'version: "2"')
    .replace("max: 3.1", "max: 3.0")
    .replace("drop: 12%", "drop: 15%")
    .replace("guardian_3], quorum: 2, solo_freeze: 30m", "treasury], quorum: 1, solo_freeze: 20m")
    .replace("prefund_budget: 0.5", "prefund_budget: 0.25")
    .replace("exits:\n", "attestation: {engines: [engine, engine_2], threshold: 1, escape_delay: 3d}\nexits:\n")
    .replace("exits:\n", "approvals:\n  - {id: desk, signers: [guardian, treasury], quorum: 2}\nexits:\n")
    .replace("exits:\n", "exits:\n  - {target: perp.vault, function: deposit, args: {token: usdc}, in_frozen: true}\n")
)
OPEN = ("trade", "open", "--side", "long", "--notional", "20000", "--collateral", "10000", "--slippage", "2%", "--yes")


@pytest.fixture(scope="module")
async def floor(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Floor]:
    async with floor_in(tmp_path_factory.mktemp("floor")) as found:
        yield found


async def trading(floor: Floor, folder: Path, policy: str = FIRST) -> Machine:
    """A machine whose account has a position, armed stop and all, under the first policy."""
    machine = Machine.set_up(floor, folder)
    for name in ("treasury", "engine-2", "engine_2"):
        assert (await machine.run("key", "new", name)).code == 0
    (folder / "policy.yaml").write_text(policy)
    account = await machine.account()
    opened = await machine.run(*OPEN)
    assert opened.code == 0, opened.err
    with (folder / "seawall.toml").open("r+") as settings:
        text = settings.read()
        settings.seek(0)
        settings.write(f'account = "{account["address"]}"\n' + text)
    return machine


def settings_of(answer: Any) -> dict[str, str]:
    return {change["setting"]: change["kind"] for change in answer.data["changes"]}


async def test_a_new_account_is_what_its_file_says(floor: Floor, tmp_path: Path) -> None:
    machine = await trading(floor, tmp_path)
    found = await machine.run("policy", "plan", "--exit-code")
    assert found.code == 0, found.err + found.out
    assert found.out == "the chain is what the file says\n"
    shown = await machine.run("policy", "status", "--json", "--exit-code")
    assert shown.code == 0
    assert shown.data["inSync"]
    assert shown.data["stopsArmed"] == [1]
    assert len(shown.data["modules"]) == 4
    applied = await machine.run("policy", "apply", "--yes")
    assert "nothing to do" in applied.out


async def test_a_changed_file_is_planned_applied_under_the_old_policy_and_then_there_is_nothing_left(
    floor: Floor, tmp_path: Path
) -> None:
    machine = await trading(floor, tmp_path)
    (tmp_path / "policy.yaml").write_text(SECOND)
    planned = await machine.run("policy", "plan", "--exit-code", "--json")
    assert planned.code == 8
    kinds = settings_of(planned)
    changed = {"escape delay", "freeze delays", "guardians who thaw", "policy", "stop 1"}
    assert changed <= {key for key, kind in kinds.items() if kind == "change"}
    assert sum(kind == "change" and key.startswith("session") for key, kind in kinds.items()) == 1
    added = {key.split(" ")[0] for key, kind in kinds.items() if kind == "add"}
    assert added == {"engine", "guardian", "quorum", "exit"}
    assert {key.split(" ")[0] for key, kind in kinds.items() if kind == "remove"} == {"guardian"}
    assert list(kinds)[-1] == "policy"
    table = (await machine.run("policy", "plan")).out
    assert "~ freeze delays: solo freeze 30m -> 20m" in table
    before = machine.engine_log(planned.data["account"])
    applied = await machine.run("policy", "apply", "--yes", "--json")
    assert applied.code == 0, applied.err
    assert applied.data["inSync"]
    # The old policy judged it: its last decision names the first file's id.
    decided = machine.engine_log(planned.data["account"])[len(before) :]
    assert decided[-1] == "attestation"
    again = await machine.run("policy", "plan", "--exit-code")
    assert again.code == 0, again.out
    shown = await machine.run("policy", "status", "--json")
    assert shown.data["policy"]["onChain"] == to_hex(load(SECOND).policy_id)
    assert shown.data["policyEpoch"] == 2
    assert len(shown.data["engines"]) == 2
    # And from now on the new one judges.
    refused = await machine.run("trade", "open", "--side", "long", "--notional", "10500", "--slippage", "2%", "--yes")
    assert refused.code == 5
    assert "max 3.000x" in refused.err
    closed = await machine.run("trade", "close", "--slippage", "2%", "--yes")
    assert closed.code == 0, closed.err
    back = tmp_path / "first.yaml"
    back.write_text(FIRST)
    returned = await machine.run("policy", "apply", str(back), "--yes", "--json")
    assert returned.code == 0, returned.err
    assert returned.data["inSync"]


async def test_what_the_policy_in_force_does_not_allow_is_not_sent(floor: Floor, tmp_path: Path) -> None:
    without = FIRST.replace("setGuardian, ", "")
    machine = await trading(floor, tmp_path, without)
    before = await floor.received()
    (tmp_path / "policy.yaml").write_text(without.replace("guardian_3]", "treasury]").replace('"1"', '"2"', 1))
    refused = await machine.run("policy", "apply", "--yes")
    assert refused.code == 5
    assert "nothing allows the call seawall.emergency_freeze.setGuardian" in refused.err
    assert await floor.received() == before


async def test_the_old_policy_must_be_known(floor: Floor, tmp_path: Path) -> None:
    machine = await trading(floor, tmp_path)
    elsewhere = tmp_path / "elsewhere"
    (tmp_path / "policy.yaml").write_text(FIRST.replace('version: "1"', 'version: "2"'))
    alone = {"XDG_DATA_HOME": str(elsewhere)}
    unknown = await machine.run("policy", "apply", "--yes", env=alone)
    assert unknown.code == 2
    assert "name its file with --current" in unknown.err
    (tmp_path / "old.yaml").write_text(SECOND)
    wrong = await machine.run("policy", "apply", "--yes", "--current", "old.yaml", env=alone)
    assert wrong.code == 2
    assert "only that one may judge" in wrong.err
    (tmp_path / "old.yaml").write_text(FIRST)
    right = await machine.run("policy", "apply", "--yes", "--current", "old.yaml", env=alone)
    assert right.code == 0, right.err
    assert "the chain is what the file says" in right.out


async def test_drift_is_shown_and_taken_back(floor: Floor, tmp_path: Path) -> None:
    """Somebody opens an exit, arms a stop of his own and installs a module: each is named, and the file wins."""
    machine = await trading(floor, tmp_path)
    async with DeskOf(machine) as (desk, signer):
        a = floor.net.addresses
        exit_ = b.Exit(a.usdc, b.TRANSFER.selector, in_frozen=True)
        stop = (await read_present(desk.rpc, desk.account.address, desk.book)).stops[1]
        sneaked = [
            Call(a.emergency_freeze, b.SET_EXIT.encode(exit_.to_abi(), True)),
            Call(a.stop_loss, b.ARM_STOP.encode(7, stop)),
            Call(desk.account.address, b.INSTALL_MODULE.encode(2, a.risk_validator, b"")),
        ]
        sent = await signer.submit(sneaked[:2])
        assert (await signer.bundler.wait(sent.user_op_hash)).success
    shown = await machine.run("policy", "status", "--exit-code", "--json")
    assert shown.code == 8
    kinds = settings_of(shown)
    assert len(kinds) == 2
    assert kinds["stop 7"] == "remove"
    applied = await machine.run("policy", "apply", "--yes")
    assert applied.code == 0, applied.err
    assert (await machine.run("policy", "status", "--exit-code")).code == 0


async def test_what_must_be_announced_takes_two_runs_and_survives_stopping_between(
    floor: Floor, tmp_path: Path
) -> None:
    machine = await trading(floor, tmp_path)
    # Without guards.session the keeper's validator has no place on the account any more.
    text = FIRST.replace("  session: {key: keeper, prefund_budget: 0.5}\n", "").replace('version: "1"', 'version: "2"')
    (tmp_path / "policy.yaml").write_text(text)
    first = await machine.run("policy", "apply", "--yes")
    assert first.code == 0, first.err
    assert "announced; apply again when the delay is over" in first.out
    early = await machine.run("policy", "apply", "--yes")
    assert early.code == 2
    assert "waits until" in early.err
    planned = await machine.run("policy", "plan", "--json", "--exit-code")
    assert planned.code == 8
    (left,) = planned.data["changes"]
    assert left["announced"]
    assert left["dueAt"]
    await floor.net.rpc.call("evm_increaseTime", 48 * 3600 + 60)
    await floor.net.rpc.call("evm_mine")
    await floor.net.market.heartbeat()
    last = await machine.run("policy", "apply", "--yes")
    assert last.code == 0, last.err + last.out
    assert (await machine.run("policy", "plan", "--exit-code")).code == 0


async def test_a_frozen_account_is_compared_and_not_changed(floor: Floor, tmp_path: Path) -> None:
    machine = await trading(floor, tmp_path)
    assert (await machine.run("freeze", "--yes")).code == 0
    (tmp_path / "policy.yaml").write_text(FIRST.replace("drop: 12%", "drop: 14%"))
    shown = await machine.run("policy", "status", "--json")
    assert shown.data["state"] == "FROZEN"
    assert not shown.data["inSync"]
    refused = await machine.run("policy", "apply", "--yes")
    assert refused.code == 2
    assert "thaw it first" in refused.err


async def test_an_account_without_policy_gets_one(floor: Floor, tmp_path: Path) -> None:
    machine = Machine.set_up(floor, tmp_path)
    (tmp_path / "policy.yaml").write_text(FIRST)
    made = await machine.run("account", "create", "--bare", "--deploy", "--json")
    assert made.code == 0, made.err
    await machine.floor.deposit(made.data["address"])
    (tmp_path / "seawall.toml").write_text(
        "\n".join(line for line in (tmp_path / "seawall.toml").read_text().splitlines() if "paymaster" not in line)
    )
    planned = await machine.run("policy", "plan")
    assert planned.out.count("+ module seawall.") == 4
    first = await machine.run("policy", "apply", "--yes")
    assert first.code == 0, first.err
    assert "announced" in first.out
    shown = await machine.run("policy", "status", "--json")
    assert shown.data["policy"]["onChain"] == to_hex(load(FIRST).policy_id)
    assert [change["setting"] for change in shown.data["changes"]] == ["authority over the state"]
    # The owner alone is not enough from now on.
    assert (await machine.run("account", "show", "--json")).data["validator"] == checksum(
        floor.net.addresses.risk_validator
    )


async def test_what_cannot_be_compared_says_why(floor: Floor, tmp_path: Path) -> None:
    machine = Machine.set_up(floor, tmp_path)
    (tmp_path / "policy.yaml").write_text(FIRST)
    account = await machine.account()
    unborn = await machine.run("policy", "plan")
    assert unborn.code == 2
    assert "is not deployed: its first operation brings it to life" in unborn.err
    assert account["address"] in unborn.err
    away = await machine.run("policy", "plan", env={"SEAWALL_RPC_URL": "http://127.0.0.1:9"})
    assert away.code == 4
    (tmp_path / "policy.yaml").write_text("chains: [1]\n" + FIRST)
    other = await machine.run("policy", "plan")
    assert other.code == 2
    assert "is for chains" in other.err
    (tmp_path / "policy.yaml").write_text("limits: 3\n")
    assert (await machine.run("policy", "plan")).code == 2


async def test_a_range_of_logs_that_the_node_refuses_is_asked_in_halves(floor: Floor, tmp_path: Path) -> None:
    from contracts.errors import RpcError

    machine = await trading(floor, tmp_path)
    async with DeskOf(machine) as (desk, _):
        whole = await read_present(desk.rpc, desk.account.address, desk.book)
        asked = desk.rpc.logs

        async def short(address: Any, topics: Any, first: int, last: int) -> list[dict[str, Any]]:
            if last - first > 3:
                raise RpcError(-32005, "range too large")
            return await asked(address, topics, first, last)

        desk.rpc.logs = short  # type: ignore[method-assign]
        assert replace(await read_present(desk.rpc, desk.account.address, desk.book), time_s=0) == replace(
            whole, time_s=0
        )
        with pytest.raises(BadInput, match="multicall3"):
            await read_present(desk.rpc, parse_address("0x" + "11" * 20), {})
        plan = await plan_of(desk, load(FIRST))
        assert plan.in_sync


class DeskOf:
    """The machine's desk in this process, and its signer with both keys."""

    def __init__(self, machine: Machine) -> None:
        self.machine = machine

    async def __aenter__(self) -> Any:
        from wallet.config import resolve

        self.patch = pytest.MonkeyPatch()
        self.patch.chdir(self.machine.folder)
        self.patch.setenv("XDG_DATA_HOME", str(self.machine.folder / "data"))
        settings = resolve({}, environment={}, project_file=self.machine.folder / "seawall.toml").profile
        self.desk = connect(settings)
        desk = await self.desk.__aenter__()
        people = self.machine.floor.net.accounts
        return desk, desk.signer(people.owner, people.engine)

    async def __aexit__(self, *_: object) -> None:
        await self.desk.__aexit__(None, None, None)
        self.patch.undo()
