"""The table of margin models: their names in `policies.portfolio.Margin.model`, and what each one's terms mean."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, fields
from decimal import Decimal

from contracts.errors import InvalidFields
from policies.risk.margin.aave import Aave
from policies.risk.margin.account import Model
from policies.risk.margin.deribit import DeribitPm
from policies.risk.margin.derive_pmrm2 import Pmrm2
from policies.risk.margin.dydx_v4 import DydxV4
from policies.risk.margin.gmx import Gmx
from policies.risk.margin.lyra import Lyra
from policies.risk.margin.pmrm2_parameters import CollateralTerms, ExpiryFeed, Parameters
from policies.risk.margin.ratio import PerpV2, Ratio
from policies.risk.margin.terms import Terms
from policies.risk.margin.tiers import binance_inverse, binance_linear, hyperliquid

Build = Callable[[Terms, tuple[str, ...]], Model]


@dataclass(frozen=True, slots=True)
class Entry:
    """One rule: how it is built from its terms and the assets that the account holds, and in which version it was recorded."""

    name: str
    summary: str
    terms: str
    build: Build
    version: str = "1"


def _derive(terms: Terms, assets: tuple[str, ...]) -> Model:
    """Terms: `rate.EXPIRY`, `confidence.EXPIRY`, `forward_fixed.EXPIRY` (EXPIRY unix s), `mm_haircut.ASSET`, `im_haircut.ASSET`,
    `risk_cancelling.ASSET` (1 or 0), `collateral_confidence.ASSET`, `spot_confidence`, `perp_confidence`, `stable_price`, and every field of
    `Parameters` but the scenarios. The underlying is the one asset that is no collateral."""
    rates, confidences = terms.under("rate"), terms.under("confidence")
    fixed, haircuts = terms.under("forward_fixed"), terms.under("mm_haircut")
    expiries: dict[int, ExpiryFeed] = {}
    for key in {*rates, *confidences, *fixed}:
        if not key.isdigit():
            raise InvalidFields(f"margin model {terms.model}: {key} is no expiry in unix seconds")
        expiries[int(key)] = ExpiryFeed(
            float(rates.get(key, Decimal(0))),
            float(confidences.get(key, Decimal(1))),
            float(fixed[key]) if key in fixed else None,
        )
    given = {f.name: float(terms.get(f.name)) for f in fields(Parameters) if f.name in terms.values}
    if len(assets) > 1:
        raise InvalidFields(f"margin model {terms.model} is of one underlying, the account holds {', '.join(assets)}")
    stable = float(terms.get("stable_price", Decimal(1)))
    if stable <= 0:
        raise InvalidFields(f"margin model {terms.model}: stable_price is {stable}")
    return Pmrm2(
        asset=assets[0] if assets else "",
        parameters=Parameters(**given),  # type: ignore[arg-type]
        expiries=expiries,
        collateral={
            asset: CollateralTerms(
                float(haircut),
                float(terms.get(f"im_haircut.{asset}")),
                terms.get(f"risk_cancelling.{asset}", Decimal(0)) != 0,
                float(terms.get(f"collateral_confidence.{asset}", Decimal(1))),
            )
            for asset, haircut in haircuts.items()
        },
        spot_confidence=float(terms.get("spot_confidence", Decimal(1))),
        perp_confidence=float(terms.get("perp_confidence", Decimal(1))),
        stable_price=stable,
    )


_TIER_TERMS = (
    "maintenance_rate.ASSET[.FROM]: share of notional, from that notional (quote) on; deduction.ASSET[.FROM]: quote, continuous when not "
    "given; leverage.ASSET: for the initial requirement; isolated.ASSET: quote set aside for that position, not in the cross balance"
)

MODELS: Mapping[str, Entry] = {
    entry.name: entry
    for entry in (
        Entry(
            "ratio",
            "one share of notional for all markets",
            "none: Margin.initial_ratio and maintenance_ratio",
            lambda terms, _: Ratio.of(terms),
        ),
        Entry(
            "perp_v2",
            "Perpetual Protocol v2: 6.25 % of notional; 10 % of debt value to open",
            "none: Margin.initial_ratio and maintenance_ratio",
            lambda terms, _: PerpV2.of(terms),
        ),
        Entry(
            "hyperliquid",
            "Hyperliquid: tiers of maximum leverage, cross and isolated",
            "max_leverage.ASSET[.FROM]: from that notional (quote) on; leverage.ASSET: the user's; isolated.ASSET: quote set aside",
            hyperliquid,
        ),
        Entry("binance_linear", "Binance USDT-M style tiers", _TIER_TERMS, binance_linear),
        Entry(
            "binance_inverse",
            "Binance COIN-M style tiers, contracts of fixed quote value",
            _TIER_TERMS,
            binance_inverse,
        ),
        Entry(
            "dydx_v4",
            "dYdX v4: margin fraction scaled by open interest, whole quantums",
            "imf_ppm[.ASSET], maintenance_fraction_ppm[.ASSET]: parts per million; oi_lower_cap, oi_upper_cap, open_interest [.ASSET]: USDC",
            lambda terms, _: DydxV4(terms),
        ),
        Entry(
            "gmx_v1",
            "GMX v1: losses and fees against fees and maximum leverage",
            "collateral.ASSET[.long|.short]: quote; collateral_base.ASSET: units of the index token; fees_usd.ASSET; max_leverage[.ASSET]; "
            "liquidation_fee_usd[.ASSET]",
            lambda terms, _: Gmx(terms, 1),
        ),
        Entry(
            "gmx_v2",
            "GMX v2: collateral + profit - fees against a share of size",
            "collateral.ASSET[.long|.short]: quote; collateral_base.ASSET: units of the index token; fees_usd.ASSET; "
            "min_collateral_factor[.ASSET]; min_collateral_usd[.ASSET]",
            lambda terms, _: Gmx(terms, 2),
        ),
        Entry(
            "aave",
            "Aave: health factor, thresholds by collateral",
            "emode_liquidation_threshold.ASSET, emode_loan_to_value.ASSET: in place of the collateral's own",
            lambda terms, _: Aave(terms),
        ),
        Entry(
            "lyra",
            "Lyra Avalon: minimum collateral of each short option",
            "spot, static_quote, static_base, shock_vol_a, point_a_s, shock_vol_b, point_b_s, call_shock, put_shock, rate, now_s; "
            "collateral.N (quote) or base_collateral.N (units), N the option's place among the venue's",
            lambda terms, _: Lyra(terms),
        ),
        Entry(
            "deribit_pm",
            "Deribit portfolio margin, legacy: price buckets x volatility, extended table, contingencies",
            "now_s, and any field of policies.risk.margin.deribit.Parameters",
            lambda terms, _: DeribitPm.of(terms),
        ),
        Entry(
            "derive_pmrm2",
            "Derive portfolio margin v2: 31 scenarios and contingencies",
            "now_s; rate.EXPIRY, confidence.EXPIRY, forward_fixed.EXPIRY (unix s); mm_haircut, im_haircut, risk_cancelling, "
            "collateral_confidence .ASSET; spot_confidence, perp_confidence, stable_price; any field of pmrm2_parameters.Parameters",
            _derive,
        ),
    )
}
"""By name. "ratio" is what `Margin` means when nothing else is said."""


def model_of(name: str, terms: Mapping[str, Decimal], assets: Collection[str]) -> Model:
    """The model `name` for an account whose derivatives are on `assets`. Raises `InvalidFields`: no such model, or a term is missing."""
    if name not in MODELS:
        raise InvalidFields(f"there is no margin model {name!r}; there are {', '.join(sorted(MODELS))}")
    return MODELS[name].build(Terms(name, terms), tuple(sorted(assets)))
