"""Operations meant to hurt: memory and latency stay bounded, honest operations still land.

Short form: dozens of operations each. SEAWALL_CHAOS_CROWD=10000 is the long form of the crowd behind one factory (`make chaos`).
"""

from __future__ import annotations

import asyncio
import io
import os
import time
from collections.abc import AsyncIterator, Awaitable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from contracts.abi import Function
from contracts.devnet.accounts import devnet_key
from contracts.entrypoint import V08
from contracts.eoa import Eoa
from contracts.errors import RpcError
from contracts.types import Address, Hash32, parse_hash, to_hex
from contracts.userop import UserOperation
from tests.bundler.assembly import asm
from tests.bundler.rig import (
    CREATE_ACCOUNT,
    GET_ADDRESS,
    PAYMASTER_OK,
    Chain,
    Process,
    SimpleAccount,
    process,
    settings_for,
    until,
    with_limits,
)

pytestmark = pytest.mark.chaos
CROWD = int(os.environ.get("SEAWALL_CHAOS_CROWD", "40"))
MEGABYTE = 1 << 20
SLOWEST_S = 5.0
"""No request of a stranger waits longer than this while the attack runs, on a machine that others use, too."""


@pytest.fixture(scope="module")
async def chain(saved_chain: tuple[Path, dict[str, Address]]) -> AsyncIterator[Chain]:
    async with Chain.start(*saved_chain) as started:
        yield started


@pytest.fixture(scope="module")
async def running(chain: Chain, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Process]:
    """In safe mode, as a public bundler runs; one for all attacks, so that what each leaves behind adds up."""
    async with process(settings_for(chain, tmp_path_factory.mktemp("bundler"))) as started:
        await Honest(chain, started).lands()  # warm: what it needs once is not the attack's
        yield started


def resident_bytes(running: Process) -> int:
    """Memory of the process, as the kernel counts it."""
    for line in Path(f"/proc/{running.process.pid}/status").read_text().splitlines():
        if line.startswith("VmRSS:"):
            return int(line.split()[1]) * 1024
    raise AssertionError("the process is gone")


@dataclass(slots=True)
class Honest:
    """A wallet that minds its own business, and measures."""

    chain: Chain
    running: Process
    slowest_s: float = 0.0
    answered: int = 0
    landed: int = 0
    _task: asyncio.Task[None] | None = field(default=None)

    async def lands(self) -> None:
        """One operation from acknowledgement to inclusion."""
        op = await (await self.chain.account()).operation()

        async def accepted() -> Hash32 | None:
            """A full pool has room again when a bundle is in."""
            try:
                return await self.running.client.send(op)
            except RpcError as error:
                if error.rpc_code != -32504:
                    raise
                return None

        op_hash = await until(accepted, "an honest operation is accepted", 60)
        found: dict[str, Any] = await until(
            lambda: self.running.client.receipt(op_hash), "an honest operation is included", 60
        )
        assert found["success"] is True
        self.landed += 1

    async def _look(self) -> None:
        while True:
            started_s = time.monotonic()
            await self.running.client.rpc.call("eth_chainId")
            self.slowest_s = max(self.slowest_s, time.monotonic() - started_s)
            self.answered += 1
            await asyncio.sleep(0.01)

    async def during(self, attack: Awaitable[Any], *, growth_bytes: int) -> Any:
        """What the attack returned. Meanwhile requests are answered in time, and honest operations land; memory stays bounded."""
        before = resident_bytes(self.running)
        look = asyncio.ensure_future(self._look())
        under_attack = asyncio.ensure_future(attack)
        try:
            await self.lands()
            result = await under_attack
            await self.lands()
        finally:
            look.cancel()
            await asyncio.gather(look, return_exceptions=True)
        assert self.answered > 0
        assert self.slowest_s < SLOWEST_S
        grown = resident_bytes(self.running) - before
        assert grown < growth_bytes, f"{grown / MEGABYTE:.0f} MB more than before the attack"
        return result


async def outcomes(running: Process, ops: list[UserOperation], at_once: int = 16) -> list[Hash32 | RpcError]:
    """Send them all, some at a time; what was answered to each."""
    places = asyncio.Semaphore(at_once)

    async def one(op: UserOperation) -> Hash32 | RpcError:
        async with places:
            try:
                return await running.client.send(op)
            except RpcError as error:
                return error

    return await asyncio.gather(*(one(op) for op in ops))


def refusals(answers_: list[Hash32 | RpcError]) -> list[RpcError]:
    return [answer for answer in answers_ if isinstance(answer, RpcError)]


BURNS_ALL_GAS = asm("again: @again JUMP")
RETURNS_A_MEGABYTE = asm("0x100000 PUSH0 RETURN")
REVERTS_WITH_A_MEGABYTE = asm("0x100000 PUSH0 REVERT")
CALLS_WITH_LONG_INPUTS = asm(
    "again: PUSH0 PUSH0 0x20000 PUSH0 PUSH0 4 700 GAS SUB CALL POP 9000 GAS GT @again JUMPI STOP"
)


