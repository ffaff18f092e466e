// SPDX-License-Identifier: MIT
pragma solidity ^0.8.26;

/// @title What an account may call, spend and lose
/// @notice ERC-7579 hook (type 4). Everything is kept per account, set by `onInstall` and by the account's own calls, and told by events.
/// An asset is the address of an ERC-20 token, or zero for the native token.
interface IPolicyHook {
    enum Kind {
        EQUAL, // the word is values[0]
        IN_SET, // the word is one of values
        RANGE, // values[0] <= word <= values[1], unsigned
        SIGNED_RANGE, // the same in two's complement
        MASK, // word & values[0] == values[1]
        SELF, // the word is the address of the account
        ALLOWANCE // the word is taken from the refillable allowance with the id values[0]
    }

    /// One comparison of one 32-byte argument.
    /// @param word index of the argument word after the selector (head or tail: a tail word means something only beside conditions that
    /// bind the head words that point there); `VALUE_WORD` is the native value of the call. A call too short to have it fails.
    struct Condition {
        Kind kind;
        uint16 word;
        bytes32[] values;
    }

    /// What may be called. A call is permitted when a rule for its target and selector (or the target's `ANY_SELECTOR`) exists, and either
    /// has no conditions or all conditions of one of its alternatives hold: an and/or tree of two levels.
    /// @param target zero means the account itself: its own functions, installModule and fallback handlers included.
    /// @param selector zero for plain value without call data.
    /// @param flags `PAYABLE`: native value may go with it. `REDUCING`: it can only reduce risk, so that it passes when a price is missing.
    /// `EXIT_FIRST`: ask the authority first whether the call is a declared exit. `NO_EXECUTOR`: not for executor modules.
    struct Rule {
        address target;
        bytes4 selector;
        uint8 flags;
        Condition[][] anyOf;
    }

    enum Span {
        NONE,
        ROLLING, // any `duration` seconds
        DAY, // calendar days, weeks (from Monday) and months, in UTC shifted by `offsetMinutes`
        WEEK,
        MONTH
    }

    /// How much of an asset may leave the account within a span of time.
    /// @param limit in token units; at most nine significant decimal digits, so that it fits its word exactly.
    /// @param duration seconds, for ROLLING only.
    struct Window {
        address asset;
        Span span;
        uint32 duration;
        int16 offsetMinutes;
        uint256 limit;
    }

    /// The largest standing allowance of `spender` over the account's `token`. `UNLIMITED` permits any and is not counted as spending.
    struct Approval {
        address token;
        address spender;
        uint128 cap;
    }

    /// As in Zodiac Roles v2: every `period` seconds since `timestamp` the balance grows by `refill` up to `maxRefill`. A period of 0 never
    /// refills.
    struct Allowance {
        bytes32 id;
        uint128 refill;
        uint128 maxRefill;
        uint64 period;
        uint128 balance;
        uint64 timestamp;
    }

    /// @param authority the `EmergencyFreeze` that knows exits and guards; zero for none.
    /// @param changeDelay seconds between `announce` and a change of anything here, or the module's removal from an account that does not
    /// delay it itself; 0 for at once.
    /// @param enforceAllowlist false: every call is permitted that nothing else forbids.
    struct Settings {
        address authority;
        uint32 changeDelay;
        bool enforceAllowlist;
    }

    /// onInstall data: abi.encode(InstallData).
    struct InstallData {
        Settings settings;
        Rule[] rules;
        Window[] windows;
        Approval[] approvals;
        Allowance[] allowances;
    }

