"""Bundles in a compact form on a rollup: used where it costs less, settled and looked up like any other, refused where it cannot work."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from bundler.conditional import METHOD
from bundler.deflate import Dictionary, deflate
from bundler.doctor import examine
from bundler.endpoints import Endpoint
from bundler.gas import bundle_gas_limit, inflated_gas_limit
from bundler.inflator import Inflator, Packed
from bundler.settings import Settings
from contracts.deploy import deploy_inflator, inflator_dictionary
from contracts.devnet import packages
from contracts.devnet.chain import CHAIN_ID, Builder
from contracts.devnet.op_stack import BEDROCK, install_op_stack
from contracts.entrypoint import V07, V08, V09, EntryPoint, decode_failed_op
from contracts.eoa import TransactionSender
from contracts.errors import RpcError, SetupError
from contracts.types import Address, Hash32, parse_bytes, to_hex
from contracts.userop import UserOperation
from tests.bundler.fees.test_bundler import L1_BASE_FEE_WEI, set_l1_base_fee
from tests.bundler.relay import Relay
from tests.bundler.rig import GWEI, TARGET, Chain, Client, serving, settings_for


@pytest.fixture
async def rollup(own_chain: Chain) -> Chain:
    """A chain with the OP stack's predeploys, Fjord in force."""
    packages.fetch([packages.locked()[BEDROCK]])
    await own_chain.automine(False)
    await install_op_stack(Builder(own_chain.rpc, own_chain.accounts, await own_chain.now_s() + 120))
    await own_chain.automine(True)
    await set_l1_base_fee(own_chain, L1_BASE_FEE_WEI)
    return own_chain


async def deployed(chain: Chain) -> Address:
    sender = TransactionSender(chain.rpc, chain.accounts.trader2, CHAIN_ID)
    return await deploy_inflator(sender, inflator_dictionary([TARGET, *chain.factories.values()]))


async def through(chain: Chain, folder: Path, **changes: Any) -> Settings:
    """A bundler with an inflator on a rollup; whatever data cost, operations are sent."""
    values = {"fee_model": "op-stack", "inflator": await deployed(chain), "data_fee_tolerance_percent": 100}
    return settings_for(chain, folder, **(values | {"allow_data_loss": True, "require_profit": False} | changes))


async def bundle(chain: Chain, client: Client, entry_point: EntryPoint = V08, count: int = 4) -> list[Hash32]:
    """So many operations in one bundle."""
    await chain.automine(False)
    blocker = await client.send(await (await chain.account()).operation())
    await client.sent(blocker, chain)
    sent = [await client.send(await (await chain.account(entry_point)).operation(), entry_point) for _ in range(count)]
    await chain.automine(True)
    await chain.mine()
    return sent


async def transaction_of(chain: Chain, client: Client, op_hash: Hash32) -> dict[str, Any]:
    receipt = await client.included(op_hash)
    assert receipt["success"] is True
    found: dict[str, Any] = await chain.rpc.call("eth_getTransactionByHash", receipt["receipt"]["transactionHash"])
    return found


@pytest.mark.parametrize("entry_point", [V07, V08], ids=["v0.7", "v0.8"])
async def test_a_bundle_goes_through_the_inflator_and_is_settled_and_found_like_any_other(
    rollup: Chain, tmp_path: Path, entry_point: EntryPoint
) -> None:
    settings = await through(rollup, tmp_path)
    assert settings.inflator is not None
    async with serving(settings) as client:
        sent = await bundle(rollup, client, entry_point)
        found = [await transaction_of(rollup, client, op_hash) for op_hash in sent]
        await client.settled()
        known = [await client.rpc.call("eth_getUserOperationByHash", to_hex(op_hash)) for op_hash in sent]
    inflator = await Inflator.open(rollup.rpc, settings.inflator, (entry_point,), TARGET)
    for tx in found:
        assert tx["to"] == to_hex(settings.inflator)
        ops = inflator.unpack(parse_bytes(tx["input"]), entry_point)
        assert len(parse_bytes(tx["input"])) < len(entry_point.encode_handle_ops(ops, TARGET)) / 2
    async with serving(replace(settings, database=tmp_path / "other.sqlite")) as stranger:  # knows only the chain
        again = [await stranger.rpc.call("eth_getUserOperationByHash", to_hex(op_hash)) for op_hash in sent]
    assert again == known
    for op_hash in sent:
        assert len(await rollup.receipts_of(entry_point, op_hash)) == 1


