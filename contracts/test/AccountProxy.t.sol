// SPDX-License-Identifier: MIT
pragma solidity ^0.8.26;

import {PackedUserOperation} from "@openzeppelin/contracts/interfaces/IERC4337.sol";
import {Execution} from "@openzeppelin/contracts/interfaces/draft-IERC7579.sol";
import {ERC1967Proxy} from "@openzeppelin/contracts/proxy/ERC1967/ERC1967Proxy.sol";
import {Initializable} from "@openzeppelin/contracts/proxy/utils/Initializable.sol";
import {UUPSUpgradeable} from "@openzeppelin/contracts/proxy/utils/UUPSUpgradeable.sol";
import {ECDSA} from "@openzeppelin/contracts/utils/cryptography/ECDSA.sol";
import {Errors} from "@openzeppelin/contracts/utils/Errors.sol";
import {RiskAccount} from "../src/account/RiskAccount.sol";
import {AccountConfig, ModuleInit} from "../src/interfaces/IRiskAccount.sol";
import {RiskState} from "../src/interfaces/IRiskState.sol";
import {OwnerLib} from "../src/libraries/OwnerLib.sol";
import {KeccakVerifier, Target} from "./Actors.sol";
import {Base} from "./Base.sol";

/// Says what it is, and keeps the storage layout.
contract NextAccount is UUPSUpgradeable {
    function version() external pure returns (uint256) {
        return 2;
    }

    function _authorizeUpgrade(address) internal override {}
}

/// Answers, or fails, with the bytes it is told to.
contract Echo {
    fallback(bytes calldata data) external payable returns (bytes memory) {
        if (data.length != 0 && data[0] == 0xff) {
            bytes memory reason = data[1:];
            assembly {
                revert(add(reason, 0x20), mload(reason))
            }
        }
        return data;
    }
}

contract Recoverer {
    function recover(bytes32 hash, bytes calldata signature) external view returns (address) {
        return OwnerLib.recover(hash, signature);
    }

    function plain(bytes32 hash, bytes calldata signature) external pure returns (address signer) {
        (signer,,) = ECDSA.tryRecoverCalldata(hash, signature);
    }
}

