"""What `guards.stop_loss` can get wrong beyond its form."""

from __future__ import annotations

from collections.abc import Sequence
from decimal import Decimal

from policies.limit_checks import LimitChecks
from policies.linting import Tree
from policies.margin import PERP_V2_INITIAL_RATIO, PERP_V2_MAINTENANCE_RATIO, ratio
from policies.problems import did_you_mean
from policies.stop_rules import MAX_SLIPPAGE, TRIGGERS, VENUES

_ZERO, _ONE = Decimal(0), Decimal(1)
_LEAST = Decimal("1e-18")
"""The chain's unit of prices and sizes."""
_PLACES = tuple(dict.fromkeys(key for venue in VENUES.values() for key in (*venue.needs, *venue.optional)))
"""Fields that say where a position is; each venue has its own."""
_POSITION = ("venue", *_PLACES)


class StopChecks(LimitChecks):
    """The stops' part of the linter."""

    def stops(self) -> None:
        groups: dict[str, list[tuple[str, Tree]]] = {}
        for path, entry in self.named(self.guards.get("stop_loss", ()), "guards.stop_loss"):
            self._where(entry, path)
            self._when(entry, path)
            self._how_much(entry, path)
            if "group" in entry:
                groups.setdefault(entry["group"], []).append((path, entry))
            self.share(f"{path}.refund_share", entry.get("refund_share"))
            slippage, most = Decimal(entry.get("slippage", "0")), Decimal(entry.get("max_slippage", "1"))
            if slippage < 0 or most < slippage:
                self.report(
                    f"{path}.max_slippage", f"{most:%} is below slippage {slippage:%}", "it widens, never narrows"
                )
            if "max_slippage" in entry and most > MAX_SLIPPAGE:
                self.report(f"{path}.max_slippage", "the module takes at most 50%")
            oracle = entry.get("oracle", {})
            low, high = self.feed(oracle, f"{path}.oracle")
            if "price" in entry and low < high and not low <= Decimal(entry["price"]) <= high:
                self.report(f"{path}.oracle", "the stop's price is outside min_price and max_price: it never fires")
        for members in groups.values():
            self._group(members)

    def _how_much(self, entry: Tree, path: str) -> None:
        self.share(f"{path}.size", entry.get("size"), Decimal("0.0001"))
        if "size" in entry and "amount" in entry:
            self.report(
                f"{path}.amount", "goes instead of size", "size is a share of the position, amount is in base units"
            )
        for key in ("amount", "max_size_per_execution"):
            if key in entry and Decimal(entry[key]) < _LEAST:
                self.report(f"{path}.{key}", "must be positive")
        dust = Decimal(entry.get("dust", "0"))
        if dust < 0:
            self.report(f"{path}.dust", "must not be negative")
        for key in ("amount", "max_size_per_execution"):
            if dust and key in entry and dust >= Decimal(entry[key]):
                self.report(
                    f"{path}.dust", f"must be below {key}, {entry[key]}", "what is left at the end is dust, not a part"
                )

    def _group(self, members: Sequence[tuple[str, Tree]]) -> None:
        """One cancels the other: at least two, on one position."""
        path, first = members[0]
        if not 0 < int(first["group"]) < 2**32:
            self.report(f"{path}.group", "groups are numbered from 1 to 4294967295")
        elif len(members) == 1:
            self.warn(f"{path}.group", f"no other stop is in group {first['group']}: there is none to cancel")
        for other, entry in members[1:]:
            if any(entry.get(key) != first.get(key) for key in _POSITION):
                self.warn(
                    f"{other}.group",
                    f"stop {entry.get('id')} is on another position than stop {first.get('id')}: whichever is executed first leaves the "
                    "other position without its stop",
                )

    def _where(self, entry: Tree, path: str) -> None:
        """Each venue names its positions by fields of its own."""
        venue = VENUES.get(entry.get("venue", ""))
        if venue is None:
            return
        name, fields = entry["venue"], (*venue.needs, *venue.optional)
        for key in venue.needs:
            if not self.present(f"{path}.{key}"):
                self.report(path, f"a stop on {name} needs {key}", f"its position is named by {', '.join(fields)}")
        for key in _PLACES:
            if key in entry and key not in fields:
                self.report(f"{path}.{key}", f"a stop on {name} has no {key}", f"it has {', '.join(fields)}")
        if "asset" in entry and "asset" in fields:
            base = f"perp.{entry['asset'].lower()}"
            if base not in self.names:
                self.report(f"{path}.asset", f"there is no market {base}", did_you_mean(base, self.names))
        for key in ("token", "quote"):
            self.party(f"{path}.{key}", entry.get(key))
        if "token" in entry and entry["token"] == entry.get("quote"):
            self.report(f"{path}.quote", "token and quote are the same")
        self.share(f"{path}.pool_fee", entry.get("pool_fee"))
        if not 0 < int(entry.get("position", "1")) < 2**256:
            self.report(f"{path}.position", "the venue numbers positions from 1")

    def _when(self, entry: Tree, path: str) -> None:
        given = [key for key in TRIGGERS if self.present(f"{path}.{key}")]
        if len(given) != 1:
            self.report(path, f"needs exactly one of {', '.join(TRIGGERS[:-1])} and {TRIGGERS[-1]}")
        venue = VENUES.get(entry.get("venue", ""))
        for key in ("drop", "gain"):
            if key not in entry:
                continue
            if venue is not None and not venue.has_entry:
                self.report(
                    f"{path}.{key}", f"{entry['venue']} tells no entry price to count from", "write price instead"
                )
            elif not 0 < Decimal(entry[key]) < 1:
                self.report(f"{path}.{key}", "must be above 0% and below 100%")
            elif key == "drop":
                self._in_time(entry, path)
        self._trail(entry, path)
        if "price" in entry and Decimal(entry["price"]) <= 0:
            self.report(f"{path}.price", "must be positive")
        if "take_profit" in entry and "price" not in given:
            self.report(f"{path}.take_profit", "goes with price", "gain is a take-profit, drop is a stop")

    def _trail(self, entry: Tree, path: str) -> None:
        """Of a stop that follows the price."""
        venue = VENUES.get(entry.get("venue", ""))
        if "trail" in entry and not Decimal("0.0001") <= Decimal(entry["trail"]) < 1:
            self.report(f"{path}.trail", "must be at least 0.01% and below 100%")
        start, distance = Decimal(entry.get("start", "1")), Decimal(entry.get("trail_distance", "1"))
        if distance < _LEAST:
            self.report(f"{path}.trail_distance", "must be positive")
        if start < _LEAST:
            self.report(f"{path}.start", "must be positive")
        elif "start" in entry and "trail_distance" in entry and distance >= start:
            self.report(f"{path}.trail_distance", f"is not below start {start:f}: no price is left to fire at")
        trails = "trail" in entry or "trail_distance" in entry
        if trails and "start" not in entry and venue is not None and not venue.has_entry:
            self.report(
                path, f"{entry['venue']} tells no entry price to trail from", "write start: the best price so far"
            )
        if "start" in entry and not trails:
            self.report(f"{path}.start", "goes with trail or trail_distance")

    def _in_time(self, entry: Tree, path: str) -> None:
        """A stop must fire before the venue liquidates, at the most leverage and the least distance that the limits allow."""
        leverage, floor = self.least("leverage", "max"), self.least("liquidation_distance", "min")
        r = PERP_V2_MAINTENANCE_RATIO
        equity = ratio(_ONE, leverage, up=False) if leverage else PERP_V2_INITIAL_RATIO
        far_long, far_short = (equity - r) / (1 - r), (equity - r) / (1 + r)
        far_long, far_short = (max(far, floor or _ZERO) for far in (far_long, far_short))
        drop, most = Decimal(entry["drop"]), Decimal(entry.get("max_slippage", "0"))
        at = f"{leverage:f}x" if leverage else "the venue's 10x"
        if drop >= far_long:
            self.report(
                f"{path}.drop", f"a long at {at} is liquidated after {far_long:.1%}: the stop never fires",
                "lower drop, lower the leverage limit, or set a minimum liquidation_distance",
            )  # fmt: skip
        elif drop >= far_short:
            self.warn(f"{path}.drop", f"a short at {at} is liquidated after {far_short:.1%}, before the stop")
        elif drop + most > far_short:
            self.warn(
                f"{path}.drop", f"drop and max_slippage together ({drop + most:.1%}) pass liquidation ({far_short:.1%})"
            )
