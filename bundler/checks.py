"""What can be refused without asking the node: fields, sizes, gas floors, fees.   Source: ERC-7562, ERC-7769."""

from __future__ import annotations

from bundler.chain import Head
from bundler.gas import bundle_gas_limit, pre_verification_gas
from bundler.settings import Settings
from contracts.entrypoint import EntryPoint
from contracts.errors import InvalidFields
from contracts.types import Address, checksum
from contracts.userop import UserOperation

CALL_GAS_FLOOR = 9_100
"""Cost of a CALL that moves value. Source: ERC-4337."""
EIP7702_MARKER = bytes.fromhex("7702") + bytes(18)


def entry_point_of(address: Address, settings: Settings) -> EntryPoint:
    """The served entry point at `address`. Raises InvalidFields naming those served."""
    for entry_point in settings.entry_points:
        if entry_point.address == address:
            return entry_point
    served = ", ".join(f"{e.version} {checksum(e.address)}" for e in settings.entry_points)
    raise InvalidFields(f"entry point {checksum(address)} is not served here; served: {served}")


def check_shape(op: UserOperation, entry_point: EntryPoint, settings: Settings) -> None:
    """Sizes and what this bundler does not carry, for operations to send and to estimate. Raises InvalidFields."""
    if op.factory is not None and (op.factory == EIP7702_MARKER or op.factory.startswith(b"\x77\x02" + bytes(10))):
        raise InvalidFields(
            "factory 0x7702 marks an EIP-7702 authorisation, which this bundler does not carry: "
            "send the authorisation in a transaction of its own first"
        )
    if op.factory == op.sender or op.paymaster == op.sender:
        raise InvalidFields(f"sender {checksum(op.sender)} cannot also be the operation's factory or paymaster")
    variable = (op.call_data, op.signature, op.factory_data, op.paymaster_data)
    size = sum(len(data) for data in variable)
    if size > settings.max_op_bytes:
        raise InvalidFields(f"the operation's data have {size} bytes, more than {settings.max_op_bytes}")
    entry_point.pack(op)


def check(op: UserOperation, entry_point: EntryPoint, settings: Settings, head: Head) -> None:
    """All static checks of an operation to send. Raises InvalidFields with the field, its value and the bound."""
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
    needed = pre_verification_gas(entry_point, op)
    if op.pre_verification_gas < needed:
        raise InvalidFields(
            f"preVerificationGas {op.pre_verification_gas} is too low: this operation's calldata and overhead cost {needed}"
        )
    if (total := bundle_gas_limit(entry_point, [op])) > settings.max_bundle_gas:
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
