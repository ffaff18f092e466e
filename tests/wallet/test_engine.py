"""The engine remembers what its decisions saw."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from policies import Policy
from tests.policies.rig import ACCOUNT, NOW_S, address, opening, policy_of, portfolio
from wallet.audit import AuditLog
from wallet.engine import Engine

LIMIT = "limits: [{id: gross, metric: gross_notional, max: 30000, hysteresis: 10%}]\n"
BUY = "calls: [{target: perp.clearing_house, functions: [openPosition, closePosition]}]\n"


def engine_of(policy: Policy, folder: Path) -> Engine:
    return Engine(policy, None, 1337, address("seawall.risk_validator"), AuditLog(folder / "audit.jsonl"))


def test_hysteresis_outlives_the_process_that_saw_the_breach(tmp_path: Path) -> None:
    policy = policy_of(LIMIT + BUY)
    facts = opening(policy)
    assert engine_of(policy, tmp_path).latched(ACCOUNT) == frozenset()
    breached = replace(facts, before=portfolio("400"))
    engine_of(policy, tmp_path).decide(breached, NOW_S)
    again = engine_of(policy, tmp_path)
    assert again.latched(ACCOUNT) == {"gross"}
    assert again.latched(bytes(20)) == frozenset()
    assert again.decide(replace(facts, latched=again.latched(ACCOUNT)), NOW_S).limits[0].bound == 27_000
    assert again.latched(ACCOUNT) == frozenset(), "the portfolio was seen inside the tightened bound"
