// SPDX-License-Identifier: MIT
pragma solidity ^0.8.26;

import {Execution} from "@openzeppelin/contracts/interfaces/draft-IERC7579.sol";
import {ERC20} from "@openzeppelin/contracts/token/ERC20/ERC20.sol";
import {IGuard} from "../src/interfaces/IGuard.sol";
import {IRouteAdapter} from "../src/interfaces/IRouteAdapter.sol";

interface IMintable {
    function mint(address to, uint256 amount) external;
}

/// Pools of one exchange, told apart by their fee, and their adapter in one contract. Each can be told to misbehave.
contract Exchange is IRouteAdapter {
    enum Trick {
        NONE,
        REENTER,
        KEEP, // takes and gives nothing
        SHORT, // gives a little less than the least
        TAKE_MORE,
        TAKE_NOTHING
    }

    /// @param lossBps how much worse than the price it fills, `quoteBps` than it says, `meanBps` how far above the price its mean is.
    struct Pool {
        bool exists;
        int256 lossBps;
        int256 quoteBps;
        int256 meanBps;
        bool deaf;
        bool unreadable;
        Trick trick;
    }

    error TooLittle(uint256 amount, uint256 minimum);
    error NoPool(uint24 fee);
    error Unreadable();

    mapping(uint24 fee => Pool) public pools;
    /// Dollars per whole token, 1e18.
    mapping(address token => uint256) public price;
    IGuard public guard;
    uint256 public swaps;
    uint24 public lastFee;

    constructor(IGuard guard_) {
        guard = guard_;
    }

    function setPrice(address token, uint256 wad) external {
        price[token] = wad;
    }

    function setPool(uint24 fee, int256 lossBps, int256 quoteBps, int256 meanBps) external {
        Pool storage pool = pools[fee];
        (pool.exists, pool.lossBps, pool.quoteBps, pool.meanBps) = (true, lossBps, quoteBps, meanBps);
    }

    function setTrick(uint24 fee, Trick trick, bool deaf, bool unreadable) external {
        (pools[fee].trick, pools[fee].deaf, pools[fee].unreadable) = (trick, deaf, unreadable);
    }

    // ---- what accounts call

    function swap(ERC20 from, ERC20 to, uint24 fee, uint256 amount, uint256 minimum) external {
        Pool memory pool = pools[fee];
        (++swaps, lastFee = fee);
        if (pool.trick == Trick.REENTER) guard.execute(msg.sender, 1);
        if (pool.trick == Trick.TAKE_NOTHING) return;
        from.transferFrom(msg.sender, address(this), amount);
        if (pool.trick == Trick.TAKE_MORE) from.transferFrom(msg.sender, address(this), 1);
        if (pool.trick == Trick.KEEP) return;
        uint256 out = _out(address(from), address(to), amount, pool.lossBps);
        if (pool.trick == Trick.SHORT) out = minimum - 1;
        else if (out < minimum) revert TooLittle(out, minimum);
        IMintable(address(to)).mint(msg.sender, out);
    }

    // ---- IRouteAdapter

    function quote(bytes calldata market, uint256 size) external returns (uint256) {
        (address from, address to, Pool memory pool) = _market(market);
        if (pool.deaf) revert Unreadable();
        ++swaps;
        --swaps; // no view, as the real one
        uint256 amount = size / 10 ** (18 - ERC20(from).decimals());
        uint256 out = _out(from, to, amount, pool.lossBps - pool.quoteBps);
        return out * 10 ** (18 - ERC20(to).decimals()) * 1e18 / size;
    }

    function venuePrice(bytes calldata market) external view returns (uint256) {
        (address from, address to, Pool memory pool) = _market(market);
        if (pool.unreadable) revert Unreadable();
        return price[from] * 1e18 / price[to] * uint256(10_000 + pool.meanBps) / 10_000;
    }

    function position(address account, bytes calldata market) external view returns (Position memory p) {
        (address from,,) = _market(market);
        p.size = int256(ERC20(from).balanceOf(account));
    }

    function reduceCalls(address, bytes calldata market, uint256 size, uint256 limitPrice)
        external
        view
        returns (Execution[] memory calls)
    {
        (address from, address to, Pool memory pool) = _market(market);
        uint256 amount = size / 10 ** (18 - ERC20(from).decimals());
        uint256 unit = 10 ** (18 - ERC20(to).decimals());
        uint256 minimum = ((size * limitPrice + 1e18 - 1) / 1e18 + unit - 1) / unit;
        (,, uint24 fee) = abi.decode(market, (address, address, uint24));
        uint256 allowed = pool.trick == Trick.TAKE_MORE ? amount + 1 : amount;
        calls = new Execution[](2);
        calls[0] = Execution(from, 0, abi.encodeCall(ERC20.approve, (address(this), allowed)));
        calls[1] =
            Execution(address(this), 0, abi.encodeCall(this.swap, (ERC20(from), ERC20(to), fee, amount, minimum)));
    }

    function _out(address from, address to, uint256 amount, int256 lossBps) private view returns (uint256) {
        uint256 fair = amount * price[from] / 10 ** ERC20(from).decimals() * 10 ** ERC20(to).decimals() / price[to];
        return fair * uint256(10_000 - lossBps) / 10_000;
    }

    function _market(bytes calldata market) private view returns (address from, address to, Pool memory pool) {
        uint24 fee;
        (from, to, fee) = abi.decode(market, (address, address, uint24));
        pool = pools[fee];
        if (!pool.exists) revert NoPool(fee);
    }
}
