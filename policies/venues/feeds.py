"""Prices from Chainlink-style feeds."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from contracts.abi import Function
from contracts.errors import InvalidFields
from contracts.types import Address, checksum
from contracts.units import from_units
from policies.portfolio import Missing, Price
from policies.venues import Adapter, Read, Snapshot

LATEST_ROUND_DATA = Function.parse("latestRoundData()(uint80,int256,uint256,uint256,uint80)")
"""roundId, answer, startedAt, updatedAt, answeredInRound.   Source: Chainlink AggregatorV3Interface."""


@dataclass(frozen=True, slots=True)
class Feed(Adapter):
    """One feed of `asset` in the unit of account, whose answers have `decimals`."""

    asset: str
    address: Address
    decimals: int = 8

    def reads(self, account: Address) -> tuple[Read, ...]:  # noqa: ARG002
        return ((self.address, LATEST_ROUND_DATA.encode()),)

    def parse(self, answers: Sequence[bytes | None]) -> Snapshot:
        source = f"feed {checksum(self.address)}"
        try:
            if answers[0] is None:
                raise InvalidFields("the call reverted")
            round_id, answer, _, updated_at, answered_in = LATEST_ROUND_DATA.decode(answers[0])
            if answer <= 0:
                raise InvalidFields(f"its answer is {answer}")
            if updated_at == 0 or answered_in < round_id:
                raise InvalidFields("its latest round is not complete")
        except InvalidFields as error:
            return Snapshot(missing=(Missing(f"price:{self.asset}", f"{source}: {error.message}"),))
        return Snapshot(prices=(Price(self.asset, from_units(answer, self.decimals), updated_at, source),))
