"""What a compact bundle saves against plain `handleOps`: bytes and wei an operation, of RiskAccount operations on v0.7 and v0.8.

    python -m benchmarks.bundler.inflator

Every bundle is valid and run both ways on anvil; its gas is the node's. Operations are ERC-20 transfers of as many accounts to as many
strangers, signed by the account's own key. L1 fees are those of the OP stack's Fjord formula (the size that FastLZ leaves), at the prices
given below; the L2 gas that unpacking takes beyond the plain form is paid at the given price and taken off the saving. The dictionary knows
the token, and nothing of accounts or recipients.
"""

from __future__ import annotations

import asyncio
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from bundler.chain import Head, read_head
from bundler.fees.fastlz import compressed_length
from bundler.fees.model import BundleData
from bundler.fees.op_stack import L1Prices
from bundler.inflator import Inflator
from bundler.simulation import trace
from contracts.bindings import (
    CREATE_ACCOUNT,
    GET_ACCOUNT_ADDRESS,
    TRANSFER,
    AccountConfig,
    Call,
    ecdsa_owner,
    encode_execute,
)
from contracts.deploy import deploy, deploy_inflator, inflator_dictionary, init_code
from contracts.devnet.accounts import devnet_key
from contracts.devnet.chain import CHAIN_ID
from contracts.entrypoint import V07, V08, EntryPoint
from contracts.eoa import Eoa, TransactionSender
from contracts.types import Address, Wei, keccak, to_hex
from contracts.userop import UserOperation
from tests.bundler.rig import Chain
from wallet.account import signable_hash

GWEI = 10**9
TOKEN: Address = keccak(b"a token")[:20]
SIZES = (1, 4, 16, 64)
L2_PRICE_WEI = 10**6
SCALARS = {"base_fee_scalar": 5_227, "blob_base_fee_scalar": 1_014_213}
"""Of OP Mainnet."""
PRICES = {
    "calm": L1Prices("fjord", GWEI, blob_base_fee_wei=1, **SCALARS),
    "busy": L1Prices("fjord", 30 * GWEI, blob_base_fee_wei=5 * GWEI, **SCALARS),
}
"""L1 at 1 gwei with blobs for nothing, and at 30 gwei with blobs at 5."""


@dataclass(frozen=True, slots=True)
class Form:
    """One way to send a bundle: call data, size under FastLZ, gas, L1 fees by the name of the prices."""

    bytes: int
    fastlz: int
    gas: int
    l1_wei: dict[str, Wei]


async def accounts(chain: Chain, entry_point: EntryPoint, count: int) -> list[tuple[Address, Eoa]]:
    """So many RiskAccounts with their keys, deployed and funded."""
    sender = TransactionSender(chain.rpc, chain.accounts.trader, CHAIN_ID)
    implementation = await deploy(
        sender, init_code("RiskAccount", ["address"] * 3, [entry_point.address, bytes(20), bytes(20)])
    )
    code = init_code("RiskAccountFactory", ["address", "address"], [implementation, chain.accounts.owner.address])
    factory = await deploy(sender, code)
    found = []
    for i in range(count):
        owner = Eoa(devnet_key(f"inflator {i}"))
        config = AccountConfig(ecdsa_owner(owner.address), bytes(20), 0, (10**18,) * 3, ())
        salt = keccak(i.to_bytes(4))
        answer = await chain.rpc.eth_call(factory, GET_ACCOUNT_ADDRESS.encode(config.to_abi(), salt))
        (address,) = GET_ACCOUNT_ADDRESS.decode(answer)
        await sender.transact(factory, CREATE_ACCOUNT.encode(config.to_abi(), salt), gas=2_000_000)
        await chain.rpc.call("anvil_setBalance", to_hex(address), hex(10**18))
        found.append((address, owner))
    return found


