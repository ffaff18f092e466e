// SPDX-License-Identifier: MIT
pragma solidity ^0.8.26;

import {ERC20} from "@openzeppelin/contracts/token/ERC20/ERC20.sol";
import {PackedUserOperation} from "@openzeppelin/contracts/interfaces/IERC4337.sol";
import {
    Execution,
    IERC7579Execution,
    IERC7579ModuleConfig
} from "@openzeppelin/contracts/interfaces/draft-IERC7579.sol";
import {ISessionValidator} from "../../src/interfaces/ISessionValidator.sol";
import {IPolicyHook} from "../../src/interfaces/IPolicyHook.sol";
import {PolicyHook} from "../../src/modules/PolicyHook.sol";
import {HostileModule, PlainModule, Target, VetoHook} from "../Actors.sol";
import {Base} from "../Base.sol";
import {HostileCoin, Router} from "../Tokens.sol";

/// An account under two windows of one token; owner, executor, router and a token that calls back send it away in every way there is.
contract SpendingWorld is Base {
    struct Entry {
        uint256 time;
        uint256 amount;
    }

    uint256 public constant LIMIT = 1000;
    uint256 public constant DURATION = 1 days;

    PolicyHook public hook;
    HostileCoin public coin;
    Router public router;
    PlainModule public executor;
    Entry[] public entries;
    uint256 public spent;
    address internal payee = address(0xBEEF);

    function setUp() public override {
        if (address(hook) != address(0)) return; // part of what the fuzzer may call
        super.setUp();
        hook = new PolicyHook();
        coin = new HostileCoin();
        router = new Router();
        executor = new PlainModule();
        coin.mint(address(account), 1_000_000);
        coin.mint(address(router), 1_000_000);
        IPolicyHook.InstallData memory data;
        data.settings = IPolicyHook.Settings(address(authority), 0, false);
        data.windows = new IPolicyHook.Window[](2);
        data.windows[0] = IPolicyHook.Window(address(coin), IPolicyHook.Span.ROLLING, uint32(DURATION), 0, LIMIT);
        data.windows[1] = IPolicyHook.Window(address(coin), IPolicyHook.Span.WEEK, 0, 0, 3 * LIMIT);
        data.approvals = new IPolicyHook.Approval[](1);
        data.approvals[0] = IPolicyHook.Approval(address(coin), address(router), 600);
        _install(address(account), 2, address(executor), "");
        _install(address(account), 4, address(hook), abi.encode(data));
    }

    /// What left the account, and what others may still take; noted when it grows.
    modifier noted() {
        uint256 before = coin.balanceOf(address(account));
        uint256 allowed = coin.allowance(address(account), address(router));
        _;
        uint256 afterwards = coin.balanceOf(address(account));
        uint256 left = before > afterwards ? before - afterwards : 0;
        uint256 allows = coin.allowance(address(account), address(router));
        if (allows > allowed) left += allows - allowed;
        else left -= left < allowed - allows ? left : allowed - allows; // was counted when it was given
        if (left != 0) entries.push(Entry(_now(), left));
        spent += left;
    }

    function _call(uint256 kind, uint256 amount) private view returns (Execution memory) {
        if (kind == 0) return Execution(address(coin), 0, abi.encodeCall(ERC20.transfer, (payee, amount)));
        if (kind == 1) return Execution(address(coin), 0, abi.encodeCall(ERC20.approve, (address(router), amount)));
        if (kind == 2) return Execution(address(router), 0, abi.encodeCall(router.pull, (coin, amount)));
        if (kind == 3) {
            return Execution(address(router), 0, abi.encodeCall(router.swap, (coin, amount, coin, amount / 2)));
        }
        return Execution(address(coin), 0, abi.encodeCall(ERC20.transfer, (address(router), amount)));
    }

    function ownerSends(uint256 kind, uint256 amount) external noted {
        Execution memory one = _call(kind % 5, bound(amount, 0, 700));
        vm.prank(address(ENTRY_POINT));
        (bool success,) = address(account).call(_executeData(one.target, one.value, one.callData));
        success;
    }

    function ownerBatches(uint256 seed) external noted {
        Execution[] memory calls = new Execution[](1 + seed % 4);
        for (uint256 i = 0; i < calls.length; ++i) {
            seed = uint256(keccak256(abi.encode(seed)));
            calls[i] = _call(seed % 5, (seed >> 8) % 400);
        }
        vm.prank(address(ENTRY_POINT));
        (bool success,) = address(account).call(abi.encodeCall(IERC7579Execution.execute, (BATCH, abi.encode(calls))));
        success;
    }

    function executorSends(uint256 kind, uint256 amount) external noted {
        Execution memory one = _call(kind % 5, bound(amount, 0, 700));
        try executor.act(address(account), SINGLE, abi.encodePacked(one.target, one.value, one.callData)) {} catch {}
    }

    function routerTakes(uint256 amount) external noted {
        try router.pullFrom(coin, address(account), bound(amount, 0, 700)) {} catch {}
    }

    /// From now on every transfer of the token has the executor send as well, from inside.
    function tokenTurns(uint256 amount) external {
        bytes memory inner =
            abi.encodePacked(address(coin), uint256(0), abi.encodeCall(ERC20.transfer, (payee, amount % 300)));
        coin.setCallback(
            amount % 3 == 0 ? address(0) : address(executor),
            abi.encodeCall(executor.act, (address(account), SINGLE_TRY, inner))
        );
        coin.setFee(amount % 5 == 0 ? 100 : 0);
    }

    function timePasses(uint256 duration) external {
        vm.warp(_now() + bound(duration, 1, 10 hours));
    }

    /// The most that was spent in any `DURATION` seconds.
    function worst() external view returns (uint256 most) {
        for (uint256 i = 0; i < entries.length; ++i) {
            uint256 sum;
            for (uint256 j = 0; j <= i; ++j) {
                if (entries[j].time + DURATION >= entries[i].time) sum += entries[j].amount;
            }
            if (sum > most) most = sum;
        }
    }
}

