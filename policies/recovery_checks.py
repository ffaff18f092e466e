"""What `guards.recovery` can get wrong beyond its form."""

from __future__ import annotations

from policies.linting import Linter
from policies.recovery_rules import MAX_WAIT_S, MIN_DELAY_S, MIN_SILENCE_S, RECOVERY

_MAX_GUARDIANS = 32


class RecoveryChecks(Linter):
    """The recovery's part of the linter."""

    def recovery(self) -> None:
        path, entry = "guards.recovery", self.guards.get("recovery")
        if entry is None:
            return
        names = [*entry.get("guardians", ()), *entry.get("contract_guardians", ())]
        for section in ("guardians", "contract_guardians"):
            for i, name in enumerate(entry.get(section, ())):
                self.party(f"{path}.{section}[{i}]", name)
        self.party(f"{path}.heir", entry.get("heir"))
        threshold = int(entry.get("threshold", "1"))
        if len(set(names)) != len(names):
            self.report(f"{path}.guardians", "one guardian stands there twice")
        if not 0 < len(names) <= _MAX_GUARDIANS:
            self.report(path, f"needs 1 to {_MAX_GUARDIANS} guardians, there are {len(names)}")
        elif not 0 < threshold <= len(names):
            self.report(f"{path}.threshold", f"must be between 1 and {len(names)}, the number of guardians")
        elif threshold == 1:
            self.warn(
                f"{path}.threshold", "any single guardian may start to replace the owner", "take 2 of 3, for example"
            )
        if "owner" in names:
            self.warn(f"{path}.guardians", "the owner's key is lost with the owner", "name somebody else")
        if not MIN_DELAY_S <= int(entry.get("delay", "259200")) <= MAX_WAIT_S:
            self.report(f"{path}.delay", "must be between 1h and 3650d: it is the time in which the owner can cancel")
        if "heir" in entry and not MIN_SILENCE_S <= int(entry.get("silence", "15552000")) <= MAX_WAIT_S:
            self.report(f"{path}.silence", "must be between 1d and 3650d")
        if "silence" in entry and "heir" not in entry:
            self.report(f"{path}.silence", "means something beside heir only")
        if "freeze" not in self.guards:
            self.report(
                path,
                "needs guards.freeze: a change of owner must be one that a quorum of guardians can cancel",
                "add guards.freeze",
            )
        if not any(allowed.get("target") == RECOVERY for allowed in self.tree.get("calls", ())):
            self.warn(
                path,
                f"no entry of calls names {RECOVERY}: `seawall policy apply` can never change it",
                f"add {{target: {RECOVERY}, functions: [setSettings, announce, cancel, heartbeat]}}",
            )
