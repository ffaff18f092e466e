"""What a policy's guards, exits, engines and quorums want on chain, what is there, and the calls that make the one of the other. Pure.

Both sides are flat lists of `Setting`s under stable keys; the difference is that of two mappings. A module of its own is a function that
lists its wanted settings and one that lists what was found of it (`_WANTED`, `_FOUND`); nothing else knows it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from decimal import Decimal
from typing import Any, Literal

from contracts import bindings as b
from contracts.abi import Function
from contracts.bindings import (
    MODULE_EXECUTOR,
    MODULE_FALLBACK,
    MODULE_HOOK,
    MODULE_VALIDATOR,
    Call,
    Exit,
    RiskState,
    Session,
    SignerQuorum,
)
from contracts.types import Address, Hash32, Wei, checksum, to_hex
from policies.approvals import quorums
from policies.attestation import on_chain_id
from policies.breaker_rules import BREAKER
from policies.breakers import BreakerState, breaker_fields, breaker_state
from policies.guards import bound, freeze_config, health_config, keeper_sessions
from policies.hedge_rules import HEDGE
from policies.hedges import HEDGE_ENDS, hedge_config, hedge_fields
from policies.hook_rules import HOOK
from policies.hooks import HookState, hook_settings, hook_state
from policies.modules import module_inits
from policies.policy import Policy
from policies.rebalance_rules import REBALANCE
from policies.rebalances import ENDS, basket_fields, rebalance_config
from policies.recoveries import RecoveryState, recovery_fields, recovery_state
from policies.recovery_rules import RECOVERY
from policies.stop_rules import STOP_LOSS, VENUES, StopRule
from policies.stops import STOP_ENDS, STOP_TRIGGER, stop_config, stop_fields

ARMED = 1
"""IStopLoss.Status."""
TRIGGER_TOLERANCE = Decimal("0.01")
"""A stop given by its drop is armed from the order's index price; the entry that counts is the fill's. As far apart as this they agree."""
RENEW_BELOW = Decimal("0.1")
"""A session is renewed when less than this share of its time is left."""
_TYPES = {MODULE_VALIDATOR: "validator", MODULE_EXECUTOR: "executor", MODULE_FALLBACK: "fallback", MODULE_HOOK: "hook"}
RECOVERY_KEY = "recovery"
"""The one setting that Recovery keeps."""
_ZERO = bytes(20)
_INSTALL, _ADD, _SET, _REMOVE, _ANNOUNCE, _POLICY = range(6)


@dataclass(frozen=True, slots=True)
class Present:
    """The configuration of one account on one block. Times in unix seconds, delays in seconds."""

    account: Address
    block_number: int
    time_s: int
    state: RiskState
    state_epoch: int
    modules: frozenset[tuple[int, Address]]
    authority: Address
    native_owner_path: bool
    admin_delay_s: int
    engines: frozenset[Address] = frozenset()
    threshold: int = 0
    escape_delay_s: int = 0
    escape_open_at_s: int = 0
    policy_id: Hash32 = bytes(32)
    policy_epoch: int = 0
    quorums: Mapping[Hash32, tuple[int, frozenset[Address]]] = field(default_factory=dict)
    guardians: frozenset[Address] = frozenset()
    guardians_quorum: int = 0
    delays_s: tuple[int, int, int, int] = (0, 0, 0, 0)
    guards: frozenset[Address] = frozenset()
    exits: tuple[Exit, ...] = ()
    sessions: tuple[Session, ...] = ()
    stops: Mapping[int, tuple[object, ...]] = field(default_factory=dict)
    """Armed ones, by id, as IStopLoss.Stop."""
    healths: Mapping[int, tuple[object, ...]] = field(default_factory=dict)
    """Armed ones, by id, as IHealthGuard.Health."""
    baskets: Mapping[int, tuple[object, ...]] = field(default_factory=dict)
    """Armed ones, by id, as IAutoRebalance.Basket."""
    hedges: Mapping[int, tuple[object, ...]] = field(default_factory=dict)
    """Armed ones, by id, as IDeltaHedge.Hedge."""
    announced: Mapping[bytes, int] = field(default_factory=dict)
    """Administrative calls under way, and when they may be carried out."""
    hook: HookState | None = None
    hook_breaker: Address = bytes(20)
    """What the hook reports to; zero: nothing."""
    breaker: BreakerState | None = None
    recovery: RecoveryState | None = None


@dataclass(frozen=True, slots=True)
class Held:
    """A position that stops protect. `entry_price`: quote per base, None where the venue tells none."""

    entry_price: Decimal | None
    is_long: bool


@dataclass(frozen=True, slots=True)
class Wanted:
    """What the wish is made of: a policy, the addresses of its names, and what the account holds: by (venue, asset) where positions have an
    entry price, else (`sizes`, signed, 1e18 = one) by the stop that names it.
    """

    policy: Policy
    book: Mapping[str, Address]
    present: Present
    held: Mapping[tuple[str, str], Held]
    sizes: Mapping[int, int] = field(default_factory=dict)

    def held_by(self, rule: StopRule) -> Held | None:
        """The position that a stop protects."""
        if VENUES[rule.venue].has_entry:
            return self.held.get((rule.venue, rule.asset))
        size_wad = self.sizes.get(rule.id, 0)
        return Held(None, size_wad > 0) if size_wad else None

    def at(self, name: str) -> Address:
        return bound(name, self.policy, self.book, self.present.account)

    def has(self, kind: int, name: str) -> bool:
        return (kind, self.book.get(name, _ZERO)) in self.present.modules


@dataclass(frozen=True, slots=True)
class Setting:
    """One thing that is kept on chain for the account. Two of one key are the same when their `fields` are.

    `make` brings it about, `drop` takes it away; `drop_first`: it cannot be replaced in place. `announced`: what takes it away, or brings it
    about, is an administrative call that waits for the account's delay.
    """

    fields: Mapping[str, str]
    phase: int = _SET
    make: tuple[Call, ...] = ()
    drop: tuple[Call, ...] = ()
    drop_first: bool = False
    announced: bytes = b""
    announced_at: Address = b""
    """The module that keeps the announcement; empty: the account itself."""
    alone: bool = False
    """Only in an operation that calls nothing but the module."""


@dataclass(frozen=True, slots=True)
class Change:
    """One difference. `fields` are (name, before, after) of what differs; `calls` make it, unless `announced` (an administrative call of
    the account that waits for its delay) does.
    """

    kind: Literal["add", "change", "remove"]
    key: str
    fields: tuple[tuple[str, str | None, str | None], ...]
    calls: tuple[Call, ...]
    announced: bytes
    phase: int
    announced_at: Address = b""
    alone: bool = False

    def to_json(self) -> dict[str, Any]:
        return {
            "kind": self.kind,
            "setting": self.key,
            "fields": [{"name": n, "before": old, "after": new} for n, old, new in self.fields],
            "announced": bool(self.announced),
        }


def changes(wanted: Mapping[str, Setting], found: Mapping[str, Setting]) -> tuple[Change, ...]:
    """What must be done so that `found` becomes `wanted`, in the order in which it can be done: what is installed or enabled first, then
    changed, then disabled, announced, and the policy's id last, because what follows would be judged by the new one.
    """
    listed = []
    for key in sorted(wanted.keys() | found.keys()):
        old, new = found.get(key), wanted.get(key)
        if old is not None and new is not None:
            if old.fields == new.fields:
                continue
            calls = (old.drop if new.drop_first else ()) + new.make
            fields = _differing(old.fields, new.fields)
            listed.append(
                Change("change", key, fields, calls, new.announced, new.phase, new.announced_at, alone=new.alone)
            )
        elif new is not None:
            phase = min(new.phase, _ADD) if new.phase == _SET else new.phase
            fields = _differing({}, new.fields)
            listed.append(Change("add", key, fields, new.make, new.announced, phase, new.announced_at, alone=new.alone))
        elif old is not None:
            phase = _ANNOUNCE if old.announced else _REMOVE
            fields = _differing(old.fields, {})
            listed.append(
                Change("remove", key, fields, old.drop, old.announced, phase, old.announced_at, alone=old.alone)
            )
    return tuple(sorted(listed, key=lambda change: change.phase))


def _differing(old: Mapping[str, str], new: Mapping[str, str]) -> tuple[tuple[str, str | None, str | None], ...]:
    names = dict.fromkeys((*old, *new))
    return tuple((name, old.get(name), new.get(name)) for name in names if old.get(name) != new.get(name))


def wanted_settings(wish: Wanted) -> dict[str, Setting]:
    """What the policy wants of the account. Raises BadInput for a name without address."""
    return {key: setting for section in _WANTED for key, setting in section(wish)}


def found_settings(wish: Wanted) -> dict[str, Setting]:
    """What is there, in the same terms. Only `book`, `policy` (for names) and `present` of `wish` matter."""
    return {key: setting for section in _FOUND for key, setting in section(wish)}


def differences(wish: Wanted) -> tuple[Change, ...]:
    """Everything that stands between the account and the policy, in order."""
    return changes(wanted_settings(wish), found_settings(wish))


# -- names ------------------------------------------------------------------------------------------------------------------


def _names(wish: Wanted) -> Callable[[Address], str]:
    """Addresses for people: the policy's name for it, if there is one, and the address."""
    known = {address: name for name, address in (*wish.book.items(), *wish.policy.addresses.items())}
    return lambda address: f"{known[address]} {checksum(address)}" if address in known else checksum(address)


