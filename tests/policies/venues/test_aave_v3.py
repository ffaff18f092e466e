"""Aave on the real pool: parts, whole and rates are the venue's own, and anything that does not add up is missing."""

from __future__ import annotations

from decimal import Decimal

import pytest

from contracts.devnet import Devnet
from contracts.devnet.tokens import ETHER, USDC
from contracts.types import Address, to_hex
from policies.portfolio import Collateral
from policies.venues import Snapshot
from policies.venues.aave_v3 import AaveV3
from tests.devnet.rig import Person, person
from tests.policies.venues.rig import answers_to, look

ACCOUNT_DATA = "getUserAccountData(address)(uint256,uint256,uint256,uint256,uint256,uint256)"


def adapter(net: Devnet, *names: str) -> AaveV3:
    where = net.addresses
    known = {"ETH": where.weth, "USDC": where.usdc}
    reserves = tuple((name, known[name]) for name in (names or known))
    return AaveV3(where.aave_pool, where.aave_data_provider, where.aave_oracle, reserves)


async def supplied(net: Devnet) -> Person:
    """10 WETH supplied at 3,000, nothing owed."""
    someone, where = person(net, net.accounts.trader), net.addresses
    await someone.do(where.weth, "deposit()", value=10 * ETHER)
    await someone.do(where.weth, "approve(address,uint256)", where.aave_pool, 10 * ETHER)
    await someone.do(
        where.aave_pool, "supply(address,uint256,address,uint16)", where.weth, 10 * ETHER, someone.eoa.address, 0
    )
    return someone


async def borrow(someone: Person, token: Address, amount: int) -> None:
    me = someone.eoa.address
    await someone.do(
        someone.net.addresses.aave_pool, "borrow(address,uint256,uint256,uint16,address)", token, amount, 2, 0, me
    )


@pytest.fixture
async def borrower(chain: Devnet) -> Person:
    """10 WETH supplied at 3,000, 12,000 USDC owed."""
    await chain.market.heartbeat()
    someone = await supplied(chain)
    await borrow(someone, chain.addresses.usdc, 12_000 * USDC)
    return someone


async def test_an_account_without_anything_has_no_lending_account(chain: Devnet) -> None:
    assert await look(chain, adapter(chain), chain.accounts.trader2.address) == Snapshot()


async def test_a_loan_has_its_collateral_its_debt_and_a_health_factor_by_hand(chain: Devnet, borrower: Person) -> None:
    found = await look(chain, adapter(chain), borrower.eoa.address)
    assert found.missing == ()
    (held,), (owed,), (loan,) = found.collateral, found.debts, found.loans
    price = held.price
    assert held == Collateral("aave", "ETH", Decimal(10), price, Decimal("0.83"), Decimal("0.805"))
    assert (owed.venue, owed.asset) == ("aave", "USDC")
    assert Decimal(12_000) <= owed.amount < Decimal("12000.01")
    assert loan.collateral_value == 10 * price
    assert loan.health_factor is not None
    assert loan.health_factor == pytest.approx(10 * price * Decimal("0.83") / owed.amount, rel=Decimal("1e-8"))
    assert loan.available_borrow == pytest.approx(10 * price * Decimal("0.805") - owed.amount, abs=Decimal("1e-5"))


async def test_the_whole_is_what_the_pool_itself_answers(chain: Devnet, borrower: Person) -> None:
    (loan,) = (await look(chain, adapter(chain), borrower.eoa.address)).loans
    total, owed, available, threshold, _, health = await borrower.ask(
        chain.addresses.aave_pool, ACCOUNT_DATA, borrower.eoa.address
    )
    units = Decimal("1e-8")
    assert (loan.collateral_value, loan.debt_value, loan.available_borrow) == (
        total * units, owed * units, available * units,
    )  # fmt: skip
    assert loan.liquidation_threshold == Decimal(threshold).scaleb(-4)
    assert loan.health_factor == Decimal(health).scaleb(-18)