@pytest.mark.parametrize(
    "code",
    [BURNS_ALL_GAS, RETURNS_A_MEGABYTE, REVERTS_WITH_A_MEGABYTE],
    ids=["burns all gas", "returns a megabyte", "reverts with a megabyte"],
)
async def test_bombs_in_validation_are_refused_and_hurt_nobody(chain: Chain, running: Process, code: bytes) -> None:
    accounts = [await chain.put(code, deposit_on=V08) for _ in range(4)]
    ops = [
        with_limits(UserOperation(account, nonce << 64, b""), verification_gas_limit=4_000_000)
        for nonce in range(3)
        for account in accounts
    ]
    answered = await Honest(chain, running).during(outcomes(running, ops), growth_bytes=100 * MEGABYTE)
    if code != RETURNS_A_MEGABYTE:
        assert len(refusals(answered)) == len(ops)
    for refusal in refusals(answered):
        assert len(refusal.message) < 1_000


async def test_bombs_in_execution_cost_their_sender_and_nobody_else(chain: Chain, running: Process) -> None:
    """Validation passes; the call burns all its gas, returns a megabyte, or makes hundreds of calls with long inputs."""
    codes = (BURNS_ALL_GAS, RETURNS_A_MEGABYTE, REVERTS_WITH_A_MEGABYTE, CALLS_WITH_LONG_INPUTS)
    bombs = [await chain.put(code) for code in codes]
    ops: list[UserOperation] = []
    for bomb in bombs:
        account = await chain.account(funds_wei=10**19)
        op = with_limits(await account.draft(to=bomb, value_wei=0), call_gas_limit=6_000_000)
        ops.append(account.sign(op))
    answered = await Honest(chain, running).during(outcomes(running, ops), growth_bytes=100 * MEGABYTE)
    for answer in answered:
        assert isinstance(answer, bytes)
        assert (await running.client.included(answer))["actualGasUsed"]


async def test_huge_call_data_is_refused_before_the_node_sees_it(chain: Chain, running: Process) -> None:
    account = await chain.account(deployed=True)
    ops = [with_limits(UserOperation(account.address, 0, os.urandom(200_000))) for _ in range(40)]
    answered = await Honest(chain, running).during(outcomes(running, ops), growth_bytes=100 * MEGABYTE)
    assert {refusal.rpc_code for refusal in refusals(answered)} == {-32602}
    assert len(refusals(answered)) == len(ops)


async def test_deep_json_and_huge_bodies_are_refused_at_once(chain: Chain, running: Process) -> None:
    bodies = [
        b"[" * 500_000,
        b'{"a":' * 150_000 + b"1" + b"}" * 150_000,
        b'{"jsonrpc":"2.0","id":1,"method":"eth_sendUserOperation","params":[' + b"[" * 900_000,
        b'{"x":"' + b"a" * 3_000_000 + b'"}',
        b'{"jsonrpc":"2.0","id":1,"method":"eth_chainId","params":[' + b"1," * 400_000 + b"1]}",
        b"[" + b",".join([b'{"jsonrpc":"2.0","id":1,"method":"eth_chainId"}'] * 15_000) + b"]",
        b'{"jsonrpc":"2.0","id":' + b"9" * 800_000 + b',"method":"eth_chainId"}',
    ]

    async def attack() -> list[tuple[int, Any]]:
        async with aiohttp.ClientSession() as session:

            async def post(body: bytes) -> tuple[int, Any]:
                async with session.post(running.client.rpc.url, data=io.BytesIO(body)) as response:
                    return response.status, await response.json()

            return list(await asyncio.gather(*(post(body) for body in bodies * 4)))

    for status, answer in await Honest(chain, running).during(attack(), growth_bytes=150 * MEGABYTE):
        assert status == 200
        assert answer["error"]["code"] in (-32700, -32600, -32602)


async def test_a_flood_of_bad_signatures_is_refused_one_by_one(chain: Chain, running: Process) -> None:
    account = await chain.account(deployed=True)
    good = await account.operation()
    # A signature's zero byte that is one no more costs call data gas: that must not be what is wrong with it.
    good = account.sign(good.replace(pre_verification_gas=good.pre_verification_gas + 1_000))
    signatures = [good.signature[:-2] + bytes([i % 256, 27 + i % 2]) for i in range(CROWD)]
    ops = [good.replace(signature=signature) for signature in signatures if signature != good.signature]
    answered = await Honest(chain, running).during(outcomes(running, ops), growth_bytes=100 * MEGABYTE)
    assert len(refusals(answered)) == len(ops)
    assert {refusal.rpc_code for refusal in refusals(answered)} <= {-32507, -32500}


