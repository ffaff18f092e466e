"""UserOperation, as entry points v0.7 and later know it.

The unpacked form of ERC-7769 is the type; the packed form of the entry point is derived from it.   Source: ERC-4337, ERC-7769.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, Self

from contracts import abi
from contracts.eip7702 import MARKER as EIP7702_MARKER
from contracts.eip7702 import Authorization
from contracts.errors import InvalidFields
from contracts.types import Address, Hash32, Wei, keccak, parse_address, parse_bytes, parse_quantity, to_hex

LANE_OWNER, LANE_ATTESTED, LANE_KEEPER, LANE_ESCAPE, LANE_ROOT = range(5)
"""First byte of the 4-byte lane in a nonce key. Source: contracts/src/interfaces/IRiskValidator.sol."""

_INTENT_TYPE = keccak(
    b"Intent(address account,uint256 nonce,bytes32 initCodeHash,bytes32 callDataHash,bytes32 accountGasLimits,"
    b"uint256 preVerificationGas,bytes32 gasFees)"
)
_REQUIRED = (
    "sender",
    "nonce",
    "callData",
    "callGasLimit",
    "verificationGasLimit",
    "preVerificationGas",
    "maxFeePerGas",
    "maxPriorityFeePerGas",
    "signature",
)
_OPTIONAL = (
    "factory",
    "factoryData",
    "paymaster",
    "paymasterVerificationGasLimit",
    "paymasterPostOpGasLimit",
    "paymasterData",
    "paymasterSignature",
)
PAYMASTER_SIGNATURE_MAGIC = bytes.fromhex("22e325a297439656")
"""Ends paymasterAndData when a paymaster's signature, with its length in two bytes, stands before it: the first eight bytes of
keccak256("PaymasterSignature"). Source: EntryPoint v0.9, UserOperationLib."""
# Gas limits are held in 128 bits on chain; amounts near that overflow nothing here, Python's integers are exact.
_GAS_BITS = 128


@dataclass(frozen=True, slots=True)
class UserOperation:
    """One operation of an account. Gas limits in gas, fees in wei per gas."""

    sender: Address
    nonce: int
    call_data: bytes
    call_gas_limit: int = 0
    verification_gas_limit: int = 0
    pre_verification_gas: int = 0
    max_fee_per_gas: Wei = 0
    max_priority_fee_per_gas: Wei = 0
    signature: bytes = b""
    factory: Address | None = None
    factory_data: bytes = b""
    paymaster: Address | None = None
    paymaster_verification_gas_limit: int = 0
    paymaster_post_op_gas_limit: int = 0
    paymaster_data: bytes = b""
    paymaster_signature: bytes = b""
    """Entry point v0.9 and later: not covered by the hash, so that account and paymaster can sign at the same time. At most 65,535 bytes."""

    @property
    def is_delegated(self) -> bool:
        """Whether the EIP-7702 marker stands in the factory's place (entry point v0.8 and later)."""
        return self.factory == EIP7702_MARKER

    @property
    def real_factory(self) -> Address | None:
        """The contract that deploys the sender; None also for the EIP-7702 marker."""
        return None if self.is_delegated else self.factory

    @property
    def init_code(self) -> bytes:
        """factory || factoryData, empty without a factory."""
        return b"" if self.factory is None else self.factory + self.factory_data

    @property
    def paymaster_and_data(self) -> bytes:
        """paymaster || verification gas (16) || postOp gas (16) || data [|| signature || its length (2) || magic], empty without a paymaster.

        Raises OverflowError if a gas limit has more than 128 bits or the signature more than 65,535 bytes.
        """
        if self.paymaster is None:
            return b""
        signature = self.paymaster_signature
        suffix = signature + len(signature).to_bytes(2) + PAYMASTER_SIGNATURE_MAGIC if signature else b""
        return self.paymaster + self.paymaster_gas_limits.to_bytes(32) + self.paymaster_data + suffix

    @property
    def account_gas_limits(self) -> bytes:
        """verificationGasLimit (16) || callGasLimit (16)."""
        return self.verification_gas_limit.to_bytes(16) + self.call_gas_limit.to_bytes(16)

    @property
    def gas_fees(self) -> bytes:
        """maxPriorityFeePerGas (16) || maxFeePerGas (16)."""
        return self.max_priority_fee_per_gas.to_bytes(16) + self.max_fee_per_gas.to_bytes(16)

    @property
    def paymaster_gas_limits(self) -> int:
        return self.paymaster_verification_gas_limit << 128 | self.paymaster_post_op_gas_limit

    @property
    def nonce_key(self) -> int:
        """The 192-bit key; the low 64 bits of `nonce` are the sequence."""
        return self.nonce >> 64

    def replace(self, **changes: Any) -> Self:
        """A copy with some fields changed."""
        return replace(self, **changes)

    @classmethod
    def from_rpc(cls, fields: object, *, partial: bool = False) -> Self:
        """Read ERC-7769's JSON form. `partial` (for estimates) forgives missing gas fields, fees and signature.

        Raises InvalidFields naming the field: missing, unknown, malformed, too large, or a paymaster or factory field without
        its paymaster or factory.
        """
        if not isinstance(fields, Mapping):
            raise InvalidFields(f"a UserOperation must be a JSON object, got {type(fields).__name__}")
        given = {key: value for key, value in fields.items() if value is not None}
        unknown = sorted(given.keys() - set(_REQUIRED) - set(_OPTIONAL) - {"eip7702Auth"})
        if unknown:
            hint = (
                " (a v0.6 field; this bundler takes v0.7 and later)"
                if unknown[0] in ("initCode", "paymasterAndData")
                else ""
            )
            raise InvalidFields(f"unknown UserOperation field {unknown[0]!r}{hint}")
        needed = ("sender", "nonce", "callData") if partial else _REQUIRED
        for name in needed:
            if name not in given:
                raise InvalidFields(f"missing UserOperation field {name!r}")

        def quantity(name: str, bits: int = _GAS_BITS) -> int:
            return parse_quantity(given[name], name, bits=bits) if name in given else 0

        def data(name: str) -> bytes:
            return parse_bytes(given[name], name) if name in given else b""

        factory = None
        if given.get("factory") not in (None, "0x"):
            marker = given["factory"] == "0x7702"
            factory = EIP7702_MARKER if marker else parse_address(given["factory"], "factory")
        paymaster = (
            parse_address(given["paymaster"], "paymaster") if given.get("paymaster") not in (None, "0x") else None
        )
        if factory is None and data("factoryData"):
            raise InvalidFields("factoryData is given without factory")
        if paymaster is None and any(quantity(n) if n.endswith("GasLimit") else data(n) for n in _OPTIONAL[3:]):
            raise InvalidFields("paymasterData, paymasterSignature or a paymaster gas limit is given without paymaster")
        paymaster_signature = data("paymasterSignature")
        if len(paymaster_signature) > 0xFFFF:
            raise InvalidFields(f"paymasterSignature has {len(paymaster_signature)} bytes, more than 65535")
        return cls(
            sender=parse_address(given["sender"], "sender"),
            nonce=quantity("nonce", 256),
            call_data=data("callData"),
            call_gas_limit=quantity("callGasLimit"),
            verification_gas_limit=quantity("verificationGasLimit"),
            pre_verification_gas=quantity("preVerificationGas"),
            max_fee_per_gas=quantity("maxFeePerGas"),
            max_priority_fee_per_gas=quantity("maxPriorityFeePerGas"),
            signature=data("signature"),
            factory=factory,
            factory_data=data("factoryData"),
            paymaster=paymaster,
            paymaster_verification_gas_limit=quantity("paymasterVerificationGasLimit"),
            paymaster_post_op_gas_limit=quantity("paymasterPostOpGasLimit"),
            paymaster_data=data("paymasterData"),
            paymaster_signature=paymaster_signature,
        )

    def to_rpc(self) -> dict[str, str]:
        """ERC-7769's JSON form; factory and paymaster fields only when there is one."""
        fields = {
            "sender": to_hex(self.sender),
            "nonce": hex(self.nonce),
            "callData": to_hex(self.call_data),
            "callGasLimit": hex(self.call_gas_limit),
            "verificationGasLimit": hex(self.verification_gas_limit),
            "preVerificationGas": hex(self.pre_verification_gas),
            "maxFeePerGas": hex(self.max_fee_per_gas),
            "maxPriorityFeePerGas": hex(self.max_priority_fee_per_gas),
            "signature": to_hex(self.signature),
        }
        if self.factory is not None:
            factory = "0x7702" if self.is_delegated else to_hex(self.factory)
            fields |= {"factory": factory, "factoryData": to_hex(self.factory_data)}
        if self.paymaster is not None:
            fields |= {
                "paymaster": to_hex(self.paymaster),
                "paymasterVerificationGasLimit": hex(self.paymaster_verification_gas_limit),
                "paymasterPostOpGasLimit": hex(self.paymaster_post_op_gas_limit),
                "paymasterData": to_hex(self.paymaster_data),
            }
        if self.paymaster_signature:
            fields["paymasterSignature"] = to_hex(self.paymaster_signature)
        return fields


