"""Calls and events by their signature: `Function.parse("balanceOf(address)(uint256)")`.

Addresses go in and come out as 20 bytes, `bytesN` as bytes, integers as int, tuples as tuples. Parsed once, at import.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from eth_abi.abi import default_codec
from eth_abi.exceptions import DecodingError, EncodingError
from eth_abi.grammar import TupleType, parse

from contracts.errors import InvalidFields
from contracts.types import Hash32, keccak


def _convert(abi_type: Any, value: Any, *, inward: bool) -> Any:
    """Swap addresses between 20 bytes (ours) and text (the codec's), at any depth."""
    if abi_type.is_array:
        return tuple(_convert(abi_type.item_type, item, inward=inward) for item in value)
    if isinstance(abi_type, TupleType):
        return tuple(_convert(t, item, inward=inward) for t, item in zip(abi_type.components, value, strict=True))
    if abi_type.base == "address":
        return "0x" + value.hex() if inward else bytes.fromhex(value[2:])
    return value


def encode(types: Sequence[str], values: Sequence[Any]) -> bytes:
    """`abi.encode`. Raises InvalidFields if a value does not fit its type."""
    try:
        return default_codec.encode(
            list(types), [_convert(parse(t), v, inward=True) for t, v in zip(types, values, strict=True)]
        )
    except (EncodingError, ValueError, TypeError, AttributeError) as error:
        raise InvalidFields(f"cannot encode {tuple(values)!r:.200} as ({','.join(types)}): {error}") from error


def decode(types: Sequence[str], data: bytes) -> tuple[Any, ...]:
    """`abi.decode`. Raises InvalidFields if `data` is not such an encoding."""
    try:
        values = default_codec.decode(list(types), data)
    except (DecodingError, OverflowError, ValueError) as error:
        raise InvalidFields(f"cannot decode {len(data)} bytes as ({','.join(types)}): {error}") from error
    return tuple(_convert(parse(t), v, inward=False) for t, v in zip(types, values, strict=True))


def canonical_size(types: Sequence[str], data: bytes) -> int:
    """Bytes of the canonical encoding of what `data` stands for, found without building it; `data` is in canonical form only if it is as
    long as that.

    Offsets may point anywhere, also all to one place, so that a few bytes can stand for a great many: the size is added up and given up
    on as soon as it passes `len(data)`, in time proportional to that at most. Raises InvalidFields then, and for offsets that lead outside.
    """
    parsed = [parse(one) for one in types]
    measure = _Measure(data)
    measure.members(parsed, 0)
    return measure.total


class _Measure:
    """Adds up sizes while it follows the offsets of an encoding."""

    __slots__ = ("data", "total")

    def __init__(self, data: bytes) -> None:
        self.data, self.total = data, 0

    def add(self, size: int) -> None:
        self.total += size
        if self.total > len(self.data):
            raise InvalidFields(f"{len(self.data)} bytes stand for more than they are")

    def word(self, at: int) -> int:
        if at + 32 > len(self.data):
            raise InvalidFields(f"an offset leads to byte {at} of {len(self.data)}")
        return int.from_bytes(self.data[at : at + 32])

    def members(self, types: Sequence[Any], frame: int) -> None:
        """Values that stand one after another: the members of a tuple, the arguments of a function."""
        head = frame
        for one in types:
            if one.is_dynamic:
                self.add(32)
                self.tail(one, frame + self.word(head))
                head += 32
            else:
                size = _static_size(one)
                self.add(size)
                head += size

    def tail(self, one: Any, at: int) -> None:
        """A dynamic value, which begins at `at`."""
        if one.is_array:
            item, frame = one.item_type, at
            (count,) = one.arrlist[-1] or (None,)
            if count is None:
                count, frame = self.word(at), at + 32
                self.add(32)
            size = 32 if item.is_dynamic else _static_size(item)
            if count * size > len(self.data):
                raise InvalidFields(f"{count} items are announced in {len(self.data)} bytes")
            if not item.is_dynamic:
                self.add(count * size)
                return
            for i in range(count):
                self.add(32)
                self.tail(item, frame + self.word(frame + 32 * i))
        elif isinstance(one, TupleType):
            self.members(one.components, at)
        else:
            self.add(32 + -(-self.word(at) // 32) * 32)


def _static_size(one: Any) -> int:
    """Bytes of a value whose size its type says."""
    if one.is_array:
        (count,) = one.arrlist[-1]
        return int(count) * _static_size(one.item_type)
    if isinstance(one, TupleType):
        return sum(_static_size(part) for part in one.components)
    return 32


def _split(signature: str) -> list[str]:
    """The top-level parts of `a,(b,c),d`."""
    parts, depth, start = [], 0, 0
    for i, char in enumerate(signature):
        depth += (char == "(") - (char == ")")
        if char == "," and depth == 0:
            parts.append(signature[start:i])
            start = i + 1
    if signature[start:]:
        parts.append(signature[start:])
    return [part.strip() for part in parts]


def _closing(text: str, start: int) -> int:
    depth = 0
    for i in range(start, len(text)):
        depth += (text[i] == "(") - (text[i] == ")")
        if depth == 0:
            return i
    raise ValueError(f"unbalanced brackets in {text!r}")


@dataclass(frozen=True, slots=True)
class Function:
    """One function of a contract."""

    name: str
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    selector: bytes

    @classmethod
    def parse(cls, text: str) -> Function:
        """From `name(inputs)` or `name(inputs)(outputs)`, types only."""
        start = text.index("(")
        end = _closing(text, start)
        inputs = _split(text[start + 1 : end])
        outputs = _split(text[end + 2 : -1]) if end + 1 < len(text) else []
        return cls(text[:start], tuple(inputs), tuple(outputs), keccak(text[: end + 1].encode())[:4])

    @property
    def signature(self) -> str:
        return f"{self.name}({','.join(self.inputs)})"

    def encode(self, *args: Any) -> bytes:
        """Call data."""
        return self.selector + encode(self.inputs, args)

    def decode(self, data: bytes) -> tuple[Any, ...]:
        """What the call returned. Raises InvalidFields, for example when the address holds no contract."""
        return decode(self.outputs, data)

    def decode_input(self, call_data: bytes) -> tuple[Any, ...]:
        """The arguments in `call_data`. Raises InvalidFields if it is another function's."""
        if call_data[:4] != self.selector:
            raise InvalidFields(f"call data 0x{call_data[:4].hex()} is not {self.signature}")
        return decode(self.inputs, call_data[4:])


@dataclass(frozen=True, slots=True)
class Event:
    """One event of a contract."""

    name: str
    types: tuple[str, ...]
    indexed: tuple[bool, ...]
    topic: Hash32

    @classmethod
    def parse(cls, text: str) -> Event:
        """From `Name(type indexed,type,...)`."""
        start = text.index("(")
        parts = _split(text[start + 1 : -1])
        types = tuple(part.split(" ")[0] for part in parts)
        indexed = tuple(part.endswith(" indexed") for part in parts)
        return cls(text[:start], types, indexed, keccak(f"{text[:start]}({','.join(types)})".encode()))

    def decode(self, topics: Sequence[bytes], data: bytes) -> tuple[Any, ...]:
        """The arguments in order. An indexed dynamic argument comes out as its 32-byte hash. Raises InvalidFields."""
        if not topics or topics[0] != self.topic:
            raise InvalidFields(f"the log is not {self.name}")
        body = iter(decode([t for t, i in zip(self.types, self.indexed, strict=True) if not i], data))
        heads = iter(topics[1:])
        values: list[Any] = []
        for kind, is_indexed in zip(self.types, self.indexed, strict=True):
            if not is_indexed:
                values.append(next(body))
                continue
            head = next(heads, None)
            if head is None:
                raise InvalidFields(f"the log of {self.name} has too few topics")
            dynamic = kind in ("bytes", "string") or kind.endswith("]") or kind.startswith("(")
            values.append(head if dynamic else decode([kind], head)[0])
        return tuple(values)
