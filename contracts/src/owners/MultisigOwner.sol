// SPDX-License-Identifier: MIT
pragma solidity ^0.8.26;

import {IERC7913SignatureVerifier} from "@openzeppelin/contracts/interfaces/IERC7913.sol";
import {OwnerLib} from "../libraries/OwnerLib.sol";

/// @title Several signers as one owner
/// @notice ERC-7913 verifier without storage: who signs, with what weight and how much is needed is the key itself, so it is inside the
/// account's address. Signers are of every kind an account's owner can be, another multisig included.
///
/// key       = threshold (2) || signers, each: weight (2) || length (2) || kind (1) || address (20) || key
/// signature = for each signer that signed, in the key's order: index (1) || length (2) || signature
///
/// The owner has signed when the weights of those whose signatures are valid reach the threshold. One invalid signature, one out of order, or one byte
/// too many spoils it. m of n is weight 1 for each of n and threshold m.
contract MultisigOwner is IERC7913SignatureVerifier {
    /// At most so many signers, as an index is one byte and validation must stay cheap.
    uint256 public constant MAX_SIGNERS = 32;

    /// @inheritdoc IERC7913SignatureVerifier
    function verify(bytes calldata key, bytes32 hash, bytes calldata signature) external view returns (bytes4) {
        if (key.length < 2) return bytes4(0xffffffff);
        uint256 threshold = uint16(bytes2(key));
        uint256 at = 2; // in the key: the signer with number `next`
        uint256 next = 0;
        uint256 weight = 0;
        while (signature.length != 0) {
            if (signature.length < 3) return bytes4(0xffffffff);
            uint256 index = uint8(signature[0]);
            uint256 length = uint16(bytes2(signature[1:3]));
            if (index < next || index >= MAX_SIGNERS || signature.length < 3 + length) return bytes4(0xffffffff);
            while (true) {
                (bool found, uint256 ofSigner, bytes calldata signer, uint256 end) = _signerAt(key, at);
                if (!found) return bytes4(0xffffffff);
                at = end;
                if (next++ != index) continue;
                if (!_signed(signer, hash, signature[3:3 + length])) return bytes4(0xffffffff);
                weight += ofSigner;
                break;
            }
            signature = signature[3 + length:];
        }
        return threshold != 0 && weight >= threshold ? IERC7913SignatureVerifier.verify.selector : bytes4(0xffffffff);
    }

    /// @notice Whether a key can ever sign: well-formed, 1 to 32 distinct signers of known kinds with weight, and a threshold that they reach together.
    function isSound(bytes calldata key) external view returns (bool) {
        if (key.length < 2) return false;
        uint256 total = 0;
        uint256 count = 0;
        uint256 at = 2;
        bytes32[] memory seen = new bytes32[](MAX_SIGNERS);
        while (at < key.length) {
            (bool found, uint256 weight, bytes calldata signer, uint256 end) = _signerAt(key, at);
            if (!found || weight == 0 || count == MAX_SIGNERS || !_canSign(signer)) return false;
            for (uint256 i = 0; i < count; ++i) {
                if (seen[i] == keccak256(signer)) return false;
            }
            seen[count++] = keccak256(signer);
            (total, at) = (total + weight, end);
        }
        uint256 threshold = uint16(bytes2(key));
        return threshold != 0 && threshold <= total;
    }

    function _canSign(bytes calldata signer) private view returns (bool) {
        uint8 kind = uint8(signer[0]);
        address where = address(bytes20(signer[1:21]));
        return where != address(0) && kind <= OwnerLib.KIND_ERC1271
            && (kind == OwnerLib.KIND_ERC7913 ? signer.length > 21 : signer.length == 21)
            && (kind == OwnerLib.KIND_ECDSA || where.code.length != 0);
    }

    function _signed(bytes calldata signer, bytes32 hash, bytes calldata signature) private view returns (bool) {
        uint8 kind = uint8(signer[0]);
        address where = address(bytes20(signer[1:21]));
        if (kind == OwnerLib.KIND_ECDSA) return OwnerLib.isValidEcdsa(where, hash, signature);
        return kind <= OwnerLib.KIND_ERC1271 && OwnerLib.isValid(kind, where, signer[21:], hash, signature);
    }

    /// @dev The signer that begins at `at` in the key, and where the next one does.
    function _signerAt(bytes calldata key, uint256 at)
        private
        pure
        returns (bool found, uint256 weight, bytes calldata signer, uint256 end)
    {
        signer = key[0:0];
        if (key.length < at + 4) return (false, 0, signer, 0);
        end = at + 4 + uint16(bytes2(key[at + 2:at + 4]));
        if (key.length < end || end < at + 25) return (false, 0, signer, 0);
        return (true, uint16(bytes2(key[at:at + 2])), key[at + 4:end], end);
    }
}
