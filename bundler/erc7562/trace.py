"""What one `handleOps` did during validation: the frames of the entry point's calls, with the opcodes, storage slots and addresses used.

The full trace runs a JavaScript tracer in the node (geth, anvil, reth all take them); `ValidationTrace` is what the rules judge, whoever
collected it.   Source: ERC-7562.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import cache
from importlib.resources import files
from typing import Any

from bundler.erc7562 import opcodes
from contracts.entrypoint.base import BEFORE_EXECUTION
from contracts.errors import NodeError
from contracts.types import Address, keccak, to_hex

READ, WRITE = 0b0101, 0b1010
"""Bits of `Frame.slots`: SLOAD 1, SSTORE 2, TLOAD 4, TSTORE 8; transient storage follows the same rules ([OP-070])."""


@dataclass(frozen=True, slots=True)
class Use:
    """One use of an address by `*CALL` or `EXTCODE*`, as the address was at that moment."""

    op: int
    address: Address
    code_size: int
    delegated: bool
    """Its code is an EIP-7702 delegation."""
    value_wei: int = 0
    data: bytes = b""
    """Selector and first argument of a call to the entry point."""
    data_size: int = 0
    is_zero: bool = False
    """An EXTCODESIZE whose answer goes straight into ISZERO."""


@dataclass(slots=True)
class Frame:
    """One call. `context` is whose storage it works on; `code` whose code runs (equal but for DELEGATECALL and CALLCODE)."""

    kind: str
    caller: Address
    code: Address
    context: Address
    data: bytes
    error: str
    output: bytes
    gas_used: int
    used_opcodes: frozenset[int]
    slots: Mapping[int, int]
    uses: tuple[Use, ...]
    last_opcode: int
    last_pc: int
    delegated: bool
    """`code` has an EIP-7702 delegation."""
    calls: list[Frame] = field(default_factory=list)

    def walk(self) -> Iterator[Frame]:
        """This frame and all below, parents first."""
        yield self
        for call in self.calls:
            yield from call.walk()

    @property
    def creates(self) -> bool:
        return self.kind in ("CREATE", "CREATE2")

    @property
    def out_of_gas(self) -> bool:
        """[OP-020]. Nodes word it as `out of gas`, the SSTORE sentry (EIP-2200) included."""
        text = self.error.lower()
        return "out of gas" in text or "outofgas" in text or "reentrancy sentry" in text

    @property
    def halted(self) -> bool:
        """It ended exceptionally, neither by REVERT nor for lack of gas: an unassigned opcode, a bad jump, a stack fault."""
        return bool(self.error) and not self.out_of_gas and self.last_opcode not in (opcodes.REVERT, opcodes.INVALID)


@dataclass(frozen=True, slots=True)
class ValidationTrace:
    """`root` is the entry point; its calls are validation, in order. `preimages`: (A, keccak(A || x)) for every x that was hashed so;
    `namespaces` the same as (A, x)."""

    root: Frame
    preimages: tuple[tuple[Address, int], ...]
    namespaces: tuple[tuple[Address, bytes], ...] = ()


@cache
def _tracer() -> str:
    return files("bundler.erc7562").joinpath("tracer.js").read_text()


def tracer_options(entry_point: Address, state: Mapping[str, Any] | None = None) -> dict[str, Any]:
    """The third parameter of `debug_traceCall`."""
    options: dict[str, Any] = {
        "tracer": _tracer(),
        "tracerConfig": {
            "entryPoint": to_hex(entry_point),
            "beforeExecution": f"{int.from_bytes(BEFORE_EXECUTION.topic):x}",
        },
    }
    if state:
        options["stateOverrides"] = state
    return options


def _bytes(text: str | None) -> bytes:
    return bytes.fromhex((text or "0x")[2:])


def parse(result: object) -> ValidationTrace:
    """Read what the tracer returned. Raises NodeError if it is no such thing."""
    try:
        if not isinstance(result, dict):
            raise TypeError(f"{result!r:.80}")
        frames = [_frame(item) for item in result["frames"]]
        for frame, item in zip(frames[1:], result["frames"][1:], strict=True):
            parent = frames[item["parent"]]
            parent.calls.append(frame)
            if frame.kind in ("DELEGATECALL", "CALLCODE"):
                frame.context = parent.context
        root = frames[0]
        root.error, root.output = result["error"], _bytes(result["output"])
        hashed = [bytes.fromhex(text) for text in result["keccaks"]]
        preimages = tuple((preimage[12:32], int.from_bytes(keccak(preimage))) for preimage in hashed)
        namespaces = tuple((preimage[12:32], preimage[32:]) for preimage in hashed)
    except (KeyError, IndexError, TypeError, ValueError) as error:
        raise NodeError(f"the node's validation trace cannot be read: {type(error).__name__} {error}") from error
    return ValidationTrace(root, preimages, namespaces)


def _frame(item: Mapping[str, Any]) -> Frame:
    return Frame(
        kind=item["type"],
        caller=_bytes(item["from"]),
        code=_bytes(item["to"]),
        context=_bytes(item["to"]),
        data=_bytes(item["input"]),
        error=item["error"],
        output=_bytes(item["output"]),
        gas_used=int(item["used"]),
        used_opcodes=frozenset(map(int, item["ops"])),
        slots={int(slot, 16): bits for slot, bits in item["slots"].items()},
        uses=tuple(
            Use(
                op=use["op"],
                address=_bytes(use["address"]),
                code_size=use["size"],
                delegated=bool(use["delegation"]),
                value_wei=int(use["value"], 16),
                data=_bytes(use["input"]) if use["input"] else b"",
                data_size=use["length"],
                is_zero=use["isZero"],
            )
            for use in item["uses"]
        ),
        last_opcode=item["last"],
        last_pc=item["pc"],
        delegated=item["delegated"],
    )


def touched(frame: Frame) -> set[Address]:
    """Every address whose code the frame and those below ran or looked at, precompiles aside."""
    found = {f.code for f in frame.walk()} | {use.address for f in frame.walk() for use in f.uses}
    return {address for address in found if int.from_bytes(address) not in opcodes.PRECOMPILES}
