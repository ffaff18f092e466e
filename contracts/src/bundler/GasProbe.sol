// SPDX-License-Identifier: MIT
pragma solidity 0.8.30;

import {PackedUserOperation} from "@openzeppelin/contracts/interfaces/IERC4337.sol";

interface IAccountLike {
    function validateUserOp(PackedUserOperation calldata op, bytes32 userOpHash, uint256 missingFunds)
        external
        returns (uint256);
}

interface IPaymasterLike {
    function validatePaymasterUserOp(PackedUserOperation calldata op, bytes32 userOpHash, uint256 maxCost)
        external
        returns (bytes memory context, uint256 validationData);

    function postOp(uint8 mode, bytes calldata context, uint256 actualGasCost, uint256 feePerGas) external;
}

interface ISenderCreatorLike {
    function createSender(bytes calldata initCode) external returns (address);
}

/// @title GasProbe: the gas limits one operation really needs, on v0.7, v0.8 and v0.9.
/// @notice Never deployed. The bundler places this code at the entry point's address by a state override of eth_call, and the
/// entry point's own code at `REAL`, to which everything else is delegated: accounts, factories and paymasters see the real
/// entry point with its real storage, and are called by it in the real order within one transaction, so that warm and cold
/// slots are as they will be. Signatures may be dummies: a failed one is reported, not refused.
///
/// A limit is found by running the step with plenty of gas, then with just that much and a little more each time, until it
/// does the same (same answer, same gas). That is more than the gas used wherever a nested call keeps back 1/64.
contract GasProbe {
    struct Request {
        PackedUserOperation op;
        bytes32 userOpHash;
        address senderCreator; // zero: the initCode is passed over, as v0.9 does when the account exists
        bytes execution; // what the account is called with
        uint256 missingFunds; // wei the account must bring
        uint256 maxCost; // wei, for the paymaster
        uint256 feePerGas; // wei
        uint256 verificationCap; // gas
        uint256 callCap; // gas
    }

    struct Result {
        uint256 stage; // 0 all done; 1 factory, 2 account, 3 paymaster, 4 call, 5 postOp failed, with `reason`
        bytes reason;
        uint256 verificationGas; // factory, validation, deposit and nonce
        uint256 paymasterVerificationGas;
        uint256 callGas;
        uint256 postOpGas;
        uint256 validationData;
        uint256 paymasterValidationData;
    }

    /// What a trial answers by reverting, so that it leaves no trace in the state.
    error Trial(bool ok, uint256 used, bytes32 answer);

    address private constant REAL = 0x00000000000000000000000000000000000Ea1eD;
    uint256 private constant STEP = 32; // a trial gives 1/32 more than the one before
    uint256 private constant TRIALS = 24;

    receive() external payable {
        _delegate();
    }

    fallback() external payable {
        _delegate();
    }

    function _delegate() private {
        assembly ("memory-safe") {
            calldatacopy(0, 0, calldatasize())
            let ok := delegatecall(gas(), REAL, 0, calldatasize(), 0, 0)
            returndatacopy(0, 0, returndatasize())
            if iszero(ok) { revert(0, returndatasize()) }
            return(0, returndatasize())
        }
    }

    /// @notice Measure one operation. Reverts only if the gas of the whole call does not suffice.
    function probe(Request calldata request) external returns (Result memory result) {
        uint256 cap = request.verificationCap;
        require(REAL.code.length != 0, "GasProbe: no entry point"); // and warm it: the real one is, being called
        result.verificationGas = _search(abi.encodeCall(this.tryVerification, (request, cap)), cap, 36);
        (result.stage, result.reason, result.validationData) = _verify(request, cap);
        if (result.stage != 0) return result;

        bytes memory context;
        address paymaster;
        if (request.op.paymasterAndData.length >= 20) {
            paymaster = address(bytes20(request.op.paymasterAndData[:20]));
            bytes memory data = abi.encodeCall(
                IPaymasterLike.validatePaymasterUserOp, (request.op, request.userOpHash, request.maxCost)
            );
            bytes memory answer;
            (result.stage, result.paymasterVerificationGas, answer) = _measure(paymaster, data, cap, 3);
            if (result.stage == 0 && (paymaster.code.length == 0 || answer.length < 96)) result.stage = 3;
            if (result.stage != 0) {
                result.reason = answer;
                return result;
            }
            (context, result.paymasterValidationData) = abi.decode(answer, (bytes, uint256));
        }
        if (request.execution.length != 0) {
            _announce(request.userOpHash);
            (result.stage, result.callGas, result.reason) =
                _measure(request.op.sender, request.execution, request.callCap, 4);
            if (result.stage != 0) return result;
        }
        if (context.length != 0) {
            bytes memory data = abi.encodeCall(IPaymasterLike.postOp, (0, context, request.maxCost, request.feePerGas));
            (result.stage, result.postOpGas, result.reason) = _measure(paymaster, data, cap, 5);
            if (result.stage != 0) return result;
        }
        result.reason = "";
    }

    /// Find the limit of one call, then make it for good. `stage` is `failure` if it fails, else 0.
    function _measure(address target, bytes memory data, uint256 cap, uint256 failure)
        private
        returns (uint256 stage, uint256 limit, bytes memory answer)
    {
        limit = _search(abi.encodeCall(this.tryCall, (target, data, cap)), cap, 68);
        bool ok;
        (ok, answer) = target.call{gas: cap}(data);
        if (!ok) stage = failure;
    }

    /// Deploy, validate, take the deposit and the nonce, as the entry point does in this order.
    function _verify(Request calldata request, uint256 limit)
        private
        returns (uint256 stage, bytes memory reason, uint256 validationData)
    {
        address sender = request.op.sender;
        bool ok;
        if (request.op.initCode.length != 0 && request.senderCreator != address(0)) {
            if (sender.code.length != 0) return (1, "AA10 sender already constructed", 0);
            (ok, reason) = request.senderCreator.call{gas: limit}(
                abi.encodeCall(ISenderCreatorLike.createSender, (request.op.initCode))
            );
            if (!ok || sender.code.length == 0) return (1, reason, 0);
        }
        if (sender.code.length == 0) return (2, "AA20 account not deployed", 0);
        (ok, reason) = sender.call{gas: limit}(
            abi.encodeCall(IAccountLike.validateUserOp, (request.op, request.userOpHash, request.missingFunds))
        );
        if (!ok || reason.length < 32) return (2, reason, 0);
        validationData = abi.decode(reason, (uint256));
        reason = "";
        _touch(sender, uint192(request.op.nonce >> 64), request.op.paymasterAndData.length == 0);
    }

    /// The entry point's own writes during validation: deposits (slot 0) and nonceSequenceNumber (slot 1), in all three versions.
    /// The deposit is made to change and changed back, at the price of one change.
    function _touch(address sender, uint192 key, bool paysItself) private {
        assembly ("memory-safe") {
            mstore(0, sender)
            if paysItself {
                mstore(32, 0)
                let slot := keccak256(0, 64)
                sstore(slot, xor(sload(slot), 1))
            }
            mstore(32, 1)
            let outer := keccak256(0, 64)
            mstore(0, key)
            mstore(32, outer)
            let slot := keccak256(0, 64)
            sstore(slot, add(sload(slot), 1))
        }
    }

    /// What v0.9's getCurrentUserOpHash() answers while the operation runs: its transient slot 0, which no other version uses.
    function _announce(bytes32 userOpHash) private {
        assembly ("memory-safe") {
            tstore(0, userOpHash)
        }
    }

    /// @notice One trial of the verification; always reverts with Trial.
    function tryVerification(Request calldata request, uint256 limit) external {
        uint256 before = gasleft();
        (uint256 stage,, uint256 data) = _verify(request, limit);
        uint256 used = before - gasleft();
        revert Trial(stage == 0 && used <= limit, used, keccak256(abi.encode(stage, data)));
    }

    /// @notice One trial of a call from the entry point; always reverts with Trial.
    function tryCall(address target, bytes calldata data, uint256 limit) external {
        bytes memory input = data;
        uint256 before = gasleft();
        (bool ok, bytes memory answer) = target.call{gas: limit}(input);
        revert Trial(ok, before - gasleft(), keccak256(answer));
    }

    /// Run `attempt` at `cap`, then at rising limits until it does the same. `limitAt` is the limit's place in the call data.
    function _search(bytes memory attempt, uint256 cap, uint256 limitAt) private returns (uint256 limit) {
        (bool ok, uint256 used, bytes32 answer) = _attempt(attempt, limitAt, cap);
        if (!ok) return 0;
        limit = used;
        uint256 succeeded;
        for (uint256 i = 0; i < TRIALS && limit < cap; ++i) {
            (bool again, uint256 usedNow, bytes32 answerNow) = _attempt(attempt, limitAt, limit);
            if (again) {
                if (answerNow == answer && usedNow == used) return limit;
                if (succeeded == 0) succeeded = limit;
            }
            limit += limit / STEP + 500;
        }
        // It never behaved exactly alike: its cost depends on the gas it is given. The first success, with room, must do.
        return succeeded == 0 ? (limit < cap ? limit : cap) : succeeded + succeeded / 4;
    }

    function _attempt(bytes memory attempt, uint256 limitAt, uint256 limit)
        private
        returns (bool ok, uint256 used, bytes32 answer)
    {
        assembly ("memory-safe") {
            mstore(add(add(attempt, 0x20), limitAt), limit)
        }
        (, bytes memory reverted) = address(this).call(attempt);
        require(reverted.length == 100, "GasProbe: out of gas");
        assembly ("memory-safe") {
            ok := mload(add(reverted, 0x24))
            used := mload(add(reverted, 0x44))
            answer := mload(add(reverted, 0x64))
        }
    }
}
