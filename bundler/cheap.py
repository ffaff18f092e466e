"""The cheap pass of safe mode: prove that a validation keeps the rules without tracing its steps; what it cannot prove, the full trace decides.

One run of `handleOps` in the node, with state overrides: the entry point stops where validation ends, and every code that runs is trapped
(`bundler.erc7562.traps`). Its calls and touched slots are the evidence. All reads are of one block. Codes are known by their hash, so that
a code is fetched and swept once, whoever has it; which x begin associated storage (keccak(A || x)) is learnt from full traces, by code hash.
It never accepts what the full trace would refuse, with one exception by intent: a slot that equals keccak(A || x) + n, x known of the same
code, is associated by its value, also when this run came by it without hashing.   Source: ERC-7562, "Associated storage".
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from bundler.chain import Head, read_head
from bundler.erc7562.entities import Phase, Stake, entity_addresses
from bundler.erc7562.evidence import (
    CallTree,
    Unproven,
    calls_tracer,
    evidence,
    parse_calls,
    slots_touched,
    untrapped,
)
from bundler.erc7562.probe import StateProbe
from bundler.erc7562.rules import MAX_ASSOCIATED_OFFSET
from bundler.erc7562.trace import ValidationTrace
from bundler.erc7562.traps import Code, validation_only
from contracts.eip7702 import delegation
from contracts.entrypoint import EntryPoint
from contracts.errors import InvalidFields, NodeError, RpcError
from contracts.rpc import RpcClient
from contracts.types import Address, Hash32, keccak, parse_bytes, to_hex
from contracts.userop import Candidate

log = logging.getLogger("bundler.cheap")

_EMPTY = keccak(b"")
_ROUNDS = 3
"""Runs before the full trace: each may meet code that the one before did not."""
_MOST_ADDRESSES = 64
_CODE_BYTES = 32_000_000
_MOST_KINDS = 10_000
_MOST_WORDS = 64
"""Bounds of what is remembered."""
_FAILURES = 8
"""Refusals of the node in a row after which the pass is left: it does not know the overrides or the tracers."""


@dataclass(frozen=True, slots=True)
class Finding:
    """What a cheap run showed on `head`. The rules are not judged yet. `trace` None: the entry point refuses, whatever the rules say."""

    head: Head
    tree: CallTree
    trace: ValidationTrace | None
    stakes: Mapping[Address, Stake]
    code_hashes: Mapping[Address, Hash32]


@dataclass(slots=True)
class _Codes:
    """Codes by hash, the least recently used ones forgotten beyond a number of bytes."""

    known: dict[Hash32, Code] = field(default_factory=dict)
    size: int = 0

    def get(self, code_hash: Hash32) -> Code | None:
        found = self.known.pop(code_hash, None)
        if found is not None:
            self.known[code_hash] = found
        return found

    def put(self, code_hash: Hash32, code: Code) -> None:
        if code_hash in self.known:
            return
        self.known[code_hash] = code
        self.size += len(code.trapped)
        while self.size > _CODE_BYTES:
            oldest = next(iter(self.known))
            self.size -= len(self.known.pop(oldest).trapped)


class CheapPass:
    """Evidence from cheap runs, and what was learnt for the next ones. One for each node."""

    def __init__(self, rpc: RpcClient) -> None:
        self._rpc = rpc
        self._codes = _Codes()
        self._codes.put(_EMPTY, Code.of(b""))
        self._codes.put(bytes(32), Code.of(b""))
        self._beside: dict[tuple[Hash32, ...], frozenset[Address]] = {}
        """By the code hashes of an operation's entities: who else was called the last time."""
        self._words: dict[Hash32, dict[bytes, None]] = {}
        """By code hash: the x of associated storage."""
        self._entry_points: dict[Address, str] = {}
        self._reading: asyncio.Future[Head] | None = None
        self._failures = 0
        self.counts = {"cheap": 0, "full": 0}
        """Safe validations that passed by the cheap run alone, and those that took a full trace."""

    async def head(self) -> Head:
        """The latest block; callers that ask at the same time share one request."""
        if self._reading is None:
            self._reading = asyncio.ensure_future(self._read_head())
        return await asyncio.shield(self._reading)

    async def _read_head(self) -> Head:
        await asyncio.sleep(0)  # whoever asks in this turn of the loop joins before the request leaves
        self._reading = None
        return await read_head(self._rpc)

    async def find(
        self, entry_point: EntryPoint, candidates: Sequence[Candidate], call: Mapping[str, str]
    ) -> Finding | None:
        """Evidence for the last candidate's validation, or None when the full trace must decide."""
        if self._failures >= _FAILURES or any(one.op.real_factory is not None for one in candidates):
            return None  # code that is still to be deployed cannot be trapped
        try:
            found = await _Run(self, entry_point, candidates, call).find()
        except RpcError as error:
            self._failures += 1
            if self._failures == _FAILURES:
                log.warning(
                    "the node refuses cheap validations (%s): every operation is traced in full from now on",
                    error.message,
                )
            return None
        except (Unproven, NodeError, InvalidFields, RecursionError) as why:
            log.debug("no cheap evidence: %s", why)
            return None
        self._failures = 0
        return found

    async def entry_point_code(self, entry_point: EntryPoint) -> str:
        """The entry point's code that ends with validation. Raises Unproven, NodeError."""
        known = self._entry_points.get(entry_point.address)
        if known is None:
            code = validation_only(await self._rpc.get_code(entry_point.address))
            if code is None:
                raise Unproven(f"entry point {entry_point.version} has no known end of validation")
            known = self._entry_points[entry_point.address] = to_hex(code)
        return known

    async def codes_of(self, hashes: Mapping[Address, Hash32], tag: str) -> dict[Address, Code]:
        """The codes with these hashes, fetched where they are not known. Raises Unproven, NodeError."""
        missing = {code_hash: address for address, code_hash in hashes.items() if self._codes.get(code_hash) is None}
        if missing:
            answers = await self._rpc.batch([("eth_getCode", (to_hex(a), tag)) for a in missing.values()])
            for code_hash, answer in zip(missing, answers, strict=True):
                code = parse_bytes(answer, "code")
                if keccak(code) != code_hash:
                    raise Unproven("a code changed while it was read")
                self._codes.put(code_hash, Code.of(code))
        found = {address: self._codes.get(code_hash) for address, code_hash in hashes.items()}
        return {address: code for address, code in found.items() if code is not None}

    def beside(self, entities: Iterable[Hash32]) -> frozenset[Address]:
        return self._beside.get(tuple(entities), frozenset())

    def remember_beside(self, entities: Iterable[Hash32], others: frozenset[Address]) -> None:
        self._beside.pop(key := tuple(entities), None)
        self._beside[key] = others
        if len(self._beside) > _MOST_KINDS:
            del self._beside[next(iter(self._beside))]

    def words(self, hashes: Iterable[Hash32]) -> list[bytes]:
        """Every x that one of these codes has used."""
        return list({word: None for code_hash in hashes for word in self._words.get(code_hash, ())})

    def learn(self, phases: Sequence[Phase], trace: ValidationTrace, hashes: Mapping[Address, Hash32]) -> None:
        """Remember which x explained the associated slots of a full trace that kept the rules."""
        begins = [(int.from_bytes(keccak(owner.rjust(32, b"\0") + word)), word) for owner, word in trace.namespaces]
        for phase in phases:
            for frame in phase.frame.walk():
                code_hash = hashes.get(frame.code)
                if code_hash is None or not frame.slots or not begins:
                    continue
                words = self._words.pop(code_hash, {})
                for slot in frame.slots:
                    for begin, word in begins:
                        if 0 <= (slot - begin) % 2**256 <= MAX_ASSOCIATED_OFFSET and len(words) < _MOST_WORDS:
                            words[word] = None
                if words:
                    self._words[code_hash] = words
                    if len(self._words) > _MOST_KINDS:
                        del self._words[next(iter(self._words))]


