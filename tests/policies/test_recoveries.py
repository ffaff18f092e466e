"""`guards.recovery`: what a file may say, what becomes of it on chain, and how it is compared."""

from __future__ import annotations

import pytest

from contracts import abi
from contracts import bindings as b
from contracts.artifacts import artifact
from contracts.bindings import Exit, RecoveryMessage, ecdsa_owner
from contracts.errors import BadInput
from contracts.owners import Seat, contract_owner, multisig_owner
from contracts.types import checksum, keccak
from contracts.userop import LANE_ATTESTED, LANE_ESCAPE, LANE_ROOT
from policies.differences import differences
from policies.document import lint, load
from policies.guards import freeze_config
from policies.recoveries import party, recovery_fields, recovery_state
from policies.recovery_rules import RECOVERY

POLICY = """\
schema: 1
name: recoverable
version: "1"
limits:
  - {id: leverage, metric: leverage, max: 9}
calls:
  - {target: seawall.recovery, functions: [setSettings, announce, cancel, heartbeat]}
guards:
  freeze: {guardians: [guardian], quorum: 1}
  recovery: {guardians: [guardian, guardian_2], contract_guardians: [treasury], threshold: 2, delay: 5d, heir: trader, silence: 90d}
"""
_NAMES = (
    "guardian", "guardian_2", "treasury", "trader", "seawall.recovery", "seawall.multisig_owner", "seawall.emergency_freeze",
    "seawall.risk_validator",
)  # fmt: skip
BOOK = {name: name.encode().rjust(20, b"\0")[-20:] for name in _NAMES}
ZERO = bytes(20)
DAY = 86_400


def test_a_file_becomes_the_settings_of_the_module() -> None:
    policy = load(POLICY)
    assert policy.recovery is not None
    guardians = multisig_owner(
        BOOK["seawall.multisig_owner"],
        2,
        [
            Seat(ecdsa_owner(BOOK["guardian"])),
            Seat(ecdsa_owner(BOOK["guardian_2"])),
            Seat(contract_owner(BOOK["treasury"])),
        ],
    )
    attested = int.from_bytes(BOOK["seawall.risk_validator"]) << 32
    lanes = (0, LANE_ROOT << 24, *(attested | lane << 24 for lane in (LANE_ATTESTED, LANE_ESCAPE, LANE_ROOT)))
    assert recovery_state(policy.recovery, policy, BOOK).settings == (
        guardians, ecdsa_owner(BOOK["trader"]), 5 * DAY, 90 * DAY, ZERO, lanes, ZERO, bytes(4), False,
    )  # fmt: skip


def test_one_guardian_stands_for_itself_and_without_an_heir_there_is_no_silence() -> None:
    alone = "guardians: [guardian], threshold: 1, delay: 5d}"
    policy = load(POLICY[: POLICY.index("guardians: [guardian, guardian_2]")] + alone)
    assert policy.recovery is not None
    settings = recovery_state(policy.recovery, policy, BOOK).settings
    assert settings[:4] == (ecdsa_owner(BOOK["guardian"]), b"", 5 * DAY, 0)


def test_two_names_of_one_guardian_are_refused_where_names_become_addresses() -> None:
    policy = load(POLICY)
    assert policy.recovery is not None
    with pytest.raises(BadInput, match="the same address"):
        recovery_state(policy.recovery, policy, BOOK | {"treasury": BOOK["guardian"]})


def test_the_module_is_a_guard_and_its_ways_for_the_owner_are_exits() -> None:
    config = freeze_config(load(POLICY), BOOK, ZERO)
    module = BOOK["seawall.recovery"]
    assert module in config.guards
    assert Exit(module, b.RECOVERY_CANCEL.selector, in_frozen=True) in config.exits
    assert Exit(module, b.RECOVERY_HEARTBEAT.selector, in_frozen=True) in config.exits
    assert RECOVERY not in load(POLICY).triggers


