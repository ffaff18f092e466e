"""The rounds of a feed by moment: against looking at every round, in one phase and several, with holes."""

from __future__ import annotations

import random
from collections.abc import Sequence

import pytest

from contracts import abi
from contracts.errors import InvalidFields
from policies.venues import Read
from policies.venues.feeds import DECIMALS, LATEST_ROUND_DATA
from policies.venues.rounds import GET_ROUND_DATA, PHASE_AGGREGATORS, Round, rounds_at

FEED, PHASE = b"\x01" * 20, 2**64


class Chain:
    """Rounds as a proxy and its aggregators answer for them: `phases` by number, each a list of (answer, time)."""

    def __init__(self, phases: dict[int, list[tuple[int, int]]]) -> None:
        self.phases = phases
        self.asked = 0
        self.batches = 0

    def answer(self, read: Read) -> bytes | None:
        target, data = read
        self.asked += 1
        if target != FEED:
            return abi.encode(["uint256"], [len(self.phases[target[0]])])
        if data == DECIMALS.encode():
            return abi.encode(["uint8"], [8])
        if data == LATEST_ROUND_DATA.encode():
            phase = max(self.phases)
            return self.round(phase, len(self.phases[phase]))
        if data[:4] == PHASE_AGGREGATORS.selector:
            return abi.encode(["address"], [bytes([PHASE_AGGREGATORS.decode_input(data)[0]]) + bytes(19)])
        assert data[:4] == GET_ROUND_DATA.selector
        return self.round(*divmod(GET_ROUND_DATA.decode_input(data)[0], PHASE))

    def round(self, phase: int, number: int) -> bytes | None:
        answer, time = self.phases[phase][number - 1]
        if time < 0:
            return None
        types = ["uint80", "int256", "uint256", "uint256", "uint80"]
        round_id = phase * PHASE + number
        return abi.encode(types, [round_id, answer, time, time, round_id])

    def find(self, times: Sequence[int]) -> dict[int, Round]:
        walk = rounds_at(FEED, times)
        try:
            reads = next(walk)
            while True:
                self.batches += 1
                reads = walk.send([self.answer(read) for read in reads])
        except StopIteration as done:
            return dict(done.value)

    def by_looking(self, time: int) -> int | None:
        """The time of the round that held at `time`, found the long way."""
        for phase in sorted(self.phases, reverse=True):
            held = [at for _, at in self.phases[phase] if 0 <= at <= time]
            if held:
                return max(held)
        return None


def seeded(count: int, start: int, seed: int) -> list[tuple[int, int]]:
    rng, found, time = random.Random(seed), [], start
    for _ in range(count):
        time += rng.randrange(0, 2_400)
        found.append((rng.randrange(1, 10**12), time))
    return found


@pytest.mark.parametrize("counts", [(1,), (2,), (300,), (7_000,), (900, 40, 3_000)])
def test_the_search_finds_what_looking_at_every_round_finds(counts: tuple[int, ...]) -> None:
    phases, start = {}, 10_000
    for number, count in enumerate(counts, 1):
        phases[number] = seeded(count, start, number)
        start = phases[number][-1][1] - 3_000  # the old aggregator goes on for a while
    chain = Chain(phases)
    last = phases[len(counts)][-1][1]
    times = [last + 5, *range(5_000, last, max(1, last // 300))]
    found = chain.find(times)
    assert {time: found[time].updated_s if time in found else None for time in times} == {
        time: chain.by_looking(time) for time in times
    }


def test_a_year_of_days_costs_few_requests() -> None:
    chain = Chain({1: seeded(26_000, 10_000, 5)})
    last = chain.phases[1][-1][1]
    chain.find([last - 86_400 * i for i in range(360)])
    assert chain.batches <= 10
    assert chain.asked < 4_000


def test_what_the_newest_round_answers_needs_no_search() -> None:
    chain = Chain({0: [(200 * 10**8, 50), (3 * 10**8, 90)]})
    assert chain.find([95])[95] == Round(2, 3, 90)  # type: ignore[arg-type]  # 3 is Decimal(3)
    assert chain.asked == 2


def test_a_hole_leaves_an_older_round_whose_age_shows() -> None:
    chain = Chain({1: [(1, 100), (2, 200), (3, -1), (4, 400)]})
    found = chain.find([350, 99])
    assert found[350].updated_s == 200
    assert 99 not in found


def test_no_answer_at_all_is_an_error_and_a_negative_price_is_no_price() -> None:
    walk = rounds_at(FEED, [5])
    next(walk)
    with pytest.raises(InvalidFields, match="does not answer"):
        walk.send([None, None])
    assert Chain({1: [(-5, 10), (7, 20)]}).find([15]) == {}