def _duration(seconds: int) -> str:
    for unit, size in (("d", 86_400), ("h", 3_600), ("m", 60)):
        if seconds and seconds % size == 0:
            return f"{seconds // size}{unit}"
    return f"{seconds}s"


def _eth(wei: Wei) -> str:
    return f"{Decimal(wei).scaleb(-18).normalize():f} ETH"


Listed = list[tuple[str, Setting]]

# -- modules ----------------------------------------------------------------------------------------------------------------


def _module_key(kind: int, name: str) -> str:
    return f"module {name} ({_TYPES.get(kind, kind)})"


def _wanted_modules(wish: Wanted) -> Listed:
    name, account = _names(wish), wish.present.account
    listed: Listed = []
    engines = [wish.at(one) for one in wish.policy.attestation_engines]
    for init in module_inits(wish.policy, wish.book, account, engines, wish.present.time_s):
        install = Call(account, b.INSTALL_MODULE.encode(init.module_type_id, init.module, init.init_data))
        key = _module_key(init.module_type_id, name(init.module))
        listed.append((key, Setting({"": "installed"}, _INSTALL, make=(install,))))
    authority = _ZERO if wish.policy.freeze is None else wish.at("seawall.emergency_freeze")
    data = b.SET_RISK_AUTHORITY.encode(authority)
    shown = "nobody" if authority == _ZERO else name(authority)
    listed.append(("authority over the state", Setting({"": shown}, _ANNOUNCE, announced=data)))
    return listed


