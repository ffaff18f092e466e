"""What a limit can say beyond a bound: changes, hours, escalation, parameters, overrides, and what the linter says of them."""

from __future__ import annotations

from dataclasses import replace
from decimal import Decimal

import pytest

from policies import evaluate, lint
from policies.decision import Decision
from policies.limits import During
from policies.policy import Policy
from policies.portfolio import Facts, Holding, Option, Portfolio
from policies.rules import latched_after
from tests.policies.rig import ACCOUNT, BOOK, NOW_S, fill, opening, policy_of, portfolio

BUY = "calls: [{target: perp.clearing_house, functions: [openPosition, closePosition]}]\n"
DESKS = (
    "approvals: [{id: desk, signers: [trader], quorum: 1}, {id: board, signers: [trader, risk_officer], quorum: 2}, "
    "{id: other, signers: [keeper], quorum: 1}]\n"
)
THURSDAY_0800_S = 1_584_000_000
"""NOW_S of the rig: Thursday 2020-03-12, 08:00:00 UTC."""


def judge(policy: Policy, facts: Facts | None = None, now_s: int = NOW_S, **changes: object) -> Decision:
    given = facts or opening(policy)
    return evaluate(policy, replace(given, **changes), now_s)  # type: ignore[arg-type]


def to(size: str, policy: Policy, before: str = "0") -> Facts:
    """An order that takes the ETH position from `before` to `size`."""
    change = str(Decimal(size) - Decimal(before))
    return opening(policy, before=portfolio(before), after=portfolio(size), fills=(fill(change),))


# -- change ------------------------------------------------------------------------------------------------------------------


def test_a_limit_on_a_change_bounds_what_the_operation_adds_and_not_what_was_there() -> None:
    policy = policy_of("limits: [{id: step, metric: gross_notional, max_change: 10000}]\n" + BUY)
    assert judge(policy, to("150", policy, "100")).allowed  # 20,000 -> 30,000
    over = judge(policy, to("150.01", policy, "100"))
    assert over.outcome == "deny"
    (row,) = over.limits
    assert (row.of_change, row.before, row.after, row.headroom) == (True, None, Decimal(10_002), Decimal(-2))
    assert row.contributions == (("perp:ETH", Decimal(10_002)),)
    assert "max change 10,000.00 USDC" in "\n".join(over.explain())


def test_a_smallest_change_bounds_a_fall_and_warns_near_it() -> None:
    policy = policy_of("limits: [{id: cash, metric: free_collateral, min_change: -3000}]\n" + BUY)
    assert judge(policy, to("110", policy)).limits[0].verdict == "pass"  # frees 2,200 less
    near = judge(policy, to("150", policy)).limits[0]
    assert (near.verdict, near.utilisation) == ("warn", Decimal(1))
    assert judge(policy, to("150.1", policy)).outcome == "deny"


def test_a_change_cannot_be_judged_when_the_level_before_is_unknown() -> None:
    policy = policy_of("limits: [{id: step, metric: leverage, max_change: 1}]\n" + BUY)
    ruined = replace(to("150", policy, "100"), before=replace(portfolio("100", collateral="-10000"), holdings=()))
    row = judge(policy, ruined).limits[0]
    assert row.verdict == "deny"
    assert "before the operation" in row.reason


# -- hours -------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("entry", "inside", "outside"),
    [
        ({"hours": "480-1080"}, ["thu 08:00", "sun 17:59"], ["thu 07:59", "thu 18:00"]),
        ({"days": ["mon", "fri"]}, ["mon 00:00", "fri 23:59"], ["tue 00:00", "sun 23:59", "thu 12:00"]),
        # over midnight: belongs to the day on which it begins
        ({"days": ["fri"], "hours": "1320-360"}, ["fri 22:00", "sat 05:59"], ["fri 05:00", "sat 06:00", "sat 22:00", "fri 21:59"]),
        ({"days": ["sun"], "hours": "1320-360"}, ["sun 23:00", "mon 00:00"], ["sun 00:00", "mon 06:00"]),
    ],
)  # fmt: skip
def test_hours_are_utc_and_end_before_their_end(
    entry: dict[str, object], inside: list[str], outside: list[str]
) -> None:
    during = During.parse(entry)
    for text, expected in [(t, True) for t in inside] + [(t, False) for t in outside]:
        day, clock = text.split()
        days_on = ("thu", "fri", "sat", "sun", "mon", "tue", "wed").index(day)
        seconds = int(clock[:2]) * 3_600 + int(clock[3:]) * 60
        assert during.at(THURSDAY_0800_S - 8 * 3_600 + days_on * 86_400 + seconds) is expected, text


