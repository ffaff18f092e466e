// SPDX-License-Identifier: MIT
pragma solidity ^0.8.26;

import {ERC20} from "@openzeppelin/contracts/token/ERC20/ERC20.sol";
import {
    Execution,
    IERC7579Execution,
    IERC7579ModuleConfig
} from "@openzeppelin/contracts/interfaces/draft-IERC7579.sol";
import {IEmergencyFreeze} from "../src/interfaces/IEmergencyFreeze.sol";
import {IPolicyHook} from "../src/interfaces/IPolicyHook.sol";
import {PolicyHook} from "../src/modules/PolicyHook.sol";
import {PlainModule} from "./Actors.sol";
import {Base} from "./Base.sol";
import {Coin, HostileCoin, Router} from "./Tokens.sol";

/// What every hooked account gets of the hook; once on ours and once on OpenZeppelin's.
abstract contract PolicyHookBehaviour is Base {
    PolicyHook internal hook;
    Coin internal coin;
    Router internal router;
    PlainModule internal executor;
    address internal subject;
    address internal payee = address(0xBEEF);

    function _subject() internal virtual returns (address);

    function setUp() public override {
        super.setUp();
        hook = new PolicyHook();
        coin = new Coin(6);
        router = new Router();
        executor = new PlainModule();
        subject = _subject();
        coin.mint(subject, 1_000_000);
        _install(subject, 2, address(executor), "");
        _install(subject, 4, address(hook), abi.encode(_data(0)));
    }

    function _data(uint32 delay) internal view returns (IPolicyHook.InstallData memory data) {
        data.settings = IPolicyHook.Settings(address(authority), delay, true);
        data.rules = new IPolicyHook.Rule[](8);
        data.rules[0] = _rule(address(coin), ERC20.transfer.selector, 0);
        data.rules[1] = _rule(address(coin), ERC20.approve.selector, 0);
        data.rules[2] = _rule(address(coin), Coin.burn.selector, 0);
        data.rules[3] = _rule(address(router), hook.ANY_SELECTOR(), 0);
        data.rules[4] = _rule(payee, 0, hook.PAYABLE());
        data.rules[5] = _rule(address(coin), ERC20.transferFrom.selector, 0);
        data.rules[6] = _rule(address(coin), Coin.increaseAllowance.selector, 0);
        data.rules[7] = _rule(address(0), IERC7579ModuleConfig.installModule.selector, 0);
        data.windows = new IPolicyHook.Window[](2);
        data.windows[0] = IPolicyHook.Window(address(coin), IPolicyHook.Span.ROLLING, 1 days, 0, 1000);
        data.windows[1] = IPolicyHook.Window(address(0), IPolicyHook.Span.DAY, 0, 0, 1 ether);
        data.approvals = new IPolicyHook.Approval[](1);
        data.approvals[0] = IPolicyHook.Approval(address(coin), address(router), 600);
    }

    function _rule(address to, bytes4 selector, uint8 flags) internal pure returns (IPolicyHook.Rule memory) {
        return IPolicyHook.Rule(to, selector, flags, new IPolicyHook.Condition[][](0));
    }

    function _send(uint256 amount) internal {
        _execute(subject, address(coin), 0, abi.encodeCall(ERC20.transfer, (payee, amount)));
    }

    function _batch(Execution[] memory calls) internal {
        _op(subject, abi.encodeCall(IERC7579Execution.execute, (BATCH, abi.encode(calls))));
    }

    function _exceeds(uint256 amount, uint256 available) internal {
        vm.expectRevert(
            abi.encodeWithSelector(IPolicyHook.SpendingExceeded.selector, address(coin), 0, amount, available)
        );
    }

    // ---- allowlist

    function test_only_listed_targets_and_selectors_are_called() public {
        vm.expectRevert(abi.encodeWithSelector(IPolicyHook.CallNotAllowed.selector, address(coin), Coin.mint.selector));
        _execute(subject, address(coin), 0, abi.encodeCall(Coin.mint, (subject, 1)));
        vm.expectRevert(abi.encodeWithSelector(IPolicyHook.CallNotAllowed.selector, address(0xD00D), bytes4(0)));
        _execute(subject, address(0xD00D), 0, "");
        vm.expectRevert(abi.encodeWithSelector(IPolicyHook.ValueNotAllowed.selector, address(router), 1));
        _execute(subject, address(router), 1, "");
        _send(1);
    }

    function test_every_call_of_a_batch_is_judged() public {
        Execution[] memory calls = new Execution[](2);
        calls[0] = Execution(address(coin), 0, abi.encodeCall(ERC20.transfer, (payee, 1)));
        calls[1] = Execution(address(coin), 0, abi.encodeCall(Coin.mint, (subject, 1)));
        vm.expectPartialRevert(IPolicyHook.CallNotAllowed.selector);
        _batch(calls);
        calls[1] = calls[0];
        _batch(calls);
        eq(coin.balanceOf(payee), 2, "both");
    }

    function test_executors_are_bound_and_never_reach_the_account_or_the_hook() public {
        vm.expectPartialRevert(IPolicyHook.CallNotAllowed.selector);
        executor.act(
            subject, SINGLE, abi.encodePacked(address(coin), uint256(0), abi.encodeCall(Coin.mint, (payee, 1)))
        );
        _exceeds(1001, 1000);
        executor.act(
            subject, SINGLE, abi.encodePacked(address(coin), uint256(0), abi.encodeCall(ERC20.transfer, (payee, 1001)))
        );
        vm.expectRevert();
        executor.act(subject, SINGLE, abi.encodePacked(address(hook), uint256(0), hex"12345678"));
        vm.expectRevert();
        executor.act(subject, SINGLE, abi.encodePacked(subject, uint256(0), hex"12345678"));
    }

    function test_the_account_cannot_play_its_hook() public {
        vm.expectRevert(abi.encodeWithSelector(IPolicyHook.ForbiddenTarget.selector, address(hook)));
        _execute(subject, address(hook), 0, abi.encodeCall(hook.postCheck, ("")));
        vm.expectRevert(abi.encodeWithSelector(IPolicyHook.ForbiddenTarget.selector, address(hook)));
        _execute(subject, address(hook), 0, abi.encodeCall(hook.onUninstall, ("")));
    }

    function test_a_mode_or_encoding_it_cannot_read_is_refused() public {
        vm.expectRevert();
        _op(
            subject, abi.encodeCall(IERC7579Execution.execute, (bytes32(bytes1(0xff)), abi.encodePacked(address(coin))))
        );
        bytes memory reaching = abi.encode(uint256(32), uint256(1), uint256(2 ** 200));
        vm.expectRevert();
        _op(subject, abi.encodeCall(IERC7579Execution.execute, (BATCH, reaching)));
    }

    function test_conditions_hold_in_at_least_one_alternative() public {
        IPolicyHook.Rule memory rule = _rule(address(coin), ERC20.transfer.selector, 0);
        rule.anyOf = new IPolicyHook.Condition[][](2);
        rule.anyOf[0] = new IPolicyHook.Condition[](2);
        rule.anyOf[0][0] = _condition(IPolicyHook.Kind.EQUAL, 0, uint160(payee), 0);
        rule.anyOf[0][1] = _condition(IPolicyHook.Kind.RANGE, 1, 10, 20);
        rule.anyOf[1] = new IPolicyHook.Condition[](2);
        rule.anyOf[1][0] = _condition(IPolicyHook.Kind.IN_SET, 0, 0xCAFE, 0xF00D);
        rule.anyOf[1][1] = _condition(IPolicyHook.Kind.MASK, 1, 1, 0);
        _execute(subject, address(hook), 0, abi.encodeCall(hook.setRule, (rule, true)));
        _fails(payee, 9);
        _fails(payee, 21);
        _fails(address(0xCAFE), 3);
        _fails(address(0xD00D), 10);
        _passes(payee, 10);
        _passes(payee, 20);
        _passes(address(0xCAFE), 4);
        _passes(address(0xF00D), 2);
        (bool enabled, IPolicyHook.Rule memory kept) = hook.ruleOf(subject, address(coin), ERC20.transfer.selector);
        isTrue(enabled, "enabled");
        eq(abi.encode(kept), abi.encode(rule), "rule");
    }

    function _condition(IPolicyHook.Kind kind, uint16 word, uint256 first, uint256 second)
        internal
        pure
        returns (IPolicyHook.Condition memory)
    {
        bytes32[] memory values =
            new bytes32[](kind == IPolicyHook.Kind.EQUAL || kind == IPolicyHook.Kind.ALLOWANCE ? 1 : 2);
        values[0] = bytes32(first);
        if (values.length == 2) values[1] = bytes32(second);
        return IPolicyHook.Condition(kind, word, values);
    }

    function _fails(address to, uint256 amount) private {
        vm.expectRevert(
            abi.encodeWithSelector(IPolicyHook.ConditionsFailed.selector, address(coin), ERC20.transfer.selector)
        );
        _execute(subject, address(coin), 0, abi.encodeCall(ERC20.transfer, (to, amount)));
    }

    function _passes(address to, uint256 amount) private {
        _execute(subject, address(coin), 0, abi.encodeCall(ERC20.transfer, (to, amount)));
    }

    function test_an_allowance_refills_up_to_its_maximum() public {
        IPolicyHook.Rule memory rule = _rule(address(coin), ERC20.transfer.selector, 0);
        rule.anyOf = new IPolicyHook.Condition[][](1);
        rule.anyOf[0] = new IPolicyHook.Condition[](1);
        rule.anyOf[0][0] = _condition(IPolicyHook.Kind.ALLOWANCE, 1, 7, 0);
        _execute(subject, address(hook), 0, abi.encodeCall(hook.setRule, (rule, true)));
        IPolicyHook.Allowance memory a = IPolicyHook.Allowance(bytes32(uint256(7)), 10, 25, 1 hours, 20, uint64(_now()));
        _execute(subject, address(hook), 0, abi.encodeCall(hook.setAllowance, (a)));
        _passes(payee, 15);
        _fails(payee, 6);
        vm.warp(_now() + 1 hours);
        _passes(payee, 15);
        vm.warp(_now() + 10 hours);
        eq(uint256(hook.allowanceOf(subject, a.id).balance), 25, "no more than the maximum");
        _fails(payee, 26);
    }

    // ---- spending

    function test_transfers_are_charged_and_the_window_slides() public {
        _send(700);
        _exceeds(301, 300);
        _send(301);
        _send(300);
        vm.warp(_now() + 1 days);
        vm.expectPartialRevert(IPolicyHook.SpendingExceeded.selector);
        _send(1000);
        vm.warp(_now() + 4 hours);
        _send(1000);
    }

    function test_what_a_router_pulls_or_a_call_burns_is_charged_by_the_balance() public {
        vm.prank(subject);
        coin.approve(address(router), 5000); // older than the hook, as it were
        _exceeds(1001, 1000);
        _execute(subject, address(router), 0, abi.encodeCall(Router.pull, (coin, 1001)));
        _execute(subject, address(router), 0, abi.encodeCall(Router.pull, (coin, 600)));
        _exceeds(401, 400);
        _execute(subject, address(coin), 0, abi.encodeCall(Coin.burn, (401)));
        _execute(subject, address(coin), 0, abi.encodeCall(Coin.burn, (400)));
    }

    function test_what_comes_back_in_the_same_execution_excuses_no_transfer() public {
        coin.mint(address(router), 5000);
        Execution[] memory calls = new Execution[](2);
        calls[0] = Execution(address(coin), 0, abi.encodeCall(ERC20.transfer, (payee, 1001)));
        calls[1] = Execution(address(router), 0, abi.encodeCall(Router.give, (coin, subject, 1001)));
        _exceeds(1001, 1000);
        _batch(calls);
    }

    function test_native_value_is_charged() public {
        vm.expectPartialRevert(IPolicyHook.SpendingExceeded.selector);
        _execute(subject, payee, 1 ether + 1, "");
        _execute(subject, payee, 1 ether, "");
        vm.expectPartialRevert(IPolicyHook.SpendingExceeded.selector);
        _execute(subject, payee, 1, "");
    }

    function test_a_declared_exit_passes_rules_and_windows() public {
        _execute(subject, payee, 1 ether, "");
        _execute(subject, cold, 3 ether, ""); // EmergencyFreeze declares any value to `cold` an exit
        eq(cold.balance, 3 ether, "exit");
    }

    function test_an_exit_that_may_fail_excuses_no_spending() public {
        IEmergencyFreeze.Exit memory exit = _exit(address(coin), ERC20.transfer.selector, true);
        (exit.argMask, exit.args) = (1, new bytes32[](1));
        exit.args[0] = bytes32(uint256(uint160(cold)));
        _as(subject, address(authority), abi.encodeCall(authority.setExit, (exit, true)));
        IPolicyHook.Rule memory rule = _rule(address(coin), ERC20.transfer.selector, 0);
        _execute(subject, address(hook), 0, abi.encodeCall(hook.setRule, (rule, false))); // by the exit alone
        Execution[] memory calls = new Execution[](2);
        calls[0] = Execution(address(coin), 0, abi.encodeCall(ERC20.transfer, (cold, 2_000_000))); // more than there is
        calls[1] = Execution(address(coin), 0, abi.encodeCall(Coin.burn, (1001)));
        bytes memory tried = abi.encodeCall(IERC7579Execution.execute, (bytes32(bytes2(0x0101)), abi.encode(calls)));
        _exceeds(1001, 1000);
        _op(subject, tried);
        calls[0] = Execution(address(coin), 0, abi.encodeCall(ERC20.transfer, (cold, 5000)));
        calls[1] = Execution(address(coin), 0, abi.encodeCall(Coin.burn, (1000)));
        _batch(calls);
        eq(coin.balanceOf(cold), 5000, "an exit that must succeed is no spending");
    }

    // ---- tokens of bad faith

    function _hostile() private returns (HostileCoin bad) {
        bad = new HostileCoin();
        bad.mint(subject, 1_000_000);
        IPolicyHook.Window[] memory windows = new IPolicyHook.Window[](1);
        windows[0] = IPolicyHook.Window(address(bad), IPolicyHook.Span.ROLLING, 1 days, 0, 1000);
        _execute(subject, address(hook), 0, abi.encodeCall(hook.setWindows, (windows)));
        IPolicyHook.Rule memory rule = _rule(address(bad), ERC20.transfer.selector, 0);
        _execute(subject, address(hook), 0, abi.encodeCall(hook.setRule, (rule, true)));
    }

    function _sendBad(HostileCoin bad, uint256 amount) private {
        _execute(subject, address(bad), 0, abi.encodeCall(ERC20.transfer, (payee, amount)));
    }

    function test_a_fee_on_transfer_is_charged_too() public {
        HostileCoin bad = _hostile();
        bad.setFee(1000);
        vm.expectPartialRevert(IPolicyHook.SpendingExceeded.selector);
        _sendBad(bad, 1000);
        _sendBad(bad, 900);
        (, uint256[] memory spent,) = hook.windowsOf(subject);
        eq(spent[0], 990, "amount and fee");
    }

    function test_a_token_that_lies_about_its_balance_hides_no_transfer() public {
        HostileCoin bad = _hostile();
        bad.setLie(5);
        vm.expectPartialRevert(IPolicyHook.SpendingExceeded.selector);
        _sendBad(bad, 1001);
        _sendBad(bad, 1000);
    }

    function test_a_token_that_does_not_answer_stops_spending_and_no_exit() public {
        HostileCoin bad = _hostile();
        bad.setMute(true);
        vm.expectRevert(abi.encodeWithSelector(IPolicyHook.BalanceUnreadable.selector, address(bad)));
        _sendBad(bad, 1);
        _execute(subject, cold, 1 ether, "");
    }

    function test_what_a_reentrant_token_has_an_executor_send_is_charged_in_the_same_execution() public {
        HostileCoin bad = _hostile();
        IPolicyHook.Rule memory rule = _rule(address(bad), ERC20.approve.selector, 0);
        _execute(subject, address(hook), 0, abi.encodeCall(hook.setRule, (rule, true)));
        IPolicyHook.Approval memory approval = IPolicyHook.Approval(address(bad), payee, 500);
        _execute(subject, address(hook), 0, abi.encodeCall(hook.setApproval, (approval)));
        bytes memory inner = abi.encodePacked(address(bad), uint256(0), abi.encodeCall(ERC20.approve, (payee, 500)));
        bad.setCallback(address(executor), abi.encodeCall(executor.act, (subject, SINGLE, inner)));
        vm.expectPartialRevert(IPolicyHook.SpendingExceeded.selector);
        _sendBad(bad, 501);
        _sendBad(bad, 500);
        (, uint256[] memory spent,) = hook.windowsOf(subject);
        eq(spent[0], 1000, "transfer and allowance");
    }

    // ---- approvals

    function test_approvals_are_capped_by_spender_and_never_unlimited_unless_allowed() public {
        vm.expectRevert(abi.encodeWithSelector(IPolicyHook.ApprovalNotAllowed.selector, address(coin), payee, 1, 0));
        _execute(subject, address(coin), 0, abi.encodeCall(ERC20.approve, (payee, 1)));
        vm.expectPartialRevert(IPolicyHook.ApprovalNotAllowed.selector);
        _execute(subject, address(coin), 0, abi.encodeCall(ERC20.approve, (address(router), type(uint256).max)));
        _execute(subject, address(coin), 0, abi.encodeCall(ERC20.approve, (address(router), 600)));
        vm.expectPartialRevert(IPolicyHook.ApprovalNotAllowed.selector);
        _execute(subject, address(coin), 0, abi.encodeCall(Coin.increaseAllowance, (address(router), 1)));
        _execute(subject, address(coin), 0, abi.encodeCall(ERC20.approve, (payee, 0)));
        IPolicyHook.Approval memory any = IPolicyHook.Approval(address(coin), address(router), hook.UNLIMITED());
        _execute(subject, address(hook), 0, abi.encodeCall(hook.setApproval, (any)));
        _execute(subject, address(coin), 0, abi.encodeCall(ERC20.approve, (address(router), type(uint256).max)));
    }

    function test_a_standing_allowance_is_charged_when_it_is_given_and_one_used_up_once() public {
        Execution[] memory calls = new Execution[](2);
        calls[0] = Execution(address(coin), 0, abi.encodeCall(ERC20.approve, (address(router), 600)));
        calls[1] = Execution(address(router), 0, abi.encodeCall(Router.pull, (coin, 600)));
        _batch(calls);
        (, uint256[] memory spent,) = hook.windowsOf(subject);
        eq(spent[0], 600, "charged once");
        _exceeds(600, 400);
        _execute(subject, address(coin), 0, abi.encodeCall(ERC20.approve, (address(router), 600)));
        _execute(subject, address(coin), 0, abi.encodeCall(ERC20.approve, (address(router), 400)));
        _exceeds(1, 0);
        _send(1);
    }

    // ---- changes and removal

    function test_windows_change_only_alone_and_keep_what_was_spent() public {
        _send(700);
        IPolicyHook.Window[] memory windows = new IPolicyHook.Window[](1);
        windows[0] = IPolicyHook.Window(address(coin), IPolicyHook.Span.ROLLING, 1 days, 0, 800);
        Execution[] memory calls = new Execution[](2);
        calls[0] = Execution(address(hook), 0, abi.encodeCall(hook.setWindows, (windows)));
        calls[1] = Execution(address(coin), 0, abi.encodeCall(ERC20.transfer, (payee, 1)));
        vm.expectRevert(IPolicyHook.NotAlone.selector);
        _batch(calls);
        _execute(subject, address(hook), 0, calls[0].callData);
        _exceeds(101, 100);
        _send(101);
    }

    function test_a_change_waits_for_its_delay_once_the_account_wants_one() public {
        IPolicyHook.Settings memory settings = IPolicyHook.Settings(address(authority), 1 days, true);
        _execute(subject, address(hook), 0, abi.encodeCall(hook.setSettings, (settings)));
        bytes memory data = abi.encodeCall(hook.setApproval, (IPolicyHook.Approval(address(coin), payee, 5)));
        vm.expectRevert(abi.encodeWithSelector(IPolicyHook.NotAnnounced.selector, keccak256(data)));
        _execute(subject, address(hook), 0, data);
        _execute(subject, address(hook), 0, abi.encodeCall(hook.announce, (data)));
        vm.expectPartialRevert(IPolicyHook.TooEarly.selector);
        _execute(subject, address(hook), 0, data);
        vm.warp(_now() + 1 days);
        _execute(subject, address(hook), 0, data);
        eq(uint256(hook.approvalOf(subject, address(coin), payee)), 5, "cap");
        vm.expectPartialRevert(IPolicyHook.NotAnnounced.selector); // once
        _execute(subject, address(hook), 0, data);
    }

    function test_only_the_account_changes_its_settings() public {
        vm.expectRevert(abi.encodeWithSelector(IPolicyHook.NotInstalled.selector, address(this)));
        hook.setWindows(new IPolicyHook.Window[](0));
        (bool installed,) = hook.settingsOf(subject);
        isTrue(installed, "installed");
    }

    function test_gas_of_an_operation_under_one_window() public {
        IPolicyHook.Window[] memory windows = new IPolicyHook.Window[](1);
        windows[0] = IPolicyHook.Window(address(coin), IPolicyHook.Span.ROLLING, 1 days, 0, 1000);
        _execute(subject, address(hook), 0, abi.encodeCall(hook.setWindows, (windows)));
        coin.mint(payee, 1);
        _send(1);
        uint256 hooked = _coldGas();
        _remove();
        uint256 bare = _coldGas();
        vm.snapshotValue("hook", string.concat(_name(), ": added by allowlist and one window"), hooked - bare);
    }

    /// Of a transfer whose accounts and slots were not touched before in the transaction, the entry point's own share aside.
    function _coldGas() private returns (uint256 used) {
        bytes memory data = _executeData(address(coin), 0, abi.encodeCall(ERC20.transfer, (payee, 1)));
        vm.cool(subject);
        vm.cool(address(hook));
        vm.cool(address(coin));
        vm.prank(address(ENTRY_POINT));
        used = gasleft();
        (bool success,) = subject.call(data);
        used -= gasleft();
        isTrue(success, "sent");
    }

    function _remove() internal virtual;

    function _name() internal pure virtual returns (string memory);
}

