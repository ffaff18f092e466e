"""Gas limits under which an operation succeeds: one eth_call of `GasProbe` in the entry point's place.

Works with dummy signatures, counterfactual senders, stub paymaster data and unfunded accounts.   Source: ERC-7769.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from bundler.chain import Head, read_delegate, read_head
from bundler.checks import check_shape
from bundler.fees import Pricing
from bundler.gas import TRANSACTION_GAS, VALIDITY_GAS, pre_verification_gas, with_dummy_fields
from bundler.reverts import reason
from bundler.settings import Settings
from bundler.validity import SIG_VALIDATION_FAILED, ValidationData
from contracts.abi import Function
from contracts.artifacts import artifact
from contracts.eip7702 import Authorization, delegation
from contracts.entrypoint import EntryPoint
from contracts.entrypoint.base import BALANCE_OF, PACKED_TYPE, sender_creator
from contracts.errors import (
    ExecutionReverted,
    InvalidFields,
    NodeError,
    RejectedByEntryPoint,
    RejectedByPaymaster,
    RpcError,
)
from contracts.rpc import RpcClient
from contracts.types import Address, Wei, parse_address, parse_bytes, parse_hash, parse_quantity, to_hex
from contracts.userop import Candidate, UserOperation, required_prefund

_PROBE = Function.parse(
    f"probe(({PACKED_TYPE},bytes32,address,bytes,uint256,uint256,uint256,uint256,uint256))"
    "((uint256,bytes,uint256,uint256,uint256,uint256,uint256,uint256))"
)
_REAL = bytes.fromhex("00000000000000000000000000000000000ea1ed")
"""Where the entry point's own code stands during a probe (GasProbe.REAL)."""
_EXECUTE_USER_OP = Function.parse(f"executeUserOp({PACKED_TYPE},bytes32)")

VERIFICATION_OVERHEAD = {"v0.7": 1_500, "v0.8": 2_000, "v0.9": 2_000}
"""What the entry point spends on copying, hashing and checks within the verification limit beyond what the probe spends itself:
1,600 on v0.8 and v0.9, 1,100 on v0.7 (measured; tests/bundler/test_estimate.py holds the result to the true need)."""
VERIFICATION_WORD_GAS = 12
DELEGATED_INIT_OVERHEAD = 6_000
"""Calls of entry point and SenderCreator around the initialisation of a delegated account."""
PAYMASTER_OVERHEAD = 7_000
"""The paymaster's deposit (a write of 5,000) and the call, within the paymaster's verification limit."""
_MARGIN = 20
"""1/20 on top of every limit: state moves between the estimate and the block."""
_DUMMY_MARGIN = 10
"""1/10 on verification when the signature did not pass: the real one may take a longer path."""
_MIN_CALL_GAS = 9_100
_FIRST_GUESS = 100_000
_PASSES = 3


def parse_overrides(given: object) -> dict[str, dict[str, Any]]:
    """Check the optional state override set of an estimate. Raises InvalidFields."""
    if given is None:
        return {}
    if not isinstance(given, Mapping):
        raise InvalidFields("the state override set must be a JSON object of addresses")
    overrides: dict[str, dict[str, Any]] = {}
    for key, account in given.items():
        address = to_hex(parse_address(key, "state override"))
        if not isinstance(account, Mapping):
            raise InvalidFields(f"the state override of {address} must be a JSON object")
        checked: dict[str, Any] = {}
        for name, value in account.items():
            if name in ("balance", "nonce"):
                checked[name] = hex(parse_quantity(value, name))
            elif name == "code":
                checked[name] = to_hex(parse_bytes(value, name))
            elif name in ("state", "stateDiff") and isinstance(value, Mapping):
                checked[name] = {
                    to_hex(parse_hash(slot, "slot")): to_hex(parse_hash(word, "slot value"))
                    for slot, word in value.items()
                }
            else:
                raise InvalidFields(f"unknown or malformed state override {name!r} of {address}")
        overrides[address] = checked
    return overrides


def _with_margin(gas: int, share: int = _MARGIN) -> int:
    return gas + gas // share


