"""`seawall recovery` with guardians who are a passkey and a P-256 key, and a successor who is a passkey, on the devnet."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path

import pytest

from contracts import abi
from contracts import bindings as b
from contracts.bindings import RecoveryMessage, ecdsa_owner
from contracts.eoa import Eoa
from contracts.errors import BadInput
from contracts.owners import Seat, multisig_owner, multisig_signature
from contracts.types import checksum, keccak
from tests.wallet.cli_rig import Machine
from tests.wallet.test_cli_operation import Authenticator, ok, put
from tests.wallet.test_freezing import later
from tests.wallet.test_recovery import DELAY_S, RECOVERABLE
from tests.wallet.trading_floor import Floor, Trader, floor_in, trader_on
from wallet.keystore import Keystore
from wallet.owner_kinds import parse_multisig, parse_owner, verifiers
from wallet.recovery import RecoveryStatus, together


@pytest.fixture(scope="module")
async def floor(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Floor]:
    async with floor_in(tmp_path_factory.mktemp("floor")) as found:
        yield found


async def guarded_by(floor: Floor, folder: Path, guardians: bytes) -> Trader:
    """A deployed account under the policy of the other tests, with guardians of the test's own."""
    trader = await trader_on(floor.net, folder, bundler=floor.bundler, policy=RECOVERABLE)
    account = trader.signer.account
    assert account.birth is not None
    modules = []
    for module in account.birth.config.modules:
        if module.module == floor.net.addresses.recovery:
            ((_, *rest),) = abi.decode([b.RECOVERY_SETTINGS], module.init_data)
            module = replace(module, init_data=abi.encode([b.RECOVERY_SETTINGS], [(guardians, *rest)]))
        modules.append(module)
    birth = replace(account.birth, config=replace(account.birth.config, modules=tuple(modules)))
    account = replace(account, birth=birth, address=await birth.address(account.rpc))
    trader.signer = replace(trader.signer, account=account)
    await trader.deploy()
    return trader


async def test_a_passkey_and_a_p256_key_hand_the_account_to_another_passkey(floor: Floor, tmp_path: Path) -> None:
    machine, phone, successor = Machine.set_up(floor, tmp_path), Authenticator(), Authenticator()
    put(machine, "phone.json", phone.registration())
    put(machine, "successor.json", successor.registration())
    await ok(machine, "owner", "deploy", "--key", "owner")
    await ok(machine, "owner", "new-p256", "vault.pem", "--iterations", "1000")
    keys = Keystore(tmp_path / "keys")
    guardians = parse_multisig(
        2, [f"p256:{tmp_path}/vault.pem.pub", f"passkey:{tmp_path}/phone.json", "key:guardian"], keys
    )
    account = (await guarded_by(floor, tmp_path, guardians)).address
    about = ("propose", checksum(account), "--new-owner", "passkey:successor.json")
    asked = await ok(machine, "recovery", "ask", *about)
    until = ("--expiry", str(asked["expiry"]))
    put(machine, "answer.json", phone.answer(asked["passkeyRequest"]))
    put(machine, "stranger.json", successor.answer(asked["passkeyRequest"]))
    refused = await machine.run("recovery", "sign", *about, *until, "--assertion", "stranger.json")
    assert "not signed by this passkey" in refused.err
    lines = [
        (await ok(machine, "recovery", "sign", *about, *until, "--assertion", "answer.json"))["signature"],
        (await ok(machine, "recovery", "sign", *about, *until, "--p256", "vault.pem"))["signature"],
    ]
    signatures = [part for line in lines for part in ("--signature", line)]
    begun = await ok(machine, "recovery", "submit", *about, *until, *signatures, "--yes")
    assert begun["underWay"]
    await later(floor.net, DELAY_S)
    await ok(machine, "recovery", "finish", checksum(account))
    (owner,) = b.OWNER_SIGNER.decode(await floor.net.rpc.eth_call(account, b.OWNER_SIGNER.encode()))
    assert owner == parse_owner(f"passkey:{tmp_path}/successor.json", keys)


def test_an_owner_of_several_cancels_together() -> None:
    people = [Eoa(keccak(b"owner %d" % i)) for i in range(3)]
    owner = multisig_owner(verifiers().multisig, 2, [Seat(ecdsa_owner(one.address)) for one in people])
    now = RecoveryStatus(owner, b"", 1, 0, 0, b"", 0, False, 0, False)
    given = {one.address: one.sign_hash(bytes(32)) for one in people[:2]}
    by_owner = {ecdsa_owner(who): signature for who, signature in given.items()}
    assert together(RecoveryMessage.CANCEL, now, given, owner) == multisig_signature(owner, by_owner)
    with pytest.raises(BadInput, match="weight 1 of 2"):
        together(RecoveryMessage.CANCEL, now, dict(list(given.items())[:1]), owner)
    single = multisig_owner(verifiers().multisig, 1, [Seat(ecdsa_owner(people[0].address))])
    alone = {people[0].address: bytes(65)}
    assert together(RecoveryMessage.CANCEL, now, alone, single) == b"\x00\x00\x41" + bytes(65)
    assert together(RecoveryMessage.CANCEL, now, alone, ecdsa_owner(people[0].address)) == bytes(65)
    with pytest.raises(BadInput, match="cancels alone"):
        together(RecoveryMessage.CANCEL, now, given)
    with pytest.raises(BadInput, match="no heir"):
        together(RecoveryMessage.CLAIM, now, given)
