"""The typed mirror of our contracts: functions, events and structs of contracts/src/interfaces, as Python calls them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from enum import IntEnum, StrEnum

from contracts import abi
from contracts.abi import Event, Function
from contracts.errors import InvalidFields
from contracts.typed_data import digest, domain_separator, struct_hash
from contracts.types import Address, Hash32, Wei, keccak

MODULE_VALIDATOR, MODULE_EXECUTOR, MODULE_FALLBACK, MODULE_HOOK = 1, 2, 3, 4
"""Module types.   Source: ERC-7579."""
MODE_SINGLE = bytes(32)
MODE_BATCH = b"\x01" + bytes(31)
"""Execution modes: call type (1), exec type (1), the rest zero.   Source: ERC-7579."""


class RiskState(IntEnum):
    """What an account may do; the same names on and off chain."""

    ACTIVE = 0
    REDUCE_ONLY = 1
    FROZEN = 2


class Due(IntEnum):
    """Whether a guard's trigger could be executed now. Source: IGuard."""

    NOT_DUE = 0
    DUE = 1
    BLOCKED = 2
    FINAL = 3


@dataclass(frozen=True, slots=True)
class Call:
    """One call an account makes. `value` in wei."""

    target: Address
    data: bytes
    value: Wei = 0


# -- RiskAccount and its factory ------------------------------------------------------------------------------------------

_MODULE_INIT = "(uint256,address,bytes)"
ACCOUNT_CONFIG = f"(bytes,address,uint48,uint128[3],{_MODULE_INIT}[])"

EXECUTE = Function.parse("execute(bytes32,bytes)")
RISK_STATE = Function.parse("riskState()(uint8,uint64)")
RISK_AUTHORITY = Function.parse("riskAuthority()(address)")
OWNER_SIGNER = Function.parse("ownerSigner()(bytes)")
NATIVE_OWNER_PATH = Function.parse("nativeOwnerPath()(bool)")
IS_MODULE_INSTALLED = Function.parse("isModuleInstalled(uint256,address,bytes)(bool)")
INSTALL_MODULE = Function.parse("installModule(uint256,address,bytes)")
UNINSTALL_MODULE = Function.parse("uninstallModule(uint256,address,bytes)")
SCHEDULE_ADMIN = Function.parse("scheduleAdmin(bytes)")
EXECUTE_ADMIN = Function.parse("executeAdmin(bytes)")
CANCEL_ADMIN = Function.parse("cancelAdmin(bytes32)")
ADMIN_EXECUTABLE_AT = Function.parse("adminExecutableAt(bytes32)(uint48)")
ADMIN_DELAY = Function.parse("adminDelay()(uint48)")
SET_RISK_AUTHORITY = Function.parse("setRiskAuthority(address)")
ADMIN_SCHEDULED = Event.parse("AdminScheduled(bytes32 indexed,bytes,uint48)")
MODULE_INSTALLED = Event.parse("ModuleInstalled(uint256,address)")
IS_VALID_SIGNATURE = Function.parse("isValidSignature(bytes32,bytes)(bytes4)")
CREATE_ACCOUNT = Function.parse(f"createAccount({ACCOUNT_CONFIG},bytes32)(address)")
GET_ACCOUNT_ADDRESS = Function.parse(f"getAccountAddress({ACCOUNT_CONFIG},bytes32)(address)")
IMPLEMENTATION = Function.parse("implementation()(address)")
INITIALIZE = Function.parse(f"initialize({ACCOUNT_CONFIG})")
LEAVE = Function.parse("leave(bytes4[])")
PAYMASTER_DEPOSIT = Function.parse("deposit()")
ADD_STAKE = Function.parse("addStake(uint32)")
RISK_STATE_CHANGED = Event.parse("RiskStateChanged(uint8 indexed,uint8 indexed,uint64)")
ACCOUNT_CREATED = Event.parse("AccountCreated(address indexed,bytes32 indexed)")


