// SPDX-License-Identifier: MIT
pragma solidity ^0.8.26;

import {ERC4337Utils} from "@openzeppelin/contracts/account/utils/ERC4337Utils.sol";
import {PackedUserOperation} from "@openzeppelin/contracts/interfaces/IERC4337.sol";
import {IRiskValidator} from "../src/interfaces/IRiskValidator.sol";
import {UserOpLib} from "../src/libraries/UserOpLib.sol";
import {RiskValidator} from "../src/modules/RiskValidator.sol";
import {ValidatorSettings} from "../src/modules/validator/ValidatorSettings.sol";
import {Base} from "./Base.sol";

/// Calldata for a library that reads calldata.
contract IntentHasher {
    function intentHash(PackedUserOperation calldata op) external pure returns (bytes32) {
        return UserOpLib.intentHash(op);
    }
}

/// Decisions that need signers: one suite, run on our account and on OpenZeppelin's.
abstract contract QuorumBehaviour is Base {
    address internal subject;
    bytes32 internal constant HASH = keccak256("operation");
    bytes32 internal constant DESK = keccak256("desk");
    bytes32 internal constant BOARD = keccak256("board");
    uint256[3] internal KEYS = [uint256(0xd1), 0xd2, 0xd3];
    IntentHasher internal hasher = new IntentHasher();

    /// What one envelope says; `forged` signs the last approval with another key.
    struct Envelope {
        uint8 kind;
        uint8 decision;
        bytes32 intent;
        bytes32 named;
        bytes32[] ids;
        uint256[] keys;
        uint48 until;
        uint48 attestedUntil;
        bytes32 policyId;
        uint64 epoch;
        address entryPoint;
        bool forged;
        bytes tail;
    }

    function _op_() internal view returns (PackedUserOperation memory op) {
        op = _userOp(subject, address(validator), 1, _executeData(address(target), 0, ""));
    }

    function _quorum(bytes32 id, uint8 threshold, uint256 count) internal view returns (IRiskValidator.Quorum memory) {
        uint256[] memory keys = _sorted(count);
        address[] memory signers = new address[](count);
        for (uint256 i = 0; i < count; ++i) {
            signers[i] = vm.addr(keys[i]);
        }
        return IRiskValidator.Quorum(id, threshold, signers);
    }

    /// The first `count` of KEYS in ascending order of address.
    function _sorted(uint256 count) internal view returns (uint256[] memory keys) {
        keys = new uint256[](count);
        for (uint256 i = 0; i < count; ++i) {
            keys[i] = KEYS[i];
            for (uint256 j = i; j > 0 && vm.addr(keys[j]) < vm.addr(keys[j - 1]); --j) {
                (keys[j], keys[j - 1]) = (keys[j - 1], keys[j]);
            }
        }
    }

    function _set(IRiskValidator.Quorum memory quorum) internal {
        _as(subject, address(validator), abi.encodeCall(validator.setQuorum, (quorum)));
    }

    function _asked(uint256 signers) internal view returns (Envelope memory e) {
        e.kind = 4;
        e.decision = uint8(IRiskValidator.Decision.REQUIRE_SIGNERS);
        e.intent = hasher.intentHash(_op_());
        e.named = DESK;
        e.ids = new bytes32[](1);
        e.ids[0] = DESK;
        e.keys = _sorted(signers);
        e.until = 180;
        e.attestedUntil = 200;
        e.policyId = POLICY;
        e.epoch = 1;
        e.entryPoint = address(ENTRY_POINT);
    }

    function _attestation(Envelope memory e) internal view returns (bytes memory) {
        bytes32 structHash = keccak256(
            abi.encode(
                keccak256(
                    "Attestation(address account,address entryPoint,bytes32 userOpHash,bytes32 intentHash,bytes32 policyId,uint64 policyEpoch,bytes32 factsHash,uint8 decision,bytes32 quorumId,uint48 validAfter,uint48 validUntil)"
                ),
                subject,
                e.entryPoint,
                HASH,
                e.intent,
                POLICY,
                uint64(1),
                bytes32(0),
                e.decision,
                e.named,
                uint48(0),
                e.attestedUntil
            )
        );
        bytes memory signature =
            _sign(ENGINE_A_KEY, _typed(_domain("Seawall RiskValidator", address(validator)), structHash));
        bytes memory head = abi.encodePacked(vm.addr(ENGINE_A_KEY), e.intent, bytes32(0), e.decision, e.named);
        return abi.encodePacked(head, uint48(0), e.attestedUntil, signature);
    }

    function _approvals(Envelope memory e) internal view returns (bytes memory packed) {
        bytes32 structHash = keccak256(
            abi.encode(
                keccak256(
                    "SignerApproval(address account,address entryPoint,bytes32 intentHash,bytes32 policyId,uint64 policyEpoch,uint48 validUntil)"
                ),
                subject,
                e.entryPoint,
                e.intent,
                e.policyId,
                e.epoch,
                e.until
            )
        );
        bytes32 digest = _typed(_domain("Seawall RiskValidator", address(validator)), structHash);
        packed = abi.encodePacked(uint8(e.keys.length));
        for (uint256 i = 0; i < e.keys.length; ++i) {
            bool forge = e.forged && i + 1 == e.keys.length;
            bytes memory signature = _sign(forge ? THIEF_KEY : e.keys[i], digest);
            packed = abi.encodePacked(packed, vm.addr(e.keys[i]), e.until, signature);
        }
    }

    function _signature(Envelope memory e) internal view returns (bytes memory) {
        bytes memory ownerSignature = _sign(OWNER_KEY, HASH);
        bytes memory attestation = _attestation(e);
        bytes memory head = abi.encodePacked(
            e.kind, uint16(65), ownerSignature, uint8(1), uint16(attestation.length), attestation, uint8(0)
        );
        if (e.kind != 4) return head;
        bytes memory ids = abi.encodePacked(uint8(e.ids.length));
        for (uint256 i = 0; i < e.ids.length; ++i) {
            ids = abi.encodePacked(ids, e.ids[i]);
        }
        return abi.encodePacked(head, ids, _approvals(e), e.tail);
    }

    function _verdict(Envelope memory e) internal returns (bool valid, uint48 validUntil) {
        PackedUserOperation memory op = _op_();
        op.signature = _signature(e);
        uint256 data = _validate(op, HASH);
        return (address(uint160(data)) == address(0), uint48(data >> 160));
    }

    function _passes(Envelope memory e) internal returns (bool valid) {
        (valid,) = _verdict(e);
    }

    function test_enough_seats_of_the_named_quorum_let_it_through_until_the_first_approval_ends() public {
        _set(_quorum(DESK, 2, 3));
        (bool valid, uint48 until) = _verdict(_asked(2));
        isTrue(valid, "two of three");
        eq(until, 180, "the approvals end first");
        Envelope memory e = _asked(3);
        e.until = 0;
        (valid, until) = _verdict(e);
        isTrue(valid, "three of three");
        eq(until, 200, "approvals without end leave the engine's");
    }

    function test_fewer_are_not_enough_and_nor_is_a_decision_without_quorum() public {
        _set(_quorum(DESK, 2, 3));
        isTrue(!_passes(_asked(1)), "one of three");
        isTrue(!_passes(_asked(0)), "nobody");
        Envelope memory e = _asked(2);
        e.kind = 1;
        isTrue(!_passes(e), "the plain envelope");
        e = _asked(2);
        e.decision = uint8(IRiskValidator.Decision.ALLOW);
        isTrue(!_passes(e), "an allowance in the quorum's envelope");
        e.decision = uint8(IRiskValidator.Decision.DENY);
        isTrue(!_passes(e), "a denial");
    }

    function test_a_quorum_that_is_not_registered_is_satisfied_by_nobody() public {
        isTrue(!_passes(_asked(3)), "never registered");
        _set(_quorum(DESK, 1, 3));
        isTrue(_passes(_asked(1)), "registered");
        _set(IRiskValidator.Quorum(DESK, 0, new address[](0)));
        isTrue(!_passes(_asked(3)), "removed");
        (uint8 threshold, uint8 signers) = validator.quorumOf(subject, DESK);
        eq(threshold + signers, 0, "gone");
        Envelope memory e = _asked(1);
        (e.named, e.ids[0]) = (bytes32(0), bytes32(0));
        isTrue(!_passes(e), "the zero quorum");
        e.ids = new bytes32[](0);
        isTrue(!_passes(e), "no quorum");
    }

    function test_a_seat_that_was_taken_away_does_not_come_back() public {
        _set(_quorum(DESK, 1, 3));
        address first = vm.addr(_sorted(3)[0]);
        isTrue(validator.isSigner(subject, DESK, first), "seated");
        address[] memory others = new address[](1);
        others[0] = address(0xf00d);
        _set(IRiskValidator.Quorum(DESK, 1, others));
        isTrue(!validator.isSigner(subject, DESK, first), "unseated");
        isTrue(!_passes(_asked(3)), "none of the old ones counts");
        _set(IRiskValidator.Quorum(DESK, 0, new address[](0)));
        _set(IRiskValidator.Quorum(DESK, 1, others));
        isTrue(!_passes(_asked(3)), "nor after it was removed and registered again");
    }

    function test_every_named_quorum_must_be_satisfied_and_one_signature_counts_in_each() public {
        _set(_quorum(DESK, 1, 3));
        _set(_quorum(BOARD, 2, 2));
        Envelope memory e = _asked(3);
        e.ids = new bytes32[](2);
        (e.ids[0], e.ids[1]) = BOARD < DESK ? (BOARD, DESK) : (DESK, BOARD);
        e.named = keccak256(abi.encodePacked(e.ids[0], e.ids[1]));
        isTrue(_passes(e), "both");
        e.keys = _sorted(1);
        isTrue(!_passes(e), "desk only");
        e.keys = _sorted(2);
        isTrue(_passes(e), "two sit in both");
        (e.ids[0], e.ids[1]) = (e.ids[1], e.ids[0]);
        e.named = keccak256(abi.encodePacked(e.ids[0], e.ids[1]));
        isTrue(!_passes(e), "ids must ascend");
        (e.ids[0], e.ids[1]) = (DESK, DESK);
        e.named = keccak256(abi.encodePacked(DESK, DESK));
        isTrue(!_passes(e), "one quorum twice");
        e = _asked(2);
        e.named = BOARD;
        isTrue(!_passes(e), "another quorum than the engine named");
        e.ids = new bytes32[](9);
        e.named = keccak256(abi.encodePacked(e.ids));
        isTrue(!_passes(e), "too many");
    }

    function test_what_an_approval_binds() public {
        _set(_quorum(DESK, 2, 3));
        Envelope memory e = _asked(2);
        e.intent = keccak256("another intent");
        isTrue(!_passes(e), "intent of another operation");
        e = _asked(2);
        e.policyId = keccak256("another policy");
        isTrue(!_passes(e), "policy");
        e = _asked(2);
        e.epoch = 2;
        isTrue(!_passes(e), "epoch");
        e = _asked(2);
        e.entryPoint = address(ERC4337Utils.ENTRYPOINT_V07);
        isTrue(!_passes(e), "entry point");
        e = _asked(2);
        e.forged = true;
        isTrue(!_passes(e), "somebody else's signature");
        e = _asked(2);
        e.until = 180 | 0x800000000000;
        isTrue(!_passes(e), "a time that would be a block number");
    }

    function test_signers_stand_once_each_in_ascending_order() public {
        _set(_quorum(DESK, 2, 3));
        Envelope memory e = _asked(2);
        (e.keys[0], e.keys[1]) = (e.keys[1], e.keys[0]);
        isTrue(!_passes(e), "order");
        e.keys[0] = e.keys[1];
        isTrue(!_passes(e), "one twice");
    }

    function test_a_strangers_approval_fails_the_operation_only_when_seats_are_missing() public {
        _set(_quorum(DESK, 2, 2));
        isTrue(_passes(_asked(3)), "a third who has no seat does not count and does not hurt");
        _set(_quorum(DESK, 2, 3));
        Envelope memory e = _asked(3);
        e.forged = true;
        isTrue(!_passes(e), "a forged third one does");
    }

    function testFuzz_no_other_length_is_an_envelope(uint16 cut, bytes memory tail) public {
        _set(_quorum(DESK, 2, 3));
        PackedUserOperation memory op = _op_();
        bytes memory whole = _signature(_asked(2));
        uint256 length = bound(cut, 1, whole.length - 1);
        bytes memory part = new bytes(length);
        for (uint256 i = 0; i < length; ++i) {
            part[i] = whole[i];
        }
        op.signature = part;
        isTrue(address(uint160(_validate(op, HASH))) != address(0), "cut");
        vm.assume(tail.length != 0);
        op.signature = abi.encodePacked(whole, tail);
        isTrue(address(uint160(_validate(op, HASH))) != address(0), "trailing bytes");
    }

    function testFuzz_the_approvals_bind_all_of_the_operation_but_paymaster_data(uint8 field, uint256 by) public {
        _set(_quorum(DESK, 2, 3));
        bytes memory signature = _signature(_asked(2));
        PackedUserOperation memory op = _op_();
        by = bound(by, 1, type(uint64).max);
        field = uint8(bound(field, 0, 5));
        if (field == 0) op.nonce += bound(by, 1, type(uint64).max);
        if (field == 1) op.callData = abi.encodePacked(op.callData, by);
        if (field == 2) op.accountGasLimits = bytes32(uint256(op.accountGasLimits) + by);
        if (field == 3) op.preVerificationGas += by;
        if (field == 4) op.gasFees = bytes32(uint256(op.gasFees) + by);
        if (field == 5) op.initCode = abi.encodePacked(by);
        op.signature = signature;
        // The hash stays what engine and owner signed: only the intent is looked at here.
        op.paymasterAndData = abi.encodePacked(address(0xfee), new bytes(32));
        isTrue(address(uint160(_validate(op, HASH))) != address(0), "another intent");
        PackedUserOperation memory same = _op_();
        same.signature = signature;
        same.paymasterAndData = op.paymasterAndData;
        isTrue(address(uint160(_validate(same, HASH))) == address(0), "another paymaster");
    }

    function test_senseless_quorums_are_refused() public {
        IRiskValidator.Quorum memory quorum = _quorum(DESK, 3, 2);
        _refused(quorum);
        quorum = _quorum(DESK, 0, 2);
        _refused(quorum);
        quorum = _quorum(bytes32(0), 1, 2);
        _refused(quorum);
        quorum = _quorum(DESK, 1, 2);
        (quorum.signers[0], quorum.signers[1]) = (quorum.signers[1], quorum.signers[0]);
        _refused(quorum);
        quorum.signers[1] = quorum.signers[0];
        _refused(quorum);
        quorum.signers[0] = address(0);
        _refused(quorum);
        quorum.signers = new address[](256);
        for (uint160 i = 0; i < 256; ++i) {
            quorum.signers[i] = address(i + 1);
        }
        _refused(quorum);
        vm.expectRevert(abi.encodeWithSelector(ValidatorSettings.NotInstalled.selector, address(this)));
        validator.setQuorum(_quorum(DESK, 1, 1));
    }

    function _refused(IRiskValidator.Quorum memory quorum) private {
        vm.expectRevert(abi.encodeWithSelector(ValidatorSettings.InvalidQuorum.selector, quorum.id));
        _set(quorum);
    }

    function test_a_message_needs_the_quorum_as_well() public {
        _set(_quorum(DESK, 2, 3));
        vm.warp(150);
        Envelope memory e = _asked(2);
        (e.intent, e.entryPoint) = (HASH, address(0));
        eq(bytes32(_message(_signature(e))), bytes32(bytes4(0x1626ba7e)), "two of three");
        e.keys = _sorted(1);
        eq(bytes32(_message(_signature(e))), bytes32(bytes4(0xffffffff)), "one");
        e.keys = _sorted(2);
        vm.warp(181);
        eq(bytes32(_message(_signature(e))), bytes32(bytes4(0xffffffff)), "too late");
    }

    function _message(bytes memory signature) private returns (bytes4) {
        vm.prank(subject);
        return validator.isValidSignatureWithSender(address(this), HASH, signature);
    }

    function test_validation_reads_only_storage_associated_with_the_account_and_writes_none() public {
        _set(_quorum(DESK, 2, 3));
        vm.startMappingRecording();
        vm.record();
        isTrue(_passes(_asked(2)), "valid");
        (, bytes32[] memory writes) = vm.accesses(address(validator));
        eq(writes.length, 0, "writes");
        _onlyAssociatedReads(address(validator), subject);
    }

    function test_a_quorum_of_one_account_is_no_quorum_of_another() public {
        address other = subject == address(account) ? address(foreign) : address(account);
        _set(_quorum(DESK, 1, 3));
        (uint8 threshold, uint8 signers) = validator.quorumOf(other, DESK);
        eq(threshold + signers, 0, "other account");
        isTrue(!validator.isSigner(other, DESK, vm.addr(_sorted(1)[0])), "other account's seat");
    }
}

