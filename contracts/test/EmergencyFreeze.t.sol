// SPDX-License-Identifier: MIT
pragma solidity ^0.8.26;

import {
    Execution,
    IERC7579Execution,
    IERC7579ModuleConfig
} from "@openzeppelin/contracts/interfaces/draft-IERC7579.sol";
import {IEmergencyFreeze} from "../src/interfaces/IEmergencyFreeze.sol";
import {IGuard} from "../src/interfaces/IGuard.sol";
import {RiskState} from "../src/interfaces/IRiskState.sol";
import {EmergencyFreeze} from "../src/modules/EmergencyFreeze.sol";
import {ExitRegistry} from "../src/modules/ExitRegistry.sol";
import {PlainModule, Target} from "./Actors.sol";
import {Base} from "./Base.sol";

/// One suite, run on our account (its authority) and on OpenZeppelin's (its hook).
abstract contract EmergencyFreezeBehaviour is Base {
    address internal subject;
    uint48 internal constant LATER = type(uint48).max;
    bytes32 private constant FREEZE =
        keccak256("Freeze(address account,uint8 state,uint64 epoch,uint256 nonce,uint48 expiry)");
    bytes32 private constant THAW =
        keccak256("Thaw(address account,uint8 state,uint64 epoch,uint256 nonce,uint48 expiry)");
    bytes32 private constant CANCEL = keccak256("Cancel(address account,uint64 epoch,uint256 nonce,uint48 expiry)");
    bytes32 private constant REPLACE = keccak256(
        "ReplaceGuardian(address account,address oldGuardian,address newGuardian,uint64 epoch,uint256 nonce,uint48 expiry)"
    );

    function _guardian(uint256 i) internal view returns (address) {
        return vm.addr(GUARDIAN_KEYS[i]);
    }

    function _epoch() internal view returns (uint64 epoch) {
        (, epoch) = authority.stateOf(subject);
    }

    function _is(RiskState wanted) internal view {
        (RiskState state,) = authority.stateOf(subject);
        eq(uint256(state), uint256(wanted), "state");
    }

    function _solo(uint256 i, RiskState state) internal {
        _as(_guardian(i), address(authority), abi.encodeCall(authority.freeze, (subject, state)));
    }

    function _freezeMessage(RiskState state) internal view returns (bytes32) {
        return keccak256(abi.encode(FREEZE, subject, state, _epoch(), authority.nonceOf(subject), LATER));
    }

    function bySig(uint256 count, RiskState state) public {
        (address[] memory signers, bytes[] memory signatures) = _guardians(count, _freezeMessage(state));
        authority.freezeBySig(subject, state, LATER, signers, signatures);
    }

    function requestThaw(uint256 count, RiskState state) public {
        bytes32 message = keccak256(abi.encode(THAW, subject, state, _epoch(), authority.nonceOf(subject), LATER));
        (address[] memory signers, bytes[] memory signatures) = _guardians(count, message);
        authority.requestThaw(subject, state, LATER, signers, signatures);
    }

    function cancel(uint256 count) public {
        bytes32 message = keccak256(abi.encode(CANCEL, subject, _epoch(), authority.nonceOf(subject), LATER));
        (address[] memory signers, bytes[] memory signatures) = _guardians(count, message);
        authority.cancel(subject, LATER, signers, signatures);
    }

    function replaceGuardian(uint256 count, address from, address to) public {
        bytes32 message = keccak256(abi.encode(REPLACE, subject, from, to, _epoch(), authority.nonceOf(subject), LATER));
        (address[] memory signers, bytes[] memory signatures) = _guardians(count, message);
        authority.replaceGuardian(subject, from, to, LATER, signers, signatures);
    }

    function _asAccount(bytes memory data) internal {
        _execute(subject, address(authority), 0, data);
    }

    function _startEscape() internal {
        _asAccount(abi.encodeCall(authority.startEscape, ()));
    }

    // ---- one guardian

    function test_one_guardian_stops_the_account_at_once_and_a_stranger_does_not() public {
        vm.expectRevert(abi.encodeWithSelector(EmergencyFreeze.NotGuardian.selector, address(this)));
        authority.freeze(subject, RiskState.FROZEN);
        _solo(0, RiskState.FROZEN);
        _is(RiskState.FROZEN);
        eq(_epoch(), 1, "epoch");
        vm.expectRevert();
        _execute(subject, address(0xbad), 1, "");
        _execute(subject, cold, 1, "");
        eq(cold.balance, 1, "exit");
    }

    function test_solo_freeze_expires_and_waits_for_its_cooldown() public {
        uint256 start = _now();
        _solo(0, RiskState.REDUCE_ONLY);
        vm.expectRevert(abi.encodeWithSelector(EmergencyFreeze.TooEarly.selector, start + 1 days));
        authority.expire(subject);
        vm.warp(start + 1 days);
        authority.expire(subject);
        _is(RiskState.ACTIVE);
        vm.expectRevert(EmergencyFreeze.NothingPending.selector);
        authority.expire(subject);
        vm.expectRevert(abi.encodeWithSelector(EmergencyFreeze.CoolingDown.selector, start + 3 days));
        _solo(1, RiskState.FROZEN);
        vm.warp(start + 3 days);
        _solo(1, RiskState.FROZEN);
        _is(RiskState.FROZEN);
    }

    function test_solo_freeze_that_nobody_ended_makes_way_for_the_next() public {
        _solo(0, RiskState.FROZEN);
        vm.warp(_now() + 3 days);
        _solo(1, RiskState.REDUCE_ONLY);
        _is(RiskState.REDUCE_ONLY);
        vm.warp(_now() + 1 days);
        authority.expire(subject);
        _is(RiskState.ACTIVE);
    }

    function test_solo_freeze_tightens_without_lengthening_and_never_loosens() public {
        uint256 start = _now();
        _solo(0, RiskState.REDUCE_ONLY);
        vm.warp(start + 12 hours);
        _solo(1, RiskState.FROZEN);
        _is(RiskState.FROZEN);
        (,,, uint48 soloUntil) = authority.pendingOf(subject);
        eq(soloUntil, start + 1 days, "until");
        RiskState[3] memory looser = [RiskState.ACTIVE, RiskState.REDUCE_ONLY, RiskState.FROZEN];
        for (uint256 i = 0; i < 3; ++i) {
            vm.expectRevert(
                abi.encodeWithSelector(EmergencyFreeze.WrongDirection.selector, RiskState.FROZEN, looser[i])
            );
            _solo(2, looser[i]);
        }
    }

    function test_a_guardian_signature_can_be_relayed_by_anyone_once() public {
        bytes32 message = _freezeMessage(RiskState.FROZEN);
        (address[] memory signers, bytes[] memory signatures) = _guardians(1, message);
        authority.freezeBySig(subject, RiskState.FROZEN, LATER, signers, signatures);
        _is(RiskState.FROZEN);
        (,,, uint48 soloUntil) = authority.pendingOf(subject);
        isTrue(soloUntil != 0, "solo");
        vm.warp(_now() + 3 days);
        authority.expire(subject);
        vm.expectRevert(EmergencyFreeze.InvalidSignatures.selector);
        authority.freezeBySig(subject, RiskState.FROZEN, LATER, signers, signatures);
    }

    // ---- the quorum

    function test_quorum_freeze_lasts_until_thawed_with_delay() public {
        bySig(2, RiskState.FROZEN);
        _is(RiskState.FROZEN);
        vm.warp(_now() + 365 days);
        vm.expectRevert(EmergencyFreeze.NothingPending.selector);
        authority.expire(subject);
        vm.expectRevert(EmergencyFreeze.NothingPending.selector);
        authority.thaw(subject);
        vm.expectRevert(EmergencyFreeze.InvalidSignatures.selector);
        this.requestThaw(1, RiskState.ACTIVE);
        requestThaw(2, RiskState.REDUCE_ONLY);
        uint256 at = _now() + 1 hours;
        vm.expectRevert(abi.encodeWithSelector(EmergencyFreeze.TooEarly.selector, at));
        authority.thaw(subject);
        vm.warp(at);
        authority.thaw(subject);
        _is(RiskState.REDUCE_ONLY);
        requestThaw(3, RiskState.ACTIVE);
        vm.warp(_now() + 1 hours);
        authority.thaw(subject);
        _is(RiskState.ACTIVE);
    }

    function test_quorum_may_freeze_during_the_cooldown_and_makes_a_solo_freeze_last() public {
        _solo(0, RiskState.FROZEN);
        bySig(2, RiskState.FROZEN);
        vm.expectRevert(EmergencyFreeze.NothingPending.selector);
        authority.expire(subject);
        _is(RiskState.FROZEN);
    }

    function test_weaker_quorum_freeze_stands_under_a_stricter_solo_freeze() public {
        _solo(0, RiskState.FROZEN);
        bySig(2, RiskState.REDUCE_ONLY);
        _is(RiskState.FROZEN);
        vm.warp(_now() + 1 days);
        authority.expire(subject);
        _is(RiskState.REDUCE_ONLY);
    }

    function test_signers_must_be_ascending_distinct_guardians_in_time() public {
        bytes32 message = _freezeMessage(RiskState.FROZEN);
        (address[] memory s, bytes[] memory sig) = _guardians(2, message);
        bytes4 bad = EmergencyFreeze.InvalidSignatures.selector;
        (s[0], s[1], sig[0], sig[1]) = (s[1], s[0], sig[1], sig[0]);
        vm.expectRevert(bad);
        authority.freezeBySig(subject, RiskState.FROZEN, LATER, s, sig);
        (s[1], sig[1]) = (s[0], sig[0]);
        vm.expectRevert(bad);
        authority.freezeBySig(subject, RiskState.FROZEN, LATER, s, sig);
        (s, sig) = _guardians(2, message);
        sig[1] = _sign(THIEF_KEY, message);
        vm.expectRevert(bad);
        authority.freezeBySig(subject, RiskState.FROZEN, LATER, s, sig);
        (s, sig) = _guardians(2, message);
        vm.expectRevert(bad); // another state than was signed
        authority.freezeBySig(subject, RiskState.REDUCE_ONLY, LATER, s, sig);
        vm.expectRevert(bad);
        authority.freezeBySig(subject, RiskState.FROZEN, LATER, new address[](0), new bytes[](0));
        vm.expectRevert(abi.encodeWithSelector(EmergencyFreeze.Expired.selector, 5));
        authority.freezeBySig(subject, RiskState.FROZEN, 5, s, sig);
        authority.freezeBySig(subject, RiskState.FROZEN, LATER, s, sig);
    }

    function test_a_signed_message_dies_with_its_epoch() public {
        (address[] memory s, bytes[] memory sig) = _guardians(2, _freezeMessage(RiskState.FROZEN));
        _solo(0, RiskState.REDUCE_ONLY);
        vm.expectRevert(EmergencyFreeze.InvalidSignatures.selector);
        authority.freezeBySig(subject, RiskState.FROZEN, LATER, s, sig);
    }

    function test_thaw_ends_the_solo_freeze_it_was_asked_in_and_no_later_one() public {
        _solo(0, RiskState.FROZEN);
        requestThaw(2, RiskState.ACTIVE);
        uint256 snapshot = vm.snapshotState();
        vm.warp(_now() + 1 hours);
        authority.thaw(subject);
        _is(RiskState.ACTIVE);
        vm.revertToState(snapshot);
        vm.warp(_now() + 3 days);
        authority.expire(subject);
        _solo(1, RiskState.FROZEN);
        authority.thaw(subject);
        _is(RiskState.FROZEN);
    }

    function test_thaw_never_tightens_and_freezing_by_quorum_withdraws_it() public {
        vm.expectRevert(
            abi.encodeWithSelector(EmergencyFreeze.WrongDirection.selector, RiskState.ACTIVE, RiskState.ACTIVE)
        );
        this.requestThaw(2, RiskState.ACTIVE);
        bySig(2, RiskState.REDUCE_ONLY);
        requestThaw(2, RiskState.ACTIVE);
        bySig(2, RiskState.FROZEN);
        vm.warp(_now() + 1 days);
        vm.expectRevert(EmergencyFreeze.NothingPending.selector);
        authority.thaw(subject);
    }

    // ---- the account's own way out

    function test_escape_starts_only_when_frozen_and_lands_one_step_looser_each_time() public {
        vm.expectRevert(abi.encodeWithSelector(EmergencyFreeze.NotInState.selector, RiskState.ACTIVE));
        _startEscape();
        bySig(2, RiskState.FROZEN);
        _startEscape();
        vm.expectPartialRevert(EmergencyFreeze.TooEarly.selector);
        authority.finishEscape(subject);
        vm.warp(_now() + 7 days);
        authority.finishEscape(subject);
        _is(RiskState.REDUCE_ONLY);
        vm.expectRevert(EmergencyFreeze.NothingPending.selector);
        authority.finishEscape(subject);
        _startEscape();
        vm.warp(_now() + 7 days);
        authority.finishEscape(subject);
        _is(RiskState.ACTIVE);
    }

    function test_escape_from_a_solo_freeze_never_makes_it_last() public {
        _solo(0, RiskState.FROZEN);
        _startEscape();
        vm.warp(_now() + 7 days);
        authority.finishEscape(subject);
        _is(RiskState.REDUCE_ONLY);
        authority.expire(subject);
        _is(RiskState.ACTIVE);
    }

    function test_quorum_cancels_escape_and_thaw_and_one_guardian_cannot() public {
        bySig(2, RiskState.FROZEN);
        _startEscape();
        requestThaw(2, RiskState.ACTIVE);
        vm.expectRevert(EmergencyFreeze.InvalidSignatures.selector);
        this.cancel(1);
        cancel(2);
        (uint48 thawAt,, uint48 escapeAt,) = authority.pendingOf(subject);
        eq(thawAt, 0, "thaw");
        eq(escapeAt, 0, "escape");
        vm.expectRevert(EmergencyFreeze.NothingPending.selector);
        this.cancel(2);
    }

    function test_an_escape_does_not_outlive_the_freeze_it_was_started_in() public {
        _solo(0, RiskState.FROZEN);
        _startEscape();
        vm.warp(_now() + 3 days);
        authority.expire(subject);
        _solo(0, RiskState.FROZEN);
        vm.warp(_now() + 30 days);
        vm.expectRevert(EmergencyFreeze.NothingPending.selector);
        authority.finishEscape(subject);
    }

    // ---- settings

    function test_settings_change_by_the_active_account_only() public {
        vm.expectRevert(abi.encodeWithSelector(EmergencyFreeze.NotInstalled.selector, address(this)));
        authority.setQuorum(1);
        _asAccount(abi.encodeCall(authority.setQuorum, (3)));
        vm.expectRevert(abi.encodeWithSelector(EmergencyFreeze.InvalidQuorum.selector, 3, 2));
        _asAccount(abi.encodeCall(authority.setGuardian, (_guardian(0), false)));
        vm.expectRevert(abi.encodeWithSelector(EmergencyFreeze.InvalidQuorum.selector, 4, 3));
        _asAccount(abi.encodeCall(authority.setQuorum, (4)));
        vm.expectRevert(abi.encodeWithSelector(EmergencyFreeze.InvalidGuardian.selector, _guardian(0)));
        _asAccount(abi.encodeCall(authority.setGuardian, (_guardian(0), true)));
        _asAccount(abi.encodeCall(authority.setGuardian, (address(0x77), true)));
        (uint8 quorum, uint8 guardians) = authority.quorumOf(subject);
        eq(uint256(quorum) << 8 | guardians, 0x0304, "counts");
        _solo(0, RiskState.FROZEN);
        bytes[4] memory calls = [
            abi.encodeCall(authority.setQuorum, (1)),
            abi.encodeCall(authority.setGuardian, (address(0x78), true)),
            abi.encodeCall(authority.setGuard, (address(0x78), true)),
            abi.encodeCall(authority.setExit, (_exit(address(0x78), 0x12345678, true), true))
        ];
        for (uint256 i = 0; i < 4; ++i) {
            vm.expectRevert();
            _asAccount(calls[i]);
            vm.expectRevert(abi.encodeWithSelector(EmergencyFreeze.NotInState.selector, RiskState.FROZEN));
            _as(subject, address(authority), calls[i]);
        }
    }

    function test_quorum_replaces_a_guardian_while_frozen() public {
        bySig(2, RiskState.FROZEN);
        vm.expectRevert(EmergencyFreeze.InvalidSignatures.selector);
        this.replaceGuardian(1, _guardian(0), address(0x77));
        replaceGuardian(2, _guardian(0), address(0x77));
        isTrue(!authority.isGuardian(subject, _guardian(0)), "old");
        isTrue(authority.isGuardian(subject, address(0x77)), "new");
    }

    function test_delays_change_by_the_active_account_only_and_stay_sound() public {
        IEmergencyFreeze.Delays memory delays = authority.delaysOf(subject);
        eq(delays.soloFreeze, 1 days, "solo freeze");
        eq(delays.soloCooldown, 3 days, "cool-down");
        eq(delays.thaw, 1 hours, "thaw");
        eq(delays.escape, 7 days, "escape");
        delays = IEmergencyFreeze.Delays(2 days, 4 days, 5 hours, 6 days);
        _as(subject, address(authority), abi.encodeCall(authority.setDelays, (delays)));
        eq(keccak256(abi.encode(authority.delaysOf(subject))), keccak256(abi.encode(delays)), "changed");
        IEmergencyFreeze.Delays memory wrong = IEmergencyFreeze.Delays(2 days, 2 days, 0, 0);
        vm.expectRevert(EmergencyFreeze.InvalidTimes.selector);
        _as(subject, address(authority), abi.encodeCall(authority.setDelays, (wrong)));
        (wrong.soloFreeze, wrong.soloCooldown) = (0, 1);
        vm.expectRevert(EmergencyFreeze.InvalidTimes.selector);
        _as(subject, address(authority), abi.encodeCall(authority.setDelays, (wrong)));
        _as(
            vm.addr(GUARDIAN_KEYS[0]), address(authority), abi.encodeCall(authority.freeze, (subject, RiskState.FROZEN))
        );
        vm.expectRevert(abi.encodeWithSelector(EmergencyFreeze.NotInState.selector, RiskState.FROZEN));
        _as(subject, address(authority), abi.encodeCall(authority.setDelays, (delays)));
        vm.expectRevert(abi.encodeWithSelector(EmergencyFreeze.NotInstalled.selector, address(this)));
        authority.setDelays(delays);
    }

    function test_an_exit_is_known_by_exactly_what_it_binds() public {
        IEmergencyFreeze.Exit memory exit = IEmergencyFreeze.Exit(cold, 0, true, true, 0, new bytes32[](0));
        isTrue(authority.isExit(subject, exit), "plain value");
        exit.inFrozen = false;
        isTrue(!authority.isExit(subject, exit), "another level");
        exit = _exit(address(target), Target.refuse.selector, false);
        isTrue(authority.isExit(subject, exit), "call");
        exit.target = owner;
        isTrue(!authority.isExit(subject, exit), "target");
        exit = IEmergencyFreeze.Exit(address(target), Target.hit.selector, true, false, 2, new bytes32[](1));
        isTrue(!authority.isExit(subject, exit), "argument");
        exit.args[0] = bytes32(uint256(uint160(cold)));
        isTrue(authority.isExit(subject, exit), "with its argument");
        _as(subject, address(authority), abi.encodeCall(authority.setExit, (exit, false)));
        isTrue(!authority.isExit(subject, exit), "withdrawn");
    }

    function test_exits_are_declared_and_withdrawn() public {
        bytes memory call = abi.encodeWithSelector(0x12345678, 1);
        IEmergencyFreeze.Exit memory exit = _exit(address(target), 0x12345678, true);
        isTrue(!_permits(call), "before");
        _asAccount(abi.encodeCall(authority.setExit, (exit, true)));
        isTrue(_permits(call), "declared");
        _asAccount(abi.encodeCall(authority.setExit, (exit, false)));
        isTrue(!_permits(call), "withdrawn");
        isTrue(authority.permits(subject, RiskState.ACTIVE, address(target), 1 ether, call), "ACTIVE permits all");
    }

    function _permits(bytes memory call) private view returns (bool) {
        return authority.permits(subject, RiskState.FROZEN, address(target), 0, call);
    }

    function testFuzz_an_exit_binds_exactly_the_arguments_of_its_mask(uint8 mask, bytes32[8] memory words, uint256 bent)
        public
    {
        uint256 count = 0;
        for (uint256 i = 0; i < 8; ++i) {
            if (mask >> i & 1 == 1) ++count;
        }
        bytes32[] memory args = new bytes32[](count);
        count = 0;
        for (uint256 i = 0; i < 8; ++i) {
            if (mask >> i & 1 == 1) args[count++] = words[i];
        }
        IEmergencyFreeze.Exit memory exit = IEmergencyFreeze.Exit(address(target), 0x12345678, true, false, mask, args);
        _asAccount(abi.encodeCall(authority.setExit, (exit, true)));
        bytes memory call = abi.encodePacked(bytes4(0x12345678), abi.encode(words));
        isTrue(_permits(call), "as declared");
        bent = bent % 8;
        words[bent] = ~words[bent];
        call = abi.encodePacked(bytes4(0x12345678), abi.encode(words));
        isTrue(_permits(call) == (mask >> bent & 1 == 0), "one word bent");
        if (mask != 0) isTrue(!_permits(hex"12345678"), "too short");
    }

    function test_exits_to_the_account_or_the_authority_and_malformed_ones_are_refused() public {
        IEmergencyFreeze.Exit[5] memory bad;
        bad[0] = _exit(subject, 0x12345678, true);
        bad[1] = _exit(address(authority), authority.setExit.selector, true);
        bad[2] = _exit(address(0), 0x12345678, true);
        bad[3] = _exit(address(target), 0x12345678, true);
        bad[3].argMask = 1;
        bad[4] = _exit(address(target), 0x12345678, true);
        bad[4].plainValue = true;
        for (uint256 i = 0; i < 5; ++i) {
            vm.expectRevert(ExitRegistry.InvalidExit.selector);
            _asAccount(abi.encodeCall(authority.setExit, (bad[i], true)));
        }
    }

    function test_guards_may_be_poked_and_only_for_this_account() public view {
        bytes memory poke = abi.encodeCall(IGuard.execute, (subject, 1));
        isTrue(authority.permits(subject, RiskState.FROZEN, address(stopLoss), 0, poke), "execute");
        poke = abi.encodeCall(IGuard.touch, (subject, 1));
        isTrue(authority.permits(subject, RiskState.FROZEN, address(stopLoss), 0, poke), "touch");
        isTrue(!authority.permits(subject, RiskState.FROZEN, address(target), 0, poke), "no guard");
        isTrue(!authority.permits(subject, RiskState.FROZEN, address(stopLoss), 1, poke), "value");
        poke = abi.encodeCall(IGuard.touch, (address(1), 1));
        isTrue(!authority.permits(subject, RiskState.FROZEN, address(stopLoss), 0, poke), "another account");
        bytes memory arm = abi.encodeWithSelector(stopLoss.cancel.selector, subject, 1);
        isTrue(!authority.permits(subject, RiskState.FROZEN, address(stopLoss), 0, arm), "another function");
        bytes memory escape = abi.encodeCall(authority.startEscape, ());
        isTrue(authority.permits(subject, RiskState.FROZEN, address(authority), 0, escape), "escape");
        bytes memory quorum = abi.encodeCall(authority.setQuorum, (1));
        isTrue(!authority.permits(subject, RiskState.FROZEN, address(authority), 0, quorum), "settings");
    }

    function test_installation_checks_times_quorum_and_guardians() public {
        EmergencyFreeze fresh = new EmergencyFreeze();
        uint256 kind = subject == address(account) ? 2 : 2;
        IEmergencyFreeze.InstallData memory data = _freezeData();
        data.soloCooldownSeconds = data.soloFreezeSeconds;
        vm.expectRevert(EmergencyFreeze.InvalidTimes.selector);
        _install(subject, kind, address(fresh), abi.encode(data));
        data = _freezeData();
        data.quorum = 4;
        vm.expectRevert(abi.encodeWithSelector(EmergencyFreeze.InvalidQuorum.selector, 4, 3));
        _install(subject, kind, address(fresh), abi.encode(data));
        data = _freezeData();
        data.guardians[1] = data.guardians[0];
        vm.expectRevert(abi.encodeWithSelector(EmergencyFreeze.InvalidGuardian.selector, data.guardians[0]));
        _install(subject, kind, address(fresh), abi.encode(data));
        data.guardians[1] = subject;
        vm.expectRevert(abi.encodeWithSelector(EmergencyFreeze.InvalidGuardian.selector, subject));
        _install(subject, kind, address(fresh), abi.encode(data));
    }

    /// Whatever guardians do, one of them alone cannot keep the account from being ACTIVE at some time in each cool-down.
    function testFuzz_one_guardian_cannot_hold_the_account(uint32[12] memory waits) public {
        uint256 activeSeconds = 0;
        for (uint256 i = 0; i < 12; ++i) {
            uint256 wait = waits[i] % 4 days;
            vm.warp(_now() + wait);
            try this.soloAsGuardian() {} catch {}
            try authority.expire(subject) {} catch {}
            (RiskState state,) = authority.stateOf(subject);
            if (state == RiskState.ACTIVE) ++activeSeconds;
            (,,, uint48 soloUntil) = authority.pendingOf(subject);
            isTrue(soloUntil <= _now() + 1 days, "never longer than configured");
        }
        vm.warp(_now() + 1 days);
        try authority.expire(subject) {} catch {}
        _is(RiskState.ACTIVE);
    }

    function soloAsGuardian() external {
        _solo(0, RiskState.FROZEN);
    }
}

