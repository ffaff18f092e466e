"""How much one client may ask: a token bucket for each address, and the depth of a request's JSON."""

from __future__ import annotations

import re
from collections.abc import Callable
from time import monotonic

_STRING = re.compile(rb'"(?:[^"\\]|\\.)*"', re.DOTALL)
_BRACKET = re.compile(rb"[\[\]{}]")


class RateLimit:
    """`rate_per_s` requests a second for each client, `burst` at once; 0 a second: no limit.

    Clients that have been quiet long enough to have their whole burst again are forgotten, so memory is bounded by who is busy.
    """

    def __init__(self, rate_per_s: float, burst: int, clock: Callable[[], float] = monotonic) -> None:
        self._rate_per_s, self._burst, self._clock = rate_per_s, float(burst), clock
        self._buckets: dict[str, tuple[float, float]] = {}
        self._swept_s = clock()

    def wait_s(self, client: str, count: int = 1) -> float:
        """0 when `count` requests are taken now, else the seconds after which they would be; nothing is taken then."""
        if self._rate_per_s <= 0:
            return 0.0
        now_s = self._clock()
        if now_s - self._swept_s > self._burst / self._rate_per_s:
            self._sweep(now_s)
        tokens, since_s = self._buckets.get(client, (self._burst, now_s))
        tokens = min(tokens + (now_s - since_s) * self._rate_per_s, self._burst)
        wanted = min(float(count), self._burst)  # a batch larger than any burst empties it
        if tokens >= wanted:
            self._buckets[client] = tokens - wanted, now_s
            return 0.0
        self._buckets[client] = tokens, now_s
        return (wanted - tokens) / self._rate_per_s

    def __len__(self) -> int:
        return len(self._buckets)

    def _sweep(self, now_s: float) -> None:
        full_after_s = self._burst / self._rate_per_s
        self._buckets = {c: b for c, b in self._buckets.items() if now_s - b[1] < full_after_s}
        self._swept_s = now_s


def is_deeper_than(body: bytes, most: int) -> bool:
    """Whether JSON nests lists and objects more than `most` deep. What is no JSON may be either."""
    if body.count(b"[") + body.count(b"{") <= most:
        return False
    depth = 0
    for found in _BRACKET.finditer(_STRING.sub(b"", body)):
        depth += 1 if found[0] in b"[{" else -1
        if depth > most:
            return True
    return False
