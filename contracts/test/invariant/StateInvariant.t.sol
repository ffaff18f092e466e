// SPDX-License-Identifier: MIT
pragma solidity ^0.8.26;

import {ERC20} from "@openzeppelin/contracts/token/ERC20/ERC20.sol";
import {IERC1271} from "@openzeppelin/contracts/interfaces/IERC1271.sol";
import {
    Execution,
    IERC7579Execution,
    IERC7579ModuleConfig
} from "@openzeppelin/contracts/interfaces/draft-IERC7579.sol";
import {IEmergencyFreeze} from "../../src/interfaces/IEmergencyFreeze.sol";
import {RiskState} from "../../src/interfaces/IRiskState.sol";
import {PlainModule} from "../Actors.sol";
import {Base} from "../Base.sol";
import {Coin} from "../Tokens.sol";
import {Venue} from "../Venue.sol";

/// An account with money, a position and a debt; its owner, two executors, guardians and strangers do whatever they like, in any order.
/// After every action the account is compared with itself before it, under the state that was in force when the action began.
abstract contract StateWorld is Base {
    struct Books {
        uint256 coins;
        uint256 ether_;
        uint256 approved;
        uint256 size;
        uint256 debt;
        uint256 coldCoins;
        uint256 coldEther;
        uint256 venueEther;
    }

    address internal subject;
    Coin internal coin;
    Venue internal venue;
    PlainModule internal executor;
    address internal payee = address(0xBEEF);
    string public violation;
    uint256[3] public acted;
    uint256[3] public worked;

    uint48 internal constant LATER = type(uint48).max;
    bytes32 private constant FREEZE =
        keccak256("Freeze(address account,uint8 state,uint64 epoch,uint256 nonce,uint48 expiry)");
    bytes32 private constant THAW =
        keccak256("Thaw(address account,uint8 state,uint64 epoch,uint256 nonce,uint48 expiry)");

    function _begin(address on) internal {
        subject = on;
        coin = new Coin(6);
        venue = new Venue();
        executor = new PlainModule();
        coin.mint(subject, 1_000_000);
        venue.set(subject, 100e18, 1000e18);
        venue.setPrices(100e18, 100e18);
        _install(subject, 2, address(executor), "");
        if (subject == address(foreign)) _install(subject, 4, address(authority), abi.encode(_freezeData()));
        _declare(address(coin), ERC20.transfer.selector, 1, bytes32(uint256(uint160(cold))), false);
        _declare(cold, 0, 0, 0, true);
    }

    function _declare(address to, bytes4 selector, uint8 mask, bytes32 first, bool frozen) private {
        IEmergencyFreeze.Exit memory exit =
            IEmergencyFreeze.Exit(to, selector, frozen, selector == 0, mask, new bytes32[](mask));
        if (mask == 1) exit.args[0] = first;
        _execute(subject, address(authority), 0, abi.encodeCall(authority.setExit, (exit, true)));
    }

    function _books() private view returns (Books memory b) {
        int256 size = venue.sizes(subject);
        return Books({
            coins: coin.balanceOf(subject),
            ether_: subject.balance,
            approved: coin.allowance(subject, payee) + coin.allowance(subject, cold)
                + coin.allowance(subject, address(executor)),
            size: uint256(size < 0 ? -size : size),
            debt: venue.debts(subject),
            coldCoins: coin.balanceOf(cold),
            coldEther: cold.balance,
            venueEther: address(venue).balance
        });
    }

    /// What each state promises, on two consecutive pages of the books.
    modifier judged() {
        (RiskState state,) = authority.stateOf(subject);
        Books memory was = _books();
        _;
        Books memory is_ = _books();
        ++acted[uint256(state)];
        if (keccak256(abi.encode(was)) != keccak256(abi.encode(is_))) ++worked[uint256(state)];
        if (state == RiskState.ACTIVE) return;
        if (is_.approved > was.approved) violation = "an allowance was raised";
        if (is_.size > was.size) violation = "a position was raised";
        if (is_.debt > was.debt) violation = "a debt was raised";
        if (was.coins - is_.coins != is_.coldCoins - was.coldCoins) violation = "coins left along no exit";
        if (was.ether_ - is_.ether_ != is_.coldEther - was.coldEther) violation = "ether left along no exit";
        if (state != RiskState.FROZEN) return;
        if (is_.coins != was.coins) violation = "coins left along an exit that is closed in FROZEN";
        if (is_.size != was.size || is_.debt != was.debt) violation = "a position moved in FROZEN";
    }

    function _call(uint256 seed) private view returns (address to, uint256 value, bytes memory data) {
        uint256 amount = seed >> 128 & 0xff;
        uint256 kind = seed % 16;
        if (kind == 0) return (address(coin), 0, abi.encodeCall(ERC20.transfer, (payee, amount)));
        if (kind == 1) return (address(coin), 0, abi.encodeCall(ERC20.transfer, (cold, amount)));
        if (kind == 2) return (address(coin), 0, abi.encodeCall(ERC20.approve, (payee, amount)));
        if (kind == 3) return (address(coin), 0, abi.encodeCall(Coin.increaseAllowance, (payee, amount)));
        if (kind == 4) return (address(coin), 0, abi.encodeCall(ERC20.approve, (address(executor), amount)));
        if (kind == 5) return (payee, amount, "");
        if (kind == 6) return (cold, amount, "");
        if (kind == 7) return (cold, amount, hex"00");
        if (kind == 8) return (address(venue), 0, abi.encodeCall(venue.set, (subject, 200e18, 5000e18)));
        if (kind == 9) return (address(venue), 0, abi.encodeCall(venue.trade, (amount, 0)));
        if (kind == 10) {
            return (subject, 0, abi.encodeCall(IERC7579Execution.execute, (SINGLE, abi.encodePacked(payee, amount))));
        }
        if (kind == 11) return (address(authority), 0, abi.encodeCall(authority.setGuard, (payee, true)));
        if (kind == 12) return (address(0), amount, abi.encodeCall(ERC20.transfer, (payee, amount)));
        if (kind == 13) return (address(coin), 0, abi.encodeCall(ERC20.transferFrom, (subject, payee, amount)));
        if (kind == 14) return (address(authority), 0, abi.encodeCall(authority.startEscape, ()));
        return (address(coin), 0, abi.encodeCall(Coin.burn, (amount)));
    }

    function _calls(uint256 seed) private view returns (bytes32 mode, bytes memory execution) {
        bool try_ = seed >> 8 & 1 != 0;
        if (seed >> 9 & 1 == 0) {
            (address to, uint256 value, bytes memory data) = _call(uint256(keccak256(abi.encode(seed))));
            return (try_ ? SINGLE_TRY : SINGLE, abi.encodePacked(to, value, data));
        }
        Execution[] memory calls = new Execution[](1 + seed % 3);
        for (uint256 i = 0; i < calls.length; ++i) {
            (address to, uint256 value, bytes memory data) = _call(uint256(keccak256(abi.encode(seed, i))));
            calls[i] = Execution(to, value, data);
        }
        return (try_ ? bytes32(bytes2(0x0101)) : BATCH, abi.encode(calls));
    }

    function ownerExecutes(uint256 seed) external judged {
        (bytes32 mode, bytes memory execution) = _calls(seed);
        vm.prank(address(ENTRY_POINT));
        (bool success,) = subject.call(abi.encodeCall(IERC7579Execution.execute, (mode, execution)));
        success;
    }

    /// One call that can work while not ACTIVE, so that the promises are not kept by doing nothing.
    function ownerExits(uint256 seed) external judged {
        (address to, uint256 value, bytes memory data) = _call((seed & ~uint256(15)) | (seed & 1 == 0 ? 1 : 6));
        vm.prank(address(ENTRY_POINT));
        (bool success,) = subject.call(_executeData(to, value, data));
        success;
    }

    function executorActs(uint256 seed) external judged {
        (bytes32 mode, bytes memory execution) = _calls(seed);
        try executor.act(subject, mode, execution) {} catch {}
    }

    function ownerAdministers(uint256 seed) external judged {
        bytes memory data;
        uint256 kind = seed % 4;
        if (kind == 0) data = abi.encodeCall(IERC7579ModuleConfig.installModule, (2, address(new PlainModule()), ""));
        if (kind == 1) data = abi.encodeCall(IERC7579ModuleConfig.installModule, (1, address(executor), ""));
        if (kind == 2) data = abi.encodeCall(account.setPrefundCaps, ([CAP, CAP, CAP]));
        if (kind == 3) data = abi.encodeCall(account.setRiskState, (RiskState.ACTIVE));
        vm.prank(address(ENTRY_POINT));
        (bool success,) = subject.call(data);
        success;
    }

    function strangerCalls(address who, uint256 seed, bytes calldata junk) external judged {
        if (who == address(ENTRY_POINT) || who == subject || who == address(executor) || who == address(authority)) {
            return;
        }
        (bytes32 mode, bytes memory execution) = _calls(seed);
        bytes memory data = junk;
        if (seed % 4 == 0) data = abi.encodeCall(IERC7579Execution.execute, (mode, execution));
        if (seed % 4 == 1) data = abi.encodeCall(IERC7579Execution.executeFromExecutor, (mode, execution));
        if (seed % 4 == 2) data = abi.encodeCall(account.setRiskState, (RiskState.ACTIVE));
        vm.prank(who);
        (bool success,) = subject.call(data);
        success;
    }

    /// A signature of the owner as ERC-7739 wants it, offered while the account is not ACTIVE.
    function signatureIsAsked(bytes32 hash) external {
        (RiskState state,) = authority.stateOf(subject);
        bytes memory signature = abi.encodePacked(address(0), _sign(OWNER_KEY, hash));
        (bool success, bytes memory answer) =
            subject.staticcall(abi.encodeCall(IERC1271.isValidSignature, (hash, signature)));
        bool valid = success && answer.length == 32 && bytes4(answer) == IERC1271.isValidSignature.selector;
        if (valid && state != RiskState.ACTIVE && subject == address(account)) violation = "a signature was given";
    }

    function guardianFreezes(uint256 i, uint256 state) external judged {
        vm.prank(vm.addr(GUARDIAN_KEYS[i % 3]));
        try authority.freeze(subject, RiskState(state % 3)) {} catch {}
    }

    function quorumFreezes(uint256 state) external judged {
        RiskState to = RiskState(state % 3);
        (, uint64 epoch) = authority.stateOf(subject);
        bytes32 message = keccak256(abi.encode(FREEZE, subject, to, epoch, authority.nonceOf(subject), LATER));
        (address[] memory signers, bytes[] memory signatures) = _guardians(2, message);
        try authority.freezeBySig(subject, to, LATER, signers, signatures) {} catch {}
    }

    function quorumThaws(uint256 state, uint256 wait) external judged {
        RiskState to = RiskState(state % 3);
        (, uint64 epoch) = authority.stateOf(subject);
        bytes32 message = keccak256(abi.encode(THAW, subject, to, epoch, authority.nonceOf(subject), LATER));
        (address[] memory signers, bytes[] memory signatures) = _guardians(2, message);
        try authority.requestThaw(subject, to, LATER, signers, signatures) {} catch {}
        vm.warp(_now() + wait % 2 hours);
        try authority.thaw(subject) {} catch {}
    }

    function timePasses(uint32 duration) external judged {
        vm.warp(_now() + bound(duration, 1, 4 days));
        try authority.expire(subject) {} catch {}
        try authority.finishEscape(subject) {} catch {}
    }
}

