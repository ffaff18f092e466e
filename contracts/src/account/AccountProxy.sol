// SPDX-License-Identifier: MIT
pragma solidity ^0.8.28;

/// @title The code of an account: a proxy that carries what the account was born with
/// @notice A risk account is a UUPS proxy (ERC-1967) whose first implementation, owner, prefund caps and delay stand in its code, where a
/// byte costs 200 gas once and nothing to read, instead of in storage slots at 22,100 gas each and 2,100 gas per operation. What changes
/// later is written to storage, and a flag in the state word says so.
///
/// While the top byte of the state word is zero the proxy calls the implementation in its code; the first upgrade writes the ERC-1967
/// slot and sets that byte. So an operation reads one cold slot for proxy and state together. Runtime code, then the birth data:
///
/// ```
/// 00 CALLDATASIZE PUSH0 PUSH0 CALLDATACOPY            the call, from memory 0
/// 04 PUSH0 PUSH0 CALLDATASIZE PUSH0
/// 08 PUSH32 state word slot, SLOAD, PUSH1 248, SHR    upgraded?
/// 2d PUSH1 56, JUMPI
/// 30 PUSH20 implementation
/// 45 JUMPDEST GAS DELEGATECALL
/// 48 RETURNDATASIZE PUSH0 PUSH0 RETURNDATACOPY
/// 4c PUSH1 52, JUMPI, RETURNDATASIZE PUSH0 REVERT
/// 52 JUMPDEST RETURNDATASIZE PUSH0 RETURN
/// 56 JUMPDEST PUSH32 ERC-1967 slot, SLOAD, PUSH1 45, JUMP
/// 7c birth data: kind (1) || owner (20) || ACTIVE cap (11) || REDUCE_ONLY cap (11) || FROZEN cap (11) || admin delay (6) || owner key
/// ```
library AccountProxy {
    /// Length of the runtime code, where the birth data begins.
    uint256 internal constant BIRTH_OFFSET = 0x7c;
    /// Birth data before the owner key.
    uint256 internal constant BIRTH_LENGTH = 60;
    /// Bit of the birth's kind byte: modules or an authority are to be set up by `initialize`, once.
    uint8 internal constant UNFINISHED = 0x80;

    bytes32 private constant STATE_WORD_SLOT = 0x2b49b75317ffc1021ca7da4ca3423bf8403e18b223e63e6bc7abe8f39a5ed700;
    bytes32 private constant ERC1967_SLOT = 0x360894a13ba1a3210667c828492db98dca3e2076cc3735a920a3ca505d382bbc;

    /// @dev Creation code of a proxy to `implementation` with `birth` behind its runtime code.
    function creationCode(address implementation, bytes memory birth) internal pure returns (bytes memory) {
        // PUSH2 length DUP1 PUSH1 10 PUSH0 CODECOPY PUSH0 RETURN
        return abi.encodePacked(
            hex"61",
            uint16(BIRTH_OFFSET + birth.length),
            hex"80600a5f395ff3",
            hex"365f5f375f5f365f7f",
            STATE_WORD_SLOT,
            hex"5460f81c60565773",
            implementation,
            hex"5b5af43d5f5f3e6052573d5ffd5b3d5ff35b7f",
            ERC1967_SLOT,
            hex"54604556",
            birth
        );
    }

    /// @dev A prefund cap as it is kept: 2^88 - 1 wei is more than all ether, so what is larger means no cap.
    function saturate(uint128 cap) internal pure returns (uint88) {
        return cap > type(uint88).max ? type(uint88).max : uint88(cap);
    }

    /// @dev The 32 bytes of this account's birth data at `offset`; zeros behind its end, and for an account with other code.
    function birthWord(uint256 offset) internal view returns (uint256 word) {
        assembly ("memory-safe") {
            extcodecopy(address(), 0x00, add(BIRTH_OFFSET, offset), 0x20)
            word := mload(0x00)
        }
    }

    /// @dev The owner key this account was born with.
    function birthKey() internal view returns (bytes memory key) {
        uint256 size = address(this).code.length;
        uint256 begin = BIRTH_OFFSET + BIRTH_LENGTH;
        if (size <= begin) return key;
        key = new bytes(size - begin);
        assembly ("memory-safe") {
            extcodecopy(address(), add(key, 0x20), begin, mload(key))
        }
    }

    /// @dev Whether this account's code is an EIP-7702 delegation: its root key can act past every rule of the account.
    function isDelegated() internal view returns (bool delegated) {
        assembly ("memory-safe") {
            if eq(extcodesize(address()), 23) {
                extcodecopy(address(), 0x00, 0, 0x20)
                delegated := eq(shr(232, mload(0x00)), 0xef0100)
            }
        }
    }
}
