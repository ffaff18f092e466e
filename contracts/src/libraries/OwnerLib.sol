// SPDX-License-Identifier: MIT
pragma solidity ^0.8.26;

import {SignatureChecker} from "@openzeppelin/contracts/utils/cryptography/SignatureChecker.sol";
import {IERC7913SignatureVerifier} from "@openzeppelin/contracts/interfaces/IERC7913.sol";
import {AccountProxy} from "../account/AccountProxy.sol";

/// @title The kinds of owner and how each signs
/// @notice Encoding of an owner: kind (1 byte) || address (20 bytes) || key (ERC-7913 only).
library OwnerLib {
    uint8 internal constant KIND_ECDSA = 0;
    uint8 internal constant KIND_ERC7913 = 1;
    uint8 internal constant KIND_ERC1271 = 2;

    /// The bytes are no owner: unknown kind, wrong length, zero address, or a verifier or contract without code.
    error InvalidOwner(bytes owner);

    /// @dev Split an owner and refuse what could never sign.
    function decode(bytes memory owner) internal view returns (uint8 kind, address signer, bytes memory key) {
        if (owner.length < 21) revert InvalidOwner(owner);
        kind = uint8(owner[0]);
        assembly ("memory-safe") {
            signer := shr(96, mload(add(owner, 0x21)))
        }
        key = new bytes(owner.length - 21);
        for (uint256 i = 0; i < key.length; ++i) {
            key[i] = owner[i + 21];
        }
        // An EIP-7702 account may keep its own key as owner; a contract has none.
        bool self = signer == address(this) && !(kind == KIND_ECDSA && AccountProxy.isDelegated());
        bool sound = signer != address(0) && !self && kind <= KIND_ERC1271
            && (kind == KIND_ERC7913 ? key.length > 0 : key.length == 0)
            && (kind == KIND_ECDSA || signer.code.length > 0);
        if (!sound) revert InvalidOwner(owner);
    }

    /// @dev The secp256k1 key that signed `hash`, zero for a malformed or malleable signature. The same answers as
    /// `ECDSA.tryRecoverCalldata`, which a fuzz test compares; every operation comes through here.
    function recover(bytes32 hash, bytes calldata signature) internal view returns (address signer) {
        if (signature.length != 65) return address(0);
        assembly ("memory-safe") {
            let at := mload(0x40)
            mstore(at, hash)
            mstore(add(at, 0x20), byte(0, calldataload(add(signature.offset, 0x40))))
            calldatacopy(add(at, 0x40), signature.offset, 0x40)
            // s in the lower half of the order; the precompile answers nothing when v or r cannot be
            if iszero(gt(mload(add(at, 0x60)), 0x7FFFFFFFFFFFFFFFFFFFFFFFFFFFFFFF5D576E7357A4501DDFE92F46681B20A0)) {
                if staticcall(gas(), 1, at, 0x80, 0x00, 0x20) {
                    signer := mul(mload(0x00), eq(returndatasize(), 0x20))
                }
            }
        }
    }

    /// @dev Whether `signature` over `hash` is that of a secp256k1 key. Never touches the signer's account, which may have no code
    /// (ERC-7562 OP-041) or delegate anywhere (EIP-7702).
    function isValidEcdsa(address signer, bytes32 hash, bytes calldata signature) internal view returns (bool) {
        return signer != address(0) && recover(hash, signature) == signer;
    }

    /// @dev Whether `signature` over `hash` is the owner's. `key` is used by ERC-7913 owners only.
    function isValid(uint8 kind, address signer, bytes memory key, bytes32 hash, bytes calldata signature)
        internal
        view
        returns (bool)
    {
        if (kind == KIND_ECDSA) return isValidEcdsa(signer, hash, signature);
        if (kind == KIND_ERC1271) return SignatureChecker.isValidERC1271SignatureNowCalldata(signer, hash, signature);
        (bool success, bytes memory result) =
            signer.staticcall(abi.encodeCall(IERC7913SignatureVerifier.verify, (key, hash, signature)));
        return success && result.length == 32
            && abi.decode(result, (bytes32)) == bytes32(IERC7913SignatureVerifier.verify.selector);
    }
}
