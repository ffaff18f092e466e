// SPDX-License-Identifier: MIT
pragma solidity ^0.8.28;

import {PackedUserOperation} from "@openzeppelin/contracts/interfaces/IERC4337.sol";
import {RiskAccount} from "../src/account/RiskAccount.sol";
import {IRiskValidator} from "../src/interfaces/IRiskValidator.sol";
import {RiskValidator} from "../src/modules/RiskValidator.sol";
import {SessionValidator} from "../src/modules/SessionValidator.sol";
import {ContractOwner} from "./Actors.sol";
import {Base} from "./Base.sol";

/// The validators that an account's code names save a read of the list of validators. They count exactly while they are installed.
contract NamedValidatorsTest is Base {
    bytes32 private constant HASH = keccak256("operation");
    bytes32 private constant STATE_WORD = 0x2b49b75317ffc1021ca7da4ca3423bf8403e18b223e63e6bc7abe8f39a5ed700;
    bytes32 private constant ESCAPE = keccak256("Escape(address account,uint256 nonce,uint48 expiry)");

    /// An escape that is announced is the shortest way through RiskValidator: an operation signed by the owner alone.
    function _riskOp() private view returns (PackedUserOperation memory op) {
        op = _userOp(address(account), address(validator), 3, _executeData(cold, 1, ""));
        op.signature = abi.encodePacked(uint8(3), uint16(65), _sign(OWNER_KEY, HASH));
    }

    function _installRisk() private {
        _install(address(account), 1, address(validator), _riskData(""));
        bytes32 structHash =
            keccak256(abi.encode(ESCAPE, account, validator.escapeNonce(address(account)), type(uint48).max));
        bytes32 digest = _typed(_domain("Seawall RiskValidator", address(validator)), structHash);
        validator.startEscape(address(account), type(uint48).max, _sign(OWNER_KEY, digest));
    }

    function _passes() private returns (bool) {
        return _validate(_riskOp(), HASH) == 0;
    }

    function _flags() private view returns (uint8) {
        return uint8(uint256(vm.load(address(account), STATE_WORD)) >> 240);
    }

    function test_naming_installs_nothing() public {
        // The module itself would say yes: it is installed as far as it knows.
        _execute(address(account), address(validator), 0, abi.encodeCall(validator.onInstall, (_riskData(""))));
        isTrue(!_passes(), "RiskValidator");
        eq(_flags(), 0, "flags");
    }

    function test_an_installed_one_decides_until_it_is_uninstalled() public {
        _installRisk();
        isTrue(_passes(), "installed");
        _uninstall(1, address(validator));
        isTrue(!_passes(), "uninstalled");
        eq(_flags(), 0, "flags");
        _installRisk();
        isTrue(_passes(), "again");
    }

    function test_forced_removal_ends_it_too() public {
        _installRisk();
        _install(address(account), 1, address(sessions), "");
        isTrue(_flags() != 0, "flags");
        _announced(abi.encodeCall(account.forceUninstallModule, (1, address(validator), "")));
        isTrue(!_passes(), "RiskValidator");
        _announced(abi.encodeCall(account.forceUninstallModule, (1, address(sessions), "")));
        eq(_flags(), 0, "flags");
    }

    function test_after_an_upgrade_the_list_of_validators_decides() public {
        _installRisk();
        // The new code names something else in the place of the installed one: that must not count as installed.
        RiskAccount next = new RiskAccount(ENTRY_POINT, address(new RiskValidator()), address(validator));
        _announced(abi.encodeCall(account.upgradeToAndCall, (address(next), "")));
        eq(_flags(), 0, "flags");
        isTrue(_passes(), "installed as before");
        _uninstall(1, address(validator));
        isTrue(!_passes(), "uninstalled");
    }

    function test_an_unrelated_module_that_leaves_changes_nothing() public {
        _installRisk();
        SessionValidator others = new SessionValidator();
        _install(address(account), 1, address(others), "");
        _uninstall(1, address(others));
        isTrue(_passes(), "RiskValidator");
    }

    function testFuzz_flags_and_list_agree_after_any_order_of_changes(uint256 seed) public {
        address[2] memory named = [address(validator), address(sessions)];
        for (uint256 i = 0; i < 8; ++i) {
            address module = named[(seed >> i) & 1];
            if (account.isModuleInstalled(1, module, "")) _uninstall(1, module);
            else _install(address(account), 1, module, module == named[0] ? _riskData("") : bytes(""));
            eq(_flags() & 0x04 != 0 ? 1 : 0, account.isModuleInstalled(1, named[0], "") ? 1 : 0, "RiskValidator");
            eq(_flags() & 0x08 != 0 ? 1 : 0, account.isModuleInstalled(1, named[1], "") ? 1 : 0, "SessionValidator");
        }
    }

    function test_an_owner_of_another_kind_is_asked() public {
        ContractOwner contractOwner = new ContractOwner();
        contractOwner.approve(HASH);
        _announced(abi.encodeCall(account.setOwner, (abi.encodePacked(uint8(2), address(contractOwner)))));
        _install(address(account), 1, address(validator), _riskData(""));
        PackedUserOperation memory op = _userOp(address(account), address(validator), 1, _executeData(cold, 1, ""));
        op.signature = abi.encodePacked(uint8(1), uint16(0), uint8(1), uint16(194), _attestation(HASH), uint8(0));
        eq(uint160(_validate(op, HASH)), 0, "owner and engine");
        op.signature = abi.encodePacked(uint8(1), uint16(0), uint8(1), uint16(194), _attestation("other"), uint8(0));
        eq(uint160(_validate(op, HASH)), FAILED, "engine of another operation");
        eq(uint160(_validate(op, keccak256("other"))), FAILED, "owner of another operation");
    }

    function _attestation(bytes32 hash) private view returns (bytes memory) {
        bytes32 structHash = keccak256(
            bytes.concat(
                abi.encode(
                    keccak256(
                        "Attestation(address account,address entryPoint,bytes32 userOpHash,bytes32 intentHash,bytes32 policyId,uint64 policyEpoch,bytes32 factsHash,uint8 decision,bytes32 quorumId,uint48 validAfter,uint48 validUntil)"
                    ),
                    account,
                    ENTRY_POINT,
                    hash,
                    bytes32(0),
                    POLICY,
                    uint64(1)
                ),
                abi.encode(bytes32(0), IRiskValidator.Decision.ALLOW, bytes32(0), uint48(0), uint48(0))
            )
        );
        bytes memory signature =
            _sign(ENGINE_A_KEY, _typed(_domain("Seawall RiskValidator", address(validator)), structHash));
        return abi.encodePacked(
            vm.addr(ENGINE_A_KEY), bytes32(0), bytes32(0), uint8(1), bytes32(0), uint48(0), uint48(0), signature
        );
    }
}
