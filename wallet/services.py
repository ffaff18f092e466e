"""Clients of the services that an operation passes: the bundler (ERC-7769), the paymaster (ERC-7677), and other policy engines."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import aiohttp

from contracts.bindings import Call
from contracts.eip7702 import Authorization
from contracts.entrypoint import EntryPoint
from contracts.errors import BadInput, NodeError, NodeUnreachable, OperationFailed, PolicyRefused, RpcError
from contracts.rpc import RpcClient
from contracts.types import Address, Hash32, Wei, parse_address, parse_bytes, parse_hash, parse_quantity, to_hex
from contracts.userop import UserOperation
from wallet.gas_token import GasToken, is_guaranteed


@dataclass(frozen=True, slots=True)
class OperationReceipt:
    """What became of an included operation. Costs in wei, gas in gas."""

    user_op_hash: Hash32
    success: bool
    reason: bytes
    actual_gas_cost_wei: Wei
    actual_gas_used: int
    transaction_hash: Hash32
    block_number: int
    logs: tuple[dict[str, Any], ...]
    sponsored: bool

    @classmethod
    def from_rpc(cls, fields: Mapping[str, Any]) -> OperationReceipt:
        receipt = fields["receipt"]
        paymaster = fields.get("paymaster")
        return cls(
            user_op_hash=parse_hash(fields["userOpHash"], "userOpHash"),
            success=bool(fields["success"]),
            reason=parse_bytes(fields.get("reason") or "0x", "reason"),
            actual_gas_cost_wei=parse_quantity(fields["actualGasCost"], "actualGasCost"),
            actual_gas_used=parse_quantity(fields["actualGasUsed"], "actualGasUsed"),
            transaction_hash=parse_hash(receipt["transactionHash"], "transactionHash"),
            block_number=parse_quantity(receipt["blockNumber"], "blockNumber"),
            logs=tuple(fields["logs"]),
            sponsored=bool(paymaster) and any(parse_address(paymaster, "paymaster")),
        )


def _fields(op: UserOperation, authorization: Authorization | None) -> dict[str, Any]:
    """An operation as the bundler takes it, with the EIP-7702 authorisation that travels beside it."""
    return op.to_rpc() | ({} if authorization is None else {"eip7702Auth": authorization.to_rpc()})


class BundlerClient:
    """One bundler and one of its entry points."""

    def __init__(self, rpc: RpcClient, entry_point: EntryPoint) -> None:
        self.rpc = rpc
        self.entry_point = entry_point

    async def send(self, op: UserOperation, authorization: Authorization | None = None) -> Hash32:
        """Submit; the hash means that the bundler has it on disk. Raises RpcError with the bundler's reason."""
        fields = _fields(op, authorization)
        answer = await self.rpc.call("eth_sendUserOperation", fields, to_hex(self.entry_point.address))
        return parse_hash(answer, "userOpHash")

    async def estimate(self, op: UserOperation, authorization: Authorization | None = None) -> UserOperation:
        """`op` with the gas limits under which it succeeds. Raises RpcError -32521 if its call reverts."""
        fields: dict[str, str] = await self.rpc.call(
            "eth_estimateUserOperationGas", _fields(op, authorization), to_hex(self.entry_point.address)
        )

        def gas(name: str) -> int:
            return parse_quantity(fields.get(name) or "0x0", name)

        limits = {
            "call_gas_limit": gas("callGasLimit"),
            "verification_gas_limit": gas("verificationGasLimit"),
            "pre_verification_gas": gas("preVerificationGas"),
        }
        if op.paymaster is not None:
            limits["paymaster_verification_gas_limit"] = max(
                gas("paymasterVerificationGasLimit"), op.paymaster_verification_gas_limit
            )
            limits["paymaster_post_op_gas_limit"] = max(gas("paymasterPostOpGasLimit"), op.paymaster_post_op_gas_limit)
        return op.replace(**limits)

    async def receipt(self, user_op_hash: Hash32) -> OperationReceipt | None:
        """The receipt, or None while the operation is in no block."""
        answer = await self.rpc.call("eth_getUserOperationReceipt", to_hex(user_op_hash))
        return None if answer is None else OperationReceipt.from_rpc(answer)

    async def wait(self, user_op_hash: Hash32, *, timeout_s: float = 60.0, poll_s: float = 0.05) -> OperationReceipt:
        """Poll for the receipt; a bundler that restarts meanwhile is waited for.

        Raises OperationFailed when the bundler has dropped the operation (with its reason) or nothing came in `timeout_s`.
        """
        loop = asyncio.get_running_loop()
        deadline = loop.time() + timeout_s
        while True:
            try:
                if (found := await self.receipt(user_op_hash)) is not None:
                    return found
                status = await self.rpc.call("seawall_getUserOperationStatus", to_hex(user_op_hash))
                if status and status.get("status") in ("dropped", "rejected"):
                    raise OperationFailed(f"the bundler dropped {to_hex(user_op_hash)}: {status.get('reason')}")
            except (NodeUnreachable, RpcError) as error:
                if loop.time() > deadline or (isinstance(error, RpcError) and error.rpc_code != -32601):
                    raise
            if loop.time() > deadline:
                raise OperationFailed(
                    f"{to_hex(user_op_hash)} is in no block after {timeout_s:g} s; the bundler still has it, "
                    "ask again with `seawall account show` or raise its fees"
                )
            await asyncio.sleep(poll_s)


