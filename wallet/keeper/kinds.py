"""The guards that a keeper can watch: what their events and getters look like. One process watches one kind."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Protocol

from contracts.abi import Event, Function
from contracts.bindings import (
    BASKET_ARMED,
    BASKET_OF,
    HEALTH_ARMED,
    HEALTH_OF,
    HEALTH_RESTORED,
    HEDGE_ARMED,
    HEDGE_OF,
    HEDGED,
    REBALANCED,
    STOP_ARMED,
    STOP_EXECUTED,
    STOP_OF,
)

_FIRED = 2
"""IStopLoss.Status.FIRED."""


@dataclass(frozen=True, slots=True)
class Timing:
    """What a trigger's getter says: which arming, whether that is over, and its times (`triggers.Detail`)."""

    arming: int
    fired: bool
    due_since_s: int
    public_delay_s: int
    lapse_s: int


class GuardKind(Protocol):
    """One kind of guard module. Its armed event's topics are the account and the trigger's id."""

    @property
    def name(self) -> str:
        """As settings and the deployments file call the module."""

    @property
    def armed(self) -> Event:
        """Emitted whenever a trigger is armed."""

    @property
    def executed(self) -> Event:
        """Emitted for every execution."""

    @property
    def getter(self) -> Function:
        """(account, id) -> everything about a trigger."""

    @property
    def lane_bit(self) -> int:
        """Keeps the triggers of two modules of one account on two nonce lanes."""

    def timing(self, answer: tuple[Any, ...]) -> Timing:
        """From the getter's decoded answer."""

    def arming_of(self, values: tuple[Any, ...], /) -> int | None:
        """The arming in the executed event's arguments; None: it is that of `GuardFired` beside it."""

    def parts(self, values: tuple[Any, ...]) -> Mapping[str, str]:
        """What one execution did, from the executed event's arguments."""


@dataclass(frozen=True, slots=True)
class StopLossKind:
    name: str = "stop_loss"
    armed: Event = STOP_ARMED
    executed: Event = STOP_EXECUTED
    getter: Function = STOP_OF
    lane_bit: int = 0

    def timing(self, answer: tuple[Any, ...]) -> Timing:
        fields, status, arming, due_since, _ = answer
        widen_s, public_delay_s, (_, heartbeat_s, *_, patience_s) = fields[8], fields[10], fields[-1]
        lapse_s = max(widen_s, public_delay_s, patience_s) + heartbeat_s
        return Timing(arming, status == _FIRED, due_since, public_delay_s, lapse_s)

    def arming_of(self, values: tuple[Any, ...], /) -> int | None:
        arming: int = values[2]
        return arming

    def parts(self, values: tuple[Any, ...]) -> Mapping[str, str]:
        _, _, _, price, before, after = values
        return {"price": str(price), "size_before": str(before), "size_after": str(after)}


@dataclass(frozen=True, slots=True)
class HealthGuardKind:
    """It stays armed: every execution ends one arming and begins the next."""

    name: str = "health_guard"
    armed: Event = HEALTH_ARMED
    executed: Event = HEALTH_RESTORED
    getter: Function = HEALTH_OF
    lane_bit: int = 1 << 23

    def timing(self, answer: tuple[Any, ...]) -> Timing:
        fields, _, arming, due_since, _ = answer
        widen_s, public_delay_s, (_, heartbeat_s, *_, patience_s) = fields[13], fields[15], fields[19]
        lapse_s = max(widen_s, public_delay_s, patience_s) + heartbeat_s
        return Timing(arming, False, due_since, public_delay_s, lapse_s)

    def arming_of(self, _: tuple[Any, ...], /) -> int | None:
        return None

    def parts(self, values: tuple[Any, ...]) -> Mapping[str, str]:
        names = ("factor_before", "factor_after", "repaid", "supplied", "unwound")
        return dict(zip(names, map(str, values[2:]), strict=True))


@dataclass(frozen=True, slots=True)
class AutoRebalanceKind:
    """It stays armed: every execution ends one arming and begins the next."""

    name: str = "auto_rebalance"
    armed: Event = BASKET_ARMED
    executed: Event = REBALANCED
    getter: Function = BASKET_OF
    lane_bit: int = 1 << 22

    def timing(self, answer: tuple[Any, ...]) -> Timing:
        fields, is_armed, arming, due_since, _ = answer
        if not is_armed:
            return Timing(arming, False, 0, 0, 0)
        public_delay_s, (first, *_) = fields[12], fields[16]
        heartbeat_s = first[3][1]
        return Timing(arming, False, due_since, public_delay_s, public_delay_s + heartbeat_s)

    def arming_of(self, _: tuple[Any, ...], /) -> int | None:
        return None

    def parts(self, values: tuple[Any, ...]) -> Mapping[str, str]:
        *values_wad, limited = values[2:]
        names = ("equity_before", "equity_after", "turnover")
        return dict(zip(names, map(str, values_wad), strict=True)) | {"limited": "true" if limited else "false"}


@dataclass(frozen=True, slots=True)
class DeltaHedgeKind:
    """It stays armed: every execution ends one arming and begins the next."""

    name: str = "delta_hedge"
    armed: Event = HEDGE_ARMED
    executed: Event = HEDGED
    getter: Function = HEDGE_OF
    lane_bit: int = 3 << 22

    def timing(self, answer: tuple[Any, ...]) -> Timing:
        fields, _, arming, due_since, _ = answer
        public_delay_s, (_, heartbeat_s, *_) = fields[14], fields[18]
        return Timing(arming, False, due_since, public_delay_s, public_delay_s + heartbeat_s)

    def arming_of(self, _: tuple[Any, ...], /) -> int | None:
        return None

    def parts(self, values: tuple[Any, ...]) -> Mapping[str, str]:
        names = ("delta_before", "delta_after", "traded", "price")
        return dict(zip(names, map(str, values[2:]), strict=True))


STOP_LOSS: GuardKind = StopLossKind()
KINDS: Mapping[str, GuardKind] = {
    kind.name: kind for kind in (STOP_LOSS, HealthGuardKind(), AutoRebalanceKind(), DeltaHedgeKind())
}
