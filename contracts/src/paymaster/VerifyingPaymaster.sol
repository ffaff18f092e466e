// SPDX-License-Identifier: MIT
pragma solidity ^0.8.26;

import {Ownable} from "@openzeppelin/contracts/access/Ownable.sol";
import {Ownable2Step} from "@openzeppelin/contracts/access/Ownable2Step.sol";
import {Paymaster} from "@openzeppelin/contracts/account/paymaster/Paymaster.sol";
import {ERC4337Utils} from "@openzeppelin/contracts/account/utils/ERC4337Utils.sol";
import {IEntryPoint, PackedUserOperation} from "@openzeppelin/contracts/interfaces/IERC4337.sol";
import {EIP712} from "@openzeppelin/contracts/utils/cryptography/EIP712.sol";
import {IVerifyingPaymaster} from "../interfaces/IVerifyingPaymaster.sol";
import {OwnerLib} from "../libraries/OwnerLib.sol";

/// @title Sponsorship by signature
/// @notice Pays for what one of its signers signed, and for nothing else. Deposit and stake belong to the owner; anyone may add to the
/// deposit. Validation reads the paymaster's own storage (`isSigner`), so ERC-7562 [STO-033] wants it staked.
contract VerifyingPaymaster is IVerifyingPaymaster, Paymaster, EIP712, Ownable2Step {
    error InvalidSigner(address signer);

    bytes32 private constant SPONSORSHIP_TYPEHASH = keccak256(
        "Sponsorship(address sender,uint256 nonce,bytes32 initCodeHash,bytes32 callDataHash,bytes32 accountGasLimits,"
        "uint256 preVerificationGas,bytes32 gasFees,uint256 paymasterGasLimits,uint48 validUntil,uint48 validAfter)"
    );
    uint256 private constant WINDOW_LENGTH = 6 + 6;
    uint256 private constant DATA_LENGTH = WINDOW_LENGTH + 65;
    /// Length (2) and magic (8) after a paymaster's signature on entry point v0.9.
    uint256 private constant SUFFIX_LENGTH = 2 + 8;

    IEntryPoint private immutable ENTRY_POINT;

    /// @inheritdoc IVerifyingPaymaster
    mapping(address signer => bool) public isSigner;

    /// @param signer the first signer.
    constructor(IEntryPoint entryPoint_, address owner_, address signer)
        EIP712("Seawall VerifyingPaymaster", "1")
        Ownable(owner_)
    {
        ENTRY_POINT = entryPoint_;
        _setSigner(signer, true);
    }

    /// @inheritdoc Paymaster
    function entryPoint() public view override returns (IEntryPoint) {
        return ENTRY_POINT;
    }

    /// @inheritdoc IVerifyingPaymaster
    function setSigner(address signer, bool enabled) external onlyOwner {
        _setSigner(signer, enabled);
    }

    /// @notice Add the sent value to the deposit that operations are paid from.
    function deposit() external payable {
        _deposit(msg.value);
    }

    /// @notice Take from the deposit.
    function withdraw(address payable to, uint256 value) external onlyOwner {
        _withdraw(to, value);
    }

    /// @notice Lock the sent value as stake for at least `unstakeDelaySec`.
    function addStake(uint32 unstakeDelaySec) external payable onlyOwner {
        _addStake(msg.value, unstakeDelaySec);
    }

    /// @notice Begin to withdraw the stake.
    function unlockStake() external onlyOwner {
        _unlockStake();
    }

    /// @notice Withdraw the unlocked stake.
    function withdrawStake(address payable to) external onlyOwner {
        _withdrawStake(to);
    }

    /// @notice What a signer signs for `userOp` (its paymaster fields but the signature must be final).
    function sponsorshipHash(PackedUserOperation calldata userOp, uint48 validUntil, uint48 validAfter)
        public
        view
        returns (bytes32)
    {
        uint256 paymasterGasLimits = ERC4337Utils.paymasterVerificationGasLimit(userOp) << 128
            | ERC4337Utils.paymasterPostOpGasLimit(userOp);
        return _hashTypedDataV4(
            keccak256(
                abi.encode(
                    SPONSORSHIP_TYPEHASH,
                    userOp.sender,
                    userOp.nonce,
                    keccak256(userOp.initCode),
                    keccak256(userOp.callData),
                    userOp.accountGasLimits,
                    userOp.preVerificationGas,
                    userOp.gasFees,
                    paymasterGasLimits,
                    validUntil,
                    validAfter
                )
            )
        );
    }

    /// @dev No context, so `postOp` is never called.
    function _validatePaymasterUserOp(PackedUserOperation calldata userOp, bytes32, uint256)
        internal
        view
        override
        returns (bytes memory, uint256)
    {
        bytes calldata data = userOp.paymasterAndData[52:];
        bytes calldata signature =
            data.length == DATA_LENGTH ? data[WINDOW_LENGTH:] : ERC4337Utils.paymasterSignature(userOp);
        bool apart = data.length == DATA_LENGTH + SUFFIX_LENGTH && signature.length == DATA_LENGTH - WINDOW_LENGTH;
        if (data.length != DATA_LENGTH && !apart) return ("", ERC4337Utils.SIG_VALIDATION_FAILED);
        (uint48 validUntil, uint48 validAfter) = (uint48(bytes6(data[0:6])), uint48(bytes6(data[6:12])));
        // The top bit would make a time a block number on entry point v0.9.
        if ((validUntil | validAfter) & ERC4337Utils.BLOCK_RANGE_FLAG != 0) {
            return ("", ERC4337Utils.SIG_VALIDATION_FAILED);
        }
        address signer = OwnerLib.recover(sponsorshipHash(userOp, validUntil, validAfter), signature);
        return ("", ERC4337Utils.packValidationData(isSigner[signer], validAfter, validUntil));
    }

    function _setSigner(address signer, bool enabled) private {
        if (signer == address(0)) revert InvalidSigner(signer);
        isSigner[signer] = enabled;
        emit SignerSet(signer, enabled);
    }
}
