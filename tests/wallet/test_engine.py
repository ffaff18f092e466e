"""The engine remembers what its decisions saw, and lets no two operations through that were not judged together."""

from __future__ import annotations

import asyncio
import json
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from contracts.eoa import Eoa
from contracts.errors import PolicyRefused
from contracts.types import keccak
from contracts.userop import UserOperation, intent_hash
from policies import Decision, Policy, evaluate
from policies.attestation import decode_attested_envelope, encode_attested_envelope, recover_signer
from policies.policy import Limit, Parameters, Scope
from tests.policies.rig import ACCOUNT, BOOK, NOW_S, address, closing, opening, policy_of, portfolio
from wallet.audit import AuditLog
from wallet.audit_verify import verify
from wallet.engine import Engine

ROOT = Path(__file__).parents[2]
LIMIT = "limits: [{id: gross, metric: gross_notional, max: 30000, hysteresis: 10%}]\n"
BUY = "calls: [{target: perp.clearing_house, functions: [openPosition, closePosition]}]\n"
EXIT = "exits: [{target: perp.clearing_house, function: closePosition, args: {baseToken: perp.eth}}]\n"
KEY = Eoa(keccak(b"an engine"))
POLICY = policy_of(LIMIT + BUY + EXIT)


def engine_of(policy: Policy, folder: Path, key: Eoa | None = KEY) -> Engine:
    return Engine(policy, key, 1337, BOOK["seawall.risk_validator"], AuditLog(folder / "audit.db"))


def an_op(nonce: int) -> UserOperation:
    return UserOperation(ACCOUNT, nonce, b"\x01", call_gas_limit=100, max_fee_per_gas=2)


def allowed(engine: Engine, nonce: int) -> tuple[Decision, UserOperation]:
    """An operation and the decision that allows it, as if nothing else were going on."""
    op = an_op(nonce)
    decision = evaluate(engine.policy, opening(engine.policy, nonce=nonce, intent_hash=intent_hash(op)), NOW_S)
    assert decision.allowed, decision.summary
    return decision, op


def attest(engine: Engine, judged: tuple[Decision, UserOperation], **changes: Any) -> bytes:
    decision, op = judged
    given: dict[str, Any] = {"entry_point": address("ep"), "epoch": 1, "now_s": NOW_S}
    return engine.attest(decision, op, signable_hash=keccak(str(op.nonce).encode()), **(given | changes))


def test_hysteresis_outlives_the_process_that_saw_the_breach(tmp_path: Path) -> None:
    facts = opening(POLICY)
    assert engine_of(POLICY, tmp_path).latched(ACCOUNT) == frozenset()
    breached = replace(facts, before=portfolio("400"))
    engine_of(POLICY, tmp_path).decide(breached, NOW_S)
    again = engine_of(POLICY, tmp_path)
    assert again.latched(ACCOUNT) == {"gross"}
    assert again.latched(bytes(20)) == frozenset()
    assert again.decide(replace(facts, latched=again.latched(ACCOUNT)), NOW_S).limits[0].bound == 27_000
    assert again.latched(ACCOUNT) == frozenset(), "the portfolio was seen inside the tightened bound"


def test_another_policy_has_latches_of_its_own(tmp_path: Path) -> None:
    engine_of(POLICY, tmp_path).decide(opening(POLICY, before=portfolio("400")), NOW_S)
    other = policy_of(LIMIT.replace("30000", "30001") + BUY)
    assert engine_of(other, tmp_path).latched(ACCOUNT) == frozenset()


def test_an_attestation_is_outstanding_until_it_ends_or_its_nonce_has_passed(tmp_path: Path) -> None:
    engine = engine_of(POLICY, tmp_path)
    attest(engine, allowed(engine, 7))
    end_s = NOW_S + POLICY.attestation_validity_s
    assert [one.nonce for one in engine.outstanding(ACCOUNT, 7, NOW_S)] == [7]
    assert [one.nonce for one in engine.outstanding(ACCOUNT, 1 << 64, NOW_S)] == [7], "another lane"
    assert engine.outstanding(ACCOUNT, 8, NOW_S) == ()
    assert engine.outstanding(ACCOUNT, 7, end_s) == ()
    assert engine.outstanding(bytes(20), 7, NOW_S) == ()


def test_a_second_operation_is_refused_while_the_first_may_still_be_used(tmp_path: Path) -> None:
    engine = engine_of(POLICY, tmp_path)
    first, second = allowed(engine, 7), allowed(engine, 1 << 64)
    attest(engine, first)
    with pytest.raises(PolicyRefused, match="attested while this one was judged"):
        attest(engine, second)
    attest(engine, second, now_s=NOW_S + POLICY.attestation_validity_s)


