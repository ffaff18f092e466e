"""`guards.hook`: what the account may call and spend, enforced on chain by PolicyHook. From the file to the module's configuration. Pure.

The `calls` of the file become the hook's allowlist: one rule for each target and function, whose alternatives are the entries that name it,
whose conditions are their pins. What an entry pins must have a word of its own in the call data, else the hook cannot hold it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import product
from typing import TYPE_CHECKING

from contracts import bindings as b
from contracts.abi import Function
from contracts.bindings import Call
from contracts.errors import BadInput
from contracts.types import Address, checksum, to_hex
from policies import functions
from policies.functions import KnownFunction
from policies.guards import bound
from policies.hook_rules import HOOK, NATIVE, token_units
from policies.names import ACCOUNT

if TYPE_CHECKING:
    from policies.policy import CallRule, Pin, Policy

MAX_ALTERNATIVES, MAX_CONDITIONS = 16, 16
UNLIMITED = 2**128 - 1
EQUAL, IN_SET, RANGE, SIGNED_RANGE, MASK, SELF, ALLOWANCE = range(7)
PAYABLE, NO_EXECUTOR = 1, 8
VALUE_WORD = 0xFFFF
ROLLING, DAY, WEEK, MONTH = range(1, 5)
"""Source: IPolicyHook, HookConfig."""
_SPANS = {"day": DAY, "week": WEEK, "month": MONTH}
_ZERO = bytes(20)
_NO_SELECTOR = bytes(4)
_OFFSET = (0x20).to_bytes(32)
Condition = tuple[int, int, tuple[bytes, ...]]
"""Kind, word, values: IPolicyHook.Condition."""
Key = tuple[Address, bytes]
"""Target (zero: the account) and selector, or token and spender."""


# -- what the hook is configured with ------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class HookState:
    """A hook's configuration for one account, wanted or found. Rules: flags and alternatives; caps and windows as IPolicyHook has them."""

    authority: Address
    change_delay_s: int
    enforces: bool
    rules: Mapping[Key, tuple[int, tuple[tuple[Condition, ...], ...]]] = field(default_factory=dict)
    windows: tuple[tuple[Address, int, int, int, int], ...] = ()
    caps: Mapping[Key, int] = field(default_factory=dict)
    allowances: frozenset[bytes] = frozenset()
    """Ids of refillable allowances, which no policy file sets."""
    announced: Mapping[bytes, int] = field(default_factory=dict)
    """Changes under way, and when they may be carried out."""

    def encode(self) -> bytes:
        """onInstall data of PolicyHook."""
        rules = [_abi_rule(key, rule) for key, rule in self.rules.items()]
        return b.encode_hook(self._settings(), rules, self.windows, [(*key, cap) for key, cap in self.caps.items()])

    def _settings(self) -> tuple[object, ...]:
        return self.authority, self.change_delay_s, self.enforces


def _abi_rule(key: Key, rule: tuple[int, tuple[tuple[Condition, ...], ...]]) -> tuple[object, ...]:
    flags, any_of = rule
    return (*key, flags, [[(kind, word, list(values)) for kind, word, values in one] for one in any_of])


def hook_state(policy: Policy, book: Mapping[str, Address], account: Address) -> HookState:
    """What the policy wants of the hook. `account`: zero where it is not known yet, which decides nothing.

    Raises BadInput: no `guards.hook`, a name without address, a pin that no word of the call data holds.
    """
    rule = policy.hook
    if rule is None:
        raise BadInput(f"policy {policy.name} has no guards.hook section")

    def token(name: str) -> Address:
        return _ZERO if name == NATIVE else bound(name, policy, book, account)

    return HookState(
        authority=_ZERO if policy.freeze is None else bound("seawall.emergency_freeze", policy, book),
        change_delay_s=rule.change_delay_s,
        enforces=rule.enforce_calls,
        rules=_allowlist(policy, book, account) if rule.enforce_calls else {},
        windows=tuple(
            (
                token(one.token),
                _SPANS.get(one.per, ROLLING),
                one.within_s,
                one.offset_minutes,
                token_units(one.limit, one.token, one.decimals),
            )
            for one in rule.spending
        ),
        caps={
            (token(one.token), bound(one.spender, policy, book, account)): (
                UNLIMITED if one.cap is None else token_units(one.cap, one.token, one.decimals)
            )
            for one in rule.approvals
        },
    )


