// SPDX-License-Identifier: MIT
pragma solidity ^0.8.26;

import {PackedUserOperation} from "@openzeppelin/contracts/interfaces/IERC4337.sol";
import {IERC1271} from "@openzeppelin/contracts/interfaces/IERC1271.sol";
import {IERC7579Validator} from "@openzeppelin/contracts/interfaces/draft-IERC7579.sol";
import {IPolicyHook} from "../src/interfaces/IPolicyHook.sol";
import {ISessionValidator} from "../src/interfaces/ISessionValidator.sol";
import {RiskState} from "../src/interfaces/IRiskState.sol";
import {SessionValidator} from "../src/modules/SessionValidator.sol";
import {OwnerLib} from "../src/libraries/OwnerLib.sol";
import {PlainModule, Target} from "./Actors.sol";
import {SessionRig} from "./SessionRig.sol";

/// A validator whose ERC-1271 answers to one secp256k1 key.
contract KeyValidator is PlainModule {
    address private immutable KEY;

    constructor(address key) {
        KEY = key;
    }

    function isValidSignatureWithSender(address, bytes32 hash, bytes calldata signature)
        external
        view
        returns (bytes4)
    {
        return OwnerLib.isValidEcdsa(KEY, hash, signature) ? IERC1271.isValidSignature.selector : bytes4(0xffffffff);
    }
}

/// A session that is enabled by the owner's signature inside the operation that first uses it.
abstract contract SessionEnablingBehaviour is SessionRig {
    ISessionValidator.Session internal wanted;
    bytes internal bounds;

    function _prepare(address on) internal {
        _begin(on);
        ISessionValidator.Bounds memory said;
        said.rates = new IPolicyHook.Window[](1);
        said.rates[0] = IPolicyHook.Window(address(0), IPolicyHook.Span.DAY, 0, 0, 5);
        bounds = abi.encode(said);
        wanted = _session();
        wanted.bounds = keccak256(bounds);
        id = sessions.sessionIdOf(wanted);
    }

    function _approval(uint256 key, bytes32 hash) internal view virtual returns (bytes memory);

    function _approvedBy(uint256 key) internal view returns (bytes memory) {
        return _approval(key, sessions.approvalHash(subject, wanted));
    }

    function _first(bytes memory approval) internal view returns (PackedUserOperation memory op) {
        op = _sessionOp(_hit());
        op.signature = abi.encodePacked(
            bytes.concat(hex"07", abi.encode(wanted)),
            uint48(100),
            uint48(199),
            uint16(bounds.length),
            bounds,
            approval,
            _sign(SESSION_KEY, HASH)
        );
    }

    function _next() internal view returns (PackedUserOperation memory op) {
        op = _sessionOp(_hit());
        op.signature = abi.encodePacked(uint8(6), id, uint48(100), uint48(199), bounds, _sign(SESSION_KEY, HASH));
    }

    function test_the_first_operation_enables_the_session_by_the_owners_signature() public {
        isTrue(!_isValid(_next()), "not yet");
        uint256 data = _validate(_first(_approvedBy(OWNER_KEY)), HASH);
        eq(data, uint256(100) << 208 | uint256(199) << 160, "valid");
        (ISessionValidator.Session memory found, uint128 spent) = sessions.sessionOf(subject, id);
        eq(sessions.sessionIdOf(found), id, "enabled");
        eq(spent, _prefund(_next()), "charged");
        isTrue(_isValid(_next()), "and used on");
        isTrue(!_isValid(_first(_approvedBy(OWNER_KEY))), "enabled once");
    }

    function test_a_session_without_bounds_is_enabled_too() public {
        wanted.bounds = 0;
        wanted.uses = 2;
        (bounds, id) = ("", sessions.sessionIdOf(wanted));
        PackedUserOperation memory op = _first(_approvedBy(OWNER_KEY));
        op.nonce |= uint256(uint24(bytes3(id))) << 64;
        op.gasFees = bytes32(uint256(1));
        isTrue(_isValid(op), "valid");
        op = _sessionOp(_hit());
        op.gasFees = bytes32(uint256(1));
        op.nonce |= uint256(uint24(bytes3(id))) << 64 | 1;
        isTrue(_isValid(op), "used on");
    }

    function test_only_the_owner_of_this_account_on_this_chain_enables() public {
        isTrue(!_isValid(_first(_approvedBy(THIEF_KEY))), "thief");
        isTrue(!_isValid(_first(_approvedBy(SESSION_KEY))), "the key itself");
        isTrue(!_isValid(_first("")), "nobody");
        bytes memory elsewhere = _approval(OWNER_KEY, sessions.approvalHash(address(0xA), wanted));
        isTrue(!_isValid(_first(elsewhere)), "another account");
        ISessionValidator.Session memory other = wanted;
        other.validUntil += 1;
        isTrue(!_isValid(_first(_approval(OWNER_KEY, sessions.approvalHash(subject, other)))), "another session");
        vm.chainId(4242);
        bytes memory abroad = _approvedBy(OWNER_KEY);
        vm.chainId(31_337);
        isTrue(!_isValid(_first(abroad)), "another chain");
        isTrue(_isValid(_first(_approvedBy(OWNER_KEY))), "this one");
    }

    function test_who_takes_the_approval_still_needs_the_key() public {
        PackedUserOperation memory op = _first(_approvedBy(OWNER_KEY));
        bytes memory signature = op.signature;
        bytes memory thief = _sign(THIEF_KEY, HASH);
        for (uint256 i = 0; i < 65; ++i) {
            signature[signature.length - 65 + i] = thief[i];
        }
        op.signature = signature;
        isTrue(!_isValid(op), "thief's signature");
    }

    function test_no_approval_outlives_a_revocation() public {
        bytes memory approval = _approvedBy(OWNER_KEY);
        _revoke(id); // before it was ever used
        isTrue(!_isValid(_first(approval)), "revoked unused");
        _enable(wanted, bounds);
        isTrue(_isValid(_next()), "by the account's own call");
        _revoke(id);
        isTrue(!_isValid(_first(approval)), "revoked in use");
        eq(sessions.liveSessions(subject), 1, "live");
    }

    function test_what_may_not_be_enabled_may_not_be_enabled_so() public {
        wanted.target = address(sessions);
        PackedUserOperation memory op = _first(_approvedBy(OWNER_KEY));
        vm.expectPartialRevert(SessionValidator.ForbiddenTarget.selector);
        this.validated(op);
        wanted.target = address(target);
        wanted.bounds = keccak256("others");
        op = _first(_approvedBy(OWNER_KEY));
        vm.expectRevert(SessionValidator.InvalidSession.selector);
        this.validated(op);
    }

    function validated(PackedUserOperation memory op) external {
        vm.prank(subject);
        sessions.validateUserOp(op, HASH);
    }

    function testFuzz_bent_lengths_enable_nothing(uint16 length, uint16 cut) public {
        vm.assume(length != bounds.length);
        bytes memory approval = _approvedBy(OWNER_KEY);
        bytes memory signature = abi.encodePacked(
            bytes.concat(hex"07", abi.encode(wanted)), uint48(100), uint48(199), length, bounds, approval
        );
        cut %= uint16(signature.length);
        assembly {
            mstore(signature, sub(mload(signature), cut))
        }
        PackedUserOperation memory op = _sessionOp(_hit());
        op.signature = bytes.concat(signature, _sign(SESSION_KEY, HASH));
        isTrue(!_tried(op), "bent");
    }

    function _tried(PackedUserOperation memory op) private returns (bool) {
        vm.prank(subject);
        try sessions.validateUserOp(op, HASH) returns (uint256 data) {
            return uint160(data) == 0;
        } catch {
            return false;
        }
    }

    function test_enabling_touches_only_storage_associated_with_the_account() public {
        PackedUserOperation memory op = _first(_approvedBy(OWNER_KEY));
        vm.startMappingRecording();
        vm.record();
        isTrue(_isValid(op), "valid");
        _onlyAssociatedReads(address(sessions), subject);
    }
}

