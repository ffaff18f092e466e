"""What a change of file changes, in words: which limits, calls, exits, guards and quorums came, went, and in which direction.

The direction is the one that inheritance knows (`policies.extends`): tighter means that the new file might extend the old one with this
change; looser that the old one might extend the new; what neither may is another thing. The order of findings is canonical: by section,
then as the old file has them, then what is new.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal
from typing import Any, Literal

from policies.extends import DEFAULTS, merge
from policies.metrics import METRICS
from policies.policy import Policy
from policies.problems import Problem

Direction = Literal["tighter", "looser", "other"]
Kind = Literal["added", "removed", "changed"]
Tree = Mapping[str, Any]
_SECTIONS = (
    "name", "version", "description", "accounts", "chains", "addresses", "facts", "limits", "overrides", "stress", "calls", "exits",
    "guards", "approvals", "attestation", "sponsorship", "may_loosen",
)  # fmt: skip
_BINDS_MORE_WITHOUT = frozenset(("during", "when", "description", "accounts", "chains", "signers", "may_loosen"))
"""Keys whose absence means that more is bound, not less."""
_BY_ID = ("limits", "stress", "approvals")
_TRIGGERS = ("stop_loss", "health", "rebalance", "delta_hedge")
"""Lists of `guards` by id."""
_DURATIONS = frozenset(
    (
        "max_price_age", "max_block_age", "max_returns_age", "window", "horizon", "time", "validity", "escape_delay", "widen", "cooldown",
        "public_delay", "valid_for", "heartbeat", "grace_period", "deviation_patience", "solo_freeze", "thaw_delay",
        "change_delay", "within", "turnover_within", "patience", "delay", "silence",
    )
)  # fmt: skip
_SHARES = frozenset(
    (
        "max_price_deviation", "max_depeg", "warn_at", "hysteresis", "confidence", "drop", "gain", "pool_fee", "slippage", "max_slippage",
        "max_deviation", "refund_share", "weight", "band", "cash_band", "loss_per_operation", "loss_per_day", "drawdown",
    )
)  # fmt: skip
_BOUNDS = frozenset(("max", "min", "max_change", "min_change", "beyond"))


@dataclass(frozen=True, slots=True)
class Difference:
    """One change. `path` is dotted (`limits.leverage.max`); `before` and `after` are as people write them, empty where there is nothing."""

    path: str
    kind: Kind
    direction: Direction
    before: str
    after: str

    def __str__(self) -> str:
        changed = f"{self.before or 'nothing'} -> {self.after or 'nothing'}"
        text = changed if self.kind == "changed" else self.after or self.before
        return f"{self.kind} {self.path}: {text}" + ("" if self.direction == "other" else f" ({self.direction})")


def differences(old: Policy, new: Policy) -> list[Difference]:
    """Everything that `new` says otherwise than `old`, after inheritance and variables; empty when they have one policy id."""
    before, after = old.document, new.document
    found: list[Difference] = []
    for section in _SECTIONS:
        if before.get(section) != after.get(section):
            found += _section(section, before, after)
    return found


def _section(section: str, before: Tree, after: Tree) -> Iterator[Difference]:
    was, now = before.get(section), after.get(section)
    if section in _BY_ID:
        yield from _entries(section, was or (), now or (), lambda entry: {section: [entry]})
    elif section == "overrides":
        yield from _overrides(was or (), now or ())
    elif section in ("calls", "exits"):
        yield from _covers(section, was or (), now or ())
    elif section in ("facts", "attestation", "sponsorship", "addresses"):
        yield from _keys(section, was or {}, now or {}, lambda tree: {section: tree})
    elif section == "guards":
        yield from _guards(was or {}, now or {})
    else:
        names = section in ("accounts", "chains", "may_loosen")
        direction = _direction(_with(section, was), _with(section, now)) if names else "other"
        kind: Kind = "added" if was is None else "removed" if now is None else "changed"
        yield Difference(section, kind, direction, _text(section, was), _text(section, now))


def _with(section: str, value: Any) -> dict[str, Any]:
    return {} if value is None else {section: value}


# -- direction ----------------------------------------------------------------------------------------------------------------------


def _direction(was: Tree, now: Tree) -> Direction:
    """Of a change from fragment to fragment of a document."""
    tighter, looser = _extends(now, was), _extends(was, now)
    if tighter == looser:  # neither, or the same in other words
        return "other"
    return "tighter" if tighter else "looser"


def _extends(child: Tree, parent: Tree) -> bool:
    """Whether `child` might extend `parent` as it is: it loosens nothing, and leaves out nothing that binds."""
    problems: list[Problem] = []
    merge(parent, child, {}, problems)
    return not problems and _keeps(child, parent)


def _keeps(child: Any, parent: Any) -> bool:
    """Whether everything that `parent` says is said by `child` too, in some form."""
    if isinstance(parent, Mapping) and isinstance(child, Mapping):
        return all(_keeps(child[key], parent[key]) if key in child else key in _BINDS_MORE_WITHOUT for key in parent)
    if (
        isinstance(parent, list)
        and isinstance(child, list)
        and all(isinstance(p, Mapping) and "id" in p for p in parent)
    ):
        named = {entry["id"]: entry for entry in child}
        return all(entry["id"] in named and _keeps(named[entry["id"]], entry) for entry in parent)
    return True


# -- sections -----------------------------------------------------------------------------------------------------------------------


def _entries(path: str, was: Sequence[Tree], now: Sequence[Tree], wrap: Any) -> Iterator[Difference]:
    """Lists of entries with ids."""
    old, new = ({str(entry["id"]): entry for entry in entries} for entries in (was, now))
    for identity, entry in old.items():
        place = f"{path}.{identity}"
        if identity not in new:
            yield Difference(place, "removed", "other" if path == "approvals" else "looser", _entry_text(entry), "")
        elif entry != new[identity]:
            yield from _keys(place, entry, new[identity], wrap)
    for identity, entry in new.items():
        if identity not in old:
            direction: Direction = "other" if path == "approvals" else "tighter"
            yield Difference(f"{path}.{identity}", "added", direction, "", _entry_text(entry))


def _keys(path: str, was: Tree, now: Tree, wrap: Any) -> Iterator[Difference]:
    """One mapping: each key that changed, with the direction of that change alone."""
    metric = METRICS.get(str(now.get("metric", was.get("metric", ""))))
    unit = metric.unit if metric is not None else ""
    for key in [*was, *(key for key in now if key not in was)]:
        if was.get(key) == now.get(key):
            continue
        direction: Direction = "other"
        if (
            path.startswith("approvals.") and key == "quorum"
        ):  # inheritance may not touch it; more signatures ask more all the same
            direction = "tighter" if int(now[key]) > int(was[key]) else "looser"
        elif key not in ("description", "metric", "scope"):
            default = {key: DEFAULTS[key]} if key in DEFAULTS else {}
            alone = {k: v for k, v in was.items() if k != key} | default | ({key: now[key]} if key in now else {})
            direction = _direction(wrap({**default, **was}), wrap(alone))
        kind: Kind = "added" if key not in was else "removed" if key not in now else "changed"
        yield Difference(
            f"{path}.{key}", kind, direction, _text(key, was.get(key), unit), _text(key, now.get(key), unit)
        )


def _overrides(was: Sequence[Tree], now: Sequence[Tree]) -> Iterator[Difference]:
    """An override may tighten or loosen; whose limits it changes is said, the direction is not."""
    old, new = ({str(entry["id"]): entry for entry in entries} for entries in (was, now))
    for identity in [*old, *(identity for identity in new if identity not in old)]:
        place, before, after = f"overrides.{identity}", old.get(identity), new.get(identity)
        if before == after:
            continue
        if before is None or after is None:
            kind: Kind = "added" if before is None else "removed"
            yield Difference(place, kind, "other", _text("", before), _text("", after))
            continue
        for key in ("accounts", "chains", "signers", "description"):
            if before.get(key) != after.get(key):
                yield Difference(
                    f"{place}.{key}", "changed", "other", _text(key, before.get(key)), _text(key, after.get(key))
                )
        yield from _entries(
            f"{place}.limits", before.get("limits", ()), after.get("limits", ()), lambda entry: {"limits": [entry]}
        )


def _covers(section: str, was: Sequence[Tree], now: Sequence[Tree]) -> Iterator[Difference]:
    """`calls` and `exits` have no ids: what is the same is left out, what is about the same target and functions is a change."""
    gone = [entry for entry in was if entry not in now]
    come = [entry for entry in now if entry not in was]
    for entry in gone:
        pair = next((other for other in come if _about(other) == _about(entry)), None)
        if pair is None:
            pair = next((other for other in come if other.get("target") == entry.get("target")), None)
        if pair is None:
            yield Difference(f"{section}[{was.index(entry)}]", "removed", "tighter", _text("", entry), "")
            continue
        come.remove(pair)
        direction = _direction({section: [entry]}, {section: [pair]})
        yield Difference(f"{section}[{was.index(entry)}]", "changed", direction, _text("", entry), _text("", pair))
    for entry in come:
        yield Difference(f"{section}[{now.index(entry)}]", "added", "looser", "", _text("", entry))


def _about(entry: Tree) -> tuple[Any, Any]:
    return entry.get("target"), entry.get("functions", entry.get("function"))


def _guards(was: Tree, now: Tree) -> Iterator[Difference]:
    for listed in _TRIGGERS:
        yield from _entries(
            f"guards.{listed}",
            was.get(listed, ()),
            now.get(listed, ()),
            lambda entry, name=listed: {"guards": {name: [entry]}},
        )
    for section in dict.fromkeys([*was, *now]):
        if section in _TRIGGERS or was.get(section) == now.get(section):
            continue
        path, before, after = f"guards.{section}", was.get(section), now.get(section)
        if before is None or after is None:
            kind: Kind = "added" if before is None else "removed"
            # a freeze binds; a session only lets the keeper act
            ways: tuple[Direction, Direction] = ("tighter", "looser") if section != "session" else ("other", "other")
            yield Difference(path, kind, ways[kind == "removed"], _text("", before), _text("", after))
        elif isinstance(before, Mapping) and isinstance(after, Mapping):
            yield from _keys(path, before, after, lambda tree, name=section: {"guards": {name: tree}})
        else:
            yield Difference(path, "changed", "other", _text("", before), _text("", after))


# -- words --------------------------------------------------------------------------------------------------------------------------


def _entry_text(entry: Tree) -> str:
    """An entry with an id, without it."""
    metric = METRICS.get(str(entry.get("metric", "")))
    return _text("", {k: v for k, v in entry.items() if k != "id"}, metric.unit if metric is not None else "")


def _text(key: str, value: Any, unit: str = "") -> str:
    """A canonical value as people write it."""
    if value is None:
        return ""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, Mapping):
        if key in ("shock", "vol"):
            return "{" + ", ".join(f"{name}: {_share(item)}" for name, item in value.items()) + "}"
        inner = (f"{name}: {_text(name, item, unit)}" for name, item in value.items() if name != "description")
        return "{" + ", ".join(inner) + "}" if key else ", ".join(inner)
    if isinstance(value, (list, tuple)):
        return "[" + ", ".join(_text("item", item, unit) for item in value) + "]"
    text = str(value)
    if key in _DURATIONS:
        return _duration(int(text))
    if key in _SHARES or (key in _BOUNDS and unit == "%"):
        return _share(text)
    return text


def _share(text: str) -> str:
    return f"{(Decimal(text) * 100).normalize():f}%"


def _duration(seconds: int) -> str:
    for unit, size in (("d", 86_400), ("h", 3_600), ("m", 60)):
        if seconds and seconds % size == 0:
            return f"{seconds // size}{unit}"
    return f"{seconds}s"