def _found_modules(wish: Wanted) -> Listed:
    name, present = _names(wish), wish.present
    listed: Listed = []
    for kind, module in present.modules:
        gone = b.UNINSTALL_MODULE.encode(kind, module, b"")
        listed.append((_module_key(kind, name(module)), Setting({"": "installed"}, announced=gone)))
    shown = "nobody" if present.authority == _ZERO else name(present.authority)
    listed.append(("authority over the state", Setting({"": shown})))
    return listed


# -- RiskValidator ----------------------------------------------------------------------------------------------------------


def _quorum_fields(threshold: int, signers: Sequence[str]) -> dict[str, str]:
    return {"threshold": str(threshold), "signers": ", ".join(sorted(signers))}


def _wanted_engines(wish: Wanted) -> Listed:
    if not wish.has(MODULE_VALIDATOR, "seawall.risk_validator"):
        return []  # its installation brings them
    policy, name, module = wish.policy, _names(wish), wish.at("seawall.risk_validator")
    listed: Listed = []
    for engine in dict.fromkeys(wish.at(one) for one in policy.attestation_engines):
        enable = Call(module, b.SET_ENGINE.encode(engine, True))
        listed.append((f"engine {name(engine)}", Setting({"": "enabled"}, make=(enable,))))
    threshold = Call(module, b.SET_THRESHOLD.encode(policy.attestation_threshold))
    listed.append(("engines that must agree", Setting({"": str(policy.attestation_threshold)}, make=(threshold,))))
    delay = Call(module, b.SET_ESCAPE_DELAY.encode(policy.escape_delay_s))
    listed.append(("escape delay", Setting({"": _duration(policy.escape_delay_s)}, make=(delay,))))
    for quorum in quorums(policy, wish.book, wish.present.account):
        register = Call(module, b.SET_SIGNER_QUORUM.encode(quorum.on_chain().to_abi()))
        fields = _quorum_fields(quorum.threshold, [name(one) for one in quorum.signers])
        listed.append((f"quorum {quorum.name}", Setting(fields, make=(register,))))
    in_force = Call(module, b.SET_POLICY.encode(policy.policy_id))
    listed.append(("policy", Setting({"": to_hex(policy.policy_id)}, _POLICY, make=(in_force,))))
    return listed