def encode_execute(calls: Sequence[Call]) -> bytes:
    """Call data that makes an ERC-7579 account perform `calls`: single mode for one, batch mode (all or nothing) for more."""
    if len(calls) == 1:
        call = calls[0]
        return EXECUTE.encode(MODE_SINGLE, call.target + call.value.to_bytes(32) + call.data)
    batch = abi.encode(["(address,uint256,bytes)[]"], [[(c.target, c.value, c.data) for c in calls]])
    return EXECUTE.encode(MODE_BATCH, batch)


@dataclass(frozen=True, slots=True)
class ModuleInit:
    """A module installed when the account is born."""

    module_type_id: int
    module: Address
    init_data: bytes


@dataclass(frozen=True, slots=True)
class AccountConfig:
    """Everything an account starts with, all of it inside the CREATE2 salt. Caps in wei, delay in s. Source: IRiskAccount."""

    owner: bytes
    authority: Address
    admin_delay_s: int
    prefund_caps_wei: tuple[Wei, Wei, Wei]
    modules: tuple[ModuleInit, ...]

    def to_abi(self) -> tuple[object, ...]:
        modules = tuple((m.module_type_id, m.module, m.init_data) for m in self.modules)
        return (self.owner, self.authority, self.admin_delay_s, self.prefund_caps_wei, modules)


def ecdsa_owner(address: Address) -> bytes:
    """The signer bytes of a secp256k1 owner: kind 0x00, then the address."""
    return b"\x00" + address


# -- RiskValidator --------------------------------------------------------------------------------------------------------

POLICY_OF = Function.parse("policyOf(address)(bytes32,uint64)")
SET_POLICY = Function.parse("setPolicy(bytes32)")
SET_ENGINE = Function.parse("setEngine(address,bool)")
ENGINE_ENABLED = Function.parse("engineEnabled(address,address)(bool)")
SET_SIGNER_QUORUM = Function.parse("setQuorum((bytes32,uint8,address[]))")
SIGNER_QUORUM_OF = Function.parse("quorumOf(address,bytes32)(uint8,uint8)")
IS_SIGNER = Function.parse("isSigner(address,bytes32,address)(bool)")
SET_THRESHOLD = Function.parse("setThreshold(uint8)")
THRESHOLD_OF = Function.parse("thresholdOf(address)(uint8)")
SET_ESCAPE_DELAY = Function.parse("setEscapeDelay(uint48)")
ESCAPE_DELAY_OF = Function.parse("escapeDelayOf(address)(uint48)")
ESCAPE_OPEN_AT = Function.parse("escapeOpenAt(address)(uint48)")
ENGINE_SET = Event.parse("EngineSet(address indexed,address indexed,bool)")
SIGNER_QUORUM_SET = Event.parse("QuorumSet(address indexed,bytes32 indexed,uint8,address[])")
START_ESCAPE_BY_OWNER = Function.parse("startEscape(address,uint48,bytes)")


@dataclass(frozen=True, slots=True)
class SignerQuorum:
    """A quorum of RiskValidator: `threshold` of `signers` (ascending, distinct). Without signers it is a removal."""

    id: Hash32
    threshold: int
    signers: tuple[Address, ...]

    def to_abi(self) -> tuple[object, ...]:
        return (self.id, self.threshold, self.signers)


def risk_validator_init(
    engines: Sequence[Address],
    threshold: int,
    escape_delay_s: int,
    policy_id: Hash32,
    owner: bytes = b"",
    quorums: Sequence[SignerQuorum] = (),
) -> bytes:
    """onInstall data of RiskValidator. `owner` empty: the account itself answers for its owner."""
    return abi.encode(
        ["(bytes,address[],uint8,uint48,bytes32,(bytes32,uint8,address[])[])"],
        [(owner, tuple(engines), threshold, escape_delay_s, policy_id, [quorum.to_abi() for quorum in quorums])],
    )


# -- SessionValidator -----------------------------------------------------------------------------------------------------

SESSION = "(address,uint48,uint48,address,bytes4,uint128,uint32,bytes32)"
ENABLE_SESSION = Function.parse(f"enableSession({SESSION},bytes)(bytes32)")
REVOKE_SESSION = Function.parse("revokeSession(bytes32)")
SESSION_ENABLED = Event.parse(f"SessionEnabled(address indexed,bytes32 indexed,{SESSION},bytes)")
SESSION_REVOKED = Event.parse("SessionRevoked(address indexed,bytes32 indexed)")
SESSION_OF = Function.parse(f"sessionOf(address,bytes32)({SESSION},uint128)")


