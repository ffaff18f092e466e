// SPDX-License-Identifier: MIT
pragma solidity ^0.8.26;

import {IERC7579Execution, IERC7579ModuleConfig} from "@openzeppelin/contracts/interfaces/draft-IERC7579.sol";
import {IEmergencyFreeze} from "../src/interfaces/IEmergencyFreeze.sol";
import {RiskState} from "../src/interfaces/IRiskState.sol";
import {PlainModule, Target} from "./Actors.sol";
import {Base} from "./Base.sol";

/// Who can do what in which state: each row is tried by each actor in each state, and docs/security.md shows the same rows.
contract AuthorityMatrixTest is Base {
    address private constant STRANGER = address(0x5774);
    address private constant PAYEE = address(0xBEEF);
    address[5] private actors;

    function setUp() public override {
        super.setUp();
        PlainModule executor = new PlainModule();
        PlainModule guard = new PlainModule();
        actors = [address(ENTRY_POINT), address(executor), address(guard), vm.addr(GUARDIAN_KEYS[0]), STRANGER];
        _install(address(account), 2, address(executor), "");
        _install(address(account), 2, address(guard), "");
        _asOwner(abi.encodeCall(authority.setGuard, (address(guard), true)));
        IEmergencyFreeze.Exit memory exit =
            IEmergencyFreeze.Exit(address(target), Target.hit.selector, false, false, 2, new bytes32[](1));
        exit.args[0] = bytes32(uint256(uint160(PAYEE)));
        _asOwner(abi.encodeCall(authority.setExit, (exit, true)));
        _announced(abi.encodeCall(account.pinLibrary, (address(guard), address(guard).codehash)));
        _op(address(account), abi.encodeCall(account.scheduleAdmin, (_caps(1))));
        vm.warp(_now() + DELAY);
    }

    function _asOwner(bytes memory data) private {
        _execute(address(account), address(authority), 0, data);
    }

    function _caps(uint128 cap) private view returns (bytes memory) {
        return abi.encodeCall(account.setPrefundCaps, ([cap, cap, cap]));
    }

    /// `wanted`: for each actor the states in which it works (Active, Reduce only, Frozen) or a dash.
    function _row(string memory what, string memory wanted, address to, bytes memory data) private {
        bytes memory states = "ARF";
        for (uint256 state = 0; state < 3; ++state) {
            for (uint256 i = 0; i < actors.length; ++i) {
                uint256 before = vm.snapshotState();
                if (state != 0) {
                    vm.prank(actors[3]);
                    authority.freeze(address(account), RiskState(state));
                }
                (address called, bytes memory sent) = (to, data);
                // What the owner tells another contract, he tells it through his account.
                if (i == 0 && to != address(account)) (called, sent) = (address(account), _executeData(to, 0, data));
                vm.prank(actors[i]);
                (bool success,) = called.call(sent);
                vm.revertToState(before);
                bytes1 expected = bytes(wanted)[4 * i + state];
                string memory which = string.concat(what, ", actor ", string(abi.encodePacked(uint8(48 + i))));
                eq(bytes32(success ? states[state] : bytes1("-")), bytes32(expected), which);
            }
        }
    }

    // actors:                                          owner exec. guard guardian stranger
    function test_who_can_do_what_in_which_state() public {
        address a = address(account);
        bytes memory hit = abi.encodeCall(Target.hit, (1, STRANGER));
        bytes memory exit = abi.encodeCall(Target.hit, (1, PAYEE));
        bytes memory call = abi.encodePacked(address(target), uint256(0), hit);
        bytes memory self = abi.encodePacked(a, uint256(0), abi.encodeCall(account.setRiskState, (RiskState.ACTIVE)));
        bytes memory install = abi.encodeCall(IERC7579ModuleConfig.installModule, (2, address(new PlainModule()), ""));
        bytes memory uninstall = abi.encodeCall(IERC7579ModuleConfig.uninstallModule, (2, actors[1], ""));
        bytes32 announced = keccak256(_caps(1));
        _row("execute any call", "A-- --- --- --- ---", a, _executeData(address(target), 0, hit));
        _row("execute an exit of REDUCE_ONLY", "AR- --- --- --- ---", a, _executeData(address(target), 0, exit));
        _row("execute an exit of FROZEN", "ARF --- --- --- ---", a, _executeData(cold, 1, ""));
        _row(
            "executeFromExecutor, any other contract",
            "--- A-- ARF --- ---",
            a,
            abi.encodeCall(IERC7579Execution.executeFromExecutor, (SINGLE, call))
        );
        _row(
            "executeFromExecutor, the account itself",
            "--- --- --- --- ---",
            a,
            abi.encodeCall(IERC7579Execution.executeFromExecutor, (SINGLE, self))
        );
        bytes memory pinned = abi.encodePacked(actors[2], abi.encodeCall(PlainModule.isModuleType, (1)));
        _row(
            "execute a DELEGATECALL to a pinned library",
            "A-- --- --- --- ---",
            a,
            abi.encodeCall(IERC7579Execution.execute, (bytes32(bytes1(0xff)), pinned))
        );
        _row(
            "executeFromExecutor, a DELEGATECALL to it",
            "--- --- --- --- ---",
            a,
            abi.encodeCall(IERC7579Execution.executeFromExecutor, (bytes32(bytes1(0xff)), pinned))
        );
        _row("installModule", "A-- --- --- --- ---", a, install);
        _row("uninstallModule, not announced", "--- --- --- --- ---", a, uninstall);
        _row("setOwner, not announced", "--- --- --- --- ---", a, abi.encodeCall(account.setOwner, (_ownerBytes())));
        _row("scheduleAdmin", "A-- --- --- --- ---", a, abi.encodeCall(account.scheduleAdmin, (_caps(2))));
        _row("executeAdmin after the delay", "AR- AR- AR- AR- AR-", a, abi.encodeCall(account.executeAdmin, (_caps(1))));
        _row(
            "announceRecovery",
            "--- --- ARF --- ---",
            a,
            abi.encodeCall(account.announceRecovery, (_ownerBytes(), DELAY))
        );
        _row("cancelAdmin", "ARF --- --- --- ---", a, abi.encodeCall(account.cancelAdmin, (announced)));
        _row("setRiskState", "--- --- --- --- ---", a, abi.encodeCall(account.setRiskState, (RiskState.FROZEN)));
        address f = address(authority);
        _row("freeze", "--- --- AR- AR- ---", f, abi.encodeCall(authority.freeze, (a, RiskState.FROZEN)));
        _row("startEscape", "-RF --- --- --- ---", f, abi.encodeCall(authority.startEscape, ()));
        _row("setGuard", "A-- --- --- --- ---", f, abi.encodeCall(authority.setGuard, (STRANGER, true)));
        _row("thaw, not asked for", "--- --- --- --- ---", f, abi.encodeCall(authority.thaw, (a)));
    }
}
