// SPDX-License-Identifier: MIT
pragma solidity ^0.8.26;

import {Account} from "@openzeppelin/contracts/account/Account.sol";
import {IERC7579Execution} from "@openzeppelin/contracts/interfaces/draft-IERC7579.sol";
import {PackedUserOperation} from "@openzeppelin/contracts/interfaces/IERC4337.sol";
import {Initializable} from "@openzeppelin/contracts/proxy/utils/Initializable.sol";
import {UUPSUpgradeable} from "@openzeppelin/contracts/proxy/utils/UUPSUpgradeable.sol";
import {AccountDeparture} from "../src/account/AccountDeparture.sol";
import {AnnouncedAdmin} from "../src/account/AnnouncedAdmin.sol";
import {RiskAccount} from "../src/account/RiskAccount.sol";
import {AccountConfig, ModuleInit} from "../src/interfaces/IRiskAccount.sol";
import {RiskState} from "../src/interfaces/IRiskState.sol";
import {HostileModule, PlainModule, Target, VetoHook} from "./Actors.sol";
import {Base} from "./Base.sol";

/// An EOA with EIP-7702 code becomes a risk account in place, and leaves.
contract DelegationTest is Base {
    uint256 private constant ROOT_KEY = 0x7702;
    bytes32 private constant HASH = keccak256("operation");
    // The modules' storage of OpenZeppelin's account, which another delegate may have written.
    bytes32 private constant MODULES_SLOT = 0x0a47d913d72b2639f4ca1c145cc07ddf7170b73b257c8e0d4fced7cc8e3e3900;
    bytes32 private constant STATE_WORD_SLOT = 0x2b49b75317ffc1021ca7da4ca3423bf8403e18b223e63e6bc7abe8f39a5ed700;
    address private root = vm.addr(ROOT_KEY);
    RiskAccount private eoa = RiskAccount(payable(root));

    function setUp() public override {
        super.setUp();
        vm.etch(root, abi.encodePacked(hex"ef0100", factory.implementation()));
        vm.deal(root, 10 ether);
    }

    function _joined() private {
        AccountConfig memory config = _config(_modules());
        config.owner = abi.encodePacked(uint8(0), root);
        _op(root, abi.encodeCall(eoa.initialize, (config)));
    }

    function _rootTransaction(bytes memory data) private {
        vm.prank(root, root);
        (bool success, bytes memory answer) = root.call(data);
        if (!success) {
            assembly {
                revert(add(answer, 0x20), mload(answer))
            }
        }
    }

    function _signedBy(uint256 key, address module, uint8 lane) private view returns (PackedUserOperation memory op) {
        op = _userOp(root, module, lane, "");
        op.signature = _sign(key, HASH);
    }

    // ------------------------------------------------------------------ before joining

    function test_before_it_joins_the_account_obeys_its_own_key_and_nobody_else() public {
        eq(_validate(_signedBy(ROOT_KEY, address(0), 0), HASH), 0, "root");
        eq(_validate(_signedBy(THIEF_KEY, address(0), 0), HASH), FAILED, "thief");
        _execute(root, address(target), 0, abi.encodeCall(target.hit, (1, cold)));
        eq(target.calls(), 1, "acts");
        eq(eoa.ownerSigner(), abi.encodePacked(uint8(0), root), "owner");
    }

    function test_nobody_can_initialize_it_before_its_key_does() public {
        AccountConfig memory config = _config(_modules());
        vm.prank(address(0xbad));
        vm.expectRevert(abi.encodeWithSelector(Account.AccountUnauthorized.selector, address(0xbad)));
        eoa.initialize(config);
        vm.prank(address(factory));
        vm.expectRevert(abi.encodeWithSelector(Account.AccountUnauthorized.selector, address(factory)));
        eoa.initialize(config);
        _joined();
        vm.expectRevert(Initializable.InvalidInitialization.selector);
        _op(root, abi.encodeCall(eoa.initialize, (config)));
        vm.expectRevert(Initializable.InvalidInitialization.selector);
        _rootTransaction(abi.encodeCall(eoa.initialize, (config)));
    }

    function test_modules_of_another_delegate_neither_act_nor_become_ours() public {
        PlainModule stale = new PlainModule();
        VetoHook hook = new VetoHook();
        _stale(MODULES_SLOT, address(stale)); // a validator
        _stale(bytes32(uint256(MODULES_SLOT) + 2), address(stale)); // an executor
        vm.store(root, STATE_WORD_SLOT, bytes32(uint256(uint160(address(hook)))));
        eq(_validate(_signedBy(ROOT_KEY, address(stale), 0), HASH), FAILED, "validator");
        isTrue(!eoa.isModuleInstalled(1, address(stale), ""), "not installed");
        vm.expectRevert();
        stale.act(root, SINGLE, abi.encodePacked(cold, uint256(1), ""));
        eq(eoa.hook(), address(0), "hook");
        hook.setVeto(true);
        _execute(root, address(target), 0, abi.encodeCall(target.hit, (1, cold)));
        AccountConfig memory config = _config(_modules());
        vm.expectRevert(RiskAccount.ForeignModules.selector);
        _op(root, abi.encodeCall(eoa.initialize, (config)));
        _op(root, abi.encodeCall(eoa.leave, (new bytes4[](0))));
        _joined();
        isTrue(!eoa.isModuleInstalled(1, address(stale), ""), "gone");
        eq(eoa.hook(), address(0), "hook gone");
    }

    /// One entry in an EnumerableSet.AddressSet at `slot`.
    function _stale(bytes32 slot, address module) private {
        vm.store(root, slot, bytes32(uint256(1)));
        vm.store(root, keccak256(abi.encode(slot)), bytes32(uint256(uint160(module))));
        bytes32 position = keccak256(abi.encode(module, uint256(slot) + 1));
        vm.store(root, position, bytes32(uint256(1)));
    }

    // ------------------------------------------------------------------ joined

    function test_it_joins_by_its_own_operation_and_its_guards_bind_whoever_else_acts() public {
        _joined();
        eq(eoa.riskAuthority(), address(authority), "authority");
        eq(eoa.adminDelay(), DELAY, "delay");
        eq(eoa.prefundCaps()[2], CAP / 4, "caps");
        _as(vm.addr(GUARDIAN_KEYS[0]), address(authority), abi.encodeCall(authority.freeze, (root, RiskState.FROZEN)));
        vm.expectRevert();
        _execute(root, address(target), 0, abi.encodeCall(target.hit, (1, root)));
        _execute(root, cold, 1, "");
        eq(cold.balance, 1, "exit");
    }

    function test_it_may_join_with_another_owner_than_its_own_key() public {
        AccountConfig memory config = _config(_modules());
        _rootTransaction(abi.encodeCall(eoa.initialize, (config)));
        eq(_validate(_signedBy(ROOT_KEY, address(0), 0), HASH), FAILED, "its own key signs no operations");
        eq(_validate(_signedBy(OWNER_KEY, address(0), 0), HASH), 0, "the owner does");
    }

    function test_the_attested_path_closes_the_native_one_here_too() public {
        _joined();
        _install(root, 1, address(validator), _riskData(""));
        eq(_validate(_signedBy(ROOT_KEY, address(0), 0), HASH), FAILED, "key alone");
    }

    function test_a_delegated_account_is_no_proxy_to_upgrade() public {
        _joined();
        account = eoa;
        bytes memory upgrade = abi.encodeCall(eoa.upgradeToAndCall, (factory.implementation(), ""));
        _op(root, abi.encodeCall(eoa.scheduleAdmin, (upgrade)));
        vm.warp(_now() + DELAY);
        vm.expectRevert(UUPSUpgradeable.UUPSUnauthorizedCallContext.selector);
        eoa.executeAdmin(upgrade);
    }

    // ------------------------------------------------------------------ leaving

    function test_the_root_key_leaves_at_once_and_nothing_stays_behind() public {
        _joined();
        _install(root, 1, address(validator), _riskData(""));
        HostileModule hostile = new HostileModule(false);
        _install(root, 2, address(hostile), "");
        _install(root, 3, address(hostile), abi.encodePacked(bytes4(0x12345678)));
        VetoHook hook = new VetoHook();
        _install(root, 4, address(hook), "");
        hook.setVeto(true);
        _as(vm.addr(GUARDIAN_KEYS[0]), address(authority), abi.encodeCall(authority.freeze, (root, RiskState.FROZEN)));
        bytes4[] memory selectors = new bytes4[](0);
        vm.expectRevert(abi.encodeWithSelector(AccountDeparture.HandlersLeft.selector, 1));
        _rootTransaction(abi.encodeCall(eoa.leave, (selectors)));
        selectors = new bytes4[](1);
        selectors[0] = 0x12345678;
        _rootTransaction(abi.encodeCall(eoa.leave, (selectors)));
        for (uint256 kind = 1; kind < 5; ++kind) {
            isTrue(!eoa.isModuleInstalled(kind, address(hostile), abi.encodePacked(bytes4(0x12345678))), "hostile");
            isTrue(!eoa.isModuleInstalled(kind, address(validator), ""), "validator");
            isTrue(!eoa.isModuleInstalled(kind, address(authority), ""), "authority");
        }
        eq(eoa.riskAuthority(), address(0), "authority");
        (RiskState state, uint64 epoch) = eoa.riskState();
        eq(uint256(state), 0, "state");
        isTrue(epoch == 2, "the epoch never falls");
        eq(_validate(_signedBy(ROOT_KEY, address(0), 0), HASH), 0, "its own key again");
        isTrue(eoa.nativeOwnerPath(), "native path");
    }

    function test_it_can_join_again_and_earlier_announcements_stay_void() public {
        _joined();
        bytes memory change = abi.encodeCall(eoa.setPrefundCaps, ([CAP, CAP, CAP]));
        _op(root, abi.encodeCall(eoa.scheduleAdmin, (change)));
        _rootTransaction(abi.encodeCall(eoa.leave, (new bytes4[](0))));
        _joined();
        vm.warp(_now() + DELAY);
        vm.expectRevert(abi.encodeWithSelector(AnnouncedAdmin.Lapsed.selector, keccak256(change)));
        eoa.executeAdmin(change);
    }

    function test_operations_leave_only_through_the_delay() public {
        _joined();
        bytes memory departure = abi.encodeCall(eoa.leave, (new bytes4[](0)));
        vm.expectRevert(AnnouncedAdmin.OnlyAnnounced.selector);
        _op(root, departure);
        vm.expectRevert(AnnouncedAdmin.OnlyAnnounced.selector);
        _execute(root, root, 0, departure);
        vm.prank(address(0xbad), root); // a contract that the root key was made to call
        vm.expectRevert(AnnouncedAdmin.OnlyAnnounced.selector);
        eoa.leave(new bytes4[](0));
        account = eoa;
        _announced(departure);
        eq(eoa.riskAuthority(), address(0), "left");
    }

    function test_an_account_with_code_of_its_own_cannot_leave() public {
        vm.expectRevert(RiskAccount.NotDelegated.selector);
        _op(address(account), abi.encodeCall(account.leave, (new bytes4[](0))));
    }

    // ------------------------------------------------------------------ ERC-7821

    function test_erc7821_batches_run_and_operation_data_are_refused() public {
        bytes32 mode = bytes32(uint256(0x01000000000078210001) << 176);
        isTrue(account.supportsExecutionMode(mode), "supported");
        isTrue(!account.supportsExecutionMode(bytes32(uint256(0x01000000000078210002) << 176)), "batch of batches");
        IBatch.Call[] memory calls = new IBatch.Call[](2);
        calls[0] = IBatch.Call(address(target), 1, abi.encodeCall(target.hit, (1, cold)));
        calls[1] = IBatch.Call(address(target), 0, abi.encodeCall(target.hit, (2, cold)));
        _op(address(account), abi.encodeCall(IERC7579Execution.execute, (mode, abi.encode(calls))));
        _op(address(account), abi.encodeCall(IERC7579Execution.execute, (mode, abi.encode(calls, bytes("")))));
        eq(target.calls(), 4, "ran");
        vm.expectRevert(RiskAccount.OperationData.selector);
        _op(address(account), abi.encodeCall(IERC7579Execution.execute, (mode, abi.encode(calls, bytes("x")))));
        vm.expectRevert();
        _op(address(account), abi.encodeCall(IERC7579Execution.execute, (mode, hex"")));
    }
}

interface IBatch {
    struct Call {
        address to;
        uint256 value;
        bytes data;
    }
}