class PaymasterClient:
    """One ERC-7677 paymaster service. With `gas_token` the account pays it in that token; `node` tells the chain's side of it then."""

    def __init__(
        self,
        rpc: RpcClient,
        entry_point: EntryPoint,
        chain_id: int,
        gas_token: GasToken | None = None,
        node: RpcClient | None = None,
    ) -> None:
        self.rpc = rpc
        self.entry_point = entry_point
        self.chain_id = chain_id
        self.gas_token = gas_token
        self._node = rpc if node is None else node

    async def _ask(self, method: str, op: UserOperation, context: Mapping[str, Any]) -> UserOperation:
        answer: dict[str, str] = await self.rpc.call(
            method, op.to_rpc(), to_hex(self.entry_point.address), hex(self.chain_id), context
        )
        changes: dict[str, Any] = {
            "paymaster": parse_address(answer["paymaster"], "paymaster"),
            "paymaster_data": parse_bytes(answer["paymasterData"], "paymasterData"),
        }
        for name, field in (
            ("paymasterVerificationGasLimit", "paymaster_verification_gas_limit"),
            ("paymasterPostOpGasLimit", "paymaster_post_op_gas_limit"),
        ):
            if answer.get(name):
                changes[field] = parse_quantity(answer[name], name, bits=128)
        return op.replace(**changes)

    async def with_approval(self, account: Address, calls: Sequence[Call]) -> list[Call]:
        """`calls`, and the approval that paying in a token needs."""
        return list(calls) if self.gas_token is None else await self.gas_token.with_approval(self._node, account, calls)

    async def stub(self, op: UserOperation) -> UserOperation:
        """`op` with a placeholder of the right size, for estimating gas."""
        if self.gas_token is None:
            return await self._ask("pm_getPaymasterStubData", op, {})
        guarantee = await self.gas_token.needs_guarantee(self._node, op.sender)
        return await self._ask("pm_getPaymasterStubData", op, _paying(self.gas_token, guarantee))

    async def sponsor(self, op: UserOperation, approval: Mapping[str, Any] | None) -> UserOperation:
        """`op` with the paymaster's promise to pay; `op` comes from `stub`. `approval` None: no engine judges this account.

        Raises RpcError with the service's reason when it will not, SponsorRefused for a price in tokens that was not agreed to.
        """
        context = {} if approval is None else {"approval": approval}
        if self.gas_token is None:
            return await self._ask("pm_getPaymasterData", op, context)
        op = await self._ask("pm_getPaymasterData", op, context | _paying(self.gas_token, is_guaranteed(op)))
        await self.gas_token.check(self._node, op)
        return op


def _paying(gas_token: GasToken, guarantee: bool) -> dict[str, Any]:
    return {"token": to_hex(gas_token.token), "guarantee": guarantee}


@dataclass(frozen=True, slots=True)
class EngineClient:
    """Another policy engine's service (`seawall policy serve`), for accounts on which several must agree."""

    url: str
    token: str
    timeout_s: float = 20.0

    async def attest(self, op: UserOperation, approvals: Sequence[str] = ()) -> bytes:
        """The packed attestation of the final `op`; `approvals` are lines of `seawall proposal sign`.

        Raises PolicyRefused as that engine explains it, NodeUnreachable when it does not answer, BadInput when it will not serve us.
        """
        body: dict[str, Any] = {"userOp": op.to_rpc()}
        if approvals:
            body["approvals"] = list(approvals)
        where = f"the engine at {self.url.split('?')[0]}"
        try:
            async with (
                aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=self.timeout_s)) as http,
                http.post(
                    self.url.rstrip("/") + "/v1/attestations",
                    json=body,
                    headers={"Authorization": f"Bearer {self.token}"},
                ) as answer,
            ):
                status, found = answer.status, await answer.json(content_type=None)
        except (aiohttp.ClientError, TimeoutError, OSError, ValueError) as error:
            raise NodeUnreachable(f"{where} gives no answer: {str(error) or type(error).__name__}") from None
        error_of = found.get("error", {}) if isinstance(found, dict) else {}
        message = str(error_of.get("message", f"HTTP {status}")) if isinstance(error_of, dict) else f"HTTP {status}"
        if status == 403:
            raise PolicyRefused(f"{where}: {message}", data=error_of.get("decision"))
        if status >= 500:
            raise NodeError(f"{where}: {message}")
        if status != 200 or not isinstance(found, dict) or "attestation" not in found:
            raise BadInput(f"{where}: {message}")
        return parse_bytes(found["attestation"], "attestation")
