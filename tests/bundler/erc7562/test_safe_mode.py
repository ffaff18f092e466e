"""Safe mode on a plain anvil: real contracts, real traces, the whole way through the bundler."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from contracts.entrypoint import V08, EntryPoint
from contracts.entrypoint.base import DEPOSIT_TO
from contracts.errors import RpcError
from contracts.types import Address, checksum, to_hex
from contracts.userop import UserOperation
from tests.bundler.assembly import asm
from tests.bundler.rig import GWEI, Chain, Client, answers, serving, settings_for, with_limits
from tests.bundler.test_refusals import EACH, RULE, STAKE, THROTTLED, refused

VALID = "0 0 MSTORE 32 0 RETURN"
PAYS = "64 0 MSTORE 0 32 MSTORE 0 64 MSTORE 96 0 RETURN"


@contextlib.asynccontextmanager
async def manual(chain: Chain, folder: Path, **changes: Any) -> AsyncIterator[Client]:
    """A bundler with the debug methods that builds when asked."""
    async with serving(settings_for(chain, folder, debug=True, **changes)) as client:
        await client.rpc.call("debug_bundler_setBundlingMode", "manual")
        yield client


async def reputation(client: Client, address: Address) -> tuple[int, int]:
    rows = await client.rpc.call("debug_bundler_dumpReputation", to_hex(V08.address))
    found = {row["address"]: (int(row["opsSeen"], 16), int(row["opsIncluded"], 16)) for row in rows}
    return found.get(checksum(address), (0, 0))


async def account_running(chain: Chain, program: str, entry_point: EntryPoint = V08) -> UserOperation:
    return with_limits(UserOperation(await chain.put(asm(f"{program} {VALID}"), deposit_on=entry_point), 0, b""))


@EACH
async def test_account_behind_a_proxy_is_accepted(
    shared_chain: Chain, bundler: Client, entry_point: EntryPoint
) -> None:
    for deployed in (False, True):
        account = await shared_chain.account(entry_point, deployed=deployed)
        op_hash = await bundler.send(await account.operation(), entry_point)
        assert (await bundler.included(op_hash))["success"] is True


@EACH
@pytest.mark.parametrize(
    ("program", "rule", "words"),
    [
        ("TIMESTAMP POP", "OP-011", "account uses banned opcode: TIMESTAMP"),
        ("GAS POP", "OP-012", "account uses banned opcode: GAS"),
        ("0 0 0 0 0 0xdead GAS CALL POP", "OP-041", "has no code"),
        ("0 SLOAD POP", None, ""),
        ("0 0 0 0 0 1 GAS CALL POP", None, ""),
    ],
    ids=["OP-011", "OP-012", "OP-041", "STO-010", "OP-062"],
)
async def test_traced_account(
    shared_chain: Chain, bundler: Client, entry_point: EntryPoint, program: str, rule: str | None, words: str
) -> None:
    op = await account_running(shared_chain, program, entry_point)
    if rule is None:
        assert (await bundler.included(await bundler.send(op, entry_point)))["success"] is True
        return
    error = await refused(bundler, op, RULE, words, entry_point)
    assert isinstance(error.data, dict)
    assert error.data["rule"] == rule
    assert error.data["entity"] == "account"


async def test_op_013_unassigned_opcode_in_a_callee_is_found(shared_chain: Chain, bundler: Client) -> None:
    odd = await shared_chain.put(b"\x60\x01\x0c")
    op = await account_running(shared_chain, f"0 0 0 0 0 {int.from_bytes(odd)} 5000 CALL POP")
    await refused(bundler, op, RULE, "banned opcode: 0x0c")


async def test_op_020_out_of_gas_in_a_callee_is_found(shared_chain: Chain, bundler: Client) -> None:
    for code, gas in ((asm("again: @again JUMP"), 3_000), (asm("1 0 SSTORE STOP"), 2_299)):
        hungry = await shared_chain.put(code)
        op = await account_running(shared_chain, f"0 0 0 0 0 {int.from_bytes(hungry)} {gas} CALL POP")
        await refused(bundler, op, RULE, "out of gas")


def mapping_of(key: str) -> str:
    """The slot keccak(key || 7) on the stack."""
    return f"{key} 0 MSTORE 7 32 MSTORE 64 0 KECCAK256"


async def test_associated_storage_is_known_by_its_hash(shared_chain: Chain, bundler: Client) -> None:
    token = await shared_chain.put(asm(f"{mapping_of('CALLER')} 3 ADD SLOAD POP STOP"))
    call = f"0 0 0 0 0 {int.from_bytes(token)} GAS CALL POP"
    op = await account_running(shared_chain, call)
    assert (await bundler.included(await bundler.send(op)))["success"] is True
    other = await shared_chain.put(asm(f"{mapping_of('0xbeef')} SLOAD POP STOP"))
    op = await account_running(shared_chain, f"0 0 0 0 0 {int.from_bytes(other)} GAS CALL POP")
    error = await refused(bundler, op, RULE, "not associated")
    assert isinstance(error.data, dict)
    assert error.data["rule"] == "STO-021"


async def test_slot_hashed_with_memory_that_was_never_written_is_associated(
    shared_chain: Chain, bundler: Client
) -> None:
    token = await shared_chain.put(asm("CALLER 0 MSTORE 64 0 KECCAK256 SLOAD POP STOP"))  # a mapping in slot 0
    op = await account_running(shared_chain, f"0 0 0 0 0 {int.from_bytes(token)} GAS CALL POP")
    assert (await bundler.included(await bundler.send(op)))["success"] is True


async def test_staked_paymaster_may_use_its_storage_and_an_unstaked_one_may_not(
    shared_chain: Chain, bundler: Client
) -> None:
    paymaster = await shared_chain.put(asm(f"5 SLOAD POP {PAYS}"), deposit_on=V08)
    account = await shared_chain.account(deployed=True)
    op = account.sign(with_limits((await account.draft()).replace(paymaster=paymaster)))
    await refused(bundler, op, RULE, "paymaster reads storage slot 0x5")
    await shared_chain.stake(V08, paymaster, 10**17 - 1)
    await refused(bundler, op, RULE, "paymaster reads storage slot 0x5")
    await shared_chain.stake(V08, paymaster, 1)
    assert (await bundler.included(await bundler.send(op)))["success"] is True


async def test_deposit_for_the_sender_may_be_made_in_validation(shared_chain: Chain, bundler: Client) -> None:
    account = shared_chain.fresh_address()
    words = DEPOSIT_TO.encode(account).ljust(64, bytes(1))
    program = f"""
        {int.from_bytes(words[:32])} 0 MSTORE {int.from_bytes(words[32:])} 32 MSTORE
        0 0 36 0 5 {int.from_bytes(V08.address)} GAS CALL POP {VALID}
    """
    await shared_chain.rpc.call("anvil_setCode", to_hex(account), to_hex(asm(program)))
    await shared_chain.rpc.call("anvil_setBalance", to_hex(account), hex(10**18))
    await shared_chain.deposit(V08, account)
    assert (await bundler.included(await bundler.send(with_limits(UserOperation(account, 0, b"")))))["success"] is True


async def test_cod_010_operation_whose_code_changed_is_dropped(own_chain: Chain, tmp_path: Path) -> None:
    async with manual(own_chain, tmp_path) as client:
        library = await own_chain.put(asm("STOP"))
        op = await account_running(own_chain, f"0 0 0 0 0 {int.from_bytes(library)} GAS CALL POP")
        op_hash = await client.send(op)
        await own_chain.rpc.call("anvil_setCode", to_hex(library), to_hex(asm("1 POP STOP")))
        await own_chain.mine()
        await client.rpc.call("debug_bundler_sendBundleNow")
        status = await client.becomes(op_hash, "dropped")
    assert "changed since the operation was validated" in status["reason"]


async def test_second_validation_finds_a_rule_broken_only_now(own_chain: Chain, tmp_path: Path) -> None:
    async with manual(own_chain, tmp_path) as client:
        account = await own_chain.put(asm(f"0 SLOAD @later JUMPI {VALID} later: TIMESTAMP POP {VALID}"), deposit_on=V08)
        op_hash = await client.send(with_limits(UserOperation(account, 0, b"")))
        await own_chain.rpc.call("anvil_setStorageAt", to_hex(account), "0x" + "00" * 32, "0x" + "00" * 31 + "01")
        await own_chain.mine()
        await client.rpc.call("debug_bundler_sendBundleNow")
        status = await client.becomes(op_hash, "dropped")
    assert "TIMESTAMP" in status["reason"]


async def test_sto_041_operations_that_touch_each_others_senders_go_in_two_bundles(
    own_chain: Chain, tmp_path: Path
) -> None:
    async with manual(own_chain, tmp_path) as client:
        # The first account is a token, too: it answers for slots of whoever calls it.
        token = await own_chain.put(asm(f"{mapping_of('CALLER')} SLOAD POP {VALID}"), deposit_on=V08)
        reader = await account_running(own_chain, f"0 0 0 0 0 {int.from_bytes(token)} GAS CALL POP")
        hashes = [await client.send(with_limits(UserOperation(token, 0, b""))), await client.send(reader)]
        await client.rpc.call("debug_bundler_sendBundleNow")
        assert len(await client.rpc.call("debug_bundler_dumpMempool", to_hex(V08.address))) == 1
        await client.rpc.call("debug_bundler_sendBundleNow")
        receipts = [await client.included(op_hash) for op_hash in hashes]
    assert len({receipt["receipt"]["transactionHash"] for receipt in receipts}) == 2


async def sponsored(chain: Chain, paymaster: Address, **changes: Any) -> UserOperation:
    account = await chain.account(deployed=True)
    return account.sign(with_limits((await account.draft()).replace(paymaster=paymaster), **changes))


async def test_reputation_counts_what_is_seen_and_included_and_survives_a_restart(
    own_chain: Chain, tmp_path: Path
) -> None:
    paymaster = await own_chain.put(asm(PAYS), deposit_on=V08)
    async with manual(own_chain, tmp_path) as client:
        op_hash = await client.send(await sponsored(own_chain, paymaster))
        assert await reputation(client, paymaster) == (1, 0)
        await client.rpc.call("debug_bundler_sendBundleNow")
        await client.included(op_hash)
        assert await reputation(client, paymaster) == (1, 1)
    async with manual(own_chain, tmp_path) as client:
        assert await reputation(client, paymaster) == (1, 1)


async def test_grep_050_replacing_the_paymaster_moves_the_count(own_chain: Chain, tmp_path: Path) -> None:
    first, second = [await own_chain.put(asm(PAYS), deposit_on=V08) for _ in range(2)]
    async with manual(own_chain, tmp_path) as client:
        account = await own_chain.account(deployed=True)
        draft = with_limits((await account.draft()).replace(paymaster=first))
        await client.send(account.sign(draft))
        dearer = draft.replace(paymaster=second, max_fee_per_gas=30 * GWEI, max_priority_fee_per_gas=3 * GWEI)
        await client.send(account.sign(dearer))
        assert await reputation(client, first) == (0, 0)
        assert await reputation(client, second) == (1, 0)


async def set_reputation(client: Client, address: Address, seen: int, included: int) -> None:
    row = {"address": checksum(address), "opsSeen": hex(seen), "opsIncluded": hex(included)}
    await client.rpc.call("debug_bundler_setReputation", [row], to_hex(V08.address))


async def test_grep_010_and_grep_020_banned_and_throttled_entities_are_held_back(
    own_chain: Chain, tmp_path: Path
) -> None:
    paymaster = await own_chain.put(asm(PAYS), deposit_on=V08, deposit_wei=10**20)
    async with manual(own_chain, tmp_path) as client:
        await set_reputation(client, paymaster, 1_000, 1)
        await refused(client, await sponsored(own_chain, paymaster), THROTTLED, "is banned")
        await set_reputation(client, paymaster, 200, 1)
        for _ in range(4):
            await client.send(await sponsored(own_chain, paymaster))
        await refused(client, await sponsored(own_chain, paymaster), THROTTLED, "is throttled")


async def test_grep_020_operation_of_a_throttled_entity_leaves_after_ten_blocks(
    own_chain: Chain, tmp_path: Path
) -> None:
    paymaster = await own_chain.put(asm(PAYS), deposit_on=V08)
    async with manual(own_chain, tmp_path) as client:
        op_hash = await client.send(await sponsored(own_chain, paymaster))
        await set_reputation(client, paymaster, 200, 1)
        await own_chain.mine(11)
        assert "GREP-020" in (await client.becomes(op_hash, "dropped"))["reason"]


async def test_urep_020_unstaked_paymaster_has_ten_pending_operations(own_chain: Chain, tmp_path: Path) -> None:
    paymaster = await own_chain.put(asm(PAYS), deposit_on=V08, deposit_wei=10**20)
    async with manual(own_chain, tmp_path) as client:
        for _ in range(10):
            await client.send(await sponsored(own_chain, paymaster))
        await refused(client, await sponsored(own_chain, paymaster), STAKE, "its reputation allows 10")
        await own_chain.stake(V08, paymaster)
        await client.send(await sponsored(own_chain, paymaster))


async def test_erep_015_a_paymaster_does_not_answer_for_an_account(own_chain: Chain, tmp_path: Path) -> None:
    paymaster = await own_chain.put(asm(PAYS), deposit_on=V08)
    async with manual(own_chain, tmp_path) as client:
        account = await own_chain.put(answers(0), deposit_on=V08)
        op_hash = await client.send(with_limits(UserOperation(account, 0, b"", paymaster=paymaster)))
        assert await reputation(client, paymaster) == (1, 0)
        await own_chain.rpc.call("anvil_setCode", to_hex(account), to_hex(asm("0 0 REVERT")))
        await own_chain.mine()
        await client.rpc.call("debug_bundler_sendBundleNow")
        await client.becomes(op_hash, "dropped")
        assert await reputation(client, paymaster) == (0, 0)


async def test_debug_methods_are_not_served_unless_asked_for(bundler: Client) -> None:
    with pytest.raises(RpcError, match="does not exist"):
        await bundler.rpc.call("debug_bundler_clearState")
