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
from policies.canonical import decimal_text

UNIT_OF_ACCOUNT = "USDC"


@dataclass(frozen=True, slots=True)
class Holding:
    """Tokens the account itself holds. `amount` >= 0."""

    venue: str
    asset: str
    amount: Decimal


@dataclass(frozen=True, slots=True)
class Debt:
    """What the account owes a lending venue. `amount` >= 0; `annual_rate` is the interest it accrues now as a fraction a year, None when
    the venue was not asked."""

    venue: str
    asset: str
    amount: Decimal
    annual_rate: Decimal | None = None


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


def option_label(venue: str, asset: str, expiry_s: int, strike: Decimal, *, is_call: bool) -> str:
    """`lyra:ETH-1700000000-1500-C`: venue, underlying, expiry (unix s), strike, kind."""
    return f"{venue}:{asset}-{expiry_s}-{decimal_text(strike)}-{'C' if is_call else 'P'}"


@dataclass(frozen=True, slots=True)
class Option:
    """A European option. `size` in units of the underlying, negative when short; `strike`, `forward` and `mark_price` in unit of account
    per unit of the underlying; `implied_vol` annualised (0.8 = 80 %), as the venue marks it, None when it says none; `forward` the
    venue's own for this expiry, None for the index price. `entry_notional` is the premium it was opened with, signed like `size`.
    """

    venue: str
    asset: str
    is_call: bool
    strike: Decimal
    expiry_s: int
    size: Decimal
    entry_notional: Decimal
    mark_price: Decimal
    implied_vol: Decimal | None
    forward: Decimal | None = None

    @property
    def notional(self) -> Decimal:
        """size x mark price: what closing at the mark would bring, signed."""
        return self.size * self.mark_price

    @property
    def label(self) -> str:
        return option_label(self.venue, self.asset, self.expiry_s, self.strike, is_call=self.is_call)


@dataclass(frozen=True, slots=True)
class Liquidity:
    """A concentrated liquidity position (Uniswap v3). Prices are of `asset0` in `asset1`, in whole units; `liquidity` is the pool's L
    scaled to whole units: amounts at price p in the range are L (1/sqrt p - 1/sqrt upper) and L (sqrt p - sqrt lower). `owed0` and
    `owed1` are fees and withdrawn principal not yet collected. It is valued at the index price, never at the pool's spot.
    """

    venue: str
    token_id: int
    asset0: str
    asset1: str
    lower_price: Decimal
    upper_price: Decimal
    liquidity: Decimal
    owed0: Decimal
    owed1: Decimal

    @property
    def label(self) -> str:
        return f"{self.venue}:{self.asset0}-{self.asset1}#{self.token_id}"


@dataclass(frozen=True, slots=True)
class Collateral:
    """What secures the debts at a lending venue. `amount` >= 0, interest included; `liquidation_threshold` and `loan_to_value` are
    fractions, those of the eMode in force; zero for what is supplied but not enabled as collateral. `price` is the venue's own oracle's.
    """

    venue: str
    asset: str
    amount: Decimal
    price: Decimal
    liquidation_threshold: Decimal
    loan_to_value: Decimal


@dataclass(frozen=True, slots=True)
class Loan:
    """The state of one account at a lending venue, in unit of account, as the venue itself answers.

    health_factor = sum of collateral x price x liquidation threshold / debt (checked); None when nothing is owed; liquidatable below 1.
    """

    venue: str
    collateral_value: Decimal
    debt_value: Decimal
    liquidation_threshold: Decimal
    health_factor: Decimal | None
    available_borrow: Decimal


@dataclass(frozen=True, slots=True)
class Allowance:
    """What `spender` may still take of `asset` from the account, in whole units. `unlimited` at 2^255 units or more."""

    asset: str
    token: Address
    spender: Address
    amount: Decimal
    unlimited: bool


@dataclass(frozen=True, slots=True)
class Margin:
    """One cross-margined account at one venue, in quote, as the venue itself answers.

    account_value = collateral + unrealised profits - pending funding (checked); liquidatable when
    account_value < maintenance_requirement. `model` names the rule that the requirement follows (policies.risk.margin), with the
    `terms` it needs beside the positions; "ratio": maintenance_ratio x sum of |size x mark price|.
    """

    venue: str
    collateral: Decimal
    account_value: Decimal
    maintenance_requirement: Decimal
    free_collateral: Decimal
    maintenance_ratio: Decimal
    initial_ratio: Decimal
    model: str = "ratio"
    terms: tuple[tuple[str, Decimal], ...] = ()


