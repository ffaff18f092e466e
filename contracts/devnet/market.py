"""The market driver: replays one-minute bars through real trades.

Per bar two legs, the low and then the close (the low is left out where its wick is shorter than the perp's fee: nobody would trade
on it). In each leg the feed moves, an arbitrageur with its own funds moves the perp and the spot pool to the index, sixteen seconds
later the perp's mark price has caught up, keepers act, and a second later a liquidator takes whoever may be liquidated. Nothing is
set by cheat code: only the clock and the moment of mining are ours.

Automatic mining is off in a replay. Other processes may send transactions at any time: they are in the block that is mined next.
The same bars on the same devnet give the same transactions.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Collection, Iterable
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from contracts.abi import Event, Function
from contracts.bindings import decode_multicall, encode_multicall
from contracts.devnet import feeds, perp_v2
from contracts.devnet.accounts import Accounts
from contracts.devnet.addresses import Addresses
from contracts.devnet.bars import Bar
from contracts.devnet.chain import FOREVER, sign
from contracts.devnet.uniswap_v3 import EXACT_INPUT_SINGLE, SLOT0, SPOT_FEE_PIPS, sqrt_price_x96
from contracts.eoa import Eoa
from contracts.errors import BadInput
from contracts.rpc import RpcClient
from contracts.types import Address, parse_bytes, to_hex
from contracts.units import WAD

SETTLE_S = 16
"""From the quote to the block in which the perp's 15-second mean has reached it."""
ACT_S = 17
_LEG_S = 30
_USDC_UNIT = 10**6
_OVERSIZED = 10**30
"""More than any pool takes before its price limit."""
_GAS = 8_000_000
_STEP_NUMERATOR, _STEP_DENOMINATOR = 10_507, 10_000
"""sqrt(1.0001^988): the perp allows 1,000 ticks in 15 seconds."""

_GET_USER_ACCOUNT_DATA = Function.parse("getUserAccountData(address)(uint256,uint256,uint256,uint256,uint256,uint256)")
_GET_USER_RESERVE_DATA = Function.parse(
    "getUserReserveData(address,address)(uint256,uint256,uint256,uint256,uint256,uint256,uint256,uint40,bool)"
)
_LIQUIDATION_CALL = Function.parse("liquidationCall(address,address,address,uint256,bool)")
_AAVE_LIQUIDATED = Event.parse(
    "LiquidationCall(address indexed,address indexed,address indexed,uint256,uint256,address,bool)"
)
_BAD_DEBT = Event.parse("BadDebtSettled(address indexed,uint256)")


class Leg(StrEnum):
    """Which price of the bar the market is taken to."""

    LOW = "low"
    HIGH = "high"
    CLOSE = "close"


class Phase(StrEnum):
    """Where a leg stands when the callback runs; the next block is not mined before it returns."""

    QUOTED = "quoted"
    """The block at t: feed and pools have moved."""
    SETTLED = "settled"
    """The block at t+16: the mark price has caught up. Keepers act now; what they send is in the block at t+17."""
    DONE = "done"
    """The block at t+17: keepers' transactions and liquidations are in. Not mined when there are none."""


@dataclass(frozen=True, slots=True)
class Moment:
    """The market as of block `block` at `time_s`. `index_e8`: 1e8 = one USDC; prices `_wad`: 1e18 = one USDC."""

    bar: Bar
    leg: Leg
    phase: Phase
    block: int
    time_s: int
    index_e8: int
    mark_wad: int
    perp_wad: int
    spot_wad: int


@dataclass(frozen=True, slots=True)
class Liquidation:
    """One liquidation. Perp: base size and quote notional, both 1e18. Aave: collateral seized and debt covered, in raw units."""

    venue: str
    trader: Address
    block: int
    size: int
    notional: int
    penalty_wad: int = 0
    bad_debt: int = 0
    """What the insurance fund paid, USDC with 6 decimals."""


@dataclass(frozen=True, slots=True)
class BarReport:
    """What happened in one bar. Prices are those of its last settled moment."""

    bar: Bar
    first_block: int
    last_block: int
    index_e8: int
    mark_wad: int
    perp_wad: int
    spot_wad: int
    liquidations: tuple[Liquidation, ...]


OnPhase = Callable[[Moment], Awaitable[None]]


