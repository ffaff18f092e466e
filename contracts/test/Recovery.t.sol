// SPDX-License-Identifier: MIT
pragma solidity ^0.8.26;

import {IERC1271} from "@openzeppelin/contracts/interfaces/IERC1271.sol";
import {IERC7579ModuleConfig} from "@openzeppelin/contracts/interfaces/draft-IERC7579.sol";
import {AccountDeparture} from "../src/account/AccountDeparture.sol";
import {AccountStorage} from "../src/account/AccountStorage.sol";
import {AnnouncedAdmin} from "../src/account/AnnouncedAdmin.sol";
import {IEmergencyFreeze} from "../src/interfaces/IEmergencyFreeze.sol";
import {IRecovery} from "../src/interfaces/IRecovery.sol";
import {RiskState} from "../src/interfaces/IRiskState.sol";
import {OwnerLib} from "../src/libraries/OwnerLib.sol";
import {Recovery} from "../src/modules/Recovery.sol";
import {MultisigOwner} from "../src/owners/MultisigOwner.sol";
import {PlainModule} from "./Actors.sol";
import {Base} from "./Base.sol";

/// Where nonces are counted.
contract Nonces {
    mapping(address => mapping(uint192 => uint256)) public getNonce;

    function use(address account, uint192 lane) external {
        ++getNonce[account][lane];
    }
}

/// The validator of others: an address per account that the account itself replaces, and its word under ERC-1271.
contract OwnedValidator is PlainModule {
    mapping(address account => bytes) public signerOf;

    function onInstall(bytes calldata data) external override {
        signerOf[msg.sender] = data;
    }

    function setSigner(bytes calldata signer) external {
        signerOf[msg.sender] = signer;
    }

    function changeOwner(address signer) external {
        signerOf[msg.sender] = abi.encodePacked(signer);
    }

    function isValidSignatureWithSender(address, bytes32 hash, bytes calldata signature)
        external
        view
        returns (bytes4)
    {
        address signer = address(bytes20(signerOf[msg.sender]));
        return OwnerLib.isValidEcdsa(signer, hash, signature) ? IERC1271.isValidSignature.selector : bytes4(0xffffffff);
    }
}

