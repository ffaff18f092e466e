"""Every validator's validation phase through our own full tracer: no rule of ERC-7562 is broken, in an account's first operation and later."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass

import pytest

from bundler import simulation
from bundler.erc7562.rules import RuleBroken
from bundler.simulation import StakeFloor
from contracts import bindings as b
from contracts.abi import Function
from contracts.bindings import AccountConfig, Call, ModuleInit, Session, SignerQuorum
from contracts.devnet import Devnet
from contracts.entrypoint import V08
from contracts.entrypoint.base import GET_NONCE
from contracts.eoa import Eoa, TransactionSender
from contracts.owners import contract_owner
from contracts.types import Address, Hash32, keccak
from contracts.userop import (
    LANE_ATTESTED,
    LANE_KEEPER,
    LANE_OWNER,
    LANE_ROOT,
    Candidate,
    UserOperation,
    intent_hash,
    nonce_key,
)
from policies.attestation import Attestation, encode_attested_envelope, encode_session_envelope
from policies.hooks import ALLOWANCE, EQUAL
from policies.sessions import (
    Bounds,
    Span,
    Window,
    approval_digest,
    encode_bounded_envelope,
    encode_enabling_envelope,
)
from tests.bundler.assembly import asm
from tests.wallet.test_owners import KINDS
from wallet.account import Birth
from wallet.owners import Leaf, OperationSet, OwnerVerifiers, deploy_owner_verifiers

APPROVAL_HASH = Function.parse(f"approvalHash(address,{b.SESSION})(bytes32)")
FLOOR = StakeFloor(10**17, 86_400)
WAD = 10**18
OWNER, ENGINE, KEY = (Eoa(keccak(name)) for name in (b"traced owner", b"traced engine", b"traced key"))
TARGET, POLICY = keccak(b"traced target")[:20], keccak(b"traced policy")
AGREES = f"0x{'1626ba7e':0<64} 0 MSTORE 32 0 RETURN"
"""A contract that answers ERC-1271's magic to everything."""
Signed = Callable[[UserOperation], Awaitable[UserOperation]]


@dataclass(frozen=True, slots=True)
class Chain:
    net: Devnet
    sender: TransactionSender
    verifiers: OwnerVerifiers

    async def traced(
        self,
        owner: bytes,
        modules: tuple[ModuleInit, ...],
        key: int,
        sign: Signed,
        *,
        first: bool,
        target: Address = TARGET,
    ) -> set[Address]:
        """Every contract that the validation of one operation of a new account used, as the full tracer saw it. Raises RuleBroken."""
        rpc = self.net.rpc
        config = AccountConfig(owner, bytes(20), 0, (WAD,) * 3, modules)
        birth = Birth(self.net.addresses.risk_account_factory, config, key.to_bytes(32))
        account = await birth.address(rpc)
        await self.sender.transact(account, value=10**17)
        if not first and not await rpc.get_code(account):
            await self.sender.transact(birth.factory, birth.factory_data)
        nonce = GET_NONCE.decode(await rpc.eth_call(V08.address, GET_NONCE.encode(account, key)))[0]
        op = UserOperation(
            sender=account,
            nonce=nonce,
            call_data=b.encode_execute([Call(target, b.TRANSFER.encode(TARGET, 0))]),
            call_gas_limit=100_000,
            verification_gas_limit=2_500_000,
            pre_verification_gas=60_000,
            max_fee_per_gas=10**9,
            max_priority_fee_per_gas=1,
            factory=birth.factory if first else None,
            factory_data=birth.factory_data if first else b"",
        )
        executor = self.net.accounts.bundler.address
        found = await simulation.validate(rpc, V08, Candidate(await sign(op)), executor=executor, floor=FLOOR)
        assert found.way == "full"
        return {address for address, _ in found.code_hashes}

    def digest(self, op: UserOperation) -> Hash32:
        return V08.user_op_hash(op, self.net.chain_id)

    async def put(self, program: str) -> Address:
        """A contract that runs `program`."""
        code = asm(program)
        address = keccak(code)[:20]
        await self.net.rpc.call("anvil_setCode", "0x" + address.hex(), "0x" + code.hex())
        return address


@pytest.fixture(scope="module")
async def chain() -> AsyncIterator[Chain]:
    async with Devnet.start(port=0) as net:
        sender = TransactionSender(net.rpc, net.accounts.deployer, net.chain_id)
        yield Chain(net, sender, await deploy_owner_verifiers(sender))


TWICE = pytest.mark.parametrize("first", [True, False], ids=["first", "later"])
OWNED = nonce_key(bytes(20), LANE_OWNER)


@TWICE
async def test_the_built_in_owner(chain: Chain, first: bool) -> None:
    async def sign(op: UserOperation) -> UserOperation:
        return op.replace(signature=OWNER.sign_hash(chain.digest(op)))

    assert await chain.traced(b.ecdsa_owner(OWNER.address), (), OWNED, sign, first=first)


@TWICE
@pytest.mark.parametrize("kind", KINDS)
async def test_passkeys_p256_and_multisigs(chain: Chain, kind: str, first: bool) -> None:
    owner_of, signed = KINDS[kind]

    async def sign(op: UserOperation) -> UserOperation:
        return op.replace(signature=signed(chain.verifiers, chain.digest(op)))

    used = await chain.traced(owner_of(chain.verifiers), (), OWNED, sign, first=first)
    verifiers = chain.verifiers
    wanted = {"p256": {verifiers.p256}, "passkey": {verifiers.webauthn}}.get(
        kind, {verifiers.multisig, verifiers.webauthn}
    )
    assert wanted <= used


