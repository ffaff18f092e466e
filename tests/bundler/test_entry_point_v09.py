"""What entry point v0.9 does otherwise than v0.8, through a bundler in safe mode that serves all three."""

from __future__ import annotations

from pathlib import Path

import pytest

from bundler.reverts import reason
from bundler.store import open_store
from bundler.validity import ValidationData
from contracts.abi import Function
from contracts.eip7702 import delegation
from contracts.entrypoint import IGNORED_INIT_CODE, V07, V08, V09
from contracts.errors import RpcError, SetupError
from contracts.types import checksum, keccak, parse_bytes, parse_hash, to_hex
from contracts.userop import UserOperation
from tests.bundler.assembly import asm
from tests.bundler.rig import (
    BLOCKS,
    PAYMASTER_OK,
    Chain,
    Client,
    answers,
    handle_ops,
    paymaster_answers,
    serving,
    settings_for,
    validation_word,
    with_limits,
)
from tests.bundler.test_refusals import ENTRY_POINT, FIELDS, TIME, refused

MAGIC = bytes.fromhex("22e325a297439656")
FOREVER = 2**48 - 1


def blocks(after: int, until: int) -> int:
    """What an account answers that is valid after one block and until another; `until` 0 is forever."""
    return validation_word(valid_after_s=BLOCKS | after, valid_until_s=BLOCKS | until if until else 0)


async def block_number(chain: Chain) -> int:
    return int((await chain.rpc.block())["number"], 16)


# -- validity in blocks --------------------------------------------------------------------------------------------------------


async def test_operation_within_its_range_of_blocks_is_included(shared_chain: Chain, bundler: Client) -> None:
    now = await block_number(shared_chain)
    for word in (blocks(now - 1, now + 50), blocks(1, 0)):
        account = await shared_chain.put(answers(word), deposit_on=V09)
        receipt = await bundler.included(await bundler.send(with_limits(UserOperation(account, 0, b"")), V09))
        assert receipt["entryPoint"] == checksum(V09.address)


async def test_operation_outside_its_range_of_blocks_is_32503_with_the_blocks(
    shared_chain: Chain, bundler: Client
) -> None:
    now = await block_number(shared_chain)
    owner = await shared_chain.account(V09)
    for after, until in ((1, now - 1), (now + 1_000, now + 2_000)):
        account = await shared_chain.put(answers(blocks(after, until)), deposit_on=V09)
        words = f"AA27 outside valid block range .valid after block {after}, until {until}"
        error = await refused(bundler, with_limits(UserOperation(account, 0, b"")), TIME, words, V09)
        assert isinstance(error.data, dict)
        assert error.data["rule"] == "AA27"
        paymaster = await shared_chain.put(paymaster_answers(blocks(after, until)), deposit_on=V09)
        op = owner.sign(with_limits((await owner.draft()).replace(paymaster=paymaster)))
        await refused(bundler, op, TIME, f"AA37 paymaster inval block range .valid after block {after}", V09)


async def test_operation_whose_last_block_is_the_next_one_is_too_late(own_chain: Chain, tmp_path: Path) -> None:
    async with serving(settings_for(own_chain, tmp_path, entry_points=(V09,))) as client:
        last = await block_number(own_chain) + 3  # the two deposits take a block each
        late = await own_chain.put(answers(blocks(1, last)), deposit_on=V09)
        just = await own_chain.put(answers(blocks(1, last + 1)), deposit_on=V09)
        assert await block_number(own_chain) == last - 1
        await refused(
            client, with_limits(UserOperation(late, 0, b"")), TIME, "expires too soon: valid until block", V09
        )
        await client.included(await client.send(with_limits(UserOperation(just, 0, b"")), V09))


async def test_the_same_answer_is_a_distant_time_on_v0_8(shared_chain: Chain, bundler: Client) -> None:
    account = await shared_chain.put(answers(blocks(1, 0)), deposit_on=V08)
    await refused(bundler, with_limits(UserOperation(account, 0, b"")), TIME, "AA22 expired or not due")


