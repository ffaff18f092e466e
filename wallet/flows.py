"""What was paid into an account and out of it, from the tokens' own events: without it a deposit would look like a profit, and hide a loss.

In: a transfer to the account from an address that is no contract of the book, in a transaction that carries no operation of the account.
Out: a transfer from the account to somebody who holds no code, or to a role or declared address of the book (a treasury may be a contract).
Whatever else moves is the account's own trade with a venue. What is not recognised as a payment out counts as a loss, and what comes in by a
stranger's transaction never as a profit: both err towards more caution. Native coin that is sent without a token's event is not seen.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from decimal import Decimal, localcontext

from contracts.abi import Event
from contracts.entrypoint import USER_OPERATION_EVENT, EntryPoint
from contracts.errors import BadInput
from contracts.rpc import RpcClient
from contracts.types import Address, parse_bytes, parse_hash
from contracts.units import from_units
from policies.margin import EXACT
from policies.names import CONTRACTS
from policies.portfolio import UNIT_OF_ACCOUNT, Price
from policies.venues.tokens import Token

TRANSFERRED = Event.parse("Transfer(address indexed,address indexed,uint256)")
CHUNK = 5_000
"""Blocks that one request of logs covers: what most nodes answer at once."""


async def paid_in_between(
    rpc: RpcClient,
    entry_point: EntryPoint,
    account: Address,
    tokens: Sequence[Token],
    book: Mapping[str, Address],
    prices: Sequence[Price],
    first_block: int,
    last_block: int,
) -> Decimal:
    """Payments in less payments out in blocks `first_block` to `last_block`, both included, in unit of account at `prices`.

    Raises NodeError when the node does not answer, BadInput when a token that was paid has no price.
    """
    total = Decimal(0)
    for start in range(first_block, last_block + 1, CHUNK):
        total += await _chunk(
            rpc, entry_point, account, tokens, book, prices, start, min(start + CHUNK - 1, last_block)
        )
    return total


async def _chunk(
    rpc: RpcClient,
    entry_point: EntryPoint,
    account: Address,
    tokens: Sequence[Token],
    book: Mapping[str, Address],
    prices: Sequence[Price],
    start: int,
    end: int,
) -> Decimal:
    me = bytes(12) + account
    to_me: list[bytes | None] = [TRANSFERRED.topic, None, me]
    from_me: list[bytes | None] = [TRANSFERRED.topic, me, None]
    asked = [rpc.logs(token.address, topics, start, end) for token in tokens for topics in (to_me, from_me)]
    own, *moved = await asyncio.gather(
        rpc.logs(entry_point.address, [USER_OPERATION_EVENT.topic, None, me], start, end), *asked
    )
    own_transactions = {log["transactionHash"] for log in own}
    contracts = {address for name, address in book.items() if name in CONTRACTS}
    named = set(book.values()) - contracts
    total = Decimal(0)
    for place, logs in enumerate(moved):
        token, incoming = tokens[place // 2], place % 2 == 0
        for log in logs:
            topics = [parse_hash(topic) for topic in log["topics"]]
            sender, receiver, units = TRANSFERRED.decode(topics, parse_bytes(log["data"]))
            other = sender if incoming else receiver
            if other == account or other in contracts:
                continue
            stranger = log["transactionHash"] not in own_transactions
            counts = stranger if incoming else other in named or not await rpc.get_code(other)
            if counts:
                with localcontext(EXACT):
                    amount = from_units(units, token.decimals) * _price(token.asset, prices)
                    total += amount if incoming else -amount
    return total


def _price(asset: str, prices: Sequence[Price]) -> Decimal:
    if asset == UNIT_OF_ACCOUNT:
        return Decimal(1)
    found = next((price.value for price in prices if price.asset == asset), None)
    if found is None:
        raise BadInput(f"{asset} was paid in or out, and there is no price of it")
    return found
