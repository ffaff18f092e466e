"""The configuration of an account as the chain has it: what events name, confirmed by getters on one pinned block."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from contracts import bindings as b
from contracts.abi import Event, Function
from contracts.bindings import MODULE_EXECUTOR, MODULE_HOOK, MODULE_VALIDATOR, Exit, RiskState, Session
from contracts.errors import BadInput, RpcError
from contracts.rpc import RpcClient
from contracts.types import Address, checksum, keccak, parse_bytes, parse_hash
from policies.breakers import BreakerState
from policies.configuration import ARMED, Present
from policies.hooks import HookState
from policies.policy import Policy
from policies.recoveries import RecoveryState
from policies.stop_rules import VENUES
from policies.stops import stop_market

BATCH = 200
"""Reads in one eth_call."""


async def read_present(rpc: RpcClient, account: Address, book: Mapping[str, Address]) -> Present:
    """Everything that `policies.configuration` compares, on the latest block.

    The modules of `book` are looked at where they are installed; every other module that was ever installed and still is, is listed.
    Raises BadInput for an address without a RiskAccount or a book without multicall3, NodeError.
    """
    if "multicall3" not in book:
        raise BadInput("the deployment has no address of multicall3; set addresses.multicall3 in seawall.toml")
    block = await rpc.block()
    reader = _Reader(rpc, account, book["multicall3"], int(block["number"], 16))
    if not await rpc.get_code(account):
        raise BadInput(
            f"{checksum(account)} is not deployed: its first operation brings it to life with the policy it was created with"
        )
    first = await _born_at(rpc, account, reader.block_number)
    at = {name: book.get(f"seawall.{name}", bytes(20)) for name in _MODULES}
    named = await reader.named(first, at)
    core = await reader.read(
        [(account, f, ()) for f in (b.RISK_STATE, b.RISK_AUTHORITY, b.NATIVE_OWNER_PATH, b.ADMIN_DELAY)]
    )
    if any(answer is None for answer in core):
        raise BadInput(
            f"{checksum(account)} is no RiskAccount: it does not answer riskState, riskAuthority, adminDelay"
        )
    (state, epoch), (authority,), (native,), (admin_delay_s,) = core  # type: ignore[misc]
    kinds = dict.fromkeys((*named.modules, *((kind, at[name]) for name, kind in _MODULES.items() if any(at[name]))))
    installed = await reader.that(account, b.IS_MODULE_INSTALLED, [(kind, module, b"") for kind, module in kinds])
    modules = frozenset((kind, module) for kind, module, _ in installed)
    scheduled = await reader.answers(account, b.ADMIN_EXECUTABLE_AT, [(keccak(data),) for data in named.announced])
    found: dict[str, Any] = {}
    for name, kind in _MODULES.items():
        if (kind, at[name]) in modules:
            found |= await _DETAILS[name](reader, at[name], named)
    return Present(
        account=account,
        block_number=reader.block_number,
        time_s=int(block["timestamp"], 16),
        state=RiskState(state),
        state_epoch=epoch,
        modules=modules,
        authority=authority,
        native_owner_path=native,
        admin_delay_s=admin_delay_s,
        announced={
            data: answer[0]
            for data, answer in zip(named.announced, scheduled, strict=True)
            if answer is not None and answer[0]
        },
        **found,
    )


_MODULES = {
    "risk_validator": MODULE_VALIDATOR,
    "session_validator": MODULE_VALIDATOR,
    "stop_loss": MODULE_EXECUTOR,
    "health_guard": MODULE_EXECUTOR,
    "auto_rebalance": MODULE_EXECUTOR,
    "delta_hedge": MODULE_EXECUTOR,
    "emergency_freeze": MODULE_EXECUTOR,
    "policy_hook": MODULE_HOOK,
    "equity_breaker": MODULE_EXECUTOR,
    "recovery": MODULE_EXECUTOR,
}


async def read_sizes(
    rpc: RpcClient, account: Address, policy: Policy, book: Mapping[str, Address], block_number: int
) -> dict[int, int]:
    """What the account holds of each stop's position where the venue tells no entry price: signed size (1e18 = one), by the stop's id, as the
    adapter answers. A position that is not the venue's, or not yet, is none. Raises BadInput for an unbound name, NodeError.
    """
    rules = [rule for rule in policy.stops if not VENUES[rule.venue].has_entry]
    questions = []
    for rule in rules:
        adapter, market = stop_market(rule, policy, book)
        questions.append((adapter, b.POSITION_OF, (account, market)))
    answers = await _Reader(rpc, account, book["multicall3"], block_number).read(questions)
    return {rule.id: answer[0][0] for rule, answer in zip(rules, answers, strict=True) if answer is not None}


@dataclass(frozen=True, slots=True)
class _Named:
    """Everything that the account's events have ever named, each once, in the order of the chain."""

    modules: tuple[tuple[int, Address], ...]
    announced: tuple[bytes, ...]
    engines: tuple[Address, ...]
    quorums: Mapping[bytes, tuple[Address, ...]]
    guardians: tuple[Address, ...]
    guards: tuple[Address, ...]
    exits: tuple[Exit, ...]
    sessions: tuple[bytes, ...]
    stops: tuple[int, ...]
    healths: tuple[int, ...]
    baskets: tuple[int, ...]
    hedges: tuple[int, ...]
    hook_rules: tuple[tuple[Address, bytes], ...]
    hook_caps: tuple[tuple[Address, Address], ...]
    hook_allowances: tuple[bytes, ...]
    hook_announced: tuple[bytes, ...]
    breaker_announced: tuple[bytes, ...]
    recovery_announced: tuple[bytes, ...]


