"""Where past returns come from, for limits on VaR and ES: recorded files, else the rounds of the feeds on the chain.

A file is indexed once and again when it changes. Rounds of feeds do not change: what was found is kept, and beyond this process in a file of
the chain, so that a new day costs one look. What is too short, has holes or is too old is a missing or doubted fact, never filled up.
"""

from __future__ import annotations

import contextlib
import itertools
import sqlite3
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from decimal import Decimal
from pathlib import Path

from contracts import bindings as b
from contracts.errors import BadInput, NodeError, SeawallError
from contracts.rpc import RpcClient
from contracts.types import Address, checksum
from policies.past import Closes, PastAsked, missing_past, moment, returns_of, stretch
from policies.portfolio import Missing, Returns
from policies.venues.rounds import Round, rounds_at
from wallet.market import Bar, RecordedMarket, WatchedFile

FEED_RETURNS = 500
"""Returns that are looked for in the rounds of a feed when a limit without a window takes all there is."""
_CHUNK = 400
"""Reads in one request: below the gas that nodes give an eth_call."""
_SETTLED_S = 900
"""Rounds younger than this may still be reorganised away and are not kept."""
_GAP_SHARE = 24
"""A round stands for a moment when it is no older then than the policy takes a price, or than this part of a period (1 h of a day)."""


def history_file(path: Path) -> WatchedFile:
    """A recorded file of past prices: rows of time, asset and price, or bars as back-tests read them (each close is known when its bar
    ends)."""
    return WatchedFile(path, recorded_history)


def recorded_history(path: Path) -> RecordedMarket:
    """Past prices of a file: `time,asset,price` as CSV or JSON, or bars with high, low and close as CSV or Parquet. Raises BadInput,
    SetupError."""
    if path.suffix.lower() not in (".parquet", ".pq"):
        try:
            with path.open(encoding="utf-8-sig", errors="replace") as opened:
                head = next((line for line in opened if line.strip() and not line.startswith("#")), "")
        except OSError as error:
            raise BadInput(f"cannot read {path}: {error.strerror}") from None
        if head.lstrip().startswith("[") or "price" in [cell.strip() for cell in head.lower().split(",")]:
            return RecordedMarket.read(path)
    from wallet.market_files import read_market

    bars = []
    for asset, series in read_market(path).items():
        times = series.times_s.tolist()
        if len(times) < 2:
            raise BadInput(f"{path}: one bar of {asset} has no length, at least two are needed")
        step_s = min(later - earlier for earlier, later in itertools.pairwise(times))
        bars += [
            Bar(asset, time + step_s, Decimal(repr(close)))
            for time, close in zip(times, series.close.tolist(), strict=True)
        ]
    return RecordedMarket(path.name, tuple(bars))


@dataclass(slots=True)
class RoundCache:
    """Rounds that were found, by feed and moment: in memory, and in `file` when there is one. A cache that cannot be used costs time only."""

    file: Path | None = None
    _known: dict[tuple[Address, int], Round | None] = field(default_factory=dict)
    _loaded: set[Address] = field(default_factory=set)

    def of(self, feed: Address) -> dict[int, Round | None]:
        """Everything known of a feed; None: there was no round yet."""
        if feed not in self._loaded:
            self._loaded.add(feed)
            with contextlib.suppress(sqlite3.Error, OSError, ArithmeticError, ValueError), self._open() as db:
                rows = db.execute("SELECT time, id, price, updated FROM round WHERE feed = ?", (checksum(feed),))
                for time_s, round_id, price, updated_s in rows:
                    self._known[feed, int(time_s)] = Round(int(round_id), Decimal(price), int(updated_s))
        return {time_s: one for (address, time_s), one in self._known.items() if address == feed}

    def keep(self, feed: Address, found: dict[int, Round | None]) -> None:
        """What was not there yet is kept in memory only: a node may know more tomorrow."""
        self._known |= {(feed, time_s): one for time_s, one in found.items()}
        rows = [
            (checksum(feed), time_s, str(one.id), str(one.price), one.updated_s)
            for time_s, one in found.items()
            if one is not None
        ]
        if rows:
            with contextlib.suppress(sqlite3.Error, OSError), self._open() as db:
                db.executemany("INSERT OR REPLACE INTO round VALUES (?, ?, ?, ?, ?)", rows)
                db.commit()

    def _open(self) -> contextlib.closing[sqlite3.Connection]:
        if self.file is None:
            raise OSError("no file")
        self.file.parent.mkdir(parents=True, exist_ok=True)
        db = sqlite3.connect(self.file, timeout=2)
        db.execute(
            "CREATE TABLE IF NOT EXISTS round (feed TEXT, time INTEGER, id TEXT, price TEXT, updated INTEGER, PRIMARY KEY (feed, time))"
        )
        return contextlib.closing(db)


