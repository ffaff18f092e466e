"""`seawall trade` as a process: shown and judged first, signed only then."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from contracts.devnet.accounts import devnet_key
from tests.wallet.cli_rig import PASSPHRASE, Machine
from tests.wallet.keeper_rig import free_port
from tests.wallet.trading_floor import POLICY, Floor, floor_in

OPEN = ("trade", "open", "--side", "long", "--notional", "30000", "--collateral", "10000")


@pytest.fixture(scope="module")
async def floor(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Floor]:
    async with floor_in(tmp_path_factory.mktemp("floor")) as found:
        yield found


@pytest.fixture
def machine(floor: Floor, tmp_path: Path) -> Machine:
    return Machine.set_up(floor, tmp_path)


async def test_open_makes_the_account_opens_arms_and_close_closes(machine: Machine) -> None:
    account = (await machine.account())["address"]
    opened = await machine.run(*OPEN, "--yes", "--json")
    assert opened.code == 0, opened.err + opened.out
    assert opened.data["sent"]
    assert opened.data["paidBy"] == "paymaster"
    assert opened.data["decision"]["outcome"] == "allow"
    (fill,) = opened.data["fills"]
    assert float(fill["quote"]) == pytest.approx(30_000, rel=0.01)
    shown = (await machine.run("account", "show", "--json")).data
    assert shown["deployed"]
    assert shown["stops"][0]["status"] == "armed"
    (position,) = shown["positions"]
    assert float(position["size"]) == pytest.approx(float(fill["size"]))
    assert 0.2 < float(position["liquidationDistance"]) < 0.4
    table = await machine.run("account", "show")
    assert "armed" in table.out
    assert "at or below" in table.out
    closed = await machine.run("trade", "close", "--yes")
    assert closed.code == 0, closed.err + closed.out
    assert "paid by the paymaster" in closed.out
    assert (await machine.run("account", "show", "--json")).data["positions"] == []
    kinds = machine.engine_log(account)
    assert kinds.count("attestation") == 2


async def test_a_trailing_stop_is_armed_with_the_order_and_shown_with_its_best_price(machine: Machine) -> None:
    (machine.folder / "policy.yaml").write_text(POLICY.replace("drop: 12%", "trail: 12%\n      group: 4"))
    await machine.account()
    opened = await machine.run(*OPEN, "--yes")
    assert opened.code == 0, opened.err + opened.out
    shown = (await machine.run("account", "show", "--json")).data
    (stop,) = shown["stops"]
    assert (stop["status"], stop["when"], stop["group"]) == ("armed", "at or below", 4)
    assert float(stop["mark"]) == pytest.approx(float(shown["prices"]["ETH"]), rel=1e-9)
    assert float(stop["trigger"]) == pytest.approx(float(stop["mark"]) * 0.88, rel=1e-9)
    table = await machine.run("account", "show")
    assert "best so far" in table.out
    assert f"{float(stop['mark']):,.2f}" in table.out


async def test_a_refusal_exits_5_explains_itself_and_signs_nothing(machine: Machine) -> None:
    account = (await machine.account())["address"]
    before = await machine.floor.received()
    # No key can be opened with this: the refusal comes before anybody is asked for a passphrase.
    wrong = {"SEAWALL_PASSPHRASE_FILE": str(machine.folder / "no such file")}
    order = ("trade", "open", "--side", "long", "--notional", "45000", "--collateral", "10000", "--yes")
    answer = await machine.run(*order, env=wrong)
    assert answer.code == 5
    assert "DENY by policy floor 1" in answer.err
    assert "leverage" in answer.err
    assert answer.out == ""
    assert await machine.floor.received() == before
    assert machine.engine_log(account) == ["decision"]
    as_json = await machine.run(*order, "--json", env=wrong)
    assert as_json.code == 5
    assert as_json.data["error"]["data"]["outcome"] == "deny"


async def test_a_dry_run_needs_no_key_and_sends_nothing(machine: Machine) -> None:
    await machine.account()
    before = await machine.floor.received()
    env = {"SEAWALL_READ_ONLY": "true", "SEAWALL_PASSPHRASE_FILE": str(machine.folder / "no such file")}
    answer = await machine.run(*OPEN, "--dry-run", env=env)
    assert answer.code == 0, answer.err
    assert "nothing was signed" in answer.out
    assert await machine.floor.received() == before


async def test_a_read_only_profile_refuses_to_trade(machine: Machine) -> None:
    await machine.account()
    answer = await machine.run(*OPEN, "--yes", env={"SEAWALL_READ_ONLY": "true"})
    assert answer.code == 2
    assert "read-only" in answer.err


async def test_no_as_an_answer_sends_nothing(machine: Machine) -> None:
    await machine.account()
    before = await machine.floor.received()
    answer = await machine.run(*OPEN, stdin=b"n\n")
    assert answer.code == 130
    assert "ALLOW by policy floor 1" in answer.err
    assert await machine.floor.received() == before


async def test_yes_as_an_answer_judges_again_and_sends(machine: Machine) -> None:
    account = (await machine.account())["address"]
    answer = await machine.run(*OPEN, stdin=b"y\n")
    assert answer.code == 0, answer.err
    assert "filled +" in answer.out
    # judged for the question, again for the answer (kept once if no block came between), and with its final gas; then attested
    *judged, last = machine.engine_log(account)
    assert last == "attestation"
    assert judged in (["decision"] * 2, ["decision"] * 3)


async def test_a_wrong_passphrase_signs_nothing(machine: Machine) -> None:
    account = (await machine.account())["address"]
    (machine.folder / "phrase").write_text("not the passphrase\n")
    answer = await machine.run(*OPEN, "--yes")
    assert answer.code == 2
    assert "does not open key" in answer.err
    assert "attestation" not in machine.engine_log(account)


async def test_a_node_that_is_down_is_exit_code_4(machine: Machine) -> None:
    await machine.account()
    answer = await machine.run(*OPEN, "--yes", env={"SEAWALL_RPC_URL": f"http://127.0.0.1:{free_port()}"})
    assert answer.code == 4


async def test_a_bundler_that_is_down_is_exit_code_4(machine: Machine) -> None:
    await machine.account()
    answer = await machine.run(*OPEN, "--yes", env={"SEAWALL_BUNDLER_URL": f"http://127.0.0.1:{free_port()}"})
    assert answer.code == 4


async def test_an_account_without_policy_is_judged_by_nobody_and_says_so(machine: Machine) -> None:
    account = (await machine.account("--bare"))["address"]
    await machine.floor.deposit(account)
    answer = await machine.run(
        "trade", "open", "--side", "short", "--notional", "5000", "--collateral", "5000", "--yes", "--json"
    )
    assert answer.code == 0, answer.err + answer.out
    assert "nothing judges it" in answer.err
    assert answer.data["decision"] is None
    assert answer.data["paidBy"] == "account"


async def test_the_other_side_is_no_way_to_close(machine: Machine) -> None:
    await machine.account()
    assert (await machine.run(*OPEN, "--yes")).code == 0
    answer = await machine.run("trade", "open", "--side", "short", "--notional", "1000", "--yes")
    assert answer.code == 2
    assert "seawall trade close" in answer.err


async def test_a_larger_position_has_its_stop_moved_to_the_mean_entry(machine: Machine) -> None:
    await machine.account()
    first = ("trade", "open", "--side", "short", "--notional", "12000", "--collateral", "10000", "--yes")
    assert (await machine.run(*first)).code == 0
    before = (await machine.run("account", "show", "--json")).data
    assert (await machine.run("trade", "open", "--side", "short", "--notional", "6000", "--yes")).code == 0
    after = (await machine.run("account", "show", "--json")).data
    (stop,), index = after["stops"], float(after["prices"]["ETH"])
    assert stop["when"] == "at or above"
    assert float(after["positions"][0]["size"]) == pytest.approx(1.5 * float(before["positions"][0]["size"]), rel=0.01)
    held, ordered = float(before["positions"][0]["entryPrice"]), index
    mean = 18_000 / (12_000 / held + 6_000 / ordered)
    assert float(stop["trigger"]) == pytest.approx(mean * 1.12, rel=1e-4)


async def test_closing_nothing_is_said(machine: Machine) -> None:
    await machine.account()
    answer = await machine.run("trade", "close", "--yes")
    assert answer.code == 2
    assert "no position" in answer.err


@pytest.mark.parametrize("slippage", ["0%", "100%", "abc", "0.001%"])
async def test_a_senseless_slippage_is_refused(machine: Machine, slippage: str) -> None:
    answer = await machine.run("trade", "close", "--slippage", slippage)
    assert answer.code == 2
    assert "--slippage" in answer.err


async def test_no_secret_is_in_what_it_prints_or_writes(machine: Machine) -> None:
    await machine.account()
    answer = await machine.run(*OPEN, "--yes")
    assert answer.code == 0
    secrets = [devnet_key("owner").hex(), devnet_key("engine").hex(), PASSPHRASE]
    written = [path.read_bytes().decode("latin-1") for path in (machine.folder / "data").rglob("*") if path.is_file()]
    for secret in secrets:
        assert not any(secret in text for text in [answer.out, answer.err, *written])
