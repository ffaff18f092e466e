"""What an operation would do, from the chain's own execution: its calls run on a pinned block, reads taken before and after.

One `eth_simulateV1` request: reads, account creation if needed, the operation's call from the entry point, the same reads. A node without
that method traces the operation instead (`wallet.execution`), and the reads after are made on the state that the trace says it leaves.
The portfolio after is what the venue itself answers then, never our imitation of the venue.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from contracts import bindings as b
from contracts.entrypoint import EntryPoint
from contracts.errors import NodeError, RpcError
from contracts.rpc import RpcClient, without_secrets
from contracts.types import Address, parse_bytes, parse_hash, to_hex
from contracts.userop import UserOperation
from wallet.effects import GAS, Effects, Log, MovedHead, log_of, next_block, pinned, still_there
from wallet.execution import METHOD_MISSING, Execution, check_overrides, endpoint_of, execute

__all__ = ["Effects", "Log", "MovedHead", "simulate"]


async def simulate(
    rpc: RpcClient,
    entry_point: EntryPoint,
    multicall3: Address,
    op: UserOperation | None,
    reads: Sequence[tuple[Address, bytes]],
    *,
    reads_after: Sequence[tuple[Address, bytes]] | None = None,
    head: dict[str, Any] | None = None,
) -> Effects:
    """Run `op` (None: nothing, only the reads) on top of `head`, a header as the node gave it (None: the latest block).

    `reads` are made before the operation, `reads_after` (None: the same) after it.

    The simulated block is one second younger than the latest: eth_simulateV1 wants time to pass, and what venues settle by time
    (funding) is settled in it. Raises NodeError when the node cannot simulate, when the reads themselves fail, or when the chain has
    replaced the block by another. That a node lacks eth_simulateV1 is remembered once it has said so.
    """
    head = head or await rpc.block()
    last = reads if reads_after is None else reads_after
    endpoint = endpoint_of(rpc)
    if not endpoint.lacks_simulation:
        try:
            return await _by_simulation(rpc, entry_point, multicall3, op, reads, last, head)
        except RpcError as error:
            if error.rpc_code not in METHOD_MISSING:
                await still_there(rpc, head)
                raise NodeError(
                    f"the node cannot simulate: {error}. Use a node with eth_simulateV1 (geth 1.14.9, anvil 1.0 or later)"
                ) from error
        endpoint.lacks_simulation = True
    return await _by_trace(rpc, entry_point, multicall3, op, reads, last, head)


async def _by_simulation(
    rpc: RpcClient,
    entry_point: EntryPoint,
    multicall3: Address,
    op: UserOperation | None,
    reads: Sequence[tuple[Address, bytes]],
    reads_after: Sequence[tuple[Address, bytes]],
    head: dict[str, Any],
) -> Effects:
    """By eth_simulateV1. Raises RpcError, NodeError."""
    read, last = _read(multicall3, reads), _read(multicall3, reads_after)
    calls: list[dict[str, str]] = [read]
    executed = -1
    if op is not None:
        sender = to_hex(entry_point.address)
        if op.factory is not None:
            calls.append({"from": sender, "to": to_hex(op.factory), "data": to_hex(op.factory_data), "gas": hex(GAS)})
        executed = len(calls)
        calls.append({"from": sender, "to": to_hex(op.sender), "data": to_hex(op.call_data), "gas": hex(GAS)})
        calls.append(last)
    block = {"blockOverrides": next_block(head, len(calls) * GAS), "calls": calls}
    request = {"blockStateCalls": [block], "validation": False}
    (simulated,) = await rpc.call("eth_simulateV1", request, pinned(head))
    results: list[dict[str, Any]] = simulated["calls"]
    if len(results) != len(calls):
        raise NodeError(f"the node simulated {len(results)} of {len(calls)} calls")

    def reads_of(result: dict[str, Any]) -> tuple[bytes | None, ...]:
        if result["status"] != "0x1":
            raise NodeError(f"the position reads failed: {result.get('error')}; is there a Multicall3 at {read['to']}?")
        return tuple(b.decode_multicall(parse_bytes(result["returnData"], "returnData")))

    ran = results[executed] if executed >= 0 else None
    if ran is not None and executed == 2 and results[1]["status"] != "0x1":
        ran = results[1]  # the account could not be created: that is the operation's failure
    return Effects(
        block_number=int(head["number"], 16),
        block_hash=parse_hash(head["hash"], "block hash"),
        timestamp_s=int(head["timestamp"], 16),
        success=ran is None or ran["status"] == "0x1",
        return_data=b"" if ran is None else _revert_data(ran),
        gas_used=0 if ran is None else int(ran["gasUsed"], 16),
        logs=() if ran is None else tuple(log_of(entry) for entry in ran["logs"]),
        before=reads_of(results[0]),
        after=reads_of(results[-1]),
    )


async def _by_trace(
    rpc: RpcClient,
    entry_point: EntryPoint,
    multicall3: Address,
    op: UserOperation | None,
    reads: Sequence[tuple[Address, bytes]],
    reads_after: Sequence[tuple[Address, bytes]],
    head: dict[str, Any],
) -> Effects:
    """By debug_traceCall, and eth_call with what the trace says was changed. Raises NodeError, MovedHead."""
    ran: Execution | None = None
    try:
        await check_overrides(rpc, head)
        if op is not None:
            ran = await execute(rpc, entry_point, op, head)
        before = await _reads(rpc, multicall3, reads, head, {})
        after = before
        if ran is not None and (ran.success or reads_after != reads):
            after = await _reads(rpc, multicall3, reads_after, head, ran.overrides if ran.success else {})
    except RpcError as error:
        if error.rpc_code in METHOD_MISSING:
            raise NodeError(
                f"{without_secrets(rpc.url)} has neither eth_simulateV1 nor {error.method}: without the node's own execution nobody can say "
                "what an operation leaves. Use geth 1.14.9 or later, anvil 1.0 or later, or a node that serves the debug namespace "
                "(geth: --http.api eth,debug)"
            ) from error
        await still_there(rpc, head)
        raise NodeError(f"the node cannot simulate: {error}") from error
    return Effects(
        block_number=int(head["number"], 16),
        block_hash=parse_hash(head["hash"], "block hash"),
        timestamp_s=int(head["timestamp"], 16),
        success=ran is None or ran.success,
        return_data=b"" if ran is None else ran.return_data,
        gas_used=0 if ran is None else ran.gas_used,
        logs=() if ran is None or not ran.success else ran.logs,
        before=before,
        after=after,
    )


def _read(multicall3: Address, reads: Sequence[tuple[Address, bytes]]) -> dict[str, str]:
    return {"to": to_hex(multicall3), "data": to_hex(b.encode_multicall(reads)), "gas": hex(GAS)}


async def _reads(
    rpc: RpcClient,
    multicall3: Address,
    reads: Sequence[tuple[Address, bytes]],
    head: dict[str, Any],
    state: dict[str, dict[str, Any]],
) -> tuple[bytes | None, ...]:
    """Reads in the simulated block, on the state before it with `state` set. Raises RpcError, NodeError."""
    answer = await rpc.call("eth_call", _read(multicall3, reads), pinned(head), state, next_block(head, GAS))
    data = parse_bytes(answer, "eth_call")
    if not data:
        raise NodeError(f"the position reads failed: no answer; is there a Multicall3 at {to_hex(multicall3)}?")
    return tuple(b.decode_multicall(data))


def _revert_data(result: dict[str, Any]) -> bytes:
    """Return data, or the revert data, which nodes put in `returnData` or in `error.data`."""
    data = result.get("returnData") or "0x"
    if data == "0x" and isinstance(result.get("error"), dict):
        data = result["error"].get("data") or "0x"
    return parse_bytes(data, "returnData")
