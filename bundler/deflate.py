"""A bundle's call data in the form that `contracts/src/bundler/Inflator.sol` unpacks: fields without padding, runs, copies and a dictionary.

Exact for every bundle: what the contract hands to the entry point is `handleOps` of the same operations, byte for byte. Pure.
"""

from __future__ import annotations

from collections.abc import Sequence

from contracts.entrypoint import V07, V08
from contracts.entrypoint.base import PackedUserOperation
from contracts.errors import InvalidFields
from contracts.types import Address

_TAGS = {V07.address: 0x07, V08.address: 0x08}
_OTHER, _BENEFICIARY = 0x00, 0x40
_LITERALS, _ZEROS, _BACK, _WORDS = 0x00, 0x80, 0xC0, 0xE0
_MOST_LITERALS, _MOST_ZEROS = 128, 64
_LEAST_COPY, _MOST_COPY = 4, 35
_WORTH_COPYING = 5
"""A copy takes three bytes and may end a run of literals."""
_FAR = 0xFFFF
_MOST_TRIED = 16
MAX_DICTIONARY = 24_575
"""Bytes; with a STOP before them as many as a contract may have. Source: EIP-170."""


class Dictionary:
    """Bytes that operations often hold, with an index for finding them."""

    def __init__(self, data: bytes) -> None:
        if len(data) > MAX_DICTIONARY:
            raise InvalidFields(f"a dictionary has at most {MAX_DICTIONARY} bytes, got {len(data)}")
        self.data = data
        self._places: dict[bytes, list[int]] = {}
        for at in range(len(data) - _LEAST_COPY + 1):
            self._places.setdefault(data[at : at + _LEAST_COPY], []).append(at)

    def longest(self, data: bytes, at: int) -> tuple[int, int]:
        """(length, place) of the longest copy of what stands in `data` from `at` on; (0, 0) if there is none."""
        return _longest(data, at, self.data, self._places.get(data[at : at + _LEAST_COPY], ()), len(self.data))


EMPTY = Dictionary(b"")


def _longest(data: bytes, at: int, source: bytes, places: Sequence[int], end: int) -> tuple[int, int]:
    best, found = 0, 0
    for place in places[-_MOST_TRIED:]:
        most = min(_MOST_COPY, len(data) - at, end - place)
        n = 0
        while n < most and source[place + n] == data[at + n]:
            n += 1
        if n > best:
            best, found = n, place
    return (best, found) if best >= _LEAST_COPY else (0, 0)


def _word(value: int) -> bytes:
    size = (value.bit_length() + 7) // 8
    return bytes([size]) + value.to_bytes(size)


def _flat(packed: PackedUserOperation) -> bytes:
    sender, nonce, init_code, call_data, limits, pre_verification_gas, fees, paymaster_and_data, signature = packed
    numbers = (
        nonce,
        int.from_bytes(limits[:16]),
        int.from_bytes(limits[16:]),
        pre_verification_gas,
        int.from_bytes(fees[:16]),
        int.from_bytes(fees[16:]),
    )
    tails = (init_code, call_data, paymaster_and_data, signature)
    return b"".join([sender, *map(_word, numbers), *(_word(len(tail)) + tail for tail in tails)])


def deflate(
    entry_point: Address,
    ops: Sequence[PackedUserOperation],
    beneficiary: Address | None = None,
    dictionary: Dictionary = EMPTY,
) -> bytes:
    """Call data for the inflator; `beneficiary` None: whoever calls it."""
    return _head(entry_point, beneficiary) + _tokens(_word(len(ops)) + b"".join(map(_flat, ops)), dictionary)


def _head(entry_point: Address, beneficiary: Address | None) -> bytes:
    tag = _TAGS.get(entry_point, _OTHER)
    place = entry_point if tag == _OTHER else b""
    return bytes([tag | (_BENEFICIARY if beneficiary else 0)]) + place + (beneficiary or b"")


