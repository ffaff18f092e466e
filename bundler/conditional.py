"""Conditions under which a bundle may be included: the state its operations were validated on.

A sequencer that knows `eth_sendRawTransactionConditional` checks them before it runs the transaction, so that a bundle whose operations
became invalid meanwhile costs nothing.   Source: ERC-7796; OP stack, "eth_sendRawTransactionConditional".
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from bundler.erc7562.traps import validation_only
from bundler.mempool import FOREVER, Entry
from bundler.simulation import handle_ops_call, overrides
from contracts.entrypoint import EntryPoint
from contracts.errors import InvalidFields, RpcError
from contracts.rpc import RpcClient
from contracts.types import Address, keccak, parse_address, parse_bytes, to_hex

METHOD = "eth_sendRawTransactionConditional"
REJECTED = -32003
"""The condition does not hold. Source: OP stack, TransactionConditionalRejectedErrCode."""
TOO_COSTLY = -32005
"""Source: OP stack, TransactionConditionalCostExceededMaxErrCode."""
MAX_COST = 1_000
"""Slots and bounds of one condition. Source: OP stack, TransactionConditionalMaxCost."""
_DEPOSIT_WORDS = 2
"""Words of StakeManager's DepositInfo."""


@dataclass(frozen=True, slots=True)
class Condition:
    """Slots with the values they must have, and the last block and second of inclusion.

    Lower bounds are left out: a bundle holds only what is due, and time does not go back.
    """

    slots: tuple[tuple[Address, int, int], ...]
    """(contract, slot, value), in the order in which they are given up when there are too many: the last first."""
    block_number_max: int | None = None
    timestamp_max_s: int | None = None

    @property
    def cost(self) -> int:
        """As an OP-stack sequencer counts: one for each slot, block bound and time bound."""
        return len(self.slots) + (self.block_number_max is not None) + (self.timestamp_max_s is not None)

    def within(self, cost: int) -> Condition | None:
        """The same with as many slots as fit `cost`; None if nothing does. A shorter condition protects less and is never wrong."""
        bounds = self.cost - len(self.slots)
        if cost <= bounds:
            return None
        return Condition(self.slots[: cost - bounds], self.block_number_max, self.timestamp_max_s)

    def to_rpc(self) -> dict[str, Any]:
        """The method's second parameter."""
        accounts: dict[str, dict[str, str]] = {}
        for address, slot, value in self.slots:
            accounts.setdefault(to_hex(address), {})[to_hex(slot.to_bytes(32))] = to_hex(value.to_bytes(32))
        found: dict[str, Any] = {"knownAccounts": accounts}
        if self.block_number_max is not None:
            found["blockNumberMax"] = hex(self.block_number_max)
        if self.timestamp_max_s is not None:
            found["timestampMax"] = hex(self.timestamp_max_s)
        return found


def _deposits(entries: Iterable[Entry]) -> frozenset[int]:
    """Slots of the entry point's deposits that these pay from: anybody may pay in, which invalidates nothing."""
    payers = {a for e in entries for a in (e.op.sender, e.op.paymaster) if a is not None}
    starts = [int.from_bytes(keccak(payer.rjust(32, b"\0") + bytes(32))) for payer in payers]
    return frozenset(start + i for start in starts for i in range(_DEPOSIT_WORDS))


def _slots(prestate: object) -> list[tuple[Address, int, int]]:
    """Storage out of prestateTracer's answer. Raises InvalidFields."""
    if not isinstance(prestate, Mapping):
        raise InvalidFields(f"prestateTracer answered {prestate!r:.100}")
    return [
        (parse_address(address), int(slot, 16), int.from_bytes(parse_bytes(value, "value")))
        for address, account in prestate.items()
        for slot, value in (account.get("storage") or {}).items()
    ]


async def condition_of(
    rpc: RpcClient,
    entry_point: EntryPoint,
    entries: Sequence[Entry],
    executor: Address,
    beneficiary: Address,
    gas_limit: int,
    block_number: int,
    block_number_max: int,
) -> Condition | None:
    """What the validations of a bundle read on block `block_number`, deposits at the entry point aside.

    One run of `handleOps` in the node that ends where validation does. The senders' own slots and nonces come first, then contracts by how
    few slots of each were read. None if the node cannot say. Raises NodeUnreachable.
    """
    code = validation_only(await rpc.get_code(entry_point.address))
    if code is None:
        return None
    call = handle_ops_call(entry_point, [entry.op for entry in entries], executor, beneficiary, gas_limit)
    state = dict(overrides([entry.candidate for entry in entries]))
    state[to_hex(entry_point.address)] = {"code": to_hex(code)}
    options = {"tracer": "prestateTracer", "stateOverrides": state}
    try:
        found = _slots(await rpc.call("debug_traceCall", call, hex(block_number), options))
    except (RpcError, InvalidFields):
        return None
    ignored = _deposits(entries)
    kept = [one for one in found if one[0] != entry_point.address or one[1] not in ignored]
    senders = {entry.op.sender for entry in entries} | {entry_point.address}
    per_contract = {address: sum(one[0] == address for one in kept) for address in {one[0] for one in kept}}
    kept.sort(key=lambda one: (one[0] not in senders, per_contract[one[0]], one))
    valid_until_s = min((entry.valid_until_s for entry in entries), default=FOREVER)
    block_number_max = min([block_number_max, *(entry.valid_until_block for entry in entries)])
    last_block = min((entry.valid_until_block for entry in entries), default=FOREVER)
    condition = Condition(
        tuple(kept), min(block_number_max, last_block), None if valid_until_s >= FOREVER else valid_until_s
    )
    return condition.within(MAX_COST)
