"""Every reason to refuse an operation, with its JSON-RPC code and the words a user needs."""

from __future__ import annotations

import asyncio
import contextlib
import sqlite3
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from bundler.gas import pre_verification_gas
from contracts.entrypoint import V07, V08, V09, EntryPoint
from contracts.errors import RpcError
from contracts.types import to_hex
from contracts.userop import EIP7702_MARKER, UserOperation, required_prefund
from tests.bundler.rig import (
    GWEI,
    PAYMASTER_OK,
    REVERTS,
    Chain,
    Client,
    SimpleAccount,
    answers,
    error_data,
    paymaster_answers,
    serving,
    settings_for,
    validation_word,
    with_limits,
)

EACH = pytest.mark.parametrize("entry_point", [V08, V07, V09], ids=["v0.8", "v0.7", "v0.9"])
FIELDS, ENTRY_POINT, PAYMASTER, RULE, TIME, THROTTLED, STAKE, AGGREGATOR, SIGNATURE, DEPOSIT = (
    -32602, -32500, -32501, -32502, -32503, -32504, -32505, -32506, -32507, -32508,
)  # fmt: skip


async def refused(client: Client, op: UserOperation, code: int, words: str, entry_point: EntryPoint = V08) -> RpcError:
    with pytest.raises(RpcError, match=words) as caught:
        await client.send(op, entry_point)
    assert caught.value.rpc_code == code, caught.value
    return caught.value


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda op: op.replace(max_priority_fee_per_gas=op.max_fee_per_gas + 1), "maxPriorityFeePerGas .* is above"),
        (lambda op: op.replace(max_fee_per_gas=1, max_priority_fee_per_gas=1), "maxFeePerGas 1 is too low"),
        (lambda op: op.replace(call_gas_limit=1_000), "callGasLimit 1000 is too low"),
        (lambda op: op.replace(verification_gas_limit=6_000_000), "verificationGasLimit 6000000 is above"),
        (lambda op: op.replace(call_gas_limit=17_000_000), "more than 16777216"),
        (lambda op: op.replace(pre_verification_gas=20_000), "preVerificationGas 20000 is too low"),
        (lambda op: op.replace(call_data=bytes(70_000)), "more than 65536"),
        (lambda op: op.replace(factory=op.sender), "cannot also be"),
        (lambda op: op.replace(factory=EIP7702_MARKER, factory_data=b""), "needs an EIP-7702 delegation"),
    ],
    ids=[
        "tip-above-fee",
        "fee-below-base",
        "call-gas",
        "verification-cap",
        "bundle-cap",
        "pvg",
        "size",
        "roles",
        "7702",
    ],
)
async def test_static_checks_name_the_field(
    shared_chain: Chain, bundler: Client, change: Callable[[UserOperation], UserOperation], words: str
) -> None:
    op = await (await shared_chain.account()).operation()
    await refused(bundler, change(op), FIELDS, words)


async def test_pre_verification_gas_floor_is_exact(shared_chain: Chain, bundler: Client) -> None:
    account = await shared_chain.account()
    op = await account.operation(data=b"\x01" * 3_000)
    least = pre_verification_gas(V08, op)
    await refused(bundler, account.sign(op.replace(pre_verification_gas=least - 200)), FIELDS, "preVerificationGas")


async def test_calldata_floor_of_eip_7623_binds_large_operations(shared_chain: Chain, bundler: Client) -> None:
    account = await shared_chain.account()
    op = await account.operation(data=b"\x01" * 8_000)
    standard = 21_000 + 16 * 8_000 + 60_000
    assert pre_verification_gas(V08, op) > standard
    await refused(bundler, account.sign(op.replace(pre_verification_gas=standard)), FIELDS, "calldata")


async def test_unserved_entry_point_is_refused(own_chain: Chain, tmp_path: Path) -> None:
    async with serving(settings_for(own_chain, tmp_path, entry_points=(V08,))) as client:
        op = await (await own_chain.account(V07)).operation()
        await refused(client, op, FIELDS, "not served", V07)
        assert await client.rpc.call("eth_supportedEntryPoints") == ["0x4337084D9E255Ff0702461CF8895CE9E3b5Ff108"]


async def test_tip_below_the_minimum_is_refused(own_chain: Chain, tmp_path: Path) -> None:
    async with serving(settings_for(own_chain, tmp_path, min_priority_fee_wei=3 * GWEI)) as client:
        op = await (await own_chain.account()).operation()
        await refused(client, op, FIELDS, "maxPriorityFeePerGas 2000000000 is too low: at least 3000000000")