contract PolicyHookOnRiskAccountTest is PolicyHookBehaviour {
    function _subject() internal view override returns (address) {
        return address(account);
    }

    function _name() internal pure override returns (string memory) {
        return "RiskAccount";
    }

    function _remove() internal override {
        _uninstall(4, address(hook));
    }

    function test_it_does_not_veto_its_own_removal() public {
        _uninstall(4, address(hook));
        _execute(subject, address(coin), 0, abi.encodeCall(Coin.mint, (subject, 1)));
    }
}

contract PolicyHookOnForeignAccountTest is PolicyHookBehaviour {
    function _subject() internal override returns (address) {
        _install(address(foreign), 2, address(authority), abi.encode(_freezeData()));
        return address(foreign);
    }

    function _name() internal pure override returns (string memory) {
        return "OpenZeppelin's account";
    }

    function _remove() internal override {
        _op(subject, _removal());
    }

    function _removal() private view returns (bytes memory) {
        return abi.encodeCall(IERC7579ModuleConfig.uninstallModule, (4, address(hook), ""));
    }

    function test_it_does_not_veto_its_own_removal() public {
        _op(subject, _removal());
        _execute(subject, address(coin), 0, abi.encodeCall(Coin.mint, (subject, 1)));
    }

    function test_a_removal_announced_before_the_installation_is_void() public {
        IPolicyHook.Settings memory settings = IPolicyHook.Settings(address(authority), 1 days, true);
        _execute(subject, address(hook), 0, abi.encodeCall(hook.setSettings, (settings)));
        _execute(subject, address(hook), 0, abi.encodeCall(hook.announce, (_removal())));
        vm.expectPartialRevert(IPolicyHook.TooEarly.selector);
        _op(subject, _removal());
        vm.warp(_now() + 1 days);
        uint256 ready = vm.snapshotState();
        _op(subject, _removal());
        vm.revertToState(ready);
        _execute(
            subject,
            address(hook),
            0,
            abi.encodeCall(hook.announce, (abi.encodeCall(hook.setWindows, (new IPolicyHook.Window[](0)))))
        );
        _op(subject, _removal());
        _install(subject, 4, address(hook), abi.encode(_data(1 days)));
        vm.expectPartialRevert(IPolicyHook.NotAnnounced.selector);
        _op(subject, _removal());
        vm.expectPartialRevert(IPolicyHook.NotAnnounced.selector);
        _execute(subject, address(hook), 0, abi.encodeCall(hook.setWindows, (new IPolicyHook.Window[](0))));
    }

    function test_outside_active_only_exits_pass() public {
        _as(vm.addr(GUARDIAN_KEYS[0]), address(authority), abi.encodeWithSignature("freeze(address,uint8)", subject, 2));
        vm.expectPartialRevert(IPolicyHook.NotPermitted.selector);
        _send(1);
        vm.expectPartialRevert(IPolicyHook.NotPermitted.selector);
        executor.act(
            subject, SINGLE, abi.encodePacked(address(coin), uint256(0), abi.encodeCall(ERC20.transfer, (payee, 1)))
        );
        _execute(subject, cold, 1 ether, "");
        _execute(subject, address(authority), 0, abi.encodeWithSignature("startEscape()"));
    }
}
