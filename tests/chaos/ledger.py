"""What a client was promised, and the verdict on what the chain holds: the judge of every chaos run."""

from __future__ import annotations

from collections import Counter, defaultdict
from dataclasses import dataclass, field
from typing import Any

from contracts.entrypoint import USER_OPERATION_EVENT, V08, EntryPoint
from contracts.errors import InvalidFields
from contracts.rpc import RpcClient
from contracts.types import Address, Hash32, parse_bytes, parse_hash, to_hex
from contracts.userop import UserOperation

Slot = tuple[Address, int]
"""Sender and nonce: what only one operation can ever use."""


@dataclass(slots=True)
class Ledger:
    """Kept by the client alone; nothing in it comes from the bundler but the acknowledgements."""

    asked: defaultdict[Slot, list[Hash32]] = field(default_factory=lambda: defaultdict(list))
    """Every operation that was ever sent, in the order of the first attempt."""
    acknowledged: set[Hash32] = field(default_factory=set)
    paymasters: dict[Hash32, Address] = field(default_factory=dict)
    elsewhere: defaultdict[Slot, set[Hash32]] = field(default_factory=lambda: defaultdict(set))
    """What was handed to other bundlers: whichever of a slot is on chain keeps the promise."""
    unexpected: list[str] = field(default_factory=list)
    """Refusals that an honest operation should never see."""

    def ask(self, op: UserOperation, op_hash: Hash32) -> None:
        hashes = self.asked[op.sender, op.nonce]
        if op_hash not in hashes:
            hashes.append(op_hash)
        if op.paymaster is not None:
            self.paymasters[op_hash] = op.paymaster

    def hand_over(self, op: UserOperation, op_hash: Hash32) -> None:
        """Another bundler gets it."""
        self.elsewhere[op.sender, op.nonce].add(op_hash)

    def promised(self) -> dict[Slot, set[Hash32]]:
        """By slot with an acknowledgement, the operations with which the bundler keeps its promise.

        The last acknowledged one; or one sent after it whose answer never came, for it may have taken the other's place.
        """
        found: dict[Slot, set[Hash32]] = {}
        for slot, hashes in self.asked.items():
            last = max((i for i, op_hash in enumerate(hashes) if op_hash in self.acknowledged), default=None)
            if last is not None:
                found[slot] = set(hashes[last:])
        return found

    @property
    def replaced(self) -> int:
        """Acknowledged operations that an acknowledged one took the place of."""
        return sum(max(sum(h in self.acknowledged for h in hashes) - 1, 0) for hashes in self.asked.values())


@dataclass(slots=True)
class Verdict:
    """What the canonical chain holds, against the ledger."""

    included: dict[Slot, list[Hash32]]
    transactions: dict[Hash32, Hash32]
    """In which transaction each operation is."""
    reverted_bundles: int
    executors: int
    """How many of them have bundles on chain."""
    failures: list[str]


async def judge(ledger: Ledger, rpc: RpcClient, *executors: Address, entry_point: EntryPoint = V08) -> Verdict:
    """Read the whole canonical chain and compare.

    A failure is: a promised slot without its operation, a slot used by an operation that was replaced, an operation with two
    events, an operation in the call data of two successful bundles.
    """
    included: defaultdict[Slot, list[Hash32]] = defaultdict(list)
    transactions: dict[Hash32, Hash32] = {}
    for event in await rpc.logs(entry_point.address, [USER_OPERATION_EVENT.topic], 0):
        topics = [bytes.fromhex(topic[2:]) for topic in event["topics"]]
        values = USER_OPERATION_EVENT.decode(topics, parse_bytes(event["data"], "event data"))
        included[values[1], values[3]].append(values[0])
        transactions[values[0]] = parse_hash(event["transactionHash"], "transaction hash")
    failures = [f"unexpected refusal: {words}" for words in ledger.unexpected]
    for slot, hashes in included.items():
        if len(hashes) != 1:
            failures.append(f"{_name(slot)} is included {len(hashes)} times: {[to_hex(h) for h in hashes]}")
    for slot, good in ledger.promised().items():
        hashes = included.get(slot, [])
        if not hashes:
            failures.append(f"LOST: {_name(slot)} was acknowledged and is not on chain: {[to_hex(h) for h in good]}")
        elif hashes[0] not in good | ledger.elsewhere[slot]:
            failures.append(f"REPLACED: {_name(slot)} holds {to_hex(hashes[0])}, its replacement was acknowledged")
    carried: Counter[Hash32] = Counter()
    reverted = 0
    active: set[str] = set()
    for transaction in await _transactions_of(rpc, executors):
        receipt = await rpc.receipt(parse_hash(transaction["hash"], "transaction hash"))
        assert receipt is not None
        if receipt["status"] != "0x1":
            reverted += 1
            continue
        try:
            ops, _ = entry_point.decode_handle_ops(parse_bytes(transaction["input"], "input"))
        except InvalidFields:
            continue  # a cancellation
        active.add(transaction["from"])
        carried.update(entry_point.user_op_hash(op, int(transaction["chainId"], 16)) for op in ops)
    failures += [f"TWICE: {to_hex(h)} is in {count} bundles" for h, count in carried.items() if count > 1]
    return Verdict(dict(included), transactions, reverted, len(active), failures)


async def _transactions_of(rpc: RpcClient, senders: tuple[Address, ...]) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = []
    wanted = set(map(to_hex, senders))
    for number in range(await rpc.block_number() + 1):
        block = await rpc.call("eth_getBlockByNumber", hex(number), True)
        found += [t for t in block["transactions"] if t["from"] in wanted]
    return found


def _name(slot: Slot) -> str:
    return f"{to_hex(slot[0])} nonce {slot[1]:#x}"
