"""Reading policy files: every problem at once, with its place and what to write instead."""

from __future__ import annotations

import pytest

from policies import InvalidPolicy, lint, load
from tests.policies.rig import EXAMPLES, example

HEAD = "schema: 1\nname: test\nversion: '1'\n"
LIMIT = "limits:\n  - {id: lev, metric: leverage, max: 3}\n"


def found(body: str, parents: dict[str, str] | None = None, **variables: str) -> list[str]:
    """Problems of a file with this body, errors only, as text."""
    return [str(p) for p in lint(HEAD + body, parents or {}, variables) if p.severity == "error"]


def only(body: str) -> str:
    problems = found(body)
    assert len(problems) == 1, problems
    return problems[0]


@pytest.mark.parametrize("path", sorted(EXAMPLES.glob("*.yaml")), ids=lambda path: path.stem)
def test_every_example_is_free_of_errors_and_warnings(path: object) -> None:
    parents = {p.name: p.read_text() for p in EXAMPLES.glob("*.yaml")}
    assert lint(path.read_text(), parents) == []  # type: ignore[attr-defined]


def test_every_problem_is_reported_at_once_with_line_and_column() -> None:
    text = HEAD + (
        "limits:\n"
        "  - id: lev\n"
        "    metric: levrage\n"
        "    max: 3\n"
        "  - id: lev\n"
        "    metric: equity\n"
        "    max: 12%\n"
        "colour: blue\n"
    )
    problems = lint(text)
    places = {(p.line, p.column, p.path) for p in problems if p.severity == "error"}
    assert (6, 13, "limits.lev.metric") in places
    assert (10, 10, "limits[1].max") in places
    assert (11, 1, "colour") in places
    assert any("duplicate id" in p.message for p in problems)


def test_a_misspelt_key_and_metric_name_the_nearest_known_one() -> None:
    text = HEAD + "limit:\n  - {id: a, metric: leverage, max: 3}\n"
    assert "did you mean limits?" in [p.suggestion for p in lint(text)]
    assert "did you mean leverage?" in only("limits:\n  - {id: a, metric: levrage, max: 3}\n")


@pytest.mark.parametrize(
    ("written", "advice"),
    [
        ("max: no", "must be a number"),
        ("max: 1_000", "write 1000"),
        ("max: 010", "write 10"),
        ("max: 1e3", "write 1000"),
        ("max: 0x10", "must be a number"),
        ("max: 3x", "write 3"),
        ("max: .inf", "infinities and NaN are no bounds"),
        ("max: .nan", "infinities and NaN are no bounds"),
        ("max: NaN", "infinities and NaN are no bounds"),
        ("max: 2020-03-12", "must be a number"),
        ("max: 1:30", "must be a number"),
        ("max: ~", "has no value"),
        ("max:", "has no value"),
        ("max: [3]", "not a list or mapping"),
        ("max: '3 '", "write 3"),
    ],
)
def test_scalars_that_yaml_reads_in_surprising_ways_are_refused_with_advice(written: str, advice: str) -> None:
    problem = found(f"limits:\n  - id: a\n    metric: leverage\n    {written}\n")[0]
    assert advice in problem


@pytest.mark.parametrize("word", ["yes", "on", "True", "TRUE", "'true'", "1"])
def test_a_boolean_is_true_or_false_and_nothing_like_it(word: str) -> None:
    body = f"exits:\n  - {{target: treasury, plain_value: {word}}}\n"
    assert any("must be true or false" in problem for problem in found(body))


def test_plain_scalars_stay_text_where_text_is_meant() -> None:
    assert load("schema: 1\nname: no\nversion: 2020-03-12\n").version == "2020-03-12"
    assert load("schema: 1\nname: no\nversion: 1.10\n").version == "1.10"
    assert load("schema: 1\nname: no\nversion: 1.10\n").name == "no"


def test_a_percentage_needs_its_sign_where_the_metric_is_one_and_must_not_have_it_elsewhere() -> None:
    assert "write 20%" in only("limits:\n  - {id: a, metric: liquidation_distance, min: 20}\n")
    assert "write a plain number" in only("limits:\n  - {id: a, metric: leverage, max: 300%}\n")


