"""`guards.breaker`: what a file may say, what becomes of it on chain, and how it comes about there."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from contracts import bindings as b
from contracts.abi import encode
from contracts.artifacts import artifact
from contracts.bindings import MODULE_EXECUTOR, MODULE_HOOK, FreezeConfig, RiskState
from contracts.errors import BadInput
from policies.breakers import BreakerState, breaker_fields, breaker_state
from policies.configuration import Change, Present, Wanted
from policies.configuration import differences as chain_differences
from policies.differences import differences
from policies.document import lint, load
from policies.guards import freeze_config
from policies.hooks import HookState
from policies.modules import module_inits

POLICY = """\
schema: 1
name: bounded
version: "1"
limits:
  - {id: leverage, metric: leverage, max: 9}
calls:
  - {target: seawall.policy_hook, functions: [announce, setBreaker]}
  - {target: seawall.equity_breaker, functions: [announce, configure, resetMark]}
guards:
  hook: {enforce_calls: false, change_delay: 0s, spending: [{token: usdc, limit: 9, per: day}]}
  freeze: {guardians: [guardian], quorum: 1}
  breaker:
    loss_per_operation: 1.239%
    drawdown: 10%
    on_drawdown: FROZEN
    assets:
      - {token: usdc, oracle: {feed: feed.usdc, heartbeat: 1d, min_price: 0.98, max_price: 1.02}}
      - {token: native, quote: usdc, pool_fee: 0.05%, every_execution: true, oracle: {feed: feed.eth, heartbeat: 1h, max_deviation: 2%}}
    venues: [aave, perp]
