"""Smart accounts of several makers, for what must hold for all of them: SimpleAccount, Simple7702Account, OpenZeppelin's, ours."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from functools import cache

from contracts import deploy
from contracts.abi import Function
from contracts.bindings import AccountConfig, Call, ecdsa_owner, encode_execute
from contracts.compile import find_compiler, node_modules
from contracts.devnet.accounts import devnet_key
from contracts.eip7702 import delegation
from contracts.entrypoint import V07, EntryPoint
from contracts.entrypoint.base import GET_NONCE
from contracts.eoa import Eoa, TransactionSender
from contracts.types import Address, Hash32, keccak, to_hex
from contracts.userop import UserOperation
from tests.bundler.rig import CHAIN_ID, DUMMY_SIGNATURE, EXECUTE, GWEI, Chain
from tests.bundler.test_eip7702 import implementation
from wallet.account import Birth, signable_hash

_OPENZEPPELIN = """// SPDX-License-Identifier: MIT
pragma solidity ^0.8.26;
import {AccountERC7579} from "@openzeppelin/contracts/account/extensions/draft-AccountERC7579.sol";
import {AbstractSigner} from "@openzeppelin/contracts/utils/cryptography/signers/AbstractSigner.sol";
import {SignerECDSA} from "@openzeppelin/contracts/utils/cryptography/signers/SignerECDSA.sol";
import {IEntryPoint} from "@openzeppelin/contracts/interfaces/IERC4337.sol";

contract Foreign is AccountERC7579, SignerECDSA {
    IEntryPoint private immutable ENTRY_POINT;

    constructor(IEntryPoint entryPoint_, address owner) SignerECDSA(owner) {
        ENTRY_POINT = entryPoint_;
    }

    function entryPoint() public view override returns (IEntryPoint) {
        return ENTRY_POINT;
    }

    function _rawSignatureValidation(bytes32 hash, bytes calldata signature)
        internal view override(AccountERC7579, SignerECDSA) returns (bool)
    {
        return SignerECDSA._rawSignatureValidation(hash, signature);
    }
}

contract ForeignFactory {
    function create(IEntryPoint entryPoint_, address owner) external returns (address) {
        return address(new Foreign{salt: 0}(entryPoint_, owner));
    }
}
"""
_CREATE = Function.parse("create(address,address)(address)")


@cache
def _openzeppelin_factory() -> bytes:
    """Creation code of a factory of OpenZeppelin's AccountERC7579 with an ECDSA owner."""
    import solcx

    modules = node_modules()
    output = solcx.compile_standard(
        {
            "language": "Solidity",
            "sources": {"Foreign.sol": {"content": _OPENZEPPELIN}},
            "settings": {
                "optimizer": {"enabled": True, "runs": 200},
                "evmVersion": "cancun",
                "remappings": ["@openzeppelin/contracts/=node_modules/@openzeppelin/contracts/"],
                "outputSelection": {"*": {"*": ["evm.bytecode.object"]}},
            },
        },
        solc_binary=find_compiler().binary,
        base_path=str(modules.parent),
        allow_paths=[str(modules.parent)],
    )
    return bytes.fromhex(output["contracts"]["Foreign.sol"]["ForeignFactory"]["evm"]["bytecode"]["object"])


@dataclass(frozen=True, slots=True)
class Resident:
    """One account of the zoo, with money, and what its owner does."""

    entry_point: EntryPoint
    address: Address
    owner: Eoa
    encode: Callable[[Call], bytes]
    signable: Callable[[Hash32], Hash32] = lambda op_hash: op_hash
    factory: Address | None = None
    factory_data: bytes = b""

    async def draft(self, chain: Chain, call: Call) -> UserOperation:
        """Unsigned, without gas limits."""
        answer = await chain.rpc.eth_call(self.entry_point.address, GET_NONCE.encode(self.address, 0))
        return UserOperation(
            sender=self.address,
            nonce=GET_NONCE.decode(answer)[0],
            call_data=self.encode(call),
            max_fee_per_gas=20 * GWEI,
            max_priority_fee_per_gas=2 * GWEI,
            signature=DUMMY_SIGNATURE,
            factory=self.factory,
            factory_data=self.factory_data,
        )

    def sign(self, op: UserOperation) -> UserOperation:
        return op.replace(signature=self.owner.sign_hash(self.signable(self.entry_point.user_op_hash(op, CHAIN_ID))))


