"""Gas paid in a token: the approval that goes along, and what of a paymaster's answer the payer accepts.

The paymaster takes its tokens while the operation is validated. An account without allowance therefore cannot pay its first operation by
itself: it approves inside the operation, and asks the service to advance the tokens until then.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from contracts.bindings import ALLOWANCE, APPROVE, Call
from contracts.errors import BadInput, InvalidFields, SponsorRefused
from contracts.rpc import RpcClient
from contracts.token_paymaster import QUOTE, TokenPayment, max_charge, with_slack
from contracts.types import Address, checksum
from contracts.userop import UserOperation

LOW, EMPTY = 2, 4
"""Below a half of what is approved at a time it is approved anew; below a quarter, the operation is not paid out of it."""


@dataclass(frozen=True, slots=True)
class GasToken:
    """How one account pays. `approve_units`: the allowance that the paymaster is given at a time, the most it could ever take by itself."""

    paymaster: Address
    token: Address
    approve_units: int
    slack_bps: int = 200
    """How far the worst price that is signed may lie above the contract's of now."""

    async def allowance(self, rpc: RpcClient, account: Address) -> int:
        """What the paymaster may still take, in token units."""
        answer = await rpc.eth_call(self.token, ALLOWANCE.encode(account, self.paymaster))
        allowance: int = ALLOWANCE.decode(answer)[0]
        return allowance

    async def with_approval(self, rpc: RpcClient, account: Address, calls: Sequence[Call]) -> list[Call]:
        """`calls`, and last among them the approval where little of the allowance is left: no call before it can use it up."""
        if await self.allowance(rpc, account) * LOW >= self.approve_units:
            return list(calls)
        return [*calls, Call(self.token, APPROVE.encode(self.paymaster, self.approve_units))]

    async def needs_guarantee(self, rpc: RpcClient, account: Address) -> bool:
        """Whether somebody must advance the tokens."""
        return await self.allowance(rpc, account) * EMPTY < self.approve_units

    async def check(self, rpc: RpcClient, op: UserOperation) -> None:
        """Raises SponsorRefused for a paymaster, a token or a price that is not what this account agreed to pay."""
        payment = TokenPayment.decode(op.paymaster_data)
        if op.paymaster != self.paymaster or payment.token != self.token:
            raise SponsorRefused(
                f"the paymaster service answers with {checksum(op.paymaster or bytes(20))} and token {checksum(payment.token)}; "
                f"agreed were {checksum(self.paymaster)} and {checksum(self.token)}",
                rule="another-paymaster",
            )
        price, _, _, problem = QUOTE.decode(await rpc.eth_call(self.paymaster, QUOTE.encode(self.token)))
        worst = with_slack(price, self.slack_bps)
        if any(problem) or payment.max_token_per_native > worst:
            raise SponsorRefused(
                f"the paymaster service asks up to {payment.max_token_per_native} token units for 1 ETH of gas; the contract's price is "
                f"{price}, and up to {worst} is accepted",
                rule="price-too-high",
            )
        charge = max_charge(op, payment.max_token_per_native, guaranteed=payment.guarantor is not None)
        if charge > self.approve_units:
            raise BadInput(
                f"this operation may take {charge} token units for its gas, and {self.approve_units} are approved at a time: "
                "raise gas_token_approve"
            )


def is_guaranteed(op: UserOperation) -> bool:
    """Whether the operation's paymaster data has a guarantor."""
    try:
        return TokenPayment.decode(op.paymaster_data).guarantor is not None
    except (BadInput, InvalidFields):
        return False
