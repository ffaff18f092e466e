"""The difference between a policy and an account's configuration: applied to a model of the modules it always ends in what was wanted."""

from __future__ import annotations

from dataclasses import replace
from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from contracts import bindings as b
from contracts.bindings import MODULE_EXECUTOR, MODULE_VALIDATOR, Call, RiskState, SignerQuorum
from contracts.errors import BadInput
from contracts.types import Address, checksum, keccak
from policies import load
from policies.attestation import on_chain_id
from policies.configuration import Held, Present, Wanted, differences
from policies.guards import keeper_sessions
from policies.names import CONTRACTS, ROLES
from policies.stops import stop_config

PEOPLE = [keccak(f"person {i}".encode())[:20] for i in range(6)]
BOOK: dict[str, Address] = {name: keccak(name.encode())[:20] for name in (*CONTRACTS, *ROLES)}
NAMES = {f"p{i}": person for i, person in enumerate(PEOPLE)}
ACCOUNT, NOW_S = b"\xac" * 20, 1_700_000_000
INSTALLED = frozenset(
    {
        (MODULE_VALIDATOR, BOOK["seawall.risk_validator"]),
        (MODULE_VALIDATOR, BOOK["seawall.session_validator"]),
        (MODULE_EXECUTOR, BOOK["seawall.emergency_freeze"]),
        (MODULE_EXECUTOR, BOOK["seawall.stop_loss"]),
    }
)


def document(engines: list[str], threshold: int, guardians: list[str], quorum: int, more: str = "") -> str:
    names = ", ".join(f'{name}: "{checksum(address)}"' for name, address in NAMES.items())
    return f"""\
schema: 1
name: model
version: "1"
addresses: {{{names}}}
limits:
  - {{id: leverage, metric: leverage, max: 3}}
attestation: {{engines: [{", ".join(engines)}], threshold: {threshold}}}
guards:
  stop_loss:
    - {{id: 1, venue: perp, asset: ETH, drop: 12%, slippage: 1%, max_slippage: 5%, oracle: {{feed: feed.eth, heartbeat: 1h}}}}
  freeze: {{guardians: [{", ".join(guardians)}], quorum: {quorum}}}
  session: {{key: keeper, prefund_budget: 0.5}}
{more}"""


def present(**changes: object) -> Present:
    base = Present(
        account=ACCOUNT,
        block_number=1,
        time_s=NOW_S,
        state=RiskState.ACTIVE,
        state_epoch=0,
        modules=INSTALLED,
        authority=BOOK["seawall.emergency_freeze"],
        native_owner_path=False,
        admin_delay_s=3600,
        engines=frozenset(PEOPLE[:1]),
        threshold=1,
        guardians=frozenset(PEOPLE[:1]),
        guardians_quorum=1,
    )
    return replace(base, **changes)  # type: ignore[arg-type]


