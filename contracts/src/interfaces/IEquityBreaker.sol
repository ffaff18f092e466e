// SPDX-License-Identifier: MIT
pragma solidity ^0.8.26;

import {RiskState} from "./IRiskState.sol";
import {OracleConfig} from "./IStopLoss.sol";

/// @title How much of its equity an account may lose
/// @notice Equity E = sum of balance * price over the configured assets + sum over the configured sources (`IEquitySource`), at least 0, in
/// units of the oracles' quote currency, 1e18 = one. What is not configured counts nothing: forbid it by the hook's allowlist.
///
/// The account's `PolicyHook` reports every outermost execution. E is measured before it and after it, nested executions included, at the
/// prices read before it. Loss = E before - W - E after, where W (a withdrawal) is what arrived at the recipients of declared exits, and never
/// more than the calls said. A loss above the bound reverts. The references of day and drawdown are then scaled by (E before - W) / E before,
/// so that a withdrawal is neither a loss nor a gain; `deposit` scales them the other way. Assets that arrive by any other way are a gain.
///
/// A loss since the day's first look, or from the high-water mark, above its bound latches the state of the account at its authority, which
/// must list this module as a guard. The execution is committed. Executions that are nothing but declared exits or a guard's are not judged;
/// what they withdraw is settled by the next look.
interface IEquityBreaker {
    /// @param token zero for the native token.
    /// @param oracle its price; `maxDeviationBps` holds it against the second source.
    /// @param second `IVenueAdapter` whose `venuePrice(market)` is the second source, or zero: then the bounds of `oracle` are, and must lie within
    /// `maxDeviationBps` of each other, else the asset's gains never raise the mark.
    /// @param always ask the second source for every execution, not only for the mark.
    struct Asset {
        address token;
        address second;
        bool always;
        OracleConfig oracle;
        bytes market;
    }

    /// Bounds in basis points of the equity they are compared with; 0: not bounded.
    /// @param hook the account's `PolicyHook`. @param authority its `EmergencyFreeze`.
    /// @param onDayLoss @param onDrawdown REDUCE_ONLY or FROZEN.
    /// @param changeDelay seconds between the announcement of a change, or of a new mark, and it; 0 for at once.
    /// @param patience seconds for which a breach that only `poke` sees must last before it latches: a look that a lying view, a loan or a lagging
    /// price spoiled is forgotten by the next honest one.
    struct Settings {
        address hook;
        address authority;
        uint16 lossPerOperationBps;
        uint16 lossPerDayBps;
        uint16 drawdownBps;
        RiskState onDayLoss;
        RiskState onDrawdown;
        uint32 changeDelay;
        uint32 patience;
    }

    /// onInstall data: abi.encode(Config).
    struct Config {
        Settings settings;
        Asset[] assets;
        address[] sources;
    }

    /// @param equity @param mark @param dayReference 1e18 = one. @param day days since 1970 (UTC) of the reference.
    /// @param restUntil unix seconds until which drawdown does not latch, because the account came back to ACTIVE.
    /// @param breachedSince unix seconds of the first look of `poke` that saw the present breach; 0: none.
    struct Standing {
        uint256 mark;
        uint256 dayReference;
        uint32 day;
        uint48 restUntil;
        uint48 breachedSince;
    }

    enum Cause {
        DAY_LOSS,
        DRAWDOWN
    }

    error NotInstalled(address account);
    error AlreadyInstalled(address account);
    error NotHook(address caller);
    error InvalidConfig();
    /// A price, a balance or a source does not answer; `reason` is OracleGuard's, or one of the three below. Nothing may increase risk until it
    /// does; declared exits, guards and calls that the hook's rules mark as reducing pass.
    error EquityUnknown(bytes4 reason);
    error BalanceUnreadable();
    error SourceUnreadable();
    error PricesApart();
    error LossPerOperation(uint256 loss, uint256 most);
    /// A call that must be measured inside an execution that began as none.
    error NotMeasured();
    /// Not in the middle of the account's own execution.
    error Executing(address account);
    error NotActive(RiskState state);
    error NotAnAsset(address asset);
    error NotAnnounced(bytes32 changeHash);
    error AlreadyAnnounced(bytes32 changeHash);
    error TooEarly(uint48 executableAt);

    event BreakerConfigured(address indexed account, Config config);
    event ChangeAnnounced(address indexed account, bytes32 indexed changeHash, bytes data, uint48 executableAt);
    event ChangeCancelled(address indexed account, bytes32 indexed changeHash);
    event Latched(address indexed account, Cause cause, RiskState state, uint256 equity, uint256 anchor);
    event BreachSeen(address indexed account, Cause cause, uint256 equity, uint256 anchor);
    event MarkRaised(address indexed account, uint256 mark);
    event MarkReset(address indexed account, uint256 mark);
    event Resting(address indexed account, uint48 until);
    event Withdrawn(address indexed account, uint256 value);
    event Deposited(address indexed account, address indexed asset, uint256 amount, uint256 value);

    /// @notice Measure before an execution. `mayIncrease`: some call of it may increase risk. Only the hook.
    function enter(address account, bool mayIncrease) external;

    /// @notice A declared exit is about to be called. Only the hook.
    function exiting(address account, address target, uint256 value, bytes calldata data) external;

    /// @notice Measure after an execution. `judged`: it was more than exits and a guard's. Only the hook.
    function leave(address account, bool judged, bool mayIncrease) external;

    /// @notice Look at the account between executions: latch a breach that has lasted, raise the mark to what two looks in different blocks both
    /// saw, settle withdrawals. Anyone. Refused while the account executes, and unless it is ACTIVE.
    function poke(address account) external;

    /// @notice Give `amount` of a configured asset to the account as a deposit: references grow with it. Anyone; ERC-20 by allowance to this
    /// contract, native as value.
    function deposit(address account, address asset, uint256 amount) external payable;

    /// @notice Replace everything. References begin anew. By the account, announced when it has a `changeDelay`.
    function configure(Config calldata config) external;

    /// @notice Begin the references anew at the equity of now. By the account, announced likewise.
    function resetMark() external;

    /// @notice Announce a later call of the account to this module. It may be carried out once, `changeDelay` seconds later and for 14 days.
    function announce(bytes calldata data) external;

    /// @notice Withdraw an announcement. The account, or its authority.
    function cancel(address account, bytes32 changeHash) external;

    function executableAt(address account, bytes32 changeHash) external view returns (uint48);
    function configOf(address account) external view returns (bool installed, Config memory config);
    function standingOf(address account) external view returns (Standing memory);

    /// @notice Equity now, or the selector of what is wrong. `confirmed`: the second sources agree too.
    function equityOf(address account) external view returns (uint256 equity, bytes4 problem, bool confirmed);
}
