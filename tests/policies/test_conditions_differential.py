"""Generated conditions and figures: cel-cpp, as we wrap it, against common-expression-language, another implementation in another language.

Where both have a value it is the same; where ours has none, the other has none or an error either, unless our rules do not let it in.
"""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from policies.conditions import compile_program, faults_of, judge, names_in

pytest.importorskip("cel_expr_python", reason="the extra `cel` is not installed")
cel = pytest.importorskip("cel", reason="common-expression-language is not installed")

DOUBLES = ("leverage", "equity", "before_leverage", "drawdown")
INTEGERS = ("hour", "weekday", "call_count", "chain_id")

numbers = st.one_of(
    st.sampled_from([0.0, 1.0, -1.0, 0.5, 1e-9, 1e30, -1e30]),
    st.floats(min_value=-1e30, max_value=1e30, allow_nan=False, allow_infinity=False),
)
given_values = st.fixed_dictionaries(
    dict.fromkeys(DOUBLES, numbers)
    | {name: st.integers(-3, 2**40) for name in INTEGERS}
    | {
        "sponsored": st.booleans(),
        "state": st.sampled_from(["ACTIVE", "FROZEN", "REDUCE_ONLY"]),
        "calls": st.lists(st.sampled_from(["perp.vault.deposit", "usdc.approve", "0xab: transfer"]), max_size=4),
    }
)

double_literals = st.sampled_from(["0.0", "1.0", "3.5", "0.1", "1000000.0"])
integer_literals = st.sampled_from(["0", "1", "7", "12", "1337", "999999999999999"])
text_literals = st.sampled_from(["'ACTIVE'", "'perp.'", "''", '"FROZEN"'])


def binary(operators: list[str], operands: st.SearchStrategy[str]) -> st.SearchStrategy[str]:
    return st.tuples(operands, st.sampled_from(operators), operands).map(lambda t: f"({t[0]} {t[1]} {t[2]})")


doubles = st.recursive(
    st.one_of(st.sampled_from(DOUBLES), double_literals, st.sampled_from(INTEGERS).map(lambda n: f"double({n})")),
    lambda inner: st.one_of(
        binary(["+", "-", "*"], inner),
        st.tuples(inner, st.sampled_from(["2.0", "0.5"])).map(lambda t: f"({t[0]} / {t[1]})"),
    ),
    max_leaves=4,
)
integers = st.recursive(
    st.one_of(st.sampled_from(INTEGERS), integer_literals, st.just("size(calls)"), st.just("size(state)")),
    lambda inner: st.one_of(
        binary(["+", "-", "*"], inner), st.tuples(inner, st.sampled_from(["2", "3"])).map(lambda t: f"({t[0]} / {t[1]})")
    ),
    max_leaves=4,
)  # fmt: skip
comparisons = ["<", "<=", ">", ">=", "==", "!="]
truths = st.recursive(
    st.one_of(
        binary(comparisons, doubles),
        binary(comparisons, integers),
        st.just("sponsored"),
        st.sampled_from(["true", "false"]),
        binary(["==", "!="], st.one_of(st.just("state"), text_literals)),
        st.tuples(st.sampled_from(["startsWith", "endsWith", "contains"]), text_literals).map(
            lambda t: f"state.{t[0]}({t[1]})"
        ),
        st.tuples(st.sampled_from(["exists", "all", "exists_one"]), text_literals).map(
            lambda t: f"calls.{t[0]}(c, c.startsWith({t[1]}))"
        ),
        integers.map(lambda n: f"({n} in [0, 1, 7])"),
    ),
    lambda inner: st.one_of(
        binary(["&&", "||"], inner),
        inner.map(lambda x: f"!({x})"),
        st.tuples(inner, inner, inner).map(lambda t: f"({t[0]} ? {t[1]} : {t[2]})"),
    ),
    max_leaves=5,
)


def by_the_other(text: str, values: dict[str, Any]) -> bool | str:
    try:
        found = cel.evaluate(text, values)
    except Exception as error:  # another's code
        return f"{type(error).__name__}: {error}"
    return found if found is True or found is False else f"no truth: {found!r}"


@settings(max_examples=500, deadline=None)
@given(truths, given_values)
def test_two_implementations_of_cel_agree(text: str, values: dict[str, Any]) -> None:
    if faults_of(text):
        return  # not let in: tests/policies/test_conditions.py says what is not, and why
    program, fault = compile_program(text)
    if program is None:
        assert fault is not None
        assert "recursion limit" in fault.message, (text, fault)  # cel-cpp's own bound on depth
        return
    ours = judge(program, {name: values[name] for name in names_in(text)})
    other = by_the_other(text, values)
    if isinstance(ours, bool):
        assert ours == other, (text, values)
    else:
        assert isinstance(other, str), (text, values, ours)