async def test_one_flag_alone_makes_no_range_of_blocks(shared_chain: Chain, bundler: Client) -> None:
    now_s = await shared_chain.now_s()
    timed = await shared_chain.put(
        answers(validation_word(valid_after_s=now_s - 100, valid_until_s=BLOCKS | 1)), deposit_on=V09
    )
    await bundler.included(await bundler.send(with_limits(UserOperation(timed, 0, b"")), V09))
    never = await shared_chain.put(answers(validation_word(valid_after_s=BLOCKS | 1, valid_until_s=9)), deposit_on=V09)
    await refused(bundler, with_limits(UserOperation(never, 0, b"")), TIME, "AA22", V09)


async def test_the_accounts_time_and_the_paymasters_blocks_must_both_hold(shared_chain: Chain, bundler: Client) -> None:
    now, now_s = await block_number(shared_chain), await shared_chain.now_s()
    fine_time, past_time = (validation_word(valid_until_s=now_s + seconds) for seconds in (5_000, -50))
    fine_blocks, past_blocks = blocks(1, now + 500), blocks(1, now - 1)
    for account_says, paymaster_says, refusal in (
        (fine_time, fine_blocks, None),
        (fine_blocks, fine_time, None),
        (fine_time, past_blocks, "AA37"),
        (past_time, fine_blocks, "AA22"),
        (past_blocks, fine_time, "AA27"),
        (fine_blocks, past_time, "AA32"),
    ):
        account = await shared_chain.put(answers(account_says), deposit_on=V09)
        paymaster = await shared_chain.put(paymaster_answers(paymaster_says), deposit_on=V09)
        op = with_limits(UserOperation(account, 0, b"", paymaster=paymaster))
        if refusal is None:
            await bundler.included(await bundler.send(op, V09))
        else:
            await refused(bundler, op, TIME, refusal, V09)


def test_windows_of_time_and_of_blocks_are_intersected_each_by_itself() -> None:
    account = ValidationData.parse(validation_word(valid_after_s=10, valid_until_s=90), counts_blocks=True)
    paymaster = ValidationData.parse(blocks(5, 70), counts_blocks=True)
    both = account.both(paymaster)
    assert both == paymaster.both(account) == ValidationData(0, 10, 90, 5, 70)
    assert both.both(ValidationData.parse(blocks(20, 0), counts_blocks=True)) == ValidationData(0, 10, 90, 20, 70)
    assert ValidationData.parse(blocks(20, 0), counts_blocks=True).valid_until_block == FOREVER
    assert ValidationData.parse(blocks(5, 70)) == ValidationData(0, BLOCKS | 5, BLOCKS | 70)


async def test_operation_is_dropped_with_the_last_block_that_could_hold_it(own_chain: Chain, tmp_path: Path) -> None:
    async with serving(settings_for(own_chain, tmp_path, entry_points=(V08, V09), debug=True)) as client:
        await client.rpc.call("debug_bundler_setBundlingMode", "manual")
        until = await block_number(own_chain) + 6
        account = await own_chain.put(answers(blocks(1, until)), deposit_on=V09)
        op_hash = await client.send(with_limits(UserOperation(account, 0, b"")), V09)
        while await block_number(own_chain) < until - 1:
            await own_chain.mine()
        assert ((await client.status(op_hash)) or {})["status"] == "received"
        await own_chain.mine()
        status = await client.becomes(op_hash, "dropped")
        assert status["reason"] == f"AA27 expired: valid until block {until}, the latest is {until}"


async def test_a_range_of_blocks_is_still_known_after_a_restart(own_chain: Chain, tmp_path: Path) -> None:
    settings = settings_for(own_chain, tmp_path, entry_points=(V09,), debug=True)
    until = await block_number(own_chain) + 40
    account = await own_chain.put(answers(blocks(1, until)), deposit_on=V09)
    async with serving(settings) as client:
        await client.rpc.call("debug_bundler_setBundlingMode", "manual")
        op_hash = await client.send(with_limits(UserOperation(account, 0, b"")), V09)
    store = await open_store(settings)
    record = await store.operation(op_hash)
    await store.close()
    assert record is not None
    assert (record.entry.valid_after_block, record.entry.valid_until_block) == (1, until)


