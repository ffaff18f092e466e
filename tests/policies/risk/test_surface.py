"""SVI slices: known ones are found again, arbitrage is reported, real chains are fitted."""

from __future__ import annotations

import datetime
import math
from collections import defaultdict
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from contracts.errors import BadInput
from policies.risk.surface import Quote, Slice, Surface, fit

DATA = Path(__file__).resolve().parents[3].parent / "shared" / "data" / "deribit_chain_2026-02_crash.parquet"


def quotes_of(slice_: Slice, moneyness: list[float]) -> list[Quote]:
    w = slice_.total_variance(np.array(moneyness))
    return [
        Quote(slice_.forward * math.exp(k), math.sqrt(float(v) / slice_.years))
        for k, v in zip(moneyness, w, strict=True)
    ]


KNOWN = Slice(0.25, 2_000.0, 0.02, 0.15, -0.35, 0.05, 0.2, 0.0)
PLACES = [-0.6, -0.4, -0.25, -0.1, 0.0, 0.1, 0.25, 0.4, 0.6]


def test_known_slice_is_found_again() -> None:
    surface = fit([(KNOWN.years, KNOWN.forward, quotes_of(KNOWN, PLACES))])
    assert surface.slices[0].rms_vol < 1e-6
    for k in (-0.5, -0.05, 0.3):
        exact = math.sqrt(float(KNOWN.total_variance(np.array([k]))[0]) / KNOWN.years)
        assert surface.vol(2_000 * math.exp(k), 2_000, 0.25) == pytest.approx(exact, abs=1e-5)
    assert surface.violations() == ()


def test_the_example_with_butterfly_arbitrage_of_gatheral_and_jacquier_is_reported() -> None:
    # Example 3.1 (Axel Vogt): fits nicely and has a negative density.
    vogt = Slice(1.0, 1.0, -0.0410, 0.1331, 0.3060, 0.3586, 0.4153, 0.0)
    found = Surface((vogt,)).violations()
    assert found
    assert found[0].kind == "butterfly"
    assert 0.6 < found[0].k < 1.2


def test_fit_of_quotes_with_butterfly_arbitrage_has_none() -> None:
    vogt = Slice(1.0, 1.0, -0.0410, 0.1331, 0.3060, 0.3586, 0.4153, 0.0)
    surface = fit([(1.0, 1.0, quotes_of(vogt, [k / 10 for k in range(-12, 13)]))])
    assert max((violation.size for violation in surface.violations()), default=0.0) < 1e-3
    assert surface.slices[0].rms_vol < 0.02


def test_calendar_arbitrage_is_reported_and_a_fit_avoids_it() -> None:
    near, far = (Slice(t, 2_000.0, w, 0.1, 0.0, 0.0, 0.2, 0.0) for t, w in ((0.1, 0.05), (0.2, 0.03)))
    assert {violation.kind for violation in Surface((near, far)).violations()} == {"calendar"}
    surface = fit([(s.years, s.forward, quotes_of(s, PLACES)) for s in (near, far)])
    assert max((v.size for v in surface.violations() if v.kind == "calendar"), default=0.0) < 2e-3


def test_time_is_interpolated_in_total_variance_and_extrapolated_in_proportion() -> None:
    near, far = (Slice(t, 2_000.0, w, 0.1, 0.0, 0.0, 0.2, 0.0) for t, w in ((0.1, 0.02), (0.3, 0.08)))
    surface = Surface((near, far))
    at = [surface.vol(2_100, 2_000, t) ** 2 * t for t in (0.05, 0.1, 0.2, 0.3, 0.6)]
    assert at[2] == pytest.approx((at[1] + at[3]) / 2)
    assert at[0] == pytest.approx(at[1] / 2)
    assert at[4] == pytest.approx(2 * at[3])


def test_the_same_quotes_in_another_order_give_the_same_surface() -> None:
    quotes = quotes_of(KNOWN, PLACES)
    one, other = fit([(0.25, 2_000.0, quotes)]), fit([(0.25, 2_000.0, quotes[::-1])])
    for k in PLACES:
        strike = 2_000 * math.exp(k)
        assert one.vol(strike, 2_000, 0.25) == pytest.approx(other.vol(strike, 2_000, 0.25), abs=1e-6)


@pytest.mark.parametrize(
    ("chain", "words"),
    [
        ([], "at least one expiry"),
        ([(0.0, 100.0, [Quote(100, 0.5)] * 5)], "time to expiry"),
        ([(1.0, 100.0, [Quote(100, 0.5)] * 4)], "has 4 quotes"),
        ([(1.0, 100.0, [Quote(90.0 + i, math.nan) for i in range(5)])], "volatility of a quote"),
        ([(1.0, 100.0, [Quote(-1.0, 0.5)] * 5)], "strike of a quote"),
        ([(1.0, 100.0, [Quote(90.0 + i, 0.5) for i in range(5)])] * 2, "two expiries"),
    ],
)
def test_unusable_chain_says_what_is_wrong(chain: list[Any], words: str) -> None:
    with pytest.raises(BadInput, match=words):
        fit(chain)


def chain_of(snapshot: str, currency: str) -> list[tuple[float, float, list[Quote]]]:
    """Expiries of one snapshot with at least eight strikes, weighted by vega."""
    import pyarrow.parquet as pq

    taken = datetime.datetime.strptime(snapshot, "%Y%m%dT%H%M%SZ").replace(tzinfo=datetime.UTC)
    rows: defaultdict[str, dict[float, Quote]] = defaultdict(dict)
    forwards: dict[str, float] = {}
    for row in pq.read_table(DATA).to_pylist():
        if row["snapshot"] != snapshot or row["currency"] != currency or not row["implied_volatility"]:
            continue
        _, expiry, strike, _ = row["instrument_name"].split("-")
        if row["vega"] > 0:
            rows[expiry][float(strike)] = Quote(float(strike), row["implied_volatility"], row["vega"])
            forwards[expiry] = row["futures_price"]
    found = []
    for expiry, quotes in rows.items():
        day = datetime.datetime.strptime(expiry, "%d%b%y").replace(hour=8, tzinfo=datetime.UTC)
        years = (day - taken).total_seconds() / 31_536_000
        if len(quotes) >= 8 and years > 2 / 365:
            found.append((years, forwards[expiry], list(quotes.values())))
    return found


@pytest.mark.skipif(not DATA.is_file(), reason="the option chains are not beside this checkout")
@pytest.mark.parametrize("currency", ["BTC", "ETH"])
@pytest.mark.parametrize("snapshot", ["20260203T213503Z", "20260205T042952Z"])
def test_real_chains_are_fitted_to_a_volatility_point_or_two_with_hardly_any_arbitrage(
    snapshot: str, currency: str
) -> None:
    surface = fit(chain_of(snapshot, currency))
    assert len(surface.slices) >= 6
    assert np.median([s.rms_vol for s in surface.slices]) < 0.01
    # The nearest two expiries have wings beyond their strikes that cross in time: the later one gives way (each alone: below 0.005).
    assert max(s.rms_vol for s in surface.slices) < 0.08
    assert max((v.size for v in surface.violations()), default=0.0) < 0.02
