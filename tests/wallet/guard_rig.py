"""What the tests of every guard on the real venues need: a keeper for one kind, ether for an account, and its settings against its policy's."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from contracts import bindings as b
from contracts.abi import Function
from contracts.devnet import devnet_key
from contracts.eoa import TransactionSender
from contracts.types import checksum
from policies.configuration import Change, Wanted, differences
from tests.wallet.keeper_rig import Process, until
from tests.wallet.trading_floor import Floor, Trader, book_on
from wallet.configuration import read_present, read_sizes

WETH_DEPOSIT = Function.parse("deposit()")


def keeper_of(floor: Floor, folder: Path, guard: str, from_block: int) -> Process:
    """A keeper that watches the triggers of one module."""
    secret = folder / "keeper.key"
    secret.touch(mode=0o600)
    secret.write_text(devnet_key("keeper").hex())
    names = ("multicall3", guard, "session_validator")
    config = folder / "keeper.toml"
    config.write_text(
        f'rpc_url = "{floor.net.rpc_url}"\nbundler_url = "{floor.stage.bundler.url}"\n[addresses]\n'
        + "".join(f'{name} = "{checksum(getattr(floor.net.addresses, name))}"\n' for name in names)
        + f'[keeper]\nguard = "{guard}"\nsession_key_file = "{secret}"\ndb = "{folder / "keeper.db"}"\n'
        f"poll_ms = 20\nfrom_block = {from_block}\n"
    )
    return Process("wallet.keeper", ["--config", str(config)], folder)


async def executed(keeper: Process, what: str, *, after: int = 0) -> dict[str, Any]:
    """What the keeper says of the first execution after the first `after` ones, once there is one."""

    async def ask() -> list[dict[str, Any]]:
        return [fact for fact in keeper.facts() if fact["event"] == "executed"][after:]

    (first, *_) = await until(ask, what, keeper)
    return first


async def give_weth(floor: Floor, trader: Trader, amount_wei: int) -> None:
    """Wrapped ether for the account."""
    a = floor.net.addresses
    deployer = TransactionSender(floor.net.rpc, floor.net.accounts.deployer, floor.net.chain_id)
    await deployer.transact(a.weth, WETH_DEPOSIT.encode(), value=amount_wei)
    await deployer.transact(a.weth, b.TRANSFER.encode(trader.address, amount_wei))


async def settle(floor: Floor, seconds: int) -> None:
    """Let that much time pass, so that the venues' means come to their prices."""
    await floor.net.rpc.call("evm_increaseTime", seconds)
    await floor.net.rpc.call("evm_mine")


async def perform(trader: Trader, calls: list[b.Call]) -> None:
    """One operation of the account, judged by its policy, that succeeds."""
    sent = await trader.signer.submit(calls)
    receipt = await trader.signer.bundler.wait(sent.user_op_hash)
    assert receipt.success, receipt.reason.hex()


async def plan(trader: Trader) -> tuple[Change, ...]:
    """What stands between the account and its policy; positions of perps are left out."""
    net, book = trader.net, book_on(trader.net)
    present = await read_present(net.rpc, trader.address, book)
    sizes = await read_sizes(net.rpc, trader.address, trader.policy, book, present.block_number)
    return differences(Wanted(trader.policy, book, present, {}, sizes))