@dataclass(frozen=True, slots=True)
class Candidate:
    """An operation with the EIP-7702 authorisation that travels beside it."""

    op: UserOperation
    authorization: Authorization | None = None


def nonce_key(validator: Address, lane: int, index: int = 0) -> int:
    """The 192-bit nonce key: validator (20) || lane kind (1) || parallel lane (3)."""
    return int.from_bytes(validator) << 32 | lane << 24 | index


def required_prefund(op: UserOperation) -> Wei:
    """Return the most the entry point can charge for `op`.

    Sum of all gas limits (gas) times `max_fee_per_gas`. Exact, no rounding; `0 <= actualGasCost <= required_prefund(op)`.
    Source: ERC-4337, "Required entry point contract functionality".
    """
    gas = (
        op.verification_gas_limit
        + op.call_gas_limit
        + op.pre_verification_gas
        + op.paymaster_verification_gas_limit
        + op.paymaster_post_op_gas_limit
    )
    return gas * op.max_fee_per_gas


def intent_hash(op: UserOperation) -> Hash32:
    """Return what the policy engine decides over, before any paymaster or signature is known.

    Covers account, nonce, init code, call data and the gas ceilings (the operation's own limits and fees). Source: DECISIONS,
    "Attestation".
    """
    return keccak(
        abi.encode(
            ["bytes32", "address", "uint256", "bytes32", "bytes32", "bytes32", "uint256", "bytes32"],
            [
                _INTENT_TYPE,
                op.sender,
                op.nonce,
                keccak(op.init_code),
                keccak(op.call_data),
                op.account_gas_limits,
                op.pre_verification_gas,
                op.gas_fees,
            ],
        )
    )
