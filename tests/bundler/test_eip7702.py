"""EIP-7702 through the bundler: an EOA becomes an account by the authorisation beside its operation."""

from __future__ import annotations

from dataclasses import replace as with_fields
from pathlib import Path
from typing import Any

import pytest
from eth_account import Account

from contracts.devnet import packages
from contracts.devnet.accounts import devnet_key
from contracts.devnet.chain import bytecode
from contracts.eip7702 import MARKER, Authorization, delegation
from contracts.entrypoint import V07, V08, V09, EntryPoint
from contracts.entrypoint.base import GET_USER_OP_HASH
from contracts.eoa import Eoa, TransactionSender
from contracts.errors import InvalidFields, RpcError
from contracts.types import Address, checksum, parse_address, parse_hash, to_hex
from contracts.userop import UserOperation
from tests.bundler.assembly import asm
from tests.bundler.rig import CHAIN_ID, EXECUTE, TARGET, Chain, Client, serving, settings_for, with_limits
from tests.bundler.test_refusals import ENTRY_POINT, FIELDS, RULE

DELEGATE = b"\x11" * 20
_RELEASES = {"v0.8": "0.8.0", "v0.9": "0.9.0-rc.1"}
BOTH = pytest.mark.parametrize("entry_point", [V08, V09], ids=["v0.8", "v0.9"])


def simple_7702(entry_point: EntryPoint) -> packages.Package:
    """Simple7702Account out of the pinned tarball of the entry point's version."""
    locked = packages.locked()[f"@account-abstraction/contracts@{_RELEASES[entry_point.version]}"]
    return with_fields(locked, files=("artifacts/Simple7702Account.json",))


async def implementation(chain: Chain, entry_point: EntryPoint = V08) -> Address:
    package = simple_7702(entry_point)
    packages.fetch([package])
    sender = TransactionSender(chain.rpc, chain.accounts.trader2, CHAIN_ID)
    code = bytecode(package, "artifacts/Simple7702Account.json")
    if entry_point is not V08:  # v0.8's has its entry point in the code
        code += entry_point.address.rjust(32, b"\0")
    receipt = await sender.transact(None, code, gas=3_000_000)
    return parse_address(receipt["contractAddress"])


class Owner:
    """An EOA with money and an authorisation to give."""

    def __init__(self, chain: Chain, name: str) -> None:
        self.chain = chain
        self.key = devnet_key(f"7702 {chain.anvil.port} {name}")
        self.eoa = Eoa(self.key)

    async def funded(self) -> Owner:
        await self.chain.rpc.call("anvil_setBalance", to_hex(self.eoa.address), hex(10**18))
        return self

    def authorization(self, delegate: Address, *, nonce: int = 0, chain_id: int = CHAIN_ID) -> dict[str, Any]:
        theirs = Account.from_key(self.key).sign_authorization(
            {"chainId": chain_id, "address": checksum(delegate), "nonce": nonce}
        )
        return Authorization(chain_id, delegate, nonce, theirs.y_parity, theirs.r, theirs.s).to_rpc()

    def operation(
        self, delegate: Address, nonce: int = 0, *, marker: bool = True, entry_point: EntryPoint = V08
    ) -> UserOperation:
        op = UserOperation(
            sender=self.eoa.address,
            nonce=nonce,
            call_data=EXECUTE.encode(TARGET, 1, b""),
            factory=MARKER if marker else None,
        )
        op = with_limits(op, pre_verification_gas=90_000)
        digest = entry_point.user_op_hash(op, CHAIN_ID, delegate)
        return op.replace(signature=self.eoa.sign_hash(digest))


async def send(
    client: Client, op: UserOperation, authorization: dict[str, Any] | None, entry_point: EntryPoint = V08
) -> bytes:
    fields = op.to_rpc() | ({} if authorization is None else {"eip7702Auth": authorization})
    return parse_hash(await client.rpc.call("eth_sendUserOperation", fields, to_hex(entry_point.address)))


@BOTH
async def test_eoa_becomes_an_account_with_its_first_operation_and_stays_one(
    own_chain: Chain, tmp_path: Path, entry_point: EntryPoint
) -> None:
    delegate = await implementation(own_chain, entry_point)
    owner = await Owner(own_chain, "a").funded()
    async with serving(settings_for(own_chain, tmp_path, entry_points=(V08, V09))) as client:
        op = owner.operation(delegate, entry_point=entry_point)
        receipt = await client.included(await send(client, op, owner.authorization(delegate), entry_point))
        assert receipt["success"] is True
        assert await own_chain.rpc.get_code(owner.eoa.address) == delegation(delegate)
        second = owner.operation(delegate, 1, marker=False, entry_point=entry_point)
        again = await client.included(await send(client, second, None, entry_point))
        assert again["success"] is True
        surplus = int(receipt["actualGasUsed"], 16) - int(receipt["receipt"]["gasUsed"], 16)
        assert surplus > 0  # the authorisation is paid for, too


@BOTH
async def test_estimate_pays_for_the_authorisation(own_chain: Chain, tmp_path: Path, entry_point: EntryPoint) -> None:
    delegate = await implementation(own_chain, entry_point)
    owner = await Owner(own_chain, "a").funded()
    async with serving(settings_for(own_chain, tmp_path, entry_points=(V08, V09))) as client:
        op = owner.operation(delegate, entry_point=entry_point)
        fields = op.to_rpc() | {"eip7702Auth": owner.authorization(delegate)}
        found = await client.rpc.call("eth_estimateUserOperationGas", fields, to_hex(entry_point.address))
        priced = op.replace(
            call_gas_limit=int(found["callGasLimit"], 16),
            verification_gas_limit=int(found["verificationGasLimit"], 16),
            pre_verification_gas=int(found["preVerificationGas"], 16),
        )
        digest = entry_point.user_op_hash(priced, CHAIN_ID, delegate)
        priced = priced.replace(signature=owner.eoa.sign_hash(digest))
        receipt = await client.included(await send(client, priced, owner.authorization(delegate), entry_point))
        assert receipt["success"] is True
        assert int(receipt["actualGasUsed"], 16) >= int(receipt["receipt"]["gasUsed"], 16)