/// What both suites and the invariant's world need: a subject with the module, and its parties' signatures.
abstract contract RecoveryRig is Base {
    Recovery internal recovery;
    MultisigOwner internal multisig;
    Nonces internal nonces;
    OwnedValidator internal owned;
    address internal subject;
    uint48 internal constant WAIT = 3 days;
    uint48 internal constant SILENCE = 30 days;
    uint48 internal constant LATER = type(uint48).max;
    uint256 internal constant HEIR_KEY = 0x4E1;
    address internal constant NEWCOMER = address(0x4E3);
    bytes32 internal constant CANCEL = keccak256("Cancel(address account,uint256 nonce,uint48 expiry)");
    bytes32 internal constant WITHDRAW = keccak256("Withdraw(address account,uint256 nonce,uint48 expiry)");

    function setUp() public virtual override {
        super.setUp();
        recovery = new Recovery();
        multisig = new MultisigOwner();
        nonces = new Nonces();
        owned = new OwnedValidator();
    }

    // ---- what differs by account

    function _newOwner(address who) internal view virtual returns (bytes memory);
    function _ownerNow() internal view virtual returns (bytes memory);
    function _target() internal view virtual returns (address);
    function _delay() internal view virtual returns (uint48);
    function _ownerSignature(bytes32 digest, uint256 key) internal view virtual returns (bytes memory);

    // ---- parties

    function _party() internal view returns (bytes memory key) {
        key = abi.encodePacked(uint8(1), multisig, uint16(2));
        for (uint256 i = 0; i < 3; ++i) {
            key = abi.encodePacked(key, uint16(1), uint16(21), uint8(0), vm.addr(GUARDIAN_KEYS[i]));
        }
    }

    function _settings() internal view returns (IRecovery.Settings memory s) {
        s.guardians = _party();
        s.heir = abi.encodePacked(uint8(0), vm.addr(HEIR_KEY));
        (s.delay, s.silence, s.entryPoint) = (WAIT, SILENCE, address(nonces));
        s.lanes = new uint192[](2);
        s.lanes[1] = uint192(uint160(address(validator))) << 32;
        if (_target() != address(0)) (s.target, s.selector) = (_target(), OwnedValidator.setSigner.selector);
    }

    function _digest(bytes32 structHash) internal view returns (bytes32) {
        return _typed(_domain("Seawall Recovery", address(recovery)), structHash);
    }

    /// By the guardians whose bits are set.
    function _signed(uint256 mask, bytes32 structHash) internal view returns (bytes memory signature) {
        for (uint256 i = 0; i < 3; ++i) {
            if (mask >> i & 1 == 0) continue;
            signature = abi.encodePacked(signature, uint8(i), uint16(65), _sign(GUARDIAN_KEYS[i], _digest(structHash)));
        }
    }

    function _message(string memory kind, bytes memory newOwner) internal view returns (bytes32) {
        bytes32 typehash =
            keccak256(abi.encodePacked(kind, "(address account,bytes newOwner,uint256 nonce,uint48 expiry)"));
        return keccak256(abi.encode(typehash, subject, keccak256(newOwner), recovery.nonceOf(subject), LATER));
    }

    function _plain(bytes32 typehash) internal view returns (bytes32) {
        return keccak256(abi.encode(typehash, subject, recovery.nonceOf(subject), LATER));
    }

    // ---- acting

    function propose(uint256 mask, bytes memory newOwner) public {
        recovery.propose(subject, newOwner, LATER, _signed(mask, _message("Propose", newOwner)));
    }

    function claim(bytes memory newOwner) public {
        recovery.claim(subject, newOwner, LATER, _sign(HEIR_KEY, _digest(_message("Claim", newOwner))));
    }

    function _asAccount(bytes memory data) internal {
        _execute(subject, address(recovery), 0, data);
    }

    function _changed(bytes memory data) internal {
        _asAccount(abi.encodeCall(recovery.announce, (data)));
        vm.warp(_now() + WAIT);
        _asAccount(data);
    }

    function _freezeAll(RiskState state) internal {
        bytes32 typehash = keccak256("Freeze(address account,uint8 state,uint64 epoch,uint256 nonce,uint48 expiry)");
        (, uint64 epoch) = authority.stateOf(subject);
        (address[] memory signers, bytes[] memory signatures) =
            _guardians(2, keccak256(abi.encode(typehash, subject, state, epoch, authority.nonceOf(subject), LATER)));
        authority.freezeBySig(subject, state, LATER, signers, signatures);
    }
}

