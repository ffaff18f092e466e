"""Tokens and native coin in the account's own hands."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from contracts.abi import Function
from contracts.bindings import BALANCE_OF
from contracts.errors import InvalidFields
from contracts.types import Address
from contracts.units import from_units
from policies.portfolio import Holding, Missing
from policies.venues import Adapter, Read, Snapshot

GET_ETH_BALANCE = Function.parse("getEthBalance(address)(uint256)")
"""Source: Multicall3."""
VENUE = "account"


@dataclass(frozen=True, slots=True)
class Token:
    """An ERC-20 token. `asset` is the name a policy knows it by; WETH and native coin are both ETH."""

    asset: str
    address: Address
    decimals: int


@dataclass(frozen=True, slots=True)
class Tokens(Adapter):
    """Balances of the listed tokens and of the native coin."""

    tokens: tuple[Token, ...]
    multicall3: Address
    native_asset: str = "ETH"

    def reads(self, account: Address) -> tuple[Read, ...]:
        balances = tuple((token.address, BALANCE_OF.encode(account)) for token in self.tokens)
        return (*balances, (self.multicall3, GET_ETH_BALANCE.encode(account)))

    def parse(self, answers: Sequence[bytes | None]) -> Snapshot:
        holdings: list[Holding] = []
        missing: list[Missing] = []
        kinds = [(token.asset, token.decimals) for token in self.tokens] + [(self.native_asset, 18)]
        for (asset, decimals), answer in zip(kinds, answers, strict=True):
            try:
                if answer is None:
                    raise InvalidFields("the call reverted")
                (units,) = BALANCE_OF.decode(answer)
            except InvalidFields as error:
                missing.append(Missing(f"{VENUE}:{asset}", error.message))
                continue
            holdings.append(Holding(VENUE, asset, from_units(units, decimals)))
        return Snapshot(holdings=tuple(holdings), missing=tuple(missing))