"""
_NAMES = (
    "usdc", "weth", "feed.eth", "feed.usdc", "guardian", "seawall.emergency_freeze", "seawall.policy_hook", "seawall.equity_breaker",
    "seawall.uniswap_adapter", "seawall.perp_equity", "seawall.aave_equity", "seawall.risk_validator", "engine",
)  # fmt: skip
BOOK = {name: name.encode().rjust(20, b"\0")[-20:] for name in _NAMES}
HOOK, BREAKER = BOOK["seawall.policy_hook"], BOOK["seawall.equity_breaker"]
ZERO, WAD, ACCOUNT = bytes(20), 10**18, b"\xac" * 20


def test_a_file_becomes_the_struct_of_the_module() -> None:
    settings, assets, sources = breaker_state(load(POLICY), BOOK).config
    # Bounds are rounded down to basis points; what the file does not bound is 0, which the module does not bound either.
    assert settings == (HOOK, BOOK["seawall.emergency_freeze"], 123, 0, 1000, 1, 2, 86_400, 60)
    dollar, ether = assets
    assert dollar == (
        BOOK["usdc"], ZERO, False, (BOOK["feed.usdc"], 86_400, ZERO, 1800, 98 * WAD // 100, 102 * WAD // 100, 500, 0), b"",
    )  # fmt: skip
    market = encode(["address", "address", "uint24"], [BOOK["weth"], BOOK["usdc"], 500])
    assert (ether[0], ether[1], ether[2], ether[4]) == (ZERO, BOOK["seawall.uniswap_adapter"], True, market)
    assert sources == (BOOK["seawall.aave_equity"], BOOK["seawall.perp_equity"])


def test_the_struct_is_that_of_the_contract() -> None:
    (configure,) = [entry for entry in artifact("EquityBreaker").abi if entry.get("name") == "configure"]

    def flat(parameter: dict[str, Any]) -> str:
        kind: str = parameter["type"]
        if not kind.startswith("tuple"):
            return kind
        return f"({','.join(flat(one) for one in parameter['components'])}){kind[5:]}"

    assert flat(configure["inputs"][0]) == b.BREAKER_CONFIG


def test_the_freeze_obeys_the_breaker_and_no_session_may_execute_it() -> None:
    policy = load(POLICY)
    config = freeze_config(policy, BOOK, ACCOUNT)
    assert isinstance(config, FreezeConfig)
    assert config.guards == (BREAKER,)
    assert policy.triggers == ()


def test_an_account_is_never_born_with_it() -> None:
    policy = load(POLICY)
    born = module_inits(policy, BOOK, ZERO, [BOOK["engine"]], 0)
    assert BREAKER not in [one.module for one in born]


# ---- how it comes about


def present(**changed: Any) -> Present:
    found = Present(
        account=ACCOUNT, block_number=1, time_s=1_000, state=RiskState.ACTIVE, state_epoch=0,
        modules=frozenset({(MODULE_HOOK, HOOK)}), authority=BOOK["seawall.emergency_freeze"], native_owner_path=False, admin_delay_s=60,
        hook=HookState(BOOK["seawall.emergency_freeze"], 0, False),
    )  # fmt: skip
    return replace(found, **changed)


def breaker_changes(text: str, now: Present) -> list[Change]:
    return [change for change in chain_differences(Wanted(load(text), BOOK, now, {})) if "breaker" in change.key]


def installed(state: BreakerState, *, reports: bool = True) -> Present:
    modules = frozenset({(MODULE_HOOK, HOOK), (MODULE_EXECUTOR, BREAKER)})
    return present(modules=modules, breaker=state, hook_breaker=BREAKER if reports else ZERO)


def test_it_is_installed_first_and_then_the_hook_is_told_alone() -> None:
    (install,) = [change for change in breaker_changes(POLICY, present()) if change.key.startswith("module")]
    kind, module, data = b.INSTALL_MODULE.decode_input(install.calls[0].data)
    wanted = breaker_state(load(POLICY), BOOK)
    assert (kind, module, data) == (MODULE_EXECUTOR, BREAKER, wanted.encode())
    (told,) = breaker_changes(POLICY, installed(wanted, reports=False))
    assert told.alone
    assert not told.announced
    assert b.SET_HOOK_BREAKER.decode_input(told.calls[0].data) == (BREAKER,)
    assert breaker_changes(POLICY, installed(wanted)) == []


def test_a_changed_bound_is_announced_at_the_breaker() -> None:
    wanted = breaker_state(load(POLICY), BOOK)
    (change,) = breaker_changes(POLICY.replace("drawdown: 10%", "drawdown: 12%"), installed(wanted))
    assert change.fields == (("drawdown", "1000 bps", "1200 bps"),)
    assert change.announced_at == BREAKER
    assert change.announced[:4] == b.CONFIGURE_BREAKER.selector
    without_delay = POLICY.replace("on_drawdown", "change_delay: 0s\n    on_drawdown")
    (at_once,) = breaker_changes(
        without_delay.replace("drawdown: 10%", "drawdown: 12%"), installed(breaker_state(load(without_delay), BOOK))
    )
    assert at_once.calls[0].target == BREAKER
    assert not at_once.announced


def test_a_file_without_it_drops_it_from_the_hook_and_removes_the_module() -> None:
    bare = POLICY[: POLICY.index("  breaker:")]
    changes = breaker_changes(bare, installed(breaker_state(load(POLICY), BOOK)))
    assert {change.kind for change in changes} == {"remove"}
    (dropped,) = [change for change in changes if change.key == "hook's breaker"]
    assert dropped.alone
    assert b.SET_HOOK_BREAKER.decode_input(dropped.calls[0].data) == (ZERO,)


def test_what_is_shown_names_sources_and_states() -> None:
    fields = breaker_fields(breaker_state(load(POLICY), BOOK), str)
    assert fields["loss a day"] == "not bounded"
    assert fields["a drawdown latches"] == "FROZEN"
    assert fields["second price of native"].endswith("for every execution")


# ---- the file


def test_an_inherited_breaker_may_only_get_tighter() -> None:
    def child(most: str) -> str:
        return POLICY.replace("schema: 1\n", "schema: 1\nextends: house\n").replace(
            "drawdown: 10%", f"drawdown: {most}"
        )

    assert load(child("8%"), {"house": POLICY}).breaker is not None
    with pytest.raises(BadInput, match="looser"):
        load(child("12%"), {"house": POLICY})


def test_a_difference_is_told_by_bound() -> None:
    (found,) = differences(load(POLICY), load(POLICY.replace("drawdown: 10%", "drawdown: 8%")))
    assert (found.path, found.before, found.after, found.direction) == (
        "guards.breaker.drawdown", "10%", "8%", "tighter",
    )  # fmt: skip


@pytest.mark.parametrize(
    ("wrong", "complaint"),
    [
        (("  freeze: {guardians: [guardian], quorum: 1}\n", ""), "needs guards.freeze"),
        (("drawdown: 10%", "drawdown: 0%"), "between 0.01% and 100%"),
        (("drawdown: 10%", "drawdown: 101%"), "between 0.01% and 100%"),
        (("token: native", "token: usdc"), "listed already"),
        (("token: usdc, oracle", "token: usdx, oracle"), "unknown name 'usdx'"),
        (("quote: usdc, ", ""), "means something beside quote"),
        (("venues: [aave, perp]", "venues: [perp, perp]"), "same venue twice"),
        (("venues: [aave, perp]", "venues: [lyra]"), "perp"),
        (("heartbeat: 1h", "heartbeat: 0s"), "must be positive"),
        (("on_drawdown: FROZEN", "on_drawdown: ACTIVE"), "REDUCE_ONLY"),
        (("    loss_per_operation: 1.239%\n    drawdown: 10%\n", ""), "bounds nothing"),
    ],
)
def test_a_breaker_that_could_not_hold_is_refused(wrong: tuple[str, str], complaint: str) -> None:
    text = POLICY.replace(*wrong)
    assert text != POLICY
    errors = [str(problem) for problem in lint(text) if problem.severity == "error"]
    assert any(complaint in error for error in errors), errors


@pytest.mark.parametrize(
    ("doubtful", "warning"),
    [
        (("min_price: 0.98, max_price: 1.02", "min_price: 0.5, max_price: 2"), "can never rise"),
        (("[announce, setBreaker]", "[announce]"), "can never turn it on"),
        (
            ("  - {target: seawall.equity_breaker, functions: [announce, configure, resetMark]}\n", ""),
            "can never be changed",
        ),
    ],
)
def test_what_would_surprise_is_warned_of(doubtful: tuple[str, str], warning: str) -> None:
    assert not any("breaker" in problem.path for problem in lint(POLICY))
    assert any(warning in problem.message for problem in lint(POLICY.replace(*doubtful)))