/// One suite for our account and for OpenZeppelin's.
abstract contract RecoveryBehaviour is RecoveryRig {
    // ---- guardians

    function test_a_quorum_of_guardians_replaces_the_owner_after_the_delay_and_not_before() public {
        bytes memory next = _newOwner(NEWCOMER);
        propose(3, next);
        (bytes memory shown, uint48 at, bool byHeir) = recovery.pendingOf(subject);
        eq(shown, next, "seen coming");
        eq(at, _now() + _delay(), "at");
        isTrue(!byHeir, "by guardians");
        vm.warp(at - 1);
        vm.expectRevert(abi.encodeWithSelector(Recovery.TooEarly.selector, at));
        recovery.execute(subject);
        vm.warp(at);
        recovery.execute(subject);
        eq(_ownerNow(), next, "owner");
        vm.expectRevert(Recovery.NothingPending.selector);
        recovery.execute(subject);
    }

    function test_fuzz_only_two_of_three_guardians_propose(uint256 mask) public {
        mask = bound(mask, 0, 7);
        bool enough = mask == 3 || mask >= 5;
        bytes memory next = _newOwner(NEWCOMER);
        bytes memory signature = _signed(mask, _message("Propose", next));
        if (!enough) vm.expectRevert(Recovery.InvalidSignature.selector);
        recovery.propose(subject, next, LATER, signature);
        (, uint48 at,) = recovery.pendingOf(subject);
        eq(at, enough ? _now() + _delay() : 0, "pending");
    }

    function test_fuzz_it_is_carried_out_from_the_delay_until_it_lapses(uint32 wait) public {
        propose(3, _newOwner(NEWCOMER));
        (, uint48 at,) = recovery.pendingOf(subject);
        uint256 time = bound(wait, _now(), at + 30 days);
        vm.warp(time);
        bool inTime = time >= at && time <= at + recovery.WINDOW();
        if (!inTime) vm.expectRevert();
        recovery.execute(subject);
        eq(keccak256(_ownerNow()) == keccak256(_newOwner(NEWCOMER)) ? 1 : 0, inTime ? 1 : 0, "changed");
    }

    function test_signatures_bind_message_owner_account_chain_nonce_and_expiry() public {
        bytes memory next = _newOwner(NEWCOMER);
        bytes memory signature = _signed(7, _message("Propose", next));
        bytes memory other = _newOwner(address(0xBAD));
        vm.expectRevert(Recovery.InvalidSignature.selector);
        recovery.propose(subject, other, LATER, signature);
        vm.expectRevert(Recovery.InvalidSignature.selector);
        recovery.withdraw(subject, LATER, signature);
        vm.expectRevert(Recovery.InvalidSignature.selector);
        recovery.propose(subject, next, LATER - 1, signature);
        vm.chainId(4242);
        vm.expectRevert(Recovery.InvalidSignature.selector);
        recovery.propose(subject, next, LATER, signature);
        vm.chainId(31_337);
        vm.expectRevert(abi.encodeWithSelector(Recovery.Expired.selector, _now() - 1));
        recovery.propose(subject, next, uint48(_now() - 1), signature);
        address stranger = subject == address(account) ? address(foreign) : address(account);
        vm.expectRevert(abi.encodeWithSelector(Recovery.NotInstalled.selector, stranger));
        recovery.propose(stranger, next, LATER, signature);
        recovery.propose(subject, next, LATER, signature);
        _asAccount(abi.encodeCall(recovery.cancel, ()));
        vm.expectRevert(Recovery.InvalidSignature.selector);
        recovery.propose(subject, next, LATER, signature);
    }

    function test_one_recovery_at_a_time_and_a_new_one_when_it_has_lapsed() public {
        propose(3, _newOwner(NEWCOMER));
        (, uint48 at,) = recovery.pendingOf(subject);
        vm.expectRevert(abi.encodeWithSelector(Recovery.AlreadyPending.selector, at));
        this.propose(3, _newOwner(address(0xBAD)));
        vm.warp(at + recovery.WINDOW() + 1);
        (, uint48 gone,) = recovery.pendingOf(subject);
        eq(gone, 0, "lapsed");
        vm.expectRevert(Recovery.Lapsed.selector);
        recovery.execute(subject);
        propose(3, _newOwner(NEWCOMER));
        vm.warp(_now() + _delay());
        recovery.execute(subject);
        eq(_ownerNow(), _newOwner(NEWCOMER), "owner");
    }

    function test_guardians_take_a_mistake_back_and_propose_again() public {
        propose(3, _newOwner(address(0xBAD)));
        vm.expectRevert(Recovery.InvalidSignature.selector);
        recovery.withdraw(subject, LATER, "");
        recovery.withdraw(subject, LATER, _signed(6, _plain(WITHDRAW)));
        propose(5, _newOwner(NEWCOMER));
        vm.warp(_now() + _delay());
        recovery.execute(subject);
        eq(_ownerNow(), _newOwner(NEWCOMER), "owner");
        bytes memory signature = _signed(6, _plain(WITHDRAW));
        vm.expectRevert(Recovery.NothingPending.selector);
        recovery.withdraw(subject, LATER, signature);
    }

    function test_guardians_that_are_one_address_call_themselves() public {
        IRecovery.Settings memory s = _settings();
        s.guardians = abi.encodePacked(uint8(2), address(target));
        _changed(abi.encodeCall(recovery.setSettings, (s)));
        bytes memory next = _newOwner(NEWCOMER);
        vm.expectRevert(Recovery.InvalidSignature.selector);
        recovery.propose(subject, next, LATER, "");
        _as(address(target), address(recovery), abi.encodeCall(recovery.propose, (subject, next, LATER, "")));
        (, uint48 at,) = recovery.pendingOf(subject);
        eq(at, _now() + _delay(), "pending");
    }

    // ---- the owner

    function test_the_account_cancels_and_nothing_is_left_to_carry_out() public {
        vm.expectRevert(Recovery.NothingPending.selector);
        this.asAccount(abi.encodeCall(recovery.cancel, ()));
        propose(3, _newOwner(NEWCOMER));
        bytes memory before = _ownerNow();
        _asAccount(abi.encodeCall(recovery.cancel, ()));
        vm.warp(_now() + _delay());
        vm.expectRevert(Recovery.NothingPending.selector);
        recovery.execute(subject);
        eq(_ownerNow(), before, "owner");
    }

    function asAccount(bytes memory data) external {
        _asAccount(data);
    }

    function test_the_owners_signature_cancels_in_every_state_and_no_other_does() public {
        propose(3, _newOwner(NEWCOMER));
        if (subject == address(account)) _freezeAll(RiskState.FROZEN);
        bytes memory stolen = _ownerSignature(_digest(_plain(CANCEL)), THIEF_KEY);
        vm.expectRevert(Recovery.InvalidSignature.selector);
        recovery.cancelBySig(subject, LATER, stolen);
        bytes memory signature = _ownerSignature(_digest(_plain(CANCEL)), OWNER_KEY);
        vm.expectRevert(abi.encodeWithSelector(Recovery.Expired.selector, 1));
        recovery.cancelBySig(subject, 1, signature);
        recovery.cancelBySig(subject, LATER, signature);
        (, uint48 at,) = recovery.pendingOf(subject);
        eq(at, 0, "cancelled");
        vm.expectRevert(Recovery.InvalidSignature.selector);
        recovery.cancelBySig(subject, LATER, signature);
    }

    // ---- the heir

    function test_the_heir_waits_for_the_silence_and_then_for_the_delay() public {
        uint48 until = uint48(_now()) + SILENCE;
        vm.warp(until - 1);
        vm.expectRevert(abi.encodeWithSelector(Recovery.OwnerAlive.selector, until, false));
        this.claim(_newOwner(NEWCOMER));
        vm.warp(until);
        bytes memory next = _newOwner(NEWCOMER);
        bytes memory forged = _sign(THIEF_KEY, _digest(_message("Claim", next)));
        vm.expectRevert(Recovery.InvalidSignature.selector);
        recovery.claim(subject, next, LATER, forged);
        claim(next);
        (, uint48 at, bool byHeir) = recovery.pendingOf(subject);
        isTrue(byHeir, "by the heir");
        vm.expectRevert(abi.encodeWithSelector(Recovery.TooEarly.selector, at));
        recovery.execute(subject);
        vm.warp(at);
        recovery.execute(subject);
        eq(_ownerNow(), next, "owner");
    }

    function test_an_operation_under_any_lane_of_the_owner_is_a_sign_of_life() public {
        for (uint256 i = 0; i < 2; ++i) {
            uint192 lane = _settings().lanes[i];
            nonces.use(subject, lane);
            vm.warp(_now() + SILENCE);
            (uint48 seenAt, bool moved) = recovery.seenOf(subject);
            isTrue(moved, "moved");
            vm.expectRevert(abi.encodeWithSelector(Recovery.OwnerAlive.selector, seenAt + SILENCE, true));
            this.claim(_newOwner(NEWCOMER));
            recovery.witness(subject);
            vm.expectRevert(abi.encodeWithSelector(Recovery.OwnerAlive.selector, _now() + SILENCE, false));
            this.claim(_newOwner(NEWCOMER));
        }
        nonces.use(subject, 77);
        vm.warp(_now() + SILENCE);
        recovery.witness(subject);
        claim(_newOwner(NEWCOMER));
    }

    function test_operations_are_counted_at_the_accounts_own_entry_point_when_none_is_named() public {
        vm.etch(address(ENTRY_POINT), address(nonces).code);
        IRecovery.Settings memory s = _settings();
        s.entryPoint = address(0);
        _changed(abi.encodeCall(recovery.setSettings, (s)));
        Nonces(address(ENTRY_POINT)).use(subject, 0);
        (, bool moved) = recovery.seenOf(subject);
        isTrue(moved, "moved");
    }

    function test_nobody_shows_life_for_an_owner_who_made_no_operation() public {
        (uint48 before,) = recovery.seenOf(subject);
        vm.warp(_now() + SILENCE);
        recovery.witness(subject);
        (uint48 seenAt,) = recovery.seenOf(subject);
        eq(seenAt, before, "seen");
        vm.expectRevert(abi.encodeWithSelector(Recovery.NotInstalled.selector, address(this)));
        recovery.heartbeat();
    }

    function test_a_heartbeat_starts_the_silence_anew() public {
        vm.warp(_now() + SILENCE - 1);
        _asAccount(abi.encodeCall(recovery.heartbeat, ()));
        vm.warp(_now() + SILENCE - 1);
        vm.expectRevert(abi.encodeWithSelector(Recovery.OwnerAlive.selector, _now() + 1, false));
        this.claim(_newOwner(NEWCOMER));
    }

    function test_a_sign_of_life_during_the_delay_stops_the_heir_but_not_the_guardians() public {
        vm.warp(_now() + SILENCE);
        claim(_newOwner(NEWCOMER));
        nonces.use(subject, 0);
        vm.warp(_now() + _delay());
        (uint48 seenAt,) = recovery.seenOf(subject);
        vm.expectRevert(abi.encodeWithSelector(Recovery.OwnerAlive.selector, seenAt + SILENCE, true));
        recovery.execute(subject);
        recovery.withdraw(subject, LATER, _signed(3, _plain(WITHDRAW)));
        propose(3, _newOwner(NEWCOMER));
        nonces.use(subject, 0);
        vm.warp(_now() + _delay());
        recovery.execute(subject);
        eq(_ownerNow(), _newOwner(NEWCOMER), "owner");
    }

    function test_without_an_heir_nobody_inherits() public {
        IRecovery.Settings memory s = _settings();
        (s.heir, s.silence) = ("", 0);
        _changed(abi.encodeCall(recovery.setSettings, (s)));
        vm.warp(_now() + 1000 days);
        vm.expectRevert(Recovery.NoHeir.selector);
        this.claim(_newOwner(NEWCOMER));
    }

    // ---- settings

    function test_guardians_change_only_as_announced_and_after_the_delay() public {
        IRecovery.Settings memory s = _settings();
        s.guardians = abi.encodePacked(uint8(0), owner);
        bytes memory change = abi.encodeCall(recovery.setSettings, (s));
        vm.expectRevert(abi.encodeWithSelector(Recovery.NotAnnounced.selector, keccak256(change)));
        this.asAccount(change);
        _asAccount(abi.encodeCall(recovery.announce, (change)));
        vm.expectRevert(abi.encodeWithSelector(Recovery.AlreadyAnnounced.selector, keccak256(change)));
        this.asAccount(abi.encodeCall(recovery.announce, (change)));
        uint256 at = _now() + WAIT;
        eq(recovery.executableAt(subject, keccak256(change)), at, "at");
        vm.expectRevert(abi.encodeWithSelector(Recovery.TooEarly.selector, at));
        this.asAccount(change);
        vm.warp(at);
        _asAccount(change);
        (, IRecovery.Settings memory now_) = recovery.settingsOf(subject);
        eq(now_.guardians, s.guardians, "guardians");
        vm.expectRevert(abi.encodeWithSelector(Recovery.NotAnnounced.selector, keccak256(change)));
        this.asAccount(change);
    }

    function test_an_announced_change_can_be_taken_back_and_lapses() public {
        bytes memory change = abi.encodeCall(recovery.setSettings, (_settings()));
        _asAccount(abi.encodeCall(recovery.announce, (change)));
        _asAccount(abi.encodeCall(recovery.withdrawChange, (keccak256(change))));
        vm.expectRevert(abi.encodeWithSelector(Recovery.NotAnnounced.selector, keccak256(change)));
        this.asAccount(abi.encodeCall(recovery.withdrawChange, (keccak256(change))));
        _asAccount(abi.encodeCall(recovery.announce, (change)));
        vm.warp(_now() + WAIT + recovery.WINDOW() + 1);
        vm.expectRevert(abi.encodeWithSelector(Recovery.NotAnnounced.selector, keccak256(change)));
        this.asAccount(change);
    }

    function test_guardians_do_not_change_under_a_recovery_that_they_proposed() public {
        bytes memory change = abi.encodeCall(recovery.setSettings, (_settings()));
        _asAccount(abi.encodeCall(recovery.announce, (change)));
        vm.warp(_now() + WAIT);
        propose(3, _newOwner(NEWCOMER));
        (, uint48 at,) = recovery.pendingOf(subject);
        vm.expectRevert(abi.encodeWithSelector(Recovery.AlreadyPending.selector, at));
        this.asAccount(change);
        _asAccount(abi.encodeCall(recovery.cancel, ()));
        _asAccount(change);
    }

    function test_settings_that_could_never_work_or_never_end_are_refused() public {
        for (uint256 i = 0; i < 12; ++i) {
            IRecovery.Settings memory s = _settings();
            if (i == 0) s.delay = recovery.MIN_DELAY() - 1;
            if (i == 1) s.delay = recovery.MAX_WAIT() + 1;
            if (i == 2) s.silence = recovery.MIN_SILENCE() - 1;
            if (i == 3) s.silence = recovery.MAX_WAIT() + 1;
            if (i == 4) s.lanes = new uint192[](9);
            if (i == 5) s.entryPoint = address(0xdead);
            if (i == 6) s.target = _target() == address(0) ? address(owned) : address(0);
            if (i == 7) s.target = address(recovery);
            if (i == 8) s.guardians = "";
            if (i == 9) s.heir = hex"00";
            if (i == 10) s.guardians = abi.encodePacked(uint8(1), address(0xdead), uint16(1));
            if (i == 11) (s.heir, s.delay) = ("", 0);
            bytes memory change = abi.encodeCall(recovery.setSettings, (s));
            _asAccount(abi.encodeCall(recovery.announce, (change)));
            vm.warp(_now() + WAIT);
            vm.expectRevert();
            this.asAccount(change);
        }
    }

    function test_is_installed_once_and_is_an_executor() public {
        isTrue(recovery.isModuleType(2) && !recovery.isModuleType(1) && !recovery.isModuleType(4), "type");
        vm.expectRevert(abi.encodeWithSelector(Recovery.AlreadyInstalled.selector, subject));
        this.asAccount(abi.encodeCall(recovery.onInstall, (abi.encode(_settings()))));
        (bool installed, IRecovery.Settings memory s) = recovery.settingsOf(subject);
        isTrue(installed, "installed");
        eq(abi.encode(s), abi.encode(_settings()), "settings");
        eq(recovery.domainSeparator(), _domain("Seawall Recovery", address(recovery)), "domain");
    }
}

