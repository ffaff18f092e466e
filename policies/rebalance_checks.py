"""What `guards.rebalance` can get wrong beyond its form."""

from __future__ import annotations

from decimal import ROUND_FLOOR, Decimal

from contracts.units import BPS, WAD
from policies.hook_rules import fits_a_window
from policies.linting import Linter, Tree
from policies.rebalance_rules import MAX_ASSETS, MAX_POOLS, MAX_SLIPPAGE

_PIPS = 1_000_000


class RebalanceChecks(Linter):
    """The rebalancing part of the linter."""

    def rebalances(self) -> None:
        for path, entry in self.named(self.guards.get("rebalance", ()), "guards.rebalance"):
            self.party(f"{path}.cash", entry.get("cash"))
            self._trigger(entry, path)
            self._amounts(entry, path)
            slippage = Decimal(entry.get("slippage", "0.01"))
            if not Decimal(1) / BPS <= slippage <= MAX_SLIPPAGE:
                self.report(f"{path}.slippage", "must be between 0.01% and 10%")
            self._band(entry, f"{path}.cash_band", "cash_band", slippage)
            self.share(f"{path}.refund_share", entry.get("refund_share"))
            if "cash_oracle" in entry:
                self._oracle(entry["cash_oracle"], f"{path}.cash_oracle")
            self._assets(entry, path, slippage)
        self._reachable()

    def _trigger(self, entry: Tree, path: str) -> None:
        if not entry.get("on_drift", True) and "every" not in entry:
            self.report(path, "it is never due", "add every: month, or drop on_drift: false")
        if "utc_offset" in entry and "every" not in entry:
            self.report(f"{path}.utc_offset", "means something beside every only")

    def _amounts(self, entry: Tree, path: str) -> None:
        least, most = Decimal(entry.get("min_trade", "1")), Decimal(entry.get("max_turnover", "1"))
        if least <= 0:
            self.report(f"{path}.min_trade", "must be positive: a trade of dust costs more than it mends")
        elif "max_turnover" in entry and most < least:
            self.report(f"{path}.max_turnover", f"below min_trade, {least:f}: nothing could ever be traded")
        if most > 0 and not fits_a_window(int((most * WAD).to_integral_value(ROUND_FLOOR))):
            self.report(f"{path}.max_turnover", "the module keeps nine significant digits", "round it")
        if not 0 < int(entry.get("turnover_within", "1")) < 2**32:
            self.report(f"{path}.turnover_within", "must be positive, and within 136 years")

    def _band(self, entry: Tree, path: str, key: str, slippage: Decimal) -> None:
        band = Decimal(entry.get(key, "1"))
        if not slippage <= band <= 1:
            self.report(
                path,
                f"must be from slippage ({slippage:%}) to 100%",
                "what a trade may cost must not push a weight out of its band again",
            )

    def _assets(self, entry: Tree, path: str, slippage: Decimal) -> None:
        assets, total, seen = entry.get("assets", ()), Decimal(0), {entry.get("cash")}
        if len(assets) > MAX_ASSETS:
            self.report(f"{path}.assets", f"the module keeps {MAX_ASSETS} beside the cash, there are {len(assets)}")
        for i, asset in enumerate(assets):
            at = f"{path}.assets[{i}]"
            token, weight = asset.get("token"), Decimal(asset.get("weight", "0"))
            self.party(f"{at}.token", token)
            if token is not None and token in seen:
                self.report(f"{at}.token", f"{token!r} is in the basket already")
            seen.add(token)
            self.share(f"{at}.weight", asset.get("weight"))
            if weight * BPS != (weight * BPS).to_integral_value():
                self.report(f"{at}.weight", "the module keeps whole basis points", "two decimals of a percentage")
            total += weight
            self._band(asset, f"{at}.band", "band", slippage)
            self._fees(asset.get("pool_fees", ()), at)
            if "oracle" in asset:
                self._oracle(asset["oracle"], f"{at}.oracle")
        if total > 1:
            self.report(f"{path}.assets", f"the weights are {total:%} together", "at most 100%; the rest is cash")

    def _fees(self, fees: list[str], at: str) -> None:
        if len(fees) > MAX_POOLS:
            self.report(f"{at}.pool_fees", f"the module compares {MAX_POOLS} pools, these are {len(fees)}")
        for i, fee in enumerate(fees):
            pips = Decimal(fee) * _PIPS
            if not 0 <= pips < _PIPS or pips != pips.to_integral_value():
                self.report(f"{at}.pool_fees[{i}]", "is no fee tier of a pool", "0.01%, 0.05%, 0.3% or 1%")

    def _oracle(self, entry: Tree, path: str) -> None:
        for key in ("feed", "sequencer_feed"):
            self.party(f"{path}.{key}", entry.get(key))
        low, high = Decimal(entry.get("min_price", "0.01")), Decimal(entry.get("max_price", "10000000"))
        if not 0 < low < high:
            self.report(f"{path}.min_price", "must be positive and below max_price")
        if entry.get("heartbeat") == "0":
            self.report(f"{path}.heartbeat", "must be positive")
        self.share(f"{path}.max_deviation", entry.get("max_deviation"))

    def _reachable(self) -> None:
        """With a hook that enforces the list of calls, the module's own trades must be on it: it is no guard that passes everything."""
        hook = self.guards.get("hook")
        if not self.guards.get("rebalance") or hook is None or not hook.get("enforce_calls", True):
            return
        if not any(allowed.get("target") == "uniswap.router" for allowed in self.tree.get("calls", ())):
            self.warn(
                "guards.rebalance",
                "guards.hook lets it trade nothing: no entry of calls names uniswap.router",
                "allow exactInputSingle there, and the tokens' approve for it",
            )
