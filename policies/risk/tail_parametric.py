"""Parametric (delta-normal, and delta-t) VaR and ES: closed forms for a book that is linear in returns with a known covariance.

With exposures w (quote per 100 % return of each asset), mean m and covariance C of the returns of one horizon, s = sqrt(w' C w):

    VaR = q s - w'm,   ES = e s - w'm,   normal:  q = z_a,  e = phi(z_a) / (1 - a)
    Student t with nu > 2 degrees of freedom, scaled to the same variance by c = sqrt((nu - 2) / nu):
             q = c t_a,  e = c f(t_a) / (1 - a) x (nu + t_a^2) / (nu - 1)
    what asset i adds (Euler):  w_i (C w)_i / s x q - w_i m_i

An option book is linear only near here: a delta-normal figure knows no gamma and no vega. Use `tail_of` where that matters.
Figures are doubles from scipy's quantiles (relative error about 1e-14); round them with `policies.metrics.base.adverse` to compare.
Source: Jorion, Value at Risk, 3rd ed., ch. 10; McNeil, Frey and Embrechts, Quantitative Risk Management, 2nd ed., examples 2.11, 2.14-15.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy import special

from contracts.errors import BadInput
from policies.risk._kernel import Floats
from policies.risk.scenarios import revalue
from policies.risk.scenarios_book import Book, Number, exact
from policies.risk.scenarios_sets import Listed, Scenario, Shock
from policies.risk.tail import level

_ASYMMETRY = 1e-12
_BUMP = "0.0001"


@dataclass(frozen=True, slots=True)
class ParametricTail:
    """VaR and ES in quote; `standard_deviation` s. Contributions by asset, in the order given; their exact sum (math.fsum) is the figure."""

    var: float
    es: float
    standard_deviation: float
    var_components: tuple[float, ...]
    es_components: tuple[float, ...]


def normal_multiples(confidence: Number | str) -> tuple[float, float]:
    """VaR and ES of a loss distributed N(0, 1). Raises BadInput."""
    tail = float(1 - level(confidence))
    z = -float(special.ndtri(tail))
    return z, math.exp(-z * z / 2) / math.sqrt(2 * math.pi) / tail


def student_multiples(confidence: Number | str, degrees: float) -> tuple[float, float]:
    """VaR and ES of a loss with Student's t distribution itself (location 0, scale 1); `degrees` of freedom > 1, or ES has no value.

    Raises BadInput.
    """
    if not math.isfinite(degrees) or degrees <= 1:
        raise BadInput(f"{degrees} degrees of freedom: expected shortfall needs more than 1")
    tail = float(1 - level(confidence))
    t = -float(special.stdtrit(degrees, tail))
    log_density = (
        special.gammaln((degrees + 1) / 2)
        - special.gammaln(degrees / 2)
        - 0.5 * math.log(degrees * math.pi)
        - (degrees + 1) / 2 * math.log1p(t * t / degrees)
    )
    return t, math.exp(log_density) / tail * (degrees + t * t) / (degrees - 1)


def parametric(
    exposures: Floats | Sequence[float],
    covariance: Floats,
    confidence: Number | str,
    *,
    mean: Floats | Sequence[float] | None = None,
    degrees: float | None = None,
) -> ParametricTail:
    """VaR and ES of `exposures` (assets,) under `covariance` (assets, assets) of the returns of one horizon.

    `degrees` of freedom > 2 of a Student t with that covariance, None for the normal distribution. Raises BadInput, also for a
    covariance that is not symmetric and positive semidefinite.
    """
    w = np.asarray(exposures, dtype=np.float64)
    c = np.asarray(covariance, dtype=np.float64)
    m = np.zeros(w.shape) if mean is None else np.asarray(mean, dtype=np.float64)
    if w.ndim != 1 or not w.size or c.shape != (w.size, w.size) or m.shape != w.shape:
        raise BadInput(f"{w.shape} exposures, {m.shape} means and a {c.shape} covariance do not belong together")
    if not all(np.isfinite(x).all() for x in (w, c, m)):
        raise BadInput("an exposure, a mean or a covariance is not finite")
    scale = float(np.abs(c).max()) or 1.0
    if (
        float(np.abs(c - c.T).max()) > _ASYMMETRY * scale
        or float(np.linalg.eigvalsh(c).min()) < -_ASYMMETRY * w.size * scale
    ):
        raise BadInput("the covariance is not symmetric and positive semidefinite")
    if degrees is None:
        q, e = normal_multiples(confidence)
    elif degrees > 2:
        q, e = (x * math.sqrt((degrees - 2) / degrees) for x in student_multiples(confidence, degrees))
    else:
        raise BadInput(f"{degrees} degrees of freedom: a covariance needs more than 2")
    marginal = c @ w
    deviation = math.sqrt(max(float(w @ marginal), 0.0))
    share = w * marginal / deviation if deviation else np.zeros(w.shape)
    var_components = tuple(float(x) for x in share * q - w * m)
    es_components = tuple(float(x) for x in share * e - w * m)
    return ParametricTail(math.fsum(var_components), math.fsum(es_components), deviation, var_components, es_components)


def covariance_of(returns: Floats, *, decay: float | None = None) -> Floats:
    """Covariance of returns of shape (observations, assets), oldest first: the sample's (n - 1), or about zero with exponential weights.

    `decay` lambda: weights proportional to lambda^age.   Source: RiskMetrics Technical Document, 4th ed., 5.2. Raises BadInput.
    """
    r = np.asarray(returns, dtype=np.float64)
    if r.ndim != 2 or r.shape[0] < 2 or not np.isfinite(r).all():
        raise BadInput(f"returns have shape {r.shape}: at least two observations of every asset are needed, all finite")
    if decay is None:
        r = r - r.mean(axis=0)
        found: Floats = r.T @ r / (r.shape[0] - 1)
        return found
    if not 0 < decay < 1:
        raise BadInput(f"a decay of {decay}: it must lie between 0 and 1")
    weights = decay ** np.arange(r.shape[0] - 1, -1, -1)
    weighted: Floats = (r.T * (weights / weights.sum())) @ r
    return weighted


def delta_exposures(book: Book, assets: Sequence[str]) -> Floats:
    """What the book gains per 100 % return of each asset, at the rate of a return of +-1 basis point (central difference of full
    revaluations: exact for linear positions, relative error below about 1e-7 for options that do not expire at once), shape (assets,)."""
    bump = exact(float(_BUMP))
    moves = [Scenario(f"{asset} {sign}", {asset: Shock(spot=bump * sign)}) for asset in assets for sign in (1, -1)]
    if not moves:
        raise BadInput("no asset is named")
    pnl = revalue(book, Listed(moves), backend="numpy").pnl
    found: Floats = (pnl[0::2] - pnl[1::2]) / (2 * float(bump))
    return found