def _tokens(data: bytes, dictionary: Dictionary) -> bytes:
    """Greedy: at each place the longest of run, copy from the dictionary and copy of what came before."""
    out, literals = bytearray(), bytearray()
    seen: dict[bytes, list[int]] = {}
    at = indexed = 0

    def flush() -> None:
        for start in range(0, len(literals), _MOST_LITERALS):
            part = literals[start : start + _MOST_LITERALS]
            out.append(_LITERALS | len(part) - 1)
            out.extend(part)
        literals.clear()

    while at < len(data):
        zeros = 0
        while zeros < _MOST_ZEROS and at + zeros < len(data) and data[at + zeros] == 0:
            zeros += 1
        while indexed <= at - _LEAST_COPY:
            seen.setdefault(data[indexed : indexed + _LEAST_COPY], []).append(indexed)
            indexed += 1
        known, word_at = dictionary.longest(data, at)
        before = [place for place in seen.get(data[at : at + _LEAST_COPY], ()) if at - place <= _FAR]
        copied, copy_at = _longest(data, at, data, before, at)
        if zeros >= 2 and zeros + 2 >= max(known, copied):
            flush()
            out.append(_ZEROS | zeros - 1)
            at += zeros
        elif max(known, copied) >= (_WORTH_COPYING if literals else _LEAST_COPY):
            flush()
            if known >= copied:
                out += bytes([_WORDS | known - _LEAST_COPY]) + word_at.to_bytes(2)
            else:
                out += bytes([_BACK | copied - _LEAST_COPY]) + (at - copy_at).to_bytes(2)
            at += max(known, copied)
        else:
            literals.append(data[at])
            at += 1
    flush()
    return bytes(out)


def inflate(
    data: bytes, caller: Address, dictionary: Dictionary = EMPTY
) -> tuple[Address, list[PackedUserOperation], Address]:
    """Entry point, operations and beneficiary in call data that `caller` sent to the inflator. Raises InvalidFields, where it reverts."""
    if not data:
        raise InvalidFields("empty call data are no bundle")
    tag, at = data[0], 1
    known = {number: address for address, number in _TAGS.items()}
    if tag & 0x80 or (tag & 0x3F and tag & 0x3F not in known):
        raise InvalidFields(f"the tag 0x{tag:02x} names no entry point")
    entry_point = known.get(tag & 0x3F, b"")
    if not entry_point:
        entry_point, at = data[at : at + 20], at + 20
    beneficiary = caller
    if tag & _BENEFICIARY:
        beneficiary, at = data[at : at + 20], at + 20
    if len(data) < at:
        raise InvalidFields("the head is cut")
    flat = _Reader(_untokened(data, at, dictionary.data))
    ops = [flat.operation() for _ in range(flat.count())]
    flat.end()
    return entry_point, ops, beneficiary


def _untokened(data: bytes, at: int, words: bytes) -> bytes:
    out = bytearray()
    while at < len(data):
        token, at = data[at], at + 1
        if token < _ZEROS:
            n = token + 1
            if at + n > len(data):
                raise InvalidFields("literals are cut")
            out += data[at : at + n]
            at += n
        elif token < _BACK:
            out += bytes((token & 0x3F) + 1)
        else:
            n, place = (token & 0x1F) + _LEAST_COPY, int.from_bytes(data[at : at + 2])
            at += 2
            source, start = (words, place) if token >= _WORDS else (out, len(out) - place)
            if at > len(data) or start < 0 or start + n > len(source):
                raise InvalidFields("a copy of what is not there")
            out += source[start : start + n]
    return bytes(out)


class _Reader:
    """Takes the flat form apart."""

    def __init__(self, data: bytes) -> None:
        self._data, self._at = data, 0

    def _take(self, size: int) -> bytes:
        if self._at + size > len(self._data):
            raise InvalidFields("an operation is cut")
        self._at += size
        return self._data[self._at - size : self._at]

    def _number(self, most: int = 32) -> int:
        size = self._take(1)[0]
        if size > 32:
            raise InvalidFields(f"a word of {size} bytes")
        value = int.from_bytes(self._take(size))
        if value >= 1 << 8 * most:
            raise InvalidFields(f"{value} does not fit {most} bytes")
        return value

    def _bytes(self) -> bytes:
        return self._take(self._number())

    def count(self) -> int:
        found = self._number()
        if found > len(self._data):
            raise InvalidFields(f"{found} operations in {len(self._data)} bytes")
        return found

    def operation(self) -> PackedUserOperation:
        sender, nonce = self._take(20), self._number()
        limits = self._number(16).to_bytes(16) + self._number(16).to_bytes(16)
        pre_verification_gas = self._number()
        fees = self._number(16).to_bytes(16) + self._number(16).to_bytes(16)
        init_code, call_data, paymaster_and_data, signature = (self._bytes() for _ in range(4))
        return (sender, nonce, init_code, call_data, limits, pre_verification_gas, fees, paymaster_and_data, signature)

    def end(self) -> None:
        if self._at != len(self._data):
            raise InvalidFields(f"{len(self._data) - self._at} bytes too much")