class _Run:
    """One operation's way through the cheap pass."""

    def __init__(
        self, shared: CheapPass, entry_point: EntryPoint, candidates: Sequence[Candidate], call: Mapping[str, str]
    ) -> None:
        self.shared = shared
        self.rpc = shared._rpc
        self.entry_point = entry_point
        self.call = dict(call)
        self.entities = entity_addresses(candidates[-1].op)
        self.delegations = {
            one.op.sender: Code.of(delegation(one.authorization.delegate))
            for one in candidates
            if one.authorization is not None
        }
        self.hashes: dict[Address, Hash32] = {}
        self.stakes: dict[Address, Stake] = {}
        self.codes: dict[Address, Code] = {}

    async def find(self) -> Finding:
        head = await self.shared.head()
        tag = hex(head.number)
        self.ending = await self.shared.entry_point_code(self.entry_point)
        first = StateProbe(self.entry_point.address, tuple(self.entities), tuple(self.entities))
        await self._read_state(first, tag)
        key = [self.hashes[address] for address in self.entities]
        others: set[Address] = set(self.shared.beside(key) - self.hashes.keys())
        for _ in range(_ROUNDS):
            if others:
                if len(self.hashes) + len(others) > _MOST_ADDRESSES:
                    raise Unproven("too many addresses")
                await self._read_state(StateProbe(self.entry_point.address, tuple(sorted(others)), ()), tag)
            tree, slots = await self._run(tag)
            others = untrapped(tree, self.codes, self.entry_point.address)
            if tree.error:  # a trap may be the reason, or code that another one reads
                tree = await self._untrapped_run(tag)
                if tree.error:
                    return Finding(head, tree, None, self.stakes, self.hashes)
                if not others:
                    raise Unproven("a trap was met")
            if others:
                continue
            self.shared.remember_beside(key, frozenset(self.hashes.keys() - set(self.entities)))
            words = self.shared.words(self.hashes.values())
            trace = evidence(
                tree,
                slots,
                self.codes,
                self.entry_point.address,
                [(owner, word) for owner in self.entities for word in words],
            )
            return Finding(head, tree, trace, self.stakes, self.hashes)
        raise Unproven("every run meets other code")

    async def _read_state(self, probe: StateProbe, tag: str) -> None:
        answer = await self.rpc.call("eth_call", {"data": to_hex(probe.code())}, tag)
        hashes, stakes = probe.decode(parse_bytes(answer, "state"))
        self.hashes |= hashes
        self.stakes |= stakes
        self.codes |= await self.shared.codes_of(hashes, tag) | self.delegations

    def _options(self, tracer: str, *, trap: bool) -> dict[str, Any]:
        state: dict[str, Any] = {to_hex(self.entry_point.address): {"code": self.ending}}
        for address, code in self.codes.items():
            if address in self.delegations or (trap and code.size and code.delegate is None):
                state[to_hex(address)] = {"code": code.trapped}
        return {"tracer": tracer, "tracerConfig": {"disableCode": True}, "stateOverrides": state}

    async def _run(self, tag: str) -> tuple[CallTree, dict[Address, frozenset[int]]]:
        calls, prestate = await self.rpc.batch(
            [
                ("debug_traceCall", (self.call, tag, self._options(calls_tracer(), trap=True))),
                ("debug_traceCall", (self.call, tag, self._options("prestateTracer", trap=True))),
            ]
        )
        return parse_calls(calls), slots_touched(prestate)

    async def _untrapped_run(self, tag: str) -> CallTree:
        """The same without traps: an error of the entry point is the operation's own then."""
        options = self._options(calls_tracer(), trap=False)
        return parse_calls(await self.rpc.call("debug_traceCall", self.call, tag, options))
