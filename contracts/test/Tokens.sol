// SPDX-License-Identifier: MIT
pragma solidity ^0.8.26;

import {ERC20} from "@openzeppelin/contracts/token/ERC20/ERC20.sol";

/// A token that anyone may mint.
contract Coin is ERC20("Coin", "COIN") {
    uint8 private immutable DECIMALS;

    constructor(uint8 decimals_) {
        DECIMALS = decimals_;
    }

    function decimals() public view override returns (uint8) {
        return DECIMALS;
    }

    function mint(address to, uint256 amount) external {
        _mint(to, amount);
    }

    function burn(uint256 amount) external {
        _burn(msg.sender, amount);
    }

    function increaseAllowance(address spender, uint256 added) external {
        _approve(msg.sender, spender, allowance(msg.sender, spender) + added);
    }
}

/// A token of bad faith.
contract HostileCoin is ERC20("Hostile", "BAD") {
    uint256 public feeBps;
    uint256 public lie;
    bool public lies;
    bool public mute;
    address public callee;
    bytes public callback;

    function mint(address to, uint256 amount) external {
        _mint(to, amount);
    }

    function setFee(uint256 bps) external {
        feeBps = bps;
    }

    function setLie(uint256 balance) external {
        (lies, lie) = (true, balance);
    }

    function setMute(bool on) external {
        mute = on;
    }

    function setCallback(address callee_, bytes calldata data) external {
        (callee, callback) = (callee_, data);
    }

    function balanceOf(address of_) public view override returns (uint256) {
        require(!mute);
        return lies ? lie : super.balanceOf(of_);
    }

    function _update(address from, address to, uint256 value) internal override {
        super._update(from, to, value);
        if (from == address(0) || to == address(0)) return;
        if (feeBps != 0) super._update(from, address(0xFEE), value * feeBps / 10_000); // taken from the sender, on top
        if (callee != address(0)) {
            (bool success, bytes memory answer) = callee.call(callback);
            if (!success) {
                assembly {
                    revert(add(answer, 0x20), mload(answer))
                }
            }
        }
    }
}

/// Takes what it is allowed to take, and hands out.
contract Router {
    function pull(ERC20 token, uint256 amount) external payable {
        token.transferFrom(msg.sender, address(this), amount);
    }

    function pullFrom(ERC20 token, address from, uint256 amount) external {
        token.transferFrom(from, address(this), amount);
    }

    function swap(ERC20 from, uint256 amount, ERC20 to, uint256 out) external {
        from.transferFrom(msg.sender, address(this), amount);
        to.transfer(msg.sender, out);
    }

    function give(ERC20 token, address to, uint256 amount) external {
        token.transfer(to, amount);
    }

    function pay(address payable to, uint256 amount) external {
        to.transfer(amount);
    }

    receive() external payable {}
}
