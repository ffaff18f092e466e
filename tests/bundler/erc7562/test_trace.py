"""Reading what the node collected, and the code hashes."""

from __future__ import annotations

import pytest

from bundler.erc7562.trace import parse
from bundler.simulation import read_code_hashes
from contracts.errors import NodeError
from contracts.types import keccak
from tests.bundler.rig import Chain


async def test_code_hashes_are_those_of_the_chain_whatever_they_begin_with(shared_chain: Chain) -> None:
    codes = [bytes([0x5F, 0x50]) * n for n in range(1, 600)]
    wanted = next(code for code in codes if keccak(code)[0] == 0xEF)  # EIP-3541 forbids creations that return it first
    addresses = [await shared_chain.put(wanted), await shared_chain.put(codes[0]), b"\x77" * 20]
    found = await read_code_hashes(shared_chain.rpc, addresses)
    assert found == tuple(zip(addresses, [keccak(wanted), keccak(codes[0]), bytes(32)], strict=True))
    assert await read_code_hashes(shared_chain.rpc, []) == ()


@pytest.mark.parametrize(
    "result", [None, {}, {"frames": []}, {"frames": [{}], "error": "", "output": "0x", "keccaks": []}]
)
def test_answer_that_is_no_trace_is_an_error_of_the_node(result: object) -> None:
    with pytest.raises(NodeError, match="cannot be read"):
        parse(result)


def test_the_tracer_ships_with_the_package() -> None:
    from importlib.resources import files

    assert "BeforeExecution" in files("bundler.erc7562").joinpath("tracer.js").read_text()