contract EmergencyFreezeAsAuthorityTest is EmergencyFreezeBehaviour {
    function setUp() public override {
        super.setUp();
        subject = address(account);
    }

    function test_quorum_withdraws_an_announced_administrative_call() public {
        bytes memory change = abi.encodeCall(account.setPrefundCaps, ([CAP, CAP, CAP]));
        _op(subject, abi.encodeCall(account.scheduleAdmin, (change)));
        bytes32 typeHash =
            keccak256("CancelAdmin(address account,bytes32 actionHash,uint64 epoch,uint256 nonce,uint48 expiry)");
        bytes32 message =
            keccak256(abi.encode(typeHash, subject, keccak256(change), _epoch(), authority.nonceOf(subject), LATER));
        (address[] memory signers, bytes[] memory signatures) = _guardians(1, message);
        vm.expectRevert(EmergencyFreeze.InvalidSignatures.selector);
        authority.cancelAdmin(subject, keccak256(change), LATER, signers, signatures);
        (signers, signatures) = _guardians(2, message);
        authority.cancelAdmin(subject, keccak256(change), LATER, signers, signatures);
        eq(account.adminExecutableAt(keccak256(change)), 0, "withdrawn");
    }

    function test_nothing_of_an_installation_survives_its_removal() public {
        _uninstall(2, address(authority));
        isTrue(!authority.isGuardian(subject, _guardian(0)), "guardian");
        isTrue(!authority.isGuard(subject, address(stopLoss)), "guard");
        isTrue(!authority.permits(subject, RiskState.FROZEN, cold, 1, ""), "exit");
        vm.expectRevert(abi.encodeWithSelector(EmergencyFreeze.NotInstalled.selector, subject));
        _solo(0, RiskState.FROZEN);
    }

    function test_the_gas_of_a_freeze() public {
        vm.prank(_guardian(0));
        authority.freeze(subject, RiskState.FROZEN);
        vm.snapshotGasLastCall("modules", "EmergencyFreeze.freeze by one guardian");
    }
}

