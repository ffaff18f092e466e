"""A bundler on a chain that charges for data: estimates, admission, and bundles that pay for themselves."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

import pytest

from bundler.chain import read_head
from bundler.fees import BundleData, DataCharge, Pricing, choose
from bundler.fees.model import price_of
from bundler.fees.op_stack import GAS_PRICE_ORACLE, OpStack
from bundler.fees.plain import Plain
from bundler.fees.shaping import earned_for_data, shape
from bundler.gas import BUNDLE_OVERHEAD, TRANSACTION_GAS, pre_verification_gas
from bundler.mempool import FOREVER, Entry
from bundler.settings import Settings
from contracts.abi import Function
from contracts.devnet import packages
from contracts.devnet.chain import CHAIN_ID, Builder
from contracts.devnet.op_stack import BEDROCK, L1_BLOCK, install_op_stack
from contracts.entrypoint import V08
from contracts.errors import BadInput, RpcError, SetupError
from contracts.types import parse_bytes, to_hex
from contracts.userop import Candidate
from tests.bundler.rig import Chain, Client, serving, settings_for, until
from tests.bundler.test_settings import BASE

L1_BASE_FEE_WEI = 5_000 * 10**9
"""High, so that data cost several times the execution, as on a rollup whose own gas is cheap."""
GET_L1_FEE = Function.parse("getL1Fee(bytes)(uint256)")


@pytest.fixture
async def rollup(own_chain: Chain) -> Chain:
    """A chain with the OP stack's predeploys, Fjord in force."""
    packages.fetch([packages.locked()[BEDROCK]])
    await own_chain.automine(False)
    await install_op_stack(Builder(own_chain.rpc, own_chain.accounts, await own_chain.now_s() + 120))
    await own_chain.automine(True)
    await set_l1_base_fee(own_chain, L1_BASE_FEE_WEI)
    return own_chain


async def set_l1_base_fee(chain: Chain, wei: int) -> None:
    """L1Block keeps its base fee in its second slot."""
    await chain.rpc.call("anvil_setStorageAt", to_hex(L1_BLOCK), "0x" + "00" * 31 + "01", "0x" + wei.to_bytes(32).hex())
    await chain.mine()
    answer = await chain.rpc.eth_call(L1_BLOCK, Function.parse("basefee()(uint256)").encode())
    assert int.from_bytes(answer) == wei


def on_rollup(chain: Chain, folder: Path, **changes: Any) -> Settings:
    return settings_for(chain, folder, **({"fee_model": "op-stack"} | changes))


async def seen(chain: Chain, client: Client) -> None:
    """The bundler has looked at the latest block, and at its pool on it."""
    for _ in range(2):
        await chain.mine()
        head = await chain.rpc.block_number()

        async def there(number: int = head) -> bool:
            return int((await client.service())["lastBlock"], 16) >= number

        await until(there, "the bundler saw the block")


async def test_estimate_holds_the_l1_fee_and_what_it_says_is_accepted_and_earns_it(
    rollup: Chain, tmp_path: Path
) -> None:
    account = await rollup.account(deployed=True)
    draft = await account.draft(data=bytes(range(256)))
    (tmp_path / "plain").mkdir()
    async with serving(settings_for(rollup, tmp_path / "plain", fee_model="l1")) as client:
        plain = await client.estimate(draft)
    price_wei = price_of(draft, await read_head(rollup.rpc))
    async with serving(on_rollup(rollup, tmp_path)) as client:
        op = account.sign(await client.estimated(draft))
        assert op.pre_verification_gas > plain["preVerificationGas"]
        receipt = await client.included(await client.send(op))
    transaction = await rollup.rpc.call("eth_getTransactionByHash", receipt["receipt"]["transactionHash"])
    raw = await rollup.rpc.call("eth_getRawTransactionByHash", transaction["hash"])
    # `getL1Fee` adds the bytes of a signature itself: the signed transaction less its last 67 bytes.
    answer = await rollup.rpc.eth_call(GAS_PRICE_ORACLE, GET_L1_FEE.encode(parse_bytes(raw)[:-67]))
    l1_fee_wei = GET_L1_FEE.decode(answer)[0]
    gas_cost_wei = int(receipt["receipt"]["gasUsed"], 16) * int(receipt["receipt"]["effectiveGasPrice"], 16)
    paid_wei = int(receipt["actualGasCost"], 16)
    assert paid_wei >= gas_cost_wei + l1_fee_wei
    data_gas = op.pre_verification_gas - plain["preVerificationGas"]
    print(f"L1 fee {l1_fee_wei} wei, paid for by {data_gas} gas at {price_wei} wei: {data_gas * price_wei} wei")
    assert l1_fee_wei <= data_gas * price_wei <= l1_fee_wei * 1.15


