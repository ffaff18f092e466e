"""The error tree: drawn as it is, codes and exit codes stable, and each error says itself in JSON-RPC."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

import pytest

from contracts import errors
from contracts.errors import RpcError, SeawallError, SponsorRefused

EXIT_CODES = {
    "SeawallError": 1,
    "BadInput": 2,
    "SetupError": 3,
    "NodeError": 4,
    "Refused": 5,
    "OperationRejected": 6,
    "OperationFailed": 7,
}
"""Scripts rely on these."""


def tree(kind: type[SeawallError], depth: int = 0) -> Iterator[tuple[int, type[SeawallError]]]:
    yield depth, kind
    for child in kind.__subclasses__():
        if child.__module__ == "contracts.errors":
            yield from tree(child, depth + 1)


def drawn() -> list[tuple[int, str, int | None, int | None]]:
    """Depth, name, exit code and JSON-RPC code of each line of the drawing."""
    rows = []
    for line in (errors.__doc__ or "").splitlines():
        found = re.match(r"([│├└─ ]*)(\w+)\s+(?:exit (\d))?\s*(-\d{5})?", line)
        if found and (line[0] in "│├└" or line.startswith("SeawallError")):
            exit_code, code = (int(text) if text else None for text in found.group(3, 4))
            rows.append((len(found.group(1)) // 4, found.group(2), exit_code, code))
    return rows


def test_the_drawing_shows_every_class_in_order() -> None:
    assert [(depth, name) for depth, name, _, _ in drawn()] == [(d, kind.__name__) for d, kind in tree(SeawallError)]


@pytest.mark.parametrize(("name", "exit_code", "code"), [row[1:] for row in drawn()])
def test_the_drawing_shows_the_real_codes(name: str, exit_code: int | None, code: int | None) -> None:
    kind: Any = getattr(errors, name)
    assert exit_code in (None, kind.exit_code)
    assert code in (None, kind.code)


@pytest.mark.parametrize(("name", "code"), EXIT_CODES.items())
def test_exit_codes_are_stable(name: str, code: int) -> None:
    kind: Any = getattr(errors, name)
    assert kind.exit_code == code
    assert {child.exit_code for _, child in tree(kind)} == {code} or name == "SeawallError"


def test_an_error_carries_message_code_rule_and_data() -> None:
    refused = SponsorRefused("too much", rule="budget-total", data={"limitWei": "1"})
    assert refused.to_rpc() == {
        "code": -32500,
        "message": "too much",
        "data": {"rule": "budget-total", "limitWei": "1"},
    }
    assert SeawallError("x").to_rpc() == {"code": -32603, "message": "x"}
    assert SeawallError("x", data=[1]).to_rpc()["data"] == [1]
    assert SeawallError("x", rule="r").to_rpc()["data"] == {"rule": "r"}
    assert SeawallError("x", rule="r", data=[1]).to_rpc()["data"] == {"rule": "r", "detail": [1]}


def test_an_rpc_error_keeps_the_code_it_came_with() -> None:
    error = RpcError(-32000, "nonce too low", "0x", method="eth_sendRawTransaction")
    assert error.to_rpc() == {"code": -32000, "message": "nonce too low", "data": "0x"}
    assert str(error) == "eth_sendRawTransaction failed: nonce too low (code -32000)"
