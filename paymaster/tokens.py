"""May this operation pay its gas in a token, and does this service advance it? Pure decisions, as in `sponsor`.

Every refusal is a SponsorRefused that names its rule: `unknown-token`, `price`, `price-stale`, `post-op-gas`, `nonce-used`, `balance`,
`allowance`, `deposit`; and of a guarantee also `no-guarantor`, `no-approval`, `no-repayment`, `guarantor-credit` and those of `sponsor`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Self

from contracts.bindings import APPROVE
from contracts.errors import InvalidFields, SponsorRefused
from contracts.token_paymaster import MIN_POST_OP_GAS, Guarantor, TokenPayment, max_charge, with_slack
from contracts.types import Address, Wei, checksum, keccak, parse_address, to_hex
from contracts.userop import UserOperation, required_prefund
from paymaster.approval import Approval
from paymaster.sponsor import STUB_SIGNATURE, Claim, Terms, check_nonce, claim_of, judge
from policies.calls import decode_calls

_PROBLEMS = {
    keccak(f"{name}()".encode())[:4]: why
    for name, why in {
        "FeedInvalid": "a feed gives no valid answer",
        "FeedOutOfBounds": "a feed's answer is out of its bounds",
        "SequencerDown": "the sequencer is down",
    }.items()
}
"""Source: OracleGuard.sol, as `quote` names them."""


@dataclass(frozen=True, slots=True)
class TokenOffer:
    """Which tokens are taken (empty: all that the contract has terms for), and how.

    `slack_bps`: how far the price may move against the payer until inclusion. `min_window_s`: a price that ends sooner is not given out.
    The gas limits are what the stub answers. `guarantee`: the service's signer advances tokens of his credit.
    """

    tokens: tuple[str, ...] = ()
    slack_bps: int = 100
    min_window_s: int = 60
    verification_gas: int = 250_000
    post_op_gas: int = MIN_POST_OP_GAS
    guarantee: bool = False


@dataclass(frozen=True, slots=True)
class Asked:
    """What ERC-7677's context asks for: `{"token": "0x...", "guarantee": true}`."""

    token: Address
    guarantee: bool

    @classmethod
    def from_context(cls, context: object) -> Self | None:
        """None where no token is named: ordinary sponsorship. Raises InvalidFields."""
        if not isinstance(context, Mapping) or context.get("token") is None:
            return None
        guarantee = context.get("guarantee", False)
        if not isinstance(guarantee, bool):
            raise InvalidFields(f"context.guarantee must be true or false, got {guarantee!r:.40}")
        return cls(parse_address(context["token"], "context.token"), guarantee)


@dataclass(frozen=True, slots=True)
class Quoted:
    """What the chain says of a token and its payer. Price in token units for 1e18 wei; times are unix seconds."""

    token_per_native: int
    valid_after_s: int
    valid_until_s: int
    problem: bytes
    """Selector of what keeps the contract from a price; zero: nothing."""
    balance: int
    allowance: int
    credit: int
    """The service's own, at the contract."""


def _refuse(rule: str, message: str, **data: object) -> SponsorRefused:
    return SponsorRefused(message, rule=rule, data=data or None)


def check_token(token: Address, offer: TokenOffer) -> None:
    """Raises SponsorRefused for a token that the settings do not name."""
    if offer.tokens and token not in {parse_address(one) for one in offer.tokens}:
        raise _refuse("unknown-token", f"token {checksum(token)} is not taken here", taken=list(offer.tokens))


def price_of(token: Address, quoted: Quoted, offer: TokenOffer, now_s: int) -> int:
    """The worst price that a payer signs: the contract's, and the slack on top. Raises SponsorRefused where there is none to rely on."""
    if any(quoted.problem):
        why = _PROBLEMS.get(quoted.problem, to_hex(quoted.problem))
        raise _refuse("price", f"there is no price of {checksum(token)}: {why}")
    if quoted.token_per_native == 0:
        raise _refuse("unknown-token", f"token {checksum(token)} has no terms at the paymaster contract")
    # The entry point wants a block after validAfter: in the second of a feed's update its price is not due yet.
    if not quoted.valid_after_s < now_s <= quoted.valid_until_s - offer.min_window_s:
        why = "a feed is late" if now_s > quoted.valid_after_s else "ask again in the next block"
        raise _refuse(
            "price-stale",
            f"the price of {checksum(token)} holds from {quoted.valid_after_s} to {quoted.valid_until_s}, the chain is at {now_s}: {why}",
            validUntil=quoted.valid_until_s,
        )
    return with_slack(quoted.token_per_native, offer.slack_bps)


