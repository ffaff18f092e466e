"""Owners of every kind on a real devnet: accounts are created and driven by passkeys, multisigs, and one signature for many operations."""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass

import pytest

from contracts import bindings as b
from contracts.bindings import AccountConfig, Call
from contracts.devnet import Devnet
from contracts.entrypoint import V08
from contracts.entrypoint.base import GET_NONCE
from contracts.eoa import Eoa, TransactionSender
from contracts.errors import BadInput
from contracts.owners import (
    P256_ORDER,
    Seat,
    contract_owner,
    erc7913_owner,
    multisig_owner,
    multisig_signature,
    p256_owner,
    p256_signature,
    passkey_signature,
    seats_of,
)
from contracts.types import Address, Hash32, keccak, to_hex
from contracts.userop import LANE_OWNER, LANE_ROOT, UserOperation, nonce_key
from wallet.account import Birth
from wallet.owners import Leaf, OperationSet, OwnerVerifiers, deploy_owner_verifiers

PEOPLE = [Eoa(keccak(b"signer %d" % i)) for i in range(3)]
OWNERS = [b.ecdsa_owner(one.address) for one in PEOPLE]
TARGET = keccak(b"target")[:20]
EVENT = "0x49628fd1471006c1482da88028e9ce4dbb080b815c9b0344d39e5a8e6ec1419f"


class SoftwareKey:
    """A P-256 key for tests, by the textbook (SEC 1, 4.1.3): not constant in time, the nonce is a hash of key and message."""

    p = 0xFFFFFFFF00000001000000000000000000000000FFFFFFFFFFFFFFFFFFFFFFFF
    g = (
        0x6B17D1F2E12C4247F8BCE6E563A440F277037D812DEB33A0F4A13945D898C296,
        0x4FE342E2FE1A7F9B8EE7EB4A7C0F9E162BCE33576B315ECECBB6406837BF51F5,
    )

    def __init__(self, secret: int) -> None:
        self.secret = secret
        self.x, self.y = self._times(secret)

    def _add(self, one: tuple[int, int] | None, other: tuple[int, int] | None) -> tuple[int, int] | None:
        if one is None or other is None:
            return one or other
        (x1, y1), (x2, y2) = one, other
        if x1 == x2 and (y1 + y2) % self.p == 0:
            return None
        slope = (3 * x1 * x1 - 3) * pow(2 * y1, -1, self.p) if one == other else (y2 - y1) * pow(x2 - x1, -1, self.p)
        x3 = (slope * slope - x1 - x2) % self.p
        return x3, (slope * (x1 - x3) - y1) % self.p

    def _times(self, factor: int) -> tuple[int, int]:
        found: tuple[int, int] | None = None
        addend: tuple[int, int] | None = self.g
        while factor:
            if factor & 1:
                found = self._add(found, addend)
            addend = self._add(addend, addend)
            factor >>= 1
        assert found is not None
        return found

    def sign(self, digest: bytes) -> tuple[int, int]:
        nonce = int.from_bytes(hashlib.sha256(self.secret.to_bytes(32) + digest).digest()) % P256_ORDER
        r = self._times(nonce)[0] % P256_ORDER
        return r, pow(nonce, -1, P256_ORDER) * (int.from_bytes(digest) + r * self.secret) % P256_ORDER


P256 = SoftwareKey(0xB0B)


def by_p256(digest: Hash32) -> bytes:
    return p256_signature(*P256.sign(digest))


def by_passkey(digest: Hash32) -> bytes:
    """What an authenticator answers to `navigator.credentials.get` with the hash as challenge."""
    challenge = base64.urlsafe_b64encode(digest).rstrip(b"=").decode()
    client = json.dumps(
        {"type": "webauthn.get", "challenge": challenge, "origin": "https://wallet.example"}, separators=(",", ":")
    ).encode()
    data = hashlib.sha256(b"wallet.example").digest() + b"\x05" + (7).to_bytes(4)
    r, s = P256.sign(hashlib.sha256(data + hashlib.sha256(client).digest()).digest())
    return passkey_signature(data, client, r, s, digest)


