"""Where the gas of one operation goes: every opcode of its transaction, by contract and by kind.

    python -m benchmarks.gas.anatomy [--json]

The operations are those of `benchmarks.gas.accounts`. Each is traced with the node's struct logs right before it is sent; a step costs
what the gas counter falls by until the next step of the same frame, without what the frames it opened spent. Calls of code-less addresses
(precompiles, plain transfers) are counted with the call. The intrinsic part is what the transaction pays before its first step: 21,000,
and its calldata at 4 gas a zero byte and 16 another. Refunds are subtracted at the end, so that a table adds up to the gas used.
"""

from __future__ import annotations

import asyncio
import json
import sys
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from benchmarks.gas import accounts
from contracts.abi import Function, encode
from contracts.deploy import deploy
from contracts.devnet import Devnet
from contracts.devnet.uniswap_v3 import SPOT_FEE_PIPS
from contracts.entrypoint import V08
from contracts.eoa import TransactionSender
from contracts.types import Address, to_hex

KINDS = ("storage read", "storage write", "call", "precompile", "create", "log", "hash", "code read", "other opcodes")
_CALLS = frozenset({"CALL", "STATICCALL", "DELEGATECALL", "CALLCODE"})
_CREATES = frozenset({"CREATE", "CREATE2"})
_PRECOMPILES = range(1, 0x12)


@dataclass(slots=True)
class _Frame:
    """An execution frame under way. `gas` is the counter at its last step, `spent` what its children took since that step."""

    name: str
    op: str = ""
    kind: str = ""
    gas: int = 0
    children: int = 0
    entry_gas: int = 0


@dataclass(slots=True)
class Anatomy:
    """Gas by (contract, kind), and the parts of a transaction that no opcode pays."""

    gas_used: int
    intrinsic: int
    cells: Counter[tuple[str, str]] = field(default_factory=Counter)

    @property
    def refund(self) -> int:
        """What is given back for storage that became empty."""
        return self.intrinsic + sum(self.cells.values()) - self.gas_used

    def by_kind(self) -> dict[str, int]:
        found: Counter[str] = Counter()
        for (_, kind), gas in self.cells.items():
            found[kind] += gas
        return {
            "intrinsic": self.intrinsic,
            **{kind: found[kind] for kind in KINDS if found[kind]},
            "refund": -self.refund,
        }

    def by_contract(self) -> dict[str, dict[str, int]]:
        names = dict.fromkeys(name for name, _ in self.cells)
        return {name: {kind: self.cells[name, kind] for kind in KINDS if self.cells[name, kind]} for name in names}


def intrinsic_gas(data: bytes) -> int:
    """What a transaction that calls with `data` pays before its first step. Source: EIP-2028."""
    zeros = data.count(0)
    return 21_000 + 4 * zeros + 16 * (len(data) - zeros)


def _kind(op: str, target: int) -> str:
    match op:
        case "SLOAD" | "TLOAD":
            return "storage read"
        case "SSTORE" | "TSTORE":
            return "storage write"
        case "KECCAK256":
            return "hash"
        case "EXTCODECOPY" | "EXTCODESIZE" | "EXTCODEHASH" | "CODECOPY":
            return "code read"
    if op in _CREATES:
        return "create"
    if op in _CALLS:
        return "precompile" if target in _PRECOMPILES else "call"
    return "log" if op.startswith("LOG") else "other opcodes"


def dissect(steps: Sequence[dict[str, Any]], entry: str, names: dict[int, str]) -> Counter[tuple[str, str]]:
    """Gas by (contract, kind) from the struct logs of one transaction to `entry`; `names` by code address.

    Every step is charged once: the sum is the gas between the first and the last step.
    """
    cells: Counter[tuple[str, str]] = Counter()
    frames: list[_Frame] = []

    def settle(frame: _Frame, gas: int) -> None:
        if frame.op:
            cells[frame.name, frame.kind] += frame.gas - gas - frame.children
        frame.children = 0

    for at, step in enumerate(steps):
        depth, gas, op = step["depth"], step["gas"], step["op"]
        while len(frames) > depth:  # a frame ended; its last step costs what the node says
            ended = frames.pop()
            cells[ended.name, ended.kind] += steps[at - 1]["gasCost"] if ended.op in _ENDS else 0
            frames[-1].children += ended.entry_gas - (
                ended.gas - (steps[at - 1]["gasCost"] if ended.op in _ENDS else 0)
            )
        if len(frames) < depth:
            name = entry if not frames else _callee(steps[at - 1], names)
            frames.append(_Frame(name, entry_gas=gas))
        frame = frames[-1]
        settle(frame, gas)
        stack = step.get("stack") or []
        target = int(stack[-2], 16) & (2**160 - 1) if op in _CALLS and len(stack) > 1 else 0
        frame.op, frame.gas, frame.kind = op, gas, _kind(op, target)
    while frames:
        ended = frames.pop()
        cells[ended.name, ended.kind] += steps[-1]["gasCost"]
    return cells


