"""A storm over several bundlers on one PostgreSQL database: some only answer, some build, all are killed at random, and so is the server."""

from __future__ import annotations

import asyncio
import contextlib
import signal
from collections.abc import AsyncIterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from bundler.settings import Settings
from contracts.entrypoint import V08
from contracts.errors import NodeUnreachable
from contracts.types import to_hex
from contracts.userop import UserOperation
from tests.bundler.rig import Chain, Process, process
from tests.chaos.ledger import Verdict
from tests.chaos.storm import Storm
from tests.postgres import Cluster

FRONTS = 2
BUILDERS = 2


@dataclass(slots=True)
class Fleet(Storm):
    """Every builder has every key and may lease one."""

    cluster: Cluster | None = None
    members: dict[int, Process] = field(default_factory=dict)
    """Those that run now."""
    places: list[asyncio.Future[None]] = field(default_factory=list)

    @classmethod
    @contextlib.asynccontextmanager
    async def sail(
        cls, chain: Chain, cluster: Cluster, folder: Path, seed: int, **changes: Any
    ) -> AsyncIterator[Fleet]:
        """A storm over processes that do not run yet."""
        shared: dict[str, Any] = {"store": cluster.database(), "lease_s": 1.5}
        async with cls.brew(chain, folder, seed, lanes=True, **(shared | changes)) as fleet:
            assert isinstance(fleet, Fleet)
            fleet.cluster = cluster
            yield fleet

    def settings_of(self, member: int) -> Settings:
        """The first ones only answer."""
        if member < FRONTS:
            return replace(self.settings, build_bundles=False, executor_key=None, lane_key_files=())
        return replace(self.settings, max_leased_keys=1)

    async def serve(self, member: int) -> None:
        """One place in the fleet: whenever its process dies, another takes it, as a service manager would have it."""
        while True:
            try:
                async with process(self.settings_of(member)) as running:
                    self.members[member] = running
                    await running.process.wait()
                    self.logs = [*self.logs[-7:], running.output()]
            except (AssertionError, TimeoutError) as error:
                self.done["starts that failed"] += 1
                self.logs = [*self.logs[-7:], str(error)]
                await asyncio.sleep(0.2)
            finally:
                self.members.pop(member, None)

    async def rage(self, kills: int, *, wallets: int = 6) -> None:
        self.places = [asyncio.ensure_future(self.serve(member)) for member in range(FRONTS + BUILDERS)]
        try:
            await Storm.rage(self, kills, wallets=wallets)
        finally:
            await self._retire()

    async def _retire(self) -> None:
        for place in self.places:
            place.cancel()
        await asyncio.gather(*self.places, return_exceptions=True)
        self.members.clear()

    async def live(self) -> None:
        """Let them work for a moment, then kill one of them, or freeze one for longer than its lease, or crash the server."""
        assert self.cluster is not None
        await asyncio.sleep(self.chance.uniform(0.3, 2.5))
        dice = self.chance.random()
        if dice < 0.1:
            self.done["server crashes"] += 1
            await asyncio.to_thread(self.cluster.stop, signal.SIGQUIT)
            await asyncio.to_thread(self.cluster.start)
            return
        if not self.members:
            return
        member = self.chance.choice(sorted(self.members))
        running = self.members[member]
        if dice < 0.3:
            self.done["frozen"] += 1
            running.process.send_signal(signal.SIGSTOP)
            await asyncio.sleep(self.chance.uniform(1.0, 4.0))
            running.process.send_signal(signal.SIGCONT)
            return
        running.process.kill()
        await running.process.wait()
        self.done["kills"] += 1

    async def _send(self, op: UserOperation) -> Any:
        alive = [*self.members.values(), *([self.running] if self.running else [])]
        if not alive:
            raise NodeUnreachable("all are dead")
        client = self.chance.choice(alive).client
        try:
            return await client.rpc.call("eth_sendUserOperation", op.to_rpc(), to_hex(V08.address))
        except RuntimeError as error:  # its connection was closed meanwhile, for it died
            raise NodeUnreachable(str(error)) from error

    async def judge(self) -> Verdict:
        """The verdict of a storm; and on whose lease each transaction was signed: a token is one process's, and none comes back.

        Of one nonce's transactions the later pays more, or as much. Of different nonces none can be told to be later: after a reorganisation
        the holder of a later lease raises a nonce below those that an earlier one used.
        """
        verdict = await Storm.judge(self)
        assert self.cluster is not None
        rows = self.cluster.execute(
            self.settings.store,
            "SELECT encode(executor, 'hex'), nonce, token, holder FROM seawall_bundler.bundles WHERE token IS NOT NULL "
            "ORDER BY executor, nonce, max_fee_wei, token",
        )
        holders: dict[Any, Any] = {}
        last: dict[Any, Any] = {}
        for executor, nonce, token, holder in rows:
            if holders.setdefault((executor, token), holder) != holder:
                verdict.failures.append(f"KEY: {executor} was used by two processes on one lease ({token})")
            if last.get((executor, nonce), 0) > token:
                verdict.failures.append(f"KEY: {executor} was used on lease {token} after a later one")
            last[executor, nonce] = token
        self.done["leases used"] = len(holders)
        self.done["processes that signed"] = len(set(holders.values()))
        return verdict