async def test_operations_that_all_become_invalid_at_once_are_dropped_and_the_honest_land(
    chain: Chain, running: Process
) -> None:
    """Each account's validation reads its own slot, as it may; then all slots change."""
    code = asm("PUSH0 SLOAD PUSH0 MSTORE 32 PUSH0 RETURN")  # what is in slot 0 is the answer: 0 is valid, 1 is not
    accounts = [await chain.put(code, deposit_on=V08) for _ in range(24)]
    await chain.automine(False)
    stuck = await running.client.send(await (await chain.account()).operation())
    await running.client.sent(stuck, chain)
    ops = [with_limits(UserOperation(account, 0, b"")) for account in accounts]
    answered = await outcomes(running, ops)
    hashes = [answer for answer in answered if isinstance(answer, bytes)]
    assert len(hashes) == len(ops), refusals(answered)
    for account in accounts:
        await chain.rpc.call("anvil_setStorageAt", to_hex(account), "0x0", "0x" + "00" * 31 + "01")

    async def world() -> None:
        await chain.automine(True)
        await chain.mine()
        for op_hash in hashes:
            await running.client.becomes(op_hash, "dropped")

    await Honest(chain, running).during(world(), growth_bytes=100 * MEGABYTE)
    await running.client.becomes(stuck, "included")
    for op_hash in hashes:
        assert "AA24" in ((await running.client.status(op_hash)) or {})["reason"]


async def test_a_paymaster_that_takes_its_deposit_away_costs_no_gas(chain: Chain, running: Process) -> None:
    paymaster = await chain.put(PAYMASTER_OK, deposit_on=V08, deposit_wei=10**20)
    accounts = [await chain.account(deployed=True) for _ in range(8)]
    await chain.automine(False)
    stuck = await running.client.send(await (await chain.account()).operation())
    await running.client.sent(stuck, chain)
    ops = [account.sign(with_limits((await account.draft()).replace(paymaster=paymaster))) for account in accounts]
    answered = await outcomes(running, ops)
    hashes = [answer for answer in answered if isinstance(answer, bytes)]
    assert len(hashes) == len(ops), refusals(answered)

    async def drain() -> None:
        await chain.automine(True)
        withdraw = Function.parse("withdrawTo(address,uint256)")
        await chain.rpc.call("anvil_setBalance", to_hex(paymaster), hex(10**18))
        await chain.rpc.call("anvil_impersonateAccount", to_hex(paymaster))
        # In the same block, before the bundle can know: the price is higher.
        call = {
            "from": to_hex(paymaster),
            "to": to_hex(V08.address),
            "data": to_hex(withdraw.encode(paymaster, 10**20)),
            "gas": hex(100_000),
            "maxFeePerGas": hex(10**12),
            "maxPriorityFeePerGas": hex(10**11),
        }
        await chain.rpc.wait_receipt(parse_hash(await chain.rpc.call("eth_sendTransaction", call)))
        await chain.mine()
        for op_hash in hashes:
            await running.client.becomes(op_hash, "dropped")

    await Honest(chain, running).during(drain(), growth_bytes=100 * MEGABYTE)
    for op_hash in hashes:
        assert "AA31" in ((await running.client.status(op_hash)) or {})["reason"]
        assert await chain.receipts_of(V08, op_hash) == []
    await running.client.becomes(stuck, "included")


async def test_a_crowd_of_senders_behind_one_factory_leaves_room_for_others(chain: Chain, running: Process) -> None:
    """Every sender is new, all come from one factory, and each is funded: no rule is broken, there are only many."""
    factory = chain.factories[V08.version]
    ops: list[UserOperation] = []
    owners = [Eoa(devnet_key(f"crowd {i}")) for i in range(CROWD)]
    for start in range(0, CROWD, 200):
        some = owners[start : start + 200]
        calls = [
            ("eth_call", ({"to": to_hex(factory), "data": to_hex(GET_ADDRESS.encode(o.address, 0))}, "latest"))
            for o in some
        ]
        senders = [bytes.fromhex(answer[-40:]) for answer in await chain.rpc.batch(calls)]
        await chain.rpc.batch([("anvil_setBalance", (to_hex(sender), hex(10**18))) for sender in senders])
        for owner, sender in zip(some, senders, strict=True):
            account = SimpleAccount(chain.rpc, V08, sender, owner, factory)
            op = UserOperation(
                sender=sender,
                nonce=0,
                call_data=b"",
                max_fee_per_gas=20 * 10**9,
                max_priority_fee_per_gas=10**9,
                factory=factory,
                factory_data=CREATE_ACCOUNT.encode(owner.address, 0),
            )
            ops.append(account.sign(with_limits(op)))
    answered = await Honest(chain, running).during(outcomes(running, ops), growth_bytes=100 * MEGABYTE + CROWD * 16_384)
    hashes = [answer for answer in answered if isinstance(answer, bytes)]
    for refusal in refusals(answered):
        assert refusal.rpc_code == -32504, refusal.message
    assert hashes
    await until(lambda: _included(running, hashes[-1]), "the crowd is served, too", 60 + CROWD / 20)


async def _included(running: Process, op_hash: Hash32) -> bool:
    status = await running.client.status(op_hash)
    return bool(status and status["status"] == "included")
