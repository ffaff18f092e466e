"""`ERC20Paymaster` as Python sees it: its functions, its `paymasterData`, what a guarantor signs, what an operation takes at most.

Source: contracts/src/paymaster/ERC20Paymaster.sol; OpenZeppelin's PaymasterERC20 and PaymasterERC20Guarantor.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Self

from contracts.abi import Event, Function
from contracts.deploy import deploy, init_code
from contracts.eoa import TransactionSender
from contracts.errors import BadInput
from contracts.typed_data import digest, domain_separator, struct_hash
from contracts.types import Address, Hash32, Wei, keccak
from contracts.units import BPS, mul_div
from contracts.userop import UserOperation, required_prefund

_ORACLE = "(address,uint32,address,uint32,uint128,uint128,uint16,uint32)"
_TERMS = f"({_ORACLE},uint64,uint16)"
QUOTE = Function.parse("quote(address)(uint256,uint48,uint48,bytes4)")
TERMS_OF = Function.parse(f"termsOf(address)({_TERMS})")
SET_TERMS = Function.parse(f"setTerms(address,{_TERMS})")
CREDIT_OF = Function.parse("creditOf(address,address)(uint256)")
ADD_CREDIT = Function.parse("addCredit(address,uint256)")
WITHDRAW_CREDIT = Function.parse("withdrawCredit(address,address,uint256)")
WITHDRAW_TOKENS = Function.parse("withdrawTokens(address,address,uint256)")
CREDITED_GUARANTEE = Event.parse("UserOperationGuaranteed(bytes32 indexed,address indexed,uint256)")
GUARANTEE_UNPAID = Event.parse("GuaranteeUnpaid(address indexed,address indexed,address indexed,uint256)")
SPONSORED_IN_TOKENS = Event.parse("UserOperationSponsored(bytes32 indexed,address indexed,uint256,uint256)")
ALL = (1 << 256) - 1
"""As an amount to withdraw: everything."""

MIN_POST_OP_GAS = 120_000
POST_OP_COST_GAS, GUARANTEED_POST_OP_COST_GAS = 45_000, 35_000
"""Gas that is charged for `postOp` itself, and beside it where a guarantor is paid back."""
MAX_SURCHARGE_BPS = 2_000
PRICE_UNIT_WEI: Wei = 10**18
"""Prices are token units for so much wei."""
_PLAIN_BYTES, _GUARANTEED_BYTES = 52, 52 + 20 + 6 + 6 + 65
_GUARANTEE = (
    "Guarantee(address guarantor,address sender,uint256 nonce,bytes32 initCodeHash,bytes32 callDataHash,bytes32 accountGasLimits,"
    "uint256 preVerificationGas,bytes32 gasFees,uint256 paymasterGasLimits,address token,uint256 maxTokenPerNative,uint48 validUntil,"
    "uint48 validAfter)"
)


@dataclass(frozen=True, slots=True)
class Oracle:
    """A guarded price feed (`OracleConfig`): seconds, prices with 18 decimals."""

    feed: Address
    heartbeat_s: int
    min_price_wad: int
    max_price_wad: int
    sequencer_feed: Address = bytes(20)
    grace_s: int = 0

    def to_abi(self) -> tuple[object, ...]:
        """In validation there is no second source, so no deviation to bound."""
        limits = (self.min_price_wad, self.max_price_wad, 0, 0)
        return (self.feed, self.heartbeat_s, self.sequencer_feed, self.grace_s, *limits)


@dataclass(frozen=True, slots=True)
class Guarantor:
    """Who advances the tokens, until when (unix seconds), and his signature over `guarantee_digest`."""

    address: Address
    valid_until_s: int
    signature: bytes = bytes(65)


@dataclass(frozen=True, slots=True)
class TokenPayment:
    """`paymasterData`: pay in `token`, at most `max_token_per_native` of its units for 1e18 wei."""

    token: Address
    max_token_per_native: int
    guarantor: Guarantor | None = None

    def encode(self) -> bytes:
        head = self.token + self.max_token_per_native.to_bytes(32)
        if self.guarantor is None:
            return head
        window = self.guarantor.valid_until_s.to_bytes(6) + bytes(6)
        return head + self.guarantor.address + window + self.guarantor.signature

    @classmethod
    def decode(cls, data: bytes) -> Self:
        """Raises BadInput for data of another length, or that is valid only later."""
        guarantor = None
        if len(data) == _GUARANTEED_BYTES and data[78:84] == bytes(6):
            guarantor = Guarantor(data[52:72], int.from_bytes(data[72:78]), data[84:])
        elif len(data) != _PLAIN_BYTES:
            raise BadInput(f"{len(data)} bytes of paymasterData are none of a token paymaster")
        return cls(data[:20], int.from_bytes(data[20:52]), guarantor)

    def signed(self, signature: bytes) -> Self:
        """With the guarantor's signature. There must be a guarantor."""
        assert self.guarantor is not None
        return replace(self, guarantor=replace(self.guarantor, signature=signature))


