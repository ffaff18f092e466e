"""Load, a chain that mines, forgets and reorganises, a node that misbehaves, and a bundler that is killed: all at random.

A storm is replayable as far as its dice go: the seed is in every failure.
"""

from __future__ import annotations

import asyncio
import contextlib
import random
from collections import Counter
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from bundler.settings import Settings
from contracts.devnet.accounts import devnet_key
from contracts.devnet.chain import CHAIN_ID
from contracts.entrypoint import V08
from contracts.eoa import Eoa
from contracts.errors import NodeUnreachable, RpcError
from contracts.types import Address, Hash32, checksum, keccak, to_hex
from contracts.userop import UserOperation
from tests.bundler.rig import (
    GWEI,
    PAYMASTER_OK,
    TARGET,
    Chain,
    Process,
    SimpleAccount,
    hand_in_first,
    process,
    settings_for,
    until,
    with_limits,
)
from tests.chaos.fault_proxy import FaultProxy, Faults
from tests.chaos.ledger import Ledger, Verdict, judge

FINALITY = 8
DEEPEST_REORG = 4
_SECOND_KEY = devnet_key("second executor")
_PATIENCE = (
    "is unstaked and has",
    "shutting down",
    "node did not answer",
    "node did not trace",
    "no answer within",
    "does not validate any more",
    "the PostgreSQL",
)
"""In a refusal: the operation is good, try again in a moment."""
_TOO_LATE = ("AA25", "AA10", "submitted bundle", "needs maxFeePerGas", "needs maxPriorityFeePerGas")
"""In a refusal: the slot is used or held by one that was sent before and whose answer never came; or no replacement any more."""


