"""Prices from Chainlink-style feeds."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from contracts.abi import Function
from contracts.errors import InvalidFields
from contracts.types import Address, checksum
from contracts.units import from_units
from policies.portfolio import FeedState, Missing, Price
from policies.venues import Adapter, Read, Snapshot

LATEST_ROUND_DATA = Function.parse("latestRoundData()(uint80,int256,uint256,uint256,uint80)")
"""roundId, answer, startedAt, updatedAt, answeredInRound.   Source: Chainlink AggregatorV3Interface."""


AGGREGATOR = Function.parse("aggregator()(address)")
DECIMALS = Function.parse("decimals()(uint8)")


@dataclass(frozen=True, slots=True)
class Feed(Adapter):
    """One feed of `asset` in the unit of account; what stands behind it is read with it, so that a replaced feed shows."""

    asset: str
    address: Address

    def reads(self, account: Address) -> tuple[Read, ...]:  # noqa: ARG002
        return (
            (self.address, LATEST_ROUND_DATA.encode()),
            (self.address, AGGREGATOR.encode()),
            (self.address, DECIMALS.encode()),
        )

    def parse(self, answers: Sequence[bytes | None]) -> Snapshot:
        source = f"feed {checksum(self.address)}"
        try:
            if answers[0] is None or answers[2] is None:
                raise InvalidFields("the call reverted")
            (decimals,) = DECIMALS.decode(answers[2])
            state = FeedState(self.address, self._aggregator(answers[1]), decimals)
            round_id, answer, _, updated_at, answered_in = LATEST_ROUND_DATA.decode(answers[0])
            if answer <= 0:
                raise InvalidFields(f"its answer is {answer}")
            if updated_at == 0 or answered_in < round_id:
                raise InvalidFields("its latest round is not complete")
        except InvalidFields as error:
            return Snapshot(missing=(Missing(f"price:{self.asset}", f"{source}: {error.message}"),))
        return Snapshot(prices=(Price(self.asset, from_units(answer, decimals), updated_at, source),), feeds=(state,))

    def _aggregator(self, answer: bytes | None) -> Address:
        """What answers for a proxy; the feed itself where there is no proxy. Raises InvalidFields."""
        found: Address = self.address if answer is None or not answer else AGGREGATOR.decode(answer)[0]
        return found
