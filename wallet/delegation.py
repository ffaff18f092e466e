"""EIP-7702: an existing EOA becomes a risk account in place, and leaves again.

Joining is one operation: the EOA's authorisation to run the account's code travels beside it, and its call takes the configuration. Both
are signed by the EOA's own key, and nobody else's call is heard before, so there is nothing to front-run. Leaving is two transactions of
the EOA: one to itself that removes every module, and one that takes the authorisation back.

**What an EIP-7702 account cannot promise:** its own key stays an EOA's key. It can send transactions past every guard, policy and freeze, and
it can delegate elsewhere at any time. The guards bind whoever else acts for the account: session keys, keepers, other owners.
"""

from __future__ import annotations

from dataclasses import dataclass

from contracts import bindings as b
from contracts.bindings import AccountConfig
from contracts.eip7702 import MARKER, Authorization, delegate_of
from contracts.entrypoint import V07
from contracts.entrypoint.base import GET_NONCE
from contracts.eoa import Eoa, TransactionSender
from contracts.errors import BadInput
from contracts.rpc import RpcClient
from contracts.types import Address, Hash32, checksum, parse_hash, to_hex
from contracts.userop import LANE_OWNER, UserOperation, nonce_key
from wallet.account import DUMMY_OWNER_SIGNATURE, AccountClient, suggest_fees
from wallet.services import BundlerClient, OperationReceipt

ADVISORY = (
    "its own key can still act as an EOA, past every guard, policy and freeze of this account: they bind everyone but that key. "
    "Keep that key offline, or move the funds to an account created with `seawall account create`"
)
"""What every output about an EIP-7702 account must say."""

STATE_WORD_SLOT = "0x2b49b75317ffc1021ca7da4ca3423bf8403e18b223e63e6bc7abe8f39a5ed700"
_NOBODY = bytes(20)


@dataclass(frozen=True, slots=True)
class Departure:
    """The two transactions of a leave."""

    cleared: Hash32
    undelegated: Hash32


def authorize(eoa: Eoa, delegate: Address, chain_id: int, nonce: int) -> Authorization:
    """`eoa` lets the code of `delegate` run in its place on one chain; the zero address takes that back.

    `nonce` is the EOA's transaction nonce when the authorisation is applied: one more than its next when it sends that transaction itself.
    """
    blank = Authorization(chain_id, delegate, nonce, 0, 0, 0)
    signature = eoa.sign_hash(blank.digest())
    r, s = (int.from_bytes(signature[at : at + 32]) for at in (0, 32))
    return Authorization(chain_id, delegate, nonce, signature[64] - 27, r, s)


async def implementation_of(rpc: RpcClient, factory: Address) -> Address:
    """The account's code, as the factory names it."""
    found: Address = b.IMPLEMENTATION.decode(await rpc.eth_call(factory, b.IMPLEMENTATION.encode()))[0]
    return found


async def join(
    account: AccountClient, eoa: Eoa, implementation: Address, config: AccountConfig, bundler: BundlerClient
) -> OperationReceipt:
    """Make the EOA a risk account with `config`, through the bundler, and wait for the block.

    The EOA pays its gas from its balance or its deposit at the entry point. Raises BadInput when it is a contract, has joined already,
    delegates to something else, or when the entry point knows no EIP-7702; RpcError with the bundler's reason.
    """
    if account.entry_point.version == V07.version:
        raise BadInput("entry point v0.7 knows no EIP-7702 account; use v0.8")
    rpc, code = account.rpc, await account.rpc.get_code(eoa.address)
    present = delegate_of(code)
    if code and present is None:
        raise BadInput(f"{checksum(eoa.address)} is a contract, not an EOA")
    if present is not None and present != implementation:
        raise BadInput(
            f"{checksum(eoa.address)} delegates to {checksum(present)}: leave that first, its storage may still hold modules"
        )
    if present is not None and await joined(rpc, eoa.address):
        raise BadInput(f"{checksum(eoa.address)} has joined already; `seawall account show` says what it is")
    authorization = None
    if present is None:
        authorization = authorize(eoa, implementation, account.chain_id, await rpc.get_nonce(eoa.address))
    max_fee, priority_fee = await suggest_fees(rpc)
    answer = await rpc.eth_call(
        account.entry_point.address, GET_NONCE.encode(eoa.address, nonce_key(_NOBODY, LANE_OWNER))
    )
    op = UserOperation(
        sender=eoa.address,
        nonce=GET_NONCE.decode(answer)[0],
        call_data=b.INITIALIZE.encode(config.to_abi()),
        max_fee_per_gas=max_fee,
        max_priority_fee_per_gas=priority_fee,
        signature=DUMMY_OWNER_SIGNATURE,
        factory=MARKER if authorization else None,
    )
    op = await bundler.estimate(op, authorization)
    digest = account.entry_point.user_op_hash(op, account.chain_id, implementation)
    op = op.replace(signature=eoa.sign_hash(digest))
    return await bundler.wait(await bundler.send(op, authorization))


async def joined(rpc: RpcClient, address: Address) -> bool:
    """Whether a delegated account has taken a configuration (flag JOINED of the state word, AccountStorage)."""
    word = int(await rpc.call("eth_getStorageAt", to_hex(address), STATE_WORD_SLOT, "latest"), 16)
    return bool(word >> 240 & 2)


async def leave(
    rpc: RpcClient, eoa: Eoa, implementation: Address, chain_id: int, selectors: tuple[bytes, ...] = ()
) -> Departure:
    """Remove every module and setting of the EOA's account, then take the delegation back. `selectors`: of all fallback handlers.

    Two transactions of the EOA, which pays them. Neither asks guards, policy or state: this is the root key. Raises BadInput when the
    EOA does not delegate to our account's code, OperationFailed with the node's reason.
    """
    present = delegate_of(await rpc.get_code(eoa.address))
    if present != implementation:
        raise BadInput(
            f"{checksum(eoa.address)} is no EIP-7702 risk account of this deployment"
            + (f": it delegates to {checksum(present)}" if present else "")
        )
    sender = TransactionSender(rpc, eoa, chain_id)
    receipt = await sender.transact(eoa.address, b.LEAVE.encode(list(selectors)))
    cleared = parse_hash(receipt["transactionHash"])
    nonce = await rpc.get_nonce(eoa.address)
    receipt = await sender.delegate(authorize(eoa, _NOBODY, chain_id, nonce + 1))
    return Departure(cleared, parse_hash(receipt["transactionHash"]))