@dataclass(frozen=True, slots=True)
class Portfolio:
    """Everything the account holds and owes at one moment."""

    holdings: tuple[Holding, ...] = ()
    debts: tuple[Debt, ...] = ()
    positions: tuple[Position, ...] = ()
    margins: tuple[Margin, ...] = ()
    options: tuple[Option, ...] = ()
    liquidity: tuple[Liquidity, ...] = ()
    collateral: tuple[Collateral, ...] = ()
    loans: tuple[Loan, ...] = ()
    allowances: tuple[Allowance, ...] = ()

    def assets(self) -> frozenset[str]:
        """Assets whose price is needed to value it; the unit of account needs none."""
        held = {h.asset for h in self.holdings if h.amount} | {d.asset for d in self.debts if d.amount}
        held |= {p.asset for p in self.positions if p.size} | {o.asset for o in self.options if o.size}
        held |= {c.asset for c in self.collateral if c.amount}
        held |= {asset for pool in self.liquidity for asset in (pool.asset0, pool.asset1)}
        return frozenset(held - {UNIT_OF_ACCOUNT})


@dataclass(frozen=True, slots=True)
class Price:
    """One quotation: unit of account per unit of `asset`, the time (unix s) at which its source fixed it, and that source."""

    asset: str
    value: Decimal
    time_s: int
    source: str


@dataclass(frozen=True, slots=True)
class FeedState:
    """What stands behind a feed now: its own address, the aggregator that answers for it (itself where it names none), its decimals."""

    address: Address
    aggregator: Address
    decimals: int


SETTLEMENT = "settlement"
"""In place of an option's label in a fill: nobody chose its price."""
SPOT_VENUES = frozenset(("uniswap",))
"""Venues whose fills exchange tokens, and show in balances instead of positions."""


@dataclass(frozen=True, slots=True)
class Fill:
    """One simulated trade. `size` signed base; `quote` > 0 is what it exchanged; `fee` >= 0 in quote comes on top. `option` is the label of
    the option that was traded (`Option.label`), `SETTLEMENT` where an expired one was paid out, empty for everything linear."""

    venue: str
    asset: str
    size: Decimal
    quote: Decimal
    fee: Decimal
    option: str = ""


@dataclass(frozen=True, slots=True)
class Order:
    """What an order permits at worst: the mean price of its own bound, None when it has none. `is_buy` of base, or of the option whose
    label `option` is; the price is then its premium."""

    venue: str
    asset: str
    is_buy: bool
    worst_price: Decimal | None
    option: str = ""


@dataclass(frozen=True, slots=True)
class Returns:
    """Past returns of one asset, oldest first, for VaR and ES: simple returns over `period_s` seconds, the last ending at `until_s`."""

    asset: str
    period_s: int
    until_s: int
    source: str
    values: tuple[Decimal, ...]


@dataclass(frozen=True, slots=True)
class EquityPoint:
    """Equity (unit of account) seen at `time_s`, and what had been paid in (positive) or out until then in all, so that a deposit is
    no profit: profit between two points = change of equity - change of `paid_in`."""

    time_s: int
    equity: Decimal
    paid_in: Decimal


@dataclass(frozen=True, slots=True)
class Activity:
    """One operation of the past that was attested or included: when, what it traded (quote, >= 0), what it cost (wei), who signed."""

    time_s: int
    intent_hash: Hash32
    traded: Decimal
    realised: Decimal
    gas_wei: Wei
    sponsored_wei: Wei


@dataclass(frozen=True, slots=True)
class History:
    """What the account did and was worth, as far back as the windows of the policy reach: both oldest first, `since_s` the moment
    from which the record is complete (unix s)."""

    since_s: int
    equity: tuple[EquityPoint, ...] = ()
    activity: tuple[Activity, ...] = ()


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
    returns: tuple[Returns, ...] = ()
    history: History | None = None
    feeds: tuple[FeedState, ...] = ()
    touched: tuple[Address, ...] | None = None
    """Contracts that the operation calls, delegates to or creates by the node's own trace (policies.trace). Read when a limit asks whom
    the operation touches; None: not read, which denies where one does."""
    counterparties: tuple[Address, ...] | None = None
    """By the same trace: whoever receives value from the account, or is let take it."""
    signer: Address | None = None
    """Who signs: the owner, or the session key of a trader; None when that is not known yet."""
