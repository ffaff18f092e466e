"""The length of data under FastLZ level 1, which the OP stack's Fjord upgrade takes as its measure of compressibility.

Only the length: no output is written.   Source: OP stack specification, "Fjord: FastLZ implementation"; the format is FastLZ's.
"""

from __future__ import annotations

_TABLE = 8_192
_MASK = _TABLE - 1
_WINDOW = 0x1FFF
"""A match lies at most this many bytes back."""
_TAIL = 14
"""So many last bytes begin no match (the contract gives up one that begins 14 before the end, too)."""
_RUN = 32
"""Longest run of literals after one instruction byte."""
_LONGEST = 262
"""Longest single match, less 2."""
_CHUNK = 32


def _literals(count: int) -> int:
    """Bytes that `count` literals take: an instruction byte for each run of 32."""
    runs, rest = divmod(count, _RUN)
    return (_RUN + 1) * runs + (rest + 1 if rest else 0)


def compressed_length(data: bytes) -> int:
    """Return how many bytes `data` has when FastLZ level 1 has compressed it; more than `len(data)` if nothing repeats.

    Exact: the same as `LibZip.flzCompress(data).length` in the OP stack's GasPriceOracle. Linear in the length.
    """
    size = len(data)
    limit = size - _TAIL
    table = [0] * _TABLE
    end = size - 4  # no match reaches into the last four bytes
    written = anchor = 0
    position = 2
    while position < limit:
        # The next place whose three bytes stood at most 8,191 bytes earlier. `word` holds them, the first lowest.
        word = data[position] << 8 | data[position + 1] << 16
        while True:
            word = word >> 8 | data[position + 2] << 16
            slot = word * 2654435769 >> 19 & _MASK
            earlier = table[slot]
            table[slot] = position
            if (
                position - earlier <= _WINDOW
                and data[earlier] == word & 0xFF
                and data[earlier + 1] == word >> 8 & 0xFF
                and data[earlier + 2] == word >> 16
            ):
                break
            position += 1
            if position >= limit:
                return written + _literals(size - anchor)
        if position > anchor:
            written += _literals(position - anchor)
        # How far both go on alike. The first unlike byte is counted, too, and taken off again where the match is written.
        old, new = earlier + 3, position + 3
        room = end - new
        length = 0
        while length + _CHUNK <= room and data[old : old + _CHUNK] == data[new : new + _CHUNK]:
            length += _CHUNK
            old += _CHUNK
            new += _CHUNK
        while length < room:
            length += 1
            if data[old] != data[new]:
                break
            old += 1
            new += 1
        full, rest = divmod(length - 1, _LONGEST)
        written += 3 * full + (3 if rest >= 6 else 2)
        position += length
        for _ in range(2):
            word = data[position] | data[position + 1] << 8 | data[position + 2] << 16
            table[word * 2654435769 >> 19 & _MASK] = position
            position += 1
        anchor = position
    return written + _literals(size - anchor)
