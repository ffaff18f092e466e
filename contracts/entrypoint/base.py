"""What entry points v0.7 and later have in common: the packed operation, `handleOps`, events and errors.   Source: ERC-4337."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from contracts.abi import Event, Function
from contracts.errors import InvalidFields
from contracts.types import Address, Hash32, keccak
from contracts.userop import PAYMASTER_SIGNATURE_MAGIC, UserOperation

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
IGNORED_INIT_CODE = Event.parse("IgnoredInitCode(bytes32 indexed,address indexed,address)")
"""userOpHash, sender, factory: v0.9 found the account there already."""


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
    takes_paymaster_signatures: bool = False
    """Whether a signature at the end of paymasterAndData is left out of the hash."""
    counts_blocks: bool = False
    """Whether validity may be a range of blocks: the top bit of validAfter and of validUntil."""
    ignores_init_code: bool = False
    """Whether init code of an account that exists is passed over (with an event) rather than refused (AA10)."""
    wants_plain_caller: bool = False
    """Whether `handleOps` refuses callers with code, an EIP-7702 delegation included."""

    def user_op_hash(self, op: UserOperation, chain_id: int, delegate: Address | None = None) -> Hash32:
        """What identifies and (on v0.8) is signed of `op`; the signature itself is not covered.

        `delegate` is to whom the sender's code delegates; it is part of the hash when the EIP-7702 marker stands in the factory's
        place. Raises InvalidFields if it is missing then, or if a paymaster's signature at the end of the paymaster data says that it is
        longer than those data.
        """
        if op.is_delegated and self.takes_delegations and delegate is None:
            raise InvalidFields("factory 0x7702 needs an EIP-7702 delegation of the sender: give eip7702Auth")
        return self._hash(op, self.address, chain_id, delegate)

    def pack(self, op: UserOperation) -> PackedUserOperation:
        """The on-chain form.

        Raises InvalidFields if a gas limit or fee has more than 128 bits, or the paymaster's signature more than 65,535 bytes.
        """
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
            if len(op.paymaster_signature) > 0xFFFF:
                raise InvalidFields(
                    f"the paymaster's signature has {len(op.paymaster_signature)} bytes, more than 65535"
                ) from None
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
        return [self.unpack(fields) for fields in packed], beneficiary

    def unpack(self, fields: PackedUserOperation) -> UserOperation:
        """The inverse of `pack`. Raises InvalidFields for a malformed paymaster's signature."""
        op = unpack(fields)
        if not self.takes_paymaster_signatures:
            return op
        size = paymaster_signature_size(fields[7])
        if size == 0:
            return op
        data, start = op.paymaster_data, len(op.paymaster_data) - size - _SUFFIX
        return op.replace(paymaster_data=data[:start], paymaster_signature=data[start:-_SUFFIX])


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


_PAYMASTER_DATA_AT = 52
_SUFFIX = 2 + len(PAYMASTER_SIGNATURE_MAGIC)


def paymaster_signature_size(paymaster_and_data: bytes) -> int:
    """Bytes of the paymaster's signature at the end of paymasterAndData, as v0.9 reads it; 0 without one.

    Raises InvalidFields where the entry point reverts with InvalidPaymasterSignatureLength.
    """
    total = len(paymaster_and_data)
    if total < _PAYMASTER_DATA_AT + _SUFFIX or not paymaster_and_data.endswith(PAYMASTER_SIGNATURE_MAGIC):
        return 0
    size = int.from_bytes(paymaster_and_data[-_SUFFIX : -_SUFFIX + 2])
    most = total - _PAYMASTER_DATA_AT - _SUFFIX
    if size > most:
        raise InvalidFields(
            f"paymasterData ends like a paymaster's signature of {size} bytes (entry point v0.9), but only {most} bytes stand before "
            "its length: give the signature as paymasterSignature, or correct the length"
        )
    return size


def without_paymaster_signature(paymaster_and_data: bytes) -> bytes:
    """What v0.9's hash covers of paymasterAndData: signature and length are left out, the magic stays. Raises InvalidFields."""
    size = paymaster_signature_size(paymaster_and_data)
    return paymaster_and_data[: -size - _SUFFIX] + PAYMASTER_SIGNATURE_MAGIC if size else paymaster_and_data


def unpack(fields: PackedUserOperation) -> UserOperation:
    """The inverse of `EntryPoint.pack`, with a paymaster's signature left where it is: at the end of the paymaster data."""
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


def packed_hash_words(
    op: UserOperation, delegate: Address | None = None, *, paymaster_and_data: bytes | None = None
) -> bytes:
    """`abi.encode` of the operation with its dynamic fields hashed, eight words: the part all hash versions share.

    `paymaster_and_data` is what is hashed of it, all if None. With the EIP-7702 marker `delegate` stands in the hashed init code, in the
    marker's place (v0.8, Eip7702Support). Raises InvalidFields.
    """
    init_code = op.init_code if delegate is None or not op.is_delegated else delegate + op.factory_data
    if paymaster_and_data is None:
        paymaster_and_data = op.paymaster_and_data
    return b"".join(
        [
            _address_word(op.sender), _word(op.nonce, "nonce"), keccak(init_code), keccak(op.call_data), op.account_gas_limits,
            _word(op.pre_verification_gas, "preVerificationGas"), op.gas_fees, keccak(paymaster_and_data),
        ]
    )  # fmt: skip
