"""Small markets and books for the back-test's tests."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from contracts.devnet.bars import shipped
from policies import Policy, load
from policies.backtest import Market, Series, align, series
from wallet.market_files import read_market

EXAMPLES = Path(__file__).parents[3] / "policies" / "examples"
START_S = 1_700_000_040


def bars(closes: Sequence[float], lows: Sequence[float] = (), highs: Sequence[float] = ()) -> Series:
    """One-minute bars that open where the one before closed, no wider than they must be unless `lows` or `highs` say so."""
    opens = [closes[0], *closes[:-1]]
    low = [min(pair) for pair in zip(opens, closes, strict=True)]
    high = [max(pair) for pair in zip(opens, closes, strict=True)]
    low = [min(a, b) for a, b in zip(low, lows, strict=True)] if lows else low
    high = [max(a, b) for a, b in zip(high, highs, strict=True)] if highs else high
    times = [START_S + 60 * i for i in range(len(closes))]
    return series(times, opens, high, low, list(closes), lambda row: f"row {row}")


def market(**closes: Sequence[float]) -> Market:
    """Markets by asset, closes only."""
    return align({asset: bars(values) for asset, values in closes.items()})


def crash(name: str = "eth_2020-03-12") -> Market:
    """A day of ETH that ships along."""
    return align(read_market(shipped(name)))


def policy_of(body: str) -> Policy:
    """A policy of these sections."""
    return load(f"schema: 1\nname: test\nversion: '1'\n{body}")
