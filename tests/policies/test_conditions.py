"""`when:` conditions: what they see, what denies, and what is not let in. One test for each way in which CEL engines have let people down."""

from __future__ import annotations

import math
import sys
import time
from dataclasses import replace
from decimal import Decimal
from typing import Any

import pytest

from policies import conditions, evaluate, lint
from policies.conditions import compile_program, condition, faults_of, judge, variables
from policies.decision import Decision
from tests.policies.rig import NOW_S, closing, opening, policy_of

pytest.importorskip("cel_expr_python", reason="the extra `cel` is not installed")

BUY = "calls: [{target: perp.clearing_house, functions: [openPosition, closePosition]}]\n"
HEAD = "schema: 1\nname: t\nversion: '1'\ncalls: []\n"


def under(when: str, **changes: Any) -> Decision:
    """An order of 30,000 under a limit of 1 that binds while `when` holds. The file may have errors: the engine must be safe alone."""
    policy = policy_of("limits: [{id: x, metric: gross_notional, max: 1}]\n" + BUY)
    policy = replace(policy, limits=(replace(policy.limits[0], when=when),))
    return evaluate(policy, replace(opening(policy), **changes), NOW_S)


@pytest.mark.parametrize(
    ("when", "binds"),
    [
        ("leverage > 2.0", True),
        ("leverage > 3.0", False),
        ("before_leverage == 0.0 && gross_notional == 30000.0", True),
        ("order_notional >= 30000.0", True),
        ("hour == 8 && weekday == 4", True),
        ("weekday in [6, 7]", False),
        ("chain_id == 1337 && !sponsored && state == 'ACTIVE'", True),
        ("calls.exists(c, c.startsWith('perp.'))", True),
        ("calls.all(c, c.endsWith('.withdraw'))", False),
        ("size(calls) == call_count", True),
        ("double(call_count) * 2.0 > leverage / 2.0", True),
        ("state.matches('^(ACTIVE|FROZEN)$')", True),
    ],
)
def test_a_limit_binds_while_its_condition_holds(when: str, binds: bool) -> None:
    decision = under(when)
    assert decision.outcome == ("deny" if binds else "allow"), decision.explain()
    if not binds:
        assert decision.limits[0].reason == "its condition does not hold"


# -- traps: each of these once let something through elsewhere ------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("when", "because"),
    [
        ("1 / call_count > 0", "a divisor must be a number other than zero"),
        ("call_count / 0 > 1", "a divisor must be a number other than zero"),
        ("leverag > 1.0", "unknown variable 'leverag'"),
        ("leverage > 1", "no matching overload"),
        ("leverage", "gives double, not true or false"),
        ("'true'", "gives string"),
        ("leverage >", "Syntax error"),
        ("dyn(leverage) > 1", "there is no function 'dyn'"),
        ("double('NaN') > 1.0", "double() takes one of the integer variables"),
        ("!(leverage > double(state))", "double() takes one of the integer variables"),
        ("int(state) > 1", "there is no function 'int'"),
        ("leverage > 1e400", "no plain number"),
        ("9223372036854775807 + call_count > 0", "no plain number"),
        ("state == null", "null is not let in"),
        ("true // && false", "not let in"),
        ("{'a': 1}['b'] > 1", "not let in"),
        ("r'a' == 'a'", "prefixed strings"),
        ("[1.0][5] > 0.0", "index"),
        ("999999999999999 * 999999999999999 > 0", "overflow"),
        (" ", "Syntax error"),
        ("\x00", "not let in"),
    ],
)
def test_a_condition_without_a_value_denies_and_says_why(when: str, because: str) -> None:
    decision = under(when)
    assert decision.outcome == "deny"
    assert decision.limits[0].reason.startswith("its condition has no value: ")
    assert because in decision.limits[0].reason


class _Answer:
    def __init__(self, kind: str, value: object) -> None:
        self.kind, self.answer = kind, value

    def type(self) -> _Answer:
        return self

    def name(self) -> str:
        return self.kind

    def value(self) -> object:
        return self.answer

    def eval(self, data: object) -> _Answer:  # noqa: ARG002
        return self


@pytest.mark.parametrize(
    ("kind", "value"),
    [
        ("ERROR", "divide by zero"),
        ("STRING", "true"),
        ("INT", 1),
        ("BOOL", 1),
        ("BOOL", "true"),
        ("DYN", True),
        ("UNKNOWN", True),
    ],
)
def test_only_the_type_bool_and_the_object_true_count_as_true(kind: str, value: object) -> None:
    assert isinstance(judge(_Answer(kind, value), {}), str)


def test_an_engine_that_raises_gives_no_value() -> None:
    class Broken:
        def eval(self, data: object) -> None:  # noqa: ARG002
            raise SystemError("inside")

    assert judge(Broken(), {}) == "SystemError: inside"


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf, 1e31, -1e31])
def test_a_figure_that_is_not_finite_or_too_large_never_reaches_the_engine(value: float) -> None:
    """`!(x > limit)` is true of NaN."""
    program, _ = compile_program("!(leverage > 3.0)")
    assert judge(program, {"leverage": 1.0}) is True
    assert judge(program, {"leverage": value}) == f"leverage is {value}"


