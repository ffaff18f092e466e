// SPDX-License-Identifier: MIT
pragma solidity ^0.8.26;

import {IERC7579Hook, IERC7579Module} from "@openzeppelin/contracts/interfaces/draft-IERC7579.sol";
import {IERC7579Execution} from "@openzeppelin/contracts/interfaces/draft-IERC7579.sol";
import {IERC1271} from "@openzeppelin/contracts/interfaces/IERC1271.sol";
import {IERC7913SignatureVerifier} from "@openzeppelin/contracts/interfaces/IERC7913.sol";

/// Counts its calls.
contract Target {
    uint256 public calls;
    bytes public lastData;
    uint256 public lastValue;

    error Refused();

    function hit(uint256 a, address b) external payable returns (uint256) {
        (lastData, lastValue) = (abi.encode(a, b), msg.value);
        return ++calls;
    }

    function refuse() external pure {
        revert Refused();
    }

    receive() external payable {
        ++calls;
    }
}

/// A module of any type that does nothing by itself and can act as executor.
contract PlainModule is IERC7579Module {
    uint256 public installs;
    uint256 public uninstalls;

    function onInstall(bytes calldata) external virtual {
        ++installs;
    }

    function onUninstall(bytes calldata) external virtual {
        ++uninstalls;
    }

    function isModuleType(uint256) external pure returns (bool) {
        return true;
    }

    function act(address account, bytes32 mode, bytes calldata data) external returns (bytes[] memory) {
        return IERC7579Execution(account).executeFromExecutor(mode, data);
    }

    function validateUserOp(bytes calldata) external pure {}

    fallback() external payable {}

    receive() external payable {}
}

/// Says that it needs an attestation, and denies it when asked a second time.
contract FickleValidator is PlainModule {
    bool public denies;

    function requiresAttestation() external view returns (bool) {
        return !denies;
    }

    function deny() external {
        denies = true;
    }
}

/// A hook that can be told to veto everything.
contract VetoHook is IERC7579Hook {
    bool public veto;
    uint256 public checks;

    error Vetoed();

    function setVeto(bool on) external {
        veto = on;
    }

    function preCheck(address, uint256, bytes calldata) external returns (bytes memory) {
        if (veto) revert Vetoed();
        ++checks;
        return "";
    }

    function postCheck(bytes calldata) external {}

    function onInstall(bytes calldata) external {}

    function onUninstall(bytes calldata) external view {
        if (veto) revert Vetoed();
    }

    function isModuleType(uint256 moduleTypeId) external pure returns (bool) {
        return moduleTypeId == 4;
    }
}

/// Burns all gas it is given when it is uninstalled, or answers with a huge blob.
contract HostileModule is PlainModule {
    bool public bomb;

    constructor(bool bomb_) {
        bomb = bomb_;
    }

    function onUninstall(bytes calldata) external override {
        if (bomb) {
            assembly {
                return(0, 1000000)
            }
        }
        while (true) ++uninstalls;
    }
}

/// ERC-1271 owner: accepts what is signed by `approve`.
contract ContractOwner is IERC1271 {
    bytes32 public approved;

    function approve(bytes32 hash) external {
        approved = hash;
    }

    function isValidSignature(bytes32 hash, bytes calldata) external view returns (bytes4) {
        return hash == approved ? this.isValidSignature.selector : bytes4(0xffffffff);
    }
}

/// ERC-7913 verifier whose signature is keccak(key || hash).
contract KeccakVerifier is IERC7913SignatureVerifier {
    function verify(bytes calldata key, bytes32 hash, bytes calldata signature) external pure returns (bytes4) {
        bool valid = signature.length == 32 && bytes32(signature) == keccak256(abi.encodePacked(key, hash));
        return valid ? this.verify.selector : bytes4(0xffffffff);
    }
}
