"""The verdicts of `make contracts-check` on what its tools report."""

from __future__ import annotations

from typing import Any

from contracts.check import halmos, slither, solidity
from contracts.check.result import Result, summary

LCOV = """SF:contracts/src/modules/A.sol
BRDA:1,0,0,3
BRDA:1,0,1,-
BRDA:2,1,0,0
end_of_record
SF:node_modules/solady/src/B.sol
BRDA:1,0,0,0
end_of_record
"""


def _finding(impact: str = "Medium", check: str = "unused-return") -> dict[str, Any]:
    contract = {"type": "contract", "name": "StopLoss"}
    function = {"type": "function", "name": "arm", "type_specific_fields": {"parent": contract}}
    node = {"type": "node", "name": "x = y", "type_specific_fields": {"parent": function}}
    return {"impact": impact, "check": check, "description": "ignores a value", "elements": [node]}


def _report(*findings: dict[str, Any]) -> dict[str, Any]:
    return {"success": True, "error": None, "results": {"detectors": list(findings)}}


def _explained(where: str = "StopLoss.arm", reason: str = "because") -> list[dict[str, Any]]:
    return [{"check": "unused-return", "where": [where], "reason": reason}]


def test_a_finding_is_named_by_contract_and_function_and_not_by_its_line() -> None:
    assert slither.place(_finding()) == "StopLoss.arm"


def test_a_medium_finding_without_explanation_fails_and_names_its_place() -> None:
    result = slither.judge(_report(_finding()), [])
    assert not result.passed
    assert "StopLoss.arm" in result.problems[0]


def test_an_explained_finding_passes_and_an_empty_reason_explains_nothing() -> None:
    assert slither.judge(_report(_finding()), _explained()).passed
    assert not slither.judge(_report(_finding()), _explained(reason=" ")).passed


def test_a_finding_of_low_impact_needs_no_explanation() -> None:
    assert slither.judge(_report(_finding(impact="Low")), []).passed


def test_an_explanation_of_nothing_fails() -> None:
    assert not slither.judge(_report(), _explained()).passed


def test_a_report_without_success_fails() -> None:
    assert not slither.judge({"success": False, "error": "broken"}, []).passed


def test_branches_are_counted_in_our_sources_only() -> None:
    assert solidity.branches(LCOV) == {"contracts/src/modules/A.sol": (1, 3)}


def test_a_file_below_the_goal_needs_a_reason_and_may_not_get_worse() -> None:
    taken = {"contracts/src/A.sol": (1, 3)}
    assert not solidity.judge_coverage(taken, {}).passed
    assert solidity.judge_coverage(taken, {"contracts/src/A.sol": {"untaken": 2, "reason": "x"}}).passed
    assert not solidity.judge_coverage(taken, {"contracts/src/A.sol": {"untaken": 1, "reason": "x"}}).passed


def test_a_reason_that_is_no_longer_needed_fails() -> None:
    assert not solidity.judge_coverage({"contracts/src/A.sol": (3, 3)}, {"contracts/src/A.sol": {"untaken": 2}}).passed
    assert not solidity.judge_coverage({"contracts/src/A.sol": (3, 3)}, {"contracts/src/B.sol": {"untaken": 2}}).passed


def test_a_report_without_branches_fails() -> None:
    assert not solidity.judge_coverage({}, {}).passed


def _suite(status: str = "Success", *, invariants: bool = True) -> dict[str, Any]:
    results: dict[str, Any] = {
        "test_a()": {"status": status, "reason": "it broke", "kind": {"Unit": {"gas": 1}}},
        "testFuzz_b(uint256)": {"status": "Success", "kind": {"Fuzz": {"runs": 10_000}}},
    }
    if invariants:
        results["invariant_c()"] = {"status": "Success", "kind": {"Invariant": {"runs": 2, "calls": 128, "reverts": 3}}}
    return {"contracts/test/A.t.sol:ATest": {"test_results": results}}


def test_tests_are_counted_by_kind() -> None:
    result = solidity.judge_tests(_suite())
    assert result.passed
    assert result.figures == "1 unit, 1 fuzz (10,000 runs), 1 invariants (128 calls)"


def test_a_failed_test_fails_with_its_name_and_reason() -> None:
    result = solidity.judge_tests(_suite("Failure"))
    assert not result.passed
    assert result.problems == ("contracts/test/A.t.sol:ATest test_a(): Failure it broke",)


def test_a_run_without_invariants_fails() -> None:
    assert solidity.judge_tests(_suite(invariants=False)).problems == ("no invariant test ran",)


def _proof(exitcode: int = 0, **others: Any) -> dict[str, Any]:
    proof = {"name": "check_sums(uint256)", "exitcode": exitcode, "num_paths": [7, 5, 0], "num_bounded_loops": 0}
    return {"contracts/proof/A.t.sol:AProof": [proof | others]}


def test_proofs_are_counted_with_their_paths() -> None:
    result = halmos.judge(_proof(), [])
    assert result.passed
    assert result.figures == "1 of 1 proved, 7 paths"


def test_a_counterexample_fails_even_where_the_solvers_time_is_excused() -> None:
    result = halmos.judge(_proof(1), [{"proof": "AProof.check_sums", "reached": "30 s"}])
    assert result.problems[0] == "AProof.check_sums: counterexample found"


def test_only_a_listed_proof_may_run_out_of_time_and_it_is_not_counted_as_proved() -> None:
    results = _proof() | {"contracts/proof/B.t.sol:BProof": [_proof(2)["contracts/proof/A.t.sol:AProof"][0]]}
    assert not halmos.judge(results, []).passed
    assert not halmos.judge(results, [{"proof": "BProof.check_sums", "reached": " "}]).passed
    result = halmos.judge(results, [{"proof": "BProof.check_sums", "reached": "30 s"}])
    assert result.passed
    assert result.figures.startswith("1 of 2 proved")


def test_a_proof_that_cut_off_loops_and_an_entry_without_proof_fail() -> None:
    assert not halmos.judge(_proof(num_bounded_loops=1), []).passed
    assert not halmos.judge(_proof(), [{"proof": "AProof.check_gone", "reached": "30 s"}]).passed
    assert not halmos.judge({}, []).passed


def test_the_summary_has_a_line_for_each_check_and_the_reasons_of_failures_below() -> None:
    text = summary([Result("a", True, "1 test"), Result("bb", False, "2 tests", ("it broke",))], [1.0, 62.0])
    assert text.splitlines()[:2] == ["ok    a       1 s  1 test", "FAIL  bb     62 s  2 tests"]
    assert "bb: it broke" in text
    assert text.endswith("1 passed, 1 failed")
