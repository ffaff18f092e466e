"""Which rule of a policy lets a call pass: a guard's own call, the announced escape, a declared exit, an entry of `calls`, or none."""

from __future__ import annotations

from contracts.bindings import RiskState
from contracts.types import to_hex
from policies.calls import DecodedCall, argument
from policies.decision import CallRow
from policies.policy import CallRule, ExitRule, Pin, Policy, argument_word, resolve
from policies.portfolio import Facts

_GUARD_FUNCTIONS = ("execute(address,uint256)", "touch(address,uint256)")
_ESCAPE = ("seawall.emergency_freeze", "startEscape()")
EXITS = ("exit", "guard", "escape")
"""What stays open whatever the facts are. Mirror of EmergencyFreeze.permits, so that on chain and off chain it is the same set."""


def call_row(policy: Policy, facts: Facts, call: DecodedCall) -> CallRow:
    """The first rule that lets the call pass; which one it is decides nothing."""
    rule = ""
    if _is_guard(policy, call, facts):
        rule = "guard"
    elif (call.target_name, call.function) == _ESCAPE and not call.value_wei:
        rule = "escape"
    elif any(_exit_fits(policy, facts, exit_rule, call) for exit_rule in policy.exits):
        rule = "exit"
    else:
        for number, allowed in enumerate(policy.calls):
            if _call_fits(policy, facts, allowed, call):
                rule = f"calls[{number}]"
                break
    return CallRow(call.title, call.effect.value, rule)


def _is_guard(policy: Policy, call: DecodedCall, facts: Facts) -> bool:
    if call.target_name not in policy.guards or call.function not in _GUARD_FUNCTIONS or call.value_wei:
        return False
    return argument(call, "account") == to_hex(facts.account)


def _call_fits(policy: Policy, facts: Facts, rule: CallRule, call: DecodedCall) -> bool:
    if resolve(rule.target, policy, facts.book, facts.account) != call.target or call.value_wei > rule.max_value_wei:
        return False
    if not call.data:
        return not rule.selectors
    if call.selector not in rule.selectors:
        return False
    return all(_pin_fits(policy, facts, pin, call) for pin in rule.pins)


def _pin_fits(policy: Policy, facts: Facts, pin: Pin, call: DecodedCall) -> bool:
    given = argument(call, pin.argument)
    if given is None:
        return False
    if pin.values:
        addresses = (resolve(value, policy, facts.book, facts.account) for value in pin.values)
        names = {to_hex(address) for address in addresses if address is not None}
        return given in names or given in pin.values
    if not given.lstrip("-").isdigit():
        return False
    number = int(given)
    return (pin.minimum is None or number >= pin.minimum) and (pin.maximum is None or number <= pin.maximum)


def _exit_fits(policy: Policy, facts: Facts, rule: ExitRule, call: DecodedCall) -> bool:
    if resolve(rule.target, policy, facts.book, facts.account) != call.target or call.target == facts.account:
        return False
    if facts.state is RiskState.FROZEN and not rule.in_frozen:
        return False
    if rule.plain_value:
        return not call.data
    if call.value_wei or call.selector != rule.selector:
        return False
    return all(
        argument_word(text, policy, facts.book, facts.account) == call.data[4 + 32 * i : 36 + 32 * i]
        for i, text in rule.words
    )