@dataclass(frozen=True, slots=True)
class _Reader:
    """Reads about one account on one block."""

    rpc: RpcClient
    account: Address
    multicall3: Address
    block_number: int

    async def read(
        self, questions: Sequence[tuple[Address, Function, Sequence[object]]]
    ) -> list[tuple[Any, ...] | None]:
        """The decoded answers in order; None where a call reverts or answers something else."""
        answers: list[tuple[Any, ...] | None] = []
        for start in range(0, len(questions), BATCH):
            part = questions[start : start + BATCH]
            data = b.encode_multicall([(to, function.encode(*arguments)) for to, function, arguments in part])
            raw = await self.rpc.eth_call(self.multicall3, data, block=hex(self.block_number))
            for (_, function, _), answer in zip(part, b.decode_multicall(raw), strict=True):
                answers.append(_decoded(function, answer))
        return answers

    async def answers(
        self, to: Address, function: Function, arguments: Sequence[Sequence[object]]
    ) -> list[tuple[Any, ...] | None]:
        return await self.read([(to, function, one) for one in arguments])

    async def that(self, to: Address, function: Function, arguments: Sequence[Any]) -> list[Any]:
        """Those of `arguments` for which `function` answers true."""
        answers = await self.answers(to, function, arguments)
        return [one for one, answer in zip(arguments, answers, strict=True) if answer is not None and answer[0]]

    async def logs(self, event: Event, address: Address, first: int, *, mine: bool = True) -> list[tuple[Any, ...]]:
        """Arguments of `event` at `address`; `mine`: its first topic is the account."""
        if not any(address):
            return []
        topics: list[bytes | None] = [event.topic, bytes(12) + self.account] if mine else [event.topic]
        raw = await self._logs(address, topics, first, self.block_number)
        return [
            event.decode([parse_hash(topic) for topic in log["topics"]], parse_bytes(log["data"], "log")) for log in raw
        ]

    async def _logs(self, address: Address, topics: list[bytes | None], first: int, last: int) -> list[dict[str, Any]]:
        """All of a range, in halves where the node finds it too large. Raises RpcError when it refuses a single block."""
        try:
            return await self.rpc.logs(address, topics, first, last)
        except RpcError:
            if first >= last:
                raise
            middle = (first + last) // 2
            return [
                *await self._logs(address, topics, first, middle),
                *await self._logs(address, topics, middle + 1, last),
            ]

    async def named(self, first: int, at: Mapping[str, Address]) -> _Named:
        freeze, risk, sessions = at["emergency_freeze"], at["risk_validator"], at["session_validator"]
        hook = at["policy_hook"]
        quorums: dict[bytes, tuple[Address, ...]] = {}
        for _, quorum_id, _, signers in await self.logs(b.SIGNER_QUORUM_SET, risk, first):
            quorums[quorum_id] = tuple(dict.fromkeys((*quorums.get(quorum_id, ()), *signers)))
        return _Named(
            modules=_once(await self.logs(b.MODULE_INSTALLED, self.account, first, mine=False), lambda log: tuple(log)),
            announced=_once(await self.logs(b.ADMIN_SCHEDULED, self.account, first, mine=False), lambda log: log[1]),
            engines=_once(await self.logs(b.ENGINE_SET, risk, first), lambda log: log[1]),
            quorums=quorums,
            guardians=_once(await self.logs(b.GUARDIAN_SET, freeze, first), lambda log: log[1]),
            guards=_once(await self.logs(b.GUARD_SET, freeze, first), lambda log: log[1]),
            exits=_once(await self.logs(b.EXIT_SET, freeze, first), lambda log: _exit(log[2])),
            sessions=_once(await self.logs(b.SESSION_ENABLED, sessions, first), lambda log: log[1]),
            healths=_once(await self.logs(b.HEALTH_ARMED, at["health_guard"], first), lambda log: log[1]),
            baskets=_once(await self.logs(b.BASKET_ARMED, at["auto_rebalance"], first), lambda log: log[1]),
            hedges=_once(await self.logs(b.HEDGE_ARMED, at["delta_hedge"], first), lambda log: log[1]),
            stops=_once(await self.logs(b.STOP_ARMED, at["stop_loss"], first), lambda log: log[1]),
            hook_rules=_once(await self.logs(b.HOOK_RULE_SET, hook, first), lambda log: (log[1], log[2])),
            hook_caps=_once(await self.logs(b.HOOK_APPROVAL_SET, hook, first), lambda log: (log[1], log[2])),
            hook_allowances=_once(await self.logs(b.HOOK_ALLOWANCE_SET, hook, first), lambda log: log[1]),
            hook_announced=_once(await self.logs(b.HOOK_CHANGE_ANNOUNCED, hook, first), lambda log: log[2]),
            breaker_announced=_once(
                await self.logs(b.BREAKER_CHANGE_ANNOUNCED, at["equity_breaker"], first), lambda log: log[2]
            ),
            recovery_announced=_once(
                await self.logs(b.HOOK_CHANGE_ANNOUNCED, at["recovery"], first), lambda log: log[2]
            ),
        )