@dataclass(frozen=True, slots=True)
class Session:
    """A key that may do one thing. Times in unix seconds, budget in wei of required prefund. Source: ISessionValidator."""

    key: Address
    valid_after_s: int
    valid_until_s: int
    target: Address
    selector: bytes
    prefund_budget_wei: Wei
    uses: int = 0
    bounds: Hash32 = bytes(32)
    """keccak256 of the encoded bounds of arguments, amounts and rates; zeros for none."""

    def to_abi(self) -> tuple[object, ...]:
        return (
            self.key,
            self.valid_after_s,
            self.valid_until_s,
            self.target,
            self.selector,
            self.prefund_budget_wei,
            self.uses,
            self.bounds,
        )

    @property
    def session_id(self) -> Hash32:
        return keccak(abi.encode([SESSION], [self.to_abi()]))


def encode_sessions(*sessions: Session, bounds: Sequence[bytes] = ()) -> bytes:
    """onInstall data of SessionValidator; `bounds` of each as encoded, none for sessions without."""
    listed = list(bounds) or [b""] * len(sessions)
    return abi.encode([f"{SESSION}[]", "bytes[]"], [[session.to_abi() for session in sessions], listed])


# -- IVenueAdapter --------------------------------------------------------------------------------------------------------

POSITION_OF = Function.parse("position(address,bytes)((int256,uint256,uint256))")
"""Signed base size, notional and debt in quote, 1e18 = one."""

# -- guards: IGuard and StopLoss ------------------------------------------------------------------------------------------

GUARD_EXECUTE = Function.parse("execute(address,uint256)")
GUARD_TOUCH = Function.parse("touch(address,uint256)")
GUARD_DUE = Function.parse("due(address,uint256)(uint8,bytes4)")
GUARD_FIRED = Event.parse("GuardFired(address indexed,uint256 indexed,uint256,address)")

_ORACLE = "(address,uint32,address,uint32,uint128,uint128,uint16,uint32)"
STOP = (
    "(address,bytes,bool,uint128,uint16,uint128,uint16,uint16,uint32,uint32,uint32,uint16,uint96,uint48,"
    "uint128,uint128,uint128,uint16,uint32," + _ORACLE + ")"
)
ARM_STOP = Function.parse(f"arm(uint256,{STOP})")
CANCEL_STOP = Function.parse("cancel(uint256)")
REDUCE = Function.parse("reduce(uint256,uint256)")
STOP_OF = Function.parse(f"stopOf(address,uint256)({STOP},uint8,uint256,uint48,uint48)")
MARK_OF = Function.parse("markOf(address,uint256)(uint256,uint256,uint48,uint80)")
"""Mark, trigger (1e18 = one), time of the arming (s), first round that counts; all 0 of a stop that does not trail."""
PROVE = Function.parse("prove(address,uint256,uint80[])")
STOP_ARMED = Event.parse(f"StopArmed(address indexed,uint256 indexed,uint256,{STOP})")
STOP_EXECUTED = Event.parse("StopExecuted(address indexed,uint256 indexed,uint256,uint256,int256,int256)")

HEALTH = (
    "(address,address,address,address,uint24,uint128,uint128,uint16,uint128,uint128,uint128,uint16,uint16,uint32,uint32,uint32,"
    "uint16,uint96,uint48," + _ORACLE + ")"
)
ARM_HEALTH = Function.parse(f"arm(uint256,{HEALTH})")
HEALTH_OF = Function.parse(f"healthOf(address,uint256)({HEALTH},bool,uint256,uint48,uint48)")
HEALTH_ARMED = Event.parse(f"HealthArmed(address indexed,uint256 indexed,uint256,{HEALTH})")
HEALTH_RESTORED = Event.parse("HealthRestored(address indexed,uint256 indexed,uint256,uint256,uint256,uint256,uint256)")


