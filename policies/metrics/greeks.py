"""How the book moves with price, volatility, time and rates: first and second order, per underlying and by time to expiry.

Everything linear is exact. An option's Greeks are those of the generalised Black-Scholes formula at the venue's implied volatility, on the
index price (policies.risk.black), with the carry b = ln(F / S) / T that leads to the venue's own forward, and no discounting (r = 0).
They are doubles, good to `MODEL_ERROR`; that share of each option's part is added towards more risk.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from decimal import ROUND_CEILING, Context, Decimal, localcontext

from contracts.errors import BadInput
from policies.margin import EXACT
from policies.metrics.base import Contribution, Measure, Metric, NotKnown, Observation, View, inside, shows_parts
from policies.metrics.exposure import pool_holdings
from policies.policy import Parameters, Scope
from policies.portfolio import UNIT_OF_ACCOUNT, Liquidity, Option
from policies.risk.black import MODEL, Greeks, greeks

MODEL_ERROR = Decimal("1E-12")
YEAR_S = 31_536_000
_ROUND_UP = Context(prec=60, rounding=ROUND_CEILING)
_QUANTUM = Decimal(1).scaleb(-18)
_NONE, _ONE, _TWO, _POINT = Decimal(0), Decimal(1), Decimal(2), Decimal("0.01")


def unit_greeks(view: View, option: Option) -> Greeks:
    """Greeks of one unit of `option` at the block's time; shared by the views of one decision. Raises NotKnown."""
    known: dict[int, Greeks] = view.workings.setdefault("Greeks by identity", {})
    found = known.get(id(option))
    if found is None:
        found = known[id(option)] = _unit_greeks(view, option)
    return found


def _unit_greeks(view: View, option: Option) -> Greeks:
    for figure in (option.strike, option.implied_vol, option.forward):
        if figure is not None and not figure.is_finite():
            raise NotKnown(f"{option.label} has a figure that is {figure}")
    key = ("greeks", option.asset, option.is_call, option.strike, option.expiry_s, option.implied_vol, option.forward)
    found: Greeks | None = view.workings.get(key)
    if found is None:
        if option.implied_vol is None:
            raise NotKnown(f"the implied volatility of {option.label} is not known")
        spot = view.price(option.asset)
        years = max(option.expiry_s - view.facts.block_time_s, 0) / YEAR_S
        carry = 0.0
        if option.forward is not None and years:
            carry = math.log(float(option.forward) / float(spot)) / years
        try:
            found = greeks(
                float(spot), float(option.strike), years, float(option.implied_vol),
                is_call=option.is_call, carry=carry,
            )  # fmt: skip
        except BadInput as error:
            raise NotKnown(f"{option.label}: {error.message}") from None
        view.workings[key] = found
    return found


def _options(view: View, scope: Scope, parameters: Parameters) -> tuple[list[Option], list[int]]:
    """The options inside the scope and bucket, and their identities; found once for all Greeks."""
    bucket, now_s = parameters.expiry, view.facts.block_time_s

    def chosen() -> tuple[list[Option], list[int]]:
        found = [
            option
            for option in view.portfolio.options
            if option.size
            and inside(scope, option.asset, option.venue)
            and (bucket is None or max(option.expiry_s - now_s, 0) in bucket)
        ]
        return found, [id(option) for option in found]

    held: tuple[list[Option], list[int]] = view.once(("options in", scope.kind, scope.name, bucket), chosen)
    return held


def _linear_delta(view: View, scope: Scope) -> Iterator[tuple[str, str, Decimal]]:
    """Label, asset and units of everything whose value is linear in its asset's price, and of what liquidity positions hold."""
    book = view.portfolio
    for position in book.positions:
        if inside(scope, position.asset, position.venue):
            yield position.label, position.asset, position.size
    for sign, kind, amounts in ((1, "", book.holdings), (1, " collateral", book.collateral), (-1, " debt", book.debts)):
        for one in amounts:
            if one.amount and one.asset != UNIT_OF_ACCOUNT and inside(scope, one.asset, one.venue):
                yield f"{one.venue}:{one.asset}{kind}", one.asset, sign * one.amount
    for pool in book.liquidity:
        for asset, amount in pool_holdings(view, pool):
            if asset != UNIT_OF_ACCOUNT and inside(scope, asset, pool.venue):
                yield f"{pool.label}:{asset}", asset, amount


