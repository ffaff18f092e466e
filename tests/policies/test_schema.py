"""The published JSON Schema and the linter are one description of the format."""

from __future__ import annotations

import copy
from decimal import Decimal
from typing import Any

import jsonschema
import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from policies import evaluate, lint, load
from policies.guards import freeze_config
from policies.names import KNOWN
from policies.stops import stop_config
from policies.structure import schema
from tests.policies.rig import ACCOUNT, BOOK, EXAMPLES, NOW_S, address, opening

EVERY_NAME = {name: address(name) for name in KNOWN} | BOOK | {"owner": ACCOUNT, "engine": ACCOUNT}
VALIDATOR = jsonschema.Draft202012Validator(dict(schema()))
TEXTS = {path.name: path.read_text() for path in EXAMPLES.glob("*.yaml")}


def as_an_editor_reads_it(text: str) -> Any:
    """Plain scalars as text, but booleans as booleans: YAML 1.2's core schema as far as the format needs it."""

    def walk(value: Any) -> Any:
        if isinstance(value, dict):
            return {key: walk(item) for key, item in value.items()}
        if isinstance(value, list):
            return [walk(item) for item in value]
        return {"true": True, "false": False}.get(value, value)

    return walk(yaml.load(text, Loader=yaml.BaseLoader))  # noqa: S506  # text only


def test_the_schema_is_a_valid_json_schema() -> None:
    jsonschema.Draft202012Validator.check_schema(dict(schema()))


@pytest.mark.parametrize("name", sorted(TEXTS))
def test_every_example_validates(name: str) -> None:
    VALIDATOR.validate(as_an_editor_reads_it(TEXTS[name]))


def paths(tree: Any, at: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    items = tree.items() if isinstance(tree, dict) else enumerate(tree) if isinstance(tree, list) else ()
    return [at, *(path for key, item in items for path in paths(item, (*at, key)))]


BROKEN = [
    "delete",
    "yes",
    "1_000",
    "12%",
    "-3",
    "0",
    "5m",
    "3.5",
    [],
    {},
    {"x": "1"},
    ["1"],
    "perp.vault",
    "0x12",
    "${x}",
    "transfer",
]


@settings(max_examples=200, deadline=None)
@given(st.sampled_from(sorted(TEXTS)), st.data())
def test_what_the_schema_refuses_the_linter_refuses_and_what_the_linter_takes_can_be_judged_by(
    name: str, data: st.DataObject
) -> None:
    tree = copy.deepcopy(as_an_editor_reads_it(TEXTS[name]))
    path = data.draw(st.sampled_from([p for p in paths(tree) if p]))
    *above, last = path
    parent = tree
    for key in above:
        parent = parent[key]
    broken = data.draw(st.sampled_from(BROKEN))
    if broken == "delete":
        del parent[last]
    else:
        parent[last] = broken
    text = yaml.safe_dump(tree, sort_keys=False)
    schema_refuses = not VALIDATOR.is_valid(as_an_editor_reads_it(text))
    linter_refuses = any(p.severity == "error" for p in lint(text, TEXTS))
    assert linter_refuses or not schema_refuses, text
    if not linter_refuses:
        policy = load(text, TEXTS)
        evaluate(policy, opening(policy), NOW_S)
        if policy.freeze is not None:
            freeze_config(policy, EVERY_NAME, ACCOUNT)
        for rule in policy.stops:
            stop_config(rule, policy, EVERY_NAME, entry_price=Decimal(200), is_long=True, now_s=NOW_S).arm()


@given(st.text(max_size=300))
def test_no_text_makes_the_linter_fail(text: str) -> None:
    lint(text)
    lint("schema: 1\nname: a\nversion: '1'\n" + text)
