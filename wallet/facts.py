"""Everything a Decision rests on, gathered from one block: portfolios before and after, prices, fills, state, what is outstanding."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from typing import Any

from contracts import bindings as b
from contracts.bindings import RiskState
from contracts.errors import InvalidFields, NodeError
from contracts.types import Address, Hash32, to_hex
from contracts.userop import UserOperation, intent_hash, required_prefund
from policies.calls import decode_calls
from policies.orders import Markets, orders_of
from policies.past import past_asked
from policies.policy import Policy
from policies.portfolio import Facts, Missing, Outstanding, Portfolio, Price
from policies.rules import rules_for
from policies.trace import touched_by, untraced, wants_trace
from policies.venues import Adapter, Log, Read, Snapshot
from policies.venues.aave_v3 import AaveV3
from policies.venues.allowances import Allowances, approved_in, granted_by, pairs_of, takers_of
from policies.venues.feeds import Feed
from policies.venues.lyra import QUOTE_ASSET, Lyra
from policies.venues.perp_v2 import PerpMarket, PerpV2
from policies.venues.tokens import Token, Tokens
from policies.venues.uniswap_v3 import UniswapV3
from wallet.account import AccountClient
from wallet.effects import Effects, MovedHead
from wallet.execution import execute
from wallet.exports import ExportFile, exported
from wallet.market import MarketData, RecordedMarket, RecordedPrices, prices_of
from wallet.past import Head, Past
from wallet.simulate import simulate

OutstandingOf = Callable[[Address, int, int], tuple[Outstanding, ...]]
"""(account, next nonce, block time in unix s) -> attestations that may still be used."""


_ATTEMPTS = 3
"""How often the facts are read anew when the chain is reorganised under them."""
_MAX_ROUNDS = 4
"""Rounds after the first: NFT ids, then the positions, then their pools; more would be an adapter that does not end."""
LYRA = (
    "lyra.option_market", "lyra.option_token", "lyra.greek_cache", "lyra.short_collateral", "lyra.synthetix_adapter",
    "lyra.viewer", "lyra.quote", "lyra.base", "lyra.quote_pool",
)  # fmt: skip
"""What the book must name for Lyra's ETH market to be read."""


FEEDS = {"feed.eth": "ETH", "feed.btc": "BTC", "feed.usdc": "USDC"}
"""Feeds by the names of a book, and the assets of policies. USDC's own price is no price of anything else: it tells a lost peg."""
PERP_MARKETS = {"perp.eth": "ETH", "perp.btc": "BTC"}
"""Base tokens by the names of a book, and the assets of policies."""


def tokens_of(book: Mapping[str, Address]) -> tuple[Token, ...]:
    """The tokens that the book names."""
    return tuple(
        Token(asset, book[name], decimals)
        for name, asset, decimals in (("usdc", "USDC", 6), ("weth", "ETH", 18))
        if name in book
    )


def spendable_of(book: Mapping[str, Address]) -> tuple[Token, ...]:
    """The tokens whose allowances are looked at: those of the book, and Lyra's quote, whose balance its own adapter reads."""
    quote = (Token(QUOTE_ASSET, book["lyra.quote"], 18),) if "lyra.quote" in book else ()
    return (*tokens_of(book), *quote)


def adapters_of(book: Mapping[str, Address]) -> tuple[Adapter, ...]:
    """The adapters of every venue that the book names."""
    found: list[Adapter] = []
    tokens = tokens_of(book)
    if tokens and "multicall3" in book:
        found.append(Tokens(tokens, book["multicall3"]))
    found += [Feed(asset, book[name]) for name, asset in FEEDS.items() if name in book]
    perp = ("perp.clearing_house", "perp.vault", "perp.account_balance", "perp.exchange")
    markets = tuple(PerpMarket(asset, book[name]) for name, asset in PERP_MARKETS.items() if name in book)
    if markets and all(name in book for name in perp):
        house, vault, balance, exchange = (book[name] for name in perp)
        found.append(PerpV2(house, vault, balance, exchange, markets))
    uniswap = ("uniswap.factory", "uniswap.position_manager")
    if all(name in book for name in uniswap):
        factory, manager = (book[name] for name in uniswap)
        routers = tuple(book[name] for name in ("uniswap.router", "uniswap.router_02") if name in book)
        found.append(UniswapV3(factory, manager, tokens, routers, spendable_of(book)))
    aave = ("aave.pool", "aave.data_provider", "aave.oracle")
    if all(name in book for name in aave):
        pool, provider, oracle = (book[name] for name in aave)
        found.append(AaveV3(pool, provider, oracle, tuple((token.asset, token.address) for token in tokens)))
    if all(name in book for name in (*LYRA, "multicall3", "usdc")):
        market, token, cache, short, spot, viewer, quote, synth, quote_pool = (book[name] for name in LYRA)
        peg = book["usdc"]
        found.append(
            Lyra("ETH", market, token, cache, short, spot, viewer, book["multicall3"], quote, synth, quote_pool, peg)
        )
    return tuple(found)