@EACH
async def test_wrong_signature_is_32507(shared_chain: Chain, bundler: Client, entry_point: EntryPoint) -> None:
    account = await shared_chain.account(entry_point)
    op = await account.operation()
    await refused(bundler, op.replace(call_gas_limit=100_001), SIGNATURE, "AA24 signature error", entry_point)


@EACH
async def test_unfunded_account_is_told_aa21(shared_chain: Chain, bundler: Client, entry_point: EntryPoint) -> None:
    op = await (await shared_chain.account(entry_point, funds_wei=0)).operation()
    await refused(bundler, op, ENTRY_POINT, "AA21 didn't pay prefund", entry_point)


async def test_missing_account_without_factory_is_aa20(shared_chain: Chain, bundler: Client) -> None:
    op = (await (await shared_chain.account()).operation()).replace(factory=None, factory_data=b"")
    await refused(bundler, op, ENTRY_POINT, "AA20 account not deployed")


async def test_factory_for_a_deployed_account_is_aa10(shared_chain: Chain, bundler: Client) -> None:
    account = await shared_chain.account()
    op = await account.operation()
    await bundler.included(await bundler.send(op))
    await refused(bundler, account.sign(op.replace(nonce=1 << 64)), ENTRY_POINT, "AA10 sender already constructed")


async def test_failing_factory_is_aa13(shared_chain: Chain, bundler: Client) -> None:
    factory = await shared_chain.put(REVERTS)
    op = (await (await shared_chain.account()).operation()).replace(factory=factory)
    error = await refused(bundler, op, ENTRY_POINT, "AA13 initCode failed or OOG")
    assert error_data(error)["rule"] == "AA13"


async def test_nonce_gap_is_aa25(shared_chain: Chain, bundler: Client) -> None:
    account = await shared_chain.account()
    op = await account.operation()
    await refused(bundler, account.sign(op.replace(nonce=5)), ENTRY_POINT, "AA25 invalid account nonce")


async def test_too_little_verification_gas_is_refused_by_the_entry_point(shared_chain: Chain, bundler: Client) -> None:
    account = await shared_chain.account()
    op = account.sign((await account.operation()).replace(verification_gas_limit=30_000))
    await refused(bundler, op, ENTRY_POINT, "AA13")


async def test_expired_and_not_yet_valid_are_32503(shared_chain: Chain, bundler: Client) -> None:
    now_s = await shared_chain.now_s()
    for window in ({"valid_until_s": now_s - 100}, {"valid_after_s": now_s + 10_000}):
        account = await shared_chain.put(answers(validation_word(**window)), deposit_on=V08)
        op = with_limits(UserOperation(account, 0, b""))
        error = await refused(bundler, op, TIME, "AA22 expired or not due")
        assert str(next(iter(window.values()))) in error.message


async def test_operation_that_expires_within_the_margin_is_32503(shared_chain: Chain, bundler: Client) -> None:
    soon = await shared_chain.now_s() + 20
    account = await shared_chain.put(answers(validation_word(valid_until_s=soon)), deposit_on=V08)
    await refused(bundler, with_limits(UserOperation(account, 0, b"")), TIME, "expires too soon")


async def test_aggregator_is_32506(shared_chain: Chain, bundler: Client) -> None:
    account = await shared_chain.put(answers(validation_word(aggregator=0xABCD)), deposit_on=V08)
    await refused(bundler, with_limits(UserOperation(account, 0, b"")), AGGREGATOR, "aggregator 0x0+[aA][bB][cC][dD]")


def sponsored_by(account: SimpleAccount, op: UserOperation, paymaster: bytes, **changes: Any) -> UserOperation:
    return account.sign(with_limits(op.replace(paymaster=paymaster), **changes))


