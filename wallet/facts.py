"""Everything a Decision rests on, gathered from one block: portfolios before and after, prices, fills, state, what is outstanding."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal

from contracts import bindings as b
from contracts.bindings import RiskState
from contracts.errors import InvalidFields
from contracts.types import Address, Hash32
from contracts.userop import UserOperation, intent_hash, required_prefund
from policies.calls import DecodedCall, DecodedCalls, decode_calls
from policies.margin import ratio
from policies.portfolio import Facts, Holding, Margin, Missing, Option, Order, Outstanding, Portfolio, Position, Price
from policies.venues import Adapter, Read
from policies.venues.feeds import Feed
from policies.venues.lyra import Lyra
from policies.venues.perp_v2 import PerpMarket, PerpV2
from policies.venues.tokens import Token, Tokens
from wallet.account import AccountClient
from wallet.simulate import Effects, simulate

OutstandingOf = Callable[[Address, int, int], tuple[Outstanding, ...]]
"""(account, next nonce, block time in unix s) -> attestations that may still be used."""


LYRA = (
    "lyra.option_market", "lyra.option_token", "lyra.greek_cache", "lyra.short_collateral", "lyra.synthetix_adapter",
    "lyra.viewer", "lyra.quote", "lyra.base", "lyra.quote_pool",
)  # fmt: skip
"""What the book must name for Lyra's ETH market to be read."""


def adapters_of(book: Mapping[str, Address]) -> tuple[Adapter, ...]:
    """The adapters of every venue that the book names."""
    found: list[Adapter] = []
    tokens = tuple(
        Token(asset, book[name], decimals)
        for name, asset, decimals in (("usdc", "USDC", 6), ("weth", "ETH", 18))
        if name in book
    )
    if tokens and "multicall3" in book:
        found.append(Tokens(tokens, book["multicall3"]))
    if "feed.eth" in book:
        found.append(Feed("ETH", book["feed.eth"]))
    perp = ("perp.clearing_house", "perp.vault", "perp.account_balance", "perp.exchange", "perp.eth")
    if all(name in book for name in perp):
        house, vault, balance, exchange, base = (book[name] for name in perp)
        found.append(PerpV2(house, vault, balance, exchange, (PerpMarket("ETH", base),)))
    if all(name in book for name in (*LYRA, "multicall3", "usdc")):
        market, token, cache, short, spot, viewer, quote, synth, pool = (book[name] for name in LYRA)
        peg = book["usdc"]
        found.append(
            Lyra("ETH", market, token, cache, short, spot, viewer, book["multicall3"], quote, synth, pool, peg)
        )
    return tuple(found)


