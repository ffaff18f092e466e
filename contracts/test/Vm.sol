// SPDX-License-Identifier: MIT
pragma solidity ^0.8.26;

/// The cheat codes of forge that our tests use.
interface Vm {
    struct Log {
        bytes32[] topics;
        bytes data;
        address emitter;
    }

    function addr(uint256 key) external pure returns (address);
    function sign(uint256 key, bytes32 digest) external pure returns (uint8 v, bytes32 r, bytes32 s);
    function signP256(uint256 key, bytes32 digest) external pure returns (bytes32 r, bytes32 s);
    function publicKeyP256(uint256 key) external pure returns (uint256 x, uint256 y);
    function prank(address sender) external;
    function prank(address sender, address origin) external;
    function startPrank(address sender) external;
    function stopPrank() external;
    function deal(address account, uint256 balance) external;
    function etch(address account, bytes calldata code) external;
    function warp(uint256 timestamp) external;
    function getBlockTimestamp() external view returns (uint256);
    function chainId(uint256 id) external;
    function txGasPrice(uint256 price) external;
    function assume(bool condition) external pure;
    function expectRevert() external;
    function expectRevert(bytes4 selector) external;
    function expectRevert(bytes calldata data) external;
    function expectPartialRevert(bytes4 selector) external;
    function expectEmit() external;
    function load(address account, bytes32 slot) external view returns (bytes32);
    function store(address account, bytes32 slot, bytes32 value) external;
    function record() external;
    function accesses(address account) external returns (bytes32[] memory reads, bytes32[] memory writes);
    function recordLogs() external;
    function getRecordedLogs() external returns (Log[] memory);
    function startMappingRecording() external;
    function stopMappingRecording() external;
    function getMappingKeyAndParentOf(address target, bytes32 slot)
        external
        returns (bool found, bytes32 key, bytes32 parent);
    function label(address account, string calldata name) external;
    function snapshotGasLastCall(string calldata group, string calldata name) external returns (uint256);
    function snapshotValue(string calldata group, string calldata name, uint256 value) external;
    function cool(address account) external;
    function snapshotState() external returns (uint256);
    function revertToState(uint256 id) external returns (bool);
}

/// Assertions of our tests; a failure says what was got and what was wanted.
abstract contract Assertions {
    error NotEqual(string what, bytes32 got, bytes32 wanted);
    error NotTrue(string what);

    Vm internal constant vm = Vm(address(uint160(uint256(keccak256("hevm cheat code")))));

    function isTrue(bool condition, string memory what) internal pure {
        if (!condition) revert NotTrue(what);
    }

    function eq(uint256 got, uint256 wanted, string memory what) internal pure {
        if (got != wanted) revert NotEqual(what, bytes32(got), bytes32(wanted));
    }

    function eq(int256 got, int256 wanted, string memory what) internal pure {
        if (got != wanted) revert NotEqual(what, bytes32(uint256(got)), bytes32(uint256(wanted)));
    }

    function eq(bytes32 got, bytes32 wanted, string memory what) internal pure {
        if (got != wanted) revert NotEqual(what, got, wanted);
    }

    function eq(address got, address wanted, string memory what) internal pure {
        eq(bytes32(uint256(uint160(got))), bytes32(uint256(uint160(wanted))), what);
    }

    function eq(bytes memory got, bytes memory wanted, string memory what) internal pure {
        eq(keccak256(got), keccak256(wanted), what);
    }

    /// The time now. The optimiser takes `block.timestamp` for constant and would move a read across `warp`.
    function _now() internal view returns (uint256) {
        return vm.getBlockTimestamp();
    }

    /// Map `value` into [low, high].
    function bound(uint256 value, uint256 low, uint256 high) internal pure returns (uint256) {
        return low + value % (high - low + 1);
    }
}