def test_outside_its_hours_a_limit_is_shown_and_binds_nothing() -> None:
    text = "limits: [{id: night, metric: leverage, max: 1, during: {hours: '%s'}}]\n" + BUY
    assert judge(policy_of(text % "08:00-09:00")).outcome == "deny"
    decision = judge(policy_of(text % "09:00-08:00"))
    assert decision.allowed
    assert decision.limits[0].reason == "binds only mon, tue, wed, thu, fri, sat, sun 09:00-08:00 UTC"
    assert decision.limits[0].after is not None


# -- escalation -----------------------------------------------------------------------------------------------------------------

STEPS = (
    "limits: [{id: gross, metric: gross_notional, max: 10000, action: require_signers, approval: desk, escalate: "
    "[{beyond: 20000, approval: board}, {beyond: 40000, action: deny}]}]\n" + DESKS + BUY
)


@pytest.mark.parametrize(
    ("size", "outcome", "approval"),
    [
        ("50", "allow", ""),
        ("50.01", "require_signers", "desk"),
        ("100", "require_signers", "desk"),
        ("100.01", "require_signers", "board"),
        ("200", "require_signers", "board"),
        ("200.01", "deny", ""),
    ],
)
def test_a_larger_breach_asks_a_larger_quorum_and_in_the_end_is_denied(size: str, outcome: str, approval: str) -> None:
    policy = policy_of(STEPS)
    decision = judge(policy, to(size, policy))
    assert (decision.outcome, decision.limits[0].approval) == (outcome, approval)


def test_steps_of_a_limit_from_below_go_downwards() -> None:
    policy = policy_of(
        "limits: [{id: d, metric: liquidation_distance, min: 30%, action: warn, escalate: [{beyond: 20%, approval: desk}, "
        "{beyond: 10%}]}]\n" + DESKS + BUY
    )
    found = [judge(policy, to(size, policy)) for size in ("100", "150", "200", "300")]
    assert [round(d.limits[0].after or 0, 3) for d in found] == [
        Decimal("0.467"), Decimal("0.289"), Decimal("0.2"), Decimal("0.111"),
    ]  # fmt: skip
    assert [d.outcome for d in found] == ["allow", "allow", "allow", "require_signers"]
    assert judge(policy, to("330", policy)).outcome == "deny"


# -- overrides -------------------------------------------------------------------------------------------------------------------

SUB = (
    "limits: [{id: lev, metric: leverage, max: 4}]\n" + BUY + "overrides: [{id: a, %s, limits: [{id: lev, max: 2}]}]\n"
)


def test_an_override_binds_its_accounts_chains_and_signers_beside_the_limit_itself() -> None:
    mine = "0x" + ACCOUNT.hex()
    for selector, binds in (
        (f"accounts: ['{mine}']", True),
        ("accounts: [account]", True),
        ("accounts: [treasury]", False),
        ("chains: [1337]", True),
        ("chains: [1]", False),
        ("accounts: [account], chains: [1]", False),
    ):
        policy = policy_of(SUB % selector)
        decision = judge(policy)
        assert (decision.outcome == "deny") is binds, selector
        assert [row.id for row in decision.limits] == ["lev"] + ["lev@a"] * binds


