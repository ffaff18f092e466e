"""Books of venues off the chain, from the answers that the venues' own interfaces give, saved to a file: one `Export` each.

Pure parsers: text in, parts of a portfolio out, BadInput naming the place for anything that is missing or malformed. A file carries the
time at which the venue answered; it is as old as that, whatever the file's own date is.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

from contracts.errors import BadInput
from policies.venues.exports.base import Export
from policies.venues.exports.deribit import parse_deribit
from policies.venues.exports.dydx_v4 import parse_dydx_v4
from policies.venues.exports.hyperliquid import parse_hyperliquid

PARSERS: Mapping[str, Callable[[str], Export]] = {
    "deribit": parse_deribit,
    "dydx": parse_dydx_v4,
    "hyperliquid": parse_hyperliquid,
}


def parse_export(venue: str, text: str) -> Export:
    """The book that `text` describes. Raises BadInput."""
    parser = PARSERS.get(venue)
    if parser is None:
        raise BadInput(f"there is no reader for {venue!r}; known are {', '.join(PARSERS)}")
    return parser(text)


__all__ = ["PARSERS", "Export", "parse_export"]