def test_two_operations_of_one_nonce_may_both_be_attested_as_only_one_is_included(tmp_path: Path) -> None:
    engine = engine_of(POLICY, tmp_path)
    decision, op = allowed(engine, 7)
    attest(engine, (decision, op))
    attest(engine, (decision, op.replace(max_fee_per_gas=3)))


def test_a_declared_exit_is_attested_whatever_is_outstanding(tmp_path: Path) -> None:
    engine = engine_of(POLICY, tmp_path)
    attest(engine, allowed(engine, 7))
    out = evaluate(POLICY, closing(POLICY, nonce=1 << 64), NOW_S)
    assert [row.rule for row in out.calls] == ["exit"]
    attest(engine, (out, an_op(1 << 64)))


def test_of_many_threads_with_operations_of_their_own_one_is_attested(tmp_path: Path) -> None:
    judged = [allowed(engine_of(POLICY, tmp_path), lane << 64) for lane in range(8)]
    start = threading.Barrier(len(judged))

    def work(one: tuple[Decision, UserOperation]) -> str:
        engine = engine_of(POLICY, tmp_path)
        start.wait()
        try:
            attest(engine, one)
        except PolicyRefused:
            return "refused"
        return "attested"

    with ThreadPoolExecutor(len(judged)) as pool:
        outcomes = list(pool.map(work, judged))
    assert sorted(outcomes) == ["attested"] + ["refused"] * 7
    assert verify(AuditLog(tmp_path / "audit.db")).sound


_PROCESS = """
import sys
from pathlib import Path
from contracts.errors import PolicyRefused
from tests.wallet.test_engine import POLICY, allowed, attest, engine_of
engine = engine_of(POLICY, Path(sys.argv[1]))
judged = allowed(engine, int(sys.argv[2]) << 64)
print("ready", flush=True)
sys.stdin.readline()
try:
    attest(engine, judged)
    print("attested")
except PolicyRefused:
    print("refused")
"""


async def test_of_many_processes_with_operations_of_their_own_one_is_attested(tmp_path: Path) -> None:
    processes = [
        await asyncio.create_subprocess_exec(
            sys.executable, "-c", _PROCESS, str(tmp_path), str(lane), cwd=ROOT,
            stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE,
        )
        for lane in range(3)
    ]  # fmt: skip
    async with asyncio.timeout(60):
        for process in processes:
            assert process.stdout is not None
            assert await process.stdout.readline() == b"ready\n"
        answers = await asyncio.gather(*(process.communicate(b"go\n") for process in processes))
    assert sorted(out.decode().strip() for out, _ in answers) == ["attested", "refused", "refused"]


def test_what_was_attested_is_given_again_byte_for_byte_while_it_is_valid(tmp_path: Path) -> None:
    engine = engine_of(POLICY, tmp_path)
    judged = allowed(engine, 7)
    given = attest(engine, judged)
    again, final = engine_of(POLICY, tmp_path), keccak(b"7")
    assert again.attested(final, NOW_S + 5) == given
    assert again.attested(final, NOW_S + POLICY.attestation_validity_s) is None
    assert again.attested(keccak(b"8"), NOW_S) is None
    assert engine_of(POLICY, tmp_path, Eoa(keccak(b"another"))).attested(final, NOW_S) is None
    assert engine_of(policy_of(LIMIT + BUY), tmp_path).attested(final, NOW_S) is None, "another policy"


def test_every_attestation_signs_the_head_of_the_log(tmp_path: Path) -> None:
    engine = engine_of(POLICY, tmp_path)
    attest(engine, allowed(engine, 7))
    report = verify(engine.log)
    assert report.sound, report.problems
    assert report.signed_until == report.entries


def test_several_engines_attest_one_operation_in_one_envelope(tmp_path: Path) -> None:
    """k of n: each engine with a key and log of its own; the chain wants them in ascending order of address."""
    keys = [Eoa(keccak(name)) for name in (b"one", b"two", b"three")]
    decision, op = allowed(engine_of(POLICY, tmp_path), 7)
    parts = [attest(engine_of(POLICY, tmp_path / str(n), key), (decision, op)) for n, key in enumerate(keys)]
    envelope = decode_attested_envelope(encode_attested_envelope(b"owner", parts))
    assert [a.engine for a in envelope.attestations] == sorted(key.address for key in keys)
    assert len({a.facts_hash for a in envelope.attestations}) == 1
    assert {recover_signer(_digest(decision, op), a.signature) for a in envelope.attestations} == {
        key.address for key in keys
    }