def test_a_traders_session_key_has_its_own_limits_and_an_unknown_signer_counts_as_any() -> None:
    policy = policy_of(SUB % "signers: [trader]")
    assert judge(policy, signer=BOOK["trader"]).outcome == "deny"
    assert judge(policy, signer=BOOK["keeper"]).allowed
    assert judge(policy, signer=None).outcome == "deny"
    unbound = policy_of(SUB % "accounts: [owner]")  # nobody is bound to that role here
    assert judge(unbound).outcome == "deny"


def test_an_override_is_looser_only_where_the_limit_may_be_loosened() -> None:
    looser = "limits: [{id: lev, metric: leverage, max: 2}]\n" + BUY + (
        "overrides: [{id: a, signers: [trader], limits: [{id: lev, max: 4}]}]\n"
    )  # fmt: skip
    said = [p for p in lint(f"schema: 1\nname: t\nversion: '1'\n{looser}") if p.severity == "error"]
    assert [(p.path, p.message) for p in said] == [
        ("overrides.a.limits.lev.max", "is looser than limits.lev, which binds too")
    ]
    policy = policy_of(looser + "may_loosen: [limits.lev]\n")
    assert judge(policy, signer=BOOK["trader"]).allowed
    assert judge(policy, signer=BOOK["keeper"]).outcome == "deny"
    assert judge(policy, signer=None).outcome == "deny"  # an unknown signer is never let in looser


def test_all_overrides_that_match_count_in_any_order() -> None:
    entries = [
        "{id: a, chains: [1337], limits: [{id: lev, max: 3}]}",
        "{id: b, accounts: [account], limits: [{id: lev, max: 1}]}",
    ]
    for ordered in (entries, entries[::-1]):
        text = f"limits: [{{id: lev, metric: leverage, max: 4}}]\n{BUY}overrides: [{', '.join(ordered)}]\n"
        decision = judge(policy_of(text))
        assert decision.outcome == "deny"
        assert {row.id: row.verdict for row in decision.limits} == {"lev": "pass", "lev@a": "warn", "lev@b": "deny"}


def test_an_override_latches_by_its_own_name() -> None:
    policy = policy_of(
        "limits: [{id: lev, metric: leverage, max: 4}]\noverrides: [{id: a, chains: [1], limits: [{id: lev, max: 2, hysteresis: 10%}]}]\n"
    )
    assert latched_after(policy, {"lev": Decimal(3), "lev@a": Decimal(3)}, frozenset()) == {"lev@a"}


def test_a_limit_of_an_override_alone_binds_only_there() -> None:
    text = BUY + "overrides: [{id: a, accounts: [%s], limits: [{id: own, metric: gross_notional, max: 1}]}]\n"
    assert judge(policy_of(text % "account")).outcome == "deny"
    assert judge(policy_of(text % "treasury")).allowed


# -- lint ------------------------------------------------------------------------------------------------------------------------

HEAD = "schema: 1\nname: t\nversion: '1'\ncalls: []\n" + DESKS


def said(limit: str, more: str = "") -> list[str]:
    """What the linter says of one limit, without the warnings that every short file gets."""
    found = lint(f"{HEAD}limits:\n  - {{id: x, {limit}}}\n{more}")
    return [
        f"{p.path}: {p.message} ({p.suggestion})" for p in found if p.path.startswith(("limits", "stress", "overrides"))
    ]


