"""The cheap pass accepts nothing that the full trace refuses: both ways over contracts made up at random that break every rule.

`make soundness` runs 10,000 of them (or as many as SEAWALL_SOUNDNESS says), CI a few hundred.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import count

from bundler import simulation
from bundler.cheap import CheapPass
from bundler.gas import validation_gas_limit
from bundler.simulation import StakeFloor, Validation
from contracts.errors import OperationRejected
from contracts.rpc import RpcClient
from contracts.types import Address, keccak, to_hex
from contracts.userop import Candidate
from tests.bundler.erc7562.generator import EXECUTOR, Case, Generator
from tests.bundler.rig import Chain

CASES = int(os.environ.get("SEAWALL_SOUNDNESS", "250"))
FIRST = int(os.environ.get("SEAWALL_SOUNDNESS_FIRST", "0"))
"""The first case, for several processes that share the work."""
FLOOR = StakeFloor(10**17, 86_400)
REFUSALS = {
    "OP-011", "OP-012", "OP-013", "OP-020", "OP-031", "OP-041", "OP-054", "OP-061", "OP-080", "STO-021", "STO-022", "STO-031", "STO-032",
    "STO-033", "EREP-050", "LIM-020", "AUTH-020", "AUTH-030",
}  # fmt: skip
"""Every rule id by which a trace can be refused."""
GENERATION = "a"


@dataclass(slots=True)
class Tally:
    """What came of the cases."""

    accepted: int = 0
    cheap_at_once: int = 0
    cheap_when_learnt: int = 0
    refused_cheaply: int = 0
    rules: Counter[str] = field(default_factory=Counter)
    false_accepts: list[str] = field(default_factory=list)
    false_refusals: list[str] = field(default_factory=list)
    differences: list[str] = field(default_factory=list)


async def put(rpc: RpcClient, case: Case) -> None:
    """The contracts of a case on chain, with deposits and stakes written into the entry point's storage."""
    funds = hex(10**24)  # the deposits below are written, not paid in
    calls: list[tuple[str, Sequence[object]]] = [("anvil_setBalance", (to_hex(case.entry_point.address), funds))]
    for address, code in case.codes.items():
        calls.append(("anvil_setCode", (to_hex(address), to_hex(code))))
    for (address, slot), value in case.storage.items():
        calls.append(("anvil_setStorageAt", (to_hex(address), _word(slot), _word(value))))
    for address, wei in case.balance_wei.items():
        calls.append(("anvil_setBalance", (to_hex(address), hex(wei))))
        calls.append(
            ("anvil_setStorageAt", (to_hex(case.entry_point.address), _word(_deposit_slot(address)), _word(10**18)))
        )
    for address in case.staked:
        stake = 1 | 10**18 << 8 | 86_400 << 120
        slot = _deposit_slot(address) + 1
        calls.append(("anvil_setStorageAt", (to_hex(case.entry_point.address), _word(slot), _word(stake))))
    await rpc.batch(calls)


def _deposit_slot(address: Address) -> int:
    return int.from_bytes(keccak(address.rjust(32, b"\0") + bytes(32)))


def _word(value: int) -> str:
    return "0x" + value.to_bytes(32).hex()


async def judge(rpc: RpcClient, cheap: CheapPass, case: Case, tally: Tally) -> None:
    """Both ways; the cheap one a second time with what it learnt."""
    op = case.op
    candidates = [Candidate(op)]
    gas = validation_gas_limit(case.entry_point, [], op)
    call = simulation.handle_ops_call(case.entry_point, [op], EXECUTOR, EXECUTOR, gas)

    async def cheaply() -> Validation | OperationRejected | None:
        try:
            return await simulation.validate_cheaply(cheap, case.entry_point, candidates, call, 0, FLOOR)
        except OperationRejected as refusal:
            return refusal

    async def fully() -> Validation | OperationRejected:
        try:
            return await simulation.validate_in_full(rpc, case.entry_point, candidates, call, 0, FLOOR, cheap)
        except OperationRejected as refusal:
            return refusal

    async def plainly() -> Validation | OperationRejected:
        """The entry point's word alone, which no rule can overturn if it refuses."""
        try:
            return await simulation.validate(rpc, case.entry_point, Candidate(op), executor=EXECUTOR)
        except OperationRejected as refusal:
            return refusal

    first = await cheaply()
    full = await (plainly() if isinstance(first, OperationRejected) else fully())
    second = await cheaply() if first is None else first
    what = f"seed {case.seed} {case.entry_point.version} {case.deeds}: "
    if isinstance(first, OperationRejected):
        tally.refused_cheaply += 1
    elif isinstance(full, OperationRejected):
        tally.rules[full.rule or type(full).__name__] += 1
    else:
        tally.accepted += 1
        tally.cheap_at_once += isinstance(first, Validation)
        tally.cheap_when_learnt += isinstance(second, Validation)
    for found in (first, second):
        if isinstance(found, Validation):
            if isinstance(full, OperationRejected):
                tally.false_accepts.append(f"{what}{full.rule} {full.message}")
            elif (found.data, found.entities, found.code_hashes, found.deposits) != (
                full.data, full.entities, full.code_hashes, full.deposits
            ) or not full.contracts <= found.contracts:  # fmt: skip
                tally.differences.append(f"{what}{found} {full}")
        elif isinstance(found, OperationRejected) and (isinstance(full, Validation) or full.message != found.message):
            tally.false_refusals.append(f"{what}{found.message} / {full}")


async def test_cheap_pass_accepts_nothing_that_the_full_trace_refuses(own_chain: Chain) -> None:
    tally = Tally()
    rpc = own_chain.rpc
    await rpc.call("anvil_setBalance", to_hex(EXECUTOR), hex(10**24))
    cheap = CheapPass(rpc)
    for seed in count(FIRST):
        if seed >= FIRST + CASES and (tally.rules.keys() >= REFUSALS or seed >= FIRST + 3 * CASES):
            break  # enough, once every rule was broken
        case = Generator(seed, GENERATION).case()
        await put(rpc, case)
        await judge(rpc, cheap, case, tally)
        if case.storage:  # what was learnt on one side of a branch meets the other
            await put(rpc, case.turned())
            await judge(rpc, cheap, case.turned(), tally)
        if seed % 100 == 99 and CASES > 1_000:
            print(f"{seed + 1} cases: {tally}", flush=True)
    print(f"{seed - FIRST} cases: {tally}")
    assert tally.false_accepts == []
    assert tally.false_refusals == []
    assert tally.differences == []
    assert tally.cheap_when_learnt > tally.accepted * 0.6  # else the test says little
    assert {rule for rule in tally.rules if "-" in rule} == REFUSALS
