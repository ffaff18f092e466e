// SPDX-License-Identifier: MIT
pragma solidity ^0.8.26;

import {IERC20Metadata} from "@openzeppelin/contracts/token/ERC20/extensions/IERC20Metadata.sol";
import {SSTORE2} from "solady/utils/SSTORE2.sol";
import {IEquityBreaker} from "../../interfaces/IEquityBreaker.sol";
import {RiskState} from "../../interfaces/IRiskState.sol";

/// @title What an EquityBreaker knows of each account
/// @dev The configuration is code: one cold read whatever its length. It never changes in place.
abstract contract BreakerConfig is IEquityBreaker {
    /// @param config where the configuration is kept; zero: not installed. @param owing withdrawals wait to be settled.
    struct Account {
        address config;
        uint32 generation;
        bool owing;
    }

    /// @dev One word.
    struct Marks {
        uint112 mark;
        uint112 dayReference;
        uint32 day;
    }

    /// @param seen equity at the last confirmed look of `poke`, `seenAt` (0: none).
    /// @dev One word.
    struct Looks {
        uint112 seen;
        uint48 seenAt;
        uint48 breachedSince;
        uint48 restUntil;
    }

    struct Announcement {
        uint32 generation;
        uint48 executableAt;
    }

    /// @dev `Config` with the decimals of the assets' tokens, and without their markets, which are behind `markets`.
    struct Kept {
        Settings settings;
        Asset[] assets;
        uint256[] units;
        address[] sources;
    }

    uint48 public constant CHANGE_WINDOW = 14 days;
    uint256 public constant MAX_ASSETS = 16;
    uint256 public constant MAX_SOURCES = 8;
    uint256 private constant MAX_DECIMALS = 36;
    uint256 internal constant BPS = 10_000;

    mapping(address account => Account) internal _accounts;
    mapping(address account => Marks) internal _marks;
    mapping(address account => Looks) internal _looks;
    /// The state's epoch at its authority when the breaker last latched or saw a return to ACTIVE.
    mapping(address account => uint64) internal _epochs;
    /// What exits withdrew and no look has settled, by the asset's place.
    mapping(uint256 asset => mapping(address account => uint256)) internal _owed;
    mapping(bytes32 changeHash => mapping(address account => Announcement)) private _announcements;

    // ------------------------------------------------------------------ changes

    /// @inheritdoc IEquityBreaker
    function announce(bytes calldata data) external {
        Kept memory kept = _kept(msg.sender);
        bytes32 changeHash = keccak256(data);
        if (executableAt(msg.sender, changeHash) != 0) revert AlreadyAnnounced(changeHash);
        uint48 time = uint48(block.timestamp) + kept.settings.changeDelay;
        _announcements[changeHash][msg.sender] =
            Announcement({generation: _accounts[msg.sender].generation, executableAt: time});
        emit ChangeAnnounced(msg.sender, changeHash, data, time);
    }

    /// @inheritdoc IEquityBreaker
    function cancel(address account, bytes32 changeHash) external {
        Kept memory kept = _kept(account);
        if (msg.sender != account && msg.sender != kept.settings.authority) revert NotInstalled(msg.sender);
        if (executableAt(account, changeHash) == 0) revert NotAnnounced(changeHash);
        delete _announcements[changeHash][account];
        emit ChangeCancelled(account, changeHash);
    }

    /// @inheritdoc IEquityBreaker
    function executableAt(address account, bytes32 changeHash) public view returns (uint48) {
        Announcement memory announcement = _announcements[changeHash][account];
        Account memory a = _accounts[account];
        bool alive = a.config != address(0) && announcement.generation == a.generation
            && block.timestamp <= announcement.executableAt + CHANGE_WINDOW;
        return alive ? announcement.executableAt : 0;
    }

    // ------------------------------------------------------------------ views

    /// @inheritdoc IEquityBreaker
    function configOf(address account) external view returns (bool installed, Config memory config) {
        if (_accounts[account].config == address(0)) return (false, config);
        Kept memory kept = _kept(account);
        return (true, Config({settings: kept.settings, assets: kept.assets, sources: kept.sources}));
    }

    /// @inheritdoc IEquityBreaker
    function standingOf(address account) external view returns (Standing memory) {
        (Marks memory marks, Looks memory looks) = (_marks[account], _looks[account]);
        return Standing(marks.mark, marks.dayReference, marks.day, looks.restUntil, looks.breachedSince);
    }

    // ------------------------------------------------------------------ inside

    function _kept(address account) internal view returns (Kept memory kept) {
        address pointer = _accounts[account].config;
        if (pointer == address(0)) revert NotInstalled(account);
        return abi.decode(SSTORE2.read(pointer), (Kept));
    }

    /// @dev A change by the calling account: at once without a delay, else as announced and once.
    function _consumeAnnouncement(Settings memory settings) internal {
        if (settings.changeDelay == 0) return;
        bytes32 changeHash = keccak256(msg.data);
        uint48 time = executableAt(msg.sender, changeHash);
        if (time == 0) revert NotAnnounced(changeHash);
        if (block.timestamp < time) revert TooEarly(time);
        delete _announcements[changeHash][msg.sender];
    }

    function _keep(Config memory config) internal returns (Kept memory kept) {
        kept = Kept(config.settings, config.assets, new uint256[](config.assets.length), config.sources);
        Settings memory s = config.settings;
        bool sound = s.hook.code.length != 0 && s.authority.code.length != 0 && s.lossPerOperationBps <= BPS
            && s.lossPerDayBps <= BPS && s.drawdownBps <= BPS && s.onDayLoss != RiskState.ACTIVE
            && s.onDrawdown != RiskState.ACTIVE && config.assets.length <= MAX_ASSETS
            && config.sources.length <= MAX_SOURCES;
        for (uint256 i = 0; sound && i < config.assets.length; ++i) {
            Asset memory asset = config.assets[i];
            uint256 decimals = asset.token == address(0) ? 18 : IERC20Metadata(asset.token).decimals();
            sound = asset.oracle.feed.code.length != 0 && asset.oracle.heartbeat != 0 && decimals <= MAX_DECIMALS
                && asset.oracle.minPrice != 0 && asset.oracle.minPrice < asset.oracle.maxPrice
                && (asset.second != address(0) || !asset.always);
            kept.units[i] = 10 ** decimals;
            for (uint256 j = 0; j < i; ++j) {
                sound = sound && config.assets[j].token != asset.token;
            }
        }
        for (uint256 i = 0; sound && i < config.sources.length; ++i) {
            sound = config.sources[i].code.length != 0;
            for (uint256 j = 0; j < i; ++j) {
                sound = sound && config.sources[j] != config.sources[i];
            }
        }
        if (!sound) revert InvalidConfig();
        for (uint256 i = 0; i < MAX_ASSETS && _accounts[msg.sender].owing; ++i) {
            delete _owed[i][msg.sender];
        }
        _accounts[msg.sender].owing = false;
        _accounts[msg.sender].config = SSTORE2.write(abi.encode(kept));
        emit BreakerConfigured(msg.sender, config);
    }
}