# -- the paymaster's signature -------------------------------------------------------------------------------------------------


async def test_the_paymasters_signature_may_come_after_the_accounts(shared_chain: Chain, bundler: Client) -> None:
    """The account signs with a stub in its place; the hash is the same with the real one, of another length."""
    account = await shared_chain.account(V09)
    paymaster = await shared_chain.put(PAYMASTER_OK, deposit_on=V09)
    draft = (await account.draft()).replace(paymaster=paymaster, paymaster_data=b"\xaa" * 12)
    op = account.sign(with_limits(draft.replace(paymaster_signature=b"\xff" * 65)))
    op = op.replace(paymaster_signature=b"\xee" * 40)
    op_hash = await bundler.send(op, V09)
    assert op_hash == V09.user_op_hash(op.replace(paymaster_signature=b"\x01"), 1337)
    receipt = await bundler.included(op_hash)
    assert (receipt["success"], receipt["paymaster"]) == (True, checksum(paymaster))
    found = await bundler.rpc.call("eth_getUserOperationByHash", to_hex(op_hash))
    assert found["userOperation"] == op.to_rpc()


async def test_a_strangers_operation_is_shown_with_the_paymasters_signature_by_itself(
    shared_chain: Chain, bundler: Client
) -> None:
    account = await shared_chain.account(V09)
    paymaster = await shared_chain.put(PAYMASTER_OK, deposit_on=V09)
    op = account.sign(
        with_limits((await account.draft()).replace(paymaster=paymaster, paymaster_signature=b"\xee" * 65))
    )
    await handle_ops(shared_chain, V09, [op])
    found = await bundler.rpc.call("eth_getUserOperationByHash", to_hex(V09.user_op_hash(op, 1337)))
    assert found["userOperation"] == op.to_rpc()
    assert (found["userOperation"]["paymasterSignature"], found["userOperation"]["paymasterData"]) == (
        to_hex(b"\xee" * 65),
        "0x",
    )


async def test_the_signature_at_the_end_of_the_data_is_the_same_operation(shared_chain: Chain, bundler: Client) -> None:
    account = await shared_chain.account(V09)
    paymaster = await shared_chain.put(PAYMASTER_OK, deposit_on=V09)
    apart = account.sign(
        with_limits((await account.draft()).replace(paymaster=paymaster, paymaster_signature=b"\xee" * 65))
    )
    together = apart.replace(paymaster_signature=b"", paymaster_data=b"\xee" * 65 + (65).to_bytes(2) + MAGIC)
    assert V09.pack(apart) == V09.pack(together)
    op_hash = await bundler.send(together, V09)
    assert op_hash == await bundler.send(apart, V09)
    assert (await bundler.included(op_hash))["success"] is True


async def test_a_malformed_paymasters_signature_is_refused_with_what_is_wrong(
    shared_chain: Chain, bundler: Client
) -> None:
    account = await shared_chain.account(V09)
    paymaster = await shared_chain.put(PAYMASTER_OK, deposit_on=V09)
    draft = await account.draft()
    for data, words in (
        (b"\x00\x01" + MAGIC, "signature of 1 bytes .* only 0 bytes"),
        (b"\xee" * 65 + (66).to_bytes(2) + MAGIC, "signature of 66 bytes .* only 65 bytes"),
        (b"\xee" * 65 + b"\xff\xff" + MAGIC, "signature of 65535 bytes"),
    ):
        op = with_limits(draft.replace(paymaster=paymaster, paymaster_data=data))
        await refused(bundler, op, FIELDS, words, V09)
        with pytest.raises(RpcError, match=words) as caught:
            await bundler.estimate(op, V09)
        assert caught.value.rpc_code == FIELDS


async def test_a_magic_with_no_signature_before_it_is_ordinary_data(shared_chain: Chain, bundler: Client) -> None:
    account = await shared_chain.account(V09)
    paymaster = await shared_chain.put(PAYMASTER_OK, deposit_on=V09)
    for nonce_key, data in enumerate((b"\x00\x00" + MAGIC, MAGIC, b"\xab" * 30 + b"\x00\x00" + MAGIC)):
        draft = (await account.draft(key=nonce_key)).replace(paymaster=paymaster, paymaster_data=data)
        receipt = await bundler.included(await bundler.send(account.sign(with_limits(draft)), V09))
        assert receipt["success"] is True


