"""What viem's universal validator says of a RiskAccount's signatures: before the account exists, after, and after its owner changed."""

from __future__ import annotations

from typing import Any

from contracts import bindings as b
from contracts.abi import Function
from contracts.bindings import CREATE_ACCOUNT, GET_ACCOUNT_ADDRESS, AccountConfig, ecdsa_owner
from contracts.devnet import Devnet
from contracts.devnet.accounts import devnet_key
from contracts.eoa import TransactionSender
from contracts.types import Address, Hash32, checksum, keccak, to_hex
from tests.bundler.test_foreign_clients import script

SET_OWNER = Function.parse("setOwner(bytes)")
VALID = {"message", "permit"}
BARE = {"bareMessage", "barePermit"}


async def ask(devnet: Devnet, account: Address, birth: bytes, owner: str, thief: str) -> tuple[bool, set[str]]:
    """Whether the account is deployed, and the names of the signatures that are valid."""
    order: dict[str, Any] = {
        "nodeUrl": devnet.rpc_url,
        "chainId": devnet.chain_id,
        "account": checksum(account),
        "factory": checksum(devnet.addresses.risk_account_factory),
        "factoryData": to_hex(birth),
        "ownerKey": to_hex(devnet_key(owner)),
        "thiefKey": to_hex(devnet_key(thief)),
    }
    told = await script("erc6492", order)
    return told.pop("deployed"), {name for name, valid in told.items() if valid}


async def test_signatures_count_before_the_account_exists_and_after_and_follow_its_owner(devnet: Devnet) -> None:
    people, factory = devnet.accounts, devnet.addresses.risk_account_factory
    config = AccountConfig(ecdsa_owner(people.owner.address), bytes(20), 0, (10**18,) * 3, ())
    salt: Hash32 = keccak(b"signatures of what is not there yet")
    birth = CREATE_ACCOUNT.encode(config.to_abi(), salt)
    answer = await devnet.rpc.eth_call(factory, GET_ACCOUNT_ADDRESS.encode(config.to_abi(), salt))
    account: Address = GET_ACCOUNT_ADDRESS.decode(answer)[0]

    # Without the wrapping nothing can be asked of an address without code.
    assert await ask(devnet, account, birth, "owner", "keeper") == (False, VALID)

    deployer = TransactionSender(devnet.rpc, people.deployer, devnet.chain_id)
    await deployer.transact(factory, birth)
    assert await ask(devnet, account, birth, "owner", "keeper") == (True, VALID | BARE)

    change = SET_OWNER.encode(ecdsa_owner(people.keeper.address))
    await devnet.rpc.call("anvil_setBalance", checksum(account), hex(10**18))
    await devnet.rpc.call("anvil_impersonateAccount", checksum(account))
    announced = {"from": checksum(account), "to": checksum(account), "data": to_hex(b.SCHEDULE_ADMIN.encode(change))}
    await devnet.rpc.call("eth_sendTransaction", announced)
    await devnet.rpc.call("evm_mine")
    await deployer.transact(account, b.EXECUTE_ADMIN.encode(change))
    assert await ask(devnet, account, birth, "owner", "guardian") == (True, set())
    assert await ask(devnet, account, birth, "keeper", "owner") == (True, VALID | BARE)
