"""Estimates suffice and are tight for accounts of every maker, on every entry point, with and without paymaster and factory."""

from __future__ import annotations

import pytest

from contracts.bindings import Call
from contracts.entrypoint import V07, V08, V09, EntryPoint
from tests.bundler.rig import PAYMASTER_OK, TARGET, Chain, Client
from tests.bundler.test_estimate import CONTEXT_PAYMASTER, WRITES, succeeds, true_need
from tests.bundler.zoo import MAKERS, resident

ACCOUNTS = [
    pytest.param(maker, entry_point, id=f"{maker}-{entry_point.version}")
    for maker in MAKERS
    for entry_point in (V08, V07, V09)
    if maker != "Simple7702Account" or entry_point.takes_delegations
]


@pytest.mark.parametrize(("maker", "entry_point"), ACCOUNTS)
@pytest.mark.parametrize("sponsor", ["own-money", "paymaster", "paymaster-with-context"])
async def test_limits_for_the_first_and_a_later_operation_of_every_account_suffice_and_are_tight(
    shared_chain: Chain, bundler: Client, maker: str, entry_point: EntryPoint, sponsor: str
) -> None:
    account = await resident(shared_chain, maker, entry_point)
    paymaster = None
    if sponsor != "own-money":
        code = PAYMASTER_OK if sponsor == "paymaster" else CONTEXT_PAYMASTER
        paymaster = await shared_chain.put(code, deposit_on=entry_point)
        if code is CONTEXT_PAYMASTER:
            await shared_chain.stake(entry_point, paymaster)  # [EREP-050]: only then it may return a context
    writes = Call(await shared_chain.put(WRITES), (5).to_bytes(32))
    for call in (Call(TARGET, b"", 1), writes):
        draft = (await account.draft(shared_chain, call)).replace(paymaster=paymaster)
        if await shared_chain.rpc.get_code(account.address):
            draft = draft.replace(factory=None, factory_data=b"")
        op = account.sign(await bundler.estimated(draft, entry_point))
        assert await succeeds(shared_chain, entry_point, op)
        names = ["verification_gas_limit", "call_gas_limit"]
        if paymaster is not None:
            names.append("paymaster_verification_gas_limit")
        if sponsor == "paymaster-with-context":
            names.append("paymaster_post_op_gas_limit")
        for name in names:
            need, estimate = await true_need(shared_chain, account, op, name), getattr(op, name)
            print(
                f"{maker:18} {entry_point.version} {sponsor:23} {'first' if draft.factory else 'later'} {name:34} {estimate:8} need "
                f"{need:8} +{100 * (estimate - need) / need:.1f}%"
            )
            assert estimate <= need * 1.15, (name, estimate, need)
        receipt = await bundler.included(await bundler.send(op, entry_point))
        assert receipt["success"] is True
        surplus = int(receipt["actualGasUsed"], 16) - int(receipt["receipt"]["gasUsed"], 16)
        print(f"{maker:18} {entry_point.version} {sponsor:23} surplus {surplus} of {op.pre_verification_gas}")
        assert 0 <= surplus <= 0.15 * op.pre_verification_gas
        # What is left of the first prefund would pay for the next under some of the limits tried, and not under others.
        await shared_chain.deposit(entry_point, account.address)
