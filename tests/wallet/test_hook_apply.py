"""`guards.hook` on the real devnet: installed by apply, it binds what the engine lets pass, and changes when the file does."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from contracts import bindings as b
from contracts.abi import Function
from contracts.bindings import MODULE_HOOK, Call
from contracts.eoa import TransactionSender
from contracts.errors import RpcError
from contracts.types import keccak, parse_address, to_hex
from tests.wallet.cli_rig import Machine
from tests.wallet.test_apply import ADMIN, FIRST, DeskOf, settings_of, trading
from tests.wallet.trading_floor import Floor, floor_in
from wallet.configuration import read_present
from wallet.desk import Desk

HOOK = """\
  hook:
    change_delay: 0s
    spending:
      - {token: usdc, limit: 15000, within: 1d}
      - {token: native, limit: 2, per: week, utc_offset: "+01:00"}
    approvals:
      - {token: usdc, spender: perp.vault, cap: 1000000}
"""
CHANGES = "  - {target: seawall.policy_hook, functions: [setRule, setWindows, setApproval, setSettings, announce]}\n"
HOOKED = (
    FIRST.replace('version: "1"', 'version: "2"')
    .replace("guards:\n", f"guards:\n{HOOK}")
    .replace(ADMIN, ADMIN + CHANGES)
)
DEPOSIT_CALL = Function.parse("deposit(address,uint256)")
DEPOSIT = ("trade", "open", "--side", "long", "--notional", "300", "--slippage", "2%", "--yes", "--collateral")


@pytest.fixture(scope="module")
async def floor(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Floor]:
    async with floor_in(tmp_path_factory.mktemp("floor")) as found:
        yield found


async def refusal(desk: Desk, calls: list[Call]) -> str:
    """Selector of the error with which the account refuses an execution that the entry point brings; empty when it does not."""
    try:
        await desk.rpc.eth_call(desk.account.address, b.encode_execute(calls), sender=desk.account.entry_point.address)
    except RpcError as error:
        return str(error.data)[:10]
    return ""


async def hooked(floor: Floor, folder: Path) -> Machine:
    """A machine with an open position whose account has the hook, and 50,000 USDC."""
    machine = await trading(floor, folder)
    account = parse_address((await machine.run("account", "show", "--json")).data["address"])
    deployer = TransactionSender(floor.net.rpc, floor.net.accounts.deployer, floor.net.chain_id)
    await deployer.transact(floor.net.addresses.usdc, b.MINT.encode(account, 50_000 * 10**6))
    (folder / "policy.yaml").write_text(HOOKED)
    planned = await machine.run("policy", "plan", "--json")
    assert any(key.startswith("module seawall.policy_hook") for key in settings_of(planned)), planned.out
    applied = await machine.run("policy", "apply", "--yes")
    assert applied.code == 0, applied.err
    assert "the chain is what the file says" in applied.out
    return machine


async def test_the_hook_is_installed_with_everything_and_holds_what_the_engine_lets_pass(
    floor: Floor, tmp_path: Path
) -> None:
    machine = await hooked(floor, tmp_path)
    assert (await machine.run("policy", "plan", "--exit-code")).code == 0
    async with DeskOf(machine) as (desk, _):
        account, a = desk.account.address, floor.net.addresses
        present = await read_present(desk.rpc, account, desk.book)
        assert (MODULE_HOOK, a.policy_hook) in present.modules
        assert present.hook is not None
        assert present.hook.enforces
        assert present.hook.authority == a.emergency_freeze
        assert len(present.hook.windows) == 2
        assert (bytes(20), b.INSTALL_MODULE.selector) in present.hook.rules
        # Whatever an engine attests: the entry point itself, carrying an execution that no rule names, is refused.
        stranger = floor.net.accounts.keeper.address
        for call, error in (
            (Call(a.usdc, b.TRANSFER.encode(stranger, 1)), "CallNotAllowed(address,bytes4)"),
            (Call(a.usdc, b.APPROVE.encode(stranger, 1)), "ConditionsFailed(address,bytes4)"),
            (
                Call(a.usdc, b.APPROVE.encode(a.perp_vault, 2**256 - 1)),
                "ApprovalNotAllowed(address,address,uint256,uint256)",
            ),
            (Call(account, b.UNINSTALL_MODULE.encode(1, a.risk_validator, b"")), "CallNotAllowed(address,bytes4)"),
            (Call(stranger, b"", 1), "CallNotAllowed(address,bytes4)"),
            (Call(a.perp_vault, DEPOSIT_CALL.encode(a.usdc, 5_000 * 10**6)), None),
            (
                Call(a.perp_vault, DEPOSIT_CALL.encode(a.usdc, 15_001 * 10**6)),
                "SpendingExceeded(address,uint256,uint256,uint256)",
            ),
        ):
            calls = [call]
            if call.target == a.perp_vault:
                calls.insert(0, Call(a.usdc, b.APPROVE.encode(a.perp_vault, DEPOSIT_CALL.decode_input(call.data)[1])))
            wanted = "" if error is None else to_hex(keccak(error.encode())[:4])
            assert await refusal(desk, calls) == wanted, error
    opened = await machine.run(*DEPOSIT, "4000")
    assert opened.code == 0, opened.err
    # 4,000 of 15,000 are spent; what the order would bring it to is refused by the chain, whose word the engine takes.
    refused = await machine.run(*DEPOSIT, "12000")
    assert refused.code == 5
    assert "reverts" in refused.err
    closed = await machine.run("trade", "close", "--slippage", "2%", "--yes")
    assert closed.code == 0, closed.err


async def test_the_hook_follows_the_file_its_spending_in_an_operation_of_its_own(floor: Floor, tmp_path: Path) -> None:
    machine = await hooked(floor, tmp_path)
    text = (
        HOOKED.replace("limit: 15000", "limit: 20000")
        .replace('version: "2"', 'version: "3"')
        .replace("cap: 1000000", "cap: 500000")
        .replace("functions: [deposit, withdraw]", "functions: [deposit]")
    )
    (tmp_path / "policy.yaml").write_text(text)
    planned = await machine.run("policy", "plan")
    assert "~ hook spending: 1 15000000000 units" in planned.out
    assert "-> 20000000000 units" in planned.out
    assert "- hook allows perp.vault" in planned.out
    before = await floor.received()
    applied = await machine.run("policy", "apply", "--yes")
    assert applied.code == 0, applied.err
    assert await floor.received() == before + 2
    assert (await machine.run("policy", "plan", "--exit-code")).code == 0


async def test_with_a_delay_changes_are_announced_at_the_hook_and_carried_out_later(
    floor: Floor, tmp_path: Path
) -> None:
    machine = await hooked(floor, tmp_path)
    slow = HOOKED.replace("change_delay: 0s", "change_delay: 2h").replace('version: "2"', 'version: "3"')
    (tmp_path / "policy.yaml").write_text(slow)
    applied = await machine.run("policy", "apply", "--yes")
    assert applied.code == 0, applied.err
    assert (await machine.run("policy", "plan", "--exit-code")).code == 0
    looser = slow.replace("limit: 15000", "limit: 90000").replace('version: "3"', 'version: "4"')
    (tmp_path / "policy.yaml").write_text(looser)
    announced = await machine.run("policy", "apply", "--yes")
    assert announced.code == 0, announced.err
    assert "announced; apply again when the delay is over" in announced.out
    early = await machine.run("policy", "apply", "--yes")
    assert early.code == 2
    assert "waits until" in early.err
    await floor.net.rpc.call("evm_increaseTime", 2 * 3600 + 60)
    await floor.net.rpc.call("evm_mine")
    await floor.net.market.heartbeat()
    last = await machine.run("policy", "apply", "--yes")
    assert last.code == 0, last.err + last.out
    assert (await machine.run("policy", "plan", "--exit-code")).code == 0


async def test_an_account_is_born_with_the_hook_and_trades_under_it(floor: Floor, tmp_path: Path) -> None:
    machine = await trading(floor, tmp_path, HOOKED)
    assert (await machine.run("policy", "plan", "--exit-code")).code == 0
    async with DeskOf(machine) as (desk, _):
        present = await read_present(desk.rpc, desk.account.address, desk.book)
        assert present.hook is not None
        assert (bytes(20), b.INSTALL_MODULE.selector) in present.hook.rules
        sent = [Call(floor.net.addresses.usdc, b.TRANSFER.encode(floor.net.accounts.keeper.address, 1))]
        assert await refusal(desk, sent) == to_hex(keccak(b"CallNotAllowed(address,bytes4)")[:4])
    closed = await machine.run("trade", "close", "--slippage", "2%", "--yes")
    assert closed.code == 0, closed.err