contract SpendingInvariantTest is Base {
    SpendingWorld internal world;

    function setUp() public override {
        world = new SpendingWorld();
        world.setUp();
    }

    function targetContracts() external view returns (address[] memory targets) {
        targets = new address[](1);
        targets[0] = address(world);
    }

    function invariant_spending_never_exceeds_its_window_under_any_interleaving() external view {
        isTrue(world.worst() <= world.LIMIT(), "more than the limit in one duration");
    }

    /// The world is not kept by doing nothing.
    function test_something_is_spent_in_this_world() public {
        world.ownerSends(0, 600);
        world.executorSends(0, 400);
        world.executorSends(0, 1);
        eq(world.spent(), 1000, "spent");
    }
}

/// The owner of a session key who bundles his operations himself: what the entry point charges is his.
contract SessionWorld is Base {
    uint256 private constant SESSION_KEY = 0x5E55;
    bytes32 private constant HASH = keccak256("operation");
    uint128 public constant BUDGET = 0.1 ether;

    uint256 public gained;
    uint256 public budgets;
    uint256 public accepted;
    ISessionValidator.Session private session;
    bytes32 private id;
    bool private enabled;

    function setUp() public override {
        if (address(factory) != address(0)) return; // part of what the fuzzer may call
        super.setUp();
        _install(address(account), 1, address(sessions), "");
        session.key = vm.addr(SESSION_KEY);
        session.validUntil = type(uint40).max;
        (session.target, session.selector) = (address(target), Target.hit.selector);
        session.prefundBudget = BUDGET;
        ownerEnables();
    }

    function ownerEnables() public {
        if (enabled) return;
        bytes memory answer =
            _as(address(account), address(sessions), abi.encodeCall(sessions.enableSession, (session, "")));
        (id, enabled) = (abi.decode(answer, (bytes32)), true);
        budgets += BUDGET;
    }

    function ownerRevokes() external {
        if (!enabled) return;
        _as(address(account), address(sessions), abi.encodeCall(sessions.revokeSession, (id)));
        enabled = false;
    }

    function keyBundles(uint64 pre, uint64 fee, uint32 verification, uint256 seed) external {
        bytes memory call = _executeData(address(target), 0, abi.encodeCall(Target.hit, (seed, cold)));
        if (seed % 8 == 0) call = _executeData(vm.addr(SESSION_KEY), 1, "");
        PackedUserOperation memory op = _userOp(address(account), address(sessions), uint8(seed % 5), call);
        if (seed % 4 != 1) op.nonce = uint256(uint160(address(sessions))) << 96 | uint256(2) << 88 | (seed & 0xff);
        op.preVerificationGas = bound(pre, 0, 100_000_000);
        op.accountGasLimits = bytes32(uint256(verification) << 128 | 200_000);
        op.gasFees = bytes32(uint256(fee % 100 gwei) << 128 | fee % 100 gwei);
        uint256 key = seed % 16 == 3 ? THIEF_KEY : SESSION_KEY;
        op.signature = abi.encodePacked(uint8(2), id, _sign(key, HASH));
        try this.handle(op) {
            gained += _prefund(op);
            ++accepted;
            if (!enabled || key == THIEF_KEY || seed % 8 == 0) gained = type(uint128).max;
        } catch {}
    }

    /// As the entry point does: what failed in validation never happened.
    function handle(PackedUserOperation calldata op) external {
        require(msg.sender == address(this));
        uint256 data = _validate(op, HASH);
        require(uint160(data) == 0);
    }
}

