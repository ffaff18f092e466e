// SPDX-License-Identifier: MIT
pragma solidity ^0.8.26;

import {Ownable} from "@openzeppelin/contracts/access/Ownable.sol";
import {PaymasterERC20} from "@openzeppelin/contracts/account/paymaster/extensions/PaymasterERC20.sol";
import {IEntryPoint, IPaymaster, PackedUserOperation} from "@openzeppelin/contracts/interfaces/IERC4337.sol";
import {IERC20} from "@openzeppelin/contracts/token/ERC20/IERC20.sol";
import {OracleConfig} from "../src/interfaces/IStopLoss.sol";
import {OracleGuard} from "../src/libraries/OracleGuard.sol";
import {OracleWindow} from "../src/libraries/OracleWindow.sol";
import {ERC20Paymaster} from "../src/paymaster/ERC20Paymaster.sol";
import {AnyFeed} from "./OracleGuard.t.sol";
import {Deposits} from "./Paymaster.t.sol";
import {Coin} from "./Tokens.sol";
import {Assertions} from "./Vm.sol";

/// A token that refuses to pay out, or arrives with less than was sent, once it is told to.
contract TrapCoin is Coin(6) {
    address public trapped;
    uint256 public feeBps;

    function setFee(uint256 bps) external {
        feeBps = bps;
    }

    function trap(address who) external {
        trapped = who;
    }

    function _update(address from, address to, uint256 value) internal override {
        require(from != trapped || trapped == address(0), "trapped");
        super._update(from, to, value);
        if (feeBps != 0) super._update(to, address(0xFEE), value * feeBps / 10_000);
    }
}

/// A token that says no by its answer, and moves nothing.
contract FalseCoin is Coin(6) {
    bool public refuses;

    function refuse() external {
        refuses = true;
    }

    function transferFrom(address from, address to, uint256 value) public override returns (bool) {
        return !refuses && super.transferFrom(from, to, value);
    }
}

/// A token that tells whoever pays before it moves anything, as ERC-777 does.
contract TellingCoin is Coin(6) {
    function _update(address from, address to, uint256 value) internal override {
        if (from.code.length != 0) TwiceCrediting(from).paying();
        super._update(from, to, value);
    }
}

/// Lays in credit while it lays in credit.
contract TwiceCrediting {
    ERC20Paymaster private immutable PAYMASTER;
    IERC20 private immutable COIN;
    bool private _inside;

    constructor(ERC20Paymaster paymaster, IERC20 coin) {
        (PAYMASTER, COIN) = (paymaster, coin);
        coin.approve(address(paymaster), type(uint256).max);
    }

    function begin() external {
        PAYMASTER.addCredit(COIN, 100e6);
    }

    function paying() external {
        if (_inside) return;
        _inside = true;
        PAYMASTER.addCredit(COIN, 100e6);
    }
}

/// Both libraries on one feed.
contract Readers {
    function guarded(OracleConfig memory config) external view returns (uint256 price, bytes4 problem) {
        return OracleGuard.read(config);
    }

    function window(OracleConfig memory config) external view returns (uint256, uint48, uint48, bytes4) {
        return OracleWindow.read(config);
    }
}

