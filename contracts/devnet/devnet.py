"""`Devnet.start`: a chain with the real protocols on it, from the cache when it has been built before."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

from contracts.devnet import lyra, packages, state
from contracts.devnet.accounts import Accounts
from contracts.devnet.addresses import Addresses
from contracts.devnet.anvil import Anvil, Binary, find_binary
from contracts.devnet.build import GENESIS_LEAD_S, build_devnet
from contracts.devnet.chain import CHAIN_ID, sign
from contracts.devnet.market import Market
from contracts.errors import BadInput
from contracts.rpc import RpcClient
from contracts.types import parse_bytes
from contracts.units import WAD

DEFAULT_PRICE_WAD = 3_000 * WAD
MIN_PRICE_WAD, MAX_PRICE_WAD = WAD, 100_000 * WAD
_BUILT_FOR_WALL_CLOCK_S = 1_735_704_000
"""First bar of the state that a wall-clock devnet is loaded from: 2025-01-01 04:00 UTC. The clock then jumps to now."""
_SETTINGS = (
    "--accounts", "0",
    "--chain-id", str(CHAIN_ID),
    "--hardfork", "prague",
    "--order", "fifo",
    "--gas-limit", "60000000",
    "--prune-history", "64",
    "--no-mining",
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Devnet:
    """A running devnet. `warm`: it was loaded from the cache, nothing was deployed. `rpc` is for the holder of this object."""

    rpc_url: str
    rpc: RpcClient
    chain_id: int
    addresses: Addresses
    accounts: Accounts
    market: Market
    anvil: Binary
    pid: int
    warm: bool

    @staticmethod
    @asynccontextmanager
    async def start(
        port: int = 0, price_wad: int = DEFAULT_PRICE_WAD, timestamp: int | None = None
    ) -> AsyncIterator[Devnet]:
        """Start on 127.0.0.1:`port` (0: a free one), with ETH at `price_wad` USDC (1e18 = one).

        Without `timestamp` the chain's clock is the wall's. With it (unix s of the first bar of a replay, a whole minute) the chain
        stands half an hour before that bar and its clock runs on from there; the same inputs give the same chain, to the hash.
        Transactions are mined at once (`evm_setAutomine`) until the market driver takes over.
        Raises BadInput for a price outside 1..100,000, SetupError when anvil, npm or the packages cannot be had.
        """
        if not MIN_PRICE_WAD <= price_wad <= MAX_PRICE_WAD:
            raise BadInput(f"the price must be between 1 and 100000 USDC, got {price_wad / WAD:g}")
        first_bar_s = _BUILT_FOR_WALL_CLOCK_S if timestamp is None else timestamp
        if first_bar_s <= GENESIS_LEAD_S:
            raise BadInput(f"the first bar must be at least four hours after 1970, got {first_bar_s}")
        binary = await asyncio.to_thread(find_binary)
        accounts = Accounts.derive()
        found, warm = await _ready_state(binary, accounts, price_wad, first_bar_s, boards=timestamp is not None)
        arguments = [*_SETTINGS, "--load-state", str(found.file)]
        if timestamp is not None:
            arguments += ["--timestamp", str(found.last_block_s + 1)]
        async with await Anvil.start(binary.path, arguments, port=port) as anvil, RpcClient(anvil.url) as rpc:
            await rpc.call("anvil_setLoggingEnabled", False)
            market = Market(rpc, found.addresses, accounts)
            if timestamp is None:
                await market.heartbeat()
                await _open_boards(rpc, accounts, found.addresses, price_wad)
            await rpc.call("evm_setAutomine", True)
            yield Devnet(
                anvil.url, rpc, CHAIN_ID, found.addresses, accounts, market, binary, anvil.pid, warm
            )  # fmt: skip


async def _open_boards(rpc: RpcClient, accounts: Accounts, addresses: Addresses, price_wad: int) -> None:
    """List Lyra's boards on the wall's clock. Mines one block."""
    nonce = await rpc.get_nonce(accounts.deployer.address)
    now_s = int((await rpc.block())["timestamp"], 16)
    for i, call in enumerate(lyra.boards(price_wad, now_s)):
        transaction = sign(accounts.deployer, nonce + i, addresses.lyra_option_market, call)
        await rpc.call("eth_sendRawTransaction", transaction)
    await rpc.call("evm_mine")


async def _ready_state(
    binary: Binary, accounts: Accounts, price_wad: int, first_bar_s: int, *, boards: bool
) -> tuple[state.State, bool]:
    """The built chain from the cache, else built now. Returns it and whether it was there."""
    key = state.state_key(price_wad, first_bar_s, boards=boards)
    if (found := await asyncio.to_thread(state.load, key)) is not None:
        return found, True
    lock = state.building(key)
    await asyncio.to_thread(lock.__enter__)
    try:
        if (found := await asyncio.to_thread(state.load, key)) is not None:
            return found, True
        return await _build(binary.path, accounts, key, price_wad, first_bar_s, boards=boards), False
    finally:
        lock.__exit__(None, None, None)


async def _build(
    anvil_path: Path, accounts: Accounts, key: str, price_wad: int, first_bar_s: int, *, boards: bool
) -> state.State:
    await asyncio.to_thread(packages.fetch, packages.protocol_packages())
    arguments = [*_SETTINGS, "--timestamp", str(first_bar_s - GENESIS_LEAD_S)]
    async with await Anvil.start(anvil_path, arguments) as anvil, RpcClient(anvil.url, timeout_s=120) as rpc:
        await rpc.call("anvil_setLoggingEnabled", False)
        addresses = await build_devnet(rpc, accounts, first_bar_s, price_wad, boards=boards)
        head = await rpc.block()
        dump = parse_bytes(await rpc.call("anvil_dumpState"), "state")
    return await asyncio.to_thread(state.save, key, dump, addresses, int(head["timestamp"], 16))
