"""Prices from outside the chain, behind one port: recorded files, live HTTP sources. Every figure carries its time and its source.

What the feeds on the chain say comes with the positions (policies.venues.feeds); several sources of one asset are compared by
policies.doubts. A source that fails is a missing fact, never an old figure; so is a file that changed and cannot be read any more.
"""

from __future__ import annotations

import csv
import io
import json
from bisect import bisect_right
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from decimal import Decimal, InvalidOperation
from pathlib import Path
from typing import Any, Protocol

from contracts.errors import BadInput, NodeUnreachable, SeawallError
from contracts.rpc import without_secrets
from policies.past import Closes, simple_returns, stretch
from policies.portfolio import Missing, Price, Returns

MAX_BYTES = 1_000_000
"""An answer with one price in it is not longer; a recorded file may be MAX_FILE_BYTES."""
MAX_FILE_BYTES = 64_000_000
TIMEOUT_S = 5.0
_READINGS = 3
"""How often a file that changes while it is read is read anew."""


class MarketData(Protocol):
    """A source of prices."""

    async def prices(self, now_s: int) -> tuple[tuple[Price, ...], tuple[Missing, ...]]:
        """What the source says at `now_s` (unix s), and what it could not say. Never raises for a source that fails."""


@dataclass(frozen=True, slots=True)
class Bar:
    """One recorded price: of `asset` in the unit of account, fixed at `time_s` (unix s)."""

    asset: str
    time_s: int
    value: Decimal


@dataclass(frozen=True, slots=True)
class RecordedMarket:
    """Prices of a file, indexed once. At any moment it says the newest figure that is not from the future; of two of one time, the later
    row."""

    source: str
    bars: tuple[Bar, ...]
    _times: dict[str, list[int]] = field(init=False, repr=False, compare=False)
    _values: dict[str, list[Decimal]] = field(init=False, repr=False, compare=False)
    _whole: dict[tuple[str, int], list[tuple[int, Decimal]]] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        by_asset: dict[str, dict[int, Decimal]] = {}
        for bar in self.bars:
            by_asset.setdefault(bar.asset, {})[bar.time_s] = bar.value
        rising = {asset: sorted(known.items()) for asset, known in sorted(by_asset.items())}
        object.__setattr__(self, "_times", {asset: [time for time, _ in rows] for asset, rows in rising.items()})
        object.__setattr__(self, "_values", {asset: [value for _, value in rows] for asset, rows in rising.items()})
        object.__setattr__(self, "_whole", {})

    @classmethod
    def read(cls, path: Path) -> RecordedMarket:
        """CSV with a heading (`time`, `asset`, `price`) or JSON, a list of such objects; time in unix s. Raises BadInput."""
        return cls(path.name, bars_of(_text(path), path.name))

    @property
    def assets(self) -> frozenset[str]:
        """Assets of which it has a price."""
        return frozenset(self._times)

    async def prices(self, now_s: int) -> tuple[tuple[Price, ...], tuple[Missing, ...]]:
        found, gaps = [], []
        for asset, times in self._times.items():
            at = bisect_right(times, now_s) - 1
            if at < 0:
                gaps.append(Missing(f"price:{asset}", f"{self.source} begins after {now_s}"))
            else:
                found.append(Price(asset, self._values[asset][at], times[at], self.source))
        return tuple(found), tuple(gaps)

    def closes(self, asset: str, period_s: int, until_s: int, count: int) -> Closes:
        """Prices on whole periods up to `until_s` (unix s), `count` + 1 of them where there are so many without a hole. Raises BadInput."""
        key = (asset, period_s)
        if key not in self._whole:
            rows = zip(self._times.get(asset, ()), self._values.get(asset, ()), strict=True)
            self._whole[key] = [(time, value) for time, value in rows if time % period_s == 0]
        return stretch(self.source, self._whole[key], period_s, until_s, count, asset)

    def returns(self, asset: str, period_s: int, until_s: int, count: int) -> Returns:
        """The last `count` simple returns over `period_s` that end at or before `until_s` on whole periods, for VaR; 12 decimals.

        Raises BadInput where a price is missing: a history with holes is not one of equal periods.
        """
        found = self.closes(asset, period_s, until_s, count)
        if len(found.prices) <= count:
            raise BadInput(f"{found.why}, {count} returns need one every {period_s} s")
        return simple_returns(asset, period_s, found)