@pytest.mark.parametrize(
    ("changes", "code", "words"),
    [
        ({"chain_id": 1}, FIELDS, "chainId 1 of eip7702Auth is not this chain's"),
        ({"nonce": 3}, ENTRY_POINT, "nonce 3 of eip7702Auth is not the sender's"),
    ],
)
async def test_authorisation_that_would_take_no_effect_is_refused(
    own_chain: Chain, tmp_path: Path, changes: dict[str, int], code: int, words: str
) -> None:
    delegate = await implementation(own_chain)
    owner = await Owner(own_chain, "a").funded()
    async with serving(settings_for(own_chain, tmp_path)) as client:
        with pytest.raises(RpcError, match=words) as caught:
            await send(client, owner.operation(delegate), owner.authorization(delegate, **changes))
    assert caught.value.rpc_code == code


async def test_somebody_elses_authorisation_is_refused(own_chain: Chain, tmp_path: Path) -> None:
    delegate = await implementation(own_chain)
    owner, other = await Owner(own_chain, "a").funded(), Owner(own_chain, "b")
    async with serving(settings_for(own_chain, tmp_path)) as client:
        with pytest.raises(RpcError, match="not by the sender"):
            await send(client, owner.operation(delegate), other.authorization(delegate))


async def test_auth_040_pending_operations_of_a_sender_delegate_to_one_contract(
    own_chain: Chain, tmp_path: Path
) -> None:
    first, second = await implementation(own_chain), await implementation(own_chain)
    owner = await Owner(own_chain, "a").funded()
    async with serving(settings_for(own_chain, tmp_path, debug=True)) as client:
        await client.rpc.call("debug_bundler_setBundlingMode", "manual")
        await send(client, owner.operation(first), owner.authorization(first))
        with pytest.raises(RpcError, match="delegates to") as caught:
            await send(client, owner.operation(second, 1 << 64), owner.authorization(second))
        assert caught.value.rpc_code == RULE


async def test_authorisation_survives_a_restart(own_chain: Chain, tmp_path: Path) -> None:
    delegate = await implementation(own_chain)
    owner = await Owner(own_chain, "a").funded()
    async with serving(settings_for(own_chain, tmp_path, debug=True)) as client:
        await client.rpc.call("debug_bundler_setBundlingMode", "manual")
        op_hash = await send(client, owner.operation(delegate), owner.authorization(delegate))
    async with serving(settings_for(own_chain, tmp_path)) as client:
        assert (await client.included(op_hash))["success"] is True


@pytest.mark.parametrize("data", [b"", b"\x01\x02\x03"], ids=["bare", "with-init-data"])
@BOTH
async def test_hash_with_the_marker_is_the_entry_points_own(
    shared_chain: Chain, data: bytes, entry_point: EntryPoint
) -> None:
    sender = shared_chain.fresh_address()
    await shared_chain.rpc.call("anvil_setCode", to_hex(sender), to_hex(delegation(DELEGATE)))
    op = UserOperation(sender, 5, b"\xaa\xbb", 1, 2, 3, 4, 5, factory=MARKER, factory_data=data)
    answer = await shared_chain.rpc.eth_call(entry_point.address, GET_USER_OP_HASH.encode(entry_point.pack(op)))
    assert entry_point.user_op_hash(op, CHAIN_ID, DELEGATE) == answer
    assert entry_point.user_op_hash(op, CHAIN_ID, b"\x22" * 20) != answer
    with pytest.raises(InvalidFields, match="needs an EIP-7702 delegation"):
        entry_point.user_op_hash(op, CHAIN_ID)
    assert not V07.takes_delegations


@BOTH
async def test_initialisation_behind_the_marker_is_estimated_and_runs(
    own_chain: Chain, tmp_path: Path, entry_point: EntryPoint
) -> None:
    # Answers validateUserOp with 0 and keeps the last word of anything else that it is called with.
    code = asm(
        "0 CALLDATALOAD 224 SHR 0x19822f7c EQ @validate JUMPI 4 CALLDATALOAD 0 SSTORE STOP validate: 32 0 RETURN"
    )
    delegate = await own_chain.put(code)
    owner = await Owner(own_chain, "a").funded()
    async with serving(settings_for(own_chain, tmp_path, entry_points=(V08, V09))) as client:
        op = owner.operation(delegate).replace(factory_data=b"\xaa\xbb\xcc\xdd" + (77).to_bytes(32), call_data=b"")
        fields = op.to_rpc() | {"eip7702Auth": owner.authorization(delegate)}
        found = await client.rpc.call("eth_estimateUserOperationGas", fields, to_hex(entry_point.address))
        priced = op.replace(
            call_gas_limit=0,
            verification_gas_limit=int(found["verificationGasLimit"], 16),
            pre_verification_gas=int(found["preVerificationGas"], 16),
        )
        # It sends no money to the entry point by itself.
        await own_chain.deposit(entry_point, owner.eoa.address)
        receipt = await client.included(await send(client, priced, owner.authorization(delegate), entry_point))
        assert receipt["success"] is True
        stored = await own_chain.rpc.call("eth_getStorageAt", to_hex(owner.eoa.address), "0x0", "latest")
        assert int(stored, 16) == 77
