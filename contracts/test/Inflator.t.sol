// SPDX-License-Identifier: MIT
pragma solidity ^0.8.26;

import {PackedUserOperation} from "@openzeppelin/contracts/interfaces/IERC4337.sol";
import {Inflator} from "../src/bundler/Inflator.sol";
import {Assertions} from "./Vm.sol";

interface IHandleOps {
    function handleOps(PackedUserOperation[] calldata ops, address payable beneficiary) external;
}

/// An entry point that answers with what it was called with, or reverts with it.
contract Echo {
    bool public immutable refuses;

    constructor(bool refuses_) {
        refuses = refuses_;
    }

    fallback(bytes calldata data) external returns (bytes memory) {
        if (!refuses) return data;
        bytes memory copy = data;
        assembly ("memory-safe") {
            revert(add(copy, 32), mload(copy))
        }
    }
}

/// What bundler/deflate.py does, without looking for anything: words of the least length, then literals and single zeros.
library PlainDeflate {
    function word(uint256 value) internal pure returns (bytes memory) {
        uint8 n;
        while (n < 32 && value >> (8 * n) != 0) ++n;
        bytes memory all = abi.encodePacked(value);
        bytes memory kept = new bytes(n);
        for (uint256 i; i < n; ++i) {
            kept[i] = all[32 - n + i];
        }
        return abi.encodePacked(n, kept);
    }

    function flat(PackedUserOperation memory op) internal pure returns (bytes memory) {
        return abi.encodePacked(
            abi.encodePacked(op.sender, word(op.nonce)),
            abi.encodePacked(word(uint256(op.accountGasLimits) >> 128), word(uint128(uint256(op.accountGasLimits)))),
            word(op.preVerificationGas),
            abi.encodePacked(word(uint256(op.gasFees) >> 128), word(uint128(uint256(op.gasFees)))),
            abi.encodePacked(word(op.initCode.length), op.initCode),
            abi.encodePacked(word(op.callData.length), op.callData),
            abi.encodePacked(word(op.paymasterAndData.length), op.paymasterAndData),
            abi.encodePacked(word(op.signature.length), op.signature)
        );
    }

    function flat(PackedUserOperation[] memory ops) internal pure returns (bytes memory all) {
        all = word(ops.length);
        for (uint256 i; i < ops.length; ++i) {
            all = abi.encodePacked(all, flat(ops[i]));
        }
    }

    function tokens(bytes memory data) internal pure returns (bytes memory out) {
        for (uint256 i; i < data.length; ++i) {
            out = data[i] == 0 ? abi.encodePacked(out, hex"80") : abi.encodePacked(out, hex"00", data[i]);
        }
    }
}

