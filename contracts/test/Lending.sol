// SPDX-License-Identifier: MIT
pragma solidity ^0.8.26;

import {Execution} from "@openzeppelin/contracts/interfaces/draft-IERC7579.sol";
import {ERC20} from "@openzeppelin/contracts/token/ERC20/ERC20.sol";
import {IGuard} from "../src/interfaces/IGuard.sol";
import {ILendingAdapter} from "../src/interfaces/ILendingAdapter.sol";
import {IVenueAdapter} from "../src/interfaces/IVenueAdapter.sol";

contract Token is ERC20 {
    uint8 private immutable DECIMALS;

    constructor(string memory symbol, uint8 decimals_) ERC20(symbol, symbol) {
        DECIMALS = decimals_;
    }

    function decimals() public view override returns (uint8) {
        return DECIMALS;
    }

    function mint(address to, uint256 amount) external {
        _mint(to, amount);
    }
}

/// One collateral, one debt, and a pool that trades the one for the other, with their adapters, in one contract. It can be told to misbehave.
contract Lending is ILendingAdapter, IVenueAdapter {
    enum Trick {
        NONE,
        KEEP_REPAYMENT,
        KEEP_SUPPLY,
        REENTER,
        LEND_MORE,
        UNREADABLE
    }

    error Unhealthy();
    error TooLittle(uint256 amount, uint256 minimum);
    error Unreadable();

    uint256 public constant THRESHOLD_BPS = 8300;
    Token public immutable weth;
    Token public immutable usdc;
    mapping(address account => uint256) public supplied;
    mapping(address account => uint256) public owed;
    /// Dollars per ETH, 1e8 for the lending venue, 1e18 for the pool.
    uint256 public price = 2000e8;
    uint256 public fill = 2000e18;
    uint256 public mean = 2000e18;
    Trick public trick;
    IGuard public guard;

    constructor(Token weth_, Token usdc_) {
        (weth, usdc) = (weth_, usdc_);
    }

    function setPrices(uint256 dollars) external {
        (price, fill, mean) = (dollars * 1e8, dollars * 1e18, dollars * 1e18);
    }

    function setPool(uint256 fill_, uint256 mean_) external {
        (fill, mean) = (fill_, mean_);
    }

    function setTrick(Trick trick_, IGuard guard_) external {
        (trick, guard) = (trick_, guard_);
    }

    function open(address account, uint256 collateral, uint256 debt) external {
        (supplied[account], owed[account]) = (collateral, debt);
        weth.mint(address(this), collateral);
    }

    // ---- what accounts call

    /// As Aave: what is offered beyond the debt is not taken, and the largest number means all that is supplied.
    function repay(uint256 amount, address account) external {
        if (amount > owed[account]) amount = owed[account];
        usdc.transferFrom(msg.sender, address(this), amount);
        if (trick == Trick.REENTER) guard.execute(account, 1);
        if (trick == Trick.LEND_MORE) owed[account] += 2 * amount;
        if (trick != Trick.KEEP_REPAYMENT) owed[account] -= amount;
    }

    function supply(uint256 amount, address account) external {
        weth.transferFrom(msg.sender, address(this), amount);
        if (trick != Trick.KEEP_SUPPLY) supplied[account] += amount;
    }

    function withdraw(uint256 amount, address to) external {
        if (amount == type(uint256).max) amount = supplied[msg.sender];
        supplied[msg.sender] -= amount;
        if (health(msg.sender).factor < 1e18) revert Unhealthy();
        weth.transfer(to, amount);
    }

    function sell(uint256 amount, uint256 minimum) external {
        weth.transferFrom(msg.sender, address(this), amount);
        uint256 out = amount * fill / 1e30;
        if (out < minimum) revert TooLittle(out, minimum);
        usdc.mint(msg.sender, out);
    }

    // ---- ILendingAdapter

    function health(address account) public view returns (Health memory h) {
        if (trick == Trick.UNREADABLE) revert Unreadable();
        h.collateral = supplied[account] * price / 1e18;
        h.debt = owed[account] * 100;
        h.thresholdBps = THRESHOLD_BPS;
        h.factor = h.debt == 0 ? type(uint256).max : h.collateral * THRESHOLD_BPS * 1e14 / h.debt;
    }

    function market(address account, address collateral, address debt) external view returns (Market memory) {
        if (collateral != address(weth) || debt != address(usdc)) revert Unreadable();
        return Market(supplied[account], owed[account], price, 1e8, THRESHOLD_BPS);
    }

    function repayCalls(address account, address asset, uint256 amount) external view returns (Execution[] memory) {
        return _approved(Token(asset), amount, abi.encodeCall(this.repay, (amount, account)));
    }

    function supplyCalls(address account, address asset, uint256 amount) external view returns (Execution[] memory) {
        return _approved(Token(asset), amount, abi.encodeCall(this.supply, (amount, account)));
    }

    function withdrawCalls(address account, address, uint256 amount) external view returns (Execution[] memory calls) {
        calls = new Execution[](1);
        calls[0] = Execution(address(this), 0, abi.encodeCall(this.withdraw, (amount, account)));
    }

    // ---- IVenueAdapter

    function position(address account, bytes calldata) external view returns (Position memory p) {
        p.size = int256(weth.balanceOf(account));
    }

    function venuePrice(bytes calldata) external view returns (uint256) {
        return mean;
    }

    function reduceCalls(address, bytes calldata, uint256 size, uint256 limitPrice)
        external
        view
        returns (Execution[] memory)
    {
        return _approved(weth, size, abi.encodeCall(this.sell, (size, (size * limitPrice + 1e30 - 1) / 1e30)));
    }

    function _approved(Token token, uint256 amount, bytes memory call) private view returns (Execution[] memory calls) {
        calls = new Execution[](2);
        calls[0] = Execution(address(token), 0, abi.encodeCall(token.approve, (address(this), amount)));
        calls[1] = Execution(address(this), 0, call);
    }
}
