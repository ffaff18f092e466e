"""viem, unmodified, works against the bundler."""

from __future__ import annotations

import asyncio
import json
import shutil
from pathlib import Path

import pytest

from contracts.devnet.accounts import devnet_key
from contracts.devnet.chain import CHAIN_ID
from contracts.entrypoint import V07, V08
from contracts.types import checksum, parse_hash, to_hex
from tests.bundler.rig import ROOT, Chain, Client

SCRIPT = Path(__file__).with_name("viem") / "send.mjs"


async def test_viem_sends_operations_and_reads_their_receipts(shared_chain: Chain, bundler: Client) -> None:
    node = shutil.which("node")
    assert node is not None, "node is needed: install Node.js 18 or later"
    if not (ROOT / "node_modules" / "viem").is_dir():
        pytest.fail("viem is missing: run `npm ci`")
    key = devnet_key(f"viem {shared_chain.anvil.port}")
    script = await asyncio.create_subprocess_exec(
        node,
        str(SCRIPT),
        cwd=ROOT,
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    account = await shared_chain.account_of(key)
    order = {
        "nodeUrl": shared_chain.anvil.url,
        "bundlerUrl": bundler.rpc.url,
        "factory": to_hex(account.factory),
        "ownerKey": to_hex(key),
        "chainId": CHAIN_ID,
    }
    out, err = await asyncio.wait_for(script.communicate(json.dumps(order).encode()), 60)
    assert script.returncode == 0, err.decode()
    told = json.loads(out)
    assert told["account"] == checksum(account.address)
    assert told["chainId"] == CHAIN_ID
    assert told["entryPoints"] == [checksum(V08.address), checksum(V07.address)]
    assert told["balance"] == "12"
    for answer in told["answers"]:
        assert answer["success"] is True
        assert answer["sender"] == checksum(account.address)
        assert answer["transactionHash"] == answer["foundIn"]
        assert len(await shared_chain.receipts_of(V08, parse_hash(answer["hash"]))) == 1
    assert "UserOperationExecutionError" in told["refusal"]