contract AccountProxyTest is Base {
    bytes32 private constant ERC1967_SLOT = 0x360894a13ba1a3210667c828492db98dca3e2076cc3735a920a3ca505d382bbc;
    uint256 private constant HALF_ORDER = 0x7FFFFFFFFFFFFFFFFFFFFFFFFFFFFFFF5D576E7357A4501DDFE92F46681B20A0;
    uint256 private constant ORDER = 0xFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFEBAAEDCE6AF48A03BBFD25E8CD0364141;

    // ------------------------------------------------------------------ birth data

    function test_an_account_without_modules_is_born_without_a_single_storage_write() public {
        AccountConfig memory config = _config(new ModuleInit[](0));
        config.authority = address(0);
        RiskAccount plain = RiskAccount(payable(factory.createAccount(config, "plain")));
        (, bytes32[] memory writes) = _writes(plain, config);
        eq(writes.length, 0, "writes");
        eq(plain.ownerSigner(), config.owner, "owner");
        eq(plain.adminDelay(), DELAY, "delay");
        eq(plain.implementation(), factory.implementation(), "implementation");
        vm.expectRevert(Initializable.InvalidInitialization.selector);
        plain.initialize(config);
        vm.expectRevert(Initializable.InvalidInitialization.selector);
        _op(address(plain), abi.encodeCall(plain.initialize, (config)));
    }

    function _writes(RiskAccount other, AccountConfig memory config)
        private
        returns (bytes32[] memory reads, bytes32[] memory writes)
    {
        RiskAccount twin = RiskAccount(payable(factory.getAccountAddress(config, "twin")));
        isTrue(other != twin, "another salt");
        vm.record();
        factory.createAccount(config, "twin");
        return vm.accesses(address(twin));
    }

    function test_birth_data_is_read_back_as_it_was_given(
        uint128[3] memory caps,
        uint48 delay,
        bytes memory key,
        bool modular
    ) public {
        vm.assume(key.length != 0 && key.length < 512);
        KeccakVerifier verifier = new KeccakVerifier();
        AccountConfig memory config = _config(modular ? _modules() : new ModuleInit[](0));
        if (!modular) config.authority = address(0);
        config.owner = abi.encodePacked(uint8(1), address(verifier), key);
        (config.prefundCaps, config.adminDelay) = (caps, delay);
        RiskAccount born = RiskAccount(payable(factory.createAccount(config, "fuzz")));
        eq(born.ownerSigner(), config.owner, "owner");
        eq(born.adminDelay(), delay, "delay");
        uint128[3] memory found = born.prefundCaps();
        for (uint256 i = 0; i < 3; ++i) {
            eq(found[i], caps[i] > type(uint88).max ? type(uint88).max : caps[i], "cap");
        }
    }

    function test_a_change_of_one_setting_keeps_the_others_of_the_birth() public {
        KeccakVerifier verifier = new KeccakVerifier();
        AccountConfig memory config = _config(_modules());
        config.owner = abi.encodePacked(uint8(1), address(verifier), "a key of some length");
        account = RiskAccount(payable(factory.createAccount(config, "key")));
        _announced(abi.encodeCall(account.setPrefundCaps, ([uint128(1), 2, 3])));
        eq(account.ownerSigner(), config.owner, "owner kept");
        eq(account.adminDelay(), DELAY, "delay kept");
        eq(account.prefundCaps()[1], 2, "caps");
        _announced(abi.encodeCall(account.setOwner, (_ownerBytes())));
        eq(account.ownerSigner(), _ownerBytes(), "owner");
        eq(account.prefundCaps()[0], 1, "ACTIVE cap kept");
        eq(account.prefundCaps()[2], 3, "FROZEN cap kept");
        eq(account.adminDelay(), DELAY, "delay still kept");
        vm.expectRevert(Initializable.InvalidInitialization.selector);
        account.initialize(config);
    }

    function test_a_front_run_deployment_is_the_same_account() public {
        AccountConfig memory config = _config(_modules());
        address predicted = factory.getAccountAddress(config, "front");
        vm.prank(address(0xdead));
        eq(factory.createAccount(config, "front"), predicted, "address");
        eq(RiskAccount(payable(predicted)).ownerSigner(), config.owner, "owner");
        eq(RiskAccount(payable(predicted)).riskAuthority(), address(authority), "authority");
    }

    function test_the_implementation_and_foreign_proxies_of_it_obey_nobody() public {
        AccountConfig memory config = _config(_modules());
        address implementation = factory.implementation();
        address stranger = address(new ERC1967Proxy(implementation, abi.encodeCall(RiskAccount.accountId, ())));
        address[2] memory both = [implementation, stranger];
        for (uint256 i = 0; i < 2; ++i) {
            RiskAccount one = RiskAccount(payable(both[i]));
            vm.expectRevert(Initializable.InvalidInitialization.selector);
            one.initialize(config);
            vm.expectRevert(Initializable.InvalidInitialization.selector);
            _op(address(one), abi.encodeCall(one.initialize, (config)));
            bytes32 hash = keccak256("operation");
            eq(_validate(_ownOp(address(one), hash), hash), FAILED, "operation");
        }
    }

    function _ownOp(address sender, bytes32 hash) private pure returns (PackedUserOperation memory op) {
        op = _userOp(sender, address(0), 0, "");
        op.signature = _sign(OWNER_KEY, hash);
    }

    // ------------------------------------------------------------------ upgrade

    function test_an_upgrade_is_followed_and_a_second_one_too() public {
        address next = address(new RiskAccount(ENTRY_POINT, address(validator), address(sessions)));
        _announced(abi.encodeCall(account.upgradeToAndCall, (next, "")));
        eq(account.implementation(), next, "upgraded");
        eq(account.ownerSigner(), _ownerBytes(), "birth data survive");
        address other = address(new NextAccount());
        _announced(abi.encodeCall(account.upgradeToAndCall, (other, "")));
        eq(NextAccount(address(account)).version(), 2, "upgraded again");
        eq(vm.load(address(account), ERC1967_SLOT), bytes32(uint256(uint160(other))), "slot");
    }

    function test_state_changes_and_hooks_never_make_the_proxy_look_elsewhere(uint8 changes) public {
        for (uint256 i = 0; i < changes % 16; ++i) {
            vm.prank(address(authority));
            account.setRiskState(RiskState((i + 1) % 3));
        }
        eq(account.implementation(), factory.implementation(), "implementation");
    }

    // ------------------------------------------------------------------ the shortened paths say what the plain ones say

    function test_recover_is_openzeppelins(uint256 key, bytes32 hash, uint8 twist, uint256 noise) public {
        key = key % (ORDER - 1) + 1;
        bytes memory signature = _sign(key, hash);
        if (twist % 6 == 1) signature[noise % 65] ^= bytes1(uint8(noise >> 8) | 1);
        if (twist % 6 == 2) signature = bytes.concat(signature, hex"00");
        if (twist % 6 == 3) signature = abi.encodePacked(bytes32(noise), bytes32(noise >> 3), uint8(27));
        if (twist % 6 == 4) {
            (uint8 v, bytes32 r, bytes32 s) = vm.sign(key, hash);
            signature = abi.encodePacked(r, bytes32(ORDER - uint256(s)), v == 27 ? uint8(28) : uint8(27));
        }
        if (twist % 6 == 5) signature = abi.encodePacked(bytes32(noise), bytes32(HALF_ORDER), uint8(twist));
        Recoverer recoverer = new Recoverer();
        eq(recoverer.recover(hash, signature), recoverer.plain(hash, signature), "recovered");
    }

    function test_a_plain_call_is_openzeppelins(uint96 value, bytes memory data, bool self) public {
        Echo echo = new Echo();
        vm.deal(address(account), type(uint64).max);
        bytes memory single = abi.encodePacked(self ? address(0) : address(echo), uint256(value), data);
        bytes memory batch = abi.encode(_one(self ? address(0) : address(echo), value, data));
        bytes memory short = abi.encodeCall(account.execute, (SINGLE, single));
        bytes memory plain = abi.encodeCall(account.execute, (BATCH, batch));
        uint256 before = vm.snapshotState();
        vm.prank(address(ENTRY_POINT));
        (bool success, bytes memory answer) = address(account).call(short);
        uint256 left = address(account).balance;
        vm.revertToState(before);
        vm.prank(address(ENTRY_POINT));
        (bool expected, bytes memory wanted) = address(account).call(plain);
        isTrue(success == expected, "success");
        eq(answer, wanted, "answer");
        eq(left, address(account).balance, "balance");
    }

    function _one(address to, uint256 value, bytes memory data) private pure returns (Execution[] memory calls) {
        calls = new Execution[](1);
        calls[0] = Execution(to, value, data);
    }

    function test_a_call_that_fails_in_silence_is_named() public {
        Echo echo = new Echo();
        vm.expectRevert(Errors.FailedCall.selector);
        _execute(address(account), address(echo), 0, hex"ff");
        vm.expectRevert(); // too short for a target, as ERC7579Utils has it
        _op(address(account), abi.encodeCall(account.execute, (SINGLE, hex"1234")));
        vm.expectRevert(Target.Refused.selector);
        _execute(address(account), address(target), 0, abi.encodeCall(target.refuse, ()));
    }
}
