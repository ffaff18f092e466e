"""forge's part: unit, fuzz and invariant tests, and how many branches they take."""

from __future__ import annotations

import json
import tomllib
from collections import defaultdict
from typing import Any

from contracts.check.result import Result
from contracts.check.tools import OUT, run
from contracts.compile import ROOT
from contracts.forge import forge_binary

EXPLAINED = ROOT / "check" / "coverage.toml"
GOAL = 0.95


def tests(*, short: bool) -> Result:
    """Every Solidity test; 10,000 fuzz runs and long invariant sequences, or in short form the numbers of an ordinary run."""
    done = run(
        [forge_binary(), "test", "--json"],
        extra={"FOUNDRY_PROFILE": "default" if short else "deep"},
        log=OUT / "check" / "tests.log",
    )
    start = done.stdout.find("{")
    if start < 0:
        return Result("forge tests", False, "did not run", (done.stderr[-2000:] or done.stdout[-2000:],))
    return judge_tests(json.loads(done.stdout[start:]))


def judge_tests(suites: dict[str, Any]) -> Result:
    """Count forge's JSON report. Fails when a test failed, or when none of a kind ran."""
    kinds: defaultdict[str, int] = defaultdict(int)
    problems = []
    runs = calls = 0
    for suite, report in suites.items():
        for name, test in report["test_results"].items():
            kind = test["kind"]
            if "Fuzz" in kind:
                kinds["fuzz"] += 1
                runs += kind["Fuzz"].get("runs", 0)
            elif "Invariant" in kind:
                kinds["invariant"] += 1
                calls += kind["Invariant"].get("calls", 0)
            else:
                kinds["unit"] += 1
            if test["status"] != "Success":
                problems.append(f"{suite} {name}: {test['status']} {test.get('reason') or ''}".rstrip())
    problems += [f"no {kind} test ran" for kind in ("unit", "fuzz", "invariant") if not kinds[kind]]
    figures = (
        f"{kinds['unit']} unit, {kinds['fuzz']} fuzz ({runs:,} runs), {kinds['invariant']} invariants ({calls:,} calls)"
    )
    return Result("forge tests", not problems, figures, tuple(problems))


def coverage() -> Result:
    """Branch coverage of contracts/src by forge. A file below 95 % stands in coverage.toml with its reason."""
    report = OUT / "check" / "lcov.info"
    report.parent.mkdir(parents=True, exist_ok=True)
    # The optimiser would merge branches; without it the compiler needs its intermediate language, for the stack is too deep.
    done = run(
        [forge_binary(), "coverage", "--ir-minimum", "--report", "lcov", "--report-file", report, "--fuzz-runs", "64"],
        log=OUT / "check" / "coverage.log",
    )
    if done.returncode != 0 or not report.is_file():
        return Result("branch coverage", False, "did not run", (done.stdout[-2000:] + done.stderr[-2000:],))
    explained = tomllib.loads(EXPLAINED.read_text())["file"] if EXPLAINED.is_file() else {}
    return judge_coverage(branches(report.read_text()), explained)


def branches(lcov: str) -> dict[str, tuple[int, int]]:
    """Branches taken and branches found, by source file of contracts/src, from an lcov report."""
    taken: dict[str, tuple[int, int]] = {}
    source = ""
    hit = found = 0
    for line in lcov.splitlines():
        key, _, value = line.partition(":")
        if key == "SF":
            source, hit, found = value, 0, 0
        elif key == "BRDA":
            found += 1
            hit += value.rsplit(",", 1)[1] not in ("-", "0")
        elif line == "end_of_record" and "contracts/src/" in source:
            taken[source[source.index("contracts/src/") :]] = (hit, found)
    return taken


def judge_coverage(taken: dict[str, tuple[int, int]], explained: dict[str, dict[str, Any]]) -> Result:
    """Hold each file to 95 %, or to what coverage.toml allows it with a reason.

    `explained` has by source file the number of branches that may stay untaken (`untaken`) and the `reason`. Fails too for
    an allowance that is no longer needed.
    """
    problems = []
    for source, (hit, found) in sorted(taken.items()):
        untaken, allowed = found - hit, explained.get(source)
        if allowed is None:
            if found and hit / found < GOAL:
                problems.append(
                    f"{source}: {hit} of {found} branches ({hit / found:.0%}), and no reason in coverage.toml"
                )
        elif untaken > allowed["untaken"]:
            problems.append(f"{source}: {untaken} branches untaken, coverage.toml allows {allowed['untaken']}")
        elif found and hit / found >= GOAL:
            problems.append(f"{source}: {hit} of {found} branches: its reason in coverage.toml is no longer needed")
    problems += [f"{source}: in coverage.toml, but not in the report" for source in explained if source not in taken]
    hits, all_ = (sum(part) for part in zip(*taken.values(), strict=True)) if taken else (0, 0)
    if not all_:
        problems.append("the report names no branch")
    figures = f"{hits} of {all_} branches ({hits / max(all_, 1):.1%}); {len(explained)} files with a reason for less than {GOAL:.0%}"
    return Result("branch coverage", not problems, figures, tuple(problems))