def _allowlist(
    policy: Policy, book: Mapping[str, Address], account: Address
) -> dict[Key, tuple[int, tuple[tuple[Condition, ...], ...]]]:
    found: dict[Key, list[tuple[int, tuple[Condition, ...]]]] = {}
    for allowed in policy.calls:
        if allowed.target == HOOK:
            continue  # the account may always call its hook, whose changes have a delay of their own
        # the account goes by zero, also before its birth, when nobody knows its address
        target = _ZERO if allowed.target == ACCOUNT else bound(allowed.target, policy, book, account)
        if target == account:
            target = _ZERO
        for selector in allowed.selectors or (_NO_SELECTOR,):
            for conditions in _alternatives(allowed, selector, policy, book, account):
                found.setdefault((target, selector), []).append((allowed.max_value_wei, conditions))
    # The freeze tells the hook which modules are guards; the others, and all of them without a freeze, are listed here.
    known = () if policy.freeze is None else policy.guards
    for name in policy.triggers:
        for function in () if name in known else (b.GUARD_EXECUTE, b.GUARD_TOUCH):
            own: list[tuple[int, tuple[Condition, ...]]] = [(0, ((SELF, 0, ()),))]
            found.setdefault((bound(name, policy, book), function.selector), []).extend(own)
    return {key: _rule(key, alternatives) for key, alternatives in sorted(found.items())}


def _rule(
    key: Key, alternatives: Sequence[tuple[int, tuple[Condition, ...]]]
) -> tuple[int, tuple[tuple[Condition, ...], ...]]:
    """Flags and alternatives; where native value may go with some of them, each says how much."""
    pays = any(most for most, _ in alternatives)
    listed: list[tuple[Condition, ...]] = []
    for most, conditions in alternatives:
        bounded = (RANGE, VALUE_WORD, (bytes(32), most.to_bytes(32)))
        one = (*conditions, bounded) if pays else conditions
        if len(one) > MAX_CONDITIONS:
            raise BadInput(f"a call of {checksum(key[0])} has {len(one)} conditions, the hook takes {MAX_CONDITIONS}")
        if one not in listed:
            listed.append(one)
    if () in listed:
        listed = []
    if len(listed) > MAX_ALTERNATIVES:
        raise BadInput(
            f"{to_hex(key[1])} of {checksum(key[0])} is allowed in {len(listed)} ways, the hook takes {MAX_ALTERNATIVES}: "
            "name more values in one entry of calls"
        )
    return NO_EXECUTOR | (PAYABLE if pays else 0), tuple(listed)


def _alternatives(
    allowed: CallRule, selector: bytes, policy: Policy, book: Mapping[str, Address], account: Address
) -> list[tuple[Condition, ...]]:
    """Conditions of one function of an entry; several where a pin is the account or one of others."""
    known = functions.BY_SELECTOR.get(selector)
    choices: list[list[tuple[Condition, ...]]] = []
    for pin in allowed.pins:
        place = None if known is None else word_of_argument(known, pin.argument)
        if place is None:
            name = to_hex(selector) if known is None else known.function.name
            raise BadInput(
                f"policy {policy.name}: the hook cannot hold {allowed.target}.{name} to its argument {pin.argument}, which has no word "
                "of its own in the call data: drop the pin, or set guards.hook.enforce_calls: false"
            )
        word, kind, is_offset = place
        head: tuple[Condition, ...] = ((EQUAL, 0, (_OFFSET,)),) if is_offset else ()
        choices.append([(*head, condition) for condition in _pinned(pin, word, kind, policy, book, account)])
    return [tuple(dict.fromkeys(c for group in chosen for c in group)) for chosen in product(*choices)]


def word_of_argument(known: KnownFunction, argument: str) -> tuple[int, str, bool] | None:
    """The word of `argument` in the call data, its type, and whether it lies behind the offset of a struct, which must then be pinned too.

    None for an argument that is no single word.
    """
    if argument not in known.arguments:
        return None
    index = known.arguments.index(argument)
    kind = known.types[index]
    if _words(kind) != 1 or _is_dynamic(kind):
        return None
    behind = known.spread and any(map(_is_dynamic, known.types))
    return sum(map(_words, known.types[:index])) + behind, kind, behind


def _is_dynamic(kind: str) -> bool:
    if kind.endswith("[]") or kind in ("bytes", "string"):
        return True
    if kind.endswith("]"):
        return _is_dynamic(kind[: kind.rindex("[")])
    return kind.startswith("(") and any(map(_is_dynamic, _members(kind)))


def _words(kind: str) -> int:
    """Words of a type in the head of its call data."""
    if _is_dynamic(kind):
        return 1
    if kind.endswith("]"):
        at = kind.rindex("[")
        return int(kind[at + 1 : -1]) * _words(kind[:at])
    return sum(map(_words, _members(kind))) if kind.startswith("(") else 1


def _members(kind: str) -> tuple[str, ...]:
    return Function.parse(f"_{kind}").inputs


def _pinned(
    pin: Pin, word: int, kind: str, policy: Policy, book: Mapping[str, Address], account: Address
) -> list[Condition]:
    if pin.values:
        own = [value for value in pin.values if value == ACCOUNT]
        others = [value for value in pin.values if value != ACCOUNT]
        found: list[Condition] = [(SELF, word, ())] if own else []
        if others:
            values = tuple(dict.fromkeys(_word(value, kind, policy, book, account) for value in others))
            found.append((EQUAL if len(values) == 1 else IN_SET, word, values))
        return found
    signed = kind.startswith("int")
    bits = int(kind.lstrip("uint") or 256) if kind.startswith(("uint", "int")) else 256
    low = pin.minimum if pin.minimum is not None else (-(2 ** (bits - 1)) if signed else 0)
    high = pin.maximum if pin.maximum is not None else (2 ** (bits - 1) - 1 if signed else 2**bits - 1)
    return [(SIGNED_RANGE if signed else RANGE, word, (_integer(low), _integer(high)))]