def test_a_metric_without_value_gives_none_to_the_condition() -> None:
    decision = under("!(leverage > 3.0)", prices=())
    assert decision.outcome == "deny"
    assert (
        under("drawdown > 0.1").limits[0].reason
        == "its condition has no value: drawdown: the account's history is missing"
    )


def test_a_condition_only_asks_for_what_it_names() -> None:
    assert conditions.names_in("leverage > 3.0 && hour < 5 && state == 'equity'") == ("hour", "leverage", "state")


def test_nested_macros_and_deep_brackets_are_not_let_in_so_nothing_runs_long() -> None:
    nested = "true"
    for name in "abcdefg":
        nested = f"[1,2,3,4,5,6,7,8,9,10].all({name}, {nested})"
    for text in (nested, "(" * 500 + "true" + ")" * 500, "!" * 5_000 + "true", "true" + " || true" * 500):
        began = time.process_time()
        assert isinstance(condition(text).holds(None, None, 0), str)  # type: ignore[arg-type]
        assert time.process_time() - began < 5


def test_what_is_let_in_cannot_overflow_a_double() -> None:
    """The most that eight products and quotients of the largest variables, sums and divisors can make."""
    largest = "(" + " + ".join(["leverage"] * 9) + ")"
    text = " * ".join([largest] * 1 + ["leverage"] * 8) + " > 0.0"
    assert faults_of(text) == []
    program, _ = compile_program("!(" + text + ")")
    assert judge(program, {"leverage": 1e30}) is False
    assert faults_of(text.replace("> 0.0", "* 2.0 > 0.0"))
    quotients = "leverage" + " / 0.0000000000001" * 8 + " < 1.0"
    program, _ = compile_program(quotients)
    assert judge(program, {"leverage": 1e30}) is False


def test_a_reduction_passes_a_condition_without_value() -> None:
    policy = policy_of("limits: [{id: x, metric: gross_notional, max: 1}]\n" + BUY)
    policy = replace(policy, limits=(replace(policy.limits[0], when="nonsense"),))
    decision = evaluate(policy, closing(policy), NOW_S)
    assert decision.allowed
    assert decision.limits[0].verdict == "warn"


def test_without_the_extra_a_condition_denies_and_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "cel_expr_python", None)
    for cached in (conditions._environment, conditions.condition):
        cached.cache_clear()
    try:
        decision = under("leverage > 100.0")
        assert decision.outcome == "deny"
        assert "pip install 'seawall[cel]'" in decision.limits[0].reason
        said = lint(HEAD + "limits: [{id: x, metric: leverage, max: 3, when: leverage > 1.0}]\n")
        assert any("cannot be checked" in p.message for p in said)
    finally:
        monkeypatch.undo()
        for cached in (conditions._environment, conditions.condition):
            cached.cache_clear()


# -- lint ------------------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("entry", "line", "column", "message", "suggestion"),
    [
        (
            "when: leverage > 3",
            9,
            20,
            "no matching overload",
            "write whole numbers that are compared with metrics as 3.0",
        ),
        ("when: 'levrage > 3.0'", 9, 12, "unknown variable 'levrage'", "did you mean leverage?"),
        ("when: |\n      leverage > 3.0\n      && hour <", 11, 10, "Syntax error", ""),
        (
            "when: leverage > 1.0 / equity",
            9,
            26,
            "a divisor must be a number other than zero",
            "multiply the other side instead",
        ),
        ("when: leverage > 1.0 && exist(calls, 1)", 9, 29, "there is no function 'exist' here", "did you mean exists?"),
    ],
)
def test_the_linter_points_into_the_condition(
    entry: str, line: int, column: int, message: str, suggestion: str
) -> None:
    text = HEAD + f"limits:\n  - id: x\n    metric: leverage\n    max: 3\n    {entry}\n"
    found = [p for p in lint(text) if p.path == "limits.x.when"]
    assert [(p.line, p.severity, p.suggestion) for p in found] == [(line, "error", suggestion)], found
    assert message in found[0].message
    assert found[0].column == column


def test_a_condition_that_is_right_is_no_problem() -> None:
    text = HEAD + "limits: [{id: x, metric: leverage, max: 3, when: 'drawdown > 0.1 || hour >= 20'}]\n"
    assert not [p for p in lint(text) if "when" in p.path]


def test_every_variable_can_be_named() -> None:
    samples = {"int": "{} == 1", "double": "{} > 1.0", "bool": "{}", "string": "{} == 'a'", "list": "size({}) == 1"}
    for name, kind in variables().items():
        text = samples[kind].format(name)
        assert faults_of(text) == []
        assert compile_program(text)[1] is None, name


def test_a_figure_is_the_nearest_double_of_the_exact_metric() -> None:
    assert conditions._double("x", Decimal("0.1")) == 0.1
