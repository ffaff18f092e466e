"""May this operation be sponsored? Pure decisions: no socket, key or clock; the caller passes in what it knows.

Every refusal is a SponsorRefused that names its rule: `no-approval`, `unknown-engine`, `bad-approval-signature`, `tampered`,
`not-allowed`, `expired`, `unknown-account`, `unknown-policy`, `gas-ceiling`, `nonce-used`, `already-paid`, `entry-point-changed`,
`budget-operation`, `budget-account-day`, `budget-total`, `deposit`.
"""

from __future__ import annotations

from dataclasses import dataclass

from contracts.errors import SponsorRefused
from contracts.typed_data import digest, domain_separator, struct_hash
from contracts.types import Address, Hash32, Wei, checksum, keccak, to_hex
from contracts.units import from_units
from contracts.userop import UserOperation, intent_hash, required_prefund
from paymaster.approval import Approval

SECONDS_A_DAY = 86_400
DECISION_ALLOW = 1
"""Source: IRiskValidator.Decision."""

_SPONSORSHIP = (
    "Sponsorship(address sender,uint256 nonce,bytes32 initCodeHash,bytes32 callDataHash,bytes32 accountGasLimits,"
    "uint256 preVerificationGas,bytes32 gasFees,uint256 paymasterGasLimits,uint48 validUntil,uint48 validAfter)"
)
STUB_SIGNATURE = bytes.fromhex(
    "598319df698c5419ff61e3ef632b147b1bc6defc649aa0f8b676ec40b35fa14c"
    "697b2e737e08011527c9ba693460bc3d4a22fd465c648c43fa487b9756d1a5a71c"
)
STUB_DATA = b"\xff" * 6 + bytes(6) + STUB_SIGNATURE
"""paymasterData for gas estimates: as long as the final one, with no more zero bytes, and `ecrecover` runs to its end (the
signature is a real one, of a key that nobody trusts).   Source: ERC-7677, "Challenges with stub data"."""


@dataclass(frozen=True, slots=True)
class GasCeilings:
    """The most gas of each kind (gas) and the highest fee (wei per gas) that is sponsored."""

    verification_gas: int = 3_000_000
    call_gas: int = 10_000_000
    pre_verification_gas: int = 2_000_000
    paymaster_verification_gas: int = 200_000
    paymaster_post_op_gas: int = 50_000
    max_fee_wei: Wei = 500 * 10**9


@dataclass(frozen=True, slots=True)
class Budget:
    """Ceilings in wei: of required prefund while promised, of actual cost once settled. A day is a UTC day of the chain's clock."""

    per_operation_wei: Wei
    per_account_day_wei: Wei
    total_wei: Wei


@dataclass(frozen=True, slots=True)
class Terms:
    """Who is trusted and what is sponsored. Empty `accounts` or `policies`: any that a trusted engine approves.

    `validity_s` bounds how long a promise holds budget, in seconds of the chain's clock.
    """

    engines: frozenset[Address]
    risk_validator: Address
    budget: Budget
    gas: GasCeilings = GasCeilings()
    accounts: frozenset[Address] = frozenset()
    policies: frozenset[Hash32] = frozenset()
    validity_s: int = 600


@dataclass(frozen=True, slots=True)
class Claim:
    """A promise asked for: at most `amount_wei` for the operation with this intent, until `valid_until_s` (unix seconds)."""

    intent_hash: Hash32
    entry_point: Address
    sender: Address
    nonce: int
    amount_wei: Wei
    now_s: int
    valid_until_s: int
    engine: Address
    policy_id: Hash32

    @property
    def day(self) -> int:
        """The chain's UTC day whose budget bears it."""
        return self.now_s // SECONDS_A_DAY


@dataclass(frozen=True, slots=True)
class Usage:
    """What is promised or spent already, in wei, the claim under judgement left out."""

    total_wei: Wei
    account_day_wei: Wei
    held_wei: Wei
    """Promised for the claim's entry point and not settled yet; the deposit there must cover it."""


def _refuse(rule: str, message: str, **data: object) -> SponsorRefused:
    return SponsorRefused(message, rule=rule, data=data or None)


def _eth(wei: Wei) -> str:
    return f"{from_units(wei, 18).normalize():f} ETH"


def judge(
    op: UserOperation, entry_point: Address, approval: Approval, terms: Terms, chain_id: int, now_s: int
) -> Claim:
    """Return what sponsoring `op` would promise; the budget is judged apart, with the ledger locked.

    `op` carries the paymaster's gas limits; `now_s` is the timestamp of the chain's head. Raises SponsorRefused.
    """
    if approval.engine not in terms.engines:
        raise _refuse("unknown-engine", f"engine {checksum(approval.engine)} is not trusted by this sponsor")
    if not approval.is_genuine(chain_id, terms.risk_validator):
        raise _refuse(
            "bad-approval-signature",
            f"the approval is not signed by {checksum(approval.engine)} for account {checksum(op.sender)} on chain {chain_id}",
        )
    said = approval.said
    intent = intent_hash(op)
    if intent != said.intent_hash:
        raise _refuse(
            "tampered",
            f"the operation's intent {to_hex(intent)} is not the approved {to_hex(said.intent_hash)}: account, nonce, "
            "init code, call data, gas limits or fees changed after the approval; have it approved again",
        )
    if said.decision != DECISION_ALLOW:
        raise _refuse("not-allowed", f"the policy engine's decision is {said.decision}, not ALLOW ({DECISION_ALLOW})")
    if said.valid_until_s <= now_s:
        raise _refuse(
            "expired",
            f"the approval expired at {said.valid_until_s}, the chain is at {now_s}; have it approved again",
        )
    if terms.policies and said.policy_id not in terms.policies:
        raise _refuse("unknown-policy", f"policy {to_hex(said.policy_id)} is not sponsored here")
    until_s = min(said.valid_until_s, now_s + terms.validity_s)
    return claim_of(op, entry_point, terms, now_s, until_s, engine=approval.engine, policy_id=said.policy_id)


