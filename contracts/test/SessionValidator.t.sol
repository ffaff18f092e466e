// SPDX-License-Identifier: MIT
pragma solidity ^0.8.26;

import {PackedUserOperation} from "@openzeppelin/contracts/interfaces/IERC4337.sol";
import {IERC7579Execution} from "@openzeppelin/contracts/interfaces/draft-IERC7579.sol";
import {IGuard} from "../src/interfaces/IGuard.sol";
import {ISessionValidator} from "../src/interfaces/ISessionValidator.sol";
import {SessionValidator} from "../src/modules/SessionValidator.sol";
import {Target} from "./Actors.sol";
import {RiskState} from "../src/interfaces/IRiskState.sol";
import {SessionRig} from "./SessionRig.sol";

/// One suite, run on our account and on OpenZeppelin's.
abstract contract SessionValidatorBehaviour is SessionRig {
    function test_session_validates_its_call_inside_its_window() public {
        uint256 data = _validate(_sessionOp(_hit()), HASH);
        eq(data, uint256(100) << 208 | uint256(200) << 160, "window");
    }

    function test_anything_but_the_one_call_fails() public {
        bytes memory hit = abi.encodeCall(Target.hit, (1, cold));
        isTrue(!_isValid(_sessionOp(_executeData(cold, 0, hit))), "target");
        isTrue(!_isValid(_sessionOp(_executeData(address(target), 0, abi.encodeCall(Target.refuse, ())))), "selector");
        isTrue(!_isValid(_sessionOp(_executeData(address(target), 1, hit))), "value");
        isTrue(!_isValid(_sessionOp(_executeData(address(target), 0, ""))), "no data");
        isTrue(!_isValid(_sessionOp(_executeData(address(target), 0, hex"ababab"))), "short data");
        bytes memory packed = abi.encodePacked(address(target), uint256(0), hit);
        isTrue(!_isValid(_sessionOp(abi.encodeCall(IERC7579Execution.execute, (BATCH, packed)))), "batch");
        isTrue(!_isValid(_sessionOp(abi.encodeCall(IERC7579Execution.execute, (SINGLE_TRY, packed)))), "try");
        bytes memory other = abi.encodeCall(IERC7579Execution.executeFromExecutor, (SINGLE, packed));
        isTrue(!_isValid(_sessionOp(other)), "another function of the account");
        isTrue(!_isValid(_sessionOp(bytes.concat(_hit(), hex"00"))), "trailing byte");
        isTrue(!_isValid(_sessionOp("")), "empty");
    }

    function testFuzz_bent_encodings_fail(uint256 offset, uint256 length) public {
        if (offset % 3 == 0) offset = 0x40; // most of the time a wrong length alone
        if (length % 3 == 0) length %= 256;
        bytes memory packed = abi.encodePacked(address(target), uint256(0), abi.encodeCall(Target.hit, (1, cold)));
        // A few zero bytes of padding taken into the call are another canonical encoding, of longer arguments.
        vm.assume(offset != 0x40 || length < packed.length || length > packed.length + 8);
        isTrue(!_isValid(_sessionOp(_bent(offset, length, packed))), "bent");
    }

    function test_call_data_hidden_in_the_padding_fails() public {
        bytes memory packed = abi.encodePacked(address(target), uint256(0), abi.encodeCall(Target.hit, (1, cold)));
        eq(packed.length, 120, "length");
        isTrue(_isValid(_sessionOp(_bent(0x40, 120, packed))), "straight");
        isTrue(!_isValid(_sessionOp(_bent(0x40, 100, packed))), "bytes after the end");
    }

    function _bent(uint256 offset, uint256 length, bytes memory packed) private pure returns (bytes memory) {
        bytes memory head = abi.encodePacked(IERC7579Execution.execute.selector, SINGLE, offset, length);
        return abi.encodePacked(head, packed, new bytes(32 - packed.length % 32));
    }

    function test_lane_type_length_and_signer_are_checked() public {
        PackedUserOperation memory op = _sessionOp(_hit());
        bytes memory good = op.signature;
        op.signature = abi.encodePacked(uint8(2), id, _sign(THIEF_KEY, HASH));
        isTrue(!_isValid(op), "thief");
        op.signature = abi.encodePacked(uint8(1), id, _sign(SESSION_KEY, HASH));
        isTrue(!_isValid(op), "type");
        op.signature = bytes.concat(good, hex"00");
        isTrue(!_isValid(op), "trailing");
        op.signature = abi.encodePacked(uint8(2), bytes32(uint256(1)), _sign(SESSION_KEY, HASH));
        isTrue(!_isValid(op), "unknown session");
        op.signature = good;
        for (uint256 lane = 0; lane < 4; ++lane) {
            op.nonce = uint256(uint160(address(sessions))) << 96 | lane << 88;
            isTrue(_isValid(op) == (lane == 2), "lane");
        }
        vm.prank(address(0xbad));
        eq(sessions.validateUserOp(op, HASH), FAILED, "another account");
    }

    function testFuzz_all_operations_together_stay_inside_the_budget(uint64[6] memory fees) public {
        uint256 spent = 0;
        for (uint256 i = 0; i < 6; ++i) {
            PackedUserOperation memory op = _sessionOp(_hit());
            op.gasFees = bytes32(bound(fees[i], 1, 600 gwei));
            bool fits = spent + _prefund(op) <= 0.1 ether;
            isTrue(_isValid(op) == fits, "fits");
            if (fits) spent += _prefund(op);
            (, uint128 recorded) = sessions.sessionOf(subject, id);
            eq(recorded, spent, "spent");
        }
    }

    function test_sponsored_operations_do_not_spend_the_budget() public {
        PackedUserOperation memory op = _sessionOp(_hit());
        op.gasFees = bytes32(uint256(1 ether));
        op.paymasterAndData = abi.encodePacked(address(1), uint128(1), uint128(1));
        isTrue(_isValid(op), "sponsored");
        (, uint128 spent) = sessions.sessionOf(subject, id);
        eq(spent, 0, "spent");
    }

    function test_revoked_at_once_and_enabling_again_is_a_new_consent() public {
        isTrue(_isValid(_sessionOp(_hit())), "before");
        vm.expectRevert(abi.encodeWithSelector(SessionValidator.SessionAlreadyEnabled.selector, id));
        _enable(_session());
        _revoke(id);
        isTrue(!_isValid(_sessionOp(_hit())), "after");
        vm.expectRevert(abi.encodeWithSelector(SessionValidator.SessionUnknown.selector, id));
        _revoke(id);
        eq(_enable(_session()), id, "id");
        (, uint128 spent) = sessions.sessionOf(subject, id);
        eq(spent, 0, "spent");
    }

    function test_sessions_never_target_account_entry_points_or_modules() public {
        ISessionValidator.Session memory session = _session();
        address[7] memory forbidden = [
            subject,
            address(0),
            address(ENTRY_POINT),
            0x0000000071727De22E5E9d8BAf0edAc6f37da032,
            0x433709009B8330FDa32311DF1C2AFA402eD8D009,
            address(sessions),
            address(authority)
        ];
        if (subject == address(foreign)) _install(subject, 4, address(authority), abi.encode(_freezeData()));
        for (uint256 i = 0; i < forbidden.length; ++i) {
            session.target = forbidden[i];
            vm.expectRevert(
                abi.encodeWithSelector(SessionValidator.ForbiddenTarget.selector, forbidden[i], session.selector)
            );
            _enable(session);
        }
        _install(subject, 2, address(stopLoss), "");
        session.target = address(stopLoss);
        session.selector = stopLoss.reduce.selector;
        vm.expectPartialRevert(SessionValidator.ForbiddenTarget.selector);
        _enable(session);
        session.selector = IGuard.execute.selector;
        _enable(session);
        session.selector = IGuard.touch.selector;
        _enable(session);
        session.target = subject;
        vm.expectPartialRevert(SessionValidator.ForbiddenTarget.selector);
        _enable(session);
    }

    function test_nobody_clears_sessions_of_an_account_that_has_the_module() public {
        vm.expectRevert(abi.encodeWithSelector(SessionValidator.AlreadyInstalled.selector, subject));
        sessions.clearAbandoned(subject, new bytes32[](1));
    }

    function test_sessions_without_key_or_window_are_refused() public {
        ISessionValidator.Session memory session = _session();
        session.key = address(0);
        vm.expectRevert(SessionValidator.InvalidSession.selector);
        _enable(session);
        session = _session();
        session.validUntil = session.validAfter;
        vm.expectRevert(SessionValidator.InvalidSession.selector);
        _enable(session);
        session.validUntil = type(uint48).max;
        vm.expectRevert(SessionValidator.InvalidSession.selector);
        _enable(session);
        vm.expectRevert(abi.encodeWithSelector(SessionValidator.NotInstalled.selector, address(this)));
        sessions.enableSession(_session(), "");
    }

    function test_a_session_signs_no_messages() public {
        vm.prank(subject);
        bytes memory signature = _sessionOp(_hit()).signature;
        bytes4 answer = sessions.isValidSignatureWithSender(address(this), HASH, signature);
        eq(bytes32(answer), bytes32(bytes4(0xffffffff)), "ERC-1271");
    }

    function test_validation_touches_only_storage_associated_with_the_account() public {
        vm.startMappingRecording();
        vm.record();
        isTrue(_isValid(_sessionOp(_hit())), "valid");
        _onlyAssociatedReads(address(sessions), subject);
    }
}

