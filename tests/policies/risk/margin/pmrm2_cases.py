"""Portfolios of Derive's own test cases turned into accounts: names of the JSON fields on one side, ours on the other."""

from __future__ import annotations

from collections.abc import Mapping
from decimal import Decimal
from typing import Any

from policies.portfolio import Collateral, Option, Position
from policies.risk.margin import Account
from policies.risk.margin.derive_pmrm2 import Pmrm2
from policies.risk.margin.pmrm2_parameters import CollateralTerms, ExpiryFeed, Parameters, Scenario, VolShock

NOW_S = 1_630_000_000
"""The reference time of the cases."""
_NAMES = {
    "VolShock": {
        "VOLRANGEUP": "vol_range_up",
        "VOLRANGEDOWN": "vol_range_down",
        "SHORTTERMPOWER": "short_term_power",
        "LONGTERMPOWER": "long_term_power",
        "DTE_FLOOR": "dte_floor_days",
        "MIN_VOL_EVAL_SHOCKED": "min_vol_up_shock",
    },
    "SkewShock": {
        "LINEAR_SCALE_CAP": "linear_base_cap",
        "LINEAR_CBASE": "linear_c_base",
        "ABS_SCALE_CAP": "abs_base_cap",
        "ABS_CBASE": "abs_c_base",
        "MIN_K_STAR": "min_k_star",
        "MIN_WIDTH_SCALE": "width_scale",
        "VOL_PARAM_STATIC": "vol_param_static",
        "VOL_PARAM_SCALE": "vol_param_scale",
    },
    "Margin": {
        "IM_LOSS_FACTOR": "im_factor",
        "MM_LOSS_FACTOR": "mm_factor",
        "SHORT_RATE_MULTSCALE": "short_rate_mult_scale",
        "LONG_RATE_MULTSCALE": "long_rate_mult_scale",
        "SHORT_RATE_ADDSCALE": "short_rate_add_scale",
        "LONG_RATE_ADDSCALE": "long_rate_add_scale",
        "BASE_STATIC_DISCOUNT": "long_base_static_discount",
        "BASE_STATIC_DISCOUNT_NEG": "short_base_static_discount",
    },
    "BasisContingency": {
        "SCENARIO_SPOT_UP": "basis_spot_up",
        "SCENARIO_SPOT_DOWN": "basis_spot_down",
        "BASIS_CONT_ADD_FACTOR": "basis_add_factor",
        "BASIS_CONT_MULT_FACTOR": "basis_mult_factor",
    },
    "OtherContingency": {
        "PEG_LOSS_THRESHOLD": "peg_loss_threshold",
        "PEG_LOSS_FACTOR": "peg_loss_factor",
        "CONF_THRESHOLD": "confidence_threshold",
        "CONF_MARGIN": "confidence_margin",
        "MM_PERP_PERCENT": "mm_perp_percent",
        "IM_PERP_PERCENT": "im_perp_percent",
        "MM_OPTION_PERCENT": "mm_option_percent",
        "IM_OPTION_PERCENT": "im_option_percent",
    },
}


def _d(value: float) -> Decimal:
    return Decimal(repr(value))


def parameters(case: Mapping[str, Any]) -> Parameters:
    given = case["Parameters"]
    figures = {ours: float(given[part][theirs]) for part, names in _NAMES.items() for theirs, ours in names.items()}
    scenarios = tuple(
        Scenario(s["SpotShock"], VolShock(s["VolShockDirection"]), s["DampeningFactor"]) for s in given["Scenarios"]
    )
    return Parameters(scenarios=scenarios, **figures)


def model(case: Mapping[str, Any]) -> Pmrm2:
    scenario = case["Scenario"]
    return Pmrm2(
        "ETH",
        parameters(case),
        {
            NOW_S + feed["FeedExpiry"]: ExpiryFeed(
                feed["Rate"], min(feed["ForwardConfidence"], feed["RateConfidence"], feed["OptionVolConfidences"])
            )
            for feed in scenario["OptionFeeds"]
        },
        {
            held["Name"]: CollateralTerms(
                held["MMHaircut"], held["IMHaircut"], bool(held["IsRiskCancelling"]), held["Confidence"]
            )
            for held in scenario["Collaterals"]
        },
        scenario["SpotConfidence"],
        scenario["PerpConfidence"],
        scenario["StablePrice"],
    )


def account(case: Mapping[str, Any]) -> Account:
    scenario = case["Scenario"]
    forwards = {feed["FeedExpiry"]: _d(feed["Forward"]) for feed in scenario["OptionFeeds"]}
    size, mark = _d(scenario["NumPerps"]), _d(scenario["PerpPrice"])
    entry = size * mark - _d(scenario["UnrealisedPerpPNL"])
    return Account(
        _d(scenario["Cash"]),
        (Position("derive", "ETH", size, entry, mark, -_d(scenario["UnrealisedFunding"])),) if size else (),
        tuple(
            Option(
                "derive",
                "ETH",
                bool(o["IsCall"]),
                _d(o["Strike"]),
                NOW_S + o["Expiry"],
                _d(o["Amount"]),
                Decimal(0),
                Decimal(0),
                _d(o["MarkVol"]),
                forwards[o["Expiry"]],
            )
            for o in scenario["Options"]
        ),
        tuple(
            Collateral("derive", c["Name"], _d(c["Amount"]), _d(c["Price"]), Decimal(0), Decimal(0))
            for c in scenario["Collaterals"]
        ),
        prices={"ETH": _d(scenario["SpotPrice"])},
        now_s=NOW_S,
    )