@pytest.mark.parametrize(
    ("limit", "expected"),
    [
        ("metric: turnover, max: 5, max_change: 5", "limits.x: needs exactly one of max and min"),
        ("metric: turnover, min_change: -5", "limits.x.min_change: turnover is worse when it is higher (write max_change:)"),
        ("metric: equity, min_change: 5", "limits.x.min_change: no operation could pass that did not raise it (write -5)"),
        ("metric: order_notional, scope: operation, max_change: 5", "order_notional measures what the operation does already"),
        ("metric: leverage, max: 5, window: 1h", "limits.x.window: leverage has no window (it takes no parameters)"),
        ("metric: turnover, max: 5, horizon: 1h", "limits.x.horizon: turnover has no horizon (it takes window)"),
        ("metric: turnover, max: 5, window: 0s", "limits.x.window: must be positive"),
        ("metric: turnover, max: 5, scope: 'asset: ETH'", "limits.x.scope: turnover cannot be taken of one asset"),
        ("metric: liquidation_price, max: 5", "limits.x: liquidation_price is taken of one asset (write scope: \"asset: ETH\""),
        ("metric: venue_share, max: 5%", "limits.x: venue_share is taken of one venue (write scope: \"venue: perp\""),
        ("metric: leverage, max_change: 1, hysteresis: 5%", "limits.x.hysteresis: a limit on a change is never latched"),
        ("metric: leverage, max: 1, during: {hours: 8-18}", "limits.x.during.hours: must be hours of the day in UTC"),
        ("metric: leverage, max: 1, during: {hours: '08:00-08:00'}", "limits.x.during.hours: begins when it ends"),
        ("metric: leverage, max: 1, during: {days: [mon, mon]}", "limits.x.during.days: the same one twice"),
        ("metric: leverage, max: 1, during: {days: [monday]}", "limits.x.during.days[0]: must be mon or tue"),
        ("metric: leverage, max: 1, during: {hours: '00:00-24:00'}", "limits.x.during: is always (remove it)"),
        ("metric: leverage, max: 1, escalate: [{beyond: 2}]", "limits.x.escalate: nothing is stricter than deny"),
        ("metric: leverage, max: 1, action: warn, escalate: [{beyond: 2}, {beyond: 2}]",
         "limits.x.escalate[1].beyond: is not further out than what comes before"),
        ("metric: leverage, max: 1, action: warn, escalate: [{beyond: 1}]",
         "limits.x.escalate[0].beyond: is not further out than what comes before"),
        ("metric: leverage, max: 1, action: warn, escalate: [{beyond: 2, approval: board}, {beyond: 3, approval: desk}]",
         "limits.x.escalate[1]: asks less than what comes before"),
        ("metric: leverage, max: 1, action: warn, escalate: [{beyond: 2, approval: bord}]",
         "limits.x.escalate[0].approval: there is no approval 'bord' (did you mean board?)"),
        ("metric: leverage, max: 1, action: warn, escalate: [{beyond: 2, action: require_signers}]",
         "limits.x.escalate[0]: require_signers needs the quorum that it asks"),
        ("metric: margin_use, max: 50%, action: warn, escalate: [{beyond: 2}]", "is not in the unit of the limit (write it like 50%)"),
    ],
)  # fmt: skip
def test_the_linter_names_what_a_limit_gets_wrong(limit: str, expected: str) -> None:
    assert any(expected in text for text in said(limit)), said(limit)


@pytest.mark.parametrize(
    ("more", "expected"),
    [
        ("stress: [{id: s}]", "stress.s: nothing happens in it"),
        ("stress: [{id: s, vol: {ETH: -100%}}]", "stress.s.vol.ETH: a volatility cannot fall by 100% or more"),
        ("overrides: [{id: o, limits: [{id: x, max: 1}]}]", "overrides.o: is for everyone"),
        ("overrides: [{id: o, chains: [1], limits: [{id: xy, max: 1}]}]", "there is no limit 'xy' to override"),
        (
            "overrides: [{id: o, signers: [tradr], limits: [{id: x, max: 1}]}]",
            "unknown name 'tradr' (did you mean trader?)",
        ),
        ("overrides: [{id: o, chains: [1], limits: [{id: x, min: 1}]}]", "leverage is worse when it is higher"),
        (
            "overrides: [{id: o, chains: [1], limits: [{id: x, max: 3}]}]",
            "limits.x.max: is looser than limits.x, which binds too",
        ),
        ("overrides: [{id: o, chains: [1], limits: [{id: x, max: 1, during: {days: [mon]}}]}]", "during: is looser"),
        ("overrides: [{id: o, chains: [1], limits: [{id: x, when: 'leverage > 1.0'}]}]", "when: is looser"),
        ("overrides: [{id: o, chains: [1], limits: [{id: x, max_change: 1}]}]", "max_change: is looser"),
        ("overrides: [{id: o, chains: [1], limits: [{id: x, action: warn}]}]", "action: is looser"),
        ("overrides: [{id: o, chains: [1], limits: [{id: new}]}]", "there is no limit 'new' to override"),
    ],
)
def test_the_linter_names_what_overrides_and_scenarios_get_wrong(more: str, expected: str) -> None:
    found = said("metric: leverage, max: 2", more + "\n")
    assert any(expected in text for text in found), found