def _once(logs: Sequence[tuple[Any, ...]], of: Callable[[tuple[Any, ...]], Any]) -> tuple[Any, ...]:
    return tuple(dict.fromkeys(of(log) for log in logs))


def _decoded(function: Function, answer: bytes | None) -> tuple[Any, ...] | None:
    if answer is None:
        return None
    try:
        return function.decode(answer)
    except BadInput:
        return None


def _exit(fields: Sequence[Any]) -> Exit:
    target, selector, in_frozen, plain_value, mask, args = fields
    return Exit(target, selector, in_frozen, plain_value, mask, tuple(args))


def _sound(answer: tuple[Any, ...] | None, what: str) -> tuple[Any, ...]:
    if answer is None:
        raise BadInput(
            f"{what} does not answer: it is another version than this Seawall's; compare its address with the deployment's"
        )
    return answer


async def _risk_validator(reader: _Reader, module: Address, named: _Named) -> dict[str, Any]:
    account = reader.account
    functions = (b.POLICY_OF, b.THRESHOLD_OF, b.ESCAPE_DELAY_OF, b.ESCAPE_OPEN_AT)
    answers = await reader.read([(module, function, (account,)) for function in functions])
    (policy_id, epoch), (threshold,), (delay_s,), (open_at_s,) = (_sound(one, "RiskValidator") for one in answers)
    engines = await reader.that(module, b.ENGINE_ENABLED, [(account, engine) for engine in named.engines])
    registered = await reader.answers(module, b.SIGNER_QUORUM_OF, [(account, one) for one in named.quorums])
    quorums = {}
    for (quorum_id, signers), answer in zip(named.quorums.items(), registered, strict=True):
        if answer is not None and answer[0]:
            seated = await reader.that(module, b.IS_SIGNER, [(account, quorum_id, one) for one in signers])
            quorums[quorum_id] = (answer[0], frozenset(one for _, _, one in seated))
    return {
        "policy_id": policy_id,
        "policy_epoch": epoch,
        "threshold": threshold,
        "escape_delay_s": delay_s,
        "escape_open_at_s": open_at_s,
        "engines": frozenset(engine for _, engine in engines),
        "quorums": quorums,
    }