def _simple_call(call: Call) -> bytes:
    return EXECUTE.encode(call.target, call.value, call.data)


def _erc7579_call(call: Call) -> bytes:
    return encode_execute([call])


async def _simple(chain: Chain, entry_point: EntryPoint, key: bytes, sender: TransactionSender) -> Resident:  # noqa: ARG001 (as the others)
    account = await chain.account_of(key, entry_point)
    draft = await account.draft()

    def wrapped(op_hash: Hash32) -> Hash32:
        return keccak(b"\x19Ethereum Signed Message:\n32" + op_hash) if entry_point is V07 else op_hash

    return Resident(entry_point, account.address, Eoa(key), _simple_call, wrapped, draft.factory, draft.factory_data)


async def _simple_7702(chain: Chain, entry_point: EntryPoint, key: bytes, sender: TransactionSender) -> Resident:  # noqa: ARG001 (as the others)
    owner = Eoa(key)
    code = delegation(await implementation(chain, entry_point))
    await chain.rpc.call("anvil_setCode", to_hex(owner.address), to_hex(code))
    return Resident(entry_point, owner.address, owner, _simple_call)


async def _openzeppelin(chain: Chain, entry_point: EntryPoint, key: bytes, sender: TransactionSender) -> Resident:
    owner = Eoa(key)
    owner = Eoa(key)
    factory = await deploy.deploy(sender, _openzeppelin_factory())
    arguments = _CREATE.encode(entry_point.address, owner.address)
    (address,) = _CREATE.decode(await chain.rpc.eth_call(factory, arguments))
    return Resident(entry_point, address, owner, _erc7579_call, factory=factory, factory_data=arguments)


async def _ours(chain: Chain, entry_point: EntryPoint, key: bytes, sender: TransactionSender) -> Resident:
    owner = Eoa(key)
    implementation = await deploy.deploy(
        sender, deploy.init_code("RiskAccount", ["address"] * 3, [entry_point.address, bytes(20), bytes(20)])
    )
    addresses = [implementation, chain.accounts.paymaster_owner.address]
    factory = await deploy.deploy(sender, deploy.init_code("RiskAccountFactory", ["address"] * 2, addresses))
    birth = Birth(factory, AccountConfig(ecdsa_owner(owner.address), bytes(20), 0, (10**18,) * 3, ()), bytes(32))
    address = await birth.address(chain.rpc)

    def signable(op_hash: Hash32) -> Hash32:
        return signable_hash(entry_point, op_hash, address, CHAIN_ID)

    return Resident(entry_point, address, owner, _erc7579_call, signable, factory, birth.factory_data)


_MAKERS: dict[str, Callable[[Chain, EntryPoint, bytes, TransactionSender], Awaitable[Resident]]] = {
    "SimpleAccount": _simple,
    "Simple7702Account": _simple_7702,
    "OpenZeppelin": _openzeppelin,
    "RiskAccount": _ours,
}
MAKERS = tuple(_MAKERS)


async def resident(chain: Chain, maker: str, entry_point: EntryPoint) -> Resident:
    """A fresh account with one ether, not deployed yet (Simple7702Account: delegated)."""
    key = devnet_key(f"zoo {to_hex(chain.fresh_address())}")
    sender = TransactionSender(chain.rpc, chain.accounts.trader2, CHAIN_ID)
    found = await _MAKERS[maker](chain, entry_point, key, sender)
    await chain.rpc.call("anvil_setBalance", to_hex(found.address), hex(10**18))
    return found
