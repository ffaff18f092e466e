"""Bundles in a compact form through the Inflator contract, where the chain charges less for them that way."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from bundler.deflate import Dictionary, deflate, inflate
from contracts.abi import Function
from contracts.artifacts import artifact
from contracts.entrypoint import EntryPoint
from contracts.entrypoint.base import unpack
from contracts.errors import RpcError, SetupError
from contracts.rpc import RpcClient
from contracts.types import Address, checksum
from contracts.userop import UserOperation

WORDS = Function.parse("words()(address)")


@dataclass(frozen=True, slots=True)
class Packed:
    """A transaction that does what a bundle's `handleOps` would. `inflated_bytes`: size of that call's data."""

    to: Address
    data: bytes
    inflated_bytes: int


class Inflator:
    """One that is on the chain, with its dictionary."""

    def __init__(self, address: Address, dictionary: Dictionary) -> None:
        self.address = address
        self.dictionary = dictionary

    @classmethod
    async def open(
        cls, rpc: RpcClient, address: Address, entry_points: Sequence[EntryPoint], executor: Address
    ) -> Inflator:
        """Read the dictionary, and see that every entry point listens to it (v0.9 does not). Raises SetupError, NodeError."""
        code = await rpc.get_code(address)
        ours = artifact("Inflator").deployed_bytecode
        # The dictionary's address is an immutable: zeros in the artifact.
        if len(code) != len(ours) or any(a != b and b != 0 for a, b in zip(code, ours, strict=True)):
            raise SetupError(
                f"there is no Inflator of this version at {checksum(address)}: deploy one, or correct `inflator`"
            )
        (words,) = WORDS.decode(await rpc.eth_call(address, WORDS.encode()))
        found = cls(address, Dictionary((await rpc.get_code(words))[1:]))
        for entry_point in entry_points:
            try:
                await rpc.eth_call(address, found.pack(entry_point, [], executor, executor).data, sender=executor)
            except RpcError as error:
                raise SetupError(
                    f"the entry point {entry_point.version} at {checksum(entry_point.address)} does not listen to contracts "
                    f"({error.message}): take `inflator` out of the settings, or the entry point out of `entry_points`"
                ) from error
        return found

    def pack(
        self, entry_point: EntryPoint, ops: Sequence[UserOperation], executor: Address, beneficiary: Address
    ) -> Packed:
        """`handleOps(ops, beneficiary)` as `executor` would send it through the contract."""
        named = None if beneficiary == executor else beneficiary
        packed = [entry_point.pack(op) for op in ops]
        data = deflate(entry_point.address, packed, named, self.dictionary)
        return Packed(self.address, data, len(entry_point.encode_handle_ops(ops, beneficiary)))

    def unpack(self, data: bytes, entry_point: EntryPoint) -> list[UserOperation]:
        """The operations in call data sent to the contract, if they are for this entry point. Raises InvalidFields."""
        address, ops, _ = inflate(data, bytes(20), self.dictionary)
        return [unpack(op) for op in ops] if address == entry_point.address else []
