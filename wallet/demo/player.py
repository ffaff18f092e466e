"""The demo's plot: two accounts, one crash, and everything that is meant to go wrong on the way.

The market moves only when every service has said that it is done with the present block, so that a run says the same thing on
every machine. The services themselves do not know that they are in a demo.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from contracts import bindings as b
from contracts.abi import Function
from contracts.bindings import RiskState
from contracts.devnet.bars import Bar
from contracts.devnet.market import BarReport, Liquidation, Moment, Phase
from contracts.eoa import TransactionSender
from contracts.errors import NodeError, OperationFailed, PolicyRefused, SetupError
from contracts.rpc import RpcClient
from contracts.types import Hash32, checksum, parse_address, parse_hash, to_hex
from contracts.units import WAD, from_units, to_units
from policies.decision import explain_sizes
from policies.venues.feeds import LATEST_ROUND_DATA
from wallet import trading
from wallet.demo.cast import Cast
from wallet.demo.record import Event, EventKind, RefusalResult, Sample, StopResult, clock
from wallet.demo.scenario import Scenario
from wallet.demo.stage import Stage
from wallet.demo.view import Board
from wallet.services import OperationReceipt

Say = Callable[[str], None]
GET_ACCOUNT_VALUE = Function.parse("getAccountValue(address)(int256)")
GET_TAKER_POSITION_SIZE = Function.parse("getTakerPositionSize(address,address)(int256)")
_BARRIER_TIMEOUT_S = 30.0
_USDC = 6


@dataclass(slots=True)
class Ledger:
    """What one account's operations cost, from their receipts."""

    receipts: dict[Hash32, OperationReceipt] = field(default_factory=dict)

    def add(self, receipt: OperationReceipt) -> None:
        self.receipts[receipt.user_op_hash] = receipt

    @property
    def gas(self) -> int:
        return sum(r.actual_gas_used for r in self.receipts.values())

    @property
    def cost_wei(self) -> int:
        return sum(r.actual_gas_cost_wei for r in self.receipts.values())

    @property
    def sponsored_wei(self) -> int:
        return sum(r.actual_gas_cost_wei for r in self.receipts.values() if r.sponsored)


