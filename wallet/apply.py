"""Path 4, Apply: the difference between a policy file and an account on chain, and the operation that removes it.

The operation is itself judged, by the policy that is in force until it is done. What the account must announce is announced first and
carried out by a later run, when its delay is over: what has been done is read from the chain each time, so that nothing is lost by stopping.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Any

from contracts import bindings as b
from contracts.bindings import MODULE_VALIDATOR, Call, RiskState
from contracts.errors import BadInput
from contracts.types import Address, checksum, to_hex
from policies.configuration import RECOVERY_KEY, Change, Held, Present, Wanted, differences
from policies.policy import Policy, build
from wallet.config import data_directory
from wallet.configuration import read_present, read_sizes
from wallet.desk import Desk, registry
from wallet.policy_store import PolicyStore


@dataclass(frozen=True, slots=True)
class Plan:
    """What stands between an account and a policy on one block."""

    policy: Policy
    present: Present
    changes: tuple[Change, ...]

    @property
    def in_sync(self) -> bool:
        return not self.changes

    def due_at_s(self, change: Change) -> int | None:
        """When an announced change may be carried out, unix seconds; None when it is not announced yet."""
        if not change.announced:
            return None
        if change.announced_at:
            return self._announced_at_modules().get(change.announced)
        return self.present.announced.get(change.announced)

    def calls(self) -> list[Call]:
        """What one operation can do about it now, in order. Empty: nothing to do, or nothing but waiting.

        What must be done alone goes first, by itself; the rest is left to the operation after it.
        """
        possible = [(change, calls) for change in self.changes if (calls := self._possible(change))]
        apart = [(change, calls) for change, calls in possible if change.alone and not self._only_announces(change)]
        return [call for _, calls in apart or possible for call in calls]

    def _only_announces(self, change: Change) -> bool:
        return bool(change.announced) and self.due_at_s(change) is None

    def _possible(self, change: Change) -> tuple[Call, ...]:
        if not change.announced:
            return change.calls
        due_s, account, module = self.due_at_s(change), self.present.account, change.announced_at
        if due_s is None:
            if module:
                return (Call(module, b.HOOK_ANNOUNCE.encode(change.announced)),)
            return (Call(account, b.SCHEDULE_ADMIN.encode(change.announced)),)
        if due_s > self.present.time_s:
            return ()
        return (Call(module, change.announced) if module else Call(account, b.EXECUTE_ADMIN.encode(change.announced)),)

    def stray(self) -> dict[bytes, int]:
        """Announcements under way that no change of this plan made: somebody else's."""
        ours = {change.announced for change in self.changes}
        announced = {**self.present.announced, **self._announced_at_modules()}
        return {data: due_s for data, due_s in announced.items() if data not in ours}

    def _announced_at_modules(self) -> dict[bytes, int]:
        keepers = (self.present.hook, self.present.breaker, self.present.recovery)
        return {data: due_s for keeper in keepers if keeper is not None for data, due_s in keeper.announced.items()}

    def to_json(self) -> dict[str, Any]:
        present = self.present
        return {
            "account": checksum(present.account),
            "block": present.block_number,
            "state": present.state.name,
            "policy": {"file": to_hex(self.policy.policy_id), "onChain": to_hex(present.policy_id)},
            "inSync": self.in_sync,
            "changes": [
                change.to_json()
                | {"how": self.how(change), "dueAt": self.due_at_s(change) if change.announced else None}
                for change in self.changes
            ],
            "announcedElsewhere": [
                {"data": to_hex(data), "function": _function(data), "dueAt": due_s}
                for data, due_s in self.stray().items()
            ],
        }

    def how(self, change: Change) -> str:
        """How a change comes about, for people."""
        if not change.announced:
            return "in one operation"
        due_s = self.due_at_s(change)
        if due_s is None:
            return f"announced, and carried out {self._delay_s(change)} s later"
        if due_s <= self.present.time_s:
            return "announced and due: carried out by the next apply"
        return f"announced; from {at(due_s)} on"

    def _delay_s(self, change: Change) -> int:
        """How long an announcement waits, at the account or at the module that keeps it."""
        now = self.present
        keepers = {"breaker": now.breaker, RECOVERY_KEY: now.recovery}
        keeper = keepers.get(change.key, now.hook) if change.announced_at else None
        return now.admin_delay_s if keeper is None else keeper.change_delay_s

    def lines(self) -> list[str]:
        """The plan for people."""
        signs = {"add": "+", "change": "~", "remove": "-"}
        found = []
        for change in self.changes:
            how = "" if not change.announced else f"   ({self.how(change)})"
            if change.kind == "change":
                text = "; ".join(
                    f"{n + ' ' if n else ''}{old or 'nothing'} -> {new or 'nothing'}" for n, old, new in change.fields
                )
            else:
                shown = [(n, old if new is None else new) for n, old, new in change.fields]
                text = "; ".join(f"{n + ' ' if n else ''}{value}" for n, value in shown if len(str(value)) <= 200)
            found.append(f"{signs[change.kind]} {change.key}: {text}{how}")
        found += [
            f"! announced by somebody, and not by this plan: {_function(data)}, from {at(due_s)} on"
            for data, due_s in self.stray().items()
        ]
        return found


