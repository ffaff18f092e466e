// SPDX-License-Identifier: MIT
pragma solidity ^0.8.26;

import {ERC4337Utils} from "@openzeppelin/contracts/account/utils/ERC4337Utils.sol";
import {IAccount, IEntryPoint, PackedUserOperation} from "@openzeppelin/contracts/interfaces/IERC4337.sol";
import {
    Execution,
    IERC7579Execution,
    IERC7579ModuleConfig
} from "@openzeppelin/contracts/interfaces/draft-IERC7579.sol";
import {RiskAccount} from "../src/account/RiskAccount.sol";
import {RiskAccountFactory} from "../src/account/RiskAccountFactory.sol";
import {IEmergencyFreeze} from "../src/interfaces/IEmergencyFreeze.sol";
import {AccountConfig, ModuleInit} from "../src/interfaces/IRiskAccount.sol";
import {IRiskValidator} from "../src/interfaces/IRiskValidator.sol";
import {EmergencyFreeze} from "../src/modules/EmergencyFreeze.sol";
import {RiskValidator} from "../src/modules/RiskValidator.sol";
import {SessionValidator} from "../src/modules/SessionValidator.sol";
import {StopLoss} from "../src/modules/StopLoss.sol";
import {Target} from "./Actors.sol";
import {ForeignAccount} from "./ForeignAccount.sol";
import {Assertions} from "./Vm.sol";