contract InflatorTest is Assertions {
    using PlainDeflate for *;

    bytes internal constant WORDS = hex"000102030405060708090a0b0c0d0e0f101112131415161718191a1b1c1d1e1f";
    Inflator internal inflator;
    Echo internal echo;

    function setUp() public {
        inflator = new Inflator(WORDS);
        echo = new Echo(false);
    }

    function _given(bytes memory tail) internal view returns (bytes memory) {
        return abi.encodePacked(hex"00", address(echo), tail);
    }

    function _call(bytes memory data) internal returns (bool ok, bytes memory answer) {
        (ok, answer) = address(inflator).call(data);
    }

    function _malformed(bytes memory data, string memory what) internal {
        (bool ok, bytes memory answer) = _call(data);
        isTrue(!ok && keccak256(answer) == keccak256(abi.encodePacked(Inflator.Malformed.selector)), what);
    }

    function _wanted(PackedUserOperation[] memory ops, address beneficiary) internal pure returns (bytes memory) {
        return abi.encodeCall(IHandleOps.handleOps, (ops, payable(beneficiary)));
    }

    function testFuzz_gives_the_entry_point_what_the_abi_encoder_would(PackedUserOperation[] memory ops) public {
        vm.assume(ops.length <= 8);
        (bool ok, bytes memory answer) = _call(_given(ops.flat().tokens()));
        isTrue(ok, "it is unpacked");
        isTrue(keccak256(answer) == keccak256(_wanted(ops, address(this))), "the same call data");
    }

    function testFuzz_a_named_beneficiary_is_handed_on(PackedUserOperation memory op, address beneficiary) public {
        PackedUserOperation[] memory ops = new PackedUserOperation[](1);
        ops[0] = op;
        (bool ok, bytes memory answer) =
            _call(abi.encodePacked(hex"40", address(echo), beneficiary, ops.flat().tokens()));
        isTrue(ok, "it is unpacked");
        isTrue(keccak256(answer) == keccak256(_wanted(ops, beneficiary)), "the same call data");
    }

    function testFuzz_copies_and_runs_say_the_same_as_literals(address sender, uint64 nonce, bytes32 noise) public {
        PackedUserOperation[] memory ops = new PackedUserOperation[](1);
        ops[0].sender = sender;
        ops[0].nonce = nonce;
        // 40 bytes of noise twice (copied), 32 bytes of the dictionary, 64 zeros
        bytes memory part = abi.encodePacked(noise, bytes8(noise));
        ops[0].callData = abi.encodePacked(part, part, WORDS, new bytes(64));
        bytes memory all = ops.flat();
        bytes memory before = new bytes(all.length - 176 - 2); // behind the call data two empty fields
        for (uint256 i; i < before.length; ++i) {
            before[i] = all[i];
        }
        bytes memory data =
            abi.encodePacked(before.tokens(), hex"27", part, hex"d00028", hex"d00028", hex"fc0000", hex"bf", hex"81");
        (bool ok, bytes memory answer) = _call(_given(data));
        isTrue(ok, "it is unpacked");
        isTrue(keccak256(answer) == keccak256(_wanted(ops, address(this))), "the same call data");
    }

    function testFuzz_whatever_it_is_given_it_reverts_or_calls_handleOps(bytes memory noise) public {
        (bool ok, bytes memory answer) = _call(_given(noise));
        if (!ok) return;
        isTrue(bytes4(answer) == IHandleOps.handleOps.selector, "only handleOps is ever called");
        bytes memory arguments = new bytes(answer.length - 4);
        for (uint256 i; i < arguments.length; ++i) {
            arguments[i] = answer[i + 4];
        }
        (PackedUserOperation[] memory ops, address beneficiary) =
            abi.decode(arguments, (PackedUserOperation[], address));
        isTrue(keccak256(answer) == keccak256(_wanted(ops, beneficiary)), "in canonical form");
    }

    function test_what_is_cut_or_too_long_is_refused() public {
        PackedUserOperation[] memory ops = new PackedUserOperation[](1);
        ops[0].callData = hex"a9059cbb";
        bytes memory data = _given(ops.flat().tokens());
        for (uint256 length; length < data.length; ++length) {
            bytes memory cut = new bytes(length);
            for (uint256 i; i < length; ++i) {
                cut[i] = data[i];
            }
            _malformed(cut, "cut");
        }
        _malformed(abi.encodePacked(data, hex"80"), "a byte too much");
    }

    function test_copies_of_what_is_not_there_are_refused() public {
        _malformed(_given(hex"0301020304c00005"), "before the beginning");
        _malformed(_given(hex"0301020304c00003"), "beyond what was written");
        _malformed(_given(hex"e0001d"), "behind the dictionary");
    }

    function test_words_that_are_too_long_and_halves_that_are_too_large_are_refused() public {
        _malformed(_given(hex"0021"), "a word of 33 bytes");
        bytes memory sender = new bytes(20);
        bytes memory large = abi.encodePacked(hex"0101", sender, hex"00", hex"11", uint136(1) << 128, hex"00");
        _malformed(_given(large.tokens()), "17 bytes of verification gas");
    }

    function test_more_operations_than_bytes_are_refused() public {
        _malformed(_given(hex"0404ffffffff"), "four billion");
    }

    function test_a_tag_of_nothing_and_an_entry_point_without_code_are_refused() public {
        _malformed(hex"0180", "tag 1");
        _malformed(hex"8780", "bit 7");
        _malformed(abi.encodePacked(hex"00", address(0xdead), hex"80"), "no code");
        _malformed(hex"0880", "no entry point v0.8 on this chain");
        _malformed("", "nothing");
    }

    function test_the_tags_of_known_entry_points_reach_them() public {
        address[2] memory places =
            [0x0000000071727De22E5E9d8BAf0edAc6f37da032, 0x4337084D9E255Ff0702461CF8895CE9E3b5Ff108];
        PackedUserOperation[] memory none = new PackedUserOperation[](0);
        for (uint8 i; i < 2; ++i) {
            vm.etch(places[i], address(echo).code);
            (bool ok, bytes memory answer) = _call(abi.encodePacked(7 + i, hex"80"));
            isTrue(ok && keccak256(answer) == keccak256(_wanted(none, address(this))), "an empty bundle");
        }
    }

    function test_what_the_entry_point_reverts_with_is_handed_back() public {
        Echo refuses = new Echo(true);
        (bool ok, bytes memory answer) = _call(abi.encodePacked(hex"00", address(refuses), hex"80"));
        isTrue(!ok, "it reverts");
        isTrue(keccak256(answer) == keccak256(_wanted(new PackedUserOperation[](0), address(this))), "with its words");
    }

    function test_it_takes_no_money() public {
        vm.deal(address(this), 1 ether);
        (bool ok,) = address(inflator).call{value: 1}(_given(hex"80"));
        isTrue(!ok, "no value");
    }

    function test_the_dictionary_stands_behind_a_stop_in_a_contract_of_its_own() public view {
        isTrue(keccak256(inflator.words().code) == keccak256(abi.encodePacked(hex"00", WORDS)), "STOP and the words");
    }
}
