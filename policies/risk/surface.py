"""A volatility surface from an option chain: one SVI slice per expiry, checked for static arbitrage.

    w(k) = a + b (rho (k - m) + sqrt((k - m)^2 + sigma^2)),   k = ln(K / F),   w = implied variance x years (total variance)

Butterfly: the density is proportional to g(k) = (1 - k w'/(2w))^2 - (w'^2/4)(1/w + 1/4) + w''/2 >= 0. Calendar: total variance does not
fall with time at any k. Both are asked for in the fit, as penalties on a grid, and reported afterwards wherever they fail. Between expiries
total variance is linear in time at equal k (which keeps the calendar condition); before the first it falls to zero with time, behind the last
it grows in proportion to time; outside the strikes seen a slice follows its own wings.
Doubles; deterministic: the same quotes give the same fit on one machine.
Source: Gatheral and Jacquier, "Arbitrage-free SVI volatility surfaces", Quantitative Finance 14 (2014).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy.optimize import least_squares

from contracts.errors import BadInput

Floats = npt.NDArray[np.float64]
MODEL = ("svi", "1", "scipy")
_GRID = np.linspace(-1.5, 1.5, 121)
"""Where arbitrage is looked for, in standard deviations' reach: k from 22 % to 450 % of the forward."""
_TOLERANCE = 1e-8
"""A violation smaller than this is rounding."""
_PENALTY = 30.0
_LEAST_QUOTES = 5


@dataclass(frozen=True, slots=True)
class Quote:
    """One option's implied volatility (annualised, 0.8 = 80 %). `weight` > 0: vega, open interest, or 1."""

    strike: float
    vol: float
    weight: float = 1.0


@dataclass(frozen=True, slots=True)
class Slice:
    """Raw SVI at one expiry: `years` from now, `forward` in quote per unit of the underlying."""

    years: float
    forward: float
    a: float
    b: float
    rho: float
    m: float
    sigma: float
    rms_vol: float
    """Root of the weighted mean square of fitted less quoted volatility."""

    def total_variance(self, k: Floats) -> Floats:
        """w at log-moneyness k, same shape."""
        found: Floats = _svi(np.array([self.a, self.b, self.rho, self.m, self.sigma]), k)
        return found

    def g(self, k: Floats) -> Floats:
        """Gatheral and Jacquier's g; negative where a butterfly has a negative price."""
        away = k - self.m
        root = np.sqrt(away * away + self.sigma**2)
        w = self.a + self.b * (self.rho * away + root)
        first = self.b * (self.rho + away / root)
        second = self.b * self.sigma**2 / root**3
        return _density(k, w, first, second)


@dataclass(frozen=True, slots=True)
class Violation:
    """Static arbitrage: `kind` butterfly or calendar, at log-moneyness `k` of the expiry `years`; `size` > 0 is how much is missing."""

    kind: str
    years: float
    k: float
    size: float


@dataclass(frozen=True, slots=True)
class Surface:
    """Slices by expiry, nearest first."""

    slices: tuple[Slice, ...]

    def vol(self, strike: float, forward: float, years: float) -> float:
        """Implied volatility of one option; `forward` for that expiry. Raises BadInput for what is no option."""
        for name, value in (("strike", strike), ("forward", forward), ("time to expiry", years)):
            if not (math.isfinite(value) and value > 0):
                raise BadInput(f"the {name} must be a positive number, got {value}")
        k = np.array([math.log(strike / forward)])
        times = [s.years for s in self.slices]
        variances = [float(s.total_variance(k)[0]) for s in self.slices]
        if years <= times[0]:
            w = variances[0] * years / times[0]
        elif years >= times[-1]:
            w = variances[-1] * years / times[-1]
        else:
            w = float(np.interp(years, times, variances))
        return math.sqrt(max(w, 0.0) / years)

    def violations(self) -> tuple[Violation, ...]:
        """Every grid point with static arbitrage beyond rounding, worst first; empty for a sound surface."""
        found = []
        for slice_ in self.slices:
            g = slice_.g(_GRID)
            found += [
                Violation("butterfly", slice_.years, float(k), -float(v))
                for k, v in zip(_GRID, g, strict=True)
                if v < -_TOLERANCE
            ]
        for near, far in zip(self.slices, self.slices[1:], strict=False):
            gap = near.total_variance(_GRID) - far.total_variance(_GRID)
            found += [
                Violation("calendar", far.years, float(k), float(v))
                for k, v in zip(_GRID, gap, strict=True)
                if v > _TOLERANCE
            ]
        return tuple(sorted(found, key=lambda v: -v.size))


