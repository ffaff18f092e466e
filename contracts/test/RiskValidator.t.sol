// SPDX-License-Identifier: MIT
pragma solidity ^0.8.26;

import {ERC4337Utils} from "@openzeppelin/contracts/account/utils/ERC4337Utils.sol";
import {PackedUserOperation} from "@openzeppelin/contracts/interfaces/IERC4337.sol";
import {Execution} from "@openzeppelin/contracts/interfaces/draft-IERC7579.sol";
import {IRiskValidator} from "../src/interfaces/IRiskValidator.sol";
import {RiskValidator} from "../src/modules/RiskValidator.sol";
import {ValidatorSettings} from "../src/modules/validator/ValidatorSettings.sol";
import {ContractOwner, KeccakVerifier, Target} from "./Actors.sol";
import {Base} from "./Base.sol";

/// One suite, run on our account and on OpenZeppelin's: `subject` is the account under test.
abstract contract RiskValidatorBehaviour is Base {
    address internal subject;
    bytes32 internal constant HASH = keccak256("operation");
    bytes32 internal constant ATTESTATION_TYPEHASH = keccak256(
        "Attestation(address account,address entryPoint,bytes32 userOpHash,bytes32 intentHash,bytes32 policyId,uint64 policyEpoch,bytes32 factsHash,uint8 decision,bytes32 quorumId,uint48 validAfter,uint48 validUntil)"
    );

    /// What an engine says; fields as on the wire.
    struct Claim {
        address account;
        address entryPoint;
        bytes32 hash;
        bytes32 policyId;
        uint64 policyEpoch;
        uint8 decision;
        uint48 validAfter;
        uint48 validUntil;
    }

    function _claim() internal view returns (Claim memory) {
        return Claim(subject, address(ENTRY_POINT), HASH, POLICY, 1, 1, 100, 200);
    }

    function _attest(uint256 engineKey, Claim memory c) internal view returns (bytes memory) {
        bytes32 intent = keccak256("intent");
        bytes32 facts = keccak256("facts");
        bytes32 structHash = keccak256(
            abi.encode(
                ATTESTATION_TYPEHASH,
                c.account,
                c.entryPoint,
                c.hash,
                intent,
                c.policyId,
                c.policyEpoch,
                facts,
                c.decision,
                bytes32(0),
                c.validAfter,
                c.validUntil
            )
        );
        bytes memory signature =
            _sign(engineKey, _typed(_domain("Seawall RiskValidator", address(validator)), structHash));
        bytes memory head = abi.encodePacked(vm.addr(engineKey), intent, facts, c.decision, bytes32(0));
        return abi.encodePacked(head, c.validAfter, c.validUntil, signature);
    }

    function _prefixed(bytes memory data) internal pure returns (bytes memory) {
        return abi.encodePacked(uint16(data.length), data);
    }

    function _envelope(bytes memory ownerSignature, bytes memory attestation) internal pure returns (bytes memory) {
        return abi.encodePacked(uint8(1), _prefixed(ownerSignature), uint8(1), _prefixed(attestation), uint8(0));
    }

    function _both(uint256 first, uint256 second) internal view returns (bytes memory) {
        bytes memory one = _prefixed(_attest(first, _claim()));
        bytes memory two = _prefixed(_attest(second, _claim()));
        return abi.encodePacked(uint8(1), _prefixed(_sign(OWNER_KEY, HASH)), uint8(2), one, two, uint8(0));
    }

    function _good() internal view returns (bytes memory) {
        return _envelope(_sign(OWNER_KEY, HASH), _attest(ENGINE_A_KEY, _claim()));
    }

    function _attestedOp(bytes memory signature) internal view returns (PackedUserOperation memory op) {
        op = _userOp(subject, address(validator), 1, _executeData(address(target), 0, ""));
        op.signature = signature;
    }

    function _verdict(bytes memory signature) internal returns (bool valid, uint48 validAfter, uint48 validUntil) {
        return _parse(_validate(_attestedOp(signature), HASH));
    }

    function _parse(uint256 data) internal pure returns (bool valid, uint48 validAfter, uint48 validUntil) {
        return (address(uint160(data)) == address(0), uint48(data >> 208), uint48(data >> 160));
    }

    function _isValid(bytes memory signature) internal returns (bool valid) {
        (valid,,) = _verdict(signature);
    }

    /// The lower and the higher engine key by address.
    function _ordered() internal pure returns (uint256 low, uint256 high) {
        bool inOrder = vm.addr(ENGINE_A_KEY) < vm.addr(ENGINE_B_KEY);
        return inOrder ? (ENGINE_A_KEY, ENGINE_B_KEY) : (ENGINE_B_KEY, ENGINE_A_KEY);
    }

    function _call(bytes memory data) internal {
        _as(subject, address(validator), data);
    }

    // ---- attested lane

    function test_owner_and_engine_together_validate_within_the_attested_window() public {
        (bool valid, uint48 validAfter, uint48 validUntil) = _verdict(_good());
        isTrue(valid, "valid");
        eq(validAfter, 100, "after");
        eq(validUntil, 200, "until");
    }

    function test_neither_owner_nor_engine_alone_is_enough() public {
        isTrue(!_isValid(_envelope(_sign(THIEF_KEY, HASH), _attest(ENGINE_A_KEY, _claim()))), "engine alone");
        isTrue(!_isValid(_envelope("", _attest(ENGINE_A_KEY, _claim()))), "no owner");
        isTrue(!_isValid(_envelope(_sign(OWNER_KEY, HASH), _attest(THIEF_KEY, _claim()))), "owner alone");
        bytes memory none = abi.encodePacked(uint8(1), _prefixed(_sign(OWNER_KEY, HASH)), uint8(0), uint8(0));
        isTrue(!_isValid(none), "no attestation");
    }

    function test_every_field_of_an_attestation_is_bound() public {
        Claim[8] memory claims;
        for (uint256 i = 0; i < 8; ++i) {
            claims[i] = _claim();
        }
        claims[0].account = address(0xbad);
        claims[1].entryPoint = address(ERC4337Utils.ENTRYPOINT_V07);
        claims[2].hash = keccak256("another operation");
        claims[3].policyId = keccak256("another policy");
        claims[4].policyEpoch = 2;
        claims[5].decision = uint8(IRiskValidator.Decision.DENY);
        claims[6].decision = uint8(IRiskValidator.Decision.REQUIRE_SIGNERS);
        claims[7].decision = 3;
        bytes memory ownerSignature = _sign(OWNER_KEY, HASH);
        for (uint256 i = 0; i < 8; ++i) {
            isTrue(!_isValid(_envelope(ownerSignature, _attest(ENGINE_A_KEY, claims[i]))), "bound");
        }
        // Times are in clear and signed.
        bytes memory forged = _attest(ENGINE_A_KEY, _claim());
        forged[128] = 0xff;
        isTrue(!_isValid(_envelope(ownerSignature, forged)), "time");
    }

    function test_attestation_for_another_chain_fails() public {
        bytes memory signature = _good();
        vm.chainId(5);
        isTrue(!_isValid(signature), "chain");
    }

    function test_block_numbers_in_place_of_times_fail() public {
        Claim memory claim = _claim();
        claim.validUntil |= 1 << 47;
        isTrue(!_isValid(_envelope(_sign(OWNER_KEY, HASH), _attest(ENGINE_A_KEY, claim))), "block range");
    }

    function test_windows_intersect_and_zero_means_no_end() public {
        (uint256 low, uint256 high) = _ordered();
        Claim memory a = _claim();
        Claim memory b = _claim();
        (a.validAfter, a.validUntil, b.validAfter, b.validUntil) = (10, 0, 150, 300);
        bytes memory signature = abi.encodePacked(
            uint8(1),
            _prefixed(_sign(OWNER_KEY, HASH)),
            uint8(2),
            _prefixed(_attest(low, a)),
            _prefixed(_attest(high, b)),
            uint8(0)
        );
        (bool valid, uint48 validAfter, uint48 validUntil) = _verdict(signature);
        isTrue(valid, "valid");
        eq(validAfter, 150, "after");
        eq(validUntil, 300, "until");
        signature = _envelope(_sign(OWNER_KEY, HASH), _attest(ENGINE_A_KEY, a));
        (, validAfter, validUntil) = _verdict(signature);
        eq(validUntil, type(uint48).max >> 1, "for ever");
    }

    function test_threshold_counts_distinct_engines() public {
        (uint256 low, uint256 high) = _ordered();
        _call(abi.encodeCall(validator.setThreshold, (2)));
        isTrue(!_isValid(_good()), "one of two");
        isTrue(_isValid(_both(low, high)), "two");
        isTrue(!_isValid(_both(high, low)), "descending");
        isTrue(!_isValid(_both(low, low)), "twice the same");
        _call(abi.encodeCall(validator.setThreshold, (1)));
        isTrue(!_isValid(_both(low, THIEF_KEY)), "a stranger among them");
    }

    function test_rotation_of_engines_and_policy_kills_old_attestations() public {
        bytes memory old = _good();
        _call(abi.encodeCall(validator.setPolicy, (POLICY)));
        isTrue(!_isValid(old), "old epoch");
        (bytes32 policyId, uint64 epoch) = validator.policyOf(subject);
        eq(policyId, POLICY, "policy");
        eq(epoch, 2, "epoch");
        Claim memory claim = _claim();
        claim.policyEpoch = 2;
        bytes memory signature = _envelope(_sign(OWNER_KEY, HASH), _attest(ENGINE_A_KEY, claim));
        isTrue(_isValid(signature), "new epoch");
        _call(abi.encodeCall(validator.setEngine, (vm.addr(ENGINE_A_KEY), false)));
        isTrue(!_isValid(signature), "engine gone");
        vm.expectRevert(abi.encodeWithSelector(ValidatorSettings.InvalidThreshold.selector, 1, 0));
        _call(abi.encodeCall(validator.setEngine, (vm.addr(ENGINE_B_KEY), false)));
        vm.expectRevert(abi.encodeWithSelector(ValidatorSettings.InvalidThreshold.selector, 0, 1));
        _call(abi.encodeCall(validator.setThreshold, (0)));
        vm.expectRevert(abi.encodeWithSelector(ValidatorSettings.InvalidEngine.selector, vm.addr(ENGINE_B_KEY)));
        _call(abi.encodeCall(validator.setEngine, (vm.addr(ENGINE_B_KEY), true)));
    }

    function test_the_escape_delay_changes_for_the_next_escape_and_never_to_nothing() public {
        eq(validator.escapeDelayOf(subject), 3 days, "at first");
        _startEscape(OWNER_KEY, type(uint48).max);
        uint48 openAt = validator.escapeOpenAt(subject);
        _call(abi.encodeCall(validator.setEscapeDelay, (5 days)));
        eq(validator.escapeDelayOf(subject), 5 days, "changed");
        eq(validator.escapeOpenAt(subject), openAt, "under way");
        vm.expectRevert(ValidatorSettings.InvalidDelay.selector);
        _call(abi.encodeCall(validator.setEscapeDelay, (0)));
        vm.expectRevert(abi.encodeWithSelector(ValidatorSettings.NotInstalled.selector, address(this)));
        validator.setEscapeDelay(1);
    }

    function test_settings_need_an_installation() public {
        vm.expectRevert(abi.encodeWithSelector(ValidatorSettings.NotInstalled.selector, address(this)));
        validator.setPolicy(0);
        vm.expectRevert(abi.encodeWithSelector(ValidatorSettings.NotInstalled.selector, address(this)));
        validator.startEscape(address(this), type(uint48).max, "");
        isTrue(validator.requiresAttestation() && validator.isModuleType(1) && !validator.isModuleType(2), "kind");
        eq(validator.thresholdOf(subject), 1, "threshold");
        isTrue(validator.engineEnabled(subject, vm.addr(ENGINE_A_KEY)), "engine");
    }

    function test_envelope_with_trailing_missing_or_wrong_bytes_fails() public {
        bytes memory good = _good();
        isTrue(!_isValid(bytes.concat(good, hex"00")), "trailing");
        for (uint256 length = 0; length < good.length; length += 7) {
            bytes memory cut = new bytes(length);
            for (uint256 i = 0; i < length; ++i) {
                cut[i] = good[i];
            }
            isTrue(!_isValid(cut), "cut");
        }
        good[0] = 0x02;
        isTrue(!_isValid(good), "type");
        bytes memory longer = bytes.concat(_attest(ENGINE_A_KEY, _claim()), hex"00");
        isTrue(!_isValid(_envelope(_sign(OWNER_KEY, HASH), longer)), "attestation length");
    }

    function testFuzz_random_signatures_fail_without_revert(bytes calldata noise, bool escape) public {
        bytes memory signature = bytes.concat(escape ? bytes1(0x03) : bytes1(0x01), noise);
        PackedUserOperation memory op = _attestedOp(signature);
        if (escape) op.nonce = uint256(uint160(address(validator))) << 96 | uint256(3) << 88;
        (bool valid,,) = _parse(_validate(op, HASH));
        isTrue(!valid, "noise");
    }

    /// What `validateUserOp` answers, `validateAttested` answers to the account that names its entry point and owner.
    function testFuzz_an_account_that_is_not_asked_gets_the_same_answer(uint8 shape, bytes calldata noise) public {
        bytes memory signature =
            [_good(), _both(ENGINE_A_KEY, ENGINE_B_KEY), _both(ENGINE_B_KEY, ENGINE_A_KEY), noise][shape % 4];
        if (shape % 8 > 3 && noise.length != 0) signature[uint8(noise[0]) % signature.length] ^= 0x01;
        PackedUserOperation memory op = _attestedOp(signature);
        vm.startPrank(subject);
        uint256 asked = validator.validateUserOp(op, HASH);
        eq(validator.validateAttested(op, HASH, address(ENTRY_POINT), owner), asked, "same");
        eq(validator.validateAttested(op, HASH, address(ENTRY_POINT), address(0)), asked, "owner asked");
        address another = address(ERC4337Utils.ENTRYPOINT_V07);
        eq(uint160(validator.validateAttested(op, HASH, another, owner)), FAILED, "another entry point");
        vm.stopPrank();
    }

    function test_lane_and_signature_type_belong_together() public {
        PackedUserOperation memory op = _attestedOp(_good());
        for (uint256 lane = 0; lane < 4; ++lane) {
            op.nonce = uint256(uint160(address(validator))) << 96 | lane << 88;
            (bool valid,,) = _parse(_validate(op, HASH));
            isTrue(valid == (lane == 1), "lane");
        }
    }

    function test_an_operation_of_another_sender_fails() public {
        PackedUserOperation memory op = _attestedOp(_good());
        op.sender = address(0xbad);
        vm.prank(subject);
        eq(validator.validateUserOp(op, HASH), FAILED, "sender");
    }

    // ---- Merkle

    function _leaf(address entryPoint, bytes32 hash) internal view returns (bytes32) {
        return keccak256(abi.encode(block.chainid, entryPoint, address(validator), hash));
    }

    function _rootSignature(uint256 key, bytes32 root) internal pure returns (bytes memory) {
        bytes32 separator = keccak256(
            abi.encode(
                keccak256("EIP712Domain(string name,string version)"),
                keccak256("Seawall RiskValidator"),
                keccak256("1")
            )
        );
        return _sign(key, _typed(separator, keccak256(abi.encode(keccak256("MerkleRoot(bytes32 root)"), root))));
    }

    function _pair(bytes32 a, bytes32 b) internal pure returns (bytes32) {
        return a < b ? keccak256(abi.encode(a, b)) : keccak256(abi.encode(b, a));
    }

    function testFuzz_one_signature_authorises_every_leaf_and_no_other(bytes32 sibling, bytes32 uncle) public {
        bytes32 root = _pair(_pair(_leaf(address(ENTRY_POINT), HASH), sibling), uncle);
        bytes memory head = abi.encodePacked(
            uint8(1), _prefixed(_rootSignature(OWNER_KEY, root)), uint8(1), _prefixed(_attest(ENGINE_A_KEY, _claim()))
        );
        isTrue(_isValid(abi.encodePacked(head, uint8(2), sibling, uncle)), "leaf");
        isTrue(!_isValid(abi.encodePacked(head, uint8(2), uncle, ~sibling)), "no leaf");
        isTrue(!_isValid(abi.encodePacked(head, uint8(1), sibling)), "short proof");
        isTrue(!_isValid(abi.encodePacked(head, uint8(0))), "root signature as operation signature");
        vm.chainId(5);
        isTrue(!_isValid(abi.encodePacked(head, uint8(2), sibling, uncle)), "leaf binds the chain");
    }

    function test_proof_of_a_thief_or_too_deep_fails() public {
        bytes32 root = _pair(_leaf(address(ENTRY_POINT), HASH), bytes32(uint256(1)));
        bytes memory attestation = _prefixed(_attest(ENGINE_A_KEY, _claim()));
        bytes memory stolen = abi.encodePacked(
            uint8(1), _prefixed(_rootSignature(THIEF_KEY, root)), uint8(1), attestation, uint8(1), bytes32(uint256(1))
        );
        isTrue(!_isValid(stolen), "thief");
        bytes32 deep = _leaf(address(ENTRY_POINT), HASH);
        for (uint256 i = 0; i < 33; ++i) {
            deep = _pair(deep, 0);
        }
        bytes memory long = abi.encodePacked(
            uint8(1), _prefixed(_rootSignature(OWNER_KEY, deep)), uint8(1), attestation, uint8(33), new bytes(33 * 32)
        );
        isTrue(!_isValid(long), "depth");
    }

    // ---- escape

    function _startEscape(uint256 key, uint48 expiry) internal {
        bytes32 structHash = keccak256(
            abi.encode(
                keccak256("Escape(address account,uint256 nonce,uint48 expiry)"),
                subject,
                validator.escapeNonce(subject),
                expiry
            )
        );
        bytes memory signature = _sign(key, _typed(_domain("Seawall RiskValidator", address(validator)), structHash));
        validator.startEscape(subject, expiry, signature);
    }

    function _escapeVerdict(bytes memory callData) internal returns (bool, uint48, uint48) {
        PackedUserOperation memory op = _userOp(subject, address(validator), 3, callData);
        op.signature = abi.encodePacked(uint8(3), _prefixed(_sign(OWNER_KEY, HASH)));
        return _parse(_validate(op, HASH));
    }

    function test_escape_is_announced_by_the_owner_only_and_opens_after_its_delay() public {
        bytes memory call = _executeData(address(0xdead), 0, "");
        (bool valid,,) = _escapeVerdict(call);
        isTrue(!valid, "unannounced");
        vm.expectRevert(ValidatorSettings.InvalidOwnerSignature.selector);
        this.startEscape(THIEF_KEY, type(uint48).max);
        vm.expectRevert(abi.encodeWithSelector(ValidatorSettings.Expired.selector, 1));
        this.startEscape(OWNER_KEY, 1);
        _startEscape(OWNER_KEY, type(uint48).max);
        uint48 openAt = uint48(_now() + 3 days);
        eq(validator.escapeOpenAt(subject), openAt, "open at");
        eq(validator.escapeNonce(subject), 1, "nonce");
        (bool valid2, uint48 validAfter,) = _escapeVerdict(call);
        isTrue(valid2, "valid");
        eq(validAfter, openAt, "only after the delay");
        vm.expectRevert(abi.encodeWithSelector(ValidatorSettings.EscapeUnderWay.selector, openAt));
        this.startEscape(OWNER_KEY, type(uint48).max);
    }

    function startEscape(uint256 key, uint48 expiry) external {
        _startEscape(key, expiry);
    }

    function test_escape_is_cancelled_by_the_account_and_its_announcement_is_used_up() public {
        _startEscape(OWNER_KEY, type(uint48).max);
        _call(abi.encodeCall(validator.cancelEscape, ()));
        (bool valid,,) = _escapeVerdict(_executeData(address(target), 0, ""));
        isTrue(!valid, "cancelled");
        vm.expectRevert(ValidatorSettings.NoEscape.selector);
        _call(abi.encodeCall(validator.cancelEscape, ()));
        _startEscape(OWNER_KEY, type(uint48).max);
        eq(validator.escapeNonce(subject), 2, "nonce");
    }

    function test_escape_signature_of_a_thief_or_with_trailing_bytes_fails() public {
        _startEscape(OWNER_KEY, type(uint48).max);
        PackedUserOperation memory op = _userOp(subject, address(validator), 3, "");
        op.signature = abi.encodePacked(uint8(3), _prefixed(_sign(THIEF_KEY, HASH)));
        (bool valid,,) = _parse(_validate(op, HASH));
        isTrue(!valid, "thief");
        op.signature = abi.encodePacked(uint8(3), _prefixed(_sign(OWNER_KEY, HASH)), uint8(0));
        (valid,,) = _parse(_validate(op, HASH));
        isTrue(!valid, "trailing");
    }

    // ---- ERC-1271

    function test_messages_need_owner_and_engine_and_name_no_entry_point() public {
        vm.warp(150);
        Claim memory claim = _claim();
        claim.entryPoint = address(0);
        bytes memory good = _envelope(_sign(OWNER_KEY, HASH), _attest(ENGINE_A_KEY, claim));
        eq(bytes32(_message(good)), bytes32(bytes4(0x1626ba7e)), "message");
        eq(bytes32(_message(_good())), bytes32(bytes4(0xffffffff)), "attestation of an operation");
        isTrue(!_isValid(good), "attestation of a message");
        eq(bytes32(_message("")), bytes32(bytes4(0xffffffff)), "empty");
        bytes memory escape = abi.encodePacked(uint8(3), _prefixed(_sign(OWNER_KEY, HASH)));
        eq(bytes32(_message(escape)), bytes32(bytes4(0xffffffff)), "no escape for messages");
        vm.warp(201);
        eq(bytes32(_message(good)), bytes32(bytes4(0xffffffff)), "late");
        vm.warp(99);
        eq(bytes32(_message(good)), bytes32(bytes4(0xffffffff)), "early");
    }

    function _message(bytes memory signature) internal returns (bytes4) {
        vm.prank(subject);
        return validator.isValidSignatureWithSender(address(this), HASH, signature);
    }

    // ---- ERC-7562

    function test_validation_reads_only_storage_associated_with_the_account_and_writes_none() public {
        vm.startMappingRecording();
        // The mapping recorder learns the preimages as they are hashed.
        vm.record();
        isTrue(_isValid(_good()), "valid");
        (, bytes32[] memory writes) = vm.accesses(address(validator));
        eq(writes.length, 0, "writes");
        _onlyAssociatedReads(address(validator), subject);
    }
}

