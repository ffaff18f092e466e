// SPDX-License-Identifier: MIT
pragma solidity ^0.8.26;

import {ERC20} from "@openzeppelin/contracts/token/ERC20/ERC20.sol";
import {IEquitySource} from "../src/interfaces/IEquitySource.sol";

/// A venue of bad faith: it pays out what it is told, lends for one call, calls anyone in the middle of anything, and what it says of an
/// account's worth in the middle of a call is a lie.
contract HostileVenue is IEquitySource {
    mapping(address account => int256) public worth;
    uint256 public venuePrice_;
    int256 public lie;
    bool public inside;
    address public callee;
    bytes public callback;
    bool public greedy;
    bytes public answer;

    function setWorth(address account, int256 value) external {
        worth[account] = value;
    }

    function setPrice(uint256 price) external {
        venuePrice_ = price;
    }

    function setCallback(address callee_, bytes calldata data, int256 lie_) external {
        (callee, callback, lie) = (callee_, data, lie_);
    }

    function setGreedy(bool on) external {
        greedy = on;
    }

    function equity(address account) external view returns (int256) {
        if (greedy) while (true) {}
        return inside ? lie : worth[account];
    }

    function venuePrice(bytes calldata) external view returns (uint256) {
        return venuePrice_;
    }

    function trade(ERC20 from, uint256 amount, ERC20 to, uint256 out) external {
        from.transferFrom(msg.sender, address(this), amount);
        reenter();
        to.transfer(msg.sender, out);
    }

    function lend(ERC20 token, uint256 amount) external {
        token.transfer(msg.sender, amount);
        reenter();
        token.transferFrom(msg.sender, address(this), amount);
    }

    /// Once. What a stranger calls to have others read the venue in the middle of its own call. A refusal is kept and not passed on.
    function reenter() public {
        address to = callee;
        if (to == address(0)) return;
        (callee, inside) = (address(0), true);
        (, answer) = to.call(callback);
        inside = false;
    }
}

/// A token whose balances nobody can read, or only for all the gas there is.
contract UnreadableCoin is ERC20("Unreadable", "UNR") {
    enum Trick {
        NONE,
        REVERT,
        BURN_GAS,
        TOO_MUCH,
        BOMB
    }

    Trick public trick;
    uint256 public feeBps;

    function mint(address to, uint256 amount) external {
        _mint(to, amount);
    }

    function setTrick(Trick trick_) external {
        trick = trick_;
    }

    function setFee(uint256 bps) external {
        feeBps = bps;
    }

    function balanceOf(address of_) public view override returns (uint256) {
        if (trick == Trick.REVERT) revert();
        if (trick == Trick.BURN_GAS) while (true) {}
        if (trick == Trick.TOO_MUCH) return type(uint256).max - 1;
        if (trick == Trick.BOMB) {
            assembly {
                return(0, 100000)
            }
        }
        return super.balanceOf(of_);
    }

    function _update(address from, address to, uint256 value) internal override {
        super._update(from, to, value);
        if (feeBps != 0 && from != address(0)) super._update(to, address(0xFEE), value * feeBps / 10_000);
    }
}