def encode_healths(healths: Sequence[tuple[int, tuple[object, ...]]]) -> bytes:
    """onInstall data of HealthGuard: (id, IHealthGuard.Health) each."""
    ids, fields = [one for one, _ in healths], [health for _, health in healths]
    return abi.encode(["uint256[]", f"{HEALTH}[]"], [ids, fields])


# -- PolicyHook -----------------------------------------------------------------------------------------------------------

HOOK_SETTINGS = "(address,uint32,bool)"
HOOK_RULE = "(address,bytes4,uint8,(uint8,uint16,bytes32[])[][])"
HOOK_WINDOW = "(address,uint8,uint32,int16,uint256)"
_HOOK_APPROVAL = "(address,address,uint128)"
_HOOK_ALLOWANCE = "(bytes32,uint128,uint128,uint64,uint128,uint64)"
_HOOK_INIT = f"({HOOK_SETTINGS},{HOOK_RULE}[],{HOOK_WINDOW}[],{_HOOK_APPROVAL}[],{_HOOK_ALLOWANCE}[])"
SET_HOOK_SETTINGS = Function.parse(f"setSettings({HOOK_SETTINGS})")
SET_HOOK_RULE = Function.parse(f"setRule({HOOK_RULE},bool)")
SET_HOOK_WINDOWS = Function.parse(f"setWindows({HOOK_WINDOW}[])")
SET_HOOK_APPROVAL = Function.parse(f"setApproval({_HOOK_APPROVAL})")
SET_HOOK_ALLOWANCE = Function.parse(f"setAllowance({_HOOK_ALLOWANCE})")
HOOK_ANNOUNCE = Function.parse("announce(bytes)")
HOOK_SETTINGS_OF = Function.parse(f"settingsOf(address)(bool,{HOOK_SETTINGS})")
HOOK_RULE_OF = Function.parse(f"ruleOf(address,address,bytes4)(bool,{HOOK_RULE})")
HOOK_WINDOWS_OF = Function.parse(f"windowsOf(address)({HOOK_WINDOW}[],uint256[],uint256[])")
HOOK_APPROVAL_OF = Function.parse("approvalOf(address,address,address)(uint128)")
HOOK_ALLOWANCE_OF = Function.parse(f"allowanceOf(address,bytes32)({_HOOK_ALLOWANCE})")
HOOK_EXECUTABLE_AT = Function.parse("executableAt(address,bytes32)(uint48)")
HOOK_RULE_SET = Event.parse(f"RuleSet(address indexed,address indexed,bytes4 indexed,{HOOK_RULE},bool)")
HOOK_APPROVAL_SET = Event.parse("ApprovalSet(address indexed,address indexed,address indexed,uint128)")
HOOK_ALLOWANCE_SET = Event.parse(f"AllowanceSet(address indexed,bytes32 indexed,{_HOOK_ALLOWANCE})")
SET_HOOK_BREAKER = Function.parse("setBreaker(address)")
HOOK_BREAKER_OF = Function.parse("breakerOf(address)(address)")
HOOK_CHANGE_ANNOUNCED = Event.parse("ChangeAnnounced(address indexed,bytes32 indexed,bytes,uint48)")


def encode_hook(
    settings: tuple[object, ...],
    rules: Sequence[tuple[object, ...]],
    windows: Sequence[tuple[object, ...]],
    approvals: Sequence[tuple[object, ...]],
) -> bytes:
    """onInstall data of PolicyHook: IPolicyHook.InstallData, without refillable allowances."""
    return abi.encode([_HOOK_INIT], [(settings, list(rules), list(windows), list(approvals), [])])


BASKET = (
    f"(address,address,uint16,{_ORACLE},bool,uint8,int16,uint128,uint128,uint32,uint16,uint32,uint32,uint16,uint96,uint48,"
    f"(address,uint16,uint16,{_ORACLE},(address,uint24)[3])[])"
)
ARM_BASKET = Function.parse(f"arm(uint256,{BASKET})")
BASKET_OF = Function.parse(f"basketOf(address,uint256)({BASKET},bool,uint256,uint48,uint48)")
BASKET_VALUES = Function.parse("valuesOf(address,uint256)(uint256[],uint256)")
BASKET_ARMED = Event.parse(f"BasketArmed(address indexed,uint256 indexed,uint256,{BASKET})")
REBALANCED = Event.parse("Rebalanced(address indexed,uint256 indexed,uint256,uint256,uint256,bool)")
TRADED = Event.parse("Traded(address indexed,uint256 indexed,address,address,address,uint24,uint256,uint256)")