async def test_too_little_pre_verification_gas_for_the_data_is_refused_with_what_is_needed(
    rollup: Chain, tmp_path: Path
) -> None:
    account = await rollup.account(deployed=True)
    async with serving(on_rollup(rollup, tmp_path)) as client:
        op = await client.estimated(await account.draft())
        short = account.sign(op.replace(pre_verification_gas=op.pre_verification_gas * 2 // 3))
        with pytest.raises(RpcError, match=r"preVerificationGas \d+ is too low: .* its data on L1 \d+ gas .*op-stack"):
            await client.send(short)


async def test_tolerance_forgives_that_much_of_the_datas_part_and_no_more(rollup: Chain, tmp_path: Path) -> None:
    account = await rollup.account(deployed=True)
    async with serving(on_rollup(rollup, tmp_path, data_fee_tolerance_percent=50, data_fee_margin_percent=0)) as client:
        op = account.sign(await client.estimated(await account.draft()))
        data_gas = await pricing_of(rollup).data_gas(V08, Candidate(op), await read_head(rollup.rpc))
        near = account.sign(op.replace(pre_verification_gas=op.pre_verification_gas - data_gas * 40 // 100))
        far = account.sign(op.replace(pre_verification_gas=op.pre_verification_gas - data_gas * 65 // 100))
        with pytest.raises(RpcError, match="too low"):
            await client.send(far)
        await client.send(near)


async def test_operation_that_does_not_pay_for_its_data_waits_until_it_does(rollup: Chain, tmp_path: Path) -> None:
    account = await rollup.account(deployed=True)
    async with serving(on_rollup(rollup, tmp_path, data_fee_tolerance_percent=100)) as client:
        op = account.sign(await client.estimated(await account.draft()))
        await set_l1_base_fee(rollup, 3 * L1_BASE_FEE_WEI)
        await seen(rollup, client)
        waiting = await client.send(op)
        await seen(rollup, client)
        assert (await client.status(waiting) or {})["status"] == "received"
        # Cheaper than at the estimate: this chain's own base fee, which is part of what the operation pays, has fallen, too.
        await set_l1_base_fee(rollup, L1_BASE_FEE_WEI // 2)
        assert (await client.included(waiting))["success"] is True


async def pooled(chain: Chain, client: Client, shares: list[int]) -> list[Entry]:
    """An operation for each share: its preVerificationGas leaves that percentage of what its data cost alone."""
    head = await read_head(chain.rpc)
    entries = []
    for share in shares:
        account = await chain.account(deployed=True)
        op = await client.estimated(await account.draft(data=bytes(range(1, 200))))
        data_gas = await pricing_of(chain).data_gas(V08, Candidate(account.sign(op)), head)
        floor = pre_verification_gas(V08, op)
        op = account.sign(op.replace(pre_verification_gas=floor + data_gas * share // 100))
        op_hash = V08.user_op_hash(op, CHAIN_ID)
        entries.append(Entry(op_hash, op, V08, 0.0, head.number, 0, FOREVER))
    return entries


def pricing_of(chain: Chain) -> Pricing:
    bundler = chain.accounts.bundler.address
    return Pricing(chain.rpc, CHAIN_ID, bundler, bundler, OpStack())


async def test_operation_that_cannot_pay_alone_rides_with_one_that_pays_what_they_share(
    rollup: Chain, tmp_path: Path
) -> None:
    async with serving(on_rollup(rollup, tmp_path, data_fee_margin_percent=0)) as client:
        payer, rider, miser = await pooled(rollup, client, [130, 80, -50])
    head = await read_head(rollup.rpc)
    chosen = partial(shape, pricing_of(rollup), V08, head=head, after=lambda _: [])
    assert await chosen(entries=[rider]) == []
    assert await chosen(entries=[payer]) == [payer]
    assert await chosen(entries=[payer, rider, miser]) == [payer, rider]


async def test_every_shaped_bundle_earns_what_it_costs(rollup: Chain, tmp_path: Path) -> None:
    async with serving(on_rollup(rollup, tmp_path, data_fee_margin_percent=0)) as client:
        entries = await pooled(rollup, client, [130, 20, 95, 60, 101, 0, 99])
    head, pricing = await read_head(rollup.rpc), pricing_of(rollup)
    kept = await shape(pricing, V08, entries, head, lambda _: [])
    assert entries[0] in kept
    assert entries[5] not in kept or len(kept) == len(entries)
    (charge,) = await pricing.charges(V08, [[entry.candidate for entry in kept]], head)
    shared_wei = (TRANSACTION_GAS + BUNDLE_OVERHEAD) * min(price_of(entry.op, head) for entry in kept)
    assert sum(earned_for_data(entry, head) for entry in kept) >= charge.fee_wei + shared_wei


async def test_what_depends_on_a_rejected_operation_goes_with_it(rollup: Chain, tmp_path: Path) -> None:
    async with serving(on_rollup(rollup, tmp_path, data_fee_margin_percent=0)) as client:
        payer, miser, follower = await pooled(rollup, client, [150, -50, 150])
    head = await read_head(rollup.rpc)
    after = {miser.hash: [follower]}
    kept = await shape(pricing_of(rollup), V08, [payer, miser, follower], head, lambda entry: after.get(entry.hash, []))
    assert kept == [payer]


async def test_losses_are_taken_when_allowed(rollup: Chain, tmp_path: Path) -> None:
    account = await rollup.account(deployed=True)
    settings = on_rollup(rollup, tmp_path, allow_data_loss=True, data_fee_tolerance_percent=100)
    async with serving(settings) as client:
        op = account.sign(await client.estimated(await account.draft()))
        await set_l1_base_fee(rollup, 3 * L1_BASE_FEE_WEI)
        await seen(rollup, client)
        assert (await client.included(await client.send(op)))["success"] is True


async def test_node_that_stops_saying_what_data_cost_makes_sends_fail_clearly(rollup: Chain, tmp_path: Path) -> None:
    account = await rollup.account(deployed=True)
    async with serving(on_rollup(rollup, tmp_path)) as client:
        op = account.sign(await client.estimated(await account.draft()))
        await rollup.rpc.call("anvil_setCode", to_hex(GAS_PRICE_ORACLE), "0x")
        await seen(rollup, client)
        with pytest.raises(RpcError, match=r"GasPriceOracle .* did not answer"):
            await client.send(op)


async def test_model_follows_setting_then_chain_id_and_an_unknown_rollup_is_no_guess(rollup: Chain) -> None:
    assert (await choose(rollup.rpc, 8_453)).name == "op-stack"
    assert (await choose(rollup.rpc, 42_161)).name == "arbitrum"
    assert (await choose(rollup.rpc, 59_144)).name == "linea"
    assert (await choose(rollup.rpc, 534_352)).name == "scroll"
    assert (await choose(rollup.rpc, 324)).name == "zksync"
    assert (await choose(rollup.rpc, 1)).name == "l1"
    assert (await choose(rollup.rpc, 1, "linea")).name == "linea"
    with pytest.raises(SetupError, match="set `fee_model` to op-stack"):
        await choose(rollup.rpc, 987_654)
    await rollup.rpc.call("anvil_setCode", to_hex(GAS_PRICE_ORACLE), "0x")
    assert (await choose(rollup.rpc, 987_654)).name == "l1"


def test_unknown_model_and_tolerance_out_of_range_are_named() -> None:
    with pytest.raises(BadInput, match=r"fee_model must be auto or one of l1, op-stack.*got 'base'"):
        Settings.from_mapping(BASE | {"fee_model": "base"})
    with pytest.raises(BadInput, match="data_fee_tolerance_percent"):
        Settings.from_mapping(BASE | {"data_fee_tolerance_percent": 101})


async def test_plain_chain_charges_nothing_and_asks_nothing(own_chain: Chain) -> None:
    bundle = BundleData(1, bytes(20), bytes(20), b"\x01" * 500, 1, 1)
    head = await read_head(own_chain.rpc)
    assert await Plain().charges(own_chain.rpc, [bundle, bundle], head) == [DataCharge(), DataCharge()]


async def test_operations_that_do_not_pay_keep_no_place_from_those_that_do(rollup: Chain, tmp_path: Path) -> None:
    settings = on_rollup(rollup, tmp_path, data_fee_tolerance_percent=100, max_ops_per_bundle=1)
    async with serving(settings) as client:
        greedy, modest = await rollup.account(deployed=True), await rollup.account(deployed=True)
        op = await client.estimated(await greedy.draft())
        short = op.replace(
            pre_verification_gas=op.pre_verification_gas * 2 // 3,
            max_priority_fee_per_gas=op.max_priority_fee_per_gas * 11 // 10,
        )
        waiting = await client.send(greedy.sign(short))
        paying = await client.send(modest.sign(await client.estimated(await modest.draft())))
        assert (await client.included(paying))["success"] is True
        assert (await client.status(waiting) or {})["status"] == "received"
