"""What a decision costs against a log of two thousand entries (a good day's) and against one of a hundred thousand, in one run.

    python benchmarks/policy/audit_log.py [ENTRIES]

Medians of 200: the lookups that a judgement needs, and one judgement written to the disk (fsync included). The ratio is the claim; the
milliseconds are this machine's.
"""

from __future__ import annotations

import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import replace
from decimal import Decimal
from pathlib import Path
from typing import Any

from contracts.types import checksum, keccak, to_hex
from policies import evaluate
from policies.portfolio import EquityPoint
from tests.policies.rig import ACCOUNT, NOW_S, address, opening, policy_of, portfolio
from wallet.audit import ATTESTATION, DECISION, AuditLog
from wallet.audit_verify import verify
from wallet.engine import Engine
from wallet.equity import remember

RUNS = 200


def filled(path: Path, entries: int) -> tuple[Engine, Callable[[int], None]]:
    """A log with so many entries, one in five an attestation long used, a minute apart."""
    policy = policy_of("limits: [{id: gross, metric: gross_notional, max: 90000, hysteresis: 10%}]\n")
    engine = Engine(policy, None, 1337, address("seawall.risk_validator"), AuditLog(path))
    facts = opening(policy, before=portfolio("10"))
    decision = evaluate(policy, facts, NOW_S)
    start_s = NOW_S - 60 * entries
    with engine.log.transaction() as log:
        log.keep_facts(facts)
        log.keep_policy(policy)
        body: dict[str, Any] = {
            "account": checksum(ACCOUNT), "policyId": to_hex(policy.policy_id), "seawall": "0", "probes": None, "latched": [],
            "decision": decision.to_json(), "equity": None,
        }  # fmt: skip
        for n in range(entries):
            at = start_s + 60 * n
            name = to_hex(keccak(n.to_bytes(8)))
            if n % 5 == 4:
                spent = {"nonce": str(n), "intentHash": name, "userOpHash": name, "validUntil": at + 600}
                costs = {"traded": "1000", "realised": "0", "gasWei": "1", "sponsoredWei": "1"}
                log.append(ATTESTATION, {"account": checksum(ACCOUNT), "at": at, **spent, **costs})
            else:
                seen = {"time": at, "equity": str(10_000 + n % 97), "paidIn": "0"}
                log.append(DECISION, body | {"at": at, "id": name, "equity": seen})
                remember(log.db, ACCOUNT, EquityPoint(at, Decimal(10_000 + n % 97), Decimal(0)))

    def judge(n: int) -> None:
        engine.decide(replace(facts, nonce=n, latched=engine.latched(ACCOUNT)), NOW_S)

    return engine, judge


def median_ms(work: Callable[[int], object]) -> float:
    times = []
    for n in range(RUNS):
        start = time.perf_counter()
        work(n)
        times.append(time.perf_counter() - start)
    return statistics.median(times) * 1_000


def main() -> None:
    entries = int(sys.argv[1]) if len(sys.argv) > 1 else 100_000
    with tempfile.TemporaryDirectory() as folder:
        rows: dict[str, list[float]] = {"lookups": [], "history of a day": [], "judgement and record": []}
        for count in (2_000, entries):
            engine, judge = filled(Path(folder) / f"{count}.db", count)

            def look(_: int, engine: Engine = engine) -> None:
                engine.outstanding(ACCOUNT, 0, NOW_S)
                engine.sponsored_today(ACCOUNT, NOW_S)
                engine.latched(ACCOUNT)

            rows["lookups"].append(median_ms(look))
            rows["history of a day"].append(median_ms(lambda _, e=engine: e.history(ACCOUNT, NOW_S - 86_400)))  # type: ignore[misc]
            rows["judgement and record"].append(median_ms(judge))
            start = time.perf_counter()
            report = verify(engine.log)
            rows.setdefault("verify all", []).append((time.perf_counter() - start) * 1_000)
            assert report.sound, report.problems[:3]
        print(f"{'median, ms':<24}{'2,000 entries':>14}{f'{entries:,} entries':>20}{'ratio':>10}")
        for name, (few, many) in rows.items():
            print(f"{name:<24}{few:>14.3f}{many:>20.3f}{many / few:>10.2f}")


if __name__ == "__main__":
    main()