def test_durations_need_a_unit() -> None:
    assert "write 600s for seconds" in only("facts: {max_price_age: 600}\n")
    assert "one unit" in only("facts: {max_price_age: 1:30}\n")


def test_an_address_with_a_wrong_checksum_is_refused() -> None:
    good = "0x5FbDB2315678afecb367f032d93F642f64180aa3"
    assert found(f"addresses: {{desk: '{good}'}}\n") == []
    assert "checksum" in only(f"addresses: {{desk: '{good.replace('5Fb', '5fb')}'}}\n")


def test_the_structure_of_yaml_itself_is_checked() -> None:
    assert "duplicate key 'max', first on line 4" in only("limits: [{id: a, metric: leverage, max: 3, max: 30}]\n")
    assert any("tags" in p for p in found("description: !!python/object:os.system x\n"))
    assert any("more than one YAML document" in p for p in found("---\nname: b\n"))
    assert any("merge keys" in p for p in found("facts:\n  <<: {max_price_age: 1m}\n"))
    assert any("not valid YAML" in p for p in found("limits: [\n"))
    assert any("a policy is a mapping" in str(p) for p in lint("- a\n"))
    assert any("a policy is a mapping" in str(p) for p in lint(""))


def test_a_bomb_of_aliases_and_endless_nesting_are_stopped_before_they_are_expanded() -> None:
    bomb = "a: &a [x,x,x,x,x,x,x,x,x]\n" + "".join(
        f"{here}: &{here} [{','.join([f'*{before}'] * 9)}]\n"
        for before, here in zip("abcdefgh", "bcdefghi", strict=True)
    )
    assert any("once aliases are expanded" in p for p in found(bomb))
    assert any("nested deeper" in p for p in found("description: " + "[" * 5000 + "]" * 5000 + "\n"))
    assert any("names nothing that is complete" in p for p in found("description: &a [*a]\n"))
    assert any("larger than" in p for p in found("# " + "x" * 300_000 + "\n"))


def test_an_alias_repeats_a_value() -> None:
    text = HEAD + "facts: {max_price_age: &age 5m, max_block_age: *age}\n"
    assert load(text).max_block_age_s == 300


def test_a_file_with_errors_does_not_load_and_the_error_carries_all_of_them() -> None:
    with pytest.raises(InvalidPolicy) as refused:
        load(HEAD + "limits:\n  - {id: a, metric: x, max: 3}\n  - {id: b, metric: y, max: 3}\n")
    assert [p.line for p in refused.value.problems if p.severity == "error"] == [5, 6]
    assert refused.value.exit_code == 2


