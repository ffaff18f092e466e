"""The policy id: one meaning, one id."""

from __future__ import annotations

import json
import random
from dataclasses import dataclass
from decimal import Decimal
from enum import Enum
from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from contracts.types import keccak
from policies import load
from policies.canonical import canonical_bytes, decimal_text, plain, policy_id
from tests.policies.rig import example

MINIMAL = "schema: 1\nname: minimal\nversion: '1'\nlimits: [{id: lev, metric: leverage, max: 3.10}]\n"
RICH = """schema: 1
name: rich
version: 1.10
description: "café: every kind of value"
addresses: {desk: "0x5FbDB2315678afecb367f032d93F642f64180aa3"}
accounts: [desk, trader]
chains: [1, 10]
facts: {max_price_age: 10m, max_price_deviation: 2.50%}
limits:
  - {id: size, metric: position_size, scope: "asset:ETH", max: "0.500"}
  - {id: far, metric: liquidation_distance, min: 20%, warn_at: 90%, hysteresis: 5%}
calls: [{target: usdc, functions: [transfer], args: {to: [desk, trader], amount: {max: 1000}}, max_value: 0.10}]
exits: [{target: desk, plain_value: true, in_frozen: false}]
"""
GOLDEN_FORM = '{"limits":[{"id":"lev","max":"3.1","metric":"leverage"}],"name":"minimal","schema":"1","version":"1"}'


def test_the_id_is_the_hash_of_tag_version_and_canonical_form() -> None:
    policy = load(MINIMAL)
    assert canonical_bytes(policy.document) == GOLDEN_FORM.encode()
    assert policy.policy_id == keccak(keccak(b"Seawall policy") + (1).to_bytes(32) + GOLDEN_FORM.encode())


def test_golden_ids_do_not_move() -> None:
    assert load(MINIMAL).policy_id.hex() == "7e08bda8458cb91f5c32e0c445705ed901c4123ded3ffaaebf035bbc599f4243"
    assert load(RICH).policy_id.hex() == "f1d0d14249d6c3f5bc21e622e4b17457eb778d6c7b3fd5d56b968479a3e4e17f"


def test_the_schema_version_and_every_value_are_in_the_id() -> None:
    tree = dict(load(MINIMAL).document)
    assert policy_id(1, tree) != policy_id(2, tree)
    assert policy_id(1, tree) != policy_id(1, tree | {"version": "2"})


@given(st.randoms(use_true_random=False))
def test_key_order_quoting_style_and_comments_do_not_matter(shuffle: random.Random) -> None:
    tree = yaml.load(example("conservative_fund"), Loader=yaml.BaseLoader)  # noqa: S506  # text only

    def shuffled(value: object) -> object:
        if isinstance(value, dict):
            keys = list(value)
            shuffle.shuffle(keys)
            return {key: shuffled(value[key]) for key in keys}
        return [shuffled(item) for item in value] if isinstance(value, list) else value

    style = shuffle.choice(["'", '"', "|", None])
    text = yaml.dump(
        shuffled(tree), sort_keys=False, default_style=style, default_flow_style=shuffle.choice([True, False])
    )
    text = text.replace("'true'", "true").replace('"true"', "true")
    if style == "|":
        return  # block scalars end in a newline, which is another text
    assert load("# a comment\n" + text + "# another\n").policy_id == load(example("conservative_fund")).policy_id


def test_ways_to_write_one_amount_are_one_amount() -> None:
    ids = {load(MINIMAL.replace("3.10", written)).policy_id for written in ("3.1", "3.10", "'3.100'", "'3.1'")}
    assert len(ids) == 1
    percents = {
        load(MINIMAL.replace("max: 3.10", f"max: 3, warn_at: {w}")).policy_id for w in ("80%", "80.0%", "'80%'")
    }
    assert len(percents) == 1
    ages = {load(f"{MINIMAL}facts: {{max_price_age: {w}}}\n").policy_id for w in ("10m", "600s")}
    assert len(ages) == 1