async def test_paymaster_refusals_have_their_own_codes(shared_chain: Chain, bundler: Client) -> None:
    now_s = await shared_chain.now_s()
    reverting = await shared_chain.put(REVERTS, deposit_on=V08)
    unsigned = await shared_chain.put(paymaster_answers(1), deposit_on=V08)
    expired = await shared_chain.put(paymaster_answers(validation_word(valid_until_s=now_s - 9)), deposit_on=V08)
    late = await shared_chain.put(paymaster_answers(validation_word(valid_until_s=now_s + 9)), deposit_on=V08)
    poor = await shared_chain.put(PAYMASTER_OK)
    account = await shared_chain.account()
    op = await account.draft()
    for paymaster, code, words in (
        (reverting, PAYMASTER, "AA33 reverted"),
        (unsigned, SIGNATURE, "AA34 signature error"),
        (expired, TIME, "AA32 paymaster expired"),
        (late, TIME, "expires too soon"),
        (poor, DEPOSIT, "AA31 paymaster deposit too low"),
        (shared_chain.fresh_address(), DEPOSIT, "AA31"),
    ):
        await refused(bundler, sponsored_by(account, op, paymaster), code, words)


async def test_deposit_promised_to_other_operations_is_32508(own_chain: Chain, tmp_path: Path) -> None:
    await own_chain.automine(False)
    async with serving(settings_for(own_chain, tmp_path)) as client:
        accounts = [await own_chain.account() for _ in range(2)]
        paymaster = own_chain.fresh_address()
        ops = [sponsored_by(account, await account.draft(), paymaster) for account in accounts]
        await own_chain.automine(True)
        await own_chain.rpc.call("anvil_setCode", to_hex(paymaster), to_hex(PAYMASTER_OK))
        await own_chain.deposit(V08, paymaster, required_prefund(ops[0]) * 3 // 2)
        await own_chain.automine(False)
        await client.send(ops[0])
        error = await refused(client, ops[1], DEPOSIT, "the pending ones could cost")
        assert error_data(error)["rule"] == "EREP-010"


async def test_replacement_needs_ten_percent_on_both_fees(own_chain: Chain, tmp_path: Path) -> None:
    await own_chain.automine(False)
    async with serving(settings_for(own_chain, tmp_path)) as client:
        await client.becomes(await client.send(await (await own_chain.account()).operation()), "bundled")
        account = await own_chain.account()
        op = await account.operation()
        old = await client.send(op)
        for fee, tip in ((109, 200), (200, 109)):
            less = op.replace(
                max_fee_per_gas=op.max_fee_per_gas * fee // 100,
                max_priority_fee_per_gas=op.max_priority_fee_per_gas * tip // 100,
            )
            await refused(client, account.sign(less), FIELDS, "10 % more")
        enough = op.replace(
            max_fee_per_gas=op.max_fee_per_gas * 110 // 100,
            max_priority_fee_per_gas=op.max_priority_fee_per_gas * 110 // 100,
        )
        new = await client.send(account.sign(enough))
        assert await client.status(old) == {
            "userOpHash": to_hex(old), "status": "dropped", "reason": f"replaced by {to_hex(new)}",
            "transactionHash": None, "blockNumber": None,
        }  # fmt: skip
        await own_chain.automine(True)
        await own_chain.mine()
        await client.included(new)
        assert await client.receipt(old) is None


async def test_operation_in_a_submitted_bundle_cannot_be_replaced(own_chain: Chain, tmp_path: Path) -> None:
    await own_chain.automine(False)
    async with serving(settings_for(own_chain, tmp_path)) as client:
        account = await own_chain.account()
        op = await account.operation()
        await client.becomes(await client.send(op), "bundled")
        dearer = op.replace(max_fee_per_gas=40 * GWEI, max_priority_fee_per_gas=4 * GWEI)
        await refused(client, account.sign(dearer), FIELDS, "submitted bundle")


async def test_urep_010_unstaked_sender_has_at_most_four_operations(own_chain: Chain, tmp_path: Path) -> None:
    await own_chain.automine(False)
    async with serving(settings_for(own_chain, tmp_path)) as client:
        account = await own_chain.account()
        op = await account.operation()
        ops = [op] + [account.sign(op.replace(nonce=n, factory=None, factory_data=b"")) for n in range(1, 5)]
        for one in ops[:4]:
            await client.send(one)
        error = await refused(client, ops[4], STAKE, "unstaked")
        assert error_data(error)["rule"] == "UREP-010"


async def test_sto_040_sender_cannot_be_another_operations_paymaster(own_chain: Chain, tmp_path: Path) -> None:
    both = await own_chain.put(PAYMASTER_OK)
    await own_chain.automine(False)
    async with serving(settings_for(own_chain, tmp_path)) as client:
        account = await own_chain.account()
        await client.send(await account.operation())
        other = await own_chain.account()
        as_entity = sponsored_by(other, await other.draft(), account.address)
        error = await refused(client, as_entity, RULE, "used as a sender entity in another UserOperation")
        assert error_data(error)["rule"] == "STO-040"
        await own_chain.automine(True)
        await own_chain.mine()
        await client.settled()
        await own_chain.deposit(V08, both)
        await own_chain.automine(False)
        third = await own_chain.account()
        await client.send(sponsored_by(third, await third.draft(), both))
        as_sender = with_limits(UserOperation(both, 0, b""))
        await refused(client, as_sender, RULE, "used as a different entity in another UserOperation")


async def test_full_pool_is_32504(own_chain: Chain, tmp_path: Path) -> None:
    await own_chain.automine(False)
    async with serving(settings_for(own_chain, tmp_path, max_pool_ops=1)) as client:
        await client.send(await (await own_chain.account()).operation())
        await refused(client, await (await own_chain.account()).operation(), THROTTLED, "the mempool is full")


async def test_concurrent_operations_cannot_overdraw_one_deposit(own_chain: Chain, tmp_path: Path) -> None:
    async with serving(settings_for(own_chain, tmp_path)) as client:
        paymaster = await own_chain.put(PAYMASTER_OK)
        accounts = [await own_chain.account() for _ in range(6)]
        ops = [sponsored_by(account, await account.draft(), paymaster) for account in accounts]
        await own_chain.deposit(V08, paymaster, required_prefund(ops[0]) * 5 // 2)
        await own_chain.automine(False)
        answers_given = await asyncio.gather(*(client.send(op) for op in ops), return_exceptions=True)
        assert sum(isinstance(answer, bytes) for answer in answers_given) == 2
        codes = [answer.rpc_code for answer in answers_given if isinstance(answer, RpcError)]
        assert codes == [DEPOSIT] * 4


async def test_no_hash_is_returned_before_the_disk_has_it(own_chain: Chain, tmp_path: Path) -> None:
    settings = settings_for(own_chain, tmp_path, request_timeout_s=0.4)
    async with serving(settings) as client:
        op = await (await own_chain.account()).operation()
        with contextlib.closing(sqlite3.connect(settings.database, isolation_level=None)) as other:
            other.execute("BEGIN IMMEDIATE")  # the disk is busy
            for _ in range(2):  # also when the operation, given up, is sent again
                with pytest.raises(RpcError, match="no answer within"):
                    await client.send(op)
            other.execute("ROLLBACK")
        op_hash = await client.send(op)
        assert (await client.included(op_hash))["success"] is True
        assert len(await own_chain.receipts_of(V08, op_hash)) == 1


async def test_a_full_pool_takes_who_pays_more_and_the_lowest_leaves_with_its_reason(
    own_chain: Chain, tmp_path: Path
) -> None:
    await own_chain.automine(False)
    async with serving(settings_for(own_chain, tmp_path, max_pool_ops=2, debug=True)) as client:
        await client.rpc.call("debug_bundler_setBundlingMode", "manual")

        async def offering(tip_gwei: int) -> UserOperation:
            account = await own_chain.account()
            draft = with_limits(await account.draft(), max_fee_per_gas=(20 + tip_gwei) * GWEI)
            return account.sign(draft.replace(max_priority_fee_per_gas=tip_gwei * GWEI))

        low = await client.send(await offering(2))
        high = await client.send(await offering(10))
        await refused(client, await offering(2), THROTTLED, "offer at least maxPriorityFeePerGas 2200000000")
        between = await client.send(await offering(5))
        status = await client.becomes(low, "dropped")
        assert status["reason"] == "LIM-POOL the pool is full and others pay more"
        for op_hash in (high, between):
            assert (await client.status(op_hash) or {})["status"] == "received"


async def test_a_pool_is_bounded_in_bytes_too(own_chain: Chain, tmp_path: Path) -> None:
    await own_chain.automine(False)
    async with serving(settings_for(own_chain, tmp_path, max_pool_bytes=2_500, debug=True)) as client:
        await client.rpc.call("debug_bundler_setBundlingMode", "manual")
        first, second = [await client.send(await (await own_chain.account()).operation()) for _ in range(2)]
        # Of equal bids the younger leaves.
        assert "LIM-POOL" in (await client.becomes(second, "dropped"))["reason"]
        assert (await client.status(first) or {})["status"] == "received"
