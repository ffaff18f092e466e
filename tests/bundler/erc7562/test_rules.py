"""The rules on traces written by hand: each rule id, by whom it is broken, and its exceptions."""

from __future__ import annotations

from typing import Any

import pytest

from bundler.erc7562 import opcodes
from bundler.erc7562.entities import VALIDATE_PAYMASTER_USER_OP, Entities, Phase, Role
from bundler.erc7562.rules import Context, Edition, is_associated, storage_contracts, violations
from bundler.erc7562.trace import Frame, Use
from contracts.entrypoint import V08
from contracts.entrypoint.base import DEPOSIT_TO
from contracts.types import Address, keccak

SENDER, FACTORY, PAYMASTER, TOKEN, LIBRARY = (bytes([n]) * 20 for n in (1, 2, 3, 4, 5))
EP = V08.address
NOBODY = b"\x09" * 20
BALANCES = bytes(31) + b"\x07"


def slot_of(owner: Address, offset: int = 0) -> int:
    """balances[owner] of a mapping in slot 7."""
    return int.from_bytes(keccak(owner.rjust(32, b"\0") + BALANCES)) + offset


PREIMAGES = tuple((owner, slot_of(owner)) for owner in (SENDER, FACTORY, PAYMASTER))


def frame(code: Address = SENDER, *calls: Frame, kind: str = "CALL", **changes: Any) -> Frame:
    values: dict[str, Any] = {
        "kind": kind,
        "caller": EP,
        "code": code,
        "context": code,
        "data": b"",
        "error": "",
        "output": b"",
        "gas_used": 0,
        "used_opcodes": frozenset(),
        "slots": {},
        "uses": (),
        "last_opcode": 0,
        "last_pc": 0,
        "delegated": False,
        "calls": list(calls),
    }
    return Frame(**(values | changes))


def rules_of(
    root: Frame,
    role: Role = "account",
    *,
    factory: bool = False,
    staked: tuple[Address, ...] = (),
    codes: dict[Address, bytes] | None = None,
    edition: Edition = "current",
) -> list[str | None]:
    entities = Entities(SENDER, FACTORY if factory else None, PAYMASTER, frozenset(staked))
    context = Context(EP, entities, PREIMAGES, codes or {}, edition)
    return [broken.rule for broken in violations(Phase(role, root), context)]


@pytest.mark.parametrize("op", sorted(opcodes.BLOCKED), ids=lambda op: opcodes.name(op))
@pytest.mark.parametrize("staked", [(), (SENDER,)], ids=["unstaked", "staked"])
def test_op_011_opcode_of_the_environment_is_blocked_at_any_depth(op: int, staked: tuple[Address, ...]) -> None:
    deep = frame(SENDER, frame(LIBRARY, frame(LIBRARY, used_opcodes=frozenset({op}))))
    assert rules_of(deep, staked=staked) == ["OP-011"]


def test_op_012_gas_without_a_call_is_blocked() -> None:
    assert rules_of(frame(used_opcodes=frozenset({opcodes.GAS}))) == ["OP-012"]


def test_op_013_unassigned_opcode_is_blocked_whether_the_node_reports_its_step_or_not() -> None:
    assert rules_of(frame(used_opcodes=frozenset({0x0C}))) == ["OP-013"]
    halted = frame(error="execution reverted", last_opcode=0x60, last_pc=0)
    assert rules_of(halted, codes={SENDER: b"\x60\x01\x0c"}) == ["OP-013"]
    assert rules_of(halted, codes={SENDER: b"\x60\x01\x56"}) == []  # a bad jump is no opcode rule
    first = frame(error="execution reverted", last_opcode=-1, last_pc=-1)
    assert rules_of(first, codes={SENDER: b"\xef"}) == ["OP-013"]


def test_op_020_running_out_of_gas_is_blocked_in_every_wording_of_nodes() -> None:
    for error in ("out of gas", "out of gas: not enough gas for reentrancy sentry", "OutOfGas"):
        assert rules_of(frame(SENDER, frame(LIBRARY, error=error))) == ["OP-020"]
    assert rules_of(frame(SENDER, frame(LIBRARY, error="execution reverted", last_opcode=opcodes.REVERT))) == []


def deploys(kind: str, address: Address, by: Address = FACTORY) -> Frame:
    op = opcodes.CREATE2 if kind == "CREATE2" else opcodes.CREATE
    return frame(by, frame(address, kind=kind), used_opcodes=frozenset({op}))