def claim_of(
    op: UserOperation,
    entry_point: Address,
    terms: Terms,
    now_s: int,
    valid_until_s: int,
    *,
    engine: Address,
    policy_id: Hash32,
) -> Claim:
    """What paying for `op` would promise, whoever approved it. Raises SponsorRefused for its account, its gas or its cost."""
    check_account(op.sender, terms)
    _check_gas(op, terms.gas)
    amount_wei = required_prefund(op)
    if amount_wei > terms.budget.per_operation_wei:
        raise _refuse(
            "budget-operation",
            f"the operation may cost {_eth(amount_wei)}, more than {_eth(terms.budget.per_operation_wei)} for one operation",
            requestedWei=str(amount_wei),
            limitWei=str(terms.budget.per_operation_wei),
        )
    return Claim(
        intent_hash=intent_hash(op),
        entry_point=entry_point,
        sender=op.sender,
        nonce=op.nonce,
        amount_wei=amount_wei,
        now_s=now_s,
        valid_until_s=valid_until_s,
        engine=engine,
        policy_id=policy_id,
    )


def check_account(sender: Address, terms: Terms) -> None:
    """Raise SponsorRefused unless `sender` may be sponsored at all."""
    if terms.accounts and sender not in terms.accounts:
        raise _refuse("unknown-account", f"account {checksum(sender)} is not sponsored here")


def _check_gas(op: UserOperation, ceilings: GasCeilings) -> None:
    for name, value, ceiling in (
        ("verificationGasLimit", op.verification_gas_limit, ceilings.verification_gas),
        ("callGasLimit", op.call_gas_limit, ceilings.call_gas),
        ("preVerificationGas", op.pre_verification_gas, ceilings.pre_verification_gas),
        ("paymasterVerificationGasLimit", op.paymaster_verification_gas_limit, ceilings.paymaster_verification_gas),
        ("paymasterPostOpGasLimit", op.paymaster_post_op_gas_limit, ceilings.paymaster_post_op_gas),
        ("maxFeePerGas", op.max_fee_per_gas, ceilings.max_fee_wei),
    ):
        if value > ceiling:
            raise _refuse(
                "gas-ceiling", f"{name} {value} is above the ceiling {ceiling}", field=name, limit=str(ceiling)
            )
    if op.max_priority_fee_per_gas > op.max_fee_per_gas:
        raise _refuse(
            "gas-ceiling",
            f"maxPriorityFeePerGas {op.max_priority_fee_per_gas} is above maxFeePerGas {op.max_fee_per_gas}",
            field="maxPriorityFeePerGas",
            limit=str(op.max_fee_per_gas),
        )


def check_nonce(op: UserOperation, next_nonce: int) -> None:
    """Raise SponsorRefused if the account used this nonce already: `next_nonce` is what the entry point answers for its key."""
    if op.nonce < next_nonce:
        raise _refuse("nonce-used", f"nonce {op.nonce:#x} is used, the account's next one is {next_nonce:#x}")


def check_budget(claim: Claim, usage: Usage, budget: Budget, deposit_wei: Wei) -> None:
    """Raise SponsorRefused unless `claim` fits beside `usage`. Called with the ledger locked, so two claims cannot share a rest."""
    for rule, used_wei, limit_wei, what in (
        ("budget-account-day", usage.account_day_wei, budget.per_account_day_wei, f"{checksum(claim.sender)} today"),
        ("budget-total", usage.total_wei, budget.total_wei, "all accounts"),
        ("deposit", usage.held_wei, deposit_wei, "the paymaster's deposit"),
    ):
        if used_wei + claim.amount_wei > limit_wei:
            raise _refuse(
                rule,
                f"{_eth(claim.amount_wei)} does not fit: {_eth(used_wei)} of {_eth(limit_wei)} for {what} is promised or spent",
                requestedWei=str(claim.amount_wei),
                usedWei=str(used_wei),
                limitWei=str(limit_wei),
            )


def sponsorship_digest(op: UserOperation, paymaster: Address, chain_id: int, valid_until_s: int) -> Hash32:
    """What the sponsor signs: EIP-712 Sponsorship with validAfter 0. Source: IVerifyingPaymaster."""
    struct = struct_hash(
        _SPONSORSHIP,
        ["address", "uint256", "bytes32", "bytes32", "bytes32", "uint256", "bytes32", "uint256", "uint48", "uint48"],
        [
            op.sender,
            op.nonce,
            keccak(op.init_code),
            keccak(op.call_data),
            op.account_gas_limits,
            op.pre_verification_gas,
            op.gas_fees,
            op.paymaster_gas_limits,
            valid_until_s,
            0,
        ],
    )
    return digest(domain_separator("Seawall VerifyingPaymaster", "1", chain_id, paymaster), struct)


def paymaster_data(valid_until_s: int, signature: bytes) -> bytes:
    """validUntil (6) || validAfter (6), 0 || signature (65). Source: IVerifyingPaymaster."""
    return valid_until_s.to_bytes(6) + bytes(6) + signature