def _digest(decision: Decision, op: UserOperation) -> bytes:
    from policies.attestation import Attestation

    return Attestation(
        op.sender, address("ep"), keccak(b"7"), intent_hash(op), POLICY.policy_id, 1, decision.facts_hash, 1, 0,
        NOW_S + POLICY.attestation_validity_s,
    ).digest(1337, BOOK["seawall.risk_validator"])  # fmt: skip


def test_the_history_holds_what_was_judged_and_attested(tmp_path: Path) -> None:
    engine = engine_of(POLICY, tmp_path)
    op = an_op(7)
    facts = opening(POLICY, intent_hash=intent_hash(op))
    decision = engine.decide(facts, NOW_S)
    attest(engine, (decision, op), facts=facts)
    later = replace(facts, block_time_s=NOW_S + 100, before=portfolio("10", mark="190"))
    engine.decide(later, NOW_S + 100)
    history = engine.history(ACCOUNT, NOW_S - 3_600)
    assert history is not None
    assert [(p.time_s, p.equity) for p in history.equity] == [(NOW_S, 10_500), (NOW_S + 100, 10_400)]
    (done,) = history.activity
    assert (done.time_s, done.intent_hash, done.traded, done.gas_wei) == (NOW_S, intent_hash(op), 30_000, 200)
    assert history.since_s == NOW_S, "nothing is known of the time before the first decision"
    window = engine.history(ACCOUNT, NOW_S + 50)
    assert window is not None
    assert window.since_s == NOW_S + 50
    assert window.activity == ()
    assert [p.time_s for p in window.equity] == [NOW_S, NOW_S + 100], "and the last point before the window"
    assert engine.history(bytes(20), NOW_S) is None


def test_the_record_of_an_account_that_never_acted_before_is_complete_from_ever(tmp_path: Path) -> None:
    engine = engine_of(POLICY, tmp_path)
    engine.decide(opening(POLICY, nonce=5 << 96), NOW_S)
    engine.decide(opening(POLICY, nonce=(5 << 96) + 1, block_time_s=NOW_S + 9), NOW_S + 9)
    history = engine.history(ACCOUNT, 0)
    assert history is not None
    assert history.since_s == 0


def test_facts_carry_as_much_of_the_record_as_the_policy_looks_at(tmp_path: Path) -> None:
    rate = Limit("rate", "order_rate", Scope(), True, Decimal(1), parameters=Parameters(window_s=3_600))
    policy = replace(policy_of(BUY), limits=(rate,))
    engine = engine_of(policy, tmp_path)
    first = engine.informed(opening(policy, nonce=5 << 96))
    assert first.history is not None
    assert [p.time_s for p in first.history.equity] == [NOW_S], (
        "what the account is worth now, before anything is on record"
    )
    decision = engine.decide(first, NOW_S)
    assert decision.allowed, decision.summary
    attest(engine, (decision, an_op(5 << 96)), facts=first)
    then_s = NOW_S + 900
    later = opening(policy, nonce=(5 << 96) + 1, block_time_s=then_s, prices=(replace(first.prices[0], time_s=then_s),))
    second = engine.decide(engine.informed(later), then_s)
    assert not second.allowed
    assert second.limits[0].after == 2
    assert engine_of(POLICY, tmp_path).informed(later).history is None, "this policy looks at no record"


def test_of_operations_of_one_nonce_the_history_holds_the_last(tmp_path: Path) -> None:
    engine = engine_of(POLICY, tmp_path)
    decision, op = allowed(engine, 7)
    attest(engine, (decision, op))
    attest(engine, (decision, op.replace(max_fee_per_gas=3)))
    engine.decide(opening(POLICY), NOW_S)
    history = engine.history(ACCOUNT, NOW_S)
    assert history is not None
    assert [done.gas_wei for done in history.activity] == [300]


def test_what_was_paid_in_stands_beside_the_equity(tmp_path: Path) -> None:
    engine = engine_of(POLICY, tmp_path)
    engine.paid_in[ACCOUNT] = Decimal(2_000)
    engine.decide(opening(POLICY), NOW_S)
    history = engine.history(ACCOUNT, NOW_S)
    assert history is not None
    (point,) = history.equity
    assert point.paid_in == 2_000


def test_a_decision_is_recorded_whole(tmp_path: Path) -> None:
    engine = engine_of(POLICY, tmp_path)
    decision = engine.decide(opening(POLICY), NOW_S)
    (entry,) = engine.log.entries()
    assert entry.body["decision"] == decision.to_json()
    assert entry.body["id"] == "0x" + decision.id.hex()
    facts = engine.log.facts(decision.facts_hash)
    assert facts is not None
    assert json.loads(facts)["account"] == "0x" + ACCOUNT.hex()
    assert engine.log.policy(POLICY.policy_id) == (1, json.loads(json.dumps(POLICY.document)))