class Modules:
    """RiskValidator and EmergencyFreeze as far as their settings go, with the checks that make a wrong order revert."""

    def __init__(self, now: Present) -> None:
        self.engines, self.threshold = set(now.engines), now.threshold
        self.guardians, self.quorum = set(now.guardians), now.guardians_quorum
        self.exits, self.guards = set(now.exits), set(now.guards)
        self.quorums, self.policy_id = dict(now.quorums), now.policy_id
        self.sessions = {session.session_id: session for session in now.sessions}
        self.stops = dict(now.stops)
        self.delays, self.escape_delay_s = now.delays_s, now.escape_delay_s

    def make(self, call: Call) -> None:
        assert self.policy_id is not None
        selector, data = call.data[:4], call.data
        if selector == b.SET_ENGINE.selector:
            engine, enabled = b.SET_ENGINE.decode_input(data)
            assert (engine in self.engines) != enabled
            (self.engines.add if enabled else self.engines.discard)(engine)
            assert self.threshold <= len(self.engines)
        elif selector == b.SET_THRESHOLD.selector:
            (self.threshold,) = b.SET_THRESHOLD.decode_input(data)
            assert 1 <= self.threshold <= len(self.engines)
        elif selector == b.SET_GUARDIAN.selector:
            guardian, enabled = b.SET_GUARDIAN.decode_input(data)
            assert (guardian in self.guardians) != enabled
            (self.guardians.add if enabled else self.guardians.discard)(guardian)
            assert self.quorum <= len(self.guardians)
        elif selector == b.SET_GUARDIANS_QUORUM.selector:
            (self.quorum,) = b.SET_GUARDIANS_QUORUM.decode_input(data)
            assert 1 <= self.quorum <= len(self.guardians)
        elif selector == b.SET_GUARD.selector:
            guard, enabled = b.SET_GUARD.decode_input(data)
            (self.guards.add if enabled else self.guards.discard)(guard)
        elif selector == b.SET_EXIT.selector:
            fields, enabled = b.SET_EXIT.decode_input(data)
            exit_ = b.Exit(*fields[:5], args=tuple(fields[5]))
            self.exits = {one for one in self.exits if replace(one, in_frozen=exit_.in_frozen) != exit_}
            if enabled:
                self.exits.add(exit_)
        elif selector == b.SET_SIGNER_QUORUM.selector:
            ((quorum_id, threshold, signers),) = b.SET_SIGNER_QUORUM.decode_input(data)
            self.quorums.pop(quorum_id, None)
            if threshold:
                assert list(signers) == sorted(set(signers))
                self.quorums[quorum_id] = (threshold, frozenset(signers))
        elif selector == b.SET_DELAYS.selector:
            (self.delays,) = b.SET_DELAYS.decode_input(data)
        elif selector == b.SET_ESCAPE_DELAY.selector:
            (self.escape_delay_s,) = b.SET_ESCAPE_DELAY.decode_input(data)
        elif selector == b.ENABLE_SESSION.selector:
            fields, bounds = b.ENABLE_SESSION.decode_input(data)
            session = b.Session(*fields)
            assert session.bounds == (keccak(bounds) if bounds else bytes(32))
            assert session.session_id not in self.sessions
            self.sessions[session.session_id] = session
        elif selector == b.REVOKE_SESSION.selector:
            del self.sessions[b.REVOKE_SESSION.decode_input(data)[0]]
        elif selector == b.ARM_STOP.selector:
            stop_id, stop = b.ARM_STOP.decode_input(data)
            self.stops[stop_id] = stop
        elif selector == b.CANCEL_STOP.selector:
            del self.stops[b.CANCEL_STOP.decode_input(data)[0]]
        elif selector == b.SET_POLICY.selector:
            (self.policy_id,) = b.SET_POLICY.decode_input(data)
        else:
            raise AssertionError(f"no model of {selector.hex()}")

    def after(self, now: Present) -> Present:
        return replace(
            now,
            engines=frozenset(self.engines),
            threshold=self.threshold,
            guardians=frozenset(self.guardians),
            guardians_quorum=self.quorum,
            guards=frozenset(self.guards),
            exits=tuple(self.exits),
            quorums=self.quorums,
            delays_s=tuple(self.delays),
            escape_delay_s=self.escape_delay_s,
            sessions=tuple(self.sessions.values()),
            stops=self.stops,
            policy_id=self.policy_id,
        )


people = st.lists(st.sampled_from(sorted(NAMES)), min_size=1, max_size=6, unique=True)


@st.composite
def presents(draw: st.DrawFn) -> Present:
    engines, guardians = (frozenset(NAMES[one] for one in draw(people)) for _ in range(2))
    exits = draw(
        st.lists(
            st.builds(
                b.Exit,
                st.sampled_from([BOOK["usdc"], BOOK["perp.vault"]]),
                st.sampled_from([b.TRANSFER.selector, b.APPROVE.selector]),
                st.booleans(),
            ),
            max_size=3,
            unique_by=lambda one: (one.target, one.selector),
        )
    )
    sessions = draw(
        st.lists(
            st.builds(
                b.Session,
                st.sampled_from(PEOPLE),
                st.just(0),
                st.integers(NOW_S - 5, NOW_S + 10**7),
                st.sampled_from([BOOK["seawall.stop_loss"], BOOK["usdc"]]),
                st.sampled_from([b.GUARD_EXECUTE.selector, b.GUARD_TOUCH.selector]),
                st.integers(1, 10**18),
                st.integers(0, 2),
                st.sampled_from([bytes(32), keccak(b"bounds")]),
            ),
            max_size=3,
            unique_by=lambda one: one.session_id,
        )
    )
    quorum_ids = draw(st.lists(st.sampled_from(["desk", "board", "other"]), max_size=3, unique=True))
    return present(
        engines=engines,
        threshold=draw(st.integers(1, len(engines))),
        guardians=guardians,
        guardians_quorum=draw(st.integers(1, len(guardians))),
        guards=frozenset(draw(st.lists(st.sampled_from([*PEOPLE, BOOK["seawall.stop_loss"]]), max_size=2))),
        exits=tuple(exits),
        sessions=tuple(sessions),
        quorums={on_chain_id(one): (1, frozenset(NAMES[name] for name in draw(people))) for one in quorum_ids},
        delays_s=draw(st.tuples(*[st.integers(1, 10**6)] * 4)),
        escape_delay_s=draw(st.integers(1, 10**6)),
        policy_id=keccak(b"old"),
        stops={7: _stop()} if draw(st.booleans()) else {},
    )


