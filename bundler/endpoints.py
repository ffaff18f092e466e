"""Where bundles are handed in: what an operator says of each place, and how it fares. Pure."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from contracts.errors import BadInput
from contracts.rpc import without_secrets

METHOD_NOT_FOUND = -32601
"""Source: JSON-RPC 2.0."""
_WORDS = ("private", "public", "conditional")


@dataclass(frozen=True, slots=True)
class Endpoint:
    """A place that takes signed transactions. Its address can hold an API key, so it is in no text but `url`."""

    url: str = field(repr=False)
    private: bool = False
    """It shows what it gets to nobody before it is in a block."""
    conditional: bool = False
    """It knows `eth_sendRawTransactionConditional`.   Source: ERC-7796."""

    @classmethod
    def parse(cls, given: object) -> Endpoint:
        """From a table (`url`, `private`, `conditional`) or from words: `private conditional https://...`. Raises BadInput."""
        if isinstance(given, Mapping):
            unknown = set(given) - {"url", "private", "conditional"}
            if unknown or not isinstance(given.get("url"), str):
                raise BadInput(
                    "an endpoint is a table of url, private and conditional"
                    + (f"; {', '.join(sorted(map(str, unknown)))} is unknown" if unknown else "; its url is missing")
                )
            flags = {name: given.get(name, False) for name in ("private", "conditional")}
            if not all(isinstance(flag, bool) for flag in flags.values()):
                raise BadInput("private and conditional of an endpoint are true or false")
            return cls(_checked(given["url"]), **flags)
        if not isinstance(given, str) or not given.split():
            raise BadInput("an endpoint is a table, or words that end with its address")
        *words, url = given.split()
        if unknown := set(words) - set(_WORDS):
            raise BadInput(
                f"{', '.join(sorted(unknown))} says nothing of an endpoint; known words: {', '.join(_WORDS)}"
            )
        if "private" in words and "public" in words:
            raise BadInput("an endpoint is private or public, not both")
        return cls(_checked(url), "private" in words, "conditional" in words)


def _checked(url: str) -> str:
    if not url.startswith(("http://", "https://")):
        raise BadInput("an endpoint's address begins with http:// or https://")
    return url


def parse_endpoints(given: object) -> tuple[Endpoint, ...]:
    """A list of them, or one text with commas between. Raises BadInput."""
    if isinstance(given, str):
        given = [part for part in given.split(",") if part.strip()]
    if not isinstance(given, Sequence):
        raise BadInput("submission is a list of endpoints")
    endpoints = tuple(one if isinstance(one, Endpoint) else Endpoint.parse(one) for one in given)
    if len({one.url for one in endpoints}) < len(endpoints):
        raise BadInput("submission names an endpoint twice")
    return endpoints


def names_of(endpoints: Sequence[Endpoint]) -> list[str]:
    """What each is called in logs, metrics and answers: scheme, host and port, numbered where that is the same."""
    names = [without_secrets(one.url) for one in endpoints]
    return [f"{name}#{names[:i].count(name) + 1}" if names.count(name) > 1 else name for i, name in enumerate(names)]


@dataclass(slots=True)
class EndpointState:
    """How an endpoint fares. Times by the router's clock, in seconds."""

    endpoint: Endpoint
    name: str
    counts: Counter[str] = field(default_factory=Counter)
    """By what became of a transaction handed in: taken, refused, unreachable, condition (it did not hold any more), cost (the condition
    asks for too much); missed: a block left it out that had room and something cheaper; censored: it did so too often; late: no block
    had it in time."""
    failures: int = 0
    """In a row."""
    rests_until_s: float = 0.0
    most_cost: int = 0
    """Of a condition, as far as the endpoint said."""

    def rests(self, now_s: float) -> bool:
        return now_s < self.rests_until_s

    def to_json(self, now_s: float) -> dict[str, object]:
        """For `seawall_status`."""
        return {
            "name": self.name,
            "private": self.endpoint.private,
            "conditional": self.endpoint.conditional,
            "resting": self.rests(now_s),
            "counts": dict(self.counts),
        }
