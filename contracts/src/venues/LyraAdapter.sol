// SPDX-License-Identifier: MIT
pragma solidity ^0.8.26;

import {Execution} from "@openzeppelin/contracts/interfaces/draft-IERC7579.sol";
import {IERC20} from "@openzeppelin/contracts/token/ERC20/IERC20.sol";
import {Math} from "@openzeppelin/contracts/utils/math/Math.sol";
import {IVenueAdapter} from "../interfaces/IVenueAdapter.sol";

/// @dev What we call of Lyra Avalon, written from its public ABI.
interface ILyraMarket {
    struct Strike {
        uint256 id;
        uint256 strikePrice;
        uint256 skew;
        uint256 longCall;
        uint256 shortCallBase;
        uint256 shortCallQuote;
        uint256 longPut;
        uint256 shortPut;
        uint256 boardId;
    }

    struct Board {
        uint256 id;
        uint256 expiry;
        uint256 iv;
        bool frozen;
        uint256[] strikeIds;
    }

    struct Trade {
        uint256 strikeId;
        uint256 positionId;
        uint256 iterations;
        uint8 optionType;
        uint256 amount;
        uint256 setCollateralTo;
        uint256 minTotalCost;
        uint256 maxTotalCost;
    }

    function getStrikeAndBoard(uint256 strikeId) external view returns (Strike memory, Board memory);
    function closePosition(Trade calldata trade) external returns (uint256 positionId, uint256 totalCost, uint256 fee);
    function forceClosePosition(Trade calldata trade)
        external
        returns (uint256 positionId, uint256 totalCost, uint256 fee);
}

interface ILyraToken {
    function positions(uint256 id)
        external
        view
        returns (
            uint256 positionId,
            uint256 strikeId,
            uint8 optionType,
            uint256 amount,
            uint256 collateral,
            uint8 state
        );
    function ownerOf(uint256 id) external view returns (address);
}

interface ILyraPricer {
    struct Pricing {
        uint256[7] others;
        uint256 standardSize;
        uint256 skewAdjustmentFactor;
    }

    struct Limits {
        int256 minDelta;
        int256 minForceCloseDelta;
        uint256 tradingCutoff;
        uint256 minBaseIV;
        uint256 maxBaseIV;
        uint256 minSkew;
        uint256 maxSkew;
        uint256 minVol;
        uint256 maxVol;
        uint256 absMinSkew;
        uint256 absMaxSkew;
        bool capSkewsToAbs;
    }

    function getPricingParams() external view returns (Pricing memory);
    function getTradeLimitParams() external view returns (Limits memory);
}

interface ILyraCache {
    struct Parameters {
        uint256[9] others;
        int256 rateAndCarry;
    }

    function getGreekCacheParams() external view returns (Parameters memory);
}

interface ILyraSpot {
    function getSpotPriceForMarket(address market) external view returns (uint256);
}

interface ILyraViewer {
    struct Addresses {
        address liquidityPool;
        address liquidityToken;
        address greekCache;
        address optionMarket;
        address optionMarketPricer;
        address optionToken;
        address shortCollateral;
        address poolHedger;
        address quoteAsset;
        address baseAsset;
    }

    function synthetixAdapter() external view returns (address);
    function marketAddresses(address market) external view returns (Addresses memory);
}

