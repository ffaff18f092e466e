"""What happens to operations and bundles, told to whoever listens: metrics, traces, subscriptions.

Told after it is on disk. A listener is called in the service's loop and must be quick; what it raises is logged and changes nothing.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Protocol, TypeVar

from bundler.economics import Economics
from contracts.types import Address, Hash32

log = logging.getLogger("bundler.events")


class Kind(StrEnum):
    """Operations: validated (on the node), accepted, refused, replaced, dropped, foreign (included by another bundler). Bundles: the others."""

    VALIDATED = "validated"
    ACCEPTED = "accepted"
    REFUSED = "refused"
    REPLACED = "replaced"
    DROPPED = "dropped"
    FOREIGN = "foreign"
    SENT = "sent"
    RESENT = "resent"
    INCLUDED = "included"
    REVERTED = "reverted"
    LOST = "lost"
    REORGANISED = "reorganised"
    REROUTED = "rerouted"
    """It went to another endpoint, too; `reason` names that one."""
    CENSORED = "censored"
    """An endpoint seems to leave it out; `reason` names it."""


@dataclass(frozen=True, slots=True)
class Event:
    """One thing that happened. `reason` says why: the rule or code of a refusal, the first word of a drop (AA25, GREP-010, ...)."""

    kind: Kind
    op_hashes: tuple[Hash32, ...] = ()
    sender: Address | None = None
    tx_hash: Hash32 | None = None
    block_number: int | None = None
    reason: str = ""
    detail: str = ""
    seconds: float | None = None
    """How long it took, where that is known: of what was accepted or refused, from its arrival; of what was validated, on the node."""
    economics: Economics | None = None
    """Of a bundle that is in a block."""
    elsewhere: bool = False
    """Another process on the same database did it, and counts it."""


class _Validated(Protocol):
    @property
    def way(self) -> str: ...


_V = TypeVar("_V", bound=_Validated)
Listener = Callable[[Event], None]


@dataclass(slots=True)
class Events:
    """The listeners."""

    listeners: list[Listener] = field(default_factory=list)

    async def timed(self, validation: Awaitable[_V], op_hash: Hash32, turn: str) -> _V:
        """Await a validation and tell how long it took: `reason` is the turn (first, second), `detail` the way, or `refused`."""
        started_s, way = time.monotonic(), "refused"
        try:
            found = await validation
            way = found.way
        finally:
            took_s = time.monotonic() - started_s
            self.tell(Event(Kind.VALIDATED, (op_hash,), reason=turn, detail=way, seconds=took_s))
        return found

    def tell(self, event: Event) -> None:
        """Call every listener."""
        for listener in self.listeners:
            try:
                listener(event)
            except Exception:
                log.exception("a listener failed on %s", event.kind)
