"""What a well-formed policy file can still get wrong: references, contradictions, limits that bound nothing, guards that come too late."""

from __future__ import annotations

import re
from collections.abc import Mapping
from decimal import Decimal
from typing import Any

from policies import functions
from policies.breaker_checks import BreakerChecks
from policies.functions import Effect, KnownFunction
from policies.hedge_checks import HedgeChecks
from policies.hook_checks import HookChecks
from policies.linting import Tree
from policies.names import ACCOUNT, CONTRACTS, TOKEN_DECIMALS
from policies.policy import MAX_QUORUMS, selectors_of, word_of
from policies.problems import Problem, did_you_mean
from policies.rebalance_checks import RebalanceChecks
from policies.recovery_checks import RecoveryChecks
from policies.stop_checks import StopChecks
from policies.stop_rules import MAX_SLIPPAGE
from policies.structure import Places

_RECIPIENTS = ("to", "recipient", "onBehalfOf", "spender", "delegate")
_HEX = re.compile(r"0x([0-9a-f]{2})*\Z")
_TRIGGERS = (("stop_loss", "stop"), ("health", "health guard"), ("rebalance", "basket"), ("delta_hedge", "hedge"))
"""What a session can execute, by section of `guards`."""


def check(tree: Tree, places: Places, written: Mapping[str, str]) -> list[Problem]:
    """Every semantic problem of a merged document."""
    linter = _Linter(tree, places, written)
    linter.addresses()
    linter.facts()
    linter.limits()
    linter.approvals()
    linter.attestation()
    linter.calls()
    linter.exits()
    linter.stops()
    linter.healths()
    linter.rebalances()
    linter.hedges()
    linter.freeze()
    linter.recovery()
    linter.session()
    linter.hook()
    linter.breaker()
    linter.money()
    return linter.problems


