// SPDX-License-Identifier: MIT
pragma solidity ^0.8.26;

import {RiskState} from "../../src/interfaces/IRiskState.sol";
import {PlainModule} from "../Actors.sol";
import {RecoveryRig} from "../Recovery.t.sol";
import {Assertions} from "../Vm.sol";

/// Guardians, an heir, the owner, the authority and strangers do whatever they like in any order; a book beside the module says when an owner
/// may have changed.
contract RecoveryWorld is RecoveryRig {
    struct Standing {
        address next;
        uint256 since;
        bool byHeir;
    }

    string public violation;
    uint256 public recovered;
    Standing private standing;
    uint256 private lifeAt;
    bytes private ownerBefore;

    function setUp() public override {
        if (subject != address(0)) return; // part of what the fuzzer may call
        super.setUp();
        subject = address(account);
        _execute(subject, address(authority), 0, abi.encodeCall(authority.setGuard, (address(recovery), true)));
        _install(subject, 2, address(recovery), abi.encode(_settings()));
        (lifeAt, ownerBefore) = (_now(), account.ownerSigner());
    }

    function _newOwner(address who) internal pure override returns (bytes memory) {
        return abi.encodePacked(uint8(0), who);
    }

    function _ownerNow() internal view override returns (bytes memory) {
        return account.ownerSigner();
    }

    function _target() internal pure override returns (address) {
        return address(0);
    }

    function _delay() internal pure override returns (uint48) {
        return WAIT;
    }

    function _ownerSignature(bytes32 digest, uint256 key) internal pure override returns (bytes memory) {
        return _sign(key, digest);
    }

    /// Nothing but `executes` changes the owner.
    modifier keeps() {
        _;
        if (keccak256(account.ownerSigner()) != keccak256(ownerBefore)) violation = "the owner changed by another way";
    }

    function _who(uint256 seed) private pure returns (address) {
        return address(uint160(0x1000 + seed % 3));
    }

    function guardiansPropose(uint256 mask, uint256 who) external keeps {
        try this.propose(mask % 8, _newOwner(_who(who))) {
            if (mask % 8 != 3 && mask % 8 < 5) violation = "too few guardians proposed";
            standing = Standing(_who(who), _now(), false);
        } catch {}
    }

    function heirClaims(uint256 who) external keeps {
        try this.claim(_newOwner(_who(who))) {
            if (_now() < lifeAt + SILENCE) violation = "the heir did not wait";
            standing = Standing(_who(who), _now(), true);
        } catch {}
    }

    function ownerCancels(bool bySignature) external keeps {
        if (bySignature) {
            bytes memory signature = _ownerSignature(_digest(_plain(CANCEL)), OWNER_KEY);
            try recovery.cancelBySig(subject, LATER, signature) {
                (lifeAt, standing.since) = (_now(), 0);
            } catch {}
            return;
        }
        vm.prank(address(ENTRY_POINT));
        (bool success,) = subject.call(_executeData(address(recovery), 0, abi.encodeCall(recovery.cancel, ())));
        if (success) (lifeAt, standing.since) = (_now(), 0);
    }

    function ownerCancelsAtTheAccount() external keeps {
        bytes32 actionHash = keccak256(abi.encodeCall(account.setOwner, (_newOwner(standing.next))));
        vm.prank(address(ENTRY_POINT));
        (bool success,) = subject.call(abi.encodeCall(account.cancelAdmin, (actionHash)));
        if (success) standing.since = 0;
    }

    function ownerInstalls() external keeps {
        vm.prank(address(ENTRY_POINT));
        (bool success,) =
            subject.call(abi.encodeWithSignature("installModule(uint256,address,bytes)", 2, new PlainModule(), ""));
        if (success) standing.since = 0;
    }

    function ownerOperates(uint256 lane) external keeps {
        nonces.use(subject, _settings().lanes[lane % 2]);
        lifeAt = _now();
    }

    function guardiansWithdraw(uint256 mask) external keeps {
        try recovery.withdraw(subject, LATER, _signed(mask % 8, _plain(WITHDRAW))) {
            standing.since = 0;
        } catch {}
    }

    function freezes(uint256 i, uint256 state) external keeps {
        vm.prank(vm.addr(GUARDIAN_KEYS[i % 3]));
        try authority.freeze(subject, RiskState(state % 3)) {} catch {}
    }

    function anyoneWitnesses() external keeps {
        recovery.witness(subject);
    }

    function anyoneCarriesOut(address who, bytes calldata junk) external keeps {
        if (who == subject || who == address(ENTRY_POINT) || who == address(recovery) || who == address(authority)) {
            return;
        }
        bytes memory call_ = abi.encodeCall(account.setOwner, (_newOwner(standing.next)));
        vm.prank(who);
        (bool success,) = subject.call(abi.encodeCall(account.executeAdmin, (call_)));
        vm.prank(who);
        (success,) = subject.call(abi.encodeCall(account.announceRecovery, (_newOwner(who), 0)));
        vm.prank(who);
        (success,) = address(recovery).call(junk);
    }

    function executes() external {
        try recovery.execute(subject) {
            if (standing.since == 0) {
                violation = "carried out what was cancelled, or twice";
            } else if (_now() < standing.since + WAIT) {
                violation = "carried out before the delay";
            } else if (keccak256(account.ownerSigner()) != keccak256(_newOwner(standing.next))) {
                violation = "another owner";
            } else if (standing.byHeir && lifeAt > standing.since) {
                violation = "the heir inherited from the living";
            }
            ++recovered;
            (lifeAt, ownerBefore, standing.since) = (_now(), account.ownerSigner(), 0);
        } catch {}
    }

    function timePasses(uint32 duration) external {
        vm.warp(_now() + bound(duration, 1, 20 days));
        try authority.expire(subject) {} catch {}
    }
}

contract RecoveryInvariantTest is Assertions {
    RecoveryWorld private world;

    function setUp() public {
        world = new RecoveryWorld();
        world.setUp();
    }

    function targetContracts() external view returns (address[] memory targets) {
        targets = new address[](1);
        targets[0] = address(world);
    }

    /// An owner changes by a quorum or an heir, after the delay, once, and never past a cancellation or a sign of life.
    function invariant_an_owner_changes_as_everybody_saw_it_coming() external view {
        string memory violation = world.violation();
        isTrue(bytes(violation).length == 0, violation);
    }

    /// The world above is not kept by doing nothing.
    function test_owners_do_change_in_this_world() external {
        world.guardiansPropose(3, 1);
        world.timePasses(3 days);
        world.executes();
        world.timePasses(20 days - 1);
        world.timePasses(20 days - 1);
        world.heirClaims(2);
        world.timePasses(4 days);
        world.executes();
        eq(world.recovered(), 2, "recovered");
        isTrue(bytes(world.violation()).length == 0, world.violation());
    }
}
