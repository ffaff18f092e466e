"""Validation on the real entry point: a traced `handleOps`, its FailedOp as a typed error, validity read from return data.

No simulation contract is needed. The entry point reports every failure of validation by reverting the bundle, and what
validation answered stands in the call trace. In safe mode the same trace is judged by the rules of ERC-7562.
Source: ERC-4337, ERC-7562, ERC-7769.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cache
from importlib.resources import files
from typing import Any

from bundler.chain import Head
from bundler.cheap import CheapPass, Finding
from bundler.erc7562.entities import (
    VALIDATE_PAYMASTER_USER_OP,
    VALIDATE_USER_OP,
    Entities,
    Phase,
    Stake,
    entities_of,
    entity_addresses,
    phases_of,
)
from bundler.erc7562.probe import StateProbe, stake_of
from bundler.erc7562.rules import Context, Edition, check_validation, storage_contracts, violations
from bundler.erc7562.trace import ValidationTrace, parse, touched, tracer_options
from bundler.gas import validation_gas_limit
from bundler.reverts import reason
from bundler.settings import Settings
from bundler.validity import SIG_VALIDATION_FAILED, ValidationData, check_expiry
from contracts.abi import Function
from contracts.eip7702 import delegation
from contracts.entrypoint import V07, EntryPoint, FailedOp, decode_failed_op
from contracts.entrypoint.base import GET_DEPOSIT_INFO, sender_creator
from contracts.errors import (
    BadSignature,
    NodeError,
    OperationRejected,
    PaymasterDepositTooLow,
    RejectedByEntryPoint,
    RejectedByPaymaster,
    RpcError,
    TimeRange,
    UnsupportedAggregator,
)
from contracts.rpc import RpcClient
from contracts.types import Address, Hash32, Wei, checksum, parse_bytes, to_hex
from contracts.userop import Candidate, UserOperation

_OUT_OF_GAS = "AA95"


@dataclass(frozen=True, slots=True)
class StakeFloor:
    """What counts as staked ([SREP-010]). `stake_wei` wei, `unstake_delay_s` seconds."""

    stake_wei: Wei
    unstake_delay_s: int


def stake_floor(settings: Settings) -> StakeFloor | None:
    """The floor of safe mode; None without it."""
    return StakeFloor(settings.min_stake_wei, settings.min_unstake_delay_s) if settings.safe else None


@dataclass(frozen=True, slots=True)
class Validation:
    """An operation that the entry point accepts at `head`; outside safe mode nothing is known of its rules."""

    head: Head
    data: ValidationData
    entities: Entities | None = None
    code_hashes: tuple[tuple[Address, Hash32], ...] = ()
    """[COD-010]: of every address that validation used."""
    contracts: frozenset[Address] = frozenset()
    """[STO-041]: whose storage it touched, the sender aside."""
    deposits: Mapping[Address, Wei] = field(default_factory=dict)
    """Of the entities, at the entry point."""
    way: str = field(default="plain", compare=False)
    """How it was found: `plain` outside safe mode, `cheap` or `full` in it."""


class NotTraced(NodeError):
    """The node refuses a trace that the bundler needs. Says nothing of the node's address."""


class PredecessorFailed(OperationRejected):
    """An earlier pending operation of the sender fails now, so the new one cannot be judged behind it."""

    def __init__(self, failed: FailedOp) -> None:
        super().__init__(f"an earlier pending operation of this sender does not validate any more: {failed.reason}")
        self.failed = failed


def rejection(failed: FailedOp, op: UserOperation, data: ValidationData | None = None) -> OperationRejected:
    """The typed error for the entry point's reason, with the ERC-7769 code that its AAxx means."""
    code = failed.reason[:4]
    message = failed.reason[:200]
    if failed.inner:
        message += f": {reason(failed.inner)}"
    detail = {"reason": failed.reason[:200], "inner": to_hex(failed.inner[:1024])}
    if code == "AA24" and data is not None and data.aggregator > SIG_VALIDATION_FAILED:
        return UnsupportedAggregator(
            f"account {checksum(op.sender)} names signature aggregator {checksum(data.aggregator.to_bytes(20))}; "
            "aggregators are not supported",
            data=detail,
        )
    if code in ("AA22", "AA32") and data is not None:
        message += f" (valid from {data.valid_after_s} to {data.valid_until_s}, Unix time)"
    if code in ("AA27", "AA37") and data is not None:
        message += f" (valid after block {data.valid_after_block}, until {data.valid_until_block})"
    kinds: dict[str, type[OperationRejected]] = {
        "AA24": BadSignature,
        "AA34": BadSignature,
        "AA22": TimeRange,
        "AA27": TimeRange,
        "AA32": TimeRange,
        "AA37": TimeRange,
        "AA31": PaymasterDepositTooLow,
    }
    kind = kinds.get(code, RejectedByPaymaster if code.startswith("AA3") else RejectedByEntryPoint)
    return kind(message, rule=code if code.startswith("AA") else None, data=detail)


