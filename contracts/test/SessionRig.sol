// SPDX-License-Identifier: MIT
pragma solidity ^0.8.26;

import {PackedUserOperation} from "@openzeppelin/contracts/interfaces/IERC4337.sol";
import {ISessionValidator} from "../src/interfaces/ISessionValidator.sol";
import {Target} from "./Actors.sol";
import {Base} from "./Base.sol";

/// An account with one session, and its operations.
abstract contract SessionRig is Base {
    address internal subject;
    uint256 internal constant SESSION_KEY = 0x5E55;
    bytes32 internal constant HASH = keccak256("operation");
    bytes32 internal id;

    function _session() internal view returns (ISessionValidator.Session memory) {
        return ISessionValidator.Session({
            key: vm.addr(SESSION_KEY),
            validAfter: 100,
            validUntil: 200,
            target: address(target),
            selector: Target.hit.selector,
            prefundBudget: 0.1 ether,
            uses: 0,
            bounds: 0
        });
    }

    function _begin(address on) internal {
        subject = on;
        ISessionValidator.Session[] memory first = new ISessionValidator.Session[](1);
        first[0] = _session();
        _install(subject, 1, address(sessions), abi.encode(first, new bytes[](1)));
        id = sessions.sessionIdOf(first[0]);
    }

    function _hit() internal view returns (bytes memory) {
        return _executeData(address(target), 0, abi.encodeCall(Target.hit, (1, cold)));
    }

    function _sessionOp(bytes memory callData) internal view returns (PackedUserOperation memory op) {
        op = _userOp(subject, address(sessions), 2, callData);
        op.signature = abi.encodePacked(uint8(2), id, _sign(SESSION_KEY, HASH));
    }

    function _isValid(PackedUserOperation memory op) internal returns (bool) {
        return address(uint160(_validate(op, HASH))) == address(0);
    }

    function _enable(ISessionValidator.Session memory session) internal returns (bytes32) {
        return _enable(session, "");
    }

    function _enable(ISessionValidator.Session memory session, bytes memory bounds) internal returns (bytes32) {
        bytes memory call = abi.encodeCall(sessions.enableSession, (session, bounds));
        return abi.decode(_as(subject, address(sessions), call), (bytes32));
    }

    function _revoke(bytes32 sessionId) internal {
        _as(subject, address(sessions), abi.encodeCall(sessions.revokeSession, (sessionId)));
    }
}
