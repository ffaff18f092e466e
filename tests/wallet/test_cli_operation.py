"""Accounts owned by a P-256 key, a passkey and a multisig: created, drafted for, signed and sent by the command line on the devnet."""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from Crypto.Hash import SHA256
from Crypto.PublicKey import ECC
from Crypto.Signature import DSS

from contracts.devnet.accounts import devnet_key
from contracts.entrypoint import V08
from contracts.entrypoint.base import DEPOSIT_TO
from contracts.eoa import TransactionSender
from contracts.errors import BadInput
from contracts.types import keccak, parse_address, to_hex
from tests.wallet.cli_rig import PASSPHRASE, Machine
from tests.wallet.trading_floor import Floor, floor_in
from wallet.keystore import Keystore, Passphrase
from wallet.operation_files import OperationFile, read_operation
from wallet.owner_kinds import parse_multisig, parse_owner
from wallet.passkeys import asserted, registered

TARGET = keccak(b"somebody")[:20]
WEI = 10**15
CALL = f"{to_hex(TARGET)}:0.001"


def url(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


class Authenticator:
    """What a browser and its authenticator answer, by WebAuthn level 3; the key is pycryptodome's."""

    def __init__(self) -> None:
        self.key = ECC.generate(curve="P-256")

    def registration(self) -> dict[str, Any]:
        spki = self.key.public_key().export_key(format="DER")
        return {"id": "AQ", "type": "public-key", "response": {"publicKey": url(spki), "publicKeyAlgorithm": -7}}

    def answer(self, request: dict[str, Any], *, flags: int = 0x05) -> dict[str, Any]:
        """To `navigator.credentials.get(request)`."""
        challenge = request["publicKey"]["challenge"]
        origin = {"origin": "https://wallet.example", "crossOrigin": False}
        client = json.dumps({"type": "webauthn.get", "challenge": challenge, **origin}, separators=(",", ":")).encode()
        data = hashlib.sha256(b"wallet.example").digest() + bytes([flags]) + (9).to_bytes(4)
        signed = DSS.new(self.key, "fips-186-3", encoding="der").sign(
            SHA256.new(data + hashlib.sha256(client).digest())
        )
        response = {"authenticatorData": url(data), "clientDataJSON": url(client), "signature": url(signed)}
        return {"id": "AQ", "type": "public-key", "response": response}


@pytest.fixture(scope="module")
async def floor(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Floor]:
    async with floor_in(tmp_path_factory.mktemp("floor")) as found:
        deployed = await Machine.set_up(found, tmp_path_factory.mktemp("deployer")).run(
            "owner", "deploy", "--key", "owner"
        )
        assert deployed.code == 0, deployed.err
        yield found


@pytest.fixture
async def machine(floor: Floor, tmp_path: Path) -> Machine:
    return Machine.set_up(floor, tmp_path)


async def account(machine: Machine, *flags: str) -> str:
    """Created (not deployed) and given ether: its first operation deploys it."""
    made = await machine.account(*flags)
    net = machine.floor.net
    sender = TransactionSender(net.rpc, net.accounts.deployer, net.chain_id)
    address = parse_address(made["address"])
    await sender.transact(address, value=10 * WEI)
    await sender.transact(V08.address, DEPOSIT_TO.encode(address), value=10**17)
    settings = machine.folder / "seawall.toml"
    settings.write_text(f'account = "{made["address"]}"\n' + settings.read_text())
    return str(made["address"])


async def ok(machine: Machine, *arguments: str) -> dict[str, Any]:
    answer = await machine.run(*arguments, "--json")
    assert answer.code == 0, answer.err + answer.out
    found: dict[str, Any] = answer.data
    return found


async def sent(machine: Machine, file: str = "op.json") -> dict[str, Any]:
    """Send it, and look that the target got its wei."""
    rpc = machine.floor.net.rpc
    before = await rpc.get_balance(TARGET)
    found = await ok(machine, "operation", "send", file, "--yes")
    assert await rpc.get_balance(TARGET) == before + WEI
    return found


def put(machine: Machine, name: str, body: dict[str, Any]) -> str:
    (machine.folder / name).write_text(json.dumps(body))
    return name


async def test_a_p256_key_in_a_file_owns_an_account(machine: Machine) -> None:
    made = await ok(machine, "owner", "new-p256", "laptop.pem", "--iterations", "1000")
    assert (machine.folder / "laptop.pem").stat().st_mode & 0o777 == 0o600
    assert "ENCRYPTED" in (machine.folder / "laptop.pem").read_text()
    await account(machine, "--bare", "--owner", "p256:laptop.pem.pub")
    for file in ("op.json", "again.json"):
        drafted = await ok(machine, "operation", "new", file, "--call", CALL, "--note", "rent")
        assert (drafted["ready"], drafted["signers"][0]["x"]) == (False, made["x"])
        early = await machine.run("operation", "send", file, "--yes")
        assert early.code != 0
        assert "has not signed yet" in early.err
        assert (await ok(machine, "operation", "sign", file, "--p256", "laptop.pem", "--yes"))["ready"]
        await sent(machine, file)


async def test_a_passkey_owns_an_account_and_signs_in_a_browser(machine: Machine) -> None:
    phone, other = Authenticator(), Authenticator()
    put(machine, "phone.json", phone.registration())
    await account(machine, "--bare", "--owner", "passkey:phone.json")
    await ok(machine, "operation", "new", "op.json", "--call", CALL)
    asked = (await ok(machine, "operation", "show", "op.json"))["passkeyRequest"]
    for wrong, why in (
        (other.answer(asked), "not signed by this passkey"),
        (phone.answer(asked, flags=0x01), "did not verify its user"),
        (phone.answer({"publicKey": {"challenge": url(bytes(32))}}), "was asked"),
        ({"response": {}}, "toJSON"),
    ):
        with pytest.raises(BadInput, match=why):
            asserted(wrong, registered(phone.registration()), read_operation(machine.folder / "op.json").digest)
    put(machine, "answer.json", phone.answer(asked))
    assert (await ok(machine, "operation", "sign", "op.json", "--assertion", "answer.json", "--yes"))["ready"]
    await sent(machine)


async def test_the_signers_of_a_weighted_multisig_sign_one_file_after_another(machine: Machine) -> None:
    phone = Authenticator()
    put(machine, "phone.json", phone.registration())
    await ok(machine, "owner", "new-p256", "laptop.pem", "--iterations", "1000")
    seats = ("key:guardian=2", "p256:laptop.pem.pub", "passkey:phone.json", "key:guardian-2")
    flags = [part for seat in seats for part in ("--signer", seat)]
    await account(machine, "--bare", "--threshold", "4", *flags)
    await ok(machine, "operation", "new", "op.json", "--call", CALL)
    stranger = await machine.run("operation", "sign", "op.json", "--key", "keeper", "--yes")
    assert "not an owner" in stranger.err
    assert (await ok(machine, "operation", "sign", "op.json", "--key", "guardian", "--yes"))["signedWeight"] == 2
    assert (await ok(machine, "operation", "sign", "op.json", "--p256", "laptop.pem", "--yes"))["signedWeight"] == 3
    early = await machine.run("operation", "send", "op.json", "--yes")
    assert "signatures of weight 3 of 4" in early.err
    asked = (await ok(machine, "operation", "show", "op.json"))["passkeyRequest"]
    put(machine, "answer.json", phone.answer(asked))
    assert (await ok(machine, "operation", "sign", "op.json", "--assertion", "answer.json", "--yes"))["ready"]
    await sent(machine)


async def test_a_multisig_account_under_a_policy_is_judged_at_the_draft_and_attested_when_it_is_sent(
    machine: Machine,
) -> None:
    policy = machine.folder / "policy.yaml"
    policy.write_text(
        policy.read_text().replace("calls:\n", f'calls:\n  - {{target: "{to_hex(TARGET)}", max_value: 0.01}}\n')
    )
    flags = ("--signer", "key:guardian", "--signer", "key:guardian-2", "--signer", "key:owner", "--threshold", "2")
    where = await account(machine, *flags)
    refused = await machine.run("operation", "new", "op.json", "--call", f"{to_hex(keccak(b'nobody')[:20])}:0.001")
    assert refused.code == 5, refused.err
    assert not (machine.folder / "op.json").exists()
    await ok(machine, "operation", "new", "op.json", "--call", CALL)
    for name in ("owner", "guardian-2"):
        await ok(machine, "operation", "sign", "op.json", "--key", name, "--yes")
    await sent(machine)
    assert machine.engine_log(where).count("attestation") == 1


async def test_a_file_that_was_changed_is_refused(machine: Machine) -> None:
    await account(machine, "--bare", "--owner", "key:owner")
    await ok(machine, "operation", "new", "op.json", "--call", CALL)
    await ok(machine, "operation", "sign", "op.json", "--key", "owner", "--yes")
    whole = json.loads((machine.folder / "op.json").read_text())
    signer = next(iter(whole["signatures"]))
    forged = "0x" + "11" * 64 + "1b"
    for change, why in (
        ({"userOp": whole["userOp"] | {"callData": "0x"}}, "changed after it was drafted"),
        ({"chainId": 1}, "changed after it was drafted"),
        ({"signatures": {signer: forged}}, "over this operation"),
        ({"signatures": {"0x00" + "22" * 20: forged}}, "not an owner"),
        ({"seawallOperation": 2}, "no operation file of this version"),
    ):
        with pytest.raises(BadInput, match=why):
            OperationFile.from_json(whole | change)


def test_owners_that_make_no_sense_are_refused(tmp_path: Path) -> None:
    store = Keystore(tmp_path)
    store.add("owner", devnet_key("owner"), Passphrase(PASSPHRASE), kdf_n=2)
    for spec, why in (
        ("point:p256:0x01:0x01", "no point of P-256"),
        ("point:ed25519:0x01:0x01", "of p256 or passkey"),
        ("key:nobody", "no key is named"),
        ("0x01" + "33" * 84, "no owner that this wallet knows"),
    ):
        with pytest.raises(BadInput, match=why):
            parse_owner(spec, store)
    for threshold, signers, why in (
        (2, ["key:owner"], "cannot be reached"),
        (1, ["key:owner"] * 2, "sits twice"),
        (1, ["key:owner=many"], "SPEC=WEIGHT"),
        (1, [to_hex(parse_multisig(1, ["key:owner"], store))], "inside a multisig"),
    ):
        with pytest.raises(BadInput, match=why):
            parse_multisig(threshold, signers, store)


def test_a_passkey_of_another_algorithm_owns_nothing() -> None:
    rsa = Authenticator()
    rsa.key = ECC.generate(curve="P-384")
    with pytest.raises(BadInput, match="ES256"):
        registered(rsa.registration())