class Estimator:
    """Prices operations on the latest block. Keeps the entry points' code once it is read."""

    def __init__(self, rpc: RpcClient, executor: Address, chain_id: int, settings: Settings, pricing: Pricing) -> None:
        self._rpc = rpc
        self._executor = executor
        self._chain_id = chain_id
        self._settings = settings
        self._pricing = pricing
        self._codes: dict[Address, bytes] = {}

    async def estimate(
        self, candidate: Candidate, entry_point: EntryPoint, overrides: Mapping[str, dict[str, Any]]
    ) -> dict[str, str]:
        """`eth_estimateUserOperationGas`'s answer.

        Raises InvalidFields, RejectedByEntryPoint (factory or account), RejectedByPaymaster, ExecutionReverted with the call's
        reason, NodeError.
        """
        op, authorization = candidate.op, candidate.authorization
        check_shape(op, entry_point, self._settings)
        if authorization is not None:
            own = {"code": to_hex(delegation(authorization.delegate))} | overrides.get(to_hex(op.sender), {})
            overrides = {**overrides, to_hex(op.sender): own}
        for address in (entry_point.address, _REAL):
            if to_hex(address) in overrides:
                raise InvalidFields(f"{to_hex(address)} cannot be overridden in an estimate")
        head = await read_head(self._rpc)
        deposit_wei = await self._deposit(entry_point, op.sender)
        dummy = with_dummy_fields(op)
        data_gas = await self._pricing.data_gas(entry_point, Candidate(dummy, authorization), head, op)
        data_gas += -(-data_gas * self._settings.data_fee_margin_percent // 100)
        # An account may cap its prefund: limits must be realistic when it looks at them. Guess, measure, measure with the result.
        guess = op.replace(
            verification_gas_limit=op.verification_gas_limit or _FIRST_GUESS,
            call_gas_limit=op.call_gas_limit or _FIRST_GUESS,
            pre_verification_gas=op.pre_verification_gas or _FIRST_GUESS,
            max_fee_per_gas=op.max_fee_per_gas or 2 * head.base_fee_wei or 1,
            paymaster_verification_gas_limit=(op.paymaster_verification_gas_limit or _FIRST_GUESS)
            if op.paymaster
            else 0,
            paymaster_post_op_gas_limit=(op.paymaster_post_op_gas_limit or _FIRST_GUESS) if op.paymaster else 0,
        )
        limits: dict[str, int] = {}
        for _ in range(_PASSES):
            before = limits
            limits = await self._probe(guess, entry_point, head, overrides, deposit_wei, authorization)
            limits["preVerificationGas"] += data_gas
            if limits == before:
                break
            guess = guess.replace(
                verification_gas_limit=limits["verificationGasLimit"],
                call_gas_limit=limits["callGasLimit"],
                pre_verification_gas=limits["preVerificationGas"],
                paymaster_verification_gas_limit=limits.get("paymasterVerificationGasLimit", 0),
                paymaster_post_op_gas_limit=limits.get("paymasterPostOpGasLimit", 0),
            )
        return {name: hex(gas) for name, gas in limits.items()}

    async def _deposit(self, entry_point: EntryPoint, sender: Address) -> Wei:
        answer = await self._rpc.eth_call(entry_point.address, BALANCE_OF.encode(sender))
        deposit: Wei = BALANCE_OF.decode(answer)[0]
        return deposit

    async def _code(self, entry_point: EntryPoint) -> bytes:
        if entry_point.address not in self._codes:
            self._codes[entry_point.address] = await self._rpc.get_code(entry_point.address)
        return self._codes[entry_point.address]

    async def _probe(
        self,
        op: UserOperation,
        entry_point: EntryPoint,
        head: Head,
        overrides: Mapping[str, dict[str, Any]],
        deposit_wei: Wei,
        authorization: Authorization | None,
    ) -> dict[str, int]:
        delegate = authorization.delegate if authorization else await read_delegate(self._rpc, op)
        op_hash = entry_point.user_op_hash(op, self._chain_id, delegate)
        execution = op.call_data
        if execution[:4] == _EXECUTE_USER_OP.selector:
            execution = _EXECUTE_USER_OP.encode(entry_point.pack(op), op_hash)
        prefund_wei = required_prefund(op)
        missing_wei = 0 if op.paymaster else max(prefund_wei - deposit_wei, 0)
        state = {address: dict(account) for address, account in overrides.items()}
        state[to_hex(entry_point.address)] = {"code": to_hex(artifact("GasProbe").deployed_bytecode)}
        state[to_hex(_REAL)] = {"code": to_hex(await self._code(entry_point))}
        if missing_wei:
            # Exactly the prefund more than it has: the call itself must not see money that is not there.
            account = state.setdefault(to_hex(op.sender), {})
            own = int(account["balance"], 16) if "balance" in account else await self._rpc.get_balance(op.sender)
            account["balance"] = hex(own + missing_wei)
        # The marker deploys nothing: the probe sees the account as it is with its delegation.
        seen = op.replace(factory=None, factory_data=b"") if op.is_delegated else op
        passed_over = op.real_factory and entry_point.ignores_init_code and await self._rpc.get_code(op.sender)
        request = (
            entry_point.pack(seen),
            op_hash,
            bytes(20) if passed_over else sender_creator(entry_point.address),
            execution,
            missing_wei,
            prefund_wei,
            min(op.max_fee_per_gas, head.base_fee_wei + op.max_priority_fee_per_gas),
            self._settings.max_verification_gas,
            self._settings.max_bundle_gas * 9 // 10,
        )
        call = {
            "from": to_hex(self._executor),
            "to": to_hex(entry_point.address),
            "gas": hex(self._settings.simulation_gas),
            "data": to_hex(_PROBE.encode(request)),
        }
        try:
            answer = parse_bytes(await self._rpc.call("eth_call", call, "latest", state), "result")
        except RpcError as error:
            if isinstance(error.data, str):
                raise RejectedByEntryPoint(
                    f"the operation needs more than {self._settings.simulation_gas} gas to be measured: {error.message}"
                ) from error
            raise NodeError(
                f"the node did not run the estimate: {error.message}. It needs eth_call with state overrides"
            ) from error
        measured = _PROBE.decode(answer)[0]
        stage, revert_data, verification, paymaster_verification, call_gas, post_op, data, paymaster_says = measured
        _check_stage(stage, revert_data, op)
        words = sum(map(len, (op.init_code, op.call_data, op.paymaster_and_data, op.signature))) // 32
        verification += VERIFICATION_OVERHEAD[entry_point.version] + VERIFICATION_WORD_GAS * words
        if op.is_delegated and op.factory_data:
            verification += await self._initialisation(op, entry_point, state)
        dummy = ValidationData.parse(data).aggregator == SIG_VALIDATION_FAILED
        limits = {
            "preVerificationGas": pre_verification_gas(
                entry_point,
                with_dummy_fields(op),
                int(authorization is not None),
                other_beneficiary=self._settings.beneficiary is not None,
            )
            + VALIDITY_GAS * ((data != 0) + (paymaster_says != 0)),
            "verificationGasLimit": _with_margin(verification, _DUMMY_MARGIN if dummy else _MARGIN),
            "callGasLimit": max(_with_margin(call_gas), _MIN_CALL_GAS) if op.call_data else 0,
        }
        if op.paymaster is not None:
            limits["paymasterVerificationGasLimit"] = _with_margin(
                paymaster_verification + PAYMASTER_OVERHEAD + VERIFICATION_WORD_GAS * words, _DUMMY_MARGIN
            )
            limits["paymasterPostOpGasLimit"] = _with_margin(post_op, _DUMMY_MARGIN)
        return limits

    async def _initialisation(self, op: UserOperation, entry_point: EntryPoint, state: Mapping[str, Any]) -> int:
        """Gas of the call with the init data that follows the EIP-7702 marker. Its effects are not seen by the rest of the estimate.

        Raises RejectedByEntryPoint when it reverts.
        """
        own = {address: account for address, account in state.items() if address == to_hex(op.sender)}
        call = {
            "from": to_hex(sender_creator(entry_point.address)),
            "to": to_hex(op.sender),
            "data": to_hex(op.factory_data),
        }
        try:
            gas = int(await self._rpc.call("eth_estimateGas", call, "latest", *([own] if own else [])), 16)
        except RpcError as error:
            raise RejectedByEntryPoint(
                f"AA13 the initialisation of the delegated account fails: {error.message}", rule="AA13"
            ) from error
        return gas - TRANSACTION_GAS + DELEGATED_INIT_OVERHEAD


def _check_stage(stage: int, revert_data: bytes, op: UserOperation) -> None:
    """Raise what failed in the probe, if anything did."""
    if stage == 0:
        return
    text = revert_data.decode("ascii", "replace") if revert_data[:2] == b"AA" else reason(revert_data)
    data = {"reason": text, "revertData": to_hex(revert_data[:1024])}
    if stage == 1:
        raise RejectedByEntryPoint(
            text if text.startswith("AA") else f"AA13 the factory did not create sender {to_hex(op.sender)}: {text}",
            data=data,
        )
    if stage == 2:
        raise RejectedByEntryPoint(
            text if text.startswith("AA") else f"AA23 validation of the account reverted: {text}", data=data
        )
    if stage == 3:
        raise RejectedByPaymaster(f"AA33 validation of the paymaster reverted: {text}", data=data)
    if stage == 4:
        raise ExecutionReverted(f"the call reverts: {text}", data=to_hex(revert_data[:4096]))
    raise RejectedByPaymaster(f"AA50 postOp of the paymaster reverted: {text}", data=data)
