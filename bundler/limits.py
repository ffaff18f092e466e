"""How much one client may ask: a token bucket for each address or key, and the depth of a request's JSON."""

from __future__ import annotations

import hashlib
import re
import tomllib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from time import monotonic
from typing import Any

from contracts.errors import BadInput

_LEAST_KEY = 16
_KEY_FIELDS = {"key": str, "rate_per_s": (int, float), "burst": int}
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


@dataclass(frozen=True, slots=True)
class ApiKey:
    """One client that is known by a key: its name for logs and metrics, the key's SHA-256, its own rate (0: any)."""

    name: str
    digest: bytes
    rate_per_s: float = 0.0
    burst: int = 100


def parse_api_keys(text: str, where: str) -> tuple[ApiKey, ...]:
    """A TOML table for each client: `[name]` with `key`, and `rate_per_s` and `burst` if it has a limit.

    Raises BadInput naming the client, never the key.
    """
    try:
        document = tomllib.loads(text)
    except tomllib.TOMLDecodeError:  # its words quote the line
        raise BadInput(f"{where} is no TOML: write [name] and below it key, rate_per_s, burst") from None
    keys = tuple(_api_key(name, table, where) for name, table in document.items())
    if len({key.digest for key in keys}) < len(keys):
        raise BadInput(f"two clients in {where} have the same key: give each its own")
    return keys


def _api_key(name: str, table: Any, where: str) -> ApiKey:
    if not isinstance(table, dict) or not isinstance(table.get("key"), str):
        raise BadInput(f"the client {name!r} in {where} has no key: write [{name}] and below it key = ...")
    for field, value in table.items():
        wanted = _KEY_FIELDS.get(field)
        if wanted is None:
            raise BadInput(f"{field!r} of the client {name!r} in {where} is unknown; known: {', '.join(_KEY_FIELDS)}")
        if isinstance(value, bool) or not isinstance(value, wanted):  # type: ignore[arg-type]
            raise BadInput(f"{field} of the client {name!r} in {where} is of a wrong type")
    rate_per_s, burst = float(table.get("rate_per_s", 0.0)), table.get("burst", 100)
    if len(table["key"]) < _LEAST_KEY:
        raise BadInput(f"the key of the client {name!r} in {where} is short: take at least {_LEAST_KEY} characters")
    if not 0 <= rate_per_s < float("inf") or burst < 1:
        raise BadInput(f"the client {name!r} in {where} needs rate_per_s of 0 or more and a burst of 1 or more")
    return ApiKey(name, hashlib.sha256(table["key"].encode()).digest(), rate_per_s, burst)


class UnknownKey(Exception):
    """A key that nobody has, or none where one is asked for."""


class Clients:
    """Who may ask how much: clients by their key, all others by their address."""

    def __init__(self, rate_per_s: float, burst: int, keys: Sequence[ApiKey], *, need_key: bool) -> None:
        self._others = RateLimit(rate_per_s, burst)
        self._keys = {key.digest: (key.name, RateLimit(key.rate_per_s, key.burst)) for key in keys}
        self._need_key = need_key

    def wait_s(self, address: str, key: str | None, count: int) -> float:
        """As `RateLimit.wait_s`. Raises UnknownKey; guesses count against the address.

        Keys are found by their digest, so that how long it takes tells nothing of them. Where nobody has a key, none is looked at.
        """
        if key is not None and self._keys:
            found = self._keys.get(hashlib.sha256(key.encode(errors="replace")).digest())
            if found is not None:
                return found[1].wait_s(found[0], count)
        wait_s = self._others.wait_s(address, count)
        if wait_s == 0 and (self._need_key or (key is not None and self._keys)):
            raise UnknownKey
        return wait_s


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
