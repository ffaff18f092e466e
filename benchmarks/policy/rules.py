"""Decisions a second on one core: 24 typed limits, the list of those that fail, beside two CEL engines, in one run.

    python benchmarks/policy/rules.py [SECONDS]

All three judge the same figures by the same bounds and must name the same failing limits. Ours: the closures that `evaluate` runs, over
exact Decimals, with warnings, hysteresis and the breached-before rule worked out (the others only compare doubles). cel-expr-python (cel-cpp):
one program that builds the list. common-expression-language (Rust): the same program. Metrics are given, not computed. The ratios are the
claim; the rates are this machine's.
"""

from __future__ import annotations

import random
import statistics
import sys
import time
from collections.abc import Callable
from decimal import Decimal

import cel
from cel_expr_python import cel as cel_cpp

from policies.limits import Limit
from policies.rules import compile_rules
from tests.policies.rig import policy_of

NAMES = (
    "gross_notional", "net_notional", "leverage", "equity", "liquidation_distance", "margin_use",
    "free_collateral", "health_factor", "debt", "loan_to_value", "turnover", "order_rate", "gas_spent", "loss",
    "drawdown", "realised_pnl", "pnl", "vega", "theta", "rho", "dollar_delta", "dollar_gamma", "value_at_risk",
    "expected_shortfall",
)  # fmt: skip
LOWER = {"equity", "liquidation_distance", "free_collateral", "health_factor", "realised_pnl", "pnl"}
PERCENT = {"liquidation_distance", "margin_use", "loan_to_value", "drawdown"}
ROUNDS = 7
CASES = 512


def limits() -> tuple[Limit, ...]:
    lines = ", ".join(
        f"{{id: {n}, metric: {n}, {'min' if n in LOWER else 'max'}: 50{'%' if n in PERCENT else ''}}}" for n in NAMES
    )
    return policy_of(f"limits: [{lines}]\n").limits


def bound(limit: Limit) -> float:
    return float(limit.bound)


def main(seconds: float = 1.0) -> None:
    found = limits()
    rules = compile_rules(found)
    judges = [(rule.limit.id, rule.judge, rule.limit.bound) for rule in rules]
    rng = random.Random(7)  # noqa: S311  # figures to judge, no secret
    rows = []
    for _ in range(CASES):
        inside = [limit.bound * Decimal(str(round(rng.uniform(0.1, 0.99), 6))) for limit in found]
        row = [v if limit.is_max else limit.bound * limit.bound / v for limit, v in zip(found, inside, strict=True)]
        for i in rng.sample(range(len(row)), rng.choice((0, 0, 0, 1, 2))):  # most operations pass everything
            row[i] = found[i].bound * (2 if found[i].is_max else Decimal("0.5"))
        rows.append([value.quantize(Decimal("1E-18")) for value in row])
    doubles = [{name: float(v) for name, v in zip(NAMES, row, strict=True)} for row in rows]

    def ours(i: int) -> list[str]:
        row = rows[i]
        return [
            name
            for (name, judge, before), value in zip(judges, row, strict=True)  # at its bound before
            if judge(value, before, False)[0] in ("deny", "require_signers")
        ]

    parts = [f"({limit.id} {'<=' if limit.is_max else '>='} {bound(limit)!r} ? [] : ['{limit.id}'])" for limit in found]
    while len(parts) > 1:  # a balanced sum: engines bound the depth of an expression
        pairs = [parts[i : i + 2] for i in range(0, len(parts), 2)]
        parts = [f"({' + '.join(pair)})" for pair in pairs]
    environment = cel_cpp.NewEnv(variables=dict.fromkeys(NAMES, cel_cpp.Type.DOUBLE))
    compiled, rust = environment.compile(parts[0]), cel.compile(parts[0])

    def cpp(i: int) -> list[str]:
        answer: list[str] = compiled.eval(data=doubles[i]).plain_value()  # type: ignore[assignment]
        return answer

    def by_rust(i: int) -> list[str]:
        answer: list[str] = rust.execute(doubles[i])
        return answer

    for i in range(CASES):
        assert ours(i) == cpp(i) == by_rust(i)

    def rate(judge: Callable[[int], list[str]]) -> float:
        done, began = 0, time.perf_counter()
        while time.perf_counter() - began < seconds:
            for i in range(CASES):
                judge(i)
            done += CASES
        return done / (time.perf_counter() - began)

    engines = {"seawall": ours, "cel-expr-python": cpp, "common-expression-language": by_rust}
    rates: dict[str, list[float]] = {name: [] for name in engines}
    for _ in range(ROUNDS):  # by turns, so that a busy machine is busy for all
        for name, engine in engines.items():
            rates[name].append(rate(engine))
    print(f"{len(judges)} limits, {CASES} cases, median of {ROUNDS} rounds, one core")
    base = statistics.median(rates["seawall"])
    for name, seen in rates.items():
        middle = statistics.median(seen)
        print(f"{name:<28} {middle:>10,.0f} decisions/s   seawall is {base / middle:5.1f} times as fast")


if __name__ == "__main__":
    main(*(float(a) for a in sys.argv[1:2]))