@dataclass(slots=True)
class Storm:
    """One bundler after another on one database, in front of one node."""

    chain: Chain
    proxy: FaultProxy
    settings: Settings
    chance: random.Random
    ledger: Ledger = field(default_factory=Ledger)
    running: Process | None = None
    strangers: bool = False
    """Other bundlers carry operations of the same wallets."""
    quiet: bool = False
    """No new operations."""
    calm: bool = False
    """No reorganisations, no forgotten transactions, no faults."""
    done: Counter[str] = field(default_factory=Counter)
    paymaster: Address = b""
    logs: list[str] = field(default_factory=list)

    @classmethod
    @contextlib.asynccontextmanager
    async def brew(
        cls, chain: Chain, folder: Path, seed: int, *, lanes: bool = False, strangers: bool = False, **changes: Any
    ) -> AsyncIterator[Storm]:
        """A storm without a bundler yet. `lanes`: two executors send bundles at once."""
        if lanes:
            changes = {"lane_key_files": (await _second_key(chain, folder),), "lane_min_ops": 1} | changes
        async with FaultProxy.start(chain.anvil.url, seed) as proxy:
            options: dict[str, Any] = {
                "rpc_url": proxy.url,
                "finality_depth": FINALITY,
                "blocks_before_resubmit": 3,
                "request_timeout_s": 3.0,
                "debug": True,
            }
            settings = settings_for(chain, folder, **(options | changes))
            storm = cls(chain, proxy, settings, random.Random(seed), strangers=strangers)
            storm.paymaster = await chain.put(PAYMASTER_OK, deposit_on=V08, deposit_wei=10**21)
            await chain.stake(V08, storm.paymaster)
            await chain.automine(False)
            yield storm

    @property
    def executors(self) -> tuple[Address, ...]:
        """Whether the second has a lane or not: what it sends is judged."""
        return (self.chain.accounts.bundler.address, Eoa(_SECOND_KEY).address)

    # What the world does.

    async def mine(self) -> None:
        """Blocks at random times; now and then some are replaced by empty ones, or the node forgets what waits."""
        while True:
            await asyncio.sleep(self.chance.uniform(0.02, 0.15))
            await self.chain.mine()
            if self.calm:
                continue
            dice = self.chance.random()
            if dice < 0.06:
                depth = self.chance.randint(1, DEEPEST_REORG)
                await self.chain.rpc.call("anvil_reorg", depth, [])
                self.done["reorganisations"] += 1
            elif dice < 0.10:
                await self.chain.rpc.call("anvil_dropAllTransactions")
                self.done["forgotten mempools"] += 1

    async def trouble(self) -> None:
        """The faults of the node change every moment."""
        while True:
            await asyncio.sleep(self.chance.uniform(0.1, 0.4))
            if self.calm:
                self.proxy.heal()
                continue
            kind = self.chance.choice(("none", "none", "slow", "flaky", "broken", "stale", "blind"))
            self.proxy.faults = {
                "none": Faults(),
                "slow": Faults(delay_s=0.2),
                "flaky": Faults(drop=0.05, drop_answer=0.1, truncate=0.05),
                "broken": Faults(fail_5xx=0.3, refuse=0.2),
                "stale": Faults(stale_blocks=self.chance.randint(1, 3)),
                "blind": Faults(blind_blocks=self.chance.randint(1, 3)),
            }[kind]

    # What wallets do.

    async def wallet(self, account: SimpleAccount, key: int, *, sponsored: bool) -> None:
        """Operation after operation of one nonce key; now and then one is replaced."""
        sequence = 0
        while not self.quiet:
            op = UserOperation(
                sender=account.address,
                nonce=key << 64 | sequence,
                call_data=_PAY,
                max_fee_per_gas=20 * GWEI,
                max_priority_fee_per_gas=2 * GWEI,
                paymaster=self.paymaster if sponsored else None,
            )
            await self._promise(account, op)
            if self.strangers and not sponsored and self.chance.random() < 0.15:
                await self.carry_elsewhere(account, op)
            if self.chance.random() < 0.3:
                await self._promise(
                    account, op.replace(max_fee_per_gas=24 * GWEI, max_priority_fee_per_gas=3 * GWEI), replaces=True
                )
            sequence += 1

    async def carry_elsewhere(self, account: SimpleAccount, op: UserOperation) -> None:
        """Another bundler got the same operation, or one with its nonce, and pays more for its place in a block.

        Not one that was refused here: its nonce is used.
        """
        if self.ledger.acknowledged.isdisjoint(self.ledger.asked[op.sender, op.nonce]):
            return
        op = account.sign(with_limits(op, call_gas_limit=self.chance.choice((100_000, 99_999))))
        self.ledger.hand_over(op, V08.user_op_hash(op, CHAIN_ID))
        await hand_in_first(self.chain, op)
        self.done["strangers' bundles"] += 1

    async def newcomers(self, accounts: list[SimpleAccount]) -> None:
        """Accounts that their first operation deploys."""
        for account in accounts:
            await self._promise(account, await account.draft())
            await asyncio.sleep(self.chance.uniform(0, 0.3))

    async def _promise(self, account: SimpleAccount, op: UserOperation, *, replaces: bool = False) -> None:
        """Send until it is acknowledged or can never be."""
        op = account.sign(with_limits(op))
        op_hash = V08.user_op_hash(op, CHAIN_ID)
        while not self.quiet:
            self.ledger.ask(op, op_hash)
            try:
                answer = await self._send(op)
            except NodeUnreachable:
                self.done["unanswered"] += 1
            except RpcError as error:
                if any(words in error.message for words in _TOO_LATE):
                    self.done["too late" if replaces else "already there"] += 1
                    return
                if not any(words in error.message for words in _PATIENCE):
                    self.ledger.unexpected.append(error.message)
                    return
            else:
                assert answer == to_hex(op_hash)
                self.ledger.acknowledged.add(op_hash)
                return
            await asyncio.sleep(0.02)

    async def _send(self, op: UserOperation) -> Any:
        if self.running is None:
            raise NodeUnreachable("it is dead")
        return await self.running.client.rpc.call("eth_sendUserOperation", op.to_rpc(), to_hex(V08.address))

    # What becomes of the bundler.

    async def live(self) -> None:
        """Start it, let it take a random number of operations (or none, or for three seconds), kill it at a random moment."""
        async with process(self.settings) as self.running:
            enough = len(self.ledger.acknowledged) + self.chance.randint(0, 25)
            with contextlib.suppress(AssertionError):  # a storm may be too wild for so many
                await until(lambda: asyncio.sleep(0, len(self.ledger.acknowledged) >= enough), "a few more", 3)
            await asyncio.sleep(self.chance.uniform(0, 0.1))
            self.running.process.kill()
            self.keep_log()
            self.running = None
        self.done["kills"] += 1

    def keep_log(self) -> None:
        assert self.running is not None
        self.logs = [*self.logs[-3:], self.running.output()]

    async def rage(self, kills: int, *, wallets: int = 6) -> None:
        """`kills` lives of a bundler under load."""
        # Before the storm, and deeper than any reorganisation: what a test sets on the chain goes with its block, too.
        accounts = [await self.deployed() for _ in range((wallets + 1) // 2)]
        newcomers = [await self.chain.account() for _ in range(5 * kills)]
        await self.chain.mine(DEEPEST_REORG + 1)
        self.quiet = self.calm = False
        world = [asyncio.ensure_future(self.mine()), asyncio.ensure_future(self.trouble())]
        people = [
            asyncio.ensure_future(self.wallet(accounts[i // 2], i % 2, sponsored=i % 3 == 0)) for i in range(wallets)
        ]
        people.append(asyncio.ensure_future(self.newcomers(newcomers)))
        try:
            for _ in range(kills):
                await self._survive(self.live())
                await asyncio.sleep(self.chance.uniform(0.0, 0.2))
            self.quiet = self.calm = True
            self.proxy.heal()
            await asyncio.gather(*people)
            async with process(self.settings) as self.running:
                try:
                    await self.settle()
                finally:
                    self.keep_log()
        finally:
            for task in (*world, *people):
                task.cancel()
            await asyncio.gather(*world, *people, return_exceptions=True)
            self.running = None

    async def _survive(self, life: Any) -> None:
        """A node in trouble may keep a bundler from coming up; a service manager tries again."""
        try:
            await life
        except (AssertionError, TimeoutError) as error:
            self.done["starts that failed"] += 1
            self.logs = [*self.logs[-3:], str(error)]

    async def deployed(self) -> SimpleAccount:
        """An account of its own on chain, rich enough for the whole storm."""
        await self.chain.automine(True)
        account = await self.chain.account(deployed=True, funds_wei=10**20)
        await self.chain.automine(False)
        return account

    async def settle(self) -> None:
        """Until nothing that was ever accepted is open, and all of it is final."""
        running = self.running
        assert running is not None

        async def settled() -> bool:
            status = await running.client.service()
            return not (status["validating"] or status["pending"] or status["inFlight"] or status["bundlesInFlight"])

        await until(settled, "everything is settled", 180)
        await self.chain.mine(FINALITY + 1)
        head = await self.chain.rpc.block_number()

        async def seen() -> bool:
            return int((await running.client.service())["lastBlock"] or "0x0", 16) >= head

        await until(seen, "the bundler saw the last block", 20)
        await until(settled, "everything is still settled", 20)

    async def reputation(self) -> tuple[int, int]:
        """Seen and included of the paymaster, as a bundler started now knows them."""
        async with process(self.settings) as running:
            dump = await running.client.rpc.call("debug_bundler_dumpReputation", to_hex(V08.address))
        for one in dump:
            if one["address"] == checksum(self.paymaster):
                return int(one["opsSeen"], 16), int(one["opsIncluded"], 16)
        return 0, 0

    async def judge(self) -> Verdict:
        """The ledger's verdict, the value that moved, the bundler's own answers, its reputation."""
        verdict = await judge(self.ledger, self.chain.rpc, *self.executors)
        paid = await self.chain.rpc.get_balance(TARGET)
        if paid != len(verdict.included):
            verdict.failures.append(f"{len(verdict.included)} operations are on chain, but {paid} wei were moved")
        async with process(self.settings) as running:
            for good in self.ledger.promised().values():
                for op_hash in good & set(verdict.transactions):
                    await self._compare(running, op_hash, verdict)
            status = await running.client.service()
            if any(status[name] for name in ("pending", "inFlight", "bundlesInFlight")):
                verdict.failures.append(f"after a restart the pool is not empty: {status}")
            if pool := await running.client.rpc.call("debug_bundler_dumpMempool", to_hex(V08.address)):
                verdict.failures.append(f"after a restart the pool holds {len(pool)} operations")
        sponsored = sum(op_hash in verdict.transactions for op_hash in self.ledger.paymasters)
        seen, counted = await self.reputation()
        if not sponsored == seen == counted:
            verdict.failures.append(f"REPUTATION: {sponsored} sponsored operations, seen {seen}, included {counted}")
        return verdict

    async def _compare(self, running: Process, op_hash: Hash32, verdict: Verdict) -> None:
        status = await running.client.status(op_hash)
        where = to_hex(verdict.transactions[op_hash])
        if status is None or status["status"] != "included" or status["transactionHash"] != where:
            verdict.failures.append(f"STATUS: {to_hex(op_hash)} is in {where}, the bundler says {status}")

    def report(self, verdict: Verdict) -> str:
        """One line for people."""
        happened = ", ".join(f"{count} {name}" for name, count in sorted((self.done + self.proxy.done).items()))
        return (
            f"{self.done['kills']} kills: {len(self.ledger.acknowledged)} operations acknowledged ({self.ledger.replaced} of them "
            f"replaced), {len(verdict.included)} included, {verdict.reverted_bundles} bundles reverted; {happened}"
        )


async def _second_key(chain: Chain, folder: Path) -> Path:
    """The file with the key of the second executor, who has money."""
    path = folder / "second.key"
    path.touch(mode=0o600)
    path.write_text(_SECOND_KEY.hex())
    await chain.rpc.call("anvil_setBalance", to_hex(Eoa(_SECOND_KEY).address), hex(10**22))
    return path


_PAY = bytes.fromhex("b61d27f6") + TARGET.rjust(32, b"\0") + (1).to_bytes(32) + (96).to_bytes(32) + bytes(32)
"""execute(TARGET, 1 wei, ""): whatever is included moves one wei."""
assert keccak(b"execute(address,uint256,bytes)")[:4] == _PAY[:4]