class Player:
    """Plays one window. Afterwards `samples`, `events` and the results hold what there is to tell."""

    def __init__(
        self, stage: Stage, cast: Cast, scenario: Scenario, bars: Sequence[Bar], board: Board, say: Say
    ) -> None:
        self.stage = stage
        self.net = stage.net
        self.cast = cast
        self.scenario = scenario
        self.bars = bars
        self.board = board
        self.samples: list[Sample] = []
        self.events: list[Event] = []
        self.liquidations: list[Liquidation] = []
        self.ledgers = {"protected": Ledger(), "twin": Ledger()}
        self.refusal: RefusalResult | None = None
        self.stop: StopResult | None = None
        self.withdrawal_blocked = False
        self.keeper_kills = 0
        self.entry_index = 0
        self.start_equity: tuple[float, float] | None = None
        self._pending: list[tuple[str, Hash32]] = []
        self._keeper_down = False
        self._keeper_bait = False
        self._frozen_until_s = 0
        self._due: tuple[int, int] | None = None
        self._theft: Hash32 | None = None
        self._say = say

    # -- the plot -------------------------------------------------------------------------------------------------------------

    async def play(self) -> None:
        """Replay every bar and let happen what is due in it."""
        self.scenario.check(len(self.bars))
        self._tell(self.bars[0].timestamp_s, "start", f"ETH at {self.bars[0].open / 1e8:,.2f}; everything is running")
        for number, bar in enumerate(self.bars):
            self.board.bar = number + 1
            self.board.services = {service.name: service.alive for service in self.stage.services}
            await self._before(number, bar)
            report = await self.net.market.advance(bar, self._on_phase)
            await self._sample(bar, report)
        last = self.bars[-1].timestamp_s
        self._tell(last, "end", f"ETH at {self.bars[-1].close / 1e8:,.2f}")

    async def _before(self, number: int, bar: Bar) -> None:
        """What people do between two bars; it is mined with the next."""
        plot = self.scenario
        now_s = bar.timestamp_s
        if number == plot.open_bar:
            await self._open_both(now_s)
        elif number == plot.refuse_bar:
            await self._refused_order(now_s)
        elif number == plot.freeze_bar and self.cast.has_freeze:
            await self._freeze(now_s)
        elif number == plot.withdraw_bar and self.cast.has_freeze:
            await self._attempt_withdrawal(now_s)
        if self._frozen_until_s and now_s > self._frozen_until_s:
            await self._thaw(now_s)
        if self._keeper_down:
            await self._restart_keeper(now_s)

    async def _open_both(self, now_s: int) -> None:
        index = await self._index()
        self.entry_index = index
        order = self.scenario.notional_usdc
        text = f"both deposit {self.scenario.collateral_usdc:,} USDC and open a long of {order:,} USDC"
        protected = await self.cast.protected_open(self.scenario, index, now_s)
        self.board.verdicts.append(f"{clock(now_s)} allow: open long {order:,} USDC")
        # The first is on its way before the second is sent: else the two share a bundle or not as the machine is fast or slow.
        await self._bundler_barrier(await self.net.rpc.block_number())
        twin = await self.cast.twin_open(self.scenario, index, now_s)
        self._pending += [("protected", protected), ("twin", twin)]
        await self._include_both()
        self._tell(now_s, "opened", text)

    async def _include_both(self) -> None:
        """Two blocks before the market moves on: the bundler sends one bundle at a time, and both shall trade at the same price."""
        for _ in range(2):
            await self._bundler_barrier(await self.net.rpc.block_number())
            head = await self.net.rpc.block()
            await self.net.rpc.call("evm_mine", int(head["timestamp"], 16) + 1)
        await self._bundler_barrier(await self.net.rpc.block_number())

    async def _refused_order(self, now_s: int) -> None:
        """The trader asks for more than the policy allows. The bundler's own count shows that nothing reached it."""
        before = await self._received()
        size = self.scenario.collateral_usdc * self.scenario.extra_leverage
        try:
            await self.cast.order(size, await self._index(), now_s)
        except PolicyRefused as refused:
            decision = refused.data
            failing = [row for row in decision["limits"] if row["verdict"] == "deny"]
            reached = await self._received() != before
            self.refusal = RefusalResult(reached, False, failing, self.cast.explain(decision))
            self.board.verdicts.append(
                f"{clock(now_s)} DENY: {size:,} USDC more ({', '.join(r['id'] for r in failing)})"
            )
            largest = [line.strip() for line in explain_sizes(decision)[:1]]
            self._tell(
                now_s,
                "refused",
                "; ".join([f"refused before signing: {size:,} USDC more. {refused}", *largest]),
                {"limits": failing, "sizes": decision["sizes"]},
            )
            return
        raise SetupError(f"the policy {self.cast.policy_name} allowed an order that the demo needs it to refuse")

    async def _freeze(self, now_s: int) -> None:
        guardian = TransactionSender(self.net.rpc, self.net.accounts.guardian, self.net.chain_id)
        data = b.FREEZE.encode(self.cast.protected.address, int(RiskState.FROZEN))
        await guardian.send(self.net.addresses.emergency_freeze, data, gas=300_000)
        self._frozen_until_s = now_s + self.cast.solo_freeze_s + 60
        self._tell(now_s, "frozen", "a guardian freezes the account")

    async def _attempt_withdrawal(self, now_s: int) -> None:
        """A thief with the owner's *and* the engine's key tries to take the margin; only the chain is left to say no."""
        thief = self.net.accounts.trader2.address
        amount = to_units(self.scenario.collateral_usdc / 10, _USDC)
        calls = trading.withdraw(self.cast.market, amount, thief, self.cast.protected.address)
        self._theft = await self.cast.stolen_keys(calls)
        self._pending.append(("protected", self._theft))
        text = "stolen keys: a withdrawal of 10 % to a stranger is sent, signed by owner and engine"
        self._tell(now_s, "theft", text)

    async def _thaw(self, now_s: int) -> None:
        anyone = TransactionSender(self.net.rpc, self.net.accounts.trader, self.net.chain_id)
        await anyone.send(
            self.net.addresses.emergency_freeze, b.EXPIRE.encode(self.cast.protected.address), gas=300_000
        )
        self._frozen_until_s = 0
        self._tell(now_s, "thawed", "the single guardian's freeze has run out; the account is ACTIVE again")

    # -- the keeper's misfortunes -----------------------------------------------------------------------------------------------

    async def _kill_keeper(self, moment: Moment, why: str) -> None:
        keeper = self.stage.keeper
        assert keeper is not None
        await keeper.kill()
        self.keeper_kills += 1
        self._keeper_down = True
        self._tell(moment.time_s, "keeper_killed", f"the keeper is killed (SIGKILL): {why}")

    async def _restart_keeper(self, now_s: int) -> None:
        """Start it again, once with an order to die right after it has sent the stop."""
        keeper = self.stage.keeper
        assert keeper is not None
        environment = {} if self._keeper_bait else {"SEAWALL_CRASH_AT": "keeper.send.after"}
        self._keeper_bait = True
        await keeper.start(environment)
        self._keeper_down = False
        self._tell(now_s, "keeper_restarted", "the keeper is started again")

    # -- phases and barriers ------------------------------------------------------------------------------------------------------

    async def _on_phase(self, moment: Moment) -> None:
        """Nobody is hurried: the next block waits until bundler and keeper are done with this one."""
        await self._bundler_barrier(moment.block)
        await self._watch_trigger(moment)
        await self._keeper_barrier(moment)
        await self._bundler_barrier(moment.block)
        if moment.phase is Phase.DONE:
            await self._collect(moment.time_s)

    async def _watch_trigger(self, moment: Moment) -> None:
        """Note the block in which the stop first was due, and kill the keeper on the way there."""
        keeper = self.stage.keeper
        if not self.cast.has_stop or keeper is None or not self.entry_index or self.stop is not None:
            return
        if self._due is None and await self.cast.stop_due():
            self._due = (moment.block, moment.time_s)
        fallen = self.entry_index - moment.index_e8 * 10**10
        share = int(self.scenario.kill_share * 100)
        near = 100 * fallen >= share * (self.entry_index - self.cast.trigger_wad)
        if near and moment.phase is Phase.DONE and self.keeper_kills == 0 and keeper.alive:
            await self._kill_keeper(moment, "mid-crash")

    async def _keeper_barrier(self, moment: Moment) -> None:
        """Wait until a live keeper is done with this block. One that dies meanwhile is started again at once."""
        keeper = self.stage.keeper
        if keeper is None or self._keeper_down:
            return
        async with asyncio.timeout(_BARRIER_TIMEOUT_S):
            while True:
                if not keeper.alive:
                    self.keeper_kills += 1
                    self._tell(
                        moment.time_s, "keeper_killed", "the keeper is killed again, right after it sent the stop"
                    )
                    await keeper.kill()
                    await self._restart_keeper(moment.time_s)
                if (status := await _status(keeper.rpc)) is not None and (status["head"] or -1) >= moment.block:
                    self.board.keeper_head = moment.block
                    return
                await asyncio.sleep(0.003)

    async def _bundler_barrier(self, block: int) -> None:
        """Wait until the bundler has seen this block, and the node has everything that the bundler accepted."""
        async with asyncio.timeout(_BARRIER_TIMEOUT_S):
            while True:
                status = await _status(self.stage.bundler.rpc)
                if status is not None and not status["validating"]:
                    if not status["pending"] and not status["inFlight"] and not status["bundlesInFlight"]:
                        return
                    seen = int(status["lastBlock"] or "0x0", 16) >= block
                    if seen and status["bundlesInFlight"] and await self._node_has(status):
                        return
                await asyncio.sleep(0.003)

    async def _node_has(self, status: dict[str, Any]) -> bool:
        """Whether the node waits to mine as many bundles as are under way: each is recorded before it is sent."""
        executor = parse_address(status["executor"])
        mined = await self.net.rpc.get_nonce(executor, "latest")
        return await self.net.rpc.get_nonce(executor, "pending") - mined >= int(status["bundlesInFlight"])

    # -- bookkeeping -------------------------------------------------------------------------------------------------------------

    async def _collect(self, now_s: int) -> None:
        """Take the receipts of operations that have been included since."""
        waiting, self._pending = self._pending, []
        for who, user_op_hash in waiting:
            receipt = await self.cast.bundler.receipt(user_op_hash)
            if receipt is None:
                self._pending.append((who, user_op_hash))
                continue
            self.ledgers[who].add(receipt)
            self._count(receipt)
            if user_op_hash == self._theft:
                if receipt.success:
                    raise SetupError("the frozen account let a withdrawal pass")
                self.withdrawal_blocked = True
                self._tell(now_s, "blocked", "the chain refuses the withdrawal: the account is FROZEN")
            elif not receipt.success:
                raise OperationFailed(f"operation {to_hex(user_op_hash)} reverted: {to_hex(receipt.reason)}")
        if self.start_equity is None and not self._pending and self.ledgers["twin"].receipts:
            self.start_equity = await self._equity()
        await self._find_stop(now_s)

    def _count(self, receipt: OperationReceipt) -> None:
        self.board.operations += 1
        self.board.bundles = len(
            {r.transaction_hash for ledger in self.ledgers.values() for r in ledger.receipts.values()}
        )
        if receipt.sponsored:
            self.board.sponsored_wei += receipt.actual_gas_cost_wei

    async def _find_stop(self, now_s: int) -> None:
        """Look the fired stop up in the chain's events, once, and take its operation's costs."""
        keeper = self.stage.keeper
        if self.stop is not None or self._due is None or keeper is None:
            return
        topics = [b.GUARD_FIRED.topic, bytes(12) + self.cast.protected.address]
        module = self.net.addresses.stop_loss
        fired = await self.net.rpc.logs(module, topics, self.cast.born_block)
        if not fired:
            return
        block = int(fired[0]["blockNumber"], 16)
        time_s = int((await self.net.rpc.block(block))["timestamp"], 16)
        tx_hash = parse_hash(fired[0]["transactionHash"])
        base, quote = await self.cast.fill(tx_hash)
        user_op_hash = await self.cast.operation_in(tx_hash)
        receipt = await self.cast.bundler.receipt(user_op_hash)
        if receipt is not None:
            self.ledgers["protected"].add(receipt)
            self._count(receipt)
        due_block, due_s = self._due
        self.stop = StopResult(
            trigger_price=float(from_units(self.cast.trigger_wad, 18)),
            fill_price=float(from_units(quote * WAD // base, 18)),
            due_block=due_block,
            included_block=block,
            blocks=block - due_block,
            seconds=time_s - due_s,
            times_fired=len(fired),
            user_op_hash=to_hex(user_op_hash),
        )
        late = f"{self.stop.blocks} block(s), {self.stop.seconds} s after it was due"
        self._tell(now_s, "stop_fired", f"the stop fires: {base / WAD:.4f} ETH at {self.stop.fill_price:,.2f}, {late}")

    async def count_firings(self) -> int:
        """How often the protected account's stop fired, by the chain's events."""
        topics = [b.GUARD_FIRED.topic, bytes(12) + self.cast.protected.address]
        return len(await self.net.rpc.logs(self.net.addresses.stop_loss, topics, self.cast.born_block))

    async def _equity(self) -> tuple[float, float]:
        found = await self._read()
        return found[0], found[1]

    async def _read(self) -> tuple[float, float, float, float, str]:
        """(equity of both, perp size of both, state of the protected one) at the latest block."""
        where = self.net.addresses
        accounts = (self.cast.protected.address, self.cast.twin.address)
        reads = [(where.perp_clearing_house, GET_ACCOUNT_VALUE.encode(a)) for a in accounts]
        reads += [(where.usdc, b.BALANCE_OF.encode(a)) for a in accounts]
        reads += [
            (where.perp_account_balance, GET_TAKER_POSITION_SIZE.encode(a, where.perp_base_token)) for a in accounts
        ]
        reads.append((accounts[0], b.RISK_STATE.encode()))
        found = b.decode_multicall(await self.net.rpc.eth_call(where.multicall3, b.encode_multicall(reads)))
        words = [0 if data is None else int.from_bytes(data[:32], signed=True) for data in found]
        equity = [words[i] / WAD + words[i + 2] / 10**_USDC for i in (0, 1)]
        return equity[0], equity[1], words[4] / WAD, words[5] / WAD, RiskState(words[6]).name

    async def _sample(self, bar: Bar, report: BarReport) -> None:
        """Note both accounts at the end of the bar, and who was liquidated in it."""
        for liquidation in report.liquidations:
            self.liquidations.append(liquidation)
            who = "the protected account" if liquidation.trader == self.cast.protected.address else "the twin"
            text = f"{who} is liquidated: {liquidation.size / WAD:.4f} ETH, {liquidation.notional / WAD:,.0f} USDC"
            self._tell(bar.timestamp_s + 60, "liquidated", text, {"account": checksum(liquidation.trader)})
        protected, twin, protected_size, twin_size, state = await self._read()
        self.samples.append(
            Sample(
                timestamp_s=bar.timestamp_s + 60,
                index=bar.close / 1e8,
                mark=report.mark_wad / WAD,
                protected_equity=protected,
                twin_equity=twin,
                protected_size=protected_size,
                twin_size=twin_size,
                state=state,
            )
        )
        self.board.samples = self.samples

    async def _index(self) -> int:
        """The feed's price now, 1e18 = one."""
        data = await self.net.rpc.eth_call(self.net.addresses.feed_eth_usd, LATEST_ROUND_DATA.encode())
        answer: int = LATEST_ROUND_DATA.decode(data)[1]
        return answer * 10**10

    async def _received(self) -> object:
        status = await _status(self.stage.bundler.rpc)
        return None if status is None else status["received"]

    def _tell(self, now_s: int, kind: EventKind, text: str, data: dict[str, Any] | None = None) -> None:
        event = Event(now_s, kind, text, data or {})
        self.events.append(event)
        self.board.events.append(event)
        self._say(f"{clock(now_s)}  {text}")


async def _status(rpc: RpcClient | None) -> dict[str, Any] | None:
    """`seawall_status` of a service; None while it does not answer."""
    if rpc is None:
        return None
    try:
        found: dict[str, Any] = await rpc.call("seawall_status")
    except NodeError:
        return None
    return found