contract SessionValidatorOnRiskAccountTest is SessionValidatorBehaviour {
    function setUp() public override {
        super.setUp();
        _begin(address(account));
    }

    function test_a_session_operation_runs_end_to_end() public {
        PackedUserOperation memory op = _sessionOp(_hit());
        isTrue(_isValid(op), "valid");
        _op(subject, op.callData);
        eq(target.calls(), 1, "ran");
    }

    function test_sessions_die_with_the_installation() public {
        _uninstall(1, address(sessions));
        isTrue(!_isValid(_sessionOp(_hit())), "uninstalled");
        (ISessionValidator.Session memory session,) = sessions.sessionOf(subject, id);
        eq(session.key, address(0), "gone");
        vm.expectRevert(abi.encodeWithSelector(SessionValidator.SessionsLeft.selector, subject, 1));
        _install(subject, 1, address(sessions), "");
        bytes32[] memory left = new bytes32[](2);
        (left[0], left[1]) = (id, keccak256("another"));
        sessions.clearAbandoned(subject, left);
        sessions.clearAbandoned(subject, left);
        eq(sessions.liveSessions(subject), 0, "live");
        _install(subject, 1, address(sessions), "");
        isTrue(!_isValid(_sessionOp(_hit())), "of an earlier installation");
    }

    function test_a_session_cannot_act_outside_active() public {
        _as(
            vm.addr(GUARDIAN_KEYS[0]), address(authority), abi.encodeCall(authority.freeze, (subject, RiskState.FROZEN))
        );
        vm.expectRevert();
        _op(subject, _executeData(address(target), 0, abi.encodeCall(Target.hit, (1, owner))));
    }
}

contract SessionValidatorOnForeignAccountTest is SessionValidatorBehaviour {
    function setUp() public override {
        super.setUp();
        _begin(address(foreign));
    }
}
