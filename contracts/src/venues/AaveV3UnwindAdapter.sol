// SPDX-License-Identifier: MIT
pragma solidity ^0.8.26;

import {Execution} from "@openzeppelin/contracts/interfaces/draft-IERC7579.sol";
import {IERC20Metadata} from "@openzeppelin/contracts/token/ERC20/extensions/IERC20Metadata.sol";
import {Math} from "@openzeppelin/contracts/utils/math/Math.sol";
import {ILendingAdapter} from "../interfaces/ILendingAdapter.sol";
import {IVenueAdapter} from "../interfaces/IVenueAdapter.sol";
import {UniswapV3Adapter} from "./UniswapV3Adapter.sol";

/// @title Collateral at a lending venue, unwound through one Uniswap v3 pool
/// @notice The position is what the account has supplied of one asset, held against what it owes in another; `market` is
/// abi.encode(address collateral, address debt, uint24 fee). A reduction withdraws collateral, sells it for the debt's asset and repays with
/// the least that the sale must bring; what it brings beyond that, and what is left once the debt is repaid, stays with the account.
/// @dev While debt is owed only so much collateral can leave at once, so a reduction is made of rounds, each of which frees collateral for the
/// next. The nearer the health is to 1, the less they reach; nothing at or below `WITHDRAWAL_FLOOR`. `debt` of a position is in units of the
/// debt's asset (1e18 = one), which is the quote.
contract AaveV3UnwindAdapter is UniswapV3Adapter {
    /// Health factor that no withdrawal goes below on the way.
    uint256 public constant WITHDRAWAL_FLOOR = 1.005e18;
    uint256 private constant MAX_ROUNDS = 10;
    uint256 private constant CALLS_A_ROUND = 5;
    /// A round of less than this share of what was asked costs more than it brings.
    uint256 private constant DUST_SHARE = 1000;
    uint256 private constant BPS = 10_000;

    ILendingAdapter public immutable lending;

    /// What is left as the rounds go on. Amounts in token units, values in the venue's unit of account.
    /// @param others value of the account's debts in other assets.
    /// @param weighted value of the account's collateral, each part at its liquidation threshold.
    struct Loan {
        uint256 supplied;
        uint256 owed;
        uint256 others;
        uint256 weighted;
        uint256 thresholdBps;
        uint256 collateralPrice;
        uint256 debtPrice;
        uint256 collateralUnit;
        uint256 debtUnit;
    }

    /// @param lending_ ILendingAdapter of the venue. Others as in UniswapV3Adapter.
    constructor(address lending_, address factory_, address router_, uint32 twapSeconds_)
        UniswapV3Adapter(factory_, router_, twapSeconds_)
    {
        lending = ILendingAdapter(lending_);
    }

    /// @inheritdoc IVenueAdapter
    function position(address account, bytes calldata market) external view override returns (Position memory p) {
        Market memory m = _market(market);
        ILendingAdapter.Market memory at = lending.market(account, m.asset, m.quote);
        uint256 size = _toWad(at.supplied, IERC20Metadata(m.asset).decimals());
        p.size = int256(size);
        if (size != 0) p.notional = Math.mulDiv(size, _meanPrice(m), 1e18);
        p.debt = _toWad(at.owed, IERC20Metadata(m.quote).decimals());
    }

    /// @inheritdoc IVenueAdapter
    /// @dev May reduce by less than asked, as far as the debt lets collateral go.
    function reduceCalls(address account, bytes calldata market, uint256 size, uint256 limitPrice)
        external
        view
        override
        returns (Execution[] memory calls)
    {
        Market memory m = _market(market);
        Loan memory loan = _loan(account, m);
        uint8 decimals = IERC20Metadata(m.asset).decimals();
        uint256 whole = _toWad(loan.supplied, decimals);
        uint256 asked = size == whole ? loan.supplied : _fromWad(size, decimals, Math.Rounding.Floor);
        if (size > whole || asked == 0) revert NotReducing(whole, size);

        calls = new Execution[](MAX_ROUNDS * CALLS_A_ROUND + 1);
        uint256 count = 0;
        uint256 left = asked;
        for (uint256 i = 0; i < MAX_ROUNDS && left != 0; ++i) {
            uint256 taken = Math.min(left, _free(loan));
            if (taken <= 1 || taken < asked / DUST_SHARE) break;
            bool last = taken == loan.supplied;
            // The venue may round what it takes off a balance up by one unit; the last withdrawal is of whatever there is.
            uint256 sold = last ? taken : taken - 1;
            uint256 minimum = _minimumOut(m, _toWad(sold, decimals), limitPrice);
            calls[count++] = lending.withdrawCalls(account, m.asset, last ? type(uint256).max : sold)[0];
            (calls[count], calls[count + 1]) = _sale(m, account, sold, minimum);
            count += 2;
            left -= taken;
            _took(loan, taken);
            count = _repay(loan, account, m.quote, minimum, i, calls, count);
        }
        if (count == 0) revert NotReducing(whole, size);
        assembly ("memory-safe") {
            mstore(calls, count)
        }
    }

    /// @dev Add the calls that repay from `proceeds`. Every round before may have left a unit by the venue's rounding: the payment that ends the
    /// debt offers that much more, of which the venue takes what is owed, and takes the rest of the allowance back.
    function _repay(
        Loan memory loan,
        address account,
        address asset,
        uint256 proceeds,
        uint256 rounds,
        Execution[] memory calls,
        uint256 count
    ) private view returns (uint256) {
        if (loan.owed == 0) return count;
        bool all = proceeds > loan.owed + rounds;
        uint256 paid = all ? loan.owed + rounds + 1 : Math.min(proceeds, loan.owed - 1);
        if (paid == 0) return count;
        Execution[] memory repay = lending.repayCalls(account, asset, paid);
        (calls[count], calls[count + 1]) = (repay[0], repay[1]);
        count += 2;
        loan.owed = all ? 0 : loan.owed - paid;
        if (all) calls[count++] = lending.repayCalls(account, asset, 0)[0];
        return count;
    }

    function _loan(address account, Market memory m) private view returns (Loan memory loan) {
        ILendingAdapter.Market memory at = lending.market(account, m.asset, m.quote);
        ILendingAdapter.Health memory h = lending.health(account);
        (loan.supplied, loan.owed, loan.thresholdBps) = (at.supplied, at.owed, at.thresholdBps);
        (loan.collateralPrice, loan.debtPrice) = (at.collateralPrice, at.debtPrice);
        loan.collateralUnit = 10 ** IERC20Metadata(m.asset).decimals();
        loan.debtUnit = 10 ** IERC20Metadata(m.quote).decimals();
        loan.weighted = h.collateral * h.thresholdBps / BPS;
        uint256 own = _debtValue(loan, Math.Rounding.Floor); // as the venue rounds
        loan.others = h.debt > own ? h.debt - own : 0;
    }

    /// @dev Collateral units that may leave now: (collateral x threshold - floor x debt) / (price x its own threshold).
    function _free(Loan memory loan) private pure returns (uint256) {
        uint256 debt = loan.others + _debtValue(loan, Math.Rounding.Ceil);
        if (debt == 0 || loan.thresholdBps == 0) return loan.supplied;
        uint256 kept = Math.mulDiv(debt, WITHDRAWAL_FLOOR, 1e18, Math.Rounding.Ceil);
        if (loan.weighted <= kept) return 0;
        uint256 value = Math.mulDiv(loan.weighted - kept, BPS, loan.thresholdBps);
        return Math.min(loan.supplied, Math.mulDiv(value, loan.collateralUnit, loan.collateralPrice));
    }

    function _debtValue(Loan memory loan, Math.Rounding rounding) private pure returns (uint256) {
        return Math.mulDiv(loan.owed, loan.debtPrice, loan.debtUnit, rounding);
    }

    function _took(Loan memory loan, uint256 taken) private pure {
        uint256 value = Math.mulDiv(taken, loan.collateralPrice, loan.collateralUnit, Math.Rounding.Ceil);
        uint256 weight = Math.mulDiv(value, loan.thresholdBps, BPS, Math.Rounding.Ceil);
        loan.weighted = loan.weighted > weight ? loan.weighted - weight : 0;
        loan.supplied -= taken;
    }
}