def _pool_gamma(view: View, pool: Liquidity, asset: str) -> Decimal:
    """Second derivative of a liquidity position's value by the price of `asset` alone, <= 0, rounded towards more.

    x = L / sqrt p with p = P0 / P1: d x / d P0 = -L / (2 p^1.5 P1), and for y = L sqrt p: d y / d P1 = -L sqrt p / (2 P1).
    """
    price0, price1 = view.price(pool.asset0), view.price(pool.asset1)
    with localcontext(_ROUND_UP):
        price = price0 / price1
        if not pool.lower_price < price < pool.upper_price:
            return Decimal(0)
        if asset == pool.asset0:
            return -(pool.liquidity / (2 * price * price.sqrt() * price1)).quantize(_QUANTUM)
        return -(pool.liquidity * price.sqrt() / (2 * price1)).quantize(_QUANTUM)


def _pools_gamma(view: View, scope: Scope) -> Iterator[tuple[str, str, Decimal]]:
    for pool in view.portfolio.liquidity:
        for asset in (pool.asset0, pool.asset1):
            if asset != UNIT_OF_ACCOUNT and inside(scope, asset, pool.venue):
                yield f"{pool.label}:{asset}", asset, _pool_gamma(view, pool, asset)


Row = tuple[str, str, Decimal]
"""Label, asset and amount."""


class _Rows:
    """Parts of one Greek in its metric's unit: `linear` ones, which are exact, and what the model says of the options."""

    __slots__ = ("known", "linear", "options", "view")

    def __init__(self, view: View, scope: Scope, parameters: Parameters, name: str, scale: Decimal) -> None:
        self.view = view
        self.linear: list[Row] = []
        if parameters.expiry is None:  # nothing linear expires
            if name == "delta":
                self.linear = list(_linear_delta(view, scope))
            if name == "gamma":
                self.linear = list(_pools_gamma(view, scope))
        options, numbers = _options(view, scope, parameters)
        self.known: dict[int, Row] = view.workings.setdefault(("rows of Greeks", name, scale), {})
        try:
            self.options = tuple(map(self.known.__getitem__, numbers))
        except KeyError:
            for option in options:
                if id(option) not in self.known:
                    amount = EXACT.multiply(Decimal(getattr(unit_greeks(view, option), name)), option.size)
                    worth = amount if scale is _ONE else EXACT.multiply(amount, scale)
                    self.known[id(option)] = view.label(option), option.asset, worth
            self.options = tuple(map(self.known.__getitem__, numbers))

    def net(self, asset: str | None = None) -> tuple[Decimal, Decimal]:
        """The sum, of one asset where it is named, and by how much the model may be wrong in it."""
        modelled = [row[2] for row in self.options if asset is None or row[1] == asset]
        with localcontext(EXACT):
            net = sum([row[2] for row in self.linear if asset is None or row[1] == asset], sum(modelled, _NONE))
            return net, MODEL_ERROR * sum(map(abs, modelled), _NONE)

    def shown(self) -> tuple[Contribution, ...]:
        if not shows_parts(self.view):
            return ()
        rounded = _ROUND_UP.quantize
        linear = [(label, amount) for label, _, amount in self.linear]
        return (*linear, *[(label, rounded(amount, _QUANTUM)) for label, _, amount in self.options])

    def observed(self, value: Decimal, error: Decimal, parts: tuple[Contribution, ...] | None = None) -> Observation:
        shown = self.shown() if parts is None else parts
        if not self.options:
            return Observation(value, shown)
        error = EXACT.add(EXACT.multiply(_TWO, _rounded(error)), _QUANTUM)
        return Observation(_rounded(value), shown, models=(MODEL,), error=error, basis=self.options)


def _rounded(value: Decimal) -> Decimal:
    return _ROUND_UP.quantize(value, _QUANTUM)


def _size_of(name: str, scale: Decimal = _ONE) -> Measure:
    """|net|."""

    def measure(view: View, scope: Scope, parameters: Parameters) -> Observation:
        rows = _Rows(view, scope, parameters, name, scale)
        net, error = rows.net()
        return rows.observed(EXACT.add(net.copy_abs(), error), error)

    return measure


def _short_of(name: str, scale: Decimal = _ONE) -> Measure:
    """How far the net is below zero."""

    def measure(view: View, scope: Scope, parameters: Parameters) -> Observation:
        rows = _Rows(view, scope, parameters, name, scale)
        net, error = rows.net()
        return rows.observed(max(EXACT.subtract(error, net), _NONE), error)

    return measure


