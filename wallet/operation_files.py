"""Operations that their owner signs elsewhere or together: written to a file, signed by each signer, put together and sent.

Nothing in the file is believed: the hash that is signed is computed from the operation, and a signature is checked before it is kept.
Under a policy the operation is judged when it is drafted and once more when it is sent; only then the engine attests it.
"""

from __future__ import annotations

import json
import secrets
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from contracts import bindings as b
from contracts.bindings import Call
from contracts.entrypoint import by_address
from contracts.errors import BadInput, InvalidFields, PolicyRefused, SetupError
from contracts.owners import multisig_signature
from contracts.types import Hash32, checksum, parse_address, parse_bytes, to_hex
from contracts.userop import UserOperation
from policies.attestation import dummy_attested_signature, encode_attested_envelope
from wallet import owner_kinds
from wallet.account import AccountClient, signable_hash
from wallet.proposals import write_json
from wallet.sign import Judgement, Sent, Signer

FORMAT = 1
FEE_ROOM = 3
"""Others sign later: the highest fee is this many times what an operation of now would offer."""


@dataclass(frozen=True, slots=True)
class OperationFile:
    """An operation without signature, its owner, and what the owner's signers have given so far (by their owner bytes)."""

    chain_id: int
    entry_point: bytes
    op: UserOperation
    owner: bytes
    note: str
    given: Mapping[bytes, bytes]

    @property
    def digest(self) -> Hash32:
        """What each signer signs."""
        entry_point = by_address(self.entry_point)
        return signable_hash(
            entry_point, entry_point.user_op_hash(self.op, self.chain_id), self.op.sender, self.chain_id
        )

    def with_signature(self, signer: bytes, signature: bytes) -> OperationFile:
        """Raises BadInput for a signer without a seat, or a signature that is not of this operation."""
        if signer not in {seat.owner for seat in owner_kinds.seats(self.owner)[1]}:
            raise BadInput("this signer is not an owner of the account: see `seawall operation show`")
        owner_kinds.check(signer, self.digest, signature)
        return replace(self, given={**self.given, signer: signature})

    @property
    def weight(self) -> int:
        """What has signed already."""
        return sum(seat.weight for seat in owner_kinds.seats(self.owner)[1] if seat.owner in self.given)

    def signature(self) -> bytes:
        """The owner's, out of what was given. Raises BadInput while too little is, naming who can still sign."""
        if owner_kinds.kind_of(self.owner) == "multisig":
            return multisig_signature(self.owner, self.given)
        if self.owner not in self.given:
            raise BadInput("the owner has not signed yet: `seawall operation sign`")
        return self.given[self.owner]

    def to_json(self) -> dict[str, Any]:
        return {
            "seawallOperation": FORMAT,
            "chainId": self.chain_id,
            "entryPoint": checksum(self.entry_point),
            "note": self.note,
            "owner": to_hex(self.owner),
            "userOp": self.op.replace(signature=b"").to_rpc(),
            "hash": to_hex(self.digest),
            "signatures": {to_hex(signer): to_hex(signature) for signer, signature in sorted(self.given.items())},
        }

    @classmethod
    def from_json(cls, fields: object) -> OperationFile:
        """Raises BadInput for anything else than what `to_json` wrote, and for a signature that is not of it."""
        if not isinstance(fields, Mapping) or fields.get("seawallOperation") != FORMAT:
            raise BadInput(f"this is no operation file of this version ({FORMAT}) of Seawall")
        try:
            found = cls(
                chain_id=int(fields["chainId"]),
                entry_point=parse_address(fields["entryPoint"], "entryPoint"),
                op=UserOperation.from_rpc(fields["userOp"]),
                owner=parse_bytes(fields["owner"], "owner"),
                note=str(fields["note"])[:1000],
                given={},
            )
            if fields["hash"] != to_hex(found.digest):
                raise BadInput("the operation was changed after it was drafted: its hash is another")
            for signer, signature in dict(fields["signatures"]).items():
                found = found.with_signature(parse_bytes(signer, "signer"), parse_bytes(signature, "signature"))
            return found
        except KeyError as error:
            raise BadInput(f"the operation file lacks {error}") from None
        except (InvalidFields, TypeError, ValueError) as error:
            raise BadInput(f"the operation file is damaged: {error}") from None


