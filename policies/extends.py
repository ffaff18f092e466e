"""Inheritance: a file that extends another may add and tighten. To loosen something, the parent must name it under `may_loosen`.

What has no order (a guardian, an oracle, a slippage) may not change at all unless the parent names it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from decimal import Decimal
from typing import Any

from policies.limits import BOUNDS, During, step_action
from policies.names import ROLES
from policies.policy import CallRule, ExitRule, Pin, call_rule, exit_rule
from policies.problems import Problem
from policies.structure import Places

_ACTIONS = ("warn", "require_signers", "deny")
Tree = Mapping[str, Any]
Tighter = Callable[[str, str], bool]


def _lower(mine: str, inherited: str) -> bool:
    return Decimal(mine) <= Decimal(inherited)


def _higher(mine: str, inherited: str) -> bool:
    return Decimal(mine) >= Decimal(inherited)


def _stricter(mine: str, inherited: str) -> bool:
    return _ACTIONS.index(mine) >= _ACTIONS.index(inherited)


_FACTS: Mapping[str, Tighter] = {
    "max_price_age": _lower,
    "max_block_age": _lower,
    "max_price_deviation": _lower,
    "max_depeg": _lower,
    "max_returns_age": _lower,
}
_LIMIT: Mapping[str, Tighter] = {
    "max": _lower,
    "min": _higher,
    "max_change": _lower,
    "min_change": _higher,
    "confidence": _higher,
    "action": _stricter,
    "warn_at": _lower,
    "hysteresis": _higher,
    "description": lambda *_: True,
}
_STOP: Mapping[str, Tighter] = {
    "drop": _lower, "trail": _lower, "trail_distance": _lower, "size": _higher, "amount": _higher,
}  # fmt: skip
_HEALTH: Mapping[str, Tighter] = {"floor": _higher, "target": _higher}
_REBALANCE: Mapping[str, Tighter] = {"slippage": _lower, "max_turnover": _lower}
_HEDGE: Mapping[str, Tighter] = {
    "slippage": _lower,
    "max_trade": _lower,
    "max_position": _lower,
    "max_turnover": _lower,
}
_BREAKER: Mapping[str, Tighter] = {
    "loss_per_operation": _lower,
    "loss_per_day": _lower,
    "drawdown": _lower,
    "change_delay": _higher,
}
_HOOK: Mapping[str, Tighter] = {"change_delay": _higher, "enforce_calls": lambda mine, inherited: mine >= inherited}
_HOOK_DEFAULTS: Mapping[str, Any] = {"change_delay": "86400", "enforce_calls": True}
_ATTESTATION: Mapping[str, Tighter] = {"validity": _lower, "threshold": _higher, "escape_delay": _higher}
_BUDGET: Mapping[str, Tighter] = {"per_operation": _lower, "per_day": _lower}
DEFAULTS: Mapping[str, str] = {
    "action": "deny",
    "warn_at": "0.8",
    "hysteresis": "0",
    "confidence": "0.99",
    "size": "1",
    "max_price_age": "300",
    "max_block_age": "120",
    "max_price_deviation": "0.03",
    "max_depeg": "0.02",
    "max_returns_age": "172800",
    "validity": "600",
    "threshold": "1",
    "escape_delay": "172800",
}
"""What an absent key means (policies.policy), for comparing with it."""


_APPLIES = ("during", "when", "escalate")
"""Keys of a limit that are no single figure."""


def _applies_tighter(key: str, inherited: Tree, mine: Tree) -> bool:
    """Whether `mine` binds, and asks, wherever and as much as `inherited` does."""
    if key == "during":
        return "during" in inherited and During.parse(mine["during"]).covers(During.parse(inherited["during"]))
    if key == "when":
        return False
    outwards = 1 if any(name.startswith("max") for name in (*inherited, *mine) if name in BOUNDS) else -1
    before, now = inherited.get("escalate", ()), mine["escalate"]
    quorums = _quorums(now)
    return quorums == _quorums(before)[: len(quorums)] and all(
        any(_asks(step, outer, outwards) for step in now) for outer in before
    )


def _quorums(steps: Any) -> list[Any]:
    """Whom the steps ask, in order. Another quorum is not comparable, so a file that extends may only bring denial forward."""
    return [step.get("approval") for step in steps if step_action(step) == "require_signers"]


def _asks(step: Tree, outer: Tree, outwards: int) -> bool:
    """Whether `step` asks at least what `outer` does, from where `outer` does or nearer."""
    if "beyond" not in step or (Decimal(step["beyond"]) - Decimal(outer["beyond"])) * outwards > 0:
        return False
    mine, theirs = step_action(step).value, step_action(outer).value
    return _stricter(mine, theirs) and (mine != theirs or step.get("approval") == outer.get("approval"))


def looser_keys(inherited: Tree, mine: Tree) -> list[str]:
    """Keys of a limit with which `mine` is looser than, or not comparable with, the limit that it starts from."""
    found = []
    for key, value in mine.items():
        base = inherited.get(key, DEFAULTS.get(key) if key in _LIMIT else None)
        if key == "id" or base == value:
            continue
        if key in _APPLIES:
            if not _applies_tighter(key, inherited, mine):
                found.append(key)
        elif key in BOUNDS and base is None:
            found.append(key)  # a bound of another kind
        elif base is None and key in _LIMIT:
            continue
        elif base is None or key not in _LIMIT or not _LIMIT[key](value, base):
            found.append(key)
    return found


class _Merge:
    def __init__(self, parent: Tree, places: Places, problems: list[Problem]) -> None:
        self.allowed = frozenset(parent.get("may_loosen", ()))
        self.places = places
        self.problems = problems

    def loosens(self, path: str, message: str) -> None:
        """Report unless the parent lets `path`, or something around it, be loosened."""
        parts = path.replace("[", ".[").split(".")
        if any(".".join(parts[:n]) in self.allowed for n in range(1, len(parts) + 1)):
            return
        spot = next((self.places[".".join(parts[:n])] for n in range(len(parts), 0, -1)
                     if ".".join(parts[:n]) in self.places), None)  # fmt: skip
        line, column, source = (spot.line, spot.column, spot.source) if spot else (1, 1, "")
        advice = f"tighten it, or have the parent name {path} under may_loosen"
        self.problems.append(Problem(line, column, path, message, advice, source=source))

    def fields(self, parent: Tree, child: Tree, path: str, ordered: Mapping[str, Tighter]) -> dict[str, Any]:
        """Child's keys over the parent's, each tighter by `ordered` or else equal."""
        merged: dict[str, Any] = {**parent, **child}
        for key, mine in child.items():
            if ordered is _LIMIT and key in _APPLIES:
                if parent.get(key) != mine and not _applies_tighter(key, parent, child):
                    self.loosens(f"{path}.{key}", "binds or asks less than the inherited limit")
                continue
            inherited = parent.get(key, DEFAULTS.get(key) if key in ordered else None)
            if inherited == mine or (inherited is None and key in ordered):
                continue
            if isinstance(inherited, Mapping) and isinstance(mine, Mapping):
                merged[key] = self.fields(inherited, mine, f"{path}.{key}", {})
            elif inherited is None or key not in ordered:
                self.loosens(f"{path}.{key}", f"changes the inherited {_shown(inherited)} to {_shown(mine)}")
            elif not ordered[key](mine, inherited):
                self.loosens(f"{path}.{key}", f"{_shown(mine)} is looser than the inherited {_shown(inherited)}")
        return merged

    def by_id(
        self, parent: Tree, child: Tree, section: str, path: str, ordered: Mapping[str, Tighter]
    ) -> list[dict[str, Any]]:
        """Lists of entries with ids: the parent's in order, tightened by the child's of the same id, then the child's own."""
        inherited = {entry.get("id"): entry for entry in parent.get(section, ())}
        mine = {entry.get("id"): entry for entry in child.get(section, ())}
        found = []
        for key, entry in inherited.items():
            found.append(self.fields(entry, mine[key], f"{path}.{key}", ordered) if key in mine else dict(entry))
        return found + [entry for entry in child.get(section, ()) if entry.get("id") not in inherited]

    def overrides(self, parent: Tree, child: Tree) -> list[dict[str, Any]]:
        """Inherited overrides stay as they are, their limits tightened by the child's of the same ids; new ones are checked later."""
        mine = {entry.get("id"): entry for entry in child.get("overrides", ())}
        inherited = {entry.get("id"): entry for entry in parent.get("overrides", ())}
        found = []
        for key, entry in inherited.items():
            own, path = mine.get(key, {}), f"overrides.{key}"
            merged = self.fields(
                entry, {k: v for k, v in own.items() if k != "limits"}, path, {"description": _LIMIT["description"]}
            )
            merged["limits"] = self.by_id(entry, own, "limits", f"{path}.limits", _LIMIT)
            found.append(merged)
        return found + [entry for entry in child.get("overrides", ()) if entry.get("id") not in inherited]

    def covered(self, parent: Tree, child: Tree, section: str) -> list[Any]:
        """`calls` and `exits`: the child's list, each entry inside one of the parent's; the parent's when the child has none."""
        if section not in child:
            return list(parent.get(section, ()))
        for i, entry in enumerate(child[section]):
            try:
                if section == "calls":
                    inside = any(_call_inside(call_rule(entry), call_rule(outer)) for outer in parent.get(section, ()))
                else:
                    inside = any(_exit_inside(exit_rule(entry), exit_rule(outer)) for outer in parent.get(section, ()))
            except (KeyError, ValueError):
                continue  # malformed: reported by the semantic checks
            if not inside:
                self.loosens(f"{section}[{i}]", "allows what the parent does not")
        return list(child[section])

    def subset(self, parent: Tree, child: Tree, section: str) -> list[Any]:
        """Accounts and chains: fewer than the parent's."""
        if section not in child:
            return list(parent[section])
        if section in parent and not set(child[section]) <= set(parent[section]):
            self.loosens(section, f"names {section} that the parent does not")
        return list(child[section])


