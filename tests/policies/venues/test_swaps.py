"""Fills of swaps: by hand from events, and on the real pool through the real router."""

from __future__ import annotations

from collections.abc import Sequence
from decimal import Decimal

import pytest

from contracts import abi
from contracts.types import Address, to_hex
from policies.portfolio import Fill
from policies.venues import Log
from policies.venues.swaps import SWAP, TRANSFER, fill_of, pool_address, swaps_in
from policies.venues.tokens import Token
from tests.policies.rig import ACCOUNT, address

D = Decimal
FACTORY, ROUTER, OTHER = address("factory"), address("router"), address("somebody")
USDC, WETH, WBTC, ODD = (address(name) for name in ("usdc", "weth", "wbtc", "odd"))
TOKENS = {t.address: t for t in (Token("USDC", USDC, 6), Token("ETH", WETH, 18), Token("BTC", WBTC, 8))}
PRICES = {"USDC": D(1), "ETH": D(3_000), "BTC": D(60_000)}


def word(address: Address) -> bytes:
    return address.rjust(32, b"\0")


def moved(token: Address, sender: Address, to: Address, units: int) -> Log:
    return token, (TRANSFER.topic, word(sender), word(to)), units.to_bytes(32)


def hop(
    given: Address,
    units: int,
    taken: Address,
    out: int,
    fee: int,
    *,
    asker: Address = ROUTER,
    factory: Address = FACTORY,
) -> list[Log]:
    """The events of one pool: what it pays, what it receives, its own."""
    token0, token1 = sorted((given, taken))
    pool = pool_address(factory, token0, token1, fee)
    amounts = (units, -out) if given == token0 else (-out, units)
    data = abi.encode(["int256", "int256", "uint160", "uint128", "int24"], [*amounts, 2**96, 1, 0])
    return [
        moved(taken, pool, OTHER, out),
        moved(given, ACCOUNT, pool, units),
        (pool, (SWAP.topic, word(asker), word(ACCOUNT)), data),
    ]


def fills(logs: Sequence[Log], prices: dict[str, Decimal] = PRICES) -> list[Fill]:
    return [fill_of(swap, "uniswap", TOKENS, prices) for swap in swaps_in(logs, FACTORY, (ACCOUNT, ROUTER))]


def test_a_purchase_splits_what_was_paid_into_price_and_fee() -> None:
    (found,) = fills(hop(USDC, 3_000 * 10**6, WETH, 99 * 10**16, 3_000))
    assert found == Fill("uniswap", "ETH", D("0.99"), D(2_991), D(9))


def test_a_sale_adds_the_fee_back_to_what_was_got() -> None:
    (found,) = fills(hop(WETH, 10**18, USDC, 2_991 * 10**6, 3_000))
    assert (found.asset, found.size, found.quote, found.fee) == ("ETH", D(-1), D(3_000), D(9))


def test_several_hops_are_one_trade_with_all_their_fees() -> None:
    logs = hop(USDC, 60_000 * 10**6, WETH, 19 * 10**18, 500) + hop(WETH, 19 * 10**18, WBTC, 90_000_000, 3_000)
    (found,) = fills(logs)
    kept = D("0.9995") * D("0.997")
    assert (found.asset, found.size) == ("BTC", D("0.9"))
    assert found.quote == 60_000 * kept
    assert found.quote + found.fee == 60_000


def test_amounts_that_do_not_meet_are_two_trades() -> None:
    logs = hop(USDC, 60_000 * 10**6, WETH, 19 * 10**18, 500) + hop(WETH, 18 * 10**18, WBTC, 90_000_000, 3_000)
    assert [(f.asset, f.size) for f in fills(logs)] == [("ETH", D(19)), ("BTC", D("0.9"))]


def test_of_two_assets_what_was_taken_is_paid_at_the_oracles_price_of_what_was_given() -> None:
    (found,) = fills(hop(WETH, 20 * 10**18, WBTC, 99_000_000, 500))
    assert (found.asset, found.size, found.quote + found.fee) == ("BTC", D("0.99"), D(60_000))


def test_a_token_nobody_knows_goes_by_its_address_and_has_no_price() -> None:
    (bought,) = fills(hop(USDC, 500 * 10**6, ODD, 77, 10_000))
    assert (bought.asset, bought.size, bought.quote + bought.fee) == (to_hex(ODD), 77, 500)
    (sold,) = fills(hop(ODD, 77, WETH, 10**18, 10_000))
    assert (sold.asset, sold.size, sold.quote - sold.fee) == (to_hex(ODD), -77, 3_000)


def test_what_others_trade_inside_an_operation_is_theirs() -> None:
    assert fills(hop(USDC, 10**6, WETH, 10**14, 500, asker=address("a hedger"))) == []
    assert len(fills(hop(USDC, 10**6, WETH, 10**14, 500, asker=ACCOUNT))) == 1


def test_what_is_no_pool_of_the_factory_is_a_trade_in_something_unknown() -> None:
    (found,) = fills(hop(USDC, 10**6, WETH, 10**14, 500, factory=address("another factory")))
    assert found.asset not in PRICES
    assert found.quote == 0


def test_events_without_end_cost_little() -> None:
    logs = hop(USDC, 10**6, WETH, 10**14, 500)
    pool = logs[-1][0]
    noise = [
        log
        for i in range(3_000)
        for log in (
            moved(i.to_bytes(20), OTHER, pool, 10**6),
            moved((2**159 + i).to_bytes(20), pool, OTHER, 10**14),
        )
    ]
    assert len(fills(noise + logs)) == 1


@pytest.mark.parametrize(
    "data", [b"", bytes(160), abi.encode(["int256", "int256", "uint160", "uint128", "int24"], [1, 1, 1, 1, 0])]
)
def test_events_that_are_no_trades_are_passed_over(data: bytes) -> None:
    assert fills([(address("x"), (SWAP.topic, word(ROUTER), word(ACCOUNT)), data)]) == []
