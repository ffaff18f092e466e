"""A few lines of EVM assembly, so that hostile contracts in tests can be read."""

from __future__ import annotations

_OPCODES = {
    name: code
    for code, name in (
        (0x00, "STOP"), (0x01, "ADD"), (0x03, "SUB"), (0x11, "GT"), (0x14, "EQ"), (0x15, "ISZERO"), (0x1C, "SHR"), (0x20, "KECCAK256"),
        (0x30, "ADDRESS"), (0x33, "CALLER"), (0x5C, "TLOAD"), (0x5D, "TSTORE"),
        (0x35, "CALLDATALOAD"), (0x36, "CALLDATASIZE"), (0x39, "CODECOPY"), (0x42, "TIMESTAMP"), (0x43, "NUMBER"),
        (0x48, "BASEFEE"), (0x50, "POP"), (0x51, "MLOAD"), (0x52, "MSTORE"), (0x54, "SLOAD"), (0x55, "SSTORE"),
        (0x56, "JUMP"), (0x57, "JUMPI"), (0x5A, "GAS"), (0x5F, "PUSH0"), (0x80, "DUP1"), (0x81, "DUP2"), (0x90, "SWAP1"),
        (0xA1, "LOG1"), (0xF1, "CALL"), (0xF3, "RETURN"), (0xFD, "REVERT"),
    )
}  # fmt: skip


def asm(text: str) -> bytes:
    """Runtime code of `text`: opcodes, numbers (pushed), `name:` (a jump target), `@name` (its place, pushed), `;` comments."""
    code = bytearray()
    labels: dict[str, int] = {}
    uses: list[tuple[int, str]] = []
    for line in text.splitlines():
        for word in line.partition(";")[0].split():
            if word.endswith(":"):
                labels[word[:-1]] = len(code)
                code.append(0x5B)
            elif word.startswith("@"):
                code += b"\x61"
                uses.append((len(code), word[1:]))
                code += bytes(2)
            elif word in _OPCODES:
                code.append(_OPCODES[word])
            else:
                number = int(word, 0)
                size = max((number.bit_length() + 7) // 8, 1)
                code += bytes([0x5F + size]) + number.to_bytes(size)
    for place, label in uses:
        code[place : place + 2] = labels[label].to_bytes(2)
    return bytes(code)
