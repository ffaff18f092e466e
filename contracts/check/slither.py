"""Static analysis by slither. Every finding of high or medium impact has its explanation in slither.toml, or the check fails.

slither wants to compile by itself; it gets our compiler's syntax trees in the form of a forge build instead. Detectors that read
bytecode do not run (they are of no account here: they look for the compiler's version).
"""

from __future__ import annotations

import json
import shutil
import tomllib
from typing import Any

from contracts.check.result import Result
from contracts.check.syntax import analyse
from contracts.check.tools import OUT, REPOSITORY, run, tool
from contracts.compile import ROOT, settings

EXPLAINED = ROOT / "check" / "slither.toml"
_WORSE = ("High", "Medium")


def check() -> Result:
    """Run slither over contracts/src and hold its findings against the explanations."""
    out = OUT / "check" / "slither"
    shutil.rmtree(out, ignore_errors=True)
    (out / "build-info").mkdir(parents=True)
    request, answer = analyse()
    empty = {"object": "", "sourceMap": ""}
    for contracts in answer["contracts"].values():
        for contract in contracts.values():
            contract["evm"] |= {"bytecode": empty, "deployedBytecode": empty}
    build = {"solcVersion": settings()["version"], "input": request, "output": answer}
    (out / "build-info" / "sources.json").write_text(json.dumps(build))
    report = out / "report.json"
    run(
        [
            tool("slither"), ".", "--compile-force-framework", "foundry", "--ignore-compile",
            "--foundry-out-directory", out.relative_to(REPOSITORY), "--filter-paths", "node_modules",
            "--exclude-informational", "--exclude-optimization", "--json", report,
        ],
        log=OUT / "check" / "slither.log",
    )  # fmt: skip
    if not report.is_file():
        log = (OUT / "check" / "slither.log").read_text()
        return Result("slither", False, "did not run", (log[-2000:],))
    return judge(json.loads(report.read_text()), tomllib.loads(EXPLAINED.read_text()).get("finding", []))


def place(finding: dict[str, Any]) -> str:
    """Where a finding is: Contract.function, or Contract.function.variable, or Contract; without line numbers, which move."""
    names: list[str] = []
    element: dict[str, Any] | None = finding["elements"][0]
    while element and element["type"] in ("contract", "function", "variable", "node"):
        if element["type"] != "node":
            names.insert(0, element["name"])
        element = element.get("type_specific_fields", {}).get("parent")
    return ".".join(names)


def judge(report: dict[str, Any], explained: list[dict[str, Any]]) -> Result:
    """Fails for a finding without explanation, an explanation without finding, and a report of no success."""
    if not report.get("success"):
        return Result("slither", False, "did not finish", (str(report.get("error")),))
    reasons = {(entry["check"], where): entry["reason"] for entry in explained for where in entry["where"]}
    found = {}
    lower = 0
    for finding in report["results"].get("detectors", []):
        if finding["impact"] in _WORSE:
            found[finding["check"], place(finding)] = finding
        else:
            lower += 1
    problems = [
        f"{finding['impact']} {check} in {where}: not explained in slither.toml\n{finding['description'].strip()}"
        for (check, where), finding in found.items()
        if not reasons.get((check, where), "").strip()
    ]
    problems += [
        f"{check} in {where}: explained in slither.toml, but no longer found"
        for check, where in reasons.keys() - found.keys()
    ]
    figures = f"{len(found)} findings of high or medium impact, {len(found.keys() & reasons.keys())} explained; {lower} of low"
    return Result("slither", not problems, figures, tuple(problems))