def _stop() -> tuple[object, ...]:
    policy = load(document(["p0"], 1, ["p0"], 1))
    return stop_config(policy.stops[0], policy, BOOK, entry_price=Decimal(2000), is_long=True, now_s=NOW_S).stop


@given(presents(), people, people, st.data())
def test_whatever_was_there_the_calls_are_possible_in_their_order_and_leave_nothing_to_do(
    now: Present, engines: list[str], guardians: list[str], data: st.DataObject
) -> None:
    threshold = data.draw(st.integers(1, len(engines)))
    quorum = data.draw(st.integers(1, len(guardians)))
    signers = data.draw(people)
    more = (
        f"approvals:\n  - {{id: desk, signers: [{', '.join(signers)}], quorum: 1}}\n"
        "exits:\n  - {target: usdc, function: transfer, args: {to: treasury}, in_frozen: true}\n"
    )
    policy = load(document(engines, threshold, guardians, quorum, more))
    held = {("perp", "ETH"): Held(Decimal(2000), is_long=True)} if data.draw(st.booleans()) else {}
    wish = Wanted(policy, BOOK, now, held)
    modules = Modules(now)
    found = differences(wish)
    for change in found:
        assert not change.announced
        for call in change.calls:
            modules.make(call)
    assert found[-1].key == "policy"
    after = modules.after(now)
    assert differences(replace(wish, present=after)) == ()
    assert after.engines == frozenset(NAMES[one] for one in engines)
    assert after.guardians == frozenset(NAMES[one] for one in guardians)
    assert (after.threshold, after.guardians_quorum) == (threshold, quorum)
    assert after.policy_id == policy.policy_id
    assert set(after.stops) == ({1} if held else set())


def settled() -> tuple[Wanted, Present]:
    """A wish, and the configuration in which nothing is left to do."""
    wish = Wanted(load(document(["p0"], 1, ["p0"], 1)), BOOK, present(policy_id=keccak(b"old")), {})
    modules = Modules(wish.present)
    for change in differences(wish):
        for call in change.calls:
            modules.make(call)
    after = modules.after(wish.present)
    return replace(wish, present=after), after


def test_a_stop_near_its_drop_from_the_entry_is_left_alone_and_one_further_off_is_armed_anew() -> None:
    wish, now = settled()
    rule = wish.policy.stops[0]
    armed = stop_config(rule, wish.policy, BOOK, entry_price=Decimal(2000), is_long=True, now_s=NOW_S).stop
    for entry, expected in ((2000, []), (2015, []), (1985, []), (2050, ["stop 1"]), (1900, ["stop 1"])):
        held = {("perp", "ETH"): Held(Decimal(entry), is_long=True)}
        found = differences(replace(wish, present=replace(now, stops={1: armed}), held=held))
        assert [change.key for change in found] == expected
    short = {("perp", "ETH"): Held(Decimal(2000), is_long=False)}
    (change,) = differences(replace(wish, present=replace(now, stops={1: armed}), held=short))
    assert ("below", "True", "False") in change.fields


def test_without_a_position_an_armed_stop_rests_and_a_foreign_one_is_cancelled() -> None:
    wish, now = settled()
    found = differences(replace(wish, present=replace(now, stops={1: _stop(), 9: _stop()})))
    assert [(change.kind, change.key) for change in found] == [("remove", "stop 9")]


def test_of_three_sessions_of_one_key_the_newest_stays() -> None:
    wish, now = settled()
    (session,) = now.sessions
    older = [
        replace(session, valid_after_s=session.valid_after_s + i, valid_until_s=session.valid_until_s - i)
        for i in (1, 2)
    ]
    found = differences(replace(wish, present=replace(now, sessions=(*older, session))))
    assert [(change.kind, change.key.rpartition(", ")[2]) for change in found] == [
        ("remove", "older (1)"),
        ("remove", "older (2)"),
    ]
    assert {change.calls[0].data[4:] for change in found} == {one.session_id for one in older}


