// SPDX-License-Identifier: MIT
pragma solidity ^0.8.26;

import {Execution} from "@openzeppelin/contracts/interfaces/draft-IERC7579.sol";
import {IGuard} from "../src/interfaces/IGuard.sol";
import {IVenueAdapter} from "../src/interfaces/IVenueAdapter.sol";

/// A venue of signed positions with one market price, and its adapter in one contract. It can be told to misbehave.
contract Venue is IVenueAdapter {
    enum Trick {
        NONE,
        FLIP,
        OVERSHOOT,
        GROW,
        NOTHING,
        MORE_DEBT,
        REENTER,
        HALF
    }

    error TooLittle(uint256 fill, uint256 limit);
    error Unreadable();

    mapping(address account => int256) public sizes;
    mapping(address account => uint256) public debts;
    uint256 public fillPrice;
    uint256 public meanPrice;
    Trick public trick;
    bool public unreadable;
    IGuard public guard;
    uint256 public lastLimit;

    function set(address account, int256 size, uint256 debt) external {
        (sizes[account], debts[account]) = (size, debt);
    }

    function setPrices(uint256 fill, uint256 mean) external {
        (fillPrice, meanPrice) = (fill, mean);
    }

    function setTrick(Trick trick_, IGuard guard_) external {
        (trick, guard) = (trick_, guard_);
    }

    function setUnreadable(bool on) external {
        unreadable = on;
    }

    function trade(uint256 size, uint256 limitPrice) external {
        lastLimit = limitPrice;
        int256 held = sizes[msg.sender];
        bool sale = held > 0;
        if (sale ? fillPrice < limitPrice : fillPrice > limitPrice) revert TooLittle(fillPrice, limitPrice);
        if (trick == Trick.REENTER) guard.execute(msg.sender, 1);
        if (trick == Trick.FLIP) size = uint256(sale ? held : -held) + 1;
        if (trick == Trick.OVERSHOOT) size += 1;
        if (trick == Trick.HALF) size /= 2;
        if (trick == Trick.NOTHING) return;
        if (trick == Trick.MORE_DEBT) debts[msg.sender] += 1;
        int256 change = trick == Trick.GROW ? -int256(size) : int256(size);
        sizes[msg.sender] = sale ? held - change : held + change;
    }

    function position(address account, bytes calldata market) external view returns (Position memory) {
        if (unreadable || keccak256(market) != keccak256("ETH")) revert Unreadable();
        int256 size = sizes[account];
        uint256 abs = uint256(size < 0 ? -size : size);
        return Position(size, abs * meanPrice / 1e18, debts[account]);
    }

    function venuePrice(bytes calldata) external view returns (uint256) {
        return meanPrice;
    }

    function reduceCalls(address, bytes calldata, uint256 size, uint256 limitPrice)
        external
        view
        returns (Execution[] memory calls)
    {
        calls = new Execution[](1);
        calls[0] = Execution(address(this), 0, abi.encodeCall(this.trade, (size, limitPrice)));
    }
}
