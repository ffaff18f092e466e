"""Heads, and which triggers are watched on them: a file's list, or whatever the chain's events say a session key may fire."""

from __future__ import annotations

import asyncio
import json
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from contracts.abi import Event
from contracts.bindings import GUARD_EXECUTE, SESSION_ENABLED, SESSION_REVOKED, STOP_ARMED, Session
from contracts.errors import BadInput, InvalidFields, NodeError, SetupError
from contracts.rpc import RpcClient
from contracts.types import Address, Hash32, Wei, checksum, parse_address, parse_hash, to_hex

REORG_DEPTH = 16
"""Blocks that are searched again on each head: adding a trigger twice changes nothing, missing one does."""
LOG_RANGE = 5_000
"""Blocks one eth_getLogs asks for; providers refuse larger ranges."""


@dataclass(frozen=True, slots=True)
class Head:
    """The newest block. `base_fee_wei` per gas, `timestamp_s` unix seconds."""

    number: int
    hash: Hash32
    timestamp_s: int
    base_fee_wei: Wei

    @classmethod
    def from_rpc(cls, block: Mapping[str, Any]) -> Head:
        return cls(
            number=int(block["number"], 16),
            hash=parse_hash(block["hash"], "block hash"),
            timestamp_s=int(block["timestamp"], 16),
            base_fee_wei=int(block.get("baseFeePerGas") or "0x0", 16),
        )


@dataclass(frozen=True, slots=True, order=True)
class Trigger:
    """One stop of one account. A later arming of the same id is the same trigger."""

    account: Address
    id: int

    def __str__(self) -> str:
        return f"{checksum(self.account)}#{self.id}"


async def next_head(
    rpc: RpcClient, last: Head | None, stop: asyncio.Event, *, poll_s: float, patience_s: float | None = None
) -> Head | None:
    """Wait for a head that differs from `last` by its hash: a block of the same height, or a lower one, is a reorganisation and news
    too. None once `stop` is set.

    An unreachable node is asked again, every `poll_s` seconds, for ever. Heads in between are skipped on purpose: what matters is
    what the newest state says. With `patience_s` the same head comes again after that long: what is due is looked at anew even where
    no block follows.
    """
    loop = asyncio.get_running_loop()
    began = loop.time()
    while not stop.is_set():
        try:
            head = Head.from_rpc(await rpc.block())
            waited = patience_s is not None and loop.time() - began >= patience_s
            if last is None or head.hash != last.hash or waited:
                return head
        except NodeError:
            pass
        await pause(stop, poll_s)
    return None


async def pause(stop: asyncio.Event, seconds: float) -> None:
    """Sleep, but wake at once when `stop` is set."""
    try:
        async with asyncio.timeout(seconds):
            await stop.wait()
    except TimeoutError:
        pass