@dataclass(frozen=True, slots=True)
class Chain:
    net: Devnet
    sender: TransactionSender
    verifiers: OwnerVerifiers

    async def account(self, owner: bytes) -> Address:
        config = AccountConfig(owner, bytes(20), 0, (10**18,) * 3, ())
        birth = Birth(self.net.addresses.risk_account_factory, config, bytes(32))
        address = await birth.address(self.net.rpc)
        await self.sender.transact(birth.factory, birth.factory_data)
        await self.sender.transact(address, value=10**17)
        return address

    async def operation(self, account: Address, lane: int) -> UserOperation:
        key = nonce_key(bytes(20), lane)
        answer = await self.net.rpc.eth_call(V08.address, GET_NONCE.encode(account, key))
        return UserOperation(
            sender=account,
            nonce=GET_NONCE.decode(answer)[0],
            call_data=b.encode_execute([Call(TARGET, b"", 1)]),
            call_gas_limit=100_000,
            verification_gas_limit=1_500_000,
            pre_verification_gas=60_000,
            max_fee_per_gas=10**9,
            max_priority_fee_per_gas=1,
        )

    def digest(self, op: UserOperation) -> Hash32:
        return V08.user_op_hash(op, self.net.chain_id)

    async def balance(self) -> int:
        return await self.net.rpc.get_balance(TARGET)

    async def handle(self, *ops: UserOperation) -> int:
        """How many of the operations succeeded."""
        data = V08.encode_handle_ops(ops, self.sender.eoa.address)
        receipt = await self.sender.transact(V08.address, data)
        events = [log for log in receipt["logs"] if log["topics"][0] == EVENT]
        return sum(int(log["data"][66:130], 16) for log in events)


@pytest.fixture(scope="module")
async def chain() -> AsyncIterator[Chain]:
    async with Devnet.start(port=0) as net:
        sender = TransactionSender(net.rpc, net.accounts.deployer, net.chain_id)
        yield Chain(net, sender, await deploy_owner_verifiers(sender))


def p256_of(where: OwnerVerifiers) -> bytes:
    return p256_owner(where.p256, P256.x, P256.y)


def passkey_of(where: OwnerVerifiers) -> bytes:
    return p256_owner(where.webauthn, P256.x, P256.y)


def multisig_of(where: OwnerVerifiers) -> bytes:
    return multisig_owner(where.multisig, 3, [Seat(OWNERS[0], 2), Seat(OWNERS[1]), Seat(passkey_of(where))])


KINDS: dict[str, tuple[Callable[[OwnerVerifiers], bytes], Callable[[OwnerVerifiers, Hash32], bytes]]] = {
    "p256": (p256_of, lambda _, digest: by_p256(digest)),
    "passkey": (passkey_of, lambda _, digest: by_passkey(digest)),
    "multisig": (
        multisig_of,
        lambda where, digest: multisig_signature(
            multisig_of(where), {OWNERS[0]: PEOPLE[0].sign_hash(digest), passkey_of(where): by_passkey(digest)}
        ),
    ),
}


@pytest.mark.parametrize("kind", KINDS)
async def test_an_account_is_created_and_driven_by_its_owner(chain: Chain, kind: str) -> None:
    owner_of, sign = KINDS[kind]
    account = await chain.account(owner_of(chain.verifiers))
    (signer,) = b.OWNER_SIGNER.decode(await chain.net.rpc.eth_call(account, b.OWNER_SIGNER.encode()))
    assert signer == owner_of(chain.verifiers)
    before = await chain.balance()
    op = await chain.operation(account, LANE_OWNER)
    assert await chain.handle(op.replace(signature=sign(chain.verifiers, chain.digest(op)))) == 1
    assert await chain.balance() == before + 1


