"""Other people's clients, unmodified, work against the bundler: viem, permissionless.js, web3.py, cast."""

from __future__ import annotations

import asyncio
import json
import platform
import shutil
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from eth_account import Account
from web3 import HTTPProvider, Web3
from web3.exceptions import Web3RPCError
from web3.method import Method
from web3.types import RPCEndpoint

from bundler.keys import KeyFile
from bundler.settings import Settings
from contracts.bindings import CREATE_ACCOUNT, GET_ACCOUNT_ADDRESS, AccountConfig, ecdsa_owner
from contracts.devnet import Devnet
from contracts.devnet.accounts import devnet_key
from contracts.devnet.chain import CHAIN_ID
from contracts.entrypoint import V07, V08, V09, EntryPoint
from contracts.eoa import Eoa, TransactionSender
from contracts.types import Hash32, checksum, keccak, parse_hash, to_hex
from tests.bundler.rig import GWEI, PAYMASTER_OK, ROOT, Chain, Client, serving, until, with_limits

SCRIPTS = Path(__file__).with_name("clients")


async def run(program: list[str], text: str = "", timeout_s: float = 90) -> str:
    """What the program prints; its own words when it fails."""
    process = await asyncio.create_subprocess_exec(
        *program,
        cwd=ROOT,
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    out, err = await asyncio.wait_for(process.communicate(text.encode()), timeout_s)
    assert process.returncode == 0, err.decode()
    return out.decode()


async def script(name: str, order: dict[str, Any]) -> Any:
    """What one of the JavaScript clients tells."""
    node = shutil.which("node")
    assert node is not None, "node is needed: install Node.js 18 or later"
    for package in ("viem", "permissionless"):
        if not (ROOT / "node_modules" / package).is_dir():
            pytest.fail(f"{package} is missing: run `npm ci`")
    return json.loads(await run([node, str(SCRIPTS / f"{name}.mjs")], json.dumps(order)))


@pytest.mark.parametrize(
    ("entry_point", "sponsored"),
    [(V08, False), (V09, False), (V09, True)],
    ids=["v0.8", "v0.9", "v0.9-paymasterSignature"],
)
async def test_viem_sends_operations_and_reads_their_receipts(
    shared_chain: Chain, bundler: Client, entry_point: EntryPoint, sponsored: bool
) -> None:
    key = devnet_key(f"viem {shared_chain.anvil.port} {sponsored}")
    account = await shared_chain.account_of(key, entry_point)
    paymaster = await shared_chain.put(PAYMASTER_OK, deposit_on=entry_point) if sponsored else None
    to = shared_chain.fresh_address()
    order = {
        "nodeUrl": shared_chain.anvil.url,
        "bundlerUrl": bundler.rpc.url,
        "factory": to_hex(account.factory),
        "ownerKey": to_hex(key),
        "chainId": CHAIN_ID,
        "to": to_hex(to),
        "version": entry_point.version[1:],
        "paymaster": paymaster and to_hex(paymaster),
    }
    told = await script("viem", order)
    assert told["account"] == checksum(account.address)
    assert told["chainId"] == CHAIN_ID
    assert told["entryPoints"] == [checksum(one.address) for one in (V08, V07, V09)]
    assert told["balance"] == "12"
    for answer in told["answers"]:
        assert answer["success"] is True
        assert answer["sender"] == checksum(account.address)
        assert answer["transactionHash"] == answer["foundIn"]
        assert len(await shared_chain.receipts_of(entry_point, parse_hash(answer["hash"]))) == 1
        assert answer["paymaster"] == checksum(paymaster or bytes(20))
        assert answer.get("paymasterSignature") == ("0x" + "ee" * 65 if sponsored else None)
    assert "UserOperationExecutionError" in told["refusal"]


async def test_permissionless_creates_and_uses_accounts_of_both_entry_points(
    shared_chain: Chain, bundler: Client
) -> None:
    key = devnet_key(f"permissionless {shared_chain.anvil.port}")
    accounts = {entry_point: await shared_chain.account_of(key, entry_point) for entry_point in (V07, V08)}
    to = shared_chain.fresh_address()
    order = {
        "nodeUrl": shared_chain.anvil.url,
        "bundlerUrl": bundler.rpc.url,
        "factories": {e.version[1:]: to_hex(account.factory) for e, account in accounts.items()},
        "ownerKey": to_hex(key),
        "chainId": CHAIN_ID,
        "to": to_hex(to),
    }
    told = await script("permissionless", order)
    for entry_point, account in accounts.items():
        answer = told[entry_point.version[1:]]
        assert answer["address"] == checksum(account.address)
        assert (answer["deployedBefore"], answer["deployedAfter"]) == (False, True)
        assert answer["success"] is True
        assert len(set(answer["transactions"])) == 2
        assert len(await shared_chain.receipts_of(entry_point, parse_hash(answer["hash"]))) == 1
    assert await shared_chain.rpc.get_balance(to) == 2 * (3 + 4 + 5 + 6)


@pytest.fixture
async def devnet_bundler(devnet: Devnet, tmp_path: Path) -> AsyncIterator[Client]:
    """A bundler on the whole devnet, where our own account and its modules are."""
    key = tmp_path / "executor.key"
    key.touch(mode=0o600)
    key.write_text(devnet_key("bundler").hex())
    settings = Settings(
        rpc_url=devnet.rpc_url,
        executor_key=KeyFile(key),
        database=tmp_path / "bundler.sqlite",
        port=0,
        entry_points=(V08,),
        drain_timeout_s=0.1,
    )
    async with serving(settings) as client:
        yield client


async def test_permissionless_drives_a_risk_account_and_installs_and_uninstalls_its_modules(
    devnet: Devnet, devnet_bundler: Client
) -> None:
    owner: Eoa = devnet.accounts.owner
    config = AccountConfig(
        owner=ecdsa_owner(owner.address),
        authority=bytes(20),
        admin_delay_s=0,
        prefund_caps_wei=(10**18,) * 3,
        modules=(),
    )
    salt: Hash32 = keccak(b"permissionless on a risk account")
    factory = devnet.addresses.risk_account_factory
    answer = await devnet.rpc.eth_call(factory, GET_ACCOUNT_ADDRESS.encode(config.to_abi(), salt))
    (address,) = GET_ACCOUNT_ADDRESS.decode(answer)
    await TransactionSender(devnet.rpc, devnet.accounts.trader, devnet.chain_id).transact(address, value=10**18)
    to = keccak(b"a payee of permissionless")[:20]
    told = await script(
        "erc7579",
        {
            "nodeUrl": devnet.rpc_url,
            "bundlerUrl": devnet_bundler.rpc.url,
            "account": checksum(address),
            "factory": to_hex(factory),
            "factoryData": to_hex(CREATE_ACCOUNT.encode(config.to_abi(), salt)),
            "ownerKey": to_hex(devnet_key("owner")),
            "chainId": devnet.chain_id,
            "module": to_hex(devnet.addresses.stop_loss),
            "to": to_hex(to),
        },
    )
    assert told["accountId"] == told["accountIdBefore"] == "seawall.risk-account.1.0.0"
    assert told["supportsExecutors"] is True
    assert told["supportsBatch"] is True
    assert [told[name] for name in ("installedBefore", "installed", "installedAfter")] == [False, True, True]
    assert [told[name] for name in ("uninstalled", "installedAtTheEnd")] == [True, False]
    assert await devnet.rpc.get_balance(to) == 3 + 4 + 5


async def test_web3_py_sends_an_operation_and_reads_its_receipt(shared_chain: Chain, bundler: Client) -> None:
    """With the methods attached as its documentation says; errors arrive as its own exceptions."""
    account = await shared_chain.account()
    op = await bundler.estimated((await account.draft()).replace(max_fee_per_gas=20 * GWEI))
    signed = account.sign(op).to_rpc()

    def session() -> dict[str, Any]:
        web3 = Web3(HTTPProvider(bundler.rpc.url))
        web3.eth.attach_methods(
            {
                "send_user_operation": Method(RPCEndpoint("eth_sendUserOperation")),
                "get_user_operation_receipt": Method(RPCEndpoint("eth_getUserOperationReceipt")),
                "supported_entry_points": Method(RPCEndpoint("eth_supportedEntryPoints")),
            }
        )
        eth: Any = web3.eth
        assert web3.is_connected()
        assert web3.eth.chain_id == CHAIN_ID
        assert web3.client_version.startswith("seawall/")
        assert eth.supported_entry_points() == [checksum(one.address) for one in (V08, V07, V09)]
        forged = Account.create().unsafe_sign_hash(bytes(32)).signature
        with pytest.raises(Web3RPCError, match="AA24"):
            eth.send_user_operation(signed | {"signature": to_hex(bytes(forged))}, checksum(V08.address))
        op_hash = eth.send_user_operation(signed, checksum(V08.address))
        while (receipt := eth.get_user_operation_receipt(op_hash)) is None:
            pass
        return {"hash": op_hash, "success": receipt["success"], "sender": receipt["sender"]}

    told = await asyncio.wait_for(asyncio.to_thread(session), 60)
    assert told["success"] is True
    assert told["sender"] == checksum(account.address)
    assert len(await shared_chain.receipts_of(V08, parse_hash(told["hash"]))) == 1


def cast_binary() -> str | None:
    """foundry's cast: from the npm package of this platform, or installed."""
    package = ROOT / "node_modules" / "@foundry-rs" / "cast-linux-amd64" / "bin" / "cast"
    if sys.platform == "linux" and platform.machine() == "x86_64":
        return str(package)
    return shutil.which("cast")


@pytest.mark.skipif(cast_binary() is None, reason="no cast for this platform: install foundry to run this")
async def test_cast_estimates_signs_sends_and_reads_the_receipt(shared_chain: Chain, bundler: Client) -> None:
    cast = cast_binary()
    assert cast is not None
    key = devnet_key(f"cast {shared_chain.anvil.port}")
    account = await shared_chain.account_of(key)
    url, entry_point = bundler.rpc.url, checksum(V08.address)

    async def rpc(method: str, *params: Any) -> Any:
        return json.loads(await run([cast, "rpc", "--rpc-url", url, "--raw", method], json.dumps(params)))

    assert (await run([cast, "chain-id", "--rpc-url", url])).strip() == str(CHAIN_ID)
    assert (await run([cast, "client", "--rpc-url", url])).startswith("seawall/")
    op = with_limits(await account.draft())
    found = await rpc("eth_estimateUserOperationGas", op.to_rpc(), entry_point)
    op = op.replace(
        call_gas_limit=int(found["callGasLimit"], 16),
        verification_gas_limit=int(found["verificationGasLimit"], 16),
        pre_verification_gas=int(found["preVerificationGas"], 16),
    )
    digest = to_hex(V08.user_op_hash(op, CHAIN_ID))
    # A key of this test's own, on this test's own chain.
    signature = (await run([cast, "wallet", "sign", "--no-hash", "--private-key", to_hex(key), digest])).strip()
    op_hash = await rpc(
        "eth_sendUserOperation", op.replace(signature=bytes.fromhex(signature[2:])).to_rpc(), entry_point
    )
    assert op_hash == digest
    receipt: Any = await until(lambda: rpc("eth_getUserOperationReceipt", op_hash), "cast sees the receipt")
    assert receipt["success"] is True
    transaction = receipt["receipt"]["transactionHash"]
    mined = await run([cast, "receipt", "--rpc-url", shared_chain.anvil.url, transaction, "status"])
    assert mined.split()[0] in ("true", "1")
