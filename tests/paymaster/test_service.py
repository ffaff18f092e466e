"""The sponsor against a real chain: what it signs is what the real entry points accept, and what it refuses stays refused."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from eth_account import Account

from contracts.devnet.accounts import devnet_key
from contracts.devnet.chain import CHAIN_ID
from contracts.entrypoint import ENTRY_POINTS, V07, V08, EntryPoint
from contracts.eoa import Eoa
from contracts.errors import RpcError, SetupError
from contracts.types import checksum, keccak, to_hex
from contracts.userop import UserOperation, required_prefund
from paymaster.sponsor import STUB_DATA
from tests.paymaster.rig import RISK_VALIDATOR, START_S, Chain, operation, sponsored, sponsoring

PREFUND_WEI = required_prefund(operation(bytes(20), paymaster=bytes(20), paymaster_verification_gas_limit=60_000))


async def refusal(asked: Any) -> dict[str, Any]:
    """The data of the error that `asked` answers: its rule among them."""
    with pytest.raises(RpcError) as caught:
        await asked
    assert caught.value.rpc_code == -32500
    data: dict[str, Any] = caught.value.data
    return data


@pytest.mark.parametrize("entry_point", ENTRY_POINTS.values(), ids=ENTRY_POINTS)
async def test_a_sponsored_operation_is_included_and_paid_by_the_paymaster(
    chain: Chain, tmp_path: Path, entry_point: EntryPoint
) -> None:
    async with sponsoring(chain, tmp_path) as sponsor:
        op = await sponsor.data(operation(await chain.account()), entry_point=entry_point)
        promised = await sponsor.status()
        ((op_hash, cost_wei),) = await chain.include(op, entry_point=entry_point)
        settled = await sponsor.status()
    assert op_hash == entry_point.user_op_hash(op, CHAIN_ID)
    assert (promised["heldWei"], promised["spentWei"]) == (str(required_prefund(op)), "0")
    assert (settled["heldWei"], settled["spentWei"]) == ("0", str(cost_wei))
    assert 0 < cost_wei < required_prefund(op)


async def test_several_sponsored_operations_settle_from_one_bundle(chain: Chain, tmp_path: Path) -> None:
    async with sponsoring(chain, tmp_path) as sponsor:
        ops = [await sponsor.data(operation(await chain.account())) for _ in range(3)]
        costs = await chain.include(*ops)
        status = await sponsor.status()
    assert (status["spentWei"], status["held"], status["settled"]) == (str(sum(c for _, c in costs)), 0, 3)


async def test_the_stub_has_the_shape_of_the_final_data_and_promises_nothing(chain: Chain, tmp_path: Path) -> None:
    async with sponsoring(chain, tmp_path, offer={"name": "Fund"}) as sponsor:
        op = operation(await chain.account())
        stub = await sponsor.stub(op)
        assert (await sponsor.status())["held"] == 0
        final = (await sponsor.data(sponsored(op, stub))).paymaster_data
    assert stub["isFinal"] is False
    assert stub["sponsor"] == {"name": "Fund"}
    assert bytes.fromhex(stub["paymasterData"][2:]) == STUB_DATA
    assert len(STUB_DATA) == len(final)
    assert STUB_DATA.count(0) <= final.count(0)


async def test_the_stub_needs_no_gas_fields_and_no_signature(chain: Chain, tmp_path: Path) -> None:
    async with sponsoring(chain, tmp_path) as sponsor:
        bare = {"sender": to_hex(await chain.account()), "nonce": "0x0", "callData": "0x"}
        stub = await sponsor.rpc.call("pm_getPaymasterStubData", bare, checksum(V08.address), hex(CHAIN_ID), None)
    assert stub["paymaster"] == checksum(chain.paymasters[V08.address])


@pytest.mark.parametrize("entry_point", ENTRY_POINTS.values(), ids=ENTRY_POINTS)
async def test_the_contract_answers_the_stub_without_a_revert(
    chain: Chain, tmp_path: Path, entry_point: EntryPoint
) -> None:
    async with sponsoring(chain, tmp_path) as sponsor:
        op = operation(await chain.account())
        op = sponsored(op, await sponsor.stub(op, entry_point=entry_point))
    with pytest.raises(SetupError, match=b"AA34".hex()):
        await chain.include(op, entry_point=entry_point)


async def test_asking_twice_gives_the_same_signature_and_one_promise(chain: Chain, tmp_path: Path) -> None:
    async with sponsoring(chain, tmp_path) as sponsor:
        op = operation(await chain.account())
        first, second = await sponsor.data(op), await sponsor.data(op)
        status = await sponsor.status()
    assert first == second
    assert (status["held"], status["heldWei"]) == (1, str(required_prefund(first)))


async def test_a_new_paymaster_gas_limit_raises_the_same_promise(chain: Chain, tmp_path: Path) -> None:
    async with sponsoring(chain, tmp_path) as sponsor:
        op = operation(await chain.account())
        await sponsor.data(op)
        larger = await sponsor.data(
            op.replace(paymaster=chain.paymasters[V08.address], paymaster_verification_gas_limit=100_000)
        )
        status = await sponsor.status()
        await chain.include(larger)
    assert (status["held"], status["heldWei"]) == (1, str(required_prefund(larger)))


async def test_an_approval_replayed_after_inclusion_is_refused(chain: Chain, tmp_path: Path) -> None:
    async with sponsoring(chain, tmp_path) as sponsor:
        op = operation(await chain.account())
        await chain.include(await sponsor.data(op))
        assert (await refusal(sponsor.data(op)))["rule"] == "nonce-used"


async def test_an_approval_replayed_on_the_other_entry_point_is_refused(chain: Chain, tmp_path: Path) -> None:
    async with sponsoring(chain, tmp_path) as sponsor:
        op = operation(await chain.account())
        await sponsor.data(op)
        assert (await refusal(sponsor.data(op, entry_point=V07)))["rule"] == "entry-point-changed"


@pytest.mark.parametrize(
    "change",
    [
        {"call_data": b"hell0"},
        {"nonce": 1},
        {"call_gas_limit": 400_001},
        {"verification_gas_limit": 1},
        {"pre_verification_gas": 1},
        {"max_fee_per_gas": 10 * 10**9 + 1},
        {"max_priority_fee_per_gas": 0},
        {"factory": bytes(19) + b"\1"},
        {"sender": b"\7" * 20},
    ],
    ids=lambda change: next(iter(change)),
)
async def test_an_operation_changed_after_the_approval_is_refused(
    chain: Chain, tmp_path: Path, change: dict[str, Any]
) -> None:
    async with sponsoring(chain, tmp_path) as sponsor:
        op = operation(await chain.account())
        data = await refusal(sponsor.data(op.replace(**change), chain.approve(op)))
    assert data["rule"] == ("bad-approval-signature" if "sender" in change else "tampered")


@pytest.mark.parametrize(
    ("change", "rule"),
    [
        ({"valid_until_s": START_S}, "expired"),
        ({"decision": 0}, "not-allowed"),
        ({"decision": 2}, "not-allowed"),
        ({"engine": Eoa(devnet_key("stranger"))}, "unknown-engine"),
        ({"policy_id": keccak(b"another policy")}, "unknown-policy"),
    ],
)
async def test_an_approval_that_does_not_allow_this_now_is_refused(
    chain: Chain, tmp_path: Path, change: dict[str, Any], rule: str
) -> None:
    async with sponsoring(chain, tmp_path, policies=[to_hex(keccak(b"a policy"))]) as sponsor:
        op = operation(await chain.account())
        assert (await refusal(sponsor.data(op, chain.approve(op, **change))))["rule"] == rule


@pytest.mark.parametrize(
    "field", ["policyId", "policyEpoch", "factsHash", "decision", "validUntil", "signature", "engine"]
)
async def test_an_approval_that_the_engine_did_not_sign_is_refused(chain: Chain, tmp_path: Path, field: str) -> None:
    other = Eoa(devnet_key("another engine"))
    async with sponsoring(chain, tmp_path, engines=[to_hex(chain.engine.address), to_hex(other.address)]) as sponsor:
        op = operation(await chain.account())
        said = chain.approve(op).to_rpc()
        forged = chain.approve(op, engine=other, decision=1, policy_epoch=2, valid_until_s=2**47).to_rpc()
        forged |= {"policyId": to_hex(keccak(b"x")), "factsHash": to_hex(keccak(b"y")), "decision": 0}
        assert (await refusal(sponsor.data(op, said | {field: forged[field]})))["rule"] == "bad-approval-signature"


async def test_a_high_s_twin_of_the_signature_is_refused(chain: Chain, tmp_path: Path) -> None:
    order = 0xFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFEBAAEDCE6AF48A03BBFD25E8CD0364141
    async with sponsoring(chain, tmp_path) as sponsor:
        op = operation(await chain.account())
        said = chain.approve(op)
        s = order - int.from_bytes(said.signature[32:64])
        twin = said.signature[:32] + s.to_bytes(32) + bytes([55 - said.signature[64]])
        asked = sponsor.data(op, said.to_rpc() | {"signature": to_hex(twin)})
        assert (await refusal(asked))["rule"] == "bad-approval-signature"


async def test_without_an_approval_nothing_is_signed(chain: Chain, tmp_path: Path) -> None:
    async with sponsoring(chain, tmp_path) as sponsor:
        op = operation(await chain.account())
        asked = sponsor.rpc.call("pm_getPaymasterData", op.to_rpc(), checksum(V08.address), hex(CHAIN_ID), {})
        assert (await refusal(asked))["rule"] == "no-approval"


async def test_an_account_that_is_not_listed_gets_neither_stub_nor_signature(chain: Chain, tmp_path: Path) -> None:
    listed = await chain.account()
    async with sponsoring(chain, tmp_path, accounts=[to_hex(listed)]) as sponsor:
        await sponsor.data(operation(listed))
        stranger = operation(await chain.account())
        assert (await refusal(sponsor.data(stranger)))["rule"] == "unknown-account"
        assert (await refusal(sponsor.stub(stranger)))["rule"] == "unknown-account"


@pytest.mark.parametrize(
    ("table", "change"),
    [
        ("verification_gas", {"verification_gas_limit": 2_000_000}),
        ("call_gas", {"call_gas_limit": 2_000_000}),
        ("pre_verification_gas", {"pre_verification_gas": 2_000_000}),
        ("max_fee_wei", {"max_fee_per_gas": 2_000_000}),
        ("paymaster_verification_gas", {"paymaster_verification_gas_limit": 2_000_000}),
        ("paymaster_post_op_gas", {"paymaster_post_op_gas_limit": 2_000_000}),
    ],
)
async def test_each_gas_ceiling_holds(chain: Chain, tmp_path: Path, table: str, change: dict[str, Any]) -> None:
    async with sponsoring(chain, tmp_path, gas={table: 1_999_999}) as sponsor:
        fields: dict[str, Any] = {
            "max_fee_per_gas": 1,
            "max_priority_fee_per_gas": 0,
            "paymaster": chain.paymasters[V08.address],
        }
        op = operation(await chain.account(), **(fields | change))
        assert (await refusal(sponsor.data(op)))["rule"] == "gas-ceiling"


async def test_a_priority_fee_above_the_fee_is_refused(chain: Chain, tmp_path: Path) -> None:
    async with sponsoring(chain, tmp_path) as sponsor:
        op = operation(await chain.account(), max_priority_fee_per_gas=10**11)
        assert (await refusal(sponsor.data(op)))["rule"] == "gas-ceiling"


async def test_an_operation_above_its_own_ceiling_is_refused(chain: Chain, tmp_path: Path) -> None:
    async with sponsoring(chain, tmp_path, budget={"per_operation_wei": PREFUND_WEI - 1}) as sponsor:
        data = await refusal(sponsor.data(operation(await chain.account())))
    assert data == {
        "rule": "budget-operation",
        "requestedWei": str(PREFUND_WEI),
        "limitWei": str(PREFUND_WEI - 1),
    }


async def test_the_total_budget_ends_exactly_at_its_limit(chain: Chain, tmp_path: Path) -> None:
    async with sponsoring(chain, tmp_path, budget={"total_wei": 2 * PREFUND_WEI}) as sponsor:
        for _ in range(2):
            await sponsor.data(operation(await chain.account()))
        assert (await refusal(sponsor.data(operation(await chain.account()))))["rule"] == "budget-total"


async def test_the_difference_between_promise_and_cost_comes_back(chain: Chain, tmp_path: Path) -> None:
    async with sponsoring(chain, tmp_path, budget={"total_wei": 2 * PREFUND_WEI - 1}) as sponsor:
        first = await sponsor.data(operation(await chain.account()))
        another = operation(await chain.account())
        assert (await refusal(sponsor.data(another)))["rule"] == "budget-total"
        await chain.include(first)
        await sponsor.status()
        await sponsor.data(another)


async def test_an_account_has_its_own_daily_budget_which_the_next_day_renews(chain: Chain, tmp_path: Path) -> None:
    async with sponsoring(chain, tmp_path, budget={"per_account_day_wei": PREFUND_WEI}) as sponsor:
        account = await chain.account()
        await sponsor.data(operation(account))
        parallel = operation(account, nonce=1 << 64)
        assert (await refusal(sponsor.data(parallel)))["rule"] == "budget-account-day"
        await sponsor.data(operation(await chain.account()))
        await chain.build.mine(86_400)
        await sponsor.data(parallel)


async def test_requests_racing_for_the_last_of_the_budget_get_it_once(chain: Chain, tmp_path: Path) -> None:
    async with sponsoring(chain, tmp_path, budget={"total_wei": 3 * PREFUND_WEI}) as sponsor:
        ops = [operation(await chain.account()) for _ in range(20)]
        answers = await asyncio.gather(*(sponsor.data(op) for op in ops), return_exceptions=True)
        status = await sponsor.status()
    granted = [answer for answer in answers if isinstance(answer, UserOperation)]
    refused = [answer for answer in answers if isinstance(answer, RpcError)]
    assert (len(granted), len(refused)) == (3, 17)
    assert {answer.data["rule"] for answer in refused} == {"budget-total"}
    assert status["heldWei"] == str(3 * PREFUND_WEI)


async def test_two_services_on_one_ledger_do_not_overspend(chain: Chain, tmp_path: Path) -> None:
    budget = {"total_wei": 3 * PREFUND_WEI}
    async with sponsoring(chain, tmp_path, budget=budget) as one, sponsoring(chain, tmp_path, budget=budget) as two:
        ops = [operation(await chain.account()) for _ in range(12)]
        asked = (sponsor.data(op) for sponsor, op in zip([one, two] * 6, ops, strict=True))
        answers = await asyncio.gather(*asked, return_exceptions=True)
    assert sum(isinstance(answer, UserOperation) for answer in answers) == 3


async def test_promises_never_exceed_the_deposit(tmp_path: Path) -> None:
    async with Chain.start() as chain, sponsoring(chain, tmp_path, budget={"total_wei": 10**30}) as sponsor:
        owner = chain.accounts.paymaster_owner
        left_wei = 2 * PREFUND_WEI
        paymaster = chain.paymasters[V08.address]
        await chain.build.send(paymaster, "withdraw(address,uint256)", owner.address, 10**20 - left_wei, sender=owner)
        for _ in range(2):
            await sponsor.data(operation(await chain.account()))
        data = await refusal(sponsor.data(operation(await chain.account())))
        ready = await sponsor.status()
    assert (data["rule"], data["limitWei"]) == ("deposit", str(left_wei))
    assert ready["ready"] is True


async def test_an_unused_promise_is_released_once_a_confirmed_block_is_past_it(chain: Chain, tmp_path: Path) -> None:
    async with sponsoring(chain, tmp_path, validity_s=60, confirmations=2) as sponsor:
        op = await sponsor.data(operation(await chain.account()))
        await chain.build.mine(61)
        held = [(await sponsor.status())["held"]]
        for _ in range(2):
            await chain.build.mine()
            held.append((await sponsor.status())["held"])
    assert held == [1, 1, 0]
    with pytest.raises(SetupError, match=b"AA32".hex()):
        await chain.include(op)


async def test_a_released_intent_can_be_promised_anew(chain: Chain, tmp_path: Path) -> None:
    async with sponsoring(chain, tmp_path, validity_s=60) as sponsor:
        op = operation(await chain.account())
        approval = chain.approve(op)
        await sponsor.data(op, approval)
        await chain.build.mine(61)
        await chain.build.mine()
        assert (await sponsor.status())["held"] == 0
        await chain.include(await sponsor.data(op, approval))
        assert (await sponsor.status())["settled"] == 1


async def test_a_promise_about_to_expire_is_renewed_when_asked_again(chain: Chain, tmp_path: Path) -> None:
    async with sponsoring(chain, tmp_path, validity_s=60) as sponsor:
        op = operation(await chain.account())
        approval = chain.approve(op)
        first = await sponsor.data(op, approval)
        await chain.build.mine(31)
        second = await sponsor.data(op, approval)
        assert (await sponsor.status())["held"] == 1
    assert int.from_bytes(second.paymaster_data[:6]) == int.from_bytes(first.paymaster_data[:6]) + 31


async def test_a_promise_never_outlives_its_approval(chain: Chain, tmp_path: Path) -> None:
    async with sponsoring(chain, tmp_path, validity_s=600) as sponsor:
        op = operation(await chain.account())
        until_s = chain.build.now_s + 7
        granted = await sponsor.data(op, chain.approve(op, valid_until_s=until_s))
    assert int.from_bytes(granted.paymaster_data[:6]) == until_s


async def test_another_operation_in_the_same_nonce_frees_the_promise(chain: Chain, tmp_path: Path) -> None:
    async with sponsoring(chain, tmp_path) as sponsor:
        account = await chain.account()
        used, unused = operation(account), operation(account, call_data=b"other")
        await sponsor.data(unused)
        await chain.include(await sponsor.data(used))
        status = await sponsor.status()
    assert (status["held"], status["settled"]) == (0, 1)


async def test_a_wrong_chain_or_entry_point_is_named(chain: Chain, tmp_path: Path) -> None:
    async with sponsoring(chain, tmp_path, paymasters={"v0.8": checksum(chain.paymasters[V08.address])}) as sponsor:
        op = operation(await chain.account()).to_rpc()
        for entry_point, chain_id in ((V08.address, 1), (bytes(20), CHAIN_ID)):
            with pytest.raises(RpcError) as caught:
                await sponsor.rpc.call("pm_getPaymasterStubData", op, checksum(entry_point), hex(chain_id), {})
            assert caught.value.rpc_code == -32602
        other = op | {"paymaster": "0x" + "11" * 20}
        with pytest.raises(RpcError, match="names paymaster"):
            await sponsor.rpc.call("pm_getPaymasterStubData", other, checksum(V08.address), hex(CHAIN_ID), {})


async def test_health_and_readiness_are_plain_http(chain: Chain, tmp_path: Path) -> None:
    async with sponsoring(chain, tmp_path) as sponsor, aiohttp.ClientSession() as http:
        for path in ("/health", "/ready"):
            async with http.get(sponsor.url + path) as response:
                assert response.status == 200


async def test_the_approval_is_signed_as_any_eip_712_wallet_would(chain: Chain) -> None:
    op = operation(await chain.account())
    approval = chain.approve(op)
    kinds = "address account,bytes32 intentHash,bytes32 policyId,uint64 policyEpoch,bytes32 factsHash,uint8 decision"
    fields = [field.split() for field in f"{kinds},uint48 validUntil".split(",")]
    message = {name: value for name, value in approval.to_rpc().items() if name not in ("engine", "signature")} | {
        "account": checksum(op.sender)
    }
    signed = Account.sign_typed_data(
        devnet_key("engine"),
        {
            "name": "Seawall Engine",
            "version": "1",
            "chainId": CHAIN_ID,
            "verifyingContract": checksum(RISK_VALIDATOR),
        },
        {"IntentApproval": [{"name": name, "type": kind} for kind, name in fields]},
        message,
    )
    assert bytes(signed.signature) == approval.signature
