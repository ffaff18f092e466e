"""What is held and what is known: portfolios before and after an operation, prices, and everything else a Decision rests on.

Amounts are exact Decimals in whole units (1 = one USDC, one ETH). The unit of account is USDC, whose own price is 1 by definition.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from decimal import Decimal

from contracts.bindings import RiskState
from contracts.types import Address, Hash32, Wei
from policies.calls import DecodedCalls

UNIT_OF_ACCOUNT = "USDC"


@dataclass(frozen=True, slots=True)
class Holding:
    """Tokens the account itself holds. `amount` >= 0."""

    venue: str
    asset: str
    amount: Decimal


@dataclass(frozen=True, slots=True)
class Debt:
    """What the account owes a lending venue. `amount` >= 0."""

    venue: str
    asset: str
    amount: Decimal


@dataclass(frozen=True, slots=True)
class Position:
    """A linear derivative. `size` in base units, negative when short; `entry_notional` the quote it was opened with, signed like
    `size`; unrealised profit = size x mark_price - entry_notional. `mark_price` is the venue's own, in quote per base."""

    venue: str
    asset: str
    size: Decimal
    entry_notional: Decimal
    mark_price: Decimal
    pending_funding: Decimal = Decimal(0)
    """Quote that the position owes (positive) or is owed when funding settles; part of the venue's account value already."""

    @property
    def notional(self) -> Decimal:
        """size x mark price, signed."""
        return self.size * self.mark_price

    @property
    def label(self) -> str:
        return f"{self.venue}:{self.asset}"


@dataclass(frozen=True, slots=True)
class Margin:
    """One cross-margined account at one venue, in quote, as the venue itself answers.

    account_value = collateral + unrealised profits - pending funding (checked); liquidatable when
    account_value < maintenance_requirement = maintenance_ratio x sum of |size x mark price|.
    """

    venue: str
    collateral: Decimal
    account_value: Decimal
    maintenance_requirement: Decimal
    free_collateral: Decimal
    maintenance_ratio: Decimal
    initial_ratio: Decimal


@dataclass(frozen=True, slots=True)
class Portfolio:
    """Everything the account holds and owes at one moment."""

    holdings: tuple[Holding, ...] = ()
    debts: tuple[Debt, ...] = ()
    positions: tuple[Position, ...] = ()
    margins: tuple[Margin, ...] = ()

    def assets(self) -> frozenset[str]:
        """Assets whose price is needed to value it; the unit of account needs none."""
        held = {h.asset for h in self.holdings if h.amount} | {d.asset for d in self.debts if d.amount}
        return frozenset((held | {p.asset for p in self.positions if p.size}) - {UNIT_OF_ACCOUNT})


@dataclass(frozen=True, slots=True)
class Price:
    """One quotation: unit of account per unit of `asset`, the time (unix s) at which its source fixed it, and that source."""

    asset: str
    value: Decimal
    time_s: int
    source: str


@dataclass(frozen=True, slots=True)
class Fill:
    """One simulated trade. `size` signed base; `quote` > 0 is what it exchanged; `fee` >= 0 in quote comes on top."""

    venue: str
    asset: str
    size: Decimal
    quote: Decimal
    fee: Decimal


@dataclass(frozen=True, slots=True)
class Order:
    """What an order permits at worst: the mean price of its own bound, None when it has none. `is_buy` of base."""

    venue: str
    asset: str
    is_buy: bool
    worst_price: Decimal | None


@dataclass(frozen=True, slots=True)
class Missing:
    """A fact that could not be had: what, and why."""

    what: str
    why: str


@dataclass(frozen=True, slots=True)
class Outstanding:
    """An attestation that was given and may still be used until `valid_until_s` (unix s)."""

    intent_hash: Hash32
    nonce: int
    valid_until_s: int


@dataclass(frozen=True, slots=True)
class Facts:
    """Everything `evaluate` looks at; its hash is in every attestation.

    `before` and `after` are read on the same block, without and with the operation. `after` is meaningless unless `succeeded`.
    `book` maps contract and role names to addresses. `latched` are ids of limits that were breached when last judged (hysteresis).
    """

    chain_id: int
    account: Address
    nonce: int
    intent_hash: Hash32
    block_number: int
    block_hash: Hash32
    block_time_s: int
    state: RiskState
    policy_on_chain: Hash32
    policy_epoch: int
    calls: DecodedCalls
    succeeded: bool
    revert_data: bytes
    before: Portfolio
    after: Portfolio
    prices: tuple[Price, ...]
    fills: tuple[Fill, ...] = ()
    orders: tuple[Order, ...] = ()
    book: Mapping[str, Address] = field(default_factory=dict)
    outstanding: tuple[Outstanding, ...] = ()
    latched: frozenset[str] = frozenset()
    missing: tuple[Missing, ...] = ()
    max_prefund_wei: Wei = 0
    sponsored: bool = False
    sponsored_today_wei: Wei = 0
