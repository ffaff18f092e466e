"""An externally owned account: signs and sends plain transactions for deployment, bundles and the devnet's market."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Mapping
from typing import Any

from eth_account import Account
from eth_keys.datatypes import PrivateKey

from contracts.eip7702 import Authorization
from contracts.errors import BadInput, OperationFailed
from contracts.rpc import RpcClient
from contracts.types import Address, Hash32, Wei, checksum, parse_bytes, to_hex

# eth-account imports py_ecc, which raises the limit to 100,000; deeply nested JSON then overflows the C stack of the decoder, and
# one small request would kill a service (msgspec issue 1033). Nothing here recurses deeply.
sys.setrecursionlimit(min(sys.getrecursionlimit(), 5_000))


class Eoa:
    """A secp256k1 key and its address. The key never appears in `repr`, errors or logs."""

    __slots__ = ("_key", "address")

    def __init__(self, key: bytes) -> None:
        try:
            self._key = PrivateKey(key)
        except Exception:
            raise BadInput("a secp256k1 private key must be 32 bytes and below the curve order") from None
        self.address: Address = self._key.public_key.to_canonical_address()

    def __repr__(self) -> str:
        return f"Eoa({checksum(self.address)})"

    def sign_hash(self, digest: Hash32) -> bytes:
        """r (32) || s (32, low half) || v (27 or 28) over a 32-byte digest, as Solidity's ecrecover takes it."""
        signature = self._key.sign_msg_hash(digest)
        return signature.to_bytes()[:64] + bytes([27 + signature.v])

    def sign_transaction(self, transaction: Mapping[str, Any]) -> tuple[bytes, Hash32]:
        """Raw bytes and hash of a signed transaction in eth-account's field names."""
        signed = Account.sign_transaction(dict(transaction), self._key.to_bytes())
        return bytes(signed.raw_transaction), bytes(signed.hash)


class TransactionSender:
    """Sends an EOA's transactions with a nonce kept here. One sender per key; not for two processes on one key."""

    def __init__(self, rpc: RpcClient, eoa: Eoa, chain_id: int) -> None:
        self.rpc = rpc
        self.eoa = eoa
        self.chain_id = chain_id
        self._nonce: int | None = None
        self._lock = asyncio.Lock()

    async def send(
        self,
        to: Address | None,
        data: bytes = b"",
        *,
        value: Wei = 0,
        gas: int | None = None,
        max_fee_wei: Wei | None = None,
        priority_fee_wei: Wei = 1_000_000,
    ) -> Hash32:
        """Sign and send; `to` None creates a contract. Without `gas` the node estimates (and so reverts here, with its reason).

        `max_fee_wei` defaults to twice the current base fee plus the priority fee. Raises RpcError, NodeUnreachable.
        """
        async with self._lock:
            if gas is None:
                request = {"from": to_hex(self.eoa.address), "data": to_hex(data), "value": hex(value)}
                if to is not None:
                    request["to"] = to_hex(to)
                gas = int(await self.rpc.call("eth_estimateGas", request), 16) * 5 // 4
            if max_fee_wei is None:
                max_fee_wei = 2 * int((await self.rpc.block())["baseFeePerGas"], 16) + priority_fee_wei
            if self._nonce is None:
                self._nonce = await self.rpc.get_nonce(self.eoa.address)
            fields: dict[str, Any] = {
                "type": 2,
                "chainId": self.chain_id,
                "nonce": self._nonce,
                "gas": gas,
                "maxFeePerGas": max_fee_wei,
                "maxPriorityFeePerGas": min(priority_fee_wei, max_fee_wei),
                "value": value,
                "data": data,
            }
            if to is not None:
                fields["to"] = checksum(to)
            raw, _ = self.eoa.sign_transaction(fields)
            try:
                tx_hash = parse_bytes(await self.rpc.call("eth_sendRawTransaction", to_hex(raw)), "transaction hash")
            except BaseException:
                self._nonce = None  # unknown whether it was taken: ask the node next time
                raise
            self._nonce += 1
            return tx_hash

    async def delegate(self, authorization: Authorization, *, gas: int = 100_000) -> dict[str, Any]:
        """Apply one EIP-7702 authorisation in an empty transaction to nobody, which runs no code. Raises OperationFailed, RpcError.

        An authorisation of our own must name the nonce after this transaction's.
        """
        async with self._lock:
            if self._nonce is None:
                self._nonce = await self.rpc.get_nonce(self.eoa.address)
            fields: dict[str, Any] = {
                "type": 4,
                "chainId": self.chain_id,
                "nonce": self._nonce,
                "gas": gas,
                "maxFeePerGas": 2 * int((await self.rpc.block())["baseFeePerGas"], 16) + 1_000_000,
                "maxPriorityFeePerGas": 1_000_000,
                "to": checksum(bytes(20)),
                "value": 0,
                "data": b"",
                "authorizationList": [authorization.for_transaction()],
            }
            raw, _ = self.eoa.sign_transaction(fields)
            self._nonce = None  # the authorisation moves it, too
            sent = parse_bytes(await self.rpc.call("eth_sendRawTransaction", to_hex(raw)), "transaction hash")
        return await self.wait(sent)

    async def wait(self, tx_hash: Hash32) -> dict[str, Any]:
        """The receipt. Raises OperationFailed if the transaction reverted."""
        receipt = await self.rpc.wait_receipt(tx_hash)
        if receipt["status"] != "0x1":
            raise OperationFailed(
                f"transaction {to_hex(tx_hash)} to {receipt.get('to')} reverted using {int(receipt['gasUsed'], 16)} gas"
            )
        return receipt

    async def transact(
        self, to: Address | None, data: bytes = b"", *, value: Wei = 0, gas: int | None = None
    ) -> dict[str, Any]:
        """Send and wait."""
        return await self.wait(await self.send(to, data, value=value, gas=gas))
