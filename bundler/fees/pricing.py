"""What data cost, in terms of operations: the preVerificationGas they need, and what a bundle of them is charged.   Source: ERC-4337."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from bundler.chain import Head
from bundler.fees.model import BundleData, DataCharge, FeeModel, gas_for, price_of
from bundler.fees.plain import Plain
from bundler.inflator import Packed
from contracts.entrypoint import EntryPoint
from contracts.errors import InvalidFields
from contracts.rpc import RpcClient
from contracts.types import Address, Wei
from contracts.userop import Candidate, UserOperation


class Pricing:
    """A fee model with what it needs to know of this bundler."""

    def __init__(
        self, rpc: RpcClient, chain_id: int, executor: Address, beneficiary: Address, model: FeeModel | None = None
    ) -> None:
        self._rpc = rpc
        self._chain_id = chain_id
        self._executor = executor
        self._beneficiary = beneficiary
        self.model: FeeModel = model or Plain()

    async def charges(
        self,
        entry_point: EntryPoint,
        bundles: Sequence[Sequence[Candidate]],
        head: Head,
        *,
        signed: bool = False,
        packed: Packed | None = None,
    ) -> list[DataCharge]:
        """What the data of each bundle cost. An empty bundle: what all bundles share. `signed`: they are valid as they are, and
        the node may run them. `packed`: they are sent in this form. Raises FeeDataError, NodeUnreachable."""
        if not self.model.charges_data:
            return [DataCharge() for _ in bundles]
        data = [
            BundleData.of(
                self._chain_id,
                self._executor,
                entry_point,
                [one.op for one in bundle],
                self._beneficiary,
                head,
                [one.authorization for one in bundle if one.authorization is not None],
                signed=signed,
            )
            for bundle in bundles
        ]
        if packed is not None:
            data = [replace(one, to=packed.to, data=packed.data) for one in data]
        return await self.model.charges(self._rpc, data, head)

    async def data_gas(
        self, entry_point: EntryPoint, candidate: Candidate, head: Head, payer: UserOperation | None = None
    ) -> int:
        """preVerificationGas that pays for the data of `candidate` alone in its bundle, at the price it pays now; rounded up.

        `payer` has the fees, if they are not the candidate's (a dummy's); without fees it is priced at the node's `eth_gasPrice`.
        Raises FeeDataError, NodeError.
        """
        if not self.model.charges_data:
            return 0
        (charge,) = await self.charges(entry_point, [[candidate]], head)
        return gas_for(charge.fee_wei, await self._price(payer or candidate.op, head))

    async def _price(self, op: UserOperation, head: Head) -> Wei:
        if op.max_fee_per_gas:
            return price_of(op, head)
        return int(await self._rpc.call("eth_gasPrice"), 16)

    async def check(
        self, entry_point: EntryPoint, candidate: Candidate, head: Head, execution_gas: int, tolerance_percent: int
    ) -> None:
        """Raise InvalidFields if preVerificationGas is less than `execution_gas` and what data cost, less the tolerance.

        The tolerance, in percent of the data's part, forgives prices that moved since the estimate. Raises FeeDataError, NodeError, too.
        """
        if not self.model.charges_data:
            return
        op = candidate.op
        data_gas = await self.data_gas(entry_point, candidate, head)
        least = execution_gas + -(-data_gas * (100 - tolerance_percent) // 100)
        if op.pre_verification_gas < least:
            raise InvalidFields(
                f"preVerificationGas {op.pre_verification_gas} is too low: this operation's calldata and overhead cost {execution_gas} "
                f"gas, its data on L1 {data_gas} gas at {price_of(op, head)} wei a gas ({self.model.name}); give at least {least}, "
                f"better {execution_gas + data_gas}, or a higher fee per gas"
            )
