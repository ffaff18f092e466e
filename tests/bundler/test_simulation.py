"""What the bundler learns of a bundle by running it in the node."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest

from bundler import simulation
from contracts.entrypoint import V08
from contracts.types import Address, to_hex
from contracts.userop import UserOperation
from tests.bundler.assembly import asm
from tests.bundler.rig import TARGET, Chain, with_limits

CALLS_WITH_LONG_INPUTS = asm(
    "again: PUSH0 PUSH0 0x20000 PUSH0 PUSH0 4 700 GAS SUB CALL POP 9000 GAS GT @again JUMPI STOP"
)
REVERTS = asm("0x1234 PUSH0 MSTORE 32 PUSH0 REVERT")
BUNDLER = b"\xbb" * 20


async def operation(chain: Chain, to: Address, gas: int = 500_000) -> UserOperation:
    account = await chain.account(funds_wei=10**19)
    return account.sign(with_limits(await account.draft(to=to, value_wei=0), call_gas_limit=gas))


def bundle(ops: list[UserOperation]) -> dict[str, str]:
    return simulation.handle_ops_call(V08, ops, BUNDLER, BUNDLER, 15_000_000)


PLENTY = {to_hex(BUNDLER): {"balance": hex(10**24)}}


@pytest.mark.parametrize(
    "case", ["nothing", "one", "several", "a reverting call", "a wrong signature", "too little gas"]
)
async def test_the_outcome_is_what_the_whole_call_tree_says(shared_chain: Chain, case: str) -> None:
    ops = {
        "nothing": [],
        "a reverting call": [await operation(shared_chain, await shared_chain.put(REVERTS))],
        "several": [await operation(shared_chain, TARGET) for _ in range(3)],
    }.get(case, [await operation(shared_chain, TARGET)])
    if case == "a wrong signature":
        ops = [replace(ops[0], signature=bytes(65))]
    call = bundle(ops)
    if case == "too little gas":
        call["gas"] = hex(60_000)
    _, tree = await simulation.trace(shared_chain.rpc, call, gas_price_wei=10**9, state=PLENTY)
    _, outcome = await simulation.trace(shared_chain.rpc, call, gas_price_wei=10**9, state=PLENTY, outcome_only=True)
    assert outcome["gasUsed"] == tree["gasUsed"]
    assert simulation.output(outcome) == simulation.output(tree)
    assert bool(outcome.get("error")) == bool(tree.get("error"))
    wanted = [(call["to"], int(call.get("value", "0x0"), 16)) for call in tree.get("calls", [])[-1:]]
    assert [(call["to"], int(call["value"], 16)) for call in outcome["calls"]] == wanted
    assert (not tree.get("error")) == (case not in ("a wrong signature", "too little gas"))


async def test_the_outcome_is_small_whatever_an_operation_does(shared_chain: Chain) -> None:
    flood = await shared_chain.put(CALLS_WITH_LONG_INPUTS)
    call = bundle([await operation(shared_chain, flood, 3_000_000)])
    _, outcome = await simulation.trace(shared_chain.rpc, call, gas_price_wei=10**9, state=PLENTY, outcome_only=True)
    assert len(json.dumps(outcome)) < 500
    assert not outcome["error"]
    _, tree = await simulation.trace(shared_chain.rpc, call, gas_price_wei=10**9, state=PLENTY)
    assert len(json.dumps(tree)) > 10_000_000, "or else it would prove nothing"


def test_the_tracer_of_outcomes_ships_with_the_package() -> None:
    assert "callTracer" in simulation.outcome_tracer()
