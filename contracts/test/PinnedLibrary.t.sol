// SPDX-License-Identifier: MIT
pragma solidity ^0.8.26;

import {IERC7579Execution} from "@openzeppelin/contracts/interfaces/draft-IERC7579.sol";
import {AccountDeparture} from "../src/account/AccountDeparture.sol";
import {AccountStorage} from "../src/account/AccountStorage.sol";
import {AnnouncedAdmin} from "../src/account/AnnouncedAdmin.sol";
import {RiskAccount} from "../src/account/RiskAccount.sol";
import {IAccountEvents} from "../src/interfaces/IRiskAccount.sol";
import {RiskState} from "../src/interfaces/IRiskState.sol";
import {PlainModule, VetoHook} from "./Actors.sol";
import {Base} from "./Base.sol";

/// Says in whose name it runs, and does what it is told with the account's money.
contract Notary {
    event Ran(address as_, uint256 value);

    error Refuses();

    function run(uint256 value) external returns (uint256) {
        emit Ran(address(this), value);
        return value + 1;
    }

    function pay(address payable to, uint256 value) external {
        (bool success,) = to.call{value: value}("");
        if (!success) revert Refuses();
    }

    function refuse() external pure {
        revert Refuses();
    }
}

/// DELEGATECALL of the account: to code that was pinned by its hash, by entry point or self, while ACTIVE.
contract PinnedLibraryTest is Base {
    bytes32 private constant DELEGATE = bytes32(bytes1(0xff));
    bytes32 private constant DELEGATE_TRY = bytes32(bytes2(0xff01));
    Notary private notary;

    function setUp() public override {
        super.setUp();
        notary = new Notary();
    }

    function _pin(address library_, bytes32 codeHash) private view returns (bytes memory) {
        return abi.encodeCall(account.pinLibrary, (library_, codeHash));
    }

    function _run(bytes32 mode, address library_, bytes memory data) private pure returns (bytes memory) {
        return abi.encodeCall(IERC7579Execution.execute, (mode, abi.encodePacked(library_, data)));
    }

    function _delegate(bytes memory data) private {
        _op(address(account), _run(DELEGATE, address(notary), data));
    }

    function test_a_pinned_library_runs_as_the_account() public {
        _announced(_pin(address(notary), address(notary).codehash));
        eq(account.pinnedCodeHash(address(notary)), address(notary).codehash, "pinned");
        vm.expectEmit();
        emit Notary.Ran(address(account), 5);
        _delegate(abi.encodeCall(Notary.run, (5)));
        _delegate(abi.encodeCall(Notary.pay, (payable(cold), 1 ether)));
        eq(cold.balance, 1 ether, "paid by the account");
    }

    function test_pinning_is_announced_and_waits_and_can_be_withdrawn() public {
        bytes memory pin = _pin(address(notary), address(notary).codehash);
        vm.expectRevert(AnnouncedAdmin.OnlyAnnounced.selector);
        _op(address(account), pin);
        _op(address(account), abi.encodeCall(account.scheduleAdmin, (pin)));
        vm.expectPartialRevert(AnnouncedAdmin.TooEarly.selector);
        account.executeAdmin(pin);
        vm.warp(_now() + DELAY);
        vm.expectEmit();
        emit IAccountEvents.LibraryPinned(address(notary), address(notary).codehash);
        account.executeAdmin(pin);
        _op(address(account), abi.encodeCall(account.scheduleAdmin, (_pin(address(0x11), keccak256("x")))));
        _as(
            address(authority),
            address(account),
            abi.encodeCall(account.cancelAdmin, (keccak256(_pin(address(0x11), keccak256("x")))))
        );
        eq(account.adminExecutableAt(keccak256(_pin(address(0x11), keccak256("x")))), 0, "withdrawn by the authority");
    }

    function test_what_is_not_pinned_does_not_run() public {
        vm.expectRevert(abi.encodeWithSelector(RiskAccount.NotPinned.selector, address(notary)));
        _delegate(abi.encodeCall(Notary.run, (5)));
        vm.expectRevert(abi.encodeWithSelector(RiskAccount.NotPinned.selector, address(0)));
        _op(address(account), _run(DELEGATE, address(0), ""));
        vm.expectRevert(abi.encodeWithSelector(RiskAccount.NotPinned.selector, address(0)));
        _op(address(account), abi.encodeCall(IERC7579Execution.execute, (DELEGATE, "")));
    }

    function test_code_that_changed_since_it_was_pinned_does_not_run() public {
        _announced(_pin(address(notary), address(notary).codehash));
        vm.etch(address(notary), abi.encodePacked(address(notary).code, hex"00"));
        vm.expectRevert(abi.encodeWithSelector(RiskAccount.NotPinned.selector, address(notary)));
        _delegate(abi.encodeCall(Notary.run, (5)));
        vm.etch(address(notary), "");
        vm.expectRevert(abi.encodeWithSelector(RiskAccount.NotPinned.selector, address(notary)));
        _delegate(abi.encodeCall(Notary.run, (5)));
    }

    function test_no_code_and_other_code_cannot_be_pinned() public {
        bytes32[3] memory hashes = [keccak256(""), keccak256("other"), bytes32(uint256(1))];
        address[3] memory libraries = [cold, address(notary), address(0)];
        for (uint256 i = 0; i < 3; ++i) {
            bytes memory pin = _pin(libraries[i], hashes[i]);
            _op(address(account), abi.encodeCall(account.scheduleAdmin, (pin)));
            vm.warp(_now() + DELAY);
            vm.expectRevert(abi.encodeWithSelector(AccountDeparture.NotPinnable.selector, libraries[i], hashes[i]));
            account.executeAdmin(pin);
        }
    }

    function test_unpinning_ends_it() public {
        _announced(_pin(address(notary), address(notary).codehash));
        _announced(_pin(address(notary), 0));
        vm.expectRevert(abi.encodeWithSelector(RiskAccount.NotPinned.selector, address(notary)));
        _delegate(abi.encodeCall(Notary.run, (5)));
    }

    function test_rests_in_reduce_only_and_frozen() public {
        _announced(_pin(address(notary), address(notary).codehash));
        for (uint256 state = 1; state < 3; ++state) {
            vm.prank(vm.addr(GUARDIAN_KEYS[0]));
            authority.freeze(address(account), RiskState(state));
            vm.expectRevert(abi.encodeWithSelector(RiskAccount.NotPinned.selector, address(notary)));
            _delegate(abi.encodeCall(Notary.pay, (payable(cold), 1)));
        }
    }

    function test_an_executor_never_delegates_not_even_a_guard() public {
        _announced(_pin(address(notary), address(notary).codehash));
        PlainModule executor = new PlainModule();
        _install(address(account), 2, address(executor), "");
        _execute(address(account), address(authority), 0, abi.encodeCall(authority.setGuard, (address(executor), true)));
        bytes memory data = abi.encodePacked(address(notary), abi.encodeCall(Notary.run, (5)));
        bytes32[2] memory modes = [DELEGATE, DELEGATE_TRY];
        for (uint256 i = 0; i < 2; ++i) {
            vm.expectRevert(abi.encodeWithSelector(RiskAccount.NotPinned.selector, address(notary)));
            executor.act(address(account), modes[i], data);
        }
    }

    function test_a_failing_library_reverts_or_goes_on_as_the_mode_says() public {
        _announced(_pin(address(notary), address(notary).codehash));
        vm.expectRevert(Notary.Refuses.selector);
        _delegate(abi.encodeCall(Notary.refuse, ()));
        _op(address(account), _run(DELEGATE_TRY, address(notary), abi.encodeCall(Notary.refuse, ())));
    }

    function test_the_hook_is_asked_before_a_library_runs() public {
        VetoHook hook = new VetoHook();
        _install(address(account), 4, address(hook), "");
        _announced(_pin(address(notary), address(notary).codehash));
        uint256 before = hook.checks();
        _delegate(abi.encodeCall(Notary.run, (5)));
        eq(hook.checks(), before + 1, "asked");
        hook.setVeto(true);
        vm.expectRevert(VetoHook.Vetoed.selector);
        _delegate(abi.encodeCall(Notary.run, (5)));
    }

    function test_fuzz_the_modes_that_are_supported_are_those_that_run(bytes32 mode, uint8 shape) public {
        uint256 raw = uint256(mode);
        if (shape & 1 != 0) raw &= ~(type(uint256).max >> 16); // only the call and execution types are made up
        if (shape & 2 != 0) raw = (raw & ~(uint256(0xff) << 248)) | (uint256(0xff) << 248);
        if (shape & 4 != 0) raw &= ~(uint256(0xfe) << 240);
        mode = bytes32(raw);
        uint256 calls = raw >> 248;
        uint256 tries = uint8(raw >> 240);
        bool known = (calls < 2 || calls == 0xff) && tries < 2 && raw << 16 == 0;
        bool erc7821 = mode == bytes32(uint256(0x01000000000078210001) << 176);
        isTrue(account.supportsExecutionMode(mode) == (known || erc7821), "supported");
        _announced(_pin(address(notary), address(notary).codehash));
        bytes memory execution = abi.encodePacked(address(notary), abi.encodeCall(Notary.run, (5)));
        if (calls == 0) execution = abi.encodePacked(address(target), uint256(0), "");
        if (calls == 1) execution = abi.encode(new bytes[](0));
        vm.prank(address(ENTRY_POINT));
        (bool success,) = address(account).call(abi.encodeCall(IERC7579Execution.execute, (mode, execution)));
        isTrue(success == (known || erc7821), "runs");
    }
}
