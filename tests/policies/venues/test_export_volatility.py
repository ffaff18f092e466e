"""Volatilities that an export leaves out, against what Deribit itself says of the same options in a crash."""

from __future__ import annotations

import json
from decimal import Decimal
from typing import Any

import pytest

from policies.risk.black import black76
from policies.venues.exports import parse_export
from policies.venues.exports.volatility import Listed, vol_of
from tests.policies.venues.test_exports import DERIBIT

NOW_S = 1_769_937_803
EXPIRY_S = 1_772_179_200
FORWARD = Decimal("78789.19")
QUOTED = (
    ("40000", "P", "0.00018095", "0.9379"),
    ("50000", "P", "0.0010907", "0.8101"),
    ("60000", "P", "0.0034116", "0.6374"),
    ("70000", "P", "0.01275506", "0.4979"),
    ("76000", "C", "0.06658082", "0.4479"),
    ("80000", "C", "0.03850967", "0.4274"),
    ("90000", "C", "0.00735595", "0.4285"),
    ("100000", "C", "0.00184568", "0.4844"),
    ("120000", "C", "0.00042788", "0.6334"),
    ("150000", "C", "0.00008121", "0.7831"),
)
"""Strike, kind, mark (BTC) and the venue's own volatility of BTC-27FEB26 at 2026-02-01 09:23:23 UTC.   Source: Deribit's book summary."""
CHAIN = [Listed(EXPIRY_S, Decimal(strike), FORWARD, Decimal(vol)) for strike, _, _, vol in QUOTED]
TOO_LOW = Decimal("1.15")
"""Below the intrinsic value, 1.1577 BTC, of the put at 170,000."""


@pytest.mark.parametrize(("strike", "kind", "mark", "vol"), QUOTED)
def test_the_mark_gives_back_the_volatility_that_the_venue_itself_says(
    strike: str, kind: str, mark: str, vol: str
) -> None:
    found = vol_of(Decimal(mark) * FORWARD, FORWARD, Decimal(strike), EXPIRY_S, NOW_S, (), is_call=kind == "C")
    assert found == pytest.approx(Decimal(vol), rel=Decimal("0.001"))


def test_a_mark_below_intrinsic_says_nothing_and_the_other_options_of_the_expiry_do() -> None:
    def told(chain: list[Listed]) -> Decimal | None:
        return vol_of(TOO_LOW * FORWARD, FORWARD, Decimal(65_000), EXPIRY_S, NOW_S, chain, is_call=True)

    found = told(CHAIN)
    assert found == pytest.approx(Decimal("0.5596"), rel=Decimal("0.03")), (
        "the venue on 65,000; the nearest quotes are 5,000 away"
    )
    assert told(CHAIN[:4]) is None, "four quotes are no surface"
    elsewhere = [Listed(EXPIRY_S + 1, one.strike, one.forward, one.vol) for one in CHAIN]
    assert told(elsewhere) is None, "another expiry's volatility is not taken for it"


def test_an_option_past_its_expiry_has_no_volatility() -> None:
    assert vol_of(Decimal(5_000), FORWARD, Decimal(80_000), NOW_S, NOW_S, CHAIN, is_call=True) is None


def without_vol(book: list[dict[str, Any]] | None) -> str:
    body = {key: value for key, value in DERIBIT.items() if key != "book"}
    return json.dumps(body if book is None else body | {"book": {"result": book}})


def test_an_export_without_a_book_has_volatilities_all_the_same() -> None:
    (option,) = parse_export("deribit", without_vol(None)).snapshot.options
    assert option.forward is None
    assert option.implied_vol is not None
    years = (option.expiry_s - 1_771_900_000) / 31_536_000
    value = black76(62_500, 60_000, years, float(option.implied_vol), is_call=True)
    assert value == pytest.approx(0.1 * 62_500, rel=1e-9), "the mark, on the index price"


def test_a_row_of_the_book_without_volatility_is_filled_on_its_own_forward() -> None:
    row = {"instrument_name": "BTC-27FEB26-60000-C", "underlying_price": 62_600.0}
    (option,) = parse_export("deribit", without_vol([row])).snapshot.options
    assert option.forward == 62_600
    assert option.implied_vol is not None
    (quoted,) = parse_export("deribit", without_vol([row | {"mark_iv": 71.5}])).snapshot.options
    assert quoted.implied_vol == Decimal("0.715"), "the venue's own word comes first"
