"""`guards.hook`: from the file to PolicyHook's configuration; what the hook lets pass is what the engine lets pass."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from decimal import Decimal

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from contracts import bindings as b
from contracts.abi import Function
from contracts.bindings import MODULE_HOOK, Call
from contracts.errors import BadInput
from contracts.types import Address, checksum, keccak
from policies import functions, load
from policies.calls import decode_calls
from policies.configuration import Change, Wanted, differences
from policies.hook_rules import fits_a_window, token_units
from policies.hooks import (
    EQUAL,
    IN_SET,
    NO_EXECUTOR,
    PAYABLE,
    RANGE,
    SELF,
    SIGNED_RANGE,
    UNLIMITED,
    VALUE_WORD,
    Condition,
    HookState,
    hook_state,
    word_of_argument,
)
from policies.permits import call_row
from policies.policy import Policy
from tests.policies.rig import facts_of
from tests.policies.test_configuration import ACCOUNT, BOOK, INSTALLED, document, present

D = Decimal
TRANSFER, APPROVE = b.TRANSFER.selector, b.APPROVE.selector


def policy_with(calls: str, hook: str = "{}", more: str = "") -> Policy:
    return load(
        f"""\
schema: 1
name: hooked
version: "1"
calls:
{calls}
guards:
  hook: {hook}
{more}"""
    )


def complaints(calls: str, hook: str) -> list[str]:
    from policies.document import lint

    text = f'schema: 1\nname: x\nversion: "1"\ncalls:\n{calls}\nguards:\n  hook: {hook}\n'
    return [f"{p.path}: {p.message}" for p in lint(text) if p.severity == "error"]


def word(value: int | bytes) -> bytes:
    return value.to_bytes(32) if isinstance(value, int) else bytes(12) + value


def test_every_entry_of_calls_becomes_a_rule_and_entries_of_one_function_its_alternatives() -> None:
    policy = policy_with(
        """\
  - {target: usdc, functions: [transfer], args: {to: treasury}}
  - {target: usdc, functions: [transfer], args: {to: account, amount: {max: 5}}}
  - {target: usdc, functions: [approve], args: {spender: [perp.vault, uniswap.router]}}
  - {target: treasury, max_value: 0.5}
  - {target: account, functions: [installModule]}
  - {target: seawall.policy_hook, functions: [setRule]}"""
    )
    state = hook_state(policy, BOOK, ACCOUNT)
    assert state.rules == {
        (BOOK["usdc"], TRANSFER): (
            NO_EXECUTOR,
            (
                ((EQUAL, 0, (word(BOOK["treasury"]),)),),
                ((RANGE, 1, (word(0), word(5))), (SELF, 0, ())),
            ),
        ),
        (BOOK["usdc"], APPROVE): (
            NO_EXECUTOR,
            (((IN_SET, 0, (word(BOOK["perp.vault"]), word(BOOK["uniswap.router"]))),),),
        ),
        (BOOK["treasury"], bytes(4)): (
            NO_EXECUTOR | PAYABLE,
            (((RANGE, VALUE_WORD, (word(0), word(5 * 10**17))),),),
        ),
        (bytes(20), b.INSTALL_MODULE.selector): (NO_EXECUTOR, ()),
    }
    assert state.enforces
    assert state.change_delay_s == 86_400
    assert state.authority == bytes(20)


def test_an_account_that_is_not_born_yet_is_given_the_same() -> None:
    assert hook_state(LISTED, BOOK, bytes(20)) == hook_state(LISTED, BOOK, ACCOUNT)


def test_an_entry_without_conditions_makes_the_others_needless() -> None:
    calls = "  - {target: weth, functions: [approve], args: {spender: uniswap.router}}\n  - {target: weth, functions: [deposit]}\n"
    loose = "  - {target: weth, functions: [deposit], max_value: 2}\n"
    state = hook_state(policy_with(calls + loose), BOOK, ACCOUNT)
    deposit = Function.parse("deposit()").selector
    assert state.rules[BOOK["weth"], deposit] == (
        NO_EXECUTOR | PAYABLE,
        (((RANGE, VALUE_WORD, (word(0), word(0))),), ((RANGE, VALUE_WORD, (word(0), word(2 * 10**18))),)),
    )
    plain = hook_state(policy_with(calls), BOOK, ACCOUNT)
    assert plain.rules[BOOK["weth"], deposit] == (NO_EXECUTOR, ())


def test_windows_caps_and_the_authority() -> None:
    hook = (
        "{change_delay: 2h, enforce_calls: false, "
        "spending: [{token: usdc, limit: 50000, within: 1d}, {token: native, limit: 2.5, per: week, utc_offset: '-03:30'}, "
        f"{{token: '{checksum(b'7' * 20)}', decimals: 8, limit: 0.5, per: month}}], "
        "approvals: [{token: usdc, spender: perp.vault, cap: 10000.5}, {token: weth, spender: uniswap.router, unlimited: true}]}"
    )
    freeze = "  freeze: {guardians: [guardian], quorum: 1}\n"
    state = hook_state(
        policy_with("  - {target: usdc, functions: [approve], args: {spender: perp.vault}}", hook, freeze),
        BOOK,
        ACCOUNT,
    )
    assert state.windows == (
        (BOOK["usdc"], 1, 86_400, 0, 50_000 * 10**6),
        (bytes(20), 3, 0, -210, 25 * 10**17),
        (b"7" * 20, 4, 0, 0, 50_000_000),
    )
    assert state.caps == {
        (BOOK["usdc"], BOOK["perp.vault"]): 10_000_500_000,
        (BOOK["weth"], BOOK["uniswap.router"]): UNLIMITED,
    }
    assert state.rules == {}
    assert not state.enforces
    assert state.authority == BOOK["seawall.emergency_freeze"]
    assert state.encode()


def test_without_a_freeze_the_guards_get_rules_of_their_own() -> None:
    stop = (
        "  stop_loss:\n    - {id: 1, venue: perp, asset: ETH, price: 150, slippage: 1%, max_slippage: 5%, "
        "oracle: {feed: feed.eth, heartbeat: 1h}}\n"
    )
    calls = "  - {target: usdc, functions: [approve], args: {spender: perp.vault}}"
    state = hook_state(policy_with(calls, "{}", stop), BOOK, ACCOUNT)
    assert state.rules[BOOK["seawall.stop_loss"], b.GUARD_EXECUTE.selector] == (NO_EXECUTOR, (((SELF, 0, ()),),))
    frozen = policy_with(calls, "{}", stop + "  freeze: {guardians: [guardian], quorum: 1}\n")
    assert (BOOK["seawall.stop_loss"], b.GUARD_EXECUTE.selector) not in hook_state(frozen, BOOK, ACCOUNT).rules


@pytest.mark.parametrize(
    ("function", "argument", "expected"),
    [
        ("transfer(address,uint256)", "amount", (1, "uint256", False)),
        ("openPosition((address,bool,bool,uint256,uint256,uint256,uint160,bytes32))", "amount", (3, "uint256", False)),
        ("exactInput((bytes,address,uint256,uint256,uint256))", "recipient", (2, "address", True)),
        ("exactInput((bytes,address,uint256,uint256,uint256))", "path", None),
        ("installModule(uint256,address,bytes)", "module", (1, "address", False)),
        ("installModule(uint256,address,bytes)", "initData", None),
        ("setPrefundCaps(uint128[3])", "caps", None),
        ("transfer(address,uint256)", "nobody", None),
    ],
)
def test_where_an_argument_lies(function: str, argument: str, expected: tuple[int, str, bool] | None) -> None:
    known = functions.BY_SIGNATURE[function]
    assert word_of_argument(known, argument) == expected


def test_a_member_of_a_struct_with_a_tail_binds_the_offset_that_leads_to_it() -> None:
    calls = "  - {target: uniswap.router, functions: [exactInput], args: {recipient: account}}"
    state = hook_state(policy_with(calls), BOOK, ACCOUNT)
    (rule,) = state.rules.values()
    assert rule[1] == (((EQUAL, 0, (word(32),)), (SELF, 2, ())),)


@pytest.mark.parametrize(
    ("hook", "complaint"),
    [
        ("{spending: [{token: usdc, limit: 5}]}", "exactly one of within and per"),
        ("{spending: [{token: usdc, limit: 5, within: 1d, per: day}]}", "exactly one of within and per"),
        ("{spending: [{token: usdc, limit: 5, within: 0s}]}", "must be positive"),
        ("{spending: [{token: usdc, limit: 0, per: day}]}", "must be positive"),
        ("{spending: [{token: usdc, limit: 5, within: 1d, utc_offset: '+01:00'}]}", "beside per only"),
        ("{spending: [{token: usdc, limit: 0.0000001, per: day}]}", "more digits than its 6 decimals"),
        ("{spending: [{token: weth, limit: 1.23456789012, per: day}]}", "nine significant digits"),
        ("{spending: [{token: '0x1111111111111111111111111111111111111111', limit: 5, per: day}]}", "add decimals"),
        ("{spending: [{token: nothing, limit: 5, per: day, decimals: 6}]}", "unknown name 'nothing'"),
        ("{approvals: [{token: usdc, spender: perp.vault}]}", "needs cap, or unlimited"),
        ("{approvals: [{token: usdc, spender: perp.vault, cap: 5, unlimited: true}]}", "needs cap, or unlimited"),
        ("{approvals: [{token: native, spender: perp.vault, cap: 5}]}", "has no allowances"),
        ("{approvals: [{token: usdc, spender: a.b, cap: 5}]}", "unknown name 'a.b'"),
        (
            "{approvals: [{token: usdc, spender: perp.vault, cap: 5}, {token: usdc, spender: perp.vault, cap: 6}]}",
            "the same token and spender twice",
        ),
        ("{spending: [{token: usdc, limit: 5, per: year}]}", "must be day or week or month"),
        ("{spending: [{token: usdc, limit: 5, per: day, utc_offset: '+1'}]}", "an offset from UTC"),
    ],
)
def test_the_linter_says_what_is_wrong(hook: str, complaint: str) -> None:
    found = complaints("  - {target: usdc, functions: [approve], args: {spender: perp.vault}}", hook)
    assert len(found) == 1, found
    assert complaint in found[0]


def test_a_pin_that_the_hook_cannot_hold_is_reported_and_compiles_to_nothing() -> None:
    calls = "  - {target: account, functions: [installModule], args: {initData: '0x'}}"
    (found,) = complaints(calls, "{}")
    assert "installModule's initData has no word of its own" in found
    assert complaints(calls, "{enforce_calls: false}") == []
    policy = load(f'schema: 1\nname: x\nversion: "1"\ncalls:\n{calls}\nguards:\n  hook: {{enforce_calls: false}}\n')
    assert policy.hook is not None
    with pytest.raises(BadInput, match=r"the hook cannot hold account\.installModule to its argument initData"):
        hook_state(replace(policy, hook=replace(policy.hook, enforce_calls=True)), BOOK, ACCOUNT)


def test_a_file_that_extends_may_only_tighten_the_hook() -> None:
    calls = "calls:\n  - {target: usdc, functions: [approve], args: {spender: perp.vault}}\n"
    hook = "guards: {hook: {change_delay: 1h, spending: [{token: usdc, limit: 5, per: day}]}}\n"
    parents = {"parent.yaml": f'schema: 1\nname: p\nversion: "1"\n{calls}{hook}'}
    for own, complaint in (
        ("{change_delay: 2h}", ""),
        ("{change_delay: 30m}", "change_delay"),
        ("{enforce_calls: false}", "enforce_calls"),
        ("{spending: [{token: usdc, limit: 6, per: day}]}", "spending"),
    ):
        text = f'schema: 1\nextends: parent.yaml\nname: c\nversion: "1"\nguards: {{hook: {own}}}\n'
        if complaint:
            with pytest.raises(BadInput, match=complaint):
                load(text, parents)
            continue
        merged = load(text, parents)
        assert merged.hook is not None
        assert (merged.hook.change_delay_s, len(merged.hook.spending)) == (7200, 1)


@given(st.integers(0, 2**224))
def test_what_fits_a_window_is_kept_exactly_and_nothing_else(units: int) -> None:
    exponent, mantissa = 0, units
    while mantissa >= 2**32 and mantissa % 10 == 0:
        mantissa, exponent = mantissa // 10, exponent + 1
    assert fits_a_window(units) == (mantissa < 2**32)
    assert token_units(D(units).scaleb(-6), "usdc", None) == units if units < 10**27 else True


# -- the hook and the engine let the same calls pass ----------------------------------------------------------------------------------


def permits(state: HookState, account: Address, call: Call) -> bool:
    """PolicyHook's allowlist.   Source: HookAllowlist._objection."""
    target = bytes(20) if call.target == account else call.target
    rule = state.rules.get((target, call.data[:4] or bytes(4)))
    if rule is None or (call.value and not rule[0] & PAYABLE):
        return False
    return not rule[1] or any(all(_holds(one, account, call) for one in conditions) for conditions in rule[1])