def _short(rule: str, what: str, has: int, needs: int, advice: str) -> SponsorRefused:
    return _refuse(
        rule,
        f"{what} is {has} units, the operation may take {needs}: {advice}",
        available=str(has),
        needed=str(needs),
    )


def check_payer(
    op: UserOperation, payment: TokenPayment, quoted: Quoted, *, paymaster: Address, next_nonce: int, deposit_wei: Wei
) -> int:
    """Raise SponsorRefused unless `op` can pay as `payment` says. Returns the most it takes, in token units.

    Who is guaranteed needs the tokens too, and an approval among his calls in place of an allowance.
    """
    guaranteed = payment.guarantor is not None
    if op.paymaster_post_op_gas_limit < MIN_POST_OP_GAS:
        raise _refuse(
            "post-op-gas",
            f"paymasterPostOpGasLimit {op.paymaster_post_op_gas_limit} is below {MIN_POST_OP_GAS}, which giving back needs",
        )
    check_nonce(op, next_nonce)
    charge = max_charge(op, payment.max_token_per_native, guaranteed=guaranteed)
    if quoted.balance < charge:
        raise _short("balance", f"the token balance of {checksum(op.sender)}", quoted.balance, charge, "bring tokens")
    if quoted.allowance < charge:
        if not guaranteed:
            advice = "approve the paymaster, or ask for a guarantee and approve inside the operation"
            raise _short("allowance", f"the allowance of {checksum(paymaster)}", quoted.allowance, charge, advice)
        given = approved_in(op, payment.token, paymaster)
        if given < charge:
            advice = "approve at least that much of it to the paymaster, last among the operation's calls that do"
            raise _short("no-repayment", "what the operation's own calls approve", given, charge, advice)
    if deposit_wei < required_prefund(op):
        raise _refuse("deposit", f"the paymaster's deposit of {deposit_wei} wei does not cover {required_prefund(op)}")
    return charge


def approved_in(op: UserOperation, token: Address, paymaster: Address) -> int:
    """The allowance that the operation's calls leave to the paymaster; zero where they say nothing, or cannot be read for certain."""
    calls = decode_calls(op.sender, op.call_data, {})
    if calls.problem:
        return 0
    given = 0
    for call in calls.calls:
        if call.target == token and call.data[:4] == APPROVE.selector and len(call.data) == 68:
            spender, amount = APPROVE.decode_input(call.data)
            given = amount if spender == paymaster else given
    return given


def check_guarantee(
    op: UserOperation, entry_point: Address, context: object, terms: Terms, offer: TokenOffer, chain_id: int, now_s: int
) -> Claim:
    """What guaranteeing `op` puts at stake: as much as sponsoring it, if the payer does not pay back.

    So it is for operations that a trusted engine approved, and for accounts that the settings name. Raises SponsorRefused, InvalidFields.
    """
    if not offer.guarantee:
        raise _refuse(
            "no-guarantor", "this service advances no tokens: approve the paymaster in an operation paid otherwise"
        )
    ceilings = replace(
        terms.gas, paymaster_verification_gas=offer.verification_gas, paymaster_post_op_gas=offer.post_op_gas
    )
    terms = replace(terms, gas=ceilings)
    has_approval = isinstance(context, Mapping) and context.get("approval") is not None
    if has_approval or op.sender not in terms.accounts:
        return judge(op, entry_point, Approval.from_context(context, op.sender), terms, chain_id, now_s)
    until_s = now_s + terms.validity_s
    return claim_of(op, entry_point, terms, now_s, until_s, engine=bytes(20), policy_id=bytes(32))


def check_credit(credit: int, charge: int) -> None:
    """Raises SponsorRefused when the service cannot advance so much."""
    if credit < charge:
        advice = "its operator adds some with `seawall paymaster credit`"
        raise _short("guarantor-credit", "the guarantor's credit", credit, charge, advice)


def stub_payment(asked: Asked, worst_price: int, guarantor: Address) -> TokenPayment:
    """As long as the final one, for gas estimates."""
    who = Guarantor(guarantor, (1 << 47) - 1, STUB_SIGNATURE) if asked.guarantee else None
    return TokenPayment(asked.token, worst_price, who)