def fit(chain: Sequence[tuple[float, float, Sequence[Quote]]]) -> Surface:
    """A surface through (years, forward, quotes) of each expiry; at least five quotes an expiry.

    Raises BadInput naming what cannot be used: times that are not positive or appear twice, too few quotes, a volatility or strike that is not
    a positive number.
    """
    if not chain:
        raise BadInput("a volatility surface needs the quotes of at least one expiry")
    ordered = sorted(chain, key=lambda row: row[0])
    slices: list[Slice] = []
    for years, forward, quotes in ordered:
        _check(years, forward, quotes)
        if slices and years == slices[-1].years:
            raise BadInput(f"two expiries are {years} years away: give their quotes together")
        slices.append(_fit_slice(years, forward, quotes, slices[-1] if slices else None))
    return Surface(tuple(slices))


def _check(years: float, forward: float, quotes: Sequence[Quote]) -> None:
    for name, value in (("time to expiry", years), ("forward", forward)):
        if not (math.isfinite(value) and value > 0):
            raise BadInput(f"the {name} of an expiry must be a positive number, got {value}")
    if len(quotes) < _LEAST_QUOTES:
        raise BadInput(
            f"the expiry in {years:.4f} years has {len(quotes)} quotes; SVI's five parameters need {_LEAST_QUOTES}"
        )
    for quote in quotes:
        for name, value in (("strike", quote.strike), ("volatility", quote.vol), ("weight", quote.weight)):
            if not (math.isfinite(value) and value > 0):
                raise BadInput(f"the {name} of a quote must be a positive number, got {value}")


def _svi(p: Floats, k: Floats) -> Floats:
    away = k - p[3]
    found: Floats = p[0] + p[1] * (p[2] * away + np.sqrt(away * away + p[4] ** 2))
    return found


def _density(k: Floats, w: Floats, first: Floats, second: Floats) -> Floats:
    safe = np.maximum(w, 1e-12)
    found: Floats = (1 - k * first / (2 * safe)) ** 2 - first**2 / 4 * (1 / safe + 0.25) + second / 2
    return found


def _fit_slice(years: float, forward: float, quotes: Sequence[Quote], before: Slice | None) -> Slice:
    """Least squares in volatility from three starting points; the best one without regard to order."""
    k = np.log(np.array([quote.strike for quote in quotes]) / forward)
    vols = np.array([quote.vol for quote in quotes])
    weights = np.array([quote.weight for quote in quotes])
    weights = np.sqrt(weights / weights.sum())
    floor = before.total_variance(_GRID) if before is not None else np.zeros(_GRID.shape)

    def residuals(p: Floats) -> Floats:
        fitted = np.sqrt(np.maximum(_svi(p, k), 1e-12) / years)
        away = _GRID - p[3]
        root = np.sqrt(away * away + p[4] ** 2)
        w = p[0] + p[1] * (p[2] * away + root)
        g = _density(_GRID, w, p[1] * (p[2] + away / root), p[1] * p[4] ** 2 / root**3)
        butterfly = np.minimum(g, 0.0)
        calendar = np.maximum(floor - w, 0.0) / years
        least = min(p[0] + p[1] * p[4] * math.sqrt(max(1 - p[2] ** 2, 0.0)), 0.0) / years
        return np.concatenate(
            [weights * (fitted - vols), _PENALTY * butterfly, _PENALTY * calendar, [_PENALTY * least]]
        )

    typical = float(np.median(vols)) ** 2 * years
    width = max(float(k.max() - k.min()), 0.05)
    lower = [-10 * typical - 1e-6, 1e-6, -0.999, -2.0, 1e-3]
    upper = [20 * typical + 1e-6, 20.0, 0.999, 2.0, 5.0]
    best: Floats | None = None
    cost = math.inf
    for rho in (-0.4, 0.0, 0.4):
        start = np.clip([typical / 2, typical / width, rho, 0.0, max(width / 4, 0.02)], lower, upper)
        found = least_squares(
            residuals, start, bounds=(lower, upper), x_scale=np.maximum(np.abs(start), 1e-2), max_nfev=400
        )
        if found.cost < cost:
            best, cost = found.x, found.cost
    assert best is not None
    a, b, rho, m, sigma = (float(value) for value in best)
    fitted = np.sqrt(np.maximum(_svi(best, k), 1e-12) / years)
    rms = float(np.sqrt(np.sum((weights * (fitted - vols)) ** 2)))
    return Slice(years, forward, a, b, rho, m, sigma, rms)