def _holds(condition: Condition, account: Address, call: Call) -> bool:
    kind, index, values = condition
    at = 4 + 32 * index
    if index == VALUE_WORD:
        given = word(call.value)
    elif len(call.data) < at + 32:
        return False
    else:
        given = call.data[at : at + 32]
    if kind == SELF:
        return given == word(account)
    if kind in (EQUAL, IN_SET):
        return given in values
    low, high, middle = (int.from_bytes(v, signed=kind == SIGNED_RANGE) for v in (*values, given))
    return low <= middle <= high


PARTIES = [BOOK[name] for name in ("usdc", "treasury", "perp.vault", "keeper")] + [ACCOUNT]
LISTED = policy_with(
    """\
  - {target: usdc, functions: [transfer], args: {to: [treasury, account], amount: {max: 1000}}}
  - {target: usdc, functions: [transfer], args: {to: keeper, amount: {min: 5, max: 7}}}
  - {target: usdc, functions: [approve], args: {spender: perp.vault}}
  - {target: perp.vault, functions: [deposit], args: {token: usdc}}
  - {target: weth, functions: [deposit], max_value: 0.5}
  - {target: treasury, max_value: 0.25}
  - {target: perp.clearing_house, functions: [openPosition], args: {isBaseToQuote: true, baseToken: perp.eth, amount: {min: 10}}}
  - {target: uniswap.router, functions: [exactInput], args: {recipient: account}}
  - {target: account, functions: [setOwner]}"""
)


