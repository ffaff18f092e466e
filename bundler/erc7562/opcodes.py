"""Opcodes by what validation may do with them.   Source: ERC-7562, "Opcode Rules"."""

from __future__ import annotations

GAS, BALANCE, SELFBALANCE, CREATE, CREATE2 = 0x5A, 0x31, 0x47, 0xF0, 0xF5
CALL, CALLCODE, DELEGATECALL, STATICCALL = 0xF1, 0xF2, 0xF4, 0xFA
EXTCODESIZE, EXTCODECOPY, EXTCODEHASH = 0x3B, 0x3C, 0x3F
REVERT, INVALID, JUMP, JUMPI = 0xFD, 0xFE, 0x56, 0x57

BLOCKED = {
    0x32: "ORIGIN",
    0x3A: "GASPRICE",
    0x40: "BLOCKHASH",
    0x41: "COINBASE",
    0x42: "TIMESTAMP",
    0x43: "NUMBER",
    0x44: "DIFFICULTY",
    0x45: "GASLIMIT",
    0x48: "BASEFEE",
    0x49: "BLOBHASH",
    0x4A: "BLOBBASEFEE",
    0xFE: "INVALID",
    0xFF: "SELFDESTRUCT",
}
"""[OP-011], CREATE and CREATE2 aside. 0x44 is PREVRANDAO since the merge; clients and suites still say DIFFICULTY."""

NAMES = BLOCKED | {
    GAS: "GAS",
    BALANCE: "BALANCE",
    SELFBALANCE: "SELFBALANCE",
    CREATE: "CREATE",
    CREATE2: "CREATE2",
    CALL: "CALL",
    CALLCODE: "CALLCODE",
    DELEGATECALL: "DELEGATECALL",
    STATICCALL: "STATICCALL",
    EXTCODESIZE: "EXTCODESIZE",
    EXTCODECOPY: "EXTCODECOPY",
    EXTCODEHASH: "EXTCODEHASH",
}

ASSIGNED = frozenset(
    [
        *range(0x0C),
        *range(0x10, 0x1E),
        0x20,
        *range(0x30, 0x4B),
        *range(0x50, 0xA5),
        *range(0xF0, 0xF6),
        0xFA,
        0xFD,
    ]
) | {INVALID, 0xFF}
"""Opcodes up to Prague. Everything else is [OP-013], CLZ (0x1E, Osaka) too: not every chain that we serve has it."""

PRECOMPILES = frozenset([*range(0x01, 0x12), 0x100])
"""[OP-062]: the core precompiles and P256VERIFY (EIP-7951)."""


def name(op: int) -> str:
    """The mnemonic, or the number of one that has none here."""
    return NAMES.get(op, f"0x{op:02x}")


def next_opcode(code: bytes, pc: int) -> int | None:
    """The opcode that follows the one at `pc` (-1: the first), its push data skipped; None past the end."""
    if pc < 0:
        at = 0
    else:
        op = code[pc] if pc < len(code) else 0
        at = pc + 1 + (op - 0x5F if 0x60 <= op <= 0x7F else 0)
    return code[at] if at < len(code) else None