async def test_the_beneficiary_is_paid_through_the_inflator(rollup: Chain, tmp_path: Path) -> None:
    beneficiary = rollup.fresh_address()
    async with serving(await through(rollup, tmp_path, beneficiary=beneficiary)) as client:
        op_hash = await client.send(await (await rollup.account()).operation())
        tx = await transaction_of(rollup, client, op_hash)
        receipt = await client.included(op_hash)
    assert tx["to"] != to_hex(V08.address)
    assert await rollup.rpc.get_balance(beneficiary) == int(receipt["actualGasCost"], 16)


async def test_where_data_are_cheaper_than_unpacking_them_bundles_go_plainly(rollup: Chain, tmp_path: Path) -> None:
    await set_l1_base_fee(rollup, 1)
    async with serving(await through(rollup, tmp_path)) as client:
        op_hash = await client.send(await (await rollup.account()).operation())
        assert (await transaction_of(rollup, client, op_hash))["to"] == to_hex(V08.address)


async def test_where_data_cost_nothing_bundles_go_plainly(own_chain: Chain, tmp_path: Path) -> None:
    async with serving(await through(own_chain, tmp_path, fee_model="l1")) as client:
        op_hash = await client.send(await (await own_chain.account()).operation())
        assert (await transaction_of(own_chain, client, op_hash))["to"] == to_hex(V08.address)


async def test_a_condition_is_for_entry_points_only(rollup: Chain, tmp_path: Path) -> None:
    async with Relay.start(rollup.rpc) as relay:
        settings = await through(rollup, tmp_path, submission=(Endpoint(relay.url, conditional=True),))
        async with serving(settings) as client:
            op_hash = await client.send(await (await rollup.account()).operation())
            assert (await transaction_of(rollup, client, op_hash))["to"] != to_hex(V08.address)
    assert METHOD not in [method for method, _ in relay.sends]


@pytest.mark.parametrize("entry_point", [V07, V08], ids=["v0.7", "v0.8"])
async def test_the_entry_points_own_reason_comes_back_through_the_inflator(
    rollup: Chain, entry_point: EntryPoint
) -> None:
    address = await deployed(rollup)
    good, bad = [await (await rollup.account(entry_point)).operation() for _ in range(2)]
    packed = [entry_point.pack(op) for op in (good, bad.replace(signature=good.signature))]
    data = deflate(entry_point.address, packed, TARGET, (await _opened(rollup, address)).dictionary)
    with pytest.raises(RpcError) as caught:
        await rollup.rpc.eth_call(address, data)
    failed = decode_failed_op(parse_bytes(caught.value.data))
    assert failed is not None
    assert (failed.op_index, failed.reason[:4]) == (1, "AA24")


async def _opened(chain: Chain, address: Address) -> Inflator:
    return await Inflator.open(chain.rpc, address, (V07, V08), TARGET)


async def test_start_refuses_an_entry_point_that_does_not_listen_to_contracts_by_name(
    rollup: Chain, tmp_path: Path
) -> None:
    settings = await through(rollup, tmp_path, entry_points=(V08, V09))
    with pytest.raises(SetupError, match=r"entry point v0\.9 .* does not listen to contracts"):
        async with serving(settings):
            pass
    (found,) = [one for one in await examine(settings) if one.what == "inflator"]
    assert (found.level, "v0.9" in found.text) == ("failed", True)


async def test_start_refuses_what_is_no_inflator(rollup: Chain, tmp_path: Path) -> None:
    settings = await through(rollup, tmp_path, inflator=V07.address)
    with pytest.raises(SetupError, match="there is no Inflator"):
        async with serving(settings):
            pass


@pytest.mark.parametrize("seed", [b"", b"\x01", b"\xaa\xbb"], ids=["zeros", "ones", "pairs"])
async def test_the_gas_limit_covers_unpacking_whatever_the_data(rollup: Chain, seed: bytes) -> None:
    """Runs, literals and short copies: as many bytes as a bundle may have, behind an entry point that costs nothing."""
    words = Dictionary(bytes(range(256)) * 90)
    sender = TransactionSender(rollup.rpc, rollup.accounts.trader2, CHAIN_ID)
    address = await deploy_inflator(sender, words.data)
    free = await rollup.put(b"\x00")
    noise = b"".join(bytes([i % 251 + 1]) + seed + bytes(i % 3) for i in range(2_000))
    ops = [UserOperation(bytes([i]) * 20, i, noise, 1, 1, 1, GWEI, 1, b"") for i in range(8)]
    data = deflate(free, [V08.pack(op) for op in ops], None, words)
    packed = Packed(address, data, len(V08.encode_handle_ops(ops, TARGET)))
    used = int(await rollup.rpc.call("eth_estimateGas", {"to": to_hex(address), "data": to_hex(data)}), 16)
    plain = bundle_gas_limit(V08, ops) - 8 * 3  # which holds nothing for what runs here but calldata and overhead
    assert used <= inflated_gas_limit(plain, packed)
