"""What `guards.breaker` can get wrong beyond its form."""

from __future__ import annotations

from decimal import Decimal

from contracts.units import BPS
from policies.breaker_rules import BREAKER, MAX_ASSETS
from policies.hook_rules import HOOK, NATIVE
from policies.linting import Linter, Tree

_BOUNDS = ("loss_per_operation", "loss_per_day", "drawdown")


class BreakerChecks(Linter):
    """The breaker's part of the linter."""

    def breaker(self) -> None:
        entry = self.guards.get("breaker")
        if entry is None:
            return
        path = "guards.breaker"
        for section in ("hook", "freeze"):
            if section not in self.guards:
                self.report(path, f"it needs guards.{section}: the hook reports to it, the freeze obeys it")
        if not any(bound in entry for bound in _BOUNDS):
            self.report(path, "it bounds nothing", f"give {', '.join(_BOUNDS)}")
        for key in _BOUNDS:
            self.share(f"{path}.{key}", entry.get(key), Decimal(1) / BPS)
        if len(entry.get("assets", ())) > MAX_ASSETS:
            self.report(f"{path}.assets", f"the module keeps {MAX_ASSETS}, there are {len(entry['assets'])}")
        seen: set[str] = set()
        for i, asset in enumerate(entry.get("assets", ())):
            self._breaker_asset(asset, f"{path}.assets[{i}]", seen)
        if len(set(entry.get("venues", ()))) != len(entry.get("venues", ())):
            self.report(f"{path}.venues", "the same venue twice")
        self._breaker_can_change()

    def _breaker_asset(self, asset: Tree, at: str, seen: set[str]) -> None:
        token = asset.get("token", "")
        if token != NATIVE:
            self.party(f"{at}.token", token)
        if token in seen:
            self.report(f"{at}.token", f"{token!r} is listed already")
        seen.add(token)
        low, high = self.feed(asset.get("oracle", {}), f"{at}.oracle")
        self.party(f"{at}.quote", asset.get("quote"))
        if "quote" in asset:
            return
        for key in ("pool_fee", "every_execution"):
            if key in asset:
                self.report(f"{at}.{key}", "means something beside quote only, which names the second source")
        deviation = Decimal(asset.get("oracle", {}).get("max_deviation", "0.05"))
        if 0 < low < high and (high - low) / high > deviation:
            self.warn(
                at,
                "it has one source, and bounds further apart than max_deviation: the high-water mark can never rise",
                "add quote: usdc, or narrow min_price and max_price",
            )

    def _breaker_can_change(self) -> None:
        calls = {allowed.get("target"): allowed.get("functions", ()) for allowed in self.tree.get("calls", ())}
        if not any("setBreaker" in function for function in calls.get(HOOK, ())):
            self.warn(
                "guards.breaker",
                f"no entry of calls allows setBreaker of {HOOK}: `seawall policy apply` can never turn it on",
                f"add {{target: {HOOK}, functions: [setBreaker, announce]}}",
            )
        if BREAKER not in calls:
            self.warn(
                "guards.breaker",
                f"no entry of calls names {BREAKER}: its bounds and its mark can never be changed",
                f"add {{target: {BREAKER}, functions: [announce, configure, resetMark]}}",
            )
