"""Inheritance may add and tighten, never loosen, unless the parent names what may be."""

from __future__ import annotations

from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from policies import lint, load
from tests.policies.rig import EXAMPLES, example

PARENT = """
schema: 1
name: parent
version: '1'
accounts: [trader, owner]
chains: [1, 10]
facts: {max_price_age: 5m}
limits:
  - {id: lev, metric: leverage, max: 3, warn_at: 80%, action: require_signers, approval: desk}
  - {id: dist, metric: liquidation_distance, min: 20%}
  - {id: gross, metric: gross_notional, max: 9, action: require_signers, approval: desk, during: {days: [mon, tue]},
     escalate: [{beyond: 20, approval: board}, {beyond: 30}]}
  - {id: step, metric: leverage, max_change: 1, when: 'leverage > 1.0'}
  - {id: cash, metric: equity, min_change: -100}
  - {id: turn, metric: turnover, max: 100, window: 1d}
overrides:
  - {id: junior, signers: [trader], limits: [{id: lev, max: 2}, {id: own, metric: order_rate, max: 5}]}
approvals: [{id: desk, signers: [trader, risk_officer], quorum: 2}, {id: board, signers: [trader, risk_officer, owner], quorum: 3}]
calls:
  - {target: usdc, functions: [approve], args: {spender: perp.vault}}
  - {target: perp.vault, functions: [deposit, withdraw]}
  - {target: usdc, functions: [transfer], args: {to: treasury, amount: {max: 1000}}}
exits:
  - {target: usdc, function: transfer, args: {to: treasury}, in_frozen: false}
guards:
  stop_loss:
    - {id: 1, venue: perp, asset: ETH, drop: 12%, size: 50%, slippage: 1%, max_slippage: 2%,
       oracle: {feed: feed.eth, heartbeat: 1h}}
  freeze: {guardians: [guardian], quorum: 1}
  session: {key: keeper}
attestation: {validity: 10m}
sponsorship: {per_day: 1}
"""
HEAD = "schema: 1\nname: child\nversion: '1'\nextends: parent\n"


def errors(body: str, parent: str = PARENT) -> list[str]:
    parents = {"parent": parent}
    inherited = {str(p) for p in lint(parent)}
    return [
        str(p)
        for p in lint(HEAD + body + "\n", parents)
        if p.severity == "error" and p.source == "" and str(p) not in inherited
    ]


def looser(body: str, parent: str = PARENT) -> list[str]:
    return [text for text in errors(body, parent) if "may_loosen" in text]


@pytest.mark.parametrize(
    "body",
    [
        "limits: [{id: lev, metric: leverage, max: 2}]",
        "limits: [{id: lev, metric: leverage, max: 3, action: deny}]",
        "limits: [{id: lev, metric: leverage, max: 3, warn_at: 50%, hysteresis: 10%}]",
        "limits: [{id: dist, metric: liquidation_distance, min: 30%}]",
        "limits: [{id: new, metric: equity, min: 5}]",
        "facts: {max_price_age: 1m, max_block_age: 1m}",
        "facts: {max_depeg: 1%, max_returns_age: 1d}",
        "limits: [{id: gross, during: {days: [mon, tue, wed]}, metric: gross_notional, max: 9}]",
        "limits: [{id: gross, metric: gross_notional, max: 9, escalate: [{beyond: 15, approval: board}, {beyond: 30}]}]",
        "limits: [{id: gross, metric: gross_notional, max: 9, escalate: [{beyond: 15}]}]",
        "limits: [{id: step, metric: leverage, max_change: 0.5}]",
        "limits: [{id: cash, metric: equity, min_change: -50}]",
        "overrides: [{id: junior, limits: [{id: lev, max: 1}]}]",
        "overrides: [{id: junior, limits: [{id: own, max: 4}]}]",
        "overrides: [{id: senior, signers: [owner], limits: [{id: lev, max: 2.5}]}]",
        "chains: [10]",
        "accounts: [trader]",
        "calls: [{target: perp.vault, functions: [deposit]}]",
        "calls: [{target: usdc, functions: [transfer], args: {to: treasury, amount: {max: 10}}}]",
        "exits: []",
        "attestation: {validity: 5m, threshold: 2}",
        "sponsorship: {per_day: 0.5, per_operation: 0.1}",
    ],
)
def test_tightening_and_adding_are_fine(body: str) -> None:
    assert looser(body) == []