contract SessionInvariantTest is Base {
    SessionWorld internal world;

    function setUp() public override {
        world = new SessionWorld();
        world.setUp();
    }

    function targetContracts() external view returns (address[] memory targets) {
        targets = new address[](1);
        targets[0] = address(world);
    }

    function invariant_a_session_key_that_bundles_for_itself_gains_at_most_its_budgets() external view {
        isTrue(world.gained() <= world.budgets(), "more than the session's prefund budgets");
    }

    /// The world is not kept by doing nothing.
    function test_operations_are_accepted_in_this_world() public {
        world.keyBundles(100_000, 1 gwei, 100_000, 2);
        eq(world.accepted(), 1, "accepted");
    }
}

/// Removal of hostile modules and hooks: never before its delay, always after it.
contract RemovalWorld is Base {
    HostileModule private burner;
    HostileModule private bomb;
    VetoHook private veto;
    bytes[3] private removals;
    uint256[3] private announcedAt;
    uint256 public removed;
    string public violation;

    function setUp() public override {
        if (address(veto) != address(0)) return; // part of what the fuzzer may call
        super.setUp();
        (burner, bomb, veto) = (new HostileModule(false), new HostileModule(true), new VetoHook());
        removals[0] = abi.encodeCall(account.forceUninstallModule, (2, address(burner), ""));
        removals[1] = abi.encodeCall(account.forceUninstallModule, (2, address(bomb), ""));
        removals[2] = abi.encodeCall(account.forceUninstallModule, (4, address(veto), ""));
        for (uint256 i = 0; i < 3; ++i) {
            _put(i);
        }
    }

    function _put(uint256 i) private {
        (uint256 kind, address module) =
            i == 2 ? (4, address(veto)) : (uint256(2), i == 0 ? address(burner) : address(bomb));
        if (account.isModuleInstalled(kind, module, "")) return;
        vm.prank(address(ENTRY_POINT));
        (bool success,) = address(account).call(abi.encodeCall(IERC7579ModuleConfig.installModule, (kind, module, "")));
        // Whatever was announced before an installation is void.
        if (success) (announcedAt[0], announcedAt[1], announcedAt[2]) = (0, 0, 0);
    }

    function ownerInstalls(uint256 i) external {
        _put(i % 3);
    }

    function hookVetoes(bool on) external {
        veto.setVeto(on);
    }

    function ownerAnnounces(uint256 i) external {
        vm.prank(address(ENTRY_POINT));
        (bool success,) = address(account).call(abi.encodeCall(account.scheduleAdmin, (removals[i % 3])));
        if (success) announcedAt[i % 3] = _now();
    }

    function anyoneRemoves(uint256 i, address who) external {
        i %= 3;
        uint256 at = announcedAt[i];
        vm.prank(who);
        (bool success,) = address(account).call{gas: 3_000_000}(abi.encodeCall(account.executeAdmin, (removals[i])));
        bool waited = at != 0 && _now() >= at + DELAY && _now() <= at + DELAY + account.ADMIN_WINDOW();
        if (success && !waited) violation = "a removal before its delay, or without announcement";
        if (!success && waited) violation = "a removal after its delay was refused";
        if (success) (removed, announcedAt[i]) = (removed + 1, 0);
    }

    function timePasses(uint256 duration) external {
        vm.warp(_now() + bound(duration, 1, 3 days));
    }
}

contract RemovalInvariantTest is Base {
    RemovalWorld internal world;

    function setUp() public override {
        world = new RemovalWorld();
        world.setUp();
    }

    function targetContracts() external view returns (address[] memory targets) {
        targets = new address[](1);
        targets[0] = address(world);
    }

    function invariant_modules_leave_always_after_the_delay_and_never_before() external view {
        string memory violation = world.violation();
        isTrue(bytes(violation).length == 0, violation);
    }

    /// The world is not kept by doing nothing.
    function test_a_hook_that_vetoes_leaves_in_this_world() public {
        world.hookVetoes(true);
        for (uint256 i = 0; i < 3; ++i) {
            world.ownerAnnounces(i);
        }
        world.timePasses(2 days - 1);
        for (uint256 i = 0; i < 3; ++i) {
            world.anyoneRemoves(i, address(0xA));
        }
        eq(world.removed(), 3, "removed");
        string memory violation = world.violation();
        isTrue(bytes(violation).length == 0, violation);
    }
}
