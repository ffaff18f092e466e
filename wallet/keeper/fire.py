"""From a due trigger to an accepted operation: draft, estimate, sign with the session key, hand to a bundler.

No paymaster: a stop never depends on one. The operation pays from the account's deposit, within the session's prefund budget.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from typing import TypeVar

from contracts.bindings import GUARD_EXECUTE, Call, encode_execute
from contracts.eoa import Eoa
from contracts.errors import ExecutionReverted, NodeUnreachable, OperationRejected, RpcError
from contracts.faults import checkpoint
from contracts.types import Hash32, Wei, checksum, to_hex
from contracts.userop import UserOperation, required_prefund
from policies.attestation import encode_session_envelope
from wallet.account import DUMMY_OWNER_SIGNATURE, signable_hash
from wallet.keeper.triggers import Detail, Modules
from wallet.keeper.watch import Head, Trigger
from wallet.services import BundlerClient

CALL_GAS_MARGIN_BPS = 13_000
"""A falling market crosses more ticks at inclusion than at the estimate; each revert on chain adds 50 % more."""
VERIFICATION_GAS_MARGIN_BPS = 12_000
REPLACEMENT_BPS = 11_200
"""A same-nonce replacement pays 12 % more; bundlers ask for at least 10 %."""
NO_SESSION, NO_BUDGET = "session", "session-budget"
"""Rule ids of what the keeper itself refuses to send, because no bundler could accept it."""
_FIRST_BACKOFF_S, _LONGEST_BACKOFF_S = 0.1, 2.0

_T = TypeVar("_T")


class BundlersUnreachable(NodeUnreachable):
    """No bundler answers, or all that do are in trouble themselves; nothing is known about the operation."""


class Signer:
    """The session key on one chain."""

    def __init__(self, key: Eoa, modules: Modules, chain_id: int) -> None:
        self.key = key
        self.modules = modules
        self.chain_id = chain_id

    def draft(self, trigger: Trigger, detail: Detail, session_id: Hash32, fees: tuple[Wei, Wei]) -> UserOperation:
        """The operation that says "look now", without gas limits and with a stub signature."""
        max_fee, priority_fee = fees
        call = Call(self.modules.guard, GUARD_EXECUTE.encode(trigger.account, trigger.id))
        return UserOperation(
            sender=trigger.account,
            nonce=self.modules.lane(trigger) << 64 | detail.sequence,
            call_data=encode_execute([call]),
            max_fee_per_gas=max_fee,
            max_priority_fee_per_gas=priority_fee,
            signature=encode_session_envelope(session_id, DUMMY_OWNER_SIGNATURE),
        )

    def sign(self, op: UserOperation, session_id: Hash32) -> tuple[UserOperation, Hash32]:
        """The signed operation and its userOpHash."""
        op_hash = self.modules.entry_point.user_op_hash(op, self.chain_id)
        digest = signable_hash(self.modules.entry_point, op_hash, op.sender, self.chain_id)
        return op.replace(signature=encode_session_envelope(session_id, self.key.sign_hash(digest))), op_hash


def with_margin(op: UserOperation, reverts: int) -> UserOperation:
    """Estimated limits raised by the margins; `reverts` operations of this arming have failed on chain before. Rounds up."""
    call_margin = CALL_GAS_MARGIN_BPS + 5_000 * min(reverts, 4)
    return op.replace(
        call_gas_limit=-(-op.call_gas_limit * call_margin // 10_000),
        verification_gas_limit=-(-op.verification_gas_limit * VERIFICATION_GAS_MARGIN_BPS // 10_000),
    )


def raised_fees(old: UserOperation, fees: tuple[Wei, Wei]) -> tuple[Wei, Wei]:
    """What a same-nonce replacement of `old` offers: today's fees, but at least 12 % more than before on both. Rounds up."""
    max_fee, priority_fee = fees
    return (
        max(max_fee, -(-old.max_fee_per_gas * REPLACEMENT_BPS // 10_000)),
        max(priority_fee, -(-old.max_priority_fee_per_gas * REPLACEMENT_BPS // 10_000)),
    )


def check_session(session_id: Hash32 | None, detail: Detail, key: Eoa, head: Head, trigger: Trigger) -> Hash32:
    """The session to sign with. Raises OperationRejected saying why there is none that would pass, before a bundler says less."""
    advice = "enable a new session for this key; until then only the public delay protects this stop"
    account = checksum(trigger.account)
    if session_id is None or detail.session is None:
        raise OperationRejected(
            f"account {account} has no session for keeper key {checksum(key.address)}: {advice}", rule=NO_SESSION
        )
    session = detail.session
    if session.key != key.address:
        raise OperationRejected(
            f"session {to_hex(session_id)} of {account} is for key {checksum(session.key)}: {advice}", rule=NO_SESSION
        )
    if head.timestamp_s > session.valid_until_s:
        raise OperationRejected(
            f"session {to_hex(session_id)} of {account} ended at {session.valid_until_s}: {advice}", rule=NO_SESSION
        )
    return session_id


def check_budget(op: UserOperation, detail: Detail) -> None:
    """Raises OperationRejected if the operation's required prefund does not fit what the session has left."""
    assert detail.session is not None
    left = detail.session.prefund_budget_wei - detail.session_spent_wei
    if (need := required_prefund(op)) > left:
        raise OperationRejected(
            f"the operation may cost {need} wei and the session of {checksum(op.sender)} has {left} wei left of its prefund "
            "budget: enable a new session with a larger one",
            rule=NO_BUDGET,
        )


class Bundlers:
    """Several bundlers, asked in order of preference; one that fails is left alone for a while that doubles up to two seconds."""

    def __init__(self, clients: Sequence[BundlerClient]) -> None:
        self._clients = clients
        self._retry_at = [0.0] * len(clients)
        self._backoff_s = [_FIRST_BACKOFF_S] * len(clients)

    async def estimate(self, op: UserOperation) -> UserOperation:
        """`op` with gas limits. Raises ExecutionReverted (with the revert data), OperationRejected, BundlersUnreachable."""
        return await self._first(lambda client: client.estimate(op))

    async def send(self, op: UserOperation, op_hash: Hash32) -> None:
        """Return once a bundler has it; one that had it already counts. Raises OperationRejected, BundlersUnreachable."""
        checkpoint("keeper.send.before")

        async def send(client: BundlerClient) -> None:
            try:
                await client.send(op)
            except RpcError:
                if await client.rpc.call("eth_getUserOperationByHash", to_hex(op_hash)) is None:
                    raise

        await self._first(send)
        checkpoint("keeper.send.after")

    async def _first(self, ask: Callable[[BundlerClient], Awaitable[_T]]) -> _T:
        now = asyncio.get_running_loop().time
        refusal: OperationRejected | None = None
        trouble = "all are waiting after a failure"
        for i, client in enumerate(self._clients):
            if now() < self._retry_at[i]:
                continue
            try:
                answer = await ask(client)
            except RpcError as error:
                if not _is_definite(error):
                    trouble = f"{client.rpc.url}: {error}"
                elif error.rpc_code == ExecutionReverted.code:
                    self._worked(i)
                    raise ExecutionReverted(error.message, data=error.data) from None
                else:
                    self._worked(i)
                    refusal = refusal or OperationRejected(f"{client.rpc.url}: {error.message}", data=error.data)
                    continue
            except NodeUnreachable as error:
                trouble = error.message
            else:
                self._worked(i)
                return answer
            self._retry_at[i] = now() + self._backoff_s[i]
            self._backoff_s[i] = min(2 * self._backoff_s[i], _LONGEST_BACKOFF_S)
        if refusal is not None:
            raise refusal
        raise BundlersUnreachable(f"no bundler takes the operation: {trouble}")

    def _worked(self, i: int) -> None:
        self._retry_at[i], self._backoff_s[i] = 0.0, _FIRST_BACKOFF_S


def _is_definite(error: RpcError) -> bool:
    """Whether the answer is about the operation (ERC-7769's codes), not about the bundler or its node."""
    return -32599 <= error.rpc_code <= -32500 or error.rpc_code == -32602