async def test_on_v0_8_the_same_ending_is_part_of_the_hash(shared_chain: Chain, bundler: Client) -> None:
    account = await shared_chain.account(V08)
    paymaster = await shared_chain.put(PAYMASTER_OK, deposit_on=V08)
    ending = (65).to_bytes(2) + MAGIC
    op = account.sign(
        with_limits((await account.draft()).replace(paymaster=paymaster, paymaster_data=b"\xff" * 65 + ending))
    )
    changed = op.replace(paymaster_data=b"\xee" * 65 + ending)
    with pytest.raises(RpcError, match="AA24 signature error"):
        await bundler.send(changed)
    assert (await bundler.included(await bundler.send(op)))["success"] is True
    for older in (V08, V07):
        apart = op.replace(paymaster_data=b"", paymaster_signature=b"\xff" * 65)
        await refused(
            bundler, apart, FIELDS, "knows no paymasterSignature: put the signature into paymasterData", older
        )


async def test_an_estimate_with_a_stub_signature_suffices_for_the_real_one(
    shared_chain: Chain, bundler: Client
) -> None:
    account = await shared_chain.account(V09, deployed=True)
    paymaster = await shared_chain.put(PAYMASTER_OK, deposit_on=V09)
    draft = (await account.draft()).replace(paymaster=paymaster, paymaster_signature=bytes(65))
    op = account.sign(await bundler.estimated(draft, V09)).replace(paymaster_signature=b"\xee" * 65)
    receipt = await bundler.included(await bundler.send(op, V09))
    assert receipt["success"] is True
    assert int(receipt["actualGasUsed"], 16) >= int(receipt["receipt"]["gasUsed"], 16)


# -- init code of an account that exists ---------------------------------------------------------------------------------------


async def test_init_code_of_an_existing_account_is_passed_over_with_an_event(
    shared_chain: Chain, bundler: Client
) -> None:
    account = await shared_chain.account(V09)
    first = await account.draft()
    await bundler.included(await bundler.send(await account.operation(), V09))
    again = first.replace(nonce=1)
    op = account.sign(await bundler.estimated(again, V09))
    assert op.verification_gas_limit < 120_000  # a birth takes more
    receipt = await bundler.included(await bundler.send(op, V09))
    assert receipt["success"] is True
    (log,) = [log for log in receipt["receipt"]["logs"] if log["topics"][0] == to_hex(IGNORED_INIT_CODE.topic)]
    values = IGNORED_INIT_CODE.decode([parse_hash(topic) for topic in log["topics"]], parse_bytes(log["data"]))
    assert values == (V09.user_op_hash(op, 1337), account.address, account.factory)


async def test_every_first_operation_of_an_account_may_bring_its_init_code(own_chain: Chain, tmp_path: Path) -> None:
    """On parallel nonces, in one bundle: whichever runs first gives birth."""
    async with serving(settings_for(own_chain, tmp_path, entry_points=(V09,), debug=True)) as client:
        await client.rpc.call("debug_bundler_setBundlingMode", "manual")
        account = await own_chain.account(V09)
        hashes = [await client.send(await account.operation(key=key), V09) for key in range(3)]
        await client.rpc.call("debug_bundler_setBundlingMode", "auto")
        receipts = [await client.included(op_hash) for op_hash in hashes]
    assert all(receipt["success"] for receipt in receipts)
    assert len({receipt["receipt"]["transactionHash"] for receipt in receipts}) == 1


# -- errors, hash during execution, several versions ---------------------------------------------------------------------------


async def test_custom_errors_are_said_in_the_words_of_earlier_versions(shared_chain: Chain, bundler: Client) -> None:
    account = await shared_chain.account(V09)
    op = account.sign(with_limits((await account.draft()).replace(paymaster=bytes(20))))
    await refused(bundler, op, ENTRY_POINT, "AA98 the paymaster is the zero address", V09)