def _found_engines(wish: Wanted) -> Listed:
    present = wish.present
    if not wish.has(MODULE_VALIDATOR, "seawall.risk_validator"):
        return []
    name, module = _names(wish), wish.book["seawall.risk_validator"]
    listed: Listed = []
    for engine in present.engines:
        disable = Call(module, b.SET_ENGINE.encode(engine, False))
        listed.append((f"engine {name(engine)}", Setting({"": "enabled"}, drop=(disable,))))
    listed.append(("engines that must agree", Setting({"": str(present.threshold)})))
    listed.append(("escape delay", Setting({"": _duration(present.escape_delay_s)})))
    known = {on_chain_id(rule.id): rule.id for rule in wish.policy.approvals}
    for quorum_id, (threshold, signers) in present.quorums.items():
        remove = Call(module, b.SET_SIGNER_QUORUM.encode(SignerQuorum(quorum_id, 0, ()).to_abi()))
        fields = _quorum_fields(threshold, [name(one) for one in signers])
        listed.append((f"quorum {known.get(quorum_id, to_hex(quorum_id))}", Setting(fields, drop=(remove,))))
    listed.append(("policy", Setting({"": to_hex(present.policy_id)})))
    return listed


# -- EmergencyFreeze --------------------------------------------------------------------------------------------------------

_DELAYS = ("solo freeze", "solo cool-down", "thaw delay", "escape delay")


def _exit_key(exit_: Exit, name: Callable[[Address], str]) -> str:
    if exit_.plain_value:
        return f"exit to {name(exit_.target)} (plain value)"
    pinned = []
    words = iter(exit_.args)
    for i in range(8):
        if exit_.arg_mask >> i & 1:
            word = next(words)
            pinned.append(f"{i}: {name(word[12:]) if not any(word[:12]) and any(word[12:16]) else to_hex(word)}")
    return f"exit {name(exit_.target)} {to_hex(exit_.selector)}" + (f" ({', '.join(pinned)})" if pinned else "")


def _wanted_freeze(wish: Wanted) -> Listed:
    if wish.policy.freeze is None or not wish.has(MODULE_EXECUTOR, "seawall.emergency_freeze"):
        return []
    config = freeze_config(wish.policy, wish.book, wish.present.account)
    name, module = _names(wish), wish.at("seawall.emergency_freeze")
    listed: Listed = []
    for guardian in config.guardians:
        listed.append(
            (
                f"guardian {name(guardian)}",
                Setting({"": "may freeze"}, make=(Call(module, b.SET_GUARDIAN.encode(guardian, True)),)),
            )
        )
    quorum = Call(module, b.SET_GUARDIANS_QUORUM.encode(config.quorum))
    listed.append(("guardians who thaw", Setting({"": str(config.quorum)}, make=(quorum,))))
    delays = (config.solo_freeze_s, config.solo_cooldown_s, config.thaw_delay_s, config.escape_delay_s)
    fields = dict(zip(_DELAYS, map(_duration, delays), strict=True))
    listed.append(("freeze delays", Setting(fields, make=(Call(module, b.SET_DELAYS.encode(delays)),))))
    for guard in config.guards:
        declare = Call(module, b.SET_GUARD.encode(guard, True))
        listed.append((f"guard {name(guard)}", Setting({"": "acts in every state"}, make=(declare,))))
    for exit_ in config.exits:
        open_ = Call(module, b.SET_EXIT.encode(exit_.to_abi(), True))
        listed.append((_exit_key(exit_, name), Setting({"": _exit_text(exit_)}, make=(open_,))))
    return listed


