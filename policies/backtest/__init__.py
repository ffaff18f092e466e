"""Back-test: the engine over history. Pure; the caller reads files (`wallet.market_files`).

market = align({"ETH": series(times, opens, highs, lows, closes, where)})
result = backtest(policy, read_book(text), market)
"""

from __future__ import annotations

from policies.backtest.book import Book, InvalidBook, read_book
from policies.backtest.judge import State
from policies.backtest.market import Market, Series, align, series
from policies.backtest.report import Episode, Event, LimitReport, OrderReport, Result
from policies.backtest.run import backtest

__all__ = [
    "Book",
    "Episode",
    "Event",
    "InvalidBook",
    "LimitReport",
    "Market",
    "OrderReport",
    "Result",
    "Series",
    "State",
    "align",
    "backtest",
    "read_book",
    "series",
]