@st.composite
def made_calls(draw: st.DrawFn) -> Call:
    address, amount = st.sampled_from(PARTIES), st.sampled_from([0, 4, 5, 7, 8, 1000, 1001, 2**255])
    value = draw(st.sampled_from([0, 0, 1, 25 * 10**16, 5 * 10**17, 10**18]))
    open_position = Function.parse("openPosition((address,bool,bool,uint256,uint256,uint256,uint160,bytes32))")
    order = (
        draw(st.sampled_from([BOOK["perp.eth"], BOOK["usdc"]])),
        draw(st.booleans()),
        True,
        draw(amount),
        0,
        0,
        0,
        bytes(32),
    )
    exact_input = Function.parse("exactInput((bytes,address,uint256,uint256,uint256))")
    data = draw(
        st.sampled_from(
            [
                b"",
                b.TRANSFER.encode(draw(address), draw(amount)),
                b.APPROVE.encode(draw(address), draw(amount)),
                Function.parse("deposit(address,uint256)").encode(draw(address), draw(amount)),
                Function.parse("deposit()").encode(),
                open_position.encode(order),
                exact_input.encode((b"path", draw(address), 0, 1, 0)),
                Function.parse("setOwner(bytes)").encode(b"x"),
            ]
        )
    )
    targets = [*PARTIES, BOOK["weth"], BOOK["perp.clearing_house"], BOOK["uniswap.router"]]
    return Call(draw(st.sampled_from(targets)), data, value)