contract StateWorldOnRiskAccount is StateWorld {
    function setUp() public override {
        if (subject != address(0)) return; // part of what the fuzzer may call
        super.setUp();
        _begin(address(account));
    }
}

contract StateWorldOnForeignAccount is StateWorld {
    function setUp() public override {
        if (subject != address(0)) return; // part of what the fuzzer may call
        super.setUp();
        _begin(address(foreign));
    }
}

abstract contract StateInvariant is Base {
    StateWorld internal world;

    function targetContracts() external view returns (address[] memory targets) {
        targets = new address[](1);
        targets[0] = address(world);
    }

    /// FROZEN moves nothing but along declared exits; REDUCE_ONLY raises no size, debt or allowance and pays no other.
    function invariant_no_value_moves_but_along_declared_exits_when_not_active() external view {
        string memory violation = world.violation();
        isTrue(bytes(violation).length == 0, violation);
    }
}

contract StateInvariantOnRiskAccountTest is StateInvariant {
    function setUp() public override {
        world = new StateWorldOnRiskAccount();
        world.setUp();
    }
}

contract StateInvariantOnForeignAccountTest is StateInvariant {
    function setUp() public override {
        world = new StateWorldOnForeignAccount();
        world.setUp();
    }
}

/// The worlds above are not kept by doing nothing: in each state something works.
contract StateWorldTest is Base {
    function test_exits_work_in_every_state_and_everything_works_while_active() public {
        StateWorldOnRiskAccount world = new StateWorldOnRiskAccount();
        world.setUp();
        uint256 amount = uint256(5) << 128;
        world.ownerExits(amount);
        world.guardianFreezes(0, uint256(RiskState.REDUCE_ONLY));
        world.ownerExits(amount);
        world.guardianFreezes(0, uint256(RiskState.FROZEN));
        world.ownerExits(amount);
        world.ownerExits(amount | 1);
        eq(world.worked(0), 1, "active");
        eq(world.worked(1), 1, "reduce only");
        eq(world.worked(2), 1, "frozen: ether only");
        isTrue(bytes(world.violation()).length == 0, world.violation());
    }
}