def handle_ops_call(
    entry_point: EntryPoint, ops: Sequence[UserOperation], executor: Address, beneficiary: Address, gas: int
) -> dict[str, str]:
    """The transaction of a bundle, as eth_call and debug_traceCall take it."""
    return {
        "from": to_hex(executor),
        "to": to_hex(entry_point.address),
        "gas": hex(gas),
        "data": to_hex(entry_point.encode_handle_ops(ops, beneficiary)),
    }


@cache
def outcome_tracer() -> str:
    """Source of the tracer of a bundle's outcome."""
    return files("bundler").joinpath("outcome.js").read_text()


async def trace(
    rpc: RpcClient,
    call: Mapping[str, str],
    *,
    gas_price_wei: Wei | None = None,
    state: Mapping[str, Any] | None = None,
    top_only: bool = False,
    outcome_only: bool = False,
) -> tuple[Head, dict[str, Any]]:
    """The call tree of `call` (`top_only`: its root) on the latest block, and that block's header.

    `outcome_only`: its root and the last call of that, by a JavaScript tracer whose answer no stranger can make large.

    Raises NodeError, saying what is missing, if the node cannot trace.
    """
    request = dict(call)
    if gas_price_wei is not None:
        request["gasPrice"] = hex(gas_price_wei)
    options: dict[str, Any] = {"tracer": outcome_tracer() if outcome_only else "callTracer"}
    if top_only:
        options["tracerConfig"] = {"onlyTopCall": True}
    if state:
        options["stateOverrides"] = dict(state)
    try:
        block, frame = await rpc.batch(
            [
                ("eth_getBlockByNumber", ("latest", False)),
                ("debug_traceCall", (request, "latest", options)),
            ]
        )
    except RpcError as error:
        raise NotTraced(
            f"the node did not trace a bundle: {error.message}. The bundler needs debug_traceCall with "
            + ("JavaScript tracers in safe mode" if outcome_only else "callTracer"),
            data=error.data,
        ) from error
    if not isinstance(frame, dict):
        raise NodeError(f"the node's trace is no call frame: {frame!r:.100}")
    return Head.from_rpc(block), frame


def output(frame: Mapping[str, Any]) -> bytes:
    """What a call returned or reverted with."""
    return bytes.fromhex((frame.get("output") or "0x")[2:])


def answer_of(
    frame: Mapping[str, Any], entry_point: EntryPoint, address: Address, function: Function, word: int, index: int
) -> ValidationData:
    """What the `index`-th of the entry point's own calls of `function` on `address` answered, in 32-byte word `word`.

    A call that failed or answered too little counts as no answer: the entry point refuses such an operation itself.
    """
    selector = to_hex(function.selector)
    calls = [
        call
        for call in frame.get("calls") or ()
        if call.get("to") == to_hex(address)
        and call.get("from") == to_hex(entry_point.address)
        and str(call.get("input", "")).startswith(selector)
    ]
    if index < len(calls) and not calls[index].get("error"):
        answer = output(calls[index])[32 * word : 32 * word + 32]
        if len(answer) == 32:
            return ValidationData.parse(int.from_bytes(answer), counts_blocks=entry_point.counts_blocks)
    return ValidationData()


def overrides(candidates: Sequence[Candidate]) -> dict[str, Any]:
    """The state in which the authorisations of a bundle have taken effect."""
    return {
        to_hex(one.op.sender): {"code": to_hex(delegation(one.authorization.delegate))}
        for one in candidates
        if one.authorization is not None
    }


async def read_stakes(rpc: RpcClient, entry_point: EntryPoint, addresses: Sequence[Address]) -> dict[Address, Stake]:
    """What each address has deposited and staked. Raises NodeError."""
    answers = await rpc.batch([_deposit_info(entry_point, address) for address in addresses])
    return {
        address: stake_of(parse_bytes(answer, "deposit info"))
        for address, answer in zip(addresses, answers, strict=True)
    }


def _deposit_info(entry_point: EntryPoint, address: Address) -> tuple[str, Sequence[object]]:
    call = {"to": to_hex(entry_point.address), "data": to_hex(GET_DEPOSIT_INFO.encode(address))}
    return "eth_call", (call, "latest")


async def read_code_hashes(rpc: RpcClient, addresses: Sequence[Address]) -> tuple[tuple[Address, Hash32], ...]:
    """EXTCODEHASH of each address on the latest block, in one call. Raises NodeError."""
    if not addresses:
        return ()
    probe = StateProbe(bytes(20), tuple(addresses), ())
    answer = parse_bytes(await rpc.call("eth_call", {"data": to_hex(probe.code())}, "latest"), "code hashes")
    return tuple(probe.decode(answer)[0].items())