def encode_baskets(baskets: Sequence[tuple[int, tuple[object, ...]]]) -> bytes:
    """onInstall data of AutoRebalance: (id, IAutoRebalance.Basket) each."""
    ids, fields = [one for one, _ in baskets], [basket for _, basket in baskets]
    return abi.encode(["uint256[]", f"{BASKET}[]"], [ids, fields])


HEDGE = (
    "(address,address,address,address,address,int128,uint128,uint128,uint128,uint128,uint128,uint32,uint16,uint32,uint32,"
    "uint16,uint96,uint48," + _ORACLE + ")"
)
ARM_HEDGE = Function.parse(f"arm(uint256,{HEDGE})")
HEDGE_OF = Function.parse(f"hedgeOf(address,uint256)({HEDGE},bool,uint256,uint48,uint48)")
DELTA_OF = Function.parse("deltaOf(address,uint256)(int256,int256,int256,uint256)")
HEDGE_ARMED = Event.parse(f"HedgeArmed(address indexed,uint256 indexed,uint256,{HEDGE})")
HEDGED = Event.parse("Hedged(address indexed,uint256 indexed,int256,int256,int256,uint256)")


def encode_hedges(hedges: Sequence[tuple[int, tuple[object, ...]]]) -> bytes:
    """onInstall data of DeltaHedge: (id, IDeltaHedge.Hedge) each."""
    ids, fields = [one for one, _ in hedges], [hedge for _, hedge in hedges]
    return abi.encode(["uint256[]", f"{HEDGE}[]"], [ids, fields])


# -- EquityBreaker ----------------------------------------------------------------------------------------------------------

BREAKER_CONFIG = (
    "((address,address,uint16,uint16,uint16,uint8,uint8,uint32,uint32),"
    f"(address,address,bool,{_ORACLE},bytes)[],address[])"
)
CONFIGURE_BREAKER = Function.parse(f"configure({BREAKER_CONFIG})")
RESET_MARK = Function.parse("resetMark()")
POKE = Function.parse("poke(address)")
BREAKER_CONFIG_OF = Function.parse(f"configOf(address)(bool,{BREAKER_CONFIG})")
BREAKER_STANDING_OF = Function.parse("standingOf(address)((uint256,uint256,uint32,uint48,uint48))")
EQUITY_OF = Function.parse("equityOf(address)(uint256,bytes4,bool)")
BREAKER_CHANGE_ANNOUNCED = HOOK_CHANGE_ANNOUNCED
BREAKER_CONFIGURED = Event.parse(f"BreakerConfigured(address indexed,{BREAKER_CONFIG})")
LATCHED = Event.parse("Latched(address indexed,uint8,uint8,uint256,uint256)")

# -- EmergencyFreeze ------------------------------------------------------------------------------------------------------

_EXIT = "(address,bytes4,bool,bool,uint8,bytes32[])"
_FREEZE_INIT = f"(address[],uint8,uint48,uint48,uint48,uint48,address[],{_EXIT}[])"
STATE_OF = Function.parse("stateOf(address)(uint8,uint64)")
FREEZE = Function.parse("freeze(address,uint8)")
FREEZE_BY_SIG = Function.parse("freezeBySig(address,uint8,uint48,address[],bytes[])")
EXPIRE = Function.parse("expire(address)")
REQUEST_THAW = Function.parse("requestThaw(address,uint8,uint48,address[],bytes[])")
THAW = Function.parse("thaw(address)")
FREEZE_NONCE = Function.parse("nonceOf(address)(uint256)")
IS_GUARDIAN = Function.parse("isGuardian(address,address)(bool)")
PENDING_OF = Function.parse("pendingOf(address)(uint48,uint8,uint48,uint48)")
QUORUM_OF = Function.parse("quorumOf(address)(uint8,uint8)")
SET_GUARDIAN = Function.parse("setGuardian(address,bool)")
SET_GUARDIANS_QUORUM = Function.parse("setQuorum(uint8)")
SET_GUARD = Function.parse("setGuard(address,bool)")
IS_GUARD = Function.parse("isGuard(address,address)(bool)")
SET_EXIT = Function.parse(f"setExit({_EXIT},bool)")
IS_EXIT = Function.parse(f"isExit(address,{_EXIT})(bool)")
_DELAYS = "(uint48,uint48,uint48,uint48)"
SET_DELAYS = Function.parse(f"setDelays({_DELAYS})")
DELAYS_OF = Function.parse(f"delaysOf(address)({_DELAYS})")
GUARDIAN_SET = Event.parse("GuardianSet(address indexed,address indexed,bool)")
GUARD_SET = Event.parse("GuardSet(address indexed,address indexed,bool)")
EXIT_SET = Event.parse(f"ExitSet(address indexed,bytes32 indexed,{_EXIT},bool)")
FROZEN = Event.parse("Frozen(address indexed,uint8,address indexed,uint48)")


