"""What `guards.delta_hedge` can get wrong beyond its form."""

from __future__ import annotations

from decimal import ROUND_FLOOR, Decimal

from contracts.units import BPS, WAD
from policies.hedge_rules import MAX_SLIPPAGE
from policies.hook_rules import fits_a_window
from policies.linting import Linter, Tree
from policies.problems import did_you_mean


class HedgeChecks(Linter):
    """The hedge's part of the linter."""

    def hedges(self) -> None:
        for path, entry in self.named(self.guards.get("delta_hedge", ()), "guards.delta_hedge"):
            base = f"perp.{entry.get('asset', '').lower()}"
            if "asset" in entry and base not in self.names:
                self.report(f"{path}.asset", f"there is no market {base}", did_you_mean(base, self.names))
            self.party(f"{path}.spot", entry.get("spot"))
            self._sizes(entry, path)
            slippage = Decimal(entry.get("slippage", "0.01"))
            if not Decimal(1) / BPS <= slippage <= MAX_SLIPPAGE:
                self.report(f"{path}.slippage", "must be between 0.01% and 10%")
            self.share(f"{path}.refund_share", entry.get("refund_share"))
            if "oracle" in entry:
                self.feed(entry["oracle"], f"{path}.oracle")
        self._may_trade()

    def _sizes(self, entry: Tree, path: str) -> None:
        band = Decimal(entry.get("band", "1"))
        least = Decimal(entry.get("min_trade", band))
        if band <= 0:
            self.report(f"{path}.band", "must be positive: the delta moves with every price")
        elif not 0 < least <= band:
            self.report(f"{path}.min_trade", f"must be positive and at most the band, {band:f}")
        for key in ("max_trade", "max_position", "max_turnover"):
            if key in entry and Decimal(entry[key]) < least:
                self.report(f"{path}.{key}", f"below min_trade, {least:f}: nothing could ever be traded")
        most = Decimal(entry.get("max_turnover", "1"))
        if most > 0 and not fits_a_window(int((most * WAD).to_integral_value(ROUND_FLOOR))):
            self.report(f"{path}.max_turnover", "the module keeps nine significant digits", "round it")
        if not 0 < int(entry.get("turnover_within", "1")) < 2**32:
            self.report(f"{path}.turnover_within", "must be positive, and within 136 years")

    def _may_trade(self) -> None:
        """With a hook that enforces the list of calls, the module's own trades must be on it: it is no guard that passes everything."""
        hook = self.guards.get("hook")
        if not self.guards.get("delta_hedge") or hook is None or not hook.get("enforce_calls", True):
            return
        if not any(allowed.get("target") == "perp.clearing_house" for allowed in self.tree.get("calls", ())):
            self.warn(
                "guards.delta_hedge",
                "guards.hook lets it trade nothing: no entry of calls names perp.clearing_house",
                "allow openPosition there",
            )
