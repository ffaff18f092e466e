"""What entry points v0.7 and later have in common: the packed operation, `handleOps`, events and errors.   Source: ERC-4337."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from contracts.abi import Event, Function
from contracts.errors import InvalidFields
from contracts.types import Address, Hash32, keccak
from contracts.userop import UserOperation

PACKED_TYPE = "(address,uint256,bytes,bytes,bytes32,uint256,bytes32,bytes,bytes)"
PackedUserOperation = tuple[Address, int, bytes, bytes, bytes, int, bytes, bytes, bytes]

HANDLE_OPS = Function.parse(f"handleOps({PACKED_TYPE}[],address)")
GET_NONCE = Function.parse("getNonce(address,uint192)(uint256)")
BALANCE_OF = Function.parse("balanceOf(address)(uint256)")
DEPOSIT_TO = Function.parse("depositTo(address)")
GET_DEPOSIT_INFO = Function.parse("getDepositInfo(address)((uint256,bool,uint112,uint32,uint48))")
GET_USER_OP_HASH = Function.parse(f"getUserOpHash({PACKED_TYPE})(bytes32)")

USER_OPERATION_EVENT = Event.parse(
    "UserOperationEvent(bytes32 indexed,address indexed,address indexed,uint256,bool,uint256,uint256)"
)
"""userOpHash, sender, paymaster, nonce, success, actualGasCost (wei), actualGasUsed (gas)."""
USER_OPERATION_REVERT_REASON = Event.parse("UserOperationRevertReason(bytes32 indexed,address indexed,uint256,bytes)")
"""userOpHash, sender, nonce, revertReason."""
POST_OP_REVERT_REASON = Event.parse("PostOpRevertReason(bytes32 indexed,address indexed,uint256,bytes)")
"""userOpHash, sender, nonce, revertReason."""
ACCOUNT_DEPLOYED = Event.parse("AccountDeployed(bytes32 indexed,address indexed,address,address)")
"""userOpHash, sender, factory, paymaster."""
BEFORE_EXECUTION = Event.parse("BeforeExecution()")


def sender_creator(entry_point: Address) -> Address:
    """The contract that the entry point's constructor created: CREATE with nonce 1."""
    return keccak(b"\xd6\x94" + entry_point + b"\x01")[12:]


FAILED_OP = Function.parse("FailedOp(uint256,string)")
FAILED_OP_WITH_REVERT = Function.parse("FailedOpWithRevert(uint256,string,bytes)")


@dataclass(frozen=True, slots=True)
class FailedOp:
    """The entry point's reason to refuse a bundle: which operation, `AAxx ...`, and the inner revert data if any."""

    op_index: int
    reason: str
    inner: bytes = b""


def decode_failed_op(revert_data: bytes) -> FailedOp | None:
    """Read FailedOp or FailedOpWithRevert; None for any other revert data."""
    try:
        if revert_data[:4] == FAILED_OP.selector:
            index, reason = FAILED_OP.decode_input(revert_data)
            return FailedOp(index, reason)
        if revert_data[:4] == FAILED_OP_WITH_REVERT.selector:
            index, reason, inner = FAILED_OP_WITH_REVERT.decode_input(revert_data)
            return FailedOp(index, reason, inner)
    except InvalidFields:
        return None
    return None