class _Linter(HookChecks, BreakerChecks, RebalanceChecks, HedgeChecks, RecoveryChecks, StopChecks):
    # -- sections ---------------------------------------------------------------------------------------------------------

    def addresses(self) -> None:
        for name in self.tree.get("addresses", {}):
            if name == ACCOUNT or name in CONTRACTS:
                self.report(f"addresses.{name}", f"{name!r} is a name of Seawall's own", "choose another")
        for i, name in enumerate(self.tree.get("accounts", ())):
            self.party(f"accounts[{i}]", name)

    def facts(self) -> None:
        facts = self.tree.get("facts", {})
        for key in ("max_price_age", "max_block_age", "max_returns_age"):
            if facts.get(key) == "0":
                self.report(f"facts.{key}", "no fact is ever that fresh: everything would be denied")
        for key in ("max_price_deviation", "max_depeg"):
            self.share(f"facts.{key}", facts.get(key))
        for asset, pin in facts.get("feeds", {}).items():
            for key in ("feed", "aggregator"):
                self.party(f"facts.feeds.{asset}.{key}", pin.get(key))

    def attestation(self) -> None:
        entry = self.tree.get("attestation", {})
        engines = entry.get("engines", ["engine"])
        for i, name in enumerate(engines):
            self.party(f"attestation.engines[{i}]", name)
        if len(set(engines)) != len(engines):
            self.report("attestation.engines", "the same one twice")
        threshold = int(entry.get("threshold", 1))
        if not 1 <= threshold <= len(set(engines)):
            self.report(
                "attestation.threshold",
                f"{threshold} of {len(set(engines))} engines can never agree",
                "name more under engines",
            )

    def approvals(self) -> None:
        entries = self.tree.get("approvals", ())
        for path, entry in self.named(entries, "approvals"):
            self.quorum(path, entry, "signers")
        if len(entries) > MAX_QUORUMS:
            self.report("approvals", f"one operation may need {MAX_QUORUMS} quorums on chain, these are {len(entries)}")

    def quorum(self, path: str, entry: Tree, people: str) -> None:
        names, quorum = entry.get(people, []), entry.get("quorum")
        for i, name in enumerate(names):
            self.party(f"{path}.{people}[{i}]", name)
        if len(set(names)) != len(names):
            self.report(f"{path}.{people}", "the same one twice")
        if quorum is not None and not 1 <= int(quorum) <= len(set(names)):
            self.report(
                f"{path}.quorum", f"{quorum} of {len(set(names))} {people} is no quorum", f"1 to {len(set(names))}"
            )

    # -- calls and exits ----------------------------------------------------------------------------------------------------

    def functions_of(self, path: str, text: str, target: str) -> list[KnownFunction]:
        """Known functions that `text` means; what is not known by name is reported."""
        known = [f for s in selectors_of(text, target) if (f := functions.BY_SELECTOR.get(s)) is not None]
        if not known and "(" not in text and not text.startswith("0x"):
            advice = did_you_mean(text, functions.known_names())
            self.report(path, f"unknown function {text!r}", advice or "write its whole signature, or its 0x selector")
        return known

    def calls(self) -> None:
        entries = self.tree.get("calls", ())
        if not entries:
            self.warn("calls", "no calls are allowed: only declared exits pass")
        for i, entry in enumerate(entries):
            path, target = f"calls[{i}]", entry.get("target", "")
            self.party(f"{path}.target", target)
            if target == ACCOUNT:
                self.warn(f"{path}.target", "lets operations administer the account itself")
            if "functions" not in entry and Decimal(entry.get("max_value", "0")) <= 0:
                self.report(path, "allows nothing", "add functions:, or max_value: for plain transfers")
            known = [f for j, text in enumerate(entry.get("functions", ()))
                     for f in self.functions_of(f"{path}.functions[{j}]", text, target)]  # fmt: skip
            self.pins(entry.get("args", {}), known, path)
            for function in known:
                if function.effect is Effect.GRANTS and not self.pinned(entry, function):
                    self.report(path, f"{function.function.name} without a pinned spender lets anyone be paid",
                                f"add args: {{{self.recipient(function)}: ...}}")  # fmt: skip
                elif function.effect is Effect.PAYS and not self.pinned(entry, function):
                    self.warn(path, f"{function.function.name} pays anyone", "pin the recipient under args:")

    def pins(self, pins: Tree, known: list[KnownFunction], path: str) -> None:
        for name, value in pins.items():
            missing = [f for f in known if name not in f.arguments]
            if known and missing:
                advice = did_you_mean(name, missing[0].arguments)
                self.report(f"{path}.args.{name}", f"{missing[0].function.name} has no argument {name!r}", advice)
            elif not known:
                self.report(f"{path}.args.{name}", "arguments of a function that Seawall cannot read cannot be pinned")
            is_address = {f.types[f.arguments.index(name)] for f in known if name in f.arguments} == {"address"}
            for item in value if isinstance(value, list) else [value]:
                self.hexadecimal(f"{path}.args.{name}", item, (20,) if is_address else ())
                if is_address:
                    self.party(f"{path}.args.{name}", item)
            if isinstance(value, Mapping) and {"min", "max"} <= set(value) and int(value["min"]) > int(value["max"]):
                self.report(f"{path}.args.{name}", "min is above max")

    def hexadecimal(self, path: str, value: Any, lengths: tuple[int, ...] = ()) -> None:
        """Hex must be whole bytes, and as many of them as `lengths` admits (empty: any)."""
        if not isinstance(value, str) or not value.startswith("0x"):
            return
        if not _HEX.match(value):
            self.report(path, f"{value!r:.80} is not whole bytes in hex", "two digits a byte")
        elif lengths and len(value) // 2 - 1 not in lengths:
            wanted = " or ".join(str(n) for n in lengths)
            self.report(path, f"{value!r:.80} has {len(value) // 2 - 1} bytes, not {wanted}")

    @staticmethod
    def recipient(function: KnownFunction) -> str:
        return next((name for name in function.arguments if name in _RECIPIENTS), "")

    def pinned(self, entry: Tree, function: KnownFunction) -> bool:
        names = [name for name in function.arguments if name in _RECIPIENTS]
        return bool(names) and all(name in entry.get("args", {}) for name in names)

    def exits(self) -> None:
        entries = self.tree.get("exits", ())
        if self.guards.get("freeze") and not entries:
            self.warn("exits", "no exits: while the account is stopped nothing but the guards can reduce a position")
        for i, entry in enumerate(entries):
            path, target = f"exits[{i}]", entry.get("target", "")
            self.party(f"{path}.target", target)
            if target in (ACCOUNT, "seawall.emergency_freeze"):
                self.report(f"{path}.target", "can be no exit on chain", "its own way out is open anyway")
            if entry.get("plain_value") and "function" in entry:
                self.report(path, "plain_value and function exclude each other")
            elif not entry.get("plain_value"):
                self.exit_function(entry, path, target)

    def exit_function(self, entry: Tree, path: str, target: str) -> None:
        if "function" not in entry:
            self.report(path, "needs a function, or plain_value: true")
            return
        known = self.functions_of(f"{path}.function", entry["function"], target)
        if len(known) > 1:
            these = ", ".join(f.function.signature for f in known)
            self.report(f"{path}.function", "means several functions", f"write one of {these}")
        for name, value in entry.get("args", {}).items():
            self.hexadecimal(f"{path}.args.{name}", value, (20, 32))
            if not value.isdigit() and value not in ("true", "false"):
                self.party(f"{path}.args.{name}", value)
            try:
                word_of(known[0] if known else None, name)
            except KeyError:
                names = known[0].arguments if known else ()
                advice = did_you_mean(name, names) or "an exit pins whole words among the first eight"
                self.report(f"{path}.args.{name}", f"{name!r} cannot be pinned", advice)
        for function in known:
            if function.effect in (Effect.OPENS, Effect.ADMIN):
                self.report(path, f"{function.function.name} {function.effect.value}: that is no exit",
                            "exits only reduce risk")  # fmt: skip
            elif function.effect in (Effect.PAYS, Effect.GRANTS) and not self.pinned(entry, function):
                self.report(path, f"{function.function.name} without a pinned recipient is an unlimited exit",
                            f"add args: {{{self.recipient(function) or '0'}: ...}}")  # fmt: skip
        if not known and entry["function"].startswith("0x") and not entry.get("args"):
            self.warn(path, "an exit that Seawall cannot read, with nothing pinned")

    # -- guards ---------------------------------------------------------------------------------------------------------------

    def healths(self) -> None:
        for path, entry in self.named(self.guards.get("health", ()), "guards.health"):
            for key in ("collateral", "debt"):
                name = entry.get(key)
                if name is not None and name not in TOKEN_DECIMALS:
                    self.report(
                        f"{path}.{key}",
                        f"the decimals of {name!r} are not known",
                        "one of " + ", ".join(TOKEN_DECIMALS),
                    )
            if entry.get("collateral") == entry.get("debt"):
                self.report(f"{path}.debt", "collateral and debt are the same token")
            floor, target = Decimal(entry.get("floor", "1.1")), Decimal(entry.get("target", "2"))
            if floor <= 1:
                self.report(f"{path}.floor", "must be above 1: there the venue liquidates")
            if target <= floor:
                self.report(f"{path}.target", f"must be above the floor, {floor:f}")
            caps = {key: Decimal(entry.get(key, "0")) for key in ("max_repay", "max_top_up", "max_unwind")}
            for key, cap in caps.items():
                if cap < 0:
                    self.report(f"{path}.{key}", "must not be negative")
            if not any(caps.values()):
                self.report(path, "it may do nothing", "set max_repay, max_top_up or max_unwind")
            if caps["max_unwind"] > 0 and "oracle" not in entry:
                self.report(path, "a sale needs a guarded price", "add oracle: {feed: ..., heartbeat: ...}")
            slippage, most = Decimal(entry.get("slippage", "0.01")), Decimal(entry.get("max_slippage", "0.05"))
            if slippage < 0 or most < slippage or most > MAX_SLIPPAGE:
                self.report(f"{path}.max_slippage", f"must be from slippage ({slippage:%}) to 50%")
            for key in ("refund_share", "tolerance", "pool_fee"):
                self.share(f"{path}.{key}", entry.get(key))
            if "oracle" in entry:
                self.feed(entry["oracle"], f"{path}.oracle")

    def freeze(self) -> None:
        entry = self.guards.get("freeze")
        if entry is None:
            return
        self.quorum("guards.freeze", entry, "guardians")
        solo, cooldown = int(entry.get("solo_freeze", 21_600)), int(entry.get("cooldown", 86_400))
        if solo == 0 or cooldown <= solo:
            self.report("guards.freeze.cooldown", "must be longer than solo_freeze, which must be positive",
                        "else one guardian alone could hold the account for ever")  # fmt: skip
        if entry.get("escape_delay") == "0":
            self.report("guards.freeze.escape_delay", "must be positive: a freeze would hold nothing")

    def session(self) -> None:
        entry = self.guards.get("session")
        if entry is None:
            for section, what in _TRIGGERS:
                if self.guards.get(section):
                    self.warn(
                        f"guards.{section}",
                        f"no guards.session: only the owner can execute the {what} before public_delay",
                    )
            return
        self.party("guards.session.key", entry.get("key"))
        if not any(self.guards.get(section) for section, _ in _TRIGGERS):
            self.warn("guards.session", "a session without a stop, a health guard, a basket or a hedge can do nothing")
        if entry.get("valid_for") == "0":
            self.report("guards.session.valid_for", "must be positive")

    def money(self) -> None:
        budget = self.tree.get("sponsorship", {})
        one, day = budget.get("per_operation"), budget.get("per_day")
        if one is not None and day is not None and Decimal(one) > Decimal(day):
            self.warn("sponsorship.per_operation", "above per_day: the day's budget binds first")
        amounts = {f"sponsorship.{key}": value for key, value in budget.items()}
        amounts |= {
            f"calls[{i}].max_value": e["max_value"]
            for i, e in enumerate(self.tree.get("calls", ()))
            if "max_value" in e
        }
        amounts["guards.session.prefund_budget"] = self.guards.get("session", {}).get("prefund_budget", "0")
        for section, _ in _TRIGGERS:
            for one in self.guards.get(section, ()):
                amounts[f"guards.{section}.{one.get('id')}.refund_cap"] = one.get("refund_cap", "0")
        for path, amount in amounts.items():
            if Decimal(amount) < 0:
                self.report(path, "must not be negative")
            elif len(amount.partition(".")[2]) > 18:
                self.report(path, "ETH has 18 decimals")
        attestation = self.tree.get("attestation", {})
        for key in ("validity", "threshold", "escape_delay"):
            if attestation.get(key) == "0":
                self.report(f"attestation.{key}", "must be positive")