def test_settings_are_shown_in_words() -> None:
    policy = load(POLICY)
    assert policy.recovery is not None
    settings = recovery_state(policy.recovery, policy, BOOK).settings
    fields = recovery_fields(settings, checksum, lambda seconds: f"{seconds // DAY}d")
    names = sorted(checksum(BOOK[name]) for name in ("guardian", "guardian_2", "treasury"))
    assert fields["guardians"] == "2 of " + ", ".join(names)
    assert (fields["heir"], fields["delay"], fields["silence"]) == (checksum(BOOK["trader"]), "5d", "90d")
    assert (fields["entry point"], fields["changed at"]) == ("the account's own", "the account")
    assert party(b"\x01" + BOOK["treasury"] + b"\x07", checksum) == f"key 0x07 of {checksum(BOOK['treasury'])}"


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ("threshold: 2", "threshold: 4", "must be between 1 and 3"),
        ("threshold: 2", "threshold: 0", "must be between 1 and 3"),
        ("threshold: 2", "threshold: 1", "any single guardian"),
        ("[guardian, guardian_2]", "[guardian, guardian]", "stands there twice"),
        ("[guardian, guardian_2]", "[guardian, gaurdian_2]", "unknown name"),
        ("[guardian, guardian_2]", "[guardian, owner]", "lost with the owner"),
        ("delay: 5d", "delay: 30m", "between 1h and 3650d"),
        ("silence: 90d", "silence: 1h", "between 1d and 3650d"),
        ("heir: trader, ", "", "beside heir only"),
        ("heir: trader", "heir: tradre", "unknown name"),
        ("  freeze: {guardians: [guardian], quorum: 1}\n", "", "needs guards.freeze"),
        ("  - {target: seawall.recovery, functions: [setSettings, announce, cancel, heartbeat]}\n", "", "can never change it"),
        ("guardians: [guardian, guardian_2], contract_guardians: [treasury], ", "", "needs 1 to 32 guardians"),
    ],
)  # fmt: skip
def test_the_linter_names_what_cannot_work(old: str, new: str, said: str) -> None:
    text = POLICY.replace(old, new)
    if "seawall.recovery" in old:
        text = POLICY.replace(f"calls:\n{old}", "")
    assert any(said in problem.message for problem in lint(text)), [p.message for p in lint(text)]


def test_a_sound_file_has_no_problem_of_recovery() -> None:
    assert not [p for p in lint(POLICY) if "recovery" in p.path]


def test_a_change_is_a_difference_in_the_units_of_the_file() -> None:
    found = list(differences(load(POLICY), load(POLICY.replace("delay: 5d", "delay: 7d"))))
    assert [(one.path, one.before, one.after) for one in found] == [("guards.recovery.delay", "5d", "7d")]


def test_what_parties_sign_is_the_modules_typed_data() -> None:
    module, account, owner = BOOK["seawall.recovery"], BOOK["treasury"], ecdsa_owner(BOOK["trader"])
    domain = keccak(
        abi.encode(
            ["bytes32", "bytes32", "bytes32", "uint256", "address"],
            [
                keccak(b"EIP712Domain(string name,string version,uint256 chainId,address verifyingContract)"),
                keccak(b"Seawall Recovery"), keccak(b"1"), 7, module,
            ],
        )
    )  # fmt: skip
    kind = keccak(b"Propose(address account,bytes newOwner,uint256 nonce,uint48 expiry)")
    struct = keccak(
        abi.encode(["bytes32", "address", "bytes32", "uint256", "uint48"], [kind, account, keccak(owner), 3, 99])
    )
    assert b.recovery_digest(RecoveryMessage.PROPOSE, module, 7, account, owner, 3, 99) == keccak(
        b"\x19\x01" + domain + struct
    )
    signed = {message: b.recovery_digest(message, module, 7, account, owner, 3, 99) for message in RecoveryMessage}
    assert len(set(signed.values())) == 4


def test_bindings_name_functions_that_the_module_has() -> None:
    known = {
        f"{entry['name']}({','.join(_type(i) for i in entry['inputs'])})"
        for entry in artifact("Recovery").abi
        if entry["type"] == "function"
    }
    bound = (
        b.SET_RECOVERY_SETTINGS, b.RECOVERY_SETTINGS_OF, b.RECOVERY_PENDING_OF, b.RECOVERY_SEEN_OF, b.RECOVERY_NONCE, b.RECOVERY_PROPOSE,
        b.RECOVERY_CLAIM, b.RECOVERY_CANCEL, b.RECOVERY_CANCEL_BY_SIG, b.RECOVERY_WITHDRAW, b.RECOVERY_EXECUTE, b.RECOVERY_WITNESS,
        b.RECOVERY_HEARTBEAT, b.HOOK_ANNOUNCE, b.HOOK_EXECUTABLE_AT,
    )  # fmt: skip
    assert {one.signature for one in bound} <= known


def _type(entry: dict[str, object]) -> str:
    if not str(entry["type"]).startswith("tuple"):
        return str(entry["type"])
    parts = entry["components"]
    assert isinstance(parts, list)
    return f"({','.join(_type(part) for part in parts)}){str(entry['type'])[5:]}"