@dataclass(frozen=True, slots=True)
class FactsReader:
    """Reads facts for operations of accounts. `book` binds the policy's names; `fresh_policy` is in force on an account not yet born."""

    adapters: tuple[Adapter, ...]
    book: Mapping[str, Address]
    fresh_policy: Hash32

    async def read(
        self,
        account: AccountClient,
        op: UserOperation,
        *,
        sponsored: bool,
        outstanding: OutstandingOf,
        block_number: int | None = None,
    ) -> tuple[Facts, int]:
        """The facts of `op` on the latest block (or on `block_number`), and the gas its call used there.

        A read that fails becomes a missing fact, which the rules turn into a denial. Raises NodeError when the node is away.
        """
        reads = self._reads(account)
        effects = await simulate(account.rpc, account.entry_point, self.book["multicall3"], op, reads, block_number)
        state, policy_id, epoch, unread = self._chain(effects, born=op.factory is None)
        before, prices, missing_before = self._portfolio(effects.before)
        after, _, missing_after = self._portfolio(effects.after)
        calls = decode_calls(account.address, op.call_data, self.book)
        logs = [(log.address, log.topics, log.data) for log in effects.logs]
        facts = Facts(
            chain_id=account.chain_id,
            account=account.address,
            nonce=op.nonce,
            intent_hash=intent_hash(op),
            block_number=effects.block_number,
            block_hash=effects.block_hash,
            block_time_s=effects.timestamp_s,
            state=state,
            policy_on_chain=policy_id,
            policy_epoch=epoch,
            calls=calls,
            succeeded=effects.success,
            revert_data=b"" if effects.success else effects.return_data,
            before=before,
            after=after,
            prices=prices,
            fills=tuple(fill for adapter in self.adapters for fill in adapter.fills(logs, account.address)),
            orders=orders_of(calls),
            book=self.book,
            outstanding=outstanding(account.address, op.nonce, effects.timestamp_s),
            missing=tuple(dict.fromkeys((*unread, *missing_before, *missing_after))),
            max_prefund_wei=required_prefund(op),
            sponsored=sponsored,
        )
        return facts, effects.gas_used

    async def look(self, account: AccountClient) -> tuple[Portfolio, tuple[Price, ...], tuple[Missing, ...]]:
        """What the account holds now, on the latest block, for people to look at. Raises NodeError when the node is away."""
        effects = await simulate(account.rpc, account.entry_point, self.book["multicall3"], None, self._reads(account))
        return self._portfolio(effects.before)

    def _reads(self, account: AccountClient) -> list[Read]:
        validator = self.book["seawall.risk_validator"]
        chain: list[Read] = [
            (account.address, b.RISK_STATE.encode()),
            (validator, b.POLICY_OF.encode(account.address)),
        ]
        return chain + [read for adapter in self.adapters for read in adapter.reads(account.address)]

    def _chain(self, effects: Effects, *, born: bool) -> tuple[RiskState, Hash32, int, tuple[Missing, ...]]:
        """Risk state and policy in force before the operation; an account that is not born yet starts ACTIVE, in epoch 1."""
        if not born:
            return RiskState.ACTIVE, self.fresh_policy, 1, ()
        state_data, policy_data = effects.before[0], effects.before[1]
        try:
            if state_data is None or policy_data is None:
                raise InvalidFields("the call reverted")
            state, _ = b.RISK_STATE.decode(state_data)
            policy_id, epoch = b.POLICY_OF.decode(policy_data)
        except InvalidFields as error:
            return RiskState.FROZEN, bytes(32), 0, (Missing("the account's state", error.message),)
        return RiskState(state), policy_id, epoch, ()

    def _portfolio(self, answers: Sequence[bytes | None]) -> tuple[Portfolio, tuple[Price, ...], tuple[Missing, ...]]:
        rest = list(answers[2:])
        holdings: list[Holding] = []
        positions: list[Position] = []
        margins: list[Margin] = []
        prices: list[Price] = []
        missing: list[Missing] = []
        options: list[Option] = []
        for adapter in self.adapters:
            count = len(adapter.reads(bytes(20)))
            seen = adapter.parse(rest[:count])
            rest = rest[count:]
            holdings += seen.holdings
            positions += seen.positions
            margins += seen.margins
            prices += seen.prices
            missing += seen.missing
            options += seen.options
        portfolio = Portfolio(tuple(holdings), (), tuple(positions), tuple(margins), tuple(options))
        return portfolio, tuple(prices), tuple(missing)


def orders_of(calls: DecodedCalls) -> tuple[Order, ...]:
    """The worst mean price that each order permits by its own bound; a bound of zero means none."""
    return tuple(order for call in calls.calls if (order := _order(call)) is not None)


def _order(call: DecodedCall) -> Order | None:
    if call.target_name != "perp.clearing_house" or not call.function.startswith("openPosition("):
        return None
    given = dict(call.arguments)
    is_buy = given["isBaseToQuote"] == "false"
    amount, bound = Decimal(given["amount"]), Decimal(given["oppositeAmountBound"])
    if not amount or not bound:
        return Order("perp", "ETH", is_buy, None)
    exact_input = given["isExactInput"] == "true"
    quote, base = (amount, bound) if exact_input == is_buy else (bound, amount)
    return Order("perp", "ETH", is_buy, ratio(quote, base, up=is_buy))