async def test_the_rate_of_a_debt_is_what_it_grows_by(chain: Devnet, borrower: Person) -> None:
    (before,) = (await look(chain, adapter(chain), borrower.eoa.address)).debts
    days = 30
    await chain.rpc.call("evm_increaseTime", days * 86_400)
    await chain.rpc.call("evm_mine")
    (after,) = (await look(chain, adapter(chain), borrower.eoa.address)).debts
    assert before.annual_rate is not None
    grown = after.amount / before.amount - 1
    assert grown == pytest.approx(before.annual_rate * days / 365, rel=Decimal("0.01"))
    assert grown > 0


async def test_what_is_supplied_but_no_collateral_secures_nothing(chain: Devnet) -> None:
    await chain.market.heartbeat()
    someone = await supplied(chain)
    where = chain.addresses
    await someone.do(where.aave_pool, "setUserUseReserveAsCollateral(address,bool)", where.weth, False)
    found = await look(chain, adapter(chain), someone.eoa.address)
    (held,), (loan,) = found.collateral, found.loans
    assert (held.amount, held.liquidation_threshold, held.loan_to_value) == (10, 0, 0)
    assert (loan.collateral_value, loan.health_factor) == (0, None)


async def in_mode(net: Devnet, someone: Person, source: Address) -> None:
    """Put the account into an efficiency mode of its own for both reserves: 97 % threshold, 95 % loan to value."""
    admin, where = person(net, net.accounts.deployer), net.addresses
    configurator = await admin.ask(where.aave_addresses_provider, "getPoolConfigurator()(address)")
    mode = (1, 9_500, 9_700, 10_100, source, "near")
    await admin.do(configurator, "setEModeCategory(uint8,uint16,uint16,uint16,address,string)", *mode)
    for token in (where.weth, where.usdc):
        await admin.do(configurator, "setAssetEModeCategory(address,uint8)", token, 1)
    await someone.do(where.aave_pool, "setUserEMode(uint8)", 1)


async def test_an_efficiency_mode_replaces_threshold_and_loan_to_value(chain: Devnet, borrower: Person) -> None:
    await in_mode(chain, borrower, bytes(20))
    found = await look(chain, adapter(chain), borrower.eoa.address)
    assert found.missing == ()
    (held,), (loan,) = found.collateral, found.loans
    assert (held.liquidation_threshold, held.loan_to_value) == (Decimal("0.97"), Decimal("0.95"))
    assert loan.liquidation_threshold == Decimal("0.97")


async def test_the_price_of_an_efficiency_mode_replaces_its_assets_prices(chain: Devnet, borrower: Person) -> None:
    await in_mode(chain, borrower, chain.addresses.usdc)
    found = await look(chain, adapter(chain), borrower.eoa.address)
    assert [m.why for m in found.missing] == []
    (held,) = found.collateral
    assert held.price == 1


async def test_a_reserve_that_nobody_named_goes_by_its_address(chain: Devnet, borrower: Person) -> None:
    found = await look(chain, adapter(chain, "ETH"), borrower.eoa.address)
    assert found.missing == ()
    (owed,) = found.debts
    assert owed.asset == to_hex(chain.addresses.usdc)
    assert owed.amount == pytest.approx(Decimal(12_000), rel=Decimal("1e-6"))


async def test_parts_that_do_not_add_up_are_no_lending_account(chain: Devnet, borrower: Person) -> None:
    venue = adapter(chain)
    answers = await answers_to(chain, venue, borrower.eoa.address)
    for at, shown in ((5, "collateral"), (9, "collateral"), (10, "debt")):
        bent = list(answers)
        body = bent[at] or b""
        places = {5: 0, 9: 0, 10: 2}
        start = 32 * places[at]
        number = int.from_bytes(body[start : start + 32]) * 101 // 100
        bent[at] = body[:start] + number.to_bytes(32) + body[start + 32 :]
        found = venue.parse(bent)
        assert (found.collateral, found.debts, found.loans) == ((), (), ())
        assert shown in found.missing[0].why


async def test_a_read_that_fails_makes_the_venue_missing(chain: Devnet, borrower: Person) -> None:
    venue = adapter(chain)
    answers = await answers_to(chain, venue, borrower.eoa.address)
    for at in range(len(answers)):
        for bad in (None, b"", b"\x01"):
            bent: list[bytes | None] = list(answers)
            bent[at] = bad
            found = venue.parse(bent)
            assert [m.what for m in found.missing] == ["aave"]
            assert found.debts == ()
