"""Symbolic proofs: halmos runs every `check_` function of contracts/proof on the bytecode that the pinned settings give.

What a proof assumes, and what it does not cover, stands in its NatSpec; what the solver does not finish, in halmos.toml.
"""

from __future__ import annotations

import json
import tomllib
from typing import Any

from contracts.check.result import Result
from contracts.check.tools import OUT, REPOSITORY, run, tool
from contracts.compile import ROOT

UNFINISHED = ROOT / "check" / "halmos.toml"
_PASS, _TIMEOUT = 0, 2
# halmos 0.3: the exit codes of one proof.
_OUTCOMES = {
    1: "counterexample found",
    2: "solver ran out of time",
    3: "some path could not be followed",
    4: "every path reverts",
    5: "failed",
}
# Yices 2.6.4, halmos' own choice, calls queries of EmergencyFreezeProof satisfiable that are not (its models do not satisfy them).
# For sums of bit fields it is the one that finishes.
_SOLVERS = {"EmergencyFreezeProof": "z3", "SpendingWindowProof": "yices-smt2"}


def check(*, timeout_s: int = 30) -> Result:
    """Prove everything of contracts/proof; `timeout_s` bounds each query of the solver."""
    results: dict[str, Any] = {}
    for contract, solver in _SOLVERS.items():
        report = OUT / "check" / f"{contract}.json"
        report.parent.mkdir(parents=True, exist_ok=True)
        report.unlink(missing_ok=True)
        done = run(
            [
                tool("halmos"), "--root", REPOSITORY, "--forge-build-out", "contracts/out/halmos",
                "--match-contract", f"^{contract}$", "--loop", "8", "--solver-command", str(tool(solver)),
                "--solver-timeout-assertion", f"{timeout_s}s", "--no-status", "--json-output", report,
            ],
            extra={"FOUNDRY_PROFILE": "halmos"},
            log=OUT / "check" / f"{contract}.log",
        )  # fmt: skip
        if not report.is_file():
            return Result("halmos", False, f"{contract} did not run", ((done.stdout + done.stderr)[-2000:],))
        results |= json.loads(report.read_text())["test_results"]
    return judge(results, tomllib.loads(UNFINISHED.read_text())["unfinished"])


def judge(results: dict[str, Any], unfinished: list[dict[str, Any]]) -> Result:
    """Fails for a proof that did not pass, one that met a bound of the engine, and when there was none.

    `results` are halmos' by contract. Only the solver's time is excused, by an entry of `unfinished` (`proof`, `reached`).
    """
    excused = {entry["proof"] for entry in unfinished if entry["reached"].strip()}
    problems = []
    names = set()
    proved = paths = 0
    for contract, proofs in results.items():
        for proof in proofs:
            name = f"{contract.rsplit(':', 1)[-1]}.{proof['name'].partition('(')[0]}"
            names.add(name)
            paths += (proof.get("num_paths") or [0])[0]
            if proof["exitcode"] == _TIMEOUT and name in excused:
                continue
            if proof["exitcode"] != _PASS:
                problems.append(f"{name}: {_OUTCOMES.get(proof['exitcode'], proof['exitcode'])}")
            elif proof.get("num_bounded_loops"):
                problems.append(f"{name}: {proof['num_bounded_loops']} loops were cut off")
            else:
                proved += 1
    if not proved:
        problems.append("nothing was proved")
    problems += [f"{name}: in halmos.toml, but there is no such proof" for name in sorted(excused - names)]
    return Result("halmos", not problems, f"{proved} of {len(names)} proved, {paths:,} paths", tuple(problems))