contract SessionEnablingOnRiskAccountTest is SessionEnablingBehaviour {
    function setUp() public override {
        super.setUp();
        _prepare(address(account));
    }

    function _approval(uint256 key, bytes32 hash) internal pure override returns (bytes memory) {
        return _sign(key, hash);
    }

    function test_the_digest_is_eip712() public {
        bytes32 typehash = keccak256(
            "EnableSession(address account,uint256 installation,address key,uint48 validAfter,uint48 validUntil,address target,bytes4 selector,uint128 prefundBudget,uint32 uses,bytes32 bounds)"
        );
        bytes32 structHash = keccak256(
            abi.encode(
                typehash,
                subject,
                1,
                wanted.key,
                wanted.validAfter,
                wanted.validUntil,
                wanted.target,
                wanted.selector,
                wanted.prefundBudget,
                wanted.uses,
                wanted.bounds
            )
        );
        bytes32 digest = _typed(_domain("Seawall SessionValidator", address(sessions)), structHash);
        eq(sessions.approvalHash(subject, wanted), digest, "digest");
    }

    function test_an_approval_holds_for_one_installation() public {
        bytes memory approval = _approvedBy(OWNER_KEY);
        bytes32[] memory left = new bytes32[](1);
        left[0] = sessions.sessionIdOf(_session());
        _uninstall(1, address(sessions));
        isTrue(!_isValid(_first(approval)), "not installed");
        sessions.clearAbandoned(subject, left);
        _install(subject, 1, address(sessions), "");
        isTrue(!_isValid(_first(approval)), "the next installation");
        isTrue(_isValid(_first(_approvedBy(OWNER_KEY))), "a new approval");
    }

    function test_nothing_is_enabled_outside_active() public {
        _as(
            vm.addr(GUARDIAN_KEYS[0]),
            address(authority),
            abi.encodeCall(authority.freeze, (subject, RiskState.REDUCE_ONLY))
        );
        isTrue(!_isValid(_first(_approvedBy(OWNER_KEY))), "reduce only");
    }

    function test_where_an_engine_must_attest_the_owner_alone_enables_nothing() public {
        _install(subject, 1, address(validator), _riskData(""));
        isTrue(!_isValid(_first(_approvedBy(OWNER_KEY))), "the owner alone");
        _enable(wanted, bounds);
        isTrue(_isValid(_next()), "by an operation of the account");
    }
}

contract SessionEnablingOnForeignAccountTest is SessionEnablingBehaviour {
    KeyValidator private keys;

    function setUp() public override {
        super.setUp();
        keys = new KeyValidator(owner);
        _prepare(address(foreign));
        _install(subject, 1, address(keys), "");
    }

    function _approval(uint256 key, bytes32 hash) internal view override returns (bytes memory) {
        return abi.encodePacked(address(keys), _sign(key, hash));
    }
}