CREATIONS = [
    ("OP-031 the sender, once", "factory", deploys("CREATE2", SENDER), (), []),
    ("OP-031 the sender by a utility", "factory", frame(FACTORY, deploys("CREATE2", SENDER, LIBRARY)), (), []),
    ("OP-031 something else", "factory", deploys("CREATE2", TOKEN), (), ["OP-031"]),
    (
        "OP-031 the sender twice",
        "factory",
        frame(FACTORY, frame(SENDER, kind="CREATE2"), frame(SENDER, kind="CREATE2")),
        (),
        ["OP-031"],
    ),
    ("OP-031 tried in vain", "factory", frame(FACTORY, used_opcodes=frozenset({opcodes.CREATE2})), (), ["OP-031"]),
    ("OP-032 CREATE by the sender", "account", deploys("CREATE", TOKEN, SENDER), (), []),
    ("OP-032 CREATE by its utility", "account", frame(SENDER, deploys("CREATE", TOKEN, LIBRARY)), (), ["OP-011"]),
    ("OP-032 CREATE2 by the sender", "account", deploys("CREATE2", TOKEN, SENDER), (), ["OP-031"]),
    ("EREP-060 CREATE2 by the sender", "account", deploys("CREATE2", TOKEN, SENDER), (FACTORY,), []),
    ("EREP-060 CREATE by a staked factory", "factory", deploys("CREATE", TOKEN), (FACTORY,), []),
    ("EREP-060 CREATE2 by a staked factory", "factory", deploys("CREATE2", TOKEN), (FACTORY,), []),
    ("EREP-060 CREATE by an unstaked factory", "factory", deploys("CREATE", TOKEN), (), ["OP-011"]),
    ("EREP-061 CREATE by its utility", "factory", frame(FACTORY, deploys("CREATE", TOKEN, LIBRARY)), (FACTORY,), []),
    (
        "EREP-061 CREATE2 by its utility",
        "factory",
        frame(FACTORY, deploys("CREATE2", TOKEN, LIBRARY)),
        (FACTORY,),
        ["OP-031"],
    ),
    (
        "EREP-061 CREATE by the account's utility",
        "account",
        frame(SENDER, deploys("CREATE", TOKEN, LIBRARY)),
        (FACTORY,),
        ["OP-011"],
    ),
    ("a paymaster creates nothing", "paymaster", deploys("CREATE", TOKEN, PAYMASTER), (FACTORY, PAYMASTER), ["OP-011"]),
]


@pytest.mark.parametrize(("role", "root", "staked", "rules"), [c[1:] for c in CREATIONS], ids=[c[0] for c in CREATIONS])
def test_creation_rules(role: Role, root: Frame, staked: tuple[Address, ...], rules: list[str]) -> None:
    assert rules_of(root, role, factory=True, staked=staked) == rules


def test_without_a_factory_even_a_staked_account_creates_nothing() -> None:
    assert rules_of(deploys("CREATE", TOKEN, SENDER), staked=(SENDER,)) == ["OP-011"]


def use(address: Address, op: int = opcodes.CALL, code: Address = SENDER, **changes: Any) -> Frame:
    values = {"op": op, "address": address, "code_size": 10, "delegated": False} | changes
    return frame(code, uses=(Use(**values),))


@pytest.mark.parametrize(
    "op",
    [
        opcodes.CALL,
        opcodes.CALLCODE,
        opcodes.DELEGATECALL,
        opcodes.STATICCALL,
        opcodes.EXTCODESIZE,
        opcodes.EXTCODEHASH,
    ],
)
def test_op_041_address_without_code_is_not_used_but_op_042_the_sender_is(op: int) -> None:
    assert rules_of(use(NOBODY, op, code_size=0)) == ["OP-041"]
    assert rules_of(use(NOBODY, op)) == []
    assert rules_of(use(SENDER, op, code_size=0), "factory", factory=True) == []