def _exit_text(exit_: Exit) -> str:
    return "open in REDUCE_ONLY and FROZEN" if exit_.in_frozen else "open in REDUCE_ONLY"


def _found_freeze(wish: Wanted) -> Listed:
    present = wish.present
    if not wish.has(MODULE_EXECUTOR, "seawall.emergency_freeze"):
        return []
    if wish.policy.freeze is None:
        return []  # its removal takes them along
    name, module = _names(wish), wish.book["seawall.emergency_freeze"]
    listed: Listed = []
    for guardian in present.guardians:
        unseat = Call(module, b.SET_GUARDIAN.encode(guardian, False))
        listed.append((f"guardian {name(guardian)}", Setting({"": "may freeze"}, drop=(unseat,))))
    listed.append(("guardians who thaw", Setting({"": str(present.guardians_quorum)})))
    fields = dict(zip(_DELAYS, map(_duration, present.delays_s), strict=True))
    listed.append(("freeze delays", Setting(fields)))
    for guard in present.guards:
        withdraw = Call(module, b.SET_GUARD.encode(guard, False))
        listed.append((f"guard {name(guard)}", Setting({"": "acts in every state"}, drop=(withdraw,))))
    for exit_ in present.exits:
        close = Call(module, b.SET_EXIT.encode(exit_.to_abi(), False))
        listed.append((_exit_key(exit_, name), Setting({"": _exit_text(exit_)}, drop=(close,))))
    return listed


# -- SessionValidator -------------------------------------------------------------------------------------------------------


def _session_key(session: Session, name: Callable[[Address], str]) -> str:
    return f"session {name(session.target)} {to_hex(session.selector)} by {name(session.key)}"


def _limits(session: Session) -> str:
    """Of uses, arguments, amounts and rates."""
    uses = f"{session.uses} uses" if session.uses else ""
    bounds = f"bounds {to_hex(session.bounds)}" if any(session.bounds) else ""
    return ", ".join(filter(None, (uses, bounds))) or "none"


def _wanted_sessions(wish: Wanted) -> Listed:
    if not wish.has(MODULE_VALIDATOR, "seawall.session_validator"):
        return []
    name, module = _names(wish), wish.at("seawall.session_validator")
    listed: Listed = []
    for session in keeper_sessions(wish.policy, wish.book, wish.present.time_s):
        enable = Call(module, b.ENABLE_SESSION.encode(session.to_abi(), b""))
        fields = {"budget": _eth(session.prefund_budget_wei), "time": "valid", "limits": _limits(session)}
        listed.append((_session_key(session, name), Setting(fields, make=(enable,), drop_first=True)))
    return listed


def _found_sessions(wish: Wanted) -> Listed:
    if not wish.has(MODULE_VALIDATOR, "seawall.session_validator"):
        return []
    name, module = _names(wish), wish.book["seawall.session_validator"]
    now_s, rule = wish.present.time_s, wish.policy.session
    listed: dict[str, Setting] = {}
    for session in sorted(wish.present.sessions, key=lambda one: one.valid_until_s):
        left_s = session.valid_until_s - now_s
        ends_soon = rule is not None and left_s < RENEW_BELOW * rule.valid_for_s
        time = "over" if left_s <= 0 else f"ends in {_duration(left_s)}" if ends_soon else "valid"
        revoke = Call(module, b.REVOKE_SESSION.encode(session.session_id))
        fields = {"budget": _eth(session.prefund_budget_wei), "time": time, "limits": _limits(session)}
        key = _session_key(session, name)
        if key in listed:  # older ones of the same key must go, whatever the newest says
            older = sum(one.startswith(f"{key}, older") for one in listed)
            listed[f"{key}, older ({older + 1})"] = listed[key]
        listed[key] = Setting(fields, drop=(revoke,))
    return list(listed.items())