class WatchList:
    """The triggers to read on every head and the session that may fire each account's.

    From a file: those triggers, with the sessions it names or that are found. Without one: every armed event of the guard module for
    an account that enabled a session for our key. Both follow later events, so a stop that is armed again is watched again.
    """

    def __init__(
        self,
        *,
        key: Address,
        guard: Address,
        session_validator: Address,
        from_block: int,
        listed: Mapping[Trigger, Hash32 | None] | None = None,
        armed: Event = STOP_ARMED,
    ) -> None:
        self._key = key
        self._guard = guard
        self._armed_event = armed
        self._session_validator = session_validator
        self._from_block = from_block
        self._scanned = from_block - 1
        self._only: frozenset[Trigger] | None = frozenset(listed) if listed is not None else None
        self._armed: set[Trigger] = set(listed or ())
        self._sessions: dict[Address, dict[Hash32, int]] = {}
        for trigger, session in (listed or {}).items():
            if session is not None:
                self._sessions.setdefault(trigger.account, {})[session] = 2**48

    @property
    def triggers(self) -> list[Trigger]:
        """Every armed trigger of an account whose session we hold, in a fixed order. A listed one needs no session to be seen."""
        return sorted(t for t in self._armed if self._only is not None or t.account in self._sessions)

    def session(self, account: Address) -> Hash32 | None:
        """The session that lasts longest, if there is one."""
        sessions = self._sessions.get(account)
        return max(sessions, key=lambda s: (sessions[s], s)) if sessions else None

    def forget(self, trigger: Trigger) -> None:
        """Stop reading a trigger that can never fire again; arming it anew brings it back."""
        self._armed.discard(trigger)

    async def refresh(self, rpc: RpcClient, head: Head) -> None:
        """Read the events up to `head`. Raises NodeError; what was read so far is kept."""
        start = max(min(self._scanned + 1, head.number - REORG_DEPTH), self._from_block)
        while start <= head.number:
            end = min(start + LOG_RANGE - 1, head.number)
            logs = await rpc.call(
                "eth_getLogs",
                {
                    "address": [to_hex(self._guard), to_hex(self._session_validator)],
                    "topics": [
                        [to_hex(self._armed_event.topic), to_hex(SESSION_ENABLED.topic), to_hex(SESSION_REVOKED.topic)]
                    ],
                    "fromBlock": hex(start),
                    "toBlock": hex(end),
                },
            )
            for log in logs:
                self._take(log)
            self._scanned = end
            start = end + 1

    def _take(self, log: Mapping[str, Any]) -> None:
        address = parse_address(log["address"].lower())
        topics = [parse_hash(topic, "topic") for topic in log["topics"]]
        account = topics[1][12:]
        if address == self._guard and topics[0] == self._armed_event.topic:
            trigger = Trigger(account, int.from_bytes(topics[2]))
            if self._only is None or trigger in self._only:
                self._armed.add(trigger)
        elif address == self._session_validator and topics[0] == SESSION_REVOKED.topic:
            self._sessions.get(account, {}).pop(topics[2], None)
            if not self._sessions.get(account, True):
                del self._sessions[account]
        elif address == self._session_validator and topics[0] == SESSION_ENABLED.topic:
            data = bytes.fromhex(log["data"][2:])
            _, session_id, fields, _ = SESSION_ENABLED.decode(topics, data)
            session = Session(*fields)
            is_ours = (session.key, session.target, session.selector) == (
                self._key,
                self._guard,
                GUARD_EXECUTE.selector,
            )
            if is_ours and not session.uses and not any(session.bounds):  # what is limited is meant for others
                self._sessions.setdefault(account, {})[session_id] = session.valid_until_s


def read_watch_file(path: Path) -> dict[Trigger, Hash32 | None]:
    """Read `[[triggers]]` tables (TOML) or a `triggers` list (JSON): `account`, `ids`, optional `session`.

    Raises SetupError if the file cannot be read, BadInput naming the entry that is malformed.
    """
    try:
        raw = path.read_bytes()
        tree = json.loads(raw) if path.suffix == ".json" else tomllib.loads(raw.decode())
    except OSError as error:
        raise SetupError(f"the watch file {path} cannot be read: {error.strerror}") from None
    except ValueError as error:
        raise BadInput(f"the watch file {path} is malformed: {error}") from None
    entries = tree.get("triggers") if isinstance(tree, dict) else None
    if not isinstance(entries, list) or not entries:
        raise BadInput(
            f"the watch file {path} needs at least one entry under `triggers`: account, ids, and perhaps session"
        )
    listed: dict[Trigger, Hash32 | None] = {}
    for position, entry in enumerate(entries, start=1):
        where = f"{path}, trigger {position}"
        if not isinstance(entry, dict) or not entry.keys() <= {"account", "ids", "session"}:
            raise BadInput(f"{where}: only `account`, `ids` and `session` are known")
        ids = entry.get("ids")
        if not isinstance(ids, list) or not all(isinstance(i, int) and 0 <= i < 2**256 for i in ids) or not ids:
            raise BadInput(f"{where}: `ids` must be a list of trigger ids such as [1, 2]")
        try:
            account = parse_address(entry.get("account"), "account")
            session = parse_hash(entry["session"], "session") if "session" in entry else None
        except InvalidFields as error:
            raise BadInput(f"{where}: {error}") from None
        listed |= {Trigger(account, i): session for i in ids}
    return listed


__all__ = ["Head", "Trigger", "WatchList", "next_head", "pause", "read_watch_file"]