def at(seconds: int) -> str:
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%d %H:%M:%S UTC")


def _function(data: bytes) -> str:
    from policies.functions import BY_SELECTOR

    known = BY_SELECTOR.get(data[:4])
    return to_hex(data[:4]) if known is None else known.function.name


def store() -> PolicyStore:
    """The policies this user has worked with."""
    return PolicyStore(data_directory() / "policies")


async def plan_of(desk: Desk, policy: Policy) -> Plan:
    """What `policy` would change on the desk's account, on the latest block.

    Raises BadInput for an account that is not deployed, for names without address, and when the policy is for other accounts or chains;
    NodeError.
    """
    account = desk.account
    if policy.chains and account.chain_id not in policy.chains:
        raise BadInput(f"policy {policy.name} is for chains {policy.chains}, the account is on {account.chain_id}")
    present = await read_present(desk.rpc, account.address, desk.book)
    portfolio, _, _ = await desk.reader.look(account)
    held = {(p.venue, p.asset): Held(abs(p.entry_notional / p.size), p.size > 0) for p in portfolio.positions if p.size}
    sizes = await read_sizes(desk.rpc, account.address, policy, desk.book, present.block_number)
    store().keep(policy)
    return Plan(policy, present, differences(Wanted(policy, desk.book, present, held, sizes)))


def policy_in_force(desk: Desk, plan: Plan, current: Policy | None = None) -> Policy | None:
    """The policy that judges the change: the one whose id the account names. None: the account has none, its owner decides alone.

    It is `current` if that is the one, else looked for among those this user has worked with. Raises BadInput when it is not found.
    """
    present = plan.present
    if present.native_owner_path:
        return None
    wanted = present.policy_id
    for known in (plan.policy, current):
        if known is not None and known.policy_id == wanted:
            return known
    if current is not None:
        raise BadInput(
            f"--current is policy {to_hex(current.policy_id)}, the account is under {to_hex(wanted)}: only that one may judge the change"
        )
    found = store().find(wanted)
    if found is None:
        engine = replace(desk, policy=plan.policy).signer().engine
        recorded = None if engine is None else engine.log.policy(wanted)
        found = None if recorded is None else build(recorded[1])
    if found is None or found.policy_id != wanted:
        raise BadInput(
            f"the account is under policy {to_hex(wanted)}, which is not known here, and only that one may judge the change: "
            "name its file with --current"
        )
    return found


def calls_of(plan: Plan) -> list[Call]:
    """The calls of the operation that applies `plan`. Raises BadInput when it can do nothing now."""
    if plan.present.state is not RiskState.ACTIVE:
        raise BadInput(
            f"the account is {plan.present.state.name}, and its settings change only while it is ACTIVE: thaw it first "
            "(`seawall thaw`)"
        )
    calls = plan.calls()
    if not calls:
        due = [due_s for change in plan.changes if (due_s := plan.due_at_s(change)) is not None]
        raise BadInput(f"all that is left was announced and waits until {at(min(due))}; apply again then")
    return calls


def settle(desk: Desk, plan: Plan) -> None:
    """After an account without policy got one: the wallet's file of the account says that operations go through the validator now."""
    known = registry().find(desk.account.address, desk.account.chain_id)
    validator = desk.book.get("seawall.risk_validator")
    if known is not None and known.validator is None and (MODULE_VALIDATOR, validator) in plan.present.modules:
        registry().save(replace(known, validator=validator))


def trust_base(plan: Plan, book: Mapping[str, Address]) -> list[str]:
    """Every module of the account, by name: each is trusted with it."""
    names = {address: name for name, address in book.items()}
    kinds = {1: "validator", 2: "executor", 3: "fallback", 4: "hook"}
    return sorted(
        f"{names.get(module, 'unknown to this deployment')} {checksum(module)} ({kinds.get(kind, kind)})"
        for kind, module in plan.present.modules
    )