async def _session_validator(reader: _Reader, module: Address, named: _Named) -> dict[str, Any]:
    answers = await reader.answers(module, b.SESSION_OF, [(reader.account, one) for one in named.sessions])
    alive = [Session(*answer[0]) for answer in answers if answer is not None and any(answer[0][0])]
    return {"sessions": tuple(alive)}


async def _stop_loss(reader: _Reader, module: Address, named: _Named) -> dict[str, Any]:
    answers = await reader.answers(module, b.STOP_OF, [(reader.account, one) for one in named.stops])
    armed = {
        one: answer[0]
        for one, answer in zip(named.stops, answers, strict=True)
        if answer is not None and answer[1] == ARMED
    }
    return {"stops": armed}


async def _health_guard(reader: _Reader, module: Address, named: _Named) -> dict[str, Any]:
    answers = await reader.answers(module, b.HEALTH_OF, [(reader.account, one) for one in named.healths])
    armed = {
        one: answer[0] for one, answer in zip(named.healths, answers, strict=True) if answer is not None and answer[1]
    }
    return {"healths": armed}


async def _auto_rebalance(reader: _Reader, module: Address, named: _Named) -> dict[str, Any]:
    answers = await reader.answers(module, b.BASKET_OF, [(reader.account, one) for one in named.baskets])
    armed = {
        one: answer[0] for one, answer in zip(named.baskets, answers, strict=True) if answer is not None and answer[1]
    }
    return {"baskets": armed}


async def _delta_hedge(reader: _Reader, module: Address, named: _Named) -> dict[str, Any]:
    answers = await reader.answers(module, b.HEDGE_OF, [(reader.account, one) for one in named.hedges])
    armed = {
        one: answer[0] for one, answer in zip(named.hedges, answers, strict=True) if answer is not None and answer[1]
    }
    return {"hedges": armed}


async def _emergency_freeze(reader: _Reader, module: Address, named: _Named) -> dict[str, Any]:
    account = reader.account
    quorum, delays = await reader.read([(module, function, (account,)) for function in (b.QUORUM_OF, b.DELAYS_OF)])
    guardians = await reader.that(module, b.IS_GUARDIAN, [(account, one) for one in named.guardians])
    guards = await reader.that(module, b.IS_GUARD, [(account, one) for one in named.guards])
    asked = [(account, one.to_abi()) for one in named.exits]
    answers = await reader.answers(module, b.IS_EXIT, asked)
    return {
        "guardians_quorum": _sound(quorum, "EmergencyFreeze")[0],
        "delays_s": tuple(_sound(delays, "EmergencyFreeze")[0]),
        "guardians": frozenset(one for _, one in guardians),
        "guards": frozenset(one for _, one in guards),
        "exits": tuple(
            one for one, answer in zip(named.exits, answers, strict=True) if answer is not None and answer[0]
        ),
    }