@dataclass(frozen=True, slots=True)
class Exit:
    """A call that stays open in REDUCE_ONLY and, if `in_frozen`, in FROZEN. Source: IEmergencyFreeze."""

    target: Address
    selector: bytes
    in_frozen: bool
    plain_value: bool = False
    arg_mask: int = 0
    args: tuple[bytes, ...] = ()

    def to_abi(self) -> tuple[object, ...]:
        return (self.target, self.selector, self.in_frozen, self.plain_value, self.arg_mask, self.args)


@dataclass(frozen=True, slots=True)
class FreezeConfig:
    """onInstall data of EmergencyFreeze. All delays in seconds. Source: IEmergencyFreeze."""

    guardians: tuple[Address, ...]
    quorum: int
    solo_freeze_s: int
    solo_cooldown_s: int
    thaw_delay_s: int
    escape_delay_s: int
    guards: tuple[Address, ...]
    exits: tuple[Exit, ...] = field(default=())

    def encode(self) -> bytes:
        return abi.encode(
            [_FREEZE_INIT],
            [
                (
                    self.guardians,
                    self.quorum,
                    self.solo_freeze_s,
                    self.solo_cooldown_s,
                    self.thaw_delay_s,
                    self.escape_delay_s,
                    self.guards,
                    tuple(e.to_abi() for e in self.exits),
                )
            ],
        )


def thaw_digest(
    freeze_module: Address, chain_id: int, account: Address, state: RiskState, epoch: int, nonce: int, expiry_s: int
) -> Hash32:
    """What each guardian signs to ask for a thaw: EIP-712 Thaw of EmergencyFreeze."""
    struct = struct_hash(
        "Thaw(address account,uint8 state,uint64 epoch,uint256 nonce,uint48 expiry)",
        ["address", "uint8", "uint64", "uint256", "uint48"],
        [account, int(state), epoch, nonce, expiry_s],
    )
    return digest(domain_separator("Seawall EmergencyFreeze", "1", chain_id, freeze_module), struct)


# -- Recovery -------------------------------------------------------------------------------------------------------------

RECOVERY_SETTINGS = "(bytes,bytes,uint48,uint48,address,uint192[],address,bytes4,bool)"
RECOVERY_SETTINGS_OF = Function.parse(f"settingsOf(address)(bool,{RECOVERY_SETTINGS})")
SET_RECOVERY_SETTINGS = Function.parse(f"setSettings({RECOVERY_SETTINGS})")
RECOVERY_PENDING_OF = Function.parse("pendingOf(address)(bytes,uint48,bool)")
RECOVERY_SEEN_OF = Function.parse("seenOf(address)(uint48,bool)")
RECOVERY_NONCE = Function.parse("nonceOf(address)(uint256)")
RECOVERY_PROPOSE = Function.parse("propose(address,bytes,uint48,bytes)")
RECOVERY_CLAIM = Function.parse("claim(address,bytes,uint48,bytes)")
RECOVERY_CANCEL = Function.parse("cancel()")
RECOVERY_CANCEL_BY_SIG = Function.parse("cancelBySig(address,uint48,bytes)")
RECOVERY_WITHDRAW = Function.parse("withdraw(address,uint48,bytes)")
RECOVERY_EXECUTE = Function.parse("execute(address)")
RECOVERY_WITNESS = Function.parse("witness(address)")
RECOVERY_HEARTBEAT = Function.parse("heartbeat()")