@pytest.mark.parametrize(
    "body",
    [
        "limits: [{id: lev, metric: leverage, max: 4}]",
        "limits: [{id: lev, metric: leverage, max: 3, action: warn}]",
        "limits: [{id: lev, metric: leverage, max: 3, warn_at: 90%}]",
        "limits: [{id: lev, metric: gross_notional, max: 2}]",
        "limits: [{id: lev, metric: leverage, scope: 'asset: ETH', max: 2}]",
        "limits: [{id: dist, metric: liquidation_distance, min: 10%}]",
        "facts: {max_price_age: 10m}",
        "facts: {max_block_age: 10m}",
        "facts: {max_depeg: 3%}",
        "facts: {max_returns_age: 3d}",
        "limits: [{id: lev, metric: leverage, max: 3, during: {days: [mon]}}]",
        "limits: [{id: lev, metric: leverage, max: 3, when: 'hour > 1'}]",
        "limits: [{id: gross, metric: gross_notional, max: 9, during: {days: [mon]}}]",
        "limits: [{id: gross, metric: gross_notional, max: 9, escalate: [{beyond: 21, approval: board}, {beyond: 30}]}]",
        "limits: [{id: gross, metric: gross_notional, max: 9, escalate: [{beyond: 20, approval: board}, {beyond: 31}]}]",
        "limits: [{id: gross, metric: gross_notional, max: 9, escalate: [{beyond: 20, approval: board}]}]",
        "limits: [{id: gross, metric: gross_notional, max: 9, approval: board}]",
        (
            "approvals: [{id: friends, signers: [keeper, treasury, guardian], quorum: 3}]\n"
            "limits: [{id: gross, metric: gross_notional, max: 9, escalate: [{beyond: 20, approval: friends}, {beyond: 30}]}]"
        ),
        (
            "approvals: [{id: friends, signers: [keeper, treasury, guardian], quorum: 3}]\n"
            "limits: [{id: gross, metric: gross_notional, max: 9, "
            "escalate: [{beyond: 20, approval: board}, {beyond: 25, approval: friends}, {beyond: 30}]}]"
        ),
        "limits: [{id: step, metric: leverage, max_change: 2}]",
        "limits: [{id: step, metric: leverage, max_change: 1, when: 'leverage > 9.0'}]",
        "limits: [{id: cash, metric: equity, min_change: -101}]",
        "limits: [{id: turn, metric: turnover, max: 100, window: 1h}]",
        "overrides: [{id: junior, limits: [{id: lev, max: 2.5}]}]",
        "overrides: [{id: junior, signers: [keeper], limits: [{id: lev, max: 1}]}]",
        "overrides: [{id: junior, chains: [1], limits: [{id: lev, max: 1}]}]",
        "overrides: [{id: senior, signers: [owner], limits: [{id: lev, max: 3.5}]}]",
        "chains: [1, 5]",
        "accounts: [treasury]",
        "calls: [{target: perp.vault, functions: [depositFor]}]",
        "calls: [{target: weth, functions: [transfer]}]",
        "calls: [{target: perp.vault, functions: [deposit], max_value: 1}]",
        "exits: [{target: usdc, function: transfer, args: {to: treasury}, in_frozen: true}]",
        "exits: [{target: usdc, function: transfer, args: {to: owner}}]",
        "guards: {freeze: {guardians: [guardian_2], quorum: 1}}",
        "guards: {freeze: {guardians: [guardian], quorum: 1, solo_freeze: 1h}}",
        "guards: {session: {key: trader}}",
        "attestation: {validity: 20m}",
        "attestation: {escape_delay: 1d}",
        "sponsorship: {per_day: 2}",
        "approvals: [{id: desk, signers: [trader, risk_officer], quorum: 1}]",
        "addresses: {treasury: '0x5FbDB2315678afecb367f032d93F642f64180aa3'}",
        "may_loosen: [limits]",
        (
            "guards: {stop_loss: [{id: 1, venue: perp, asset: ETH, drop: 20%, size: 50%, slippage: 1%, max_slippage: 2%, "
            "oracle: {feed: feed.eth, heartbeat: 1h}}]}"
        ),
        (
            "guards: {stop_loss: [{id: 1, venue: perp, asset: ETH, drop: 10%, size: 40%, slippage: 1%, max_slippage: 2%, "
            "oracle: {feed: feed.eth, heartbeat: 1h}}]}"
        ),
        (
            "guards: {stop_loss: [{id: 1, venue: perp, asset: ETH, drop: 10%, size: 50%, slippage: 1%, max_slippage: 2%, "
            "oracle: {feed: feed.eth, heartbeat: 2h}}]}"
        ),
    ],
)
def test_loosening_is_refused_and_names_what_the_parent_would_have_to_allow(body: str) -> None:
    assert looser(body) != []


