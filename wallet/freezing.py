"""What guardians do: stop an account at once, and let it go again by quorum and delay."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from contracts import bindings as b
from contracts.bindings import RiskState
from contracts.eoa import Eoa, TransactionSender
from contracts.errors import BadInput
from contracts.rpc import RpcClient
from contracts.types import Address, Hash32, checksum, parse_hash


@dataclass(frozen=True, slots=True)
class FreezeStatus:
    """An account's state and what is under way. Times in unix seconds, 0 = none."""

    state: RiskState
    epoch: int
    nonce: int
    thaw_at_s: int
    thaw_to: RiskState
    escape_at_s: int
    solo_until_s: int
    quorum: int
    guardians: int


async def status(rpc: RpcClient, module: Address, account: Address) -> FreezeStatus:
    """Read it. Raises BadInput when the account has no EmergencyFreeze."""
    state, epoch = b.STATE_OF.decode(await rpc.eth_call(module, b.STATE_OF.encode(account)))
    nonce = b.FREEZE_NONCE.decode(await rpc.eth_call(module, b.FREEZE_NONCE.encode(account)))[0]
    thaw_at, thaw_to, escape_at, solo_until = b.PENDING_OF.decode(
        await rpc.eth_call(module, b.PENDING_OF.encode(account))
    )
    quorum, guardians = b.QUORUM_OF.decode(await rpc.eth_call(module, b.QUORUM_OF.encode(account)))
    if not guardians:
        raise BadInput(
            f"{checksum(account)} has no EmergencyFreeze at {checksum(module)}; was it created with a policy that has a freeze section?"
        )
    return FreezeStatus(
        RiskState(state), epoch, nonce, thaw_at, RiskState(thaw_to), escape_at, solo_until, quorum, guardians
    )


async def freeze(sender: TransactionSender, module: Address, account: Address, state: RiskState) -> Hash32:
    """One guardian's freeze, as a plain transaction: it needs no bundler, no paymaster and no owner. Returns its hash.

    Raises BadInput when the sender is no guardian or the state would not get stricter, RpcError, OperationFailed.
    """
    guardian = sender.eoa.address
    answer = await sender.rpc.eth_call(module, b.IS_GUARDIAN.encode(account, guardian))
    if not b.IS_GUARDIAN.decode(answer)[0]:
        raise BadInput(f"{checksum(guardian)} is no guardian of {checksum(account)}")
    now = await status(sender.rpc, module, account)
    if state <= now.state:
        raise BadInput(f"the account is {now.state.name} already; a freeze can only make it stricter")
    receipt = await sender.transact(module, b.FREEZE.encode(account, int(state)))
    return parse_hash(receipt["transactionHash"])


async def expire(sender: TransactionSender, module: Address, account: Address) -> Hash32:
    """End a solo freeze whose time is over; anyone may. Raises RpcError with the module's reason when it is too early."""
    receipt = await sender.transact(module, b.EXPIRE.encode(account))
    return parse_hash(receipt["transactionHash"])


def sign_thaw(
    guardian: Eoa, module: Address, chain_id: int, account: Address, to: RiskState, now: FreezeStatus, expiry_s: int
) -> bytes:
    """One guardian's signature for a thaw to `to`, valid for the present epoch and nonce until `expiry_s`."""
    return guardian.sign_hash(b.thaw_digest(module, chain_id, account, to, now.epoch, now.nonce, expiry_s))


async def request_thaw(
    sender: TransactionSender,
    module: Address,
    account: Address,
    to: RiskState,
    expiry_s: int,
    signatures: Sequence[tuple[Address, bytes]],
) -> Hash32:
    """Hand in the quorum's signatures; the delay begins. Anyone may. Raises RpcError with the module's reason."""
    ordered = sorted(signatures)
    data = b.REQUEST_THAW.encode(account, int(to), expiry_s, [s for s, _ in ordered], [sig for _, sig in ordered])
    receipt = await sender.transact(module, data)
    return parse_hash(receipt["transactionHash"])


async def thaw(sender: TransactionSender, module: Address, account: Address) -> Hash32:
    """Carry out a thaw whose delay is over. Anyone may. Raises RpcError with the module's reason when it is too early."""
    receipt = await sender.transact(module, b.THAW.encode(account))
    return parse_hash(receipt["transactionHash"])
