"""What an account is and holds now, for people to look at: state, guards, balances, and how far liquidation is."""

from __future__ import annotations

from dataclasses import dataclass
from decimal import Decimal
from typing import Any

from contracts import bindings as b
from contracts.bindings import RiskState
from contracts.entrypoint.base import BALANCE_OF
from contracts.errors import BadInput, InvalidFields
from contracts.types import Address, checksum, to_hex
from contracts.units import from_units
from policies.canonical import decimal_text
from policies.margin import Leg, critical_move, liquidation_price, ratio
from policies.portfolio import Portfolio, Price
from wallet.desk import Desk
from wallet.freezing import FreezeStatus, status

STOP_STATUS = ("none", "armed", "fired", "cancelled")
"""IStopLoss.Status."""


@dataclass(frozen=True, slots=True)
class ArmedStop:
    """One stop of the policy on chain. `trigger` in quote per base, of a trailing stop where its `mark` has brought it; `mark` is None of one
    that does not trail. `due_since_s` unix seconds, 0 while it is not due. Stops of one `group` (0: none) cancel each other.
    """

    id: int
    status: str
    trigger: Decimal
    is_below: bool
    due_since_s: int
    mark: Decimal | None
    group: int


@dataclass(frozen=True, slots=True)
class Overview:
    """One account at one moment. `policy_id` is None where no policy is in force on chain; `deposit_wei` is at the entry point."""

    address: Address
    chain_id: int
    deployed: bool
    state: RiskState
    policy_id: bytes | None
    policy_epoch: int
    policy_name: str
    validator: Address | None
    deposit_wei: int
    portfolio: Portfolio
    prices: tuple[Price, ...]
    stops: tuple[ArmedStop, ...]
    freeze: FreezeStatus | None
    missing: tuple[str, ...]

    def to_json(self) -> dict[str, Any]:
        """Amounts as decimal text, times in unix seconds."""
        found: dict[str, Any] = {
            "address": checksum(self.address),
            "chainId": self.chain_id,
            "deployed": self.deployed,
            "state": self.state.name,
            "validator": None if self.validator is None else checksum(self.validator),
            "policy": None
            if self.policy_id is None
            else {"id": to_hex(self.policy_id), "epoch": self.policy_epoch, "name": self.policy_name},
            "depositWei": str(self.deposit_wei),
            "balances": {h.asset: "0" for h in self.portfolio.holdings},
            "prices": {p.asset: decimal_text(p.value) for p in self.prices},
            "positions": [self._position(i) for i in range(len(self.portfolio.positions))],
            "margins": [
                {
                    "venue": m.venue,
                    "accountValue": decimal_text(m.account_value),
                    "freeCollateral": decimal_text(m.free_collateral),
                    "leverage": None if (lev := self.leverage(m.venue)) is None else f"{lev:.4f}",
                }
                for m in self.portfolio.margins
            ],
            "options": [
                {
                    "label": o.label,
                    "size": decimal_text(o.size),
                    "markPrice": decimal_text(o.mark_price),
                    "value": decimal_text(o.notional),
                    "impliedVol": None if o.implied_vol is None else decimal_text(o.implied_vol),
                }
                for o in self.portfolio.options
            ],
            "liquidity": [
                {
                    "label": pool.label,
                    "lowerPrice": decimal_text(pool.lower_price),
                    "upperPrice": decimal_text(pool.upper_price),
                    "uncollected": {pool.asset0: decimal_text(pool.owed0), pool.asset1: decimal_text(pool.owed1)},
                }
                for pool in self.portfolio.liquidity
            ],
            "loans": [
                {
                    "venue": loan.venue,
                    "collateralValue": decimal_text(loan.collateral_value),
                    "debtValue": decimal_text(loan.debt_value),
                    "healthFactor": None if loan.health_factor is None else decimal_text(loan.health_factor),
                }
                for loan in self.portfolio.loans
            ],
            "stops": [
                {
                    "id": s.id,
                    "status": s.status,
                    "trigger": decimal_text(s.trigger),
                    "when": "at or below" if s.is_below else "at or above",
                    "dueSince": s.due_since_s,
                    "mark": None if s.mark is None else decimal_text(s.mark),
                    "group": s.group,
                }
                for s in self.stops
            ],
            "missing": list(self.missing),
        }
        for asset in found["balances"]:
            found["balances"][asset] = decimal_text(
                sum((h.amount for h in self.portfolio.holdings if h.asset == asset), Decimal(0))
            )
        if self.freeze is not None:
            found["freeze"] = {
                "soloUntil": self.freeze.solo_until_s,
                "thawAt": self.freeze.thaw_at_s,
                "thawTo": self.freeze.thaw_to.name if self.freeze.thaw_at_s else None,
                "escapeAt": self.freeze.escape_at_s,
                "guardians": self.freeze.guardians,
                "quorum": self.freeze.quorum,
            }
        return found

    def leverage(self, venue: str) -> Decimal | None:
        """Gross notional at a venue over its account value; None when that is not positive."""
        value = next((m.account_value for m in self.portfolio.margins if m.venue == venue), Decimal(0))
        gross = sum((abs(p.notional) for p in self.portfolio.positions if p.venue == venue), Decimal(0))
        return ratio(gross, value, up=True) if value > 0 else None

    def _position(self, index: int) -> dict[str, Any]:
        position = self.portfolio.positions[index]
        found: dict[str, Any] = {
            "venue": position.venue,
            "asset": position.asset,
            "size": decimal_text(position.size),
            "notional": decimal_text(position.notional),
            "entryPrice": f"{ratio(position.entry_notional, position.size, up=False):.6f}",
            "markPrice": decimal_text(position.mark_price),
            "unrealisedProfit": decimal_text(position.notional - position.entry_notional),
            "liquidationPrice": None,
            "liquidationDistance": None,
        }
        margin = next((m for m in self.portfolio.margins if m.venue == position.venue), None)
        if margin is not None:
            legs = [Leg(p.asset, p.size, p.mark_price) for p in self.portfolio.positions if p.venue == margin.venue]
            price = liquidation_price(margin.account_value, margin.maintenance_ratio, legs, position.asset)
            move = critical_move(margin.account_value, margin.maintenance_ratio, legs, {position.asset})
            if price is not None and move is not None:
                found |= {"liquidationPrice": f"{price:.6f}", "liquidationDistance": f"{abs(move):.6f}"}
        return found


