// SPDX-License-Identifier: MIT
pragma solidity ^0.8.26;

import {IEmergencyFreeze} from "../src/interfaces/IEmergencyFreeze.sol";
import {RiskState} from "../src/interfaces/IRiskState.sol";
import {EmergencyFreeze} from "../src/modules/EmergencyFreeze.sol";
import {Symbolic} from "./Symbolic.sol";

/// One step of the state machine: from every state that satisfies the invariant, at every time, whoever makes any call of the module that
/// writes. By induction the invariant, and what is proved of one step, hold for ever.
///
/// Bounds: an installed account without code that keeps its state in the module (a native one's `setRiskState` is tested in
/// RiskAccount.t.sol); callers are the account, one of its three guardians and a stranger; quorum two; no declared guard (a breaker's freeze
/// is tested in EquityBreaker.t.sol); at most two signers, each a guardian or a stranger, with signatures of 65 bytes; delays below 2^32 and
/// times below 2^40 seconds. Stub: `ecrecover` is any function, so a signature may be anybody's. Not covered: `onInstall`, `setExit`,
/// `cancelAdmin`, accounts' influence on each other, guardians that are contracts.
contract EmergencyFreezeProof is Symbolic {
    struct World {
        uint256 state;
        uint256 epoch;
        uint256 lasting;
        uint256 solo;
        uint256 soloUntil;
        uint256 soloAgainAt;
        uint256 thawAt;
        uint256 escapeAt;
        uint256 thawTo;
        uint256 thawEpoch;
        uint256 settings;
        uint256 escapeDelay;
        uint256 nonce;
    }

    address private constant ACCOUNT = address(0xACC0);
    uint256 private constant CONFIGS = 5;
    uint256 private constant LAYERS = 6;
    uint256 private constant PENDINGS = 7;
    uint256 private constant INSTALLED = 1 << 64 | 1;
    address private constant STRANGER = address(0x99);
    uint256 private constant UINT48 = type(uint48).max;

    EmergencyFreeze private freeze;
    address[3] private guardians = [address(0x61), address(0x62), address(0x63)];

    function setUp() public {
        freeze = new EmergencyFreeze();
        IEmergencyFreeze.InstallData memory data;
        data.guardians = new address[](3);
        for (uint256 i = 0; i < 3; ++i) {
            data.guardians[i] = guardians[i];
        }
        data.quorum = 2;
        (data.soloFreezeSeconds, data.soloCooldownSeconds) = (1, 2);
        vm.prank(ACCOUNT);
        freeze.onInstall(abi.encode(data));
    }

    function _slot(uint256 index) private pure returns (bytes32) {
        return keccak256(abi.encode(ACCOUNT, index));
    }

    function _load(uint256 index, uint256 offset) private view returns (uint256) {
        return uint256(vm.load(address(freeze), bytes32(uint256(_slot(index)) + offset)));
    }

    function _store(uint256 index, uint256 offset, uint256 word) private {
        vm.store(address(freeze), bytes32(uint256(_slot(index)) + offset), bytes32(word));
    }

    function _world() private view returns (World memory w) {
        uint256 layers = _load(LAYERS, 0);
        (w.state, w.epoch) = (layers & 0xff, layers >> 8 & type(uint64).max);
        (w.lasting, w.solo) = (layers >> 72 & 0xff, layers >> 80 & 0xff);
        (w.soloUntil, w.soloAgainAt) = (layers >> 88 & UINT48, layers >> 136 & UINT48);
        uint256 pending = _load(PENDINGS, 0);
        (w.thawAt, w.escapeAt) = (pending & UINT48, pending >> 48 & UINT48);
        (w.thawTo, w.thawEpoch) = (pending >> 96 & 0xff, pending >> 104 & type(uint64).max);
        w.settings = _load(CONFIGS, 0);
        uint256 rest = _load(CONFIGS, 1);
        (w.escapeDelay, w.nonce) = (rest & UINT48, rest >> 48);
    }

    function _invariant(World memory w) private pure returns (bool) {
        return w.lasting <= 2 && w.solo <= 2 && w.state == (w.solo > w.lasting ? w.solo : w.lasting)
            && (w.soloUntil == 0) == (w.solo == 0) && (w.state != 0 || w.escapeAt == 0)
            && 0 < (w.settings >> 96 & UINT48) && (w.settings >> 96 & UINT48) < (w.settings >> 144 & UINT48);
    }

    /// Everything the module keeps of the account, at will.
    function _any() private returns (World memory w) {
        vm.warp(svm.createUint(40, "time"));
        uint256 layers = svm.createUint(184, "layers");
        uint256 pending = svm.createUint(168, "pending");
        uint256 delays = svm.createUint(32, "soloFreeze") << 96 | svm.createUint(32, "soloCooldown") << 144
            | svm.createUint(32, "thawDelay") << 192;
        _store(LAYERS, 0, layers);
        _store(PENDINGS, 0, pending);
        _store(CONFIGS, 0, uint256(3) << 88 | uint256(2) << 80 | INSTALLED | delays);
        _store(CONFIGS, 1, svm.createUint(32, "escapeDelay") | svm.createUint(64, "nonce") << 48);
        w = _world();
        vm.assume(_invariant(w));
        vm.assume(w.thawTo <= 2 && w.epoch < type(uint64).max);
        vm.assume(w.soloUntil < 1 << 41 && w.soloAgainAt < 1 << 41 && w.thawAt < 1 << 41 && w.escapeAt < 1 << 41);
    }

    function _isGuardian(address caller) private view returns (bool) {
        return caller == guardians[0] || caller == guardians[1] || caller == guardians[2];
    }

    function _isDue(uint256 at, uint256 time) private pure returns (bool) {
        return at != 0 && time >= at;
    }

    // ---- calls

    function _signer(string memory name) private view returns (address) {
        uint256 which = svm.createUint(2, name);
        if (which == 0) return guardians[0];
        if (which == 1) return guardians[1];
        return which == 2 ? guardians[2] : STRANGER;
    }

    function _signed() private view returns (address[] memory signers, bytes[] memory signatures) {
        uint256 count = svm.createUint(2, "count");
        count = count == 0 ? 0 : count == 1 ? 1 : 2;
        (signers, signatures) = (new address[](count), new bytes[](count));
        for (uint256 i = 0; i < count; ++i) {
            (signers[i], signatures[i]) = (_signer("signer"), svm.createBytes(65, "signature"));
        }
    }

    function _state() private pure returns (RiskState) {
        uint256 state = svm.createUint(2, "to");
        vm.assume(state <= 2);
        return RiskState(state);
    }

    function _expiry() private pure returns (uint48) {
        return uint48(svm.createUint(48, "expiry"));
    }

    function _caller() private view returns (address) {
        uint256 who = svm.createUint(2, "who");
        return who == 0 ? ACCOUNT : who == 1 ? guardians[0] : STRANGER;
    }

    /// The slots above are the module's: what is stored there is what the module says.
    function check_the_words_that_these_proofs_write_are_the_modules() external {
        World memory w = _any();
        (RiskState state, uint64 epoch) = freeze.stateOf(ACCOUNT);
        assert(uint256(state) == w.state && epoch == w.epoch);
        (uint48 thawAt, RiskState thawTo, uint48 escapeAt, uint48 soloUntil) = freeze.pendingOf(ACCOUNT);
        assert(thawAt == w.thawAt && uint256(thawTo) == w.thawTo && escapeAt == w.escapeAt && soloUntil == w.soloUntil);
        (uint8 quorum, uint8 count) = freeze.quorumOf(ACCOUNT);
        assert(quorum == 2 && count == 3);
        assert(freeze.nonceOf(ACCOUNT) == w.nonce && freeze.delaysOf(ACCOUNT).escape == w.escapeDelay);
        assert(freeze.isGuardian(ACCOUNT, guardians[0]) && !freeze.isGuardian(ACCOUNT, ACCOUNT));
    }

    // ---- one check for each function that writes

    function check_freeze() external {
        World memory was = _any();
        _step(was, abi.encodeCall(freeze.freeze, (ACCOUNT, _state())));
    }

    function check_expire() external {
        World memory was = _any();
        _step(was, abi.encodeCall(freeze.expire, (ACCOUNT)));
    }

    function check_thaw() external {
        World memory was = _any();
        _step(was, abi.encodeCall(freeze.thaw, (ACCOUNT)));
    }

    function check_startEscape() external {
        World memory was = _any();
        _step(was, abi.encodeCall(freeze.startEscape, ()));
    }

    function check_finishEscape() external {
        World memory was = _any();
        _step(was, abi.encodeCall(freeze.finishEscape, (ACCOUNT)));
    }

    function check_onUninstall() external {
        World memory was = _any();
        _step(was, abi.encodeCall(freeze.onUninstall, ("")));
    }

    function check_setQuorum() external {
        World memory was = _any();
        _step(was, abi.encodeCall(freeze.setQuorum, (uint8(svm.createUint(8, "quorum")))));
    }

    function check_setGuardian() external {
        World memory was = _any();
        _step(was, abi.encodeCall(freeze.setGuardian, (guardians[1], svm.createUint(1, "on") != 0)));
    }

    function check_setGuard() external {
        World memory was = _any();
        _step(was, abi.encodeCall(freeze.setGuard, (STRANGER, svm.createUint(1, "on") != 0)));
    }

    function check_setDelays() external {
        World memory was = _any();
        _step(
            was,
            abi.encodeCall(
                freeze.setDelays,
                (IEmergencyFreeze.Delays(
                        uint48(svm.createUint(48, "soloFreeze")),
                        uint48(svm.createUint(48, "soloCooldown")),
                        uint48(svm.createUint(48, "thaw")),
                        uint48(svm.createUint(48, "escape"))
                    ))
            )
        );
    }

    function check_freezeBySig() external {
        World memory was = _any();
        (address[] memory signers, bytes[] memory signatures) = _signed();
        _step(was, abi.encodeCall(freeze.freezeBySig, (ACCOUNT, _state(), _expiry(), signers, signatures)));
    }

    function check_requestThaw() external {
        World memory was = _any();
        (address[] memory signers, bytes[] memory signatures) = _signed();
        _step(was, abi.encodeCall(freeze.requestThaw, (ACCOUNT, _state(), _expiry(), signers, signatures)));
    }

    function check_cancel() external {
        World memory was = _any();
        (address[] memory signers, bytes[] memory signatures) = _signed();
        _step(was, abi.encodeCall(freeze.cancel, (ACCOUNT, _expiry(), signers, signatures)));
    }

    function check_replaceGuardian() external {
        World memory was = _any();
        (address[] memory signers, bytes[] memory signatures) = _signed();
        _step(
            was,
            abi.encodeCall(freeze.replaceGuardian, (ACCOUNT, guardians[0], STRANGER, _expiry(), signers, signatures))
        );
    }

    // ---- what holds of every step

    function _step(World memory was, bytes memory data) private {
        address caller = _caller();
        uint256 time = block.timestamp;
        vm.prank(caller);
        (bool success,) = address(freeze).call(data);
        if (!success) return;
        World memory now_ = _world();
        bytes4 selector = bytes4(data);
        bool removed = caller == ACCOUNT && selector == freeze.onUninstall.selector;
        _layersMovedAsTheyMay(was, now_, caller, selector, removed, time);
        _waitingBegunAsItMay(was, now_, caller, selector, removed, time);
    }

    function _layersMovedAsTheyMay(
        World memory was,
        World memory now_,
        address caller,
        bytes4 selector,
        bool removed,
        uint256 time
    ) private view {
        // The state is the stricter of its two layers, always; each change is one epoch.
        assert(_invariant(now_));
        uint256 changes = removed || now_.state != was.state ? 1 : 0;
        assert(now_.epoch == was.epoch + changes);

        // Tighter: by a guardian's call, or by a message that guardians signed.
        bool bySignature = selector == freeze.freezeBySig.selector;
        if (now_.state > was.state) assert(_isGuardian(caller) || bySignature);
        if (now_.lasting > was.lasting) assert(bySignature);

        // Looser: only by what was announced and waited for, or because a solo freeze is over.
        bool thawed = selector == freeze.thaw.selector && _isDue(was.thawAt, time);
        bool escaped = selector == freeze.finishEscape.selector && _isDue(was.escapeAt, time);
        bool ended = _isDue(was.soloUntil, time);
        if (now_.state < was.state) assert(thawed || escaped || ended || removed);
        if (now_.lasting < was.lasting) assert(thawed || escaped || removed);
        if (escaped) assert(now_.state + 1 >= was.state);

        // One guardian can neither lengthen his freeze nor begin another before the cool-down is over.
        if (now_.soloUntil > was.soloUntil && was.soloUntil != 0) assert(ended);
        if (now_.soloAgainAt != was.soloAgainAt && !removed) {
            assert((_isGuardian(caller) || bySignature) && time >= was.soloAgainAt);
        }
    }

    function _waitingBegunAsItMay(
        World memory was,
        World memory now_,
        address caller,
        bytes4 selector,
        bool removed,
        uint256 time
    ) private view {
        if (now_.thawAt != was.thawAt && now_.thawAt != 0) {
            assert(selector == freeze.requestThaw.selector && now_.thawTo < was.state);
            assert(now_.thawAt == time + (was.settings >> 192 & UINT48));
        }
        if (now_.escapeAt != was.escapeAt && now_.escapeAt != 0) {
            assert(caller == ACCOUNT && selector == freeze.startEscape.selector && was.state != 0);
            assert(now_.escapeAt == time + was.escapeDelay);
        }
        // Settings: the account itself while ACTIVE, or the quorum for a guardian; else nothing but the nonce moves.
        bool changed = now_.settings != was.settings || now_.escapeDelay != was.escapeDelay;
        bool bySignature = selector == freeze.replaceGuardian.selector;
        if (changed) assert(bySignature || (caller == ACCOUNT && (was.state == 0 || removed)));
        if (now_.nonce != was.nonce) assert(now_.nonce == was.nonce + 1);
    }

    /// A freeze that was signed is one guardian's, which lasts only for its time, or that of distinct guardians.
    function check_signed_freezes_need_guardians() external {
        World memory was = _any();
        uint256 time = block.timestamp;
        (address[] memory signers, bytes[] memory signatures) = _signed();
        uint48 expiry = uint48(svm.createUint(48, "expiry"));
        try freeze.freezeBySig(ACCOUNT, RiskState.FROZEN, expiry, signers, signatures) {
            assert(signers.length != 0 && _isGuardian(signers[0]) && time <= expiry);
            World memory now_ = _world();
            assert(now_.nonce == was.nonce + 1 && now_.state == 2);
            if (signers.length == 2) assert(signers[0] < signers[1] && _isGuardian(signers[1]) && now_.lasting == 2);
            else assert(now_.lasting == was.lasting && now_.soloUntil != 0);
        } catch {}
    }
}
