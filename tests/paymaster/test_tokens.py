"""Every reason for which a payment in tokens, or an advance, is refused; decided on figures alone."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from contracts.bindings import APPROVE, Call, encode_execute
from contracts.errors import BadInput, InvalidFields, SponsorRefused
from contracts.token_paymaster import MIN_POST_OP_GAS, Guarantor, TokenPayment, max_charge, set_terms
from contracts.types import Address, keccak, to_hex
from contracts.userop import UserOperation, required_prefund
from paymaster.sponsor import Budget, Terms
from paymaster.tokens import (
    Asked,
    Quoted,
    TokenOffer,
    approved_in,
    check_credit,
    check_guarantee,
    check_payer,
    check_token,
    price_of,
)
from paymaster.unpaid import unpaid_wei
from tests.paymaster.rig import operation

USDC: Address = keccak(b"usdc")[:20]
PAYMASTER: Address = keccak(b"paymaster")[:20]
GUARANTOR: Address = keccak(b"guarantor")[:20]
SENDER: Address = keccak(b"sender")[:20]
NOW_S = 1_700_000_000
PRICE = 2_525 * 10**6
GOOD = Quoted(PRICE, NOW_S - 60, NOW_S + 3_600, bytes(4), 10**9, 10**9, 10**9)
TERMS = Terms(frozenset(), bytes(20), Budget(10**18, 10**18, 10**18), accounts=frozenset({SENDER}))


def paying(*calls: Call, **changes: Any) -> UserOperation:
    fields = {
        "call_data": encode_execute(calls or [Call(GUARANTOR, b"note")]),
        "paymaster": PAYMASTER,
        "paymaster_verification_gas_limit": 250_000,
        "paymaster_post_op_gas_limit": MIN_POST_OP_GAS,
    }
    return operation(SENDER, **(fields | changes))


def approve(amount: int, spender: Address = PAYMASTER, token: Address = USDC) -> Call:
    return Call(token, APPROVE.encode(spender, amount))


def charge(
    op: UserOperation, found: Quoted, *, guaranteed: bool = False, next_nonce: int = 0, deposit: int = 10**18
) -> int:
    payment = TokenPayment(USDC, PRICE, Guarantor(GUARANTOR, NOW_S + 600) if guaranteed else None)
    return check_payer(op, payment, found, paymaster=PAYMASTER, next_nonce=next_nonce, deposit_wei=deposit)


def test_the_most_that_is_taken_is_the_contracts_formula_rounded_up() -> None:
    # 10^6 gas of the operation, 370,000 of the paymaster, 45,000 and 12,000 for postOp, at 10 gwei; and 35,000 of a guarantor's.
    op = paying()
    assert required_prefund(op) == 1_370_000 * 10**10
    assert charge(op, GOOD) == -(-1_427_000 * 10**10 * PRICE // 10**18)
    assert max_charge(op, PRICE, guaranteed=True) == charge(op, GOOD) - (-35_000 * 10**10 * PRICE // 10**18)


@pytest.mark.parametrize(
    ("changes", "rule"),
    [
        ({"problem": keccak(b"FeedInvalid()")[:4]}, "price"),
        ({"problem": b"\x01\x02\x03\x04"}, "price"),
        ({"token_per_native": 0}, "unknown-token"),
        ({"valid_until_s": NOW_S + 59}, "price-stale"),
        ({"valid_after_s": NOW_S}, "price-stale"),
    ],
)
def test_a_price_that_nobody_could_rely_on_is_not_given_out(changes: dict[str, Any], rule: str) -> None:
    assert price_of(USDC, GOOD, TokenOffer(slack_bps=100), NOW_S) == PRICE * 101 // 100
    with pytest.raises(SponsorRefused) as refused:
        price_of(USDC, replace(GOOD, **changes), TokenOffer(), NOW_S)
    assert refused.value.rule == rule


def test_the_price_with_slack_is_rounded_against_who_pays() -> None:
    assert price_of(USDC, replace(GOOD, token_per_native=1), TokenOffer(slack_bps=1), NOW_S) == 2


def test_a_payer_must_be_able_to_pay_the_most_it_can_cost_and_one_unit_less_is_refused() -> None:
    op = paying()
    most = charge(op, GOOD)
    assert charge(op, replace(GOOD, balance=most, allowance=most)) == most
    for changes, rule in (({"balance": most - 1}, "balance"), ({"allowance": most - 1}, "allowance")):
        with pytest.raises(SponsorRefused) as refused:
            charge(op, replace(GOOD, **changes))
        assert refused.value.rule == rule
    for others, rule in (({"next_nonce": 1}, "nonce-used"), ({"deposit": required_prefund(op) - 1}, "deposit")):
        with pytest.raises(SponsorRefused) as refused:
            charge(op, GOOD, **others)
        assert refused.value.rule == rule
    with pytest.raises(SponsorRefused) as refused:
        charge(paying(paymaster_post_op_gas_limit=MIN_POST_OP_GAS - 1), GOOD)
    assert refused.value.rule == "post-op-gas"


def test_the_last_approval_of_the_token_to_the_paymaster_is_what_counts() -> None:
    assert approved_in(paying(approve(5), approve(7)), USDC, PAYMASTER) == 7
    assert approved_in(paying(approve(7), approve(0)), USDC, PAYMASTER) == 0
    assert approved_in(paying(approve(7), approve(0, spender=SENDER)), USDC, PAYMASTER) == 7
    assert approved_in(paying(approve(7, token=SENDER)), USDC, PAYMASTER) == 0
    assert approved_in(paying(call_data=b"\xde\xad\xbe\xef"), USDC, PAYMASTER) == 0


def test_who_is_guaranteed_approves_enough_inside_the_operation() -> None:
    empty = replace(GOOD, allowance=0)
    most = max_charge(paying(), PRICE, guaranteed=True)
    assert charge(paying(approve(most)), empty, guaranteed=True) == most
    with pytest.raises(SponsorRefused) as refused:
        charge(paying(approve(most - 1)), empty, guaranteed=True)
    assert refused.value.rule == "no-repayment"
    with pytest.raises(SponsorRefused) as refused:
        check_credit(most - 1, most)
    assert refused.value.rule == "guarantor-credit"


def guarantee(context: object = None, terms: Terms = TERMS, **changes: Any) -> Any:
    offer = TokenOffer(**({"guarantee": True} | changes))
    return check_guarantee(paying(), PAYMASTER, context, terms, offer, 1, NOW_S)


def test_an_advance_is_for_accounts_that_are_named_or_that_a_trusted_engine_approved() -> None:
    claim = guarantee()
    assert (claim.amount_wei, claim.valid_until_s) == (required_prefund(paying()), NOW_S + TERMS.validity_s)
    for terms, changes, rule in (
        (TERMS, {"guarantee": False}, "no-guarantor"),
        (replace(TERMS, accounts=frozenset()), {}, "no-approval"),
        (replace(TERMS, accounts=frozenset({USDC})), {}, "no-approval"),
        (TERMS, {"verification_gas": 249_999}, "gas-ceiling"),
        (replace(TERMS, budget=Budget(10**16, 10**18, 10**18)), {}, "budget-operation"),
    ):
        with pytest.raises(SponsorRefused) as refused:
            guarantee(terms=terms, **changes)
        assert refused.value.rule == rule


def test_a_token_outside_the_settings_is_refused() -> None:
    check_token(USDC, TokenOffer())
    check_token(USDC, TokenOffer(tokens=(to_hex(USDC),)))
    with pytest.raises(SponsorRefused) as refused:
        check_token(SENDER, TokenOffer(tokens=(to_hex(USDC),)))
    assert refused.value.rule == "unknown-token"


def test_the_context_names_a_token_or_asks_for_sponsorship() -> None:
    assert Asked.from_context(None) is None
    assert Asked.from_context({"approval": {}}) is None
    assert Asked.from_context({"token": to_hex(USDC)}) == Asked(USDC, guarantee=False)
    assert Asked.from_context({"token": to_hex(USDC), "guarantee": True}) == Asked(USDC, guarantee=True)
    for wrong in ({"token": 7}, {"token": "usdc"}, {"token": to_hex(USDC), "guarantee": "yes"}):
        with pytest.raises(InvalidFields):
            Asked.from_context(wrong)


def test_paymaster_data_comes_back_as_it_was_and_other_lengths_are_refused() -> None:
    plain = TokenPayment(USDC, PRICE)
    guaranteed = TokenPayment(USDC, PRICE, Guarantor(GUARANTOR, NOW_S, b"\x07" * 65))
    for payment, size in ((plain, 52), (guaranteed, 149)):
        assert len(payment.encode()) == size
        assert TokenPayment.decode(payment.encode()) == payment
    for size in (0, 51, 53, 148, 150):
        with pytest.raises(BadInput):
            TokenPayment.decode(bytes(size))


def test_a_surcharge_above_a_fifth_is_never_asked_for() -> None:
    from contracts.token_paymaster import Oracle

    oracle = Oracle(USDC, 60, 1, 2)
    assert set_terms(USDC, oracle, 6, 2_000)
    with pytest.raises(BadInput):
        set_terms(USDC, oracle, 6, 2_001)


def test_a_guarantee_that_postop_did_not_end_was_lost_and_anothers_is_not_ours() -> None:
    from contracts.token_paymaster import CREDITED_GUARANTEE

    one = keccak(b"operation")

    def log(guarantor: Address, op_hash: bytes) -> dict[str, Any]:
        topics = [CREDITED_GUARANTEE.topic, op_hash, bytes(12) + guarantor]
        return {"address": to_hex(PAYMASTER), "topics": [to_hex(topic) for topic in topics]}

    assert unpaid_wei([log(GUARANTOR, one)], one, PAYMASTER, GUARANTOR, 9) == 9
    assert unpaid_wei([log(SENDER, one)], one, PAYMASTER, GUARANTOR, 9) == 0
    assert unpaid_wei([log(GUARANTOR, keccak(b"another"))], one, PAYMASTER, GUARANTOR, 9) == 0