@pytest.mark.parametrize(
    ("changes", "role", "allowed"),
    [
        ({"op": opcodes.EXTCODESIZE, "is_zero": True}, "account", True),
        ({"op": opcodes.EXTCODESIZE}, "account", False),
        ({"op": opcodes.EXTCODEHASH}, "account", False),
        ({"value_wei": 5}, "account", True),
        ({"value_wei": 5, "code": PAYMASTER}, "paymaster", False),
        ({"value_wei": 5}, "factory", True),
        ({"value_wei": 5, "code": FACTORY}, "factory", False),
        ({"data": DEPOSIT_TO.encode(SENDER), "data_size": 36, "value_wei": 5}, "account", True),
        ({"data": DEPOSIT_TO.encode(SENDER), "data_size": 36, "value_wei": 5}, "factory", True),
        ({"data": DEPOSIT_TO.encode(NOBODY), "data_size": 36, "value_wei": 5}, "account", False),
        ({"data": DEPOSIT_TO.encode(SENDER), "data_size": 36, "value_wei": 5}, "paymaster", False),
        ({"data": keccak(b"incrementNonce(uint192)")[:4] + bytes(32), "data_size": 36}, "account", True),
        ({"data": keccak(b"balanceOf(address)")[:4] + bytes(32), "data_size": 36}, "account", False),
        ({"op": opcodes.STATICCALL}, "account", False),
        ({"op": opcodes.DELEGATECALL}, "account", False),
    ],
    ids=[
        "OP-051", "OP-054-size", "OP-054-hash", "OP-053", "OP-053-paymaster", "OP-053-constructor", "OP-053-factory",
        "OP-052", "OP-052-factory", "OP-052-other",
        "OP-052-paymaster", "OP-055", "OP-054-balance", "OP-054-static", "OP-054-delegate",
    ],
)  # fmt: skip
def test_use_of_the_entry_point(changes: dict[str, Any], role: Role, allowed: bool) -> None:
    assert rules_of(use(EP, **changes), role, factory=True) == ([] if allowed else ["OP-054"])


def test_op_055_a_helper_may_not_increment_a_nonce() -> None:
    increment = keccak(b"incrementNonce(uint192)")[:4] + bytes(32)
    helper = frame(LIBRARY, uses=(Use(opcodes.CALL, EP, 10, False, 0, increment, 36),))
    assert rules_of(frame(SENDER, helper)) == ["OP-054"]


def test_op_061_value_goes_to_nobody_but_the_entry_point() -> None:
    assert rules_of(use(TOKEN, value_wei=1)) == ["OP-061"]
    assert rules_of(use(SENDER, value_wei=1)) == ["OP-061"]
    assert rules_of(use(TOKEN)) == []


def test_op_062_known_precompiles_are_used_freely_and_others_are_not() -> None:
    for number in (*range(1, 0x12), 0x100):
        assert rules_of(use(number.to_bytes(20), code_size=0)) == []
    for number in (0x12, 0xFF, 0x101):
        assert rules_of(use(number.to_bytes(20), code_size=0)) == ["OP-041"]


@pytest.mark.parametrize("op", [opcodes.BALANCE, opcodes.SELFBALANCE])
def test_op_080_balances_are_for_staked_entities(op: int) -> None:
    assert rules_of(frame(used_opcodes=frozenset({op}))) == ["OP-080"]
    assert rules_of(frame(used_opcodes=frozenset({op})), staked=(SENDER,)) == []
    assert rules_of(frame(used_opcodes=frozenset({op})), staked=(PAYMASTER,)) == ["OP-080"]


READS, WRITES, LOADS, STORES = 1, 2, 4, 8
STORAGE = [
    ("STO-010 the account's own", "account", SENDER, 5, WRITES, {}, []),
    ("STO-010 by a paymaster", "paymaster", SENDER, 5, WRITES, {}, []),
    ("STO-010 transient", "account", SENDER, 5, STORES, {}, []),
    ("STO-021 associated", "account", TOKEN, slot_of(SENDER), WRITES, {}, []),
    ("STO-021 a struct's last field", "account", TOKEN, slot_of(SENDER, 128), WRITES, {}, []),
    ("STO-021 beyond a struct", "account", TOKEN, slot_of(SENDER, 129), READS, {}, ["STO-021"]),
    ("STO-021 before it", "account", TOKEN, slot_of(SENDER, -1), READS, {}, ["STO-021"]),
    ("STO-021 the slot is the address", "account", TOKEN, int.from_bytes(SENDER), READS, {}, []),
    ("STO-021 somebody else's", "account", TOKEN, 5, READS, {}, ["STO-021"]),
    ("OP-070 transient", "account", TOKEN, 5, LOADS, {}, ["STO-021"]),
    ("STO-022 unstaked factory", "account", TOKEN, slot_of(SENDER), READS, {"factory": True}, ["STO-022"]),
    ("STO-022 staked factory", "account", TOKEN, slot_of(SENDER), WRITES, {"factory": True, "staked": (FACTORY,)}, []),
    ("STO-031 unstaked", "paymaster", PAYMASTER, 5, READS, {}, ["STO-031"]),
    ("STO-031 staked", "paymaster", PAYMASTER, 5, WRITES, {"staked": (PAYMASTER,)}, []),
    ("OP-070 unstaked paymaster", "paymaster", PAYMASTER, 0, STORES, {}, ["STO-031"]),
    ("STO-032 unstaked", "paymaster", TOKEN, slot_of(PAYMASTER), READS, {}, ["STO-032"]),
    ("STO-032 staked", "paymaster", TOKEN, slot_of(PAYMASTER), WRITES, {"staked": (PAYMASTER,)}, []),
    ("STO-033 reads", "paymaster", TOKEN, 5, READS, {"staked": (PAYMASTER,)}, []),
    ("STO-033 writes", "paymaster", TOKEN, 5, WRITES, {"staked": (PAYMASTER,)}, ["STO-033"]),
    ("STO-033 reads, then writes", "paymaster", TOKEN, 5, READS | WRITES, {"staked": (PAYMASTER,)}, ["STO-033"]),
    ("STO-033 another entity's", "account", PAYMASTER, 5, READS, {"staked": (SENDER,)}, ["STO-033"]),
    ("STO-021 associated, at another entity", "account", PAYMASTER, slot_of(SENDER), READS, {}, ["STO-033"]),
]