contract RecoveryOnRiskAccountTest is RecoveryBehaviour {
    function setUp() public override {
        super.setUp();
        subject = address(account);
        _execute(subject, address(authority), 0, abi.encodeCall(authority.setGuard, (address(recovery), true)));
        _install(subject, 2, address(recovery), abi.encode(_settings()));
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

    function _hash(address who) private view returns (bytes32) {
        return keccak256(abi.encodeCall(account.setOwner, (_newOwner(who))));
    }

    function test_works_while_frozen_and_while_reducing() public {
        RiskState[2] memory states = [RiskState.REDUCE_ONLY, RiskState.FROZEN];
        for (uint256 i = 0; i < 2; ++i) {
            _freezeAll(states[i]);
            propose(3, _newOwner(address(uint160(0x100 + i))));
            vm.warp(_now() + WAIT);
            recovery.execute(subject);
            eq(_ownerNow(), _newOwner(address(uint160(0x100 + i))), "owner");
        }
    }

    function test_the_owner_withdraws_it_at_the_account_while_frozen() public {
        propose(3, _newOwner(NEWCOMER));
        _freezeAll(RiskState.FROZEN);
        _op(subject, abi.encodeCall(account.cancelAdmin, (_hash(NEWCOMER))));
        (, uint48 at,) = recovery.pendingOf(subject);
        eq(at, 0, "cancelled");
        vm.warp(_now() + WAIT);
        vm.expectPartialRevert(AccountStorage.NotInState.selector);
        recovery.execute(subject);
        propose(3, _newOwner(NEWCOMER));
    }

    function test_a_quorum_of_the_authority_withdraws_it() public {
        propose(3, _newOwner(NEWCOMER));
        bytes32 typehash =
            keccak256("CancelAdmin(address account,bytes32 actionHash,uint64 epoch,uint256 nonce,uint48 expiry)");
        bytes32 message =
            keccak256(abi.encode(typehash, subject, _hash(NEWCOMER), uint64(0), authority.nonceOf(subject), LATER));
        (address[] memory signers, bytes[] memory signatures) = _guardians(2, message);
        authority.cancelAdmin(subject, _hash(NEWCOMER), LATER, signers, signatures);
        (, uint48 at,) = recovery.pendingOf(subject);
        eq(at, 0, "cancelled");
    }

    function test_only_the_module_carries_out_what_it_announced() public {
        propose(3, _newOwner(NEWCOMER));
        eq(account.adminExecutableAt(_hash(NEWCOMER)), _now() + WAIT, "announced at the account");
        vm.warp(_now() + WAIT);
        bytes memory data = abi.encodeCall(account.setOwner, (_newOwner(NEWCOMER)));
        vm.expectRevert(abi.encodeWithSelector(AnnouncedAdmin.NotAnnouncer.selector, address(this)));
        account.executeAdmin(data);
    }

    function test_the_longer_of_both_delays_counts() public {
        IRecovery.Settings memory s = _settings();
        s.delay = 1 hours;
        _changed(abi.encodeCall(recovery.setSettings, (s)));
        propose(3, _newOwner(NEWCOMER));
        (, uint48 at,) = recovery.pendingOf(subject);
        eq(at, _now() + DELAY, "the account's");
    }

    function test_only_an_installed_guard_announces_a_recovery() public {
        bytes memory next = _newOwner(NEWCOMER);
        address[3] memory callers = [address(this), address(new PlainModule()), address(stopLoss)];
        _install(subject, 2, callers[1], ""); // an executor that is no guard; stopLoss is a guard that is not installed
        for (uint256 i = 0; i < 3; ++i) {
            vm.expectRevert(abi.encodeWithSelector(AccountDeparture.MayNotRecover.selector, callers[i]));
            _as(callers[i], subject, abi.encodeCall(account.announceRecovery, (next, 0)));
        }
        vm.expectRevert(abi.encodeWithSelector(AccountDeparture.MayNotRecover.selector, address(ENTRY_POINT)));
        _op(subject, abi.encodeCall(account.announceRecovery, (next, 0)));
    }

    function test_without_an_authority_nobody_recovers() public {
        _announced(abi.encodeCall(account.setRiskAuthority, (address(0))));
        bytes memory signature = _signed(3, _message("Propose", _newOwner(NEWCOMER)));
        vm.expectRevert(abi.encodeWithSelector(AccountDeparture.MayNotRecover.selector, address(recovery)));
        recovery.propose(subject, _newOwner(NEWCOMER), LATER, signature);
    }

    function test_a_guard_that_was_dismissed_carries_out_nothing() public {
        propose(3, _newOwner(NEWCOMER));
        _execute(subject, address(authority), 0, abi.encodeCall(authority.setGuard, (address(recovery), false)));
        vm.warp(_now() + WAIT);
        vm.expectRevert(abi.encodeWithSelector(AnnouncedAdmin.NotAnnouncer.selector, address(recovery)));
        recovery.execute(subject);
    }

    function test_an_installation_voids_it_as_it_voids_every_announcement() public {
        propose(3, _newOwner(NEWCOMER));
        _install(subject, 2, address(new PlainModule()), "");
        (, uint48 at,) = recovery.pendingOf(subject);
        eq(at, 0, "void");
        vm.warp(_now() + WAIT);
        vm.expectPartialRevert(AnnouncedAdmin.Lapsed.selector);
        recovery.execute(subject);
    }

    function test_its_removal_ends_what_is_under_way_and_its_return_does_not_revive_it() public {
        propose(3, _newOwner(NEWCOMER));
        _uninstall(2, address(recovery));
        vm.expectRevert(abi.encodeWithSelector(Recovery.NotInstalled.selector, subject));
        recovery.execute(subject);
        uint256 nonce = recovery.nonceOf(subject);
        _install(subject, 2, address(recovery), abi.encode(_settings()));
        vm.warp(_now() + WAIT);
        vm.expectRevert(Recovery.NothingPending.selector);
        recovery.execute(subject);
        eq(recovery.nonceOf(subject), nonce, "nonce");
    }

    function test_a_new_owner_that_could_never_sign_is_refused() public {
        bytes memory signature = _signed(3, _message("Propose", hex"00"));
        vm.expectRevert(abi.encodeWithSelector(OwnerLib.InvalidOwner.selector, hex"00"));
        recovery.propose(subject, hex"00", LATER, signature);
    }

    function test_an_announcement_of_the_owner_for_the_same_successor_stays_his() public {
        bytes memory data = abi.encodeCall(account.setOwner, (_newOwner(NEWCOMER)));
        _op(subject, abi.encodeCall(account.scheduleAdmin, (data)));
        bytes memory signature = _signed(3, _message("Propose", _newOwner(NEWCOMER)));
        vm.expectPartialRevert(bytes4(keccak256("AlreadyAnnounced(bytes32)")));
        recovery.propose(subject, _newOwner(NEWCOMER), LATER, signature);
        vm.warp(_now() + DELAY);
        account.executeAdmin(data);
        eq(_ownerNow(), _newOwner(NEWCOMER), "owner");
    }
}

contract RecoveryOnForeignAccountTest is RecoveryBehaviour {
    function setUp() public override {
        super.setUp();
        subject = address(foreign);
        _install(subject, 1, address(owned), abi.encodePacked(owner));
        _install(subject, 2, address(recovery), abi.encode(_settings()));
    }

    function _newOwner(address who) internal pure override returns (bytes memory) {
        return abi.encodePacked(who);
    }

    function _ownerNow() internal view override returns (bytes memory) {
        return owned.signerOf(subject);
    }

    function _target() internal view override returns (address) {
        return address(owned);
    }

    function _delay() internal pure override returns (uint48) {
        return WAIT;
    }

    function _ownerSignature(bytes32 digest, uint256 key) internal view override returns (bytes memory) {
        return abi.encodePacked(owned, _sign(key, digest));
    }

    function test_works_while_the_hook_freezes_the_account() public {
        _install(subject, 4, address(authority), abi.encode(_freezeData()));
        _execute(subject, address(authority), 0, abi.encodeCall(authority.setGuard, (address(recovery), true)));
        IEmergencyFreeze.Exit memory way = _exit(address(recovery), Recovery.cancel.selector, true);
        _execute(subject, address(authority), 0, abi.encodeCall(authority.setExit, (way, true)));
        _freezeAll(RiskState.FROZEN);
        propose(3, _newOwner(NEWCOMER));
        _asAccount(abi.encodeCall(recovery.cancel, ()));
        propose(3, _newOwner(NEWCOMER));
        vm.warp(_now() + WAIT);
        recovery.execute(subject);
        eq(_ownerNow(), _newOwner(NEWCOMER), "owner");
    }

    function test_calls_a_function_that_takes_an_address() public {
        IRecovery.Settings memory s = _settings();
        (s.selector, s.plainAddress) = (OwnedValidator.changeOwner.selector, true);
        _changed(abi.encodeCall(recovery.setSettings, (s)));
        bytes memory tooLong = abi.encodePacked(uint8(0), NEWCOMER);
        bytes memory signature = _signed(3, _message("Propose", tooLong));
        vm.expectRevert(abi.encodeWithSelector(Recovery.InvalidOwner.selector, tooLong));
        recovery.propose(subject, tooLong, LATER, signature);
        propose(3, _newOwner(NEWCOMER));
        vm.warp(_now() + WAIT);
        recovery.execute(subject);
        eq(_ownerNow(), _newOwner(NEWCOMER), "owner");
    }

    function test_it_is_removed_after_its_delay_and_never_before() public {
        bytes memory removal = abi.encodeCall(recovery.onUninstall, (""));
        bytes memory uninstall = abi.encodeCall(IERC7579ModuleConfig.uninstallModule, (2, address(recovery), ""));
        vm.expectRevert(abi.encodeWithSelector(Recovery.NotAnnounced.selector, keccak256(removal)));
        _op(subject, uninstall);
        _asAccount(abi.encodeCall(recovery.announce, (removal)));
        vm.warp(_now() + WAIT - 1);
        vm.expectRevert(abi.encodeWithSelector(Recovery.TooEarly.selector, _now() + 1));
        _op(subject, uninstall);
        vm.warp(_now() + 1);
        propose(3, _newOwner(NEWCOMER)); // does not hold it back
        _op(subject, uninstall);
        vm.warp(_now() + WAIT);
        vm.expectRevert(abi.encodeWithSelector(Recovery.NotInstalled.selector, subject));
        recovery.execute(subject);
        _install(subject, 2, address(recovery), abi.encode(_settings()));
        vm.expectRevert(abi.encodeWithSelector(Recovery.NotAnnounced.selector, keccak256(removal)));
        _op(subject, uninstall);
    }
}
