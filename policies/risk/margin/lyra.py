"""Lyra Avalon: every short option stands for itself with the collateral that is locked in it.

Minimum = max(price at shocked spot and shock volatility x amount, static minimum), capped at what covers it fully (`MinCollateral`, with the
venue's own normal distribution and shock parameters).   Source: Lyra Avalon, OptionGreekCache.getMinCollateral.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from decimal import Decimal, localcontext

from contracts.errors import InvalidFields
from policies.margin import EXACT
from policies.portfolio import Option
from policies.risk.margin.account import Account, Part, Requirement, Row
from policies.risk.margin.terms import Terms
from policies.venues.lyra import MinCollateral, OptionType


@dataclass(frozen=True, slots=True)
class Lyra:
    """Parts are short positions, in quote; long ones need no margin. A float model: the minimum is the venue's to about 1e-9 relative.

    Terms: `spot` (quote), `static_quote`, `static_base`, `shock_vol_a`, `point_a_s`, `shock_vol_b`, `point_b_s`, `call_shock`, `put_shock`,
    `rate`, `now_s`, and for the N-th of the account's options `collateral.N` (quote) or `base_collateral.N` (units of the underlying).
    The present price is the term `spot`: prices moved in the account are taken relative to `Account.prices` at the time it was made, so the
    account must carry the spot as the price of the asset.
    """

    terms: Terms
    is_piecewise_linear = False

    def requirement(self, account: Account) -> Requirement:
        rules = self._rules()
        parts: list[Part] = []
        rows: list[Row] = []
        for index, option in enumerate(account.options):
            if option.size >= 0:
                continue
            part = self._short(rules, account, index, option)
            parts.append(part)
            rows += [(f"collateral {part.label}", part.equity), (f"minimum {part.label}", part.maintenance)]
        return Requirement(tuple(parts), tuple(rows))

    def _short(self, rules: MinCollateral, account: Account, index: int, option: Option) -> Part:
        spot = account.prices.get(option.asset, self.terms.get("spot"))
        in_base = f"base_collateral.{index}" in self.terms.values
        locked = self.terms.get(f"{'base_collateral' if in_base else 'collateral'}.{index}")
        call = OptionType.SHORT_CALL_BASE if in_base else OptionType.SHORT_CALL_QUOTE
        kind = call if option.is_call else OptionType.SHORT_PUT_QUOTE
        left_s = max(0, option.expiry_s - int(self.terms.get("now_s")))
        if spot <= 0 or option.strike <= 0:
            raise InvalidFields(
                f"margin model {self.terms.model}: spot {spot} and strike {option.strike} must be positive"
            )
        least = Decimal(repr(rules.of(kind, float(option.strike), left_s, float(spot), float(-option.size))))
        with localcontext(EXACT):
            unit = spot if in_base else Decimal(1)
            return Part(option.label, locked * unit, least * unit, least * unit)

    def _rules(self) -> MinCollateral:
        figure = self.terms.get
        return MinCollateral(
            static_quote=float(figure("static_quote")),
            static_base=float(figure("static_base")),
            shock_vol_a=float(figure("shock_vol_a")),
            point_a_s=int(figure("point_a_s")),
            shock_vol_b=float(figure("shock_vol_b")),
            point_b_s=int(figure("point_b_s")),
            call_shock=float(figure("call_shock")),
            put_shock=float(figure("put_shock")),
            rate=float(figure("rate")),
        )

    def kinks(self, account: Account, assets: Collection[str]) -> tuple[Decimal, ...]:
        """Where the shocked spot meets a strike."""
        with localcontext() as context:
            context.prec = 30
            return tuple(
                o.strike / account.prices.get(o.asset, self.terms.get("spot"))
                for o in account.options
                if o.asset in assets and o.size < 0
            )
