"""What happens to operations and bundles, told to whoever listens: metrics, traces, subscriptions.

Told after it is on disk. A listener is called in the service's loop and must be quick; what it raises is logged and changes nothing.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass, field
from enum import StrEnum

from contracts.types import Address, Hash32

log = logging.getLogger("bundler.events")


class Kind(StrEnum):
    """Operations: accepted, refused, replaced, dropped, foreign (included by another bundler). Bundles: the others."""

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
    """How long it took, where that is known: the validation of what was accepted or refused."""
    gas_limit: int | None = None


Listener = Callable[[Event], None]


@dataclass(slots=True)
class Events:
    """The listeners."""

    listeners: list[Listener] = field(default_factory=list)

    def tell(self, event: Event) -> None:
        """Call every listener."""
        for listener in self.listeners:
            try:
                listener(event)
            except Exception:
                log.exception("a listener failed on %s", event.kind)
