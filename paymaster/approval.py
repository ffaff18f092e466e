"""The policy engine's approval of an intent, as it travels in ERC-7677's `context`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Self

from contracts.errors import InvalidFields, SponsorRefused
from contracts.types import Address, parse_address, parse_bytes, parse_hash, parse_quantity, to_hex
from policies.attestation import IntentApproval, recover_signer


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
    """What an engine said about an intent, and its signature (r || s || v) over it."""

    engine: Address
    said: IntentApproval
    signature: bytes

    @classmethod
    def from_context(cls, context: object, account: Address) -> Self:
        """Read `context.approval` of an operation of `account`.

        Raises SponsorRefused when there is none, InvalidFields when a field is malformed.
        """
        approval = context.get("approval") if isinstance(context, Mapping) else None
        if approval is None:
            raise SponsorRefused(
                "context.approval is missing: have the policy engine approve the intent first", rule="no-approval"
            )
        if not isinstance(approval, Mapping):
            raise InvalidFields(f"context.approval must be a JSON object, got {type(approval).__name__}")
        return cls(
            engine=parse_address(approval.get("engine"), "approval.engine"),
            said=IntentApproval(
                account=account,
                intent_hash=parse_hash(approval.get("intentHash"), "approval.intentHash"),
                policy_id=parse_hash(approval.get("policyId"), "approval.policyId"),
                policy_epoch=_integer(approval, "policyEpoch", 64),
                facts_hash=parse_hash(approval.get("factsHash"), "approval.factsHash"),
                decision=_integer(approval, "decision", 8),
                valid_until_s=_integer(approval, "validUntil", 48),
            ),
            signature=parse_bytes(approval.get("signature"), "approval.signature"),
        )

    def to_rpc(self) -> dict[str, Any]:
        """The JSON form that `from_context` reads; the account is the operation's sender and not repeated."""
        return {
            "engine": to_hex(self.engine),
            "intentHash": to_hex(self.said.intent_hash),
            "policyId": to_hex(self.said.policy_id),
            "policyEpoch": self.said.policy_epoch,
            "factsHash": to_hex(self.said.facts_hash),
            "decision": self.said.decision,
            "validUntil": self.said.valid_until_s,
            "signature": to_hex(self.signature),
        }

    def is_genuine(self, chain_id: int, risk_validator: Address) -> bool:
        """Whether the named engine signed it, for this chain and validator."""
        return recover_signer(self.said.digest(chain_id, risk_validator), self.signature) == self.engine
