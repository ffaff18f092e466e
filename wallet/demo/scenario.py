"""What happens in the demo, and when: sizes, and the moments of the events relative to the window that is replayed."""

from __future__ import annotations

from dataclasses import dataclass
from decimal import Decimal

from contracts.errors import BadInput

MIN_BARS = 60


@dataclass(frozen=True, slots=True)
class Scenario:
    """Both accounts deposit `collateral_usdc` and open a long of `leverage` times that. Events by bar number, counted from 0."""

    collateral_usdc: Decimal = Decimal(10_000)
    leverage: Decimal = Decimal(3)
    open_bar: int = 2
    refuse_bar: int = 10
    extra_leverage: Decimal = Decimal(2)
    """Size of the order that the policy refuses, as a multiple of the collateral."""
    freeze_bar: int = 20
    withdraw_bar: int = 22
    kill_share: Decimal = Decimal("0.75")
    """The keeper is killed when the index has fallen by this share of the stop's distance from the entry; a supervisor would have
    it back within seconds, here it is back with the next bar."""

    @property
    def notional_usdc(self) -> Decimal:
        return self.collateral_usdc * self.leverage

    def check(self, bars: int) -> None:
        """Raise BadInput for a window that is too short for what happens in it."""
        if bars < MIN_BARS:
            raise BadInput(f"the demo needs a window of at least {MIN_BARS} one-minute bars, this one has {bars}")
