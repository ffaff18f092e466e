// SPDX-License-Identifier: MIT
pragma solidity ^0.8.26;

import {Execution} from "@openzeppelin/contracts/interfaces/draft-IERC7579.sol";
import {IDeltaSource} from "../src/interfaces/IDeltaSource.sol";
import {IGuard} from "../src/interfaces/IGuard.sol";
import {IHedgeAdapter} from "../src/interfaces/IHedgeAdapter.sol";

/// A perp market that fills at one price, options with a delta that moves with the underlying, and their adapters, in one contract.
contract HedgeVenue is IHedgeAdapter, IDeltaSource {
    enum Trick {
        NONE,
        REENTER,
        NOTHING,
        WRONG_WAY,
        TOO_MUCH,
        HALF,
        MORE_OPTIONS // the trade changes the options against us
    }

    error TooLittle(uint256 fill, uint256 limit);
    error Unreadable();

    mapping(address account => int256) public sizes;
    mapping(address account => int256) public cash;
    /// delta = options * price / 1000 dollars.
    mapping(address account => int256) public options;
    uint256 public fillPrice;
    uint256 public meanPrice;
    Trick public trick;
    bool public optionsUnreadable;
    bool public perpUnreadable;
    IGuard public guard;
    uint256 public lastLimit;

    function setOptions(address account, int256 amount) external {
        options[account] = amount;
    }

    function setSize(address account, int256 size) external {
        sizes[account] = size;
    }

    function setPrices(uint256 fill, uint256 mean) external {
        (fillPrice, meanPrice) = (fill, mean);
    }

    function setTrick(Trick trick_, IGuard guard_) external {
        (trick, guard) = (trick_, guard_);
    }

    function setUnreadable(bool options_, bool perp) external {
        (optionsUnreadable, perpUnreadable) = (options_, perp);
    }

    function trade(int256 size, uint256 limit) external {
        lastLimit = limit;
        if (size > 0 ? fillPrice > limit : fillPrice < limit) revert TooLittle(fillPrice, limit);
        if (trick == Trick.REENTER) guard.execute(msg.sender, 1);
        if (trick == Trick.NOTHING) return;
        if (trick == Trick.WRONG_WAY) size = -size;
        if (trick == Trick.TOO_MUCH) size += size > 0 ? int256(1) : -1;
        if (trick == Trick.HALF) size /= 2;
        if (trick == Trick.MORE_OPTIONS) options[msg.sender] -= 2 * size * 1000e18 / int256(meanPrice);
        sizes[msg.sender] += size;
        cash[msg.sender] -= size * int256(fillPrice) / 1e18;
    }

    // ---- IDeltaSource

    function delta(address account, uint256 price) external view returns (int256) {
        if (optionsUnreadable) revert Unreadable();
        return options[account] * int256(price) / 1000e18;
    }

    // ---- IHedgeAdapter

    function position(address account, bytes calldata market) public view returns (Position memory p) {
        if (perpUnreadable || abi.decode(market, (address)) != address(this)) revert Unreadable();
        p.size = sizes[account];
    }

    function venuePrice(bytes calldata) external view returns (uint256) {
        return meanPrice;
    }

    function reduceCalls(address, bytes calldata, uint256, uint256) external pure returns (Execution[] memory) {
        revert Unreadable(); // a hedge asks for trades only
    }

    function tradeCalls(address, bytes calldata, int256 size, uint256 limitPrice)
        external
        view
        returns (Execution[] memory calls)
    {
        calls = new Execution[](1);
        calls[0] = Execution(address(this), 0, abi.encodeCall(this.trade, (size, limitPrice)));
    }
}