def guarantee_digest(op: UserOperation, payment: TokenPayment, paymaster: Address, chain_id: int) -> Hash32:
    """What the guarantor of `payment` signs for `op`: EIP-712 Guarantee with validAfter 0."""
    assert payment.guarantor is not None
    types = ["address", "address", "uint256", "bytes32", "bytes32", "bytes32", "uint256", "bytes32", "uint256"]
    values = [
        payment.guarantor.address,
        op.sender,
        op.nonce,
        keccak(op.init_code),
        keccak(op.call_data),
        op.account_gas_limits,
        op.pre_verification_gas,
        op.gas_fees,
        op.paymaster_gas_limits,
    ]
    terms = [payment.token, payment.max_token_per_native, payment.guarantor.valid_until_s, 0]
    struct = struct_hash(_GUARANTEE, [*types, "address", "uint256", "uint48", "uint48"], [*values, *terms])
    return digest(domain_separator("Seawall ERC20Paymaster", "1", chain_id, paymaster), struct)


def penalty_gas(op: UserOperation) -> int:
    """What is charged for gas of `postOp` that stays unused: a tenth of its limit, where that is above 40,000."""
    limit = op.paymaster_post_op_gas_limit
    return limit // 10 if limit > 40_000 else 0


def max_charge(op: UserOperation, token_per_native: int, *, guaranteed: bool) -> int:
    """The most that `op` can take in token units at a price: what is taken before it runs. Rounded up, as the contract does.

    price x (required prefund + (45,000 + penalty) x max fee), and 35,000 x max fee more where somebody guarantees.
    """
    fee = op.max_fee_per_gas
    wei = required_prefund(op) + (POST_OP_COST_GAS + penalty_gas(op)) * fee
    charge = mul_div(wei, token_per_native, PRICE_UNIT_WEI, round_up=True)
    if guaranteed:
        charge += mul_div(GUARANTEED_POST_OP_COST_GAS * fee, token_per_native, PRICE_UNIT_WEI, round_up=True)
    return charge


def with_slack(token_per_native: int, slack_bps: int) -> int:
    """A price that is `slack_bps` worse for who pays, rounded up."""
    return mul_div(token_per_native, BPS + slack_bps, BPS, round_up=True)


async def deploy_token_paymaster(
    sender: TransactionSender, entry_point: Address, owner: Address, native: Oracle
) -> Address:
    """Deploy it for one entry point; `native` prices ether. It takes no token yet. Raises SetupError, OperationFailed, NodeError."""
    types = ["address", "address", _ORACLE]
    return await deploy(sender, init_code("ERC20Paymaster", types, [entry_point, owner, native.to_abi()]))


def set_terms(token: Address, oracle: Oracle, decimals: int, surcharge_bps: int) -> bytes:
    """Call data: take `token` at its price and a surcharge. Raises BadInput for a surcharge above a fifth."""
    if not 0 <= surcharge_bps <= MAX_SURCHARGE_BPS:
        raise BadInput(f"the surcharge is from 0 to {MAX_SURCHARGE_BPS} basis points, got {surcharge_bps}")
    return SET_TERMS.encode(token, (oracle.to_abi(), 10**decimals, surcharge_bps))
