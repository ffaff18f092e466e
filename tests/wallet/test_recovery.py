"""A lost owner is replaced on the real chain: by guardians while the account is frozen, by an heir after the silence, never past the owner."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from contracts import bindings as b
from contracts.bindings import RecoveryMessage, RiskState, ecdsa_owner
from contracts.devnet import Devnet
from contracts.eoa import Eoa, TransactionSender
from contracts.errors import BadInput, RpcError
from contracts.rpc import RpcClient
from policies.configuration import Wanted, differences
from tests.wallet.keeper_rig import free_port
from tests.wallet.test_freezing import later, sender
from tests.wallet.trading_floor import POLICY, Trader, book_on, now_s, trader_on
from wallet import freezing, recovery
from wallet.configuration import read_present

RECOVERABLE = POLICY.replace(
    "  session:",
    "  recovery: {guardians: [guardian, guardian_2, guardian_3], threshold: 2, delay: 3d, heir: keeper, silence: 30d}\n  session:",
).replace("exits:\n", "  - {target: seawall.recovery, functions: [setSettings, announce, cancel, heartbeat]}\nexits:\n")
ADMIN_DELAY_S = 48 * 3600
DELAY_S, SILENCE_S = 3 * 86_400, 30 * 86_400
NEXT = ecdsa_owner(b"\x11" * 20)


@pytest.fixture
async def heir_apparent(chain: Devnet, tmp_path: Path) -> AsyncIterator[Trader]:
    """A deployed account whose policy has guardians and an heir."""
    await chain.market.heartbeat()
    async with RpcClient(f"http://127.0.0.1:{free_port()}") as nobody:
        trader = await trader_on(chain, tmp_path, bundler=nobody, policy=RECOVERABLE)
        await trader.deploy()
        yield trader


class Case:
    """One account, its module, and messages of its parties, handed in by anyone."""

    def __init__(self, chain: Devnet, trader: Trader) -> None:
        self.chain, self.account, self.module = chain, trader.address, chain.addresses.recovery
        self.anyone: TransactionSender = sender(chain, chain.accounts.trader)

    async def status(self) -> recovery.RecoveryStatus:
        return await recovery.status(self.chain.rpc, self.module, self.account)

    async def say(self, message: RecoveryMessage, *people: Eoa) -> None:
        now, expiry = await self.status(), await now_s(self.chain) + 3_600
        owner = NEXT if message.names_owner else b""
        given = {
            one.address: recovery.sign(one, message, self.module, self.chain.chain_id, self.account, now, expiry, owner)
            for one in people
        }
        signature = recovery.together(message, now, given)
        await recovery.hand_in(self.anyone, message, self.module, self.account, expiry, signature, owner)

    async def owner(self) -> bytes:
        answer = await self.chain.rpc.eth_call(self.account, b.OWNER_SIGNER.encode())
        signer: bytes = b.OWNER_SIGNER.decode(answer)[0]
        return signer


async def test_the_account_is_born_with_what_its_policy_says(chain: Devnet, heir_apparent: Trader) -> None:
    present = await read_present(chain.rpc, heir_apparent.address, book_on(chain))
    assert present.recovery is not None
    assert present.recovery.change_delay_s == DELAY_S
    wish = Wanted(heir_apparent.policy, book_on(chain), present, {})
    assert [one.key for one in differences(wish) if "stop" not in one.key] == []


async def test_guardians_replace_the_owner_of_a_frozen_account_after_the_delay(
    chain: Devnet, heir_apparent: Trader
) -> None:
    case, people = Case(chain, heir_apparent), chain.accounts
    freeze = chain.addresses.emergency_freeze
    await freezing.freeze(sender(chain, people.guardian), freeze, case.account, RiskState.FROZEN)
    with pytest.raises(BadInput, match="signatures of weight 1 of 2"):
        await case.say(RecoveryMessage.PROPOSE, people.guardian)
    await case.say(RecoveryMessage.PROPOSE, people.guardian, people.guardian3)
    now = await case.status()
    assert (now.new_owner, now.by_heir) == (NEXT, False)
    assert now.executable_at_s == await now_s(chain) + DELAY_S
    with pytest.raises(RpcError):
        await recovery.finish(case.anyone, case.module, case.account)
    await later(chain, DELAY_S)
    await recovery.finish(case.anyone, case.module, case.account)
    assert await case.owner() == NEXT
    assert (await case.status()).executable_at_s == 0


async def test_the_owners_signature_stops_it_while_the_account_is_frozen(chain: Devnet, heir_apparent: Trader) -> None:
    case, people = Case(chain, heir_apparent), chain.accounts
    await case.say(RecoveryMessage.PROPOSE, people.guardian, people.guardian2)
    await freezing.freeze(
        sender(chain, people.guardian), chain.addresses.emergency_freeze, case.account, RiskState.FROZEN
    )
    with pytest.raises(RpcError):
        await case.say(RecoveryMessage.CANCEL, people.keeper)
    await case.say(RecoveryMessage.CANCEL, people.owner)
    await later(chain, DELAY_S)
    with pytest.raises(RpcError):
        await recovery.finish(case.anyone, case.module, case.account)
    assert await case.owner() == ecdsa_owner(people.owner.address)


async def test_the_heir_waits_for_the_silence_and_guardians_can_stop_him(chain: Devnet, heir_apparent: Trader) -> None:
    case, people = Case(chain, heir_apparent), chain.accounts
    with pytest.raises(RpcError):
        await case.say(RecoveryMessage.CLAIM, people.keeper)
    assert (await case.status()).heir_may_claim_at_s > await now_s(chain)
    await later(chain, SILENCE_S)
    with pytest.raises(RpcError):
        await case.say(RecoveryMessage.CLAIM, people.guardian)
    await case.say(RecoveryMessage.CLAIM, people.keeper)
    assert (await case.status()).by_heir
    await case.say(RecoveryMessage.WITHDRAW, people.guardian, people.guardian2)
    await case.say(RecoveryMessage.CLAIM, people.keeper)
    await later(chain, DELAY_S)
    await recovery.finish(case.anyone, case.module, case.account)
    assert await case.owner() == NEXT


async def test_nobody_shows_life_for_the_owner_and_an_account_without_the_module_says_so(
    chain: Devnet, heir_apparent: Trader
) -> None:
    case = Case(chain, heir_apparent)
    before = await case.status()
    await later(chain, 60)
    await recovery.witness(case.anyone, case.module, case.account)
    assert (await case.status()).seen_at_s == before.seen_at_s
    with pytest.raises(BadInput, match="has no Recovery"):
        await recovery.status(chain.rpc, case.module, chain.accounts.trader.address)
