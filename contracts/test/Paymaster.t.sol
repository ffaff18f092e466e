// SPDX-License-Identifier: MIT
pragma solidity ^0.8.26;

import {Ownable} from "@openzeppelin/contracts/access/Ownable.sol";
import {Paymaster} from "@openzeppelin/contracts/account/paymaster/Paymaster.sol";
import {IEntryPoint, PackedUserOperation} from "@openzeppelin/contracts/interfaces/IERC4337.sol";
import {VerifyingPaymaster} from "../src/paymaster/VerifyingPaymaster.sol";
import {Assertions} from "./Vm.sol";

/// The stake and deposit side of an entry point.
contract Deposits {
    uint256 public deposited;
    uint256 public staked;
    bool public unlocked;

    function depositTo(address) external payable {
        deposited += msg.value;
    }

    function withdrawTo(address payable to, uint256 value) external {
        deposited -= value;
        (bool paid,) = to.call{value: value}("");
        require(paid);
    }

    function addStake(uint32) external payable {
        staked += msg.value;
    }

    function unlockStake() external {
        unlocked = true;
    }

    function withdrawStake(address payable to) external {
        (bool paid,) = to.call{value: staked}("");
        require(paid);
    }
}

contract VerifyingPaymasterTest is Assertions {
    uint256 private constant SIGNER_KEY = 0x516;
    Deposits private entryPoint = new Deposits();
    VerifyingPaymaster private paymaster;

    function setUp() public {
        paymaster = new VerifyingPaymaster(IEntryPoint(address(entryPoint)), address(this), vm.addr(SIGNER_KEY));
    }

    function _op() private view returns (PackedUserOperation memory op) {
        op.sender = address(0x1);
        op.nonce = 7;
        op.initCode = hex"01";
        op.callData = hex"02";
        op.accountGasLimits = bytes32(uint256(3));
        op.preVerificationGas = 4;
        op.gasFees = bytes32(uint256(5));
        op.paymasterAndData = _data(SIGNER_KEY, op, 200, 100);
    }

    function _data(uint256 key, PackedUserOperation memory op, uint48 validUntil, uint48 validAfter)
        private
        view
        returns (bytes memory)
    {
        (uint128 verification, uint128 postOp) = (30_000, 40_000);
        bytes32 structHash = keccak256(
            abi.encode(
                keccak256(
                    "Sponsorship(address sender,uint256 nonce,bytes32 initCodeHash,bytes32 callDataHash,bytes32 accountGasLimits,uint256 preVerificationGas,bytes32 gasFees,uint256 paymasterGasLimits,uint48 validUntil,uint48 validAfter)"
                ),
                op.sender,
                op.nonce,
                keccak256(op.initCode),
                keccak256(op.callData),
                op.accountGasLimits,
                op.preVerificationGas,
                op.gasFees,
                uint256(verification) << 128 | postOp,
                validUntil,
                validAfter
            )
        );
        bytes32 domain = keccak256(
            abi.encode(
                keccak256("EIP712Domain(string name,string version,uint256 chainId,address verifyingContract)"),
                keccak256("Seawall VerifyingPaymaster"),
                keccak256("1"),
                block.chainid,
                address(paymaster)
            )
        );
        (uint8 v, bytes32 r, bytes32 s) = vm.sign(key, keccak256(abi.encodePacked(hex"1901", domain, structHash)));
        return abi.encodePacked(address(paymaster), verification, postOp, validUntil, validAfter, r, s, v);
    }

    function _verdict(PackedUserOperation memory op) private returns (uint256 data) {
        bytes memory context;
        vm.prank(address(entryPoint));
        (context, data) = paymaster.validatePaymasterUserOp(op, 0, 0);
        eq(context.length, 0, "context");
    }

    function _fails(PackedUserOperation memory op) private returns (bool) {
        return uint160(_verdict(op)) == 1;
    }

    function test_sponsors_what_a_signer_signed_within_its_window() public {
        eq(_verdict(_op()), uint256(100) << 208 | uint256(200) << 160, "window");
    }

    function test_every_field_is_bound() public {
        for (uint256 i = 0; i < 9; ++i) {
            PackedUserOperation memory op = _op();
            if (i == 0) op.sender = address(2);
            if (i == 1) op.nonce = 8;
            if (i == 2) op.initCode = hex"ff";
            if (i == 3) op.callData = hex"ff";
            if (i == 4) op.accountGasLimits = 0;
            if (i == 5) op.preVerificationGas = 0;
            if (i == 6) op.gasFees = 0;
            if (i == 7) op.paymasterAndData[35] = 0xff;
            if (i == 8) op.paymasterAndData[57] = 0xff;
            isTrue(_fails(op), "bound");
        }
    }

    function test_signers_come_and_go() public {
        uint256 other = 0x517;
        PackedUserOperation memory op = _op();
        op.paymasterAndData = _data(other, op, 200, 100);
        isTrue(_fails(op), "stranger");
        paymaster.setSigner(vm.addr(other), true);
        isTrue(!_fails(op), "second signer");
        paymaster.setSigner(vm.addr(SIGNER_KEY), false);
        isTrue(_fails(_op()), "removed");
        vm.expectRevert(abi.encodeWithSelector(VerifyingPaymaster.InvalidSigner.selector, address(0)));
        paymaster.setSigner(address(0), true); // what recovery of a bad signature gives
    }

    function test_stubs_malformed_data_and_block_ranges_fail_without_revert() public {
        PackedUserOperation memory op = _op();
        bytes memory head = abi.encodePacked(address(paymaster), uint128(30_000), uint128(40_000));
        op.paymasterAndData = head;
        isTrue(_fails(op), "empty");
        op.paymasterAndData = bytes.concat(head, new bytes(77));
        isTrue(_fails(op), "stub");
        op = _op();
        op.paymasterAndData = bytes.concat(op.paymasterAndData, hex"00");
        isTrue(_fails(op), "trailing");
        op.paymasterAndData = _data(SIGNER_KEY, op, 200 | 1 << 47, 100);
        isTrue(_fails(op), "block range");
    }

    /// @dev The same signature, out of paymasterData and where entry point v0.9 has the paymaster's own.
    function _apart(PackedUserOperation memory op, uint16 length) private pure returns (bytes memory) {
        bytes memory data = op.paymasterAndData;
        bytes memory head = new bytes(64);
        bytes memory signature = new bytes(65);
        for (uint256 i = 0; i < 64; ++i) {
            head[i] = data[i];
        }
        for (uint256 i = 0; i < 65; ++i) {
            signature[i] = data[64 + i];
        }
        return bytes.concat(head, signature, bytes2(length), hex"22e325a297439656");
    }

    function test_the_signature_may_stand_outside_the_operations_hash() public {
        PackedUserOperation memory op = _op();
        op.paymasterAndData = _apart(op, 65);
        eq(_verdict(op), uint256(100) << 208 | uint256(200) << 160, "window");
        op.callData = hex"ff";
        isTrue(_fails(op), "bound");
        op = _op();
        op.paymasterAndData = _data(SIGNER_KEY, op, 200 | 1 << 47, 100);
        op.paymasterAndData = _apart(op, 65);
        isTrue(_fails(op), "block range");
    }

    /// forge-config: default.fuzz.runs = 256
    function test_a_malformed_signature_outside_the_hash_fails_without_revert(uint16 length) public {
        PackedUserOperation memory op = _op();
        bytes memory whole = op.paymasterAndData;
        vm.assume(length != 65);
        op.paymasterAndData = _apart(op, length);
        isTrue(_fails(op), "length");
        op.paymasterAndData = bytes.concat(whole, bytes2(length), hex"22e325a297439656");
        isTrue(_fails(op), "two signatures");
    }

    function test_only_the_entry_point_validates() public {
        PackedUserOperation memory op = _op();
        vm.expectRevert(abi.encodeWithSelector(Paymaster.PaymasterUnauthorized.selector, address(this)));
        paymaster.validatePaymasterUserOp(op, 0, 0);
    }

    function test_money_belongs_to_the_owner() public {
        paymaster.deposit{value: 3 ether}();
        paymaster.addStake{value: 1 ether}(1);
        vm.startPrank(address(0xbad));
        bytes memory refused = abi.encodeWithSelector(Ownable.OwnableUnauthorizedAccount.selector, address(0xbad));
        vm.expectRevert(refused);
        paymaster.withdraw(payable(address(0xbad)), 1);
        vm.expectRevert(refused);
        paymaster.addStake(1);
        vm.expectRevert(refused);
        paymaster.unlockStake();
        vm.expectRevert(refused);
        paymaster.withdrawStake(payable(address(0xbad)));
        vm.expectRevert(refused);
        paymaster.setSigner(address(0xbad), true);
        vm.stopPrank();
        paymaster.withdraw(payable(address(0xC0)), 2 ether);
        paymaster.unlockStake();
        paymaster.withdrawStake(payable(address(0xC0)));
        eq(address(0xC0).balance, 3 ether, "withdrawn");
        eq(entryPoint.deposited(), 1 ether, "left");
        isTrue(entryPoint.unlocked(), "unlocked");
    }
}
