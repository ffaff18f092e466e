"""Quorums of a policy: who sits in them, whose approvals count, and what is still lacking."""

from __future__ import annotations

from dataclasses import replace

import pytest

from contracts.eoa import Eoa
from contracts.errors import BadInput
from contracts.types import checksum, keccak
from policies import load
from policies.approvals import Granted, Quorum, Subject, enough, in_force, needed, quorums
from policies.attestation import SignedApproval, on_chain_id
from policies.problems import InvalidPolicy

KEYS = sorted((Eoa(keccak(name)) for name in (b"ann", b"bob", b"cyd")), key=lambda eoa: eoa.address)
PEOPLE = tuple(key.address for key in KEYS)
DESK, BOARD = Quorum("desk", 1, PEOPLE), Quorum("board", 2, PEOPLE[:2])
SUBJECT = Subject(b"\x01" * 20, b"\x02" * 20, keccak(b"intent"), keccak(b"policy"), 1, 10, b"\x03" * 20)
TEXT = f"""\
schema: 1
name: quorums
version: "1"
addresses: {{ann: "{checksum(PEOPLE[1])}", bob: "{checksum(PEOPLE[0])}", twin: "{checksum(PEOPLE[0])}"}}
limits:
  - {{id: large, metric: leverage, max: 2, action: require_signers, approval: desk}}
approvals:
  - {{id: desk, signers: [SIGNERS], quorum: 2}}
"""


def yes(key: Eoa, until_s: int = 0, subject: Subject = SUBJECT) -> SignedApproval:
    return SignedApproval(key.address, until_s, key.sign_hash(subject.digest(until_s)))


def test_signers_are_addresses_in_ascending_order_under_the_hash_of_the_quorums_name() -> None:
    (found,) = quorums(load(TEXT.replace("SIGNERS", "ann, bob, risk_officer")), {"risk_officer": PEOPLE[2]})
    assert found == Quorum("desk", 2, PEOPLE)
    assert found.on_chain().id == on_chain_id("desk")


def test_an_unknown_signer_and_one_person_under_two_names_are_refused() -> None:
    with pytest.raises(BadInput, match="'risk_officer', which has no address"):
        quorums(load(TEXT.replace("SIGNERS", "ann, risk_officer")), {})
    with pytest.raises(BadInput, match="'twin' and 'bob' are both"):
        quorums(load(TEXT.replace("SIGNERS", "bob, twin")), {})


def test_more_quorums_than_the_chain_takes_are_an_error_of_the_file() -> None:
    more = "".join(f"  - {{id: q{i}, signers: [ann], quorum: 1}}\n" for i in range(8))
    with pytest.raises(InvalidPolicy, match="8 quorums"):
        load(TEXT.replace("SIGNERS", "ann, bob") + more)


def test_only_approvals_of_this_very_subject_that_are_not_over_count() -> None:
    ann, bob, cyd = KEYS
    other = [
        replace(SUBJECT, **{field: value})
        for field, value in (
            ("account", b"\x09" * 20), ("entry_point", b"\x09" * 20), ("intent_hash", keccak(b"another")),
            ("policy_id", keccak(b"another")), ("policy_epoch", 2), ("chain_id", 11), ("risk_validator", b"\x09" * 20),
        )
    ]  # fmt: skip
    assert in_force(SUBJECT, [yes(ann, 0, one) for one in other], 100) == ()
    lent = SignedApproval(bob.address, 0, yes(ann).signature)
    longer = replace(yes(cyd, 150), valid_until_s=500)
    assert in_force(SUBJECT, [lent, longer], 100) == ()
    assert in_force(SUBJECT, [yes(ann, 100), yes(bob, 101)], 100) == (yes(bob, 101),)


def test_of_one_signer_the_longest_counts_once() -> None:
    ann, bob, _ = KEYS
    given = [yes(bob, 200), yes(ann, 300), yes(ann, 0), yes(ann, 200)]
    assert in_force(SUBJECT, given, 100) == (yes(ann, 0), yes(bob, 200))
    assert Granted(("desk",), (yes(ann, 0), yes(bob, 200))).valid_until_s == 200


def test_every_quorum_asked_must_be_satisfied_and_the_rest_is_named() -> None:
    ann, bob, cyd = KEYS
    assert needed(["board", "desk"], [DESK, BOARD], [yes(ann), yes(bob)]) == ((yes(ann), yes(bob)), ())
    counting, (lacking,) = needed(["board", "desk"], [DESK, BOARD], [yes(cyd), yes(ann)])
    assert counting == (yes(cyd), yes(ann))
    assert lacking == f"quorum 'board' has 1 of 2 approvals; still possible: {checksum(bob.address)}"
    _, (lacking,) = needed(["trustees"], [DESK], [yes(ann)])
    assert "not one of the policy's approvals" in lacking


def test_one_signer_twice_is_one_approval() -> None:
    ann = KEYS[0]
    assert not enough(BOARD, [yes(ann), yes(ann, 9)])
    assert enough(DESK, [yes(ann), yes(ann, 9)])