/// @title Lyra Avalon options
/// @notice One position of one option market; `market` is abi.encode(uint256 positionId). A position is seen as the exposure to the
/// underlying that it is: its size is positive when it gains from a rise (long calls, short puts). A limit price is a price of the
/// underlying: the close must bring, or may cost, what the options are worth by the venue's own formula and volatility with the underlying
/// there. The venue's fees, and the volatility by which it prices a forced close worse, count as slippage.
/// @dev Everything at the venue has 18 decimals. `venuePrice` is the oracle price that the venue itself trades at, which no trade can set.
contract LyraAdapter is IVenueAdapter {
    error UnknownMarket(bytes market);
    error NotReducing(uint256 amount, uint256 size);
    error InvalidLimit(uint256 limitPrice);
    /// Too late to trade: it is settled by the venue's `settleExpiredBoard` and `settleOptions`, which anyone may call.
    error Expired(uint256 positionId, uint256 expiry);
    error InvalidVenue(address venue);

    struct Inputs {
        uint256 timeToExpirySec;
        uint256 volatilityDecimal;
        uint256 spotDecimal;
        uint256 strikePriceDecimal;
        int256 rateDecimal;
    }

    struct Held {
        uint256 id;
        uint256 strikeId;
        uint8 kind;
        uint256 amount;
        uint256 collateral;
        uint256 strikePrice;
        uint256 expiry;
        uint256 iv;
        uint256 skew;
    }

    uint8 private constant LONG_CALL = 0;
    uint8 private constant LONG_PUT = 1;
    uint8 private constant SHORT_PUT_QUOTE = 4;
    uint8 private constant ACTIVE = 1;
    /// A library's selectors name its structs.
    bytes4 private constant OPTION_PRICES = bytes4(keccak256("optionPrices(BlackScholes.BlackScholesInputs)"));
    bytes4 private constant DELTA = bytes4(keccak256("delta(BlackScholes.BlackScholesInputs)"));

    ILyraMarket public immutable optionMarket;
    ILyraToken public immutable optionToken;
    ILyraPricer public immutable pricer;
    ILyraCache public immutable greekCache;
    ILyraSpot public immutable spot;
    IERC20 public immutable quoteAsset;
    address public immutable blackScholes;

    /// @param viewer the venue's OptionMarketViewer, from which the other contracts of `optionMarket_` are read once.
    /// @param blackScholes_ the venue's own library, asked for values.
    constructor(address viewer, address optionMarket_, address blackScholes_) {
        ILyraViewer.Addresses memory at = ILyraViewer(viewer).marketAddresses(optionMarket_);
        if (at.optionMarket != optionMarket_ || optionMarket_ == address(0)) revert InvalidVenue(optionMarket_);
        if (blackScholes_.code.length == 0) revert InvalidVenue(blackScholes_);
        optionMarket = ILyraMarket(optionMarket_);
        optionToken = ILyraToken(at.optionToken);
        pricer = ILyraPricer(at.optionMarketPricer);
        greekCache = ILyraCache(at.greekCache);
        quoteAsset = IERC20(at.quoteAsset);
        spot = ILyraSpot(ILyraViewer(viewer).synthetixAdapter());
        blackScholes = blackScholes_;
    }

    /// @inheritdoc IVenueAdapter
    /// @dev Debt: the most that a short comes to owe at present, strike x amount of puts and price x amount of calls.
    function position(address account, bytes calldata market) external view returns (Position memory p) {
        Held memory h = _held(account, market);
        if (h.amount == 0) return p;
        uint256 price = _spotPrice();
        p.size = _gainsFromRise(h.kind) ? int256(h.amount) : -int256(h.amount);
        p.notional = Math.mulDiv(_value(h, price), h.amount, 1e18);
        if (_isLong(h.kind)) return p;
        p.debt = Math.mulDiv(h.kind == SHORT_PUT_QUOTE ? h.strikePrice : price, h.amount, 1e18, Math.Rounding.Ceil);
    }

    /// @inheritdoc IVenueAdapter
    function venuePrice(bytes calldata market) external view returns (uint256) {
        _id(market);
        return _spotPrice();
    }

    /// @inheritdoc IVenueAdapter
    /// @dev Closes within the market's limits of delta and volatility, else by force. Part of a short keeps its share of the collateral.
    /// What buying a short back costs beyond the collateral set free is drawn from the account, by an allowance of the bound and no longer.
    function reduceCalls(address account, bytes calldata market, uint256 size, uint256 limitPrice)
        external
        view
        returns (Execution[] memory calls)
    {
        Held memory h = _held(account, market);
        if (size == 0 || size > h.amount) revert NotReducing(h.amount, size);
        if (block.timestamp >= h.expiry) revert Expired(h.id, h.expiry);
        if (limitPrice == 0) revert InvalidLimit(limitPrice);
        bool long = _isLong(h.kind);
        uint256 bound = Math.mulDiv(_value(h, limitPrice), size, 1e18, long ? Math.Rounding.Ceil : Math.Rounding.Floor);
        ILyraMarket.Trade memory trade = ILyraMarket.Trade({
            strikeId: h.strikeId,
            positionId: h.id,
            iterations: 1,
            optionType: h.kind,
            amount: size,
            setCollateralTo: Math.mulDiv(h.collateral, h.amount - size, h.amount, Math.Rounding.Ceil),
            minTotalCost: long ? bound : 0,
            maxTotalCost: long ? type(uint256).max : bound
        });
        Execution memory close = Execution({
            target: address(optionMarket),
            value: 0,
            callData: _withinLimits(h, size)
                ? abi.encodeCall(ILyraMarket.closePosition, (trade))
                : abi.encodeCall(ILyraMarket.forceClosePosition, (trade))
        });
        if (long) {
            calls = new Execution[](1);
            calls[0] = close;
        } else {
            calls = new Execution[](3);
            (calls[0], calls[1], calls[2]) = (_allow(bound), close, _allow(0));
        }
    }

    // ------------------------------------------------------------------ reading

    function _id(bytes calldata market) private view returns (uint256 id) {
        if (market.length != 32) revert UnknownMarket(market);
        id = uint256(bytes32(market));
        (uint256 known,,,,,) = optionToken.positions(id);
        if (id == 0 || known != id) revert UnknownMarket(market);
    }

    /// @dev Nothing when the position is closed, or is another's.
    function _held(address account, bytes calldata market) private view returns (Held memory h) {
        uint256 id = _id(market);
        uint8 state;
        uint256 amount;
        (h.id, h.strikeId, h.kind, amount, h.collateral, state) = optionToken.positions(id);
        if (state != ACTIVE || optionToken.ownerOf(id) != account) return h;
        h.amount = amount;
        (ILyraMarket.Strike memory strike, ILyraMarket.Board memory board) = optionMarket.getStrikeAndBoard(h.strikeId);
        (h.strikePrice, h.skew, h.expiry, h.iv) = (strike.strikePrice, strike.skew, board.expiry, board.iv);
    }

    function _spotPrice() private view returns (uint256) {
        return spot.getSpotPriceForMarket(address(optionMarket));
    }

    function _isLong(uint8 kind) private pure returns (bool) {
        return kind == LONG_CALL || kind == LONG_PUT;
    }

    function _isPut(uint8 kind) private pure returns (bool) {
        return kind == LONG_PUT || kind == SHORT_PUT_QUOTE;
    }

    function _gainsFromRise(uint8 kind) private pure returns (bool) {
        return kind == LONG_CALL || kind == SHORT_PUT_QUOTE;
    }

    // ------------------------------------------------------------------ valuing

    function _inputs(Held memory h, uint256 vol, uint256 price) private view returns (Inputs memory) {
        uint256 left = block.timestamp < h.expiry ? h.expiry - block.timestamp : 0;
        return Inputs(left, vol, price, h.strikePrice, greekCache.getGreekCacheParams().rateAndCarry);
    }

    /// @dev Of one option at the venue's volatility of its strike, with the underlying at `price`.
    function _value(Held memory h, uint256 price) private view returns (uint256) {
        (uint256 call, uint256 put) =
            abi.decode(_ask(OPTION_PRICES, _inputs(h, Math.mulDiv(h.iv, h.skew, 1e18), price)), (uint256, uint256));
        return _isPut(h.kind) ? put : call;
    }

    function _ask(bytes4 selector, Inputs memory inputs) private view returns (bytes memory answer) {
        bool success;
        (success, answer) = blackScholes.staticcall(abi.encodeWithSelector(selector, inputs));
        if (!success || answer.length != 64) revert InvalidVenue(blackScholes);
    }

    /// @dev Whether the market takes an ordinary close: the volatility that the close itself moves, and the delta at it, are inside its limits.
    function _withinLimits(Held memory h, uint256 size) private view returns (bool) {
        ILyraPricer.Limits memory l = pricer.getTradeLimitParams();
        if (block.timestamp + l.tradingCutoff > h.expiry) return false;
        ILyraPricer.Pricing memory p = pricer.getPricingParams();
        uint256 ivMove = Math.mulDiv(size, 1e18, p.standardSize) / 100;
        uint256 skewMove = Math.mulDiv(ivMove, p.skewAdjustmentFactor, 1e18);
        uint256 iv;
        uint256 skew;
        uint256 vol;
        if (_isLong(h.kind)) {
            if (ivMove >= h.iv || skewMove >= h.skew) return false;
            (iv, skew) = (h.iv - ivMove, h.skew - skewMove);
            vol = Math.mulDiv(iv, skew, 1e18);
            if (vol < l.minVol || iv < l.minBaseIV || skew < l.minSkew) return false;
        } else {
            (iv, skew) = (h.iv + ivMove, h.skew + skewMove);
            vol = Math.mulDiv(iv, skew, 1e18);
            if (vol > l.maxVol || iv > l.maxBaseIV || skew > l.maxSkew) return false;
        }
        (int256 delta,) = abi.decode(_ask(DELTA, _inputs(h, vol, _spotPrice())), (int256, int256));
        return delta >= l.minDelta && delta <= 1e18 - l.minDelta;
    }

    function _allow(uint256 amount) private view returns (Execution memory) {
        return Execution({
            target: address(quoteAsset),
            value: 0,
            callData: abi.encodeCall(IERC20.approve, (address(optionMarket), amount))
        });
    }
}