_ENDS = frozenset({"RETURN", "REVERT", "STOP", "SELFDESTRUCT", "INVALID"})


def _callee(step: dict[str, Any], names: dict[int, str]) -> str:
    if step["op"] in _CREATES:
        return "creation code"
    target = int(step["stack"][-2], 16) & (2**160 - 1)
    return names.get(target, "account")


async def _pool(net: Devnet) -> Address:
    """Of wrapped ether and USDC, where the stop sells."""
    where = net.addresses
    answer = await net.rpc.eth_call(where.uniswap_factory, _GET_POOL.encode(where.weth, where.usdc, SPOT_FEE_PIPS))
    pool: Address = _GET_POOL.decode(answer)[0]
    return pool


_GET_POOL = Function.parse("getPool(address,address,uint24)(address)")


async def measure() -> dict[str, Anatomy]:
    """The operations of the gas benchmark, dissected; of repeated ones the last."""
    async with Devnet.start(port=0) as net:
        sender = TransactionSender(net.rpc, net.accounts.deployer, net.chain_id)
        token = await deploy(sender, accounts.token_code() + encode(["address"], [net.accounts.deployer.address]))
        where, people = net.addresses, net.accounts
        names: dict[Address, str] = {
            V08.address: "entry point",
            token: "token",
            where.risk_account_factory: "factory",
            where.risk_account_implementation: "RiskAccount",
            where.risk_validator: "RiskValidator",
            where.session_validator: "SessionValidator",
            where.policy_hook: "PolicyHook",
            where.stop_loss: "StopLoss",
            where.uniswap_adapter: "UniswapV3Adapter",
            where.uniswap_router: "Uniswap",
            where.feed_eth_usd: "feed",
            where.weth: "tokens",
            where.usdc: "tokens",
            await _pool(net): "Uniswap",
            where.uniswap_factory: "Uniswap",
        }
        by_number = {int.from_bytes(address): name for address, name in names.items()}
        found: dict[str, Anatomy] = {}

        async def watch(name: str, data: bytes) -> None:
            request = {
                "from": to_hex(people.deployer.address),
                "to": to_hex(V08.address),
                "data": to_hex(data),
                "gas": hex(16_000_000),
            }
            options = {"disableStorage": True, "disableMemory": True}
            trace = await net.rpc.call("debug_traceCall", request, "latest", options)
            cells = dissect(trace["structLogs"], "entry point", by_number)
            found[name] = Anatomy(int(trace["gas"]), intrinsic_gas(data), cells)

        bench = accounts.Bench(net, sender, token, watch)
        await accounts.warm(bench)
        await accounts.owner_path(bench, people.owner)
        await accounts.attested(bench, people.owner, people.engine)
        await accounts.by_session(bench, people.owner, people.keeper)
        await accounts.by_session(bench, people.owner, people.keeper, 1_000)
        await accounts.hooked(bench, people.owner)
        await accounts.stopped(bench, people.owner)
        return found


def table(name: str, one: Anatomy) -> list[str]:
    """One operation: kinds down, contracts across."""
    contracts = list(one.by_contract())
    lines = [f"{name}: {one.gas_used:,}", f"{'':<16}" + "".join(f"{contract:>18}" for contract in [*contracts, "sum"])]
    by_contract = one.by_contract()
    for kind, total in one.by_kind().items():
        cells = [by_contract[contract].get(kind, 0) for contract in contracts]
        lines.append(f"{kind:<16}" + "".join(f"{cell or '-':>18}" for cell in cells) + f"{total:>18,}")
    sums = [sum(by_contract[contract].values()) for contract in contracts]
    lines.append(f"{'sum':<16}" + "".join(f"{cell:>18,}" for cell in sums) + f"{one.gas_used:>18,}")
    return [*lines, ""]


def main(arguments: Sequence[str]) -> int:
    found = asyncio.run(measure())
    if "--json" in arguments:
        print(
            json.dumps(
                {
                    name: {"gas": one.gas_used, "kinds": one.by_kind(), "contracts": one.by_contract()}
                    for name, one in found.items()
                },
                indent=1,
            )
        )
    else:
        print("\n".join(line for name, one in found.items() for line in table(name, one)))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
