// SPDX-License-Identifier: MIT
pragma solidity ^0.8.26;

/// The cheat codes of halmos that our proofs use.
interface Svm {
    function createUint(uint256 bits, string memory name) external pure returns (uint256);
    function createUint256(string memory name) external pure returns (uint256);
    function createBytes32(string memory name) external pure returns (bytes32);
    function createAddress(string memory name) external pure returns (address);
    function createBytes(uint256 size, string memory name) external pure returns (bytes memory);
    function createCalldata(string memory contractName) external pure returns (bytes memory);
}

interface HalmosVm {
    function assume(bool condition) external pure;
    function warp(uint256 timestamp) external;
    function prank(address sender) external;
    function store(address account, bytes32 slot, bytes32 word) external;
    function load(address account, bytes32 slot) external view returns (bytes32);
}

/// What a proof starts from. A proof is a function `check_...`; it fails where an `assert` can fail, and a path that reverts proves nothing.
abstract contract Symbolic {
    Svm internal constant svm = Svm(address(uint160(uint256(keccak256("svm cheat code")))));
    HalmosVm internal constant vm = HalmosVm(address(uint160(uint256(keccak256("hevm cheat code")))));
}
