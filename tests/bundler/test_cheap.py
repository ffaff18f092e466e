"""The cheap pass on a real chain: what it proves at once, what it learns, and when it leaves the decision to the full trace."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from bundler import simulation
from bundler.cheap import CheapPass
from bundler.erc7562.evidence import parse_calls, slots_touched
from bundler.erc7562.rules import RuleBroken
from bundler.simulation import StakeFloor, Validation
from contracts.entrypoint import V08, EntryPoint
from contracts.errors import BadSignature, NodeError, RejectedByEntryPoint, RpcError
from contracts.rpc import RpcClient
from contracts.types import to_hex
from contracts.userop import Candidate, UserOperation
from tests.bundler.assembly import asm
from tests.bundler.erc7562.test_safe_mode import PAYS, VALID, account_running, mapping_of
from tests.bundler.rig import Chain, serving, settings_for, with_limits
from tests.bundler.test_refusals import EACH

FLOOR = StakeFloor(10**17, 86_400)


async def validate(
    chain: Chain, op: UserOperation, cheap: CheapPass | None, entry_point: EntryPoint = V08, **options: Any
) -> Validation:
    executor = chain.accounts.bundler.address
    return await simulation.validate(
        chain.rpc, entry_point, Candidate(op), executor=executor, floor=FLOOR, cheap=cheap, **options
    )


class Recorded(RpcClient):
    """Counts what the node is asked, and refuses what a test does not want."""

    def __init__(self, url: str, refuse: str = "") -> None:
        super().__init__(url)
        self.asked: list[tuple[str, Sequence[object]]] = []
        self.refuse = refuse

    async def call(self, method: str, *params: object) -> Any:
        return (await self.batch([(method, params)]))[0]

    async def batch(self, calls: Sequence[tuple[str, Sequence[object]]]) -> list[Any]:
        self.asked += calls
        if self.refuse and any(self.refuse in str(params) for _, params in calls):
            raise RpcError(-32601, "not here", method=calls[0][0])
        return await super().batch(calls)


@EACH
async def test_account_behind_a_proxy_is_proven_at_once_and_with_the_same_findings(
    shared_chain: Chain, entry_point: EntryPoint
) -> None:
    cheap = CheapPass(shared_chain.rpc)
    for _ in range(2):
        account = await shared_chain.account(entry_point, deployed=True)
        op = await account.operation()
        assert await validate(shared_chain, op, cheap, entry_point) == await validate(
            shared_chain, op, None, entry_point
        )
    assert cheap.counts == {"cheap": 2, "full": 0}


async def test_code_that_is_known_is_not_fetched_again(shared_chain: Chain) -> None:
    accounts = [await shared_chain.account(deployed=True) for _ in range(2)]
    async with Recorded(shared_chain.anvil.url) as rpc:
        cheap = CheapPass(rpc)
        for account in accounts:
            rpc.asked.clear()
            await validate(shared_chain, await account.operation(), cheap)
    assert [method for method, _ in rpc.asked].count("eth_getCode") == 0
    assert [method for method, _ in rpc.asked].count("debug_traceCall") == 2


async def test_associated_storage_is_proven_once_its_mapping_was_learnt(shared_chain: Chain) -> None:
    token = await shared_chain.put(asm(f"{mapping_of('CALLER')} 3 ADD SLOAD POP STOP"))
    cheap = CheapPass(shared_chain.rpc)
    for expected in ({"cheap": 0, "full": 1}, {"cheap": 1, "full": 1}):
        op = await account_running(shared_chain, f"0 0 0 0 0 {int.from_bytes(token)} GAS CALL POP")
        await validate(shared_chain, op, cheap)
        assert cheap.counts == expected


async def test_forbidden_opcode_that_is_not_reached_costs_no_trace(shared_chain: Chain) -> None:
    cheap = CheapPass(shared_chain.rpc)
    account = await shared_chain.put(asm(f"0 SLOAD @later JUMPI {VALID} later: TIMESTAMP POP {VALID}"), deposit_on=V08)
    op = with_limits(UserOperation(account, 0, b""))
    await validate(shared_chain, op, cheap)
    assert cheap.counts == {"cheap": 1, "full": 0}
    await shared_chain.rpc.call("anvil_setStorageAt", to_hex(account), "0x" + "00" * 32, "0x" + "00" * 31 + "01")
    with pytest.raises(RuleBroken, match="TIMESTAMP"):
        await validate(shared_chain, op, cheap)


async def test_forbidden_opcode_in_a_call_that_reverts_is_found(shared_chain: Chain) -> None:
    hidden = await shared_chain.put(asm("TIMESTAMP POP 0 0 REVERT"))
    op = await account_running(shared_chain, f"0 0 0 0 0 {int.from_bytes(hidden)} GAS CALL POP")
    with pytest.raises(RuleBroken, match="TIMESTAMP"):
        await validate(shared_chain, op, CheapPass(shared_chain.rpc))


async def test_refusal_of_the_entry_point_needs_no_trace_of_steps(shared_chain: Chain) -> None:
    account = await shared_chain.account(deployed=True)
    op = await account.operation()
    forged = op.replace(signature=op.signature[:-2] + b"\0\x1b")
    reverting = with_limits(
        UserOperation(await shared_chain.put(asm("TIMESTAMP POP 0 0 REVERT"), deposit_on=V08), 0, b"")
    )
    async with Recorded(shared_chain.anvil.url, refuse="keccaks") as rpc:  # of the full tracer
        cheap = CheapPass(rpc)
        for refused, kind in ((forged, BadSignature), (reverting, RejectedByEntryPoint)):
            with pytest.raises(kind):
                await simulation.validate(
                    rpc,
                    V08,
                    Candidate(refused),
                    executor=shared_chain.accounts.bundler.address,
                    floor=FLOOR,
                    cheap=cheap,
                )


async def test_staked_paymasters_storage_is_its_own_unless_the_account_reads_it_too(shared_chain: Chain) -> None:
    paymaster = await shared_chain.put(asm(f"5 SLOAD POP {PAYS}"), deposit_on=V08)
    await shared_chain.stake(V08, paymaster)
    cheap = CheapPass(shared_chain.rpc)
    account = await shared_chain.account(deployed=True)
    await validate(shared_chain, account.sign(with_limits((await account.draft()).replace(paymaster=paymaster))), cheap)
    assert cheap.counts == {"cheap": 1, "full": 0}
    peeping = await account_running(shared_chain, f"0 0 0 0 0 {int.from_bytes(paymaster)} GAS CALL POP")
    with pytest.raises(RuleBroken) as caught:
        await validate(
            shared_chain, peeping.replace(paymaster=paymaster, paymaster_verification_gas_limit=100_000), cheap
        )
    assert caught.value.rule == "STO-033"


async def test_operation_behind_another_of_its_sender_is_proven(shared_chain: Chain) -> None:
    account = await shared_chain.account(deployed=True)
    first = await account.operation()
    second = account.sign(first.replace(nonce=first.nonce + 1))
    cheap = CheapPass(shared_chain.rpc)
    await validate(shared_chain, second, cheap, prefix=[Candidate(first)])
    assert cheap.counts == {"cheap": 1, "full": 0}


async def test_deployment_is_traced_in_full(shared_chain: Chain) -> None:
    cheap = CheapPass(shared_chain.rpc)
    await validate(shared_chain, await (await shared_chain.account()).operation(), cheap)
    assert cheap.counts == {"cheap": 0, "full": 1}


async def test_node_that_refuses_cheap_runs_is_asked_eight_times_and_no_more(shared_chain: Chain) -> None:
    account = await shared_chain.account(deployed=True)
    op = await account.operation()
    async with Recorded(shared_chain.anvil.url, refuse="prestateTracer") as rpc:
        cheap = CheapPass(rpc)
        for _ in range(9):
            rpc.asked.clear()
            await validate(shared_chain, op, cheap)
    assert cheap.counts == {"cheap": 0, "full": 9}
    assert rpc.asked == []


async def test_flood_of_calls_makes_an_answer_of_bounded_size(shared_chain: Chain) -> None:
    target = await shared_chain.put(asm("STOP"))
    flood = f"0 100000 MSTORE 0 loop: 1 ADD 0 0 100000 0 0 {int.from_bytes(target)} 0xffff CALL POP DUP1 500 SUB @loop JUMPI POP"
    op = await account_running(shared_chain, flood)
    async with Recorded(shared_chain.anvil.url) as rpc:
        cheap = CheapPass(rpc)
        validation = await validate(shared_chain, op.replace(verification_gas_limit=1_000_000), cheap)
        call = next(params for method, params in rpc.asked if method == "debug_traceCall")
        answer = await shared_chain.rpc.call("debug_traceCall", *call)
    assert cheap.counts == {"cheap": 1, "full": 0}
    assert validation.head.number > 0
    assert len(str(answer)) < 500 * 400  # 500 calls of 100 kB each: 50 MB of input


async def test_cheap_pass_can_be_switched_off(shared_chain: Chain, tmp_path: Path) -> None:
    account = await shared_chain.account(deployed=True)
    async with serving(settings_for(shared_chain, tmp_path, cheap_pass=False)) as client:
        await client.send(await account.operation())
        assert (await client.service())["validations"] == {}


@pytest.mark.parametrize(
    "answer", [None, {}, {"calls": [[5]]}, {"calls": [[3, "CALL", "0x", "0x", "0", "0x", 0, "", "0x"]]}]
)
def test_answer_that_is_no_list_of_calls_is_an_error_of_the_node(answer: object) -> None:
    with pytest.raises(NodeError, match="cannot be read"):
        parse_calls(answer)


@pytest.mark.parametrize("answer", [None, [], {"0xzz": {}}, {"0x00": {"storage": {"x": 1}}}])
def test_answer_that_is_no_state_is_an_error_of_the_node(answer: object) -> None:
    with pytest.raises(NodeError, match="cannot be read"):
        slots_touched(answer)
