"""What every fee model has in common: a transaction as a rollup sees it, and what its data cost beside its execution."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import rlp

from bundler.chain import Head
from contracts.eip7702 import Authorization
from contracts.entrypoint import EntryPoint
from contracts.errors import NodeError
from contracts.rpc import RpcClient
from contracts.types import Address, Wei
from contracts.userop import UserOperation

# Size stands for value where a field is not known before the transaction is signed: as many bytes as it will have at most in practice.
_NONCE = 0xFFFFFF
_GAS = 0xFFFFFF


class FeeDataError(NodeError):
    """The node, or the chain's fee contract behind it, did not say what data cost: nothing is guessed in its place."""


@dataclass(frozen=True, slots=True)
class BundleData:
    """The parts of a bundle's transaction whose bytes a rollup charges for. Fees in wei per gas."""

    chain_id: int
    sender: Address
    to: Address
    data: bytes
    max_fee_wei: Wei
    tip_wei: Wei
    authorizations: tuple[Authorization, ...] = ()
    signed: bool = False
    """Whether the operations' signatures are there, so that a node can run it."""

    @classmethod
    def of(
        cls,
        chain_id: int,
        sender: Address,
        entry_point: EntryPoint,
        ops: Sequence[UserOperation],
        beneficiary: Address,
        head: Head,
        authorizations: Sequence[Authorization] = (),
        *,
        signed: bool = False,
    ) -> BundleData:
        """`handleOps(ops)` as the executor would send it now; without operations, what all bundles share."""
        tip_wei = min((op.max_priority_fee_per_gas for op in ops), default=0)
        return cls(
            chain_id,
            sender,
            entry_point.address,
            entry_point.encode_handle_ops(ops, beneficiary),
            2 * head.base_fee_wei + tip_wei,
            tip_wei,
            tuple(authorizations),
            signed,
        )

    def unsigned(self) -> bytes:
        """The transaction without its signature (EIP-1559, or EIP-7702 with authorisations), nonce and gas limit at three bytes each."""
        fields: list[object] = [
            self.chain_id, _NONCE, self.tip_wei, self.max_fee_wei, _GAS, self.to, 0, self.data, []
        ]  # fmt: skip
        if self.authorizations:
            fields.append([[a.chain_id, a.delegate, a.nonce, a.y_parity, a.r, a.s] for a in self.authorizations])
        encoded: bytes = rlp.encode(fields)
        return (b"\x04" if self.authorizations else b"\x02") + encoded


@dataclass(frozen=True, slots=True)
class DataCharge:
    """What a transaction's data cost at one block, beyond executing it."""

    fee_wei: Wei = 0
    """In all."""
    gas: int = 0
    """Gas that the transaction's limit must hold for it, where the rollup takes the fee as gas (Arbitrum, ZKsync)."""
    tip_wei: Wei = 0
    """Least priority fee per gas the sequencer takes for it, where the rollup takes the fee that way (Linea)."""


NO_CHARGE = DataCharge()
"""Of a chain that charges nothing for data."""


class FeeModel(Protocol):
    """One kind of chain."""

    name: str

    @property
    def charges_data(self) -> bool:
        """False where calldata gas is all that data cost: then nothing is ever asked."""
        ...

    async def charges(self, rpc: RpcClient, bundles: Sequence[BundleData], head: Head) -> list[DataCharge]:
        """What each transaction's data cost at `head`, in the order given.

        Raises FeeDataError if node or contract answers nothing or nonsense, NodeUnreachable.
        """
        ...


def gas_for(fee_wei: Wei, price_wei: Wei) -> int:
    """preVerificationGas that earns `fee_wei` at `price_wei` per gas, rounded up (favours the bundler)."""
    return -(-fee_wei // max(price_wei, 1))


def price_of(op: UserOperation, head: Head) -> Wei:
    """Wei per gas that the entry point charges `op` for at this base fee.   Source: ERC-4337, `getUserOpGasPrice`."""
    return min(op.max_fee_per_gas, head.base_fee_wei + op.max_priority_fee_per_gas)