    error NotInstalled(address account);
    error AlreadyInstalled(address account);
    /// The execution mode, the selector or the encoding is none that the hook can read.
    error Undecodable();
    /// No rule for this target and selector.
    error CallNotAllowed(address target, bytes4 selector);
    /// A rule exists, but no alternative of its conditions holds.
    error ConditionsFailed(address target, bytes4 selector);
    /// The rule does not let native value go with the call.
    error ValueNotAllowed(address target, uint256 value);
    /// Never, whatever the rules say: the hook's own callbacks, and the account itself by an executor.
    error ForbiddenTarget(address target);
    /// The account is not ACTIVE, and the call is no declared exit and comes from no guard.
    error NotPermitted(address target, bytes4 selector);
    error ApprovalNotAllowed(address token, address spender, uint256 amount, uint256 cap);
    error SpendingExceeded(address asset, uint256 window, uint256 amount, uint256 available);
    error AllowanceExceeded(bytes32 id, uint256 amount, uint256 available);
    /// The asset did not tell its balance.
    error BalanceUnreadable(address asset);
    /// Changed in an execution that also makes other calls.
    error NotAlone();
    error InvalidAuthority(address authority);
    error InvalidRule(address target, bytes4 selector);
    error InvalidWindow(uint256 window);
    error InvalidAllowance(bytes32 id);
    error NotAnnounced(bytes32 changeHash);
    error AlreadyAnnounced(bytes32 changeHash);
    error TooEarly(uint48 executableAt);

    event SettingsSet(address indexed account, Settings settings);
    event RuleSet(address indexed account, address indexed target, bytes4 indexed selector, Rule rule, bool enabled);
    event WindowsSet(address indexed account, Window[] windows);
    event BreakerSet(address indexed account, address breaker);
    event ApprovalSet(address indexed account, address indexed token, address indexed spender, uint128 cap);
    event AllowanceSet(address indexed account, bytes32 indexed id, Allowance allowance);
    event ChangeAnnounced(address indexed account, bytes32 indexed changeHash, bytes data, uint48 executableAt);
    event ChangeCancelled(address indexed account, bytes32 indexed changeHash);
    event Spent(address indexed account, address indexed asset, uint256 indexed window, uint256 amount);

    /// @notice Change authority, delay and enforcement. Like every change: by the account, announced when it has a `changeDelay`.
    function setSettings(Settings calldata settings) external;

    /// @notice Permit (or replace), or with `enabled` false remove, what `rule` names by its target and selector.
    function setRule(Rule calldata rule, bool enabled) external;

    /// @notice Replace all windows. What was spent counts on in every window whose asset, span, duration and offset stay.
    function setWindows(Window[] calldata windows) external;

    /// @notice Set the cap of one spender; 0 forbids it.
    function setApproval(Approval calldata approval) external;

    /// @notice Set (or replace) a refillable allowance, its present balance included.
    function setAllowance(Allowance calldata allowance) external;

    /// @notice Have an `IEquityBreaker` measure every outermost execution that is neither exits nor a guard's, or none with zero. The first one
    /// only tightens and needs no announcement; to replace or drop it does. Alone, as windows.
    function setBreaker(address breaker) external;

    /// @notice Announce a later call of the account to this module, or its removal (the call data of the account's `uninstallModule`).
    /// changeHash = keccak256(data). It may be carried out once, from `changeDelay` seconds later on and for 14 days.
    function announce(bytes calldata data) external;

    /// @notice Withdraw an announcement. The account, or its authority.
    function cancel(address account, bytes32 changeHash) external;

    /// @notice The equity breaker; zero for none.
    function breakerOf(address account) external view returns (address);

    /// @notice Whether an execution of the account is under way in this transaction.
    function executing(address account) external view returns (bool);

    function settingsOf(address account) external view returns (bool installed, Settings memory settings);
    function ruleOf(address account, address target, bytes4 selector)
        external
        view
        returns (bool enabled, Rule memory rule);

    /// @notice The windows with what counts as spent in each now and what is left.
    function windowsOf(address account)
        external
        view
        returns (Window[] memory windows, uint256[] memory spent, uint256[] memory available);

    function approvalOf(address account, address token, address spender) external view returns (uint128 cap);

    /// @notice The allowance with its balance accrued to now.
    function allowanceOf(address account, bytes32 id) external view returns (Allowance memory);

    /// @notice When an announced change may be carried out; 0 when there is none or it lapsed.
    function executableAt(address account, bytes32 changeHash) external view returns (uint48);
}