@dataclass(frozen=True, slots=True)
class EntryPoint:
    """One version at its canonical address."""

    version: str
    address: Address
    _hash: Callable[[UserOperation, Address, int, Address | None], Hash32]
    takes_delegations: bool = False
    """Whether the EIP-7702 marker may stand in the factory's place."""

    def user_op_hash(self, op: UserOperation, chain_id: int, delegate: Address | None = None) -> Hash32:
        """What identifies and (on v0.8) is signed of `op`; the signature itself is not covered.

        `delegate` is to whom the sender's code delegates; it is part of the hash when the EIP-7702 marker stands in the factory's
        place. Raises InvalidFields if it is missing then.
        """
        if op.is_delegated and self.takes_delegations and delegate is None:
            raise InvalidFields("factory 0x7702 needs an EIP-7702 delegation of the sender: give eip7702Auth")
        return self._hash(op, self.address, chain_id, delegate)

    def pack(self, op: UserOperation) -> PackedUserOperation:
        """The on-chain form. Raises InvalidFields if a gas limit or fee has more than 128 bits."""
        try:
            return (
                op.sender,
                op.nonce,
                op.init_code,
                op.call_data,
                op.account_gas_limits,
                op.pre_verification_gas,
                op.gas_fees,
                op.paymaster_and_data,
                op.signature,
            )
        except OverflowError:
            raise InvalidFields("a gas limit or fee of the operation does not fit 128 bits") from None

    def encode_handle_ops(self, ops: Sequence[UserOperation], beneficiary: Address) -> bytes:
        """Call data of one bundle. Raises InvalidFields if a field does not fit its type.

        Written out by hand: every operation is encoded several times on its way, and the general encoder takes fifty times as long.
        """
        tuples = [_encode_packed(self.pack(op)) for op in ops]
        offsets, at = [], 32 * len(tuples)
        for encoded in tuples:
            offsets.append(at.to_bytes(32))
            at += len(encoded)
        head = (64).to_bytes(32) + _address_word(beneficiary) + len(tuples).to_bytes(32)
        return b"".join([HANDLE_OPS.selector, head, *offsets, *tuples])

    def decode_handle_ops(self, call_data: bytes) -> tuple[list[UserOperation], Address]:
        """The operations and the beneficiary in a bundle's call data. Raises InvalidFields."""
        packed, beneficiary = HANDLE_OPS.decode_input(call_data)
        return [unpack(fields) for fields in packed], beneficiary


def _encode_packed(fields: PackedUserOperation) -> bytes:
    """`abi.encode` of one PackedUserOperation, without the offset to it. Raises InvalidFields."""
    sender, nonce, init_code, call_data, limits, pre_verification_gas, fees, paymaster_and_data, signature = fields
    at, offsets, tails = 9 * 32, [], []
    for data in (init_code, call_data, paymaster_and_data, signature):
        offsets.append(at.to_bytes(32))
        padded = len(data) + -len(data) % 32
        tails.append(len(data).to_bytes(32) + data.ljust(padded, b"\0"))
        at += 32 + padded
    return b"".join(
        [
            _address_word(sender), _word(nonce, "nonce"), offsets[0], offsets[1], limits, _word(pre_verification_gas, "preVerificationGas"),
            fees, offsets[2], offsets[3], *tails,
        ]
    )  # fmt: skip


def _word(value: int, name: str) -> bytes:
    try:
        return value.to_bytes(32)
    except OverflowError:
        raise InvalidFields(f"{name} {value} does not fit 256 bits") from None


def _address_word(address: Address) -> bytes:
    if len(address) != 20:
        raise InvalidFields(f"0x{address.hex()} is no address: it has {len(address)} bytes")
    return address.rjust(32, b"\0")


def unpack(fields: PackedUserOperation) -> UserOperation:
    """The inverse of `EntryPoint.pack`."""
    sender, nonce, init_code, call_data, limits, pre_verification_gas, fees, paymaster_and_data, signature = fields
    return UserOperation(
        sender=sender,
        nonce=nonce,
        call_data=call_data,
        call_gas_limit=int.from_bytes(limits[16:]),
        verification_gas_limit=int.from_bytes(limits[:16]),
        pre_verification_gas=pre_verification_gas,
        max_fee_per_gas=int.from_bytes(fees[16:]),
        max_priority_fee_per_gas=int.from_bytes(fees[:16]),
        signature=signature,
        factory=init_code[:20].ljust(20, b"\0") if init_code else None,
        factory_data=init_code[20:],
        paymaster=paymaster_and_data[:20] or None,
        paymaster_verification_gas_limit=int.from_bytes(paymaster_and_data[20:36]),
        paymaster_post_op_gas_limit=int.from_bytes(paymaster_and_data[36:52]),
        paymaster_data=paymaster_and_data[52:],
    )


def packed_hash_words(op: UserOperation, delegate: Address | None = None) -> bytes:
    """`abi.encode` of the operation with its dynamic fields hashed, eight words: the part all hash versions share.

    With the EIP-7702 marker `delegate` stands in the hashed init code, in the marker's place (v0.8, Eip7702Support). Raises InvalidFields.
    """
    init_code = op.init_code if delegate is None or not op.is_delegated else delegate + op.factory_data
    return b"".join(
        [
            _address_word(op.sender), _word(op.nonce, "nonce"), keccak(init_code), keccak(op.call_data), op.account_gas_limits,
            _word(op.pre_verification_gas, "preVerificationGas"), op.gas_fees, keccak(op.paymaster_and_data),
        ]
    )  # fmt: skip