def test_the_parent_may_let_a_limit_be_loosened_by_name() -> None:
    body = "limits: [{id: lev, metric: leverage, max: 4}]"
    assert looser(body, PARENT + "may_loosen: [limits.lev]\n") == []
    assert looser(body, PARENT + "may_loosen: [limits]\n") == []
    assert looser(body, PARENT + "may_loosen: [limits.dist]\n") != []


def test_a_problem_of_the_parent_carries_its_name_and_line() -> None:
    problems = lint(HEAD, {"parent": PARENT.replace("metric: leverage", "metric: levrage")})
    assert ("parent", 9) in {(p.source, p.line) for p in problems}


def test_what_a_child_does_not_say_is_inherited() -> None:
    parents = {path.name: path.read_text() for path in EXAMPLES.glob("*.yaml")}
    child, fund = load(example("desk_trader"), parents), load(example("conservative_fund"))
    assert child.exits == fund.exits
    assert child.freeze == fund.freeze
    assert {limit.id: limit.bound for limit in child.limits}["leverage"] == 2
    assert {limit.id for limit in fund.limits} < {limit.id for limit in child.limits}
    assert child.stops[0].drop == Decimal("0.08")
    assert child.stops[0].oracle == fund.stops[0].oracle
    assert child.policy_id != fund.policy_id


def test_files_that_extend_each_other_or_nothing_that_exists_are_refused() -> None:
    assert any("extends itself" in str(p) for p in lint(HEAD, {"parent": HEAD}))
    assert any("there is no policy 'parent'" in str(p) for p in lint(HEAD, {"parents": PARENT}))


def test_a_childs_variables_do_not_reach_into_the_parent() -> None:
    parent = PARENT.replace("max: 3,", "max: '${cap}',") + "variables: {cap: '3'}\n"
    child = load(HEAD + "variables: {cap: '9'}\n", {"parent": parent})
    assert child.limits[0].bound == 3


@given(st.decimals(min_value=1, max_value=10, places=2), st.decimals(min_value=1, max_value=10, places=2))
def test_an_inherited_maximum_never_grows(inherited: Decimal, mine: Decimal) -> None:
    parent = f"schema: 1\nname: p\nversion: '1'\nlimits: [{{id: lev, metric: leverage, max: {inherited}}}]\n"
    body = f"limits: [{{id: lev, metric: leverage, max: {mine}}}]"
    if mine > inherited:
        assert looser(body, parent) != []
    else:
        assert load(HEAD + body, {"parent": parent}).limits[0].bound == mine
