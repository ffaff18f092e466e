"""Subscriptions over a websocket: what happens to operations and bundles, told when it happens.

    eth_subscribe ["userOperations"]                     every operation
    eth_subscribe ["userOperations", {"sender": ADDRESS}]
    eth_subscribe ["userOperation", HASH]                one operation
    eth_subscribe ["bundles"]
    eth_unsubscribe [ID]

A notification is {"jsonrpc": "2.0", "method": "eth_subscription", "params": {"subscription": ID, "result": {...}}}. Nothing is kept for who is
away: ask `seawall_getUserOperationStatus` after connecting. A client that does not read is disconnected.
"""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from bundler.events import Event, Events, Kind
from contracts.errors import InvalidFields
from contracts.types import Address, Hash32, checksum, parse_address, parse_hash, to_hex

MOST_EACH = 64
"""Subscriptions of one connection."""
BACKLOG = 1_000
"""Notifications that a client may be behind."""
_BUNDLES = frozenset(
    {
        Kind.SENT,
        Kind.RESENT,
        Kind.INCLUDED,
        Kind.REVERTED,
        Kind.LOST,
        Kind.REORGANISED,
        Kind.REROUTED,
        Kind.CENSORED,
    }
)
_SenderOf = Callable[[Hash32], Address | None]


@dataclass(frozen=True, slots=True)
class _Wish:
    """What one subscription wants: bundles, or operations: all, a sender's, or one."""

    bundles: bool = False
    sender: Address | None = None
    op_hash: Hash32 | None = None


def _wish(params: Sequence[Any]) -> _Wish:
    what = params[0] if params else None
    rest = params[1] if len(params) > 1 else None
    if what == "bundles" and rest is None:
        return _Wish(bundles=True)
    if what == "userOperation":
        return _Wish(op_hash=parse_hash(rest, "the hash"))
    if what == "userOperations":
        if rest is None:
            return _Wish()
        if isinstance(rest, dict) and set(rest) == {"sender"}:
            return _Wish(sender=parse_address(rest["sender"], "sender"))
        raise InvalidFields('the filter of userOperations is {"sender": ADDRESS}')
    raise InvalidFields("subscribe to userOperations (with a sender or without), userOperation HASH, or bundles")


class Connection:
    """One client's subscriptions and what is waiting to be sent to it."""

    def __init__(self, sender_of: _SenderOf) -> None:
        self._sender_of = sender_of
        self._wishes: dict[str, _Wish] = {}
        self.waiting: asyncio.Queue[dict[str, Any]] = asyncio.Queue(BACKLOG)
        self.overrun = asyncio.Event()

    def subscribe(self, params: Sequence[Any]) -> str:
        """A new subscription's id. Raises InvalidFields."""
        if len(self._wishes) >= MOST_EACH:
            raise InvalidFields(f"a connection has at most {MOST_EACH} subscriptions")
        wish = _wish(params)
        number = "0x" + secrets.token_hex(16)
        self._wishes[number] = wish
        return number

    def unsubscribe(self, params: Sequence[Any]) -> bool:
        return self._wishes.pop(str(params[0]) if params else "", None) is not None

    def note(self, event: Event) -> None:
        """Queue what the subscriptions want of an event. A validation is no news of its own: what follows from it is."""
        if event.kind is Kind.VALIDATED:
            return
        for number, wish in self._wishes.items():
            for result in self._results(wish, event):
                params = {"subscription": number, "result": result}
                try:
                    self.waiting.put_nowait({"jsonrpc": "2.0", "method": "eth_subscription", "params": params})
                except asyncio.QueueFull:
                    self.overrun.set()
                    return

    def _results(self, wish: _Wish, event: Event) -> Iterator[dict[str, Any]]:
        if wish.bundles:
            if event.kind in _BUNDLES:
                hashes = [to_hex(one) for one in event.op_hashes]
                yield {"status": event.kind.value, "userOpHashes": hashes, **_place(event)}
            return
        for op_hash in event.op_hashes:
            if wish.op_hash is not None and wish.op_hash != op_hash:
                continue
            sender = event.sender or self._sender_of(op_hash)
            if wish.sender is not None and wish.sender != sender:
                continue
            yield {
                "status": event.kind.value,
                "userOpHash": to_hex(op_hash),
                "sender": None if sender is None else checksum(sender),
                "reason": event.detail or None,
                **_place(event),
            }


def _place(event: Event) -> dict[str, Any]:
    return {
        "transactionHash": None if event.tx_hash is None else to_hex(event.tx_hash),
        "blockNumber": None if event.block_number is None else hex(event.block_number),
    }


class Subscriptions:
    """The connections that listen."""

    def __init__(self, events: Events, sender_of: _SenderOf, most: int) -> None:
        self._sender_of, self._most = sender_of, most
        self._connections: set[Connection] = set()
        events.listeners.append(self._note)

    def connect(self) -> Connection | None:
        """A new connection; None when there are as many as the settings allow."""
        if len(self._connections) >= self._most:
            return None
        connection = Connection(self._sender_of)
        self._connections.add(connection)
        return connection

    def disconnect(self, connection: Connection) -> None:
        self._connections.discard(connection)

    def _note(self, event: Event) -> None:
        for connection in tuple(self._connections):
            connection.note(event)