async def _safe_trace(
    rpc: RpcClient, entry_point: EntryPoint, call: Mapping[str, str], candidates: Sequence[Candidate]
) -> tuple[Head, ValidationTrace, dict[Address, Stake]]:
    """Header, trace and the stakes of the last candidate's entities in one round trip."""
    addresses = entity_addresses(candidates[-1].op)
    options = tracer_options(entry_point.address, overrides(candidates))
    try:
        block, result, *infos = await rpc.batch(
            [
                ("eth_getBlockByNumber", ("latest", False)),
                ("debug_traceCall", (dict(call), "latest", options)),
                *(_deposit_info(entry_point, address) for address in addresses),
            ]
        )
    except RpcError as error:
        raise NotTraced(
            f"the node did not trace a validation: {error.message}. Safe mode needs debug_traceCall with JavaScript tracers; "
            "without them run with `safe = false`, for accounts and paymasters you trust",
            data=error.data,
        ) from error
    stakes = {a: stake_of(parse_bytes(answer, "deposit info")) for a, answer in zip(addresses, infos, strict=True)}
    return Head.from_rpc(block), parse(result), stakes


def _plain_calls(found: Finding, entry_point: EntryPoint) -> dict[str, Any]:
    """The entry point's own calls of a cheap run in callTracer's form."""
    return {
        "error": found.tree.error,
        "output": to_hex(found.tree.output),
        "calls": [
            {
                "from": to_hex(entry_point.address),
                "to": to_hex(call.to),
                "input": to_hex(call.data),
                "output": to_hex(call.output),
                "error": call.error,
            }
            for call in found.tree.calls
            if call.parent < 0
        ],
    }


def _plain_frame(trace: ValidationTrace) -> dict[str, Any]:
    """The entry point's own calls in callTracer's form."""
    return {
        "error": trace.root.error,
        "output": to_hex(trace.root.output),
        "calls": [
            {
                "from": to_hex(call.caller),
                "to": to_hex(call.code),
                "input": to_hex(call.data),
                "output": to_hex(call.output),
                "error": call.error,
            }
            for call in trace.root.calls
        ],
    }


async def validate(
    rpc: RpcClient,
    entry_point: EntryPoint,
    candidate: Candidate,
    *,
    executor: Address,
    prefix: Sequence[Candidate] = (),
    min_validity_s: int = 0,
    floor: StakeFloor | None = None,
    cheap: CheapPass | None = None,
) -> Validation:
    """Return what validation of `candidate` answers on the latest block after `prefix` (its sender's earlier operations) has run.

    With `floor` in safe mode: the rules of ERC-7562 are judged, with that stake; with `cheap` on a cheap run first, which may accept,
    and on the full trace if that proves nothing. An operation whose *execution* reverts is valid.
    Raises an OperationRejected (BadSignature, TimeRange, RejectedByPaymaster, PaymasterDepositTooLow, UnsupportedAggregator,
    RejectedByEntryPoint, RuleBroken), PredecessorFailed, NodeError.
    """
    candidates = [*prefix, candidate]
    ops = [one.op for one in candidates]
    gas = validation_gas_limit(entry_point, ops[:-1], ops[-1])
    call = handle_ops_call(entry_point, ops, executor, executor, gas)
    if floor is None:
        head, frame = await trace(rpc, call, state=overrides(candidates))
        data = _check_answers(entry_point, ops, frame)
        check_expiry(data, head, min_validity_s)
        return Validation(head, data)
    if cheap is not None:
        passed = await validate_cheaply(cheap, entry_point, candidates, call, min_validity_s, floor)
        if passed is not None:
            cheap.counts["cheap"] += 1
            return replace(passed, way="cheap")
    found = await validate_in_full(rpc, entry_point, candidates, call, min_validity_s, floor, cheap)
    return replace(found, way="full")


async def validate_in_full(
    rpc: RpcClient,
    entry_point: EntryPoint,
    candidates: Sequence[Candidate],
    call: Mapping[str, str],
    min_validity_s: int,
    floor: StakeFloor,
    cheap: CheapPass | None = None,
) -> Validation:
    """Validate the last candidate by a trace of every step; `cheap` learns from it. Raises what `validate` does."""
    candidate, ops = candidates[-1], [one.op for one in candidates]
    head, trace_, stakes = await _safe_trace(rpc, entry_point, call, candidates)
    data = _check_answers(entry_point, ops, _plain_frame(trace_))
    check_expiry(data, head, min_validity_s)
    entities = entities_of(candidate.op, stakes, floor.stake_wei, floor.unstake_delay_s)
    phases = phases_of(trace_, ops, sender_creator(entry_point.address))[-1]
    if not any(phase.role == "account" for phase in phases):
        raise NodeError("the node's trace does not show the account's validation; try again")
    await _judge(rpc, entry_point, entities, phases, trace_)
    hashes = await read_code_hashes(rpc, sorted(_used(phases, candidates, entry_point)))
    if cheap is not None:
        cheap.counts["full"] += 1
        cheap.learn(phases, trace_, dict(hashes))
    return _validation(head, data, entities, phases, candidate, hashes, stakes)


