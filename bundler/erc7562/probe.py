"""Code hashes and deposits of many addresses by one `eth_call` without `to`: a program of ours that runs as init code.

Needs no contract on chain and no state override.   Source: ERC-7562 [COD-010], ERC-4337 (IStakeManager).
"""

from __future__ import annotations

from dataclasses import dataclass

from bundler.erc7562.entities import Stake
from contracts.entrypoint.base import GET_DEPOSIT_INFO
from contracts.errors import NodeError
from contracts.types import Address, Hash32

_INFO_BYTES = 5 * 32


def stake_of(answer: bytes) -> Stake:
    """The answer of `getDepositInfo`, five words. A stake whose withdrawal has begun is no stake: it has a time of withdrawal.

    Raises NodeError if it is none.
    """
    if len(answer) < _INFO_BYTES:
        raise NodeError(f"the deposit information has {len(answer)} bytes, fewer than {_INFO_BYTES}")
    deposit_wei, _, stake_wei, delay_s, withdraw_time = (int.from_bytes(answer[i : i + 32]) for i in range(0, 160, 32))
    return Stake(deposit_wei, 0 if withdraw_time else stake_wei, delay_s)


@dataclass(frozen=True, slots=True)
class StateProbe:
    """Asks for EXTCODEHASH of `hashed` and the deposit information of `deposited` at `entry_point`."""

    entry_point: Address
    hashed: tuple[Address, ...]
    deposited: tuple[Address, ...]

    @property
    def size(self) -> int:
        """Bytes of the answer. The first word is zero: no creation may return 0xEF first (EIP-3541)."""
        return 32 + 32 * len(self.hashed) + _INFO_BYTES * len(self.deposited)

    def code(self) -> bytes:
        """The program, unrolled; the call of getDepositInfo is put together behind the answer in memory."""
        program = bytearray()
        at, scratch = 32, self.size
        for address in self.hashed:
            program += b"\x73" + address + b"\x3f" + _push(at) + b"\x52"  # MSTORE(at, EXTCODEHASH(address))
            at += 32
        for address in self.deposited:
            call = (GET_DEPOSIT_INFO.selector + address.rjust(32, b"\0")).ljust(64, b"\0")
            program += b"\x7f" + call[:32] + _push(scratch) + b"\x52"
            program += b"\x7f" + call[32:] + _push(scratch + 32) + b"\x52"
            program += _push(_INFO_BYTES) + _push(at) + _push(36) + _push(scratch)
            program += b"\x73" + self.entry_point + b"\x5a\xfa\x50"  # POP(STATICCALL(GAS, entry point, ...))
            at += _INFO_BYTES
        return bytes(program + _push(self.size) + b"\x5f\xf3")

    def decode(self, answer: bytes) -> tuple[dict[Address, Hash32], dict[Address, Stake]]:
        """Read the answer. Raises NodeError if it has another length."""
        if len(answer) != self.size:
            raise NodeError(f"the node answered {len(answer)} bytes of state, {self.size} were asked for")
        hashes = {a: answer[32 + 32 * i : 64 + 32 * i] for i, a in enumerate(self.hashed)}
        rest = answer[32 + 32 * len(self.hashed) :]
        stakes = {a: stake_of(rest[_INFO_BYTES * i : _INFO_BYTES * (i + 1)]) for i, a in enumerate(self.deposited)}
        return hashes, stakes


def _push(number: int) -> bytes:
    return b"\x62" + number.to_bytes(3)