@pytest.mark.parametrize(
    ("role", "where", "slot", "bits", "who", "rules"), [c[1:] for c in STORAGE], ids=[c[0] for c in STORAGE]
)
def test_storage_rules(role: Role, where: Address, slot: int, bits: int, who: dict[str, Any], rules: list[str]) -> None:
    root = {"account": SENDER, "paymaster": PAYMASTER, "factory": FACTORY}[role]
    assert rules_of(frame(root, frame(where, slots={slot: bits})), role, **who) == rules


def test_slots_of_a_library_count_for_the_proxy_that_runs_it() -> None:
    run_by_the_sender = frame(SENDER, frame(LIBRARY, kind="DELEGATECALL", context=SENDER, slots={5: WRITES}))
    assert rules_of(run_by_the_sender) == []
    run_by_a_token = frame(SENDER, frame(LIBRARY, kind="DELEGATECALL", context=TOKEN, slots={5: WRITES}))
    assert rules_of(run_by_a_token) == ["STO-021"]


def test_the_entry_points_own_storage_is_not_the_entitys() -> None:
    assert rules_of(frame(SENDER, frame(EP, slots={5: WRITES}, used_opcodes=frozenset({0x42})))) == []


def context_answer(size: int) -> dict[str, Any]:
    words = (size + 31) // 32 * 32
    output = (64).to_bytes(32) + bytes(32) + size.to_bytes(32) + b"\1" * size + bytes(words - size)
    return {"data": VALIDATE_PAYMASTER_USER_OP.selector, "output": output}


def test_erep_050_and_lim_020_only_staked_paymasters_return_a_context_and_a_small_one() -> None:
    assert rules_of(frame(PAYMASTER, **context_answer(0)), "paymaster") == []
    assert rules_of(frame(PAYMASTER, **context_answer(1)), "paymaster") == ["EREP-050"]
    assert rules_of(frame(PAYMASTER, **context_answer(2048)), "paymaster", staked=(PAYMASTER,)) == []
    assert rules_of(frame(PAYMASTER, **context_answer(2049)), "paymaster", staked=(PAYMASTER,)) == ["LIM-020"]


def test_auth_020_and_auth_030_delegated_accounts_are_senders_only() -> None:
    assert rules_of(frame(SENDER, delegated=True)) == []
    assert rules_of(frame(PAYMASTER, delegated=True), "paymaster") == ["AUTH-020"]
    assert rules_of(use(TOKEN, delegated=True)) == ["AUTH-030"]
    assert rules_of(use(SENDER, delegated=True)) == []


def test_sto_041_names_the_contracts_whose_storage_is_touched() -> None:
    phase = Phase("account", frame(SENDER, frame(TOKEN, slots={1: READS}), frame(LIBRARY), slots={2: WRITES}))
    assert storage_contracts([phase], SENDER) == {TOKEN}


def test_association_needs_the_hash_of_that_very_owner() -> None:
    assert is_associated(slot_of(SENDER), SENDER, PREIMAGES)
    assert not is_associated(slot_of(SENDER), PAYMASTER, PREIMAGES)
    assert not is_associated(slot_of(SENDER), SENDER, ())


def test_mempool_of_entry_point_v0_7_keeps_its_own_edition_of_three_rules() -> None:
    context = frame(PAYMASTER, **context_answer(8))
    assert rules_of(context, "paymaster", edition="v0.7") == []
    opened = frame(PAYMASTER, frame(TOKEN, slots={slot_of(SENDER): READS}))
    assert rules_of(opened, "paymaster", factory=True, staked=(FACTORY,)) == []
    assert rules_of(opened, "paymaster", factory=True, staked=(FACTORY,), edition="v0.7") == ["STO-022"]
    precompile = frame(SENDER, frame((1).to_bytes(20), error="out of gas"))
    assert rules_of(precompile) == ["OP-020"]
    assert rules_of(precompile, edition="v0.7") == []