contract ERC20PaymasterTest is Assertions {
    uint256 private constant GUARANTOR_KEY = 0x6A;
    uint256 private constant NO_LIMIT = type(uint256).max;
    uint256 private constant MAX_FEE = 10 gwei;
    uint256 private constant MAX_COST = 500_000 * MAX_FEE;
    uint128 private constant POST_OP_GAS = 120_000;
    address private constant SENDER = address(0x5E4D);
    bytes32 private constant HASH = keccak256("operation");
    address private guarantor = vm.addr(GUARANTOR_KEY);
    Deposits private entryPoint = new Deposits();
    AnyFeed private ethFeed = new AnyFeed();
    AnyFeed private coinFeed = new AnyFeed();
    AnyFeed private sequencer = new AnyFeed();
    TrapCoin private coin = new TrapCoin();
    ERC20Paymaster private paymaster;

    function setUp() public {
        vm.warp(1_700_000_000);
        ethFeed.set(1, 2500e8, _now(), 1, 8);
        coinFeed.set(1, 1e8, _now(), 1, 8);
        sequencer.set(1, 0, _now() - 2 hours, 1, 0);
        paymaster = new ERC20Paymaster(IEntryPoint(address(entryPoint)), address(this), _oracle(ethFeed));
        _take(coin);
        coin.mint(SENDER, 1000e6);
        coin.mint(guarantor, 1000e6);
        _approve(coin, SENDER, NO_LIMIT);
        _approve(coin, guarantor, NO_LIMIT);
    }

    function _oracle(AnyFeed feed) private view returns (OracleConfig memory) {
        return OracleConfig({
            feed: address(feed),
            heartbeat: 1 hours,
            sequencerFeed: address(sequencer),
            gracePeriod: 1 hours,
            minPrice: 0.5e18,
            maxPrice: 100_000e18,
            maxDeviationBps: 0,
            deviationPatience: 0
        });
    }

    function _terms(uint16 surchargeBps) private view returns (ERC20Paymaster.Terms memory) {
        return ERC20Paymaster.Terms(_oracle(coinFeed), 1e6, surchargeBps);
    }

    function _take(IERC20 token) private {
        paymaster.setTerms(token, _terms(500));
    }

    function _approve(IERC20 token, address from, uint256 amount) private {
        vm.prank(from);
        token.approve(address(paymaster), amount);
    }

    function _layIn() private {
        vm.prank(guarantor);
        paymaster.addCredit(coin, 1000e6);
    }

    function _op(bytes memory data) private view returns (PackedUserOperation memory op) {
        op.sender = SENDER;
        op.gasFees = bytes32(MAX_FEE);
        op.paymasterAndData = abi.encodePacked(address(paymaster), uint128(200_000), POST_OP_GAS, data);
    }

    function _plain(IERC20 token, uint256 worst) private view returns (PackedUserOperation memory) {
        return _op(abi.encodePacked(token, worst));
    }

    function _guaranteed(uint256 key, uint48 validUntil) private view returns (PackedUserOperation memory op) {
        bytes memory head = abi.encodePacked(coin, NO_LIMIT, guarantor, validUntil, uint48(0));
        op = _op(abi.encodePacked(head, new bytes(65)));
        (uint8 v, bytes32 r, bytes32 s) = vm.sign(key, paymaster.guaranteeHash(op));
        op.paymasterAndData = _op(abi.encodePacked(head, r, s, v)).paymasterAndData;
    }

    function _validate(PackedUserOperation memory op) private returns (bytes memory context, uint256 data) {
        vm.prank(address(entryPoint));
        return paymaster.validatePaymasterUserOp(op, HASH, MAX_COST);
    }

    function _refused(PackedUserOperation memory op) private returns (bool) {
        (bytes memory context, uint256 data) = _validate(op);
        return uint160(data) == 1 && context.length == 0;
    }

    function _postOp(bytes memory context, uint256 cost) private {
        vm.prank(address(entryPoint));
        paymaster.postOp(IPaymaster.PostOpMode.opSucceeded, context, cost, MAX_FEE);
    }

    /// Tokens for so much gas cost at 2,500 and 5 %, rounded up.
    function _tokens(uint256 wei_) private pure returns (uint256) {
        return (wei_ * 2625e6 + 1e18 - 1) / 1e18;
    }

    // ---- price

    function test_charges_the_oracles_price_and_the_surcharge_and_gives_back_the_rest() public {
        (bytes memory context, uint256 data) = _validate(_plain(coin, 2625e6));
        eq(data >> 208, _now(), "not before the newest answer");
        eq(uint48(data >> 160), _now() + 1 hours, "until the feeds are stale");
        eq(uint160(data), 0, "valid");
        uint256 taken = 1000e6 - coin.balanceOf(SENDER);
        eq(taken, _tokens(MAX_COST + (45_000 + POST_OP_GAS / 10) * MAX_FEE), "the most it can cost");
        _postOp(context, MAX_COST / 2);
        uint256 kept = _tokens(MAX_COST / 2 + (45_000 + POST_OP_GAS / 10) * MAX_FEE);
        eq(1000e6 - coin.balanceOf(SENDER), kept, "what it cost");
        eq(coin.balanceOf(address(paymaster)), kept, "earned");
    }

    function test_fuzz_what_is_kept_is_never_worth_less_than_the_gas(
        uint96 eth,
        uint64 usd,
        uint16 surcharge,
        uint64 cost
    ) public {
        eth = uint96(bound(eth, 1e8, 90_000e8));
        usd = uint64(bound(usd, 0.5e8, 1000e8));
        surcharge = uint16(bound(surcharge, 0, paymaster.MAX_SURCHARGE_BPS()));
        uint256 spent = bound(cost, 0, MAX_COST);
        ethFeed.set(1, int256(uint256(eth)), _now(), 1, 8);
        coinFeed.set(1, int256(uint256(usd)), _now(), 1, 8);
        paymaster.setTerms(coin, _terms(surcharge));
        coin.mint(SENDER, 1e24);
        (bytes memory context,) = _validate(_plain(coin, NO_LIMIT));
        _postOp(context, spent);
        uint256 kept = coin.balanceOf(address(paymaster));
        isTrue(kept * usd * 1e12 >= spent * eth, "covers the gas");
        uint256 most = (spent + (45_000 + POST_OP_GAS / 10) * MAX_FEE) * eth / 1e12 * (10_000 + surcharge) / 10_000;
        isTrue(kept * usd <= most + 3 * usd, "and no more than the surcharge");
    }

    function test_a_price_that_cannot_be_trusted_refuses_the_operation() public {
        isTrue(!_refused(_plain(coin, NO_LIMIT)), "sound");
        AnyFeed[2] memory feeds = [ethFeed, coinFeed];
        for (uint256 i = 0; i < 2; ++i) {
            int256[4] memory answers = [int256(0), -1, 0.4e8, 200_000e8];
            for (uint256 j = 0; j < 4; ++j) {
                feeds[i].set(1, answers[j], _now(), 1, 8);
                isTrue(_refused(_plain(coin, NO_LIMIT)), "absurd");
            }
            feeds[i].set(2, 1000e8, _now(), 1, 8);
            isTrue(_refused(_plain(coin, NO_LIMIT)), "carried over");
            feeds[i].set(1, 1000e8, 0, 1, 8);
            isTrue(_refused(_plain(coin, NO_LIMIT)), "incomplete");
            feeds[i].set(1, 1000e8, _now(), 1, 8);
            isTrue(!_refused(_plain(coin, NO_LIMIT)), "sound again");
        }
        sequencer.set(1, 1, _now(), 1, 0);
        isTrue(_refused(_plain(coin, NO_LIMIT)), "sequencer down");
        sequencer.set(1, 0, _now() - 10, 1, 0);
        (, uint256 data) = _validate(_plain(coin, NO_LIMIT));
        eq(data >> 208, _now() - 10 + 1 hours, "not before the sequencer's grace is over");
    }

    function test_a_stale_price_is_one_whose_window_is_over() public {
        coinFeed.set(1, 1e8, _now() - 3 hours, 1, 8);
        (, uint256 data) = _validate(_plain(coin, NO_LIMIT));
        eq(uint48(data >> 160), _now() - 2 hours, "over since two hours, which the entry point sees");
    }

    function test_fuzz_the_window_says_what_the_guard_says_at_every_time(
        uint80 round,
        int128 answer,
        uint40 age,
        uint80 answeredIn,
        uint8 decimals,
        bool down,
        uint32 up
    ) public {
        Readers readers = new Readers();
        decimals = uint8(bound(decimals, 0, 24));
        uint256 updatedAt = _now() - bound(age, 0, 3 hours) + 30 minutes;
        ethFeed.set(round, answer, updatedAt, answeredIn, decimals);
        sequencer.set(1, down ? int256(1) : int256(0), _now() - bound(up, 0, 3 hours), 1, 0);
        (uint256 price, bytes4 problem) = readers.guarded(_oracle(ethFeed));
        (uint256 windowed, uint48 after_, uint48 until, bytes4 why) = readers.window(_oracle(ethFeed));
        bool open = why == 0 && after_ <= _now() && _now() <= until;
        isTrue(open == (problem == 0), "open when the guard has no objection");
        if (open) eq(windowed, price, "price");
    }

    function test_the_senders_worst_price_binds() public {
        isTrue(_refused(_plain(coin, 2625e6 - 1)), "worse");
        isTrue(!_refused(_plain(coin, 2625e6)), "at it");
    }

    function test_a_token_without_terms_and_malformed_data_are_refused_without_a_revert() public {
        isTrue(_refused(_plain(new Coin(6), NO_LIMIT)), "unknown token");
        isTrue(_refused(_op("")), "empty");
        isTrue(_refused(_op(abi.encodePacked(coin, NO_LIMIT, uint8(0)))), "longer");
        paymaster.setTerms(coin, ERC20Paymaster.Terms(_oracle(coinFeed), 0, 0));
        isTrue(_refused(_plain(coin, NO_LIMIT)), "no more");
        isTrue(paymaster.termsOf(coin).units == 0, "terms");
    }

    // ---- griefing

    function test_without_balance_or_allowance_it_is_refused() public {
        _approve(coin, SENDER, 1);
        isTrue(_refused(_plain(coin, NO_LIMIT)), "allowance");
        _approve(coin, SENDER, NO_LIMIT);
        vm.prank(SENDER);
        coin.transfer(address(1), 1000e6);
        isTrue(_refused(_plain(coin, NO_LIMIT)), "balance");
    }

    function test_an_allowance_that_is_withdrawn_while_the_operation_runs_changes_nothing() public {
        (bytes memory context,) = _validate(_plain(coin, NO_LIMIT));
        _approve(coin, SENDER, 0);
        uint256 left = coin.balanceOf(SENDER);
        vm.prank(SENDER);
        coin.transfer(address(1), left);
        _postOp(context, MAX_COST);
        eq(coin.balanceOf(address(paymaster)), _tokens(MAX_COST + (45_000 + POST_OP_GAS / 10) * MAX_FEE), "paid");
    }

    function test_too_little_gas_for_the_refund_is_refused_and_too_much_is_charged() public {
        PackedUserOperation memory op = _plain(coin, NO_LIMIT);
        bytes memory data = abi.encodePacked(coin, NO_LIMIT);
        op.paymasterAndData = abi.encodePacked(address(paymaster), uint128(200_000), POST_OP_GAS - 1, data);
        isTrue(_refused(op), "too little");
        op.paymasterAndData = abi.encodePacked(address(paymaster), uint128(200_000), uint128(10_000_000), data);
        _validate(op);
        uint256 penalty = 1_000_000;
        eq(1000e6 - coin.balanceOf(SENDER), _tokens(MAX_COST + (45_000 + penalty) * MAX_FEE), "with the penalty");
    }

    function test_what_postop_needs_stays_below_what_is_charged_for_it() public {
        _layIn();
        (bytes memory plain,) = _validate(_plain(coin, NO_LIMIT));
        (bytes memory guaranteed,) = _validate(_guaranteed(GUARANTOR_KEY, 0));
        uint256 before = gasleft();
        _postOp(plain, MAX_COST / 2);
        isTrue(before - gasleft() < 45_000, "plain");
        before = gasleft();
        _postOp(guaranteed, MAX_COST / 2);
        isTrue(before - gasleft() < 80_000, "guaranteed");
    }

    function test_a_token_that_takes_a_fee_on_transfer_is_refused() public {
        isTrue(!_refused(_plain(coin, NO_LIMIT)), "honest");
        coin.setFee(1);
        isTrue(_refused(_plain(coin, NO_LIMIT)), "one basis point");
    }

    function test_a_token_that_answers_false_is_refused() public {
        FalseCoin liar = new FalseCoin();
        _take(liar);
        liar.mint(SENDER, 1000e6);
        _approve(liar, SENDER, NO_LIMIT);
        isTrue(!_refused(_plain(liar, NO_LIMIT)), "honest");
        liar.refuse();
        isTrue(_refused(_plain(liar, NO_LIMIT)), "false");
    }

    function test_a_token_that_refuses_the_refund_costs_the_sender_and_not_the_paymaster() public {
        (bytes memory context,) = _validate(_plain(coin, NO_LIMIT));
        uint256 taken = coin.balanceOf(address(paymaster));
        coin.trap(address(paymaster));
        vm.prank(address(entryPoint));
        vm.expectPartialRevert(PaymasterERC20.PaymasterERC20FailedRefund.selector);
        paymaster.postOp(IPaymaster.PostOpMode.opSucceeded, context, MAX_COST / 2, MAX_FEE);
        eq(coin.balanceOf(address(paymaster)), taken, "prefund kept");
    }

    // ---- guarantor

    /// What a guaranteed operation costs in the tests below.
    function _guaranteedCost() private pure returns (uint256) {
        return _tokens(MAX_COST / 2 + (45_000 + POST_OP_GAS / 10) * MAX_FEE) + _tokens(35_000 * MAX_FEE);
    }

    function test_a_guarantor_advances_and_the_sender_pays_him_back() public {
        _layIn();
        vm.prank(SENDER);
        coin.transfer(address(1), 1000e6); // nothing yet: the operation brings it
        (bytes memory context, uint256 data) = _validate(_guaranteed(GUARANTOR_KEY, uint48(_now() + 60)));
        eq(uint48(data >> 160), _now() + 60, "the guarantor's time binds too");
        isTrue(paymaster.creditOf(coin, guarantor) < 1000e6, "advanced");
        coin.mint(SENDER, 500e6);
        _postOp(context, MAX_COST / 2);
        eq(paymaster.creditOf(coin, guarantor), 1000e6, "whole again");
        eq(500e6 - coin.balanceOf(SENDER), _guaranteedCost(), "the sender paid");
    }

    function test_a_sender_who_does_not_pay_back_costs_the_guarantor_and_not_the_paymaster() public {
        _layIn();
        (bytes memory context,) = _validate(_guaranteed(GUARANTOR_KEY, 0));
        _approve(coin, SENDER, 0);
        vm.expectEmit();
        emit ERC20Paymaster.GuaranteeUnpaid(coin, guarantor, SENDER, _guaranteedCost());
        _postOp(context, MAX_COST / 2);
        eq(1000e6 - paymaster.creditOf(coin, guarantor), _guaranteedCost(), "the guarantor's loss");
        paymaster.withdrawTokens(coin, address(2), type(uint256).max);
        eq(coin.balanceOf(address(2)), _guaranteedCost(), "earned");
    }

    function test_a_fee_on_what_is_paid_back_is_the_guarantors_loss() public {
        _layIn();
        (bytes memory context,) = _validate(_guaranteed(GUARANTOR_KEY, 0));
        coin.setFee(100);
        _postOp(context, MAX_COST / 2);
        eq(1000e6 - paymaster.creditOf(coin, guarantor), _guaranteedCost() / 100, "one percent is missing");
    }

    function test_a_credit_that_is_too_small_or_the_senders_own_guarantees_nothing() public {
        isTrue(_refused(_guaranteed(GUARANTOR_KEY, 0)), "no credit");
        _layIn();
        vm.prank(guarantor);
        paymaster.withdrawCredit(coin, guarantor, 990e6);
        isTrue(_refused(_guaranteed(GUARANTOR_KEY, 0)), "too small");
        vm.prank(guarantor);
        paymaster.addCredit(coin, 990e6);
        isTrue(!_refused(_guaranteed(GUARANTOR_KEY, 0)), "enough");
        bytes memory head = abi.encodePacked(coin, NO_LIMIT, guarantor, uint48(0), uint48(0));
        PackedUserOperation memory op = _op(abi.encodePacked(head, new bytes(65)));
        op.sender = guarantor;
        (uint8 v, bytes32 r, bytes32 s) = vm.sign(GUARANTOR_KEY, paymaster.guaranteeHash(op));
        op.paymasterAndData = _op(abi.encodePacked(head, r, s, v)).paymasterAndData;
        isTrue(_refused(op), "his own operation");
    }

    function test_credit_counts_once_whatever_the_token_calls_back() public {
        TellingCoin telling = new TellingCoin();
        TwiceCrediting attacker = new TwiceCrediting(paymaster, telling);
        telling.mint(address(attacker), 200e6);
        attacker.begin();
        eq(telling.balanceOf(address(paymaster)), 200e6, "laid in");
        eq(paymaster.creditOf(telling, address(attacker)), 200e6, "credited");
    }

    function test_credit_that_arrives_with_less_is_refused() public {
        coin.setFee(100);
        vm.expectRevert(abi.encodeWithSelector(ERC20Paymaster.InsufficientCredit.selector, 99e6));
        vm.prank(guarantor);
        paymaster.addCredit(coin, 100e6);
    }

    function test_fuzz_the_owner_takes_no_guarantors_credit_and_a_guarantor_no_more_than_his(
        uint96 taken,
        bool paysBack
    ) public {
        _layIn();
        (bytes memory context,) = _validate(_guaranteed(GUARANTOR_KEY, 0));
        vm.expectRevert(abi.encodeWithSelector(ERC20Paymaster.InsufficientCredit.selector, 0));
        paymaster.withdrawTokens(coin, address(2), 1); // while it is advanced
        if (!paysBack) _approve(coin, SENDER, 0);
        _postOp(context, MAX_COST / 2);
        uint256 credit = paymaster.creditOf(coin, guarantor);
        vm.expectRevert(abi.encodeWithSelector(ERC20Paymaster.InsufficientCredit.selector, credit));
        vm.prank(guarantor);
        paymaster.withdrawCredit(coin, guarantor, credit + 1);
        uint256 part = uint256(taken) % (credit + 1);
        vm.prank(guarantor);
        paymaster.withdrawCredit(coin, guarantor, part);
        paymaster.withdrawTokens(coin, address(2), type(uint256).max);
        eq(coin.balanceOf(address(2)), _guaranteedCost(), "earned, exactly");
        vm.prank(guarantor);
        paymaster.withdrawCredit(coin, guarantor, NO_LIMIT);
        eq(coin.balanceOf(guarantor), credit, "all of it");
        eq(coin.balanceOf(address(paymaster)), 0, "nothing stays behind");
    }

    function test_nobody_is_made_a_guarantor_without_his_signature_over_this_operation() public {
        _layIn();
        isTrue(_refused(_guaranteed(0xBAD, 0)), "another's");
        PackedUserOperation memory op = _guaranteed(GUARANTOR_KEY, 0);
        for (uint256 i = 0; i < 7; ++i) {
            PackedUserOperation memory bent = abi.decode(abi.encode(op), (PackedUserOperation));
            if (i == 0) bent.nonce = 1;
            if (i == 1) bent.callData = hex"01";
            if (i == 2) bent.initCode = hex"01";
            if (i == 3) bent.preVerificationGas = 1;
            if (i == 4) bent.accountGasLimits = bytes32(uint256(1));
            if (i == 5) bent.gasFees = bytes32(MAX_FEE + 1);
            if (i == 6) bent.sender = address(2);
            isTrue(_refused(bent), "another operation");
        }
        isTrue(_refused(_guaranteed(GUARANTOR_KEY, uint48(1 << 47))), "block numbers for times");
        isTrue(!_refused(op), "his own");
    }

    // ---- owner

    function test_terms_that_could_cheat_or_never_work_are_refused() public {
        for (uint256 i = 0; i < 6; ++i) {
            ERC20Paymaster.Terms memory terms = _terms(500);
            if (i == 0) terms.surchargeBps = 2001;
            if (i == 1) terms.oracle.feed = address(1);
            if (i == 2) terms.oracle.heartbeat = 0;
            if (i == 3) terms.oracle.minPrice = 0;
            if (i == 4) terms.oracle.maxPrice = terms.oracle.minPrice - 1;
            if (i == 5) terms.oracle.maxPrice = type(uint128).max;
            vm.expectRevert(ERC20Paymaster.InvalidTerms.selector);
            paymaster.setTerms(coin, terms);
            if (i == 0) continue;
            vm.expectRevert(ERC20Paymaster.InvalidTerms.selector);
            paymaster.setNativeOracle(terms.oracle);
        }
    }

    function test_only_the_owner_changes_terms_and_takes_money_and_only_the_entry_point_asks() public {
        bytes[7] memory calls = [
            abi.encodeCall(paymaster.setTerms, (coin, _terms(0))),
            abi.encodeCall(paymaster.setNativeOracle, (_oracle(ethFeed))),
            abi.encodeCall(paymaster.withdrawTokens, (coin, address(2), 1)),
            abi.encodeCall(paymaster.withdraw, (payable(address(2)), 1)),
            abi.encodeCall(paymaster.addStake, (1)),
            abi.encodeCall(paymaster.unlockStake, ()),
            abi.encodeCall(paymaster.withdrawStake, (payable(address(2))))
        ];
        for (uint256 i = 0; i < calls.length; ++i) {
            vm.prank(address(0xBAD));
            (bool success, bytes memory why) = address(paymaster).call(calls[i]);
            isTrue(!success && bytes4(why) == Ownable.OwnableUnauthorizedAccount.selector, "owner only");
        }
        vm.expectRevert();
        paymaster.validatePaymasterUserOp(_plain(coin, NO_LIMIT), HASH, MAX_COST);
        vm.expectRevert();
        paymaster.postOp(IPaymaster.PostOpMode.opSucceeded, "", 0, 0);
    }

    function test_the_owner_takes_what_was_earned_and_manages_deposit_and_stake() public {
        _validate(_plain(coin, NO_LIMIT));
        uint256 earned = coin.balanceOf(address(paymaster));
        paymaster.withdrawTokens(coin, address(2), type(uint256).max);
        eq(coin.balanceOf(address(2)), earned, "tokens");
        vm.deal(address(this), 10 ether);
        paymaster.deposit{value: 3 ether}();
        paymaster.withdraw(payable(address(2)), 1 ether);
        eq(entryPoint.deposited(), 2 ether, "deposit");
        paymaster.addStake{value: 1 ether}(1);
        eq(entryPoint.staked(), 1 ether, "stake");
        paymaster.unlockStake();
        isTrue(entryPoint.unlocked(), "unlocked");
        paymaster.setNativeOracle(_oracle(coinFeed));
        eq(paymaster.nativeOracle().feed, address(coinFeed), "feed");
    }
}
