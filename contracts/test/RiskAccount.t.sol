// SPDX-License-Identifier: MIT
pragma solidity ^0.8.26;

import {Account} from "@openzeppelin/contracts/account/Account.sol";
import {ERC4337Utils} from "@openzeppelin/contracts/account/utils/ERC4337Utils.sol";
import {ERC7579Utils} from "@openzeppelin/contracts/account/utils/draft-ERC7579Utils.sol";
import {IAccount, PackedUserOperation} from "@openzeppelin/contracts/interfaces/IERC4337.sol";
import {Execution} from "@openzeppelin/contracts/interfaces/draft-IERC7579.sol";
import {Initializable} from "@openzeppelin/contracts/proxy/utils/Initializable.sol";
import {AccountStorage} from "../src/account/AccountStorage.sol";
import {AnnouncedAdmin} from "../src/account/AnnouncedAdmin.sol";
import {RiskAccount} from "../src/account/RiskAccount.sol";
import {AccountConfig, IRiskAccount, ModuleInit} from "../src/interfaces/IRiskAccount.sol";
import {IRiskAccountFactory} from "../src/interfaces/IRiskAccountFactory.sol";
import {IRiskState, RiskState} from "../src/interfaces/IRiskState.sol";
import {OwnerLib} from "../src/libraries/OwnerLib.sol";
import {
    ContractOwner,
    FickleValidator,
    HostileModule,
    KeccakVerifier,
    PlainModule,
    Target,
    VetoHook
} from "./Actors.sol";
import {Base} from "./Base.sol";
import {Vm} from "./Vm.sol";