def _shown(value: Any) -> str:
    return "nothing" if value is None else repr(value) if isinstance(value, str) else "value"


def _pin_inside(inner: Pin, outer: Pin) -> bool:
    if outer.values:
        return bool(inner.values) and set(inner.values) <= set(outer.values)
    if inner.values:
        return all(v.isdigit() and _in_range(int(v), outer) for v in inner.values)
    low = outer.minimum is None or (inner.minimum is not None and inner.minimum >= outer.minimum)
    return low and (outer.maximum is None or (inner.maximum is not None and inner.maximum <= outer.maximum))


def _in_range(value: int, pin: Pin) -> bool:
    return (pin.minimum is None or value >= pin.minimum) and (pin.maximum is None or value <= pin.maximum)


def _call_inside(inner: CallRule, outer: CallRule) -> bool:
    mine = {pin.argument: pin for pin in inner.pins}
    return (
        inner.target == outer.target
        and set(inner.selectors) <= set(outer.selectors)
        and inner.max_value_wei <= outer.max_value_wei
        and all(pin.argument in mine and _pin_inside(mine[pin.argument], pin) for pin in outer.pins)
    )


def _exit_inside(inner: ExitRule, outer: ExitRule) -> bool:
    return (
        (inner.target, inner.selector, inner.plain_value) == (outer.target, outer.selector, outer.plain_value)
        and inner.in_frozen <= outer.in_frozen
        and set(outer.words) <= set(inner.words)
    )