def _text(path: Path) -> str:
    """Raises BadInput."""
    try:
        if path.stat().st_size > MAX_FILE_BYTES:
            raise BadInput(f"{path} is larger than {MAX_FILE_BYTES} bytes")
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise BadInput(f"cannot read {path}: {error}") from None


def bars_of(text: str, source: str) -> tuple[Bar, ...]:
    """The prices in a CSV or JSON text. Raises BadInput naming the row."""
    if text.lstrip().startswith("["):
        try:
            rows: Any = json.loads(text, parse_float=Decimal)
        except (ValueError, RecursionError) as error:
            raise BadInput(f"{source}: this is no JSON: {error!s:.200}") from None
    else:
        rows = list(csv.DictReader(io.StringIO(text)))
    found = []
    for number, row in enumerate(rows, 1):
        try:
            found.append(Bar(str(row["asset"]), int(str(row["time"])), positive(row["price"])))
        except (KeyError, TypeError, ValueError):
            raise BadInput(f"{source}, row {number}: needs time (unix s), asset and a price above zero") from None
    if not found:
        raise BadInput(f"{source} has no prices")
    return tuple(found)


@dataclass(slots=True)
class WatchedFile:
    """A recorded file that some other program writes: read when it is first asked, and again when it has changed."""

    path: Path
    load: Callable[[Path], RecordedMarket]
    _seen: tuple[int, ...] = ()
    _market: RecordedMarket | None = None

    async def read(self) -> RecordedMarket:
        """What is in it now. Raises BadInput, SetupError; never answers with what was in it before."""
        import asyncio

        if self._market is None or self._state() != self._seen:
            return await asyncio.to_thread(self.read_anew)
        return self._market

    def read_anew(self) -> RecordedMarket:
        """What is in it now, whether it changed or not. Raises BadInput, SetupError."""
        self._market = None
        for _ in range(_READINGS):
            before = self._state()
            found = self.load(self.path)
            if self._state() == before:
                self._market, self._seen = found, before
                return found
        raise BadInput(f"{self.path} changes while it is read: write the new one beside it and rename it into place")

    def _state(self) -> tuple[int, ...]:
        """Changes with the file; the time of its status too, for those who set the other one back."""
        try:
            found = self.path.stat()
        except OSError as error:
            raise BadInput(f"cannot read {self.path}: {error.strerror}") from None
        return found.st_mtime_ns, found.st_ctime_ns, found.st_size, found.st_ino


def whole_prices(path: Path) -> RecordedMarket:
    """`RecordedMarket.read` of a file that is being kept up to date: one that ends inside a row is refused, for its last price may be half
    of one. Raises BadInput."""
    text = _text(path)
    if text.strip() and not text.endswith("\n") and not text.rstrip().endswith("]"):
        raise BadInput(
            f"{path} ends in the middle of a line and may be half-written: end it with a newline, and rename a new one into place"
        )
    return RecordedMarket(path.name, bars_of(text, path.name))


@dataclass(slots=True)
class RecordedPrices:
    """A file of prices that is looked at for every judgement. While it cannot be read, or lacks an asset that it had, that is missing."""

    file: WatchedFile
    _assets: frozenset[str] = frozenset()

    async def prices(self, now_s: int) -> tuple[tuple[Price, ...], tuple[Missing, ...]]:
        name = self.file.path.name
        try:
            market = await self.file.read()
        except SeawallError as error:
            return (), (Missing(f"what {name} says", error.message),)
        self._assets |= market.assets
        found, gaps = await market.prices(now_s)
        gone = (
            Missing(f"price:{asset}", f"{name} had one and has none any more; is it half-written?")
            for asset in sorted(self._assets - market.assets)
        )
        return found, (*gaps, *gone)


@dataclass(frozen=True, slots=True)
class HttpSource:
    """One asset's price at a URL that answers JSON. `price_path` and `time_path` lead to the figures: `data.0.last`.

    `time_path` empty: the figure is as old as the question. `time_divisor` turns the answer's time into seconds (1000 for milliseconds).
    """

    asset: str
    url: str
    price_path: str
    time_path: str = ""
    time_divisor: int = 1