async def test_one_signature_sends_a_set_of_operations_of_two_accounts_and_nonces(chain: Chain) -> None:
    first, second = (
        await chain.account(OWNERS[0]),
        await chain.account(multisig_owner(chain.verifiers.multisig, 1, [Seat(OWNERS[0])])),
    )
    ops = [await chain.operation(first, LANE_ROOT), await chain.operation(second, LANE_ROOT)]
    ops.append(ops[0].replace(nonce=ops[0].nonce + 1))
    leaves = [Leaf(chain.net.chain_id, V08.address, op.sender, chain.digest(op)) for op in ops]
    elsewhere = Leaf(10, V08.address, first, keccak(b"on another chain"))
    together = OperationSet((*leaves, elsewhere, Leaf(10, V08.address, second, keccak(b"and another"))))
    plain = PEOPLE[0].sign_hash(together.digest())
    multi = multisig_signature(multisig_owner(chain.verifiers.multisig, 1, [Seat(OWNERS[0])]), {OWNERS[0]: plain})
    before = await chain.balance()
    signed = [
        op.replace(signature=together.signature(i, multi if op.sender == second else plain)) for i, op in enumerate(ops)
    ]
    assert await chain.handle(signed[0], signed[1]) == 2
    assert await chain.handle(signed[2]) == 1
    assert await chain.balance() == before + 3


def test_a_multisig_is_read_back_and_asks_for_no_more_signatures_than_it_needs() -> None:
    owner = multisig_owner(b"\x01" * 20, 2, [Seat(OWNERS[0]), Seat(OWNERS[1], 2), Seat(OWNERS[2])])
    assert seats_of(owner) == (2, (Seat(OWNERS[0]), Seat(OWNERS[1], 2), Seat(OWNERS[2])))
    everybody = {one: bytes(65) for one in OWNERS}
    assert multisig_signature(owner, everybody) == b"\x01\x00\x41" + bytes(65)
    with pytest.raises(BadInput, match=r"weight 1 of 2: still to sign are some of .* \(2\)"):
        multisig_signature(owner, {OWNERS[0]: bytes(65)})
    with pytest.raises(BadInput, match="no seat"):
        multisig_signature(owner, {b.ecdsa_owner(b"\x07" * 20): bytes(65)})


@pytest.mark.parametrize(
    ("threshold", "seats", "message"),
    [
        (1, [], "1 to 32 signers"),
        (1, [Seat(OWNERS[0])] * 2, "sits twice"),
        (2, [Seat(OWNERS[0])], "cannot be reached"),
        (0, [Seat(OWNERS[0])], "cannot be reached"),
        (1, [Seat(OWNERS[0], 0)], "weight from 1"),
        (1, [Seat(b"short")], "21 to 65535 bytes"),
    ],
)
def test_a_multisig_that_could_never_sign_is_refused(threshold: int, seats: list[Seat], message: str) -> None:
    with pytest.raises(BadInput, match=message):
        multisig_owner(b"\x01" * 20, threshold, seats)


def test_bytes_that_are_no_multisig_are_refused() -> None:
    for owner in (OWNERS[0], contract_owner(b"\x01" * 20), erc7913_owner(b"\x01" * 20, b"\x00\x01\x00\x01\x00\xff")):
        with pytest.raises(BadInput, match="no multisig"):
            seats_of(owner)
    with pytest.raises(BadInput, match="needs a key"):
        erc7913_owner(b"\x01" * 20, b"")


def test_a_passkey_that_signed_something_else_is_refused() -> None:
    client = b'{"type":"webauthn.get","challenge":"AAAA","origin":"https://wallet.example"}'
    with pytest.raises(BadInput, match="AAAA"):
        passkey_signature(b"", client, 1, 1, bytes(32))
    assert to_hex(p256_signature(1, P256_ORDER - 5))[-2:] == "05"
