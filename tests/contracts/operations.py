"""Operations for the tests of the core: three fixed ones with golden hashes, and a strategy for any other."""

from __future__ import annotations

from hypothesis import strategies as st

from contracts.userop import UserOperation

ADDRESS = st.binary(min_size=20, max_size=20)
GAS = st.integers(0, 2**128 - 1)

PLAIN = UserOperation(
    sender=bytes.fromhex("9406cc6185a346906296840746125a0e44976454"),
    nonce=1,
    call_data=bytes.fromhex("b61d27f6"),
    call_gas_limit=100_000,
    verification_gas_limit=200_000,
    pre_verification_gas=50_000,
    max_fee_per_gas=3 * 10**9,
    max_priority_fee_per_gas=10**9,
    signature=b"\x01" * 65,
)
DEPLOYING = PLAIN.replace(
    nonce=0, factory=bytes.fromhex("4e59b44847b379578588920ca78fbf26c0b4956c"), factory_data=b"salt and config"
)
SPONSORED = DEPLOYING.replace(
    nonce=(7 << 64) + 2,
    paymaster=bytes.fromhex("e1fb85ec54767ed89252751f6667cf566b16f1f0"),
    paymaster_verification_gas_limit=60_000,
    paymaster_post_op_gas_limit=10_000,
    paymaster_data=b"\x02" * 77,
)
CO_SIGNED = SPONSORED.replace(paymaster_data=b"\x03" * 12, paymaster_signature=b"\x04" * 65)
"""The paymaster signs beside the account (entry point v0.9)."""


@st.composite
def co_signed(draw: st.DrawFn) -> UserOperation:
    """Any operation with a paymaster's signature of its own."""
    op = draw(operations())
    return op.replace(
        paymaster=op.paymaster or draw(ADDRESS), paymaster_signature=draw(st.binary(min_size=1, max_size=300))
    )


@st.composite
def operations(draw: st.DrawFn) -> UserOperation:
    """Any operation that every entry point can hold."""
    op = UserOperation(
        sender=draw(ADDRESS),
        nonce=draw(st.integers(0, 2**256 - 1)),
        call_data=draw(st.binary(max_size=100)),
        call_gas_limit=draw(GAS),
        verification_gas_limit=draw(GAS),
        pre_verification_gas=draw(GAS),
        max_fee_per_gas=draw(GAS),
        max_priority_fee_per_gas=draw(GAS),
        signature=draw(st.binary(max_size=70)),
    )
    if draw(st.booleans()):
        op = op.replace(factory=draw(ADDRESS), factory_data=draw(st.binary(max_size=60)))
    if draw(st.booleans()):
        op = op.replace(
            paymaster=draw(ADDRESS),
            paymaster_verification_gas_limit=draw(GAS),
            paymaster_post_op_gas_limit=draw(GAS),
            paymaster_data=draw(st.binary(max_size=80)),
        )
    return op
