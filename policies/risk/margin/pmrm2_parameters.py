"""Parameters of Derive's portfolio margin, version 2: the set that its own test portfolios start from, and its 31 scenarios.

Fractions of one unless the name says otherwise; live values come from the manager contract and replace these.
Source: derivexyz/v2-core, IPMRMLib_2 and its portfolio cases.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum


class VolShock(Enum):
    """What a scenario does to volatility."""

    UP = "Up"
    DOWN = "Down"
    NONE = "None"
    LINEAR = "LINEAR"
    ABS = "ABS"

    @property
    def is_skew(self) -> bool:
        return self in (VolShock.LINEAR, VolShock.ABS)


@dataclass(frozen=True, slots=True)
class Scenario:
    """Spot times `spot_shock` with a shock of volatility; only `dampening` of what it does to the portfolio counts."""

    spot_shock: float
    vol_shock: VolShock
    dampening: float = 1.0


def _standard() -> tuple[Scenario, ...]:
    found = [Scenario(1.18, VolShock.UP)]
    for shock in (1.135, 1.09, 1.045, 1.0, 0.955, 0.91, 0.865):
        found += [Scenario(shock, vol) for vol in (VolShock.DOWN, VolShock.NONE, VolShock.UP)]
    found.append(Scenario(0.82, VolShock.UP))
    for shock in (0.34, 0.67, 1.5, 2.0, 3.0, 4.0):
        found.append(Scenario(shock, VolShock.UP, 0.2 * 0.18 / abs(shock - 1)))
    return (*found, Scenario(1.0, VolShock.LINEAR), Scenario(1.0, VolShock.ABS))


SCENARIOS = _standard()


@dataclass(frozen=True, slots=True)
class Parameters:
    """All of `PMRMLib_2`. `dte_floor_days` in days; powers are exponents."""

    vol_range_up: float = 0.5
    vol_range_down: float = 0.275
    short_term_power: float = 0.3
    long_term_power: float = 0.13
    dte_floor_days: float = 1.0
    min_vol_up_shock: float = 0.45
    linear_base_cap: float = 0.15
    linear_c_base: float = -0.05
    abs_base_cap: float = 0.15
    abs_c_base: float = -0.05
    min_k_star: float = 0.01
    width_scale: float = 4.0
    vol_param_static: float = 0.6
    vol_param_scale: float = -0.1
    im_factor: float = 1.0
    mm_factor: float = 0.8
    short_rate_mult_scale: float = 0.5
    long_rate_mult_scale: float = 1.0
    short_rate_add_scale: float = 0.08
    long_rate_add_scale: float = 0.08
    long_base_static_discount: float = 0.95
    short_base_static_discount: float = 1.04
    basis_spot_up: float = 1.045
    basis_spot_down: float = 0.955
    basis_add_factor: float = 0.5
    basis_mult_factor: float = 2.0
    peg_loss_threshold: float = 0.98
    peg_loss_factor: float = 2.0
    confidence_threshold: float = 0.55
    confidence_margin: float = 1.0
    mm_perp_percent: float = 0.015
    im_perp_percent: float = 0.005
    mm_option_percent: float = 0.003
    im_option_percent: float = 0.002
    scenarios: tuple[Scenario, ...] = SCENARIOS


@dataclass(frozen=True, slots=True)
class ExpiryFeed:
    """What the feeds say of one expiry. `confidence`: the least of forward, rate and volatilities; `forward_fixed` the part of the
    forward (quote) that no shock moves: the share of the settlement average that is in already. None: by time, 0 until 30 minutes before
    expiry, then growing to all of it."""

    rate: float = 0.0
    confidence: float = 1.0
    forward_fixed: float | None = None


@dataclass(frozen=True, slots=True)
class CollateralTerms:
    """Haircuts as fractions of value; the initial one comes on top of the maintenance one."""

    mm_haircut: float
    im_haircut: float
    is_risk_cancelling: bool
    confidence: float = 1.0


DEFAULT = Parameters()