def test_an_alias_and_a_variable_are_the_value_they_stand_for() -> None:
    plain = load(f"{MINIMAL}facts: {{max_price_age: 5m, max_block_age: 5m}}\n").policy_id
    alias = load(f"{MINIMAL}facts: {{max_price_age: &a 5m, max_block_age: *a}}\n").policy_id
    variable = load(
        f"{MINIMAL}variables: {{a: 5m}}\nfacts: {{max_price_age: '${{a}}', max_block_age: '${{a}}'}}\n"
    ).policy_id
    assert plain == alias == variable


def test_unicode_is_normalised() -> None:
    composed, decomposed = "caf\u00e9", "cafe\u0301"
    assert (
        load(f"{MINIMAL}description: {composed}\n").policy_id == load(f"{MINIMAL}description: {decomposed}\n").policy_id
    )


def test_the_canonical_form_holds_no_json_numbers() -> None:
    def numbers(value: object) -> list[object]:
        if isinstance(value, dict):
            return [n for item in value.values() for n in numbers(item)]
        if isinstance(value, list):
            return [n for item in value for n in numbers(item)]
        return [value] if isinstance(value, (int, float)) and not isinstance(value, bool) else []

    assert numbers(json.loads(canonical_bytes(load(example("conservative_fund")).document))) == []


@given(st.decimals(allow_nan=False, allow_infinity=False, min_value=-(10**20), max_value=10**20, places=18))
def test_a_decimals_text_is_exact_and_unique(value: Decimal) -> None:
    text = decimal_text(value)
    assert Decimal(text) == value
    assert "E" not in text
    assert not (text.endswith("0") and "." in text)
    assert decimal_text(Decimal(text + ("0" if "." in text else ".0"))) == text


def test_amounts_too_wide_to_write_out_do_not_exhaust_memory() -> None:
    assert len(decimal_text(Decimal("1E+999999"))) < 20
    assert decimal_text(Decimal("NaN")) == "NaN"


amounts = st.decimals(allow_nan=True, allow_infinity=True) | st.decimals(
    places=18, min_value=-(10**12), max_value=10**12
)


def by_its_definition(value: Decimal) -> str:
    """`decimal_text` as its docstring says it, without a short cut."""
    if not value.is_finite() or abs(value.adjusted()) > 200 or abs(int(value.as_tuple().exponent)) > 400:
        return str(value)
    found = format(value, "f")
    if "." in found:
        found = found.rstrip("0").rstrip(".")
    return "0" if found == "-0" else found


@given(
    amounts
    | st.tuples(st.integers(-(10**30), 10**30), st.integers(-450, 450)).map(lambda p: Decimal(p[0]).scaleb(p[1]))
)
def test_the_short_cut_for_amounts_changes_nothing(value: Decimal) -> None:
    assert decimal_text(value) == by_its_definition(value)


@pytest.mark.parametrize(
    "text", ["NaN123", "-sNaN7", "-0.000", "0E+5", "1E-7", "-Infinity", "9" * 300, "0." + "1" * 300, "00.10"]
)
def test_amounts_at_the_edges_keep_their_form(text: str) -> None:
    assert decimal_text(Decimal(text)) == by_its_definition(Decimal(text))


class Colour(Enum):
    RED = 1


@dataclass(frozen=True)
class Leaf:
    b: Any
    a: Any = None


values = st.recursive(
    st.none() | st.booleans() | st.integers() | amounts | st.text() | st.binary(max_size=4) | st.just(Colour.RED),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.lists(inner, max_size=3).map(tuple)
        | st.dictionaries(st.sampled_from("abcé"), inner, max_size=3)
        | st.frozensets(st.text(max_size=3), max_size=3)
        | st.builds(Leaf, inner, inner)
    ),
    max_leaves=10,
)


@given(values)
def test_the_bytes_are_those_of_the_plain_form_as_sorted_json(value: Any) -> None:
    expected = json.dumps(plain(value), sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    try:
        found = expected.encode()
    except UnicodeEncodeError:
        with pytest.raises(UnicodeEncodeError):
            canonical_bytes(value)
    else:
        assert canonical_bytes(value) == found
