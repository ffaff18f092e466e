"""The policy engine's approval of an intent, as it arrives in ERC-7677's `context`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Self

from eth_keys.datatypes import Signature
from eth_keys.exceptions import BadSignature
from eth_utils.exceptions import ValidationError

from contracts.errors import InvalidFields, SponsorRefused
from contracts.typed_data import digest, domain_separator, struct_hash
from contracts.types import Address, Hash32, parse_address, parse_bytes, parse_hash, parse_quantity, to_hex

_TYPE = (
    "IntentApproval(address account,bytes32 intentHash,bytes32 policyId,uint64 policyEpoch,bytes32 factsHash,"
    "uint8 decision,uint48 validUntil)"
)


def _integer(fields: Mapping[str, Any], name: str, bits: int) -> int:
    """A JSON integer or a `0x` quantity below 2^`bits`. Raises InvalidFields."""
    value = fields.get(name)
    if isinstance(value, int) and not isinstance(value, bool):
        if not 0 <= value < 1 << bits:
            raise InvalidFields(f"approval.{name} must be between 0 and 2^{bits}, got {value:.40g}")
        return value
    return parse_quantity(value, f"approval.{name}", bits=bits)


@dataclass(frozen=True, slots=True)
class Approval:
    """What an engine said about an intent. `valid_until_s` in unix seconds; `signature` is r || s || v over `digest`."""

    engine: Address
    intent_hash: Hash32
    policy_id: Hash32
    policy_epoch: int
    facts_hash: Hash32
    decision: int
    valid_until_s: int
    signature: bytes

    @classmethod
    def from_context(cls, context: object) -> Self:
        """Read `context.approval`. Raises SponsorRefused when there is none, InvalidFields when a field is malformed."""
        approval = context.get("approval") if isinstance(context, Mapping) else None
        if approval is None:
            raise SponsorRefused(
                "context.approval is missing: have the policy engine approve the intent first", rule="no-approval"
            )
        if not isinstance(approval, Mapping):
            raise InvalidFields(f"context.approval must be a JSON object, got {type(approval).__name__}")
        return cls(
            engine=parse_address(approval.get("engine"), "approval.engine"),
            intent_hash=parse_hash(approval.get("intentHash"), "approval.intentHash"),
            policy_id=parse_hash(approval.get("policyId"), "approval.policyId"),
            policy_epoch=_integer(approval, "policyEpoch", 64),
            facts_hash=parse_hash(approval.get("factsHash"), "approval.factsHash"),
            decision=_integer(approval, "decision", 8),
            valid_until_s=_integer(approval, "validUntil", 48),
            signature=parse_bytes(approval.get("signature"), "approval.signature"),
        )

    def to_rpc(self) -> dict[str, Any]:
        """The JSON form that `from_context` reads."""
        return {
            "engine": to_hex(self.engine),
            "intentHash": to_hex(self.intent_hash),
            "policyId": to_hex(self.policy_id),
            "policyEpoch": self.policy_epoch,
            "factsHash": to_hex(self.facts_hash),
            "decision": self.decision,
            "validUntil": self.valid_until_s,
            "signature": to_hex(self.signature),
        }

    def digest(self, account: Address, chain_id: int, risk_validator: Address) -> Hash32:
        """What the engine signs: EIP-712 IntentApproval under the domain "Seawall Engine"."""
        struct = struct_hash(
            _TYPE,
            ["address", "bytes32", "bytes32", "uint64", "bytes32", "uint8", "uint48"],
            [
                account,
                self.intent_hash,
                self.policy_id,
                self.policy_epoch,
                self.facts_hash,
                self.decision,
                self.valid_until_s,
            ],
        )
        return digest(domain_separator("Seawall Engine", "1", chain_id, risk_validator), struct)

    def recover(self, account: Address, chain_id: int, risk_validator: Address) -> Address | None:
        """Who signed it; None when the signature is malformed or high-s."""
        if len(self.signature) != 65 or self.signature[64] not in (27, 28):
            return None
        try:
            signature = Signature(self.signature[:64] + bytes([self.signature[64] - 27]))
            if signature.s > _HALF_ORDER:
                return None
            key = signature.recover_public_key_from_msg_hash(self.digest(account, chain_id, risk_validator))
        except (BadSignature, ValidationError):
            return None
        return key.to_canonical_address()


_HALF_ORDER = 0x7FFFFFFFFFFFFFFFFFFFFFFFFFFFFFFF5D576E7357A4501DDFE92F46681B20A0