class RecoveryMessage(StrEnum):
    """What a party of Recovery can sign. Source: IRecovery."""

    PROPOSE = "Propose"
    CLAIM = "Claim"
    CANCEL = "Cancel"
    WITHDRAW = "Withdraw"

    @property
    def names_owner(self) -> bool:
        """Whether the message names the new owner."""
        return self in (RecoveryMessage.PROPOSE, RecoveryMessage.CLAIM)


def recovery_digest(
    message: RecoveryMessage,
    module: Address,
    chain_id: int,
    account: Address,
    new_owner: bytes,
    nonce: int,
    expiry_s: int,
) -> Hash32:
    """What guardians, heir or owner sign: EIP-712 of Recovery. `new_owner` counts only where the message names it."""
    owner = ("bytes newOwner,", ["bytes32"], [keccak(new_owner)]) if message.names_owner else ("", [], [])
    struct = struct_hash(
        f"{message}(address account,{owner[0]}uint256 nonce,uint48 expiry)",
        ["address", *owner[1], "uint256", "uint48"],
        [account, *owner[2], nonce, expiry_s],
    )
    return digest(domain_separator("Seawall Recovery", "1", chain_id, module), struct)


# -- ERC-20 and Multicall3 ------------------------------------------------------------------------------------------------

BALANCE_OF = Function.parse("balanceOf(address)(uint256)")
TRANSFER = Function.parse("transfer(address,uint256)(bool)")
APPROVE = Function.parse("approve(address,uint256)(bool)")
ALLOWANCE = Function.parse("allowance(address,address)(uint256)")
MINT = Function.parse("mint(address,uint256)(bool)")
AGGREGATE3 = Function.parse("aggregate3((address,bool,bytes)[])((bool,bytes)[])")


_TRUE, _DATA_AT = (1).to_bytes(32), (96).to_bytes(32)


def encode_multicall(calls: Sequence[tuple[Address, bytes]]) -> bytes:
    """Call data of one Multicall3 read in which any call may fail by itself.

    Packed by hand, ten times as fast as the general codec; the same bytes as `AGGREGATE3.encode`.
    """
    heads, bodies, at = [], [], 32 * len(calls)
    for to, data in calls:
        if len(to) != 20:
            raise InvalidFields(f"a target has 20 bytes, got {len(to)}")
        heads.append(at.to_bytes(32))
        body = b"".join(
            (bytes(12), to, _TRUE, _DATA_AT, len(data).to_bytes(32), data, bytes(-len(data) % 32)),
        )
        bodies.append(body)
        at += len(body)
    return b"".join((AGGREGATE3.selector, (32).to_bytes(32), len(calls).to_bytes(32), *heads, *bodies))


def decode_multicall(data: bytes) -> list[bytes | None]:
    """Each call's return data in order, None where it reverted. Raises InvalidFields.

    Taken apart by hand, many times as fast as the general codec; the same answers as `AGGREGATE3.decode`, for what is in canonical form.
    """
    count = _word(data, 32)
    if _word(data, 0) != 32 or 32 * count > len(data):
        raise InvalidFields(f"{len(data)} bytes are no answer of Multicall3")
    found: list[bytes | None] = []
    for head in range(64, 64 + 32 * count, 32):
        at = 64 + _word(data, head)
        success, body = _word(data, at), at + _word(data, at + 32)
        length = _word(data, body)
        start, end = body + 32, body + 32 + length
        if success > 1 or end + -length % 32 > len(data) or any(data[end : end + -length % 32]):
            raise InvalidFields(f"{len(data)} bytes are no answer of Multicall3")
        found.append(data[start:end] if success else None)
    return found


def _word(data: bytes, at: int) -> int:
    """Raises InvalidFields behind the end."""
    if at + 32 > len(data):
        raise InvalidFields(f"{len(data)} bytes are no answer of Multicall3: byte {at} is read")
    return int.from_bytes(data[at : at + 32])