# -- StopLoss ---------------------------------------------------------------------------------------------------------------


def _shown(value: Any, name: Callable[[Address], str]) -> str:
    if isinstance(value, bytes):
        return name(value) if len(value) == 20 else to_hex(value)
    return ", ".join(_shown(one, name) for one in value) if isinstance(value, (tuple, list)) else str(value)


def _wanted_stops(wish: Wanted) -> Listed:
    """Those of positions that are held. Without a position nothing is armed, and what is armed rests."""
    name, present = _names(wish), wish.present
    listed: Listed = []
    for rule in wish.policy.stops:
        key, armed, held = f"stop {rule.id}", present.stops.get(rule.id), wish.held_by(rule)
        if held is None:
            if armed is not None:
                listed.append((key, Setting(stop_fields(armed, lambda value: _shown(value, name)))))
            continue
        config = stop_config(
            rule, wish.policy, wish.book, entry_price=held.entry_price, is_long=held.is_long, now_s=present.time_s
        )
        stop = config.stop
        if armed is not None:
            close = abs(config.trigger_wad - _int(armed[STOP_TRIGGER])) <= TRIGGER_TOLERANCE * config.trigger_wad
            if rule.price is None and rule.start is None and close:
                stop = _with(stop, STOP_TRIGGER, armed[STOP_TRIGGER])
            ends_s = _int(armed[STOP_ENDS])
            if rule.valid_for_s and ends_s - present.time_s >= RENEW_BELOW * rule.valid_for_s:
                stop = _with(stop, STOP_ENDS, armed[STOP_ENDS])
        arm = Call(wish.at(STOP_LOSS), config.arm())
        listed.append((key, Setting(stop_fields(stop, lambda value: _shown(value, name)), make=(arm,))))
    return listed


def _found_stops(wish: Wanted) -> Listed:
    name = _names(wish)
    return [
        (
            f"stop {stop_id}",
            Setting(
                stop_fields(stop, lambda value: _shown(value, name)),
                drop=(Call(wish.book[STOP_LOSS], b.CANCEL_STOP.encode(stop_id)),),
            ),
        )
        for stop_id, stop in sorted(wish.present.stops.items())
    ]


# -- HealthGuard ------------------------------------------------------------------------------------------------------------

_HEALTH_FIELDS = (
    "venue", "collateral", "debt", "swap", "pool fee", "floor", "target", "tolerance", "most repaid", "most topped up",
    "most unwound", "slippage", "largest slippage", "widens over", "cool-down", "public after", "refund share",
    "largest refund", "expires", "oracle",
)  # fmt: skip
_ENDS = _HEALTH_FIELDS.index("expires")


def _health_fields(health: Sequence[Any], shown: Callable[[Any], str]) -> dict[str, str]:
    fields = {label: shown(value) for label, value in zip(_HEALTH_FIELDS, health, strict=True)}
    for level in ("floor", "target"):
        fields[level] = f"{Decimal(health[_HEALTH_FIELDS.index(level)]).scaleb(-18).normalize():f}"
    return fields


