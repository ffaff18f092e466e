"""From `guards.stop_loss` of a policy to the configuration of StopLoss on chain. Pure: no calls, no keys."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from decimal import ROUND_CEILING, ROUND_FLOOR, Decimal, localcontext
from typing import Any

from contracts import abi
from contracts.bindings import ARM_STOP
from contracts.errors import BadInput
from contracts.types import Address
from contracts.units import WAD
from policies.guards import bound, oracle_config, whole_bps
from policies.margin import EXACT
from policies.policy import Policy
from policies.stop_rules import VENUES, StopRule

Book = Mapping[str, Address]
_NO_CAP = 2**128 - 1
_FIELDS = (
    "adapter", "market", "below", "trigger", "share", "largest part", "slippage", "largest slippage", "widens over",
    "cool-down", "public after", "refund share", "largest refund", "expires", "amount", "dust", "trail", "trail share", "group", "oracle",
)  # fmt: skip
STOP_TRIGGER, STOP_ENDS = _FIELDS.index("trigger"), _FIELDS.index("expires")


@dataclass(frozen=True, slots=True)
class StopConfig:
    """One stop as IStopLoss.Stop takes it. Prices and sizes 1e18 = one, shares in basis points, times in seconds.

    `trigger_wad` of a trailing stop is the price that its mark starts from.
    """

    id: int
    trigger_wad: int
    is_below: bool
    stop: tuple[object, ...]

    def arm(self) -> bytes:
        """Call data of `StopLoss.arm`."""
        return ARM_STOP.encode(self.id, self.stop)


def stop_market(rule: StopRule, policy: Policy, book: Book) -> tuple[Address, bytes]:
    """The adapter that sees the position, and the adapter's own name for it. Raises BadInput for an unbound name or venue."""
    where = VENUES.get(rule.venue)
    if where is None:
        raise BadInput(
            f"stop {rule.id} of policy {policy.name}: venue {rule.venue!r} has no adapter here; there is {', '.join(VENUES)}"
        )
    adapter = bound(where.adapter, policy, book)
    if rule.venue == "lyra":
        return adapter, abi.encode(["uint256"], [rule.position])
    if rule.venue == "perp":
        return adapter, abi.encode(["address"], [bound(f"perp.{rule.asset.lower()}", policy, book)])
    pair = [bound(rule.token, policy, book), bound(rule.quote, policy, book)]
    return adapter, abi.encode(["address", "address", "uint24"], [*pair, int(rule.pool_fee * 1_000_000)])


def stop_config(
    rule: StopRule, policy: Policy, book: Book, *, entry_price: Decimal | None, is_long: bool, now_s: int
) -> StopConfig:
    """One stop for a position. `entry_price` (quote per base) is that of a venue whose positions have one, else None. A `drop` of 12 % is 12 %
    against the position, a `gain` in its favour; a `price` is taken as it is. A trailing stop starts at its `start`, or at the entry price.

    The trigger is rounded towards the entry and a trailing distance down, so that neither is ever later than the file says. Raises BadInput for
    an unbound name, a venue without adapter, a share of an entry price that is not known, or a distance as large as the price it starts from.
    """
    adapter, market = stop_market(rule, policy, book)
    is_below = is_long != rule.is_profit
    with localcontext(EXACT):
        trigger = _trigger(rule, policy, entry_price, is_below=is_below)
        trigger_wad = int((trigger * WAD).to_integral_value(ROUND_CEILING if is_below else ROUND_FLOOR))
        cap = _NO_CAP if rule.max_size_per_execution is None else _wad(rule.max_size_per_execution)
        amount = 0 if rule.amount is None else _wad(rule.amount)
        distance = 0 if rule.trail_distance is None else _wad(rule.trail_distance)
    if is_below and rule.trails and distance >= trigger_wad:
        raise BadInput(
            f"stop {rule.id} of policy {policy.name}: a trail_distance of {rule.trail_distance} from {trigger:f} leaves no price to fire at"
        )
    stop = (
        adapter,
        market,
        is_below,
        trigger_wad,
        0 if amount else whole_bps(rule.size),
        cap,
        whole_bps(rule.slippage),
        whole_bps(rule.max_slippage),
        rule.widen_s,
        rule.cooldown_s,
        rule.public_delay_s,
        whole_bps(rule.refund_share),
        rule.refund_cap_wei,
        now_s + rule.valid_for_s if rule.valid_for_s else 0,
        amount,
        _wad(rule.dust),
        distance,
        0 if rule.trail is None else whole_bps(rule.trail),
        rule.group,
        oracle_config(rule.oracle, policy, book),
    )
    return StopConfig(rule.id, trigger_wad, is_below, stop)


def _trigger(rule: StopRule, policy: Policy, entry_price: Decimal | None, *, is_below: bool) -> Decimal:
    """The price at which the stop is due, or from which its mark starts."""
    fixed = rule.start if rule.trails else rule.price
    if fixed is not None:
        return fixed
    if entry_price is None:
        instead = "start" if rule.trails else "price"
        raise BadInput(
            f"stop {rule.id} of policy {policy.name}: {rule.venue} tells no entry price; write `{instead}` instead"
        )
    move = rule.gain if rule.drop is None else rule.drop
    return entry_price if move is None else entry_price * (1 - move if is_below else 1 + move)


def _wad(amount: Decimal) -> int:
    return int((amount * WAD).to_integral_value(ROUND_FLOOR))


def stop_fields(stop: Sequence[Any], show: Callable[[Any], str]) -> dict[str, str]:
    """What an IStopLoss.Stop says, for people and for comparison. `show` writes a value, addresses by their names."""
    fields = {label: show(value) for label, value in zip(_FIELDS, stop, strict=True)}
    fields["trigger"] = f"{Decimal(stop[STOP_TRIGGER]).scaleb(-18).normalize():f}"
    return fields
