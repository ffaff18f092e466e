"""Derive's portfolio margin, version 2 (PMRM v2): the worst of 31 revaluations, contingencies, and what is left of the mark-to-market.

    margin = min(min over scenarios of P&L, basis contingency) x factor - contingencies + mark-to-market + cash

An account may open while the initial margin is >= 0 and is liquidatable when the maintenance margin is below 0.
Options of one instrument are netted first, as the contract's balances are, so that order and splitting change nothing but float noise.
Floats (1e-8 relative of the contract's 18 decimals); the requirement is rounded up and the equity down to 1e-6 quote, against the account.
Source: derivexyz/v2-core, PMRMLib_2.getMarginAndMarkToMarket and PMRM_2._arrangePortfolio.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from decimal import ROUND_CEILING, ROUND_FLOOR, Decimal, localcontext

from contracts.errors import InvalidFields
from policies.portfolio import Option
from policies.risk.black import black76, undiscounted
from policies.risk.margin.account import FEW, Account, Part, Requirement, unrealised
from policies.risk.margin.pmrm2_parameters import (
    DEFAULT,
    CollateralTerms,
    ExpiryFeed,
    Parameters,
    Scenario,
    VolShock,
)

SECONDS_PER_YEAR = 365 * 86_400
_DAY_S = 86_400
_MONTH_S = 30 * _DAY_S
_SETTLEMENT_S = 1_800
"""Options settle on the average spot of the last 30 minutes."""
_QUANTUM = Decimal("1e-6")


@dataclass(frozen=True, slots=True)
class _Holding:
    strike: float
    vol: float
    amount: float
    is_call: bool


@dataclass(slots=True)
class _Expiry:
    """Options of one expiry with what is the same in every scenario."""

    options: list[_Holding]
    seconds: int
    forward: float
    fixed: float
    discount: float
    rate: float
    confidence: float
    parameters: Parameters
    shocked: dict[VolShock, list[float]] = field(default_factory=dict)

    @property
    def years(self) -> float:
        return self.seconds / SECONDS_PER_YEAR

    @property
    def is_sound(self) -> bool:
        """Whether every figure of the options is one that has a price."""
        return (
            0 < self.forward < math.inf
            and 0 < self.discount < math.inf
            and all(0 < o.strike < math.inf and 0 <= o.vol < math.inf for o in self.options)
        )

    def forward_at(self, spot_shock: float) -> float:
        return (self.forward - self.fixed) * spot_shock + self.fixed

    def value(self, spot_shock: float, vols: Sequence[float]) -> float:
        forward, discount, root = self.forward_at(spot_shock), self.discount, math.sqrt(self.years)
        try:
            total = math.fsum(
                [
                    o.amount * (discount * undiscounted(forward, o.strike, vol * root, is_call=o.is_call))
                    for o, vol in zip(self.options, vols, strict=True)
                ]
            )
        except (ArithmeticError, ValueError):
            total = math.nan
        return total if math.isfinite(total) else self.checked_value(spot_shock, vols)

    def checked_value(self, spot_shock: float, vols: Sequence[float]) -> float:
        """The same to the last bit, of figures that may be senseless. Raises BadInput."""
        forward = self.forward_at(spot_shock)
        return math.fsum(
            o.amount * black76(forward, o.strike, self.years, vol, is_call=o.is_call, discount=self.discount)
            for o, vol in zip(self.options, vols, strict=True)
        )

    def vols_at(self, shock: VolShock) -> list[float]:
        """Volatilities under a shock, worked out once."""
        if shock not in self.shocked:
            self.shocked[shock] = self.skewed(shock) if shock.is_skew else self.vols(shock)
        return self.shocked[shock]

    def vols(self, shock: VolShock) -> list[float]:
        """Volatilities under a shock that is no skew.

        Up: max(minimum, v x (1 + range x (30 d / max(T, floor))^p)), down: v x max(0, 1 - range x ...), p by T <= 30 d.
        """
        if shock is VolShock.NONE:
            return [o.vol for o in self.options]
        p = self.parameters
        power = p.short_term_power if self.seconds <= _MONTH_S else p.long_term_power
        at_least = max(float(self.seconds), p.dte_floor_days * _DAY_S)
        scale = (_MONTH_S / at_least) ** power if at_least else math.inf
        if shock is VolShock.UP:
            return [max(p.min_vol_up_shock, o.vol * (1 + p.vol_range_up * scale)) for o in self.options]
        return [o.vol * max(0.0, 1 - p.vol_range_down * scale) for o in self.options]

    def skewed(self, shock: VolShock) -> list[float]:
        """Volatilities with the wings turned: v x max(0, 1 + clamp(k x cap / k*, +-cap)), k = ln(K / F), its absolute value for ABS.

        k* = max(minimum, width x sqrt(T) x (static + scale x sqrt(T)));  cap = c_base x sqrt(T) + base cap.
        """
        p, root = self.parameters, math.sqrt(self.years)
        k_star = max(p.min_k_star, root * p.width_scale * (p.vol_param_static + root * p.vol_param_scale))
        is_linear = shock is VolShock.LINEAR
        cap = (p.linear_c_base if is_linear else p.abs_c_base) * root + (
            p.linear_base_cap if is_linear else p.abs_base_cap
        )
        found = []
        for o in self.options:
            k = math.log(o.strike / self.forward)
            k = k if is_linear else abs(k)
            if k == 0:
                turned = min(cap, 0.0)
            elif k_star == 0:
                turned = (
                    min(cap, math.copysign(math.inf, k * cap)) if k > 0 else max(-cap, math.copysign(math.inf, k * cap))
                )
            else:
                turned = min(cap, k * cap / k_star) if k > 0 else max(-cap, k * cap / k_star)
            found.append(o.vol * max(0.0, 1 + turned))
        return found

    def discounted(self, value: float) -> float:
        """What a shocked value counts for: long ones at base x e^(-T (rate x mult + add)), short ones at min(1/discount, base / e^(...))."""
        if value >= 0:
            base, rest = self.long_factors
            return value * base * rest
        return value * self.short_factor

    @property
    def long_factors(self) -> tuple[float, float]:
        p = self.parameters
        rate = self.rate * p.long_rate_mult_scale + p.long_rate_add_scale
        return p.long_base_static_discount, math.exp(-self.years * rate)

    @property
    def short_factor(self) -> float:
        p = self.parameters
        rate = self.rate * p.short_rate_mult_scale + p.short_rate_add_scale
        return min(1 / self.discount, p.short_base_static_discount * math.exp(self.years * rate))


@dataclass(frozen=True, slots=True)
class Margins:
    """All floats in quote. `scenario_pnl` in the order of the scenarios; margins as the contract returns them, negative when short."""

    scenario_pnl: tuple[float, ...]
    basis_contingency: float
    mm_contingency: float
    im_contingency: float
    mark_to_market: float
    initial: float
    maintenance: float

    @property
    def worst_scenario(self) -> int:
        """Index of the worst scenario; their number when the basis contingency is worse than all."""
        worst = min(self.scenario_pnl, default=math.inf)
        return len(self.scenario_pnl) if self.basis_contingency <= worst else self.scenario_pnl.index(worst)


@dataclass(frozen=True, slots=True)
class _Terms:
    """What an account is made of, worked out once: what moves with spot alone, its expiries with their marks, and what no scenario moves."""

    linear: float
    expiries: list[_Expiry]
    marks: list[float]
    basis: float
    mm: float
    im: float
    whole: float

    def maybe_worst(self, scenarios: Sequence[Scenario]) -> Sequence[int]:
        """Places of the scenarios among which the worst is; all of them where that costs as little."""
        if len(scenarios) * sum(len(expiry.options) for expiry in self.expiries) < FEW:
            return range(len(scenarios))
        from policies.risk.margin.pmrm2_screen import may_be_worst  # arrays: only who has many options waits for them

        return may_be_worst(self.linear, self.expiries, self.marks, scenarios)


@dataclass(frozen=True, slots=True)
class Pmrm2:
    """The rule for one underlying. Spot is `Account.prices[asset]`, the perp's price its mark, volatilities and forwards the options'.

    `expiries` by unix s; `collateral` by asset: one that is held and not listed is refused, as the contract does.
    """

    asset: str
    parameters: Parameters = DEFAULT
    expiries: Mapping[int, ExpiryFeed] = field(default_factory=dict)
    collateral: Mapping[str, CollateralTerms] = field(default_factory=dict)
    spot_confidence: float = 1.0
    perp_confidence: float = 1.0
    stable_price: float = 1.0
    is_piecewise_linear = False

    def requirement(self, account: Account) -> Requirement:
        terms = self._terms(account)
        places = terms.maybe_worst(self.parameters.scenarios)
        found = self._margins(terms, [_pnl(self.parameters.scenarios[place], terms) for place in places])
        equity = _decimal(found.mark_to_market, ROUND_FLOOR)
        part = Part(
            "account",
            equity,
            _decimal(found.mark_to_market - found.initial, ROUND_CEILING),
            _decimal(found.mark_to_market - found.maintenance, ROUND_CEILING),
        )
        worst = found.worst_scenario
        rows = [
            ("mark to market and cash", equity),
            ("basis contingency", _decimal(found.basis_contingency, ROUND_FLOOR)),
            ("maintenance contingency", _decimal(found.mm_contingency, ROUND_CEILING)),
            ("initial contingency", _decimal(found.im_contingency, ROUND_CEILING)),
        ]
        if worst < len(found.scenario_pnl):
            scenario = self.parameters.scenarios[places[worst]]
            rows.append(
                (
                    f"worst scenario: spot x {scenario.spot_shock:g}, vol {scenario.vol_shock.value}",
                    _decimal(found.scenario_pnl[worst], ROUND_FLOOR),
                )
            )
        return Requirement((part,), tuple(rows))

    def margins(self, account: Account) -> Margins:
        """Every figure of the rule. Raises `InvalidFields` for a missing spot, forward, volatility or collateral listing."""
        terms = self._terms(account)
        return self._margins(terms, [_pnl(scenario, terms) for scenario in self.parameters.scenarios])

    def _margins(self, terms: _Terms, pnl: Sequence[float]) -> Margins:
        p = self.parameters
        span = min((*pnl, terms.basis))
        im_factor = p.im_factor
        if self.stable_price < p.peg_loss_threshold:
            im_factor += (p.peg_loss_threshold - self.stable_price) * p.peg_loss_factor
        initial = span * im_factor - terms.im - terms.mm + terms.whole
        return Margins(
            tuple(pnl),
            terms.basis,
            terms.mm,
            terms.im,
            terms.whole,
            initial,
            span * p.mm_factor - terms.mm + terms.whole,
        )

    def _terms(self, account: Account) -> _Terms:
        """All that is no scenario."""
        p = self.parameters
        spot = self._spot(account)
        perp = math.fsum(float(x.size) for x in account.positions)
        perp_price = float(account.positions[0].mark_price) if account.positions else 0.0
        confidence = min(self.spot_confidence, self.perp_confidence) if perp else self.spot_confidence
        expiries = self._expiries(account)

        perp_notional = abs(perp) * spot
        mm = perp_notional * p.mm_perp_percent
        im = perp_notional * p.im_perp_percent + self._confidence_contingency(confidence, perp_notional)
        basis = 0.0
        marks: list[float] = []
        for expiry in expiries:
            plain = expiry.vols_at(VolShock.NONE)
            mark = expiry.value(1.0, plain) if expiry.is_sound else expiry.checked_value(1.0, plain)
            marks.append(mark)
            worst = min(expiry.value(p.basis_spot_up, plain) - mark, expiry.value(p.basis_spot_down, plain) - mark, 0.0)
            basis += worst * (p.basis_add_factor + p.basis_mult_factor * expiry.years)
            naked = _naked_shorts(expiry.options) * spot
            mm += naked * p.mm_option_percent
            im += naked * p.im_option_percent
            held = math.fsum(abs(o.amount) for o in expiry.options)
            im += self._confidence_contingency(min(confidence, expiry.confidence), held * spot)

        cancelling = total_collateral = 0.0
        for asset, value in sorted(self._collateral_values(account).items()):
            listed = self.collateral[asset]
            total_collateral += value
            cancelling += value if listed.is_risk_cancelling else 0.0
            mm += value * listed.mm_haircut
            im += value * listed.im_haircut
            im += self._confidence_contingency(min(listed.confidence, self.spot_confidence), value)

        settled = math.fsum(float(unrealised(x)) for x in account.positions)
        whole = math.fsum((settled, *marks, total_collateral, float(account.cash)))
        return _Terms(perp * perp_price + cancelling, expiries, marks, basis, mm, im, whole)

    def kinks(self, account: Account, assets: Collection[str]) -> tuple[Decimal, ...]:
        """Where a moved forward meets a strike."""
        if self.asset not in assets:
            return ()
        with localcontext() as context:
            context.prec = 30
            return tuple(o.strike / o.forward for o in account.options if o.size and o.forward)

    def _spot(self, account: Account) -> float:
        spot = account.price(self.asset)
        if spot is None:
            if account.positions or account.options:
                raise InvalidFields(f"margin model derive_pmrm2 needs the spot price of {self.asset}")
            return 0.0
        return float(spot)

    def _expiries(self, account: Account) -> list[_Expiry]:
        instruments: dict[tuple[int, Decimal, bool], list[Option]] = {}
        for option in account.options:
            if option.asset != self.asset:
                raise InvalidFields(f"margin model derive_pmrm2 of {self.asset} was given an option on {option.asset}")
            instruments.setdefault((option.expiry_s, option.strike, option.is_call), []).append(option)
        found: dict[int, _Expiry] = {}
        for (expiry_s, strike, is_call), options in sorted(instruments.items()):
            first = options[0]
            if first.implied_vol is None or first.forward is None:
                raise InvalidFields(f"margin model derive_pmrm2 needs volatility and forward of {first.label}")
            amount = float(sum((o.size for o in options), Decimal(0)))
            if not amount:
                continue
            if expiry_s not in found:
                found[expiry_s] = self._expiry(expiry_s, float(first.forward), account.now_s)
            found[expiry_s].options.append(_Holding(float(strike), float(first.implied_vol), amount, is_call))
        return list(found.values())

    def _expiry(self, expiry_s: int, forward: float, now_s: int) -> _Expiry:
        feed = self.expiries.get(expiry_s, ExpiryFeed())
        seconds, rate = max(0, expiry_s - now_s), max(0.0, feed.rate)
        discount = math.exp(-rate * seconds / SECONDS_PER_YEAR)
        averaged = max(0, _SETTLEMENT_S - seconds) / _SETTLEMENT_S
        fixed = forward * averaged if feed.forward_fixed is None else feed.forward_fixed
        return _Expiry([], seconds, forward, fixed, discount, rate, feed.confidence, self.parameters)

    def _collateral_values(self, account: Account) -> dict[str, float]:
        """amount x price / stable price by asset."""
        values: dict[str, float] = {}
        for held in account.collateral:
            if held.asset not in self.collateral:
                raise InvalidFields(f"margin model derive_pmrm2 does not accept {held.asset} as collateral")
            worth = float(held.amount) * float(held.price) / self.stable_price
            values[held.asset] = values.get(held.asset, 0.0) + worth
        return values

    def _confidence_contingency(self, confidence: float, notional: float) -> float:
        """(1 - confidence) x margin x notional where the confidence is below its threshold."""
        p = self.parameters
        return (1 - confidence) * p.confidence_margin * notional if confidence < p.confidence_threshold else 0.0


def _pnl(scenario: Scenario, terms: _Terms) -> float:
    """Change from mark-to-market in a scenario: linear part, and each expiry's discounted shocked value; a skew counts against the
    account whichever way it turns."""
    total = terms.linear * (scenario.spot_shock - 1) * scenario.dampening
    for expiry, mark in zip(terms.expiries, terms.marks, strict=True):
        spot_shock = 1.0 if scenario.vol_shock.is_skew else scenario.spot_shock
        shocked = expiry.value(spot_shock, expiry.vols_at(scenario.vol_shock))
        change = (expiry.discounted(shocked) - mark) * scenario.dampening
        total += -abs(change) if scenario.vol_shock.is_skew else change
    return total


def _naked_shorts(options: Sequence[_Holding]) -> float:
    """Per strike: what is short after calls and puts of that strike are set against each other."""
    by_strike: dict[float, float] = {}
    for option in options:
        by_strike[option.strike] = by_strike.get(option.strike, 0.0) + option.amount
    return math.fsum(-net for net in by_strike.values() if net < 0)


def _decimal(value: float, rounding: str) -> Decimal:
    if not math.isfinite(value):
        raise InvalidFields(f"margin model derive_pmrm2 computed {value}")
    with localcontext() as context:
        context.prec = 60
        return Decimal(value).quantize(_QUANTUM, rounding=rounding)
