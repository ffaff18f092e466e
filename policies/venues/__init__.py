"""Position adapters, pure: each says which calls to read and turns the answers into parts of a portfolio; `wallet` makes the calls."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from contracts.types import Address
from policies.portfolio import Fill, Holding, Margin, Missing, Option, Position, Price

Read = tuple[Address, bytes]
"""Target and call data of one `eth_call`."""


@dataclass(frozen=True, slots=True)
class Snapshot:
    """What one adapter saw at one moment."""

    holdings: tuple[Holding, ...] = ()
    positions: tuple[Position, ...] = ()
    margins: tuple[Margin, ...] = ()
    prices: tuple[Price, ...] = ()
    missing: tuple[Missing, ...] = ()
    options: tuple[Option, ...] = ()


class Adapter(Protocol):
    """One venue, or one source of prices."""

    def reads(self, account: Address) -> tuple[Read, ...]:
        """The calls to make, always the same number for the same adapter."""

    def parse(self, answers: Sequence[bytes | None]) -> Snapshot:
        """The answers in the order of `reads`, None where a call reverted. Never raises: what cannot be read is `missing`."""

    def fills(self, logs: Sequence[tuple[Address, Sequence[bytes], bytes]], account: Address) -> tuple[Fill, ...]:
        """Trades of `account` in the events (address, topics, data) of an execution."""


__all__ = ["Adapter", "Read", "Snapshot"]