async def overview(desk: Desk) -> Overview:
    """Read it on the latest blocks. What cannot be read is named in `missing`. Raises NodeError when the node is away."""
    account, rpc = desk.account, desk.rpc
    deployed = await account.deployed()
    portfolio, prices, gaps = await desk.reader.look(account)
    missing = [f"{gap.what}: {gap.why}" for gap in gaps]
    stop_loss = desk.book.get("seawall.stop_loss")
    rules = () if desk.policy is None or stop_loss is None else desk.policy.stops
    reads = [(account.entry_point.address, BALANCE_OF.encode(account.address))]
    reads.append((account.address, b.RISK_STATE.encode()))
    reads.append((account.validator or bytes(20), b.POLICY_OF.encode(account.address)))
    for question in (b.STOP_OF, b.MARK_OF):
        reads += [(stop_loss, question.encode(account.address, rule.id)) for rule in rules if stop_loss is not None]
    request = b.encode_multicall(reads)
    answers = b.decode_multicall(await rpc.eth_call(desk.book["multicall3"], request))
    state, policy_id, epoch = RiskState.ACTIVE, None, 0
    if deployed:
        try:
            state = RiskState(b.RISK_STATE.decode(answers[1] or b"")[0])
        except InvalidFields:
            missing.append("state: the account does not answer; is it a RiskAccount?")
    if account.validator is not None:
        if deployed and answers[2] is not None:
            policy_id, epoch = b.POLICY_OF.decode(answers[2])
        elif not deployed and desk.policy is not None:
            policy_id, epoch = desk.policy.policy_id, 1
    in_force = desk.policy is not None and desk.policy.policy_id == policy_id
    freeze, module = None, desk.book.get("seawall.emergency_freeze")
    if deployed and module is not None:
        try:
            freeze = await status(rpc, module, account.address)
        except BadInput:
            freeze = None
    return Overview(
        address=account.address,
        chain_id=account.chain_id,
        deployed=deployed,
        state=state,
        policy_id=policy_id,
        policy_epoch=epoch,
        policy_name=f"{desk.policy.name} {desk.policy.version}"
        if in_force and desk.policy
        else "not the profile's file",
        validator=account.validator,
        deposit_wei=BALANCE_OF.decode(answers[0] or b"")[0],
        portfolio=portfolio,
        prices=prices,
        stops=tuple(
            _stop(rule.id, answer, mark)
            for rule, answer, mark in zip(rules, answers[3 : 3 + len(rules)], answers[3 + len(rules) :], strict=True)
            if answer and mark
        ),
        freeze=freeze,
        missing=tuple(missing),
    )


def _stop(stop_id: int, answer: bytes, mark_answer: bytes) -> ArmedStop:
    fields, stop_status, _, due_since, _ = b.STOP_OF.decode(answer)
    mark_wad, trigger_wad, since_s, _ = b.MARK_OF.decode(mark_answer)
    return ArmedStop(
        stop_id,
        STOP_STATUS[stop_status],
        from_units(trigger_wad if since_s else fields[3], 18),
        fields[2],
        due_since,
        from_units(mark_wad, 18) if since_s else None,
        fields[18],
    )
