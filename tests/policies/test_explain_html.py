"""A Decision as a page: everything in it, nothing from elsewhere, and nothing that a name or a reason could smuggle in."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from decimal import Decimal
from html.parser import HTMLParser
from typing import Any

import pytest

from policies import Decision, Model, evaluate, load
from policies.decision import CallRow, LimitRow
from policies.explain_html import explain_html
from tests.policies.rig import NOW_S, closing, example, facts_of, opening, policy_of, portfolio
from tests.policies.test_sizing import CALLS, solve

FUND = load(example("conservative_fund"))
EVIL = "<script>alert(1)</script>\"'&<img src=x onerror=y>"
VOID = {"meta", "br", "img", "link", "input", "hr"}


class Page(HTMLParser):
    """Text, tags and attributes of a page; every element must be closed in order."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: list[str] = []
        self.attributes: list[tuple[str, str | None]] = []
        self.words = ""
        self.feed(text)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.attributes += attrs
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if self.open and self.open[-1] != "style":
            self.words += data + " "


def refused() -> Decision:
    policy = policy_of("limits: [{id: gross, metric: gross_notional, max: 12345.678}]\n" + CALLS)
    sizes, decision = solve(policy, "30000")
    return replace(decision, sizes=sizes)


def page_of(decision: Decision) -> Page:
    return Page(explain_html(json.loads(json.dumps(decision.to_json())), "0x" + decision.id.hex()))


@pytest.mark.parametrize(
    "decision",
    [
        evaluate(FUND, opening(FUND), NOW_S),
        evaluate(FUND, closing(FUND), NOW_S),
        evaluate(FUND, opening(FUND, after=portfolio("400")), NOW_S),
        evaluate(FUND, opening(FUND, succeeded=False), NOW_S),
        evaluate(FUND, facts_of(FUND, [], prices=()), NOW_S),
        refused(),
    ],
    ids=["allowed", "closing", "refused", "reverting", "no call", "with sizes"],
)
def test_every_decision_has_a_page_with_all_that_it_says(decision: Decision) -> None:
    page = page_of(decision)
    for row in decision.limits:
        assert row.id in page.words
    for text in (*decision.objections, *decision.warnings, *(row.title for row in decision.calls)):
        assert text in page.words
    for digest in (decision.id, decision.policy_id, decision.facts_hash, decision.intent_hash):
        assert "0x" + digest.hex() in page.words


def test_the_sizes_stand_on_it_for_the_whole_and_for_each_limit_in_the_way() -> None:
    decision = refused()
    assert decision.sizes is not None
    words = page_of(decision).words
    assert decision.sizes.size is not None
    size = f"{decision.sizes.size.normalize():,f} USDC"
    assert f"Largest size that passes: {size} of 30,000 asked for" in words
    assert "0.000001 more does not" in words
    assert f"at most {size} would pass this limit" in words


def test_nothing_is_fetched_from_anywhere_and_nothing_runs() -> None:
    text = explain_html(refused().to_json())
    page = Page(text)
    assert not {"script", "link", "img", "iframe", "object", "form", "base", "svg"} & set(page.tags)
    assert not [name for name, _ in page.attributes if name.startswith("on") or name in ("src", "href", "action")]
    assert not re.search(r"https?:|url\(|@import|javascript:|data:", text)
    assert "default-src 'none'" in dict(page.attributes).values() or any(
        value and "default-src 'none'" in value for _, value in page.attributes
    )


def test_what_comes_from_outside_cannot_become_markup() -> None:
    sound = refused()
    row = replace(
        sound.limits[0], id=EVIL, metric=EVIL, scope=EVIL, unit=EVIL, reason=EVIL, contributions=((EVIL, Decimal(1)),)
    )
    assert sound.sizes is not None
    evil = replace(
        sound,
        policy_name=EVIL,
        limits=(row,),
        calls=(CallRow(EVIL, EVIL, EVIL),),
        objections=(EVIL,),
        warnings=(EVIL,),
        models=(Model(EVIL, EVIL, EVIL),),
        sizes=replace(sound.sizes, what=EVIL, unit=EVIL),
    )
    page = Page(explain_html(evil.to_json(), EVIL))
    assert "script" not in page.tags
    assert "img" not in page.tags
    assert page.words.count(EVIL) >= 10


def test_the_same_decision_gives_the_same_page() -> None:
    assert explain_html(refused().to_json()) == explain_html(refused().to_json())


def test_of_many_parts_the_largest_are_listed() -> None:
    parts = tuple((f"perp:A{n}", Decimal(n)) for n in range(40))
    sound = evaluate(FUND, opening(FUND), NOW_S)
    rows = tuple(replace(row, contributions=parts if row.id == "gross" else ()) for row in sound.limits)
    words = page_of(replace(sound, limits=rows)).words
    assert "perp:A39" in words
    assert "perp:A27 " not in words
    assert "and 28 smaller" in words


def test_what_a_quotient_is_made_of_stands_in_its_own_unit() -> None:
    """Leverage is a multiple; what it is made of are notionals."""
    words = page_of(evaluate(FUND, opening(FUND), NOW_S)).words
    assert "30,000.00 USDC" in words
    assert "30000.000x" not in words


def test_a_value_that_is_none_or_senseless_is_shown_as_such() -> None:
    sound = evaluate(FUND, opening(FUND), NOW_S)
    row: LimitRow = replace(
        sound.limits[0],
        after=None,
        before=None,
        headroom=None,
        utilisation=None,
        contributions=(("x", Decimal("NaN")),),
    )
    assert "not evaluable" in page_of(replace(sound, limits=(row,))).words


@pytest.mark.parametrize("body", [{}, {"outcome": "maybe"}, {"outcome": "deny", "policy_name": "x"}])
def test_what_is_no_decision_has_no_page(body: Any) -> None:
    with pytest.raises(KeyError):
        explain_html(body)