contract RiskAccountTest is Base {
    bytes32 private constant STATE_WORD_SLOT = 0x2b49b75317ffc1021ca7da4ca3423bf8403e18b223e63e6bc7abe8f39a5ed700;

    function _state(RiskState state) private {
        vm.prank(address(authority));
        account.setRiskState(state);
    }

    // ------------------------------------------------------------------ birth

    function test_factory_gives_the_announced_address_once_and_the_same_account_again() public {
        AccountConfig memory config = _config(_modules());
        address predicted = factory.getAccountAddress(config, "salt");
        eq(factory.createAccount(config, "salt"), predicted, "address");
        eq(factory.createAccount(config, "salt"), predicted, "second call");
    }

    function test_salt_is_as_published() public {
        AccountConfig memory config = _config(_modules());
        bytes32 version = "seawall.account.1";
        bytes32 salt =
            keccak256(abi.encode(version, keccak256(config.owner), keccak256(abi.encode(config)), bytes32("other")));
        address predicted = factory.getAccountAddress(config, "other");
        vm.recordLogs();
        factory.createAccount(config, "other");
        Vm.Log[] memory logs = vm.getRecordedLogs();
        Vm.Log memory last = logs[logs.length - 1];
        eq(last.topics[0], IRiskAccountFactory.AccountCreated.selector, "event");
        eq(last.topics[1], bytes32(uint256(uint160(predicted))), "account");
        eq(last.topics[2], salt, "salt");
    }

    function test_every_part_of_the_configuration_moves_the_address() public view {
        AccountConfig memory config = _config(_modules());
        address first = factory.getAccountAddress(config, 0);
        config.prefundCaps[2] += 1;
        isTrue(factory.getAccountAddress(config, 0) != first, "caps");
        config = _config(_modules());
        config.modules[0].initData = bytes.concat(config.modules[0].initData, hex"00");
        isTrue(factory.getAccountAddress(config, 0) != first, "module data");
    }

    function test_initialize_works_once_and_never_on_the_implementation() public {
        AccountConfig memory config = _config(_modules());
        vm.expectRevert(Initializable.InvalidInitialization.selector);
        account.initialize(config);
        RiskAccount implementation = RiskAccount(payable(factory.implementation()));
        vm.expectRevert(Initializable.InvalidInitialization.selector);
        implementation.initialize(config);
    }

    function test_authority_must_be_among_the_modules() public {
        AccountConfig memory config = _config(new ModuleInit[](0));
        vm.expectRevert(abi.encodeWithSelector(RiskAccount.AuthorityNotInstalled.selector, address(authority)));
        factory.createAccount(config, 0);
        config.authority = address(0);
        factory.createAccount(config, 0);
    }

    function test_owner_that_could_never_sign_is_refused() public {
        bytes[6] memory bad = [
            bytes(""),
            abi.encodePacked(uint8(0), address(0)),
            abi.encodePacked(uint8(0), owner, uint8(1)),
            abi.encodePacked(uint8(1), address(target)),
            abi.encodePacked(uint8(2), owner),
            abi.encodePacked(uint8(3), address(target))
        ];
        for (uint256 i = 0; i < bad.length; ++i) {
            AccountConfig memory config = _config(_modules());
            config.owner = bad[i];
            vm.expectRevert(abi.encodeWithSelector(OwnerLib.InvalidOwner.selector, bad[i]));
            factory.createAccount(config, 0);
        }
    }

    function test_factory_stake_belongs_to_its_owner() public {
        vm.startPrank(address(0xdead));
        vm.expectRevert();
        factory.unlockStake();
        vm.expectRevert();
        factory.withdrawStake(payable(address(0xdead)));
        vm.expectRevert();
        factory.addStake(1);
        vm.stopPrank();
        factory.unlockStake();
    }

    // ------------------------------------------------------------------ the state word

    function test_openzeppelin_hook_writes_keep_state_attested_and_epoch() public {
        _install(address(account), 1, address(validator), _riskData(""));
        _state(RiskState.REDUCE_ONLY);
        _state(RiskState.ACTIVE);
        VetoHook hook = new VetoHook();
        _install(address(account), 4, address(hook), "");
        uint256 word = uint256(vm.load(address(account), STATE_WORD_SLOT));
        uint256 ours = uint256(1) << 168 | uint256(2) << 176 | uint256(0x04) << 240; // attested, epoch, flags
        eq(word, uint256(uint160(address(hook))) | ours, "word with hook");
        _uninstall(4, address(hook));
        word = uint256(vm.load(address(account), STATE_WORD_SLOT));
        eq(word, ours, "word without hook");
        eq(account.hook(), address(0), "hook");
    }

    function test_only_the_authority_changes_the_state_and_the_epoch_grows_by_one_each_time() public {
        vm.expectRevert(abi.encodeWithSelector(RiskAccount.NotAuthority.selector, address(this)));
        account.setRiskState(RiskState.FROZEN);
        vm.expectRevert(abi.encodeWithSelector(RiskAccount.NotAuthority.selector, address(ENTRY_POINT)));
        _op(address(account), abi.encodeCall(account.setRiskState, (RiskState.FROZEN)));
        _state(RiskState.FROZEN);
        _state(RiskState.FROZEN);
        (RiskState state, uint64 epoch) = account.riskState();
        eq(uint256(state), uint256(RiskState.FROZEN), "state");
        eq(epoch, 1, "epoch");
    }

    // ------------------------------------------------------------------ validation

    function _nativeOp() private view returns (PackedUserOperation memory op, bytes32 hash) {
        op = _userOp(address(account), address(0), 0, _executeData(address(target), 0, ""));
        hash = keccak256("op");
        op.signature = _sign(OWNER_KEY, hash);
    }

    function test_owner_signature_validates_in_lane_zero() public {
        (PackedUserOperation memory op, bytes32 hash) = _nativeOp();
        eq(_validate(op, hash), 0, "owner");
        op.signature = _sign(THIEF_KEY, hash);
        eq(_validate(op, hash), FAILED, "thief");
        op.signature = "";
        eq(_validate(op, hash), FAILED, "empty");
    }

    function testFuzz_no_other_nonce_key_falls_back_to_the_owner(uint192 key) public {
        vm.assume(key >> 24 != 0);
        (PackedUserOperation memory op, bytes32 hash) = _nativeOp();
        op.nonce = uint256(key) << 64;
        eq(_validate(op, hash), FAILED, "fallback");
    }

    function test_parallel_owner_lanes_are_open() public {
        (PackedUserOperation memory op, bytes32 hash) = _nativeOp();
        op.nonce = uint256(0xffffff) << 64 | 7;
        eq(_validate(op, hash), 0, "lane");
    }

    function test_installing_the_risk_validator_closes_the_owner_path_until_its_delayed_removal() public {
        (PackedUserOperation memory op, bytes32 hash) = _nativeOp();
        _install(address(account), 1, address(validator), _riskData(""));
        isTrue(!account.nativeOwnerPath(), "closed");
        eq(_validate(op, hash), FAILED, "native");
        _uninstall(1, address(validator));
        isTrue(account.nativeOwnerPath(), "open");
        eq(_validate(op, hash), 0, "native again");
        op.nonce = uint256(uint160(address(validator))) << 96;
        eq(_validate(op, hash), FAILED, "uninstalled validator");
    }

    function test_owner_path_is_closed_from_birth_when_the_risk_validator_is_a_first_module() public {
        ModuleInit[] memory modules = new ModuleInit[](2);
        modules[0] = _modules()[0];
        modules[1] = ModuleInit(1, address(validator), _riskData(""));
        RiskAccount born = RiskAccount(payable(factory.createAccount(_config(modules), 0)));
        isTrue(!born.nativeOwnerPath(), "closed");
    }

    function test_one_of_two_attested_validators_keeps_the_owner_path_closed() public {
        _install(address(account), 1, address(validator), _riskData(""));
        _install(address(account), 1, address(new FickleValidator()), "");
        _uninstall(1, address(validator));
        isTrue(!account.nativeOwnerPath(), "closed");
    }

    function test_a_validator_that_changes_its_answer_still_opens_the_path_when_it_leaves() public {
        FickleValidator fickle = new FickleValidator();
        _install(address(account), 1, address(fickle), "");
        fickle.deny();
        _uninstall(1, address(fickle));
        isTrue(account.nativeOwnerPath(), "open");
    }

    function test_plain_validators_leave_the_owner_path_open() public {
        _install(address(account), 1, address(sessions), "");
        _install(address(account), 1, address(new PlainModule()), "");
        isTrue(account.nativeOwnerPath(), "open");
    }

    function test_validation_writes_no_storage_of_the_account() public {
        (PackedUserOperation memory op, bytes32 hash) = _nativeOp();
        vm.record();
        eq(_validate(op, hash), 0, "valid");
        (, bytes32[] memory writes) = vm.accesses(address(account));
        eq(writes.length, 0, "writes");
    }

    function test_ecdsa_owner_is_recovered_and_never_called() public {
        (PackedUserOperation memory op, bytes32 hash) = _nativeOp();
        vm.etch(owner, hex"fe"); // a delegated owner whose code consumes everything
        eq(_validate(op, hash), 0, "valid");
    }

    function test_contract_and_verifier_owners_sign() public {
        bytes32 hash = keccak256("op");
        ContractOwner contractOwner = new ContractOwner();
        contractOwner.approve(hash);
        AccountConfig memory config = _config(_modules());
        config.owner = abi.encodePacked(uint8(2), address(contractOwner));
        RiskAccount owned = RiskAccount(payable(factory.createAccount(config, 0)));
        isTrue(owned.isOwnerSignature(hash, ""), "ERC-1271");
        isTrue(!owned.isOwnerSignature(keccak256("other"), ""), "ERC-1271 other hash");

        bytes memory key = "a key of more than thirty-two bytes, as a passkey has";
        config.owner = abi.encodePacked(uint8(1), address(new KeccakVerifier()), key);
        owned = RiskAccount(payable(factory.createAccount(config, 0)));
        isTrue(owned.isOwnerSignature(hash, abi.encodePacked(keccak256(abi.encodePacked(key, hash)))), "ERC-7913");
        isTrue(!owned.isOwnerSignature(hash, abi.encodePacked(hash)), "ERC-7913 wrong");
        eq(owned.ownerSigner(), config.owner, "owner");
    }

    function test_v07_wraps_the_hash_for_this_chain_and_account() public {
        vm.etch(address(ERC4337Utils.ENTRYPOINT_V07), hex"00");
        RiskAccount old =
            RiskAccount(payable(_factory(ERC4337Utils.ENTRYPOINT_V07).createAccount(_config(_modules()), 0)));
        bytes32 hash = keccak256("op");
        PackedUserOperation memory op = _userOp(address(old), address(0), 0, "");
        op.signature = _sign(OWNER_KEY, hash);
        bytes memory call = abi.encodeCall(IAccount.validateUserOp, (op, hash, 0));
        bytes memory answer = _as(address(ERC4337Utils.ENTRYPOINT_V07), address(old), call);
        eq(abi.decode(answer, (uint256)), FAILED, "raw");
        bytes32 structHash = keccak256(abi.encode(keccak256("UserOperationHash(bytes32 userOpHash)"), hash));
        op.signature = _sign(OWNER_KEY, _typed(_domain("Seawall RiskAccount", address(old)), structHash));
        call = abi.encodeCall(IAccount.validateUserOp, (op, hash, 0));
        answer = _as(address(ERC4337Utils.ENTRYPOINT_V07), address(old), call);
        eq(abi.decode(answer, (uint256)), 0, "wrapped");
    }

    function testFuzz_prefund_is_capped_by_state(uint256 fee, uint8 stateIndex) public {
        RiskState state = RiskState(stateIndex % 3);
        uint256 cap = [CAP, CAP / 2, CAP / 4][uint256(state)];
        if (state != RiskState.ACTIVE) _state(state);
        (PackedUserOperation memory op, bytes32 hash) = _nativeOp();
        fee = bound(fee, 1, 2 * cap / 350_000);
        op.gasFees = bytes32(fee);
        op.signature = _sign(OWNER_KEY, hash);
        eq(_validate(op, hash), _prefund(op) > cap ? FAILED : 0, "capped");
    }

    function test_paymaster_gas_limits_count_and_a_paymaster_lifts_the_cap() public {
        (PackedUserOperation memory op, bytes32 hash) = _nativeOp();
        op.gasFees = bytes32(uint256(CAP / 350_000));
        eq(_validate(op, hash), 0, "below");
        op.paymasterAndData = abi.encodePacked(address(0), uint128(100_000), uint128(0));
        eq(_validate(op, hash), FAILED, "zero paymaster pays nothing");
        op.paymasterAndData = abi.encodePacked(address(1), uint128(100_000), uint128(0));
        eq(_validate(op, hash), 0, "sponsored");
    }

    function test_only_the_entry_point_validates() public {
        (PackedUserOperation memory op, bytes32 hash) = _nativeOp();
        vm.expectRevert(abi.encodeWithSelector(Account.AccountUnauthorized.selector, address(this)));
        account.validateUserOp(op, hash, 0);
    }

    function test_validation_called_as_an_operation_moves_at_most_one_prefund() public {
        (PackedUserOperation memory op, bytes32 hash) = _nativeOp();
        _op(address(account), abi.encodeCall(IAccount.validateUserOp, (op, hash, 5 ether)));
        eq(address(account).balance, 10 ether, "more than the prefund");
        _op(address(account), abi.encodeCall(IAccount.validateUserOp, (op, hash, _prefund(op))));
        eq(address(account).balance, 10 ether - _prefund(op), "the prefund");
        op.gasFees = bytes32(uint256(20_000 gwei));
        _op(address(account), abi.encodeCall(IAccount.validateUserOp, (op, hash, _prefund(op))));
        isTrue(address(account).balance > 9 ether, "beyond the cap");
    }

    // ------------------------------------------------------------------ execution

    function testFuzz_supports_exactly_four_modes(bytes32 mode) public {
        bool known = mode == SINGLE || mode == BATCH || mode == SINGLE_TRY || mode == BATCH | SINGLE_TRY;
        isTrue(account.supportsExecutionMode(mode) == known, "supports");
        if (known) return;
        vm.expectRevert(abi.encodeWithSelector(RiskAccount.UnsupportedExecutionMode.selector, mode));
        _op(address(account), abi.encodeCall(account.execute, (mode, abi.encodePacked(target, uint256(0)))));
    }

    function test_unknown_call_types_mode_selectors_and_payloads_are_refused() public {
        bytes32[4] memory modes = [
            bytes32(bytes1(0xfe)), bytes32(uint256(1)), bytes32(uint256(0x78210001) << 176), bytes32(uint256(1) << 224)
        ];
        for (uint256 i = 0; i < modes.length; ++i) {
            isTrue(!account.supportsExecutionMode(modes[i]), "supports");
            vm.expectRevert(abi.encodeWithSelector(RiskAccount.UnsupportedExecutionMode.selector, modes[i]));
            _op(address(account), abi.encodeCall(account.execute, (modes[i], abi.encodePacked(target, uint256(0)))));
        }
        isTrue(account.supportsExecutionMode(SINGLE) && account.supportsExecutionMode(BATCH | SINGLE_TRY), "known");
    }

    function test_single_batch_and_try() public {
        bytes memory hit = abi.encodeCall(Target.hit, (1, cold));
        _execute(address(account), address(target), 1, hit);
        Execution[] memory calls = new Execution[](2);
        calls[0] = Execution(address(target), 2, hit);
        calls[1] = Execution(address(target), 0, abi.encodeCall(Target.refuse, ()));
        vm.expectRevert(Target.Refused.selector);
        _op(address(account), abi.encodeCall(account.execute, (BATCH, abi.encode(calls))));
        _op(address(account), abi.encodeCall(account.execute, (BATCH | SINGLE_TRY, abi.encode(calls))));
        eq(target.calls(), 2, "calls");
        eq(address(target).balance, 3, "value");
    }

    function test_only_entry_point_and_account_execute() public {
        vm.expectRevert(abi.encodeWithSelector(Account.AccountUnauthorized.selector, address(this)));
        account.execute(SINGLE, abi.encodePacked(target, uint256(0)));
        vm.expectRevert();
        account.executeFromExecutor(SINGLE, abi.encodePacked(target, uint256(0)));
    }

    function test_executors_never_reach_account_modules_or_entry_point() public {
        PlainModule executor = new PlainModule();
        PlainModule handler = new PlainModule();
        VetoHook hook = new VetoHook();
        _install(address(account), 2, address(executor), "");
        _install(address(account), 3, address(handler), abi.encodePacked(bytes4(0x12345678)));
        _install(address(account), 4, address(hook), "");
        _install(address(account), 1, address(sessions), "");
        address[8] memory forbidden = [
            address(account),
            address(0),
            address(ENTRY_POINT),
            address(executor),
            address(handler),
            address(hook),
            address(sessions),
            address(authority)
        ];
        Execution[] memory calls = new Execution[](2);
        calls[0] = Execution(address(target), 0, "");
        for (uint256 i = 0; i < forbidden.length; ++i) {
            vm.expectRevert(abi.encodeWithSelector(RiskAccount.ForbiddenTarget.selector, forbidden[i]));
            executor.act(address(account), SINGLE, abi.encodePacked(forbidden[i], uint256(0)));
            calls[1] = Execution(forbidden[i], 0, "");
            vm.expectRevert(abi.encodeWithSelector(RiskAccount.ForbiddenTarget.selector, forbidden[i]));
            executor.act(address(account), BATCH | SINGLE_TRY, abi.encode(calls));
        }
        executor.act(address(account), SINGLE, abi.encodePacked(target, uint256(0)));
        eq(target.calls(), 1, "other targets");
        _uninstall(3, address(handler), abi.encodePacked(bytes4(0x12345678)));
        executor.act(address(account), SINGLE, abi.encodePacked(handler, uint256(0)));
    }

    function _uninstall(uint256 kind, address module, bytes memory data) private {
        _announced(abi.encodeCall(account.uninstallModule, (kind, module, data)));
    }

    // ------------------------------------------------------------------ outside ACTIVE

    function testFuzz_outside_active_only_exits_pass(bool frozen, uint256 value, address to, bytes calldata data)
        public
    {
        vm.assume(to != address(target) && to != cold && to != address(authority));
        _state(frozen ? RiskState.FROZEN : RiskState.REDUCE_ONLY);
        vm.expectRevert();
        _execute(address(account), to, value % 10 ether, data);
    }

    function test_declared_exits_pass_in_their_states() public {
        bytes memory refuse = abi.encodeCall(Target.refuse, ());
        bytes memory toCold = abi.encodeCall(Target.hit, (5, cold));
        bytes memory toThief = abi.encodeCall(Target.hit, (5, address(0xbad)));
        _state(RiskState.REDUCE_ONLY);
        vm.expectRevert(Target.Refused.selector); // reached
        _execute(address(account), address(target), 0, refuse);
        _execute(address(account), address(target), 0, toCold);
        vm.expectPartialRevert(RiskAccount.NotPermitted.selector);
        _execute(address(account), address(target), 0, toThief);
        _state(RiskState.FROZEN);
        vm.expectPartialRevert(RiskAccount.NotPermitted.selector);
        _execute(address(account), address(target), 0, refuse);
        _execute(address(account), address(target), 0, toCold);
        vm.expectPartialRevert(RiskAccount.NotPermitted.selector);
        _execute(address(account), address(target), 1, toCold);
        _execute(address(account), cold, 1 ether, "");
        eq(cold.balance, 1 ether, "cold");
    }

    function test_one_bad_call_spoils_a_batch_of_exits() public {
        _state(RiskState.FROZEN);
        Execution[] memory calls = new Execution[](2);
        calls[0] = Execution(cold, 1, "");
        calls[1] = Execution(address(0xbad), 1, "");
        vm.expectPartialRevert(RiskAccount.NotPermitted.selector);
        _op(address(account), abi.encodeCall(account.execute, (BATCH | SINGLE_TRY, abi.encode(calls))));
    }

    function test_outside_active_every_other_function_is_closed() public {
        PlainModule module = new PlainModule();
        _install(address(account), 2, address(module), "");
        _install(address(account), 3, address(module), abi.encodePacked(bytes4(0x12345678)));
        bytes memory change = abi.encodeCall(account.setOwner, (_ownerBytes()));
        _op(address(account), abi.encodeCall(account.scheduleAdmin, (change)));
        vm.warp(_now() + DELAY);
        for (uint8 i = 1; i < 3; ++i) {
            _state(RiskState(i));
            bytes4 closed = AccountStorage.NotInState.selector;
            vm.expectPartialRevert(closed);
            _install(address(account), 2, address(stopLoss), "");
            vm.expectPartialRevert(closed);
            _op(address(account), abi.encodeCall(account.scheduleAdmin, (change)));
            vm.expectPartialRevert(closed);
            _op(address(account), hex"12345678");
            vm.expectRevert(abi.encodeWithSelector(RiskAccount.NotAGuard.selector, address(module)));
            module.act(address(account), SINGLE, abi.encodePacked(target, uint256(0)));
            (bool paid,) = address(account).call{value: 1}("");
            isTrue(paid, "receive");
        }
        vm.expectPartialRevert(AccountStorage.NotInState.selector);
        account.executeAdmin(change);
        _state(RiskState.REDUCE_ONLY);
        account.executeAdmin(change);
    }

    function test_a_guard_acts_in_every_state_but_never_on_the_account() public {
        PlainModule guard = new PlainModule();
        _install(address(account), 2, address(guard), "");
        _execute(address(account), address(authority), 0, abi.encodeCall(authority.setGuard, (address(guard), true)));
        for (uint8 i = 1; i < 3; ++i) {
            _state(RiskState(i));
            guard.act(address(account), SINGLE, abi.encodePacked(target, uint256(1)));
            vm.expectRevert(abi.encodeWithSelector(RiskAccount.ForbiddenTarget.selector, address(account)));
            guard.act(address(account), SINGLE, abi.encodePacked(account, uint256(0)));
        }
        eq(target.calls(), 2, "acted");
    }

    function test_without_an_authority_nothing_is_permitted_and_nothing_can_freeze() public {
        AccountConfig memory config = _config(new ModuleInit[](0));
        config.authority = address(0);
        RiskAccount lone = RiskAccount(payable(factory.createAccount(config, 0)));
        vm.prank(address(0));
        lone.setRiskState(RiskState.FROZEN); // the zero address has no key
        vm.expectRevert();
        _execute(address(lone), cold, 0, "");
    }

    // ------------------------------------------------------------------ functions called as an operation

    function test_administrative_functions_need_an_announcement_even_from_the_account_itself() public {
        bytes[6] memory calls = [
            abi.encodeCall(account.uninstallModule, (2, address(authority), "")),
            abi.encodeCall(account.forceUninstallModule, (2, address(authority), "")),
            abi.encodeCall(account.setOwner, (_ownerBytes())),
            abi.encodeCall(account.setRiskAuthority, (address(0))),
            abi.encodeCall(account.setPrefundCaps, ([CAP, CAP, CAP])),
            abi.encodeCall(account.upgradeToAndCall, (factory.implementation(), ""))
        ];
        for (uint256 i = 0; i < calls.length; ++i) {
            vm.expectRevert(AnnouncedAdmin.OnlyAnnounced.selector);
            _op(address(account), calls[i]);
            vm.expectRevert(AnnouncedAdmin.OnlyAnnounced.selector);
            _execute(address(account), address(account), 0, calls[i]);
            vm.expectRevert(AnnouncedAdmin.OnlyAnnounced.selector);
            _execute(address(account), address(0), 0, calls[i]);
        }
    }

    // ------------------------------------------------------------------ announced administration

    function test_announced_call_waits_then_anyone_carries_it_out_once() public {
        address thief = vm.addr(THIEF_KEY);
        bytes memory change = abi.encodeCall(account.setOwner, (abi.encodePacked(uint8(0), thief)));
        vm.expectRevert(abi.encodeWithSelector(AnnouncedAdmin.NotAnnounced.selector, keccak256(change)));
        account.executeAdmin(change);
        _op(address(account), abi.encodeCall(account.scheduleAdmin, (change)));
        eq(account.adminExecutableAt(keccak256(change)), _now() + DELAY, "executable");
        vm.expectRevert(abi.encodeWithSelector(AccountStorage.AlreadyAnnounced.selector, keccak256(change)));
        _op(address(account), abi.encodeCall(account.scheduleAdmin, (change)));
        vm.warp(_now() + DELAY - 1);
        vm.expectPartialRevert(AnnouncedAdmin.TooEarly.selector);
        account.executeAdmin(change);
        vm.warp(_now() + 1);
        vm.prank(address(0x1234));
        account.executeAdmin(change);
        eq(account.ownerSigner(), abi.encodePacked(uint8(0), thief), "owner");
        vm.expectRevert(abi.encodeWithSelector(AnnouncedAdmin.NotAnnounced.selector, keccak256(change)));
        account.executeAdmin(change);
    }

    function test_announcement_can_be_withdrawn_by_account_and_authority_only() public {
        bytes memory change = abi.encodeCall(account.setPrefundCaps, ([CAP, CAP, CAP]));
        for (uint256 i = 0; i < 2; ++i) {
            _op(address(account), abi.encodeCall(account.scheduleAdmin, (change)));
            vm.expectRevert(abi.encodeWithSelector(Account.AccountUnauthorized.selector, address(this)));
            account.cancelAdmin(keccak256(change));
            _as(
                i == 0 ? address(ENTRY_POINT) : address(authority),
                address(account),
                abi.encodeCall(account.cancelAdmin, (keccak256(change)))
            );
            eq(account.adminExecutableAt(keccak256(change)), 0, "withdrawn");
        }
        vm.expectRevert(abi.encodeWithSelector(AnnouncedAdmin.NotAnnounced.selector, keccak256(change)));
        _op(address(account), abi.encodeCall(account.cancelAdmin, (keccak256(change))));
    }

    function test_announcement_lapses_with_time_and_can_be_made_again() public {
        bytes memory change = abi.encodeCall(account.setPrefundCaps, ([CAP, CAP, CAP]));
        _op(address(account), abi.encodeCall(account.scheduleAdmin, (change)));
        vm.warp(_now() + DELAY + 14 days + 1);
        vm.expectRevert(abi.encodeWithSelector(AnnouncedAdmin.Lapsed.selector, keccak256(change)));
        account.executeAdmin(change);
        _announced(change);
        eq(account.prefundCaps()[2], CAP, "caps");
    }

    function test_nothing_can_be_armed_against_a_module_that_is_not_there() public {
        PlainModule module = new PlainModule();
        bytes memory removal = abi.encodeCall(account.uninstallModule, (2, address(module), ""));
        bytes memory force = abi.encodeCall(account.forceUninstallModule, (2, address(module), ""));
        vm.expectPartialRevert(ERC7579Utils.ERC7579UninstalledModule.selector);
        _op(address(account), abi.encodeCall(account.scheduleAdmin, (removal)));
        vm.expectPartialRevert(ERC7579Utils.ERC7579UninstalledModule.selector);
        _op(address(account), abi.encodeCall(account.scheduleAdmin, (force)));
        _install(address(account), 2, address(module), "");
        _op(address(account), abi.encodeCall(account.scheduleAdmin, (removal)));
        _op(address(account), abi.encodeCall(account.scheduleAdmin, (force)));
        vm.warp(_now() + DELAY);
        account.executeAdmin(removal);
        _install(address(account), 2, address(module), "");
        vm.expectRevert(abi.encodeWithSelector(AnnouncedAdmin.Lapsed.selector, keccak256(force)));
        account.executeAdmin(force); // announced before this installation
        eq(account.adminExecutableAt(keccak256(force)), 0, "lapsed");
    }

    function test_only_administrative_calls_can_be_announced() public {
        bytes4 selector = account.execute.selector;
        vm.expectRevert(abi.encodeWithSelector(AnnouncedAdmin.NotAdministrative.selector, selector));
        _op(address(account), abi.encodeCall(account.scheduleAdmin, (abi.encodePacked(selector))));
        vm.expectRevert(abi.encodeWithSelector(Account.AccountUnauthorized.selector, address(this)));
        account.scheduleAdmin("");
    }

    function test_upgrade_only_through_the_delay() public {
        RiskAccount next = new RiskAccount(ENTRY_POINT, address(validator), address(sessions));
        _announced(abi.encodeCall(account.upgradeToAndCall, (address(next), "")));
        bytes32 slot = 0x360894a13ba1a3210667c828492db98dca3e2076cc3735a920a3ca505d382bbc;
        eq(address(uint160(uint256(vm.load(address(account), slot)))), address(next), "implementation");
        (RiskState state,) = account.riskState();
        eq(uint256(state), 0, "state survives");
    }

    function test_one_announcement_opens_one_function_once() public {
        bytes memory change = abi.encodeCall(account.setOwner, (_ownerBytes()));
        RiskAccount next = new RiskAccount(ENTRY_POINT, address(validator), address(sessions));
        bytes memory upgrade = abi.encodeCall(account.upgradeToAndCall, (address(next), change));
        _op(address(account), abi.encodeCall(account.scheduleAdmin, (upgrade)));
        vm.warp(_now() + DELAY);
        vm.expectRevert(AnnouncedAdmin.OnlyAnnounced.selector);
        account.executeAdmin(upgrade);
        _announced(change);
        vm.expectRevert(AnnouncedAdmin.OnlyAnnounced.selector); // in the same transaction
        _execute(address(account), address(account), 0, change);
    }

    function test_authority_leaves_only_while_active() public {
        bytes memory removal = abi.encodeCall(account.uninstallModule, (2, address(authority), ""));
        bytes memory force = abi.encodeCall(account.forceUninstallModule, (2, address(authority), ""));
        bytes memory replace = abi.encodeCall(account.setRiskAuthority, (address(0)));
        _op(address(account), abi.encodeCall(account.scheduleAdmin, (removal)));
        _op(address(account), abi.encodeCall(account.scheduleAdmin, (force)));
        _op(address(account), abi.encodeCall(account.scheduleAdmin, (replace)));
        vm.warp(_now() + DELAY);
        _state(RiskState.REDUCE_ONLY);
        bytes4 closed = AccountStorage.NotInState.selector;
        vm.expectPartialRevert(closed);
        account.executeAdmin(removal);
        vm.expectPartialRevert(closed);
        account.executeAdmin(force);
        vm.expectPartialRevert(closed);
        account.executeAdmin(replace);
        _state(RiskState.ACTIVE);
        account.executeAdmin(removal);
        eq(account.riskAuthority(), address(0), "authority");
    }

    function test_authority_can_be_replaced_by_an_installed_executor_only() public {
        PlainModule next = new PlainModule();
        bytes memory replace = abi.encodeCall(account.setRiskAuthority, (address(next)));
        _op(address(account), abi.encodeCall(account.scheduleAdmin, (replace)));
        vm.warp(_now() + DELAY);
        vm.expectRevert(abi.encodeWithSelector(RiskAccount.AuthorityNotInstalled.selector, address(next)));
        account.executeAdmin(replace);
        _install(address(account), 2, address(next), "");
        _announced(replace);
        eq(account.riskAuthority(), address(next), "authority");
    }

    // ------------------------------------------------------------------ hooks and forced removal

    function test_a_hook_that_vetoes_everything_is_removed_by_force_after_the_delay() public {
        VetoHook hook = new VetoHook();
        _install(address(account), 4, address(hook), "");
        hook.setVeto(true);
        vm.expectRevert(VetoHook.Vetoed.selector);
        _execute(address(account), address(target), 0, "");
        bytes memory removal = abi.encodeCall(account.uninstallModule, (4, address(hook), ""));
        bytes memory force = abi.encodeCall(account.forceUninstallModule, (4, address(hook), ""));
        _op(address(account), abi.encodeCall(account.scheduleAdmin, (removal)));
        _op(address(account), abi.encodeCall(account.scheduleAdmin, (force)));
        vm.warp(_now() + DELAY);
        vm.expectRevert(VetoHook.Vetoed.selector);
        account.executeAdmin(removal);
        account.executeAdmin(force);
        eq(account.hook(), address(0), "hook");
        _execute(address(account), address(target), 0, "");
    }

    function test_hostile_modules_cannot_prevent_their_forced_removal() public {
        for (uint256 i = 0; i < 2; ++i) {
            HostileModule hostile = new HostileModule(i == 1);
            _install(address(account), 2, address(hostile), "");
            _install(address(account), 1, address(hostile), "");
            _install(address(account), 3, address(hostile), abi.encodePacked(bytes4(0x12345678)));
            _announced(abi.encodeCall(account.forceUninstallModule, (2, address(hostile), "")));
            _announced(abi.encodeCall(account.forceUninstallModule, (1, address(hostile), "")));
            bytes memory context = abi.encodePacked(bytes4(0x12345678));
            _announced(abi.encodeCall(account.forceUninstallModule, (3, address(hostile), context)));
            for (uint256 kind = 1; kind < 4; ++kind) {
                isTrue(!account.isModuleInstalled(kind, address(hostile), context), "removed");
            }
        }
    }

    function test_forced_removal_needs_gas_for_the_module() public {
        PlainModule module = new PlainModule();
        _install(address(account), 2, address(module), "");
        bytes memory force = abi.encodeCall(account.forceUninstallModule, (2, address(module), ""));
        _op(address(account), abi.encodeCall(account.scheduleAdmin, (force)));
        vm.warp(_now() + DELAY);
        vm.expectRevert(RiskAccount.InsufficientGas.selector);
        account.executeAdmin{gas: 230_000}(force);
        account.executeAdmin(force);
        eq(module.uninstalls(), 1, "module was told");
    }

    function test_the_hook_sees_active_executions_and_has_no_veto_over_the_way_out() public {
        VetoHook hook = new VetoHook();
        _install(address(account), 4, address(hook), "");
        _execute(address(account), address(target), 0, "");
        eq(hook.checks(), 1, "seen");
        hook.setVeto(true);
        _state(RiskState.FROZEN);
        _execute(address(account), cold, 1, "");
        eq(cold.balance, 1, "exit");
    }

    function test_modules_that_cannot_be_are_refused() public {
        address[3] memory bad = [address(0), address(account), address(ENTRY_POINT)];
        for (uint256 i = 0; i < 3; ++i) {
            vm.expectRevert(abi.encodeWithSelector(RiskAccount.InvalidModule.selector, bad[i]));
            _install(address(account), 2, bad[i], "");
        }
    }

    // ------------------------------------------------------------------ ERC-1271, ERC-165, receivers

    function _personal(bytes32 hash) private view returns (bytes32) {
        bytes32 structHash = keccak256(abi.encode(keccak256("PersonalSign(bytes prefixed)"), hash));
        return _typed(_domain("Seawall RiskAccount", address(account)), structHash);
    }

    function test_erc1271_is_answered_only_while_active_and_under_erc7739() public {
        bytes32 hash = keccak256("message");
        bytes memory good = abi.encodePacked(address(0), _sign(OWNER_KEY, _personal(hash)));
        eq(bytes32(account.isValidSignature(hash, good)), bytes32(bytes4(0x1626ba7e)), "nested");
        bytes memory raw = abi.encodePacked(address(0), _sign(OWNER_KEY, hash));
        eq(bytes32(account.isValidSignature(hash, raw)), bytes32(bytes4(0xffffffff)), "raw");
        bytes32 probe = 0x7739773977397739773977397739773977397739773977397739773977397739;
        eq(bytes32(account.isValidSignature(probe, "")), bytes32(bytes4(0x77390001)), "probe");
        for (uint8 i = 1; i < 3; ++i) {
            _state(RiskState(i));
            eq(bytes32(account.isValidSignature(hash, good)), bytes32(bytes4(0xffffffff)), "silent");
            eq(bytes32(account.isValidSignature(probe, "")), bytes32(bytes4(0xffffffff)), "probe silent");
        }
    }

    function test_erc1271_owner_signature_dies_with_the_native_path() public {
        bytes32 hash = keccak256("message");
        bytes memory good = abi.encodePacked(address(0), _sign(OWNER_KEY, _personal(hash)));
        _install(address(account), 1, address(validator), _riskData(""));
        eq(bytes32(account.isValidSignature(hash, good)), bytes32(bytes4(0xffffffff)), "owner alone");
        bytes memory unknown = abi.encodePacked(address(target), _sign(OWNER_KEY, _personal(hash)));
        eq(bytes32(account.isValidSignature(hash, unknown)), bytes32(bytes4(0xffffffff)), "no such validator");
    }

    function test_interfaces_and_identity() public {
        isTrue(account.supportsInterface(type(IRiskAccount).interfaceId), "IRiskAccount");
        isTrue(account.supportsInterface(type(IRiskState).interfaceId), "IRiskState");
        isTrue(account.supportsInterface(0x01ffc9a7), "ERC-165");
        isTrue(account.supportsInterface(0x4e2312e0), "ERC-1155 receiver");
        isTrue(account.supportsInterface(0x150b7a02), "ERC-721 receiver");
        isTrue(!account.supportsInterface(0xffffffff), "ERC-165 invalid");
        isTrue(account.supportsModule(1) && account.supportsModule(4) && !account.supportsModule(5), "module types");
        eq(bytes(account.accountId()), "seawall.risk-account.1.0.0", "id");
        eq(account.adminDelay(), DELAY, "delay");
        eq(account.prefundCaps()[1], CAP / 2, "caps");
        eq(bytes32(account.onERC721Received(cold, cold, 1, "")), bytes32(bytes4(0x150b7a02)), "ERC-721");
    }
}
