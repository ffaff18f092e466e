// SPDX-License-Identifier: MIT
pragma solidity ^0.8.26;

import {Execution} from "@openzeppelin/contracts/interfaces/draft-IERC7579.sol";
import {Math} from "@openzeppelin/contracts/utils/math/Math.sol";
import {IVenueAdapter} from "../interfaces/IVenueAdapter.sol";

/// @dev What we call of Perpetual Protocol v2, written from its public ABI.
interface IPerpClearingHouse {
    struct OpenPositionParams {
        address baseToken;
        bool isBaseToQuote;
        bool isExactInput;
        uint256 amount;
        uint256 oppositeAmountBound;
        uint256 deadline;
        uint160 sqrtPriceLimitX96;
        bytes32 referralCode;
    }

    struct ClosePositionParams {
        address baseToken;
        uint160 sqrtPriceLimitX96;
        uint256 oppositeAmountBound;
        uint256 deadline;
        bytes32 referralCode;
    }

    function getAccountBalance() external view returns (address);
    function getExchange() external view returns (address);
    function openPosition(OpenPositionParams calldata params) external returns (uint256 base, uint256 quote);
    function closePosition(ClosePositionParams calldata params) external returns (uint256 base, uint256 quote);
}

interface IPerpAccountBalance {
    function getTakerPositionSize(address trader, address baseToken) external view returns (int256);
    function getTakerOpenNotional(address trader, address baseToken) external view returns (int256);
    function getMarkPrice(address baseToken) external view returns (uint256);
}

interface IPerpExchange {
    function getMarketRegistry() external view returns (address);
    function getSqrtMarketTwapX96(address baseToken, uint32 twapInterval) external view returns (uint160);
}

interface IPerpMarketRegistry {
    function hasPool(address baseToken) external view returns (bool);
}

interface IPerpBaseToken {
    function getIndexPrice(uint256 interval) external view returns (uint256);
}

/// @title Perpetual Protocol v2
/// @notice Taker positions only: liquidity an account provides as a maker is not seen. Everything at the venue has 18 decimals.
contract PerpV2Adapter is IVenueAdapter {
    error UnknownMarket(bytes market);
    error NotReducing(int256 position, uint256 size);
    error InvalidLimit(uint256 limitPrice);

    IPerpClearingHouse public immutable clearingHouse;
    IPerpAccountBalance public immutable accountBalance;
    IPerpExchange public immutable exchange;
    IPerpMarketRegistry public immutable marketRegistry;
    /// Seconds over which `venuePrice` is the mean; at least 10, below which the venue would answer its spot price.
    uint32 public immutable twapSeconds;

    /// @param clearingHouse_ the venue's entry; its other contracts are read from it once.
    constructor(address clearingHouse_, uint32 twapSeconds_) {
        if (twapSeconds_ < 10) revert InvalidLimit(twapSeconds_);
        clearingHouse = IPerpClearingHouse(clearingHouse_);
        accountBalance = IPerpAccountBalance(clearingHouse.getAccountBalance());
        exchange = IPerpExchange(clearingHouse.getExchange());
        marketRegistry = IPerpMarketRegistry(exchange.getMarketRegistry());
        twapSeconds = twapSeconds_;
    }

    /// @inheritdoc IVenueAdapter
    /// @dev Debt: of a long the quote it was bought with, of a short the base it sold, at the index price.
    function position(address account, bytes calldata market) external view returns (Position memory p) {
        address base = _base(market);
        p.size = accountBalance.getTakerPositionSize(account, base);
        if (p.size == 0) return p;
        uint256 size = _abs(p.size);
        p.notional = Math.mulDiv(size, accountBalance.getMarkPrice(base), 1e18);
        if (p.size < 0) {
            p.debt = Math.mulDiv(size, IPerpBaseToken(base).getIndexPrice(0), 1e18, Math.Rounding.Ceil);
        } else {
            int256 quote = accountBalance.getTakerOpenNotional(account, base);
            p.debt = quote < 0 ? uint256(-quote) : 0;
        }
    }

    /// @inheritdoc IVenueAdapter
    function venuePrice(bytes calldata market) external view returns (uint256) {
        uint256 sqrtPrice = exchange.getSqrtMarketTwapX96(_base(market), twapSeconds);
        return Math.mulDiv(Math.mulDiv(sqrtPrice, sqrtPrice, 1 << 96), 1e18, 1 << 96);
    }

    /// @inheritdoc IVenueAdapter
    /// @dev The venue may close less than asked when one block moves its price too far; it then scales the bound by the same ratio.
    /// Its bound compares quote after fees with us, so fees count as slippage.
    function reduceCalls(address account, bytes calldata market, uint256 size, uint256 limitPrice)
        external
        view
        returns (Execution[] memory calls)
    {
        address base = _base(market);
        int256 held = accountBalance.getTakerPositionSize(account, base);
        uint256 whole = _abs(held);
        if (size == 0 || size > whole) revert NotReducing(held, size);
        bool sale = held > 0;
        // The venue takes a bound of zero for "none".
        uint256 quote = Math.mulDiv(size, limitPrice, 1e18, sale ? Math.Rounding.Ceil : Math.Rounding.Floor);
        if (quote == 0) revert InvalidLimit(limitPrice);
        calls = new Execution[](1);
        calls[0].target = address(clearingHouse);
        calls[0].callData = size == whole
            ? abi.encodeCall(
                IPerpClearingHouse.closePosition,
                (IPerpClearingHouse.ClosePositionParams({
                        baseToken: base,
                        sqrtPriceLimitX96: 0,
                        oppositeAmountBound: quote,
                        deadline: block.timestamp,
                        referralCode: bytes32(0)
                    }))
            )
            : abi.encodeCall(
                IPerpClearingHouse.openPosition,
                (IPerpClearingHouse.OpenPositionParams({
                        baseToken: base,
                        isBaseToQuote: sale,
                        isExactInput: sale,
                        amount: size,
                        oppositeAmountBound: quote,
                        deadline: block.timestamp,
                        sqrtPriceLimitX96: 0,
                        referralCode: bytes32(0)
                    }))
            );
    }

    function _base(bytes calldata market) internal view returns (address base) {
        if (market.length != 32 || uint256(bytes32(market)) >> 160 != 0) revert UnknownMarket(market);
        base = address(uint160(uint256(bytes32(market))));
        if (!marketRegistry.hasPool(base)) revert UnknownMarket(market);
    }

    function _abs(int256 value) private pure returns (uint256) {
        return value < 0 ? uint256(-value) : uint256(value);
    }
}
