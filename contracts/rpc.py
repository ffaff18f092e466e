"""The JSON-RPC client that everything with a socket uses: one keep-alive session, batches, typed errors.

Batches are for *independent* calls: anvil does not run a batch in order.
"""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Mapping, Sequence
from types import TracebackType
from typing import Any, Self
from urllib.parse import urlsplit

import aiohttp
import msgspec

from contracts.errors import InvalidFields, NodeUnreachable, RpcError
from contracts.types import Address, Hash32, Wei, parse_bytes, parse_quantity, to_hex

_encode = msgspec.json.encode
_decode = msgspec.json.decode


def without_secrets(url: str) -> str:
    """Scheme, host and port of an address: providers put their API keys into the rest."""
    try:
        parts = urlsplit(url)
        port = "" if parts.port is None else f":{parts.port}"
    except ValueError:
        return "the given address"
    return f"{parts.scheme}://{parts.hostname or ''}{port}"


class RpcClient:
    """A JSON-RPC 2.0 connection over HTTP. Safe for concurrent use in one event loop; close it or use `async with`."""

    def __init__(self, url: str, *, timeout_s: float = 30.0, headers: Mapping[str, str] | None = None) -> None:
        self.url = url
        self._timeout = aiohttp.ClientTimeout(total=timeout_s)
        self._headers = {"Content-Type": "application/json", **(headers or {})}
        self._session: aiohttp.ClientSession | None = None
        self._ids = itertools.count(1)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    async def close(self) -> None:
        """Give the sockets back. Further calls open a new session."""
        if self._session is not None:
            await self._session.close()
            self._session = None

    async def _post(self, body: bytes) -> Any:
        if self._session is None:
            self._session = aiohttp.ClientSession(timeout=self._timeout, headers=self._headers)
        try:
            async with self._session.post(self.url, data=body) as response:
                raw = await response.read()
        except (aiohttp.ClientError, TimeoutError, OSError) as error:
            reason = str(error) or type(error).__name__
            if self.url in reason:
                reason = type(error).__name__
            # The cause is cut off: aiohttp's errors carry the whole address.
            raise NodeUnreachable(
                f"no answer from {without_secrets(self.url)}: {reason}. Is it running, and is the address right?"
            ) from None
        try:
            return _decode(raw)
        except (msgspec.DecodeError, RecursionError):
            raise NodeUnreachable(
                f"{without_secrets(self.url)} answered HTTP {response.status} without JSON; is this a JSON-RPC address?"
            ) from None

    @staticmethod
    def _result(answer: Any, method: str) -> Any:
        error = answer.get("error") if isinstance(answer, dict) else None
        if error is None:
            if not isinstance(answer, dict) or "result" not in answer:
                raise NodeUnreachable(f"the answer to {method} is no JSON-RPC answer: {answer!r:.200}")
            return answer["result"]
        if not isinstance(error, dict):
            raise RpcError(-32603, f"{error!s:.500}", method=method)
        code = error.get("code")
        message = str(error.get("message", ""))
        raise RpcError(code if isinstance(code, int) else -32603, message, error.get("data"), method=method)

    @staticmethod
    def _quantity(value: object, method: str) -> int:
        try:
            return parse_quantity(value, "it")
        except InvalidFields:
            raise NodeUnreachable(f"the answer to {method} is no quantity: {value!r:.80}") from None

    @staticmethod
    def _bytes(value: object, method: str) -> bytes:
        try:
            return parse_bytes(value, "it")
        except InvalidFields:
            raise NodeUnreachable(f"the answer to {method} is no 0x data: {value!r:.80}") from None

    async def call(self, method: str, *params: object) -> Any:
        """One request. Raises RpcError for an error answer, NodeUnreachable for none."""
        body = _encode({"jsonrpc": "2.0", "id": next(self._ids), "method": method, "params": params})
        return self._result(await self._post(body), method)

    async def batch(self, calls: Sequence[tuple[str, Sequence[object]]]) -> list[Any]:
        """Independent requests in one round trip, answers in the order asked. Raises the first error."""
        if not calls:
            return []
        ids = [next(self._ids) for _ in calls]
        body = _encode(
            [
                {"jsonrpc": "2.0", "id": i, "method": method, "params": params}
                for i, (method, params) in zip(ids, calls, strict=True)
            ]
        )
        answers = await self._post(body)
        if not isinstance(answers, list):
            self._result(answers, "batch")  # raises the error that refuses the batch as a whole
            raise NodeUnreachable(f"one answer to a batch of {len(calls)}: {answers!r:.200}")
        by_id = {a["id"]: a for a in answers if isinstance(a, dict) and isinstance(a.get("id"), int)}
        return [self._result(by_id.get(i), method) for i, (method, _) in zip(ids, calls, strict=True)]

    # The handful of node methods that everyone needs, with bytes and integers instead of hex.

    async def chain_id(self) -> int:
        return self._quantity(await self.call("eth_chainId"), "eth_chainId")

    async def block_number(self) -> int:
        return self._quantity(await self.call("eth_blockNumber"), "eth_blockNumber")

    async def block(self, number: int | str = "latest") -> dict[str, Any]:
        """The header as the node gives it. Raises RpcError if there is no such block."""
        tag = hex(number) if isinstance(number, int) else number
        found = await self.call("eth_getBlockByNumber", tag, False)
        if found is None:
            raise RpcError(-32000, f"block {tag} not found", method="eth_getBlockByNumber")
        if not isinstance(found, dict):
            raise NodeUnreachable(f"the answer to eth_getBlockByNumber is no block: {found!r:.80}")
        return found

    async def get_balance(self, address: Address, block: str = "latest") -> Wei:
        return self._quantity(await self.call("eth_getBalance", to_hex(address), block), "eth_getBalance")

    async def get_code(self, address: Address, block: str = "latest") -> bytes:
        return self._bytes(await self.call("eth_getCode", to_hex(address), block), "eth_getCode")

    async def get_nonce(self, address: Address, block: str = "pending") -> int:
        method = "eth_getTransactionCount"
        return self._quantity(await self.call(method, to_hex(address), block), method)

    async def eth_call(
        self, to: Address, data: bytes, *, sender: Address | None = None, block: str = "latest", value: Wei = 0
    ) -> bytes:
        """Return data of a read. Raises RpcError with the revert data in `.data`."""
        request = {"to": to_hex(to), "data": to_hex(data)}
        if sender is not None:
            request["from"] = to_hex(sender)
        if value:
            request["value"] = hex(value)
        return self._bytes(await self.call("eth_call", request, block), "eth_call")

    async def receipt(self, tx_hash: Hash32) -> dict[str, Any] | None:
        """The receipt as the node gives it, or None while the transaction is not in a block."""
        found: dict[str, Any] | None = await self.call("eth_getTransactionReceipt", to_hex(tx_hash))
        return found

    async def wait_receipt(self, tx_hash: Hash32, *, timeout_s: float = 30.0, poll_s: float = 0.01) -> dict[str, Any]:
        """Poll until the transaction is in a block. Raises NodeUnreachable after `timeout_s`."""
        loop = asyncio.get_running_loop()
        deadline = loop.time() + timeout_s
        while (found := await self.receipt(tx_hash)) is None:
            if loop.time() > deadline:
                raise NodeUnreachable(f"transaction {to_hex(tx_hash)} is in no block after {timeout_s:g} s")
            await asyncio.sleep(poll_s)
        return found

    async def logs(
        self, address: Address | None, topics: Sequence[bytes | None], from_block: int, to_block: int | str = "latest"
    ) -> list[dict[str, Any]]:
        """Logs of a block range; empty when it starts past the head (anvil calls that an error, geth does not)."""
        query: dict[str, Any] = {
            "fromBlock": hex(from_block),
            "toBlock": hex(to_block) if isinstance(to_block, int) else to_block,
            "topics": [None if topic is None else to_hex(topic) for topic in topics],
        }
        if address is not None:
            query["address"] = to_hex(address)
        try:
            found: list[dict[str, Any]] = await self.call("eth_getLogs", query)
        except RpcError:
            if from_block > await self.block_number():
                return []
            raise
        return found