/// The parts all tests share: keys, modules, an account of ours and one of others, and this contract in the role of the entry point.
abstract contract Base is Assertions {
    uint256 internal constant OWNER_KEY = 0xA11CE;
    uint256 internal constant THIEF_KEY = 0xBAD;
    uint256 internal constant ENGINE_A_KEY = 0xE1;
    uint256 internal constant ENGINE_B_KEY = 0xE2;
    uint256[3] internal GUARDIAN_KEYS = [uint256(0x61), 0x62, 0x63];
    uint256 internal constant FAILED = ERC4337Utils.SIG_VALIDATION_FAILED;
    bytes32 internal constant SINGLE = bytes32(0);
    bytes32 internal constant BATCH = bytes32(bytes1(0x01));
    bytes32 internal constant SINGLE_TRY = bytes32(bytes2(0x0001));
    bytes32 internal constant POLICY = keccak256("policy");
    uint128 internal constant CAP = 1 ether;
    uint48 internal constant DELAY = 2 days;

    IEntryPoint internal constant ENTRY_POINT = ERC4337Utils.ENTRYPOINT_V08;
    RiskAccountFactory internal factory;
    RiskAccount internal account;
    ForeignAccount internal foreign;
    RiskValidator internal validator;
    SessionValidator internal sessions;
    EmergencyFreeze internal authority;
    StopLoss internal stopLoss;
    Target internal target;
    address internal owner = vm.addr(OWNER_KEY);
    address internal cold = address(0xC01D);

    function setUp() public virtual {
        vm.warp(1_700_000_000);
        validator = new RiskValidator();
        sessions = new SessionValidator();
        factory = _factory(ENTRY_POINT);
        authority = new EmergencyFreeze();
        stopLoss = new StopLoss();
        target = new Target();
        account = RiskAccount(payable(factory.createAccount(_config(_modules()), 0)));
        foreign = new ForeignAccount(ENTRY_POINT);
        vm.deal(address(account), 10 ether);
        vm.deal(address(foreign), 10 ether);
        vm.etch(address(ENTRY_POINT), hex"00");
    }

    // ---- building

    function _factory(IEntryPoint entryPoint) internal returns (RiskAccountFactory) {
        RiskAccount implementation = new RiskAccount(entryPoint, address(validator), address(sessions));
        return new RiskAccountFactory(payable(address(implementation)), address(this));
    }

    function _ownerBytes() internal view returns (bytes memory) {
        return abi.encodePacked(uint8(0), owner);
    }

    function _config(ModuleInit[] memory modules) internal view returns (AccountConfig memory) {
        return AccountConfig({
            owner: _ownerBytes(),
            authority: address(authority),
            adminDelay: DELAY,
            prefundCaps: [CAP, CAP / 2, CAP / 4],
            modules: modules
        });
    }

    function _modules() internal view returns (ModuleInit[] memory modules) {
        modules = new ModuleInit[](1);
        modules[0] = ModuleInit(2, address(authority), abi.encode(_freezeData()));
    }

    function _freezeData() internal view returns (IEmergencyFreeze.InstallData memory data) {
        data.guardians = new address[](3);
        for (uint256 i = 0; i < 3; ++i) {
            data.guardians[i] = vm.addr(GUARDIAN_KEYS[i]);
        }
        data.quorum = 2;
        (data.soloFreezeSeconds, data.soloCooldownSeconds) = (1 days, 3 days);
        (data.thawDelaySeconds, data.escapeDelaySeconds) = (1 hours, 7 days);
        data.guards = new address[](1);
        data.guards[0] = address(stopLoss);
        data.exits = new IEmergencyFreeze.Exit[](3);
        data.exits[0] = _exit(address(target), Target.refuse.selector, false);
        data.exits[1] = IEmergencyFreeze.Exit(address(target), Target.hit.selector, true, false, 2, new bytes32[](1));
        data.exits[1].args[0] = bytes32(uint256(uint160(cold)));
        data.exits[2] = IEmergencyFreeze.Exit(cold, 0, true, true, 0, new bytes32[](0));
    }

    function _exit(address to, bytes4 selector, bool inFrozen) internal pure returns (IEmergencyFreeze.Exit memory) {
        return IEmergencyFreeze.Exit(to, selector, inFrozen, false, 0, new bytes32[](0));
    }

    function _riskData(bytes memory ownerBytes) internal pure returns (bytes memory) {
        address[] memory engines = new address[](2);
        (engines[0], engines[1]) = (vm.addr(ENGINE_A_KEY), vm.addr(ENGINE_B_KEY));
        return
            abi.encode(
                IRiskValidator.InstallData(ownerBytes, engines, 1, 3 days, POLICY, new IRiskValidator.Quorum[](0))
            );
    }

    // ---- acting

    function _as(address sender, address to, bytes memory data) internal returns (bytes memory) {
        vm.prank(sender);
        (bool success, bytes memory answer) = to.call(data);
        if (!success) {
            assembly {
                revert(add(answer, 0x20), mload(answer))
            }
        }
        return answer;
    }

    /// The entry point calls the account with `data`, as it does with an operation's call data.
    function _op(address to, bytes memory data) internal returns (bytes memory) {
        return _as(address(ENTRY_POINT), to, data);
    }

    function _execute(address from, address to, uint256 value, bytes memory data) internal {
        _op(from, _executeData(to, value, data));
    }

    function _executeData(address to, uint256 value, bytes memory data) internal pure returns (bytes memory) {
        return abi.encodeCall(IERC7579Execution.execute, (SINGLE, abi.encodePacked(to, value, data)));
    }

    function _install(address on, uint256 kind, address module, bytes memory data) internal {
        _op(on, abi.encodeCall(IERC7579ModuleConfig.installModule, (kind, module, data)));
    }

    function _announced(bytes memory data) internal {
        _op(address(account), abi.encodeCall(account.scheduleAdmin, (data)));
        vm.warp(_now() + DELAY);
        account.executeAdmin(data);
    }

    function _uninstall(uint256 kind, address module) internal {
        _announced(abi.encodeCall(account.uninstallModule, (kind, module, "")));
    }

    // ---- operations and signatures

    function _userOp(address sender, address module, uint8 lane, bytes memory callData)
        internal
        pure
        returns (PackedUserOperation memory op)
    {
        op.sender = sender;
        op.nonce = uint256(uint160(module)) << 96 | uint256(lane) << 88;
        op.callData = callData;
        op.accountGasLimits = bytes32(uint256(100_000) << 128 | 200_000);
        op.preVerificationGas = 50_000;
        op.gasFees = bytes32(uint256(1 gwei) << 128 | 2 gwei);
    }

    function _prefund(PackedUserOperation memory op) internal pure returns (uint256) {
        return (uint256(op.accountGasLimits >> 128) + uint128(uint256(op.accountGasLimits)) + op.preVerificationGas)
            * uint128(uint256(op.gasFees));
    }

    function _validate(PackedUserOperation memory op, bytes32 hash) internal returns (uint256) {
        return abi.decode(_op(op.sender, abi.encodeCall(IAccount.validateUserOp, (op, hash, 0))), (uint256));
    }

    function _sign(uint256 key, bytes32 digest) internal pure returns (bytes memory) {
        (uint8 v, bytes32 r, bytes32 s) = vm.sign(key, digest);
        return abi.encodePacked(r, s, v);
    }

    function _typed(bytes32 separator, bytes32 structHash) internal pure returns (bytes32) {
        return keccak256(abi.encodePacked(hex"1901", separator, structHash));
    }

    function _domain(string memory name, address module) internal view returns (bytes32) {
        return keccak256(
            abi.encode(
                keccak256("EIP712Domain(string name,string version,uint256 chainId,address verifyingContract)"),
                keccak256(bytes(name)),
                keccak256("1"),
                block.chainid,
                module
            )
        );
    }

    /// Guardians' addresses in ascending order with their signatures over one digest.
    function _guardians(uint256 count, bytes32 structHash)
        internal
        view
        returns (address[] memory signers, bytes[] memory signatures)
    {
        uint256[] memory keys = new uint256[](3);
        for (uint256 i = 0; i < 3; ++i) {
            keys[i] = GUARDIAN_KEYS[i];
            for (uint256 j = i; j > 0 && vm.addr(keys[j]) < vm.addr(keys[j - 1]); --j) {
                (keys[j], keys[j - 1]) = (keys[j - 1], keys[j]);
            }
        }
        (signers, signatures) = (new address[](count), new bytes[](count));
        bytes32 digest = _typed(_domain("Seawall EmergencyFreeze", address(authority)), structHash);
        for (uint256 i = 0; i < count; ++i) {
            (signers[i], signatures[i]) = (vm.addr(keys[i]), _sign(keys[i], digest));
        }
    }

    function _onlyAssociatedReads(address module, address of_) internal {
        (bytes32[] memory reads, bytes32[] memory writes) = vm.accesses(module);
        for (uint256 i = 0; i < reads.length; ++i) {
            isTrue(_associated(module, reads[i], of_), "slot read is not associated with the account");
        }
        for (uint256 i = 0; i < writes.length; ++i) {
            isTrue(_associated(module, writes[i], of_), "slot written is not associated with the account");
        }
    }

    /// ERC-7562: keccak256(account || x) + n, n <= 128.
    function _associated(address module, bytes32 slot, address of_) internal returns (bool) {
        for (uint256 n = 0; n <= 128; ++n) {
            (bool found, bytes32 key,) = vm.getMappingKeyAndParentOf(module, bytes32(uint256(slot) - n));
            if (found) return key == bytes32(uint256(uint160(of_)));
        }
        return false;
    }
}
