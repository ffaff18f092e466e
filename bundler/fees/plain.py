"""A chain that charges for data by calldata gas alone: Ethereum and its like."""

from __future__ import annotations

from collections.abc import Sequence

from bundler.chain import Head
from bundler.fees.model import BundleData, DataCharge
from contracts.rpc import RpcClient


class Plain:
    """`preVerificationGas` of bundler/gas.py is the whole of it."""

    name = "l1"
    charges_data = False

    async def charges(self, rpc: RpcClient, bundles: Sequence[BundleData], head: Head) -> list[DataCharge]:  # noqa: ARG002 (the port's)
        return [DataCharge() for _ in bundles]