async def validate_cheaply(
    cheap: CheapPass,
    entry_point: EntryPoint,
    candidates: Sequence[Candidate],
    call: Mapping[str, str],
    min_validity_s: int,
    floor: StakeFloor,
) -> Validation | None:
    """The validation that a cheap run proves to keep the rules; None when the full trace must decide. Raises what `validate` does."""
    found = await cheap.find(entry_point, candidates, call)
    if found is None:
        return None
    candidate, ops = candidates[-1], [one.op for one in candidates]
    data = _check_answers(entry_point, ops, _plain_calls(found, entry_point))
    if found.trace is None:
        return None
    check_expiry(data, found.head, min_validity_s)
    entities = entities_of(candidate.op, found.stakes, floor.stake_wei, floor.unstake_delay_s)
    phases = phases_of(found.trace, ops, sender_creator(entry_point.address))[-1]
    if not any(phase.role == "account" for phase in phases):
        return None
    context = Context(entry_point.address, entities, found.trace.preimages, {}, _edition(entry_point))
    if any(True for phase in phases for _ in violations(phase, context)):
        return None
    hashes = tuple((a, found.code_hashes[a]) for a in sorted(_used(phases, candidates, entry_point)))
    return _validation(found.head, data, entities, phases, candidate, hashes, found.stakes)


def _used(phases: Sequence[Phase], candidates: Sequence[Candidate], entry_point: EntryPoint) -> set[Address]:
    """[COD-010]: whose code must stay what it is."""
    sender = candidates[-1].op.sender
    used = {address for phase in phases for address in touched(phase.frame)} - {entry_point.address, sender}
    if not any(one.op.real_factory is not None or one.authorization is not None for one in candidates):
        used.add(sender)  # else its code is still to come, with this operation or one before it
    return used


def _validation(
    head: Head,
    data: ValidationData,
    entities: Entities,
    phases: Sequence[Phase],
    candidate: Candidate,
    hashes: tuple[tuple[Address, Hash32], ...],
    stakes: Mapping[Address, Stake],
) -> Validation:
    return Validation(
        head,
        data,
        entities,
        hashes,
        storage_contracts(phases, candidate.op.sender),
        {address: stake.deposit_wei for address, stake in stakes.items()},
    )


def _edition(entry_point: EntryPoint) -> Edition:
    return "v0.7" if entry_point is V07 else "current"


def _check_answers(entry_point: EntryPoint, ops: Sequence[UserOperation], frame: Mapping[str, Any]) -> ValidationData:
    """What account and paymaster of the last operation answered; raises the entry point's refusal as a typed error."""
    op, prefix = ops[-1], ops[:-1]
    calls_before = sum(earlier.sender == op.sender for earlier in prefix)
    data = answer_of(frame, entry_point, op.sender, VALIDATE_USER_OP, 0, calls_before)
    if op.paymaster is not None:
        calls_before = sum(earlier.paymaster == op.paymaster for earlier in prefix)
        data = data.both(answer_of(frame, entry_point, op.paymaster, VALIDATE_PAYMASTER_USER_OP, 1, calls_before))
    if frame.get("error"):
        failed = decode_failed_op(output(frame))
        if failed is None:
            raise RejectedByEntryPoint(
                f"handleOps fails outside any operation: {frame['error']}, {reason(output(frame))}",
                data=to_hex(output(frame)),
            )
        if failed.op_index < len(prefix):
            raise PredecessorFailed(failed)
        if not failed.reason.startswith(_OUT_OF_GAS):
            raise rejection(failed, op, data)
    return data


async def _judge(
    rpc: RpcClient, entry_point: EntryPoint, entities: Entities, phases: Sequence[Phase], trace: ValidationTrace
) -> None:
    halted = sorted({f.code for phase in phases for f in phase.frame.walk() if f.halted and not f.creates})
    codes = {}
    if halted:
        answers = await rpc.batch([("eth_getCode", (to_hex(address), "latest")) for address in halted])
        codes = {a: parse_bytes(answer, "code") for a, answer in zip(halted, answers, strict=True)}
    context = Context(entry_point.address, entities, trace.preimages, codes, _edition(entry_point))
    check_validation(phases, context)
