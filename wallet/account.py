"""The account as its owner's client sees it: address, nonce, drafts of operations, owner signature."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from contracts import bindings as b
from contracts.bindings import AccountConfig, Call, RiskState
from contracts.entrypoint import V07, EntryPoint
from contracts.entrypoint.base import GET_NONCE
from contracts.eoa import Eoa
from contracts.errors import BadInput
from contracts.rpc import RpcClient
from contracts.typed_data import digest, domain_separator, struct_hash
from contracts.types import Address, Hash32, Wei, checksum
from contracts.userop import LANE_ATTESTED, LANE_OWNER, UserOperation, nonce_key
from policies.attestation import DUMMY_ATTESTED_SIGNATURE

DUMMY_OWNER_SIGNATURE = bytes.fromhex("ff" * 31 + "f0" + "7a" * 32 + "1c")
"""65 bytes that cost what a real signature costs and recover to nobody's key."""


def signable_hash(entry_point: EntryPoint, user_op_hash: Hash32, account: Address, chain_id: int) -> Hash32:
    """What the owner signs: v0.8's hash is typed data already; v0.7's is wrapped in EIP-712 first."""
    if entry_point.version != V07.version:
        return user_op_hash
    struct = struct_hash("UserOperationHash(bytes32 userOpHash)", ["bytes32"], [user_op_hash])
    return digest(domain_separator("Seawall RiskAccount", "1", chain_id, account), struct)


@dataclass(frozen=True, slots=True)
class Birth:
    """How an account that may not exist yet comes to exist."""

    factory: Address
    config: AccountConfig
    user_salt: Hash32

    @property
    def factory_data(self) -> bytes:
        return b.CREATE_ACCOUNT.encode(self.config.to_abi(), self.user_salt)

    async def address(self, rpc: RpcClient) -> Address:
        """The counterfactual address, from the factory itself."""
        answer = await rpc.eth_call(self.factory, b.GET_ACCOUNT_ADDRESS.encode(self.config.to_abi(), self.user_salt))
        address: Address = b.GET_ACCOUNT_ADDRESS.decode(answer)[0]
        return address


@dataclass(frozen=True, slots=True)
class AccountClient:
    """One smart account. `birth` lets its first operation deploy it; without it the account must exist."""

    rpc: RpcClient
    entry_point: EntryPoint
    chain_id: int
    address: Address
    validator: Address | None = None
    """RiskValidator whose attested lane this account uses; None: the built-in owner path."""
    birth: Birth | None = None
    lane: int = 0
    """Which of the parallel lanes of attested operations: one that waits for other people's signatures stands in none that others use."""

    @property
    def key(self) -> int:
        """Nonce key of the owner's operations."""
        if self.validator is None:
            return nonce_key(bytes(20), LANE_OWNER)
        return nonce_key(self.validator, LANE_ATTESTED, self.lane)

    async def deployed(self) -> bool:
        return bool(await self.rpc.get_code(self.address))

    async def state(self) -> RiskState:
        """The risk state on chain; ACTIVE for an account that does not exist yet."""
        if not await self.deployed():
            return RiskState.ACTIVE
        return RiskState(b.RISK_STATE.decode(await self.rpc.eth_call(self.address, b.RISK_STATE.encode()))[0])

    async def next_nonce(self) -> int:
        """Key and sequence, as the entry point expects them next."""
        answer = await self.rpc.eth_call(self.entry_point.address, GET_NONCE.encode(self.address, self.key))
        nonce: int = GET_NONCE.decode(answer)[0]
        return nonce

    async def draft(self, calls: Sequence[Call], *, max_fee_wei: Wei, priority_fee_wei: Wei) -> UserOperation:
        """An operation that makes `calls`, with a stub signature of the right size and no gas limits yet.

        Raises BadInput for an empty list, or when the account neither exists nor can be created.
        """
        if not calls:
            raise BadInput("an operation needs at least one call")
        deployed = await self.deployed()
        if not deployed and self.birth is None:
            raise BadInput(
                f"there is no account at {checksum(self.address)} and its configuration is not known here; "
                "create it with `seawall account create`"
            )
        birth = None if deployed else self.birth
        return UserOperation(
            sender=self.address,
            nonce=await self.next_nonce(),
            call_data=b.encode_execute(calls),
            max_fee_per_gas=max_fee_wei,
            max_priority_fee_per_gas=priority_fee_wei,
            signature=DUMMY_OWNER_SIGNATURE if self.validator is None else DUMMY_ATTESTED_SIGNATURE,
            factory=birth.factory if birth else None,
            factory_data=birth.factory_data if birth else b"",
        )

    def user_op_hash(self, op: UserOperation) -> Hash32:
        return self.entry_point.user_op_hash(op, self.chain_id)

    def sign(self, op: UserOperation, owner: Eoa) -> bytes:
        """The owner's 65-byte signature over `op`."""
        return owner.sign_hash(signable_hash(self.entry_point, self.user_op_hash(op), self.address, self.chain_id))


async def suggest_fees(rpc: RpcClient, *, priority_fee_wei: Wei = 1_000_000) -> tuple[Wei, Wei]:
    """(max fee, priority fee) in wei per gas: twice the base fee plus the tip, so that it stays valid over rising blocks."""
    base_fee = int((await rpc.block())["baseFeePerGas"], 16)
    return 2 * base_fee + priority_fee_wei, priority_fee_wei