def read_operation(path: Path) -> OperationFile:
    """Raises SetupError if the file cannot be read, BadInput if it is none."""
    try:
        return OperationFile.from_json(json.loads(path.read_text(encoding="utf-8")))
    except OSError as error:
        raise SetupError(f"the operation {path} cannot be read: {error.strerror}") from None
    except (json.JSONDecodeError, UnicodeDecodeError, RecursionError):
        raise BadInput(f"{path} is no operation: it is not JSON") from None


def write_operation(path: Path, operation: OperationFile) -> None:
    """Replace the file whole, or not at all. Raises SetupError."""
    write_json(path, operation.to_json(), "operation")


async def owner_of(account: AccountClient) -> bytes:
    """The owner on chain, or the one the account is born with. Raises BadInput when neither is known."""
    if await account.deployed():
        owner: bytes = b.OWNER_SIGNER.decode(await account.rpc.eth_call(account.address, b.OWNER_SIGNER.encode()))[0]
        return owner
    if account.birth is None:
        raise BadInput(f"there is no account at {checksum(account.address)}")
    return account.birth.config.owner


async def draft(signer: Signer, calls: Sequence[Call], note: str) -> tuple[OperationFile, Judgement | None]:
    """An operation that makes `calls`, with gas for its owner's kind of signature. It is paid by the account.

    Under a policy it takes a lane of its own. Raises PolicyRefused, BadInput, NodeError, RpcError.
    """
    signer = replace(signer, paymaster=None)
    if signer.engine is not None:
        signer = replace(signer, account=replace(signer.account, lane=1 + secrets.randbelow(2**24 - 1)))
    owner = await owner_of(signer.account)
    cost = owner_kinds.cost_of(owner)
    judgement = None if signer.engine is None else await signer.judge(calls)
    op = await signer.draft(calls) if judgement is None else judgement.op
    stub = b"\xff" * cost.size
    if judgement is not None:
        _require(judgement)
        assert signer.engine is not None
        stub = dummy_attested_signature(signer.engine.policy.attestation_threshold, stub)
    op = await signer.bundler.estimate(op.replace(signature=stub, max_fee_per_gas=FEE_ROOM * op.max_fee_per_gas))
    op = op.replace(verification_gas_limit=op.verification_gas_limit + cost.gas)
    if judgement is not None:
        op = op.replace(call_gas_limit=max(op.call_gas_limit, judgement.simulated_gas * 3 // 2))
    account = signer.account
    made = OperationFile(account.chain_id, account.entry_point.address, op.replace(signature=b""), owner, note, {})
    return made, judgement


def _require(judgement: Judgement) -> None:
    if not judgement.decision.allowed:
        raise PolicyRefused(judgement.decision.summary, data=judgement.decision.to_json())


async def send(signer: Signer, operation: OperationFile) -> Sent:
    """Put the signatures together, have the operation judged and attested where a policy wants it, and send it.

    Raises BadInput while signatures are missing or for another account or owner, PolicyRefused, RpcError with the bundler's reason.
    """
    account, op = signer.account, operation.op
    if (op.sender, operation.chain_id, operation.entry_point) != (
        account.address,
        account.chain_id,
        account.entry_point.address,
    ):
        raise BadInput("the operation is of another account, chain or entry point than the profile's")
    if await owner_of(account) != operation.owner:
        raise BadInput("the account has another owner by now: draft the operation anew")
    signature, decision = operation.signature(), None
    if signer.engine is not None:
        judgement = await signer.judge_operation(op, sponsored=False, sizes=False)
        _require(judgement)
        decision = judgement.decision
        others = await signer.others(op)
        own = signer.engine.attest(
            decision,
            op,
            entry_point=operation.entry_point,
            signable_hash=operation.digest,
            epoch=judgement.facts.policy_epoch,
            now_s=judgement.now_s,
            facts=judgement.facts,
        )
        signature = encode_attested_envelope(signature, [own, *others])
    op = op.replace(signature=signature)
    return Sent(await signer.bundler.send(op), op, decision)