contract QuorumOnRiskAccountTest is QuorumBehaviour {
    function setUp() public override {
        super.setUp();
        subject = address(account);
        _install(subject, 1, address(validator), _riskData(""));
    }

    function test_quorums_can_be_there_from_birth_and_die_with_their_installation() public {
        _uninstall(1, address(validator));
        address[] memory engines = new address[](1);
        engines[0] = vm.addr(ENGINE_A_KEY);
        IRiskValidator.Quorum[] memory quorums = new IRiskValidator.Quorum[](1);
        quorums[0] = _quorum(DESK, 2, 3);
        bytes memory data = abi.encode(IRiskValidator.InstallData("", engines, 1, 3 days, POLICY, quorums));
        _install(subject, 1, address(validator), data);
        (uint8 threshold, uint8 signers) = validator.quorumOf(subject, DESK);
        eq(threshold, 2, "threshold");
        eq(signers, 3, "signers");
        _uninstall(1, address(validator));
        (threshold, signers) = validator.quorumOf(subject, DESK);
        eq(threshold + signers, 0, "uninstalled");
        _install(subject, 1, address(validator), _riskData(""));
        (threshold, signers) = validator.quorumOf(subject, DESK);
        eq(threshold + signers, 0, "installed anew");
        isTrue(!validator.isSigner(subject, DESK, vm.addr(_sorted(1)[0])), "seat");
    }
}

contract QuorumOnForeignAccountTest is QuorumBehaviour {
    function setUp() public override {
        super.setUp();
        subject = address(foreign);
        _install(subject, 1, address(validator), _riskData(_ownerBytes()));
    }
}