# -- guards that are armed by the file alone ----------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _Armed:
    """A module that keeps one configuration under each id of a section of the file."""

    module: str
    what: str
    rules: Callable[[Policy], Sequence[Any]]
    config: Callable[[Any, Policy, Mapping[str, Address], int], tuple[object, ...]]
    """Of a rule, from a time on."""
    armed: Callable[[Present], Mapping[int, tuple[object, ...]]]
    fields: Callable[[Sequence[Any], Callable[[Any], str]], dict[str, str]]
    ends: int
    """Place of the end in a configuration."""
    arm: Function

    def wanted(self, wish: Wanted) -> Listed:
        if not wish.has(MODULE_EXECUTOR, self.module):
            return []  # its installation arms them
        name, present = _names(wish), wish.present
        listed: Listed = []
        for rule in self.rules(wish.policy):
            config = self.config(rule, wish.policy, wish.book, present.time_s)
            shown, armed = config, self.armed(present).get(rule.id)
            if armed is not None and rule.valid_for_s:
                ends_s = _int(armed[self.ends])
                if ends_s - present.time_s >= RENEW_BELOW * rule.valid_for_s:
                    shown = _with(config, self.ends, ends_s)
            call = Call(wish.at(self.module), self.arm.encode(rule.id, config))
            fields = self.fields(shown, lambda value: _shown(value, name))
            listed.append((f"{self.what} {rule.id}", Setting(fields, make=(call,))))
        return listed

    def found(self, wish: Wanted) -> Listed:
        if not self.rules(wish.policy):
            return []  # the module's removal takes them along
        name, module = _names(wish), wish.book[self.module]
        return [
            (
                f"{self.what} {id_}",
                Setting(
                    self.fields(config, lambda value: _shown(value, name)),
                    drop=(Call(module, b.CANCEL_STOP.encode(id_)),),
                ),
            )
            for id_, config in sorted(self.armed(wish.present).items())
        ]


_ARMED = (
    _Armed(
        "seawall.health_guard", "health guard", lambda policy: policy.healths, health_config,
        lambda present: present.healths, _health_fields, _ENDS, b.ARM_HEALTH,
    ),
    _Armed(
        REBALANCE, "basket", lambda policy: policy.rebalances, rebalance_config,
        lambda present: present.baskets, basket_fields, ENDS, b.ARM_BASKET,
    ),
    _Armed(
        HEDGE, "hedge", lambda policy: policy.hedges, hedge_config,
        lambda present: present.hedges, hedge_fields, HEDGE_ENDS, b.ARM_HEDGE,
    ),
)  # fmt: skip


# -- PolicyHook -------------------------------------------------------------------------------------------------------------


def _hook_settings(wish: Wanted, state: HookState) -> Listed:
    """Every change waits for the delay that the hook has now, announced at the hook itself."""
    now, module = wish.present.hook, wish.book[HOOK]
    waits = now is not None and now.change_delay_s > 0
    listed: Listed = []
    for one in hook_settings(state, module, _names(wish)):
        make, drop = (() if call is None else (call,) for call in (one.make, one.drop))
        setting = Setting(one.fields, make=make, drop=drop, alone=one.alone)
        listed.append((one.key, _announced(setting, module, is_wanted=state is not now) if waits else setting))
    return listed


def _announced(setting: Setting, module: Address, *, is_wanted: bool) -> Setting:
    (call,) = setting.make if is_wanted else setting.drop or setting.make
    return replace(setting, phase=_ANNOUNCE, make=(), drop=(), announced=call.data, announced_at=module)


def _wanted_hook(wish: Wanted) -> Listed:
    if wish.policy.hook is None or not wish.has(MODULE_HOOK, HOOK):
        return []  # its installation brings everything
    return _hook_settings(wish, hook_state(wish.policy, wish.book, wish.present.account))


def _found_hook(wish: Wanted) -> Listed:
    if wish.policy.hook is None or wish.present.hook is None:
        return []  # the module's removal takes everything along
    return _hook_settings(wish, wish.present.hook)


# -- EquityBreaker ------------------------------------------------------------------------------------------------------------


def _breaker_settings(wish: Wanted, state: BreakerState) -> Listed:
    name, now = _names(wish), wish.present.breaker
    assert now is not None
    fields = breaker_fields(state, lambda value: _shown(value, name))
    configure = Call(wish.book[BREAKER], b.CONFIGURE_BREAKER.encode(state.config))
    setting = Setting(fields, make=(configure,))
    if now.change_delay_s > 0:
        setting = _announced(setting, wish.book[BREAKER], is_wanted=state is not now)
    return [("breaker", setting)]


