"""An operation is dropped at its owner's word: a typed message, signed as the account verifies signatures.

    domain  {name: "Seawall bundler", version: "1", chainId, verifyingContract: entry point}
    DropUserOperation(bytes32 userOpHash,address sender,uint256 deadline)

The signature is the account's (ERC-1271), or that of the key whose address the account is (EIP-7702). `deadline` (unix s) bounds how long the
message can be used, at most `LONGEST_S` ahead. What is in a bundle that was sent can no longer be dropped.
"""

from __future__ import annotations

from eth_keys.datatypes import Signature
from eth_keys.exceptions import BadSignature
from eth_utils.exceptions import ValidationError

from bundler.mempool import Entry
from contracts.bindings import IS_VALID_SIGNATURE
from contracts.errors import InvalidFields, RpcError
from contracts.rpc import RpcClient
from contracts.typed_data import digest, domain_separator, struct_hash
from contracts.types import Address, Hash32, checksum, to_hex

LONGEST_S = 3_600
_MAGIC = "0x1626ba7e" + "00" * 28
_TYPE = "DropUserOperation(bytes32 userOpHash,address sender,uint256 deadline)"
_GAS = 2_000_000


def drop_digest(entry_point: Address, chain_id: int, op_hash: Hash32, sender: Address, deadline_s: int) -> Hash32:
    """What the owner signs."""
    domain = domain_separator("Seawall bundler", "1", chain_id, entry_point)
    return digest(domain, struct_hash(_TYPE, ["bytes32", "address", "uint256"], [op_hash, sender, deadline_s]))


async def check_owner(
    rpc: RpcClient, chain_id: int, entry: Entry, deadline_s: int, signature: bytes, now_s: float
) -> None:
    """Raises InvalidFields when the message is too old, too long, or not the account's; NodeError."""
    if deadline_s < now_s:
        raise InvalidFields(f"the deadline {deadline_s} is over")
    if deadline_s > now_s + LONGEST_S:
        raise InvalidFields(f"the deadline may be at most {LONGEST_S} s ahead")
    sender = entry.op.sender
    wanted = drop_digest(entry.entry_point.address, chain_id, entry.hash, sender, deadline_s)
    if _recovered(wanted, signature) == sender:
        return
    if not await rpc.get_code(sender):
        raise InvalidFields(
            f"{checksum(sender)} is not deployed: it cannot verify a signature; wait, or replace the operation"
        )
    try:
        call = {"to": to_hex(sender), "data": to_hex(IS_VALID_SIGNATURE.encode(wanted, signature)), "gas": hex(_GAS)}
        answer = str(await rpc.call("eth_call", call, "latest"))
    except RpcError:
        answer = "0x"
    if answer != _MAGIC:
        raise InvalidFields(f"{checksum(sender)} does not accept the signature (ERC-1271)")


def _recovered(wanted: Hash32, signature: bytes) -> Address | None:
    if len(signature) != 65 or signature[64] not in (27, 28):
        return None
    try:
        key = Signature(signature[:64] + bytes([signature[64] - 27])).recover_public_key_from_msg_hash(wanted)
    except (BadSignature, ValidationError, ValueError):
        return None
    address: Address = key.to_canonical_address()
    return address
