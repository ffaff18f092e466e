"""People who trade on a devnet with plain transactions."""

from __future__ import annotations

from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from typing import Any

from contracts.abi import Function
from contracts.devnet import Bar, Devnet
from contracts.devnet.chain import FOREVER
from contracts.devnet.tokens import USDC
from contracts.eoa import Eoa, TransactionSender
from contracts.types import Address
from contracts.units import WAD


def start_at(bars: list[Bar]) -> AbstractAsyncContextManager[Devnet]:
    """A devnet that stands half an hour before the first bar, at its opening price."""
    return Devnet.start(price_wad=bars[0].open * 10**10, timestamp=bars[0].timestamp_s)


@dataclass(frozen=True, slots=True)
class Person:
    """An EOA with a devnet around it."""

    net: Devnet
    eoa: Eoa
    sender: TransactionSender

    async def do(self, to: Address, function: str, *args: object, value: int = 0) -> dict[str, Any]:
        return await self.sender.transact(to, Function.parse(function).encode(*args), value=value)

    async def ask(self, to: Address, function: str, *args: object) -> Any:
        parsed = Function.parse(function)
        values = parsed.decode(await self.net.rpc.eth_call(to, parsed.encode(*args), sender=self.eoa.address))
        return values[0] if len(values) == 1 else values

    async def deposit(self, usdc: int) -> None:
        """Margin for the perp, whole USDC."""
        where = self.net.addresses
        await self.do(where.usdc, "approve(address,uint256)", where.perp_vault, usdc * USDC)
        await self.do(where.perp_vault, "deposit(address,uint256)", where.usdc, usdc * USDC)

    def order(self, quote: int, *, short: bool = False) -> tuple[Address, bytes]:
        """Target and call data of a market order of `quote` vUSD."""
        where = self.net.addresses
        order = (where.perp_base_token, short, not short, quote * WAD, 0, FOREVER, 0, bytes(32))
        if short:
            order = (where.perp_base_token, True, False, quote * WAD, 2**255, FOREVER, 0, bytes(32))
        fn = Function.parse("openPosition((address,bool,bool,uint256,uint256,uint256,uint160,bytes32))")
        return where.perp_clearing_house, fn.encode(order)

    def close(self) -> tuple[Address, bytes]:
        """Target and call data that closes the whole position at any price."""
        where = self.net.addresses
        fn = Function.parse("closePosition((address,uint160,uint256,uint256,bytes32))")
        return where.perp_clearing_house, fn.encode((where.perp_base_token, 0, 0, FOREVER, bytes(32)))

    async def size_wad(self) -> int:
        where = self.net.addresses
        found: int = await self.ask(
            where.perp_account_balance,
            "getTakerPositionSize(address,address)(int256)",
            self.eoa.address,
            where.perp_base_token,
        )
        return found

    async def account_value_wad(self) -> int:
        where = self.net.addresses
        found: int = await self.ask(where.perp_clearing_house, "getAccountValue(address)(int256)", self.eoa.address)
        return found


def person(net: Devnet, eoa: Eoa) -> Person:
    """`eoa` as somebody on `net`."""
    return Person(net, eoa, TransactionSender(net.rpc, eoa, net.chain_id))
