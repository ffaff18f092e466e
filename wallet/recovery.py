"""What guardians, an heir and the owner do when the owner's key is lost: propose a new owner, stop it, or carry it out."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol

from contracts import bindings as b
from contracts.bindings import RecoveryMessage
from contracts.eoa import TransactionSender
from contracts.errors import BadInput
from contracts.owners import KIND_ERC7913, multisig_signature
from contracts.rpc import RpcClient
from contracts.types import Address, Hash32, checksum, parse_hash, to_hex

_P256_OWNER_BYTES = 21 + 64
"""Kind, verifier and point; no multisig is of that length."""


@dataclass(frozen=True, slots=True)
class RecoveryStatus:
    """Who may recover an account, and what is under way. Owners in the encoding of `contracts.owners`, times in unix seconds, 0 = none."""

    guardians: bytes
    heir: bytes
    delay_s: int
    silence_s: int
    nonce: int
    new_owner: bytes
    executable_at_s: int
    by_heir: bool
    seen_at_s: int
    moved_since: bool

    @property
    def heir_may_claim_at_s(self) -> int:
        """If no sign of life comes until then; 0 without an heir. Counted anew while `moved_since`."""
        return self.seen_at_s + self.silence_s if self.heir else 0


async def status(rpc: RpcClient, module: Address, account: Address) -> RecoveryStatus:
    """Read it. Raises BadInput when the account has no Recovery."""
    installed, settings = b.RECOVERY_SETTINGS_OF.decode(
        await rpc.eth_call(module, b.RECOVERY_SETTINGS_OF.encode(account))
    )
    if not installed:
        raise BadInput(
            f"{checksum(account)} has no Recovery at {checksum(module)}; does its policy have a guards.recovery section?"
        )
    nonce = b.RECOVERY_NONCE.decode(await rpc.eth_call(module, b.RECOVERY_NONCE.encode(account)))[0]
    pending = b.RECOVERY_PENDING_OF.decode(await rpc.eth_call(module, b.RECOVERY_PENDING_OF.encode(account)))
    seen = b.RECOVERY_SEEN_OF.decode(await rpc.eth_call(module, b.RECOVERY_SEEN_OF.encode(account)))
    guardians, heir, delay_s, silence_s, *_ = settings
    new_owner, executable_at_s, by_heir = pending
    seen_at_s, moved_since = seen
    return RecoveryStatus(
        guardians, heir, delay_s, silence_s, nonce, new_owner, executable_at_s, by_heir, seen_at_s, moved_since
    )


class Party(Protocol):
    """Whoever signs: a key of the keystore (`Eoa`), or a P-256 key (`wallet.passkeys.P256Key`)."""

    def sign_hash(self, digest: Hash32) -> bytes: ...


def sign(
    party: Party,
    message: RecoveryMessage,
    module: Address,
    chain_id: int,
    account: Address,
    now: RecoveryStatus,
    expiry_s: int,
    new_owner: bytes = b"",
) -> bytes:
    """One party's signature, valid for the present nonce until `expiry_s`."""
    return party.sign_hash(b.recovery_digest(message, module, chain_id, account, new_owner, now.nonce, expiry_s))


def together(
    message: RecoveryMessage, now: RecoveryStatus, given: Mapping[bytes, bytes], owner: bytes | None = None
) -> bytes:
    """The signature of all who must sign a message, out of theirs, by address or owner bytes. `owner`: who owns the account now, and so
    cancels; None: a single key.

    Raises BadInput while some are missing, naming them, or for a party that has no say.
    """
    signatures = {b.ecdsa_owner(who) if len(who) == 20 else who: one for who, one in given.items()}
    who = now.guardians
    if message is RecoveryMessage.CANCEL:
        if owner is None:
            return _only(signatures, "the owner cancels alone")
        who = owner
    elif message is RecoveryMessage.CLAIM:
        who = now.heir
    if not who:
        raise BadInput("this account has no heir: only its guardians can propose a new owner")
    if who[0] == KIND_ERC7913 and len(who) != _P256_OWNER_BYTES:
        return multisig_signature(who, signatures)
    return _only(signatures, f"{to_hex(who[1:]) if len(who) > 21 else checksum(who[1:])} signs alone")


def _only(given: Mapping[bytes, bytes], why: str) -> bytes:
    if len(given) != 1:
        raise BadInput(f"{why}: hand in one signature, not {len(given)}")
    return next(iter(given.values()))


async def hand_in(
    sender: TransactionSender,
    message: RecoveryMessage,
    module: Address,
    account: Address,
    expiry_s: int,
    signature: bytes,
    new_owner: bytes = b"",
) -> Hash32:
    """Relay a signed message; anyone may. Raises RpcError with the module's reason."""
    if message.names_owner:
        function = b.RECOVERY_PROPOSE if message is RecoveryMessage.PROPOSE else b.RECOVERY_CLAIM
        data = function.encode(account, new_owner, expiry_s, signature)
    else:
        function = b.RECOVERY_CANCEL_BY_SIG if message is RecoveryMessage.CANCEL else b.RECOVERY_WITHDRAW
        data = function.encode(account, expiry_s, signature)
    receipt = await sender.transact(module, data)
    return parse_hash(receipt["transactionHash"])


async def finish(sender: TransactionSender, module: Address, account: Address) -> Hash32:
    """Change the owner once the delay is over. Anyone may. Raises RpcError with the module's reason when it is too early."""
    receipt = await sender.transact(module, b.RECOVERY_EXECUTE.encode(account))
    return parse_hash(receipt["transactionHash"])


async def witness(sender: TransactionSender, module: Address, account: Address) -> Hash32:
    """Record that the owner made operations since the last record; the silence begins anew. Anyone may."""
    receipt = await sender.transact(module, b.RECOVERY_WITNESS.encode(account))
    return parse_hash(receipt["transactionHash"])