# -- meaning -------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("body", "message"),
    [
        ("limits: [{id: a, metric: leverage, min: 3}]", "worse when it is higher"),
        ("limits: [{id: a, metric: leverage}]", "exactly one of max and min"),
        ("limits: [{id: a, metric: leverage, max: 3, min: 1}]", "exactly one of max and min"),
        ("limits: [{id: a, metric: position_size, max: 3}]", "sizes of different assets"),
        ("limits: [{id: a, metric: order_slippage, max: 1%}]", "scope: operation"),
        ("limits: [{id: a, metric: leverage, scope: operation, max: 3}]", "scope: portfolio"),
        ("limits: [{id: a, metric: concentration, max: 30%}]", "always 100% of itself"),
        ("limits: [{id: a, metric: liquidation_distance, min: 100%}]", "ever that far"),
        ("limits: [{id: a, metric: gross_notional, max: -1}]", "must not be negative"),
        ("limits: [{id: a, metric: leverage, max: 3, warn_at: 180%}]", "between 0% and 100%"),
        ("limits: [{id: a, metric: leverage, max: 3, hysteresis: 100%}]", "below 100%"),
        ("limits: [{id: a, metric: leverage, max: 3, action: require_signers}]", "needs the quorum"),
        ("limits: [{id: a, metric: leverage, max: 3, action: require_signers, approval: x}]", "there is no approval"),
        ("approvals: [{id: a, signers: [trader], quorum: 2}]", "2 of 1 signers is no quorum"),
        ("guards: {freeze: {guardians: [guardian, guardian_2], quorum: 3}}", "3 of 2 guardians is no quorum"),
        ("guards: {freeze: {guardians: [guardian, guardian], quorum: 1}}", "the same one twice"),
        ("guards: {freeze: {guardians: [gardian], quorum: 1}}", "did you mean guardian?"),
        (
            "guards: {freeze: {guardians: [guardian], quorum: 1, solo_freeze: 2h, cooldown: 1h}}",
            "longer than solo_freeze",
        ),
        ("calls: [{target: usdc, functions: [approve]}]", "without a pinned spender"),
        ("calls: [{target: usdc, functions: [aprove]}]", "did you mean approve?"),
        ("calls: [{target: perp.volt, functions: [deposit]}]", "did you mean perp.vault?"),
        ("calls: [{target: usdc, functions: [approve], args: {spendr: perp.vault}}]", "did you mean spender?"),
        ("calls: [{target: usdc}]", "allows nothing"),
        ("calls: [{target: usdc, functions: [transfer], args: {to: '0x1'}}]", "whole bytes in hex"),
        ("calls: [{target: usdc, functions: ['0x12345678'], args: {to: treasury}}]", "cannot be pinned"),
        ("exits: [{target: usdc, function: transfer}]", "unlimited exit"),
        ("exits: [{target: perp.clearing_house, function: openPosition}]", "opens: that is no exit"),
        ("exits: [{target: account, plain_value: true}]", "can be no exit"),
        ("exits: [{target: treasury}]", "needs a function, or plain_value"),
        ("exits: [{target: treasury, plain_value: true, function: transfer}]", "exclude each other"),
        ("exits: [{target: perp.vault, function: deposit, args: {12: usdc}}]", "cannot be pinned"),
        ("addresses: {perp.vault: '0x5FbDB2315678afecb367f032d93F642f64180aa3'}", "name of Seawall's own"),
        ("description: ${nope}", "unknown variable 'nope'"),
        ("schema: 2", "duplicate key"),
        ("attestation: {threshold: 0}", "must be positive"),
        ("sponsorship: {per_day: -1}", "must not be negative"),
        ("stress: [{id: a, shock: {ETH: -100%}}]", "cannot fall by 100%"),
    ],
)
def test_what_is_well_formed_and_still_wrong_is_refused(body: str, message: str) -> None:
    assert any(message in problem for problem in found(body + "\n")), found(body + "\n")


STOP = "guards: {stop_loss: [{id: 1, venue: perp, asset: ETH, %s, oracle: {feed: feed.eth, heartbeat: 1h}}]}\n"