@settings(max_examples=600)
@given(made_calls())
def test_what_the_hook_lets_pass_is_what_the_engine_lets_pass(call: Call) -> None:
    facts = replace(facts_of(LISTED, [call]), account=ACCOUNT, book=BOOK)
    decoded = decode_calls(ACCOUNT, b.encode_execute([call]), BOOK)
    (row,) = [call_row(LISTED, facts, one) for one in decoded.calls]
    assert permits(hook_state(LISTED, BOOK, ACCOUNT), ACCOUNT, call) == bool(row.rule)


# -- the difference -------------------------------------------------------------------------------------------------------------------


class Hook:
    """PolicyHook as far as its settings go."""

    def __init__(self, state: HookState) -> None:
        self.rules, self.caps = dict(state.rules), dict(state.caps)
        self.windows, self.allowances = state.windows, set(state.allowances)
        self.settings = (state.authority, state.change_delay_s, state.enforces)

    def make(self, data: bytes) -> None:
        selector = data[:4]
        if selector == b.SET_HOOK_RULE.selector:
            (target, of, flags, any_of), enabled = b.SET_HOOK_RULE.decode_input(data)
            self.rules.pop((target, of), None)
            if enabled:
                self.rules[target, of] = flags, tuple(tuple((k, w, tuple(v)) for k, w, v in one) for one in any_of)
        elif selector == b.SET_HOOK_WINDOWS.selector:
            self.windows = tuple(tuple(one) for one in b.SET_HOOK_WINDOWS.decode_input(data)[0])
        elif selector == b.SET_HOOK_APPROVAL.selector:
            ((token, spender, cap),) = b.SET_HOOK_APPROVAL.decode_input(data)
            self.caps.pop((token, spender), None)
            if cap:
                self.caps[token, spender] = cap
        elif selector == b.SET_HOOK_ALLOWANCE.selector:
            ((id_, *rest),) = b.SET_HOOK_ALLOWANCE.decode_input(data)
            assert not any(rest)
            self.allowances.discard(id_)
        else:
            assert selector == b.SET_HOOK_SETTINGS.selector
            (self.settings,) = b.SET_HOOK_SETTINGS.decode_input(data)

    def state(self) -> HookState:
        authority, delay_s, enforces = self.settings
        return HookState(authority, delay_s, enforces, self.rules, self.windows, self.caps, frozenset(self.allowances))


