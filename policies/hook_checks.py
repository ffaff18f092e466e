"""What `guards.hook` can get wrong beyond its form."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from decimal import Decimal
from typing import Any

from contracts.errors import BadInput
from policies import functions
from policies.hook_rules import HOOK, MAX_WINDOWS, NATIVE, fits_a_window, token_units
from policies.hooks import word_of_argument
from policies.linting import Linter, Tree
from policies.policy import selectors_of


class HookChecks(Linter):
    """The hook's part of the linter."""

    def hook(self) -> None:
        entry = (self.tree.get("guards") or {}).get("hook")
        if entry is None:
            return
        self._spending(entry.get("spending", ()))
        self._caps(entry.get("approvals", ()))
        calls: Sequence[Tree] = self.tree.get("calls", ())
        if entry.get("enforce_calls", True):
            for i, allowed in enumerate(calls):
                self._holdable(allowed, f"calls[{i}]")
        elif not entry.get("spending") and not entry.get("approvals"):
            self.warn(
                "guards.hook", "it lets everything pass but approvals", "list spending, or drop enforce_calls: false"
            )
        if not any(allowed.get("target") == HOOK for allowed in calls):
            self.warn(
                "guards.hook",
                f"no entry of calls names {HOOK}: `seawall policy apply` can never change it",
                f"add {{target: {HOOK}, functions: [setRule, setWindows, setApproval, setSettings, announce]}}",
            )

    def _spending(self, entries: Sequence[Tree]) -> None:
        if len(entries) > MAX_WINDOWS:
            self.report("guards.hook.spending", f"the module keeps {MAX_WINDOWS} windows, there are {len(entries)}")
        for i, entry in enumerate(entries):
            path = f"guards.hook.spending[{i}]"
            if self.present(f"{path}.within") == self.present(f"{path}.per"):
                self.report(path, "needs exactly one of within and per")
            if entry.get("within") == "0":
                self.report(f"{path}.within", "must be positive")
            if int(entry.get("within", "0")) >= 2**32:
                self.report(f"{path}.within", "the module counts within 136 years at most")
            if "utc_offset" in entry and "per" not in entry:
                self.report(f"{path}.utc_offset", "means something beside per only")
            units = self._amount(entry, "limit", path)
            if units is not None and units <= 0:
                self.report(f"{path}.limit", "must be positive", "to forbid a payment leave it out of calls")
            elif units is not None and not fits_a_window(units):
                self.report(f"{path}.limit", "the module keeps nine significant digits of a limit", "round it")

    def _caps(self, entries: Sequence[Tree]) -> None:
        seen: set[tuple[Any, Any]] = set()
        for i, entry in enumerate(entries):
            path = f"guards.hook.approvals[{i}]"
            self.party(f"{path}.spender", entry.get("spender"))
            unlimited = entry.get("unlimited", False)
            if self.present(f"{path}.cap") == bool(unlimited):
                self.report(path, "needs cap, or unlimited: true")
            if entry.get("token") == NATIVE:
                self.report(f"{path}.token", "the native token has no allowances")
            elif not unlimited:
                units = self._amount(entry, "cap", path)
                if units is not None and not 0 < units < 2**128 - 1:
                    self.report(f"{path}.cap", "must be positive and below 2^128 units")
            else:
                self.warn(f"{path}.unlimited", "the spender may take everything, and it counts as no spending")
            key = entry.get("token"), entry.get("spender")
            if key in seen:
                self.report(path, "the same token and spender twice")
            seen.add(key)

    def _amount(self, entry: Tree, key: str, path: str) -> int | None:
        """The amount in units; what is wrong with it, or with its token, is reported."""
        token = entry.get("token")
        if token is not None and token != NATIVE:
            self.party(f"{path}.token", token)
        if token is None or key not in entry:
            return None
        try:
            return token_units(Decimal(entry[key]), token, int(entry["decimals"]) if "decimals" in entry else None)
        except BadInput as error:
            self.report(f"{path}.{key}", error.message)
            return None

    def _holdable(self, entry: Tree, path: str) -> None:
        """Every pin must lie in a word of its own, else the hook cannot hold the call to it."""
        pins: Mapping[str, Any] = entry.get("args", {})
        if entry.get("target") == HOOK or not pins:
            return
        for text in entry.get("functions", ()):
            for selector in selectors_of(text, entry.get("target", "")):
                known = functions.BY_SELECTOR.get(selector)
                if known is None:
                    continue  # reported with the call
                for name in pins:
                    if name in known.arguments and word_of_argument(known, name) is None:
                        self.report(
                            f"{path}.args.{name}",
                            f"{known.function.name}'s {name} has no word of its own in the call data: the hook cannot hold it",
                            "drop the pin, or set guards.hook.enforce_calls: false",
                        )
