"""Position adapters, pure: each says which calls to read and turns the answers into parts of a portfolio; `wallet` makes the calls."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal
from types import MappingProxyType
from typing import Protocol

from contracts.types import Address
from policies.portfolio import (
    Allowance,
    Collateral,
    Debt,
    FeedState,
    Fill,
    Holding,
    Liquidity,
    Loan,
    Margin,
    Missing,
    Option,
    Position,
    Price,
)

Read = tuple[Address, bytes]
"""Target and call data of one `eth_call`."""
Log = tuple[Address, Sequence[bytes], bytes]
"""Contract, topics and data of one event."""
NO_PRICES: Mapping[str, Decimal] = MappingProxyType({})


@dataclass(frozen=True, slots=True)
class Snapshot:
    """What one adapter saw at one moment."""

    holdings: tuple[Holding, ...] = ()
    positions: tuple[Position, ...] = ()
    margins: tuple[Margin, ...] = ()
    prices: tuple[Price, ...] = ()
    missing: tuple[Missing, ...] = ()
    options: tuple[Option, ...] = ()
    debts: tuple[Debt, ...] = ()
    liquidity: tuple[Liquidity, ...] = ()
    collateral: tuple[Collateral, ...] = ()
    loans: tuple[Loan, ...] = ()
    allowances: tuple[Allowance, ...] = ()
    feeds: tuple[FeedState, ...] = ()


class Adapter(Protocol):
    """One venue, or one source of prices."""

    def reads(self, account: Address) -> tuple[Read, ...]:
        """The calls of the first round, always the same number for the same adapter."""

    def more(self, account: Address, answers: Sequence[bytes | None]) -> tuple[Read, ...]:  # noqa: ARG002
        """The calls of the next round, which follow from all answers so far; empty when everything is known. Same block."""
        return ()

    def parse(self, answers: Sequence[bytes | None]) -> Snapshot:
        """The answers of all rounds in their order, None where a call reverted. Never raises: what cannot be read is `missing`."""

    def fills(
        self,
        logs: Sequence[Log],  # noqa: ARG002
        account: Address,  # noqa: ARG002
        prices: Mapping[str, Decimal] = NO_PRICES,  # noqa: ARG002
    ) -> tuple[Fill, ...]:
        """Trades of `account` in the events of an execution, at `prices` (unit of account) where two assets are exchanged."""
        return ()


__all__ = ["NO_PRICES", "Adapter", "Log", "Read", "Snapshot"]