contract EmergencyFreezeAsHookTest is EmergencyFreezeBehaviour {
    PlainModule internal executor;

    function setUp() public override {
        super.setUp();
        subject = address(foreign);
        executor = new PlainModule();
        _install(subject, 2, address(executor), "");
        _install(subject, 4, address(authority), abi.encode(_freezeData()));
    }

    function test_batches_are_checked_call_by_call_and_other_functions_are_closed() public {
        _solo(0, RiskState.FROZEN);
        Execution[] memory calls = new Execution[](2);
        calls[0] = Execution(cold, 1, "");
        calls[1] = Execution(cold, 2, "");
        _op(subject, abi.encodeCall(IERC7579Execution.execute, (BATCH, abi.encode(calls))));
        eq(cold.balance, 3, "exits");
        calls[1].target = address(0xbad);
        vm.expectPartialRevert(EmergencyFreeze.NotPermitted.selector);
        _op(subject, abi.encodeCall(IERC7579Execution.execute, (BATCH, abi.encode(calls))));
        vm.expectPartialRevert(EmergencyFreeze.CallRefused.selector);
        _op(subject, abi.encodeCall(IERC7579ModuleConfig.uninstallModule, (4, address(authority), "")));
        vm.expectPartialRevert(EmergencyFreeze.CallRefused.selector);
        _install(subject, 1, address(sessions), "");
        bytes32 delegate = bytes32(bytes1(0xff));
        vm.expectPartialRevert(EmergencyFreeze.CallRefused.selector);
        _op(subject, abi.encodeCall(IERC7579Execution.execute, (delegate, abi.encodePacked(target))));
        vm.expectPartialRevert(EmergencyFreeze.NotPermitted.selector);
        _execute(subject, subject, 0, _executeData(address(0xbad), 1, ""));
    }

    function test_batch_whose_calls_lie_outside_its_bytes_is_refused() public {
        _solo(0, RiskState.FROZEN);
        // One element, whose offset points beyond the batch into bytes that follow it.
        bytes memory blob = abi.encode(uint256(0x20), uint256(1), uint256(0x60));
        bytes memory call = abi.encodeCall(IERC7579Execution.execute, (BATCH, blob));
        call = bytes.concat(call, abi.encode(address(0xbad), uint256(1), uint256(0x60), uint256(0)));
        vm.expectRevert();
        _op(subject, call);
        eq(address(0xbad).balance, 0, "moved");
    }

    function test_executors_act_only_as_guards() public {
        executor.act(subject, SINGLE, abi.encodePacked(target, uint256(1)));
        _solo(0, RiskState.FROZEN);
        vm.expectRevert(abi.encodeWithSelector(EmergencyFreeze.NotAGuard.selector, address(executor)));
        executor.act(subject, SINGLE, abi.encodePacked(target, uint256(1)));
        vm.warp(_now() + 1 days);
        authority.expire(subject);
        _asAccount(abi.encodeCall(authority.setGuard, (address(executor), true)));
        vm.warp(_now() + 3 days);
        _solo(0, RiskState.FROZEN);
        executor.act(subject, SINGLE, abi.encodePacked(target, uint256(1)));
        eq(target.calls(), 2, "acted");
        vm.expectPartialRevert(EmergencyFreeze.NotPermitted.selector);
        executor.act(subject, SINGLE, abi.encodePacked(subject, uint256(0)));
    }

    function test_the_hook_leaves_when_the_account_is_active_so_it_cannot_veto_its_removal_for_ever() public {
        bySig(2, RiskState.FROZEN);
        for (uint256 i = 0; i < 2; ++i) {
            _startEscape();
            vm.warp(_now() + 7 days);
            authority.finishEscape(subject);
        }
        _op(subject, abi.encodeCall(IERC7579ModuleConfig.uninstallModule, (4, address(authority), "")));
        eq(foreign.hook(), address(0), "hook");
        _is(RiskState.ACTIVE);
    }
}