@dataclass(frozen=True, slots=True)
class _Reading:
    block: int
    block_hash: str
    time_s: int
    index_e8: int
    mark_wad: int
    perp_sqrt: int
    spot_sqrt: int
    liquidatable: tuple[tuple[str, Address], ...]
    nonces: dict[Address, int]


class Market:
    """Drives one devnet's market. One at a time; its four accounts (feeder, maker, arbitrageur, liquidator) are its own."""

    def __init__(self, rpc: RpcClient, addresses: Addresses, accounts: Accounts) -> None:
        self._rpc = rpc
        self._at = addresses
        self._accounts = accounts
        self._perp_watch: dict[Address, None] = {}
        self._aave_watch: dict[Address, None] = {}
        self._weth_is_token0 = addresses.weth < addresses.usdc
        self._settled_perp_sqrt: int | None = None
        self._reading: _Reading | None = None
        self._static_calls = [
            (addresses.feed_eth_usd, feeds.LATEST_ROUND_DATA.encode()),
            (addresses.perp_account_balance, perp_v2.GET_MARK_PRICE.encode(addresses.perp_base_token)),
            (addresses.perp_pool, SLOT0.encode()),
            (addresses.uniswap_pool, SLOT0.encode()),
        ]

    def watch_perp(self, trader: Address) -> None:
        """Have the liquidator look after this perp account."""
        self._perp_watch[trader] = None

    def watch_aave(self, borrower: Address) -> None:
        """Have the liquidator look after this Aave account."""
        self._aave_watch[borrower] = None

    async def step(self, bar: Bar) -> BarReport:
        """Replay one bar with nobody else acting."""
        return await self.advance(bar)

    async def replay(self, bars: Iterable[Bar], on_phase: OnPhase | None = None) -> AsyncIterator[BarReport]:
        """Replay bars in order."""
        for bar in bars:
            yield await self.advance(bar, on_phase)

    async def advance(
        self,
        bar: Bar,
        on_phase: OnPhase | None = None,
        *,
        legs: tuple[Leg, ...] | None = None,
        phases: Collection[Phase] = tuple(Phase),
    ) -> BarReport:
        """Replay one bar. Automatic mining is off from here on, until `release`.

        `on_phase` is awaited in each of `phases` of every leg; the driver waits for it (a phase left out saves a read, some 3 ms).
        The second leg is 30 s after the first. `legs` defaults to the low, unless its wick is within the perp's fee, and the close.
        Raises BadInput if the bar does not lie after the chain's latest block.
        """
        await self._rpc.call("evm_setAutomine", False)
        start = await self._current()
        if legs is None:
            wick_e8 = min(start.index_e8, bar.close) - bar.low
            wick_is_traded = wick_e8 * 10**6 > perp_v2.EXCHANGE_FEE_PIPS * bar.low
            legs = (Leg.LOW, Leg.CLOSE) if wick_is_traded else (Leg.CLOSE,)
        elif not 1 <= len(legs) <= 2:
            raise BadInput(f"a one-minute bar has room for one or two legs, got {len(legs)}")
        wanted = phases if on_phase is not None else ()
        liquidations: list[Liquidation] = []

        async def tell(leg: Leg, phase: Phase, reading: _Reading) -> None:
            if on_phase is not None and phase in wanted:
                await on_phase(self._moment(bar, leg, phase, reading))

        for i, leg in enumerate(legs):
            index_e8 = {Leg.LOW: bar.low, Leg.HIGH: bar.high, Leg.CLOSE: bar.close}[leg]
            settled = await self._leg(leg, index_e8, bar.timestamp_s + i * _LEG_S, wanted, tell, liquidations)
        return BarReport(
            bar=bar,
            first_block=start.block + 1,
            last_block=(await self._current()).block,
            index_e8=settled.index_e8,
            mark_wad=settled.mark_wad,
            perp_wad=self._perp_wad(settled),
            spot_wad=self._spot_wad(settled),
            liquidations=tuple(liquidations),
        )

    async def release(self) -> None:
        """Give the chain back: transactions are mined at once again."""
        await self._rpc.call("evm_setAutomine", True)

    async def move_to(self, price_wad: int) -> list[BarReport]:
        """Take the market to `price_wad` in one-minute bars of at most 8 % each, the first right after the latest block.

        For tests and play; automatic mining is on again afterwards.
        """
        reading = await self._read()
        index_e8, target_e8 = reading.index_e8, price_wad * feeds.UNIT // WAD
        time_s = reading.time_s + SETTLE_S
        reports: list[BarReport] = []
        while not reports or index_e8 != target_e8:
            index_e8 = min(max(target_e8, index_e8 * 92 // 100), index_e8 * 108 // 100 + 1)
            bar = Bar(time_s, index_e8, index_e8, index_e8, index_e8)
            reports.append(await self.advance(bar, legs=(Leg.CLOSE,)))
            time_s += 60
        await self.release()
        return reports

    async def heartbeat(self) -> None:
        """Push every feed's last answer again as of now, so that none grows stale. Mines two blocks."""
        await self._rpc.call("evm_mine")
        now_s = int((await self._rpc.block())["timestamp"], 16)
        feeder = self._accounts.feeder
        nonce = await self._rpc.get_nonce(feeder.address)
        for feed in (self._at.feed_eth_usd, self._at.feed_usdc_usd):
            _, answer, _, _, _ = feeds.LATEST_ROUND_DATA.decode(
                await self._rpc.eth_call(feed, feeds.LATEST_ROUND_DATA.encode())
            )
            await self._send(feeder, nonce, feed, feeds.PUSH.encode(answer, now_s))
            nonce += 1
        await self._send(feeder, nonce, self._at.perp_price_feed, perp_v2.UPDATE_FEED.encode())
        await self._rpc.call("evm_mine")

    async def set_sequencer(self, up: bool) -> None:
        """Report the L2 sequencer as up or down, as of the latest block; in the next block."""
        now_s = int((await self._rpc.block())["timestamp"], 16)
        feeder = self._accounts.feeder
        answer = feeds.SEQUENCER_UP if up else feeds.SEQUENCER_DOWN
        nonce = await self._rpc.get_nonce(feeder.address)
        await self._send(feeder, nonce, self._at.sequencer_feed, feeds.PUSH.encode(answer, now_s))

    # -- one leg ----------------------------------------------------------------------------------------------------------

    async def _leg(
        self,
        leg: Leg,
        index_e8: int,
        time_s: int,
        wanted: Collection[Phase],
        tell: Callable[[Leg, Phase, _Reading], Awaitable[None]],
        liquidations: list[Liquidation],
    ) -> _Reading:
        """Run one leg. Returns the settled reading; adds to `liquidations`."""
        before = await self._current()
        if time_s <= before.time_s:
            raise BadInput(
                f"a bar's block at {time_s} must lie after the latest block, which is at {before.time_s}: "
                "start the devnet with the first bar's timestamp and replay bars in order"
            )
        feeder = self._accounts.feeder
        push = feeds.PUSH.encode(index_e8, time_s)
        await self._send(feeder, before.nonces[feeder.address], self._at.feed_eth_usd, push)
        # The perp caches the new price by itself whenever somebody trades, and reads it from the feed until then.
        stopped_short = await self._arbitrage(index_e8, before, also_within=self._settled_perp_sqrt)
        await self._mine(time_s)
        if stopped_short or Phase.QUOTED in wanted:
            quoted = await self._read()
            await tell(leg, Phase.QUOTED, quoted)
            await self._arbitrage(index_e8, quoted)
        await self._mine(time_s + SETTLE_S)
        settled = await self._read(watch=True)
        self._settled_perp_sqrt = settled.perp_sqrt
        await tell(leg, Phase.SETTLED, settled)
        if settled.liquidatable:
            await self._liquidate(settled)
        if settled.liquidatable or (wanted and await self._is_pending()):
            await self._mine(time_s + ACT_S)
            if settled.liquidatable:
                liquidations += await self._liquidations_in(settled.block + 1)
        if Phase.DONE in wanted:
            await tell(leg, Phase.DONE, await self._current())
        return settled

    def _moment(self, bar: Bar, leg: Leg, phase: Phase, reading: _Reading) -> Moment:
        return Moment(
            bar=bar,
            leg=leg,
            phase=phase,
            block=reading.block,
            time_s=reading.time_s,
            index_e8=reading.index_e8,
            mark_wad=reading.mark_wad,
            perp_wad=self._perp_wad(reading),
            spot_wad=self._spot_wad(reading),
        )

    async def _arbitrage(self, index_e8: int, reading: _Reading, also_within: int | None = None) -> bool:
        """Trade each pool that is outside its fee band to the index, the perp no further than it allows in one block.

        The perp counts its 1,000 ticks from the price at its last update, at most 15 s ago: the price of `reading`, or, when
        somebody traded in the block before, the one settled before that (`also_within`). Returns whether that stopped it short.
        """
        eoa = self._accounts.arbitrageur
        nonce = reading.nonces[eoa.address]
        index = limit = sqrt_price_x96(index_e8, feeds.UNIT)
        if _outside_band(reading.perp_sqrt, index, perp_v2.EXCHANGE_FEE_PIPS):
            for origin in (reading.perp_sqrt, also_within or reading.perp_sqrt):
                limit = min(limit, origin * _STEP_NUMERATOR // _STEP_DENOMINATOR)
                limit = max(limit, origin * _STEP_DENOMINATOR // _STEP_NUMERATOR)
            up = index > reading.perp_sqrt
            if (limit > reading.perp_sqrt) == up and limit != reading.perp_sqrt:
                order = (self._at.perp_base_token, not up, True, _OVERSIZED, 0, FOREVER, limit, bytes(32))
                await self._send(eoa, nonce, self._at.perp_clearing_house, perp_v2.OPEN_POSITION.encode(order))
                nonce += 1
        target = self._spot_target(index_e8)
        if _outside_band(reading.spot_sqrt, target, SPOT_FEE_PIPS):
            token0, token1 = sorted((self._at.weth, self._at.usdc))
            sold, bought = (token1, token0) if target > reading.spot_sqrt else (token0, token1)
            swap = (sold, bought, SPOT_FEE_PIPS, eoa.address, FOREVER, _OVERSIZED, 0, target)
            await self._send(eoa, nonce, self._at.uniswap_router, EXACT_INPUT_SINGLE.encode(swap))
        return limit != index

    async def _liquidate(self, reading: _Reading) -> None:
        eoa = self._accounts.liquidator
        nonce = reading.nonces[eoa.address]
        for venue, trader in reading.liquidatable:
            if venue == "perp":
                to, data = self._at.perp_clearing_house, perp_v2.LIQUIDATE.encode(trader, self._at.perp_base_token)
            else:
                collateral, debt = await self._aave_sides(trader)
                to, data = self._at.aave_pool, _LIQUIDATION_CALL.encode(collateral, debt, trader, 2**256 - 1, False)
            await self._send(eoa, nonce, to, data)
            nonce += 1

    async def _aave_sides(self, borrower: Address) -> tuple[Address, Address]:
        """The collateral to seize and the debt to repay: the one reserve holding more of each, WETH first."""
        held: dict[Address, tuple[int, int]] = {}
        for token in (self._at.weth, self._at.usdc):
            data = await self._rpc.eth_call(self._at.aave_data_provider, _GET_USER_RESERVE_DATA.encode(token, borrower))
            supplied, stable_debt, variable_debt, *_ = _GET_USER_RESERVE_DATA.decode(data)
            held[token] = (supplied, stable_debt + variable_debt)
        weth, usdc = held[self._at.weth], held[self._at.usdc]
        collateral = self._at.weth if weth[0] else self._at.usdc
        debt = self._at.usdc if usdc[1] else self._at.weth
        return collateral, debt

    async def _liquidations_in(self, block: int) -> list[Liquidation]:
        found = []
        bad_debts: dict[Address, int] = {}
        for log in await self._rpc.logs(self._at.perp_vault, [_BAD_DEBT.topic], block, block):
            trader, amount = _BAD_DEBT.decode(*_raw(log))
            bad_debts[trader] = amount
        topic = perp_v2.POSITION_LIQUIDATED.topic
        for log in await self._rpc.logs(self._at.perp_clearing_house, [topic], block, block):
            trader, _, notional, size, penalty, _ = perp_v2.POSITION_LIQUIDATED.decode(*_raw(log))
            found.append(Liquidation("perp", trader, block, size, notional, penalty, bad_debts.get(trader, 0)))
        for log in await self._rpc.logs(self._at.aave_pool, [_AAVE_LIQUIDATED.topic], block, block):
            _, _, user, covered, seized, _, _ = _AAVE_LIQUIDATED.decode(*_raw(log))
            found.append(Liquidation("aave", user, block, seized, covered))
        return found

    # -- talking to the node ----------------------------------------------------------------------------------------------

    async def _mine(self, time_s: int) -> None:
        await self._rpc.call("evm_mine", time_s)
        self._reading = None

    async def _is_pending(self) -> bool:
        """Whether anybody's transaction waits for a block."""
        status = await self._rpc.call("txpool_status")
        return int(status["pending"], 16) > 0

    async def _current(self) -> _Reading:
        """The last reading if no block has come since, else a new one."""
        last = self._reading
        if last is not None and (await self._rpc.block())["hash"] == last.block_hash:
            return last
        return await self._read()

    async def _send(self, eoa: Eoa, nonce: int, to: Address, data: bytes) -> None:
        await self._rpc.call("eth_sendRawTransaction", sign(eoa, nonce, to, data, gas=_GAS))

    async def _read(self, *, watch: bool = False) -> _Reading:
        """Everything that the driver decides on, in one round trip."""
        calls = list(self._static_calls)
        if watch:
            for trader in self._perp_watch:
                calls.append((self._at.perp_clearing_house, perp_v2.GET_ACCOUNT_VALUE.encode(trader)))
                calls.append((self._at.perp_account_balance, perp_v2.GET_MARGIN_REQUIREMENT.encode(trader)))
            calls += [(self._at.aave_pool, _GET_USER_ACCOUNT_DATA.encode(user)) for user in self._aave_watch]
        request = {"to": to_hex(self._at.multicall3), "data": to_hex(encode_multicall(calls))}
        movers = (self._accounts.feeder, self._accounts.arbitrageur, self._accounts.liquidator)
        head, returned, *counts = await self._rpc.batch(
            [("eth_getBlockByNumber", ("latest", False)), ("eth_call", (request, "latest"))]
            + [("eth_getTransactionCount", (to_hex(eoa.address), "pending")) for eoa in movers]
        )
        results = decode_multicall(parse_bytes(returned, "multicall"))
        needed = [result for result in results if result is not None]
        if len(needed) != len(results):
            raise BadInput("the devnet's protocols do not answer: is this the chain that the market was made for?")
        _, index_e8, _, _, _ = feeds.LATEST_ROUND_DATA.decode(needed[0])
        liquidatable: list[tuple[str, Address]] = []
        if watch:
            rest = iter(needed[len(self._static_calls) :])
            for trader in self._perp_watch:
                (value,) = perp_v2.GET_ACCOUNT_VALUE.decode(next(rest))
                (required,) = perp_v2.GET_MARGIN_REQUIREMENT.decode(next(rest))
                if value < required:
                    liquidatable.append(("perp", trader))
            for user in self._aave_watch:
                health_wad = _GET_USER_ACCOUNT_DATA.decode(next(rest))[5]
                if health_wad < WAD:
                    liquidatable.append(("aave", user))
        self._reading = _Reading(
            block=int(head["number"], 16),
            block_hash=head["hash"],
            time_s=int(head["timestamp"], 16),
            index_e8=index_e8,
            mark_wad=perp_v2.GET_MARK_PRICE.decode(needed[1])[0],
            perp_sqrt=SLOT0.decode(needed[2])[0],
            spot_sqrt=SLOT0.decode(needed[3])[0],
            liquidatable=tuple(liquidatable),
            nonces={eoa.address: int(count, 16) for eoa, count in zip(movers, counts, strict=True)},
        )
        return self._reading

    # -- prices -----------------------------------------------------------------------------------------------------------

    def _spot_target(self, index_e8: int) -> int:
        usdc, weth = index_e8 * _USDC_UNIT, feeds.UNIT * WAD
        return sqrt_price_x96(usdc, weth) if self._weth_is_token0 else sqrt_price_x96(weth, usdc)

    @staticmethod
    def _perp_wad(reading: _Reading) -> int:
        return reading.perp_sqrt**2 * WAD >> 192

    def _spot_wad(self, reading: _Reading) -> int:
        scale = WAD * WAD // _USDC_UNIT
        squared = reading.spot_sqrt**2
        return squared * scale >> 192 if self._weth_is_token0 else (scale << 192) // squared


def _outside_band(sqrt_pool: int, sqrt_index: int, fee_pips: int) -> bool:
    """Whether price and index differ by more than the fee, so that arbitrage pays."""
    return abs(sqrt_pool**2 - sqrt_index**2) * 10**6 > fee_pips * sqrt_index**2


def _raw(log: dict[str, Any]) -> tuple[list[bytes], bytes]:
    return [parse_bytes(topic) for topic in log["topics"]], parse_bytes(log["data"])
