"""What limits, overrides and stress scenarios can get wrong beyond their form."""

from __future__ import annotations

from collections.abc import Mapping
from decimal import Decimal
from typing import Any

from policies.extends import looser_keys
from policies.limits import BOUNDS, DAYS, During, overriding, step_action
from policies.linting import Linter, Tree
from policies.margin import PERP_V2_MAINTENANCE_RATIO
from policies.metrics import METRICS, Metric
from policies.problems import did_you_mean

_PARAMETERS = ("window", "confidence", "horizon", "method", "expiry", "scenario")
_IDENTITY = (
    ("metric", ""), ("scope", "portfolio"), ("action", "deny"), ("during", ""), ("when", ""), *((key, "") for key in _PARAMETERS),
)  # fmt: skip
"""What makes two limits bounds on the same thing, and what an absent key means."""
_ADVICE = {
    "scope: asset": 'write scope: "asset: ETH", for example',
    "scope: asset or venue": 'write scope: "asset: ETH", or "venue: perp", for example',
    "scope: venue": 'write scope: "venue: perp", for example',
}


class LimitChecks(Linter):
    """The sections `limits`, `stress` and `overrides`."""

    def limits(self) -> None:
        limits = self.tree.get("limits", ())
        if not limits and not self.tree.get("overrides"):
            self.warn("limits", "no limits: only calls and guards bind this account")
        seen: dict[tuple[str, ...], str] = {}
        for path, entry in self.named(limits, "limits"):
            self.limit(entry, path)
            self.signers(entry, path)
            key = tuple(str(entry.get(name, default)) for name, default in _IDENTITY)
            key += (str(any(name.endswith("_change") for name in entry)),)
            if key in seen and entry.get("id") != seen[key]:
                self.warn(
                    path, f"the same metric, scope and action as {seen[key]!r}; the looser of the two never matters"
                )
            seen.setdefault(key, entry.get("id", ""))
        self.stress()
        self.overrides()
        self.reachable()

    def limit(self, entry: Tree, path: str, inherited: Tree | None = None) -> None:
        """One limit; of an override, `inherited` is what it overrides and `entry` the two together."""
        name = entry.get("metric")
        if name is None:
            return
        at = path if self.present(f"{path}.metric") or inherited is None else f"limits.{entry.get('id')}"
        metric = METRICS.get(name)
        if metric is None:
            self.report(f"{at}.metric", f"unknown metric {name!r}", did_you_mean(name, tuple(METRICS)))
            return
        if not self.one_bound(metric, entry, path, inherited):
            return
        self.scope(metric, entry, path)
        self.parameters(metric, entry, path)
        self.share(f"{path}.warn_at", entry.get("warn_at"))
        if "hysteresis" in entry and not 0 <= Decimal(entry["hysteresis"]) < 1:
            self.report(f"{path}.hysteresis", "must be at least 0% and below 100%")
        if "hysteresis" in entry and any(key.endswith("_change") for key in entry):
            self.report(f"{path}.hysteresis", "a limit on a change is never latched", "remove it")
        self.during(entry.get("during"), f"{path}.during")
        self.escalate(entry, path)

    def one_bound(self, metric: Metric, entry: Tree, path: str, inherited: Tree | None) -> bool:
        """Exactly one bound, on the right side, of the right sign."""
        written = [key for key in BOUNDS if self.present(f"{path}.{key}")]
        if not written and inherited:
            written = [key for key in BOUNDS if key in inherited]
        wanted = "max" if metric.worse == "higher" else "min"
        change = f"{wanted}_change"
        if len(written) != 1:
            self.report(
                path, "needs exactly one of max and min", f"{metric.name} is bounded by {wanted}: (or {change}:)"
            )
            return False
        key = written[0]
        if not key.startswith(wanted):
            right = change if key.endswith("_change") else wanted
            self.report(f"{path}.{key}", f"{metric.name} is worse when it is {metric.worse}", f"write {right}:")
            return False
        if key == change and metric.of_operation:
            self.report(f"{path}.{key}", f"{metric.name} measures what the operation does already", f"write {wanted}:")
            return False
        if key in entry and self.present(f"{path}.{key}"):  # else it is malformed and reported, or inherited
            self.bound(metric, entry[key], f"{path}.{key}", key)
        return True

    def bound(self, metric: Metric, value: str, path: str, key: str) -> None:
        unit, name = metric.unit, metric.name
        is_percent = self.written.get(path, "").endswith("%")
        if unit == "%" and not is_percent:
            self.report(path, f"{name} is a percentage", f"write {self.written.get(path, value)}%")
        elif unit != "%" and is_percent:
            self.report(path, f"{name} is not a percentage but in {unit}", "write a plain number")
        elif key == "min_change" and Decimal(value) > 0:
            self.report(
                path, "no operation could pass that did not raise it", f"write -{self.written.get(path, value)}"
            )
        elif key != "min_change" and Decimal(value) < 0 and not metric.may_be_negative:
            self.report(path, "must not be negative")
        elif key == "min" and name == "liquidation_distance" and Decimal(value) >= 1:
            self.report(path, "no position is ever that far from liquidation", "100% is shown when there is none")

    def scope(self, metric: Metric, entry: Tree, path: str) -> None:
        kind = entry.get("scope", "portfolio").partition(":")[0]
        if kind in metric.scopes:
            return
        name = metric.name
        if metric.of_operation and kind == "portfolio":
            self.report(path, f"{name} measures an operation, not a portfolio", "write scope: operation")
        elif not metric.of_operation and kind == "operation":
            self.report(f"{path}.scope", f"{name} measures a portfolio, not an operation", "write scope: portfolio")
        elif name == "position_size":
            self.report(path, "sizes of different assets do not add up", _ADVICE["scope: asset"])
        elif name == "concentration":
            self.report(path, "the whole is always 100% of itself", _ADVICE["scope: asset or venue"])
        elif kind == "portfolio":
            self.report(path, f"{name} is taken of one {' or '.join(metric.scopes)}",
                        _ADVICE["scope: " + " or ".join(metric.scopes)])  # fmt: skip
        else:
            taken = " or ".join(metric.scopes)
            self.report(f"{path}.scope", f"{name} cannot be taken of one {kind}", f"write scope: {taken}")

    def parameters(self, metric: Metric, entry: Tree, path: str) -> None:
        for key in _PARAMETERS:
            if key in entry and key not in metric.parameters:
                advice = f"it takes {', '.join(metric.parameters)}" if metric.parameters else "it takes no parameters"
                self.report(f"{path}.{key}", f"{metric.name} has no {key}", advice)
        for key in metric.needs:
            if not self.present(f"{path}.{key}") and key not in entry:
                self.report(path, f"{metric.name} needs {key}:", _NEEDS.get(key, ""))
        for key in ("window", "horizon"):
            if entry.get(key) == "0":
                self.report(f"{path}.{key}", "must be positive")
        confidence = entry.get("confidence")
        if confidence is not None and not Decimal("0.5") < Decimal(confidence) < 1:
            self.report(f"{path}.confidence", "must be above 50% and below 100%")
        low, _, high = entry.get("expiry", "0-").partition("-")
        if high and int(low) >= int(high):
            self.report(f"{path}.expiry", "no option is ever in it", "the first is included, the second is not")
        scenarios = tuple(str(one.get("id")) for one in self.tree.get("stress", ()))
        if "scenario" in entry and entry["scenario"] not in scenarios:
            advice = did_you_mean(entry["scenario"], scenarios) or "declare it under stress:"
            self.report(f"{path}.scenario", f"there is no scenario {entry['scenario']!r}", advice)

    def during(self, entry: Tree | None, path: str) -> None:
        if entry is None:
            return
        if any(self.present(f"{path}.{key}") and key not in entry for key in ("days", "hours")):
            return  # malformed, and reported
        days = entry.get("days", DAYS)
        if len(set(days)) != len(days):
            self.report(f"{path}.days", "the same one twice")
        start, _, end = entry.get("hours", "0-1440").partition("-")
        if start == end:
            self.report(f"{path}.hours", "begins when it ends", "leave hours: out for the whole day")
        elif During.parse({"days": list(days), "hours": f"{start}-{end}"}).covers(_ALWAYS):
            self.warn(path, "is always", "remove it")

    def escalate(self, entry: Tree, path: str) -> None:
        """Steps go outwards, and each asks at least what the one before asks."""
        steps = entry.get("escalate", ())
        key = next((key for key in BOUNDS if key in entry), None)
        if not steps or key is None:
            return
        if entry.get("action", "deny") == "deny":
            self.report(f"{path}.escalate", "nothing is stricter than deny", "write action: require_signers or warn")
        outwards = 1 if key.startswith("max") else -1
        last, asked = Decimal(entry[key]), (entry.get("action", "deny"), self.people(entry.get("approval")))
        for i, step in enumerate(steps):
            at = f"{path}.escalate[{i}]"
            action = step_action(step).value
            self.signers({"action": action} | dict(step), at)
            asks = (action, self.people(step.get("approval")))
            if "beyond" not in step:
                continue
            beyond = Decimal(step["beyond"])
            if (beyond - last) * outwards <= 0:
                self.report(f"{at}.beyond", "is not further out than what comes before", "order the steps by distance")
            written, limit_written = self.written.get(f"{at}.beyond", ""), self.written.get(f"{path}.{key}", "")
            if written and limit_written and written.endswith("%") != limit_written.endswith("%"):
                self.report(f"{at}.beyond", "is not in the unit of the limit", f"write it like {limit_written}")
            if _strictness(asks) < _strictness(asked):
                self.report(at, "asks less than what comes before", "a larger breach needs at least as many signers")
            last, asked = beyond, asks

    def people(self, approval: Any) -> int:
        """Signers that an approval asks for; 0 when there is none of that name."""
        found = next((e for e in self.tree.get("approvals", ()) if e.get("id") == approval), None)
        return int(found.get("quorum", 0)) if found is not None else 0

    def signers(self, entry: Tree, path: str) -> None:
        approvals = {e.get("id") for e in self.tree.get("approvals", ())}
        named, asks = entry.get("approval"), entry.get("action") == "require_signers"
        if asks and named is None:
            self.report(path, "require_signers needs the quorum that it asks", "add approval: with an id of approvals:")
        if named is not None and named not in approvals:
            advice = did_you_mean(named, tuple(str(a) for a in approvals))
            self.report(f"{path}.approval", f"there is no approval {named!r}", advice)
        if named is not None and not asks:
            self.warn(f"{path}.approval", "an approval is asked only with action: require_signers")

    # -- stress and overrides -----------------------------------------------------------------------------------------------

    def stress(self) -> None:
        for path, entry in self.named(self.tree.get("stress", ()), "stress"):
            self.signers(entry, path)
            if not any(self.present(f"{path}.{key}") for key in ("shock", "vol", "time")):
                self.report(path, "nothing happens in it", "add shock:, vol: or time:")
            for asset, move in entry.get("shock", {}).items():
                if Decimal(move) <= -1:
                    self.report(f"{path}.shock.{asset}", "a price cannot fall by 100% or more")
            for asset, move in entry.get("vol", {}).items():
                if Decimal(move) <= -1:
                    self.report(f"{path}.vol.{asset}", "a volatility cannot fall by 100% or more")

    def overrides(self) -> None:
        base: Mapping[str, Tree] = {str(entry.get("id")): entry for entry in self.tree.get("limits", ())}
        loose = frozenset(self.tree.get("may_loosen", ()))
        for path, entry in self.named(self.tree.get("overrides", ()), "overrides"):
            for key in ("accounts", "signers"):
                for i, name in enumerate(entry.get(key, ())):
                    self.party(f"{path}.{key}[{i}]", name)
            if not any(self.present(f"{path}.{key}") for key in ("accounts", "chains", "signers")):
                self.warn(
                    path, "is for everyone", "name accounts:, chains: or signers:, or tighten the limits themselves"
                )
            for at, own in self.named(entry.get("limits", ()), f"{path}.limits"):
                self.override(own, base, at, loose)

    def override(self, own: Tree, base: Mapping[str, Tree], path: str, loose: frozenset[str]) -> None:
        identity = str(own.get("id"))
        inherited = base.get(identity)
        if inherited is None and not self.present(f"{path}.metric"):
            advice = did_you_mean(identity, tuple(base)) or "name a limit to override, or add metric:"
            self.report(f"{path}.id", f"there is no limit {identity!r} to override", advice)
            return
        merged = overriding(own, base)
        self.limit(merged, path, inherited)
        self.signers(merged, path)
        if inherited is None or loose & {"limits", f"limits.{identity}"}:
            return
        for key in looser_keys(inherited, own):
            place = self.places.get(f"{path}.{key}")
            say = self.warn if place is not None and place.source else self.report
            say(f"{path}.{key}", f"is looser than limits.{identity}, which binds too",
                f"tighten it, or name limits.{identity} under may_loosen")  # fmt: skip

    # -- limits together ----------------------------------------------------------------------------------------------------

    def reachable(self) -> None:
        """Leverage and liquidation distance on the same perp account bound each other."""
        leverage, distance = self.least("leverage", "max"), self.least("liquidation_distance", "min")
        if leverage is not None and distance is not None and leverage > 0 and distance < 1:
            most = 1 / (distance * (1 - PERP_V2_MAINTENANCE_RATIO) + PERP_V2_MAINTENANCE_RATIO)
            if most < leverage:
                self.warn(
                    "limits",
                    f"leverage {leverage:f} is never reached: a liquidation distance of {distance:.1%} ends a perp long at {most:.2f}x",
                    "lower one of the two",
                )

    def least(self, metric: str, key: str) -> Decimal | None:
        """The tightest bound on a metric that always denies, whatever its scope."""
        values = [
            Decimal(e[key])
            for e in self.tree.get("limits", ())
            if e.get("metric") == metric and key in e and e.get("action", "deny") == "deny"
            and "during" not in e and "when" not in e
        ]  # fmt: skip
        return None if not values else (min(values) if key == "max" else max(values))


_ALWAYS = During.parse({})
_NEEDS = {"scenario": "name an entry of stress:"}


def _strictness(asked: tuple[str, int]) -> tuple[int, int]:
    action, people = asked
    return ("warn", "require_signers", "deny").index(action), people if action == "require_signers" else 0