@dataclass(frozen=True, slots=True)
class Seen:
    """What each adapter saw without and with the operation."""

    before: tuple[Snapshot, ...]
    after: tuple[Snapshot, ...]


@dataclass(frozen=True, slots=True)
class FactsReader:
    """Reads facts for operations of accounts. `book` binds the policy's names; `fresh_policy` is in force on an account not yet born;
    `exports` are books of venues off the chain, which no operation changes; `market` are prices from elsewhere, beside the feeds'; `past` has
    the past returns for limits on VaR and ES (recorded files of `market` count among its sources)."""

    adapters: tuple[Adapter, ...]
    book: Mapping[str, Address]
    fresh_policy: Hash32
    exports: tuple[ExportFile, ...] = ()
    market: tuple[MarketData, ...] = ()
    past: Past = field(default_factory=Past)

    async def read(
        self,
        account: AccountClient,
        op: UserOperation,
        *,
        sponsored: bool,
        outstanding: OutstandingOf,
        block_number: int | None = None,
        policy: Policy | None = None,
    ) -> tuple[Facts, int]:
        """The facts of `op` on the latest block (or on `block_number`), and the gas its call used there.

        `policy`: where its limits look at past returns, those are read too.

        A read that fails becomes a missing fact, which the rules turn into a denial. Raises NodeError when the node is away.
        """
        calls = decode_calls(account.address, op.call_data, self.book)
        adapters = (*self.adapters, self._allowances(granted_by(calls)))
        effects, seen = await self._see(account, op, adapters, block_number)
        state, policy_id, epoch, unread = self._chain(effects, born=op.factory is None)
        elsewhere = exported(self.exports, effects.timestamp_s)
        before, prices, missing_before = portfolio_of((*seen.before, *elsewhere))
        after, _, missing_after = portfolio_of((*seen.after, *elsewhere))
        quoted, unquoted = await prices_of(self.market, effects.timestamp_s)
        logs = [(log.address, log.topics, log.data) for log in effects.logs]
        at_oracle = {price.asset: price.value for price in reversed((*prices, *quoted))}
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
            prices=(*prices, *quoted),
            fills=tuple(fill for adapter in self.adapters for fill in adapter.fills(logs, account.address, at_oracle)),
            orders=orders_of(calls, self._markets(logs), at_oracle, before.positions),
            book=self.book,
            outstanding=outstanding(account.address, op.nonce, effects.timestamp_s),
            missing=tuple(dict.fromkeys((*unread, *missing_before, *missing_after, *unquoted))),
            max_prefund_wei=required_prefund(op),
            sponsored=sponsored,
            feeds=tuple(feed for snapshot in seen.before for feed in snapshot.feeds),
        )
        facts = await self._with_past(account, facts, policy)
        return await self._with_trace(account, op, facts, policy), effects.gas_used

    async def _with_past(self, account: AccountClient, facts: Facts, policy: Policy | None) -> Facts:
        """`facts` with the past returns that the limits of `policy` on this operation ask for, of everything held before or after it."""
        asked = None if policy is None else past_asked(rule.limit for rule in rules_for(policy, facts))
        assets = facts.before.assets() | facts.after.assets()
        if policy is None or asked is None or not assets:
            return facts
        files = tuple(source.file for source in self.market if isinstance(source, RecordedPrices))
        recorded = tuple(source for source in self.market if isinstance(source, RecordedMarket))
        past = replace(self.past, files=(*self.past.files, *files), recorded=(*self.past.recorded, *recorded))
        feeds = {adapter.asset: adapter.address for adapter in self.adapters if isinstance(adapter, Feed)}
        head = Head(account.rpc, self.book["multicall3"], facts.block_number, facts.block_time_s)
        returns, missing = await past.returns(asked, assets, feeds, head, policy.max_price_age_s)
        return replace(facts, returns=returns, missing=(*facts.missing, *missing))

    async def _with_trace(
        self, account: AccountClient, op: UserOperation, facts: Facts, policy: Policy | None
    ) -> Facts:
        """`facts` with whom the operation touches, where a limit asks for it. A node that cannot trace leaves that fact missing."""
        if policy is None or not wants_trace(policy.every_limit):
            return facts
        head = {
            "hash": to_hex(facts.block_hash),
            "number": hex(facts.block_number),
            "timestamp": hex(facts.block_time_s),
        }
        try:
            ran = await execute(account.rpc, account.entry_point, op, head, changes=False)
            if ran.success is not facts.succeeded:
                raise NodeError("its trace and its simulation do not agree on whether it reverts")
        except NodeError as error:
            return replace(facts, missing=(*facts.missing, untraced(error.message)))
        logs = [(log.address, log.topics, log.data) for log in ran.logs]
        touched, counterparties = touched_by(account.address, ran.frames, logs)
        return replace(facts, touched=touched, counterparties=counterparties)

    async def look(self, account: AccountClient) -> tuple[Portfolio, tuple[Price, ...], tuple[Missing, ...]]:
        """What the account holds now, on the latest block, for people to look at. Raises NodeError when the node is away."""
        effects, seen = await self._see(account, None, (*self.adapters, self._allowances(())), None)
        return portfolio_of((*seen.before, *exported(self.exports, effects.timestamp_s)))

    def _markets(self, logs: Sequence[Log]) -> Markets:
        """What the addresses and numbers of orders mean; `logs` of the operation's execution."""
        perps = {self.book[name]: asset for name, asset in PERP_MARKETS.items() if name in self.book}
        options = (adapter for adapter in self.adapters if isinstance(adapter, Lyra))
        strikes = {number: strike for adapter in options for number, strike in adapter.strikes(logs).items()}
        return Markets(perps, spendable_of(self.book), strikes)

    def _allowances(self, found: Sequence[tuple[Address, Address]]) -> Allowances:
        """Allowances of the book's tokens to the book's spenders, and those found elsewhere."""
        tokens = spendable_of(self.book)
        known = [(token.address, spender) for token in tokens for spender in takers_of(self.book)]
        return Allowances(pairs_of((*known, *found), tokens))

    async def _see(
        self,
        account: AccountClient,
        op: UserOperation | None,
        adapters: tuple[Adapter, ...],
        block_number: int | None,
    ) -> tuple[Effects, Seen]:
        """Simulate `op` on the latest block (or `block_number`) and ask, in rounds on that same block, until every adapter knows all it needs.

        Begins again when the chain was reorganised in between; raises MovedHead when that keeps happening.
        """
        for _ in range(_ATTEMPTS - 1):
            try:
                return await self._see_once(account, op, adapters, block_number)
            except MovedHead:
                continue
        return await self._see_once(account, op, adapters, block_number)

    async def _see_once(
        self,
        account: AccountClient,
        op: UserOperation | None,
        adapters: tuple[Adapter, ...],
        block_number: int | None,
    ) -> tuple[Effects, Seen]:
        me, multicall3 = account.address, self.book["multicall3"]
        chain: list[Read] = [
            (me, b.RISK_STATE.encode()),
            (self.book["seawall.risk_validator"], b.POLICY_OF.encode(me)),
        ]
        head = await account.rpc.block("latest" if block_number is None else block_number)
        asked = [adapter.reads(me) for adapter in adapters]
        reads = chain + [read for some in asked for read in some]
        first = await simulate(account.rpc, account.entry_point, multicall3, op, reads, head=head)
        logs = [(log.address, log.topics, log.data) for log in first.logs]
        before = [(a, list(part)) for a, part in zip(adapters, _parts(first.before[2:], asked), strict=True)]
        after = [(a, list(part)) for a, part in zip(adapters, _parts(first.after[2:], asked), strict=True)]
        covered = {
            (token.address, spender) for a in adapters if isinstance(a, Allowances) for token, spender in a.pairs
        }
        found = [pair for pair in approved_in(logs, me) if pair not in covered]
        if found:
            late = Allowances(pairs_of(found, spendable_of(self.book)))
            before.append((late, []))
            after.append((late, []))
        for _ in range(_MAX_ROUNDS):
            wants = [[_next(a, me, answers) for a, answers in side] for side in (before, after)]
            flat = [[read for some in want for read in some] for want in wants]
            if not flat[0] and not flat[1]:
                break
            seen = await simulate(
                account.rpc, account.entry_point, multicall3, op, flat[0], reads_after=flat[1], head=head
            )
            for side, want, answers in ((before, wants[0], seen.before), (after, wants[1], seen.after)):
                for (_, known), part in zip(side, _parts(answers, want), strict=True):
                    known += part
        return first, Seen(
            tuple(a.parse(answers) for a, answers in before), tuple(a.parse(answers) for a, answers in after)
        )

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


def _next(adapter: Adapter, account: Address, answers: Sequence[bytes | None]) -> tuple[Read, ...]:
    """What `adapter` asks after these answers; its first round where there are none."""
    return adapter.more(account, answers) if answers else adapter.reads(account)


def _parts(answers: Sequence[bytes | None], asked: Sequence[Sequence[Read]]) -> list[Sequence[bytes | None]]:
    """The answers, cut by who asked."""
    found, at = [], 0
    for reads in asked:
        found.append(answers[at : at + len(reads)])
        at += len(reads)
    return found


def portfolio_of(seen: Sequence[Snapshot]) -> tuple[Portfolio, tuple[Price, ...], tuple[Missing, ...]]:
    """One book from what the adapters saw, with the prices among it and everything that is missing."""

    def all_of(name: str) -> tuple[Any, ...]:
        return tuple(item for snapshot in seen for item in getattr(snapshot, name))

    portfolio = Portfolio(**{field.name: all_of(field.name) for field in fields(Portfolio)})
    return portfolio, all_of("prices"), all_of("missing")