@dataclass(frozen=True, slots=True)
class Head:
    """Where and when a decision is made: the node, its Multicall3, and the pinned block."""

    rpc: RpcClient
    multicall3: Address
    block_number: int
    time_s: int


@dataclass(frozen=True, slots=True)
class Past:
    """The sources of past returns. A file that names an asset is its source, the first of several; feeds are asked about the others."""

    files: tuple[WatchedFile, ...] = ()
    recorded: tuple[RecordedMarket, ...] = ()
    cache: RoundCache = field(default_factory=RoundCache)

    async def returns(
        self, asked: PastAsked, assets: Iterable[str], feeds: dict[str, Address], head: Head, max_age_s: int
    ) -> tuple[tuple[Returns, ...], tuple[Missing, ...]]:
        """Returns of every asset until the pinned block's time, all of one period and one end, and what is missing of them.

        `max_age_s`: how old the policy takes a price to be. Never raises for a source that fails.
        """
        found: dict[str, Closes] = {}
        gaps: list[Missing] = []
        sources = []
        for file in self.files:
            try:
                sources.append(await file.read())
            except SeawallError as error:
                gaps.append(Missing(f"the history {file.path.name}", error.message))
        for asset in sorted(assets):
            source = next((one for one in (*sources, *self.recorded) if asset in one.assets), None)
            try:
                if source is not None:
                    found[asset] = source.closes(asset, asked.period_s, head.time_s, asked.most)
                elif asset in feeds:
                    found[asset] = await self._of_feed(feeds[asset], asset, asked, head, max_age_s)
                else:
                    raise BadInput(
                        f"no file has past prices of {asset} and no feed of it is known: name one, `history = [FILE]` in seawall.toml"
                    )
            except BadInput as error:
                gaps.append(missing_past(asset, error.message))
        series, short = returns_of(asked, found)
        return series, (*gaps, *short)

    async def _of_feed(self, feed: Address, asset: str, asked: PastAsked, head: Head, max_age_s: int) -> Closes:
        """Prices of a feed's rounds on whole periods. Raises BadInput, InvalidFields."""
        count = asked.most if asked.most == asked.least else max(asked.least, FEED_RETURNS)
        source = f"rounds of feed {checksum(feed)}"
        end_s = head.time_s - head.time_s % asked.period_s
        times = [end_s - asked.period_s * i for i in range(count, -1, -1)]
        known = self.cache.of(feed)
        wanted = [time for time in times if time not in known]
        if wanted:
            try:
                rounds = await _ask(head, feed, wanted)
            except NodeError as error:
                raise BadInput(f"{source} cannot be read: {error.message}") from None
            new = {time: rounds.get(time) for time in wanted}
            self.cache.keep(feed, {time: one for time, one in new.items() if time <= head.time_s - _SETTLED_S})
            known |= new
        longest = max(max_age_s, asked.period_s // _GAP_SHARE)
        sound = [(time, one.price) for time in times if (one := known[time]) and time - one.updated_s <= longest]
        found = stretch(source, sound, asked.period_s, head.time_s, count, asset)
        return Closes(found.end_s, found.prices, source, _why(found, known, asked.period_s, longest, source))


def _why(found: Closes, known: dict[int, Round | None], period_s: int, longest_s: int, source: str) -> str:
    """What ends the stretch at its beginning."""
    time = found.end_s - len(found.prices) * period_s
    one = known.get(time)
    if one is None:
        return f"{source} begin after {moment(time)}"
    return f"at {moment(time)} the newest of the {source} was {time - one.updated_s} s old, {longest_s} s are taken"


async def _ask(head: Head, feed: Address, times: Sequence[int]) -> dict[int, Round]:
    """Walk a feed's rounds on the pinned block. Raises InvalidFields, RpcError, NodeError."""
    walk = rounds_at(feed, times)
    try:
        reads = next(walk)
        while True:
            answers: list[bytes | None] = []
            for at in range(0, len(reads), _CHUNK):
                request = b.encode_multicall(reads[at : at + _CHUNK])
                answer = await head.rpc.eth_call(head.multicall3, request, block=hex(head.block_number))
                answers += b.decode_multicall(answer)
            reads = walk.send(answers)
    except StopIteration as done:
        rounds: dict[int, Round] = done.value
        return rounds
