// SPDX-License-Identifier: MIT
pragma solidity ^0.8.26;

import {PackedUserOperation} from "@openzeppelin/contracts/interfaces/IERC4337.sol";
import {IPolicyHook} from "../src/interfaces/IPolicyHook.sol";
import {ISessionValidator} from "../src/interfaces/ISessionValidator.sol";
import {SessionValidator} from "../src/modules/SessionValidator.sol";
import {Target} from "./Actors.sol";
import {SessionRig} from "./SessionRig.sol";

/// What a session may say of arguments, amounts, rates and uses; on our account and on OpenZeppelin's.
abstract contract SessionBoundsBehaviour is SessionRig {
    uint48 internal constant START = 1_700_000_400; // of an hour's sixth
    uint48 internal constant BUCKET = 600;
    bytes internal bounds;

    function _none() internal pure returns (ISessionValidator.Bounds memory none) {}

    function _window(uint256 limit) internal pure returns (IPolicyHook.Window[] memory windows) {
        windows = new IPolicyHook.Window[](1);
        windows[0] = IPolicyHook.Window(address(0), IPolicyHook.Span.ROLLING, 3600, 0, limit);
    }

    function _is(IPolicyHook.Kind kind, uint16 word, uint256 first)
        internal
        pure
        returns (IPolicyHook.Condition memory condition)
    {
        condition = IPolicyHook.Condition(kind, word, new bytes32[](1));
        condition.values[0] = bytes32(first);
    }

    function _between(uint16 word, uint256 low, uint256 high)
        internal
        pure
        returns (IPolicyHook.Condition memory condition)
    {
        condition = IPolicyHook.Condition(IPolicyHook.Kind.RANGE, word, new bytes32[](2));
        (condition.values[0], condition.values[1]) = (bytes32(low), bytes32(high));
    }

    function _alternatives(uint256 count, uint256 each) internal pure returns (IPolicyHook.Condition[][] memory anyOf) {
        anyOf = new IPolicyHook.Condition[][](count);
        for (uint256 i = 0; i < count; ++i) {
            anyOf[i] = new IPolicyHook.Condition[](each);
        }
    }

    function _bounded(ISessionValidator.Bounds memory wanted)
        internal
        returns (ISessionValidator.Session memory session)
    {
        bounds = abi.encode(wanted);
        session = _session();
        (session.validAfter, session.validUntil) = (START, START + 30 days);
        (session.prefundBudget, session.bounds) = (1 ether, keccak256(bounds));
    }

    function _begun(ISessionValidator.Bounds memory wanted) internal {
        ISessionValidator.Session memory session = _bounded(wanted);
        id = _enable(session, bounds);
    }

    function _at(uint48 from, uint48 until, bytes memory callData)
        internal
        view
        returns (PackedUserOperation memory op)
    {
        op = _sessionOp(callData);
        op.signature = abi.encodePacked(uint8(6), id, from, until, bounds, _sign(SESSION_KEY, HASH));
    }

    function _passes(uint256 amount, address to, uint256 value) internal returns (bool) {
        bytes memory callData = _executeData(address(target), value, abi.encodeCall(Target.hit, (amount, to)));
        return _isValid(_at(START, START + 1, callData));
    }

    function _passesAt(uint48 time, uint256 amount) internal returns (bool) {
        return
            _isValid(_at(time, time + 1, _executeData(address(target), 0, abi.encodeCall(Target.hit, (amount, cold)))));
    }

    // ---- conditions

    function testFuzz_conditions_hold_in_at_least_one_alternative(uint256 amount, uint8 whom, uint8 value) public {
        ISessionValidator.Bounds memory wanted = _none();
        wanted.anyOf = _alternatives(3, 2);
        wanted.anyOf[0][0] = _between(0, 10, 20);
        wanted.anyOf[0][1] = _is(IPolicyHook.Kind.EQUAL, 1, uint160(cold));
        wanted.anyOf[1][0] = IPolicyHook.Condition(IPolicyHook.Kind.SELF, 1, new bytes32[](0));
        wanted.anyOf[1][1] = _between(0xffff, 0, 5);
        wanted.anyOf[2] = new IPolicyHook.Condition[](1);
        wanted.anyOf[2][0] = _is(IPolicyHook.Kind.EQUAL, 0, 77);
        _begun(wanted);
        amount %= 100;
        value %= 8;
        address to = whom % 3 == 0 ? cold : whom % 3 == 1 ? subject : address(0xbad);
        bool first = amount >= 10 && amount <= 20 && to == cold && value == 0;
        bool second = to == subject && value <= 5;
        bool third = amount == 77 && value == 0;
        isTrue(_passes(amount, to, value) == (first || second || third), "conditions");
    }

    function test_native_value_needs_a_condition_about_it() public {
        ISessionValidator.Bounds memory wanted = _none();
        wanted.rates = _window(100);
        _begun(wanted);
        isTrue(_passes(1, cold, 0), "without value");
        isTrue(!_passes(1, cold, 1), "with value");
    }

    function test_a_call_too_short_for_a_condition_fails() public {
        ISessionValidator.Bounds memory wanted = _none();
        wanted.anyOf = _alternatives(1, 1);
        wanted.anyOf[0][0] = _between(2, 0, type(uint256).max);
        _begun(wanted);
        isTrue(!_passes(1, cold, 0), "no third argument");
    }

    function test_only_the_bounds_that_were_enabled_count() public {
        ISessionValidator.Bounds memory wanted = _none();
        wanted.anyOf = _alternatives(1, 1);
        wanted.anyOf[0][0] = _between(0, 0, 5);
        _begun(wanted);
        isTrue(!_passes(6, cold, 0), "outside");
        isTrue(!_isValid(_sessionOp(_hit())), "none brought");
        wanted.anyOf[0][0] = _between(0, 0, 6);
        bytes memory right = bounds;
        bounds = abi.encode(wanted);
        isTrue(!_passes(6, cold, 0), "others brought");
        bounds = "";
        isTrue(!_passes(5, cold, 0), "empty");
        bounds = right;
        isTrue(_passes(5, cold, 0), "inside");
    }

    // ---- rates and allowances

    function test_a_rate_counts_operations_in_any_span_of_its_duration() public {
        ISessionValidator.Bounds memory wanted = _none();
        wanted.rates = _window(2);
        _begun(wanted);
        isTrue(_passesAt(START, 1) && _passesAt(START + BUCKET, 1), "two");
        isTrue(!_passesAt(START + BUCKET, 1), "three");
        isTrue(!_passesAt(START + 6 * BUCKET, 1), "within the hour");
        isTrue(_passesAt(START + 7 * BUCKET, 1), "the first is over");
        isTrue(!_passesAt(START + 7 * BUCKET, 1), "the second is not");
    }

    function test_the_claimed_times_lie_in_one_bucket_and_bind_the_operation() public {
        ISessionValidator.Bounds memory wanted = _none();
        wanted.rates = _window(9);
        _begun(wanted);
        uint256 data = _validate(_at(START, START + BUCKET - 1, _hit()), HASH);
        eq(data, uint256(START) << 208 | uint256(START + BUCKET - 1) << 160, "the claim");
        data = _validate(_at(START - 5, START - 1, _hit()), HASH);
        eq(data, uint256(START) << 208 | uint256(START - 1) << 160, "never wider than the session");
        isTrue(!_isValid(_at(START, START + BUCKET, _hit())), "two buckets");
        isTrue(!_isValid(_at(START, START, _hit())), "empty");
        isTrue(!_isValid(_at(START + 1, START, _hit())), "backwards");
        isTrue(!_isValid(_at(0, 1 << 47, _hit())), "a block number's flag");
    }

    function testFuzz_no_span_sees_more_than_its_rate_and_its_allowance(
        uint16[24] memory gaps,
        uint8[24] memory amounts
    ) public {
        ISessionValidator.Bounds memory wanted = _none();
        wanted.rates = _window(4);
        wanted.allowances = _window(300);
        wanted.anyOf = _alternatives(1, 1);
        wanted.anyOf[0][0] = _is(IPolicyHook.Kind.ALLOWANCE, 0, 0);
        _begun(wanted);
        uint48[24] memory times;
        uint48 time = START;
        uint256 passed = 0;
        for (uint256 i = 0; i < 24; ++i) {
            time += gaps[i] % 1500;
            if (time % BUCKET == BUCKET - 1) ++time;
            times[i] = time;
            if (!_atomically(time, amounts[i])) (times[i], amounts[i]) = (0, 0);
            else ++passed;
            (uint256 count, uint256 sum) = (0, 0);
            for (uint256 j = 0; j <= i; ++j) {
                if (times[j] == 0 || times[j] + 3600 <= time) continue;
                (count, sum) = (count + 1, sum + amounts[j]);
            }
            isTrue(count <= 4, "rate");
            isTrue(sum <= 300, "allowance");
        }
        isTrue(passed >= 1, "some pass");
    }

    /// As the entry point does: what failed in validation never happened.
    function _atomically(uint48 time, uint256 amount) private returns (bool passed) {
        uint256 before = vm.snapshotState();
        passed = _passesAt(time, amount);
        if (!passed) vm.revertToState(before);
    }

    function test_the_first_alternative_that_holds_is_charged_and_no_other() public {
        ISessionValidator.Bounds memory wanted = _none();
        wanted.allowances = _window(100);
        wanted.anyOf = _alternatives(3, 1);
        wanted.anyOf[0][0] = _between(0, 0, 10);
        wanted.anyOf[1][0] = _is(IPolicyHook.Kind.ALLOWANCE, 0, 0);
        wanted.anyOf[2][0] = _is(IPolicyHook.Kind.EQUAL, 0, 99);
        _begun(wanted);
        isTrue(_passesAt(START, 10) && _passesAt(START, 10), "free");
        isTrue(_passesAt(START, 60) && _passesAt(START, 40), "from the allowance");
        isTrue(!_passesAt(START, 11), "nothing left");
        isTrue(_passesAt(START, 99), "the third");
        isTrue(_passesAt(START, 5), "still free");
    }

    function test_native_value_can_be_taken_from_an_allowance() public {
        ISessionValidator.Bounds memory wanted = _none();
        wanted.allowances = _window(1 ether);
        wanted.allowances[0].span = IPolicyHook.Span.DAY;
        wanted.allowances[0].duration = 0;
        wanted.anyOf = _alternatives(1, 1);
        wanted.anyOf[0][0] = _is(IPolicyHook.Kind.ALLOWANCE, 0xffff, 0);
        _begun(wanted);
        isTrue(_passes(1, cold, 0.6 ether), "inside");
        isTrue(!_passes(1, cold, 0.6 ether), "beyond");
        isTrue(_passes(1, cold, 0.4 ether), "the rest");
    }

    function test_what_was_counted_outlives_a_revocation() public {
        ISessionValidator.Bounds memory wanted = _none();
        wanted.rates = _window(1);
        ISessionValidator.Session memory session = _bounded(wanted);
        id = _enable(session, bounds);
        isTrue(_passesAt(START, 1), "one");
        _revoke(id);
        _enable(session, bounds);
        isTrue(!_passesAt(START, 1), "two");
    }

    function test_bounds_that_cannot_be_decided_are_refused() public {
        ISessionValidator.Bounds memory wanted = _none();
        wanted.allowances = _window(1);
        wanted.anyOf = _alternatives(1, 2);
        wanted.anyOf[0][0] = _is(IPolicyHook.Kind.ALLOWANCE, 0, 0);
        wanted.anyOf[0][1] = _is(IPolicyHook.Kind.ALLOWANCE, 1, 0);
        _refused(wanted, "one allowance twice");
        wanted.anyOf[0][1] = _is(IPolicyHook.Kind.ALLOWANCE, 1, 1);
        _refused(wanted, "no such allowance");
        wanted.anyOf[0][1] = _is(IPolicyHook.Kind.RANGE, 1, 1);
        _refused(wanted, "a range of one value");
        wanted = _none();
        wanted.anyOf = _alternatives(17, 0);
        _refused(wanted, "alternatives");
        wanted.anyOf = new IPolicyHook.Condition[][](1);
        wanted.anyOf[0] = new IPolicyHook.Condition[](17);
        for (uint256 i = 0; i < 17; ++i) {
            wanted.anyOf[0][i] = _is(IPolicyHook.Kind.EQUAL, 0, 1);
        }
        _refused(wanted, "conditions");
        wanted = _none();
        wanted.rates = _window(1);
        wanted.rates[0].asset = cold;
        _refused(wanted, "an asset");
        wanted.rates[0].asset = address(0);
        wanted.rates[0].duration = 0;
        _refused(wanted, "no duration");
        wanted.rates = new IPolicyHook.Window[](9);
        for (uint256 i = 0; i < 9; ++i) {
            wanted.rates[i] = _window(1)[0];
        }
        _refused(wanted, "windows");
        ISessionValidator.Session memory session = _bounded(_none());
        session.bounds = keccak256("others");
        vm.expectRevert(SessionValidator.InvalidSession.selector);
        _enable(session, bounds);
    }

    function _refused(ISessionValidator.Bounds memory wanted, string memory what) private {
        ISessionValidator.Session memory session = _bounded(wanted);
        vm.prank(subject);
        (bool success, bytes memory why) =
            address(sessions).call(abi.encodeCall(sessions.enableSession, (session, bounds)));
        isTrue(!success && bytes4(why) == SessionValidator.InvalidSession.selector, what);
    }

    // ---- uses

    function _counted() internal returns (ISessionValidator.Session memory session) {
        session = _session();
        (session.uses, session.prefundBudget) = (3, 3 ether);
        id = _enable(session);
    }

    function _use(uint64 sequence) internal view returns (PackedUserOperation memory op) {
        op = _sessionOp(_hit());
        op.nonce |= uint256(uint24(bytes3(id))) << 64 | sequence;
    }

    function test_uses_are_the_nonces_of_the_sessions_own_lane() public {
        _counted();
        for (uint64 i = 0; i < 5; ++i) {
            isTrue(_isValid(_use(i)) == (i < 3), "uses");
        }
        PackedUserOperation memory op = _use(0);
        op.nonce ^= 1 << 64;
        isTrue(!_isValid(op), "another lane");
        (ISessionValidator.Session memory session, uint128 spent) = sessions.sessionOf(subject, id);
        eq(sessions.sessionIdOf(session), id, "the view");
        eq(spent, 0, "spent");
    }

    function testFuzz_each_use_costs_its_share_of_the_budget(uint80 budget, uint32 uses, uint64 fee) public {
        ISessionValidator.Session memory session = _session();
        (session.uses, session.prefundBudget) = (uint32(bound(uses, 1, type(uint32).max)), budget);
        id = _enable(session);
        PackedUserOperation memory op = _use(0);
        op.gasFees = bytes32(uint256(fee % 2000 gwei));
        bool fits = _prefund(op) * session.uses <= budget;
        isTrue(_isValid(op) == (fits && _prefund(op) <= CAP || fits && subject == address(foreign)), "share");
        op.paymasterAndData = abi.encodePacked(address(1), uint128(1), uint128(1));
        isTrue(_isValid(op), "sponsored");
    }

    function test_a_session_with_uses_writes_nothing() public {
        _counted();
        vm.startMappingRecording();
        vm.record();
        isTrue(_isValid(_use(0)), "valid");
        (bytes32[] memory reads, bytes32[] memory writes) = vm.accesses(address(sessions));
        eq(writes.length, 0, "writes");
        eq(reads.length, 1, "reads");
        _onlyAssociatedReads(address(sessions), subject);
    }

    function test_bounds_touch_only_storage_associated_with_the_account() public {
        ISessionValidator.Bounds memory wanted = _none();
        (wanted.rates, wanted.allowances) = (_window(9), _window(900));
        wanted.anyOf = _alternatives(1, 1);
        wanted.anyOf[0][0] = _is(IPolicyHook.Kind.ALLOWANCE, 0, 0);
        vm.startMappingRecording();
        _begun(wanted);
        vm.record();
        isTrue(_passesAt(START, 7), "valid");
        (, bytes32[] memory writes) = vm.accesses(address(sessions));
        isTrue(writes.length == 3, "budget, rate and allowance");
        _onlyAssociatedReads(address(sessions), subject);
    }
}

contract SessionBoundsOnRiskAccountTest is SessionBoundsBehaviour {
    function setUp() public override {
        super.setUp();
        _begin(address(account));
    }
}

contract SessionBoundsOnForeignAccountTest is SessionBoundsBehaviour {
    function setUp() public override {
        super.setUp();
        _begin(address(foreign));
    }
}