def test_a_stop_without_an_entry_price_is_armed_while_its_venue_says_that_the_position_is_held() -> None:
    wish, _ = settled()
    one = "{id: 4, venue: lyra, position: 9, price: 90, slippage: 1%, max_slippage: 2%, oracle: {feed: feed.eth, heartbeat: 1h}}"
    policy = load(document(["p0"], 1, ["p0"], 1).replace("  stop_loss:\n", f"  stop_loss:\n    - {one}\n"))
    book = BOOK | {"seawall.lyra_adapter": b"L" * 20}
    for size_wad, is_below in ((3, "True"), (-3, "False")):
        found = differences(replace(wish, policy=policy, book=book, sizes={4: size_wad}))
        (stop,) = [change for change in found if change.key.startswith("stop")]
        assert (stop.kind, stop.key) == ("add", "stop 4")
        assert ("below", None, is_below) in stop.fields
    for sizes in ({}, {4: 0}, {1: 5}):
        found = differences(replace(wish, policy=policy, book=book, sizes=sizes))
        assert [change.key for change in found if change.key.startswith("stop")] == []


def test_a_session_is_renewed_before_it_ends_and_a_second_one_is_taken_away() -> None:
    wish, now = settled()
    (session,) = keeper_sessions(wish.policy, BOOK, NOW_S)
    rule = wish.policy.session
    assert rule is not None
    ending = replace(session, valid_until_s=NOW_S + rule.valid_for_s // 20)
    (change,) = differences(replace(wish, present=replace(now, sessions=(ending,))))
    assert change.kind == "change"
    assert change.fields[0][0] == "time"
    assert [call.data[:4] for call in change.calls] == [b.REVOKE_SESSION.selector, b.ENABLE_SESSION.selector]
    (change,) = differences(replace(wish, present=replace(now, sessions=(ending, session))))
    assert (change.kind, change.key.endswith("older (1)")) == ("remove", True)
    assert b.REVOKE_SESSION.decode_input(change.calls[0].data) == (ending.session_id,)


def test_what_is_missing_is_installed_with_its_settings_and_what_is_foreign_must_be_announced() -> None:
    wish, now = settled()
    bare = replace(now, modules=frozenset({(4, PEOPLE[5])}), authority=bytes(20), engines=frozenset(), sessions=())
    found = differences(replace(wish, present=bare))
    assert [change.kind for change in found] == ["add"] * 4 + ["remove", "change"] or {c.kind for c in found} == {
        "add", "remove", "change",
    }  # fmt: skip
    installs = [change for change in found if change.kind == "add"]
    assert {b.INSTALL_MODULE.decode_input(c.calls[0].data)[:2] for c in installs} == set(INSTALLED)
    (foreign,) = (change for change in found if change.kind == "remove")
    assert b.UNINSTALL_MODULE.decode_input(foreign.announced) == (4, PEOPLE[5], b"")
    (authority,) = (change for change in found if change.kind == "change")
    assert b.SET_RISK_AUTHORITY.decode_input(authority.announced) == (BOOK["seawall.emergency_freeze"],)


def test_a_quorum_that_the_file_does_not_know_is_shown_by_its_id_and_removed() -> None:
    wish, now = settled()
    stray = keccak(b"stray")
    (change,) = differences(replace(wish, present=replace(now, quorums={stray: (1, frozenset(PEOPLE[:1]))})))
    assert change.key == f"quorum 0x{stray.hex()}"
    assert b.SET_SIGNER_QUORUM.decode_input(change.calls[0].data) == (SignerQuorum(stray, 0, ()).to_abi(),)


def test_a_name_without_address_is_an_error() -> None:
    wish, _ = settled()
    with pytest.raises(BadInput, match="keeper"):
        differences(replace(wish, book={name: one for name, one in BOOK.items() if name != "keeper"}))


@pytest.mark.parametrize(
    ("engines", "threshold", "complaint"),
    [("p0, p0", 1, "the same one twice"), ("p0", 2, "2 of 1 engines"), ("p0", 0, "0 of 1"), ("nobody", 1, "nobody")],
)
def test_the_linter_minds_the_engines(engines: str, threshold: int, complaint: str) -> None:
    with pytest.raises(BadInput, match=complaint):
        load(document(engines.split(", "), threshold, ["p0"], 1))
