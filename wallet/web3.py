"""web3.py on a risk account: what a program sends from the account's address becomes an operation, judged by the policy first.

    w3 = AsyncWeb3(AsyncHTTPProvider(rpc_url))
    w3.middleware_onion.add(through(signer), "seawall")
    await contract.functions.approve(spender, amount).transact({"from": account})   # PolicyRefused if the policy says no

Everything else goes to the node as before. The transaction hash that comes back is that of the bundle the operation was included in.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, cast

from web3 import AsyncWeb3
from web3.middleware.base import Web3Middleware
from web3.types import AsyncMakeRequestFn, RPCEndpoint, RPCResponse

from contracts.bindings import Call
from contracts.errors import BadInput, OperationFailed
from contracts.types import checksum, parse_address, parse_bytes, parse_quantity, to_hex
from wallet.sign import Signer


class JudgedTransactions(Web3Middleware):
    """`eth_sendTransaction` from the signer's account goes through policy, bundler and paymaster; `eth_accounts` names the account."""

    def __init__(self, w3: AsyncWeb3[Any], signer: Signer) -> None:
        super().__init__(w3)
        self._signer = signer

    async def async_wrap_make_request(self, make_request: AsyncMakeRequestFn) -> AsyncMakeRequestFn:
        async def middleware(method: RPCEndpoint, params: Any) -> RPCResponse:
            if method == "eth_accounts":
                return _answer([checksum(self._signer.account.address)])
            if method == "eth_sendTransaction" and self._is_ours(params[0]):
                return _answer(await self._send(params[0]))
            return await make_request(method, params)

        return middleware

    def _is_ours(self, transaction: dict[str, Any]) -> bool:
        sender = transaction.get("from")
        return sender is not None and parse_address(str(sender), "from") == self._signer.account.address

    async def _send(self, transaction: dict[str, Any]) -> str:
        """Raises BadInput for a contract creation, PolicyRefused before anything is signed, OperationFailed when the call reverts."""
        if not transaction.get("to"):
            raise BadInput("an account cannot create a contract by a plain transaction; deploy through a factory")
        data = transaction.get("data") or transaction.get("input") or "0x"
        value = transaction.get("value", 0)
        call = Call(
            parse_address(str(transaction["to"]), "to"),
            bytes(data) if isinstance(data, bytes) else parse_bytes(data, "data"),
            value if isinstance(value, int) else parse_quantity(value, "value"),
        )
        sent = await self._signer.submit([call])
        receipt = await self._signer.bundler.wait(sent.user_op_hash)
        if not receipt.success:
            raise OperationFailed(
                f"operation {to_hex(sent.user_op_hash)} reverted: {to_hex(receipt.reason) or 'no reason given'}"
            )
        return to_hex(receipt.transaction_hash)


def _answer(result: Any) -> RPCResponse:
    return cast(RPCResponse, {"jsonrpc": "2.0", "id": 0, "result": result})


def through(signer: Signer) -> Callable[[AsyncWeb3[Any]], JudgedTransactions]:
    """What `w3.middleware_onion.add` takes."""
    return lambda w3: JudgedTransactions(w3, signer)