contract RiskValidatorOnRiskAccountTest is RiskValidatorBehaviour {
    function setUp() public override {
        super.setUp();
        subject = address(account);
        _install(subject, 1, address(validator), _riskData(""));
    }

    function test_before_the_delay_ends_the_escape_allows_declared_exits_and_nothing_else() public {
        _startEscape(OWNER_KEY, type(uint48).max);
        (bool valid, uint48 validAfter,) = _escapeVerdict(_executeData(cold, 1 ether, ""));
        isTrue(valid, "exit");
        eq(validAfter, 0, "at once");
        (, validAfter,) = _escapeVerdict(_executeData(address(target), 0, abi.encodeCall(Target.hit, (1, cold))));
        eq(validAfter, 0, "exit with the right argument");
        (, validAfter,) = _escapeVerdict(_executeData(address(target), 0, abi.encodeCall(Target.hit, (1, owner))));
        isTrue(validAfter != 0, "wrong argument waits");
        (, validAfter,) = _escapeVerdict(abi.encodeCall(account.scheduleAdmin, ("")));
        isTrue(validAfter != 0, "other functions of the account wait");
        Execution[] memory calls = new Execution[](2);
        calls[0] = Execution(cold, 1, "");
        calls[1] = Execution(cold, 2, "");
        (, validAfter,) = _escapeVerdict(abi.encodeCall(account.execute, (BATCH, abi.encode(calls))));
        eq(validAfter, 0, "batch of exits");
        calls[1].target = owner;
        (, validAfter,) = _escapeVerdict(abi.encodeCall(account.execute, (BATCH, abi.encode(calls))));
        isTrue(validAfter != 0, "one other call makes the batch wait");
        bytes memory loose = bytes.concat(_executeData(cold, 1, ""), hex"00");
        (, validAfter,) = _escapeVerdict(loose);
        isTrue(validAfter != 0, "encodings that are not canonical wait");
    }

    function test_escape_validation_reads_only_associated_storage_of_the_authority() public {
        _startEscape(OWNER_KEY, type(uint48).max);
        vm.startMappingRecording();
        vm.record();
        _escapeVerdict(_executeData(address(target), 0, abi.encodeCall(Target.hit, (1, cold))));
        _onlyAssociatedReads(address(validator), subject);
        (bytes32[] memory reads,) = vm.accesses(address(authority));
        isTrue(reads.length != 0, "the authority was asked");
        for (uint256 i = 0; i < reads.length; ++i) {
            isTrue(_associated(address(authority), reads[i], subject), "authority");
        }
    }

    function test_nothing_of_an_installation_survives_its_removal() public {
        _startEscape(OWNER_KEY, type(uint48).max);
        _uninstall(1, address(validator));
        eq(validator.escapeOpenAt(subject), 0, "escape");
        isTrue(!validator.engineEnabled(subject, vm.addr(ENGINE_A_KEY)), "engine");
        address[] memory engines = new address[](1);
        engines[0] = vm.addr(0x999);
        bytes memory data =
            abi.encode(IRiskValidator.InstallData("", engines, 1, 3 days, POLICY, new IRiskValidator.Quorum[](0)));
        _install(subject, 1, address(validator), data);
        isTrue(!validator.engineEnabled(subject, vm.addr(ENGINE_A_KEY)), "old engine");
        (, uint64 epoch) = validator.policyOf(subject);
        eq(epoch, 2, "epochs never repeat");
        isTrue(!_isValid(_good()), "old attestation");
    }

    function test_erc1271_through_the_account() public {
        vm.warp(150);
        bytes32 message = keccak256("message");
        bytes32 structHash = keccak256(abi.encode(keccak256("PersonalSign(bytes prefixed)"), message));
        bytes32 nested = _typed(_domain("Seawall RiskAccount", subject), structHash);
        Claim memory claim = _claim();
        (claim.entryPoint, claim.hash) = (address(0), nested);
        bytes memory inner = _envelope(_sign(OWNER_KEY, nested), _attest(ENGINE_A_KEY, claim));
        bytes4 answer = account.isValidSignature(message, abi.encodePacked(address(validator), inner));
        eq(bytes32(answer), bytes32(bytes4(0x1626ba7e)), "ERC-1271");
    }

    function test_gas_of_validation() public {
        _isValid(_good());
        vm.snapshotGasLastCall("modules", "validateUserOp with RiskValidator and one engine");
    }
}