def merge(parent: Tree, child: Tree, places: Places, problems: list[Problem]) -> dict[str, Any]:
    """The child's document with everything it inherits; every loosening that the parent does not allow is a problem."""
    m = _Merge(parent, places, problems)
    found: dict[str, Any] = {**parent, **child}
    for section, ordered in (("facts", _FACTS), ("attestation", _ATTESTATION), ("sponsorship", _BUDGET)):
        if section in parent or section in child:
            found[section] = m.fields(parent.get(section, {}), child.get(section, {}), section, ordered)
    for section, ordered in (("limits", _LIMIT), ("stress", {"action": _stricter}), ("approvals", {})):
        if section in parent or section in child:
            found[section] = m.by_id(parent, child, section, section, ordered)
    if "overrides" in parent or "overrides" in child:
        found["overrides"] = m.overrides(parent, child)
    for section in ("calls", "exits"):
        if section in parent or section in child:
            found[section] = m.covered(parent, child, section)
    for section in ("accounts", "chains"):
        if section in parent or section in child:
            found[section] = m.subset(parent, child, section)
    _guards(m, parent.get("guards", {}), child.get("guards", {}), found)
    _addresses(m, parent.get("addresses", {}), child.get("addresses", {}), found)
    if not set(child.get("may_loosen", ())) <= m.allowed:
        m.loosens("may_loosen", "lets others loosen what this file itself may not")
    found.pop("may_loosen", None)
    if "may_loosen" in child:
        found["may_loosen"] = child["may_loosen"]
    return found


def _guards(m: _Merge, parent: Tree, child: Tree, found: dict[str, Any]) -> None:
    if not parent and not child:
        return
    merged: dict[str, Any] = {**parent, **child}
    if "stop_loss" in merged:
        merged["stop_loss"] = m.by_id(parent, child, "stop_loss", "guards.stop_loss", _STOP)
    if "health" in merged:
        merged["health"] = m.by_id(parent, child, "health", "guards.health", _HEALTH)
    if "rebalance" in merged:
        merged["rebalance"] = m.by_id(parent, child, "rebalance", "guards.rebalance", _REBALANCE)
    if "delta_hedge" in merged:
        merged["delta_hedge"] = m.by_id(parent, child, "delta_hedge", "guards.delta_hedge", _HEDGE)
    for section in ("freeze", "recovery", "session"):
        if section in parent and section in child:
            merged[section] = m.fields(parent[section], child[section], f"guards.{section}", {})
    if "breaker" in parent and "breaker" in child:
        merged["breaker"] = m.fields(parent["breaker"], child["breaker"], "guards.breaker", _BREAKER)
    if "hook" in parent and "hook" in child:
        m.fields({**_HOOK_DEFAULTS, **parent["hook"]}, child["hook"], "guards.hook", _HOOK)
        merged["hook"] = {**parent["hook"], **child["hook"]}
    found["guards"] = merged


def _addresses(m: _Merge, parent: Tree, child: Tree, found: dict[str, Any]) -> None:
    for name, address in child.items():
        if name in parent and parent[name] != address:
            m.loosens(f"addresses.{name}", "changes an inherited address")
        elif name not in parent and name in ROLES:
            m.loosens(f"addresses.{name}", f"binds the role {name}, which the parent leaves to the deployment")
    if parent or child:
        found["addresses"] = {**parent, **child}