def operation(entry_point: EntryPoint, account: tuple[Address, Eoa], number: int) -> UserOperation:
    address, owner = account
    amount, to = int.from_bytes(keccak(b"amount" + bytes([number]))[:5]), keccak(b"to" + bytes([number]))[:20]
    op = UserOperation(
        sender=address,
        nonce=0,
        call_data=encode_execute([Call(TOKEN, TRANSFER.encode(to, amount))]),
        call_gas_limit=61_234,
        verification_gas_limit=112_345,
        pre_verification_gas=58_765,
        max_fee_per_gas=3 * GWEI + number,
        max_priority_fee_per_gas=GWEI,
    )
    digest = signable_hash(entry_point, entry_point.user_op_hash(op, CHAIN_ID), address, CHAIN_ID)
    return op.replace(signature=owner.sign_hash(digest))


async def measure(
    chain: Chain, inflator: Inflator, entry_point: EntryPoint, ops: Sequence[UserOperation], head: Head
) -> tuple[Form, Form]:
    executor = chain.accounts.bundler.address
    plain = BundleData.of(CHAIN_ID, executor, entry_point, ops, executor, head)
    packed = inflator.pack(entry_point, ops, executor, executor)
    forms = []
    for data in (plain, replace(plain, to=packed.to, data=packed.data)):
        call = {"from": to_hex(executor), "to": to_hex(data.to), "data": to_hex(data.data), "gas": hex(29_000_000)}
        _, frame = await trace(chain.rpc, call, gas_price_wei=20 * GWEI, top_only=True)
        if frame.get("error"):
            raise SystemExit(f"the bundle fails: {frame}")
        unsigned = data.unsigned()
        l1_wei = {name: prices.l1_fee_wei(unsigned) for name, prices in PRICES.items()}
        forms.append(Form(len(data.data), compressed_length(unsigned), int(frame["gasUsed"], 16), l1_wei))
    return forms[0], forms[1]


def row(name: str, count: int, plain: Form, packed: Form) -> str:
    extra_gas = packed.gas - plain.gas
    saved = {
        prices: (plain.l1_wei[prices] - packed.l1_wei[prices] - extra_gas * L2_PRICE_WEI) // count for prices in PRICES
    }
    l1 = {prices: plain.l1_wei[prices] // count for prices in PRICES}
    return (
        f"{name:6}{count:>4}{plain.bytes / count:>9.0f}{packed.bytes / count:>9.0f}{plain.fastlz / count:>9.0f}"
        f"{packed.fastlz / count:>9.0f}{extra_gas / count:>9.0f}"
        + "".join(f"{l1[prices]:>18,}{saved[prices]:>18,}" for prices in PRICES)
    )


async def run() -> None:
    print(
        f"L2 gas at {L2_PRICE_WEI:,} wei; all columns for each operation; a negative saving is a loss, and the bundler sends plainly then"
    )
    print(
        f"{'':6}{'ops':>4}{'bytes':>9}{'compact':>9}{'FastLZ':>9}{'compact':>9}{'gas +':>9}"
        + "".join(f"{'L1 ' + name + ', wei':>18}{'saved, wei':>18}" for name in PRICES)
    )
    with tempfile.TemporaryDirectory() as folder:
        state = Path(folder) / "state.json"
        factories = await Chain.build(state)
        async with Chain.start(state, factories) as chain:
            sender = TransactionSender(chain.rpc, chain.accounts.trader2, CHAIN_ID)
            address = await deploy_inflator(sender, inflator_dictionary([TOKEN]))
            inflator = await Inflator.open(chain.rpc, address, (V07, V08), chain.accounts.bundler.address)
            for entry_point in (V07, V08):
                ready = await accounts(chain, entry_point, max(SIZES))
                head = await read_head(chain.rpc)
                ops = [operation(entry_point, account, i) for i, account in enumerate(ready)]
                for size in SIZES:
                    plain, packed = await measure(chain, inflator, entry_point, ops[:size], head)
                    print(row(entry_point.version, size, plain, packed))


if __name__ == "__main__":
    asyncio.run(run())
