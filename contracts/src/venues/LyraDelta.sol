// SPDX-License-Identifier: MIT
pragma solidity ^0.8.26;

import {Math} from "@openzeppelin/contracts/utils/math/Math.sol";
import {IDeltaSource} from "../interfaces/IDeltaSource.sol";
import {ILyraCache, ILyraMarket, ILyraViewer} from "./LyraAdapter.sol";

/// @dev What we call of Lyra Avalon's option token beside, written from its public ABI.
interface ILyraHoldings {
    struct Holding {
        uint256 positionId;
        uint256 strikeId;
        uint8 optionType;
        uint256 amount;
        uint256 collateral;
        uint8 state;
    }

    function getOwnerPositions(address owner) external view returns (Holding[] memory);
}

/// @title Net delta of an account's options on Lyra Avalon
/// @notice Every open position of one option market, priced by the venue's own Black-Scholes library at the venue's volatility of its strike (board
/// volatility times skew), its rate and the time that is left, with the underlying where the caller's guarded price has it. The venue's
/// cache of Greeks is not used: it holds the market's totals and is as old as its last update. The error against the exact formula is the
/// library's: below 1e-6 per option on the range that the market trades. A short call's collateral in the base asset is spot, not option.
/// An option that expired has no delta.
contract LyraDelta is IDeltaSource {
    error InvalidVenue(address venue);
    /// More positions than could be summed in a call. Merge or close some.
    error TooMany(address account, uint256 count);

    struct Inputs {
        uint256 timeToExpirySec;
        uint256 volatilityDecimal;
        uint256 spotDecimal;
        uint256 strikePriceDecimal;
        int256 rateDecimal;
    }

    uint256 public constant MAX_POSITIONS = 32;
    uint8 private constant LONG_CALL = 0;
    uint8 private constant LONG_PUT = 1;
    uint8 private constant SHORT_PUT_QUOTE = 4;
    uint8 private constant ACTIVE = 1;
    /// A library's selectors name its structs.
    bytes4 private constant DELTA = bytes4(keccak256("delta(BlackScholes.BlackScholesInputs)"));

    ILyraMarket public immutable optionMarket;
    ILyraHoldings public immutable optionToken;
    ILyraCache public immutable greekCache;
    address public immutable blackScholes;

    /// @param viewer the venue's OptionMarketViewer, from which the other contracts of `optionMarket_` are read once.
    /// @param blackScholes_ the venue's own library, asked for values.
    constructor(address viewer, address optionMarket_, address blackScholes_) {
        ILyraViewer.Addresses memory at = ILyraViewer(viewer).marketAddresses(optionMarket_);
        if (at.optionMarket != optionMarket_ || optionMarket_ == address(0)) revert InvalidVenue(optionMarket_);
        if (blackScholes_.code.length == 0) revert InvalidVenue(blackScholes_);
        optionMarket = ILyraMarket(optionMarket_);
        optionToken = ILyraHoldings(at.optionToken);
        greekCache = ILyraCache(at.greekCache);
        blackScholes = blackScholes_;
    }

    /// @inheritdoc IDeltaSource
    function delta(address account, uint256 price) external view returns (int256 sum) {
        ILyraHoldings.Holding[] memory held = optionToken.getOwnerPositions(account);
        if (held.length == 0) return 0;
        if (held.length > MAX_POSITIONS) revert TooMany(account, held.length);
        int256 rate = greekCache.getGreekCacheParams().rateAndCarry;
        for (uint256 i = 0; i < held.length; ++i) {
            if (held[i].state == ACTIVE && held[i].amount != 0) sum += _delta(held[i], price, rate);
        }
    }

    function _delta(ILyraHoldings.Holding memory held, uint256 price, int256 rate) private view returns (int256) {
        (ILyraMarket.Strike memory strike, ILyraMarket.Board memory board) =
            optionMarket.getStrikeAndBoard(held.strikeId);
        if (block.timestamp >= board.expiry) return 0;
        (bool success, bytes memory answer) = blackScholes.staticcall(
            abi.encodeWithSelector(
                DELTA,
                Inputs(
                    board.expiry - block.timestamp,
                    Math.mulDiv(board.iv, strike.skew, 1e18),
                    price,
                    strike.strikePrice,
                    rate
                )
            )
        );
        if (!success || answer.length != 64) revert InvalidVenue(blackScholes);
        (int256 call, int256 put) = abi.decode(answer, (int256, int256));
        bool isPut = held.optionType == LONG_PUT || held.optionType == SHORT_PUT_QUOTE;
        bool isLong = held.optionType == LONG_CALL || held.optionType == LONG_PUT;
        int256 whole = (isPut ? put : call) * int256(held.amount) / 1e18;
        return isLong ? whole : -whole;
    }
}