def theta(view: View, scope: Scope, parameters: Parameters) -> Observation:
    rows = _Rows(view, scope, parameters, "theta", _ONE)
    net, error = rows.net()
    parts: tuple[Contribution, ...] = ()
    with localcontext(_ROUND_UP):
        if shows_parts(view):
            parts = tuple([(label, (value / 365).quantize(_QUANTUM)) for label, _, value in rows.options])
        return rows.observed((error - net) / 365, error / 365, parts)


def _by_asset(
    name: str, worth: Callable[[Decimal, Decimal], Decimal]
) -> Callable[[View, Scope, Parameters], Observation]:
    """Sum over assets of worth(|net|, price): nets within an asset, never across assets."""

    def measure(view: View, scope: Scope, parameters: Parameters) -> Observation:
        rows = _Rows(view, scope, parameters, name, _ONE)
        parts: list[Contribution] = []
        doubt = Decimal(0)
        for asset in sorted({row[1] for row in (*rows.linear, *rows.options)}):
            net, error = rows.net(asset)
            with localcontext(EXACT):
                parts.append((asset, worth(abs(net) + error, view.price(asset))))
                doubt += 2 * worth(error, view.price(asset))
        with localcontext(EXACT):
            value = sum((part for _, part in parts), Decimal(0))
        if not rows.options:
            return Observation(value, tuple(parts))
        return Observation(_rounded(value), tuple(parts), models=(MODEL,), error=_rounded(doubt), basis=rows.options)

    return measure


_EXPIRY = ("expiry",)
_OPTION_INPUTS = "options with their implied volatilities and forwards, prices, time"
_BUCKET = "; with `expiry` only the options of that bucket"
_ALL = ("portfolio", "asset", "venue")


def _metric(
    name: str, unit: str, definition: str, measure: Measure, scopes: tuple[str, ...] = _ALL, *, signed: bool = False
) -> Metric:
    inputs = _OPTION_INPUTS
    if "delta" in name or "gamma" in name:
        inputs = f"positions, holdings, debts, collateral, liquidity, {inputs}"
    return Metric(
        name,
        unit,
        "higher",
        definition + _BUCKET,
        inputs,
        measure,
        parameters=_EXPIRY,
        scopes=scopes,
        may_be_negative=signed,
    )


METRICS = (
    _metric(
        "delta", "units",
        "|net delta| of one asset: perps, holdings, collateral, debts (negative) and what liquidity positions hold at the index price, plus "
        "options x (F/S) N(d1)",
        _size_of("delta"), ("asset",),
    ),
    _metric(
        "dollar_delta", "USDC", "sum over assets of |net delta| x index price",
        _by_asset("delta", lambda net, price: net * price),
    ),
    _metric(
        "gamma", "units/USDC", "|net gamma| of one asset: change of delta for a price that is 1 higher, options and liquidity positions",
        _size_of("gamma"), ("asset",),
    ),
    _metric(
        "short_gamma", "units/USDC", "how far net gamma of one asset is below zero; 0 when it is not", _short_of("gamma"), ("asset",),
    ),
    _metric(
        "dollar_gamma", "USDC", "sum over assets of |net gamma| x price^2 / 100: change of dollar delta for a price move of 1 %",
        _by_asset("gamma", lambda net, price: net * price * price / 100),
    ),
    _metric(
        "vega", "USDC/point", "|net vega|: change of value when every implied volatility rises by one point (80 % to 81 %)",
        _size_of("vega", _POINT),
    ),
    _metric("short_vega", "USDC/point", "how far net vega is below zero; 0 when it is not", _short_of("vega", _POINT)),
    _metric(
        "theta", "USDC/day", "what the options lose in a day by time alone, spot, carry and volatility unchanged; negative when they gain",
        theta, signed=True,
    ),
    _metric("rho", "USDC/point", "|net rho|: change of value when the rate rises by one point, carry with it", _size_of("rho", _POINT)),
    _metric(
        "vanna", "units/point", "|net vanna| of one asset: change of delta when every implied volatility rises by one point",
        _size_of("vanna", _POINT), ("asset",),
    ),
    _metric(
        "volga", "USDC/point^2", "|net volga|: change of vega (a point) when every implied volatility rises by one point",
        _size_of("volga", _POINT * _POINT),
    ),
)  # fmt: skip
