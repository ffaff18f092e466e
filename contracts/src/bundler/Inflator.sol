// SPDX-License-Identifier: MIT
pragma solidity 0.8.30;

/// @title Inflator: unpacks a bundle and hands it to the entry point.
/// @notice For rollups that charge for a transaction's bytes. Takes call data without a selector, written by bundler/deflate.py:
///
///     head    tag (1): 0x07 or 0x08 for the entry point v0.7 or v0.8, 0x00 for the 20-byte address behind the tag; bit 0x40 set:
///             a beneficiary of 20 bytes follows, else it is the caller
///     tokens  00..7f  that many + 1 literal bytes follow
///             80..bf  that many (low 6 bits) + 1 zero bytes
///             c0..df  copy (low 5 bits) + 4 bytes that begin the next two bytes' number before the end of what was written
///             e0..ff  copy (low 5 bits) + 4 bytes of the dictionary, from the place that the next two bytes name
///
/// What the tokens say is, for the number of operations (a word) and each operation in turn: sender (20), then as words nonce,
/// verificationGasLimit, callGasLimit, preVerificationGas, maxPriorityFeePerGas, maxFeePerGas, then initCode, callData,
/// paymasterAndData and signature, each as a word for its length and its bytes. A word is a byte n of at most 32 and n bytes,
/// the highest first.
///
/// Anybody may call it with anything: it keeps no state, takes and holds no money, and approves nothing. What the entry point
/// reverts with, it reverts with. The entry point v0.9 listens to callers without code only.
contract Inflator {
    /// The input is not of this form.
    error Malformed();

    bytes4 private constant HANDLE_OPS = 0x765e827f;
    address private constant V07 = 0x0000000071727De22E5E9d8BAf0edAc6f37da032;
    address private constant V08 = 0x4337084D9E255Ff0702461CF8895CE9E3b5Ff108;

    /// @notice The contract whose code, after a STOP, is the dictionary.
    address public immutable words;

    /// @param dictionary At most 24,575 bytes that operations often hold; may be empty.
    constructor(bytes memory dictionary) {
        // push2 size+1, dup1, push1 10, push0, codecopy, push0, return | stop, dictionary
        bytes memory code = abi.encodePacked(hex"61", uint16(dictionary.length + 1), hex"80600a5f395ff300", dictionary);
        address made;
        assembly ("memory-safe") {
            made := create(0, add(code, 32), mload(code))
        }
        require(made.code.length == dictionary.length + 1, Malformed());
        words = made;
    }

    /// @notice Unpack and call `handleOps`.
    fallback() external {
        if (msg.data.length == 0) revert Malformed();
        uint8 tag = uint8(msg.data[0]);
        uint256 at = 1;
        address entryPoint;
        address beneficiary = msg.sender;
        if (tag & 0x3f == 7) {
            entryPoint = V07;
        } else if (tag & 0x3f == 8) {
            entryPoint = V08;
        } else {
            entryPoint = _address(at);
            at += 20;
        }
        if (tag & 0x40 != 0) {
            beneficiary = _address(at);
            at += 20;
        }
        if (tag & 0x80 != 0 || (tag & 0x3f != 0 && tag & 0x3f != 7 && tag & 0x3f != 8) || entryPoint.code.length == 0) {
            revert Malformed();
        }
        (uint256 start, uint256 end) = _inflate(at);
        (uint256 call_, uint256 size) = _encode(start, end, beneficiary);
        assembly {
            let ok := call(gas(), entryPoint, 0, call_, size, 0, 0)
            returndatacopy(0, 0, returndatasize())
            if iszero(ok) { revert(0, returndatasize()) }
            return(0, returndatasize())
        }
    }

    function _address(uint256 at) private pure returns (address) {
        if (msg.data.length < at + 20) revert Malformed();
        return address(bytes20(msg.data[at:at + 20]));
    }

    /// What the tokens from `at` on say, in memory from `start` to `end`.
    function _inflate(uint256 at) private view returns (uint256 start, uint256 end) {
        address place = words;
        assembly ("memory-safe") {
            function malformed() {
                mstore(0, 0x07b6ad3f00000000000000000000000000000000000000000000000000000000)
                revert(0, 4)
            }
            let dictionary := mload(0x40)
            let size := sub(extcodesize(place), 1)
            extcodecopy(place, dictionary, 1, size)
            start := add(dictionary, size)
            end := start
            let limit := calldatasize()
            for {} lt(at, limit) {} {
                let token := byte(0, calldataload(at))
                at := add(at, 1)
                switch shr(6, token)
                case 2 {
                    let n := add(and(token, 0x3f), 1)
                    calldatacopy(end, limit, n) // behind the end: zeros
                    end := add(end, n)
                }
                case 3 {
                    let n := add(and(token, 0x1f), 4)
                    let from := shr(240, calldataload(at))
                    at := add(at, 2)
                    if gt(at, limit) { malformed() }
                    switch and(token, 0x20)
                    case 0 {
                        if or(gt(n, from), gt(from, sub(end, start))) { malformed() }
                        from := sub(end, from)
                    }
                    default {
                        if gt(add(from, n), size) { malformed() }
                        from := add(dictionary, from)
                    }
                    mcopy(end, from, n)
                    end := add(end, n)
                }
                default {
                    let n := add(token, 1)
                    if gt(add(at, n), limit) { malformed() }
                    calldatacopy(end, at, n)
                    at := add(at, n)
                    end := add(end, n)
                }
            }
            mstore(0x40, and(add(end, 63), not(31)))
        }
    }

    /// `handleOps` call data of the operations that stand in memory from `start` to `end`.
    function _encode(uint256 start, uint256 end, address beneficiary)
        private
        pure
        returns (uint256 call_, uint256 size)
    {
        bytes4 selector = HANDLE_OPS;
        assembly ("memory-safe") {
            function malformed() {
                mstore(0, 0x07b6ad3f00000000000000000000000000000000000000000000000000000000)
                revert(0, 4)
            }
            function word(p) -> value, next {
                let n := byte(0, mload(p))
                if gt(n, 32) { malformed() }
                value := shr(sub(256, mul(8, n)), mload(add(p, 1)))
                next := add(add(p, 1), n)
            }
            // Two words as the halves of one.
            function halves(p) -> value, next {
                let low
                value, next := word(p)
                low, next := word(next)
                if shr(128, or(value, low)) { malformed() }
                value := or(shl(128, value), low)
            }
            // Bytes, copied to `to` behind their length and padded; what lies behind them is `free`.
            function tail(p, limit, to) -> next, free {
                let n
                n, p := word(p)
                if or(gt(p, limit), gt(n, sub(limit, p))) { malformed() }
                mstore(to, n)
                to := add(to, 32)
                free := add(to, and(add(n, 31), not(31)))
                mstore(free, 0)
                if n { mstore(sub(free, 32), 0) }
                mcopy(to, p, n)
                next := add(p, n)
            }
            let count
            count, start := word(start)
            if gt(count, sub(end, start)) { malformed() }
            call_ := mload(0x40)
            mstore(call_, selector)
            mstore(add(call_, 0x04), 0x40)
            mstore(add(call_, 0x24), beneficiary)
            mstore(add(call_, 0x44), count)
            let offsets := add(call_, 0x64)
            let head := add(offsets, mul(32, count))
            for { let i := 0 } lt(i, count) { i := add(i, 1) } {
                mstore(add(offsets, mul(32, i)), sub(head, offsets))
                mstore(head, shr(96, mload(start)))
                start := add(start, 20)
                let value
                value, start := word(start)
                mstore(add(head, 0x20), value)
                value, start := halves(start)
                mstore(add(head, 0x80), value)
                value, start := word(start)
                mstore(add(head, 0xa0), value)
                value, start := halves(start)
                mstore(add(head, 0xc0), value)
                let free := add(head, 0x120)
                mstore(add(head, 0x40), sub(free, head))
                start, free := tail(start, end, free)
                mstore(add(head, 0x60), sub(free, head))
                start, free := tail(start, end, free)
                mstore(add(head, 0xe0), sub(free, head))
                start, free := tail(start, end, free)
                mstore(add(head, 0x100), sub(free, head))
                start, head := tail(start, end, free)
            }
            if iszero(eq(start, end)) { malformed() }
            size := sub(head, call_)
            mstore(0x40, head)
        }
    }
}