@pytest.mark.parametrize(
    ("error", "words"),
    [
        ("InvalidPaymasterData(uint256)", "AA93"),
        ("InvalidPaymasterSignatureLength(uint256,uint256)", "longer than paymasterData"),
        ("InvalidBeneficiary(address)", "AA90"),
        ("FailedSendToBeneficiary(address,uint256,bytes)", "AA91"),
        ("InternalFunction()", "AA92"),
        ("Reentrancy()", "account with code"),
        ("Eip7702SenderWithoutCode(address)", "has no code"),
        ("Eip7702SenderNotDelegate(address)", "no EIP-7702 delegation"),
    ],
)
def test_each_custom_error_has_words(error: str, words: str) -> None:
    assert words in reason(keccak(error.encode())[:4] + bytes(96))


ASKS_FOR_ITS_HASH = asm(f"""
    0 CALLDATALOAD 224 SHR 0x{keccak(b"ask()").hex()[:8]} EQ @ask JUMPI
    0 0 MSTORE 32 0 RETURN                                          ; validateUserOp: valid
    ask: 0x{keccak(b"getCurrentUserOpHash()").hex()[:8]} 0 MSTORE
    32 0 4 28 0 CALLER GAS CALL POP
    0 MLOAD ISZERO @none JUMPI
    0 MLOAD 0 SSTORE STOP
    none: 0 0 REVERT
""")
"""Stores what the entry point says is running; reverts if nothing is."""


async def test_an_account_may_ask_for_its_operations_hash_also_in_an_estimate(
    shared_chain: Chain, bundler: Client
) -> None:
    account = await shared_chain.put(ASKS_FOR_ITS_HASH, deposit_on=V09)
    draft = UserOperation(account, 0, Function.parse("ask()").encode(), max_fee_per_gas=2 * 10**10)
    op = await bundler.estimated(draft, V09)
    op_hash = await bundler.send(op, V09)
    assert (await bundler.included(op_hash))["success"] is True
    assert await shared_chain.rpc.call("eth_getStorageAt", to_hex(account), "0x0", "latest") == to_hex(op_hash)


async def test_one_process_serves_every_version_at_once(own_chain: Chain, tmp_path: Path) -> None:
    async with serving(settings_for(own_chain, tmp_path, entry_points=(V09, V07, V08))) as client:
        sent = [
            (entry_point, await client.send(await (await own_chain.account(entry_point)).operation(), entry_point))
            for entry_point in (V07, V08, V09, V09, V08, V07)
        ]
        for entry_point, op_hash in sent:
            receipt = await client.included(op_hash)
            assert (receipt["success"], receipt["entryPoint"]) == (True, checksum(entry_point.address))
            assert len(await own_chain.receipts_of(entry_point, op_hash)) == 1


async def test_an_entry_point_that_is_not_on_the_chain_stops_the_start(own_chain: Chain, tmp_path: Path) -> None:
    await own_chain.rpc.call("anvil_setCode", to_hex(V09.address), "0x")
    with pytest.raises(SetupError, match=r"no entry point v0\.9 at 0x433709009B8330FDa32311DF1C2AFA402eD8D009"):
        async with serving(settings_for(own_chain, tmp_path, entry_points=(V08, V09))):
            pass


async def test_an_executor_with_a_delegation_is_told_at_the_start_that_v0_9_takes_nothing_from_it(
    own_chain: Chain, tmp_path: Path
) -> None:
    executor = own_chain.accounts.bundler.address
    await own_chain.rpc.call("anvil_setCode", to_hex(executor), to_hex(delegation(b"\x11" * 20)))
    with pytest.raises(SetupError, match=rf"{checksum(executor)} has code .* v0\.9 takes no bundle from it"):
        async with serving(settings_for(own_chain, tmp_path, entry_points=(V08, V09))):
            pass
    async with serving(settings_for(own_chain, tmp_path, entry_points=(V08, V07))) as client:
        assert len(await client.rpc.call("eth_supportedEntryPoints")) == 2
