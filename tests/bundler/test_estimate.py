"""Estimated limits suffice, are tight, and failures are explained."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from bundler.gas import VALIDITY_GAS, bundle_gas_limit, pre_verification_gas
from contracts.abi import encode
from contracts.entrypoint import USER_OPERATION_EVENT, V07, V08, V09, EntryPoint
from contracts.errors import RpcError
from contracts.types import parse_bytes, parse_hash, to_hex
from contracts.userop import UserOperation
from tests.bundler.assembly import asm
from tests.bundler.rig import (
    PAYMASTER_OK,
    REVERTS,
    TARGET,
    Chain,
    Client,
    SimpleAccount,
    answers,
    paymaster_answers,
    serving,
    settings_for,
    validation_word,
    with_limits,
)

EACH = pytest.mark.parametrize("entry_point", [V08, V07, V09], ids=["v0.8", "v0.7", "v0.9"])
DEEP = asm("""
    0 CALLDATALOAD DUP1 ISZERO @end JUMPI
    1 SWAP1 SUB 0 MSTORE                    ; call itself with one less
    0 0 32 0 0 ADDRESS GAS CALL
    ISZERO @failed JUMPI
    end: NUMBER NUMBER SSTORE STOP
    failed: 0 0 REVERT
""")
"""Calls itself as often as the first word says; reverts if a nested call fails: each level keeps back 1/64 of its gas."""
WRITES = asm("""
    0 CALLDATALOAD
    next: DUP1 ISZERO @end JUMPI
    DUP1 DUP1 SSTORE
    1 SWAP1 SUB @next JUMP
    end: STOP
""")
"""Writes as many fresh slots as the first word of its call data says."""
CONTEXT_PAYMASTER = asm("""
    0 CALLDATALOAD 224 SHR 0x7c627b21 EQ @post JUMPI
    64 0 MSTORE 0 32 MSTORE 1 64 MSTORE 7 96 MSTORE 128 0 RETURN   ; a context of one byte, valid
    post: NUMBER 0 SSTORE STOP
