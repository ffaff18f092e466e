"""What can be refused without asking the node: fields, sizes, gas floors, fees.   Source: ERC-7562, ERC-7769."""

from __future__ import annotations

from bundler.chain import Head
from bundler.gas import VALIDITY_GAS, bundle_gas_limit, pre_verification_gas
from bundler.settings import Settings
from contracts.entrypoint import EntryPoint
from contracts.entrypoint.base import paymaster_signature_size
from contracts.errors import InvalidFields
from contracts.types import Address, checksum
from contracts.userop import Candidate, UserOperation

CALL_GAS_FLOOR = 9_100
"""Cost of a CALL that moves value. Source: ERC-4337."""


def entry_point_of(address: Address, settings: Settings) -> EntryPoint:
    """The served entry point at `address`. Raises InvalidFields naming those served."""
    for entry_point in settings.entry_points:
        if entry_point.address == address:
            return entry_point
    served = ", ".join(f"{e.version} {checksum(e.address)}" for e in settings.entry_points)
    raise InvalidFields(f"entry point {checksum(address)} is not served here; served: {served}")


def check_shape(op: UserOperation, entry_point: EntryPoint, settings: Settings) -> None:
    """Sizes and what this bundler does not carry, for operations to send and to estimate. Raises InvalidFields."""
    if op.is_delegated and not entry_point.takes_delegations:
        raise InvalidFields(
            f"entry point {entry_point.version} does not know the factory 0x7702 (EIP-7702); use v0.8 or later"
        )
    if op.factory == op.sender or op.paymaster == op.sender:
        raise InvalidFields(f"sender {checksum(op.sender)} cannot also be the operation's factory or paymaster")
    if op.paymaster_signature and not entry_point.takes_paymaster_signatures:
        raise InvalidFields(
            f"entry point {entry_point.version} knows no paymasterSignature: put the signature into paymasterData, or use v0.9"
        )
    if entry_point.takes_paymaster_signatures:
        paymaster_signature_size(op.paymaster_and_data)
    variable = (op.call_data, op.signature, op.factory_data, op.paymaster_data, op.paymaster_signature)
    size = sum(len(data) for data in variable)
    if size > settings.max_op_bytes:
        raise InvalidFields(f"the operation's data have {size} bytes, more than {settings.max_op_bytes}")
    entry_point.pack(op)


def check_authorization(candidate: Candidate, chain_id: int) -> None:
    """[AUTH-010] The EIP-7702 authorisation beside an operation is its sender's own and for this chain. Raises InvalidFields."""
    authorization = candidate.authorization
    if authorization is None:
        return
    if authorization.chain_id not in (0, chain_id):
        raise InvalidFields(
            f"the chainId {authorization.chain_id} of eip7702Auth is not this chain's: sign it for {chain_id} (or 0, any chain)"
        )
    if (authority := authorization.authority()) != candidate.op.sender:
        raise InvalidFields(
            f"eip7702Auth is signed by {checksum(authority)}, not by the sender {checksum(candidate.op.sender)}"
        )
    if candidate.op.real_factory is not None:
        raise InvalidFields(
            "eip7702Auth and a factory exclude each other: the sender's code is either delegated or deployed"
        )


def execution_floor(candidate: Candidate, entry_point: EntryPoint, settings: Settings, windows: int = 0) -> int:
    """The least preVerificationGas on a chain that charges nothing for data but calldata gas; `windows` as in ValidationData."""
    floor = pre_verification_gas(
        entry_point,
        candidate.op,
        int(candidate.authorization is not None),
        other_beneficiary=settings.beneficiary is not None,
    )
    return floor + VALIDITY_GAS * windows


def check_floor(candidate: Candidate, entry_point: EntryPoint, settings: Settings, windows: int = 0) -> None:
    """Raises InvalidFields when preVerificationGas is below `execution_floor`."""
    given, needed = candidate.op.pre_verification_gas, execution_floor(candidate, entry_point, settings, windows)
    if given < needed:
        beside = f" and the look at {windows} validity windows" if windows else ""
        raise InvalidFields(
            f"preVerificationGas {given} is too low: this operation's calldata and overhead{beside} cost {needed}"
        )


def check(candidate: Candidate, entry_point: EntryPoint, settings: Settings, head: Head) -> None:
    """All static checks of an operation to send. Raises InvalidFields with the field, its value and the bound."""
    op = candidate.op
    authorizations = int(candidate.authorization is not None)
    check_shape(op, entry_point, settings)
    for name, value in (
        ("verificationGasLimit", op.verification_gas_limit),
        ("paymasterVerificationGasLimit", op.paymaster_verification_gas_limit),
    ):
        if value > settings.max_verification_gas:
            raise InvalidFields(
                f"{name} {value} is above {settings.max_verification_gas}, the most this bundler simulates"
            )
    if op.call_data and op.call_gas_limit < CALL_GAS_FLOOR:
        raise InvalidFields(f"callGasLimit {op.call_gas_limit} is too low: a call costs at least {CALL_GAS_FLOOR}")
    check_floor(candidate, entry_point, settings)
    if (total := bundle_gas_limit(entry_point, [op], authorizations)) > settings.max_bundle_gas:
        raise InvalidFields(
            f"the operation's gas limits need a bundle of {total} gas, more than {settings.max_bundle_gas}"
        )
    if op.max_priority_fee_per_gas > op.max_fee_per_gas:
        raise InvalidFields(
            f"maxPriorityFeePerGas {op.max_priority_fee_per_gas} is above maxFeePerGas {op.max_fee_per_gas}"
        )
    if op.max_priority_fee_per_gas < settings.min_priority_fee_wei:
        raise InvalidFields(
            f"maxPriorityFeePerGas {op.max_priority_fee_per_gas} is too low: at least {settings.min_priority_fee_wei} wei"
        )
    least = head.base_fee_wei + settings.min_priority_fee_wei
    if op.max_fee_per_gas < least:
        raise InvalidFields(
            f"maxFeePerGas {op.max_fee_per_gas} is too low: the base fee is {head.base_fee_wei}, "
            f"so at least {least} wei (eth_gasPrice of the node suggests more)"
        )
