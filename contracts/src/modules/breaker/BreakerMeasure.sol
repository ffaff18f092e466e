// SPDX-License-Identifier: MIT
pragma solidity ^0.8.26;

import {IERC20} from "@openzeppelin/contracts/token/ERC20/IERC20.sol";
import {Math} from "@openzeppelin/contracts/utils/math/Math.sol";
import {IEquityBreaker} from "../../interfaces/IEquityBreaker.sol";
import {IEquitySource} from "../../interfaces/IEquitySource.sol";
import {OracleConfig} from "../../interfaces/IStopLoss.sol";
import {IVenueAdapter} from "../../interfaces/IVenueAdapter.sol";
import {OracleGuard} from "../../libraries/OracleGuard.sol";
import {BreakerConfig} from "./BreakerConfig.sol";

/// @title What an account is worth, and what left it along exits
/// @dev Every question to an asset or a source has bounded gas, and one that is not answered is a problem, never a zero. Between `enter` and
/// `leave` transient storage keeps what was seen, at account << 96 | field.
abstract contract BreakerMeasure is BreakerConfig {
    uint256 internal constant UNREADABLE = type(uint256).max;
    uint256 private constant BALANCE_GAS = 200_000;
    uint256 private constant SOURCE_GAS = 2_000_000;
    /// Exits of one execution whose arrival is watched; what further ones pay counts as lost.
    uint256 private constant MAX_EXITS = 16;

    uint256 internal constant ENTERED = 1;
    /// Entered without a price.
    uint256 internal constant UNKNOWN = 2;

    uint256 internal constant PHASE_FIELD = 0;
    uint256 internal constant EQUITY_FIELD = 1;
    uint256 private constant EXITS_FIELD = 2;
    uint256 internal constant PRICE_FIELD = 0x100;
    uint256 private constant EXIT_FIELD = 0x200;

    /// @inheritdoc IEquityBreaker
    function equityOf(address account) external view returns (uint256 equity, bytes4 problem, bool confirmed) {
        Kept memory kept = _kept(account);
        uint256[] memory prices;
        (prices, problem) = _prices(kept, false);
        if (problem != 0) return (0, problem, false);
        (equity, problem) = _equity(account, kept, prices);
        (, bytes4 doubt) = _prices(kept, true);
        return (equity, problem, problem == 0 && doubt == 0);
    }

    // ------------------------------------------------------------------ measuring

    /// @dev Prices (1e18) of the assets. `confirmed`: every one held against its second source, else only those that always are.
    function _prices(Kept memory kept, bool confirmed) internal view returns (uint256[] memory prices, bytes4 problem) {
        prices = new uint256[](kept.assets.length);
        for (uint256 i = 0; i < prices.length; ++i) {
            Asset memory asset = kept.assets[i];
            OracleConfig memory oracle = asset.oracle;
            if (oracle.feed.code.length == 0) return (prices, OracleGuard.FeedInvalid.selector);
            address sequencer = oracle.sequencerFeed;
            // One answer about the sequencer serves all assets that ask the same question.
            if (i != 0 && _asksTheSame(kept.assets[i - 1].oracle, oracle)) oracle.sequencerFeed = address(0);
            (prices[i], problem) = OracleGuard.read(oracle);
            oracle.sequencerFeed = sequencer;
            if (problem == 0 && (confirmed || asset.always)) problem = _doubt(asset, prices[i]);
            if (problem != 0) return (prices, problem);
        }
    }

    function _asksTheSame(OracleConfig memory one, OracleConfig memory other) private pure returns (bool) {
        return one.sequencerFeed == other.sequencerFeed && one.gracePeriod >= other.gracePeriod;
    }

    function _doubt(Asset memory asset, uint256 price) private view returns (bytes4) {
        uint256 second = asset.oracle.minPrice;
        uint256 first = asset.oracle.maxPrice;
        if (asset.second != address(0)) {
            first = price;
            second = _ask(asset.second, SOURCE_GAS, abi.encodeCall(IVenueAdapter.venuePrice, (asset.market)));
            if (second == UNREADABLE || second > type(uint128).max) return SourceUnreadable.selector;
        }
        return OracleGuard.deviationBps(first, second) > asset.oracle.maxDeviationBps ? PricesApart.selector : bytes4(0);
    }

    function _equity(address account, Kept memory kept, uint256[] memory prices)
        internal
        view
        returns (uint256, bytes4)
    {
        int256 sum;
        for (uint256 i = 0; i < prices.length; ++i) {
            uint256 balance = _balance(kept.assets[i].token, account);
            if (balance > type(uint112).max) return (0, BalanceUnreadable.selector);
            sum += int256(Math.mulDiv(balance, prices[i], kept.units[i]));
        }
        for (uint256 i = 0; i < kept.sources.length; ++i) {
            uint256 word = _ask(kept.sources[i], SOURCE_GAS, abi.encodeCall(IEquitySource.equity, (account)));
            int256 value = int256(word);
            bool sound = word != UNREADABLE && value >= -int256(uint256(type(uint112).max))
                && value <= int256(uint256(type(uint112).max));
            if (!sound) return (0, SourceUnreadable.selector);
            sum += value;
        }
        return (sum > 0 ? uint256(sum) : 0, 0);
    }

    /// @dev Prices and equity of now. Reverts when they cannot be told.
    function _measured(address account, Kept memory kept)
        internal
        view
        returns (uint256[] memory prices, uint256 equity)
    {
        bytes4 problem;
        (prices, problem) = _prices(kept, false);
        if (problem == 0) (equity, problem) = _equity(account, kept, prices);
        if (problem != 0) revert EquityUnknown(problem);
    }

    function _value(Kept memory kept, uint256[] memory prices, uint256[] memory amounts)
        internal
        pure
        returns (uint256 value)
    {
        for (uint256 i = 0; i < amounts.length; ++i) {
            if (amounts[i] != 0) value += Math.mulDiv(amounts[i], prices[i], kept.units[i]);
        }
    }

    // ------------------------------------------------------------------ the present execution

    function _open(address account, uint256[] memory prices, uint256 equity) internal {
        _tstore(account, PHASE_FIELD, ENTERED);
        _tstore(account, EQUITY_FIELD, equity);
        for (uint256 i = 0; i < prices.length; ++i) {
            _tstore(account, PRICE_FIELD + i, prices[i]);
        }
    }

    function _openingPrices(address account, Kept memory kept) internal view returns (uint256[] memory prices) {
        prices = new uint256[](kept.assets.length);
        for (uint256 i = 0; i < prices.length; ++i) {
            prices[i] = _tload(account, PRICE_FIELD + i);
        }
    }

    // ------------------------------------------------------------------ exits

    /// @dev Watch the recipient of a declared exit: what arrives there is a withdrawal, whatever the call data says beyond it.
    function _noteExit(address account, Kept memory kept, address target, uint256 value, bytes calldata data) internal {
        if (value != 0) _watch(account, kept, address(0), target, value);
        if (data.length < 68) return;
        (uint256 first, uint256 second) = (uint256(bytes32(data[4:36])), uint256(bytes32(data[36:68])));
        if (bytes4(data) == IERC20.transfer.selector) {
            _watch(account, kept, target, address(uint160(first)), second);
        } else if (bytes4(data) == IERC20.transferFrom.selector && data.length >= 100) {
            if (uint160(first) != uint160(account)) return;
            _watch(account, kept, target, address(uint160(second)), uint256(bytes32(data[68:100])));
        }
    }

    function _watch(address account, Kept memory kept, address asset, address to, uint256 amount) private {
        if (_indexOf(kept, asset) == kept.assets.length || to == account || amount == 0) return;
        if (amount > type(uint112).max) amount = type(uint112).max;
        uint256 count = _tload(account, EXITS_FIELD);
        for (uint256 i = 0; i < count; ++i) {
            uint256 at = EXIT_FIELD + 4 * i;
            if (_tload(account, at) == uint160(to) && _tload(account, at + 3) == uint160(asset)) {
                return _tstore(account, at + 1, _tload(account, at + 1) + amount);
            }
        }
        if (count == MAX_EXITS) return;
        uint256 field = EXIT_FIELD + 4 * count;
        _tstore(account, field, uint160(to));
        _tstore(account, field + 1, amount);
        _tstore(account, field + 2, _balance(asset, to));
        _tstore(account, field + 3, uint160(asset));
        _tstore(account, EXITS_FIELD, count + 1);
    }

    /// @dev By asset, what arrived at the watched recipients; forgets them. An unreadable balance before is the largest number.
    function _arrived(address account, Kept memory kept) internal returns (uint256[] memory arrived) {
        arrived = new uint256[](kept.assets.length);
        uint256 count = _tload(account, EXITS_FIELD);
        if (count == 0) return arrived;
        _tstore(account, EXITS_FIELD, 0);
        for (uint256 i = 0; i < count; ++i) {
            uint256 field = EXIT_FIELD + 4 * i;
            address asset = address(uint160(_tload(account, field + 3)));
            uint256 index = _indexOf(kept, asset);
            uint256 before = _tload(account, field + 2);
            uint256 balance = _balance(asset, address(uint160(_tload(account, field))));
            bool arrives = index != arrived.length && balance != UNREADABLE && balance > before;
            if (arrives) arrived[index] += Math.min(balance - before, _tload(account, field + 1));
        }
    }

    /// @dev Keep what no price could value, for the next look that can.
    function _owe(address account, uint256[] memory arrived) internal {
        for (uint256 i = 0; i < arrived.length; ++i) {
            if (arrived[i] == 0) continue;
            _owed[i][account] += arrived[i];
            _accounts[account].owing = true;
        }
    }

    function _takeOwed(address account, uint256 assets) internal returns (uint256[] memory owed) {
        owed = new uint256[](assets);
        for (uint256 i = 0; i < assets; ++i) {
            owed[i] = _owed[i][account];
            if (owed[i] != 0) _owed[i][account] = 0;
        }
        _accounts[account].owing = false;
    }

    // ------------------------------------------------------------------ inside

    /// @dev The number of assets when it is none.
    function _indexOf(Kept memory kept, address asset) internal pure returns (uint256 index) {
        while (index < kept.assets.length && kept.assets[index].token != asset) {
            ++index;
        }
    }

    function _balance(address asset, address account) internal view returns (uint256) {
        if (asset == address(0)) return account.balance;
        return _ask(asset, BALANCE_GAS, abi.encodeCall(IERC20.balanceOf, (account)));
    }

    function _ask(address whom, uint256 gasLimit, bytes memory question) private view returns (uint256 answer) {
        bool answered;
        assembly ("memory-safe") {
            answered := staticcall(gasLimit, whom, add(question, 0x20), mload(question), 0, 0x20)
            answered := and(answered, gt(returndatasize(), 0x1f))
            answer := mload(0)
        }
        if (!answered) return UNREADABLE;
    }

    function _fit(uint256 value) internal pure returns (uint112) {
        return value > type(uint112).max ? type(uint112).max : uint112(value);
    }

    function _tload(address account, uint256 field) internal view returns (uint256 word) {
        assembly ("memory-safe") {
            word := tload(or(shl(96, account), field))
        }
    }

    function _tstore(address account, uint256 field, uint256 word) internal {
        assembly ("memory-safe") {
            tstore(or(shl(96, account), field), word)
        }
    }
}