/// Our account with a validator that its code does not name, which has to ask.
contract UnnamedRiskValidatorTest is RiskValidatorBehaviour {
    function setUp() public override {
        super.setUp();
        subject = address(account);
        validator = new RiskValidator();
        _install(subject, 1, address(validator), _riskData(""));
    }
}

contract RiskValidatorOnForeignAccountTest is RiskValidatorBehaviour {
    function setUp() public override {
        super.setUp();
        subject = address(foreign);
        _install(subject, 1, address(validator), _riskData(_ownerBytes()));
    }

    function test_a_foreign_account_must_name_its_owner_and_a_delay() public {
        RiskValidator fresh = new RiskValidator();
        vm.expectRevert(ValidatorSettings.OwnerRequired.selector);
        _install(subject, 1, address(fresh), _riskData(""));
        address[] memory engines = new address[](1);
        engines[0] = owner;
        bytes memory data = abi.encode(
            IRiskValidator.InstallData(_ownerBytes(), engines, 1, 0, POLICY, new IRiskValidator.Quorum[](0))
        );
        vm.expectRevert(ValidatorSettings.InvalidDelay.selector);
        _install(subject, 1, address(fresh), data);
        data = abi.encode(
            IRiskValidator.InstallData(
                abi.encodePacked(uint8(1), address(target), new bytes(129)),
                engines,
                1,
                1,
                0,
                new IRiskValidator.Quorum[](0)
            )
        );
        vm.expectRevert(abi.encodeWithSelector(ValidatorSettings.OwnerKeyTooLong.selector, 129));
        _install(subject, 1, address(fresh), data);
    }

    function test_a_foreign_account_has_no_exits_before_the_delay() public {
        _startEscape(OWNER_KEY, type(uint48).max);
        (, uint48 validAfter,) = _escapeVerdict(_executeData(cold, 1 ether, ""));
        eq(validAfter, validator.escapeOpenAt(subject), "waits");
    }

    function testFuzz_owner_keys_of_every_length_are_kept(uint8 length) public {
        bytes memory key = new bytes(bound(length, 1, 128));
        for (uint256 i = 0; i < key.length; ++i) {
            key[i] = bytes1(uint8(i + 1));
        }
        RiskValidator fresh = new RiskValidator();
        bytes memory ownerBytes = abi.encodePacked(uint8(1), address(new KeccakVerifier()), key);
        _install(subject, 1, address(fresh), _riskData(ownerBytes));
        validator = fresh;
        bytes memory ownerSignature = abi.encodePacked(keccak256(abi.encodePacked(key, HASH)));
        isTrue(_isValid(_envelope(ownerSignature, _attest(ENGINE_A_KEY, _claim()))), "key");
    }

    function test_contract_owner() public {
        ContractOwner contractOwner = new ContractOwner();
        contractOwner.approve(HASH);
        validator = new RiskValidator();
        _install(subject, 1, address(validator), _riskData(abi.encodePacked(uint8(2), address(contractOwner))));
        isTrue(_isValid(_envelope("", _attest(ENGINE_A_KEY, _claim()))), "ERC-1271 owner");
    }
}