async def _policy_hook(reader: _Reader, module: Address, named: _Named) -> dict[str, Any]:
    account = reader.account
    functions = (b.HOOK_SETTINGS_OF, b.HOOK_WINDOWS_OF)
    settings, windows = await reader.read([(module, function, (account,)) for function in functions])
    _, (authority, delay_s, enforces) = _sound(settings, "PolicyHook")
    rules = {}
    answers = await reader.answers(module, b.HOOK_RULE_OF, [(account, *key) for key in named.hook_rules])
    for key, answer in zip(named.hook_rules, answers, strict=True):
        if answer is not None and answer[0]:
            _, _, flags, any_of = answer[1]
            rules[key] = (flags, tuple(tuple((kind, word, tuple(of)) for kind, word, of in one) for one in any_of))
    caps = await reader.answers(module, b.HOOK_APPROVAL_OF, [(account, *key) for key in named.hook_caps])
    kept = await reader.answers(module, b.HOOK_ALLOWANCE_OF, [(account, one) for one in named.hook_allowances])
    (breaker,) = await reader.read([(module, b.HOOK_BREAKER_OF, (account,))])
    state = HookState(
        authority=authority,
        change_delay_s=delay_s,
        enforces=enforces,
        rules=rules,
        windows=tuple(tuple(one) for one in _sound(windows, "PolicyHook")[0]),
        caps={
            key: answer[0]
            for key, answer in zip(named.hook_caps, caps, strict=True)
            if answer is not None and answer[0]
        },
        allowances=frozenset(
            one
            for one, answer in zip(named.hook_allowances, kept, strict=True)
            if answer is not None and any(answer[0][1:5])
        ),
        announced=await _announced(reader, module, named.hook_announced),
    )
    return {"hook": state, "hook_breaker": _sound(breaker, "PolicyHook")[0]}


async def _equity_breaker(reader: _Reader, module: Address, named: _Named) -> dict[str, Any]:
    (answer,) = await reader.read([(module, b.BREAKER_CONFIG_OF, (reader.account,))])
    _, config = _sound(answer, "EquityBreaker")
    return {"breaker": BreakerState(config, await _announced(reader, module, named.breaker_announced))}


async def _announced(reader: _Reader, module: Address, changes: Sequence[bytes]) -> dict[bytes, int]:
    """When those changes that are still announced at a module may be carried out."""
    due = await reader.answers(module, b.HOOK_EXECUTABLE_AT, [(reader.account, keccak(data)) for data in changes])
    return {data: answer[0] for data, answer in zip(changes, due, strict=True) if answer is not None and answer[0]}


async def _recovery(reader: _Reader, module: Address, named: _Named) -> dict[str, Any]:
    (answer,) = await reader.answers(module, b.RECOVERY_SETTINGS_OF, [(reader.account,)])
    _, settings = _sound(answer, "Recovery")
    settings = tuple(tuple(one) if isinstance(one, list) else one for one in settings)
    return {"recovery": RecoveryState(settings, await _announced(reader, module, named.recovery_announced))}


_DETAILS = {
    "risk_validator": _risk_validator,
    "session_validator": _session_validator,
    "stop_loss": _stop_loss,
    "health_guard": _health_guard,
    "auto_rebalance": _auto_rebalance,
    "delta_hedge": _delta_hedge,
    "emergency_freeze": _emergency_freeze,
    "policy_hook": _policy_hook,
    "equity_breaker": _equity_breaker,
    "recovery": _recovery,
}


async def _born_at(rpc: RpcClient, account: Address, head: int) -> int:
    """The first block with code at `account`; 0 where the node does not know the past (every event is looked for from there on)."""
    low, high = 0, head
    try:
        while low < high:
            middle = (low + high) // 2
            if await rpc.get_code(account, block=hex(middle)):
                high = middle
            else:
                low = middle + 1
    except RpcError:
        return 0
    return low
