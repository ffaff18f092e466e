"""Random values of ABI types."""

from __future__ import annotations

from typing import Any

from eth_abi.grammar import TupleType, parse
from hypothesis import strategies as st


def values_of(text: str) -> st.SearchStrategy[Any]:
    """Values of the type that `text` writes."""
    return _values(parse(text))


def _values(one: Any) -> st.SearchStrategy[Any]:
    if one.is_array:
        size = one.arrlist[-1]
        low, high = (size[0], size[0]) if size else (0, 4)
        return st.lists(_values(one.item_type), min_size=low, max_size=high)
    if isinstance(one, TupleType):
        return st.tuples(*(_values(part) for part in one.components))
    return {
        "address": st.binary(min_size=20, max_size=20),
        "bool": st.booleans(),
        "string": st.text(max_size=70),
        "uint": st.integers(0, 255),
        "bytes": st.binary(min_size=int(one.sub or 0), max_size=int(one.sub or 70)),
    }[one.base]