def _reporting(wish: Wanted, breaker: Address) -> Listed:
    """Only alone: a hook that begins or ends to report in the middle of an execution would measure half of it."""
    call = Call(wish.book[HOOK], b.SET_HOOK_BREAKER.encode(breaker))
    setting = Setting({"": f"reports to {_names(wish)(breaker)}"}, make=(call,), alone=True)
    now = wish.present
    if any(now.hook_breaker) and now.hook is not None and now.hook.change_delay_s > 0:
        setting = _announced(setting, wish.book[HOOK], is_wanted=True)
    return [("hook's breaker", setting)]


def _wanted_breaker(wish: Wanted) -> Listed:
    if wish.policy.breaker is None:
        return []
    if wish.present.breaker is None:
        # Never at birth: it measures at once, by clocks and oracles that no validation may read.
        state, account = breaker_state(wish.policy, wish.book), wish.present.account
        install = Call(account, b.INSTALL_MODULE.encode(MODULE_EXECUTOR, wish.at(BREAKER), state.encode()))
        key = _module_key(MODULE_EXECUTOR, _names(wish)(wish.at(BREAKER)))
        return [(key, Setting({"": "installed"}, _INSTALL, make=(install,)))]
    listed = _breaker_settings(wish, breaker_state(wish.policy, wish.book))
    key = _module_key(MODULE_EXECUTOR, _names(wish)(wish.at(BREAKER)))
    listed.append((key, Setting({"": "installed"}, _INSTALL)))
    return listed + (_reporting(wish, wish.at(BREAKER)) if wish.has(MODULE_HOOK, HOOK) else [])


def _found_breaker(wish: Wanted) -> Listed:
    listed: Listed = []
    if wish.policy.breaker is not None and wish.present.breaker is not None:
        listed = _breaker_settings(wish, wish.present.breaker)
    if wish.policy.hook is not None and any(wish.present.hook_breaker):
        call = Call(wish.book[HOOK], b.SET_HOOK_BREAKER.encode(_ZERO))
        fields = {"": f"reports to {_names(wish)(wish.present.hook_breaker)}"}
        waits = wish.present.hook is not None and wish.present.hook.change_delay_s > 0
        dropped = Setting(fields, drop=(call,), alone=True)
        listed.append(("hook's breaker", _announced(dropped, call.target, is_wanted=False) if waits else dropped))
    return listed


# -- Recovery ---------------------------------------------------------------------------------------------------------------


def _recovery_settings(wish: Wanted, state: RecoveryState) -> Listed:
    """One setting: every change of it waits for the delay that stands now, announced at the module itself."""
    change = b.SET_RECOVERY_SETTINGS.encode(state.settings)
    fields = recovery_fields(state.settings, _names(wish), _duration)
    return [(RECOVERY_KEY, Setting(fields, _ANNOUNCE, announced=change, announced_at=wish.book[RECOVERY]))]


def _wanted_recovery(wish: Wanted) -> Listed:
    if wish.policy.recovery is None or not wish.has(MODULE_EXECUTOR, RECOVERY):
        return []  # its installation brings everything
    return _recovery_settings(wish, recovery_state(wish.policy.recovery, wish.policy, wish.book, wish.present.account))


def _found_recovery(wish: Wanted) -> Listed:
    if wish.policy.recovery is None or wish.present.recovery is None:
        return []  # the module's removal takes everything along
    return _recovery_settings(wish, wish.present.recovery)


def _int(value: object) -> int:
    assert isinstance(value, int)
    return value


def _with(stop: tuple[object, ...], place: int, value: object) -> tuple[object, ...]:
    return (*stop[:place], value, *stop[place + 1 :])


_WANTED: tuple[Callable[[Wanted], Listed], ...] = (
    _wanted_modules,
    _wanted_engines,
    _wanted_freeze,
    _wanted_sessions,
    _wanted_stops,
    *(one.wanted for one in _ARMED),
    _wanted_hook,
    _wanted_breaker,
    _wanted_recovery,
)
_FOUND: tuple[Callable[[Wanted], Listed], ...] = (
    _found_modules,
    _found_engines,
    _found_freeze,
    _found_sessions,
    _found_stops,
    *(one.found for one in _ARMED),
    _found_hook,
    _found_breaker,
    _found_recovery,
)