@st.composite
def states(draw: st.DrawFn, delay_s: int) -> HookState:
    address = st.sampled_from([*PARTIES, bytes(20)])
    conditions: st.SearchStrategy[Condition] = st.sampled_from(
        [(EQUAL, 0, (word(5),)), (SELF, 1, ()), (RANGE, 2, (word(1), word(9)))]
    )
    any_of = st.lists(st.lists(conditions, max_size=2).map(tuple), max_size=2).map(tuple)
    return HookState(
        draw(st.sampled_from([bytes(20), BOOK["seawall.emergency_freeze"]])),
        delay_s,
        draw(st.booleans()),
        draw(
            st.dictionaries(
                st.tuples(address, st.sampled_from([TRANSFER, APPROVE])), st.tuples(st.just(8), any_of), max_size=3
            )
        ),
        tuple(draw(st.lists(st.tuples(address, st.just(2), st.just(0), st.just(0), st.just(1000)), max_size=2))),
        draw(st.dictionaries(st.tuples(address, address), st.just(7), max_size=2)),
        frozenset(draw(st.lists(st.sampled_from([keccak(b"a"), keccak(b"b")]), max_size=2))),
    )


def wish_for(policy_text: str, now: HookState) -> Wanted:
    modules = INSTALLED | {(MODULE_HOOK, BOOK["seawall.policy_hook"])}
    return Wanted(load(policy_text), BOOK, present(modules=modules, hook=now), {})


def hook_changes(wish: Wanted) -> list[Change]:
    return [change for change in differences(wish) if change.key.startswith("hook")]


HOOKED: Mapping[str, str] = {
    "more": "calls:\n  - {target: usdc, functions: [transfer], args: {to: treasury}}\n",
    "hook": "  hook: {change_delay: 0s, spending: [{token: usdc, limit: 9, per: day}], "
    "approvals: [{token: usdc, spender: perp.vault, cap: 3}]}\n",
}
TEXT = document(["p0"], 1, ["p0"], 1, HOOKED["more"]).replace("guards:\n", "guards:\n" + HOOKED["hook"])


@given(states(0))
def test_whatever_the_hook_holds_the_calls_leave_it_as_the_file_says(now: HookState) -> None:
    wish = wish_for(TEXT, now)
    hook = Hook(now)
    for change in hook_changes(wish):
        assert not change.announced
        assert change.alone == (change.key == "hook spending")
        for call in change.calls:
            assert call.target == BOOK["seawall.policy_hook"]
            hook.make(call.data)
    assert hook_changes(wish_for(TEXT, hook.state())) == []
    assert hook.state() == hook_state(wish.policy, BOOK, ACCOUNT)


@given(states(7_200))
def test_with_a_delay_every_change_is_announced_at_the_hook(now: HookState) -> None:
    hook = Hook(now)
    for change in hook_changes(wish_for(TEXT, now)):
        assert change.calls == ()
        assert change.announced_at == BOOK["seawall.policy_hook"]
        hook.make(change.announced)
    assert hook_changes(wish_for(TEXT, hook.state())) == []


def test_a_hook_that_the_file_wants_is_installed_whole_and_one_that_it_does_not_is_removed() -> None:
    bare = Wanted(load(TEXT), BOOK, present(), {})
    (change,) = [change for change in differences(bare) if "policy_hook" in change.key]
    kind, module, data = b.INSTALL_MODULE.decode_input(change.calls[0].data)
    assert (kind, module) == (MODULE_HOOK, BOOK["seawall.policy_hook"])
    assert data == hook_state(bare.policy, BOOK, ACCOUNT).encode()
    without = wish_for(document(["p0"], 1, ["p0"], 1), hook_state(bare.policy, BOOK, ACCOUNT))
    (gone,) = [change for change in differences(without) if "hook" in change.key]
    assert b.UNINSTALL_MODULE.decode_input(gone.announced) == (MODULE_HOOK, BOOK["seawall.policy_hook"], b"")
