"""Rollups whose node says what data cost. Precompiles and RPC methods that anvil lacks are put in place with the answers of such nodes;
what is under test is how they are asked, read and refused."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from aiohttp import ClientSession, web

from bundler.chain import Head
from bundler.fees import BundleData, DataCharge, FeeDataError, FeeModel
from bundler.fees.arbitrum import ARB_GAS_INFO, L1_COMPONENT, NODE_INTERFACE, Arbitrum
from bundler.fees.zk import GET_L1_FEE, SCROLL_ORACLE, Linea, Scroll, ZkSync
from bundler.gas import bundle_gas_limit
from contracts.entrypoint import V08
from contracts.rpc import RpcClient
from contracts.types import Address, parse_bytes, to_hex
from tests.bundler.assembly import asm
from tests.bundler.rig import Chain, serving, settings_for

HEAD = Head(1, bytes(32), 1, 10**8)
EXECUTOR: Address = b"\xe1" * 20
ENTRY_POINT: Address = b"\xe2" * 20


def bundle(size: int = 500, *, signed: bool = False) -> BundleData:
    return BundleData(42_161, EXECUTOR, ENTRY_POINT, b"\x5a" * size, 10**9, 1, signed=signed)


async def put(chain: Chain, address: Address, code: bytes) -> None:
    await chain.rpc.call("anvil_setCode", to_hex(address), to_hex(code))


def words(*values: int) -> bytes:
    """Runtime code that answers these words, plus the length of its call data in the first."""
    stores = " ".join(f"{value} {32 * i} MSTORE" for i, value in enumerate(values))
    return asm(f"{stores} 0 MLOAD CALLDATASIZE ADD 0 MSTORE {32 * len(values)} 0 RETURN")


async def test_arbitrum_takes_the_nodes_gas_at_the_chains_price(own_chain: Chain) -> None:
    await put(own_chain, NODE_INTERFACE, words(7_000, 2 * 10**8, 10**9))
    await put(own_chain, ARB_GAS_INFO, words(10**7))
    small, large = await Arbitrum().charges(own_chain.rpc, [bundle(100), bundle(900)], HEAD)
    asked = len(L1_COMPONENT.encode(ENTRY_POINT, False, bundle(100).data))
    assert small == DataCharge((7_000 + asked) * 2 * 10**8, 7_000 + asked)
    assert large.gas > small.gas


async def test_arbitrum_prices_at_the_minimum_when_the_node_runs_calls_without_a_base_fee(own_chain: Chain) -> None:
    await put(own_chain, NODE_INTERFACE, words(7_000, 0, 10**9))
    await put(own_chain, ARB_GAS_INFO, words(3 * 10**9))
    (charge,) = await Arbitrum().charges(own_chain.rpc, [bundle()], HEAD)
    assert charge.fee_wei == charge.gas * (3 * 10**9 + 4)  # the stub adds the four bytes of the selector


@pytest.mark.parametrize(
    ("code", "message"),
    [(b"", "did not say what data cost on Arbitrum"), (asm("0 0 REVERT"), "did not say what data cost on Arbitrum")],
    ids=["nothing", "revert"],
)
async def test_arbitrum_without_its_node_interface_is_refused(own_chain: Chain, code: bytes, message: str) -> None:
    await put(own_chain, NODE_INTERFACE, code)
    await put(own_chain, ARB_GAS_INFO, words(10**7))
    with pytest.raises(FeeDataError, match=message):
        await Arbitrum().charges(own_chain.rpc, [bundle()], HEAD)


async def test_arbitrum_that_charges_no_gas_for_data_while_l1_has_a_price_is_refused(own_chain: Chain) -> None:
    zero = asm("0 0 MSTORE 100 32 MSTORE 1000 64 MSTORE 96 0 RETURN")
    await put(own_chain, NODE_INTERFACE, zero)
    await put(own_chain, ARB_GAS_INFO, words(10**7))
    with pytest.raises(FeeDataError, match="nonsense: 0 gas"):
        await Arbitrum().charges(own_chain.rpc, [bundle()], HEAD)


async def test_scroll_asks_its_oracle_with_the_unsigned_transaction(own_chain: Chain) -> None:
    await put(own_chain, SCROLL_ORACLE, words(10**12))
    (charge,) = await Scroll().charges(own_chain.rpc, [bundle()], HEAD)
    assert charge == DataCharge(10**12 + len(GET_L1_FEE.encode(bundle().unsigned())))


@pytest.mark.parametrize("code", [b"", asm("0 0 MSTORE 32 0 RETURN")], ids=["missing", "zero"])
async def test_scroll_without_an_answer_is_refused(own_chain: Chain, code: bytes) -> None:
    await put(own_chain, SCROLL_ORACLE, code)
    with pytest.raises(FeeDataError, match="L1GasPriceOracle"):
        await Scroll().charges(own_chain.rpc, [bundle()], HEAD)


Answer = Callable[[dict[str, Any]], Any]


@asynccontextmanager
async def node_with(method: str, answer: Answer, behind: str | None = None) -> AsyncIterator[RpcClient]:
    """A node that has one method more than the one `behind` it."""

    async def handle(request: web.Request) -> web.Response:
        body = await request.json()
        calls = body if isinstance(body, list) else [body]
        answers = []
        async with ClientSession() as session:
            for call in calls:
                if call["method"] == method:
                    answers.append({"jsonrpc": "2.0", "id": call["id"], "result": answer(call["params"][0])})
                elif behind is None:
                    answers.append(
                        {"jsonrpc": "2.0", "id": call["id"], "error": {"code": -32601, "message": "unknown"}}
                    )
                else:
                    async with session.post(behind, json=call) as response:
                        answers.append(await response.json())
        return web.json_response(answers if isinstance(body, list) else answers[0])

    app = web.Application()
    app.router.add_post("/", handle)
    runner = web.AppRunner(app)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    try:
        assert site._server is not None
        port = site._server.sockets[0].getsockname()[1]  # type: ignore[attr-defined]
        async with RpcClient(f"http://127.0.0.1:{port}") as rpc:
            yield rpc
    finally:
        await runner.cleanup()


async def test_linea_is_asked_about_inert_data_until_the_bundle_is_signed() -> None:
    asked: list[dict[str, Any]] = []

    def answer(request: dict[str, Any]) -> Any:
        asked.append(request)
        return {"gasLimit": "0xcf08", "baseFeePerGas": "0x7", "priorityFeePerGas": "0x43a82a4"}

    async with node_with("linea_estimateGas", answer) as rpc:
        charges = await Linea().charges(rpc, [bundle(), bundle(signed=True)], HEAD)
    assert charges == [DataCharge(0xCF08 * 0x43A82A4, tip_wei=0x43A82A4)] * 2
    assert [request["to"] for request in asked] == [to_hex(EXECUTOR), to_hex(ENTRY_POINT)]
    assert {request["data"] for request in asked} == {to_hex(bundle().data)}


def zk_answer(request: dict[str, Any]) -> Any:
    gas = 150_000 + 100 * len(parse_bytes(request["data"]))
    return {
        "gas_limit": hex(gas),
        "gas_per_pubdata_limit": "0x143b",
        "max_fee_per_gas": "0x2b275d0",
        "max_priority_fee_per_gas": "0x0",
    }


async def test_zksync_charges_what_data_cost_more_than_none() -> None:
    async with node_with("zks_estimateFee", zk_answer) as rpc:
        charges = await ZkSync().charges(rpc, [bundle(500), bundle(10)], HEAD)
    assert charges == [DataCharge(50_000 * 0x2B275D0, 50_000), DataCharge(1_000 * 0x2B275D0, 1_000)]


@pytest.mark.parametrize(
    ("model", "method", "answer"),
    [
        (Linea(), "linea_estimateGas", None),
        (Linea(), "linea_estimateGas", {"gasLimit": "0xcf08"}),
        (Linea(), "linea_estimateGas", {"gasLimit": "0xcf08", "priorityFeePerGas": "cheap"}),
        (Linea(), "linea_estimateGas", {"gasLimit": "0xcf08", "priorityFeePerGas": "0x0"}),
        (Linea(), "linea_estimateGas", {"gasLimit": "0x1", "priorityFeePerGas": "0x1"}),
        (ZkSync(), "zks_estimateFee", "0x1"),
        (ZkSync(), "zks_estimateFee", {"gas_limit": "0x1", "max_fee_per_gas": "0x0", "gas_per_pubdata_limit": "0x1"}),
        (ZkSync(), "zks_estimateFee", {"gas_limit": "0x1", "max_fee_per_gas": "0x1"}),
        (Linea(), "eth_nothing", None),
        (ZkSync(), "eth_nothing", None),
    ],
)
async def test_nonsense_and_silence_are_errors_not_guesses(model: FeeModel, method: str, answer: Any) -> None:
    async with node_with(method, lambda _: answer) as rpc:
        with pytest.raises(FeeDataError, match=r"nonsense|did not say|is needed"):
            await model.charges(rpc, [bundle()], HEAD)


async def test_arbitrum_bundle_has_the_datas_gas_in_its_limit(own_chain: Chain, tmp_path: Path) -> None:
    await put(own_chain, NODE_INTERFACE, words(60_000, 10**9, 10**9))
    await put(own_chain, ARB_GAS_INFO, words(10**7))
    account = await own_chain.account(deployed=True)
    async with serving(settings_for(own_chain, tmp_path, fee_model="arbitrum")) as client:
        op = account.sign(await client.estimated(await account.draft()))
        receipt = await client.included(await client.send(op))
    sent = await own_chain.rpc.call("eth_getTransactionByHash", receipt["receipt"]["transactionHash"])
    data = BundleData(1, EXECUTOR, V08.address, parse_bytes(sent["input"]), 0, 0)
    (charge,) = await Arbitrum().charges(own_chain.rpc, [data], HEAD)
    assert charge.gas > 60_000
    assert int(sent["gas"], 16) == bundle_gas_limit(V08, [op]) + charge.gas


async def test_linea_bundle_pays_the_tip_its_sequencer_wants(own_chain: Chain, tmp_path: Path) -> None:
    tip_wei = 3 * 10**9

    def answer(_: dict[str, Any]) -> Any:
        return {"gasLimit": hex(30_000), "baseFeePerGas": "0x7", "priorityFeePerGas": hex(tip_wei)}

    account = await own_chain.account(deployed=True)
    async with node_with("linea_estimateGas", answer, own_chain.anvil.url) as node:
        # The node says the same of every transaction, so that the bundle's gas at this tip costs more than what it says.
        settings = settings_for(own_chain, tmp_path, fee_model="linea", rpc_url=node.url, require_profit=False)
        async with serving(settings) as client:
            op = account.sign(await client.estimated(await account.draft()))
            receipt = await client.included(await client.send(op))
    sent = await own_chain.rpc.call("eth_getTransactionByHash", receipt["receipt"]["transactionHash"])
    assert int(sent["maxPriorityFeePerGas"], 16) == tip_wei
    cost_wei = int(receipt["receipt"]["gasUsed"], 16) * int(receipt["receipt"]["effectiveGasPrice"], 16)
    assert (
        int(receipt["actualGasCost"], 16)
        >= cost_wei - int(receipt["receipt"]["gasUsed"], 16) * tip_wei + 30_000 * tip_wei
    )