@pytest.mark.parametrize(
    ("stop", "message"),
    [
        (
            "drop: 12%, price: 90, slippage: 1%, max_slippage: 2%",
            "exactly one of drop, gain, price, trail and trail_distance",
        ),
        ("slippage: 1%, max_slippage: 2%", "exactly one of drop, gain, price, trail and trail_distance"),
        ("drop: 12%, slippage: 3%, max_slippage: 2%", "it widens, never narrows"),
        ("drop: 12%, slippage: 3%, max_slippage: 60%", "at most 50%"),
        ("drop: 120%, slippage: 1%, max_slippage: 2%", "below 100%"),
        ("drop: 29%, slippage: 1%, max_slippage: 2%", "the stop never fires"),
        ("drop: 12%, size: 120%, slippage: 1%, max_slippage: 2%", "between 0.01% and 100%"),
        ("price: 99000000, slippage: 1%, max_slippage: 2%", "it never fires"),
        (
            "trail: 5%, drop: 5%, slippage: 1%, max_slippage: 2%",
            "exactly one of drop, gain, price, trail and trail_distance",
        ),
        ("trail: 100%, slippage: 1%, max_slippage: 2%", "at least 0.01% and below 100%"),
        ("trail: 0.001%, slippage: 1%, max_slippage: 2%", "at least 0.01% and below 100%"),
        ("trail_distance: 0, slippage: 1%, max_slippage: 2%", "must be positive"),
        ("trail_distance: 90, start: 90, slippage: 1%, max_slippage: 2%", "no price is left to fire at"),
        ("trail: 5%, start: 0, slippage: 1%, max_slippage: 2%", "must be positive"),
        ("price: 90, start: 90, slippage: 1%, max_slippage: 2%", "goes with trail or trail_distance"),
        ("trail: 5%, take_profit: true, slippage: 1%, max_slippage: 2%", "take_profit: goes with price"),
        ("price: 90, size: 50%, amount: 2, slippage: 1%, max_slippage: 2%", "amount: goes instead of size"),
        ("price: 90, amount: 0, slippage: 1%, max_slippage: 2%", "must be positive"),
        ("price: 90, max_size_per_execution: 0, slippage: 1%, max_slippage: 2%", "must be positive"),
        ("price: 90, dust: -1, slippage: 1%, max_slippage: 2%", "must not be negative"),
        ("price: 90, amount: 2, dust: 2, slippage: 1%, max_slippage: 2%", "must be below amount, 2"),
        (
            "price: 90, max_size_per_execution: 1, dust: 2, slippage: 1%, max_slippage: 2%",
            "must be below max_size_per_execution, 1",
        ),
        ("price: 90, group: 0, slippage: 1%, max_slippage: 2%", "numbered from 1"),
        ("price: 90, group: 4294967296, slippage: 1%, max_slippage: 2%", "numbered from 1"),
    ],
)
def test_a_stop_that_could_not_work_is_refused(stop: str, message: str) -> None:
    assert any(message in problem for problem in found(LIMIT + STOP % stop)), found(LIMIT + STOP % stop)


ELSEWHERE = (
    "guards: {stop_loss: [{id: 1, %s, slippage: 1%%, max_slippage: 2%%, oracle: {feed: feed.eth, heartbeat: 1h}}]}\n"
)


@pytest.mark.parametrize(
    ("stop", "message"),
    [
        ("venue: perp, price: 90", "a stop on perp needs asset"),
        ("venue: perp, asset: ETH, token: weth, price: 90", "a stop on perp has no token (it has asset)"),
        ("venue: uniswap, asset: ETH, token: weth, quote: usdc, price: 90", "a stop on uniswap has no asset"),
        ("venue: uniswap, token: weth, price: 90", "a stop on uniswap needs quote"),
        ("venue: uniswap, token: weth, quote: weth, price: 90", "token and quote are the same"),
        ("venue: uniswap, token: wehh, quote: usdc, price: 90", "did you mean weth?"),
        ("venue: uniswap, token: weth, quote: usdc, pool_fee: 101%, price: 90", "between 0% and 100%"),
        (
            "venue: uniswap, token: weth, quote: usdc, drop: 5%",
            "tells no entry price to count from (write price instead)",
        ),
        ("venue: aave, token: weth, quote: usdc, gain: 5%", "tells no entry price to count from"),
        ("venue: lyra, position: 0, price: 90", "numbers positions from 1"),
        ("venue: lyra, price: 90", "a stop on lyra needs position"),
        ("venue: gmx, price: 90", "perp"),
        ("venue: perp, asset: ETH, gain: 5%, take_profit: true", "goes with price"),
        (
            "venue: uniswap, token: weth, quote: usdc, trail: 5%",
            "tells no entry price to trail from (write start: the best price so far)",
        ),
        ("venue: perp, asset: ETH, gain: 5%, drop: 5%", "exactly one of drop, gain, price, trail and trail_distance"),
    ],
)
def test_a_stop_names_its_position_as_its_venue_does(stop: str, message: str) -> None:
    assert any(message in problem for problem in found(ELSEWHERE % stop)), found(ELSEWHERE % stop)