@TWICE
async def test_one_signature_over_a_root(chain: Chain, first: bool) -> None:
    async def sign(op: UserOperation) -> UserOperation:
        leaf = Leaf(chain.net.chain_id, V08.address, op.sender, chain.digest(op))
        elsewhere = Leaf(10, V08.address, op.sender, keccak(b"on another chain"))
        together = OperationSet((leaf, elsewhere))
        return op.replace(signature=together.signature(0, OWNER.sign_hash(together.digest())))

    assert await chain.traced(b.ecdsa_owner(OWNER.address), (), nonce_key(bytes(20), LANE_ROOT), sign, first=first)


@TWICE
async def test_a_contract_owner_that_reads_nothing_of_its_own(chain: Chain, first: bool) -> None:
    async def sign(op: UserOperation) -> UserOperation:
        return op.replace(signature=b"\x01" * 65)

    contract = await chain.put(AGREES)
    assert contract in await chain.traced(contract_owner(contract), (), OWNED, sign, first=first)


async def test_a_contract_owner_that_reads_its_own_storage_is_refused_by_name(chain: Chain) -> None:
    """Its storage is not associated with the account: such owners need a bundler without safe mode, or a stake."""

    async def sign(op: UserOperation) -> UserOperation:
        return op.replace(signature=b"\x01" * 65)

    owner = contract_owner(await chain.put(f"0 SLOAD POP {AGREES}"))
    with pytest.raises(RuleBroken) as broken:
        await chain.traced(owner, (), OWNED, sign, first=False)
    assert broken.value.rule is not None
    assert broken.value.rule.startswith("STO-")


@TWICE
@pytest.mark.parametrize("owned_by", ["ecdsa", *KINDS])
async def test_risk_validator_with_an_owner_of_every_kind_and_an_engine(
    chain: Chain, owned_by: str, first: bool
) -> None:
    validator = chain.net.addresses.risk_validator
    owner = b.ecdsa_owner(OWNER.address) if owned_by == "ecdsa" else KINDS[owned_by][0](chain.verifiers)
    quorum = SignerQuorum(keccak(b"desk"), 1, (KEY.address,))
    init = b.risk_validator_init((ENGINE.address,), 1, 86_400, POLICY, quorums=[quorum])

    async def sign(op: UserOperation) -> UserOperation:
        digest = chain.digest(op)
        fields = (digest, intent_hash(op), POLICY, 1, keccak(b"facts"), 1, 0, 2**47 - 1)
        attestation = Attestation(op.sender, V08.address, *fields)
        packed = attestation.encode(ENGINE.address, ENGINE.sign_hash(attestation.digest(chain.net.chain_id, validator)))
        by_owner = OWNER.sign_hash(digest) if owned_by == "ecdsa" else KINDS[owned_by][1](chain.verifiers, digest)
        return op.replace(signature=encode_attested_envelope(by_owner, [packed]))

    module = ModuleInit(b.MODULE_VALIDATOR, validator, init)
    key = nonce_key(validator, LANE_ATTESTED)
    assert validator in await chain.traced(owner, (module,), key, sign, first=first)


@TWICE
async def test_session_validator(chain: Chain, first: bool) -> None:
    validator, token = chain.net.addresses.session_validator, chain.net.addresses.usdc
    session = Session(KEY.address, 0, 2**47 - 1, token, b.TRANSFER.selector, WAD)
    module = ModuleInit(b.MODULE_VALIDATOR, validator, b.encode_sessions(session))

    async def sign(op: UserOperation) -> UserOperation:
        return op.replace(signature=encode_session_envelope(session.session_id, KEY.sign_hash(chain.digest(op))))

    key = nonce_key(validator, LANE_KEEPER)
    traced = await chain.traced(b.ecdsa_owner(OWNER.address), (module,), key, sign, first=first, target=token)
    assert validator in traced


BOUNDS = Bounds(
    rates=(Window(Span.ROLLING, 5, duration_s=3_600), Window(Span.DAY, 20)),
    allowances=(Window(Span.MONTH, 10**9, offset_minutes=60),),
    any_of=(((EQUAL, 0, (bytes(12) + TARGET,)), (ALLOWANCE, 1, (bytes(32),))),),
)


@pytest.mark.parametrize("uses", [0, 3], ids=["any number of uses", "three uses"])
@pytest.mark.parametrize("enabling", [False, True], ids=["enabled before", "enabled by its first operation"])
async def test_session_validator_with_bounds(chain: Chain, enabling: bool, uses: int) -> None:
    validator, token = chain.net.addresses.session_validator, chain.net.addresses.usdc
    encoded = BOUNDS.encode()
    session = Session(KEY.address, 0, 2**47 - 1, token, b.TRANSFER.selector, 3 * WAD, uses, keccak(encoded))
    times = BOUNDS.times(int((await chain.net.rpc.block())["timestamp"], 16), 600)

    async def sign(op: UserOperation) -> UserOperation:
        signature = KEY.sign_hash(chain.digest(op))
        if not enabling:
            return op.replace(signature=encode_bounded_envelope(session, times, encoded, signature))
        consent = approval_digest(validator, chain.net.chain_id, op.sender, 1, session)
        answer = await chain.net.rpc.eth_call(validator, APPROVAL_HASH.encode(op.sender, session.to_abi()))
        assert answer == consent
        envelope = encode_enabling_envelope(session, times, encoded, OWNER.sign_hash(consent), signature)
        return op.replace(signature=envelope)

    lane = nonce_key(validator, LANE_KEEPER, int.from_bytes(session.session_id[:3]) if uses else 0)
    module = ModuleInit(
        b.MODULE_VALIDATOR, validator, b"" if enabling else b.encode_sessions(session, bounds=[encoded])
    )
    traced = await chain.traced(b.ecdsa_owner(OWNER.address), (module,), lane, sign, first=False, target=token)
    assert validator in traced
