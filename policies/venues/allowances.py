"""What others may still take from the account: ERC-20 allowances of listed tokens to listed spenders."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from contracts.abi import Event
from contracts.bindings import ALLOWANCE
from contracts.errors import InvalidFields
from contracts.types import Address, checksum, parse_address, to_hex
from contracts.units import from_units
from policies.calls import DecodedCalls
from policies.functions import Effect
from policies.portfolio import Allowance, Missing
from policies.venues import Adapter, Read, Snapshot
from policies.venues.tokens import Token

APPROVAL = Event.parse("Approval(address indexed,address indexed,uint256)")
"""owner, spender, amount; an NFT's has the same topic and three indexed arguments, which fails to decode."""
UNLIMITED = 2**255
_TAKERS = ("aave.pool", "perp.vault", "uniswap.position_manager", "uniswap.router", "seawall.uniswap_adapter",
           "lyra.option_market", "lyra.liquidity_pool", "lyra.short_collateral", "multicall3")  # fmt: skip
"""Contracts of a book that take tokens by allowance, or could be made to (anyone can make Multicall3 spend what it may)."""


def takers_of(book: Mapping[str, Address]) -> tuple[Address, ...]:
    """Spenders that are always looked at."""
    return tuple(dict.fromkeys(book[name] for name in _TAKERS if name in book))


@dataclass(frozen=True, slots=True)
class Allowances(Adapter):
    """Allowances of each (token, spender) pair, those of zero too, so that one that was left out shows.

    A token that nobody named goes by its address, counted in its smallest unit.
    """

    pairs: tuple[tuple[Token, Address], ...]

    def reads(self, account: Address) -> tuple[Read, ...]:
        return tuple((token.address, ALLOWANCE.encode(account, spender)) for token, spender in self.pairs)

    def parse(self, answers: Sequence[bytes | None]) -> Snapshot:
        found: list[Allowance] = []
        missing: list[Missing] = []
        for (token, spender), answer in zip(self.pairs, answers, strict=True):
            try:
                if answer is None:
                    raise InvalidFields("the call reverted")
                (units,) = ALLOWANCE.decode(answer)
            except InvalidFields as error:
                missing.append(Missing(f"allowance:{token.asset} to {checksum(spender)}", error.message))
                continue
            amount = from_units(units, token.decimals)
            found.append(Allowance(token.asset, token.address, spender, amount, units >= UNLIMITED))
        return Snapshot(allowances=tuple(found), missing=tuple(missing))


def granted_by(calls: DecodedCalls) -> tuple[tuple[Address, Address], ...]:
    """(token, spender) of the approvals that an operation makes, as far as its calls show."""
    found = []
    for call in calls.calls:
        given = dict(call.arguments)
        if call.effect in (Effect.GRANTS, Effect.REDUCES) and "amount" in given and len(given.get("spender", "")) == 42:
            token = parse_address(given["token"]) if "token" in given else call.target
            found.append((token, parse_address(given["spender"])))
    return tuple(dict.fromkeys(found))


def approved_in(
    logs: Iterable[tuple[Address, Sequence[bytes], bytes]], account: Address
) -> tuple[tuple[Address, Address], ...]:
    """(token, spender) of the account's approvals in the events of an execution."""
    found = []
    for token, topics, data in logs:
        if len(topics) == 3 and topics[0] == APPROVAL.topic and topics[1][12:] == account and len(data) == 32:
            found.append((token, topics[2][12:]))
    return tuple(dict.fromkeys(found))


def pairs_of(found: Iterable[tuple[Address, Address]], tokens: Sequence[Token]) -> tuple[tuple[Token, Address], ...]:
    """The pairs with their tokens' names and decimals."""
    by_address = {token.address: token for token in tokens}
    return tuple(
        (by_address.get(token) or Token(to_hex(token), token, 0), spender) for token, spender in dict.fromkeys(found)
    )