def _word(value: str, kind: str, policy: Policy, book: Mapping[str, Address], account: Address) -> bytes:
    if kind == "bool":
        return _integer(int(value == "true"))
    if value.lstrip("-").isdigit():
        return _integer(int(value))
    if kind.startswith("bytes") and value.startswith("0x"):
        return bytes.fromhex(value[2:]).ljust(32, b"\0")
    return bytes(12) + bound(value, policy, book, account)


def _integer(value: int) -> bytes:
    return (value % 2**256).to_bytes(32)


# -- the difference ------------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class HookSetting:
    """One thing that the hook keeps. `make` brings it about, `drop` takes it away; `alone`: only in an execution of nothing but the hook."""

    key: str
    fields: Mapping[str, str]
    make: Call | None = None
    drop: Call | None = None
    alone: bool = False


def hook_settings(state: HookState, module: Address, name: Callable[[Address], str]) -> list[HookSetting]:
    """A hook's configuration as settings under stable keys, wanted and found alike. `name`: addresses for people."""

    def call(function: Function, *arguments: object) -> Call:
        return Call(module, function.encode(*arguments))

    def target(address: Address) -> str:
        return "account" if address == _ZERO else name(address)

    settings = {
        "authority": "nobody" if state.authority == _ZERO else name(state.authority),
        "change delay": f"{state.change_delay_s} s",
        "only listed calls": "yes" if state.enforces else "no",
    }
    made = call(b.SET_HOOK_SETTINGS, (state.authority, state.change_delay_s, state.enforces))
    found = [HookSetting("hook", settings, made)]
    for key, rule in state.rules.items():
        fields = {"flags": _flags(rule[0]), "if": _conditions(rule[1])}
        on, off = (call(b.SET_HOOK_RULE, _abi_rule(key, one), kept) for one, kept in ((rule, True), ((0, ()), False)))
        found.append(HookSetting(f"hook allows {target(key[0])} {_function(key[1])}", fields, on, off))
    windows = {str(i + 1): _window(one, name) for i, one in enumerate(state.windows)}
    if windows:
        every, none = call(b.SET_HOOK_WINDOWS, list(state.windows)), call(b.SET_HOOK_WINDOWS, [])
        found.append(HookSetting("hook spending", windows, every, none, alone=True))
    for (token, spender), cap in state.caps.items():
        shown = "any" if cap == UNLIMITED else f"{cap} units"
        on, off = (call(b.SET_HOOK_APPROVAL, (token, spender, most)) for most in (cap, 0))
        found.append(HookSetting(f"hook allowance of {name(spender)} over {name(token)}", {"": shown}, on, off))
    for id_ in sorted(state.allowances):
        gone = call(b.SET_HOOK_ALLOWANCE, (id_, 0, 0, 0, 0, 0))
        found.append(HookSetting(f"hook refillable allowance {to_hex(id_)}", {"": "refills"}, None, gone))
    return found


def _function(selector: bytes) -> str:
    known = functions.BY_SELECTOR.get(selector)
    if selector == _NO_SELECTOR:
        return "(plain value)"
    return f"{known.function.name} {to_hex(selector)}" if known is not None else to_hex(selector)


def _flags(flags: int) -> str:
    names = ((1, "payable"), (2, "reducing"), (4, "exit first"), (8, "not by executors"))
    return ", ".join(text for bit, text in names if flags & bit) or "none"


def _conditions(any_of: Sequence[Sequence[Condition]]) -> str:
    return " or ".join(" and ".join(map(_condition, one)) for one in any_of) or "always"


def _condition(condition: Condition) -> str:
    kind, word, values = condition
    what = "value" if word == VALUE_WORD else f"word {word}"
    shown = [
        str(int.from_bytes(v)) if not any(v[:16]) and not any(v[16:20]) else to_hex(v.lstrip(b"\0")) for v in values
    ]
    if kind == SELF:
        return f"{what} is the account"
    if kind in (EQUAL, IN_SET):
        return f"{what} is {' or '.join(shown)}"
    if kind in (RANGE, SIGNED_RANGE):
        return f"{what} in {shown[0]}..{shown[1]}"
    return f"{what} {'masked' if kind == MASK else 'from allowance'} {', '.join(shown)}"


def _window(window: tuple[Address, int, int, int, int], name: Callable[[Address], str]) -> str:
    asset, span, duration_s, offset, limit = window
    within = (
        f"in any {duration_s} s" if span == ROLLING else f"a {next(text for text, n in _SPANS.items() if n == span)}"
    )
    at = f" (UTC{offset:+d} min)" if offset else ""
    return f"{limit} units of {NATIVE if asset == _ZERO else name(asset)} {within}{at}"