@pytest.mark.parametrize(
    "stop",
    [
        "venue: uniswap, token: weth, quote: usdc, price: 90",
        "venue: aave, token: weth, quote: usdc, pool_fee: 0.05%, price: 90, take_profit: true",
        "venue: lyra, position: 7, price: 90",
        "venue: perp, asset: ETH, gain: 40%",
        "venue: perp, asset: ETH, trail: 4%",
        "venue: uniswap, token: weth, quote: usdc, trail_distance: 20, start: 100, amount: 2, dust: 0.1",
    ],
)
def test_a_stop_may_be_on_every_venue(stop: str) -> None:
    assert found(ELSEWHERE % stop) == []


GROUP = """\
guards:
  stop_loss:
    - {id: 1, venue: perp, asset: ETH, price: 90, group: 2, slippage: 1%%, max_slippage: 2%%, oracle: {feed: feed.eth, heartbeat: 1h}}
    - {id: 2, %s, price: 120, take_profit: true, group: 2, slippage: 1%%, max_slippage: 2%%, oracle: {feed: feed.eth, heartbeat: 1h}}
"""


def test_stops_of_one_position_may_cancel_each_other() -> None:
    assert found(GROUP % "venue: perp, asset: ETH") == []


def test_a_group_over_two_positions_is_pointed_out() -> None:
    problems = lint(HEAD + GROUP % "venue: uniswap, token: weth, quote: usdc")
    assert any("stop 2 is on another position than stop 1" in problem.message for problem in problems)


def test_a_group_of_one_is_pointed_out() -> None:
    problems = lint(HEAD + STOP % "price: 90, group: 3, slippage: 1%, max_slippage: 2%")
    assert any("no other stop is in group 3" in problem.message for problem in problems)


def test_a_stop_within_the_distance_that_the_limits_leave_is_fine() -> None:
    """3x: a long is liquidated after (1/3 - 6.25 %) / (1 - 6.25 %) = 28.9 %."""
    assert found(LIMIT + STOP % "drop: 28%, slippage: 0.1%, max_slippage: 0.2%") == []


def test_without_a_leverage_limit_the_venues_own_bound_counts() -> None:
    problems = found(STOP % "drop: 12%, slippage: 1%, max_slippage: 2%")
    assert any("venue's 10x is liquidated after 4.0%" in problem for problem in problems)


def test_limits_that_exclude_each_other_are_pointed_out() -> None:
    text = HEAD + LIMIT + "  - {id: dist, metric: liquidation_distance, min: 50%}\n"
    assert any("never reached" in p.message for p in lint(text))


# -- variables -----------------------------------------------------------------------------------------------------------------


def test_variables_fill_in_and_the_caller_may_replace_them() -> None:
    text = HEAD + "variables: {cap: '3'}\nlimits:\n  - {id: a, metric: leverage, max: '${cap}'}\n"
    assert load(text).limits[0].bound == 3
    assert load(text, {}, {"cap": "2.5"}).limits[0].bound.as_tuple().digits == (2, 5)
    assert any("no variable 'cup'" in p.message and "cap" in p.suggestion for p in lint(text, {}, {"cup": "1"}))


def test_a_variables_value_is_checked_like_written_text_and_never_expanded_again() -> None:
    text = HEAD + "variables: {cap: '3'}\nlimits:\n  - {id: a, metric: leverage, max: '${cap}'}\n"
    assert any("infinities" in str(p) for p in lint(text, {}, {"cap": ".inf"}))
    assert any("still names a variable" in str(p) for p in lint(text, {}, {"cap": "${cap}"}))
    assert any("still names a variable" in str(p) for p in lint(text.replace("'${cap}'", "'${cap'"), {}))


def test_the_fund_and_its_twin_differ_in_nothing_but_the_stop() -> None:
    fund, twin = (dict(load(example(name)).document) for name in ("conservative_fund", "conservative_fund_no_stop"))
    assert set(fund["guards"]) - set(twin["guards"]) == {"stop_loss", "session"}
    assert fund["guards"]["freeze"] == twin["guards"]["freeze"]
    for section in set(fund) - {"guards", "name", "description"}:
        assert fund[section] == twin[section]