def test_a_finding_stands_at_the_line_and_column_of_its_value() -> None:
    text = HEAD + "limits:\n  - id: x\n    metric: turnover\n    max: 5\n    during: {hours: 8-18}\n"
    (found,) = [p for p in lint(text) if p.path == "limits.x.during.hours"]
    assert (found.line, found.column, found.suggestion) == (10, 21, "write 08:00-18:00")


def test_everything_that_is_new_is_accepted_when_it_is_right() -> None:
    text = """
  - {id: a, metric: turnover, max: 5, window: 7d, during: {days: [mon, fri], hours: "22:00-06:00"}, action: require_signers,
     approval: desk, escalate: [{beyond: 9, approval: board}, {beyond: 12}]}
  - {id: b, metric: leverage, max_change: 0.5}
  - {id: c, metric: equity, min_change: -500}
overrides:
  - {id: trader-a, signers: [trader], limits: [{id: b, max_change: 0.1}, {id: own, metric: order_rate, max: 50, window: 1h}]}
"""
    assert [p for p in lint(HEAD + "limits:" + text) if p.severity == "error"] == []
    policy = policy_of(DESKS + "limits:" + text)
    assert [limit.id for limit in policy.every_limit] == ["a", "b", "c", "b@trader-a", "own@trader-a"]


def options_and(size: str, options: int) -> Portfolio:
    call = Option(
        "deribit", "ETH", True, Decimal(250), NOW_S + 86_400 * 30, Decimal(1), Decimal(0), Decimal(5), Decimal("0.8")
    )
    held = portfolio(size)
    cash = Holding("account", "USDC", Decimal(10_000 - 5 * options))
    return replace(held, options=(replace(call, size=Decimal(options)),), holdings=(cash,))


def test_what_a_model_says_of_what_does_not_change_cancels_in_a_change() -> None:
    """Options that stay, and an order of one ETH: delta changes by one, exactly."""
    policy = policy_of("limits: [{id: step, metric: delta, scope: 'asset: ETH', max_change: 1}]\n" + BUY)
    facts = opening(policy, before=options_and("1", 1_000), after=options_and("2", 1_000), fills=(fill("1"),))
    assert judge(policy, facts).limits[0].after == 1
    assert judge(policy, facts).allowed


def test_what_a_model_rounds_up_before_never_makes_a_change_look_smaller() -> None:
    """One option of a thousand is sold: the change is its delta, and a little more for what the model may be wrong."""
    policy = policy_of("limits: [{id: step, metric: delta, scope: 'asset: ETH', max_change: 0}]\n" + BUY)
    sold = (replace(fill("-1", "5"), venue="deribit"),)
    facts = opening(policy, before=options_and("1", 1_000), after=options_and("1", 999), fills=sold)
    one = judge(policy, replace(facts, before=options_and("1", 1), after=options_and("1", 0))).limits[0].after
    many = judge(policy, facts).limits[0].after
    assert one is not None
    assert many is not None
    assert one < many < 0
    assert many - one < Decimal("1e-8")


def test_a_scenario_of_volatility_or_time_alone_is_a_stress_too() -> None:
    policy = policy_of("stress: [{id: calm, vol: {ETH: 50%}}, {id: later, time: 1d}]\n" + BUY)
    assert [row.id for row in judge(policy).limits] == ["stress.calm", "stress.later"]