@dataclass(frozen=True, slots=True)
class HttpMarket:
    """Live prices over HTTP, all asked at once. Redirects are not followed, answers are bounded in time and size."""

    sources: tuple[HttpSource, ...]
    timeout_s: float = TIMEOUT_S

    async def prices(self, now_s: int) -> tuple[tuple[Price, ...], tuple[Missing, ...]]:
        import asyncio

        import aiohttp

        timeout = aiohttp.ClientTimeout(total=self.timeout_s)
        async with aiohttp.ClientSession(timeout=timeout) as session:
            asked = await asyncio.gather(*(self._one(session, source, now_s) for source in self.sources))
        return tuple(p for p in asked if isinstance(p, Price)), tuple(m for m in asked if isinstance(m, Missing))

    async def _one(self, session: Any, source: HttpSource, now_s: int) -> Price | Missing:
        name = without_secrets(source.url)
        try:
            body = await _fetch(session, source.url)
            answer = json.loads(body, parse_float=Decimal)
            value = positive(at_path(answer, source.price_path))
            time_s = now_s
            if source.time_path:
                time_s = int(Decimal(str(at_path(answer, source.time_path))) / source.time_divisor)
        except NodeUnreachable as error:
            return Missing(f"price:{source.asset}", error.message)
        except (ValueError, KeyError, IndexError, TypeError, ArithmeticError, RecursionError):
            return Missing(f"price:{source.asset}", f"{name} answered without a price at {source.price_path}")
        return Price(source.asset, value, time_s, name)


async def _fetch(session: Any, url: str) -> bytes:
    """The body of a 200 answer. Raises NodeUnreachable."""
    import aiohttp

    name = without_secrets(url)
    try:
        async with session.get(url, allow_redirects=False) as response:
            if response.status != 200:
                raise NodeUnreachable(f"{name} answered HTTP {response.status}")
            body: bytes = b""
            async for chunk in response.content.iter_chunked(65_536):
                body += chunk
                if len(body) > MAX_BYTES:
                    raise NodeUnreachable(f"{name} answered with more than {MAX_BYTES} bytes")
            return body
    except (aiohttp.ClientError, TimeoutError, OSError) as error:
        # The cause is cut off: it carries the whole address, and with it an API key.
        raise NodeUnreachable(f"no answer from {name}: {type(error).__name__}") from None


def at_path(answer: Any, path: str) -> Any:
    """The value at `a.0.b`. Raises KeyError, IndexError, TypeError or ValueError."""
    for part in path.split("."):
        answer = answer[int(part)] if isinstance(answer, list) else answer[part]
    return answer


def positive(value: Any) -> Decimal:
    """A finite price above zero. Raises ValueError."""
    if isinstance(value, bool) or not isinstance(value, str | int | Decimal):
        raise ValueError("no number")
    try:
        found = Decimal(value)
    except InvalidOperation:
        raise ValueError("no number") from None
    if not found.is_finite() or found <= 0 or abs(found.adjusted()) > 30:
        raise ValueError("no price")
    return found


async def prices_of(sources: Sequence[MarketData], now_s: int) -> tuple[tuple[Price, ...], tuple[Missing, ...]]:
    """What all the sources say together; one of them that fails is missing, even if another knows the asset."""
    import asyncio

    answers = await asyncio.gather(*(source.prices(now_s) for source in sources))
    return tuple(p for found, _ in answers for p in found), tuple(m for _, gaps in answers for m in gaps)


def sources_of(named: Sequence[str], base: Path) -> tuple[MarketData, ...]:
    """Sources as a profile writes them: a recorded FILE, or `ASSET=URL#PATH` for a live one. Raises BadInput."""
    live, files = [], []
    for text in named:
        asset, sign, rest = text.partition("=")
        if sign and rest.startswith(("http://", "https://")):
            url, mark, path = rest.partition("#")
            if not asset or not mark or not path:
                raise BadInput(f"a live price is ASSET=URL#PATH.TO.PRICE, got {asset}={without_secrets(url)}")
            live.append(HttpSource(asset, url, path))
        else:
            watched = WatchedFile((base / Path(text).expanduser()).absolute(), whole_prices)
            files.append(RecordedPrices(watched, watched.read_anew().assets))
    return (*files, *((HttpMarket(tuple(live)),) if live else ()))