""")
"""postOp writes a slot."""


async def succeeds(chain: Chain, entry_point: EntryPoint, op: UserOperation) -> bool:
    """Whether the operation passes validation and its call succeeds, by eth_simulateV1 of the real bundle."""
    call = {
        "from": to_hex(chain.accounts.trader.address),
        "to": to_hex(entry_point.address),
        "gas": hex(bundle_gas_limit(entry_point, [op]) + 100_000),
        "data": to_hex(entry_point.encode_handle_ops([op], chain.accounts.trader.address)),
    }
    blocks = await chain.rpc.call("eth_simulateV1", {"blockStateCalls": [{"calls": [call]}]}, "latest")
    (result,) = blocks[0]["calls"]
    for log in result["logs"]:
        if log["topics"][0] == to_hex(USER_OPERATION_EVENT.topic):
            topics = [parse_hash(topic) for topic in log["topics"]]
            return bool(USER_OPERATION_EVENT.decode(topics, parse_bytes(log["data"]))[4])
    return False


async def true_need(chain: Chain, account: SimpleAccount, op: UserOperation, name: str) -> int:
    """The least limit `name` under which the operation succeeds, to 100 gas, by trying the real entry point."""
    low = 0
    high: int = getattr(op, name)
    while high - low > 100:
        middle = (low + high) // 2
        if await succeeds(chain, account.entry_point, account.sign(op.replace(**{name: middle}))):
            high = middle
        else:
            low = middle
    return high


async def draft_of(kind: str, chain: Chain, entry_point: EntryPoint) -> tuple[SimpleAccount, UserOperation]:
    account = await chain.account(entry_point, deployed="deployed" in kind)
    target = {"deep": DEEP, "writes": WRITES}.get(kind.split()[-1])
    if target is None:
        op = await account.draft(data=b"\x55" * 2_000 if "bulky" in kind else b"")
    else:
        op = await account.draft(to=await chain.put(target), value_wei=0, data=(12).to_bytes(32))
    if "sponsored" in kind:
        paymaster = await chain.put(CONTEXT_PAYMASTER if "context" in kind else PAYMASTER_OK, deposit_on=entry_point)
        if "context" in kind:
            await chain.stake(entry_point, paymaster)  # [EREP-050]: only then it may return a context
        op = op.replace(paymaster=paymaster, paymaster_data=b"\xaa" * 65)
    if "depositor" in kind:
        await chain.deposit(entry_point, account.address)
    return account, op


KINDS = (
    "new transfer", "deployed transfer", "deployed deep", "deployed writes", "deployed bulky transfer",
    "deployed depositor transfer", "deployed depositor bulky transfer", "new sponsored transfer",
    "deployed sponsored transfer", "deployed sponsored context writes",
)  # fmt: skip


@EACH
@pytest.mark.parametrize("kind", KINDS)
async def test_estimated_limits_suffice_and_are_at_most_15_percent_above_need(
    shared_chain: Chain, bundler: Client, entry_point: EntryPoint, kind: str
) -> None:
    account, draft = await draft_of(kind, shared_chain, entry_point)
    op = account.sign(await bundler.estimated(draft, entry_point))
    assert await succeeds(shared_chain, entry_point, op)
    names = ["verification_gas_limit", "call_gas_limit"]
    if op.paymaster is not None:
        names.append("paymaster_verification_gas_limit")
    if "context" in kind:
        names.append("paymaster_post_op_gas_limit")
    for name in names:
        need = await true_need(shared_chain, account, op, name)
        estimate = getattr(op, name)
        print(
            f"{kind:34} {entry_point.version} {name:34} {estimate:8} need {need:8} +{100 * (estimate - need) / need:.1f}%"
        )
        assert estimate <= need * 1.15 or estimate - need <= 9_100, (name, estimate, need)
    receipt = await bundler.included(await bundler.send(op, entry_point))
    assert receipt["success"] is True
    # What the operation paid covers its transaction; preVerificationGas is at most 15 % above what that takes, unless the
    # calldata floor of EIP-7623 is what it has to cover.
    surplus = int(receipt["actualGasUsed"], 16) - int(receipt["receipt"]["gasUsed"], 16)
    print(f"{kind:34} {entry_point.version} surplus {surplus} of {op.pre_verification_gas}")
    assert surplus >= 0
    assert "bulky" in kind or surplus <= 0.15 * op.pre_verification_gas


@EACH
@pytest.mark.parametrize("size", [0, 1_000, 4_000, 20_000])
async def test_the_cheapest_operation_with_the_least_allowed_pre_verification_gas_pays_for_its_transaction(
    shared_chain: Chain, bundler: Client, entry_point: EntryPoint, size: int
) -> None:
    yes = await shared_chain.put(answers(0), deposit_on=entry_point)
    for nonce in (0, 1):  # the second one's nonce is the cheaper write
        op = with_limits(UserOperation(yes, nonce, b"", signature=b"\xee" * size), call_gas_limit=0)
        least = pre_verification_gas(entry_point, op.replace(pre_verification_gas=0xFFFFFF))
        receipt = await bundler.included(await bundler.send(op.replace(pre_verification_gas=least), entry_point))
        surplus = int(receipt["actualGasUsed"], 16) - int(receipt["receipt"]["gasUsed"], 16)
        print(f"{size} {nonce} {entry_point.version} surplus {surplus} of {op.pre_verification_gas}")
        assert surplus >= 0


@EACH
async def test_estimate_pays_for_the_look_at_validity_windows(
    shared_chain: Chain, bundler: Client, entry_point: EntryPoint
) -> None:
    """The entry point compares them with the clock outside its own measurement."""
    until = validation_word(valid_after_s=1, valid_until_s=await shared_chain.now_s() + 10_000)
    account = await shared_chain.put(answers(until), deposit_on=entry_point)
    paymaster = await shared_chain.put(paymaster_answers(until), deposit_on=entry_point)
    for nonce, sponsor in enumerate((None, None, paymaster, paymaster)):
        draft = UserOperation(
            account, nonce, b"", signature=b"\xee" * 65, paymaster=sponsor, max_fee_per_gas=2 * 10**10
        )
        receipt = await bundler.included(await bundler.send(await bundler.estimated(draft, entry_point), entry_point))
        surplus = int(receipt["actualGasUsed"], 16) - int(receipt["receipt"]["gasUsed"], 16)
        print(f"{entry_point.version} {nonce} surplus {surplus}")
        assert 0 <= surplus < 4_000


@EACH
async def test_what_the_floor_lets_in_with_validity_windows_pays_for_its_transaction(
    shared_chain: Chain, bundler: Client, entry_point: EntryPoint
) -> None:
    """One that is priced at the floor of an operation without windows would be accepted and wait for ever."""
    window = validation_word(valid_after_s=1, valid_until_s=await shared_chain.now_s() + 10_000)
    account = await shared_chain.put(answers(window), deposit_on=entry_point)
    paymaster = await shared_chain.put(paymaster_answers(window), deposit_on=entry_point)
    nonce = 0
    for sponsor, windows in ((None, 1), (paymaster, 2)):
        for _ in range(2):  # the second one's nonce is the cheaper write
            op = with_limits(
                UserOperation(account, nonce, b"", signature=b"\xee" * 65, paymaster=sponsor), call_gas_limit=0
            )
            bare = pre_verification_gas(entry_point, op.replace(pre_verification_gas=0xFFFFFF))
            with pytest.raises(RpcError, match=f"look at {windows} validity windows cost"):
                await bundler.send(op.replace(pre_verification_gas=bare), entry_point)
            priced = op.replace(pre_verification_gas=bare + windows * VALIDITY_GAS)
            receipt = await bundler.included(await bundler.send(priced, entry_point))
            assert int(receipt["actualGasUsed"], 16) >= int(receipt["receipt"]["gasUsed"], 16)
            nonce += 1


async def test_estimate_forgives_missing_gas_fees_and_signature_fields(shared_chain: Chain, bundler: Client) -> None:
    op = await (await shared_chain.account()).draft()
    fields = {
        name: op.to_rpc()[name] for name in ("sender", "nonce", "callData", "factory", "factoryData", "signature")
    }
    found = await bundler.rpc.call("eth_estimateUserOperationGas", fields, to_hex(V08.address))
    assert set(found) == {"preVerificationGas", "verificationGasLimit", "callGasLimit"}


async def test_estimate_gives_paymaster_limits_when_there_is_a_paymaster(shared_chain: Chain, bundler: Client) -> None:
    stub = await shared_chain.put(paymaster_answers(1))  # no deposit, and its stub signature does not pass
    op = (await (await shared_chain.account(funds_wei=0)).draft(value_wei=0)).replace(paymaster=stub)
    found = await bundler.estimate(op)
    assert found["paymasterVerificationGasLimit"] > 0
    assert found["paymasterPostOpGasLimit"] == 0


def reverting(data: bytes) -> bytes:
    """Runtime code that reverts with `data`."""
    return asm(f"{len(data)} 12 0 CODECOPY {len(data)} 0 REVERT").ljust(12, b"\0") + data


@pytest.mark.parametrize(
    ("code", "words"),
    [
        (REVERTS, "reverted without a reason"),
        (reverting(bytes.fromhex("4e487b71") + (0x11).to_bytes(32)), "arithmetic overflow"),
        (reverting(bytes.fromhex("08c379a0") + encode(["string"], ["the market is closed"])), "the market is closed"),
        (reverting(bytes.fromhex("deadbeef")), "custom error 0xdeadbeef"),
    ],
    ids=["empty", "panic", "text", "custom"],
)
async def test_reverting_call_is_32521_with_its_reason(
    shared_chain: Chain, bundler: Client, code: bytes, words: str
) -> None:
    op = await (await shared_chain.account()).draft(to=await shared_chain.put(code), value_wei=0)
    with pytest.raises(RpcError, match=words) as caught:
        await bundler.estimate(op)
    assert caught.value.rpc_code == -32521
    assert isinstance(caught.value.data, str)


async def test_call_that_needs_money_the_account_lacks_is_32521(shared_chain: Chain, bundler: Client) -> None:
    op = await (await shared_chain.account(funds_wei=5)).draft(value_wei=6)
    with pytest.raises(RpcError) as caught:
        await bundler.estimate(op)
    assert caught.value.rpc_code == -32521


Change = Callable[[UserOperation, bytes], UserOperation]


@pytest.mark.parametrize(
    ("change", "code", "words"),
    [
        (lambda op, bad: op.replace(factory=bad), -32500, "AA13"),
        (lambda op, _: op.replace(factory=None, factory_data=b""), -32500, "AA20"),
        (lambda op, bad: op.replace(paymaster=bad), -32501, "AA33"),
        (lambda op, _: op.replace(paymaster=b"\x01" * 20), -32501, "AA33"),
        (lambda op, _: op.replace(signature=b"\x01\x02"), -32500, "AA23"),
    ],
    ids=["factory", "missing", "paymaster", "paymaster-without-code", "signature"],
)
async def test_failing_validation_is_explained(
    shared_chain: Chain, bundler: Client, change: Change, code: int, words: str
) -> None:
    op = await (await shared_chain.account()).draft()
    with pytest.raises(RpcError, match=words) as caught:
        await bundler.estimate(change(op, await shared_chain.put(REVERTS)))
    assert caught.value.rpc_code == code


async def test_state_overrides_change_what_is_estimated(shared_chain: Chain, bundler: Client) -> None:
    op = await (await shared_chain.account(deployed=True)).draft(to=TARGET, value_wei=0)
    plain = await bundler.estimate(op)
    loop = asm("2000 next: 1 SWAP1 SUB DUP1 @next JUMPI")
    heavy = await bundler.estimate(op, overrides={to_hex(TARGET): {"code": to_hex(loop)}})
    assert heavy["callGasLimit"] > plain["callGasLimit"] + 5_000


@pytest.mark.parametrize(
    "overrides", [[], {"0x12": {}}, {to_hex(TARGET): 1}, {to_hex(TARGET): {"coode": "0x"}}, {to_hex(V08.address): {}}]
)
async def test_malformed_or_forbidden_overrides_are_refused(
    shared_chain: Chain, bundler: Client, overrides: Any
) -> None:
    op = await (await shared_chain.account()).draft()
    with pytest.raises(RpcError) as caught:
        await bundler.estimate(op, overrides=overrides)
    assert caught.value.rpc_code == -32602


async def test_gas_bomb_is_answered_in_time(own_chain: Chain, tmp_path: Path) -> None:
    async with serving(settings_for(own_chain, tmp_path)) as client:
        bomb = await own_chain.put(asm("forever: @forever JUMP"))
        op = await (await own_chain.account()).draft(to=bomb, value_wei=0)
        with pytest.raises(RpcError):
            await asyncio.wait_for(client.estimate(op), 8)
